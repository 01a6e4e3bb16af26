"""What the verifier sees in one instruction after another, compiled: an order that tokens allow, races, contents of regions.

docs/isa.md, section 6, has the rules. Who comes before whom is known by vector clocks: `clocks[i, e]` is how many instructions
of engine e are complete before instruction i starts, by tokens, and for its own engine those that stand before it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accel.jit import kernel
from accel.program import Engine, Flag

Ints = npt.NDArray[np.int64]
Small = npt.NDArray[np.int32]
Records = Any
"""Structured arrays. Fields go by `record["rows"]`: as attributes, `flags` and `repeat` are NumPy's own in plain Python."""

LOAD, STORE, COMPUTE, PRUNE, VECTOR, _ = map(int, Engine)
ENGINES = len(Engine)
_, FIRST, LAST = map(int, Flag)
WEST, NORTH, OUT = range(3)

OK, RACE, MISSING, REPEAT, ROWS, COLS, GROUPS, VIEW, WORDS, DENSE, PRUNED, DEPTH, NOT_LAST, TOO_SOON, SUMS, OPEN, FORMAT = (
    range(17)
)
"""What is wrong with an instruction: see `accel.dataflow.verifier` for the words."""

DENSE_TILE, PRUNED_TILE = 0, 1
RESULTS, LOADED_SUMS = -2, -1
"""What a region holds beside its tile: on side out results, sums from DRAM, or (0 and more) sums up to that group."""


class Stream(NamedTuple):
    """Instructions, their `ordinals` in their engines, and from `starts[e]` on the `places` of those of engine e."""

    table: Records
    """Of `accel.program.INSTRUCTION`."""
    ordinals: Small
    places: Ints
    starts: Ints
    clocks: Small


class Rows(NamedTuple):
    """Columns of the tables, all int64: of views, of modes (is WS, bits of a result) and of kernels (works on a tile)."""

    side: Ints
    groups: Ints
    repeats: Ints
    prune_keep: Ints
    elem_bits: Ints
    is_ws: Ints
    out_bits: Ints
    tile: Ints


PIECE = np.dtype([(name, "i8") for name in ("start", "end", "whole", "maker", "state", "writer")])
"""A part of a buffer. `whole`: it is the region that `maker` wrote, with `state`. `writer` was the last to write there."""


class Pieces(NamedTuple):
    """What is known of a buffer, in pieces that do not overlap: `order` has them by address.

    `counts` are pieces, pieces ever made and those `free` again. Before all that have read a piece since it was written are
    complete, the first `readers[piece, e]` instructions of engine e must be.
    """

    order: Ints
    counts: Ints
    free: Ints
    about: Records
    """Of `PIECE`."""
    readers: Small


class Fault(NamedTuple):
    """What is wrong: a code, the instruction, the buffer and the other instruction that has to do with it (-1: none)."""

    code: int
    place: int
    buffer: int
    other: int


@kernel
def order_instructions(needs: Ints, places: Ints, starts: Ints, order: Ints, clocks: Small) -> int:
    """Fill `order` with an order that tokens allow, the program's own where possible, and `clocks`; return how far it gets."""
    heads, done = starts[:ENGINES].copy(), np.zeros(ENGINES, np.int64)
    for step in range(len(order)):
        best_engine, best = -1, len(order)
        for engine in range(ENGINES):
            if heads[engine] == starts[engine + 1] or places[heads[engine]] > best:
                continue
            if _is_ready(needs, places[heads[engine]], engine, done):
                best_engine, best = engine, places[heads[engine]]
        if best_engine < 0:
            return step
        order[step] = best
        _set_clock(needs, places, starts, best, best_engine, done[best_engine], clocks)
        heads[best_engine] += 1
        done[best_engine] += 1
    return len(order)


@kernel
def _is_ready(needs: Ints, place: int, engine: int, done: Ints) -> bool:
    ready = True
    for other in range(ENGINES):
        ready &= other == engine or needs[place, other] <= done[other]
    return ready


@kernel
def _set_clock(needs: Ints, places: Ints, starts: Ints, place: int, engine: int, ordinal: int, clocks: Small) -> None:
    """Join the clocks of all that instruction `place` waits for, directly or because an earlier one of its engine did."""
    if ordinal > 0:
        _join(clocks, place, places[starts[engine] + ordinal - 1])
    for other in range(ENGINES):
        if other != engine and needs[place, other] > clocks[place, other]:
            _join(clocks, place, places[starts[other] + needs[place, other] - 1])
            clocks[place, other] = needs[place, other]
    clocks[place, engine] = ordinal


