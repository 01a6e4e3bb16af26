"""West of each PE row: takes words from the row's stream and sends them east with the control that goes with them."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, Module, Mux, Signal, ValueLike, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from accel.rtl.emit import place
from accel.rtl.parameters import ArrayParameters
from accel.rtl.pe import Uspe
from accel.rtl.recoder import Recoder
from accel.rtl.skid import SkidBuffer
from accel.rtl.slots import SlotCounter
from accel.rtl.terms import any_of


class RowFeeder(wiring.Component):
    """West of a PE row: takes groups from the row's stream and sends them east with their control.

    docs/timing.md rules 2, 3, 8, 9, 14 and 15. A token (`i_token.go`) makes the `keep * lanes` slots of a group start in the
    next cycle. It goes on to the row below one cycle later (OS) or so that the row below starts when the group has ended (WS).
    A load token makes entries be written into the row's banks from the next cycle on; it too goes on one cycle later. Tags
    travel beside the drain chains of column 0, and `o_tags` shows them when their words are at the bottom of the row. While it
    needs a word that its stream does not have the feeder is `o_starved`. `o_taken` counts the words taken by all rows down to
    this one, each row's in its own time. Everything but the stream's buffer holds while `i_enable` is low.
    """

    verilog_name = "row_feeder"
    reads = ("rows", "cols", *Uspe.reads)

    def __init__(self, parameters: ArrayParameters) -> None:
        self.parameters = parameters
        count = bits_for(parameters.rows)
        ports: dict[str, Any] = {
            "i_enable": In(1),
            "i_run": In(parameters.run_layout),
            "i_west": In(stream.Signature(parameters.west_layout)),
            "i_token": In(parameters.row_token),
            "o_token": Out(parameters.row_token),
            "o_words": Out(parameters.word_layout),
            "o_first": Out(1),
            "o_starved": Out(1),
            "i_taken": In(count),
            "o_taken": Out(count),
            "o_busy": Out(1),
        }
        if parameters.has_os:
            tags = data.ArrayLayout(parameters.tag_layout, parameters.drain_lanes)
            ports |= {"i_tags": In(tags), "o_tags": Out(tags), "o_capture": Out(1)}
        if parameters.has_ws:
            address = unsigned(parameters.bank_address_bits)
            ports |= {"i_load": In(parameters.load_token), "o_load": Out(parameters.load_token)}
            ports |= {"o_read_address": Out(address), "o_write": Out(1), "o_write_address": Out(address)}
            ports |= {"o_again": Out(1), "o_sum_tag": Out(parameters.tag_layout)}
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Module:
        """Return the stream's buffer, and under `i_enable` the group in hand, its words, its control and its tags."""
        m, parameters, run = Module(), self.parameters, self.i_run
        words = self._recoded_words(m, platform)
        token = Signal(parameters.row_token)
        slot = place(m, platform, "slot", SlotCounter(parameters))
        m.d.comb += [
            slot.i_enable.eq(self.i_enable),
            slot.i_go.eq(self.i_token.go),
            slot.i_row_lanes.eq(run.row_lanes),
            slot.i_col_lanes.eq(run.col_lanes),
            slot.i_keep.eq(run.keep),
        ]
        lanes = Signal.like(token.lanes, name="lanes")
        needed = Signal.like(token.lanes, name="needed")
        is_full = self.i_token.rest != 0
        in_ws, in_os = Mux(is_full, self.i_token.lanes, 0), self.i_token.lanes + is_full
        lanes_of_token = parameters.by_dataflow(run, in_ws=in_ws, in_os=in_os)
        with m.If(self.i_enable):
            with m.If(self.i_token.go):
                m.d.sync += [token.eq(self.i_token), lanes.eq(lanes_of_token), needed.eq(lanes_of_token)]
            with m.Elif(needed != 0):
                m.d.sync += needed.eq(needed - 1)
        m.d.comb += [
            self.o_token.eq(token),
            self.o_token.go.eq(parameters.by_dataflow(run, in_ws=slot.o_ends, in_os=slot.o_starts)),
            self.o_token.rest.eq(token.rest - (token.rest != 0)),
        ]
        self._send_words(m, words, slot, needed != 0)
        m.d.comb += self.o_busy.eq(any_of([slot.o_active, *self._send_control(m, platform, token, slot, lanes)]))
        return m

    def _recoded_words(self, m: Module, platform: Any) -> Any:
        """Return the stream of recoded words, registered."""
        parameters = self.parameters
        skid = place(m, platform, "skid", SkidBuffer(parameters.word_layout))
        for number in range(parameters.group):
            recoder = place(m, platform, f"recoder_{number}", Recoder(parameters.operand_format))
            m.d.comb += [
                recoder.i_bits.eq(self.i_west.payload[number]),
                recoder.i_valid.eq(1),
                skid.i.payload[number].eq(recoder.o_operand),
            ]
        m.d.comb += [skid.i.valid.eq(self.i_west.valid), self.i_west.ready.eq(skid.i.ready)]
        return skid.o

    def _send_words(self, m: Module, words: Any, slot: SlotCounter, needs: Any) -> None:
        """Send a new word in the first `row_lanes` slots of a group, later the word of `row_lanes` slots ago."""
        parameters = self.parameters
        past = [
            Signal(parameters.word_layout, name=f"past_{number}", reset_less=True) for number in range(parameters.held_words)
        ]
        with m.Switch(self.i_run.row_lanes):
            for number in parameters.row_lanes:
                with m.Case(number):
                    m.d.comb += self.o_words.eq(past[number - 1])
        with m.If((slot.o_entry == 0) & (slot.o_col_lane == 0)):
            m.d.comb += self.o_words.eq(words.payload)
        taken = Signal.like(self.i_taken, name="taken")
        with m.If(self.i_enable):
            for register, source in zip(past, [self.o_words, *past], strict=False):
                m.d.sync += register.eq(source)
            m.d.sync += taken.eq(self.i_taken)
        m.d.comb += [
            self.o_starved.eq(needs & ~words.valid),
            words.ready.eq(needs & self.i_enable),
            self.o_taken.eq(taken + needs),
        ]

    def _load(self, m: Module, platform: Any) -> list[Any]:
        """Write entries (WS) from the cycle after a load token that means this row; return what shows that it is under way."""
        parameters = self.parameters
        slot = place(m, platform, "load_slot", SlotCounter(parameters))
        bank = Signal(name="load_bank")
        go = Signal(name="loads")
        passed = Signal(parameters.load_token, name="passed_load")
        m.d.comb += [
            go.eq(self.i_load.go & (self.i_load.row == 0)),
            slot.i_enable.eq(self.i_enable),
            slot.i_go.eq(go),
            slot.i_row_lanes.eq(1),
            slot.i_col_lanes.eq(self.i_run.col_lanes),
            slot.i_keep.eq(self.i_run.keep),
            self.o_write.eq(slot.o_active),
            self.o_write_address.eq(_address(parameters, slot, bank)),
            self.o_load.eq(passed),
        ]
        with m.If(self.i_enable):
            with m.If(go):
                m.d.sync += bank.eq(self.i_load.bank)
            m.d.sync += [
                passed.eq(self.i_load),
                passed.go.eq(self.i_load.go & (self.i_load.row != 0)),
                passed.row.eq(self.i_load.row - 1),
            ]
        return [slot.o_active, passed.go]

    def _send_control(self, m: Module, platform: Any, token: Any, slot: SlotCounter, lanes: Any) -> list[Any]:
        """Send control when the PE wants it, and tags beside the sums; return what shows that something is under way."""
        parameters, run = self.parameters, self.i_run
        opens = Signal()
        is_row = Signal()
        tag = Signal(parameters.tag_layout)
        m.d.comb += [
            opens.eq(slot.o_active & token.opens & (slot.o_entry == 0)),
            tag.valid.eq(slot.o_active & token.closes & slot.o_is_last_entry),
            tag.is_final.eq(token.is_final),
            is_row.eq(slot.o_row_lane < parameters.by_dataflow(run, in_ws=token.lanes, in_os=lanes)),
            tag.has_cols.eq(token.cols.lanes != 0),
            tag.is_everywhere.eq(is_row & (slot.o_col_lane < token.cols.lanes)),
            tag.is_in_rest.eq(is_row & (slot.o_col_lane == token.cols.lanes)),
            tag.rest.eq(token.cols.rest),
        ]
        if parameters.has_os:
            with m.If(parameters.by_dataflow(run, in_ws=0, in_os=lanes == 0)):
                m.d.comb += tag.valid.eq(0)
        tags = self._delay(m, tag, parameters.multiplier_latency + parameters.adder_latency, "tag")
        m.d.comb += self.o_first.eq(self._delay(m, opens, parameters.multiplier_latency - 1, "opened")[-1])
        under_way = [stage.valid for stage in tags[1:]]
        if parameters.has_os:
            m.d.comb += self.o_capture.eq(tags[-2].valid)
            under_way += self._pass_tags(m, tags[-1])
        if parameters.has_ws:
            again = self._delay(m, opens & token.again, parameters.multiplier_latency - 1, "again")[-1]
            m.d.comb += [self.o_again.eq(again), self.o_sum_tag.eq(tags[-1])]
            m.d.comb += self.o_read_address.eq(_address(parameters, slot, token.bank))
            under_way += self._load(m, platform)
        return under_way

    def _pass_tags(self, m: Module, tag: Any) -> list[Any]:
        """Pass tags down beside the drain chains (OS), `tag` joining the first; return where one is under way."""
        parameters = self.parameters
        chain = Signal(parameters.tag_layout)
        joins = parameters.by_dataflow(self.i_run, in_ws=0, in_os=tag.valid)
        m.d.comb += chain.eq(Mux(joins, tag, self.i_tags[0]))
        chained = self._delay(m, chain, parameters.adder_latency + 1, "chained")[1:]
        passing = [
            self._delay(m, self.i_tags[number], 1, f"passing_{number}")[-1] for number in range(1, parameters.drain_lanes)
        ]
        m.d.comb += [self.o_tags[number].eq(passed) for number, passed in enumerate([chained[-1], *passing])]
        return [stage.valid for stage in [*chained, *passing]]

    def _delay(self, m: Module, signal: Any, cycles: int, name: str) -> list[Any]:
        """Return `signal` now and after 1 to `cycles` cycles; the registers start at 0."""
        stages = [signal]
        for number in range(cycles):
            register = Signal.like(signal, name=f"{name}_{number}")
            with m.If(self.i_enable):
                m.d.sync += register.eq(stages[-1])
            stages.append(register)
        return stages


def _address(parameters: ArrayParameters, slot: SlotCounter, bank: ValueLike) -> Any:
    """Return where the entry of a slot stands in the banks."""
    return Cat(slot.o_col_lane[: parameters.col_lane_bits], slot.o_entry[: parameters.index_bits], bank)
