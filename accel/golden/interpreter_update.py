"""The updates of a program: new masters and momentum by the golden update, and the FP16 copies that the next step reads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.errors import ConfigError
from accel.golden.interpreter_memory import Dram, Fault, Flags, Values, kept_by
from accel.golden.numeric import Float16s, Float32s, to_fp16
from accel.golden.prune import prune
from accel.golden.update import UpdateRule, update
from accel.program import CopyKind, Parameter, Program, Update
from accel.sparsity import NMPattern


def initial_tensors(program: Program, weights: Mapping[str, Float32s]) -> dict[str, Values]:
    """Return masters and FP16 copies of `weights`, as an update would write them.

    Names are those of the trace: "conv1" is a weight (out, taps..., in), "conv1 bias" its bias, "norm1" the scale and the shift
    of a norm one after the other.
    """
    found: dict[str, Values] = {}
    for row in program.tables.updates:
        parameter = row.parameter
        if parameter is None:
            raise ConfigError(f"updates must be of known parameters, not of {program.tables.tensors[row.weight].name!r}")
        found[f"master {parameter.name}"] = _given(weights, parameter.name, parameter.shape)
        if parameter.bias:
            found[f"master {parameter.name} bias"] = _given(weights, f"{parameter.name} bias", (parameter.bias,))
        copies = _copies(found[f"master {parameter.name}"], parameter)
        found |= {program.tables.tensors[number].name: copy for number, copy in zip(row.writes, copies, strict=True)}
    return found


def _given(weights: Mapping[str, Float32s], name: str, shape: tuple[int, ...]) -> Float32s:
    value = weights.get(name)
    if value is None or value.dtype != np.float32 or value.size != prod(shape):
        found = "missing" if value is None else f"{value.dtype} {value.shape}"
        raise ConfigError(f"weights[{name!r}] must be float32 {shape}, not {found}")
    return value.reshape(shape).copy()


@dataclass
class Updater:
    """WUVE with its rule; `overflow` says that a gradient stored before was not finite."""

    rule: UpdateRule | None
    loss_scale: float
    overflow: bool = False

    def update(self, row: Update, dram: Dram) -> None:
        """Update one parameter tensor and the bias beside it, or nothing after an overflow."""
        parameter = row.parameter
        if parameter is None:
            raise Fault("a parameter must be of one kind of layer to be updated, not unknown or shared")
        if self.rule is None:
            raise Fault("rule must say how weights are updated, not None")
        if self.overflow:
            return
        names = [dram.name(number) for number in row.reads]
        grad = _weight_order(dram.read(names[0]), parameter)
        master = dram.read(f"master {parameter.name}")
        weight = self._apply(dram, parameter.name, grad, _kept(master, parameter) if self.rule.needs_mask else None)
        if parameter.bias:
            self._apply(dram, f"{parameter.name} bias", dram.read(names[1]), np.ones((), np.bool_))
        for number, copy in zip(row.writes, _copies(weight, parameter), strict=True):
            dram.write(dram.name(number), copy)

    def _apply(self, dram: Dram, name: str, grad: Float32s, kept: Flags | None) -> Float32s:
        """Update one list of numbers with its momentum; of a bias and a norm everything is kept."""
        assert self.rule is not None
        state = dram.read(f"momentum {name}") if dram.has(f"momentum {name}") else None
        new = update(dram.read(f"master {name}"), grad, state, self.rule, self.loss_scale, kept)
        dram.write(f"master {name}", new.weight)
        if new.state is not None:
            dram.write(f"momentum {name}", new.state)
        return new.weight


def _weight_order(grad: Float32s, parameter: Parameter) -> Float32s:
    """Return dW, (groups, taps..., in, out) of each group, as the weight (out, taps..., in)."""
    shape = parameter.shape
    if grad.size != prod(shape):
        raise Fault(f"dW must have {prod(shape)} elements like the weight, not {grad.size}")
    if len(shape) == 1:
        return grad.reshape(shape)
    by_group = grad.reshape(parameter.groups, -1, shape[-1], shape[0] // parameter.groups)
    return np.moveaxis(by_group, 3, 1).reshape(shape)


def _copies(master: Any, parameter: Parameter) -> list[Values]:
    """Return the copies of a weight in FP16, those of a bias as an empty list: operators read the master."""
    if not parameter.copies:
        return []
    weight = to_fp16(master)
    if parameter.masked:
        weight = np.where(_kept(master, parameter), weight, np.float16(0))
    return [_copy(weight, parameter, kind) for kind in parameter.copies]


def _copy(weight: Float16s, parameter: Parameter, kind: CopyKind) -> Values:
    if kind == "dense":
        return weight.copy()
    if kind == "bias":
        return np.zeros(0, np.float16)
    matrices, taps = _matrices(weight, parameter, kind)
    return tuple(prune(matrix, NMPattern(parameter.keep, parameter.group), taps) for matrix in matrices)


def _matrices(weight: NDArray[Any], parameter: Parameter, kind: CopyKind) -> tuple[list[NDArray[Any]], int]:
    """Return (dim_k, dim_n) of each convolution group, k tap by tap along the last size ("gather") or the first ("scatter")."""
    first, last = parameter.shape[0], parameter.shape[-1]
    by_group = weight.reshape(parameter.groups, first // parameter.groups, -1, last)
    order = (0, 2, 3, 1) if kind == "gather" else (0, 2, 1, 3)
    taps = by_group.shape[2]
    turned = by_group.transpose(order)
    return [np.ascontiguousarray(one).reshape(-1, turned.shape[-1]) for one in turned], taps


def _kept(master: Any, parameter: Parameter) -> Flags:
    """Return which weights the step had: those of the copy along the last size, else of that along the first, else all."""
    if len(parameter.shape) == 1:
        return np.ones((), np.bool_)
    kind: CopyKind | None = next((kind for kind in ("gather", "scatter") if kind in parameter.copies), None)
    if parameter.masked:
        kind = "gather"
    if kind is None:
        return np.ones((), np.bool_)
    matrices, taps = _matrices(to_fp16(master), parameter, kind)
    pattern = NMPattern(parameter.keep, parameter.group)
    kept = np.stack([kept_by(matrix, pattern, taps) for matrix in matrices])
    shape = parameter.shape
    sizes = parameter.shape[0] // parameter.groups, shape[-1]
    by_tap = kept.reshape(parameter.groups, taps, *(reversed(sizes) if kind == "gather" else sizes))
    order = (0, 3, 1, 2) if kind == "gather" else (0, 2, 1, 3)
    return by_tap.transpose(order).reshape(shape)
