"""Search of the best mapping of a product, compiled: all mappings are covered, nearly all of them by proved bounds.

What is covered, for each product: the operand that goes north (an N:M operand must), dense run as groups of one or of the
machine's size, dataflow, row lanes of the interleave, every multiple of the array tile that fits the buffers in m, n and k,
and all six orders of the DRAM-level loops. There are two rounds: for the least value (`accel.dataflow.pricing`: time, energy or
a weighted sum of both), then for the least DRAM traffic, and of that for the fewest tiles, among the mappings within 1/1024 of
it (a first tile so small that it saves a few cycles would otherwise load everything many times, or make a program of a million
instructions). Each goes through the families of `accel.dataflow.families` by what they promise, and bounds and cuts the tiles
of each as `accel.dataflow.boxes` does; docs/scheduling.md proves that nothing better is left out.
"""

from __future__ import annotations

import math

import numpy as np

from accel.dataflow.boxes import copy_box, promise_of, search_boxes
from accel.dataflow.families import (
    IntArray,
    Record,
    Work,
    family_of_rank,
    machine_in,
    north_in,
    note_families,
    prices_in,
    product_in,
    put_machine,
    put_product,
)
from accel.dataflow.pricing import Prices, array_pj, mapping_pj, moved_pj, value_of, vector_unit_pj
from accel.jit import kernel
from accel.timing.array import ceil_div
from accel.timing.gemm import (
    VECTOR,
    Cost,
    Machine,
    Product,
    Side,
    Tiling,
    array_cycles,
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
    + [(name, np.int64) for name in ("tile_m", "tile_n", "tile_groups", "order", "tiles", "rank")]
    + [(name, np.int64) for name in ("least_rank", "least_m", "least_n", "least_groups")]
    + [(name, np.int64) for name in Cost._fields]
    + [(name, np.int64) for name in ("covered", "evaluated", "compulsory_bytes")]
    + [(name, np.float64) for name in ("value", "energy_pj", "least_value", "limit_value")]
)
"""The best mapping of one product, its cost and how many mappings were covered; cycles is `NOT_FOUND` where nothing fits."""

NOT_FOUND = 2**62

SLACK = 1024
"""Of all mappings at most 1/1024 worse than the best, the one with the least DRAM traffic and fewest tiles is taken."""


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
def _put_forms(gemm: Record, forms: Record) -> None:
    """Write down all forms of a product: with lhs west or swapped, by single elements (if dense) or groups."""
    lhs_sparse, rhs_sparse = gemm.lhs_keep < gemm.lhs_group, gemm.rhs_keep < gemm.rhs_group
    is_dense = not (lhs_sparse or rhs_sparse)
    for number in range(len(forms)):
        form = forms[number]
        form.swapped, form.macs_useful = number // 2, gemm.macs_useful
        form.run_group = form.group if number % 2 else 1
        if number % 2:
            form.exists = not rhs_sparse if form.swapped else not lhs_sparse  # the operand with indices goes north
        else:
            form.exists = is_dense and form.group > 1  # else the same as groups
        keep, group = (gemm.lhs_keep, gemm.lhs_group) if form.swapped else (gemm.rhs_keep, gemm.rhs_group)
        form.pattern_bits = 0
        while keep < group and 1 << form.pattern_bits < group:
            form.pattern_bits += 1
        if form.exists or is_dense:
            put_product(_make_product(gemm, form.swapped, form.run_group), form)


@kernel
def _vector_unit_value(gemm: Record, form: Record, best: Record) -> float:
    """Return the value of the product on the vector unit; infinity if it has a pattern or its rhs does not fit."""
    is_dense = gemm.lhs_keep == gemm.lhs_group and gemm.rhs_keep == gemm.rhs_group
    if not is_dense or tile_bits(north_in(form), form.north_size, form.groups, form.groups) > form.north_bits:
        return math.inf
    cost, energy_pj = _on_vector_unit(form)
    best.covered += 1
    best.evaluated += 1
    return value_of(prices_in(form), cost.cycles, energy_pj)


@kernel
def _on_vector_unit(form: Record) -> tuple[Cost, float]:
    """Return what a form costs on the vector unit, and its energy."""
    prices, product = prices_in(form), product_in(form)
    cost = vector_unit_cost(machine_in(form), product)
    moved = moved_pj(prices, cost.dram_bytes, 0, vector_unit_pj(prices, product, cost.dram_bytes))
    return cost, mapping_pj(prices, cost.cycles, moved)


@kernel
def _put_vector_unit(form: Record, best: Record) -> None:
    """Make the vector unit the best that is known."""
    cost, energy_pj = _on_vector_unit(form)
    best.tile_m, best.tile_n, best.tile_groups, best.order = form.west_size, form.north_size, form.groups, 0
    best.tiles, best.value = form.repeats, value_of(prices_in(form), cost.cycles, energy_pj)
    best.dataflow, best.row_lanes = VECTOR, 1
    _put_cost(form, cost, energy_pj, best)


