"""Faults to plant in the array: each a change of one place in the text of one component."""

from __future__ import annotations

import contextlib
import importlib
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, ModuleType
from unittest import mock


@dataclass(frozen=True)
class Fault:
    """`old`, which stands once in `accel/rtl/MODULE.py`, becomes `new`."""

    what: str
    module: str
    old: str
    new: str

    @contextlib.contextmanager
    def planted(self) -> Iterator[None]:
        """Give the classes and functions of the module the changed text for a while."""
        original = importlib.import_module(f"accel.rtl.{self.module}")
        path = Path(str(original.__file__))
        text = path.read_text()
        assert text.count(self.old) == 1, f"{path.name} has changed: {self.old!r} must stand in it once, so that {self.what}"
        changed = ModuleType(original.__name__)
        changed.__file__ = str(path)
        with contextlib.ExitStack() as stack:
            # While it is made, the module must be the one of its name: dataclasses look there.
            with mock.patch.dict(sys.modules, {original.__name__: changed}):
                exec(compile(text.replace(self.old, self.new), str(path), "exec"), vars(changed))
            for name, value in vars(changed).items():
                if getattr(value, "__module__", None) != original.__name__:
                    continue
                if isinstance(value, FunctionType):
                    stack.enter_context(mock.patch.object(original, name, value))
                elif isinstance(value, type):
                    for method, code in vars(value).items():
                        if isinstance(code, FunctionType) and method != "__init__":
                            stack.enter_context(mock.patch.object(vars(original)[name], method, code))
            yield


