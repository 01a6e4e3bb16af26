"""The one style of all pictures: sizes, colours told apart with colour blindness, files with text that stays text."""

from __future__ import annotations

import io
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

import matplotlib as mpl
from cycler import cycler
from matplotlib.figure import Figure

from accel.errors import ConfigError

COLORS = {
    "blue": "#0072b2", "orange": "#e69f00", "green": "#009e73", "pink": "#cc79a7", "sky": "#56b4e9", "red": "#d55e00",
    "gray": "#8c959f", "pale": "#d0d7de", "dark": "#1b1f23",
}  # fmt: skip
"""Those of Okabe and Ito, and grays."""

STYLE: dict[str, Any] = {
    "font.size": 9.0,
    "axes.titlesize": 9.5,
    "axes.labelsize": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": "#57606a",
    "axes.labelcolor": COLORS["dark"],
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.prop_cycle": cycler(color=[COLORS[name] for name in ("blue", "orange", "green", "pink", "sky", "red", "gray")]),
    "grid.color": COLORS["pale"],
    "grid.linewidth": 0.6,
    "xtick.color": "#57606a",
    "ytick.color": "#57606a",
    "xtick.labelcolor": COLORS["dark"],
    "ytick.labelcolor": COLORS["dark"],
    "xtick.labelsize": 8.0,
    "ytick.labelsize": 8.0,
    "legend.fontsize": 8.0,
    "legend.frameon": False,
    "lines.linewidth": 1.3,
    "lines.markersize": 5.0,
    "image.cmap": "viridis",
    "figure.constrained_layout.use": True,
    "savefig.dpi": 200,
    "pdf.fonttype": 42,
    "svg.fonttype": "none",
    "svg.hashsalt": "accel",
}
"""Settings of matplotlib that hold while a picture is drawn and written."""

SUFFIXES = (".pdf", ".svg", ".png")

_Arguments = ParamSpec("_Arguments")
_Result = TypeVar("_Result")


def in_style(draw: Callable[_Arguments, _Result]) -> Callable[_Arguments, _Result]:
    """Return `draw` so that `STYLE` holds while it runs, and nothing else of the user's settings changes."""

    @wraps(draw)
    def styled(*arguments: _Arguments.args, **options: _Arguments.kwargs) -> _Result:
        with mpl.rc_context(STYLE):
            return draw(*arguments, **options)

    return styled


class Picture(Figure):
    """A figure that a notebook shows as it is, whatever its settings."""

    def _repr_png_(self) -> bytes:
        sink = io.BytesIO()
        _write(self, sink, "png", dpi=120)
        return sink.getvalue()


def check_suffix(path: str | Path) -> None:
    """Refuse a file whose name does not say what it is to hold."""
    if Path(path).suffix.lower() not in SUFFIXES:
        raise ConfigError(f"plot must be a file that ends in {', '.join(SUFFIXES)}, not {str(path)!r}")


def save(figure: Figure, path: str | Path) -> None:
    """Write a figure to a file, as its name says: .pdf and .svg to be scaled, .png with pixels. Equal ones give equal bytes."""
    check_suffix(path)
    sink = io.BytesIO()
    _write(figure, sink, Path(path).suffix.lower()[1:])
    try:
        Path(path).write_bytes(sink.getvalue())
    except OSError as error:
        raise ConfigError(f"plot must be a file that can be written, not {path}: {error.strerror}") from None


@in_style
def _write(figure: Figure, sink: io.BytesIO, kind: str, **options: Any) -> None:
    undated = {"pdf": {"CreationDate": None}, "svg": {"Date": None}, "png": None}
    figure.savefig(sink, format=kind, metadata=undated[kind], **options)
