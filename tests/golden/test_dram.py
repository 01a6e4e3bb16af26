import numpy as np
import pytest
from dram_cases import random_accesses, random_device
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.dram import DEVICES
from accel.golden.dram import Access, Burst, Command, bursts_of, least_clocks, run_accesses

DEVICE = DEVICES["ddr-200"]  # tRCD 2, tRP 2, tRAS 5, CL 2, CWL 1, tRTP 2, tWR 2, tWTR 1, bursts of 32 bytes and 2 clocks
ROW = 4 * DEVICE.row_bytes  # to another row of the same bank
seeds = st.integers(0, 2**32)


def read(address, size=32):
    return Access(address, size, is_write=False)


def write(address, size=32):
    return Access(address, size, is_write=True)


def told(*accesses, device=DEVICE):
    """Return (clock, kind) of every command of the one channel."""
    return [(command.clock, command.kind) for command in run_accesses(device, accesses).commands[0]]


def test_a_read_opens_its_row():
    assert told(read(0)) == [(0, "activate"), (2, "read")]
    assert run_accesses(DEVICE, [read(0)]).clocks == 2 + 2 + 2


def test_a_write_has_a_latency_of_its_own():
    assert told(write(0)) == [(0, "activate"), (2, "write")]
    assert run_accesses(DEVICE, [write(0)]).clocks == 2 + 1 + 2


def test_a_row_that_is_open_is_hit():
    assert told(read(0), read(64), read(8160)) == [(0, "activate"), (2, "read"), (4, "read"), (6, "read")]


def test_another_row_of_the_bank_waits_for_tras_and_trp():
    assert told(read(0), read(ROW)) == [(0, "activate"), (2, "read"), (5, "precharge"), (7, "activate"), (9, "read")]


def test_a_precharge_waits_for_written_data():
    commands = told(write(0), read(ROW))
    assert commands == [(0, "activate"), (2, "write"), (2 + 1 + 2 + 2, "precharge"), (9, "activate"), (11, "read")]


def test_rows_of_other_banks_are_opened_ahead():
    commands = told(read(0, 64), read(8192), read(16384))
    rows = [clock for clock, kind in commands if kind == "activate"]
    assert rows == [0, 2, 4]
    assert [clock for clock, kind in commands if kind == "read"] == [2, 4, 6, 8]


def test_a_short_queue_opens_rows_late():
    device = DEVICE.replace(queue_bursts=1)
    assert told(read(0), read(8192), device=device) == [(0, "activate"), (2, "read"), (3, "activate"), (5, "read")]


def test_a_fifth_row_waits_for_the_window_of_four():
    device = DEVICE.replace(bank_groups=2, tFAW=20)
    commands = told(*(read(bank * 8192 * 2 + group * 32) for bank in range(3) for group in range(2)), device=device)
    assert [clock for clock, kind in commands if kind == "activate"] == [0, 2, 4, 6, 20, 22]


def test_the_bus_turns_round_between_reads_and_writes():
    assert [clock for clock, kind in told(read(0), write(32)) if kind in ("read", "write")] == [2, 2 + 2 + 2 + 2 - 1]
    assert [clock for clock, kind in told(write(0), read(32)) if kind in ("read", "write")] == [2, 2 + 1 + 2 + 1]


def test_an_access_takes_whole_bursts():
    assert len(bursts_of(DEVICE, [read(31, 2)])) == 2
    assert len(bursts_of(DEVICE, [read(0, 1)])) == len(bursts_of(DEVICE, [read(0, 32)])) == 1


def test_neighbours_share_a_burst_of_one_direction():
    assert len(bursts_of(DEVICE, [read(0, 40), read(40, 24)])) == 2
    assert len(bursts_of(DEVICE, [read(0, 40), write(40, 24)])) == 3
    assert len(bursts_of(DEVICE, [read(0), read(64), read(0)])) == 3


def test_bursts_go_to_groups_then_columns_then_banks_then_rows():
    device = DEVICES["ddr4-2400-x16"]
    places = [bursts_of(device, [read(address)])[0] for address in (0, 64, 128, 2 * 8192, 8 * 8192)]
    assert places == [
        Burst(0, 0, 0, 0, 0, False),
        Burst(0, 1, 0, 0, 0, False),
        Burst(0, 0, 0, 0, 1, False),
        Burst(0, 0, 1, 0, 0, False),
        Burst(0, 0, 0, 1, 0, False),
    ]


@pytest.mark.parametrize(("digits", "channels"), [(0, {0}), (1, {0, 1, 2, 3}), (3, {0, 1, 2, 3})])
def test_a_hash_spreads_lines_that_are_a_power_of_two_apart(digits, channels):
    device = DEVICES["ddr4-2400-x4-4ch"].replace(channel_hash_digits=digits)
    assert {burst.channel for burst in bursts_of(device, [read(1024 * line) for line in range(16)])} == channels


@given(seeds)
def test_no_two_bursts_share_a_place(seed):
    device = random_device(np.random.default_rng(seed))
    numbers = range(512)
    places = {bursts_of(device, [read(number * device.burst_bytes, 1)])[0] for number in numbers}
    assert len(places) == len(numbers)


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_commands_keep_every_rule(seed):
    rng = np.random.default_rng(seed)
    device = random_device(rng)
    run = run_accesses(device, random_accesses(rng, 10))
    for commands in run.commands:
        for index, later in enumerate(commands):
            for earlier in commands[:index]:
                assert later.clock - earlier.clock >= least_clocks(device, earlier, later)
        rows = [command.clock for command in commands if command.kind == "activate"]
        assert all(later - earlier >= device.tFAW for earlier, later in zip(rows, rows[4:], strict=False))


@settings(max_examples=50, deadline=None)
@given(seeds)
def test_each_burst_is_moved_once_from_the_row_that_is_open(seed):
    rng = np.random.default_rng(seed)
    device, accesses = random_device(rng), random_accesses(rng, 10)
    run, bursts = run_accesses(device, accesses), bursts_of(device, accesses)
    for channel, commands in enumerate(run.commands):
        columns = [command for command in commands if command.kind in ("read", "write")]
        own = [burst for burst in bursts if burst.channel == channel]
        assert [(c.group, c.bank, c.row, c.kind) for c in columns] == [
            (b.group, b.bank, b.row, "write" if b.is_write else "read") for b in own
        ]
        for column in columns:
            assert _open_row(commands, column) == column.row


def _open_row(commands: tuple[Command, ...], at: Command) -> int | None:
    row = None
    for command in commands:
        if command.clock < at.clock and (command.group, command.bank) == (at.group, at.bank):
            row = {"activate": command.row, "precharge": None}.get(command.kind, row)
    return row


def test_nothing_takes_no_time():
    assert run_accesses(DEVICE, []).clocks == 0
