"""N:M pruning: which elements of each group survive, and how they are written as entries.

Elements, FP16 or BF16, are ranked by their 15 magnitude bits read as an unsigned integer: NaN above infinity above finite, a
NaN with the larger payload first, -0 equal to +0. Of equals the lower index wins. A zero is an element like any other: where a
group has fewer than `keep` nonzeros, zeros are kept as valid entries of value 0 (their sign kept). The positions that pad the
last group of a tap are never kept: entries left over carry valid = 0, index 0 and value +0, after the valid ones. Entries
ascend in index.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from accel.golden.numeric import Operands, bits
from accel.sparsity import NMPattern

_Scalar = TypeVar("_Scalar", bound=np.generic)


@dataclass(frozen=True)
class Entries:
    """A (dim_k, dim_n) matrix as the north side of the array reads it; all arrays are (groups, keep, dim_n)."""

    values: NDArray[Any]
    """Operands of one format, as `accel.golden.numeric` has them."""
    index: NDArray[np.int64]
    """Where in its group the element stands, 0..group-1; ascending along keep among valid entries."""
    valid: NDArray[np.bool_]
    pattern: NMPattern
    k_taps: int

    @property
    def groups(self) -> int:
        """Groups along k, all taps together."""
        return len(self.values)

    @property
    def dim_n(self) -> int:
        """Columns of the matrix."""
        return int(self.values.shape[2])


def split_groups(matrix: NDArray[_Scalar], k_taps: int, group: int, fill: float = 0) -> NDArray[_Scalar]:
    """Return `matrix` (..., dim_k) as (..., groups, group), the last group of each of `k_taps` taps padded with `fill`."""
    taps = matrix.reshape(*matrix.shape[:-1], k_taps, matrix.shape[-1] // k_taps)
    padding = [(0, 0)] * (taps.ndim - 1) + [(0, -taps.shape[-1] % group)]
    padded = np.pad(taps, padding, constant_values=fill)
    return padded.reshape(*matrix.shape[:-1], k_taps * (padded.shape[-1] // group), group)


def prune(matrix: Operands, pattern: NMPattern, k_taps: int = 1) -> Entries:
    """Return the entries of `matrix` (dim_k, dim_n): the `keep` largest magnitudes of each group along k inside each tap.

    `k_taps` divides dim_k. A dense pattern keeps every element; 1:1 is the element-serial form, a group of one.
    """
    words = split_groups(matrix.T, k_taps, pattern.group)
    is_element = np.broadcast_to(split_groups(np.ones(len(matrix), bool), k_taps, pattern.group), words.shape)
    rank = np.where(is_element, bits(words).astype(np.int64) & 0x7FFF, -1)
    kept = np.sort(np.argsort(-rank, axis=-1, stable=True)[..., : pattern.keep], axis=-1)
    valid = np.take_along_axis(is_element, kept, axis=-1)
    values = np.where(valid, np.take_along_axis(words, kept, axis=-1), np.zeros((), words.dtype))
    return Entries(
        values=np.moveaxis(values, 0, -1),
        index=np.moveaxis(np.where(valid, kept, 0), 0, -1),
        valid=np.moveaxis(valid, 0, -1),
        pattern=pattern,
        k_taps=k_taps,
    )
