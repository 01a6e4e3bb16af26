from math import ceil

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from random_programs import instruction, mode, product, random_arch, random_program, tables

from accel.program import Engine, Flag, Kernel, Program, Update
from accel.timing.array import os_end_cycles, os_slot_cycles, ws_run_cycles, ws_slot_cycles, ws_tile_cycles
from accel.timing.engines import sore_cycles, vector_cycles, wuve_cycles
from accel.timing.jobs import Jobs, jobs_of

LOAD, STORE, COMPUTE, PRUNE, VECTOR, UPDATE = Engine
FIRST, LAST = Flag.FIRST, Flag.LAST
ROWS, COLS, LANES, ROW_LANES, DRAIN_LANES, MULTIPLIER_LATENCY = ARRAY = (4, 3, 4, 2, 1, 2)
TILE_ROWS, TILE_COLS = ROWS * ROW_LANES, COLS * LANES // ROW_LANES
WS_ARRAY = (ROWS, COLS, LANES, ROW_LANES, MULTIPLIER_LATENCY)
OS_MODE, WS_MODE, OTHER_OS_MODE = range(3)
KEEP = 2
WORDS = ("fence", "gap", "lead", "setup", "beats", "work", "latency", "bytes")

seeds = st.integers(0, 2**32)


def arch_of_array(**changes):
    sizes = {
        "array_rows": ROWS,
        "array_cols": COLS,
        "adder_latency": LANES,
        "row_lanes": (ROW_LANES,),
        "drain_lanes": DRAIN_LANES,
    }
    fixed = {**sizes, "multiplier_latency": MULTIPLIER_LATENCY, "dma_setup_cycles": 5, "dram_latency_cycles": 9}
    return random_arch(np.random.default_rng(0), **{**fixed, **changes})


MODES = (mode("OS", ROW_LANES, KEEP, 4), mode("WS", ROW_LANES, KEEP, 4), mode("OS", ROW_LANES, 1, 1))


def jobs(*instructions, **rows):
    arch = rows.pop("arch", None) or arch_of_array()
    return jobs_of(Program(tables(arch, MODES, **rows), np.concatenate(instructions)))


def last(found):
    """Return the words of the last instruction that are not 0."""
    return {word: int(getattr(found, word)[-1]) for word in WORDS if getattr(found, word)[-1]}


@given(seeds)
def test_jobs_are_integers_of_every_instruction(seed):
    program = random_program(np.random.default_rng(seed))
    found = jobs_of(program)
    assert found.engine.tolist() == program.instructions["opcode"].tolist()
    for field in Jobs._fields:
        values = getattr(found, field)
        assert values.dtype == np.int64
        assert values.shape == program.instructions.shape
        assert (values >= 0).all()
    assert set(found.fence) <= {0, 1}


@given(seeds)
def test_the_first_of_an_engine_has_no_gap(seed):
    program = random_program(np.random.default_rng(seed))
    found = jobs_of(program)
    _, firsts = np.unique(found.engine, return_index=True)
    assert not found.gap[firsts].any()


@pytest.mark.parametrize("engine", [LOAD, STORE])
@pytest.mark.parametrize("moved", [0, 1, 14, 15, 2**40])
def test_a_transfer_has_setup_beats_and_latency(engine, moved):
    arch = arch_of_array(dram_bytes_per_second=2e7, dram_efficiency_frac=0.7)  # 14 bytes a cycle
    words = {"setup": 5, "beats": ceil(moved / 14), "latency": 9, "bytes": moved}
    assert last(jobs(instruction(engine, bytes=moved), arch=arch)) == {word: value for word, value in words.items() if value}


def test_transfers_follow_each_other_without_a_gap():
    found = jobs(*(instruction(LOAD, bytes=100, flags=flags) for flags in (Flag.FENCE, 0, Flag.FENCE)))
    assert found.fence.tolist() == [1, 0, 1]
    assert found.gap.tolist() == [0, 0, 0]


