"""The update of the parameters, and what a step keeps in DRAM (docs/timing.md, sections 5 and 6)."""

from __future__ import annotations

from dataclasses import dataclass, replace

from accel.dataflow.context import Context
from accel.dataflow.tensors import Tensors
from accel.gemm import FP16_BITS, FP16_BYTES, FP32_BYTES, Stage
from accel.program import CopyKind, Parameter
from accel.schedule import Footprint, UpdateWork
from accel.sparsity import DENSE, NMPattern
from accel.trace import Attention, Conv, Free, Layer, Linear, Matmul, Vector
from accel.units import ceil_div
from accel.vector_ops import SAVED_BITS, VECTOR_OPS


@dataclass(frozen=True)
class Updates:
    """Makes the update of every parameter tensor."""

    context: Context

    @property
    def tensors(self) -> Tensors:
        """The names of what the updates read and write."""
        return Tensors(self.context)

    def updates(self) -> list[UpdateWork]:
        """Return the update of every parameter tensor: of a shared one once, with the copies of all its users."""
        users: dict[str, list[Conv | Linear | Vector]] = {}
        for layer in self.context.trace.layers:
            if isinstance(layer, Conv | Linear) or (isinstance(layer, Vector) and layer.params):
                users.setdefault(layer.weight or layer.name, []).append(layer)
        return [self._update_of(layers) for layers in users.values()]

    def _update_of(self, users: list[Conv | Linear | Vector]) -> UpdateWork:
        """Return the update of a tensor that `users` share, and of a bias beside it."""
        options = self.context.options
        weight_layers = [layer for layer in users if isinstance(layer, Conv | Linear)]
        copies = {copy for layer in weight_layers for copy in self._copies(layer)}
        dense_used = len(weight_layers) < len(users) or any(pattern.is_dense for _, pattern, _ in copies)
        elems = max(layer.params if isinstance(layer, Vector) else layer.weight_elems for layer in users)
        bias_elems = max((layer.bias_elems for layer in weight_layers), default=0)
        bits_of = {"": FP16_BITS * (bias_elems + elems * (dense_used or not options.pregenerate))}
        sore_groups = 0
        for stage, pattern, inner in copies:
            if options.pregenerate and not pattern.is_dense:
                groups = elems // inner * ceil_div(inner, options.word_elems)
                sore_groups += groups
                bits_of[stage] = bits_of.get(stage, 0) + groups * pattern.compact_bits(options.word_elems, FP16_BITS)
        trained = [layer for layer in users if layer.trainable]
        layer, copy_bytes = (trained or users)[0], ceil_div(sum(bits_of.values()), 8)
        named = tuple((self.tensors.weight(layer, stage), ceil_div(bits, 8)) for stage, bits in sorted(bits_of.items()) if bits)
        stages = [stage for stage, bits in sorted(bits_of.items()) if bits]
        work = self._update(layer, elems + bias_elems, copy_bytes, sore_groups, named)
        return replace(work, parameter=self._parameter(users, layer, stages, dense_used or not options.pregenerate))

    def _parameter(
        self, users: list[Conv | Linear | Vector], layer: Conv | Linear | Vector, stages: list[str], is_dense: bool
    ) -> Parameter | None:
        """Return what the tensor is, unless layers of several kinds share it; `is_dense`: a dense copy is among the copies."""
        if len({user.op for user in users}) > 1:
            return None
        name, options = layer.weight or layer.name, self.context.options
        if isinstance(layer, Vector):
            return Parameter(name=name, shape=(layer.params,), copies=("dense",))
        if isinstance(layer, Linear):
            shape: tuple[int, ...] = layer.out_features, layer.in_features
        else:
            inner, outer = layer.channels_per_group
            shape = (layer.out_channels, *layer.kernel, inner)
            if layer.transposed:
                shape = (layer.in_channels, *layer.kernel, outer)
        kinds: dict[str, CopyKind] = {"": "dense", "FF": "gather", "BP": "scatter"}
        if isinstance(layer, Conv) and layer.transposed:
            kinds |= {"FF": "scatter", "BP": "gather"}
        if not is_dense:
            kinds[""] = "bias"
        is_pruned = not self.context.pattern(layer, layer.channels_per_group[0]).is_dense
        return Parameter(
            name=name,
            shape=shape,
            groups=layer.groups if isinstance(layer, Conv) else 1,
            bias=layer.bias_elems,
            copies=tuple(kinds[stage] for stage in stages),
            keep=options.pattern.keep,
            group=options.pattern.group,
            masked=is_pruned and options.method.ff == "weight" and options.method.bp is None,
        )

    def _copies(self, layer: Conv | Linear) -> list[tuple[Stage, NMPattern, int]]:
        """Return (stage, pattern, reduction channels) of the copies of the weight that the products of `layer` read."""
        method = self.context.options.method
        uses: list[tuple[Stage, str | None, int]] = [(Stage.FORWARD, method.ff, layer.channels_per_group[0])]
        if self.context.trace.has_input_grad(layer):
            uses.append((Stage.INPUT_GRAD, method.bp, layer.channels_per_group[1]))
        return [
            (stage, self.context.pattern(layer, inner) if operand == "weight" else DENSE, inner)
            for stage, operand, inner in uses
        ]

    def _update(
        self, layer: Conv | Linear | Vector, params: int, copy_bytes: int, sore_groups: int, copies: tuple[tuple[str, int], ...]
    ) -> UpdateWork:
        if not layer.trainable:
            return UpdateWork(layer.name, 0, 0, 0, master_bytes=0, copy_bytes=copy_bytes, dram_bytes=0, copies=copies)
        optimizer, grad = self.context.options.optimizer, self.tensors.weight_gradient(layer)
        read_words, write_words = 2 + optimizer.state_words, 1 + optimizer.state_words  # w, dW and state; w and state
        return UpdateWork(
            layer.name,
            params,
            optimizer.passes,
            sore_groups,
            master_bytes=FP32_BYTES * params * read_words,
            copy_bytes=copy_bytes,
            dram_bytes=FP32_BYTES * params * (read_words + write_words) + copy_bytes,
            reads=(grad,) if isinstance(layer, Vector) or not layer.bias else (grad, self.tensors.bias_gradient(layer)),
            copies=copies,
        )


