from collections import Counter

import numpy as np
import pytest
from naive_traffic import walk_array

from accel.api import resolve_trace
from accel.arch import Arch
from accel.dataflow.context import Options
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import schedule, schedule_gemms
from accel.gemm import Gemm, GemmShape, Operand, Stage
from accel.golden.array import _OsArray
from accel.golden.feed import ArrayForm, RunShape, feed_os, feed_ws
from accel.golden.prune import prune
from accel.golden.traffic import StoredOperand, TiledProduct, walk
from accel.methods import METHODS, OPTIMIZERS
from accel.presets import preset
from accel.schedule import Mapping, ScheduledGemm
from accel.sim.traffic import ArrayProduct, array_traffic, buffer_bytes, pruned_groups, register_bytes, traffic_of
from accel.sparsity import DENSE, NMPattern

TEST = preset("test")


def random_case(rng):
    """Return an array and a product on it: ragged tiles in m, n and k more often than not."""
    lanes = int(rng.choice([1, 2, 4]))
    row_lanes = int(rng.choice([lane for lane in (1, 2, 4) if lanes % lane == 0]))
    rows, cols = (int(size) for size in rng.integers(1, 6, 2))
    drain_lanes = int(rng.integers(1, rows + 1))
    arch = TEST.replace(array_rows=rows, array_cols=cols, adder_latency=lanes, row_lanes=(row_lanes,), drain_lanes=drain_lanes)
    sizes = (int(size) for size in rng.integers(1, [30, 30, 8, 4]))
    dim_m, dim_n, groups, keep = sizes
    return arch, row_lanes, ArrayProduct(dim_m, dim_n, groups, keep, 4, int(rng.integers(1, 3)))


def form_of(arch: Arch, row_lanes: int) -> ArrayForm:
    return ArrayForm(arch.array_rows, arch.array_cols, arch.adder_latency, row_lanes, arch.multiplier_latency, arch.drain_lanes)


@pytest.mark.parametrize("dataflow", ["OS", "WS"])
def test_traffic_of_the_array_equals_a_walk_over_every_word(dataflow):
    rng = np.random.default_rng(0)
    for index in range(200):
        arch, row_lanes, product = random_case(rng)
        m_chunk = int(rng.integers(1, product.dim_m + 1))
        shape = RunShape(product.repeats, product.dim_m, product.dim_n, product.groups, product.keep, product.group)
        found = array_traffic(product, dataflow, row_lanes, m_chunk, arch)
        assert found == walk_array(form_of(arch, row_lanes), shape, dataflow, m_chunk), f"case {index}: {product} {arch}"


def stepped(rng, arch, row_lanes, product, dataflow):
    """Return a feed of random data without padding in its groups, none of it NaN."""
    pattern = NMPattern(product.keep, product.group)
    lhs = rng.standard_normal((product.repeats, product.dim_m, product.groups * product.group)).astype(np.float16)
    rhs = rng.standard_normal((product.repeats, product.groups * product.group, product.dim_n)).astype(np.float16)
    operands = [prune(matrix, pattern) for matrix in rhs]
    form = form_of(arch, row_lanes)
    return feed_os(form, lhs, operands) if dataflow == "OS" else feed_ws(form, lhs, operands, form.tile_rows)


@pytest.mark.parametrize("dataflow", ["OS", "WS"])
def test_reads_of_the_buffers_are_the_words_at_the_edges_of_the_golden_array(dataflow):
    rng = np.random.default_rng(1)
    for index in range(40):
        arch, row_lanes, product = random_case(rng)
        feed = stepped(rng, arch, row_lanes, product, dataflow)
        found = array_traffic(product, dataflow, row_lanes, feed.form.tile_rows, arch)
        words = int((~np.isnan(feed.words)).all(axis=2).sum())
        entries = int(((feed.entries["tile"] >= 0) & feed.entries["valid"]).sum())
        assert (found.west_words, found.north_entries) == (words, entries), f"case {index}: {product} {arch}"


