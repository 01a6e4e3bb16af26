"""Trace -> Step: what follows what in a training step, in the order of docs/timing.md, section 3."""

from __future__ import annotations

from dataclasses import dataclass, field

from accel.dataflow.context import Context, Options
from accel.dataflow.products import Products
from accel.dataflow.tensors import Names, Tensors
from accel.dataflow.updates import Memory, Updates
from accel.dataflow.vectors import VectorUnit
from accel.errors import ConfigError, ScheduleError
from accel.gemm import Gemm, GemmShape, Stage
from accel.schedule import Segment, Step, VectorWork
from accel.trace import Attention, Conv, Free, Layer, Linear, Matmul, Trace, Vector

MAX_BATCH = 2**24
MAX_WORK = 2**60


def lower(trace: Trace, options: Options) -> Step:
    """Return the work of one training step of `trace`."""
    if not 1 <= options.batch <= MAX_BATCH:
        raise ConfigError(f"batch must be between 1 and {MAX_BATCH}, not {options.batch}")
    context = Context(trace, options)
    segments = tuple(_Order(context).segments_of_step())
    for work in (work for segment in segments for work in segment.vectors):
        if max(work.lane_ops, work.dram_bytes) >= MAX_WORK:
            raise ScheduleError(
                f"layer {work.layer}: {work.stage} {work.kind} must have less than 2**60 lane operations and bytes, "
                f"not {max(work.lane_ops, work.dram_bytes)}; lower the batch"
            )
    updates = Updates(context).updates()
    return Step(
        network=trace.name,
        batch=options.batch,
        segments=segments,
        updates=tuple(updates),
        footprint=Memory(context).footprint(updates),
        tensor_bytes=Tensors(context).sizes(),
        free_layers=tuple(f"{layer.name} ({layer.kind})" for layer in trace.layers if isinstance(layer, Free)),
    )


