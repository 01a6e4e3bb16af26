"""The array: feeders west and north of the PEs, feet south of them, and the walkers that start every group."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, NamedTuple

from amaranth import Module, Mux, Signal
from amaranth.lib import stream, wiring
from amaranth.lib.wiring import In, Out

from accel.counters import COUNTERS
from accel.rtl.column_feeder import ColumnFeeder
from accel.rtl.column_foot import ColumnFoot
from accel.rtl.command import command_layout
from accel.rtl.emit import place
from accel.rtl.parameters import COUNT_BITS, COUNTER_BITS, ArrayParameters
from accel.rtl.pe import Uspe
from accel.rtl.row_feeder import RowFeeder
from accel.rtl.terms import any_of
from accel.rtl.walker import Walker

COMMAND_TO_OPERAND_CYCLES = 3
"""From the cycle in which a command is taken to that in which the first operand is at a port of a PE."""
RESULT_TO_OUT_CYCLES = 2
"""From the cycle in which a result is visible below the array to that in which its output stream shows it."""
HANDSHAKE_CYCLES = 4
"""Cycles in which no command is taken beyond those of the run, its stalls and the way to the last column."""


class _Units(NamedTuple):
    rows: list[RowFeeder]
    cols: list[ColumnFeeder]
    feet: list[ColumnFoot]
    row_walker: Walker
    col_walker: Walker


class SystolicArray(wiring.Component):
    """The array: processing elements, feeders and feet around them, and what runs products one command after the other.

    docs/timing.md section 1 says when what happens. Row r takes the groups that its outputs need from `i_west[r]`, column c its
    entries from `i_north[c]`, and column c sends its results to `o_out[c * drain_lanes + chain]`; the orders are in
    docs/hardware.md. A stream that has nothing to give, or takes nothing, when the array needs it stops every register of the
    array until it does: that changes no result, and no cycle count but `o_stall_cycles`. A command is taken when the run before
    has put its last result into the output buffers. The ports `o_NAME` of `accel.counters` are of the run under way or, while
    the array is ready for a command, of the last run.
    """

    verilog_name = "systolic_array"

    def __init__(self, parameters: ArrayParameters) -> None:
        self.parameters = parameters
        chains = parameters.cols * parameters.drain_lanes
        ports: dict[str, Any] = {
            "i_command": In(stream.Signature(command_layout(parameters))),
            "i_west": In(stream.Signature(parameters.west_layout)).array(parameters.rows),
            "i_north": In(stream.Signature(parameters.north_layout)).array(parameters.cols),
            "o_out": Out(stream.Signature(32)).array(chains),
        }
        super().__init__(ports | {f"o_{name}": Out(COUNTER_BITS) for name in COUNTERS})

    def elaborate(self, platform: Any) -> Module:
        """Return the grid and what stands around it."""
        m, parameters = Module(), self.parameters
        enable = Signal()
        command = Signal(command_layout(parameters))
        go = Signal()
        units = _Units(
            [place(m, platform, f"row_feeder_{row}", RowFeeder(parameters)) for row in range(parameters.rows)],
            [place(m, platform, f"column_feeder_{col}", ColumnFeeder(parameters)) for col in range(parameters.cols)],
            [place(m, platform, f"column_foot_{col}", ColumnFoot(parameters)) for col in range(parameters.cols)],
            place(m, platform, "row_walker", Walker()),
            place(m, platform, "col_walker", Walker()),
        )
        edges: list[Any] = [*units.rows, *units.cols, *units.feet]
        walkers: list[Any] = [units.row_walker, units.col_walker]
        m.d.comb += [unit.i_run.eq(command.run) for unit in edges]
        m.d.comb += [unit.i_enable.eq(enable) for unit in [*edges, *walkers]]
        m.d.comb += [units.row_walker.i_walk.eq(command.row_walk), units.col_walker.i_walk.eq(command.col_walk)]
        m.d.comb += [units.row_walker.i_go.eq(go), units.col_walker.i_go.eq(go)]
        m.d.comb += enable.eq(
            ~any_of([feeder.o_starved for feeder in edges[: -parameters.cols]] + [foot.o_blocked for foot in units.feet])
        )
        self._link_rows(m, units, command)
        self._link_cols(m, units, command)
        self._link_feet(m, units)
        self._link_pes(m, platform, units, enable, command)
        is_busy = [unit.o_busy for unit in [*edges, *walkers]]
        is_taken = self._take_commands(m, command, go, ~any_of([*is_busy, go]))
        self._count(m, units, enable, is_taken)
        return m

    def _take_commands(self, m: Module, command: Any, go: Any, is_quiet: Any) -> Any:
        """Take a command when nothing is under way; return whether one is taken in this cycle."""
        is_running = Signal()
        is_taken = Signal()
        m.d.comb += [self.i_command.ready.eq(~is_running), is_taken.eq(self.i_command.valid & ~is_running)]
        m.d.sync += go.eq(is_taken)
        with m.If(is_taken):
            m.d.sync += [command.eq(self.i_command.payload), is_running.eq(1)]
        with m.Elif(is_quiet):
            m.d.sync += is_running.eq(0)
        return is_taken

    def _link_rows(self, m: Module, units: _Units, command: Any) -> None:
        """Make tokens of what the walkers say, and pass them down the rows."""
        rows, walker, token = units.rows, units.row_walker, units.rows[0].i_token
        size = Signal.like(command.m_full, name="row_size")
        m.d.comb += [
            size.eq(Mux(walker.o_is_last_m, command.m_last, command.m_full)),
            token.go.eq(walker.o_go),
            token.cols.eq(self._cols_of_tile(m, walker, command, "row_token_cols")),
        ]
        in_os, in_ws = self._fields_in_os(walker, size), self._fields_in_ws(walker, size, command)
        for name in in_os:
            chosen = self.parameters.by_dataflow(command.run, in_ws=in_ws[name], in_os=in_os[name])
            m.d.comb += token[name].eq(chosen)
        if self.parameters.has_ws:
            self._link_loads(m, units, command.run)
        for feeder, port in zip(rows, self.i_west, strict=True):
            wiring.connect(m, wiring.flipped(port), feeder.i_west)
        for above, feeder in pairwise(rows):
            m.d.comb += [feeder.i_token.eq(above.o_token), feeder.i_taken.eq(above.o_taken)]
            if self.parameters.has_os:
                tags = _from_row_above(list(above.o_tags))
                m.d.comb += [port.eq(tag) for port, tag in zip(feeder.i_tags, tags, strict=True)]

    def _fields_in_os(self, walker: Walker, size: Any) -> dict[str, Any]:
        """Return what a token in OS says beside its columns: the first group of a tile opens its sums, the last closes them."""
        sums = {"opens": walker.o_opens, "closes": walker.o_closes, "again": 0, "is_final": 1}
        sums["bank"] = walker.o_bank if self.parameters.has_ws else 0
        return sums | {"lanes": size.lanes, "rest": size.rest}

    def _fields_in_ws(self, walker: Walker, size: Any, command: Any) -> dict[str, Any]:
        """Return the same for WS: every group is a sum of its own, which goes on through the tiles of k."""
        if not self.parameters.has_ws:
            return dict.fromkeys(self.parameters.row_token.members, 0)
        return {
            "opens": 1,
            "closes": 1,
            "again": ~walker.o_is_first_k,
            "is_final": walker.o_is_last_k,
            "bank": walker.o_bank,
            "lanes": Mux(walker.o_closes, size.lanes, command.run.row_lanes),
            "rest": self._groups_of_tile(walker, command),
        }

    def _link_loads(self, m: Module, units: _Units, run: Any) -> None:
        """Make load tokens of what the column walker says (WS), and pass them down the rows."""
        walker, load = units.col_walker, units.rows[0].i_load
        m.d.comb += [
            load.go.eq(self.parameters.by_dataflow(run, in_ws=walker.o_go, in_os=0)),
            load.row.eq(walker.o_token),
            load.bank.eq(walker.o_bank),
            *(feeder.i_load.eq(above.o_load) for above, feeder in pairwise(units.rows)),
        ]

    def _link_cols(self, m: Module, units: _Units, command: Any) -> None:
        """Make tokens of what the walker says, and pass them east."""
        cols, walker = units.cols, units.col_walker
        token, size = cols[0].i_token, Signal.like(command.m_full, name="col_size")
        m.d.comb += [
            size.eq(Mux(walker.o_is_last_m, command.m_last, command.m_full)),
            token.go.eq(walker.o_go),
            token.is_used.eq(self.parameters.by_dataflow(command.run, in_ws=self._holds_group(walker, command), in_os=1)),
            token.cols.eq(self._cols_of_tile(m, walker, command, "col_token_cols")),
            token.rows.eq(size.rows),
        ]
        for feeder, port in zip(cols, self.i_north, strict=True):
            wiring.connect(m, wiring.flipped(port), feeder.i_north)
        for west, east in pairwise(cols):
            m.d.comb += [
                east.i_token.eq(west.o_token),
                east.i_entries.eq(west.o_entries),
                east.i_valid_entries.eq(west.o_valid_entries),
            ]

    def _link_feet(self, m: Module, units: _Units) -> None:
        feet, chains = units.feet, self.parameters.drain_lanes
        m.d.comb += [east.i_words.eq(west.o_words) for west, east in pairwise(feet)]
        if self.parameters.has_os:
            m.d.comb += feet[0].i_tags.eq(units.rows[-1].o_tags)
            m.d.comb += [east.i_tags.eq(west.o_tags) for west, east in pairwise(feet)]
        if self.parameters.has_ws:
            m.d.comb += [feet[0].i_sum_tag.eq(units.rows[-1].o_sum_tag), feet[0].i_read.eq(units.rows[0].o_again)]
            for west, east in pairwise(feet):
                m.d.comb += [east.i_sum_tag.eq(west.o_sum_tag), east.i_read.eq(west.o_read)]
        for col, foot in enumerate(feet):
            for chain in range(chains):
                wiring.connect(m, foot.o_out[chain], wiring.flipped(self.o_out[col * chains + chain]))

    def _link_pes(self, m: Module, platform: Any, units: _Units, enable: Any, command: Any) -> None:
        """Place the PEs, each linked to what stands west and north of it."""
        parameters = self.parameters
        above: list[Uspe] = []
        for row, feeder in enumerate(units.rows):
            pes = [place(m, platform, f"pe_{row}_{col}", Uspe(parameters)) for col in range(parameters.cols)]
            for pe, west in zip(pes, [feeder, *pes], strict=False):
                m.d.comb += pe.i_enable.eq(enable)
                m.d.comb += [getattr(pe, f"i_{name}").eq(getattr(west, f"o_{name}")) for name in pe.eastward]
                if parameters.has_os and parameters.has_ws:
                    m.d.comb += pe.i_is_ws.eq(command.run.is_ws)
            if row:
                for north, pe in zip(above, pes, strict=True):
                    self._link_south(m, north, pe)
            else:
                self._link_heads(m, units, pes)
            above = pes
        for pe, foot in zip(above, units.feet, strict=True):
            if parameters.has_os:
                m.d.comb += [port.eq(word) for port, word in zip(foot.i_drain, _drains(pe), strict=True)]
            if parameters.has_ws:
                m.d.comb += foot.i_sum.eq(pe.o_sum)

    def _link_heads(self, m: Module, units: _Units, pes: list[Uspe]) -> None:
        for pe, feeder, foot in zip(pes, units.cols, units.feet, strict=True):
            m.d.comb += pe.i_entry.eq(feeder.o_entry)
            if self.parameters.has_ws:
                m.d.comb += pe.i_sum.eq(foot.o_psum)

    def _link_south(self, m: Module, above: Uspe, pe: Uspe) -> None:
        m.d.comb += pe.i_entry.eq(above.o_entry)
        if self.parameters.has_ws:
            m.d.comb += pe.i_sum.eq(above.o_sum)
        if self.parameters.has_os:
            own, *passed = _from_row_above(_drains(above))
            m.d.comb += [pe.i_drain.eq(own), *(pe.i_pass[number].eq(word) for number, word in enumerate(passed))]

    def _groups_of_tile(self, walker: Walker, command: Any) -> Any:
        """Return the groups of k that a WS tile holds."""
        return Mux(walker.o_is_last_k, command.groups_last, self.parameters.rows)

    def _holds_group(self, walker: Walker, command: Any) -> Any:
        """Return whether the PE row that a WS token of the column walker is for holds a group."""
        return walker.o_token < self._groups_of_tile(walker, command) if self.parameters.has_ws else 1

    def _cols_of_tile(self, m: Module, walker: Walker, command: Any, name: str) -> Any:
        cols = Signal(self.parameters.cols_layout, name=name)
        m.d.comb += cols.lanes.eq(command.run.col_lanes)
        with m.If(walker.o_is_last_n):
            m.d.comb += cols.eq(command.n_last)
        return cols

    def _count(self, m: Module, units: _Units, enable: Any, is_taken: Any) -> None:
        """Step the counters; a command that is taken clears them."""
        now = Signal(COUNTER_BITS)
        is_started = Signal()
        macs = Signal(len(units.cols[-1].o_valid_entries) + COUNT_BITS, name="macs_of_slot")
        count = {name: Signal(COUNTER_BITS, name=name) for name in COUNTERS}
        m.d.comb += [getattr(self, f"o_{name}").eq(signal) for name, signal in count.items()]
        east = units.cols[-1]
        with m.If(enable & units.col_walker.o_go):
            m.d.sync += is_started.eq(1)
        with m.If(enable & is_started):
            m.d.sync += now.eq(now + 1)
            with m.If(any_of(foot.o_visible for foot in units.feet)):
                m.d.sync += count["cycles"].eq(now + 1)
        with m.If(enable):
            m.d.sync += [
                # The product has a register of its own. It is 0 again long before the run ends: sums take longer than it.
                macs.eq(east.o_valid_entries * east.o_rows),
                count["macs"].eq(count["macs"] + macs),
                count["west_words"].eq(count["west_words"] + units.rows[-1].o_taken),
                count["north_entries"].eq(count["north_entries"] + east.o_entries),
                count["out_words"].eq(count["out_words"] + units.feet[-1].o_words),
            ]
        with m.Elif(is_started):
            m.d.sync += count["stall_cycles"].eq(count["stall_cycles"] + 1)
        with m.If(is_taken):
            m.d.sync += [is_started.eq(0), now.eq(0), *(signal.eq(0) for signal in count.values())]


def _drains(unit: Uspe) -> list[Any]:
    """Return the ends of a PE's registers in all chains: its own, then those of the rows below in their order."""
    return [unit.o_drain, *(unit.o_pass if hasattr(unit, "o_pass") else [])]


def _from_row_above(chains: list[Any]) -> list[Any]:
    """Return what a row sees of the row above, its own chain first: for the row above it is the one after its own."""
    return [*chains[1:], chains[0]]
