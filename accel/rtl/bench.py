"""The self-checking benches that are shipped with the Verilog: text and vectors, all that a simulator needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import accumulate
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from accel.rtl.command import Run
from accel.rtl.parameters import COUNTER_BITS, ArrayParameters
from accel.rtl.pe import Uspe
from accel.rtl.pe_vectors import pe_vectors
from accel.rtl.sore import Sore, SoreParameters
from accel.rtl.top import Port, array_ports, sore_ports, uspe_ports
from accel.rtl.vectors import SEED, ArrayVectors, array_vectors, quick_runs, sore_vectors

TEMPLATES = Path(__file__).with_name("templates")

HIERARCHY = "hierarchy.vlt"
"""Tells Verilator to compile the PE of a large array once, which then builds in minutes instead of an hour."""
_COUNTERS = 5
"""That the array's bench compares with the models, all but `stall_cycles`: see `_counts`."""
_FLAT_PES = 64  # up to here one model of everything builds as fast

Show = Callable[[str], None]


class Example(NamedTuple):
    """What the data sheet tells of the runs in the array's bench."""

    runs: int
    quick_runs: int
    """For a slow simulator."""
    described: list[dict[str, Any]]
    first: Run
    command: int
    results: int
    cycles: int
    macs: int


def array_bench(parameters: ArrayParameters, prefix: str, show: Show) -> tuple[dict[str, str], Example]:
    """Return the files of the bench of the array by name, and what is in them; `show` is told what is going on."""
    vectors = array_vectors(parameters, show)
    widths = {port.name: port.lane_bits for port in array_ports(parameters)}
    north_fields = [field.offset for field in _port(array_ports(parameters), "s_north_data").fields]
    west = [[_west_words(run.streams.west[row]) for run in vectors] for row in range(parameters.rows)]
    north = [[_north_words(run.streams.north[col], north_fields) for run in vectors] for col in range(parameters.cols)]
    chains = parameters.cols * parameters.drain_lanes
    out = [[[int(word) for word in run.streams.out[chain]] for run in vectors] for chain in range(chains)]
    files = {
        "commands.hex": _hex([run.command for run in vectors], widths["s_command_data"]),
        "counts.hex": _hex([_counts(run) for run in vectors], _COUNTERS * COUNTER_BITS),
        **_lane_files("west", west, widths["s_west_data"]),
        **_lane_files("north", north, widths["s_north_data"]),
        **_lane_files("out", out, widths["m_out_data"]),
    }
    cycles = sum(run.cycles for run in vectors)
    streams = parameters.rows + parameters.cols + chains
    constants = {
        "SEED": SEED,
        "RUNS": len(vectors),
        "ROWS": parameters.rows,
        "COLS": parameters.cols,
        "CHAINS": chains,
        "COUNTERS": _COUNTERS,
        "COUNTER_BITS": COUNTER_BITS,
        "COMMAND_BITS": widths["s_command_data"],
        "WEST_BITS": widths["s_west_data"],
        "NORTH_BITS": widths["s_north_data"],
        "WEST_WORDS": files["west.hex"].count("\n"),
        "NORTH_WORDS": files["north.hex"].count("\n"),
        "OUT_WORDS": files["out.hex"].count("\n"),
        "STALL_BITS": max(2, streams.bit_length() - 2),  # about one stream in four waits at any time, however many there are
        "CUT_CYCLES": vectors[0].cycles * 2,
        "LIMIT_CYCLES": 10 * cycles + 2_000,
    }
    if parameters.rows * parameters.cols > _FLAT_PES:
        files[HIERARCHY] = f'`verilator_config\nhier_block -module "{prefix}{Uspe.verilog_name}"\n'
    return _benches("array", prefix, constants) | _stream_ends(prefix) | files, _example(parameters, vectors)


def _example(parameters: ArrayParameters, vectors: Sequence[ArrayVectors]) -> Example:
    described = [
        asdict(item.run)
        | {"pattern": f"{item.run.pattern.keep}:{item.run.pattern.group}", "cycles": item.cycles, "macs": item.macs}
        for item in vectors
    ]
    first = vectors[0]
    results = sum(map(len, first.streams.out))
    quick = quick_runs(parameters, vectors)
    return Example(len(vectors), quick, described, first.run, first.command, results, first.cycles, first.macs)


def sore_bench(parameters: SoreParameters, prefix: str) -> dict[str, str]:
    """Return the files of the bench of SORE by name."""
    vectors, ports = sore_vectors(parameters), sore_ports(parameters)
    group_bits, entries_bits = _port(ports, "s_group_data").width, _port(ports, "m_entries_data").width
    constants = {
        "SEED": SEED,
        "GROUPS": len(vectors.groups),
        "GROUP_BITS": group_bits,
        "ENTRIES_BITS": entries_bits,
        "LATENCY": Sore.LATENCY,
    }
    return {
        **_benches("sore", prefix, constants),
        **_stream_ends(prefix),
        "groups.hex": _hex(vectors.groups, group_bits),
        "entries.hex": _hex(vectors.entries, entries_bits),
    }


