"""The files that commands write, and what a terminal shows while they work."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, TypeAlias

from accel.errors import ConfigError

Place: TypeAlias = "str | Path | None"
"""A file; "-" is standard output, None nothing."""


def check_writable(file: Place, *inputs: Place) -> None:
    """Refuse an output that cannot be written, or that is one of the files `inputs`, before any work is done for it."""
    if file is None or file == "-":
        return
    path = Path(file)
    for name in inputs:
        if _is_same(file, name) and path.is_file():  # what is read from a terminal may be written to it
            raise ConfigError(f"output must be another file than the input {name}, not {file}; choose another place")
    if path.is_dir():
        raise ConfigError(f"output must be a file, not the directory {path}")
    if not path.parent.is_dir():
        raise ConfigError(f"output must lie in an existing directory, not {path}; create {path.parent} first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"output must be writable, not {path}; choose another place")


def sweep_files(folder: str) -> list[Path]:
    """Return the files of a sweep's folder that no output may take the place of."""
    return [Path(folder) / name for name in ("space.toml", "base.toml", "sweep.json")]


def joined(value: Any) -> Any:
    """Return the values of an array in one text, as a cell of a table has them, anything else as it is."""
    return ",".join(map(str, value)) if getattr(value, "ndim", False) else value


def check_outputs(json: str | None, csv: str | None, inputs: Sequence[Place] = ()) -> None:
    """Refuse one place for both forms of a result, and a place as `check_writable` does."""
    if _is_same(json, csv):
        raise ConfigError(f"json and csv must go to different places, not both to {json}")
    for file in (json, csv):
        check_writable(file, *inputs)


def check_timeline(file: str | None, *others: str | None, inputs: Sequence[Place] = ()) -> None:
    """Refuse a place for a timeline that is also one of the `others`, and a place as `check_writable` does."""
    if file == "-":
        raise ConfigError("timeline must be a file, not '-'; give it a name")
    if any(_is_same(file, other) for other in others):
        raise ConfigError(f"timeline must go to a place of its own, not to {file}")
    check_writable(file, *inputs)


def _is_same(one: Place, other: Place) -> bool:
    """Return whether both are the same place, by whatever names, whether there is a file yet or not."""
    if not one or not other or "-" in (one, other):
        return bool(one) and one == other
    try:
        return Path(one).samefile(other)
    except OSError:
        return os.path.realpath(one) == os.path.realpath(other)


def write(file: str, text: str) -> None:
    """Write a file, or refuse it in one line."""
    from accel.validation import write_text

    write_text(Path(file), text, ConfigError)


def write_outputs(outputs: Mapping[str | None, Callable[[], str]]) -> None:
    """Write each form of a result to its file, "-" to standard output; None is a form that nobody asked for."""
    for file, content in outputs.items():
        if file == "-":
            sys.stdout.write(content())
        elif file:
            write(file, content())


def waiting() -> AbstractContextManager[object]:
    """Show on a terminal that something is going on, and say so when Numba compiles for the first time."""
    if not sys.stderr.isatty():
        return nullcontext()
    from accel.jit import is_cache_empty
    from accel.text import console

    what = "compiling the closed forms, once for this version (about 10 s)" if is_cache_empty() else "scheduling and simulating"
    return console(stderr=True).status(what)


@contextmanager
def after_a_second() -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is going on if it takes more than a second; what is handed out changes the text."""
    if not sys.stderr.isatty():
        yield lambda stage: None
        return
    from threading import Timer

    from accel.text import console

    status = console(stderr=True).status("simulating")
    timer = Timer(1.0, status.start)
    timer.start()
    try:
        yield status.update
    finally:
        timer.cancel()
        timer.join()
        status.stop()


@contextmanager
def stages(first: str) -> Iterator[Callable[[str], None]]:
    """Show on a terminal what is going on; what is handed out changes the text."""
    if not sys.stderr.isatty():
        yield lambda stage: None
        return
    from accel.text import console

    out = console(stderr=True)
    out.file = sys.stderr  # this very file: tracing keeps what others write to sys.stderr off the terminal
    with out.status(first) as status:
        yield status.update
