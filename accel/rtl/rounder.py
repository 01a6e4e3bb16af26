"""From sums to results."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accel.rtl.floats import PARTIAL_FRACTION_BITS, OperandFormat


class Rounder(wiring.Component):
    """Gives the sum taken last as FP32, or rounded to the nearest even number of the operand format.

    A sum is taken at the end of a cycle in which `i_take` is high, with `i_is_rounded`; `o_result` is its result from then on,
    16 bits of it if it is rounded, the others 0. What is shifted is in a register then, rounding comes behind it.

    FP16 results keep subnormals and overflow to infinity. A NaN leaves as the canonical one of its format. A BF16 result is
    never subnormal, because no BF16 sum is.
    """

    verilog_name = "rounder"
    reads = ("name",)

    def __init__(self, operand_format: OperandFormat) -> None:
        self.operand_format = operand_format
        ports = {"i_take": In(1), "i_partial": In(operand_format.partial_layout), "i_is_rounded": In(1), "o_result": Out(32)}
        super().__init__(ports)

    @property
    def parameters(self) -> OperandFormat:
        """All the circuit depends on."""
        return self.operand_format

    def elaborate(self, platform: Any) -> Any:
        """Return the register of what is rounded down, and what rounds it up."""
        m = Module()
        form, partial = self.operand_format, self.i_partial
        is_special = Signal()
        m.d.comb += is_special.eq(form.is_partial_special(partial))
        below = Signal(15)
        guard = Signal()
        sticky = Signal()
        place = self._place_narrow if form.has_subnormals else self._place_wide
        m.d.comb += [signal.eq(value) for signal, value in zip((below, guard, sticky), place(m), strict=True)]
        with m.If(is_special):
            infinity = (1 << form.exponent_bits) - 1 << form.fraction_bits
            m.d.comb += [below.eq(infinity | partial.fraction[-1] << form.fraction_bits - 1), guard.eq(0)]
        taken = Signal(32, reset_less=True)
        taken_guard = Signal(reset_less=True)
        taken_sticky = Signal(reset_less=True)
        with m.If(self.i_take):
            m.d.sync += [
                taken.eq(Mux(self.i_is_rounded, Cat(below, partial.sign), self._as_float32(m, is_special))),
                taken_guard.eq(guard & self.i_is_rounded),
                taken_sticky.eq(sticky),
            ]
        m.d.comb += self.o_result.eq(Cat((taken[:15] + (taken_guard & (taken_sticky | taken[0])))[:15], taken[15:]))
        return m

    def _as_float32(self, m: Module, is_special: Any) -> Any:
        form, partial = self.operand_format, self.i_partial
        exponent = Signal(8)
        with m.If(is_special):
            m.d.comb += exponent.eq(255)
        with m.Elif(~form.is_partial_zero(partial)):
            offset = 127 - form.partial_bias
            m.d.comb += exponent.eq(partial.exponent + offset if offset else partial.exponent)
        return Cat(partial.fraction, exponent, partial.sign)

    def _place_wide(self, m: Module) -> tuple[Any, Any, Any]:
        """Return magnitude, guard and sticky bit in the exponent of FP32: a carry out of the fraction moves up to infinity."""
        fraction = self.i_partial.fraction
        cut = PARTIAL_FRACTION_BITS - self.operand_format.fraction_bits
        return Cat(fraction[cut:], self.i_partial.exponent)[:15], fraction[cut - 1], fraction[: cut - 1].any()

    def _place_narrow(self, m: Module) -> tuple[Any, Any, Any]:
        """Return the same for FP16: a subnormal result is shifted to the place of the least exponent."""
        form, partial = self.operand_format, self.i_partial
        least = form.partial_bias + 1 - form.bias  # codes of the least and the largest exponent of a normal result
        largest = form.partial_bias + form.bias
        cut = PARTIAL_FRACTION_BITS - form.fraction_bits
        code = Signal(form.exponent_bits)
        shift = Signal(range(form.fraction_bits + 2))
        kept = Signal(form.fraction_bits + 2)  # with the leading one and the guard bit
        m.d.comb += [
            code.eq(partial.exponent - (least - 1)),
            shift.eq(least - partial.exponent),  # right for what is subnormal and not too small for the guard bit
            kept.eq(Cat(partial.fraction[cut - 1 :], 1) >> shift),
        ]
        below = Signal(15, name="below_narrow")
        guard = Signal(name="guard_narrow")
        with m.If(partial.exponent > largest):
            m.d.comb += below.eq((1 << form.exponent_bits) - 1 << form.fraction_bits)
        with m.Elif(partial.exponent >= least):
            m.d.comb += [below.eq(Cat(partial.fraction[cut:], code)), guard.eq(partial.fraction[cut - 1])]
        with m.Elif(partial.exponent >= least - (form.fraction_bits + 1)):
            m.d.comb += [below.eq(kept[1:]), guard.eq(kept[0])]
        is_small = partial.exponent < least
        shifted_out = [partial.fraction[cut - 1 + place] & (shift > place) for place in range(form.fraction_bits + 1)]
        sticky = partial.fraction[: cut - 1].any() | is_small & Cat(shifted_out).any()
        return below, guard, sticky