@dataclass
class _Order:
    """Puts the work of the layers in order: forward, then backward with weight gradients beside vector work."""

    context: Context
    segments: list[Segment] = field(default_factory=list)
    pending_gemms: list[Gemm] = field(default_factory=list)
    pending_vectors: list[VectorWork] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.products = Products(self.context)
        self.vectors, self.tensors = VectorUnit(self.context), Tensors(self.context)

    def segments_of_step(self) -> list[Segment]:
        trace = self.context.trace
        for layer in trace.layers:
            self._forward(layer)
        for layer in reversed(trace.layers):
            if layer.name in trace.needs_grad:
                self.pending_vectors += self.vectors.gradient_sum(layer)
                self._backward(layer)
        self._flush()
        return self.segments

    def _add(self, gemms: list[Gemm], vectors: list[VectorWork] | None = None) -> None:
        if gemms or vectors:
            self.segments.append(Segment(tuple(gemms), tuple(vectors or ())))

    def _forward(self, layer: Layer) -> None:
        stage = Stage.FORWARD
        match layer:
            case Conv() | Linear():
                vectors = self.vectors.bias(layer, stage) + self.vectors.statistics(layer) + self.vectors.zeros(layer, stage)
                self._add(self.products.forward_gemms(layer), vectors)
            case Matmul():
                shape = GemmShape(layer.m, layer.n, 1, layer.k, self.context.options.batch * layer.count)
                lhs, rhs = (self.tensors.activation(layer.inputs[at]) for at in (0, -1))
                access = self.products.accesses.matmul(layer).get("")
                self._add([self.products.product(layer.name, stage, "", shape, lhs, rhs, (layer.name,), access)])
            case Attention():
                self._forward_attention(layer)
            case Vector():
                self._add([], [self.vectors.forward(layer)])
            case Free():
                pass

    def _forward_attention(self, layer: Attention) -> None:
        scores, context = self.products.attention_shapes(layer)
        query, key, value = (self.tensors.activation(source) for source in layer.inputs)
        written, read = self.tensors.inside(layer, "scores"), self.tensors.inside(layer, "probabilities")
        forward, accesses = (layer.name, Stage.FORWARD), self.products.accesses.attention(layer)
        self._add([self.products.product(*forward, "scores", scores, query, key, (written,), accesses.get("scores"))])
        self._add([], [self.vectors.softmax(layer, Stage.FORWARD)])
        self._add([self.products.product(*forward, "context", context, (read,), value, (layer.name,), accesses.get("context"))])

    def _backward(self, layer: Layer) -> None:
        match layer:
            case Conv() | Linear():
                self._flush()
                self._backward_weight_layer(layer)
            case Matmul():
                self._flush()
                self._backward_matmul(layer)
            case Attention():
                self._flush()
                self._backward_attention(layer)
            case Vector():
                self.pending_vectors += self.vectors.backward(layer)
            case Free():
                pass

    def _flush(self) -> None:
        """Close the segment in which the last weight gradient runs beside the vector work that followed it."""
        self._add(self.pending_gemms, self.pending_vectors)
        self.pending_gemms, self.pending_vectors = [], []

    def _backward_weight_layer(self, layer: Conv | Linear) -> None:
        if self.context.trace.has_input_grad(layer):
            self._add(self.products.input_grad_gemms(layer), self.vectors.zeros(layer, Stage.INPUT_GRAD))
        if layer.trainable:
            self.pending_gemms.append(self.products.weight_grad(layer))
            self.pending_vectors += self.vectors.bias(layer, Stage.WEIGHT_GRAD)

    def _backward_matmul(self, layer: Matmul) -> None:
        count = self.context.options.batch * layer.count
        shapes = {"lhs": GemmShape(layer.m, layer.k, 1, layer.n, count), "rhs": GemmShape(layer.k, layer.n, 1, layer.m, count)}
        sources = (layer.inputs[0], layer.inputs[-1])
        grad = self.tensors.gradient(layer.name)
        others = [self.tensors.activation(source) for source in reversed(sources)]
        operands = {"lhs": (grad, others[0]), "rhs": (others[1], grad)}
        accesses = self.products.accesses.matmul(layer)
        self._add(
            [
                self.products.product(
                    layer.name,
                    Stage.INPUT_GRAD,
                    part,
                    shape,
                    *operands[part],
                    self.tensors.contribution(source, layer),
                    accesses.get(part),
                )
                for (part, shape), source in zip(shapes.items(), sources, strict=True)
                if source in self.context.trace.needs_grad
            ]
        )

    def _backward_attention(self, layer: Attention) -> None:
        """The softmax's backward runs beside the value's gradient, which does not wait for it."""
        shape, _ = self.products.attention_shapes(layer)
        rows, kv_len, dim, count = shape.m, layer.kv_len, layer.head_dim, shape.count
        accesses = self.products.accesses.attention(layer)

        def grad(part: str, shape: GemmShape, lhs: Names, rhs: Names, writes: Names) -> Gemm:
            return self.products.product(layer.name, Stage.INPUT_GRAD, part, shape, lhs, rhs, writes, accesses.get(part))

        wants_query, wants_key, wants_value = (source in self.context.trace.needs_grad for source in layer.inputs)
        query, key, value = (self.tensors.activation(source) for source in layer.inputs)
        to_query, to_key, to_value = (self.tensors.contribution(source, layer) for source in layer.inputs)
        inside = ("probabilities", "grad probabilities", "grad scores")
        probabilities, grad_probabilities, grad_scores = ((self.tensors.inside(layer, part),) for part in inside)
        grad_out = self.tensors.gradient(layer.name)
        gemms = []
        if wants_query or wants_key:
            shape = GemmShape(rows, kv_len, 1, dim, count)
            self._add([grad("probabilities", shape, grad_out, value, grad_probabilities)])
        if wants_value:
            gemms.append(grad("value", GemmShape(kv_len, dim, 1, rows, count), probabilities, grad_out, to_value))
        self._add(gemms, [self.vectors.softmax(layer, Stage.INPUT_GRAD)] if wants_query or wants_key else [])
        gemms = []
        if wants_query:
            gemms.append(grad("query", GemmShape(rows, dim, 1, kv_len, count), grad_scores, key, to_query))
        if wants_key:
            gemms.append(grad("key", GemmShape(kv_len, dim, 1, rows, count), grad_scores, query, to_key))
        self._add(gemms)
