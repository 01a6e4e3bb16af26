"""Sweeps by Dask find the same, whoever dies; schedulers that cannot be used are refused."""

import multiprocessing
from concurrent.futures import ThreadPoolExecutor

import pandas as pd
import pytest
from small_space import TEXT

from accel.errors import ConfigError
from accel.explore.space import Space
from accel.explore.store import Results
from accel.explore.sweeping import sweep

pytest.importorskip("pyarrow")
pytest.importorskip("distributed")


def test_several_processes_find_the_same_though_one_is_killed(space, whole, tmp_path, one_by_one):
    started = []

    def kill_one(progress):
        if not started:
            started.extend(multiprocessing.active_children())
            started[0].kill()

    progress = sweep(space, tmp_path / "out", workers=2, sampler="random", report=kill_one)
    assert (progress.done, progress.total, progress.problems) == (36, 36, 12)
    pd.testing.assert_frame_equal(Results.load(tmp_path / "out").table, whole)
    assert len(started) == 2
    assert not started[0].is_alive()
    assert multiprocessing.active_children() == []


def test_the_workers_of_a_scheduler_find_the_same_twice_at_once(space, whole, tmp_path, one_by_one, local_cluster):
    other = Space.from_text(TEXT.replace("batch = 2", "batch = 4"), "space.toml")
    with local_cluster(n_workers=2, threads_per_worker=2) as local, ThreadPoolExecutor(2) as pool:
        assert local.scheduler_address.startswith("tcp://127.0.0.1:")
        for done in pool.map(
            lambda each: sweep(each, tmp_path / each.digest, scheduler=local.scheduler_address), (space, other)
        ):
            assert done.done == 36
    pd.testing.assert_frame_equal(Results.load(tmp_path / space.digest).table, whole)
    assert (Results.load(tmp_path / other.digest).table["time"] > whole["time"])[whole["problem"].isna()].all()


def test_a_scheduler_that_cannot_be_used_is_refused(space, tmp_path, monkeypatch, local_cluster):
    monkeypatch.setattr("accel.explore.cluster.CONNECT_SECONDS", 0.2)
    problem = "scheduler must be the address of a Dask scheduler, like tcp://host:8786, not {!r}"
    for address in ("tcp://127.0.0.1:9", "nowhere"):
        with pytest.raises(ConfigError, match=f"^{problem.format(address)}$"):
            sweep(space, tmp_path, scheduler=address)
    with local_cluster(n_workers=0, threads_per_worker=1) as empty:
        address = empty.scheduler_address
        problem = f"scheduler {address} must have workers; start one: dask worker {address}"
        with pytest.raises(ConfigError, match=f"^{problem}$"):
            sweep(space, tmp_path, scheduler=address)
