"""cocotb bench of the array in its harness: a batch of drawn runs, then every word and every counter is checked.

The harness acts in every cycle; Python only starts it and looks at the end. The first runs are cut off by a reset and start
again, so that registers without a reset hold something.
"""

import os
from pathlib import Path

import cocotb
from array_build import parameters_from
from array_checker import check
from array_driver import Batch, write_files
from array_model import draw_case
from array_monitor import read_files
from cocotb.clock import Clock
from cocotb.triggers import ClockCycles, RisingEdge

RESET_AFTER_CYCLES = 300


@cocotb.test()
async def every_run_gives_its_bits_cycles_and_counters(dut):
    parameters, seed = parameters_from(os.environ["ARRAY_PARAMETERS"]), int(os.environ["ARRAY_SEED"])
    first, end = map(int, os.environ["ARRAY_RUNS"].split(":"))
    batch = Batch.of([draw_case(parameters, seed, index) for index in range(first, end)])
    write_files(batch, Path.cwd())
    dut.rst.value = 1
    Clock(dut.clk, 2, unit="step", impl="gpi").start()
    for cycles in (2, RESET_AFTER_CYCLES, 2):
        await ClockCycles(dut.clk, cycles)
        dut.rst.value = not dut.rst.value
    await RisingEdge(dut.done)
    await ClockCycles(dut.clk, 2)
    seen = read_files(parameters, Path.cwd(), bool(dut.hung.value), int(dut.clocks.value))
    check(batch, seen)
    if "ARRAY_LOG" in os.environ:
        Path(os.environ["ARRAY_LOG"]).write_text(log_line(batch, seen))


def log_line(batch, seen):
    stalled = sum(run["stall_cycles"] > 0 for run in seen.runs)
    return f"{len(batch.cases)} {stalled} {seen.cycles} {sum(run['macs'] for run in seen.runs)} {sum(map(len, seen.words))}\n"
