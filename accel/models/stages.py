"""One weight layer's three products in torch: FF, BP and WU, each with its own operands, tied together by autograd."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional

from accel.models.masks import nm_mask
from accel.sparsity import DENSE, NMPattern


@dataclass(frozen=True)
class Site:
    """The geometry of a convolution over 0 to 3 dimensions; over none it is a linear layer, channels last."""

    stride: tuple[int, ...] = ()
    padding: tuple[int, ...] = ()
    dilation: tuple[int, ...] = ()
    groups: int = 1

    @property
    def channel_dim(self) -> int:
        """The dimension of the channels in X and dY."""
        return 1 if self.stride else -1

    def out_major(self, weight: Tensor) -> Tensor:
        """Return `weight` (out, in, taps) as (groups, out, in, taps): dimension 1 stays inside one convolution group."""
        return weight.reshape(self.groups, -1, *weight.shape[1:])


@dataclass(frozen=True)
class StageWeight:
    """The weight of one stage: what is pruned is zero in `values`; where `mask` is given it follows `pattern` along k."""

    values: Tensor
    mask: Tensor | None = None
    pattern: NMPattern = DENSE


class Engine(Protocol):
    """Who computes the products."""

    def operand(self, weight: Tensor, x: Tensor) -> Tensor:
        """Return `weight` as the products read it, without its history: what is ranked and pruned."""

    def cast(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return X and the weight in the types that autograd gives their gradients in."""

    def forward(self, x: Tensor, weight: StageWeight, site: Site) -> Tensor:
        """Return Y."""

    def input_grad(self, grad: Tensor, x: Tensor, weight: StageWeight, site: Site, grad_pattern: NMPattern) -> Tensor:
        """Return dX, from dY pruned along the output channels; `x` gives its shape and type."""

    def weight_grad(self, x: Tensor, grad: Tensor, weight: Tensor, site: Site, grad_pattern: NMPattern) -> Tensor:
        """Return dW, from dY pruned along batch and pixels; `weight` gives its shape and type."""


class TorchEngine:
    """The products as torch computes them: any device, any floating type, autocast."""

    def operand(self, weight: Tensor, x: Tensor) -> Tensor:
        """Return the weight in the type that autocast asks for."""
        return self.cast(x, weight)[1].detach()

    def cast(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return both in the type that autocast asks for, if it is on."""
        device = x.device.type
        has_autocast = torch.amp.is_autocast_available(device)  # the meta device has none
        if not (has_autocast and torch.is_autocast_enabled(device)) or x.dtype == torch.float64:
            return x, weight
        dtype = torch.get_autocast_dtype(device)
        return x.to(dtype), weight.to(dtype)

    def forward(self, x: Tensor, weight: StageWeight, site: Site) -> Tensor:
        """Return Y."""
        if not site.stride:
            return functional.linear(x, weight.values)
        no_output_padding = [0] * len(site.stride)
        return torch.convolution(
            x, weight.values, None, site.stride, site.padding, site.dilation, False, no_output_padding, site.groups
        )

    def input_grad(self, grad: Tensor, x: Tensor, weight: StageWeight, site: Site, grad_pattern: NMPattern) -> Tensor:
        """Return dX."""
        grad = prune_channels(grad, grad_pattern, site)
        return self._conv_grads(grad, x, weight.values, site, 0) if site.stride else grad @ weight.values

    def weight_grad(self, x: Tensor, grad: Tensor, weight: Tensor, site: Site, grad_pattern: NMPattern) -> Tensor:
        """Return dW."""
        grad = prune_pixels(grad, grad_pattern, site)
        if site.stride:
            return self._conv_grads(grad, x, weight, site, 1)
        return grad.reshape(-1, grad.shape[-1]).mT @ x.reshape(-1, x.shape[-1])

    def _conv_grads(self, grad: Tensor, x: Tensor, weight: Tensor, site: Site, which: int) -> Tensor:
        wanted = [which == 0, which == 1, False]
        no_output_padding = [0] * len(site.stride)
        grads: tuple[Tensor, ...] = torch.ops.aten.convolution_backward(
            grad, x, weight, None, site.stride, site.padding, site.dilation, False, no_output_padding, site.groups, wanted
        )
        return grads[which]


def prune_channels(grad: Tensor, pattern: NMPattern, site: Site) -> Tensor:
    """Return dY pruned along the output channels of each convolution group, position by position."""
    if pattern.is_dense:
        return grad
    if not site.stride:
        return grad.where(nm_mask(grad, pattern, -1), 0)
    words = grad.unflatten(1, (site.groups, -1))
    return words.where(nm_mask(words, pattern, 2), 0).flatten(1, 2)


def prune_pixels(grad: Tensor, pattern: NMPattern, site: Site) -> Tensor:
    """Return dY pruned along batch and pixels, row-major, channel by channel."""
    if pattern.is_dense:
        return grad
    rows = grad.movedim(site.channel_dim, -1)
    mask = nm_mask(rows.reshape(-1, rows.shape[-1]), pattern, 0).reshape(rows.shape)
    return grad.where(mask.movedim(-1, site.channel_dim), 0)


@dataclass(frozen=True)
class Plan:
    """What one call of a layer computes: the weights of FF and BP and the patterns of dY."""

    engine: Engine
    site: Site
    forward: StageWeight
    backward: StageWeight
    bp_grad: NMPattern = DENSE
    wu_grad: NMPattern = DENSE


class Product(torch.autograd.Function):
    """Y = X W with the weight of FF; dX with that of BP; dW of the dense product, straight through to the dense weight."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, plan: Plan) -> Tensor:
        """Return Y; `weight` is what dW belongs to."""
        ctx.save_for_backward(x, weight, plan.backward.values, plan.backward.mask)
        # Not the plan itself: its tensors would stay for as long as somebody holds the loss.
        ctx.rest = plan.engine, plan.site, plan.backward.pattern, plan.bp_grad, plan.wu_grad
        return plan.engine.forward(x, plan.forward, plan.site)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        """Return dX and dW."""
        x, weight, values, mask = ctx.saved_tensors
        engine, site, pattern, bp_grad, wu_grad = ctx.rest
        in_grad = weight_grad = None
        if ctx.needs_input_grad[0]:
            in_grad = engine.input_grad(grads[0], x, StageWeight(values, mask, pattern), site, bp_grad)
        if ctx.needs_input_grad[1]:
            weight_grad = engine.weight_grad(x, grads[0], weight, site, wu_grad)
        return in_grad, weight_grad, None


class Update(torch.autograd.Function):
    """The weight unchanged; its gradient with the SR-STE term, or without what belongs to pruned weights."""

    @staticmethod
    def forward(ctx: Any, weight: Tensor, mask: Tensor, decay: float, masked: bool) -> Tensor:
        """Return `weight`; `decay` is times the loss scale."""
        ctx.save_for_backward(weight, mask)
        ctx.decay, ctx.masked = decay, masked
        return weight.view_as(weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None, None, None]:
        """Return the gradient of the weight."""
        weight, mask = ctx.saved_tensors
        grad = grads[0].where(mask, 0) if ctx.masked else grads[0]
        if ctx.decay:
            grad = grad + weight.where(~mask, 0) * ctx.decay
        return grad, None, None, None
