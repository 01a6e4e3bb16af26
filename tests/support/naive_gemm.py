"""Matrix product with loops and Python floats: one output, one element of k at a time; FP16, or bit patterns of BF16."""

import math
import struct

import numpy as np


def gemm_naive(lhs, rhs, survives):
    """Return the FP32 bits of lhs (dim_m, dim_k) times the elements of rhs (dim_k, dim_n) that survive."""
    if lhs.dtype == np.uint16:
        return _sum_naive(_values_of_bf16(lhs), _values_of_bf16(rhs), survives, _flushed)
    return _sum_naive(lhs, rhs, survives, float)


def _sum_naive(lhs, rhs, survives, flushed):
    dim_m, dim_k = lhs.shape
    dim_n = rhs.shape[1]
    out = np.zeros((dim_m, dim_n), np.uint32)
    for row in range(dim_m):
        for col in range(dim_n):
            total = 0.0
            for k in range(dim_k):
                if survives[k, col]:
                    product = flushed(round_fp32(float(lhs[row, k]) * float(rhs[k, col])))
                    total = flushed(round_fp32(total + product))
            out[row, col] = 0x7FC00000 if math.isnan(total) else struct.unpack("<I", struct.pack("<f", total))[0]
    return out


def _values_of_bf16(patterns):
    values = [_flushed(struct.unpack("<f", struct.pack("<I", int(word) << 16))[0]) for word in patterns.ravel()]
    return np.array(values).reshape(patterns.shape)


def _flushed(value):
    return math.copysign(0.0, value) if abs(value) < 2.0**-126 else value


def round_fp32(value):
    """Return a Python float rounded to FP32, nearest even, overflow to infinity.

    A sum of two FP32 values rounded to 53 bits and then to 24 equals the sum rounded once: 53 >= 2 * 24 + 2.
    """
    if math.isnan(value):
        return math.nan
    try:
        return struct.unpack("<f", struct.pack("<f", value))[0]
    except OverflowError:
        return math.copysign(math.inf, value)


def fp16_bits(value):
    """Return the bits of a Python float rounded to FP16, nearest even, overflow to infinity, NaN canonical."""
    if math.isnan(value):
        return 0x7E00
    try:
        return struct.unpack("<H", struct.pack("<e", value))[0]
    except OverflowError:
        return 0x7C00 if value > 0 else 0xFC00
