"""N:M sparse training of any PyTorch module: `sparsify` and what goes with it.

    model = sparsify(model, "bdwp", "2:8")

From then on convolutions and linear layers compute FF, BP and WU each with its own operand: FF with the weight pruned along the
input channels (tap by tap, in groups of consecutive channels inside a convolution group, the last one short), BP with the
weight pruned along the output channels, WU with dense operands, straight through to the dense weight. The layers keep their
parameters: state dicts, optimizers, copies, autocast and gradient scaling work as before.

Only layers that are exactly torch's `Conv1d`, `Conv2d`, `Conv3d` and `Linear` are turned. What does not call them is not
pruned: the projections inside `nn.MultiheadAttention`, transposed convolutions, parametrized layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import Tensor, nn

from accel.errors import ConfigError
from accel.golden.prune import Entries
from accel.models.layers import (
    TWINS,
    Training,
    is_sparse,
    make_dense,
    make_sparse,
    no_loss_scale,
    set_fast_paths,
    sparse_layers,
)
from accel.models.matrices import Operand, bp_operands, ff_operands
from accel.models.recipes import Recipe, recipe
from accel.models.stages import Site, TorchEngine
from accel.sparsity import DENSE, NMPattern


def sparsify(
    module: nn.Module,
    method: str = "bdwp",
    pattern: str | NMPattern = "2:8",
    *,
    exclude: Sequence[str] | None = None,
    decay: float | None = None,
    masked_update: bool | None = None,
    refresh_steps: int | None = None,
    soften_steps: int | None = None,
    loss_scale: Callable[[], float] = no_loss_scale,
    seed: int = 0,
) -> nn.Module:
    """Make the convolutions and linear layers of `module` train by `method`, in place, and return it.

    `pattern` is kept:group. `exclude` are name patterns (`*`, `?`) of layers that stay dense; by default the first weight
    layer, in the order of `named_modules`. Layers in which nothing would be pruned stay as they are. `decay` is the factor of
    the SR-STE term, `masked_update` gives pruned weights no gradient, `refresh_steps` lie between two searches of the mask,
    `soften_steps` is how long pruned weights fade: each defaults to the method's own, and the first two work with every
    method. `loss_scale` returns what the loss is multiplied by (`get_scale` of a `GradScaler`, `scale` of a `WuveSGD`):
    the SR-STE term is part of the gradient, once for every call of a layer, and must be scaled with it. `seed` draws the
    random masks. A module made sparse before starts anew.
    """
    changes = {
        "decay": decay,
        "masked_update": masked_update,
        "refresh_steps": refresh_steps,
        "soften_steps": soften_steps,
    }
    chosen = _changed(recipe(method), {name: value for name, value in changes.items() if value is not None})
    parsed = NMPattern.parse(pattern) if isinstance(pattern, str) else pattern
    parsed = DENSE if chosen.name == "dense" else parsed
    layers = weight_layers(module)
    if any(not isinstance(layer.sparse.engine, TorchEngine) for layer in sparse_layers(module).values()):
        raise ConfigError("module must be off the machine to be made sparse; call off_machine, then sparsify, then on_machine")
    selected = _selected(module, layers, exclude)
    pruned = {name: layer for name, layer in selected.items() if chosen.name == "dense" or _is_prunable(layer, chosen, parsed)}
    if not pruned:
        raise ConfigError(
            f"module must have a layer that {method} prunes at {parsed}, not only {_listed(layers, selected)}; "
            "exclude fewer layers or choose a pattern that keeps less"
        )
    desparsify(module)
    for name, layer in pruned.items():
        make_sparse(layer, Training(chosen, parsed, name, seed, loss_scale))
        _draw(layer)
    set_fast_paths(module)
    return module


def desparsify(module: nn.Module) -> nn.Module:
    """Turn the layers of `module` back into torch's own, in place, and return it; parameters stay what they are, dense."""
    for layer in sparse_layers(module).values():
        make_dense(layer)
    set_fast_paths(module)
    return module


def weight_layers(module: nn.Module) -> dict[str, nn.Module]:
    """Return the layers of `module` that can be made sparse, by name; a module that is one itself is named ""."""
    return {name: part for name, part in module.named_modules() if type(part) in TWINS or is_sparse(part)}


@torch.no_grad()
def weight_masks(module: nn.Module) -> dict[str, tuple[Tensor | None, Tensor | None]]:
    """Return for every sparse layer what FF and BP keep of its weight now; None: everything."""
    return {name: layer.sparse.masks(_operand(layer), layer.site()) for name, layer in sparse_layers(module).items()}


@dataclass(frozen=True)
class CompactLayer:
    """The compact weights of one layer, a list with the entries of each convolution group; None: the stage reads it dense."""

    ff: list[Entries] | None
    """Groups along the input channels, taps in row-major order: matrices (taps * in, out)."""
    bp: list[Entries] | None
    """Groups along the output channels: matrices (taps * out, in)."""


