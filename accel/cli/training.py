"""Sparse training: `accel methods`, `accel experiment`."""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from accel.cli.arguments import Commands, parse_names
from accel.methods import METHODS, OPTIMIZERS
from accel.presets import DEFAULT_ARCH


def add_methods(commands: Commands) -> None:
    """Add `accel methods`."""
    commands.add_parser("methods", help="list the sparse training methods").set_defaults(run=_list_methods)


def add_experiment(commands: Commands) -> None:
    """Add `accel experiment`."""
    command = commands.add_parser(
        "experiment",
        help="what sparse training costs in accuracy, on small networks and tasks",
        description="Train small networks by several methods and say what each costs and gains; stopped, go on where it was.",
        allow_abbrev=False,
    )
    command.add_argument("-o", "--output", type=Path, default=Path("experiment"), metavar="FOLDER", help="default %(default)s")
    command.add_argument("--tasks", default="", metavar="TASK[,TASK]", help="digits, waves (default: all)")
    command.add_argument("--networks", default="", metavar="NET[,NET]", help="cnn, vit (default: all)")
    command.add_argument(
        "--methods", default="", metavar="NAME[,NAME]", help="for example 'dense,bdwp 2:8' (default: four methods and dense)"
    )
    command.add_argument("--numerics", default="fp32", metavar="NAME[,NAME]", help="fp32, autocast, machine (default fp32)")
    command.add_argument("--seeds", type=int, default=5, metavar="N", help="seeds of each setting (default %(default)s)")
    command.add_argument("--epochs", type=int, metavar="N", help="default: 20 for cnn, 40 for vit")
    command.add_argument("--arch", default=DEFAULT_ARCH, metavar="NAME|FILE.toml", help="machine whose seconds are counted")
    command.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: all CPUs)")
    command.add_argument("--quick", action="store_true", help="two seeds, two epochs, 256 samples: to see that it works")
    command.set_defaults(run=_experiment)


def _list_methods(options: argparse.Namespace) -> None:
    from accel import text

    out = text.console()
    methods = [
        [method.name, *(operand or "dense" for operand in method.operands), method.description] for method in METHODS.values()
    ]
    text.print_listing(("method", "N:M in FF", "in BP", "in WU", "what it does"), methods, out)
    optimizers = [[optimizer.name, optimizer.description] for optimizer in OPTIMIZERS.values()]
    text.print_listing(("optimizer", "what it does"), optimizers, out)


def _experiment(options: argparse.Namespace) -> None:
    from accel import api, plot, text
    from accel.models import experiment
    from accel.models.results import summarize, summary_table

    seeds, epochs, samples = (2, 2, 256) if options.quick else (options.seeds, options.epochs, 0)
    tasks, nets, methods, numerics = map(parse_names, (options.tasks, options.networks, options.methods, options.numerics))
    runs = experiment.plan(tasks, nets, methods, numerics, seeds, epochs, samples)
    step_seconds = experiment.step_seconds_on(api.simulate, api.resolve_arch(options.arch))
    plots = experiment.Plots(plot.plot_accuracy_per_epoch, plot.plot_accuracy_per_second)
    try:
        rows = experiment.run_experiment(runs, options.output, step_seconds, plots, options.jobs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; the finished runs are in {options.output}: start again to go on") from None
    header, *lines = summary_table(summarize(rows))
    text.print_listing(header, lines, text.console())
