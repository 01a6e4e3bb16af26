# amaranth: UnusedElaboratable=no
"""Runs of a BF16 array in Amaranth's simulator find faults in what only BF16 has: flushing, overflow, and entries left out."""

from dataclasses import replace

import pytest
from array_checker import check, find_problems
from array_driver import Batch
from array_model import draw_case
from array_pysim import PysimBench
from mutations import Fault

from accel.errors import ConfigError
from accel.rtl.floats import BF16, FP16
from accel.rtl.parameters import ArrayParameters
from accel.rtl.stimulus import stimulus

pytestmark = pytest.mark.rtl

ARRAY = ArrayParameters(
    rows=2, cols=2, adder_latency=2, multiplier_latency=2, group=4, row_lanes=(1, 2), psum_words=16, operand_format=BF16
)
SEED = 8
BATCHES = [range(6), range(6, 18), range(18, 60)]
"""Run in turn until one fails."""

FAULTS = [
    Fault("an entry left out makes +0 of -0", "multiplier", "else sign | is_void,", "else sign & ~is_void,"),
    Fault("a product too small is not flushed", "multiplier", "is_zero | is_small,", "is_zero,"),
    Fault("a product too large is not infinity", "multiplier", "special | is_large & is_number", "special"),
    Fault(
        "a product overflows an exponent early",
        "multiplier",
        "exponent >= bias + largest - 1,",
        "exponent >= bias + largest - 2,",
    ),
    Fault("a sum too small is not flushed", "adder", "with m.If(exponent[-1] & ~is_least):", "with m.If(0):"),
    Fault("a sum too large is NaN", "adder", 'fraction.eq(values["is_nan"] << leading - 1)', "fraction.eq(1 << leading - 1)"),
    Fault("results round ties up", "rounder", "(taken_guard & (taken_sticky | taken[0]))", "taken_guard"),
    Fault("a NaN result is infinity", "rounder", "partial.fraction[-1] << form.fraction_bits - 1", "0"),
]


def batch_of(runs):
    cases = [draw_case(ARRAY, SEED, index, 100) for index in runs]
    return Batch.of([case for case in cases if case.profile not in ("starved", "blocked")])


def first_problem(runs):
    batch = batch_of(runs)
    return next(find_problems(batch, PysimBench(batch).run()), None)


@pytest.mark.parametrize("runs", BATCHES, ids=str)
def test_without_a_fault_every_batch_passes(runs):
    batch = batch_of(runs)
    check(batch, PysimBench(batch).run())


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: f"{fault.module}: {fault.what}")
def test_a_fault_of_bf16_is_found(fault):
    with fault.planted():
        problem = next(filter(None, map(first_problem, BATCHES)), None)
    assert problem, f"{fault.what}: nothing found"


def test_operands_of_the_other_format_are_refused():
    case = draw_case(ARRAY, SEED, 0, 100)
    built_for_fp16 = replace(ARRAY, operand_format=FP16)
    with pytest.raises(ConfigError, match=r"^operands must be fp16, as the array is built, not bf16$"):
        stimulus(built_for_fp16, case.run, *case.operands)
