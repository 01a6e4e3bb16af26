"""Convolutions and linear layers that train by a recipe: torch's layers and parameters, with other products."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, cast
from zlib import crc32

import torch
from torch import Tensor, nn
from torch.nn import functional

from accel.models.masks import nm_mask, transposable_mask
from accel.models.recipes import RECIPES, Recipe
from accel.models.stages import Engine, Plan, Product, Site, StageWeight, TorchEngine, Update
from accel.sparsity import DENSE, NMPattern

_product: Any = Product.apply
_update: Any = Update.apply


def no_loss_scale() -> float:
    """Return 1: the loss is not scaled."""
    return 1.0


@dataclass
class Training:
    """How one layer trains, and what it remembers of the training: a plain attribute, not part of the state dict."""

    recipe: Recipe = RECIPES["dense"]
    pattern: NMPattern = DENSE
    name: str = ""
    """The layer's name: with the seed it decides a random mask."""
    seed: int = 0
    loss_scale: Callable[[], float] = no_loss_scale
    engine: Engine = field(default_factory=TorchEngine)
    step: int = 0
    """Updates of the weight seen so far."""
    held: Tensor | None = None
    """FF's mask while it is not searched anew."""
    _seen: int | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Training:
        """Return a copy that asks the same loss scaler and the same engine."""
        return replace(self, held=None if self.held is None else self.held.clone(), _seen=None)

    def __getstate__(self) -> dict[str, Any]:
        """Return what is pickled: the weight that comes with it counts its versions anew."""
        return {**vars(self), "_seen": None}

    @property
    def factor(self) -> float:
        """What pruned weights are multiplied by: 0 but in the first steps of a decaying mask."""
        return max(0.0, 1.0 - self.step / self.recipe.soften_steps) if self.recipe.soften_steps else 0.0

    def count(self, weight: Tensor) -> None:
        """Note whether an update has changed `weight` since the last call."""
        if self._seen is not None and weight._version != self._seen:
            self.step += 1
            if self.recipe.refresh_steps and self.step % self.recipe.refresh_steps == 0:
                self.held = None
        self._seen = weight._version

    def restore(self, step: int, held: Tensor | None) -> None:
        """Go on from `step` with the mask held then."""
        self.step, self.held, self._seen = step, held, None

    def masks(self, weight: Tensor, site: Site) -> tuple[Tensor | None, Tensor | None]:
        """Return what FF and BP keep of `weight`; None: everything."""
        ff = self.ff_mask(weight, site) if self.recipe.ff else None
        return ff, self._bp_mask(weight, site, ff)

    def _bp_mask(self, weight: Tensor, site: Site, ff: Tensor | None) -> Tensor | None:
        if self.recipe.bp in ("dense", "same"):
            return None if self.recipe.bp == "dense" else ff
        ranked = weight if ff is None or self.recipe.bp == "afresh" else weight.where(ff, 0)
        mask = nm_mask(site.out_major(ranked), self.pattern, 1).flatten(0, 1)
        return mask if self.recipe.bp == "afresh" or ff is None else mask & ff

    def ff_mask(self, weight: Tensor, site: Site) -> Tensor:
        """Return what FF would keep of `weight`: searched anew, or the mask held since the last search."""
        if self.held is not None and self.held.shape == weight.shape:
            self.held = self.held.to(weight.device)
            return self.held
        mask = self._search(weight, site)
        if self.recipe.refresh_steps != 1:
            self.held = mask
        return mask

    def _search(self, weight: Tensor, site: Site) -> Tensor:
        if self.recipe.search == "transposable":
            return transposable_mask(site.out_major(weight), self.pattern, 1, 2).flatten(0, 1)
        if self.recipe.search == "random":
            generator = torch.Generator().manual_seed(crc32(f"{self.seed} {self.name}".encode()))
            return nm_mask(torch.rand(weight.shape, generator=generator), self.pattern, 1).to(weight.device)
        return nm_mask(weight, self.pattern, 1)

    def update_mask(self, weight: Tensor, site: Site, masks: tuple[Tensor | None, Tensor | None]) -> Tensor:
        """Return what the SR-STE term and the masked update count as kept: FF's mask, else BP's, else what FF would keep."""
        ff, bp = masks
        if ff is not None:
            return ff
        return self.ff_mask(weight, site) if bp is None else bp

    def product(self, x: Tensor, weight: Tensor, site: Site) -> Tensor:
        """Return the layer's output without its bias."""
        values = self.engine.operand(weight.detach(), x)
        masks = self.masks(values, site)
        if self.recipe.decay or self.recipe.masked_update:
            kept = self.update_mask(values, site, masks)
            weight = _update(weight, kept, self.recipe.decay * self.loss_scale(), self.recipe.masked_update)
        x, weight = self.engine.cast(x, weight)
        out: Tensor = _product(x, weight, self.plan(values, masks, site))
        return out

    def plan(self, values: Tensor, masks: tuple[Tensor | None, Tensor | None], site: Site) -> Plan:
        """Return what one call computes, given the weight and what is kept of it."""
        reductions = values.shape[1], values.shape[0] // site.groups
        ff, bp = (
            self._stage_weight(values, mask, compact and self.factor == 0.0 and inner > self.pattern.keep)
            for mask, compact, inner in zip(masks, self.recipe.prunes_weight, reductions, strict=True)
        )
        bp_grad, wu_grad = (self.pattern if self.recipe.grad == stage else DENSE for stage in ("BP", "WU"))
        return Plan(self.engine, site, ff, bp, bp_grad, wu_grad)

    def _stage_weight(self, values: Tensor, mask: Tensor | None, compact: bool) -> StageWeight:
        if mask is None:
            return StageWeight(values)
        pruned = values.where(mask, values * self.factor if self.factor else 0)
        return StageWeight(pruned, mask, self.pattern) if compact else StageWeight(pruned)


