"""A training step on one machine: `accel simulate`, `accel report`, `accel compare`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, TypeVar

from accel.cli.arguments import (
    Commands,
    Parser,
    add_arch,
    add_json,
    add_step,
    add_timeline,
    input_files,
    parse_names,
    step_choices,
)
from accel.cli.output import check_outputs, check_timeline, check_writable, waiting, write, write_outputs
from accel.errors import ConfigError
from accel.report import Report

if TYPE_CHECKING:
    from accel.api import StepRun
    from accel.html.step import MethodRun

_Item = TypeVar("_Item")


def add_simulate(commands: Commands) -> None:
    """Add `accel simulate`."""
    command = commands.add_parser(
        "simulate",
        help="how long one training step takes, and why",
        description="Lower, schedule and simulate one training step; compare it with dense training on the same machine.",
        allow_abbrev=False,
    )
    _add_step_arguments(command)
    command.add_argument("--layers", action="store_true", help="list every row, not only the slowest")
    command.add_argument("--no-baseline", action="store_true", help="leave out the dense run and the speedup")
    add_json(command, "report")
    command.add_argument("--csv", metavar="F|-", help="write one line per row as CSV")
    add_timeline(command)
    command.set_defaults(run=_simulate)


def add_report(commands: Commands) -> None:
    """Add `accel report`."""
    command = commands.add_parser(
        "report",
        help="one page that explains a training step: charts, roofline, schedule",
        description="Write one self-contained HTML page about a training step; it asks nothing of the network.",
        allow_abbrev=False,
    )
    _add_step_arguments(command)
    command.add_argument(
        "--compare",
        metavar="RUN[,RUN]",
        help="METHOD:KEEP:GROUP or dense, to set beside it (default: of dense, bdwp:2:4 and bdwp:2:8 what the machine can run)",
    )
    command.add_argument("-o", "--output", default="report.html", metavar="FILE.html|-", help="default %(default)s")
    command.set_defaults(run=_report)


def add_compare(commands: Commands) -> None:
    """Add `accel compare`."""
    command = commands.add_parser(
        "compare",
        help="the speedup of several networks and patterns, side by side and explained",
        description="Speedups over dense training; without arguments the table that stands in the README.",
        allow_abbrev=False,
    )
    command.add_argument("networks", nargs="*", metavar="NET", help="networks (default: stand-ins for those of the SAT paper)")
    command.add_argument("--patterns", default="2:4,2:8,2:16", metavar="KEEP:GROUP[,...]", help="default %(default)s")
    add_arch(command)
    command.add_argument("--method", default="bdwp", metavar="NAME", help="default %(default)s")
    command.add_argument("--batch", type=int, metavar="B", help="samples in a step (default 128, resnet50 64)")
    command.set_defaults(run=_compare)


def _add_step_arguments(command: Parser) -> None:
    add_step(command)
    command.add_argument(
        "--model",
        choices=["machine", "closed-form"],
        default="machine",
        help="run the step's program instruction by instruction, or add up products that each run alone (default machine)",
    )
    command.add_argument(
        "--dram",
        default="flat",
        metavar="flat|banks|FILE.toml",
        help="a fixed share of the bandwidth, or banks and rows: of the preset's device or a file's (default %(default)s)",
    )
    command.add_argument(
        "--energy",
        metavar="NAME|FILE.toml",
        help="add energy and power by this table of energies (see accel energies; default: none)",
    )
    command.add_argument(
        "--objective",
        choices=["time", "energy", "edp"],
        default="time",
        help="what mappings are chosen for; energy and edp, energy times delay, by the table of --energy (default time)",
    )


def _simulate(options: argparse.Namespace) -> None:
    inputs = input_files(options)
    check_outputs(options.json, options.csv, inputs)
    check_timeline(options.timeline, options.json, options.csv, inputs=inputs)
    if options.timeline and options.model != "machine":
        raise ConfigError(f"model must be machine for a timeline, not {options.model}; leave out --model or --timeline")
    from accel import text

    with waiting():
        report, executed = _run_step(options, not options.no_baseline)
        if options.timeline and executed:
            from accel.timeline import write_timeline

            write_timeline(*executed, options.timeline, report.rows)
    outputs = {options.json: report.to_json, options.csv: report.to_csv}
    if "-" not in outputs:
        text.print_report(report, text.console(), options.layers)
    write_outputs(outputs)


def _report(options: argparse.Namespace) -> None:
    check_writable(options.output, *input_files(options))
    from accel import api, timeline
    from accel.html import step

    with waiting():
        arch = api.resolve_arch(options.arch)
        main_run, runs = step.chosen_runs(options.method, options.pattern, options.compare, arch)
        report, executed = _run_step(options, True)
        lanes = timeline.lanes(*executed) if executed else None
        dense = report.baseline or True
        compared = [report if run == main_run else _run_step(_with(options, run), dense).report for run in runs]
        page = step.build_page(report, arch, compared, _report_command(options, runs), lanes)
    if options.output == "-":
        sys.stdout.write(page)
    else:
        write(options.output, page)
        print(f"{options.output}: {len(page.encode()) / 1e3:.0f} kB", file=sys.stderr)


def _compare(options: argparse.Namespace) -> None:
    from accel import compare, text

    def track(runs: Sequence[_Item]) -> Iterable[_Item]:
        from rich.progress import track as show

        bar_console = text.console(stderr=True)
        return show(runs, "simulating", console=bar_console, disable=not bar_console.is_terminal, transient=True)

    result = compare.compare(
        options.networks or compare.HEADLINE_NETWORKS,
        parse_names(options.patterns),
        arch=options.arch,
        method=options.method,
        batch=options.batch,
        track=track,
    )
    text.print_comparison(result, text.console())


def _run_step(options: argparse.Namespace, baseline: bool | Report) -> StepRun:
    """Return the run of what `_add_step_arguments` asks for; "auto" takes the better way to compact weights."""
    from accel import api

    def run(pregenerate: bool, baseline: bool | Report) -> StepRun:
        return api.run_step(
            options.network,
            options.arch,
            pregenerate=pregenerate,
            baseline=baseline,
            energy=options.energy,
            objective=options.objective,
            model=options.model,
            dram=options.dram,
            **step_choices(options),
        )

    found = run(options.pregenerate != "off", baseline)
    if options.pregenerate == "auto":  # dense training has no compact weights: it is the same with either
        found = min(found, run(False, found.report.baseline or False), key=lambda run: run.report.merit)
    return found


def _with(options: argparse.Namespace, run: MethodRun) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(options), "method": run.method, "pattern": run.pattern})


def _report_command(options: argparse.Namespace, runs: Iterable[MethodRun]) -> str:
    """Return the command line that writes the same page, with every choice said."""
    words = ["accel", "report", options.network]
    options_said = (
        "arch",
        "method",
        "pattern",
        "batch",
        "dense_layers",
        "optimizer",
        "pregenerate",
        "allow_ops",
        "model",
        "dram",
        "energy",
        "objective",
    )
    for name in options_said:
        value = getattr(options, name)
        if name == "dense_layers" and value == "":
            value = "none"  # no name pattern at all; left out, the default would hold
        words += [f"--{name.replace('_', '-')}", str(value)] if value not in (None, "") else []
    return shlex.join([*words, "--compare", ",".join(map(str, runs)), "-o", "report.html"])
