"""Vector work: every operator that is not a product, with its lane operations and DRAM bytes (docs/timing.md, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

from accel.dataflow.accesses import Grids, LayerAccesses
from accel.dataflow.context import Context
from accel.dataflow.products import Geometry
from accel.dataflow.tensors import Tensors
from accel.gemm import FP16_BYTES, FP32_BYTES, Stage
from accel.schedule import VectorWork
from accel.trace import Attention, Attributes, Conv, Free, Layer, Linear, Vector
from accel.units import ceil_div
from accel.vector_ops import SAVED_BITS, VECTOR_OPS

_BY_SAMPLE = frozenset(
    ["layer_norm", "rms_norm", "group_norm", "softmax", "max_pool", "avg_pool"]
    + [op for op, cost in VECTOR_OPS.items() if cost.elementwise]
)
"""Operators whose forward pass looks at no sample but its own."""


@dataclass(frozen=True)
class VectorUnit:
    """Makes the vector work of a layer."""

    context: Context

    @property
    def tensors(self) -> Tensors:
        """The names of what the operators read and write."""
        return Tensors(self.context)

    def gradient_sum(self, layer: Layer) -> list[VectorWork]:
        """Return the sum of the gradients that the readers of a layer's output send back, one from each.

        To a layer done once per step, a reader sends one for each sample.
        """
        extra = self.tensors.gradients_to_add(layer.name)
        if not extra or isinstance(layer, Free):
            return []
        elems = layer.out_elems * extra
        reads, writes = self.tensors.contributions(layer.name), self.tensors.gradient(layer.name)
        per_step = isinstance(layer, Vector) and layer.per_step  # then samples are added up, too
        attributes: Attributes | None = None if per_step else {"function": "gradient sum"}
        dram_bytes = 3 * FP16_BYTES * elems
        return [
            VectorWork(layer.name, Stage.INPUT_GRAD, "gradient sum", elems, dram_bytes, reads, writes, attributes=attributes)
        ]

    def zeros(self, layer: Conv | Linear, stage: Stage) -> list[VectorWork]:
        """Return the zeros written where no tap of a strided convolution reaches the grid that the stage produces."""
        if isinstance(layer, Linear) or layer.transposed != (stage is Stage.FORWARD):
            return []
        channels = layer.out_channels if stage is Stage.FORWARD else layer.in_channels
        elems = self.context.options.batch * self.context.options.stored(channels)
        writes = (layer.name,) if stage is Stage.FORWARD else self.tensors.input_gradients(layer)
        phases = [(part, pixels) for part, pixels, taps in Geometry.of(layer).phases() if taps == 0]
        accesses = Grids.of(layer, self.context.options.batch).zeros()
        return [
            VectorWork(
                layer.name,
                stage,
                f"zeros, {part}",
                0,
                FP16_BYTES * elems * pixels,
                writes=writes,
                attributes={"function": "zeros"},
                access=access,
            )
            for (part, pixels), access in zip(phases, accesses, strict=True)
        ]

    def bias(self, layer: Conv | Linear, stage: Stage) -> list[VectorWork]:
        """Bias rides on the results as they drain, its gradient on dY as WU reads it: lane operations, no traffic."""
        if not layer.bias:
            return []
        lane_ops = self.context.options.batch * layer.out_elems
        if stage is Stage.FORWARD:
            access, bias = LayerAccesses(self.context).bias(layer), (self.tensors.bias(layer),)
            return [
                VectorWork(
                    layer.name,
                    stage,
                    "bias",
                    lane_ops,
                    0,
                    bias,
                    on_results=True,
                    attributes={"function": "bias"},
                    access=access,
                )
            ]
        reads, writes = self.tensors.gradient(layer.name), (self.tensors.bias_gradient(layer),)
        return [VectorWork(layer.name, stage, "bias", lane_ops, 0, reads, writes, attributes={"function": "bias gradient"})]

    def statistics(self, layer: Conv | Linear) -> list[VectorWork]:
        """Return the sums of a norm that reads `layer` alone: they ride on its results as they drain, like bias."""
        norm = self.context.sole_reader(layer)
        if not isinstance(norm, Vector) or not VECTOR_OPS[norm.op].statistics_ops:
            return []
        lane_ops = self.context.options.batch * VECTOR_OPS[norm.op].statistics_ops * norm.out_elems
        attributes: Attributes = {"function": "statistics"}
        return [VectorWork(norm.name, Stage.FORWARD, "statistics", lane_ops, 0, on_results=True, attributes=attributes)]

    def _has_statistics(self, layer: Vector) -> bool:
        """Return whether the first pass of `layer` was done as its input drained."""
        before = self.context.by_name.get(layer.inputs[0]) if layer.inputs else None
        found = isinstance(before, Conv | Linear) and self.context.sole_reader(before) is layer
        return found and VECTOR_OPS[layer.op].statistics_ops > 0

    def _rides_on(self, layer: Vector) -> Vector | None:
        """Return the operator whose pass `layer` can share: elementwise, directly after it, the only reader."""
        before = self.context.by_name.get(layer.inputs[0]) if layer.inputs else None
        if not isinstance(before, Vector) or layer.params or not VECTOR_OPS[layer.op].elementwise:
            return None
        if before.per_step != layer.per_step or before.out_elems > min(layer.in_elems, layer.out_elems):
            return None  # what is read is only a part of it
        return before if self.context.sole_reader(before) is layer else None

    def forward(self, layer: Vector) -> VectorWork:
        """Return the forward work of an operator."""
        cost, batch = VECTOR_OPS[layer.op], self.context.repeats(layer)
        passes, ops = cost.forward_passes, cost.forward_ops
        if self._has_statistics(layer):
            passes, ops = passes - 1, ops - cost.statistics_ops
        elems = passes * layer.in_elems + layer.out_elems
        before = self._rides_on(layer)
        if before is not None:
            elems -= before.out_elems  # read straight from the operator before ...
            if cost.saves != "input":
                elems -= before.out_elems  # ... which then need not write it, unless the backward pass wants it
        saved_bytes = ceil_div(layer.out_elems * SAVED_BITS[cost.saves], 8) if cost.saves in ("mask", "index") else 0
        lane_ops = batch * ops * layer.out_elems * layer.window
        dram_bytes = batch * (FP16_BYTES * elems + saved_bytes)
        return VectorWork(
            layer.name,
            Stage.FORWARD,
            layer.op,
            lane_ops,
            dram_bytes,
            self._reads(layer),
            (layer.name, *self.tensors.saved(layer)),
            attributes=self._attributes(layer),
            by_sample=self._is_by_sample(layer),
        )

    def _is_by_sample(self, layer: Vector) -> bool:
        """Return whether the samples of the result follow from those of the inputs, or from sums that are there already."""
        inputs = [self.context.by_name.get(source) for source in layer.inputs]
        if layer.per_step or layer.reads_moved or any(isinstance(source, Vector) and source.per_step for source in inputs):
            return False
        return layer.op in _BY_SAMPLE or (layer.op == "batch_norm" and self._has_statistics(layer))

    def _reads(self, layer: Vector) -> tuple[str, ...]:
        """Return the tensors that `layer` reads in FF, its parameters last."""
        if not layer.params:
            return self.tensors.inputs(layer)
        is_table = layer.op == "embedding"
        return (*self.tensors.inputs(layer), self.tensors.weight(layer) if is_table else self.tensors.master(layer))

    def _attributes(self, layer: Vector) -> Attributes | None:
        """Return what the operator computes, and which of its inputs want a gradient."""
        inputs = self.tensors.inputs(layer)
        if layer.attributes is None or layer.reads_moved or layer.per_step or len(inputs) != len(layer.inputs):
            return None
        wanted = tuple(at for at, source in enumerate(layer.inputs) if source in self.context.trace.needs_grad)
        return {**layer.attributes, "inputs": len(inputs), "wanted": wanted, "params": layer.params}

    def backward(self, layer: Vector) -> list[VectorWork]:
        """Return the backward work of an operator: none where the gradient goes through as it is, but for its parameters."""
        cost, batch = VECTOR_OPS[layer.op], self.context.repeats(layer)
        if cost.backward_passes == 0:
            return [self._parameter_gradient(layer)] if layer.params and layer.trainable else []
        saved_elems = layer.in_elems if cost.saves == "input" else layer.out_elems
        saved_bytes = ceil_div(saved_elems * SAVED_BITS[cost.saves], 8)
        read_bytes = cost.backward_passes * (FP16_BYTES * layer.out_elems + saved_bytes)
        wanted = [source in self.context.trace.needs_grad for source in layer.inputs]
        write_elems = layer.in_elems * sum(wanted) // max(len(wanted), 1)
        before = self._rides_on(layer)
        if before is not None and wanted[0] and VECTOR_OPS[before.op].backward_passes > 0:
            # The gradient of the first input goes straight into the pass of the operator before: neither written here nor
            # read there. A second pass of that operator finds it again from what this one saved.
            write_elems -= 2 * before.out_elems
            read_bytes += (VECTOR_OPS[before.op].backward_passes - 1) * saved_bytes
        dram_bytes = batch * (read_bytes + FP16_BYTES * write_elems) + FP32_BYTES * layer.params * layer.trainable
        if layer.op == "embedding" and layer.trainable:  # every row is added to its row of the gradient
            dram_bytes += batch * 2 * FP32_BYTES * layer.out_elems
        lane_ops = batch * cost.backward_ops * layer.out_elems * layer.window
        own = () if cost.saves == "input" else (layer.name,)
        saved = self.tensors.saved(layer) or own + self._reads(layer)
        reads = tuple(dict.fromkeys((*self.tensors.gradient(layer.name), *saved)))
        writes = self.tensors.input_gradients(layer)
        if layer.params and layer.trainable:
            writes = (*writes, self.tensors.weight_gradient(layer))
        return [
            VectorWork(
                layer.name, Stage.INPUT_GRAD, layer.op, lane_ops, dram_bytes, reads, writes, attributes=self._attributes(layer)
            )
        ]

    def _parameter_gradient(self, layer: Vector) -> VectorWork:
        """Return the sum over samples of the gradient of added parameters, which goes through to the other input as it is."""
        elems = self.context.repeats(layer) * layer.out_elems
        dram_bytes = FP16_BYTES * elems + FP32_BYTES * layer.params
        attributes: Attributes = {"function": "parameter gradient", "params": layer.params}
        reads, writes = self.tensors.gradient(layer.name), (self.tensors.weight_gradient(layer),)
        return VectorWork(layer.name, Stage.INPUT_GRAD, "parameters", elems, dram_bytes, reads, writes, attributes=attributes)

    def softmax(self, layer: Attention, stage: Stage) -> VectorWork:
        """Return the softmax inside an attention layer, or its backward."""
        cost, elems = VECTOR_OPS["softmax"], self.context.options.batch * layer.score_elems
        forward = stage is Stage.FORWARD
        ops = cost.forward_ops if forward else cost.backward_ops
        tensors = 2 if forward else 3  # scores in, probabilities out; gradient and probabilities in, gradient out
        reads: tuple[str, ...] = ("scores",)
        writes = "probabilities"
        if not forward:
            reads, writes = ("grad probabilities", "probabilities"), "grad scores"
        names = tuple(self.tensors.inside(layer, part) for part in reads)
        dram_bytes = tensors * FP16_BYTES * elems
        written, attributes = (self.tensors.inside(layer, writes),), self._softmax_attributes(layer)
        return VectorWork(
            layer.name, stage, "softmax", ops * elems, dram_bytes, names, written, attributes=attributes, by_sample=True
        )

    def _softmax_attributes(self, layer: Attention) -> Attributes | None:
        if layer.masked:
            return None
        scale = layer.head_dim**-0.5 if layer.scale is None else layer.scale
        return {
            "function": "attention softmax",
            "shape": (layer.heads, layer.q_len, layer.kv_len),
            "scale": scale,
            "causal": layer.causal,
        }
