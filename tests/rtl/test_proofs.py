"""Every adder we ship is IEEE 754 addition on the numbers an array of FP16 can hold: not tested, proved."""

import pytest
from proofs import BOUND_CLAIM, adder_claim, smt_function, solve

from accel.rtl.adder import CUTS, Adder
from accel.rtl.floats import FP16

USUAL_LATENCY = 4

pytestmark = pytest.mark.rtl


class ForgetfulAdder(Adder):
    """Forgets what falls off in the last steps of the shift."""

    def _fine(self, m, values):
        kept = values["sticky"]
        return super()._fine(m, values) | {"sticky": kept}


def adder_function(latency, kind=Adder):
    return smt_function(kind(FP16, latency), {"i_sum": 31, "i_product": 32}, "o_sum")


def prove(query):
    answer, seconds = solve(query)
    print(f"{answer} after {seconds:.1f} s")
    return answer


@pytest.mark.parametrize(
    "latency",
    [pytest.param(latency, marks=() if latency == USUAL_LATENCY else pytest.mark.soak) for latency in CUTS],
)
def test_the_adder_is_ieee_addition(latency):
    assert prove(adder_claim(adder_function(latency))) == "unsat"


@pytest.mark.parametrize("mode", ["RTZ", "RNA", "RTP"])
def test_the_adder_is_not_addition_rounded_otherwise(mode):
    assert prove(adder_claim(adder_function(USUAL_LATENCY), mode)) == "sat"


def test_a_lost_sticky_bit_is_found():
    assert prove(adder_claim(adder_function(USUAL_LATENCY, ForgetfulAdder))) == "sat"


def test_no_sum_of_products_grows_beyond_its_exponents():
    assert prove(BOUND_CLAIM) == "unsat"
