"""How long a program takes: the machine's engines, tokens and DRAM port, exact in every cycle (docs/timing.md, section 7)."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from accel.dram import DramDevice
from accel.errors import ScheduleError
from accel.program import Engine, Program
from accel.sim.machine_kernels.events import Times, Tokens, new_state, run
from accel.timing.jobs import Jobs, jobs_of

Numbers = NDArray[np.int64]

MAX_CYCLES = 2**61


@dataclass(frozen=True)
class Timing:
    """When each instruction of a program did what; arrays are (instructions,), cycles count from 0."""

    jobs: Jobs
    ready: Numbers
    """The cycle in which it took its tokens."""
    start: Numbers
    port_end: Numbers
    """The cycle after its last beat; without beats the one in which it would have asked for the first."""
    done: Numbers
    waited_for: Numbers
    """The engine for which it started no earlier: one whose token came last, or its own (the instructions before)."""

    @property
    def cycles(self) -> int:
        """Cycles of the program: its last completion."""
        return int(self.done.max(initial=0))

    @property
    def busy_cycles(self) -> dict[Engine, int]:
        """Cycles in which an engine has an instruction that has started and is not complete."""
        return {engine: self._busy_cycles(self.jobs.engine == engine) for engine in Engine}

    def _busy_cycles(self, is_own: NDArray[np.bool_]) -> int:
        start, done = self.start[is_own], self.done[is_own]
        before = np.concatenate((np.zeros(1, np.int64), done))[:-1]  # completed in order: `done` never falls
        return int((done - np.clip(start, before, done)).sum())

    @property
    def port_cycles(self) -> int:
        """Cycles in which the DRAM port gives a beat."""
        return int(self.jobs.beats.sum())

    @property
    def bytes_moved(self) -> int:
        """Bytes that cross the DRAM port."""
        return int(self.jobs.bytes.sum())


def run_program(program: Program, dram: DramDevice | None = None) -> Timing:
    """Return when each instruction of `program` is ready, starts and is complete; `dram` as in `jobs_of`.

    The program is one that the verifier of docs/isa.md accepts; one whose tokens do not come is refused with a `ScheduleError`.
    """
    instructions = program.instructions
    waits, signals = (instructions[name].astype(np.int64) for name in ("waits", "signals"))
    jobs = jobs_of(program, dram)
    _check_length(jobs, program.tables.arch.dram_bytes_per_cycle)
    return run_jobs(jobs, waits, signals)


def _check_length(jobs: Jobs, bytes_per_cycle: float) -> None:
    """Refuse what could take more cycles than 64 bits count, even if nothing ran beside anything."""
    parts = (jobs.gap, jobs.lead, jobs.setup, jobs.work, jobs.latency)
    cycles = sum(float(part.sum(dtype=np.float64)) for part in parts)
    cycles += float(jobs.bytes.sum(dtype=np.float64)) / bytes_per_cycle
    if not cycles < MAX_CYCLES:
        raise ScheduleError(f"the program must take less than 2**61 cycles, not up to {cycles:.3g}; make it of less work")


def run_jobs(jobs: Jobs, waits: Numbers, signals: Numbers) -> Timing:
    """Return what `run_program` does, of jobs and their masks of tokens, all (instructions,)."""
    job_rows = Jobs(*(field.reshape(1, -1) for field in jobs))
    times = Times(*(np.zeros((1, len(waits)), np.int64) for _ in Times._fields))
    tokens = Tokens(waits.reshape(1, -1), signals.reshape(1, -1))
    number, missing = run(job_rows, tokens, new_state(job_rows), times)
    if number >= 0:
        senders = " and ".join(engine.name for engine in Engine if missing >> engine & 1)
        raise ScheduleError(
            f"instruction {number} ({Engine(jobs.engine[number]).name}) must get the tokens it waits for, not none from "
            f"{senders}; let it wait for what does not wait for it"
        )
    return Timing(jobs, *(field[0] for field in times))
