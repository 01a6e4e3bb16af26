"""What can be checked of each instruction alone: items 1 and 2 of docs/isa.md, section 6, for all instructions at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt

from accel.dataflow.verifier_kernels import Rows
from accel.errors import ScheduleError
from accel.program import MAX_WORK, OBJECTS, SIDES, WORK_FIELDS, Engine, Flag, Program, Side, Tables, used_fields

_Ints = npt.NDArray[np.int64]
_Bools = npt.NDArray[np.bool_]
_Say = Callable[[Any], str]
"""From an instruction with a problem to "field must be constraint, not value"."""

_BUFFERS = {"west": "west", "north": "north", "out": "output"}
_MOST_BITS = 2.0**62


class Fields:
    """A program with what its tables say in arrays, and how its instructions are named in an error."""

    def __init__(self, program: Program, source: str) -> None:
        """Read the tables of `program`; `source` names it in an error."""
        self.program, self.source, self.table = program, source, program.instructions
        self.rows = _rows_of(program.tables)

    def places(self, engine: Engine) -> npt.NDArray[np.intp]:
        """Return where the instructions of an engine stand."""
        return np.flatnonzero(self.table["opcode"] == engine)

    def engine(self, place: int) -> str:
        """Return the name of the engine of the instruction at `place`."""
        return Engine(int(self.table["opcode"][place])).name

    def name(self, place: int) -> str:
        """Return how another instruction's error names the one at `place`."""
        return f"instruction {place} ({self.engine(place)})"

    def refuse(self, place: int, text: str) -> NoReturn:
        """Refuse the program for its instruction at `place`."""
        raise ScheduleError(f"{self.source}: instruction {place}: {text}")


def _rows_of(tables: Tables) -> Rows:
    views, modes, work = tables.views, tables.modes, tables.kernels
    columns = (
        [SIDES.index(view.side) for view in views],
        [view.groups for view in views],
        [view.repeats for view in views],
        [view.prune_keep for view in views],
        [view.elem_bits for view in views],
        [mode.dataflow == "WS" for mode in modes],
        [mode.out_bits for mode in modes],
        [kernel.tile for kernel in work],
    )
    return Rows(*(np.array(column, dtype=np.int64) for column in columns))


def check_fields(fields: Fields) -> None:
    """Refuse the first instruction with a field that cannot be."""
    for check in (_check_opcodes, _check_references, _check_objects, _check_work):
        problems = _Problems(fields)
        check(fields, problems)
        problems.refuse_first()


class _Problems:
    """The first instruction found to have a problem."""

    def __init__(self, fields: Fields) -> None:
        self.fields, self.place, self.text = fields, len(fields.table), ""

    def add(self, places: npt.NDArray[np.intp], is_bad: _Bools, say: _Say) -> None:
        """Keep the problem of the first of `places` that is bad, if it comes before the one kept."""
        bad = np.flatnonzero(is_bad)
        if len(bad) and places[bad[0]] < self.place:
            self.place = int(places[bad[0]])
            self.text = say(self.fields.table[self.place])

    def refuse_first(self) -> None:
        """Refuse the program if there was a problem."""
        if self.text:
            self.fields.refuse(self.place, self.text)


def _check_opcodes(fields: Fields, problems: _Problems) -> None:
    table = fields.table
    problems.add(
        np.arange(len(table)),
        table["opcode"] >= len(Engine),
        lambda one: f"opcode must be less than {len(Engine)}, not {one['opcode']}",
    )


