"""The arithmetic of a PE in Verilator, bit for bit against the host's floating point."""

import subprocess
import tempfile
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from amaranth import Module
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from float_cases import product_words, sums_and_products, word_grid, words
from rtl_build import compile_cpp

from accel.golden import numeric
from accel.rtl.adder import CUTS, Adder
from accel.rtl.emit import emit
from accel.rtl.floats import BF16, FP16
from accel.rtl.multiplier import Multiplier
from accel.rtl.recoder import Recoder
from accel.rtl.rounder import Rounder

pytestmark = pytest.mark.rtl

FORMATS = pytest.mark.parametrize("form", [FP16, BF16], ids=lambda form: form.name)
MULTIPLIER_LATENCIES = (0, 1, 2, 3)

SPECIAL_FRACTIONS = {"fp16": [0, 1, 2, 0x155, 0x200, 0x2AA, 0x3FE, 0x3FF], "bf16": [0, 1, 0x55, 0x7F]}
"""With every pair of exponents and both signs they make 131,072 products of FP16 and 2,097,152 of BF16."""


class Units(wiring.Component):
    """Every unit of one format, side by side."""

    def __init__(self, form):
        self.parameters = form
        self.verilog_name = f"units_{form.name}"
        operand, product, partial = form.operand_layout.size, form.product_layout.size, form.partial_layout.size
        self.inputs = {"bits": 16, "valid": 1, "west": operand, "north": operand, "product": product, "sum": partial}
        self.outputs = {"operand": operand, "float32_1": 32, "rounded_1": 32}
        self.outputs |= {f"product_{latency}": product for latency in MULTIPLIER_LATENCIES}
        self.outputs |= {f"sum_{latency}": partial for latency in CUTS}
        ports = {f"i_{name}": In(width) for name, width in self.inputs.items()}
        super().__init__(ports | {f"o_{name}": Out(width) for name, width in self.outputs.items()})

    def elaborate(self, platform):
        m = Module()
        m.submodules.recoder = recoder = Recoder(self.parameters)
        m.d.comb += [recoder.i_bits.eq(self.i_bits), recoder.i_valid.eq(self.i_valid), self.o_operand.eq(recoder.o_operand)]
        for is_rounded, output in enumerate((self.o_float32_1, self.o_rounded_1)):
            m.submodules[f"rounder_{is_rounded}"] = rounder = Rounder(self.parameters)
            m.d.comb += [rounder.i_take.eq(1), rounder.i_partial.eq(self.i_sum), rounder.i_is_rounded.eq(is_rounded)]
            m.d.comb += output.eq(rounder.o_result)
        for latency in MULTIPLIER_LATENCIES:
            m.submodules[f"multiplier_{latency}"] = unit = Multiplier(self.parameters, latency)
            m.d.comb += [unit.i_west.eq(self.i_west), unit.i_north.eq(self.i_north)]
            m.d.comb += getattr(self, f"o_product_{latency}").eq(unit.o_product)
        for latency in CUTS:
            m.submodules[f"adder_{latency}"] = unit = Adder(self.parameters, latency)
            m.d.comb += [unit.i_sum.eq(self.i_sum), unit.i_product.eq(self.i_product)]
            m.d.comb += getattr(self, f"o_sum_{latency}").eq(unit.o_sum)
        return m

    def run(self, **inputs):
        """Return what every output shows for each row of `inputs`, its latency taken off."""
        rows = len(next(iter(inputs.values())))
        table = np.zeros((rows + max(CUTS), len(self.inputs)), np.uint64)
        for column, name in enumerate(self.inputs):
            table[:rows, column] = inputs.get(name, 0)
        with tempfile.TemporaryDirectory() as folder:
            source, target = Path(folder, "in"), Path(folder, "out")
            table.tofile(source)
            subprocess.run([self.program, source, target], check=True)
            seen = np.fromfile(target, np.uint64).reshape(-1, len(self.outputs))
        latencies = [int(name.split("_")[1]) if "_" in name else 0 for name in self.outputs]
        return {
            name: seen[latency : latency + rows, column]
            for column, (name, latency) in enumerate(zip(self.outputs, latencies, strict=True))
        }

    def main(self):
        assign = "\n".join(f"    dut.i_{name} = in[{index}];" for index, name in enumerate(self.inputs))
        record = "\n".join(f"    out[{index}] = dut.o_{name};" for index, name in enumerate(self.outputs))
        return f"""
#include "V{self.verilog_name}.h"
#include <cstdint>
#include <cstdio>
int main(int, char** argv) {{
  static V{self.verilog_name} dut;
  FILE *source = fopen(argv[1], "rb"), *target = fopen(argv[2], "wb");
  uint64_t in[{len(self.inputs)}], out[{len(self.outputs)}];
  while (fread(in, sizeof in, 1, source)) {{
{assign}
    dut.clk = 0;
    dut.eval();
{record}
    fwrite(out, sizeof out, 1, target);
    dut.clk = 1;
    dut.eval();
  }}
  return fclose(target);
}}
"""


