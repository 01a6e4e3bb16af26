"""Sparse layers against their definitions: masks by loops, products by dense torch."""

import copy
import gc
import io
import pickle
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from naive_layers import Layer, bp_mask, ff_mask, pixels_mask

from accel.errors import ConfigError
from accel.golden.prune import prune
from accel.methods import METHODS
from accel.sparsity import NMPattern

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from accel.models.layers import SparseConv2d, SparseLinear  # noqa: E402
from accel.models.masks import nm_mask, transposable_mask  # noqa: E402
from accel.models.recipes import RECIPES  # noqa: E402
from accel.models.sparse import (  # noqa: E402
    desparsify,
    export_nm,
    load_method_state,
    mask_churn,
    method_state,
    sparsify,
    weight_masks,
)

torch.set_num_threads(1)
PATTERN = NMPattern(2, 8)
PATTERNS = [NMPattern(1, 2), NMPattern(2, 4), NMPattern(1, 4), NMPattern(2, 8), NMPattern(3, 5)]
CONVS = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
TOLERANCE = {"rtol": 1e-12, "atol": 1e-12}  # float64 sums of a few hundred products of size one


def draw_layer(draw, max_dims=3, max_channels=11):
    """Return a small layer; dilation, stride and padding as they come."""
    dims = draw(st.integers(0, max_dims))

    def integers(low, high):
        return tuple(draw(st.integers(low, high)) for _ in range(dims))

    kernel, dilation, padding = integers(1, 3), integers(1, 2), integers(0, 2)
    extent = [dil * (taps - 1) + 1 for dil, taps in zip(dilation, kernel, strict=True)]
    size = tuple(max(1, need - 2 * pad) + draw(st.integers(0, 3)) for need, pad in zip(extent, padding, strict=True))
    return Layer(
        size=size,
        kernel=kernel,
        stride=integers(1, 3),
        padding=padding,
        dilation=dilation,
        groups=draw(st.integers(1, 3)) if dims else 1,
        channels_in=draw(st.integers(1, max_channels)),
        channels_out=draw(st.integers(1, max_channels)),
        batch=draw(st.integers(1, 3)),
        pattern=draw(st.sampled_from(PATTERNS)),
    )


def build(layer, bias=True):
    """Return the torch layer, float64."""
    ins, outs = layer.groups * layer.channels_in, layer.groups * layer.channels_out
    if not layer.size:
        return nn.Linear(ins, outs, bias=bias).double()
    conv = CONVS[len(layer.size)]
    geometry = (layer.kernel, layer.stride, layer.padding, layer.dilation, layer.groups)
    return conv(ins, outs, *geometry, bias=bias).double()


def dense_products(module, layer, x, weight, bias=None):
    """Return the layer's output with another weight."""
    if not layer.size:
        return functional.linear(x, weight, bias)
    conv = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[len(layer.size)]
    return conv(x, weight, bias, module.stride, module.padding, module.dilation, module.groups)


def defined_grads(module, layer, x, bp_weight, bp_grad, wu_grad):
    """Return dX and dW of the dense products of these operands."""
    x, weight = x.detach().requires_grad_(), module.weight.detach().requires_grad_()
    (in_grad,) = torch.autograd.grad(dense_products(module, layer, x, bp_weight), x, bp_grad)
    (weight_grad,) = torch.autograd.grad(dense_products(module, layer, x, weight), weight, wu_grad)
    return in_grad, weight_grad


def pruned_along_out(grad, layer):
    """Return dY pruned along the output channels of each group, by loops."""
    words = np.moveaxis(grad.numpy(), 1, 0)
    return torch.from_numpy(np.moveaxis(np.where(bp_mask(words, layer.pattern, layer.groups), words, 0), 0, 1).copy())


