# amaranth: UnusedElaboratable=no
"""The checks of the array find faults: each is planted in turn, and the same batches of runs must then fail."""

import os

import pytest
from array_checker import check, find_problems
from array_driver import Batch
from array_model import draw_case
from array_pysim import PysimBench
from mutations import FAULTS

from accel.rtl.parameters import ArrayParameters

pytestmark = pytest.mark.rtl

# Two of all that comes in numbers, so that a fault in one of them differs from a fault in all; three rows for two drain chains.
ARRAY = ArrayParameters(
    rows=3, cols=2, adder_latency=4, multiplier_latency=3, group=4, row_lanes=(1, 2, 4), drain_lanes=2, psum_words=32
)
SEED = 2
BATCHES = [range(6), range(6, 14), range(14, 30), range(30, 60), range(60, 120)]
"""Run in turn until one fails: most faults show at once."""
MOST_CYCLES = 160


def batch_of(runs):
    cases = [draw_case(ARRAY, SEED, index, MOST_CYCLES) for index in runs]
    return Batch.of([case for case in cases if case.profile not in ("starved", "blocked")])


def first_problem(runs):
    batch = batch_of(runs)
    return next(find_problems(batch, PysimBench(batch).run()), None)


def in_soak(items, is_fast):
    """Return parameters of a test, those that are not fast only for `make soak`."""
    return [pytest.param(item, marks=[] if is_fast(number) else pytest.mark.soak) for number, item in enumerate(items)]


@pytest.mark.parametrize("runs", in_soak(BATCHES, lambda number: number < 3), ids=str)
def test_without_a_fault_every_batch_passes(runs):
    batch = batch_of(runs)
    check(batch, PysimBench(batch).run())


@pytest.mark.parametrize(
    "fault", in_soak(FAULTS, lambda number: number % 4 == 1), ids=lambda fault: f"{fault.module}: {fault.what}"
)
def test_a_fault_is_found(fault):
    with fault.planted():
        problem = next(filter(None, map(first_problem, BATCHES)), None)
    assert problem, f"{fault.what}: nothing found"
    if "MUTATIONS_LOG" in os.environ:
        with open(os.environ["MUTATIONS_LOG"], "a") as log:  # noqa: PTH123
            log.write(f"{fault.module} | {fault.what} | {problem.splitlines()[0]}\n")
