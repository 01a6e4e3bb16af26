"""The `accel` command: arguments, files and progress. Everything it computes comes from `accel.api` and its neighbours.

A module of this package holds a family of commands: for each a function that adds its arguments, and the one that runs it.
To add a command, write both and name the first in `COMMANDS`. What a command computes is imported when it runs, so that
`--help` is there at once and needs no optional package.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from accel.cli import explore, hardware, networks, pareto, programs, recheck, scale, step, training
from accel.cli.arguments import USER_ERROR, Commands, Parser
from accel.errors import AccelError

INTERRUPTED = 130

COMMANDS: tuple[Callable[[Commands], None], ...] = (
    step.add_simulate,
    step.add_report,
    step.add_compare,
    programs.add_compile,
    programs.add_run,
    programs.add_disassemble,
    programs.add_assemble,
    scale.add_scale,
    explore.add_explore,
    pareto.add_pareto,
    recheck.add_recheck,
    networks.add_trace,
    training.add_experiment,
    hardware.add_rtl,
    networks.add_networks,
    hardware.add_archs,
    hardware.add_energies,
    training.add_methods,
    hardware.add_synth,
    networks.add_import,
)
"""Every command, in the order of `accel --help`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status: 0, 2 for what the user can mend, 130 after Ctrl-C."""
    try:
        options = _parser().parse_args(arguments)
        options.run(options)
        sys.stdout.flush()
    except AccelError as error:
        print(f"accel: {error}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:  # the reader of our output left; nothing is wrong
        _close_output()
    except OSError as error:
        print(f"accel: output cannot be written: {error.strerror}", file=sys.stderr)
        _close_output()
        return USER_ERROR
    except KeyboardInterrupt as stop:
        print(f"accel: {str(stop) or 'interrupted'}", file=sys.stderr)
        return INTERRUPTED
    return 0


def _parser() -> Parser:
    parser = Parser(prog="accel", description="Simulate training with N:M sparsity on an accelerator.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=Parser)
    for add in COMMANDS:
        add(commands)
    return parser


def _close_output() -> None:
    """Let nothing more be written to an output that failed, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
