"""The instructions of one product under its mapping, compiled: the loops over DRAM-level tiles of docs/timing.md, section 2.

Each buffer is a ring: a tile goes behind the one before, and waits for what it overwrites to be used. So of small tiles many
are on their way while the array works, of the largest (half a buffer) one.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from accel.jit import kernel
from accel.program import INSTRUCTION, Engine, Flag
from accel.timing.array import ceil_div
from accel.timing.gemm import OS, Machine, Product, Tiling, tile_bits

IntArray = npt.NDArray[np.int64]
FIELDS = tuple(INSTRUCTION.names or ())
"""Columns of the instructions here, in numbers of 64 bits: far quicker to compile than records."""
_OPCODE, _FLAGS, _WAITS, _SIGNALS, _SITE, _OBJECT, _REPEAT, _WEST_AT, _NORTH_AT, _OUT_AT = range(10)
_ROW, _ROWS, _COL, _COLS, _GROUP, _GROUPS, _WORDS, _BYTES = range(10, 18)

LOAD, STORE, COMPUTE, PRUNE, VECTOR, _ = map(int, Engine)
_, FIRST, LAST = map(int, Flag)
_WEST, _NORTH, _OUT = 0, 1, 2


class Objects(NamedTuple):
    """Where a product's rows in the tables of a program are; -1 for what it does not have."""

    site: int
    west: int
    north: int
    out: int
    sums: int
    """The view of partial sums in DRAM."""
    mode: int
    first_tile_kernel: int
    tile_kernels: int
    pad_rows: int
    pad_cols: int


class Words(NamedTuple):
    """Bits of a word of the buffers, and the bits of a compact group if SORE prunes the north operand."""

    word_bits: int
    online_group_bits: int


class Parts(NamedTuple):
    """Operators cut by samples that a product's loads wait for part by part; they go between its instructions.

    A tile kernel on results waits for the array, and so does what the vector unit has to do after it: a part is put as late as
    the loads allow, one part ahead.
    """

    rows: IntArray
    """(instructions, `FIELDS`)"""
    needs: IntArray
    """(instructions, engines)"""
    ends: IntArray
    """(parts,): the instructions of all parts up to this one."""
    samples: IntArray
    """(parts,): the first sample behind each."""
    done: IntArray
    """(parts,): how many instructions of VECTOR must be complete until the part is; filled in as it is put."""
    put: IntArray
    """(1,): parts that were put."""


class Lines(NamedTuple):
    """Which lines (rows of the west operand, columns of the north one) are of which sample.

    Line i of repeat j is of sample `(j * per_repeat + i) // per_sample`; `per_sample` 0: loads wait for no part.
    """

    per_repeat: int
    per_sample: int


class Piece(NamedTuple):
    """What one COMPUTE makes: a part of the results of a pair of tiles."""

    repeat: int
    row: int
    rows: int
    col: int
    cols: int


class State(NamedTuple):
    """What carries on from product to product, all int64.

    `counts` are the instructions so far of each engine. Of each buffer `size` are its words, `next` where the ring goes on, and
    `regions[buffer, place]` the (start, end, uses) of tiles in it, from place `oldest` on, `held` of them: `uses` is how many
    instructions of COMPUTE (west, north) or STORE (output) must be complete before it can be overwritten. `freed` are those of
    the tiles overwritten so far.
    """

    counts: IntArray
    size: IntArray
    next: IntArray
    regions: IntArray
    oldest: IntArray
    held: IntArray
    freed: IntArray


class Output(NamedTuple):
    """Instructions (row, `FIELDS`) and, for each, how many of every engine must be complete before; `size[0]` are written."""

    rows: IntArray
    needs: IntArray
    size: IntArray


@kernel
def _add(output: Output, state: State, opcode: int, site: int, table_object: int, repeat: int) -> int:
    """Append an instruction and return its place."""
    place = output.size[0]
    output.size[0] = place + 1
    state.counts[opcode] += 1
    row = output.rows[place]
    row[_OPCODE], row[_SITE], row[_OBJECT], row[_REPEAT] = opcode, site, table_object, repeat
    return int(place)


@kernel
def _need(output: Output, place: int, engine: int, count: int) -> None:
    output.needs[place, engine] = max(output.needs[place, engine], count)


@kernel
def _need_all(output: Output, place: int, counts: IntArray) -> None:
    for engine in range(len(counts)):
        _need(output, place, engine, counts[engine])


