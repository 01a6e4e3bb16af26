"""The shipped networks, layer by layer, as their usual PyTorch definitions have them.

Names of layers are those of the modules; what a definition does without a module (adding, attention, the loss) has the name
of the operation. Run as a program it writes `accel/networks/*.json` and the JSON Schema of a trace.
"""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from accel.models.builder import TraceBuilder
from accel.trace import Trace

if TYPE_CHECKING:
    from collections.abc import Callable


def _conv_bn(net: TraceBuilder, conv: str, norm: str, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> str:
    """Append a convolution that keeps the map's size at stride 1, and its batch norm."""
    net.conv(conv, channels, kernel, stride=stride, padding=kernel // 2, groups=groups)
    return net.batch_norm(norm)


def resnet9() -> Trace:
    """Return the ResNet-9 of DAWNBench on CIFAR-10: eight 3x3 convolutions, two residual pairs, one linear layer."""
    net = TraceBuilder("resnet9", {"x": (3, 32, 32)})

    def step(name: str, channels: int) -> str:
        _conv_bn(net, f"{name}.conv", f"{name}.bn", channels, 3)
        return net.vector("relu", f"{name}.relu")

    def residual(name: str, channels: int) -> None:
        start = net.last
        step(f"{name}.res1", channels)
        net.add(f"{name}.add", start, step(f"{name}.res2", channels))

    step("prep", 64)
    for name, channels in (("layer1", 128), ("layer2", 256), ("layer3", 512)):
        step(name, channels)
        net.max_pool(f"{name}.pool", 2)
        if name != "layer2":
            residual(f"{name}.residual", channels)
    net.max_pool("pool", 4)
    net.flatten()
    net.linear("linear", 10)
    net.cross_entropy()
    return net.build()


def vgg19() -> Trace:
    """Return the CIFAR-10 form of VGG-19: batch norm, convolutions with bias, one linear layer."""
    net = TraceBuilder("vgg19", {"x": (3, 32, 32)})
    index = 0
    for channels, convs in ((64, 2), (128, 2), (256, 4), (512, 4), (512, 4)):
        for _ in range(convs):
            net.conv(f"features.{index}", channels, 3, padding=1, bias=True)
            net.batch_norm(f"features.{index + 1}")
            net.vector("relu", f"features.{index + 2}")
            index += 3
        net.max_pool(f"features.{index}", 2)
        index += 1
    net.flatten()
    net.linear("classifier", 10)
    net.cross_entropy()
    return net.build()


def _basic_block(net: TraceBuilder, name: str, channels: int, stride: int) -> str:
    _conv_bn(net, f"{name}.conv1", f"{name}.bn1", channels, 3, stride)
    net.vector("relu", f"{name}.relu")
    return _conv_bn(net, f"{name}.conv2", f"{name}.bn2", channels, 3)


def _bottleneck(net: TraceBuilder, name: str, channels: int, stride: int) -> str:
    _conv_bn(net, f"{name}.conv1", f"{name}.bn1", channels, 1)
    net.vector("relu", f"{name}.relu")
    _conv_bn(net, f"{name}.conv2", f"{name}.bn2", channels, 3, stride)
    net.vector("relu", f"{name}.relu")
    return _conv_bn(net, f"{name}.conv3", f"{name}.bn3", 4 * channels, 1)


def _resnet(
    name: str,
    block: Callable[[TraceBuilder, str, int, int], str],
    blocks: tuple[int, ...],
    *,
    image: int = 224,
    classes: int = 1000,
    small_stem: bool = False,
) -> Trace:
    """Return a torchvision ResNet; the small stem is a 3x3 convolution at stride 1 without max pool."""
    net = TraceBuilder(name, {"x": (3, image, image)})
    _conv_bn(net, "conv1", "bn1", 64, 3 if small_stem else 7, 1 if small_stem else 2)
    net.vector("relu", "relu")
    if not small_stem:
        net.max_pool("maxpool", 3, stride=2, padding=1)
    for group, count in enumerate(blocks):
        for index in range(count):
            _residual_block(net, f"layer{group + 1}.{index}", block, 64 * 2**group, 2 if group > 0 and index == 0 else 1)
    net.global_avg_pool("avgpool")
    net.linear("fc", classes)
    net.cross_entropy()
    return net.build()


def _residual_block(
    net: TraceBuilder, name: str, block: Callable[[TraceBuilder, str, int, int], str], channels: int, stride: int
) -> None:
    shortcut = start = net.last
    branch = block(net, name, channels, stride)
    if net.shape(branch) != net.shape(start):
        net.conv(f"{name}.downsample.0", net.shape(branch)[0], 1, stride=stride, source=start)
        shortcut = net.batch_norm(f"{name}.downsample.1")
    net.add(f"{name}.add", branch, shortcut)
    net.vector("relu", f"{name}.relu")


def mobilenetv2() -> Trace:
    """Return torchvision's MobileNetV2 at 224x224 with 1000 classes."""
    net = TraceBuilder("mobilenetv2", {"x": (3, 224, 224)})

    def step(name: str, channels: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        _conv_bn(net, f"{name}.0", f"{name}.1", channels, kernel, stride, groups)
        net.vector("relu6", f"{name}.2")

    def inverted_residual(name: str, expand: int, channels: int, stride: int) -> None:
        start = net.last
        wide = expand * net.shape()[0]
        if expand > 1:
            step(f"{name}.0", wide, 1)
        at = int(expand > 1)
        step(f"{name}.{at}", wide, 3, stride, groups=wide)
        end = _conv_bn(net, f"{name}.{at + 1}", f"{name}.{at + 2}", channels, 1)
        if net.shape(start) == net.shape(end):
            net.add(f"{name.removesuffix('.conv')}.add", start, end)

    step("features.0", 32, 3, stride=2)
    index = 1
    for expand, channels, count, stride in (
        (1, 16, 1, 1),
        (6, 24, 2, 2),
        (6, 32, 3, 2),
        (6, 64, 4, 2),
        (6, 96, 3, 1),
        (6, 160, 3, 2),
        (6, 320, 1, 1),
    ):
        for repeat in range(count):
            inverted_residual(f"features.{index}.conv", expand, channels, stride if repeat == 0 else 1)
            index += 1
    step(f"features.{index}", 1280, 1)
    net.global_avg_pool("adaptive_avg_pool2d")
    net.vector("dropout", "classifier.0")
    net.linear("classifier.1", 1000)
    net.cross_entropy()
    return net.build()


def _vit(name: str, *, image: int, patch: int, width: int, depth: int, heads: int, hidden: int, classes: int) -> Trace:
    """Return timm's VisionTransformer: class token, one qkv layer per attention, pre-norm, no dropout by default."""
    net = TraceBuilder(name, {"x": (3, image, image)})
    net.conv("patch_embed.proj", width, patch, stride=patch, bias=True)
    net.reshape((image // patch) ** 2, width)
    net.add_table("pos_embed", extra_rows=1)
    for index in range(depth):
        at = f"blocks.{index}"
        start = net.last
        net.layer_norm(f"{at}.norm1")
        qkv = net.linear(f"{at}.attn.qkv", 3 * width)
        net.attention(f"{at}.attn.attention", heads, width // heads, sources=(qkv, qkv, qkv))
        start = net.add(f"{at}.add", start, net.linear(f"{at}.attn.proj", width))
        net.layer_norm(f"{at}.norm2")
        net.linear(f"{at}.mlp.fc1", hidden)
        net.vector("gelu", f"{at}.mlp.act")
        net.add(f"{at}.add", start, net.linear(f"{at}.mlp.fc2", width))
    net.layer_norm("norm")
    net.select_row()
    net.linear("head", classes)
    net.cross_entropy()
    return net.build()


# Dropout of attention probabilities, on by default in both of the next two, is inside the one attention layer and not counted.


def bert_base(tokens: int = 128) -> Trace:
    """Return Hugging Face's BertForSequenceClassification, uncased base, two classes."""
    net = TraceBuilder("bert-base", {"input_ids": (tokens,), "token_type_ids": (tokens,)})
    at = "bert.embeddings"
    words = net.embedding(f"{at}.word_embeddings", 30522, 768, source="input_ids")
    net.add(f"{at}.add", words, net.embedding(f"{at}.token_type_embeddings", 2, 768, source="token_type_ids"))
    net.add_table(f"{at}.position_embeddings", table_rows=512)
    net.layer_norm(f"{at}.LayerNorm")
    net.vector("dropout", f"{at}.dropout")
    for index in range(12):
        _bert_layer(net, f"bert.encoder.layer.{index}")
    net.select_row()
    net.linear("bert.pooler.dense", 768)
    net.vector("tanh", "bert.pooler.activation")
    net.vector("dropout", "dropout")
    net.linear("classifier", 2)
    net.cross_entropy()
    return net.build()


def _bert_layer(net: TraceBuilder, name: str) -> None:
    def output(at: str, start: str) -> str:
        net.linear(f"{at}.dense", 768)
        net.add(f"{at}.add", net.vector("dropout", f"{at}.dropout"), start)
        return net.layer_norm(f"{at}.LayerNorm")

    start, at = net.last, f"{name}.attention"
    query, key, value = (net.linear(f"{at}.self.{part}", 768, source=start) for part in ("query", "key", "value"))
    net.attention(f"{at}.self.attention", 12, 64, sources=(query, key, value))
    start = output(f"{at}.output", start)
    net.linear(f"{name}.intermediate.dense", 3072)
    net.vector("gelu", f"{name}.intermediate.intermediate_act_fn")
    output(f"{name}.output", start)


def gpt2(tokens: int = 1024) -> Trace:
    """Return Hugging Face's GPT2LMHeadModel, small; the head's weight is the token embedding's."""
    net = TraceBuilder("gpt2", {"input_ids": (tokens,)})
    table = "transformer.wte.weight"
    net.embedding("transformer.wte", 50257, 768, source="input_ids", weight=table)
    net.add_table("transformer.wpe", table_rows=1024)
    net.vector("dropout", "transformer.drop")
    for index in range(12):
        at = f"transformer.h.{index}"
        start = net.last
        net.layer_norm(f"{at}.ln_1")
        qkv = net.linear(f"{at}.attn.c_attn", 3 * 768)
        net.attention(f"{at}.attn.attention", 12, 64, sources=(qkv, qkv, qkv), causal=True)
        net.linear(f"{at}.attn.c_proj", 768)
        start = net.add(f"{at}.add", net.vector("dropout", f"{at}.attn.resid_dropout"), start)
        net.layer_norm(f"{at}.ln_2")
        net.linear(f"{at}.mlp.c_fc", 4 * 768)
        net.vector("gelu", f"{at}.mlp.act")
        net.linear(f"{at}.mlp.c_proj", 768)
        net.add(f"{at}.add", start, net.vector("dropout", f"{at}.mlp.dropout"))
    net.layer_norm("transformer.ln_f")
    net.linear("lm_head", 50257, bias=False, weight=table)
    net.cross_entropy()  # of all rows: the targets are shifted and padded, not the logits
    return net.build()


def mlp() -> Trace:
    """Return 784-1024-1024-10 with ReLU on 28x28 images of one channel."""
    net = TraceBuilder("mlp", {"x": (1, 28, 28)})
    net.flatten()
    for index in (1, 2):
        net.linear(f"fc{index}", 1024)
        net.vector("relu", f"relu{index}")
    net.linear("fc3", 10)
    net.cross_entropy()
    return net.build()


NETWORKS: dict[str, Callable[[], Trace]] = {
    "bert-base": bert_base,
    "gpt2": gpt2,
    "mlp": mlp,
    "mobilenetv2": mobilenetv2,
    "resnet9": resnet9,
    "resnet18": partial(_resnet, "resnet18", _basic_block, (2, 2, 2, 2)),
    "resnet18-64": partial(_resnet, "resnet18-64", _basic_block, (2, 2, 2, 2), image=64, classes=200, small_stem=True),
    "resnet50": partial(_resnet, "resnet50", _bottleneck, (3, 4, 6, 3)),
    "vgg19": vgg19,
    "vit-b16": partial(_vit, "vit-b16", image=224, patch=16, width=768, depth=12, heads=12, hidden=3072, classes=1000),
    "vit-cifar": partial(_vit, "vit-cifar", image=32, patch=4, width=512, depth=6, heads=8, hidden=512, classes=10),
}


def schema_text() -> str:
    """Return the JSON Schema of a trace file as text."""
    return json.dumps(Trace.json_schema(), indent=1) + "\n"


def main(root: Path = Path(__file__).parents[2]) -> None:
    """Write the networks and the schema into the checkout at `root`."""
    for name, network in NETWORKS.items():
        network().save(root / "accel" / "networks" / f"{name}.json")
    (root / "docs" / "trace.schema.json").write_text(schema_text(), encoding="utf-8")


if __name__ == "__main__":
    main()