def call(layer: Any, x: Tensor, site: Site) -> Tensor:
    """Return the output of `layer`, bias included; `x` has a batch dimension."""
    if layer.training:
        layer.sparse.count(layer.weight)
    out: Tensor = layer.sparse.product(x, layer.weight, site)
    if layer.bias is None:
        return out
    bias: Tensor = layer.bias.to(out.dtype)
    return out + bias.view(-1, *[1] * len(site.stride))


class _SparseLayer(nn.Module):
    """The part that all layers of this file share."""

    sparse: Training
    weight: nn.Parameter

    def __getstate__(self) -> dict[str, Any]:
        """Return what is copied and pickled: an update that no call has seen yet is counted first."""
        self.sparse.count(self.weight)
        return self.__dict__


class _SparseConv(_SparseLayer, nn.modules.conv._ConvNd):
    """The part that convolutions over 1, 2 and 3 dimensions share."""

    def site(self) -> Site:
        """Return the geometry, but for padding that is done beforehand."""
        padding = (0,) * len(self.stride) if self._pads_first() else cast(tuple[int, ...], self.padding)
        return Site(self.stride, padding, self.dilation, self.groups)

    def forward(self, input: Tensor) -> Tensor:
        """Return the convolution of `input`, with or without a batch dimension."""
        if self._pads_first():
            mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
            input = functional.pad(input, self._reversed_padding_repeated_twice, mode=mode)
        if input.dim() == len(self.stride) + 1:
            return call(self, input.unsqueeze(0), self.site()).squeeze(0)
        return call(self, input, self.site())

    def _pads_first(self) -> bool:
        return self.padding_mode != "zeros" or isinstance(self.padding, str)


class SparseConv1d(_SparseConv, nn.Conv1d):
    """A `torch.nn.Conv1d` that trains by a recipe."""


class SparseConv2d(_SparseConv, nn.Conv2d):
    """A `torch.nn.Conv2d` that trains by a recipe."""


class SparseConv3d(_SparseConv, nn.Conv3d):
    """A `torch.nn.Conv3d` that trains by a recipe."""


class SparseLinear(_SparseLayer, nn.Linear):
    """A `torch.nn.Linear` that trains by a recipe."""

    def site(self) -> Site:
        """Return the geometry of no dimensions."""
        return Site()

    def forward(self, input: Tensor) -> Tensor:
        """Return `input` times the weight, transposed, plus the bias."""
        return call(self, input, self.site())


TWINS: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv1d: SparseConv1d,
    nn.Conv2d: SparseConv2d,
    nn.Conv3d: SparseConv3d,
    nn.Linear: SparseLinear,
}
_ORIGINALS = {sparse: dense for dense, sparse in TWINS.items()}


def is_sparse(module: nn.Module) -> bool:
    """Whether `module` is one of the layers of this file."""
    return type(module) in _ORIGINALS


def has_sparse(module: nn.Module) -> bool:
    """Whether a layer of this file is in `module`, also one that was parametrized since and so has another class."""
    return any(isinstance(part, _SparseLayer) for part in module.modules())


def sparse_layers(module: nn.Module) -> dict[str, Any]:
    """Return the layers of this file in `module`, by name; a module that is one itself is named ""."""
    return {name: part for name, part in module.named_modules() if is_sparse(part)}


def make_sparse(layer: Any, training: Training) -> None:
    """Turn a layer of torch into its twin of this file, in place: same object, parameters, hooks."""
    layer.__class__ = TWINS.get(type(layer), type(layer))
    layer.sparse = training


def make_dense(layer: Any) -> None:
    """Turn a layer of this file back into torch's."""
    del layer.sparse
    layer.__class__ = _ORIGINALS[type(layer)]


def set_fast_paths(module: nn.Module) -> None:
    """Let the encoders and encoder layers of `module` use torch's fused kernels only where they hold no layer of this file.

    In evaluation such a kernel reads the weights of the linear layers itself instead of calling them.
    """
    switches = {nn.TransformerEncoder: "use_nested_tensor", nn.TransformerEncoderLayer: "activation_relu_or_gelu"}
    parts: list[tuple[Any, str]] = [
        (part, switch) for part in module.modules() for kind, switch in switches.items() if isinstance(part, kind)
    ]
    for part, switch in parts:
        if sparse_layers(part) and not hasattr(part, "fast_path"):
            part.fast_path = getattr(part, switch)
            setattr(part, switch, False)
        elif not sparse_layers(part) and hasattr(part, "fast_path"):
            setattr(part, switch, part.fast_path)
            del part.fast_path
