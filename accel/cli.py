"""The `accel` command: arguments, files and progress. Everything it computes comes from `accel.api` and its neighbours."""

from __future__ import annotations

import argparse
import importlib.util
import os
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn, TypeVar

from accel import networks
from accel.errors import AccelError, ConfigError
from accel.methods import METHODS, OPTIMIZERS
from accel.presets import DEFAULT_ARCH, DEFAULT_BATCH, PRESETS, preset
from accel.report import Report
from accel.sim import scaling

if TYPE_CHECKING:
    from accel.html import MethodRun

_Item = TypeVar("_Item")

USER_ERROR = 2
INTERRUPTED = 130


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


def _close_output() -> None:
    """Let nothing more be written to an output that failed, not even at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class _Parser(argparse.ArgumentParser):
    """Says in one line what is wrong with the arguments, like every other error."""

    def error(self, message: str) -> NoReturn:
        print(f"accel: {message}; see {self.prog} --help", file=sys.stderr)
        raise SystemExit(USER_ERROR)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="accel", description="Simulate training with N:M sparsity on an accelerator.", allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    _add_simulate(commands)
    _add_report(commands)
    _add_compare(commands)
    _add_scale(commands)
    _add_trace(commands)
    _add_experiment(commands)
    _add_rtl(commands)
    _add_listings(commands)
    _add_synth(commands)
    importer = commands.add_parser("import", help="turn another tool's network description into a trace")
    importer.add_argument("format", choices=["scalesim"], help="scalesim: a topology CSV, convolution or GEMM form")
    importer.add_argument("file", type=Path)
    importer.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json")
    importer.set_defaults(run=_import)
    return parser


def _add_simulate(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "simulate",
        help="how long one training step takes, and why",
        description="Lower, schedule and simulate one training step; compare it with dense training on the same machine.",
        allow_abbrev=False,
    )
    _add_step_arguments(command)
    command.add_argument("--layers", action="store_true", help="list every row, not only the slowest")
    command.add_argument("--no-baseline", action="store_true", help="leave out the dense run and the speedup")
    command.add_argument("--json", metavar="F|-", help="write the report as JSON; - writes only that to standard output")
    command.add_argument("--csv", metavar="F|-", help="write one line per row as CSV")
    command.set_defaults(run=_simulate)


def _add_step_arguments(command: argparse.ArgumentParser) -> None:
    command.add_argument("network", metavar="NET|FILE.json", help="a shipped network (see accel networks) or a trace file")
    command.add_argument("--arch", default=DEFAULT_ARCH, metavar="NAME|FILE.toml", help="machine (default %(default)s)")
    command.add_argument("--method", default="bdwp", metavar="NAME", help="see accel methods (default %(default)s)")
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
    command.add_argument("--optimizer", default="sgd", metavar="NAME", help=f"{', '.join(OPTIMIZERS)} (default %(default)s)")
    command.add_argument(
        "--pregenerate",
        choices=["on", "off", "auto"],
        default="on",
        help="write compact weights in the update, or prune dense weights on every load, or take the faster (default on)",
    )
    command.add_argument("--allow-ops", default="", metavar="OP[,OP]", help="unknown operators to count as free")
    command.add_argument(
        "--energy",
        metavar="NAME|FILE.toml",
        help="add energy and power by this table of energies (see accel energies; default: none)",
    )


def _add_report(commands: argparse._SubParsersAction[_Parser]) -> None:
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


def _add_compare(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "compare",
        help="the speedup of several networks and patterns, side by side and explained",
        description="Speedups over dense training; without arguments the table that stands in the README.",
        allow_abbrev=False,
    )
    command.add_argument("networks", nargs="*", metavar="NET", help="networks (default: stand-ins for those of the SAT paper)")
    command.add_argument("--patterns", default="2:4,2:8,2:16", metavar="KEEP:GROUP[,...]", help="default %(default)s")
    command.add_argument("--arch", default=DEFAULT_ARCH, metavar="NAME|FILE.toml", help="machine (default %(default)s)")
    command.add_argument("--method", default="bdwp", metavar="NAME", help="default %(default)s")
    command.add_argument("--batch", type=int, metavar="B", help="samples in a step (default 128, resnet50 64)")
    command.set_defaults(run=_compare)


def _add_scale(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "scale",
        help="how long a step takes on many machines that train together",
        description="Data-parallel training steps: dW summed up by a ring of machines beside the backward pass.",
        allow_abbrev=False,
    )
    command.add_argument("network", metavar="NET|FILE.json", help="a shipped network (see accel networks) or a trace file")
    counts = ",".join(map(str, scaling.DEFAULT_DEVICES))
    command.add_argument("--devices", default=counts, metavar="P[,P]", help="numbers of machines (default %(default)s)")
    command.add_argument("--arch", default=DEFAULT_ARCH, metavar="NAME|FILE.toml", help="machine (default %(default)s)")
    command.add_argument("--method", default="bdwp", metavar="NAME", help="see accel methods (default %(default)s)")
    command.add_argument("--pattern", default="2:8", metavar="KEEP:GROUP", help="default %(default)s")
    command.add_argument("--batch", type=int, metavar="B", help=f"samples of each machine: weak scaling ({DEFAULT_BATCH})")
    command.add_argument("--global-batch", type=int, metavar="B", help="samples of all machines together: strong scaling")
    command.add_argument("--dense-layers", metavar="GLOB[,GLOB]", help="as in accel simulate")
    command.add_argument("--optimizer", default="sgd", metavar="NAME", help=f"{', '.join(OPTIMIZERS)} (default %(default)s)")
    command.add_argument("--pregenerate", choices=["on", "off"], default="on", help="as in accel simulate (default on)")
    command.add_argument("--allow-ops", default="", metavar="OP[,OP]", help="unknown operators to count as free")
    numbers = {
        "--link-gbps": (scaling.DEFAULT_LINK_GBPS, "G", "10^9 bit/s of a link, each way (default %(default)g)"),
        "--link-latency-us": (scaling.DEFAULT_LINK_LATENCY_US, "U", "microseconds a hop (default %(default)g)"),
        "--bucket-mib": (scaling.DEFAULT_BUCKET_MIB, "M", "MiB of dW that go round together (default %(default)g)"),
    }
    for name, (default, letter, text) in numbers.items():
        command.add_argument(name, type=float, default=default, metavar=letter, help=text)
    command.add_argument("--gradients", default="fp32", metavar="FORMAT", help="fp32 or fp16 on the link (default fp32)")
    command.add_argument("--update", default="replicated", metavar="KIND", help="replicated or sharded (default replicated)")
    command.add_argument("--json", metavar="F|-", help="write the result as JSON; - writes only that to standard output")
    command.add_argument("--csv", metavar="F|-", help="write one line per number of machines as CSV")
    command.set_defaults(run=_scale)


def _add_trace(commands: argparse._SubParsersAction[_Parser]) -> None:
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
    command.add_argument("--allow-ops", default="", metavar="OP[,OP]", help="unknown operators to count as free")
    command.add_argument("--name", metavar="N", help="name of the network (default: the module's class)")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FILE.json")
    command.set_defaults(run=_trace)


def _add_experiment(commands: argparse._SubParsersAction[_Parser]) -> None:
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


def _add_rtl(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "rtl",
        help="write Verilog of a machine's array, of one PE or of SORE, with a bench",
        description="Write a folder for an FPGA project to take in: Verilog, a self-checking bench, a data sheet, a side file "
        "for programs, and files for FuseSoC, Vivado and nextpnr.",
        allow_abbrev=False,
    )
    command.add_argument("--arch", default=DEFAULT_ARCH, metavar="NAME|FILE.toml", help="machine (default %(default)s)")
    command.add_argument("--top", default="array", choices=["array", "uspe", "sore"], help="default %(default)s")
    command.add_argument("-o", "--output", type=Path, required=True, metavar="FOLDER")
    command.add_argument("--force", action="store_true", help="write into a folder that is not empty, over the files in it")
    command.set_defaults(run=_rtl)


def _add_listings(commands: argparse._SubParsersAction[_Parser]) -> None:
    commands.add_parser("networks", help="list the networks that ship with the package").set_defaults(run=_list_networks)
    archs = commands.add_parser("archs", help="list the machines, or print one as TOML")
    archs.add_argument("name", nargs="?", help="print this machine as a TOML file to start your own from")
    archs.set_defaults(run=_list_archs)
    energies = commands.add_parser("energies", help="list the tables of energies, or print one as TOML")
    energies.add_argument("name", nargs="?", help="print this table as a TOML file to start your own from")
    energies.set_defaults(run=_list_energies)
    commands.add_parser("methods", help="list the sparse training methods").set_defaults(run=_list_methods)


def _add_synth(commands: argparse._SubParsersAction[_Parser]) -> None:
    command = commands.add_parser(
        "synth",
        help="what the hardware takes of an FPGA: synthesis, part by part",
        description="Synthesise the hardware of a machine with Yosys; on ECP5 also place and route it. Results are cached.",
        allow_abbrev=False,
    )
    command.add_argument("--arch", default=DEFAULT_ARCH, metavar="NAME|FILE.toml", help="machine (default %(default)s)")
    command.add_argument(
        "--top", default="array", metavar="TOP", help="array, uspe (one PE) or sore (one selector) (default %(default)s)"
    )
    command.add_argument("--target", default="xcup", metavar="FAMILY", help="xcup (UltraScale+) or ecp5 (default %(default)s)")
    command.add_argument("--place", action="store_true", help="place and route too, for a clock (ecp5, a 4x4 takes minutes)")
    command.add_argument("--seed", type=int, default=1, metavar="N", help="of the placement (default %(default)s)")
    command.add_argument("--json", metavar="F|-", help="write the report as JSON; - writes only that to standard output")
    command.set_defaults(run=_synth)


def _simulate(options: argparse.Namespace) -> None:
    if options.json and options.json == options.csv:
        raise ConfigError(f"json and csv must go to different places, not both to {options.json}")
    for file in (options.json, options.csv):
        _check_writable(file)
    from accel import text

    with _waiting():
        report = _run_step(options, not options.no_baseline)
    outputs = {options.json: report.to_json, options.csv: report.to_csv}
    if "-" not in outputs:
        text.print_report(report, text.console(), options.layers)
    for file, content in outputs.items():
        if file == "-":
            sys.stdout.write(content())
        elif file:
            _write(file, content())


def _run_step(options: argparse.Namespace, baseline: bool | Report) -> Report:
    """Return the report of what `_add_step_arguments` asks for; "auto" takes the faster way to compact weights."""
    from accel import api

    def run(pregenerate: bool, baseline: bool | Report) -> Report:
        return api.simulate(
            options.network,
            options.arch,
            method=options.method,
            pattern=options.pattern,
            batch=options.batch,
            dense_layers=_dense_layers(options.dense_layers),
            optimizer=options.optimizer,
            pregenerate=pregenerate,
            baseline=baseline,
            allow_ops=_names(options.allow_ops),
            energy=options.energy,
        )

    report = run(options.pregenerate != "off", baseline)
    if options.pregenerate == "auto":  # dense training has no compact weights: it is the same with either
        report = min(report, run(False, report.baseline or False), key=lambda report: report.cycles)
    return report


def _report(options: argparse.Namespace) -> None:
    _check_writable(options.output)
    from accel import api, html

    with _waiting():
        arch = api.resolve_arch(options.arch)
        main_run, runs = html.chosen_runs(options.method, options.pattern, options.compare, arch)
        report = _run_step(options, True)
        compared = [report if run == main_run else _run_step(_with(options, run), report.baseline or True) for run in runs]
        page = html.build_page(report, arch, compared, _report_command(options, runs))
    if options.output == "-":
        sys.stdout.write(page)
    else:
        _write(options.output, page)
        print(f"{options.output}: {len(page.encode()) / 1e3:.0f} kB", file=sys.stderr)


def _with(options: argparse.Namespace, run: MethodRun) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(options), "method": run.method, "pattern": run.pattern})


def _report_command(options: argparse.Namespace, runs: Iterable[MethodRun]) -> str:
    """Return the command line that writes the same page, with every choice said."""
    words = ["accel", "report", options.network]
    for name in ("arch", "method", "pattern", "batch", "dense_layers", "optimizer", "pregenerate", "allow_ops", "energy"):
        value = getattr(options, name)
        words += [f"--{name.replace('_', '-')}", str(value)] if value not in (None, "") else []
    return shlex.join([*words, "--compare", ",".join(map(str, runs)), "-o", "report.html"])


def _compare(options: argparse.Namespace) -> None:
    from accel import compare, text

    def track(runs: Sequence[_Item]) -> Iterable[_Item]:
        from rich.progress import track as show

        bar_console = text.console(stderr=True)
        return show(runs, "simulating", console=bar_console, disable=not bar_console.is_terminal, transient=True)

    result = compare.compare(
        options.networks or compare.HEADLINE_NETWORKS,
        _names(options.patterns),
        arch=options.arch,
        method=options.method,
        batch=options.batch,
        track=track,
    )
    text.print_comparison(result, text.console())


def _scale(options: argparse.Namespace) -> None:
    if options.json and options.json == options.csv:
        raise ConfigError(f"json and csv must go to different places, not both to {options.json}")
    for file in (options.json, options.csv):
        _check_writable(file)
    from accel import scale, text

    between = scaling.Network(options.link_gbps, options.link_latency_us, options.bucket_mib, options.gradients, options.update)
    with _after_a_second() as show:

        def track(counts: Sequence[int]) -> Iterator[int]:
            for count in counts:
                show(f"simulating a ring of {count:,}")
                yield count

        result = scale.scale(
            options.network,
            options.arch,
            devices=_whole_numbers("devices", options.devices),
            batch=options.batch,
            global_batch=options.global_batch,
            between=between,
            method=options.method,
            pattern=options.pattern,
            dense_layers=_dense_layers(options.dense_layers),
            optimizer=options.optimizer,
            pregenerate=options.pregenerate == "on",
            allow_ops=_names(options.allow_ops),
            track=track,
        )
    outputs = {options.json: result.to_json, options.csv: result.to_csv}
    if "-" not in outputs:
        out = text.console()
        out.print("\n".join(scale.headline(result)), style="bold")
        text.print_listing(scale.COLUMNS, scale.table(result), out)
    for file, content in outputs.items():
        if file == "-":
            sys.stdout.write(content())
        elif file:
            _write(file, content())


def _list_networks(options: argparse.Namespace) -> None:
    from accel import text

    traces = [networks.load(name) for name in networks.names()]
    rows = [(trace.name, f"{len(trace.layers)}", f"{trace.parameters / 1e6:.2f} M") for trace in traces]
    text.print_listing(("network", "layers", "parameters"), rows, text.console())


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


def _list_methods(options: argparse.Namespace) -> None:
    from accel import text

    out = text.console()
    methods = [
        [method.name, *(operand or "dense" for operand in method.operands), method.description] for method in METHODS.values()
    ]
    text.print_listing(("method", "N:M in FF", "in BP", "in WU", "what it does"), methods, out)
    optimizers = [[optimizer.name, optimizer.description] for optimizer in OPTIMIZERS.values()]
    text.print_listing(("optimizer", "what it does"), optimizers, out)


def _import(options: argparse.Namespace) -> None:
    from accel.scalesim import read_topology

    _check_writable(options.output)
    trace, patterns = read_topology(options.file)
    trace.save(options.output)
    print(f"{options.output}: {len(trace.layers)} layers", file=sys.stderr)
    if patterns:
        listed = ", ".join(f"{layer} {pattern}" for layer, pattern in patterns.items())
        print(f"note: a trace holds no patterns; the file's sparsity was {listed}: give --pattern to simulate", file=sys.stderr)


def _trace(options: argparse.Namespace) -> None:
    _check_writable(options.output)
    with _stages("importing PyTorch") as show:
        from accel.models.target import trace_target

        allow_ops = _names(options.allow_ops)
        trace = trace_target(
            options.target, options.input, name=options.name, loss=options.loss, allow_ops=allow_ops, show=show
        )
    trace.save(options.output)
    print(f"{options.output}: {len(trace.layers)} layers", file=sys.stderr)


def _experiment(options: argparse.Namespace) -> None:
    from accel import api, plot, text
    from accel.models import experiment
    from accel.models.results import summarize, summary_table

    seeds, epochs, samples = (2, 2, 256) if options.quick else (options.seeds, options.epochs, 0)
    tasks, nets, methods, numerics = map(_names, (options.tasks, options.networks, options.methods, options.numerics))
    runs = experiment.plan(tasks, nets, methods, numerics, seeds, epochs, samples)
    step_seconds = experiment.step_seconds_on(api.simulate, api.resolve_arch(options.arch))
    plots = experiment.Plots(plot.plot_accuracy_per_epoch, plot.plot_accuracy_per_second)
    try:
        rows = experiment.run_experiment(runs, options.output, step_seconds, plots, options.jobs)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped; the finished runs are in {options.output}: start again to go on") from None
    header, *lines = summary_table(summarize(rows))
    text.print_listing(header, lines, text.console())


def _synth(options: argparse.Namespace) -> None:
    from accel import api, text

    _check_writable(options.json)
    arch = api.resolve_arch(options.arch)
    if importlib.util.find_spec("amaranth") is None:
        raise ConfigError("amaranth must be installed, not found; pip install 'nm-accel[rtl]'")
    from accel.rtl import synth

    with _stages("loading Amaranth") as show:
        report = synth.synthesize_arch(arch, options.top, options.target, is_placed=options.place, seed=options.seed, show=show)
    if options.json == "-":
        sys.stdout.write(report.to_json())
        return
    out = text.console()
    out.print(f"{report.arch}: {report.top} on {report.target}, before packing; {report.tools}", style="bold")
    text.print_listing(synth.COLUMNS, synth.table(report), out)
    out.print(f"clock: {report.clock()}")
    if options.json:
        _write(options.json, report.to_json())


def _rtl(options: argparse.Namespace) -> None:
    from accel.api import resolve_arch

    arch = resolve_arch(options.arch)
    with _stages("importing Amaranth") as show:
        from accel.rtl.package import write_package

        files = write_package(arch, options.top, options.output, force=options.force, show=show)
    print(f"{options.output}: {len(files)} files; README.md says what they are", file=sys.stderr)


def _waiting() -> AbstractContextManager[object]:
    """Show on a terminal that something is going on, and say so when Numba compiles for the first time."""
    if not sys.stderr.isatty():
        return nullcontext()
    from accel.jit import is_cache_empty
    from accel.text import console

    what = "compiling the closed forms, once for this version (about 10 s)" if is_cache_empty() else "scheduling and simulating"
    return console(stderr=True).status(what)


@contextmanager
def _after_a_second() -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is going on if it takes more than a second; what is handed out changes the text."""
    if not sys.stderr.isatty():
        yield lambda stage: None
        return
    from threading import Timer

    from accel.text import console

    status = console(stderr=True).status("simulating")
    timer = Timer(1.0, status.start)
    timer.start()
    try:
        yield status.update
    finally:
        timer.cancel()
        timer.join()
        status.stop()


