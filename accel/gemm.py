"""Matrix products of a training step: their shapes, operands and work, free of any network or machine.

``out (m x n) = lhs (m x k) . rhs (k x n)`` with ``k = k_taps * k_inner``; lhs enters the array from the west, rhs from the
north. A group of an N:M pattern lies along k_inner and never crosses a tap.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

from accel.errors import ScheduleError
from accel.sparsity import DENSE, NMPattern
from accel.units import ceil_div

if TYPE_CHECKING:
    from accel.access import Access  # loads NumPy, which a command's help does not need

FP16_BITS = 16
FP32_BITS = 32
FP16_BYTES = FP16_BITS // 8
FP32_BYTES = FP32_BITS // 8

MAX_MACS = 2**52
"""Products above this many multiply-accumulates are refused: their cycles and bits are 64-bit integers."""


class Stage(StrEnum):
    """The four stages of a training step."""

    FORWARD = "FF"
    INPUT_GRAD = "BP"
    WEIGHT_GRAD = "WU"
    OPTIMIZER = "OPT"


@dataclass(frozen=True)
class GemmShape:
    """`count` equal products of (m x k) by (k x n), k made of `k_taps` runs of `k_inner` elements."""

    m: int
    n: int
    k_taps: int
    k_inner: int
    count: int = 1

    @property
    def k(self) -> int:
        """Length of the reduction."""
        return self.k_taps * self.k_inner

    @property
    def macs(self) -> int:
        """Multiply-accumulates of all `count` products, nothing skipped."""
        return self.count * self.m * self.n * self.k

    def groups(self, group: int) -> int:
        """Return the number of groups along k: each tap ends with a zero-padded group of its own."""
        return self.k_taps * ceil_div(self.k_inner, group)

    def useful_macs(self, pattern: NMPattern) -> int:
        """Return the multiply-accumulates left when one operand follows `pattern` along k."""
        return self.count * self.m * self.n * self.k_taps * pattern.kept_of(self.k_inner)


@dataclass(frozen=True)
class Operand:
    """How one operand lies in DRAM, and so what a tile of it costs to load.

    A tile covers `outer` rows of lhs (or columns of rhs). With all of k it is
    ``min(outer, distinct) * row_elems + halo_elems`` elements: im2col rows share pixels, so `row_elems` is what one more row
    adds and `halo_elems` what the first one needs besides. A chunk of k costs ``min(outer, distinct) * chunk_scale`` elements
    per element of k, or its share of `row_elems` if that is more. `distinct` is the number of outer rows that hold different
    data (the taps of a weight gradient re-read the same pixels).
    """

    name: str
    row_elems: int
    distinct: int
    halo_elems: int = 0
    chunk_scale: int = 1
    pattern: NMPattern = DENSE
    prune_online: bool = False
    """Pruned by SORE on its way in, from a dense copy, instead of read compact."""
    tensors: tuple[str, ...] = ()
    """The tensors it is read from, side by side."""
    access: Access | None = field(default=None, compare=False)
    """Where its elements lie, if that is known."""


@dataclass(frozen=True)
class Gemm:
    """One product of one layer in one stage, as the scheduler sees it."""

    layer: str
    stage: Stage
    part: str
    """Which product of the layer's stage: "" if there is one, else for example "phase 0,1" or "scores"."""
    shape: GemmShape
    lhs: Operand
    rhs: Operand
    out_bits: int = FP16_BITS
    macs_nominal: int = 0
    """What frameworks count for this product: padding included, an input gradient like its forward."""
    out_elems: int = 0
    """Elements of the result in DRAM for all `count` products."""
    writes: tuple[str, ...] = ()
    """The tensors that its result is, or is a part of."""
    out_access: Access | None = field(default=None, compare=False)
    """Where its results lie, if that is known."""

    def checked(self) -> Gemm:
        """Return this product, refusing one whose cycle counts could overflow 64-bit integers."""
        if self.shape.macs >= MAX_MACS:
            raise ScheduleError(
                f"layer {self.layer}: {self.stage} must have less than 2**52 multiply-accumulates, not {self.shape.macs}; "
                "lower the batch"
            )
        return self

    @property
    def pattern(self) -> NMPattern:
        """The N:M pattern of the operand that has one, else dense."""
        return self.rhs.pattern if self.lhs.pattern.is_dense else self.lhs.pattern

    @property
    def macs_dense(self) -> int:
        """Multiply-accumulates of the product as run, zeros included."""
        return self.shape.macs

    @property
    def macs_useful(self) -> int:
        """Multiply-accumulates with nonzero operands only."""
        return self.shape.useful_macs(self.pattern)
