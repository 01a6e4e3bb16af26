"""A training step on many machines: rings that add up dW beside the backward pass (docs/scaling.md).

The step of one machine comes in as the rows of `accel.sim.step`; cycles are those of its clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import accumulate

from accel.arch import Arch
from accel.errors import ConfigError
from accel.gemm import FP32_BYTES, Gemm, Stage
from accel.report import Row
from accel.schedule import Step, VectorWork
from accel.trace import Conv, Linear, Trace, Vector
from accel.units import ceil_div

DEFAULT_LINK_GBPS = 100.0
"""One of the two QSFP28 cages of a VCU1525 (Xilinx UG1268)."""

DEFAULT_LINK_LATENCY_US = 5.0
"""Assumed: two ports, a switch and the reading of descriptors."""

DEFAULT_BUCKET_MIB = 25.0
"""What PyTorch takes (DistributedDataParallel's `bucket_cap_mb`; Li et al., VLDB 2020)."""

DEFAULT_DEVICES = tuple(2**exponent for exponent in range(11))
"""1 to 1,024 machines."""

GRADIENT_BYTES = {"fp32": 4, "fp16": 2}
"""Bytes of an element of dW on the link."""

UPDATES = ("replicated", "sharded")


def segment_ends(step: Step, rows: Sequence[Row]) -> list[int]:
    """Return the cycle in which each segment of `step` has ended, from its simulated `rows`; updates follow the last."""
    ends = list(accumulate((row.cycles for row in rows), initial=0))
    counts = accumulate(len(segment.gemms) + len(segment.vectors) for segment in step.segments)
    return [ends[count] for count in counts]


@dataclass(frozen=True, slots=True)
class Gradient:
    """The gradient of one parameter tensor, a bias beside it: when it is ready, and what its update costs one machine."""

    layer: str
    ready_cycles: int
    elems: int
    update_cycles: int
    """Of the share of the tensor that one machine updates."""
    copy_bytes: int
    """FP16 weights that the products read, of the whole tensor."""


def gradients(trace: Trace, step: Step, rows: Sequence[Row], update_cycles: Iterable[int]) -> list[Gradient]:
    """Return the gradients of a step in the order in which they are ready; at the same time the last layer comes first.

    `rows` are those of one machine's step, `update_cycles` what the updates of its trained tensors take, in their order.
    """
    ends = segment_ends(step, rows)
    made: dict[str, int] = {}  # end of the last backward work of each layer
    for segment, end in zip(step.segments, ends, strict=True):
        works: tuple[Gemm | VectorWork, ...] = (*segment.gemms, *segment.vectors)
        made |= {work.layer: end for work in works if work.stage is not Stage.FORWARD}
    tensor_of, ready = {}, dict[str, int]()
    for layer in trace.layers:
        if isinstance(layer, Conv | Linear) or (isinstance(layer, Vector) and layer.params):
            tensor = tensor_of[layer.name] = layer.weight or layer.name
            if layer.trainable:
                ready[tensor] = max(ready.get(tensor, 0), made[layer.name])
    trained = [update for update in step.updates if update.elems]
    found = [
        Gradient(update.layer, ready[tensor_of[update.layer]], update.elems, cycles, update.copy_bytes)
        for update, cycles in zip(trained, update_cycles, strict=True)
    ]
    found.reverse()
    return sorted(found, key=lambda gradient: gradient.ready_cycles)


@dataclass(frozen=True, slots=True)
class Transfer:
    """A job of the link: its exact cycles, what each cause would take alone, and the bytes that one machine moves."""

    cycles: Fraction = Fraction(0)
    latency_cycles: Fraction = Fraction(0)
    link_cycles: Fraction = Fraction(0)
    dram_cycles: Fraction = Fraction(0)
    sent_bytes: int = 0
    dram_bytes: int = 0

    def __add__(self, other: Transfer) -> Transfer:
        return Transfer(
            self.cycles + other.cycles,
            self.latency_cycles + other.latency_cycles,
            self.link_cycles + other.link_cycles,
            self.dram_cycles + other.dram_cycles,
            self.sent_bytes + other.sent_bytes,
            self.dram_bytes + other.dram_bytes,
        )

    @property
    def whole_cycles(self) -> int:
        """Cycles in which the link is busy."""
        return math.ceil(self.cycles)


@dataclass(frozen=True, slots=True)
class Ring:
    """Closed forms of a ring of `machines`; times are cycles of their clock (docs/scaling.md, section 1)."""

    machines: int
    latency_cycles: Fraction
    link_bytes_per_cycle: Fraction
    dram_bytes_per_cycle: Fraction

    def reduce_scatter(self, elems: int, word_bytes: int) -> Transfer:
        """Return what it takes to add up `elems` of dW, each machine ending with the sums of its own share."""
        chunk = ceil_div(elems, self.machines)
        return self._round(word_bytes * chunk, 3 * FP32_BYTES * chunk)  # read to send, read to add, write

    def all_gather(self, elems: int, word_bytes: int) -> Transfer:
        """Return what it takes to hand every machine the sums of all."""
        chunk = ceil_div(elems, self.machines)
        return self._round(word_bytes * chunk, 2 * FP32_BYTES * chunk)  # read to send, write

    def all_reduce(self, elems: int, word_bytes: int) -> Transfer:
        """Return what both together take."""
        return self.reduce_scatter(elems, word_bytes) + self.all_gather(elems, word_bytes)

    def all_gather_bytes(self, size_bytes: int) -> Transfer:
        """Return what it takes to hand every machine `size_bytes` of which each has its share, as they lie in DRAM."""
        chunk_bytes = ceil_div(size_bytes, self.machines)
        return self._round(chunk_bytes, 2 * chunk_bytes)

    def _round(self, link_bytes: int, dram_bytes: int) -> Transfer:
        """Return P - 1 steps in which each machine sends `link_bytes` and its DRAM moves `dram_bytes`."""
        steps = self.machines - 1
        on_link, on_dram = link_bytes / self.link_bytes_per_cycle, dram_bytes / self.dram_bytes_per_cycle
        return Transfer(
            steps * (self.latency_cycles + max(on_link, on_dram)),
            steps * self.latency_cycles,
            steps * on_link,
            steps * on_dram,
            steps * link_bytes,
            steps * dram_bytes,
        )


@dataclass(frozen=True)
class Network:
    """What connects the machines, and how dW goes round. The numbers stand for their decimal texts, exactly."""

    link_gbps: float = DEFAULT_LINK_GBPS
    """10^9 bits a second, in both directions at once."""
    link_latency_us: float = DEFAULT_LINK_LATENCY_US
    bucket_mib: float = DEFAULT_BUCKET_MIB
    gradients: str = "fp32"
    """Format of dW on the link: a key of `GRADIENT_BYTES`."""
    update: str = "replicated"
    """One of `UPDATES`."""

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be {rule}, not {getattr(self, name)!r}"
            for name, rule, least in (
                ("link_gbps", "above 0 and at most 1e+06", 0.0),
                ("link_latency_us", "between 0 and 1e+06", -1.0),
                ("bucket_mib", "above 0 and at most 1e+06", 0.0),
            )
            if not (least < getattr(self, name) <= 1e6 and getattr(self, name) >= 0)  # also refuses what is not a number
        ]
        for name, known in (("gradients", tuple(GRADIENT_BYTES)), ("update", UPDATES)):
            if getattr(self, name) not in known:
                problems.append(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        if problems:
            raise ConfigError("; ".join(problems))

    @property
    def word_bytes(self) -> int:
        """Bytes of an element of dW on the link."""
        return GRADIENT_BYTES[self.gradients]

    @property
    def bucket_bytes(self) -> Fraction:
        """What closes a bucket."""
        return _decimal(self.bucket_mib) * 2**20

    def ring(self, arch: Arch, devices: int) -> Ring:
        """Return the ring of `devices` machines, its rates in cycles of their clock."""
        clock_hz = Fraction(arch.clock_hz)
        return Ring(
            devices,
            latency_cycles=_decimal(self.link_latency_us) * clock_hz / 10**6,
            link_bytes_per_cycle=_decimal(self.link_gbps) * 10**9 / 8 / clock_hz,
            dram_bytes_per_cycle=Fraction(arch.dram_bytes_per_cycle),
        )


def _decimal(number: float) -> Fraction:
    return Fraction(repr(float(number)))


@dataclass(frozen=True, slots=True)
class Bucket:
    """Gradients that go round together."""

    gradients: tuple[Gradient, ...]

    @property
    def elems(self) -> int:
        """Elements of dW."""
        return sum(gradient.elems for gradient in self.gradients)

    @property
    def ready_cycles(self) -> int:
        """When the last gradient is there."""
        return max(gradient.ready_cycles for gradient in self.gradients)

    @property
    def update_cycles(self) -> int:
        """What the updates of one machine's share take."""
        return sum(gradient.update_cycles for gradient in self.gradients)

    @property
    def copy_bytes(self) -> int:
        """FP16 weights that the products read."""
        return sum(gradient.copy_bytes for gradient in self.gradients)


def fill_buckets(found: Iterable[Gradient], word_bytes: int, bucket_bytes: Fraction) -> list[Bucket]:
    """Return `found` in buckets, in order: one is closed as soon as it holds `bucket_bytes` of what is sent."""
    buckets: list[Bucket] = []
    filling: list[Gradient] = []
    for gradient in found:
        filling.append(gradient)
        if word_bytes * sum(part.elems for part in filling) >= bucket_bytes:
            buckets.append(Bucket(tuple(filling)))
            filling = []
    return [*buckets, Bucket(tuple(filling))] if filling else buckets


@dataclass(frozen=True, slots=True)
class Job:
    """One bucket on the link: the first time it goes round, to be added up."""

    bucket: Bucket
    start_cycles: int
    end_cycles: int


@dataclass(frozen=True, slots=True)
class ScaledStep:
    """The step of one of many machines, all alike."""

    cycles: int
    compute_cycles: int
    """Until the end of the backward pass."""
    update_cycles: int
    link_busy_cycles: int
    transfer: Transfer
    """All that the link does."""
    late: Transfer
    """Of that, what the end of the step waits for: the last jobs back to back, a flag, and the last new weights."""
    jobs: tuple[Job, ...]

    @property
    def exposed_cycles(self) -> int:
        """Cycles in which the machine only waits for the link."""
        return self.cycles - self.compute_cycles - self.update_cycles

    @property
    def contended_cycles(self) -> int:
        """The step if all DRAM traffic of the ring delayed the machine: an upper bound (docs/scaling.md, section 5)."""
        return self.cycles + math.ceil(self.transfer.dram_cycles)


def scale_step(compute_cycles: int, buckets: Sequence[Bucket], ring: Ring, word_bytes: int, sharded: bool) -> ScaledStep:
    """Return the step of machines in `ring` whose backward pass ends at `compute_cycles` (docs/scaling.md, section 2)."""
    reduce = ring.reduce_scatter if sharded else ring.all_reduce
    transfers = [reduce(bucket.elems, word_bytes) for bucket in buckets]
    ready = [bucket.ready_cycles for bucket in buckets]
    ends = in_order(ready, transfers)
    jobs = tuple(
        Job(bucket, end - transfer.whole_cycles, end) for bucket, transfer, end in zip(buckets, transfers, ends, strict=True)
    )
    late = _last_run(ready, transfers, ends)
    finite = max([compute_cycles, *ends])
    update_cycles = sum(bucket.update_cycles for bucket in buckets)
    end = finite + update_cycles
    if sharded and buckets:
        flag = ring.all_reduce(1, word_bytes)
        copies = [ring.all_gather_bytes(bucket.copy_bytes) for bucket in buckets]
        updated = list(accumulate((bucket.update_cycles for bucket in buckets), initial=finite + flag.whole_cycles))[1:]
        gathered = in_order(updated, copies)
        end = gathered[-1]
        late = [*late, flag, *_last_run(updated, copies, gathered)]
        transfers += [flag, *copies]
    busy = sum(transfer.whole_cycles for transfer in transfers)
    return ScaledStep(end, compute_cycles, update_cycles, busy, sum(transfers, Transfer()), sum(late, Transfer()), jobs)


def _last_run(ready: Sequence[int], transfers: Sequence[Transfer], ends: Sequence[int]) -> list[Transfer]:
    """Return the last transfers that followed each other without a pause."""
    first = len(ends) - 1
    while first > 0 and ready[first] < ends[first - 1]:
        first -= 1
    return list(transfers[max(first, 0) :])


def in_order(ready: Sequence[int], transfers: Sequence[Transfer]) -> list[int]:
    """Return when each transfer ends, each started when it is `ready` and the one before has ended."""
    done, ends = 0, []
    for ready_cycles, transfer in zip(ready, transfers, strict=True):
        done = max(done, ready_cycles) + transfer.whole_cycles
        ends.append(done)
    return ends
