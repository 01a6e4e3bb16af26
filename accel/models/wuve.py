"""The update as WUVE does it: an optimizer with the machine's FP32 steps and its own loss scale."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from accel.errors import ConfigError

_SMALLEST_NORMAL = 2.0**-126


class WuveSGD(torch.optim.Optimizer):
    """SGD with momentum: `g = dW / scale + decay w; b = momentum b + g; w = w - lr b`.

    Every operation is rounded to FP32; subnormals, operands and results alike, are zeros of their sign. Parameters must be
    FP32. Multiply the loss by `scale()` before `backward` (`scale_loss` does). A step that meets a gradient which is not
    finite leaves weights and momentum as they are and halves the scale; after `growth_steps` good steps in a row the scale
    doubles, up to `max_scale`.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float,
        momentum: float = 0.0,
        decay: float = 0.0,
        *,
        scale: float = 2.0**16,
        growth_steps: int = 2000,
        max_scale: float = 2.0**24,
    ) -> None:
        """Take the parameters, or groups of them with their own lr, momentum and decay."""
        _check(lr=lr, momentum=momentum, decay=decay, scale=scale, growth_steps=growth_steps)
        if not max_scale >= scale:
            raise ConfigError(f"max_scale must be at least scale ({scale!r}), not {max_scale!r}")
        super().__init__(params, {"lr": lr, "momentum": momentum, "decay": decay})
        self._scale, self._growth_steps, self._max_scale = scale, growth_steps, max_scale
        self._good_steps = 0
        self.skipped_steps = 0

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Take more parameters, with their own lr, momentum and decay if given."""
        _check(**{name: param_group.get(name, self.defaults[name]) for name in ("lr", "momentum", "decay")})
        super().add_param_group(param_group)
        for param in self.param_groups[-1]["params"]:
            if param.dtype != torch.float32:
                self.param_groups.pop()
                raise ConfigError(f"params must be float32, not {param.dtype}; the machine keeps FP32 masters")

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled; torch's own would leave the scale out."""
        own = ("_scale", "_growth_steps", "_max_scale", "_good_steps", "skipped_steps")
        return {**super().__getstate__(), **{name: getattr(self, name) for name in own}}

    def scale(self) -> float:
        """Return what the loss is to be multiplied by."""
        return self._scale

    def scale_loss(self, loss: Tensor) -> Tensor:
        """Return the loss times the scale."""
        return loss * self._scale

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Update all parameters, or none if some gradient is not finite; `closure`, if given, computes the loss anew."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if all(bool(param.grad.isfinite().all()) for param in self._all_params() if param.grad is not None):
            for group in self.param_groups:
                for param in group["params"]:
                    if param.grad is not None:
                        self._update(param, group)
            self._grow()
        else:
            self._scale, self._good_steps = self._scale / 2, 0
            self.skipped_steps += 1
        return loss

    def state_dict(self) -> dict[str, Any]:
        """Return the state, scale included."""
        return {**super().state_dict(), "scale": self._scale, "good_steps": self._good_steps}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        own = {"scale", "good_steps"}
        if not own <= set(state_dict):
            raise ConfigError(
                f"state_dict must be that of a WuveSGD, with scale and good_steps, not with {', '.join(state_dict)}"
            )
        super().load_state_dict({name: value for name, value in state_dict.items() if name not in own})
        self._scale, self._good_steps = state_dict["scale"], state_dict["good_steps"]

    def _update(self, param: Any, group: dict[str, Any]) -> None:
        weight, grad = flush(param), flush(flush(param.grad) / self._scale)
        if group["decay"]:
            grad = flush(grad + flush(_fp32(group["decay"]) * weight))
        if group["momentum"]:
            state = self.state[param]
            before = state.get("momentum_buffer", torch.zeros_like(param))
            grad = state["momentum_buffer"] = flush(flush(_fp32(group["momentum"]) * before) + grad)
        param.copy_(flush(weight - flush(_fp32(group["lr"]) * grad)))

    def _grow(self) -> None:
        self._good_steps += 1
        if self._good_steps >= self._growth_steps:
            self._scale, self._good_steps = min(2 * self._scale, self._max_scale), 0

    def _all_params(self) -> list[Tensor]:
        return [param for group in self.param_groups for param in group["params"]]


def flush(values: Tensor) -> Tensor:
    """Return FP32 `values` with subnormals replaced by zeros of their sign."""
    return values.where(~(values.abs() < _SMALLEST_NORMAL), values * 0)


def _fp32(number: float) -> Tensor:
    return flush(torch.tensor(number, dtype=torch.float32))


def _check(**values: float) -> None:
    problems = [
        f"{name} must be {'more than' if name in ('scale', 'growth_steps') else 'at least'} 0, not {value!r}"
        for name, value in values.items()
        if not (value > 0 if name in ("scale", "growth_steps") else value >= 0)
    ]
    if problems:
        raise ConfigError("; ".join(problems))
