"""Step -> Schedule: the best mapping for every product by the objective, found by complete enumeration."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from accel.arch import Arch
from accel.dataflow.families import new_work
from accel.dataflow.objectives import Line, Total, least_product, prices_of, rest_of
from accel.dataflow.pricing import Prices
from accel.dataflow.search import BEST_DTYPE, GEMM_DTYPE, NOT_FOUND, search_gemms
from accel.energy import PJ, EnergyTable
from accel.errors import ConfigError, ScheduleError
from accel.gemm import FP16_BITS, Gemm, Operand
from accel.schedule import OBJECTIVES, Achieved, GemmCost, Mapping, Objective, Schedule, ScheduledGemm, Search, Step
from accel.timing.gemm import DATAFLOW_NAMES, LOOP_ORDERS, Machine
from accel.units import ceil_div, ceil_log2

_WEIGHTS = {"time": (1.0, 0.0), "energy": (0.0, 1.0)}
"""Of cycles and of picojoules."""


def schedule(step: Step, arch: Arch, objective: Objective = "time", energies: EnergyTable | None = None) -> Schedule:
    """Return `step` with the best mapping of every product on `arch`, or refuse what does not fit.

    The objective is the time of the step, its energy by the figures of `energies`, or the product of both.
    """
    check_objective(objective, energies is not None)
    problems = arch.fits_one_tile()
    if problems:
        raise ScheduleError(f"{arch.name}: " + "; ".join(problems))
    capacity, needed = arch.dram_capacity_bytes, step.footprint.total_bytes
    if needed > capacity:
        raise ScheduleError(
            f"dram_capacity_bytes of {arch.name} must be at least {needed} for {step.network} at batch {step.batch}, "
            f"not {capacity}; lower the batch"
        )
    energies = None if objective == "time" else energies
    _search([], arch, prices_of(arch, energies, 1.0, 0.0))  # compiles or loads the kernels: not part of the time
    started = time.perf_counter()
    gemms, achieved = _best_mappings(step, arch, objective, energies)
    return Schedule(step, arch, tuple(gemms), time.perf_counter() - started, achieved)


def check_objective(objective: str, has_energies: bool) -> None:
    """Refuse an objective that does not exist, or that wants energies where there are none."""
    if objective not in OBJECTIVES:
        raise ConfigError(f"objective must be one of {', '.join(OBJECTIVES)}, not {objective!r}")
    if objective != "time" and not has_energies:
        raise ConfigError(f"objective must be time without a table of energies, not {objective!r}; name one as energy")


def _best_mappings(
    step: Step, arch: Arch, objective: Objective, energies: EnergyTable | None
) -> tuple[list[ScheduledGemm], Achieved]:
    """Return the products of `step` with their mappings, and what these reach of the objective."""
    rest = rest_of(step, arch, energies)

    def line(cycle_weight: float, pj_weight: float) -> Line:
        gemms = schedule_gemms(step.gemms, arch, prices_of(arch, energies, cycle_weight, pj_weight, slack=False))
        return Line(cycle_weight, pj_weight, _least(gemms, rest, cycle_weight, pj_weight), _total(gemms, rest))

    if objective == "edp":
        best, least = least_product(line)
        gemms = schedule_gemms(step.gemms, arch, prices_of(arch, energies, best.pj, best.cycles))
    else:
        gemms = schedule_gemms(step.gemms, arch, prices_of(arch, energies, *_WEIGHTS[objective]))
        least = _least(gemms, rest, *_WEIGHTS[objective])
    total = _total(gemms, rest)
    value = {"time": total.cycles, "energy": total.pj, "edp": total.product}[objective]
    unit = {"time": 1 / arch.clock_hz, "energy": PJ, "edp": PJ / arch.clock_hz}[objective]
    return gemms, Achieved(objective, value * unit, min(least, value) * unit)


def _least(gemms: list[ScheduledGemm], rest: Total, cycle_weight: float, pj_weight: float) -> float:
    """Return the least weighted sum of all schedules of the step."""
    return math.fsum(gemm.search.least_value for gemm in gemms) + cycle_weight * rest.cycles + pj_weight * rest.pj


def _total(gemms: list[ScheduledGemm], rest: Total) -> Total:
    pj = math.fsum(gemm.search.energy_pj for gemm in gemms)
    return Total(sum(gemm.cost.cycles for gemm in gemms) + rest.cycles, pj + rest.pj)


def schedule_gemms(gemms: Sequence[Gemm], arch: Arch, prices: Prices | None = None) -> list[ScheduledGemm]:
    """Return each product with its best mapping, without `prices` the fastest; equal products are searched once."""
    for gemm in gemms:
        arch.run_pattern(gemm.pattern)
    keys = [_search_fields(gemm, arch.group) for gemm in gemms]
    distinct = list(dict.fromkeys(keys))
    results = _search(distinct, arch, prices or prices_of(arch, None, 1.0, 0.0))
    found = {key: _Found(best, arch) for key, best in zip(distinct, results, strict=True)}
    return [found[key].scheduled(gemm) for gemm, key in zip(gemms, keys, strict=True)]


def _search(gemms: list[tuple[int, ...]], arch: Arch, prices: Prices) -> list[dict[str, Any]]:
    """Return the fields of `BEST_DTYPE` for each product, given as the fields of `GEMM_DTYPE`."""
    results = np.zeros(len(gemms), BEST_DTYPE).view(np.recarray)
    row_lanes = np.array(arch.row_lanes, np.int64)
    has_os, has_ws = "OS" in arch.dataflows, "WS" in arch.dataflows
    fields = np.array(gemms, GEMM_DTYPE).view(np.recarray)
    search_gemms(machine_of(arch), prices, fields, row_lanes, has_os, has_ws, new_work(len(row_lanes)), results)
    names = BEST_DTYPE.names or ()
    return [dict(zip(names, record, strict=True)) for record in results.tolist()]


def machine_of(arch: Arch) -> Machine:
    """Return the numbers of `arch` that the closed forms read."""
    return Machine(
        rows=arch.array_rows,
        cols=arch.array_cols,
        lanes=arch.adder_latency,
        multiplier_latency=arch.multiplier_latency,
        drain_lanes=arch.drain_lanes,
        group=arch.group,
        index_bits=ceil_log2(arch.group),
        west_bits=4 * arch.west_buffer_bytes,
        north_bits=4 * arch.north_buffer_bytes,
        psum_words=arch.psum_words,
        dram_bytes_per_cycle=arch.dram_bytes_per_cycle,
        dram_latency=arch.dram_latency_cycles,
        dma_setup=arch.dma_setup_cycles,
        vector_lanes=arch.vector_lanes,
        vector_latency=arch.vector_latency_cycles,
        sore_lanes=arch.sore_lanes,
    )


def _search_fields(gemm: Gemm, group: int) -> tuple[int, ...]:
    shape = gemm.shape
    sizes = (shape.m, shape.n, shape.k_taps, shape.k_inner, shape.count, shape.macs)
    own = (*sizes, gemm.macs_useful, gemm.out_bits, gemm.out_elems)
    return own + _operand_fields(gemm.lhs, group) + _operand_fields(gemm.rhs, group)


def _operand_fields(operand: Operand, group: int) -> tuple[int, ...]:
    pattern = operand.pattern
    storage = (operand.row_elems, operand.distinct, operand.halo_elems, operand.chunk_scale)
    compact_bits = 0 if pattern.is_dense or operand.prune_online else pattern.compact_bits(group, FP16_BITS)
    return (*storage, pattern.keep, pattern.group, compact_bits)


class _Found:
    """What the search found for all equal products."""

    def __init__(self, best: dict[str, Any], arch: Arch) -> None:
        self.arch, self.fits = arch, best["cycles"] < NOT_FOUND
        self.mapping = Mapping(
            dataflow=DATAFLOW_NAMES[best["dataflow"]],
            swapped=bool(best["swapped"]),
            loop_order=LOOP_ORDERS[best["order"]],
            **{name: best[name] for name in ("row_lanes", "run_keep", "run_group", "tile_m", "tile_n", "tile_groups")},
        )
        self.cost = GemmCost(**{name: best[name] for name in GemmCost.__dataclass_fields__})
        self.search = Search(best["covered"], best["evaluated"], best["least_value"], best["energy_pj"])
        self.dram_bound_cycles = math.ceil(best["compulsory_bytes"] / arch.dram_bytes_per_cycle)

    def scheduled(self, gemm: Gemm) -> ScheduledGemm:
        if not self.fits:
            raise ScheduleError(
                f"buffers of {self.arch.name} must hold one tile of layer {gemm.layer} ({gemm.stage}), not less; "
                "enlarge west_buffer_bytes, north_buffer_bytes or output_buffer_bytes"
            )
        compute_bound_cycles = ceil_div(gemm.macs_useful, self.arch.pes)
        return ScheduledGemm(gemm, self.mapping, self.cost, self.search, compute_bound_cycles, self.dram_bound_cycles)
