import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_search import every_mapping
from random_gemms import random_arch, random_gemm
from small_traces import linear, vector

from accel.api import compile_step, resolve_arch, resolve_trace, step_options
from accel.dataflow.codegen import compile_schedule
from accel.dataflow.codegen_parts import part_ends, share, spans
from accel.dataflow.lowering import lower
from accel.dataflow.placement import ALIGNMENT, Life, place
from accel.dataflow.scheduling import schedule
from accel.dataflow.verifier import verify
from accel.errors import ScheduleError
from accel.methods import METHODS
from accel.program import Engine, Flag
from accel.schedule import Footprint, Mapping, Schedule, ScheduledGemm, Search, Segment, Step, VectorWork
from accel.sim.machine import run_program
from accel.sim.step import simulate_step
from accel.tokens import resolve_tokens
from accel.trace import Free, Matmul, Trace

NO_SEARCH = Search(1, 1, 0)


def one_product(gemm, mapping, cost, arch, vectors=()):
    """Return the program of a step of a single product."""
    lhs, rhs = replace(gemm.lhs, tensors=("x",)), replace(gemm.rhs, tensors=("weight w",))
    gemm = replace(gemm, lhs=lhs, rhs=rhs, writes=("y",))
    step = Step("one", 1, (Segment((gemm,), tuple(vectors)),), (), Footprint(0, 0, 0, 0))
    scheduled = ScheduledGemm(gemm, Mapping(**mapping), cost, NO_SEARCH, 0, 0)
    return compile_schedule(Schedule(step, arch, (scheduled,)))


def any_product(seed, is_wanted=lambda mapping: mapping["dataflow"] != "VECTOR"):
    """Return a random product with a random mapping that is wanted, or None where none fits."""
    rng = np.random.default_rng(seed)
    arch = random_arch(rng)
    if arch.fits_one_tile():
        return None
    gemm = random_gemm(rng, arch.group)
    mappings = [found for found in every_mapping(gemm, arch) if is_wanted(found[0])]
    if not mappings:
        return None
    return gemm, *mappings[rng.integers(len(mappings))], arch


def instructions_of(program, engine):
    return program.instructions[program.instructions["opcode"] == engine]


@pytest.mark.parametrize("seed", range(12))
def test_programs_of_random_mappings_are_accepted_and_do_all_the_work_once(seed):
    compiled = 0
    for case in range(seed * 15, seed * 15 + 15):
        drawn = any_product(case)
        if drawn is None:
            continue
        compiled += 1
        gemm, mapping, cost, arch = drawn
        program = one_product(gemm, mapping, cost, arch)
        verify(program, f"seed {case}")
        check_work(program, gemm, mapping, case)
        check_traffic(program, cost, case)
    assert compiled > 3


def check_work(program, gemm, mapping, case):
    """Every result is computed once over every group of k, its sums started once and finished once."""
    rows, cols = (gemm.shape.n, gemm.shape.m) if mapping["swapped"] else (gemm.shape.m, gemm.shape.n)
    groups = gemm.shape.groups(mapping["run_group"])
    done = np.zeros((gemm.shape.count, rows, cols, groups), np.int64)
    for one in instructions_of(program, Engine.COMPUTE):
        tile = done[
            one["repeat"],
            one["row"] : one["row"] + one["rows"],
            one["col"] : one["col"] + one["cols"],
            one["group"] : one["group"] + one["groups"],
        ]
        assert tile.size == int(one["rows"]) * int(one["cols"]) * int(one["groups"]), case
        tile += 1
        assert bool(one["flags"] & Flag.FIRST) == (one["group"] == 0), case
        assert bool(one["flags"] & Flag.LAST) == (one["group"] + one["groups"] == groups), case
    assert (done == 1).all(), case


def check_traffic(program, cost, case):
    """The bytes are those of the closed form, but for the last byte of each transfer."""
    transfers = [*instructions_of(program, Engine.LOAD), *instructions_of(program, Engine.STORE)]
    moved = sum(int(one["bytes"]) for one in transfers)
    assert cost.dram_bytes <= moved < cost.dram_bytes + len(transfers), case


@pytest.mark.parametrize("seed", range(12))
def test_a_program_takes_no_less_than_its_array_and_its_port(seed):
    drawn = any_product(seed)
    if drawn is None:
        pytest.skip("nothing fits")
    gemm, mapping, cost, arch = drawn
    timing = run_program(one_product(gemm, mapping, cost, arch))
    assert timing.cycles >= max(cost.slot_cycles, math.ceil(cost.dram_bytes / arch.dram_bytes_per_cycle))


def test_partial_sums_that_spill_are_read_again_in_order():
    spilled = 0
    for seed in range(60):
        drawn = any_product(seed, lambda mapping: mapping["dataflow"] == "WS" and mapping["loop_order"][2] != "k")
        if drawn is None:
            continue
        program = one_product(*drawn)
        views = program.tables.views
        sums = [one for one in instructions_of(program, Engine.LOAD) if views[one["object"]].side == "out"]
        if sums:
            spilled += 1
            verify(program, f"seed {seed}")
            stored = [one for one in instructions_of(program, Engine.STORE) if views[one["object"]].elem_bits == 32]
            assert len(stored) >= len(sums)
    assert spilled > 5


