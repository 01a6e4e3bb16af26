"""Every mapping of a product, evaluated one by one: no bound, no dominance, nothing left out."""

import math
from functools import cache
from itertools import product as nest

from accel.dataflow.scheduling import machine_of
from accel.energy import Events, StepEnergy
from accel.schedule import Mapping, ScheduledGemm, Search
from accel.sim.traffic import buffer_bytes, pruned_groups, register_bytes, traffic_of
from accel.timing.gemm import (
    LOOP_ORDERS,
    OS,
    VECTOR,
    WS,
    Product,
    Side,
    Tiling,
    array_cycles,
    fits,
    gemm_cost,
    tile_bits,
    vector_unit_cost,
)

DATAFLOWS = {"OS": OS, "WS": WS}
NO_SEARCH = Search(0, 0, 0.0)


def ceil_div(value, divisor):
    return -(-value // divisor)


def every_mapping(gemm, arch):
    """Yield (mapping, cost) of everything that fits; a mapping is a dict like the fields of `accel.schedule.Mapping`."""
    machine = machine_of(arch)
    sparse = not gemm.pattern.is_dense
    for swapped in (False, True):
        if sparse and (gemm.lhs if swapped else gemm.rhs).pattern.is_dense:
            continue  # the operand with indices goes north
        for run_group in {arch.group} if sparse else {1, arch.group}:
            product = product_of(gemm, swapped, run_group)
            for tiling, cost in every_tiling(machine, product, arch):
                yield described(tiling, swapped, run_group, product), cost
    product = product_of(gemm, False, 1)
    if not sparse and tile_bits(product.north, gemm.shape.n, product.groups, product.groups) <= machine.north_bits:
        tiling = Tiling(VECTOR, 1, gemm.shape.m, gemm.shape.n, product.groups, 0)
        yield described(tiling, False, 1, product), vector_unit_cost(machine, product)


def joules_of(gemm, arch, table, mapping, cost):
    """Return the energy of a product that runs alone under one of `every_mapping`, by the counts of the report."""
    scheduled = ScheduledGemm(gemm, Mapping(**mapping), cost, NO_SEARCH, 0, 0)
    moved, on_array = traffic_of(scheduled, arch), mapping["dataflow"] != "VECTOR"
    events = Events(
        macs=gemm.macs_useful if on_array else 0,
        register_bytes=register_bytes(scheduled, moved),
        buffer_bytes=buffer_bytes(scheduled, moved),
        dram_bytes=cost.dram_bytes,
        lane_ops=0 if on_array else gemm.macs_dense,
        sore_compares=pruned_groups(scheduled) * arch.group * (arch.group - 1) // 2,
        pe_cycles=arch.pes * cost.cycles,
        cycles=cost.cycles,
    )
    return StepEnergy(table, arch.clock_hz, (events,)).joules


def described(tiling, swapped, run_group, product):
    return {
        "dataflow": ("OS", "WS", "VECTOR")[tiling.dataflow],
        "swapped": swapped,
        "row_lanes": tiling.row_lanes,
        "run_keep": product.keep,
        "run_group": run_group,
        "tile_m": tiling.tile_m,
        "tile_n": tiling.tile_n,
        "tile_groups": tiling.tile_groups,
        "loop_order": LOOP_ORDERS[tiling.order],
    }


def every_tiling(machine, product, arch):
    """Yield (tiling, cost) of one product as it enters the array."""

    @cache
    def array(dataflow, row_lanes, tile_m):
        return array_cycles(machine, product, Tiling(dataflow, row_lanes, tile_m, 1, 1, 0))

    for name, row_lanes in nest(arch.dataflows, arch.row_lanes):
        dataflow = DATAFLOWS[name]
        unit_m, unit_n = arch.array_rows * row_lanes, arch.array_cols * (arch.adder_latency // row_lanes)
        unit_groups = arch.array_rows if dataflow == WS else 1
        tiles = (
            multiples(product.west.size, unit_m),
            multiples(product.north.size, unit_n),
            multiples(product.groups, unit_groups),
        )
        for (tile_m, tile_n, tile_groups), order in nest(nest(*tiles), range(len(LOOP_ORDERS))):
            tiling = Tiling(dataflow, row_lanes, tile_m, tile_n, tile_groups, order)
            # OS sums stay in the array: one array tile at a time, with the loop over k innermost, if k is cut at all.
            cut = tile_groups < product.groups
            one_tile = tile_m <= unit_m and tile_n <= unit_n
            if dataflow == OS and cut and not (one_tile and LOOP_ORDERS[order][2] == "k"):
                continue
            if fits(machine, product, tiling):
                yield tiling, gemm_cost(machine, product, tiling, array(dataflow, row_lanes, tile_m))


def multiples(size, unit):
    """Return the multiples of `unit` up to the first that covers `size`, which is `size` itself."""
    return [min(count * unit, size) for count in range(1, ceil_div(size, unit) + 1)]


def product_of(gemm, swapped, run_group):
    """Return the product with its operands as they enter the array in groups of `run_group`."""
    shape = gemm.shape
    groups = shape.k_taps * ceil_div(shape.k_inner, run_group)
    lhs, rhs = (side_of(operand, size, run_group, groups) for operand, size in ((gemm.lhs, shape.m), (gemm.rhs, shape.n)))
    west, north = (rhs, lhs) if swapped else (lhs, rhs)
    pattern = (gemm.lhs if swapped else gemm.rhs).pattern
    keep = run_group if pattern.is_dense else run_group // pattern.group * pattern.keep
    return Product(west, north, shape.count, groups, keep, gemm.out_bits, gemm.out_elems, shape.macs)


def side_of(operand, size, run_group, groups):
    pattern = operand.pattern
    if not pattern.is_dense and not operand.prune_online:
        entries = run_group // pattern.group * pattern.keep
        group_bits = entries * (16 + pattern.index_bits)
        return Side(size, operand.distinct, groups * group_bits, 0, group_bits, False)
    row_bits, halo_bits = 16 * operand.row_elems, 16 * operand.halo_elems
    group_bits = max(16 * run_group * operand.chunk_scale, math.ceil(row_bits / groups))
    return Side(size, operand.distinct, row_bits, halo_bits, group_bits, not pattern.is_dense)
