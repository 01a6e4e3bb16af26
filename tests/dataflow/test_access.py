from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_layers import Layer, channels, grid, pixel_of
from pydantic import ValidationError

from accel.access import Access, Axis
from accel.dataflow.accesses import Grids, LayerAccesses
from accel.dataflow.context import Context, Options
from accel.dataflow.lowering import lower
from accel.errors import describe_validation
from accel.gemm import Stage
from accel.methods import method, optimizer
from accel.sparsity import DENSE
from accel.trace import Attention, Conv, Linear, Matmul, Trace

BATCH = 2


def context_of(*layers, inputs=("x",)):
    trace = Trace(name="net", inputs=inputs, layers=layers)
    return Context(trace, Options(BATCH, method("dense"), DENSE, optimizer("sgd"), 4))


def matrix(access, tensor, repeat=0):
    """Return (rows, k) of a tensor, padding as zeros."""
    assert tensor.shape == access.shape
    taps, inner = int(np.prod(access.taps)), int(np.prod(access.inner))
    numbers = np.arange(taps * inner)
    rows = np.arange(int(np.prod(access.rows)))
    places, exists = access.places(repeat, rows, numbers // inner, numbers % inner)
    return np.where(exists, tensor.reshape(-1)[places], 0)


def multiply(accesses, lhs, rhs, out):
    """Add the products of all repeats to `out`, every element of which one product writes."""
    flat = out.reshape(-1)
    for repeat in range(int(np.prod(accesses.out.repeats))):
        result = matrix(accesses.lhs, lhs, repeat) @ matrix(accesses.rhs, rhs, repeat).T
        places, exists = accesses.out.places(repeat, np.arange(len(result)))
        assert exists.all()
        assert len(np.unique(places)) == places.size
        flat[places] += result
    return out


def integers(rng, shape):
    return rng.integers(-9, 10, shape)


# The type itself.


def test_digits_are_mixed_radix_and_what_lies_outside_an_axis_does_not_exist():
    access = Access(
        axes=(Axis(size=2, terms=((0, 1),)), Axis(size=5, terms=((1, 2), (2, -1)), offset=1)),
        repeats=(2,),
        rows=(3,),
        inner=(4,),
    )
    places, exists = access.places(1, np.arange(3), None, np.arange(4))
    along = 1 + 2 * np.arange(3)[:, None] - np.arange(4)
    assert (exists == ((along >= 0) & (along < 5))).all()
    assert (places == np.where(exists, 5 + along, 0)).all()


def test_rows_without_extents_are_all_the_same():
    access = Access(axes=(Axis(size=6, terms=((0, 3), (1, 1))),), repeats=(2,), inner=(3,))
    places, _ = access.places(1, np.arange(10, 14))
    assert places.tolist() == [[3, 4, 5]] * 4
    turned, _ = access.swapped.places(1, np.arange(3), None, np.arange(10, 14))
    assert turned.tolist() == places.T.tolist()


def test_digits_that_do_not_exist_are_refused_all_at_once():
    axes = (Axis(size=2, terms=((0, 1), (2, 1))), Axis(size=5, terms=((60, 1), (1, 2))))
    with pytest.raises(ValidationError) as refused:
        Access(axes=axes, rows=(3,), inner=(4,))
    assert describe_validation(refused.value) == [
        "axes[0].terms must name digits less than the number of extents (2), not 2",
        "axes[1].terms must name digits less than the number of extents (2), not 60",
    ]
    for field in ("repeats", "taps"):
        with pytest.raises(ValidationError):
            Access(axes=axes[:1], rows=(3,), **{field: (4,)})
        assert Access(axes=axes[:1], rows=(3,), inner=(4,), **{field: (5,)}).shape == (2,)


sizes = st.lists(st.integers(1, 3), min_size=0, max_size=3).map(tuple)


@given(sizes, sizes, sizes, st.randoms(use_true_random=False))
def test_swapping_exchanges_rows_and_columns(repeats, rows, inner, random):
    digits = len(repeats + rows + inner)
    axes = tuple(
        Axis(
            size=random.randint(1, 9),
            offset=random.randint(-2, 2),
            terms=tuple((d, random.randint(-2, 2)) for d in range(digits)),
        )
        for _ in range(2)
    )
    access = Access(axes=axes, repeats=repeats, rows=rows, inner=inner)
    m, n = int(np.prod(rows)), int(np.prod(inner))
    for repeat in range(int(np.prod(repeats))):
        for there, back in zip(
            access.places(repeat, np.arange(m)), access.swapped.places(repeat, np.arange(n), None, np.arange(m)), strict=True
        ):
            assert (there == back.T).all()
    assert access.swapped.swapped == access


def test_an_access_comes_back_from_json():
    access = Grids(2, 1, 3, 4, (5, 5), (3, 3), (3, 3), (2, 2), (1, 1), (1, 1)).gather().lhs
    assert Access.model_validate_json(access.model_dump_json()) == access


# Convolutions, against loops.


def random_layer(rng):
    dims = int(rng.integers(1, 3))

    def numbers(low, high):
        return tuple(int(size) for size in rng.integers(low, high, dims))

    kernel, stride, padding, dilation = numbers(1, 4), numbers(1, 4), numbers(0, 3), numbers(1, 3)
    reach = [dil * (taps - 1) + 1 - 2 * pad for dil, taps, pad in zip(dilation, kernel, padding, strict=True)]
    size = tuple(max(1, least) + int(rng.integers(0, 5)) for least in reach)
    groups, ins, outs = (int(number) for number in rng.integers(1, 4, 3))
    return Layer(size, kernel, stride, padding, dilation, groups, ins, outs, BATCH, DENSE)


def grids_of(layer):
    return Grids(
        layer.batch,
        layer.groups,
        layer.channels_in,
        layer.channels_out,
        layer.size,
        layer.out_size,
        layer.kernel,
        layer.stride,
        layer.padding,
        layer.dilation,
    )


def last(tensor):
    return np.moveaxis(tensor, 1, -1)


@pytest.mark.parametrize("seed", range(40))
def test_a_convolution_reads_rows_tap_by_tap_and_channel_by_channel(seed):
    rng = np.random.default_rng(seed)
    layer = random_layer(rng)
    x, weight = integers(rng, layer.in_shape), integers(rng, layer.weight_shape)
    found = grids_of(layer).gather()
    for group in range(layer.groups):
        ins, outs = channels(group, layer.channels_in), channels(group, layer.channels_out)
        rows = [
            np.concatenate([pixel_of(x[sample, ins], layer.read_by(pixel, tap)) for tap in layer.taps])
            for sample, pixel in product(range(BATCH), grid(layer.out_size))
        ]
        assert (matrix(found.lhs, last(x), group) == np.array(rows)).all(), f"seed {seed}: {layer}"
        columns = [np.concatenate([one[(slice(None), *tap)] for tap in layer.taps]) for one in weight[outs]]
        assert (matrix(found.rhs, last(weight), group) == np.array(columns)).all(), f"seed {seed}: {layer}"


def direct(layer, x, weight):
    out = np.zeros(layer.out_shape, np.int64)
    for group, sample, pixel, tap in product(range(layer.groups), range(BATCH), grid(layer.out_size), layer.taps):
        ins, outs = channels(group, layer.channels_in), channels(group, layer.channels_out)
        read = pixel_of(x[sample, ins], layer.read_by(pixel, tap))
        out[(sample, outs, *pixel)] += weight[outs][(slice(None), slice(None), *tap)] @ read
    return out


@pytest.mark.parametrize("seed", range(40))
def test_a_convolution_writes_its_output(seed):
    rng = np.random.default_rng(seed)
    layer = random_layer(rng)
    x, weight = integers(rng, layer.in_shape), integers(rng, layer.weight_shape)
    out = multiply(grids_of(layer).gather(), last(x), last(weight), np.zeros(last(direct(layer, x, weight)).shape, np.int64))
    assert (out == last(direct(layer, x, weight))).all(), f"seed {seed}: {layer}"


@pytest.mark.parametrize("seed", range(40))
def test_phases_of_the_input_gradient_read_met_taps_in_order(seed):
    rng = np.random.default_rng(seed)
    layer = random_layer(rng)
    grad, weight = integers(rng, layer.out_shape), integers(rng, layer.weight_shape)
    for found in grids_of(layer).scatter():
        pixels = found.lhs.rows[1:]
        for group in range(layer.groups):
            ins, outs = channels(group, layer.channels_in), channels(group, layer.channels_out)
            rows, columns = matrix(found.lhs, last(grad), group), matrix(found.rhs, last(weight), group)
            places, _ = found.out.places(group, np.arange(len(rows)), None, np.zeros(1, np.int64))
            for row, place in zip(rows, places[:, 0], strict=True):
                sample, *pixel, _ = np.unravel_index(place, found.out.shape)
                met = [(tap, layer.written_by(pixel, tap)[1]) for tap in layer.taps if layer.written_by(pixel, tap)[0]]
                expected = np.concatenate([pixel_of(grad[sample, outs], source) for _, source in met])
                assert (row == expected).all(), f"seed {seed}: {layer}, {pixels}"
                expected = np.concatenate([weight[outs][(slice(None), slice(None), *tap)] for tap, _ in met])
                assert (columns == expected.T).all(), f"seed {seed}: {layer}, {ins}"


@pytest.mark.parametrize("seed", range(40))
def test_the_input_gradient_writes_each_pixel_once_and_zeros_the_rest(seed):
    rng = np.random.default_rng(seed)
    layer = random_layer(rng)
    grad, weight = integers(rng, layer.out_shape), integers(rng, layer.weight_shape)
    expected = np.zeros(layer.in_shape, np.int64)
    for group, sample, pixel, tap in product(range(layer.groups), range(BATCH), grid(layer.out_size), layer.taps):
        ins, outs = channels(group, layer.channels_in), channels(group, layer.channels_out)
        read = layer.read_by(pixel, tap)
        if read is not None:
            expected[(sample, ins, *read)] += grad[(sample, outs, *pixel)] @ weight[outs][(slice(None), slice(None), *tap)]
    found, times = np.zeros(last(expected).shape, np.int64), np.zeros(expected.size, np.int64)
    for accesses in grids_of(layer).scatter():
        multiply(accesses, last(grad), last(weight), found)
        for repeat in range(layer.groups):
            times[accesses.out.places(repeat, np.arange(int(np.prod(accesses.out.rows))))[0]] += 1
    for zeros in grids_of(layer).zeros():
        for repeat in range(layer.groups):
            times[zeros.places(repeat, np.arange(int(np.prod(zeros.rows))))[0]] += 1
    assert (found == last(expected)).all(), f"seed {seed}: {layer}"
    assert (times == 1).all(), f"seed {seed}: {layer}"


@pytest.mark.parametrize("seed", range(40))
def test_the_weight_gradient_runs_over_batch_and_pixels(seed):
    rng = np.random.default_rng(seed)
    layer = random_layer(rng)
    x, grad = integers(rng, layer.in_shape), integers(rng, layer.out_shape)
    found = grids_of(layer).weight_grad()
    pixels = list(product(range(BATCH), grid(layer.out_size)))
    for group in range(layer.groups):
        ins, outs = channels(group, layer.channels_in), channels(group, layer.channels_out)
        rows = np.concatenate(
            [
                np.stack([pixel_of(x[sample, ins], layer.read_by(pixel, tap)) for sample, pixel in pixels], axis=1)
                for tap in layer.taps
            ]
        )
        assert (matrix(found.lhs, last(x), group) == rows).all(), f"seed {seed}: {layer}"
        columns = np.stack([grad[(sample, outs, *pixel)] for sample, pixel in pixels], axis=1)
        assert (matrix(found.rhs, last(grad), group) == columns).all(), f"seed {seed}: {layer}"
    dw = multiply(found, last(x), last(grad), np.zeros(found.out.shape, np.int64))
    assert dw.shape == (layer.groups, *layer.kernel, layer.channels_in, layer.channels_out)
    for group in range(layer.groups):
        ins, outs = channels(group, layer.channels_in), channels(group, layer.channels_out)
        for tap in layer.taps:
            expected = sum(
                np.outer(pixel_of(x[sample, ins], layer.read_by(pixel, tap)), grad[(sample, outs, *pixel)])
                for sample, pixel in pixels
            )
            assert (dw[(group, *tap)] == expected).all(), f"seed {seed}: {layer}"


@pytest.mark.parametrize("seed", range(10))
def test_a_transposed_convolution_scatters_forward_and_gathers_backward(seed):
    """Its output is what the gradient of an ordinary convolution from its output to its input would be."""
    rng = np.random.default_rng(seed)
    conv = Conv(
        name="up",
        inputs=("x",),
        in_channels=4,
        out_channels=6,
        in_size=(3, 4),
        kernel=(3, 2),
        stride=(2, 1),
        padding=(1, 0),
        dilation=(1, 2),
        groups=2,
        transposed=True,
        output_padding=(1, 0),
    )
    accesses = LayerAccesses(context_of(conv))
    x, weight = integers(rng, (BATCH, 3, 4, 4)), integers(rng, (4, 3, 2, 3))
    out = np.zeros((BATCH, *conv.out_size, 6), np.int64)
    expected = np.zeros_like(out)
    for sample, pixel, tap, group in product(range(BATCH), grid((3, 4)), grid((3, 2)), range(2)):
        to = (pixel[0] * 2 + tap[0] - 1, pixel[1] + 2 * tap[1])
        if all(0 <= at < size for at, size in zip(to, conv.out_size, strict=True)):
            ins, outs = channels(group, 2), channels(group, 3)
            expected[(sample, *to, outs)] += x[(sample, *pixel, ins)] @ weight[ins][(slice(None), *tap)]
    for part in accesses.forward(conv):
        multiply(part, x, weight, out)
    assert (out == expected).all()
    (back,) = accesses.input_grad(conv)
    grad = integers(rng, out.shape)
    dx = multiply(back, grad, weight, np.zeros_like(x))
    assert (dx * x).sum() == (grad * expected).sum()


# Linear layers.


@pytest.mark.parametrize("rows", [1, 3])
def test_a_linear_layer_reads_rows_of_features(rows):
    rng = np.random.default_rng(rows)
    layer = Linear(name="fc", inputs=("x",), in_features=5, out_features=4, rows=rows)
    accesses = LayerAccesses(context_of(layer))
    x, weight, grad = integers(rng, (BATCH, rows, 5)), integers(rng, (4, 5)), integers(rng, (BATCH, rows, 4))
    (forward,), (backward,) = accesses.forward(layer), accesses.input_grad(layer)
    assert (multiply(forward, x, weight, np.zeros_like(grad)) == x @ weight.T).all()
    assert (multiply(backward, grad, weight, np.zeros_like(x)) == grad @ weight).all()
    dw = multiply(accesses.weight_grad(layer), x, grad, np.zeros((5, 4), np.int64))
    assert (dw == x.reshape(-1, 5).T @ grad.reshape(-1, 4)).all()


def test_a_linear_layer_reads_a_flattened_image_channel_after_channel():
    rng = np.random.default_rng(0)
    conv = Conv(
        name="conv", inputs=("x",), in_channels=2, out_channels=3, in_size=(4, 5), kernel=(1, 1), stride=(2, 1), padding=(0, 0),
        dilation=(1, 1),
    )  # fmt: skip
    layer = Linear(name="fc", inputs=("conv",), in_features=30, out_features=4)
    accesses = LayerAccesses(context_of(conv, layer))
    image, weight, grad = integers(rng, (BATCH, 2, 5, 3)), integers(rng, (4, 30)), integers(rng, (BATCH, 1, 4))
    flat = image.transpose(0, 3, 1, 2).reshape(BATCH, 30)
    (forward,), (backward,) = accesses.forward(layer), accesses.input_grad(layer)
    assert (multiply(forward, image, weight, np.zeros_like(grad))[:, 0] == flat @ weight.T).all()
    dx = multiply(backward, grad, weight, np.zeros_like(image))
    assert (dx.transpose(0, 3, 1, 2).reshape(BATCH, 30) == grad[:, 0] @ weight).all()
    dw = multiply(accesses.weight_grad(layer), image, grad, np.zeros((30, 4), np.int64))
    assert (dw == flat.T @ grad[:, 0]).all()


def test_where_a_bias_lies_depends_on_group_and_column_alone():
    conv = Conv(
        name="conv", inputs=("x",), in_channels=4, out_channels=6, in_size=(4,), kernel=(1,), stride=(1,), padding=(0,),
        dilation=(1,), groups=2,
    )  # fmt: skip
    access = LayerAccesses(context_of(conv)).bias(conv)
    assert access.shape == (6,)
    for group in range(2):
        assert access.places(group, np.arange(5))[0].tolist() == [[3 * group, 3 * group + 1, 3 * group + 2]] * 5


# Products of computed operands.


def split_heads(x, heads):
    return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)