def definition(method, module, layer, grad):
    """Return the weights of FF and BP and the gradients that BP and WU read."""
    weight = module.weight.detach()
    kept = ff_mask(weight.numpy(), layer.pattern)
    along_in = weight * torch.from_numpy(kept)
    along_out = weight * torch.from_numpy(bp_mask(weight.numpy(), layer.pattern, layer.groups))
    twice = bp_mask(along_in.numpy(), layer.pattern, layer.groups) & kept
    return {
        "dense": (weight, weight, grad, grad),
        "bdwp": (along_in, along_out, grad, grad),
        "sr-ste": (along_in, along_in, grad, grad),
        "sdgp": (weight, weight, pruned_along_out(grad, layer), grad),
        "bp-only": (weight, along_out, grad, grad),
        "fully-sparse": (along_in, along_out, grad, grad * torch.from_numpy(pixels_mask(grad.numpy(), layer.pattern))),
        "slope-magnitude": (along_in, weight * torch.from_numpy(twice), grad, grad),
    }[method]


@settings(deadline=None, max_examples=300)
@given(
    st.data(),
    st.sampled_from(["dense", "bdwp", "sr-ste", "sdgp", "bp-only", "fully-sparse", "slope-magnitude"]),
    st.integers(0, 2**31),
)
def test_every_stage_equals_its_definition(data, method, seed):
    layer = draw_layer(data.draw)
    torch.manual_seed(seed)
    module = build(layer)
    x = torch.randn(layer.in_shape, dtype=torch.float64, requires_grad=True)
    grad = torch.randn(layer.out_shape, dtype=torch.float64)
    weight, bias = module.weight.detach().clone(), module.bias.detach()
    ff_weight, *others = definition(method, module, layer, grad)
    kept = ff_mask(weight.numpy(), layer.pattern)
    if method == "bp-only":
        kept = bp_mask(weight.numpy(), layer.pattern, layer.groups)
    decayed = 0 if method == "dense" else 0.01 * weight * torch.from_numpy(~kept)
    try:
        sparsify(module, method, layer.pattern, exclude=[], decay=0.01, masked_update=False)
    except ConfigError:  # the layer is torch's: then nothing would have been pruned
        decayed = 0
        assert torch.equal(ff_weight, weight)
        assert torch.equal(others[0], weight)
        assert torch.equal(others[1], grad)
    out = module(x)
    out.backward(grad)
    in_grad, weight_grad = defined_grads(module, layer, x, *others)
    torch.testing.assert_close(out.detach(), dense_products(module, layer, x.detach(), ff_weight, bias), **TOLERANCE)
    torch.testing.assert_close(x.grad, in_grad, **TOLERANCE)
    torch.testing.assert_close(module.weight.grad, weight_grad + decayed, **TOLERANCE)
    pixels = [dim for dim in range(grad.dim()) if dim != 1]
    torch.testing.assert_close(module.bias.grad, grad.sum(pixels), **TOLERANCE)
    assert torch.equal(module.weight.detach(), weight)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.sampled_from(PATTERNS), st.integers(1, 4), st.integers(1, 21), st.integers(1, 5))
