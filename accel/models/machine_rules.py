"""Functions of torch that compute element by element, reduce, multiply and move, each as an operator of the machine."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from accel.models import machine_operations as operations
from accel.models.machine_attention import matmul as matrix_products
from accel.models.machine_operands import THREADS, half, value_of
from accel.models.machine_operations import unsupported
from accel.models.machine_values import Value, run

Rule = Callable[..., Any]
"""Takes torch's arguments, gives a value."""
_Number: TypeAlias = float | int


def unary(name: str) -> Rule:
    """Return the rule of an operator of one tensor, element by element."""
    return lambda input: run(operations.element_by_element(name), half(input))


def relu(input: Any) -> Value:
    """Return relu."""
    return run(operations.RELU, half(input))


def hardtanh(input: Any, min_val: float = -1.0, max_val: float = 1.0) -> Value:
    """Return relu6, the one case that the machine has."""
    if (min_val, max_val) != (0.0, 6.0):
        raise unsupported(f"hardtanh between {min_val} and {max_val}")
    return run(operations.RELU6, half(input))


def gelu(input: Any, approximate: str = "none") -> Value:
    """Return gelu, exact or by tanh."""
    return run(operations.element_by_element("gelu" if approximate == "none" else "gelu_tanh"), half(input))


def pow(input: Any, exponent: Any) -> Value:
    """Return the square, the one power that the machine has."""
    if exponent != 2:
        raise unsupported(f"pow with the exponent {exponent}")
    return run(operations.element_by_element("square"), half(input))


def dropout(input: Any, p: float = 0.5, training: bool = True) -> Value:
    """Return dropout; torch's generator draws the mask."""
    if not training or p == 0:
        return value_of(input)
    value = half(input)
    mask = torch.rand(value.stored.shape) >= p
    return run(operations.dropout(mask.numpy(), p), value)


def _number(x: Any) -> _Number | None:
    """Return a number, or a tensor of torch that is only one; None for anything else."""
    if isinstance(x, Tensor) and x.dim() == 0 and not x.requires_grad:
        return x.item()
    return None if isinstance(x, Tensor | Value) else x


def add(input: Any, other: Any, alpha: _Number = 1) -> Value:
    """Return the sum, broadcast; that of two losses in FP32."""
    if alpha != 1:
        raise unsupported(f"add with alpha {alpha}")
    left, right = (value_of(x if _number(x) is None else _number(x)) for x in (input, other))
    if left.is_loss or right.is_loss:
        return run(operations.ADD_LOSSES, left, right)
    return run(operations.add(left.array, right.array), left, right)


def sub(input: Any, other: Any, alpha: _Number = 1) -> Value:
    """Return `input + (other * -1)`."""
    if _number(other) is not None:
        return add(input, -_number(other), alpha)  # type: ignore[operator]
    return add(input, mul(other, -1), alpha)


def mul(input: Any, other: Any) -> Value:
    """Return the product of two tensors, broadcast, or with a number."""
    for x, number in ((input, _number(other)), (other, _number(input))):
        if number is not None:
            is_loss = isinstance(x, Value) and x.is_loss
            return run(operations.scale_loss(number), x) if is_loss else run(operations.scale(number), half(x))
    left, right = value_of(input), value_of(other)
    if left.is_loss or right.is_loss:
        raise unsupported("mul of two losses")
    return run(operations.MUL, left, right)


def div(input: Any, other: Any) -> Value:
    """Return the product with 1 / other, a number, rounded to FP32."""
    number = _number(other)
    if number is None:
        raise unsupported("div by a tensor")
    return mul(input, 1 / number)


def broadcast(input: Any, *sizes: Any) -> Value:
    """Return `expand`."""
    value, wanted = value_of(input), _flat(sizes)
    shape = (*[0] * (len(wanted) - value.stored.dim()), *value.stored.shape)
    full = tuple(old if new == -1 else new for old, new in zip(shape, wanted, strict=True))
    return run(operations.broadcast(value.array, full), value)


def broadcast_as(input: Any, other: Any) -> Value:
    """Return `expand_as`."""
    return broadcast(input, tuple(value_of(other).stored.shape))


def reduce(input: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None, *, is_mean: bool) -> Value:
    """Return the sum or the mean along dimensions, row-major in torch's order of them."""
    value = value_of(input)
    if value.is_loss:  # of one element
        return value
    shape = value.stored.shape
    axes = range(len(shape)) if dim is None or dim == () else _flat((dim,))
    return run(operations.reduce(tuple(axis % len(shape) for axis in axes), shape, is_mean, keepdim), half(value))


def softmax(input: Any, dim: int, _stacklevel: int = 3, dtype: Any = None, *, is_log: bool) -> Value:
    """Return softmax or its logarithm along a dimension."""
    return run(operations.softmax(dim, is_log), half(input))


def matmul(input: Any, other: Any) -> Value:
    """Return the products of as many matrices as matrices."""
    left, right = half(input), half(other)
    shapes = left.stored.shape, right.stored.shape
    if any(len(shape) < 2 for shape in shapes) or shapes[0][:-2] != shapes[1][:-2]:
        raise unsupported(f"matmul of shapes {tuple(shapes[0])} and {tuple(shapes[1])}: only as many matrices as matrices")
    return run(matrix_products(THREADS.get()), left, right)


def pad(input: Any, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Value:
    """Return the tensor among zeros."""
    if mode != "constant" or value:
        raise unsupported("pad with anything but zeros")
    source = value_of(input)
    pairs = [(0, 0)] * (source.stored.dim() - len(pad) // 2)
    return run(operations.pad_zeros([*pairs, *reversed([*zip(pad[::2], pad[1::2], strict=True)])]), source)


def cat(tensors: Sequence[Any], dim: int = 0) -> Value:
    """Return tensors one after the other; parameters among them are rounded to FP16."""
    parts = [half(part) for part in tensors]
    return run(operations.concatenate(dim, [part.stored.shape[dim] for part in parts]), *parts)


def stack(tensors: Sequence[Any], dim: int = 0) -> Value:
    """Return tensors one after the other along a new dimension."""
    return cat([value_of(part).moved(lambda x: x.unsqueeze(dim)) for part in tensors], dim)


def _flat(sizes: Sequence[Any]) -> tuple[int, ...]:
    return tuple(sizes[0]) if len(sizes) == 1 and not isinstance(sizes[0], int) else tuple(sizes)


def same(input: Any, *args: Any, **kwargs: Any) -> Value:
    """Return the tensor: on the machine it has one format and place."""
    return value_of(input)
