"""Points of a sweep once more, by the machine model: every step compiled to a program that runs instruction by instruction."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from accel.api import simulate
from accel.arch import Arch
from accel.errors import AccelError, ConfigError
from accel.explore.engine import StepCost
from accel.explore.evaluate import Evaluator, Row
from accel.explore.pareto import front
from accel.explore.space import MAXIMIZED, MethodPart
from accel.explore.store import Results, load_space

if TYPE_CHECKING:
    import pandas as pd

DEFAULT_POINTS = 10
_OF_STEPS = (".cycles", ".seconds", ".dram_bytes", ".joules")
"""Ends of the columns of one step."""
SIMULATED = ("time", "energy_joules", "edp", "power_watts", "samples_per_second_per_lut")
"""Objectives that depend on the model; what else a machine is judged by is the same for both."""


class Recheck(NamedTuple):
    """The best points of a front by both models."""

    table: pd.DataFrame
    """Their rows by the closed form, in the order of the front; what the machine model says is in columns `machine.NAME`. For
    each of `objectives`, `NAME.rank` and `machine.NAME.rank` count from 1, the best, among these points; `machine.front` says
    which of these points no other of them beats by the machine model, in all objectives of the front."""
    objectives: tuple[str, ...]
    """Those of the front that depend on the model."""

    def to_json(self) -> str:
        """Return the table as JSON: a list of points, each an object of its columns; what is not known is null."""
        rows = self.table.to_dict("records")
        points = [{name: _plain(value) for name, value in row.items()} for row in rows]
        return json.dumps({"objectives": self.objectives, "points": points}, indent=1) + "\n"

    def moved(self, objective: str) -> pd.DataFrame:
        """Return the points whose rank by `objective` the machine model changes."""
        table = self.table
        return table[table[f"{objective}.rank"] != table[f"machine.{objective}.rank"]]


def _plain(value: Any) -> Any:
    """Return a value of a table as JSON has it."""
    if getattr(value, "ndim", False):
        return value.tolist()
    import pandas as pd

    return None if pd.isna(value) else getattr(value, "item", lambda: value)()


def recheck(
    folder: str | Path,
    objectives: Sequence[str] | None = None,
    points: int = DEFAULT_POINTS,
    report: Callable[[int, int], None] = lambda done, total: None,
) -> Recheck:
    """Simulate the first `points` of the front of a sweep's folder by the machine model.

    The front is that of `objectives`, by default those of the space file, and begins with the best by the first of them.
    `report` hears how many points are done, and of how many. Raises `ConfigError`.
    """
    if points < 1:
        raise ConfigError(f"points must be at least 1, not {points}")
    space, results = load_space(folder), Results.load(folder)
    chosen = list(space.file.objectives.names if objectives is None else objectives)
    best = front(results.table, chosen).head(points)
    simulated = tuple(name for name in chosen if name in SIMULATED)
    if not simulated:
        raise ConfigError(f"objectives must have one that the model decides ({', '.join(SIMULATED)}), not only {chosen[0]}")
    evaluator, rows = Evaluator(space), []
    for number, index in enumerate(best["index"]):
        report(number, len(best))
        rows.append(_machine_row(evaluator, int(index)))
    return Recheck(_joined(best, rows, chosen, simulated), simulated)


def _machine_row(evaluator: Evaluator, index: int) -> Row:
    """Return the row of a point by the machine model; one that does not run has its reason in `problem`."""
    space = evaluator.space
    work = space.file.work

    def cost(network: str, method: MethodPart, arch: Arch) -> StepCost:
        report = simulate(
            space.traces[network],
            arch,
            method=method.method,
            pattern=method.pattern,
            batch=work.batch,
            optimizer=work.optimizer,
            baseline=False,
            energy=space.table,
            model="machine",
        )
        dram_bytes = sum(row.dram_bytes for row in report.rows)
        return StepCost(report.cycles, dram_bytes, report.energy.joules if report.energy else None)

    try:
        return evaluator.row_by(index, cost)
    except AccelError as error:
        return {"index": index, "problem": str(error)}


def _joined(best: pd.DataFrame, rows: list[Row], objectives: Sequence[str], simulated: Sequence[str]) -> pd.DataFrame:
    import pandas as pd

    machine = pd.DataFrame(rows, columns=[*best.columns])
    table = best.copy()
    for name in best.columns:
        if name == "problem" or name in SIMULATED or name.endswith(_OF_STEPS):
            table[f"machine.{name}"] = machine[name].astype(best.dtypes[name])
    for name in simulated:
        for column in (name, f"machine.{name}"):
            table[f"{column}.rank"] = table[column].rank(method="min", ascending=name not in MAXIMIZED).astype("Int64")
    known = machine.dropna(subset=[*objectives])
    table["machine.front"] = table["index"].isin(front(known, objectives)["index"] if len(known) else [])
    return table


def describe(result: Recheck) -> list[str]:
    """Return a sentence for each objective on what the machine model changes."""
    return [_sentence(result, name) for name in result.objectives]


def _sentence(result: Recheck, name: str) -> str:
    table, moved = result.table, result.moved(name)
    shares: Any = (table[f"machine.{name}"] / table[name]).dropna()
    if shares.empty:
        return f"{name}: no point runs by the machine model"
    span = f"{name}: by the machine model {shares.min():.4f} to {shares.max():.4f} of the closed form"
    if moved.empty:
        return f"{span}; no rank changes"
    best = table.loc[table[f"machine.{name}.rank"] == 1, "index"]
    first = table.loc[table[f"{name}.rank"] == 1, "index"]
    stays = "the best stays the best" if set(best) & set(first) else f"the best is now point {best.iloc[0]}"
    return f"{span}; {len(moved)} of {len(table)} ranks change, {stays}"
