"""From sums to results."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Const, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accel.rtl.floats import PARTIAL_FRACTION_BITS, OperandFormat


class Rounder(wiring.Component):
    """Gives a sum as FP32 and rounded to the nearest even number of the operand format. Combinational.

    FP16 results keep subnormals and overflow to infinity. A NaN leaves as the canonical one of its format. A BF16 result is
    never subnormal, because no BF16 sum is.
    """

    verilog_name = "rounder"
    reads = ("name",)

    def __init__(self, operand_format: OperandFormat) -> None:
        self.operand_format = operand_format
        super().__init__({"i_partial": In(operand_format.partial_layout), "o_float32": Out(32), "o_rounded": Out(16)})

    @property
    def parameters(self) -> OperandFormat:
        """All the circuit depends on."""
        return self.operand_format

    def elaborate(self, platform: Any) -> Any:
        """Return both results side by side."""
        m = Module()
        form, partial = self.operand_format, self.i_partial
        is_special = Signal()
        is_zero = Signal()
        m.d.comb += [is_special.eq(form.is_partial_special(partial)), is_zero.eq(form.is_partial_zero(partial))]
        exponent = Signal(8)
        with m.If(is_special):
            m.d.comb += exponent.eq(255)
        with m.Elif(~is_zero):
            offset = 127 - form.partial_bias
            m.d.comb += exponent.eq(partial.exponent + offset if offset else partial.exponent)
        m.d.comb += self.o_float32.eq(Cat(partial.fraction, exponent, partial.sign))
        magnitude = Signal(15)
        if form.has_subnormals:
            self._round_narrow(m, magnitude, is_zero)
        else:
            self._round_wide(m, magnitude)
        infinity = (1 << form.exponent_bits) - 1 << form.fraction_bits
        with m.If(is_special):
            m.d.comb += magnitude.eq(infinity | partial.fraction[-1] << form.fraction_bits - 1)
        m.d.comb += self.o_rounded.eq(Cat(magnitude, partial.sign))
        return m

    def _round_wide(self, m: Module, magnitude: Any) -> None:
        """Drive `magnitude` of a format with the exponent of FP32: a carry out of the fraction moves up to infinity."""
        form, partial = self.operand_format, self.i_partial
        cut = PARTIAL_FRACTION_BITS - form.fraction_bits
        kept, guard, sticky = partial.fraction[cut:], partial.fraction[cut - 1], partial.fraction[: cut - 1].any()
        m.d.comb += magnitude.eq(Cat(kept, partial.exponent) + (guard & (sticky | kept[0])))

    def _round_narrow(self, m: Module, magnitude: Any, is_zero: Any) -> None:
        """Drive `magnitude` of FP16: shift to the place of the exponent, of subnormals the least one, and round there."""
        form, partial = self.operand_format, self.i_partial
        least = form.partial_bias + 1 - form.bias  # codes of the least and the largest exponent of a normal result
        largest = form.partial_bias + form.bias
        cut = PARTIAL_FRACTION_BITS - form.fraction_bits
        gap = Signal(8)
        shift = Signal(range(form.fraction_bits + 3))
        m.d.comb += gap.eq(least - partial.exponent)
        is_subnormal = partial.exponent < least
        with m.If(is_subnormal):  # beyond the fraction and the guard bit only "not zero" is left
            m.d.comb += shift.eq(Mux(gap > form.fraction_bits + 2, form.fraction_bits + 2, gap))
        shifted = Signal(PARTIAL_FRACTION_BITS + 1 + form.fraction_bits + 2)
        m.d.comb += shifted.eq(Cat(Const(0, form.fraction_bits + 2), partial.fraction, ~is_zero) >> shift)
        cut += form.fraction_bits + 2
        kept, guard, sticky = shifted[cut:], shifted[cut - 1], shifted[: cut - 1].any()
        exponent = Signal(form.exponent_bits, name="exponent_below_one")
        with m.If(~is_subnormal):  # one less than its code, because the significand's leading one adds one
            m.d.comb += exponent.eq(partial.exponent - least)
        with m.If(partial.exponent > largest):
            m.d.comb += magnitude.eq((1 << form.exponent_bits) - 1 << form.fraction_bits)
        with m.Else():
            m.d.comb += magnitude.eq((exponent << form.fraction_bits) + kept + (guard & (sticky | kept[0])))
