"""Pareto fronts: the points of a table that no other point beats in every objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accel.errors import ConfigError
from accel.explore.space import MAXIMIZED, OBJECTIVES

if TYPE_CHECKING:
    import pandas as pd


def front(table: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """Return the rows of `table` that no other row dominates, by the first of `objectives`, then by the others and the index.

    A row dominates another if it is no worse in any objective and better in one; so of equal rows all stay. Rows that lack an
    objective are left out. Less is better, but of `MAXIMIZED`.
    """
    check_objectives(objectives)
    missing = [name for name in objectives if name not in table or table[name].isna().all()]
    if missing and len(table):
        raise ConfigError(f"objectives must be known of some point, not {missing[0]}")
    known = table.dropna(subset=list(objectives))
    costs = np.column_stack([_cost(known, name) for name in objectives])
    indices = known["index"].to_numpy()
    rank = np.lexsort((indices, *costs.T[::-1]))
    kept: npt.NDArray[np.bool_] = _moocore().is_nondominated(costs[rank], keep_weakly=True)
    return known.iloc[rank[kept]].reset_index(drop=True)


def check_objectives(objectives: Sequence[str]) -> None:
    """Refuse names that are no objectives, or the same twice."""
    for name in objectives:
        if name not in OBJECTIVES:
            raise ConfigError(f"objectives must be among {', '.join(OBJECTIVES)}, not {name!r}")
    if not objectives or len(set(objectives)) != len(objectives):
        raise ConfigError(f"objectives must be one or more different names, not {list(objectives)}")


def _cost(table: pd.DataFrame, name: str) -> npt.NDArray[np.float64]:
    column = table[name].to_numpy(dtype=np.float64)
    return -column if name in MAXIMIZED else column


def _moocore() -> Any:
    try:
        import moocore
    except ImportError:
        raise ConfigError("fronts need moocore, which is not installed; install nm-accel[explore]") from None
    return moocore


def hypervolume(table: pd.DataFrame, objectives: Sequence[str], reference: Sequence[float]) -> float:
    """Return the volume between `reference` and the front of `table`: more is better.

    It has one dimension for each of `objectives`, in their units multiplied; `reference` is a value of each that rows of
    interest beat. Rows that do not, and rows that lack an objective, add nothing.
    """
    if len(reference) != len(objectives):
        raise ConfigError(f"reference must have a value for each of {len(objectives)} objectives, not {len(reference)}")
    check_objectives(objectives)
    known = table.dropna(subset=list(objectives))
    costs = np.column_stack([_cost(known, name) for name in objectives])
    worst = [-value if name in MAXIMIZED else value for name, value in zip(objectives, reference, strict=True)]
    return float(_moocore().hypervolume(costs, ref=worst)) if len(costs) else 0.0
