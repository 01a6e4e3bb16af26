"""`TraceBuilder`: writes a trace layer by layer and keeps track of shapes, so that a definition reads like the network."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import ValidationError

from accel.errors import TraceError, describe_validation
from accel.trace import Attention, Conv, Layer, Linear, Trace, Vector
from accel.validation import refuse

if TYPE_CHECKING:
    from accel.vector_ops import VectorOpName

Shape = tuple[int, ...]
"""Sizes per sample: (channels, height, width), (rows, features) or (features,)."""

_LayerT = TypeVar("_LayerT", Conv, Linear, Attention, Vector)


class TraceBuilder:
    """A trace under construction.

    Every method appends one layer and returns its name. A layer reads `source`, by default the layer before it (`last`); a
    name used again gets `_1`, `_2`, ... at its end, as a module called twice does.
    """

    def __init__(self, name: str, inputs: dict[str, Shape]) -> None:
        """Start a trace of network `name`; `inputs` gives each input's sizes per sample, the first one is read first."""
        self.name = name
        self.last = next(iter(inputs))
        self._inputs = tuple(inputs)
        self._shapes = dict(inputs)
        self._layers: list[Layer] = []

    def build(self) -> Trace:
        """Return the checked trace."""
        return Trace(name=self.name, inputs=self._inputs, layers=tuple(self._layers))

    def shape(self, source: str | None = None) -> Shape:
        """Return the sizes per sample of a layer's output or of a network input."""
        source = source or self.last
        if source not in self._shapes:
            raise TraceError(f"{self.name}: source must name an earlier layer or a network input, not {source!r}")
        return self._shapes[source]

    def reshape(self, *shape: int) -> None:
        """Name the sizes of the last output anew; nothing is computed or moved."""
        if prod(shape) != prod(self.shape()):
            raise TraceError(f"{self.name}: shape must hold the {prod(self.shape())} elements of {self.last!r}, not {shape}")
        self._shapes[self.last] = shape

    def flatten(self) -> None:
        """Make one vector of the last output."""
        self.reshape(prod(self.shape()))

    def select_row(self) -> None:
        """Go on with one row of the last output (the class token): a slice, which costs nothing."""
        _, features = self._dims(self.last, 2)
        self._shapes[self.last] = (features,)

    def conv(
        self,
        name: str,
        out_channels: int,
        kernel: int,
        *,
        stride: int = 1,
        padding: int = 0,
        groups: int = 1,
        bias: bool = False,
        source: str | None = None,
    ) -> str:
        """Append a convolution with a square kernel."""
        source = source or self.last
        channels, *size = self._dims(source, 3)
        layer = self._new(
            Conv,
            name,
            (source,),
            in_channels=channels,
            out_channels=out_channels,
            in_size=tuple(size),
            kernel=(kernel,) * 2,
            stride=(stride,) * 2,
            padding=(padding,) * 2,
            dilation=(1, 1),
            groups=groups,
            bias=bias,
        )
        return self._place(layer, (out_channels, *layer.out_size))

    def linear(
        self, name: str, out_features: int, *, bias: bool = True, weight: str | None = None, source: str | None = None
    ) -> str:
        """Append a fully connected layer over the last dimension."""
        source = source or self.last
        *rows, features = self.shape(source)
        if len(rows) > 1:
            raise TraceError(f"{self.name}: input of {name!r} must be rows of features, not {self.shape(source)}; reshape it")
        layer = self._new(
            Linear,
            name,
            (source,),
            in_features=features,
            out_features=out_features,
            rows=prod(rows),
            bias=bias,
            weight=weight,
        )
        return self._place(layer, (*rows, out_features))

    def attention(self, name: str, heads: int, head_dim: int, *, sources: tuple[str, str, str], causal: bool = False) -> str:
        """Append softmax(Q K^T) V of query, key and value, which may all be slices of one layer's output."""
        q_len, kv_len = (self._dims(source, 2)[0] for source in sources[:2])
        layer = self._new(Attention, name, sources, heads=heads, q_len=q_len, kv_len=kv_len, head_dim=head_dim, causal=causal)
        return self._place(layer, (q_len, heads * head_dim))

    def vector(self, op: VectorOpName, name: str, *, params: int = 0, source: str | None = None) -> str:
        """Append an operator whose output is as large as its input: an activation, softmax, dropout."""
        source = source or self.last
        return self._vector(op, name, (source,), self.shape(source), params=params)

    def batch_norm(self, name: str, *, source: str | None = None) -> str:
        """Append a batch norm with scale and shift per channel."""
        return self.vector("batch_norm", name, params=2 * self.shape(source)[0], source=source)

    def layer_norm(self, name: str, *, source: str | None = None) -> str:
        """Append a layer norm with scale and shift per feature."""
        return self.vector("layer_norm", name, params=2 * self.shape(source)[-1], source=source)

    def max_pool(self, name: str, kernel: int, *, stride: int | None = None, padding: int = 0) -> str:
        """Append a max pool with a square window; by default the windows do not overlap."""
        channels, *size = self._dims(self.last, 3)
        out = tuple((length + 2 * padding - kernel) // (stride or kernel) + 1 for length in size)
        return self._vector("max_pool", name, (self.last,), (channels, *out), window=kernel**2)

    def global_avg_pool(self, name: str) -> str:
        """Append the mean over height and width."""
        channels, height, width = self._dims(self.last, 3)
        return self._vector("avg_pool", name, (self.last,), (channels,), window=height * width)

    def add(self, name: str, left: str, right: str) -> str:
        """Append the sum of two outputs of one shape."""
        if self.shape(left) != self.shape(right):
            raise TraceError(
                f"{self.name}: inputs of {name!r} must have one shape, not {self.shape(left)} and {self.shape(right)}"
            )
        return self._vector("add", name, (left, right), self.shape(left))

    def add_table(self, name: str, *, table_rows: int | None = None, extra_rows: int = 0) -> str:
        """Append the addition of a trained table to the last output, row by row (position embeddings).

        The table has as many rows as the output unless `table_rows` says more. `extra_rows` trained rows (class tokens) are
        put before the output first and added to as well.
        """
        rows, features = self._dims(self.last, 2)
        shape = (rows + extra_rows, features)
        params = ((table_rows or shape[0]) + extra_rows) * features
        return self._vector("add", name, (self.last,), shape, in_elems=prod(shape), params=params)

    def embedding(self, name: str, table_rows: int, features: int, *, source: str, weight: str | None = None) -> str:
        """Append a look-up of one row of a trained table for each index of `source`."""
        shape = (*self.shape(source), features)
        return self._vector("embedding", name, (source,), shape, params=table_rows * features, weight=weight)

    def cross_entropy(self, name: str = "loss") -> str:
        """Append the loss over the classes in the last dimension; its target counts as no input."""
        *rows, classes = self.shape()
        return self._vector("cross_entropy", name, (self.last,), (prod(rows),), window=classes)

    def _vector(self, op: VectorOpName, name: str, inputs: tuple[str, ...], shape: Shape, **fields: Any) -> str:
        in_elems = sum(prod(self.shape(source)) for source in inputs)
        return self._place(
            self._new(Vector, name, inputs, **{"op": op, "in_elems": in_elems, "out_elems": prod(shape), **fields}), shape
        )

    def _dims(self, source: str, dims: int) -> Shape:
        shape = self.shape(source)
        if len(shape) != dims:
            raise TraceError(f"{self.name}: shape of {source!r} must have {dims} dimensions, not {shape}; reshape it")
        return shape

    def _new(self, layer_type: type[_LayerT], name: str, inputs: tuple[str, ...], **fields: Any) -> _LayerT:
        try:
            return layer_type(name=self._unique(name), inputs=inputs, **fields)
        except ValidationError as error:
            raise refuse(TraceError, f"{self.name}, layer {name!r}", describe_validation(error)) from None

    def _place(self, layer: Layer, shape: Shape) -> str:
        self._layers.append(layer)
        self._shapes[layer.name] = shape
        self.last = layer.name
        return layer.name

    def _unique(self, name: str) -> str:
        unique, count = name, 0
        while unique in self._shapes:
            count += 1
            unique = f"{name}_{count}"
        return unique
