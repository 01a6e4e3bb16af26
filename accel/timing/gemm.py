"""Closed form of one product under one mapping: tiles, traffic, DMA behind the array (docs/timing.md, section 2)."""

from __future__ import annotations

from typing import NamedTuple

from accel.jit import kernel
from accel.timing.array import (
    ceil_div,
    os_compute_cycles,
    os_run_cycles,
    os_slot_cycles,
    ws_compute_cycles,
    ws_run_cycles,
    ws_slot_cycles,
)
from accel.timing.engines import dma_cycles, sore_cycles, vector_cycles

OS, WS, VECTOR = 0, 1, 2
DATAFLOW_NAMES = ("OS", "WS", "VECTOR")

LOOP_ORDERS = ("mnk", "mkn", "nmk", "nkm", "kmn", "knm")
"""DRAM-level loops, outermost first."""
_POSITIONS = tuple(tuple(order.index(loop) for loop in "mnk") for order in LOOP_ORDERS)


class Machine(NamedTuple):
    """The numbers of an `Arch` that time depends on. Buffers are one half of a double buffer, in bits."""

    rows: int
    cols: int
    lanes: int
    multiplier_latency: int
    drain_lanes: int
    group: int
    index_bits: int
    """Bits that say where in a group an entry stands."""
    west_bits: int
    north_bits: int
    psum_words: int
    """FP32 words of one column's buffer of partial sums."""
    dram_bytes_per_cycle: float
    dram_latency: int
    dma_setup: int
    vector_lanes: int
    vector_latency: int
    sore_lanes: int


class Side(NamedTuple):
    """One operand as it enters the array: `size` rows (west) or columns (north), in bits."""

    size: int
    distinct: int
    row_bits: int
    """One row with all of k, where a tile holds all of k."""
    halo_bits: int
    group_bits: int
    """One group of one row, where a tile holds a chunk of k."""
    online: bool
    """Whether SORE prunes it on its way in."""


class Product(NamedTuple):
    """One product in one form: which operand is west, which north, and the pattern the array runs."""

    west: Side
    north: Side
    repeats: int
    """Equal products, one after another."""
    groups: int
    keep: int
    out_bits: int
    out_elems: int
    """Results in DRAM, of all repeats."""
    macs: int


class Tiling(NamedTuple):
    """The choice: dataflow, row lanes of the interleave, DRAM-level tile sizes and loop order."""

    dataflow: int
    row_lanes: int
    tile_m: int
    tile_n: int
    tile_groups: int
    order: int


class Traffic(NamedTuple):
    """What the traffic of a product on a machine depends on, whatever its mapping."""

    repeats: int
    store_bits: int
    """Results of all repeats."""
    spill_bits: int
    """All sums of one repeat in FP32, written and read again."""
    pruned_groups: int
    """Groups of all repeats that SORE prunes in one pass over the north operand; 0 if it is not pruned."""
    sore_lanes: int
    dram_bytes_per_cycle: float
    dma_setup: int


class ArrayCycles(NamedTuple):
    """A run of the array: with tiles held up by nothing, with drains and turns, and with its ends."""

    compute: int
    slots: int
    run: int


class Cost(NamedTuple):
    """See `accel.schedule.GemmCost`."""

    cycles: int
    compute_cycles: int
    slot_cycles: int
    array_cycles: int
    dma_cycles: int
    sore_cycles: int
    fill_cycles: int
    dram_bytes: int
    psum_bytes: int


@kernel
def tile_bits(side: Side, size: int, tile_groups: int, groups: int) -> int:
    """Return the bits of a tile of `size` rows and `tile_groups` of `groups` along k."""
    held = min(size, side.distinct)
    if tile_groups >= groups:
        return held * side.row_bits + side.halo_bits
    return held * tile_groups * side.group_bits


@kernel
def pass_bits(side: Side, tile: int, tile_groups: int, groups: int) -> int:
    """Return the bits of one pass over an operand in tiles of `tile` rows, the last one ragged, halos included."""
    full, rest = side.size // tile, side.size % tile
    if tile_groups >= groups:
        total = full * tile_bits(side, tile, groups, groups)
        return total + tile_bits(side, rest, groups, groups) if rest else total
    held = full * min(tile, side.distinct) + min(rest, side.distinct)
    return held * groups * side.group_bits


