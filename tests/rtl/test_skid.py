# amaranth: UnusedElaboratable=no
"""The skid buffer against the rules of a stream."""

import random

import pytest
from amaranth.hdl import Module, Signal
from amaranth.lib import data, stream
from amaranth.lib.wiring import Component, In, Out
from stream_rules import Stalls, StreamRules, drive

from accel.errors import ConfigError
from accel.rtl.skid import SkidBuffer

WORDS = [random.Random(7).getrandbits(16) for _ in range(300)]
PATTERNS = {
    "none": Stalls(),
    "rare": Stalls(0.1, 20),
    "half": Stalls(0.5, 1),
    "often": Stalls(0.9, 3),
}


@pytest.mark.parametrize("sender", PATTERNS.values(), ids=PATTERNS)
@pytest.mark.parametrize("receiver", PATTERNS.values(), ids=PATTERNS)
def test_everything_comes_out_once_in_order(sender, receiver):
    assert drive(SkidBuffer(16), WORDS, seed=1, sender=sender, receiver=receiver).payloads == WORDS


def test_a_transfer_a_cycle_with_a_latency_of_one():
    run = drive(SkidBuffer(16), WORDS)
    assert run.cycles_in == list(range(len(WORDS)))
    assert run.cycles_out == list(range(1, len(WORDS) + 1))


def test_a_receiver_may_wait_for_valid():
    run = drive(SkidBuffer(16), WORDS[:50], sender=Stalls(0.5, 4), waits_for_valid=True)
    assert run.payloads == WORDS[:50]


def test_the_payload_may_be_a_structure():
    layout = data.StructLayout({"low": 4, "high": 12})
    words = [{"low": word & 15, "high": word >> 4} for word in WORDS[:20]]
    assert drive(SkidBuffer(layout), words, receiver=Stalls(0.5, 2)).payloads == WORDS[:20]
    assert SkidBuffer(layout).verilog_name == "skid_buffer_16"


def test_a_payload_without_bits_is_refused():
    with pytest.raises(ConfigError, match=r"^shape must be at least 1 bit wide, not 0$"):
        SkidBuffer(0)


@pytest.mark.parametrize(
    ("valid", "payload", "message"),
    [
        (0, 5, r"^rule 1: o took `valid` back before `ready`, cycle 1"),
        (1, 6, r"^rule 2: o changed a waiting payload, cycle 1"),
    ],
)
def test_the_checker_finds_broken_rules(valid, payload, message):
    rules = StreamRules("o")
    assert not rules.observe(1, 0, 5)
    with pytest.raises(AssertionError, match=message):
        rules.observe(valid, 1, payload)


class Shy(Component):
    """Breaks rule 3."""

    i: In(stream.Signature(8))
    o: Out(stream.Signature(8))

    def elaborate(self, platform):
        m = Module()
        m.d.comb += [self.o.payload.eq(self.i.payload), self.o.valid.eq(self.i.valid & self.o.ready)]
        m.d.comb += self.i.ready.eq(self.o.ready)
        m.d.sync += Signal(name="clocked").eq(1)  # the simulator wants a clock domain
        return m


def test_the_bench_finds_a_sender_that_waits_for_ready():
    assert drive(Shy(), [1, 2]).payloads == [1, 2]
    with pytest.raises(AssertionError, match=r"^rule 3: no transfer for 1000 cycles after 0 of 2"):
        drive(Shy(), [1, 2], waits_for_valid=True)
