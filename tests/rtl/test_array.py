"""The array in Verilog, built in many forms: every word, cycle and counter of drawn runs, one after the other."""

import os

import pytest
from array_build import build, run

from accel.rtl.floats import BF16
from accel.rtl.parameters import ArrayParameters

pytestmark = pytest.mark.rtl

SEED = int(os.environ.get("ARRAY_SEED", "20"))
RUNS = os.environ.get("ARRAY_RUNS", "0:40")
"""Which of the runs that the seed draws, from:to; a failure prints how to repeat one of them."""


def form(rows, cols, lanes, **others):
    return ArrayParameters(rows=rows, cols=cols, adder_latency=lanes, **{"multiplier_latency": 2, "group": 4, **others})


# Together: 1, 2, primes and 16 PEs along a side, the ends of L, P and group, one form and all, one drain chain and as many as
# rows, each dataflow alone and both, psum buffers that are filled to the last word, FP16 and BF16.
BUILDS = {
    "least": form(1, 1, 2, multiplier_latency=1, group=1, dataflows=("OS",)),
    "one_pe": form(1, 1, 8, group=16, row_lanes=(1, 2, 4, 8), psum_words=8),
    "square": form(2, 2, 4, row_lanes=(1, 2, 4), drain_lanes=2, psum_words=16),
    "tall": form(5, 1, 3, multiplier_latency=1, group=2, row_lanes=(1, 3), psum_words=32),
    "wide": form(1, 7, 6, multiplier_latency=4, group=8, row_lanes=(2, 3), psum_words=64),
    "os_only": form(4, 3, 4, multiplier_latency=3, row_lanes=(2,), dataflows=("OS",), drain_lanes=3),
    "ws_only": form(3, 2, 5, group=8, row_lanes=(5,), dataflows=("WS",), psum_words=64),
    "wide_groups": form(3, 3, 2, multiplier_latency=3, group=16, row_lanes=(1, 2), drain_lanes=3, psum_words=32),
    "bf16": form(2, 3, 4, multiplier_latency=3, row_lanes=(1, 2, 4), drain_lanes=2, psum_words=32, operand_format=BF16),
    "bf16_least": form(2, 1, 2, multiplier_latency=1, group=2, row_lanes=(1, 2), psum_words=16, operand_format=BF16),
    "largest": form(12, 10, 2, multiplier_latency=1, group=2, row_lanes=(1, 2), drain_lanes=4, psum_words=64),
}


@pytest.mark.parametrize("name", BUILDS)
def test_every_run_gives_its_bits_cycles_and_counters(name):
    first, end = map(int, RUNS.split(":"))
    run(build(BUILDS[name]), BUILDS[name], SEED, first, end)
