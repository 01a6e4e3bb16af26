"""What a sweep found: `accel pareto`."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel.cli.arguments import Commands
from accel.cli.output import check_outputs, write_outputs
from accel.errors import ConfigError

if TYPE_CHECKING:
    import pandas as pd

    from accel.arch import Arch


def add_pareto(commands: Commands) -> None:
    """Add `accel pareto`."""
    command = commands.add_parser(
        "pareto",
        help="the machines of a sweep that no other one beats",
        description="The Pareto front of the results of accel explore, and how to simulate each of its machines.",
        allow_abbrev=False,
    )
    command.add_argument("folder", metavar="DIR", help="folder of accel explore --out")
    command.add_argument("--x", metavar="NAME", help="an objective, with --y (default: all objectives of the space file)")
    command.add_argument("--y", metavar="NAME", help="another objective")
    command.add_argument("--csv", metavar="F|-", help="write the whole rows of the front as CSV")
    command.add_argument("--arch-out", metavar="DIR", help="write the machines of the front as TOML files")
    command.set_defaults(run=_pareto)


def _pareto(options: argparse.Namespace) -> None:
    if (options.x is None) != (options.y is None):
        raise ConfigError("x and y must be given together, or neither")
    check_outputs(None, options.csv, [Path(options.folder) / name for name in ("space.toml", "base.toml", "sweep.json")])
    from accel.explore.pareto import front
    from accel.explore.space import Objectives
    from accel.explore.store import Results

    results = Results.load(options.folder)
    own = results.toml.get("objectives", {}).get("names", Objectives().names)
    objectives = own if options.x is None else [options.x, options.y]
    best = front(results.table, objectives)
    files = _arch_files(results.arches(best), options.arch_out)
    if options.csv != "-":
        columns = list(dict.fromkeys(["index", *objectives, *results.fields]))
        _print_front(best[columns], f"{len(best):,} of {len(results.table):,} points of {options.folder} are on the front")
        print("\n".join(command for file in files for command in _commands(file, results.toml)))
    write_outputs({options.csv: lambda: best.map(_joined).to_csv(index=False)})


def _print_front(best: pd.DataFrame, title: str) -> None:
    from accel import text

    out = text.console()
    out.print(title, style="bold")
    rows = [[_cell(value) for value in row] for row in best.itertuples(index=False)]
    text.print_listing(["point", *best.columns[1:]], rows, out)


def _cell(value: Any) -> str:
    return f"{value:.5g}" if isinstance(value, float) else str(_joined(value))


def _joined(value: Any) -> Any:
    """Return the values of an array in one text, anything else as it is."""
    return ",".join(map(str, value)) if getattr(value, "ndim", False) else value


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


def _commands(file: str, space: dict[str, Any]) -> Iterator[str]:
    """Yield what simulates each network by each method of a space file on the machine of `file`."""
    from accel.presets import DEFAULT_BATCH

    work, energy = space["work"], space.get("objectives", {}).get("energy")
    rest = ["--batch", str(work.get("batch", DEFAULT_BATCH)), "--optimizer", work.get("optimizer", "sgd")]
    rest += ["--energy", energy] if energy else []
    for network in work["networks"]:
        for method in work.get("methods", [{"method": "bdwp"}]):
            pattern = [] if method["method"] == "dense" else ["--pattern", method.get("pattern", "2:8")]
            command = ["accel", "simulate", network, "--arch", file, "--model", "closed-form", "--method", method["method"]]
            yield shlex.join([*command, *pattern, *rest])
