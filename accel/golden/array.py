"""The PE array, register by register and cycle by cycle: the words it is fed, the values it returns, the cycles it takes.

A step of the loop is one clock cycle of every PE at once. `accel.golden.feed` presents words at the west and north edges; from
there on everything is registers, as docs/timing.md section 1 describes them. Nothing here computes a cycle count: it is read
off the last output word. Whatever the contract promises cannot collide is asserted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.golden.feed import NO_CONTROL, NO_ENTRY, ArrayForm, Feed, Records, RunShape, Tile, feed_os, feed_ws
from accel.golden.numeric import ANY_NAN, FP16_ARITHMETIC, Arithmetic, Float32s, Operands, arithmetic_of
from accel.golden.prune import Entries
from accel.units import ceil_div


class ArrayRun(NamedTuple):
    """What came out of a run and when."""

    out: Float32s
    """(count, dim_m, dim_n)."""
    cycles: int
    """From the first operand at a port to the last output word visible at the bottom, both included."""


class _Array(ABC):
    """The registers that both dataflows use; `cycle` advances them by one clock."""

    def __init__(self, form: ArrayForm, group: int, arithmetic: Arithmetic) -> None:
        self.form = form
        self.arithmetic = arithmetic
        shape = (form.rows, form.cols)
        self.at_row, self.at_col = np.indices(shape)
        self.words = np.full((*shape, group), ANY_NAN).view(arithmetic.dtype)
        self.control = np.full(shape, NO_CONTROL)
        self.entries = np.full(shape, NO_ENTRY)
        self.held_words = np.full((*shape, form.row_lanes, group), ANY_NAN).view(arithmetic.dtype)
        idle = (self.control, np.zeros(shape, np.float32), np.zeros(shape, np.bool_))
        self.multiplier = deque([idle] * form.multiplier_latency, form.multiplier_latency)
        self.adder = deque([idle[:2]] * form.lanes, form.lanes)

    def cycle(self, words: Operands, control: Records, entries: Records) -> tuple[NDArray[np.int64], Float32s]:
        """Return the tags (-1: none) and values visible at the bottom (chain, column), then step every register."""
        self.words = _shift(self.words, words, axis=1)
        self.control = _shift(self.control, control, axis=1)
        self.entries = _shift(self.entries, entries, axis=0)
        visible = self.bottom()
        product = self._multiply()
        summand_control, summand, is_valid = self.multiplier[-1]
        sum_control, sums = self.adder[-1]
        start = np.where(summand_control["first"], self.sums_from_outside(sums), sums)
        total = np.where(is_valid, self.arithmetic.add(start, summand), start)
        self.collect(sum_control, sums)
        self.multiplier.appendleft(product)
        self.adder.appendleft((summand_control, total))
        return visible

    def is_busy(self) -> bool:
        """Whether something is still under way in any register."""
        stages = [self.control, *(stage[0] for stage in self.multiplier), *(stage[0] for stage in self.adder)]
        return any((control["tile"] >= 0).any() for control in stages) or self.holds_results()

    def _multiply(self) -> tuple[Records, Float32s, NDArray[np.bool_]]:
        """Hold the arriving words, then multiply what the entry of this cycle selects."""
        control = self.control
        is_active = control["tile"] >= 0
        arrives = is_active & (control["step"] == 0) & (control["lane"] < self.form.row_lanes)
        self.held_words[arrives, control["lane"][arrives]] = self.words[arrives]
        entry = self.entry_in_use()
        element = self.held_words[self.at_row, self.at_col, control["lane"] % self.form.row_lanes, entry["index"]]
        product = self.arithmetic.multiply(element, entry["value"].view(element.dtype))
        return control, product, is_active & entry["valid"]

    @abstractmethod
    def entry_in_use(self) -> Records:
        """Take in the arriving entries; return the entry (rows, cols) that each PE multiplies with in this cycle."""

    @abstractmethod
    def sums_from_outside(self, sums: Float32s) -> Float32s:
        """Return the sums (rows, cols) that first steps start from; `sums` are visible at the adders' outputs."""

    @abstractmethod
    def bottom(self) -> tuple[NDArray[np.int64], Float32s]:
        """Return tags and values visible at the bottom in this cycle."""

    @abstractmethod
    def collect(self, control: Records, sums: Float32s) -> None:
        """Step the registers behind the adders, which show `sums` in this cycle."""

    @abstractmethod
    def holds_results(self) -> bool:
        """Whether a register behind the adders still holds a result."""