@kernel
def _take(state: State, buffer: int, words: int) -> tuple[int, int]:
    """Return where the next `words` of a buffer go, and how many uses must be complete before."""
    room = state.regions.shape[1]
    start = state.next[buffer] if state.next[buffer] + words <= state.size[buffer] else 0
    overwritten = state.held[buffer] - room + 1  # the table of regions is full: forget the oldest
    for place in range(state.held[buffer]):
        region = state.regions[buffer, (state.oldest[buffer] + place) % room]
        if region[0] < start + words and start < region[1]:
            overwritten = max(overwritten, place + 1)
    for _ in range(overwritten):
        state.freed[buffer] = max(state.freed[buffer], state.regions[buffer, state.oldest[buffer], 2])
        state.oldest[buffer] = (state.oldest[buffer] + 1) % room
        state.held[buffer] -= 1
    newest = (state.oldest[buffer] + state.held[buffer]) % room
    state.regions[buffer, newest, 0], state.regions[buffer, newest, 1] = start, start + words
    state.regions[buffer, newest, 2] = 0
    state.held[buffer] += 1
    state.next[buffer] = start + words
    return start, state.freed[buffer]  # that of what this tile overwrites, or of a tile that an earlier one overwrote in part


@kernel
def _newest(state: State, buffer: int) -> Any:
    """Return (start, end, uses) of the tile last put into a buffer."""
    return state.regions[buffer, (state.oldest[buffer] + state.held[buffer] - 1) % state.regions.shape[1]]


@kernel
def _put_parts(output: Output, state: State, parts: Parts, count: int) -> None:
    """Append the instructions of parts until `count` of them, or all, were put."""
    while parts.put[0] < min(count, len(parts.ends)):
        part = parts.put[0]
        for number in range(parts.ends[part - 1] if part else 0, parts.ends[part]):
            part_row = parts.rows[number]
            place = _add(output, state, VECTOR, part_row[_SITE], part_row[_OBJECT], 0)
            output.rows[place, _FLAGS] = part_row[_FLAGS]
            _need_all(output, place, parts.needs[number])
        parts.done[part] = state.counts[VECTOR]
        parts.put[0] = part + 1


@kernel
def _await_samples(output: Output, state: State, parts: Parts, lines: Lines, tile: IntArray) -> int:
    """Return how many instructions of VECTOR must be complete until a tile (repeat, first line, lines, ...) can be loaded."""
    if lines.per_sample == 0:
        return 0
    sample = (tile[0] * lines.per_repeat + tile[1] + tile[2] - 1) // lines.per_sample
    part = 0
    while parts.samples[part] <= sample:
        part += 1
    _put_parts(output, state, parts, part + 2)
    return int(parts.done[part])


@kernel
def _load_west(
    output: Output,
    state: State,
    product: Product,
    objects: Objects,
    words: Words,
    needs: IntArray,
    vectors: int,
    tile: IntArray,
) -> None:
    """Load the west tile (repeat, row, rows, group, groups) after so many `vectors`."""
    bits = tile_bits(product.west, tile[2], tile[4], product.groups)
    size = ceil_div(bits, words.word_bits)
    start, uses = _take(state, _WEST, size)
    place = _add(output, state, LOAD, objects.site, objects.west, tile[0])
    row = output.rows[place]
    row[_WEST_AT], row[_ROW], row[_ROWS], row[_GROUP], row[_GROUPS] = start, tile[1], tile[2], tile[3], tile[4]
    row[_BYTES], row[_WORDS] = ceil_div(bits, 8), size
    _need_all(output, place, needs)
    _need(output, place, VECTOR, vectors)
    _need(output, place, COMPUTE, uses)


@kernel
def _load_north(
    output: Output,
    state: State,
    product: Product,
    objects: Objects,
    words: Words,
    needs: IntArray,
    vectors: int,
    tile: IntArray,
) -> None:
    """Load the north tile (repeat, col, cols, group, groups) after so many `vectors`; SORE prunes it if it comes dense."""
    bits = tile_bits(product.north, tile[2], tile[4], product.groups)
    size = ceil_div(bits, words.word_bits)
    if product.north.online:
        size = max(size, ceil_div(tile[2] * tile[4] * words.online_group_bits, words.word_bits))
    start, uses = _take(state, _NORTH, size)
    place = _add(output, state, LOAD, objects.site, objects.north, tile[0])
    row = output.rows[place]
    row[_NORTH_AT], row[_COL], row[_COLS], row[_GROUP], row[_GROUPS] = start, tile[1], tile[2], tile[3], tile[4]
    row[_BYTES], row[_WORDS] = ceil_div(bits, 8), size
    _need_all(output, place, needs)
    _need(output, place, VECTOR, vectors)
    _need(output, place, COMPUTE, uses)
    if product.north.online:
        pruned = _add(output, state, PRUNE, objects.site, objects.north, tile[0])
        for column in (_NORTH_AT, _COL, _COLS, _GROUP, _GROUPS, _WORDS):
            output.rows[pruned, column] = row[column]
        _need(output, pruned, LOAD, state.counts[LOAD])