def _check_references(fields: Fields, problems: _Problems) -> None:
    """Check flags, masks, site and object."""
    tables = fields.program.tables
    rows = {"view": tables.views, "mode": tables.modes, "kernel": tables.kernels, "update": tables.updates}
    for engine in Engine:
        places = fields.places(engine)
        table = fields.table[places]
        flags = Flag.FENCE | Flag.FIRST | Flag.LAST if engine is Engine.COMPUTE else Flag.FENCE
        names = ", ".join(str(flag.name) for flag in Flag if flag in flags)
        problems.add(
            places, table["flags"] & ~np.uint8(flags) != 0, _says(f"flags must be of {names} for {engine.name}", "flags")
        )
        others = (1 << len(Engine)) - 1 - (1 << engine)
        for mask in ("waits", "signals"):
            problems.add(
                places, table[mask] & ~np.uint8(others) != 0, _says(f"{mask} must be of engines other than {engine.name}", mask)
            )
        for field, count, of in (
            ("site", len(tables.sites), "sites"),
            ("object", len(rows[OBJECTS[engine]]), f"{OBJECTS[engine]}s"),
        ):
            problems.add(places, table[field] >= count, _says(f"{field} must be less than the number of {of} ({count})", field))


def _says(text: str, field: str) -> _Say:
    return lambda one: f"{text}, not {one[field]}"


def _check_objects(fields: Fields, problems: _Problems) -> None:
    """Check that views are of the kind that their engine takes."""
    rows = fields.rows
    store, prune, load = (fields.places(engine) for engine in (Engine.STORE, Engine.PRUNE, Engine.LOAD))
    is_out = rows.side == SIDES.index("out")
    problems.add(store, ~is_out[fields.table["object"][store]], _says("object must be a view of side out for STORE", "object"))
    problems.add(
        prune,
        rows.prune_keep[fields.table["object"][prune]] == 0,
        _says("object must be a view that is pruned on line", "object"),
    )
    problems.add(
        load,
        (is_out & (rows.elem_bits != 32))[fields.table["object"][load]],
        _says("object must be a view of 32-bit elements where LOAD brings partial sums", "object"),
    )


def _check_work(fields: Fields, problems: _Problems) -> None:
    """Check the fields that say what an instruction works on, kind by kind."""
    load, kind = fields.places(Engine.LOAD), fields.rows.side[fields.table["object"][fields.places(Engine.LOAD)]]
    for number, side in enumerate(SIDES):
        _check_load(fields, problems, load[kind == number], side)
    _check_store(fields, problems)
    _check_compute(fields, problems)
    _check_prune(fields, problems)
    vector = fields.places(Engine.VECTOR)
    is_tile = fields.rows.tile[fields.table["object"][vector]].astype(bool)
    _check_used(fields, problems, vector[is_tile], Engine.VECTOR, used_fields(Engine.VECTOR, tile=True))
    _check_region(fields, problems, vector[is_tile], "out")
    _check_tile_work(fields, problems, vector[is_tile])
    _check_used(fields, problems, vector[~is_tile], Engine.VECTOR, ())
    _check_used(fields, problems, fields.places(Engine.UPDATE), Engine.UPDATE, ())


def _check_tile_work(fields: Fields, problems: _Problems, places: npt.NDArray[np.intp]) -> None:
    """Check that a tile kernel's operations on all its results can be counted."""
    table = fields.table[places]
    lane_ops = np.array([float(kernel.lane_ops) for kernel in fields.program.tables.kernels])[table["object"]]
    results = table["rows"].astype(float) * table["cols"]
    problems.add(
        places,
        lane_ops * results >= MAX_WORK,
        lambda one: (
            f"rows times cols must make less than 2**53 lane operations of kernel {one['object']}, "
            f"not {one['rows']} times {one['cols']}"
        ),
    )


def _check_used(
    fields: Fields, problems: _Problems, places: npt.NDArray[np.intp], engine: Engine, used: tuple[str, ...]
) -> None:
    """Check that fields not in use are 0, and that counts in use are not."""
    table = fields.table[places]
    for field in WORK_FIELDS:
        if field not in used:
            problems.add(
                places, table[field] != 0, _says(f"{field} must be 0 here, where {engine.name} does not use it", field)
            )
        elif field in ("rows", "cols", "groups") or (field == "words" and engine is not Engine.COMPUTE):
            problems.add(places, table[field] == 0, _says(f"{field} must be at least 1", field))


