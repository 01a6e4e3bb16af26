"""Times the exploration of machines: whole training steps a second, and products, mappings and evaluations; see README.md."""

from __future__ import annotations

import argparse
import json
import random
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from measure import Timing, median
from rich.console import Console
from rich.table import Table
from run import machine_text

from accel.api import resolve_trace, step_options
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import schedule_gemms
from accel.explore.evaluate import Evaluator
from accel.explore.space import Space

MACHINES = 1000
COUNTED = 50
"""Machines whose mappings are counted, for the mean."""
RUNS = 3
SEED = 1

SPACE = """
[arch]
base = "sat-vcu1525"

[vary]
array_rows = [16, 24, 32, 40, 48, 64]
array_cols = [16, 24, 32, 48, 64]
west_buffer_bytes = [262144, 524288, 1048576, 2097152]
north_buffer_bytes = [262144, 524288, 1048576, 2097152]
dram_bytes_per_second = [19.2e9, 38.4e9, 76.8e9, 153.6e9]

[work]
networks = {resnet50 = 1.0}
methods = [{method = "bdwp", pattern = "2:8"}]
batch = 64
"""
"""Every field of it is one that the search of a product reads. Machines that differ in buffers alone share what is found where
it fits; others share nothing."""

CITED = {
    "ZigZag, one evaluation of a mapping": "2-4 ms",
    "Timeloop, one evaluation of a mapping": "7.5-9.6 ms",
    "MAESTRO, evaluations": "0.17 M/s",
}
"""Of other machines and other models: an evaluation is theirs, not ours."""


@dataclass(frozen=True)
class Sweep:
    """A sweep over `machines` with so many threads."""

    threads: int
    machines: int
    products: int
    """Different products of a step."""
    evaluated: float
    """Evaluations of the closed form a machine, of single mappings and of bounds."""
    covered: float
    """Mappings a machine, all of them covered."""
    timing: Timing

    @property
    def steps_per_second(self) -> float:
        """By the clock: on a busy machine a part of what the code can do."""
        return self.machines / self.timing.wall_seconds

    @property
    def steps_per_cpu_second(self) -> float:
        """On one core."""
        return self.machines / self.timing.cpu_seconds


def sweep(threads: int, points: list[int]) -> Timing:
    """Evaluate whole training steps on machines that were never seen before, by the Python interface."""
    timings = []
    for _ in range(RUNS):
        evaluator = Evaluator(Space.from_text(SPACE, "the benchmark's space"), threads)
        evaluator.rows(points[-1:])  # lowers the network, and compiles
        cpu, wall = time.process_time(), time.perf_counter()
        rows = evaluator.rows(points[:-1])
        timings.append(Timing(time.process_time() - cpu, time.perf_counter() - wall))
        if any(row["problem"] is not None for row in rows):
            raise RuntimeError("every machine of the space must be able to run the network")
    return median(timings)


def counts(points: list[int]) -> tuple[int, float, float]:
    """Return (different products, evaluations a machine, mappings a machine)."""
    space = Space.from_text(SPACE, "the benchmark's space")
    evaluated = covered = products = 0
    for point in points[:COUNTED]:
        arch = space.arch(point)
        step = lower(resolve_trace("resnet50"), step_options(arch, "bdwp", "2:8", 64, None, "sgd", True))
        found = {id(one.search): one.search for one in schedule_gemms(step.gemms, arch)}
        products = len(found)
        evaluated += sum(search.evaluated for search in found.values())
        covered += sum(search.covered for search in found.values())
    return products, evaluated / COUNTED, covered / COUNTED


def print_sweeps(sweeps: list[Sweep], out: Console) -> None:
    table = Table(caption="all mappings of every product covered; rates per CPU second, of one core", caption_justify="left")
    table.add_column(f"{MACHINES:,} machines, ResNet-50 step, 2:8, batch 64", no_wrap=True)
    for name in ("CPU", "clock", "steps by the clock", "steps", "(machine, product)", "evaluations", "mappings covered"):
        table.add_column(name, justify="right", no_wrap=True)
    for one in sweeps:
        rate, threads = one.steps_per_cpu_second, f"{one.threads} thread{'s' * (one.threads > 1)}"
        seconds = f"{one.timing.cpu_seconds:.2f} s", f"{one.timing.wall_seconds:.2f} s"
        rates = (
            f"{one.steps_per_second:,.0f}",
            f"{rate:,.0f}",
            f"{rate * one.products:,.0f}",
            f"{rate * one.evaluated:,.0f}",
            f"{rate * one.covered:.2g}",
        )
        table.add_row(threads, *seconds, *rates)
    out.print(table)
    for peer, figure in CITED.items():
        out.print(f"  {figure:>10}  {peer} (cited)")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the exploration of machines.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the numbers here as well")
    options = parser.parse_args()
    size = Space.from_text(SPACE, "the benchmark's space").size
    points = random.Random(SEED).sample(range(size), MACHINES + 1)
    products, evaluated, covered = counts(points)
    sweeps = [Sweep(threads, MACHINES, products, evaluated, covered, sweep(threads, points)) for threads in (1, 2)]
    out, machine = Console(highlight=False, width=160), machine_text()
    out.print(machine)
    print_sweeps(sweeps, out)
    if options.json:
        fields = {"machine": machine, "sweeps": [asdict(one) for one in sweeps]}
        options.json.write_text(json.dumps(fields, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
