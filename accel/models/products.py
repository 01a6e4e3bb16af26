"""Operators that become matrix products: convolutions, linear layers, products of computed tensors, attention."""

from __future__ import annotations

from functools import partial
from itertools import zip_longest
from math import prod
from string import ascii_letters
from typing import Any

from accel.errors import TraceError
from accel.models.drafts import Draft
from accel.models.layouts import heads_last
from accel.models.lower import Lowering, Rule
from accel.models.records import Call, Ref, Shape
from accel.models.values import Dims, Value
from accel.trace import Attention, Conv


def _conv(low: Lowering, call: Call, transposed: bool = False) -> Value:
    x, weight = low.value(call.args["input"]), low.value(call.args["weight"])
    transposed = bool(call.args.get("transposed", transposed))
    kernel, groups = weight.shape[2:], call.args["groups"]
    first, second = weight.shape[0], groups * weight.shape[1]
    stride, dilation = (_spread(call.args[name], len(kernel)) for name in ("stride", "dilation"))
    in_size, padding = _padded(x.shape[-len(kernel) :], kernel, stride, dilation, call.args["padding"])
    fields: dict[str, Any] = {
        "in_channels": first if transposed else second,
        "out_channels": second if transposed else first,
        "in_size": in_size,
        "kernel": kernel,
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
    }
    if transposed:
        extra = _spread(call.args["output_padding"], len(kernel))
        fields |= {"transposed": True, "output_padding": extra if any(extra) else None}
    if len(x.shape) < len(weight.shape):
        where = call.site.path or low.graph.name
        raise TraceError(f"{low.graph.name}: {call.op} in {where} must have a batch before its channels; add a dimension")
    maps = 1 if x.is_constant else low.per_sample(call, x.shape[0], "maps")
    if maps > 1:
        fields = _stacked(low, call, fields, maps)
    return low.weight_layer(call, Conv, fields, x, weight, low.optional(call, "bias"))


def _spread(value: Any, dims: int) -> Shape:
    """Return one number for every dimension."""
    numbers = tuple(value) if isinstance(value, tuple) else (value,)
    return numbers * dims if len(numbers) == 1 else numbers