FAULTS = [
    # What a PE computes.
    Fault("ties round up", "adder", ' magnitude[guard + 1] & ~values["below"]])', ' ~values["below"]])'),
    Fault("a sum forgets what fell off", "adder", '"above": sticky & ~subtract,', '"above": C(0, 1),'),
    Fault("a difference forgets what fell off", "adder", '"below": sticky & subtract,', '"below": C(0, 1),'),
    Fault("half of what falls off is unseen", "adder", '"lost": small[:16].any(),', '"lost": small[:8].any(),'),
    Fault("x - x is -0", "adder", ' & ~(is_zero & values["subtract"])', ""),
    Fault("a NaN keeps its sign", "adder", '"sign": sign & ~is_nan,', '"sign": sign,'),
    Fault(
        "infinity - infinity is infinity",
        "adder",
        " | product.special & product.nan | opposite,",
        " | product.special & product.nan,",
    ),
    Fault("0 * infinity is infinity", "multiplier", "invalid = is_special[0] & is_zero[1] |", "invalid ="),
    Fault(
        "an entry that is not valid is multiplied",
        "multiplier",
        "(is_special[0] | is_special[1]) & ~is_void,",
        "is_special[0] | is_special[1],",
    ),
    Fault("an index bit is stuck at 0", "pe", "m.Switch(entry.index)", "m.Switch(entry.index & 2)"),
    Fault("two elements are swapped", "pe", "m.Switch(entry.index)", "m.Switch(entry.index ^ (entry.index == 3))"),
    Fault("an OS sum starts from the row above", "pe", "Mux(self.i_is_ws, self.i_sum, 0)", "self.i_sum"),
    Fault("WS multiplies what passes", "pe", "Mux(self.i_is_ws, read.data, self.o_entry)", "self.o_entry"),
    Fault(
        "a chain is one register short",
        "pe",
        "range(self.parameters.adder_latency + 1)",
        "range(self.parameters.adder_latency)",
    ),
    Fault("a PE runs on through a stall", "pe", "return EnableInserter(self.i_enable)(m)", "return m"),
    Fault(
        "a PE that starts a sum runs on",
        "pe",
        "EnableInserter(self.i_enable)(m)",
        "EnableInserter(self.i_enable | self.o_first)(m)",
    ),
    # What comes in and goes out.
    Fault("subnormals are twice as large", "recoder", "exponent.eq(position + lowest)", "exponent.eq(position + lowest + 1)"),
    Fault("NaN is read as infinity", "recoder", "Mux(fraction == 0, form.infinity, form.nan)", "form.infinity"),
    Fault("FP16 results round ties up", "rounder", "(taken_guard & (taken_sticky | taken[0]))", "taken_guard"),
    Fault("what falls off a subnormal result is unseen", "rounder", " | is_small & Cat(shifted_out).any()", ""),
    Fault("FP16 overflows an exponent early", "rounder", "partial.exponent > largest", "partial.exponent >= largest"),
    Fault("the second word is lost", "skid", "m.d.sync += has_spare.eq(1)", "m.d.sync += has_spare.eq(0)"),
    Fault("valid falls before ready", "skid", "self.o.valid.eq(has_sent)", "self.o.valid.eq(has_sent & ~has_spare)"),
    # West.
    Fault(
        "first comes a cycle late",
        "row_feeder",
        'opens, parameters.multiplier_latency - 1, "opened")',
        'opens, parameters.multiplier_latency, "opened")',
    ),
    Fault(
        "one lane has no first",
        "row_feeder",
        "& (slot.o_entry == 0)),\n            tag",
        "& (slot.o_entry == 0) & (slot.o_col_lane != 1)),\n            tag",
    ),
    Fault("capture comes a cycle early", "row_feeder", "tags[-2].valid", "tags[-3].valid"),
    Fault("WS rows start a cycle apart", "row_feeder", "in_ws=slot.o_ends, in_os", "in_ws=slot.o_starts, in_os"),
    Fault(
        "the banks swap a cycle late",
        "row_feeder",
        "_address(parameters, slot, token.bank)",
        "_address(parameters, slot, token.bank ^ slot.o_starts)",
    ),
    Fault("entries load into the bank in use", "row_feeder", "bank.eq(self.i_load.bank)", "bank.eq(~self.i_load.bank)"),
    Fault("one row lane more has results", "row_feeder", "slot.o_row_lane < parameters.", "slot.o_row_lane <= parameters."),
    Fault("the word of another lane is held", "row_feeder", "past[number - 1]", "past[0]"),
    Fault(
        "every row is as full as the first",
        "row_feeder",
        "self.o_token.rest.eq(token.rest - (token.rest != 0))",
        "self.o_token.rest.eq(token.rest)",
    ),
    Fault("a missing word does not stall", "row_feeder", "self.o_starved.eq(needs & ~words.valid)", "self.o_starved.eq(0)"),
    Fault("a group needs a word too many", "row_feeder", "needed.eq(lanes_of_token)", "needed.eq(lanes_of_token + 1)"),
    Fault("a word is taken in a stall", "row_feeder", "words.ready.eq(needs & self.i_enable)", "words.ready.eq(needs)"),
    # North.
    Fault(
        "a missing entry does not stall", "column_feeder", "self.o_starved.eq(needs & ~entries.valid)", "self.o_starved.eq(0)"
    ),
    Fault("an entry is taken in a stall", "column_feeder", "takes.eq(needs & self.i_enable)", "takes.eq(needs)"),
    Fault("an entry serves two lanes at most", "column_feeder", "(slot.o_row_lane != 0)):", "(slot.o_row_lane == 1)):"),
    Fault("one column lane more takes entries", "column_feeder", "(next_col_lane < lanes)", "(next_col_lane <= lanes)"),
    Fault("a group takes no first entry", "column_feeder", "self.i_token.is_used & (lanes_of_token != 0)", "0"),
    Fault(
        "every column is as full as the first",
        "column_feeder",
        "self.i_token.cols.rest - (self.i_token.cols.rest != 0)",
        "self.i_token.cols.rest",
    ),
    Fault("entries that are not valid count", "column_feeder", "(needs & ~fmt.is_void(entries.payload.operand))", "needs"),
    # South.
    Fault(
        "the psum buffer writes one place", "column_foot", "write.addr.eq(write.addr + write.en)", "write.addr.eq(write.addr)"
    ),
    Fault("the psum buffer reads on and on", "column_foot", "read.addr.eq(read.addr + read.en)", "read.addr.eq(read.addr + 1)"),
    Fault("partial sums go out", "column_foot", "is_due = tag.valid & tag.is_final &", "is_due = tag.valid &"),
    Fault("no column has a lane more than the others", "column_foot", " | tag.is_in_rest & has_rest", ""),
    Fault("a word waiting to be rounded is lost", "column_foot", "skid.i.ready | ~is_waiting", "1"),
    Fault("a word waiting to be rounded is written over", "column_foot", "rounder.i_take.eq(ready)", "rounder.i_take.eq(1)"),
    Fault(
        "an output that takes nothing does not stall",
        "column_foot",
        "blocked.append(is_real & ~ready)",
        "blocked.append(is_real & 0)",
    ),
    Fault(
        "a word goes out in every cycle of a stall",
        "column_foot",
        "is_real & self.i_enable)",
        "is_real)",
    ),
    # What starts when, and what is counted.
    Fault("a gap is one cycle longer", "walker", "Mux(ends_tile, gap, 0)", "Mux(ends_tile, gap + (gap != 0), 0)"),
    Fault("a gap is one cycle shorter", "walker", "Mux(ends_tile, gap, 0)", "Mux(ends_tile, gap - (gap != 0), 0)"),
    Fault(
        "a gap is that of the tile before",
        "walker",
        'Mux(walk.is_gap_of_next, is_last_m_next, is_last["m_tiles"])',
        'is_last["m_tiles"]',
    ),
    Fault("a loop ends without those inside it", "walker", "ends_now &= number == 1", "ends_now = number == 1"),
    Fault("the first token comes a cycle late", "walker", "go.eq(walk.delay == 0)", "go.eq(0)"),
    Fault(
        "the last tile of m is taken for a full one",
        "walker",
        'self.o_is_last_m.eq(is_last["m_tiles"])',
        "self.o_is_last_m.eq(0)",
    ),
    Fault("the bank stays", "walker", "bank.eq(~self.o_bank)", "bank.eq(self.o_bank)"),
    Fault("a walker runs on through a stall", "walker", "return EnableInserter(self.i_enable)(m)", "return m"),
    Fault("chains are not passed on in turn", "array", "return [*chains[1:], chains[0]]", "return chains"),
    Fault("the last tile of n is taken for a full one", "array", "with m.If(walker.o_is_last_n):", "with m.If(0):"),
    Fault(
        "one output cannot stall the array",
        "array",
        "[foot.o_blocked for foot in units.feet]",
        "[foot.o_blocked for foot in units.feet[1:]]",
    ),
    Fault(
        "one row cannot stall the array",
        "array",
        "for feeder in edges[: -parameters.cols]]",
        "for feeder in edges[1 : -parameters.cols]]",
    ),
    Fault("cycles are one less", "array", 'count["cycles"].eq(now + 1)', 'count["cycles"].eq(now)'),
    Fault("a stall counts twice", "array", 'count["stall_cycles"] + 1', 'count["stall_cycles"] + 2'),
    Fault("a command is taken before the last word", "array", "with m.Elif(is_quiet):", "with m.Elif(1):"),
]
