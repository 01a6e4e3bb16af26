import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_machine import naive_machine
from random_programs import instruction, mode, product, random_arch, random_program, tables

from accel.errors import ScheduleError
from accel.program import Engine, Flag, Kernel, Program, Update
from accel.sim.machine import run_program
from accel.timing.array import os_run_cycles, ws_run_cycles
from accel.timing.engines import dma_cycles, sore_cycles, vector_cycles, wuve_cycles

SEEDS, PROGRAMS_PER_SEED = 50, 12
LOAD, STORE, COMPUTE, PRUNE, VECTOR, UPDATE = Engine
seeds = st.integers(0, 2**32)


def small_arch(**changes):
    """Return a machine that moves a byte a cycle and loses no time beside."""
    plain = {"dram_bytes_per_second": 1e6, "dram_efficiency_frac": 1.0, "dram_latency_cycles": 0, "dma_setup_cycles": 0}
    return random_arch(np.random.default_rng(0), **{**plain, **changes})


def timing_of(rows, *instructions):
    return run_program(Program(rows, np.concatenate(instructions)))


def random_timing(seed, **sizes):
    program = random_program(np.random.default_rng(seed), **sizes)
    return program, run_program(program)


def stepped(program, timing):
    return naive_machine(timing.jobs, program.instructions["waits"], program.instructions["signals"])


@pytest.mark.parametrize("seed", range(SEEDS))
def test_every_cycle_equals_that_of_the_stepped_machine(seed):
    for number in range(PROGRAMS_PER_SEED):
        program, timing = random_timing([seed, number])
        machine, jobs = stepped(program, timing)
        for what in ("ready", "start", "port_end", "done"):
            times = [getattr(job, what) for job in jobs]
            assert getattr(timing, what).tolist() == times, f"seed {seed}, program {number}: {what}"
        assert timing.cycles == max(job.done for job in jobs), f"seed {seed}, program {number}"
        assert timing.port_cycles == machine.beats_given, f"seed {seed}, program {number}"
        assert not any(machine.tokens.values()), f"seed {seed}, program {number}: tokens are left"


def test_a_longer_program_equals_the_stepped_machine():
    program, timing = random_timing(7, count=400)
    _, jobs = stepped(program, timing)
    assert timing.done.tolist() == [job.done for job in jobs]
    assert timing.start.tolist() == [job.start for job in jobs]


def test_random_programs_meet_all_that_can_happen():
    met = set()
    for seed in range(60):
        program, timing = random_timing(seed)
        jobs, flags = timing.jobs, program.instructions["flags"]
        asks = timing.start + jobs.setup
        streams = [set(jobs.engine[(jobs.beats > 0) & (asks <= cycle) & (cycle < timing.port_end)]) for cycle in asks]
        met |= {f"{len(engines)} at the port" for engines in streams}
        cases = {
            "fence": (flags & Flag.FENCE) != 0,
            "new mode": (jobs.fence != 0) & ((flags & Flag.FENCE) == 0),
            "part of a product": (jobs.engine == COMPUTE) & ((flags & (Flag.FIRST | Flag.LAST)) != Flag.FIRST | Flag.LAST),
            "held by its lead": timing.start > timing.ready,
            "no setup": (jobs.beats > 0) & (jobs.setup == 0),
            "no latency": (jobs.beats > 0) & (jobs.latency == 0),
            "nothing at all": (jobs.beats == 0) & (jobs.work == 0),
            "sent for": program.instructions["waits"] != 0,
        }
        met |= {name for name, happens in cases.items() if happens.any()}
    assert met >= {f"{count} at the port" for count in (1, 2, 3, 4)} | set(cases)


@given(seeds)
def test_what_was_waited_for_is_what_came_last(seed):
    program, timing = random_timing(seed)
    sent, before = {}, {}
    for number, one in enumerate(program.instructions):
        engine = one["opcode"]
        came = {sender: sent[sender, engine].pop(0) for sender in Engine if one["waits"] >> sender & 1}
        own = 0
        if engine in before:
            own = (timing.done if timing.jobs.fence[number] else timing.port_end)[before[engine]]
        assert timing.ready[number] == max(own, *came.values(), 0)
        last = [sender for sender, cycle in came.items() if cycle == timing.ready[number]]
        is_own = own == timing.ready[number] or timing.start[number] > timing.ready[number] + timing.jobs.lead[number]
        assert timing.waited_for[number] == (engine if is_own else last[0])
        before[engine] = number
        for receiver in Engine:
            if one["signals"] >> receiver & 1:
                sent.setdefault((engine, receiver), []).append(timing.done[number])
    assert not any(sent.values())


