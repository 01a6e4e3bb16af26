"""Times the package against its goals and against SCALE-Sim 3.0.0; see README.md. `python benchmarks/run.py [--quick]`."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import random
import resource
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import scale_sim
from measure import Timing, median, peak_bytes, time_function, time_process
from rich.console import Console
from rich.table import Table

import accel
from accel import networks
from accel.arch import Arch
from accel.dataflow.codegen import compile_schedule
from accel.dataflow.context import Options
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import schedule, schedule_gemms
from accel.dataflow.verifier import verify
from accel.gemm import Gemm, GemmShape, Operand, Stage
from accel.methods import method, optimizer
from accel.presets import preset
from accel.scalesim import read_topology
from accel.schedule import Footprint, ScheduledGemm, Segment, Step
from accel.sim.machine import run_program
from accel.sim.step import simulate_step
from accel.sparsity import DENSE, NMPattern
from accel.trace import Trace

RUNS = 9
SEED = 1
PACKAGES = ("nm-accel", "numpy", "numba", "pydantic")

CYCLES_TEXT = """\
What the cycles include: SCALE-Sim's compute cycles fill and drain the array for every fold, one fold after the other, and
wait for no memory. accel's array cycles let a tile fill and drain beside its neighbours: only the ends of a product and drains
longer than their tile show. "with DRAM" adds first loads, last stores and waiting for DRAM. SCALE-Sim runs forward only;
accel's time is that of forward, backward and update."""


@dataclass(frozen=True)
class Line:
    """One line of the table: what was measured, what it is held against, and what else the run told."""

    what: str
    timing: Timing
    against: str
    against_seconds: float | None
    """CPU seconds of the goal or the peer; None where there is nothing to compare."""
    notes: dict[str, int] = field(default_factory=dict)

    @property
    def ratio(self) -> float | None:
        """How many times less CPU time than the goal or the peer."""
        return None if self.against_seconds is None else self.against_seconds / self.timing.cpu_seconds


def step_lines() -> list[Line]:
    """Time a whole training step of ResNet-50, every mapping of every product considered, and its parts."""
    arch, trace = preset("sat-vcu1525"), networks.load("resnet50")
    summed = time_function(lambda: accel.simulate(trace, arch, batch=64, baseline=False, model="closed-form"), RUNS)
    whole = time_function(lambda: accel.simulate(trace, arch, batch=64, baseline=False), RUNS)
    options = _options(arch, "bdwp", batch=64)
    step = lower(trace, options)
    planned = schedule(step, arch)
    program = compile_schedule(planned)
    search = time_function(lambda: schedule(step, arch), RUNS)
    run = time_function(lambda: run_program(program), RUNS)
    instructions = len(program.instructions)
    rate = {"instructions": instructions, "instructions run per CPU second": round(instructions / run.cpu_seconds)}
    return [
        Line("training step of ResNet-50, 2:8, batch 64", summed, "goal", 0.1, _mappings(planned.gemms, search)),
        Line("  lower", time_function(lambda: lower(trace, options), RUNS), "", None),
        Line("  search", search, "", None),
        Line("  step", time_function(lambda: simulate_step(planned), RUNS), "", None),
        Line("  the same, instruction by instruction", whole, "goal", 2.0, rate),
        Line("  compile", time_function(lambda: compile_schedule(planned), RUNS), "", None),
        Line("  run", run, "", None),
        Line("verify a program from a file", time_function(lambda: verify(program), RUNS), "", None),
    ]


def _options(arch: Arch, name: str, batch: int) -> Options:
    pattern = DENSE if name == "dense" else NMPattern(2, 8)
    return Options(batch=batch, method=method(name), pattern=pattern, optimizer=optimizer("sgd"), word_elems=arch.group)


def _mappings(gemms: Sequence[ScheduledGemm], timing: Timing) -> dict[str, int]:
    """Return how many mappings were considered; of equal products only one is searched, so only one counts."""
    distinct = {id(found.search): found.search for found in gemms}
    covered = sum(search.covered for search in distinct.values())
    evaluated = sum(search.evaluated for search in distinct.values())
    return {
        "products": len(gemms),
        "of them different, searched": len(distinct),
        "mappings covered": covered,
        "evaluations, of mappings and of bounds, both rounds": evaluated,
        "covered per CPU second of search": round(covered / timing.cpu_seconds),
        "evaluations per CPU second of search": round(evaluated / timing.cpu_seconds),
    }


