"""Enumeration of the mappings of a product, compiled: every mapping is covered, the slow ones by a proved bound.

What is enumerated, for each product: the operand that goes north (an N:M operand must), dense run as groups of one or of the
machine's size, dataflow, row lanes of the interleave, every multiple of the array tile that fits the buffers in m, n and k,
and all six orders of the DRAM-level loops. Three rules, proved in docs/scheduling.md, leave mappings out unevaluated:

- two tile sizes that cut a dimension into equally many tiles: the larger one is never better (not used where rows share data);
- cycles are at least array cycles + first loads + last stores: a tile with that sum above the best found so far is out, and
  so is every larger one;
- buffers hold less than the tile: out, and so is every larger one.
"""

from __future__ import annotations

import numpy as np

from accel.jit import kernel
from accel.timing.gemm import (
    LOOP_ORDERS,
    OS,
    VECTOR,
    WS,
    Cost,
    Machine,
    Product,
    Side,
    Tiling,
    array_cycles,
    ceil_ratio,
    end_cycles,
    fits,
    gemm_cost,
    tile_bits,
    vector_unit_cost,
)

_OPERAND_FIELDS = ("row_elems", "distinct", "halo_elems", "chunk_scale", "keep", "group", "index_bits", "online")
GEMM_DTYPE = np.dtype(
    [(name, np.int64) for name in ("m", "n", "k_taps", "k_inner", "count", "macs", "out_bits", "out_elems")]
    + [(f"{side}_{name}", np.int64) for side in ("lhs", "rhs") for name in _OPERAND_FIELDS]
)
"""One product, as the search reads it; an operand's keep and group are its pattern's, 1 and 1 if dense."""

BEST_DTYPE = np.dtype(
    [(name, np.int64) for name in ("dataflow", "swapped", "row_lanes", "run_keep", "run_group")]
    + [(name, np.int64) for name in ("tile_m", "tile_n", "tile_groups", "order")]
    + [(name, np.int64) for name in Cost._fields]
    + [(name, np.int64) for name in ("covered", "evaluated", "compulsory_bytes")]
)
"""The best mapping of one product, its cost and how many mappings were covered; cycles is -1 where nothing fits."""

_ORDERS = len(LOOP_ORDERS)
_NOT_FOUND = 2**62


