"""South of each PE column: rounds and sends finished sums, and holds partial sums for their next time round."""

from __future__ import annotations

from typing import Any

from amaranth import EnableInserter, Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from accel.rtl.emit import place
from accel.rtl.parameters import ArrayParameters
from accel.rtl.rounder import Rounder
from accel.rtl.skid import SkidBuffer


class ColumnFoot(wiring.Component):
    """The end of one PE column; docs/timing.md rules 9, 10 and 16.

    Tags say what is on each drain chain (`i_tags`) and at the bottom adder's output (`i_sum_tag`) in this cycle; a cycle later
    they are at the column to the east. Words of lanes beyond the matrix are dropped: `o_visible` marks any word, a stream of
    `o_out` gets only real ones, as FP32 or rounded to 16 bits. Partial sums (WS) go through a memory, first in, first out:
    `i_read` asks for one, which `o_psum` shows in the next cycle, and +0 in others; `o_read` is `i_read` a cycle later.
    `o_words` counts the words sent by all columns up to this one, each column's in its own time.
    """

    verilog_name = "column_foot"

    def __init__(self, parameters: ArrayParameters) -> None:
        self.parameters = parameters
        partial = parameters.operand_format.partial_layout
        tags = data.ArrayLayout(parameters.tag_layout, parameters.drain_lanes)
        count = bits_for(parameters.cols * parameters.drain_lanes)
        super().__init__(
            {
                "i_enable": In(1),
                "i_run": In(parameters.run_layout),
                "i_drain": In(data.ArrayLayout(partial, parameters.drain_lanes)),
                "i_tags": In(tags),
                "o_tags": Out(tags),
                "i_sum": In(partial),
                "i_sum_tag": In(parameters.tag_layout),
                "o_sum_tag": Out(parameters.tag_layout),
                "i_read": In(1),
                "o_read": Out(1),
                "o_psum": Out(partial),
                "o_out": Out(stream.Signature(32)).array(parameters.drain_lanes),
                "i_words": In(count),
                "o_words": Out(count),
                "o_visible": Out(1),
                "o_blocked": Out(1),
                "o_busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Return the output streams, and under `i_enable` the tags' registers and the psum buffer."""
        m, held = Module(), Module()
        m.submodules.held = EnableInserter(self.i_enable)(held)
        total, sum_tag = Signal.like(self.i_sum, name="total", reset_less=True), Signal.like(self.i_sum_tag, name="sum_tag")
        held.d.sync += [total.eq(self.i_sum), sum_tag.eq(self.i_sum_tag)]
        was_read = Signal()
        held.d.sync += was_read.eq(self.i_read)
        held.d.comb += [self.o_read.eq(was_read), *self._next_column(self.o_sum_tag, sum_tag)]
        tags = Signal.like(self.i_tags, name="tags")
        held.d.sync += tags.eq(self.i_tags)
        held.d.comb += [self._next_column(self.o_tags[number], tags[number]) for number in range(self.parameters.drain_lanes)]
        if self.parameters.has_ws:
            self._buffer_partial_sums(held, total, sum_tag, was_read)
        is_sent = self._send(m, platform, total, sum_tag)
        words = Signal.like(self.i_words, name="words")
        held.d.sync += words.eq(self.i_words)
        m.d.comb += [
            self.o_words.eq(words + sum(is_sent)),
            self.o_busy.eq(
                sum_tag.valid | self.o_visible | Mux(self.i_run.is_ws, 0, sum(tag.valid for tag in self.i_tags) != 0)
            ),
        ]
        return m

    def _next_column(self, port: Any, tag: Any) -> list[Any]:
        return [port.eq(tag), port.cols.rest.eq(tag.cols.rest - (tag.cols.rest != 0))]

    def _send(self, m: Module, platform: Any, total: Any, sum_tag: Any) -> list[Any]:
        """Send what is visible in this cycle; return which chains do."""
        parameters, run = self.parameters, self.i_run
        visible, blocked, sent = [], [], []
        for number in range(parameters.drain_lanes):
            tag, word = self.i_tags[number], self.i_drain[number]
            if number == 0 and parameters.has_ws:
                tag_in_use, word_in_use = Signal.like(tag, name="tag_in_use"), Signal.like(word, name="word_in_use")
                m.d.comb += [tag_in_use.eq(Mux(run.is_ws, sum_tag, tag)), word_in_use.eq(Mux(run.is_ws, total, word))]
                tag, word = tag_in_use, word_in_use
            rounder = place(m, platform, f"rounder_{number}", Rounder(parameters.operand_format))
            skid = place(m, platform, f"skid_{number}", SkidBuffer(32))
            lanes, is_word, is_real = (
                Signal.like(tag.cols.lanes),
                Signal(name=f"is_word_{number}"),
                Signal(name=f"is_real_{number}"),
            )
            is_new = (number == 0) | ~run.is_ws
            m.d.comb += [
                lanes.eq(tag.cols.lanes + (tag.cols.rest != 0)),
                is_word.eq(tag.valid & tag.is_final & (lanes != 0) & is_new),
                is_real.eq(is_word & tag.is_row & (tag.col_lane < lanes)),
                rounder.i_partial.eq(word),
                skid.i.payload.eq(Mux(run.is_rounded, rounder.o_rounded, rounder.o_float32)),
                skid.i.valid.eq(is_real & self.i_enable),
                self.o_out[number].payload.eq(skid.o.payload),
                self.o_out[number].valid.eq(skid.o.valid),
                skid.o.ready.eq(self.o_out[number].ready),
            ]
            visible.append(is_word)
            blocked.append(is_real & ~skid.i.ready)
            sent.append(is_real)
        m.d.comb += [self.o_visible.eq(sum(visible) != 0), self.o_blocked.eq(sum(blocked) != 0)]
        return sent

    def _buffer_partial_sums(self, held: Module, total: Any, sum_tag: Any, was_read: Any) -> None:
        buffer = memory.Memory(shape=total.shape(), depth=self.parameters.psum_words, init=[])
        held.submodules.buffer = buffer
        write, read = buffer.write_port(), buffer.read_port()
        held.d.sync += [write.addr.eq(write.addr + write.en), read.addr.eq(read.addr + self.i_read)]
        held.d.comb += [
            write.en.eq(sum_tag.valid & ~sum_tag.is_final),
            write.data.eq(total),
            read.en.eq(self.i_read),
            self.o_psum.eq(Mux(was_read, read.data, 0)),
        ]
