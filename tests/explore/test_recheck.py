"""The best points by the machine model: what `simulate` says of them, and which ranks it changes."""

import csv
import io
import json

import pandas as pd
import pytest

from accel.api import simulate
from accel.cli import main
from accel.errors import ConfigError
from accel.explore import Results, Space, front, recheck, sweep
from accel.explore.rechecking import Recheck, describe

pytest.importorskip("pyarrow")

TEXT = """
[arch]
base = "test"
[vary]
array_rows = [2, 4, 3]
row_lanes = [[1], [1, 2]]
[work]
networks = {mlp = 1.0}
batch = 2
methods = [{method = "bdwp", pattern = "2:4", weight = 3.0}, {method = "dense"}]
[objectives]
names = ["time", "all_luts", "edp"]
energy = "asic-45nm"
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recheck") / "out"
    sweep(Space.from_text(TEXT, "space.toml"), path)
    return path


@pytest.fixture(scope="module")
def result(folder):
    return recheck(folder, points=3)


def test_points_are_the_first_of_the_front_and_cost_what_simulate_says(folder, result):
    results = Results.load(folder)
    best = front(results.table, ["time", "all_luts", "edp"]).head(3)
    pd.testing.assert_frame_equal(result.table[[*best.columns]], best)
    assert result.objectives == ("time", "edp")
    for row, arch in zip(result.table.to_dict("records"), results.arches(best), strict=True):
        reports = {
            method: simulate("mlp", arch, method=method, pattern="2:4", batch=2, baseline=False, energy="asic-45nm")
            for method in ("bdwp", "dense")
        }
        for label, report in zip(("bdwp.2:4", "dense"), reports.values(), strict=True):
            assert report.model == "machine"
            assert row[f"machine.mlp.{label}.cycles"] == report.cycles
            assert row[f"machine.mlp.{label}.joules"] == report.energy.joules
        assert row["machine.time"] == pytest.approx(0.75 * reports["bdwp"].seconds + 0.25 * reports["dense"].seconds)


def test_ranks_count_from_the_best(result):
    for name in ("time", "machine.time", "edp", "machine.edp"):
        ranked = result.table.sort_values(name)[f"{name}.rank"]
        assert ranked.tolist() == sorted(ranked)
        assert ranked.iloc[0] == 1
    assert result.table["machine.front"].any()


def rechecked(times, machine_times):
    table = pd.DataFrame({"index": range(len(times)), "time": times, "machine.time": machine_times})
    for name in ("time", "machine.time"):
        table[f"{name}.rank"] = table[name].rank(method="min").astype("Int64")
    return Recheck(table, ("time",))


@pytest.mark.parametrize(("machine_times", "sentence"), [
    ([1.5, 2.0, 3.0], "1.0000 to 1.5000 of the closed form; no rank changes"),
    ([1.5, 3.5, 3.0], "1.0000 to 1.7500 of the closed form; 2 of 3 ranks change, the best stays the best"),
    ([2.5, 2.0, 3.0], "1.0000 to 2.5000 of the closed form; 2 of 3 ranks change, the best is now point 1"),
])  # fmt: skip
def test_a_sentence_says_what_changes(machine_times, sentence):
    assert describe(rechecked([1.0, 2.0, 3.0], machine_times)) == [f"time: by the machine model {sentence}"]
    assert describe(rechecked([1.0, 2.0], [float("nan")] * 2)) == ["time: no point runs by the machine model"]


def test_a_point_that_does_not_run_by_the_machine_model_says_why(folder, monkeypatch):
    def refuse(*arguments, **choices):
        raise ConfigError("too long a program")

    monkeypatch.setattr("accel.explore.rechecking.simulate", refuse)
    table = recheck(folder, ["time", "luts"], points=2).table
    assert table["machine.problem"].tolist() == ["too long a program"] * 2
    assert table["machine.time.rank"].isna().all()
    assert not table["machine.front"].any()


def test_the_command_prints_or_writes_the_points(folder, result, tmp_path, capsys):
    assert main(["recheck", str(folder), "--points", "3"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("the first 2 points of the front, closed form and machine model\n")
    assert all(sentence in " ".join(out.split()) for sentence in describe(result))
    assert main(["recheck", str(folder), "--points", "3", "--json", "-", "--csv", str(tmp_path / "a.csv")]) == 0
    written = json.loads(capsys.readouterr().out)
    assert written["objectives"] == ["time", "edp"]
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    for row, point, expected in zip(rows, written["points"], result.table.to_dict("records"), strict=True):
        assert list(row) == list(point) == list(result.table.columns)
        assert int(row["machine.mlp.dense.cycles"]) == point["machine.mlp.dense.cycles"] == expected["machine.mlp.dense.cycles"]
        assert float(row["machine.time"]) == expected["machine.time"] == point["machine.time"]
        assert point["machine.problem"] is None


def test_a_wrong_choice_is_refused(folder):
    with pytest.raises(ConfigError, match=r"^points must be at least 1, not 0$"):
        recheck(folder, points=0)
    names = "time, energy_joules, edp, power_watts, samples_per_second_per_lut"
    with pytest.raises(ConfigError, match=rf"^objectives must have one that the model decides \({names}\), not only luts$"):
        recheck(folder, ["luts", "dsps"])


def test_a_space_whose_files_changed_is_refused(tmp_path, capsys):
    trace, out = tmp_path / "net.json", tmp_path / "out"
    trace.write_text(Space.from_text(TEXT, "a").traces["mlp"].to_json())
    sweep(Space.from_text(TEXT.replace("mlp", f'"{trace}"'), "a"), out, budget="1")
    trace.write_text(trace.read_text().replace("mlp", "pml"))
    assert main(["recheck", str(out)]) == 2
    problem = f"{out / 'space.toml'} must name what it did when {out} was made; it changed since"
    assert capsys.readouterr().err == f"accel: {problem}\n"
    assert main(["recheck", str(out), "--x", "time"]) == 2
    assert capsys.readouterr().err == "accel: x and y must be given together, or neither\n"
