import os
from dataclasses import replace

import numpy as np
import pytest
from array_cases import Case, random_case
from numba import config

from accel.golden.feed import ArrayForm
from accel.sparsity import DENSE, NMPattern
from accel.timing.array import (
    os_compute_cycles,
    os_end_cycles,
    os_run_cycles,
    os_slot_cycles,
    os_tile_cycles,
    ws_compute_cycles,
    ws_end_cycles,
    ws_run_cycles,
    ws_slot_cycles,
    ws_tile_cycles,
)

# Fewer as plain Python, which takes several times as long for each.
SEEDS, CASES_PER_SEED, SOAK_PARTS = 40, 11 if config.DISABLE_JIT else 55, 100
ONE_PE = Case("OS", ArrayForm(1, 1, 1, 1, 1), DENSE, count=1, dim_m=1, dim_n=1, k_taps=1, k_inner=1, m_chunk=1)


@pytest.mark.parametrize("seed", range(SEEDS))
def test_closed_form_and_bits_equal_the_register_model(seed):
    for number in range(CASES_PER_SEED):
        rng = np.random.default_rng([seed, number])
        random_case(rng).check(rng, f"seed {seed}, case {number}")


@pytest.mark.soak
@pytest.mark.parametrize("part", range(SOAK_PARTS))
def test_closed_form_and_bits_equal_the_register_model_at_length(part):
    for number in range(int(os.environ.get("ACCEL_SOAK_CASES", "100000")) // SOAK_PARTS):
        rng = np.random.default_rng([SEEDS + part, number])
        random_case(rng).check(rng, f"seed {SEEDS + part}, case {number}")


@pytest.mark.parametrize(
    ("case", "cycles"),
    [
        # Port 0, adder input 1, sum 2, the two drain registers 3 and 4.
        (ONE_PE, 5),
        # Entry 0, port 1, adder input 2, sum 3, bottom register 4.
        (replace(ONE_PE, dataflow="WS"), 5),
        # Two steps of two lanes: row 0's last sum at 6, then three drain registers in each of two rows.
        (replace(ONE_PE, form=ArrayForm(2, 1, 2, 1, 1), dim_m=2, dim_n=2, k_inner=2), 13),
        # Three tiles of one step each, drained in 2 rows * 1 lane: 0, 2, 4; the last sum of row 0 at 6, then 2 * 2 registers.
        (replace(ONE_PE, form=ArrayForm(2, 1, 1, 1, 1), dim_m=2, dim_n=3), 11),
        # Last tile uses one of 9 columns; the tile before it started 1 cycle earlier and ends 7 cycles later.
        (replace(ONE_PE, form=ArrayForm(1, 9, 1, 1, 1), dim_n=10), 13),
    ],
)
def test_runs_worked_out_by_hand(case, cycles):
    assert case.closed_form() == cycles
    case.check(np.random.default_rng(0), "by hand")


def test_one_row_tile_is_the_longer_of_compute_and_drain():
    assert os_tile_cycles(4, 16, 32, 1) == 128  # 1x1 convolution of 64 channels at 2:8: 64 of compute, 128 of drain
    assert os_tile_cycles(4, 16, 32, 2) == 64
    assert os_tile_cycles(4, 40, 32, 1) == 160
    assert os_tile_cycles(4, 1, 1, 1) == 4


def test_ws_tile_is_the_longer_of_stream_and_way_down():
    assert ws_tile_cycles(32, 4, 1, 100, 32, 2) == 800
    assert ws_tile_cycles(32, 4, 4, 100, 32, 2) == 256
    assert ws_tile_cycles(32, 4, 4, 100, 33, 2) == 259  # partial sums come round again


def test_run_is_slots_and_ends():
    os_sizes, ws_sizes = (8, 8, 4, 2), (8, 8, 4, 2)
    slots = os_slot_cycles(*os_sizes, 1, 100, 70, 30, 3)
    ends = os_end_cycles(*os_sizes, 1, 2, 100, 70, 30)
    assert os_run_cycles(*os_sizes, 1, 2, 100, 70, 30, 3) == slots + ends
    slots = ws_slot_cycles(*ws_sizes, 100, 70, 30, 2, 40, 3)
    ends = ws_end_cycles(*ws_sizes, 2, 100, 70, 30, 2, 40)
    assert ws_run_cycles(*ws_sizes, 2, 100, 70, 30, 2, 40, 3) == slots + ends


def test_slots_are_compute_where_nothing_holds_it_up():
    assert os_slot_cycles(8, 8, 4, 2, 1, 100, 70, 8, 3) == os_compute_cycles(8, 8, 4, 2, 100, 70, 8, 3)
    assert os_slot_cycles(8, 8, 4, 2, 1, 100, 70, 7, 3) > os_compute_cycles(8, 8, 4, 2, 100, 70, 7, 3)
    assert ws_slot_cycles(8, 8, 4, 2, 96, 70, 30, 2, 48, 3) == ws_compute_cycles(8, 8, 4, 2, 96, 70, 30, 2, 48, 3)
    assert ws_slot_cycles(8, 8, 4, 2, 100, 70, 30, 2, 48, 3) > ws_compute_cycles(8, 8, 4, 2, 100, 70, 30, 2, 48, 3)


def test_long_runs_do_not_wrap():
    one, many = (os_slot_cycles(32, 32, 4, 1, 1, 2**20, 2**11, 2**10, count) for count in (1, 2**15))
    assert many == 2**15 * one > 2**45
    one, many = (ws_slot_cycles(32, 32, 4, 1, 2**20, 2**11, 2**10, 2, 2**12, count) for count in (1, 2**15))
    assert many == 2**15 * one > 2**45


def test_a_chunk_longer_than_m_is_all_of_m():
    case = replace(ONE_PE, dataflow="WS", dim_m=5, k_inner=3)
    assert replace(case, m_chunk=5).closed_form() == replace(case, m_chunk=2**31).closed_form()


def test_patterns_of_one_density_differ_only_by_padding():
    case = replace(ONE_PE, form=ArrayForm(2, 2, 4, 2, 2), dim_m=9, dim_n=9)
    two_four, four_eight = (replace(case, pattern=pattern, k_inner=16) for pattern in (NMPattern(2, 4), NMPattern(4, 8)))
    assert two_four.closed_form() == four_eight.closed_form()
