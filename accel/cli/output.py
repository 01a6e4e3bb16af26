"""The files that commands write, and what a terminal shows while they work."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from accel.errors import ConfigError


def check_writable(file: str | Path | None) -> None:
    """Refuse an output that cannot be written before any work is done for it."""
    if file is None or file == "-":
        return
    path = Path(file)
    if path.is_dir():
        raise ConfigError(f"output must be a file, not the directory {path}")
    if not path.parent.is_dir():
        raise ConfigError(f"output must lie in an existing directory, not {path}; create {path.parent} first")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ConfigError(f"output must be writable, not {path}; choose another place")


def check_outputs(json: str | None, csv: str | None) -> None:
    """Refuse one place for both forms of a result, and a place that cannot be written; "-" is standard output."""
    if json and json == csv:
        raise ConfigError(f"json and csv must go to different places, not both to {json}")
    for file in (json, csv):
        check_writable(file)


def check_timeline(file: str | None, *others: str | None) -> None:
    """Refuse a place for a timeline that cannot be written, or that is also one of the `others`."""
    if file == "-":
        raise ConfigError("timeline must be a file, not '-'; give it a name")
    if file and file in others:
        raise ConfigError(f"timeline must go to a place of its own, not to {file}")
    check_writable(file)


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
