from fractions import Fraction

import numpy as np
import pytest

from accel.golden.engines import step_dma, step_sore
from accel.golden.traffic import StoredOperand, TiledProduct, walk
from accel.timing.gemm import (
    LOOP_ORDERS,
    OS,
    WS,
    Machine,
    Product,
    Side,
    Tiling,
    array_cycles,
    end_cycles,
    fits,
    gemm_cost,
    pass_bits,
    tile_bits,
    vector_unit_cost,
)

CASES = 600


def random_machine(rng):
    lanes = int(rng.choice([1, 2, 4]))
    return Machine(
        rows=int(rng.integers(1, 5)),
        cols=int(rng.integers(1, 5)),
        lanes=lanes,
        multiplier_latency=int(rng.integers(1, 4)),
        drain_lanes=1,
        group=8,
        index_bits=3,
        west_bits=int(rng.integers(16, 4000)),
        north_bits=int(rng.integers(16, 4000)),
        psum_words=1 << int(rng.integers(0, 8)),
        dram_bytes_per_cycle=float(rng.integers(1, 400)) / 8,
        dram_latency=int(rng.integers(0, 30)),
        dma_setup=int(rng.integers(0, 6)),
        vector_lanes=int(rng.integers(1, 9)),
        vector_latency=int(rng.integers(0, 6)),
        sore_lanes=int(rng.integers(1, 5)),
    )


def random_side(rng):
    size = int(rng.integers(1, 13))
    return Side(
        size=size,
        distinct=int(rng.integers(1, size + 1)) if rng.random() < 0.4 else size,
        row_bits=int(rng.integers(1, 200)),
        halo_bits=int(rng.integers(1, 300)) if rng.random() < 0.4 else 0,
        group_bits=int(rng.integers(1, 100)),
        online=bool(rng.random() < 0.4),
    )


def random_case(rng):
    """Return a machine, a product and a tiling: sizes of tiles from 1 to all, so that last tiles are often ragged."""
    west, north, groups, count = random_side(rng), random_side(rng), int(rng.integers(1, 8)), int(rng.choice([1, 1, 2, 3]))
    out_elems = count * west.size * (north.size + int(rng.integers(0, 3)))
    macs = count * west.size * north.size * groups
    product = Product(west, north, count, groups, int(rng.integers(1, 4)), int(rng.choice([16, 32])), out_elems, macs)
    machine = random_machine(rng)
    tiling = Tiling(
        dataflow=int(rng.choice([OS, WS])),
        row_lanes=int(rng.choice([lane for lane in (1, 2, 4) if machine.lanes % lane == 0])),
        tile_m=int(rng.integers(1, west.size + 1)),
        tile_n=int(rng.integers(1, north.size + 1)),
        tile_groups=int(rng.integers(1, groups + 1)),
        order=int(rng.integers(0, 6)),
    )
    return machine, product, tiling


def golden(product, tiling):
    west, north = (StoredOperand(*side[:5]) for side in (product.west, product.north))
    sizes = (tiling.tile_m, tiling.tile_n, tiling.tile_groups, LOOP_ORDERS[tiling.order])
    return walk(TiledProduct(west, north, product.groups, product.repeats, product.out_elems, product.out_bits, *sizes))


@pytest.mark.parametrize("seed", range(4))
def test_traffic_equals_a_walk_over_the_tiles(seed):
    rng = np.random.default_rng(seed)
    for index in range(CASES):
        machine, product, tiling = random_case(rng)
        label = f"seed {seed}, case {index}: {machine} {product} {tiling}"
        cost = gemm_cost(machine, product, tiling, array_cycles(machine, product, tiling))
        traffic = golden(product, tiling)
        assert cost.dram_bytes == traffic.dram_bytes, label
        bandwidth = Fraction(machine.dram_bytes_per_cycle)
        assert cost.dma_cycles == step_dma(traffic.dram_bytes, traffic.transfers, bandwidth, machine.dma_setup), label
        pruned = traffic.north_groups if product.north.online else 0
        assert cost.sore_cycles == step_sore(pruned, machine.sore_lanes), label


def test_a_pass_is_the_sum_of_its_tiles():
    rng = np.random.default_rng(0)
    for index in range(500):
        side, groups = random_side(rng), int(rng.integers(1, 6))
        tile, tile_groups = int(rng.integers(1, side.size + 1)), int(rng.integers(1, groups + 1))
        total = 0
        for start in range(0, side.size, tile):
            for first in range(0, groups, tile_groups):
                held = min(tile, side.size - start)
                total += tile_bits(side, held, min(tile_groups, groups - first) if tile_groups < groups else groups, groups)
        assert pass_bits(side, tile, tile_groups, groups) == total, f"case {index}: {side} {tile} {tile_groups} {groups}"


