"""Machines and how they are built: `accel archs`, `accel energies`, `accel rtl`, `accel synth`."""

from __future__ import annotations

import argparse
import importlib.util
import sys
from pathlib import Path

from accel.cli.arguments import Commands, add_arch, add_json, input_files
from accel.cli.output import check_writable, stages, write
from accel.errors import ConfigError
from accel.presets import PRESETS, preset


def add_archs(commands: Commands) -> None:
    """Add `accel archs`."""
    command = commands.add_parser("archs", help="list the machines, or print one as TOML")
    command.add_argument("name", nargs="?", help="print this machine as a TOML file to start your own from")
    command.set_defaults(run=_list_archs)


def add_energies(commands: Commands) -> None:
    """Add `accel energies`."""
    command = commands.add_parser("energies", help="list the tables of energies, or print one as TOML")
    command.add_argument("name", nargs="?", help="print this table as a TOML file to start your own from")
    command.set_defaults(run=_list_energies)


def add_rtl(commands: Commands) -> None:
    """Add `accel rtl`."""
    command = commands.add_parser(
        "rtl",
        help="write Verilog of a machine's array, of one PE or of SORE, with a bench",
        description="Write a folder for an FPGA project to take in: Verilog, a self-checking bench, a data sheet, a side file "
        "for programs, and files for FuseSoC, Vivado and nextpnr.",
        allow_abbrev=False,
    )
    add_arch(command)
    command.add_argument("--top", default="array", choices=["array", "uspe", "sore"], help="default %(default)s")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    command.add_argument(
        "--prefix", default="nm_", metavar="TEXT", help="begins the name of every module and file (default %(default)s)"
    )
    command.add_argument("--force", action="store_true", help="write into a folder that is not empty, over the files in it")
    command.set_defaults(run=_rtl)


def add_synth(commands: Commands) -> None:
    """Add `accel synth`."""
    command = commands.add_parser(
        "synth",
        help="what the hardware takes of an FPGA: synthesis, part by part",
        description="Synthesise the hardware of a machine with Yosys; on ECP5 also place and route it. Results are cached.",
        allow_abbrev=False,
    )
    add_arch(command)
    command.add_argument(
        "--top", default="array", metavar="TOP", help="array, uspe (one PE) or sore (one selector) (default %(default)s)"
    )
    command.add_argument("--target", default="xcup", metavar="FAMILY", help="xcup (UltraScale+) or ecp5 (default %(default)s)")
    command.add_argument("--place", action="store_true", help="place and route too, for a clock (ecp5, a 4x4 takes minutes)")
    command.add_argument("--seed", type=int, default=1, metavar="N", help="of the placement (default %(default)s)")
    add_json(command, "report")
    command.set_defaults(run=_synth)


def _list_archs(options: argparse.Namespace) -> None:
    if options.name:
        print(preset(options.name).to_toml(), end="")
        return
    from accel import text

    rows = [
        (
            arch.name,
            f"{arch.array_rows}x{arch.array_cols}",
            f"{arch.clock_hz / 1e6:.0f}",
            f"{arch.group}",
            f"{2 * arch.peak_macs_per_second / 1e12:.3g}",
            f"{arch.dram_bytes_per_second / 1e9:.3g}",
            arch.description,
        )
        for arch in PRESETS.values()
    ]
    text.print_listing(("arch", "PEs", "MHz", "group", "peak TFLOP/s", "DRAM GB/s", "what it is"), rows, text.console())


def _list_energies(options: argparse.Namespace) -> None:
    from accel.energy import energy_table, table_names, table_text

    if options.name:
        print(table_text(options.name), end="")
        return
    from accel import text

    rows = []
    for table in map(energy_table, table_names()):
        figures = table.figures.values()
        assumed = sum(figure.assumed for figure in figures)
        rows.append((table.name, f"{assumed} of {len(figures)}", table.description))
    text.print_listing(("energies", "assumed", "what it is"), rows, text.console())


def _rtl(options: argparse.Namespace) -> None:
    from accel.api import resolve_arch

    arch = resolve_arch(options.arch)
    with stages("importing Amaranth") as show:
        from accel.rtl.package import write_package

        files = write_package(arch, options.top, options.output, prefix=options.prefix, force=options.force, show=show)
    print(f"{options.output}: {len(files)} files; README.md says what they are", file=sys.stderr)


def _synth(options: argparse.Namespace) -> None:
    from accel import api, text

    check_writable(options.json, *input_files(options))
    arch = api.resolve_arch(options.arch)
    if importlib.util.find_spec("amaranth") is None:
        raise ConfigError("amaranth must be installed, not found; pip install 'nm-accel[rtl]'")
    from accel.rtl import synth

    with stages("loading Amaranth") as show:
        report = synth.synthesize_arch(arch, options.top, options.target, is_placed=options.place, seed=options.seed, show=show)
    if options.json == "-":
        sys.stdout.write(report.to_json())
        return
    out = text.console()
    out.print(f"{report.arch}: {report.top} on {report.target}, before packing; {report.tools}", style="bold")
    text.print_listing(synth.COLUMNS, synth.table(report), out)
    out.print(f"clock: {report.clock()}")
    if options.json:
        write(options.json, report.to_json())
