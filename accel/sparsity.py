"""N:M patterns: at most `keep` nonzeros in every `group` consecutive elements of the reduction dimension."""

from __future__ import annotations

import re
from dataclasses import dataclass

from accel.errors import ConfigError
from accel.units import ceil_log2


@dataclass(frozen=True)
class NMPattern:
    """At most `keep` nonzeros in every `group` consecutive elements along the reduction dimension of the GEMM.

    `keep == group` is dense. The text form is "keep:group", for example "2:8" keeps two of eight.
    """

    keep: int
    group: int

    def __post_init__(self) -> None:
        if self.group < 1:
            raise ConfigError(f"group must be at least 1, not {self.group}")
        if not 1 <= self.keep <= self.group:
            raise ConfigError(
                f"keep must be between 1 and group ({self.group}), not {self.keep}; "
                "a pattern is written kept:group, for example 2:8"
            )

    @classmethod
    def parse(cls, text: str) -> NMPattern:
        """Return the pattern written as "keep:group"; "dense" gives `DENSE`."""
        if text == "dense":
            return DENSE
        match = re.fullmatch(r"([0-9]{1,9}):([0-9]{1,9})", text)
        if match is None:
            raise ConfigError(f"pattern must be two integers like 2:8, not {text!r}")
        return cls(keep=int(match[1]), group=int(match[2]))

    def __str__(self) -> str:
        """Return "keep:group", or "dense"."""
        return "dense" if self.is_dense else f"{self.keep}:{self.group}"

    @property
    def is_dense(self) -> bool:
        """Whether nothing is pruned."""
        return self.keep == self.group

    @property
    def index_bits(self) -> int:
        """Bits that say where in its group a kept element stands; 0 when dense (nothing to say)."""
        return 0 if self.is_dense else ceil_log2(self.group)

    def compact_bits(self, elems: int, value_bits: int) -> int:
        """Return the bits of `elems` elements, a multiple of the group, stored as their kept values with indices."""
        return elems // self.group * self.keep * (value_bits + self.index_bits)

    def on_machine(self, machine_group: int) -> NMPattern:
        """Return the same density as a pattern of the machine's group: 2:4 on group 8 runs as 4:8."""
        if machine_group % self.group:
            raise ConfigError(
                f"group of pattern {self} must divide the machine's group ({machine_group}), not {self.group}; "
                "choose a pattern with a smaller group or a machine with a larger one"
            )
        scale = machine_group // self.group
        return NMPattern(keep=self.keep * scale, group=machine_group)

    def kept_of(self, elems: int) -> int:
        """Return how many of `elems` consecutive elements survive; the last, short group keeps at most `keep`."""
        full, rest = divmod(elems, self.group)
        return full * self.keep + min(rest, self.keep)


DENSE = NMPattern(keep=1, group=1)
"""Dense, run one element at a time: a group of one, of which one is kept."""
