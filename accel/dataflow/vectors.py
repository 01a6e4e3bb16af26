"""Vector work: every operator that is not a product, with its lane operations and DRAM bytes (docs/timing.md, section 4)."""

from __future__ import annotations

from dataclasses import dataclass

from accel.dataflow.context import Context
from accel.dataflow.products import Geometry
from accel.gemm import FP16_BYTES, FP32_BYTES, Stage
from accel.schedule import VectorWork
from accel.trace import Attention, Conv, Free, Layer, Linear, Vector
from accel.units import ceil_div
from accel.vector_ops import SAVED_BITS, VECTOR_OPS


@dataclass(frozen=True)
class VectorUnit:
    """Makes the vector work of a layer."""

    context: Context

    def gradient_sum(self, layer: Layer) -> list[VectorWork]:
        """Return the sum of the gradients that the readers of a layer's output send back, one from each.

        To a layer done once per step, a reader sends one for each sample.
        """
        sent = sum(self.context.repeats(reader) for reader in self.context.readers.get(layer.name, ()))
        extra = sent - self.context.repeats(layer)
        if extra < 1 or isinstance(layer, Free):
            return []
        elems = layer.out_elems * extra
        return [VectorWork(layer.name, Stage.INPUT_GRAD, "gradient sum", elems, 3 * FP16_BYTES * elems)]

    def zeros(self, layer: Conv | Linear, stage: Stage) -> list[VectorWork]:
        """Return the zeros written where no tap of a strided convolution reaches the grid that the stage produces."""
        if isinstance(layer, Linear) or layer.transposed != (stage is Stage.FORWARD):
            return []
        channels = layer.out_channels if stage is Stage.FORWARD else layer.in_channels
        elems = self.context.options.batch * self.context.options.stored(channels)
        return [
            VectorWork(layer.name, stage, f"zeros, {part}", 0, FP16_BYTES * elems * pixels)
            for part, pixels, taps in Geometry.of(layer).phases()
            if taps == 0
        ]

    def bias(self, layer: Conv | Linear, stage: Stage) -> list[VectorWork]:
        """Bias rides on the results as they drain, its gradient on dY as WU reads it: lane operations, no traffic."""
        if not layer.bias:
            return []
        return [VectorWork(layer.name, stage, "bias", self.context.options.batch * layer.out_elems, 0)]

    def statistics(self, layer: Conv | Linear) -> list[VectorWork]:
        """Return the sums of a norm that reads `layer` alone: they ride on its results as they drain, like bias."""
        norm = self.context.sole_reader(layer)
        if not isinstance(norm, Vector) or not VECTOR_OPS[norm.op].statistics_ops:
            return []
        lane_ops = self.context.options.batch * VECTOR_OPS[norm.op].statistics_ops * norm.out_elems
        return [VectorWork(norm.name, Stage.FORWARD, "statistics", lane_ops, 0)]

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
        return VectorWork(layer.name, Stage.FORWARD, layer.op, lane_ops, batch * (FP16_BYTES * elems + saved_bytes))

    def backward(self, layer: Vector) -> list[VectorWork]:
        """Return the backward work of an operator: none where the gradient goes through as it is."""
        cost, batch = VECTOR_OPS[layer.op], self.context.repeats(layer)
        if cost.backward_passes == 0:
            return []
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
        return [VectorWork(layer.name, Stage.INPUT_GRAD, layer.op, lane_ops, dram_bytes)]

    def softmax(self, layer: Attention, stage: Stage) -> VectorWork:
        """Return the softmax inside an attention layer, or its backward."""
        cost, elems = VECTOR_OPS["softmax"], self.context.options.batch * layer.score_elems
        forward = stage is Stage.FORWARD
        ops = cost.forward_ops if forward else cost.backward_ops
        tensors = 2 if forward else 3  # scores in, probabilities out; gradient and probabilities in, gradient out
        return VectorWork(layer.name, stage, "softmax", ops * elems, tensors * FP16_BYTES * elems)
