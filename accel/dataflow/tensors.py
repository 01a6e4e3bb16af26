"""The tensors of a training step by name: what each piece of work reads and writes, and so what must wait for what."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

from accel.dataflow.context import Context
from accel.gemm import FP16_BYTES, FP32_BYTES
from accel.trace import Attention, Conv, Free, Layer, Linear, Vector
from accel.units import ceil_div
from accel.vector_ops import SAVED_BITS, VECTOR_OPS

Names = tuple[str, ...]


@dataclass(frozen=True)
class Tensors:
    """Names the tensors of a step.

    An activation has the name of the layer that makes it, a network input its own. The gradient of tensor t is "grad t", what
    one of several readers contributes to it "grad t from reader". Weights are "weight w", a stage's compact copy "weight w FF",
    their gradient "dw w", FP32 master and optimizer state "master w".
    """

    context: Context

    def activation(self, source: str) -> Names:
        """Return the tensors that a reader of `source` reads: an operator that was left out hands its inputs on."""
        layer = self.context.by_name.get(source)
        return self.inputs(layer) if isinstance(layer, Free) else (source,)

    def inputs(self, layer: Layer) -> Names:
        """Return the tensors that `layer` reads in FF, without its weight."""
        return _once(name for source in layer.inputs for name in self.activation(source))

    def gradients_to_add(self, source: str) -> int:
        """Return how many gradients of `source` come back beyond the first: readers send one each, or one for each sample."""
        layer = self.context.by_name.get(source)
        if layer is None or isinstance(layer, Free):
            return 0
        sent = sum(self.context.repeats(reader) for reader in self.context.readers.get(source, ()))
        return max(sent - self.context.repeats(layer), 0)

    def gradient(self, source: str) -> Names:
        """Return the tensors that together are the gradient of `source`: what its producer reads in BP."""
        readers = self.context.readers.get(source, [])
        if self.gradients_to_add(source) or not readers:
            return (f"grad {source}",)
        return _once(name for reader in readers for name in self.contribution(source, reader))

    def contributions(self, source: str) -> Names:
        """Return what the readers of `source` send back, in their order: what the sum of the gradients adds up, one by one."""
        return tuple(name for reader in self.context.readers.get(source, ()) for name in self.contribution(source, reader))

    def contribution(self, source: str, reader: Layer) -> Names:
        """Return the gradient of `source` as `reader` sends it back; one that passes it through hands its own on."""
        if isinstance(reader, Free) or (isinstance(reader, Vector) and not VECTOR_OPS[reader.op].backward_passes):
            return self.gradient(reader.name)
        return (f"grad {source} from {reader.name}",)

    def input_gradients(self, layer: Layer) -> Names:
        """Return the gradients that `layer` writes in BP, one for each input that wants one."""
        wanted = (source for source in layer.inputs if source in self.context.trace.needs_grad)
        return _once(name for source in wanted for name in self.contribution(source, layer))

    def weight(self, layer: Conv | Linear | Vector, stage: str = "") -> str:
        """Return the FP16 copy of a weight: the dense one, or the compact one of a stage."""
        return " ".join(filter(None, ("weight", layer.weight or layer.name, stage)))

    def master(self, layer: Conv | Linear | Vector) -> str:
        """Return the FP32 parameters that operators of the vector unit read as they are."""
        return f"master {layer.weight or layer.name}"

    def bias(self, layer: Conv | Linear) -> str:
        """Return the FP32 bias."""
        return f"{self.master(layer)} bias"

    def saved(self, layer: Vector) -> Names:
        """Return the mask or index that `layer` saves for its backward; nothing where it reads its input or output again."""
        kind = VECTOR_OPS[layer.op].saves
        return (f"{layer.name} {kind}",) if kind in ("mask", "index") else ()

    def weight_gradient(self, layer: Conv | Linear | Vector) -> str:
        """Return dW."""
        return f"dw {layer.weight or layer.name}"

    def sizes(self) -> dict[str, int]:
        """Return the bytes in DRAM of activations, network inputs and gradients, channels in whole words after a product."""
        found: dict[str, int] = {}
        for layer in self.context.trace.layers:
            repeats = self.context.repeats(layer)
            found[layer.name] = FP16_BYTES * repeats * self._stored_elems(layer)
            if isinstance(layer, Attention):
                parts = ("scores", "probabilities", "grad probabilities", "grad scores")
                found |= {self.inside(layer, part): FP16_BYTES * repeats * layer.score_elems for part in parts}
            for source in layer.inputs:
                if source not in self.context.by_name:
                    in_elems = layer.in_elems if isinstance(layer, Conv | Linear | Vector) else 0
                    found[source] = max(found.get(source, 0), FP16_BYTES * repeats * in_elems)
                found |= dict.fromkeys(self.contribution(source, layer), found[source])
            found |= dict.fromkeys(self.gradient(layer.name), found[layer.name])
            if isinstance(layer, Conv | Linear | Vector):
                elems = layer.params if isinstance(layer, Vector) else layer.weight_elems
                found[self.weight_gradient(layer)] = FP32_BYTES * elems
            if isinstance(layer, Conv | Linear):
                found[self.bias_gradient(layer)] = found[self.bias(layer)] = FP32_BYTES * layer.bias_elems
            if isinstance(layer, Vector):
                found[self.master(layer)] = FP32_BYTES * layer.params
                saved_bits = repeats * layer.out_elems * SAVED_BITS[VECTOR_OPS[layer.op].saves]
                found |= dict.fromkeys(self.saved(layer), ceil_div(saved_bits, 8))
        return found

    def _stored_elems(self, layer: Layer) -> int:
        if isinstance(layer, Free):
            return 0
        if isinstance(layer, Conv):
            return self.context.options.stored(layer.out_channels) * prod(layer.out_size)
        return layer.out_elems

    def bias_gradient(self, layer: Conv | Linear) -> str:
        """Return the gradient of a bias."""
        return f"{self.weight_gradient(layer)} bias"

    def inside(self, layer: Attention, part: str) -> str:
        """Return a tensor inside an attention layer: "scores", "probabilities" or a gradient of one."""
        return f"{layer.name} {part}"


def _once(names: object) -> Names:
    return tuple(dict.fromkeys(names))  # type: ignore[call-overload]
