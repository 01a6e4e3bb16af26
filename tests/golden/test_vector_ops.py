"""Every operator of the vector unit: values against PyTorch in float64, bits against plain loops, special values."""

import math
import re
from pathlib import Path

import numpy as np
import pytest
from naive_gemm import fp16_bits, round_fp32

from accel.errors import ConfigError
from accel.golden.numeric import bits
from accel.golden.vector import losses, norms, pooling, tensors, unary
from accel.vector_ops import VECTOR_OPS

torch = pytest.importorskip("torch")
F = torch.nn.functional
pytestmark = pytest.mark.torch

EPS = 1e-5


def fp16(rng, *shape, spread=1.0, centre=0.0):
    return (rng.standard_normal(shape) * spread + centre).astype(np.float16)


def fp32(rng, *shape, spread=1.0, centre=0.0):
    return (rng.standard_normal(shape) * spread + centre).astype(np.float32)


def fp16_of(*patterns):
    return np.array(patterns, np.uint16).view(np.float16)


def differentiate(function, dy, *inputs):
    """Return the float64 results of a torch function: its value and the gradients of its inputs."""
    leaves = [torch.tensor(array.astype(np.float64), requires_grad=True) for array in inputs]
    out = function(*leaves)
    grads = torch.autograd.grad(out, leaves, torch.tensor(dy.astype(np.float64)).reshape(out.shape))
    return out.detach().numpy(), *(grad.numpy() for grad in grads)


def assert_close(actual, exact, ulps, slack=0.0):
    """Compare FP16 results: at most `ulps` units in the last place off, or `slack` of the largest result."""
    assert actual.dtype == np.float16
    assert actual.shape == exact.shape
    unit = np.ldexp(1.0, np.maximum(np.frexp(np.abs(exact))[1] - 11, -24))
    error = np.abs(actual.astype(np.float64) - exact)
    allowed = np.maximum(ulps * unit, slack * np.abs(exact).max())
    assert (error <= allowed).all(), (
        f"off by {(error / unit).max()} units, {(error / np.abs(exact).max()).max()} of the largest"
    )


def assert_close_fp32(actual, exact, tolerance):
    assert actual.dtype == np.float32
    assert actual.shape == exact.shape
    assert np.abs(actual - exact).max() <= tolerance * np.abs(exact).max()


def first(function):
    """Return a torch function of channels-last arrays, given one of channels-first tensors."""
    return lambda x, *rest: function(x.movedim(-1, 1), *rest).movedim(1, -1)


# --- one tensor, element by element

TORCH_UNARY = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "reciprocal": torch.reciprocal,
    **{name: getattr(torch, name) for name in ("sigmoid", "tanh", "exp", "sqrt", "rsqrt", "log", "erf", "abs", "square")},
}
EVERY = np.arange(2**16, dtype=np.uint16).view(np.float16)


@pytest.mark.parametrize("name", unary.UNARY)
def test_unary_of_every_fp16_number_is_the_nearest_but_for_rare_ties(name):
    positive = name in ("sqrt", "rsqrt", "log")
    x = EVERY[np.isfinite(EVERY) & ((EVERY > 0) | (not positive))]
    with np.errstate(over="ignore"):
        exact = TORCH_UNARY[name](torch.tensor(x.astype(np.float64))).numpy()
        nearest = exact.astype(np.float16)
    actual = unary.unary(name, x)
    steps = np.abs(bits(actual).astype(np.int64) - bits(nearest).astype(np.int64))
    assert steps[(exact != 0) & np.isfinite(exact)].max() <= 1
    assert (steps > 0).mean() < 0.001


@pytest.mark.parametrize("name", unary.UNARY)
def test_unary_backward_is_that_of_torch(name):
    rng = np.random.default_rng(1)
    x = fp16(rng, 5000, spread=2)
    x = np.abs(x) + np.float16(0.02) if name in ("sqrt", "rsqrt", "log", "reciprocal") else x
    dy = fp16(rng, 5000)
    operator = unary.UNARY[name]
    if operator.saves == "input":
        _, exact = differentiate(TORCH_UNARY[name], dy, x)
        assert_close(unary.unary_backward(name, dy, x), exact, 0.51)
        return
    y = unary.unary(name, x)
    kept = y.astype(np.float64)
    slopes = {"sigmoid": kept * (1 - kept), "tanh": 1 - kept**2, "exp": kept}
    slopes |= {"sqrt": 0.5 / kept, "reciprocal": -(kept**2), "rsqrt": -0.5 * kept**3}
    assert_close(unary.unary_backward(name, dy, y), dy.astype(float) * slopes[name], 0.51)
    _, exact = differentiate(TORCH_UNARY[name], dy, x)
    assert_close(unary.unary_backward(name, dy, y), exact, 4, slack=2e-3)  # the saved output has been rounded


