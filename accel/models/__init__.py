"""PyTorch: where networks come from, and sparse training.

`accel.models.export(module, inputs)` is the trace of any module, `accel.models.sparsify(module)` trains it with N:M sparsity.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accel.models.exporter import export
    from accel.models.machine import off_machine, on_machine
    from accel.models.sparse import ChurnTracker, desparsify, export_nm, load_method_state, mask_churn, method_state, sparsify
    from accel.models.wuve import WuveSGD

__all__ = [
    "ChurnTracker",
    "WuveSGD",
    "desparsify",
    "export",
    "export_nm",
    "load_method_state",
    "mask_churn",
    "method_state",
    "off_machine",
    "on_machine",
    "sparsify",
]

_HOMES = {
    **dict.fromkeys(__all__, "accel.models.sparse"),
    **dict.fromkeys(["off_machine", "on_machine"], "accel.models.machine"),
    "WuveSGD": "accel.models.wuve",
    "export": "accel.models.exporter",
}


def __getattr__(name: str) -> Any:
    """Load what is asked for, when it is asked for: `import accel.models` alone brings in no PyTorch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'accel.models' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
