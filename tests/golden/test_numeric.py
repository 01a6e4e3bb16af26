import math

import numpy as np
import pytest
from array_cases import SPECIAL
from naive_gemm import fp16_bits, round_fp32

from accel.golden.numeric import add, bits, canonical, multiply, to_fp16

INF = np.float32(np.inf)


def fp32_of(patterns):
    return np.asarray(patterns, np.uint32).view(np.float32)


def random_fp32(rng, size):
    """All exponents: raw bits, NaN and infinity included."""
    return fp32_of(rng.integers(0, 2**32, size, dtype=np.uint32))


def test_product_of_every_pair_of_special_values_is_exact():
    left, right = np.meshgrid(SPECIAL.view(np.float16), SPECIAL.view(np.float16))
    with np.errstate(invalid="ignore"):
        exact = left.astype(np.float64) * right.astype(np.float64)
    product = multiply(left, right)
    assert np.array_equal(product.astype(np.float64), exact, equal_nan=True)
    assert np.array_equal(np.signbit(product)[~np.isnan(exact)], np.signbit(exact)[~np.isnan(exact)])


def test_every_nan_becomes_the_canonical_one():
    patterns = fp32_of([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF])
    assert set(bits(canonical(patterns)).tolist()) == {0x7FC00000}
    assert set(bits(add(patterns, np.float32([1, 1, 1, 1]))).tolist()) == {0x7FC00000}
    assert set(bits(to_fp16(patterns)).tolist()) == {0x7E00}
    nan_fp16 = np.array([0x7D55, 0xFE01], np.uint16).view(np.float16)
    assert set(bits(multiply(nan_fp16, nan_fp16)).tolist()) == {0x7FC00000}


@pytest.mark.parametrize(
    ("left", "right", "result"),
    [
        (0x00000000, 0x80000000, 0x00000000),  # +0 + -0
        (0x80000000, 0x80000000, 0x80000000),  # -0 + -0
        (0x3F800000, 0xBF800000, 0x00000000),  # 1 - 1
        (0x7F800000, 0xFF800000, 0x7FC00000),  # inf - inf
        (0x7F7FFFFF, 0x7F7FFFFF, 0x7F800000),  # overflow
        (0x4B800000, 0x3F800000, 0x4B800000),  # 2**24 + 1: a tie, to even
        (0x4B800001, 0x3F800000, 0x4B800002),  # 2**24 + 2 + 1: a tie, to even
        (0x00000001, 0x00000001, 0x00000002),  # subnormals are kept
    ],
)
def test_sum(left, right, result):
    assert bits(add(fp32_of([left]), fp32_of([right])))[0] == result


def test_sums_round_like_python_floats():
    rng = np.random.default_rng(1)
    left, right = random_fp32(rng, 5000), random_fp32(rng, 5000)
    near = (bits(left) ^ rng.integers(0, 2**26, 5000, dtype=np.uint32)).view(np.float32)
    for other in (right, near):
        expected = [round_fp32(float(a) + float(b)) for a, b in zip(left, other, strict=True)]
        assert np.array_equal(bits(add(left, other)), bits(canonical(np.array(expected, np.float32))))


def test_fp16_results_round_like_python_floats():
    rng = np.random.default_rng(2)
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    beside = (bits(every) + np.uint32(0x1000) + rng.integers(-1, 2, 2**16).astype(np.uint32)).view(np.float32)
    values = np.concatenate([every, beside, random_fp32(rng, 5000), [INF, -INF]])
    expected = np.array([fp16_bits(float(value)) for value in values], np.uint16)
    assert np.array_equal(bits(to_fp16(values)), expected)


def test_fp16_results_keep_subnormals_and_signed_zero():
    values = np.float32([2.0**-24, -(2.0**-25), 2.0**-25 * 1.5, -0.0, 65520, 65519.99])
    assert bits(to_fp16(values)).tolist() == [0x0001, 0x8000, 0x0001, 0x8000, 0x7C00, 0x7BFF]


def test_products_are_never_subnormal():
    smallest = np.array([1], np.uint16).view(np.float16)
    assert float(multiply(smallest, smallest)[0]) == 2.0**-48 > math.ldexp(1, -126)
