import math

from hypothesis import given
from hypothesis import strategies as st

from accel.units import ceil_div, ceil_log2


@given(st.integers(0, 10**30), st.integers(1, 10**9))
def test_ceil_div_is_the_least_number_of_parts_that_hold_everything(value, divisor):
    parts = ceil_div(value, divisor)
    assert (parts - 1) * divisor < value <= parts * divisor or value == parts == 0


@given(st.integers(1, 2**40))
def test_ceil_log2_bits_tell_all_values_apart(value):
    bits = ceil_log2(value)
    assert 2**bits >= value
    assert bits == 0 or 2 ** (bits - 1) < value


@given(st.integers(0, 60))
def test_ceil_log2_of_a_power_is_its_exponent(exponent):
    assert ceil_log2(2**exponent) == exponent == math.log2(2**exponent)
