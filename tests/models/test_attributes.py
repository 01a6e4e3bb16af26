"""What the exporter says an operator computes, and how torch's tensors lie in the stored ones."""

import pytest

torch = pytest.importorskip("torch")

import numpy as np  # noqa: E402
from hypothesis import given  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402
from torch.nn import functional  # noqa: E402

from accel.models.exporter import export  # noqa: E402
from accel.models.layouts import channels_last, heads_last, permuted, reshaped, row_major, stored_axes, without  # noqa: E402

pytestmark = pytest.mark.torch


class Function(nn.Module):
    def __init__(self, function, **parts):
        super().__init__()
        self.function = function
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, *inputs):
        return self.function(self, *inputs)


def layers(function, *sizes, loss=None, **parts):
    inputs = tuple(torch.zeros(7, *size) for size in sizes)
    return export(Function(function, **parts), inputs, name="net", loss=loss).layers


def last(function, *sizes, **parts):
    return layers(function, *sizes, **parts)[-1]


CONV = {"conv": nn.Conv2d(3, 4, 1)}
IMAGE = (3, 6, 8)


# Layouts, against the strides of torch.


def strides_of(layout, shape):
    """Return for each element of a tensor of `shape`, in torch's order, its place in the stored one."""
    places = np.zeros(1, np.int64)
    for dim in layout:
        index = np.zeros(1, np.int64)
        for size, step in dim:
            index = (index[:, None] + np.arange(size) * step).reshape(-1)
        places = (places[:, None] + index).reshape(-1)
    return places


def stored(shape, order):
    """Return a tensor of `shape` whose elements are their places in memory when its dimensions are stored in `order`."""
    return torch.arange(int(np.prod(shape))).reshape([shape[dim] for dim in order]).permute(tuple(np.argsort(order)))


sizes = st.lists(st.integers(1, 4), min_size=2, max_size=4).map(tuple)


@given(sizes)
def test_layouts_say_where_elements_lie(shape):
    assert (strides_of(row_major(shape), shape) == np.arange(int(np.prod(shape)))).all()
    images = stored(shape, (0, *range(2, len(shape)), 1))
    assert (strides_of(channels_last(shape), shape) == images.reshape(-1).numpy()).all()
    if len(shape) == 4:
        assert (strides_of(heads_last(shape), shape) == stored(shape, (0, 2, 1, 3)).reshape(-1).numpy()).all()


@given(sizes, st.randoms(use_true_random=False))
def test_permuted_and_reshaped_layouts_follow_torch(shape, random):
    layout, tensor = channels_last(shape), stored(shape, (0, *range(2, len(shape)), 1))
    order = random.sample(range(len(shape)), len(shape))
    layout, tensor = permuted(layout, order), tensor.permute(order)
    assert (strides_of(layout, tensor.shape) == tensor.reshape(-1).numpy()).all()
    first = random.randint(0, len(shape) - 1)
    flat = tensor.flatten(first)
    flattened = reshaped(layout, tuple(flat.shape))
    assert (strides_of(flattened, flat.shape) == flat.reshape(-1).numpy()).all()
    assert reshaped(flattened, tuple(tensor.shape)) == layout


def test_a_digit_that_cannot_be_split_has_no_layout():
    assert reshaped(row_major((2, 3)), (3, 2)) == (((3, 2),), ((2, 1),))
    assert reshaped(permuted(row_major((2, 3)), (1, 0)), (2, 3)) is None


@given(sizes, st.randoms(use_true_random=False))
def test_what_is_left_of_a_sum_is_stored_in_the_same_order(shape, random):
    layout = channels_last(shape)
    dims = sorted(random.sample(range(1, len(shape)), random.randint(1, len(shape) - 1)))
    axes = stored_axes(layout)
    values = np.random.default_rng(0).normal(size=int(np.prod(shape)))
    kept = values.reshape([size for size, _, _ in axes])
    kept = kept.sum(axis=tuple(at for at, axis in enumerate(axes) if axis[2] in dims)).reshape(-1)
    for keeps in (False, True):
        expected = values[strides_of(layout, shape)].reshape(shape).sum(axis=tuple(dims), keepdims=keeps)
        found = kept[strides_of(without(layout, dims, keeps), expected.shape)].reshape(expected.shape)
        assert np.allclose(found, expected)


# Attributes.


