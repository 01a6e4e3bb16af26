from fractions import Fraction

from hypothesis import given, settings
from hypothesis import strategies as st

from accel.golden.engines import step_dma, step_sore, step_vector, step_wuve
from accel.timing.engines import dma_cycles, sore_cycles, vector_cycles, wuve_cycles

# No deadlines: the first call of a closed form compiles it.

amounts = st.integers(0, 300)
lanes = st.integers(1, 12)


@settings(deadline=None)
@given(amounts, st.integers(0, 8), st.integers(1, 800), st.integers(0, 9))
def test_dma_equals_its_steps(bytes_moved, transfers, eighths, setup):
    bandwidth = Fraction(eighths, 8)
    assert dma_cycles(bytes_moved, transfers, float(bandwidth), setup) == step_dma(bytes_moved, transfers, bandwidth, setup)


@settings(deadline=None)
@given(st.integers(1, 300), lanes, st.integers(0, 9))
def test_vector_unit_equals_its_steps(lane_ops, lanes, latency):
    assert vector_cycles(lane_ops, lanes, latency) == step_vector(lane_ops, lanes, latency)


@settings(deadline=None)
@given(amounts, lanes)
def test_sore_equals_its_steps(groups, lanes):
    assert sore_cycles(groups, lanes) == step_sore(groups, lanes)


@settings(deadline=None)
@given(amounts, st.integers(1, 5), lanes)
def test_wuve_equals_its_steps(elems, passes, lanes):
    assert wuve_cycles(elems, passes, lanes) == step_wuve(elems, passes, lanes)
