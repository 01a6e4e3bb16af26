"""What schedules for time, energy and energy times delay cost: the table of docs/scheduling.md.

python benchmarks/objectives.py            print the table
python benchmarks/objectives.py --write    and put it into the page
"""

from __future__ import annotations

from typing import get_args

import pages
from pages import Table

from accel.api import simulate
from accel.report import Report
from accel.schedule import Objective

CASES = [(network, arch) for network in ("resnet50", "vit-b16") for arch in ("sat-vcu1525", "edge-kv260")]
ENERGIES, BATCH = "fpga-16nm", 32


def rows_of(network: str, arch: str) -> Table:
    """Return the rows of one step, one for each objective."""
    reports = {
        objective: simulate(network, arch, batch=BATCH, energy=ENERGIES, objective=objective, baseline=False)
        for objective in get_args(Objective)
    }
    first = reports["time"]
    return [row_of(f"{network}, {arch}" if report is first else "", name, report, first) for name, report in reports.items()]


def row_of(where: str, objective: str, report: Report, first: Report) -> list[object]:
    """Return one row; in brackets is the difference from the schedule for time."""

    def amounts(one: Report) -> tuple[float, float, float]:
        assert one.energy is not None
        assert one.energy_delay_joule_seconds is not None
        return one.seconds, one.energy.joules, one.energy_delay_joule_seconds

    assert report.energy is not None
    assert report.objective_gap_frac is not None
    texts = [
        (f"{value:,.0f}" if value >= 1000 else f"{value:#.4g}") + ("" if report is first else f" ({value / base - 1:+.2%})")
        for value, base in zip(amounts(report), amounts(first), strict=True)
    ]
    moving = report.energy.joules - report.energy.table.static_watts.value * report.seconds
    return [where, objective, *texts[:2], f"{moving:#.3g}", texts[2], f"{100 * report.objective_gap_frac:.2g}%"]


def table() -> Table:
    """Return the table of all cases."""
    heads = ["", "objective", "time (s)", "energy (J)", "of that not static", "energy-delay (J s)", "gap to the bound"]
    return [heads, *(row for case in CASES for row in rows_of(*case))]


if __name__ == "__main__":
    pages.run("Compare the objectives of a schedule.", "scheduling.md", "objectives", table)
