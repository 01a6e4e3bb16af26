"""20,000 drawn runs over 40 drawn arrays."""

import os
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from array_build import build, run
from array_model import draw_parameters

pytestmark = [pytest.mark.rtl, pytest.mark.soak]

SEED = int(os.environ.get("ARRAY_SEED", "1000"))
BUILDS = os.environ.get("ARRAY_BUILDS", "0:40")
RUNS = os.environ.get("ARRAY_RUNS", "0:500")
"""Which of the arrays and which of the runs that the seed draws, from:to."""
WORKERS = int(os.environ.get("ARRAY_WORKERS", os.cpu_count() or 1))
LOG = Path(__file__).parents[2] / ".cache" / "rtl" / "soak.log"


def test_no_run_of_many_arrays_differs_in_a_bit_or_a_cycle():
    first, end = map(int, BUILDS.split(":"))
    with ProcessPoolExecutor(WORKERS) as pool:
        results = list(pool.map(soak, range(first, end)))
    problems = [problem for problem, _ in results if problem]
    numbers = np.array([numbers for _, numbers in results]).sum(axis=0)
    configurations, stalled, cycles, macs, words = numbers.tolist()
    line = (
        f"{configurations:,} configurations ({stalled:,} with stalls) on {end - first} builds, {cycles:,} cycles simulated, "
        f"{macs:,} MACs and {words:,} words checked, {len(problems)} builds with mismatches"
    )
    LOG.parent.mkdir(parents=True, exist_ok=True)
    LOG.write_text(line + "\n")
    print(line)
    assert not problems, "\n\n".join(problems)


def soak(number):
    """Run all runs on array `number`; return what is wrong, and its part of the log."""
    parameters = draw_parameters(np.random.default_rng([SEED, number]))
    log = LOG.with_name(f"soak-{number}.log")
    try:
        run(build(parameters), parameters, SEED + number, *map(int, RUNS.split(":")), log)
    except AssertionError as error:
        again = f"ARRAY_BUILDS={number}:{number + 1} ARRAY_SEED={SEED}, and ARRAY_RUNS as above"
        return f"build {number}: {error}\n  this build alone: {again}", [0] * 5
    return "", [int(word) for word in log.read_text().split()]