@pytest.mark.parametrize(
    ("module", "attributes"),
    [
        (nn.BatchNorm2d(4, eps=0.5), {"function": "batch_norm", "channels": 4, "eps": 0.5}),
        (nn.GroupNorm(2, 4), {"function": "group_norm", "shape": (6, 8, 4), "groups": 2, "eps": 1e-5}),
        (nn.ReLU(), {"function": "relu"}),
        (nn.ReLU6(), {"function": "relu6"}),
        (nn.Hardtanh(), None),
        (nn.GELU(), {"function": "gelu"}),
        (nn.GELU("tanh"), {"function": "gelu_tanh"}),
        (nn.SiLU(), {"function": "silu"}),
        (nn.LeakyReLU(), None),
        (nn.Softplus(), None),
        (nn.Softmax(-1), None),
        (nn.LayerNorm(8), None),
        (nn.Dropout(0.5), None),
    ],
)
def test_operators_on_an_image(module, attributes):
    found = last(lambda m, x: m.part(m.conv(x)), IMAGE, part=module, **CONV).attributes
    assert found == (None if attributes is None else attributes | {"image": (6, 8, 4)})


@pytest.mark.parametrize(
    ("module", "attributes"),
    [
        (
            nn.MaxPool2d(3, 2, 1, ceil_mode=True),
            {
                "function": "max_pool", "kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "dilation": (1, 1),
                "ceil_mode": True,
            },
        ),
        (
            nn.AvgPool2d((2, 4), count_include_pad=False),
            {
                "function": "avg_pool", "kernel": (2, 4), "stride": (2, 4), "padding": (0, 0), "dilation": (1, 1),
                "ceil_mode": False, "count_padding": False,
            },
        ),
        (nn.AdaptiveAvgPool2d((1, 3)), {"function": "avg_pool", "outputs": (1, 3), "count_padding": False}),
        (nn.AvgPool2d(2, divisor_override=3), None),
    ],
)  # fmt: skip
def test_pools_of_an_image(module, attributes):
    layer = last(lambda m, x: m.part(m.conv(x)), IMAGE, part=module, **CONV)
    if attributes is None:
        assert layer.attributes is None
        return
    image = module(torch.zeros(1, 4, 6, 8)).shape
    expected = {"sizes": (6, 8), "channels": 4, "image": (*image[2:], 4)}
    assert layer.attributes == attributes | expected


@pytest.mark.parametrize(
    ("function", "shape", "axes"),
    [
        (lambda x: x.mean((2, 3)), (48, 4), (1,)),
        (lambda x: x.flatten(2).mean(2), (48, 4), (1,)),
        (lambda x: x.mean(1), (48, 4), (2,)),
        (lambda x: x.mean(2), (6, 8, 4), (1,)),
        (lambda x: x.mean(3, keepdim=True), (6, 8, 4), (2,)),
        (lambda x: x.flatten(2).transpose(1, 2).mean(1), (48, 4), (1,)),
    ],
)
def test_a_mean_runs_along_stored_axes(function, shape, axes):
    found = last(lambda m, x: function(m.conv(x)), IMAGE, **CONV).attributes
    assert (found["function"], int(np.prod(found["shape"]))) == ("mean", 192)
    wanted = torch.randn(1, 4, 6, 8)
    flat = wanted.permute(0, 2, 3, 1).reshape(1, *found["shape"])
    assert torch.allclose(flat.mean(found["axes"]).flatten().sort()[0], function(wanted).flatten().sort()[0])
    assert len(found["axes"]) >= 1
    assert np.prod([shape[axis - 1] for axis in axes]) == np.prod([found["shape"][axis - 1] for axis in found["axes"]])


def test_a_mean_over_samples_has_none():
    assert last(lambda m, x: x.mean(0), (5,)).attributes is None


@pytest.mark.parametrize(
    ("function", "attributes"),
    [
        (lambda x, y: x + y, {"function": "add"}),
        (lambda x, y: x * y, {"function": "mul"}),
        (lambda x, y: x * 3, {"function": "scale", "factor": 3.0}),
        (lambda x, y: x + 2 * y, {"function": "add"}),
        (lambda x, y: torch.add(x, y, alpha=2), None),
        (lambda x, y: x + x, None),
        (lambda x, y: x - y, None),
        (lambda x, y: x + y.transpose(1, 2), None),
        (lambda x, y: x + y[:, :1], None),
        (lambda x, y: x / 3, None),
    ],
)
def test_operators_of_two_tensors(function, attributes):
    def whole(m, x, y):
        return function(m.first(x), m.second(y))

    assert last(whole, (5, 5), (5, 5), first=nn.Linear(5, 5), second=nn.Linear(5, 5)).attributes == attributes


def test_norms_and_softmax_of_rows():
    parts = {"fc": nn.Linear(5, 6)}
    norm = last(lambda m, x: m.norm(m.fc(x)), (3, 5), norm=nn.LayerNorm(6, eps=0.25), **parts)
    assert norm.attributes == {"function": "layer_norm", "features": 6, "eps": 0.25}
    norm = last(lambda m, x: m.norm(m.fc(x)), (3, 5), norm=nn.RMSNorm(6, eps=0.25), **parts)
    assert norm.attributes == {"function": "rms_norm", "features": 6, "eps": 0.25}
    assert last(lambda m, x: m.fc(x).softmax(-1), (3, 5), **parts).attributes == {"function": "softmax", "size": 6}


