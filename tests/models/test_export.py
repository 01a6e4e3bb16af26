"""What each PyTorch operator becomes in a trace."""

import re
import warnings

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accel.errors import ConfigError, TraceError, UnsupportedOpError
from accel.trace import Attention, Conv, Linear, Matmul, Vector

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")

from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from accel.models import export, on_machine, sparsify  # noqa: E402

BATCH = 2


class Function(nn.Module):
    """A function as a module, with the parameters and modules it uses."""

    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def trace(function, *sizes, **parts):
    return export(Function(function, **parts), tuple(torch.zeros(BATCH, *size) for size in sizes), name="net")


def layers(function, *sizes, **parts):
    """The layers of a function of a module and of inputs of these sizes per sample."""
    return trace(function, *sizes, **parts).layers


def only(function, *sizes, **parts):
    (layer,) = layers(function, *sizes, **parts)
    return layer


def parameter(*shape, **fields):
    return nn.Parameter(torch.zeros(*shape), **fields)


# Convolutions.


@st.composite
def convolutions(draw):
    dims, groups = draw(st.integers(1, 3)), draw(st.sampled_from([1, 1, 2]))
    small = st.integers(1, 3)
    fields = {
        "in_channels": groups * draw(small),
        "out_channels": groups * draw(small),
        "kernel_size": draw(st.tuples(*[small] * dims)),
        "stride": draw(st.tuples(*[small] * dims)),
        "dilation": draw(st.tuples(*[st.integers(1, 2)] * dims)),
        "groups": groups,
        "bias": draw(st.booleans()),
    }
    return dims, fields, draw(st.tuples(*[st.integers(5, 8)] * dims))


def forward(module, *size):
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # padding on one side may take a copy
        return module(torch.zeros(BATCH, *size))


@settings(max_examples=25, deadline=None)
@given(convolutions(), st.sampled_from([0, 1, "same", "valid"]))
def test_convolution(convolution, padding):
    dims, fields, size = convolution
    if padding == "same":
        fields = {**fields, "stride": 1}
    conv = [nn.Conv1d, nn.Conv2d, nn.Conv3d][dims - 1](**fields, padding=padding)
    out = forward(conv, fields["in_channels"], *size)
    layer = only(lambda m, x: m.conv(x), (fields["in_channels"], *size), conv=conv)
    assert isinstance(layer, Conv)
    assert (layer.name, layer.bias, layer.groups) == ("conv", fields["bias"], fields["groups"])
    assert layer.out_size == tuple(out.shape[2:])
    assert layer.weight_elems == conv.weight.numel()


@settings(max_examples=15, deadline=None)
@given(convolutions())
def test_transposed_convolution(convolution):
    dims, fields, size = convolution
    extra = tuple(max(0, step - 1) for step in fields["stride"])
    conv = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d][dims - 1](**fields, output_padding=extra)
    out = forward(conv, fields["in_channels"], *size)
    layer = only(lambda m, x: m.conv(x), (fields["in_channels"], *size), conv=conv)
    assert layer.transposed
    assert layer.out_size == tuple(out.shape[2:])
    assert (layer.in_channels, layer.out_channels) == (fields["in_channels"], fields["out_channels"])


def test_padding_on_one_side_is_part_of_the_input():
    conv = nn.Conv2d(3, 4, 2, padding="same")
    layer = only(lambda m, x: m.conv(x), (3, 8, 8), conv=conv)
    assert (layer.in_size, layer.padding, layer.out_size) == ((9, 9), (0, 0), (8, 8))
    layer = only(lambda m, x: m.conv(functional.pad(x, (0, 1, 2, 0))), (3, 8, 8), conv=nn.Conv2d(3, 4, 3))
    assert layer.in_size == (10, 9)


def test_maps_of_a_sequence_are_one_more_dimension():
    layer = only(lambda m, x: m.conv(x.flatten(0, 1)), (5, 3, 8, 8), conv=nn.Conv2d(3, 4, 3, padding=1))
    assert (layer.in_size, layer.kernel, layer.padding) == ((5, 8, 8), (1, 3, 3), (0, 1, 1))
    assert layer.out_elems == 5 * 4 * 64


def test_volumes_of_a_sequence_are_refused():
    message = "net: conv3d in conv must have one volume per sample, not 5; loop over the volumes"
    with pytest.raises(TraceError, match=f"^{re.escape(message)}$"):
        trace(lambda m, x: m.conv(x.flatten(0, 1)), (5, 3, 4, 4, 4), conv=nn.Conv3d(3, 4, 3))


