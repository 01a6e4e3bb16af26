"""The vector unit's FP32 arithmetic: IEEE 754, rounded to nearest even, without subnormals; and its sums, in order.

Operands below 2**-126 count as zeros of their sign, and so do results after rounding. There is no fused multiply-add. A NaN
result is the canonical one. docs/numerics.md is the contract.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from accel.golden.numeric import Float16s, Float32s, canonical, to_fp16

Operand: TypeAlias = Float32s | np.float32
Stored: TypeAlias = Float16s | Float32s
"""A tensor in DRAM."""

ZERO, ONE, TWO, HALF = (np.float32(value) for value in (0, 1, 2, 0.5))
SMALLEST_NORMAL = np.finfo(np.float32).smallest_normal

_ELEMS_AT_ONCE = 1 << 20


def constant(pattern: int) -> np.float32:
    """Return the FP32 number of a bit pattern."""
    return np.uint32(pattern).view(np.float32)


@np.errstate(invalid="ignore")
def flush(values: Operand) -> Float32s:
    """Return `values` with those below 2**-126 replaced by zeros of their sign."""
    return np.where(np.abs(values) < SMALLEST_NORMAL, np.copysign(ZERO, values), values)


@np.errstate(invalid="ignore")
def load(stored: Stored) -> Float32s:
    """Return a tensor as the vector unit sees it: FP16 exactly, FP32 without subnormals, NaN canonical."""
    return canonical(flush(stored.astype(np.float32)))


def store(values: Float32s, like: Stored) -> Any:
    """Return FP32 `values` in the format of `like`."""
    return to_fp16(values) if like.dtype == np.float16 else values


@np.errstate(all="ignore")
def add(left: Operand, right: Operand) -> Float32s:
    """Return left + right."""
    return flush(canonical(flush(left) + flush(right)))


@np.errstate(all="ignore")
def subtract(left: Operand, right: Operand) -> Float32s:
    """Return left - right."""
    return flush(canonical(flush(left) - flush(right)))


@np.errstate(all="ignore")
def multiply(left: Operand, right: Operand) -> Float32s:
    """Return left * right."""
    return flush(canonical(flush(left) * flush(right)))


@np.errstate(all="ignore")
def divide(left: Operand, right: Operand) -> Float32s:
    """Return left / right."""
    return flush(canonical(flush(left) / flush(right)))


@np.errstate(all="ignore")
def root(values: Operand) -> Float32s:
    """Return the square root; that of -0 is -0, that of a negative number NaN."""
    return canonical(np.sqrt(flush(values)))


def reciprocal_root(values: Operand) -> Float32s:
    """Return 1 / sqrt, rounded twice."""
    return divide(ONE, root(values))


def multiply_add(factor: Operand, other: Operand, summand: Operand) -> Float32s:
    """Return factor * other + summand, rounded twice."""
    return add(multiply(factor, other), summand)


def polynomial(at: Operand, coefficients: Sequence[np.float32]) -> Float32s:
    """Return a polynomial in Horner's form; `coefficients` start with that of the highest power."""
    total = np.broadcast_to(coefficients[0], np.shape(at)).astype(np.float32)
    for coefficient in coefficients[1:]:
        total = multiply_add(total, at, coefficient)
    return total


@np.errstate(invalid="ignore")
def larger(left: Operand, right: Operand) -> Float32s:
    """Return the larger of two; NaN if one of them is NaN, the left one of equals."""
    left, right = flush(left), flush(right)
    return canonical(np.where((left >= right) | np.isnan(left), left, right))


def sum_rows(values: Float32s) -> Float32s:
    """Return the sums along the first axis: from +0, row after row in ascending order, each addition rounded and flushed."""
    total = np.zeros(values.shape[1:], np.float32)
    rows_at_once = max(1, _ELEMS_AT_ONCE // max(1, total.size))
    for start in range(0, len(values), rows_at_once):
        total = _sum_onto(total, flush(values[start : start + rows_at_once]))
    return total


def sum_along(values: Float32s) -> Float32s:
    """Return the sums along the last axis: from +0, in ascending order, each addition rounded and flushed."""
    return sum_rows(np.moveaxis(values, -1, 0))


@np.errstate(all="ignore")
def _sum_onto(total: Float32s, rows: Float32s) -> Float32s:
    """Return `total` plus each of `rows`; NumPy's accumulate is that very sequence if no partial sum is to be flushed."""
    partial: NDArray[np.float32] = np.add.accumulate(np.concatenate([total[None], rows]), axis=0, dtype=np.float32)
    if not ((np.abs(partial) < SMALLEST_NORMAL) & (partial != 0)).any():
        return canonical(partial[-1])
    for row in rows:
        total = add(total, row)
    return total


def count(number: int) -> np.float32:
    """Return a number of elements as the divisor of a mean: rounded to FP32 above 2**24."""
    return np.float32(number)
