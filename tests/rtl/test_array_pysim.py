# amaranth: UnusedElaboratable=no
"""The array as Amaranth itself simulates it, all components in place: a few of the runs that the Verilog is checked with."""

import pytest
from array_checker import check
from array_driver import Batch
from array_model import draw_case
from array_pysim import PysimBench

from accel.rtl.parameters import ArrayParameters

ARRAY = ArrayParameters(
    rows=2, cols=2, adder_latency=4, multiplier_latency=2, group=4, row_lanes=(1, 2, 4), drain_lanes=2, psum_words=16
)
SEED = 5


@pytest.mark.parametrize("profile", ["none", "heavy", "starved"])
def test_every_run_gives_its_bits_cycles_and_counters(profile):
    drawn = [draw_case(ARRAY, SEED, index, 120) for index in range(60)]
    cases = [case for case in drawn if case.profile == profile][:6]
    assert {case.run.dataflow for case in cases} == {"OS", "WS"}
    check(Batch.of(cases), PysimBench(Batch.of(cases)).run())


def test_a_run_that_differs_is_named_with_how_to_repeat_it():
    batch = Batch.of([draw_case(ARRAY, SEED, index, 60) for index in range(2)])
    batch.sinks[0].words[0] = "1"
    with pytest.raises(
        AssertionError, match=rf"(?s)o_out__0 word 0: .*in run 0 of seed {SEED}.*ARRAY_SEED={SEED} ARRAY_RUNS=0:1"
    ):
        check(batch, PysimBench(batch).run())