def test_convolution_without_a_batch_is_refused():
    message = "net: conv2d in conv must have a batch before its channels; add a dimension"
    with pytest.raises(TraceError, match=f"^{re.escape(message)}$"):
        export(Function(lambda m, x: m.conv(x), conv=nn.Conv2d(3, 4, 3)), torch.zeros(3, 8, 8), name="net")


# Products.


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x: functional.linear(x, m.w),
        lambda m, x: x @ m.w.t(),
        lambda m, x: torch.einsum("bnk,ok->bno", x, m.w),
        lambda m, x: torch.addmm(m.b, x.flatten(0, 1), m.w.t()),
        lambda m, x: torch.mm(x.flatten(0, 1), m.w.reshape(-1).view(3, 6).t().contiguous()),
        lambda m, x: torch.tensordot(x, m.w, dims=([2], [1])),
        lambda m, x: m.w @ x.transpose(1, 2),
        lambda m, x: torch.matmul(x.unsqueeze(2), m.w.t()),
    ],
)
def test_product_with_a_weight_is_a_linear_layer(function):
    layer = only(function, (5, 6), w=parameter(3, 6), b=parameter(3))
    assert isinstance(layer, Linear)
    assert (layer.name, layer.in_features * layer.out_features, layer.rows) == ("w", 18, 5)


def test_weight_per_head_is_a_grouped_convolution_of_one_tap():
    layer = only(lambda m, x: torch.einsum("bnhd,hde->bnhe", x, m.w), (5, 4, 6), w=parameter(4, 6, 3))
    assert isinstance(layer, Conv)
    assert (layer.groups, layer.in_channels, layer.out_channels, layer.in_size) == (4, 24, 12, (5,))
    layer = only(lambda m, x: x @ m.w, (4, 5, 6), w=parameter(4, 6, 3))
    assert (layer.groups, layer.in_size, layer.weight_elems) == (4, (5,), 72)


@pytest.mark.parametrize(
    "function",
    [
        lambda m, x, y: x @ y.transpose(-1, -2),
        lambda m, x, y: torch.einsum("bhid,bhjd->bhij", x, y),
        lambda m, x, y: torch.einsum("...id,...jd->...ij", x, y),
        lambda m, x, y: torch.bmm(x.flatten(0, 1), y.flatten(0, 1).mT),
        lambda m, x, y: torch.baddbmm(torch.zeros(1), x.flatten(0, 1), y.flatten(0, 1).mT, beta=0),
    ],
)
def test_product_of_two_computed_tensors(function):
    layer = only(function, (4, 5, 6), (4, 7, 6))
    assert isinstance(layer, Matmul)
    assert (layer.count, layer.m, layer.n, layer.k) == (4, 5, 7, 6)
    assert len(layer.inputs) == 2


def test_product_with_a_constant_is_a_frozen_linear_layer():
    layer = only(lambda m, x: x @ torch.ones(6, 3), (5, 6))
    assert (layer.name, layer.in_features, layer.out_features, layer.trainable) == ("matmul", 6, 3, False)


def test_product_across_samples_is_refused():
    message = (
        "net: matmul in net must have a multiple of the batch (2) of products, not 1; the first dimension of the first input "
        "must be the batch, and no product may run across samples"
    )
    with pytest.raises(TraceError, match=f"^{re.escape(message)}$"):
        trace(lambda m, x: x @ x.t(), (6,))


def test_operand_of_several_layers_is_named_by_one_that_is_trained():
    found = layers(lambda m, x: torch.cat([x, m.a(x)], 1) @ m.b(x).mT, (5, 6), a=nn.Linear(6, 6), b=nn.Linear(6, 6))
    assert found[-1].inputs == ("a", "b")


# Attention.


def attend(function, *sizes, **parts):
    return only(lambda m, *inputs: function(functional.scaled_dot_product_attention, *inputs), *sizes, **parts)


def test_attention():
    layer = attend(lambda f, q, k: f(q, k, k), (4, 5, 8), (4, 7, 8))
    assert layer == Attention(
        name="attention", inputs=("inputs_0", "inputs_1", "inputs_1"), heads=4, q_len=5, kv_len=7, head_dim=8
    )


