"""How far the closed form is from the machine model, over all shipped networks: the table of docs/fidelity.md.

python benchmarks/model_differences.py            print the table
python benchmarks/model_differences.py --write    and put it into the page
"""

from __future__ import annotations

import pages
from pages import Table

from accel import networks
from accel.api import simulate
from accel.errors import ScheduleError

MACHINES = ("sat-vcu1525", "edge-kv260", "dc-128")
BATCH = 64


def difference(network: str, arch: str, method: str) -> str:
    """Return how much longer the step takes by its program than by the closed form, in percent."""
    try:
        cycles = [
            simulate(network, arch, method=method, batch=BATCH, baseline=False, model=model).cycles
            for model in ("machine", "closed-form")
        ]
    except ScheduleError:
        return "does not fit"
    return f"{100 * (cycles[0] / cycles[1] - 1):+.2f}"


def table() -> Table:
    """Return the table: networks down, machines across, dense and BDWP 2:8."""
    runs = [(arch, method) for arch in MACHINES for method in ("dense", "bdwp")]
    rows = ([network, *(difference(network, *run) for run in runs)] for network in networks.names())
    return [["network", *map(", ".join, runs)], *rows]


if __name__ == "__main__":
    pages.run("Compare the two models of a step over all shipped networks.", "fidelity.md", "model-differences", table)
