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
from accel.sim.step import simulate_step

_Numbers = NDArray[np.int64]


def simulate_program(
    planned: Schedule, program: Program, timing: Timing | None = None, dram: DramDevice | None = None
) -> tuple[Row, ...]:
    """Return the rows of `simulate_step` with the cycles that `program`, compiled from `planned`, takes.

    A row is charged with the cycles from the last completion of all rows before it to its own: those that the step would be
    shorter without it, had it not delayed others. So rows add up to the step. `timing` is
    `run_program(program, dram)`, if at hand.
    """
    timing = run_program(program, dram) if timing is None else timing
    sites = _Sites.of(program, timing)
    charged_before: set[int] = set()
    rows, frontier = [], 0
    for row in simulate_step(planned):
        site = sites.numbers.get((row.name, row.stage, row.part))
        if site is None or site in charged_before:  # rides on the results of a product
            rows.append(replace(row, cycles=0, busy_cycles=0, losses={}))
            continue
        charged_before.add(site)
        cycles, frontier = max(int(sites.done[site]) - frontier, 0), max(int(sites.done[site]), frontier)
        rows.append(_charged(row, cycles, int(sites.done[site] - sites.start[site]), int(sites.starved[site])))
    return tuple(rows)


def _charged(row: Row, cycles: int, busy_cycles: int, starved_cycles: int) -> Row:
    """Return `row` with its cycles by the program, and what it lost to what.

    What the array lost to padding and drains is as before; of the rest it waited for DRAM as long as it starved. What then
    remains is fill: less than nothing where the row began beside the one before it.
    """
    useful = row.cycles - sum(row.losses.values())
    if row.engine != "array":
        losses = {("update" if row.engine == "update" else "vector"): cycles - useful}
        return replace(row, cycles=cycles, busy_cycles=busy_cycles, losses=_without_zeros(losses))
    losses = {name: row.losses.get(name, 0) for name in ("padding", "drain")}
    rest = cycles - useful - sum(losses.values())
    losses["dram"] = min(starved_cycles, max(rest, 0))
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


class _Sites:
    """What the instructions of each site did together; arrays are (sites,)."""

    def __init__(self, numbers: dict[tuple[str, str, str], int], start: _Numbers, done: _Numbers, starved: _Numbers) -> None:
        self.numbers, self.start, self.done, self.starved = numbers, start, done, starved

    @classmethod
    def of(cls, program: Program, timing: Timing) -> _Sites:
        """Return first start, last completion and the array's waits for operands of every site."""
        count = len(program.tables.sites)
        numbers = {(site.layer, str(site.stage), site.part): index for index, site in enumerate(program.tables.sites)}
        site = program.instructions["site"].astype(np.int64)
        start, done, starved = np.full(count, np.iinfo(np.int64).max), np.zeros(count, np.int64), np.zeros(count, np.int64)
        np.minimum.at(start, site, timing.start)
        np.maximum.at(done, site, timing.done)
        np.add.at(starved, site, array_waits(timing))
        return cls(numbers, start, done, starved)


def array_waits(timing: Timing) -> _Numbers:
    """Return for each COMPUTE the cycles by which operands, or room for results, came too late for it; 0 for others."""
    waits = np.zeros(len(timing.start), np.int64)
    places = np.flatnonzero(timing.jobs.engine == Engine.COMPUTE)
    if not len(places):
        return waits
    jobs = timing.jobs
    before = places[:-1]
    earliest = np.zeros(len(places), np.int64)
    fenced = jobs.fence[places[1:]] > 0
    gap = jobs.gap[places[1:]]
    earliest[1:] = np.where(fenced, timing.done[before] + gap + jobs.lead[places[1:]], timing.start[before] + gap)
    waits[places] = timing.start[places] - earliest
    return waits