@pytest.mark.parametrize(
    ("name", "results"),
    [  # of +0, -0, +inf, -inf, NaN
        ("gelu", (0x0000, 0x8000, 0x7C00, 0x7E00, 0x7E00)),
        ("gelu_tanh", (0x0000, 0x8000, 0x7C00, 0x7E00, 0x7E00)),
        ("silu", (0x0000, 0x8000, 0x7C00, 0x7E00, 0x7E00)),
        ("sigmoid", (0x3800, 0x3800, 0x3C00, 0x0000, 0x7E00)),
        ("tanh", (0x0000, 0x8000, 0x3C00, 0xBC00, 0x7E00)),
        ("reciprocal", (0x7C00, 0xFC00, 0x0000, 0x8000, 0x7E00)),
        ("sqrt", (0x0000, 0x8000, 0x7C00, 0x7E00, 0x7E00)),
        ("abs", (0x0000, 0x0000, 0x7C00, 0x7C00, 0x7E00)),
    ],
)
def test_unary_of_special_values(name, results):
    assert bits(unary.unary(name, fp16_of(0, 0x8000, 0x7C00, 0xFC00, 0xFD01))).tolist() == list(results)


def test_an_unknown_unary_operator_is_refused():
    names = [
        "gelu",
        "gelu_tanh",
        "silu",
        "sigmoid",
        "tanh",
        "exp",
        "sqrt",
        "reciprocal",
        "rsqrt",
        "log",
        "erf",
        "abs",
        "square",
    ]
    message = f"name must be one of {', '.join(names)}, not 'mish'"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        unary.unary("mish", EVERY)


def test_gelu_constants_are_the_nearest_fp32_numbers():
    constants = (unary.GELU_CUBIC, unary.GELU_CUBIC_SLOPE, unary.GELU_STEEPNESS, unary.ERF_SLOPE)
    exact = (0.044715, 3 * 0.044715, 2 * math.sqrt(2 / math.pi), 2 / math.sqrt(math.pi))
    assert constants == tuple(np.float32(value) for value in exact)


@pytest.mark.parametrize(("function", "twin"), [(unary.relu, F.relu), (unary.relu6, F.relu6)])
def test_rectifier_is_that_of_torch(function, twin):
    rng = np.random.default_rng(2)
    x, dy = fp16(rng, 1000, spread=6), fp16(rng, 1000)
    x[:4] = 0, -0.0, 6, 7
    y, mask = function(x)
    exact, grad = differentiate(twin, dy, x)
    assert np.array_equal(y, exact.astype(np.float16))
    assert np.array_equal(unary.masked_backward(dy, mask), grad.astype(np.float16))


def test_rectifiers_let_nan_through_and_no_gradient_where_they_cut():
    x, infinite = fp16_of(0xFE01, 0xFC00, 0x7C00, 0x8000), fp16_of(0x7C00, 0x7C00, 0x7C00, 0x7E00)
    y, mask = unary.relu(x)
    assert bits(y).tolist() == [0x7E00, 0, 0x7C00, 0]
    assert bits(unary.masked_backward(infinite, mask)).tolist() == [0x7C00, 0, 0x7C00, 0]
    y, mask = unary.relu6(x)
    assert bits(y).tolist() == [0x7E00, 0, 0x4600, 0]
    assert bits(unary.masked_backward(infinite, mask)).tolist() == [0x7C00, 0, 0, 0]


def test_dropout_scales_what_stays():
    x, mask = fp16_of(0x3C00, 0xBC00, 0x7C00, 0x7E00), np.array([True, True, False, False])
    assert unary.dropout(x, mask, 0.75).tolist() == [4, -4, 0, 0]
    assert bits(unary.dropout(x, mask, 0.1))[:2].tolist() == [fp16_bits(1 / 0.9), fp16_bits(-1 / 0.9)]
    with pytest.raises(ConfigError, match=r"^drop_frac must be at least 0 and less than 1, not 1$"):
        unary.dropout(x, mask, 1)


# --- several tensors


def test_sums_of_fp16_tensors_are_rounded_once_in_effect():
    rng = np.random.default_rng(3)
    left, right = (rng.integers(0, 2**16, 20000, dtype=np.uint16).view(np.float16) for _ in range(2))
    with np.errstate(all="ignore"):
        exact = left.astype(np.float64) + right.astype(np.float64)
        expected = [fp16_bits(value) for value in exact.tolist()]
        products = [fp16_bits(value) for value in (left.astype(np.float64) * right.astype(np.float64)).tolist()]
    assert bits(tensors.add(left, right)).tolist() == expected
    assert bits(tensors.mul(left, right)).tolist() == products


