"""Enumeration of the mappings of a product, compiled: every mapping is covered, the slow ones by a proved bound.

What is enumerated, for each product: the operand that goes north (an N:M operand must), dense run as groups of one or of the
machine's size, dataflow, row lanes of the interleave, every multiple of the array tile that fits the buffers in m, n and k,
and all six orders of the DRAM-level loops. It runs twice: for the least value (`accel.dataflow.pricing`: time, energy or a
weighted sum of both), then for the least DRAM traffic, and of that for the fewest tiles, among the mappings within 1/1024 of it
(a first tile so small that it saves a few cycles would otherwise load everything many times, or make a program of a million
instructions).
Three rules, proved in docs/scheduling.md, leave mappings out unevaluated:

- two tile sizes that cut a dimension into equally many tiles: the larger one is never better (not used where rows share data);
- cycles are at least array cycles + first loads + last stores, bytes at least every operand and result once: a tile whose
  value with these is above the limit is out, and so is every larger one;
- buffers hold less than the tile: out, and so is every larger one.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accel.dataflow.pricing import Prices, array_pj, mapping_pj, moved_pj, value_of, vector_unit_pj
from accel.jit import kernel
from accel.timing.array import ceil_div
from accel.timing.gemm import (
    LOOP_ORDERS,
    OS,
    VECTOR,
    WS,
    ArrayCycles,
    Cost,
    Machine,
    Product,
    Side,
    Tiling,
    array_cycles,
    end_cycles,
    fits,
    gemm_cost,
    tile_bits,
    vector_unit_cost,
)
from accel.timing.traffic import pruned_groups

_OPERAND_FIELDS = ("row_elems", "distinct", "halo_elems", "chunk_scale", "keep", "group", "compact_bits")
GEMM_DTYPE = np.dtype(
    [(name, np.int64) for name in ("m", "n", "k_taps", "k_inner", "count", "macs", "macs_useful", "out_bits", "out_elems")]
    + [(f"{side}_{name}", np.int64) for side in ("lhs", "rhs") for name in _OPERAND_FIELDS]
)
"""One product, as the search reads it; an operand's keep and group are its pattern's, 1 and 1 if dense.

`compact_bits` are those of a compact group of the machine's size, 0 where the operand is stored dense.
"""

BEST_DTYPE = np.dtype(
    [(name, np.int64) for name in ("dataflow", "swapped", "row_lanes", "run_keep", "run_group")]
    + [(name, np.int64) for name in ("tile_m", "tile_n", "tile_groups", "order", "tiles")]
    + [(name, np.int64) for name in Cost._fields]
    + [(name, np.int64) for name in ("covered", "evaluated", "compulsory_bytes")]
    + [(name, np.float64) for name in ("value", "energy_pj", "least_value", "limit_value")]
)
"""The best mapping of one product, its cost and how many mappings were covered; cycles is `NOT_FOUND` where nothing fits."""

Record = Any
"""A record of a structured array, or the array: NumPy's types say nothing about its fields."""

IntArray = npt.NDArray[np.int64]

_ORDERS = len(LOOP_ORDERS)
NOT_FOUND = 2**62

SLACK = 1024
"""Of all mappings at most 1/1024 worse than the best, the one with the least DRAM traffic and fewest tiles is taken."""


class Form(NamedTuple):
    """One product as it enters the array of one machine, and what is minimised of it."""

    machine: Machine
    prices: Prices
    product: Product
    swapped: int
    group: int
    """Elements of a group as it runs."""
    index_bits: int
    macs_useful: int


class Run(NamedTuple):
    """What the array takes for a product, whatever the rest of the mapping."""

    cycles: ArrayCycles
    energy_pj: float
    """With the reads and writes of the buffers beside it."""
    least_pj: float
    """Of the whole product but for its time: with every operand and result moved once."""


@kernel
def _make_side(
    size: int,
    row_elems: int,
    distinct: int,
    halo_elems: int,
    chunk_scale: int,
    sparse: bool,
    compact_bits: int,
    group: int,
    groups: int,
) -> Side:
    """Return an operand as it enters the array: `group` elements of 16 bits, or `compact_bits` of them if it is compact."""
    if compact_bits:
        return Side(size, distinct, groups * compact_bits, 0, compact_bits, False)
    group_bits = max(group * 16 * chunk_scale, ceil_div(row_elems * 16, groups))
    return Side(size, distinct, row_elems * 16, halo_elems * 16, group_bits, sparse)


