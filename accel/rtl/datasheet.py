"""What the package says to people and to FuseSoC: the data sheet and the core file."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from string import Template
from typing import Any

from accel.counters import COUNTERS
from accel.golden.feed import PSUM_TURN_CYCLES
from accel.rtl.array import COMMAND_TO_OPERAND_CYCLES, HANDSHAKE_CYCLES, RESULT_TO_OUT_CYCLES
from accel.rtl.bench import TEMPLATES
from accel.rtl.command import Run
from accel.rtl.design import Design
from accel.rtl.parameters import COUNT_BITS, COUNTER_BITS, ArrayParameters
from accel.rtl.sore import Sore
from accel.rtl.top import Field, Port
from accel.rtl.vectors import SEED

_STREAM_ORDERS = {
    "tiles OS": "Product by product, along m, along n, the last the fastest.",
    "tiles WS": "Product by product, chunk by chunk of m, along n, along k, the last the fastest.",
    "s_west OS": "Lane r: for each tile, for each group of k, for i = 0 to a - 1: the group of output row i * R + r of the "
    "tile.",
    "s_west WS": "Lane r: for each tile that has a group r, for each output row of the chunk: that group.",
    "s_north OS": "Lane c: for each tile, for each group of k, for each of its `keep` entries, for j = 0 to b - 1: the entry "
    "of output column j * C + c of the tile.",
    "s_north WS": "Lane c: for each tile, for each of its groups of k, for each of their `keep` entries, for j = 0 to b - 1: "
    "the entry of output column j * C + c of the tile.",
    "m_out OS": "Lane c * D + d: for each tile, for r = R - 1 - (D - d) mod D and each D rows further up, for "
    "j = 0 to b - 1, for i = 0 to a - 1: the result of output row i * R + r, output column j * C + c.",
    "m_out WS": "Lane c * D: for each last tile along k, for each stream element x (output rows x * a to x * a + a - 1), for "
    "j, for i: the result of output row x * a + i, output column j * C + c. Lanes with d > 0 give nothing.",
    "everywhere": "What lies beyond the matrix is left out: no word is sent or taken for a row of dim_m or more, a column of "
    "dim_n or more. A group that k does not fill has entries with valid = 0; what its west word holds there does not matter.",
}
"""By stream and dataflow; letters as in the data sheet."""

# What the host works out: field, in OS, in WS.
_HOST_ROWS = (
    ("tiles", "tile_rows = R * a, tile_cols = C * b", "chunk = rows of m at a time, tile_cols = C * b, R groups of k"),
    ("bound", "", "every `gap_*` < 2^$count_bits: a smaller chunk; with groups > R also (chunk / a) * L <= $psum_words"),
    ("`m_tiles`, last_rows", "dim_m / tile_rows; what is left for the last", "dim_m / chunk; what is left for the last"),
    ("`n_tiles`, last_cols", "dim_n / tile_cols; what is left for the last", "dim_n / tile_cols; what is left for the last"),
    ("`k_tiles`", "1", "groups / R"),
    ("`groups_last`", "0", "what is left of groups for the last"),
    (
        "slot(rows)",
        "L * max(groups * keep, min(R, rows) / D)",
        "max((rows / a) * keep * L, R * keep * L + ($psum_turn if k_tiles > 1))",
    ),
    ("both `group_cycles`", "keep * L", "keep * L"),
    ("`row_walk.delay`", "0", "keep * b + R - 1"),
    ("`col_walk.delay`", "0", "0"),
    ("`row_walk.tokens_*`", "groups", "rows / a"),
    ("`col_walk.tokens_*`", "groups", "R"),
    ("`gap_*`", "slot(rows) - tokens * keep * L", "slot(rows) - tokens * keep * L"),
    ("both `is_gap_of_next`", "1", "0"),
    ("`m_*.lanes`, `m_*.rest`, `m_*.rows`", "rows div R, rows mod R, rows", "(rows - 1) mod a + 1, 0, rows"),
    ("`n_last.lanes`, `n_last.rest`", "last_cols div C, last_cols mod C", "last_cols div C, last_cols mod C"),
)

# Event and cycles, with the dataflow in which it can be.
_LATENCY_ROWS = (
    ("", "command taken to first operand in the array", "$to_operand"),
    ("", "operands at a PE to their sum", "P + L = $pe_latency"),
    ("OS", "OS tile of `rows` rows", "slot(rows) = L * max(groups * keep, min(R, rows) / D)"),
    ("WS", "WS tile of `rows` rows", "slot(rows) = max((rows / a) * keep * L, R * keep * L + ($psum_turn if groups > R))"),
    (
        "OS",
        "`count_cycles` of an OS run",
        "all slots + P + R + L * (R / D + 1) - 1 + columns - (slot - L * groups * keep) of the first tile",
    ),
    (
        "WS",
        "`count_cycles` of a WS run",
        "all slots + keep * b + R - 1 + (last_rows / a + R - 1) * keep * L + L - slot + P + columns, slot of the last tile",
    ),
    ("", "result visible below the array to `m_out_valid`", "$to_out"),
    (
        "",
        "command taken to `s_command_ready` again",
        "`count_cycles` + `count_stall_cycles` + $handshake, and up to C - 1 more if the last tile leaves columns unused",
    ),
)

_PARAMETER_MEANINGS = {
    "rows": "PE rows, R",
    "cols": "PE columns, C",
    "adder_latency": "L: registers of a PE's adder and sums that rotate through it",
    "multiplier_latency": "P: registers from a PE's ports to its adder",
    "group": "elements of a west word and of an N:M group",
    "row_lanes": "interleave forms a: lanes of a PE along output rows",
    "dataflows": "OS: sums stay; WS: the north operand stays",
    "drain_lanes": "D: results that leave a column in a cycle (OS)",
    "psum_words": "partial sums that a column's buffer holds (WS)",
}


def stream_orders(dataflows: Iterable[str]) -> dict[str, str]:
    """Return what the streams carry in the dataflows that are built, by stream and dataflow."""
    left_out = {"OS", "WS"} - {*dataflows}
    return {name: order for name, order in _STREAM_ORDERS.items() if not left_out & {*name.split()}}


def readme(design: Design) -> str:
    """Return the data sheet."""
    values: dict[str, Any] = {
        "arch": design.arch.name,
        "name": design.name,
        "prefix": design.prefix,
        "library": library(design.arch.name),
        "generator": f"nm-accel {version('nm-accel')}",
        "clock_mhz": f"{design.arch.clock_hz / 1e6:g}",
        "group": design.parameters.group,
        "seed": SEED,
        "ports": _ports_table(design.ports),
        "lanes": _lane_layouts(design.ports),
        "words": _words_tables(design.ports),
        "latency": Sore.LATENCY,
    }
    if isinstance(design.parameters, ArrayParameters):
        values |= _array_values(design.parameters, design.top)
    if design.example is not None:
        values |= _example_values(design)
    return Template((TEMPLATES / f"{design.top}.md").read_text()).substitute(values)


def library(arch: str) -> str:
    """Return the name of an arch as the library of a core: of the characters that a VLNV may have."""
    return re.sub(r"[^A-Za-z0-9_-]+", "_", arch)


def core_file(design: Design, sources: Sequence[str], release: str) -> str:
    """Return the FuseSoC core file."""
    bench = list(design.bench)
    vectors = [file for file in bench if file.endswith(".hex")]
    return Template((TEMPLATES / "package.core").read_text()).substitute(
        name=design.name,
        library=library(design.arch.name),
        release=release,
        rtl=_yaml_list(sources),
        bench=_yaml_list(f"tb/{file}" for file in bench if file.endswith(".v")),
        vectors=_yaml_list(f"tb/{file}: {{copyto: {file}}}" for file in vectors),
    )


def _yaml_list(items: Iterable[str]) -> str:
    return "\n".join(f"      - {item}" for item in items)


def _array_values(parameters: ArrayParameters, top: str) -> dict[str, Any]:
    left_out = {"rows", "cols", "psum_words"} if top == "uspe" else set()
    left_out |= set() if parameters.has_ws else {"psum_words"}
    left_out |= set() if parameters.has_os else {"drain_lanes"}
    values = {name: getattr(parameters, name) for name in _PARAMETER_MEANINGS}
    shown = {name: ", ".join(map(str, value)) if isinstance(value, tuple) else value for name, value in values.items()}
    rows = [(f"`{name}`", shown[name], meaning) for name, meaning in _PARAMETER_MEANINGS.items() if name not in left_out]
    to_sum = parameters.multiplier_latency + parameters.adder_latency
    return {
        **shown,
        "parameters": _table(("parameter", "value", "meaning"), rows),
        "pe_latency": to_sum,
        "to_first": parameters.multiplier_latency - 1,
        "to_capture": to_sum - 1,
        "to_drain": to_sum + parameters.adder_latency + 1,
        "drain_latency": parameters.adder_latency + 1,
        "peak_macs": parameters.rows * parameters.cols,
        "to_operand": COMMAND_TO_OPERAND_CYCLES,
        "to_out": RESULT_TO_OUT_CYCLES,
        "handshake": HANDSHAKE_CYCLES,
        "psum_turn": PSUM_TURN_CYCLES,
        "count_bits": COUNT_BITS,
        "full_rows": {"OS": "tile_rows", "WS": "chunk"}.get(" ".join(parameters.dataflows), "tile_rows (OS) or chunk (WS)"),
    }


def _example_values(design: Design) -> dict[str, Any]:
    assert design.example is not None  # only the array has one
    example, run = design.example, design.example.first
    command = next(port for port in design.ports if port.name == "s_command_data")
    counters = [(f"`count_{name}`", COUNTER_BITS, meaning) for name, meaning in COUNTERS.items()]
    orders = [f"* **{name}**: {order}" for name, order in stream_orders(design.arch.dataflows).items()]
    assert isinstance(design.parameters, ArrayParameters)
    sheet = _array_values(design.parameters, design.top)
    is_quick = example.quick_runs < example.runs
    return {
        "command": _fields_table(command.fields),
        "host": Template(_host_table(design.arch.dataflows)).substitute(sheet),
        "latencies": Template(_latency_table(design.arch.dataflows)).substitute(sheet),
        "counters": _table(("port", "bits", "meaning"), counters),
        "orders": "\n".join(orders),
        "runs": example.runs,
        "icarus_note": f": the first {example.quick_runs} runs; make icarus RUNS= runs all" if is_quick else "",
        "example": describe(run),
        "example_command": f"{command.width}'h{example.command:x}",
        "example_results": example.results,
        "example_cycles": example.cycles,
        "example_macs": example.macs,
    }


def _host_table(dataflows: Sequence[str]) -> str:
    """Return how the fields of a command follow from a run, one column for each dataflow that is built."""
    columns = [1 + ("OS", "WS").index(dataflow) for dataflow in sorted(dataflows)]
    rows = [(row[0], *(row[column] for column in columns)) for row in _HOST_ROWS]
    fields_of_ws = {"`groups_last`"} if "WS" not in dataflows else set()
    return _table(("", *sorted(dataflows)), [row for row in rows if any(row[1:]) and row[0] not in fields_of_ws])


def _latency_table(dataflows: Sequence[str]) -> str:
    return _table(("event", "cycles"), [row[1:] for row in _LATENCY_ROWS if not row[0] or row[0] in dataflows])


def describe(run: Run) -> str:
    """Return a run in words."""
    kind = "element by element" if run.pattern.group == 1 else f"{run.pattern.keep} of {run.pattern.group}"
    chunk = f", m_chunk {run.m_chunk}" if run.dataflow == "WS" else ""
    return (
        f"{run.dataflow}, row_lanes {run.row_lanes}, {kind}: count {run.count}, dim_m {run.dim_m}, dim_n {run.dim_n}, "
        f"{run.groups} groups{chunk}, results as {'FP16' if run.is_rounded else 'FP32'}."
    )


def _ports_table(ports: Sequence[Port]) -> str:
    bits = {port.name: f"{port.lanes} x {port.lane_bits}" if port.lanes > 1 else port.width for port in ports}
    rows = [(f"`{port.name}`", port.direction, bits[port.name], port.meaning) for port in ports]
    return _table(("port", "direction", "bits", "meaning"), rows)


def _lane_layouts(ports: Sequence[Port]) -> str:
    """Return what stands in a lane of the array's data vectors; the command has a table of its own."""
    parts = [
        f"* a lane of `{port.name}`: "
        + "; ".join(f"{_bits_in_words(field)} {field.name} ({field.meaning})" for field in port.fields)
        for port in ports
        if port.name in ("s_west_data", "s_north_data", "m_out_data")
    ]
    return "\n".join(parts)


def _words_tables(ports: Sequence[Port]) -> str:
    shown = [port for port in ports if port.fields and not port.name.startswith("o_")]
    return "\n\n".join(f"Bits of `{port.name}`:\n\n{_fields_table(port.fields)}" for port in shown)


def _fields_table(fields: Sequence[Field]) -> str:
    return _table(("bits", "field", "meaning"), [(_bits(field), f"`{field.name}`", field.meaning) for field in fields])


def _bits(field: Field) -> str:
    high = field.offset + field.width - 1
    if field.count > 1:
        step = f"{field.width} * i" if field.width > 1 else "i"
        base = f"{field.offset} + " if field.offset else ""
        return f"from {base}{step} on, {field.width} each, i < {field.count},"
    return f"{high}:{field.offset}" if field.width > 1 else f"{high}"


def _bits_in_words(field: Field) -> str:
    return f"bit {_bits(field)}" if field.width == field.count == 1 else f"bits {_bits(field)}"


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
