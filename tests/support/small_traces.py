"""Two small networks as traces: a CNN with a shortcut and a transformer; and numbers for their parameters."""

import numpy as np

from accel.trace import Attention, Conv, Linear, Trace, Vector


def conv(name, source, inner, outer, size, kernel=3, stride=1, **changes):
    fields = {"padding": (kernel // 2,) * 2, "dilation": (1, 1)} | changes
    return Conv(
        name=name,
        inputs=(source,),
        in_channels=inner,
        out_channels=outer,
        in_size=size,
        kernel=(kernel,) * 2,
        stride=(stride,) * 2,
        **fields,
    )


def vector(name, op, sources, in_elems, out_elems=None, params=0, window=1, **attributes):
    """Return an operator; its function has the name of `op` if there is no other."""
    return Vector(
        name=name,
        op=op,
        inputs=sources,
        in_elems=in_elems,
        out_elems=out_elems or in_elems,
        params=params,
        window=window,
        attributes={"function": op} | attributes,
    )


def norm(name, source, size, channels):
    elems = size[0] * size[1] * channels
    return vector(name, "batch_norm", (source,), elems, params=2 * channels, channels=channels, eps=1e-5)


def linear(name, source, inner, outer, rows=1):
    return Linear(name=name, inputs=(source,), in_features=inner, out_features=outer, rows=rows, bias=True)


def loss(source, classes):
    return vector("loss", "cross_entropy", (source,), classes, 1, window=classes, classes=classes, smoothing=0.0)


WIDE, HALF, QUARTER = (8, 8), (4, 4), (2, 2)

CNN = Trace(
    name="small-cnn",
    inputs=("x",),
    layers=(
        conv("stem", "x", 3, 8, WIDE),
        norm("norm1", "stem", WIDE, 8),
        vector("relu1", "relu", ("norm1",), 512),
        vector(
            "pool", "max_pool", ("relu1",), 512, 128, window=9, sizes=WIDE, channels=8, kernel=(3, 3), stride=(2, 2),
            padding=(1, 1), dilation=(1, 1), ceil_mode=False,
        ),
        conv("conv2", "pool", 8, 16, HALF, stride=2),
        norm("norm2", "conv2", QUARTER, 16),
        vector("relu2", "relu", ("norm2",), 64),
        conv("conv3", "relu2", 16, 16, QUARTER, bias=True),
        conv("shortcut", "pool", 8, 16, HALF, kernel=1, stride=2),
        norm("norm3", "shortcut", QUARTER, 16),
        vector("sum", "add", ("conv3", "norm3"), 128, 64),
        vector("relu3", "relu", ("sum",), 64, image=(2, 2, 16)),
        linear("widen", "relu3", 64, 12),
        vector("relu4", "relu", ("widen",), 12),
        linear("head", "relu4", 12, 5),
        loss("head", 5),
    ),
)  # fmt: skip
"""A max pool, phases without taps (kernel 1, stride 2), a sum that two branches reach, a linear layer that reads an image."""

TOKENS, FEATURES = 6, 8


def token_norm(name, source):
    return vector(name, "layer_norm", (source,), TOKENS * FEATURES, params=2 * FEATURES, features=FEATURES, eps=1e-5)


VIT = Trace(
    name="small-transformer",
    inputs=("x",),
    layers=(
        linear("embed", "x", 5, FEATURES, TOKENS),
        token_norm("norm1", "embed"),
        linear("query", "norm1", FEATURES, FEATURES, TOKENS),
        linear("key", "norm1", FEATURES, FEATURES, TOKENS),
        linear("value", "norm1", FEATURES, FEATURES, TOKENS),
        Attention(
            name="attention", inputs=("query", "key", "value"), heads=2, q_len=TOKENS, kv_len=TOKENS, head_dim=4, causal=True
        ),
        linear("project", "attention", FEATURES, FEATURES, TOKENS),
        vector("sum1", "add", ("embed", "project"), 2 * TOKENS * FEATURES, TOKENS * FEATURES),
        token_norm("norm2", "sum1"),
        linear("widen", "norm2", FEATURES, 16, TOKENS),
        vector("gelu", "gelu", ("widen",), TOKENS * 16),
        linear("narrow", "gelu", 16, FEATURES, TOKENS),
        vector("sum2", "add", ("sum1", "narrow"), 2 * TOKENS * FEATURES, TOKENS * FEATURES),
        token_norm("norm3", "sum2"),
        vector(
            "mean", "reduction", ("norm3",), TOKENS * FEATURES, FEATURES, window=TOKENS, function="mean",
            shape=(TOKENS, FEATURES), axes=(1,),
        ),
        linear("head", "mean", FEATURES, 5),
        loss("head", 5),
    ),
)  # fmt: skip
"""Three readers of one norm, tensors that two branches reach, a causal softmax."""

CLASSES = 5
SHAPES = {CNN.name: (*WIDE, 3), VIT.name: (TOKENS, 5)}


def random_weights(rng, trace):
    """Return the parameters as `initial_tensors` takes them; those of norms near 1 and 0."""
    found = {}
    for layer in trace.layers:
        if isinstance(layer, Conv):
            inner, _ = layer.channels_per_group
            found[layer.name] = rng.normal(size=(layer.out_channels, *layer.kernel, inner)) / np.sqrt(inner * 9)
        elif isinstance(layer, Linear):
            found[layer.name] = rng.normal(size=(layer.out_features, layer.in_features)) / np.sqrt(layer.in_features)
        elif isinstance(layer, Vector) and layer.params:
            shift = 0.1 * rng.normal(size=(2, layer.params // 2))
            found[layer.name] = shift + np.array([[1.0], [0.0]])
        if isinstance(layer, Conv | Linear) and layer.bias:
            found[f"{layer.name} bias"] = 0.1 * rng.normal(size=layer.bias_elems)
    return {name: values.astype(np.float32) for name, values in found.items()}


def random_batch(rng, trace, batch):
    """Return inputs and labels."""
    return rng.normal(size=(batch, *SHAPES[trace.name])).astype(np.float16), rng.integers(0, CLASSES, batch)
