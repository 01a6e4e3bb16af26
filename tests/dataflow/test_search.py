import math
import re

import numpy as np
import pytest
from naive_search import every_mapping
from random_gemms import TEST, random_arch, random_gemm

from accel.dataflow.context import Options
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import schedule, schedule_gemms
from accel.dataflow.search import SLACK
from accel.errors import ConfigError, ScheduleError
from accel.gemm import Gemm, GemmShape, Operand, Stage
from accel.methods import METHODS, OPTIMIZERS
from accel.presets import preset
from accel.schedule import GemmCost, Mapping
from accel.sparsity import DENSE, NMPattern
from accel.trace import Linear, Trace


def shared_rows(rng):
    """Return a product whose rows share data and WS with few partial sums: a larger tile may save loads, the whole not fit.

    Half of them fit no buffer with all of k.
    """
    arch = random_arch(rng).replace(
        array_rows=int(rng.integers(1, 3)),
        drain_lanes=1,
        array_cols=1,
        adder_latency=1,
        row_lanes=(1,),
        dataflows=("WS",),
        west_buffer_bytes=2**16,
        north_buffer_bytes=2**16,
        output_buffer_bytes=int(rng.integers(60, 260)),
        dram_bytes_per_second=1e8,
    )
    sizes = [int(rng.integers(8, 28)), int(rng.integers(1, 4))]
    sizes = [sizes[index] for index in rng.permutation(2)]
    shape, halo_elems = GemmShape(*sizes, 1, int(rng.integers(2, 9))), int(rng.choice([0, 2**17]))
    operands = [Operand("taps", 64, int(rng.integers((size + 1) // 2, size + 1)), halo_elems) for size in sizes]
    return Gemm("layer", Stage.WEIGHT_GRAD, "", shape, *operands, 16, shape.macs, shape.m * shape.n), arch


def long_k(rng):
    """Return a product so long in k that it may pay to spill partial sums; sparse, so that the operands cannot be swapped."""
    dim_k = int(rng.integers(32, 97))
    arch = random_arch(rng).replace(
        array_rows=1,
        drain_lanes=1,
        adder_latency=1,
        row_lanes=(1,),
        dataflows=("WS",),
        group=4,
        west_buffer_bytes=int(4 * dim_k * rng.uniform(0.4, 1.5)),
        dram_bytes_per_second=1e8,
    )
    return product(int(rng.integers(3, 9)), int(rng.integers(1, 4)), dim_k, rhs=NMPattern(2, 4)), arch


def search(gemm, arch):
    (found,) = schedule_gemms([gemm], arch)
    return found


def has_same_best(gemm, arch, label):
    """Compare the search with all mappings; return whether any fits."""
    costs = [(cost.cycles, cost.dram_bytes, mapping) for mapping, cost in every_mapping(gemm, arch)]
    if not costs:
        with pytest.raises(ScheduleError):
            search(gemm, arch)
        return False
    found = search(gemm, arch)
    least_cycles = min(cycles for cycles, _, _ in costs)
    assert found.search.least_cycles == least_cycles, label
    limit = least_cycles + least_cycles // SLACK
    best = min(
        (dram_bytes, tiles_of(mapping, gemm), cycles, *order_of(mapping, arch))
        for cycles, dram_bytes, mapping in costs
        if cycles <= limit
    )
    mapping = vars_of(found.mapping)
    assert (found.cost.dram_bytes, tiles_of(mapping, gemm), found.cost.cycles, *order_of(mapping, arch)) == best, label
    return True


def order_of(mapping, arch):
    """Return by what equal mappings are ordered, but for the loop order: docs/scheduling.md, ties."""
    in_groups = mapping["run_group"] == arch.group
    family = {"OS": int(in_groups), "WS": 3 - int(in_groups), "VECTOR": 4}[mapping["dataflow"]]
    is_last = family == 4
    lanes = 0 if is_last else arch.row_lanes.index(mapping["row_lanes"])
    return is_last, mapping["swapped"], lanes, family, mapping["tile_m"], mapping["tile_n"], mapping["tile_groups"]


def vars_of(mapping):
    return {name: getattr(mapping, name) for name in mapping.__dataclass_fields__}


def tiles_of(mapping, gemm):
    """Return how many DRAM-level tiles a mapping cuts all equal products into."""
    west, north = (gemm.shape.n, gemm.shape.m) if mapping["swapped"] else (gemm.shape.m, gemm.shape.n)
    groups = gemm.shape.groups(mapping["run_group"])
    sizes = ((west, mapping["tile_m"]), (north, mapping["tile_n"]), (groups, mapping["tile_groups"]))
    return gemm.shape.count * math.prod(-(-size // tile) for size, tile in sizes)


@pytest.mark.parametrize("seed", range(8))
def test_the_search_finds_what_trying_everything_finds(seed):
    rng = np.random.default_rng(seed)
    feasible = 0
    for index in range(40):
        arch = random_arch(rng)
        gemm = random_gemm(rng, arch.group)
        feasible += has_same_best(gemm, arch, f"seed {seed}, case {index}: {gemm} {arch}")
    assert feasible > 30, f"seed {seed}"


@pytest.mark.parametrize("make", [shared_rows, long_k])
def test_no_corner_is_cut_where_a_rare_mapping_wins(make):
    rng = np.random.default_rng(5)
    feasible = 0
    for index in range(60):
        gemm, arch = make(rng)
        feasible += has_same_best(gemm, arch, f"seed 5, case {index}: {gemm} {arch}")
    assert feasible > 40


@pytest.mark.parametrize("seed", range(2))
def test_a_mapping_costs_what_its_fields_say(seed):
    rng = np.random.default_rng(100 + seed)
    for index in range(40):
        arch = random_arch(rng)
        gemm = random_gemm(rng, arch.group)
        mappings = {Mapping(**mapping): cost for mapping, cost in every_mapping(gemm, arch)}
        if mappings:
            found = search(gemm, arch)
            label = f"seed {100 + seed}, case {index}: {gemm} {arch} {found.mapping}"
            assert found.cost == GemmCost(*mappings[found.mapping]), label
            assert 0 < found.search.evaluated <= found.search.covered, label


def product(dim_m, dim_n, dim_k, lhs=DENSE, rhs=DENSE, online=False, taps=1):
    shape = GemmShape(dim_m, dim_n, taps, dim_k)
    left = Operand("X", shape.k, dim_m, pattern=lhs, prune_online=online and not lhs.is_dense)
    right = Operand("W", shape.k, dim_n, pattern=rhs, prune_online=online and not rhs.is_dense)
    return Gemm("layer", Stage.FORWARD, "", shape, left, right, macs_nominal=shape.macs, out_elems=dim_m * dim_n)


@pytest.mark.parametrize("dataflow", ["OS", "WS"])
@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("sizes", [(64, 3, 16), (3, 64, 16), (17, 17, 40)])
def test_the_operand_with_a_pattern_goes_north(sizes, online, dataflow):
    arch = TEST.replace(dataflows=(dataflow,))
    pattern = NMPattern(1, 4)
    for swapped in (False, True):
        gemm = product(*sizes, **{"lhs" if swapped else "rhs": pattern}, online=online)
        found = search(gemm, arch)
        assert found.mapping.swapped is swapped
        assert (found.mapping.dataflow, found.mapping.run_keep, found.mapping.run_group) == (dataflow, 1, 4)


def test_a_pattern_of_half_the_machines_group_runs_as_its_double():
    arch = preset("edge-kv260")
    half, whole = (search(product(64, 64, 64, rhs=NMPattern(*pattern)), arch) for pattern in ((2, 4), (4, 8)))
    assert (half.mapping.run_keep, half.mapping.run_group) == (4, 8)
    assert half.cost.compute_cycles == whole.cost.compute_cycles
    assert half.cost.array_cycles == whole.cost.array_cycles
    assert half.gemm.macs_useful == whole.gemm.macs_useful


def test_a_pattern_beyond_the_machines_group_is_refused():
    message = "pattern group must be at most the group of test (4), not 8 (pattern 2:8); choose a machine with a larger group"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        search(product(8, 8, 8, rhs=NMPattern(2, 8)), TEST)


def test_a_pattern_whose_group_does_not_divide_the_machines_is_refused():
    message = (
        "group of pattern 1:3 must divide the machine's group (4), not 3; "
        "choose a pattern with a smaller group or a machine with a larger one"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        search(product(8, 8, 9, rhs=NMPattern(1, 3)), TEST)


STEP = lower(
    Trace(name="net", inputs=("x",), layers=(Linear(name="fc", inputs=("x",), in_features=64, out_features=64),)),
    Options(1, METHODS["dense"], DENSE, OPTIMIZERS["sgd"], 4),
)


def test_buffers_below_one_array_tile_are_refused_all_at_once():
    arch = TEST.replace(west_buffer_bytes=63, north_buffer_bytes=63, output_buffer_bytes=255)
    message = (
        "test: west_buffer_bytes must be at least 64 to hold one tile twice, not 63; "
        "north_buffer_bytes must be at least 64 to hold one tile twice, not 63; "
        "output_buffer_bytes must be at least 256 to hold one tile twice, not 255"
    )
    with pytest.raises(ScheduleError, match=f"^{re.escape(message)}$"):
        schedule(STEP, arch)
    schedule(STEP, TEST.replace(west_buffer_bytes=64, north_buffer_bytes=64, output_buffer_bytes=256))


def test_a_product_that_fits_no_buffer_is_refused():
    # Rows that share data: a chunk of one row costs 1000 elements for each element of k.
    shape = GemmShape(64, 64, 1, 64)
    lhs, rhs = Operand("Xt", 64000, 64, 0, 1000), Operand("dY", 64, 64)
    gemm = Gemm("conv1", Stage.WEIGHT_GRAD, "", shape, lhs, rhs, 32, shape.macs, 64 * 64)
    message = (
        "buffers of test must hold one tile of layer conv1 (WU), not less; "
        "enlarge west_buffer_bytes, north_buffer_bytes or output_buffer_bytes"
    )
    with pytest.raises(ScheduleError, match=f"^{re.escape(message)}$"):
        search(gemm, TEST)


def test_a_step_beyond_the_memory_is_refused():
    needed = STEP.footprint.total_bytes
    message = f"dram_capacity_bytes of test must be at least {needed} for net at batch 1, not {needed - 1}; lower the batch"
    with pytest.raises(ScheduleError, match=f"^{re.escape(message)}$"):
        schedule(STEP, TEST.replace(dram_capacity_bytes=needed - 1))
    schedule(STEP, TEST.replace(dram_capacity_bytes=needed))


@pytest.mark.parametrize("sizes", [(64, 64, 64), (128, 8, 16), (8, 128, 256)])
def test_only_dataflows_that_are_built_are_used(sizes):
    gemm = product(*sizes)
    both, only_os, only_ws = (search(gemm, TEST.replace(dataflows=dataflows)) for dataflows in (("OS", "WS"), ("OS",), ("WS",)))
    assert only_os.mapping.dataflow == "OS"
    assert only_ws.mapping.dataflow == "WS"
    assert both.search.least_cycles == min(only_os.search.least_cycles, only_ws.search.least_cycles)


@pytest.mark.parametrize("row_lanes", [(1,), (2,)])
def test_only_interleaves_that_are_built_are_used(row_lanes):
    assert search(product(64, 64, 64), TEST.replace(row_lanes=row_lanes)).mapping.row_lanes == row_lanes[0]


def test_a_product_of_a_single_column_may_run_on_the_vector_unit():
    # A depthwise layer: one output column, so 3 of 4 columns of the array would idle.
    found = search(product(64, 1, 9), TEST.replace(vector_lanes=64, dram_bytes_per_second=1e11))
    assert found.mapping.dataflow == "VECTOR"
    assert found.cost.sore_cycles == found.cost.psum_bytes == 0


def test_equal_products_share_one_search_and_keep_their_names():
    first, second = product(16, 16, 16), Gemm(**{**vars(product(16, 16, 16)), "layer": "other"})
    found = schedule_gemms([first, second], TEST)
    assert [gemm.gemm.layer for gemm in found] == ["layer", "other"]
    assert found[0].mapping == found[1].mapping
    assert found[0].cost == found[1].cost


def test_bounds_come_from_nonzeros_and_from_bytes_moved_once():
    found = search(product(10, 9, 8, rhs=NMPattern(1, 4)), TEST)
    assert found.compute_bound_cycles == -(-10 * 9 * 2 // 16)
    weights = 9 * 2 * (16 + 2)  # two groups a column, one value with its index each
    assert found.dram_bound_cycles == -(-((10 * 8 + 90) * 16 + weights) // 8 // 16)


def test_a_product_too_large_to_be_counted_is_refused():
    shape = GemmShape(2**20, 2**20, 1, 2**12)
    gemm = Gemm("fc", Stage.FORWARD, "", shape, Operand("X", 2**12, 2**20), Operand("W", 2**12, 2**20))
    message = f"layer fc: FF must have less than 2**52 multiply-accumulates, not {2**52}; lower the batch"
    with pytest.raises(ScheduleError, match=f"^{re.escape(message)}$"):
        gemm.checked()
