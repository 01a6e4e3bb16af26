"""One training step written down directly: golden functions on whole tensors, layer by layer, without tiles or programs.

Tensors have the names that they have in a program (`accel.dataflow.tensors`), images are channels last.
"""

from math import prod

import numpy as np
from naive_layers import Layer, bp_mask, ff_mask, machine_forward, machine_input_grad, machine_weight_grad

from accel.golden.gemm import gemm
from accel.golden.numeric import to_fp16
from accel.golden.update import update
from accel.golden.vector import losses, norms, pooling, tensors, unary
from accel.golden.vector.arithmetic import load, multiply, subtract, sum_along
from accel.methods import method as named_method
from accel.sparsity import DENSE, NMPattern
from accel.trace import Attention, Conv, Linear, Vector

PASSES = ("add",)
"""Operators whose gradient goes through as it is."""


class GoldenStep:
    def __init__(self, trace, weights, data, method, pattern, rule, loss_scale=1.0, dense_layers=None):
        self.trace, self.method, self.rule, self.loss_scale = trace, named_method(method), rule, loss_scale
        self.pattern = DENSE if method == "dense" else NMPattern.parse(pattern)
        self.weights, (inputs, self.labels) = weights, data
        self.batch = len(inputs)
        self.tensors = {trace.inputs[0]: inputs}
        self.layers = {layer.name: layer for layer in trace.layers}
        named = [layer.name for layer in trace.layers if isinstance(layer, Conv | Linear)]
        self.pruned = set(named[1:]) if dense_layers is None else set(named) - set(dense_layers)
        self.saved = {}
        for layer in trace.layers:
            self.tensors[layer.name] = self.forward(layer)
        for layer in reversed(trace.layers):
            self.backward(layer)
        self.update()

    # Weight layers.

    def pattern_of(self, layer, inner, operand, wanted="weight"):
        useful = operand == wanted and layer.name in self.pruned and self.pattern.kept_of(inner) < inner
        return self.pattern if useful else DENSE

    def geometry(self, layer):
        if isinstance(layer, Linear):
            return Layer((), (), (), (), (), 1, layer.in_features, layer.out_features, self.batch * layer.rows, DENSE)
        sizes = layer.in_size, layer.kernel, layer.stride, layer.padding, layer.dilation, layer.groups
        return Layer(*sizes, *layer.channels_per_group, self.batch, DENSE)

    def weight(self, layer):
        """Return the FP16 weight, (out, in, taps...)."""
        return np.moveaxis(to_fp16(self.weights[layer.name]), -1, 1)

    def read(self, layer):
        """Return the input (rows, channels, pixels...): of a linear layer as PyTorch flattens it."""
        x = self.tensors[layer.inputs[0]]
        return np.moveaxis(x, -1, 1) if isinstance(layer, Conv) else self.flat(layer, x)

    def flat(self, layer, x):
        if layer.rows == 1 and x.ndim == 4:
            x = np.moveaxis(x, -1, 1)
        return x.reshape(self.batch * layer.rows, layer.in_features)

    def weight_layer(self, layer):
        inner, _ = layer.channels_per_group
        out = machine_forward(
            self.geometry(layer), self.read(layer), self.weight(layer), self.pattern_of(layer, inner, self.method.ff)
        )
        out = np.moveaxis(out, 1, -1) if isinstance(layer, Conv) else out.reshape(self.batch, layer.rows, -1)
        return tensors.bias_add(out, self.weights[f"{layer.name} bias"]) if layer.bias else out

    def weight_layer_backward(self, layer, dy):
        geometry, weight = self.geometry(layer), self.weight(layer)
        grad = np.moveaxis(dy, -1, 1) if isinstance(layer, Conv) else dy.reshape(-1, layer.out_features)
        rows = self.batch * (prod(layer.out_size) if isinstance(layer, Conv) else layer.rows)
        wu = self.pattern_of(layer, rows, self.method.wu, "grad")
        dw = machine_weight_grad(geometry, self.read(layer), grad, wu)
        self.tensors[f"dw {layer.name}"] = np.moveaxis(dw, 1, -1)
        if layer.bias:
            self.tensors[f"dw {layer.name} bias"] = tensors.bias_grad(dy.reshape(-1, dy.shape[-1]))
        if not self.wants(layer.inputs[0]):
            return []
        inner, outer = layer.channels_per_group
        if self.method.name == "sr-ste" and not self.pattern_of(layer, inner, "weight").is_dense:
            weight = np.where(ff_mask(weight, self.pattern), weight, np.float16(0))
        patterns = (self.pattern_of(layer, outer, self.method.bp, operand) for operand in ("weight", "grad"))
        dx = machine_input_grad(geometry, grad, weight, *patterns)
        if isinstance(layer, Conv):
            return [np.moveaxis(dx, 1, -1)]
        x = self.tensors[layer.inputs[0]]
        if layer.rows == 1 and x.ndim == 4:
            return [np.moveaxis(dx.reshape(len(x), x.shape[-1], *x.shape[1:-1]), 1, -1)]
        return [dx.reshape(x.shape)]

    # Attention.

    def heads(self, name, layer):
        x = self.tensors[name].reshape(self.batch, -1, layer.heads, layer.head_dim)
        return x.transpose(0, 2, 1, 3)

    def multiply_heads(self, left, right):
        out = np.empty((*left.shape[:-1], right.shape[-1]), np.float16)
        for index in np.ndindex(left.shape[:2]):
            out[index] = to_fp16(gemm(np.ascontiguousarray(left[index]), np.ascontiguousarray(right[index])))
        return out

    def joined(self, x):
        return x.transpose(0, 2, 1, 3).reshape(self.batch, x.shape[2], -1)

    def attention(self, layer):
        query, key, value = (self.heads(name, layer) for name in layer.inputs)
        scores = self.multiply_heads(query, key.swapaxes(-1, -2))
        self.kept = (
            np.tri(layer.q_len, layer.kv_len, dtype=bool) if layer.causal else np.ones((layer.q_len, layer.kv_len), bool)
        )
        self.factor = np.float32(1 / np.sqrt(layer.head_dim))
        shares = losses.softmax(multiply(load(scores), self.factor), self.kept)
        self.tensors[f"{layer.name} scores"], self.tensors[f"{layer.name} probabilities"] = scores, shares
        return self.joined(self.multiply_heads(shares, value))

    def attention_backward(self, layer, dy):
        query, key, value = (self.heads(name, layer) for name in layer.inputs)
        grad = dy.reshape(self.batch, -1, layer.heads, layer.head_dim).transpose(0, 2, 1, 3)
        shares = self.tensors[f"{layer.name} probabilities"]
        grad_shares = self.multiply_heads(grad, value.swapaxes(-1, -2))
        wide, share = np.where(self.kept, load(grad_shares), np.float32(0)), load(shares)
        inner = subtract(wide, sum_along(multiply(wide, share))[..., None])
        grad_scores = to_fp16(np.where(self.kept, multiply(multiply(share, inner), self.factor), np.float32(0)))
        self.tensors[f"{layer.name} grad probabilities"] = grad_shares
        self.tensors[f"{layer.name} grad scores"] = grad_scores
        to_value = self.multiply_heads(shares.swapaxes(-1, -2), grad)
        to_query = self.multiply_heads(grad_scores, key)
        to_key = self.multiply_heads(grad_scores.swapaxes(-1, -2), query)
        return [self.joined(part) for part in (to_query, to_key, to_value)]

    # Operators.

    def affine(self, layer):
        return self.weights[layer.name].reshape(2, -1)

    def forward(self, layer):
        if isinstance(layer, Conv | Linear):
            return self.weight_layer(layer)
        if isinstance(layer, Attention):
            return self.attention(layer)
        x, *others = (self.tensors[name] for name in layer.inputs)
        attributes = layer.attributes
        match layer.op:
            case "batch_norm":
                y, self.saved[layer.name] = norms.batch_norm(x, *self.affine(layer), attributes["eps"])
            case "layer_norm":
                y, self.saved[layer.name] = norms.layer_norm(x, *self.affine(layer), attributes["eps"])
            case "relu":
                y, self.saved[layer.name] = unary.relu(x)
            case "gelu":
                y = unary.unary("gelu", x)
            case "add":
                y = tensors.add(x, others[0])
            case "max_pool":
                y, self.saved[layer.name] = pooling.max_pool(x, self.windows(attributes))
            case "reduction":
                y = tensors.reduce_mean(x, attributes["axes"])
            case "cross_entropy":
                y = losses.cross_entropy(x.reshape(len(x), -1), self.labels)
        return y

    def windows(self, attributes):
        return pooling.sliding(
            *(attributes[name] for name in ("sizes", "kernel", "stride", "padding", "dilation", "ceil_mode"))
        )

    def backward(self, layer):
        if layer.op == "cross_entropy":
            x = self.tensors[layer.inputs[0]]
            dx = losses.cross_entropy_backward(x.reshape(len(x), -1), self.labels, loss_scale=self.loss_scale)
            self.send(layer, [dx.reshape(x.shape)])
            return
        dy = self.gradient(layer.name)
        if isinstance(layer, Conv | Linear):
            self.send(layer, self.weight_layer_backward(layer, dy))
        elif isinstance(layer, Attention):
            self.send(layer, self.attention_backward(layer, dy))
        elif layer.op not in PASSES:
            self.send(layer, self.vector_backward(layer, dy))

    def vector_backward(self, layer, dy):
        x, saved = self.tensors[layer.inputs[0]], self.saved.get(layer.name)
        match layer.op:
            case "batch_norm" | "layer_norm":
                function = getattr(norms, f"{layer.op}_backward")
                dx, *of_params = function(dy, x, self.affine(layer)[0], saved)
                self.tensors[f"dw {layer.name}"] = np.concatenate(of_params)
            case "relu":
                dx = unary.masked_backward(dy, saved)
            case "gelu":
                dx = unary.unary_backward("gelu", dy, x)
            case "max_pool":
                dx = pooling.max_pool_backward(dy, saved, self.windows(layer.attributes))
            case "reduction":
                dx = tensors.reduce_mean_backward(dy, x.shape, layer.attributes["axes"])
        return [dx]

    def wants(self, source):
        return source in self.layers

    def send(self, layer, grads):
        for source, grad in zip(layer.inputs, grads, strict=False):
            if self.wants(source):
                self.tensors[f"grad {source} from {layer.name}"] = grad

    def gradient(self, source):
        """Return what the readers of `source` send back, added up in their order."""
        sent = [
            self.gradient(reader.name)
            if isinstance(reader, Vector) and reader.op in PASSES
            else self.tensors[f"grad {source} from {reader.name}"]
            for reader in self.trace.layers
            if source in reader.inputs
        ]
        shape = self.tensors[source].shape
        total = sent[0].reshape(shape)
        for grad in sent[1:]:
            total = to_fp16(load(total) + load(grad.reshape(shape)))
        if len(sent) > 1:
            self.tensors[f"grad {source}"] = total
        return total

    def update(self):
        grads = {name: self.tensors[f"dw {name}"] for name in self.weights}
        self.is_good = all(np.isfinite(grad).all() for grad in grads.values())
        for name, weight in self.weights.items():
            if not self.is_good:
                self.tensors[f"master {name}"] = weight
                continue
            kept = self.kept_weights(name) if self.rule.needs_mask else None
            new = update(weight, grads[name].reshape(weight.shape), None, self.rule, self.loss_scale, kept)
            self.tensors[f"master {name}"] = new.weight
            if new.state is not None:
                self.tensors[f"momentum {name}"] = new.state

    def kept_weights(self, name):
        """Return what FF keeps, else what BP keeps, of (out, taps..., in)."""
        layer = self.layers.get(name)
        kept = np.ones(self.weights[name].shape, bool)
        if not isinstance(layer, Conv | Linear):
            return kept
        weight, (inner, outer) = self.weight(layer), layer.channels_per_group
        groups = layer.groups if isinstance(layer, Conv) else 1
        if not self.pattern_of(layer, inner, self.method.ff).is_dense:
            return np.moveaxis(ff_mask(weight, self.pattern), 1, -1)
        if not self.pattern_of(layer, outer, self.method.bp).is_dense:
            return np.moveaxis(bp_mask(weight, self.pattern, groups), 1, -1)
        return kept
