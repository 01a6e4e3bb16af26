import re

import pytest
import tomli_w

from accel.api import simulate
from accel.cli import main
from accel.dram import DEVICE_OF_PRESET, DEVICES, DramDevice, resolve_dram
from accel.errors import ConfigError
from accel.presets import PRESETS, preset

DEVICE = DEVICES["ddr4-2400-x4-4ch"]
STEP = ("mlp", "--arch", "edge-kv260", "--batch", "4", "--no-baseline")


def refused(make, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make()


def saved(tmp_path, device):
    path = tmp_path / "dram.toml"
    path.write_text(tomli_w.dumps(device.model_dump()))
    return path


@pytest.mark.parametrize("name", PRESETS)
def test_each_preset_has_a_device_of_its_bandwidth(name):
    device = resolve_dram("banks", preset(name))
    assert device is DEVICES[DEVICE_OF_PRESET[name]]
    assert device.bytes_per_second == pytest.approx(preset(name).dram_bytes_per_second)


@pytest.mark.parametrize("name", DEVICES)
def test_each_device_is_read_back_from_its_file(name, tmp_path):
    assert DramDevice.load(saved(tmp_path, DEVICES[name])) == DEVICES[name]


def test_sizes_follow_from_the_fields():
    assert (DEVICE.burst_bytes, DEVICE.burst_clocks, DEVICE.columns) == (64, 4, 128)
    assert DEVICE.span_bytes == 4 * 16 * 8192
    assert DEVICE.read_to_write == 17 + 4 + 2 - 12
    assert DEVICE.refresh_frac == 420 / 9360


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"channels": 3}, "channels must be a power of 2, not 3"),
        ({"channels": 0}, "channels must be at least 1, not 0"),
        ({"row_bytes": 1000}, "row_bytes must be a power of 2, not 1000"),
        ({"row_bytes": 32}, "row_bytes must be at least 64 (one burst), not 32"),
        ({"interleave_bytes": 32}, "interleave_bytes must be at least 64 (one burst), not 32"),
        ({"turn_bytes": 63}, "turn_bytes must be at least 64 (one burst), not 63"),
        ({"bus_bits": 4}, "bus_bits must be at least 8, not 4"),
        ({"burst_length": 1}, "burst_length must be at least 2, not 1"),
        ({"tCCD_S": 3}, "tCCD_S must be at least 4 (one burst), not 3"),
        ({"tCCD_L": 3, "tCCD_S": 4}, "tCCD_L must be at least 4 (tCCD_S), not 3"),
        ({"tRRD_L": 3}, "tRRD_L must be at least 4 (tRRD_S), not 3"),
        ({"tWTR_L": 2}, "tWTR_L must be at least 3 (tWTR_S), not 2"),
        ({"tREFI": 420}, "tREFI must be at least 421 (more than tRFC), not 420"),
        ({"CWL": 23}, "CWL must be at most CL + burst_length / 2 + 1 (22), not 23"),
        ({"tRCD": 0}, "tRCD must be at least 1, not 0"),
        ({"queue_bursts": 0}, "queue_bursts must be at least 1, not 0"),
        ({"address_order": ("group", "bank")}, "address_order must name group, column, bank once each, not ['group', 'bank']"),
        ({"address_order": ("row",)}, "address_order[0] must be 'group', 'column' or 'bank', not 'row'"),
        ({"ranks": 2}, "ranks is not a known field"),
    ],
)
def test_a_device_that_cannot_be_is_refused(changes, problem):
    refused(lambda: DEVICE.replace(**changes), f"{DEVICE.name}: {problem}")


def test_all_problems_of_a_file_come_at_once(tmp_path):
    path = tmp_path / "dram.toml"
    path.write_text(tomli_w.dumps({**DEVICE.model_dump(), "channels": 3, "turn_bytes": 1}))
    refused(
        lambda: DramDevice.load(path),
        f"{path}: channels must be a power of 2, not 3; turn_bytes must be at least 64 (one burst), not 1",
    )


def test_a_file_that_is_not_toml_is_refused(tmp_path):
    path = tmp_path / "dram.toml"
    path.write_text("name =")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(path))} must be TOML: "):
        DramDevice.load(path)


def test_flat_is_no_device():
    assert resolve_dram("flat", preset("test")) is None


def test_a_device_is_taken_as_it_is():
    assert resolve_dram(DEVICE, preset("sat-vcu1525")) is DEVICE


def test_an_unknown_dram_is_refused():
    refused(lambda: resolve_dram("bank", preset("test")), "dram must be flat, banks or a TOML file, not 'bank'")


def test_a_machine_of_ones_own_needs_a_file():
    refused(
        lambda: resolve_dram("banks", preset("test").replace(name="mine")),
        "dram must be flat or a TOML file for mine, which is no preset, not 'banks'",
    )


def test_a_device_of_another_bandwidth_is_refused():
    refused(
        lambda: resolve_dram("banks", preset("sat-vcu1525").replace(dram_bytes_per_second=38.4e9)),
        "dram_bytes_per_second of sat-vcu1525 must be the peak of DRAM ddr4-2400-x4-4ch (7.68e+10), not 3.84e+10; "
        "change the one or the other",
    )


def test_the_closed_form_has_no_banks(capsys):
    refused(
        lambda: simulate("mlp", "edge-kv260", batch=4, model="closed-form", dram="banks"),
        "model must be machine for DRAM ddr4-2400-x16, not closed-form; leave out model or dram",
    )
    assert main(["simulate", *STEP, "--dram", "banks", "--model", "closed-form"]) != 0
    message = "accel: model must be machine for DRAM ddr4-2400-x16, not closed-form; leave out model or dram\n"
    assert capsys.readouterr().err == message


def test_a_step_says_which_dram_it_has():
    flat, banks = (simulate("mlp", "edge-kv260", batch=4, baseline=False, dram=dram) for dram in ("flat", "banks"))
    assert (flat.dram, banks.dram) == ("flat", "ddr4-2400-x16")
    assert banks.to_dict()["dram"] == "ddr4-2400-x16"
    assert flat.cycles != banks.cycles
    assert flat.total("dram_bytes") == banks.total("dram_bytes")


def test_a_slower_device_makes_a_slower_step():
    device = DEVICES["ddr4-2400-x16"]
    refreshed_often = device.replace(tREFI=2 * device.tRFC)
    cycles = [simulate("mlp", "edge-kv260", batch=4, baseline=False, dram=one).cycles for one in (device, refreshed_often)]
    assert cycles[1] > cycles[0]


def test_a_baseline_of_another_dram_is_refused():
    baseline = simulate("mlp", "edge-kv260", method="dense", batch=4, baseline=False)
    where = "training of mlp on edge-kv260 at batch 4 with sgd"
    refused(
        lambda: simulate("mlp", "edge-kv260", batch=4, baseline=baseline, dram="banks"),
        f"baseline must be dense {where} (machine, DRAM ddr4-2400-x16), not dense {where} (machine)",
    )


def test_the_command_takes_a_file(tmp_path, capsys):
    assert main(["simulate", *STEP, "--dram", str(saved(tmp_path, DEVICES["ddr4-2400-x16"]))]) == 0
    assert "DRAM (ddr4-2400-x16, with banks and rows): " in capsys.readouterr().out


def test_the_command_is_flat_unless_told(capsys):
    assert main(["simulate", *STEP]) == 0
    assert "\nDRAM: " in capsys.readouterr().out
