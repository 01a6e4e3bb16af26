"""What each operator of the vector unit computes, as docs/formats.md has it: `attributes` of a layer, if they can be said.

They can if every input is one whole tensor in the order that the operator's golden function reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from accel.golden.vector.unary import UNARY
from accel.models.layouts import Layout, channels_last, row_major, stored_axes, without
from accel.models.records import Call, Shape
from accel.trace import Attributes


class Operand(NamedTuple):
    """A tensor that an operator reads: its layout if it is one whole tensor, and whether it is a parameter."""

    shape: Shape
    layout: Layout | None
    is_parameter: bool


class Described(NamedTuple):
    """What an operator computes, how torch's result lies in the stored one, and whether that is an image of other pixels."""

    attributes: Attributes | None = None
    layout: Layout | None = None
    is_pooled: bool = False


def describe(call: Call, operands: Sequence[Operand]) -> Described:
    """Return what `call` computes from its operands."""
    out = call.out[0].shape if call.out and call.out[0] else ()
    name = _NAMES.get(call.op, call.op)
    known: Described | None = None
    if name in _RULES and operands and all(operand.is_parameter or operand.layout is not None for operand in operands):
        known = _RULES[name](call, operands, out)
    return known or Described(None, _same_layout(operands, out))


def describe_loss(op: str, classes: int, operand: Operand) -> Attributes | None:
    """Return what a loss computes from the network's output."""
    if operand.layout is None:
        return None
    if op == "mse_loss":
        return {"function": op}
    is_map = len(operand.shape) > 3
    expected = channels_last(operand.shape) if is_map else row_major(operand.shape)
    return {"function": op, "classes": classes, "smoothing": 0.0} if operand.layout == expected else None


def _same_layout(operands: Sequence[Operand], out: Shape) -> Layout | None:
    """Return the layout of the first operand with the result's shape: what is done element by element keeps it."""
    return next((operand.layout for operand in operands if operand.shape == out and not operand.is_parameter), None)


def _unary(function: str) -> Callable[..., Described | None]:
    def rule(call: Call, operands: Sequence[Operand], out: Shape) -> Described | None:
        if len(operands) != 1:
            return None
        return Described({"function": function}, operands[0].layout)

    return rule


def _gelu(call: Call, operands: Sequence[Operand], out: Shape) -> Described | None:
    name = "gelu_tanh" if call.args.get("approximate", "none") == "tanh" else "gelu"
    return _unary(name)(call, operands, out)


def _hardtanh(call: Call, operands: Sequence[Operand], out: Shape) -> Described | None:
    is_relu6 = (call.args["min_val"], call.args["max_val"]) == (0, 6)
    return _unary("relu6")(call, operands, out) if is_relu6 else None


def _add(call: Call, operands: Sequence[Operand], out: Shape) -> Described | None:
    if call.args.get("alpha", 1) != 1:
        return None
    return _add_parameters(operands, out) or _pair("add", operands, out)


def _add_parameters(operands: Sequence[Operand], out: Shape) -> Described | None:
    """Return an addition of parameters as large as a sample, the same to every one."""
    if len(operands) != 2 or operands[0].shape != out or operands[0].layout != row_major(out):
        return None
    first, second = operands
    is_like_a_sample = second.is_parameter and second.shape in (out[1:], (1, *out[1:]))
    return Described({"function": "add"}, first.layout) if is_like_a_sample else None


def _mul(call: Call, operands: Sequence[Operand], out: Shape) -> Described | None:
    factor = call.args.get("other")
    if len(operands) == 1 and isinstance(factor, int | float) and not isinstance(factor, bool):
        return Described({"function": "scale", "factor": float(factor)}, operands[0].layout)
    return _pair("mul", operands, out)


def _pair(function: str, operands: Sequence[Operand], out: Shape) -> Described | None:
    """Return an operator of two tensors of one shape, stored alike."""
    if len(operands) != 2 or any(operand.is_parameter or operand.shape != out for operand in operands):
        return None
    first, second = operands
    return Described({"function": function}, first.layout) if first.layout == second.layout else None


def _batch_norm(call: Call, operands: Sequence[Operand], out: Shape) -> Described | None:
    x = operands[0]
    if not call.args["training"] or len(x.shape) < 2 or x.layout != channels_last(x.shape):
        return None
    return Described({"function": "batch_norm", "channels": x.shape[1], "eps": float(call.args["eps"])}, x.layout)


def _group_norm(call: Call, operands: Sequence[Operand], out: Shape) -> Described | None:
    x = operands[0]
    if len(x.shape) < 3 or x.layout != channels_last(x.shape):
        return None
    shape, groups = (*x.shape[2:], x.shape[1]), call.args["num_groups"]
    return Described({"function": "group_norm", "shape": shape, "groups": groups, "eps": float(call.args["eps"])}, x.layout)


