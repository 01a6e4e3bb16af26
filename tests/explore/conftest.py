"""A small space, the table of all its points, and sweeps of one point after the other."""

from functools import partial

import pytest
from small_space import TEXT

from accel.explore import sweeping
from accel.explore.space import Space
from accel.explore.store import Folder, Results
from accel.explore.sweeping import sweep


@pytest.fixture(scope="session")
def space():
    return Space.from_text(TEXT, "space.toml")


@pytest.fixture(scope="session")
def whole(space, tmp_path_factory):
    """The table of an uninterrupted sweep."""
    path = tmp_path_factory.mktemp("whole") / "out"
    with Folder(path, space) as folder:
        progress = sweep(space, folder)
    assert (progress.done, progress.total, progress.problems, progress.seconds_left) == (36, 36, 12, 0)
    return Results.load(path).table


@pytest.fixture
def one_by_one(monkeypatch):
    """Make every chunk one point."""
    monkeypatch.setattr(sweeping, "_FIRST_CHUNK", 1)
    monkeypatch.setattr(sweeping, "CHUNK_SECONDS", 0)


@pytest.fixture
def local_cluster():
    """What starts a Dask cluster in this process, beside those of other tests: its dashboard takes any free port."""
    distributed = pytest.importorskip("distributed")
    return partial(distributed.LocalCluster, processes=False, protocol="tcp", dashboard_address="127.0.0.1:0")