@kernel
def _put_mapping(form: Record, dataflow: int, row_lanes: int, best: Record) -> None:
    """Write down what the best mapping costs."""
    machine, prices, product = machine_in(form), prices_in(form), product_in(form)
    tiling = Tiling(dataflow, row_lanes, best.tile_m, best.tile_n, best.tile_groups, best.order)
    cost = gemm_cost(machine, product, tiling, array_cycles(machine, product, tiling))
    engine_pj = array_pj(prices, machine, product, tiling, form.run_group, form.pattern_bits, form.macs_useful)
    moved = moved_pj(prices, cost.dram_bytes, pruned_groups(product, tiling), engine_pj)
    best.dataflow, best.row_lanes = dataflow, row_lanes
    _put_cost(form, cost, mapping_pj(prices, cost.cycles, moved), best)


@kernel
def _put_cost(form: Record, cost: Cost, energy_pj: float, best: Record) -> None:
    best.swapped, best.run_keep, best.run_group = form.swapped, form.keep, form.run_group
    best.cycles, best.compute_cycles, best.slot_cycles = cost.cycles, cost.compute_cycles, cost.slot_cycles
    best.array_cycles, best.dma_cycles, best.sore_cycles = cost.array_cycles, cost.dma_cycles, cost.sore_cycles
    best.fill_cycles, best.dram_bytes, best.psum_bytes = cost.fill_cycles, cost.dram_bytes, cost.psum_bytes
    best.energy_pj, best.compulsory_bytes = energy_pj, form.least_bytes


@kernel
def is_best_too(machine: Machine, gemm: Record, row_lane_choices: IntArray, best: Record) -> bool:
    """Return whether `best` of a machine that differs from `machine` in larger buffers alone is that of `machine` too.

    It has all mappings of `machine` and more: if the one with the least value and the one taken of it fit, they are the same.
    """
    if best.cycles >= NOT_FOUND:
        return True
    if not _fits_here(machine, gemm, row_lane_choices, best.rank, best.tile_m, best.tile_n, best.tile_groups):
        return False
    return _fits_here(machine, gemm, row_lane_choices, best.least_rank, best.least_m, best.least_n, best.least_groups)


@kernel
def _fits_here(
    machine: Machine, gemm: Record, row_lane_choices: IntArray, rank: int, tile_m: int, tile_n: int, tile_groups: int
) -> bool:
    if rank == NOT_FOUND:
        product = _make_product(gemm, 0, 1)
        return tile_bits(product.north, gemm.n, product.groups, product.groups) <= machine.north_bits
    number, dataflow, row_lanes = family_of_rank(rank, row_lane_choices)
    product = _make_product(gemm, number // 2, machine.group if number % 2 else 1)
    return fits(machine, product, Tiling(dataflow, row_lanes, tile_m, tile_n, tile_groups, 0))


@kernel
def _search_round(work: Work, count: int, best: Record) -> None:
    """Find the least value, or of mappings within the limit the least traffic: first in the family that promises least of it.

    No family is searched that promises nothing better than the best that is known by then.
    """
    forms, families, is_first = work.forms, work.families, best.least_value == math.inf
    for at in range(count):
        family = families[at]
        family.promise = family.bound
        if not is_first:
            family.promise = math.inf
            if family.bound <= best.limit_value and family.bound < math.inf:
                family.promise = promise_of(forms[family.form], family, work.roots[at], best)
    for _ in range(count):
        chosen = 0
        for at in range(1, count):
            if families[at].promise < families[chosen].promise:
                chosen = at
        family = families[chosen]
        if family.promise == math.inf or family.promise > (best.limit_value if is_first else best.dram_bytes):
            return
        copy_box(work.roots[chosen], work.boxes[0])
        if is_first:
            family.promise = promise_of(forms[family.form], family, work.boxes[0], best)
        work.promises[0], family.promise = family.promise, math.inf
        search_boxes(forms[family.form], family, best, work.boxes, work.promises)


@kernel
def search_gemms(
    machine: Machine,
    prices: Prices,
    gemms: Record,
    row_lane_choices: IntArray,
    has_os: bool,
    has_ws: bool,
    work: Work,
    results: Record,
) -> None:
    """Fill `results` (BEST_DTYPE) with the best mapping of each of `gemms` (GEMM_DTYPE) whose cycles there are still 0.

    First the least value is found, then the mapping with the least traffic among those as good as that.
    """
    forms = work.forms
    for number in range(len(forms)):
        put_machine(machine, prices, forms[number])
    for index in range(len(gemms)):
        gemm, best = gemms[index], results[index]
        if best.cycles:
            continue
        best.least_value, best.cycles, best.dram_bytes, best.tiles = math.inf, NOT_FOUND, NOT_FOUND, NOT_FOUND
        _put_forms(gemm, forms)
        count, best.covered = note_families(work, row_lane_choices, has_os, has_ws)
        vector_value = _vector_unit_value(gemm, forms[0], best)
        best.limit_value = vector_value
        best.rank, best.least_rank = NOT_FOUND, NOT_FOUND  # the vector unit comes last in the order of enumeration
        for _ in range(2):
            _search_round(work, count, best)
            if best.least_value < math.inf or best.limit_value == math.inf:
                break
            best.least_value = best.limit_value
            best.limit_value += best.least_value * prices.slack_frac
            if vector_value <= best.limit_value:
                _put_vector_unit(forms[0], best)
        if best.rank < NOT_FOUND:
            number, dataflow, row_lanes = family_of_rank(best.rank, row_lane_choices)
            _put_mapping(forms[number], dataflow, row_lanes, best)
