"""`Program`: one training step as the machine runs it, six streams of instructions that wait for each other by tokens.

docs/isa.md is the contract: engines, tokens, what each field of an instruction and each row of a table means.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from typing import Annotated, Literal, Self, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, ValidationError, model_validator
from pydantic_core import InitErrorDetails

from accel.access import Access, Extents
from accel.arch import Arch, Dataflow
from accel.errors import ScheduleError, describe_validation
from accel.gemm import Stage
from accel.trace import Attributes
from accel.units import ceil_log2
from accel.validation import Checked, Count, Size, Text


class Engine(IntEnum):
    """The engines of the machine; an instruction's opcode is its engine."""

    LOAD = 0
    STORE = 1
    COMPUTE = 2
    PRUNE = 3
    VECTOR = 4
    UPDATE = 5


PORT_ENGINES = (Engine.LOAD, Engine.STORE, Engine.VECTOR, Engine.UPDATE)
"""Those that share the DRAM port, in the order of its turns."""


class Flag(IntFlag):
    """Flags of an instruction."""

    FENCE = 1
    FIRST = 2
    LAST = 4


INSTRUCTION = np.dtype(
    [(name, "u1") for name in ("opcode", "flags", "waits", "signals")]
    + [(name, "<u4") for name in ("site", "object", "repeat", "west", "north", "out")]
    + [(name, "<u4") for name in ("row", "rows", "col", "cols", "group", "groups", "words")]
    + [("bytes", "<u8")]
)
"""One instruction: 64 bytes."""

Instructions = NDArray[np.void]

OBJECTS = {
    Engine.LOAD: "view",
    Engine.STORE: "view",
    Engine.COMPUTE: "mode",
    Engine.PRUNE: "view",
    Engine.VECTOR: "kernel",
    Engine.UPDATE: "update",
}
"""What `object` is an index of: a row of `Tables.views`, `modes`, `kernels` or `updates`."""

WORK_FIELDS = ("repeat", "west", "north", "out", "row", "rows", "col", "cols", "group", "groups", "words", "bytes")
"""The fields that say which part of its object an instruction works on, in the order of the text form."""

MAX_ROWS = 65_536
"""Rows of one table."""

Long = Annotated[int, Field(ge=0, lt=2**63)]
MAX_WORK = 2**53
"""What one instruction does (lane operations, weights, groups, bytes) is below this: cycles are 64-bit integers."""
Work = Annotated[int, Field(ge=0, lt=MAX_WORK)]
Side = Literal["west", "north", "out"]
SIDES: tuple[Side, ...] = ("west", "north", "out")
Format = Literal["fp16", "fp32", "mask", "index", "compact"]


class Tensor(Checked):
    """A tensor in DRAM: where it starts and how many bytes it takes there."""

    name: Text
    address: Long
    bytes: Long
    format: Format


class View(Checked):
    """How a tensor is loaded or stored as one operand of a product.

    `rows` are those of the west operand or the columns of the north one; `groups` those along k as the array runs them; sizes
    in bits as `accel.timing.gemm.Side` has them. On side out `rows` x `cols` results of `elem_bits`; `pad_rows` and `pad_cols`
    are what fills the last words of a pixel's channels.
    """

    tensors: Annotated[tuple[Count, ...], Field(min_length=1)]
    """More than one where an operand is several tensors side by side."""
    side: Side
    rows: Size
    groups: Count = 0
    row_bits: Long = 0
    halo_bits: Long = 0
    group_bits: Long = 0
    distinct: Count = 0
    prune_keep: Count = 0
    prune_group: Count = 0
    cols: Count = 0
    pad_rows: Count = 0
    pad_cols: Count = 0
    elem_bits: Count = 0
    repeats: Size = 1
    access: Access | None = None
    """Where the elements lie in the tensor, side out by row and column; None: unknown, or partial sums."""

    def entry_bits(self, arch: Arch) -> int:
        """Return the bits of the entries, values with indices, that pruning on line leaves of a group of the machine, or 0."""
        if not self.prune_keep:
            return 0
        return arch.group // self.prune_group * self.prune_keep * (16 + ceil_log2(self.prune_group))


class Mode(Checked):
    """How the array runs: see `accel.schedule.Mapping`; `out_bits` are those of a result, 16 or 32."""

    dataflow: Dataflow
    row_lanes: Size
    keep: Size
    group: Size
    out_bits: Literal[16, 32]


class Kernel(Checked):
    """An operator of the vector unit; `transfers` are those of its DMA, `tile` says that it works in the output buffer."""

    op: Text
    lane_ops: Work
    bytes: Work
    transfers: Count
    reads: tuple[Count, ...]
    writes: tuple[Count, ...]
    tile: bool = False
    attributes: Attributes | None = None
    """What it computes, docs/isa.md; None: unknown."""
    accesses: tuple[Access, ...] = ()
    """Of a product lhs, rhs and results; of a bias where it lies, by repeat, row and column of the results."""
    samples: tuple[Count, Size] | None = None
    """The samples of the batch that it does, the first and how many; None: all."""


