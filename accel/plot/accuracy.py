"""Accuracy over epochs and over simulated time, of the experiment."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from accel.models.results import Curve
from accel.plot.style import Picture, in_style, save
from accel.units import ceil_div


def plot_accuracy_per_epoch(panels: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Draw test accuracy over epochs, one panel for each title (at least one), into an image file."""
    _plot_accuracy(panels, "epoch", path)


def plot_accuracy_per_second(panels: Mapping[str, Sequence[Curve]], path: Path) -> None:
    """Draw test accuracy over seconds on the simulated machine, one panel for each title, into an image file."""
    _plot_accuracy(panels, "seconds on the simulated machine", path)


@in_style
def _plot_accuracy(panels: Mapping[str, Sequence[Curve]], x_label: str, path: Path) -> None:
    figure = _figure(len(panels))
    for axes, (title, lines) in zip(figure.axes, panels.items(), strict=True):
        for line in lines:
            accuracy, error = ([100 * value for value in values] for values in (line.accuracy, line.error))
            axes.errorbar(line.positions, accuracy, error, label=line.label, capsize=2)
        axes.set_title(title)
        axes.set_xlabel(x_label)
        axes.set_ylabel("test accuracy, %")
        axes.legend()
    save(figure, path)


def _figure(panels: int) -> Picture:
    """Return a picture with so many axes, two in a row."""
    columns = min(2, panels)
    rows = ceil_div(panels, columns)
    figure = Picture(figsize=(5 * columns, 3.4 * rows))
    for index in range(panels):
        figure.add_subplot(rows, columns, index + 1)
    return figure