@pytest.mark.parametrize("seed", range(4))
def test_cycles_cover_array_dma_and_sore_with_ends_outside(seed):
    rng = np.random.default_rng(seed)
    for index in range(CASES):
        machine, product, tiling = random_case(rng)
        label = f"seed {seed}, case {index}: {machine} {product} {tiling}"
        array = array_cycles(machine, product, tiling)
        cost = gemm_cost(machine, product, tiling, array)
        fill, tail = end_cycles(machine, product, tiling)
        assert cost.fill_cycles == machine.dram_latency + fill + tail, label
        assert cost.cycles >= machine.dram_latency + cost.dma_cycles, label
        assert cost.cycles >= cost.fill_cycles + max(cost.array_cycles, cost.sore_cycles), label
        assert cost.cycles in {
            machine.dram_latency + cost.dma_cycles,
            cost.fill_cycles + cost.array_cycles,
            cost.fill_cycles + cost.sore_cycles,
        }, label
        assert cost.compute_cycles <= cost.slot_cycles, label
        assert (cost.compute_cycles, cost.slot_cycles, cost.array_cycles) == array, label


def test_partial_sums_of_ws_go_round_once_for_each_further_tile_of_k():
    machine, product, tiling = random_case(np.random.default_rng(3))
    machine = machine._replace(rows=2)
    product = product._replace(groups=7, repeats=3)
    for dataflow, tiles_of_k in ((OS, 1), (WS, 4)):
        choice = tiling._replace(dataflow=dataflow, tile_groups=7)
        cost = gemm_cost(machine, product, choice, array_cycles(machine, product, choice))
        assert cost.psum_bytes == 2 * 4 * 3 * product.west.size * product.north.size * (tiles_of_k - 1)


def test_tiles_fit_half_a_buffer_to_the_bit():
    side = Side(size=8, distinct=8, row_bits=10, halo_bits=6, group_bits=3, online=False)
    product = Product(side, side, 1, 4, 1, 16, 64, 256)
    machine = random_machine(np.random.default_rng(0))._replace(
        rows=2, cols=2, lanes=2, west_bits=46, north_bits=36, psum_words=1
    )
    tiling = Tiling(OS, 1, 4, 3, 4, 0)
    assert fits(machine, product, tiling)
    assert not fits(machine._replace(west_bits=45), product, tiling)
    assert not fits(machine._replace(north_bits=35), product, tiling)
    chunked = tiling._replace(tile_groups=3)
    assert fits(machine._replace(west_bits=4 * 3 * 3, north_bits=3 * 3 * 3), product, chunked)
    assert not fits(machine._replace(west_bits=4 * 3 * 3 - 1), product, chunked)


def test_partial_sums_of_ws_fit_the_psum_buffer_of_a_column():
    side = Side(size=8, distinct=8, row_bits=1, halo_bits=0, group_bits=1, online=False)
    product = Product(side, side, 1, 4, 1, 16, 64, 256)
    machine = random_machine(np.random.default_rng(0))._replace(
        rows=2, cols=2, lanes=2, west_bits=999, north_bits=999, psum_words=4 * 2
    )
    whole = Tiling(WS, 1, 4, 8, 4, 0)  # one array tile of 4 columns at a time, two lanes in each of 2 PEs
    assert fits(machine, product, whole)
    assert not fits(machine._replace(psum_words=4 * 2 - 1), product, whole)
    assert not fits(machine, product, whole._replace(tile_m=5))
    assert fits(machine, product, whole._replace(tile_m=5, row_lanes=2))  # three elements of two rows
    cut = whole._replace(tile_groups=2)  # all 8 columns wait for the next chunk of k
    assert not fits(machine, product, cut)
    assert fits(machine._replace(psum_words=4 * 2 * 2), product, cut)
    narrow = product._replace(north=side._replace(size=1))  # lanes beyond the matrix are kept, too
    assert not fits(machine._replace(psum_words=4 * 2 - 1), narrow, whole._replace(tile_n=1))


def test_the_vector_unit_reads_every_operand_once():
    rng = np.random.default_rng(1)
    for index in range(200):
        machine, product, _ = random_case(rng)
        cost = vector_unit_cost(machine, product)
        whole = Tiling(OS, 1, product.west.size, product.north.size, product.groups, 0)
        assert cost.dram_bytes == golden(product, whole).dram_bytes, f"case {index}: {machine} {product}"
        lanes = -(-product.macs // machine.vector_lanes) + machine.vector_latency
        assert cost.cycles == machine.dram_latency + max(lanes, cost.dma_cycles)


def test_entries_pruned_on_line_fit_half_the_north_buffer():
    """Columns that share elements, as those of a convolution do, share no entries."""
    side = Side(size=8, distinct=8, row_bits=1, halo_bits=0, group_bits=1, online=False)
    product = Product(side, side._replace(online=True), 1, 4, 2, 16, 64, 256)
    bits = 8 * 4 * 2 * (16 + 3)
    machine = random_machine(np.random.default_rng(0))._replace(west_bits=999, north_bits=bits)
    tiling = Tiling(OS, 1, 8, 8, 4, 0)
    assert fits(machine, product, tiling)
    assert not fits(machine._replace(north_bits=bits - 1), product, tiling)
    assert fits(machine._replace(north_bits=bits - 1), product._replace(north=side), tiling)