def test_writes_of_drain_chains_are_those_of_the_golden_array():
    rng = np.random.default_rng(2)
    for index in range(15):
        arch, row_lanes, product = random_case(rng)
        feed = stepped(rng, arch, row_lanes, product, "OS")
        array, seen = _OsArray(feed.form, feed.shape), Counter()
        for cycle in range(len(feed.words) + 200):
            if cycle < len(feed.words):
                array.cycle(feed.words[cycle], feed.control[cycle], feed.entries[cycle])
            else:
                quiet = feed.quiet(feed.form, feed.shape, [], 1)
                array.cycle(quiet.words[0], quiet.control[0], quiet.entries[0])
            for chains in array.row_chains:
                passing = np.delete(chains.passing[0], chains.own, axis=0)
                for tags in (*(tags for tags, _ in chains.queue), *passing):
                    seen.update((int(tag), col) for col, tag in enumerate(tags) if tag >= 0)
        assert not array.is_busy()
        words = arch.array_rows * arch.adder_latency
        in_use = sum(times for (tag, col), times in seen.items() if col < feed.tiles[tag // words].cols)
        assert in_use == array_traffic(product, "OS", row_lanes, 1, arch).sum_writes, f"case {index}: {product} {arch}"


def scheduled_with(mapping, pattern=DENSE, online=False):
    """Return a product of 8x6 by 6x10 on the test machine, forced into a mapping."""
    shape = GemmShape(8, 10, 1, 6)
    rhs = Operand("W", 6, 10, pattern=pattern, prune_online=online)
    gemm = Gemm("fc", Stage.FORWARD, "", shape, Operand("X", 6, 8), rhs, 16, shape.macs, 8 * 12)
    (found,) = schedule_gemms([gemm], TEST)
    return ScheduledGemm(gemm, mapping, found.cost, found.search, 1, 1)


def test_bytes_of_a_product_by_hand():
    """4x4 PEs, two lanes along rows, dense element by element: 6 groups of one; 8x4 outputs a tile, 1 tile of m, 3 of n."""
    mapping = Mapping("OS", False, 2, 1, 1, 8, 10, 6, "mnk")
    scheduled = scheduled_with(mapping)
    west_words, north_entries = 8 * 6 * 3, 10 * 6
    fed_bytes = 2 * west_words + 2 * north_entries + 2 * 8 * 12  # values of 2 bytes; results in whole words
    assert (
        buffer_bytes(scheduled, traffic_of(scheduled, TEST))
        == scheduled.cost.dram_bytes + scheduled.cost.psum_bytes + fed_bytes
    )
    # Row r of 4 has 4 - r registers straight down and 2 in each of the 4 - r rows of the chain; 2 lanes, 10 columns.
    sums = 10 * 2 * sum(3 * (4 - row) for row in range(4))
    bits = 2 * 4 * 16 * west_words + (4 + 4) * 17 * north_entries + 32 * sums
    assert register_bytes(scheduled, traffic_of(scheduled, TEST)) == bits // 8


def test_compact_entries_carry_their_index():
    pattern = NMPattern(1, 2)  # as 2:4 on the machine: two groups of 4 along k of 6
    scheduled = scheduled_with(Mapping("WS", False, 1, 2, 4, 8, 10, 2, "mnk"), pattern)
    west_words, north_entries = 8 * 2 * 2, 10 * 2 * 2  # 8 columns a tile: two of them; one chunk of m
    fed_bits = west_words * 64 + north_entries * (16 + 1) + 8 * 12 * 16
    assert (
        buffer_bytes(scheduled, traffic_of(scheduled, TEST))
        == scheduled.cost.dram_bytes + scheduled.cost.psum_bytes + fed_bits // 8
    )
    bits = 2 * 4 * 64 * west_words + (4 + 1) * (16 + 2 + 1) * north_entries + 32 * 8 * 10
    assert register_bytes(scheduled, traffic_of(scheduled, TEST)) == bits // 8


def test_a_product_on_the_vector_unit_writes_and_reads_what_crosses_the_dram_port():
    scheduled = scheduled_with(Mapping("VECTOR", False, 1, 1, 1, 8, 10, 6, "mnk"))
    assert buffer_bytes(scheduled, traffic_of(scheduled, TEST)) == 2 * scheduled.cost.dram_bytes
    assert register_bytes(scheduled, traffic_of(scheduled, TEST)) == pruned_groups(scheduled) == 0


@pytest.mark.parametrize("order", ["mnk", "mkn", "nmk", "nkm", "kmn", "knm"])
@pytest.mark.parametrize("tiles", [(8, 10, 2), (3, 10, 2), (3, 4, 2), (3, 4, 1), (8, 4, 1), (3, 10, 1)])
def test_groups_pruned_on_line_equal_a_walk_over_the_loop_nest(order, tiles):
    scheduled = scheduled_with(Mapping("WS", False, 1, 2, 4, *tiles, order), NMPattern(1, 2), online=True)
    west, north = StoredOperand(8, 8, 1, 0, 1), StoredOperand(10, 10, 1, 0, 1)
    traffic = walk(TiledProduct(west, north, 2, 1, 96, 16, *tiles, order))
    assert pruned_groups(scheduled) == traffic.north_groups


@pytest.mark.parametrize("method", ["dense", "sdgp", "fully-sparse"])
def test_products_of_networks_prune_in_the_time_their_schedule_says(method):
    arch = preset("edge-kv260")
    options = Options(2, METHODS[method], NMPattern(2, 8), OPTIMIZERS["sgd"], arch.group, pregenerate=False)
    planned = schedule(lower(resolve_trace("resnet18"), options), arch)
    for scheduled in planned.gemms:
        groups = pruned_groups(scheduled)
        assert scheduled.cost.sore_cycles == (-(-groups // arch.sore_lanes) + 4 if groups else 0), scheduled.gemm
        if scheduled.mapping.dataflow != "VECTOR":
            assert buffer_bytes(scheduled, traffic_of(scheduled, arch)) > scheduled.cost.dram_bytes
            assert register_bytes(scheduled, traffic_of(scheduled, arch)) > 0