@cache
def units_of(form):
    """Return the units of a format, built."""
    units = Units(form)
    units.program = compile_cpp(emit(units), units.main())
    return units


def first_difference(got, wanted, *shown):
    """Return a text that is empty if two arrays are equal."""
    wrong = np.flatnonzero(np.asarray(got, np.uint64) != np.asarray(wanted, np.uint64))
    if not len(wrong):
        return ""
    at = wrong[0]
    operands = ", ".join(hex(int(array[at])) for array in shown)
    return f"{len(wrong)} of {len(got)} wrong; first: {operands} gave {int(got[at]):#x}, not {int(wanted[at]):#x}"


def golden_product(form, left, right):
    if form is BF16:
        return numeric.bits(numeric.multiply_bf16(left, right))
    return numeric.bits(numeric.multiply(left.view(np.float16), right.view(np.float16)))


def golden_sum(form, left, right):
    add = numeric.add_bf16 if form is BF16 else numeric.add
    return numeric.bits(add(left.astype(np.uint32).view(np.float32), right.astype(np.uint32).view(np.float32)))


def golden_rounded(form, patterns):
    values = patterns.astype(np.uint32).view(np.float32)
    return numeric.to_bf16(values) if form is BF16 else numeric.bits(numeric.to_fp16(values))


@FORMATS
def test_recoder_on_every_word(form):
    every = np.arange(2**16, dtype=np.uint32)
    inputs, valid = np.tile(every, 2), np.repeat([True, False], 2**16)
    got = units_of(form).run(bits=inputs, valid=valid)["operand"]
    assert not first_difference(got, form.recode(inputs, valid), inputs, valid)


def rounder_cases(form):
    """Every result of either sign, every tie between two of them, and the sums next to both."""
    every = np.arange(2**16, dtype=np.uint32)
    if form is BF16:
        patterns = (every[:, None] << 16) + np.array([0, 1, 0x7FFF, 0x8000, 0x8001, 0xFFFF], np.uint32)
        exponent = patterns >> 23 & 0xFF
        kept = (exponent > 0) & (exponent < 255)
    else:
        values = np.arange(0x7C00, dtype=np.uint16).view(np.float16).astype(np.float64)
        values = np.append(values, 65536.0)
        between = (values[1:] + values[:-1]) / 2
        exact = np.concatenate([values, between]).astype(np.float32).view(np.uint32)
        patterns = (exact[:, None] + np.array([-1, 0, 1])).astype(np.uint32)
        patterns = np.concatenate([patterns, patterns | np.uint32(1 << 31)])
        exponent = patterns >> 23 & 0xFF
        kept = (exponent >= 127 - 48) & (exponent < 127 + 56)
    zeros_and_special = np.array([0, 1 << 31, 0x7F800000, 0xFF800000, 0x7FC00000], np.uint32)
    return np.concatenate([patterns[kept], zeros_and_special])


@FORMATS
def test_rounder_on_every_result_every_tie_and_their_neighbours(form):
    rng = np.random.default_rng(3)
    patterns = np.concatenate([rounder_cases(form), sums_and_products(rng, form, 50_000)[0]])
    got = units_of(form).run(sum=form.partial_from_float32(patterns))
    assert not first_difference(got["float32_1"], patterns, patterns)
    assert not first_difference(got["rounded_1"], golden_rounded(form, patterns), patterns)


def check_products(form, left, right, valid):
    got = units_of(form).run(west=form.recode(left), north=form.recode(right, valid))
    nothing = 0x80000000 if form is BF16 else 0  # a sum of BF16 may be -0, which + 0 would change
    wanted = np.where(valid, golden_product(form, left, right), np.uint32(nothing))
    for latency in MULTIPLIER_LATENCIES:
        product = form.float32_from_product(got[f"product_{latency}"])
        assert not first_difference(product, wanted, left, right, valid), f"{form.name}, latency {latency}"


@FORMATS
def test_multiplier_on_every_pair_of_exponents(form):
    left, right = word_grid(form, SPECIAL_FRACTIONS[form.name])
    for start in range(0, len(left), 2**18):
        part = slice(start, start + 2**18)
        check_products(form, left[part], right[part], np.ones(len(left[part]), bool))


@FORMATS
def test_multiplier_on_any_operands_valid_or_not(form):
    rng = np.random.default_rng(4)
    size = 100_000
    check_products(form, words(rng, form, size), words(rng, form, size), rng.integers(0, 4, size) > 0)


