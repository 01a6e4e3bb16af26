"""The operators of the vector unit on tensors as torch lays them out: channels first where torch has them so."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.errors import UnsupportedOpError
from accel.golden.numeric import Float16s, Float32s
from accel.golden.vector import arithmetic, losses, norms, pooling, tensors, unary
from accel.golden.vector.arithmetic import Stored
from accel.models.machine_values import Operation

Mask = NDArray[np.bool_]


def unsupported(name: str) -> UnsupportedOpError:
    """Return the error that refuses an operator."""
    return UnsupportedOpError(
        f"operators on the machine must be those that docs/numerics.md defines, not {name}; "
        "replace it, or call on_machine with vector_ops='torch'"
    )


def element_by_element(name: str) -> Operation:
    """Return an operator of `accel.golden.vector.unary.UNARY`."""

    def forward(x: Float16s) -> Any:
        y = unary.unary(name, x)
        return y, (x if unary.UNARY[name].saves == "input" else y,)

    return Operation(forward, lambda dy, saved: (unary.unary_backward(name, dy, saved),))


def _masked(function: Callable[[Float16s], tuple[Float16s, Mask]]) -> Operation:
    def forward(x: Float16s) -> Any:
        y, mask = function(x)
        return y, (mask,)

    return Operation(forward, lambda dy, mask: (unary.masked_backward(dy, mask),))


RELU, RELU6 = _masked(unary.relu), _masked(unary.relu6)


def dropout(mask: Mask, drop_frac: float) -> Operation:
    """Return dropout with a mask already drawn."""
    return Operation(
        lambda x: (unary.dropout(x, mask, drop_frac), (mask,)), lambda dy, kept: (unary.dropout(dy, kept, drop_frac),)
    )


def add(left: Stored, right: Stored) -> Operation:
    """Return the sum of two tensors like `left` and `right`, broadcast."""
    likes = [_like(side) for side in (left, right)]
    return Operation(lambda a, b: (tensors.add(a, b), ()), lambda dy: tuple(tensors.sum_to(dy, like) for like in likes))


BIAS_ADD = Operation(
    lambda x, bias: (_first(tensors.bias_add(_last(x), bias)), ()), lambda dy: (dy, tensors.bias_grad(_last(dy)))
)
"""A bias to channels that are axis 1."""
BIAS_ADD_LAST = Operation(lambda x, bias: (tensors.bias_add(x, bias), ()), lambda dy: (dy, tensors.bias_grad(dy)))
MUL = Operation(lambda left, right: (tensors.mul(left, right), (left, right)), tensors.mul_backward)


def scale(factor: float) -> Operation:
    """Return the product with a number."""
    return Operation(lambda x: (tensors.scale(x, factor), ()), lambda dy: (tensors.scale(dy, factor),))


def scale_loss(factor: float) -> Operation:
    """Return a loss times a number: the loss's gradient is that of the result times the number, FP32."""
    number = np.float32(factor)
    return Operation(
        lambda x: (arithmetic.multiply(x, number), ()), lambda dy: (arithmetic.multiply(dy, number),), is_loss=True
    )


ADD_LOSSES = Operation(lambda left, right: (arithmetic.add(left, right), ()), lambda dy: (dy, dy), is_loss=True)


def broadcast(like: Stored, shape: Sequence[int]) -> Operation:
    """Return a tensor like `like` repeated along axes of one element or new ones."""
    source = _like(like)
    return Operation(lambda x: (np.broadcast_to(x, shape), ()), lambda dy: (_sum_to(dy, source),))


def reduce(axes: Sequence[int], shape: Sequence[int], is_mean: bool, keeps: bool) -> Operation:
    """Return the sum or the mean of a tensor of `shape` along `axes`."""
    there, back = (
        (tensors.reduce_mean, tensors.reduce_mean_backward) if is_mean else (tensors.reduce_sum, tensors.reduce_sum_backward)
    )

    def forward(x: Float16s) -> Any:
        y = there(x, axes)
        return np.expand_dims(y, tuple(axes)) if keeps else y, ()

    def backward(dy: Float16s) -> Any:
        return (back(np.squeeze(dy, tuple(axes)) if keeps else dy, shape, axes),)

    return Operation(forward, backward)


def embedding(index: NDArray[np.int64], padding_row: int | None) -> Operation:
    """Return rows of a table; that of `padding_row` has a gradient of zeros."""

    def backward(dy: Float16s, like: Stored) -> Any:
        grad = tensors.embedding_grad(dy, index, len(like))
        if padding_row is not None:
            grad[padding_row] = 0
        return (grad,)

    return Operation(lambda table: (tensors.embedding(table, index), (np.empty((len(table), 0)),)), backward)


def softmax(axis: int, is_log: bool = False) -> Operation:
    """Return softmax, or its logarithm, along an axis."""
    there, back = (losses.log_softmax, losses.log_softmax_backward) if is_log else (losses.softmax, losses.softmax_backward)

    def forward(x: Float16s) -> Any:
        y = there(np.moveaxis(x, axis, -1))
        return np.moveaxis(y, -1, axis), (y,)

    return Operation(forward, lambda dy, y: (np.moveaxis(back(np.moveaxis(dy, axis, -1), y), -1, axis),))


