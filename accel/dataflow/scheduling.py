"""Step -> Schedule: the mapping with the least time for every product, found by complete enumeration."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

import numpy as np

from accel.arch import Arch
from accel.dataflow.search import BEST_DTYPE, GEMM_DTYPE, NOT_FOUND, search_gemms
from accel.errors import ScheduleError
from accel.gemm import FP16_BITS, Gemm, Operand
from accel.schedule import GemmCost, Mapping, Schedule, ScheduledGemm, Search, Step
from accel.timing.gemm import DATAFLOW_NAMES, LOOP_ORDERS, Machine
from accel.units import ceil_div


def schedule(step: Step, arch: Arch) -> Schedule:
    """Return `step` with the fastest mapping of every product on `arch`, or refuse what does not fit."""
    problems = arch.fits_one_tile()
    if problems:
        raise ScheduleError(f"{arch.name}: " + "; ".join(problems))
    capacity, needed = arch.dram_capacity_bytes, step.footprint.total_bytes
    if needed > capacity:
        raise ScheduleError(
            f"dram_capacity_bytes of {arch.name} must be at least {needed} for {step.network} at batch {step.batch}, "
            f"not {capacity}; lower the batch"
        )
    _search([], arch)  # compiles or loads the kernels: not part of the time
    started = time.perf_counter()
    gemms = schedule_gemms(step.gemms, arch)
    return Schedule(step, arch, tuple(gemms), time.perf_counter() - started)


def schedule_gemms(gemms: Sequence[Gemm], arch: Arch) -> list[ScheduledGemm]:
    """Return each product with its fastest mapping; equal products are searched once."""
    for gemm in gemms:
        arch.run_pattern(gemm.pattern)
    keys = [_search_fields(gemm, arch.group) for gemm in gemms]
    distinct = list(dict.fromkeys(keys))
    found = {key: _Found(best, arch) for key, best in zip(distinct, _search(distinct, arch), strict=True)}
    return [found[key].scheduled(gemm) for gemm, key in zip(gemms, keys, strict=True)]


def _search(gemms: list[tuple[int, ...]], arch: Arch) -> list[dict[str, int]]:
    """Return the fields of `BEST_DTYPE` for each product, given as the fields of `GEMM_DTYPE`."""
    results = np.zeros(len(gemms), BEST_DTYPE).view(np.recarray)
    row_lanes = np.array(arch.row_lanes, np.int64)
    has_os, has_ws = "OS" in arch.dataflows, "WS" in arch.dataflows
    search_gemms(machine_of(arch), np.array(gemms, GEMM_DTYPE).view(np.recarray), row_lanes, has_os, has_ws, results)
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
        west_bits=4 * arch.west_buffer_bytes,
        north_bits=4 * arch.north_buffer_bytes,
        output_bits=4 * arch.output_buffer_bytes,
        dram_bytes_per_cycle=arch.dram_bytes_per_cycle,
        dram_latency=arch.dram_latency_cycles,
        dma_setup=arch.dma_setup_cycles,
        vector_lanes=arch.vector_lanes,
        vector_latency=arch.vector_latency_cycles,
        sore_lanes=arch.sore_lanes,
    )


def _search_fields(gemm: Gemm, group: int) -> tuple[int, ...]:
    shape = gemm.shape
    own = (shape.m, shape.n, shape.k_taps, shape.k_inner, shape.count, shape.macs, gemm.out_bits, gemm.out_elems)
    return own + _operand_fields(gemm.lhs, group) + _operand_fields(gemm.rhs, group)


def _operand_fields(operand: Operand, group: int) -> tuple[int, ...]:
    pattern = operand.pattern
    storage = (operand.row_elems, operand.distinct, operand.halo_elems, operand.chunk_scale)
    compact_bits = 0 if pattern.is_dense or operand.prune_online else pattern.compact_bits(group, FP16_BITS)
    return (*storage, pattern.keep, pattern.group, compact_bits)


class _Found:
    """What the search found for all equal products."""

    def __init__(self, best: dict[str, int], arch: Arch) -> None:
        self.arch, self.fits = arch, best["cycles"] < NOT_FOUND
        self.mapping = Mapping(
            dataflow=DATAFLOW_NAMES[best["dataflow"]],
            swapped=bool(best["swapped"]),
            loop_order=LOOP_ORDERS[best["order"]],
            **{name: best[name] for name in ("row_lanes", "run_keep", "run_group", "tile_m", "tile_n", "tile_groups")},
        )
        self.cost = GemmCost(**{name: best[name] for name in GemmCost.__dataclass_fields__})
        self.search = Search(best["covered"], best["evaluated"], best["least_cycles"])
        self.dram_bound_cycles = math.ceil(best["compulsory_bytes"] / arch.dram_bytes_per_cycle)

    def scheduled(self, gemm: Gemm) -> ScheduledGemm:
        if not self.fits:
            raise ScheduleError(
                f"buffers of {self.arch.name} must hold one tile of layer {gemm.layer} ({gemm.stage}), not less; "
                "enlarge west_buffer_bytes, north_buffer_bytes or output_buffer_bytes"
            )
        compute_bound_cycles = ceil_div(gemm.macs_useful, self.arch.pes)
        return ScheduledGemm(gemm, self.mapping, self.cost, self.search, compute_bound_cycles, self.dram_bound_cycles)