def test_causal_attention_with_shared_keys_and_constant_mask():
    layer = attend(lambda f, q, k: f(q, k, k, is_causal=True, enable_gqa=True), (4, 5, 8), (2, 5, 8))
    assert (layer.heads, layer.kv_heads, layer.causal) == (4, 2, True)
    layer = attend(lambda f, q: f(q, q, q, attn_mask=torch.ones(5, 5).tril().bool()), (4, 5, 8))
    assert layer.op == "attention"


def test_trained_mask_is_added_between_two_products():
    def function(m, q):
        return functional.scaled_dot_product_attention(q, q, q, attn_mask=m.table[:, torch.arange(25).view(5, 5) % 9])

    found = layers(function, (4, 5, 8), table=parameter(4, 9))
    assert [layer.op for layer in found] == ["embedding", "matmul", "add", "softmax", "matmul"]
    bias, _, add, *_ = found
    assert (bias.per_step, bias.inputs, bias.params, bias.in_elems, bias.out_elems) == (True, (), 36, 25, 100)
    assert add.inputs[1] == bias.name


def test_attention_with_longer_values_is_two_products():
    found = layers(lambda m, q, v: functional.scaled_dot_product_attention(q, q, v), (4, 5, 8), (4, 5, 16))
    assert [(layer.op, layer.out_elems) for layer in found] == [("matmul", 100), ("softmax", 100), ("matmul", 320)]


def test_multihead_attention_of_pytorch():
    attention = nn.MultiheadAttention(8, 2, batch_first=True)
    found = layers(lambda m, x: m.mha(x, x, x, need_weights=False)[0], (5, 8), mha=attention)
    assert [layer.name for layer in found] == ["mha.in_proj", "mha.attention", "mha.out_proj"]
    found = layers(lambda m, x, y: m.mha(x, y, y, need_weights=False)[0], (5, 8), (7, 8), mha=attention)
    assert [(layer.name, layer.out_features) for layer in found if layer.op == "linear"] == [
        ("mha.in_proj", 8),
        ("mha.in_proj_1", 16),
        ("mha.out_proj", 8),
    ]
    assert not any(getattr(layer, "weight", None) for layer in found)


# Vector operators.


@pytest.mark.parametrize(
    ("module", "size", "op", "params"),
    [
        (nn.BatchNorm1d(6), (6, 5), "batch_norm", 12),
        (nn.BatchNorm2d(6), (6, 4, 4), "batch_norm", 12),
        (nn.BatchNorm3d(6), (6, 4, 4, 4), "batch_norm", 12),
        (nn.LayerNorm(6), (5, 6), "layer_norm", 12),
        (nn.LayerNorm(6, bias=False), (5, 6), "layer_norm", 6),
        (nn.GroupNorm(2, 6), (6, 4, 4), "group_norm", 12),
        (nn.InstanceNorm2d(6), (6, 4, 4), "group_norm", 0),
        (nn.InstanceNorm2d(6, affine=True), (6, 4, 4), "group_norm", 12),
        (nn.RMSNorm(6), (5, 6), "rms_norm", 6),
        (nn.ReLU(), (5,), "relu", 0),
        (nn.ReLU(inplace=True), (5,), "relu", 0),
        (nn.ReLU6(), (5,), "relu6", 0),
        (nn.LeakyReLU(), (5,), "relu", 0),
        (nn.PReLU(5), (5,), "mul", 5),
        (nn.GELU(), (5,), "gelu", 0),
        (nn.SiLU(), (5,), "silu", 0),
        (nn.Hardswish(), (5,), "silu", 0),
        (nn.Sigmoid(), (5,), "sigmoid", 0),
        (nn.Tanh(), (5,), "tanh", 0),
        (nn.Softmax(-1), (5,), "softmax", 0),
        (nn.LogSoftmax(-1), (5,), "softmax", 0),
        (nn.Dropout(0.5), (5,), "dropout", 0),
        (nn.Dropout2d(0.5), (6, 4, 4), "dropout", 0),
    ],
)
def test_operator_with_one_result_per_element(module, size, op, params):
    layer = only(lambda m, x: m.part(x), size, part=module)
    elems = torch.zeros(size).numel()
    expected = Vector(op=op, name="part", inputs=("inputs_0",), in_elems=elems, out_elems=elems, params=params)
    assert layer.model_copy(update={"attributes": None}) == expected


