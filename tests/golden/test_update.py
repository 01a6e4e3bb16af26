"""The golden update against the optimizer and the SR-STE gradient in PyTorch, bit for bit, and against its own rules."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.errors import ConfigError
from accel.golden.numeric import bits
from accel.golden.update import LossScale, UpdateRule, are_finite, update

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from accel.models.stages import Update  # noqa: E402
from accel.models.wuve import WuveSGD  # noqa: E402

SHAPES = ((5, 7), (3,))
SETTINGS = [(0.1, 0.9, 5e-4), (0.1, 0.9, 0.0), (0.05, 0.0, 1e-4), (1.0, 0.0, 0.0), (1.2e-38, 0.5, 0.1)]


def numbers(rng, shape):
    """Return FP32 numbers of all sizes, subnormals and zeros of both signs among them."""
    values = (rng.standard_normal(shape) * 2.0 ** rng.integers(-130, 20, shape)).astype(np.float32)
    return np.where(rng.random(shape) < 0.1, np.copysign(np.float32(0), values), values)


def same_bits(array, tensor):
    return np.array_equal(bits(array), bits(tensor.detach().numpy()))


@pytest.mark.parametrize(("lr", "momentum", "decay"), SETTINGS)
@pytest.mark.parametrize("scale", [1.0, 2.0**16, 3.0, 0.25])
def test_steps_have_the_bits_of_the_optimizer(lr, momentum, decay, scale):
    rng = np.random.default_rng(1)
    weights = [numbers(rng, shape) for shape in SHAPES]
    params = [torch.nn.Parameter(torch.tensor(weight)) for weight in weights]
    optimizer = WuveSGD(params, lr, momentum, decay, scale=scale, growth_steps=3, max_scale=8 * scale)
    rule, loss_scale, states = UpdateRule(lr, momentum, decay), LossScale(scale, 3, 8 * scale), [None, None]
    skipped = 0
    for step in range(30):
        grads = [numbers(rng, shape) for shape in SHAPES]
        if step % 7 == 4:
            grads[step % 2].flat[1] = (np.inf, -np.inf, np.nan)[step % 3]
        for param, grad in zip(params, grads, strict=True):
            param.grad = torch.tensor(grad)
        optimizer.step()
        is_good = are_finite(grads)
        if is_good:
            done = [update(*one, rule, loss_scale.scale) for one in zip(weights, grads, states, strict=True)]
            weights, states = [one.weight for one in done], [one.state for one in done]
        skipped += not is_good
        loss_scale = loss_scale.after(is_good)
        assert loss_scale.scale == optimizer.scale(), f"after step {step}"
        for param, weight, state in zip(params, weights, states, strict=True):
            assert same_bits(weight, param), f"after step {step}"
            assert not momentum or same_bits(state, optimizer.state[param]["momentum_buffer"]), f"after step {step}"
    assert skipped == optimizer.skipped_steps == 4


@pytest.mark.parametrize(("sparse_decay", "masked"), [(2e-4, False), (0.0, True), (2e-4, True)])
@pytest.mark.parametrize("scale", [2.0**16, 1000.1])
def test_sparse_gradient_has_the_bits_of_the_layers(sparse_decay, masked, scale):
    rng = np.random.default_rng(2)
    rule = UpdateRule(0.1, 0.9, 5e-4, sparse_decay, masked)
    weight, state = rng.standard_normal((6, 8)).astype(np.float32), None
    param = torch.nn.Parameter(torch.tensor(weight))
    optimizer = WuveSGD([param], rule.lr, rule.momentum, rule.decay, scale=scale)
    for _ in range(10):
        kept, grad = rng.random((6, 8)) < 0.5, (rng.standard_normal((6, 8)) * scale).astype(np.float32)
        optimizer.zero_grad()
        seen = Update.apply(param, torch.tensor(kept), sparse_decay * optimizer.scale(), masked)
        seen.backward(torch.tensor(grad))
        optimizer.step()
        weight, state = update(weight, grad, state, rule, scale, kept)
        assert same_bits(weight, param)
        assert same_bits(state, optimizer.state[param]["momentum_buffer"])


def test_pruned_weights_decay_and_kept_ones_do_not():
    weight, grad, kept = np.float32([8, 8]), np.float32([2, 2]), np.array([True, False])
    assert update(weight, grad, None, UpdateRule(1.0, sparse_decay=0.5), 2.0, kept).weight.tolist() == [7, 3]
    assert update(weight, grad, None, UpdateRule(1.0, masked=True), 2.0, kept).weight.tolist() == [7, 8]
    assert update(weight, grad, None, UpdateRule(1.0, sparse_decay=0.5, masked=True), 2.0, kept).weight.tolist() == [7, 4]


def test_masked_gradient_of_a_pruned_weight_may_be_anything():
    weight, grad, kept = np.float32([8, 8]), np.float32([2, np.inf]), np.array([True, False])
    assert update(weight, grad, None, UpdateRule(1.0, masked=True), 1.0, kept).weight.tolist() == [6, 8]
    assert not are_finite([kept.astype(np.float32), grad])  # as it was stored: such a step is skipped


def test_state_is_there_with_momentum_only():
    weight, grad = np.float32([1]), np.float32([-0.0])
    assert update(weight, grad, None, UpdateRule(1.0)).state is None
    assert bits(update(weight, grad, None, UpdateRule(1.0, momentum=0.5)).state).tolist() == [0]  # 0.5 * 0 + -0


def test_subnormals_are_zeros_on_the_way_in_and_out():
    tiny, small = np.float32([2.0**-127]), np.float32([2.0**-126])
    assert bits(update(-tiny, tiny * 0, None, UpdateRule(1.0)).weight).tolist() == [0x80000000]
    assert bits(update(small, small, None, UpdateRule(0.5)).weight).tolist() == bits(small).tolist()  # 0.5 * small is a zero
    assert bits(update(tiny, -small, None, UpdateRule(1.0)).weight).tolist() == bits(small).tolist()


@given(st.lists(st.booleans(), max_size=30), st.integers(1, 4))
def test_scale_follows_the_steps(steps, growth_steps):
    scale, streak, expected = LossScale(16.0, growth_steps, 64.0), 0, 16.0
    for is_good in steps:
        scale = scale.after(is_good)
        streak = (streak + 1) * is_good
        if not is_good:
            expected /= 2
        elif streak % growth_steps == 0:
            expected = min(2 * expected, 64.0)
        assert scale.scale == expected


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: UpdateRule(-1.0, decay=-2.0), "lr must be at least 0, not -1.0; decay must be at least 0, not -2.0"),
        (lambda: UpdateRule(1.0, sparse_decay=float("nan")), "sparse_decay must be at least 0, not nan"),
        (lambda: LossScale(0.0), "scale must be more than 0, not 0.0"),
        (lambda: LossScale(4.0, max_scale=2.0), "max_scale must be at least scale (4.0), not 2.0"),
        (lambda: LossScale(growth_steps=0), "growth_steps must be at least 1, not 0"),
        (
            lambda: update(np.ones(2, np.float32), np.ones(2, np.float32), None, UpdateRule(1.0, masked=True)),
            "kept must be the mask of the weight, not None; a rule with sparse_decay or masked looks at it",
        ),
    ],
)
def test_what_cannot_be_is_refused(build, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        build()
