import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from array_cases import random_fp16
from hypothesis import given, note, settings
from hypothesis import strategies as st

import accel
from accel import jit
from accel.errors import ConfigError
from accel.golden.gemm import gemm as golden_gemm
from accel.golden.numeric import bits, to_fp16
from accel.golden.prune import prune
from accel.kernels import gemm as module
from accel.kernels.gemm import gemm, gemm_nm
from accel.sparsity import NMPattern

SEEDS = st.integers(0, 2**32 - 1)
SIZES = st.integers(1, 70)
THREADS = st.sampled_from([1, 2])
TAME = settings(deadline=None, max_examples=60)  # the first example compiles


def assert_same_bits(found, expected):
    wrong = np.argwhere(bits(found) != bits(expected))
    assert not len(wrong), f"{len(wrong)} outputs differ, the first at {wrong[0]}"


@TAME
@given(SEEDS, SIZES, SIZES, SIZES, THREADS, st.booleans())
def test_dense_product_has_the_bits_of_golden(seed, dim_m, dim_k, dim_n, threads, is_wide):
    rng = np.random.default_rng(seed)
    lhs, rhs = random_fp16(rng, (dim_m, dim_k)), random_fp16(rng, (dim_k, dim_n))
    note(f"numpy seed {seed}, {lhs.shape} x {rhs.shape}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "IS_WIDE", is_wide)  # both forms on any host
        assert_same_bits(gemm(lhs, rhs, threads=threads), golden_gemm(lhs, rhs))


@st.composite
def pruned(draw):
    """Return lhs, and entries of which some are no longer valid, of any pattern and number of taps."""
    seed, group, k_taps = draw(SEEDS), draw(st.integers(1, 16)), draw(st.integers(1, 4))
    pattern = NMPattern(draw(st.integers(1, group)), group)
    dim_m, dim_n, k_inner = draw(SIZES), draw(SIZES), draw(st.integers(1, 40))
    note(f"numpy seed {seed}, pattern {pattern}, {k_taps} taps of {k_inner}, dim_m {dim_m}, dim_n {dim_n}")
    rng = np.random.default_rng(seed)
    lhs, rhs = random_fp16(rng, (dim_m, k_taps * k_inner)), random_fp16(rng, (k_taps * k_inner, dim_n))
    entries = prune(rhs, pattern, k_taps)
    if draw(st.booleans()):
        entries = replace(entries, valid=entries.valid & (rng.random(entries.valid.shape) < 0.7))
    return lhs, entries


@TAME
@given(pruned(), THREADS)
def test_pruned_product_has_the_bits_of_golden(case, threads):
    lhs, entries = case
    assert_same_bits(gemm_nm(lhs, entries, threads=threads), golden_gemm(lhs, entries))


@TAME
@given(pruned())
def test_fp16_results_are_the_rounded_sums(case):
    lhs, entries = case
    found = gemm_nm(lhs, entries, out_dtype=np.float16)
    assert found.dtype == np.float16
    assert_same_bits(found, to_fp16(golden_gemm(lhs, entries)))


@pytest.mark.compiled
def test_every_fp16_number_is_converted_exactly():
    every = np.arange(2**16, dtype=np.uint16).view(np.float16).reshape(-1, 1)
    for one in (np.float16([[1]]), np.float16([[-0.0]]), np.float16([[2**-24]])):
        assert_same_bits(gemm(every, one), golden_gemm(every, one))
        assert_same_bits(gemm(one, every.T), golden_gemm(one, every.T))
    assert_same_bits(gemm(every, np.float16([[1]]), out_dtype=np.float16), to_fp16(golden_gemm(every, np.float16([[1]]))))


@pytest.mark.parametrize("dim_k", [63, 64, 65, 300])
def test_sums_of_wide_range_are_rounded_in_k_order(dim_k):
    rng = np.random.default_rng(dim_k)
    lhs = np.ldexp(rng.normal(size=(33, dim_k)), rng.integers(-14, 15, (33, dim_k))).astype(np.float16)
    rhs = np.ldexp(rng.normal(size=(dim_k, 130)), rng.integers(-14, 15, (dim_k, 130))).astype(np.float16)
    rhs[dim_k // 2 :] = -rhs[: dim_k - dim_k // 2][::-1]  # much cancels
    expected = golden_gemm(lhs, rhs)
    assert np.any(bits(expected) != bits(golden_gemm(lhs[:, ::-1], rhs[::-1]))), "the order must matter here"
    assert_same_bits(gemm(lhs, rhs), expected)
    assert_same_bits(gemm_nm(lhs, prune(rhs, NMPattern(3, 8))), golden_gemm(lhs, prune(rhs, NMPattern(3, 8))))


def test_overflow_is_infinity_and_its_difference_the_canonical_nan():
    lhs = np.full((1, 70), 65504, np.float16)
    rhs = np.concatenate([np.full((69, 1), 65504), [[-np.inf]]]).astype(np.float16)
    assert bits(gemm(np.repeat(lhs, 2, axis=0), rhs)).tolist() == [[0xFF800000]] * 2
    lhs[0, 0] = np.inf
    assert bits(gemm(lhs, rhs)).tolist() == [[0x7FC00000]]
    assert bits(gemm(lhs, rhs, out_dtype=np.float16)).tolist() == [[0x7E00]]


def test_infinity_times_pruned_is_not_nan():
    lhs = np.float16([[np.inf, 2]])
    rhs = np.float16([[0], [3]])
    assert gemm_nm(lhs, prune(rhs, NMPattern(1, 2))).tolist() == [[6]]
    assert np.isnan(gemm(lhs, rhs)).all()


def test_sums_start_at_plus_zero():
    assert bits(gemm(np.float16([[-0.0]]), np.float16([[1]]))).tolist() == [[0]]


def test_an_entry_that_names_padding_multiplies_zero():
    entries = prune(np.ones((6, 1), np.float16), NMPattern(1, 2), k_taps=2)  # the second group of a tap is half padding
    entries = replace(entries, index=np.array([0, 1, 0, 1]).reshape(4, 1, 1))
    lhs = np.float16([[1, 2, 3, 4, 5, 6]])
    assert gemm_nm(lhs, entries).tolist() == [[1 + 4]]
    entries = replace(entries, values=np.full((4, 1, 1), np.inf, np.float16))
    assert_same_bits(gemm_nm(lhs, entries), golden_gemm(lhs, entries))


@pytest.mark.compiled
@pytest.mark.parametrize(("dim_m", "dim_n"), [(2100, 3), (3, 2100), (130, 1100)])
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_products_of_several_tiles(dim_m, dim_n, threads):
    rng = np.random.default_rng(7)
    lhs, rhs = random_fp16(rng, (dim_m, 20)), random_fp16(rng, (20, dim_n))
    entries = prune(rhs, NMPattern(2, 8))
    assert_same_bits(gemm(lhs, rhs, threads=threads), golden_gemm(lhs, rhs))
    assert_same_bits(gemm_nm(lhs, entries, threads=threads), golden_gemm(lhs, entries))


def test_operands_may_be_views():
    rng = np.random.default_rng(3)
    lhs, rhs = random_fp16(rng, (12, 9)).T, random_fp16(rng, (24, 10))[::2, ::-1]
    lhs.setflags(write=False)
    assert_same_bits(gemm(lhs, rhs), golden_gemm(lhs, rhs))
    assert gemm(lhs, rhs).flags.c_contiguous


def test_empty_products():
    empty = np.zeros((0, 3), np.float16)
    assert gemm(empty, np.zeros((3, 2), np.float16)).shape == (0, 2)
    assert gemm(empty.T, np.zeros((0, 2), np.float16)).tolist() == [[0, 0]] * 3
    assert gemm(np.zeros((2, 3), np.float16), empty.T).shape == (2, 0)
    for lhs, rhs in ((empty, np.ones((3, 2), np.float16)), (empty.T, np.zeros((0, 2), np.float16)), (empty[:, :0], empty)):
        entries = prune(rhs, NMPattern(1, 2))
        assert_same_bits(gemm_nm(lhs, entries), golden_gemm(lhs, entries))


def test_no_more_threads_are_started_than_there_are_tiles(monkeypatch):
    asked = []
    pool = module.ThreadPoolExecutor
    monkeypatch.setattr(module, "ThreadPoolExecutor", lambda count: (asked.append(count), pool(count))[1])
    gemm(ONES, ONES.T, threads=1000)
    gemm(np.ones((8, 1), np.float16), np.ones((1, 65), np.float16), threads=1000)
    assert asked == [3]


@pytest.mark.torch
def test_a_host_that_flushes_subnormals_does_no_harm():
    torch = pytest.importorskip("torch")
    lhs, rhs = np.float16([[2**-24, 3 * 2**-24]]), np.float16([[2**-24], [2**-20]])
    expected = golden_gemm(lhs, rhs)
    torch.set_flush_denormal(True)
    try:
        assert_same_bits(gemm(lhs, rhs), expected)
    finally:
        torch.set_flush_denormal(False)


ONES = np.ones((4, 8), np.float16)
ENTRIES = prune(np.ones((8, 3), np.float16), NMPattern(2, 4))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: gemm(ONES.astype(np.float32), ONES.T),
            "lhs must be float16, not float32; round it with accel.golden.numeric.to_fp16",
        ),
        (lambda: gemm(ONES, ONES[0]), "rhs must have 2 dimensions, not 1; reshape it"),
        (lambda: gemm(ONES, ONES), "rhs must have 8 rows, as lhs has columns, not 4; transpose one of them"),
        (lambda: gemm(ONES, ONES.T, out_dtype=np.float64), "out_dtype must be float32 or float16, not float64"),
        (lambda: gemm(ONES, ONES.T, threads=0), "threads must be at least 1, not 0; leave it out for all CPUs"),
        (
            lambda: gemm_nm(ONES, replace(ENTRIES, k_taps=3)),
            "lhs must have a multiple of k_taps (3) columns, not 8; prune rhs with the taps of lhs",
        ),
        (
            lambda: gemm_nm(ONES, replace(ENTRIES, k_taps=0)),
            "entries.k_taps must be at least 1, not 0; make entries with prune",
        ),
        (
            lambda: gemm_nm(ONES[:, :4], ENTRIES),
            "entries.values must have shape (1, 2, 3), not (2, 2, 3); prune an rhs of 4 rows, as lhs has columns",
        ),
        (
            lambda: gemm_nm(ONES, replace(ENTRIES, valid=ENTRIES.valid[:1])),
            "entries.valid must have shape (2, 2, 3), not (1, 2, 3); prune an rhs of 8 rows, as lhs has columns",
        ),
        (
            lambda: gemm_nm(ONES, replace(ENTRIES, values=ENTRIES.values.astype(np.float32))),
            "entries.values must be float16, not float32; prune a float16 rhs",
        ),
        (
            lambda: gemm_nm(ONES, replace(ENTRIES, index=ENTRIES.index + 3)),
            "entries.index must be from 0 to 3, not 3 to 4; make entries with prune",
        ),
    ],
)
def test_what_cannot_be_multiplied_is_refused(call, message):
    with pytest.raises(ConfigError) as caught:
        call()
    assert str(caught.value) == message


def kernels():
    """Yield (module name, name, compiled function) of everything in the folders that hold kernels."""
    for folder in jit._KERNEL_FOLDERS:
        package = importlib.import_module(f"accel.{folder.replace('/', '.')}")
        for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            for name, value in vars(importlib.import_module(info.name)).items():
                if hasattr(value, "targetoptions"):
                    yield info.name, name, value


def test_no_kernel_uses_fastmath():
    assert [(where, name) for where, name, value in kernels() if value.targetoptions.get("fastmath")] == []


def test_only_the_known_folders_hold_kernels():
    package = Path(accel.__file__).parent
    users = {
        path.relative_to(package).parent.as_posix() for path in package.rglob("*.py") if "import kernel\n" in path.read_text()
    }
    assert users <= set(jit._KERNEL_FOLDERS)
    assert [path.name for path in package.rglob("*.py") if "njit" in path.read_text()] == ["jit.py"]
