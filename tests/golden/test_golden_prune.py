import numpy as np
import pytest
from array_cases import random_fp16
from naive_prune import prune_naive

from accel.golden.numeric import bits
from accel.golden.prune import prune, split_groups
from accel.sparsity import DENSE, NMPattern


def kept(values, keep):
    """Return the (index, bits) of the valid entries of one group."""
    entries = prune(np.asarray(values, np.uint16).view(np.float16)[:, None], NMPattern(keep, len(values)))
    pairs = zip(entries.index[0, :, 0].tolist(), bits(entries.values)[0, :, 0].tolist(), entries.valid[0, :, 0], strict=True)
    return [(index, value) for index, value, valid in pairs if valid]


@pytest.mark.parametrize("seed", range(40))
def test_prune_equals_the_loops(seed):
    rng = np.random.default_rng(seed)
    group = int(rng.choice([1, 2, 4, 8, 16]))
    pattern = NMPattern(int(rng.integers(1, group + 1)), group)
    k_taps, k_inner, dim_n = (int(size) for size in rng.integers(1, [4, 21, 6]))
    matrix = random_fp16(rng, (k_taps * k_inner, dim_n))
    matrix[rng.random(matrix.shape) < 0.3] = matrix[0, 0]  # ties
    entries = prune(matrix, pattern, k_taps)
    found = [
        [
            [(int(i), int(v)) if ok else None for i, v, ok in zip(index, value, valid, strict=True)]
            for index, value, valid in zip(
                entries.index[:, :, col], bits(entries.values)[:, :, col], entries.valid[:, :, col], strict=True
            )
        ]
        for col in range(dim_n)
    ]
    assert found == prune_naive(matrix, pattern.keep, pattern.group, k_taps), f"seed {seed}, {pattern}, {matrix.shape}"


def test_order_is_nan_infinity_finite_zero():
    nan, large_nan, inf, one, zero = 0x7C01, 0xFE00, 0xFC00, 0x3C00, 0x8000
    group = [zero, one, inf, nan, large_nan]
    assert [kept(group, keep)[-1][0] for keep in (1, 2)] == [4, 4]
    assert [index for index, _ in kept(group, 2)] == [3, 4]
    assert [index for index, _ in kept(group, 3)] == [2, 3, 4]
    assert [index for index, _ in kept(group, 4)] == [1, 2, 3, 4]


def test_of_equal_magnitudes_the_lower_index_wins():
    assert kept([0x3C00, 0xBC00, 0x3C00, 0xBC00], 2) == [(0, 0x3C00), (1, 0xBC00)]
    assert kept([0x8000, 0x0000], 1) == [(0, 0x8000)]


def test_a_zero_is_kept_as_a_valid_entry_with_its_sign():
    assert kept([0x0000, 0x8000, 0x3C00, 0x0000], 2) == [(0, 0x0000), (2, 0x3C00)]


def test_entries_left_over_are_invalid_and_zero():
    entries = prune(np.float16([[1], [2], [3]]), NMPattern(2, 2), k_taps=3)
    assert entries.valid[:, :, 0].tolist() == [[True, False]] * 3
    assert entries.values[:, 1].tolist() == [[0]] * 3
    assert entries.index[:, 1].tolist() == [[0]] * 3


def test_element_serial_keeps_every_element_in_order():
    matrix = random_fp16(np.random.default_rng(3), (6, 4))
    entries = prune(matrix, DENSE, k_taps=2)
    assert entries.valid.all()
    assert np.array_equal(bits(entries.values[:, 0]), bits(matrix))
    assert (entries.groups, entries.dim_n) == (6, 4)


def test_groups_do_not_cross_taps():
    words = split_groups(np.arange(6), k_taps=2, group=2, fill=-1)
    assert words.tolist() == [[0, 1], [2, -1], [3, 4], [5, -1]]
