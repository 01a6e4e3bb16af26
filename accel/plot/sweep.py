"""Pictures of a sweep: tables of `accel.explore.store.Results` in, figures out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter, NullLocator

from accel.errors import ConfigError
from accel.explore.columns import Levels, label, levels, scale, text
from accel.explore.pareto import check_objectives, front
from accel.explore.space import MAXIMIZED
from accel.plot.style import COLORS, Picture, in_style

if TYPE_CHECKING:
    import pandas as pd

Floats = npt.NDArray[np.float64]

LINES = 3000
"""Lines that a picture of parallel coordinates has at most, beside those of the front."""
_LOG_SPAN = 8.0
"""Numbers of one sign that span more than this are drawn on a logarithmic axis."""


@in_style
def plot_front(table: pd.DataFrame, objectives: Sequence[str] = ("time", "all_luts"), title: str = "") -> Picture:
    """Draw all points by the first two of `objectives`, and the front of all of them.

    The line bounds what the first two allow. A third objective colours the front. Raises `ConfigError` for objectives that
    are unknown or fewer than two, or if no point runs.
    """
    if len(objectives) < 2:
        raise ConfigError(f"objectives must be two or more for a front, not {list(objectives)}")
    known, best = _running(table, objectives), front(table, objectives)
    edge = front(table, objectives[:2])
    picture = Picture(figsize=(5.2, 3.6))
    axes = picture.add_subplot()
    x, y = (_set_axis(axes, which, name, known[name]) for which, name in zip("xy", objectives, strict=False))
    axes.scatter(known[objectives[0]] / x, known[objectives[1]] / y, s=9, color=COLORS["gray"], alpha=0.5, linewidths=0,
                 label=f"{len(known):,} points that run", rasterized=len(known) > 5000)  # fmt: skip
    where: Literal["pre", "post"] = "pre" if objectives[0] in MAXIMIZED else "post"
    axes.step(edge[objectives[0]] / x, edge[objectives[1]] / y, where=where, color=COLORS["blue"], linewidth=1.0)
    _draw_best(picture, axes, best, objectives, (x, y))
    axes.set_title(title, loc="left")
    axes.legend(loc="best")
    return picture


def _draw_best(
    picture: Picture, axes: Axes, best: pd.DataFrame, objectives: Sequence[str], factors: tuple[float, float]
) -> None:
    """Draw the points of the front, coloured by a third objective if there is one."""
    x, y = (best[name] / factor for name, factor in zip(objectives[:2], factors, strict=True))
    words = f"{len(best):,} on the front of {', '.join(map(label, objectives))}"
    look: dict[str, Any] = {"s": 30, "edgecolors": COLORS["dark"], "linewidths": 0.6, "zorder": 3, "label": words}
    if len(objectives) == 2:
        axes.scatter(x, y, color=COLORS["orange"], **look)
        return
    third = scale(objectives[2], best[objectives[2]])
    numbers = best[objectives[2]].to_numpy(np.float64) / third.factor
    marks = axes.scatter(x, y, c=numbers, norm="log" if _is_log(numbers) else "linear", **look)
    bar = picture.colorbar(marks, ax=axes, label=third.label, pad=0.02)
    if _is_log(numbers):
        _set_log(bar.ax, "y")


@in_style
def plot_parallel(
    table: pd.DataFrame, columns: Sequence[str], objectives: Sequence[str] = ("time", "all_luts"), seed: int = 0
) -> Picture:
    """Draw a line for every point across `columns`, the front of `objectives` on top, coloured by the first of them.

    Of more than `LINES` points a sample by `seed` is drawn. A column of few values has them at equal distances.
    """
    known, best = _running(table, objectives), front(table, objectives)
    _check_columns(known, columns, 2)
    shown = known if len(known) <= LINES else known.sample(LINES, random_state=seed)
    picture = Picture(figsize=(max(5.2, 1.15 * len(columns)), 3.6))
    axes = picture.add_subplot()
    places = [_Track(known[name], name) for name in columns]
    across = np.arange(len(columns), dtype=np.float64)
    crowd = [np.column_stack([across, heights]) for heights in _heights(places, shown)]
    axes.add_collection(LineCollection(crowd, colors=COLORS["gray"], linewidths=0.5, alpha=min(0.5, 60 / len(crowd) + 0.06)))
    lines = LineCollection([np.column_stack([across, heights]) for heights in _heights(places, best)], linewidths=1.3)
    first = scale(objectives[0], best[objectives[0]])
    lines.set_array(best[objectives[0]].to_numpy(np.float64) / first.factor)
    axes.add_collection(lines)
    picture.colorbar(lines, ax=axes, label=f"front: {first.label}", pad=0.02)
    for place, track in enumerate(places):
        track.draw(axes, place)
    drawn = "" if len(shown) == len(known) else f", {len(shown):,} drawn"
    axes.set(xlim=(-0.3, len(columns) - 0.7), ylim=(-0.03, 1.03), yticks=[])
    axes.set_title(f"{len(known):,} points that run{drawn}; coloured: the front, {len(best):,}", loc="left")
    axes.set_xticks(across, [track.title for track in places], rotation=30, ha="right", rotation_mode="anchor")
    axes.grid(False)
    axes.spines[["left", "bottom"]].set_visible(False)
    axes.tick_params(length=0)
    return picture


class _Track:
    """One vertical axis of parallel coordinates, from 0 to 1: levels at equal distances where they are few, else numbers."""

    def __init__(self, column: pd.Series[Any], name: str) -> None:
        self.name = name
        self._levels = _levels_of(column, name)
        if self._levels is None:
            self._numbers = column.to_numpy(np.float64)
            self._log = _is_log(self._numbers)
            self._scale = scale(name, self._numbers)
            self.title = self._scale.label
        else:
            self.title = label(name)

    def heights(self, column: pd.Series[Any]) -> Floats:
        """Return where the values of `column`, part of the track's, are."""
        if self._levels is not None:
            place = {value: index for index, value in enumerate(self._levels)}
            found = levels(column)
            return np.array([place[found.values[code]] for code in found.codes]) / max(1, len(place) - 1)
        low, high = self._ends
        return (self._forward(column.to_numpy(np.float64)) - low) / ((high - low) or 1.0)

    @property
    def _ends(self) -> tuple[float, float]:
        numbers = self._forward(self._numbers)
        return float(numbers.min()), float(numbers.max())

    def _forward(self, numbers: Floats) -> Floats:
        return np.log10(numbers) if self._log else numbers

    def draw(self, axes: Axes, place: int) -> None:
        """Draw the axis with its values."""
        axes.axvline(place, color=COLORS["dark"], linewidth=0.8)
        for height, words in self._ticks():
            axes.text(place + 0.04, height, words, fontsize=7, va="center", zorder=5,
                      bbox={"facecolor": "white", "alpha": 0.75, "edgecolor": "none", "pad": 0.6})  # fmt: skip

    def _ticks(self) -> Iterable[tuple[float, str]]:
        if self._levels is not None:
            last = max(1, len(self._levels) - 1)
            return [(index / last, text(self.name, value)) for index, value in enumerate(self._levels)]
        low, high = self._ends
        values = [low + (high - low) * part for part in (0.0, 0.25, 0.5, 0.75, 1.0)]
        numbers = [10**value if self._log else value for value in values]
        return [(index / 4, f"{number / self._scale.factor:.3g}") for index, number in enumerate(numbers)]


