"""The folder of a sweep: whole parts or none, few of them, and nobody else's folder."""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from small_space import TEXT

from accel.errors import ConfigError
from accel.explore.space import Space
from accel.explore.store import Folder, Results
from accel.explore.sweeping import Budget, sweep

pytest.importorskip("pyarrow")


def test_a_part_half_written_is_as_if_never_begun(space, whole, tmp_path):
    with Folder(tmp_path, space) as folder:
        sweep(space, folder, budget=Budget(points=7))
    (tmp_path / "parts" / "part-00000001-00000001.parquet.tmp").write_bytes(b"PAR1 and then")
    with Folder(tmp_path, space) as folder:
        assert folder.done().has(np.arange(9)).tolist() == [True] * 7 + [False] * 2
        sweep(space, folder)
    pd.testing.assert_frame_equal(Results.load(tmp_path).table, whole)


def test_rows_are_written_by_number_and_by_time(space, tmp_path, one_by_one):
    with Folder(tmp_path / "a", space, part_rows=10) as folder:
        sweep(space, folder)
    assert len(list((tmp_path / "a" / "parts").iterdir())) == 4
    with Folder(tmp_path / "b", space, part_seconds=0) as folder:
        sweep(space, folder, budget=Budget(points=6))
    assert len(list((tmp_path / "b" / "parts").iterdir())) == 6


def test_files_of_others_are_never_touched(space, tmp_path):
    notes = tmp_path / "notes.tmp"
    notes.write_text("mine")
    with pytest.raises(
        ConfigError, match=f"^{re.escape(f'{tmp_path} must be a new folder or that of a sweep, not one with notes.tmp in it')}$"
    ):
        Folder(tmp_path, space)
    assert [entry.name for entry in tmp_path.iterdir()] == ["notes.tmp"]
    notes.rename(tmp_path / "base.toml.tmp")  # what a sweep leaves that was stopped as it began
    with Folder(tmp_path, space):
        assert not (tmp_path / "base.toml.tmp").exists()
        notes.write_text("mine")
    with Folder(tmp_path, space):
        assert notes.read_text() == "mine"


def names(path):
    return sorted(part.name for part in (path / "parts").iterdir())


def test_many_parts_become_few(space, whole, tmp_path, one_by_one):
    with Folder(tmp_path, space, part_rows=1) as folder:
        sweep(space, folder, sampler="random")
    assert names(tmp_path) == [
        f"part-{first:08d}-{last:08d}.parquet" for first, last in [(0, 15), (16, 31), (32, 32), (33, 33), (34, 34), (35, 35)]
    ]
    pd.testing.assert_frame_equal(Results.load(tmp_path).table, whole)


def test_an_end_between_a_merge_and_the_removal_of_what_was_merged_leaves_nothing_twice(
    space, whole, tmp_path, monkeypatch, one_by_one
):
    def die(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", die)
        with pytest.raises(KeyboardInterrupt), Folder(tmp_path, space, part_rows=1) as folder:
            sweep(space, folder)
    assert len(names(tmp_path)) == 17
    assert list(Results.load(tmp_path).table["index"]) == list(range(16))
    with Folder(tmp_path, space) as folder:
        assert names(tmp_path) == ["part-00000000-00000015.parquet"]
        assert folder.rows == 16
        sweep(space, folder)
    pd.testing.assert_frame_equal(Results.load(tmp_path).table, whole)


def test_a_folder_of_another_version_is_refused(space, tmp_path):
    sweep(space, tmp_path, budget="1")
    key = tmp_path / "sweep.json"
    key.write_text(key.read_text().replace('"schema_version": 2', '"schema_version": 1'))
    message = f"{key} must have schema_version 2, not 1; sweep into a new folder"
    for read in (lambda: Results.load(tmp_path), lambda: Folder(tmp_path, space)):
        with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
            read()


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
