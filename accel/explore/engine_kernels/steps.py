"""Adds up the steps of many machines: time by docs/timing.md section 3 as `accel.sim.step`, events as `accel.sim.energy`."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from accel.dataflow.search import NOT_FOUND
from accel.explore.engine_kernels.exact import FloatArray, add_exactly
from accel.explore.engine_kernels.products import LARGEST, IntArray, Record, machine_of_record
from accel.jit import kernel
from accel.timing.engines import dma_cycles, sore_cycles, vector_cycles, wuve_cycles
from accel.timing.gemm import Machine

PRICED = ("multiply", "add", "registers", "buffers", "dram", "vector", "update", "sore", "clock", "static")
"""The components of energy, in the order of the prices and sums below."""
_MULTIPLY, _ADD, _REGISTERS, _BUFFERS, _DRAM, _VECTOR, _UPDATE, _SORE, _CLOCK, _STATIC = range(len(PRICED))

_LARGEST_FACTOR = 2**31


class Work(NamedTuple):
    """The steps of all parts on machines of one word; `..._segments`, `..._vectors` and so on say where those of each begin."""

    part_segments: IntArray
    part_updates: IntArray
    segment_gemms: IntArray
    segment_vectors: IntArray
    gemm_products: IntArray
    """Of each product in order, which of the distinct ones it is."""
    vector_lane_ops: IntArray
    vector_bytes: IntArray
    update_elems: IntArray
    update_passes: IntArray
    update_sore_groups: IntArray
    update_bytes: IntArray


class Totals(NamedTuple):
    """What is filled in: of every machine and part cycles, DRAM bytes and the exact sum of each component of energy."""

    cycles: IntArray
    dram_bytes: IntArray
    joules: FloatArray
    """(machines, parts, components, `exact.PARTS`), zeros to begin with; not touched without energies."""
    unplaced: IntArray
    """Of every machine, the first product that fits its buffers in no way, or -1."""
    is_small: npt.NDArray[np.bool_]
    """Whether all numbers of a machine stay far inside 64 bits; else they are not to be used."""


class _Machine(NamedTuple):
    """One machine, without arrays: those are costly to hand on."""

    numbers: Machine
    pes: int
    wuve_lanes: int
    compares: int
    """Comparisons of SORE in two groups."""
    scale: float
    """At least 1, and at least the DMA's cycles a byte."""


@kernel
def add_up(
    machines: Record,
    slots: IntArray,
    found: Record,
    gemms: Record,
    work: Work,
    prices: FloatArray,
    has_prices: bool,
    totals: Totals,
) -> None:
    """Fill `totals`; what machine i found of its products is row `slots[i]` of `found`, `prices[i]` are joules an event."""
    for at in range(len(machines)):
        found_here = found[slots[at]]
        totals.unplaced[at] = _first_unplaced(work.gemm_products, found_here)
        if totals.unplaced[at] >= 0:
            continue
        record = machines[at]
        numbers = machine_of_record(record)
        scale = max(1.0, 1.0 / numbers.dram_bytes_per_cycle)
        machine = _Machine(numbers, record.pes, record.wuve_lanes, numbers.group * (numbers.group - 1), scale)
        is_small = True
        for part in range(len(work.part_segments) - 1):
            cycles, dram_bytes, size = _add_segments(machine, found_here, work, part)
            more = _add_updates(machine, work, part)
            totals.cycles[at, part], totals.dram_bytes[at, part] = cycles + more[0], dram_bytes + more[1]
            is_small = is_small and (size + more[2]) * machine.pes < LARGEST
            if has_prices and is_small:
                _price_segments(machine, found_here, gemms, work, part, prices[at], totals.joules[at, part])
                _price_updates(machine, work, part, prices[at], totals.joules[at, part])
        totals.is_small[at] = is_small


@kernel
def _first_unplaced(gemm_products: IntArray, found: Record) -> int:
    for at in range(len(gemm_products)):
        if found[gemm_products[at]].cycles >= NOT_FOUND:
            return at
    return -1


