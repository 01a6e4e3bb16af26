"""Branch and bound over the tile sizes and loop orders of one family of mappings, compiled (docs/scheduling.md).

The tiles of a family are a box: multiples of its units from a low corner to a high one, (m, n, k, m, n, k). As a tile grows in
any dimension, what is loaded first and stored last grows and fewer tiles fit; bytes, transfers and groups to prune fall. So the
first of the low corner and the second of the high corner bound every mapping of the box. What bounds rule out is cut off at the
corners; what is left is halved until nothing is.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from accel.dataflow.families import (
    FloatArray,
    IntArray,
    Record,
    first_alike,
    least_value,
    machine_in,
    north_in,
    product_in,
    run_of,
    west_in,
)
from accel.jit import kernel
from accel.timing.array import ceil_div
from accel.timing.engines import sore_cycles
from accel.timing.gemm import OS, WS, Tiling, Traffic, end_cycles, ends_of, entry_bits, fits, moves_of, pass_bits, passes_of

_LARGEST = float(2**62)
_MORE = 1 + 1e-9
"""Sizes that follow from limits in floating point are given this much more room, so that rounding leaves nothing out."""


class Corner(NamedTuple):
    """A tile: its sizes, and into how many turns of the loops it cuts the product."""

    tile_m: int
    tile_n: int
    tile_groups: int
    loops_m: int
    loops_n: int
    loops_k: int


class Ends(NamedTuple):
    """What is added to the bytes and turns of a mapping for its value."""

    ends_cycles: int
    """First loads and last stores."""
    run_cycles: int
    engine_pj: float


@kernel
def search_boxes(form: Record, family: Record, best: Record, boxes: IntArray, promises: FloatArray) -> None:
    """Halve the box `boxes[0]` of a family, which promises `promises[0]`, until every part is out or was evaluated."""
    is_first, waiting = best.least_value == math.inf, 1
    while waiting:
        waiting -= 1
        if promises[waiting] >= best.limit_value if is_first else promises[waiting] > best.dram_bytes:
            continue
        box, other = boxes[waiting], boxes[waiting + 1]
        _halve(family, box, other, is_first)
        promise, others = promise_of(form, family, box, best), promise_of(form, family, other, best)
        if promise < others:  # the better one is next
            for at in range(6):
                box[at], other[at] = other[at], box[at]
            promise, others = others, promise
        if promise == math.inf and others < math.inf:
            copy_box(other, box)
            promise, others = others, promise
        promises[waiting], promises[waiting + 1] = promise, others
        waiting += int(promise < math.inf) + int(others < math.inf)


@kernel
def copy_box(box: IntArray, other: IntArray) -> None:
    """Copy a box to another place: a slice would compile for seconds."""
    for at in range(6):
        other[at] = box[at]


@kernel
def _halve(family: Record, box: IntArray, other: IntArray, is_first: bool) -> None:
    """Cut a box across its longest side; bytes want the longest part of k that m and n leave room for, so k comes last."""
    axis = 0
    if box[1] * box[3] < box[0] * box[4]:
        axis = 1
    if box[axis] == box[axis + 3] or (is_first and box[2] * box[axis + 3] < box[axis] * box[5]):
        axis = 2
    if axis == 0:
        tiles, every = family.tiles_m, family.every_m != 0
    elif axis == 1:
        tiles, every = family.tiles_n, family.every_n != 0
    else:
        tiles, every = family.tiles_k, False
    low, high = box[axis], box[axis + 3]
    middle = first_alike(min(max(int(math.sqrt(float(low) * high)), low), high - 1), tiles, every)
    copy_box(box, other)
    box[axis + 3] = middle
    other[axis] = middle + 1 if every else ceil_div(tiles, ceil_div(tiles, middle) - 1)


@kernel
def promise_of(form: Record, family: Record, box: IntArray, best: Record) -> float:
    """Return the least that any mapping of a box reaches: the value in the first round, bytes in the second.

    Infinity if none can be better than `best`, or if note was taken of the best one.
    """
    first_bits, last_bits = _clip(form, family, box, _room(form, family, best.limit_value))
    if first_bits < 0:
        return math.inf
    is_one = box[0] == box[3] and box[1] == box[4] and box[2] == box[5]
    high = _high_corner(form, family, box)
    fill, tail = ends_of(first_bits, last_bits, form.dram_bytes_per_cycle, form.dma_setup)
    run_cycles, engine_pj = family.run_cycles, family.engine_pj
    if family.dataflow == WS and box[0] == box[3]:
        run_cycles, engine_pj = _known_run(form, family, high.tile_m)
    low = Ends(fill + tail, run_cycles, engine_pj)
    if best.least_value == math.inf:
        return _promise_value(form, family, high, low, is_one, best)
    return _promise_bytes(form, family, box, high, low, is_one, best)


@kernel
def _room(form: Record, family: Record, limit: float) -> float:
    """Return the bits that first loads and last stores may have together, for a value of at most `limit`."""
    if family.room_limit == limit:
        return float(family.room)
    rate = form.cycle_weight + form.pj_weight * form.cycle_pj
    room = _LARGEST
    if limit < math.inf and rate > 0.0:
        cycles = (limit * _MORE - form.pj_weight * family.engine_pj) / rate * _MORE + 1.0
        cycles -= form.dram_latency + family.run_cycles + 3 * form.dma_setup
        room = min(8.0 * cycles * form.dram_bytes_per_cycle * _MORE + 16.0, _LARGEST)
    family.room_limit, family.room = limit, room
    return room


@kernel
def _clip(form: Record, family: Record, box: IntArray, room: float) -> tuple[int, int]:
    """Cut off what fits no buffer, or has first and last tiles of more bits than `room`: all that holds for the low corner.

    Returns the bits of the low corner's first loads and last stores; (-1, 0) if even that is out.
    """
    tile_m, tile_n, chunk = min(box[0] * family.unit_m, form.west_size), min(box[1] * family.unit_n, form.north_size), box[2]
    held_m, held_n = min(tile_m, form.west_distinct), min(tile_n, form.north_distinct)
    west, north = chunk * family.west_bits, chunk * family.north_bits
    west_bits, north_bits = held_m * west + family.west_halo_bits, held_n * north + family.north_halo_bits
    last_bits = (tile_m if family.dataflow == WS else family.last_rows) * family.last_row_bits
    entry = entry_bits(form.keep, form.index_bits, family.unit_k) if form.north_online else 0
    strips = box[1] if family.is_cut else 1
    sum_rows = ceil_div(tile_m, family.row_lanes) if family.dataflow == WS else 0
    if (
        west_bits > form.west_bits
        or north_bits > form.north_bits
        or west_bits + north_bits + last_bits > room
        or tile_n * chunk * entry > form.north_bits
        or strips * sum_rows > family.sum_rows
    ):
        return -1, 0
    spare = int(room) - last_bits
    if box[5] > chunk:
        most = _most(spare, held_m * family.west_bits + held_n * family.north_bits, box[5])
        most = _most(form.west_bits, held_m * family.west_bits, most)
        most = _most(form.north_bits, max(held_n * family.north_bits, tile_n * entry), most)
        box[5] = first_alike(most, family.tiles_k, False)
    if box[3] > box[0]:
        rows = min(box[3] * family.unit_m, form.west_size)
        if min(rows, form.west_distinct) * west > min(form.west_bits, spare - north_bits) - family.west_halo_bits:
            rows = _most(min(form.west_bits, spare - north_bits) - family.west_halo_bits, west, rows)
        if sum_rows:
            rows = _most(int(room) - west_bits - north_bits, family.last_row_bits, rows)
            rows = min(rows, family.sum_rows // strips * family.row_lanes)
        box[3] = _whole_tiles(rows, box[3], family.unit_m, form.west_size, family.tiles_m, family.every_m != 0)
    if box[4] > box[1]:
        cols = min(box[4] * family.unit_n, form.north_size)
        if min(cols, form.north_distinct) * north > min(form.north_bits, spare - west_bits) - family.north_halo_bits:
            cols = _most(min(form.north_bits, spare - west_bits) - family.north_halo_bits, north, cols)
        cols = _most(form.north_bits, chunk * entry, cols)
        if sum_rows and family.is_cut:
            cols = min(cols, _most(family.sum_rows, sum_rows, box[4]) * family.unit_n)
        box[4] = _whole_tiles(cols, box[4], family.unit_n, form.north_size, family.tiles_n, family.every_n != 0)
    return west_bits + north_bits, last_bits


@kernel
def _most(room: int, bits: int, most: int) -> int:
    """Return how many of `bits` have room, at most `most`."""
    return room // bits if most * bits > room else most


@kernel
def _whole_tiles(rows: int, high: int, unit: int, size: int, tiles: int, every: bool) -> int:
    """Return the largest tile of at most `rows` and `high` units, the smallest of those that cut into as many parts."""
    return high if rows >= min(high * unit, size) else first_alike(rows // unit, tiles, every)


@kernel
def _high_corner(form: Record, family: Record, box: IntArray) -> Corner:
    return Corner(
        min(box[3] * family.unit_m, form.west_size),
        min(box[4] * family.unit_n, form.north_size),
        min(box[5] * family.unit_k, form.groups),
        ceil_div(family.tiles_m, box[3]),
        ceil_div(family.tiles_n, box[4]),
        ceil_div(family.tiles_k, box[5]),
    )


@kernel
def _known_run(form: Record, family: Record, tile_m: int) -> tuple[int, float]:
    """Return `run_of` for a tile of `tile_m` rows, which is likely the one that was asked for before."""
    if family.known_m != tile_m:
        family.known_m = tile_m
        family.known_cycles, family.known_pj = run_of(form, WS, family.row_lanes, tile_m)
    return family.known_cycles, family.known_pj


@kernel
def _traffic_in(form: Record) -> Traffic:
    groups = form.repeats * form.north_size * form.groups if form.north_online else 0
    return Traffic(
        form.repeats, form.out_elems * form.out_bits, 64 * form.west_size * form.north_size, groups, form.sore_lanes,
        form.dram_bytes_per_cycle, form.dma_setup,
    )  # fmt: skip


@kernel
def _order_of(option: int, family: Record, loops_m: int, loops_n: int) -> int:
    """Return a loop order for each way to load and store that is not beaten or met by an earlier one; -1 if there is no more.

    Rules 5 and 6 of docs/scheduling.md. With one turn in k the way is m or n outside; with more of them k is inside of both, or
    partial sums are spilled, with m or n outside.
    """
    if option == 0:
        return 0
    turns = int(loops_m > 1) + int(loops_n > 1)
    if not family.is_cut:
        return 2 if option == 1 and turns == 2 else -1
    if family.dataflow == OS or option > turns:  # OS cannot spill
        return -1
    if option == 2:
        return 3
    return 1 if loops_n > 1 else 4


@kernel
def _value(form: Record, ends: Ends, dram_bytes: int, dma: int, groups_pruned: int) -> float:
    sore = sore_cycles(groups_pruned, form.sore_lanes)
    cycles = form.dram_latency + max(ends.ends_cycles + max(ends.run_cycles, sore), dma)
    return least_value(form, cycles, dram_bytes, groups_pruned, ends.engine_pj)


@kernel
def _promise_value(form: Record, family: Record, high: Corner, low: Ends, is_one: bool, best: Record) -> float:
    """Return the least value of a box; if it `is_one` tile, take note of it."""
    traffic, least = _traffic_in(form), math.inf
    west_bits = pass_bits(west_in(form), high.tile_m, high.tile_groups, form.groups)
    north_bits = pass_bits(north_in(form), high.tile_n, high.tile_groups, form.groups)
    for option in range(3):
        order = _order_of(option, family, high.loops_m, high.loops_n)
        if order < 0:
            break
        best.evaluated += 1
        dram_bytes, dma, pruned = moves_of(traffic, order, high.loops_m, high.loops_n, high.loops_k, west_bits, north_bits)
        least = min(least, _value(form, low, dram_bytes, dma, pruned))
    if is_one and least < best.limit_value:
        best.limit_value, best.least_rank = least, family.rank
        best.least_m, best.least_n, best.least_groups = high.tile_m, high.tile_n, high.tile_groups
    if is_one:
        return math.inf
    return least if least < best.limit_value else math.inf


@kernel
def _promise_bytes(form: Record, family: Record, box: IntArray, high: Corner, low: Ends, is_one: bool, best: Record) -> float:
    """Return the least bytes of a box, if they can be less than those of `best`, and raise its low corner.

    No mapping of the box moves less, in fewer tiles, than its high corner in some order: that is taken if it is good enough.
    """
    traffic, least = _traffic_in(form), math.inf
    west_bits = pass_bits(west_in(form), high.tile_m, high.tile_groups, form.groups)
    north_bits = pass_bits(north_in(form), high.tile_n, high.tile_groups, form.groups)
    tiles = form.repeats * high.loops_m * high.loops_n * high.loops_k
    most_bits = (8.0 * best.dram_bytes - traffic.store_bits) / traffic.repeats
    most_m, most_n = 0.0, 0.0
    is_open = (family.every_m and box[0] < box[3]) or (family.every_n and box[1] < box[4])
    ends, is_known, is_in = low, is_one, True
    for option in range(3):
        order = _order_of(option, family, high.loops_m, high.loops_n)
        if order < 0:
            break
        best.evaluated += 1
        dram_bytes, dma, pruned = moves_of(traffic, order, high.loops_m, high.loops_n, high.loops_k, west_bits, north_bits)
        if dram_bytes > best.dram_bytes or (dram_bytes == best.dram_bytes and tiles > best.tiles):
            continue
        value = _value(form, low, dram_bytes, dma, pruned)
        if value > best.limit_value or (dram_bytes == best.dram_bytes and tiles == best.tiles and value > best.value):
            continue
        if not is_known:
            is_known = True
            is_in, ends = _ends_of_high(form, family, high)
        if is_in:
            value = _value(form, ends, dram_bytes, dma, pruned)
            if value <= best.limit_value:
                _take(family, high, order, dram_bytes, tiles, value, best)
                if not is_open:
                    continue
        if is_one:
            continue
        least = min(least, float(dram_bytes))
        west_passes, north_passes, spills = passes_of(order, high.loops_m, high.loops_n, high.loops_k)
        spare = (
            most_bits - float(west_passes) * west_bits - float(north_passes) * north_bits - float(spills) * traffic.spill_bits
        )
        most_m = max(most_m, high.loops_m + spare / north_bits if north_passes > 1 else math.inf)
        most_n = max(most_n, high.loops_n + spare / west_bits if west_passes > 1 else math.inf)
    if least < math.inf:
        _raise(box, 0, family.tiles_m, most_m)
        _raise(box, 1, family.tiles_n, most_n)
        if box[0] == box[3] and box[1] == box[4] and box[2] == box[5]:
            return math.inf  # only the high corner is left
    return least


@kernel
def _ends_of_high(form: Record, family: Record, high: Corner) -> tuple[bool, Ends]:
    """Return whether a box's high corner fits the buffers, and its ends."""
    machine, product = machine_in(form), product_in(form)
    tiling = Tiling(family.dataflow, family.row_lanes, high.tile_m, high.tile_n, high.tile_groups, 0)
    if family.is_cut and not fits(machine, product, tiling):  # else each side was clipped for itself
        return False, Ends(0, 0, 0.0)
    fill, tail = end_cycles(machine, product, tiling)
    if family.dataflow == OS:
        return True, Ends(fill + tail, family.run_cycles, family.engine_pj)
    run_cycles, engine_pj = _known_run(form, family, high.tile_m)
    return True, Ends(fill + tail, run_cycles, engine_pj)


@kernel
def _take(family: Record, tile: Corner, order: int, dram_bytes: int, tiles: int, value: float, best: Record) -> None:
    """Take note of a mapping that is good enough if it is better: by bytes, tiles, value, and the order of enumeration."""
    if dram_bytes > best.dram_bytes:
        return
    if dram_bytes == best.dram_bytes:
        if tiles > best.tiles or (tiles == best.tiles and value > best.value):
            return
        here = (family.rank, tile.tile_m, tile.tile_n, tile.tile_groups, order)
        there = (best.rank, best.tile_m, best.tile_n, best.tile_groups, best.order)
        if tiles == best.tiles and value == best.value and here > there:
            return
    best.dram_bytes, best.tiles, best.value, best.rank = dram_bytes, tiles, value, family.rank
    best.tile_m, best.tile_n, best.tile_groups, best.order = tile.tile_m, tile.tile_n, tile.tile_groups, order


@kernel
def _raise(box: IntArray, axis: int, tiles: int, most: float) -> None:
    """Take from the low corner the tiles that make more than `most` turns of a loop."""
    if most < tiles:
        box[axis] = min(max(box[axis], ceil_div(tiles, max(int(most * _MORE), 1))), box[axis + 3])
