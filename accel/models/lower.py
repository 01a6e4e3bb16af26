"""`Graph` -> `Trace`: follows every tensor from its producers to its readers and writes down the layers between them.

Per sample and per step: what a network input reaches is done for every sample, what only parameters reach is done once per
step, and what neither reaches is a constant and costs nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from accel.errors import TraceError, UnsupportedOpError
from accel.models.attributes import describe, describe_loss
from accel.models.drafts import Draft, Finisher, LayerType, Source, Use
from accel.models.layouts import Layout, channels_last, image_of, input_layout, moved_like, reshaped, row_major
from accel.models.records import Call, Graph, Ref, Shape, Site, list_sites
from accel.models.values import Dims, Value
from accel.trace import Conv, Free, Linear, Matmul, Trace, Vector
from accel.units import ceil_div
from accel.vector_ops import VectorOpName

_ONE_TO_ONE = frozenset(("broadcast_tensors", "atleast_1d", "atleast_2d", "atleast_3d"))
_SPREADING = frozenset(("expand", "expand_as", "repeat", "repeat_interleave", "tile"))

_RANKINGS = frozenset(("argsort", "kthvalue", "sort", "topk"))

Rule = Callable[["Lowering", Call], Value]


class Lowering:
    """One graph on its way to a trace; the rules of `accel.models.aten` call its methods."""

    def __init__(self, graph: Graph, rules: dict[str, Rule], views: frozenset[str], allow_ops: frozenset[str]) -> None:
        """Take the graph, the rule of each operator, those that only rename data, and the operators to count as free."""
        self.graph, self.rules, self.views, self.allow_ops = graph, rules, views, allow_ops
        self.drafts: list[Draft] = []
        self.trained: set[int] = set()
        self.values: dict[int, tuple[Value, ...]] = {}
        self.bases: dict[int, int] = {}
        self.unsupported: dict[str, Counter[str]] = {}
        self.prunes_weights = False
        for number, (name, tensor) in graph.inputs.items():
            layout = input_layout(graph, number, tensor.shape)
            image = image_of(tensor.shape) if layout == channels_last(tensor.shape) != row_major(tensor.shape) else ()
            self.values[number] = (Value(tensor.shape, (Source(name),), batched=True, layout=layout, image=image),)
        for number, (parameter, tensor) in graph.parameters.items():
            self.values[number] = (Value(tensor.shape, params=(Use(parameter, parameter.elems),)),)
        for number, tensor in graph.constants.items():
            self.values[number] = (Value(tensor.shape),)

    def trace(self, loss: VectorOpName | None) -> Trace:
        """Return the trace, with a loss on the network's output if one is wanted."""
        for call in self.graph.calls:
            self._lower(call)
        if self.unsupported:
            raise UnsupportedOpError(self._complaint())
        outputs = [self.value(ref) for ref in self.graph.outputs]
        if loss is not None:
            outputs = [self._loss(loss, outputs)]
        sources = tuple(source for value in outputs for source in value.sources)
        inputs = tuple(name for name, _ in self.graph.inputs.values())
        return Finisher(self.graph.name, inputs, self.drafts, sources).trace()

    # What the rules read and write.

    def value(self, ref: Ref) -> Value:
        """Return what the tensor is made of."""
        return self.values[ref.id][0]

    def operands(self, call: Call) -> list[Value]:
        """Return all tensors that a call reads."""
        return [value for ref in call.refs for value in self.values[ref.id]]

    def optional(self, call: Call, name: str) -> Value | None:
        """Return a tensor argument that may be missing."""
        ref = call.args.get(name)
        return self.value(ref) if isinstance(ref, Ref) else None

    def per_sample(self, call: Call, amount: int, what: str) -> int:
        """Return the share of one sample, refusing work that does not fall into samples."""
        if amount % self.graph.batch:
            raise TraceError(
                f"{self.graph.name}: {call.op} in {call.site.path or self.graph.name} must have a multiple of the batch "
                f"({self.graph.batch}) of {what}, not {amount}; the first dimension of the first input must be the batch, and "
                "no product may run across samples"
            )
        return amount // self.graph.batch

    def join(self, values: Iterable[Value], shape: Shape = ()) -> Value:
        """Return the value made of all of `values`."""
        values = list(values)
        return Value(
            shape,
            tuple(dict.fromkeys(source for value in values for source in value.sources)),
            tuple(dict.fromkeys(use for value in values for use in value.params)),
            any(value.batched for value in values),
            any(value.spread for value in values),
        )

    def place(self, draft: Draft, shape: Shape, batched: bool = True, layout: Layout | None = None, image: Shape = ()) -> Value:
        """Append a layer and return its result, stored as `layout` says."""
        if draft.trains or any(source.key in self.trained and not source.cut for source in draft.reads):
            self.trained.add(len(self.drafts))
        self.drafts.append(draft)
        return Value(shape, (Source(len(self.drafts) - 1),), batched=batched, layout=layout, image=image)

    def wants_grad(self, value: Value) -> bool:
        """Return whether there is something to train in what the value is made of."""
        sources = any(source.key in self.trained and not source.cut for source in value.sources)
        return sources or any(use.parameter.trainable for use in value.params)

    def refuse(self, call: Call, what: str, operands: Sequence[Value]) -> Value:
        """Count an operator that cannot be lowered, as free if the user allowed it, else as unsupported."""
        if what not in self.allow_ops:
            self.unsupported.setdefault(what, Counter())[call.site.path or self.graph.name] += 1
            self.prunes_weights |= what in _RANKINGS and not any(value.batched or value.spread for value in operands)
        joined = self.loaded(call, self.join(operands, call.out[0].shape if call.out and call.out[0] else ()))
        free = self.place(Draft(Free, {"kind": what}, joined.sources, (), None, what, call.site, call.grad), joined.shape)
        return free if joined.batched else joined  # what is done once per step reads only what is, and a free layer is not

    def loaded(self, call: Call, value: Value) -> Value:
        """Return a value whose parameters have a layer of their own: a product's operand can hold none."""
        if not value.params:
            return value
        sources = list(value.sources)
        for use in value.params:
            fields = {"op": "add", "in_elems": use.elems, "out_elems": use.elems, "per_step": True}
            draft = Draft(Vector, fields, (), (use,), use.parameter, "add", call.site, call.grad)
            sources += self.place(draft, ()).sources
        return replace(value, sources=tuple(sources), params=())

    def vector(
        self,
        call: Call,
        op: VectorOpName,
        operands: Sequence[Value],
        *,
        out_elems: int | None = None,
        in_elems: int | None = None,
        window: int = 1,
        label: str | None = None,
        named_after_param: bool = True,
    ) -> Value:
        """Append an operator of the vector unit; sizes are those of all samples, by default those of the tensors."""
        first = call.out[0]
        shape = first.shape if first else ()
        whole = self.join(operands, shape)
        batched = whole.batched or whole.spread
        if batched and not whole.sources:
            operands = [self.loaded(call, value) for value in operands]
            whole = self.join(operands, shape)
        share = self.graph.batch if batched else 1
        read = {id(v): v.elems for v in operands if not v.is_constant and (v.batched or v.spread) == batched}
        if not read:  # what a step makes once, read anew for every sample
            read = {id(v): v.elems * share for v in operands if not v.is_constant}
        owns = list(dict.fromkeys(use for value in sorted(operands, key=lambda v: not v.is_parameter) for use in value.params))
        if not batched:
            owns.sort(key=_importance)
        named_after = next((v.params[0].parameter for v in operands if v.is_parameter), None) if named_after_param else None
        fields: dict[str, Any] = {
            "op": op,
            "in_elems": ceil_div(max(1, in_elems or sum(read.values())), share),
            "out_elems": ceil_div(max(1, out_elems or prod(shape)), share),
            "window": window,
            "per_step": not batched,
        }
        known = describe(call, [value.operand for value in operands])
        image = image_of(shape) if known.is_pooled else next((v.image for v in operands if v.layout == known.layout), ())
        if known.attributes is not None and batched and len(whole.sources) == sum(not v.is_parameter for v in operands):
            fields["attributes"] = {**known.attributes, **({"image": image} if image else {})}
        grad = call.grad and any(out is not None and out.is_float for out in call.out)
        draft = Draft(Vector, fields, whole.sources, tuple(owns), named_after, label or call.op, call.site, grad)
        return self.place(draft, shape, batched, known.layout, image)

    def product(self, call: Call, lhs: Value, rhs: Value, dims: Dims, bias: Value | None = None) -> Value:
        """Append a product of two matrices: a linear layer if one of them is a weight."""
        if not any(value.batched or value.spread for value in (lhs, rhs)):
            return self.refuse(call, f"{call.op}.per_step", [lhs, rhs])
        for x, weight, inner, outer, rows in ((lhs, rhs, dims.k, dims.n, dims.m), (rhs, lhs, dims.k, dims.m, dims.n)):
            if not (weight.batched or weight.spread):
                rows = self.per_sample(call, rows * dims.count // dims.groups, "rows")
                kind, sizes = _weight_fields(inner, outer, max(rows, 1), dims.groups)
                return self.weight_layer(call, kind, sizes, x, weight, bias)
        lhs, rhs = self.loaded(call, lhs), self.loaded(call, rhs)
        fields: dict[str, Any] = {
            "m": dims.m, "n": dims.n, "k": dims.k, "count": self.per_sample(call, dims.count, "products")
        }  # fmt: skip
        out = call.out[0].shape if call.out[0] else ()
        are_whole = all(value.operand.layout == row_major(value.shape) for value in (lhs, rhs))
        if call.op not in ("matmul", "bmm") or not are_whole or lhs.shape[:-2] != rhs.shape[:-2]:
            fields["reads_moved"] = True
        inputs = lhs.sources + rhs.sources
        operands = (len(lhs.sources), len(rhs.sources))
        draft = Draft(Matmul, fields, inputs, (), None, call.op, call.site, call.grad, operands)
        result = self.place(draft, out, layout=row_major(out))
        return result if bias is None else self.vector(call, "add", [result, bias], label="add", named_after_param=False)

    def weight_layer(
        self, call: Call, kind: LayerType, fields: dict[str, Any], x: Value, weight: Value, bias: Value | None
    ) -> Value:
        """Append a convolution or linear layer."""
        if not (x.batched or x.spread) or weight.batched:
            what = "computed_weight" if weight.batched else "per_step"
            return self.refuse(call, f"{call.op}.{what}", [x, weight, *([bias] if bias else [])])
        x = self.loaded(call, x)
        owns = weight.params if weight.is_parameter else self._roots(weight)
        trains = any(use.parameter.trainable for use in owns)
        rides = bias is not None and not bias.batched and not bias.sources and (trains or not bias.trains)
        named_after = weight.params[0].parameter if weight.is_parameter else None
        out = call.out[0].shape if call.out[0] else ()
        fields = {**fields, "bias": rides}
        if x.operand.layout is None or x.layout != self._expected(call, kind, fields, x) or not weight.operand.is_parameter:
            fields["reads_moved"] = True
        draft = Draft(kind, fields, x.sources, owns, named_after, call.op, call.site, call.grad, weight_from=weight.sources)
        is_image = kind is Conv and len(out) > 2
        layout, image = (channels_last(out), image_of(out)) if is_image else (row_major(out), ())
        result = self.place(draft, out, layout=layout, image=image)
        if bias is None or rides:
            return result
        return self.vector(call, "add", [result, bias], label="bias")

    def _expected(self, call: Call, kind: LayerType, fields: dict[str, Any], x: Value) -> Layout | None:
        """Return how the input of a weight layer must lie in its tensor (`accel.dataflow.accesses`); None: not as it can."""
        if kind is Conv:
            return channels_last(x.shape) if "conv" in call.op and tuple(fields["in_size"]) == x.shape[2:] else None
        if call.op != "linear":
            return None
        if fields["rows"] == 1 and len(x.image) > 1 and prod(x.image) == fields["in_features"]:
            return reshaped(channels_last((x.shape[0], x.image[-1], *x.image[:-1])), x.shape)
        return row_major(x.shape)

    def _roots(self, weight: Value) -> tuple[Use, ...]:
        """Return the largest trained parameter that a computed weight is made of: the weight is updated as that."""
        found: dict[str, Use] = {use.parameter.name: use for use in weight.params}
        pending = list(weight.sources)
        while pending:
            key = pending.pop().key
            if isinstance(key, int):
                found |= {use.parameter.name: use for use in self.drafts[key].owns}
                pending += self.drafts[key].inputs
        roots = Value((), params=tuple(sorted(found.values(), key=_importance)[:1]))
        return (roots.cut() if weight.is_cut else roots).params

    # How calls become values.

    def _lower(self, call: Call) -> None:
        if call.op == "getitem":
            source, index = call.args["0"], call.args["1"]
            self.values[call.id] = (self.values[source.id][index],)
            self.bases[call.id] = source.id
            return
        if call.op in _ONE_TO_ONE:
            pairs = zip(call.refs, call.out, strict=True)
            self.values[call.id] = tuple(
                replace(self.value(ref), shape=out.shape if out else (), layout=None) for ref, out in pairs
            )
            return
        operands = self.operands(call)
        if all(value.is_constant for value in operands):
            flow = replace(self.join(operands), shape=())
        elif not any(call.out) and call.mutates is None:
            return
        elif call.op in self.rules:
            flow = self.rules[call.op](self, call)
        else:
            flow = self.refuse(call, call.op, operands)
        results = []
        for out in call.out:
            shape, is_float = (out.shape, out.is_float) if out else ((), False)
            layout = moved_like(call, operands[0].shape, operands[0].layout, shape) if operands else None
            image = operands[0].image if layout is not None else flow.image
            if layout is None and flow.shape == shape:
                layout = flow.layout
            spread = flow.spread or self._is_spread(call, operands)
            value = replace(flow, shape=shape, spread=spread, layout=layout, image=image)
            if value.is_parameter:
                value = value.narrow(prod(shape))
            results.append(value if call.grad and is_float else value.cut())
        self.values[call.id] = tuple(results)
        if call.op in self.views and call.refs:
            self.bases[call.id] = call.refs[0].id
        if call.mutates is not None:
            self._overwrite(call.mutates.id, results[0] if any(call.out) else flow)

    def _is_spread(self, call: Call, operands: list[Value]) -> bool:
        """Return whether a dimension of one element, or a new one, becomes the batch."""
        out, batch = call.out[0], self.graph.batch
        if batch == 1 or out is None or len(operands) != 1 or call.op not in _SPREADING:
            return False
        before = (1,) * (len(out.shape) - len(operands[0].shape)) + operands[0].shape
        return any(new == batch and old == 1 for old, new in zip(before, out.shape, strict=False))

    def _overwrite(self, number: int, value: Value) -> None:
        """Later readers of a tensor written in place, of its views, and of what it is a view of, see the new value."""
        written = {number}
        for view, base in self.bases.items():  # in the order of the calls: a view comes after what it is a view of
            if base in written:
                written.add(view)
        for one in written:
            self.values[one] = tuple(
                replace(
                    value.cut() if one != number and old.is_cut else value,
                    shape=old.shape,
                    layout=value.layout if old.shape == value.shape else None,
                )
                for old in self.values[one]
            )
        while number in self.bases:
            number = self.bases[number]
            self.values[number] = tuple(
                self.join([value] if value.elems == old.elems else [old, value], old.shape) for old in self.values[number]
            )

    def _loss(self, op: VectorOpName, outputs: list[Value]) -> Value:
        if len(outputs) != 1:
            raise TraceError(f"{self.graph.name}: a loss needs a module with 1 output tensor, not {len(outputs)}; return one")
        output = outputs[0]
        dims = ("batch", "classes") if op == "cross_entropy" else ("batch",)
        if len(output.shape) < len(dims):
            raise TraceError(
                f"{self.graph.name}: output must have sizes ({', '.join(dims)}) for {op}, not {output.shape}; "
                "leave the loss out where the module returns its own"
            )
        if all(source.cut for source in output.sources):
            raise TraceError(
                f"{self.graph.name}: output must have a gradient for a loss, not be constant or detached; leave the loss out"
            )
        if op == "cross_entropy":  # classes last, but in maps (batch, classes, height, width) where torch has them
            window = output.shape[1 if len(output.shape) > 3 else -1]
            elems = output.elems // window
        else:
            elems, window = self.graph.batch, ceil_div(output.elems, self.graph.batch)
        draft = Draft(
            Vector,
            {
                "op": op,
                "in_elems": ceil_div(output.elems, self.graph.batch),
                "out_elems": ceil_div(elems, self.graph.batch),
                "window": window,
                "attributes": describe_loss(op, window, output.operand),
            },
            output.sources,
            output.params,
            None,
            "loss",
            Site("", "loss", leaf=False),
            grad=True,
        )
        return self.place(draft, ())

    def _complaint(self) -> str:
        plural = "s" if len(self.unsupported) > 1 else ""
        remedy = "add them to --allow-ops to count them as free"
        if self.prunes_weights:
            remedy = f"trace the model without its own pruning, the method is chosen when it is simulated, or {remedy}"
        return (
            f"{self.graph.name}: {len(self.unsupported)} unsupported operator{plural}: {list_sites(self.unsupported)}; {remedy}"
        )


def _importance(use: Use) -> tuple[bool, int]:
    """Return what sorts trained parameters first, then large ones."""
    return not use.parameter.trainable, -use.elems


def _weight_fields(inner: int, outer: int, rows: int, groups: int) -> tuple[LayerType, dict[str, Any]]:
    """Return a linear layer, or for several weight matrices side by side the grouped 1x1 convolution that it is."""
    if groups == 1:
        return Linear, {"in_features": inner, "out_features": outer, "rows": rows}
    return Conv, {
        "in_channels": groups * inner,
        "out_channels": groups * outer,
        "in_size": (rows,),
        "kernel": (1,),
        "stride": (1,),
        "padding": (0,),
        "dilation": (1,),
        "groups": groups,
    }
