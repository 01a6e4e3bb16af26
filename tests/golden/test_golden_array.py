from dataclasses import replace

import numpy as np
import pytest
from array_cases import Case, random_bf16, random_case

from accel.golden import feed
from accel.golden.array import lanes_at_work
from accel.golden.feed import ArrayForm
from accel.presets import PRESETS
from accel.sparsity import DENSE, NMPattern

BASE = Case(
    dataflow="OS",
    form=ArrayForm(rows=3, cols=2, lanes=2, row_lanes=1, multiplier_latency=2, drain_lanes=1),
    pattern=NMPattern(1, 2),
    count=1,
    dim_m=6,
    dim_n=9,
    k_taps=1,
    k_inner=2,
    m_chunk=1,
)
DEEP = replace(BASE, dataflow="WS", k_inner=14)


def check(case, seed=0):
    case.check(np.random.default_rng(seed), f"seed {seed}")


def start_earlier(tiles):
    """Start every tile but the first one cycle too early."""
    return lambda *args: [replace(tile, start=tile.start - (index > 0)) for index, tile in enumerate(tiles(*args))]


def test_a_tile_before_the_drain_has_ended_is_caught(monkeypatch):
    check(BASE)
    monkeypatch.setattr(feed, "os_tiles", start_earlier(feed.os_tiles))
    with pytest.raises(AssertionError, match=r"^a sum finished while another one came down its chain"):
        check(BASE)


def test_the_way_through_the_psum_buffer_takes_all_its_cycles(monkeypatch):
    check(DEEP)
    monkeypatch.setattr(feed, "PSUM_TURN_CYCLES", feed.PSUM_TURN_CYCLES - 1)
    with pytest.raises(AssertionError, match=r"^partial sum read before written"):
        check(DEEP)


@pytest.mark.parametrize(
    ("row_lanes", "late_cycles", "message"),
    [(1, 1, r"^swapped before loaded"), (1, -6, r"^two entries on one north link"), (2, -8, r"^loaded over a shadow")],
)
def test_entries_that_come_at_the_wrong_time_are_caught(monkeypatch, row_lanes, late_cycles, message):
    case = replace(DEEP, form=replace(DEEP.form, row_lanes=row_lanes))
    check(case)
    in_time = feed._feed_ws_north

    def too_late(table, number, tile, entries):
        in_time(table, number, replace(tile, start=tile.start + late_cycles * (number > 0)), entries)

    monkeypatch.setattr(feed, "_feed_ws_north", too_late)
    with pytest.raises(AssertionError, match=message):
        check(case)


def test_dataflows_give_the_same_bits():
    rng = np.random.default_rng(7)
    case = replace(BASE, dim_m=7, k_taps=2, k_inner=13, pattern=NMPattern(2, 4), m_chunk=4)
    lhs, rhs = case.operands(rng)
    out_stationary, rhs_stationary = (replace(case, dataflow=dataflow).run(lhs, rhs).out for dataflow in ("OS", "WS"))
    assert np.array_equal(out_stationary.view(np.uint32), rhs_stationary.view(np.uint32))


@pytest.mark.parametrize("dataflow", ["OS", "WS"])
@pytest.mark.parametrize("arch", [arch for arch in PRESETS.values() if arch.pes <= 1024], ids=lambda arch: arch.name)
def test_every_interleave_form_of_the_presets_runs(arch, dataflow):
    for row_lanes in arch.row_lanes:
        form = ArrayForm(
            arch.array_rows, arch.array_cols, arch.adder_latency, row_lanes, arch.multiplier_latency, arch.drain_lanes
        )
        for pattern in (DENSE, NMPattern(arch.group // 4, arch.group)):
            k_inner = 3 * pattern.group + 1
            case = Case(dataflow, form, pattern, 1, form.tile_rows + 1, form.tile_cols + 1, 1, k_inner, form.tile_rows)
            check(case, row_lanes)


@pytest.mark.parametrize("seed", range(4))
def test_bf16_gives_the_bits_of_the_product_in_the_same_cycles(seed):
    for number in range(15):
        rng = np.random.default_rng([seed, number])
        replace(random_case(rng), draw=random_bf16).check(rng, f"seed {seed}, case {number}")


def test_each_lane_multiplies_every_entry_of_its_outputs_once_in_its_own_slots():
    seed = 11
    for number in range(20):
        rng = np.random.default_rng([seed, number])
        case = replace(random_case(rng), dataflow="OS")
        lhs, rhs = case.operands(rng)
        lanes = lanes_at_work(case.form, lhs, rhs)
        cycle, row, col = np.nonzero(lanes >= 0)
        label = f"seed {seed}, case {number}: {case}"
        assert len(cycle) == case.dim_m * sum(int(side.valid.sum()) for side in rhs), label
        assert np.array_equal((cycle - row - col) % case.form.lanes, lanes[cycle, row, col]), label
