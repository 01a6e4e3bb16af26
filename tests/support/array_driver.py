"""What drives the streams of an array: the words of many runs, each with a pause before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from array_model import LONG_PAUSE_CYCLES, Case

from accel.counters import COUNTERS
from accel.rtl.command import command_fields, command_layout
from accel.rtl.parameters import ArrayParameters

TOP = "array_harness"
HELD_WORDS = 3
"""Words that an output of the array holds."""


@dataclass
class Stream:
    """The words of one port in their order, and the cycles to wait before each: with showing it, or with taking it."""

    name: str
    """As in Verilog."""
    width: int
    words: list[str] = field(default_factory=list)
    """In hexadecimal; of a sink those expected."""
    pauses: list[int] = field(default_factory=list)

    def extend(self, words: list[str], pauses: np.ndarray) -> None:
        self.words += words
        self.pauses += pauses.tolist()


@dataclass(frozen=True)
class Batch:
    """Runs one after the other, and what that makes of the streams."""

    cases: list[Case]
    sources: list[Stream]
    """The commands, then west and north."""
    sinks: list[Stream]
    may_stall: list[bool]
    """Of each run whether a pause can hold it up: one of its own, or before a word that an output still holds."""

    @classmethod
    def of(cls, cases: Sequence[Case]) -> Batch:
        """Return the streams of `cases`, all of one array."""
        batch = cls(list(cases), sources(cases[0].parameters), sinks(cases[0].parameters), [])
        for case in cases:
            first = [len(stream.pauses) for stream in batch.sources]
            first += [max(len(stream.pauses) - HELD_WORDS, 0) for stream in batch.sinks]
            batch._append(case)
            streams = [*batch.sources, *batch.sinks]
            batch.may_stall.append(any(any(stream.pauses[start:]) for stream, start in zip(streams, first, strict=True)))
        return batch

    def _append(self, case: Case) -> None:
        command, *operands = self.sources
        layout, streams = command_layout(case.parameters), case.streams
        word = layout.const(command_fields(case.parameters, case.run)).as_value().value
        rng = case.rng("pauses")
        command.extend([f"{word:x}"], np.array([int(rng.choice([0, 0, 0, 1, 7])) if case.profile != "none" else 0]))
        index_bits = case.parameters.index_bits
        words = [_west_words(words) for words in streams.west]
        words += [[f"{v | i << 16 | f << 16 + index_bits:x}" for v, i, f in entries.tolist()] for entries in streams.north]
        words += [[f"{word:x}" for word in sink.tolist()] for sink in streams.out]
        ports = [*operands, *self.sinks]
        held = rng.integers(len(operands)) if case.profile == "starved" else len(operands) + rng.integers(len(self.sinks))
        for number, (stream, hexes) in enumerate(zip(ports, words, strict=True)):
            stream.extend(hexes, _pauses(rng, case.profile, len(hexes), number == held))


def sources(parameters: ArrayParameters) -> list[Stream]:
    """Return the ports that the array takes words from, without words."""
    west = [Stream(f"i_west__{row}", 16 * parameters.group) for row in range(parameters.rows)]
    north = [Stream(f"i_north__{col}", 17 + parameters.index_bits) for col in range(parameters.cols)]
    return [Stream("i_command", command_layout(parameters).size), *west, *north]


def sinks(parameters: ArrayParameters) -> list[Stream]:
    """Return the ports at which words come out, without words."""
    return [Stream(f"o_out__{number}", 32) for number in range(parameters.cols * parameters.drain_lanes)]


def write_files(batch: Batch, folder: Path) -> None:
    """Write what the harness reads: NAME.in of every port, a line for each word."""
    for stream in batch.sources:
        lines = [f"{pause} {word}\n" for pause, word in zip(stream.pauses, stream.words, strict=True)]
        (folder / f"{stream.name}.in").write_text("".join(lines))
    for stream in batch.sinks:
        (folder / f"{stream.name}.in").write_text("".join(f"{pause}\n" for pause in stream.pauses))


def harness(parameters: ArrayParameters, array: str) -> str:
    """Return the Verilog around the module `array`: a source or a sink at each port, and who writes down the counters."""
    wires, ports, parts = [], [], []
    for stream in [*sources(parameters), *sinks(parameters)]:
        name, is_source = stream.name, stream.name.startswith("i_")
        wires.append(f"  wire {name}_valid, {name}_ready, {name}_quiet; wire [{stream.width - 1}:0] {name}_payload;")
        ports += [f".{name}__{signal}({name}_{signal})" for signal in ("valid", "ready", "payload")]
        signals = ", ".join(f".{signal}({name}_{signal})" for signal in ("valid", "ready", "payload", "quiet"))
        kind = "stream_source" if is_source else "stream_sink"
        parts.append(f'  {kind} #({stream.width}) at_{name} (.clk(clk), .rst(rst), .done(done), .name("{name}"), {signals});')
    quiet = " & ".join(f"{stream.name}_quiet" for stream in [*sources(parameters), *sinks(parameters)])
    ports += [f".o_{name}({name})" for name in COUNTERS]
    text = Path(__file__).with_name("array_harness.v").read_text()
    for mark, lines in (
        ("WIRES", "\n".join(wires)),
        ("PARTS", "\n".join(parts)),
        ("ARRAY", f"  {array} array (.clk(clk), .rst(rst), {', '.join(ports)});"),
        ("COUNTERS", ", ".join(COUNTERS)),
        ("FORMAT", " ".join(["%0d"] * len(COUNTERS))),
        ("QUIET", quiet),
    ):
        text = text.replace(f"@{mark}@", lines)
    return text


def _west_words(words: np.ndarray) -> list[str]:
    text, digits = words[:, ::-1].astype(">u2").tobytes().hex(), 4 * words.shape[1]
    return [text[start : start + digits] for start in range(0, len(text), digits)]


def _pauses(rng: np.random.Generator, profile: str, count: int, is_held: bool) -> np.ndarray:
    """Return the pauses of a port; `is_held` is the one that is starved or blocked for long."""
    if profile == "mixed":
        profile = str(rng.choice(["none", "light", "heavy"]))
    frac, longest = {"light": (0.03, 8), "heavy": (0.5, 24)}.get(profile, (0.0, 1))
    pauses = np.where(rng.random(count) < frac, rng.integers(1, longest + 1, count), 0)
    if is_held and profile in ("starved", "blocked") and count:
        pauses[rng.integers(count)] = rng.integers(LONG_PAUSE_CYCLES // 2, LONG_PAUSE_CYCLES + 1)
    return pauses
