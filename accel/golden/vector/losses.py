"""Softmax, alone and inside the losses. Losses are FP32; their gradients are FP16, scaled by the loss scale on the way."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.errors import ConfigError
from accel.golden.numeric import Float16s, Float32s, to_fp16
from accel.golden.vector.arithmetic import (
    ONE,
    TWO,
    ZERO,
    Operand,
    Stored,
    add,
    count,
    divide,
    load,
    multiply,
    multiply_add,
    subtract,
    sum_along,
    sum_rows,
)
from accel.golden.vector.functions import exp, log

Mask = NDArray[np.bool_]


def causal_mask(queries: int, keys: int) -> Mask:
    """Return which keys each query sees: those up to its own place."""
    return np.tri(queries, keys, dtype=np.bool_)


def softmax(x: Float16s, kept: Mask | None = None, factor: np.float32 = ONE) -> Float16s:
    """Return `exp(v - max) * (1 / sum)` of `v = x factor` along the last axis; what `kept` excludes gives +0, takes no part."""
    is_kept = np.True_ if kept is None else kept
    values = np.where(is_kept, multiply(load(x), factor), np.float32(-np.inf))
    powers = np.where(is_kept, exp(subtract(values, _row_max(values))), ZERO)
    y = multiply(powers, divide(ONE, sum_along(powers)[..., None]))
    return to_fp16(np.where(is_kept, y, ZERO))


def softmax_backward(dy: Float16s, y: Float16s, kept: Mask | None = None, factor: np.float32 = ONE) -> Float16s:
    """Return `(y (dy - sum(dy y))) factor`, the sum along the last axis; +0 where `kept` excludes."""
    is_kept = np.True_ if kept is None else kept
    grad, share = np.where(is_kept, load(dy), ZERO), load(y)
    total = sum_along(multiply(grad, share))[..., None]
    return to_fp16(np.where(is_kept, multiply(multiply(share, subtract(grad, total)), factor), ZERO))


def log_softmax(x: Float16s) -> Float16s:
    """Return `(x - max) - log(sum(exp(x - max)))` along the last axis."""
    rows = _log_rows(x)
    return to_fp16(subtract(rows.distance, rows.log_sum))


def log_softmax_backward(dy: Float16s, y: Float16s) -> Float16s:
    """Return `dy - exp(y) sum(dy)`, the sum along the last axis."""
    grad = load(dy)
    return to_fp16(subtract(grad, multiply(exp(load(y)), sum_along(grad)[..., None])))


def cross_entropy(x: Float16s, labels: NDArray[np.int64], smoothing: float = 0.0) -> Float32s:
    """Return the mean loss of the logits x (rows, classes), as an array of no dimension.

    With d = x - max and l = log(sum(exp(d))) a row's loss is `l - d[label]`; with smoothing it is
    `(1 - smoothing) (l - d[label]) + smoothing (l - sum(d) / classes)`.
    """
    _check_labels(x, labels, smoothing)
    rows = _log_rows(x)
    log_sum = rows.log_sum[:, 0]
    losses = subtract(log_sum, rows.distance[np.arange(len(x)), labels])
    if smoothing:
        share = np.float32(smoothing)
        uniform = subtract(log_sum, divide(sum_along(rows.distance), count(x.shape[1])))
        losses = multiply_add(subtract(ONE, share), losses, multiply(share, uniform))
    return divide(sum_rows(losses), count(len(x)))


def cross_entropy_backward(x: Float16s, labels: NDArray[np.int64], smoothing: float = 0.0, loss_scale: float = 1.0) -> Float16s:
    """Return `(p - target) (loss_scale / rows)`, p = exp(d) * (1 / sum).

    The target is `t = smoothing / classes`, at the label `(1 - smoothing) + t`: without smoothing 0 and 1.
    """
    _check_labels(x, labels, smoothing)
    rows = _log_rows(x)
    share = np.float32(smoothing)
    low = divide(share, count(x.shape[1]))
    target = np.full(x.shape, low)
    target[np.arange(len(x)), labels] = add(subtract(ONE, share), low)
    chance = multiply(rows.powers, divide(ONE, rows.power_sum))
    return to_fp16(multiply(subtract(chance, target), divide(np.float32(loss_scale), count(len(x)))))


def mse_loss(x: Stored, target: Stored) -> Float32s:
    """Return the sum of `(x - target)**2` over all elements, row-major, over their number; an array of no dimension."""
    distance = subtract(load(x), load(target))
    return divide(sum_rows(multiply(distance, distance).reshape(-1)), count(distance.size))


def mse_loss_backward(x: Stored, target: Stored, loss_scale: float = 1.0) -> Float16s:
    """Return `(x - target) ((2 loss_scale) / n)`."""
    distance = subtract(load(x), load(target))
    return to_fp16(multiply(distance, divide(multiply(TWO, np.float32(loss_scale)), count(distance.size))))


class _LogRows(NamedTuple):
    """Of every row: x - max, its exponential, their sum and the sum's logarithm (..., 1)."""

    distance: Float32s
    powers: Float32s
    power_sum: Float32s
    log_sum: Float32s


def _log_rows(x: Float16s) -> _LogRows:
    values = load(x)
    distance = subtract(values, _row_max(values))
    powers = exp(distance)
    power_sum = sum_along(powers)[..., None]
    return _LogRows(distance, powers, power_sum, log(power_sum))


def _row_max(values: Float32s) -> Operand:
    """Return the largest element (..., 1), NaN if there is one; the sign of a zero makes no difference to x - max."""
    largest: Float32s = np.max(values, axis=-1, keepdims=True)
    return largest


def _check_labels(x: Float16s, labels: NDArray[np.int64], smoothing: float) -> None:
    if not 0 <= smoothing <= 1:
        raise ConfigError(f"smoothing must be between 0 and 1, not {smoothing!r}")
    wrong = labels[(labels < 0) | (labels >= x.shape[1])]
    if wrong.size:
        raise ConfigError(f"labels must be at least 0 and less than the classes ({x.shape[1]}), not {int(wrong[0])}")
