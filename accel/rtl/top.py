"""The modules that a project places: flat ports with one meaning each, a clock and a reset, streams side by side in vectors.

A port is described once, by `Port`; the circuit's signature, the side file and the data sheet are made from that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from amaranth import ClockDomain, Module, Signal, Value
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accel.counters import COUNTERS
from accel.rtl.array import SystolicArray
from accel.rtl.command import command_layout
from accel.rtl.emit import place
from accel.rtl.parameters import COUNTER_BITS, ArrayParameters
from accel.rtl.pe import Uspe
from accel.rtl.sore import Sore, SoreParameters
from accel.units import ceil_div

Direction = Literal["in", "out"]


@dataclass(frozen=True)
class Field:
    """Bits of a word: `count` equal parts side by side from `offset` on, each `width` wide."""

    name: str
    offset: int
    width: int
    meaning: str
    count: int = 1


@dataclass(frozen=True)
class Port:
    """A port of a top module: `lanes` parts side by side, lane 0 in the lowest bits."""

    name: str
    direction: Direction
    lane_bits: int
    meaning: str
    lanes: int = 1
    fields: tuple[Field, ...] = ()
    """What stands in the bits of a lane; bits that no field covers are ignored (in) or 0 (out)."""

    @property
    def width(self) -> int:
        """All lanes together."""
        return self.lanes * self.lane_bits


CLOCK_AND_RESET = (
    Port("aclk", "in", 1, "clock of everything: all ports change and are read at its rising edge"),
    Port("aresetn", "in", 1, "reset, active low, synchronous: one rising edge with it low is enough"),
)

_Meaning = str | tuple[str, str]
"""The same in both dataflows, or one for OS and one for WS."""

_WALK_MEANINGS: dict[str, _Meaning] = {
    "group_cycles": "cycles of a group: keep * adder_latency",
    "delay": ("0", "cycles before the first group"),
    "count": "equal products, one after the other",
    "m_tiles": ("tiles along output rows", "chunks along output rows"),
    "n_tiles": "tiles along output columns",
    "k_tiles": ("1", "tiles along k"),
    "tokens_full": "groups of a tile, all but the last along output rows",
    "tokens_last": "groups of the last tile along output rows",
    "gap_full": (
        "cycles without a group before a tile, all but the last along output rows",
        "cycles without a group after a tile, all but the last along output rows",
    ),
    "gap_last": "the same of the last tile along output rows",
    "is_gap_of_next": ("1: the gap belongs to the tile that follows", "0: the gap belongs to the tile that ended"),
}
_SIZE_MEANINGS: dict[str, _Meaning] = {
    "lanes": ("output rows that each PE row has", "output rows that the last stream element has"),
    "rest": ("PE rows that have one output row more", "0"),
    "rows": "output rows",
}
_RUN_MEANINGS = {
    "run.is_ws": "0: OS, sums stay in the PEs; 1: WS, the north operand stays",
    "run.row_lanes": "a: lanes of a PE along output rows",
    "run.col_lanes": "b: lanes of a PE along output columns, adder_latency / a",
    "run.keep": "entries of a group",
    "run.is_rounded": "0: results leave as FP32; 1: rounded to FP16 in bits 15:0, bits 31:16 zero",
    "n_last.lanes": "the last tile along output columns: columns that each PE column has",
    "n_last.rest": "the last tile along output columns: PE columns that have one more",
}
_GROUPED_MEANINGS = (
    ("row_walk", "row feeders", _WALK_MEANINGS),
    ("col_walk", "column feeders", _WALK_MEANINGS),
    ("m_full", "all tiles along output rows but the last", _SIZE_MEANINGS),
    ("m_last", "the last tile along output rows", _SIZE_MEANINGS),
    ("groups_last", "", {"": ("0", "groups of k in the last tile along k")}),
)
_ENTRY_MEANINGS = {
    "value": "FP16",
    "index": "where in its group the element stands",
    "valid": "0: there is no element, the sum stays as it is and value and index do not matter",
}


def _command_meanings(parameters: ArrayParameters) -> dict[str, str]:
    """Return what the fields of a command mean in the dataflows that are built."""
    meanings = dict(_RUN_MEANINGS)
    for group, what, of_fields in _GROUPED_MEANINGS:
        for name, meaning in of_fields.items():
            text = meaning if isinstance(meaning, str) else _by_dataflow(*meaning, parameters)
            meanings[f"{group}.{name}".rstrip(".")] = f"{what}: {text}".removeprefix(": ")
    return meanings


def _by_dataflow(in_os: str, in_ws: str, parameters: ArrayParameters) -> str:
    if parameters.has_os and parameters.has_ws:
        return f"OS: {in_os}; WS: {in_ws}"
    return in_os if parameters.has_os else in_ws


def array_ports(parameters: ArrayParameters) -> tuple[Port, ...]:
    """Return the ports of `NmArray`."""
    rows, cols, chains = parameters.rows, parameters.cols, parameters.cols * parameters.drain_lanes
    command = _fields(command_layout(parameters), _command_meanings(parameters))
    group = (Field("word", 0, 16, "FP16 element", parameters.group),)
    entry = _fields(parameters.north_layout, _ENTRY_MEANINGS)
    result = (Field("result", 0, 32, "FP32, or FP16 in bits 15:0"),)
    chain = f"lane c * {parameters.drain_lanes} + d" if parameters.drain_lanes > 1 else "lane c"
    out_meaning = f"{chain}: results of PE column c" + ", drain chain d" * (parameters.drain_lanes > 1)
    counters = [Port(f"count_{name}", "out", COUNTER_BITS, meaning) for name, meaning in COUNTERS.items()]
    return (
        *CLOCK_AND_RESET,
        *_stream(
            "s_command",
            "in",
            1,
            command,
            "the next run; taken when the run before has put its last result into the output buffers",
        ),
        *_stream("s_west", "in", rows, group, "lane r: groups of the west operand for PE row r"),
        *_stream("s_north", "in", cols, entry, "lane c: entries of the north operand for PE column c"),
        *_stream("m_out", "out", chains, result, out_meaning),
        *counters,
    )


def sore_ports(parameters: SoreParameters) -> tuple[Port, ...]:
    """Return the ports of `SoreTop`."""
    group_fields = (
        Field("values", 0, 16, "FP16 element", parameters.group),
        Field("mask", 16 * parameters.group, 1, "1: an element, 0: padding, never kept", parameters.group),
        Field("keep", 17 * parameters.group, parameters.group.bit_length(), "how many to keep: 0 none, group or more all"),
    )
    entry_bits = 17 + parameters.index_bits
    slots = [
        Field(f"slot_{slot}.{name}", slot * whole_bytes(entry_bits) + offset, width, meaning)
        for slot in range(parameters.group)
        for name, offset, width, meaning in (
            ("value", 0, 16, _ENTRY_MEANINGS["value"]),
            ("index", 16, parameters.index_bits, _ENTRY_MEANINGS["index"]),
            ("valid", 16 + parameters.index_bits, 1, "0: the slot is not used, all its bits are 0"),
        )
    ]
    return (
        *CLOCK_AND_RESET,
        *_stream("s_group", "in", 1, group_fields, "a group to prune"),
        *_stream("m_entries", "out", 1, tuple(slots), "the group's entries, ascending in index, in the first slots"),
    )


_PARTS = {"fraction": "below the leading one", "exponent": "its code", "sign": "1: negative"}
_USPE_MEANINGS = {
    "enable": "0: every register of the PE holds",
    "is_ws": "0: OS, 1: WS; changes only while nothing is under way",
    "words": "one group, recoded",
    "first": "the product that enters the adder starts a sum: high multiplier_latency - 1 cycles after its operands",
    "capture": "OS: the sum has ended: high multiplier_latency + adder_latency - 1 cycles after its last operands",
    "read_address": "WS: entry to multiply with, beside its word: column lane, entry and, in the top bit, bank",
    "write": "WS: store the entry that comes from the north in the same cycle",
    "write_address": "WS: where to",
    "entry": "recoded element and its index",
    "drain": "OS: drain chain of this PE's row",
    "pass": "OS: the other drain chains, passed on",
    "sum": "WS: sum from the north at the adder's input, sum to the south at its output: no register at the receiving end",
}


def uspe_ports(parameters: ArrayParameters) -> tuple[Port, ...]:
    """Return the ports of `Uspe`; its streams are of recoded words."""
    form = parameters.operand_format
    parts = {
        "words": (Field("word", 0, form.operand_layout.size, "operand", parameters.group),),
        "entry": _fields(parameters.entry_layout, _ENTRY_MEANINGS | {f"operand.{part}": of for part, of in _PARTS.items()}),
        "drain": _fields(form.partial_layout, _PARTS),
        "sum": _fields(form.partial_layout, _PARTS),
    }
    ports = [
        Port("clk", "in", 1, "clock, rising edge; there is no reset, because no register needs one"),
    ]
    for name, signal, is_input in _wires(Uspe(parameters)):
        plain = name[2:]
        ports.append(Port(name, "in" if is_input else "out", len(signal), _USPE_MEANINGS[plain], fields=parts.get(plain, ())))
    return tuple(ports)


class NmArray(wiring.Component):
    """The array of processing elements with flat ports: streams of a side stand side by side, lane 0 in the lowest bits.

    `aclk` is the only clock, `aresetn` the synchronous reset, active low. After one rising edge in reset every `m_out_valid` is
    low, `s_command_ready`, `s_west_ready` and `s_north_ready` are high and the counters are 0. The data of a
    lane is in whole bytes.
    """

    verilog_name = "array"

    def __init__(self, parameters: ArrayParameters) -> None:
        self.parameters = parameters
        super().__init__(_signature(array_ports(parameters)))
        _mark_clock_and_reset(self)

    def elaborate(self, platform: Any) -> Module:
        """Return the array in a clock domain of its own."""
        m = _clocked_module(self)
        array = place(m, platform, "array", SystolicArray(self.parameters))
        _link(m, self, "s_command", [array.i_command])
        _link(m, self, "s_west", list(array.i_west))
        _link(m, self, "s_north", list(array.i_north))
        _link(m, self, "m_out", list(array.o_out))
        m.d.comb += [getattr(self, f"count_{name}").eq(getattr(array, f"o_{name}")) for name in COUNTERS]
        return m


class SoreTop(wiring.Component):
    """The pruning unit with flat ports: its entries are laid out as the lanes of the array's north streams.

    Clock and reset are as those of `NmArray`.
    """

    verilog_name = "sore"

    def __init__(self, parameters: SoreParameters) -> None:
        self.parameters = parameters
        super().__init__(_signature(sore_ports(parameters)))
        _mark_clock_and_reset(self)

    def elaborate(self, platform: Any) -> Module:
        """Return SORE in a clock domain of its own."""
        m = _clocked_module(self)
        sore = place(m, platform, "selector", Sore(self.parameters))
        _link(m, self, "s_group", [sore.i])
        m.d.comb += [self.m_entries_valid.eq(sore.o.valid), sore.o.ready.eq(self.m_entries_ready)]
        slot_bits = whole_bytes(17 + self.parameters.index_bits)
        for slot in range(self.parameters.group):
            m.d.comb += self.m_entries_data.word_select(slot, slot_bits).eq(sore.o.payload[slot])
        return m


def _signature(ports: Sequence[Port]) -> dict[str, Any]:
    return {port.name: (In if port.direction == "in" else Out)(port.width) for port in ports}


def _mark_clock_and_reset(top: Any) -> None:
    """Let Vivado's block designs see clock and reset as such. No frequency: the design's own may differ."""
    top.aclk.attrs["X_INTERFACE_INFO"] = "xilinx.com:signal:clock:1.0 aclk CLK"
    top.aclk.attrs["X_INTERFACE_PARAMETER"] = "ASSOCIATED_RESET aresetn"
    top.aresetn.attrs["X_INTERFACE_INFO"] = "xilinx.com:signal:reset:1.0 aresetn RST"
    top.aresetn.attrs["X_INTERFACE_PARAMETER"] = "POLARITY ACTIVE_LOW"


def _clocked_module(top: Any) -> Module:
    m = Module()
    m.domains.sync = domain = ClockDomain()
    domain.clk, domain.rst = top.aclk, Signal(name="reset")
    m.d.comb += domain.rst.eq(~top.aresetn)
    return m


def _stream(
    name: str, direction: Literal["in", "out"], lanes: int, fields: tuple[Field, ...], meaning: str
) -> tuple[Port, ...]:
    """Return the three ports of streams side by side."""
    bits = whole_bytes(max(field.offset + field.width * field.count for field in fields))
    back: Direction = "out" if direction == "in" else "in"
    return (
        Port(f"{name}_valid", direction, 1, "the word in the same lane of data is offered; does not wait for ready", lanes),
        Port(f"{name}_ready", back, 1, "it is taken at this rising edge if valid is high too", lanes),
        Port(f"{name}_data", direction, bits, meaning, lanes, fields),
    )


def _link(m: Module, top: Any, name: str, streams: Sequence[Any]) -> None:
    """Connect the vectors of `top` with streams of a part inside it."""
    valid, ready, vector = (getattr(top, f"{name}_{part}") for part in ("valid", "ready", "data"))
    lane_bits = len(vector) // len(streams)
    for number, inner in enumerate(streams):
        payload, lane = Value.cast(inner.payload), vector.word_select(number, lane_bits)
        if name.startswith("s_"):
            m.d.comb += [inner.valid.eq(valid[number]), ready[number].eq(inner.ready), payload.eq(lane[: len(payload)])]
        else:
            m.d.comb += [valid[number].eq(inner.valid), inner.ready.eq(ready[number]), lane.eq(payload)]


def _fields(layout: Any, meanings: dict[str, str], prefix: str = "") -> tuple[Field, ...]:
    """Return the leaves of a layout, named by their path."""
    return tuple(_leaves(layout, meanings, prefix, 0))


def _leaves(layout: Any, meanings: dict[str, str], prefix: str, base: int) -> Iterator[Field]:
    for key, field in layout:
        name, offset = f"{prefix}{key}", base + field.offset
        if isinstance(field.shape, data.Layout):
            yield from _leaves(field.shape, meanings, f"{name}.", offset)
        elif field.width:
            yield Field(name, offset, field.width, meanings.get(name, ""))


def _wires(component: Any) -> Iterator[tuple[str, Any, bool]]:
    """Yield name, signal and whether it is an input, of a component's ports that have bits."""
    component._MustUse__silence = True  # built for its signature alone
    for path, member, leaf in component.signature.flatten(component):
        signal = Value.cast(leaf)
        if len(signal):
            yield "__".join(map(str, path)), signal, member.flow is In


def whole_bytes(bits: int) -> int:
    """Return the bits of the whole bytes that hold `bits`."""
    return 8 * ceil_div(bits, 8)