def _heights(tracks: Sequence[_Track], rows: pd.DataFrame) -> Floats:
    """Return (rows, tracks): where each row meets each track."""
    return np.column_stack([track.heights(rows[track.name]) for track in tracks])


@in_style
def plot_sensitivity(table: pd.DataFrame, fields: Sequence[str], objectives: Sequence[str] = ("time",)) -> Picture:
    """Draw for every value of each field the best that points with it reach, all other fields free.

    One panel for each objective; a value's place is its best over the best of all, so that a field's line is as long as a
    wrong choice of it costs. Fields with the longest come first. Values with which no point runs are left out.
    """
    known = _running(table, objectives)
    _check_columns(known, fields, 1)
    picture = Picture(figsize=(1.6 + 3.4 * len(objectives), 1.0 + 0.42 * len(fields)))
    for panel, objective in enumerate(objectives):
        axes = picture.add_subplot(1, len(objectives), panel + 1)
        bests = {name: _best_by_level(known, name, objective) for name in fields}
        order = sorted(fields, key=lambda name: _cost_span(bests[name][1]))
        for height, name in enumerate(order):
            _draw_sensitivity(axes, height, name, *bests[name])
        best = _best_of(known, objective)
        axes.set_yticks(range(len(order)), [label(name) for name in order])
        axes.set_ylim(-0.6, len(order) - 0.4)
        axes.set_xlabel(f"best {label(objective)},\nover the best of all ({text(objective, best)})")
        axes.margins(x=0.4)
        axes.grid(axis="y", visible=False)
        if _is_log(np.concatenate([costs for _, costs in bests.values()])):
            _set_log(axes, "x")
    return picture


