"""What the array is fed: the tiles of a run, and the words at its edges cycle by cycle, as docs/timing.md section 1 fixes them.

Links and padding carry NaN where nothing may look.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.golden.numeric import Float16s
from accel.golden.prune import Entries, split_groups
from accel.units import ceil_div

Records = NDArray[np.void]

PSUM_TURN_CYCLES = 3
"""Bottom register, write and read of the psum buffer: from a sum at the bottom adder's output to row 0's adder input."""

CONTROL = np.dtype(
    [("tile", "i4"), ("word", "i4"), ("step", "i2"), ("lane", "i2"), ("first", "?"), ("last", "?")],
)
"""What travels east beside the west words. `tile` is -1 in an empty slot; `step` counts the entries of a group; `word` is the PE
row (OS) or the stream element (WS); `first` takes the sum from outside the PE, `last` hands it on."""

ENTRY = np.dtype([("tile", "i4"), ("row", "i2"), ("slot", "i2"), ("value", "f2"), ("index", "i2"), ("valid", "?")])
"""What travels south. `tile` is -1 where nothing travels; `row` and `slot` say which register to load (WS)."""

NO_CONTROL = np.array((-1, 0, 0, 0, False, False), CONTROL)
NO_ENTRY = np.array((-1, 0, 0, np.nan, 0, False), ENTRY)


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


@dataclass(frozen=True)
class Tile:
    product: int
    start: int
    """Cycle in which row 0, column 0 computes its first step."""
    row_base: int
    rows: int
    """Output rows of the tile that exist."""
    col_base: int
    cols: int
    first_group: int = 0
    is_first_k: bool = True
    is_last_k: bool = True


class Feed:
    """The words at the edges of the array, one row of each table per cycle."""

    def __init__(self, form: ArrayForm, group: int, cycles: int) -> None:
        self.words = np.full((cycles, form.rows, group), np.nan, np.float16)
        self.control = np.full((cycles, form.rows), NO_CONTROL)
        self.entries = np.full((cycles, form.cols), NO_ENTRY)


class RunShape(NamedTuple):
    count: int
    dim_m: int
    dim_n: int
    groups: int
    keep: int
    group: int

    @property
    def steps(self) -> int:
        return self.groups * self.keep

    @classmethod
    def of(cls, lhs: Float16s, rhs: Sequence[Entries]) -> RunShape:
        pattern = rhs[0].pattern
        return cls(len(lhs), lhs.shape[1], rhs[0].dim_n, rhs[0].groups, pattern.keep, pattern.group)


def os_tiles(form: ArrayForm, shape: RunShape) -> list[Tile]:
    tile_rows, tile_cols = form.rows * form.row_lanes, form.cols * form.col_lanes
    tiles, start = [], 0
    for product in range(shape.count):
        for row_base in range(0, shape.dim_m, tile_rows):
            rows = min(tile_rows, shape.dim_m - row_base)
            drain_cycles = form.lanes * ceil_div(min(form.rows, rows), form.drain_lanes)
            for col_base in range(0, shape.dim_n, tile_cols):
                cols = min(tile_cols, shape.dim_n - col_base)
                tiles.append(Tile(product, start, row_base, rows, col_base, cols))
                start += max(form.lanes * shape.steps, drain_cycles)
    return tiles


def ws_tiles(form: ArrayForm, shape: RunShape, m_chunk: int) -> list[Tile]:
    tile_cols, group_cycles = form.cols * form.col_lanes, shape.keep * form.lanes
    turn_cycles = PSUM_TURN_CYCLES if shape.groups > form.rows else 0
    tiles, start = [], load_cycles(form, shape)
    for product in range(shape.count):
        for row_base in range(0, shape.dim_m, m_chunk):
            rows = min(m_chunk, shape.dim_m - row_base)
            for col_base in range(0, shape.dim_n, tile_cols):
                cols = min(tile_cols, shape.dim_n - col_base)
                for group in range(0, shape.groups, form.rows):
                    is_last_k = group + form.rows >= shape.groups
                    tiles.append(Tile(product, start, row_base, rows, col_base, cols, group, group == 0, is_last_k))
                    stream_cycles = ceil_div(rows, form.row_lanes) * group_cycles
                    start += max(stream_cycles, form.rows * group_cycles + turn_cycles)
    return tiles


def load_cycles(form: ArrayForm, shape: RunShape) -> int:
    """Return the cycles by which the first entry of a tile precedes its first step (WS)."""
    return shape.keep * form.col_lanes + form.rows - 1


def padded_words(lhs: Float16s, rhs: Sequence[Entries], extra_rows: int) -> Float16s:
    """Return lhs as (count, at least dim_m + extra_rows, groups, group), NaN where the matrix has ended."""
    words = split_groups(lhs, rhs[0].k_taps, rhs[0].pattern.group, fill=np.nan)
    return np.pad(words, [(0, 0), (0, extra_rows), (0, 0), (0, 0)], constant_values=np.nan)


def padded_entries(form: ArrayForm, rhs: Sequence[Entries], group_multiple: int) -> Records:
    """Return the entries as (count, groups, keep, dim_n), the last two but one padded to whole tiles with invalid entries."""
    groups, keep, dim_n = rhs[0].values.shape
    tile_cols = form.cols * form.col_lanes
    whole = (ceil_div(groups, group_multiple) * group_multiple, keep, ceil_div(dim_n, tile_cols) * tile_cols)
    entries = np.full((len(rhs), *whole), NO_ENTRY)
    for product, operand in enumerate(rhs):
        inside = entries[product, :groups, :, :dim_n]
        inside["value"] = np.where(operand.valid, operand.values, np.float16(np.nan))
        inside["index"] = operand.index
        inside["valid"] = operand.valid
    return entries


def _feed_os(
    feed: Feed, form: ArrayForm, shape: RunShape, number: int, tile: Tile, words: Float16s, entries: Records
) -> None:
    """Lane i of PE row r is output row i*rows + r of the tile, lane j of PE column c its output column j*cols + c."""
    lanes, row_lanes = form.lanes, form.row_lanes
    slot = np.arange(shape.steps * lanes)
    step, lane = slot // lanes, slot % lanes
    burst = (np.arange(shape.groups)[:, None] * shape.keep * lanes + np.arange(row_lanes)).ravel()
    for row in range(form.rows):
        outputs = tile.row_base + row + np.arange(row_lanes) * form.rows
        feed.words[tile.start + row + burst, row] = words[outputs].swapaxes(0, 1).reshape(-1, shape.group)
        control = _control(number, row, step % shape.keep, lane)
        control["first"] = step == 0
        control["last"] = (step == shape.steps - 1) & (row < tile.rows)
        feed.control[tile.start + row + slot, row] = control
    arrivals = np.arange(shape.steps * form.col_lanes) * row_lanes
    for col in range(form.cols):
        outputs = tile.col_base + col + np.arange(form.col_lanes) * form.cols
        sent = entries[: shape.groups, :, outputs].ravel()
        sent["tile"] = number
        feed.entries[tile.start + col + arrivals, col] = sent


def _feed_ws(
    feed: Feed, form: ArrayForm, shape: RunShape, number: int, tile: Tile, words: Float16s, entries: Records
) -> None:
    """Lane i of stream element x is output row x*row_lanes + i of the chunk; columns as in `_feed_os`."""
    row_lanes, group_cycles = form.row_lanes, shape.keep * form.lanes
    stream = ceil_div(tile.rows, row_lanes)
    slot = np.arange(stream * group_cycles)
    step, lane = slot % group_cycles // form.lanes, slot % form.lanes
    burst = (np.arange(stream)[:, None] * group_cycles + np.arange(row_lanes)).ravel()
    outputs = tile.row_base + np.arange(stream * row_lanes)
    held = np.arange(shape.keep * form.col_lanes)
    load = tile.start - load_cycles(form, shape)
    for row in range(form.rows):
        group, skew = tile.first_group + row, row * group_cycles
        if group < shape.groups:
            feed.words[tile.start + skew + burst, row] = words[outputs, group]
        control = _control(number, slot // group_cycles, step, lane)
        control["first"] = step == 0
        control["last"] = step == shape.keep - 1
        feed.control[tile.start + skew + slot, row] = control
        for col in range(form.cols):
            columns = tile.col_base + col + np.arange(form.col_lanes) * form.cols
            sent = entries[group][:, columns].ravel()
            sent["tile"], sent["row"], sent["slot"] = number, row, held
            present = load + skew + col + held
            assert (feed.entries["tile"][present, col] < 0).all(), "two entries on one north link"
            feed.entries[present, col] = sent


def _control(number: int, word: Any, step: NDArray[np.int64], lane: NDArray[np.int64]) -> Records:
    control = np.full(len(step), NO_CONTROL)
    control["tile"], control["word"], control["step"], control["lane"] = number, word, step, lane
    return control


