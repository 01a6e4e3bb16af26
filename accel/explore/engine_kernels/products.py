"""The distinct products of a word on many machines: each searched once, and what a step adds up of the mapping found."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accel.dataflow.families import Work
from accel.dataflow.pricing import Prices
from accel.dataflow.search import NOT_FOUND, is_best_too, search_gemms
from accel.jit import kernel
from accel.timing.gemm import VECTOR, Machine, Product, Side, Tiling
from accel.timing.traffic import array_bytes, pruned_groups

MACHINE_DTYPE = np.dtype(
    [(name, np.float64 if name == "dram_bytes_per_cycle" else np.int64) for name in Machine._fields]
    + [("pes", np.int64), ("wuve_lanes", np.int64)]
)
"""The numbers of a machine that the time and the events of a step depend on, but for its forms."""

FOUND_DTYPE = np.dtype(
    [(name, np.int64) for name in ("cycles", "dma_cycles", "dram_bytes", "on_array")]
    + [(name, np.int64) for name in ("register_bytes", "buffer_bytes", "pruned_groups", "is_countable")]
)
"""What a step adds up of one product under its best mapping; the last four are counted for energy alone."""

LARGEST = 2.0**62
"""What may become larger than this is left to Python's integers."""

Record = Any
"""A record of a structured array, or the array: NumPy's types say nothing about its fields."""

IntArray = npt.NDArray[np.int64]


class Forms(NamedTuple):
    """Which dataflows and forms of the interleave machines have: those of machine i are `row_lanes[first[i]:first[i + 1]]`."""

    row_lanes: IntArray
    first: IntArray
    has_os: npt.NDArray[np.bool_]
    has_ws: npt.NDArray[np.bool_]


@kernel
def search_machines(
    machines: Record,
    forms: Forms,
    prices: Prices,
    gemms: Record,
    counts_events: bool,
    kin: IntArray,
    work: Work,
    best: Record,
    slots: IntArray,
    found: Record,
) -> None:
    """Search all `gemms` (GEMM_DTYPE) on every machine; fill row `slots[i]` of `found` for machine i.

    Machines with equal `kin` differ in the sizes of their buffers alone; they are neighbours, larger ones before smaller ones.

    `best` (BEST_DTYPE, machines x gemms) is where the search works, zeros to begin with, and so is `work`, which has room for
    all forms of the interleave of any of the machines.
    """
    for at in range(len(machines)):
        machine = machine_of_record(machines[at])
        row_lanes = forms.row_lanes[forms.first[at] : forms.first[at + 1]]
        for other in range(at - 1, -1, -1):
            if kin[other] != kin[at]:
                break
            if _has_larger_buffers(machines[other], machines[at]):
                for number in range(len(gemms)):
                    one = best[at, number]
                    if one.cycles == 0 and is_best_too(machine, gemms[number], row_lanes, best[other, number]):
                        best[at, number] = best[other, number]
        search_gemms(machine, prices, gemms, row_lanes, forms.has_os[at], forms.has_ws[at], work, best[at])
        for number in range(len(gemms)):
            _note(machine, gemms[number], best[at, number], counts_events, found[slots[at], number])


@kernel
def _has_larger_buffers(larger: Record, machine: Record) -> bool:
    west, north = larger.west_bits >= machine.west_bits, larger.north_bits >= machine.north_bits
    return bool(west and north and larger.psum_words >= machine.psum_words)


@kernel
def machine_of_record(record: Record) -> Machine:
    """Return the machine of a record of MACHINE_DTYPE."""
    return Machine(
        record.rows, record.cols, record.lanes, record.multiplier_latency, record.drain_lanes, record.group,
        record.index_bits, record.west_bits, record.north_bits, record.psum_words, record.dram_bytes_per_cycle,
        record.dram_latency, record.dma_setup, record.vector_lanes, record.vector_latency, record.sore_lanes,
    )  # fmt: skip


@kernel
def _note(machine: Machine, gemm: Record, best: Record, counts_events: bool, found: Record) -> None:
    """Take over what `best` says of a product; with `counts_events` also count what it moves on the chip."""
    found.cycles, found.dma_cycles, found.dram_bytes = best.cycles, best.dma_cycles, best.dram_bytes
    found.on_array = best.dataflow != VECTOR
    found.register_bytes, found.buffer_bytes, found.pruned_groups, found.is_countable = 0, 0, 0, 1
    if not counts_events or best.cycles >= NOT_FOUND:
        return
    if not found.on_array:
        found.buffer_bytes = 2 * best.dram_bytes  # every operand read once
        return
    product = _moved_product(gemm, best)
    if _most_bits(machine, product, best.run_group) >= LARGEST:
        found.is_countable = 0
        return
    tiling = Tiling(best.dataflow, best.row_lanes, best.tile_m, best.tile_n, best.tile_groups, best.order)
    registers, buffers = array_bytes(machine, product, tiling, best.run_group, _index_bits(gemm))
    found.register_bytes, found.buffer_bytes = registers, best.dram_bytes + buffers
    found.pruned_groups = pruned_groups(product, tiling)


@kernel
def _moved_product(gemm: Record, best: Record) -> Product:
    """Return the product as its mapping runs it, for closed forms that count what moves on the chip: no bits of operands."""
    groups = gemm.k_taps * ((gemm.k_inner + best.run_group - 1) // best.run_group)
    if best.swapped:
        online = gemm.lhs_keep < gemm.lhs_group and gemm.lhs_compact_bits == 0
        west, north = Side(gemm.n, gemm.n, 0, 0, 0, False), Side(gemm.m, gemm.m, 0, 0, 0, online)
    else:
        online = gemm.rhs_keep < gemm.rhs_group and gemm.rhs_compact_bits == 0
        west, north = Side(gemm.m, gemm.m, 0, 0, 0, False), Side(gemm.n, gemm.n, 0, 0, 0, online)
    return Product(west, north, gemm.count, groups, best.run_keep, gemm.out_bits, gemm.out_elems, gemm.macs)


@kernel
def _index_bits(gemm: Record) -> int:
    """Return the bits that say where in a group of the product's own pattern an entry stands."""
    keep, group = (gemm.rhs_keep, gemm.rhs_group) if gemm.lhs_keep == gemm.lhs_group else (gemm.lhs_keep, gemm.lhs_group)
    bits = 0
    while keep < group and 1 << bits < group:
        bits += 1
    return bits


@kernel
def _most_bits(machine: Machine, product: Product, run_group: int) -> float:
    """Return a bound, with room to spare, of all bits that `array_bytes` adds up.

    An element of k costs at most 128 bits for each result of all whole array tiles, and a result on its way down the drain
    chains passes fewer than `rows * (lanes + 1)` registers for each of its `lanes`.
    """
    dim_m = float(product.west.size) + machine.rows * machine.lanes
    dim_n = float(product.north.size) + machine.cols * machine.lanes
    down = 32.0 * (machine.lanes + 1) * (machine.lanes + 1) * (machine.rows + 1)
    return product.repeats * dim_m * dim_n * (128.0 * product.groups * run_group + down)
