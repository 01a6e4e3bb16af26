import pytest

from accel.dataflow.context import Options
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import schedule, schedule_gemms
from accel.gemm import Gemm, GemmShape, Operand, Stage
from accel.methods import METHODS, OPTIMIZERS
from accel.networks import load
from accel.presets import preset
from accel.schedule import Footprint, Schedule, Segment, Step, UpdateWork, VectorWork
from accel.sim.step import simulate_step
from accel.sparsity import NMPattern
from accel.timing.engines import dma_cycles

TEST = preset("test")  # 16 bytes a cycle, 20 cycles of latency, 4 of set-up; 8 vector lanes with a latency of 5
NOTHING = Footprint(0, 0, 0, 0)


def scheduled(segments, updates=(), arch=TEST):
    step = Step("net", 1, tuple(segments), tuple(updates), NOTHING)
    return Schedule(step, arch, tuple(schedule_gemms(step.gemms, arch)))


def product(dim_m, dim_n, dim_k, stage=Stage.FORWARD):
    shape = GemmShape(dim_m, dim_n, 1, dim_k)
    return Gemm("fc", stage, "", shape, Operand("X", dim_k, dim_m), Operand("W", dim_k, dim_n), 16, shape.macs, dim_m * dim_n)


def operator(lane_ops, dram_bytes, layer="relu"):
    return VectorWork(layer, Stage.INPUT_GRAD, "relu", lane_ops, dram_bytes)


@pytest.mark.parametrize(
    ("lane_ops", "dram_bytes", "cycles", "bound"),
    [
        (80, 160, 20 + 18, "dram"),  # 10 + 5 cycles of lanes; 10 + 2 * 4 of DMA
        (400, 160, 20 + 55, "vector"),
        (81, 0, 16, "vector"),  # nothing to load: no latency of memory
        (0, 161, 20 + 19, "dram"),
    ],
)
def test_an_operator_takes_the_longer_of_lanes_and_traffic(lane_ops, dram_bytes, cycles, bound):
    (row,) = simulate_step(scheduled([Segment(vectors=(operator(lane_ops, dram_bytes),))]))
    assert (row.name, row.stage, row.part, row.engine, row.group) == ("relu", "BP", "relu", "vector", "VECTOR")
    assert (row.cycles, row.busy_cycles, row.bound, row.dram_bytes) == (cycles, cycles, bound, dram_bytes)
    assert row.losses == {"vector": cycles}
    assert (row.m, row.n, row.k, row.utilization_frac) == (None, None, None, 0)


@pytest.mark.parametrize(
    ("elems", "passes", "sore_groups", "dram_bytes", "cycles", "bound"),
    [
        (10, 1, 4, 320, 20 + 28, "dram"),  # WUVE 4 cycles on 3 lanes, SORE 4 + 4 on one lane, DMA 20 + 2 * 4
        (100, 4, 4, 320, 20 + 34 * 4, "wuve"),
        (10, 1, 41, 320, 20 + 41 + 4, "sore"),
    ],
)
def test_an_update_takes_the_longest_of_its_engines(elems, passes, sore_groups, dram_bytes, cycles, bound):
    update = UpdateWork("fc", elems, passes, sore_groups, 0, 0, dram_bytes)
    (row,) = simulate_step(scheduled([], [update]))
    assert (row.stage, row.engine, row.group, row.cycles, row.bound) == ("OPT", "update", "OPT", cycles, bound)
    assert row.losses == {"update": cycles}


def test_a_frozen_tensor_has_no_update():
    assert simulate_step(scheduled([], [UpdateWork("fc", 0, 0, 0, 0, 128, 0)])) == ()


def test_segments_follow_each_other():
    works = [operator(400, 0), operator(160, 0)]
    apart = simulate_step(scheduled([Segment(vectors=(work,)) for work in works]))
    assert [row.cycles for row in apart] == [55, 25]


def test_vector_work_that_is_hidden_takes_no_cycles():
    gemm = product(32, 32, 32)
    array, vector = simulate_step(scheduled([Segment((gemm,), (operator(80, 0),))]))
    assert array.engine == "array"
    assert array.cycles == array.busy_cycles
    assert (vector.cycles, vector.busy_cycles, vector.losses) == (0, 15, {})


def test_vector_work_that_outlasts_the_array_is_charged_the_rest():
    gemm = product(32, 32, 32)
    works = (operator(80_000, 0, "first"), operator(40_000, 0, "second"))
    array, first, second = simulate_step(scheduled([Segment((gemm,), works)]))
    assert array.cycles + first.cycles + second.cycles == first.busy_cycles + second.busy_cycles == 10_005 + 5_005
    assert first.cycles > second.cycles > 0
    # In proportion to their own time, rounded down on the way.
    assert first.cycles == (15_010 - array.cycles) * 10_005 // 15_010


