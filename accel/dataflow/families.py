"""The families of mappings of a product, compiled: all that differ in tile sizes and loop order only (docs/scheduling.md).

A family has one form (which operand goes north, groups or single elements), dataflow, interleave, and either tiles with all of
k or tiles with a part of it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accel.dataflow.pricing import Prices, array_pj, mapping_pj, moved_pj, value_of
from accel.jit import kernel
from accel.timing.array import ceil_div
from accel.timing.engines import dma_cycles
from accel.timing.gemm import LOOP_ORDERS, OS, WS, Machine, Product, Side, Tiling, ends_of, run_cycles, tile_bits

Record = Any
"""A record of a structured array, or the array: NumPy's types say nothing about its fields."""

IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float64]

_ORDERS = len(LOOP_ORDERS)

_PRODUCT_FIELDS = ("repeats", "groups", "keep", "out_bits", "out_elems", "macs")
_OWN_FIELDS = ("exists", "swapped", "run_group", "pattern_bits", "macs_useful", "least_bytes")
FORM_DTYPE = np.dtype(
    [(name, np.float64 if name == "dram_bytes_per_cycle" else np.int64) for name in Machine._fields]
    + [(f"{side}_{name}", np.int64) for side in ("west", "north") for name in Side._fields]
    + [(name, np.int64) for name in (*_PRODUCT_FIELDS, *_OWN_FIELDS)]
    + [(name, np.float64) for name in Prices._fields]
)
"""A product as it enters the array: the fields of `Machine`, both `Side`s, `Product` and `Prices`, and some of its own.

`run_group` are the elements of a group as it runs, `pattern_bits` those of an index of the product's own pattern, `least_bytes`
those that cross the DRAM port at least. A record, for kernels take it as one pointer, and tuples field by field.
"""

_SIZES = ("unit_m", "unit_n", "unit_k", "tiles_m", "tiles_n", "tiles_k", "every_m", "every_n")
_BITS = ("west_bits", "north_bits", "west_halo_bits", "north_halo_bits", "last_rows", "last_row_bits", "sum_rows")
FAMILY_DTYPE = np.dtype(
    [(name, np.int64) for name in ("form", "rank", "dataflow", "row_lanes", "is_cut", *_SIZES, *_BITS)]
    + [(name, np.int64) for name in ("run_cycles", "known_m", "known_cycles")]
    + [(name, np.float64) for name in ("engine_pj", "known_pj", "bound", "promise", "room_limit", "room")]
)
"""A family, and what the search knows of it.

Tiles are counted in steps of `unit_m`, `unit_n` and `unit_k` (groups), of which there are `tiles_m`, `tiles_n` and `tiles_k`.
`every_m` and `every_n`: sizes that cut into equally many parts are not alike, for rows share data. One row of a tile takes
`west_bits` or `north_bits` for each step of k, one row of the results stored last `last_row_bits` (OS has `last_rows` of them);
`sum_rows` rows of sums have room in a column. `run_cycles` and `engine_pj` are the least of the array, `known_cycles` and
`known_pj` those of tiles of `known_m` rows. A `bound` of infinity: there are no such tiles.
"""


class Work(NamedTuple):
    """Where a search works: `new_work` makes one for each thread."""

    forms: Record
    families: Record
    roots: IntArray
    """The box of all tiles of each family, cut down to those that can be good enough."""
    boxes: IntArray
    promises: FloatArray


WAITING = 256
"""Boxes that wait: each halving leaves one, and at most 3 * 62 of them lie one inside the other."""
_FORMS = 4


def new_work(row_lane_choices: int) -> Work:
    """Return room for the search of products on a machine with so many forms of the interleave."""
    families = 2 * 2 * _FORMS * row_lane_choices
    return Work(
        np.zeros(_FORMS, FORM_DTYPE).view(np.recarray),
        np.zeros(families, FAMILY_DTYPE).view(np.recarray),
        np.zeros((families, 6), np.int64),
        np.zeros((WAITING, 6), np.int64),
        np.zeros(WAITING),
    )


@kernel
def put_machine(machine: Machine, prices: Prices, form: Record) -> None:
    """Write the fields of `form` that no product changes."""
    form.rows, form.cols, form.lanes = machine.rows, machine.cols, machine.lanes
    form.multiplier_latency, form.drain_lanes = machine.multiplier_latency, machine.drain_lanes
    form.group, form.index_bits = machine.group, machine.index_bits
    form.west_bits, form.north_bits, form.psum_words = machine.west_bits, machine.north_bits, machine.psum_words
    form.dram_bytes_per_cycle, form.dram_latency = machine.dram_bytes_per_cycle, machine.dram_latency
    form.dma_setup, form.vector_lanes = machine.dma_setup, machine.vector_lanes
    form.vector_latency, form.sore_lanes = machine.vector_latency, machine.sore_lanes
    form.cycle_weight, form.pj_weight, form.slack_frac = prices.cycle_weight, prices.pj_weight, prices.slack_frac
    form.cycle_pj, form.port_byte_pj = prices.cycle_pj, prices.port_byte_pj
    form.buffer_byte_pj, form.register_byte_pj = prices.buffer_byte_pj, prices.register_byte_pj
    form.pruned_group_pj, form.mac_pj, form.lane_op_pj = prices.pruned_group_pj, prices.mac_pj, prices.lane_op_pj