def test_gradients_are_added_one_after_the_other_in_fp16():
    one, small = fp16_of(0x3C00), fp16_of(0x1000)  # 1 and 2**-11: a tie each time
    assert tensors.add_gradients(one, small, small) == 1
    assert tensors.add_gradients(small, small, one) == 1 + 2.0**-10


def test_bias_and_scale_take_fp32_numbers():
    x = fp16_of(0x3C00, 0x3C00).reshape(1, 2)
    assert bits(tensors.bias_add(x, np.float32([2.0**-11 + 2.0**-20, 2.0**-11]))).tolist() == [[0x3C01, 0x3C00]]
    assert bits(tensors.bias_add(-x * 0, np.float32([-1e-45, 1e-45]))).tolist() == [[0x8000, 0]]  # subnormal: a zero
    assert bits(tensors.scale(x, 1 / 3)).tolist() == [[0x3555, 0x3555]]
    assert bits(tensors.scale(x, -1.0)).tolist() == [[0xBC00, 0xBC00]]


def test_gradients_of_broadcast_operands_are_summed():
    rng = np.random.default_rng(4)
    x, gate, weight, dy = fp16(rng, 3, 4, 5, 6), fp16(rng, 3, 1, 1, 6), fp32(rng, 6), fp16(rng, 3, 4, 5, 6)
    _, to_x, to_gate = differentiate(lambda a, b: a * b, dy, x, gate)
    grads = tensors.mul_backward(dy, x, gate)
    assert_close(grads[0], to_x, 0.51)
    assert_close(grads[1], to_gate, 0.52)
    _, _, to_weight = differentiate(lambda a, b: a * b, dy, x, weight)
    assert_close_fp32(tensors.mul_backward(dy, x, weight)[1], to_weight, 1e-6)
    _, _, to_gate = differentiate(lambda a, b: a + b, dy, x, gate)
    assert_close(tensors.sum_to(dy, gate), to_gate, 0.52)
    assert_close_fp32(tensors.sum_to(dy, weight), dy.astype(float).sum((0, 1, 2)), 1e-6)
    assert np.array_equal(tensors.sum_to(dy, x), dy)
    assert np.array_equal(tensors.bias_grad(dy), tensors.sum_to(dy, weight))


def test_reductions_are_those_of_torch():
    rng = np.random.default_rng(5)
    x, dy = fp16(rng, 3, 4, 5, 6), fp16(rng, 3, 6)
    exact, grad = differentiate(lambda a: a.sum((1, 2)), dy, x)
    assert_close(tensors.reduce_sum(x, (1, 2)), exact, 0.52)
    assert np.array_equal(tensors.reduce_sum_backward(dy, x.shape, (1, 2)), grad.astype(np.float16))
    exact, grad = differentiate(lambda a: a.mean((1, 2)), dy, x)
    assert_close(tensors.reduce_mean(x, (-2, 1)), exact, 0.52)
    assert_close(tensors.reduce_mean_backward(dy, x.shape, (1, 2)), grad, 0.51)


def test_sums_over_axes_are_row_major():
    x = np.zeros((2, 2, 2, 1), np.float16)
    x[0, 0, 0], x[0, 0, 1], x[1, 1, 1] = 2**-24, 2**14, -(2**14)  # the first is lost in the second
    assert tensors.reduce_sum(x, (0, 1, 2)) == 0
    x[0, 0, 0], x[1, 1, 1], x[1, 1, 0] = 0, 2**-24, -(2**14)  # the last comes last
    assert tensors.reduce_sum(x, (2, 0, 1)) == 2**-24


def test_embedding_is_that_of_torch():
    rng = np.random.default_rng(6)
    table, index, dy = fp32(rng, 11, 4), rng.integers(0, 11, (5, 7)), fp16(rng, 5, 7, 4)
    index[index == 3] = 4
    exact, grad = differentiate(lambda weight: F.embedding(torch.tensor(index), weight), dy, table)
    assert np.array_equal(tensors.embedding(table, index), exact.astype(np.float16))
    assert_close_fp32(tensors.embedding_grad(dy, index, 11), grad, 1e-6)
    assert bits(tensors.embedding_grad(dy, index, 11)[3]).tolist() == [0] * 4
    assert not tensors.embedding_grad(dy[:0], index[:0], 11).any()


def test_embedding_adds_a_row_s_tokens_in_ascending_order():
    rng, index = np.random.default_rng(22), np.arange(400) % 2
    dy = fp16(rng, 400, 3, spread=2.0 ** rng.integers(-14, 12, (400, 3)))
    grad = tensors.embedding_grad(dy, index, 2)
    for row in range(2):
        for column in range(3):
            assert float(grad[row, column]) == dot(dy[row::2, column].astype(float).tolist(), [1.0] * 200)


