"""Training with the machine's arithmetic: bits against `accel.golden`, one output at a time."""

import copy
import pickle
import re
from contextlib import suppress

import numpy as np
import pytest
from array_cases import random_fp16
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_layers import Layer, bp_mask, ff_mask, machine_forward, machine_input_grad, machine_weight_grad

from accel.errors import ConfigError
from accel.golden.numeric import bits, to_fp16
from accel.sparsity import DENSE, NMPattern

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from accel.models.machine import off_machine, on_machine  # noqa: E402
from accel.models.sparse import desparsify, sparsify  # noqa: E402
from accel.models.wuve import WuveSGD  # noqa: E402

torch.set_num_threads(1)
PATTERNS = [NMPattern(1, 2), NMPattern(2, 4), NMPattern(2, 8), NMPattern(3, 5)]
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}


@st.composite
def layers(draw):
    dims = draw(st.sampled_from([0, 1, 1, 2, 2, 3]))

    def integers(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    kernel, dilation, padding = integers(1, 3 if dims < 3 else 2), integers(1, 2), integers(0, 2 if dims < 3 else 1)
    extent = [dil * (taps - 1) + 1 for dil, taps in zip(dilation, kernel, strict=True)]
    size = tuple(max(1, need - 2 * pad) + draw(st.integers(0, 2)) for need, pad in zip(extent, padding, strict=True))
    channels = [draw(st.integers(1, 10 if dims < 3 else 5)) for _ in range(2)]
    return Layer(
        size=size,
        kernel=kernel,
        stride=integers(1, 3),
        padding=padding,
        dilation=dilation,
        groups=draw(st.integers(1, 2)) if dims else 1,
        channels_in=channels[0],
        channels_out=channels[1],
        batch=draw(st.integers(1, 2)),
        pattern=draw(st.sampled_from(PATTERNS)),
    )


def build(layer, weight):
    """Return the torch layer with this FP16 weight as its FP32 master."""
    ins, outs = layer.groups * layer.channels_in, layer.groups * layer.channels_out
    if layer.size:
        geometry = (layer.kernel, layer.stride, layer.padding, layer.dilation, layer.groups)
        module = CONVS[len(layer.size)](ins, outs, *geometry, bias=False)
    else:
        module = nn.Linear(ins, outs, bias=False)
    with torch.no_grad():
        module.weight.copy_(torch.from_numpy(weight))
    return module


def patterns(method, pattern):
    """Return the patterns of FF's weight, BP's weight, BP's gradient and WU's gradient."""
    return {
        "dense": (DENSE, DENSE, DENSE, DENSE),
        "bdwp": (pattern, pattern, DENSE, DENSE),
        "sdgp": (DENSE, DENSE, pattern, DENSE),
        "bp-only": (DENSE, pattern, DENSE, DENSE),
        "fully-sparse": (pattern, pattern, DENSE, pattern),
    }[method]


def assert_same_bits(found, expected, label):
    found = found.detach().numpy()
    assert found.dtype == expected.dtype
    np.testing.assert_array_equal(bits(np.ascontiguousarray(found)), bits(expected), err_msg=label)


@settings(deadline=None, max_examples=60)
@given(layers(), st.sampled_from(["dense", "bdwp", "sdgp", "bp-only", "fully-sparse"]), st.integers(0, 2**31))
def test_every_stage_has_the_bits_of_golden(layer, method, seed):
    rng = np.random.default_rng(seed)
    weight, grad = random_fp16(rng, layer.weight_shape), random_fp16(rng, layer.out_shape)
    x = random_fp16(rng, layer.in_shape)
    module = build(layer, weight)
    weight = to_fp16(weight.astype(np.float32))  # one canonical NaN
    with suppress(ConfigError):  # nothing to prune: every pattern below keeps all
        sparsify(module, method, layer.pattern, exclude=[])
    on_machine(module, threads=1)
    operand = torch.from_numpy(x).requires_grad_()
    out = module(operand)
    out.backward(torch.from_numpy(grad))
    ff, bp, bp_grad, wu_grad = patterns(method, layer.pattern)
    label = f"{method} {layer} seed {seed}"
    assert_same_bits(out, machine_forward(layer, x, weight, ff), f"FF {label}")
    assert_same_bits(operand.grad, machine_input_grad(layer, grad, weight, bp, bp_grad), f"BP {label}")
    assert_same_bits(module.weight.grad, machine_weight_grad(layer, x, grad, wu_grad), f"WU {label}")


@pytest.mark.parametrize("method", ["sr-ste", "slope-magnitude"])
def test_masks_of_other_kinds_have_the_bits_of_golden(method):
    layer = Layer((5, 4), (3, 2), (2, 1), (1, 0), (1, 1), 1, 12, 10, 2, NMPattern(2, 8))
    rng = np.random.default_rng(7)
    weight, grad, x = (
        rng.normal(size=shape).astype(np.float16) for shape in (layer.weight_shape, layer.out_shape, layer.in_shape)
    )
    module = on_machine(sparsify(build(layer, weight), method, decay=0.0, exclude=[]), threads=1)
    operand = torch.from_numpy(x).requires_grad_()
    out = module(operand)
    out.backward(torch.from_numpy(grad))
    kept = ff_mask(weight, layer.pattern)
    pruned = np.where(kept, weight, np.float16(0))
    twice = np.where(kept & bp_mask(pruned, layer.pattern, 1), weight, np.float16(0))
    assert_same_bits(out, machine_forward(layer, x, pruned, DENSE), "FF")
    assert_same_bits(operand.grad, machine_input_grad(layer, grad, pruned if method == "sr-ste" else twice, DENSE), "BP")
    dense = machine_weight_grad(layer, x, grad, DENSE)
    assert_same_bits(module.weight.grad, dense if method == "sr-ste" else np.where(kept, dense, np.float32(0)), "WU")


def test_operands_are_rounded_and_results_keep_the_type_of_x():
    torch.manual_seed(0)
    module, x = nn.Linear(40, 7, bias=False), torch.randn(3, 5, 40) * 3
    weight = to_fp16(module.weight.detach().numpy())
    out = on_machine(module, threads=1)(x)
    layer = Layer((), (), (), (), (), 1, 40, 7, 15, NMPattern(2, 8))
    expected = machine_forward(layer, to_fp16(x.numpy()).reshape(15, 40), weight, DENSE).reshape(3, 5, 7)
    assert out.dtype == torch.float32
    np.testing.assert_array_equal(out.detach().numpy(), expected.astype(np.float32))
    with torch.autocast("cpu", torch.float16):
        assert module(x).dtype == torch.float32  # the machine rounds by itself, whatever autocast asks


def network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.BatchNorm2d(16),
        nn.ReLU(),
        nn.Conv2d(16, 16, 3, stride=2),
        nn.Flatten(),
        nn.Linear(144, 4),
    )


