"""Reads topology files of SCALE-Sim (v2 and v3), in the convolution form and in the GEMM form."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from accel.errors import ConfigError, TraceError
from accel.sparsity import NMPattern
from accel.trace import SCHEMA_VERSION, Trace
from accel.units import ceil_div
from accel.validation import MAX_SIZE, read_text, refuse

_CONV = ("Layer name", "IFMAP Height", "IFMAP Width", "Filter Height", "Filter Width", "Channels", "Num Filter", "Strides")
_GEMM = ("Layer name", "M", "N", "K")
_OPTIONAL = {_CONV: ("Strides W", "Sparsity"), _GEMM: ("Sparsity",)}
_OTHER_SPELLINGS = {
    "layer": "layer name",
    "stride": "strides",
    "strides h": "strides",
    "stride h": "strides",
    "stride height": "strides",
    "stride w": "strides w",
    "stride width": "strides w",
}


def read_topology(path: str | Path) -> tuple[Trace, dict[str, NMPattern]]:
    """Return the trace of a SCALE-Sim topology file, and the pattern of each layer that its sparsity column names.

    The header decides between the two forms. A GEMM row is a linear layer of M rows from K to N features. A convolution row
    has no padding; where the last window sticks out of the input, SCALE-Sim counts it, so the input is read as large as that
    window needs. A row whose name contains "DP" is depthwise, as in SCALE-Sim: its filters are applied to each channel alone.

    The file does not say which layer reads which: each row is taken to read the row above, so that every layer but the first
    has an input gradient. Sizes of neighbours need not match (pooling and padding are not in the file). A repeated name gets
    `_1`, `_2`, ... at its end. A comma at the end of a row and what follows a `#` mean nothing.
    """
    lines = read_text(Path(path), TraceError).removeprefix("\ufeff").splitlines()
    rows = [(number, cells) for number, line in enumerate(lines, start=1) if any(cells := _split(line))]
    if not rows:
        raise TraceError(f"{path}: file must have a header and at least 1 layer, not be empty")
    columns = _read_header(rows[0], path)
    if len(rows) == 1:
        raise TraceError(f"{path}: file must have at least 1 layer, not only a header")
    problems: list[str] = []
    layers: dict[str, dict[str, Any]] = {}
    patterns: dict[str, NMPattern] = {}
    for number, cells in rows[1:]:
        row = _Row(columns, cells)
        name = _unique(row.cell("Layer name"), layers)
        layers[name] = {"name": name, "inputs": [next(reversed(layers), "input")], **row.layer()}
        pattern = row.pattern()
        if pattern is not None:
            patterns[name] = pattern
        problems += [f"row {number}: {problem}" for problem in row.problems]
    if problems:
        raise refuse(TraceError, str(path), problems)
    fields = {"schema_version": SCHEMA_VERSION, "name": Path(path).stem, "inputs": ["input"], "layers": [*layers.values()]}
    return Trace.from_fields(fields, str(path)), patterns


def _split(line: str) -> list[str]:
    """Return the cells of a line, without the empty ones at its end."""
    cells = [cell.strip() for cell in line.split("#")[0].split(",")]
    while cells and not cells[-1]:
        cells.pop()
    return cells


def _read_header(row: tuple[int, list[str]], path: str | Path) -> tuple[str, ...]:
    """Return the columns by their names in this module."""
    number, cells = row
    lowered = [" ".join(cell.lower().split()) for cell in cells]
    spelled = [_OTHER_SPELLINGS.get(cell, cell) for cell in lowered]
    for form, optional in _OPTIONAL.items():
        known = {column.lower(): column for column in form + optional}
        columns = tuple(known.get(cell, "") for cell in spelled)
        extra = columns[len(form) :]
        if columns[: len(form)] == form and set(extra) <= set(optional) and len(set(extra)) == len(extra):
            return columns
    raise TraceError(
        f"{path}: row {number}: header must be {', '.join(_CONV)}[, Strides W][, Sparsity] or {', '.join(_GEMM)}[, Sparsity], "
        f"not {', '.join(cells)!r}"
    )


def _unique(name: str, taken: dict[str, Any]) -> str:
    unique, count = name, 0
    while unique in taken or unique == "input":
        count += 1
        unique = f"{name}_{count}"
    return unique


class _Row:
    """One row of the file; `problems` collects what is wrong with it."""

    def __init__(self, columns: tuple[str, ...], cells: list[str]) -> None:
        self.problems: list[str] = []
        self._cells = dict(zip(columns, cells, strict=False))
        self._columns = columns
        if len(cells) > len(columns):
            self.problems.append(
                f"row must have at most {len(columns)} values like the header, not {len(cells)}; name every column"
            )
        if not self.cell("Layer name"):
            self.problems.append("Layer name must not be empty")

    def cell(self, column: str) -> str:
        return self._cells.get(column, "")

    def layer(self) -> dict[str, Any]:
        return self._linear() if "M" in self._columns else self._conv()

    def pattern(self) -> NMPattern | None:
        text = self.cell("Sparsity")
        try:
            return NMPattern.parse(text) if text else None
        except ConfigError as error:
            self.problems.append(f"Sparsity: {error}")
            return None

    def _linear(self) -> dict[str, Any]:
        return {
            "op": "linear",
            "rows": self._size("M"),
            "out_features": self._size("N"),
            "in_features": self._size("K"),
        }

    def _conv(self) -> dict[str, Any]:
        size = [self._size(f"IFMAP {side}") for side in ("Height", "Width")]
        kernel = [self._size(f"Filter {side}") for side in ("Height", "Width")]
        channels, filters, stride = (self._size(column) for column in _CONV[-3:])
        strides = [stride, self._size("Strides W") if self.cell("Strides W") else stride]
        for side, length, taps in zip(("Height", "Width"), size, kernel, strict=True):
            if taps > length > 0:
                self.problems.append(f"Filter {side} must be at most IFMAP {side} ({length}), not {taps}")
        groups = channels if "DP" in self.cell("Layer name") else 1
        return {
            "op": "conv",
            "in_channels": channels,
            "out_channels": filters * groups,
            "in_size": [
                taps + ceil_div(length - taps, step or 1) * step
                for length, taps, step in zip(size, kernel, strides, strict=True)
            ],
            "kernel": kernel,
            "stride": strides,
            "padding": [0, 0],
            "dilation": [1, 1],
            "groups": groups,
        }

    def _size(self, column: str) -> int:
        """Return the integer in a column; where there is none, note the problem and return 0."""
        text = self.cell(column)
        if not text:
            self.problems.append(f"{column} is missing")
        elif not re.fullmatch("[0-9]+", text) or not text.strip("0"):
            self.problems.append(f"{column} must be an integer of at least 1, not {text!r}")
        elif len(text) > len(str(MAX_SIZE)) or int(text) > MAX_SIZE:
            self.problems.append(f"{column} must be at most {MAX_SIZE}, not {text}")
        else:
            return int(text)
        return 0
