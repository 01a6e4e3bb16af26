"""Closed forms of the engines beside the array: DMA, vector unit, SORE, WUVE (docs/timing.md, section 4)."""

from __future__ import annotations

import math

from accel.jit import kernel

SORE_LATENCY_CYCLES = 4
"""From a group taken to its entries given."""


@kernel
def dma_cycles(bytes_moved: int, transfers: int, bytes_per_cycle: float, setup_cycles: int) -> int:
    """Return the cycles in which the DMA moves `bytes_moved` in `transfers` tiles, one after another."""
    return math.ceil(bytes_moved / bytes_per_cycle) + transfers * setup_cycles


@kernel
def vector_cycles(lane_ops: int, lanes: int, latency_cycles: int) -> int:
    """Return the cycles of `lane_ops` operations on `lanes`, the last result out after the pipeline's latency."""
    return -(-lane_ops // lanes) + latency_cycles


@kernel
def sore_cycles(groups: int, lanes: int) -> int:
    """Return the cycles in which SORE prunes `groups`: a lane takes one a cycle, and the last one leaves after the pipeline."""
    return -(-groups // lanes) + SORE_LATENCY_CYCLES if groups else 0


@kernel
def wuve_cycles(elems: int, passes: int, lanes: int) -> int:
    """Return the cycles in which WUVE updates `elems` weights, each taking `passes` through a lane."""
    return -(-elems // lanes) * passes
