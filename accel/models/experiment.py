"""What `accel experiment` does: what sparse training costs in accuracy and gains in time, on small networks and tasks.

It writes `results.csv` (a row per run and epoch, as they come), `summary.csv` and two plots. Stopped and started again it goes
on with the runs that are not finished.
"""

from __future__ import annotations

import csv
import multiprocessing
import queue
import signal
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from accel.errors import ConfigError

try:
    import torch
except ImportError:
    raise ConfigError(
        "the experiment needs PyTorch, which is not installed; install it with: pip install 'nm-accel[experiment]'"
    ) from None

from torch import Tensor, nn

from accel.methods import METHODS
from accel.models.exporter import export
from accel.models.results import Curve, ResultsFile, Row, Run, curves, summarize, summary_table
from accel.models.small import DENSE_LAYERS, NETWORKS
from accel.models.tasks import TASKS
from accel.models.training import BATCH, SETTINGS, check, data, network, train

DEFAULT_METHODS = ("dense", "bdwp 2:4", "bdwp 2:8", "sr-ste 2:8", "sdgp 2:8")


@dataclass(frozen=True)
class Step:
    """A training step whose time on the machine is asked for."""

    model: nn.Module
    """The dense network."""
    example: Tensor
    """One batch of its input."""
    method: str
    pattern: str
    """kept:group; of dense training, any."""
    optimizer: str
    dense_layers: tuple[str, ...]


StepSeconds = Callable[[Step], float | None]
"""Seconds of a step on the machine; None: it cannot tell."""
Plot = Callable[[Mapping[str, Sequence[Curve]], Path], None]


@dataclass(frozen=True)
class Plots:
    """What draws: over epochs, and over seconds on the machine."""

    per_epoch: Plot
    per_second: Plot


def step_seconds_on(simulate: Callable[..., Any], arch: Any) -> StepSeconds:
    """Return what exports a step's network and asks `simulate` (of `accel.api`) how long the step takes on `arch`.

    It cannot tell for a method that `accel.methods` does not list.
    """

    def step_seconds(step: Step) -> float | None:
        if step.method not in METHODS:
            return None
        trace = export(step.model, step.example, loss="cross_entropy")
        options = {"dense_layers": step.dense_layers, "optimizer": step.optimizer, "baseline": False}
        report = simulate(trace, arch, method=step.method, pattern=step.pattern, batch=len(step.example), **options)
        return float(report.seconds)

    return step_seconds


def run_experiment(
    runs: Sequence[Run], folder: Path, step_seconds: StepSeconds | None = None, plots: Plots | None = None, jobs: int = 1
) -> list[Row]:
    """Train what is not finished in `folder`, write the summary and the plots, and return the rows of `runs`.

    `jobs` is the number of processes, each of one thread. On Ctrl-C what is finished stays in the folder.
    """
    if jobs < 1:
        raise ConfigError(f"jobs must be at least 1, not {jobs}")
    for run in runs:
        check(run)
    seconds = _seconds(runs, step_seconds)
    file = ResultsFile(folder / "results.csv")
    if step_seconds is not None:
        file.set_step_seconds(seconds)
    missing = [run for run in runs if run not in file.finished]
    trained = _rows([(run, seconds[run]) for run in missing], jobs)
    with _progress(sum(run.epochs for run in missing)) as advance, closing(trained) as rows:
        for row in rows:
            file.append(row)
            advance(row.run)
    place = {run: index for index, run in enumerate(runs)}
    found = sorted((row for row in file.rows if row.run in place), key=lambda row: (place[row.run], row.epoch))
    with (folder / "summary.csv").open("w", newline="", encoding="utf-8") as summary:
        csv.writer(summary).writerows(summary_table(summarize(found)))
    if plots is not None:
        plots.per_epoch(curves(found, "epoch"), folder / "accuracy_per_epoch.png")
        timed = curves(found, "simulated_seconds")
        if timed:
            plots.per_second(timed, folder / "accuracy_per_second.png")
    return found


def _seconds(runs: Sequence[Run], step_seconds: StepSeconds | None) -> dict[Run, float | None]:
    """Return the simulated seconds of a step of each run; they do not depend on the seed."""
    known: dict[tuple[str, ...], float | None] = {}
    for run in runs:
        key = _step_key(run)
        if key not in known:
            known[key] = None if step_seconds is None else step_seconds(_step(run))
    return {run: known[_step_key(run)] for run in runs}


