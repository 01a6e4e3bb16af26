"""Sweeps: which points are evaluated, in what order, how many at once, and by whom."""

from __future__ import annotations

import operator
import re
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from accel.errors import ConfigError
from accel.explore.chunks import Evaluation, Local
from accel.explore.indices import Indices, order
from accel.explore.samplers import GENERATIONS, Costs, Study
from accel.explore.space import MAXIMIZED, Space
from accel.explore.store import Folder

if TYPE_CHECKING:
    import pyarrow as pa

Sampler = Literal["grid", "random", "nsga2", "tpe"]

MAX_WORKERS = 1024
CHUNK_SECONDS = 0.5
"""What a chunk of points should take: progress and stops are as prompt, and handing it out costs little."""
_FIRST_CHUNK, _MAX_CHUNK = 16, 4096


@dataclass(frozen=True)
class Budget:
    """How far a sweep goes: the first `points` of its order, whenever they were evaluated; `seconds` of this run."""

    points: int | None = None
    seconds: float | None = None

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Return the budget of a text like 500 (points), 90s, 10m or 2h."""
        match = re.fullmatch(r"([0-9]{1,12})([smh]?)", text)
        if match is None or not int(match[1]):
            raise ConfigError(f"budget must be a number of points or a time like 90s, 10m or 2h, not {text!r}")
        number, unit = int(match[1]), match[2]
        return cls(points=number) if not unit else cls(seconds=number * {"s": 1.0, "m": 60.0, "h": 3600.0}[unit])


@dataclass(frozen=True)
class Progress:
    """How far a sweep is."""

    done: int
    """Points of this run."""
    total: int
    """Points that this run is to evaluate, if time allows."""
    problems: int
    """Of `done`, those that cannot run."""
    seconds: float
    seconds_left: float | None
    """None while nothing is known."""


def sweep(
    space: Space | str | Path,
    folder: Folder | str | Path,
    *,
    sampler: Sampler = "grid",
    seed: int = 0,
    budget: Budget | str | None = None,
    workers: int = 1,
    scheduler: str | None = None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Evaluate the points of a space that its folder lacks, in the order of `sampler`, and add their rows to it.

    `space` is a space or its file, `folder` one that is open or its path. Ends at `budget`, as in `Budget.parse`; the samplers
    that learn, nsga2 and tpe, need one. What was evaluated until then, or until an interruption, stays. `workers` are processes
    on this computer; `scheduler` is the address of a Dask scheduler whose workers are used instead. `report` hears of every few
    points. Raises `ConfigError`.
    """
    space = space if isinstance(space, Space) else Space.load(space)
    budget = Budget.parse(budget) if isinstance(budget, str) else budget or Budget()
    check_options(sampler, budget, workers, scheduler)
    with folder_of(folder, space) as place, _evaluation(space, workers, scheduler) as evaluation:
        run = _Run(space, place, evaluation, budget.seconds, report)
        if sampler == "grid" or sampler == "random":
            _fixed(run, sampler, seed, budget)
        else:
            _learning(run, Study(space, sampler, seed), budget)
        return run.progress


def check_options(sampler: str, budget: Budget, workers: int, scheduler: str | None) -> None:
    """Refuse what `sweep` cannot do, before anything is written."""
    if sampler not in get_args(Sampler):
        raise ConfigError(f"sampler must be one of {', '.join(get_args(Sampler))}, not {sampler!r}")
    if sampler in GENERATIONS and budget == Budget():
        raise ConfigError(f"budget must be given with sampler {sampler}: points or a time, like 500 or 10m")
    if not 1 <= workers <= MAX_WORKERS:
        raise ConfigError(f"workers must be between 1 and {MAX_WORKERS}, not {workers}")
    if scheduler is not None and workers != 1:
        raise ConfigError(f"workers must be those of scheduler {scheduler}, not {workers} more; leave out one of both")


def folder_of(folder: Folder | str | Path, space: Space) -> AbstractContextManager[Folder]:
    """Return a folder to use, which is closed afterwards if it was not open."""
    return nullcontext(folder) if isinstance(folder, Folder) else Folder(folder, space)


def _evaluation(space: Space, workers: int, scheduler: str | None) -> AbstractContextManager[Evaluation]:
    if workers == 1 and scheduler is None:
        return nullcontext(Local(space))
    try:
        from accel.explore.cluster import evaluation
    except ImportError:
        raise ConfigError("workers need Dask's distributed, which is not installed; install nm-accel[explore]") from None
    return evaluation(space, workers, scheduler)


