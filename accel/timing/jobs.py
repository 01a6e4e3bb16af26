"""What the machine knows of each instruction's time: the jobs of docs/timing.md, section 7, from a program and its machine."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.arch import Arch
from accel.dram import DramDevice
from accel.jit import kernel
from accel.program import Engine, Flag, Instructions, Program, Tables
from accel.timing.array import (
    PSUM_TURN_CYCLES,
    ceil_div,
    idle_columns,
    os_end_cycles,
    os_slot_cycles,
    os_tile_cycles,
    ws_end_cycles_with_turn,
    ws_load_cycles,
    ws_slot_cycles_with_turn,
    ws_tile_cycles,
    ws_turn_cycles,
)
from accel.timing.engines import dma_cycles, sore_cycles, vector_cycles, wuve_cycles
from accel.timing.gemm import DATAFLOW_NAMES, OS
from accel.timing.transfers import transfer_beats

RUN_GAP_CYCLES = 4
"""From the end of a run of the array to cycle 0 of the next."""
UPDATE_TRANSFERS = 2

_LOAD, _STORE, _COMPUTE, _PRUNE, _VECTOR, _UPDATE = map(int, Engine)
_IS_FENCE, _IS_FIRST, _IS_LAST = map(int, Flag)
_ENGINE, _FENCE, _GAP, _LEAD, _SETUP, _BEATS, _WORK, _LATENCY, _BYTES = range(9)
"""The places of `Jobs`, rows of the table that kernels fill in."""

_signed: Any = np.int64
"""Of a field, which has no sign: Numba makes floats where signed and unsigned numbers meet."""

Numbers = NDArray[np.int64]


class Jobs(NamedTuple):
    """The words of docs/timing.md, section 7; every field is (instructions,)."""

    engine: Numbers
    fence: Numbers
    gap: Numbers
    lead: Numbers
    setup: Numbers
    beats: Numbers
    work: Numbers
    latency: Numbers
    bytes: Numbers
    """What crosses the DRAM port."""


class _Rates(NamedTuple):
    """The numbers of an `Arch` that jobs depend on."""

    rows: int
    cols: int
    lanes: int
    drain_lanes: int
    multiplier_latency: int
    bytes_per_cycle: float
    dram_latency: int
    dma_setup: int
    vector_lanes: int
    vector_latency: int
    sore_lanes: int
    wuve_lanes: int


class _Sizes(NamedTuple):
    """The tables' numbers that jobs depend on, one row each."""

    modes: Numbers
    """dataflow, row_lanes, keep."""
    kernels: Numbers
    """lane_ops, bytes, transfers, tile."""
    updates: Numbers
    """elems, passes, sore_groups, bytes."""


class _Part(NamedTuple):
    """What a COMPUTE instruction multiplies."""

    rows: int
    cols: int
    groups: int
    is_first: int
    is_last: int


class _Tile(NamedTuple):
    """An OS tile that instructions make in parts: its steps so far, and whether one before it in its run drains beside it."""

    steps: int
    drains: int


def jobs_of(program: Program, dram: DramDevice | None = None) -> Jobs:
    """Return the jobs of all instructions; `program` is well-formed: its objects are in the tables.

    With `dram` beats are those of its banks and rows (docs/dram.md), without it bytes over the bandwidth.
    """
    jobs = np.zeros((len(Jobs._fields), len(program.instructions)), np.int64)
    fill_jobs(_rates_of(program.tables.arch), _sizes_of(program.tables), program.instructions, jobs)
    if dram is not None:
        jobs[_BEATS] = transfer_beats(program, dram)
    return Jobs(*jobs)


def _rates_of(arch: Arch) -> _Rates:
    return _Rates(
        rows=arch.array_rows,
        cols=arch.array_cols,
        lanes=arch.adder_latency,
        drain_lanes=arch.drain_lanes,
        multiplier_latency=arch.multiplier_latency,
        bytes_per_cycle=arch.dram_bytes_per_cycle,
        dram_latency=arch.dram_latency_cycles,
        dma_setup=arch.dma_setup_cycles,
        vector_lanes=arch.vector_lanes,
        vector_latency=arch.vector_latency_cycles,
        sore_lanes=arch.sore_lanes,
        wuve_lanes=arch.wuve_lanes,
    )


