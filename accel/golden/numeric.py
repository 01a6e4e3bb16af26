"""Floating point as the hardware does it: FP16 operands, exact FP32 products, FP32 sums rounded to nearest even.

Overflow gives infinity, subnormals are kept, and a NaN result is always the one canonical NaN, whatever the operands carried.

BF16 operands, as bit patterns, differ in one thing: numbers below 2^-126, operands, products, sums and results alike, are zeros
with their sign. That loses no rounding: products and sums so small are exact in FP32 or far below 2^-126. But a sum can be -0,
which one of FP16 products that starts from +0 never is.

What works on operands of both formats tells them apart by their dtype: float16, or uint16 for patterns of BF16.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.errors import ConfigError

Float16s = NDArray[np.float16]
BFloat16s = NDArray[np.uint16]
"""Bit patterns."""
Operands = Float16s | BFloat16s
"""Of a product: FP16 numbers or BF16 patterns."""
Float32s = NDArray[np.float32]

NAN_FP32 = np.uint32(0x7FC00000).view(np.float32)
NAN_FP16 = np.uint16(0x7E00).view(np.float16)
NAN_BF16 = np.uint16(0x7FC0)
ANY_NAN = np.uint16(0xFFFF)
"""The bits of a NaN in FP16 and in BF16."""


def bits(values: NDArray[Any]) -> NDArray[np.unsignedinteger[Any]]:
    """Return the bit patterns of FP16, BF16 or FP32 `values` as unsigned integers of the same width and shape."""
    return values.view(f"u{values.dtype.itemsize}")


def canonical(values: Float32s) -> Float32s:
    """Return `values` with every NaN replaced by the canonical one, 0x7FC00000."""
    return np.where(np.isnan(values), NAN_FP32, values)


@np.errstate(invalid="ignore")
def multiply(left: Float16s, right: Float16s) -> Float32s:
    """Return the FP32 products of two FP16 arrays of one shape: exact, and never an FP32 subnormal."""
    return canonical(left.astype(np.float32) * right.astype(np.float32))


@np.errstate(invalid="ignore", over="ignore")
def add(left: Float32s, right: Float32s) -> Float32s:
    """Return the FP32 sums of two FP32 arrays of one shape, rounded to nearest even."""
    return canonical(left + right)


@np.errstate(over="ignore", under="ignore")
def to_fp16(values: Float32s) -> Float16s:
    """Return FP32 `values` rounded to nearest even FP16: subnormals kept, overflow to infinity, NaN to 0x7E00."""
    return np.where(np.isnan(values), NAN_FP16, values.astype(np.float16))


def from_bf16(patterns: BFloat16s) -> Float32s:
    """Return the values of BF16 bit patterns, subnormals as zeros with their sign."""
    return _flush((patterns.astype(np.uint32) << 16).view(np.float32))


@np.errstate(invalid="ignore", over="ignore", under="ignore")
def multiply_bf16(left: BFloat16s, right: BFloat16s) -> Float32s:
    """Return the FP32 products of two arrays of BF16 patterns of one shape: exact, or infinity, or a flushed zero."""
    return _flush(canonical(from_bf16(left) * from_bf16(right)))


def add_bf16(left: Float32s, right: Float32s) -> Float32s:
    """Return the FP32 sums of two FP32 arrays of one shape, rounded to nearest even, then flushed."""
    return _flush(add(left, right))


def to_bf16(values: Float32s) -> BFloat16s:
    """Return FP32 `values` rounded to nearest even BF16: subnormals flushed, overflow to infinity, NaN to 0x7FC0."""
    patterns = _flush(values).view(np.uint32)
    rounded = patterns + np.uint32(0x7FFF) + (patterns >> 16 & 1)
    return np.where(np.isnan(values), NAN_BF16, rounded >> 16).astype(np.uint16)


class Arithmetic(NamedTuple):
    """How operands of one format are multiplied, and the products summed."""

    name: str
    """Of the format, as in `accel.rtl.floats`."""
    dtype: np.dtype[Any]
    """Of operands."""
    multiply: Callable[[Any, Any], Float32s]
    add: Callable[[Float32s, Float32s], Float32s]
    rounded: Callable[[Float32s], Any]
    """From sums to results that are operands again."""


FP16_ARITHMETIC = Arithmetic("fp16", np.dtype(np.float16), multiply, add, to_fp16)
BF16_ARITHMETIC = Arithmetic("bf16", np.dtype(np.uint16), multiply_bf16, add_bf16, to_bf16)


def arithmetic_of(*operands: Operands) -> Arithmetic:
    """Return the arithmetic of operands of one format, or refuse those of several."""
    dtypes = {side.dtype for side in operands}
    for arithmetic in (FP16_ARITHMETIC, BF16_ARITHMETIC):
        if dtypes == {arithmetic.dtype}:
            return arithmetic
    found = " and ".join(sorted(map(str, dtypes)))
    raise ConfigError(f"operands must all be float16, or all uint16 (patterns of BF16), not {found}; round them alike")


def _flush(values: Float32s) -> Float32s:
    """Return `values` with those below 2**-126 replaced by zeros of their sign."""
    return np.where(np.abs(values) < np.finfo(np.float32).smallest_normal, np.copysign(np.float32(0), values), values)
