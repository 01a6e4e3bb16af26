"""How long a DRAM with banks and rows takes for the transfers of a program: `accel.golden.dram`, compiled (docs/dram.md)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.arch import Arch
from accel.dram import DramDevice
from accel.jit import kernel
from accel.units import ceil_div, ceil_log2

SAMPLE_BURSTS = 2**15
"""A transfer with more bursts is run up to here; what then follows takes as long, for its bytes, as the second half of them."""
SAMPLE_TURNS = 16
"""Of several streams at least as many turns of each are run."""

_NEVER = -(2**40)
"""The clock of a command that was not given."""

Numbers = NDArray[np.int64]


class Accesses(NamedTuple):
    """Contiguous bytes one after another: first address, how many, 1 if written; every field is (accesses,)."""

    address: Numbers
    bytes: Numbers
    is_write: Numbers


class Stream(NamedTuple):
    """A transfer's bytes of one tensor: runs of `run_bytes`, one every `pitch_bytes`, the last one ragged."""

    address: int
    bytes: int
    run_bytes: int
    pitch_bytes: int
    is_write: bool


class _Device(NamedTuple):
    """The numbers of a `DramDevice`: where the bits lie that place a burst, and clocks."""

    burst_log2: int
    interleave_log2: int
    """Of the bursts in an interleave."""
    channel_log2: int
    hash_digits: int
    group_shift: int
    groups: int
    bank_shift: int
    banks: int
    row_shift: int
    queue: int
    data: int
    read: int
    write: int
    row_to_column: int
    precharge: int
    row_active: int
    column_other: int
    column_same: int
    row_other: int
    row_same: int
    four_rows: int
    read_to_write: int
    write_to_read_other: int
    write_to_read_same: int
    read_to_precharge: int
    write_to_precharge: int


class _State(NamedTuple):
    """What each channel remembers, arrays of clocks by (channel, ...)."""

    open_row: Numbers
    """(channels, groups, banks); -1: none."""
    activated: Numbers
    """(channels, groups, banks)."""
    released: Numbers
    """(channels, groups, banks): the first clock in which a bank can be precharged, its column commands so far considered."""
    columns: Numbers
    """(channels, groups + 1, 2): last read and last write of each group, and of all."""
    rows: Numbers
    """(channels, groups): last activate of a group."""
    last_rows: Numbers
    """(channels, 4): the last four activates, a ring."""
    row_count: Numbers
    """(channels,): activates so far."""
    recent: Numbers
    """(channels, queue): column commands, a ring."""
    turn: Numbers
    """(channels,): the place of the next one in it."""


def run_accesses(device: DramDevice, accesses: Accesses) -> int:
    """Return the clock after the last data of `accesses`, from clock 0 on with all rows closed; no refreshes."""
    return int(run_from_state(_numbers(device), _new_state(device), accesses))


def beats(device: DramDevice, arch: Arch, streams: tuple[Stream, ...]) -> int:
    """Return the cycles for which the streams of a transfer have the DRAM port, in turns, from their first data to their last.

    Refreshes take their share of the time. What comes before the first data is in `Arch.dram_latency_cycles`.
    """
    if not any(stream.bytes for stream in streams):
        return 0
    time = Fraction(_transfer_clocks(device, streams)) * device.tREFI / (device.tREFI - device.tRFC)
    return math.ceil(time * Fraction(arch.clock_hz) / Fraction(device.clock_hz))


