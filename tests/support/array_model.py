"""Runs of the array and what they must give: drawn from a seed, answered by the golden models and the closed forms alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import numpy as np

from accel.errors import ConfigError
from accel.golden.numeric import bits, to_bf16, to_fp16
from accel.golden.prune import Entries, prune
from accel.rtl.array import HANDSHAKE_CYCLES
from accel.rtl.command import Run, command_fields
from accel.rtl.floats import BF16, FP16
from accel.rtl.parameters import ArrayParameters
from accel.rtl.stimulus import Stimulus, stimulus
from accel.sparsity import NMPattern
from accel.timing.array import os_end_cycles, os_run_cycles, ws_end_cycles, ws_run_cycles

PROFILES = ("none", "light", "heavy", "starved", "blocked", "mixed")
"""How the streams stall: never, now and then, most of the time, one source or one sink for long, each port in its own way."""

LONG_PAUSE_CYCLES = 1000


@dataclass(frozen=True)
class Case:
    """One run: `index` of those that `seed` draws for an array."""

    parameters: ArrayParameters
    run: Run
    k_taps: int
    k_inner: int
    values: str
    """A key of `OPERANDS`."""
    profile: str
    """One of `PROFILES`."""
    seed: int
    index: int

    @cached_property
    def operands(self) -> tuple[np.ndarray, list[Entries]]:
        """lhs (count, dim_m, dim_k) and the entries of every rhs, with anything at all in those that are not valid."""
        rng, run, dim_k = self.rng("operands"), self.run, self.k_taps * self.k_inner
        name = self.parameters.operand_format.name
        lhs = draw_operands(rng, name, self.values, (run.count, run.dim_m, dim_k))
        dense = [draw_operands(rng, name, self.values, (dim_k, run.dim_n)) for _ in range(run.count)]
        rhs = [prune(matrix, run.pattern, self.k_taps) for matrix in dense]
        return lhs, [_with_junk(rng, entries, WORDS[name].special) for entries in rhs]

    @cached_property
    def streams(self) -> Stimulus:
        """What the ports carry."""
        return stimulus(self.parameters, self.run, *self.operands)

    def rng(self, purpose: str) -> np.random.Generator:
        """Return a generator of this case's own."""
        return np.random.default_rng([self.seed, self.index, *purpose.encode()])

    @property
    def _sizes(self) -> tuple[int, ...]:
        parameters, run = self.parameters, self.run
        sizes = (parameters.rows, parameters.cols, parameters.adder_latency, run.row_lanes)
        if run.dataflow == "OS":
            sizes = (*sizes, parameters.drain_lanes)
        return (*sizes, parameters.multiplier_latency, run.dim_m, run.dim_n)

    @property
    def _depth(self) -> tuple[int, ...]:
        run = self.run
        return (run.groups * run.pattern.keep,) if run.dataflow == "OS" else (run.groups, run.pattern.keep, run.m_chunk)

    @property
    def cycles(self) -> int:
        """The closed form."""
        run_cycles = os_run_cycles if self.run.dataflow == "OS" else ws_run_cycles
        return int(run_cycles(*self._sizes, *self._depth, self.run.count))

    @property
    def busy_cycles(self) -> int:
        """Cycles from a command to when the next can be taken, stalls left out: the run, then what passes unused columns."""
        end_cycles = os_end_cycles if self.run.dataflow == "OS" else ws_end_cycles
        rows, cols, *others, _ = self._sizes
        ends, ends_of_one = end_cycles(*self._sizes, *self._depth), end_cycles(rows, 1, *others, 1, *self._depth)
        columns = int(ends - ends_of_one) + 1  # of those that the last output waits for: the rest of `ends` is the same
        return self.cycles + cols - columns + HANDSHAKE_CYCLES

    @property
    def counters(self) -> dict[str, int]:
        """Cycles and work of the run, from its sizes and from which entries are valid; stalls apart."""
        run, parameters = self.run, self.parameters
        n_tiles = ceil(run.dim_n / (parameters.cols * (parameters.adder_latency // run.row_lanes)))
        m_passes = ceil(run.dim_m / (parameters.rows * run.row_lanes if run.dataflow == "OS" else min(run.m_chunk, run.dim_m)))
        return {
            "cycles": self.cycles,
            "macs": run.dim_m * sum(int(entries.valid.sum()) for entries in self.operands[1]),
            "west_words": run.count * run.dim_m * run.groups * n_tiles,
            "north_entries": run.count * m_passes * run.groups * run.pattern.keep * run.dim_n,
            "out_words": run.count * run.dim_m * run.dim_n,
        }


def draw_case(parameters: ArrayParameters, seed: int, index: int, most_cycles: int = 2000) -> Case:
    """Return run `index` of `seed`: operands in turn; sizes at and around what fills a tile are drawn often."""
    rng = np.random.default_rng([seed, index])
    for _ in range(1000):
        case = _draw(parameters, rng, seed, index)
        try:
            command_fields(parameters, case.run)
        except ConfigError:
            continue
        if case.cycles <= most_cycles:
            return case
        most_cycles += most_cycles // 50  # an array so large that even small runs take long
    raise AssertionError(f"no run of {parameters} fits")


def _draw(parameters: ArrayParameters, rng: np.random.Generator, seed: int, index: int) -> Case:
    dataflow = str(rng.choice(parameters.dataflows))
    row_lanes = int(rng.choice(parameters.row_lanes))
    pattern = _draw_pattern(rng, parameters.group)
    groups_a_tile = parameters.rows if dataflow == "WS" else 1
    k_taps = int(rng.choice([1, 1, 1, 2, 3]))
    most_groups = max(1, int(rng.choice([3, 2 * groups_a_tile + 1])) // k_taps)
    k_inner = int(rng.integers(1, most_groups * pattern.group + 1))
    dim_m = _size(rng, parameters.rows * row_lanes if dataflow == "OS" else parameters.rows)
    run = Run(
        dataflow=dataflow,
        row_lanes=row_lanes,
        pattern=pattern,
        count=int(rng.choice([1, 1, 1, 2, 3])),
        dim_m=dim_m,
        dim_n=_size(rng, parameters.cols * (parameters.adder_latency // row_lanes)),
        groups=k_taps * ceil(k_inner / pattern.group),
        m_chunk=int(rng.choice([dim_m, rng.integers(1, dim_m + 3)])),
        is_rounded=bool(rng.random() < 0.4),
    )
    values = list(OPERANDS)[index % len(OPERANDS)]
    return Case(parameters, run, k_taps, k_inner, values, str(rng.choice(PROFILES)), seed, index)


def draw_parameters(rng: np.random.Generator) -> ArrayParameters:
    """Return an array of at most 16 PEs (in one of four at most 32), in all the forms that there are."""
    most = 32 if rng.random() < 0.25 else 16
    rows = int(rng.choice([1, 1, 2, 2, 3, 4, 5, 7, 8, 11, 16]))
    cols = int(rng.choice([cols for cols in (1, 1, 2, 2, 3, 4, 5, 7, 8, 11, 16) if rows * cols <= most]))
    lanes = int(rng.integers(2, 9))
    forms = [form for form in range(1, lanes + 1) if lanes % form == 0]
    row_lanes = sorted(rng.choice(forms, int(rng.integers(1, len(forms) + 1)), replace=False).tolist())
    multiplier_latency, group = int(rng.integers(1, 5)), int(rng.choice([1, 2, 4, 4, 8, 8, 16]))
    dataflows = (("OS", "WS"), ("OS", "WS"), ("OS",), ("WS",))[int(rng.integers(4))]
    drain_lanes = int(rng.integers(1, min(rows, 4) + 1))
    return ArrayParameters(
        rows=rows,
        cols=cols,
        adder_latency=lanes,
        multiplier_latency=multiplier_latency,
        group=group,
        row_lanes=tuple(row_lanes),
        dataflows=dataflows,
        drain_lanes=drain_lanes if "OS" in dataflows else 1,
        psum_words=int(rng.choice([64, 256])),
        operand_format=BF16 if rng.random() < 0.25 else FP16,
    )


def _draw_pattern(rng: np.random.Generator, group: int) -> NMPattern:
    if rng.random() < 0.15:
        return NMPattern(1, 1)
    return NMPattern(int(rng.choice([group, max(1, group // 2), rng.integers(1, group + 1)])), group)


def _size(rng: np.random.Generator, tile: int) -> int:
    return int(rng.choice([1, tile, tile + 1, 2 * tile, rng.integers(1, tile + 1), rng.integers(1, 2 * tile + 2)]))


def _with_junk(rng: np.random.Generator, entries: Entries, special: np.ndarray) -> Entries:
    """Return `entries` with any value and any index where valid = 0: nothing may look at them."""
    values = rng.choice(special, entries.values.shape).view(entries.values.dtype)
    index = rng.integers(0, entries.pattern.group, entries.index.shape)
    return replace(
        entries,
        values=np.where(entries.valid, entries.values, values),
        index=np.where(entries.valid, entries.index, index),
    )


@dataclass(frozen=True)
class Words:
    """Words of an operand format, as bits, from which operands are drawn."""

    rounded: Callable
    """From FP32 to operands."""
    special: np.ndarray
    """Zeros, infinities, quiet and signalling NaNs, the ends of the subnormals, the least and the largest normal numbers, 1."""
    least: int
    """The least normal number."""
    cancelling: np.ndarray
    """Magnitudes, some close to powers of 2 far apart."""
    large: tuple[int, int]
    """From, to: of their products, and of the sums of these rounded to the format, some overflow and some just do not."""
    small: tuple[int, int, int]
    """From, to, and the bits that are kept: rounded to the format, sums of their products are subnormal or ties."""


def _words(text):
    return np.array([int(word, 16) for word in text.split()], np.uint16)


WORDS = {
    "fp16": Words(
        rounded=to_fp16,
        special=_words("0000 8000 7C00 FC00 7E00 FE01 7D55 0001 8001 03FF 0400 7BFF FBFF 3C00"),
        least=0x0400,
        cancelling=_words("0001 0400 3C00 3C01 3BFF 4BFF 6400 7BFF"),
        large=(0x5400, 0x6000),
        small=(0x0C00, 0x2000, 0xFFC0),
    ),
    # The square of 2000 is 2^-126, that of 5F80 2^128: differences of small products vanish, with either sign.
    "bf16": Words(
        rounded=to_bf16,
        special=_words("0000 8000 7F80 FF80 7FC0 FFC1 7F81 0001 8001 007F 0080 7F7F FF7F 3F80"),
        least=0x0080,
        cancelling=_words("0080 1FFF 2000 2001 3F7F 3F80 3F81 5F00 7F7F"),
        large=(0x5EC0, 0x5FA0),
        small=(0x1F80, 0x2080, 0xFFF0),
    ),
}


def _tame(rng, words, shape):
    return bits(words.rounded(rng.normal(size=shape).astype(np.float32)))


def _raw(rng, words, shape):
    return rng.integers(0, 2**16, shape).astype(np.uint16)


def _special(rng, words, shape):
    return np.where(rng.random(shape) < 0.1, rng.choice(words.special, shape), _tame(rng, words, shape))


def _infinite(rng, words, shape):
    """Few infinities or many, and zeros, of both signs, but no NaN: those that come out were made."""
    chance, infinite = rng.random(shape), rng.choice([0.05, 0.25])
    values = np.where(chance < 0.6, rng.choice(words.special[:2], shape), _tame(rng, words, shape))
    return np.where(chance < infinite, rng.choice(words.special[2:4], shape), values)


def _subnormal(rng, words, shape):
    tiny = rng.integers(0, 2 * words.least, shape) | rng.integers(0, 2, shape) << 15
    return np.where(rng.random(shape) < 0.7, tiny.astype(np.uint16), _tame(rng, words, shape))


def _cancelling(rng, words, shape):
    """Two magnitudes: sums vanish, exactly or all but the last bits."""
    signs = rng.integers(0, 2, shape).astype(np.uint16) << 15
    return rng.choice(rng.choice(words.cancelling, 2), shape) | signs


def _large(rng, words, shape):
    return (rng.integers(*words.large, shape) | rng.integers(0, 4, shape) // 3 << 15).astype(np.uint16)


def _small_results(rng, words, shape):
    *ends, kept = words.small
    return (rng.integers(*ends, shape) & kept | rng.integers(0, 2, shape) << 15).astype(np.uint16)


def _zeros(rng, words, shape):
    return np.where(rng.random(shape) < 0.6, rng.choice(words.special[:2], shape), _tame(rng, words, shape))


OPERANDS = {
    "tame": _tame,
    "raw bits": _raw,
    "special": _special,
    "infinite": _infinite,
    "subnormal": _subnormal,
    "cancelling": _cancelling,
    "large": _large,
    "small results": _small_results,
    "zeros": _zeros,
}
"""How operands are drawn: (rng, words, shape) -> bits."""


def draw_operands(rng: np.random.Generator, operand_format: str, values: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return operands of a format, as `accel.golden.gemm` takes them, drawn in one of the ways of `OPERANDS`."""
    dtype = np.float16 if operand_format == "fp16" else np.uint16
    return OPERANDS[values](rng, WORDS[operand_format], shape).view(dtype)
