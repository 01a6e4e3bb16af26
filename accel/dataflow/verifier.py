"""`verify`: refuse a program that the machine could not run, or that would not compute what its tables say.

docs/isa.md, section 6, lists what is refused. Fields are checked for all instructions at once, what depends on the order of
instructions in `accel.dataflow.verifier_kernels`.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from accel.dataflow import verifier_kernels as kernels
from accel.dataflow.verifier_fields import Fields, check_fields
from accel.program import SIDES, Engine, Flag, Instructions, Program
from accel.tokens import resolve_tokens

_Ints = npt.NDArray[np.int64]


def verify(program: Program, source: str = "program") -> None:
    """Refuse a program that docs/isa.md, section 6, rules out, by its first problem; `source` names it in the error."""
    fields = Fields(program, source)
    check_fields(fields)
    needs = resolve_tokens(program, source)
    stream, order = _stream_of(fields, needs)
    _check_array_tiles(fields)
    _check_regions(fields, stream, order)


def _stream_of(fields: Fields, needs: _Ints) -> tuple[kernels.Stream, _Ints]:
    """Return what the kernels read, and an order that tokens allow; refuse a deadlock."""
    table = fields.table
    places = np.argsort(table["opcode"], kind="stable")
    starts = np.concatenate(([0], np.cumsum(np.bincount(table["opcode"], minlength=len(Engine)))))
    ordinals = np.empty(len(table), dtype=np.int32)
    ordinals[places] = np.arange(len(table)) - np.repeat(starts[:-1], np.diff(starts))
    order = np.empty(len(table), dtype=np.int64)
    clocks = np.zeros((len(table), len(Engine)), dtype=np.int32)
    found = kernels.order_instructions(needs, places, starts, order, clocks)
    if found < len(table):
        _refuse_circle(fields, needs, places, starts, order[:found])
    return kernels.Stream(table.copy(), ordinals, places, starts, clocks), order


def _refuse_circle(fields: Fields, needs: _Ints, places: _Ints, starts: _Ints, done: _Ints) -> None:
    """Follow, from an instruction that cannot start, what each waits for, until one comes again."""
    counts = np.bincount(fields.table["opcode"][done], minlength=len(Engine))
    heads = {
        engine: int(places[starts[engine] + counts[engine]]) for engine in Engine if counts[engine] < np.diff(starts)[engine]
    }
    chain = [next(iter(heads))]
    while chain.count(chain[-1]) < 2:
        short = needs[heads[chain[-1]]] > counts
        chain.append(Engine(int(np.flatnonzero(short)[0])))
    circle = [heads[engine] for engine in chain[chain.index(chain[-1]) :]]
    names = ", which waits for ".join(fields.name(place) for place in circle[1:])
    fields.refuse(circle[0], f"waits must not form a circle, not {fields.engine(circle[0])} for {names}")


def _check_array_tiles(fields: Fields) -> None:
    """Check that in OS the instructions of one array tile follow each other, up to the one that is LAST."""
    places = fields.places(Engine.COMPUTE)
    table = fields.table[places]
    is_os = ~fields.rows.is_ws[table["object"]].astype(bool)
    goes_on = _continues(table)
    is_first, is_last = (table["flags"] & flag != 0 for flag in (Flag.FIRST, Flag.LAST))
    lone = is_os & ~is_first & ~np.concatenate(([False], goes_on))[: len(table)]
    left = is_os & ~is_last & ~np.concatenate((goes_on, [False]))[: len(table)]
    for at in np.flatnonzero(lone)[:1]:
        fields.refuse(
            places[at], "COMPUTE without FIRST must go on with the array tile of the COMPUTE before it, not with another"
        )
    for at in np.flatnonzero(left)[:1]:
        fields.refuse(places[at], "COMPUTE without LAST must be gone on with by the COMPUTE after it, not be left in the array")


def _continues(table: Instructions) -> npt.NDArray[np.bool_]:
    """Return for each COMPUTE but the last whether the next one goes on with its array tile in OS."""
    before, after = table[:-1], table[1:]
    same = (before["flags"] & Flag.LAST == 0) & (after["flags"] & Flag.FIRST == 0)
    for field in ("object", "repeat", "row", "rows", "col", "cols"):
        same &= before[field] == after[field]
    same &= before["group"].astype(np.int64) + before["groups"] == after["group"]
    return np.asarray(same, dtype=np.bool_)


def _check_regions(fields: Fields, stream: kernels.Stream, order: _Ints) -> None:
    """Check for races and for what regions hold."""
    writes = int(np.count_nonzero(np.isin(fields.table["opcode"], (Engine.LOAD, Engine.COMPUTE))))
    pieces = [_pieces(min(2 * writes, words) + 4) for words in fields.program.tables.buffer_words]
    fault = kernels.walk_regions(stream, fields.rows, order, *pieces)
    if fault.code == kernels.OK:
        return
    if fault.code == kernels.RACE:
        _refuse_race(fields, fault)
    if fault.code == kernels.MISSING:
        _refuse_missing(fields, fault)
    fields.refuse(fault.place, _CONTENTS[fault.code](_Found(fields, fault)))


def _pieces(most: int) -> kernels.Pieces:
    order, free = np.empty(most, dtype=np.int64), np.empty(most, dtype=np.int64)
    about = np.empty(most, dtype=kernels.PIECE)
    return kernels.Pieces(order, np.zeros(3, dtype=np.int64), free, about, np.empty((most, len(Engine)), dtype=np.int32))


def _refuse_race(fields: Fields, fault: kernels.Fault) -> None:
    this, other = fields.engine(fault.place), fields.engine(fault.other)
    fields.refuse(
        fault.place,
        f"{this} must be ordered by tokens with {fields.name(fault.other)}, which uses the same words of the "
        f"{_BUFFERS[fault.buffer]} buffer; let {this} wait for a token of {other} that comes after it",
    )


def _refuse_missing(fields: Fields, fault: kernels.Fault) -> None:
    side = SIDES[fault.buffer]
    address = fields.table[side][fault.place]
    found = "where nothing was written" if fault.other < 0 else f"among words that {fields.name(fault.other)} wrote"
    fields.refuse(
        fault.place, f"{side} must be where a whole tile stands in the {_BUFFERS[fault.buffer]} buffer, not {address}, {found}"
    )


_BUFFERS = ("west", "north", "output")


class _Found:
    """The instruction that a fault is about, and what it found in a buffer."""

    def __init__(self, fields: Fields, fault: kernels.Fault) -> None:
        self.fields, self.fault = fields, fault
        self.this, self.maker = fields.table[fault.place], fields.table[fault.other]
        self.side = SIDES[fault.buffer]

    @property
    def tile(self) -> str:
        """What the region holds, by its address and who wrote it."""
        return f"the tile at {self.side} {self.this[self.side]} of {self.fields.name(self.fault.other)}"

    @property
    def groups(self) -> int:
        """Groups of k of the product, by the view of the operand."""
        return int(self.fields.rows.groups[self.maker["object"]])

    def value(self, field: str) -> str:
        """Say that one field must be that of the tile."""
        return f"{field} must be {self.maker[field]}, that of {self.tile}, not {self.this[field]}"

    def span(self, first: str, count: str) -> str:
        """Say that rows, columns or groups must be those of the tile."""
        tile, own = (f"{one[first]} to {int(one[first]) + int(one[count]) - 1}" for one in (self.maker, self.this))
        return f"{first} and {count} must be of {tile}, those of {self.tile}, not {own}"

    def sums(self) -> str:
        """Say where sums that are gone on with must have ended."""
        if self.maker["flags"] & Flag.LAST:
            return f"{self.tile} must be sums that are not complete, not results"
        return f"group must be {self.maker['group'] + self.maker['groups']}, where {self.tile} ends, not {self.this['group']}"

    def bits(self) -> str:
        """Say that a view must have the elements of the results."""
        view, bits = self.this["object"], self.fields.rows.out_bits[self.maker["object"]]
        own = self.fields.rows.elem_bits[view]
        return f"object must be a view of {bits}-bit elements like {self.tile}, not view {view} of {own}"


_CONTENTS: dict[int, Callable[[_Found], str]] = {
    kernels.REPEAT: lambda found: found.value("repeat"),
    kernels.ROWS: lambda found: found.span("row", "rows"),
    kernels.COLS: lambda found: found.span("col", "cols"),
    kernels.GROUPS: lambda found: found.span("group", "groups"),
    kernels.VIEW: lambda found: found.value("object"),
    kernels.WORDS: lambda found: found.value("words"),
    kernels.DENSE: lambda found: f"{found.tile} must be pruned before COMPUTE reads it, not dense; add a PRUNE",
    kernels.PRUNED: lambda found: f"{found.tile} must be pruned once, not again",
    kernels.DEPTH: lambda found: (
        f"north must be a tile of a view with as many groups of k as the one at west, not {found.groups}"
    ),
    kernels.NOT_LAST: lambda found: f"flags must have LAST at the last of the {found.groups} groups of k, not leave it out",
    kernels.TOO_SOON: lambda found: f"flags must have LAST only at the last of the {found.groups} groups of k, not before",
    kernels.SUMS: _Found.sums,
    kernels.OPEN: lambda found: f"{found.tile} must be complete results, not sums to go on from",
    kernels.FORMAT: _Found.bits,
}
"""What to say of each kind of region that does not hold what the instruction needs."""
