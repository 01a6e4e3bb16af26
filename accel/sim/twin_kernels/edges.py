"""The edges of the array: what is fed west and north in a cycle, and the shift registers through which it travels.

A shift register is a ring that is written at a place which moves on by one each cycle. What PEs at different distances from
the edge see in one cycle lies at as many places of it. Time counts enabled cycles from docs/timing.md's cycle 0.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from accel.counters import Counters
from accel.jit import kernel
from accel.sim.twin_kernels.vector import LANES, Bank, Vector, bank, gather, load, store

# Fields of a west record: what row 0's feeder does in a slot, and the others when it is their turn.
WORD, WORD_ROWS, PSUM = range(3)
"""WORD is the place of row 0's west word in the operand; as many rows as WORD_ROWS take a word, the others none, and -1
repeats the word of `row_lanes` slots ago. PSUM is the place of the partial sum that row 0 starts from, -1 for none (WS)."""
WEST_FIELDS = 3

# Fields of a north record: what column 0's feeder does, and the others when it is their turn.
ENTRY, ENTRY_COLS, MET_ROWS, LOAD_ROW, LOAD_PLACE = range(5)
"""ENTRY is the place of column 0's entry in the operand; as many columns as ENTRY_COLS take one, the others none, and -1
repeats the entry before. It meets MET_ROWS output rows. LOAD_ROW is the row that loads it (-1: none) and LOAD_PLACE where
(WS)."""
NORTH_FIELDS = 5

# Fields of a result record: where the sums of a slot in which sums end go.
OUT, OUT_ROWS, OUT_COLS, SEEN_COLS, PSUM_OUT = range(5)
"""OUT is the place of the sum of row 0, column 0; rows below OUT_ROWS and columns below OUT_COLS are of the matrix, columns
below SEEN_COLS in use. PSUM_OUT is the place in the psum buffer if the sum is not done (WS), else -1."""
RESULT_FIELDS = 5

# Rows of the table of slots: what each slot of a group is about.
ENTRY_OF, ROW_LANE, COL_LANE = range(3)

# Lines: what row 0's feeder tells the rows below.
OPENS, USED_ROWS, TAG, ADDRESS = range(4)
"""Whether a sum starts; PE rows whose sums end; which result record; where the entry stands in the banks (WS)."""
LINES = 4

# The places of `accel.counters.Counters`.
CYCLES, STALL_CYCLES, MACS, WEST_WORDS, NORTH_ENTRIES, OUT_WORDS = range(len(Counters._fields))

OK, TWICE, COLLIDED, LOST, LATE = range(5)
"""How a run ended."""
FAULTS = (
    "an output is missing",
    "an output came twice",
    "a sum finished while another one came down its chain",
    "a word was under way that never came out",
    "a partial sum was read before it was written",
)

NOT_WRITTEN = np.uint32(0xFFFFFFFF)
"""Bits that no result has: its NaN is canonical."""
_CANONICAL_NAN = np.uint32(0x7FC00000)


class Size(NamedTuple):
    """The sizes of the array and of the run, in the words of docs/timing.md."""

    rows: int
    cols: int
    lanes: int
    row_lanes: int
    col_lanes: int
    multiplier_latency: int
    drain_lanes: int
    group: int
    keep: int
    groups: int
    dim_m: int
    dim_n: int
    tile_rows: int
    """Output rows of a tile: of a chunk in WS."""
    row_delay: int
    """Cycles by which a row works behind the one above."""
    word_stride: int
    """From a row's west word to that of the row below in the operand."""
    vector_rows: int
    """Rows filled up to whole vectors."""
    pad: int
    """Places before row 0 in registers that a lower row reads: what flows in from above the array."""
    west_mask: int
    """Rings have a power of 2 of places: time taken with a mask is a place."""
    line_mask: int
    entry_mask: int
    record_mask: int
    result_mask: int
    stall_clocks: int
    """Clock cycles for which it is said whether registers take anything."""


class Operands(NamedTuple):
    """What the feeders read."""

    words: Bank
    """float32 (words, group)."""
    values: Bank
    """float32 (1, entries), in the order in which tiles of columns take them: (product, tile along n, group, entry of a group,
    column lane, column), filled up to whole tiles."""
    index: Bank
    """int32 (1, entries), -1 where an entry is not valid."""


