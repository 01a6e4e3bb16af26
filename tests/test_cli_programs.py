"""Programs on the command line: compile, run, disassemble, assemble; what is refused, and how."""

import json
import os
import subprocess
import sys

import program_cases
import pytest
import trace_format

from accel import api, program_file, timeline
from accel.assembly import from_text, to_text
from accel.cli import main
from accel.program import Engine
from accel.sim.machine import run_program

STEP = ["mlp", "--batch", "8"]


@pytest.fixture(scope="module")
def program():
    return api.compile_step("mlp", batch=8)


@pytest.fixture
def hand_made(tmp_path):
    """A small program in a file."""
    path = tmp_path / "hand.prog"
    program_file.save(program_cases.outputs_stay().program(), path)
    return path


def refusal(capsys, *arguments):
    """Run the command, check that it exits with 2 and prints one line, and return that line."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert captured.err.count("\n") == 1
    return captured.err.removesuffix("\n")


def test_compile_writes_the_program_of_the_step(tmp_path, capsys, program):
    path = tmp_path / "step.prog"
    assert main(["compile", *STEP, "-o", str(path)]) == 0
    assert program_file.load(path) == program
    captured = capsys.readouterr()
    assert captured.out.startswith(f"{path}: mlp at batch 8 on sat-vcu1525, {len(program.instructions):,} instructions\n")
    assert captured.err == ""
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in captured.out.splitlines() if "│" in line]
    counts = {engine.name: int((program.instructions["opcode"] == engine).sum()) for engine in Engine}
    assert {line[0]: int(line[1].replace(",", "")) for line in lines[:6]} == counts
    loads = program.instructions["opcode"] == Engine.LOAD
    assert int(lines[0][2].replace(",", "")) == program.instructions["bytes"][loads].sum()
    assert [line[0] for line in lines[6:]] == ["west", "north", "out"]


def test_use_of_a_buffer_ends_with_its_last_region(tmp_path, capsys, monkeypatch):
    hand = program_cases.outputs_stay().program()
    monkeypatch.setattr(api, "compile_step", lambda *arguments, **choices: hand)
    assert main(["compile", *STEP, "-o", str(tmp_path / "hand.prog")]) == 0
    lines = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capsys.readouterr().out.splitlines() if "│" in line]
    assert lines[6:] == [["west", "512", "512 (100%)"], ["north", "512", "256 (50%)"], ["out", "512", "16 (3%)"]]


def test_compile_writes_text_that_reads_back(tmp_path, program):
    path = tmp_path / "step.txt"
    assert main(["compile", *STEP, "--text", "-o", str(path)]) == 0
    assert from_text(path.read_text(), "step.txt") == program


def test_compile_passes_every_choice_on(tmp_path):
    path = tmp_path / "step.prog"
    words = ["--method", "sdgp", "--pattern", "2:4", "--optimizer", "adam", "--dense-layers", "none", "--arch", "edge-kv260"]
    assert main(["compile", *STEP, *words, "--pregenerate", "off", "-o", str(path)]) == 0
    choices = {"method": "sdgp", "pattern": "2:4", "optimizer": "adam", "dense_layers": [], "pregenerate": False}
    assert program_file.load(path) == api.compile_step("mlp", "edge-kv260", batch=8, **choices)


def test_pregenerate_auto_takes_the_faster_program(tmp_path):
    cycles = {}
    for choice in ("on", "off", "auto"):
        path = tmp_path / f"{choice}.prog"
        assert main(["compile", *STEP, "--pregenerate", choice, "-o", str(path)]) == 0
        cycles[choice] = run_program(program_file.load(path)).cycles
    assert cycles["on"] != cycles["off"]
    assert cycles["auto"] == min(cycles["on"], cycles["off"])


def test_run_says_what_the_machine_model_says(tmp_path, capsys, program):
    path = tmp_path / "step.prog"
    program_file.save(program, path)
    assert main(["run", str(path), "--json", "-"]) == 0
    found = json.loads(capsys.readouterr().out)
    timing, report = run_program(program), api.simulate("mlp", batch=8, baseline=False)
    assert (found["cycles"], found["seconds"]) == (timing.cycles, timing.cycles / 200e6) == (report.cycles, report.seconds)
    assert (found["network"], found["batch"], found["arch"], found["schema_version"]) == ("mlp", 8, "sat-vcu1525", 1)
    assert found["busy_cycles"] == {engine.name: cycles for engine, cycles in timing.busy_cycles.items()}
    assert sum(found["instructions"].values()) == len(program.instructions)
    assert (found["port_cycles"], found["dram_bytes"]) == (timing.port_cycles, timing.bytes_moved)
    waits = timeline.waits_by_engine(program, timing)
    assert found["array_waited_cycles"] == {
        engine.name: sum(stage.get(engine.name, 0) for stage in waits.values()) for engine in Engine
    }
    charged = {(site["layer"], site["stage"], site["part"]): site["cycles"] for site in found["sites"]}
    assert sum(charged.values()) == found["cycles"]
    for row in report.rows:
        assert charged.get((row.name, row.stage, row.part), 0) == row.cycles


def test_run_prints_engines_port_and_cycles(hand_made, capsys):
    assert main(["run", str(hand_made)]) == 0
    out = capsys.readouterr().out
    program = program_cases.outputs_stay().program()
    timing = run_program(program)
    seconds = timing.cycles / program.tables.arch.clock_hz
    assert out.startswith(f"{hand_made}: hand-made at batch 1 on {program.tables.arch.name}, 11 instructions\n")
    assert out.endswith(f"the program takes {timing.cycles:,} cycles, {seconds * 1e3:.3f} ms\n")
    lines = {
        cells[0]: cells for cells in ([cell.strip() for cell in line.split("│")[1:-1]] for line in out.splitlines()) if cells
    }
    for engine, busy in timing.busy_cycles.items():
        assert lines[engine.name][2:4] == [f"{busy:,}", f"{busy / timing.cycles:.1%}"]
    assert f"DRAM port: busy {timing.port_cycles / timing.cycles:.1%} of the step, {timing.bytes_moved:,} bytes" in out


def test_run_writes_the_timeline_of_the_program(hand_made, tmp_path, capsys):
    path = tmp_path / "t.json.gz"
    result = tmp_path / "r.json"
    assert main(["run", str(hand_made), "--timeline", str(path), "--json", str(result)]) == 0
    trace = trace_format.read(path)
    assert trace.about["cycles"] == json.loads(result.read_text())["cycles"]
    assert sum(event["dur"] for event in trace.slices["step"]) == trace.about["cycles"]


def test_run_takes_a_program_without_instructions(tmp_path, capsys):
    path = tmp_path / "nothing.prog"
    program_file.save(program_cases.nothing().program(), path)
    assert main(["run", str(path)]) == 0
    assert capsys.readouterr().out.endswith("the program takes 0 cycles, 0.000 ms\n")


def test_disassemble_and_assemble_are_each_others_inverse(hand_made, tmp_path, capsys):
    text, again = tmp_path / "hand.txt", tmp_path / "again.prog"
    assert main(["disassemble", str(hand_made), "-o", str(text)]) == 0
    assert main(["assemble", str(text), "-o", str(again)]) == 0
    assert again.read_bytes() == hand_made.read_bytes()
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{again}: hand-made at batch 1 on {program_cases.ARCH.name}, 11 instructions\n"
    assert main(["disassemble", str(hand_made)]) == 0
    assert capsys.readouterr().out == text.read_text() == to_text(program_file.load(hand_made))


def test_text_runs_as_the_program_it_stands_for(hand_made, tmp_path, capsys):
    text = tmp_path / "hand.txt"
    text.write_text(to_text(program_file.load(hand_made)))
    results = []
    for path in (hand_made, text):
        assert main(["run", str(path), "--json", "-"]) == 0
        results.append(capsys.readouterr().out)
    assert results[0] == results[1]


@pytest.mark.parametrize("form", ["binary", "text"])
def test_program_comes_through_a_pipe(hand_made, capsys, form):
    data = hand_made.read_bytes() if form == "binary" else to_text(program_file.load(hand_made)).encode()
    commands = [["run", "--json", "-"], ["disassemble"]]
    for command in commands:
        words = [sys.executable, "-m", "accel", *command, "/dev/stdin"]
        piped = subprocess.run(words, input=data, capture_output=True, check=False)
        assert (piped.returncode, piped.stderr) == (0, b"")
        assert main([*command, str(hand_made)]) == 0
        assert piped.stdout.decode() == capsys.readouterr().out


def test_endless_file_that_is_no_program_is_refused(capsys):
    assert refusal(capsys, "run", "/dev/zero") == (
        f"accel: /dev/zero must be a program file, which begins with b'nmprog', not with {bytes(6)!r}"
    )


def test_text_that_is_not_utf_8_is_refused(tmp_path, capsys):
    path = tmp_path / "bad.txt"
    path.write_bytes(b"nmprog 1\nnetwork \xff\n")
    message = f"accel: {path} must be UTF-8 text, not binary data"
    assert refusal(capsys, "run", path) == refusal(capsys, "assemble", path, "-o", tmp_path / "x.prog") == message


def test_outputs_over_the_program_are_refused(hand_made, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(hand_made)
    before = hand_made.read_bytes()
    for command in (["run", "--json"], ["run", "--timeline"], ["disassemble", "-o"], ["assemble", "-o"]):
        for output in (hand_made, "hand.prog", "./hand.prog", "link"):
            line = refusal(capsys, command[0], hand_made, command[1], output)
            assert line == f"accel: output must be another file than the input {hand_made}, not {output}; choose another place"
    assert hand_made.read_bytes() == before


def test_digit_that_does_not_exist_is_refused(hand_made, tmp_path, capsys):
    lines = to_text(program_file.load(hand_made)).splitlines()
    at = next(number for number, line in enumerate(lines) if line.startswith("view "))
    row = json.loads(lines[at].removeprefix("view "))
    row["access"] = {"axes": [{"size": 4, "terms": [[60, 1]]}], "rows": [4], "inner": [8]}
    lines[at] = "view " + json.dumps(row)
    path = tmp_path / "bad.txt"
    path.write_text("\n".join(lines) + "\n")
    assert refusal(capsys, "run", path) == (
        f"accel: {path}: line {at + 1}: access.axes[0].terms must name digits less than the number of extents (2), not 60"
    )


def test_missing_program_is_refused(tmp_path, capsys):
    for command in (["run"], ["disassemble"], ["assemble", "-o", tmp_path / "out.prog"]):
        assert refusal(capsys, *command, tmp_path / "no.prog") == f"accel: {tmp_path / 'no.prog'} does not exist"


def test_directory_for_a_program_is_refused(tmp_path, capsys):
    assert refusal(capsys, "run", tmp_path) == f"accel: {tmp_path} must be a file, not a directory"


def test_file_that_is_no_program_is_refused(tmp_path, capsys):
    path = tmp_path / "net.json"
    path.write_text('{"schema_version": 1, "name": "net"}')
    assert refusal(capsys, "run", path) == (
        f"accel: {path} must be a program file, which begins with b'nmprog', not with b'{{\"sche'"
    )


def test_short_file_is_refused(tmp_path, capsys):
    path = tmp_path / "short.prog"
    path.write_bytes(b"nmprog\x01")
    assert refusal(capsys, "run", path) == f"accel: {path} must be a program file of 24 bytes or more, not 7"


def test_damaged_program_is_refused(hand_made, capsys):
    data = bytearray(hand_made.read_bytes())
    data[-5] ^= 1
    hand_made.write_bytes(data)
    for command in ("run", "disassemble"):
        line = refusal(capsys, command, hand_made)
        assert line.startswith(f"accel: {hand_made} must have the CRC-32 that its header says, 0x")
        assert line.endswith("; the file is damaged: compile it again")


@pytest.mark.parametrize("keep", [0, 1, 23, 24, 200, -1, -64])
def test_cut_off_program_is_refused_in_one_line(hand_made, capsys, keep):
    hand_made.write_bytes(hand_made.read_bytes()[:keep])
    assert refusal(capsys, "run", hand_made).startswith(f"accel: {hand_made} must be ")


def test_program_that_the_verifier_refuses_is_not_run(hand_made, tmp_path, capsys):
    program = program_file.load(hand_made)
    program.instructions["west"][0] = 60
    program_file.save(program, hand_made)
    output = tmp_path / "t.json"
    line = refusal(capsys, "run", hand_made, "--timeline", output)
    assert line.startswith(f"accel: {hand_made}: instruction 0")
    assert not output.exists()


def test_error_in_a_text_is_named_with_its_line(tmp_path, capsys):
    path = tmp_path / "bad.txt"
    path.write_text("nmprog 1\nnetwork 5\n")
    line = refusal(capsys, "assemble", path, "-o", tmp_path / "out.prog")
    assert line.startswith(f"accel: {path}: line 2: ")
    assert refusal(capsys, "run", path) == line
    assert not (tmp_path / "out.prog").exists()


def test_binary_program_is_no_text(hand_made, tmp_path, capsys):
    line = refusal(capsys, "assemble", hand_made, "-o", tmp_path / "out.prog")
    assert line.startswith(f"accel: {hand_made}")


def test_bad_places_are_refused_before_any_work(tmp_path, capsys, hand_made, monkeypatch):
    monkeypatch.setattr(program_file, "from_bytes", None)
    monkeypatch.setattr(api, "compile_step", None)
    nowhere = tmp_path / "no" / "x"
    message = f"accel: output must lie in an existing directory, not {nowhere}; create {tmp_path / 'no'} first"
    assert refusal(capsys, "compile", *STEP, "-o", nowhere) == message
    assert refusal(capsys, "run", hand_made, "--timeline", nowhere) == message
    assert refusal(capsys, "run", hand_made, "--json", nowhere) == message
    assert refusal(capsys, "disassemble", hand_made, "-o", nowhere) == message
    assert refusal(capsys, "assemble", hand_made, "-o", nowhere) == message
    assert refusal(capsys, "compile", *STEP, "-o", "-") == "accel: output must be a file, not '-'; give it a name"
    assert refusal(capsys, "run", hand_made, "--timeline", "-") == "accel: timeline must be a file, not '-'; give it a name"
    assert refusal(capsys, "compile", *STEP, "-o", os.devnull) == f"accel: output must be a file, not the device {os.devnull}"
    both = tmp_path / "x"
    assert refusal(capsys, "run", hand_made, "--timeline", both, "--json", both) == (
        f"accel: timeline must go to a place of its own, not to {both}"
    )


def test_compile_needs_an_output(capsys):
    assert refusal(capsys, "compile", *STEP) == (
        "accel: the following arguments are required: -o/--output; see accel compile --help"
    )


def test_wrong_step_is_refused_as_by_simulate(tmp_path, capsys):
    output = tmp_path / "x.prog"
    assert refusal(capsys, "compile", "mlp", "--batch", "0", "-o", output) == (
        "accel: batch must be between 1 and 16777216, not 0"
    )
    assert not output.exists()


def test_simulate_writes_the_timeline_of_its_report(tmp_path, capsys):
    path, report = tmp_path / "t.json", tmp_path / "r.json"
    assert main(["simulate", *STEP, "--pregenerate", "off", "--timeline", str(path), "--json", str(report)]) == 0
    trace, rows = trace_format.read(path), json.loads(report.read_text())["layers"]
    expected = [
        (" ".join(filter(None, (row["stage"], row["name"], row["part"]))), row["cycles"]) for row in rows if row["cycles"]
    ]
    assert [(event["name"], event["dur"]) for event in trace.slices["step"]] == expected
    assert trace.slices["PRUNE"]


def test_timeline_of_the_closed_form_is_refused(tmp_path, capsys):
    path = tmp_path / "t.json"
    assert refusal(capsys, "simulate", *STEP, "--model", "closed-form", "--timeline", path) == (
        "accel: model must be machine for a timeline, not closed-form; leave out --model or --timeline"
    )
    assert refusal(capsys, "simulate", *STEP, "--timeline", path, "--csv", path) == (
        f"accel: timeline must go to a place of its own, not to {path}"
    )
    assert not path.exists()


def test_report_names_the_model(capsys):
    for model in ("machine", "closed-form"):
        assert main(["simulate", *STEP, "--no-baseline", "--model", model, "--json", "-"]) == 0
        assert json.loads(capsys.readouterr().out)["model"] == model