class _OsArray(_Array):
    """Sums stay and leave by drain chains that shift south in every cycle.

    Chain d serves the rows r with r % drain_lanes = d: such a row has lanes + 1 of its registers, the others one. A finished
    sum enters the first register of its row; in all other cycles that register takes the word from the row above.
    """

    def __init__(self, form: ArrayForm, run: RunShape, arithmetic: Arithmetic = FP16_ARITHMETIC) -> None:
        super().__init__(form, run.group, arithmetic)
        shape = (form.rows, form.cols)
        self.held_entries = np.full(shape, NO_ENTRY)
        self.row_chains = [_RowChains(form, row) for row in range(form.rows)]

    def entry_in_use(self) -> Records:
        arrived = self.entries["tile"] >= 0
        self.held_entries[arrived] = self.entries[arrived]
        return self.held_entries

    def sums_from_outside(self, sums: Float32s) -> Float32s:
        return np.zeros_like(sums)

    def bottom(self) -> tuple[NDArray[np.int64], Float32s]:
        return self.row_chains[-1].output()

    def collect(self, control: Records, sums: Float32s) -> None:
        tags = np.where(control["last"], _tag(control, self.form.rows, self.form.lanes), -1)
        for row in reversed(range(self.form.rows)):  # from the bottom up: each row takes what the row above showed
            self.row_chains[row].shift(self.row_chains[row - 1].output() if row else None, tags[row], sums[row])

    def holds_results(self) -> bool:
        return any(chains.holds_results() for chains in self.row_chains)


class _RowChains:
    """The registers of one PE row in all drain chains, (drain_lanes, cols) wide."""

    def __init__(self, form: ArrayForm, row: int) -> None:
        shape = (form.drain_lanes, form.cols)
        self.own = row % form.drain_lanes
        self.passing = (np.full(shape, -1), np.zeros(shape, np.float32))
        empty = (np.full(form.cols, -1), np.zeros(form.cols, np.float32))
        self.queue = deque([empty] * (form.lanes + 1), form.lanes + 1)

    def output(self) -> tuple[NDArray[np.int64], Float32s]:
        """Return tags and values that the row below sees, (chain, column)."""
        tags, values = self.passing[0].copy(), self.passing[1].copy()
        tags[self.own], values[self.own] = self.queue[-1]
        return tags, values

    def shift(self, above: tuple[NDArray[np.int64], Float32s] | None, tags: NDArray[np.int64], sums: Float32s) -> None:
        """Step: take the sums that finish (`tags` 0 or more), else what the row above shows."""
        if above is None:
            above = (np.full_like(self.passing[0], -1), np.zeros_like(self.passing[1]))
        finishes = tags >= 0
        assert (above[0][self.own][finishes] < 0).all(), "a sum finished while another one came down its chain"
        self.queue.appendleft((np.where(finishes, tags, above[0][self.own]), np.where(finishes, sums, above[1][self.own])))
        self.passing = above

    def holds_results(self) -> bool:
        """Whether a register holds a result."""
        chain = np.delete(self.passing[0], self.own, axis=0)
        return bool((chain >= 0).any() or any((tags >= 0).any() for tags, _ in self.queue))


