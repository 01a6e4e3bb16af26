"""Builds emitted Verilog with Verilator, for benches in cocotb and in C++, and reads it with slang.

A model stands in .cache/rtl in a folder named by a hash of all that went into it, so it is rebuilt exactly when that changes.
A folder is built under another name and renamed when done: parallel test processes never see half of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from unittest import mock

from filelock import FileLock

from accel.rtl.emit import emit
from accel.rtl.toolchain import verilator

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from accel.rtl.emit import Placeable

CACHE = Path(__file__).parents[2] / ".cache" / "rtl"
FLAGS = ("-O3", "--x-assign", "fast", "--x-initial", "fast", "--no-assert")
_PORT = re.compile(r"^  (?:input|output) (?:\[[^]]+\] )?(\w+);$", re.MULTILINE)
_LOG_END = 4000
_ENVIRONMENT = {
    "COCOTB_ANSI_OUTPUT": "0",
    "COCOTB_REWRITE_ASSERTION_FILES": "",  # by default cocotb has pytest rewrite every package that a bench imports
}


@dataclass(frozen=True)
class Model:
    """A compiled simulation."""

    folder: Path
    top: str

    @property
    def program(self) -> Path:
        """The program to run."""
        return self.folder / self.top


def verilate_for_cocotb(top: Placeable, *, no_inline: Sequence[str] = (), flags: Sequence[str] = FLAGS) -> Model:
    """Build `top` for cocotb. `no_inline` names modules of many instances: they build faster when kept apart."""
    verilog = emit(top)
    name = top.verilog_name
    files = {f"{module}.v": text for module, text in verilog.items()} | {"top.vlt": _control(name, verilog[name], no_inline)}
    return Model(cached(files, (name, *flags), lambda folder: build_for_cocotb(folder, name, flags)), name)


def run_cocotb(model: Model, bench: Path, *, seed: int = 1, env: Mapping[str, str] | None = None) -> None:
    """Run the cocotb bench `bench` (a Python file) on `model` and fail with the end of its log if a test in it failed."""
    from cocotb_tools.check_results import get_results
    from cocotb_tools.runner import get_runner

    with tempfile.TemporaryDirectory() as name, _on_path(bench.parent, Path(__file__).parent):
        log, results = Path(name, "log.txt"), Path(name, "results.xml")
        status = None
        try:
            get_runner("verilator").test(
                test_module=bench.stem,
                hdl_toplevel=model.top,
                hdl_toplevel_lang="verilog",
                build_dir=model.folder,
                test_dir=name,
                results_xml=str(results),
                log_file=log,
                seed=seed,
                extra_env={**_ENVIRONMENT, **(env or {})},
            )
        except (SystemExit, RuntimeError) as error:
            status = error
        count, failed = get_results(results) if results.exists() else (0, 0)
        text = log.read_text()[-_LOG_END:] if log.exists() else ""
        passed = status is None and count > 0 and failed == 0
        assert passed, f"{bench.name}: {failed} of {count} tests failed, {status}\n{text}"


def compile_cpp(
    verilog: Mapping[str, str], bench_cpp: Path | str, flags: Sequence[str] = FLAGS, *, no_inline: Sequence[str] = ()
) -> Path:
    """Build what `emit` returned with a C++ `main`, a file or its text, and return the program.

    The class of the model is `V` and the name of the last module. `no_inline` as in `verilate_for_cocotb`.
    """
    top = list(verilog)[-1]
    bench = bench_cpp.read_text() if isinstance(bench_cpp, Path) else bench_cpp
    files = {f"{module}.v": text for module, text in verilog.items()} | {"bench.cpp": bench}
    if no_inline:
        files["top.vlt"] = _control(top, "", no_inline)

    def build(folder: Path) -> None:
        tool = verilator()
        command = [str(tool.path), "--cc", "--exe", "--build", "-j", str(os.cpu_count()), "-Wno-fatal", "-Wno-lint", *flags]
        sources = [str(folder / file) for file in files]
        _run([*command, "--top-module", top, "-Mdir", str(folder), "-o", top, *sources], folder, tool.environment())

    return cached(files, (top, *flags), build) / top


def slang_lint(files: Sequence[Path], top: str) -> str:
    """Return what slang says about `files`: an empty text where it finds nothing."""
    program = (
        "import sys, pyslang\n"
        "driver = pyslang.driver.Driver()\n"
        "driver.addStandardArgs()\n"
        "ok = driver.parseCommandLine(sys.argv[1]) and driver.processOptions() and driver.parseAllSources()\n"
        "compilation = driver.createCompilation()\n"
        "driver.reportCompilation(compilation, True)\n"
        "sys.exit(not (driver.reportDiagnostics(True) and ok))\n"
    )
    arguments = " ".join(
        ["slang", "--top", top, "-Wextra", "-Wpedantic", "-Wwidth-trunc", "-Wport-width-trunc", *map(str, files)]
    )
    process = subprocess.run([sys.executable, "-c", program, arguments], capture_output=True, text=True, check=False)
    return (process.stdout + process.stderr).strip() or ("" if process.returncode == 0 else "slang failed")


def _control(top: str, text: str, no_inline: Sequence[str]) -> str:
    # cocotb's runner makes every signal public, which costs a factor of ten in both building and running. Its flag is
    # taken back, and the ports, all that a bench touches, are made public here.
    ports = [f'public_flat_rw -module "{top}" -var "{port}"' for port in _PORT.findall(text.partition("\nendmodule")[0])]
    kept = [f'no_inline -module "{module}"' for module in no_inline]
    return "\n".join(["`verilator_config", *ports, *kept, ""])


def build_for_cocotb(folder: Path, top: str, flags: Sequence[str]) -> None:
    """Build the Verilog in `folder`, with the control files there, as cocotb's runner does."""
    from cocotb_tools.runner import get_runner

    log = folder / "build.log"
    try:
        with mock.patch.dict(os.environ, verilator().env):
            get_runner("verilator").build(
                sources=[*sorted(folder.glob("*.vlt")), *sorted(folder.glob("*.v"))],
                hdl_toplevel=top,
                build_args=["--no-public-flat-rw", "-Wno-fatal", "-Wno-lint", *flags],
                build_dir=folder,
                log_file=log,
            )
    except (SystemExit, subprocess.CalledProcessError, RuntimeError) as error:
        text = log.read_text()[-_LOG_END:] if log.exists() else ""
        raise AssertionError(f"building {top} failed, {error}\n{text}") from None


