"""A buffer of two transfers between a stream's sender and its receiver."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Module, Shape, ShapeLike, Signal
from amaranth.lib import stream
from amaranth.lib.wiring import Component, In, Out

from accel.errors import ConfigError


class SkidBuffer(Component):
    """A stream register without a combinational path from any port to any port.

    Latency: 1 cycle while the receiver is ready. Throughput: one transfer a cycle. Two transfers are held when the receiver
    stalls, since the sender learns of it one cycle late. After reset nothing is held: `o.valid` is low, `i.ready` is high.

    Parameters
    ----------
    shape: of the payload, at least 1 bit wide.

    Ports
    -----
    i: stream of `shape`; `ready` comes straight from a register.
    o: stream of `shape`; `valid` and `payload` come straight from registers.
    """

    def __init__(self, shape: ShapeLike) -> None:
        width = Shape.cast(shape).width
        if width < 1:
            raise ConfigError(f"shape must be at least 1 bit wide, not {width}")
        self.shape = shape
        super().__init__({"i": In(stream.Signature(shape)), "o": Out(stream.Signature(shape))})

    @property
    def parameters(self) -> tuple[int]:
        """Width of the payload in bits: all the circuit depends on."""
        return (Shape.cast(self.shape).width,)

    @property
    def verilog_name(self) -> str:
        """Name of the Verilog module."""
        return f"skid_buffer_{self.parameters[0]}"

    def elaborate(self, platform: Any) -> Module:
        """Return the circuit."""
        m = Module()
        spare = Signal(self.shape, reset_less=True)
        has_spare = Signal()
        sent = Signal(self.shape, reset_less=True)
        has_sent = Signal()

        m.d.comb += [self.i.ready.eq(~has_spare), self.o.valid.eq(has_sent), self.o.payload.eq(sent)]
        with m.If(self.o.ready | ~has_sent):
            m.d.sync += [has_sent.eq(has_spare | self.i.valid), has_spare.eq(0)]
            with m.If(has_spare):
                m.d.sync += sent.eq(spare)
            with m.Else():
                m.d.sync += sent.eq(self.i.payload)
        with m.Elif(self.i.valid):
            m.d.sync += has_spare.eq(1)
        # Whatever the sender shows in the last cycle of `ready` stays in `spare`, wanted or not: no enable logic.
        with m.If(~has_spare):
            m.d.sync += spare.eq(self.i.payload)
        return m
