"""The matrix product of `accel.golden.gemm`, bit for bit, at the speed of the host.

Every output is its own sum from +0 in k order, rounded after each add; only different outputs are worked on at the same time.
A task computes a tile of them. It copies a strip of 64 outputs' worth of the operand whose elements lie side by side in the
vectors: columns of rhs for a dense product, rows of lhs, transposed, for an N:M one. The other operand's elements are taken one
by one, and each multiplies one row of the strip: element k row k, an entry of an N:M operand the row its index names. What was
pruned costs nothing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from accel.errors import ConfigError
from accel.golden.numeric import NAN_FP32, Float16s, Float32s, to_fp16
from accel.golden.prune import Entries
from accel.jit import kernel
from accel.kernels.vector import IS_WIDE, LANES, load, multiply_add, store
from accel.units import ceil_div

_WIDTH = 4 * LANES
_BATCH = 4
"""Rows of lhs that are worked on together; the kernels name them one by one."""
_DEPTH = 64
_NM_DEPTH = 128
"""Elements of k summed before the next outputs have their turn: so much of the strip stays in the first-level cache."""
_TILE = 1024
"""Outputs of a tile across the strip: their sums stay in the second-level cache."""
_SMALL_MACS = 2**22
"""Below this, starting threads takes longer than the work."""

_Scalar = TypeVar("_Scalar", bound=np.generic)
_Bits: TypeAlias = NDArray[np.uint16]
_Flags: TypeAlias = NDArray[np.bool_]
_Integers: TypeAlias = NDArray[np.int64]
_Rows: TypeAlias = NDArray[np.int32]
_Sums: TypeAlias = Any
"""Four vectors: as many sums as the strip is wide."""


def gemm(
    lhs: Float16s, rhs: Float16s, *, out_dtype: type[np.floating[Any]] = np.float32, threads: int | None = None
) -> Float32s | Float16s:
    """Return lhs (dim_m, dim_k) times rhs (dim_k, dim_n) with the bits of `accel.golden.gemm`, every element multiplied.

    `out_dtype` is float32, or float16 for sums rounded to nearest even. `threads` is 1 or more; None takes every CPU that this
    process may use, and one for a small product.
    """
    _check_matrix("lhs", lhs)
    _check_matrix("rhs", rhs)
    if len(rhs) != lhs.shape[1]:
        raise ConfigError(f"rhs must have {lhs.shape[1]} rows, as lhs has columns, not {len(rhs)}; transpose one of them")
    _check_options(out_dtype, threads)
    left, right, out = _padded(lhs), _fp32s(rhs), _empty(len(lhs), rhs.shape[1])

    def compute(column: int, row: int, rows: int) -> None:
        dense_tile(left, right, out, column, row, rows, IS_WIDE)

    _run_tiles(compute, rhs.shape[1], len(out), _thread_count(threads, lhs.size * rhs.shape[1]))
    return _finished(out[: len(lhs)], out_dtype)


def gemm_nm(
    lhs: Float16s, entries: Entries, *, out_dtype: type[np.floating[Any]] = np.float32, threads: int | None = None
) -> Float32s | Float16s:
    """Return lhs (dim_m, dim_k) times an N:M operand's entries, as `prune` makes them, with the bits of `accel.golden.gemm`.

    What was pruned meets no operand, and an entry with valid = 0 leaves the sum as it is. `out_dtype` and `threads` are those
    of `gemm`.
    """
    _check_matrix("lhs", lhs)
    _check_entries(entries, lhs.shape[1])
    _check_options(out_dtype, threads)
    values, rows = _pack(entries, lhs.shape[1])
    left, out = _padded(lhs), _empty(len(lhs), entries.dim_n)

    def compute(row: int, column: int, columns: int) -> None:
        nm_tile(left, values, rows, out, row, column, columns)

    _run_tiles(compute, len(out), entries.dim_n, _thread_count(threads, len(lhs) * entries.values.size))
    return _finished(out[: len(lhs)], out_dtype)


def _check_matrix(name: str, matrix: Float16s) -> None:
    if matrix.dtype != np.float16:
        raise ConfigError(f"{name} must be float16, not {matrix.dtype}; round it with accel.golden.numeric.to_fp16")
    if matrix.ndim != 2:
        raise ConfigError(f"{name} must have 2 dimensions, not {matrix.ndim}; reshape it")


def _check_entries(entries: Entries, dim_k: int) -> None:
    pattern, k_taps = entries.pattern, entries.k_taps
    if k_taps < 1:
        raise ConfigError(f"entries.k_taps must be at least 1, not {k_taps}; make entries with prune")
    if dim_k % k_taps:
        raise ConfigError(f"lhs must have a multiple of k_taps ({k_taps}) columns, not {dim_k}; prune rhs with the taps of lhs")
    shape = (k_taps * ceil_div(dim_k // k_taps, pattern.group), pattern.keep, entries.dim_n)
    for name, array in (("values", entries.values), ("index", entries.index), ("valid", entries.valid)):
        if array.shape != shape:
            remedy = f"prune an rhs of {dim_k} rows, as lhs has columns"
            raise ConfigError(f"entries.{name} must have shape {shape}, not {array.shape}; {remedy}")
    if entries.values.dtype != np.float16:
        raise ConfigError(f"entries.values must be float16, not {entries.values.dtype}; prune a float16 rhs")
    if entries.index.size and not 0 <= entries.index.min() <= entries.index.max() < pattern.group:
        found = f"{entries.index.min()} to {entries.index.max()}"
        raise ConfigError(f"entries.index must be from 0 to {pattern.group - 1}, not {found}; make entries with prune")


def _check_options(out_dtype: type[np.floating[Any]], threads: int | None) -> None:
    if np.dtype(out_dtype) not in (np.float32, np.float16):
        raise ConfigError(f"out_dtype must be float32 or float16, not {np.dtype(out_dtype)}")
    check_threads(threads)


def check_threads(threads: int | None) -> None:
    """Refuse a number of threads below 1."""
    if threads is not None and threads < 1:
        raise ConfigError(f"threads must be at least 1, not {threads!r}; leave it out for all CPUs")


def _thread_count(threads: int | None, macs: int) -> int:
    if threads is not None:
        return threads
    if macs < _SMALL_MACS:
        return 1
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _fp32s(matrix: Float16s) -> Float32s:
    """Return `matrix` as C-contiguous FP32; NumPy's own conversion is an order of magnitude slower."""
    values = np.empty(matrix.shape, np.float32)
    widen(np.ascontiguousarray(matrix).view(np.uint16).reshape(-1), values.reshape(-1))
    return values


