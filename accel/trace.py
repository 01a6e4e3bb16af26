"""`Trace`: the layers of one training step of a network, with shapes per sample; no torch needed.

The batch size is not part of a trace: it is chosen when the trace is simulated. Layers stand in an order in which each
one's inputs come before it; an input is the name of another layer or of an input of the network. Operators that only
move or rename data (reshape, concat, slice) are left out: their consumers name the producers instead.
docs/formats.md describes the JSON form.
"""

from __future__ import annotations

import json
from collections import Counter
from functools import cached_property
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import Field, TypeAdapter, ValidationError, model_validator

from accel.errors import TraceError, UnsupportedOpError, describe_validation
from accel.validation import Amount, Checked, Count, Size, Text, parse_json, read_text, refuse, write_text
from accel.vector_ops import VectorOpName

SCHEMA_VERSION: Literal[1] = 1

Sizes = Annotated[tuple[Size, ...], Field(min_length=1, max_length=3)]
Counts = Annotated[tuple[Count, ...], Field(min_length=1, max_length=3)]
Number = Annotated[float, Field(allow_inf_nan=False)]
Attribute = bool | int | Number | Text | Annotated[tuple[int, ...], Field(max_length=8)]
Attributes = Annotated[dict[Text, Attribute], Field(max_length=32)]
"""What an operator computes, beyond its kind: docs/formats.md lists names and meanings."""


class _Layer(Checked):
    name: Text
    inputs: Annotated[tuple[Text, ...], Field(min_length=1)]
    reads_moved: bool = False
    """Some input is read in parts or in another order than it is stored in: such a layer can be timed, not interpreted."""


class _WeightLayer(_Layer):
    bias: bool = False
    trainable: bool = True
    """A frozen layer has no weight gradient and no update."""
    weight: Text | None = None
    """Text of a weight tensor shared with other layers (tied weights, a module called twice); by default its own."""


