"""The time of a whole step from its schedule: what runs beside what, and what then bounds it (docs/timing.md, section 3)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from accel.arch import Arch
from accel.gemm import Stage
from accel.report import Row
from accel.schedule import GemmCost, Schedule, ScheduledGemm, UpdateWork, VectorWork
from accel.timing.engines import dma_cycles, sore_cycles, vector_cycles, wuve_cycles
from accel.units import ceil_div


def simulate_step(schedule: Schedule) -> tuple[Row, ...]:
    """Return every product, operator and update of the step with its cycles."""
    arch = schedule.arch
    rows: list[Row] = []
    gemms = iter(schedule.gemms)
    for segment in schedule.step.segments:
        tasks = [_gemm_task(next(gemms), arch) for _ in segment.gemms]
        tasks += [_vector_task(work, arch) for work in segment.vectors]
        rows += _run_beside(tasks, arch.pes)
    rows += [_update_row(update, arch) for update in schedule.step.updates if update.elems]
    return tuple(rows)


@dataclass(frozen=True)
class _Task:
    """Work of one segment: how long it takes alone, and how long it keeps the DMA busy."""

    on_array: bool
    cycles: int
    dma_cycles: int
    row: Row
    """The finished row but for `cycles` and the losses of waiting."""


def _run_beside(tasks: list[_Task], pes: int) -> Iterable[Row]:
    """Array and vector unit each do their tasks in turn, side by side; the DMA serves both.

    A segment lasts as long as the busiest of the three. The array's tasks are charged their own time, the vector unit's share
    what is left.
    """
    array = sum(task.cycles for task in tasks if task.on_array)
    vector = sum(task.cycles for task in tasks if not task.on_array)
    rest = max(array, vector, sum(task.dma_cycles for task in tasks)) - array
    charged = 0
    beside = max(vector, 1)
    seen = 0
    for task in tasks:
        if task.on_array:
            yield task.row
            continue
        seen += task.cycles
        share = rest * seen // beside - charged
        charged += share
        yield _on_vector_unit(task.row, share, pes)
    if charged < rest:  # only the array has tasks, and together they wait for DRAM
        raise AssertionError("a product alone already waits for its own DMA")


def _on_vector_unit(row: Row, cycles: int, pes: int) -> Row:
    """Return the row charged with `cycles`; of a product, what all PEs would take counts as useful: a loss can be negative."""
    lost = cycles - ceil_div(row.macs_useful, pes)
    return replace(row, cycles=cycles, losses={"vector": lost} if lost else {})


def _gemm_task(scheduled: ScheduledGemm, arch: Arch) -> _Task:
    gemm, cost, mapping = scheduled.gemm, scheduled.cost, scheduled.mapping
    on_array = mapping.dataflow != "VECTOR"
    useful = ceil_div(gemm.macs_useful, arch.pes)
    compute_bound = scheduled.compute_bound_cycles if on_array else ceil_div(gemm.macs_dense, arch.vector_lanes)
    row = Row(
        name=gemm.layer,
        stage=str(gemm.stage),
        part=gemm.part,
        engine="array" if on_array else "vector",
        m=gemm.shape.m,
        n=gemm.shape.n,
        k=gemm.shape.k,
        count=gemm.shape.count,
        pattern=str(gemm.pattern),
        dataflow=mapping.dataflow,
        mapping=_describe(scheduled, arch),
        cycles=cost.cycles,
        busy_cycles=cost.cycles,
        bound=_bound(cost) if on_array else "vector",
        utilization_frac=gemm.macs_useful / (arch.pes * cost.cycles) if on_array else 0.0,
        dram_bytes=cost.dram_bytes,
        macs_nominal=gemm.macs_nominal,
        macs_dense=gemm.macs_dense,
        macs_useful=gemm.macs_useful,
        lower_bound_cycles=max(compute_bound, scheduled.dram_bound_cycles),
        losses=_losses(cost, useful) if on_array else {},
    )
    return _Task(on_array, cost.cycles, cost.dma_cycles, row)


def _losses(cost: GemmCost, useful: int) -> dict[str, int]:
    ends = cost.array_cycles - cost.slot_cycles + cost.fill_cycles
    losses = {
        "padding": cost.compute_cycles - useful,
        "drain": cost.slot_cycles - cost.compute_cycles,
        "fill": ends,
        "dram": cost.cycles - cost.array_cycles - cost.fill_cycles,
    }
    return {loss: cycles for loss, cycles in losses.items() if cycles}


def _bound(cost: GemmCost) -> str:
    """Return what would last longest alone."""
    drains = cost.slot_cycles > cost.compute_cycles
    candidates = {
        "compute": cost.compute_cycles,
        "drain": cost.slot_cycles if drains else 0,
        "fill": cost.array_cycles - cost.slot_cycles + cost.fill_cycles,
        "dram": cost.dma_cycles,
        "sore": cost.sore_cycles,
    }
    return max(candidates, key=lambda name: candidates[name])


def _describe(scheduled: ScheduledGemm, arch: Arch) -> str:
    mapping = scheduled.mapping
    if mapping.dataflow == "VECTOR":
        return ""
    lanes = f"{mapping.row_lanes}x{arch.adder_latency // mapping.row_lanes}"
    tile = f"{mapping.tile_m}x{mapping.tile_n}x{mapping.tile_groups * mapping.run_group}"
    swap = ", swapped" if mapping.swapped else ""
    return f"lanes {lanes}, tile {tile}, loops {mapping.loop_order}{swap}"


def _vector_task(work: VectorWork, arch: Arch) -> _Task:
    lanes = vector_cycles(work.lane_ops, arch.vector_lanes, arch.vector_latency_cycles)
    dma = dma_cycles(work.dram_bytes, 2, arch.dram_bytes_per_cycle, arch.dma_setup_cycles) if work.dram_bytes else 0
    cycles = max(lanes, dma) + (arch.dram_latency_cycles if dma else 0)
    bound = "vector" if lanes >= dma else "dram"
    row = _plain_row(work.layer, str(work.stage), work.kind, "vector", cycles, bound, work.dram_bytes)
    return _Task(False, cycles, dma, row)


def _update_row(update: UpdateWork, arch: Arch) -> Row:
    engines = {
        "wuve": wuve_cycles(update.elems, update.passes, arch.wuve_lanes),
        "sore": sore_cycles(update.sore_groups, arch.sore_lanes),
        "dram": dma_cycles(update.dram_bytes, 2, arch.dram_bytes_per_cycle, arch.dma_setup_cycles),
    }
    cycles = max(engines.values()) + arch.dram_latency_cycles
    bound = max(engines, key=lambda name: engines[name])
    return _plain_row(update.layer, str(Stage.OPTIMIZER), "update", "update", cycles, bound, update.dram_bytes)


def _plain_row(name: str, stage: str, part: str, engine: str, cycles: int, bound: str, dram_bytes: int) -> Row:
    return Row(
        name, stage, part, engine, None, None, None, 1, "", "", "", cycles, cycles, bound, 0.0, dram_bytes, 0, 0, 0, 0,
        {engine: cycles},
    )  # fmt: skip