@kernel
def _piece_sizes(machine: Machine, product: Product, tiling: Tiling, rows: int, cols: int, sums: bool) -> tuple[int, int]:
    """Return the rows and columns of a tile that one COMPUTE takes: what half the output buffer holds.

    With partial sums a whole tile: they wait there for the next chunk of k.
    """
    if sums:
        return rows, cols
    unit_m, unit_n = machine.rows * tiling.row_lanes, machine.cols * (machine.lanes // tiling.row_lanes)
    half_bits = machine.psum_words * machine.cols * 32
    if tiling.dataflow == OS:
        fitting = half_bits // (min(unit_n, cols) * product.out_bits) // unit_m * unit_m
        if fitting < rows:
            return max(fitting, unit_m), min(unit_n, cols)
        return rows, min(max(half_bits // (rows * product.out_bits) // unit_n, 1) * unit_n, cols)
    words_of_strip = ceil_div(rows, tiling.row_lanes) * machine.lanes
    return rows, min(max(machine.psum_words // words_of_strip, 1) * unit_n, cols)


@kernel
def _store(output: Output, state: State, product: Product, objects: Objects, computed: int, is_final: bool) -> None:
    """Do the tile kernels on the results of the COMPUTE at `computed`, if they are final, and store them, or partial sums."""
    source = output.rows[computed]
    ready = COMPUTE
    if is_final:
        for offset in range(objects.tile_kernels):
            place = _add(output, state, VECTOR, objects.site, objects.first_tile_kernel + offset, source[_REPEAT])
            _copy_region(output.rows[place], source)
            _need(output, place, COMPUTE, state.counts[COMPUTE])
            ready = VECTOR
    place = _add(output, state, STORE, objects.site, objects.out if is_final else objects.sums, source[_REPEAT])
    row = output.rows[place]
    _copy_region(row, source)
    _need(output, place, ready, state.counts[ready])
    rows, cols, bits = row[_ROWS], row[_COLS], 32
    if is_final:
        bits = product.out_bits
        if row[_ROW] + rows == product.west.size:
            rows += objects.pad_rows
        if row[_COL] + cols == product.north.size:
            cols += objects.pad_cols
    row[_BYTES] = ceil_div(rows * cols * bits, 8)
    _newest(state, _OUT)[2] = state.counts[STORE]


@kernel
def _copy_region(row: IntArray, source: IntArray) -> None:
    for column in (_OUT_AT, _WORDS, _ROW, _ROWS, _COL, _COLS):
        row[column] = source[column]


@kernel
def _set_piece(row: IntArray, piece: Piece) -> None:
    row[_ROW], row[_ROWS], row[_COL], row[_COLS] = piece.row, piece.rows, piece.col, piece.cols


@kernel
def _reload_sums(output: Output, state: State, objects: Objects, piece: Piece, uses: int, turn: int) -> None:
    """Load the partial sums that the k turn before stored, `turn` stores ago."""
    place = _add(output, state, LOAD, objects.site, objects.sums, piece.repeat)
    row, region = output.rows[place], _newest(state, _OUT)
    row[_OUT_AT], row[_WORDS] = region[0], region[1] - region[0]
    _set_piece(row, piece)
    row[_BYTES] = piece.rows * piece.cols * 4
    _need(output, place, STORE, max(state.counts[STORE] - turn + 1, uses))


@kernel
def _compute_tile(
    output: Output,
    state: State,
    machine: Machine,
    product: Product,
    tiling: Tiling,
    objects: Objects,
    words: Words,
    west: IntArray,
    north: IntArray,
    turn: int,
) -> None:
    """Multiply a west tile with a north one, piece by piece, and store what is final.

    `turn` is 0 if sums stay on the chip from one chunk of k to the next, else the stores of one turn of the k loop.
    """
    repeat, first_group, groups = west[0], west[3], west[4]
    is_first, is_last = first_group == 0, first_group + groups == product.groups
    sums = not (is_first and is_last)
    accumulates = tiling.dataflow != OS and (sums or product.groups > machine.rows)
    bits = 32 if accumulates or product.out_bits == 32 else 16
    piece_rows, piece_cols = _piece_sizes(machine, product, tiling, west[2], north[2], sums)
    for col in range(0, north[2], piece_cols):
        for row in range(0, west[2], piece_rows):
            rows, cols = min(piece_rows, west[2] - row), min(piece_cols, north[2] - col)
            piece = Piece(repeat, west[1] + row, rows, north[1] + col, cols)
            reloads, uses = turn > 0 and not is_first, 0
            if is_last if tiling.dataflow == OS else (is_first or reloads):
                _, uses = _take(state, _OUT, ceil_div(rows * cols * bits, words.word_bits))
            if reloads:
                _reload_sums(output, state, objects, piece, uses, turn)
            place = _add(output, state, COMPUTE, objects.site, objects.mode, repeat)
            fields = output.rows[place]
            fields[_FLAGS] = (FIRST if is_first else 0) | (LAST if is_last else 0)
            fields[_WEST_AT], fields[_NORTH_AT] = _newest(state, _WEST)[0], _newest(state, _NORTH)[0]
            _set_piece(fields, piece)
            fields[_GROUP], fields[_GROUPS] = first_group, groups
            if is_last or tiling.dataflow != OS:  # else the sums stay in the array
                region = _newest(state, _OUT)
                fields[_OUT_AT], fields[_WORDS] = region[0], region[1] - region[0]
            _need(output, place, LOAD, state.counts[LOAD])
            _need(output, place, PRUNE, state.counts[PRUNE])
            _need(output, place, STORE, uses)
            if is_last or turn > 0:
                _store(output, state, product, objects, place, is_last)
    _newest(state, _WEST)[2] = state.counts[COMPUTE]
    _newest(state, _NORTH)[2] = state.counts[COMPUTE]


@kernel
def emit_product(
    output: Output,
    state: State,
    machine: Machine,
    product: Product,
    tiling: Tiling,
    order: IntArray,
    objects: Objects,
    words: Words,
    west_needs: IntArray,
    north_needs: IntArray,
    west_first: bool,
    parts: Parts,
    west_lines: Lines,
    north_lines: Lines,
) -> None:
    """Append the instructions of a product on the array; `order` has the loops m, n, k as 0, 1, 2, outermost first.

    `west_needs` and `north_needs` are the instructions of each engine that its operands wait for, `west_first` says which of
    two tiles is loaded first. `parts` go between them, each before the first load that `west_lines` or `north_lines` make wait
    for it.
    """
    sizes = (product.west.size, product.north.size, product.groups)
    tiles = (tiling.tile_m, tiling.tile_n, tiling.tile_groups)
    turns = (ceil_div(sizes[0], tiles[0]), ceil_div(sizes[1], tiles[1]), ceil_div(sizes[2], tiles[2]))
    position_of_k = 0
    for position in range(3):
        if order[position] == 2:
            position_of_k = position
    inside = 1  # tiles in one turn of the k loop
    for position in range(position_of_k + 1, 3):
        inside *= turns[order[position]]
    turn = inside if inside > 1 and turns[2] > 1 else 0
    at = np.zeros(3, np.int64)
    west, north = np.zeros(5, np.int64), np.zeros(5, np.int64)
    for repeat in range(product.repeats):
        for outer in range(turns[order[0]]):
            for middle in range(turns[order[1]]):
                for inner in range(turns[order[2]]):
                    at[order[0]], at[order[1]], at[order[2]] = outer, middle, inner
                    for operand in range(2):
                        if (operand == 0) == west_first:
                            if _is_new(west, repeat, at[0] * tiles[0], at[2] * tiles[2]):
                                _cut(west, repeat, at[0], at[2], sizes[0], tiles[0], sizes[2], tiles[2])
                                vectors = _await_samples(output, state, parts, west_lines, west)
                                _load_west(output, state, product, objects, words, west_needs, vectors, west)
                        elif _is_new(north, repeat, at[1] * tiles[1], at[2] * tiles[2]):
                            _cut(north, repeat, at[1], at[2], sizes[1], tiles[1], sizes[2], tiles[2])
                            vectors = _await_samples(output, state, parts, north_lines, north)
                            _load_north(output, state, product, objects, words, north_needs, vectors, north)
                    _compute_tile(output, state, machine, product, tiling, objects, words, west, north, turn)
    _put_parts(output, state, parts, len(parts.ends))


@kernel
def _is_new(held: IntArray, repeat: int, first: int, first_group: int) -> bool:
    """Return whether the tile that starts there is another than the one held, or none is held."""
    return bool(held[2] == 0 or held[0] != repeat or held[1] != first or held[3] != first_group)


@kernel
def _cut(
    tile: IntArray, repeat: int, index: int, k_index: int, size: int, tile_size: int, groups: int, tile_groups: int
) -> None:
    """Fill `tile` with (repeat, first row, rows, first group, groups)."""
    tile[0] = repeat
    tile[1], tile[2] = index * tile_size, min(tile_size, size - index * tile_size)
    tile[3], tile[4] = k_index * tile_groups, min(tile_groups, groups - k_index * tile_groups)
