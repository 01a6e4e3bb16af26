"""What the shipped benches feed and expect: runs of every built kind, numbers of every kind, answers of the golden models."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import Any, NamedTuple

import numpy as np
from amaranth.lib import data

from accel.golden.array import run_os, run_ws
from accel.golden.feed import ArrayForm, RunShape, os_tiles, ws_tiles
from accel.golden.numeric import Float16s, bits
from accel.golden.prune import Entries, prune
from accel.rtl.command import Run, command_fields, command_layout
from accel.rtl.parameters import ArrayParameters
from accel.rtl.sore import SoreParameters
from accel.rtl.stimulus import Stimulus, array_form, stimulus
from accel.rtl.top import whole_bytes
from accel.sparsity import NMPattern

SEED = 1
PE_CYCLES = 1_500_000
"""What the runs of an array's bench may take, PEs times cycles; beyond one run of each form no run is added that exceeds it."""
QUICK_PE_CYCLES = 200_000
"""The same for a slow simulator, beyond one run of each dataflow: about a minute in Icarus Verilog."""

Rng = np.random.Generator


class ArrayVectors(NamedTuple):
    """One run and what it must give."""

    run: Run
    command: int
    streams: Stimulus
    cycles: int
    macs: int


def array_vectors(parameters: ArrayParameters, show: Callable[[str], None], seed: int = SEED) -> list[ArrayVectors]:
    """Return runs in both dataflows, every interleave form and, in turn, all kinds of pattern; `show` is told of each."""
    runs = list(_within_budget(parameters))
    vectors = []
    for number, (run, is_wild) in enumerate(runs):
        show(f"test vectors, run {number + 1} of {len(runs)}")
        rng = np.random.default_rng([seed, number])
        lhs, rhs = _operands(rng, run, is_wild)
        form = array_form(parameters, run.row_lanes)
        done = run_os(form, lhs, rhs) if run.dataflow == "OS" else run_ws(form, lhs, rhs, run.m_chunk)
        command = command_word(parameters, run)
        macs = sum(int(side.valid.sum()) for side in rhs) * run.dim_m
        vectors.append(ArrayVectors(run, command, stimulus(parameters, run, lhs, rhs), done.cycles, macs))
    return vectors


def quick_runs(parameters: ArrayParameters, vectors: Sequence[ArrayVectors]) -> int:
    """Return how many of the runs a slow simulator should take."""
    spent = accumulate(parameters.rows * parameters.cols * run.cycles for run in vectors)
    return max(len(parameters.dataflows), sum(pe_cycles <= QUICK_PE_CYCLES for pe_cycles in spent))


def command_word(parameters: ArrayParameters, run: Run) -> int:
    """Return the bits of the command that starts `run`."""
    constant: Any = command_layout(parameters).const(command_fields(parameters, run))
    return int(constant.as_value().value)


def _within_budget(parameters: ArrayParameters) -> Iterator[tuple[Run, bool]]:
    """Yield runs, each with whether its numbers are wild, until the cycles are spent."""
    forms = [(dataflow, lanes) for lanes in parameters.row_lanes for dataflow in parameters.dataflows]
    patterns = _patterns(parameters.group)
    left = PE_CYCLES // (parameters.rows * parameters.cols)
    for turn in range(len(patterns)):
        for number, (dataflow, row_lanes) in enumerate(forms):
            index = turn * len(forms) + number
            run = _run(parameters, dataflow, row_lanes, patterns[(turn + number) % len(patterns)], index)
            left -= _estimated_cycles(parameters, run)
            if turn == 0 or left > 0:
                yield run, index // 2 % 3 != 0