def check_sums(form, rng, size):
    sums, products = sums_and_products(rng, form, size)
    wanted = golden_sum(form, sums, products)
    got = units_of(form).run(sum=form.partial_from_float32(sums), product=product_words(rng, form, products))
    for latency in CUTS:
        result = form.float32_from_partial(got[f"sum_{latency}"])
        assert not first_difference(result, wanted, sums, products), f"{form.name}, latency {latency}"


@FORMATS
def test_adder_of_every_latency_takes_a_product_a_cycle(form):
    check_sums(form, np.random.default_rng(5), 100_000)


@FORMATS
def test_an_entry_that_is_not_valid_leaves_every_sum_alone(form):
    rng = np.random.default_rng(6)
    sums, _ = sums_and_products(rng, form, 20_000)
    units, left = units_of(form), words(rng, form, 20_000)
    void = units.run(west=form.recode(left), north=form.recode(left, False))["product_0"]
    got = units.run(sum=form.partial_from_float32(sums), product=void)
    for latency in CUTS:
        assert not first_difference(form.float32_from_partial(got[f"sum_{latency}"]), sums, left)


@FORMATS
def test_running_sums_keep_every_bit(form):
    """Sums of 32 products, each result fed back as the hardware's own word, products as they leave the multiplier."""
    rng = np.random.default_rng(7)
    units, size = units_of(form), 2000
    partial, total = np.zeros(size, np.uint32), np.zeros(size, np.float32)
    for _ in range(32):
        left, right = words(rng, form, size), words(rng, form, size)
        rare = rng.integers(0, 100, size) == 0
        left = np.where(rare, left, rng.integers(0x2C00, 0x4400, size, dtype=np.uint16))
        product = units.run(west=form.recode(left), north=form.recode(right))["product_0"]
        total = golden_sum(form, numeric.bits(total), golden_product(form, left, right)).view(np.float32)
        partial = units.run(sum=partial, product=product)["sum_4"]
        assert not first_difference(form.float32_from_partial(partial), numeric.bits(total), left, right)


@pytest.mark.soak
@FORMATS
@pytest.mark.parametrize("seed", range(25))
def test_adder_on_ten_million_sums(form, seed):
    check_sums(form, np.random.default_rng([8, seed]), 400_000)


class Products(wiring.Component):
    """From words to a product, nothing else: for all of them."""

    verilog_name = "products"

    def __init__(self, form):
        self.parameters = form
        super().__init__({"i_left": In(16), "i_right": In(16), "o_product": Out(form.product_layout.size)})

    def elaborate(self, platform):
        m = Module()
        m.submodules.multiplier = multiplier = Multiplier(self.parameters, 0)
        for name, word, port in (("left", self.i_left, multiplier.i_west), ("right", self.i_right, multiplier.i_north)):
            m.submodules[name] = recoder = Recoder(self.parameters)
            m.d.comb += [recoder.i_bits.eq(word), recoder.i_valid.eq(1), port.eq(recoder.o_operand)]
        m.d.comb += self.o_product.eq(multiplier.o_product)
        return m


# Only what a product stands for is written here again; the reference is the host's multiplication.
ALL_PRODUCTS = """
#include "Vproducts.h"
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
static float value[65536], scale[128];
int main(int, char** argv) {
  static Vproducts dut;
  FILE* source = fopen(argv[1], "rb");
  if (fread(value, sizeof value, 1, source) != 1) return 2;
  for (int code = 0; code < 128; ++code) scale[code] = ldexpf(1, code - 56 - 21);
  uint64_t wrong = 0;
  for (uint32_t left = 0; left < 65536; ++left)
    for (uint32_t right = 0; right < 65536; ++right) {
      dut.i_left = left;
      dut.i_right = right;
      dut.eval();
      uint32_t word = dut.o_product, wanted, got;
      float product = value[left] * value[right];
      memcpy(&wanted, &product, 4);
      if (product != product) wanted = 0x7FC00000;
      float magnitude = (float)(word & 0x3FFFFF) * scale[word >> 22 & 127];
      memcpy(&got, &magnitude, 4);
      got |= (word >> 29 & 1) << 31;
      if (word >> 30 & 1) got = word >> 31 ? 0x7FC00000 : 0x7F800000 | (word >> 29 & 1) << 31;
      if (got != wanted && wrong++ < 5) printf("%04x * %04x gave %08x, not %08x\\n", left, right, got, wanted);
    }
  printf("%llu wrong\\n", (unsigned long long)wrong);
  return wrong != 0;
}
"""


@pytest.mark.soak
def test_multiplier_on_all_pairs_of_words(tmp_path):
    values = np.arange(2**16, dtype=np.uint16).view(np.float16).astype(np.float32)
    values.tofile(tmp_path / "values")
    program = compile_cpp(emit(Products(FP16)), ALL_PRODUCTS)
    process = subprocess.run([program, tmp_path / "values"], capture_output=True, text=True, check=False)
    assert process.stdout == "0 wrong\n"