# --- norms


def rounded(value):
    """Return a Python float as the unit's FP32."""
    fp32_value = round_fp32(value)
    return math.copysign(0.0, fp32_value) if abs(fp32_value) < 2.0**-126 else fp32_value


def dot(left, right):
    total = 0.0
    for a, b in zip(left, right, strict=True):
        total = rounded(total + rounded(a * b))
    return total


def statistics_naive(values, eps):
    ones = [1.0] * len(values)
    mean = rounded(dot(values, ones) / len(values))
    squares = rounded(dot(values, values) / len(values))
    variance = max(rounded(squares - rounded(mean * mean)), 0.0)
    return mean, rounded(1 / rounded(math.sqrt(rounded(variance + eps))))


def unit_naive(values, mean, inverse):
    offset = -rounded(mean * inverse)
    return [rounded(rounded(value * inverse) + offset) for value in values]


def input_grad_naive(grads, factor, unit, slope, level):
    return [
        fp16_bits(rounded(rounded(g * factor) - rounded(rounded(u * slope) + level))) for g, u in zip(grads, unit, strict=True)
    ]


def test_batch_norm_has_the_bits_of_plain_loops():
    rng = np.random.default_rng(7)
    x = fp16(rng, 2, 3, 3, 32, spread=3, centre=2)
    dy = (1000 + 300 * x.astype(np.float32)).astype(np.float16)  # dx is then what rounding leaves: FP16 shows FP32's last bits
    gamma, beta = fp32(rng, 32), fp32(rng, 32)
    y, stats = norms.batch_norm(x, gamma, beta, EPS)
    dx, dgamma, dbeta = norms.batch_norm_backward(dy, x, gamma, stats)
    for channel in range(32):
        column, grads = x[..., channel].ravel().astype(float).tolist(), dy[..., channel].ravel().astype(float).tolist()
        mean, inverse = statistics_naive(column, float(np.float32(EPS)))
        factor = rounded(float(gamma[channel]) * inverse)
        shift = rounded(float(beta[channel]) - rounded(mean * factor))
        assert bits(y[..., channel].ravel()).tolist() == [fp16_bits(rounded(rounded(v * factor) + shift)) for v in column]
        unit = unit_naive(column, mean, inverse)
        sums = dot(grads, unit), dot(grads, [1.0] * 18)
        assert (float(dgamma[channel]), float(dbeta[channel])) == sums
        slope, level = (rounded(factor * rounded(total / 18)) for total in sums)
        assert bits(dx[..., channel].ravel()).tolist() == input_grad_naive(grads, factor, unit, slope, level)


def test_layer_norm_has_the_bits_of_plain_loops():
    rng = np.random.default_rng(8)
    x, gamma, beta = fp16(rng, 30, 2, 10, centre=1), fp32(rng, 10, centre=1), fp32(rng, 10)
    dy = ((1000 + 300 * x.astype(np.float32)) / gamma).astype(np.float16)  # as above
    y, stats = norms.layer_norm(x, gamma, beta, EPS)
    dx, dgamma, dbeta = norms.layer_norm_backward(dy, x, gamma, stats)
    units = []
    for row in np.ndindex(30, 2):
        values, grads = x[row].astype(float).tolist(), dy[row].astype(float).tolist()
        mean, inverse = statistics_naive(values, float(np.float32(EPS)))
        unit = unit_naive(values, mean, inverse)
        affine = zip(unit, gamma.tolist(), beta.tolist(), strict=True)
        assert bits(y[row]).tolist() == [fp16_bits(rounded(rounded(u * g) + b)) for u, g, b in affine]
        scaled = [rounded(d * g) for d, g in zip(grads, gamma.tolist(), strict=True)]
        slope, level = (rounded(inverse * rounded(dot(scaled, other) / 10)) for other in (unit, [1.0] * 10))
        assert bits(dx[row]).tolist() == input_grad_naive(scaled, inverse, unit, slope, level)
        units.append(unit)
    for column, grads in enumerate(dy.reshape(60, 10).T.astype(float).tolist()):
        assert float(dgamma[column]) == dot(grads, [unit[column] for unit in units])
        assert float(dbeta[column]) == dot(grads, [1.0] * 60)


