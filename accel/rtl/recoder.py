"""From 16-bit words to the operands of the array."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accel.rtl.floats import OperandFormat


class Recoder(wiring.Component):
    """Recodes a 16-bit word of a stream as an operand of the array. Combinational.

    What it does is `operand_format.recode`. It stands once at each edge lane of the array, so that no PE ever sees a subnormal
    number or a word to be skipped.
    """

    verilog_name = "recoder"
    reads = ("name",)

    def __init__(self, operand_format: OperandFormat) -> None:
        self.operand_format = operand_format
        super().__init__({"i_bits": In(16), "i_valid": In(1), "o_operand": Out(operand_format.operand_layout)})

    @property
    def parameters(self) -> OperandFormat:
        """All the circuit depends on."""
        return self.operand_format

    def elaborate(self, platform: Any) -> Any:
        """Return normal numbers, then the exceptions."""
        m = Module()
        form, operand = self.operand_format, self.o_operand
        fraction = self.i_bits[: form.fraction_bits]
        exponent = self.i_bits[form.fraction_bits : -1]
        m.d.comb += operand.sign.eq(self.i_bits[-1])
        with m.If(exponent == 0):
            if form.has_subnormals:
                self._normalise(m, fraction)
        with m.Elif(exponent.all()):
            special = Mux(fraction == 0, form.infinity, form.nan)
            m.d.comb += Cat(operand.fraction, operand.exponent).eq(special)
        with m.Else():
            offset = form.operand_bias - form.bias
            m.d.comb += [operand.fraction.eq(fraction), operand.exponent.eq(exponent + offset if offset else exponent)]
        with m.If(~self.i_valid):
            m.d.comb += operand.eq(form.void)
        return m

    def _normalise(self, m: Module, fraction: Any) -> None:
        """Drive the operand of a subnormal number from the position of its leading one."""
        form = self.operand_format
        lowest = form.operand_bias - form.bias + 1 - form.fraction_bits
        exponent = Signal(form.operand_exponent_bits)
        shifted = Signal(form.fraction_bits)
        for position in range(form.fraction_bits):
            with m.If(fraction[position]):
                m.d.comb += [exponent.eq(position + lowest), shifted.eq(fraction << form.fraction_bits - position)]
        m.d.comb += [self.o_operand.fraction.eq(shifted), self.o_operand.exponent.eq(exponent)]
