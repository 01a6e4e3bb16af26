"""How a method trains: one declaration each, over the few switches that the layers of `accel.models.sparse` know.

Where a name exists in `accel.methods` too, both say the same of FF, BP and WU: that table is what the machine sees, this one
what the network learns with.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from accel.errors import ConfigError

SR_STE_DECAY = 2e-4
"""lambda of SR-STE (Zhou et al., ICLR 2021, section 4.2)."""


@dataclass(frozen=True)
class Recipe:
    """Which operand of which stage is pruned, by which mask, and what else the update does."""

    name: str
    description: str
    ff: bool = False
    """FF reads the weight pruned along the input channels."""
    bp: Literal["dense", "same", "afresh", "double"] = "dense"
    """The weight of BP: dense, FF's pruned one, pruned afresh along the output channels, or FF's pruned once more."""
    grad: Literal["BP", "WU"] | None = None
    """The stage that reads the output gradient pruned along its own reduction."""
    search: Literal["magnitude", "transposable", "random"] = "magnitude"
    """How FF's mask is found. Random masks follow the seed and are the same for every layer of one name."""
    refresh_steps: int | None = 1
    """Steps between two searches of FF's mask; None: once, when the layers are made."""
    soften_steps: int = 0
    """Steps in which the pruned weights fade: their factor falls from 1 to 0 in equal steps."""
    decay: float = 0.0
    """The SR-STE term: this times the pruned weights is added to the weight gradient."""
    masked_update: bool = False
    """The weight gradient of pruned weights is zero."""

    @property
    def prunes_weight(self) -> tuple[bool, bool]:
        """Whether the weight of FF, of BP follows the pattern along the reduction: where compact weights are read."""
        return self.ff, self.bp in ("afresh", "double") or (self.bp == "same" and self.search == "transposable")


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("dense", "no pruning: the baseline"),
        Recipe("bdwp", "weights pruned in FF and, afresh, in BP", ff=True, bp="afresh"),
        Recipe("sr-ste", "weights pruned in FF, the same in BP; pruned weights decay", ff=True, bp="same", decay=SR_STE_DECAY),
        Recipe("sdgp", "output gradients pruned in BP", grad="BP"),
        Recipe("bp-only", "weights pruned in BP", bp="afresh"),
        Recipe("fully-sparse", "weights pruned in FF and BP, output gradients in WU", ff=True, bp="afresh", grad="WU"),
        Recipe("transposable", "one mask for FF and BP", ff=True, bp="same", search="transposable", refresh_steps=40),
        Recipe("decaying-mask", "weights fade into the pattern, the same in BP", ff=True, bp="same", soften_steps=1000),
        Recipe(
            "slope",
            "random masks drawn once, pruned again for BP; pruned weights get no gradient",
            ff=True,
            bp="double",
            search="random",
            refresh_steps=None,
            masked_update=True,
        ),
        Recipe(
            "slope-magnitude",
            "slope with the largest weights of the start",
            ff=True,
            bp="double",
            refresh_steps=None,
            masked_update=True,
        ),
    )
}


def recipe(name: str) -> Recipe:
    """Return the named recipe."""
    if name not in RECIPES:
        raise ConfigError(f"method must be one of {', '.join(RECIPES)}, not {name!r}")
    return RECIPES[name]