@pytest.mark.parametrize("module", [nn.Dropout(0), nn.Identity(), nn.Flatten()])
def test_what_does_nothing_in_training_is_left_out(module):
    assert [layer.name for layer in layers(lambda m, x: m.fc(m.part(x)), (6,), part=module, fc=nn.Linear(6, 2))] == ["fc"]


def test_norm_with_fixed_statistics_is_a_scaling():
    norm = nn.BatchNorm2d(6).eval().requires_grad_(False)
    found = export(Function(lambda m, x: m.norm(x), norm=norm).eval(), torch.zeros(2, 6, 4, 4), train=False).layers
    assert [(layer.op, layer.name, layer.params, layer.trainable) for layer in found] == [("scale", "norm", 12, False)]


@pytest.mark.parametrize(
    ("module", "size", "op", "window", "out_elems"),
    [
        (nn.MaxPool1d(2), (3, 8), "max_pool", 2, 12),
        (nn.MaxPool2d(3, 2, 1), (3, 8, 8), "max_pool", 9, 48),
        (nn.MaxPool3d(2), (3, 4, 4, 4), "max_pool", 8, 24),
        (nn.AvgPool1d(2), (3, 8), "avg_pool", 2, 12),
        (nn.AvgPool2d((2, 4)), (3, 8, 8), "avg_pool", 8, 24),
        (nn.AvgPool3d(2), (3, 4, 4, 4), "avg_pool", 8, 24),
        (nn.AdaptiveAvgPool1d(1), (3, 8), "avg_pool", 8, 3),
        (nn.AdaptiveAvgPool2d(1), (3, 8, 8), "avg_pool", 64, 3),
        (nn.AdaptiveMaxPool2d(2), (3, 8, 8), "max_pool", 16, 12),
        (nn.Upsample(scale_factor=2), (3, 4, 4), "interpolate", 1, 192),
        (nn.Upsample(scale_factor=2, mode="bilinear"), (3, 4, 4), "interpolate", 4, 192),
        (nn.Upsample(scale_factor=2, mode="trilinear"), (3, 2, 2, 2), "interpolate", 8, 192),
    ],
)
def test_operator_that_looks_at_a_window(module, size, op, window, out_elems):
    layer = only(lambda m, x: m.part(x), size, part=module)
    assert (layer.op, layer.window, layer.out_elems, layer.in_elems) == (op, window, out_elems, torch.zeros(size).numel())


@pytest.mark.parametrize(
    ("function", "op", "in_elems", "window"),
    [
        (lambda m, x: x.mean((1, 2)), "reduction", 15, 15),
        (lambda m, x: x.sum(1), "reduction", 15, 5),
        (lambda m, x: x.max(-1)[0], "reduction", 15, 3),
        (lambda m, x: x.sum(), "reduction", 15, 15),
        (lambda m, x: x.cumsum(1), "elementwise", 15, 1),
        (lambda m, x: x + 1, "add", 15, 1),
        (lambda m, x: 1 - x, "add", 15, 1),
        (lambda m, x: x * 2, "scale", 15, 1),
        (lambda m, x: x / torch.ones(3), "scale", 15, 1),
        (lambda m, x: x * x, "mul", 15, 1),
        (lambda m, x: x * x[:, :1], "mul", 18, 1),
        (lambda m, x: x + x[:, :1].expand_as(x), "add", 30, 1),
        (lambda m, x: x.clamp(0, 1), "elementwise", 15, 1),
        (lambda m, x: x.exp(), "sigmoid", 15, 1),
        (lambda m, x: functional.mse_loss(x, torch.zeros(2, 5, 3)), "mse_loss", 15, 15),
        (lambda m, x: functional.cross_entropy(x.mT, torch.zeros(2, 5, dtype=torch.int64)), "cross_entropy", 15, 3),
    ],
)
def test_arithmetic_and_reductions(function, op, in_elems, window):
    layer = only(function, (5, 3))
    assert (layer.op, layer.in_elems, layer.window) == (op, in_elems, window)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: torch.cat(x.split(2, 1), 1),
        lambda x: torch.stack(x.chunk(2, -1)).flatten(0, 1)[:2],
        lambda x: x.permute(0, 3, 1, 2).reshape(2, 6, -1).transpose(1, 2),
        lambda x: x[:, 1:, None].expand(-1, -1, 3, -1, -1).contiguous(),
        lambda x: torch.roll(functional.pixel_shuffle(x, 2), 1, 2),
        lambda x: functional.pad(x, (1, 1)).unbind(1)[0].to(torch.float64).float(),
    ],
)
def test_moving_data_is_free(function):
    (layer,) = layers(lambda m, x: function(x).relu(), (4, 4, 6))
    assert (layer.op, layer.inputs) == ("relu", ("inputs_0",))