@dataclass(frozen=True)
class Memory:
    """Counts what DRAM holds."""

    context: Context

    def footprint(self, updates: list[UpdateWork]) -> Footprint:
        """Return the bytes alive at the end of the forward pass, every saved tensor once."""
        saved: dict[tuple[str, str], int] = {}
        largest = 0
        for layer in self.context.trace.layers:
            if isinstance(layer, Free):
                continue
            read = sum(self._repeats(source) * self._elems(source, layer) for source in layer.inputs)
            largest = max(largest, self.context.repeats(layer) * layer.out_elems + read)
            if layer.name in self.context.trace.needs_grad:
                saved.update(self._saved_bits(layer))
        return Footprint(
            activation_bytes=sum(self._repeats(tensor) * ceil_div(bits, 8) for (tensor, _), bits in saved.items()),
            master_bytes=sum(update.master_bytes for update in updates),
            copy_bytes=sum(update.copy_bytes for update in updates),
            gradient_bytes=FP16_BYTES * largest,
        )

    def _repeats(self, tensor: str) -> int:
        """Return how many of `tensor` a step holds: one for each sample, or one."""
        return self.context.repeats(self.context.by_name.get(tensor))

    def _elems(self, source: str, reader: Layer) -> int:
        """Return the elements of tensor `source` per sample."""
        layer = self.context.by_name.get(source)
        if layer is not None and not isinstance(layer, Free):
            return layer.out_elems
        return reader.in_elems if isinstance(reader, Conv | Linear | Vector) else 0

    def _saved_bits(self, layer: Layer) -> dict[tuple[str, str], int]:
        """Return what the backward pass of `layer` reads: (tensor, kind) -> bits per sample; a shared tensor has one key."""
        inputs = {(source, "tensor"): FP16_BITS * self._elems(source, layer) for source in layer.inputs}
        match layer:
            case Conv() | Linear():
                return inputs if layer.trainable else {}
            case Matmul():
                return inputs
            case Attention():
                return {**inputs, (layer.name, "probabilities"): FP16_BITS * layer.score_elems}
            case Vector():
                saves = VECTOR_OPS[layer.op].saves
                if saves == "input":
                    return inputs
                kind = "tensor" if saves == "output" else saves
                return {(layer.name, kind): SAVED_BITS[saves] * layer.out_elems}
            case Free():
                return {}
