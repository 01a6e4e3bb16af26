"""One self-contained page of a sweep: `Results` in, HTML text out. docs/explore.md describes the page.

Columns go into the page as packed numbers, so that 100,000 points take some megabytes; they are the table's own, to the last
bit, and so a front that the page finds is the one that `accel.explore.front` finds.
"""

from __future__ import annotations

import shlex
from base64 import b64encode
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import tomli_w

from accel.explore.columns import label, levels, text, unit
from accel.explore.commands import commands
from accel.explore.pareto import front
from accel.explore.space import AMOUNTS, MAXIMIZED, OBJECTIVES, machine
from accel.explore.store import Results
from accel.html import frame
from accel.presets import DEFAULT_BATCH

if TYPE_CHECKING:
    import pandas as pd

MOST_POINTS = 100_000
"""Points in a page, at most, beside those of the front."""
_PLACE = "@POINT@"
"""Stands for the number of a point."""


def build_page(
    results: Results, objectives: Sequence[str], folder: str, command: str, most: int = MOST_POINTS, seed: int = 0
) -> str:
    """Return the page of a sweep whose machines are judged by `objectives`.

    `command` is the command line that writes the page again. Of more than `most` points it has the front and a sample of
    the others by `seed`, and says so. Raises `ConfigError` as `front` does.
    """
    data = page_data(results, objectives, most, seed)
    data["machine_command"] = shlex.join(["accel", "pareto", folder, "--point", _PLACE, "--arch-out", "."])
    return frame.build(
        "sweep.html", ["charts.js", "points.js", "sweep_charts.js", "sweep.js"], data, f"Sweep {folder}", command=command
    )


def page_data(results: Results, objectives: Sequence[str], most: int = MOST_POINTS, seed: int = 0) -> dict[str, Any]:
    """Return what the page's data block holds: docs/explore.md describes it."""
    table, work = results.table, results.toml["work"]
    shown = _shown(table, objectives, most, seed)
    own = [name for name in table if str(name).endswith(".seconds")]  # step by step
    amounts = [name for name in (*AMOUNTS, *OBJECTIVES, *(own if len(own) > 1 else ())) if name not in results.fields]
    known = [name for name in amounts if shown[name].notna().any()]
    fields = machine(results.base, 0, {}).model_dump() | {"name": f"{results.base.name}-{_PLACE}"}
    return {
        "total": len(table),
        "runs": int(table["problem"].isna().sum()),
        "seed": seed,
        "indices": " ".join(map(str, shown["index"])),
        "fields": [_field(shown[name], name) for name in results.fields],
        "amounts": [_amount(shown[name], name) for name in known],
        "problems": _problems(shown["problem"]),
        "objectives": list(objectives),
        "objective_names": [name for name in OBJECTIVES if shown[name].notna().any()],
        "maximized": sorted(MAXIMIZED),
        "networks": work["networks"],
        "batch": work.get("batch", DEFAULT_BATCH),
        "base": results.base.name,
        "machine": [[name, _toml(name, value)] for name, value in fields.items()],
        "commands": list(commands(f"{results.base.name}-{_PLACE}.toml", results.toml)),
    }


def _shown(table: pd.DataFrame, objectives: Sequence[str], most: int, seed: int) -> pd.DataFrame:
    """Return the rows that the page has, by index."""
    best = front(table, objectives)  # refuses objectives that no point has
    if len(table) <= most:
        return table
    is_best = table["index"].isin(best["index"])
    others = table[~is_best].sample(most, random_state=seed) if (~is_best).sum() > most else table[~is_best]
    kept = is_best.to_numpy(copy=True)
    kept[others.index] = True
    return table[kept]


def _field(column: pd.Series[Any], name: str) -> dict[str, Any]:
    """Return a field of machines: its values as numbers, texts and TOML, and which of them each point has."""
    values, codes = levels(column)
    return {
        "name": name,
        "label": label(name),
        "unit": unit(name),
        "numbers": [None if isinstance(value, tuple) else value for value in values],
        "texts": [text(name, value) for value in values],
        "toml": [_toml(name, value) for value in values],
        "codes": _packed_codes(codes),
    }


def _amount(column: pd.Series[Any], name: str) -> dict[str, Any]:
    """Return a column of numbers: as levels and codes where that is shorter."""
    numbers = column.to_numpy(np.float64, na_value=np.nan)
    values, codes = np.unique(numbers, return_inverse=True)
    whole = {"name": name, "label": label(name), "unit": unit(name)}
    if 4 * len(values) > len(numbers):
        return whole | {"numbers": _packed(numbers)}
    return whole | {"levels": _packed(values), "codes": _packed_codes(codes)}


def _problems(column: pd.Series[Any]) -> dict[str, Any]:
    """Return why points cannot run, each reason once."""
    values, codes = levels(column)
    return {"texts": values, "codes": _packed_codes(codes)}


def _packed(numbers: npt.NDArray[Any]) -> str:
    """Return numbers as the base64 of their bytes, the lowest byte first."""
    return b64encode(numbers.astype(numbers.dtype.newbyteorder("<")).tobytes()).decode()


def _packed_codes(codes: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Return codes of at least -1, each plus one, in as few bytes as all of them fit into."""
    most = int(codes.max(initial=-1)) + 1
    size = next(size for size in (1, 2, 4) if most < 256**size)
    return {"size": size, "data": _packed((codes + 1).astype(f"u{size}"))}


def _toml(name: str, value: Any) -> str:
    """Return a field as it stands in a machine's file."""
    return tomli_w.dumps({name: list(value) if isinstance(value, tuple) else value})