@kernel
def _join(clocks: Small, place: int, earlier: int) -> None:
    for engine in range(ENGINES):
        clocks[place, engine] = max(clocks[place, engine], clocks[earlier, engine])


@kernel
def walk_regions(stream: Stream, rows: Rows, order: Ints, west: Pieces, north: Pieces, out: Pieces) -> Fault:
    """Go through the instructions in `order` and return the first race or region that holds something else."""
    for place in order:
        opcode = stream.table[place]["opcode"]
        fault = Fault(OK, place, WEST, -1)
        if opcode == LOAD:
            fault = _walk_load(stream, rows, place, west, north, out)
        elif opcode == STORE:
            fault = _walk_store(stream, rows, place, out)
        elif opcode == COMPUTE:
            fault = _walk_compute(stream, rows, place, west, north, out)
        elif opcode == PRUNE:
            fault = _walk_prune(stream, rows, place, north)
        elif opcode == VECTOR and rows.tile[stream.table[place]["object"]]:
            fault = _walk_vector(stream, rows, place, out)
        if fault.code != OK:
            return fault
    return Fault(OK, -1, WEST, -1)


@kernel
def _walk_load(stream: Stream, rows: Rows, place: int, west: Pieces, north: Pieces, out: Pieces) -> Fault:
    side = rows.side[stream.table[place]["object"]]
    if side == WEST:
        return _write(stream, place, west, WEST, _long(stream.table[place]["west"]), DENSE_TILE)
    if side == NORTH:
        return _write(stream, place, north, NORTH, _long(stream.table[place]["north"]), DENSE_TILE)
    return _write(stream, place, out, OUT, _long(stream.table[place]["out"]), LOADED_SUMS)


@kernel
def _walk_store(stream: Stream, rows: Rows, place: int, out: Pieces) -> Fault:
    fault, piece = _read(stream, place, out, OUT, _long(stream.table[place]["out"]))
    if fault.code != OK:
        return fault
    maker, elem_bits = out.about[piece]["maker"], rows.elem_bits[stream.table[place]["object"]]
    code = _differs_from_results(stream, place, maker)
    if code == OK and out.about[piece]["state"] != RESULTS and elem_bits != 32:
        code = OPEN
    if code == OK and out.about[piece]["state"] == RESULTS and rows.out_bits[stream.table[maker]["object"]] != elem_bits:
        code = FORMAT
    return Fault(code, place, OUT, maker)


@kernel
def _walk_vector(stream: Stream, rows: Rows, place: int, out: Pieces) -> Fault:
    fault, piece = _read(stream, place, out, OUT, _long(stream.table[place]["out"]))
    if fault.code != OK:
        return fault
    maker = out.about[piece]["maker"]
    code = _differs_from_results(stream, place, maker)
    if code == OK and out.about[piece]["state"] != RESULTS:
        code = OPEN
    if code != OK:
        return Fault(code, place, OUT, maker)
    return _rewrite(stream, place, out, OUT, piece)


@kernel
def _walk_prune(stream: Stream, rows: Rows, place: int, north: Pieces) -> Fault:
    fault, piece = _read(stream, place, north, NORTH, _long(stream.table[place]["north"]))
    if fault.code != OK:
        return fault
    maker, code = north.about[piece]["maker"], OK
    this, tile = stream.table[place], stream.table[maker]
    if tile["object"] != this["object"]:
        code = VIEW
    elif tile["repeat"] != this["repeat"]:
        code = REPEAT
    elif tile["col"] != this["col"] or tile["cols"] != this["cols"]:
        code = COLS
    elif tile["group"] != this["group"] or tile["groups"] != this["groups"]:
        code = GROUPS
    elif tile["words"] != this["words"]:
        code = WORDS
    elif north.about[piece]["state"] == PRUNED_TILE:
        code = PRUNED
    if code != OK:
        return Fault(code, place, NORTH, maker)
    north.about[piece]["state"] = PRUNED_TILE
    return _rewrite(stream, place, north, NORTH, piece)


@kernel
def _walk_compute(stream: Stream, rows: Rows, place: int, west: Pieces, north: Pieces, out: Pieces) -> Fault:
    fault, west_piece = _read(stream, place, west, WEST, _long(stream.table[place]["west"]))
    if fault.code != OK:
        return fault
    fault, north_piece = _read(stream, place, north, NORTH, _long(stream.table[place]["north"]))
    if fault.code != OK:
        return fault
    west_maker, north_maker = west.about[west_piece]["maker"], north.about[north_piece]["maker"]
    this, west_tile, north_tile = stream.table[place], stream.table[west_maker], stream.table[north_maker]
    code = _differs_from_tile(stream, place, west_maker)
    if code == OK and not _holds(west_tile["row"], west_tile["rows"], this["row"], this["rows"]):
        code = ROWS
    if code != OK:
        return Fault(code, place, WEST, west_maker)
    code = _differs_from_tile(stream, place, north_maker)
    if code == OK and not _holds(north_tile["col"], north_tile["cols"], this["col"], this["cols"]):
        code = COLS
    if code == OK and rows.prune_keep[north_tile["object"]] and north.about[north_piece]["state"] != PRUNED_TILE:
        code = DENSE
    if code != OK:
        return Fault(code, place, NORTH, north_maker)
    code = _differs_in_depth(stream, rows, place, west_maker, north_maker)
    if code != OK:
        return Fault(code, place, NORTH, north_maker)
    return _walk_sums(stream, rows, place, out)


