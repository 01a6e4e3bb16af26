"""The rules of a stream, checked cycle by cycle, and random benches that obey them.

1. `valid` once raised stays raised until the cycle in which `ready` is high too.
2. `payload` is stable from the cycle in which `valid` is raised to that cycle.
3. `valid` never waits for `ready`: a receiver that shows no `ready` still sees the transfer come.
4. What goes in comes out once, in order: nothing is lost, repeated or swapped.

Rules 1 and 2 are a `StreamRules` per stream; `drive` with a receiver that stays away checks rule 3; the caller compares what
`drive` returns for rule 4.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from amaranth.hdl import Value
from amaranth.sim import Simulator

if TYPE_CHECKING:
    from collections.abc import Sequence

PATIENCE = 1000
"""Cycles without a transfer after which a bench gives up: far beyond any latency or run of stalls."""


@dataclass
class StreamRules:
    """Checks rules 1 and 2 of one stream from what it shows in each cycle."""

    name: str
    cycle: int = 0
    _waiting: Any = field(default=None, init=False)

    def observe(self, valid: int, ready: int, payload: Any) -> bool:
        """Take in one cycle; return whether there was a transfer."""
        if self._waiting is not None:
            assert valid, f"rule 1: {self.name} took `valid` back before `ready`, cycle {self.cycle}"
            assert payload == self._waiting, f"rule 2: {self.name} changed a waiting payload, cycle {self.cycle}"
        self._waiting = payload if valid and not ready else None
        self.cycle += 1
        return bool(valid and ready)


@dataclass(frozen=True)
class Stalls:
    """When a side pauses: before each transfer with probability `frac` for up to `longest` cycles."""

    frac: float = 0.0
    longest: int = 1

    def pause(self, rng: random.Random) -> int:
        """Return the cycles to pause now."""
        return rng.randint(1, self.longest) if rng.random() < self.frac else 0


@dataclass(frozen=True)
class Run:
    """What a bench saw."""

    payloads: list[int]
    """Transfers out, as the bits of the payload, in order."""
    cycles_in: list[int]
    cycles_out: list[int]
    """Cycle of each transfer."""


def drive(
    dut: Any,
    payloads: Sequence[Any],
    *,
    seed: int = 0,
    sender: Stalls = Stalls(),
    receiver: Stalls = Stalls(),
    waits_for_valid: bool = False,
    expected: int | None = None,
) -> Run:
    """Send `payloads` through the streams `dut.i` and `dut.o` in Amaranth's simulator, checking rules 1 to 3 on the way.

    `waits_for_valid` keeps `ready` low until `valid` has been seen, which deadlocks against rule 3. `expected` is the number of
    transfers out, as many as in unless given.
    """
    run = Run([], [], [])
    count = len(payloads) if expected is None else expected
    ends = _Ends(dut, random.Random(seed), run)
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(partial(ends.send, payloads=payloads, stalls=sender), background=True)
    simulator.add_testbench(partial(ends.receive, count=count, stalls=receiver, waits_for_valid=waits_for_valid))
    simulator.run()
    return run


class _Ends:
    def __init__(self, dut: Any, rng: random.Random, run: Run) -> None:
        self.dut, self.rng, self.run = dut, rng, run
        self.rules = StreamRules("o")

    async def send(self, context: Any, payloads: Sequence[Any], stalls: Stalls) -> None:
        stream, cycle, rng = self.dut.i, 0, random.Random(self.rng.random())
        for payload in payloads:
            for _ in range(stalls.pause(rng)):
                cycle += 1
                await context.tick()
            context.set(stream.payload, payload)
            context.set(stream.valid, 1)
            taken = False
            while not taken:
                _, _, taken = await context.tick().sample(stream.ready)
                if taken:
                    self.run.cycles_in.append(cycle)
                cycle += 1
            context.set(stream.valid, 0)

    async def receive(self, context: Any, count: int, stalls: Stalls, waits_for_valid: bool) -> None:
        stream, cycle, idle, rng = self.dut.o, 0, 0, random.Random(self.rng.random())
        bits = Value.cast(stream.payload)
        pause, seen = stalls.pause(rng), False
        while len(self.run.payloads) < count:
            context.set(stream.ready, pause == 0 and (seen or not waits_for_valid))
            _, _, valid, ready, payload = await context.tick().sample(stream.valid, stream.ready, bits)
            seen = bool(valid)
            idle += 1
            if self.rules.observe(valid, ready, payload):
                self.run.payloads.append(payload)
                self.run.cycles_out.append(cycle)
                pause, seen, idle = stalls.pause(rng), False, 0
            else:
                pause = max(0, pause - 1)
            assert idle < PATIENCE, f"rule 3: no transfer for {PATIENCE} cycles after {len(self.run.payloads)} of {count}"
            cycle += 1
