"""What `accel trace` does: loads the module that the user names, makes example inputs, and exports the trace."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from accel.errors import ConfigError, TraceError
from accel.trace import Trace

try:
    import torch
except ImportError:
    raise ConfigError(
        "tracing a module needs PyTorch, which is not installed; install it with: pip install 'nm-accel[torch]'"
    ) from None

from accel.models.capture import describe
from accel.models.exporter import export

DTYPES = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "int64": torch.int64,
    "int32": torch.int32,
    "bool": torch.bool,
}


def trace_target(
    target: str,
    inputs: Sequence[str],
    *,
    name: str | None,
    loss: str | None,
    allow_ops: Sequence[str],
    show: Callable[[str], None] = lambda stage: None,
) -> Trace:
    """Return the trace of what the callable at `target` makes; `inputs` are written like 64x3x32x32 or ids=1x128:int64.

    `show` is told what is going on.
    """
    shapes = [_parse_input(text) for text in inputs]
    show("making the module")
    made = _call(target, _load(target))
    module, example_inputs = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, torch.nn.Module):
        raise ConfigError(f"{target} must return a torch.nn.Module, or one and its example inputs, not {type(module).__name__}")
    if shapes:
        device = next((parameter.device for parameter in module.parameters()), torch.device("cpu"))
        example_inputs = _example_inputs(shapes, device)
    if example_inputs is None:
        raise ConfigError(f"{target} returns no example inputs; give --input SIZES, such as --input 64x3x32x32")
    show("tracing the module")
    return export(module, example_inputs, name=name, loss=loss, allow_ops=allow_ops)  # type: ignore[arg-type]


def _parse_input(text: str) -> tuple[str, tuple[int, ...], torch.dtype]:
    """Return name ("" if positional), sizes and type of one --input."""
    name, equals, rest = text.rpartition("=")
    sizes, colon, dtype = rest.partition(":")
    parts = sizes.split("x")
    if not all(part.isdecimal() and int(part) > 0 for part in parts) or (equals and not name.isidentifier()):
        raise ConfigError(f"--input must be sizes such as 64x3x32x32, 1x128:int64 or ids=1x128:int64, not {text!r}")
    if colon and dtype not in DTYPES:
        raise ConfigError(f"--input must have a type among {', '.join(DTYPES)}, not {dtype!r}")
    return name, tuple(int(part) for part in parts), DTYPES[dtype or "float32"]


def _example_inputs(shapes: Sequence[tuple[str, tuple[int, ...], torch.dtype]], device: torch.device) -> Any:
    try:
        tensors = [(name, torch.zeros(sizes, dtype=dtype, device=device)) for name, sizes, dtype in shapes]
    except (RuntimeError, TypeError):  # of PyTorch, for too little memory and for a number that is too large
        listed = ", ".join("x".join(map(str, sizes)) for _, sizes, _ in shapes)
        raise ConfigError(f"--input must fit into memory, not be {listed}; a few samples will do") from None
    named = [name for name, _ in tensors if name]
    if not named:
        return tuple(tensor for _, tensor in tensors)
    if len(set(named)) < len(tensors):
        raise ConfigError("--input must have a name of its own each, or none must have one; write NAME=SIZES for all")
    return dict(tensors)


def _load(target: str) -> Any:
    """Return the object that `target` names."""
    place, colon, attribute = target.rpartition(":")
    if not (colon and place and attribute):
        raise ConfigError(f"target must be file.py:callable or package.module:callable, not {target!r}")
    source = _load_file(Path(place)) if place.endswith(".py") else _load_module(place)
    if not hasattr(source, attribute):
        raise ConfigError(f"{place} must define {attribute}, which it does not; name a callable of its")
    return getattr(source, attribute)


def _load_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise ConfigError(f"target must be an existing file, not {path}")
    spec = importlib.util.spec_from_file_location(path.stem, path.resolve())
    if spec is None or spec.loader is None:
        raise ConfigError(f"{path} cannot be loaded as a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.resolve().parent))  # as if the file were run: it may import its neighbours
    sys.modules.setdefault(path.stem, module)
    _run(str(path), lambda: spec.loader.exec_module(module))  # type: ignore[union-attr]
    return module


def _load_module(name: str) -> ModuleType:
    sys.path.insert(0, "")
    module: ModuleType = _run(name, lambda: importlib.import_module(name))
    return module


def _call(target: str, made: Any) -> Any:
    if isinstance(made, torch.nn.Module):
        return made
    if not callable(made):
        raise ConfigError(f"{target} must be a callable that returns a torch.nn.Module, not {type(made).__name__}")
    return _run(target, made)


def _run(what: str, action: Callable[[], Any]) -> Any:
    """Run the user's code; what goes wrong in it becomes one line."""
    try:
        return action()
    except (Exception, SystemExit) as error:
        raise TraceError(f"{what} fails: {describe(error)}") from None
