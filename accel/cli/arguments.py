"""What several commands take alike, and how what the user typed is read."""

from __future__ import annotations

import argparse
import sys
from typing import Any, NoReturn, TypeAlias

from accel.errors import ConfigError
from accel.methods import OPTIMIZERS
from accel.presets import DEFAULT_ARCH, DEFAULT_BATCH

USER_ERROR = 2
"""Exit status where the user can mend what is wrong."""


class Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments, like every other error."""

    def error(self, message: str) -> NoReturn:
        """End the command."""
        print(f"accel: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(USER_ERROR)


Commands: TypeAlias = "argparse._SubParsersAction[Parser]"


def add_network(command: Parser) -> None:
    """Add the network that is trained."""
    command.add_argument("network", metavar="NET|FILE.json", help="a shipped network (see accel networks) or a trace file")


def add_arch(command: Parser) -> None:
    """Add the machine."""
    command.add_argument("--arch", default=DEFAULT_ARCH, metavar="NAME|FILE.toml", help="machine (default %(default)s)")


def add_method(command: Parser) -> None:
    """Add the sparse training method."""
    command.add_argument("--method", default="bdwp", metavar="NAME", help="see accel methods (default %(default)s)")


def add_optimizer(command: Parser) -> None:
    """Add the optimizer."""
    command.add_argument("--optimizer", default="sgd", metavar="NAME", help=f"{', '.join(OPTIMIZERS)} (default %(default)s)")


def add_allow_ops(command: Parser) -> None:
    """Add the operators that a trace may have without their being known."""
    command.add_argument("--allow-ops", default="", metavar="OP[,OP]", help="unknown operators to count as free")


def add_sweep(command: Parser) -> None:
    """Add the folder of a sweep and what its machines are judged by."""
    command.add_argument("folder", metavar="DIR", help="folder of accel explore --out")
    command.add_argument("--x", metavar="NAME", help="an objective, with --y (default: all objectives of the space file)")
    command.add_argument("--y", metavar="NAME", help="another objective")


def parse_axes(options: argparse.Namespace) -> list[str] | None:
    """Return the two objectives of `add_sweep`, or None where they are not given."""
    if (options.x is None) != (options.y is None):
        raise ConfigError("x and y must be given together, or neither")
    return None if options.x is None else [options.x, options.y]


def add_step(command: Parser) -> None:
    """Add what says which training step: the network, the machine, and how it is trained."""
    add_network(command)
    add_arch(command)
    add_method(command)
    command.add_argument(
        "--pattern", default="2:8", metavar="KEEP:GROUP", help="nonzeros kept in a group (default %(default)s)"
    )
    command.add_argument(
        "--batch", type=int, default=DEFAULT_BATCH, metavar="B", help="samples in a step (default %(default)s)"
    )
    command.add_argument(
        "--dense-layers",
        metavar="GLOB[,GLOB]",
        help="weight layers that stay dense, by name pattern; none prunes every layer (default: the first weight layer)",
    )
    add_optimizer(command)
    command.add_argument(
        "--pregenerate",
        choices=["on", "off", "auto"],
        default="on",
        help="write compact weights in the update, or prune dense weights on every load, or take the faster (default on)",
    )
    add_allow_ops(command)


def step_choices(options: argparse.Namespace) -> dict[str, Any]:
    """Return what `add_step` asked for as arguments of `accel.api`, but for the network, the machine and `pregenerate`."""
    return {
        "method": options.method,
        "pattern": options.pattern,
        "batch": options.batch,
        "dense_layers": parse_dense_layers(options.dense_layers),
        "optimizer": options.optimizer,
        "allow_ops": parse_names(options.allow_ops),
    }


def input_files(options: argparse.Namespace) -> list[str]:
    """Return what may be files among the network, the machine and the tables that the options name."""
    named = (getattr(options, name, None) for name in ("network", "arch", "dram", "energy"))
    return [name for name in named if name and ("/" in name or "." in name)]


def add_json(command: Parser, what: str) -> None:
    """Add the file for the JSON form of `what` the command makes."""
    command.add_argument("--json", metavar="F|-", help=f"write the {what} as JSON; - writes only that to standard output")


def add_timeline(command: Parser) -> None:
    """Add the file for the timeline of what the command runs."""
    command.add_argument(
        "--timeline", metavar="F", help="write what every engine did when, as JSON for Perfetto; gzipped as F.gz"
    )


def parse_names(text: str) -> list[str]:
    """Return the names in a list with commas."""
    return [name.strip() for name in text.split(",") if name.strip()]


def parse_whole_numbers(name: str, text: str) -> list[int]:
    """Return the numbers in a list with commas; `name` is what an error calls them."""
    for part in parse_names(text):
        if not (part.isascii() and part.isdigit()) or len(part) > 18:
            raise ConfigError(f"{name} must be whole numbers like 1,2,4, not {part!r}")
    return [int(part) for part in parse_names(text)]


def parse_dense_layers(text: str | None) -> list[str] | None:
    """Return the name patterns of layers that stay dense; None leaves the choice to the simulator."""
    if text is None:
        return None
    return [] if text == "none" else parse_names(text)