def batch_norm(eps: float, note: Callable[[norms.Statistics, int], None]) -> Operation:
    """Return batch norm over axis 1; `note` is told the statistics and how many rows they are over."""

    def forward(x: Float16s, gamma: Float32s, beta: Float32s) -> Any:
        y, stats = norms.batch_norm(_last(x), gamma, beta, eps)
        note(stats, x.size // max(1, x.shape[1]))
        return _first(y), (x, gamma, *stats)

    def backward(dy: Float16s, x: Float16s, gamma: Float32s, *stats: Any) -> Any:
        dx, dgamma, dbeta = norms.batch_norm_backward(_last(dy), _last(x), gamma, norms.Statistics(*stats))
        return _first(dx), dgamma, dbeta

    return Operation(forward, backward)


def fixed_batch_norm(stats: norms.Statistics) -> Operation:
    """Return batch norm of given statistics, as in evaluation; it has no backward pass."""

    def backward(dy: Float16s) -> Any:
        raise unsupported("the backward pass of batch_norm in evaluation")

    return Operation(lambda x, gamma, beta: (_first(norms.normalize_channels(_last(x), gamma, beta, stats)), ()), backward)


def group_norm(groups: int, eps: float) -> Operation:
    """Return group norm of channels in axis 1."""

    def forward(x: Float16s, gamma: Float32s, beta: Float32s) -> Any:
        y, stats = norms.group_norm(_last(x), gamma, beta, groups, eps)
        return _first(y), (x, gamma, *stats)

    def backward(dy: Float16s, x: Float16s, gamma: Float32s, *stats: Any) -> Any:
        dx, dgamma, dbeta = norms.group_norm_backward(_last(dy), _last(x), gamma, groups, norms.Statistics(*stats))
        return _first(dx), dgamma, dbeta

    return Operation(forward, backward)


def layer_norm(eps: float) -> Operation:
    """Return layer norm along the last axis."""

    def forward(x: Float16s, gamma: Float32s, beta: Float32s) -> Any:
        y, stats = norms.layer_norm(x, gamma, beta, eps)
        return y, (x, gamma, *stats)

    def backward(dy: Float16s, x: Float16s, gamma: Float32s, *stats: Any) -> Any:
        return norms.layer_norm_backward(dy, x, gamma, norms.Statistics(*stats))

    return Operation(forward, backward)


def rms_norm(eps: float) -> Operation:
    """Return RMS norm along the last axis."""

    def forward(x: Float16s, gamma: Float32s) -> Any:
        y, inverse = norms.rms_norm(x, gamma, eps)
        return y, (x, gamma, inverse)

    return Operation(forward, norms.rms_norm_backward)


def max_pool(windows: pooling.Windows) -> Operation:
    """Return max pooling over the axes from 2 on."""

    def forward(x: Float16s) -> Any:
        y, index = pooling.max_pool(_last(x), windows)
        return _first(y), (index,)

    return Operation(forward, lambda dy, index: (_first(pooling.max_pool_backward(_last(dy), index, windows)),))


def avg_pool(windows: pooling.Windows, count_padding: bool = True) -> Operation:
    """Return average pooling over the axes from 2 on."""
    return Operation(
        lambda x: (_first(pooling.avg_pool(_last(x), windows, count_padding)), ()),
        lambda dy: (_first(pooling.avg_pool_backward(_last(dy), windows, count_padding)),),
    )


def interpolate(windows: pooling.Windows) -> Operation:
    """Return interpolation to the nearest input over the axes from 2 on."""
    return Operation(
        lambda x: (_first(pooling.interpolate_nearest(_last(x), windows)), ()),
        lambda dy: (_first(pooling.interpolate_nearest_backward(_last(dy), windows)),),
    )


def cross_entropy(labels: NDArray[np.int64], smoothing: float) -> Operation:
    """Return the mean cross entropy of logits (rows, classes, ...); labels (rows, ...)."""
    flat = labels.reshape(-1)

    def forward(x: Float16s) -> Any:
        return losses.cross_entropy(_matrix(x), flat, smoothing), (x,)

    def backward(dy: Stored, x: Float16s) -> Any:
        dx = losses.cross_entropy_backward(_matrix(x), flat, smoothing, float(dy))
        return (_first(dx.reshape(_last(x).shape)),)

    return Operation(forward, backward, is_loss=True)


def _mse(x: Stored, target: Stored) -> Any:
    return losses.mse_loss(x, target), (x, target)


def _mse_backward(dy: Stored, x: Stored, target: Stored) -> Any:
    dx = losses.mse_loss_backward(x, target, float(dy))
    return dx, np.negative(dx)


MSE_LOSS = Operation(_mse, _mse_backward, is_loss=True)


def pad_zeros(widths: Sequence[tuple[int, int]]) -> Operation:
    """Return a tensor with zeros before and after it along each axis."""
    return Operation(
        lambda x: (np.pad(x, widths), ()),
        lambda dy: (dy[tuple(slice(before, size - after) for (before, after), size in zip(widths, dy.shape, strict=True))],),
    )


def concatenate(axis: int, sizes: Sequence[int]) -> Operation:
    """Return tensors that have `sizes` elements along an axis, one after the other."""
    return Operation(
        lambda *parts: (np.concatenate(parts, axis), ()),
        lambda dy: tuple(np.split(dy, np.cumsum(sizes)[:-1], axis)),
    )


def _sum_to(dy: Any, like: Stored) -> Any:
    return tensors.sum_to(dy, like) if like.shape != dy.shape else dy


def _like(array: Stored) -> Stored:
    """Return zeros of the shape and format of an array, in no memory."""
    zeros: Any = np.broadcast_to(array.dtype.type(0), array.shape)
    return zeros


def _last(x: Any) -> Any:
    """Return x with its channels, axis 1, in the last place."""
    return np.ascontiguousarray(np.moveaxis(x, 1, -1))


def _first(x: Any) -> Any:
    return np.moveaxis(x, -1, 1)


def _matrix(x: Float16s) -> Float16s:
    """Return logits (rows, classes, ...) as a matrix."""
    rows: Float16s = _last(x).reshape(-1, x.shape[1])
    return rows
