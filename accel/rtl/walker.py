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
    is; `o_bank` changes with the tile. `group_cycles` is at least 2; `o_busy` falls after the last token.
    """

    verilog_name = "walker"
    parameters = ()

    def __init__(self) -> None:
        flags = ("go", "opens", "closes", "is_last_m", "is_last_n", "is_first_k", "is_last_k", "bank", "busy")
        ports = {"i_enable": In(1), "i_go": In(1), "i_walk": In(WALK), "o_token": Out(COUNT_BITS)}
        super().__init__(ports | {f"o_{flag}": Out(1) for flag in flags})

    def elaborate(self, platform: Any) -> Any:
        """Return counters that count down to 1, loops inside loops, and registers that say where they stand.

        What is said of a token follows its counters by a cycle, so that no sum and comparison stand in one path: a group has at
        least two cycles, and the counters step in the first of them. For the first token of a run it is worked out with `i_go`.
        """
        m, walk = Module(), self.i_walk
        wait = Signal(COUNT_BITS)
        go = Signal()
        is_running = Signal()
        ends_tile = Signal()
        token = Signal(COUNT_BITS)
        left = {name: Signal(COUNT_BITS, name=f"{name}_left") for name in ("k_tiles", "n_tiles", "m_tiles", "count")}
        now = {name: Mux(self.i_go, walk[name], counter) for name, counter in left.items()}
        is_last, ends = self._last_rounds(m, now)
        is_next_last = Mux(now["m_tiles"] == 1, walk.m_tiles == 1, now["m_tiles"] == 2)
        is_last_m_next = Mux(ends["n_tiles"], self._register(m, "is_next_m_last", is_next_last), is_last["m_tiles"])
        m.d.comb += [self.o_busy.eq(is_running), self.o_go.eq(go), self.o_token.eq(token)]
        self._describe(m, token, is_last, now)
        m.d.comb += ends_tile.eq(go & self.o_closes)
        gap = Mux(Mux(walk.is_gap_of_next, is_last_m_next, is_last["m_tiles"]), walk.gap_last, walk.gap_full)
        with m.If(self.i_go):
            m.d.sync += [is_running.eq(1), token.eq(0), self.o_bank.eq(0), wait.eq(walk.delay), go.eq(walk.delay == 0)]
        with m.Elif(go):
            m.d.sync += [token.eq(token + 1), wait.eq(Mux(ends_tile, gap, 0) + (walk.group_cycles - 1)[:16]), go.eq(0)]
            with m.If(ends_tile):
                m.d.sync += [token.eq(0), self.o_bank.eq(~self.o_bank)]
        with m.Elif(is_running):
            m.d.sync += [wait.eq(wait - 1), go.eq(wait == 1)]
        steps: Any = ends_tile
        for name, counter in left.items():
            with m.If(self.i_go | steps):
                m.d.sync += counter.eq(Mux(self.i_go | is_last[name], walk[name], counter - 1))
            steps = ends_tile & ends[name]
        with m.If(steps):
            m.d.sync += is_running.eq(0)
        return EnableInserter(self.i_enable)(m)

    def _last_rounds(self, m: Module, now: dict[str, Any]) -> tuple[dict[str, Signal], dict[str, Signal]]:
        """Return whether each loop is in its last round, and whether it and all inside it are."""
        is_last, ends = {}, {}
        ends_now: Any = 1
        for name, number in now.items():
            is_last[name] = self._register(m, f"is_last_{name}", number == 1)
            ends_now &= number == 1
            ends[name] = self._register(m, f"ends_{name}", ends_now)
        return is_last, ends

    def _describe(self, m: Module, token: Any, is_last: dict[str, Signal], now: dict[str, Any]) -> None:
        """Say of a token where it stands in its tile, and where the tile stands."""
        walk = self.i_walk
        token_now = Mux(self.i_go, 0, token)
        closes_full = self._register(m, "closes_full", token_now == walk.tokens_full - 1)
        closes_last = self._register(m, "closes_last", token_now == walk.tokens_last - 1)
        m.d.comb += [
            self.o_opens.eq(self._register(m, "opens", token_now == 0)),
            self.o_closes.eq(Mux(is_last["m_tiles"], closes_last, closes_full)),
            self.o_is_last_m.eq(is_last["m_tiles"]),
            self.o_is_last_n.eq(is_last["n_tiles"]),
            self.o_is_first_k.eq(self._register(m, "is_first_k", now["k_tiles"] == walk.k_tiles)),
            self.o_is_last_k.eq(is_last["k_tiles"]),
        ]

    def _register(self, m: Module, name: str, value: Any) -> Signal:
        register = Signal(name=name)
        m.d.sync += register.eq(value)
        return register
