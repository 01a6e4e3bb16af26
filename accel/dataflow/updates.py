"""The update of the parameters, and what a step keeps in DRAM (docs/timing.md, sections 5 and 6)."""

from __future__ import annotations

from dataclasses import dataclass

from accel.dataflow.context import Context
from accel.gemm import FP16_BITS, FP32_BITS
from accel.schedule import Footprint, UpdateWork
from accel.sparsity import DENSE
from accel.trace import Attention, Conv, Free, Layer, Linear, Matmul, Vector
from accel.units import ceil_div
from accel.vector_ops import SAVED_BITS, VECTOR_OPS

FP16_BYTES = FP16_BITS // 8
FP32_BYTES = FP32_BITS // 8


@dataclass(frozen=True)
class Updates:
    """Makes the update of every parameter tensor."""

    context: Context

    def updates(self) -> list[UpdateWork]:
        """Return the update of every parameter tensor, shared ones once."""
        found: dict[str, UpdateWork] = {}
        for layer in self.context.trace.layers:
            if isinstance(layer, Conv | Linear) and (layer.weight or layer.name) not in found:
                found[layer.weight or layer.name] = self._update_weights(layer)
            elif isinstance(layer, Vector) and layer.params:
                key = layer.weight or layer.name
                found.setdefault(key, self._update(layer, layer.params, FP16_BYTES * layer.params, 0))
        return list(found.values())

    def _update_weights(self, layer: Conv | Linear) -> UpdateWork:
        """Return the update of a weight and its bias, with the copies that FF and BP read."""
        method, options = self.context.options.method, self.context.options
        uses: list[tuple[str | None, int]] = [(method.ff, layer.channels_per_group[0])]
        if self.context.trace.has_input_grad(layer):
            uses.append((method.bp, layer.channels_per_group[1]))
        patterns = [self.context.pattern(layer, inner) if operand == "weight" else DENSE for operand, inner in uses]
        dense_used = not options.pregenerate or any(pattern.is_dense for pattern in patterns)
        copy_bits = FP16_BITS * (layer.bias_elems + dense_used * layer.weight_elems)
        sore_groups = 0
        for pattern, (_, inner) in zip(patterns, uses, strict=True):
            if options.pregenerate and not pattern.is_dense:
                runs = layer.weight_elems // inner
                copy_bits += runs * ceil_div(inner, pattern.group) * pattern.keep * (FP16_BITS + pattern.index_bits)
                sore_groups += runs * ceil_div(inner, options.word_elems)
        return self._update(layer, layer.weight_elems + layer.bias_elems, ceil_div(copy_bits, 8), sore_groups)

    def _update(self, layer: Conv | Linear | Vector, params: int, copy_bytes: int, sore_groups: int) -> UpdateWork:
        if not layer.trainable:
            return UpdateWork(layer.name, 0, 0, 0, master_bytes=0, copy_bytes=copy_bytes, dram_bytes=0)
        optimizer = self.context.options.optimizer
        read_words, write_words = 2 + optimizer.state_words, 1 + optimizer.state_words  # w, dW and state; w and state
        return UpdateWork(
            layer.name,
            params,
            optimizer.passes,
            sore_groups,
            master_bytes=FP32_BYTES * params * read_words,
            copy_bytes=copy_bytes,
            dram_bytes=FP32_BYTES * params * (read_words + write_words) + copy_bytes,
        )


@dataclass(frozen=True)
class Memory:
    """Counts what DRAM holds."""

    context: Context

    def footprint(self, updates: list[UpdateWork]) -> Footprint:
        """Return the bytes alive at the end of the forward pass, every saved tensor once."""
        batch = self.context.options.batch
        saved_bits: dict[tuple[str, str], int] = {}
        largest = 0
        for layer in self.context.trace.layers:
            if isinstance(layer, Free):
                continue
            largest = max(largest, layer.out_elems + sum(self._elems(source, layer) for source in layer.inputs))
            if layer.name in self.context.trace.needs_grad:
                saved_bits.update(self._saved_bits(layer))
        return Footprint(
            activation_bytes=batch * sum(ceil_div(bits, 8) for bits in saved_bits.values()),
            master_bytes=sum(update.master_bytes for update in updates),
            copy_bytes=sum(update.copy_bytes for update in updates),
            gradient_bytes=batch * FP16_BYTES * largest,
        )

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
