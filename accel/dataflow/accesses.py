"""Where the operands of each product lie in their tensors: the `Access` of lhs, rhs and results.

Activations are stored channels last, (batch, pixels..., channels) or (batch, rows, features), scores (batch, heads, queries,
keys). Weights are (out, taps..., in), of a transposed convolution (in, taps..., out); dW is (groups, taps..., in, out). What is
not where these rules say (several tensors side by side, a part of one, another order) has no `Access`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import product
from math import prod
from typing import NamedTuple

from accel.access import Access, Axis
from accel.dataflow.context import Context
from accel.gemm import Gemm
from accel.trace import Attention, Conv, Layer, Linear, Matmul, Vector
from accel.units import ceil_div

_once = lru_cache(maxsize=2**10)
"""Layers of a network are often alike, and its steps: most of `lower` would be making their accesses again."""

Terms = tuple[tuple[str, int], ...]
"""(digit, step): digits go by names here."""


class Place(NamedTuple):
    """An axis of a tensor: its size, where digits lie on it."""

    size: int
    terms: Terms
    offset: int = 0


class Digits(NamedTuple):
    """The digits of a product's repeats, rows of lhs, taps, elements of k in a tap, and columns of rhs."""

    repeats: tuple[str, ...]
    m: tuple[str, ...]
    taps: tuple[str, ...]
    k: tuple[str, ...]
    n: tuple[str, ...]


class Accesses(NamedTuple):
    """Of one product; None where an operand does not lie as the rules say."""

    lhs: Access | None = None
    rhs: Access | None = None
    out: Access | None = None

    def of(self, gemm: Gemm) -> Gemm:
        """Return the product with these, but for operands of several tensors."""
        lhs, rhs = (
            replace(operand, access=access if len(operand.tensors) == 1 else None)
            for operand, access in ((gemm.lhs, self.lhs), (gemm.rhs, self.rhs))
        )
        return replace(gemm, lhs=lhs, rhs=rhs, out_access=self.out if len(gemm.writes) == 1 else None)


def product_accesses(
    extents: Mapping[str, int], digits: Digits, lhs: Iterable[Place], rhs: Iterable[Place], out: Iterable[Place]
) -> Accesses:
    """Return the accesses of a product whose three tensors have these axes; `extents` are those of the digits."""
    repeats, m, taps, k, n = digits
    return Accesses(
        _access(extents, lhs, repeats, m, taps, k),
        _access(extents, rhs, repeats, n, taps, k),
        _access(extents, out, repeats, m, (), n),
    )


def _access(
    extents: Mapping[str, int], places: Iterable[Place], repeats: Names, rows: Names, taps: Names, inner: Names
) -> Access:
    numbers = {name: number for number, name in enumerate((*repeats, *rows, *taps, *inner))}
    axes = tuple(
        Axis(size=size, offset=offset, terms=tuple((numbers[name], step) for name, step in terms))
        for size, terms, offset in places
    )
    sizes = (tuple(extents[name] for name in names) for names in (repeats, rows, taps, inner))
    return Access(axes=axes, **dict(zip(("repeats", "rows", "taps", "inner"), sizes, strict=True)))


Names = tuple[str, ...]