CopyKind = Literal["dense", "gather", "scatter", "bias"]
"""A dense copy of a weight, a compact one with groups along its last or its first size, or the bias alone."""


class Parameter(Checked):
    """What a parameter tensor is: its name, the sizes of a weight (out, taps..., in) or of a list, and its copies."""

    name: Text
    shape: Annotated[Extents, Field(min_length=1)]
    """A weight of a transposed convolution has its input channels first and its output channels last."""
    groups: Size = 1
    """Of a convolution: they divide the first size."""
    bias: Count = 0
    """Elements of the bias beside it."""
    copies: tuple[CopyKind, ...] = ()
    """What each of the tensors is that the update writes."""
    keep: Size = 1
    group: Size = 1
    """The pattern of the compact copies."""
    masked: bool = False
    """The dense copy holds what the compact one along the last size keeps, and zeros."""


class Update(Checked):
    """The update of one parameter tensor: see `accel.schedule.UpdateWork`."""

    weight: Count
    elems: Work
    passes: Annotated[int, Field(ge=0, le=256)]
    sore_groups: Work
    bytes: Work
    reads: tuple[Count, ...]
    writes: tuple[Count, ...]
    parameter: Parameter | None = None
    """None: unknown."""


class Site(Checked):
    """What an instruction's time is reported under."""

    layer: Text
    stage: Stage
    part: str


_Row = TypeVar("_Row")
_Table = Annotated[tuple[_Row, ...], Field(max_length=MAX_ROWS)]


