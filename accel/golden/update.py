"""The update as WUVE does it, bit for bit: SGD with momentum, decay, the SR-STE term and a loss scale, in FP32 steps.

With the switches that a rule has on, in this order, every operation rounded and flushed as in `accel.golden.vector.arithmetic`:

    g = kept ? dW : +0                      masked
    g = g + (kept ? +0 : w) * s             sparse_decay, s = sparse_decay * scale, rounded once
    g = g / scale
    g = g + decay * w                       decay
    b = momentum * b + g;  g = b            momentum
    w = w - lr * g
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.errors import ConfigError
from accel.golden.numeric import Float32s
from accel.golden.vector.arithmetic import ZERO, add, divide, load, multiply, subtract


@dataclass(frozen=True)
class UpdateRule:
    """What the update computes; a number of 0 switches its line off. All are rounded to FP32 where they are used."""

    lr: float
    momentum: float = 0.0
    decay: float = 0.0
    sparse_decay: float = 0.0
    """The factor of the SR-STE term: pruned weights decay."""
    masked: bool = False
    """Pruned weights get no gradient."""

    def __post_init__(self) -> None:
        """Refuse negative factors."""
        _refuse_less(0, lr=self.lr, momentum=self.momentum, decay=self.decay, sparse_decay=self.sparse_decay)

    @property
    def needs_mask(self) -> bool:
        """Whether the update asks which weights are kept."""
        return self.masked or self.sparse_decay != 0


@dataclass(frozen=True)
class LossScale:
    """What the loss is multiplied by: halved by a step that is skipped, doubled after `growth_steps` others in a row."""

    scale: float = 2.0**16
    growth_steps: int = 2000
    max_scale: float = 2.0**24
    good_steps: int = 0

    def __post_init__(self) -> None:
        """Refuse a scale that cannot be."""
        if not self.scale > 0:
            raise ConfigError(f"scale must be more than 0, not {self.scale!r}")
        if not self.max_scale >= self.scale:
            raise ConfigError(f"max_scale must be at least scale ({self.scale!r}), not {self.max_scale!r}")
        _refuse_less(1, growth_steps=self.growth_steps)

    def after(self, is_good: bool) -> LossScale:
        """Return the scale of the next step."""
        if not is_good:
            return replace(self, scale=self.scale / 2, good_steps=0)
        if self.good_steps + 1 < self.growth_steps:
            return replace(self, good_steps=self.good_steps + 1)
        return replace(self, scale=min(2 * self.scale, self.max_scale), good_steps=0)


class Updated(NamedTuple):
    """A parameter tensor after the update, FP32; the state is there where the rule has momentum."""

    weight: Float32s
    state: Float32s | None


def are_finite(grads: Iterable[Float32s]) -> bool:
    """Return whether the step is done, not skipped: no gradient, as it was stored, is infinite or NaN."""
    return all(bool(np.isfinite(grad).all()) for grad in grads)


def update(
    weight: Float32s,
    grad: Float32s,
    state: Float32s | None,
    rule: UpdateRule,
    scale: float = 1.0,
    kept: NDArray[np.bool_] | None = None,
) -> Updated:
    """Return the new weight and momentum of one tensor; `grad` is dW times `scale`, `kept` the mask, `state` 0 at the start."""
    if rule.needs_mask and kept is None:
        raise ConfigError("kept must be the mask of the weight, not None; a rule with sparse_decay or masked looks at it")
    old = load(weight)
    step = divide(_sparse_grad(load(grad), old, rule, scale, kept), np.float32(scale))
    if rule.decay:
        step = add(step, multiply(np.float32(rule.decay), old))
    if rule.momentum:
        before = np.zeros_like(old) if state is None else load(state)
        step = state = add(multiply(np.float32(rule.momentum), before), step)
    return Updated(subtract(old, multiply(np.float32(rule.lr), step)), state)


def _sparse_grad(grad: Float32s, old: Float32s, rule: UpdateRule, scale: float, kept: NDArray[np.bool_] | None) -> Float32s:
    """Return the gradient without what belongs to pruned weights, with the SR-STE term."""
    is_kept = np.True_ if kept is None else kept
    if rule.masked:
        grad = np.where(is_kept, grad, ZERO)
    if rule.sparse_decay:
        grad = add(grad, multiply(np.where(is_kept, ZERO, old), np.float32(rule.sparse_decay * scale)))
    return grad


def _refuse_less(least: int, **values: float) -> None:
    problems = [f"{name} must be at least {least}, not {value!r}" for name, value in values.items() if not value >= least]
    if problems:
        raise ConfigError("; ".join(problems))
