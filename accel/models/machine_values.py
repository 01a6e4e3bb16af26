"""Tensors as the machine holds them, and where their gradients go.

A `Value` is FP16 or FP32 in DRAM. `run` computes an operator of `accel.golden.vector` on values; autograd only decides what is
computed in the backward pass and when. The gradients that the readers of a tensor send back are added up here: in the order in
which they read it in the forward pass, from the first one on, rounded after every addition. Views are no readers: whoever reads
a view reads a part of the tensor, and an element that one reader alone saw has that reader's gradient as it is.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from accel.errors import ConfigError
from accel.golden.numeric import canonical
from accel.golden.vector import arithmetic, tensors
from accel.golden.vector.arithmetic import Stored
from accel.models.matrices import fp16

Move = Callable[[Tensor], Tensor]
"""Names the elements of a tensor anew: a view, or a copy in another order."""


class Operation(NamedTuple):
    """An operator of the vector unit on arrays."""

    forward: Callable[..., tuple[Any, tuple[Any, ...]]]
    """From the operands to the result and the arrays that the backward pass reads."""
    backward: Callable[..., tuple[Any, ...]]
    """From the result's gradient and these arrays to the gradient of every operand; None: it has none."""
    is_loss: bool = False
    """Whether the result is a loss: FP32, whatever is done with it."""


class _Part(NamedTuple):
    """A gradient that came back: the reader's number, the views it read through, the gradient."""

    reader: int
    moves: tuple[Move, ...]
    grad: Stored


@dataclass
class _Gradient:
    """The gradient of a tensor while its readers send theirs."""

    shape: torch.Size
    dtype: torch.dtype
    parts: list[_Part] = field(default_factory=list)
    readers: int = 0

    def total(self) -> Stored | None:
        """Return the sum of what came back, None if nothing did, and forget it."""
        parts, self.parts = sorted(self.parts, key=lambda part: part.reader), []
        if not parts:
            return None
        if len(parts) == 1 and not parts[0].moves:
            return parts[0].grad
        add: Any = tensors.add if self.dtype == torch.float16 else arithmetic.add
        total = np.zeros(self.shape.numel(), parts[0].grad.dtype)
        is_seen = np.zeros(total.shape, np.bool_)
        for part in parts:
            places, grad = self._places(part.moves), part.grad.reshape(-1)
            total[places] = np.where(is_seen[places], add(total[places], grad), grad)
            is_seen[places] = True
        return total.reshape(self.shape)

    def _places(self, moves: tuple[Move, ...]) -> Any:
        """Return which elements of the tensor, row-major, the elements behind `moves` are."""
        if not moves:
            return slice(None)
        places = torch.arange(self.shape.numel()).reshape(self.shape)
        for move in moves:
            places = move(places)
        return places.reshape(-1).numpy()


@dataclass
class _Origin:
    """What all views of a tensor share."""

    root: Tensor | None
    """The tensor in autograd's graph; None: it has no gradient."""
    gradient: _Gradient
    is_overwritten: bool = False


@dataclass(frozen=True, eq=False)
class Value:
    """A tensor on the machine, or a view of it."""

    stored: Tensor
    """float16 or float32, in the format that it has in DRAM."""
    origin: _Origin
    moves: tuple[Move, ...] = ()
    is_loss: bool = False

    @property
    def array(self) -> Any:
        """The elements."""
        if self.origin.is_overwritten:
            raise ConfigError(
                "a tensor must not be read after an operator wrote its result into it; read it before, or copy it"
            )
        return self.stored.numpy()

    @property
    def is_fp32(self) -> bool:
        """Whether it is a parameter, as its master has it, or a loss."""
        return self.stored.dtype == torch.float32

    @property
    def has_grad(self) -> bool:
        """Whether a gradient goes back from it."""
        return self.origin.root is not None

    def moved(self, move: Move) -> Value:
        """Return the value with its elements named anew."""
        return replace(self, stored=move(self.stored), moves=(*self.moves, move))

    def detached(self) -> Value:
        """Return the value without its history."""
        return constant(self.array)

    def overwrite(self) -> None:
        """Let nobody read the value any more, nor any other view of the tensor."""
        self.origin.is_overwritten = True

    def read(self) -> Tensor:
        """Return a float32 tensor of torch whose gradient becomes that of the next reader."""
        self.array  # noqa: B018
        root, gradient = self.origin.root, self.origin.gradient
        if root is None or not torch.is_grad_enabled():
            return self.stored.to(torch.float32, copy=True)
        gradient.readers += 1
        edge: Tensor = _read(root, gradient, gradient.readers, self.moves, self.stored)
        return edge