def _check_region(fields: Fields, problems: _Problems, places: npt.NDArray[np.intp], side: Side) -> None:
    """Check that the region at the address for `side` ends inside the buffer."""
    table = fields.table[places]
    most = fields.program.tables.buffer_words[SIDES.index(side)]
    problems.add(
        places,
        _ints(table, side) + _ints(table, "words") > most,
        lambda one: (
            f"{side} and words must end within the {most} words of the {_BUFFERS[side]} buffer, "
            f"not at {int(one[side]) + int(one['words'])}"
        ),
    )


def _check_extent(
    fields: Fields, problems: _Problems, places: npt.NDArray[np.intp], first: str, count: str, sizes: _Ints
) -> None:
    """Check that rows, columns or groups are of the product; `sizes` are those of each view."""
    table = fields.table[places]
    problems.add(
        places,
        _ints(table, first) + _ints(table, count) > sizes[table["object"]],
        lambda one: (
            f"{first} and {count} must end within the {sizes[one['object']]} of view {one['object']}, "
            f"not at {int(one[first]) + int(one[count])}"
        ),
    )


def _check_tile(fields: Fields, problems: _Problems, places: npt.NDArray[np.intp], field: str, expected: _Ints) -> None:
    """Check `bytes` or `words` against what the tile has."""
    found = fields.table[field][places]
    problems.add(
        places,
        found != expected.astype(np.uint64),
        lambda one: f"{field} must be {expected[np.searchsorted(places, problems.place)]} for this tile, not {one[field]}",
    )


def _check_load(fields: Fields, problems: _Problems, places: npt.NDArray[np.intp], side: Side) -> None:
    table = fields.table[places]
    _check_used(fields, problems, places, Engine.LOAD, used_fields(Engine.LOAD, side))
    _check_view(fields, problems, places, side)
    bits = _bits_of_tiles(fields, places, side)
    _check_tile(fields, problems, places, "bytes", _ceil_div(bits, 8))
    if side == "north":
        tables = fields.program.tables
        entry_bits = np.array([view.entry_bits(tables.arch) for view in tables.views], dtype=np.int64)
        bits = np.maximum(bits, _ints(table, "cols") * _ints(table, "groups") * entry_bits[table["object"]])
    _check_tile(fields, problems, places, "words", _ceil_div(bits, _word_bits(fields)))
    _check_region(fields, problems, places, side)


def _check_view(fields: Fields, problems: _Problems, places: npt.NDArray[np.intp], side: Side) -> None:
    """Check repeat, rows, columns and groups against the view."""
    table, repeats = fields.table[places], fields.rows.repeats
    problems.add(
        places,
        table["repeat"] >= repeats[table["object"]],
        lambda one: f"repeat must be less than the {repeats[one['object']]} of view {one['object']}, not {one['repeat']}",
    )
    sizes = _view_column(fields, "rows")
    _check_extent(fields, problems, places, *(("col", "cols") if side == "north" else ("row", "rows")), sizes)
    if side == "out":
        _check_extent(fields, problems, places, "col", "cols", _view_column(fields, "cols"))
    else:
        _check_extent(fields, problems, places, "group", "groups", fields.rows.groups)


def _bits_of_tiles(fields: Fields, places: npt.NDArray[np.intp], side: Side) -> _Ints:
    """Return the bits of what each LOAD brings: the rule of docs/isa.md, section 3."""
    table = fields.table[places]
    if side == "out":
        return _ints(table, "rows") * _ints(table, "cols") * 32
    row_bits, halo_bits, group_bits, distinct = (
        _view_column(fields, field)[table["object"]] for field in ("row_bits", "halo_bits", "group_bits", "distinct")
    )
    held = np.minimum(_ints(table, "cols" if side == "north" else "rows"), distinct)
    groups = _ints(table, "groups")
    whole = groups == fields.rows.groups[table["object"]]
    return np.asarray(np.where(whole, held * row_bits + halo_bits, held * groups * group_bits), dtype=np.int64)


