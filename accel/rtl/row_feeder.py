"""West of each PE row: takes words from the row's stream and sends them east with the control that goes with them."""

from __future__ import annotations

from typing import Any

from amaranth import Cat, EnableInserter, Module, Mux, Signal, ValueLike, unsigned
from amaranth.lib import data, stream, wiring
from amaranth.lib.wiring import In, Out
from amaranth.utils import bits_for

from accel.rtl.emit import place
from accel.rtl.parameters import ArrayParameters
from accel.rtl.recoder import Recoder
from accel.rtl.skid import SkidBuffer
from accel.rtl.slots import SlotCounter


class RowFeeder(wiring.Component):
    """Runs the groups of one PE row; docs/timing.md rules 2, 3, 8, 9, 14 and 15.

    A token (`i_token.go`) makes the `keep * lanes` slots of a group start in the next cycle. It goes on to the row below one
    cycle later (OS) or so that the row below starts when the group has ended (WS). A load token makes entries be written into
    the row's banks from the next cycle on; it too goes on one cycle later. Tags travel beside the drain chains of column 0,
    and `o_tags` shows them when their words are at the bottom of the row. While it needs a word that its stream does not have
    the feeder is `o_starved`. `o_taken` counts the words taken by all rows down to this one, each row's in its own time.
    Everything but the stream's buffer holds while `i_enable` is low.
    """

    verilog_name = "row_feeder"

    def __init__(self, parameters: ArrayParameters) -> None:
        self.parameters = parameters
        tags = data.ArrayLayout(parameters.tag_layout, parameters.drain_lanes)
        address, count = unsigned(parameters.bank_address_bits), bits_for(parameters.rows)
        super().__init__(
            {
                "i_enable": In(1),
                "i_run": In(parameters.run_layout),
                "i_west": In(stream.Signature(parameters.west_layout)),
                "i_token": In(parameters.row_token),
                "o_token": Out(parameters.row_token),
                "i_load": In(parameters.load_token),
                "o_load": Out(parameters.load_token),
                "i_tags": In(tags),
                "o_tags": Out(tags),
                "o_sum_tag": Out(parameters.tag_layout),
                "o_words": Out(parameters.word_layout),
                "o_first": Out(1),
                "o_again": Out(1),
                "o_capture": Out(1),
                "o_read_address": Out(address),
                "o_write": Out(1),
                "o_write_address": Out(address),
                "o_starved": Out(1),
                "i_taken": In(count),
                "o_taken": Out(count),
                "o_busy": Out(1),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        """Return the stream's buffer, and under `i_enable` the group in hand, its words, its control and its tags."""
        m, held = Module(), Module()
        words = self._recoded_words(m, platform)
        m.submodules.held = EnableInserter(self.i_enable)(held)
        token, slot = Signal(self.parameters.row_token), SlotCounter(self.parameters)
        held.submodules.slot = slot
        held.d.comb += [
            slot.i_go.eq(self.i_token.go),
            slot.i_row_lanes.eq(self.i_run.row_lanes),
            slot.i_col_lanes.eq(self.i_run.col_lanes),
            slot.i_keep.eq(self.i_run.keep),
        ]
        with held.If(self.i_token.go):
            held.d.sync += token.eq(self.i_token)
        held.d.comb += [
            self.o_token.eq(token),
            self.o_token.go.eq(Mux(self.i_run.is_ws, slot.o_ends, slot.o_starts)),
            self.o_token.rest.eq(token.rest - (token.rest != 0)),
        ]
        lanes = Signal.like(token.lanes)
        with held.If(self.i_run.is_ws):
            held.d.comb += lanes.eq(Mux(token.rest != 0, token.lanes, 0))
        with held.Else():
            held.d.comb += lanes.eq(token.lanes + (token.rest != 0))
        self._send_words(m, held, words, slot, lanes)
        is_loading = self._load(held)
        is_tagged = self._send_control(held, token, slot, lanes)
        m.d.comb += self.o_busy.eq(slot.o_active | is_loading | is_tagged)
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

    def _send_words(self, m: Module, held: Module, words: Any, slot: SlotCounter, lanes: Any) -> None:
        """Send a new word in the first `row_lanes` slots of a group, later the word of `row_lanes` slots ago."""
        parameters = self.parameters
        is_new, needs = Signal(), Signal()
        past = [
            Signal(parameters.word_layout, name=f"past_{number}", reset_less=True) for number in range(parameters.held_words)
        ]
        held.d.comb += [
            is_new.eq((slot.o_entry == 0) & (slot.o_col_lane == 0)),
            needs.eq(slot.o_active & is_new & (slot.o_row_lane < lanes)),
        ]
        with held.Switch(self.i_run.row_lanes):
            for number in parameters.row_lanes:
                with held.Case(number):
                    held.d.comb += self.o_words.eq(past[number - 1])
        with held.If(is_new):
            held.d.comb += self.o_words.eq(words.payload)
        for register, source in zip(past, [self.o_words, *past], strict=False):
            held.d.sync += register.eq(source)
        m.d.comb += [
            self.o_starved.eq(needs & ~words.valid),
            words.ready.eq(needs & self.i_enable),
        ]
        taken = Signal.like(self.i_taken, name="taken")
        held.d.sync += taken.eq(self.i_taken)
        held.d.comb += self.o_taken.eq(taken + needs)

    def _load(self, held: Module) -> Any:
        """Write entries from the cycle after a load token that means this row; return whether a load is under way."""
        parameters, bank = self.parameters, Signal()
        held.submodules.load_slot = slot = SlotCounter(parameters)
        go = Signal()
        passed = Signal(parameters.load_token)
        held.d.comb += [
            go.eq(self.i_load.go & (self.i_load.row == 0)),
            slot.i_go.eq(go),
            slot.i_row_lanes.eq(1),
            slot.i_col_lanes.eq(self.i_run.col_lanes),
            slot.i_keep.eq(self.i_run.keep),
            self.o_write.eq(slot.o_active),
            self.o_write_address.eq(_address(parameters, slot, bank)),
            self.o_load.eq(passed),
        ]
        with held.If(go):
            held.d.sync += bank.eq(self.i_load.bank)
        held.d.sync += [
            passed.eq(self.i_load),
            passed.go.eq(self.i_load.go & (self.i_load.row != 0)),
            passed.row.eq(self.i_load.row - 1),
        ]
        return slot.o_active | passed.go

    def _send_control(self, held: Module, token: Any, slot: SlotCounter, lanes: Any) -> Any:
        """Send control when the PE wants it, and tags beside the sums; return whether a tag is under way."""
        parameters, run = self.parameters, self.i_run
        opens, tag = Signal(), Signal(parameters.tag_layout)
        held.d.comb += [
            self.o_read_address.eq(_address(parameters, slot, token.bank)),
            opens.eq(slot.o_active & token.opens & (slot.o_entry == 0)),
            tag.valid.eq(slot.o_active & token.closes & slot.o_is_last_entry & (run.is_ws | (lanes != 0))),
            tag.is_final.eq(token.is_final),
            tag.is_row.eq(slot.o_row_lane < Mux(run.is_ws, token.lanes, lanes)),
            tag.col_lane.eq(slot.o_col_lane),
            tag.cols.eq(token.cols),
        ]
        to_adder = parameters.multiplier_latency
        opened = _delay(held, opens, to_adder - 1, "opened")[-1]
        again = _delay(held, opens & token.again, to_adder - 1, "again")[-1]
        tags = _delay(held, tag, to_adder + parameters.adder_latency, "tag")
        held.d.comb += [self.o_first.eq(opened), self.o_again.eq(again), self.o_capture.eq(tags[-2].valid)]
        held.d.comb += self.o_sum_tag.eq(tags[-1])
        chain = Signal(parameters.tag_layout)
        held.d.comb += chain.eq(Mux(tags[-1].valid & ~run.is_ws, tags[-1], self.i_tags[0]))
        chained = _delay(held, chain, parameters.adder_latency + 1, "chained")
        held.d.comb += self.o_tags[0].eq(chained[-1])
        passing = [_delay(held, self.i_tags[number], 1, f"passing_{number}")[-1] for number in range(1, parameters.drain_lanes)]
        held.d.comb += [self.o_tags[number].eq(passed) for number, passed in enumerate(passing, start=1)]
        is_tagged: Any = 0
        for stage in [*tags[1:], *chained[1:], *passing]:
            is_tagged = is_tagged | stage.valid
        return is_tagged


def _address(parameters: ArrayParameters, slot: SlotCounter, bank: ValueLike) -> Any:
    """Return where the entry of a slot stands in the banks."""

    return Cat(slot.o_col_lane[: parameters.col_lane_bits], slot.o_entry[: parameters.index_bits], bank)


def _delay(m: Module, signal: Any, cycles: int, name: str) -> list[Any]:
    """Return `signal` now and after 1 to `cycles` cycles; the registers start at 0."""
    stages = [signal]
    for number in range(cycles):
        register = Signal.like(signal, name=f"{name}_{number}")
        m.d.sync += register.eq(stages[-1])
        stages.append(register)
    return stages
