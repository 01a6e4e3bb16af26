"""Timelines: what every engine did when, as a trace that Perfetto and Chrome open, and as lanes for the page of a step.

docs/report.md, "The timeline", says what the trace holds. A cycle is a microsecond of the trace: its numbers are whole ones.
"""

from __future__ import annotations

import gzip
import json
import secrets
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TextIO, cast

import numpy as np
from numpy.typing import NDArray

from accel.errors import ConfigError
from accel.program import INSTRUCTION, OBJECTS, SIDES, Engine, Flag, Program, Side, Site, used_fields
from accel.report import Row
from accel.sim.machine import Timing
from accel.sim.sites import Sites
from accel.sim.waits import waits_of_engines

MOST_SLICES = 300_000
"""In a program of more instructions, those that `merge` takes together are drawn as one."""

MERGED_WINDOWS = 20_000
"""Equal parts of the step in which instructions begin that are drawn as one."""

WINDOWS = 2_000
"""Equal parts of the step that counters are given for, at most."""

LANE_WINDOWS = 600
"""Equal parts of the step that a lane of the page is divided into, besides the sites."""

_PID, _STEP_TID, _FIRST_ENGINE_TID = 1, 2, 3  # a thread with its process's number would be called its main one
_CHUNK = 4096
_FIELDS = INSTRUCTION.names or ()
_SPANS = (("row", "rows"), ("col", "cols"), ("group", "groups"))
_BUFFERS = {"west": "west", "north": "north", "out": "output"}

_Numbers = NDArray[np.int64]
_Mask = NDArray[np.bool_]
_Event = dict[str, Any]


class Slices(NamedTuple):
    """What is drawn on the engines' tracks, engine by engine in the order of time; every field is (slices,).

    Slices of one engine do not overlap.
    """

    engine: _Numbers
    first: _Numbers
    """The number of its instruction, or of the first one."""
    instructions: _Numbers
    start: _Numbers
    end: _Numbers
    busy: _Numbers
    """Cycles of the slice in which one of its instructions is drawn: all of them, if it is one."""
    site: _Numbers
    bytes: _Numbers


def slices_of(program: Program, timing: Timing) -> Slices:
    """Return one slice for each instruction.

    LOAD and STORE: from the start until the port is done with it. Others: until it is complete, or the next one of its engine
    starts.
    """
    numbers = np.argsort(timing.jobs.engine, kind="stable")
    engine, start = timing.jobs.engine[numbers], timing.start[numbers]
    is_transfer = (engine == Engine.LOAD) | (engine == Engine.STORE)
    end = np.where(is_transfer, timing.port_end[numbers], timing.done[numbers])
    goes_on = np.flatnonzero(engine[1:] == engine[:-1])
    end[goes_on] = np.minimum(end[goes_on], start[goes_on + 1])
    site = program.instructions["site"][numbers].astype(np.int64)
    return Slices(engine, numbers, np.ones_like(start), start, end, end - start, site, timing.jobs.bytes[numbers])


def merge(slices: Slices, windows: int, cycles: int) -> Slices:
    """Return `slices` with those of one site that follow each other on an engine as one.

    They begin in the same of `windows` equal parts of the step, which takes `cycles`.
    """
    if not len(slices.start):
        return slices
    part = slices.start * windows // max(cycles, 1)
    keys = np.stack((slices.engine, slices.site, part))
    at = np.flatnonzero(np.concatenate(([True], (keys[:, 1:] != keys[:, :-1]).any(axis=0))))
    last = np.concatenate((at[1:], [len(slices.start)])) - 1
    sums = {name: np.add.reduceat(getattr(slices, name), at) for name in ("instructions", "busy", "bytes")}
    kept = {name: getattr(slices, name)[at] for name in ("engine", "first", "start", "site")}
    return Slices(end=slices.end[last], **sums, **kept)


