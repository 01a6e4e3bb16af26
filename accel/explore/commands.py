"""The training steps that every machine of a sweep is judged by, and the commands that simulate them one by one."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from typing import Any

from accel.explore.space import MethodPart, Work


def steps(space: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield each network with each method of a space file, as arguments of `accel.simulate` that it shares with the sweep."""
    work = space["work"]
    given = {name: work.get(name, Work.model_fields[name].default) for name in ("methods", "batch", "optimizer")}
    methods = [MethodPart.model_validate(method) for method in given.pop("methods")]
    for network in work["networks"]:
        for method in methods:
            pattern = {} if method.method == "dense" else {"pattern": method.pattern}
            yield {"network": network, "model": "closed-form", "method": method.method, **pattern, **given}


def commands(file: str, space: dict[str, Any]) -> Iterator[str]:
    """Yield the command that simulates each of `steps` on the machine of `file`."""
    energy = space.get("objectives", {}).get("energy")
    for step in steps(space):
        words = ["accel", "simulate", step.pop("network"), "--arch", file]
        for name, value in (step | ({"energy": energy} if energy else {})).items():
            words += [f"--{name}", str(value)]
        yield shlex.join(words)