def random_gemms(count: int) -> list[Gemm]:
    """Return products with m, n and k log-uniform from 16 to 8192, every second one 2:8 along k."""
    generator = random.Random(SEED)
    return [_gemm(index, *(_log_uniform(generator, 16, 8192) for _ in "mnk")) for index in range(count)]


def _log_uniform(generator: random.Random, low: int, high: int) -> int:
    return round(math.exp(generator.uniform(math.log(low), math.log(high))))


def _gemm(index: int, m: int, n: int, k: int) -> Gemm:
    rhs = Operand("B", row_elems=k, distinct=n, pattern=NMPattern(2, 8) if index % 2 else DENSE)
    shape = GemmShape(m, n, k_taps=1, k_inner=k)
    lhs = Operand("A", row_elems=k, distinct=m)
    return Gemm(f"gemm{index}", Stage.FORWARD, "", shape, lhs, rhs, macs_nominal=shape.macs, out_elems=m * n)


def gemm_lines() -> list[Line]:
    """Time the scheduling of 1,000 products of random shape."""
    arch, gemms = preset("sat-vcu1525"), random_gemms(1000)
    timing = time_function(lambda: schedule_gemms(gemms, arch), RUNS)
    return [Line("schedule 1,000 random GEMMs, half 2:8", timing, "goal", 0.05, _mappings(schedule_gemms(gemms, arch), timing))]


CITED_GEMM_SECONDS = {"ONNXim": 0.15, "ZigZag 3.9.1": 1.9, "Timeloop v3.0": 34.0, "STONNE": 183.0}
"""CPU seconds that others take for the product of 784 x 256 x 1152 on 1,024 MACs, measured once on a machine of this kind."""


def one_gemm_lines() -> list[Line]:
    """Time one product from shapes to cycles: scheduled, compiled to a program and run."""
    arch, gemm = preset("sat-vcu1525"), _gemm(0, 784, 256, 1152)
    named = replace(gemm, lhs=replace(gemm.lhs, tensors=("a",)), rhs=replace(gemm.rhs, tensors=("b",)), writes=("c",))
    step = Step("gemm", 1, (Segment((named,)),), (), Footprint(0, 0, 0, 0))
    timing = time_function(lambda: run_program(compile_schedule(schedule(step, arch))), RUNS)
    planned = schedule(step, arch)
    run = time_function(lambda: run_program(compile_schedule(planned)), RUNS)
    notes = {
        "cycles, if every PE multiplied in every cycle": planned.gemms[0].compute_bound_cycles,
        "cycles by the closed form, first loads and last stores counted in": planned.gemms[0].cost.cycles,
        "cycles of the program": run_program(compile_schedule(planned)).cycles,
    }
    lines = [Line("GEMM 784 x 256 x 1152: search, program, run", timing, "goal", 0.001, notes)]
    lines += [Line(f"  against {peer} (cited)", timing, peer, seconds) for peer, seconds in CITED_GEMM_SECONDS.items()]
    return [*lines, Line("  program and run alone", run, "", None)]


def command_lines(folder: Path) -> list[Line]:
    """Time the command in a fresh process: first with an empty cache of compiled code, then with a warm one."""
    command = [sys.executable, "-m", "accel", "simulate", "resnet50", "--json", "-"]
    environment = {"NUMBA_CACHE_DIR": str(folder / "numba"), "PYTHONDONTWRITEBYTECODE": ""}  # empty: modules are compiled once
    runs = [time_process(command, folder / "command.json", folder, **environment) for _ in range(1 + RUNS)]
    return [
        Line("accel simulate resnet50, fresh process", median(runs[1:]), "goal", 1.5),
        Line("  its very first run: compiles", runs[0], "goal", 20.0),
    ]


def peer_lines(folder: Path) -> list[Line]:
    """Time ResNet-18 with batch 1 from one topology file: SCALE-Sim forward only, ours a whole training step."""
    topology = folder / "resnet18.csv"
    scale_sim.write_topology(topology, "resnet18")
    trace, _ = read_topology(topology)
    arch = preset("sat-vcu1525")
    options = {"method": "dense", "batch": 1, "baseline": False}
    machine = time_function(lambda: accel.simulate(trace, arch, **options), RUNS)
    summed = time_function(lambda: accel.simulate(trace, arch, **options, model="closed-form"), RUNS)
    peak = peak_bytes(resource.getrusage(resource.RUSAGE_SELF))
    peer, peer_cycles = scale_sim.run(topology, folder)
    of_peer = "SCALE-Sim", peer.cpu_seconds
    return [
        Line("SCALE-Sim 3.0.0: ResNet-18 forward, OS, batch 1", peer, "", None, peer_cycles),
        Line("accel: its whole training step, same file", replace(summed, peak_bytes=peak), *of_peer, _forward_cycles(trace)),
        Line("  the same, instruction by instruction", replace(machine, peak_bytes=peak), *of_peer),
    ]


