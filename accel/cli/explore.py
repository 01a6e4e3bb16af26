"""Many machines on the same work: `accel explore`."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from accel.cli.arguments import Commands

if TYPE_CHECKING:
    from accel.explore.sweeping import Progress


def add_explore(commands: Commands) -> None:
    """Add `accel explore`."""
    command = commands.add_parser(
        "explore",
        help="evaluate many machines on the same work",
        description="Every machine of a space file by the closed form. Run it again to go on where it stopped.",
        allow_abbrev=False,
    )
    command.add_argument("space", metavar="SPACE.toml", help="which machines, on what work (docs/explore.md)")
    command.add_argument("--out", required=True, metavar="DIR", help="folder of the results")
    command.add_argument("--budget", metavar="N|TIME", help="points in all, or time of this run: 500, 90s, 10m, 2h (no limit)")
    command.add_argument("--sampler", default="grid", metavar="NAME", help="grid, random, nsga2 or tpe (default %(default)s)")
    command.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default %(default)s)")
    command.add_argument("--scheduler", metavar="ADDR", help="use the workers of this Dask scheduler, like tcp://host:8786")
    command.add_argument("--seed", type=int, default=0, metavar="S", help="of every sampler but grid (default %(default)s)")
    command.set_defaults(run=_explore)


def _explore(options: argparse.Namespace) -> None:
    from accel.explore.space import Space
    from accel.explore.store import Folder
    from accel.explore.sweeping import Budget, check_options, sweep

    budget = Budget() if options.budget is None else Budget.parse(options.budget)
    check_options(options.sampler, budget, options.workers, options.scheduler)
    space = Space.load(options.space)
    with _progress() as report, Folder(options.out, space) as folder:
        done = sweep(
            space,
            folder,
            sampler=options.sampler,
            seed=options.seed,
            budget=budget,
            workers=options.workers,
            scheduler=options.scheduler,
            report=report,
        )
    print(
        f"{done.done:,} points evaluated, {done.problems:,} of them cannot run; "
        f"{folder.rows:,} of {space.size:,} points are in {options.out}"
    )


@contextmanager
def _progress() -> Iterator[Callable[[Progress], None]]:
    """Show on a terminal how far the sweep is; what is handed out takes the news."""
    if not sys.stderr.isatty():
        yield lambda progress: None
        return
    from accel.text import console

    with console(stderr=True).status("reading what is there, starting") as status:
        yield lambda progress: status.update(_line(progress))


def _line(progress: Progress) -> str:
    rate = progress.done / max(progress.seconds, 1e-9)
    left = "" if progress.seconds_left is None else f", {_duration(progress.seconds_left)} left"
    return (
        f"{progress.done:,} of {progress.total:,} points, {rate:.1f} a second{left}"
        f"{f', {progress.problems:,} cannot run' if progress.problems else ''}"
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
