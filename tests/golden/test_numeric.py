import math

import numpy as np
import pytest
from array_cases import SPECIAL
from naive_gemm import fp16_bits, round_fp32

from accel.golden.numeric import add, add_bf16, bits, canonical, from_bf16, multiply, multiply_bf16, to_bf16, to_fp16

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


BF16_SPECIAL = np.array(
    [0x0000, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0xFF81, 0x0001, 0x807F, 0x0080, 0x7F7F, 0xFF7F, 0x2000, 0x1FFF, 0x5F80], np.uint16
)


def flushed(exact):
    """Return a Python float as FP32 rounded to nearest even, zero below 2**-126."""
    small = math.copysign(0.0, exact)
    return small if abs(exact) < 2.0**-126 else round_fp32(exact)


def pattern_of(value):
    return 0x7FC00000 if math.isnan(value) else int(bits(np.array([value], np.float32))[0])


def test_bf16_products_are_exact_or_flushed_or_infinite():
    rng = np.random.default_rng(3)
    left = np.concatenate([np.repeat(BF16_SPECIAL, len(BF16_SPECIAL)), rng.integers(0, 2**16, 5000, dtype=np.uint16)])
    right = np.concatenate([np.tile(BF16_SPECIAL, len(BF16_SPECIAL)), rng.integers(0, 2**16, 5000, dtype=np.uint16)])
    pairs = zip(from_bf16(left).tolist(), from_bf16(right).tolist(), strict=True)
    assert bits(multiply_bf16(left, right)).tolist() == [pattern_of(flushed(a * b)) for a, b in pairs]


def test_bf16_operands_that_are_subnormal_count_as_zeros_of_their_sign():
    assert bits(from_bf16(np.array([0x0001, 0x807F, 0x0080], np.uint16))).tolist() == [0, 0x80000000, 0x00800000]
    infinity, tiny = np.array([0x7F80], np.uint16), np.array([0x0001], np.uint16)
    assert bits(multiply_bf16(infinity, tiny)).tolist() == [0x7FC00000]


@pytest.mark.parametrize(
    ("left", "right", "result"),
    [
        (0x00800000, 0x80800001, 0x80000000),  # a difference of one unit in the last place, flushed with its sign
        (0x00800000, 0x80800000, 0x00000000),  # an exact zero is +0
        (0x01000000, 0x80800001, 0x00000000),  # just below 2**-126
        (0x01000000, 0x80800000, 0x00800000),  # 2**-126
        (0x7F7FFFFF, 0x7F7FFFFF, 0x7F800000),
    ],
)
def test_bf16_sum(left, right, result):
    assert bits(add_bf16(fp32_of([left]), fp32_of([right])))[0] == result


def test_bf16_results_are_the_nearest_of_all_bf16_numbers():
    every = np.arange(0x0080, 0x7F80, dtype=np.uint32)
    for offset, up in ((0, 0), (1, 0), (0x7FFF, 0), (0x8001, 1), (0xFFFF, 1)):
        assert np.array_equal(to_bf16(fp32_of((every << 16) + offset)), every + up)
    assert np.array_equal(to_bf16(fp32_of((every << 16) + 0x8000)), every + (every & 1))  # ties to even


def test_bf16_results_of_special_sums():
    patterns = fp32_of([0x7F800000, 0xFF800000, 0xFFC00001, 0x007FFFFF, 0x80000001, 0x80000000, 0x7F7FFFFF])
    assert to_bf16(patterns).tolist() == [0x7F80, 0xFF80, 0x7FC0, 0x0000, 0x8000, 0x8000, 0x7F80]


def test_fp16_results_at_every_tie_and_beside_it():
    values = np.append(np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64), 65536.0)
    middle = ((values[1:] + values[:-1]) / 2).astype(np.float32)
    number = np.arange(len(middle))
    assert np.array_equal(bits(to_fp16(middle)), number + (number & 1))
    assert np.array_equal(bits(to_fp16(np.nextafter(middle, np.float32(0)))), number)
    assert np.array_equal(bits(to_fp16(np.nextafter(middle, INF))), number + 1)
    assert np.array_equal(bits(to_fp16(-middle)), number + (number & 1) | 0x8000)