@kernel
def _add_segments(machine: _Machine, found: Record, work: Work, part: int) -> tuple[int, int, float]:
    """Return cycles, DRAM bytes and a bound of all numbers of the segments of a part."""
    segment_gemms, segment_vectors, gemm_products = work.segment_gemms, work.segment_vectors, work.gemm_products
    lane_ops, vector_bytes = work.vector_lane_ops, work.vector_bytes
    cycles, dram_bytes, size = 0, 0, 0.0
    for segment in range(work.part_segments[part], work.part_segments[part + 1]):
        array, vector, dma = 0, 0, 0
        for at in range(segment_gemms[segment], segment_gemms[segment + 1]):
            one = found[gemm_products[at]]
            if one.on_array:
                array += one.cycles
            else:
                vector += one.cycles
            dma += one.dma_cycles
            dram_bytes += one.dram_bytes
            size += float(one.cycles) + one.dram_bytes * machine.scale
            if not one.is_countable:
                size += LARGEST
        for at in range(segment_vectors[segment], segment_vectors[segment + 1]):
            alone, busy = _vector_task(machine.numbers, lane_ops[at], vector_bytes[at])
            vector += alone
            dma += busy
            dram_bytes += vector_bytes[at]
            size += float(alone) + vector_bytes[at] * machine.scale
        if size >= LARGEST:
            return 0, 0, size
        cycles += max(array, vector, dma)
    return cycles, dram_bytes, size


@kernel
def _vector_task(machine: Machine, lane_ops: int, dram_bytes: int) -> tuple[int, int]:
    """Return (cycles, DMA cycles) of an operator on the vector unit."""
    lanes, dma = vector_cycles(lane_ops, machine.vector_lanes, machine.vector_latency), 0
    if dram_bytes:
        dma = dma_cycles(dram_bytes, 2, machine.dram_bytes_per_cycle, machine.dma_setup)
    return max(lanes, dma) + (machine.dram_latency if dma else 0), dma


@kernel
def _add_updates(machine: _Machine, work: Work, part: int) -> tuple[int, int, float]:
    """Return cycles, DRAM bytes and a bound of all numbers of the updates of a part."""
    cycles, dram_bytes, size = 0, 0, 0.0
    for at in range(work.part_updates[part], work.part_updates[part + 1]):
        alone = _update_cycles(machine, work, at)
        size += float(alone) + work.update_bytes[at] * machine.scale
        if size >= LARGEST:
            return 0, 0, size
        cycles += alone
        dram_bytes += work.update_bytes[at]
    return cycles, dram_bytes, size


@kernel
def _update_cycles(machine: _Machine, work: Work, at: int) -> int:
    numbers = machine.numbers
    wuve = wuve_cycles(work.update_elems[at], work.update_passes[at], machine.wuve_lanes)
    sore = sore_cycles(work.update_sore_groups[at], numbers.sore_lanes)
    dma = dma_cycles(work.update_bytes[at], 2, numbers.dram_bytes_per_cycle, numbers.dma_setup)
    return max(wuve, sore, dma) + numbers.dram_latency