@kernel
def _make_product(gemm: Record, swapped: int, group: int) -> Product:
    """Return the product with lhs west, or north if `swapped`, run in groups of `group` along k."""
    groups = gemm.k_taps * ceil_div(gemm.k_inner, group)
    lhs = _make_side(
        gemm.m, gemm.lhs_row_elems, gemm.lhs_distinct, gemm.lhs_halo_elems, gemm.lhs_chunk_scale,
        gemm.lhs_keep < gemm.lhs_group, gemm.lhs_compact_bits, group, groups,
    )  # fmt: skip
    rhs = _make_side(
        gemm.n, gemm.rhs_row_elems, gemm.rhs_distinct, gemm.rhs_halo_elems, gemm.rhs_chunk_scale,
        gemm.rhs_keep < gemm.rhs_group, gemm.rhs_compact_bits, group, groups,
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
def _make_form(machine: Machine, prices: Prices, gemm: Record, swapped: int, group: int) -> Form:
    """Return the product run in groups of `group` with lhs west, or north if `swapped`."""
    keep, pattern_group = (gemm.lhs_keep, gemm.lhs_group) if swapped else (gemm.rhs_keep, gemm.rhs_group)
    index_bits = 0
    while keep < pattern_group and 1 << index_bits < pattern_group:
        index_bits += 1
    return Form(machine, prices, _make_product(gemm, swapped, group), swapped, group, index_bits, gemm.macs_useful)


@kernel
def _is_never_worse(serial: Form, grouped: Form) -> bool:
    """Return whether OS element by element takes no more than in groups: no chunk of k has bits rounded up more often."""
    west = serial.product.west.group_bits * grouped.group <= grouped.product.west.group_bits * serial.group
    north = serial.product.north.group_bits * grouped.group <= grouped.product.north.group_bits * serial.group
    return west and north


@kernel
def _next_multiple(multiple: int, tiles: int, shared: bool) -> int:
    """Return the next tile size, in array tiles, that cuts `tiles` into fewer parts (every size if rows share data)."""
    parts = ceil_div(tiles, multiple)
    if shared or parts == 1:
        return multiple + 1
    return ceil_div(tiles, parts - 1)


@kernel
def _is_canonical(order: int, loops_m: int, loops_n: int, loops_k: int) -> bool:
    """Return whether this order stands for all that differ only in where loops of a single turn stand."""
    turns = int(loops_m > 1) + int(loops_n > 1) + int(loops_k > 1)
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
def _consider(form: Form, tiling: Tiling, cost: Cost, engine_pj: float, best: Record) -> None:
    """Take note of one mapping: of its value in the first round, of its traffic in the second."""
    best.evaluated += 1
    product = form.product
    moved = moved_pj(form.prices, cost.dram_bytes, pruned_groups(product, tiling), engine_pj)
    energy_pj = mapping_pj(form.prices, cost.cycles, moved)
    value = value_of(form.prices, cost.cycles, energy_pj)
    if best.least_value == math.inf:
        best.limit_value = min(best.limit_value, value)
        return
    if value > best.limit_value or cost.dram_bytes > best.dram_bytes:
        return
    tiles = product.repeats * ceil_div(product.west.size, tiling.tile_m) * ceil_div(product.north.size, tiling.tile_n)
    tiles *= ceil_div(product.groups, tiling.tile_groups)
    if cost.dram_bytes == best.dram_bytes and (tiles, value) >= (best.tiles, best.value):
        return
    best.tiles, best.value, best.energy_pj = tiles, value, energy_pj
    best.dataflow, best.swapped, best.row_lanes = tiling.dataflow, form.swapped, tiling.row_lanes
    best.run_keep, best.run_group = product.keep, form.group
    best.tile_m, best.tile_n = min(tiling.tile_m, product.west.size), min(tiling.tile_n, product.north.size)
    best.tile_groups, best.order = min(tiling.tile_groups, product.groups), tiling.order
    best.cycles, best.compute_cycles, best.slot_cycles = cost.cycles, cost.compute_cycles, cost.slot_cycles
    best.array_cycles, best.dma_cycles, best.sore_cycles = cost.array_cycles, cost.dma_cycles, cost.sore_cycles
    best.fill_cycles, best.dram_bytes, best.psum_bytes = cost.fill_cycles, cost.dram_bytes, cost.psum_bytes


@kernel
def _run_of(form: Form, tiling: Tiling) -> Run:
    """Return what the array takes; of the tile only `tile_m` is read, and that only in WS."""
    machine, prices, product = form.machine, form.prices, form.product
    energy_pj = array_pj(prices, machine, product, tiling, form.group, form.index_bits, form.macs_useful)
    groups = product.repeats * product.north.size * product.groups if product.north.online else 0
    least_pj = moved_pj(prices, _compulsory_bytes(product), groups, energy_pj)
    return Run(array_cycles(machine, product, tiling), energy_pj, least_pj)


@kernel
def _is_above_limit(form: Form, cycles: int, run: Run, best: Record) -> bool:
    """Return whether no mapping with this run that takes at least `cycles` is good enough."""
    return bool(value_of(form.prices, cycles, mapping_pj(form.prices, cycles, run.least_pj)) > best.limit_value)


@kernel
def _is_hopeless(form: Form, tiling: Tiling, run: Run, best: Record) -> bool:
    """Return whether neither this tile nor any larger one is good enough: its ends only grow."""
    fill, tail = end_cycles(form.machine, form.product, tiling)
    return _is_above_limit(form, form.machine.dram_latency + fill + run.cycles.run + tail, run, best)


@kernel
def _search_orders(form: Form, tiling: Tiling, run: Run, best: Record) -> None:
    """Evaluate the loop orders of one tile."""
    machine, product = form.machine, form.product
    loops_m = ceil_div(product.west.size, tiling.tile_m)
    loops_n = ceil_div(product.north.size, tiling.tile_n)
    loops_k = ceil_div(product.groups, tiling.tile_groups)
    for order in range(_ORDERS):
        if _is_canonical(order, loops_m, loops_n, loops_k):
            choice = Tiling(tiling.dataflow, tiling.row_lanes, tiling.tile_m, tiling.tile_n, tiling.tile_groups, order)
            _consider(form, choice, gemm_cost(machine, product, choice, run.cycles), run.energy_pj, best)


@kernel
def _search_cuts(form: Form, whole: Tiling, run: Run, best: Record) -> bool:
    """Evaluate one tile size in m and n with every cut of k; return whether any was worth a look.

    OS keeps its sums in the array: only a single array tile can be cut along k, with the k loop innermost.
    """
    machine, product = form.machine, form.product
    single = whole.tile_m <= machine.rows * whole.row_lanes
    single = single and whole.tile_n <= machine.cols * (machine.lanes // whole.row_lanes)
    useful = False
    if whole.dataflow == WS or single:
        unit = machine.rows if whole.dataflow == WS else 1
        chunks, chunk = ceil_div(product.groups, unit), 1
        while chunk < chunks:
            cut = Tiling(whole.dataflow, whole.row_lanes, whole.tile_m, whole.tile_n, chunk * unit, 0)
            if _is_hopeless(form, cut, run, best) or not fits(machine, product, cut):
                break
            useful = True
            if whole.dataflow == WS:
                _search_orders(form, cut, run, best)
            else:
                _consider(form, cut, gemm_cost(machine, product, cut, run.cycles), run.energy_pj, best)
            chunk = _next_multiple(chunk, chunks, False)
    if not _is_hopeless(form, whole, run, best) and fits(machine, product, whole):
        useful = True
        _search_orders(form, whole, run, best)
    return useful


@kernel
def _search_tiles(form: Form, dataflow: int, row_lanes: int, best: Record) -> None:
    """Evaluate every tile of one dataflow and interleave."""
    machine, product = form.machine, form.product
    west, north, groups = product.west, product.north, product.groups
    unit_m, unit_n = machine.rows * row_lanes, machine.cols * (machine.lanes // row_lanes)
    tiles_m, tiles_n = ceil_div(west.size, unit_m), ceil_div(north.size, unit_n)
    if dataflow == WS:
        best.covered += tiles_m * tiles_n * ceil_div(groups, machine.rows) * _ORDERS
        fastest = _run_of(form, Tiling(WS, row_lanes, west.size, north.size, groups, 0))
        if _is_above_limit(form, machine.dram_latency + fastest.cycles.run, fastest, best):
            return  # fewer, longer streams only get faster and load fewer entries: none of this family can win
    else:
        best.covered += tiles_m * tiles_n * _ORDERS + groups
    multiple_m = 1
    while multiple_m <= tiles_m:
        tile_m = min(multiple_m * unit_m, west.size)
        run = _run_of(form, Tiling(dataflow, row_lanes, tile_m, north.size, groups, 0))
        multiple_n = 1
        while multiple_n <= tiles_n:
            whole = Tiling(dataflow, row_lanes, tile_m, min(multiple_n * unit_n, north.size), groups, 0)
            if not _search_cuts(form, whole, run, best):
                break
            multiple_n = _next_multiple(multiple_n, tiles_n, north.distinct < north.size)
        if multiple_n == 1 and dataflow == OS:
            break  # not even the narrowest tile: the array takes as long for every tile, so no larger one can win
        multiple_m = _next_multiple(multiple_m, tiles_m, west.distinct < west.size)


@kernel
def _search_forms(
    machine: Machine, prices: Prices, gemm: Record, row_lane_choices: IntArray, has_os: bool, has_ws: bool, best: Record
) -> None:
    """Consider every mapping of one product that the rules above leave in."""
    lhs_sparse, rhs_sparse = gemm.lhs_keep < gemm.lhs_group, gemm.rhs_keep < gemm.rhs_group
    for swapped in range(2):
        if (swapped and rhs_sparse) or (not swapped and lhs_sparse):
            continue  # the operand with indices goes north
        grouped = _make_form(machine, prices, gemm, swapped, machine.group)
        serial = grouped if lhs_sparse or rhs_sparse else _make_form(machine, prices, gemm, swapped, 1)
        for row_lanes in row_lane_choices:
            if has_os:
                _search_tiles(serial, OS, row_lanes, best)
                if not _is_never_worse(serial, grouped):
                    _search_tiles(grouped, OS, row_lanes, best)
            if has_ws:
                _search_tiles(grouped, WS, row_lanes, best)
                if serial.group < machine.group:
                    _search_tiles(serial, WS, row_lanes, best)
        best.compulsory_bytes = _compulsory_bytes(serial.product)
    form = _make_form(machine, prices, gemm, False, 1)
    product = form.product
    if (
        not (lhs_sparse or rhs_sparse)
        and tile_bits(product.north, gemm.n, product.groups, product.groups) <= machine.north_bits
    ):
        tiling, cost = Tiling(VECTOR, 1, gemm.m, gemm.n, product.groups, 0), vector_unit_cost(machine, product)
        best.covered += 1
        _consider(form, tiling, cost, vector_unit_pj(prices, product, cost.dram_bytes), best)


@kernel
def _search_gemm(
    machine: Machine, prices: Prices, gemm: Record, row_lane_choices: IntArray, has_os: bool, has_ws: bool, best: Record
) -> None:
    """Find the least value, then the mapping with the least traffic among those as good as that."""
    best.least_value, best.limit_value = math.inf, math.inf
    best.cycles, best.dram_bytes, best.tiles = NOT_FOUND, NOT_FOUND, NOT_FOUND
    _search_forms(machine, prices, gemm, row_lane_choices, has_os, has_ws, best)
    if best.limit_value == math.inf:
        return
    best.least_value = best.limit_value
    best.limit_value += best.least_value * prices.slack_frac
    best.covered = 0
    _search_forms(machine, prices, gemm, row_lane_choices, has_os, has_ws, best)


@kernel
def _compulsory_bytes(product: Product) -> int:
    """Return the bytes that cross the DRAM port at least: every operand and result once, no halo twice."""
    west, north = product.west, product.north
    bits = min(west.size, west.distinct) * west.row_bits + min(north.size, north.distinct) * north.row_bits
    return ceil_div(product.repeats * bits + product.out_elems * product.out_bits, 8)


@kernel
def search_gemms(
    machine: Machine,
    prices: Prices,
    gemms: Record,
    row_lane_choices: IntArray,
    has_os: bool,
    has_ws: bool,
    results: Record,
) -> None:
    """Fill `results` (BEST_DTYPE) with the best mapping of each of `gemms` (GEMM_DTYPE)."""
    for index in range(len(gemms)):
        _search_gemm(machine, prices, gemms[index], row_lane_choices, has_os, has_ws, results[index])
