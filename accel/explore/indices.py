"""Many numbers of points in little memory, and the orders in which a sweep takes them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

IntArray = npt.NDArray[np.int64]

_ROUNDS = 6
_BLOCK = 4096
"""Numbers made at once."""


@dataclass(frozen=True)
class Indices:
    """A set of numbers as ranges: a whole sweep is one range, and numbers far from each other take 16 bytes each."""

    starts: IntArray
    """Of each range, ascending."""
    stops: IntArray
    """Behind each range, and below the next start."""

    @classmethod
    def of(cls, arrays: Iterable[IntArray]) -> Indices:
        """Return the set of all numbers in `arrays`, in any order; an array is not kept."""
        ranges = [_ranges(array) for array in arrays] or [_ranges(np.zeros(0, np.int64))]
        starts, stops = (np.concatenate(ends) for ends in zip(*ranges, strict=True))
        rank = np.argsort(starts, kind="stable")
        starts, stops = starts[rank], np.maximum.accumulate(stops[rank])
        is_first = np.concatenate((np.ones(min(len(starts), 1), np.bool_), starts[1:] > stops[:-1]))
        return cls(starts[is_first], stops[np.concatenate((is_first[1:], np.ones(min(len(starts), 1), np.bool_)))])

    def __len__(self) -> int:
        """Return how many numbers there are."""
        return int((self.stops - self.starts).sum())

    def has(self, numbers: IntArray) -> npt.NDArray[np.bool_]:
        """Return which of `numbers` belong to the set."""
        if not len(self.starts):
            return np.zeros(len(numbers), np.bool_)
        at = np.searchsorted(self.starts, numbers, side="right") - 1
        inside: npt.NDArray[np.bool_] = (at >= 0) & (numbers < self.stops[at])
        return inside


def _ranges(array: IntArray) -> tuple[IntArray, IntArray]:
    """Return where the ranges of some numbers start and stop."""
    numbers = np.unique(array)
    ends = np.flatnonzero(np.diff(numbers) != 1)
    first, last = np.concatenate(([0], ends + 1)), np.concatenate((ends, [len(numbers) - 1]))
    return (numbers[first], numbers[last] + 1) if len(numbers) else (numbers, numbers)


def order(size: int, sampler: Literal["grid", "random"], seed: int, first: int) -> Iterator[IntArray]:
    """Yield the first `first` of `size` numbers in blocks: ascending (grid), or in an order that follows from `seed`."""
    for start in range(0, first, _BLOCK):
        at = np.arange(start, min(start + _BLOCK, first))
        yield at if sampler == "grid" else shuffled(at, size, seed)


def shuffled(at: IntArray, size: int, seed: int) -> IntArray:
    """Return where a permutation of `size` numbers, at most 2**63 - 1, sends each of `at`; `seed` gives it.

    A Feistel network permutes the numbers of an even number of bits; what falls outside `size` is sent on until it is inside.
    """
    half_bits = np.uint64(max((size - 1).bit_length() + 1, 2) // 2)
    mask = (np.uint64(1) << half_bits) - np.uint64(1)
    sent = at.astype(np.uint64)
    outside = np.ones(len(sent), np.bool_)
    while outside.any():
        left, right = sent[outside] >> half_bits, sent[outside] & mask
        for turn in range(_ROUNDS):
            left, right = right, left ^ (_mixed(right ^ _key(turn, seed)) & mask)
        sent[outside] = left << half_bits | right
        outside = sent >= np.uint64(size)
    return sent.astype(np.int64)


def _key(turn: int, seed: int) -> np.uint64:
    return np.uint64(int.from_bytes(hashlib.blake2b(f"{seed},{turn}".encode(), digest_size=8).digest()))


def _mixed(values: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """Return the finalizer of SplitMix64 (Steele, Lea, Flood 2014) of each value."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))