def test_work_on_results_rides_between_the_product_and_its_store():
    seed = next(seed for seed in range(50) if any_product(seed) is not None)
    gemm, mapping, cost, arch = any_product(seed)
    results = gemm.shape.count * gemm.shape.m * gemm.shape.n
    bias = VectorWork("layer", gemm.stage, "bias", results, 0, on_results=True)
    program = one_product(gemm, mapping, cost, arch, [bias])
    verify(program)
    tiles, stores = instructions_of(program, Engine.VECTOR), instructions_of(program, Engine.STORE)
    last = [one for one in instructions_of(program, Engine.COMPUTE) if one["flags"] & Flag.LAST]
    assert sum(int(one["rows"]) * int(one["cols"]) for one in tiles) == results
    assert [int(one["out"]) for one in tiles] == [int(one["out"]) for one in last]
    assert program.tables.kernels[0].lane_ops == 1
    assert program.tables.kernels[0].tile
    assert stores[-1]["waits"] & 1 << Engine.VECTOR


@pytest.mark.compiled
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize(
    ("network", "arch", "pattern"), [("resnet9", "sat-vcu1525", "2:8"), ("vit-cifar", "edge-kv260", "4:8")]
)
def test_programs_of_whole_steps_are_accepted_and_move_the_bytes_of_the_report(network, arch, pattern, method):
    machine = resolve_arch(arch)
    options = step_options(machine, method, pattern, 8, None, "sgd", True)
    planned = schedule(lower(resolve_trace(network), options), machine)
    program = compile_schedule(planned)
    verify(program)
    timing = run_program(program)
    expected = sum(row.dram_bytes for row in simulate_step(planned))
    assert expected <= timing.bytes_moved < expected + len(program.instructions)


def test_a_step_compiles_to_the_same_program_every_time():
    first, second = (compile_step("resnet9", batch=4) for _ in range(2))
    assert first.tables == second.tables
    assert first.instructions.tobytes() == second.instructions.tobytes()


def at_site(program, layer, part=""):
    """Return which instructions are those of a layer's forward pass."""
    sites = program.tables.sites
    number = next(at for at, site in enumerate(sites) if (site.layer, site.stage, site.part) == (layer, "FF", part))
    return program.instructions["site"] == number


def loads_of(program, layer, of_weight):
    """Return the numbers of the loads of a layer's weight, or of what it reads."""
    names = [program.tables.tensors[view.tensors[0]].name for view in program.tables.views]
    loads = np.flatnonzero(at_site(program, layer) & (program.instructions["opcode"] == Engine.LOAD))
    objects = program.instructions["object"][loads]
    return loads[[names[place].startswith("weight") == of_weight for place in objects]]


def test_weights_are_loaded_while_the_operator_before_still_runs():
    """The norm between two convolutions is no reason to wait with the second one's weights."""
    program = compile_step("resnet9", batch=16)
    timing = run_program(program)
    norm = timing.done[at_site(program, "prep.bn", "batch_norm")]
    assert timing.start[loads_of(program, "layer1.conv", of_weight=True)].min() < norm.min()
    assert timing.start[loads_of(program, "layer1.conv", of_weight=False)].min() >= norm.min()


def test_a_product_begins_with_the_first_samples_while_operators_do_the_others():
    program = compile_step("resnet9", batch=16)
    timing, kernels = run_program(program), program.tables.kernels
    relu = np.flatnonzero(at_site(program, "prep.relu", "relu"))
    samples = [kernels[place].samples for place in program.instructions["object"][relu]]
    assert [first for first, _ in samples] == [0, *(first + count for first, count in samples[:-1])]
    assert sum(samples[-1]) == 16
    assert len(samples) > 2
    loads = loads_of(program, "layer1.conv", of_weight=False)
    assert timing.start[loads].min() < timing.done[relu].max()
    pixels = 32 * 32
    for load in loads:
        last = (int(program.instructions["row"][load]) + int(program.instructions["rows"][load]) - 1) // pixels
        part = next(at for at, (first, count) in enumerate(samples) if last < first + count)
        assert timing.start[load] >= timing.done[relu[part]]


def needs_of_loads(program, layer):
    """Return for each load of a layer's forward pass the last instruction of VECTOR that it waits for, and its tensors."""
    needs, tables = resolve_tokens(program), program.tables
    loads = np.flatnonzero(at_site(program, layer) & (program.instructions["opcode"] == Engine.LOAD))
    views = [tables.views[place] for place in program.instructions["object"][loads]]
    return [
        (needs[load, Engine.VECTOR], [tables.tensors[number].name for number in view.tensors])
        for load, view in zip(loads, views, strict=True)
    ]


