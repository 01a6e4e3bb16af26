"""What a sweep found: `accel pareto`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel.cli.arguments import Commands, add_sweep, parse_axes, parse_names
from accel.cli.output import check_outputs, check_writable, joined, sweep_files, write_outputs
from accel.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from accel.arch import Arch
    from accel.explore.store import Results


def add_pareto(commands: Commands) -> None:
    """Add `accel pareto`."""
    command = commands.add_parser(
        "pareto",
        help="the machines of a sweep that no other one beats",
        description="The Pareto front of the results of accel explore, and how to simulate each of its machines.",
        allow_abbrev=False,
    )
    add_sweep(command)
    command.add_argument("--csv", metavar="F|-", help="write the whole rows of the front as CSV")
    command.add_argument("--point", type=int, metavar="N", help="this point instead of the front")
    command.add_argument("--arch-out", metavar="DIR", help="write the machines as TOML files")
    command.add_argument(
        "--html", metavar="F|-", help="write a page to explore all points with, which asks nothing of the network"
    )
    command.add_argument("--plot", metavar="F", help="draw a picture: a file that ends in .pdf, .svg or .png")
    command.add_argument(
        "--kind",
        choices=["front", "parallel", "sensitivity", "heat", "roofline"],
        help="of picture: all points and the front; the front across all fields; what each value of a field costs; the best for"
        " every two values of two fields; the products of a point's steps (default front)",
    )
    command.add_argument(
        "--fields", metavar="F[,F]", help="fields to draw (default: those that vary; of a heat map the first two)"
    )
    command.set_defaults(run=_pareto)


def _pareto(options: argparse.Namespace) -> None:
    chosen = parse_axes(options)
    if options.plot is None and (options.kind or options.fields):
        raise ConfigError("kind and fields must be given with plot, the file of the picture")
    inputs = sweep_files(options.folder)
    check_outputs(None, options.csv, inputs)
    for file in (options.plot, options.html):
        check_writable(file, *inputs)
    places = [file for file in (options.csv, options.html, options.plot) if file]
    if len(set(places)) < len(places):
        raise ConfigError(f"csv, html and plot must go to different places, not all to {', '.join(places)}")
    from accel.explore.commands import commands
    from accel.explore.space import Objectives
    from accel.explore.store import Results

    results = Results.load(options.folder)
    own = results.toml.get("objectives", {}).get("names", Objectives().names)
    objectives = chosen or own
    best = _chosen(results, objectives, options.point)
    if options.plot is not None:
        _plot(options, results, objectives, best)
    files = _arch_files(results.arches(best), options.arch_out)
    outputs = {
        options.csv: lambda: best.map(joined).to_csv(index=False),
        options.html: lambda: _page(options, results, objectives),
    }
    if "-" not in outputs:
        columns = list(dict.fromkeys(["index", *objectives, *results.fields]))
        said = f"{len(best):,} of {len(results.table):,} points of {options.folder} are on the front"
        _print_front(best[columns], said if options.point is None else f"point {options.point:,} of {options.folder}")
        print("\n".join(command for file in files for command in commands(file, results.toml)))
        if options.arch_out is None:
            print("with --arch-out . the files of these machines are written")
    write_outputs(outputs)


def _chosen(results: Results, objectives: Sequence[str], point: int | None) -> pd.DataFrame:
    """Return the front, or the one row of a point, which must run."""
    from accel.explore.pareto import front

    if point is None:
        return front(results.table, objectives)
    rows = results.table[results.table["index"] == point]
    if rows.empty:
        raise ConfigError(f"point must be the number of one in the folder, not {point}")
    if isinstance(rows["problem"].iloc[0], str):
        raise ConfigError(f"point must be one that runs, not {point}: {rows['problem'].iloc[0]}")
    return rows


def _plot(options: argparse.Namespace, results: Results, objectives: Sequence[str], best: pd.DataFrame) -> None:
    """Draw the picture that is asked for."""
    from accel import plot
    from accel.explore.commands import steps

    plot.check_suffix(options.plot)
    vary = [*results.toml["vary"]]
    fields = parse_names(options.fields) if options.fields else vary[:2] if options.kind == "heat" else vary
    if options.kind in (None, "front"):
        picture = plot.plot_front(results.table, objectives)
    elif options.kind == "parallel":
        picture = plot.plot_parallel(results.table, [*dict.fromkeys([*fields, *objectives])], objectives)
    elif options.kind == "sensitivity":
        picture = plot.plot_sensitivity(results.table, fields, objectives)
    elif options.kind == "heat":
        if len(fields) != 2:
            raise ConfigError(f"fields must be two for a heat map, not {', '.join(fields)}")
        picture = plot.plot_heat(results.table, fields[0], fields[1], objectives[0])
    else:
        from accel.api import simulate

        arch = results.arches(best.head(1))[0]
        picture = plot.plot_roofline(arch, *(simulate(arch=arch, baseline=False, **step) for step in steps(results.toml)))
    plot.save(picture, options.plot)


def _page(options: argparse.Namespace, results: Results, objectives: Sequence[str]) -> str:
    from accel.html.sweep import build_page

    axes = [] if options.x is None else ["--x", options.x, "--y", options.y]
    command = shlex.join(["accel", "pareto", options.folder, *axes, "--html", "sweep.html"])
    return build_page(results, objectives, options.folder, command)


def _print_front(best: pd.DataFrame, title: str) -> None:
    from accel import text

    out = text.console()
    out.print(title, style="bold")
    rows = [[_cell(value) for value in row] for row in best.itertuples(index=False)]
    text.print_listing(["point", *best.columns[1:]], rows, out)


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(joined(value))


def _arch_files(machines: list[Arch], folder: str | None) -> list[str]:
    """Return the file of each machine, written if a folder was asked for."""
    if folder is None:
        return [f"{machine.name}.toml" for machine in machines]
    place = Path(folder)
    try:
        place.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"arch-out must be a folder, not {folder}: {error.strerror}") from None
    files = [place / f"{machine.name}.toml" for machine in machines]
    for machine, file in zip(machines, files, strict=True):
        machine.save(file)
    return [str(file) for file in files]
