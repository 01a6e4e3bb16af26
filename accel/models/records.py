"""A captured network as plain records: what `accel.models.capture` writes and `accel.models.lower` reads; no torch here."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Ref:
    """The result of a call, a parameter or an input, by its number."""

    id: int


@dataclass(frozen=True)
class Tensor:
    """Sizes of a tensor, the batch's dimension included; one of integers or booleans has no gradient."""

    shape: Shape
    is_float: bool = True

    @property
    def elems(self) -> int:
        """Number of elements."""
        return prod(self.shape)


@dataclass(frozen=True)
class Parameter:
    """A tensor that the module owns and an optimizer may train; `names` are all it goes by (tied weights)."""

    names: tuple[str, ...]
    elems: int
    trainable: bool

    @property
    def name(self) -> str:
        """The first name it goes by."""
        return self.names[0]


@dataclass(frozen=True)
class Site:
    """Where a call stands: the path of its module, the key of this one run of that module, whether the module has children."""

    path: str
    run: str
    leaf: bool


@dataclass(frozen=True)
class Call:
    """One operator of the network: arguments by the names of its schema, tensors among them as `Ref`."""

    id: int
    op: str
    """Name without name space, overload and the underscore of the in-place form."""
    args: dict[str, Any]
    out: tuple[Tensor | None, ...]
    """Its results; None for one that is no tensor."""
    many: bool
    """Whether it returns a list or tuple rather than one result."""
    site: Site
    grad: bool
    """Whether gradients are recorded (false under `torch.no_grad`)."""
    mutates: Ref | None
    """The argument that an in-place operator overwrites."""

    @property
    def refs(self) -> list[Ref]:
        """The tensors it reads, in the order of its arguments."""
        return list(find_refs(self.args))


@dataclass(frozen=True)
class Graph:
    """A network: named inputs, parameters, and calls in an order in which each one's arguments come before it."""

    name: str
    batch: int
    inputs: dict[int, tuple[str, Tensor]]
    parameters: dict[int, tuple[Parameter, Tensor]]
    constants: dict[int, Tensor]
    calls: tuple[Call, ...]
    outputs: tuple[Ref, ...]


def find_refs(value: Any) -> Iterator[Ref]:
    """Yield every `Ref` inside nested tuples and dicts."""
    if isinstance(value, Ref):
        yield value
    elif isinstance(value, tuple):
        for item in value:
            yield from find_refs(item)
    elif isinstance(value, dict):
        yield from find_refs(tuple(value.values()))


def drop_dead(calls: list[Call], outputs: tuple[Ref, ...]) -> tuple[Call, ...]:
    """Return the calls that an output, or something written in place, depends on."""
    wanted = {ref.id for ref in outputs}
    kept = []
    for call in reversed(calls):
        if call.id in wanted or call.mutates is not None:
            kept.append(call)
            wanted.update(ref.id for ref in call.refs)
    return tuple(reversed(kept))


def list_sites(found: dict[str, Counter[str]]) -> str:
    """Return operators, how many of each there are, and in which modules."""
    return ", ".join(
        f"{op} ({sum(sites.values())} in {', '.join(list(sites)[:3])}{', ...' if len(sites) > 3 else ''})"
        for op, sites in sorted(found.items())
    )