class Conv(_WeightLayer):
    """A convolution over one, two or three dimensions, or a transposed one; sizes per sample, outermost dimension first."""

    op: Literal["conv"] = "conv"
    in_channels: Size
    out_channels: Size
    in_size: Sizes
    kernel: Sizes
    stride: Sizes
    padding: Counts
    dilation: Sizes
    groups: Size = 1
    transposed: bool = False
    output_padding: Counts | None = None

    @model_validator(mode="after")
    def _check(self) -> Self:
        dims = len(self.in_size)
        problems = [
            f"{field} must have {dims} entries like in_size, not {len(getattr(self, field))}"
            for field in ("kernel", "stride", "padding", "dilation")
            if len(getattr(self, field)) != dims
        ]
        if self.output_padding is not None and len(self.output_padding) != dims:
            problems.append(f"output_padding must have {dims} entries like in_size, not {len(self.output_padding)}")
        problems += [
            f"groups must divide {field} ({getattr(self, field)}), not {self.groups}"
            for field in ("in_channels", "out_channels")
            if getattr(self, field) % self.groups
        ]
        if self.output_padding is not None and not self.transposed:
            problems.append("output_padding must be left out unless transposed is true")
        if not problems:
            problems = self._check_extent()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _check_extent(self) -> list[str]:
        if self.transposed:
            return [f"out_size must be at least 1, not {size}" for size in self.out_size if size < 1]
        return [
            f"kernel must be at most the padded input ({size + 2 * pad}), not {extent}; "
            "raise padding or make the kernel smaller"
            for size, pad, extent in zip(self.in_size, self.padding, self.kernel_extent, strict=True)
            if extent > size + 2 * pad
        ]

    @property
    def kernel_extent(self) -> tuple[int, ...]:
        """Input elements from a kernel's first tap to its last, per dimension."""
        return tuple(dil * (taps - 1) + 1 for taps, dil in zip(self.kernel, self.dilation, strict=True))

    @property
    def out_size(self) -> tuple[int, ...]:
        """Output elements per dimension."""
        sizes = zip(self.in_size, self.stride, self.padding, self.kernel_extent, strict=True)
        if self.transposed:
            extra = self.output_padding or (0,) * len(self.in_size)
            return tuple(
                (size - 1) * step - 2 * pad + extent + more
                for (size, step, pad, extent), more in zip(sizes, extra, strict=True)
            )
        return tuple((size + 2 * pad - extent) // step + 1 for size, step, pad, extent in sizes)

    @property
    def channels_per_group(self) -> tuple[int, int]:
        """Input and output channels of one convolution group: what FF and BP reduce over, tap by tap."""
        return self.in_channels // self.groups, self.out_channels // self.groups

    @property
    def weight_elems(self) -> int:
        """Elements of the weight tensor."""
        return self.out_channels * self.in_channels // self.groups * prod(self.kernel)

    @property
    def bias_elems(self) -> int:
        """Elements of the bias."""
        return self.out_channels if self.bias else 0

    @property
    def out_elems(self) -> int:
        """Output elements per sample."""
        return self.out_channels * prod(self.out_size)

    @property
    def in_elems(self) -> int:
        """Input elements per sample."""
        return self.in_channels * prod(self.in_size)


class Linear(_WeightLayer):
    """A fully connected layer applied to `rows` vectors per sample (tokens, or 1)."""

    op: Literal["linear"] = "linear"
    in_features: Size
    out_features: Size
    rows: Size = 1

    @property
    def channels_per_group(self) -> tuple[int, int]:
        """Input and output features: what FF and BP reduce over."""
        return self.in_features, self.out_features

    @property
    def weight_elems(self) -> int:
        """Elements of the weight tensor."""
        return self.in_features * self.out_features

    @property
    def bias_elems(self) -> int:
        """Elements of the bias."""
        return self.out_features if self.bias else 0

    @property
    def out_elems(self) -> int:
        """Output elements per sample."""
        return self.rows * self.out_features

    @property
    def in_elems(self) -> int:
        """Input elements per sample."""
        return self.rows * self.in_features


class Matmul(_Layer):
    """`count` products (m x k) by (k x n) of two computed operands per sample; inputs are lhs and rhs (or one for both)."""

    op: Literal["matmul"] = "matmul"
    m: Size
    n: Size
    k: Size
    count: Size = 1

    @model_validator(mode="after")
    def _check(self) -> Self:
        if len(self.inputs) > 2:
            raise ValueError(f"inputs must name lhs and rhs, or one tensor for both, not {list(self.inputs)}")
        return self

    @property
    def out_elems(self) -> int:
        """Output elements per sample."""
        return self.count * self.m * self.n


class Attention(_Layer):
    """softmax(Q K^T) V over `heads` heads per sample; inputs are query, key and value.

    With fewer `kv_heads` several query heads share one key and value head. A causal mask is a vector operation inside softmax:
    the products run in full.
    """

    op: Literal["attention"] = "attention"
    heads: Size
    kv_heads: Size | None = None
    q_len: Size
    kv_len: Size
    head_dim: Size
    causal: bool = False
    scale: Number | None = None
    """What scores are multiplied by; 1 / sqrt(head_dim) where it is left out."""
    masked: bool = False
    """There is a mask beside the causal one, or dropout: such a layer can be timed, not interpreted."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if len(self.inputs) != 3:
            problems.append(f"inputs must name query, key and value, not {list(self.inputs)}")
        if self.kv_heads is not None and self.heads % self.kv_heads:
            problems.append(f"kv_heads must divide heads ({self.heads}), not {self.kv_heads}")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def score_elems(self) -> int:
        """Elements of the attention scores per sample."""
        return self.heads * self.q_len * self.kv_len

    @property
    def out_elems(self) -> int:
        """Output elements per sample."""
        return self.heads * self.q_len * self.head_dim


class Vector(_Layer):
    """An operator of the vector unit; `accel.vector_ops` prices each kind."""

    inputs: tuple[Text, ...]
    """Only an operator done once per step, on parameters alone, has none."""
    op: VectorOpName
    in_elems: Amount
    """Elements of all inputs together, per sample."""
    out_elems: Amount
    params: Count = 0
    """Trainable parameters (scale and shift of a norm, the table of an embedding)."""
    window: Size = 1
    """Input elements that one output element looks at: pooling, interpolation, reductions, losses."""
    trainable: bool = True
    weight: Text | None = None
    per_step: bool = False
    """Done once per step whatever the batch, because no network input reaches it: sizes are those of the whole step."""
    attributes: Attributes | None = None
    """What it computes: docs/formats.md. Without them the operator can be timed, not interpreted."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.inputs and not self.per_step:
            raise ValueError("inputs must have 1 or more entries unless per_step is true, not ()")
        return self


class Free(_Layer):
    """An operator that could not be lowered and that the user allowed: it costs nothing, and every report names it."""

    op: Literal["free"] = "free"
    kind: Text


WeightLayer = Conv | Linear
Layer = Annotated[Conv | Linear | Matmul | Attention | Vector | Free, Field(discriminator="op")]
_KNOWN_OPS = {"conv", "linear", "matmul", "attention", "free", *get_args(VectorOpName)}


class Trace(Checked):
    """The layers of one training step; see the module's docstring and docs/formats.md."""

    schema_version: Literal[1] = 1
    name: Text
    inputs: tuple[Text, ...]
    """Names of the network's inputs: none of them needs a gradient."""
    layers: tuple[Layer, ...]

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [f"{field} must have at least 1 entry, not 0" for field in ("inputs", "layers") if not getattr(self, field)]
        known = set(self.inputs)
        for index, layer in enumerate(self.layers):
            problems += [
                f"layers[{index}].inputs must name an earlier layer or a network input, not {source!r}"
                for source in layer.inputs
                if source not in known
            ]
            if layer.name in known:
                problems.append(f"layers[{index}].name must be unique, not {layer.name!r} again")
            known.add(layer.name)
        problems += self._check_per_step()
        if problems:
            raise ValueError("\n".join(problems))
        return self

    def _check_per_step(self) -> list[str]:
        once = {layer.name for layer in self.layers if isinstance(layer, Vector) and layer.per_step}
        return [
            f"layers[{index}].inputs must name layers done once per step like it, not {source!r}"
            for index, layer in enumerate(self.layers)
            if layer.name in once
            for source in layer.inputs
            if source not in once
        ]

    @cached_property
    def needs_grad(self) -> frozenset[str]:
        """Names of the layers whose output has a gradient: they or something upstream can be trained."""
        found: set[str] = set()
        for layer in self.layers:
            trained = isinstance(layer, WeightLayer) and layer.trainable
            trained |= isinstance(layer, Vector) and layer.trainable and layer.params > 0
            if trained or any(source in found for source in layer.inputs):
                found.add(layer.name)
        return frozenset(found)

    def has_input_grad(self, layer: Layer) -> bool:
        """Whether some input of `layer` needs a gradient: then, and only then, the layer has a BP stage."""
        return any(source in self.needs_grad for source in layer.inputs)

    @property
    def parameters(self) -> int:
        """Trained and frozen parameters, shared ones once."""
        found: Counter[tuple[str, str]] = Counter()
        for layer in self.layers:
            if isinstance(layer, WeightLayer | Vector):
                name = layer.weight or layer.name
                weight, bias = (layer.params, 0) if isinstance(layer, Vector) else (layer.weight_elems, layer.bias_elems)
                found |= Counter({(name, "weight"): weight, (name, "bias"): bias})
        return found.total()

    @classmethod
    def from_fields(cls, fields: Any, source: str, allow_ops: frozenset[str] = frozenset()) -> Trace:
        """Return the checked trace; `source` names it in errors, `allow_ops` are unknown operators counted as free."""
        if isinstance(fields, dict):
            version = fields.get("schema_version", "missing")
            if version != SCHEMA_VERSION:
                raise TraceError(f"{source}: schema_version must be {SCHEMA_VERSION}, not {version!r}; export it again")
            if "layers" in fields:
                fields = {**fields, "layers": _free_unknown_ops(fields["layers"], source, allow_ops)}
        try:
            return _JSON.validate_json(json.dumps(fields))
        except ValidationError as error:
            raise refuse(TraceError, source, describe_validation(error)) from None

    @classmethod
    def load(cls, path: str | Path, allow_ops: frozenset[str] = frozenset()) -> Trace:
        """Return the trace of a JSON file; all problems of the file come in one `TraceError`."""
        text = read_text(Path(path), TraceError)
        return cls.from_fields(parse_json(text, str(path), TraceError), str(path), allow_ops)

    def to_json(self) -> str:
        """Return the JSON text that `load` reads; fields at their defaults are left out."""
        fields = self.model_dump(mode="json", exclude_defaults=True)
        layers = [
            json.dumps({"op": layer.op, **kept}, ensure_ascii=False)
            for layer, kept in zip(self.layers, fields.pop("layers"), strict=True)
        ]
        head = json.dumps({"schema_version": self.schema_version, **fields}, indent=1)
        return head[:-2] + ',\n "layers": [\n  ' + ",\n  ".join(layers) + "\n ]\n}\n"

    def save(self, path: str | Path) -> None:
        """Write the JSON file that `load` reads."""
        write_text(Path(path), self.to_json(), TraceError)

    @classmethod
    def json_schema(cls) -> dict[str, Any]:
        """Return the JSON Schema of the file form."""
        return _JSON.json_schema()


_JSON = TypeAdapter(Trace)


def _free_unknown_ops(layers: Any, source: str, allow_ops: frozenset[str]) -> Any:
    if not isinstance(layers, list):
        return layers
    unknown: Counter[str] = Counter()
    result = []
    for layer in layers:
        op = layer.get("op") if isinstance(layer, dict) else None
        if not isinstance(op, str) or op in _KNOWN_OPS:
            result.append(layer)
        elif op in allow_ops:
            result.append({"op": "free", "kind": op, "name": layer.get("name"), "inputs": layer.get("inputs")})
        else:
            unknown[op] += 1
    if unknown:
        listed = ", ".join(f"{repr(op)[1:-1]} ({count})" for op, count in sorted(unknown.items()))
        plural = "s" if len(unknown) > 1 else ""
        raise UnsupportedOpError(
            f"{source}: {len(unknown)} unsupported operator{plural}: {listed}; add them to --allow-ops to count them as free"
        )
    return result
