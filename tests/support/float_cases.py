"""Operands, products and sums that floating point gets wrong: near and far exponents, cancellation, ties, special values."""

import numpy as np

_FP16_WORDS = "0000 8000 7C00 FC00 7E00 FE01 7C01 0001 8001 03FF 0400 7BFF FBFF 3C00 BC00"
_BF16_WORDS = "0000 8000 7F80 FF80 7FC0 FFC1 7F81 0001 807F 0080 7F7F FF7F 3F80 BF80 2000 1FFF"

SPECIAL_WORDS = {
    name: np.array([int(word, 16) for word in text.split()], np.uint16)
    for name, text in (("fp16", _FP16_WORDS), ("bf16", _BF16_WORDS))
}
"""Zeros, infinities, NaNs, subnormals, ends of the range, ones, and BF16 words whose square is near 2^-126."""

_INFINITY, _NAN, _SIGN = 0x7F800000, 0x7FC00000, 1 << 31


def words(rng, form, size):
    """Return 16-bit words: a quarter special values, the others any."""
    chosen = rng.choice(SPECIAL_WORDS[form.name], size)
    return np.where(rng.integers(0, 4, size) == 0, chosen, rng.integers(0, 2**16, size, dtype=np.uint16))


def word_grid(form, fractions):
    """Return all pairs of words made of every exponent, the given fractions and both signs of the left one."""
    exponents = np.arange(1 << form.exponent_bits, dtype=np.uint32) << form.fraction_bits
    right = (exponents[:, None] | np.asarray(fractions, np.uint32)).ravel()
    left = np.concatenate([right, right | 0x8000])
    return np.repeat(left, len(right)).astype(np.uint16), np.tile(right, len(left)).astype(np.uint16)


def sums_and_products(rng, form, size):
    """Return two FP32 patterns (sums, products) of which the first can be a sum of numbers like the second."""
    products = _products(rng, form, size)
    unit = products & 0x7FFFFFFF  # magnitude
    any_sum = _fp32(rng, form, size, form.min_exponent, min(form.max_exponent, 56 if form.has_subnormals else 127))
    near = _near(rng, form, products)
    # Equal but for a few units in the last place, of the other sign: cancellation.
    equal = (unit + rng.integers(-3, 4, size)).astype(np.uint32) | ~products & _SIGN
    ties = _ties(rng, products)
    sums = np.choose(rng.integers(0, 5, size), [any_sum, near, near, equal, ties]).astype(np.uint32)
    sums = _in_range(form, sums)
    special = rng.choice(np.array([0, 0, _INFINITY, _INFINITY | _SIGN, _NAN], np.uint32), size)
    return np.where(rng.integers(0, 12, size) == 0, special, sums), products


def product_words(rng, form, products):
    """Return the words of `product_layout` for FP32 patterns, at random with the leading one in either of its places."""
    packed = form.product_from_float32(products)
    if not form.has_subnormals:
        return packed
    bits = form.product_bits
    significand = packed & np.uint64((1 << bits) - 1)
    lowered = packed - significand + (significand >> np.uint64(1)) + np.uint64(1 << bits)
    can = (significand & np.uint64(1) == 0) & (significand != 0) & (rng.integers(0, 2, len(packed)) == 1)
    return np.where(can, lowered, packed)


def _products(rng, form, size):
    kept = 24 - form.product_bits
    low, high = (-48, 31) if form.has_subnormals else (-126, 127)
    values = _fp32(rng, form, size, low, high) >> kept << kept
    special = rng.choice(np.array([0, _SIGN, _INFINITY, _INFINITY | _SIGN, _NAN], np.uint32), size)
    return np.where(rng.integers(0, 12, size) == 0, special, _in_range(form, values))


def _fp32(rng, form, size, low, high):
    # A quarter at the lower end, where differences of BF16 products underflow.
    top = np.where(rng.integers(0, 4, size) == 0, min(low + 26, high), high)
    exponent = rng.integers(low + 127, top + 128, size).astype(np.uint32) << 23
    # Long runs of ones and zeros carry far: half of the fractions are one run.
    fraction = rng.integers(0, 2**23, size, dtype=np.uint32)
    first, last = rng.integers(0, 24, size), rng.integers(0, 24, size)
    run = ((1 << first) - 1) ^ ((1 << last) - 1)
    fraction = np.where(rng.integers(0, 2, size) == 1, fraction, run).astype(np.uint32)
    return fraction | exponent | rng.integers(0, 2, size).astype(np.uint32) << 31


def _near(rng, form, products):
    """Sums with exponents around those of the products, or so far that only the sticky bit is left."""
    size = len(products)
    gap = np.where(rng.integers(0, 3, size) > 0, rng.integers(-4, 5, size), rng.integers(-30, 31, size))
    exponent = np.clip((products >> 23 & 0xFF).astype(np.int64) + gap, 1, 254).astype(np.uint32) << 23
    return _fp32(rng, form, size, 0, 0) & 0x807FFFFF | exponent


def _ties(rng, products):
    """Sums so large that the product's last bit is half of their unit in the last place, or a neighbour of that."""
    fraction = products & 0x7FFFFF
    lowest = np.where(fraction == 0, 23, np.log2(np.maximum(fraction & -fraction.astype(np.int64), 1))).astype(np.int64)
    exponent = (products >> 23 & 0xFF).astype(np.int64) - 23 + lowest + 24 + rng.integers(-1, 2, len(products))
    bits = rng.integers(0, 2**23, len(products), dtype=np.uint32) | rng.integers(0, 2, len(products)).astype(np.uint32) << 31
    return bits | np.clip(exponent, 1, 254).astype(np.uint32) << 23


def _in_range(form, patterns):
    """Return FP32 patterns as sums can have them: of FP16 multiples of 2^-48 up to 2^56, otherwise any but subnormals."""
    exponent = (patterns >> 23 & 0xFF).astype(np.int64) - 127
    if not form.has_subnormals:
        return np.where((exponent < -126) | (exponent > 127), 0, patterns).astype(np.uint32)
    dropped = np.clip(23 - (exponent + 48), 0, 23).astype(np.uint32)
    patterns = patterns >> dropped << dropped
    return np.where((exponent < -48) | (exponent > 55), 0, patterns).astype(np.uint32)
