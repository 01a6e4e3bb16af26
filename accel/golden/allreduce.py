"""A ring all-reduce that moves every value from machine to machine: the slow twin of `accel.sim.scaling.Ring`.

The algorithm is that of Patarasuk and Yuan (JPDC 2009), its rules are those of docs/scaling.md, section 1.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

FP32_BYTES = 4


@dataclass(frozen=True)
class Rates:
    """What a ring runs on: cycles of latency, and bytes a cycle of the link and of each machine's DRAM."""

    latency_cycles: Fraction
    link_bytes_per_cycle: Fraction
    dram_bytes_per_cycle: Fraction
    word_bytes: int
    """Of an element on the link; in DRAM it has 4."""


@dataclass
class Machine:
    """One machine of the ring: its chunks, when each may be sent on, when its port is free, and what it has moved."""

    chunks: list[list[int]]
    has_chunk_since: list[Fraction]
    port_free: Fraction = Fraction(0)
    sent_bytes: int = 0
    dram_bytes: int = 0

    @property
    def values(self) -> list[int]:
        """All values in order, padding included."""
        return [value for chunk in self.chunks for value in chunk]


def step_reduce_scatter(values: list[list[int]], rates: Rates) -> list[Machine]:
    """Return the machines after a reduce-scatter of `values`, one list each: machine i has finished chunk (i + 1) mod P."""
    machines = [_machine(own, len(values)) for own in values]
    for step in range(len(machines) - 1):
        _pass_on(machines, [(index - step) % len(machines) for index in range(len(machines))], rates, adds=True)
    return machines


def step_all_gather(machines: list[Machine], rates: Rates) -> list[Machine]:
    """Return the machines after the chunk that each has finished went round."""
    for step in range(len(machines) - 1):
        _pass_on(machines, [(index + 1 - step) % len(machines) for index in range(len(machines))], rates, adds=False)
    return machines


def end_cycles(machines: list[Machine]) -> Fraction:
    """Return when the last machine has its last chunk."""
    return max(max(machine.has_chunk_since) for machine in machines)


def _machine(values: list[int], machines: int) -> Machine:
    """Return a machine with its values padded by zeros to equal chunks, one for each machine."""
    size = -(-len(values) // machines)
    padded = values + [0] * (size * machines - len(values))
    return Machine([padded[start * size : (start + 1) * size] for start in range(machines)], [Fraction(0)] * machines)


def _pass_on(machines: list[Machine], sent: list[int], rates: Rates, adds: bool) -> None:
    """Let machine i send its chunk `sent[i]` to the next machine, which adds it to its own or takes it as it is."""
    arrivals = [_send(machines[index], chunk, rates, adds) for index, chunk in enumerate(sent)]
    for index, (arrived, values) in enumerate(arrivals):
        receiver, chunk = machines[(index + 1) % len(machines)], sent[index]
        for place, value in enumerate(values):
            receiver.dram_bytes += FP32_BYTES  # the result is written
            if adds:
                receiver.dram_bytes += FP32_BYTES  # the own value is read
                value += receiver.chunks[chunk][place]
            receiver.chunks[chunk][place] = value
        receiver.has_chunk_since[chunk] = arrived


def _send(machine: Machine, chunk: int, rates: Rates, adds: bool) -> tuple[Fraction, list[int]]:
    """Return when a chunk that `machine` sends has arrived, and its values."""
    values = list(machine.chunks[chunk])
    accesses = 3 if adds else 2  # each machine sends one chunk and takes in another of the same size
    on_link = Fraction(rates.word_bytes * len(values)) / rates.link_bytes_per_cycle
    on_dram = Fraction(accesses * FP32_BYTES * len(values)) / rates.dram_bytes_per_cycle
    start = max(machine.port_free, machine.has_chunk_since[chunk])
    machine.port_free = start + max(on_link, on_dram)
    machine.sent_bytes += rates.word_bytes * len(values)
    machine.dram_bytes += FP32_BYTES * len(values)
    return machine.port_free + rates.latency_cycles, values
