"""What the streams of an array carry in a run: the words it takes, in the order it takes them, and the words it must give."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accel.errors import ConfigError
from accel.golden.feed import ArrayForm, RunShape, Tile, os_tiles, ws_tiles
from accel.golden.gemm import gemm
from accel.golden.numeric import ANY_NAN, Operands, arithmetic_of, bits
from accel.golden.prune import Entries, split_groups
from accel.rtl.command import Run
from accel.rtl.parameters import ArrayParameters

Bits = NDArray[np.uint16]


@dataclass(frozen=True)
class Stimulus:
    """The streams of one run."""

    west: list[Bits]
    """For each PE row (words, group)."""
    north: list[NDArray[np.uint32]]
    """For each PE column (entries, 3): value, index, valid."""
    out: list[NDArray[np.uint32]]
    """For each `o_out` the words: FP32, or 16 bits of a rounded result."""

    macs: int
    """Valid entries times the output rows they meet."""

    @property
    def counters(self) -> dict[str, int]:
        """Return what the counters of the array must show after the run, except those of time."""
        return {
            "macs": self.macs,
            "west_words": sum(map(len, self.west)),
            "north_entries": sum(map(len, self.north)),
            "out_words": sum(map(len, self.out)),
        }


def array_form(parameters: ArrayParameters, row_lanes: int) -> ArrayForm:
    """Return the array in one of its interleave forms, as the reference models know it."""
    return ArrayForm(
        parameters.rows,
        parameters.cols,
        parameters.adder_latency,
        row_lanes,
        parameters.multiplier_latency,
        parameters.drain_lanes,
    )


def stimulus(parameters: ArrayParameters, run: Run, lhs: Operands, rhs: Sequence[Entries]) -> Stimulus:
    """Return the streams of `run` on operands of the array's format, as `accel.golden.array.run_os` takes them."""
    arithmetic, built = arithmetic_of(lhs, *(side.values for side in rhs)), parameters.operand_format.name
    if arithmetic.name != built:
        raise ConfigError(f"operands must be {built}, as the array is built, not {arithmetic.name}")
    form, shape = array_form(parameters, run.row_lanes), RunShape.of(lhs, rhs)
    words = bits(split_groups(lhs, rhs[0].k_taps, shape.group))
    padding = parameters.group - shape.group
    words = np.pad(words, [(0, 0), (0, 0), (0, 0), (0, padding)], constant_values=ANY_NAN)  # where nothing may look
    entries = np.stack([np.stack([bits(side.values), side.index, side.valid], axis=-1) for side in rhs]).astype(np.uint32)
    out = np.stack([gemm(left, right) for left, right in zip(lhs, rhs, strict=True)])
    results = bits(arithmetic.rounded(out) if run.is_rounded else out).astype(np.uint32)
    streams = _Streams(form, words, entries, results)
    if run.dataflow == "OS":
        for tile in os_tiles(form, shape):
            streams.add_os(tile)
    else:
        for tile in ws_tiles(form, shape, run.m_chunk):
            streams.add_ws(tile)
    return streams.joined(macs=run.dim_m * sum(int(side.valid.sum()) for side in rhs))


class _Streams:
    """The streams as they grow tile by tile."""

    def __init__(self, form: ArrayForm, words: Bits, entries: NDArray[np.uint32], results: NDArray[np.uint32]) -> None:
        self.form = form
        self.words = words
        """(count, dim_m, groups, group)."""
        self.entries = entries
        """(count, groups, keep, dim_n, 3)."""
        self.results = results
        """(count, dim_m, dim_n)."""
        self.west: list[list[Bits]] = [[] for _ in range(form.rows)]
        self.north: list[list[NDArray[np.uint32]]] = [[] for _ in range(form.cols)]
        self.out: list[list[NDArray[np.uint32]]] = [[] for _ in range(form.cols * form.drain_lanes)]

    def add_os(self, tile: Tile) -> None:
        """Words group by group and lane by lane, entries likewise, results from the bottom row up."""
        form = self.form
        rows = [_inside(tile.row_base, tile.rows, row + np.arange(form.row_lanes) * form.rows) for row in range(form.rows)]
        cols = [_inside(tile.col_base, tile.cols, col + np.arange(form.col_lanes) * form.cols) for col in range(form.cols)]
        for row, outputs in enumerate(rows):
            self.west[row].append(self.words[tile.product, outputs].swapaxes(0, 1).reshape(-1, self.words.shape[-1]))
        for col, outputs in enumerate(cols):
            self.north[col].append(self.entries[tile.product][:, :, outputs].reshape(-1, 3))
        for row in reversed(range(form.rows)):
            chain = (row - (form.rows - 1)) % form.drain_lanes  # counted from the chain of the bottom row
            for col in range(form.cols):
                self._add_results(tile, rows[row], cols[col], col * form.drain_lanes + chain)

    def add_ws(self, tile: Tile) -> None:
        """Entries row by row of the array, words and results along the chunk."""
        form = self.form
        outputs = tile.row_base + np.arange(tile.rows)
        groups = range(tile.first_group, min(tile.first_group + form.rows, self.words.shape[2]))
        for row, group in enumerate(groups):
            self.west[row].append(self.words[tile.product, outputs, group])
        for col in range(form.cols):
            cols = _inside(tile.col_base, tile.cols, col + np.arange(form.col_lanes) * form.cols)
            self.north[col].append(self.entries[tile.product, groups][:, :, cols].reshape(-1, 3))
            for first in range(0, tile.rows if tile.is_last_k else 0, form.row_lanes):
                self._add_results(tile, outputs[first : first + form.row_lanes], cols, col * form.drain_lanes)

    def _add_results(self, tile: Tile, rows: NDArray[np.int64], cols: NDArray[np.int64], stream: int) -> None:
        self.out[stream].append(self.results[tile.product][np.ix_(rows, cols)].T.ravel())

    def joined(self, macs: int) -> Stimulus:
        """Return the streams as they are now."""
        return Stimulus(
            [np.concatenate([np.zeros((0, self.words.shape[-1]), np.uint16), *blocks]) for blocks in self.west],
            [np.concatenate([np.zeros((0, 3), np.uint32), *blocks]) for blocks in self.north],
            [np.concatenate([np.zeros(0, np.uint32), *blocks]) for blocks in self.out],
            macs,
        )


def _inside(base: int, size: int, offsets: NDArray[np.int64]) -> NDArray[np.int64]:
    return base + offsets[offsets < size]