def _padded(size: Shape, kernel: Shape, stride: Shape, dilation: Shape, padding: Any) -> tuple[Shape, Shape]:
    """Return input sizes and padding in numbers; what "same" pads on one side only is part of the input, as in PyTorch."""
    if padding == "valid":
        return size, (0,) * len(size)
    if padding != "same":
        return size, _spread(padding, len(size))
    total = [dil * (taps - 1) for taps, dil in zip(kernel, dilation, strict=True)]
    return tuple(n + pad % 2 for n, pad in zip(size, total, strict=True)), tuple(pad // 2 for pad in total)


def _stacked(low: Lowering, call: Call, fields: dict[str, Any], maps: int) -> dict[str, Any]:
    """Return the convolution of several maps per sample: one more dimension, in which the kernel has one tap."""
    if len(fields["kernel"]) == 3:
        where = call.site.path or low.graph.name
        raise TraceError(
            f"{low.graph.name}: {call.op} in {where} must have one volume per sample, not {maps}; loop over the volumes"
        )
    extra = {"in_size": maps, "kernel": 1, "stride": 1, "padding": 0, "dilation": 1, "output_padding": 0}
    return {name: (extra[name], *value) if name in extra and value is not None else value for name, value in fields.items()}


def _linear(low: Lowering, call: Call) -> Value:
    x, weight, bias = low.value(call.args["input"]), low.value(call.args["weight"]), low.optional(call, "bias")
    outer, inner = (1, *weight.shape)[-2:]
    return low.product(call, x, weight, Dims(1, x.elems // inner, outer, inner), bias)


def _matmul(low: Lowering, call: Call, names: tuple[str, str], added: str | None = None) -> Value:
    """Return lhs . rhs, with broadcast of the dimensions before the last two, plus a tensor if there is one."""
    lhs, rhs = (low.value(call.args[name]) for name in names)
    lhs_shape = lhs.shape if len(lhs.shape) > 1 else (1, *lhs.shape)
    rhs_shape = rhs.shape if len(rhs.shape) > 1 else (*rhs.shape, 1)
    count = _broadcast(lhs_shape[:-2], rhs_shape[:-2])
    weight_shape = lhs_shape if rhs.batched or rhs.spread else rhs_shape
    m, k, n = *lhs_shape[-2:], rhs_shape[-1]
    bias = low.optional(call, added) if added and call.args.get("beta", 1) != 0 else None
    return low.product(call, lhs, rhs, Dims(count, m, n, k, prod(weight_shape[:-2])), bias)


def _broadcast(first: Shape, second: Shape) -> int:
    return prod(max(sizes) for sizes in zip_longest(reversed(first), reversed(second), fillvalue=1))


def _einsum(low: Lowering, call: Call) -> Value:
    operands = [low.value(ref) for ref in call.args["tensors"] if isinstance(ref, Ref)]
    terms, result = _einsum_terms(str(call.args["equation"]), [len(value.shape) for value in operands])
    if len(operands) == 1 and set(terms[0]) == set(result):
        return low.join(operands)
    if len(operands) != 2 or any(len(set(term)) < len(term) for term in terms):
        return low.refuse(call, "einsum", operands)
    return _contraction(low, call, operands, terms, result)


def _einsum_terms(equation: str, ranks: list[int]) -> tuple[list[str], str]:
    """Return the letters of each operand and of the result, those that "..." stands for included."""
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    spare = [letter for letter in ascii_letters if letter not in equation]
    hidden = [rank - len(term) + 3 if "..." in term else 0 for term, rank in zip(terms, ranks, strict=True)]
    dots = "".join(spare[: max(hidden)])
    terms = [term.replace("...", dots[len(dots) - count :]) for term, count in zip(terms, hidden, strict=True)]
    if not arrow:
        letters = "".join(terms)
        right = dots + "".join(sorted(letter for letter in set(letters) - set(dots) if letters.count(letter) == 1))
    return terms, right.replace("...", dots)


def _contraction(low: Lowering, call: Call, operands: list[Value], terms: list[str], result: str) -> Value:
    """Return the product over the letters that both operands have and the result has not."""
    sizes: dict[str, int] = {}
    for term, value in zip(terms, operands, strict=True):
        for letter, size in zip(term, value.shape, strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    first, second = set(terms[0]), set(terms[1])
    if (first ^ second) - set(result):  # a letter summed in one operand alone
        return low.refuse(call, "einsum", operands)
    contracted = (first & second) - set(result)
    if not contracted:
        return low.vector(call, "mul", operands)
    count, m, n, k = (
        prod(sizes[letter] for letter in letters)
        for letters in (first & second & set(result), first - second, second - first, contracted)
    )
    return low.product(call, operands[0], operands[1], Dims(count, m, n, k, count))


def _tensordot(low: Lowering, call: Call) -> Value:
    operands = [low.value(call.args[name]) for name in ("self", "other")]
    ranks = [len(value.shape) for value in operands]
    terms = [list(ascii_letters[: ranks[0]]), list(ascii_letters[ranks[0] : sum(ranks)])]
    for mine, others in zip(call.args["dims_self"], call.args["dims_other"], strict=True):
        terms[1][others] = terms[0][mine]
    shared = set(terms[0]) & set(terms[1])
    result = "".join(letter for letter in terms[0] + terms[1] if letter not in shared)
    return _contraction(low, call, operands, ["".join(term) for term in terms], result)


def _attention(low: Lowering, call: Call) -> Value:
    """A mask without a gradient is part of the softmax inside, like a causal one."""
    names = ("query", "key", "value")
    query, key, value = operands = [low.value(call.args[name]) for name in names]
    mask = low.optional(call, "attn_mask")
    if not all(operand.batched or operand.spread for operand in operands):
        return low.refuse(call, f"{call.op}.per_step", operands)
    (q_len, dim), kv_len = query.shape[-2:], key.shape[-2]
    if value.shape[-1] != dim or (mask is not None and low.wants_grad(mask)):
        return _attention_in_parts(low, call, operands, mask)
    heads, kv_heads = (low.per_sample(call, prod(operand.shape[:-2]), "heads") for operand in (query, key))
    out = call.out[0].shape if call.out[0] else ()
    fields: dict[str, Any] = {
        "heads": heads,
        "kv_heads": None if kv_heads == heads else kv_heads,
        "q_len": q_len,
        "kv_len": kv_len,
        "head_dim": dim,
        "causal": call.args["is_causal"],
        "scale": call.args.get("scale"),
        "masked": mask is not None or bool(call.args.get("dropout_p")),
    }
    if not all(len(one.shape) == 4 and one.operand.layout == heads_last(one.shape) for one in operands):
        fields["reads_moved"] = True
    loaded = [low.loaded(call, operand).sources for operand in operands]
    counts = tuple(len(sources) for sources in loaded)
    draft = Draft(Attention, fields, sum(loaded, ()), (), None, "attention", call.site, call.grad, counts)
    return low.place(draft, out, layout=heads_last(out) if len(out) == 4 else None)


def _attention_in_parts(low: Lowering, call: Call, operands: list[Value], mask: Value | None) -> Value:
    """Return attention with a trained mask, or values as long as its keys are not: two products and what lies between."""
    query, key, value = operands
    (rows, dim), kv_len, width = query.shape[-2:], key.shape[-2], value.shape[-1]
    count = prod(query.shape[:-2])
    scores = low.product(call, query, key, Dims(count, rows, kv_len, dim))
    scores = Value((*query.shape[:-1], kv_len), scores.sources, (), batched=True)
    elems = scores.elems
    if mask is not None and not mask.is_constant:
        scores = low.vector(call, "add", [scores, mask], out_elems=elems, label="mask", named_after_param=False)
        scores = Value((*query.shape[:-1], kv_len), scores.sources, (), batched=True)
    weights = low.vector(call, "softmax", [scores], out_elems=elems, label="softmax")
    return low.product(call, weights, value, Dims(count, rows, width, kv_len))


PRODUCTS: dict[str, Rule] = {
    **{f"conv{dims}d": _conv for dims in (1, 2, 3)},
    **{f"conv_transpose{dims}d": partial(_conv, transposed=True) for dims in (1, 2, 3)},
    "convolution": _conv,
    "linear": _linear,
    "matmul": partial(_matmul, names=("self", "other")),
    "mm": partial(_matmul, names=("self", "mat2")),
    "bmm": partial(_matmul, names=("self", "mat2")),
    "mv": partial(_matmul, names=("self", "vec")),
    "dot": partial(_matmul, names=("self", "tensor")),
    "addmm": partial(_matmul, names=("mat1", "mat2"), added="self"),
    "baddbmm": partial(_matmul, names=("batch1", "batch2"), added="self"),
    "einsum": _einsum,
    "tensordot": _tensordot,
    "scaled_dot_product_attention": _attention,
}
"""The rules of products, by operator."""
