"""The slots of a group: for each entry, for each column lane, for each row lane, one cycle."""

from __future__ import annotations

from typing import Any

from amaranth import EnableInserter, Module, Signal, unsigned
from amaranth.lib import wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from accel.rtl.parameters import ArrayParameters


class SlotCounter(wiring.Component):
    """Counts through the slots of a group: for each entry, for each column lane, for each row lane, one cycle.

    There are `keep * col_lanes * row_lanes` of them, the first in the cycle after `i_go`. Counts are 0 in the first slot.
    `o_starts` and `o_ends` mark the first and the last slot; `i_go` in the last slot makes the next group follow without a gap.
    Limits must not change while `o_active` is high. All holds while `i_enable` is low.
    """

    verilog_name = "slot_counter"
    reads = ("adder_latency", "group", "row_lanes")

    def __init__(self, parameters: ArrayParameters) -> None:
        self.parameters = parameters
        row_lanes, col_lanes = bits_for(parameters.max_row_lanes), bits_for(parameters.max_col_lanes)
        keep = bits_for(parameters.group)
        super().__init__(
            {
                "i_enable": In(1),
                "i_go": In(1),
                "i_row_lanes": In(row_lanes),
                "i_col_lanes": In(col_lanes),
                "i_keep": In(keep),
                "o_active": Out(1),
                "o_row_lane": Out(row_lanes),
                "o_col_lane": Out(col_lanes),
                "o_entry": Out(keep),
                "o_is_last_row_lane": Out(1),
                "o_is_last_col_lane": Out(1),
                "o_is_last_entry": Out(1),
                "o_starts": Out(1),
                "o_ends": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Any:
        """Return three counters, each stepping when the one before wraps."""
        m = Module()
        active = Signal()
        m.d.comb += self.o_active.eq(active)
        steps: Any = active
        for name, count, limit in (
            ("row_lane", self.o_row_lane, self.i_row_lanes),
            ("col_lane", self.o_col_lane, self.i_col_lanes),
            ("entry", self.o_entry, self.i_keep),
        ):
            counter = Signal(unsigned(len(count)), name=name)
            is_last = getattr(self, f"o_is_last_{name}")
            m.d.comb += [count.eq(counter), is_last.eq(counter == limit - 1)]
            with m.If(steps):
                m.d.sync += counter.eq(counter + 1)
                with m.If(is_last):
                    m.d.sync += counter.eq(0)
            steps = steps & is_last
        m.d.comb += [
            self.o_ends.eq(steps),
            self.o_starts.eq(active & (self.o_row_lane == 0) & (self.o_col_lane == 0) & (self.o_entry == 0)),
        ]
        with m.If(self.i_go):
            m.d.sync += active.eq(1)
        with m.Elif(steps):
            m.d.sync += active.eq(0)
        return EnableInserter(self.i_enable)(m)