@kernel
def machine_in(form: Record) -> Machine:
    """Return the machine of a form."""
    return Machine(
        form.rows, form.cols, form.lanes, form.multiplier_latency, form.drain_lanes, form.group, form.index_bits,
        form.west_bits, form.north_bits, form.psum_words, form.dram_bytes_per_cycle, form.dram_latency, form.dma_setup,
        form.vector_lanes, form.vector_latency, form.sore_lanes,
    )  # fmt: skip


@kernel
def prices_in(form: Record) -> Prices:
    """Return the prices of a form."""
    return Prices(
        form.cycle_weight, form.pj_weight, form.slack_frac, form.cycle_pj, form.port_byte_pj, form.buffer_byte_pj,
        form.register_byte_pj, form.pruned_group_pj, form.mac_pj, form.lane_op_pj,
    )  # fmt: skip


@kernel
def put_product(product: Product, form: Record) -> None:
    """Write the fields of `form` that are those of a product."""
    west, north = product.west, product.north
    form.west_size, form.west_distinct, form.west_row_bits = west.size, west.distinct, west.row_bits
    form.west_halo_bits, form.west_group_bits, form.west_online = west.halo_bits, west.group_bits, west.online
    form.north_size, form.north_distinct, form.north_row_bits = north.size, north.distinct, north.row_bits
    form.north_halo_bits, form.north_group_bits, form.north_online = north.halo_bits, north.group_bits, north.online
    form.repeats, form.groups, form.keep = product.repeats, product.groups, product.keep
    form.out_bits, form.out_elems, form.macs = product.out_bits, product.out_elems, product.macs
    form.least_bytes = _compulsory_bytes(product)


@kernel
def west_in(form: Record) -> Side:
    """Return the operand of a form that enters from the west."""
    return Side(
        form.west_size, form.west_distinct, form.west_row_bits, form.west_halo_bits, form.west_group_bits, form.west_online != 0
    )


@kernel
def north_in(form: Record) -> Side:
    """Return the operand of a form that enters from the north."""
    return Side(
        form.north_size, form.north_distinct, form.north_row_bits, form.north_halo_bits, form.north_group_bits,
        form.north_online != 0,
    )  # fmt: skip


@kernel
def product_in(form: Record) -> Product:
    """Return the product of a form."""
    return Product(
        west_in(form), north_in(form), form.repeats, form.groups, form.keep, form.out_bits, form.out_elems, form.macs
    )


@kernel
def _compulsory_bytes(product: Product) -> int:
    """Return the bytes that cross the DRAM port at least: every operand and result once, no halo twice."""
    west, north = product.west, product.north
    bits = min(west.size, west.distinct) * west.row_bits + min(north.size, north.distinct) * north.row_bits
    return ceil_div(product.repeats * bits + product.out_elems * product.out_bits, 8)


