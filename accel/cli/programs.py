"""Programs as files: `accel compile`, `accel run`, `accel disassemble`, `accel assemble`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from accel.cli.arguments import Commands, add_json, add_step, add_timeline, input_files, step_choices
from accel.cli.output import after_a_second, check_timeline, check_writable, write_outputs
from accel.errors import ConfigError, ScheduleError

if TYPE_CHECKING:
    from collections.abc import Callable

    from accel.program import Program
    from accel.sim.machine import Timing

RUN_SCHEMA_VERSION = 1
_START = b"nmprog"
"""What a program begins with: a space comes next in its text, the number of the version in a binary file."""
_FIRST_BYTES = 64
"""At least the header of a binary file."""


def add_compile(commands: Commands) -> None:
    """Add `accel compile`."""
    command = commands.add_parser(
        "compile",
        help="write the program of one training step",
        description="Lower and schedule one training step, and write the instructions that the machine runs.",
        allow_abbrev=False,
    )
    add_step(command)
    command.add_argument("-o", "--output", required=True, metavar="FILE.prog", help="the program file")
    command.add_argument("--text", action="store_true", help="write the text form instead of the binary one")
    command.set_defaults(run=_compile)


def add_run(commands: Commands) -> None:
    """Add `accel run`."""
    command = commands.add_parser(
        "run",
        help="how long a program takes, and what its engines wait for",
        description="Verify a program and run it on the machine model, exact in every cycle.",
        allow_abbrev=False,
    )
    _add_program(command, "a program, binary or text")
    add_timeline(command)
    add_json(command, "result")
    command.set_defaults(run=_run)


def add_disassemble(commands: Commands) -> None:
    """Add `accel disassemble`."""
    command = commands.add_parser(
        "disassemble", help="write a program as text", description="Write a program as text.", allow_abbrev=False
    )
    _add_program(command, "a program, binary or text")
    command.add_argument("-o", "--output", default="-", metavar="F|-", help="default: standard output")
    command.set_defaults(run=_disassemble)


def add_assemble(commands: Commands) -> None:
    """Add `accel assemble`."""
    command = commands.add_parser(
        "assemble",
        help="turn a program's text into a program file",
        description="Turn a program's text into a program file. What the program does is verified as it is run.",
        allow_abbrev=False,
    )
    _add_program(command, "a program's text")
    command.add_argument("-o", "--output", required=True, metavar="FILE.prog", help="the program file")
    command.set_defaults(run=_assemble)


def _add_program(command: argparse.ArgumentParser, what: str) -> None:
    command.add_argument("program", metavar="FILE", help=what)


def _compile(options: argparse.Namespace) -> None:
    _check_program_output(options.output, *input_files(options))
    with after_a_second() as show:
        show("scheduling and compiling")
        program = _compiled(options)
        show("writing")
        _write_program(program, options.output, options.text)
    from accel import text

    out = text.console()
    out.print(f"{options.output}: {_what(program)}", style="bold")
    text.print_listing(("engine", "instructions", "DRAM bytes"), _engine_lines(program), out)
    text.print_listing(("buffer", "bytes", "in use at most"), _buffer_lines(program), out)


def _compiled(options: argparse.Namespace) -> Program:
    """Return the program that `add_step` asks for; "auto" takes the faster way to compact weights."""
    from accel import api
    from accel.sim.machine import run_program

    ways = {"on": [True], "off": [False], "auto": [True, False]}[options.pregenerate]
    choices = step_choices(options)
    programs = [api.compile_step(options.network, options.arch, pregenerate=way, **choices) for way in ways]
    return programs[0] if len(programs) == 1 else min(programs, key=lambda program: run_program(program).cycles)


def _run(options: argparse.Namespace) -> None:
    check_writable(options.json, options.program)
    check_timeline(options.timeline, options.json, inputs=[options.program])
    from accel.dataflow.verifier import verify
    from accel.sim.machine import run_program

    with after_a_second() as show:
        show("reading")
        program = _read_program(options.program)
        show("verifying")
        verify(program, options.program)
        show("running")
        timing = run_program(program)
        if options.timeline:
            from accel.timeline import write_timeline

            show("writing the timeline")
            write_timeline(program, timing, options.timeline)
    result = _result(program, timing)
    outputs: dict[str | None, Callable[[], str]] = {options.json: lambda: json.dumps(result, indent=1) + "\n"}
    if options.json != "-":
        _print_run(options.program, program, result)
    write_outputs(outputs)


def _disassemble(options: argparse.Namespace) -> None:
    from accel.assembly import to_text

    check_writable(options.output, options.program)
    with after_a_second() as show:
        show("reading")
        lines = to_text(_read_program(options.program))
    write_outputs({options.output: lambda: lines})


def _assemble(options: argparse.Namespace) -> None:
    from accel.assembly import from_text
    from accel.validation import read_text

    _check_program_output(options.output, options.program)
    with after_a_second() as show:
        show("reading")
        program = from_text(read_text(Path(options.program), ScheduleError), options.program)
        _write_program(program, options.output, False)
    print(f"{options.output}: {_what(program)}", file=sys.stderr)


def _check_program_output(file: str, *inputs: str) -> None:
    """Refuse a place for a program that cannot be written, and one that is no file: it would be replaced by one."""
    if file == "-":
        raise ConfigError("output must be a file, not '-'; give it a name")
    check_writable(file, *inputs)
    if Path(file).exists() and not Path(file).is_file():
        raise ConfigError(f"output must be a file, not the device {file}")


def _read_program(file: str) -> Program:
    """Return the program of a binary file or a text, read once: it may be a pipe."""
    from accel import program_file
    from accel.assembly import from_text

    data = _read_bytes(file)
    if not data.startswith(_START + b" "):
        return program_file.from_bytes(data, file)
    try:
        return from_text(data.decode(), file)
    except UnicodeDecodeError:
        raise ScheduleError(f"{file} must be UTF-8 text, not binary data") from None


def _read_bytes(file: str) -> bytes:
    """Return the contents of a program's file; of what is no program, which may be endless, only how it begins."""
    try:
        with Path(file).open("rb") as opened:
            data = opened.read(_FIRST_BYTES)
            return data + opened.read() if data.startswith(_START) else data
    except IsADirectoryError:
        raise ScheduleError(f"{file} must be a file, not a directory") from None
    except FileNotFoundError:
        raise ScheduleError(f"{file} does not exist") from None
    except OSError as error:
        raise ScheduleError(f"{file} cannot be read: {error.strerror}") from None
    except MemoryError:
        raise ScheduleError(f"{file} must fit memory, not be longer") from None


