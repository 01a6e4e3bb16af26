import math
import re

import pytest

from accel.arch import Arch
from accel.errors import ConfigError
from accel.presets import PRESETS, preset
from accel.sparsity import DENSE, NMPattern

TEST = preset("test")


def refused(make, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make()


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_is_saved_and_loaded_back(name, tmp_path):
    arch = preset(name)
    assert arch.name == name
    path = tmp_path / "arch.toml"
    arch.save(path)
    assert Arch.load(path) == arch
    assert Arch.load(str(path)) == arch


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_holds_a_tile_and_moves_a_vector_a_cycle(name):
    arch = preset(name)
    assert arch.fits_one_tile() == []
    peak_elems = arch.dram_bytes_per_second / arch.clock_hz / 2
    assert arch.vector_lanes == math.floor(peak_elems / arch.group) * arch.group


def test_an_unknown_preset_is_refused():
    refused(
        lambda: preset("tset"),
        "arch must be one of sat-vcu1525, sat-vcu1525-g16, test, edge-kv260, dc-128 or a TOML file, not 'tset'",
    )


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"group": 12}, "group must be a power of 2, not 12"),
        ({"group": 0}, "group must be at least 1, not 0"),
        ({"group": 512}, "group must be at most 256, not 512"),
        ({"row_lanes": (1, 3)}, "row_lanes must divide adder_latency (2), not 3"),
        ({"row_lanes": (0,)}, "row_lanes must divide adder_latency (2), not 0"),
        ({"row_lanes": (1, 1)}, "row_lanes must not repeat, not [1, 1]"),
        ({"row_lanes": ()}, "row_lanes must have 1 or more entries, not ()"),
        ({"dataflows": ("IS",)}, "dataflows[0] must be 'OS' or 'WS', not 'IS'"),
        ({"dataflows": ()}, "dataflows must have 1 or more entries, not ()"),
        ({"drain_lanes": 5}, "drain_lanes must be at most array_rows (4), not 5"),
        ({"array_rows": 0}, "array_rows must be at least 1, not 0"),
        ({"array_cols": 2.0}, "array_cols must be an integer, not 2.0"),
        ({"array_cols": "4"}, "array_cols must be an integer, not '4'"),
        ({"clock_hz": 0.0}, "clock_hz must be at least 1000.0, not 0.0"),
        ({"clock_hz": math.inf}, "clock_hz must be a finite number, not inf"),
        ({"dram_efficiency_frac": 1.5}, "dram_efficiency_frac must be at most 1.0, not 1.5"),
        ({"dram_capacity_bytes": 2**46 + 1}, f"dram_capacity_bytes must be at most {2**46}, not {2**46 + 1}"),
        ({"name": ""}, "name must not be empty, not ''"),
        ({"colour": "red"}, "colour is not a known field"),
    ],
)
def test_a_bad_field_is_refused(changes, problem):
    refused(lambda: TEST.replace(**changes), f"test: {problem}")


def write(path, **changes):
    lines = TEST.to_toml().splitlines()
    fields = {line.split(" = ")[0]: line for line in lines if " = " in line}
    kept = [line for name, line in fields.items() if name not in changes and not name.startswith((" ", "]"))]
    path.write_text("\n".join([*kept, *(f"{name} = {value}" for name, value in changes.items() if value)]), encoding="utf-8")
    return path


LISTS = {"row_lanes": "[1, 2]", "dataflows": '["OS"]'}


def test_a_file_may_leave_out_what_has_a_default(tmp_path):
    path = write(tmp_path / "mine.toml", **{**LISTS, "dataflows": "", "drain_lanes": "", "description": ""})
    assert Arch.load(path) == TEST.replace(description="")


def test_all_problems_of_a_file_come_at_once(tmp_path):
    path = write(tmp_path / "mine.toml", **LISTS, array_rows="0", group='"8"', clock_hz="nan", colour="1", sore_lanes="")
    refused(
        lambda: Arch.load(path),
        f"{path}: array_rows must be at least 1, not 0; clock_hz must be a finite number, not nan; "
        "group must be an integer, not '8'; sore_lanes is missing; colour is not a known field",
    )


def test_all_contradictions_of_a_file_come_at_once(tmp_path):
    path = write(tmp_path / "mine.toml", **{**LISTS, "row_lanes": "[4, 4]"}, group="12", drain_lanes="9")
    refused(
        lambda: Arch.load(path),
        f"{path}: group must be a power of 2, not 12; row_lanes must divide adder_latency (2), not 4; "
        "row_lanes must not repeat, not [4, 4]; drain_lanes must be at most array_rows (4), not 9",
    )


def test_a_file_that_is_not_toml_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text("name = \n", encoding="utf-8")
    refused(lambda: Arch.load(path), f"{path} must be TOML: Invalid value (at line 1, column 8)")


def test_a_binary_file_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_bytes(b"\xff\xfe\x00")
    refused(lambda: Arch.load(path), f"{path} must be UTF-8 text, not binary data")


def test_a_directory_is_refused(tmp_path):
    refused(lambda: Arch.load(tmp_path), f"{tmp_path} must be a file, not a directory")
    refused(lambda: TEST.save(tmp_path), f"{tmp_path} must be a file, not a directory")


def test_a_missing_file_is_refused(tmp_path):
    path = tmp_path / "none.toml"
    refused(lambda: Arch.load(path), f"{path} does not exist")


def test_a_folder_that_does_not_exist_cannot_be_written_to(tmp_path):
    path = tmp_path / "none" / "mine.toml"
    refused(lambda: TEST.save(path), f"{path} cannot be written: No such file or directory; choose another output")


def test_a_machine_cannot_be_changed_in_place():
    with pytest.raises(ValueError, match="frozen"):
        TEST.array_rows = 8


@pytest.mark.parametrize(("text", "run"), [("2:4", "2:4"), ("1:2", "2:4"), ("3:4", "3:4"), ("1:1", "dense"), ("9:9", "dense")])
def test_patterns_run_as_the_machines(text, run):
    assert str(TEST.run_pattern(NMPattern.parse(text))) == run


def test_dense_runs_one_element_at_a_time():
    assert TEST.run_pattern(DENSE) == DENSE


def test_a_pattern_beyond_the_group_is_refused():
    refused(
        lambda: TEST.run_pattern(NMPattern(2, 16)),
        "pattern group must be at most the group of test (4), not 16 (pattern 2:16); choose a machine with a larger group",
    )