def _best_by_level(known: pd.DataFrame, name: str, objective: str) -> tuple[list[Any], Floats]:
    """Return the values of a field and what is reached with each, over the best of all."""
    found = levels(known[name])
    numbers, best = known[objective].to_numpy(np.float64), _best_of(known, objective)
    pick = np.max if objective in MAXIMIZED else np.min
    return found.values, np.array([pick(numbers[found.codes == code]) for code in range(len(found.values))]) / best


def _best_of(known: pd.DataFrame, objective: str) -> float:
    return float(known[objective].max() if objective in MAXIMIZED else known[objective].min())


def _cost_span(costs: Floats) -> float:
    """Return how far the best of a field's values is from the worst, as a factor."""
    return float(costs.max() / costs.min()) if len(costs) and costs.min() > 0 else 1.0


def _draw_sensitivity(axes: Axes, height: int, name: str, values: list[Any], costs: Floats) -> None:
    """Draw one field: a dot for each value, the two ends named."""
    axes.plot([costs.min(), costs.max()], [height, height], color=COLORS["gray"], linewidth=1.6, zorder=2)
    axes.scatter(costs, np.full(len(costs), height), s=26, color=COLORS["blue"], edgecolors="white", linewidths=0.6, zorder=3)
    if costs.min() == costs.max():
        axes.annotate("all alike", (costs[0], height), (5, 0), textcoords="offset points", fontsize=7, va="center")
        return
    for end, offset, side in ((int(costs.argmin()), -5, "right"), (int(costs.argmax()), 5, "left")):
        equal = [value for value, cost in zip(values, costs, strict=True) if cost == costs[end]]
        words = text(name, equal[0]) + (f" +{len(equal) - 1}" if len(equal) > 1 else "")
        axes.annotate(words, (costs[end], height), (offset, 0), textcoords="offset points", fontsize=7, va="center", ha=side)