def batch():
    generator = torch.Generator().manual_seed(2)
    return torch.randn(12, 1, 8, 8, generator=generator), torch.arange(12) % 4


def test_off_machine_gives_torch_back():
    net, plain = network(), network()
    off_machine(on_machine(net))
    assert [type(part) for part in net] == [type(part) for part in plain]
    sparse = off_machine(on_machine(sparsify(network())))
    torch.testing.assert_close(sparse.eval()(batch()[0]), sparsify(network()).eval()(batch()[0]))


def test_a_module_on_the_machine_is_not_made_sparse():
    message = "module must be off the machine to be made sparse; call off_machine, then sparsify, then on_machine"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        sparsify(on_machine(network()))


@pytest.mark.parametrize("method", ["dense", "bdwp", "sdgp", "fully-sparse"])
def test_an_empty_batch_gives_empty_results(method):
    net = nn.Sequential(nn.Conv2d(16, 16, 3, stride=2, groups=2), nn.Flatten(2), nn.Linear(4, 16))
    on_machine(sparsify(net, method, exclude=[]), threads=1)
    x = torch.zeros(0, 16, 6, 6, requires_grad=True)
    out = net(x)
    out.sum().backward()
    assert out.shape == (0, 16, 16)
    assert x.grad.shape == x.shape
    assert not any(layer.weight.grad.any() for layer in (net[0], net[2]))


