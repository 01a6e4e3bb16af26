"""Reports as text tables for a terminal or a pipe."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from rich.console import Console
from rich.table import Table

from accel.compare import Comparison
from accel.energy import COMPONENTS
from accel.report import LOSSES, STAGES, Report, Row

PIPE_WIDTH = 160
SHOWN_POINTS = 0.0005
"""Points of speedup too few to show with three digits are left out."""


class _Console(Console):
    """Leaves a broken pipe to the command, which knows that it is no error."""

    def on_broken_pipe(self) -> None:
        raise BrokenPipeError


def console(stderr: bool = False) -> Console:
    """Return a console as wide as the terminal; in a pipe wide enough that no table is cut."""
    width = None if Console(stderr=stderr).is_terminal else PIPE_WIDTH
    return _Console(stderr=stderr, highlight=False, markup=False, width=width)  # names are shown as they are, brackets too


def print_report(report: Report, out: Console, all_layers: bool) -> None:
    """Print what a step costs, layer by layer and stage by stage; last, where a terminal shows it, what holds it back."""
    title = f"{report.network} on {report.arch}: {_what(report)}, batch {report.batch}, {report.optimizer}"
    out.print(title, style="bold")
    rows = list(report.rows) if all_layers else sorted(report.rows, key=lambda row: -row.cycles)[:12]
    out.print(_row_table(report, rows, "every row of the step, in order" if all_layers else "the rows that take most"))
    out.print(_stage_table(report))
    out.print(_headline(report), style="bold")
    out.print(_bound_sentence(report))
    if any(abs(points) >= SHOWN_POINTS for points in report.speedup_losses().values()):
        out.print(_loss_sentence(report))
    out.print(_memory_sentence(report))
    out.print(_search_sentence(report))
    out.print(_objective_sentence(report))
    if report.energy is not None:
        out.print(_energy_table(report))
        out.print(_energy_sentence(report), style="bold")
    for layer in report.free_layers:
        out.print(f"not lowered, counted as free: {layer}", style="yellow")


def _what(report: Report) -> str:
    return "dense" if report.pattern == "dense" else f"{report.method} {report.pattern}"


def _headline(report: Report) -> str:
    text = f"one training step takes {_time(report.seconds)} ({_millions(report.cycles)} Mcycles)"
    if report.baseline is not None and report.speedup_over_dense is not None and report.bound_speedup is not None:
        text += (
            f", {report.speedup_over_dense:.3f}x as fast as dense ({_time(report.baseline.seconds)});\n"
            f"the MACs alone would allow {report.mac_cap:.3f}x ({_percent(report.mac_saving_frac)} saved), "
            f"every product of both at its lower bound {report.bound_speedup:.3f}x"
        )
    return text + f"; the PEs multiply nonzeros {_percent(report.utilization_frac)} of the time"


def _bound_sentence(report: Report) -> str:
    """Say how near the step is to every product at its lower bound, and what keeps it from it most."""
    bound = report.bound_cycles
    cause, cycles = max(report.bound_gap_cycles().items(), key=lambda item: item[1])
    if report.cycles < bound:
        return f"below the products' own lower bounds added up, {_millions(bound)} Mcycles: products ran side by side"
    text = f"within {_small_percent(report.cycles / bound - 1)} of the lower bound of {_millions(bound)} Mcycles"
    return text + (f"; most of the gap: {cause} ({_small_percent(cycles / bound)})" if cycles > 0 else "")


def _stage_table(report: Report) -> Table:
    table = Table(title="stages (Mcycles)", title_justify="left")
    table.add_column("stage")
    baseline = report.baseline
    columns = ["cycles", "of step", "useful", *(f"lost to {loss}" for loss in LOSSES)]
    columns += ["dense", "speedup"] if baseline else []
    for column in columns:
        table.add_column(column, justify="right")
    for stage in STAGES:
        cycles = report.stage_cycles(stage)
        cells = [_millions(cycles), _percent(cycles / report.cycles), _millions(report.useful_cycles(stage))]
        cells += [_millions(report.loss_cycles(stage, loss)) for loss in LOSSES]
        if baseline:
            dense = baseline.stage_cycles(stage)
            cells += [_millions(dense), f"{dense / cycles:.3f}" if cycles else ""]
        table.add_row(stage, *cells)
    return table


def _row_table(report: Report, rows: Sequence[Row], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("layer", "stage", "part"):
        table.add_column(column, overflow="fold")
    for column in ("m", "n", "k", "count"):
        table.add_column(column, justify="right")
    for column in ("pattern", "dataflow", "mapping"):
        table.add_column(column)
    for column in ("Mcycles", "of step", "useful", "bound"):
        table.add_column(column, justify="right")
    for row in rows:
        sizes = [str(size) if size is not None else "" for size in (row.m, row.n, row.k)]
        count = str(row.count) if row.m is not None else ""
        useful = _percent(row.utilization_frac) if row.macs_useful else ""
        table.add_row(
            row.name, row.stage, row.part, *sizes, count, row.pattern, row.dataflow, row.mapping,
            _millions(row.cycles), _percent(row.cycles / report.cycles), useful, row.bound,
        )  # fmt: skip
    return table


def _loss_sentence(report: Report) -> str:
    losses = sorted(report.speedup_losses().items(), key=lambda item: -item[1])
    named = [f"{_cause(stage, loss)} {points:.3f}" for (stage, loss), points in losses if points >= SHOWN_POINTS]
    rest = sum(points for _, points in losses if points < SHOWN_POINTS)
    speedup = report.speedup_over_dense or 0.0
    return (
        f"from the MACs' {report.mac_cap:.3f}x to {speedup:.3f}x ({_percent(speedup / report.mac_cap)}): "
        + ", ".join(named)
        + (f", all else {rest:.3f}" if abs(rest) >= SHOWN_POINTS else "")
    )


def _cause(stage: str, loss: str) -> str:
    if loss == "counting":
        return "taps and ragged groups not counted by frameworks"
    if loss in ("vector", "update"):
        return {"vector": "vector unit", "update": "weight update"}[loss] + (
            "" if stage in ("VECTOR", "OPT") else f" in {stage}"
        )
    return f"{stage} {loss}"


def _memory_sentence(report: Report) -> str:
    parts = ", ".join(f"{name.removesuffix('_bytes')} {_bytes(size)}" for name, size in report.footprint.items())
    device = "" if report.dram == "flat" else f" ({report.dram}, with banks and rows)"
    return f"DRAM{device}: {_bytes(report.total('dram_bytes'))} moved; {_bytes(report.dram_peak_bytes)} held ({parts})"


def _energy_table(report: Report) -> Table:
    """Return the joules by stage and component; the dense step last, for comparison."""
    assert report.energy is not None
    table = Table(title=f"energy (J), figures of {report.energy.table.name}", title_justify="left")
    table.add_column("stage")
    for column in ("energy", "of step", *COMPONENTS):
        table.add_column(column, justify="right")
    lines = {stage: report.stage_energy(stage) for stage in STAGES} | {"step": report.energy.components()}
    if report.baseline is not None and report.baseline.energy is not None and report.pattern != "dense":
        lines["dense step"] = report.baseline.energy.components()
    for name, joules in lines.items():
        total = sum(joules.values())
        cells = [f"{total:.4g}", _percent(total / (report.energy.joules or 1))]
        table.add_row(name, *cells, *(f"{joules[component]:.3g}" for component in COMPONENTS))
    return table


def _energy_sentence(report: Report) -> str:
    assert report.energy is not None
    text = f"one training step takes {report.energy.joules:.4g} J, {report.average_power_watts:.4g} W on average"
    if report.energy_gain_over_dense is not None:
        text += f"; dense takes {report.energy_gain_over_dense:.3f}x the energy"
    text += f"; energy-delay product {report.energy_delay_joule_seconds:.4g} J s"
    if report.useful_gflops_per_watt is not None:
        text += f", {report.useful_gflops_per_watt:.4g} useful GFLOP/s per W"
    figures = report.energy.table.figures.values()
    assumed = sum(figure.assumed for figure in figures)
    return text + f"\n({assumed} of the {len(figures)} figures are assumed: docs/energy.md)"


def _search_sentence(report: Report) -> str:
    text = (
        f"mappings: {report.mappings_covered:,} covered with {report.mappings_evaluated:,} evaluations, "
        "the rest too large or excluded by bounds"
    )
    if report.objective == "edp":  # several searches, of which the counts are the last one's
        return text
    rate = report.mappings_evaluated / max(report.search_seconds, 1e-9)
    return text + f"; {rate / 1e6:.1f} M evaluations a second"


def _objective_sentence(report: Report) -> str:
    value, bound = report.objective_value, report.objective_bound
    named = {"time": "time", "energy": "energy", "edp": "energy-delay product"}[report.objective]
    if report.objective == "time":
        values = _time(value), _time(bound)
    else:
        unit = "J" if report.objective == "energy" else "J s"
        values = f"{value:.4g} {unit}", f"{bound:.4g} {unit}"
    return (
        f"chosen for the least {named}: {values[0]} with each product alone, within "
        f"{_small_percent(report.objective_gap_frac)} of the lower bound of all mappings, {values[1]}"
    )


def print_comparison(comparison: Comparison, out: Console) -> None:
    """Print the speedups of several networks and patterns, why each falls short of its cap, and how sure they are."""
    table = Table(
        title=f"{comparison.method}: speedup of one training step over dense on the same machine", title_justify="left"
    )
    table.add_column("network")
    for column in (
        "batch",
        "pattern",
        "arch",
        "speedup",
        "MAC cap",
        "of cap",
        "at bounds",
        "PEs busy dense",
        "sparse",
    ):
        table.add_column(column, justify="right")
    for report in comparison.reports:
        assert report.baseline is not None
        speedup, bound_speedup = report.speedup_over_dense or 0.0, report.bound_speedup or 0.0
        table.add_row(
            report.network, str(report.batch), report.pattern, report.arch, f"{speedup:.3f}", f"{report.mac_cap:.3f}",
            _percent(speedup / report.mac_cap), f"{bound_speedup:.3f}", _percent(report.baseline.utilization_frac),
            _percent(report.utilization_frac),
        )  # fmt: skip
    out.print(table)
    out.print(_average_table(comparison))
    out.print(_where_lost_table(comparison))
    out.print(_sensitivity_table(comparison))


def _average_table(comparison: Comparison) -> Table:
    table = Table(title="mean over the networks", title_justify="left")
    for column in ("pattern", "speedup", "of cap"):
        table.add_column(column, justify="right")
    for pattern, reports in comparison.by_pattern().items():
        speedups = [report.speedup_over_dense or 0.0 for report in reports]
        shares = [speedup / report.mac_cap for speedup, report in zip(speedups, reports, strict=True)]
        table.add_row(pattern, f"{sum(speedups) / len(speedups):.3f}", _percent(sum(shares) / len(shares)))
    return table


def _where_lost_table(comparison: Comparison) -> Table:
    """One line per run: points of speedup lost by stage and cause; columns that are 0 everywhere are left out."""
    losses = [report.speedup_losses() for report in comparison.reports]
    causes = [key for key in losses[0] if any(abs(found[key]) >= SHOWN_POINTS for found in losses)]
    table = Table(title="points of speedup lost between the MAC cap and the speedup", title_justify="left")
    table.add_column("network")
    table.add_column("pattern", justify="right")
    for stage, loss in causes:
        table.add_column(f"{stage} {loss}".strip(), justify="right")
    for report, found in zip(comparison.reports, losses, strict=True):
        table.add_row(report.network, report.pattern, *(f"{found[key]:.3f}" for key in causes))
    return table


def _sensitivity_table(comparison: Comparison) -> Table:
    table = Table(title="mean speedup if the machine were different", title_justify="left")
    table.add_column("pattern", justify="right")
    for change in comparison.sensitivity:
        table.add_column(change, justify="right")
    for pattern in comparison.by_pattern():
        cells = [f"{means[pattern]:.3f}" for means in comparison.sensitivity.values()]
        table.add_row(pattern, *cells)
    return table


def print_listing(columns: Sequence[str], rows: Iterable[Sequence[str]], out: Console) -> None:
    """Print a plain table, numbers to the right."""
    table, rows = Table(), list(rows)
    for index, column in enumerate(columns):
        numeric = all(row[index][:1].isdigit() for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*row)
    out.print(table)


def _time(seconds: float) -> str:
    for unit, size in (("s", 1.0), ("ms", 1e-3), ("us", 1e-6)):
        if seconds >= size:
            return f"{seconds / size:.4g} {unit}"
    return f"{seconds / 1e-9:.4g} ns"


def _bytes(size: int) -> str:
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if size >= scale:
            return f"{size / scale:.2f} {unit}"
    return f"{size} B"


def _millions(cycles: int) -> str:
    if cycles == 0:
        return "0"
    return f"{cycles / 1e6:.3f}" if cycles < 1e8 else f"{cycles / 1e6:.1f}"


def _percent(fraction: float) -> str:
    return f"{100 * fraction:.1f}%"


def _small_percent(fraction: float) -> str:
    return f"{100 * fraction:.2g}%"