def test_an_operand_that_may_need_all_samples_waits_for_them_beside_one_that_does_not():
    """Of two operands that are made just before, one lies in two tensors: nothing says which samples its tiles need."""
    gelu = {"in_elems": 64 * 64, "op": "gelu"}
    layers = [linear(f"l{at}", "x", 64, 64, 64) for at in (1, 2)]
    layers += [vector(f"g{at}", sources=(f"l{at}",), **gelu) for at in (1, 2)]
    layers += [Free(name="cat", inputs=("g2", "x"), kind="cat"), Matmul(name="mm", inputs=("g1", "cat"), m=64, n=64, k=64)]
    layers += [vector("loss", "mse_loss", ("mm",), 64 * 64, 1, window=64 * 64)]
    trace = Trace(name="odd", inputs=("x",), layers=tuple(layers))
    program = compile_step(trace, resolve_arch("sat-vcu1525").replace(vector_lanes=1), batch=16)
    vectors = np.flatnonzero(program.instructions["opcode"] == Engine.VECTOR)
    kernels = [program.tables.kernels[place] for place in program.instructions["object"][vectors]]
    names = [[program.tables.tensors[number].name for number in kernel.writes] for kernel in kernels]
    for needed, tensors in needs_of_loads(program, "mm"):
        for name in {"g1", "g2"} & {*tensors}:
            assert needed > max(at for at, written in enumerate(names) if name in written)


@pytest.mark.parametrize("batch", [1, 5, 64])
def test_parts_of_an_operator_add_up_to_it(batch):
    program = compile_step("vit-cifar", batch=batch)
    whole = lower(
        resolve_trace("vit-cifar"), step_options(resolve_arch("sat-vcu1525"), "bdwp", "2:8", batch, None, "sgd", True)
    )
    tables, on_vector = program.tables, program.instructions["opcode"] == Engine.VECTOR
    done = {}
    for one in program.instructions[on_vector]:
        kernel, site = tables.kernels[one["object"]], tables.sites[one["site"]]
        if not kernel.tile:
            ops, moved = done.get((site.layer, site.stage, site.part), (0, 0))
            done[site.layer, site.stage, site.part] = ops + kernel.lane_ops, moved + kernel.bytes
    works = [work for segment in whole.segments for work in segment.vectors if not work.on_results]
    for work in works:
        assert done[work.layer, work.stage, work.kind] == (work.lane_ops, work.dram_bytes)
    is_cut = any(kernel.samples for kernel in tables.kernels)
    assert is_cut == (batch > 1)


def test_short_operators_are_not_cut():
    arch = resolve_arch("sat-vcu1525")
    work = VectorWork("relu", "FF", "relu", 10_000 * arch.vector_lanes, 0, by_sample=True)
    assert part_ends([work], arch, 64)[-2:] != [64]
    assert part_ends([replace(work, lane_ops=10 * arch.vector_lanes)], arch, 64) == [64]
    assert part_ends([work], arch, 1) == [1]


@given(batch=st.integers(1, 300), amount=st.integers(0, 2**52), count=st.integers(1, 16))
def test_shares_of_samples_add_up(batch, amount, count):
    count = min(count, batch)
    ends = [batch * (part + 1) // count for part in range(count)]
    assert sum(share(amount, samples, batch) for samples in spans(ends)) == amount


def test_updates_wait_for_every_gradient():
    program = compile_step("mlp", batch=16)
    timing = run_program(program)
    opcodes = program.instructions["opcode"]
    first_update = timing.start[opcodes == Engine.UPDATE].min()
    assert first_update >= timing.done[(opcodes == Engine.STORE) | (opcodes == Engine.VECTOR)].max()


def test_tensors_lie_side_by_side_while_both_are_in_use():
    lives = [Life(100, 0, 5), Life(10, 1, 2), Life(64, 3, 4), Life(1000, 6, 7), Life(0, 0, 9)]
    room = 64 * 20  # the last but one finds no place behind all others
    addresses = place(lives, room)
    for at, life in enumerate(lives):
        assert addresses[at] % ALIGNMENT == 0
        for other, beside in enumerate(lives[:at]):
            if life.first <= beside.last and beside.first <= life.last:
                first, second = sorted([(addresses[at], life.size), (addresses[other], beside.size)])
                assert first[0] + first[1] <= second[0] or first[1] == 0
            assert addresses[at] + life.size <= room
    assert addresses[3] < addresses[2]  # round again


def test_tensors_that_find_no_room_are_refused():
    message = "dram_capacity_bytes must be at least 256 to place all tensors of the step, not 255; lower the batch"
    with pytest.raises(ScheduleError, match=f"^{re.escape(message)}$"):
        place([Life(100, 0, 1), Life(65, 1, 2)], 255)


def test_a_batch_that_does_not_fit_is_refused_before_anything_is_compiled():
    message = (
        "dram_capacity_bytes of edge-kv260 must be at least 5897311408 for vit-b16 at batch 64, not 4294967296; lower the batch"
    )
    with pytest.raises(ScheduleError, match=f"^{re.escape(message)}$"):
        compile_step("vit-b16", "edge-kv260", method="dense")
