"""Points of a space: the machine, what it takes of an FPGA, and what its training steps cost by the closed form."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from accel.arch import Arch
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import schedule
from accel.errors import AccelError, ConfigError
from accel.explore.engine import Costs, Engine, StepCost
from accel.explore.engine_memo import Memo
from accel.explore.space import OBJECTIVES, RESOURCE_COLUMNS, MethodPart, Space
from accel.gemm import FP16_BITS
from accel.schedule import Step
from accel.sim.resources import DEVICES, estimate, shares

Row = dict[str, Any]
"""One point by `Space.columns`; None is what is not known of it."""

_NO_OBJECTIVES: Row = dict.fromkeys(OBJECTIVES)


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


@dataclass(frozen=True)
class _Ready:
    """A machine that may run the work, as far as is known before the search."""

    row: Row
    arch: Arch
    resources: Row


@dataclass(frozen=True)
class _Word:
    """The work on machines of one word."""

    engine: Engine
    footprint_bytes: int
    """Of the step that needs most."""


class Evaluator:
    """Evaluates points of one space. Lowered networks are kept: they depend on the machine's word alone."""

    def __init__(self, space: Space, threads: int = 1) -> None:
        """Prepare for the points of `space`, whose machines are searched by so many threads."""
        self.space, self._threads = space, threads
        work = space.file.work
        whole = sum(work.networks.values()) * sum(method.weight for method in work.methods)
        self._parts = [
            _Part(network, method, weight * method.weight / whole)
            for network, weight in work.networks.items()
            for method in work.methods
        ]
        own = ("cycles", "dram_bytes", "seconds") + (("joules",) if space.table else ())
        self._names = [tuple(part.prefix + name for name in own) for part in self._parts]
        self._columns = list(space.columns)
        self._lowered: dict[tuple[str, str, int], Step | AccelError] = {}
        self._words: dict[int, _Word | None] = {}
        self._resources, self._shares = Memo(_resources), Memo(self._shares_of)

    def row(self, index: int) -> Row:
        """Return the row of a point. What cannot run has its reason in `problem`, and none of the objectives."""
        return self.rows([index])[0]

    def rows(self, indices: Sequence[int]) -> list[Row]:
        """Return the row of every point, in their order: that of `row`, but the machines are simulated together."""
        rows, ready = [], []
        for index in indices:
            point = self.space.point(index)
            row: Row = dict.fromkeys(self._columns)
            row |= {"index": index, **point}
            rows.append(row)
            try:
                ready.append(self._checked(row, point))
            except AccelError as error:
                _refuse(row, error)
        for word in dict.fromkeys(one.arch.group for one in ready):
            self._simulate([one for one in ready if one.arch.group == word])
        return rows

    def row_by(self, index: int, cost: Callable[[str, MethodPart, Arch], StepCost]) -> Row:
        """Return the row of a point by another model, whose `cost` takes a network and a method; refuses what cannot run."""
        point = self.space.point(index)
        row: Row = dict.fromkeys(self._columns) | {"index": index, **point}
        ready = self._checked(row, point)
        costs = tuple(cost(part.network, part.method, ready.arch) for part in self._parts)
        return row | self._results(costs, ready.arch, ready.resources)

    def _checked(self, row: Row, point: Row) -> _Ready:
        """Return the machine of a point, or refuse one that cannot be or that no search is needed to refuse."""
        space = self.space
        derived = space.derived(point)
        row |= derived
        arch = space.machine(row["index"], {**point, **derived})
        amounts = _amounts(arch)
        row |= amounts
        self._check_amounts(amounts)
        resources = self._built(arch)
        self._check_device(arch)
        self._check_work(arch)
        return _Ready(row, arch, resources)

    def _check_amounts(self, amounts: Row) -> None:
        """Refuse a machine beyond the bounds of `[constraints]`."""
        limits = self.space.file.constraints
        for name, amount in amounts.items():
            limit = getattr(limits, f"max_{name}")
            if limit is not None and amount > limit:
                raise ConfigError(f"{name} must be at most max_{name} ({limit}), not {amount}")

    def _built(self, arch: Arch) -> Row:
        """Return what the machine takes, by column; nothing where no such machine is built and nobody asks."""
        file = self.space.file
        wanted = file.constraints.fits or {*file.objectives.names} & {*RESOURCE_COLUMNS, "samples_per_second_per_lut"}
        try:
            return self._resources(arch)
        except ConfigError:
            if wanted:
                raise
            return {}

    def _shares_of(self, arch: Arch) -> dict[str, float]:
        """Return what the machine takes of the device that it must fit."""
        device = self.space.file.constraints.fits
        return {} if device is None else shares(arch, device)

    def _check_device(self, arch: Arch) -> None:
        limits = self.space.file.constraints
        if limits.fits is None:
            return
        device = DEVICES[limits.fits]
        most = {"all_luts": limits.lut_frac}
        over = [
            f"{name} must be at most {most.get(name, 1.0):g} of {device.name}, not {share:.4g}"
            for name, share in self._shares(arch).items()
            if share > most.get(name, 1.0)
        ]
        if over:
            raise ConfigError("; ".join(over))

    def _check_work(self, arch: Arch) -> None:
        """Refuse a machine whose word, buffers or DRAM are too small for any network, as the scheduler does."""
        word = self._word(arch)
        if word is not None and not arch.fits_one_tile() and word.footprint_bytes <= arch.dram_capacity_bytes:
            return
        for part in self._parts:
            step = self._step(part, arch)
            schedule(replace(step, segments=(), updates=()), arch)  # nothing to search: refuses small buffers and DRAM
        raise AssertionError("the scheduler refuses what does not fit")

    def _word(self, arch: Arch) -> _Word | None:
        """Return the packed work for machines with the word of `arch`; None if some network cannot be lowered for it."""
        if arch.group not in self._words:
            try:
                steps = [self._step(part, arch) for part in self._parts]
            except AccelError:
                self._words[arch.group] = None
            else:
                engine = Engine(steps, arch.group, self.space.table, self._threads)
                self._words[arch.group] = _Word(engine, max(step.footprint.total_bytes for step in steps))
        return self._words[arch.group]

    def _step(self, part: _Part, arch: Arch) -> Step:
        """Return the work of one network on machines with the word of `arch`."""
        options = self.space.options(part.method, arch)
        key = (part.network, part.method.label, options.word_elems)
        if key not in self._lowered:
            try:
                self._lowered[key] = lower(self.space.traces[part.network], options)
            except AccelError as error:
                self._lowered[key] = error
        step = self._lowered[key]
        if isinstance(step, AccelError):
            raise step.with_traceback(None)  # else each time would add to it
        if not step.gemms:
            raise ConfigError(f"network {step.network} must have a product to run, not only vector operators")
        return step

    def _simulate(self, ready: Sequence[_Ready]) -> None:
        """Fill the rows of machines with one word."""
        word = self._word(ready[0].arch)
        assert word is not None
        for one, costs in zip(ready, word.engine.costs([one.arch for one in ready]), strict=True):
            try:
                if isinstance(costs, AccelError):
                    raise costs
                one.row.update(self._results(costs, one.arch, one.resources))
            except AccelError as error:
                _refuse(one.row, error)

    def _results(self, costs: Costs, arch: Arch, resources: Row) -> Row:
        """Return what the steps cost and every objective that is known; refuse a machine that draws too much power."""
        found: Row = {}
        every_seconds = [cost.cycles / arch.clock_hz for cost in costs]
        for names, cost, seconds in zip(self._names, costs, every_seconds, strict=True):
            found |= zip(
                names, (cost.cycles, cost.dram_bytes, seconds, cost.joules), strict=False
            )  # no joules without energies
        found["time"] = time = self._mean(every_seconds)
        found["dram_bytes_per_second"] = arch.dram_bytes_per_second
        if self.space.table is not None:
            every_joules = [cost.joules or 0.0 for cost in costs]
            watts = max(joules / seconds for joules, seconds in zip(every_joules, every_seconds, strict=True))
            self._check_power(watts)
            joules = self._mean(every_joules)
            found |= {"energy_joules": joules, "edp": joules * time, "power_watts": watts}
        if resources:
            found |= resources
            found["samples_per_second_per_lut"] = self.space.file.work.batch / time / resources["all_luts"]
        return found

    def _mean(self, amounts: Sequence[float]) -> float:
        """Return the mean of all parts by their weights."""
        return math.fsum(part.weight * amount for part, amount in zip(self._parts, amounts, strict=True))

    def _check_power(self, watts: float) -> None:
        limit = self.space.file.constraints.max_power_watts
        if limit is not None and watts > limit:
            raise ConfigError(f"power_watts must be at most max_power_watts ({limit:g}), not {watts:.6g}")


def _refuse(row: Row, error: AccelError) -> None:
    """Say why the machine of `row` cannot run; an objective may be a field too (`dram_bytes_per_second`)."""
    row.update(_NO_OBJECTIVES, problem=str(error))


def _amounts(arch: Arch) -> Row:
    """Return the columns that `[constraints]` bounds before anything is simulated."""
    buffer_bytes = arch.west_buffer_bytes + arch.north_buffer_bytes + arch.output_buffer_bytes
    return {"pes": arch.pes, "buffer_bytes": buffer_bytes, "west_link_bits": FP16_BITS * arch.group}


def _resources(arch: Arch) -> Row:
    """Return what the machine takes of an FPGA, by column."""
    resources = estimate(arch)
    return {name: float(getattr(resources, name)) for name in RESOURCE_COLUMNS}
