"""Runs of the array and what they must give: drawn from a seed, answered by the golden models and the closed forms alone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from math import ceil

import numpy as np

from accel.errors import ConfigError
from accel.golden.prune import Entries, prune
from accel.rtl.command import Run, command_fields
from accel.rtl.parameters import ArrayParameters
from accel.rtl.stimulus import Stimulus, stimulus
from accel.sparsity import NMPattern
from accel.timing.array import os_end_cycles, os_run_cycles, ws_end_cycles, ws_run_cycles

PROFILES = ("none", "light", "heavy", "starved", "blocked", "mixed")
"""How the streams stall: never, now and then, most of the time, one source or one sink for long, each port in its own way."""

LONG_PAUSE_CYCLES = 1000
HANDSHAKE_CYCLES = 4
"""Cycles in which the array takes no command beyond those of the run, its stalls and the way to the last column."""

SPECIAL = np.array(
    [0x0000, 0x8000, 0x7C00, 0xFC00, 0x7E00, 0xFE01, 0x7D55, 0x0001, 0x8001, 0x03FF, 0x0400, 0x7BFF, 0xFBFF, 0x3C00], np.uint16
)
"""Zeros, infinities, quiet and signalling NaNs, the ends of the subnormals, the least and the largest normal numbers, 1."""


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
        draw = OPERANDS[self.values]
        lhs = draw(rng, (run.count, run.dim_m, dim_k))
        rhs = [prune(draw(rng, (dim_k, run.dim_n)), run.pattern, self.k_taps) for _ in range(run.count)]
        return lhs, [_with_junk(rng, entries) for entries in rhs]

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
    return ArrayParameters(
        rows=rows,
        cols=cols,
        adder_latency=lanes,
        multiplier_latency=int(rng.integers(1, 5)),
        group=int(rng.choice([1, 2, 4, 4, 8, 8, 16])),
        row_lanes=tuple(row_lanes),
        dataflows=(("OS", "WS"), ("OS", "WS"), ("OS",), ("WS",))[int(rng.integers(4))],
        drain_lanes=int(rng.integers(1, min(rows, 4) + 1)),
        psum_words=int(rng.choice([64, 256])),
    )


def _draw_pattern(rng: np.random.Generator, group: int) -> NMPattern:
    if rng.random() < 0.15:
        return NMPattern(1, 1)
    return NMPattern(int(rng.choice([group, max(1, group // 2), rng.integers(1, group + 1)])), group)


def _size(rng: np.random.Generator, tile: int) -> int:
    return int(rng.choice([1, tile, tile + 1, 2 * tile, rng.integers(1, tile + 1), rng.integers(1, 2 * tile + 2)]))


def _with_junk(rng: np.random.Generator, entries: Entries) -> Entries:
    """Return `entries` with any value and any index where valid = 0: nothing may look at them."""
    values = rng.choice(SPECIAL, entries.values.shape).view(np.float16)
    index = rng.integers(0, entries.pattern.group, entries.index.shape)
    return replace(
        entries,
        values=np.where(entries.valid, entries.values, values),
        index=np.where(entries.valid, entries.index, index),
    )


def _tame(rng, shape):
    return rng.normal(size=shape).astype(np.float16)


def _raw(rng, shape):
    return rng.integers(0, 2**16, shape).astype(np.uint16).view(np.float16)


def _special(rng, shape):
    return np.where(rng.random(shape) < 0.1, rng.choice(SPECIAL, shape).view(np.float16), _tame(rng, shape))


def _infinite(rng, shape):
    """Few infinities or many, and zeros, of both signs, but no NaN: those that come out were made."""
    chance, infinite = rng.random(shape), rng.choice([0.05, 0.25])
    values = np.where(chance < 0.6, rng.choice(SPECIAL[:2], shape).view(np.float16), _tame(rng, shape))
    return np.where(chance < infinite, rng.choice(SPECIAL[2:4], shape).view(np.float16), values)


def _subnormal(rng, shape):
    tiny = rng.integers(0, 0x0800, shape) | rng.integers(0, 2, shape) << 15
    return np.where(rng.random(shape) < 0.7, tiny.astype(np.uint16).view(np.float16), _tame(rng, shape))


def _cancelling(rng, shape):
    """Two magnitudes, of those close to powers of 2 far apart: sums vanish, exactly or all but the last bits."""
    magnitudes = np.array([0x0001, 0x0400, 0x3C00, 0x3C01, 0x3BFF, 0x4BFF, 0x6400, 0x7BFF], np.uint16)
    signs = rng.integers(0, 2, shape).astype(np.uint16) << 15
    return (rng.choice(rng.choice(magnitudes, 2), shape) | signs).view(np.float16)


def _large(rng, shape):
    """Rounded to FP16, sums overflow or lie where they just do not."""
    return (rng.integers(0x5400, 0x6000, shape) | rng.integers(0, 4, shape) // 3 << 15).astype(np.uint16).view(np.float16)


def _small_results(rng, shape):
    """Rounded to FP16, most sums are subnormal or ties."""
    return (rng.integers(0x0C00, 0x2000, shape) & 0xFFC0 | rng.integers(0, 2, shape) << 15).astype(np.uint16).view(np.float16)


def _zeros(rng, shape):
    return np.where(rng.random(shape) < 0.6, rng.choice(SPECIAL[:2], shape).view(np.float16), _tame(rng, shape))


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
"""How operands are drawn: (rng, shape) -> FP16."""