def test_encoder_layers_run_on_the_machine_in_evaluation_too():
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True), 2)
    before = copy.deepcopy({name: vars(part) for name, part in encoder.named_modules()})
    x = torch.randn(2, 5, 16)
    trained = on_machine(encoder, threads=1).train()(x)
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(x), trained, rtol=1e-5, atol=1e-5)  # FP16 would be 1e-3 off
        exact = off_machine(encoder.eval())(x)
    assert (exact - trained).abs().max() > 1e-4
    off_machine(on_machine(sparsify(encoder.train(), exclude=[])))
    assert encoder.layers[0].activation_relu_or_gelu is False  # what is sparse must not be fused either
    desparsify(encoder)
    assert [{*vars(part)} for part in encoder.modules()] == [{*fields} for fields in before.values()]
    assert encoder.layers[0].activation_relu_or_gelu == before["layers.0"]["activation_relu_or_gelu"]


def test_training_with_a_grad_scaler_or_with_wuve_follows_fp32_training():
    losses = {}
    for kind in ("torch", "scaler", "wuve"):
        net = sparsify(network(), "bdwp", "2:4")
        net = net if kind == "torch" else on_machine(net, threads=1)
        x, labels = batch()
        wuve = WuveSGD(net.parameters(), lr=0.05, momentum=0.9, decay=1e-3)
        sgd = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-3)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**12)
        for _ in range(15):
            net.zero_grad()
            loss = functional.cross_entropy(net(x), labels)
            if kind == "torch":
                loss.backward()
                sgd.step()
            elif kind == "scaler":
                scaler.scale(loss).backward()
                scaler.step(sgd)
                scaler.update()
            else:
                wuve.scale_loss(loss).backward()
                wuve.step()
        losses[kind] = loss.item()
    assert losses["torch"] < 0.1
    assert losses["scaler"] == pytest.approx(losses["torch"], rel=0.2)
    assert losses["wuve"] == pytest.approx(losses["torch"], rel=0.2)


def wuve_step(weight, grad, momentum, fields):
    """Return weight and momentum after one step, element by element, each operation rounded to FP32 and flushed."""

    def rounded(value):
        value = np.float32(value)
        return np.copysign(np.float32(0), value) if abs(value) < 2.0**-126 else value

    lr, mom, decay = (np.float32(fields[name]) for name in ("lr", "momentum", "decay"))
    out = []
    for w, d, b in zip(weight, grad, momentum, strict=True):
        g = rounded(d / np.float32(fields["scale"]))
        g = rounded(g + rounded(decay * w)) if decay else g
        new = rounded(rounded(mom * b) + g) if mom else g
        out.append((rounded(w - rounded(lr * new)), new))
    return np.array(out, np.float32).T


@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("decay", [0.0, 1e-2])
def test_wuve_rounds_and_flushes_after_every_operation(momentum, decay):
    rng = np.random.default_rng(5)
    scales = np.float32(10) ** rng.integers(-40, 4, 400).astype(np.float32)
    weight = (rng.normal(size=400) * scales).astype(np.float32)
    weight = np.where(np.abs(weight) < 2.0**-126, np.float32(0), weight)
    fields = {"lr": 0.03, "momentum": momentum, "decay": decay, "scale": 2.0**12}
    param = nn.Parameter(torch.from_numpy(weight.copy()))
    optimizer = WuveSGD([param], **fields)
    state = np.zeros_like(weight)
    with np.errstate(under="ignore"):
        for _ in range(4):
            grad = (rng.normal(size=400) * scales[::-1]).astype(np.float32)
            param.grad = torch.from_numpy(grad)
            optimizer.step()
            weight, state = wuve_step(weight, grad, state, fields)
            np.testing.assert_array_equal(bits(param.detach().numpy()), bits(weight))