@kernel
def array_cycles(machine: Machine, product: Product, tiling: Tiling) -> ArrayCycles:
    """Return the cycles of the array alone, its operands always ready (docs/timing.md, section 1)."""
    rows, cols, lanes, dim_m, dim_n = machine.rows, machine.cols, machine.lanes, product.west.size, product.north.size
    groups, keep, count, row_lanes = product.groups, product.keep, product.repeats, tiling.row_lanes
    if tiling.dataflow == OS:
        steps, drain_lanes = groups * keep, machine.drain_lanes
        compute = os_compute_cycles(rows, cols, lanes, row_lanes, dim_m, dim_n, steps, count)
        slots = os_slot_cycles(rows, cols, lanes, row_lanes, drain_lanes, dim_m, dim_n, steps, count)
    else:
        chunk = tiling.tile_m
        compute = ws_compute_cycles(rows, cols, lanes, row_lanes, dim_m, dim_n, groups, keep, chunk, count)
        slots = ws_slot_cycles(rows, cols, lanes, row_lanes, dim_m, dim_n, groups, keep, chunk, count)
    return ArrayCycles(compute, slots, run_cycles(machine, product, tiling))


@kernel
def run_cycles(machine: Machine, product: Product, tiling: Tiling) -> int:
    """Return `array_cycles(...).run`; of the tile only `tile_m` is read, and that only in WS."""
    rows, cols, lanes, dim_m, dim_n = machine.rows, machine.cols, machine.lanes, product.west.size, product.north.size
    groups, keep, count, row_lanes = product.groups, product.keep, product.repeats, tiling.row_lanes
    latency, drain_lanes = machine.multiplier_latency, machine.drain_lanes
    if tiling.dataflow == OS:
        return os_run_cycles(rows, cols, lanes, row_lanes, drain_lanes, latency, dim_m, dim_n, groups * keep, count)
    return ws_run_cycles(rows, cols, lanes, row_lanes, latency, dim_m, dim_n, groups, keep, tiling.tile_m, count)


@kernel
def passes_of(order: int, loops_m: int, loops_n: int, loops_k: int) -> tuple[int, int, int]:
    """Return how often (all of west, all of north) is loaded, and how often partial sums are written and read again."""
    at_m, at_n, at_k = _POSITIONS[order]
    west_passes = loops_n if (at_m > at_n and loops_m > 1) or (at_k > at_n and loops_k > 1) else 1
    north_passes = loops_m if (at_n > at_m and loops_n > 1) or (at_k > at_m and loops_k > 1) else 1
    spills = loops_k - 1 if (at_m > at_k and loops_m > 1) or (at_n > at_k and loops_n > 1) else 0
    return west_passes, north_passes, spills


@kernel
def traffic_of(machine: Machine, product: Product) -> Traffic:
    """Return what the traffic of all mappings of a product depends on."""
    groups = product.repeats * product.north.size * product.groups if product.north.online else 0
    return Traffic(
        product.repeats, product.out_elems * product.out_bits, 64 * product.west.size * product.north.size, groups,
        machine.sore_lanes, machine.dram_bytes_per_cycle, machine.dma_setup,
    )  # fmt: skip


@kernel
def moves_of(
    traffic: Traffic, order: int, loops_m: int, loops_n: int, loops_k: int, west_bits: int, north_bits: int
) -> tuple[int, int, int]:
    """Return what so many loops load and store, where a pass over an operand moves `west_bits` or `north_bits`.

    That is (bytes, cycles that they keep the DMA busy, groups that SORE prunes).
    """
    west_passes, north_passes, spills = passes_of(order, loops_m, loops_n, loops_k)
    bits = west_passes * west_bits + north_passes * north_bits + spills * traffic.spill_bits
    dram_bytes = ceil_div(traffic.repeats * bits + traffic.store_bits, 8)
    transfers = west_passes * loops_m * loops_k + north_passes * loops_n * loops_k + (1 + 2 * spills) * loops_m * loops_n
    dma = dma_cycles(dram_bytes, traffic.repeats * transfers, traffic.dram_bytes_per_cycle, traffic.dma_setup)
    return dram_bytes, dma, north_passes * traffic.pruned_groups


@kernel
def loads_and_stores(machine: Machine, product: Product, tiling: Tiling) -> tuple[int, int, int]:
    """Return what all loads and stores move, how long they keep the DMA busy, and SORE: (bytes, DMA cycles, SORE cycles)."""
    west, north, groups = product.west, product.north, product.groups
    loops_m, loops_n = ceil_div(west.size, tiling.tile_m), ceil_div(north.size, tiling.tile_n)
    west_bits = pass_bits(west, tiling.tile_m, tiling.tile_groups, groups)
    north_bits = pass_bits(north, tiling.tile_n, tiling.tile_groups, groups)
    traffic, loops_k = traffic_of(machine, product), ceil_div(groups, tiling.tile_groups)
    dram_bytes, dma, pruned = moves_of(traffic, tiling.order, loops_m, loops_n, loops_k, west_bits, north_bits)
    return dram_bytes, dma, sore_cycles(pruned, machine.sore_lanes)


