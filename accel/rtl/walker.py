"""The tiles of a run: when each of their groups starts."""

from __future__ import annotations

from typing import Any

from amaranth import EnableInserter, Module, Mux, Signal, unsigned
from amaranth.lib import data, wiring
from amaranth.lib.wiring import In, Out

from accel.rtl.parameters import COUNT_BITS

WALK = data.StructLayout(
    {
        "group_cycles": unsigned(16),
        "delay": unsigned(16),
        "count": unsigned(COUNT_BITS),
        "m_tiles": unsigned(COUNT_BITS),
        "n_tiles": unsigned(COUNT_BITS),
        "k_tiles": unsigned(COUNT_BITS),
        "tokens_full": unsigned(COUNT_BITS),
        "tokens_last": unsigned(COUNT_BITS),
        "gap_full": unsigned(COUNT_BITS),
        "gap_last": unsigned(COUNT_BITS),
        "is_gap_of_next": unsigned(1),
    }
)
"""What a walker walks over. `_full` is for all tiles along m but the last; counts are at least 1, gaps and delay may be 0."""


class Walker(wiring.Component):
    """Walks through the tiles of a run: says when each group of each tile starts, one every `group_cycles`.

    docs/timing.md rules 7, 11, 13 and 17. Tiles run product by product, then along m, n and k, the last the fastest. The first
    token comes `delay` + 1 cycles after `i_go`. After the last token's cycles come the gap's: that of the tile which has ended
    (WS), or of the one that follows (OS, `is_gap_of_next`). With `o_go`, the other outputs say which token and which tile it
    is; `o_bank` changes with the tile.
    """

    verilog_name = "walker"
    parameters = ()

    def __init__(self) -> None:
        flags = ("go", "opens", "closes", "is_last_m", "is_last_n", "is_first_k", "is_last_k", "bank", "busy")
        ports = {"i_enable": In(1), "i_go": In(1), "i_walk": In(WALK), "o_token": Out(COUNT_BITS)}
        super().__init__(ports | {f"o_{flag}": Out(1) for flag in flags})

    def elaborate(self, platform: Any) -> Any:
        """Return counters that count down to 1, loops inside loops."""
        m, walk = Module(), self.i_walk
        counters = {name: Signal(COUNT_BITS, name=f"{name}_left") for name in ("count", "m_tiles", "n_tiles", "k_tiles")}
        wait = Signal(COUNT_BITS)
        slot = Signal(16)
        token = Signal(COUNT_BITS)
        bank = Signal()
        is_running = Signal()
        ends_tile = Signal()
        is_last_m_next = Signal()
        is_last = {name: counter == 1 for name, counter in counters.items()}
        tokens = Mux(is_last["m_tiles"], walk.tokens_last, walk.tokens_full)
        gap = Mux(Mux(walk.is_gap_of_next, is_last_m_next, is_last["m_tiles"]), walk.gap_last, walk.gap_full)
        m.d.comb += [
            self.o_busy.eq(is_running),
            self.o_go.eq(is_running & (wait == 0) & (slot == 0)),
            self.o_token.eq(token),
            self.o_opens.eq(token == 0),
            self.o_closes.eq(token == tokens - 1),
            self.o_is_last_m.eq(is_last["m_tiles"]),
            self.o_is_last_n.eq(is_last["n_tiles"]),
            self.o_is_first_k.eq(counters["k_tiles"] == walk.k_tiles),
            self.o_is_last_k.eq(is_last["k_tiles"]),
            self.o_bank.eq(bank),
            ends_tile.eq(is_running & (wait == 0) & (slot == walk.group_cycles - 1) & self.o_closes),
        ]
        with m.If(is_running & (wait != 0)):
            m.d.sync += wait.eq(wait - 1)
        with m.Elif(is_running):
            m.d.sync += slot.eq(slot + 1)
            with m.If(slot == walk.group_cycles - 1):
                m.d.sync += [slot.eq(0), token.eq(token + 1)]
        with m.If(ends_tile):
            m.d.sync += [token.eq(0), bank.eq(~bank), wait.eq(gap)]
        steps: Any = ends_tile
        for name in ("k_tiles", "n_tiles", "m_tiles", "count"):
            with m.If(steps):
                m.d.sync += counters[name].eq(Mux(is_last[name], walk[name], counters[name] - 1))
            if name == "m_tiles":
                left = Mux(is_last[name], walk[name], counters[name] - 1)
                m.d.comb += is_last_m_next.eq(Mux(steps, left == 1, is_last[name]))
            steps = steps & is_last[name]
        with m.If(steps):
            m.d.sync += is_running.eq(0)
        with m.If(self.i_go):
            m.d.sync += [is_running.eq(1), wait.eq(walk.delay), bank.eq(0), slot.eq(0), token.eq(0)]
            m.d.sync += [counter.eq(walk[name]) for name, counter in counters.items()]
        return EnableInserter(self.i_enable)(m)
