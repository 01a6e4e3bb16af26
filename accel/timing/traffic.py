"""What a product moves on the chip under one mapping: the closed forms of docs/energy.md section 2, compiled for the search."""

from __future__ import annotations

from accel.jit import kernel
from accel.timing.array import ceil_div
from accel.timing.gemm import LOOP_ORDERS, OS, Machine, Product, Tiling

_VALUE_BITS = 16
_SUM_BITS = 32
_INSIDE_M = tuple((order.index("n") > order.index("m"), order.index("k") > order.index("m")) for order in LOOP_ORDERS)
"""Of each loop order, whether the loops over n and over k stand inside the one over m."""


@kernel
def array_bytes(machine: Machine, product: Product, tiling: Tiling, run_group: int, index_bits: int) -> tuple[int, int]:
    """Return the bytes (written in registers of the array, moved between it and the buffers) by a product on the array.

    `run_group` elements make up a group as it runs; `index_bits` are those of the north operand's own pattern. Of the tile only
    `tile_m` is read, and that only in WS.
    """
    dim_m, dim_n, rows = product.west.size, product.north.size, machine.rows
    n_tiles = ceil_div(dim_n, machine.cols * (machine.lanes // tiling.row_lanes))
    west_words = product.repeats * dim_m * product.groups * n_tiles
    column_entries = product.repeats * dim_n * product.groups * product.keep
    results = product.repeats * dim_m * dim_n
    if tiling.dataflow == OS:
        north_entries = column_entries * ceil_div(dim_m, rows * tiling.row_lanes)
        held, psum_words = rows, 0
        sum_writes = _drain_writes(machine, product, tiling.row_lanes)
    else:
        north_entries = column_entries * ceil_div(dim_m, tiling.tile_m)
        held, psum_words = 1, 2 * results * (ceil_div(product.groups, rows) - 1)
        sum_writes = results * ceil_div(product.groups, rows)
    entry_bits = _VALUE_BITS + _ceil_log2(run_group) + 1  # value, index, valid
    word_bits = _VALUE_BITS * run_group
    register_bits = 2 * west_words * machine.cols * word_bits + north_entries * (rows + held) * entry_bits
    buffer_bits = west_words * word_bits + north_entries * (_VALUE_BITS + index_bits) + product.out_elems * product.out_bits
    return ceil_div(register_bits + sum_writes * _SUM_BITS, 8), ceil_div(buffer_bits + psum_words * _SUM_BITS, 8)


@kernel
def pruned_groups(product: Product, tiling: Tiling) -> int:
    """Return the groups that SORE prunes: those of the north operand once for each time it is loaded; 0 if it is not pruned."""
    if not product.north.online:
        return 0
    n_inside, k_inside = _INSIDE_M[tiling.order]
    again = n_inside and tiling.tile_n < product.north.size
    again = again or (k_inside and tiling.tile_groups < product.groups)
    passes = ceil_div(product.west.size, tiling.tile_m) if again else 1
    return product.repeats * passes * product.north.size * product.groups


@kernel
def _drain_writes(machine: Machine, product: Product, row_lanes: int) -> int:
    """Return the registers that the sums of all OS tiles pass on their way down: rule 9 of docs/timing.md."""
    unit_m, unit_n = machine.rows * row_lanes, machine.cols * (machine.lanes // row_lanes)
    m_tiles, n_tiles = ceil_div(product.west.size, unit_m), ceil_div(product.north.size, unit_n)
    last_rows = min(machine.rows, product.west.size - (m_tiles - 1) * unit_m)
    last_cols = min(machine.cols, product.north.size - (n_tiles - 1) * unit_n)
    column = (m_tiles - 1) * _column_writes(machine, machine.rows) + _column_writes(machine, last_rows)
    return product.repeats * ((n_tiles - 1) * machine.cols + last_cols) * column


@kernel
def _column_writes(machine: Machine, used_rows: int) -> int:
    """Return the registers that the words of the first `used_rows` PEs of a column pass in one tile.

    Lane l of row r passes `rows - r + (q + 1) * lanes`, with q rows of its chain below it.
    """
    first, lanes, drain_lanes = machine.rows - used_rows, machine.lanes, machine.drain_lanes
    below = _sum_of_quotients(machine.rows, drain_lanes) - _sum_of_quotients(first, drain_lanes)
    return lanes * (used_rows * (machine.rows + first + 1) // 2 + (below + used_rows) * lanes)


@kernel
def _sum_of_quotients(count: int, divisor: int) -> int:
    """Return the sum of 0 // divisor, 1 // divisor and so on, `count` of them."""
    whole = count // divisor
    return divisor * whole * (whole - 1) // 2 + whole * (count % divisor)


@kernel
def _ceil_log2(value: int) -> int:
    bits = 0
    while 1 << bits < value:
        bits += 1
    return bits