@kernel
def gemm_cost(machine: Machine, product: Product, tiling: Tiling, array: ArrayCycles) -> Cost:
    """Return the cost of `product` under `tiling`; `array` is its `array_cycles` (given, for many tilings share it)."""
    dram_bytes, dma, sore = loads_and_stores(machine, product, tiling)
    fill, tail = end_cycles(machine, product, tiling)
    ends = machine.dram_latency + fill + tail
    cycles = ends + max(array.run, dma - fill - tail, sore)

    psum_bytes = 0
    if tiling.dataflow == WS:
        spread = ceil_div(product.groups, machine.rows)
        psum_bytes = 8 * product.repeats * product.west.size * product.north.size * (spread - 1)
    return Cost(cycles, array.compute, array.slots, array.run, dma, sore, ends, dram_bytes, psum_bytes)


@kernel
def end_cycles(machine: Machine, product: Product, tiling: Tiling) -> tuple[int, int]:
    """Return (first tiles loaded before the array starts, results still to be stored after it ends)."""
    west, north = product.west, product.north
    first_bits = tile_bits(west, min(tiling.tile_m, west.size), tiling.tile_groups, product.groups)
    first_bits += tile_bits(north, min(tiling.tile_n, north.size), tiling.tile_groups, product.groups)
    rows = tiling.tile_m if tiling.dataflow == WS else machine.rows * tiling.row_lanes
    cols = machine.cols * (machine.lanes // tiling.row_lanes)
    last_bits = min(rows, west.size) * min(cols, north.size) * product.out_bits
    return ends_of(first_bits, last_bits, machine.dram_bytes_per_cycle, machine.dma_setup)


@kernel
def ends_of(first_bits: int, last_bits: int, bytes_per_cycle: float, setup_cycles: int) -> tuple[int, int]:
    """Return `end_cycles` of first tiles of `first_bits` together, and last results of `last_bits`."""
    fill = dma_cycles(ceil_div(first_bits, 8), 2, bytes_per_cycle, setup_cycles)
    return fill, dma_cycles(ceil_div(last_bits, 8), 1, bytes_per_cycle, setup_cycles)


@kernel
def entry_bits(keep: int, index_bits: int, tile_groups: int) -> int:
    """Return the room for the entries of one column of a north tile that SORE prunes in place."""
    return tile_groups * keep * (16 + index_bits)


@kernel
def fits(machine: Machine, product: Product, tiling: Tiling) -> bool:
    """Return whether the tile of each operand fits half a buffer, and the sums of WS the psum buffers of their columns.

    A column keeps all L lanes of every stream element, for each strip of columns that one array tile takes; with all of k in a
    tile one strip at a time.
    """
    if tile_bits(product.west, min(tiling.tile_m, product.west.size), tiling.tile_groups, product.groups) > machine.west_bits:
        return False
    if (
        tile_bits(product.north, min(tiling.tile_n, product.north.size), tiling.tile_groups, product.groups)
        > machine.north_bits
    ):
        return False
    column_bits = entry_bits(product.keep, machine.index_bits, min(tiling.tile_groups, product.groups))
    if product.north.online and min(tiling.tile_n, product.north.size) * column_bits > machine.north_bits:
        return False  # every column has its own entries
    if tiling.dataflow == OS:
        return True
    strip_cols = machine.cols * (machine.lanes // tiling.row_lanes)
    cut = tiling.tile_groups < product.groups
    strips = ceil_div(min(tiling.tile_n, product.north.size), strip_cols) if cut else 1
    return strips * ceil_div(min(tiling.tile_m, product.west.size), tiling.row_lanes) * machine.lanes <= machine.psum_words


@kernel
def vector_unit_cost(machine: Machine, product: Product) -> Cost:
    """Return the cost of a product on the vector unit: one lane operation a multiply-add, every operand read once."""
    bits = product.repeats * (
        tile_bits(product.west, product.west.size, product.groups, product.groups)
        + tile_bits(product.north, product.north.size, product.groups, product.groups)
    )
    dram_bytes = ceil_div(bits + product.out_elems * product.out_bits, 8)
    dma = dma_cycles(dram_bytes, 3, machine.dram_bytes_per_cycle, machine.dma_setup)
    lanes = vector_cycles(product.macs, machine.vector_lanes, machine.vector_latency)
    cycles = machine.dram_latency + max(lanes, dma)
    busy = lanes - machine.vector_latency
    return Cost(cycles, busy, busy, lanes, dma, 0, machine.dram_latency, dram_bytes, 0)
