"""The tables of docs/dram.md: the bandwidth that banks and rows leave, and whole steps with them and without.

python benchmarks/dram_tables.py [bandwidth] [steps [PRESET] [NET...]]
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import numpy as np

from accel.api import compile_step
from accel.arch import Arch
from accel.compare import DEFAULT_BATCH, DEFAULT_BATCHES, HEADLINE_NETWORKS
from accel.dram import DEVICE_OF_PRESET, DramDevice, resolve_dram
from accel.presets import DEFAULT_ARCH, PRESETS, preset
from accel.program import Engine, Program
from accel.sim.machine import run_jobs
from accel.timing.dram import Stream, beats
from accel.timing.jobs import Jobs, jobs_of

PORT_ENGINES = (Engine.LOAD, Engine.STORE, Engine.VECTOR, Engine.UPDATE)
MIB = 2**20


def main() -> None:
    asked = sys.argv[1:] or ["bandwidth", "steps"]
    if "bandwidth" in asked:
        print_bandwidth()
    if "steps" in asked:
        names = asked[asked.index("steps") + 1 :]
        arch = names.pop(0) if names and names[0] in PRESETS else DEFAULT_ARCH
        print_steps(preset(arch), names or HEADLINE_NETWORKS)


def print_bandwidth() -> None:
    """Print the share of the peak that transfers of some shapes reach."""
    arches = [preset(name) for name in DEVICE_OF_PRESET if name != "sat-vcu1525-g16"]
    print("| transfer |", " | ".join(arch.name for arch in arches), "|")
    for name, sizes in SHAPES.items():
        shares = [f"{_share(arch, resolve_dram('banks', arch), sizes):.3f}" for arch in arches]
        print(f"| {name} |", " | ".join(shares), "|")
    print("| `dram_efficiency_frac` |", " | ".join(f"{arch.dram_efficiency_frac:.3f}" for arch in arches), "|")


SHAPES = {
    "64 MiB read": [(64 * MIB, 64 * MIB, 64 * MIB, False)],
    "1 MiB read": [(MIB, MIB, MIB, False)],
    "64 KiB read": [(2**16, 2**16, 2**16, False)],
    "8 KiB read": [(2**13, 2**13, 2**13, False)],
    "64 KiB written": [(2**16, 2**16, 2**16, True)],
    "runs of 1 KiB, one every 4 KiB": [(MIB, 1024, 4096, False)],
    "runs of 256 bytes, one every 1 KiB": [(MIB, 256, 1024, False)],
    "runs of 128 bytes, one every 512 bytes": [(MIB, 128, 512, False)],
    "runs of 32 bytes, one every 256 bytes": [(MIB, 32, 256, False)],
    "16 MiB read beside 16 MiB written": [(16 * MIB, 16 * MIB, 16 * MIB, write) for write in (False, True)],
    "twice 16 MiB read beside 16 MiB written": [(16 * MIB, 16 * MIB, 16 * MIB, write) for write in (False, False, True)],
}
"""Streams as (bytes, bytes of a run, pitch, whether written)."""


def _share(arch: Arch, device: DramDevice | None, sizes: list[tuple[int, int, int, bool]]) -> float:
    assert device is not None
    fine = arch.replace(clock_hz=device.clock_hz)  # beats that are not rounded to cycles of the machine
    # Tensors lie anywhere: here 3 banks and a row apart.
    apart = 5 * device.span_bytes + 3 * device.row_bytes * device.bank_groups * device.channels
    streams = tuple(Stream(number * apart, *one) for number, one in enumerate(sizes))
    seconds = beats(device, fine, streams) / device.clock_hz
    return sum(one[0] for one in sizes) / seconds / device.bytes_per_second


def print_steps(arch: Arch, networks: Sequence[str]) -> None:
    """Print the cycles of whole steps, and the share of the peak that each engine's transfers reach."""
    device = resolve_dram("banks", arch)
    engines = " | ".join(engine.name for engine in PORT_ENGINES)
    print(f"| network | method | flat Mcycles | banks Mcycles | | port busy | {engines} | all |")
    for network in networks:
        for method in ("bdwp", "dense"):
            batch = DEFAULT_BATCHES.get(network, DEFAULT_BATCH)
            program = compile_step(network, arch, method=method, batch=batch)
            jobs = [jobs_of(program), jobs_of(program, device)]
            flat, banks = (_cycles(program, one) for one in jobs)
            peak = arch.dram_bytes_per_second / arch.clock_hz
            masks = [*(jobs[1].engine == engine for engine in PORT_ENGINES), jobs[1].beats > 0]
            shares = " | ".join(f"{jobs[1].bytes[mask].sum() / jobs[1].beats[mask].sum() / peak:.3f}" for mask in masks)
            print(
                f"| {network} | {'bdwp 2:8' if method == 'bdwp' else method} | {flat / 1e6:.3f} | {banks / 1e6:.3f} | "
                f"{banks / flat - 1:+.2%} | {jobs[1].beats.sum() / banks:.1%} | {shares} |",
                flush=True,
            )


def _cycles(program: Program, jobs: Jobs) -> int:
    waits, signals = (program.instructions[name].astype(np.int64) for name in ("waits", "signals"))
    return run_jobs(jobs, waits, signals).cycles


if __name__ == "__main__":
    main()
