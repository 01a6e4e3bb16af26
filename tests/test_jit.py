import os
import shutil
import subprocess
import sys
from pathlib import Path

import numba

import accel
from accel import jit
from accel.timing.array import os_tile_cycles

CALLER = """
from accel.jit import kernel
from accel.timing.array import os_tile_cycles

@kernel
def twice(steps):
    return 2 * os_tile_cycles(1, steps, 1, 1)
"""


def call_twice(folder, **environment):
    """Run a kernel of a copied package in a process of its own; return what it prints."""
    code = "from accel.timing.caller import twice; print(twice(5))"
    environment = {**os.environ, "PYTHONPATH": str(folder), "NUMBA_DISABLE_JIT": "0", **environment}
    result = subprocess.run(
        [sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True, check=True
    )
    return result.stdout.strip()


def copy_package(folder):
    shutil.copytree(Path(accel.__file__).parent, folder / "accel", ignore=shutil.ignore_patterns("__pycache__"))
    (folder / "accel/timing/caller.py").write_text(CALLER)


def test_an_edit_of_one_file_reaches_compiled_callers_in_another(tmp_path):
    copy_package(tmp_path)
    cache = tmp_path / "cache"
    assert call_twice(tmp_path, NUMBA_CACHE_DIR=str(cache)) == "10"
    assert list(cache.glob("*/*/caller.twice*.nbc"))
    source = tmp_path / "accel/timing/array.py"
    source.write_text(source.read_text().replace("return lanes * max(", "return 100 + lanes * max("))
    assert call_twice(tmp_path, NUMBA_CACHE_DIR=str(cache)) == "210"


def test_cache_lies_in_the_users_cache_folder(tmp_path):
    copy_package(tmp_path)
    assert call_twice(tmp_path, NUMBA_CACHE_DIR="", XDG_CACHE_HOME=str(tmp_path / "home")) == "10"
    assert list((tmp_path / "home").glob("nm-accel/*/*/caller.twice*.nbc"))


def test_a_cache_folder_that_cannot_be_written_does_not_matter(tmp_path):
    copy_package(tmp_path)
    (tmp_path / "file").touch()
    assert call_twice(tmp_path, NUMBA_CACHE_DIR=str(tmp_path / "file")) == "10"


def test_kernels_are_plain_python_with_numba_switched_off(tmp_path):
    copy_package(tmp_path)
    assert call_twice(tmp_path, NUMBA_DISABLE_JIT="1", NUMBA_CACHE_DIR=str(tmp_path / "cache")) == "10"
    assert not (tmp_path / "cache").exists()


def test_users_own_functions_keep_their_cache_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    jit.kernel(call_twice)
    assert str(tmp_path) == numba.config.CACHE_DIR


def test_kernels_do_not_use_fastmath():
    options = getattr(os_tile_cycles, "targetoptions", {})
    assert not options.get("fastmath", False)
