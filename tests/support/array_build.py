"""Builds an array in its harness and runs batches on it."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from pathlib import Path

from array_driver import TOP, harness
from rtl_build import FLAGS, Model, build_for_cocotb, cached, run_cocotb

from accel.rtl.array import SystolicArray
from accel.rtl.emit import emit
from accel.rtl.floats import BF16, FP16
from accel.rtl.parameters import ArrayParameters

BENCH = Path(__file__).parents[1] / "rtl" / "array_bench.py"
AHEAD_SECONDS = 86400
CONTROL = [
    "`verilator_config",
    *(f'public_flat_rw -module "{TOP}" -var "{port}"' for port in ("clk", "rst", "done", "hung", "clocks")),
    *(
        f'no_inline -module "{module}"'
        for module in ("uspe", "row_feeder", "column_feeder", "column_foot", "stream_source", "stream_sink")
    ),
]


def build(parameters: ArrayParameters) -> Model:
    """Return the compiled array of `parameters` in its harness."""
    array = SystolicArray(parameters)
    files = {f"{module}.v": text for module, text in emit(array).items()}
    files |= {"harness.v": harness(parameters, array.verilog_name), "top.vlt": "\n".join([*CONTROL, ""])}
    return Model(cached(files, (TOP, *FLAGS), _build), TOP)


def _build(folder: Path) -> None:
    """Build what stands in `folder`; the simulator's own code, two thirds of the work, is compiled once for all arrays."""
    empty = {"empty.v": "module empty;\nendmodule\n"}
    runtime = cached(empty, ("simulator", *FLAGS), lambda folder: build_for_cocotb(folder, "empty", FLAGS))
    for compiled in runtime.glob("verilated*.o"):
        copy = shutil.copy(compiled, folder)
        os.utime(copy, (time.time() + AHEAD_SECONDS,) * 2)  # newer than the makefile to come, so that make leaves it alone
    build_for_cocotb(folder, TOP, FLAGS)


def run(model: Model, parameters: ArrayParameters, seed: int, first: int, end: int, log: Path | None = None) -> None:
    """Run the runs from `first` to before `end` that `seed` draws, one after the other, and check them."""
    sizes = {**dataclasses.asdict(parameters), "operand_format": parameters.operand_format.name}
    env = {"ARRAY_PARAMETERS": json.dumps(sizes), "ARRAY_SEED": str(seed), "ARRAY_RUNS": f"{first}:{end}"}
    env["NUMBA_DISABLE_JIT"] = "1"  # a few closed forms: compiling them takes longer than all else
    run_cocotb(model, BENCH, seed=seed, env=env | ({"ARRAY_LOG": str(log)} if log else {}))


def parameters_from(text: str) -> ArrayParameters:
    """Return the parameters that `run` wrote."""
    sizes = {name: tuple(value) if isinstance(value, list) else value for name, value in json.loads(text).items()}
    sizes["operand_format"] = {form.name: form for form in (FP16, BF16)}[sizes["operand_format"]]
    return ArrayParameters(**sizes)