def test_embedding_and_parameters_that_are_added():
    def function(m, ids):
        x = torch.cat([m.token.expand(2, -1, -1), m.table(ids.long())], 1)
        return x + m.places

    table, add = layers(function, (5,), table=nn.Embedding(10, 6), token=parameter(1, 1, 6), places=parameter(6, 6))
    assert (table.op, table.in_elems, table.out_elems, table.params) == ("embedding", 5, 30, 60)
    assert (add.op, add.name, add.in_elems, add.out_elems, add.params) == ("add", "places", 36, 36, 42)


def test_parameter_that_a_product_reads_has_a_layer_of_its_own():
    token, fc = layers(
        lambda m, x: m.fc(torch.cat([m.token.expand(2, -1, -1), x], 1)), (5, 6), token=parameter(1, 1, 6), fc=nn.Linear(6, 2)
    )
    assert (token.op, token.name, token.per_step, token.params, token.inputs) == ("add", "token", True, 6, ())
    assert fc.inputs == ("inputs_0", "token")
    assert fc.rows == 6


def test_computed_weight_is_updated_once_as_the_parameter_it_is_made_of():
    conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 4, 3))
    net = trace(lambda m, x: m.conv(x), (3, 8), conv=conv)
    norm, layer = net.layers
    assert (norm.per_step, norm.params, norm.inputs) == (True, 36 + 4, ())
    assert norm.weight == layer.weight == "conv.parametrizations.weight.original1"
    assert net.parameters == sum(p.numel() for p in conv.parameters())


def test_gradient_of_a_computed_weight_is_no_input_gradient():
    conv = nn.utils.parametrizations.weight_norm(nn.Conv1d(3, 4, 3))
    net = trace(lambda m, x: m.conv(x), (3, 8), conv=conv)
    assert net.layers[-1].inputs == ("inputs_0",)
    assert has_backward(net)["conv.conv1d"] is False


def test_computed_weight_of_a_frozen_and_a_trained_parameter_is_trained():
    fc = nn.utils.parametrizations.weight_norm(nn.Linear(6, 2))
    fc.parametrizations.weight.original1.requires_grad_(False)
    norm, layer = layers(lambda m, x: m.fc(x), (6,), fc=fc)
    assert (norm.params, norm.trainable, layer.trainable) == (2, True, True)


def test_computed_weight_that_is_detached_is_frozen():
    net = trace(lambda m, x: functional.linear(m.a(x), (m.w * 2).detach()), (6,), a=nn.Linear(6, 6), w=parameter(2, 6))
    assert {layer.name: layer.trainable for layer in net.layers} == {"a": True, "w": False, "linear": False}


def test_computed_bias_is_an_addition_and_trained():
    scale, layer, add = layers(lambda m, x: functional.linear(x, m.w, m.b * 2), (6,), w=parameter(2, 6), b=parameter(2))
    assert (scale.name, scale.params, scale.trainable) == ("b", 2, True)
    assert (layer.bias, add.inputs) == (False, ("w", "b"))


def test_slices_of_a_parameter_have_their_own_sizes():
    def function(m, x):
        first, second = m.w.split([2, 4])
        return x[:, :2] + first, x[:, 2:] * second

    assert [layer.params for layer in layers(function, (6,), w=parameter(6))] == [2, 4]


@pytest.mark.parametrize("through_view", [False, True])
def test_writing_in_place_is_seen_through_views(through_view):
    def function(m, x):
        y = m.a(x)
        view = y.view(-1, 3)
        (view if through_view else y).relu_()
        return m.b(y if through_view else view)

    a, relu, b = layers(function, (6,), a=nn.Linear(6, 6), b=nn.Linear(6 if through_view else 3, 2))
    assert (a.name, relu.inputs, b.inputs) == ("a", ("a",), ("relu",))


def test_writing_in_place_gives_a_detached_view_no_gradient():
    def function(m, x):
        y = m.a(x)
        view = y.detach()
        y.relu_()
        return m.b(y) + m.c(view)

    net = trace(function, (6,), a=nn.Linear(6, 6), b=nn.Linear(6, 2), c=nn.Linear(6, 2))
    assert [layer.inputs for layer in net.layers if layer.op == "linear"] == [("inputs_0",), ("relu",), ("relu.detach",)]


