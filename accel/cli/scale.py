"""A training step on many machines: `accel scale`."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence

from accel.cli.arguments import (
    Commands,
    add_allow_ops,
    add_arch,
    add_json,
    add_method,
    add_network,
    add_optimizer,
    input_files,
    parse_dense_layers,
    parse_names,
    parse_whole_numbers,
)
from accel.cli.output import after_a_second, check_outputs, write_outputs
from accel.presets import DEFAULT_BATCH
from accel.sim import scaling


def add_scale(commands: Commands) -> None:
    """Add `accel scale`."""
    command = commands.add_parser(
        "scale",
        help="how long a step takes on many machines that train together",
        description="Data-parallel training steps: dW summed up by a ring of machines beside the backward pass.",
        allow_abbrev=False,
    )
    add_network(command)
    counts = ",".join(map(str, scaling.DEFAULT_DEVICES))
    command.add_argument("--devices", default=counts, metavar="P[,P]", help="numbers of machines (default %(default)s)")
    add_arch(command)
    add_method(command)
    command.add_argument("--pattern", default="2:8", metavar="KEEP:GROUP", help="default %(default)s")
    command.add_argument("--batch", type=int, metavar="B", help=f"samples of each machine: weak scaling ({DEFAULT_BATCH})")
    command.add_argument("--global-batch", type=int, metavar="B", help="samples of all machines together: strong scaling")
    command.add_argument("--dense-layers", metavar="GLOB[,GLOB]", help="as in accel simulate")
    add_optimizer(command)
    command.add_argument("--pregenerate", choices=["on", "off"], default="on", help="as in accel simulate (default on)")
    add_allow_ops(command)
    numbers = {
        "--link-gbps": (scaling.DEFAULT_LINK_GBPS, "G", "10^9 bit/s of a link, each way (default %(default)g)"),
        "--link-latency-us": (scaling.DEFAULT_LINK_LATENCY_US, "U", "microseconds a hop (default %(default)g)"),
        "--bucket-mib": (scaling.DEFAULT_BUCKET_MIB, "M", "MiB of dW that go round together (default %(default)g)"),
    }
    for name, (default, letter, text) in numbers.items():
        command.add_argument(name, type=float, default=default, metavar=letter, help=text)
    command.add_argument("--gradients", default="fp32", metavar="FORMAT", help="fp32 or fp16 on the link (default fp32)")
    command.add_argument("--update", default="replicated", metavar="KIND", help="replicated or sharded (default replicated)")
    add_json(command, "result")
    command.add_argument("--csv", metavar="F|-", help="write one line per number of machines as CSV")
    command.set_defaults(run=_scale)


def _scale(options: argparse.Namespace) -> None:
    check_outputs(options.json, options.csv, input_files(options))
    from accel import scale, text

    between = scaling.Network(options.link_gbps, options.link_latency_us, options.bucket_mib, options.gradients, options.update)
    with after_a_second() as show:

        def track(counts: Sequence[int]) -> Iterator[int]:
            for count in counts:
                show(f"simulating a ring of {count:,}")
                yield count

        result = scale.scale(
            options.network,
            options.arch,
            devices=parse_whole_numbers("devices", options.devices),
            batch=options.batch,
            global_batch=options.global_batch,
            between=between,
            method=options.method,
            pattern=options.pattern,
            dense_layers=parse_dense_layers(options.dense_layers),
            optimizer=options.optimizer,
            pregenerate=options.pregenerate == "on",
            allow_ops=parse_names(options.allow_ops),
            track=track,
        )
    outputs = {options.json: result.to_json, options.csv: result.to_csv}
    if "-" not in outputs:
        out = text.console()
        out.print("\n".join(scale.headline(result)), style="bold")
        text.print_listing(scale.COLUMNS, scale.table(result), out)
    write_outputs(outputs)