def _step_key(run: Run) -> tuple[str, ...]:
    return run.task, run.network, run.method, run.pattern


def _step(run: Run) -> Step:
    samples = torch.from_numpy(data(run).train_x[:BATCH])
    pattern = "2:8" if run.pattern == "dense" else run.pattern
    model = network(run, tuple(samples.shape[2:]))
    return Step(model, samples, run.method, pattern, SETTINGS[run.network].optimizer, DENSE_LAYERS)


def _rows(tasks: Sequence[tuple[Run, float | None]], jobs: int) -> Generator[Row, None, None]:
    """Yield the rows of all runs as they come."""
    if jobs == 1:
        torch.set_num_threads(1)  # as in a process of its own: other threads sum in another order
        for run, seconds in tasks:
            yield from train(run, seconds)
        return
    context = multiprocessing.get_context("spawn")
    rows, stop = context.Queue(), context.Event()
    with ProcessPoolExecutor(jobs, context, _start_worker, (rows, stop)) as pool:
        try:
            futures = [pool.submit(_work, run, seconds) for run, seconds in tasks]
            yield from _drain(rows, futures)
        finally:
            stop.set()
            pool.shutdown(wait=True, cancel_futures=True)


def _drain(rows: Any, futures: Sequence[Future[int]]) -> Iterator[Row]:
    """Yield rows until every run has sent all of its own; raise what a run raised."""
    received = 0
    while True:
        done = [future for future in futures if future.done()]
        sent = sum(future.result() for future in done)
        if len(done) == len(futures) and received == sent:
            return
        try:
            row = rows.get(timeout=0.2)
        except queue.Empty:
            continue
        received += 1
        yield row


_worker: dict[str, Any] = {}


def _start_worker(rows: Any, stop: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process: the first one tells the others
    torch.set_num_threads(1)
    _worker.update(rows=rows, stop=stop)


def _work(run: Run, seconds: float | None) -> int:
    """Send the rows of a run, and return how many they were."""
    sent = 0
    for row in train(run, seconds):
        if _worker["stop"].is_set():
            break
        _worker["rows"].put(row)
        sent += 1
    return sent


@contextmanager
def _progress(epochs: int) -> Iterator[Callable[[Run], None]]:
    """Show a bar over all epochs on a terminal, nothing elsewhere."""
    if not sys.stderr.isatty() or not epochs:
        yield lambda run: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task("training", total=epochs)
        yield lambda run: bar.update(task, advance=1, description=f"{run.task} {run.network} {run.label} seed {run.seed}")


def plan(
    tasks: Sequence[str],
    networks: Sequence[str],
    methods: Sequence[str],
    numerics: Sequence[str],
    seeds: int,
    epochs: int | None = None,
    samples: int = 0,
) -> list[Run]:
    """Return the runs of every combination, each once; a method is written "bdwp 2:8".

    Without tasks, networks or methods all tasks and networks and `DEFAULT_METHODS` are taken. `epochs` None: what the network
    needs. `samples` 0: all of the task.
    """
    if seeds < 1 or (epochs is not None and epochs < 1):
        raise ConfigError(f"seeds and epochs must be at least 1, not {seeds} and {epochs}")
    chosen = [method.split() for method in methods or DEFAULT_METHODS]
    if any(not parts or len(parts) != (1 if parts[0] == "dense" else 2) for parts in chosen):
        raise ConfigError(f"methods must be dense or a method and its pattern like 'bdwp 2:8', not {', '.join(methods)}")
    combined = product(tasks or TASKS, networks or NETWORKS, chosen, numerics, range(seeds))
    runs = [
        Run(
            task=task,
            network=name,
            method=parts[0],
            pattern=parts[1] if len(parts) > 1 else "dense",
            numerics=arithmetic,
            seed=seed,
            epochs=epochs or (SETTINGS[name].epochs if name in SETTINGS else 1),
            samples=samples,
        )
        for task, name, parts, arithmetic, seed in combined
    ]
    return list(dict.fromkeys(runs))
