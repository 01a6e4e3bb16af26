"""Where tensors lie in DRAM: each from its first use to its last, behind the tensor placed before it, round and round.

So a place is taken again as late as can be: what writes there has to wait until the tensor before it is used no more.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Iterable
from dataclasses import dataclass

from accel.errors import ScheduleError
from accel.units import ceil_div

ALIGNMENT = 64
"""Bytes of one word of the memory port: every tensor starts with one."""


@dataclass(frozen=True)
class Life:
    """A tensor of `size` bytes, in use from event `first` to event `last`."""

    size: int
    first: int
    last: int


def place(lives: Iterable[Life], room: int) -> list[int]:
    """Return the address of each, in their order; tensors in use at the same event never overlap. `room` is that of the DRAM.

    What finds no room behind the one before is placed as low as can be; if that leaves too many gaps, all are.
    """
    numbered = sorted(enumerate(lives), key=lambda item: (item[1].first, -item[1].size))
    spread, end = _placed(numbered, room, round_and_round=True)
    if end <= room:
        return spread
    packed, end = _placed(numbered, room, round_and_round=False)
    if end > room:
        raise ScheduleError(
            f"dram_capacity_bytes must be at least {end} to place all tensors of the step, not {room}; lower the batch"
        )
    return packed


def _placed(numbered: list[tuple[int, Life]], room: int, round_and_round: bool) -> tuple[list[int], int]:
    """Return the addresses and the end of the highest tensor."""
    addresses, behind, highest = [0] * len(numbered), 0, 0
    in_use: list[tuple[int, int, int]] = []
    """(start, end, last event), by start."""
    for index, life in numbered:
        in_use = [(start, end, last) for start, end, last in in_use if last >= life.first]
        size = ceil_div(max(life.size, 1), ALIGNMENT) * ALIGNMENT
        address = _first_gap(in_use, size, behind if round_and_round else 0)
        if address + size > room:
            address = _first_gap(in_use, size, 0)
        addresses[index], behind = address, address + size
        highest = max(highest, behind)
        insort(in_use, (address, behind, life.last))
    return addresses, highest


def _first_gap(in_use: list[tuple[int, int, int]], size: int, address: int) -> int:
    """Return the first address, from `address` on, with `size` free bytes."""
    for start, end, _ in in_use:
        if address + size <= start:
            break
        if end > address:
            address = end
    return address