def _padded(matrix: Float16s) -> Float32s:
    """Return `matrix` as FP32, followed by rows of zeros up to a multiple of 4."""
    values = _empty(*matrix.shape)
    widen(np.ascontiguousarray(matrix).view(np.uint16).reshape(-1), values.reshape(-1))
    values[len(matrix) :] = 0
    return values


def _empty(dim_m: int, dim_n: int) -> Float32s:
    return np.empty((ceil_div(dim_m, _BATCH) * _BATCH, dim_n), np.float32)


def _finished(out: Float32s, out_dtype: type[np.floating[Any]]) -> Float32s | Float16s:
    return to_fp16(out) if np.dtype(out_dtype) == np.float16 else out


def _run_tiles(compute: Callable[[int, int, int], None], wide: int, tall: int, threads: int) -> None:
    """Call `compute` with the first output along the strip, the first across it and how many across, until all are done."""
    strips = range(0, wide, _WIDTH)
    shares = ceil_div(threads, max(1, len(strips)))  # of a strip, so that no thread is without a tile
    tile = min(_TILE, max(_BATCH, ceil_div(ceil_div(tall, shares), _BATCH) * _BATCH))
    every = [(strip, first, min(tile, tall - first)) for strip in strips for first in range(0, tall, tile)]
    tasks = iter(every)
    helpers = min(threads, len(every)) - 1

    def work() -> None:
        for task in tasks:  # each thread takes the next one when it is done with its last
            compute(*task)

    if helpers < 1:
        return work()
    with ThreadPoolExecutor(helpers) as pool:
        others = [pool.submit(work) for _ in range(helpers)]
        work()
    for other in others:
        other.result()