def test_writing_into_a_part_that_was_taken_before():
    def function(m, x):
        whole = torch.zeros(2, 4)
        part, _ = whole.chunk(2, 1)
        with torch.no_grad():
            part.copy_(m.a(x))
        return m.b(whole)

    assert layers(function, (6,), a=nn.Linear(6, 2), b=nn.Linear(4, 2))[-1].inputs == ("a",)


def test_writing_in_place_is_seen_by_later_readers():
    def function(m, x):
        y = m.a(x)
        y[:, 0] = m.b(x)[:, 1]
        y.mul_(2)
        return y.relu()

    found = {layer.name: layer for layer in layers(function, (5, 6), a=nn.Linear(6, 6), b=nn.Linear(6, 6))}
    assert found["mul"].inputs == ("a", "b")
    assert found["relu"].inputs == ("mul",)


# What is trained.


def has_backward(trace):
    return {layer.name: trace.has_input_grad(layer) for layer in trace.layers}


def test_frozen_layers_have_no_backward_below_the_first_trained_one():
    net = trace(
        lambda m, x: m.head(m.tuned(m.body(x))),
        (6,),
        body=nn.Linear(6, 6).requires_grad_(False),
        tuned=nn.Linear(6, 6),
        head=nn.Linear(6, 2).requires_grad_(False),
    )
    assert [layer.trainable for layer in net.layers] == [False, True, False]
    assert has_backward(net) == {"body": False, "tuned": False, "head": True}


def test_adapters_train_and_what_they_adapt_does_not():
    net = trace(
        lambda m, x: m.fc(x) + m.up(m.down(x)),
        (6,),
        fc=nn.Linear(6, 6).requires_grad_(False),
        down=nn.Linear(6, 2, bias=False),
        up=nn.Linear(2, 6, bias=False),
    )
    assert {layer.name: layer.trainable for layer in net.layers} == {"fc": False, "down": True, "up": True, "add": True}
    assert has_backward(net) == {"fc": False, "down": False, "up": True, "add": True}


def test_bias_that_is_trained_alone_is_an_addition():
    fc = nn.Linear(6, 2)
    fc.weight.requires_grad_(False)
    weight, bias = layers(lambda m, x: m.fc(x), (6,), fc=fc)
    assert (weight.trainable, weight.bias) == (False, False)
    assert (bias.op, bias.name, bias.params, bias.trainable) == ("add", "fc.bias", 2, True)


@pytest.mark.parametrize("detached", [lambda x: x.detach(), lambda x: (x > 0).float()])
def test_no_gradient_flows_through_what_is_detached(detached):
    def function(m, x):
        y = m.a(x)
        return y + m.b(detached(y))

    net = trace(function, (6,), a=nn.Linear(6, 6), b=nn.Linear(6, 6))
    assert net.inputs == ("inputs_0", "a.detach")
    assert not has_backward(net)["b"]
    assert net.layers[-1].inputs == ("a", "b")


def test_what_runs_without_gradients_is_frozen():
    def function(m, x):
        with torch.no_grad():
            y = m.b(m.a(x))
        return m.c(y)

    net = trace(function, (6,), a=nn.Linear(6, 6), b=nn.Linear(6, 6), c=nn.Linear(6, 6))
    assert [layer.trainable for layer in net.layers] == [False, False, True]
    assert not any(has_backward(net).values())


def test_a_teacher_that_no_gradient_reaches_costs_its_forward_pass_alone():
    net = trace(lambda m, x: m.a(x) * m.b(x).relu().detach(), (6,), a=nn.Linear(6, 6), b=nn.Linear(6, 6))
    assert {layer.name: layer.trainable for layer in net.layers if layer.op == "linear"} == {"a": True, "b": False}


# The whole.


def test_no_torch_object_is_in_a_trace():
    net = trace(lambda m, x: m.fc(x), (6,), fc=nn.Linear(6, 2))
    assert type(net).load is not None
    assert "torch" not in repr(net.model_dump())


def test_module_is_left_as_it_was():
    module = nn.Sequential(nn.Dropout(0.5), nn.Linear(6, 2)).eval()
    module[1].train()
    assert [layer.op for layer in export(module, torch.zeros(2, 6)).layers] == ["dropout", "linear"]
    assert [part.training for part in module.modules()] == [False, False, True]
    assert [layer.op for layer in export(module, torch.zeros(2, 6), train=False).layers] == ["linear"]


