"""Number formats inside the array, and the same conversions on integer arrays as the hardware does on wires.

Four kinds of word travel through a processing element, each wide enough to be exact and coded so that it is cheap to use:

- an *operand*, recoded at the array's edge (`accel.rtl.recoder`): never subnormal, special values told by the exponent alone;
- a *product*: exact, not normalised: its significand is in [1/2, 2) for FP16;
- a *partial sum*: FP32 in all but the code of its exponent;
- a *result* (`accel.rtl.rounder`): FP32, or the operand format again.

VOID is the operand of an entry with valid = 0. VOID times anything, infinity and NaN included, is the zero that leaves a sum as
it is, bit for bit. BF16 takes -0: x + -0 = x for all x. FP16 takes +0: x + 0 = x for all x but -0, and a sum is never -0, as it
starts from +0 and a sum of two numbers is -0 only if both are -0 (x - x is +0 when rounding to nearest). A sum of BF16 products
is -0 also where it is negative and too small.

Why FP16 sums need not have all exponents of FP32. Every product is a multiple of 2^-48, so a sum is 0 or at least 2^-48: no
subnormals. A product is below 2^32, half a unit in the last place of 2^56: a sum of magnitude 2^56 stays there or shrinks, so
none is ever larger, however many products are added (`tests/rtl/test_proofs.py` proves the step). Exponents -48 to 56 fit 7
bits with room for the codes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from amaranth import Value
from amaranth.lib import data
from numpy.typing import NDArray

from accel.errors import ConfigError

Words = NDArray[np.uint32]

PARTIAL_FRACTION_BITS = 23
_FP32_BIAS = 127
_FP32_SPECIAL = 255
_FP32_INFINITY = 0x7F800000
_FP32_NAN = 0x7FC00000
_FP32_SIGN = 1 << 31


@dataclass(frozen=True, kw_only=True)
class OperandFormat:
    """A 16-bit operand format and the words made from it.

    Exponent codes of an operand are `exponent + operand_bias`, of products and sums `exponent + partial_bias`.
    """

    name: str
    exponent_bits: int
    """Of the 16-bit word."""
    fraction_bits: int
    """Of the 16-bit word and of the operand."""
    operand_exponent_bits: int
    operand_bias: int
    partial_exponent_bits: int
    partial_bias: int
    min_exponent: int
    """Of a sum that is not zero."""
    max_exponent: int
    """Of a finite sum that `partial_from_float32` accepts."""

    @property
    def has_subnormals(self) -> bool:
        """Whether subnormal operands and results count; otherwise they are zeros with their sign."""
        return self.operand_exponent_bits > self.exponent_bits

    @property
    def bias(self) -> int:
        """Of the 16-bit word."""
        return (1 << self.exponent_bits - 1) - 1

    @property
    def product_bits(self) -> int:
        """Of a product's significand: twice that of an operand's."""
        return 2 * (self.fraction_bits + 1)

    @property
    def partial_special(self) -> int:
        """The exponent code of infinity (fraction 0) and of the one NaN (top bit of the fraction)."""
        return (1 << self.partial_exponent_bits) - 1

    @cached_property
    def operand_layout(self) -> data.StructLayout:
        """A recoded operand; `codes` has the special values."""
        return data.StructLayout({"fraction": self.fraction_bits, "exponent": self.operand_exponent_bits, "sign": 1})

    @cached_property
    def product_layout(self) -> data.StructLayout:
        """A product: `significand / 2**(product_bits - 1) * 2**(exponent - partial_bias)`.

        The significand of FP16 has its leading one in one of the two upper bits, that of BF16 in the first. Zero has exponent
        and significand 0. Where `special` is set it is infinity, or NaN if `nan` is set too, whatever exponent and significand.
        """
        bits = {"significand": self.product_bits, "exponent": self.partial_exponent_bits, "sign": 1, "special": 1, "nan": 1}
        return data.StructLayout(bits)

    @cached_property
    def partial_layout(self) -> data.StructLayout:
        """A sum: FP32 with another exponent code. All zeros is +0."""
        return data.StructLayout({"fraction": PARTIAL_FRACTION_BITS, "exponent": self.partial_exponent_bits, "sign": 1})

    def is_zero(self, operand: Any) -> Value:
        """Return whether a west operand is zero, or a north one zero or (FP16 excepted) VOID."""
        return operand.exponent[2:] == 0 if self.has_subnormals else operand.exponent == 0

    def is_special(self, operand: Any) -> Value:
        """Return whether a west operand is infinity or NaN, or a north one that or (BF16 excepted) VOID."""
        return operand.exponent[4:] == 0b11 if self.has_subnormals else operand.exponent.all()

    def is_nan(self, operand: Any) -> Value:
        """Return whether an operand that `is_special` and not VOID is NaN."""
        return operand.exponent[2] if self.has_subnormals else operand.fraction[-1]

    def is_void(self, operand: Any) -> Value:
        """Return whether a north operand is VOID."""
        if self.has_subnormals:
            return operand.exponent[3:] == 0b111
        return (operand.exponent == 0) & operand.fraction[-1]

    def is_partial_special(self, partial: Any) -> Value:
        """Return whether a sum is infinity or NaN: no finite one has an FP16 code of 120 or more, so four bits tell."""
        return partial.exponent[3:].all() if self.has_subnormals else partial.exponent.all()

    def is_partial_zero(self, partial: Any) -> Value:
        """Return whether a sum is zero: no other one has an FP16 code below 8, so four bits tell."""
        return partial.exponent[3:] == 0 if self.has_subnormals else partial.exponent == 0

    @property
    def infinity(self) -> int:
        """Bits of an operand that is +infinity."""
        return self._operand(0b110000 if self.has_subnormals else 255)

    @property
    def nan(self) -> int:
        """Bits of an operand that is NaN."""
        return self._operand(0b110100) if self.has_subnormals else self._operand(255) | 1 << self.fraction_bits - 1

    @property
    def void(self) -> int:
        """Bits of the VOID operand."""
        return self._operand(0b111000) if self.has_subnormals else 1 << self.fraction_bits - 1

    def _operand(self, exponent: int) -> int:
        return exponent << self.fraction_bits

    def recode(self, words: NDArray[Any], valid: NDArray[Any] | bool = True) -> Words:
        """Return the operands, as bits of `operand_layout`, of 16-bit `words`; VOID where `valid` is false."""
        words = np.asarray(words).astype(np.uint32)
        exponent = words >> self.fraction_bits & (1 << self.exponent_bits) - 1
        fraction = words & (1 << self.fraction_bits) - 1
        code = np.where(exponent == 0, 0, exponent + np.uint32(self.operand_bias - self.bias))
        if self.has_subnormals:
            # frexp of the fraction, an integer below 2**fraction_bits: the position of its leading one.
            length = np.frexp(fraction.astype(np.float32))[1].astype(np.uint32)
            small = (exponent == 0) & (fraction != 0)
            lowest = self.operand_bias - self.bias + 1 - self.fraction_bits
            code = np.where(small, length - 1 + lowest, code)
            shifted = fraction << (self.fraction_bits + 1 - length) & (1 << self.fraction_bits) - 1
            fraction = np.where(small, shifted, fraction)
        packed = np.where(code == 0, 0, code << self.fraction_bits | fraction)
        special = np.where(fraction == 0, self.infinity, self.nan)
        packed = np.where(exponent == (1 << self.exponent_bits) - 1, special, packed)
        signed = packed | words >> 15 << self.operand_layout.size - 1
        return np.where(valid, signed, self.void).astype(np.uint32)

    def partial_from_float32(self, words: NDArray[Any]) -> Words:
        """Return the sums, as bits of `partial_layout`, that FP32 `words` stand for; any NaN becomes the one."""
        words = np.asarray(words).astype(np.uint32)
        exponent = words >> 23 & 0xFF
        is_special, is_zero = exponent == _FP32_SPECIAL, words << 1 == 0
        unbiased = exponent.astype(np.int64) - _FP32_BIAS
        fits = is_special | is_zero | ((unbiased >= self.min_exponent) & (unbiased <= self.max_exponent))
        if not fits.all():
            raise ConfigError(
                f"sums of {self.name} products must be 0 or from 2**{self.min_exponent} to 2**{self.max_exponent + 1}, "
                f"not {float(words[~fits].view(np.float32)[0])!r}; take what an array can hold"
            )
        code = np.where(is_zero, 0, np.where(is_special, self.partial_special, unbiased + self.partial_bias))
        is_nan = is_special & (words << 9 != 0)
        fraction = np.where(is_nan, 1 << PARTIAL_FRACTION_BITS - 1, words & 0x7FFFFF)
        sign = np.where(is_nan, 0, words >> 31)
        return (sign << self.partial_layout.size - 1 | code << PARTIAL_FRACTION_BITS | fraction).astype(np.uint32)

    def float32_from_partial(self, partials: NDArray[Any]) -> Words:
        """Return the FP32 words that sums, bits of `partial_layout`, stand for."""
        partials = np.asarray(partials).astype(np.uint32)
        sign = partials >> self.partial_layout.size - 1
        code = partials >> PARTIAL_FRACTION_BITS & self.partial_special
        exponent = np.where(code == self.partial_special, _FP32_SPECIAL, code + np.uint32(_FP32_BIAS - self.partial_bias))
        exponent = np.where(code == 0, 0, exponent)
        return (sign << 31 | exponent << 23 | partials & 0x7FFFFF).astype(np.uint32)

    def float32_from_product(self, products: NDArray[Any]) -> Words:
        """Return the FP32 words that products, bits of `product_layout`, stand for."""
        fields, rest = {}, np.asarray(products).astype(np.uint64)
        for name, field in self.product_layout:
            fields[str(name)] = rest >> np.uint64(field.offset) & np.uint64((1 << field.width) - 1)
        scale = fields["exponent"].astype(np.int64) - self.partial_bias - (self.product_bits - 1)
        significand = np.where(fields["special"] == 1, 0, fields["significand"])
        value = np.ldexp(significand.astype(np.float64), scale).astype(np.float32)
        word = value.view(np.uint32) | (fields["sign"] << 31).astype(np.uint32)
        infinity = (fields["sign"] << 31 | _FP32_INFINITY).astype(np.uint32)
        word = np.where(fields["special"] == 1, infinity, word)
        return np.where(fields["special"] & fields["nan"] == 1, np.uint32(_FP32_NAN), word)

    def product_from_float32(self, words: NDArray[Any]) -> NDArray[np.uint64]:
        """Return products, as bits of `product_layout` with the leading one first, of FP32 `words` that are products."""
        words = np.asarray(words).astype(np.uint32)
        exponent, is_zero = words >> 23 & 0xFF, words << 1 == 0
        dropped = 24 - self.product_bits
        code = np.where(is_zero, 0, exponent.astype(np.int64) - _FP32_BIAS + self.partial_bias).astype(np.uint64)
        significand = np.where(is_zero, 0, (words & 0x7FFFFF | 1 << 23) >> dropped).astype(np.uint64)
        special = exponent == _FP32_SPECIAL
        values = {"significand": significand, "exponent": code, "sign": words >> 31, "special": special}
        values["nan"] = special & (words << 9 != 0)
        packed = np.zeros(words.shape, np.uint64)
        for name, field in self.product_layout:
            chosen = values[str(name)].astype(np.uint64)
            if name in ("significand", "exponent"):
                chosen = np.where(special, 0, chosen).astype(np.uint64)
            packed |= chosen << np.uint64(field.offset)
        return packed


# Operand exponents -24 to 15 take codes 4 to 43: below is zero, from 48 infinity, NaN and VOID. The sum of two such codes
# is a product's code but for 1.
FP16 = OperandFormat(
    name="fp16",
    exponent_bits=5,
    fraction_bits=10,
    operand_exponent_bits=6,
    operand_bias=28,
    partial_exponent_bits=7,
    partial_bias=56,
    min_exponent=-48,
    max_exponent=63,
)

BF16 = OperandFormat(
    name="bf16",
    exponent_bits=8,
    fraction_bits=7,
    operand_exponent_bits=8,
    operand_bias=127,
    partial_exponent_bits=8,
    partial_bias=127,
    min_exponent=-126,
    max_exponent=127,
)