def _forward_cycles(trace: Trace) -> dict[str, int]:
    """Return the cycles of the dense forward products, more and more counted in."""
    arch = preset("sat-vcu1525")
    os_only, best = _forward(trace, arch.replace(dataflows=("OS",))), _forward(trace, arch)
    return {
        "forward cycles if every PE multiplied in every cycle": sum(gemm.compute_bound_cycles for gemm in os_only),
        "forward array cycles, OS only": sum(gemm.cost.array_cycles for gemm in os_only),
        "forward array cycles, best mapping": sum(gemm.cost.array_cycles for gemm in best),
        "forward cycles with DRAM, best mapping": sum(gemm.cost.cycles for gemm in best),
    }


def _forward(trace: Trace, arch: Arch) -> list[ScheduledGemm]:
    planned = schedule(lower(trace, _options(arch, "dense", batch=1)), arch)
    return [found for found in planned.gemms if found.gemm.stage == Stage.FORWARD]


def machine_text() -> str:
    """Return what the numbers were measured on."""
    packages = ", ".join(f"{name} {version(name)}" for name in PACKAGES)
    load = f"load average {os.getloadavg()[0]:.1f}"
    return f"{_processor()}, {os.cpu_count()} cores, {load}; Python {platform.python_version()}, {packages}"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def print_table(lines: list[Line], out: Console) -> None:
    table = Table(caption="ratio: goal or peer over measured CPU time; above 1 is better", caption_justify="left")
    table.add_column("what", no_wrap=True)
    for name in ("CPU", "clock", "memory", "goal or peer", "ratio"):
        table.add_column(name, justify="right", no_wrap=True)
    for line in lines:
        cpu, clock = _seconds(line.timing.cpu_seconds), _seconds(line.timing.wall_seconds)
        memory = f"{line.timing.peak_bytes / 2**20:,.0f} MiB" if line.timing.peak_bytes else ""
        against = "" if line.against_seconds is None else f"{line.against} {_seconds(line.against_seconds)}"
        table.add_row(line.what, cpu, clock, memory, against, _ratio(line.ratio))
    out.print(table)


def print_notes(lines: list[Line], out: Console) -> None:
    for line in lines:
        if line.notes:
            out.print(f"{line.what.strip()}:")
        for name, value in line.notes.items():
            out.print(f"  {value:>15,}  {name}")
    if any(line.against == "SCALE-Sim" for line in lines):
        out.print(CYCLES_TEXT)


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s" if seconds < 100 else f"{seconds:.0f} s"


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.1f}" if ratio < 100 else f"{ratio:,.0f}"


def measure_all(quick: bool, progress: Console) -> list[Line]:
    """Run every benchmark, naming the one that runs on a terminal."""
    with tempfile.TemporaryDirectory(prefix="accel-bench-") as name, progress.status("") as status:
        folder = Path(name)
        jobs: dict[str, Callable[[], list[Line]]] = {
            "ResNet-50 step": step_lines,
            "random GEMMs": gemm_lines,
            "one GEMM": one_gemm_lines,
            "the command in a fresh process": lambda: command_lines(folder),
        }
        if not quick:
            jobs["SCALE-Sim, some minutes"] = lambda: peer_lines(folder)
        lines: list[Line] = []
        for index, (job, run) in enumerate(jobs.items(), start=1):
            status.update(f"{index} of {len(jobs)}: {job}")
            lines += run()
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the package against its goals and against SCALE-Sim.")
    parser.add_argument("--quick", action="store_true", help="leave out SCALE-Sim, which takes some minutes and 5 GiB")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    options = parser.parse_args()
    machine = machine_text()
    lines = measure_all(options.quick, Console(stderr=True))
    out = Console(highlight=False) if sys.stdout.isatty() else Console(highlight=False, width=160)
    out.print(machine)
    print_table(lines, out)
    print_notes(lines, out)
    if options.json:
        fields = {"machine": machine, "lines": [asdict(line) | {"ratio": line.ratio} for line in lines]}
        options.json.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