def test_losses():
    (_, loss) = layers(lambda m, x: m.fc(x), (5,), loss="cross_entropy", fc=nn.Linear(5, 6))
    assert loss.attributes == {"function": "cross_entropy", "classes": 6, "smoothing": 0.0}


# What is read in parts, or in another order.


def reads_moved(function, *sizes, **parts):
    return last(function, *sizes, **parts).reads_moved


FC, NORM = nn.Linear(192, 5), nn.Linear(8, 5)


@pytest.mark.parametrize(
    ("function", "part", "moved"),
    [
        (lambda x: x.flatten(1), nn.Linear(192, 5), False),
        (lambda x: x.relu().flatten(1), nn.Linear(192, 5), False),
        (lambda x: x.flatten(1).relu(), nn.Linear(192, 5), False),
        (lambda x: x.permute(0, 2, 3, 1).flatten(1), nn.Linear(192, 5), True),
        (lambda x: x.flatten(2).transpose(1, 2), nn.Linear(4, 5), False),
        (lambda x: x.flatten(2).transpose(1, 2).flatten(1), nn.Linear(192, 5), True),
        (lambda x: x, nn.Linear(8, 5), True),
        (lambda x: x.permute(0, 2, 3, 1), nn.Linear(4, 5), False),
        (lambda x: x.chunk(2, 1)[0].flatten(1), nn.Linear(96, 5), True),
        (lambda x: torch.cat([x, x.relu()], 1).flatten(1), nn.Linear(384, 5), True),
        (lambda x: x.roll(1, 2).flatten(1), nn.Linear(192, 5), True),
    ],
)
def test_linear_layers_after_an_image(function, part, moved):
    assert reads_moved(lambda m, x: m.part(function(m.conv(x))), IMAGE, part=part, **CONV) == moved


@pytest.mark.parametrize(
    ("function", "moved"),
    [
        (lambda x: x, False),
        (lambda x: x.relu(), False),
        (lambda x: x.transpose(2, 3), True),
        (lambda x: functional.pad(x, (1, 1)), True),
        (lambda x: x[:, :, 1:], True),
        (lambda x: torch.dropout(x, 0.5, True), False),
    ],
)
def test_convolutions_after_an_image(function, moved):
    assert reads_moved(lambda m, x: m.again(function(m.conv(x))), IMAGE, again=nn.Conv2d(4, 4, 1), **CONV) == moved


def attention(m, x, **options):
    query, key, value = (part(x).view(7, 3, 2, 4).transpose(1, 2) for part in (m.query, m.key, m.value))
    return functional.scaled_dot_product_attention(query, key, value, **options)


PROJECTIONS = {name: nn.Linear(5, 8) for name in ("query", "key", "value")}


def test_attention_of_projections_is_read_in_order():
    layer = last(lambda m, x: attention(m, x, scale=0.5, is_causal=True), (3, 5), **PROJECTIONS)
    assert (layer.reads_moved, layer.masked, layer.scale, layer.causal) == (False, False, 0.5, True)
    layer = last(lambda m, x: attention(m, x, attn_mask=torch.ones(3, 3).bool()), (3, 5), **PROJECTIONS)
    assert (layer.reads_moved, layer.masked, layer.scale) == (False, True, None)


def test_attention_of_one_fused_projection_is_not():
    def fused(m, x):
        query, key, value = (part.view(7, 3, 2, 4).transpose(1, 2) for part in m.qkv(x).chunk(3, -1))
        return functional.scaled_dot_product_attention(query, key, value)

    assert reads_moved(fused, (3, 5), qkv=nn.Linear(5, 24))


def test_the_output_of_attention_joins_its_heads():
    def whole(m, x):
        return m.out(attention(m, x).transpose(1, 2).flatten(2))

    assert not reads_moved(whole, (3, 5), out=nn.Linear(8, 8), **PROJECTIONS)
    assert reads_moved(lambda m, x: m.out(attention(m, x).flatten(2)), (3, 5), out=nn.Linear(12, 8), **PROJECTIONS)


def test_products_of_two_tensors_are_read_row_by_row():
    parts = {"first": nn.Linear(5, 4), "second": nn.Linear(5, 4)}
    product = last(lambda m, x: m.first(x) @ m.second(x), (4, 5), **parts)
    assert (product.op, product.reads_moved) == ("matmul", False)
    assert reads_moved(lambda m, x: m.first(x) @ m.second(x).transpose(1, 2), (4, 5), **parts)


def test_a_computed_weight_is_not_the_parameter():
    class Scaled(nn.Linear):
        def forward(self, x):
            return functional.linear(x, self.weight * 2, self.bias)

    assert reads_moved(lambda m, x: m.fc(x), (5,), fc=Scaled(5, 4))