def _pack(entries: Entries, dim_k: int) -> tuple[Float32s, _Rows]:
    """Return value and strip row of every entry, both (turns, dim_n, depth): the entries of a column in one turn side by side.

    What is not valid, and what fills up the last turn, is the value 0 on row dim_k of the strip, which is zeros. It adds +0,
    and a sum that started at +0 is never -0, so it stays as it is.
    """
    keep, group, k_inner = entries.pattern.keep, entries.pattern.group, dim_k // entries.k_taps
    depth = max(1, _NM_DEPTH * keep // group)
    tap, start = np.divmod(np.arange(0, entries.groups * group, group), ceil_div(k_inner, group) * group or 1)
    shape = (ceil_div(entries.groups * keep, depth), entries.dim_n, depth)
    values, rows = np.zeros(shape, np.float32), np.full(shape, dim_k, np.int32)
    pack_entries(
        _fp32s(_columns(entries.values)),
        _columns(entries.index).astype(np.int64, copy=False),
        _columns(entries.valid).astype(np.bool_, copy=False),
        np.repeat(tap * k_inner + start, keep),
        np.repeat(k_inner - start, keep),
        values,
        rows,
    )
    return values, rows


def _columns(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    """Return (groups, keep, dim_n) as C-contiguous (dim_n, steps): no copy is needed of what `prune` made."""
    return np.ascontiguousarray(np.moveaxis(array, 2, 0)).reshape(array.shape[2], array.shape[0] * array.shape[1])


@kernel
def pack_entries(
    entries: Float32s, index: _Integers, valid: _Flags, start: _Integers, elems: _Integers, values: Float32s, rows: _Rows
) -> None:
    """Fill in the valid entries; `start` is the strip row of the group of a step, `elems` how many elements the group has."""
    dim_n, steps = entries.shape
    depth = rows.shape[2]
    for column in range(dim_n):
        for turn in range(len(rows)):
            for step in range(turn * depth, min((turn + 1) * depth, steps)):
                if valid[column, step]:
                    values[turn, column, step - turn * depth] = entries[column, step]
                    if index[column, step] < elems[step]:
                        rows[turn, column, step - turn * depth] = start[step] + index[column, step]


@kernel
def dense_tile(
    lhs: Float32s, rhs: Float32s, out: Float32s, first_column: int, first_row: int, rows: int, is_wide: bool
) -> None:
    """Compute `rows` rows of out, a multiple of 4, from `first_row` on, one strip of columns."""
    dim_k = len(rhs)
    strip = _strip_of_columns(rhs, first_column)
    sums = _zeros(rows)
    for first in range(0, dim_k, _DEPTH):
        last = min(first + _DEPTH, dim_k)
        if is_wide:
            for row in range(0, rows, _BATCH):
                _add_four_rows(lhs, first_row + row, strip, first, last, sums, row)
        else:
            for row in range(rows):
                _add_row(lhs, first_row + row, strip, first, last, sums, row)
    for row in range(rows):
        for column in range(min(_WIDTH, out.shape[1] - first_column)):
            out[first_row + row, first_column + column] = _canonical(sums[row, column])


@kernel
def nm_tile(
    lhs: Float32s, values: Float32s, rows: _Rows, out: Float32s, first_row: int, first_column: int, columns: int
) -> None:
    """Compute `columns` columns of out from `first_column` on, one strip of rows."""
    strip = _strip_of_rows(lhs, first_row)
    sums = _zeros(columns)
    for turn in range(len(rows)):
        for column in range(columns):
            _add_entries(values, rows, turn, first_column + column, strip, sums, column)
    for row in range(0, min(_WIDTH, len(out) - first_row), _BATCH):
        for column in range(columns):
            out[first_row + row, first_column + column] = _canonical(sums[column, row])
            out[first_row + row + 1, first_column + column] = _canonical(sums[column, row + 1])
            out[first_row + row + 2, first_column + column] = _canonical(sums[column, row + 2])
            out[first_row + row + 3, first_column + column] = _canonical(sums[column, row + 3])


@kernel
def _add_row(lhs: Float32s, lhs_row: int, strip: Float32s, first: int, last: int, sums: Float32s, row: int) -> None:
    """Add the products of k from `first` to `last` to a row of sums."""
    total = _load(sums, row)
    for k in range(first, last):
        total = _multiply_add(strip, k, lhs[lhs_row, k], total)
    _store(sums, row, total)


@kernel
def _add_four_rows(lhs: Float32s, lhs_row: int, strip: Float32s, first: int, last: int, sums: Float32s, row: int) -> None:
    """Do so for four rows at once, which share what is loaded from the strip."""
    sum0, sum1, sum2, sum3 = _load(sums, row), _load(sums, row + 1), _load(sums, row + 2), _load(sums, row + 3)
    for k in range(first, last):
        sum0 = _multiply_add(strip, k, lhs[lhs_row, k], sum0)
        sum1 = _multiply_add(strip, k, lhs[lhs_row + 1, k], sum1)
        sum2 = _multiply_add(strip, k, lhs[lhs_row + 2, k], sum2)
        sum3 = _multiply_add(strip, k, lhs[lhs_row + 3, k], sum3)
    _store(sums, row, sum0)
    _store(sums, row + 1, sum1)
    _store(sums, row + 2, sum2)
    _store(sums, row + 3, sum3)


@kernel
def _add_entries(values: Float32s, rows: _Rows, turn: int, column: int, strip: Float32s, sums: Float32s, row: int) -> None:
    """Add the products of one column's entries to one row of sums."""
    total = _load(sums, row)
    for step in range(rows.shape[2]):
        total = _multiply_add(strip, rows[turn, column, step], values[turn, column, step], total)
    _store(sums, row, total)


@kernel
def _load(sums: Float32s, row: int) -> _Sums:
    return load(sums, row, 0), load(sums, row, LANES), load(sums, row, 2 * LANES), load(sums, row, 3 * LANES)


@kernel
def _store(sums: Float32s, row: int, total: _Sums) -> None:
    store(sums, row, 0, total[0])
    store(sums, row, LANES, total[1])
    store(sums, row, 2 * LANES, total[2])
    store(sums, row, 3 * LANES, total[3])


@kernel
def _multiply_add(strip: Float32s, row: int, scalar: np.float32, total: _Sums) -> _Sums:
    return (
        multiply_add(load(strip, row, 0), scalar, total[0]),
        multiply_add(load(strip, row, LANES), scalar, total[1]),
        multiply_add(load(strip, row, 2 * LANES), scalar, total[2]),
        multiply_add(load(strip, row, 3 * LANES), scalar, total[3]),
    )


@kernel
def _zeros(rows: int) -> Float32s:
    """Return FP32 zeros (rows, width) that start at a cache line, so that no vector lies in two."""
    elems = np.zeros(rows * _WIDTH + LANES, np.float32)
    start = -(elems.ctypes.data // 4) % LANES
    return elems[start : start + rows * _WIDTH].reshape(rows, _WIDTH)


@kernel
def _strip_of_columns(matrix: Float32s, first_column: int) -> Float32s:
    """Return columns of `matrix` (dim_k, dim_n) (dim_k, width): zeros beyond the last."""
    strip = _zeros(len(matrix))
    width = min(_WIDTH, matrix.shape[1] - first_column)
    for k in range(len(matrix)):
        for column in range(width):
            strip[k, column] = matrix[k, first_column + column]
    return strip


@kernel
def _strip_of_rows(matrix: Float32s, first_row: int) -> Float32s:
    """Return rows of `matrix` (dim_m, dim_k), transposed, (dim_k + 1, width): zeros beyond the last and in row dim_k."""
    dim_k = matrix.shape[1]
    strip = _zeros(dim_k + 1)
    for row in range(0, min(_WIDTH, len(matrix) - first_row), _BATCH):
        for k in range(dim_k):
            strip[k, row] = matrix[first_row + row, k]
            strip[k, row + 1] = matrix[first_row + row + 1, k]
            strip[k, row + 2] = matrix[first_row + row + 2, k]
            strip[k, row + 3] = matrix[first_row + row + 3, k]
    return strip


@kernel
def widen(bits: _Bits, values: Float32s) -> None:
    """Fill `values` with the FP16 numbers of `bits`."""
    for index in range(len(bits)):
        values[index] = _fp32(bits[index])


@kernel
def _fp32(bits: np.uint16) -> np.float32:
    """Return the FP16 number of these bits; no FP32 subnormal occurs, so a host that flushes them does no harm."""
    magnitude = np.uint32(bits & 0x7FFF)
    if magnitude < 0x400:
        value = np.float32(magnitude) * np.float32(2**-24)
    else:
        bias = 112 if magnitude < 0x7C00 else 224  # from exponent bias 15 to 127; infinity and NaN from exponent 31 to 255
        value = np.uint32((magnitude << 13) + (bias << 23)).view(np.float32)
    return -value if bits & 0x8000 else value


@kernel
def _canonical(value: np.float32) -> np.float32:
    return value if value == value else NAN_FP32