@dataclass(frozen=True)
class Grids:
    """A convolution of one batch: `gather` reads the large grid row by row of the small one, `scatter` writes it.

    `rows` counts rows of a linear layer, which has no grids; a linear layer that reads an image has its pixels as grid `image`
    with channels outermost, the order in which PyTorch flattens it.
    """

    batch: int
    groups: int
    large_channels: int
    """Of one group, like `small_channels`."""
    small_channels: int
    large: tuple[int, ...]
    small: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]

    @classmethod
    def of(cls, conv: Conv, batch: int) -> Grids:
        """Return those of a convolution."""
        ends = (conv.in_size, conv.in_channels), (conv.out_size, conv.out_channels)
        (large, large_channels), (small, small_channels) = reversed(ends) if conv.transposed else ends
        channels = large_channels // conv.groups, small_channels // conv.groups
        return cls(batch, conv.groups, *channels, large, small, conv.kernel, conv.stride, conv.padding, conv.dilation)

    @property
    def _dims(self) -> range:
        return range(len(self.large))

    @property
    def _extents(self) -> dict[str, int]:
        sizes = {"batch": self.batch, "group": self.groups, "large": self.large_channels, "small": self.small_channels}
        pixels = {f"pixel {dim}": self.small[dim] for dim in self._dims}
        return sizes | pixels | {f"tap {dim}": self.kernel[dim] for dim in self._dims}

    @property
    def _pixels(self) -> Names:
        return tuple(f"pixel {dim}" for dim in self._dims)

    @property
    def _taps(self) -> Names:
        return tuple(f"tap {dim}" for dim in self._dims)

    def _tensor(self, pixels: Iterable[Place], channels: str, count: int) -> list[Place]:
        """Return (batch, pixels..., channels of all groups)."""
        last = Place(self.groups * count, (("group", count), (channels, 1)))
        return [Place(self.batch, (("batch", 1),)), *pixels, last]

    @property
    def _large_tensor(self) -> list[Place]:
        pixels = [
            Place(self.large[dim], ((f"pixel {dim}", self.stride[dim]), (f"tap {dim}", self.dilation[dim])), -self.padding[dim])
            for dim in self._dims
        ]
        return self._tensor(pixels, "large", self.large_channels)

    @property
    def _small_tensor(self) -> list[Place]:
        pixels = [Place(self.small[dim], ((f"pixel {dim}", 1),)) for dim in self._dims]
        return self._tensor(pixels, "small", self.small_channels)

    def _weight(self, taps: Iterable[Place]) -> list[Place]:
        count = self.small_channels
        first = Place(self.groups * count, (("group", count), ("small", 1)))
        return [first, *taps, Place(self.large_channels, (("large", 1),))]

    @_once
    def gather(self) -> Accesses:
        """Return those of the product that reads the large grid: FF of a convolution."""
        digits = Digits(("group",), ("batch", *self._pixels), self._taps, ("large",), ("small",))
        weight = self._weight(Place(self.kernel[dim], ((f"tap {dim}", 1),)) for dim in self._dims)
        return product_accesses(self._extents, digits, self._large_tensor, weight, self._small_tensor)

    @_once
    def weight_grad(self) -> Accesses:
        """Return those of WU: rows are taps and channels of the large grid."""
        digits = Digits(("group",), (*self._taps, "large"), (), ("batch", *self._pixels), ("small",))
        taps = [Place(self.kernel[dim], ((f"tap {dim}", 1),)) for dim in self._dims]
        ends = Place(self.large_channels, (("large", 1),)), Place(self.small_channels, (("small", 1),))
        out = [Place(self.groups, (("group", 1),)), *taps, *ends]
        return product_accesses(self._extents, digits, self._large_tensor, self._small_tensor, out)

    @_once
    def scatter(self) -> list[Accesses]:
        """Return those of the products that write the large grid, one for each residue class that some tap meets."""
        return [self._scatter(classes) for classes in self._classes() if all(one.taps for one in classes)]

    @_once
    def zeros(self) -> list[Access]:
        """Return where the elements of the large grid lie that no tap meets, one residue class after the other."""
        return [self._zeros(classes) for classes in self._classes() if not all(one.taps for one in classes)]

    def _zeros(self, classes: list[Residue]) -> Access:
        sizes = {f"pixel {dim}": one.pixels for dim, one in enumerate(classes)}
        return _access(self._extents | sizes, self._written(classes), ("group",), ("batch", *self._pixels), (), ("large",))

    def _classes(self) -> Iterator[list[Residue]]:
        for phases in product(*(range(min(step, size)) for step, size in zip(self.stride, self.large, strict=True))):
            yield [self._residue(dim, phase) for dim, phase in enumerate(phases)]

    def _written(self, classes: list[Residue]) -> list[Place]:
        """Return the axes of the large grid as a residue class is written."""
        pixels = [Place(self.large[dim], ((f"pixel {dim}", self.stride[dim]),), one.phase) for dim, one in enumerate(classes)]
        return self._tensor(pixels, "large", self.large_channels)

    def _residue(self, dim: int, phase: int) -> Residue:
        size, step, dilation = self.large[dim], self.stride[dim], self.dilation[dim]
        reach = phase + self.padding[dim]
        taps = [tap for tap in range(self.kernel[dim]) if (reach - tap * dilation) % step == 0]
        return Residue(
            phase, ceil_div(size - phase, step), tuple(taps), tuple((reach - tap * dilation) // step for tap in taps)
        )

    def _scatter(self, classes: list[Residue]) -> Accesses:
        digits = Digits(("group",), ("batch", *self._pixels), self._taps, ("small",), ("large",))
        numbered = list(enumerate(classes))
        sizes = {f"pixel {dim}": one.pixels for dim, one in numbered} | {f"tap {dim}": len(one.taps) for dim, one in numbered}
        reads = [
            Place(self.small[dim], ((f"pixel {dim}", 1), (f"tap {dim}", _step(one.reads))), one.reads[0])
            for dim, one in numbered
        ]
        taps = [Place(self.kernel[dim], ((f"tap {dim}", _step(one.taps)),), one.taps[0]) for dim, one in numbered]
        return product_accesses(
            self._extents | sizes,
            digits,
            self._tensor(reads, "small", self.small_channels),
            self._weight(taps),
            self._written(classes),
        )


class Residue(NamedTuple):
    """Pixels of one dimension of the large grid: those of one residue class, the taps that meet them, in even steps.

    With tap `taps[i]` pixel p of the class reads pixel `reads[i] + p` of the small grid.
    """

    phase: int
    pixels: int
    taps: tuple[int, ...]
    reads: tuple[int, ...]


def _step(numbers: tuple[int, ...]) -> int:
    """Return the step of an arithmetic sequence."""
    return numbers[1] - numbers[0] if len(numbers) > 1 else 0


@dataclass(frozen=True)
class LayerAccesses:
    """The accesses of the products of each kind of layer."""

    context: Context

    def forward(self, layer: Conv | Linear) -> list[Accesses]:
        """Return those of FF, in the order of its products."""
        if not self._reads(layer, 1, layer.in_elems):
            return []
        if isinstance(layer, Linear):
            return [self._linear(layer).forward]
        grids = Grids.of(layer, self._batch)
        return grids.scatter() if layer.transposed else [grids.gather()]

    def input_grad(self, layer: Conv | Linear) -> list[Accesses]:
        """Return those of BP."""
        if not self._reads(layer, 1, layer.in_elems):
            return []
        if isinstance(layer, Linear):
            return [self._linear(layer).input_grad]
        grids = Grids.of(layer, self._batch)
        return [grids.gather()] if layer.transposed else grids.scatter()

    def weight_grad(self, layer: Conv | Linear) -> Accesses:
        """Return those of WU; the gradient of a weight that several layers share would have to be added up."""
        if not self._reads(layer, 1, layer.in_elems) or self._is_shared(layer):
            return Accesses()
        if isinstance(layer, Linear):
            return self._linear(layer).weight_grad
        return Grids.of(layer, self._batch).weight_grad()

    def matmul(self, layer: Matmul) -> dict[str, Accesses]:
        """Return those of FF ("") and of the gradients of "lhs" and "rhs"."""
        if not self._reads(layer, 2, layer.count * layer.m * layer.k, layer.count * layer.k * layer.n):
            return {}
        sizes = {"batch": self._batch, "count": layer.count, "m": layer.m, "n": layer.n, "k": layer.k}

        def tensor(*names: str) -> list[Place]:
            return [Place(sizes[name], ((name, 1),)) for name in ("batch", "count", *names)]

        def product_of(m: str, k: str, n: str, lhs: list[Place], rhs: list[Place], out: list[Place]) -> Accesses:
            return product_accesses(sizes, Digits(("batch", "count"), (m,), (), (k,), (n,)), lhs, rhs, out)

        lhs, rhs, out = tensor("m", "k"), tensor("k", "n"), tensor("m", "n")
        return {
            "": product_of("m", "k", "n", lhs, rhs, out),
            "lhs": product_of("m", "n", "k", out, rhs, lhs),
            "rhs": product_of("k", "m", "n", lhs, out, rhs),
        }

    def attention(self, layer: Attention) -> dict[str, Accesses]:
        """Return those of FF's "scores" and "context" and of BP's "probabilities", "value", "query" and "key"."""
        heads, kv_heads, dim = layer.heads, layer.kv_heads or layer.heads, layer.head_dim
        kv_elems = layer.kv_len * kv_heads * dim
        if not self._reads(layer, 3, layer.out_elems, kv_elems, kv_elems):
            return {}
        sizes = {
            "batch": self._batch,
            "kv": kv_heads,
            "head": heads // kv_heads,
            "q": layer.q_len,
            "k": layer.kv_len,
            "dim": dim,
        }
        batch, heads_of = Place(self._batch, (("batch", 1),)), heads // kv_heads
        queries, keys = Place(layer.q_len, (("q", 1),)), Place(layer.kv_len, (("k", 1),))
        query = [batch, queries, Place(heads * dim, (("kv", heads_of * dim), ("head", dim), ("dim", 1)))]
        key = [batch, keys, Place(kv_heads * dim, (("kv", dim), ("dim", 1)))]
        scores = [batch, Place(heads, (("kv", heads_of), ("head", 1))), queries, keys]

        def product_of(m: Names, k: Names, n: Names, lhs: list[Place], rhs: list[Place], out: list[Place]) -> Accesses:
            return product_accesses(sizes, Digits(("batch", "kv"), m, (), k, n), lhs, rhs, out)

        rows: Names = ("head", "q")
        return {
            "scores": product_of(rows, ("dim",), ("k",), query, key, scores),
            "context": product_of(rows, ("k",), ("dim",), scores, key, query),
            "probabilities": product_of(rows, ("dim",), ("k",), query, key, scores),
            "value": product_of(("k",), rows, ("dim",), scores, query, key),
            "query": product_of(rows, ("k",), ("dim",), scores, key, query),
            "key": product_of(("k",), rows, ("dim",), scores, query, key),
        }

    def image(self, source: str) -> tuple[int, ...]:
        """Return (pixels..., channels) of a sample of `source`, if it is an image: channels first in PyTorch."""
        layer = self.context.by_name.get(source)
        if isinstance(layer, Conv):
            return (*layer.out_size, layer.out_channels)
        if isinstance(layer, Vector):
            image = (layer.attributes or {}).get("image", ())
            return image if isinstance(image, tuple) else ()
        if layer is None:  # an input of the network is an image if a convolution reads it
            convs = (reader for reader in self.context.readers.get(source, ()) if isinstance(reader, Conv))
            return next(((*conv.in_size, conv.in_channels) for conv in convs), ())
        return ()

    def bias(self, layer: Conv | Linear) -> Access:
        """Return where the bias of each result of FF lies, by repeat, row and column of its product: the same in all rows."""
        groups, count = layer.groups if isinstance(layer, Conv) else 1, layer.channels_per_group[1]
        return Access(axes=(Axis(size=groups * count, terms=((0, count), (1, 1))),), repeats=(groups,), inner=(count,))

    @property
    def _batch(self) -> int:
        return self.context.options.batch

    def _reads(self, layer: Layer, count: int, *elems: int) -> bool:
        """Return whether `layer` reads so many tensors, different ones, each whole and in its order."""
        if layer.reads_moved or len(layer.inputs) != count or len(set(layer.inputs)) != count:
            return False
        producers = (self.context.by_name.get(source) for source in layer.inputs)
        return all(
            producer is None or getattr(producer, "out_elems", size) == size
            for producer, size in zip(producers, elems, strict=True)
        )

    def _is_shared(self, layer: Conv | Linear) -> bool:
        return (
            layer.weight is not None
            and sum(
                isinstance(other, Conv | Linear | Vector) and (other.weight or other.name) == layer.weight
                for other in self.context.trace.layers
            )
            > 1
        )

    def _linear(self, layer: Linear) -> _Linear:
        image = self.image(layer.inputs[0])
        is_flattened = layer.rows == 1 and prod(image) == layer.in_features and len(image) > 1
        return _Linear(self._batch, layer.rows, layer.in_features, layer.out_features, image if is_flattened else ())


@dataclass(frozen=True)
class _Linear:
    """A linear layer; of an image (pixels..., channels) it reads channel after channel, as PyTorch flattens it."""

    batch: int
    rows: int
    features: int
    outputs: int
    image: tuple[int, ...]

    @property
    def _extents(self) -> dict[str, int]:
        sizes = {"batch": self.batch, "row": self.rows, "out": self.outputs}
        if not self.image:
            return sizes | {"in": self.features}
        return sizes | {"channel": self.image[-1]} | {f"pixel {dim}": size for dim, size in enumerate(self.image[:-1])}

    @property
    def _features(self) -> Names:
        return ("channel", *(f"pixel {dim}" for dim in range(len(self.image) - 1))) if self.image else ("in",)

    @property
    def _in_axis(self) -> Place:
        """The axis of the features in weight and dW."""
        terms, step = [], 1
        for name in reversed(self._features):
            terms.append((name, step))
            step *= self._extents[name]
        return Place(self.features, tuple(reversed(terms)))

    @property
    def _input(self) -> list[Place]:
        names = ("batch", *self._features[1:], self._features[0]) if self.image else ("batch", "row", "in")
        return [Place(self._extents[name], ((name, 1),)) for name in names]

    @property
    def _output(self) -> list[Place]:
        return [Place(self._extents[name], ((name, 1),)) for name in ("batch", "row", "out")]

    @property
    def _weight(self) -> list[Place]:
        return [Place(self.outputs, (("out", 1),)), self._in_axis]

    @property
    def forward(self) -> Accesses:
        digits = Digits((), ("batch", "row"), (), self._features, ("out",))
        return product_accesses(self._extents, digits, self._input, self._weight, self._output)

    @property
    def input_grad(self) -> Accesses:
        digits = Digits((), ("batch", "row"), (), ("out",), self._features)
        return product_accesses(self._extents, digits, self._output, self._weight, self._input)

    @property
    def weight_grad(self) -> Accesses:
        digits = Digits((), self._features, (), ("batch", "row"), ("out",))
        out = [self._in_axis, self._weight[0]]
        return product_accesses(self._extents, digits, self._input, self._output, out)
