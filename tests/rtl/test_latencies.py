# amaranth: UnusedElaboratable=no
"""The fixed latencies that the package publishes, each seen in a simulation of the array."""

import json

import pytest
from amaranth.hdl import Value
from amaranth.sim import Simulator

from accel.presets import preset
from accel.rtl import array
from accel.rtl.array import SystolicArray
from accel.rtl.command import Run
from accel.rtl.package import package
from accel.rtl.parameters import ArrayParameters
from accel.rtl.vectors import command_word
from accel.sparsity import NMPattern

pytestmark = pytest.mark.rtl

ARCH = preset("test").replace(name="small", array_rows=2, array_cols=2, group=2)
PARAMETERS = ArrayParameters.of(ARCH)
ONE = 0x3C00
PATIENCE_CYCLES = 300


def run_of(dataflow):
    """Return a run that fills every row and column."""
    lanes = PARAMETERS.adder_latency
    sizes = {"count": 1, "dim_m": 2, "dim_n": 2 * lanes, "groups": 2, "m_chunk": 2}
    return Run(dataflow=dataflow, row_lanes=1, pattern=NMPattern(2, 2), **sizes)


def watch(monkeypatch, run):
    """Run `run` on ones; return the cycles of its events, from that in which its command is taken, and its counters."""
    parts = {}

    def remember(m, platform, name, component):
        parts.setdefault(name, component)
        return original(m, platform, name, component)

    original = array.place
    monkeypatch.setattr(array, "place", remember)
    dut = SystolicArray(PARAMETERS)
    seen = {}

    async def bench(context):
        for port in dut.i_west:
            context.set(Value.cast(port.payload), ONE << 16 | ONE)
            context.set(port.valid, 1)
        for port in dut.i_north:
            context.set(port.payload, {"value": ONE, "index": 0, "valid": 1})
            context.set(port.valid, 1)
        for port in dut.o_out:
            context.set(port.ready, 1)
        for _ in range(4):
            await context.tick()
        context.set(Value.cast(dut.i_command.payload), command_word(PARAMETERS, run))
        context.set(dut.i_command.valid, 1)
        void = PARAMETERS.operand_format.void
        for cycle in range(PATIENCE_CYCLES):
            events = {
                "first operand": context.get(parts["pe_0_0"].i_entry.operand.as_value()) != void,
                "visible": context.get(parts["column_foot_0"].o_visible),
                "out valid": context.get(dut.o_out[0].valid),
                "ready": cycle and context.get(dut.i_command.ready),
            }
            for name, happens in events.items():
                if happens:
                    seen.setdefault(name, cycle)
            await context.tick()
            context.set(dut.i_command.valid, 0)
        seen["cycles"] = context.get(dut.o_cycles)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return seen


@pytest.mark.parametrize("dataflow", ["OS", "WS"])
def test_the_published_latencies_are_those_of_the_circuit(monkeypatch, dataflow):
    seen = watch(monkeypatch, run_of(dataflow))
    published = json.loads(package(ARCH, "array")["nm_array.json"])["latencies_cycles"]
    assert seen["first operand"] == published["command_to_first_operand"]
    assert seen["out valid"] - seen["visible"] == published["visible_result_to_out_valid"]
    assert seen["ready"] - seen["cycles"] == published["run_cycles_to_command_ready"]
