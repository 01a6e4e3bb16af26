"""A DRAM command by command, clock by clock: what `accel.timing.dram` computes (docs/dram.md).

Each channel works on its bursts in order; a row stays open until a burst needs another of its bank. In every clock a channel
gives at most one column command and one activate, and any precharges; rows of the next `queue_bursts` bursts are opened ahead,
activates in order of the bursts. A command is given in the first clock in which no rule against an earlier one forbids it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from accel.dram import DramDevice


class Access(NamedTuple):
    """Contiguous bytes that are read or written."""

    address: int
    bytes: int
    is_write: bool


class Burst(NamedTuple):
    """One column command's worth of an access."""

    channel: int
    group: int
    bank: int
    row: int
    column: int
    is_write: bool


class Command(NamedTuple):
    """What a channel was told in which clock: "activate", "precharge", "read" or "write"."""

    clock: int
    kind: str
    group: int
    bank: int
    row: int


@dataclass(frozen=True)
class Run:
    """The commands of each channel, and the clock after the last data."""

    commands: tuple[tuple[Command, ...], ...]
    clocks: int


def bursts_of(device: DramDevice, accesses: Iterable[Access]) -> list[Burst]:
    """Return the bursts that hold the bytes of `accesses`; one that the burst before brought already is not repeated."""
    bursts: list[Burst] = []
    for address, size, is_write in accesses:
        for number in range(address // device.burst_bytes, -(-(address + size) // device.burst_bytes)):
            burst = _burst(device, number, is_write)
            if not bursts or bursts[-1] != burst:
                bursts.append(burst)
    return bursts


def _burst(device: DramDevice, number: int, is_write: bool) -> Burst:
    """Return where burst `number` of the address space lies."""
    in_channel_bursts = device.interleave_bytes // device.burst_bytes
    piece, within = divmod(number, in_channel_bursts)
    piece, channel = divmod(piece, device.channels)
    for above in range(device.channel_hash_digits):
        channel ^= piece // device.channels**above % device.channels
    place = piece * in_channel_bursts + within
    extents = {"group": device.bank_groups, "column": device.columns, "bank": device.banks_per_group}
    digits = {}
    for digit in device.address_order:
        place, digits[digit] = divmod(place, extents[digit])
    return Burst(channel, digits["group"], digits["bank"], place, digits["column"], is_write)


def run_accesses(device: DramDevice, accesses: Iterable[Access]) -> Run:
    """Return what every channel does for `accesses`, from clock 0 on with all rows closed; refreshes are not among it."""
    bursts = bursts_of(device, accesses)
    logs, ends = [], [0]
    for channel in range(device.channels):
        log = _run_channel(device, [burst for burst in bursts if burst.channel == channel])
        logs.append(tuple(log))
        ends += [
            command.clock + (device.CL if command.kind == "read" else device.CWL) + device.burst_clocks
            for command in log
            if command.kind in ("read", "write")
        ]
    return Run(tuple(logs), max(ends))


def _run_channel(device: DramDevice, bursts: list[Burst]) -> list[Command]:
    log: list[Command] = []
    to_activate = [index for index, burst in enumerate(bursts) if _opens(bursts, index)]
    is_precharged = {index: not _reuses(bursts, index) for index in to_activate}
    done = clock = 0
    while done < len(bursts):
        window = range(done, min(done + device.queue_bursts, len(bursts)))
        column = []
        if done not in to_activate:
            column = _given(device, log, clock, "write" if bursts[done].is_write else "read", bursts[done])
            log += column
        for index in [index for index in window if not is_precharged.get(index, True)]:
            is_bank_in_use = any(_same_bank(bursts[earlier], bursts[index]) for earlier in range(done, index))
            if not is_bank_in_use and (given := _given(device, log, clock, "precharge", bursts[index])):
                log += given
                is_precharged[index] = True
        if to_activate and to_activate[0] in window and is_precharged[to_activate[0]]:
            given = _given(device, log, clock, "activate", bursts[to_activate[0]])
            log += given
            to_activate = to_activate[len(given) :]
        done += len(column)
        clock += 1
    return log


def _same_bank(one: Burst, other: Burst) -> bool:
    return (one.group, one.bank) == (other.group, other.bank)


def _before(bursts: list[Burst], index: int) -> list[Burst]:
    return [burst for burst in bursts[:index] if _same_bank(burst, bursts[index])]


def _reuses(bursts: list[Burst], index: int) -> bool:
    """Return whether a row is open in the bank of a burst when its turn comes."""
    return bool(_before(bursts, index))


def _opens(bursts: list[Burst], index: int) -> bool:
    """Return whether a burst needs another row than the one open in its bank."""
    before = _before(bursts, index)
    return not before or before[-1].row != bursts[index].row


def _given(device: DramDevice, log: list[Command], clock: int, kind: str, burst: Burst) -> list[Command]:
    """Return the command if no rule forbids it in `clock`, else nothing."""
    command = Command(clock, kind, burst.group, burst.bank, burst.row)
    if any(clock < earlier.clock + least_clocks(device, earlier, command) for earlier in log):
        return []
    fourth_last = [earlier for earlier in log if earlier.kind == "activate"][-4:]
    if kind == "activate" and len(fourth_last) == 4 and clock < fourth_last[0].clock + device.tFAW:
        return []
    return [command]


def least_clocks(device: DramDevice, earlier: Command, later: Command) -> int:
    """Return the clocks that must lie between two commands of a channel; tFAW is a rule of five."""
    same_group = earlier.group == later.group
    same_bank = same_group and earlier.bank == later.bank
    data = device.burst_clocks
    match earlier.kind, later.kind:
        case "activate", "activate":
            return device.tRRD_L if same_group else device.tRRD_S
        case ("read", "read") | ("write", "write"):
            return device.tCCD_L if same_group else device.tCCD_S
        case "read", "write":
            return device.read_to_write
        case "write", "read":
            return device.CWL + data + (device.tWTR_L if same_group else device.tWTR_S)
        case "activate", "read" | "write":
            return device.tRCD if same_bank else 0
        case "activate", "precharge":
            return device.tRAS if same_bank else 0
        case "precharge", "activate":
            return device.tRP if same_bank else 0
        case "read", "precharge":
            return device.tRTP if same_bank else 0
        case "write", "precharge":
            return device.CWL + data + device.tWR if same_bank else 0
    return 0
