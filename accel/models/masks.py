"""Which elements of a tensor survive an N:M pattern: the rule of `accel.golden.prune`, in torch and on any device.

Elements are ranked by their magnitude bits: NaN above infinity above finite, -0 equal to +0; of equals the lower index wins.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from accel.errors import ConfigError
from accel.sparsity import NMPattern

_INTEGERS = {
    torch.float16: torch.int16,
    torch.bfloat16: torch.int16,
    torch.float32: torch.int32,
    torch.float64: torch.int64,
}


def nm_mask(values: Tensor, pattern: NMPattern, dim: int) -> Tensor:
    """Return a boolean tensor like `values`: the `keep` largest magnitudes of every group along `dim`.

    The last group may be short; it keeps at most `keep` like the others.
    """
    if values.shape[dim] <= pattern.keep or pattern.is_dense:
        return torch.ones_like(values, dtype=torch.bool)
    rank = _rank(values).movedim(dim, -1)
    words = _pad_last(rank, pattern.group, -1).unflatten(-1, (-1, pattern.group))
    best = words.argsort(dim=-1, descending=True, stable=True)[..., : pattern.keep]
    mask = torch.zeros_like(words, dtype=torch.bool).scatter_(-1, best, True)
    return mask.flatten(-2)[..., : values.shape[dim]].movedim(-1, dim).contiguous()


def transposable_mask(values: Tensor, pattern: NMPattern, rows: int, cols: int) -> Tensor:
    """Return one mask that follows `pattern` along dimension `rows` and along dimension `cols` alike.

    A greedy search in every group x group tile: its elements are taken from the largest magnitude down, each if its row
    and its column have kept fewer than `keep` so far. It never exceeds the pattern; the magnitude it keeps is at least half
    of the best possible, and a row or column may keep fewer than `keep`.
    """
    rank = _rank(values).movedim((rows, cols), (-2, -1))
    shape = rank.shape
    padded = _pad_last(_pad_last(rank, pattern.group, -1).mT, pattern.group, -1).mT
    tall, wide = padded.shape[-2] // pattern.group, padded.shape[-1] // pattern.group
    tiles = padded.reshape(*shape[:-2], tall, pattern.group, wide, pattern.group).transpose(-3, -2)
    kept = _greedy(tiles.reshape(-1, pattern.group, pattern.group), pattern)
    mask = kept.reshape(tiles.shape).transpose(-3, -2).flatten(-4, -3).flatten(-2)
    return mask[..., : shape[-2], : shape[-1]].movedim((-2, -1), (rows, cols)).contiguous()


def _greedy(tiles: Tensor, pattern: NMPattern) -> Tensor:
    """Return the mask of rank `tiles` (count, group, group)."""
    group = pattern.group
    order = tiles.flatten(1).argsort(dim=-1, descending=True, stable=True)
    taken = torch.zeros_like(order, dtype=torch.bool)
    row_left = torch.full((len(tiles), group), pattern.keep, device=tiles.device)
    col_left = row_left.clone()
    for place in range(group * group):
        element = order[:, place : place + 1]
        row, col = element // group, element % group
        fits = (row_left.gather(1, row) > 0) & (col_left.gather(1, col) > 0)
        taken.scatter_(1, element, fits)
        row_left.scatter_add_(1, row, -fits.to(row_left.dtype))
        col_left.scatter_add_(1, col, -fits.to(col_left.dtype))
    return taken.reshape(tiles.shape)


def _rank(values: Tensor) -> Tensor:
    if values.dtype not in _INTEGERS:
        raise ConfigError(f"values must be floating point, not {values.dtype}; convert them first")
    integers = _INTEGERS[values.dtype]
    return values.detach().view(integers) & torch.iinfo(integers).max


def _pad_last(rank: Tensor, group: int, fill: int) -> Tensor:
    return functional.pad(rank, (0, -rank.shape[-1] % group), value=fill)
