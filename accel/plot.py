"""Every plot of the package: the only place that knows matplotlib."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from accel.errors import ConfigError
from accel.models.results import Curve
from accel.units import ceil_div

try:
    from matplotlib.figure import Figure
except ImportError:
    raise ConfigError(
        "plots need matplotlib, which is not installed; install it with: pip install 'nm-accel[experiment]'"
    ) from None


def plot_accuracy_per_epoch(panels: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Draw test accuracy over epochs, one panel for each title (at least one), into an image file."""
    _plot_accuracy(panels, "epoch", path)


def plot_accuracy_per_second(panels: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Draw test accuracy over seconds on the simulated machine, one panel for each title, into an image file."""
    _plot_accuracy(panels, "seconds on the simulated machine", path)


def _plot_accuracy(panels: Mapping[str, Sequence[Curve]], x_label: str, path: Path) -> None:
    figure = _figure(len(panels))
    for axes, (title, lines) in zip(figure.axes, panels.items(), strict=True):
        for line in lines:
            accuracy, error = ([100 * value for value in values] for values in (line.accuracy, line.error))
            axes.errorbar(line.positions, accuracy, error, label=line.label, capsize=2, linewidth=1.2)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.set_ylabel("test accuracy, %")
        axes.grid(alpha=0.3)
        axes.legend()
    figure.savefig(path, dpi=120)


def _figure(panels: int) -> Figure:
    """Return a figure with so many axes, two in a row."""
    columns = min(2, panels)
    rows = ceil_div(panels, columns)
    figure = Figure(figsize=(6 * columns, 4 * rows), layout="constrained")
    for index in range(panels):
        figure.add_subplot(rows, columns, index + 1)
    return figure
