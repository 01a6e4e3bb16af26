"""The time of a whole step from its program: what the machine model says of every product, operator and update."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from accel.dram import DramDevice
from accel.program import Engine, Program
from accel.report import Row
from accel.schedule import Schedule
from accel.sim.machine import Timing, run_program
from accel.sim.step import simulate_step
from accel.sim.waits import waits_of_engines

_Numbers = NDArray[np.int64]
_NEVER = np.iinfo(np.int64).max


def simulate_program(
    planned: Schedule, program: Program, timing: Timing | None = None, dram: DramDevice | None = None
) -> tuple[Row, ...]:
    """Return the rows of `simulate_step` with the cycles that `program`, compiled from `planned`, takes.

    A row is charged with the cycles from the end of all rows before it to its own: those that the step would be shorter without
    it, had it not delayed others. So rows add up to the step. A row ends with its last completion, but an operator already when
    the array begins with a product behind it. `timing` is `run_program(program, dram)`, if at hand.
    """
    timing = run_program(program, dram) if timing is None else timing
    sites = _Sites.of(program, timing)
    charged_before: set[int] = set()
    rows, frontier = [], 0
    alone = simulate_step(planned)
    for row, next_product in zip(alone, sites.next_products(alone), strict=True):
        site = sites.numbers.get((row.name, row.stage, row.part))
        if site is None or site in charged_before:  # rides on the results of a product
            rows.append(replace(row, cycles=0, busy_cycles=0, losses={}))
            continue
        charged_before.add(site)
        end = int(sites.done[site] if row.engine == "array" else min(sites.done[site], next_product))
        cycles, frontier = max(end - frontier, 0), max(end, frontier)
        rows.append(_charged(row, cycles, int(sites.done[site] - sites.start[site]), sites.waits[site]))
    return tuple(rows)


def _charged(row: Row, cycles: int, busy_cycles: int, waits: _Numbers) -> Row:
    """Return `row` with its cycles by the program, and what it lost to what; `waits` are the array's, by engine.

    What the array lost to padding and drains is as before; of the rest it waited for an operator before it as long as for
    VECTOR, and for DRAM as long as for the others. What then remains is fill: less than nothing where the row began beside the
    one before it.
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


@dataclass(frozen=True)
class _Sites:
    """What the instructions of each site did together; arrays are (sites,)."""

    numbers: dict[tuple[str, str, str], int]
    """Of (layer, stage, part)."""
    start: _Numbers
    """Of the first."""
    done: _Numbers
    """Completion of the last."""
    computes: _Numbers
    """When the array begins."""
    waits: _Numbers
    """(sites, engines): what the array waited for each; for VECTOR not before its first instruction, for the operator that it
    then waits for is charged itself."""

    @classmethod
    def of(cls, program: Program, timing: Timing) -> _Sites:
        """Return what the instructions of `program` did."""
        count = len(program.tables.sites)
        numbers = {(site.layer, str(site.stage), site.part): index for index, site in enumerate(program.tables.sites)}
        site = program.instructions["site"].astype(np.int64)
        start, computes = np.full((2, count), _NEVER)
        done, waits = np.zeros(count, np.int64), np.zeros((count, len(Engine)), np.int64)
        np.minimum.at(start, site, timing.start)
        np.maximum.at(done, site, timing.done)
        is_compute = timing.jobs.engine == Engine.COMPUTE
        np.minimum.at(computes, site[is_compute], timing.start[is_compute])
        of_engines = waits_of_engines(program, timing)
        of_engines[is_compute & (timing.start == computes[site]), Engine.VECTOR] = 0
        np.add.at(waits, site, of_engines)
        return cls(numbers, start, done, computes, waits)

    def next_products(self, rows: Sequence[Row]) -> list[int]:
        """Return for each row when the array begins with the first of those behind it."""
        found, earliest = [], _NEVER
        for row in reversed(rows):
            found.append(earliest)
            site = self.numbers.get((row.name, row.stage, row.part))
            earliest = earliest if site is None else min(earliest, int(self.computes[site]))
        return found[::-1]
