"""How far the closed form is from the machine model, over all shipped networks: the table of docs/fidelity.md.

python benchmarks/model_differences.py            print the table
python benchmarks/model_differences.py --write    and put it into the page
"""

from __future__ import annotations

import argparse
from pathlib import Path

from accel import networks
from accel.api import simulate
from accel.errors import ScheduleError

PAGE = Path(__file__).parents[1] / "docs" / "fidelity.md"
START, END = "<!-- model differences -->", "<!-- end of model differences -->"
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


def table() -> str:
    """Return the table in Markdown: networks down, machines across, dense and BDWP 2:8."""
    heads = [f"{arch}, {method}" for arch in MACHINES for method in ("dense", "bdwp")]
    lines = ["| network | " + " | ".join(heads) + " |", "|---" * (1 + len(heads)) + "|"]
    for network in networks.names():
        cells = [difference(network, arch, method) for arch in MACHINES for method in ("dense", "bdwp")]
        lines.append(f"| {network} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the two models of a step over all shipped networks.")
    parser.add_argument("--write", action="store_true", help="put the table into docs/fidelity.md")
    options = parser.parse_args()
    made = table()
    print(made)
    if options.write:
        text = PAGE.read_text(encoding="utf-8")
        before, after = text.split(START)[0], text.split(END)[1]
        PAGE.write_text(f"{before}{START}\n{made}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