@given(seeds)
def test_bytes_and_beats_are_those_of_the_instructions(seed):
    program, timing = random_timing(seed)
    table, rows = program.instructions, program.tables
    moved = int(table["bytes"].sum())
    moved += sum(rows.kernels[one["object"]].bytes for one in table[table["opcode"] == VECTOR])
    moved += sum(rows.updates[one["object"]].bytes for one in table[table["opcode"] == UPDATE])
    assert timing.bytes_moved == moved
    assert timing.port_cycles >= moved / rows.arch.dram_bytes_per_cycle
    has_beats = timing.jobs.beats > 0
    spans = timing.port_end - timing.start - timing.jobs.setup
    assert (spans[has_beats] >= timing.jobs.beats[has_beats]).all()
    assert (spans[~has_beats] == 0).all()
    assert timing.cycles >= timing.port_cycles


@given(seeds)
def test_busy_cycles_are_those_with_an_instruction_under_way(seed):
    _, timing = random_timing(seed)
    for engine, busy in timing.busy_cycles.items():
        own = timing.jobs.engine == engine
        spans = zip(timing.start[own].tolist(), timing.done[own].tolist(), strict=True)
        assert busy == len({cycle for start, done in spans for cycle in range(start, done)})


@given(seeds, st.integers(0, 5000))
def test_one_load_takes_what_its_closed_form_says(seed, moved):
    arch = random_arch(np.random.default_rng(seed))
    for engine in (LOAD, STORE):
        timing = timing_of(tables(arch), instruction(engine, bytes=moved))
        dma = dma_cycles(moved, 1, arch.dram_bytes_per_cycle, arch.dma_setup_cycles)
        assert timing.cycles == dma + arch.dram_latency_cycles


@given(seeds, st.integers(0, 300), st.integers(0, 300), st.integers(0, 3))
def test_one_kernel_takes_what_its_closed_form_says(seed, lane_ops, moved, transfers):
    arch = random_arch(np.random.default_rng(seed))
    kernel = Kernel(op="op", lane_ops=lane_ops, bytes=moved, transfers=transfers, reads=(), writes=())
    timing = timing_of(tables(arch, kernels=[kernel]), instruction(VECTOR))
    lanes = vector_cycles(lane_ops, arch.vector_lanes, arch.vector_latency_cycles)
    dma = dma_cycles(moved, transfers, arch.dram_bytes_per_cycle, arch.dma_setup_cycles)
    assert timing.cycles == max(lanes, dma) + (arch.dram_latency_cycles if moved else 0)


@given(seeds, st.integers(1, 9), st.integers(1, 9))
def test_a_kernel_on_a_tile_works_on_each_of_its_results(seed, rows, cols):
    arch = random_arch(np.random.default_rng(seed))
    kernel = Kernel(op="op", lane_ops=3, bytes=0, transfers=0, reads=(), writes=(), tile=True)
    timing = timing_of(tables(arch, kernels=[kernel]), instruction(VECTOR, rows=rows, cols=cols))
    assert timing.cycles == vector_cycles(3 * rows * cols, arch.vector_lanes, arch.vector_latency_cycles)
    assert timing.bytes_moved == timing.port_cycles == 0


@given(seeds, st.integers(0, 20), st.integers(0, 20))
def test_one_prune_takes_what_its_closed_form_says(seed, cols, groups):
    arch = random_arch(np.random.default_rng(seed))
    timing = timing_of(tables(arch), instruction(PRUNE, cols=cols, groups=groups))
    assert timing.cycles == sore_cycles(cols * groups, arch.sore_lanes)


