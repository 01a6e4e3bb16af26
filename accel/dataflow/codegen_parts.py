"""Operators cut by samples, so that the product that reads their results begins with the first ones (docs/scheduling.md).

What reads whole tensors waits for all samples. An operator that makes each sample of its results from that sample can be done
in parts, one after another; a product whose rows go through the samples then starts when the first part is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from accel.arch import Arch
from accel.dataflow.codegen_kernels import Lines
from accel.gemm import Operand
from accel.schedule import VectorWork
from accel.timing.engines import dma_cycles, vector_cycles

MOST_PARTS = 16
_LEAST_TIMES = 8
"""A part lasts at least so many times what starting and ending its instructions takes."""

NO_LINES = Lines(0, 0)


def part_ends(works: Sequence[VectorWork], arch: Arch, batch: int) -> list[int]:
    """Return the first sample behind each part; one part, `[batch]`, where more would not be worth their ends."""
    cycles = sum(_cycles(work, arch) for work in works)
    ends = len(works) * (arch.dram_latency_cycles + arch.vector_latency_cycles + 2 * arch.dma_setup_cycles)
    count = max(min(MOST_PARTS, batch, cycles // max(_LEAST_TIMES * ends, 1)), 1)
    return [batch * (part + 1) // count for part in range(count)]


def _cycles(work: VectorWork, arch: Arch) -> int:
    lanes = vector_cycles(work.lane_ops, arch.vector_lanes, 0)
    return max(lanes, dma_cycles(work.dram_bytes, 0, arch.dram_bytes_per_cycle, 0))


def spans(ends: Sequence[int]) -> list[tuple[int, int]]:
    """Return (first sample, samples) of each part."""
    return [(first, end - first) for first, end in pairwise([0, *ends])]


def share(amount: int, samples: tuple[int, int], batch: int) -> int:
    """Return what of an `amount` falls on `samples` (first, count); the shares of all parts add up to it."""
    first, count = samples
    return amount * (first + count) // batch - amount * first // batch


def lines_of(operand: Operand, size: int, batch: int) -> Lines:
    """Return which of the `size` lines of an operand are of which sample; `NO_LINES` where each may need all samples."""
    access = operand.access
    if access is None or len(operand.tensors) != 1:
        return NO_LINES
    axis, extents = access.axes[0], access.repeats + access.rows
    if axis.size != batch or axis.offset or len(axis.terms) != 1 or axis.terms[0][1] != 1:
        return NO_LINES
    digit = axis.terms[0][0]
    if digit >= len(extents) or extents[digit] != batch:
        return NO_LINES
    in_repeats = digit < len(access.repeats)
    if prod(extents[:digit] if in_repeats else access.rows[: digit - len(access.repeats)]) != 1:
        return NO_LINES  # the batch is not what changes last
    per_sample = prod(extents[digit + 1 :])
    return Lines(size if in_repeats else 0, per_sample)