def write_timeline(program: Program, timing: Timing, path: str | Path, rows: Sequence[Row] | None = None) -> None:
    """Write the trace of a run of `program`; gzipped if the name ends in ".gz". Equal runs write equal files.

    The track "step" shows the cycles charged to `rows`, those of the run's report, or without them to the program's sites.
    """
    with _whole_file(Path(path)) as file:
        file.write(f'{{"displayTimeUnit":"ms","otherData":{_json(_about(program, timing))},"traceEvents":[\n')
        separator = ""
        for event in _events(program, timing, rows):
            file.write(separator + _json(event))
            separator = ",\n"
        file.write("\n]}\n")


def _json(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"), allow_nan=False)


@contextmanager
def _whole_file(path: Path) -> Iterator[TextIO]:
    """Open a file for writing that has its name when it is whole; what is no file, as a pipe, is written directly."""
    is_direct = path.exists() and not path.is_file()
    part = path if is_direct else path.parent / f".{path.name[:100]}.{secrets.token_hex(4)}.part"
    try:
        with ExitStack() as opened:
            raw: BinaryIO = opened.enter_context(part.open("wb"))
            if path.suffix == ".gz":  # without its name and the time of day: equal runs write equal files
                raw = cast(BinaryIO, opened.enter_context(gzip.GzipFile("", "wb", 6, raw, mtime=0)))
            yield opened.enter_context(TextIOWrapper(raw, encoding="ascii", newline="\n"))
        if not is_direct:
            part.replace(path)
    except OSError as error:
        raise ConfigError(f"{path} cannot be written: {error.strerror or error}; choose another output") from None
    finally:
        if not is_direct:
            with suppress(OSError):
                part.unlink(missing_ok=True)


def _about(program: Program, timing: Timing) -> _Event:
    tables = program.tables
    return {
        "network": tables.network,
        "batch": tables.batch,
        "arch": tables.arch.name,
        "clock_hz": tables.arch.clock_hz,
        "cycles": timing.cycles,
        "cycles_per_microsecond": 1,
        "instructions": len(program.instructions),
        "merged": _is_merged(program),
    }


def _is_merged(program: Program) -> bool:
    return len(program.instructions) > MOST_SLICES


def _events(program: Program, timing: Timing, rows: Sequence[Row] | None) -> Iterator[_Event]:
    """Return all events, each track's in the order of time."""
    yield from _names_of_tracks(program)
    yield from _step_events(program, timing, rows)
    slices = slices_of(program, timing)
    if _is_merged(program):
        slices = merge(slices, MERGED_WINDOWS, timing.cycles)
    yield from _slice_events(program, timing, slices)
    yield from _counter_events(program, timing)


def _names_of_tracks(program: Program) -> Iterator[_Event]:
    yield _named("process_name", 0, name="machine")
    yield _named("process_labels", 0, labels=f"{program.tables.network} on {program.tables.arch.name}; 1 us is 1 cycle")
    tracks = ["step", *(engine.name for engine in Engine)]
    for tid, name in enumerate(tracks, start=_STEP_TID):
        yield _named("thread_name", tid, name=name)
        yield _named("thread_sort_index", tid, sort_index=tid)


def _named(kind: str, tid: int, **args: str | int) -> _Event:
    return {"ph": "M", "pid": _PID, "tid": tid, "name": kind, "args": args}


def _slice(tid: int, start: int, cycles: int, name: str, args: _Event) -> _Event:
    return {"ph": "X", "pid": _PID, "tid": tid, "ts": start, "dur": cycles, "name": name, "args": args}


def _step_events(program: Program, timing: Timing, rows: Sequence[Row] | None) -> Iterator[_Event]:
    """Return what the step's cycles are charged to, one after another."""
    if rows is None:
        charged = [
            (_title(site), cycles) for site, cycles in zip(program.tables.sites, site_cycles(program, timing), strict=True)
        ]
    else:
        charged = [(" ".join(filter(None, (row.stage, row.name, row.part))), row.cycles) for row in rows]
    start = 0
    for name, cycles in charged:
        if cycles:
            yield _slice(_STEP_TID, start, cycles, name, {"of_step_frac": round(cycles / timing.cycles, 6)})
        start += cycles


def site_cycles(program: Program, timing: Timing) -> list[int]:
    """Return the cycles charged to each site (`accel.sim.sites`). They add up to the step."""
    cycles: list[int] = Sites.of(program, timing).cycles.tolist()
    return cycles


def _title(site: Site) -> str:
    return " ".join(filter(None, (str(site.stage), site.layer, site.part)))


def _slice_events(program: Program, timing: Timing, slices: Slices) -> Iterator[_Event]:
    titles = [_title(site) for site in program.tables.sites]
    for begin in range(0, len(slices.first), _CHUNK):
        part = Slices(*(field[begin : begin + _CHUNK] for field in slices))
        records = program.instructions[part.first].tolist()
        times = (getattr(timing, name)[part.first].tolist() for name in ("ready", "done", "waited_for"))
        columns = (field.tolist() for field in part)
        for record, ready, done, waited_for, *drawn in zip(records, *times, *columns, strict=True):
            engine, first, count, start, end, busy, site, moved = drawn
            name, args = titles[site], {"instructions": count, "first": first, "bytes": moved, "drawn_cycles": busy}
            if count == 1:
                what = _what(program, Engine(engine), dict(zip(_FIELDS, record, strict=True)))
                name = f"{name} {what.name}".rstrip()
                args = {"instruction": first, **what.sizes, "bytes": moved, "waited_for": Engine(waited_for).name}
                args |= {"ready": ready, "complete": done}
            yield _slice(_FIRST_ENGINE_TID + engine, start, end - start, name, args)


class _What(NamedTuple):
    """What an instruction works on, beside its site."""

    name: str
    sizes: dict[str, int]


def _what(program: Program, engine: Engine, work: dict[str, int]) -> _What:
    """Return what one instruction works on; `work` are its fields."""
    tables, place = program.tables, work["object"]
    side: Side | None = None
    words: list[str] = []
    is_tile = is_whole = False
    if engine is Engine.COMPUTE:
        is_whole = bool(work["flags"] & Flag.FIRST and work["flags"] & Flag.LAST)
    elif OBJECTS[engine] == "view":
        is_whole = tables.views[place].groups == work["groups"]
    if engine is Engine.LOAD:
        side = tables.views[place].side
        words.append("sums" if side == "out" else side)
    elif engine is Engine.VECTOR:
        is_tile = tables.kernels[place].tile
        words += [tables.kernels[place].op] if is_tile else []
    fields = used_fields(engine, side, is_tile)
    if "repeat" in fields and work["repeat"]:
        words.append(f"repeat {work['repeat']}")
    spans = [(first, count) for first, count in _SPANS if count in fields]
    for first, count in spans:
        if not (is_whole and count == "groups"):
            words.append(f"{count} {work[first]}..{work[first] + work[count] - 1}")
    return _What(" ".join(words), {count: work[count] for _, count in spans})


def edges_of(cycles: int, most: int) -> _Numbers:
    """Return where equal parts of a step begin and end: `most` of them, or one for each cycle; (parts + 1,)."""
    parts = max(min(most, cycles), 1)
    return np.array([cycles * part // parts for part in range(parts + 1)], np.int64)


def port_bytes_per_cycle(timing: Timing, edges: _Numbers) -> NDArray[np.float64]:
    """Return what crosses the DRAM port in a cycle, of each part of the step; (parts,)."""
    asked = timing.start + timing.jobs.setup
    moved = np.zeros(len(edges))
    for engine in Engine:  # the times of one engine do not overlap
        own = timing.jobs.engine == engine
        moved += _up_to(edges, asked[own], timing.port_end[own], timing.jobs.bytes[own])
    rates: NDArray[np.float64] = np.diff(moved) / np.maximum(np.diff(edges), 1)
    return rates


def pe_shares(program: Program, timing: Timing, edges: _Numbers) -> NDArray[np.float64]:
    """Return the share of the PEs that multiply, zeros that pad groups of k among what they do, of each part; (parts,)."""
    slices = slices_of(program, timing)
    own = slices.engine == Engine.COMPUTE
    work = program.instructions[slices.first[own]]
    keep = np.array([mode.keep for mode in program.tables.modes] or [0], np.int64)
    macs = keep[work["object"]].astype(np.float64)
    for field in ("rows", "cols", "groups"):
        macs = macs * work[field]
    done = _up_to(edges, slices.start[own], slices.end[own], macs)
    return np.diff(done) / np.maximum(np.diff(edges), 1) / program.tables.arch.pes


def _up_to(edges: _Numbers, start: _Numbers, end: _Numbers, amount: NDArray[Any]) -> NDArray[np.float64]:
    """Return how much has been done at each edge; what is done from `start` to `end` is done evenly, one after another."""
    some = end > start
    times = np.stack((start[some], end[some]), axis=1).ravel()
    sums = np.concatenate(([0], np.cumsum(amount[some], dtype=np.float64)))
    if not len(times):
        return np.zeros(len(edges))
    done: NDArray[np.float64] = np.interp(edges, times, np.stack((sums[:-1], sums[1:]), axis=1).ravel())
    return done


def most_words_held(program: Program, timing: Timing, side: Side, edges: _Numbers) -> _Numbers:
    """Return the most words in use at once in one buffer, of each part of the step; (parts,).

    A region is in use from the start of the instruction that writes it to the completion of the last that works on it.
    """
    start, end, words = _regions(program, timing, side)
    times = np.concatenate((start, end))
    order = np.argsort(times, kind="stable")
    times, held = times[order], np.cumsum(np.concatenate((words, -words))[order])
    last = np.flatnonzero(np.concatenate((times[1:] != times[:-1], [True]))) if len(times) else order
    times, held = times[last], held[last]
    before = np.searchsorted(times, edges[:-1], side="right") - 1
    most = np.where(before >= 0, held[before], 0) if len(times) else np.zeros(len(edges) - 1, np.int64)
    part = np.searchsorted(edges, times, side="right") - 1
    inside = part < len(most)
    np.maximum.at(most, part[inside], held[inside])
    return most


def _regions(program: Program, timing: Timing, side: Side) -> tuple[_Numbers, _Numbers, _Numbers]:
    """Return start, end and words of the time that each region of a buffer is in use."""
    writes, users = (np.flatnonzero(mask) for mask in _works_on(program, side))
    places = np.concatenate((writes, users))
    is_user = np.repeat([False, True], [len(writes), len(users)])
    address = program.instructions[side][places].astype(np.int64)
    order = np.lexsort((is_user, timing.start[places], address))  # of one address: what writes it, then what uses it, and so on
    writer = np.maximum.accumulate(np.where(is_user[order], -1, np.arange(len(order))))
    end = timing.done[places].copy()
    has_writer = is_user[order] & (writer >= 0)
    user, owner = order[has_writer], order[writer[has_writer]]
    same = address[user] == address[owner]
    np.maximum.at(end, owner[same], timing.done[places[user[same]]])
    words = program.instructions["words"][writes].astype(np.int64)
    return timing.start[writes], end[: len(writes)], words


def writes_of(program: Program, side: Side) -> _Mask:
    """Return which instructions begin to write a region of a buffer; (instructions,)."""
    return _works_on(program, side)[0]


def _works_on(program: Program, side: Side) -> tuple[_Mask, _Mask]:
    """Return which instructions begin to write a region of a buffer, and which go on with it or read it."""
    table, tables = program.instructions, program.tables
    is_a = {engine: table["opcode"] == engine for engine in Engine}
    is_load = _picked(table, is_a[Engine.LOAD], [view.side == side for view in tables.views])
    if side != "out":
        return is_load, is_a[Engine.COMPUTE] | (is_a[Engine.PRUNE] if side == "north" else False)
    is_ws = _picked(table, is_a[Engine.COMPUTE], [mode.dataflow == "WS" for mode in tables.modes])
    is_tile = _picked(table, is_a[Engine.VECTOR], [kernel.tile for kernel in tables.kernels])
    is_first, is_last = (table["flags"] & flag != 0 for flag in (Flag.FIRST, Flag.LAST))
    is_os_result = is_a[Engine.COMPUTE] & ~is_ws & is_last
    return is_load | is_os_result | (is_ws & is_first), is_a[Engine.STORE] | is_tile | (is_ws & ~is_first)


def _picked(table: NDArray[np.void], is_own: _Mask, wanted: Sequence[bool]) -> _Mask:
    """Return which of an engine's instructions have an object that is wanted."""
    picked = np.zeros(len(table), np.bool_)
    picked[is_own] = np.array(wanted, np.bool_)[table["object"][is_own]]
    return picked


def _counter_events(program: Program, timing: Timing) -> Iterator[_Event]:
    """Return the counters, a value for each part of the step and 0 at its end."""
    if not timing.cycles:
        return
    edges = edges_of(timing.cycles, WINDOWS)
    word_bytes = 2 * program.tables.arch.group
    counters: list[tuple[str, str, list[Any]]] = [
        ("DRAM port", "bytes per cycle", [round(value, 3) for value in port_bytes_per_cycle(timing, edges).tolist()]),
        ("array", "PEs at work, percent", [round(100 * value, 3) for value in pe_shares(program, timing, edges).tolist()]),
    ]
    for side in SIDES:
        held = most_words_held(program, timing, side, edges)
        counters.append((f"{_BUFFERS[side]} buffer", "bytes held", (word_bytes * held).tolist()))
    times = edges.tolist()
    for name, unit, values in counters:
        for time, value in zip(times, [*values, 0], strict=True):
            yield {"ph": "C", "pid": _PID, "ts": time, "name": name, "args": {unit: value}}


def waits_by_engine(program: Program, timing: Timing) -> dict[str, dict[str, int]]:
    """Return the cycles that the array waited for each engine (`accel.sim.waits`), by the stage that then went on."""
    waits = waits_of_engines(program, timing)
    found: dict[str, dict[str, int]] = {}
    for number in np.flatnonzero(waits.any(axis=1)).tolist():
        by_engine = found.setdefault(str(program.tables.sites[program.instructions["site"][number]].stage), {})
        for engine in Engine:
            if waits[number, engine]:
                by_engine[engine.name] = by_engine.get(engine.name, 0) + int(waits[number, engine])
    return found


def lanes(program: Program, timing: Timing) -> dict[str, Any]:
    """Return what the page of a step draws: docs/report.md, "The data block", describes it."""
    cycles = timing.cycles
    edges = edges_of(cycles, LANE_WINDOWS)
    drawn = merge(slices_of(program, timing), LANE_WINDOWS, cycles)
    fields = np.stack((drawn.start, drawn.end - drawn.start, drawn.busy, drawn.site, drawn.instructions), axis=1)
    return {
        "cycles": cycles,
        "instructions": len(program.instructions),
        "sites": [[site.layer, str(site.stage), site.part] for site in program.tables.sites],
        "lanes": {engine.name: fields[drawn.engine == engine].tolist() for engine in Engine},
        "edges": edges.tolist(),
        "bytes_per_cycle": [round(value, 3) for value in port_bytes_per_cycle(timing, edges).tolist()],
        "pe_shares": [round(value, 4) for value in pe_shares(program, timing, edges).tolist()],
        "waits": waits_by_engine(program, timing),
        "busy_cycles": {engine.name: busy for engine, busy in timing.busy_cycles.items()},
        "port_cycles": timing.port_cycles,
    }
