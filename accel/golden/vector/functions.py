"""Elementary functions as the vector unit steps them: FP32 additions, multiplications and divisions in a fixed order.

Polynomials are minimax fits of this project (weighted least squares with Lawson's weights in 40 digits, coefficients rounded
one after the other from the lowest power, the rest fitted again). Each comment says what is fitted, where, and the largest
relative error of the fit itself, before rounding. docs/numerics.md has the measured errors of the functions.
"""

from __future__ import annotations

import numpy as np

from accel.golden.numeric import NAN_FP32, Float32s
from accel.golden.vector.arithmetic import (
    HALF,
    ONE,
    TWO,
    ZERO,
    Operand,
    add,
    constant,
    divide,
    flush,
    multiply,
    multiply_add,
    polynomial,
    subtract,
)

LOG2_E = constant(0x3FB8AA3B)
LN2_HIGH, LN2_LOW = constant(0x3F317200), constant(0x35BFBE8E)
"""Their sum is ln 2; the first has 16 bits, so that its product with an exponent is exact."""
SQRT_2, SQRT_HALF = constant(0x3FB504F3), constant(0x3F3504F3)
INV_SQRT_2PI = constant(0x3ECC422A)

EXP_LEAST, EXP_MOST = constant(0xC2AEAC4F), constant(0x42B17217)
"""The arguments between which exp is a normal number."""
# exp(r), |r| <= ln(2) / 2, degree 6: 2**-28.2
EXP = tuple(constant(bits) for bits in (0x3AB52919, 0x3C091CB6, 0x3D2AAC55, 0x3E2AAA49, 0x3EFFFFFE, 0x3F800000, 0x3F800000))
# (log(1 + f) - f + f**2 / 2) / f**3, sqrt(1/2) <= 1 + f <= sqrt(2), degree 7: 2**-27.3 of log(1 + f)
LOG = tuple(
    constant(bits) for bits in (0xBD9C64E0, 0x3E02AF60, 0xBE06C121, 0x3E116C97, 0xBE2A3945, 0x3E4CD00E, 0xBE800113, 0x3EAAAAAA)
)
TANH_SMALL = np.float32(0.625)
# (tanh(x) / x - 1) / x**2 as a polynomial in x**2, |x| <= 0.625, degree 4: 2**-27.7 of tanh
TANH = tuple(constant(bits) for bits in (0xBBBA8671, 0x3CA8FC67, 0xBD5C1AD2, 0x3E08837B, 0xBEAAAA99))
# erf(x) / x - 1 as a polynomial in x**2, |x| <= 1, degree 6: 2**-29.4 of erf
ERF = tuple(constant(bits) for bits in (0x38A3B8FF, 0xBA51A8AF, 0x3BA9F912, 0xBCDBFB8D, 0x3DE71673, 0xBEC0939F, 0x3E0375D4))
# Q(t) exp(t**2 / 2) / u with u = 1 / (1 + t / 4), 0 <= t <= 14, degree 8, Q the normal distribution's upper tail: 2**-24.0
TAIL = tuple(
    constant(bits)
    for bits in (
        *(0x3CD2BBB3, 0xBE1C7B11, 0x3E979E5C, 0xBE52BB5C, 0x3E4E9B7F),
        *(0x3D06DC5B, 0x3DD47989, 0x3DC9C325, 0x3DCC62A0),
    )
)
QUARTER = np.float32(0.25)


@np.errstate(invalid="ignore")
def exp(x: Operand) -> Float32s:
    """Return e**x: `n = rint(x log2 e)`, `r = (x - n ln2_high) - n ln2_low`, the polynomial in r, times 2**n."""
    x = flush(x)
    inside = (x >= EXP_LEAST) & (x <= EXP_MOST)
    safe = np.where(inside, x, ZERO)
    turns = np.rint(multiply(safe, LOG2_E))
    rest = subtract(subtract(safe, multiply(turns, LN2_HIGH)), multiply(turns, LN2_LOW))
    value = np.ldexp(polynomial(rest, EXP), turns.astype(np.int32))
    outside = np.where(np.isnan(x), NAN_FP32, np.where(x > EXP_MOST, np.float32(np.inf), ZERO))
    return np.where(inside, value, outside)