def test_one_dma_serves_both():
    gemm = product(32, 32, 32)
    arch = TEST.replace(dram_bytes_per_second=1e8)  # one byte a cycle: the product waits for memory all the time
    planned = scheduled([Segment((gemm,), (operator(8, 1000),))], arch=arch)
    array, vector = simulate_step(planned)
    assert array.bound == vector.bound == "dram"
    assert vector.cycles < vector.busy_cycles == 20 + 1008
    assert array.cycles + vector.cycles == planned.gemms[0].cost.dma_cycles + 1008


def test_a_product_on_the_vector_unit_runs_beside_the_array():
    arch = TEST.replace(vector_lanes=64, dram_bytes_per_second=1e11)
    planned = scheduled([Segment((product(64, 1, 9), product(64, 64, 64)))], arch=arch)
    assert [gemm.mapping.dataflow == "VECTOR" for gemm in planned.gemms] == [True, False]
    depthwise, full = simulate_step(planned)
    assert (depthwise.engine, depthwise.stage, depthwise.group, depthwise.mapping) == ("vector", "FF", "VECTOR", "")
    assert (depthwise.cycles, depthwise.losses) == (0, {"vector": -36})  # all 16 PEs would take 36 cycles
    assert depthwise.busy_cycles == planned.gemms[0].cost.cycles
    assert full.cycles == planned.gemms[1].cost.cycles


def test_losses_of_a_product_leave_its_nonzeros_on_all_pes():
    for sizes in ((32, 32, 32), (1, 1, 1), (17, 5, 3), (4, 200, 2)):
        planned = scheduled([Segment((product(*sizes),))], arch=TEST.replace(vector_latency_cycles=1000))
        (row,) = simulate_step(planned)
        assert row.cycles - sum(row.losses.values()) == -(-row.macs_useful // TEST.pes)
        assert min(row.losses.values()) > 0
        cost = planned.gemms[0].cost
        assert row.losses.get("padding", 0) == cost.compute_cycles + sum(row.losses.values()) - row.cycles
        assert row.losses.get("drain", 0) == cost.slot_cycles - cost.compute_cycles
        assert row.utilization_frac == row.macs_useful / (16 * row.cycles)


def test_a_row_tells_how_its_product_runs():
    (row,) = simulate_step(scheduled([Segment((product(32, 32, 32, Stage.WEIGHT_GRAD),))]))
    assert (row.name, row.stage, row.m, row.n, row.k, row.count, row.pattern) == ("fc", "WU", 32, 32, 32, 1, "dense")
    (gemm,) = schedule_gemms([product(32, 32, 32, Stage.WEIGHT_GRAD)], TEST)
    mapping = gemm.mapping
    assert row.dataflow == mapping.dataflow
    tile = f"{mapping.tile_m}x{mapping.tile_n}x{mapping.tile_groups * mapping.run_group}"
    swapped = ", swapped" if mapping.swapped else ""
    lanes = f"{mapping.row_lanes}x{2 // mapping.row_lanes}"
    assert row.mapping == f"lanes {lanes}, tile {tile}, loops {mapping.loop_order}{swapped}"


@pytest.mark.parametrize("method", ["dense", "bdwp", "sdgp"])
@pytest.mark.parametrize("network", ["resnet18", "mobilenetv2", "vit-cifar"])
def test_each_segment_lasts_as_long_as_its_busiest_part(network, method):
    arch = preset("edge-kv260")
    options = Options(2, METHODS[method], NMPattern(2, 8), OPTIMIZERS["sgd"], arch.group)
    planned = schedule(lower(load(network), options), arch)
    rows, gemms = iter(simulate_step(planned)), iter(planned.gemms)
    for segment in planned.step.segments:
        found = [next(rows) for _ in segment.gemms + segment.vectors]
        costs = [next(gemms).cost for _ in segment.gemms]
        dma = sum(cost.dma_cycles for cost in costs)
        for work in segment.vectors:
            if work.dram_bytes:
                dma += dma_cycles(work.dram_bytes, 2, arch.dram_bytes_per_cycle, arch.dma_setup_cycles)
        array = sum(row.busy_cycles for row in found if row.engine == "array")
        vector = sum(row.busy_cycles for row in found if row.engine == "vector")
        assert sum(row.cycles for row in found) == max(array, vector, dma), found
        assert all(row.cycles == row.busy_cycles for row in found if row.engine == "array")
        assert all(row.cycles >= 0 for row in found)
    assert {row.engine for row in rows} == {"update"}