def join_heads(x):
    return x.transpose(0, 2, 1, 3).reshape(x.shape[0], x.shape[2], -1)


@pytest.mark.parametrize(("heads", "kv_heads"), [(3, None), (4, 2), (2, 1)])
def test_attention_multiplies_heads_with_the_key_heads_they_share(heads, kv_heads):
    rng = np.random.default_rng(heads)
    q_len, kv_len, dim, kv = 3, 4, 5, kv_heads or heads
    layer = Attention(
        name="a", inputs=("q", "k", "v"), heads=heads, kv_heads=kv_heads, q_len=q_len, kv_len=kv_len, head_dim=dim
    )
    found = LayerAccesses(context_of(layer, inputs=("q", "k", "v"))).attention(layer)
    query, key, value, out = (
        integers(rng, (BATCH, length, count * dim))
        for length, count in ((q_len, heads), (kv_len, kv), (kv_len, kv), (q_len, heads))
    )
    shares = integers(rng, (BATCH, heads, q_len, kv_len))
    spread = [np.repeat(split_heads(x, kv), heads // kv, axis=1) for x in (key, value)]
    queries, outs = split_heads(query, heads), split_heads(out, heads)
    assert (multiply(found["scores"], query, key, np.zeros_like(shares)) == queries @ spread[0].mT).all()
    assert (multiply(found["context"], shares, value, np.zeros_like(out)) == join_heads(shares @ spread[1])).all()
    assert (multiply(found["probabilities"], out, value, np.zeros_like(shares)) == outs @ spread[1].mT).all()
    assert (multiply(found["query"], shares, key, np.zeros_like(query)) == join_heads(shares @ spread[0])).all()

    def added(x):
        return join_heads(x.reshape(BATCH, kv, heads // kv, kv_len, dim).sum(axis=2))

    assert (multiply(found["value"], shares, out, np.zeros_like(value)) == added(shares.mT @ outs)).all()
    assert (multiply(found["key"], shares, query, np.zeros_like(key)) == added(shares.mT @ queries)).all()


def test_a_product_of_two_tensors_and_its_gradients():
    rng = np.random.default_rng(0)
    layer = Matmul(name="m", inputs=("a", "b"), m=3, n=4, k=5, count=2)
    found = LayerAccesses(context_of(layer, inputs=("a", "b"))).matmul(layer)
    a, b, dy = (integers(rng, (BATCH, 2, *shape)) for shape in ((3, 5), (5, 4), (3, 4)))
    assert (multiply(found[""], a, b, np.zeros_like(dy)) == a @ b).all()
    assert (multiply(found["lhs"], dy, b, np.zeros_like(a)) == dy @ b.mT).all()
    assert (multiply(found["rhs"], a, dy, np.zeros_like(b)) == a.mT @ dy).all()


# What has no access.


def accesses_of(*layers, inputs=("x",)):
    context = context_of(*layers, inputs=inputs)
    step = lower(context.trace, context.options)
    return {(gemm.layer, gemm.stage, gemm.part): (gemm.lhs.access, gemm.rhs.access, gemm.out_access) for gemm in step.gemms}


FC = Linear(name="fc", inputs=("x",), in_features=4, out_features=4)
NOTHING = (None, None, None)


def test_every_product_of_an_ordinary_layer_has_accesses_of_its_own_sizes():
    second = Linear(name="fc2", inputs=("fc",), in_features=4, out_features=3)
    context = context_of(FC, second)
    for gemm in lower(context.trace, context.options).gemms:
        sizes = [int(np.prod(part)) for part in (gemm.lhs.access.rows, gemm.lhs.access.taps, gemm.lhs.access.inner)]
        assert sizes == [gemm.shape.m, gemm.shape.k_taps, gemm.shape.k_inner]
        sizes = [int(np.prod(part)) for part in (gemm.rhs.access.rows, gemm.rhs.access.taps, gemm.rhs.access.inner)]
        assert sizes == [gemm.shape.n, gemm.shape.k_taps, gemm.shape.k_inner]
        sizes = [int(np.prod(part)) for part in (gemm.out_access.rows, gemm.out_access.inner)]
        assert sizes == [gemm.shape.m, gemm.shape.n]


def test_a_part_of_a_tensor_has_no_access():
    part = Linear(name="part", inputs=("fc",), in_features=2, out_features=4)
    assert accesses_of(FC, part)["part", Stage.FORWARD, ""] == NOTHING


def test_several_tensors_side_by_side_have_no_access():
    other = FC.model_copy(update={"name": "fc2"})
    both = Linear(name="both", inputs=("fc", "fc2"), in_features=8, out_features=4)
    assert accesses_of(FC, other, both)["both", Stage.FORWARD, ""] == NOTHING


def test_a_tensor_in_another_order_has_no_access():
    moved = Linear(name="moved", inputs=("fc",), in_features=4, out_features=4, reads_moved=True)
    found = accesses_of(FC, moved)
    assert [found["moved", stage, ""] for stage in (Stage.FORWARD, Stage.INPUT_GRAD, Stage.WEIGHT_GRAD)] == [NOTHING] * 3


def test_the_gradient_of_a_shared_weight_has_no_access():
    first, second = (FC.model_copy(update={"name": name, "weight": "shared"}) for name in ("a", "b"))
    second = second.model_copy(update={"inputs": ("a",)})
    found = accesses_of(first, second)
    assert found["a", Stage.WEIGHT_GRAD, ""] == NOTHING
    assert None not in found["b", Stage.FORWARD, ""]


def test_attention_of_one_tensor_for_all_has_no_access():
    attention = Attention(name="a", inputs=("fc", "fc", "fc"), heads=1, q_len=1, kv_len=1, head_dim=4)
    assert accesses_of(FC, attention)["a", Stage.FORWARD, "scores"] == NOTHING


def test_accesses_do_not_tell_equal_products_apart():
    context = context_of(FC)
    first = lower(context.trace, context.options).gemms[0]
    bare = replace(first, lhs=replace(first.lhs, access=None), rhs=replace(first.rhs, access=None), out_access=None)
    assert first == bare
    assert hash(first) == hash(bare)