class Tables(Checked):
    """Everything of a program but its instructions."""

    network: Text
    batch: Size
    arch: Arch
    tensors: _Table[Tensor]
    views: _Table[View]
    modes: _Table[Mode]
    kernels: _Table[Kernel]
    updates: _Table[Update]
    sites: _Table[Site]

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [
            *_problems_of_references(self),
            *(f"views[{row}].{text}" for row, view in enumerate(self.views) for text in _problems_of_view(view, self.arch)),
            *(f"modes[{row}].{text}" for row, mode in enumerate(self.modes) for text in _problems_of_mode(mode, self.arch)),
            *(
                f"kernels[{row}].{field} must be 0 where tile is true, not {getattr(kernel, field)}"
                for row, kernel in enumerate(self.kernels)
                for field in ("bytes", "transfers")
                if kernel.tile and getattr(kernel, field)
            ),
            *(
                f"kernels[{row}].samples must be null where tile is true, else within the batch ({self.batch}), not "
                f"{list(kernel.samples)}"
                for row, kernel in enumerate(self.kernels)
                if kernel.samples and (kernel.tile or sum(kernel.samples) > self.batch)
            ),
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def buffer_words(self) -> tuple[int, int, int]:
        """Words of `arch.group` FP16 elements in the west, north and output buffer."""
        arch = self.arch
        sizes = arch.west_buffer_bytes, arch.north_buffer_bytes, arch.output_buffer_bytes
        west, north, out = (size // (2 * arch.group) for size in sizes)
        return west, north, out


def _problems_of_references(tables: Tables) -> Iterator[str]:
    """Say of every row which tensor it names that does not exist."""
    count = len(tables.tensors)
    named = [(f"views[{row}].tensors", tensor) for row, view in enumerate(tables.views) for tensor in view.tensors]
    named += [(f"updates[{row}].weight", update.weight) for row, update in enumerate(tables.updates)]
    for table, rows in (("kernels", tables.kernels), ("updates", tables.updates)):
        for row, work in enumerate(rows):
            for field in ("reads", "writes"):
                named += [(f"{table}[{row}].{field}", tensor) for tensor in getattr(work, field)]
    return (
        f"{name} must be less than the number of tensors ({count}), not {tensor}" for name, tensor in named if tensor >= count
    )


def _problems_of_view(view: View, arch: Arch) -> Iterator[str]:
    """Say what a view lacks for its side; all of it together must have less than 2**63 bits."""
    if view.side == "out":
        if view.cols < 1:
            yield f"cols must be at least 1 on side out, not {view.cols}"
        if view.elem_bits not in (16, 32):
            yield f"elem_bits must be 16 or 32 on side out, not {view.elem_bits}"
    else:
        for field in ("groups", "group_bits", "distinct"):
            if getattr(view, field) < 1:
                yield f"{field} must be at least 1 on side {view.side}, not {getattr(view, field)}"
    if view.prune_keep:
        if view.side != "north":
            yield f"prune_keep must be 0 on side {view.side}, not {view.prune_keep}"
        if not view.prune_group or arch.group % view.prune_group:
            yield f"prune_group must divide the group of {arch.name} ({arch.group}), not {view.prune_group}"
        elif view.prune_keep > view.prune_group:
            yield f"prune_keep must be at most prune_group ({view.prune_group}), not {view.prune_keep}"
    if _most_bits(view, arch) >= 2**63:
        yield f"rows must be few enough for less than 2**63 bits, not {view.rows}"


def _most_bits(view: View, arch: Arch) -> int:
    """Return a number of bits that no tile of `view` exceeds."""
    if view.side == "out":
        return 32 * (view.rows + view.pad_rows) * (view.cols + view.pad_cols)
    entries = view.entry_bits(arch) if view.prune_group else 0
    return max(view.rows * view.row_bits + view.halo_bits, view.rows * view.groups * max(view.group_bits, entries))


def _problems_of_mode(mode: Mode, arch: Arch) -> Iterator[str]:
    if mode.dataflow not in arch.dataflows:
        yield f"dataflow must be one of {', '.join(arch.dataflows)} of {arch.name}, not {mode.dataflow}"
    if mode.row_lanes not in arch.row_lanes:
        yield f"row_lanes must be one of {', '.join(map(str, arch.row_lanes))} of {arch.name}, not {mode.row_lanes}"
    if mode.group > arch.group:
        yield f"group must be at most the group of {arch.name} ({arch.group}), not {mode.group}"
    if mode.keep > mode.group:
        yield f"keep must be at most group ({mode.group}), not {mode.keep}"


def describe_tables(error: ValidationError) -> list[str]:
    """Return every problem of a validation of `Tables`, or of a row, as "table[row].field must be constraint, not value"."""
    lines: list[InitErrorDetails] = []
    for problem in error.errors(include_url=False):
        loc, kind = problem["loc"], problem["type"]
        if len(loc) > 2 and isinstance(loc[1], int):
            loc = (*loc[:2], "row", *loc[2:])  # describe_validation leaves out what stands here, the kind of a layer
        kind = "literal_error" if kind == "enum" else kind
        lines.append(InitErrorDetails(type=kind, loc=loc, input=problem["input"], ctx=problem.get("ctx", {})))
    texts = describe_validation(ValidationError.from_exception_data("Tables", lines))
    return [text if text.isprintable() else ascii(text)[1:-1] for text in texts]  # a field that is not known has any name


@dataclass(frozen=True, eq=False)
class Program:
    """Tables and instructions (an array of `INSTRUCTION`) of one training step."""

    tables: Tables
    instructions: Instructions

    def __post_init__(self) -> None:
        if self.instructions.dtype != INSTRUCTION or self.instructions.ndim != 1:
            table = self.instructions
            raise ScheduleError(f"instructions must be a list of INSTRUCTION, not {table.ndim}-dimensional {table.dtype}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Program):
            return NotImplemented
        return self.tables == other.tables and np.array_equal(self.instructions, other.instructions)

    __hash__ = None  # type: ignore[assignment]  # an array can change


def used_fields(engine: Engine, side: Side | None = None, tile: bool = False) -> tuple[str, ...]:
    """Return which of `WORK_FIELDS` an instruction uses: `side` is that of a LOAD's view, `tile` that of a VECTOR's kernel.

    The table of docs/isa.md, section 3; without `side` a LOAD has what every LOAD uses.
    """
    if engine is Engine.LOAD:
        return _USED_BY_LOAD[side]
    if engine is Engine.VECTOR and tile:
        return _in_order("repeat", *_RESULTS, "words")
    return _USED[engine]


def _in_order(*fields: str) -> tuple[str, ...]:
    return tuple(field for field in WORK_FIELDS if field in fields)


_RESULTS = ("out", "row", "rows", "col", "cols")
_WEST = ("west", "row", "rows", "group", "groups")
_NORTH = ("north", "col", "cols", "group", "groups")
_USED = {
    Engine.STORE: _in_order("repeat", *_RESULTS, "words", "bytes"),
    Engine.COMPUTE: _in_order("repeat", *_RESULTS, *_WEST, *_NORTH, "words"),
    Engine.PRUNE: _in_order("repeat", *_NORTH, "words"),
    Engine.VECTOR: (),
    Engine.UPDATE: (),
}
_USED_BY_LOAD: dict[Side | None, tuple[str, ...]] = {
    "west": _in_order("repeat", *_WEST, "words", "bytes"),
    "north": _in_order("repeat", *_NORTH, "words", "bytes"),
    "out": _in_order("repeat", *_RESULTS, "words", "bytes"),
    None: ("repeat", "words", "bytes"),
}