def _check_store(fields: Fields, problems: _Problems) -> None:
    places = fields.places(Engine.STORE)
    table = fields.table[places]
    _check_used(fields, problems, places, Engine.STORE, used_fields(Engine.STORE))
    _check_view(fields, problems, places, "out")
    sizes = []
    for first, count, pad in (("row", "rows", "pad_rows"), ("col", "cols", "pad_cols")):
        size = _view_column(fields, count)[table["object"]]
        pads = _view_column(fields, pad)[table["object"]]
        ends = _ints(table, first) + _ints(table, count)
        sizes.append(_ints(table, count) + np.where(ends == size, pads, 0))
    elem_bits = fields.rows.elem_bits[table["object"]]
    _check_tile(fields, problems, places, "bytes", _ceil_div(sizes[0] * sizes[1] * elem_bits, 8))
    _check_region(fields, problems, places, "out")


def _check_prune(fields: Fields, problems: _Problems) -> None:
    places = fields.places(Engine.PRUNE)
    _check_used(fields, problems, places, Engine.PRUNE, used_fields(Engine.PRUNE))
    _check_view(fields, problems, places, "north")
    _check_region(fields, problems, places, "north")


def _check_compute(fields: Fields, problems: _Problems) -> None:
    places, arch = fields.places(Engine.COMPUTE), fields.program.tables.arch
    table = fields.table[places]
    _check_used(fields, problems, places, Engine.COMPUTE, used_fields(Engine.COMPUTE))
    is_first, is_last = (table["flags"] & flag != 0 for flag in (Flag.FIRST, Flag.LAST))
    problems.add(places, is_first & (table["group"] != 0), _says("group must be 0 with FIRST", "group"))
    problems.add(places, ~is_first & (table["group"] == 0), lambda one: "flags must have FIRST at group 0, not leave it out")
    is_ws = fields.rows.is_ws[table["object"]].astype(bool)
    _check_one_array_tile(fields, problems, places, ~is_ws & ~(is_first & is_last))
    rounds = is_ws & ~(is_first & is_last & (table["groups"] <= arch.array_rows))
    bits = np.where(rounds, 32, np.where(is_ws | is_last, fields.rows.out_bits[table["object"]], 0))
    rough = table["rows"].astype(np.float64) * table["cols"] * bits
    exact = _ints(table, "rows") * _ints(table, "cols") * bits
    _check_tile(fields, problems, places, "words", _ceil_div(np.where(rough < _MOST_BITS, exact, 2**62), _word_bits(fields)))
    _check_region(fields, problems, places, "out")


def _check_one_array_tile(fields: Fields, problems: _Problems, places: npt.NDArray[np.intp], is_part: _Bools) -> None:
    """Check that a COMPUTE whose sums stay in the array has no more rows and columns than the array."""
    table, tables = fields.table[places], fields.program.tables
    arch = tables.arch
    rows = np.array([arch.array_rows * mode.row_lanes for mode in tables.modes], dtype=np.int64)
    cols = np.array([arch.array_cols * (arch.adder_latency // mode.row_lanes) for mode in tables.modes], dtype=np.int64)
    for field, most in (("rows", rows), ("cols", cols)):
        problems.add(
            places,
            is_part & (_ints(table, field) > most[table["object"]]),
            lambda one, field=field, most=most: (
                f"{field} must be at most {most[one['object']]}, one array tile, "  # type: ignore[misc]
                f"where sums stay in the array, not {one[field]}"
            ),
        )


def _view_column(fields: Fields, name: str) -> _Ints:
    return np.array([getattr(view, name) for view in fields.program.tables.views], dtype=np.int64)


def _word_bits(fields: Fields) -> int:
    return 16 * fields.program.tables.arch.group


def _ints(table: Any, field: str) -> _Ints:
    return np.asarray(table[field], dtype=np.int64)


def _ceil_div(values: _Ints, divisor: int) -> _Ints:
    return np.asarray(-(-values // divisor), dtype=np.int64)
