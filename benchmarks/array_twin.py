"""The array's twin against its hardware in Verilator and against the closed form: the same runs, one table for each.

All three say how many cycles a run takes, and the first two give its results: a table is printed only if every word, every
cycle count and every counter is the same. Verilator compiles the whole array, real PEs included, with a bench in C++ that
streams the operands and compares each word; only the run is timed. The twin's time is that of the call, preparation of its
operands included. Times are CPU seconds: on a machine that does other work too, only they say what the code needs.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from accel.counters import Counters
from accel.golden.feed import RunShape, os_tiles
from accel.golden.gemm import gemm
from accel.golden.numeric import bits
from accel.golden.prune import Entries, prune
from accel.rtl.array import SystolicArray
from accel.rtl.command import Run, command_fields, command_layout
from accel.rtl.emit import emit
from accel.rtl.parameters import ArrayParameters
from accel.rtl.stimulus import Stimulus, array_form, stimulus
from accel.sim.twin import TwinRun, run_array
from accel.sparsity import NMPattern
from accel.timing.array import os_run_cycles, ws_run_cycles

HERE = Path(__file__).parent
PARAMETERS = ArrayParameters(rows=16, cols=16, adder_latency=4, multiplier_latency=2, group=8)
PATTERN = NMPattern(2, 8)
DIM_M, DIM_N, DIM_K = 7 * 16, 8 * 64, 576  # 56 OS tiles
SEED = 1
CLOSED_FORM_CALLS = 10_000
TWIN_GOAL, CLOSED_FORM_GOAL = 100, 10_000


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    cycles: int
    seconds: float

    @property
    def cycles_per_second(self) -> float:
        """Simulated cycles a CPU second."""
        return self.cycles / self.seconds


def operands() -> tuple[np.ndarray, list[Entries]]:
    rng = np.random.default_rng(SEED)
    lhs = rng.standard_normal((1, DIM_M, DIM_K)).astype(np.float16)
    return lhs, [prune(rng.standard_normal((DIM_K, DIM_N)).astype(np.float16), PATTERN)]


def time_twin(dataflow: str, lhs: np.ndarray, rhs: Sequence[Entries], runs: int) -> tuple[Row, TwinRun]:
    form = array_form(PARAMETERS, 1)
    result = run_array(form, lhs, rhs, dataflow, DIM_M)  # compiles
    seconds = min(_cpu_seconds(lambda: run_array(form, lhs, rhs, dataflow, DIM_M)) for _ in range(runs))
    return Row("twin", result.cycles, seconds), result


def time_closed_form(dataflow: str, shape: RunShape) -> Row:
    form = array_form(PARAMETERS, 1)
    sizes = (form.rows, form.cols, form.lanes, form.row_lanes)

    def cycles() -> int:
        if dataflow == "OS":
            return os_run_cycles(*sizes, form.drain_lanes, form.multiplier_latency, DIM_M, DIM_N, shape.steps, 1)
        return ws_run_cycles(*sizes, form.multiplier_latency, DIM_M, DIM_N, shape.groups, shape.keep, DIM_M, 1)

    def call_often() -> None:
        for _ in range(CLOSED_FORM_CALLS):
            cycles()

    return Row("closed form", cycles(), _cpu_seconds(call_often) / CLOSED_FORM_CALLS)


def build_verilator() -> Path:
    """Return the compiled array with its bench; built once, then kept."""
    sys.path.insert(0, str(HERE.parent / "tests" / "support"))
    from rtl_build import FLAGS, compile_cpp

    def ports(name: str, count: int) -> str:
        return f"#define {name}(X) {' '.join(f'X({number})' for number in range(count))}\n"

    chains = PARAMETERS.cols * PARAMETERS.drain_lanes
    lists = ports("ROWS", PARAMETERS.rows) + ports("COLS", PARAMETERS.cols) + ports("OUTS", chains)
    bench = lists + (HERE / "array_twin.cpp").read_text()
    verilog = emit(SystolicArray(PARAMETERS))
    return compile_cpp(verilog, bench, (*FLAGS, "-CFLAGS", "-march=native"), no_inline=("uspe",))


def time_verilator(program: Path, run: Run, streams: Stimulus, patience: int) -> tuple[Row, Counters]:
    """Run the stream once; refuse a word that is wrong or missing."""
    with tempfile.TemporaryDirectory() as name:
        path = Path(name, "streams.bin")
        _write_streams(path, run, streams)
        process = subprocess.run([program, path, str(patience)], capture_output=True, text=True, check=False)
    fields = process.stdout.split()
    if process.returncode or len(fields) != 4 + len(Counters._fields):
        raise RuntimeError(f"the hardware must give every word, not: {process.stdout}{process.stderr}")
    return Row("Verilator", int(fields[0]), float(fields[1])), Counters(*map(int, fields[4:]))


def _write_streams(path: Path, run: Run, streams: Stimulus) -> None:
    """Write every stream as words of a transfer, words in all, words; little-endian 32 bits each."""
    layout = command_layout(PARAMETERS)
    command = layout.const(command_fields(PARAMETERS, run)).as_value().value
    transfers = [np.frombuffer(command.to_bytes((layout.size + 31) // 32 * 4, "little"), "<u4")[None]]
    transfers += [np.ascontiguousarray(words).view("<u4") for words in streams.west]
    index_bits = PARAMETERS.index_bits
    transfers += [(side[:, 0] | side[:, 1] << 16 | side[:, 2] << 16 + index_bits)[:, None] for side in streams.north]
    transfers += [words[:, None] for words in streams.out]
    with path.open("wb") as file:
        file.write(np.array([len(transfers)], "<u4").tobytes())
        for words in transfers:
            file.write(np.array([words.shape[1], words.size], "<u4").tobytes() + words.astype("<u4").tobytes())


def _cpu_seconds(call: Callable[[], object]) -> float:
    start = time.process_time()
    call()
    return time.process_time() - start


def measure(dataflow: str, program: Path, runs: int) -> list[Row]:
    """Time all three on the same operands; refuse any difference between them."""
    lhs, rhs = operands()
    shape = RunShape.of(lhs, rhs)
    run = Run(
        dataflow=dataflow, row_lanes=1, pattern=PATTERN, count=1, dim_m=DIM_M, dim_n=DIM_N, groups=shape.groups, m_chunk=DIM_M
    )
    streams = stimulus(PARAMETERS, run, lhs, rhs)
    twin, result = time_twin(dataflow, lhs, rhs, runs)
    closed = time_closed_form(dataflow, shape)
    timed = [time_verilator(program, run, streams, 2 * twin.cycles + 1000) for _ in range(max(1, runs // 4))]
    hardware, counters = min(timed, key=lambda pair: pair[0].seconds)
    if not np.array_equal(bits(result.out[0]), bits(gemm(lhs[0], rhs[0]))):  # of which the streams of the hardware are made
        raise RuntimeError("the twin must give the words that the hardware gave")
    if counters != result.counters or closed.cycles != twin.cycles:
        raise RuntimeError(f"cycles and counters must be equal: {counters}, {result.counters}, {closed.cycles}")
    return [hardware, twin, closed]


def print_rows(dataflow: str, rows: Sequence[Row]) -> None:
    pes = PARAMETERS.rows * PARAMETERS.cols
    array, product = f"{PARAMETERS.rows}x{PARAMETERS.cols} PEs", f"{DIM_M} x {DIM_N} x {DIM_K}, {PATTERN}"
    print(f"\n{dataflow}, {array}, {product}: {rows[1].cycles} cycles")
    print(f"{'':12}{'ms':>11}{'cycles/s':>11}{'PE-cycles/s':>13}{'times Verilator':>17}{'goal':>8}")
    for row, goal in zip(rows, ("", TWIN_GOAL, CLOSED_FORM_GOAL), strict=True):
        rate, ratio = row.cycles_per_second, row.cycles_per_second / rows[0].cycles_per_second
        print(f"{row.name:12}{1000 * row.seconds:11.4f}{rate:11.3g}{rate * pes:13.3g}{ratio:17,.1f}{goal:>8}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=20)
    runs = parser.parse_args().runs
    program = build_verilator()
    lhs, rhs = operands()
    tiles = len(os_tiles(array_form(PARAMETERS, 1), RunShape.of(lhs, rhs)))
    print(f"all words, cycles and counters equal; {tiles} tiles (OS); CPU time, shortest of the runs")
    for dataflow in ("OS", "WS"):
        print_rows(dataflow, measure(dataflow, program, runs))


if __name__ == "__main__":
    main()
