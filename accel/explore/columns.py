"""What charts call the columns of a sweep: labels, units, and values as text."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import pandas as pd

_LABELS = {
    "time": "time of a step",
    "energy_joules": "energy of a step",
    "edp": "energy-delay product",
    "power_watts": "mean power",
    "all_luts": "LUTs",
    "luts": "LUTs of logic",
    "memory_luts": "LUTs of memory",
    "dsps": "DSPs",
    "flip_flops": "flip-flops",
    "block_rams": "block RAMs",
    "ultra_rams": "UltraRAMs",
    "dram_bytes_per_second": "DRAM bandwidth",
    "samples_per_second_per_lut": "samples per second and LUT",
    "pes": "PEs",
    "buffer_bytes": "buffers together",
    "west_link_bits": "west link",
}
_STEP_LABELS = {"cycles": "cycles", "seconds": "time", "dram_bytes": "DRAM traffic", "joules": "energy"}
_UNITS = {
    "bytes_per_second": "B/s",
    "bytes": "B",
    "hz": "Hz",
    "bits": "bits",
    "cycles": "cycles",
    "joules": "J",
    "watts": "W",
    "seconds": "s",
    "frac": "",
}
_SI = (("G", 1e9), ("M", 1e6), ("k", 1e3), ("", 1.0), ("m", 1e-3), ("µ", 1e-6), ("n", 1e-9))
_BINARY = (("Gi", 2.0**30), ("Mi", 2.0**20), ("Ki", 2.0**10))


def label(column: str) -> str:
    """Return the name of a column in words, without its unit."""
    if column in _LABELS:
        return _LABELS[column]
    part, _, what = column.rpartition(".")  # of one network by one method
    if part:
        return f"{part.replace('.', ' ')}: {_STEP_LABELS.get(what, what)}"
    suffix = _suffix(column)
    return (column.removesuffix(f"_{suffix}") if suffix else column).replace("_", " ")


def unit(column: str) -> str:
    """Return the unit of a column; a count has none."""
    return {"time": "s", "edp": "J s"}.get(column) or _UNITS.get(_suffix(column), "")


def _suffix(column: str) -> str:
    return next((suffix for suffix in _UNITS if column.endswith((f"_{suffix}", f".{suffix}", f".dram_{suffix}"))), "")


class Scale(NamedTuple):
    """How an axis shows a column: its numbers divided by `factor`."""

    factor: float
    label: str
    """With the unit."""


def scale(column: str, values: Iterable[float]) -> Scale:
    """Return one scale for all `values` of a column, by the largest."""
    numbers = [abs(value) for value in values]
    most, name, of = max(numbers, default=1.0), label(column), unit(column)
    if not of:
        words = next(((word, size) for word, size in (("millions", 1e6), ("thousands", 1e3)) if most >= 10 * size), None)
        return Scale(1.0, name) if words is None else Scale(words[1], f"{name} ({words[0]})")
    if of in ("bits", "cycles") and most < 1e5:
        return Scale(1.0, f"{name} ({of})")
    prefix, factor = _prefix(most, of == "B" and all(value % 1024 == 0 for value in numbers))
    return Scale(factor, f"{name} ({prefix}{of})")


def text(column: str, value: Any) -> str:
    """Return a value of a column for people: "256 KiB", "38.4 GB/s", "1,2,4"."""
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    of = unit(column)
    if not of or of in ("bits", "cycles"):
        is_whole = value == round(value) or abs(value) >= 1000
        return f"{value:{',.0f' if is_whole else '.4g'}} {of}".rstrip()
    prefix, factor = _prefix(abs(value), of == "B" and value % 1024 == 0)
    return f"{value / factor:.4g} {prefix}{of}"


def _prefix(most: float, binary: bool) -> tuple[str, float]:
    """Return the largest prefix that leaves `most` at 1 or above."""
    return next((prefix for prefix in (_BINARY if binary else _SI) if most >= prefix[1]), ("", 1.0))


class Levels(NamedTuple):
    """The different values of a column, ascending, and which of them each row has."""

    values: list[Any]
    """Numbers, or tuples of a field that is a list."""
    codes: npt.NDArray[np.int64]
    """Of each row the index in `values`; -1 where it has none."""


def levels(column: pd.Series[Any]) -> Levels:
    """Return the levels of a column of a table."""
    import pandas as pd

    rows = column.map(_hashable) if column.dtype == object else column
    codes, found = pd.factorize(rows)
    values = [value.item() if hasattr(value, "item") else value for value in found]
    order = sorted(range(len(values)), key=values.__getitem__)
    places = np.array([*np.argsort(order), -1], np.int64)  # -1, none, stays
    return Levels([values[place] for place in order], places[codes])


def _hashable(value: Any) -> Any:
    """Return an array as a tuple, anything else as it is."""
    return tuple(value.tolist()) if isinstance(value, np.ndarray) else value