def test_a_gradient_that_is_not_finite_skips_the_step_and_halves_the_scale():
    params = [nn.Parameter(torch.ones(3)), nn.Parameter(torch.ones(2))]
    optimizer = WuveSGD(params, lr=0.1, momentum=0.9, scale=8.0, growth_steps=2, max_scale=16.0)
    scales = []
    for poison in (0.0, float("inf"), float("nan"), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0):
        before = [copy.deepcopy(param.detach()) for param in params]
        params[0].grad, params[1].grad = torch.ones(3), torch.tensor([1.0, 1.0 + poison])
        optimizer.step()
        moved = [not torch.equal(param, old) for param, old in zip(params, before, strict=True)]
        assert moved == [poison == 0.0] * 2
        scales.append(optimizer.scale())
    assert scales == [8, 4, 2, 2, 4, 4, 8, 8, 16]
    assert optimizer.skipped_steps == 2


def test_wuve_state_can_be_saved():
    param = nn.Parameter(torch.ones(3))
    optimizer = WuveSGD([param], lr=0.1, momentum=0.9, growth_steps=3)
    param.grad = torch.full((3,), float("nan"))
    optimizer.step()
    param.grad = torch.ones(3)
    optimizer.step()
    twin = nn.Parameter(param.detach().clone())
    restored = WuveSGD([twin], lr=0.1, momentum=0.9, growth_steps=3)
    restored.load_state_dict(optimizer.state_dict())
    for _ in range(3):
        twin.grad = torch.ones(3)
        optimizer.step()
        restored.step()
    assert torch.equal(param, twin)
    assert restored.scale() == optimizer.scale() == 2.0**16


def test_a_copy_of_wuve_goes_on_like_the_first():
    optimizer = WuveSGD([nn.Parameter(torch.ones(3))], lr=0.1, momentum=0.9, scale=8.0, growth_steps=2, max_scale=16.0)
    twins = [optimizer, copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))]
    for twin in twins:
        for poison in (float("nan"), 0.0, 0.0, 0.0, 0.0, 0.0, 0.0):
            (param,) = twin.param_groups[0]["params"]
            param.grad = torch.ones(3) + poison
            twin.step()
    assert [(twin.scale(), twin.skipped_steps) for twin in twins] == [(16.0, 1)] * 3
    assert all(torch.equal(twin.param_groups[0]["params"][0], param) for twin in twins)


def test_the_state_of_another_optimizer_is_refused():
    params = [nn.Parameter(torch.ones(3))]
    message = "state_dict must be that of a WuveSGD, with scale and good_steps, not with state, param_groups"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        WuveSGD(params, lr=0.1).load_state_dict(torch.optim.SGD(params, lr=0.1).state_dict())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lr": -1.0, "scale": 0.0}, "lr must be at least 0, not -1.0; scale must be more than 0, not 0.0"),
        ({"lr": 0.1, "growth_steps": 0}, "growth_steps must be more than 0, not 0"),
        ({"lr": 0.1, "scale": 8.0, "max_scale": 4.0}, "max_scale must be at least scale (8.0), not 4.0"),
    ],
)
def test_settings_that_cannot_be_are_refused(fields, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        WuveSGD([nn.Parameter(torch.ones(1))], **fields)


def test_parameters_must_be_fp32():
    message = "params must be float32, not torch.float64; the machine keeps FP32 masters"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        WuveSGD([nn.Parameter(torch.ones(1, dtype=torch.float64))], lr=0.1)
    optimizer = WuveSGD([nn.Parameter(torch.ones(1))], lr=0.1)
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1, dtype=torch.float64))]})
    assert len(optimizer.param_groups) == 1


def test_settings_of_a_group_are_checked():
    with pytest.raises(ConfigError, match=r"^lr must be at least 0, not -1\.0$"):
        WuveSGD([{"params": [nn.Parameter(torch.ones(1))], "lr": -1.0}], lr=0.1)


def test_threads_must_be_one_or_more():
    layer = nn.Linear(4, 4)
    with pytest.raises(ConfigError, match=r"^threads must be at least 1, not 0; leave it out for all CPUs$"):
        on_machine(layer, threads=0)
    assert type(layer) is nn.Linear
