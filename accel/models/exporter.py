"""`export`: the trace of any PyTorch module, through `torch.export`."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Literal

import torch

from accel.errors import ConfigError
from accel.models.aten import RULES, VIEWS
from accel.models.capture import capture
from accel.models.layers import has_sparse
from accel.models.lower import Lowering
from accel.trace import Trace
from accel.vector_ops import VectorOpName

LOSSES: dict[str, VectorOpName] = {"cross_entropy": "cross_entropy", "mse": "mse_loss"}


def export(
    module: torch.nn.Module,
    example_inputs: torch.Tensor | Sequence[Any] | Mapping[str, Any],
    *,
    name: str | None = None,
    loss: Literal["cross_entropy", "mse"] | None = None,
    allow_ops: Sequence[str] = (),
    train: bool = True,
) -> Trace:
    """Return the trace of one training step of `module`.

    `example_inputs` are its arguments (a tensor, a sequence of them) or keyword arguments (a mapping); the first dimension of
    the first tensor is the batch. Their values do not matter. `name` is the network's (default: the module's class). `loss` is
    appended to the module's one output tensor: cross entropy over the last dimension (maps: over the channels). `allow_ops` are
    operators to count as free. The module is traced in training mode and left as it was; `train=False` takes it as it is.
    Activation checkpointing is not seen: a forward pass that the backward pass repeats counts once. Raises `TraceError` or
    `UnsupportedOpError` for what cannot be a trace.
    """
    if loss is not None and loss not in LOSSES:
        raise ConfigError(f"loss must be one of {', '.join(LOSSES)}, not {loss!r}")
    name = type(module).__name__ if name is None else name
    if not (name and name.isprintable()):
        raise ConfigError(f"name must be one line of printable text, not {name!r}")
    if has_sparse(module):
        raise ConfigError(
            f"{name} must be as it was before sparsify and on_machine: a trace is of the dense network, and the method is "
            "chosen when it is simulated; undo them with desparsify and off_machine"
        )
    args, kwargs = _arguments(example_inputs)
    with _training(module, train):
        graph = capture(module, args, kwargs, name)
    return Lowering(graph, RULES, VIEWS, frozenset(allow_ops)).trace(LOSSES[loss] if loss else None)


def _arguments(example_inputs: Any) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
    if isinstance(example_inputs, Mapping):
        return (), example_inputs
    if isinstance(example_inputs, torch.Tensor):
        return (example_inputs,), {}
    if isinstance(example_inputs, str) or not isinstance(example_inputs, Sequence):
        raise ConfigError(f"example inputs must be a tensor, a sequence of arguments or a mapping, not {example_inputs!r:.60}")
    return tuple(example_inputs), {}


@contextmanager
def _training(module: torch.nn.Module, train: bool) -> Iterator[None]:
    """Put every part of `module` into training mode, and back as it was at the end."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        if train:
            module.train()
        yield
    finally:
        for part, mode in modes:
            part.training = mode
