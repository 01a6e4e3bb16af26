"""What the instructions of each site of a program did: products, operators and updates, by the table of sites."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accel.program import Engine, Program
from accel.sim.machine import Timing
from accel.sim.waits import waits_of_engines

_Numbers = NDArray[np.int64]
_NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Sites:
    """Cycles of each site; arrays are (sites,) or (sites, engines)."""

    numbers: dict[tuple[str, str, str], int]
    """Of (layer, stage, part)."""
    start: _Numbers
    """When its first instruction starts."""
    done: _Numbers
    """When its last instruction is complete."""
    end: _Numbers
    """Up to when the step's time is its own: `done`; of an operator cut by samples when the array begins with the product that
    takes the parts, which ends later."""
    begin: _Numbers
    """When the array begins with it; 0 where it does not."""
    first_waits: _Numbers
    """What the array waited for each engine before it began with it."""
    other_waits: _Numbers
    """What it waited for each engine after that."""

    @classmethod
    def of(cls, program: Program, timing: Timing) -> Sites:
        """Return what the instructions of `program` did."""
        count = len(program.tables.sites)
        numbers = {(site.layer, str(site.stage), site.part): index for index, site in enumerate(program.tables.sites)}
        site = program.instructions["site"].astype(np.int64)
        start, done = np.full(count, _NEVER), np.zeros(count, np.int64)
        np.minimum.at(start, site, timing.start)
        np.maximum.at(done, site, timing.done)
        computes = np.flatnonzero(timing.jobs.engine == Engine.COMPUTE)
        begins, firsts = np.unique(site[computes], return_index=True)
        waits, is_first = waits_of_engines(program, timing), np.zeros(len(site), np.bool_)
        is_first[computes[firsts]] = True
        first_waits, other_waits = np.zeros((2, count, len(Engine)), np.int64)
        first_waits[begins] = waits[computes[firsts]]
        np.add.at(other_waits, site[~is_first], waits[~is_first])
        begin = np.zeros(count, np.int64)
        begin[begins] = timing.start[computes[firsts]]
        return cls(numbers, start, done, _ends(program, timing, done), begin, first_waits, other_waits)

    @property
    def cycles(self) -> _Numbers:
        """The cycles charged to each site: from the end of all before it to its own. They add up to the step."""
        return np.diff(np.maximum.accumulate(self.end), prepend=0)


def _ends(program: Program, timing: Timing, done: _Numbers) -> _Numbers:
    """Return `Sites.end`; parts stand among the instructions of the product that takes them, the first before its first."""
    ends, engines = done.copy(), timing.jobs.engine
    has_samples = np.array([kernel.samples is not None for kernel in program.tables.kernels], np.bool_)
    vectors, computes = np.flatnonzero(engines == Engine.VECTOR), np.flatnonzero(engines == Engine.COMPUTE)
    parts = vectors[has_samples[program.instructions["object"][vectors]]]
    sites, firsts = np.unique(program.instructions["site"][parts], return_index=True)
    places = np.searchsorted(computes, parts[firsts])
    taken = places < len(computes)
    ends[sites[taken]] = timing.start[computes[places[taken]]]
    return np.minimum(ends, done)
