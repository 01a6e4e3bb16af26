"""Sweeps: their order, their end, and that neither a stop nor the number of processes changes what they find."""

import multiprocessing
import random
import re
import signal
import time
from collections import Counter

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.errors import ConfigError
from accel.explore import sweep as sweeping
from accel.explore.pareto import front
from accel.explore.space import Space
from accel.explore.store import Folder, Results
from accel.explore.sweep import Budget, order, shuffled, sweep

pytest.importorskip("pyarrow")

TEXT = """
[arch]
base = "test"
[vary]
array_rows = [2, 4, 8]
array_cols = [2, 4]
row_lanes = [[1], [1, 2], [3]]
dataflows = [["OS"], ["OS", "WS"]]
[derive]
vector_lanes = "2 * array_cols"
[work]
networks = {mlp = 1.0}
batch = 2
methods = [{method = "bdwp", pattern = "2:4"}]
"""


@pytest.fixture(scope="module")
def space():
    return Space.from_text(TEXT, "space.toml")


@pytest.fixture(scope="module")
def whole(space, tmp_path_factory):
    """The table of an uninterrupted sweep."""
    path = tmp_path_factory.mktemp("whole") / "out"
    with Folder(path, space) as folder:
        progress = sweep(space, folder)
    assert (progress.done, progress.total, progress.problems, progress.seconds_left) == (36, 36, 12, 0)
    return Results.load(path).table


@given(st.integers(1, 3000), st.integers(0, 2**40))
def test_the_random_order_has_every_number_once(size, seed):
    assert sorted(shuffled(at, size, seed) for at in range(size)) == list(range(size))


def test_the_random_order_follows_from_its_seed(space):
    orders = [list(order(space, "random", seed)) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert orders[0] != list(order(space, "grid")) == list(range(36))
    assert {shuffled(0, 10**30, seed) > 10**28 for seed in range(8)} == {True}


def test_first_places_of_many_seeds_go_everywhere():
    counts = Counter(shuffled(0, 10, seed) for seed in range(2000))
    assert min(counts.values()) > 130
    assert max(counts.values()) < 280


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
        expected = sorted(list(order(space, "random", 3))[:points])
        assert list(Results.load(tmp_path / "out").table["index"]) == expected
    pd.testing.assert_frame_equal(Results.load(tmp_path / "out").table, whole)


def test_a_budget_of_time_ends_the_run(space, tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(sweeping.time, "monotonic", lambda: float(next(clock)))
    reports = []
    with Folder(tmp_path / "out", space) as folder:
        progress = sweep(space, folder, budget=Budget(seconds=20), report=reports.append)
    assert 0 < progress.done < 20
    assert len(Results.load(tmp_path / "out").table) == progress.done == len(reports)
    assert all(0 <= each.seconds_left <= 20 for each in reports)


def test_several_processes_find_the_same(space, whole, tmp_path):
    with Folder(tmp_path / "out", space) as folder:
        progress = sweep(space, folder, workers=2, sampler="random")
    assert progress.done == 36
    pd.testing.assert_frame_equal(Results.load(tmp_path / "out").table, whole)


def _sweep_slowly(path, text):
    space = Space.from_text(text, "space.toml")
    with Folder(path, space, part_rows=2) as folder:
        sweep(space, folder, sampler="random", report=lambda progress: time.sleep(0.015))


@pytest.mark.parametrize("seed", [1, 2])
def test_a_killed_sweep_goes_on_with_nothing_repeated_or_lost(space, whole, tmp_path, seed):
    path, generator = tmp_path / "out", random.Random(seed)
    context = multiprocessing.get_context("fork")
    killed = 0
    for _ in range(5):
        child = context.Process(target=_sweep_slowly, args=(path, TEXT))
        child.start()
        child.join(generator.uniform(0.03, 0.15))
        child.kill()
        child.join()
        killed += child.exitcode == -signal.SIGKILL
    assert killed > 0
    _sweep_slowly(path, TEXT)
    pd.testing.assert_frame_equal(Results.load(path).table, whole)
    assert not list(path.rglob("*.tmp"))


def test_a_part_half_written_is_as_if_never_begun(space, whole, tmp_path):
    with Folder(tmp_path, space) as folder:
        sweep(space, folder, budget=Budget(points=7))
    (tmp_path / "parts" / "part-000000000007.parquet.tmp").write_bytes(b"PAR1 and then")
    with Folder(tmp_path, space) as folder:
        assert folder.done == set(range(7))
        sweep(space, folder)
    pd.testing.assert_frame_equal(Results.load(tmp_path).table, whole)


def test_an_interruption_keeps_what_was_evaluated(space, tmp_path):
    def stop(progress):
        if progress.done == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Folder(tmp_path, space) as folder:
        sweep(space, folder, report=stop)
    assert list(Results.load(tmp_path).table["index"]) == [0, 1, 2, 3]


def test_rows_are_written_by_number_and_by_time(space, tmp_path):
    with Folder(tmp_path / "a", space, part_rows=10) as folder:
        sweep(space, folder)
    assert len(list((tmp_path / "a" / "parts").iterdir())) == 4
    with Folder(tmp_path / "b", space, part_seconds=0) as folder:
        sweep(space, folder, budget=Budget(points=6))
    assert len(list((tmp_path / "b" / "parts").iterdir())) == 6


def test_the_folder_of_another_space_is_refused(space, tmp_path):
    with Folder(tmp_path, space) as folder:
        sweep(space, folder, budget=Budget(points=1))
    other = Space.from_text(TEXT.replace("batch = 2", "batch = 4"), "a")
    message = f"{tmp_path} must be a new folder or one of this very space, not of another; choose another"
    for _ in range(2):  # and it is not left locked
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            Folder(tmp_path, other)
    assert (tmp_path / "space.toml").read_text() == TEXT


def test_a_folder_in_use_is_refused(space, tmp_path):
    message = f"{tmp_path} must not be in use by another sweep; wait for it, or choose another folder"
    with Folder(tmp_path, space), pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Folder(tmp_path, space)
    with Folder(tmp_path, space):
        pass


def test_a_folder_with_other_things_is_left_alone(space, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ConfigError, match=r" must be a new folder or that of a sweep, not one with thesis\.tex in it$"):
        Folder(tmp_path, space)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(ConfigError, match=r" must be a folder, not a file$"):
        Folder(tmp_path / "thesis.tex", space)
    with pytest.raises(ConfigError, match=r" must be the folder of a sweep \(accel explore --out\)$"):
        Results.load(tmp_path)


def test_a_damaged_part_is_named(space, tmp_path):
    with Folder(tmp_path, space) as folder:
        sweep(space, folder, budget=Budget(points=1))
    (part,) = (tmp_path / "parts").iterdir()
    part.write_bytes(part.read_bytes()[:-9])
    for read in (lambda: Results.load(tmp_path), lambda: Folder(tmp_path, space)):
        message = f"{part} cannot be read; remove it to have its points evaluated again"
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            read()
    part.unlink()
    with pytest.raises(ConfigError, match=r" must hold rows; it has none yet$"):
        Results.load(tmp_path)


@pytest.mark.parametrize(("choice", "problem"), [
    ({"workers": 0}, "workers must be between 1 and 1024, not 0"),
    ({"sampler": "best"}, "sampler must be one of grid, random, not 'best'"),
])  # fmt: skip
def test_a_wrong_choice_is_refused(space, tmp_path, choice, problem):
    with Folder(tmp_path, space) as folder, pytest.raises(ConfigError, match=f"^{problem}$"):
        sweep(space, folder, **choice)