def _sizes_of(tables: Tables) -> _Sizes:
    modes = [(DATAFLOW_NAMES.index(mode.dataflow), mode.row_lanes, mode.keep) for mode in tables.modes]
    kernels = [(kernel.lane_ops, kernel.bytes, kernel.transfers, int(kernel.tile)) for kernel in tables.kernels]
    updates = [(update.elems, update.passes, update.sore_groups, update.bytes) for update in tables.updates]
    return _Sizes(
        np.array(modes, np.int64).reshape(-1, 3),
        np.array(kernels, np.int64).reshape(-1, 4),
        np.array(updates, np.int64).reshape(-1, 4),
    )


@kernel
def fill_jobs(rates: _Rates, sizes: _Sizes, instructions: Instructions, jobs: Numbers) -> None:
    """Fill in all jobs, in order: a gap depends on the instruction before of the same engine."""
    slots = np.full(6, -1, np.int64)  # of the last instruction of each engine; -1: it had none
    mode, tile, idle = _signed(-1), _Tile(0, 0), _signed(0)
    for number in range(len(instructions)):
        instruction = instructions[number]
        engine, place = _signed(instruction["opcode"]), _signed(instruction["object"])
        is_new_run = engine == _COMPUTE and place != mode and mode >= 0
        fence = 1 if is_new_run or _signed(instruction["flags"]) & _IS_FENCE else 0
        jobs[_ENGINE, number], jobs[_FENCE, number] = engine, fence
        if slots[engine] >= 0:
            jobs[_GAP, number] = slots[engine] if fence == 0 else RUN_GAP_CYCLES + idle if engine == _COMPUTE else 0
        if engine == _COMPUTE:
            mode, part = place, _part_of(instruction)
            tile = _continue_tile(part, sizes.modes[place], tile, fence)
            jobs[_GAP, number] += _hold_cycles(rates, part, tile)
            slots[engine] = _fill_compute(rates, sizes.modes[place], part, jobs, number)
            idle = _idle_columns(rates, sizes.modes[place], part)
            tile = _Tile(tile.steps, max(tile.drains, part.is_last))
        elif engine in (_LOAD, _STORE):
            slots[engine] = _fill_transfer(rates, _signed(instruction["bytes"]), 1, jobs, number)
        elif engine == _PRUNE:
            slots[engine] = _fill_prune(rates, _signed(instruction["cols"]) * _signed(instruction["groups"]), jobs, number)
        elif engine == _VECTOR:
            elems = _signed(instruction["rows"]) * _signed(instruction["cols"])
            slots[engine] = _fill_vector(rates, sizes.kernels[place], elems, jobs, number)
        else:
            slots[engine] = _fill_update(rates, sizes.updates[place], jobs, number)


@kernel
def _fill_transfer(rates: _Rates, bytes_moved: int, transfers: int, jobs: Numbers, number: int) -> int:
    """Fill in what the DRAM port takes of an instruction; return its slots, none."""
    jobs[_BYTES, number] = bytes_moved
    jobs[_SETUP, number] = transfers * rates.dma_setup
    jobs[_BEATS, number] = dma_cycles(bytes_moved, 0, rates.bytes_per_cycle, 0)
    jobs[_LATENCY, number] = rates.dram_latency
    return 0


@kernel
def _fill_prune(rates: _Rates, groups: int, jobs: Numbers, number: int) -> int:
    jobs[_WORK, number] = sore_cycles(groups, rates.sore_lanes)
    return ceil_div(groups, rates.sore_lanes)


@kernel
def _fill_vector(rates: _Rates, size: Numbers, elems: int, jobs: Numbers, number: int) -> int:
    lane_ops, bytes_moved, transfers, is_tile = size[0], size[1], size[2], size[3]
    if is_tile:
        lane_ops *= elems
    _fill_transfer(rates, bytes_moved, transfers, jobs, number)
    jobs[_WORK, number] = vector_cycles(lane_ops, rates.vector_lanes, rates.vector_latency)
    if bytes_moved == 0:
        jobs[_LATENCY, number] = 0
    return ceil_div(lane_ops, rates.vector_lanes)


@kernel
def _fill_update(rates: _Rates, size: Numbers, jobs: Numbers, number: int) -> int:
    elems, passes, sore_groups, bytes_moved = size[0], size[1], size[2], size[3]
    _fill_transfer(rates, bytes_moved, UPDATE_TRANSFERS, jobs, number)
    work = max(wuve_cycles(elems, passes, rates.wuve_lanes), sore_cycles(sore_groups, rates.sore_lanes))
    jobs[_WORK, number] = work
    return work


