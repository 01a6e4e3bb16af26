"""Normalisation: statistics in FP32 from one sweep of sums and sums of squares, then one scaling and shift an element.

Every norm comes down to `xhat = x inv + (-(mean inv))` with `inv = 1 / sqrt(var + eps)`. The backward pass computes xhat again
from x and the statistics: kept in FP32 or taken anew from x, they are the same bits.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from accel.errors import ConfigError
from accel.golden.numeric import Float16s, Float32s, to_fp16
from accel.golden.vector.arithmetic import (
    ONE,
    ZERO,
    Operand,
    add,
    count,
    divide,
    flush,
    larger,
    load,
    multiply,
    multiply_add,
    reciprocal_root,
    subtract,
    sum_along,
    sum_rows,
)


class Statistics(NamedTuple):
    """FP32: (channels,) of a batch norm, (batch, groups) of a group norm, (..., 1) of a layer norm."""

    mean: Float32s
    variance: Float32s
    """The mean of squares less the square of the mean, at least 0."""
    inverse: Float32s
    """1 / sqrt(variance + eps)."""


def batch_norm(x: Float16s, gamma: Float32s, beta: Float32s, eps: float) -> tuple[Float16s, Statistics]:
    """Return the norm of x (..., channels) over all axes but the last, and the statistics."""
    rows = _rows(x)
    stats = _statistics(sum_rows(rows), sum_rows(multiply(rows, rows)), len(rows), eps)
    return normalize_channels(x, gamma, beta, stats), stats


def normalize_channels(x: Float16s, gamma: Float32s, beta: Float32s, stats: Statistics) -> Float16s:
    """Return `x a + (beta - mean a)` with `a = gamma inv`: a batch norm of given statistics."""
    factor = multiply(gamma, stats.inverse)
    return to_fp16(multiply_add(load(x), factor, subtract(beta, multiply(stats.mean, factor))))


def fixed_statistics(running_mean: Float32s, running_variance: Float32s, eps: float) -> Statistics:
    """Return the statistics of a batch norm in evaluation."""
    inverse = reciprocal_root(add(running_variance, np.float32(eps)))
    return Statistics(flush(running_mean), flush(running_variance), inverse)


def update_running(
    running_mean: Float32s, running_variance: Float32s, stats: Statistics, rows: int, momentum: float
) -> tuple[Float32s, Float32s]:
    """Return `(1 - momentum) running + momentum new` of mean and variance, the new variance times `rows / (rows - 1)`."""
    if rows < 2:
        raise ConfigError(f"rows must be at least 2, not {rows!r}; one value has no variance")
    new = np.float32(momentum)
    old = subtract(ONE, new)
    unbiased = multiply(stats.variance, divide(count(rows), count(rows - 1)))
    return (
        multiply_add(old, running_mean, multiply(new, stats.mean)),
        multiply_add(old, running_variance, multiply(new, unbiased)),
    )


def batch_norm_backward(dy: Float16s, x: Float16s, gamma: Float32s, stats: Statistics) -> tuple[Float16s, Float32s, Float32s]:
    """Return dx, dgamma and dbeta: `dx = dy a - (xhat b + c)`, `a = gamma inv, b = a (dgamma / n), c = a (dbeta / n)`."""
    grad, unit = _rows(dy), _unit(_rows(x), stats.mean, stats.inverse)
    dbeta, dgamma = sum_rows(grad), sum_rows(multiply(grad, unit))
    factor, elems = multiply(gamma, stats.inverse), count(len(grad))
    means = multiply(factor, divide(dgamma, elems)), multiply(factor, divide(dbeta, elems))
    return to_fp16(_input_grad(grad, factor, unit, *means)).reshape(x.shape), dgamma, dbeta


def group_norm(x: Float16s, gamma: Float32s, beta: Float32s, groups: int, eps: float) -> tuple[Float16s, Statistics]:
    """Return the norm of x (batch, ..., channels) over each sample's `groups` of consecutive channels, and the statistics.

    A group's sums add up those of its channels, and these run over the sample's pixels.
    """
    pixels = _pixels(x, groups)
    sums, squares = (_group_sums(sum_rows(values), groups) for values in (pixels, multiply(pixels, pixels)))
    stats = _statistics(sums, squares, len(pixels) * (pixels.shape[-1] // groups), eps)
    mean, inverse = _per_channel(stats, gamma)
    factor = multiply(gamma, inverse)
    y = to_fp16(multiply_add(pixels, factor, subtract(beta, multiply(mean, factor))))
    return np.moveaxis(y, 0, 1).reshape(x.shape), stats


def group_norm_backward(
    dy: Float16s, x: Float16s, gamma: Float32s, groups: int, stats: Statistics
) -> tuple[Float16s, Float32s, Float32s]:
    """Return dx, dgamma and dbeta.

    With p and q the sums over a sample's pixels of dy and `dy xhat`, dbeta and dgamma are those of p and q over the batch;
    `dx = dy (gamma inv) - (xhat b + c)`, `b = inv (sum(gamma q) / n)`, `c = inv (sum(gamma p) / n)`, sums over a group.
    """
    grad, pixels = _pixels(dy, groups), _pixels(x, groups)
    mean, inverse = _per_channel(stats, gamma)
    unit = _unit(pixels, mean, inverse)
    sums, products = sum_rows(grad), sum_rows(multiply(grad, unit))
    elems = count(len(pixels) * (pixels.shape[-1] // groups))
    slope, level = (
        multiply(inverse, _spread(divide(_group_sums(multiply(gamma, values), groups), elems), gamma))
        for values in (products, sums)
    )
    dx = to_fp16(_input_grad(grad, multiply(gamma, inverse), unit, slope, level))
    return np.moveaxis(dx, 0, 1).reshape(x.shape), sum_rows(products), sum_rows(sums)


def layer_norm(x: Float16s, gamma: Float32s, beta: Float32s, eps: float) -> tuple[Float16s, Statistics]:
    """Return `xhat gamma + beta`, the norm of each row of x (..., dim), and the statistics."""
    values = load(x)
    sums, squares = sum_along(values)[..., None], sum_along(multiply(values, values))[..., None]
    stats = _statistics(sums, squares, x.shape[-1], eps)
    return to_fp16(multiply_add(_unit(values, stats.mean, stats.inverse), gamma, beta)), stats


def layer_norm_backward(dy: Float16s, x: Float16s, gamma: Float32s, stats: Statistics) -> tuple[Float16s, Float32s, Float32s]:
    """Return dx, dgamma and dbeta: `dx = g inv - (xhat b + c)` with `g = dy gamma`.

    `b = inv (sum(g xhat) / n)` and `c = inv (sum(g) / n)`, sums along the row; dgamma and dbeta add up `dy xhat` and dy over
    the rows.
    """
    grad, unit = load(dy), _unit(load(x), stats.mean, stats.inverse)
    scaled, elems = multiply(grad, gamma), count(x.shape[-1])
    slope = multiply(stats.inverse, divide(sum_along(multiply(scaled, unit))[..., None], elems))
    level = multiply(stats.inverse, divide(sum_along(scaled)[..., None], elems))
    dx = to_fp16(_input_grad(scaled, stats.inverse, unit, slope, level))
    return dx, _sum_but_last(multiply(grad, unit)), _sum_but_last(grad)


def rms_norm(x: Float16s, gamma: Float32s, eps: float) -> tuple[Float16s, Float32s]:
    """Return `(x inv) gamma` of each row of x (..., dim), and `inv = 1 / sqrt(sum(x x) / n + eps)` (..., 1)."""
    values = load(x)
    squares = divide(sum_along(multiply(values, values))[..., None], count(x.shape[-1]))
    inverse = reciprocal_root(add(squares, np.float32(eps)))
    return to_fp16(multiply(multiply(values, inverse), gamma)), inverse


def rms_norm_backward(dy: Float16s, x: Float16s, gamma: Float32s, inverse: Float32s) -> tuple[Float16s, Float32s]:
    """Return dx and dgamma: with `g = dy gamma`, `dx = g inv - xhat b`, `b = inv (sum(g xhat) / n)`, sums along the row."""
    grad, unit = load(dy), multiply(load(x), inverse)
    scaled = multiply(grad, gamma)
    slope = multiply(inverse, divide(sum_along(multiply(scaled, unit))[..., None], count(x.shape[-1])))
    dx = subtract(multiply(scaled, inverse), multiply(unit, slope))
    return to_fp16(dx), _sum_but_last(multiply(grad, unit))


def _statistics(sums: Float32s, squares: Float32s, elems: int, eps: float) -> Statistics:
    mean = divide(sums, count(elems))
    variance = larger(subtract(divide(squares, count(elems)), multiply(mean, mean)), ZERO)
    return Statistics(mean, variance, reciprocal_root(add(variance, np.float32(eps))))


def _unit(values: Float32s, mean: Operand, inverse: Operand) -> Float32s:
    """Return xhat."""
    return multiply_add(values, inverse, np.negative(multiply(mean, inverse)))


def _input_grad(grad: Float32s, factor: Operand, unit: Float32s, slope: Operand, level: Operand) -> Float32s:
    return subtract(multiply(grad, factor), multiply_add(unit, slope, level))


def _rows(x: Float16s) -> Float32s:
    return load(x).reshape(-1, x.shape[-1])


def _sum_but_last(values: Float32s) -> Float32s:
    return sum_rows(values.reshape(-1, values.shape[-1]))


def _pixels(x: Float16s, groups: int) -> Float32s:
    """Return x as (pixels, batch, channels)."""
    channels = x.shape[-1]
    if groups < 1 or channels % groups:
        raise ConfigError(f"groups must divide the channels ({channels}), not {groups!r}")
    return np.moveaxis(load(x).reshape(len(x), -1, channels), 1, 0)


def _group_sums(values: Float32s, groups: int) -> Float32s:
    """Return the sums of (batch, channels) over each group's channels: (batch, groups)."""
    return sum_along(values.reshape(len(values), groups, -1))


def _spread(values: Float32s, gamma: Float32s) -> Float32s:
    """Return (batch, groups) as (batch, channels)."""
    return np.repeat(values, len(gamma) // values.shape[-1], axis=-1)


def _per_channel(stats: Statistics, gamma: Float32s) -> tuple[Float32s, Float32s]:
    return _spread(stats.mean, gamma), _spread(stats.inverse, gamma)
