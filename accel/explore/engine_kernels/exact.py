"""Sums of floating-point numbers without rounding, so that their total is that of `math.fsum`."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from accel.jit import kernel

FloatArray = npt.NDArray[np.float64]

PARTS = 4
"""Numbers that hold a sum: three that make it up, and one that is not 0 if something was lost."""


@kernel
def _add_pair(left: float, right: float) -> tuple[float, float]:
    """Return the rounded sum and what rounding took from it, exactly (Knuth, TAOCP volume 2, section 4.2.2, theorem B)."""
    total = left + right
    shared = total - left
    return total, (left - (total - shared)) + (right - shared)


@kernel
def add_exactly(sums: FloatArray, row: int, value: float) -> None:
    """Add `value` to the sum in a row of `sums`."""
    sums[row, 0], rest = _add_pair(sums[row, 0], value)
    sums[row, 1], rest = _add_pair(sums[row, 1], rest)
    if rest != 0.0:
        sums[row, 2], rest = _add_pair(sums[row, 2], rest)
        if rest != 0.0:
            sums[row, 3] = 1.0
