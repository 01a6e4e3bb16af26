"""The array's fast twin: its registers stepped cycle by cycle, at the speed of compiled code.

It gives the bits, the cycles and the counters of the hardware, as `accel.golden.array` does: every clock cycle of every PE is
worked through as docs/timing.md section 1 describes it, no cycle count is computed, and the cycles of a run are read off its
last output word. It takes FP16 operands only: their products are exact in FP32 and sums are the host's, rounded to nearest
even, while those of BF16 would have to be flushed. What a NaN looks like matters only at the bottom, where it becomes the
canonical one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from accel.arch import Dataflow
from accel.counters import Counters
from accel.errors import ConfigError
from accel.golden.feed import PSUM_TURN_CYCLES, ArrayForm, RunShape
from accel.golden.numeric import Float16s, Float32s
from accel.golden.prune import Entries, split_groups
from accel.sim.twin_kernels import edges, stationary_north, stationary_outputs, walk
from accel.sim.twin_kernels.edges import Edges, Operands, Size
from accel.sim.twin_kernels.vector import LANES
from accel.sim.twin_kernels.walk import Walk
from accel.units import ceil_div

_Scalar = TypeVar("_Scalar", bound=np.generic)


class TwinRun(NamedTuple):
    """What came out of a run, when, and what was counted: an `accel.golden.array.ArrayRun` and more."""

    out: Float32s
    """(count, dim_m, dim_n)."""
    cycles: int
    counters: Counters
    """`stall_cycles` up to the last output word."""


def run_array(
    form: ArrayForm,
    lhs: Float16s,
    rhs: Sequence[Entries],
    dataflow: Dataflow,
    m_chunk: int = 1,
    enable: NDArray[np.bool_] | None = None,
) -> TwinRun:
    """Run products back to back with stationary outputs (OS) or a stationary north operand (WS).

    `lhs` is (count, dim_m, dim_k), `rhs` the entries of `count` operands of one shape and pattern, as in `accel.golden.array`;
    `m_chunk` is the output rows that stream over a WS tile, at least 1. In clock cycle t no register takes anything if
    `enable[t]` is False; beyond its end they always do. Raises `ConfigError` for operands that do not fit, with all reasons.
    """
    _check(form, lhs, rhs, dataflow, m_chunk)
    shape = RunShape.of(lhs, rhs)
    chunk = min(m_chunk, shape.dim_m)
    operands = _operands(form, shape, lhs, rhs)
    out = np.full((1, shape.count * shape.dim_m * shape.dim_n), edges.NOT_WRITTEN, np.uint32)
    clock = np.ones((1, 1), np.uint8) if enable is None else np.ascontiguousarray(enable, np.uint8).reshape(1, -1)
    size = _size(form, shape, dataflow, chunk, clock.shape[1])
    registers = _edges(size)
    with np.errstate(all="ignore"):  # where Numba is switched off
        if dataflow == "OS":
            status = stationary_outputs.run(size, _os_walk(form, shape), operands, registers, _os_grid(size), clock, out)
        else:
            walks = _ws_walks(form, shape, chunk)
            grid = _ws_grid(size, chunk)
            status = stationary_north.run(size, *walks, operands, registers, grid, clock, out)
    counters = Counters(*map(int, registers.counters[0]))
    assert status == edges.OK, edges.FAULTS[status]
    assert counters.out_words == out.size, edges.FAULTS[edges.OK]
    return TwinRun(out.view(np.float32).reshape(shape.count, shape.dim_m, shape.dim_n), counters.cycles, counters)


def _check(form: ArrayForm, lhs: Float16s, rhs: Sequence[Entries], dataflow: Dataflow, m_chunk: int) -> None:
    """Refuse operands that do not fit each other or the array, with all reasons."""
    problems = []
    if dataflow not in ("OS", "WS"):
        problems.append(f"dataflow must be OS or WS, not {dataflow}")
    if m_chunk < 1:
        problems.append(f"m_chunk must be at least 1, not {m_chunk}")
    if lhs.ndim != 3 or lhs.dtype != np.float16 or 0 in lhs.shape:
        problems.append(f"lhs must be float16 (count, dim_m, dim_k), each at least 1, not {lhs.dtype} {lhs.shape}")
    elif len(rhs) != len(lhs):
        problems.append(f"rhs must hold {len(lhs)} operands, as lhs does, not {len(rhs)}")
    elif any(side.values.dtype != np.float16 for side in rhs):
        problems.append(f"rhs must hold float16 values, not {', '.join(sorted({str(side.values.dtype) for side in rhs}))}")
    elif len({(side.values.shape, side.pattern, side.k_taps) for side in rhs}) > 1:
        problems.append("rhs must hold operands of one shape and pattern; run others in a run of their own")
    elif rhs[0].groups != rhs[0].k_taps * ceil_div(ceil_div(lhs.shape[2], rhs[0].k_taps), rhs[0].pattern.group):
        problems.append(
            f"rhs must have the groups of dim_k = {lhs.shape[2]}, not {rhs[0].groups}; prune a matrix of as many rows"
        )
    if problems:
        raise ConfigError("\n".join(problems))


def _operands(form: ArrayForm, shape: RunShape, lhs: Float16s, rhs: Sequence[Entries]) -> Operands:
    words = split_groups(lhs, rhs[0].k_taps, shape.group, fill=np.nan)
    values = np.stack([np.where(side.valid, side.values, np.float16(0)) for side in rhs])
    index = np.stack([np.where(side.valid, side.index, -1) for side in rhs])
    return Operands(
        words.reshape(-1, shape.group).astype(np.float32),
        _by_tile(form, values, 0).astype(np.float32),
        _by_tile(form, index, -1).astype(np.int32),
    )


def _by_tile(form: ArrayForm, entries: NDArray[_Scalar], fill: int) -> NDArray[_Scalar]:
    """Return (count, groups, keep, dim_n) in the order of `Operands.values`, as one row."""
    count, groups, keep, dim_n = entries.shape
    tiles = ceil_div(dim_n, form.tile_cols)
    padding = [(0, 0), (0, 0), (0, 0), (0, tiles * form.tile_cols - dim_n)]
    whole = np.pad(entries, padding, constant_values=fill).reshape(count, groups, keep, tiles, form.tile_cols)
    return np.moveaxis(whole, 3, 1).reshape(1, -1)


def _size(form: ArrayForm, shape: RunShape, dataflow: Dataflow, chunk: int, stall_clocks: int) -> Size:
    is_os = dataflow == "OS"
    row_delay = 1 if is_os else shape.keep * form.lanes
    vector_rows = ceil_div(form.rows, LANES) * LANES
    to_sum = form.multiplier_latency + form.lanes
    way_down = vector_rows + (ceil_div(form.rows, form.drain_lanes) + 1) * (form.lanes + form.drain_lanes) if is_os else 1
    line = to_sum + max(vector_rows, form.rows * row_delay) + form.cols + 2
    return Size(
        rows=form.rows,
        cols=form.cols,
        lanes=form.lanes,
        row_lanes=form.row_lanes,
        col_lanes=form.col_lanes,
        multiplier_latency=form.multiplier_latency,
        drain_lanes=form.drain_lanes,
        group=shape.group,
        keep=shape.keep,
        groups=shape.groups,
        dim_m=shape.dim_m,
        dim_n=shape.dim_n,
        tile_rows=form.tile_rows if is_os else chunk,
        row_delay=row_delay,
        word_stride=shape.groups if is_os else 1,
        vector_rows=vector_rows,
        pad=ceil_div(form.drain_lanes, LANES) * LANES,
        west_mask=_mask(max(form.cols, form.row_lanes + 1)),
        line_mask=_mask(line),
        entry_mask=_mask(vector_rows),
        record_mask=_mask(line + form.rows),
        result_mask=_mask(line + way_down + form.rows),
        stall_clocks=stall_clocks,
    )


def _mask(places: int) -> int:
    """Return the mask of a ring of at least so many places."""
    return (1 << (places - 1).bit_length()) - 1


def _edges(size: Size) -> Edges:
    west = np.zeros((size.record_mask + 1, edges.WEST_FIELDS), np.int64)
    west[:, [edges.WORD_ROWS, edges.PSUM]] = -1
    north = np.zeros((size.record_mask + 1, edges.NORTH_FIELDS), np.int64)
    north[:, edges.LOAD_ROW] = -1
    places, twice = size.west_mask + 1, 2 * (size.entry_mask + 1)
    index = _registers((size.cols, twice), np.int32)
    index[:] = -1
    slot = np.arange(size.keep * size.lanes)
    rows = np.arange(size.vector_rows, dtype=np.int32)[None]
    return Edges(
        places=np.zeros((2, walk.COUNTERS), np.int64),
        west=west,
        north=north,
        results=np.zeros((size.result_mask + 1, edges.RESULT_FIELDS), np.int64),
        slots=np.stack([slot // size.lanes, slot % size.row_lanes, slot % size.lanes // size.row_lanes]),
        lines=np.zeros((edges.LINES, 2 * (size.line_mask + 1)), np.int32),
        row_numbers=rows,
        row_delays=np.where(rows < size.rows, rows * np.int32(size.row_delay), np.int32(0)),
        words=_registers((places * size.vector_rows // LANES, size.group * LANES), np.float32),
        opens=_registers((places, size.vector_rows), np.int32),
        values=_registers((size.cols, twice), np.float32),
        index=index,
        counters=np.zeros((1, len(Counters._fields)), np.int64),
    )


def _os_grid(size: Size) -> stationary_outputs.Grid:
    depth, padded = size.lanes + size.drain_lanes, size.pad + size.vector_rows
    places = size.west_mask + 1
    return stationary_outputs.Grid(
        products=_registers((size.cols * size.multiplier_latency, size.vector_rows), np.float32),
        sums=_registers((size.cols * size.lanes, size.vector_rows), np.float32),
        captures=_registers((places, size.vector_rows), np.int32),
        chains=_registers((size.cols * depth, padded), np.float32),
        tags=_registers((depth, padded), np.int32),
        feet=np.zeros((places, size.drain_lanes), np.int32),
        collisions=_registers((1, size.vector_rows), np.int32),
    )


def _ws_grid(size: Size, chunk: int) -> stationary_north.Grid:
    held = size.keep * size.col_lanes * 2 * size.vector_rows
    partial_sums = ceil_div(chunk, size.row_lanes) * size.lanes if size.groups > size.rows else 1
    index = _registers((size.cols, held), np.int32)
    index[:] = -1
    return stationary_north.Grid(
        products=_registers((size.cols * size.multiplier_latency, size.vector_rows), np.float32),
        sums=_registers((size.cols * size.lanes, size.pad + size.vector_rows), np.float32),
        addresses=_registers((size.west_mask + 1, size.vector_rows), np.int32),
        common=np.full((1, size.west_mask + 1), -1, np.int32),
        values=_registers((size.cols, held), np.float32),
        index=index,
        loads_left=np.zeros((1, size.rows), np.int64),
        bottom=np.zeros((1, size.cols), np.float32),
        psum_read=np.zeros((1, size.cols), np.float32),
        psum=np.zeros((size.cols, partial_sums), np.float32),
        is_held=np.zeros((size.cols, partial_sums), np.uint8),
    )


def _registers(shape: tuple[int, int], dtype: type[np.float32 | np.int32]) -> NDArray[np.float32 | np.int32]:
    """Return zeros that start at a cache line, so that no aligned vector lies in two."""
    elems = np.zeros(shape[0] * shape[1] + LANES, dtype)
    start = -(elems.ctypes.data // elems.itemsize) % LANES
    return elems[start : start + shape[0] * shape[1]].reshape(shape)


def _os_walk(form: ArrayForm, shape: RunShape) -> Walk:
    """Return the walk of both feeders: rules 7 and 11."""
    m_tiles, last_rows = _tiles(shape.dim_m, form.tile_rows)

    def gap(rows: int) -> int:
        return form.lanes * max(0, ceil_div(min(form.rows, rows), form.drain_lanes) - shape.steps)

    return Walk(
        group_cycles=shape.keep * form.lanes,
        delay=0,
        products=shape.count,
        m_tiles=m_tiles,
        n_tiles=ceil_div(shape.dim_n, form.tile_cols),
        k_tiles=1,
        tokens_full=shape.groups,
        tokens_last=shape.groups,
        gap_full=gap(form.tile_rows),
        gap_last=gap(last_rows),
        is_gap_of_next=True,
    )


def _ws_walks(form: ArrayForm, shape: RunShape, chunk: int) -> tuple[Walk, Walk]:
    """Return the walks of the row feeders and of the column feeders, which load a tile before it starts: rules 13, 15, 17."""
    chunks, last_rows = _tiles(shape.dim_m, chunk)
    group_cycles, k_tiles = shape.keep * form.lanes, ceil_div(shape.groups, form.rows)
    full, last = ceil_div(chunk, form.row_lanes), ceil_div(last_rows, form.row_lanes)
    turn = PSUM_TURN_CYCLES if k_tiles > 1 else 0

    def gap(elements: int, tokens: int) -> int:
        return max(elements * group_cycles, form.rows * group_cycles + turn) - tokens * group_cycles

    def walk_of(delay: int, tokens_full: int, tokens_last: int) -> Walk:
        return Walk(
            group_cycles=group_cycles,
            delay=delay,
            products=shape.count,
            m_tiles=chunks,
            n_tiles=ceil_div(shape.dim_n, form.tile_cols),
            k_tiles=k_tiles,
            tokens_full=tokens_full,
            tokens_last=tokens_last,
            gap_full=gap(full, tokens_full),
            gap_last=gap(last, tokens_last),
            is_gap_of_next=False,
        )

    load_cycles = shape.keep * form.col_lanes + form.rows - 1
    return walk_of(load_cycles, full, last), walk_of(0, form.rows, form.rows)


def _tiles(size: int, tile: int) -> tuple[int, int]:
    """Return how many tiles cover `size`, and what the last one holds."""
    return ceil_div(size, tile), (size - 1) % tile + 1
