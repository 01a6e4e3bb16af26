"""Runs of the array in Verilator under a C++ main: for streams too long for a bench in Python."""

import math
import re
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from rtl_build import FLAGS, compile_cpp

from accel.counters import COUNTERS
from accel.rtl.array import SystolicArray
from accel.rtl.command import command_fields, command_layout
from accel.rtl.emit import emit
from accel.rtl.parameters import ArrayParameters
from accel.timing.array import os_run_cycles, ws_run_cycles

ARRAY_16 = ArrayParameters(rows=16, cols=16, adder_latency=4, multiplier_latency=3, group=8, row_lanes=(1, 4))
"""The array of the long runs; building it takes a minute."""

MAIN = Path(__file__).with_name("array_main.cpp")


def run_array(parameters, runs, *, stall_frac=0.0, limit=10_000_000, flags=FLAGS):
    """Run [(run, stimulus)] one after the other; return for each its counters and the words of each output, and all cycles."""
    top = SystolicArray(parameters)
    program = compile_cpp(emit(top), _main(parameters), (*flags, "-CFLAGS", "-std=c++17"), no_inline=("uspe",))
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        with source.open("wb") as file:
            file.write(np.uint64(len(runs)).tobytes())
            for run, streams in runs:
                _write(file, parameters, run, streams, round(256 * stall_frac))
        subprocess.run([program, source, target, str(limit)], check=True)
        return _read(np.fromfile(target, np.uint8), parameters, len(runs))


def run_cycles(parameters, run):
    """Return the closed form of a run."""
    sizes = (parameters.rows, parameters.cols, parameters.adder_latency, run.row_lanes)
    product, keep = (run.dim_m, run.dim_n), run.pattern.keep
    if run.dataflow == "OS":
        pipes = (parameters.drain_lanes, parameters.multiplier_latency)
        return os_run_cycles(*sizes, *pipes, *product, run.groups * keep, run.count)
    return ws_run_cycles(*sizes, parameters.multiplier_latency, *product, run.groups, keep, run.m_chunk, run.count)


def check_runs(parameters, runs, **options):
    """Run [(run, stimulus)] and compare every output and counter; return the counters of each run."""
    results, _ = run_array(parameters, runs, **options)
    for (run, streams), (counters, out) in zip(runs, results, strict=True):
        wanted = {"cycles": run_cycles(parameters, run), **streams.counters}
        assert {name: counters[name] for name in wanted} == wanted, f"counters of {run} on {parameters}"
        for number, (got, words) in enumerate(zip(out, streams.out, strict=True)):
            assert np.array_equal(got, words), f"output {number} of {run} on {parameters}"
    return [counters for counters, _ in results]


def _main(parameters):
    west, north = [f"i_west__{row}" for row in range(parameters.rows)], [f"i_north__{col}" for col in range(parameters.cols)]
    sinks = [f"o_out__{number}" for number in range(parameters.cols * parameters.drain_lanes)]
    strides = dict.fromkeys(west, 2 * parameters.group) | dict.fromkeys(north, 4)
    strides["i_command"] = _command_words(parameters) * 4

    def port(name):
        stride = -(-strides.get(name, 4) // 4) * 4
        payload = f"dut->{name}__payload"
        return f"{{&dut->{name}__valid, &dut->{name}__ready, (uint8_t*)&{payload}, sizeof {payload}, {stride}}}"

    text = MAIN.read_text().replace("@top@", SystolicArray.verilog_name)
    text = text.replace("@sources@", ", ".join(map(port, ["i_command", *west, *north])))
    text = text.replace("@sinks@", ", ".join(map(port, sinks)))
    text = text.replace("@counters@", ", ".join(f"(uint64_t)dut->o_{name}" for name in COUNTERS))
    return re.sub(r"dut->\w+", lambda match: match[0].replace("__", "___05F"), text)  # as Verilator spells names in C++


def _command_words(parameters):
    return math.ceil(command_layout(parameters).size / 32)


def _write(file, parameters, run, streams, stall):
    command = command_layout(parameters).const(command_fields(parameters, run)).as_value().value
    file.write(np.uint64(stall).tobytes())
    file.write(np.uint64(1).tobytes() + command.to_bytes(4 * _command_words(parameters), "little"))
    for words in streams.west:
        even = np.pad(words, [(0, 0), (0, words.shape[1] % 2)])
        file.write(np.uint64(len(words)).tobytes() + even.astype("<u2").tobytes())
    index_bits = parameters.index_bits
    for entries in streams.north:
        value, index, valid = entries.T
        packed = value | index << 16 | valid << 16 + index_bits
        file.write(np.uint64(len(packed)).tobytes() + packed.astype("<u4").tobytes())


def _read(data, parameters, count):
    at = 0

    def take(size, dtype):
        nonlocal at
        at += size * np.dtype(dtype).itemsize
        return data[at - size * np.dtype(dtype).itemsize : at].view(dtype)

    results = []
    for _ in range(count):
        counters = dict(zip(COUNTERS, map(int, take(len(COUNTERS), "<u8")), strict=True))
        out = [take(int(take(1, "<u8")[0]), "<u4").copy() for _ in range(parameters.cols * parameters.drain_lanes)]
        results.append((counters, out))
    return results, int(take(1, "<u8")[0])