@kernel
def _walk_sums(stream: Stream, rows: Rows, place: int, out: Pieces) -> Fault:
    """Check the sums that a COMPUTE goes on from and write those it leaves."""
    flags, is_ws = stream.table[place]["flags"], rows.is_ws[stream.table[place]["object"]]
    if not is_ws and not flags & LAST:
        return Fault(OK, place, OUT, -1)
    if is_ws and not flags & FIRST:
        fault, piece = _read(stream, place, out, OUT, _long(stream.table[place]["out"]))
        if fault.code != OK:
            return fault
        maker, state = out.about[piece]["maker"], out.about[piece]["state"]
        code = _differs_from_results(stream, place, maker)
        if code == OK and state != LOADED_SUMS and state != _long(stream.table[place]["group"]):
            code = SUMS
        if code != OK:
            return Fault(code, place, OUT, maker)
    state = RESULTS if flags & LAST else _long(stream.table[place]["group"]) + _long(stream.table[place]["groups"])
    return _write(stream, place, out, OUT, _long(stream.table[place]["out"]), state)


@kernel
def _holds(first: int, count: int, own_first: int, own_count: int) -> bool:
    """Return whether `count` rows (or columns) from `first` on include an instruction's own."""
    begin, end = _long(first), _long(first) + _long(count)
    return begin <= _long(own_first) and _long(own_first) + _long(own_count) <= end


@kernel
def _long(field: int) -> int:
    """Return a field as a signed number: Numba makes a float of what an unsigned and a signed one add up to."""
    return int(np.int64(field))


@kernel
def _differs_from_tile(stream: Stream, place: int, maker: int) -> int:
    this, tile = stream.table[place], stream.table[maker]
    if tile["repeat"] != this["repeat"]:
        return REPEAT
    if tile["group"] != this["group"] or tile["groups"] != this["groups"]:
        return GROUPS
    return OK


@kernel
def _differs_in_depth(stream: Stream, rows: Rows, place: int, west_maker: int, north_maker: int) -> int:
    this = stream.table[place]
    groups = rows.groups[stream.table[west_maker]["object"]]
    if rows.groups[stream.table[north_maker]["object"]] != groups:
        return DEPTH
    is_end = _long(this["group"]) + _long(this["groups"]) == groups
    if this["flags"] & LAST:
        return OK if is_end else TOO_SOON
    return NOT_LAST if is_end else OK


@kernel
def _differs_from_results(stream: Stream, place: int, maker: int) -> int:
    this, tile = stream.table[place], stream.table[maker]
    if tile["repeat"] != this["repeat"]:
        return REPEAT
    if tile["row"] != this["row"] or tile["rows"] != this["rows"]:
        return ROWS
    if tile["col"] != this["col"] or tile["cols"] != this["cols"]:
        return COLS
    if tile["words"] != this["words"]:
        return WORDS
    return OK


@kernel
def _comes_after(stream: Stream, place: int, earlier: int) -> bool:
    """Return whether `place`, which follows `earlier` in some order that tokens allow, does so in all of them."""
    engine = stream.table[earlier]["opcode"]
    return bool(engine == stream.table[place]["opcode"] or stream.clocks[place, engine] > stream.ordinals[earlier])


@kernel
def _unordered_reader(stream: Stream, place: int, pieces: Pieces, piece: int) -> int:
    """Return an instruction that reads `piece` and that `place` does not wait for, or -1."""
    for engine in range(ENGINES):
        readers = pieces.readers[piece, engine]
        if engine != stream.table[place]["opcode"] and readers > stream.clocks[place, engine]:
            return int(stream.places[stream.starts[engine] + readers - 1])
    return -1


@kernel
def _first_ending_after(pieces: Pieces, address: int) -> int:
    """Return where in `order` the first piece stands that ends beyond `address`."""
    low, high = 0, pieces.counts[0]
    while low < high:
        middle = (low + high) // 2
        if pieces.about[pieces.order[middle]]["end"] <= address:
            low = middle + 1
        else:
            high = middle
    return int(low)


