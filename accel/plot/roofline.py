"""The roofline of a step on one machine."""

from __future__ import annotations

from math import atan2, degrees
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from accel.arch import Arch
from accel.errors import ConfigError
from accel.plot.style import COLORS, Picture, in_style
from accel.report import Report, Row
from accel.units import ceil_div

_MARKS = {"FF": ("o", "blue"), "BP": ("s", "orange"), "WU": ("^", "green"), "VECTOR": ("D", "sky")}
"""Mark and colour of each stage, those of the page of `accel report`."""


@in_style
def plot_roofline(arch: Arch, *reports: Report) -> Picture:
    """Draw every product of steps on `arch`, one panel for each of `reports`: useful MACs per DRAM byte against useful MACs per
    cycle, under the roofs of the machine.

    A mark's area grows with the cycles of its product. Raises `ConfigError` for a step without a product, or for none.
    """
    if not reports:
        raise ConfigError("reports must be one or more, not none")
    columns = min(2, len(reports))
    lines = ceil_div(len(reports), columns)
    picture = Picture(figsize=(5.2 * columns, 3.6 * lines))
    for panel, report in enumerate(reports):
        rows = [row for row in report.rows if row.macs_per_dram_byte is not None and row.macs_per_cycle is not None]
        if not rows:
            raise ConfigError(f"report must have a product to draw; {report.network} has none")
        axes = picture.add_subplot(lines, columns, panel + 1)
        what = "dense" if report.pattern == "dense" else f"{report.method} {report.pattern}"
        axes.set_title(f"{report.network}, {what}, on {report.arch}", loc="left")
        _draw_roofs(axes, arch, rows)
        _draw_products(axes, rows)
    return picture


def _draw_products(axes: Axes, rows: list[Row]) -> None:
    most = max(row.busy_cycles for row in rows)
    for stage, (mark, color) in _MARKS.items():
        some = [row for row in rows if row.group == stage]
        if some:
            sizes = [8 + 90 * row.busy_cycles / most for row in some]
            x, y = ([getattr(row, name) for row in some] for name in ("macs_per_dram_byte", "macs_per_cycle"))
            look: dict[str, Any] = {"color": COLORS[color], "alpha": 0.6, "edgecolors": COLORS["dark"], "linewidths": 0.5}
            axes.scatter(x, y, s=sizes, marker=mark, label="on the vector unit" if stage == "VECTOR" else stage, **look)
    axes.set_xlabel("useful MACs per DRAM byte")
    axes.set_ylabel("useful MACs per cycle")
    handles: Any = axes.legend(loc="lower right").legend_handles
    for handle in handles:
        handle.set_sizes([30])


def _draw_roofs(axes: Axes, arch: Arch, rows: list[Row]) -> None:
    """Draw what PEs, DRAM and vector unit allow, over a range that holds all rows."""
    xs, ys = ([getattr(row, name) for row in rows] for name in ("macs_per_dram_byte", "macs_per_cycle"))
    ridge = arch.pes / arch.dram_bytes_per_cycle
    left, right = min([*xs, ridge / 4]) / 1.5, max([*xs, ridge]) * 2
    intensity = np.geomspace(left, right, 200)
    for roof, style in ((arch.pes, "-"), (arch.vector_lanes, "--")):
        if roof == arch.pes or any(row.group == "VECTOR" for row in rows):
            axes.plot(
                intensity, np.minimum(roof, intensity * arch.dram_bytes_per_cycle), style, color=COLORS["dark"], linewidth=1
            )
    low = min([*ys, arch.pes / 3]) / 1.5
    axes.set(xscale="log", yscale="log", xlim=(left, right), ylim=(low, arch.pes * 2.5))
    words: dict[str, Any] = {"textcoords": "offset points", "fontsize": 7.5}
    axes.annotate(f"PEs: {arch.pes:,} MACs per cycle", (right, arch.pes), (-2, 11), ha="right", **words)
    start = max(left, low / arch.dram_bytes_per_cycle) * 1.1
    height = start * arch.dram_bytes_per_cycle
    axes.text(start, height * 1.15, f"DRAM: {arch.dram_bytes_per_cycle:.4g} bytes per cycle", fontsize=7.5, va="bottom",
              rotation=degrees(atan2(height, start)), rotation_mode="anchor", transform_rotates_text=True)  # fmt: skip
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
