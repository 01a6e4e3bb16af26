import json
import re
import subprocess
import sys
from math import prod
from pathlib import Path

import jsonschema
import pytest

from accel import networks
from accel.errors import TraceError
from accel.trace import Attention, Conv, Linear, Trace, Vector

PACKAGE = Path(networks.__file__).parent
SCHEMA = json.loads((PACKAGE.parents[1] / "docs" / "trace.schema.json").read_text(encoding="utf-8"))


def fields(name):
    return json.loads((PACKAGE / f"{name}.json").read_text(encoding="utf-8"))


def test_names_are_sorted_and_complete():
    assert networks.names() == [
        "bert-base",
        "gpt2",
        "mlp",
        "mobilenetv2",
        "resnet18",
        "resnet18-64",
        "resnet50",
        "resnet9",
        "vgg19",
        "vit-b16",
        "vit-cifar",
    ]


@pytest.mark.parametrize("name", networks.names())
def test_each_network_loads_and_writes_back_the_same_text(name):
    trace = networks.load(name)
    assert trace.name == name
    assert trace.to_json() == (PACKAGE / f"{name}.json").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ["resnet19", "", "../trace", "resnet18.json"])
def test_unknown_name_is_refused(name):
    listed = "bert-base, gpt2, mlp, mobilenetv2, resnet18, resnet18-64, resnet50, resnet9, vgg19, vit-b16, vit-cifar"
    message = f"network must be one of {listed}, or a JSON file, not {name!r}"
    with pytest.raises(TraceError, match=f"^{re.escape(message)}$"):
        networks.load(name)


def test_loading_needs_neither_models_nor_anything_heavy():
    heavy = "{'accel.models', 'torch', 'numba', 'pandas', 'numpy'}"
    code = f"import sys; from accel import networks; networks.load('mlp'); sys.exit(bool({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize("name", networks.names())
def test_schema_accepts_every_shipped_network(name):
    jsonschema.validate(fields(name), SCHEMA)


def without_layers(broken):
    del broken["layers"]


def with_negative_size(broken):
    broken["layers"][0]["in_features"] = -1


def with_unknown_field(broken):
    broken["layers"][0]["colour"] = "red"


def with_unknown_op(broken):
    broken["layers"][0]["op"] = "sort"


def with_another_version(broken):
    broken["schema_version"] = 2


@pytest.mark.parametrize(
    "spoil", [without_layers, with_negative_size, with_unknown_field, with_unknown_op, with_another_version]
)
def test_schema_refuses_a_broken_file(spoil):
    broken = fields("mlp")
    spoil(broken)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, SCHEMA)


def test_schema_is_itself_valid():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


def test_published_schema_is_current():
    assert Trace.json_schema() == SCHEMA, "run python -m accel.models.zoo"


