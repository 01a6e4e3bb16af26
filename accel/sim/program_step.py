"""The time of a whole step from its program: what the machine model says of every product, operator and update."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from accel.dram import DramDevice
from accel.program import Engine, Program
from accel.report import Row
from accel.schedule import Schedule
from accel.sim.machine import Timing, run_program
from accel.sim.sites import Sites
from accel.sim.step import simulate_step

_Numbers = NDArray[np.int64]


def simulate_program(
    planned: Schedule, program: Program, timing: Timing | None = None, dram: DramDevice | None = None
) -> tuple[Row, ...]:
    """Return the rows of `simulate_step` with the cycles that `program`, compiled from `planned`, takes.

    A row is charged with the cycles from the end of all rows before it to its own: those that the step would be shorter without
    it, had it not delayed others. So rows add up to the step. A row ends with its last completion, but an operator cut by
    samples already when the array begins with the product that takes the parts. `timing` is `run_program(program, dram)`, if at
    hand.
    """
    timing = run_program(program, dram) if timing is None else timing
    sites = Sites.of(program, timing)
    charged_before: set[int] = set()
    rows, frontier = [], 0
    for row in simulate_step(planned):
        site = sites.numbers.get((row.name, row.stage, row.part))
        if site is None or site in charged_before:  # rides on the results of a product
            rows.append(replace(row, cycles=0, busy_cycles=0, losses={}))
            continue
        charged_before.add(site)
        end = int(sites.end[site])
        waits = sites.other_waits[site] + _behind(frontier, sites.first_waits[site], int(sites.begin[site]))
        rows.append(_charged(row, max(end - frontier, 0), int(sites.done[site] - sites.start[site]), waits))
        frontier = max(end, frontier)
    return tuple(rows)


def _behind(frontier: int, waits: _Numbers, begin: int) -> _Numbers:
    """Return of the waits up to cycle `begin`, by engine, what lies behind `frontier`: those for the vector unit came first."""
    others = int(waits.sum() - waits[Engine.VECTOR])
    kept = waits.copy()
    kept[Engine.VECTOR] = min(int(waits[Engine.VECTOR]), max(begin - others - frontier, 0))
    return kept


def _charged(row: Row, cycles: int, busy_cycles: int, waits: _Numbers) -> Row:
    """Return `row` with its cycles by the program, and what it lost to what; `waits` are the array's, by engine.

    What the array lost to padding and drains is as before; of the rest it waited for the vector unit (operators before it, or
    what rides on its results) as long as for VECTOR, and for DRAM as long as for the others. What then remains is fill: less
    than nothing where the row began beside the one before it.
    """
    useful = row.cycles - sum(row.losses.values())
    if row.engine != "array":
        losses = {("update" if row.engine == "update" else "vector"): cycles - useful}
        return replace(row, cycles=cycles, busy_cycles=busy_cycles, losses=_without_zeros(losses))
    losses = {name: row.losses.get(name, 0) for name in ("padding", "drain")}
    rest = cycles - useful - sum(losses.values())
    losses["vector"] = min(int(waits[Engine.VECTOR]), max(rest, 0))
    rest -= losses["vector"]
    losses["dram"] = min(int(waits.sum() - waits[Engine.VECTOR]), max(rest, 0))
    losses["fill"] = rest - losses["dram"]
    return replace(
        row,
        cycles=cycles,
        busy_cycles=busy_cycles,
        utilization_frac=row.utilization_frac * row.busy_cycles / busy_cycles,
        losses=_without_zeros(losses),
    )


def _without_zeros(losses: dict[str, int]) -> dict[str, int]:
    return {name: lost for name, lost in losses.items() if lost}