def test_batch_norm_is_that_of_torch_and_so_are_its_running_statistics():
    rng = np.random.default_rng(9)
    x, dy = fp16(rng, 8, 7, 6, 5, spread=2, centre=1), fp16(rng, 8, 7, 6, 5)
    gamma, beta = fp32(rng, 5), fp32(rng, 5)
    running = [torch.zeros(5, dtype=torch.float64), torch.ones(5, dtype=torch.float64)]
    twin = first(lambda a, g, b: F.batch_norm(a, *running, g, b, training=True, momentum=0.1, eps=EPS))
    exact = differentiate(twin, dy, x, gamma, beta)
    y, stats = norms.batch_norm(x, gamma, beta, EPS)
    grads = norms.batch_norm_backward(dy, x, gamma, stats)
    assert_close(y, exact[0], 0.51, slack=1e-6)
    assert_close(grads[0], exact[1], 0.51, slack=1e-6)
    assert_close_fp32(grads[1], exact[2], 2e-6)
    assert_close_fp32(grads[2], exact[3], 2e-6)
    kept = norms.update_running(np.zeros(5, np.float32), np.ones(5, np.float32), stats, 8 * 7 * 6, 0.1)
    assert_close_fp32(kept[0], running[0].numpy(), 2e-6)
    assert_close_fp32(kept[1], running[1].numpy(), 2e-6)
    fixed = norms.fixed_statistics(*kept, EPS)
    evaluated = first(lambda a: F.batch_norm(a, *running, torch.tensor(gamma).double(), torch.tensor(beta).double(), eps=EPS))
    assert_close(norms.normalize_channels(x, gamma, beta, fixed), differentiate(evaluated, dy, x)[0], 0.51, slack=1e-6)


def test_running_statistics_of_one_row_are_refused():
    stats = norms.Statistics(np.zeros(1, np.float32), np.zeros(1, np.float32), np.ones(1, np.float32))
    with pytest.raises(ConfigError, match=r"^rows must be at least 2, not 1; one value has no variance$"):
        norms.update_running(stats.mean, stats.inverse, stats, 1, 0.1)


@pytest.mark.parametrize("groups", [1, 3, 6])
def test_group_norm_is_that_of_torch(groups):
    rng = np.random.default_rng(10)
    x, dy, gamma, beta = fp16(rng, 4, 5, 3, 6, centre=1), fp16(rng, 4, 5, 3, 6), fp32(rng, 6), fp32(rng, 6)
    exact = differentiate(first(lambda a, g, b: F.group_norm(a, groups, g, b, EPS)), dy, x, gamma, beta)
    y, stats = norms.group_norm(x, gamma, beta, groups, EPS)
    grads = norms.group_norm_backward(dy, x, gamma, groups, stats)
    assert_close(y, exact[0], 0.51, slack=1e-6)
    assert_close(grads[0], exact[1], 0.51, slack=2e-6)
    assert_close_fp32(grads[1], exact[2], 2e-6)
    assert_close_fp32(grads[2], exact[3], 2e-6)


def test_group_norm_of_one_sample_with_a_channel_a_group_is_the_batch_norm():
    rng = np.random.default_rng(11)
    x, gamma, beta = fp16(rng, 1, 5, 3, 6), fp32(rng, 6), fp32(rng, 6)
    (y, stats), (other, others) = norms.group_norm(x, gamma, beta, 6, EPS), norms.batch_norm(x, gamma, beta, EPS)
    assert np.array_equal(bits(y), bits(other))
    assert np.array_equal(bits(stats.inverse[0]), bits(others.inverse))


def test_groups_that_do_not_divide_the_channels_are_refused():
    x, gamma = np.zeros((1, 2, 6), np.float16), np.ones(6, np.float32)
    with pytest.raises(ConfigError, match=r"^groups must divide the channels \(6\), not 4$"):
        norms.group_norm(x, gamma, gamma, 4, EPS)


def test_layer_and_rms_norm_are_those_of_torch():
    rng = np.random.default_rng(12)
    x, dy, gamma, beta = fp16(rng, 4, 5, 32, centre=1), fp16(rng, 4, 5, 32), fp32(rng, 32), fp32(rng, 32)
    exact = differentiate(lambda a, g, b: F.layer_norm(a, (32,), g, b, EPS), dy, x, gamma, beta)
    y, stats = norms.layer_norm(x, gamma, beta, EPS)
    grads = norms.layer_norm_backward(dy, x, gamma, stats)
    assert_close(y, exact[0], 0.51, slack=1e-6)
    assert_close(grads[0], exact[1], 0.51, slack=2e-6)
    assert_close_fp32(grads[1], exact[2], 2e-6)
    assert_close_fp32(grads[2], exact[3], 2e-6)
    exact = differentiate(lambda a, g: F.rms_norm(a, (32,), g, EPS), dy, x, gamma)
    y, inverse = norms.rms_norm(x, gamma, EPS)
    dx, dgamma = norms.rms_norm_backward(dy, x, gamma, inverse)
    assert_close(y, exact[0], 0.51)
    assert_close(dx, exact[1], 0.51, slack=2e-6)
    assert_close_fp32(dgamma, exact[2], 2e-6)


