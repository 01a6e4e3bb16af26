"""What a package is made of: a top module, and all that is said about it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from accel.arch import Arch
from accel.rtl.bench import Example
from accel.rtl.parameters import ArrayParameters
from accel.rtl.sore import SoreParameters
from accel.rtl.top import Port

Top = Literal["array", "uspe", "sore"]
TOPS: tuple[Top, ...] = get_args(Top)


@dataclass(frozen=True)
class Design:
    """A top module and all that is said about it."""

    top: Top
    prefix: str
    arch: Arch
    parameters: ArrayParameters | SoreParameters
    ports: tuple[Port, ...]
    clock: str
    latencies: dict[str, int]
    """Cycles."""
    verilog: dict[str, str]
    bench: dict[str, str]
    example: Example | None = None

    @property
    def name(self) -> str:
        """Of the top module, and of the files that are named after it."""
        return self.prefix + self.top
