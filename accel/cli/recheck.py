"""The best points of a sweep by the machine model: `accel recheck`."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from accel.cli.arguments import Commands, add_json, add_sweep, parse_axes
from accel.cli.output import check_outputs, joined, stages, sweep_files, write_outputs

if TYPE_CHECKING:
    from accel.explore.rechecking import Recheck


def add_recheck(commands: Commands) -> None:
    """Add `accel recheck`."""
    command = commands.add_parser(
        "recheck",
        help="the best machines of a sweep by the full machine model",
        description="The first points of a Pareto front, simulated instruction by instruction, and how their ranks change.",
        allow_abbrev=False,
    )
    add_sweep(command)
    command.add_argument("--points", type=int, default=10, metavar="N", help="the first N of the front (default %(default)s)")
    add_json(command, "points")
    command.add_argument("--csv", metavar="F|-", help="write one line per point as CSV")
    command.set_defaults(run=_recheck)


def _recheck(options: argparse.Namespace) -> None:
    objectives = parse_axes(options)
    check_outputs(options.json, options.csv, sweep_files(options.folder))
    from accel.explore.rechecking import recheck

    with stages("reading the sweep") as show:
        result = recheck(
            options.folder,
            objectives,
            options.points,
            lambda done, total: show(f"simulating point {done + 1} of {total} instruction by instruction"),
        )
    outputs = {options.json: result.to_json, options.csv: lambda: result.table.map(joined).to_csv(index=False)}
    if "-" not in outputs:
        _print(result)
    write_outputs(outputs)


def _print(result: Recheck) -> None:
    from accel import text
    from accel.explore.rechecking import describe

    out, table = text.console(), result.table
    out.print(f"the first {len(table)} points of the front, closed form and machine model", style="bold")
    columns, rows = ["point"], [[str(index)] for index in table["index"]]
    for name in result.objectives:
        columns += [name, "machine", "rank", "machine"]
        numbers = table[[name, f"machine.{name}", f"{name}.rank", f"machine.{name}.rank"]]
        for row, values in zip(rows, numbers.astype(object).itertuples(index=False), strict=True):
            row += [f"{value:.5g}" if isinstance(value, float) else str(value) for value in values]
    for row, stays, problem in zip(rows, table["machine.front"], table["machine.problem"], strict=True):
        row.append(problem if isinstance(problem, str) else "yes" if stays else "no")
    text.print_listing([*columns, "on the front"], rows, out)
    for sentence in describe(result):
        out.print(sentence)