@np.errstate(invalid="ignore")
def log(x: Operand) -> Float32s:
    """Return the natural logarithm: x is 2**n (1 + f), sqrt(1/2) <= 1 + f < sqrt(2).

    `((f s p(f) + n ln2_low) - s / 2 + f) + n ln2_high` with s = f * f. That of a zero is -inf, of a negative number NaN.
    """
    x = flush(x)
    inside = (x > 0) & (x < np.inf)
    fraction, power = np.frexp(np.where(inside, x, ONE))
    is_low = fraction < SQRT_HALF
    exponent = (power - is_low).astype(np.float32)
    rest = subtract(np.where(is_low, TWO * fraction, fraction), ONE)
    square = multiply(rest, rest)
    tail = multiply_add(exponent, LN2_LOW, multiply(multiply(rest, square), polynomial(rest, LOG)))
    value = multiply_add(exponent, LN2_HIGH, add(rest, subtract(tail, multiply(HALF, square))))
    outside = np.where(x == 0, np.float32(-np.inf), np.where(x > 0, np.float32(np.inf), NAN_FP32))
    return np.where(inside, value, outside)


def sigmoid(x: Operand) -> Float32s:
    """Return 1 / (1 + exp(-x))."""
    return divide(ONE, add(ONE, exp(np.negative(x))))


def tanh(x: Operand) -> Float32s:
    """Return tanh of |x| with the sign of x: up to 0.625 `x + x (s p(s))` with s = x * x, above `1 - 2 / (exp(2 x) + 1)`."""
    size = np.abs(flush(x))
    square = multiply(size, size)
    small = multiply_add(size, multiply(square, polynomial(square, TANH)), size)
    large = subtract(ONE, divide(TWO, add(exp(multiply(TWO, size)), ONE)))
    return _signed(np.where(size <= TANH_SMALL, small, large), x)


def erf(x: Operand) -> Float32s:
    """Return erf of |x| with the sign of x: up to 1 `x + x p(x * x)`, above `1 - 2 Q(sqrt(2) x)`."""
    size = np.abs(flush(x))
    square = multiply(size, size)
    small = multiply_add(size, polynomial(square, ERF), size)
    upper = _normal_tail(multiply(SQRT_2, size), exp(np.negative(square)))
    return _signed(np.where(size <= ONE, small, subtract(ONE, multiply(TWO, upper))), x)


def normal_bell(x: Operand) -> Float32s:
    """Return exp(-x**2 / 2)."""
    return exp(multiply(-HALF, multiply(x, x)))


def normal_density(x: Operand) -> Float32s:
    """Return exp(-x**2 / 2) / sqrt(2 pi)."""
    return multiply(normal_bell(x), INV_SQRT_2PI)


def normal_cdf(x: Operand) -> Float32s:
    """Return the normal distribution's Phi(x) = (1 + erf(x / sqrt(2))) / 2: Q(|x|) below 0, else 1 - Q(|x|)."""
    x = flush(x)
    upper = _normal_tail(np.abs(x), normal_bell(x))
    return np.where(x < 0, upper, subtract(ONE, upper))


def _normal_tail(size: Operand, bell: Operand) -> Float32s:
    """Return Q(size) = `bell (u p(u))`, u = 1 / (1 + size / 4), given `bell` = exp(-size**2 / 2)."""
    near = divide(ONE, add(ONE, multiply(QUARTER, size)))
    return multiply(bell, multiply(near, polynomial(near, TAIL)))


def _signed(size: Float32s, like: Operand) -> Float32s:
    """Return `size` with the sign of `like`; a NaN stays the canonical one."""
    return np.where(np.isnan(size), size, np.copysign(size, like))
