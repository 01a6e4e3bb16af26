"""`accel explore` and `accel pareto` as a user meets them."""

import csv
import io
import re
import shlex
from pathlib import Path

import pytest

import accel.explore
from accel.cli import main
from accel.explore.space import Space
from accel.explore.store import Results

pytest.importorskip("pyarrow")

EXAMPLES = sorted(Path(accel.explore.__file__).with_name("examples").glob("*.toml"))
TEXT = """
[arch]
base = "test"
[vary]
array_rows = [2, 4, 3]
row_lanes = [[1], [1, 2]]
[work]
networks = {mlp = 1.0}
batch = 2
methods = [{method = "bdwp", pattern = "2:4"}, {method = "dense"}]
[objectives]
names = ["time", "all_luts", "energy_joules"]
energy = "asic-45nm"
"""


@pytest.fixture
def folder(tmp_path, capsys):
    (tmp_path / "space.toml").write_text(TEXT)
    assert main(["explore", str(tmp_path / "space.toml"), "--out", str(tmp_path / "out")]) == 0
    out, err = capsys.readouterr()
    assert out == f"6 points evaluated, 0 of them cannot run; 6 of 6 points are in {tmp_path / 'out'}\n"
    assert err == ""
    return tmp_path / "out"


def refusal(capsys, *arguments):
    assert main([*map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("\n") == 1
    return err.removesuffix("\n")


def test_a_second_run_has_nothing_left_to_do(folder, tmp_path, capsys):
    run = ["explore", str(tmp_path / "space.toml"), "--out", str(folder), "--sampler", "random", "--budget", "1h"]
    assert main(run) == 0
    assert capsys.readouterr().out.startswith("0 points evaluated, 0 of them cannot run; 6 of 6 points")


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda path: path.stem)
def test_an_example_runs(example, tmp_path, capsys):
    text = re.sub(r"networks = \{.*\}", "networks = {mlp = 1.0}", example.read_text())
    (tmp_path / "small.toml").write_text(text)
    assert Space.load(example).size == Space.load(tmp_path / "small.toml").size > 1000
    run = ["explore", str(tmp_path / "small.toml"), "--out", str(tmp_path / "out"), "--sampler", "random", "--budget", "12"]
    assert main(run) == 0
    assert re.match(r"12 points evaluated, \d of them cannot run", capsys.readouterr().out)
    assert main(["pareto", str(tmp_path / "out")]) == 0


def test_the_commands_of_the_front_give_its_numbers(folder, tmp_path, capsys):
    machines = tmp_path / "machines"
    assert main(["pareto", str(folder), "--arch-out", str(machines)]) == 0
    out = capsys.readouterr().out
    commands = [shlex.split(line) for line in out.splitlines() if line.startswith("accel ")]
    table = Results.load(folder).table
    assert re.match(rf"{len(commands) // 2} of 6 points of .* are on the front", out)
    assert len(commands) == 2 * len(list(machines.iterdir())) > 2
    for command in commands[:2] + commands[-2:]:
        assert main([*command[1:], "--json", "-"]) == 0
        cycles = int(re.search(r'"cycles": (\d+)', capsys.readouterr().out)[1])
        index = int(re.search(r"test-(\d+)\.toml", " ".join(command))[1])
        label = "dense" if "dense" in command else "bdwp.2:4"
        assert table[f"mlp.{label}.cycles"][index] == cycles


def test_the_front_as_csv_has_whole_rows(folder, tmp_path, capsys):
    file = tmp_path / "front.csv"
    assert main(["pareto", str(folder), "--x", "time", "--y", "luts", "--csv", str(file)]) == 0
    printed = capsys.readouterr().out
    assert main(["pareto", str(folder), "--x", "time", "--y", "luts", "--csv", "-"]) == 0
    text = capsys.readouterr().out
    assert file.read_text() == text
    rows = list(csv.DictReader(io.StringIO(text)))
    assert list(rows[0]) == list(Space.load(folder / "space.toml").columns)
    assert {row["row_lanes"] for row in rows} <= {"1", "1,2"}
    assert all(row["mlp.dense.cycles"].isdigit() for row in rows)
    times, luts = ([float(row[name]) for row in rows] for name in ("time", "luts"))
    assert times == sorted(times)
    assert luts == sorted(luts, reverse=True)
    assert f"{len(rows)} of 6 points of {folder} are on the front" in printed


def test_wrong_arguments_are_refused_in_a_line(folder, tmp_path, capsys):
    space = tmp_path / "space.toml"
    assert refusal(capsys, "pareto", folder, "--x", "time") == "accel: x and y must be given together, or neither"
    assert refusal(capsys, "pareto", folder, "--x", "time", "--y", "edges").endswith(", not 'edges'")
    assert refusal(capsys, "pareto", tmp_path) == f"accel: {tmp_path} must be the folder of a sweep (accel explore --out)"
    assert refusal(capsys, "explore", tmp_path / "no.toml", "--out", folder) == f"accel: {tmp_path / 'no.toml'} does not exist"
    assert refusal(capsys, "explore", space, "--out", folder, "--sampler", "best") == (
        "accel: sampler must be one of grid, random, nsga2, tpe, not 'best'"
    )
    assert refusal(capsys, "explore", space, "--out", folder, "--budget", "much").startswith("accel: budget must be")
    space.write_text(TEXT)
    for wrong in (["--sampler", "best"], ["--sampler", "tpe"], ["--workers", "0"]):
        assert refusal(capsys, "explore", space, "--out", tmp_path / "new", *wrong)
    assert not (tmp_path / "new").exists()
    own = folder / "space.toml"
    assert refusal(capsys, "pareto", folder, "--csv", own).startswith("accel: output must be another file than the input")
    assert own.read_text() == TEXT
    space.write_text(TEXT + "\n")
    assert refusal(capsys, "explore", space, "--out", folder) == (
        f"accel: {folder} must be a new folder or one of this very space, not of another; choose another"
    )