class _Run:
    """One call of `sweep`: hands out points, keeps their rows, reports."""

    def __init__(
        self, space: Space, folder: Folder, evaluation: Evaluation, seconds: float | None, report: Callable[[Progress], None]
    ) -> None:
        self.space, self.folder = space, folder
        self.progress = Progress(0, 0, 0, 0.0, None)
        self._evaluation, self._limit, self._report = evaluation, seconds, report
        self._chunk = _FIRST_CHUNK
        self._started = time.monotonic()

    def expect(self, total: int) -> None:
        """Say how many points this run is to evaluate."""
        self.progress = replace(self.progress, total=total)

    def evaluate(self, points: Iterator[int], most: int = _MAX_CHUNK) -> Iterator[pa.Table]:
        """Yield the rows of `points`, at most `most` at once, while there is time; they are in the folder."""
        for table, seconds in self._evaluation.chunks(self._chunks(points, most)):
            fitting = int(len(table) * CHUNK_SECONDS / max(seconds, 1e-9))
            self._chunk = max(1, min(fitting, 2 * len(table), _MAX_CHUNK))
            self.folder.add(table)
            self._count(table)
            yield table

    def share(self, points: int) -> int:
        """Return how many of some points make a chunk if all who evaluate get as many."""
        return -(-points // self._evaluation.parallel())

    def is_over(self) -> bool:
        """Return whether there is no time left."""
        return self._limit is not None and time.monotonic() - self._started >= self._limit

    def _chunks(self, points: Iterator[int], most: int) -> Iterator[list[int]]:
        while not self.is_over() and (chunk := list(islice(points, min(self._chunk, most)))):
            yield chunk

    def _count(self, table: pa.Table) -> None:
        before, seconds = self.progress, time.monotonic() - self._started
        done = before.done + len(table)
        left = seconds / done * (before.total - done)
        if self._limit is not None:
            left = min(left, max(self._limit - seconds, 0.0))
        problems = before.problems + len(table) - table.column("problem").null_count
        self.progress = Progress(done, before.total, problems, seconds, left)
        self._report(self.progress)


def _fixed(run: _Run, sampler: Literal["grid", "random"], seed: int, budget: Budget) -> None:
    """Evaluate points in an order that is known."""
    size, done = run.space.size, run.folder.done()
    first = size if budget.points is None else min(budget.points, size)
    run.expect(_missing(size, sampler, seed, first, done))
    todo = (int(index) for at in order(size, sampler, seed, first) for index in at[~done.has(at)])
    for _ in run.evaluate(todo):
        pass


def _missing(size: int, sampler: Literal["grid", "random"], seed: int, first: int, done: Indices) -> int:
    """Return how many of the `first` points of the order are not `done`."""
    if not len(done) or first == size:
        return first - len(done)
    return first - sum(int(np.count_nonzero(done.has(at))) for at in order(size, sampler, seed, first))


def _learning(run: _Run, study: Study, budget: Budget) -> None:
    """Evaluate the points that `study` asks for, and tell it what they cost; what is in the folder is not evaluated."""
    first = run.space.size if budget.points is None else min(budget.points, run.space.size)
    known, asked = _Known(run.folder, run.space.file.objectives.names), 0
    found = 0
    while asked < first and not run.is_over() and (points := study.ask()):
        taken = points[: first - asked]
        new = [point for point in taken if point not in known]
        found += len(taken) - len(new)
        run.expect(first - found)
        for table in run.evaluate(iter(new), run.share(len(new))):
            known.add(table)
        if not all(point in known for point in taken):
            return  # out of time
        asked += len(taken)
        if len(taken) == len(points):
            study.tell([known[point] for point in points])


class _Known:
    """What points cost, as far as their rows are there."""

    def __init__(self, folder: Folder, objectives: Sequence[str]) -> None:
        self._columns = ["index", *objectives]
        self._signs = [-1.0 if name in MAXIMIZED else 1.0 for name in objectives]
        self._costs: dict[int, Costs | None] = {}
        table = folder.table(self._columns)
        if table is not None:
            self.add(table)

    def add(self, table: pa.Table) -> None:
        """Take the costs from some rows."""
        indices, *objectives = (table.column(name).to_pylist() for name in self._columns)
        for index, *values in zip(indices, *objectives, strict=True):
            can_run = None not in values
            self._costs[index] = tuple(map(operator.mul, self._signs, values)) if can_run else None

    def __contains__(self, point: int) -> bool:
        return point in self._costs

    def __getitem__(self, point: int) -> Costs | None:
        return self._costs[point]
