"""A sweep that is killed, at whatever moment, goes on with nothing repeated or lost."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from random import Random

import killed_sweep
import pandas as pd
import pytest
from small_space import WIDE

from accel.explore.space import Space
from accel.explore.store import Results
from accel.explore.sweeping import sweep

pytest.importorskip("pyarrow")
pytest.importorskip("optuna")
ROOT = Path(__file__).parents[2]
PYTHON = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support")])}


def check_kills(tmp_path, sampler, budget, kills, seed):
    """Compare the table of killed sweeps with that of an uninterrupted one."""
    print("seed", seed)
    command = [sys.executable, killed_sweep.__file__, str(tmp_path / "out"), sampler, str(budget), str(kills), str(seed)]
    killed = int(subprocess.run(command, env=os.environ | PYTHON, check=True, capture_output=True, text=True).stdout)
    assert killed > kills / 2
    sweep(Space.from_text(WIDE, "space.toml"), tmp_path / "whole", sampler=sampler, budget=str(budget))
    whole, table = (Results.load(tmp_path / name).table for name in ("whole", "out"))
    assert len(whole) == budget
    pd.testing.assert_frame_equal(table, whole)
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("sampler", ["random", "nsga2"])
def test_a_killed_sweep_goes_on_with_nothing_repeated_or_lost(tmp_path, sampler):
    check_kills(tmp_path, sampler, budget=60, kills=5, seed=1)


@pytest.mark.soak
@pytest.mark.parametrize("sampler", ["grid", "random", "nsga2", "tpe"])
def test_fifty_kills_change_nothing(tmp_path, sampler):
    check_kills(tmp_path, sampler, budget=600, kills=50, seed=2)


@pytest.mark.soak
def test_kills_of_a_sweep_with_workers_leave_none_of_them_and_change_nothing(tmp_path):
    pytest.importorskip("distributed")
    (tmp_path / "space.toml").write_text(WIDE)
    command = [sys.executable, "-m", "accel", "explore", str(tmp_path / "space.toml"), "--out", str(tmp_path / "out")]
    command += ["--workers", "2", "--budget", "9000", "--sampler", "random"]
    generator, killed = Random(3), 0
    for _ in range(10):
        child = subprocess.Popen(command, env=os.environ | PYTHON, start_new_session=True, stdout=subprocess.DEVNULL)
        time.sleep(generator.uniform(2, 8))
        child.kill()
        killed += child.wait() == -signal.SIGKILL
        deadline = time.monotonic() + 30
        while members(child.pid):
            assert time.monotonic() < deadline, members(child.pid)
            time.sleep(0.1)
    assert killed > 2
    subprocess.run(command, env=os.environ | PYTHON, check=True, capture_output=True)
    sweep(Space.from_text(WIDE, "space.toml"), tmp_path / "whole", sampler="random", budget="9000")
    whole, table = (Results.load(tmp_path / name).table for name in ("whole", "out"))
    assert len(whole) == 9000
    pd.testing.assert_frame_equal(table, whole)


def members(session):
    """Return the processes of a session."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            fields = (process / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == session and fields[0] != "Z":
            found.append(process.name)
    return found
