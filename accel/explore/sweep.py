"""Sweeps: which points are evaluated, in what order, by how many processes."""

from __future__ import annotations

import hashlib
import re
import signal
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from itertools import islice
from multiprocessing import connection, get_context, parent_process
from os import _exit
from typing import Literal, get_args

from accel.errors import ConfigError
from accel.explore.evaluate import Evaluator, Row
from accel.explore.space import Space
from accel.explore.store import Folder

Sampler = Literal["grid", "random"]

MAX_WORKERS = 1024
_ROUNDS = 6
_QUEUED = 4
"""Points in hand for each worker: none waits for the next one, and few are lost by a stop."""


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


def order(space: Space, sampler: Sampler, seed: int = 0) -> Iterator[int]:
    """Return every index of `space` once: ascending (grid), or in an order that follows from `seed` (random)."""
    if sampler not in get_args(Sampler):
        raise ConfigError(f"sampler must be one of {', '.join(get_args(Sampler))}, not {sampler!r}")
    return iter(range(space.size)) if sampler == "grid" else (shuffled(at, space.size, seed) for at in range(space.size))


def shuffled(at: int, size: int, seed: int) -> int:
    """Return where a permutation of `size` numbers, given by `seed`, sends `at`; needs no list.

    A Feistel network permutes the numbers of an even number of bits; what falls outside `size` is sent on until it is inside.
    """
    half_bits = max((size - 1).bit_length() + 1, 2) // 2
    while True:
        left, right = at >> half_bits, at & ((1 << half_bits) - 1)
        for turn in range(_ROUNDS):
            left, right = right, left ^ (_mix(right, turn, seed) & ((1 << half_bits) - 1))
        at = left << half_bits | right
        if at < size:
            return at


def _mix(value: int, turn: int, seed: int) -> int:
    return int.from_bytes(hashlib.blake2b(f"{seed},{turn},{value}".encode(), digest_size=8).digest())


def sweep(
    space: Space,
    folder: Folder,
    *,
    sampler: Sampler = "grid",
    seed: int = 0,
    budget: Budget | None = None,
    workers: int = 1,
    report: Callable[[Progress], None] = lambda progress: None,
) -> Progress:
    """Evaluate the points of `space` that `folder` lacks, in the order of `sampler`, and add their rows to it.

    Ends at `budget`; what was evaluated until then, or until an interruption, stays. `report` hears of every point.
    """
    if not 1 <= workers <= MAX_WORKERS:
        raise ConfigError(f"workers must be between 1 and {MAX_WORKERS}, not {workers}")
    budget, started = budget or Budget(), time.monotonic()
    first = space.size if budget.points is None else min(budget.points, space.size)
    chosen = islice(order(space, sampler, seed), first)
    total = _missing(space, sampler, seed, first, folder.done)
    progress = Progress(0, total, 0, 0.0, None)
    todo = _until(budget.seconds, started, (index for index in chosen if index not in folder.done))
    with _rows(space, todo, workers) as rows:
        for row in rows:
            folder.add(row)
            progress = _next(progress, row, time.monotonic() - started, budget.seconds)
            report(progress)
    return progress


def _missing(space: Space, sampler: Sampler, seed: int, first: int, done: set[int]) -> int:
    """Return how many of the `first` points of the order are not `done`."""
    if not done:
        return first
    if first == space.size:
        return first - len(done)
    return first - sum(index in done for index in islice(order(space, sampler, seed), first))


def _next(before: Progress, row: Row, seconds: float, limit: float | None) -> Progress:
    done, problems = before.done + 1, before.problems + (row["problem"] is not None)
    left = seconds / done * (before.total - done)
    if limit is not None:
        left = min(left, max(limit - seconds, 0.0))
    return Progress(done, before.total, problems, seconds, left)


def _until(seconds: float | None, started: float, indices: Iterator[int]) -> Iterator[int]:
    """Yield `indices` while there is time."""
    for index in indices:
        if seconds is not None and time.monotonic() - started >= seconds:
            return
        yield index


@contextmanager
def _rows(space: Space, indices: Iterator[int], workers: int) -> Iterator[Iterator[Row]]:
    """Give the rows of `indices`, in their order."""
    if workers == 1:
        yield map(Evaluator(space).row, indices)
        return
    # Processes of their own, not copies of this one: a copy of a process with threads can hang.
    pool = ProcessPoolExecutor(workers, get_context("spawn"), _start_worker, (space,))
    try:
        yield _pooled(pool, indices, _QUEUED * workers)
    except BrokenProcessPool:
        raise ConfigError(
            "a worker must not end before the sweep; run the command again to go on, with fewer workers"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _pooled(pool: Executor, indices: Iterator[int], queued: int) -> Iterator[Row]:
    waiting: deque[Future[Row]] = deque(pool.submit(_work, index) for index in islice(indices, queued))
    while waiting:
        row = waiting.popleft().result()
        waiting.extend(pool.submit(_work, index) for index in islice(indices, 1))
        yield row


def _start_worker(space: Space) -> None:
    """Prepare a worker; it ends with the process that started it, however that ends."""
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started it
    _SPACES[:] = [space]


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    _exit(1)


_SPACES: list[Space] = []
"""In a worker: the space it evaluates."""


@cache
def _evaluator() -> Evaluator:
    return Evaluator(_SPACES[0])


def _work(index: int) -> Row:
    return _evaluator().row(index)
