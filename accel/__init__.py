"""Training accelerators with N:M sparsity: simulate, schedule, explain.

`accel.simulate("resnet18", method="bdwp", pattern="2:8")` is the main job; docs/ describes the machine and the formats.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accel.api import simulate
    from accel.arch import Arch
    from accel.report import Report
    from accel.sparsity import NMPattern
    from accel.trace import Trace

__all__ = ["Arch", "NMPattern", "Report", "Trace", "simulate"]

_HOMES = {
    "Arch": "accel.arch",
    "NMPattern": "accel.sparsity",
    "Report": "accel.report",
    "Trace": "accel.trace",
    "simulate": "accel.api",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for, when it is asked for: `import accel` alone brings in nothing heavy."""
    if name not in _HOMES:
        raise AttributeError(f"module 'accel' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