def test_norms_of_constants_are_their_shift_and_of_nan_are_nan():
    gamma, beta = np.ones(4, np.float32), np.float32([0, -1, 2, 3])
    flat = np.full((2, 3, 4), 0.1, np.float16)
    for y in (norms.batch_norm(flat, gamma, beta, 1e-3)[0], norms.layer_norm(flat, gamma, beta, 1e-3)[0]):
        assert np.abs(y - beta).max() < 2e-3
    flat[0, 0, 0] = np.nan
    assert set(bits(norms.batch_norm(flat, gamma, beta, EPS)[0][..., 0]).ravel().tolist()) == {0x7E00}
    assert set(bits(norms.layer_norm(flat, gamma, beta, EPS)[0][0, 0]).tolist()) == {0x7E00}


def test_variance_that_rounds_below_zero_is_zero():
    columns = np.arange(0x3C00, 0x4000, dtype=np.uint16).view(np.float16)
    values = columns.astype(np.float32)
    rows, number = np.stack([values] * 37), np.float32(37)
    mean, squares = (np.add.accumulate(terms, axis=0)[-1] / number for terms in (rows, rows * rows))
    is_below = squares - mean * mean < 0
    assert is_below.sum() > 10
    ones = np.ones(len(columns), np.float32)
    _, stats = norms.batch_norm(np.stack([columns] * 37), ones, ones, EPS)
    assert not bits(stats.variance[is_below]).any()


# --- softmax and losses


def test_softmax_is_that_of_torch():
    rng = np.random.default_rng(13)
    x, dy = fp16(rng, 3, 6, 8, spread=4), fp16(rng, 3, 6, 8)
    exact, _ = differentiate(lambda a: a.softmax(-1), dy, x)
    y = losses.softmax(x)
    assert_close(y, exact, 0.51)
    share, grad = y.astype(float), dy.astype(float)
    assert_close(losses.softmax_backward(dy, y), share * (grad - (share * grad).sum(-1, keepdims=True)), 0.51, slack=1e-6)
    exact, _ = differentiate(lambda a: a.log_softmax(-1), dy, x)
    y = losses.log_softmax(x)
    assert_close(y, exact, 0.51, slack=1e-6)
    exact = grad - np.exp(y.astype(float)) * grad.sum(-1, keepdims=True)
    assert_close(losses.log_softmax_backward(dy, y), exact, 0.51, slack=1e-6)


def test_softmax_has_the_bits_of_plain_loops():
    rng = np.random.default_rng(14)
    x, dy = fp16(rng, 6, 9, spread=4), fp16(rng, 6, 9)
    y = losses.softmax(x)
    dx = losses.softmax_backward(dy, y)
    for row in range(6):
        values = x[row].astype(float).tolist()
        powers = losses.exp(np.float32([value - max(values) for value in values])).astype(float).tolist()
        factor = rounded(1 / dot(powers, [1.0] * 9))
        assert bits(y[row]).tolist() == [fp16_bits(rounded(power * factor)) for power in powers]
        shares, grads = y[row].astype(float).tolist(), dy[row].astype(float).tolist()
        total = dot(grads, shares)
        expected = [fp16_bits(rounded(s * rounded(g - total))) for s, g in zip(shares, grads, strict=True)]
        assert bits(dx[row]).tolist() == expected


def test_masked_softmax_is_that_of_what_is_kept():
    rng = np.random.default_rng(15)
    x, dy = fp16(rng, 2, 5, 7), fp16(rng, 2, 5, 7)
    x[0, 0, 6] = np.nan  # hidden
    dy[0, 0, 6] = np.inf
    kept = losses.causal_mask(5, 7)
    y = losses.softmax(x, kept)
    dx = losses.softmax_backward(dy, y, kept)
    for query in range(5):
        seen = slice(0, query + 1)
        assert np.array_equal(bits(y[:, query, seen]), bits(losses.softmax(x[:, query, seen])))
        assert np.array_equal(bits(dx[:, query, seen]), bits(losses.softmax_backward(dy[:, query, seen], y[:, query, seen])))
        assert not bits(y[:, query, query + 1 :]).any()
        assert not bits(dx[:, query, query + 1 :]).any()
    assert not bits(losses.softmax(x, np.zeros((5, 7), bool))).any()


