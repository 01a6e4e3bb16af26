"""Where networks come from: `accel networks`, `accel trace`, `accel import`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from accel import networks
from accel.cli.arguments import Commands, add_allow_ops, parse_names
from accel.cli.output import check_writable, stages


def add_networks(commands: Commands) -> None:
    """Add `accel networks`."""
    commands.add_parser("networks", help="list the networks that ship with the package").set_defaults(run=_list_networks)


def add_trace(commands: Commands) -> None:
    """Add `accel trace`."""
    command = commands.add_parser(
        "trace",
        help="turn a PyTorch module into a trace",
        description="Export the trace of one training step of a PyTorch module.",
        allow_abbrev=False,
    )
    command.add_argument(
        "target",
        metavar="FILE.py:CALLABLE|PACKAGE.MODULE:CALLABLE",
        help="returns the module, or the module and its example inputs",
    )
    command.add_argument(
        "--input",
        action="append",
        default=[],
        metavar="[NAME=]SIZES[:DTYPE]",
        help="sizes of an input, the batch first: 64x3x32x32, 1x128:int64; once for each input",
    )
    command.add_argument("--loss", choices=["cross_entropy", "mse"], help="loss to append to the module's output")
    add_allow_ops(command)
    command.add_argument("--name", metavar="N", help="name of the network (default: the module's class)")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json")
    command.set_defaults(run=_trace)


def add_import(commands: Commands) -> None:
    """Add `accel import`."""
    command = commands.add_parser("import", help="turn another tool's network description into a trace")
    command.add_argument("format", choices=["scalesim"], help="scalesim: a topology CSV, convolution or GEMM form")
    command.add_argument("file", type=Path, help="the file to read")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json", help="the trace to write")
    command.set_defaults(run=_import)


def _list_networks(options: argparse.Namespace) -> None:
    from accel import text

    traces = [networks.load(name) for name in networks.names()]
    rows = [(trace.name, f"{len(trace.layers)}", f"{trace.parameters / 1e6:.2f} M") for trace in traces]
    text.print_listing(("network", "layers", "parameters"), rows, text.console())


def _trace(options: argparse.Namespace) -> None:
    check_writable(options.output, options.target.rpartition(":")[0])
    with stages("importing PyTorch") as show:
        from accel.models.target import trace_target

        allow_ops = parse_names(options.allow_ops)
        trace = trace_target(
            options.target, options.input, name=options.name, loss=options.loss, allow_ops=allow_ops, show=show
        )
    trace.save(options.output)
    print(f"{options.output}: {len(trace.layers)} layers", file=sys.stderr)


def _import(options: argparse.Namespace) -> None:
    from accel.scalesim import read_topology

    check_writable(options.output, options.file)
    trace, patterns = read_topology(options.file)
    trace.save(options.output)
    print(f"{options.output}: {len(trace.layers)} layers", file=sys.stderr)
    if patterns:
        listed = ", ".join(f"{layer} {pattern}" for layer, pattern in patterns.items())
        print(f"note: a trace holds no patterns; the file's sparsity was {listed}: give --pattern to simulate", file=sys.stderr)
