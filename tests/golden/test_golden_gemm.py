import numpy as np
import pytest
from array_cases import random_bf16, random_fp16
from naive_gemm import gemm_naive

from accel.errors import ConfigError
from accel.golden.gemm import gemm
from accel.golden.numeric import bits
from accel.golden.prune import prune
from accel.sparsity import DENSE, NMPattern


def survivors(entries, dim_k):
    """Return which elements (dim_k, dim_n) became entries."""
    group, k_inner = entries.pattern.group, dim_k // entries.k_taps
    per_tap = -(-k_inner // group)
    result = np.zeros((dim_k, entries.dim_n), bool)
    for g, step, col in np.argwhere(entries.valid):
        tap, within = divmod(int(g), per_tap)
        result[tap * k_inner + within * group + entries.index[g, step, col], col] = True
    return result


@pytest.mark.parametrize("draw", [random_fp16, random_bf16])
@pytest.mark.parametrize("seed", range(40))
def test_gemm_equals_the_loops(seed, draw):
    rng = np.random.default_rng(seed)
    group = int(rng.choice([1, 2, 4, 8]))
    pattern = NMPattern(int(rng.integers(1, group + 1)), group)
    dim_m, dim_n, k_taps, k_inner = (int(size) for size in rng.integers(1, [5, 5, 4, 12]))
    lhs, rhs = draw(rng, (dim_m, k_taps * k_inner)), draw(rng, (k_taps * k_inner, dim_n))
    entries = prune(rhs, pattern, k_taps)
    expected = gemm_naive(lhs, rhs, survivors(entries, len(rhs)))
    assert np.array_equal(bits(gemm(lhs, entries)), expected), f"seed {seed}, {pattern}, {lhs.shape} x {rhs.shape}"


def test_dense_forms_give_the_same_bits():
    rng = np.random.default_rng(5)
    lhs, rhs = random_fp16(rng, (5, 21)), random_fp16(rng, (21, 6))
    dense = bits(gemm(lhs, rhs))
    for pattern in (DENSE, NMPattern(4, 4), NMPattern(8, 8)):
        assert np.array_equal(bits(gemm(lhs, prune(rhs, pattern, k_taps=3))), dense)


def test_infinity_times_pruned_is_not_nan():
    lhs = np.float16([[np.inf, 2]])
    rhs = np.float16([[0], [3]])
    assert gemm(lhs, prune(rhs, NMPattern(1, 2))).tolist() == [[6]]
    assert np.isnan(gemm(lhs, rhs)).all()


def test_sums_start_at_plus_zero():
    assert bits(gemm(np.float16([[-0.0]]), np.float16([[1]]))).tolist() == [[0]]


def test_k_is_summed_in_order():
    lhs = np.float16([[2048, 1, -2048]])
    rhs = np.float16([[8192], [1], [8192]])
    assert gemm(lhs, rhs).tolist() == [[0]]  # 2**24 + 1 rounds to 2**24


def test_an_entry_that_is_not_valid_leaves_a_bf16_sum_of_minus_zero():
    """2^-126 - 1.5 * 2^-126 is -2^-127, which is flushed to -0; the third place of the group pads it."""
    lhs, rhs = np.array([[0x2000, 0xA040]], np.uint16), np.array([[0x2000], [0x2000]], np.uint16)
    entries = prune(rhs, NMPattern(4, 4))
    assert entries.valid.ravel().tolist() == [True, True, False, False]
    assert bits(gemm(lhs, entries)).tolist() == [[0x80000000]]


def test_bf16_products_overflow_where_their_sum_would_not():
    lhs, rhs = np.array([[0x5F80, 0xDF80]], np.uint16), np.array([[0x5F80], [0x5F80]], np.uint16)
    assert bits(gemm(lhs, rhs)).tolist() == [[0x7FC00000]]  # 2^128 - 2^128


@pytest.mark.parametrize(
    ("lhs", "rhs", "found"),
    [(np.float16, np.uint16, "float16 and uint16"), (np.float32, np.float16, "float16 and float32"), (float, float, "float64")],
)
def test_operands_of_two_formats_are_refused(lhs, rhs, found):
    message = rf"^operands must all be float16, or all uint16 \(patterns of BF16\), not {found}; round them alike$"
    with pytest.raises(ConfigError, match=message):
        gemm(np.zeros((1, 1), lhs), prune(np.zeros((1, 1), rhs), NMPattern(1, 1)))
