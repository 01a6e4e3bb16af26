"""What was seen of an array: the words at each output, and the counters after each run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from array_driver import sinks

from accel.counters import COUNTERS
from accel.rtl.parameters import ArrayParameters

BROKEN = "broken"
"""Among the words of an output: it took back `valid`, or changed a payload, before `ready`."""


@dataclass(frozen=True)
class Seen:
    """What a simulation of a batch gave."""

    words: list[list[str]]
    """Of each output, in hexadecimal, in order."""
    runs: list[dict[str, int]]
    """Of each run that ended: `busy_cycles`, from its command to when the next could be taken, and the counters."""
    is_hung: bool
    cycles: int
    """Clock cycles simulated."""


def read_files(parameters: ArrayParameters, folder: Path, is_hung: bool, cycles: int) -> Seen:
    """Return what the harness wrote."""
    words = [(folder / f"{sink.name}.out").read_text().split() for sink in sinks(parameters)]
    names = ("busy_cycles", *COUNTERS)
    lines = (folder / "runs.out").read_text().splitlines()
    runs = [dict(zip(names, map(int, line.split()), strict=True)) for line in lines]
    return Seen(words, runs, is_hung, cycles)