@kernel
def _price_segments(
    machine: _Machine, found: Record, gemms: Record, work: Work, part: int, prices: FloatArray, joules: FloatArray
) -> None:
    """Add the energy of the products and operators of a part.

    Products on the array are charged their own time, what is on the vector unit its share of the rest of the segment.
    """
    segment_gemms, segment_vectors, gemm_products = work.segment_gemms, work.segment_vectors, work.gemm_products
    lane_ops, vector_bytes = work.vector_lane_ops, work.vector_bytes
    for segment in range(work.part_segments[part], work.part_segments[part + 1]):
        array, vector, dma = 0, 0, 0
        for at in range(segment_gemms[segment], segment_gemms[segment + 1]):
            one = found[gemm_products[at]]
            dma += one.dma_cycles
            if one.on_array:
                array += one.cycles
            else:
                vector += one.cycles
        for at in range(segment_vectors[segment], segment_vectors[segment + 1]):
            alone, busy = _vector_task(machine.numbers, lane_ops[at], vector_bytes[at])
            vector += alone
            dma += busy
        rest, seen, charged = max(array, vector, dma) - array, 0, 0
        for at in range(segment_gemms[segment], segment_gemms[segment + 1]):
            one = found[gemm_products[at]]
            charge = one.cycles
            if not one.on_array:
                seen += one.cycles
                share = share_of(rest, seen, max(vector, 1))
                charge, charged = share - charged, share
            _price_row(machine.pes, charge, one.dram_bytes, prices, joules)
            _price_product(machine.compares, one, gemms[gemm_products[at]], prices, joules)
        for at in range(segment_vectors[segment], segment_vectors[segment + 1]):
            alone, _ = _vector_task(machine.numbers, lane_ops[at], vector_bytes[at])
            seen += alone
            share = share_of(rest, seen, max(vector, 1))
            _price_row(machine.pes, share - charged, vector_bytes[at], prices, joules)
            add_exactly(joules, _VECTOR, lane_ops[at] * prices[_VECTOR])
            charged = share


@kernel
def _price_row(pes: int, cycles: int, dram_bytes: int, prices: FloatArray, joules: FloatArray) -> None:
    """Add what every row costs: its time, and what crosses the DRAM port."""
    add_exactly(joules, _CLOCK, pes * cycles * prices[_CLOCK])
    add_exactly(joules, _STATIC, cycles * prices[_STATIC])
    add_exactly(joules, _DRAM, dram_bytes * prices[_DRAM])


@kernel
def _price_product(compares: int, one: Record, gemm: Record, prices: FloatArray, joules: FloatArray) -> None:
    add_exactly(joules, _BUFFERS, one.buffer_bytes * prices[_BUFFERS])
    if not one.on_array:
        add_exactly(joules, _VECTOR, gemm.macs * prices[_VECTOR])
        return
    add_exactly(joules, _MULTIPLY, gemm.macs_useful * prices[_MULTIPLY])
    add_exactly(joules, _ADD, gemm.macs_useful * prices[_ADD])
    add_exactly(joules, _REGISTERS, one.register_bytes * prices[_REGISTERS])
    if one.pruned_groups:
        add_exactly(joules, _SORE, one.pruned_groups * compares // 2 * prices[_SORE])


@kernel
def share_of(rest: int, seen: int, beside: int) -> int:
    """Return `rest * seen // beside` with `seen` at most `beside`, also where the product has more than 64 bits."""
    if rest < _LARGEST_FACTOR and seen < _LARGEST_FACTOR:
        return rest * seen // beside
    whole, left = rest // beside * seen, rest % beside
    quotient, remainder = 0, 0
    for bit in range(62, -1, -1):  # left * seen // beside, bit by bit of `left`: the remainder stays below `beside`
        quotient, remainder = 2 * quotient, 2 * remainder
        if remainder >= beside:
            quotient, remainder = quotient + 1, remainder - beside
        if left >> bit & 1:
            remainder += seen
            if remainder >= beside:
                quotient, remainder = quotient + 1, remainder - beside
    return whole + quotient


@kernel
def _price_updates(machine: _Machine, work: Work, part: int, prices: FloatArray, joules: FloatArray) -> None:
    """Add the energy of the updates of a part."""
    for at in range(work.part_updates[part], work.part_updates[part + 1]):
        _price_row(machine.pes, _update_cycles(machine, work, at), work.update_bytes[at], prices, joules)
        add_exactly(joules, _UPDATE, work.update_elems[at] * work.update_passes[at] * prices[_UPDATE])
        groups = work.update_sore_groups[at]
        if groups:
            add_exactly(joules, _SORE, groups * machine.compares // 2 * prices[_SORE])
