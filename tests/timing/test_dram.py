from math import ceil

import numpy as np
import pytest
from dram_cases import random_accesses, random_device
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.dram import DEVICES
from accel.golden.dram import Access
from accel.golden.dram import run_accesses as run_by_commands
from accel.presets import preset
from accel.timing import dram
from accel.timing.dram import Accesses, Stream, accesses_of, beats, run_accesses

ARCH, DEVICE = preset("test"), DEVICES["ddr-200"]
seeds = st.integers(0, 2**32)
sizes = st.integers(1, 3000)


def as_arrays(accesses):
    return Accesses(*(np.array(field, np.int64) for field in zip(*accesses, strict=True)))


def as_list(accesses):
    return [Access(int(address), int(size), bool(write)) for address, size, write in zip(*accesses, strict=True)]


def whole(size, address=0, is_write=False):
    return Stream(address, size, size, size, is_write)


def touched(accesses):
    """Return every byte of every access, in order."""
    return [byte for address, size, _ in as_list(accesses) for byte in range(address, address + size)]


@settings(max_examples=200, deadline=None)
@given(seeds)
def test_the_kernel_equals_the_commands(seed):
    rng = np.random.default_rng(seed)
    device, accesses = random_device(rng), random_accesses(rng)
    assert run_accesses(device, as_arrays(accesses)) == run_by_commands(device, accesses).clocks


@pytest.mark.parametrize("name", DEVICES)
def test_the_kernel_equals_the_commands_of_every_device(name):
    rng, device = np.random.default_rng(0), DEVICES[name]
    for pitch in (64, 256, 1000, 3 * device.span_bytes + 64):
        accesses = [Access(pitch * line, 200, bool(rng.random() < 0.3)) for line in range(20)]
        assert run_accesses(device, as_arrays(accesses)) == run_by_commands(device, accesses).clocks


@given(sizes, st.integers(1, 400), st.integers(0, 500), st.integers(0, 64))
def test_runs_touch_their_bytes_once(size, run, gap, address):
    found = touched(accesses_of([Stream(address, size, run, run + gap, False)], 64, size))
    assert found == [address + byte // run * (run + gap) + byte % run for byte in range(size)]


@given(st.lists(sizes, min_size=2, max_size=4), st.integers(32, 500))
def test_streams_in_turns_touch_all_their_bytes(moved, turn):
    streams = [whole(size, 10_000 * number, number % 2 == 1) for number, size in enumerate(moved)]
    accesses = accesses_of(streams, turn, sum(moved))
    wanted = [10_000 * number + byte for number, size in enumerate(moved) for byte in range(size)]
    assert sorted(touched(accesses)) == wanted
    assert all(access.is_write == (access.address // 10_000 % 2 == 1) for access in as_list(accesses))


def test_a_turn_is_as_long_as_the_device_says():
    found = as_list(accesses_of([whole(100), whole(50, 1000, True)], 40, 150))
    assert found == [
        Access(0, 33, False),
        Access(1000, 16, True),
        Access(33, 33, False),
        Access(1016, 17, True),
        Access(66, 34, False),
        Access(1033, 17, True),
    ]


def test_a_long_run_is_one_access():
    size = 3 * 4096 + 100
    assert as_list(accesses_of([whole(size, 7)], 64, size)) == [Access(7, size, False)]


def test_a_tensor_that_is_passed_twice_is_cut_where_it_starts_again():
    twice, other = Stream(0, 80, 40, 0, False), whole(40, 1000)
    found = [access[:2] for access in as_list(accesses_of([twice, other], 30, 120))]
    assert found == [(0, 26), (1000, 13), (26, 14), (0, 13), (1013, 13), (13, 27), (1026, 14)]


def test_a_limit_takes_the_first_bytes():
    assert touched(accesses_of([Stream(0, 100, 10, 20, False)], 64, 25)) == [*range(10), *range(20, 30), *range(40, 45)]


@pytest.mark.parametrize("size", [1, 32, 1000, 8192, 65_536])
def test_a_stream_of_open_rows_has_the_bus_without_a_gap(size):
    bursts = ceil(size / 32)
    clocks = 2 * bursts  # ddr-200 at the clock of the machine
    assert beats(DEVICE, ARCH, (whole(size),)) == ceil(clocks * 780 / (780 - 8))


def test_latency_is_left_out_of_writes_too():
    assert beats(DEVICE, ARCH, (whole(320, is_write=True),)) == ceil(20 * 780 / 772)


def test_beats_are_cycles_of_the_machine():
    fast, slow = (ARCH.replace(clock_hz=clock) for clock in (400e6, 25e6))
    assert beats(DEVICE, fast, (whole(3200),)) == ceil(200 * 780 / 772 * 4)
    assert beats(DEVICE, slow, (whole(3200),)) == ceil(200 * 780 / 772 / 4)


def test_no_bytes_take_no_beats():
    assert beats(DEVICE, ARCH, ()) == beats(DEVICE, ARCH, (Stream(0, 0, 1, 1, False),)) == 0


def test_short_runs_take_a_burst_each():
    contiguous, apart = (beats(DEVICE, ARCH, (Stream(0, 1600, 16, pitch, False),)) for pitch in (16, 64))
    assert contiguous == ceil(100 * 780 / 772)
    assert apart == ceil(200 * 780 / 772)


def test_turning_round_costs_time():
    read_only = beats(DEVICE, ARCH, (whole(32_768), whole(32_768, 40_960)))
    in_turns = beats(DEVICE, ARCH, (whole(32_768), whole(32_768, 40_960, True)))
    assert in_turns > read_only >= beats(DEVICE, ARCH, (whole(65_536),))


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize(
    "shape",
    [
        [(3_000_000, 3_000_000, 3_000_000)],
        [(1_000_000, 100, 1000)],
        [(1_500_000, 1_500_000, 1_500_000), (750_000, 750_000, 750_000)],
    ],
)
def test_a_long_transfer_takes_what_its_sample_says(name, shape, monkeypatch):
    device = DEVICES[name]
    span = 64 * device.span_bytes
    streams = tuple(Stream(number * span, *sizes, number > 0) for number, sizes in enumerate(shape))
    whole_bytes = sum(stream.bytes for stream in streams)
    exact = run_accesses(device, accesses_of(streams, device.turn_bytes, whole_bytes)) - device.tRCD - device.CL
    monkeypatch.setattr(dram, "SAMPLE_BURSTS", 2**12)
    dram._transfer_clocks.cache_clear()
    sampled = dram._transfer_clocks(device, streams)
    dram._transfer_clocks.cache_clear()
    assert sampled == pytest.approx(exact, rel=0.05)


@pytest.mark.parametrize("name", DEVICES)
def test_long_runs_reach_the_peak_less_refreshes(name):
    device = DEVICES[name]
    arch = ARCH.replace(clock_hz=device.clock_hz)
    size = 2**26
    seconds = beats(device, arch, (whole(size),)) / device.clock_hz
    assert size / seconds / device.bytes_per_second == pytest.approx(1 - device.refresh_frac, abs=0.002)
