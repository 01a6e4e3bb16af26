"""Proofs for all inputs: the stream buffer and the counter that walks over a group's slots."""

import pytest
from amaranth.hdl import Array, Assert, Assume, Cat, Elaboratable, Module, Mux, Signal
from induction import prove

from accel.rtl.parameters import ArrayParameters
from accel.rtl.skid import SkidBuffer
from accel.rtl.slots import SlotCounter

pytestmark = pytest.mark.rtl


class SkidRules(Elaboratable):
    """A stream buffer beside a queue that says what it must hold."""

    def __init__(self, most=2):
        self.most = most
        self.valid, self.payload, self.ready = Signal(), Signal(4), Signal()

    @property
    def inputs(self):
        return [self.valid, self.payload, self.ready]

    def elaborate(self, platform):
        m = Module()
        m.submodules.dut = dut = SkidBuffer(4)
        m.d.comb += [dut.i.valid.eq(self.valid), dut.i.payload.eq(self.payload), dut.o.ready.eq(self.ready)]
        queue, count = Array([Signal(4, name=f"queue_{place}") for place in range(4)]), Signal(3)
        enters, leaves = dut.i.valid & dut.i.ready, dut.o.valid & dut.o.ready
        m.d.sync += count.eq(count + enters - leaves)
        with m.If(leaves):
            m.d.sync += [queue[place].eq(queue[place + 1]) for place in range(3)]
        with m.If(enters):
            m.d.sync += queue[(count - leaves)[:2]].eq(dut.i.payload)
        m.d.comb += [
            Assert(count <= self.most),
            Assert(dut.i.ready == (count != 2)),
            Assert(dut.o.valid == (count != 0)),
            Assert((count == 0) | (dut.o.payload == queue[0])),
        ]
        was_held, shown = Signal(), Signal(4)
        m.d.sync += [was_held.eq(dut.o.valid & ~dut.o.ready), shown.eq(dut.o.payload)]
        m.d.comb += Assert(~was_held | (dut.o.valid & (dut.o.payload == shown)))
        return m


class SlotRules(Elaboratable):
    """A slot counter beside one number that counts the slots of the group."""

    def __init__(self, late=0):
        self.late = late
        parameters = ArrayParameters(rows=1, cols=1, adder_latency=4, multiplier_latency=1, group=4, row_lanes=(1, 2, 4))
        self.dut = SlotCounter(parameters)
        self.go, self.limits = Signal(), Signal(3 * 3)

    @property
    def inputs(self):
        return [self.go, self.limits]

    def elaborate(self, platform):
        m, dut = Module(), self.dut
        m.submodules.dut = dut
        limits = [self.limits[3 * place : 3 * place + 3] for place in range(3)]
        fixed, is_first, slot = Signal(9), Signal(init=1), Signal(8)
        m.d.sync += [fixed.eq(self.limits), is_first.eq(0)]
        row_lanes, col_lanes, keep = limits
        cycles = row_lanes * col_lanes * keep
        m.d.comb += [
            Assume(is_first | (fixed == self.limits)),
            *(Assume((limit >= 1) & (limit <= 4)) for limit in limits),
            # A token comes while the counter is idle or in a group's last slot.
            Assume(~self.go | ~dut.o_active | (slot == cycles - 1)),
            dut.i_enable.eq(1),
            Cat(dut.i_row_lanes, dut.i_col_lanes, dut.i_keep, dut.i_go).eq(Cat(*limits, self.go)),
        ]
        m.d.sync += slot.eq(Mux(dut.o_active & (slot != cycles - 1), slot + 1, 0))
        place = (dut.o_entry * col_lanes + dut.o_col_lane) * row_lanes + dut.o_row_lane
        m.d.comb += [
            Assert(place == slot),
            *(
                Assert(count < limit)
                for count, limit in zip((dut.o_row_lane, dut.o_col_lane, dut.o_entry), limits, strict=True)
            ),
            Assert(dut.o_active | (slot == 0)),
            Assert(dut.o_starts == (dut.o_active & (slot == 0))),
            Assert(dut.o_ends == (dut.o_active & (slot == cycles - 1 + self.late))),
        ]
        was_told, had_ended = Signal(), Signal(init=1)
        m.d.sync += [was_told.eq(self.go), had_ended.eq(~dut.o_active | dut.o_ends)]
        m.d.comb += Assert(is_first | (dut.o_active == (was_told | ~had_ended)))
        return m


def test_the_stream_buffer_loses_and_changes_nothing():
    # It holds two words: every state it can reach, it reaches in a few cycles.
    rules = SkidRules()
    assert prove(rules, rules.inputs, depth=20, ever_after=False)


def test_a_buffer_of_one_is_not_provable():
    rules = SkidRules(most=1)
    assert not prove(rules, rules.inputs, depth=20, ever_after=False)


def test_the_slot_counter_walks_over_every_slot_once():
    rules = SlotRules()
    assert prove(rules, rules.inputs, depth=6)


def test_a_group_that_ends_a_slot_late_is_not_provable():
    rules = SlotRules(late=1)
    assert not prove(rules, rules.inputs, depth=20)
