"""What the array waited for as a program ran."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel.program import Engine, Program
from accel.sim.machine import Timing
from accel.sim.machine_kernels.waits import Chain, charge_waits
from accel.tokens import resolve_tokens

_Numbers = NDArray[np.int64]


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


def waits_of_engines(program: Program, timing: Timing) -> _Numbers:
    """Return the cycles of `array_waits` by the engine that was waited for, (instructions, engines).

    While the instruction that the array waits for is itself not ready, what that one waits for is charged, and so on: VECTOR
    where a load waits for an operator's results, COMPUTE where it waits for the array to be done with a region.
    """
    engines = timing.jobs.engine
    counts = np.bincount(engines, minlength=len(Engine))
    begins, places = np.cumsum(counts) - counts, np.argsort(engines, kind="stable")
    ordinals = np.empty(len(engines), np.int64)
    ordinals[places] = np.arange(len(engines)) - begins[engines[places]]
    chain = Chain(
        engines, timing.ready, timing.start, timing.waited_for, resolve_tokens(program), ordinals, places, begins
    )  # fmt: skip
    charged = np.zeros((len(engines), len(Engine)), np.int64)
    charge_waits(chain, array_waits(timing), charged)
    return charged