def test_sizes_are_per_sample_whatever_the_batch():
    module = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 10))
    found = [export(module, torch.zeros(batch, 3, 8, 8), loss="cross_entropy") for batch in (1, 2, 5)]
    assert found[0] == found[1] == found[2]


def test_loss_is_appended():
    module = nn.Conv2d(3, 4, 1)
    image = torch.zeros(2, 3, 8, 8)
    assert export(module, image, loss="cross_entropy").layers[-1] == Vector(
        op="cross_entropy", name="loss", inputs=("weight",), in_elems=256, out_elems=64, window=4,
        attributes={"function": "cross_entropy", "classes": 4, "smoothing": 0.0},
    )  # fmt: skip
    assert export(module, image, loss="mse").layers[-1] == Vector(
        op="mse_loss", name="loss", inputs=("weight",), in_elems=256, out_elems=1, window=256,
        attributes={"function": "mse_loss"},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("function", "error", "message"),
    [
        (
            lambda m, x: torch.sort(m.fc(x))[0].topk(1)[0],
            UnsupportedOpError,
            "net: 2 unsupported operators: sort (1 in net), topk (1 in net); add them to --allow-ops to count them as free",
        ),
        (
            lambda m, x: torch.cond(x.sum() > 0, lambda y: y + 1, lambda y: y - 1, (m.fc(x),)),
            UnsupportedOpError,
            "net: 1 unsupported operator: cond (1 in net); add them to --allow-ops to count them as free",
        ),
        (
            lambda m, x: m.rnn(x[:, None])[0],
            UnsupportedOpError,
            "net: 1 unsupported operator: lstm (1 in rnn); add them to --allow-ops to count them as free",
        ),
        (
            lambda m, x: m.fc(x)[x[:, 0] > 0],
            UnsupportedOpError,
            "net: sizes must not depend on data, but do after index (1 in net); use fixed sizes",
        ),
        (
            lambda m, x: m.fc(m.fc.weight) + x.sum(),
            UnsupportedOpError,
            "net: 1 unsupported operator: linear.per_step (1 in fc); add them to --allow-ops to count them as free",
        ),
    ],
)
def test_what_cannot_be_lowered_is_named(function, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        trace(function, (6,), fc=nn.Linear(6, 6), rnn=nn.LSTM(6, 6, batch_first=True))


@torch.library.custom_op("accel_test::overwrite", mutates_args=["out"])
def overwrite(out: torch.Tensor, x: torch.Tensor) -> None:
    out.copy_(x)


def test_unknown_operator_that_only_writes_in_place_is_named():
    def function(m, x):
        out = torch.zeros(2, 6)
        overwrite(out, m.fc(x))
        return out

    module = Function(function, fc=nn.Linear(6, 6))
    message = "net: 1 unsupported operator: accel_test.overwrite (1 in net); add them to --allow-ops to count them as free"
    with pytest.raises(UnsupportedOpError, match=f"^{re.escape(message)}$"):
        export(module, torch.zeros(2, 6), name="net")
    fc, free = export(module, torch.zeros(2, 6), allow_ops=["accel_test.overwrite"]).layers
    assert (fc.trainable, free.op, free.inputs) == (True, "free", ("fc",))


def test_allowed_product_of_parameters_is_free_and_named():
    module = Function(lambda m, x: functional.linear(x, (m.a @ m.b) * 2), a=parameter(4, 3), b=parameter(3, 6))
    found = {layer.name: layer for layer in export(module, torch.zeros(2, 6), allow_ops=["matmul.per_step"]).layers}
    assert found["matmul.per_step"].kind == "matmul.per_step"
    assert (found["linear"].trainable, found["linear"].weight, found["linear"].inputs) == (True, "b", ("inputs_0",))


def test_allowed_operator_is_free_and_named():
    module = Function(lambda m, x: torch.sort(m.fc(x))[0], fc=nn.Linear(6, 6))
    free = export(module, torch.zeros(2, 6), allow_ops=["sort"]).layers[-1]
    assert (free.op, free.kind, free.name, free.inputs) == ("free", "sort", "sort", ("fc",))


def test_loss_of_several_outputs_is_refused():
    message = "Function: a loss needs a module with 1 output tensor, not 2; return one"
    with pytest.raises(TraceError, match=f"^{re.escape(message)}$"):
        export(Function(lambda m, x: (x + 1, x + 2)), torch.zeros(2, 6), loss="mse")


SIZES = "leave the loss out where the module returns its own"


@pytest.mark.parametrize(
    ("function", "loss", "message"),
    [
        (
            lambda x: x.sum(),
            "cross_entropy",
            f"net: output must have sizes (batch, classes) for cross_entropy, not (); {SIZES}",
        ),
        (
            lambda x: x[:, 0],
            "cross_entropy",
            f"net: output must have sizes (batch, classes) for cross_entropy, not (2,); {SIZES}",
        ),
        (lambda x: x.sum(), "mse", f"net: output must have sizes (batch) for mse_loss, not (); {SIZES}"),
        (
            lambda x: x.detach(),
            "mse",
            "net: output must have a gradient for a loss, not be constant or detached; leave the loss out",
        ),
        (
            lambda x: torch.ones(2, 3),
            "mse",
            "net: output must have a gradient for a loss, not be constant or detached; leave the loss out",
        ),
    ],
)
def test_output_without_what_a_loss_needs_is_refused(function, loss, message):
    module = Function(lambda m, x: function(m.fc(x)), fc=nn.Linear(6, 4))
    with pytest.raises(TraceError, match=f"^{re.escape(message)}$"):
        export(module, torch.zeros(2, 6), name="net", loss=loss)


@pytest.mark.parametrize("inputs", [3, "image", None])
def test_example_inputs_that_are_no_arguments_are_refused(inputs):
    message = f"example inputs must be a tensor, a sequence of arguments or a mapping, not {inputs!r}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        export(nn.Linear(6, 2), inputs)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ((), "net: the first input must have a batch as its first dimension, not be a scalar"),
        ((0, 6), "net: the first input must have 1 or more samples, not 0"),
    ],
)
def test_batch_that_is_none_is_refused(size, message):
    with pytest.raises(TraceError, match=f"^{re.escape(message)}$"):
        export(Function(lambda m, x: x * 2), torch.zeros(size), name="net")