def test_masks_are_those_of_golden_on_any_fp16_bits(seed, pattern, taps, inner, cols):
    rng = np.random.default_rng(seed)
    raw = rng.integers(0, 2**16, (taps * inner, cols)).astype(np.uint16)
    ties = rng.choice(np.array([0, 0x8000, 0x3C00, 0xBC00, 0x7C00, 0xFC00, 0x7E00, 0xFE01, 1], np.uint16), raw.shape)
    matrix = np.where(rng.random() < 0.5, raw, ties).view(np.float16)
    entries = prune(matrix, pattern, taps)
    kept = np.zeros((entries.groups, pattern.group, cols), bool)
    for group, step, col in np.argwhere(entries.valid):
        kept[group, entries.index[group, step, col], col] = True
    expected = kept.reshape(taps, -1, cols)
    mask = nm_mask(torch.from_numpy(matrix.reshape(taps, inner, cols).copy()), pattern, 1)
    np.testing.assert_array_equal(mask.numpy(), expected[:, :inner])


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31), st.sampled_from(PATTERNS), st.integers(1, 19), st.integers(1, 19))
def test_transposable_masks_keep_the_pattern_both_ways_and_nothing_more_fits(seed, pattern, rows, cols):
    torch.manual_seed(seed)
    values = torch.randn(rows, cols, 2)
    mask = transposable_mask(values, pattern, 0, 1).numpy()
    for top, left, tap in np.ndindex(-(-rows // pattern.group), -(-cols // pattern.group), 2):
        tile = np.s_[top * pattern.group : (top + 1) * pattern.group, left * pattern.group : (left + 1) * pattern.group, tap]
        kept = mask[tile]
        by_row, by_col = kept.sum(1), kept.sum(0)
        assert max(by_row.max(), by_col.max()) <= pattern.keep
        fits = ~kept & (by_row < pattern.keep)[:, None] & (by_col < pattern.keep)
        assert not fits.any()
        assert kept[np.unravel_index(np.abs(values.numpy()[tile]).argmax(), kept.shape)]


def test_recipes_say_the_same_as_the_methods_of_the_machine():
    for name, method in METHODS.items():
        recipe = RECIPES[name]
        weights = tuple("weight" if pruned else None for pruned in recipe.prunes_weight)
        grads = tuple("grad" if recipe.grad == stage else None for stage in ("FF", "BP", "WU"))
        assert tuple(a or b for a, b in zip((*weights, None), grads, strict=True)) == method.operands, name


def network():
    torch.manual_seed(1)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, stride=2), nn.Flatten(), nn.Linear(16 * 9, 10)
    )


def images(count=6):
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(2))


def test_the_first_weight_layer_stays_dense_by_default():
    net = sparsify(network())
    assert [type(part) for part in net] == [nn.Conv2d, nn.ReLU, SparseConv2d, nn.Flatten, SparseLinear]


def test_exclude_replaces_that_rule():
    net = sparsify(network(), exclude=["4"])
    assert [type(part) for part in net] == [SparseConv2d, nn.ReLU, SparseConv2d, nn.Flatten, nn.Linear]


def test_a_layer_whose_reductions_are_not_longer_than_keep_stays_torchs():
    net = nn.Sequential(nn.Linear(4, 4), nn.Conv2d(4, 4, 3, groups=4), nn.Linear(2, 2), nn.Linear(4, 2))
    assert [type(part) for part in sparsify(net, "sr-ste", "2:4")] == [nn.Linear, nn.Conv2d, nn.Linear, SparseLinear]


def test_a_module_that_is_a_layer_itself_is_turned():
    assert isinstance(sparsify(nn.Linear(16, 16)), SparseLinear)


