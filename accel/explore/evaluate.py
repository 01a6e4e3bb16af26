"""One point of a space: the machine, what it takes of an FPGA, and what its training steps cost by the closed form."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from accel.arch import Arch
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import schedule, schedule_gemms
from accel.errors import AccelError, ConfigError
from accel.explore.space import OBJECTIVES, RESOURCE_COLUMNS, MethodPart, Space
from accel.schedule import Schedule, Step
from accel.sim.energy import step_energy
from accel.sim.resources import DEVICES, Resources, estimate, shares
from accel.sim.step import simulate_step

Row = dict[str, Any]
"""One point by `Space.columns`; None is what is not known of it."""


def evaluate(space: Space, index: int) -> Row:
    """Return the row of one point; of many, an `Evaluator` lowers the networks once."""
    return Evaluator(space).row(index)


@dataclass(frozen=True)
class _Part:
    """One network trained by one method."""

    network: str
    method: MethodPart
    weight: float
    """Share of the mix; those of all parts add up to 1."""

    @property
    def prefix(self) -> str:
        return f"{self.network}.{self.method.label}."


class Evaluator:
    """Evaluates points of one space. Lowered networks are kept: they depend on the machine's word alone."""

    def __init__(self, space: Space) -> None:
        """Prepare for the points of `space`."""
        self.space = space
        work = space.file.work
        whole = sum(work.networks.values()) * sum(method.weight for method in work.methods)
        self._parts = [
            _Part(network, method, weight * method.weight / whole)
            for network, weight in work.networks.items()
            for method in work.methods
        ]
        self._steps: dict[tuple[str, str, int], Step] = {}

    def row(self, index: int) -> Row:
        """Return the row of a point. What cannot run has its reason in `problem`, and none of the objectives."""
        row: Row = dict.fromkeys(self.space.columns) | {"index": index, **self.space.point(index)}
        try:
            self._fill(row, index)
        except AccelError as error:
            row |= dict.fromkeys(OBJECTIVES) | {"problem": str(error)}
        return row

    def _fill(self, row: Row, index: int) -> None:
        space = self.space
        row |= space.derived(space.point(index))
        arch = space.arch(index)
        row |= {"pes": arch.pes, "buffer_bytes": _buffer_bytes(arch)}
        self._check_amounts(arch)
        resources = self._resources(arch)
        self._check_device(arch)
        steps = [self._step(part, arch) for part in self._parts]
        planned = _scheduled(steps, arch)
        costs = [self._cost(plan) for plan in planned]
        for part, cost in zip(self._parts, costs, strict=True):
            row |= {part.prefix + name: value for name, value in cost.items()}
        row |= self._objectives(costs, arch, resources)

    def _check_amounts(self, arch: Arch) -> None:
        """Refuse a machine beyond the bounds of `[constraints]`."""
        limits = self.space.file.constraints
        amounts = {"max_pes": arch.pes, "max_buffer_bytes": _buffer_bytes(arch)}
        for name, amount in amounts.items():
            limit = getattr(limits, name)
            if limit is not None and amount > limit:
                raise ConfigError(f"{name.removeprefix('max_')} must be at most {name} ({limit}), not {amount}")

    def _resources(self, arch: Arch) -> Resources | None:
        """Return what the machine takes; None where no such machine is built and nobody asks."""
        file = self.space.file
        wanted = file.constraints.fits or {*file.objectives.names} & {*RESOURCE_COLUMNS, "samples_per_second_per_lut"}
        try:
            return estimate(arch)
        except ConfigError:
            if wanted:
                raise
            return None

    def _check_device(self, arch: Arch) -> None:
        limits = self.space.file.constraints
        if limits.fits is None:
            return
        device = DEVICES[limits.fits]
        most = {"all_luts": limits.lut_frac}
        over = [
            f"{name} must be at most {most.get(name, 1.0):g} of {device.name}, not {share:.4g}"
            for name, share in shares(arch, device.name).items()
            if share > most.get(name, 1.0)
        ]
        if over:
            raise ConfigError("; ".join(over))

    def _step(self, part: _Part, arch: Arch) -> Step:
        """Return the work of one network on machines with the word of `arch`, once it is known to have its place there."""
        options = self.space.options(part.method, arch)
        key = (part.network, part.method.label, options.word_elems)
        if key not in self._steps:
            step = lower(self.space.traces[part.network], options)
            if not step.gemms:
                raise ConfigError(f"network {step.network} must have a product to run, not only vector operators")
            self._steps[key] = step
        step = self._steps[key]
        schedule(replace(step, segments=(), updates=()), arch)  # nothing to search: refuses small buffers and DRAM
        return step

    def _cost(self, plan: Schedule) -> Row:
        """Return what one training step costs."""
        rows = simulate_step(plan)
        cycles = sum(row.cycles for row in rows)
        cost = {
            "cycles": cycles,
            "seconds": cycles / plan.arch.clock_hz,
            "dram_bytes": sum(row.dram_bytes for row in rows),
        }
        table = self.space.table
        return cost if table is None else cost | {"joules": step_energy(plan, rows, table).joules}

    def _objectives(self, costs: Sequence[Row], arch: Arch, resources: Resources | None) -> Row:
        """Return every objective that is known; time and energy are means of the steps by weight."""

        def mean(name: str) -> float:
            return math.fsum(part.weight * cost[name] for part, cost in zip(self._parts, costs, strict=True))

        seconds = mean("seconds")
        found: Row = {"time": seconds, "dram_bytes_per_second": arch.dram_bytes_per_second}
        if self.space.table is not None:
            joules = mean("joules")
            found |= {"energy_joules": joules, "edp": joules * seconds}
        if resources is not None:
            found |= {name: float(getattr(resources, name)) for name in RESOURCE_COLUMNS}
            found["samples_per_second_per_lut"] = self.space.file.work.batch / seconds / resources.all_luts
        return found


def _buffer_bytes(arch: Arch) -> int:
    return arch.west_buffer_bytes + arch.north_buffer_bytes + arch.output_buffer_bytes


def _scheduled(steps: Sequence[Step], arch: Arch) -> list[Schedule]:
    """Return every step with its mappings; one search finds those of all products of all steps, each distinct one once."""
    gemms = [step.gemms for step in steps]
    found = iter(schedule_gemms([gemm for some in gemms for gemm in some], arch))
    return [Schedule(step, arch, tuple(next(found) for _ in some), 0.0, None) for step, some in zip(steps, gemms, strict=True)]
