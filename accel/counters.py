"""What the array counts of a run: one set of names for the hardware, its data sheet and side file, and the simulator's twin."""

from __future__ import annotations

from typing import Annotated, NamedTuple, get_type_hints


class Counters(NamedTuple):
    """The counters of one run, each with what it counts."""

    cycles: Annotated[int, "from the first operand at a port to the last output word visible at the bottom, stalls left out"]
    stall_cycles: Annotated[int, "in which a stream held the array up"]
    macs: Annotated[int, "multiplications of valid entries with output rows of the matrix"]
    west_words: Annotated[int, "groups taken from the west streams"]
    north_entries: Annotated[int, "entries taken from the north streams, valid or not"]
    out_words: Annotated[int, "results sent to the output streams"]


COUNTERS: dict[str, str] = {name: hint.__metadata__[0] for name, hint in get_type_hints(Counters, include_extras=True).items()}
"""What each counter counts, by name, in their order."""