class Edges(NamedTuple):
    """The registers at the edges and those in which words, entries and control travel."""

    places: Bank
    """int64 (2, walk.COUNTERS): where the row feeders' walk and the column feeders' walk are."""
    west: Bank
    """int64 (places, WEST_FIELDS)."""
    north: Bank
    """int64 (places, NORTH_FIELDS)."""
    results: Bank
    """int64 (places, RESULT_FIELDS), written only where sums end."""
    slots: Bank
    """int64 (3, keep * lanes): the table of slots."""
    lines: Bank
    """int32 (LINES, 2 * places): newest first and written twice, so that what is read always lies in one piece."""
    row_numbers: Bank
    """int32 (1, vector_rows)."""
    row_delays: Bank
    """int32 (1, vector_rows): cycles by which each row is behind row 0."""
    words: Bank
    """float32 (places * vectors, group * LANES): what the row feeders sent, for 16 rows element by element."""
    opens: Bank
    """int32 (places, vector_rows): with which PEs start a sum."""
    values: Bank
    """float32 (cols, 2 * places): like `lines`, what the column feeders sent; `index`, int32, too, -1 for no entry."""
    index: Bank
    counters: Bank
    """int64 (1, as many as `accel.counters.Counters` has)."""


@kernel
def operand_banks(arrays: Operands) -> Operands:
    """Return arrays as banks."""
    return Operands(bank(arrays.words), bank(arrays.values), bank(arrays.index))


@kernel
def edge_banks(arrays: Edges) -> Edges:
    """Return arrays as banks."""
    return Edges(
        bank(arrays.places),
        bank(arrays.west),
        bank(arrays.north),
        bank(arrays.results),
        bank(arrays.slots),
        bank(arrays.lines),
        bank(arrays.row_numbers),
        bank(arrays.row_delays),
        bank(arrays.words),
        bank(arrays.opens),
        bank(arrays.values),
        bank(arrays.index),
        bank(arrays.counters),
    )


@kernel
def turned(place: int, depth: int) -> int:
    """Return where a ring of `depth` places stands in the next cycle."""
    return place + 1 if place + 1 < depth else 0


@kernel
def write_line(size: Size, edges: Edges, line: int, time: int, number: int) -> None:
    """Tell the rows below in this cycle."""
    at = -time & size.line_mask
    edges.lines[line, at] = number
    edges.lines[line, at + size.line_mask + 1] = number


@kernel
def told_rows(size: Size, edges: Edges, line: int, time: int, delay: int, first_row: int) -> Vector:
    """Return what the line told each of 16 rows `delay` cycles ago."""
    at = (-time & size.line_mask) + delay
    if size.row_delay == 1:
        return load(edges.lines, line, at + first_row)
    return gather(edges.lines, line, at, load(edges.row_delays, 0, first_row))


@kernel
def send_words(size: Size, operands: Operands, edges: Edges, time: int) -> None:
    """Send a word from every row feeder: a new one, or again that of `row_lanes` slots ago."""
    vectors = size.vector_rows // LANES
    place, before = (time & size.west_mask) * vectors, (time - size.row_lanes & size.west_mask) * vectors
    for vector in range(vectors):
        for element in range(0, size.group * LANES, LANES):
            store(edges.words, place + vector, element, load(edges.words, before + vector, element))
    for row in range(size.rows):
        slot = time - row * size.row_delay & size.record_mask
        word_rows = edges.west[slot, WORD_ROWS]
        if row < word_rows:
            _take_word(size, operands, edges, edges.west[slot, WORD] + row * size.word_stride, place, row)
            edges.counters[0, WEST_WORDS] += 1
        elif word_rows >= 0:
            for element in range(size.group):
                edges.words[place + row // LANES, element * LANES + row % LANES] = np.nan  # where nothing may look


@kernel
def _take_word(size: Size, operands: Operands, edges: Edges, word: int, place: int, row: int) -> None:
    for element in range(size.group):
        edges.words[place + row // LANES, element * LANES + row % LANES] = operands.words[word, element]


@kernel
def send_entries(size: Size, operands: Operands, edges: Edges, time: int) -> None:
    """Send an entry from every column feeder: a new one, the one before again, or none."""
    at = -time & size.entry_mask
    mirrored, taken, macs = at + size.entry_mask + 1, 0, 0
    for col in range(size.cols):
        slot = time - col & size.record_mask
        entry_cols = edges.north[slot, ENTRY_COLS]
        value, index = edges.values[col, at + 1], edges.index[col, at + 1]
        if col < entry_cols:
            entry = edges.north[slot, ENTRY] + col
            value, index = operands.values[0, entry], operands.index[0, entry]
            taken += 1
            macs += edges.north[slot, MET_ROWS] if index >= 0 else 0
        elif entry_cols >= 0:
            index = np.int32(-1)
        edges.values[col, at] = value
        edges.values[col, mirrored] = value
        edges.index[col, at] = index
        edges.index[col, mirrored] = index
    edges.counters[0, NORTH_ENTRIES] += taken
    edges.counters[0, MACS] += macs


@kernel
def write_out(out: Bank, place: int, value: np.float32) -> bool:
    """Write the bits of a result, its NaN canonical; return whether it was there already."""
    is_twice = bool(out[0, place] != NOT_WRITTEN)
    out[0, place] = np.float32(value).view(np.uint32) if value == value else _CANONICAL_NAN
    return is_twice
