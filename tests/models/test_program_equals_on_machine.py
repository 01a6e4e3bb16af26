"""A training step as a program and the same step in PyTorch with the machine's arithmetic: equal bits in every new weight."""

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from program_step import RULE, program_step  # noqa: E402
from torch_step import network, stored_batch, stored_weights, torch_step, trace_of  # noqa: E402

from accel.golden.update import UpdateRule  # noqa: E402
from accel.presets import preset  # noqa: E402

pytestmark = pytest.mark.torch
MACHINES = [("test", "2:4"), ("edge-kv260", "2:8")]


def both(kind, method, pattern, machine, rule=RULE, scale=1.0, seed=1, **options):
    module, x, labels = network(kind)
    weights = stored_weights(module)
    found = program_step(
        trace_of(module, x), weights, stored_batch(x, labels), method, pattern, preset(machine), seed,
        rule=rule, loss_scale=scale, **options,
    )  # fmt: skip
    expected = torch_step(module, x, labels, rule, scale, method, pattern, options.get("dense_layers"))
    return weights, found, expected


def differing(found, expected):
    assert found.keys() == expected.keys()
    return [name for name in expected if found[name].tobytes() != expected[name].tobytes()]


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
@pytest.mark.parametrize(("machine", "pattern"), MACHINES)
@pytest.mark.parametrize("method", ["dense", "bdwp", "sr-ste", "sdgp", "bp-only", "fully-sparse"])
def test_new_weights_have_equal_bits(kind, machine, pattern, method):
    weights, found, expected = both(kind, method, pattern, machine)
    assert differing(found, expected) == []
    assert not any(np.array_equal(weights[name], found[name]) for name in weights if "query bias" not in name)


@pytest.mark.parametrize("kind", ["small cnn", "small vit"])
def test_the_networks_of_the_experiment_have_equal_bits(kind):
    """With parameters that are added to every sample, and layers left dense."""
    weights, found, expected = both(kind, "bdwp", "2:8", "edge-kv260", scale=64.0)
    assert differing(found, expected) == []
    assert ("position" in weights) == (kind == "small vit")


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
@pytest.mark.parametrize("rule", [UpdateRule(lr=0.1, sparse_decay=0.01), UpdateRule(lr=0.1, momentum=0.5, masked=True)])
def test_rules_that_look_at_the_mask_agree(kind, rule):
    _, found, expected = both(kind, "bdwp", "2:4", "test", rule, scale=1024.0)
    assert differing(found, expected) == []


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_an_overflow_skips_the_step_in_both(kind):
    weights, found, expected = both(kind, "bdwp", "2:4", "test", scale=2.0**24)
    assert differing(found, expected) == []
    assert differing(found, weights) == []


@pytest.mark.parametrize("kind", ["cnn", "transformer"])
def test_the_step_is_near_that_of_float32(kind):
    """FP16 operands and results have errors of 2**-11; the bound leaves room for the sums of a few layers."""
    module, x, labels = network(kind)
    before, (data, rule) = stored_weights(module), (stored_batch(x, labels), UpdateRule(lr=0.1))
    found = program_step(trace_of(module, x), before, data, "dense", "2:4", preset("test"), rule=rule, loss_scale=64.0)
    expected = torch_step(module, x, labels, rule, machine=False)
    moved, missed = (
        np.sqrt(sum(np.square(one[name] - other[name]).sum() for name in before))
        for one, other in ((expected, before), (found, expected))
    )
    assert 0 < missed < 0.01 * moved
