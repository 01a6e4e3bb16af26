"""The training steps that every machine of a sweep is judged by, and the commands that simulate them one by one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from accel.presets import DEFAULT_BATCH


def steps(space: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each network with each method of a space file, as arguments of `accel.simulate` that it shares with the sweep."""
    work = space["work"]
    rest = {"batch": work.get("batch", DEFAULT_BATCH), "optimizer": work.get("optimizer", "sgd")}
    for network in work["networks"]:
        for method in work.get("methods", [{"method": "bdwp"}]):
            pattern = {} if method["method"] == "dense" else {"pattern": method.get("pattern", "2:8")}
            yield {"network": network, "model": "closed-form", "method": method["method"], **pattern, **rest}


def commands(file: str, space: dict[str, Any]) -> Iterator[str]:
    """Yield the command that simulates each of `steps` on the machine of `file`."""
    energy = space.get("objectives", {}).get("energy")
    for step in steps(space):
        words = ["accel", "simulate", step.pop("network"), "--arch", file]
        for name, value in (step | ({"energy": energy} if energy else {})).items():
            words += [f"--{name}", str(value)]
        yield shlex.join(words)