def test_softmax_of_special_values():
    nan, infinite = fp16_of(0x7E00), fp16_of(0xFC00)
    one = fp16_of(0x3C00)
    assert bits(losses.softmax(np.concatenate([one, infinite, one]))).tolist() == [0x3800, 0, 0x3800]
    assert set(bits(losses.softmax(np.concatenate([one, nan, infinite]))).tolist()) == {0x7E00}
    assert set(bits(losses.softmax(np.concatenate([infinite, infinite]))).tolist()) == {0x7E00}
    assert losses.softmax(fp16_of(0x7BFF, 0xFBFF)).tolist() == [1, 0]


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_that_of_torch(smoothing):
    rng = np.random.default_rng(16)
    x, labels = fp16(rng, 40, 12, spread=3), rng.integers(0, 12, 40)
    options = {"target": torch.tensor(labels), "label_smoothing": smoothing}
    exact, grad = differentiate(lambda a: F.cross_entropy(a, **options), np.float64(1024), x)
    loss = losses.cross_entropy(x, labels, smoothing)
    assert loss.shape == ()
    assert_close_fp32(loss, exact, 1e-6)
    assert_close(losses.cross_entropy_backward(x, labels, smoothing, 1024), grad, 0.51, slack=1e-6)


def test_loss_of_one_class_is_zero_and_of_infinite_logits_nan():
    x, labels = fp16_of(0x4000, 0xC000).reshape(2, 1), np.array([0, 0])
    assert bits(losses.cross_entropy(x, labels)) == 0
    assert not bits(losses.cross_entropy_backward(x, labels)).any()
    x = fp16_of(0x7C00, 0x3C00).reshape(1, 2)
    assert bits(losses.cross_entropy(x, labels[:1])) == 0x7FC00000
    assert set(bits(losses.cross_entropy_backward(x, labels[:1])).ravel().tolist()) == {0x7E00}


def test_scaled_gradient_of_a_loss_overflows_to_infinity():
    x, labels = fp16_of(0x3C00, 0x3C00).reshape(1, 2), np.array([1])
    assert bits(losses.cross_entropy_backward(x, labels, loss_scale=2.0**18)).tolist() == [[0x7C00, 0xFC00]]


def test_wrong_labels_and_smoothing_are_refused():
    x = np.zeros((2, 3), np.float16)
    with pytest.raises(ConfigError, match=r"^labels must be at least 0 and less than the classes \(3\), not 3$"):
        losses.cross_entropy(x, np.array([0, 3]))
    with pytest.raises(ConfigError, match=r"^smoothing must be between 0 and 1, not 1\.5$"):
        losses.cross_entropy_backward(x, np.array([0, 1]), 1.5)


def test_mse_loss_is_that_of_torch():
    rng = np.random.default_rng(17)
    x, target = fp16(rng, 6, 7), fp32(rng, 6, 7)
    exact, grad = differentiate(lambda a: F.mse_loss(a, torch.tensor(target).double()), np.float64(256), x)
    assert_close_fp32(losses.mse_loss(x, target), exact, 1e-6)
    assert_close(losses.mse_loss_backward(x, target, 256), grad, 0.51, slack=1e-6)


# --- pooling

POOLINGS = [  # sizes, kernel, stride, padding, ceil_mode
    ((8, 8), (2, 2), (2, 2), (0, 0), False),
    ((9, 7), (3, 3), (2, 2), (1, 1), False),
    ((9, 7), (3, 2), (1, 3), (1, 0), True),
    ((6, 6), (3, 3), (2, 2), (0, 0), True),
    ((5,), (3,), (1,), (1,), False),
    ((4, 5, 6), (2, 3, 2), (2, 1, 2), (0, 1, 1), True),
]


@pytest.mark.parametrize("case", POOLINGS)
@pytest.mark.parametrize("count_padding", [True, False])
def test_average_pooling_is_that_of_torch(case, count_padding):
    sizes, kernel, stride, padding, ceil_mode = case
    rng = np.random.default_rng(18)
    x, windows = fp16(rng, 2, *sizes, 3), pooling.sliding(*case[:4], ceil_mode=ceil_mode)
    y = pooling.avg_pool(x, windows, count_padding)
    dy = fp16(rng, *y.shape)
    options = {"ceil_mode": ceil_mode, "count_include_pad": count_padding}
    twin = first(lambda a: getattr(F, f"avg_pool{len(sizes)}d")(a, kernel, stride, padding, **options))
    exact, grad = differentiate(twin, dy, x)
    assert_close(y, exact, 0.51, slack=1e-6)
    assert_close(pooling.avg_pool_backward(dy, windows, count_padding), grad, 0.51, slack=1e-6)


