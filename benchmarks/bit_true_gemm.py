"""The bit-true matrix product against NumPy's float32 one, which may sum in any order: same sizes, same number of threads.

Everything a call does is timed, conversion and packing of its FP16 operands included; NumPy is given float32. N:M is held
against NumPy's dense product. Set OPENBLAS_NUM_THREADS (or what NumPy's library reads) to the number of threads given here.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from accel.golden.prune import prune
from accel.kernels.gemm import gemm, gemm_nm
from accel.sparsity import NMPattern

SIZE = 1024
SEED = 1
PAUSE_SECONDS = 0.1
"""For NumPy's threads to fall asleep: after a product they keep their cores busy for a while, waiting for the next."""
DENSE_GOAL = 0.5
GOALS = {"2:8": 1.5, "2:16": None, "2:4": None}


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    name: str
    seconds: float
    """The shortest of the runs."""
    speed: float
    """NumPy's time over this one: above 1 is faster than NumPy."""
    goal: float | None


def measure(threads: int = 1, runs: int = 20) -> list[Row]:
    """Return the times of NumPy, the dense product and the N:M products, run in turns so that all meet the same machine."""
    rng = np.random.default_rng(SEED)
    lhs, rhs = (rng.standard_normal((SIZE, SIZE)).astype(np.float16) for _ in range(2))
    wide_lhs, wide_rhs = lhs.astype(np.float32), rhs.astype(np.float32)
    calls: dict[str, Callable[[], object]] = {
        "numpy float32": lambda: wide_lhs @ wide_rhs,
        "bit-true dense": lambda: gemm(lhs, rhs, threads=threads),
    }
    for text in GOALS:
        entries = prune(rhs, NMPattern.parse(text))
        calls[f"bit-true {text}"] = lambda entries=entries: gemm_nm(lhs, entries, threads=threads)
    shortest = dict.fromkeys(calls, float("inf"))
    for _ in range(1 + runs):  # the first also compiles
        for name, call in calls.items():
            shortest[name] = min(shortest[name], _seconds(call))
            time.sleep(PAUSE_SECONDS)
    goals = {"numpy float32": None, "bit-true dense": DENSE_GOAL} | {f"bit-true {text}": goal for text, goal in GOALS.items()}
    return [Row(name, seconds, shortest["numpy float32"] / seconds, goals[name]) for name, seconds in shortest.items()]


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def print_rows(rows: Sequence[Row]) -> None:
    print(
        f"{SIZE} x {SIZE} x {SIZE}, shortest of the runs; GFLOP/s as if nothing were pruned; speed: NumPy's time over this one"
    )
    print(f"{'':16}{'ms':>8}{'GFLOP/s':>9}{'speed':>7}{'goal':>6}")
    for row in rows:
        rate, goal = 2 * SIZE**3 / row.seconds / 1e9, "" if row.goal is None else f"{row.goal:.1f}"
        print(f"{row.name:16}{1000 * row.seconds:8.1f}{rate:9.1f}{row.speed:7.2f}{goal:>6}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--runs", type=int, default=20)
    options = parser.parse_args()
    print_rows(measure(options.threads, options.runs))


if __name__ == "__main__":
    main()