def uspe_bench(parameters: ArrayParameters, prefix: str) -> dict[str, str]:
    """Return the files of the bench of one PE by name."""
    vectors, ports = pe_vectors(parameters), uspe_ports(parameters)
    inputs = [port for port in ports if port.name.startswith("i_") and port.name != "i_enable"]
    outputs = {port.name for port in ports if port.direction == "out"} - {"o_drain", "o_sum"}
    inputs.sort(key=lambda port: f"o_{port.name[2:]}" not in outputs)  # what passes through stands in the low bits
    offsets = [0, *accumulate(port.width for port in inputs)]
    passed = [port for port in inputs if f"o_{port.name[2:]}" in outputs]
    sum_bits = parameters.operand_format.partial_layout.size
    placed = list(zip((port.name[2:] for port in inputs), offsets, strict=False))
    rows = [sum(row.get(name, 0) << offset for name, offset in placed) for row in vectors.inputs]
    known = [
        sum((1 << sum_bits | words[cycle]) << place * (sum_bits + 1) for place, words in enumerate(sides) if cycle in words)
        for sides in [(vectors.drain, vectors.sum)]
        for cycle in range(len(rows))
    ]
    constants = {
        "SEED": SEED,
        "CYCLES": len(rows),
        "INPUT_BITS": offsets[-1],
        "PASSED_BITS": offsets[len(passed)],
        "SUM_BITS": sum_bits,
    }
    instance = _uspe_instance(f"{prefix}uspe", ports, inputs, offsets, passed)
    texts = {file: text.replace("  // INSTANCE\n", instance) for file, text in _benches("uspe", prefix, constants).items()}
    return texts | {"inputs.hex": _hex(rows, offsets[-1]), "outputs.hex": _hex(known, 2 * sum_bits + 2)}


def _uspe_instance(
    name: str, ports: Sequence[Port], inputs: Sequence[Port], offsets: Sequence[int], passed: Sequence[Port]
) -> str:
    """Return the instance, its inputs cut from one vector, and what it passes on put side by side in the same order."""
    links = {"clk": "clk", "i_enable": "is_enabled", "o_drain": "drain", "o_sum": "sum"}
    for port, offset in zip(inputs, offsets, strict=False):
        links[port.name] = f"now[{offset}+:{port.width}]"
        if port in passed:
            links[f"o_{port.name[2:]}"] = f"passed[{offset}+:{port.width}]"
    lines = [f"      .{port.name}({links[port.name]})" for port in ports]
    absent = [name for name in ("drain", "sum") if f"o_{name}" not in {port.name for port in ports}]
    constant = [f"  assign {name} = 0;  // this PE has no o_{name}\n" for name in absent]
    return f"  {name} dut (\n" + ",\n".join(lines) + "\n  );\n" + "".join(constant)


def _counts(vectors: ArrayVectors) -> int:
    streams = vectors.streams
    words = (sum(map(len, lanes)) for lanes in (streams.west, streams.north, streams.out))
    return sum(count << COUNTER_BITS * place for place, count in enumerate((vectors.cycles, vectors.macs, *words)))


def _west_words(words: Any) -> list[int]:
    return [sum(int(element) << 16 * number for number, element in enumerate(word)) for word in words]


def _north_words(entries: Any, offsets: Sequence[int]) -> list[int]:
    """Return the words of (entries, 3): value, index, valid; there is no index in groups of one."""
    columns = entries if len(offsets) == 3 else np.delete(entries, 1, axis=1)
    return [sum(int(part) << offset for part, offset in zip(entry, offsets, strict=True)) for entry in columns]


def _lane_files(name: str, lanes: Sequence[Sequence[Sequence[int]]], bits: int) -> dict[str, str]:
    """Return the words of all lanes, one lane after the other and each run after run, and where each run of a lane starts."""
    starts, words = [], list[int]()
    for lane in lanes:
        for run in lane:
            starts.append(len(words))
            words += run
        starts.append(len(words))
    return {f"{name}.hex": _hex(words, bits), f"{name}_starts.hex": _hex(starts, 32)}


def _hex(words: Iterable[int], bits: int) -> str:
    return "".join(f"{word:0{-(-bits // 4)}x}\n" for word in words)


def _port(ports: Sequence[Port], name: str) -> Port:
    return next(port for port in ports if port.name == name)


def _benches(top: str, prefix: str, constants: Mapping[str, int]) -> dict[str, str]:
    """Return the bench of a top module by its file's name."""
    lines = "".join(f"  localparam {constant} = {value};\n" for constant, value in constants.items())
    text = _template(f"tb_{top}.v", prefix).replace("@NAME@", prefix + top)
    return {f"tb_{prefix}{top}.v": text.replace("  // PARAMETERS\n", lines)}


def _stream_ends(prefix: str) -> dict[str, str]:
    return {f"tb_{prefix}stream.v": _template("tb_stream.v", prefix)}


def _template(name: str, prefix: str) -> str:
    return (TEMPLATES / name).read_text().replace("@PREFIX@", prefix)