@kernel
def _make_side(size, row_elems, distinct, halo_elems, chunk_scale, group, keep, pattern_group, index_bits, compact, groups):  # type: ignore[no-untyped-def]
    """Return an operand as it enters the array: `group` elements of 16 bits, or its kept values with indices if compact."""
    if compact:
        group_bits = (group // pattern_group) * keep * (16 + index_bits)
        return Side(size, distinct, groups * group_bits, 0, group_bits, False)
    return Side(size, distinct, row_elems * 16, halo_elems * 16, group * 16 * chunk_scale, keep < pattern_group)


@kernel
def _make_product(gemm, swapped, group):  # type: ignore[no-untyped-def]
    """Return the product with lhs west, or north if `swapped`, run in groups of `group` along k."""
    groups = gemm.k_taps * ceil_ratio(gemm.k_inner, group)
    lhs = _make_side(
        gemm.m, gemm.lhs_row_elems, gemm.lhs_distinct, gemm.lhs_halo_elems, gemm.lhs_chunk_scale, group,
        gemm.lhs_keep, gemm.lhs_group, gemm.lhs_index_bits, gemm.lhs_keep < gemm.lhs_group and gemm.lhs_online == 0, groups,
    )  # fmt: skip
    rhs = _make_side(
        gemm.n, gemm.rhs_row_elems, gemm.rhs_distinct, gemm.rhs_halo_elems, gemm.rhs_chunk_scale, group,
        gemm.rhs_keep, gemm.rhs_group, gemm.rhs_index_bits, gemm.rhs_keep < gemm.rhs_group and gemm.rhs_online == 0, groups,
    )  # fmt: skip
    if swapped:
        pattern_keep, pattern_group = gemm.lhs_keep, gemm.lhs_group
        west, north = rhs, lhs
    else:
        pattern_keep, pattern_group = gemm.rhs_keep, gemm.rhs_group
        west, north = lhs, rhs
    keep = group // pattern_group * pattern_keep if pattern_keep < pattern_group else group
    return Product(west, north, gemm.count, groups, keep, gemm.out_bits, gemm.out_elems, gemm.macs)


@kernel
def _next_multiple(multiple: int, tiles: int, shared: bool) -> int:
    """Return the next tile size, in array tiles, that cuts `tiles` into fewer parts (every size if rows share data)."""
    parts = ceil_ratio(tiles, multiple)
    if shared or parts == 1:
        return multiple + 1
    return ceil_ratio(tiles, parts - 1)


@kernel
def _is_canonical(order, loops_m, loops_n, loops_k):  # type: ignore[no-untyped-def]
    """Return whether this order stands for all that differ only in where loops of a single turn stand."""
    turns = (loops_m > 1) + (loops_n > 1) + (loops_k > 1)
    if order == 0 or turns == 3:
        return True
    if turns < 2:
        return False
    if loops_k == 1:
        return order == 2  # n before m
    if loops_n == 1:
        return order == 4  # k before m
    return order == 1  # k before n


@kernel
def _keep_better(best, product, swapped, group, tiling, cost):  # type: ignore[no-untyped-def]
    """Keep a mapping if it is faster, or as fast with less traffic."""
    best.evaluated += 1
    if cost.cycles > best.cycles or (cost.cycles == best.cycles and cost.dram_bytes >= best.dram_bytes):
        return
    best.dataflow, best.swapped, best.row_lanes = tiling.dataflow, swapped, tiling.row_lanes
    best.run_keep, best.run_group = product.keep, group
    best.tile_m, best.tile_n = min(tiling.tile_m, product.west.size), min(tiling.tile_n, product.north.size)
    best.tile_groups, best.order = min(tiling.tile_groups, product.groups), tiling.order
    best.cycles, best.compute_cycles, best.slot_cycles = cost.cycles, cost.compute_cycles, cost.slot_cycles
    best.array_cycles, best.dma_cycles, best.sore_cycles = cost.array_cycles, cost.dma_cycles, cost.sore_cycles
    best.fill_cycles, best.dram_bytes, best.psum_bytes = cost.fill_cycles, cost.dram_bytes, cost.psum_bytes


@kernel
def _is_hopeless(machine, product, tiling, array, best):  # type: ignore[no-untyped-def]
    """Return whether neither this tile nor any larger one can beat the best: its ends only grow."""
    fill, tail = end_cycles(machine, product, tiling)
    return machine.dram_latency + fill + array.run + tail > best.cycles


@kernel
def _search_orders(machine, product, tiling, array, swapped, group, best):  # type: ignore[no-untyped-def]
    """Evaluate the loop orders of one tile."""
    loops_m = ceil_ratio(product.west.size, tiling.tile_m)
    loops_n = ceil_ratio(product.north.size, tiling.tile_n)
    loops_k = ceil_ratio(product.groups, tiling.tile_groups)
    for order in range(_ORDERS):
        if _is_canonical(order, loops_m, loops_n, loops_k):
            choice = Tiling(tiling.dataflow, tiling.row_lanes, tiling.tile_m, tiling.tile_n, tiling.tile_groups, order)
            _keep_better(best, product, swapped, group, choice, gemm_cost(machine, product, choice, array))


@kernel
def _search_k(machine, product, dataflow, row_lanes, tile_m, tile_n, array, swapped, group, best):  # type: ignore[no-untyped-def]
    """Evaluate every tile size along k of one tile size in m and n; return whether the smallest one was worth a look."""
    unit = 1 if dataflow == OS else machine.rows
    chunks = ceil_ratio(product.groups, unit)
    only_whole = dataflow == OS and (
        tile_m > machine.rows * row_lanes or tile_n > machine.cols * (machine.lanes // row_lanes)
    )  # OS keeps its sums in the array: only a single array tile can be cut along k
    chunk, any_hope = (chunks if only_whole else 1), False
    while chunk <= chunks:
        tiling = Tiling(dataflow, row_lanes, tile_m, tile_n, min(chunk * unit, product.groups), 0)
        if _is_hopeless(machine, product, tiling, array, best):
            break
        any_hope = True
        if fits(machine, product, tiling):
            if dataflow == OS:  # k innermost
                _keep_better(best, product, swapped, group, tiling, gemm_cost(machine, product, tiling, array))
                if chunk == chunks:
                    _search_orders(machine, product, tiling, array, swapped, group, best)
            else:
                _search_orders(machine, product, tiling, array, swapped, group, best)
        elif dataflow == WS and chunk == chunks:
            break
        chunk = _next_multiple(chunk, chunks, False)
    return any_hope