@kernel
def note_families(work: Work, row_lane_choices: IntArray, has_os: bool, has_ws: bool) -> tuple[int, int]:
    """Write down all families of the forms that exist; return (how many there are, how many mappings they have)."""
    forms, families, roots, count, covered, choices = work.forms, work.families, work.roots, 0, 0, len(row_lane_choices)
    for number in range(_FORMS):
        form, serial = forms[number], forms[number // 2 * 2]
        if not form.exists:
            continue
        for at in range(choices):
            for dataflow in (OS, WS):
                is_built = has_ws if dataflow == WS else has_os
                if not is_built or (dataflow == OS and number % 2 and serial.exists and _is_never_worse(serial, form)):
                    continue
                # in the order of enumeration: OS serial and in groups, WS in groups and serial
                place = number % 2 if dataflow == OS else 3 - number % 2
                rank = (number // 2 * choices + at) * 4 + place
                covered += _note_pair(form, number, rank, dataflow, row_lane_choices[at], families[count], families[count + 1])
                _put_root(families[count], roots[count])
                _put_root(families[count + 1], roots[count + 1])
                count += 2
    return count, covered


@kernel
def _put_root(family: Record, box: IntArray) -> None:
    """Make `box` that of all tiles of a family; its high corner is below the low one if there are none."""
    box[0], box[1], box[2] = 1, 1, 1
    box[3], box[4], box[5] = family.tiles_m, family.tiles_n, family.tiles_k
    if family.is_cut:
        box[5] = first_alike(family.tiles_k - 1, family.tiles_k, False)
        if family.dataflow == OS:  # sums stay in the array: only a single array tile can be cut along k
            box[3], box[4] = 1, 1


@kernel
def _is_never_worse(serial: Record, grouped: Record) -> bool:
    """Return whether OS element by element takes no more than in groups: no chunk of k has bits rounded up more often."""
    west = serial.west_group_bits * grouped.run_group <= grouped.west_group_bits * serial.run_group
    north = serial.north_group_bits * grouped.run_group <= grouped.north_group_bits * serial.run_group
    return bool(west and north)


@kernel
def family_of_rank(rank: int, row_lane_choices: IntArray) -> tuple[int, int, int]:
    """Return (number of the form, dataflow, row lanes) of the families with this rank."""
    place, choices = rank % 4, len(row_lane_choices)
    number = rank // (4 * choices) * 2 + (place if place < 2 else 3 - place)
    return number, OS if place < 2 else WS, row_lane_choices[rank // 4 % choices]


@kernel
def _note_pair(form: Record, number: int, rank: int, dataflow: int, row_lanes: int, cut: Record, whole: Record) -> int:
    """Write down the family with a part of k in a tile and the one with all of it; return how many mappings both have."""
    cycles, engine_pj = run_of(form, dataflow, row_lanes, form.west_size)
    for family in (cut, whole):
        family.form, family.rank, family.dataflow, family.row_lanes = number, rank, dataflow, row_lanes
        family.unit_m, family.unit_n = form.rows * row_lanes, form.cols * (form.lanes // row_lanes)
        family.tiles_m, family.tiles_n = ceil_div(form.west_size, family.unit_m), ceil_div(form.north_size, family.unit_n)
        family.every_m, family.every_n = form.west_distinct < form.west_size, form.north_distinct < form.north_size
        family.last_rows = min(family.unit_m, form.west_size)
        family.last_row_bits = min(family.unit_n, form.north_size) * form.out_bits
        family.sum_rows = form.psum_words // form.lanes
        family.run_cycles, family.engine_pj, family.known_m, family.room_limit = cycles, engine_pj, 0, math.nan
    cut.is_cut, cut.unit_k = 1, form.rows if dataflow == WS else 1
    cut.tiles_k = ceil_div(form.groups, cut.unit_k)
    cut.west_bits, cut.north_bits = cut.unit_k * form.west_group_bits, cut.unit_k * form.north_group_bits
    cut.west_halo_bits, cut.north_halo_bits = 0, 0
    whole.is_cut, whole.unit_k, whole.tiles_k = 0, form.groups, 1
    whole.west_bits, whole.north_bits = form.west_row_bits, form.north_row_bits
    whole.west_halo_bits, whole.north_halo_bits = form.west_halo_bits, form.north_halo_bits
    cut.bound, whole.bound = _bound_of(form, cut) if cut.tiles_k > 1 else math.inf, _bound_of(form, whole)
    tiles = cut.tiles_m * cut.tiles_n * _ORDERS
    return int(tiles + form.groups if dataflow == OS else tiles * cut.tiles_k)


@kernel
def first_alike(multiple: int, tiles: int, every: bool) -> int:
    """Return the smallest tile that cuts `tiles` into as many parts as `multiple` does; that itself if `every` one counts."""
    return multiple if every or multiple <= 1 else ceil_div(tiles, ceil_div(tiles, multiple))


@kernel
def run_of(form: Record, dataflow: int, row_lanes: int, tile_m: int) -> tuple[int, float]:
    """Return (cycles, picojoules) that the array takes, with reads and writes of its buffers; `tile_m` counts in WS only.

    Energy that has no weight is 0.
    """
    machine, product = machine_in(form), product_in(form)
    tiling = Tiling(dataflow, row_lanes, tile_m, product.north.size, product.groups, 0)
    cycles = run_cycles(machine, product, tiling)
    if form.pj_weight == 0.0:
        return cycles, 0.0
    return cycles, array_pj(prices_in(form), machine, product, tiling, form.run_group, form.pattern_bits, form.macs_useful)


@kernel
def _bound_of(form: Record, family: Record) -> float:
    """Return a value that no mapping of a family is below: the smallest ends, and all that must be moved moved once."""
    tile_m, tile_n = min(family.unit_m, form.west_size), min(family.unit_n, form.north_size)
    tile_groups = min(family.unit_k, form.groups)
    first_bits = tile_bits(west_in(form), tile_m, tile_groups, form.groups)
    first_bits += tile_bits(north_in(form), tile_n, tile_groups, form.groups)
    last_bits = (tile_m if family.dataflow == WS else family.last_rows) * family.last_row_bits
    fill, tail = ends_of(first_bits, last_bits, form.dram_bytes_per_cycle, form.dma_setup)
    dma = dma_cycles(form.least_bytes, 3 * form.repeats, form.dram_bytes_per_cycle, form.dma_setup)
    cycles = form.dram_latency + max(fill + family.run_cycles + tail, dma)
    return least_value(form, cycles, form.least_bytes, _pruned_in_a_pass(form), family.engine_pj)


@kernel
def _pruned_in_a_pass(form: Record) -> int:
    return form.repeats * form.north_size * form.groups if form.north_online else 0


@kernel
def least_value(form: Record, cycles: int, dram_bytes: int, groups_pruned: int, engine_pj: float) -> float:
    """Return what is minimised of a mapping with these counts."""
    if form.pj_weight == 0.0:
        return float(form.cycle_weight * cycles)
    prices = prices_in(form)
    return value_of(prices, cycles, mapping_pj(prices, cycles, moved_pj(prices, dram_bytes, groups_pruned, engine_pj)))