@in_style
def plot_heat(table: pd.DataFrame, x: str, y: str, objective: str = "time") -> Picture:
    """Draw the best of `objective` for every pair of values of the fields `x` and `y`, all other fields free.

    A pair with which no point runs stays white, with a cross.
    """
    known = _running(table, (objective,))
    _check_columns(known, (x, y), 2)
    columns, rows = levels(known[x]), levels(known[y])
    numbers, is_more = known[objective].to_numpy(np.float64), objective in MAXIMIZED
    cells = np.full((len(rows.values), len(columns.values)), -np.inf if is_more else np.inf)
    (np.maximum if is_more else np.minimum).at(cells, (rows.codes, columns.codes), numbers)
    cells[~np.isfinite(cells)] = np.nan
    shown = scale(objective, numbers)
    across, up = (min(max(4, len(found.values)), 14) for found in (columns, rows))
    picture = Picture(figsize=(1.9 + 0.62 * across, 1.2 + 0.42 * up))
    axes = picture.add_subplot()
    norm = "log" if _is_log(cells[np.isfinite(cells)]) else "linear"
    image = axes.imshow(
        cells / shown.factor, origin="lower", aspect="auto", norm=norm, cmap="viridis" if is_more else "viridis_r"
    )
    bar = picture.colorbar(image, ax=axes, label=f"best {shown.label}", pad=0.02)
    if norm == "log":
        _set_log(bar.ax, "y")
    _write_cells(axes, cells / shown.factor, image)
    for which, name, found in (("x", x, columns), ("y", y, rows)):
        _set_levels(axes, which, name, found)
    axes.grid(False)
    return picture


def _write_cells(axes: Axes, cells: Floats, image: Any) -> None:
    """Write each cell's number in it, where there is room, and a cross where there is none."""
    if cells.size > 150:
        return
    for (row, column), value in np.ndenumerate(cells):
        if np.isnan(value):
            axes.text(column, row, "x", ha="center", va="center", color=COLORS["gray"])
            continue
        red, green, blue, _ = image.cmap(image.norm(value))
        ink = "white" if 0.3 * red + 0.6 * green + 0.1 * blue < 0.5 else COLORS["dark"]
        axes.text(column, row, f"{value:.3g}", ha="center", va="center", fontsize=7, color=ink)


def _set_levels(axes: Axes, which: str, name: str, found: Levels) -> None:
    step = max(1, len(found.values) // 12)
    places = range(0, len(found.values), step)
    words = [text(name, found.values[place]) for place in places]
    axes.set(**{f"{which}label": label(name)})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_ticks(places, words)
    if which == "x" and len("  ".join(words)) > 60:
        axes.tick_params("x", rotation=30)


def _running(table: pd.DataFrame, objectives: Sequence[str]) -> pd.DataFrame:
    """Return the rows of which every objective is known, or refuse a table without one."""
    check_objectives(objectives)
    known = table.dropna(subset=[name for name in objectives if name in table])
    if any(name not in table for name in objectives) or known.empty:
        raise ConfigError(f"table must have a point of which {', '.join(objectives)} are known; none of {len(table):,} has")
    return known


def _check_columns(known: pd.DataFrame, columns: Sequence[str], least: int) -> None:
    for name in columns:
        if name not in known or known[name].isna().any():
            raise ConfigError(f"fields must be columns that all points that run have, not {name!r}")
    if len(set(columns)) != len(columns) or len(columns) < least:
        raise ConfigError(f"fields must be {least} or more different names, not {list(columns)}")


def _levels_of(column: pd.Series[Any], name: str) -> list[Any] | None:
    """Return the levels of a column that has few or none but texts; None where it is better drawn as numbers."""
    found = levels(column).values
    return found if len(found) <= 12 or isinstance(found[0], tuple) else None


def _is_log(numbers: Floats) -> bool:
    return bool(len(numbers) and numbers.min() > 0 and numbers.max() / numbers.min() > _LOG_SPAN)


def _set_axis(axes: Axes, which: str, name: str, values: pd.Series[Any]) -> float:
    """Name an axis by what it shows, and return what numbers on it are divided by."""
    numbers = values.to_numpy(np.float64)
    shown = scale(name, numbers)
    axes.set(**{f"{which}label": shown.label})
    if _is_log(numbers):
        _set_log(axes, which)
    else:
        (axes.xaxis if which == "x" else axes.yaxis).set_major_locator(MaxNLocator(6))
    return shown.factor


def _set_log(axes: Axes, which: str) -> None:
    """Make an axis logarithmic, with plain numbers on it."""
    axes.set(**{f"{which}scale": "log"})
    axis = axes.xaxis if which == "x" else axes.yaxis
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())
    axis.set_minor_locator(NullLocator())
