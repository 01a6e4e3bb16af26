"""Samplers that learn: no point twice, the same points for the same seed however often they are stopped, and they do learn."""

import logging
import random

import pandas as pd
import pytest
from small_space import WIDE

from accel.errors import ConfigError
from accel.explore import sweeping
from accel.explore.samplers import GENERATIONS, Study
from accel.explore.space import Space
from accel.explore.store import Folder, Results
from accel.explore.sweeping import sweep

pytest.importorskip("pyarrow")
optuna = pytest.importorskip("optuna")

BOTH = pytest.mark.parametrize("sampler", ["nsga2", "tpe"])


@BOTH
def test_every_point_is_asked_for_once_until_there_are_no_more(space, sampler):
    study = Study(space, sampler, seed=-1)
    asked = []
    while points := study.ask():
        asked += points
        study.tell([None if point % 3 == 2 else (float(point), float(-point)) for point in points])
    assert sorted(asked) == list(range(36))


def played(sampler, seed, points):
    """Return the points that a study of a made-up task asks for: less than half can run, the best are two corners."""
    space = Space.from_text(WIDE, "space.toml")
    study, asked = Study(space, sampler, seed), []
    while len(asked) < points:
        generation = study.ask()
        asked += [space.point(point) for point in generation]
        study.tell([costs_of(point) for point in asked[-len(generation) :]])
    return asked


def costs_of(point):
    rows, cols = point["array_rows"], point["array_cols"]
    return None if rows < cols or point["row_lanes"] == (3,) else ((40 - rows) ** 2 + cols**2, (rows - 30) ** 2 + cols**2)


@BOTH
def test_later_points_are_better_and_can_run_more_often(sampler):
    asked = played(sampler, 3, 5 * GENERATIONS[sampler])
    part = GENERATIONS[sampler]
    costs = [[costs_of(point) for point in some] for some in (asked[:part], asked[-part:])]
    can_run = [sum(cost is not None for cost in some) / part for some in costs]
    sums = [sorted(sum(cost) for cost in some if cost) for some in costs]
    assert can_run[0] < 0.5 < can_run[1], can_run
    assert sums[1][len(sums[1]) // 2] < sums[0][len(sums[0]) // 2] / 2, sums


@BOTH
def test_a_study_follows_from_its_seed(sampler):
    first, again, other = (played(sampler, seed, 3 * GENERATIONS[sampler]) for seed in (1, 1, 2))
    assert first == again != other


@BOTH
def test_a_stopped_search_goes_on_to_the_same_table(space, tmp_path, monkeypatch, one_by_one, sampler):
    monkeypatch.setitem(GENERATIONS, sampler, 5)
    sweep(space, tmp_path / "whole", sampler=sampler, seed=4, budget="23")
    generator, stops = random.Random(9), 0

    def stop(progress):
        if generator.random() < 0.2:
            raise KeyboardInterrupt

    with Folder(tmp_path / "out", space) as folder:
        sweep(space, folder, sampler="random", budget="6")  # what others found is not evaluated again
        before = folder.done()
        while stops < 100:
            try:
                sweep(space, folder, sampler=sampler, seed=4, budget="23", report=stop)
                break
            except KeyboardInterrupt:
                stops += 1
    whole, table = (Results.load(tmp_path / name).table for name in ("whole", "out"))
    assert stops > 1
    assert len(whole) == 23
    own = table[table["index"].isin(whole["index"])]
    pd.testing.assert_frame_equal(own.reset_index(drop=True), whole)
    others = table[~table["index"].isin(whole["index"])]["index"].to_numpy(dtype=int)
    assert before.has(others).all()


@BOTH
def test_several_workers_find_what_one_finds(space, tmp_path, monkeypatch, local_cluster, sampler):
    monkeypatch.setitem(GENERATIONS, sampler, 7)
    sweep(space, tmp_path / "one", sampler=sampler, budget="20")
    with local_cluster(n_workers=2, threads_per_worker=1) as cluster:
        sweep(space, tmp_path / "two", sampler=sampler, budget="20", scheduler=cluster.scheduler_address)
    pd.testing.assert_frame_equal(*(Results.load(tmp_path / name).table for name in ("one", "two")))


def test_a_search_ends_with_its_time(space, tmp_path, monkeypatch):
    clock = iter(range(1000))
    monkeypatch.setattr(sweeping.time, "monotonic", lambda: float(next(clock)))
    monkeypatch.setitem(GENERATIONS, "nsga2", 5)
    assert sweep(space, tmp_path, sampler="nsga2", budget="30s").done in range(5, 30)


@BOTH
def test_a_search_without_an_end_is_refused(space, tmp_path, sampler):
    with pytest.raises(ConfigError, match=f"^budget must be given with sampler {sampler}: points or a time, like 500 or 10m$"):
        sweep(space, tmp_path, sampler=sampler)


def test_optuna_says_nothing_and_speaks_again_afterwards(space, capfd, caplog):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    optuna.logging.enable_propagation()
    try:
        with caplog.at_level(logging.DEBUG):
            study = Study(space, "nsga2", 0)
            study.tell([None] * len(study.ask()))
        assert caplog.records == []
        assert capfd.readouterr() == ("", "")
        assert optuna.logging.get_verbosity() == optuna.logging.INFO
    finally:
        optuna.logging.disable_propagation()
