"""North of each PE column: takes entries from the column's stream and sends them south, each as long as a PE needs it."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from accel.rtl.emit import place
from accel.rtl.parameters import COUNT_BITS, ArrayParameters
from accel.rtl.recoder import Recoder
from accel.rtl.skid import SkidBuffer
from accel.rtl.slots import SlotCounter


class ColumnFeeder(wiring.Component):
    """North of a PE column: takes entries from the column's stream and sends them south.

    docs/timing.md rules 1, 3, 8 and 15. A token (`i_token.go`) makes the entries of a group start in the next cycle: each for
    `row_lanes` cycles (OS), or one after the other into the banks (WS). It goes on to the column to the east one cycle later.
    Columns and groups that hold nothing are fed VOID and take nothing from the stream. `o_entries` and `o_valid_entries` count,
    along all columns up to this one, what was taken for the slot that is at this column now, and `o_rows` is how many output
    rows those entries meet.
    """

    verilog_name = "column_feeder"
    reads = ("cols", "adder_latency", "group", "row_lanes", "dataflows", "operand_format")

    def __init__(self, parameters: ArrayParameters) -> None:
        self.parameters = parameters
        count = bits_for(parameters.cols)
        super().__init__(
            {
                "i_enable": In(1),
                "i_run": In(parameters.run_layout),
                "i_north": In(stream.Signature(parameters.north_layout)),
                "i_token": In(parameters.col_token),
                "o_token": Out(parameters.col_token),
                "o_entry": Out(parameters.entry_layout),
                "i_entries": In(count),
                "o_entries": Out(count),
                "i_valid_entries": In(count),
                "o_valid_entries": Out(count),
                "o_rows": Out(COUNT_BITS),
                "o_starved": Out(1),
                "o_busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Return the stream's buffer, and under `i_enable` the group in hand and its entries."""
        m, parameters, run = Module(), self.parameters, self.i_run
        entries = self._recoded_entries(m, platform)
        token = Signal(parameters.col_token)
        slot = place(m, platform, "slot", SlotCounter(parameters))
        m.d.comb += [
            slot.i_enable.eq(self.i_enable),
            slot.i_go.eq(self.i_token.go),
            slot.i_row_lanes.eq(parameters.by_dataflow(run, in_ws=1, in_os=run.row_lanes)),
            slot.i_col_lanes.eq(run.col_lanes),
            slot.i_keep.eq(run.keep),
        ]
        passed = Signal.like(token, name="passed")
        lanes = Signal.like(token.cols.lanes, name="lanes")
        needs = Signal()
        lanes_of_token = self.i_token.cols.lanes + (self.i_token.cols.rest != 0)
        next_col_lane = Mux(slot.o_is_last_col_lane, 0, slot.o_col_lane + 1)
        with m.If(self.i_enable):
            m.d.sync += needs.eq(
                slot.o_active & slot.o_is_last_row_lane & ~slot.o_ends & token.is_used & (next_col_lane < lanes)
            )
            with m.If(self.i_token.go):
                m.d.sync += [token.eq(self.i_token), lanes.eq(lanes_of_token)]
                m.d.sync += needs.eq(self.i_token.is_used & (lanes_of_token != 0))
            m.d.sync += passed.eq(self.i_token)
            m.d.sync += passed.cols.rest.eq(self.i_token.cols.rest - (self.i_token.cols.rest != 0))
        m.d.comb += [self.o_token.eq(passed), self.o_rows.eq(token.rows), self.o_busy.eq(slot.o_active | passed.go)]
        self._send_entries(m, entries, slot, needs)
        return m

    def _recoded_entries(self, m: Module, platform: Any) -> Any:
        """Return the stream of recoded entries, registered."""
        parameters = self.parameters
        skid = place(m, platform, "skid", SkidBuffer(parameters.entry_layout))
        recoder = place(m, platform, "recoder", Recoder(parameters.operand_format))
        m.d.comb += [
            recoder.i_bits.eq(self.i_north.payload.value),
            recoder.i_valid.eq(self.i_north.payload.valid),
            skid.i.payload.operand.eq(recoder.o_operand),
            skid.i.payload.index.eq(self.i_north.payload.index),
            skid.i.valid.eq(self.i_north.valid),
            self.i_north.ready.eq(skid.i.ready),
        ]
        return skid.o

    def _send_entries(self, m: Module, entries: Any, slot: SlotCounter, needs: Any) -> None:
        """Take an entry when its first row lane comes, show it for all of them, and count it."""
        fmt = self.parameters.operand_format
        takes = Signal()
        past = Signal(self.parameters.entry_layout, reset_less=True)
        with m.If(needs):
            m.d.comb += self.o_entry.eq(entries.payload)
        with m.Elif(slot.o_active & (slot.o_row_lane != 0)):
            m.d.comb += self.o_entry.eq(past)
        with m.Else():
            m.d.comb += self.o_entry.operand.as_value().eq(fmt.void)
        m.d.comb += [
            self.o_starved.eq(needs & ~entries.valid),
            takes.eq(needs & self.i_enable),
            entries.ready.eq(takes),
        ]
        before = Signal.like(self.i_entries, name="before")
        valid_before = Signal.like(self.i_entries, name="valid_before")
        with m.If(self.i_enable):
            m.d.sync += [past.eq(self.o_entry), before.eq(self.i_entries), valid_before.eq(self.i_valid_entries)]
        m.d.comb += [
            self.o_entries.eq(before + needs),
            self.o_valid_entries.eq(valid_before + (needs & ~fmt.is_void(entries.payload.operand))),
        ]
