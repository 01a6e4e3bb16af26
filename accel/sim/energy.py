"""Counts the events of every row of a step, and so its energy (docs/energy.md)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from accel.arch import Arch
from accel.energy import EnergyTable, Events, StepEnergy
from accel.report import Row
from accel.schedule import Schedule, ScheduledGemm, UpdateWork, VectorWork
from accel.sim.traffic import buffer_bytes, pruned_groups, register_bytes, traffic_of


def step_energy(schedule: Schedule, rows: Sequence[Row], table: EnergyTable) -> StepEnergy:
    """Return the energy of a step whose `rows` are those of `simulate_step`."""
    arch = schedule.arch
    work = _in_order_of_rows(schedule)
    events = tuple(_events(item, row.cycles, arch) for item, row in zip(work, rows, strict=True))
    return StepEnergy(table, arch.clock_hz, events)


def _in_order_of_rows(schedule: Schedule) -> Iterator[ScheduledGemm | VectorWork | UpdateWork]:
    gemms = iter(schedule.gemms)
    for segment in schedule.step.segments:
        yield from (next(gemms) for _ in segment.gemms)
        yield from segment.vectors
    yield from (update for update in schedule.step.updates if update.elems)


def _events(work: ScheduledGemm | VectorWork | UpdateWork, cycles: int, arch: Arch) -> Events:
    charged = {"pe_cycles": arch.pes * cycles, "cycles": cycles}
    match work:
        case ScheduledGemm():
            return _gemm_events(work, charged, arch)
        case VectorWork():
            return Events(dram_bytes=work.dram_bytes, lane_ops=work.lane_ops, **charged)
        case UpdateWork():
            passes, compares = work.elems * work.passes, _compares(work.sore_groups, arch)
            return Events(dram_bytes=work.dram_bytes, wuve_passes=passes, sore_compares=compares, **charged)


def _gemm_events(scheduled: ScheduledGemm, charged: dict[str, int], arch: Arch) -> Events:
    gemm, on_array = scheduled.gemm, scheduled.mapping.dataflow != "VECTOR"
    moved = traffic_of(scheduled, arch)
    return Events(
        macs=gemm.macs_useful if on_array else 0,
        register_bytes=register_bytes(scheduled, moved),
        buffer_bytes=buffer_bytes(scheduled, moved),
        dram_bytes=scheduled.cost.dram_bytes,
        lane_ops=0 if on_array else gemm.macs_dense,
        sore_compares=_compares(pruned_groups(scheduled), arch),
        **charged,
    )


def _compares(groups: int, arch: Arch) -> int:
    """Return the comparisons of `groups`: every element of a group with every other, as SORE is built."""
    return groups * arch.group * (arch.group - 1) // 2
