"""Pareto fronts: the points of a table that no other point beats in every objective."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

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
    sorted_costs = costs[rank]
    kept = _front_of_two(sorted_costs) if len(objectives) == 2 else _front_of_more(sorted_costs)
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


def _front_of_two(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which of the rows, sorted, stay: those whose second cost is below all before, and their equals."""
    if not len(costs):
        return np.zeros(0, np.bool_)
    second = costs[:, 1]
    least_before = np.concatenate(([np.inf], np.minimum.accumulate(second)[:-1]))
    kept = second < least_before
    equals = np.concatenate(([False], (costs[1:] == costs[:-1]).all(axis=1)))
    first = np.maximum.accumulate(np.where(equals, 0, np.arange(len(costs))))  # of each run of equal rows
    kept[0] = True  # also where its second cost is infinite
    result: npt.NDArray[np.bool_] = kept[first]
    return result


def _front_of_more(costs: npt.NDArray[np.float64]) -> npt.NDArray[np.bool_]:
    """Return which of the rows, sorted, stay: a row can only be dominated by one before it, and then by one that stays."""
    kept: list[int] = []
    for index, cost in enumerate(costs):
        others = costs[kept]
        if not ((others <= cost).all(axis=1) & (others < cost).any(axis=1)).any():
            kept.append(index)
    mask = np.zeros(len(costs), np.bool_)
    mask[kept] = True
    return mask
