"""The networks that come with the package, as trace files."""

from __future__ import annotations

from importlib.resources import files

from accel.errors import TraceError
from accel.trace import Trace
from accel.validation import parse_json


def names() -> list[str]:
    """Return the names of the shipped networks."""
    return sorted(entry.name.removesuffix(".json") for entry in files(__name__).iterdir() if entry.name.endswith(".json"))


def load(name: str) -> Trace:
    """Return a shipped network's trace."""
    if name not in names():
        raise TraceError(f"network must be one of {', '.join(names())}, or a JSON file, not {name!r}")
    text = files(__name__).joinpath(f"{name}.json").read_text(encoding="utf-8")
    return Trace.from_fields(parse_json(text, name, TraceError), name)
