"""What a product moves on the chip: reads of the buffers and writes of the array's registers (docs/energy.md, section 2).

Closed forms over whole products. They count what the tiles of docs/timing.md section 1 do: each tile is fed its own words and
entries, nothing is kept from one to the next but what WS holds.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from accel.arch import Arch
from accel.schedule import Mapping, ScheduledGemm
from accel.units import ceil_div, ceil_log2

VALUE_BITS = 16
SUM_BITS = 32


class ArrayProduct(NamedTuple):
    """`repeats` equal products as the array sees them: m along the west operand, n along the north one."""

    dim_m: int
    dim_n: int
    groups: int
    """Groups along k."""
    keep: int
    group: int
    repeats: int


class ArrayTraffic(NamedTuple):
    """What crosses the edges of the array and moves in its registers."""

    west_words: int
    """Words of `group` elements read for the row feeders."""
    north_entries: int
    """Entries read for the column feeders, those that pad a group included."""
    west_writes: int
    """Words written in registers: one to pass on and one to hold in every PE of the row."""
    north_writes: int
    """Entries written in registers: one to pass on in every PE of the column; held in every PE (OS) or in one (WS)."""
    sum_writes: int
    """Sums written in drain chains (OS) or in the register at the bottom (WS)."""


def array_product(scheduled: ScheduledGemm) -> ArrayProduct:
    """Return the product of `scheduled` with its operands where the mapping puts them."""
    shape, mapping = scheduled.gemm.shape, scheduled.mapping
    dim_m, dim_n = (shape.n, shape.m) if mapping.swapped else (shape.m, shape.n)
    group = mapping.run_group
    return ArrayProduct(dim_m, dim_n, shape.groups(group), mapping.run_keep, group, shape.count)


def array_traffic(product: ArrayProduct, dataflow: str, row_lanes: int, m_chunk: int, arch: Arch) -> ArrayTraffic:
    """Return the traffic of `product` on the array of `arch`; `m_chunk` is the rows of a WS chunk (OS does not read it)."""
    rows, cols = arch.array_rows, arch.array_cols
    n_tiles = ceil_div(product.dim_n, cols * (arch.adder_latency // row_lanes))
    west_words = product.repeats * product.dim_m * product.groups * n_tiles
    column_entries = product.repeats * product.dim_n * product.groups * product.keep
    if dataflow == "OS":
        north_entries = column_entries * ceil_div(product.dim_m, rows * row_lanes)
        held = rows
        sum_writes = _drain_writes(product, row_lanes, arch)
    else:
        north_entries = column_entries * ceil_div(product.dim_m, m_chunk)
        held = 1
        sum_writes = product.repeats * product.dim_m * product.dim_n * ceil_div(product.groups, rows)
    return ArrayTraffic(west_words, north_entries, 2 * west_words * cols, north_entries * (rows + held), sum_writes)


def _drain_writes(product: ArrayProduct, row_lanes: int, arch: Arch) -> int:
    """Return the registers that the sums of all OS tiles pass on their way down: rule 9 of docs/timing.md."""
    rows, cols, lanes = arch.array_rows, arch.array_cols, arch.adder_latency
    m_tiles, n_tiles = ceil_div(product.dim_m, rows * row_lanes), ceil_div(product.dim_n, cols * (lanes // row_lanes))
    last_rows = min(rows, product.dim_m - (m_tiles - 1) * rows * row_lanes)
    last_cols = min(cols, product.dim_n - (n_tiles - 1) * cols * (lanes // row_lanes))
    columns = (n_tiles - 1) * cols + last_cols
    column = (m_tiles - 1) * _column_writes(rows, rows, lanes, arch.drain_lanes)
    return product.repeats * columns * (column + _column_writes(last_rows, rows, lanes, arch.drain_lanes))


@lru_cache
def _column_writes(used: int, rows: int, lanes: int, drain_lanes: int) -> int:
    """Return the registers that the words of the first `used` of `rows` PEs of a column pass in one tile.

    Lane l of row r is at the bottom `rows - r + (q + 1) * lanes` cycles after its sum was visible, one register a cycle, with q
    rows of its chain below it.
    """
    return sum(lanes * (rows - row + ((rows - 1 - row) // drain_lanes + 1) * lanes) for row in range(used))


def traffic_of(scheduled: ScheduledGemm, arch: Arch) -> ArrayTraffic:
    """Return the traffic of a product on the array: nothing if the vector unit runs it."""
    mapping = scheduled.mapping
    if mapping.dataflow == "VECTOR":
        return ArrayTraffic(0, 0, 0, 0, 0)
    return array_traffic(array_product(scheduled), mapping.dataflow, mapping.row_lanes, mapping.tile_m, arch)


def register_bytes(scheduled: ScheduledGemm, moved: ArrayTraffic) -> int:
    """Return the bytes written in registers of the array by a product whose traffic there is `moved`."""
    mapping = scheduled.mapping
    entry_bits = VALUE_BITS + ceil_log2(mapping.run_group) + 1  # value, index, valid
    west_bits = moved.west_writes * VALUE_BITS * mapping.run_group
    return ceil_div(west_bits + moved.north_writes * entry_bits + moved.sum_writes * SUM_BITS, 8)


def buffer_bytes(scheduled: ScheduledGemm, moved: ArrayTraffic) -> int:
    """Return the bytes written and read in the three buffers by a product whose traffic on the array is `moved`.

    Whatever crosses the DRAM port is one access; operands are read again for the array, results and partial sums written by it.
    """
    gemm, cost, mapping = scheduled.gemm, scheduled.cost, scheduled.mapping
    if mapping.dataflow == "VECTOR":  # every operand read once
        return 2 * cost.dram_bytes
    pattern = gemm.pattern
    bits = moved.west_words * VALUE_BITS * mapping.run_group + gemm.out_elems * gemm.out_bits
    bits += moved.north_entries * (VALUE_BITS + pattern.index_bits)  # as stored: at the pattern's own group
    return cost.dram_bytes + cost.psum_bytes + ceil_div(bits, 8)


def pruned_groups(scheduled: ScheduledGemm) -> int:
    """Return the groups that SORE prunes as a product loads its north operand, 0 if that one is stored as it is used."""
    gemm, mapping = scheduled.gemm, scheduled.mapping
    north = gemm.lhs if mapping.swapped else gemm.rhs
    if mapping.dataflow == "VECTOR" or not north.prune_online or north.pattern.is_dense:
        return 0
    product = array_product(scheduled)
    return product.repeats * _north_passes(product, mapping) * product.dim_n * product.groups


def _north_passes(product: ArrayProduct, mapping: Mapping) -> int:
    """Return how often the north operand is loaded: docs/timing.md section 2, "Loads"."""
    loops_m = ceil_div(product.dim_m, mapping.tile_m)
    turns = {"n": ceil_div(product.dim_n, mapping.tile_n), "k": ceil_div(product.groups, mapping.tile_groups)}
    inside = mapping.loop_order[mapping.loop_order.index("m") + 1 :]
    return loops_m if any(turns[loop] > 1 for loop in inside) else 1