@given(seeds, st.integers(0, 99), st.integers(1, 3), st.integers(0, 99), st.integers(0, 500))
def test_one_update_takes_what_its_closed_form_says(seed, elems, passes, groups, moved):
    arch = random_arch(np.random.default_rng(seed))
    update = Update(weight=0, elems=elems, passes=passes, sore_groups=groups, bytes=moved, reads=(), writes=())
    timing = timing_of(tables(arch, updates=[update]), instruction(UPDATE))
    dma = dma_cycles(moved, 2, arch.dram_bytes_per_cycle, arch.dma_setup_cycles)
    work = max(wuve_cycles(elems, passes, arch.wuve_lanes), sore_cycles(groups, arch.sore_lanes))
    assert timing.cycles == max(work, dma) + arch.dram_latency_cycles


def os_cycles(arch, row_lanes, dim_m, dim_n, steps, count):
    sizes = (arch.array_rows, arch.array_cols, arch.adder_latency, row_lanes, arch.drain_lanes, arch.multiplier_latency)
    return os_run_cycles(*sizes, dim_m, dim_n, steps, count)


def ws_cycles(arch, row_lanes, dim_m, dim_n, groups, keep, m_chunk, count):
    sizes = (arch.array_rows, arch.array_cols, arch.adder_latency, row_lanes, arch.multiplier_latency)
    return ws_run_cycles(*sizes, dim_m, dim_n, groups, keep, m_chunk, count)


def cuts(rng, size, whole, parts_at_most=None):
    """Return random parts that make up `size`, all but the last of whole tiles; at most so many tiles in a part."""
    parts = []
    while size:
        part = min(size, whole * int(rng.integers(1, (parts_at_most or 3) + 1)))
        parts.append(part)
        size -= part
    return parts


def chain(parts_of_k):
    """Return the flags of the parts of a product that is cut along k."""
    flags = [Flag(0)] * len(parts_of_k)
    flags[0] |= Flag.FIRST
    flags[-1] |= Flag.LAST
    return zip(parts_of_k, flags, strict=True)