def forward_macs(layer):
    """MACs of the forward pass per sample, padding included."""
    if isinstance(layer, Conv):
        taps = prod(layer.kernel)
        return prod(layer.out_size) * layer.out_channels * (layer.in_channels // layer.groups) * taps
    if isinstance(layer, Linear):
        return layer.rows * layer.in_features * layer.out_features
    return 0


def saving_percent(trace, density=2 / 8):
    """Nominal MACs that pruning weights in FF and BP saves in a whole step; the first layer and attention stay dense."""
    dense = sparse = 0
    weight_density = 1
    for layer in trace.layers:
        if isinstance(layer, Attention):
            product = layer.heads * layer.q_len * layer.kv_len * layer.head_dim
            dense += 6 * product
            sparse += 6 * product
        elif isinstance(layer, Conv | Linear):
            forward = forward_macs(layer)
            backward = forward if trace.has_input_grad(layer) else 0
            dense += forward + backward + forward
            sparse += weight_density * (forward + backward) + forward
            weight_density = density
    return 100 * (1 - sparse / dense)


def parameters(trace):
    """Trainable parameters; a shared weight counts once."""
    found = {}
    for layer in trace.layers:
        if isinstance(layer, Conv | Linear):
            found[layer.weight or layer.name] = layer.weight_elems
            found[layer.name, "bias"] = layer.bias_elems
        elif isinstance(layer, Vector):
            found[layer.weight or layer.name] = layer.params
    return sum(found.values())


@pytest.mark.parametrize(
    ("name", "percent"),
    [
        ("resnet9", 49.8),
        ("resnet18-64", 49.9),
        ("resnet18", 47.8),
        ("vgg19", 49.9),
        ("resnet50", 49.0),
        ("vit-cifar", 47.9),
        ("vit-b16", 47.7),
    ],
)
def test_pruning_both_passes_at_2_of_8_saves_the_derived_share_of_a_step(name, percent):
    assert saving_percent(networks.load(name)) == pytest.approx(percent, abs=0.1)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("resnet18", 11_689_512),
        # resnet18 less its stem (9408) and head (513000), with a 3x3 stem and 200 classes.
        ("resnet18-64", 11_689_512 - 64 * 3 * 49 + 64 * 3 * 9 - 513 * 1000 + 513 * 200),
        ("resnet50", 25_557_032),
        ("mobilenetv2", 3_504_872),
        ("vit-b16", 86_567_656),
        # Patches, class token and positions; six layers; norm and head.
        (
            "vit-cifar",
            (48 + 1 + 1 + 65) * 512 + 6 * (4 * 512 + 4 * (512 * 512 + 512) + 2 * (512 * 512 + 512)) + 2 * 512 + 513 * 10,
        ),
        # Encoder and pooler, then the head of two classes.
        ("bert-base", 109_482_240 + 769 * 2),
        ("gpt2", 124_439_808),
        # Weights; scale and shift; linear layer.
        (
            "resnet9",
            9 * (3 * 64 + 64 * 128 + 2 * 128 * 128 + 128 * 256 + 256 * 512 + 2 * 512 * 512)
            + 2 * (64 + 3 * 128 + 256 + 3 * 512)
            + 513 * 10,
        ),
        # Weights; bias, scale and shift; linear layer.
        (
            "vgg19",
            9 * (3 * 64 + 64 * 64 + 64 * 128 + 128 * 128 + 128 * 256 + 3 * 256 * 256 + 256 * 512 + 7 * 512 * 512)
            + 3 * (2 * 64 + 2 * 128 + 4 * 256 + 8 * 512)
            + 513 * 10,
        ),
        ("mlp", 785 * 1024 + 1025 * 1024 + 1025 * 10),
    ],
)
def test_parameter_count_is_the_known_one(name, count):
    assert parameters(networks.load(name)) == count


@pytest.mark.parametrize(
    ("name", "macs"),
    [
        ("resnet18", 1_814_073_344),
        ("resnet50", 4_089_184_256),
        ("mobilenetv2", 300_774_272),
        # Patches; per layer qkv, projection and two of the MLP; head.
        ("vit-b16", 196 * 768 * 768 + 12 * 197 * 12 * 768 * 768 + 768 * 1000),
        ("gpt2", 1024 * (12 * 12 * 768 * 768 + 768 * 50257)),
        ("bert-base", 128 * 12 * 12 * 768 * 768 + 768 * 768 + 768 * 2),
        ("mlp", 784 * 1024 + 1024 * 1024 + 1024 * 10),
    ],
)
def test_forward_macs_of_weight_layers_are_the_known_ones(name, macs):
    assert sum(forward_macs(layer) for layer in networks.load(name).layers) == macs


@pytest.mark.parametrize("name", networks.names())
def test_the_loss_comes_last(name):
    assert networks.load(name).layers[-1].op == "cross_entropy"


@pytest.mark.parametrize("name", networks.names())
def test_every_output_but_the_loss_is_read(name):
    trace = networks.load(name)
    read = {source for layer in trace.layers for source in layer.inputs}
    unread = [layer.name for layer in trace.layers if layer.name not in read]
    assert unread == ["loss"]


def sizes(trace):
    return {layer.name: layer.in_size[0] for layer in trace.layers if isinstance(layer, Conv) and layer.kernel == (3, 3)}


def test_resnet9_maps_have_the_stated_sizes():
    assert list(sizes(networks.load("resnet9")).values()) == [32, 32, 16, 16, 16, 8, 4, 4]


def test_resnet_halves_the_map_in_the_3x3_convolution_of_each_later_group():
    found = sizes(networks.load("resnet50"))
    assert [found[f"layer{group}.{index}.conv2"] for group in (1, 2, 3, 4) for index in (0, 1)] == [
        56, 56, 56, 28, 28, 14, 14, 7,
    ]  # fmt: skip


def test_token_embedding_and_head_of_gpt2_share_one_weight():
    shared = [layer.name for layer in networks.load("gpt2").layers if getattr(layer, "weight", None) is not None]
    assert shared == ["transformer.wte", "lm_head"]