def test_a_prune_has_slots_and_latency():
    arch = arch_of_array(sore_lanes=3)
    found = jobs(*(instruction(PRUNE, cols=5, groups=7, flags=flags) for flags in (0, 0, Flag.FENCE)), arch=arch)
    assert found.gap.tolist() == [0, 12, 0]
    assert found.work.tolist() == [sore_cycles(35, 3)] * 3 == [16] * 3
    assert not found.beats.any()
    assert not found.latency.any()


def test_a_kernel_has_the_lanes_and_the_port():
    kernels = [
        Kernel(op="op", lane_ops=100, bytes=64, transfers=3, reads=(), writes=()),
        Kernel(op="op", lane_ops=7, bytes=0, transfers=0, reads=(), writes=(), tile=True),
    ]
    arch = arch_of_array(vector_lanes=8, vector_latency_cycles=6, dram_bytes_per_second=1e7, dram_efficiency_frac=1.0)
    stream, tile = instruction(VECTOR), instruction(VECTOR, object=1, rows=5, cols=3)
    found = jobs(stream, tile, stream, arch=arch, kernels=kernels)
    assert found.gap.tolist() == [0, 13, 14]
    assert found.work.tolist() == [vector_cycles(lane_ops, 8, 6) for lane_ops in (100, 105, 100)]
    assert found.setup.tolist() == [15, 0, 15]
    assert found.beats.tolist() == [7, 0, 7]
    assert found.latency.tolist() == [9, 0, 9]


def test_an_update_has_wuve_and_sore_and_the_port():
    updates = [
        Update(weight=0, elems=100, passes=2, sore_groups=9, bytes=64, reads=(), writes=()),
        Update(weight=0, elems=3, passes=1, sore_groups=90, bytes=0, reads=(), writes=()),
    ]
    arch = arch_of_array(wuve_lanes=8, sore_lanes=2, dram_bytes_per_second=1e7, dram_efficiency_frac=1.0)
    found = jobs(instruction(UPDATE), instruction(UPDATE, object=1), instruction(UPDATE), arch=arch, updates=updates)
    assert found.work.tolist() == [wuve_cycles(100, 2, 8), sore_cycles(90, 2), 26] == [26, 49, 26]
    assert found.gap.tolist() == [0, 26, 49]
    assert found.setup.tolist() == [10, 10, 10]
    assert found.beats.tolist() == [7, 0, 7]
    assert found.latency.tolist() == [9, 9, 9]


def os_words(rows, cols, groups):
    """Return (from the start to the end of the last tile's compute, cycles of the run) of an OS product."""
    steps = groups * KEEP
    slots = os_slot_cycles(*ARRAY[:5], rows, cols, steps, 1)
    ends = os_end_cycles(*ARRAY, rows, cols, steps)
    first = LANES * max(steps, ceil(min(ROWS, rows) / DRAIN_LANES))
    return slots - first + LANES * steps, slots + ends


def test_an_os_product_goes_on_where_the_one_before_ends():
    found = jobs(product(OS_MODE, 20, 13, 6), product(OS_MODE, 3, 2, 1))
    span, _ = os_words(20, 13, 6)
    assert span == 3 * 3 * LANES * 6 * KEEP
    # 3 rows drain in as many steps, of which the tile has 2
    assert last(found) == {"gap": span + LANES * 1, "work": os_words(3, 2, 1)[1]}


def test_parts_of_an_os_tile_hold_up_the_last_of_them():
    """4 rows drain in 4 steps: a tile of 3 parts of 1 step waits for 1 of them, the first tile of a run for none."""
    tile = [product(OTHER_OS_MODE, TILE_ROWS, TILE_COLS, 1, flags) for flags in (FIRST, Flag(0), LAST)]
    found = jobs(*tile, *tile, *tile)
    step = LANES
    assert found.gap.tolist() == [0, step, step, step, step, 2 * step, step, step, 2 * step]
    read = step + max(ROWS, COLS)
    assert found.work[:2].tolist() == [read, read]
    ends = os_end_cycles(*ARRAY, TILE_ROWS, TILE_COLS, 1)
    assert found.work[2] == os_slot_cycles(*ARRAY[:5], TILE_ROWS, TILE_COLS, 1, 1) + ends


