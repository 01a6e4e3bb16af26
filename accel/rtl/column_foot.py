"""South of each PE column: rounds and sends finished sums, and holds partial sums for their next time round."""

from __future__ import annotations

from typing import Any

from amaranth import Module, Mux, Signal
from amaranth.lib import data, memory, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from accel.rtl.emit import named_ports, place
from accel.rtl.parameters import ArrayParameters
from accel.rtl.rounder import Rounder
from accel.rtl.skid import SkidBuffer
from accel.rtl.terms import any_of, sum_of


class ColumnFoot(wiring.Component):
    """South of a PE column: rounds and sends finished sums, and holds partial sums for their next time round.

    docs/timing.md rules 9, 10 and 16. Tags say what is on each drain chain (`i_tags`) and at the bottom adder's output
    (`i_sum_tag`) in this cycle; a cycle later they are at the column to the east. Words of lanes beyond the matrix are dropped:
    `o_visible` marks any word, a stream of `o_out` gets only real ones, as FP32 or rounded to 16 bits. Partial sums (WS) go
    through a memory, first in, first out: `i_read` asks for one, which `o_psum` shows in the next cycle, and +0 in others;
    `o_read` is `i_read` a cycle later. `o_words` counts the words sent by all columns up to this one, each column's in its own
    time.
    """

    verilog_name = "column_foot"
    reads = ("cols", "adder_latency", "group", "row_lanes", "dataflows", "drain_lanes", "psum_words", "operand_format")

    def __init__(self, parameters: ArrayParameters) -> None:
        self.parameters = parameters
        partial = parameters.operand_format.partial_layout
        count = bits_for(parameters.cols * parameters.drain_lanes)
        ports: dict[str, Any] = {
            "i_enable": In(1),
            "i_run": In(parameters.run_layout),
            "o_out": Out(stream.Signature(32)).array(parameters.drain_lanes),
            "i_words": In(count),
            "o_words": Out(count),
            "o_visible": Out(1),
            "o_blocked": Out(1),
            "o_busy": Out(1),
        }
        if parameters.has_os:
            tags = data.ArrayLayout(parameters.tag_layout, parameters.drain_lanes)
            ports |= {"i_drain": In(data.ArrayLayout(partial, parameters.drain_lanes)), "i_tags": In(tags), "o_tags": Out(tags)}
        if parameters.has_ws:
            tag = parameters.tag_layout
            ports |= {"i_sum": In(partial), "i_sum_tag": In(tag), "o_sum_tag": Out(tag)}
            ports |= {"i_read": In(1), "o_read": Out(1), "o_psum": Out(partial)}
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Module:
        """Return the output streams, and under `i_enable` the tags' registers and the psum buffer."""
        m, parameters = Module(), self.parameters
        under_way: list[Any] = [self.o_visible]
        chains: list[tuple[Any, Any]] = []
        if parameters.has_os:
            chains = self._pass_tags(m)
            under_way.append(parameters.by_dataflow(self.i_run, in_ws=0, in_os=any_of(tag.valid for tag, _ in chains)))
        if parameters.has_ws:
            tag, total = self._take_sums(m)
            under_way.append(tag.valid)
            chains[:1] = [self._in_use(m, chains[0], tag, total) if chains else (tag, total)]
        is_sent = self._send(m, platform, chains)
        words = Signal.like(self.i_words, name="words")
        with m.If(self.i_enable):
            m.d.sync += words.eq(self.i_words)
        m.d.comb += [self.o_words.eq(sum_of([words, *is_sent])), self.o_busy.eq(any_of(under_way))]
        return m

    def _pass_tags(self, m: Module) -> list[tuple[Any, Any]]:
        """Pass the tags of the chains on to the next column (OS); return each chain's tag and word."""
        chains = range(self.parameters.drain_lanes)
        tags = Signal.like(self.i_tags, name="tags")
        with m.If(self.i_enable):
            m.d.sync += tags.eq(self.i_tags)
        m.d.comb += [self._next_column(self.o_tags[number], tags[number]) for number in chains]
        return [(self.i_tags[number], self.i_drain[number]) for number in chains]

    def _take_sums(self, m: Module) -> tuple[Any, Any]:
        """Register the bottom sum and its tag (WS), keep a sum that is not final, pass the tag on; return both."""
        total = Signal.like(self.i_sum, name="total", reset_less=True)
        tag = Signal.like(self.i_sum_tag, name="sum_tag")
        was_read = Signal()
        with m.If(self.i_enable):
            m.d.sync += [total.eq(self.i_sum), tag.eq(self.i_sum_tag), was_read.eq(self.i_read)]
        m.d.comb += [self.o_read.eq(was_read), *self._next_column(self.o_sum_tag, tag)]
        self._buffer_partial_sums(m, total, tag, was_read)
        return tag, total

    def _next_column(self, port: Any, tag: Any) -> list[Any]:
        return [port.eq(tag), port.rest.eq(tag.rest - (tag.rest != 0))]

    def _in_use(self, m: Module, chain: tuple[Any, Any], sum_tag: Any, total: Any) -> tuple[Any, Any]:
        """Return tag and word of the first stream: those of the first chain (OS) or of the bottom sum (WS)."""
        tag = Signal.like(sum_tag, name="tag_in_use")
        word = Signal.like(total, name="word_in_use")
        m.d.comb += [tag.eq(Mux(self.i_run.is_ws, sum_tag, chain[0])), word.eq(Mux(self.i_run.is_ws, total, chain[1]))]
        return tag, word

    def _send(self, m: Module, platform: Any, chains: list[tuple[Any, Any]]) -> list[Any]:
        """Send what is visible in this cycle; return which chains do."""
        parameters, run = self.parameters, self.i_run
        visible, blocked, sent = [], [], []
        for number, (tag, word) in enumerate(chains):
            is_word = Signal(name=f"is_word_{number}")
            is_real = Signal(name=f"is_real_{number}")
            has_rest = tag.rest != 0
            is_due = tag.valid & tag.is_final & (tag.has_cols | has_rest)
            m.d.comb += [
                is_word.eq(parameters.by_dataflow(run, in_ws=0, in_os=is_due) if number else is_due),  # WS: the first alone
                is_real.eq(is_word & (tag.is_everywhere | tag.is_in_rest & has_rest)),
            ]
            ready = self._round(m, platform, number, word, is_real & self.i_enable)
            visible.append(is_word)
            blocked.append(is_real & ~ready)
            sent.append(is_real)
        m.d.comb += [self.o_visible.eq(any_of(visible)), self.o_blocked.eq(any_of(blocked))]
        return sent

    def _round(self, m: Module, platform: Any, number: int, word: Any, is_sent: Any) -> Any:
        """Send a word, when `is_sent`, through the rounder into its stream; return whether it can be taken."""
        rounder = place(m, platform, f"rounder_{number}", Rounder(self.parameters.operand_format))
        skid = place(m, platform, f"skid_{number}", SkidBuffer(32))
        is_waiting = Signal(name=f"is_waiting_{number}")
        ready = Signal(name=f"ready_{number}")
        with m.If(ready):
            m.d.sync += is_waiting.eq(is_sent)
        m.d.comb += [
            ready.eq(skid.i.ready | ~is_waiting),
            rounder.i_take.eq(ready),
            rounder.i_partial.eq(word),
            rounder.i_is_rounded.eq(self.i_run.is_rounded),
            skid.i.payload.eq(rounder.o_result),
            skid.i.valid.eq(is_waiting),
            self.o_out[number].payload.eq(skid.o.payload),
            self.o_out[number].valid.eq(skid.o.valid),
            skid.o.ready.eq(self.o_out[number].ready),
        ]
        return ready

    def _buffer_partial_sums(self, m: Module, total: Any, sum_tag: Any, was_read: Any) -> None:
        m.submodules.buffer = buffer = memory.Memory(shape=total.shape(), depth=self.parameters.psum_words, init=[])
        write, read = named_ports("buffer", buffer.write_port(), buffer.read_port())
        m.d.sync += [write.addr.eq(write.addr + write.en), read.addr.eq(read.addr + read.en)]
        m.d.comb += [
            write.en.eq(self.i_enable & sum_tag.valid & ~sum_tag.is_final),
            write.data.eq(total),
            read.en.eq(self.i_enable & self.i_read),
            self.o_psum.eq(Mux(was_read, read.data, 0)),
        ]
