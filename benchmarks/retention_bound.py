"""What keeping data in the buffers from one operation to the next could save at most: the table of docs/scheduling.md.

python benchmarks/retention_bound.py            print the table
python benchmarks/retention_bound.py --write    and put it into the page

An operation reads from the chip at most what all buffers hold and what was written or read before it in the step, and leaves
there at most what they hold of its results. That bounds the bytes saved, whatever the order of operations; a byte saves its
energy, and time only where the operation waits for DRAM.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pages
from pages import Table

from accel.api import resolve_arch, resolve_trace, step_options
from accel.arch import Arch
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import schedule
from accel.energy import PJ, energy_table
from accel.schedule import Schedule, Step
from accel.sim.energy import step_energy
from accel.sim.step import simulate_step

NETWORKS = ("resnet9", "vgg19", "vit-cifar", "resnet18-64", "resnet50")
ARCH, ENERGIES, BATCH = "sat-vcu1525", "fpga-16nm", 64


@dataclass(frozen=True)
class Operation:
    """What one product or operator reads and writes in DRAM, and how long it waits there at most."""

    reads: frozenset[str]
    writes: frozenset[str]
    dram_bytes: int
    waits_cycles: int


def operations(planned: Schedule) -> Iterator[Operation]:
    """Yield the operations of a step in order; an operator on results reads and writes nothing of its own."""
    rows = iter(simulate_step(planned))
    for segment in planned.step.segments:
        for gemm in segment.gemms:
            row = next(rows)
            waits = row.cycles if row.engine == "vector" else row.losses.get("dram", 0) + row.losses.get("fill", 0)
            reads = frozenset(gemm.lhs.tensors + gemm.rhs.tensors)
            yield Operation(reads, frozenset(gemm.writes), row.dram_bytes, waits)
        for work in segment.vectors:
            row = next(rows)
            if not work.on_results:
                yield Operation(frozenset(work.reads), frozenset(work.writes), row.dram_bytes, row.cycles)


def savings(planned: Schedule) -> tuple[int, float]:
    """Return the bytes and the cycles that retention saves at most in one step."""
    arch, sizes = planned.arch, planned.step.tensor_bytes
    room = arch.west_buffer_bytes + arch.north_buffer_bytes + arch.output_buffer_bytes
    seen: set[str] = set()
    saved_bytes, saved_cycles = 0, 0.0
    for operation in operations(planned):
        read = sum(sizes.get(name, room) for name in operation.reads & seen)
        written = sum(sizes.get(name, room) for name in operation.writes)
        kept = min(min(read, room) + min(written, room), operation.dram_bytes)
        saved_bytes += kept
        saved_cycles += min(kept / arch.dram_bytes_per_cycle, operation.waits_cycles)
        seen |= operation.reads | operation.writes
    return saved_bytes, saved_cycles


def row_of(network: str, arch: Arch) -> list[object]:
    """Return the row of one network."""
    step: Step = lower(resolve_trace(network), step_options(arch, "bdwp", "2:8", BATCH, None, "sgd", True))
    planned = schedule(step, arch)
    rows, table = simulate_step(planned), energy_table(ENERGIES)
    saved_bytes, saved_cycles = savings(planned)
    joules = step_energy(planned, rows, table).joules
    pj_per_byte = table.dram_pj_per_byte.value + table.buffer_pj_per_byte.value
    shares = (
        saved_bytes / sum(row.dram_bytes for row in rows),
        saved_cycles / sum(row.cycles for row in rows),
        saved_bytes * pj_per_byte * PJ / joules,
    )
    return [network, *(f"{100 * share:.2g}%" for share in shares)]


def table() -> Table:
    """Return the table of all networks."""
    arch = resolve_arch(ARCH)
    return [["network", "of DRAM bytes", "of time", "of energy"], *(row_of(network, arch) for network in NETWORKS)]


if __name__ == "__main__":
    pages.run("Bound what retention between operations could save.", "scheduling.md", "retention", table)
