import numpy as np
import pytest
from array_cases import SPECIAL, Case, random_case
from numba import config

from accel.errors import ConfigError
from accel.golden.feed import ArrayForm
from accel.golden.gemm import gemm
from accel.golden.numeric import NAN_FP32, bits
from accel.golden.prune import prune
from accel.sim import twin as twin_module
from accel.sim.twin import run_array
from accel.sparsity import NMPattern

CASES = 16 if config.DISABLE_JIT or config.BOUNDSCHECK else 60
FORM = ArrayForm(rows=2, cols=3, lanes=2, row_lanes=1, multiplier_latency=2)


def twin(case, lhs, rhs, enable=None):
    return run_array(case.form, lhs, rhs, case.dataflow, case.m_chunk, enable)


def expected_counters(case, rhs):
    """What must be taken and sent, counted without stepping anything."""
    form, groups = case.form, rhs[0].groups
    visits_of_row = -(-case.dim_n // form.tile_cols)
    chunk = form.tile_rows if case.dataflow == "OS" else min(case.m_chunk, case.dim_m)
    visits_of_col = -(-case.dim_m // chunk)
    return {
        "macs": case.dim_m * sum(int(side.valid.sum()) for side in rhs),
        "west_words": case.count * case.dim_m * groups * visits_of_row,
        "north_entries": case.count * groups * case.pattern.keep * case.dim_n * visits_of_col,
        "out_words": case.count * case.dim_m * case.dim_n,
    }


@pytest.mark.parametrize("seed", range(4))
def test_it_gives_the_bits_and_cycles_of_the_register_model_with_stalls_and_without(seed):
    rng = np.random.default_rng(seed)
    for number in range(CASES // 4):
        case = random_case(rng)
        lhs, rhs = case.operands(rng)
        reference = case.run(lhs, rhs)
        run = twin(case, lhs, rhs)
        assert np.array_equal(bits(run.out), bits(reference.out)), f"case {number}: {case}"
        assert run.cycles == run.counters.cycles == reference.cycles == case.closed_form(), f"case {number}: {case}"
        assert run.counters._asdict() == expected_counters(case, rhs) | {"cycles": run.cycles, "stall_cycles": 0}
        enable = rng.random(rng.integers(1, 2 * run.cycles)) < rng.choice([0.05, 0.5, 0.95])
        stalled = twin(case, lhs, rhs, enable)
        assert np.array_equal(bits(stalled.out), bits(run.out)), f"case {number}: {case}"
        assert stalled.counters._replace(stall_cycles=0) == run.counters, f"case {number}: {case}"


@pytest.mark.parametrize("dataflow", ["OS", "WS"])
@pytest.mark.parametrize("row_lanes", [1, 2, 4])
@pytest.mark.parametrize("drain_lanes", [1, 3])
def test_rows_and_columns_beyond_one_vector(dataflow, row_lanes, drain_lanes):
    rows, cols = (17, 5) if config.DISABLE_JIT else (33, 18)
    form = ArrayForm(rows, cols, 4, row_lanes, 2, drain_lanes)
    dim_m, dim_n = rows * row_lanes + 7, cols * 4 // row_lanes + 3
    case = Case(dataflow, form, NMPattern(2, 8), 1, dim_m, dim_n, k_taps=2, k_inner=13, m_chunk=dim_m // 2)
    check_against_gemm(case, np.random.default_rng(1))


@pytest.mark.parametrize("dataflow", ["OS", "WS"])
@pytest.mark.parametrize("pattern", ["1:1", "1:2", "3:4", "5:6", "8:8", "4:16", "2:20"])
def test_every_way_of_selecting_from_a_group(dataflow, pattern):
    form = ArrayForm(rows=3, cols=2, lanes=4, row_lanes=2, multiplier_latency=1, drain_lanes=2)
    case = Case(dataflow, form, NMPattern.parse(pattern), 2, dim_m=7, dim_n=6, k_taps=1, k_inner=41, m_chunk=4)
    check_against_gemm(case, np.random.default_rng(2))


@pytest.mark.parametrize("dataflow", ["OS", "WS"])
def test_special_values_in_every_pairing(dataflow):
    lhs = np.repeat(SPECIAL.view(np.float16)[None, :, None], 3, axis=2)
    rhs = prune(np.repeat(SPECIAL.view(np.float16)[None], 3, axis=0), NMPattern(1, 1))
    run = run_array(FORM, lhs, [rhs], dataflow, 5)
    assert np.array_equal(bits(run.out[0]), bits(gemm(lhs[0], rhs)))
    nans = bits(run.out[np.isnan(run.out)])
    assert len(nans) > 0
    assert (nans == bits(np.array(NAN_FP32))).all()


@pytest.mark.parametrize("dataflow", ["OS", "WS"])
def test_an_infinity_never_meets_what_was_pruned(dataflow):
    lhs = np.full((1, 4, 8), np.inf, np.float16)
    rhs = prune(np.array([[0, 0, 0, 1, 0, 0, 0, 0]], np.float16).T, NMPattern(1, 8))
    assert (run_array(FORM, lhs, [rhs], dataflow, 4).out == np.inf).all()


def test_it_stands_still_while_the_clock_is_held():
    lhs, rhs = np.ones((1, 1, 1), np.float16), [prune(np.ones((1, 1), np.float16), NMPattern(1, 1))]
    free = run_array(FORM, lhs, rhs, "OS")
    held = run_array(FORM, lhs, rhs, "OS", enable=np.zeros(1000, np.bool_))
    assert held.counters == free.counters._replace(stall_cycles=1000)


def test_words_that_meet_in_a_chain_are_noticed(monkeypatch):
    walk = twin_module._os_walk
    monkeypatch.setattr(twin_module, "_os_walk", lambda *sizes: walk(*sizes)._replace(gap_full=0, gap_last=0))
    lhs, rhs = np.ones((1, 16, 1), np.float16), [prune(np.ones((1, 3), np.float16), NMPattern(1, 1))]
    with pytest.raises(AssertionError, match="while another one came down"):
        run_array(ArrayForm(rows=4, cols=3, lanes=2, row_lanes=1, multiplier_latency=2), lhs, rhs, "OS")


def test_a_partial_sum_that_comes_too_late_is_noticed(monkeypatch):
    monkeypatch.setattr(twin_module, "PSUM_TURN_CYCLES", twin_module.PSUM_TURN_CYCLES - 1)
    lhs, rhs = np.ones((1, 2, 8), np.float16), [prune(np.ones((8, 3), np.float16), NMPattern(1, 1))]
    with pytest.raises(AssertionError, match="read before it was written"):
        run_array(FORM, lhs, rhs, "WS", 1)


def check_against_gemm(case, rng):
    lhs, rhs = case.operands(rng)
    run = twin(case, lhs, rhs)
    expected = np.stack([gemm(left, right) for left, right in zip(lhs, rhs, strict=True)])
    assert np.array_equal(bits(run.out), bits(expected))
    assert run.cycles == case.closed_form()
    assert run.counters._asdict() == expected_counters(case, rhs) | {"cycles": run.cycles, "stall_cycles": 0}


def test_operands_that_do_not_fit_are_refused_with_all_reasons():
    lhs, matrix = np.ones((2, 3, 8), np.float16), np.ones((8, 3), np.float16)
    sides = [prune(matrix, NMPattern(2, 8)), prune(matrix, NMPattern(1, 8))]
    with pytest.raises(ConfigError, match=r"(?s)dataflow must be OS or WS, not IS.*m_chunk must be at least 1, not 0"):
        run_array(FORM, lhs, sides, "IS", 0)
    with pytest.raises(ConfigError, match="one shape and pattern"):
        run_array(FORM, lhs, sides, "OS")
    with pytest.raises(ConfigError, match="must hold 2 operands"):
        run_array(FORM, lhs, sides[:1], "OS")
    with pytest.raises(ConfigError, match="must have the groups of dim_k = 9"):
        run_array(FORM, np.ones((2, 3, 9), np.float16), [sides[0]] * 2, "OS")
    with pytest.raises(ConfigError, match="lhs must be float16"):
        run_array(FORM, lhs.astype(np.float32), sides, "OS")


def test_bf16_is_refused():
    lhs, rhs = np.ones((1, 3, 8), np.float16), np.ones((8, 3), np.float16)
    with pytest.raises(
        ConfigError, match=r"^lhs must be float16 \(count, dim_m, dim_k\), each at least 1, not uint16 \(1, 3, 8\)$"
    ):
        run_array(FORM, lhs.view(np.uint16), [prune(rhs, NMPattern(2, 8))], "OS")
    with pytest.raises(ConfigError, match=r"^rhs must hold float16 values, not uint16$"):
        run_array(FORM, lhs, [prune(rhs.view(np.uint16), NMPattern(2, 8))], "OS")
