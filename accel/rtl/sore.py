"""SORE: keeps the largest magnitudes of each group and writes them as entries."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from amaranth.hdl import Cat, Module, Mux, Signal, Value
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out

from accel.errors import ConfigError
from accel.rtl.emit import place
from accel.rtl.skid import SkidBuffer
from accel.units import ceil_log2

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LARGEST_GROUP = 32  # comparators grow with the square


@dataclass(frozen=True)
class SoreParameters:
    """What a SORE is built for."""

    group: int
    """Elements of a group: a power of 2 from 2 to 32."""

    def __post_init__(self) -> None:
        if not 2 <= self.group <= _LARGEST_GROUP or self.group & (self.group - 1):
            raise ConfigError(f"group must be a power of 2 from 2 to {_LARGEST_GROUP}, not {self.group!r}")

    @property
    def index_bits(self) -> int:
        """Bits that say where in its group an element stands."""
        return ceil_log2(self.group)

    @property
    def group_layout(self) -> data.StructLayout:
        """A group on its way in: its FP16 bit patterns, which of them are elements (not padding), how many to keep."""
        return data.StructLayout(
            {"values": data.ArrayLayout(16, self.group), "mask": self.group, "keep": range(self.group + 1)}
        )

    @property
    def entries_layout(self) -> data.ArrayLayout:
        """A group on its way out: `group` slots, the entries first."""
        return data.ArrayLayout(data.StructLayout({"value": 16, "index": self.index_bits, "valid": 1}), self.group)


@dataclass(frozen=True)
class Entries:
    """What SORE makes of groups; all arrays are (groups, group), the entries of a group first."""

    value: NDArray[np.uint16]
    index: NDArray[np.int64]
    valid: NDArray[np.bool_]


def sore_model(values: NDArray[np.uint16], mask: NDArray[np.bool_], keep: NDArray[np.int64]) -> Entries:
    """Return the entries of groups as the circuit makes them.

    `values` (groups, group) are FP16 bit patterns, `mask` (groups, group) is false for padding, `keep` is (groups,). Where
    padding comes last this is `accel.golden.prune`; the circuit takes it anywhere.
    """
    magnitude = np.where(mask, values.astype(np.int64) & 0x7FFF, -1)
    rank = np.argsort(np.argsort(-magnitude, axis=1, kind="stable"), axis=1, kind="stable")
    kept = mask & (rank < keep[:, None])
    source = np.argsort(~kept, axis=1, kind="stable")
    valid = np.take_along_axis(kept, source, axis=1)
    value = np.where(valid, np.take_along_axis(values, source, axis=1), 0).astype(np.uint16)
    return Entries(value, np.where(valid, source, 0), valid)


class Sore(Component):
    """The selector: keeps the largest magnitudes of a group, one group a cycle.

    The order is that of `accel.golden.prune`. Elements are ranked by their 15 magnitude bits as an unsigned integer, of equals
    the lower index first; the first `keep` of them become the entries, ascending in index. Padding never does. The slots after
    the entries are all zero.

    Latency: 4 cycles from the transfer in to the first cycle of `o.valid`, while `o` does not stall. Throughput: one group a
    cycle. A stall holds the whole pipeline; neither stream has a combinational path to the other.

    Ports
    -----
    i: stream of `parameters.group_layout`. `keep` may differ from group to group: 0 keeps nothing, `group` or more everything.
    o: stream of `parameters.entries_layout`, one transfer for each group.
    """

    LATENCY = 4

    def __init__(self, parameters: SoreParameters) -> None:
        self.parameters = parameters
        super().__init__(
            {
                "i": In(stream.Signature(parameters.group_layout)),
                "o": Out(stream.Signature(parameters.entries_layout)),
            }
        )

    @property
    def verilog_name(self) -> str:
        """Name of the Verilog module."""
        return f"sore_g{self.parameters.group}"

    def elaborate(self, platform: Any) -> Module:
        """Return the circuit: who beats whom; who is kept; which element each slot takes; the slots."""
        m = Module()
        result = place(m, platform, "result", SkidBuffer(self.parameters.entries_layout))
        # The buffer's `ready` is a register: the receiver's is not seen further up.
        advance = result.i.ready
        m.d.comb += self.i.ready.eq(advance)

        compared = self._compare(m, advance)
        kept = self._rank(m, advance, compared)
        chosen = self._compact(m, advance, kept)
        m.d.comb += [result.i.valid.eq(chosen.valid)]
        self._select(m, chosen, result.i.payload)

        m.d.comb += [self.o.valid.eq(result.o.valid), self.o.payload.eq(result.o.payload), result.o.ready.eq(self.o.ready)]
        return m

    def _compare(self, m: Module, advance: Signal) -> _Compared:
        """Register, for each pair, whether the earlier element goes before the later one."""
        group = self.parameters.group
        now = self.i.payload
        pipe = _Compared(
            Signal(name="compared_valid"),
            _values("compared_values", group),
            Signal(group, name="compared_mask", reset_less=True),
            Signal(range(group + 1), name="compared_keep", reset_less=True),
            Signal(len(_pairs(group)), name="earlier_first", reset_less=True),
        )
        # Padding is below every element. Between paddings the order is of no account.
        magnitudes = [Cat(Mux(now.mask[i], now.values[i][:15], 0), now.mask[i]) for i in range(group)]
        with m.If(advance):
            m.d.sync += [
                pipe.valid.eq(self.i.valid),
                pipe.values.eq(now.values),
                pipe.mask.eq(now.mask),
                pipe.keep.eq(now.keep),
                pipe.earlier_first.eq(Cat(magnitudes[i] >= magnitudes[j] for i, j in _pairs(group))),
            ]
        return pipe

    def _rank(self, m: Module, advance: Signal, compared: _Compared) -> _Kept:
        """Register which elements have fewer than `keep` before them."""
        group = self.parameters.group
        pipe = _Kept(Signal(name="kept_valid"), _values("kept_values", group), Signal(group, name="kept", reset_less=True))
        before: list[list[Any]] = [[] for _ in range(group)]
        for bit, (i, j) in enumerate(_pairs(group)):
            before[j].append(compared.earlier_first[bit])
            before[i].append(~compared.earlier_first[bit])
        with m.If(advance):
            m.d.sync += [pipe.valid.eq(compared.valid), pipe.values.eq(compared.values)]
            m.d.sync += pipe.kept.eq(Cat(_count(others) < compared.keep for others in before) & compared.mask)
        return pipe

    def _compact(self, m: Module, advance: Signal, kept: _Kept) -> _Chosen:
        """Register for each slot which element it takes: the one that is kept and has as many kept before it."""
        group, index_bits = self.parameters.group, self.parameters.index_bits
        pipe = _Chosen(
            Signal(name="chosen_valid"),
            _values("chosen_values", group),
            Signal(data.ArrayLayout(index_bits, group), name="chosen_index", reset_less=True),
            Signal(group, name="chosen_used", reset_less=True),
        )
        position = [Signal(range(i + 1), name=f"position_{i}") for i in range(group)]
        m.d.comb += [position[i].eq(_count(kept.kept[:i])) for i in range(1, group)]
        with m.If(advance):
            m.d.sync += [pipe.valid.eq(kept.valid), pipe.values.eq(kept.values)]
            for slot in range(group):
                # An element never moves to a later slot.
                takes = {i: kept.kept[i] & (position[i] == slot) for i in range(slot, group)}
                m.d.sync += pipe.used[slot].eq(Cat(takes.values()).any())
                for bit in range(index_bits):
                    m.d.sync += pipe.index[slot][bit].eq(Cat(take for i, take in takes.items() if i >> bit & 1).any())
        return pipe

    def _select(self, m: Module, chosen: _Chosen, slots: Any) -> None:
        """Fill the slots with what they take."""
        group = self.parameters.group
        for slot in range(group):
            m.d.comb += [slots[slot].index.eq(chosen.index[slot]), slots[slot].valid.eq(chosen.used[slot])]
            with m.If(chosen.used[slot]), m.Switch(chosen.index[slot]):
                for i in range(slot, group):
                    with m.Case(i):
                        m.d.comb += slots[slot].value.eq(chosen.values[i])


class _Compared(NamedTuple):
    valid: Any
    values: Any
    mask: Any
    keep: Any
    earlier_first: Any


class _Kept(NamedTuple):
    valid: Any
    values: Any
    kept: Any


class _Chosen(NamedTuple):
    valid: Any
    values: Any
    index: Any
    used: Any


def _values(name: str, group: int) -> Any:
    return Signal(data.ArrayLayout(16, group), name=name, reset_less=True)


def _count(bits: Any) -> Value:
    """Return how many of `bits` are set, in as many bits as the count can take."""
    bits = list(bits)
    if len(bits) < 2:
        return Cat(bits)
    half = len(bits) // 2
    return (_count(bits[:half]) + _count(bits[half:]))[: len(bits).bit_length()]


def _pairs(group: int) -> list[tuple[int, int]]:
    return list(combinations(range(group), 2))