class _WsArray(_Array):
    """Entries stay, twice: a bank in use and its shadow. Sums pass south, each row starting from the row above."""

    def __init__(self, form: ArrayForm, run: RunShape, chunk_words: int, tiles: Sequence[Tile], arithmetic: Arithmetic) -> None:
        super().__init__(form, run.group, arithmetic)
        self.is_first_k = np.array([tile.is_first_k for tile in tiles])
        self.is_last_k = np.array([tile.is_last_k for tile in tiles])
        self.chunk_words = chunk_words
        self.banks = np.full((2, form.rows, form.cols, run.keep * form.col_lanes), NO_ENTRY)
        self.tile_in_use = np.full((form.rows, form.cols), -1)
        self.bottom_control = np.full(form.cols, NO_CONTROL)
        self.bottom_sums = np.zeros(form.cols, np.float32)
        self.buffer = np.zeros((chunk_words, form.lanes, form.cols), np.float32)
        self.buffer_tile = np.full((chunk_words, form.lanes, form.cols), -1)
        self.buffer_read = np.zeros(form.cols, np.float32)

    def entry_in_use(self) -> Records:
        tile = self.control["tile"]
        row, col = np.nonzero((tile >= 0) & (tile != self.tile_in_use))
        self._swap(row, col, tile[row, col])
        slot = self.control["step"] * self.form.col_lanes + self.control["lane"] // self.form.row_lanes
        entry: Records = self.banks[tile % 2, self.at_row, self.at_col, slot]
        self._load_shadow()
        return entry

    def _swap(self, row: NDArray[np.int64], col: NDArray[np.int64], tile: NDArray[np.int64]) -> None:
        assert (tile == self.tile_in_use[row, col] + 1).all(), "a tile was left out"
        assert (self.banks["tile"][tile % 2, row, col] == tile[:, None]).all(), "swapped before loaded"
        self.tile_in_use[row, col] = tile

    def _load_shadow(self) -> None:
        """Store the entries that have reached their row: visible in the shadow from the next cycle on."""
        row, col = np.nonzero((self.entries["tile"] >= 0) & (self.entries["row"] == self.at_row))
        entry = self.entries[row, col]
        assert (entry["tile"] <= self.tile_in_use[row, col] + 1).all(), "loaded over a shadow not yet swapped"
        self.banks[entry["tile"] % 2, row, col, entry["slot"]] = entry

    def sums_from_outside(self, sums: Float32s) -> Float32s:
        return _shift(sums, self.buffer_read, axis=0)

    def bottom(self) -> tuple[NDArray[np.int64], Float32s]:
        control = self.bottom_control
        is_output = (control["tile"] >= 0) & self.is_last_k[control["tile"]]
        return np.where(is_output, _tag(control, self.chunk_words, self.form.lanes), -1)[None], self.bottom_sums[None]

    def collect(self, control: Records, sums: Float32s) -> None:
        self._read_buffer()
        self._write_buffer()
        self.bottom_control = np.where(control[-1]["last"], control[-1], NO_CONTROL)
        self.bottom_sums = sums[-1]

    def _read_buffer(self) -> None:
        """Read the partial sums that row 0 starts from in the next cycle; the first k tile starts from +0."""
        arriving = [self.control, *(stage[0] for stage in self.multiplier)][self.form.multiplier_latency - 1][0]
        again = arriving["first"] & ~self.is_first_k[arriving["tile"]]
        at = (arriving["word"][again], arriving["lane"][again], np.flatnonzero(again))
        assert (self.buffer_tile[at] == arriving["tile"][again] - 1).all(), "partial sum read before written"
        self.buffer_read = np.zeros(self.form.cols, np.float32)
        self.buffer_read[again] = self.buffer[at]
        self.buffer_tile[at] = -1

    def _write_buffer(self) -> None:
        control = self.bottom_control
        partial = (control["tile"] >= 0) & ~self.is_last_k[control["tile"]]
        at = (control["word"][partial], control["lane"][partial], np.flatnonzero(partial))
        assert (self.buffer_tile[at] < 0).all(), "partial sum written over one not yet read"
        self.buffer[at] = self.bottom_sums[partial]
        self.buffer_tile[at] = control["tile"][partial]

    def holds_results(self) -> bool:
        return bool((self.bottom_control["tile"] >= 0).any())


def run_os(form: ArrayForm, lhs: Operands, rhs: Sequence[Entries]) -> ArrayRun:
    """Run products back to back with stationary outputs.

    `lhs` is (count, dim_m, dim_k), `rhs` the entries of `count` operands of one shape and pattern; both are FP16, or both BF16.
    """
    arithmetic = arithmetic_of(lhs, *(side.values for side in rhs))
    feed = feed_os(form, lhs, rhs)
    tile_rows = np.arange(form.row_lanes) * form.rows + np.arange(form.rows)[:, None]
    return _outputs(feed, tile_rows, _clock(_OsArray(form, feed.shape, arithmetic), feed))


def run_ws(form: ArrayForm, lhs: Operands, rhs: Sequence[Entries], m_chunk: int) -> ArrayRun:
    """Run products back to back with the north operand stationary, m in chunks of `m_chunk` rows (at least 1).

    `lhs` and `rhs` as in `run_os`.
    """
    arithmetic = arithmetic_of(lhs, *(side.values for side in rhs))
    feed = feed_ws(form, lhs, rhs, m_chunk)
    chunk_words = ceil_div(min(m_chunk, feed.shape.dim_m), form.row_lanes)
    tile_rows = np.arange(form.row_lanes) + np.arange(chunk_words)[:, None] * form.row_lanes
    array = _WsArray(form, feed.shape, chunk_words, feed.tiles, arithmetic)
    return _outputs(feed, tile_rows, _clock(array, feed))