def test_after_a_fence_nothing_drains():
    one, fenced = (product(OTHER_OS_MODE, 8, 6, 1, flags) for flags in (FIRST | LAST, Flag.FENCE | FIRST | LAST))
    found = jobs(one, one, fenced, one)
    assert found.gap.tolist() == [0, 4 * LANES, 4, 4 * LANES]
    assert found.fence.tolist() == [0, 0, 1, 0]


def test_parts_of_an_os_tile_read_what_their_rows_and_columns_are():
    found = jobs(product(OS_MODE, 1, 2, 3, FIRST))
    assert last(found) == {"work": LANES * 3 * KEEP + 2}


def test_a_ws_product_has_its_first_load_before_its_start():
    found = jobs(product(WS_MODE, 50, 13, 9), product(WS_MODE, 7, 5, 9))
    load = KEEP * LANES // ROW_LANES + ROWS - 1
    run = ws_run_cycles(*WS_ARRAY, 7, 5, 9, KEEP, 7, 1)
    gap = ws_slot_cycles(*WS_ARRAY[:4], 50, 13, 9, KEEP, 50, 1)
    assert last(found) == {"gap": gap, "lead": load, "work": run - load}


@pytest.mark.parametrize(("flags", "turns_after"), [(FIRST, 1), (Flag(0), 1), (LAST, 0)])
def test_parts_of_a_ws_product_turn_in_the_psum_buffer(flags, turns_after):
    found = jobs(product(WS_MODE, 1, 1, ROWS, flags), product(WS_MODE, 1, 1, ROWS))
    way_down = ROWS * KEEP * LANES
    assert ws_tile_cycles(ROWS, LANES, ROW_LANES, 1, ROWS, KEEP) == way_down
    assert found.gap.tolist() == [0, way_down + 3]
    whole = ws_run_cycles(*WS_ARRAY, 1, 1, ROWS, KEEP, 1, 1) - found.lead[0]
    assert found.work.tolist() == [whole + 3 * turns_after, whole]


def test_a_new_mode_waits_for_the_end_of_the_run():
    places = [OS_MODE, OS_MODE, OTHER_OS_MODE, WS_MODE, WS_MODE, OS_MODE]
    between = instruction(LOAD, object=7, bytes=1)  # other engines have no part in it
    found = jobs(*(one for place in places for one in (product(place, 3, 2, 5), between)))
    assert found.fence[::2].tolist() == [0, 0, 1, 1, 0, 1]
    unused_columns = COLS - 2
    assert found.gap[::2][[2, 3, 5]].tolist() == [4 + unused_columns] * 3
    assert not found.fence[1::2].any()


def test_large_sizes_do_not_wrap():
    kernels = [Kernel(op="op", lane_ops=2**40, bytes=0, transfers=0, reads=(), writes=(), tile=True)]
    arch = arch_of_array(vector_lanes=1, vector_latency_cycles=0, sore_lanes=1)
    wide = {"rows": 2**11, "cols": 2**11}
    assert last(jobs(instruction(VECTOR, **wide), arch=arch, kernels=kernels)) == {"work": 2**62}
    assert last(jobs(instruction(PRUNE, cols=2**31, groups=2**30), arch=arch)) == {"work": 2**61 + 4}
    work = jobs(product(OS_MODE, 2**20, 2**20, 2**16), arch=arch).work[0]
    assert work > (2**20 // TILE_ROWS) * (2**20 // TILE_COLS) * LANES * KEEP * 2**16 > 2**50


def test_instructions_that_cannot_be_written_to_are_read():
    table = instruction(LOAD, bytes=3)
    table.flags.writeable = False
    assert jobs_of(Program(tables(arch_of_array(), MODES), table)).bytes.tolist() == [3]
