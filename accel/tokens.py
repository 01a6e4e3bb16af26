"""What instructions wait for, as tokens (docs/isa.md, section 2) and as needs, and the way from each form to the other.

A *need* of instruction i on engine e is how many of the first instructions of e must be complete before i starts. Engines take
instructions in order, so what an instruction needs all later ones of its engine need too.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from accel.errors import ScheduleError
from accel.program import Engine, Program

Bytes = NDArray[np.uint8]
Counts = NDArray[np.int64]


def tokens_of_needs(opcodes: Bytes, needs: Counts) -> tuple[Bytes, Bytes]:
    """Return the masks (waits, signals), each (n,), of the fewest tokens that make every instruction wait for what it needs.

    `needs` is (n, 6), 0 for none; those on the instruction's own engine are left to the flag FENCE. An instruction waits only
    for more than its engine has waited for already, and every token sent is taken.
    """
    _check_needs(opcodes, needs)
    waits, signals = np.zeros_like(opcodes), np.zeros_like(opcodes)
    places = _places(opcodes)
    for waiter, own in enumerate(places):
        wanted_by_all = needs[own]
        for sender in np.flatnonzero(wanted_by_all.any(axis=0)).tolist():
            if sender != waiter:
                wanted = wanted_by_all[:, sender]
                more = wanted > _before(wanted)
                waits[own[more]] |= 1 << sender
                signals[places[sender][wanted[more] - 1]] |= 1 << waiter
    return waits, signals


def needs_of_tokens(opcodes: Bytes, waits: Bytes, signals: Bytes, source: str = "program") -> Counts:
    """Return the needs (n, 6) that tokens stand for: the inverse of `tokens_of_needs`, 0 on the instruction's own engine.

    Needs include those of earlier instructions of the same engine. Tokens that do not pair up are refused; `source` names the
    program in the error.
    """
    needs = np.zeros((len(opcodes), len(Engine)), dtype=np.int64)
    places = _places(opcodes)
    for sender, waiter in _PAIRS:
        is_wait = (waits[places[waiter]] >> sender) & 1 == 1
        sent = np.flatnonzero((signals[places[sender]] >> waiter) & 1)
        _check_pairs(sender, waiter, places[waiter][is_wait], places[sender][sent], source)
        met = np.zeros(len(is_wait), dtype=np.int64)
        met[is_wait] = sent + 1
        needs[places[waiter], sender] = np.maximum.accumulate(met)
    return needs


def resolve_tokens(program: Program, source: str = "program") -> Counts:
    """Return for each instruction and engine how many of its first instructions must be complete, by the program's tokens."""
    table = program.instructions
    return needs_of_tokens(table["opcode"], table["waits"], table["signals"], source)


_PAIRS = [(sender, waiter) for sender in Engine for waiter in Engine if sender != waiter]


def _places(opcodes: Bytes) -> list[NDArray[np.intp]]:
    """Return for each engine where its instructions stand in the program."""
    return [np.flatnonzero(opcodes == engine) for engine in Engine]


def _before(wanted: Counts) -> Counts:
    """Return for each place the most that was wanted before it."""
    return np.maximum.accumulate(np.concatenate((np.zeros(1, dtype=np.int64), wanted)))[:-1]


def _check_needs(opcodes: Bytes, needs: Counts) -> None:
    counts = np.bincount(opcodes, minlength=len(Engine))[: len(Engine)]
    is_other = opcodes[:, None] != np.arange(len(Engine), dtype=np.uint8)
    bad = np.argwhere(is_other & ((needs > counts) | (needs < 0)))
    if len(bad):
        place, engine = bad[0]
        raise ScheduleError(
            f"instruction {place}: needs on {Engine(engine).name} must be between 0 and its {counts[engine]} instructions, "
            f"not {needs[place, engine]}"
        )


def _check_pairs(sender: Engine, waiter: Engine, waiting: NDArray[np.intp], sending: NDArray[np.intp], source: str) -> None:
    waits, signals = len(waiting), len(sending)
    if waits > signals:
        raise ScheduleError(
            f"{source}: instruction {waiting[signals]}: waits must be for tokens that are sent, not token {signals + 1} from "
            f"{sender.name} to {waiter.name} of {signals}"
        )
    if signals > waits:
        raise ScheduleError(
            f"{source}: instruction {sending[waits]}: signals must be tokens that are taken, not token {waits + 1} from "
            f"{sender.name} to {waiter.name} of {waits}"
        )