@pytest.mark.parametrize("case", POOLINGS)
@pytest.mark.parametrize("dilation", [1, 2])
def test_max_pooling_is_that_of_torch(case, dilation):
    sizes, kernel, stride, padding, ceil_mode = case
    rng = np.random.default_rng(19)
    x = rng.integers(-3, 4, (2, *sizes, 3)).astype(np.float16)  # many ties
    windows = pooling.sliding(*case[:4], [dilation] * len(sizes), ceil_mode)
    y, index = pooling.max_pool(x, windows)
    assert index.dtype == np.uint8
    dy = fp16(rng, *y.shape)
    twin = first(lambda a: getattr(F, f"max_pool{len(sizes)}d")(a, kernel, stride, padding, dilation, ceil_mode))
    exact, grad = differentiate(twin, dy, x)
    assert np.array_equal(y, exact.astype(np.float16))
    assert_close(pooling.max_pool_backward(dy, index, windows), grad, 0.51, slack=1e-6)


@pytest.mark.parametrize(("size", "outputs"), [((7, 5), (1, 1)), ((7, 5), (3, 2)), ((4, 3), (6, 3))])
def test_adaptive_pooling_is_that_of_torch(size, outputs):
    rng = np.random.default_rng(20)
    x, dy, windows = fp16(rng, 2, *size, 3), fp16(rng, 2, *outputs, 3), pooling.adaptive(size, outputs)
    exact, grad = differentiate(first(lambda a: F.adaptive_avg_pool2d(a, outputs)), dy, x)
    assert_close(pooling.avg_pool(x, windows), exact, 0.51, slack=1e-6)
    assert_close(pooling.avg_pool_backward(dy, windows), grad, 0.51, slack=1e-6)
    exact, grad = differentiate(first(lambda a: F.adaptive_max_pool2d(a, outputs)), dy, x)
    y, index = pooling.max_pool(x, windows)
    assert np.array_equal(y, exact.astype(np.float16))
    assert_close(pooling.max_pool_backward(dy, index, windows), grad, 0.51, slack=1e-6)


@pytest.mark.parametrize(("size", "outputs"), [((3, 4), (6, 8)), ((5, 4), (7, 9)), ((6, 6), (3, 2))])
def test_nearest_interpolation_is_that_of_torch(size, outputs):
    rng = np.random.default_rng(21)
    x, dy, windows = fp16(rng, 2, *size, 3), fp16(rng, 2, *outputs, 3), pooling.nearest(size, outputs)
    exact, grad = differentiate(first(lambda a: F.interpolate(a, outputs)), dy, x)
    assert np.array_equal(pooling.interpolate_nearest(x, windows), exact.astype(np.float16))
    assert_close(pooling.interpolate_nearest_backward(dy, windows), grad, 0.51, slack=1e-6)


def pool_row(*patterns):
    """Return the maximum and its tap over one window of all of these."""
    windows = pooling.sliding((len(patterns),), (len(patterns),), (1,), (0,))
    y, index = pooling.max_pool(fp16_of(*patterns).reshape(1, -1, 1), windows)
    return int(bits(y).item()), int(index.item())


def test_the_first_of_equals_wins_and_a_nan_above_all():
    assert pool_row(0x3C00, 0x4000, 0x4000) == (0x4000, 1)
    assert pool_row(0x8000, 0x0000) == (0x8000, 0)
    assert pool_row(0xFC00, 0xFC00) == (0xFC00, 0)
    assert pool_row(0x7C00, 0xFE01, 0x7E00, 0x7C00) == (0x7E00, 1)


def test_pooled_gradients_are_added_in_ascending_order_of_outputs():
    windows = pooling.sliding((3,), (3,), (1,), (1,))
    index = np.array([2, 1, 0], np.uint8).reshape(1, 3, 1)  # all three outputs took input 1
    for values, total in (((2**-24, 2**14, -(2**14)), 0), ((2**14, -(2**14), 2**-24), 2**-24)):
        dy = np.array(values, np.float16).reshape(1, 3, 1)
        assert pooling.max_pool_backward(dy, index, windows).ravel().tolist() == [0, total, 0]


def test_windows_that_cannot_be_are_refused():
    with pytest.raises(ConfigError, match=r"^padding must be at least 0 and at most half the kernel \(2\), not 2$"):
        pooling.sliding((4,), (2,), (1,), (2,))
    with pytest.raises(ConfigError, match=r"^windows must have at most 256 taps, not 289; the index has 8 bits$"):
        pooling.max_pool(np.zeros((1, 17, 17, 1), np.float16), pooling.adaptive((17, 17), (1, 1)))


def test_the_document_has_a_row_for_every_operator():
    text = (Path(__file__).parents[2] / "docs" / "numerics.md").read_text()
    rows = re.findall(r"^\| `(\w+)`[^|]* \|", text, re.M)
    assert set(VECTOR_OPS) <= set(rows)
