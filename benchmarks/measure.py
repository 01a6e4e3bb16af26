"""Timing of functions and of whole processes, each by the clock and by the CPU time it took.

On a machine that does other work too, only CPU time says what the code needs; on an idle one the two are equal. Everything
measured here runs in a single thread.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Timing:
    """Seconds of one run, or the medians of several."""

    cpu_seconds: float
    wall_seconds: float
    peak_bytes: int = 0
    """Largest memory of a process; 0 where only a function was timed."""


def median(timings: Sequence[Timing]) -> Timing:
    return Timing(
        statistics.median(timing.cpu_seconds for timing in timings),
        statistics.median(timing.wall_seconds for timing in timings),
        max(timing.peak_bytes for timing in timings),
    )


def time_function(function: Callable[[], object], runs: int) -> Timing:
    """Return the median of `runs` runs after one that is not counted."""
    function()
    return median([_time_once(function) for _ in range(runs)])


def _time_once(function: Callable[[], object]) -> Timing:
    cpu, wall = time.process_time(), time.perf_counter()
    function()
    return Timing(time.process_time() - cpu, time.perf_counter() - wall)


def time_process(command: Sequence[str], log: Path, folder: Path, **environment: str) -> Timing:
    """Run a command to its end in `folder`, its output in `log`; refuse any exit status but 0."""
    started = time.perf_counter()
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            command, cwd=folder, env={**os.environ, **environment}, stdout=output, stderr=subprocess.STDOUT
        )
        _, status, usage = os.wait4(process.pid, 0)
    wall = time.perf_counter() - started
    process.returncode = os.waitstatus_to_exitcode(status)  # Popen did not see it end
    if process.returncode:
        end = log.read_text(encoding="utf-8")[-2000:]
        raise RuntimeError(f"{command[0]} must end with exit status 0, not {process.returncode}:\n{end}")
    return Timing(usage.ru_utime + usage.ru_stime, wall, peak_bytes(usage))


def peak_bytes(usage: resource.struct_rusage) -> int:
    """Return the largest memory that a process had, by what the system counted of it."""
    return usage.ru_maxrss * (1 if sys.platform == "darwin" else 1024)
