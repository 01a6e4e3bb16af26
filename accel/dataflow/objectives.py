"""What a schedule is searched for: the prices of an objective, what no mapping changes, and the least product of two sums.

docs/scheduling.md, section "Objectives", proves what `least_product` finds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise
from typing import NamedTuple

from accel.arch import Arch
from accel.dataflow.pricing import Prices
from accel.dataflow.search import SLACK
from accel.energy import PJ, EnergyTable
from accel.schedule import Step, UpdateWork, VectorWork
from accel.timing.engines import dma_cycles, sore_cycles, vector_cycles, wuve_cycles

TOLERANCE = 2.0**-20
"""How far the least product may lie above its lower bound, relative to it."""


def prices_of(arch: Arch, energies: EnergyTable | None, cycle_weight: float, pj_weight: float, slack: bool = True) -> Prices:
    """Return what the search minimises: cycles and picojoules with these weights; without `slack` the very least."""
    slack_frac = 1 / SLACK if slack else 0.0
    if energies is None:
        return Prices(float(cycle_weight), float(pj_weight), slack_frac)
    pj = {name: figure.value for name, figure in energies.figures.items()}
    return Prices(
        float(cycle_weight),  # an int would make the kernels compile again
        float(pj_weight),
        slack_frac,
        cycle_pj=arch.pes * pj["clock_pj_per_pe_cycle"] + pj["static_watts"] / PJ / arch.clock_hz,
        port_byte_pj=pj["dram_pj_per_byte"] + pj["buffer_pj_per_byte"],
        buffer_byte_pj=pj["buffer_pj_per_byte"],
        register_byte_pj=pj["register_pj_per_byte"],
        pruned_group_pj=arch.group * (arch.group - 1) // 2 * pj["sore_compare_pj"],
        mac_pj=pj["fp16_multiply_pj"] + pj["fp32_add_pj"],
        lane_op_pj=pj["vector_lane_op_pj"],
    )


class Total(NamedTuple):
    """Cycles and picojoules of a step or of a part of it."""

    cycles: float
    pj: float

    @property
    def product(self) -> float:
        """Energy times delay."""
        return self.cycles * self.pj


def rest_of(step: Step, arch: Arch, energies: EnergyTable | None) -> Total:
    """Return what no mapping changes: vector operators and updates. Operators beside products take energy, but no time."""
    cycles = sum(_vector_cycles(work, arch) for segment in step.segments if not segment.gemms for work in segment.vectors)
    cycles += sum(_update_cycles(update, arch) for update in step.updates if update.elems)
    if energies is None:
        return Total(cycles, 0.0)
    prices, pj = prices_of(arch, energies, 0, 1), {name: figure.value for name, figure in energies.figures.items()}
    vectors, updates = [work for segment in step.segments for work in segment.vectors], step.updates
    moved_bytes = sum(work.dram_bytes for work in vectors) + sum(update.dram_bytes for update in updates)
    energy = cycles * prices.cycle_pj + moved_bytes * pj["dram_pj_per_byte"]
    energy += sum(work.lane_ops for work in vectors) * prices.lane_op_pj
    energy += sum(update.elems * update.passes for update in updates) * pj["wuve_pass_pj"]
    energy += sum(update.sore_groups for update in updates) * prices.pruned_group_pj
    return Total(cycles, energy)


def _vector_cycles(work: VectorWork, arch: Arch) -> int:
    lanes = vector_cycles(work.lane_ops, arch.vector_lanes, arch.vector_latency_cycles)
    if not work.dram_bytes:
        return lanes
    return max(lanes, _dma_cycles(work, arch)) + arch.dram_latency_cycles


def _update_cycles(update: UpdateWork, arch: Arch) -> int:
    wuve = wuve_cycles(update.elems, update.passes, arch.wuve_lanes)
    sore = sore_cycles(update.sore_groups, arch.sore_lanes)
    return max(wuve, sore, _dma_cycles(update, arch)) + arch.dram_latency_cycles


def _dma_cycles(work: VectorWork | UpdateWork, arch: Arch) -> int:
    return dma_cycles(work.dram_bytes, 2, arch.dram_bytes_per_cycle, arch.dma_setup_cycles)


class Line(NamedTuple):
    """What one search says of all schedules: `cycle_weight * cycles + pj_weight * pj` is at least `least`, that of `total`."""

    cycle_weight: float
    pj_weight: float
    least: float
    total: Total


def least_product(search: Callable[[float, float], Line]) -> tuple[Total, float]:
    """Return the schedule's total with the least energy-delay product, and a lower bound of that of all schedules.

    `search` takes the weights of cycles and picojoules and returns the least weighted sum. Between two lines all schedules lie
    beyond the corner where they cross, so no product is less than those of the corners; the least corner is cut off by another
    line until no corner is below the best schedule found.
    """
    lines = [search(1.0, 0.0), search(0.0, 1.0)]
    while True:
        best = min((line.total for line in lines), key=lambda total: total.product)
        bound, index = min(_corners(lines))
        if best.product <= bound * (1 + TOLERANCE):
            return best, min(bound, best.product)
        left, right = lines[index].total, lines[index + 1].total
        lines.insert(index + 1, search(left.pj - right.pj, right.cycles - left.cycles))


def _corners(lines: list[Line]) -> Iterator[tuple[float, int]]:
    """Yield the product at the corner of every two neighbours, and where they stand. No corner lies outside their totals."""
    for index, (left, right) in enumerate(pairwise(lines)):
        crossing = left.cycle_weight * right.pj_weight - right.cycle_weight * left.pj_weight
        if crossing <= 0 or left.total == right.total:
            yield min(left.total.product, right.total.product), index
            continue
        cycles = (left.least * right.pj_weight - right.least * left.pj_weight) / crossing
        pj = (left.cycle_weight * right.least - right.cycle_weight * left.least) / crossing
        cycles = min(max(cycles, left.total.cycles), right.total.cycles)
        yield cycles * min(max(pj, right.total.pj), left.total.pj), index
