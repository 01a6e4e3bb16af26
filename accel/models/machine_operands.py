"""What a function of torch is given, as values on the machine.

A rule gets a `Value` where torch has a tensor on the machine, or a parameter; other tensors (labels, masks, buffers, constants)
come as they are and count as FP16 where an operator reads them as numbers.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import numpy as np
from torch import Tensor, nn

from accel.golden.numeric import to_fp16
from accel.golden.vector.arithmetic import load
from accel.models.machine_operations import unsupported
from accel.models.machine_values import Operation, Value, activation, constant, parameter, run

THREADS: ContextVar[int | None] = ContextVar("threads", default=None)
"""How many threads the products of attention take."""


_ROUND = Operation(lambda x: (to_fp16(load(x)), ()), lambda dy: (dy,))


def value_of(x: Any) -> Value:
    """Return a tensor or a number as a value: a parameter and a number in FP32, any other tensor of torch in FP16."""
    if isinstance(x, Value):
        return x
    if isinstance(x, nn.Parameter):
        return parameter(x)
    return activation(x) if isinstance(x, Tensor) else constant(np.float32(x))


def half(x: Any) -> Value:
    """Return a value in FP16: a parameter is rounded, its gradient stays FP32."""
    value = value_of(x)
    if value.is_loss:
        raise unsupported("an operator that reads a loss")
    return run(_ROUND, value) if value.is_fp32 else value


def single(x: Any, like: int, fill: float) -> Value:
    """Return gamma or beta in FP32: where there is none, `like` times `fill`."""
    if x is None:
        return constant(np.full(like, fill, np.float32))
    return parameter(x) if isinstance(x, Tensor) else x
