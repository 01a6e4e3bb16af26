"""Integer arithmetic that never rounds silently, and the suffixes that name units.

Suffixes used everywhere: ``_bits`` (a width or an amount of bits), ``_bytes``, ``_elems``, ``_words`` (one memory access),
``_beats`` (one bus transfer), ``_cycles``, ``_macs``, ``_hz``, ``_frac`` (0..1, never percent). Rates name both sides:
``bytes_per_cycle``.
"""

from __future__ import annotations


def ceil_div(value: int, divisor: int) -> int:
    """Return `value / divisor` rounded up; both are integers, `divisor` at least 1."""
    return -(-value // divisor)


def ceil_log2(value: int) -> int:
    """Return the number of bits that tell `value` things apart (0 for one thing)."""
    return (value - 1).bit_length()
