"""Drives and watches the array in Amaranth's own simulator: the same batches as on the Verilog, without a build."""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Value
from amaranth.sim import Simulator
from array_driver import Batch, Stream
from array_monitor import BROKEN, Seen

from accel.counters import COUNTERS
from accel.rtl.array import SystolicArray

PATIENCE_CYCLES = 3000
"""Cycles after the start or the end of a run in which the next of these must come, or all become quiet."""
QUIET_CYCLES = 40
"""Cycles to wait for words that should not come."""


class PysimBench:
    """One simulation of a batch."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.dut = SystolicArray(batch.cases[0].parameters)
        self.words: list[list[str]] = [[] for _ in batch.sinks]
        self.runs: list[dict[str, int]] = []
        self.is_hung = False
        self.cycles = 0
        self._sources = [(source, *self._port(source)) for source in batch.sources]
        self._sinks = [(sink, *self._port(sink)) for sink in batch.sinks]

    def run(self) -> Seen:
        """Run until all is quiet or a run hangs."""
        simulator = Simulator(self.dut)
        simulator.add_clock(1e-6)
        simulator.add_testbench(self._bench)
        simulator.run()
        return Seen(self.words, self.runs, self.is_hung, self.cycles)

    def _port(self, stream: Stream) -> tuple[Any, Value]:
        name, _, number = stream.name.partition("__")
        port = getattr(self.dut, name)
        port = port[int(number)] if number else port
        return port, Value.cast(port.payload)

    async def _bench(self, context: Any) -> None:
        sources = [_Source(context, *source) for source in self._sources]
        sinks = [_Sink(context, *sink, words) for sink, words in zip(self._sinks, self.words, strict=True)]
        command = self.dut.i_command
        started, last_event, quiet = None, 0, 0
        while quiet < QUIET_CYCLES and not self.is_hung:
            ready, valid = context.get(command.ready), context.get(command.valid)
            if ready and started is not None:
                counters = {name: context.get(getattr(self.dut, f"o_{name}")) for name in COUNTERS}
                self.runs.append({"busy_cycles": self.cycles - started, **counters})
                started, last_event = None, self.cycles
            if ready and valid:
                started = last_event = self.cycles
            is_busy = started is not None
            for port in [*sources, *sinks]:
                is_busy |= port.look(context)
            await context.tick()
            self.cycles += 1
            for port in [*sources, *sinks]:
                port.act(context)
            quiet = 0 if is_busy else quiet + 1
            self.is_hung = self.cycles - last_event > PATIENCE_CYCLES


class _Source:
    """Shows the words of a stream, each after its pause, and the complement of a word in between."""

    def __init__(self, context: Any, stream: Stream, port: Any, payload: Value) -> None:
        self.port, self.payload, self.mask = port, payload, (1 << stream.width) - 1
        self.left = list(zip((int(word, 16) for word in stream.words), stream.pauses, strict=True))[::-1]
        self.is_taken = False
        self.pause = self.left[-1][1] if self.left else 0
        self._show(context)

    def look(self, context: Any) -> bool:
        self.is_taken = self.is_valid and bool(context.get(self.port.ready))
        return self.is_valid

    def act(self, context: Any) -> None:
        if self.is_taken:
            self.left.pop()
            self.pause = self.left[-1][1] if self.left else 0
            self._show(context)
        elif self.pause:
            self.pause -= 1
            self._show(context)

    def _show(self, context: Any) -> None:
        self.is_valid = bool(self.left) and not self.pause
        context.set(self.port.valid, self.is_valid)
        if self.left:
            context.set(self.payload, self.left[-1][0] ^ (0 if self.is_valid else self.mask))


class _Sink:
    """Takes words, each when it has been there for its pause, and watches the rules of a stream."""

    def __init__(self, context: Any, stream: Stream, port: Any, payload: Value, words: list[str]) -> None:
        self.port, self.payload, self.words = port, payload, words
        self.left = stream.pauses[::-1]
        self.waiting: int | None = None
        self.pause = self.left.pop() if self.left else 0
        context.set(port.ready, not self.pause)

    def look(self, context: Any) -> bool:
        valid = bool(context.get(self.port.valid))
        word = context.get(self.payload) if valid else None
        if self.waiting is not None and word != self.waiting:
            self.words.append(BROKEN)
        if valid and not self.pause:
            self.words.append(f"{word:x}")
            self.pause, self.waiting = self.left.pop() if self.left else 0, None
        elif valid:
            self.pause, self.waiting = self.pause - 1, word
        return valid

    def act(self, context: Any) -> None:
        context.set(self.port.ready, not self.pause)
