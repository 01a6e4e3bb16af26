"""What each PyTorch operator becomes: tables of operators that are alike, and the rules of their families."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from math import prod
from typing import Any

from accel.models.lower import Lowering, Rule
from accel.models.products import PRODUCTS
from accel.models.records import Call, Ref
from accel.models.values import Value
from accel.units import ceil_div
from accel.vector_ops import VectorOpName


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


VIEWS = _words(
    """
    alias as_strided chunk contiguous detach diagonal expand expand_as flatten getitem hsplit lift_fresh_copy mH mT
    matrix_H movedim moveaxis narrow numpy_T permute positive ravel real reshape reshape_as select slice split
    split_with_sizes squeeze swapaxes swapdims t tensor_split to transpose unbind unflatten unfold unsqueeze view view_as vsplit
    """
)
"""They name the elements of a tensor anew: writing into the result writes into the tensor."""

FRESH = _words("new_empty new_full new_ones new_zeros ones_like zeros_like empty_like full_like rand_like randn_like zero fill")
"""They take the sizes of a tensor and not its values; random tensors count as given."""

MOVES = _words(
    """
    _to_copy _unsafe_view cat channel_shuffle clone concat constant_pad_nd copy flip hstack lift meshgrid pad pixel_shuffle
    pixel_unshuffle reflection_pad1d reflection_pad2d reflection_pad3d repeat repeat_interleave replication_pad1d
    replication_pad2d replication_pad3d roll rot90 stack tile type_as vstack
    """
)
"""They only move data: whoever reads the result addresses it accordingly."""

_ONE_OPERATION = """
    abs addcdiv addcmul bitwise_and bitwise_not bitwise_or bitwise_xor ceil clamp clamp_max clamp_min clip cummax cumprod
    cumsum diff eq floor floor_divide fmax fmin fmod frac ge gt isfinite isinf isnan le lerp logical_and logical_not
    logical_or logical_xor lt masked_fill maximum minimum nan_to_num ne one_hot pow remainder round sgn sign square tril
    triu trunc where __and__ __or__ __xor__ __lshift__ __rshift__ softsign isin bucketize
    """
_OUTPUT_GIVES_DERIVATIVE = "sigmoid exp expm1 exp2 rsqrt sqrt reciprocal"
_INPUT_GIVES_DERIVATIVE = """
    silu glu log log1p log2 log10 log_sigmoid softplus elu selu celu mish hardswish erf sin cos tan atan atan2 logaddexp xlogy
    """

SAME_SIZE: dict[str, VectorOpName] = {
    **dict.fromkeys(_words("relu leaky_relu threshold rrelu hardshrink softshrink"), "relu"),
    **dict.fromkeys(_words("relu6 hardtanh hardsigmoid"), "relu6"),
    "gelu": "gelu",
    "tanh": "tanh",
    "neg": "scale",
    # One elementary function and little else costs as much as the one we know that keeps the same for its backward pass.
    **dict.fromkeys(_words(_OUTPUT_GIVES_DERIVATIVE), "sigmoid"),
    **dict.fromkeys(_words(_INPUT_GIVES_DERIVATIVE), "silu"),
    **dict.fromkeys(_words("softmax _softmax log_softmax _log_softmax softmin"), "softmax"),
    **dict.fromkeys(_words(_ONE_OPERATION), "elementwise"),
}
"""Operators with one result per element."""

ADDS = _words("add sub rsub subtract")
MULS = _words("mul div true_divide multiply divide")
DROPOUTS = _words("dropout alpha_dropout feature_dropout feature_alpha_dropout native_dropout")
NORMS: dict[str, VectorOpName] = {
    "layer_norm": "layer_norm",
    "native_layer_norm": "layer_norm",
    "group_norm": "group_norm",
    "native_group_norm": "group_norm",
    "instance_norm": "group_norm",
    "rms_norm": "rms_norm",
    "_fused_rms_norm": "rms_norm",
}
REDUCTIONS = _words(
    """
    all amax amin aminmax any argmax argmin count_nonzero linalg_vector_norm logsumexp max mean min nansum nanmean norm prod
    std std_mean sum var var_mean
    """
)
TAPS = {
    "upsample_nearest1d": 1, "upsample_nearest2d": 1, "upsample_nearest3d": 1, "_upsample_nearest_exact1d": 1,
    "_upsample_nearest_exact2d": 1, "_upsample_nearest_exact3d": 1, "upsample_linear1d": 2, "upsample_bilinear2d": 4,
    "_upsample_bilinear2d_aa": 4, "upsample_trilinear3d": 8, "upsample_bicubic2d": 16, "_upsample_bicubic2d_aa": 16,
    "grid_sampler": 4, "grid_sampler_2d": 4, "grid_sampler_3d": 8, "im2col": 1,
}  # fmt: skip
"""Elements of the input that each result is interpolated from."""

POOLS: dict[str, VectorOpName] = {
    **{f"max_pool{dims}d{form}": "max_pool" for dims in (1, 2, 3) for form in ("", "_with_indices")},
    **{f"avg_pool{dims}d": "avg_pool" for dims in (1, 2, 3)},
}
ADAPTIVE_POOLS: dict[str, VectorOpName] = {
    **{f"adaptive_max_pool{dims}d": "max_pool" for dims in (1, 2, 3)},
    **{f"adaptive_avg_pool{dims}d": "avg_pool" for dims in (1, 2, 3)},
    **{f"_adaptive_avg_pool{dims}d": "avg_pool" for dims in (2, 3)},
}
LOSSES: dict[str, VectorOpName] = {
    "mse_loss": "mse_loss", "l1_loss": "mse_loss", "smooth_l1_loss": "mse_loss", "huber_loss": "mse_loss",
    "binary_cross_entropy": "cross_entropy", "binary_cross_entropy_with_logits": "cross_entropy", "kl_div": "cross_entropy",
}  # fmt: skip
"""Losses that look at every element of their input and target."""


def _move(low: Lowering, call: Call) -> Value:
    """Return the operand under another name."""
    if call.op in FRESH:
        return Value((), spread=any(value.batched or value.spread for value in low.operands(call)))
    return low.value(call.args["src"]) if call.op == "copy" else low.join(low.operands(call))


def _detach(low: Lowering, call: Call) -> Value:
    return _move(low, call).cut()


def _same_size(low: Lowering, call: Call, op: VectorOpName) -> Value:
    return low.vector(call, op, low.operands(call), named_after_param=False)


def _arithmetic(low: Lowering, call: Call, op: VectorOpName) -> Value:
    return low.vector(call, op, low.operands(call))


def _mul(low: Lowering, call: Call) -> Value:
    """Two operands that change make a product, whose gradients need both; one makes a scaling."""
    operands = low.operands(call)
    changing = sum(value.batched or value.trains for value in operands)
    return low.vector(call, "mul" if changing > 1 else "scale", operands)


def _dropout(low: Lowering, call: Call) -> Value:
    args = call.args
    if not args.get("train", args.get("training", True)) or args["p"] == 0:
        return _move(low, call)
    return low.vector(call, "dropout", low.operands(call))


def _norm(low: Lowering, call: Call, op: VectorOpName) -> Value:
    return low.vector(call, op, _with_affine(low, call, "input"))


def _batch_norm(low: Lowering, call: Call) -> Value:
    """With fixed statistics (evaluation mode) it is a scaling and a shift."""
    operands = _with_affine(low, call, "input")
    trains = any(value.trains for value in operands[1:])
    fixed: VectorOpName = "mul" if trains else "scale"
    return low.vector(call, "batch_norm" if call.args["training"] else fixed, operands, label="batch_norm")


def _with_affine(low: Lowering, call: Call, name: str) -> list[Value]:
    found = [low.optional(call, argument) for argument in (name, "weight", "bias")]
    return [value for value in found if value is not None]


def _reduce(low: Lowering, call: Call) -> Value:
    """Over all elements or along dimensions; `max` and `min` of two tensors are elementwise."""
    operands = low.operands(call)
    if len(operands) > 1:
        return _same_size(low, call, "elementwise")
    out = call.out[0]
    elems, share = operands[0].elems, low.graph.batch if operands[0].batched else 1
    per_sample, results = ceil_div(elems, share), ceil_div(max(1, out.elems if out else 1), share)
    return low.vector(call, "reduction", operands, window=max(1, per_sample // results), named_after_param=False)


def _pool(low: Lowering, call: Call, op: VectorOpName) -> Value:
    kernel, dims = call.args["kernel_size"], int(call.op.split("pool")[1][0])
    window = kernel[0] ** dims if len(kernel) == 1 else prod(kernel)
    return low.vector(call, op, low.operands(call), window=window)


def _adaptive_pool(low: Lowering, call: Call, op: VectorOpName) -> Value:
    (x,), dims, out = low.operands(call), int(call.op.split("pool")[1][0]), call.out[0]
    sizes = out.shape[-dims:] if out else ()
    window = prod(ceil_div(size, result) for size, result in zip(x.shape[-dims:], sizes, strict=True))
    return low.vector(call, op, [x], window=window)


def _interpolate(low: Lowering, call: Call, taps: int) -> Value:
    return low.vector(call, "interpolate", low.operands(call), window=taps)


def _look_up(low: Lowering, call: Call, table: str, indices: tuple[str, ...]) -> Value:
    """Rows of a table, one for each index; moving rows of a computed tensor reads them, too."""
    rows = low.value(call.args[table])
    picks = [low.value(ref) for name in indices for ref in _refs(call.args[name])]
    out = call.out[0]
    moved = out.elems if rows.batched and out else 0
    batched = rows.batched or any(value.batched for value in picks)
    in_elems = moved + sum(value.elems for value in picks if value.batched or not batched)
    return low.vector(call, "embedding", [rows, *picks], in_elems=in_elems)


def _refs(value: Any) -> list[Ref]:
    return [value] if isinstance(value, Ref) else [ref for ref in value or () if isinstance(ref, Ref)]


def _cross_entropy(low: Lowering, call: Call) -> Value:
    """Return the loss over the classes; its target counts as no input."""
    x = low.value(call.args["self"])
    classes = x.shape[1] if len(x.shape) > 1 else x.shape[0]
    return low.vector(call, "cross_entropy", [x], window=classes, out_elems=x.elems // classes)


def _nll(low: Lowering, call: Call) -> Value:
    x = low.value(call.args["self"])
    rows = x.elems // (x.shape[1] if len(x.shape) > 1 else x.shape[0])
    return low.vector(call, "reduction", [x], in_elems=rows, out_elems=low.graph.batch, window=ceil_div(rows, low.graph.batch))


def _elementwise_loss(low: Lowering, call: Call, op: VectorOpName) -> Value:
    operands = low.operands(call)
    window = ceil_div(operands[0].elems, low.graph.batch)
    return low.vector(call, op, operands, out_elems=low.graph.batch, window=window)


def _family(rule: Callable[..., Value], table: dict[str, VectorOpName]) -> dict[str, Rule]:
    return {name: partial(rule, op=op) for name, op in table.items()}


RULES: dict[str, Rule] = {
    **dict.fromkeys(VIEWS | MOVES | FRESH, _move),
    "detach": _detach,
    **_family(_same_size, SAME_SIZE),
    **dict.fromkeys(ADDS, partial(_arithmetic, op="add")),
    **dict.fromkeys(MULS, _mul),
    **dict.fromkeys(DROPOUTS, _dropout),
    **_family(_norm, NORMS),
    "batch_norm": _batch_norm,
    "prelu": partial(_arithmetic, op="mul"),
    "_weight_norm": partial(_same_size, op="rms_norm"),
    **dict.fromkeys(REDUCTIONS, _reduce),
    **_family(_pool, POOLS),
    **_family(_adaptive_pool, ADAPTIVE_POOLS),
    **{name: partial(_interpolate, taps=taps) for name, taps in TAPS.items()},
    "embedding": partial(_look_up, table="weight", indices=("indices",)),
    "index": partial(_look_up, table="self", indices=("indices",)),
    "gather": partial(_look_up, table="self", indices=("index",)),
    "index_select": partial(_look_up, table="self", indices=("index",)),
    "take_along_dim": partial(_look_up, table="self", indices=("indices",)),
    "cross_entropy_loss": _cross_entropy,
    **dict.fromkeys(("nll_loss", "nll_loss_nd", "nll_loss2d"), _nll),
    **_family(_elementwise_loss, LOSSES),
    **PRODUCTS,
}
"""The rule of each operator that can be lowered."""
