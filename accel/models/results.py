"""The rows of an experiment: their file, what is finished in it, and means over the seeds."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, fields, replace
from math import sqrt
from pathlib import Path
from statistics import mean, stdev

from accel.errors import ConfigError


@dataclass(frozen=True, order=True)
class Run:
    """One training: what decides its result."""

    task: str
    network: str
    method: str
    pattern: str
    """kept:group, or "dense"."""
    numerics: str
    seed: int
    epochs: int
    samples: int
    """Training samples; 0: all of the task."""

    @property
    def label(self) -> str:
        """The method and its pattern."""
        return self.method if self.pattern == "dense" else f"{self.method} {self.pattern}"


@dataclass(frozen=True)
class Row(Run):
    """What one epoch of a run came to."""

    epoch: int
    """1 and up."""
    train_loss: float
    test_accuracy: float
    """Fraction of the test set, after the epoch."""
    step_seconds: float | None
    """Of one training step on the simulated machine; None: not simulated."""
    steps: int
    """Training steps up to the end of this epoch."""

    @property
    def run(self) -> Run:
        """The run it belongs to."""
        return Run(*astuple(self)[: len(fields(Run))])

    @property
    def simulated_seconds(self) -> float | None:
        """Seconds on the machine up to the end of this epoch."""
        return None if self.step_seconds is None else self.steps * self.step_seconds


_COLUMNS = [field.name for field in fields(Row)]


class ResultsFile:
    """A CSV file that grows by a row an epoch, and of which unfinished runs are dropped when it is opened again."""

    def __init__(self, path: Path) -> None:
        """Read what is there, or start a new file."""
        self.path = path
        rows = _read(path) if path.exists() else []
        counts: dict[Run, set[int]] = {}
        for row in rows:
            counts.setdefault(row.run, set()).add(row.epoch)
        self.finished = {run for run, epochs in counts.items() if epochs == set(range(1, run.epochs + 1))}
        self.rows = [row for row in rows if row.run in self.finished]
        try:
            self._write_all()
        except OSError as error:
            raise ConfigError(
                f"output must be a folder that can be written to, not {path.parent} ({error.strerror}); choose another folder"
            ) from None

    def set_step_seconds(self, seconds: Mapping[Run, float | None]) -> None:
        """Give the rows of these runs the time of a step, on disk too: it follows from the machine, not from the training."""
        rows = [replace(row, step_seconds=seconds.get(row.run, row.step_seconds)) for row in self.rows]
        if rows != self.rows:
            self.rows = rows
            self._write_all()

    def append(self, row: Row) -> None:
        """Add a row, at once on disk."""
        self.rows.append(row)
        with self.path.open("a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, _COLUMNS).writerow(asdict(row))

    def _write_all(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        draft = self.path.with_suffix(".tmp")
        with draft.open("w", newline="", encoding="utf-8") as file:
            writer = csv.DictWriter(file, _COLUMNS)
            writer.writeheader()
            writer.writerows(asdict(row) for row in self.rows)
        draft.replace(self.path)


def _read(path: Path) -> list[Row]:
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = list(csv.reader(file))
    except (csv.Error, UnicodeDecodeError):
        raise ConfigError(f"{path} must be a CSV file of this experiment, not another file; choose another folder") from None
    if lines and lines[0] != _COLUMNS:
        raise ConfigError(f"{path} must have the columns {','.join(_COLUMNS)}, not {','.join(lines[0])}; choose another folder")
    rows = [_row(dict(zip(_COLUMNS, line, strict=True))) for line in lines[1:] if len(line) == len(_COLUMNS)]
    return [row for row in rows if row is not None]


def _row(cells: dict[str, str]) -> Row | None:
    """Return the row, None if its writing broke off."""
    try:
        return Row(
            task=cells["task"],
            network=cells["network"],
            method=cells["method"],
            pattern=cells["pattern"],
            numerics=cells["numerics"],
            seed=int(cells["seed"]),
            epochs=int(cells["epochs"]),
            samples=int(cells["samples"]),
            epoch=int(cells["epoch"]),
            train_loss=float(cells["train_loss"]),
            test_accuracy=float(cells["test_accuracy"]),
            step_seconds=float(cells["step_seconds"]) if cells["step_seconds"] else None,
            steps=int(cells["steps"]),
        )
    except ValueError:
        return None


@dataclass(frozen=True)
class Summary:
    """The accuracy of the last epoch over the seeds."""

    task: str
    network: str
    label: str
    numerics: str
    seeds: int
    accuracy: float
    accuracy_error: float
    """Standard error of the mean."""
    difference: float | None
    """To dense training with the same arithmetic, seed by seed; None: there is none, or this is it."""
    difference_error: float | None
    speedup: float | None
    """Of a simulated step over a dense one."""


def summarize(rows: Iterable[Row]) -> list[Summary]:
    """Return one summary for each task, network, method and arithmetic, in the order of the rows."""
    last = {row.run: row for row in rows if row.epoch == row.epochs}
    settings: dict[tuple[str, str, str, str], dict[int, Row]] = {}
    for run, row in last.items():
        settings.setdefault((run.task, run.network, run.label, run.numerics), {})[run.seed] = row
    return [_summary(key, by_seed, settings.get((key[0], key[1], "dense", key[3]), {})) for key, by_seed in settings.items()]


def _summary(key: tuple[str, str, str, str], by_seed: dict[int, Row], dense: dict[int, Row]) -> Summary:
    accuracy, error = mean_and_error([row.test_accuracy for row in by_seed.values()])
    pairs = [row.test_accuracy - dense[seed].test_accuracy for seed, row in by_seed.items() if seed in dense]
    difference, difference_error = mean_and_error(pairs) if pairs and key[2] != "dense" else (None, None)
    own, base = (next((row.step_seconds for row in rows.values() if row.step_seconds), None) for rows in (by_seed, dense))
    speedup = base / own if own and base else None
    return Summary(*key, len(by_seed), accuracy, error, difference, difference_error, speedup)


def mean_and_error(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean of `values` and its standard error, NaN for a single value."""
    return mean(values), stdev(values) / sqrt(len(values)) if len(values) > 1 else float("nan")