def _row_norm(function: str) -> Callable[..., Described | None]:
    def rule(call: Call, operands: Sequence[Operand], out: Shape) -> Described | None:
        x, rows, eps = operands[0], call.args["normalized_shape"], call.args["eps"]
        if x.layout != row_major(x.shape) or len(rows) != 1 or eps is None:
            return None
        return Described({"function": function, "features": rows[0], "eps": float(eps)}, x.layout)

    return rule


def _spread(value: Any, dims: int) -> tuple[int, ...]:
    numbers = tuple(value) if isinstance(value, tuple) else (value,)
    return numbers * dims if len(numbers) == 1 else numbers


def _pool(function: str) -> Callable[..., Described | None]:
    def rule(call: Call, operands: Sequence[Operand], out: Shape) -> Described | None:
        x, dims = operands[0], int(call.op.split("pool")[1][0])
        if len(x.shape) != dims + 2 or x.layout != channels_last(x.shape) or call.args.get("divisor_override"):
            return None
        kernel = _spread(call.args["kernel_size"], dims)
        attributes: Attributes = {
            "function": function,
            "sizes": x.shape[2:],
            "channels": x.shape[1],
            "kernel": kernel,
            "stride": _spread(call.args["stride"] or kernel, dims),
            "padding": _spread(call.args["padding"], dims),
            "dilation": _spread(call.args.get("dilation", 1), dims),
            "ceil_mode": bool(call.args["ceil_mode"]),
        }
        if function == "avg_pool":
            attributes["count_padding"] = bool(call.args["count_include_pad"])
        return Described(attributes, channels_last(out), is_pooled=True)

    return rule


def _adaptive_pool(function: str) -> Callable[..., Described | None]:
    def rule(call: Call, operands: Sequence[Operand], out: Shape) -> Described | None:
        x, dims = operands[0], int(call.op.split("pool")[1][0])
        if len(x.shape) != dims + 2 or x.layout != channels_last(x.shape):
            return None
        attributes: Attributes = {
            "function": function,
            "sizes": x.shape[2:],
            "channels": x.shape[1],
            "outputs": out[2:],
            "count_padding": False,
        }
        return Described(attributes, channels_last(out), is_pooled=True)

    return rule


def _reduce(function: str) -> Callable[..., Described | None]:
    def rule(call: Call, operands: Sequence[Operand], out: Shape) -> Described | None:
        (x,) = operands
        wanted = call.args.get("dim")
        dims = {dim % len(x.shape) for dim in _spread(wanted, 1)} if wanted not in (None, ()) else set(range(len(x.shape)))
        axes = stored_axes(x.layout or ())
        if 0 in dims or not axes or axes[0][2] != 0:
            return None
        samples = [(size, number) for size, _, number in axes if number != 0]
        reduced = tuple(at + 1 for at, (_, number) in enumerate(samples) if number in dims)
        attributes: Attributes = {"function": function, "shape": tuple(size for size, _ in samples), "axes": reduced}
        layout = without(x.layout or (), sorted(dims), bool(call.args.get("keepdim")))
        return Described(attributes, layout)

    return rule


def _softmax(call: Call, operands: Sequence[Operand], out: Shape) -> Described | None:
    (x,) = operands
    if call.args["dim"] % len(x.shape) != len(x.shape) - 1 or x.layout != row_major(x.shape):
        return None
    return Described({"function": "softmax", "size": x.shape[-1]}, x.layout)


def _embedding(call: Call, operands: Sequence[Operand], out: Shape) -> Described | None:
    table = operands[0]
    if not table.is_parameter or len(operands) != 2 or call.args["padding_idx"] >= 0:
        return None
    if operands[1].layout != row_major(operands[1].shape):
        return None
    return Described({"function": "embedding", "features": table.shape[1]}, row_major(out))


_NAMES = {
    "_softmax": "softmax", "native_layer_norm": "layer_norm", "native_group_norm": "group_norm",
    "_fused_rms_norm": "rms_norm", "multiply": "mul",
}  # fmt: skip

_RULES: dict[str, Callable[[Call, Sequence[Operand], Shape], Described | None]] = {
    **{name: _unary(name) for name in (*UNARY, "relu", "relu6") if name != "gelu_tanh"},
    "gelu": _gelu,
    "hardtanh": _hardtanh,
    "add": _add,
    "mul": _mul,
    "batch_norm": _batch_norm,
    "group_norm": _group_norm,
    "layer_norm": _row_norm("layer_norm"),
    "rms_norm": _row_norm("rms_norm"),
    **{f"max_pool{dims}d": _pool("max_pool") for dims in (1, 2, 3)},
    **{f"avg_pool{dims}d": _pool("avg_pool") for dims in (1, 2, 3)},
    **{f"adaptive_max_pool{dims}d": _adaptive_pool("max_pool") for dims in (1, 2, 3)},
    **{f"adaptive_avg_pool{dims}d": _adaptive_pool("avg_pool") for dims in (1, 2, 3)},
    "mean": _reduce("mean"),
    "sum": _reduce("sum"),
    "softmax": _softmax,
    "embedding": _embedding,
}
