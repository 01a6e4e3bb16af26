"""The exact product of two operands."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accel.errors import ConfigError
from accel.rtl.floats import OperandFormat


class Multiplier(wiring.Component):
    """Multiplies two operands exactly, in one DSP and a few LUTs; `latency` >= 0 cycles, one product a cycle.

    The product is handed on as it leaves the DSP, its leading one in one of two places: the adder's shifters do for nothing
    what normalising would do here with a multiplexer as wide as the product. (A BF16 product is normalised, because it can
    overflow and underflow.) Only the north operand may be VOID.

    Registers: the last one after everything, the one before it between the DSP and the choice of special values, more of them
    before the DSP; so a tool may move those beside the DSP into it.
    """

    def __init__(self, operand_format: OperandFormat, latency: int) -> None:
        if latency < 0:
            raise ConfigError(f"latency must be at least 0, not {latency}; 0 is a product without a register")
        self.operand_format = operand_format
        self.latency = latency
        operand = operand_format.operand_layout
        ports = {"i_west": In(operand), "i_north": In(operand), "o_product": Out(operand_format.product_layout)}
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Any:
        """Return significands through the DSP, exponents and special values beside it."""
        m = Module()
        west, north = self.i_west, self.i_north
        for number in range(self.latency - 2):
            west, north = _register(m, f"west_{number}", west), _register(m, f"north_{number}", north)
        values = self._raw(m, west, north)
        if self.latency >= 2:
            values = {name: _register(m, f"raw_{name}", value) for name, value in values.items()}
        names = ("significand", "exponent", "is_zero", "special")
        significand, exponent, is_zero, special = (values[name] for name in names)
        if not self.operand_format.has_subnormals:
            significand, exponent, is_zero, special = self._normalise(significand, exponent, is_zero, special)
        product = self.o_product
        domain = m.d.comb
        if self.latency:
            product, domain = Signal.like(product, name="product", reset_less=True), m.d.sync
            m.d.comb += self.o_product.eq(product)
        domain += [product.sign.eq(values["sign"]), product.special.eq(special), product.nan.eq(values["nan"])]
        domain += [product.significand.eq(significand), product.exponent.eq(exponent)]
        with m.If(is_zero):  # the registers' synchronous reset: no LUTs
            domain += [product.significand.eq(0), product.exponent.eq(0)]
        return m

    def _raw(self, m: Module, west: Any, north: Any) -> dict[str, Any]:
        """Return the product before its exceptions; the exponent of FP16 has its final code."""
        form = self.operand_format
        is_zero = [Signal(name=f"{side}_is_zero") for side in ("west", "north")]
        is_special = [Signal(name=f"{side}_is_special") for side in ("west", "north")]
        is_nan = [Signal(name=f"{side}_is_nan") for side in ("west", "north")]
        is_void = Signal()
        for index, operand in enumerate((west, north)):
            m.d.comb += is_zero[index].eq(form.is_zero(operand))
            m.d.comb += is_special[index].eq(form.is_special(operand))
            m.d.comb += is_nan[index].eq(is_special[index] & form.is_nan(operand))
        m.d.comb += is_void.eq(form.is_void(north))
        invalid = is_special[0] & is_zero[1] | is_zero[0] & is_special[1]
        sign = west.sign ^ north.sign
        # A carry-in of 1 makes codes of FP16 operands the code of a product, whose significand has its point one place higher.
        exponent = Cat(1, west.exponent) + Cat(form.has_subnormals, north.exponent)
        return {
            "significand": Cat(west.fraction, 1) * Cat(north.fraction, 1),
            "exponent": exponent[1 : 1 + form.operand_exponent_bits + 1],
            "sign": sign & ~is_void if form.has_subnormals else sign | is_void,
            "special": (is_special[0] | is_special[1]) & ~is_void,
            "nan": (is_nan[0] | is_nan[1] | invalid) & ~is_void,
            "is_zero": is_zero[0] | is_zero[1] | is_void,
        }

    def _normalise(self, significand: Any, exponent: Any, is_zero: Any, special: Any) -> tuple[Any, Any, Any, Any]:
        """Return a BF16 product with its leading one first, its exponent's code, and whether it is zero or special after all.

        All is ready for both places of the leading one before the DSP says which of them it is.
        """
        bias, largest = self.operand_format.partial_bias, self.operand_format.partial_special
        is_high, is_number = significand[-1], ~(is_zero | special)
        is_small = Mux(is_high, exponent <= bias - 1, exponent <= bias)
        is_large = Mux(is_high, exponent >= bias + largest - 1, exponent >= bias + largest)
        code = Mux(is_high, (exponent - (bias - 1))[:8], (exponent - bias)[:8])
        return Mux(is_high, significand, significand << 1), code, is_zero | is_small, special | is_large & is_number


def _register(m: Module, name: str, value: Any) -> Any:
    register = Signal.like(value, name=name, reset_less=True)
    m.d.sync += register.eq(value)
    return register
