"""Layers as they are found, and how they become a `Trace`: names, shared parameters, and where no gradient flows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import ValidationError

from accel.errors import TraceError, describe_validation
from accel.models.records import Parameter, Site
from accel.trace import Attention, Conv, Free, Layer, Linear, Matmul, Trace, Vector
from accel.validation import refuse

LayerType = type[Conv] | type[Linear] | type[Matmul] | type[Attention] | type[Vector] | type[Free]


@dataclass(frozen=True)
class Source:
    """A layer (by its number) or a network input (by its name) that something reads; `cut` if no gradient flows back."""

    key: int | str
    cut: bool = False


@dataclass(frozen=True)
class Use:
    """A parameter as something sees it, with the number of its elements that are seen."""

    parameter: Parameter
    elems: int


@dataclass(frozen=True)
class Draft:
    """A layer before it has a name."""

    kind: LayerType
    fields: dict[str, Any]
    inputs: tuple[Source, ...]
    owns: tuple[Use, ...]
    """The parameters it has, the weight first; not the bias of a convolution or linear layer."""
    named_after: Parameter | None
    label: str
    site: Site
    grad: bool
    operands: tuple[int, ...] = ()
    """Of a product of computed operands: how many of the inputs each of them is made of."""
    weight_from: tuple[Source, ...] = ()
    """What the weight is computed by. Not among the inputs: its gradient is dW, summed over the samples, and never dX."""

    @property
    def reads(self) -> tuple[Source, ...]:
        """All that a gradient flows back to."""
        return self.inputs + self.weight_from

    @property
    def is_weight_layer(self) -> bool:
        """Whether it is a convolution or linear layer."""
        return self.kind in (Conv, Linear)

    @property
    def per_step(self) -> bool:
        """Whether it is done once per step."""
        return bool(self.fields.get("per_step", False))

    @property
    def trains(self) -> bool:
        """Whether some parameter it has is trained."""
        return self.grad and any(use.parameter.trainable for use in self.owns)


@dataclass(frozen=True)
class Finisher:
    """Turns drafts into a trace."""

    name: str
    inputs: tuple[str, ...]
    drafts: Sequence[Draft]
    outputs: tuple[Source, ...]

    def trace(self) -> Trace:
        """Return the checked trace."""
        layers = tuple(self._layer(number, draft) for number, draft in enumerate(self.drafts))
        try:
            return Trace(name=self.name, inputs=self.inputs + self._detached, layers=layers)
        except ValidationError as error:
            raise refuse(TraceError, self.name, describe_validation(error)) from None

    @cached_property
    def _reached(self) -> frozenset[int]:
        """The layers that a gradient reaches from the outputs."""
        found: set[int] = set()
        pending = [source.key for source in self.outputs if not source.cut]
        while pending:
            key = pending.pop()
            if isinstance(key, int) and key not in found and self.drafts[key].grad:
                found.add(key)
                pending += [source.key for source in self.drafts[key].reads if not source.cut]
        return frozenset(found)

    @cached_property
    def _needs_grad(self) -> frozenset[int]:
        """The layers with something to train in them or upstream."""
        found: set[int] = set()
        for number, draft in enumerate(self.drafts):
            if number in self._reached and (draft.trains or any(s.key in found for s in draft.reads if not s.cut)):
                found.add(number)
        return frozenset(found)

    def _is_cut(self, reader: int, source: Source) -> bool:
        """Return whether a gradient would be counted, and does not flow, from `reader` to `source`."""
        return source.key in self._needs_grad and (source.cut or reader not in self._reached)

    @cached_property
    def _detached(self) -> tuple[str, ...]:
        """Results that are read without a gradient: for those readers they are like inputs of the network."""
        return tuple(
            dict.fromkeys(
                f"{self._names[source.key]}.detach"
                for number, draft in enumerate(self.drafts)
                for source in self._ordered(draft)
                if isinstance(source.key, int) and not draft.per_step and self._is_cut(number, source)
            )
        )

    def _sources(self, reader: int) -> tuple[str, ...]:
        draft = self.drafts[reader]
        sources = self._ordered(draft)
        if draft.per_step:
            sources = tuple(source for source in sources if not self._is_cut(reader, source))
        return tuple(
            source.key
            if isinstance(source.key, str)
            else self._names[source.key] + (".detach" if self._is_cut(reader, source) else "")
            for source in sources
        )

    def _ordered(self, draft: Draft) -> tuple[Source, ...]:
        """Return the inputs; for each operand of a product one speaks for all it is made of: one with a gradient, if any."""
        if not draft.operands:
            return draft.inputs
        rest = list(draft.inputs)
        chosen = []
        for count in draft.operands:
            operand, rest = rest[:count], rest[count:]
            chosen.append(min(operand, key=lambda source: source.cut or source.key not in self._needs_grad))
        return tuple(chosen)

    @cached_property
    def _names(self) -> tuple[str, ...]:
        taken = set(self.inputs)
        runs = Counter(draft.site.run for draft in self.drafts)
        return tuple(_unique(_name(draft, alone=runs[draft.site.run] == 1), taken) for draft in self.drafts)

    @cached_property
    def _uses(self) -> dict[str, list[int]]:
        """How many elements of each parameter each of its layers sees."""
        uses: dict[str, list[int]] = {}
        for draft in self.drafts:
            for use in draft.owns:
                uses.setdefault(use.parameter.name, []).append(use.elems)
        return uses

    def _is_shared(self, parameter: Parameter) -> bool:
        """Return whether layers share elements of a parameter, rather than each having a slice of its own."""
        uses = self._uses[parameter.name]
        return len(uses) > 1 and sum(uses) > parameter.elems

    def _elems(self, use: Use) -> int:
        """Return the elements that one layer counts as its own."""
        return use.elems if len(self._uses[use.parameter.name]) > 1 else use.parameter.elems

    def _layer(self, number: int, draft: Draft) -> Layer:
        fields = dict(draft.fields)
        trains = draft.trains and number in self._reached
        if draft.is_weight_layer:
            fields["trainable"] = trains
        elif draft.owns:
            counted = [use for use in draft.owns if use.parameter.trainable or not trains]
            fields |= {"params": sum(self._elems(use) for use in counted), "trainable": trains}
        if draft.owns and self._is_shared(draft.owns[0].parameter):
            fields["weight"] = draft.owns[0].parameter.name
        name = self._names[number]
        try:
            return draft.kind(name=name, inputs=self._sources(number), **fields)
        except ValidationError as error:
            raise refuse(TraceError, f"{self.name}, layer {name!r}", describe_validation(error)) from None


def _name(draft: Draft, alone: bool) -> str:
    """Return the parameter's name, or the module's if the layer is all that this leaf module does, or module and operator."""
    site = draft.site
    if draft.named_after is not None:
        return _layer_name(draft.named_after, site.path)
    if site.path and site.leaf and alone:
        return site.path
    return f"{site.path}.{draft.label}" if site.path else draft.label


def _layer_name(parameter: Parameter, path: str) -> str:
    """Return the name without ".weight"; of tied names the one in the module at `path`."""
    own = [name for name in parameter.names if name.rpartition(".")[0] == path]
    name = (own or parameter.names)[0]
    return name.removesuffix(".weight").removesuffix("_weight")


def _unique(name: str, taken: set[str]) -> str:
    unique, count = name, 0
    while unique in taken:
        count += 1
        unique = f"{name}_{count}"
    taken.add(unique)
    return unique