def random_case(seed, dataflow):
    rng = np.random.default_rng(seed)
    arch = random_arch(rng)
    row_lanes, group = int(rng.choice(arch.row_lanes)), int(rng.choice([1, 4]))
    chosen = mode(dataflow, row_lanes, int(rng.integers(1, group + 1)), group)
    tile_cols = arch.array_cols * (arch.adder_latency // row_lanes)
    dim_m = int(rng.integers(1, 4 * arch.array_rows * row_lanes + 1))
    return rng, arch, chosen, dim_m, int(rng.integers(1, 4 * tile_cols + 1)), tile_cols


@given(seeds, st.sampled_from(["m", "mn", "mnk"]), st.integers(1, 3))
def test_parts_of_an_os_product_take_the_cycles_of_the_whole(seed, cut, count):
    """The array takes tiles along m, then n: a part along n has one tile of m, a part along k one tile."""
    rng, arch, chosen, dim_m, dim_n, tile_cols = random_case(seed, "OS")
    groups = int(rng.integers(1, 12))
    along_m = cuts(rng, dim_m, arch.array_rows * chosen.row_lanes, None if cut == "m" else 1)
    along_n = [dim_n] if cut == "m" else cuts(rng, dim_n, tile_cols, 1 if "k" in cut else None)
    along_k = cuts(rng, groups, 1) if "k" in cut else [groups]
    parts = [
        product(0, rows, cols, part, flags) for rows in along_m * count for cols in along_n for part, flags in chain(along_k)
    ]
    expected = os_cycles(arch, chosen.row_lanes, dim_m, dim_n, groups * chosen.keep, count)
    assert timing_of(tables(arch, [chosen]), *parts).cycles == expected


@given(seeds)
def test_parts_of_an_os_product_along_n_before_m_take_the_cycles_of_the_whole(seed):
    rng, arch, chosen, dim_m, dim_n, tile_cols = random_case(seed, "OS")
    groups = arch.array_cols  # slots so long that no tile before the last ends after it, in any order
    parts = [product(0, dim_m, cols, groups) for cols in cuts(rng, dim_n, tile_cols)]
    expected = os_cycles(arch, chosen.row_lanes, dim_m, dim_n, groups * chosen.keep, 1)
    assert timing_of(tables(arch, [chosen]), *parts).cycles == expected


@given(seeds, st.sampled_from(["m", "mn", "mnk"]), st.integers(1, 3))
def test_parts_of_a_ws_product_take_the_cycles_of_the_whole(seed, cut, count):
    """The array takes tiles chunk by chunk, then along n, then k: a part along k has one tile of n."""
    rng, arch, chosen, dim_m, dim_n, tile_cols = random_case(seed, "WS")
    groups, m_chunk = int(rng.integers(1, 4 * arch.array_rows + 1)), int(rng.integers(1, dim_m + 1))
    along_n = [dim_n] if cut == "m" else cuts(rng, dim_n, tile_cols, 1 if "k" in cut else None)
    along_k = cuts(rng, groups, arch.array_rows) if "k" in cut else [groups]
    parts = [
        product(0, rows, cols, part, flags)
        for rows in cuts(rng, dim_m, m_chunk, 1) * count
        for cols in along_n
        for part, flags in chain(along_k)
    ]
    expected = ws_cycles(arch, chosen.row_lanes, dim_m, dim_n, groups, chosen.keep, m_chunk, count)
    assert timing_of(tables(arch, [chosen]), *parts).cycles == expected


def unused_columns(arch, dim_n):
    """Return the columns in which the last tile of n has no output; slots are longer than the way across."""
    return max(arch.array_cols - ((dim_n - 1) % (arch.array_cols * arch.adder_latency) + 1), 0)


@given(seeds, st.integers(1, 30), st.integers(1, 30), st.integers(0, 9))
def test_runs_of_two_modes_follow_each_other_after_4_cycles_and_the_unused_columns(seed, dim_m, dim_n, more_groups):
    arch = random_arch(np.random.default_rng(seed))
    groups = arch.array_cols + more_groups
    rows = tables(arch, [mode("OS", 1, 1, 1), mode("WS", 1, 2, 4)])
    os_run = os_cycles(arch, 1, dim_m, dim_n, groups, 1)
    ws_run = ws_cycles(arch, 1, dim_m, dim_n, groups, 2, dim_m, 1)
    parts = [product(place, dim_m, dim_n, groups) for place in (0, 1, 0)]
    assert timing_of(rows, *parts).cycles == os_run + ws_run + os_run + 2 * (4 + unused_columns(arch, dim_n))


@given(seeds, st.sampled_from(["OS", "WS"]), st.integers(1, 30), st.integers(1, 30), st.integers(0, 9))
def test_a_fence_ends_a_run(seed, dataflow, dim_m, dim_n, more_groups):
    arch = random_arch(np.random.default_rng(seed))
    groups = arch.array_cols + more_groups
    rows = tables(arch, [mode(dataflow, 1, 1, 1)])
    one = timing_of(rows, product(0, dim_m, dim_n, groups)).cycles
    fenced = product(0, dim_m, dim_n, groups, Flag.FENCE | Flag.FIRST | Flag.LAST)
    assert timing_of(rows, fenced, fenced).cycles == 2 * one + 4 + unused_columns(arch, dim_n)


def test_four_engines_share_the_port_in_turn():
    rows = tables(
        small_arch(),
        kernels=[Kernel(op="op", lane_ops=0, bytes=2, transfers=0, reads=(), writes=())],
        updates=[Update(weight=0, elems=0, passes=1, sore_groups=0, bytes=3, reads=(), writes=())],
    )
    parts = [instruction(UPDATE), instruction(VECTOR), instruction(STORE, bytes=1), instruction(LOAD, bytes=4)]
    # LOAD STORE VECTOR UPDATE, LOAD VECTOR UPDATE, LOAD UPDATE, LOAD
    assert timing_of(rows, *parts).port_end.tolist() == [9, 6, 2, 10]


def test_the_turn_goes_on_from_the_last_beat():
    rows = tables(small_arch())
    first = instruction(LOAD, bytes=1, signals=1 << STORE)
    timing = timing_of(rows, first, instruction(LOAD, bytes=2), instruction(STORE, bytes=2, waits=1 << LOAD))
    assert timing.ready.tolist() == [0, 1, 1]
    assert timing.port_end.tolist() == [1, 5, 4]  # STORE has cycles 1 and 3, for LOAD had the beat before


def test_one_that_comes_later_shares_from_then_on():
    rows = tables(small_arch(dma_setup_cycles=2))
    waiting = instruction(STORE, bytes=10, waits=1 << PRUNE)
    timing = timing_of(rows, instruction(LOAD, bytes=10), instruction(PRUNE, signals=1 << STORE, cols=1, groups=1), waiting)
    assert timing.done.tolist() == [17, 5, 22]  # LOAD alone in cycles 2 to 6, both from 7 on, STORE first
    assert timing.waited_for.tolist() == [LOAD, PRUNE, PRUNE]


def test_tokens_can_be_taken_in_the_cycle_of_completion():
    rows = tables(small_arch())
    idle = {"cols": 0, "groups": 0}
    parts = [
        instruction(LOAD, bytes=5, signals=1 << PRUNE),
        instruction(PRUNE, **idle, waits=1 << LOAD, signals=1 << STORE),
        instruction(STORE, bytes=0, waits=1 << PRUNE, signals=1 << LOAD),
        instruction(LOAD, bytes=1, waits=1 << STORE),
    ]
    timing = timing_of(rows, *parts)
    assert timing.ready.tolist() == [0, 5, 5, 5]
    assert timing.cycles == 6


def test_a_kernel_starts_when_the_lanes_are_free_and_ends_after_its_latency():
    kernel = Kernel(op="op", lane_ops=10, bytes=0, transfers=0, reads=(), writes=())
    rows = tables(small_arch(vector_lanes=3, vector_latency_cycles=6), kernels=[kernel])
    timing = timing_of(rows, instruction(VECTOR), instruction(VECTOR), instruction(VECTOR, flags=Flag.FENCE))
    assert timing.start.tolist() == [0, 4, 14]
    assert timing.done.tolist() == [10, 14, 24]
    assert timing.busy_cycles[VECTOR] == 24


def test_an_empty_program_takes_no_time():
    timing = timing_of(tables(small_arch()), instruction(LOAD)[:0])
    assert timing.cycles == timing.port_cycles == timing.bytes_moved == 0
    assert set(timing.busy_cycles.values()) == {0}


def test_cycles_are_not_stepped():
    timing = timing_of(tables(small_arch()), instruction(LOAD, bytes=2**50), instruction(STORE, bytes=2**50 + 1))
    assert timing.port_end.tolist() == [2**51 - 1, 2**51 + 1]


def test_instructions_that_wait_for_each_other_are_refused():
    parts = [
        instruction(LOAD, bytes=3),
        instruction(STORE, waits=1 << LOAD | 1 << PRUNE, signals=1 << LOAD),
        instruction(LOAD, waits=1 << STORE, signals=1 << STORE),
    ]
    with pytest.raises(ScheduleError) as refused:
        timing_of(tables(small_arch()), *parts)
    assert str(refused.value) == (
        "instruction 1 (STORE) must get the tokens it waits for, not none from LOAD and PRUNE; "
        "let it wait for what does not wait for it"
    )


def test_a_token_that_nobody_sends_is_refused():
    with pytest.raises(ScheduleError) as refused:
        timing_of(tables(small_arch()), instruction(UPDATE)[:0], instruction(LOAD), instruction(LOAD, waits=1 << COMPUTE))
    assert str(refused.value) == (
        "instruction 1 (LOAD) must get the tokens it waits for, not none from COMPUTE; "
        "let it wait for what does not wait for it"
    )


def test_a_program_of_more_cycles_than_can_be_counted_is_refused():
    kernels = [Kernel(op="op", lane_ops=2**53 - 1, bytes=0, transfers=0, reads=(), writes=())]
    slow = small_arch().replace(vector_lanes=1)
    rows = tables(slow, kernels=kernels)
    enough = timing_of(rows, *[instruction(VECTOR)] * 100).cycles
    assert 100 * (2**53 - 1) <= enough < 2**61
    message = "the program must take less than 2**61 cycles, not up to 5.4e+18; make it of less work"
    with pytest.raises(ScheduleError, match=f"^{re.escape(message)}$"):
        timing_of(rows, *[instruction(VECTOR)] * 300)
