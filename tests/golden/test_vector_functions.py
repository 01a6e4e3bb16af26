"""The vector unit's arithmetic, sums and elementary functions: bits against plain loops, errors against float64."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_gemm import round_fp32

from accel.golden.numeric import bits
from accel.golden.vector import arithmetic, functions

SPECIAL = np.array(
    [
        *(0x00000000, 0x80000000, 0x7F800000, 0xFF800000, 0x7FC00000, 0xFFC00001, 0x7F800001),
        *(0x00000001, 0x807FFFFF, 0x00800000, 0x80800001, 0x7F7FFFFF, 0xFF7FFFFF, 0x3F800000, 0xBF800001),
    ],
    np.uint32,
).view(np.float32)
"""Zeros, infinities, NaNs, subnormals, the smallest and largest normal numbers, and numbers beside 1."""


def flushed(value):
    """Return a Python float as the unit's FP32: rounded, then without subnormals."""
    rounded = round_fp32(value)
    return math.copysign(0.0, rounded) if abs(rounded) < 2.0**-126 else rounded


def pattern(value):
    return 0x7FC00000 if math.isnan(value) else int(bits(np.array([value], np.float32))[0])


def quotient(left, right):
    if right == 0 and not math.isnan(left):
        return math.nan if left == 0 else math.copysign(math.inf, left) * math.copysign(1.0, right)
    return left / right if right else math.nan


def operands(rng, size):
    """Return pairs of every special value with every other, of raw bits, and of neighbours."""
    raw = rng.integers(0, 2**32, (2, size), dtype=np.uint32)
    near = raw[0] ^ rng.integers(0, 2**26, size, dtype=np.uint32)
    left = np.concatenate([np.repeat(SPECIAL, len(SPECIAL)), raw[0].view(np.float32), raw[0].view(np.float32)])
    right = np.concatenate([np.tile(SPECIAL, len(SPECIAL)), raw[1].view(np.float32), near.view(np.float32)])
    return left, right


@pytest.mark.parametrize(
    ("name", "exact"),
    [
        ("add", lambda left, right: left + right),
        ("subtract", lambda left, right: left - right),
        ("multiply", lambda left, right: left * right),
        ("divide", quotient),
        ("larger", lambda left, right: math.nan if math.isnan(left) or math.isnan(right) else right if right > left else left),
    ],
)
def test_operation_of_two_rounds_and_flushes_like_python_floats(name, exact):
    left, right = operands(np.random.default_rng(1), 3000)
    pairs = [(flushed(float(a)), flushed(float(b))) for a, b in zip(left, right, strict=True)]
    expected = [pattern(flushed(exact(a, b))) for a, b in pairs]
    assert bits(getattr(arithmetic, name)(left, right)).tolist() == expected


def test_root_rounds_and_flushes_like_python_floats():
    values, _ = operands(np.random.default_rng(2), 3000)
    flat = [flushed(float(value)) for value in values]
    expected = [pattern(value if value == 0 else math.nan if not value > 0 else flushed(math.sqrt(value))) for value in flat]
    assert bits(arithmetic.root(values)).tolist() == expected


def test_load_keeps_every_fp16_number_and_makes_nan_canonical():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    loaded, is_nan = arithmetic.load(every), np.isnan(every)
    assert np.array_equal(loaded[~is_nan].astype(np.float16).view(np.uint16), every[~is_nan].view(np.uint16))
    assert set(bits(loaded[is_nan]).tolist()) == {0x7FC00000}


def sum_naive(values):
    total = 0.0
    for value in values:
        total = flushed(total + flushed(float(value)))
    return pattern(total)


@given(st.lists(st.floats(width=32), max_size=12))
def test_sum_is_that_of_a_plain_loop(values):
    assert pattern(float(arithmetic.sum_rows(np.array(values, np.float32)))) == sum_naive(values)


@given(st.lists(st.integers(-3, 3), min_size=1, max_size=12), st.integers(-149, -124))
def test_sum_flushes_after_every_addition(multiples, exponent):
    values = (np.array(multiples) * 1.25 * 2.0**exponent).astype(np.float32)
    assert pattern(float(arithmetic.sum_rows(values))) == sum_naive(values)


def test_a_partial_sum_that_is_flushed_is_lost():
    values = np.array([0x00C00000, 0x80800000, 0x00C00000], np.uint32).view(np.float32)
    assert bits(arithmetic.sum_rows(values)) == 0x00C00000  # 1.5 - 1 in units of 2**-126 is flushed


def test_long_sums_are_in_order_over_every_seam():
    values = np.random.default_rng(3).standard_normal((3000, 1000), np.float32)  # three pieces
    sums = arithmetic.sum_rows(values)
    for column in (0, 999):
        assert pattern(float(sums[column])) == sum_naive(values[:, column])
    assert np.array_equal(bits(arithmetic.sum_along(values.T)), bits(sums))


def test_sum_of_nothing_and_of_negative_zeros_is_positive_zero():
    assert bits(arithmetic.sum_rows(np.zeros((0, 2), np.float32))).tolist() == [0, 0]
    assert bits(arithmetic.sum_rows(np.full((3, 1), -0.0, np.float32))).tolist() == [0]


def near(*points, steps=300):
    """Return FP32 numbers beside `points`, on both sides of zero."""
    around = np.concatenate([bits(np.float32([point])) + np.arange(-steps, steps, dtype=np.int64) for point in points])
    values = around.astype(np.uint32).view(np.float32)
    return np.concatenate([values, -values])


