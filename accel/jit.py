"""`kernel`: the decorator of every Numba function of the package.

Numba's on-disk cache checks only the file that a function stands in, so a compiled caller would outlive an edit of a function
it calls in another file. The cache of our kernels therefore lies in a folder named by a hash of all files that hold kernels.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from numba.core.types import unliteral

_SETTINGS: Any = numba.config  # its fields are made at run time
_PACKAGE = Path(__file__).parent
_KERNEL_FOLDERS = ("timing", "dataflow", "kernels", "sim/twin_kernels", "sim/machine_kernels", "explore/engine_kernels")
_CONSTANTS = ("program.py",)
"""Files whose numbers kernels have compiled in: opcodes, flags, columns of an instruction."""

_Function = TypeVar("_Function", bound=Callable[..., object])


def kernel(function: _Function) -> _Function:
    """Return `function` compiled on its first call, without fastmath, cached on disk; plain Python if Numba is switched off.

    One whose name starts with an underscore is called by kernels alone: what reads arguments from Python's objects takes longer
    to compile than most kernels do.
    """
    if _SETTINGS.DISABLE_JIT:
        return function
    is_inner = function.__name__.startswith("_")
    options: dict[str, Any] = {"cache": True, "nogil": True, "no_cfunc_wrapper": True, "no_cpython_wrapper": is_inner}
    users_folder = _SETTINGS.CACHE_DIR
    _SETTINGS.CACHE_DIR = str(_cache_folder(users_folder))
    try:  # the decorator reads the folder once, here; a user's own functions keep theirs
        return cast(_Function, _without_literals(numba.njit(**options)(function)))
    finally:
        _SETTINGS.CACHE_DIR = users_folder


def _without_literals(dispatcher: Any) -> Any:
    """Return `dispatcher` compiled once for whatever constants kernels call it with: Numba would do so for each constant."""
    call_template = dispatcher.get_call_template

    def get_call_template(args: tuple[Any, ...], kws: dict[str, Any]) -> Any:
        return call_template(tuple(map(unliteral, args)), {name: unliteral(kind) for name, kind in kws.items()})

    dispatcher.get_call_template = get_call_template
    return dispatcher


@cache
def _cache_folder(users_folder: str) -> Path:
    base = Path(users_folder) if users_folder else _user_cache_folder() / "nm-accel"
    folder = base / _source_hash()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError:
        return Path(_temporary_folder().name)
    return folder


def _user_cache_folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


@cache
def _temporary_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="nm-accel-")  # of this process: deleted when it ends


@cache
def _source_hash() -> str:
    digest = hashlib.sha256()
    kernels = [path for folder in _KERNEL_FOLDERS for path in sorted((_PACKAGE / folder).glob("*.py"))]
    for path in [*kernels, *(_PACKAGE / name for name in _CONSTANTS)]:
        digest.update(f"{path.relative_to(_PACKAGE)}\0".encode() + path.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


def is_cache_empty() -> bool:
    """Return whether the kernels of this version have yet to be compiled on this machine."""
    return not any(_cache_folder(_SETTINGS.CACHE_DIR).rglob("*.nbi"))
