"""The unified sparse processing element: selects, multiplies, and adds to sums that rotate through its adder."""

from __future__ import annotations

from typing import Any

from amaranth import EnableInserter, Module, Mux, Signal, unsigned
from amaranth.lib import data, memory, wiring
from amaranth.lib.wiring import In, Out

from accel.rtl.adder import Adder
from accel.rtl.emit import embed, named_ports
from accel.rtl.multiplier import Multiplier
from accel.rtl.parameters import ArrayParameters


class Uspe(wiring.Component):
    """A processing element: selects, multiplies, and adds to sums that rotate through its adder.

    docs/timing.md rules 1 to 5, 9 and 15. Every input is taken into a register, and that register is what the neighbour to the
    east or south sees. Control comes from the west at the time it is needed: with operands at the ports in cycle t, `i_first`
    (the product starts a sum) comes at t + multiplier_latency - 1 and `i_capture` (the sum has ended) at t + multiplier_latency
    + adder_latency - 1. All registers hold while `i_enable` is low. Only `o_sum`, on its way south in WS, has no register of
    the receiving PE behind it.

    Ports: west to east a group of operands and control, north to south an entry, the sum (WS) and the drain chains (OS):
    `drain` is the chain to which this row belongs, `pass` the others. `eastward` names what moves from west to east.
    """

    verilog_name = "uspe"
    reads = ("adder_latency", "multiplier_latency", "group", "row_lanes", "dataflows", "drain_lanes", "operand_format")

    def __init__(self, parameters: ArrayParameters) -> None:
        self.parameters = parameters
        partial = parameters.operand_format.partial_layout
        eastward: dict[str, Any] = {"words": parameters.word_layout, "first": 1}
        southward: dict[str, Any] = {"entry": parameters.entry_layout}
        ports: dict[str, Any] = {"i_enable": In(1)}
        if parameters.has_os:
            eastward["capture"] = 1
            southward["drain"] = partial
            if parameters.drain_lanes > 1:
                southward["pass"] = data.ArrayLayout(partial, parameters.drain_lanes - 1)
        if parameters.has_ws:
            address = unsigned(parameters.bank_address_bits)
            eastward |= {"read_address": address, "write": 1, "write_address": address}
            southward["sum"] = partial
        if parameters.has_os and parameters.has_ws:
            ports["i_is_ws"] = In(1)
        for name, shape in (eastward | southward).items():
            ports |= {f"i_{name}": In(shape), f"o_{name}": Out(shape)}
        self.eastward = tuple(eastward)
        super().__init__(ports)

    def elaborate(self, platform: Any) -> Any:
        """Return the registers of docs/timing.md section 1, all under `i_enable`."""
        m = Module()
        for name in self.signature.members:
            if name.startswith("o_") and name not in ("o_sum", "o_drain"):
                port = getattr(self, name)
                register = Signal.like(port, name=name[2:], reset_less=True)
                m.d.sync += register.eq(getattr(self, "i" + name[1:]))
                m.d.comb += port.eq(register)
        product = self._multiply(m, self._entry_in_use(m))
        total = self._accumulate(m, product)
        if self.parameters.has_os:
            self._drain(m, total)
        return EnableInserter(self.i_enable)(m)

    def _entry_in_use(self, m: Module) -> Any:
        """Return the entry to multiply with: the one that passes (OS) or one of the bank (WS)."""
        parameters = self.parameters
        if not parameters.has_ws:
            return self.o_entry
        m.submodules.banks = banks = memory.Memory(
            shape=parameters.entry_layout, depth=1 << parameters.bank_address_bits, init=[]
        )
        write, read = named_ports("banks", banks.write_port(), banks.read_port(domain="comb"))
        m.d.comb += [
            write.en.eq(self.o_write),
            write.addr.eq(self.o_write_address),
            write.data.eq(self.o_entry),
            read.addr.eq(self.o_read_address),
        ]
        if not parameters.has_os:
            return read.data
        entry = Signal(parameters.entry_layout, name="entry_in_use")
        m.d.comb += entry.eq(Mux(self.i_is_ws, read.data, self.o_entry))
        return entry

    def _multiply(self, m: Module, entry: Any) -> Any:
        """Return the product, `multiplier_latency - 1` registers after the input registers."""
        parameters = self.parameters
        operand = parameters.operand_format.operand_layout
        element = Signal(operand)
        weight = Signal(operand)
        m.d.comb += weight.eq(entry.operand)
        m.d.comb += element.eq(self.o_words[0])
        with m.Switch(entry.index):
            for number in range(1, parameters.group):
                with m.Case(number):
                    m.d.comb += element.eq(self.o_words[number])
        registers = parameters.multiplier_latency - 1
        if registers > 1 and (parameters.group > 1 or parameters.has_ws):
            selected = [Signal(operand, name=name, reset_less=True) for name in ("element_selected", "weight_selected")]
            m.d.sync += [selected[0].eq(element), selected[1].eq(weight)]
            element, weight = selected
            registers -= 1
        multiplier = embed(m, "multiplier", Multiplier(parameters.operand_format, registers))
        m.d.comb += [multiplier.i_west.eq(element), multiplier.i_north.eq(weight)]
        return multiplier.o_product

    def _accumulate(self, m: Module, product: Any) -> Any:
        """Return the sum at the adder's output, which is the start of the lane's next step unless that one is a first."""
        parameters = self.parameters
        partial = parameters.operand_format.partial_layout
        adder = embed(m, "adder", Adder(parameters.operand_format, parameters.adder_latency))
        start = Signal(partial)
        if parameters.has_ws:
            m.d.comb += self.o_sum.eq(adder.o_sum)
            m.d.comb += start.eq(Mux(self.i_is_ws, self.i_sum, 0) if parameters.has_os else self.i_sum)
        m.d.comb += [adder.i_sum.eq(Mux(self.o_first, start, adder.o_sum)), adder.i_product.eq(product)]
        return adder.o_sum

    def _drain(self, m: Module, total: Any) -> None:
        """Shift the chain in every cycle, taking the sum that ends or what comes from the north."""
        chain = Signal(self.parameters.operand_format.partial_layout, name="drain_in")
        m.d.comb += chain.eq(Mux(self.o_capture, total, self.i_drain))
        for number in range(self.parameters.adder_latency + 1):
            register = Signal.like(chain, name=f"drain_{number}", reset_less=True)
            m.d.sync += register.eq(chain)
            chain = register
        m.d.comb += self.o_drain.eq(chain)
