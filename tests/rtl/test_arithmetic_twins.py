"""The conversions in Python against what the words mean, and what the units refuse. Nothing here needs a tool."""

import numpy as np
import pytest
from float_cases import product_words, sums_and_products

from accel.errors import ConfigError
from accel.golden import numeric
from accel.rtl.adder import Adder
from accel.rtl.floats import BF16, FP16
from accel.rtl.multiplier import Multiplier

FORMATS = pytest.mark.parametrize("form", [FP16, BF16], ids=lambda form: form.name)
EVERY_WORD = np.arange(2**16, dtype=np.uint16)


def values_of(form):
    return numeric.from_bf16(EVERY_WORD) if form is BF16 else EVERY_WORD.view(np.float16).astype(np.float32)


def fields_of(layout, patterns):
    patterns = np.asarray(patterns, np.uint64)
    return {
        str(name): (patterns >> np.uint64(field.offset)).astype(np.int64) & (1 << field.width) - 1 for name, field in layout
    }


@FORMATS
def test_every_finite_operand_keeps_its_value_and_sign(form):
    operand, values = fields_of(form.operand_layout, form.recode(EVERY_WORD)), values_of(form)
    finite = np.isfinite(values)
    magnitude = np.ldexp(1 + operand["fraction"] / 2**form.fraction_bits, operand["exponent"] - form.operand_bias)
    magnitude = np.where(operand["exponent"] == 0, 0, magnitude)
    assert np.array_equal(magnitude[finite], np.abs(values[finite]))
    assert np.array_equal(operand["sign"], EVERY_WORD >> 15)


@FORMATS
def test_the_exponent_tells_what_is_not_a_number(form):
    magnitude, values = form.recode(EVERY_WORD) & (1 << form.operand_layout.size - 1) - 1, values_of(form)
    assert np.array_equal(magnitude == form.infinity, np.isinf(values))
    assert np.array_equal(magnitude == form.nan, np.isnan(values))
    assert np.array_equal(magnitude == 0, values == 0)
    assert form.void not in set(form.recode(EVERY_WORD).tolist())
    assert set(form.recode(EVERY_WORD, False).tolist()) == {form.void}


@FORMATS
def test_sums_come_back_from_their_code(form):
    patterns, _ = sums_and_products(np.random.default_rng(1), form, 50_000)
    partial = form.partial_from_float32(patterns)
    assert np.array_equal(form.float32_from_partial(partial), patterns)
    assert int(partial.max()) < 1 << form.partial_layout.size
    assert form.partial_from_float32(np.array([0], np.uint32))[0] == 0


@FORMATS
def test_products_come_back_from_their_code(form):
    rng = np.random.default_rng(2)
    _, patterns = sums_and_products(rng, form, 50_000)
    assert np.array_equal(form.float32_from_product(product_words(rng, form, patterns)), patterns)


@FORMATS
def test_every_nan_has_one_code(form):
    patterns = np.array([0x7FC00000, 0xFFC00000, 0x7F800001, 0xFFFFFFFF], np.uint32)
    codes = set(form.partial_from_float32(patterns).tolist())
    assert set(form.float32_from_partial(np.array(list(codes))).tolist()) == {0x7FC00000}


@pytest.mark.parametrize(
    ("form", "value", "bounds"),
    [
        (FP16, 2.0**-49, "from 2**-48 to 2**64, not 1.7763568394002505e-15"),
        (FP16, 2.0**64, "from 2**-48 to 2**64, not 1.8446744073709552e+19"),
        (BF16, 2.0**-127, "from 2**-126 to 2**128, not 5.877471754111438e-39"),
    ],
)
def test_sums_that_cannot_be_are_refused(form, value, bounds):
    with pytest.raises(ConfigError) as caught:
        form.partial_from_float32(np.array([value], np.float32).view(np.uint32))
    assert str(caught.value) == f"sums of {form.name} products must be 0 or {bounds}; take what an array can hold"


@pytest.mark.parametrize("latency", [0, 1, 9])
def test_an_adder_that_is_not_built_is_refused(latency):
    with pytest.raises(ConfigError) as caught:
        Adder(FP16, latency)
    assert str(caught.value) == f"latency must be between 2 and 8, not {latency}; choose an adder_latency in that range"


def test_a_negative_latency_is_refused():
    with pytest.raises(ConfigError) as caught:
        Multiplier(FP16, -1)
    assert str(caught.value) == "latency must be at least 0, not -1; 0 is a product without a register"
