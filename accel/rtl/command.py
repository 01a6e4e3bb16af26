"""The command of a run: what the host works out beforehand, so that the array only counts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from amaranth import Shape, unsigned
from amaranth.lib import data
from amaranth.utils import bits_for

from accel.arch import Dataflow
from accel.errors import ConfigError
from accel.golden.feed import PSUM_TURN_CYCLES
from accel.rtl.parameters import COUNT_BITS, ArrayParameters
from accel.rtl.walker import WALK
from accel.sparsity import NMPattern
from accel.units import ceil_div

_REMEDIES = {"group_cycles": "keep", "delay": "keep"}
"""The parameter to lower where a number is too large for its field; for all others it is `m_chunk`."""


def command_layout(parameters: ArrayParameters) -> data.StructLayout:
    """Return the layout of a command: numbers of the run, the two walks, and how far the last tiles reach."""
    m_size = data.StructLayout(
        {
            "lanes": unsigned(bits_for(parameters.max_row_lanes)),
            "rest": unsigned(bits_for(parameters.rows)),
            "rows": unsigned(COUNT_BITS),
        }
    )
    fields: dict[str, Any] = {
        "run": parameters.run_layout,
        "row_walk": WALK,
        "col_walk": WALK,
        "m_full": m_size,
        "m_last": m_size,
        "n_last": parameters.cols_layout,
    }
    if parameters.has_ws:
        fields["groups_last"] = unsigned(bits_for(parameters.rows))
    return data.StructLayout(fields)


@dataclass(frozen=True, kw_only=True)
class Run:
    """`count` products (dim_m, dim_n) over `groups` of k, back to back; docs/timing.md section 1."""

    dataflow: Dataflow
    row_lanes: int
    pattern: NMPattern
    """As the machine runs it: group 1 (element by element) or the machine's group."""
    count: int
    dim_m: int
    dim_n: int
    groups: int
    m_chunk: int = 1
    """Output rows that stream over a WS tile; not used in OS."""
    is_rounded: bool = False
    """Whether results leave as 16 bits instead of FP32."""


