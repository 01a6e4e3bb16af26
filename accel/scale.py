"""Data-parallel training on many machines: how long a step takes on P of them, and what the scaling loses (docs/scaling.md)."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from accel.api import resolve_arch, resolve_trace, step_options
from accel.arch import Arch
from accel.dataflow.context import Options
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import schedule
from accel.errors import ConfigError, ScheduleError
from accel.presets import DEFAULT_ARCH, DEFAULT_BATCH
from accel.report import Row
from accel.schedule import Schedule, UpdateWork
from accel.sim.scaling import (
    DEFAULT_DEVICES,
    Network,
    Ring,
    ScaledStep,
    fill_buckets,
    gradients,
    scale_step,
)
from accel.sim.step import simulate_step
from accel.sparsity import NMPattern
from accel.trace import Trace
from accel.units import ceil_div

SCHEMA_VERSION = 1
MAX_DEVICES = 2**20


@dataclass(frozen=True)
class Point:
    """The step on one number of machines, compared with that on the fewest listed, `base`."""

    devices: int
    batch: int
    """Samples of one machine."""
    clock_hz: float
    step: ScaledStep
    link_bytes_per_cycle: Fraction
    base: Point | None = None

    @property
    def seconds(self) -> float:
        """Time of the step."""
        return self.step.cycles / self.clock_hz

    @property
    def global_batch(self) -> int:
        """Samples of all machines."""
        return self.devices * self.batch

    @property
    def samples_per_second(self) -> float:
        """Of all machines together."""
        return self.global_batch / self.seconds

    @property
    def _ideal(self) -> Fraction:
        """What is left of a part of the base's step if it scales perfectly."""
        base = self.base or self
        return Fraction(self.batch, base.batch)

    @property
    def efficiency_frac(self) -> float:
        """Samples a second of one machine, over those of one at the base."""
        base = self.base or self
        return float(self._ideal * base.step.cycles / self.step.cycles)

    @property
    def speedup(self) -> float:
        """Samples a second over those of the base."""
        base = self.base or self
        return self.efficiency_frac * self.devices / base.devices

    @property
    def link_utilization_frac(self) -> float:
        """Bytes sent over what the link could send in the step."""
        return float(self.step.transfer.sent_bytes / (self.link_bytes_per_cycle * self.step.cycles))

    @property
    def losses(self) -> dict[str, float]:
        """Shares of the step beyond perfect scaling; with the efficiency they add up to 1."""
        base = (self.base or self).step
        parts = {
            "compute": self.step.compute_cycles - self._ideal * base.compute_cycles,
            "update": self.step.update_cycles - self._ideal * base.update_cycles,
            "communication": self.step.exposed_cycles - self._ideal * base.exposed_cycles,
        }
        return {name: float(cycles / self.step.cycles) for name, cycles in parts.items()}

    @property
    def limit(self) -> str:
        """The largest loss, "" if nothing is lost; of communication, what would take longest alone."""
        largest = max(self.losses, key=lambda name: self.losses[name])
        if self.losses[largest] <= 0:
            return ""
        if largest != "communication":
            return largest
        late = self.step.late
        causes = {"link latency": late.latency_cycles, "link bandwidth": late.link_cycles, "link DRAM": late.dram_cycles}
        return max(causes, key=lambda name: causes[name])

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of a CSV line, named as docs/scaling.md, section 6, describes them."""
        step = self.step
        return {
            "devices": self.devices,
            "batch": self.batch,
            "global_batch": self.global_batch,
            "cycles": step.cycles,
            "seconds": self.seconds,
            "compute_cycles": step.compute_cycles,
            "update_cycles": step.update_cycles,
            "exposed_cycles": step.exposed_cycles,
            "contended_cycles": step.contended_cycles,
            "link_busy_cycles": step.link_busy_cycles,
            "sent_bytes": step.transfer.sent_bytes,
            "dram_bytes": step.transfer.dram_bytes,
            "link_utilization_frac": self.link_utilization_frac,
            "efficiency_frac": self.efficiency_frac,
            "speedup": self.speedup,
            "samples_per_second": self.samples_per_second,
            **{f"lost_to_{name}_frac": share for name, share in self.losses.items()},
            "limit": self.limit,
        }


@dataclass(frozen=True)
class Scaling:
    """One network on one kind of machine, on several numbers of them."""

    network: str
    arch: str
    method: str
    pattern: str
    optimizer: str
    pregenerate: bool
    clock_hz: float
    scaling: str
    """"weak" or "strong"."""
    between: Network
    gradient_elems: int
    points: tuple[Point, ...]

    def to_json(self) -> str:
        """Return the JSON text; equal runs give equal texts."""
        names = ("network", "arch", "method", "pattern", "optimizer", "pregenerate", "clock_hz", "scaling")
        head = {"schema_version": SCHEMA_VERSION} | {name: getattr(self, name) for name in names}
        points = [point.to_dict() | {"buckets": _bucket_dicts(point.step)} for point in self.points]
        fields = head | vars(self.between) | {"gradient_elems": self.gradient_elems, "points": points}
        return json.dumps(fields, indent=1) + "\n"

    def to_csv(self) -> str:
        """Return one line per number of machines, with a header."""
        import csv
        import io

        buffer = io.StringIO()
        records = [point.to_dict() for point in self.points]
        writer = csv.DictWriter(buffer, records[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return buffer.getvalue()


COLUMNS = (
    "machines", "batch", "step ms", "at most", "compute", "update", "exposed", "link used",
    "efficiency", "speedup", "samples/s", "lost: compute", "update", "link", "limit",
)  # fmt: skip


def table(scaling: Scaling) -> list[list[str]]:
    """Return the rows of the printed table, under `COLUMNS`."""
    return [_cells(point) for point in scaling.points]


def _cells(point: Point) -> list[str]:
    def milliseconds(cycles: int) -> str:
        return _digits(1e3 * cycles / point.clock_hz)

    step = point.step
    parts = (step.cycles, step.contended_cycles, step.compute_cycles, step.update_cycles, step.exposed_cycles)
    return [
        f"{point.devices:,}",
        f"{point.batch}",
        *map(milliseconds, parts),
        _percent(point.link_utilization_frac),
        _percent(point.efficiency_frac),
        _digits(point.speedup),
        _digits(point.samples_per_second),
        *map(_percent, point.losses.values()),
        point.limit.removeprefix("link ") or "-",
    ]


def _digits(number: float) -> str:
    """Return `number` with five digits, or all those before the point."""
    before = len(f"{number:.0f}")
    return f"{number:,.{max(5 - before, 0)}f}" if number else "0"


def _percent(fraction: float) -> str:
    return f"{abs(100 * fraction):.2f}%" if abs(fraction) < 5e-5 else f"{100 * fraction:.2f}%"  # no -0.00%


def headline(scaling: Scaling) -> list[str]:
    """Return what was asked for, and what the columns are compared with."""
    between, base = scaling.between, scaling.points[0]
    what = "dense" if scaling.pattern == "dense" else f"{scaling.method} {scaling.pattern}"
    batch = f"{base.batch} samples a machine" if scaling.scaling == "weak" else f"{base.global_batch} samples in all"
    machines = f"{base.devices:,} machine" + "s" * (base.devices > 1)
    first = f"{scaling.network} on many {scaling.arch}: {what}, {scaling.optimizer}, {scaling.scaling} scaling, {batch}"
    ring = (
        f"ring all-reduce of {scaling.gradient_elems:,} {between.gradients} gradients over {between.link_gbps:g} Gbit/s and "
        f"{between.link_latency_us:g} us, buckets of {between.bucket_mib:g} MiB; {between.update} update"
    )
    losses = f"lost: share of the step, against {machines}; at most: the step if the ring's DRAM traffic delayed the machine"
    return [first, ring, losses]


def _bucket_dicts(step: ScaledStep) -> list[dict[str, Any]]:
    return [
        {
            "first": job.bucket.gradients[0].layer,
            "last": job.bucket.gradients[-1].layer,
            "tensors": len(job.bucket.gradients),
            "elems": job.bucket.elems,
            "ready_cycles": job.bucket.ready_cycles,
            "start_cycles": job.start_cycles,
            "end_cycles": job.end_cycles,
        }
        for job in step.jobs
    ]


def scale(
    network: str | Path | Trace,
    arch: str | Path | Arch = DEFAULT_ARCH,
    *,
    devices: Sequence[int] = DEFAULT_DEVICES,
    batch: int | None = None,
    global_batch: int | None = None,
    between: Network | None = None,
    method: str = "bdwp",
    pattern: str | NMPattern = "2:8",
    dense_layers: Sequence[str] | None = None,
    optimizer: str = "sgd",
    pregenerate: bool = True,
    allow_ops: Sequence[str] = (),
    track: Callable[[Sequence[int]], Iterable[int]] = iter,
) -> Scaling:
    """Return the data-parallel training step of `network` on each number of machines in `devices`, from the fewest on.

    `batch` is that of each machine (weak scaling, default 64), `global_batch` that of all together (strong scaling); one of
    them may be given. `between` is the network between the machines. `track` wraps the numbers of machines to show progress.
    The rest is as in `accel.api.simulate`.
    """
    counts = _checked_devices(devices, batch, global_batch)
    between = between or Network()
    trace, machine = resolve_trace(network, allow_ops), resolve_arch(arch)
    options = step_options(machine, method, pattern, DEFAULT_BATCH, dense_layers, optimizer, pregenerate)
    points: list[Point] = []
    one: _OneMachine | None = None
    for count in track(counts):
        size = global_batch // count if global_batch is not None else DEFAULT_BATCH if batch is None else batch
        if one is None or one.batch != size:
            one = _OneMachine.simulated(trace, machine, replace(options, batch=size), count if global_batch else None)
        ring = between.ring(machine, count)
        step = one.scaled(ring, between)
        points.append(Point(count, size, machine.clock_hz, step, ring.link_bytes_per_cycle, points[0] if points else None))
    assert one is not None
    return Scaling(
        trace.name, machine.name, options.method.name, str(options.pattern), options.optimizer.name, pregenerate,
        machine.clock_hz, "weak" if global_batch is None else "strong", between,
        sum(update.elems for update in one.planned.step.updates), tuple(points),
    )  # fmt: skip


def _checked_devices(devices: Sequence[int], batch: int | None, global_batch: int | None) -> list[int]:
    """Return the numbers of machines, ascending, or refuse them."""
    counts = sorted(set(devices))
    if not counts or not 1 <= counts[0] <= counts[-1] <= MAX_DEVICES:
        wrong = [count for count in counts if not 1 <= count <= MAX_DEVICES]
        raise ConfigError(f"devices must be numbers between 1 and {MAX_DEVICES}, not {wrong[0] if wrong else 'none'}")
    if global_batch is None:
        return counts
    if batch is not None:
        raise ConfigError("batch must not be given with global_batch; batch is that of one machine, global_batch of all")
    ragged = [count for count in counts if global_batch % count] if global_batch > 0 else counts
    if ragged:
        shown = ", ".join(map(str, ragged[:4])) + (", ..." if len(ragged) > 4 else "")
        raise ConfigError(
            f"global_batch must be a positive multiple of every number of devices, not {global_batch} (devices {shown}); "
            f"every machine takes the same share: choose a multiple of {math.lcm(*counts)} or other devices"
        )
    return counts


@dataclass(frozen=True)
class _OneMachine:
    """The step of one machine at one batch."""

    trace: Trace
    planned: Schedule
    rows: tuple[Row, ...]

    @classmethod
    def simulated(cls, trace: Trace, arch: Arch, options: Options, sharing: int | None) -> _OneMachine:
        """Return the step of `trace`; `sharing` machines share the batch, None if each has one of its own."""
        try:
            planned = schedule(lower(trace, options), arch)
        except ScheduleError as error:
            if sharing is None:
                raise
            raise ScheduleError(f"{error} or leave {sharing} out of devices") from None
        if not planned.step.gemms:
            raise ConfigError(f"network {trace.name} must have a product to run, not only vector operators")
        return cls(trace, planned, simulate_step(planned))

    @property
    def batch(self) -> int:
        return self.planned.step.batch

    def scaled(self, ring: Ring, between: Network) -> ScaledStep:
        """Return the step of each machine of `ring`."""
        sharded = between.update == "sharded"
        step = self.planned.step
        updates = [row.cycles for row in self._updates(ring.machines if sharded else 1)]
        found = gradients(self.trace, step, self.rows, updates)
        buckets = fill_buckets(found, between.word_bytes, between.bucket_bytes)
        compute = sum(row.cycles for row in self.rows if row.engine != "update")
        return scale_step(compute, buckets, ring, between.word_bytes, sharded)

    def _updates(self, shards: int) -> tuple[Row, ...]:
        """Return the updates of what one machine of `shards` updates: of every tensor its share, rounded up."""
        updates = tuple(_share(update, shards) for update in self.planned.step.updates)
        alone = replace(self.planned.step, segments=(), updates=updates)
        return simulate_step(replace(self.planned, step=alone, gemms=()))


def _share(update: UpdateWork, shards: int) -> UpdateWork:
    return replace(
        update,
        elems=ceil_div(update.elems, shards),
        sore_groups=ceil_div(update.sore_groups, shards),
        dram_bytes=ceil_div(update.dram_bytes, shards),
    )
