"""The work of a training step in order, and the mapping chosen for each of its products.

`Step` is what lowering makes of a trace: machine-free work. `Schedule` adds a `Mapping` to every product.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, get_args

from accel.arch import Arch
from accel.gemm import Gemm, Stage
from accel.trace import Attributes

if TYPE_CHECKING:  # both load NumPy, which a command's help does not need
    from accel.access import Access
    from accel.program import Parameter


@dataclass(frozen=True)
class VectorWork:
    """One operator on the vector unit: FP32 lane operations and DRAM bytes, for the whole batch."""

    layer: str
    stage: Stage
    kind: str
    lane_ops: int
    dram_bytes: int
    reads: tuple[str, ...] = field(default=(), compare=False)
    writes: tuple[str, ...] = field(default=(), compare=False)
    on_results: bool = field(default=False, compare=False)
    """Done on the results of the segment's products before they are stored: they take it along without traffic of its own."""
    attributes: Attributes | None = field(default=None, compare=False)
    """What it computes, as the table of kernels has it; None: unknown."""
    access: Access | None = field(default=None, compare=False)
    """Done on results: where what it reads lies, by repeat, row and column of the product."""
    by_sample: bool = field(default=False, compare=False)
    """Whether it can be done sample by sample, once what it reads is there: all it makes has the batch as its first axis."""


@dataclass(frozen=True)
class Segment:
    """Work that runs side by side: products one after another on the array, operators one after another on the vector unit.

    Segments follow each other: the next one needs results of this one.
    """

    gemms: tuple[Gemm, ...] = ()
    vectors: tuple[VectorWork, ...] = ()


@dataclass(frozen=True)
class UpdateWork:
    """The update of one parameter tensor: WUVE, then SORE where compact copies are made in the same pass."""

    layer: str
    elems: int
    passes: int
    """Passes of each weight through WUVE."""
    sore_groups: int
    """Machine groups that SORE prunes while the new weights pass by."""
    master_bytes: int
    """FP32 weights, gradients and optimizer state in DRAM."""
    copy_bytes: int
    """FP16 weights that the products read, dense and compact."""
    dram_bytes: int
    reads: tuple[str, ...] = field(default=(), compare=False)
    copies: tuple[tuple[str, int], ...] = field(default=(), compare=False)
    """The FP16 copies it writes, dense and compact: name and bytes."""
    parameter: Parameter | None = field(default=None, compare=False)
    """What the tensor is."""


@dataclass(frozen=True)
class Footprint:
    """What DRAM holds at the end of the forward pass, in bytes."""

    activation_bytes: int
    """Tensors, masks and indices saved for the backward pass."""
    master_bytes: int
    """FP32 weights, optimizer state and weight gradients."""
    copy_bytes: int
    """FP16 weights the GEMMs read: dense and compact, in both orders."""
    gradient_bytes: int
    """The largest pair of activation gradients alive at once."""

    @property
    def total_bytes(self) -> int:
        """Everything together: the peak."""
        return self.activation_bytes + self.master_bytes + self.copy_bytes + self.gradient_bytes


@dataclass(frozen=True)
class Step:
    """The work of one training step of one batch."""

    network: str
    batch: int
    segments: tuple[Segment, ...]
    updates: tuple[UpdateWork, ...]
    footprint: Footprint
    tensor_bytes: dict[str, int] = field(default_factory=dict, compare=False)
    """Bytes in DRAM of activations, network inputs and gradients, by the names that the work reads and writes."""
    free_layers: tuple[str, ...] = ()
    """Operators the user allowed to be counted as free."""

    @property
    def gemms(self) -> list[Gemm]:
        """Every product of the step, in order."""
        return [gemm for segment in self.segments for gemm in segment.gemms]


@dataclass(frozen=True, slots=True)
class Mapping:
    """How one product runs: `dataflow` OS, WS, or VECTOR for the vector unit; sizes of the DRAM-level tile; order of its loops.

    `swapped` exchanges the operands: lhs goes north. `run_keep:run_group` is the pattern the array runs (1:1 is dense, one
    element at a time). The tile counts rows of the west operand, columns of the north one and groups of k.
    """

    dataflow: str
    swapped: bool
    row_lanes: int
    run_keep: int
    run_group: int
    tile_m: int
    tile_n: int
    tile_groups: int
    loop_order: str
    """The DRAM-level loops from outermost to innermost, for example "mnk"."""


@dataclass(frozen=True, slots=True)
class GemmCost:
    """What one product costs under its mapping, in cycles and bytes; docs/timing.md gives each rule."""

    cycles: int
    """From the first DMA request to the last result in DRAM, nothing else running."""
    compute_cycles: int
    """Tiles as if nothing held them up: nonzeros, and what padding to whole tiles and groups adds."""
    slot_cycles: int
    """With drains and returns of partial sums that last longer than their tile."""
    array_cycles: int
    """The array (or vector unit) alone, operands always ready: `slot_cycles` and the ends of the run."""
    dma_cycles: int
    sore_cycles: int
    fill_cycles: int
    """Before the first and after the last array cycle: first loads, last stores."""
    dram_bytes: int
    psum_bytes: int
    """Partial sums re-injected from the output buffer (WS)."""


Objective = Literal["time", "energy", "edp"]
"""What mappings are chosen for: the time of the step, its energy, or the product of both."""

OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


@dataclass(frozen=True, slots=True)
class Achieved:
    """What a schedule reaches of its objective: seconds, joules or joule-seconds, as the scheduler counts them.

    It counts products one after another, each alone, and every other operator of the step that runs beside no product.
    """

    objective: Objective
    value: float
    lower_bound: float
    """No schedule of the step has less."""


@dataclass(frozen=True, slots=True)
class Search:
    """How a mapping was found.

    `covered` mappings make up the space, those too large for the buffers included; `evaluated` is how often the closed form was
    evaluated, for one of them or for a bound of many, in both rounds of the search.
    """

    covered: int
    evaluated: int
    least_value: float
    """The least value of all: cycles of a search for time, picojoules for energy, a weighted sum of both for their product. The
    mapping taken is at most 1/1024 worse and has the least traffic of those."""

    energy_pj: float = 0.0
    """Energy of the product, alone, under the mapping taken; 0 in a search for time, which prices none."""

    @property
    def least_cycles(self) -> int:
        """The least time of all, found by a search for time."""
        return int(self.least_value)


@dataclass(frozen=True)
class ScheduledGemm:
    """A product, its best mapping and what it costs."""

    gemm: Gemm
    mapping: Mapping
    cost: GemmCost
    search: Search
    compute_bound_cycles: int
    """Lower bound: every PE multiplies nonzeros in every cycle."""
    dram_bound_cycles: int
    """Lower bound: every operand and result crosses the DRAM port once."""


@dataclass(frozen=True)
class Schedule:
    """A step with a mapping for every product; `gemms` stand in the order of `step.gemms`."""

    step: Step
    arch: Arch
    gemms: tuple[ScheduledGemm, ...]
    search_seconds: float = field(compare=False, default=0.0)
    achieved: Achieved | None = field(compare=False, default=None)
    """None: the mappings are given, not searched for."""

    @property
    def searches(self) -> list[Search]:
        """The searches done for this schedule: equal products share one."""
        return list({id(scheduled.search): scheduled.search for scheduled in self.gemms}.values())