def summary_table(summaries: Iterable[Summary]) -> list[tuple[str, ...]]:
    """Return the header and the lines of the table, accuracies in percent."""
    header = ("task", "network", "method", "numerics", "seeds", "accuracy %", "minus dense %", "step speedup")
    return [header, *(_line(summary) for summary in summaries)]


def _line(summary: Summary) -> tuple[str, ...]:
    difference = "" if summary.difference is None else _percent(summary.difference, summary.difference_error, "+")
    speedup = "" if summary.speedup is None else f"{summary.speedup:.2f}"
    accuracy = _percent(summary.accuracy, summary.accuracy_error)
    return summary.task, summary.network, summary.label, summary.numerics, str(summary.seeds), accuracy, difference, speedup


def _percent(value: float, error: float | None, sign: str = "") -> str:
    spread = "" if error is None or error != error else f" +- {100 * error:.2f}"
    return f"{100 * value:{sign}.2f}{spread}"


@dataclass(frozen=True)
class Curve:
    """The test accuracy of one method, mean and standard error over the seeds."""

    label: str
    positions: tuple[float, ...]
    """Epochs, or seconds."""
    accuracy: tuple[float, ...]
    error: tuple[float, ...]


def curves(rows: Iterable[Row], over: str) -> dict[str, list[Curve]]:
    """Return the curves of each task and network; `over` is "epoch" or "simulated_seconds" (rows without are left out)."""
    found: dict[str, dict[str, dict[float, list[float]]]] = {}
    for row in rows:
        position = getattr(row, over)
        if position is not None:
            by_label = found.setdefault(f"{row.task}, {row.network}", {})
            label = row.label if row.numerics == "fp32" else f"{row.label} ({row.numerics})"
            by_label.setdefault(label, {}).setdefault(position, []).append(row.test_accuracy)
    return {title: [_curve(label, points) for label, points in by_label.items()] for title, by_label in found.items()}


def _curve(label: str, points: dict[float, list[float]]) -> Curve:
    positions = tuple(sorted(points))
    means, errors = zip(*(mean_and_error(points[position]) for position in positions), strict=True)
    return Curve(label, positions, means, errors)