@torch.no_grad()
def export_nm(module: nn.Module) -> dict[str, CompactLayer]:
    """Return the values and indices that the machine would read for every sparse layer, rounded to FP16."""
    exported = {}
    for name, layer in sparse_layers(module).items():
        plan = layer.sparse.plan(values := _operand(layer), layer.sparse.masks(values, layer.site()), layer.site())
        exported[name] = CompactLayer(
            _compact(ff_operands(plan.forward, plan.site)), _compact(bp_operands(plan.backward, plan.site))
        )
    return exported


def method_state(module: nn.Module) -> dict[str, dict[str, Any]]:
    """Return what the methods remember besides the parameters, by layer: steps done and masks held; save it with them."""
    layers = sparse_layers(module)
    for layer in layers.values():
        layer.sparse.count(layer.weight)
    return {name: {"step": layer.sparse.step, "held": layer.sparse.held} for name, layer in layers.items()}


def load_method_state(module: nn.Module, state: dict[str, dict[str, Any]]) -> None:
    """Restore what `method_state` returned into a module made sparse alike."""
    layers = sparse_layers(module)
    if set(state) != set(layers):
        raise ConfigError(f"state must name the sparse layers {', '.join(sorted(layers))}, not {', '.join(sorted(state))}")
    for name, layer in layers.items():
        layer.sparse.restore(**state[name])


class ChurnTracker:
    """How much the masks of a module change from step to step."""

    def __init__(self, module: nn.Module) -> None:
        """Start from the masks of now."""
        self._module = module
        self._last = self._now()

    def update(self) -> dict[str, float]:
        """Return the share of mask bits that changed since the last call, by layer and stage ("conv2.FF"), and in "total"."""
        last, self._last = self._last, self._now()
        changed = {name: int((mask != last[name]).sum()) for name, mask in self._last.items() if name in last}
        sizes = {name: self._last[name].numel() for name in changed}
        shares = {name: count / max(1, sizes[name]) for name, count in changed.items()}
        return {**shares, "total": sum(changed.values()) / max(1, sum(sizes.values()))}

    def _now(self) -> dict[str, Tensor]:
        masks = weight_masks(self._module)
        return {
            f"{name}.{stage}": mask.clone()
            for name, pair in masks.items()
            for stage, mask in zip(("FF", "BP"), pair, strict=True)
            if mask is not None
        }


def mask_churn(module: nn.Module) -> ChurnTracker:
    """Return a tracker: its `update`, called after each step, gives the share of mask bits that changed."""
    return ChurnTracker(module)


def _compact(operands: list[Operand]) -> list[Entries] | None:
    found = [operand for operand in operands if isinstance(operand, Entries)]
    return found or None


def _operand(layer: Any) -> Tensor:
    operand: Tensor = layer.sparse.engine.operand(layer.weight.detach(), layer.weight)
    return operand


@torch.no_grad()
def _draw(layer: Any) -> None:
    """Draw a mask that is drawn only once."""
    if layer.sparse.recipe.refresh_steps is None:
        layer.sparse.ff_mask(layer.weight.detach(), layer.site())


def _changed(chosen: Recipe, changes: dict[str, Any]) -> Recipe:
    problems = [
        f"{name} must be {limit}, not {changes[name]!r}"
        for name, least, limit in (
            ("decay", 0, "at least 0"),
            ("refresh_steps", 1, "at least 1"),
            ("soften_steps", 1, "at least 1"),
        )
        if name in changes and not changes[name] >= least
    ]
    if problems:
        raise ConfigError("; ".join(problems))
    return replace(chosen, **changes)


def _selected(module: nn.Module, layers: dict[str, nn.Module], exclude: Sequence[str] | None) -> dict[str, nn.Module]:
    if exclude is None:
        return dict(list(layers.items())[1:]) if len(layers) > 1 or "" not in layers else layers
    for glob in exclude:
        if not any(fnmatchcase(name, glob) for name in layers):
            raise ConfigError(f"exclude must match a weight layer of {type(module).__name__}, not {glob!r}")
    return {name: layer for name, layer in layers.items() if not any(fnmatchcase(name, glob) for glob in exclude)}


def _is_prunable(layer: Any, chosen: Recipe, pattern: NMPattern) -> bool:
    """Whether some stage would have fewer elements than when dense."""
    site: Site = layer.site() if is_sparse(layer) else Site(groups=getattr(layer, "groups", 1))
    inner, outer = layer.weight.shape[1], layer.weight.shape[0] // site.groups
    along_in = chosen.ff and inner > pattern.keep
    along_out = (chosen.bp in ("afresh", "double") or chosen.grad == "BP") and outer > pattern.keep
    return not pattern.is_dense and (along_in or along_out or chosen.grad == "WU")


def _listed(layers: dict[str, nn.Module], selected: dict[str, nn.Module]) -> str:
    if not layers:
        return "layers without weights"
    return ", ".join(name or "itself" for name in (selected or layers))