@pytest.mark.parametrize(
    ("module", "fields", "message"),
    [
        (
            network,
            {"pattern": "8:2"},
            "keep must be between 1 and group (2), not 8; a pattern is written kept:group, for example 2:8",
        ),
        (network, {"pattern": "2-8"}, "pattern must be two integers like 2:8, not '2-8'"),
        (
            network,
            {"method": "magic"},
            (
                "method must be one of dense, bdwp, sr-ste, sdgp, bp-only, fully-sparse, transposable, decaying-mask, slope, "
                "slope-magnitude, not 'magic'"
            ),
        ),
        (network, {"exclude": ["fc"]}, "exclude must match a weight layer of Sequential, not 'fc'"),
        (network, {"decay": -1.0}, "decay must be at least 0, not -1.0"),
        (
            network,
            {"refresh_steps": 0, "soften_steps": 0},
            "refresh_steps must be at least 1, not 0; soften_steps must be at least 1, not 0",
        ),
        (
            nn.ReLU,
            {},
            (
                "module must have a layer that bdwp prunes at 2:8, not only layers without weights; "
                "exclude fewer layers or choose a pattern that keeps less"
            ),
        ),
        (
            lambda: nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 2)),
            {"method": "bp-only"},
            (
                "module must have a layer that bp-only prunes at 2:8, not only 1; "
                "exclude fewer layers or choose a pattern that keeps less"
            ),
        ),
    ],
)
def test_what_cannot_be_is_refused(module, fields, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        sparsify(module(), **fields)


def test_desparsify_restores_torchs_layers_and_values():
    net, plain = network(), network()
    desparsify(sparsify(net))
    assert [type(part) for part in net] == [type(part) for part in plain]
    assert [vars(part).keys() for part in net] == [vars(part).keys() for part in plain]
    assert torch.equal(net(images()), plain(images()))


def test_state_dicts_are_those_of_torch():
    net = sparsify(network())
    plain = network()
    assert list(net.state_dict()) == list(plain.state_dict())
    assert [id(p) for p in net.parameters()] == [id(p) for p in desparsify(net).parameters()]
    sparsify(net).load_state_dict(plain.state_dict())
    buffer = io.BytesIO()
    torch.save(net, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    assert torch.equal(loaded(images()), net(images()))


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda net: pickle.loads(pickle.dumps(net))])
@pytest.mark.parametrize("is_seen", [False, True])
def test_a_copy_trains_alone_from_the_same_step(clone, is_seen):
    net = sparsify(network(), "transposable", refresh_steps=2)
    train(net, torch.optim.SGD(net.parameters(), 0.1), 3)
    if is_seen:
        net(images())  # has the last update counted
    twin = clone(net)
    before = net(images())
    assert torch.equal(twin(images()), before)
    assert twin[2].sparse.step == net[2].sparse.step == 3
    train(twin, torch.optim.SGD(twin.parameters(), 0.1), 3)
    assert torch.equal(net(images()), before)
    assert (twin[2].sparse.step, net[2].sparse.step) == (5, 3)


def train(net, optimizer, steps, scaler=None):
    """Train on a fixed batch; return the losses."""
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = functional.cross_entropy(net(images()), torch.arange(6))
        (scaler.scale(loss) if scaler else loss).backward()
        if scaler:
            scaler.step(optimizer)
            scaler.update()
        else:
            optimizer.step()
        losses.append(loss.item())
    return losses


@pytest.mark.parametrize("method", RECIPES)
@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, 0.05, 0.9), lambda p: torch.optim.AdamW(p, 0.01)])
def test_every_method_learns_a_batch_with_torchs_optimizers(method, make):
    net = sparsify(network(), method, "2:4", soften_steps=5)
    losses = train(net, make(net.parameters()), 25)
    assert losses[-1] < 0.5 * losses[0]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_computes_in_its_type_and_gives_fp32_gradients(dtype):
    net = sparsify(network(), "sr-ste", exclude=[])
    exact = net(images())
    with torch.autocast("cpu", dtype):
        out = net(images())
    assert out.dtype == dtype
    torch.testing.assert_close(out.float(), exact, rtol=0.05, atol=0.05)  # a mask may differ where rounding makes ties
    out.float().square().sum().backward()
    assert all(param.grad.dtype == torch.float32 for param in net.parameters())


def test_a_grad_scaler_leaves_the_gradient_and_its_decay_term_unscaled():
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    scaled = sparsify(network(), "sr-ste", decay=0.1, loss_scale=scaler.get_scale)
    plain = sparsify(network(), "sr-ste", decay=0.1)
    train(scaled, torch.optim.SGD(scaled.parameters(), 0.1), 3, scaler)
    train(plain, torch.optim.SGD(plain.parameters(), 0.1), 3)
    for one, other in zip(scaled.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)  # a power of two: only sums of the decay term round apart


def test_data_parallel_wrapper_calls_the_layers():
    net = sparsify(network())
    assert torch.equal(nn.DataParallel(net)(images()), net(images()))


