"""One self-contained page that explains a training step: `Report` objects in, HTML text out.

The page carries its numbers as one JSON block, and a script that draws them and asks nothing of the network. Every number
is a report's own; the few that are derived for the page come from
`derived`, `layer_cycles`, `all_stages` and `stage_speedups`. Equal reports give equal bytes.
docs/report.md describes the page.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import asdict, fields
from typing import Any, NamedTuple

from accel.arch import Arch
from accel.errors import ConfigError
from accel.html import frame
from accel.methods import method
from accel.report import LOSSES, STAGES, Report, Row
from accel.sparsity import NMPattern

DEFAULT_RUNS = "dense,bdwp:2:4,bdwp:2:8"
"""What a page sets beside its run when nothing else is asked for."""


class MethodRun(NamedTuple):
    """A method with the pattern that it prunes to; written "METHOD:KEEP:GROUP", or "dense"."""

    method: str
    pattern: str

    def __str__(self) -> str:
        """Return the text that `parse` reads."""
        return self.method if self.pattern == "dense" else f"{self.method}:{self.pattern}"

    @classmethod
    def parse(cls, text: str) -> MethodRun:
        """Return the run of "METHOD:KEEP:GROUP"; "dense" stands alone."""
        name, _, pattern = text.partition(":")
        if bool(pattern) == (name == "dense"):
            raise ConfigError(f"compare must list METHOD:KEEP:GROUP, for example bdwp:2:8, or dense, not {text!r}")
        return cls.of(name, pattern or "dense")

    @classmethod
    def of(cls, name: str, pattern: str) -> MethodRun:
        """Return the run of a method and a pattern; all that prune nothing are one."""
        parsed = NMPattern.parse("dense" if method(name).name == "dense" else pattern)
        return cls("dense", "dense") if parsed.is_dense else cls(name, str(parsed))


def chosen_runs(name: str, pattern: str, compared: str | None, arch: Arch) -> tuple[MethodRun, list[MethodRun]]:
    """Return the run that a page explains and all that it compares, that one among them, each once.

    `compared` is a list with commas; None takes of `DEFAULT_RUNS` what `arch` can run.
    """
    explained = MethodRun.of(name, pattern)
    texts = (DEFAULT_RUNS if compared is None else compared).split(",")
    runs = [MethodRun.parse(text.strip()) for text in texts if text.strip()]
    if compared is None:
        runs = [run for run in runs if _can_run(arch, run)]
    return explained, list(dict.fromkeys(runs if explained in runs else [*runs, explained]))


def _can_run(arch: Arch, run: MethodRun) -> bool:
    try:
        arch.run_pattern(NMPattern.parse(run.pattern))
    except ConfigError:
        return False
    return True


def build_page(
    report: Report, arch: Arch, compared: Sequence[Report], command: str, lanes: dict[str, Any] | None = None
) -> str:
    """Return the page that explains `report`, a step on `arch`, and sets `compared` beside it.

    `report` has its dense baseline; `command` is the command line that writes the page again. `lanes` are those that
    `accel.timeline.lanes` makes of the run of the step's program; without them the page has no timeline.
    """
    return frame.build(
        "step.html",
        ["charts.js", "step.js"],
        page_data(report, arch, compared) | {"timeline": lanes},
        f"{report.network} on {report.arch}: {run_label(report)}",
        command=command,
        machine_file=arch.to_toml(),
    )


def page_data(report: Report, arch: Arch, compared: Sequence[Report]) -> dict[str, Any]:
    """Return what the page's data block holds: docs/report.md describes it."""
    if report.baseline is None:
        raise ConfigError("report must have its dense baseline to be explained; simulate with baseline=True")
    dense = report.baseline
    return {
        "run": _run(report) | {"rows": _table(report)},
        "dense": None if report.pattern == "dense" else _run(dense) | {"rows": _table(dense)},
        "layers": layer_cycles(report, dense),
        "speedup_losses": [[stage, loss, points] for (stage, loss), points in report.speedup_losses().items()],
        "compared": [_run(other) for other in compared],
        "machine": arch.model_dump(mode="json"),
        "roofs": {
            "pes": arch.pes,
            "vector_lanes": arch.vector_lanes,
            "dram_bytes_per_cycle": arch.dram_bytes_per_cycle,
        },
    }


def derived(row: Row, report: Report) -> dict[str, float | str | None]:
    """Return what the page says of a row beyond its own counters; None where it does not apply.

    `share_frac` is its part of the step's cycles, `tile` the tile its mapping names, `macs_per_dram_byte` its operational
    intensity and `macs_per_cycle` what it achieves, both in useful multiply-accumulates.
    """
    tile = re.search(r"tile (\S+),", row.mapping)
    return {
        "share_frac": row.cycles / report.cycles if report.cycles else 0.0,
        "tile": tile[1] if tile else None,
        "macs_per_dram_byte": row.macs_per_dram_byte,
        "macs_per_cycle": row.macs_per_cycle,
    }


def layer_cycles(report: Report, dense: Report) -> dict[str, Any]:
    """Return the layers in the order in which the step first meets them, with their cycles by stage, here and when dense."""
    names = list(dict.fromkeys(row.name for run in (report, dense) for row in run.rows))
    return {"names": names, "cycles": _cycles_of(names, report), "dense_cycles": _cycles_of(names, dense)}


def _cycles_of(names: Sequence[str], report: Report) -> list[list[int]]:
    """Return one list per name: its cycles in each of `STAGES`."""
    found = {name: dict.fromkeys(STAGES, 0) for name in names}
    for row in report.rows:
        found[row.name][row.group] += row.cycles
    return [list(stages.values()) for stages in found.values()]


def run_label(report: Report) -> str:
    """Return method and pattern as the page names a run: "dense" or "bdwp 2:8"."""
    return "dense" if report.pattern == "dense" else f"{report.method} {report.pattern}"


def _run(report: Report) -> dict[str, Any]:
    """Return the JSON form of a report without its rows."""
    kept = {key: value for key, value in report.to_dict().items() if key != "layers"}
    return {"label": run_label(report)} | kept | {"all_stages": all_stages(report), "stage_speedups": stage_speedups(report)}


def all_stages(report: Report) -> dict[str, Any]:
    """Return the cycles of the whole step by cause, in the form that a report has for one stage."""
    return {
        "cycles": report.cycles,
        "useful_cycles": sum(report.useful_cycles(stage) for stage in STAGES),
        "losses": {loss: sum(report.loss_cycles(stage, loss) for stage in STAGES) for loss in LOSSES},
    }


def stage_speedups(report: Report) -> dict[str, float | None]:
    """Return each stage's time when dense over its time here, and the whole step's; None where it takes none here."""
    dense = report.baseline
    stages = {stage: report.stage_cycles(stage) for stage in STAGES}
    ratios = {stage: dense.stage_cycles(stage) / here if dense and here else None for stage, here in stages.items()}
    return ratios | {"total": report.speedup_over_dense}


def _table(report: Report) -> dict[str, Any]:
    """Return the rows column by name and line by line, which takes a third of the room of one object per row."""
    records = [asdict(row) | {"group": row.group} | derived(row, report) for row in report.rows]
    columns = [*(field.name for field in fields(Row)), "group", "share_frac", "tile", "macs_per_dram_byte", "macs_per_cycle"]
    return {"columns": columns, "lines": [[record[column] for column in columns] for record in records]}
