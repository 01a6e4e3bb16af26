"""How busy the PEs are, counted by the hardware itself, on streams long enough for the ends of a run not to matter."""

import numpy as np
import pytest
from array_cases import random_fp16
from array_cpp import ARRAY_16, check_runs

from accel.golden.prune import prune
from accel.rtl.command import Run
from accel.rtl.stimulus import stimulus
from accel.sparsity import DENSE, NMPattern

pytestmark = pytest.mark.rtl
N2_8, N8_8 = NMPattern(2, 8), NMPattern(8, 8)
TILES = 50

BUSY = [
    Run(dataflow="OS", row_lanes=1, pattern=DENSE, count=1, dim_m=TILES * 16, dim_n=64, groups=576),
    Run(dataflow="OS", row_lanes=4, pattern=N2_8, count=1, dim_m=TILES * 64, dim_n=16, groups=72),
    Run(dataflow="WS", row_lanes=1, pattern=N8_8, count=1, dim_m=TILES * 16, dim_n=64, groups=2 * 16, m_chunk=200),
    Run(dataflow="WS", row_lanes=1, pattern=N2_8, count=1, dim_m=TILES * 16, dim_n=64, groups=2 * 16, m_chunk=200),
]
DRAIN_BOUND = Run(dataflow="OS", row_lanes=1, pattern=N2_8, count=1, dim_m=TILES * 16, dim_n=64, groups=4)


def streams_of(run):
    rng = np.random.default_rng(run.groups)
    dim_k = run.groups * run.pattern.group
    lhs, dense = random_fp16(rng, (1, run.dim_m, dim_k)), random_fp16(rng, (dim_k, run.dim_n))
    return run, stimulus(ARRAY_16, run, lhs, [prune(dense, run.pattern)])


def test_long_streams_keep_98_percent_of_the_pes_busy():
    runs = [*BUSY, DRAIN_BOUND]
    counters = check_runs(ARRAY_16, [streams_of(run) for run in runs])
    *busy, drained = [entry["macs"] / (256 * entry["cycles"]) for entry in counters]
    for run, frac in zip(runs, busy, strict=False):
        print(f"{run.dataflow}, {run.row_lanes} row lanes, {run.pattern}: {frac:.4f} of the PEs")
        assert frac >= 0.98
    steps, rows = DRAIN_BOUND.groups * DRAIN_BOUND.pattern.keep, ARRAY_16.rows
    assert drained == pytest.approx(steps / rows, rel=0.03)  # a slot of `rows` instead of `steps` steps