@pytest.mark.parametrize("module", [nn.Linear(3, 2), nn.Conv1d(2, 4, 3, stride=2, padding=1, groups=2), nn.Conv2d(2, 2, 2)])
def test_dense_layers_pass_gradcheck(module):
    layer = sparsify(copy.deepcopy(module).double(), "dense", exclude=[])
    shape = (2, 3) if isinstance(module, nn.Linear) else (2, 2, *[5] * len(module.kernel_size))
    x = torch.randn(shape, dtype=torch.float64, requires_grad=True, generator=torch.Generator().manual_seed(0))
    parts = (x, layer.weight, layer.bias)

    def call(x, weight, bias):
        return torch.func.functional_call(layer, {"weight": weight, "bias": bias}, (x,))

    assert torch.autograd.gradcheck(call, parts)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")
@pytest.mark.parametrize("padding", ["same", "valid"])
@pytest.mark.parametrize("mode", ["zeros", "circular", "reflect"])
def test_padding_by_name_and_mode_is_torchs(padding, mode):
    conv = nn.Conv2d(16, 16, (3, 2), padding=padding, padding_mode=mode)
    x = torch.randn(2, 16, 6, 7)
    expected = conv(x)
    torch.testing.assert_close(sparsify(conv, "dense", exclude=[])(x), expected)


def test_inputs_without_a_batch_dimension_and_with_many():
    conv, linear = nn.Conv1d(16, 16, 3), nn.Linear(16, 8)
    x, tokens = torch.randn(16, 9), torch.randn(2, 3, 4, 16)
    expected = conv(x), linear(tokens)
    torch.testing.assert_close(sparsify(conv, "dense")(x), expected[0])
    torch.testing.assert_close(sparsify(linear, "dense")(tokens), expected[1])


@pytest.mark.parametrize("method", RECIPES)
def test_an_empty_batch_gives_empty_results(method):
    net = sparsify(
        nn.Sequential(nn.Conv2d(16, 16, 3, groups=2), nn.Flatten(2), nn.Linear(16, 16)), method, exclude=[], decay=0.0
    )
    x = torch.zeros(0, 16, 6, 6, requires_grad=True)
    out = net(x)
    out.sum().backward()
    assert out.shape == (0, 16, 16)
    assert x.grad.shape == x.shape
    assert not any(layer.weight.grad.any() for layer in (net[0], net[2]))


def test_a_loss_that_is_kept_keeps_no_pruned_weights_alive():
    layer = sparsify(nn.Linear(24, 16))
    losses = [layer(torch.ones(2, 24)).sum() for _ in range(2)]
    for loss in losses:
        loss.backward()
    alive = [part for part in gc.get_objects() if type(part) in (torch.Tensor, nn.Parameter) and part.shape == (16, 24)]
    assert {id(part) for part in alive} <= {id(layer.weight), id(layer.weight.grad)}


def test_a_module_without_storage_is_turned_and_called():
    net = sparsify(network().to("meta"))
    assert net(images().to("meta")).shape == (6, 10)


def test_encoder_layers_use_the_pruned_weights_in_evaluation():
    torch.manual_seed(0)
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, batch_first=True), 2)
    x, padded = torch.randn(2, 5, 16), torch.arange(5).expand(2, 5) > torch.tensor([[4], [2]])
    before = copy.deepcopy({name: vars(part) for name, part in encoder.named_modules()})
    sparsify(encoder, exclude=[])
    trained = encoder.train()(x, src_key_padding_mask=padded)
    with torch.no_grad():
        torch.testing.assert_close(encoder.eval()(x, src_key_padding_mask=padded)[~padded], trained[~padded])
    desparsify(encoder.train())
    assert [{*vars(part)} for part in encoder.modules()] == [{*fields} for fields in before.values()]
    assert encoder.use_nested_tensor
    assert encoder.layers[0].activation_relu_or_gelu == before["layers.0"]["activation_relu_or_gelu"]


def test_a_held_mask_is_searched_anew_every_so_many_updates():
    net = sparsify(network(), "transposable", refresh_steps=3)
    churn = mask_churn(net)
    optimizer = torch.optim.SGD(net.parameters(), 0.5)
    changed = []
    for _ in range(7):
        train(net, optimizer, 1)
        changed.append(churn.update()["total"] > 0)
    assert changed == [False, False, False, True, False, False, True]


