"""What the array is fed: the tiles of a run, and the words at its edges cycle by cycle, as docs/timing.md section 1 fixes them.

Operands are FP16 or BF16. Links and padding carry NaN where nothing may look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.golden.numeric import ANY_NAN, Operands, bits
from accel.golden.prune import Entries, split_groups
from accel.units import ceil_div

Records = NDArray[np.void]

PSUM_TURN_CYCLES = 3
"""Bottom register, write and read of the psum buffer: from a sum at the bottom adder's output to row 0's adder input."""

CONTROL = np.dtype([("tile", "i4"), ("word", "i4"), ("step", "i2"), ("lane", "i2"), ("first", "?"), ("last", "?")])
"""What travels east beside the west words. `tile` is -1 in an empty slot; `step` counts the entries of a group; `word` is the
PE row (OS) or the stream element (WS); `first` takes the sum from outside the PE, `last` hands it on."""

ENTRY = np.dtype([("tile", "i4"), ("row", "i2"), ("slot", "i2"), ("value", "u2"), ("index", "i2"), ("valid", "?")])
"""What travels south. `tile` is -1 where nothing travels; `row` and `slot` say which register to load (WS); `value`
is the bits of an operand."""

NO_CONTROL = np.array((-1, 0, 0, 0, False, False), CONTROL)
NO_ENTRY = np.array((-1, 0, 0, ANY_NAN, 0, False), ENTRY)


@dataclass(frozen=True)
class ArrayForm:
    """The sizes of an array in one of its interleave forms; all at least 1."""

    rows: int
    cols: int
    lanes: int
    """Interleaved sums in a PE: the latency of its adder."""
    row_lanes: int
    """Lanes along output rows; divides `lanes`, the others lie along columns."""
    multiplier_latency: int
    drain_lanes: int = 1
    """At most `rows`."""

    @property
    def col_lanes(self) -> int:
        """Lanes along output columns."""
        return self.lanes // self.row_lanes

    @property
    def tile_rows(self) -> int:
        """Output rows of an OS tile."""
        return self.rows * self.row_lanes

    @property
    def tile_cols(self) -> int:
        """Output columns of a tile."""
        return self.cols * self.col_lanes


@dataclass(frozen=True)
class RunShape:
    """`count` products (dim_m, dim_n) over `groups` of k, in the pattern of the north operand."""

    count: int
    dim_m: int
    dim_n: int
    groups: int
    keep: int
    group: int

    @property
    def steps(self) -> int:
        """Entries along k of one output."""
        return self.groups * self.keep

    @classmethod
    def of(cls, lhs: Operands, rhs: Sequence[Entries]) -> RunShape:
        """Return the shape of lhs (count, dim_m, dim_k) times the operands `rhs`."""
        pattern = rhs[0].pattern
        return cls(len(lhs), lhs.shape[1], rhs[0].dim_n, rhs[0].groups, pattern.keep, pattern.group)


@dataclass(frozen=True)
class Tile:
    """What one visit of the array computes: `rows` by `cols` outputs, over all of k (OS) or one group a PE row (WS)."""

    product: int
    start: int
    """Cycle in which PE row 0, column 0 computes its first step."""
    row_base: int
    rows: int
    col_base: int
    cols: int
    first_group: int = 0
    is_first_k: bool = True
    is_last_k: bool = True


@dataclass(frozen=True)
class Feed:
    """The words at the edges of the array, one row of each table per cycle."""

    form: ArrayForm
    shape: RunShape
    tiles: list[Tile]
    words: Operands
    """(cycles, rows, group)."""
    control: Records
    """(cycles, rows) of `CONTROL`."""
    entries: Records
    """(cycles, cols) of `ENTRY`."""

    @classmethod
    def quiet(cls, form: ArrayForm, shape: RunShape, tiles: list[Tile], cycles: int, dtype: Any = np.float16) -> Feed:
        """Return a feed of nothing for so many cycles; `dtype` is that of the operands."""
        words = np.full((cycles, form.rows, shape.group), ANY_NAN).view(dtype)
        return cls(form, shape, tiles, words, np.full((cycles, form.rows), NO_CONTROL), np.full((cycles, form.cols), NO_ENTRY))


def feed_os(form: ArrayForm, lhs: Operands, rhs: Sequence[Entries]) -> Feed:
    """Return the feed of products run back to back with stationary outputs; arguments as in `accel.golden.array.run_os`."""
    shape = RunShape.of(lhs, rhs)
    tiles = os_tiles(form, shape)
    feed = Feed.quiet(form, shape, tiles, tiles[-1].start + shape.steps * form.lanes + max(form.rows, form.cols), lhs.dtype)
    words, entries = _padded_words(lhs, rhs, form.tile_rows), _padded_entries(form, rhs)
    for number, tile in enumerate(tiles):
        _feed_os_west(feed, number, tile, words[tile.product])
        _feed_os_north(feed, number, tile, entries[tile.product])
    return feed


def feed_ws(form: ArrayForm, lhs: Operands, rhs: Sequence[Entries], m_chunk: int) -> Feed:
    """Return the feed of products run back to back with a stationary north operand; see `accel.golden.array.run_ws`."""
    shape = RunShape.of(lhs, rhs)
    tiles = ws_tiles(form, shape, m_chunk)
    passes = form.rows + ceil_div(tiles[-1].rows, form.row_lanes) - 1
    feed = Feed.quiet(form, shape, tiles, tiles[-1].start + passes * shape.keep * form.lanes + form.cols, lhs.dtype)
    words, entries = _padded_words(lhs, rhs, form.row_lanes), _padded_entries(form, rhs)
    for number, tile in enumerate(tiles):
        _feed_ws_west(feed, number, tile, words[tile.product])
        _feed_ws_north(feed, number, tile, entries[tile.product])
    return feed


def os_tiles(form: ArrayForm, shape: RunShape) -> list[Tile]:
    """Return the tiles of a run with stationary outputs in the order in which they run: rules 7 and 11."""
    tiles: list[Tile] = []
    start = 0
    for product in range(shape.count):
        for row_base in range(0, shape.dim_m, form.tile_rows):
            rows = min(form.tile_rows, shape.dim_m - row_base)
            drain_cycles = form.lanes * ceil_div(min(form.rows, rows), form.drain_lanes)
            for col_base in range(0, shape.dim_n, form.tile_cols):
                cols = min(form.tile_cols, shape.dim_n - col_base)
                start += max(form.lanes * shape.steps, drain_cycles) if tiles else 0
                tiles.append(Tile(product, start, row_base, rows, col_base, cols))
    return tiles


def ws_tiles(form: ArrayForm, shape: RunShape, m_chunk: int) -> list[Tile]:
    """Return the tiles of a run with a stationary north operand in the order in which they run: rules 13 and 17."""
    group_cycles = shape.keep * form.lanes
    turn_cycles = PSUM_TURN_CYCLES if shape.groups > form.rows else 0
    tiles, start = [], _load_cycles(form, shape)
    for product in range(shape.count):
        for row_base in range(0, shape.dim_m, m_chunk):
            rows = min(m_chunk, shape.dim_m - row_base)
            stream_cycles = ceil_div(rows, form.row_lanes) * group_cycles
            for col_base in range(0, shape.dim_n, form.tile_cols):
                cols = min(form.tile_cols, shape.dim_n - col_base)
                for group in range(0, shape.groups, form.rows):
                    is_last_k = group + form.rows >= shape.groups
                    tiles.append(Tile(product, start, row_base, rows, col_base, cols, group, group == 0, is_last_k))
                    start += max(stream_cycles, form.rows * group_cycles + turn_cycles)
    return tiles


def _load_cycles(form: ArrayForm, shape: RunShape) -> int:
    """Return the cycles by which the first entry of a WS tile precedes its first step."""
    return shape.keep * form.col_lanes + form.rows - 1


def _padded_words(lhs: Operands, rhs: Sequence[Entries], extra_rows: int) -> NDArray[Any]:
    """Return lhs as (count, dim_m + extra_rows, groups, group), NaN where the matrix or a tap has ended."""
    words: NDArray[Any] = split_groups(bits(lhs), rhs[0].k_taps, rhs[0].pattern.group, fill=int(ANY_NAN))
    words = np.pad(words, [(0, 0), (0, extra_rows), (0, 0), (0, 0)], constant_values=ANY_NAN)
    return words.view(lhs.dtype)


def _padded_entries(form: ArrayForm, rhs: Sequence[Entries]) -> Records:
    """Return the entries as (count, groups, keep, dim_n), invalid ones added for a last tile of n and of k."""
    groups, keep, dim_n = rhs[0].values.shape
    entries = np.full((len(rhs), groups + form.rows, keep, dim_n + form.tile_cols), NO_ENTRY)
    for product, operand in enumerate(rhs):
        inside = entries[product, :groups, :, :dim_n]
        inside["value"] = np.where(operand.valid, bits(operand.values), ANY_NAN)
        inside["index"] = operand.index
        inside["valid"] = operand.valid
    return entries


def _feed_os_west(feed: Feed, number: int, tile: Tile, words: Operands) -> None:
    """Lane i of PE row r is output row i*rows + r of the tile; row r runs r cycles behind row 0."""
    form, shape = feed.form, feed.shape
    slot = np.arange(shape.steps * form.lanes)
    step = slot // form.lanes
    burst = (np.arange(shape.groups)[:, None] * shape.keep * form.lanes + np.arange(form.row_lanes)).ravel()
    for row in range(form.rows):
        control = _control(number, row, step % shape.keep, slot % form.lanes)
        control["first"] = step == 0
        control["last"] = (step == shape.steps - 1) & (row < tile.rows)  # only rows in use drain
        feed.control[tile.start + row + slot, row] = control
        outputs = tile.row_base + row + np.arange(form.row_lanes) * form.rows
        feed.words[tile.start + row + burst, row] = words[outputs].swapaxes(0, 1).reshape(-1, shape.group)


def _feed_os_north(feed: Feed, number: int, tile: Tile, entries: Records) -> None:
    """Lane j of PE column c is output column j*cols + c of the tile; an entry serves row_lanes cycles."""
    form, shape = feed.form, feed.shape
    arrivals = np.arange(shape.steps * form.col_lanes) * form.row_lanes
    for col in range(form.cols):
        sent = entries[: shape.groups, :, _columns(form, tile, col)].ravel()
        sent["tile"] = number
        feed.entries[tile.start + col + arrivals, col] = sent


def _feed_ws_west(feed: Feed, number: int, tile: Tile, words: Operands) -> None:
    """Lane i of stream element x is output row x*row_lanes + i of the chunk; row r runs r groups behind row 0."""
    form, shape = feed.form, feed.shape
    group_cycles = shape.keep * form.lanes
    stream = ceil_div(tile.rows, form.row_lanes)
    slot = np.arange(stream * group_cycles)
    step = slot % group_cycles // form.lanes
    control = _control(number, slot // group_cycles, step, slot % form.lanes)
    control["first"] = step == 0
    control["last"] = step == shape.keep - 1
    burst = (np.arange(stream)[:, None] * group_cycles + np.arange(form.row_lanes)).ravel()
    outputs = tile.row_base + np.arange(stream * form.row_lanes)
    for row in range(form.rows):
        start, group = tile.start + row * group_cycles, tile.first_group + row
        feed.control[start + slot, row] = control
        if group < shape.groups:
            feed.words[start + burst, row] = words[outputs, group]


def _feed_ws_north(feed: Feed, number: int, tile: Tile, entries: Records) -> None:
    """The entries of row r follow those of row r - 1 one group later; rows past the last group get invalid ones."""
    form, shape = feed.form, feed.shape
    slot = np.arange(shape.keep * form.col_lanes)
    start = tile.start - _load_cycles(form, shape)
    for row in range(form.rows):
        for col in range(form.cols):
            sent = entries[tile.first_group + row][:, _columns(form, tile, col)].ravel()
            sent["tile"], sent["row"], sent["slot"] = number, row, slot
            cycle = start + row * shape.keep * form.lanes + col + slot
            assert (feed.entries["tile"][cycle, col] < 0).all(), "two entries on one north link"
            feed.entries[cycle, col] = sent


def _columns(form: ArrayForm, tile: Tile, col: int) -> NDArray[np.int64]:
    return tile.col_base + col + np.arange(form.col_lanes) * form.cols


def _control(number: int, word: Any, step: NDArray[np.int64], lane: NDArray[np.int64]) -> Records:
    control = np.full(len(step), NO_CONTROL)
    control["tile"], control["word"], control["step"], control["lane"] = number, word, step, lane
    return control