@kernel
def _part_of(instruction: np.void) -> _Part:
    flags = _signed(instruction["flags"])
    return _Part(
        rows=_signed(instruction["rows"]),
        cols=_signed(instruction["cols"]),
        groups=_signed(instruction["groups"]),
        is_first=1 if flags & _IS_FIRST else 0,
        is_last=1 if flags & _IS_LAST else 0,
    )


@kernel
def _continue_tile(part: _Part, mode: Numbers, tile: _Tile, fence: int) -> _Tile:
    """Return the tile that `part` is of, its steps up to the end of `part`; after a fence nothing drains."""
    if mode[0] != OS:
        return _Tile(0, 0)
    steps = part.groups * mode[2]
    return _Tile(steps if part.is_first else tile.steps + steps, 0 if fence else tile.drains)


@kernel
def _hold_cycles(rates: _Rates, part: _Part, tile: _Tile) -> int:
    """Return what the last part of an OS tile waits for the drain of the tile before: rule 11 of section 1.

    The words of that tile must have passed the rows in use before the sums of this one are finished.
    """
    if not (part.is_last and tile.drains):
        return 0
    return rates.lanes * max(0, ceil_div(min(rates.rows, part.rows), rates.drain_lanes) - tile.steps)


@kernel
def _idle_columns(rates: _Rates, mode: Numbers, part: _Part) -> int:
    """Return the columns across which a new run waits for this one's words, which no result of its own did."""
    row_lanes, keep = mode[1], mode[2]
    if mode[0] == OS:
        rows_of_last = min(rates.rows, (part.rows - 1) % (rates.rows * row_lanes) + 1)
        slot = os_tile_cycles(rates.lanes, part.groups * keep, rows_of_last, rates.drain_lanes)
    else:
        slot = ceil_div(part.groups, rates.rows) * ws_tile_cycles(
            rates.rows, rates.lanes, row_lanes, part.rows, part.groups, keep
        )
    return idle_columns(rates.cols, rates.lanes, row_lanes, part.cols, slot)


@kernel
def _fill_compute(rates: _Rates, mode: Numbers, part: _Part, jobs: Numbers, number: int) -> int:
    dataflow, row_lanes, keep = mode[0], mode[1], mode[2]
    if dataflow == OS:
        return _fill_os(rates, row_lanes, part.groups * keep, part, jobs, number)
    return _fill_ws(rates, row_lanes, keep, part, jobs, number)


@kernel
def _fill_os(rates: _Rates, row_lanes: int, steps: int, part: _Part, jobs: Numbers, number: int) -> int:
    """Fill in the work of sums that stay; return the cycles from the start to the end of the last tile's compute."""
    rows, cols, lanes, drain_lanes = rates.rows, rates.cols, rates.lanes, rates.drain_lanes
    slots = os_slot_cycles(rows, cols, lanes, row_lanes, drain_lanes, part.rows, part.cols, steps, 1)
    if part.is_last:
        latency = rates.multiplier_latency
        ends = os_end_cycles(rows, cols, lanes, row_lanes, drain_lanes, latency, part.rows, part.cols, steps)
        jobs[_WORK, number] = slots + ends
    else:
        jobs[_WORK, number] = lanes * steps + max(min(rows, part.rows), min(cols, part.cols))
    return slots - os_tile_cycles(lanes, steps, min(rows, part.rows), drain_lanes) + lanes * steps


@kernel
def _fill_ws(rates: _Rates, row_lanes: int, keep: int, part: _Part, jobs: Numbers, number: int) -> int:
    """Fill in lead and work of a north operand that stays; return the slots."""
    rows, cols, lanes, latency = rates.rows, rates.cols, rates.lanes, rates.multiplier_latency
    dim_m, dim_n, groups = part.rows, part.cols, part.groups
    turn = ws_turn_cycles(rows, groups) if part.is_first and part.is_last else PSUM_TURN_CYCLES
    slots = ws_slot_cycles_with_turn(rows, cols, lanes, row_lanes, dim_m, dim_n, groups, keep, dim_m, 1, turn)
    ends = ws_end_cycles_with_turn(rows, cols, lanes, row_lanes, latency, dim_m, dim_n, groups, keep, dim_m, turn)
    load = ws_load_cycles(rows, lanes, row_lanes, keep)
    jobs[_LEAD, number] = load
    jobs[_WORK, number] = slots + ends - load + (0 if part.is_last else PSUM_TURN_CYCLES)
    return slots