def constant(array: Any) -> Value:
    """Return an array, FP16 or FP32, as a value without gradient."""
    stored = _tensor(array)
    return Value(stored, _Origin(None, _Gradient(stored.shape, stored.dtype)))


def activation(tensor: Tensor) -> Value:
    """Return a tensor of torch, rounded to FP16 as it comes to the machine; its gradient is the value's."""
    return _lifted(tensor, fp16(tensor))


def parameter(tensor: Tensor) -> Value:
    """Return a parameter, or what has its elements, as FP32; the gradient is FP32, too."""
    return _lifted(tensor, canonical(tensor.detach().cpu().float().numpy()))


def _lifted(tensor: Tensor, array: Stored) -> Value:
    return _result(_IDENTITY, array, (), [tensor.cpu()])


def run(operation: Operation, *values: Value) -> Value:
    """Return the result of an operator, each of `values` read once, in their order."""
    result, saved = operation.forward(*(value.array for value in values))
    return _result(operation, result, saved, [value.read() for value in values])


def _result(operation: Operation, array: Any, saved: tuple[Any, ...], edges: list[Tensor]) -> Value:
    value = replace(constant(array), is_loss=operation.is_loss)
    if torch.is_grad_enabled() and any(edge.requires_grad for edge in edges):
        kept = [_tensor(each) for each in saved]
        value.origin.root = _step(value.stored, value.origin.gradient, operation.backward, kept, *edges)
    return value


def _tensor(array: Any) -> Tensor:
    return torch.from_numpy(np.require(array, requirements=["C", "W"]))


class _Step(torch.autograd.Function):
    """An operator in autograd's graph. Its own gradient comes from `gradient`: the readers leave theirs there.

    It must not hold the value's origin, which holds its output: such a circle would never be freed.
    """

    @staticmethod
    def forward(
        ctx: Any, stored: Tensor, gradient: _Gradient, backward: Callable[..., Any], kept: list[Tensor], *edges: Tensor
    ) -> Tensor:
        ctx.save_for_backward(*kept)
        ctx.gradient, ctx.backward_of = gradient, backward
        ctx.set_materialize_grads(False)
        return stored.to(torch.float32, copy=True)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        total = ctx.gradient.total()
        count = len(ctx.needs_input_grad) - 4
        if total is None:
            return (None,) * (4 + count)
        results = ctx.backward_of(total, *(kept.numpy() for kept in ctx.saved_tensors))
        found = zip(results, ctx.needs_input_grad[4:], strict=True)
        return (None,) * 4 + tuple(
            torch.from_numpy(np.array(result, np.float32)) if is_wanted and result is not None else None
            for result, is_wanted in found
        )


class _Read(torch.autograd.Function):
    """One reader of a tensor: its gradient goes to `gradient`; autograd would add it up as it comes."""

    @staticmethod
    def forward(ctx: Any, root: Tensor, gradient: _Gradient, reader: int, moves: tuple[Move, ...], stored: Tensor) -> Tensor:
        ctx.gradient, ctx.reader, ctx.moves = gradient, reader, moves
        ctx.set_materialize_grads(False)
        return stored.to(torch.float32, copy=True) if moves else root.view_as(root)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[None, ...]:
        if grads[0] is not None:
            grad = fp16(grads[0]) if ctx.gradient.dtype == torch.float16 else grads[0].cpu().numpy()
            ctx.gradient.parts.append(_Part(ctx.reader, ctx.moves, grad))
        return (None,) * 5


_step: Any = _Step.apply
_read: Any = _Read.apply
_IDENTITY = Operation(lambda x: (x, ()), lambda dy: (dy,))