def test_a_decaying_mask_fades():
    net = sparsify(network(), "decaying-mask", soften_steps=4)
    optimizer = torch.optim.SGD(net.parameters(), 0.0)  # the weights stay, their versions count
    layer, x = net[4], torch.randn(2, 144)
    weight = layer.weight.detach()
    kept = torch.from_numpy(ff_mask(weight.numpy(), PATTERN))
    for factor in (1.0, 0.75, 0.5, 0.25, 0.0, 0.0):
        expected = functional.linear(x, torch.where(kept, weight, factor * weight), layer.bias)
        torch.testing.assert_close(layer(x), expected)
        train(net, optimizer, 1)


def test_slope_draws_one_random_mask_and_never_moves_a_pruned_weight():
    net, again = sparsify(network(), "slope", seed=5), sparsify(network(), "slope", seed=5)
    other = sparsify(network(), "slope", seed=6)
    start = net[2].weight.detach().clone()
    kept = weight_masks(net)["2"][0].clone()
    assert torch.equal(kept, weight_masks(again)["2"][0])
    assert not torch.equal(kept, weight_masks(other)["2"][0])
    train(net, torch.optim.SGD(net.parameters(), 0.1, 0.9), 5)
    assert torch.equal(weight_masks(net)["2"][0], kept)
    assert torch.equal(net[2].weight[~kept], start[~kept])
    assert not torch.equal(net[2].weight[kept], start[kept])


def test_churn_is_the_share_of_bits_that_changed():
    net = sparsify(network())
    churn = mask_churn(net)
    assert set(churn.update().values()) == {0.0}
    with torch.no_grad():
        row = net[4].weight[0, :8]
        order = row.abs().argsort()
        row[order[0]], row[order[-1]] = 10.0, 0.0
    shares = churn.update()
    assert shares["4.FF"] == 2 / net[4].weight.numel()
    assert shares["2.FF"] == 0
    assert set(shares) == {"2.FF", "2.BP", "4.FF", "4.BP", "total"}


def test_what_a_method_remembers_can_be_saved():
    net = sparsify(network(), "transposable", refresh_steps=40)
    train(net, torch.optim.SGD(net.parameters(), 0.5), 4)
    fresh = sparsify(network(), "transposable", refresh_steps=40)
    fresh.load_state_dict(net.state_dict())
    load_method_state(fresh, method_state(net))
    assert torch.equal(fresh(images()), net(images()))
    assert fresh[4].sparse.step == net[4].sparse.step == 4
    with pytest.raises(ConfigError, match=r"^state must name the sparse layers 2, 4, not 2$"):
        load_method_state(fresh, {"2": {}})


@pytest.mark.parametrize("groups", [1, 2])
def test_exported_entries_are_those_of_golden(groups):
    torch.manual_seed(3)
    conv = sparsify(nn.Conv2d(20, 24, 3, groups=groups))
    weight = conv.weight.detach().numpy().astype(np.float16)
    with torch.no_grad():
        conv.weight.copy_(torch.from_numpy(weight))
    compact = export_nm(conv)[""]
    for group, part in enumerate(np.split(weight.reshape(24, 20 // groups, 9), groups)):
        for found, matrix in (
            (compact.ff[group], part.transpose(2, 1, 0).reshape(-1, len(part))),
            (compact.bp[group], part.transpose(2, 0, 1).reshape(-1, 20 // groups)),
        ):
            expected = prune(matrix, PATTERN, 9)
            for field in ("values", "index", "valid"):
                np.testing.assert_array_equal(getattr(found, field), getattr(expected, field))


def test_stages_that_read_dense_weights_export_none():
    compact = export_nm(sparsify(network(), "sr-ste"))
    assert all(layer.ff is not None and layer.bp is None for layer in compact.values())
    narrow = export_nm(sparsify(nn.Linear(16, 2)))[""]  # BP sums over two outputs: nothing to prune
    assert (len(narrow.ff), narrow.bp) == (1, None)
