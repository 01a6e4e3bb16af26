"""Sparse training methods, each one declaration: which operand of which stage carries the N:M pattern.

Sources: BDWP, SR-STE and SDGP as the SAT paper compares them (Fang et al., arXiv 2309.13015); SR-STE is Zhou et al., ICLR 2021
(arXiv 2102.04010). docs/methods.md explains each.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from accel.errors import ConfigError


@dataclass(frozen=True)
class Method:
    """What a method prunes. `None` leaves a stage dense.

    The weight is pruned along the input channels for FF and, afresh from the dense weight, along the output channels for BP: in
    each stage along the reduction dimension. A pruned gradient is pruned on line, on its way into the array.
    """

    name: str
    description: str
    ff: Literal["weight"] | None = None
    bp: Literal["weight", "grad"] | None = None
    wu: Literal["grad"] | None = None

    @property
    def operands(self) -> tuple[str | None, str | None, str | None]:
        """The pruned operand of FF, BP and WU."""
        return self.ff, self.bp, self.wu


METHODS = {
    method.name: method
    for method in (
        Method("dense", "no pruning: the baseline"),
        Method("bdwp", "weights N:M in FF and, pruned afresh, in BP; WU dense", ff="weight", bp="weight"),
        Method("sr-ste", "weights N:M in FF; BP uses the same masked weights, which is dense work; WU dense", ff="weight"),
        Method("sdgp", "output gradients N:M in BP, pruned on line; FF and WU dense", bp="grad"),
        Method("bp-only", "weights N:M in BP only: an ablation", bp="weight"),
        Method("fully-sparse", "weights N:M in FF and BP, gradients N:M in WU: a bound", ff="weight", bp="weight", wu="grad"),
    )
}


def method(name: str) -> Method:
    """Return the named method."""
    if name not in METHODS:
        raise ConfigError(f"method must be one of {', '.join(METHODS)}, not {name!r}")
    return METHODS[name]


@dataclass(frozen=True)
class Optimizer:
    """What an update costs per weight: FP32 state words kept in DRAM and passes through the WUVE datapath."""

    name: str
    description: str
    state_words: int
    passes: int


OPTIMIZERS = {
    optimizer.name: optimizer
    for optimizer in (
        Optimizer("sgd", "g = dW/scale + decay w; b = momentum b + g; w = w - lr b", state_words=1, passes=1),
        Optimizer("sgd-plain", "sgd without momentum", state_words=0, passes=1),
        Optimizer("adam", "Adam or AdamW; four passes a weight (assumed: root and division share the datapath)", 2, 4),
    )
}


def optimizer(name: str) -> Optimizer:
    """Return the named optimizer."""
    if name not in OPTIMIZERS:
        raise ConfigError(f"optimizer must be one of {', '.join(OPTIMIZERS)}, not {name!r}")
    return OPTIMIZERS[name]
