"""What the package says to people and to FuseSoC: the data sheet and the core file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from string import Template
from typing import TYPE_CHECKING, Any

from accel.rtl.array import COUNTERS
from accel.rtl.bench import TEMPLATES
from accel.rtl.command import Run
from accel.rtl.parameters import COUNTER_BITS, ArrayParameters
from accel.rtl.sore import Sore
from accel.rtl.top import Field, Port
from accel.rtl.vectors import SEED

if TYPE_CHECKING:
    from accel.rtl.package import Design

STREAM_ORDERS = {
    "tiles": "OS: product by product, along m, along n, the last the fastest. WS: product by product, chunk by chunk of m, "
    "along n, along k.",
    "s_west OS": "Lane r: for each tile, for each group of k, for i = 0 to a - 1: the group of output row i * R + r of the "
    "tile.",
    "s_west WS": "Lane r: for each tile that has a group r, for each output row of the chunk: that group.",
    "s_north OS": "Lane c: for each tile, for each group of k, for each of its `keep` entries, for j = 0 to b - 1: the entry "
    "of output column j * C + c of the tile.",
    "s_north WS": "Lane c: for each tile, for each of its groups, for each entry, for j = 0 to b - 1: as in OS.",
    "m_out OS": "Lane c * D + d: for each tile, for r = R - 1 - (D - d) mod D and each D rows further up, for "
    "j = 0 to b - 1, for i = 0 to a - 1: the result of output row i * R + r, output column j * C + c.",
    "m_out WS": "Lane c * D: for each last tile along k, for each stream element x (output rows x * a to x * a + a - 1), for "
    "j, for i: the result of output row x * a + i, output column j * C + c. Lanes with d > 0 give nothing.",
    "everywhere": "What lies beyond the matrix is left out: no word is sent or taken for a row of dim_m or more, a column of "
    "dim_n or more. A group that k does not fill has entries with valid = 0; what its west word holds there does not matter.",
}
"""By stream and dataflow; letters as in the data sheet."""

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


def readme(design: Design) -> str:
    """Return the data sheet."""
    values: dict[str, Any] = {
        "arch": design.arch.name,
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
        values |= _array_values(design.parameters, () if design.example else ("rows", "cols", "psum_words"))
    if design.example is not None:
        values |= _example_values(design)
    return Template((TEMPLATES / f"{design.name}.md").read_text()).substitute(values)


def core_file(name: str, sources: Sequence[str], bench: Sequence[str], release: str) -> str:
    """Return the FuseSoC core file."""
    vectors = [file for file in bench if file.endswith(".hex")]
    return Template((TEMPLATES / "package.core").read_text()).substitute(
        name=name,
        release=release,
        rtl=_yaml_list(sources),
        bench=_yaml_list(f"tb/{file}" for file in bench if file.endswith(".v")),
        vectors=_yaml_list(f"tb/{file}: {{copyto: {file}}}" for file in vectors),
    )


def _yaml_list(items: Iterable[str]) -> str:
    return "\n".join(f"      - {item}" for item in items)


def _array_values(parameters: ArrayParameters, left_out: Sequence[str]) -> dict[str, Any]:
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
    }


def _example_values(design: Design) -> dict[str, Any]:
    assert design.example is not None  # only the array has one
    example, run = design.example, design.example.first
    command = next(port for port in design.ports if port.name == "s_command_data")
    counters = [(f"`count_{name}`", COUNTER_BITS, meaning) for name, meaning in COUNTERS.items()]
    orders = [f"* **{name}**: {order}" for name, order in STREAM_ORDERS.items()]
    is_quick = example.quick_runs < example.runs
    return {
        "command": _fields_table(command.fields),
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
        + "; ".join(f"bits {_bits(field)} {field.name} ({field.meaning})" for field in port.fields)
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


def _table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)