@lru_cache(maxsize=2**16)
def _transfer_clocks(device: DramDevice, streams: tuple[Stream, ...]) -> int:
    """Return the clocks from the first data to the last, without refreshes."""
    whole = sum(stream.bytes for stream in streams)
    sample = _sample_bytes(device, streams)
    if whole <= sample:
        return _data_clocks(device, accesses_of(streams, device.turn_bytes, whole))
    first, second = (accesses_of(streams, device.turn_bytes, part) for part in (sample // 2, sample))
    first_clocks, second_clocks = _data_clocks(device, first), _data_clocks(device, second)
    first_bytes, second_bytes = int(first.bytes.sum()), int(second.bytes.sum())
    rest = Fraction((second_clocks - first_clocks) * (whole - second_bytes), second_bytes - first_bytes)
    return second_clocks + math.ceil(rest)


def _sample_bytes(device: DramDevice, streams: tuple[Stream, ...]) -> int:
    """Return the bytes that a sample of `streams` has; of short runs fewer, as each takes a burst."""
    used = max(stream.run_bytes / (ceil_div(stream.run_bytes, device.burst_bytes) * device.burst_bytes) for stream in streams)
    sample = int(SAMPLE_BURSTS * device.burst_bytes * used)
    return sample if len(streams) == 1 else max(sample, SAMPLE_TURNS * len(streams) * device.turn_bytes)


def _data_clocks(device: DramDevice, accesses: Accesses) -> int:
    first_data = device.tRCD + (device.CWL if accesses.is_write[0] else device.CL)
    return run_accesses(device, accesses) - first_data


def accesses_of(streams: Sequence[Stream], turn_bytes: int, limit_bytes: int) -> Accesses:
    """Return what `streams` access, up to about `limit_bytes`: in turns, the longest of them `turn_bytes` in each.

    The others move as large a part of their bytes in each turn, so that all end together.
    """
    if len(streams) == 1:
        return _part(streams[0], 0, min(limit_bytes, streams[0].bytes))
    turns = ceil_div(max(stream.bytes for stream in streams), turn_bytes)
    whole = sum(stream.bytes for stream in streams)
    taken = min(ceil_div(turns * limit_bytes, whole), turns)
    edges = [np.arange(taken + 1) * stream.bytes // turns for stream in streams]
    if any(stream.run_bytes < stream.bytes for stream in streams):
        pairs = list(zip(streams, edges, strict=True))
        parts = [_part(stream, int(edge[turn]), int(edge[turn + 1])) for turn in range(taken) for stream, edge in pairs]
        return Accesses(*(np.concatenate(fields) for fields in zip(*parts, strict=True)))
    address = np.stack([stream.address + edge[:-1] for stream, edge in zip(streams, edges, strict=True)], axis=1)
    sizes = np.stack([np.diff(edge) for edge in edges], axis=1)
    is_write = np.broadcast_to([int(stream.is_write) for stream in streams], sizes.shape)
    is_there = sizes > 0
    return Accesses(address[is_there], sizes[is_there], is_write[is_there])


def _part(stream: Stream, start: int, end: int) -> Accesses:
    """Return the accesses of bytes `start` to `end` of a stream, counted along its runs."""
    run_bytes = stream.run_bytes
    run = np.arange(start // run_bytes, ceil_div(end, run_bytes) if end > start else start // run_bytes)
    firsts = np.maximum(run * run_bytes, start)
    ends = np.minimum((run + 1) * run_bytes, end)
    address = stream.address + run * (stream.pitch_bytes - run_bytes) + firsts
    return Accesses(address, ends - firsts, np.full(len(run), int(stream.is_write)))


@lru_cache(maxsize=64)
def _numbers(device: DramDevice) -> _Device:
    extents = {"group": device.bank_groups, "column": device.columns, "bank": device.banks_per_group}
    shifts, shift = {}, 0
    for digit in device.address_order:
        shifts[digit] = shift
        shift += ceil_log2(extents[digit])
    return _Device(
        burst_log2=ceil_log2(device.burst_bytes),
        interleave_log2=ceil_log2(device.interleave_bytes // device.burst_bytes),
        channel_log2=ceil_log2(device.channels),
        hash_digits=device.channel_hash_digits,
        group_shift=shifts["group"],
        groups=device.bank_groups,
        bank_shift=shifts["bank"],
        banks=device.banks_per_group,
        row_shift=shift,
        queue=device.queue_bursts,
        data=device.burst_clocks,
        read=device.CL,
        write=device.CWL,
        row_to_column=device.tRCD,
        precharge=device.tRP,
        row_active=device.tRAS,
        column_other=device.tCCD_S,
        column_same=device.tCCD_L,
        row_other=device.tRRD_S,
        row_same=device.tRRD_L,
        four_rows=device.tFAW,
        read_to_write=device.read_to_write,
        write_to_read_other=device.CWL + device.burst_clocks + device.tWTR_S,
        write_to_read_same=device.CWL + device.burst_clocks + device.tWTR_L,
        read_to_precharge=device.tRTP,
        write_to_precharge=device.CWL + device.burst_clocks + device.tWR,
    )


def _new_state(device: DramDevice) -> _State:
    channels, groups, banks = device.channels, device.bank_groups, device.banks_per_group
    return _State(
        open_row=np.full((channels, groups, banks), -1, np.int64),
        activated=np.full((channels, groups, banks), _NEVER, np.int64),
        released=np.zeros((channels, groups, banks), np.int64),
        columns=np.full((channels, groups + 1, 2), _NEVER, np.int64),
        rows=np.full((channels, groups), _NEVER, np.int64),
        last_rows=np.full((channels, 4), _NEVER, np.int64),
        row_count=np.zeros(channels, np.int64),
        recent=np.full((channels, device.queue_bursts), -1, np.int64),
        turn=np.zeros(channels, np.int64),
    )


@kernel
def run_from_state(device: _Device, state: _State, accesses: Accesses) -> int:
    """Return the clock after the last data of all channels."""
    end, before, was_write = 0, -1, -1
    for number in range(len(accesses.address)):
        address, is_write = accesses.address[number], accesses.is_write[number]
        first = address >> device.burst_log2
        last = (address + accesses.bytes[number] - 1) >> device.burst_log2
        if first == before and is_write == was_write:
            first += 1  # its burst was the last one of the access before
        for burst in range(first, last + 1):
            end = max(end, _run_burst(device, state, burst, is_write))
        before, was_write = last, is_write
    return end


@kernel
def _run_burst(device: _Device, state: _State, number: int, is_write: int) -> int:
    """Give the commands of one burst, the first that comes to its channel after those before; return when its data ends."""
    piece, within = number >> device.interleave_log2, number & ((1 << device.interleave_log2) - 1)
    channel, above = piece, piece
    for _ in range(device.hash_digits):
        above >>= device.channel_log2
        channel ^= above
    channel &= (1 << device.channel_log2) - 1
    place = (piece >> device.channel_log2 << device.interleave_log2) + within
    group = place >> device.group_shift & (device.groups - 1)
    bank = place >> device.bank_shift & (device.banks - 1)
    row = place >> device.row_shift
    turn = state.turn[channel]
    if state.open_row[channel, group, bank] != row:
        seen = state.recent[channel, turn] + 1  # when the burst came into the queue
        _open_row(device, state, channel, group, bank, seen)
        state.open_row[channel, group, bank] = row
    has_row = state.activated[channel, group, bank] + device.row_to_column
    clock: int = max(has_row, _bus_clock(device, state, channel, group, is_write))
    state.columns[channel, group, is_write] = clock
    state.columns[channel, device.groups, is_write] = clock
    state.recent[channel, turn] = clock
    state.turn[channel] = turn + 1 if turn + 1 < device.queue else 0
    hold = device.write_to_precharge if is_write else device.read_to_precharge
    state.released[channel, group, bank] = max(state.released[channel, group, bank], clock + hold)
    return clock + (device.write if is_write else device.read) + device.data


@kernel
def _open_row(device: _Device, state: _State, channel: int, group: int, bank: int, seen: int) -> None:
    """Precharge a bank, unless it has no row, and activate another row in it."""
    clock = seen
    if state.open_row[channel, group, bank] >= 0:
        active = state.activated[channel, group, bank] + device.row_active
        clock = max(seen, active, state.released[channel, group, bank]) + device.precharge
    turn = state.row_count[channel] % 4
    newest = state.last_rows[channel, (turn + 3) % 4]
    clock = max(clock, newest + device.row_other, state.rows[channel, group] + device.row_same)
    clock = max(clock, state.last_rows[channel, turn] + device.four_rows)
    state.activated[channel, group, bank] = clock
    state.rows[channel, group] = clock
    state.last_rows[channel, turn] = clock
    state.row_count[channel] += 1


@kernel
def _bus_clock(device: _Device, state: _State, channel: int, group: int, is_write: int) -> int:
    """Return the first clock in which the commands before leave room for one more read or write."""
    own, every = state.columns[channel, group], state.columns[channel, device.groups]
    like: int = max(own[is_write] + device.column_same, every[is_write] + device.column_other, 0)
    unlike: int = every[0] + device.read_to_write
    if not is_write:
        unlike = max(own[1] + device.write_to_read_same, every[1] + device.write_to_read_other)
    return max(like, unlike)