def ulps(values, exact):
    """Return the errors of FP32 `values` in units of the last place of the exact result."""
    exponent = np.maximum(np.frexp(np.abs(exact))[1], -125)
    return np.abs(values.astype(np.float64) - exact) / np.ldexp(1.0, exponent - 24)


ERF, ERFC = np.vectorize(math.erf), np.vectorize(math.erfc)
REFERENCES = {
    "exp": np.exp,
    "log": np.log,
    "sigmoid": lambda x: 1 / (1 + np.exp(-x)),
    "tanh": np.tanh,
    "erf": ERF,
    "normal_cdf": lambda x: ERFC(-x / math.sqrt(2)) / 2,
    "normal_density": lambda x: np.exp(-x * x / 2) / math.sqrt(2 * math.pi),
    "reciprocal_root": lambda x: 1 / np.sqrt(x),
}


def worst(name, inputs):
    """Return the largest error where exact results are normal numbers, and the input it is at."""
    function = getattr(functions, name, None) or getattr(arithmetic, name)
    with np.errstate(all="ignore"):
        exact = REFERENCES[name](inputs.astype(np.float64))
    is_normal = (np.abs(exact) >= 2.0**-126) & (np.abs(exact) < np.finfo(np.float32).max)
    errors = ulps(function(inputs)[is_normal], exact[is_normal])
    return errors.max(), inputs[is_normal][errors.argmax()]


@pytest.mark.parametrize(
    ("name", "low", "high", "corners", "least", "most"),
    [  # the bounds of docs/numerics.md; a worst error below `least` would mean that this test sees too little
        ("exp", -87.34, 88.73, (math.log(2) / 2, 1.5 * math.log(2), 87.3365, 88.7228, 1e-8, 2.0**-126), 0.9, 1.2),
        ("log", 2.0**-126, 3.4e38, (1, math.sqrt(0.5), math.sqrt(2), 2, 2.0**-126, 3.4e38), 0.6, 0.9),
        ("sigmoid", -87.3, 100, (1e-8, 17, 87, 1), 1.7, 2.3),
        ("tanh", -100, 100, (0.625, 9, 2.0**-120, 1e-4), 0.9, 1.6),
        ("erf", -100, 100, (1, 3.9, 2.0**-120, 1e-4), 0.8, 1.5),
        ("reciprocal_root", 2.0**-126, 3.4e38, (1, 2, 4, 2.0**-126), 1.2, 1.5),
    ],
)
def test_function_is_as_close_as_the_document_says(name, low, high, corners, least, most):
    stride = np.arange(0, 2**32, 20011, dtype=np.uint64).astype(np.uint32).view(np.float32)
    inputs = np.concatenate([stride, near(*corners)])
    inputs = inputs[(inputs >= low) & (inputs <= high) & (np.abs(inputs) >= (2.0**-120 if name == "erf" else 2.0**-126))]
    error, at = worst(name, inputs)
    assert least <= error <= most, f"{name}({at!r}) is off by {error} units in the last place"


@pytest.mark.parametrize(("name", "most"), [("normal_cdf", 7.0), ("normal_density", 2.0)])
def test_normal_distribution_of_every_fp16_number_is_close(name, most):
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    error, at = worst(name, every[np.isfinite(every)].astype(np.float32))
    assert most / 2 <= error <= most, f"{name}({at!r}) is off by {error} units in the last place"


@pytest.mark.parametrize(
    ("name", "results"),
    [  # of +0, -0, +inf, -inf, NaN, the largest subnormal and its negative
        ("exp", (1, 1, np.inf, 0.0, np.nan, 1, 1)),
        ("log", (-np.inf, -np.inf, np.inf, np.nan, np.nan, -np.inf, -np.inf)),
        ("sigmoid", (0.5, 0.5, 1, 0.0, np.nan, 0.5, 0.5)),
        ("tanh", (0.0, -0.0, 1, -1, np.nan, 0.0, -0.0)),
        ("erf", (0.0, -0.0, 1, -1, np.nan, 0.0, -0.0)),
        ("normal_cdf", (0.5, 0.5, 1, 0.0, np.nan, 0.5, 0.5)),
        ("reciprocal_root", (np.inf, -np.inf, 0.0, np.nan, np.nan, np.inf, -np.inf)),
    ],
)
def test_function_of_special_values(name, results):
    special = np.array([0, 0x80000000, 0x7F800000, 0xFF800000, 0xFFC00001, 0x007FFFFF, 0x807FFFFF], np.uint32)
    function = getattr(functions, name, None) or getattr(arithmetic, name)
    assert bits(function(special.view(np.float32))).tolist() == [pattern(result) for result in results]


def test_exp_beside_its_limits():
    least, most = functions.EXP_LEAST, functions.EXP_MOST
    below, above = np.nextafter(least, np.float32(-np.inf)), np.nextafter(most, np.float32(np.inf))
    values = functions.exp(np.array([below, least, most, above], np.float32))
    assert values[0] == 0
    assert 2.0**-126 <= values[1] < 2.0**-125
    assert 3.4e38 < values[2] < np.inf
    assert values[3] == np.inf


def test_constants_are_the_nearest_fp32_numbers():
    assert np.float32(math.log2(math.e)) == functions.LOG2_E
    assert float(functions.LN2_HIGH) + float(functions.LN2_LOW) == pytest.approx(math.log(2), rel=2e-14)
    assert int(bits(np.array([functions.LN2_HIGH]))[0]) & 0xFF == 0  # 16 bits: times an exponent it is exact
    assert (np.float32(math.sqrt(2)), np.float32(math.sqrt(0.5))) == (functions.SQRT_2, functions.SQRT_HALF)
    assert np.float32(1 / math.sqrt(2 * math.pi)) == functions.INV_SQRT_2PI
