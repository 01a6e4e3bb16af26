"""Sweeps: their order, their end, and that neither a stop nor the number of processes changes what they find."""

import pandas as pd
import pytest
from small_space import taken

from accel.errors import ConfigError
from accel.explore import sweeping
from accel.explore.pareto import front
from accel.explore.store import Folder, Results
from accel.explore.sweeping import Budget, sweep

pytest.importorskip("pyarrow")


@pytest.mark.parametrize(("text", "budget"), [
    ("12", Budget(points=12)), ("90s", Budget(seconds=90)), ("2m", Budget(seconds=120)), ("1h", Budget(seconds=3600)),
])  # fmt: skip
def test_a_budget_is_points_or_time(text, budget):
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "0", "0s", "-1", "1.5", "3d", "s", "1" * 13])
def test_another_budget_is_refused(text):
    with pytest.raises(ConfigError, match=f"^budget must be a number of points or a time like 90s, 10m or 2h, not {text!r}$"):
        Budget.parse(text)


def test_rows_hold_what_was_evaluated(space, whole):
    assert list(whole["index"]) == list(range(36))
    assert list(whole.columns) == list(space.columns)
    found = Results(whole, space.base, {}, ("array_rows", "array_cols", "row_lanes", "dataflows", "vector_lanes"))
    good = whole[whole["problem"].isna()]
    for index, arch in zip(good["index"], found.arches(good), strict=True):
        assert arch == space.arch(int(index))
    assert set(whole["problem"].dropna()) == {"test: row_lanes must divide adder_latency (2), not 3"}
    best = front(whole, ["time", "all_luts"])
    assert 1 < len(best) < len(good)


def test_a_budget_of_points_is_met_once_however_often_it_runs(space, whole, tmp_path):
    for points, fresh in ((5, 5), (5, 0), (9, 4), (100, 27)):
        with Folder(tmp_path / "out", space) as folder:
            progress = sweep(space, folder, sampler="random", seed=3, budget=Budget(points=points))
        assert (progress.done, progress.total) == (fresh, fresh)
        expected = sorted(taken("random", 3)[:points])
        assert list(Results.load(tmp_path / "out").table["index"]) == expected
    pd.testing.assert_frame_equal(Results.load(tmp_path / "out").table, whole)


def test_a_budget_of_time_ends_the_run(space, tmp_path, monkeypatch, one_by_one):
    clock = iter(range(1000))
    monkeypatch.setattr(sweeping.time, "monotonic", lambda: float(next(clock)))
    reports = []
    with Folder(tmp_path / "out", space) as folder:
        progress = sweep(space, folder, budget="20s", report=reports.append)
    assert 0 < progress.done < 20
    assert len(Results.load(tmp_path / "out").table) == progress.done == len(reports)
    assert all(0 <= each.seconds_left <= 20 for each in reports)


def test_chunks_grow_while_they_are_fast_and_shrink_where_they_are_slow(space, tmp_path, monkeypatch):
    sizes, seconds = [], iter([0.01, 0.1, 1.0, 2.0, *[0.5] * 40])

    class Clocked(sweeping.Local):
        def chunk(self, points):
            sizes.append(len(points))
            return super().chunk(points)._replace(seconds=next(seconds))

    monkeypatch.setattr(sweeping, "Local", Clocked)
    monkeypatch.setattr(sweeping, "_FIRST_CHUNK", 3)
    sweep(space, tmp_path / "out")
    assert sizes == [3, 6, 12, 6, 1, 1, 1, 1, 1, 1, 1, 1, 1]


def test_an_interruption_keeps_what_was_evaluated(space, tmp_path, one_by_one):
    def stop(progress):
        if progress.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Folder(tmp_path, space) as folder:
        sweep(space, folder, report=stop)
    assert list(Results.load(tmp_path).table["index"]) == [0, 1, 2, 3]


@pytest.mark.parametrize(("choice", "problem"), [
    ({"workers": 0}, "workers must be between 1 and 1024, not 0"),
    ({"workers": 2, "scheduler": "a"}, "workers must be those of scheduler a, not 2 more; leave out one of both"),
    ({"sampler": "best"}, "sampler must be one of grid, random, nsga2, tpe, not 'best'"),
])  # fmt: skip
def test_a_wrong_choice_is_refused(space, tmp_path, choice, problem):
    with Folder(tmp_path, space) as folder, pytest.raises(ConfigError, match=f"^{problem}$"):
        sweep(space, folder, **choice)