def _write_program(program: Program, file: str, as_text: bool) -> None:
    from accel import program_file
    from accel.assembly import to_text
    from accel.validation import write_text

    if as_text:
        write_text(Path(file), to_text(program), ScheduleError)
    else:
        program_file.save(program, file)


def _what(program: Program) -> str:
    tables = program.tables
    return f"{tables.network} at batch {tables.batch} on {tables.arch.name}, {len(program.instructions):,} instructions"


def _engine_lines(program: Program) -> list[tuple[str, ...]]:
    from accel.program import Engine
    from accel.timing.jobs import jobs_of

    jobs = jobs_of(program)
    own = {engine: jobs.engine == engine for engine in Engine}
    return [(engine.name, f"{int(own[engine].sum()):,}", f"{int(jobs.bytes[own[engine]].sum()):,}") for engine in Engine]


def _buffer_lines(program: Program) -> list[tuple[str, ...]]:
    """Return for each buffer its size, and where its last region in use ends."""
    import numpy as np

    from accel.program import SIDES
    from accel.timeline import writes_of

    word_bytes = 2 * program.tables.arch.group
    lines: list[tuple[str, ...]] = []
    for side, words in zip(SIDES, program.tables.buffer_words, strict=True):
        regions = program.instructions[writes_of(program, side)]
        used = int((regions[side].astype(np.int64) + regions["words"]).max(initial=0))
        lines.append((side, f"{words * word_bytes:,}", f"{used * word_bytes:,} ({used / max(words, 1):.0%})"))
    return lines


def _result(program: Program, timing: Timing) -> dict[str, Any]:
    """Return what `accel run` says, as JSON has it."""
    from accel.program import Engine
    from accel.timeline import site_cycles, waits_by_engine

    tables, waits = program.tables, waits_by_engine(program, timing)
    sites = zip(tables.sites, site_cycles(program, timing), strict=True)
    return {
        "schema_version": RUN_SCHEMA_VERSION,
        "network": tables.network,
        "batch": tables.batch,
        "arch": tables.arch.name,
        "clock_hz": tables.arch.clock_hz,
        "cycles": timing.cycles,
        "seconds": timing.cycles / tables.arch.clock_hz,
        "instructions": {engine.name: int((timing.jobs.engine == engine).sum()) for engine in Engine},
        "busy_cycles": {engine.name: cycles for engine, cycles in timing.busy_cycles.items()},
        "port_cycles": timing.port_cycles,
        "dram_bytes": timing.bytes_moved,
        "array_waited_cycles": {engine.name: sum(stage.get(engine.name, 0) for stage in waits.values()) for engine in Engine},
        "sites": [{**site.model_dump(mode="json"), "cycles": cycles} for site, cycles in sites],
    }


def _print_run(file: str, program: Program, result: dict[str, Any]) -> None:
    from accel import text

    def of_step(cycles: int) -> str:
        return f"{cycles / result['cycles']:.1%}" if result["cycles"] else ""

    out = text.console()
    out.print(f"{file}: {_what(program)}", style="bold")
    lines = []
    for engine, count in result["instructions"].items():
        busy, waited = result["busy_cycles"][engine], result["array_waited_cycles"][engine]
        lines.append((engine, f"{count:,}", f"{busy:,}", of_step(busy), f"{waited:,}", of_step(waited)))
    columns = ("engine", "instructions", "busy cycles", "of step", "COMPUTE waited for it", "of step")
    text.print_listing(columns, lines, out)
    out.print(f"DRAM port: busy {of_step(result['port_cycles'])} of the step, {result['dram_bytes']:,} bytes")
    out.print(f"the program takes {result['cycles']:,} cycles, {result['seconds'] * 1e3:.3f} ms", style="bold")