def command_fields(parameters: ArrayParameters, shape: Run) -> dict[str, Any]:
    """Return the fields of `command_layout` that make `parameters` run `shape`, or refuse it with all reasons."""
    _check(parameters, shape)
    lanes = parameters.adder_latency
    col_lanes, keep = lanes // shape.row_lanes, shape.pattern.keep
    group_cycles = keep * lanes
    n_tiles, last_cols = _tiles(shape.dim_n, parameters.cols * col_lanes)
    fields = _os_fields(parameters, shape) if shape.dataflow == "OS" else _ws_fields(parameters, shape)
    for walk in (fields["row_walk"], fields["col_walk"]):
        walk |= {"group_cycles": group_cycles, "count": shape.count, "n_tiles": n_tiles}
    run = {
        "row_lanes": shape.row_lanes,
        "col_lanes": col_lanes,
        "keep": keep,
        "is_rounded": shape.is_rounded,
    }
    if parameters.has_os and parameters.has_ws:
        run["is_ws"] = shape.dataflow == "WS"
    fields |= {"run": run, "n_last": {"lanes": last_cols // parameters.cols, "rest": last_cols % parameters.cols}}
    _check_widths(command_layout(parameters), fields)
    return fields


def _os_fields(parameters: ArrayParameters, shape: Run) -> dict[str, Any]:
    tile_rows = parameters.rows * shape.row_lanes
    m_tiles, last_rows = _tiles(shape.dim_m, tile_rows)
    steps = shape.groups * shape.pattern.keep

    def gap(rows: int) -> int:
        drain = ceil_div(min(parameters.rows, rows), parameters.drain_lanes)
        return parameters.adder_latency * max(0, drain - steps)

    def size(rows: int) -> dict[str, int]:
        return {"lanes": rows // parameters.rows, "rest": rows % parameters.rows, "rows": rows}

    walk = {
        "delay": 0,
        "m_tiles": m_tiles,
        "k_tiles": 1,
        "tokens_full": shape.groups,
        "tokens_last": shape.groups,
        "gap_full": gap(tile_rows),
        "gap_last": gap(last_rows),
        "is_gap_of_next": 1,
    }
    return {"row_walk": dict(walk), "col_walk": dict(walk), "m_full": size(tile_rows), "m_last": size(last_rows)}


def _ws_fields(parameters: ArrayParameters, shape: Run) -> dict[str, Any]:
    rows, row_lanes = parameters.rows, shape.row_lanes
    group_cycles = shape.pattern.keep * parameters.adder_latency
    chunk = min(shape.m_chunk, shape.dim_m)
    m_tiles, last_rows = _tiles(shape.dim_m, chunk)
    k_tiles, groups_last = _tiles(shape.groups, rows)
    turn = PSUM_TURN_CYCLES if k_tiles > 1 else 0
    elements = {"full": ceil_div(chunk, row_lanes), "last": ceil_div(last_rows, row_lanes)}
    slots = {which: max(count * group_cycles, rows * group_cycles + turn) for which, count in elements.items()}
    both = {"m_tiles": m_tiles, "k_tiles": k_tiles, "is_gap_of_next": 0}
    load = shape.pattern.keep * (parameters.adder_latency // row_lanes) + rows - 1
    row_walk = both | {"delay": load} | {f"tokens_{which}": count for which, count in elements.items()}
    row_walk |= {f"gap_{which}": slot - elements[which] * group_cycles for which, slot in slots.items()}
    col_walk = both | {"delay": 0, "tokens_full": rows, "tokens_last": rows}
    col_walk |= {f"gap_{which}": slot - rows * group_cycles for which, slot in slots.items()}

    def size(chunk_rows: int) -> dict[str, int]:
        return {"lanes": (chunk_rows - 1) % row_lanes + 1, "rest": 0, "rows": chunk_rows}

    sizes = {"m_full": size(chunk), "m_last": size(last_rows), "groups_last": groups_last}
    return {"row_walk": row_walk, "col_walk": col_walk, **sizes}


def _check(parameters: ArrayParameters, shape: Run) -> None:
    """Refuse a run that the array is not built for."""
    problems = [
        f"{name} must be between 1 and {(1 << COUNT_BITS) - 1}, not {getattr(shape, name)}"
        for name in ("count", "dim_m", "dim_n", "groups", "m_chunk")
        if not 1 <= getattr(shape, name) < 1 << COUNT_BITS
    ]
    if shape.dataflow not in parameters.dataflows:
        problems.append(f"dataflow must be one that is built ({', '.join(parameters.dataflows)}), not {shape.dataflow}")
    if shape.row_lanes not in parameters.row_lanes:
        problems.append(f"row_lanes must be one of {list(parameters.row_lanes)}, not {shape.row_lanes}")
    elif shape.pattern.group not in (1, parameters.group):
        problems.append(f"pattern group must be 1 or {parameters.group}, not {shape.pattern.group}")
    elif shape.dataflow == "WS" and shape.groups > parameters.rows:
        words = ceil_div(min(shape.m_chunk, shape.dim_m), shape.row_lanes) * parameters.adder_latency
        if words > parameters.psum_words:
            problems.append(f"m_chunk must fill at most psum_words ({parameters.psum_words}) with partial sums, not {words}")
    if problems:
        raise ConfigError("\n".join(problems))


def _check_widths(layout: data.Layout, fields: dict[str, Any]) -> None:
    """Refuse numbers with more bits than their fields have: cut off unseen, they would start another run."""
    problems = [
        f"{name} must be at most {largest}, not {value}; lower {_REMEDIES.get(name.rpartition('.')[2], 'm_chunk')}"
        for name, value, largest in _leaves(layout, fields)
        if value > largest
    ]
    if problems:
        raise ConfigError("\n".join(problems))


def _leaves(layout: data.Layout, fields: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, int, int]]:
    """Yield the path of each number in `fields`, the number, and the largest that its field takes."""
    for key, value in fields.items():
        shape = layout[key].shape
        if isinstance(shape, data.Layout):
            yield from _leaves(shape, value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", int(value), (1 << Shape.cast(shape).width) - 1


def _tiles(size: int, tile: int) -> tuple[int, int]:
    """Return how many tiles cover `size`, and what the last one holds."""
    return ceil_div(size, tile), (size - 1) % tile + 1