@kernel
def _read(stream: Stream, place: int, pieces: Pieces, buffer: int, address: int) -> tuple[Fault, int]:
    """Take note that `place` reads the region that starts at `address`; return what is wrong and the piece."""
    at = _first_ending_after(pieces, address)
    piece = pieces.order[at] if at < pieces.counts[0] else -1
    if piece < 0 or pieces.about[piece]["start"] > address:
        return Fault(MISSING, place, buffer, -1), -1
    writer = pieces.about[piece]["writer"]
    if not _comes_after(stream, place, writer):
        return Fault(RACE, place, buffer, writer), piece
    if pieces.about[piece]["start"] != address or not pieces.about[piece]["whole"]:
        return Fault(MISSING, place, buffer, writer), piece
    pieces.readers[piece, stream.table[place]["opcode"]] = stream.ordinals[place] + 1
    return Fault(OK, place, buffer, -1), piece


@kernel
def _rewrite(stream: Stream, place: int, pieces: Pieces, buffer: int, piece: int) -> Fault:
    """Let `place`, which has read it, write `piece` in place: it holds the same tile."""
    other = _unordered_reader(stream, place, pieces, piece)
    if other >= 0:
        return Fault(RACE, place, buffer, other)
    pieces.about[piece]["writer"] = place
    pieces.readers[piece, :] = 0
    return Fault(OK, place, buffer, -1)


@kernel
def _write(stream: Stream, place: int, pieces: Pieces, buffer: int, start: int, state: int) -> Fault:
    """Let `place` write `words` from `start` on: what overlaps is cut off."""
    end = start + _long(stream.table[place]["words"])
    first = _first_ending_after(pieces, start)
    last = first
    while last < pieces.counts[0] and pieces.about[pieces.order[last]]["start"] < end:
        piece = pieces.order[last]
        other = _unordered_reader(stream, place, pieces, piece)
        if other < 0 and not _comes_after(stream, place, pieces.about[piece]["writer"]):
            other = pieces.about[piece]["writer"]
        if other >= 0:
            return Fault(RACE, place, buffer, other)
        last += 1
    piece = _replace(pieces, first, last, start, end)
    about = pieces.about[piece]
    about["start"], about["end"], about["whole"], about["maker"], about["state"], about["writer"] = (
        start,
        end,
        1,
        place,
        state,
        place,
    )
    pieces.readers[piece, :] = 0
    return Fault(OK, place, buffer, -1)


@kernel
def _replace(pieces: Pieces, first: int, last: int, start: int, end: int) -> int:
    """Put a new piece in the place of those from `first` to before `last` in `order`, less what lies outside; return it."""
    left, right = -1, -1
    if first < last and pieces.about[pieces.order[first]]["start"] < start:
        left = _copy(pieces, pieces.order[first])
        pieces.about[left]["end"] = start
    if first < last and pieces.about[pieces.order[last - 1]]["end"] > end:
        right = _copy(pieces, pieces.order[last - 1])
        pieces.about[right]["start"] = end
    for at in range(first, last):
        pieces.free[pieces.counts[2]] = pieces.order[at]
        pieces.counts[2] += 1
    new = _take(pieces)
    _make_room(pieces, last, first + 1 + (left >= 0) + (right >= 0))
    at = first
    if left >= 0:
        pieces.order[at] = left
        at += 1
    pieces.order[at] = new
    if right >= 0:
        pieces.order[at + 1] = right
    return new


@kernel
def _make_room(pieces: Pieces, old: int, new: int) -> None:
    """Move the pieces of `order` from `old` on to `new` on."""
    order, count = pieces.order, pieces.counts[0]
    if new > old:
        for at in range(count - 1, old - 1, -1):
            order[at + new - old] = order[at]
    elif new < old:
        for at in range(old, count):
            order[at + new - old] = order[at]
    pieces.counts[0] = count + new - old


@kernel
def _take(pieces: Pieces) -> int:
    if pieces.counts[2] > 0:
        pieces.counts[2] -= 1
        return int(pieces.free[pieces.counts[2]])
    pieces.counts[1] += 1
    return int(pieces.counts[1] - 1)


@kernel
def _copy(pieces: Pieces, piece: int) -> int:
    """Return a copy of what `piece` knows of its users: a part of a region that is no longer whole."""
    part = _take(pieces)
    about, old = pieces.about[part], pieces.about[piece]
    about["start"], about["end"], about["whole"] = old["start"], old["end"], 0
    about["maker"], about["state"], about["writer"] = old["maker"], old["state"], old["writer"]
    pieces.readers[part, :] = pieces.readers[piece, :]
    return part
