"""The sum of a partial sum and a product, rounded as FP32."""

from __future__ import annotations

from typing import Any

from amaranth import C, Cat, Module, Mux, Signal, Value
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out

from accel.errors import ConfigError
from accel.rtl.floats import PARTIAL_FRACTION_BITS, OperandFormat
from accel.rtl.terms import any_of

CUTS = {
    2: ("add",),
    3: ("middle", "count"),
    4: ("coarse", "add", "left"),
    5: ("compare", "middle", "add", "left"),
    6: ("compare", "middle", "add", "left", "left_fine"),
    7: ("compare", "middle", "add", "count", "left", "left_fine"),
    8: ("compare", "coarse", "fine", "add", "count", "left", "left_fine"),
}
"""Steps (methods of `Adder`) behind which a register stands, for each latency; the last register is the output."""

_Values = dict[str, Value]

_WIDTH = 28
"""Of the adder: carry, 24 places of the significand with the larger exponent, 3 more for rounding."""


class Adder(wiring.Component):
    """Adds a product to a sum; `latency` cycles, 2 to 8, one sum a cycle.

    Rounds to nearest even, with infinities and the one NaN as in IEEE 754; exact cancellation gives +0. There is one path for
    near and far exponents. Of its 28 places the second has the weight of the larger exponent, the first is for carry, the last
    three are for rounding.

    No step of the FP16 form handles subnormal or too large sums, because there are none: `accel.rtl.floats` says why. BF16
    sums below 2^-126 become zero with their sign, without rounding first, since every normal FP32 number is a multiple of
    2^-149; sums too large for FP32 become infinity.

    Where the difference comes out negative. With exponents equal, or the sum's one less (its significand is then shifted by one
    place, and the product's is at least 1/2), the product may be on either side of the sum. In all other cases the significand
    that is not shifted is larger. In these two no bit is lost, and a negative difference has its leading one at least one place
    lower than the numbers themselves: it is exact in 24 bits. So its ones' complement, less by one in the last of 28 places,
    rounds up to the right result: nothing needs to be compared or negated.
    """

    def __init__(self, operand_format: OperandFormat, latency: int) -> None:
        if latency not in CUTS:
            raise ConfigError(
                f"latency must be between {min(CUTS)} and {max(CUTS)}, not {latency}; choose an adder_latency in that range"
            )
        self.operand_format = operand_format
        self.latency = latency
        partial = operand_format.partial_layout
        super().__init__({"i_sum": In(partial), "i_product": In(operand_format.product_layout), "o_sum": Out(partial)})

    def elaborate(self, platform: Any) -> Any:
        """Return the steps with registers between them."""
        m = Module()
        steps = (self._compare, self._coarse, self._middle, self._fine, self._add, self._count, self._left, self._left_fine)
        values: _Values = {}
        for step in steps:
            values = step(m, values)
            name = step.__name__[1:]
            cut = name in CUTS[self.latency]
            values = {key: _pass(m, f"{name}_{key}", value, cut) for key, value in values.items()}
        self._output(m, values)
        return m

    def _compare(self, m: Module, values: _Values) -> _Values:
        """Return the difference of exponents, the signs, and what becomes of infinities and NaN."""
        total, product, form = self.i_sum, self.i_product, self.operand_format
        sum_special = form.is_partial_special(total)
        sum_nan = sum_special & total.fraction[-1]
        is_special = sum_special | product.special
        differ = total.sign ^ product.sign
        opposite = sum_special & product.special & differ
        return {
            "difference": (total.exponent - product.exponent)[: len(total.exponent) + 1],
            "sum_exponent": total.exponent,
            "product_exponent": product.exponent,
            "sum_significand": Cat(total.fraction, ~form.is_partial_zero(total)),
            "product_significand": product.significand,
            "sum_sign": total.sign,
            "product_sign": product.sign,
            "product_special": product.special,
            "is_special": is_special,
            "is_nan": sum_nan | product.special & product.nan | opposite,
            # Infinities and NaN count as additions from here on, so that nothing touches their sign.
            "subtract": differ & ~is_special,
        }

    def _coarse(self, m: Module, values: _Values) -> _Values:
        """Return the significand of the larger exponent, and the other one shifted by 16 places or not.

        A sum less by d has a difference of -d: its ones' complement, d - 1, needs no carry, and so the sum's significand enters
        one place lower where it is the smaller one. A shift out of range becomes one by 31 places, which is enough.

        Infinity and NaN become the significands 1 and 1.5 with the largest exponent, to which nothing is added: they pass
        through all that follows as numbers do.
        """
        difference, is_special, is_nan = values["difference"], values["is_special"], values["is_nan"]
        swap = Signal()
        is_far = Signal(name="is_far_apart")
        shift = Signal(5)
        m.d.comb += [
            swap.eq(difference[-1]),
            is_far.eq(Mux(swap, ~difference[5:-1].all(), difference[5:-1].any()) | is_special),
            shift.eq((difference[:5] ^ swap.replicate(5)) | is_far.replicate(5)),
        ]
        pad = PARTIAL_FRACTION_BITS + 1 - self.operand_format.product_bits
        whole_sum, whole_product = values["sum_significand"], Cat(C(0, pad), values["product_significand"])
        large = Signal(PARTIAL_FRACTION_BITS + 1)
        small = Signal(_WIDTH - 1)
        special = Cat(C(0, PARTIAL_FRACTION_BITS - 1), is_nan, 1)
        m.d.comb += [
            large.eq(Mux(is_special, special, Mux(swap, whole_product, whole_sum))),
            small.eq(Mux(swap, Cat(C(0, 2), whole_sum), Cat(C(0, 3), whole_product))),
        ]
        exponent = Mux(swap, values["product_exponent"], values["sum_exponent"])
        sign = Mux(swap | values["product_special"], values["product_sign"], values["sum_sign"])
        return {
            "exponent": exponent | is_special.replicate(len(exponent)),
            "large": large,
            "small": Mux(shift[4], small >> 16, small)[: _WIDTH - 1],
            "lost": small[:16].any(),
            "shift": shift,
            "sign": sign & ~is_nan,
            **self._chosen(values, "subtract", "is_nan"),
        }

    def _middle(self, m: Module, values: _Values) -> _Values:
        """Return the smaller significand shifted by a multiple of 4 places."""
        values = self._shift_right(m, values, 2, 4)
        values["sticky"] = values.pop("lost") & values["shift"][4] | values.pop("lost_4")
        values["shift"] = values["shift"][:2]
        return values

    def _fine(self, m: Module, values: _Values) -> _Values:
        """Return the smaller significand in its place."""
        values = self._shift_right(m, values, 0, 1)
        values["sticky"] |= values.pop("lost_1")
        del values["shift"]
        return values

    def _shift_right(self, m: Module, values: _Values, bit: int, places: int) -> _Values:
        """Shift by 0 to 3 times `places`, as the two bits of `shift` from `bit` on say, and remember what fell off."""
        small, select = values["small"], values["shift"][bit : bit + 2]
        shifted = Signal(_WIDTH - 1, name=f"shifted_by_{places}")
        lost = Signal(name=f"lost_by_{places}")
        with m.Switch(select):
            for times in range(4):
                with m.Case(times):
                    gone = times * places
                    m.d.comb += [shifted.eq(small >> gone), lost.eq(small[:gone].any() if gone else 0)]
        return values | {"small": shifted, f"lost_{places}": lost}

    def _add(self, m: Module, values: _Values) -> _Values:
        """Return the sum or difference in 28 places; a difference has its sign in the first.

        What fell off is not in the carry, which need not wait for it: the true result is a little above the sum, or a little
        below the difference. That decides ties only (`above`, `below`). A difference is never a power of two, below which
        places are finer, where that matters: bits fall off by a shift of 4 or more, so that more than 3/8 of the first place
        of the larger number is left, and half a place below 1/2 is as fine as the last of the 28.
        """
        subtract, sticky = values["subtract"], values["sticky"]
        small = Cat(values["small"], 0) ^ subtract.replicate(_WIDTH)
        total = Cat(subtract, C(0, 3), values["large"], 0) + Cat(subtract, small)
        return {
            "total": total[1 : _WIDTH + 1],
            "above": sticky & ~subtract,
            "below": sticky & subtract,
            **self._chosen(values, "exponent", "subtract", "sign", "is_nan"),
        }

    def _count(self, m: Module, values: _Values) -> _Values:
        """Return by how many groups of 4 places the leading one is below the first place.

        The count is in two parts, as the shift after it: 4 groups or none, then up to 3.
        """
        total = values["total"]
        negative = Signal()
        m.d.comb += negative.eq(values["subtract"] & values["total"][-1])
        used = [Signal(name=f"used_{group}") for group in range(_WIDTH // 4)]
        for group, bits in enumerate(used):
            low = _WIDTH - 4 * (group + 1)
            m.d.comb += bits.eq((total[low : low + 4] ^ Cat(total, negative)[low + 1 : low + 5]).any())
        is_far = Signal()
        groups = Signal(2)
        is_zero = Signal()
        m.d.comb += [is_far.eq(~Cat(used[:4]).any()), is_zero.eq(~Cat(used).any())]
        near = Cat(~used[0] & (used[1] | ~used[2]), ~(used[0] | used[1]))
        far = Cat(~used[4] & used[5], ~(used[4] | used[5]))
        m.d.comb += groups.eq(Mux(is_far, far, near))
        return {
            "total": total,
            "negative": negative,
            "is_far": is_far,
            "groups": groups,
            "is_zero": is_zero,
            "exponent": values["exponent"],
            "sign": (values["sign"] ^ negative) & ~(is_zero & values["subtract"]),
            # The ones' complement is too small by one in the last place, which rounding makes good.
            "above": values["above"] | negative,
            **self._chosen(values, "below", "is_nan"),
        }

    def _left(self, m: Module, values: _Values) -> _Values:
        """Return the magnitude with its leading one in the first 4 places."""
        total, negative = values["total"], values["negative"]
        magnitude = Signal(_WIDTH)
        shifted = Signal(_WIDTH, name="shifted_left")
        m.d.comb += magnitude.eq(Mux(values["is_far"], total << 16, total)[:_WIDTH] ^ negative.replicate(_WIDTH))
        with m.Switch(values["groups"]):
            for groups in range(4):
                with m.Case(groups):
                    m.d.comb += shifted.eq(Cat(negative.replicate(4 * groups), magnitude))
        is_zero = values["is_zero"]
        return {
            "magnitude": shifted,
            "places": Cat(values["groups"], values["is_far"]) & ~is_zero.replicate(3),
            "exponent": values["exponent"] & ~is_zero.replicate(len(values["exponent"])),
            **self._chosen(values, "negative", "above", "below", "sign", "is_nan"),
        }

    def _left_fine(self, m: Module, values: _Values) -> _Values:
        """Return the normalised magnitude and its exponent, less by 1."""
        magnitude, negative = values["magnitude"], values["negative"]
        shifted = Signal(_WIDTH, name="shifted_fine")
        fine = Signal(2)
        answers = Signal(4)
        first, second, third, fourth = reversed(magnitude[-4:])
        m.d.comb += fine.eq(Mux(first, 0, Mux(second, 1, Mux(third, 2, Mux(fourth, 3, 0)))))
        with m.Switch(fine):
            for places in range(4):
                with m.Case(places):
                    m.d.comb += shifted.eq(Cat(negative.replicate(places), magnitude))
        # Every guard bit's answer is ready before it is known which of them it is.
        m.d.comb += answers.eq(Cat(self._rounds_up(values, guard) for guard in (3, 2, 1, 0)))
        places = Cat(fine, values["places"])
        return {
            "significand": shifted[4:],
            "round_up": (answers >> fine)[0],
            "exponent": (values["exponent"] - places)[: len(values["exponent"]) + 1],
            **self._chosen(values, "sign", "is_nan"),
        }

    def _rounds_up(self, values: _Values, guard: int) -> Value:
        """Return whether the magnitude is rounded up to the place above its bit `guard`: to nearest, a tie to even."""
        magnitude = values["magnitude"]
        lower = [magnitude[:guard].any()] if guard else []
        is_up: Value = magnitude[guard] & any_of([*lower, values["above"], magnitude[guard + 1] & ~values["below"]])
        return is_up

    def _output(self, m: Module, values: _Values) -> None:
        """Round into the output register; the carry runs on into the exponent, where the leading one adds the 1."""
        exponent, significand, round_up = values["exponent"], values["significand"], values["round_up"]
        leading = PARTIAL_FRACTION_BITS
        rounded = Cat(round_up, C(0, leading - 1), significand[leading]) + Cat(significand[:leading], exponent[:-1])
        result = Signal.like(self.o_sum, name="result", reset_less=True)
        m.d.comb += self.o_sum.eq(result)
        m.d.sync += [Cat(result.fraction, result.exponent).eq(rounded), result.sign.eq(values["sign"])]
        if not self.operand_format.has_subnormals:
            is_least = exponent.all() & significand.all() & round_up  # rounds up to 2^-126
            with m.If(exponent[-1] & ~is_least):
                m.d.sync += [result.fraction.eq(0), result.exponent.eq(0)]
            with m.Elif(exponent == self.operand_format.partial_special - 1):
                m.d.sync += result.fraction.eq(values["is_nan"] << leading - 1)

    def _chosen(self, values: _Values, *names: str) -> _Values:
        """Return those of `values`; what a NaN is need be remembered only where finite sums overflow."""
        return {name: values[name] for name in names if name != "is_nan" or not self.operand_format.has_subnormals}


def _pass(m: Module, name: str, value: Value, cut: bool) -> Value:
    """Return `value` in a signal, or in a register if there is a cut."""
    signal = Signal(value.shape(), name=name, reset_less=True)
    if cut:
        m.d.sync += signal.eq(value)
    else:
        m.d.comb += signal.eq(value)
    return signal
