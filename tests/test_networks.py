import json
import re
import subprocess
import sys
from pathlib import Path

import jsonschema
import pytest

from accel import networks
from accel.errors import TraceError

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
