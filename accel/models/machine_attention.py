"""Products of two computed tensors through the bit-true kernel, and attention made of them.

Scores leave the array as FP16. The softmax multiplies them by the scale in FP32 as it reads them, in the backward pass its
result before it is rounded; probabilities are FP16. Query heads that share a key head are rows of one product.
"""

from __future__ import annotations

from functools import partial
from math import prod, sqrt
from typing import Any

import numpy as np

from accel.errors import ConfigError
from accel.golden.numeric import Float16s
from accel.golden.vector.arithmetic import flush
from accel.golden.vector.losses import Mask, softmax, softmax_backward
from accel.kernels.gemm import gemm
from accel.models.machine_values import Operation


def matmul(threads: int | None) -> Operation:
    """Return the products of matrices (..., m, k) and (..., k, n)."""
    multiply_all = partial(_products, threads=threads)

    def backward(dy: Float16s, left: Float16s, right: Float16s) -> Any:
        return multiply_all(dy, _swapped(right)), multiply_all(_swapped(left), dy)

    return Operation(lambda left, right: (multiply_all(left, right), (left, right)), backward)


def attention(kept: Mask | None, factor: float | None, threads: int | None) -> Operation:
    """Return softmax(Q K^T factor) V of (batch, heads, tokens, features); `factor` None: 1 / sqrt(features).

    `kept` (queries, keys), or with batch and heads before, says which keys a query sees; None: all.
    """
    multiply_all = partial(_products, threads=threads)

    def forward(query: Float16s, key: Float16s, value: Float16s) -> Any:
        _check(query, key, value)
        heads, rows = query.shape[1], _grouped(query, key.shape[1])
        scores = _ungrouped(multiply_all(rows, _swapped(key)), heads)
        shares = softmax(scores, kept, _scale(query, factor))
        out = multiply_all(_grouped(shares, key.shape[1]), value)
        return _ungrouped(out, heads), (query, key, value, shares)

    def backward(dy: Float16s, query: Float16s, key: Float16s, value: Float16s, shares: Float16s) -> Any:
        heads, kv_heads = query.shape[1], key.shape[1]
        grad = _grouped(dy, kv_heads)
        grad_shares = _ungrouped(multiply_all(grad, _swapped(value)), heads)
        grad_value = multiply_all(_swapped(_grouped(shares, kv_heads)), grad)
        grad_scores = _grouped(softmax_backward(grad_shares, shares, kept, _scale(query, factor)), kv_heads)
        grad_query = _ungrouped(multiply_all(grad_scores, key), heads)
        return grad_query, multiply_all(_swapped(grad_scores), _grouped(query, kv_heads)), grad_value

    return Operation(forward, backward)


def _products(left: Float16s, right: Float16s, threads: int | None) -> Float16s:
    """Return left (..., m, k) times right (..., k, n) as FP16, matrix by matrix."""
    out = np.empty((*left.shape[:-1], right.shape[-1]), np.float16)
    for index in np.ndindex(left.shape[:-2]):
        out[index] = gemm(_contiguous(left[index]), _contiguous(right[index]), out_dtype=np.float16, threads=threads)
    return out


def _scale(query: Float16s, factor: float | None) -> Any:
    return flush(np.float32(1 / sqrt(query.shape[-1]) if factor is None else factor))


def _check(query: Float16s, key: Float16s, value: Float16s) -> None:
    shapes = query.shape, key.shape, value.shape
    if any(len(shape) != 4 for shape in shapes):
        raise ConfigError(
            f"query, key and value must have batch, heads, tokens and features, not shapes {shapes}; reshape them"
        )
    fits = len({shape[0] for shape in shapes}) == 1 and key.shape[:3] == value.shape[:3] and query.shape[3] == key.shape[3]
    if not fits or query.shape[1] % key.shape[1]:
        raise ConfigError(f"query, key and value must be of one batch and fit each other, not of shapes {shapes}")


def _grouped(x: Float16s, kv_heads: int) -> Float16s:
    """Return (batch, heads, tokens, features) with the heads that share a key head as rows of one matrix."""
    batch, heads, tokens, features = x.shape
    return x.reshape(batch, kv_heads, heads // kv_heads * tokens, features)


def _ungrouped(x: Float16s, heads: int) -> Float16s:
    batch, kv_heads, rows, features = x.shape
    return x.reshape(batch, heads, prod((kv_heads, rows)) // heads, features)


def _swapped(x: Float16s) -> Float16s:
    return np.swapaxes(x, -1, -2)


def _contiguous(matrix: Float16s) -> Float16s:
    return np.ascontiguousarray(matrix)
