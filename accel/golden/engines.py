"""The engines beside the array, stepped cycle by cycle: the slow twins of `accel.timing.engines`."""

from __future__ import annotations

from collections import deque
from fractions import Fraction

SORE_LATENCY_CYCLES = 4
"""From a group taken to its entries given, as the hardware is built."""


def step_dma(bytes_moved: int, transfers: int, bytes_per_cycle: Fraction, setup_cycles: int) -> int:
    """Return the cycles in which the DMA sets up `transfers` and moves `bytes_moved`, one after another, without gaps."""
    cycles = 0
    for _ in range(transfers):
        for _ in range(setup_cycles):
            cycles += 1
    left = Fraction(bytes_moved)
    while left > 0:
        left -= bytes_per_cycle
        cycles += 1
    return cycles


def step_vector(lane_ops: int, lanes: int, latency_cycles: int) -> int:
    """Return the cycles until the last of `lane_ops` (at least 1) has left a pipeline of `latency_cycles` registers."""
    waiting, finished, cycles = lane_ops, 0, 0
    pipeline = deque([0] * latency_cycles)
    while finished < lane_ops:
        started = min(lanes, waiting)
        waiting -= started
        pipeline.append(started)
        finished += pipeline.popleft()
        cycles += 1
    return cycles


def step_sore(groups: int, lanes: int) -> int:
    """Return the cycles until the entries of the last of `groups` have left SORE, whose lanes take one group each a cycle."""
    return step_vector(groups, lanes, SORE_LATENCY_CYCLES) if groups else 0


def step_wuve(elems: int, passes: int, lanes: int) -> int:
    """Return the cycles in which WUVE's lanes, all in step, take one weight each through `passes` until none is left."""
    waiting, cycles = elems, 0
    while waiting > 0:
        waiting -= min(lanes, waiting)
        for _ in range(passes):
            cycles += 1
    return cycles
