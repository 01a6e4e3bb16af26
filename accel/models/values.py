"""What the lowering knows of a tensor, and the sizes of a product."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod

from accel.models.attributes import Operand
from accel.models.drafts import Source, Use
from accel.models.layouts import Layout
from accel.models.records import Shape


@dataclass(frozen=True)
class Value:
    """What a tensor is made of: the layers it comes from, and parameters that reach it without any work between."""

    shape: Shape
    sources: tuple[Source, ...] = ()
    params: tuple[Use, ...] = ()
    batched: bool = False
    """Whether it is different for every sample."""
    spread: bool = False
    """Whether it was copied for every sample: work on it is done for every sample, too."""
    layout: Layout | None = None
    """Where its elements lie in the one tensor that it is, if it is a whole one."""
    image: Shape = ()
    """(pixels..., channels) of a sample of that tensor as it is stored, if it is an image."""

    @property
    def elems(self) -> int:
        """Number of elements, all samples together."""
        return prod(self.shape)

    @property
    def is_constant(self) -> bool:
        """Whether nothing in a step changes it."""
        return not (self.sources or self.params or self.batched)

    @property
    def is_parameter(self) -> bool:
        """Whether it is parameters and nothing else."""
        return bool(self.params) and not self.sources

    @property
    def operand(self) -> Operand:
        """It as an operator reads it: one whole tensor, or a whole parameter, or something else."""
        whole = len(self.params) == 1 and self.params[0].elems == self.params[0].parameter.elems
        is_tensor = len(self.sources) == 1 and not self.sources[0].cut and not self.params and not self.spread
        return Operand(self.shape, self.layout if is_tensor else None, whole and not self.sources)

    @property
    def trains(self) -> bool:
        """Whether a gradient of it may be wanted."""
        return bool(self.sources) or any(use.parameter.trainable for use in self.params)

    @property
    def is_cut(self) -> bool:
        """Whether no gradient flows back from it."""
        return bool(self.sources) and all(source.cut for source in self.sources)

    def narrow(self, elems: int) -> Value:
        """Return the value as a tensor of so many elements: of one parameter, as many of it are seen."""
        if len(self.params) != 1:
            return self
        return replace(self, params=tuple(Use(use.parameter, min(elems, use.elems)) for use in self.params))

    def cut(self) -> Value:
        """Return the value as something that no gradient flows back through sees it."""
        frozen = tuple(Use(replace(use.parameter, trainable=False), use.elems) for use in self.params)
        return replace(self, sources=tuple(replace(source, cut=True) for source in self.sources), params=frozen)


@dataclass(frozen=True)
class Dims:
    """`count` products (m x k) by (k x n), all samples together; a weight among the operands holds `groups` matrices."""

    count: int
    m: int
    n: int
    k: int
    groups: int = 1