@contextmanager
def _stages(first: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is going on; what is handed out changes the text."""
    if not sys.stderr.isatty():
        yield lambda stage: None
        return
    from accel.text import console

    out = console(stderr=True)
    out.file = sys.stderr  # this very file: tracing keeps what others write to sys.stderr off the terminal
    with out.status(first) as status:
        yield status.update


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _whole_numbers(name: str, text: str) -> list[int]:
    for part in _names(text):
        if not (part.isascii() and part.isdigit()) or len(part) > 18:
            raise ConfigError(f"{name} must be whole numbers like 1,2,4, not {part!r}")
    return [int(part) for part in _names(text)]


def _dense_layers(text: str | None) -> list[str] | None:
    if text is None:
        return None
    return [] if text == "none" else _names(text)


def _check_writable(file: str | Path | None) -> None:
    """Refuse an output that cannot be written before any work is done for it."""
    if file is None or file == "-":
        return
    path = Path(file)
    if path.is_dir():
        raise ConfigError(f"output must be a file, not the directory {path}")
    if not path.parent.is_dir():
        raise ConfigError(f"output must lie in an existing directory, not {path}; create {path.parent} first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"output must be writable, not {path}; choose another place")


def _write(file: str, text: str) -> None:
    from accel.validation import write_text

    write_text(Path(file), text, ConfigError)


if __name__ == "__main__":
    sys.exit(main())
