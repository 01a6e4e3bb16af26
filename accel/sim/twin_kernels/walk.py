"""Which slot of which tile a feeder is at: counters, loops inside loops; docs/timing.md rules 2, 7, 11, 13 and 17."""

from __future__ import annotations

from typing import NamedTuple

from accel.jit import kernel
from accel.sim.twin_kernels.vector import Bank

IS_RUNNING, WAIT, SLOT, TOKEN, PRODUCT, M_TILE, N_TILE, K_TILE, BANK = range(9)
"""The counters of a walk: columns of a bank of one row a walk."""
COUNTERS = 9


class Walk(NamedTuple):
    """What is walked over: tiles, in each of them tokens of `group_cycles` slots, after each a gap; counts are at least 1."""

    group_cycles: int
    delay: int
    """Cycles before the first slot."""
    products: int
    m_tiles: int
    n_tiles: int
    k_tiles: int
    tokens_full: int
    """Of a tile; `tokens_last` in the last tile along m."""
    tokens_last: int
    gap_full: int
    """Cycles between two tiles; `gap_last` where it belongs to a last tile along m."""
    gap_last: int
    is_gap_of_next: bool
    """Whether a gap belongs to the tile that follows instead of the one that has ended."""


@kernel
def start(places: Bank, which: int, walk: Walk) -> None:
    """Stand before the first slot."""
    for counter in range(COUNTERS):
        places[which, counter] = 0
    places[which, IS_RUNNING] = 1
    places[which, WAIT] = walk.delay


@kernel
def is_in_slot(places: Bank, which: int) -> bool:
    """Return whether this cycle is a slot of a tile, and no gap."""
    return bool(places[which, IS_RUNNING] == 1 and places[which, WAIT] == 0)


@kernel
def step(places: Bank, which: int, walk: Walk) -> None:
    """Go on by one cycle."""
    if places[which, WAIT] > 0:
        places[which, WAIT] -= 1
        return
    places[which, SLOT] += 1
    if places[which, SLOT] < walk.group_cycles:
        return
    places[which, SLOT] = 0
    places[which, TOKEN] += 1
    is_last_m = places[which, M_TILE] == walk.m_tiles - 1
    if places[which, TOKEN] < (walk.tokens_last if is_last_m else walk.tokens_full):
        return
    places[which, TOKEN] = 0
    places[which, BANK] = 1 - places[which, BANK]
    _next_tile(places, which, walk)
    if walk.is_gap_of_next:
        is_last_m = places[which, M_TILE] == walk.m_tiles - 1
    places[which, WAIT] = walk.gap_last if is_last_m else walk.gap_full


@kernel
def _next_tile(places: Bank, which: int, walk: Walk) -> None:
    """Go on along k, then n, then m, then to the next product."""
    places[which, K_TILE] += 1
    if places[which, K_TILE] < walk.k_tiles:
        return
    places[which, K_TILE] = 0
    places[which, N_TILE] += 1
    if places[which, N_TILE] < walk.n_tiles:
        return
    places[which, N_TILE] = 0
    places[which, M_TILE] += 1
    if places[which, M_TILE] < walk.m_tiles:
        return
    places[which, M_TILE] = 0
    places[which, PRODUCT] += 1
    if places[which, PRODUCT] == walk.products:
        places[which, IS_RUNNING] = 0