@pytest.mark.parametrize("name", ["", "two\nlines"])
def test_name_that_is_no_line_of_text_is_refused(name):
    with pytest.raises(ConfigError, match=f"^{re.escape(f'name must be one line of printable text, not {name!r}')}$"):
        export(nn.Linear(6, 2), torch.zeros(2, 6), name=name)


def sparsify_and_normalise(module):
    nn.utils.parametrizations.weight_norm(sparsify(module)[1])  # gives the one sparse layer a class of its own
    return module


@pytest.mark.parametrize("change", [sparsify, on_machine, sparsify_and_normalise])
def test_sparse_training_is_undone_before_a_trace(change):
    module = change(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16)))
    message = (
        "net must be as it was before sparsify and on_machine: a trace is of the dense network, and the method is chosen when "
        "it is simulated; undo them with desparsify and off_machine"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        export(module, torch.zeros(2, 16), name="net")


def largest_two(weight):
    """Return 2:4 of `weight` as code for SR-STE is often written."""
    rank = weight.detach().abs().reshape(-1, 4).argsort(dim=1)
    return torch.ones_like(rank, dtype=weight.dtype).scatter(1, rank[:, :2], 0).reshape(weight.shape) * weight


def test_a_model_that_prunes_its_weights_itself_is_told_to_leave_that_out():
    message = (
        "net: 2 unsupported operators: argsort (1 in net), scatter (1 in net); trace the model without its own pruning, the "
        "method is chosen when it is simulated, or add them to --allow-ops to count them as free"
    )
    module = Function(lambda m, x: functional.linear(x, largest_two(m.w)), w=parameter(8, 8))
    with pytest.raises(UnsupportedOpError, match=f"^{re.escape(message)}$"):
        export(module, torch.zeros(2, 8), name="net")


def test_unknown_loss_is_refused():
    with pytest.raises(ConfigError, match=r"^loss must be one of cross_entropy, mse, not 'hinge'$"):
        export(nn.Linear(6, 2), torch.zeros(2, 6), loss="hinge")


def test_module_without_an_input_tensor_is_refused():
    with pytest.raises(TraceError, match=r"^Function must take a tensor as input; give example inputs$"):
        export(Function(lambda m: m.w * 2, w=parameter(3)), ())
