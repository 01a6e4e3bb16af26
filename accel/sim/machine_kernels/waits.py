"""Which engines the array waited for, from what each instruction started no earlier for; compiled."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from accel.jit import kernel

IntArray = npt.NDArray[np.int64]


class Chain(NamedTuple):
    """What instructions waited for. Every field but the last two is (instructions,), or (instructions, engines)."""

    engine: IntArray
    ready: IntArray
    start: IntArray
    waited_for: IntArray
    needs: IntArray
    ordinals: IntArray
    """The instructions of its engine before it."""
    places: IntArray
    """The numbers of all instructions, engine by engine."""
    begins: IntArray
    """Where those of each engine begin in `places`."""


@kernel
def charge_waits(chain: Chain, waits: IntArray, charged: IntArray) -> None:
    """Share the cycles that instruction i waited, `waits[i]`, among the engines: `charged` (instructions, engines), zeros.

    While the instruction that it waited for was itself not ready, what that one waited for is charged, and so on.
    """
    for number in range(len(waits)):
        end = chain.start[number]
        begin, at = end - waits[number], number
        while end > begin:
            engine = chain.waited_for[at]
            count = chain.ordinals[at] if engine == chain.engine[at] else chain.needs[at, engine]
            if count == 0:
                charged[number, engine] += end - begin
                break
            at = chain.places[chain.begins[engine] + count - 1]
            ready = min(max(chain.ready[at], begin), end)
            charged[number, engine] += end - ready
            end = ready
