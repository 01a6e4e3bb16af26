"""Operators of one tensor, element by element, whose derivative is a function of one saved tensor: activations and roots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.errors import ConfigError
from accel.golden.numeric import Float16s, Float32s, to_fp16
from accel.golden.vector.arithmetic import (
    HALF,
    ONE,
    TWO,
    ZERO,
    constant,
    divide,
    load,
    multiply,
    multiply_add,
    reciprocal_root,
    root,
    subtract,
)
from accel.golden.vector.functions import erf, exp, log, normal_cdf, normal_density, sigmoid, tanh

GELU_CUBIC = constant(0x3D372713)
"""0.044715"""
GELU_CUBIC_SLOPE = constant(0x3E095D4F)
"""3 * 0.044715"""
GELU_STEEPNESS = constant(0x3FCC422A)
"""2 sqrt(2 / pi)"""
ERF_SLOPE = constant(0x3F906EBB)
"""2 / sqrt(pi)"""


class Unary(NamedTuple):
    """An operator: its value at x, and its derivative from what it saves."""

    value: Callable[[Float32s], Float32s]
    slope: Callable[[Float32s], Float32s]
    saves: Literal["input", "output"]


def unary(name: str, x: Float16s) -> Float16s:
    """Return the operator of that name of every element."""
    return to_fp16(_operator(name).value(load(x)))


def unary_backward(name: str, dy: Float16s, saved: Float16s) -> Float16s:
    """Return `dy * slope(saved)`; `saved` is the operator's input or its output, as `UNARY` says."""
    return to_fp16(multiply(load(dy), _operator(name).slope(load(saved))))


def relu(x: Float16s) -> tuple[Float16s, NDArray[np.bool_]]:
    """Return x where the mask is set, else +0, and the mask: not x <= 0, so that a NaN goes through."""
    values = load(x)
    mask = ~(values <= 0)
    return to_fp16(np.where(mask, values, ZERO)), mask


def relu6(x: Float16s) -> tuple[Float16s, NDArray[np.bool_]]:
    """Return x between 0 and 6, and the mask: not x <= 0 and not x >= 6."""
    values, six = load(x), np.float32(6)
    clipped = np.where(values <= 0, ZERO, np.where(values >= six, six, values))
    return to_fp16(clipped), ~((values <= 0) | (values >= six))


def masked_backward(dy: Float16s, mask: NDArray[np.bool_]) -> Float16s:
    """Return the gradient of `relu` and `relu6`: dy where the mask is set, else +0, whatever dy is there."""
    return to_fp16(np.where(mask, load(dy), ZERO))


def dropout(x: Float16s, mask: NDArray[np.bool_], drop_frac: float) -> Float16s:
    """Return `x * (1 / (1 - drop_frac))` where the mask is set, else +0; the gradient of x is the same of dy."""
    if not 0 <= drop_frac < 1:
        raise ConfigError(f"drop_frac must be at least 0 and less than 1, not {drop_frac!r}")
    factor = divide(ONE, subtract(ONE, np.float32(drop_frac)))
    return to_fp16(np.where(mask, multiply(load(x), factor), ZERO))


def _operator(name: str) -> Unary:
    if name not in UNARY:
        raise ConfigError(f"name must be one of {', '.join(UNARY)}, not {name!r}")
    return UNARY[name]


def _gelu(x: Float32s) -> Float32s:
    return multiply(x, normal_cdf(x))


def _gelu_slope(x: Float32s) -> Float32s:
    return multiply_add(x, normal_density(x), normal_cdf(x))


def _gelu_tanh(x: Float32s) -> Float32s:
    """Return x (1 + tanh(u)) / 2 as x sigmoid(2 u), which is the same number."""
    return multiply(x, _gelu_gate(x))


def _gelu_gate(x: Float32s) -> Float32s:
    cubic = multiply_add(multiply(x, x), GELU_CUBIC, ONE)
    return sigmoid(multiply(GELU_STEEPNESS, multiply(x, cubic)))


def _gelu_tanh_slope(x: Float32s) -> Float32s:
    gate = _gelu_gate(x)
    inner = multiply(GELU_STEEPNESS, multiply_add(multiply(x, x), GELU_CUBIC_SLOPE, ONE))
    return multiply_add(multiply(x, multiply(gate, subtract(ONE, gate))), inner, gate)


def _silu(x: Float32s) -> Float32s:
    return multiply(x, sigmoid(x))


def _silu_slope(x: Float32s) -> Float32s:
    gate = sigmoid(x)
    return multiply(gate, multiply_add(x, subtract(ONE, gate), ONE))


def _sigmoid_slope(y: Float32s) -> Float32s:
    return multiply(y, subtract(ONE, y))


def _tanh_slope(y: Float32s) -> Float32s:
    return subtract(ONE, multiply(y, y))


def _erf_slope(x: Float32s) -> Float32s:
    return multiply(ERF_SLOPE, exp(np.negative(multiply(x, x))))


def _absolute_slope(x: Float32s) -> Float32s:
    return np.where(np.isnan(x) | (x == 0), multiply(x, ZERO), np.copysign(ONE, x))


def _identity(y: Float32s) -> Float32s:
    return y


def _reciprocal(x: Float32s) -> Float32s:
    return divide(ONE, x)


def _reciprocal_slope(y: Float32s) -> Float32s:
    return np.negative(multiply(y, y))


def _root_slope(y: Float32s) -> Float32s:
    return divide(HALF, y)


def _reciprocal_root_slope(y: Float32s) -> Float32s:
    return multiply(-HALF, multiply(y, multiply(y, y)))


def _square(x: Float32s) -> Float32s:
    return multiply(x, x)


def _square_slope(x: Float32s) -> Float32s:
    return multiply(TWO, x)


UNARY = {
    "gelu": Unary(_gelu, _gelu_slope, "input"),
    "gelu_tanh": Unary(_gelu_tanh, _gelu_tanh_slope, "input"),
    "silu": Unary(_silu, _silu_slope, "input"),
    "sigmoid": Unary(sigmoid, _sigmoid_slope, "output"),
    "tanh": Unary(tanh, _tanh_slope, "output"),
    "exp": Unary(exp, _identity, "output"),
    "sqrt": Unary(root, _root_slope, "output"),
    "reciprocal": Unary(_reciprocal, _reciprocal_slope, "output"),
    "rsqrt": Unary(reciprocal_root, _reciprocal_root_slope, "output"),
    "log": Unary(log, _reciprocal, "input"),
    "erf": Unary(erf, _erf_slope, "input"),
    "abs": Unary(np.abs, _absolute_slope, "input"),
    "square": Unary(_square, _square_slope, "input"),
}
"""By the names that PyTorch gives them; `gelu_tanh` is its gelu with approximate="tanh"."""