def cached(files: Mapping[str, str], flags: Sequence[str], build: Callable[[Path], None]) -> Path:
    """Return the folder of `files` built by `build(folder)`, which is called unless it was built before."""
    tool = verilator()
    version = _run([str(tool.path), "--version"], Path.cwd(), tool.environment())
    key = hashlib.sha256(repr((sorted(files.items()), tuple(flags), version, sorted(tool.env.items()), sys.version)).encode())
    done = CACHE / f"{flags[0]}-{key.hexdigest()[:16]}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{done}.lock"):  # the second process waits for the first instead of building the same
        if not done.exists():
            # Make and the linker write absolute paths into the folder: only what is read after the build may be moved.
            folder = Path(f"{done}.part")
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            for name, text in files.items():
                (folder / name).write_text(text)
            build(folder)
            folder.rename(done)
    return done


def _run(command: Sequence[str], cwd: Path, env: Mapping[str, str]) -> str:
    process = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, check=False)
    if process.returncode:
        raise AssertionError(f"{Path(command[0]).name} failed:\n{(process.stdout + process.stderr)[-_LOG_END:]}")
    return process.stdout


@contextlib.contextmanager
def _on_path(*folders: Path) -> Iterator[None]:
    """Let the simulator's Python, which takes over this one's path, find the bench and what supports it."""
    with mock.patch.object(sys, "path", [*map(str, folders), *sys.path]):
        yield
