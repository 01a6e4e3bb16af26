"""The shipped networks are what the exporter makes of their PyTorch definitions."""

from pathlib import Path

import pytest

from accel import networks

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from accel.models import zoo  # noqa: E402

ROOT = Path(networks.__file__).parents[2]


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_shipped_network_is_current(name):
    assert networks.load(name) == zoo.NETWORKS[name].trace(name), "run python -m accel.models.zoo"


def test_no_other_network_is_shipped():
    assert networks.names() == sorted(zoo.NETWORKS)


@pytest.mark.parametrize("name", zoo.NETWORKS)
def test_parameters_of_the_trace_are_those_of_the_module(name):
    trace, module = networks.load(name), zoo.NETWORKS[name].module()
    counted = {}
    for layer in trace.layers:
        if layer.op in ("conv", "linear"):
            counted[layer.weight or layer.name] = layer.weight_elems
            counted[layer.name, "bias"] = layer.bias_elems
        elif hasattr(layer, "params"):
            counted[layer.weight or layer.name] = layer.params
    assert sum(counted.values()) == sum(parameter.numel() for parameter in module.parameters())


def test_main_writes_every_file(tmp_path):
    (tmp_path / "accel" / "networks").mkdir(parents=True)
    (tmp_path / "docs").mkdir()
    zoo.main(tmp_path)
    written = sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*.json"))
    assert len(written) == len(zoo.NETWORKS) + 1
    assert all((tmp_path / path).read_bytes() == (ROOT / path).read_bytes() for path in written)
