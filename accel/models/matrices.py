"""The operands of FF, BP and WU as the matrices that the machine multiplies, in NumPy: rows, columns and order of k.

docs/timing.md fixes the order of summation: FF taps, then input channels; BP the taps that meet the phase, then output
channels; WU batch, then output pixels; taps and pixels row-major. X and dY come channels last: (batch, ..., channels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product
from math import prod
from typing import Any, TypeAlias, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from accel.golden.numeric import Float16s, to_fp16
from accel.golden.prune import Entries, split_groups
from accel.models.stages import Site, StageWeight
from accel.sparsity import NMPattern
from accel.units import ceil_div

_Flags = NDArray[np.bool_]
_Positions = list[NDArray[np.int64]]
_Scalar = TypeVar("_Scalar", bound=np.generic)

Operand: TypeAlias = Entries | Float16s


def fp16(values: Tensor) -> Float16s:
    """Return a tensor as FP16, rounded to nearest even."""
    array = values.detach().cpu().numpy() if values.dtype != torch.bfloat16 else values.detach().float().cpu().numpy()
    with np.errstate(over="ignore", under="ignore"):
        return to_fp16(array)


def out_positions(site: Site, in_size: tuple[int, ...], kernel: tuple[int, ...]) -> _Positions:
    """Return, for each dimension, the input position (pixels, taps) that each tap of each output pixel reads."""
    return [
        np.arange((size + 2 * pad - dil * (taps - 1) - 1) // step + 1)[:, None] * step + np.arange(taps) * dil - pad
        for size, taps, step, pad, dil in zip(in_size, kernel, site.stride, site.padding, site.dilation, strict=True)
    ]


@dataclass(frozen=True)
class Phase:
    """The input pixels of one residue class modulo the stride, and what BP reads for them."""

    pixels: tuple[slice, ...]
    """Where they lie in dX, per dimension."""
    taps: NDArray[np.int64]
    """The taps that meet them: numbers of the row-major kernel, ascending."""
    positions: _Positions
    """The output position (pixels, taps) of each, per dimension."""


def phases(site: Site, in_size: tuple[int, ...], kernel: tuple[int, ...]) -> Iterator[Phase]:
    """Yield the phases that some tap meets; others have a gradient of zero."""
    per_dim = [_phases_of_dim(*sizes) for sizes in zip(in_size, kernel, site.stride, site.padding, site.dilation, strict=True)]
    for choice in product(*per_dim):
        grid = np.arange(prod(kernel)).reshape(kernel)
        taps = grid[np.ix_(*(taps for _, taps, _ in choice))].reshape(-1)
        if len(taps):
            yield Phase(tuple(pixels for pixels, _, _ in choice), taps, [positions for _, _, positions in choice])


def _phases_of_dim(
    size: int, taps: int, step: int, pad: int, dil: int
) -> list[tuple[slice, NDArray[np.int64], NDArray[np.int64]]]:
    found = []
    for phase in range(min(step, size)):
        meeting = np.array([tap for tap in range(taps) if (phase + pad - tap * dil) % step == 0], np.int64)
        positions = np.arange(ceil_div(size - phase, step))[:, None] + (phase + pad - meeting * dil) // step
        found.append((slice(phase, None, step), meeting, positions))
    return found


def gather(grid: Float16s, positions: _Positions) -> Float16s:
    """Return the rows (batch and pixels, taps and channels) that `positions` read; beyond the edges lie zeros."""
    dims = len(positions)
    padded = np.pad(grid, [(0, 0), *[(0, 1)] * dims, (0, 0)])
    index: list[Any] = [slice(None)]
    for dim, read in enumerate(positions):
        size = grid.shape[1 + dim]
        inside = np.where((read >= 0) & (read < size), read, size)
        shape = [1] * (2 * dims)
        shape[dim], shape[dims + dim] = read.shape
        index.append(inside.reshape(shape))
    taken = padded[tuple(index)]
    rows = grid.shape[0] * prod(len(read) for read in positions)
    return np.ascontiguousarray(taken).reshape(rows, prod(taken.shape[1 + dims :]))


def ff_matrix(weight: NDArray[_Scalar], group: int, groups: int) -> NDArray[_Scalar]:
    """Return the weight (out, in, taps) of convolution group `group` as FF's rhs (taps * in, out)."""
    block = np.split(weight.reshape(*weight.shape[:2], -1), groups)[group]
    return np.ascontiguousarray(block.transpose(2, 1, 0)).reshape(-1, len(block))


def bp_matrix(weight: NDArray[_Scalar], group: int, groups: int) -> NDArray[_Scalar]:
    """Return the weight (out, in, taps) of convolution group `group` as BP's rhs (taps * out, in)."""
    block = np.split(weight.reshape(*weight.shape[:2], -1), groups)[group]
    return np.ascontiguousarray(block.transpose(2, 0, 1)).reshape(-1, block.shape[1])


def entries(matrix: Float16s, mask: _Flags, pattern: NMPattern, k_taps: int) -> Entries:
    """Return the entries of `matrix` (dim_k, dim_n) where `mask` is true: at most `keep` in each group of a tap along k."""
    words = split_groups(matrix.T, k_taps, pattern.group)
    flags = split_groups(mask.T, k_taps, pattern.group)
    kept = np.argsort(~flags, axis=-1, stable=True)[..., : pattern.keep]
    valid = np.take_along_axis(flags, kept, axis=-1)
    values = np.where(valid, np.take_along_axis(words, kept, axis=-1), np.float16(0))
    index = np.where(valid, kept, 0)
    return Entries(_north(values), _north(index), _north(valid), pattern, k_taps)


def ff_operands(weight: StageWeight, site: Site) -> list[Operand]:
    """Return FF's rhs of each convolution group: entries where the weight is pruned, else a dense matrix."""
    return _operands(weight, site, fp16(weight.values), ff_matrix)


def bp_operands(weight: StageWeight, site: Site, taps: NDArray[np.int64] | None = None) -> list[Operand]:
    """Return BP's rhs of each convolution group, of all taps or of some."""
    values = fp16(weight.values)
    if taps is None:
        return _operands(weight, site, values, bp_matrix)
    flat = (*values.shape[:2], -1)
    mask = None if weight.mask is None else weight.mask.cpu().reshape(flat)[:, :, torch.from_numpy(taps)]
    return _operands(replace(weight, mask=mask), site, values.reshape(flat)[:, :, taps], bp_matrix)


def _operands(weight: StageWeight, site: Site, values: Float16s, matrix: Callable[..., Any]) -> list[Operand]:
    found: list[Float16s] = [matrix(values, group, site.groups) for group in range(site.groups)]
    if weight.mask is None:
        return [*found]
    mask, taps = weight.mask.cpu().numpy(), prod(values.shape[2:])
    flags = [matrix(mask, group, site.groups) for group in range(site.groups)]
    return [entries(*both, weight.pattern, taps) for both in zip(found, flags, strict=True)]


def _north(array: NDArray[_Scalar]) -> NDArray[_Scalar]:
    return np.ascontiguousarray(np.moveaxis(array, 0, -1))
