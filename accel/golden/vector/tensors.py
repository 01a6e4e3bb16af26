"""Operators that combine, scale, add up and look up tensors; a gradient has the format of the tensor it belongs to."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.golden.numeric import Float16s, Float32s, to_fp16
from accel.golden.vector.arithmetic import Stored, count, divide, flush, load, multiply, store, sum_rows
from accel.golden.vector.arithmetic import add as add_fp32


def add(left: Stored, right: Stored) -> Float16s:
    """Return left + right, broadcast; the gradient of each is dy, or `sum_to` of dy where it was broadcast."""
    return to_fp16(add_fp32(load(left), load(right)))


def add_gradients(first: Float16s, *others: Float16s) -> Float16s:
    """Return the gradient of a tensor that several operators read: FP16 after every addition, from the first on."""
    for other in others:
        first = add(first, other)
    return first


def bias_add(x: Float16s, bias: Float32s) -> Float16s:
    """Return x (..., channels) plus one FP32 number a channel."""
    return add(x, bias)


def bias_grad(dy: Float16s) -> Float32s:
    """Return the sums of dy (..., channels) along all axes but the last, row-major."""
    return sum_rows(load(dy).reshape(-1, dy.shape[-1]))


def mul(left: Stored, right: Stored) -> Float16s:
    """Return left * right, broadcast."""
    return to_fp16(multiply(load(left), load(right)))


def mul_backward(dy: Float16s, left: Stored, right: Stored) -> tuple[Any, Any]:
    """Return `dy * right` and `dy * left`, each added up in FP32 where its operand was broadcast."""
    grad = load(dy)
    to_left, to_right = multiply(grad, load(right)), multiply(grad, load(left))
    return store(_sum_to(to_left, left.shape), left), store(_sum_to(to_right, right.shape), right)


def scale(x: Float16s, factor: float) -> Float16s:
    """Return x times one number, rounded to FP32 before; the gradient of x is the same of dy."""
    return to_fp16(multiply(load(x), flush(np.float32(factor))))


def sum_to(dy: Float16s, like: Stored) -> Any:
    """Return dy added up along the axes along which `like` was broadcast to its shape, row-major."""
    return store(_sum_to(load(dy), like.shape), like)


def reduce_sum(x: Float16s, axes: Sequence[int]) -> Float16s:
    """Return the sums along `axes`, row-major among them; the axes disappear."""
    return to_fp16(_sum_axes(load(x), axes))


def reduce_sum_backward(dy: Float16s, shape: Sequence[int], axes: Sequence[int]) -> Float16s:
    """Return dy for every element of x, whose shape is `shape`."""
    return to_fp16(np.broadcast_to(np.expand_dims(load(dy), tuple(axes)), shape))


def reduce_mean(x: Float16s, axes: Sequence[int]) -> Float16s:
    """Return `sum / n` along `axes`, n the elements of one sum."""
    return to_fp16(divide(_sum_axes(load(x), axes), _elems(x.shape, axes)))


def reduce_mean_backward(dy: Float16s, shape: Sequence[int], axes: Sequence[int]) -> Float16s:
    """Return `dy / n` for every element of x, whose shape is `shape`."""
    grad = divide(load(dy), _elems(shape, axes))
    return to_fp16(np.broadcast_to(np.expand_dims(grad, tuple(axes)), shape))


def embedding(table: Stored, index: NDArray[np.int64]) -> Float16s:
    """Return row `index[...]` of `table` (rows, dim): (..., dim)."""
    return to_fp16(load(table[index]))


def embedding_grad(dy: Float16s, index: NDArray[np.int64], rows: int) -> Float32s:
    """Return the FP32 gradient of a table of `rows` rows: each row adds up the dy of its places in ascending order."""
    flat, grad = index.reshape(-1), load(dy).reshape(index.size, dy.shape[-1])
    order = np.argsort(flat, kind="stable")
    out = np.zeros((rows, grad.shape[-1]), np.float32)
    for places in np.split(order, np.flatnonzero(np.diff(flat[order])) + 1):
        if places.size:
            out[flat[places[0]]] = sum_rows(grad[places])
    return out


def _sum_to(values: Float32s, shape: Sequence[int]) -> Float32s:
    new = values.ndim - len(shape)
    axes = [*range(new), *(new + axis for axis, size in enumerate(shape) if size == 1 and values.shape[new + axis] > 1)]
    return _sum_axes(values, axes).reshape(shape) if axes else values


def _sum_axes(values: Float32s, axes: Sequence[int]) -> Float32s:
    """Return the sums along `axes`, row-major among them in ascending order of axes."""
    summed = sorted(axis % values.ndim for axis in axes)
    rows = np.moveaxis(values, summed, range(len(summed)))
    return sum_rows(rows.reshape(-1, *rows.shape[len(summed) :]))


def _elems(shape: Sequence[int], axes: Sequence[int]) -> np.float32:
    return count(prod(shape[axis] for axis in axes))