def lanes_at_work(form: ArrayForm, lhs: Operands, rhs: Sequence[Entries]) -> NDArray[np.int64]:
    """Return the lane for which each PE multiplies in each cycle of `run_os`, (cycles, rows, cols); -1: for none.

    A PE multiplies for none while no operand is at its ports, for an entry that is not there, and for a lane whose output lies
    beyond the matrix.
    """
    feed = feed_os(form, lhs, rhs)
    array = _OsArray(form, feed.shape, arithmetic_of(lhs, *(side.values for side in rhs)))
    used_rows = np.array([tile.rows for tile in feed.tiles])
    seen = []
    for _ in _cycles(array, feed):
        tile, lane = array.control["tile"], array.control["lane"].astype(np.int64)
        is_inside = lane % form.row_lanes * form.rows + array.at_row < used_rows[tile]
        seen.append(np.where((tile >= 0) & is_inside & array.held_entries["valid"], lane, -1))
    return np.stack(seen)


def _clock(array: _Array, feed: Feed) -> tuple[NDArray[np.int64], Float32s]:
    """Run to the end; return all tags and values seen at the bottom, (cycles, chain, column)."""
    tags, values = zip(*_cycles(array, feed), strict=True)
    return np.stack(tags), np.stack(values)


def _cycles(array: _Array, feed: Feed) -> Iterator[tuple[NDArray[np.int64], Float32s]]:
    """Step the array until the edges are quiet and nothing is under way; yield what each cycle shows at the bottom."""
    quiet = Feed.quiet(feed.form, feed.shape, [], 1, feed.words.dtype)
    for words, control, entries in zip(feed.words, feed.control, feed.entries, strict=True):
        yield array.cycle(words, control, entries)
    while array.is_busy():
        yield array.cycle(quiet.words[0], quiet.control[0], quiet.entries[0])


def _outputs(feed: Feed, tile_rows: NDArray[np.int64], log: tuple[NDArray[np.int64], Float32s]) -> ArrayRun:
    """Put every word seen at the bottom in its place; `tile_rows` (words, row_lanes) says which output row of a tile it is."""
    tags, values = log
    form, shape = feed.form, feed.shape
    cycle, chain, col = np.nonzero(tags >= 0)
    tag = tags[cycle, chain, col]
    lane, word, number = tag % form.lanes, tag // form.lanes % len(tile_rows), tag // form.lanes // len(tile_rows)
    tiles = np.array([(tile.product, tile.row_base, tile.rows, tile.col_base, tile.cols) for tile in feed.tiles])
    product, row_base, rows, col_base, cols = tiles[number].T
    row = tile_rows[word, lane % form.row_lanes]
    column = lane // form.row_lanes * form.cols + col
    is_real = (row < rows) & (column < cols)
    place = (product[is_real], (row_base + row)[is_real], (col_base + column)[is_real])
    times_seen = np.zeros((shape.count, shape.dim_m, shape.dim_n), np.int64)
    np.add.at(times_seen, place, 1)
    assert (times_seen == 1).all(), "an output missing or twice"
    out = np.zeros(times_seen.shape, np.float32)
    out[place] = values[cycle, chain, col][is_real]
    return ArrayRun(out, int(cycle[col < cols].max()) + 1)


def _tag(control: Records, words: int, lanes: int) -> NDArray[np.int64]:
    """Return one number that names an output word: its tile, its word, its lane."""
    tag: NDArray[np.int64] = (control["tile"].astype(np.int64) * words + control["word"]) * lanes + control["lane"]
    return tag


def _shift(registers: NDArray[Any], edge: Any, axis: int) -> NDArray[Any]:
    """Return what `registers` show a cycle later when each hands on to the next along `axis` and the first takes `edge`."""
    result = np.empty_like(registers)
    ahead, behind = result.swapaxes(0, axis), registers.swapaxes(0, axis)
    ahead[1:] = behind[:-1]
    ahead[0] = edge
    return result