def _patterns(group: int) -> list[NMPattern]:
    """Return the patterns to run on a group: compact, element by element, dense, and one of each group."""
    keeps = dict.fromkeys((max(1, group // 4), group, 1))
    grouped = [NMPattern(keep, group) for keep in keeps]
    return list(dict.fromkeys([grouped[0], NMPattern(1, 1), *grouped[1:]]))


def _run(parameters: ArrayParameters, dataflow: Any, row_lanes: int, pattern: NMPattern, number: int) -> Run:
    """Return run `number`: ragged in every direction, small arrays with several tiles each way."""
    rows, tile_cols = parameters.rows, parameters.cols * (parameters.adder_latency // row_lanes)
    is_small = parameters.rows * parameters.cols <= 64
    n_tiles = 1 + (is_small or number % 3 == 2)
    dim_n = n_tiles * tile_cols - 1 - number % parameters.cols // 2 if tile_cols > 1 else n_tiles
    shape: dict[str, Any] = {
        "row_lanes": row_lanes,
        "pattern": pattern,
        "dim_n": max(1, dim_n),
        "is_rounded": (number // 2 + number) % 2 == 1,
    }
    if dataflow == "OS":
        tile_rows = rows * row_lanes
        dim_m = tile_rows + max(1, rows // 2 - 1) if is_small or number % 3 == 0 else max(1, tile_rows - 1)
        return Run(dataflow="OS", dim_m=dim_m, groups=3 + number % 4, count=1 + (is_small and number % 3 == 1), **shape)
    m_chunk = max(1, min(3 * row_lanes, parameters.psum_words // parameters.adder_latency * row_lanes))
    dim_m = m_chunk + max(1, m_chunk - 1) if is_small else m_chunk - (m_chunk > 1)
    groups = max(1, 2 * rows - 1 - number % rows // 2 if is_small or number % 4 == 0 else rows - 1)
    return Run(dataflow="WS", dim_m=dim_m, groups=groups, count=1 + (is_small and number % 5 == 4), m_chunk=m_chunk, **shape)


def _estimated_cycles(parameters: ArrayParameters, run: Run) -> int:
    form: ArrayForm = array_form(parameters, run.row_lanes)
    shape = RunShape(run.count, run.dim_m, run.dim_n, run.groups, run.pattern.keep, run.pattern.group)
    tiles = os_tiles(form, shape) if run.dataflow == "OS" else ws_tiles(form, shape, run.m_chunk)
    step = form.lanes * run.pattern.keep
    return tiles[-1].start + step * (run.groups if run.dataflow == "OS" else form.rows) + form.lanes * form.rows


def _operands(rng: Rng, run: Run, is_wild: bool) -> tuple[Float16s, list[Entries]]:
    """Return both operands; k has two taps with padding at the end of each where the pattern allows."""
    group, taps = run.pattern.group, 2 if run.groups % 2 == 0 else 1
    dim_k = run.groups * group - taps * min(group - 1, 1)
    specials_frac = min(0.01, 0.1 / dim_k) if is_wild else 0.0  # few enough that not every result is NaN
    lhs = numbers(rng, (run.count, run.dim_m, dim_k), specials_frac)
    rhs = []
    for _ in range(run.count):
        entries = prune(numbers(rng, (dim_k, run.dim_n), specials_frac), run.pattern, taps)
        valid = entries.valid & (rng.random(entries.valid.shape) > 0.05)
        values = np.where(valid, entries.values, np.float16(np.nan))  # where nothing may look
        rhs.append(replace(entries, values=values, valid=valid))
    return lhs, rhs


def numbers(rng: Rng, shape: tuple[int, ...], specials_frac: float) -> Float16s:
    """Return FP16 numbers: moderate ones and zeros; unless `specials_frac` is 0 also subnormals and, that often, the rest."""
    values = (rng.standard_normal(shape) * 2.0 ** rng.integers(-4, 4, shape)).astype(np.float16)
    values = np.where(rng.random(shape) < 0.05, np.float16(-0.0), values)
    if specials_frac:
        subnormals = rng.integers(0, 0x400, shape).astype(np.uint16) | rng.integers(0, 2, shape).astype(np.uint16) << 15
        nans = rng.integers(0x7C01, 0x8000, shape).astype(np.uint16)
        values = np.where(rng.random(shape) < 0.25, subnormals.view(np.float16), values)
        for special in (nans.view(np.float16), np.float16(np.inf), np.float16(-np.inf), np.float16(-65504)):
            values = np.where(rng.random(shape) < specials_frac, special, values)
    return values


class SoreVectors(NamedTuple):
    """Groups and their entries, as bits of the words at the ports of `SoreTop`."""

    groups: list[int]
    entries: list[int]


def sore_vectors(parameters: SoreParameters, seed: int = SEED, count: int = 2000) -> SoreVectors:
    """Return groups of every length with every keep, numbers of every kind, many of equal magnitude."""
    rng, group = np.random.default_rng(seed), parameters.group
    slot = data.StructLayout({"value": 16, "index": parameters.index_bits, "valid": 1})
    groups, entries = [], []
    for number in range(count):
        length, keep = int(rng.integers(1, group + 1)), int(rng.integers(0, group + 1))
        values = numbers(rng, (group,), number % 2 * 0.05)
        if number % 3 == 0:
            values = rng.choice(values[: 1 + group // 4], group)
        word = {"values": [int(word) for word in bits(values)], "mask": (1 << length) - 1, "keep": keep}
        groups.append(_as_int(parameters.group_layout, word))
        kept = prune(values[:length, None], NMPattern(max(keep, 1), group)) if keep else None
        found = zip(bits(kept.values)[0, :, 0], kept.index[0, :, 0], kept.valid[0, :, 0], strict=True) if kept else ()
        words = [_as_int(slot, {"value": int(v), "index": int(i), "valid": int(ok)}) for v, i, ok in found if ok]
        entries.append(sum(word << place * whole_bytes(slot.size) for place, word in enumerate(words)))
    return SoreVectors(groups, entries)


def _as_int(layout: data.Layout, fields: Any) -> int:
    constant: Any = layout.const(fields)
    return int(constant.as_value().value)
