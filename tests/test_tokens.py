import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.errors import ScheduleError
from accel.program import INSTRUCTION, Engine, Program
from accel.tokens import needs_of_tokens, resolve_tokens, tokens_of_needs

LOAD, STORE, COMPUTE, PRUNE, VECTOR, UPDATE = Engine


def opcodes_of(*engines):
    return np.array(engines, dtype=np.uint8)


def needs_from(count, entries):
    needs = np.zeros((count, len(Engine)), dtype=np.int64)
    for place, engine, need in entries:
        needs[place, engine] = need
    return needs


@st.composite
def programs_with_needs(draw):
    """Opcodes and needs of at most as many instructions of an engine as there are."""
    opcodes = opcodes_of(*draw(st.lists(st.sampled_from(list(Engine)), max_size=30)))
    needs = np.zeros((len(opcodes), len(Engine)), dtype=np.int64)
    for engine in Engine:
        most = int(np.sum(opcodes == engine))
        needs[:, engine] = draw(st.lists(st.integers(0, most), min_size=len(opcodes), max_size=len(opcodes)))
    return opcodes, needs


def naive_needs(opcodes, waits, signals):
    """What tokens stand for, counted one by one, instruction by instruction."""
    sent = {(a, b): [] for a in Engine for b in Engine}
    done = dict.fromkeys(Engine, 0)
    for opcode, mask in zip(opcodes, signals, strict=True):
        done[opcode] += 1
        for engine in Engine:
            if mask >> engine & 1:
                sent[opcode, engine].append(done[opcode])
    held = {(a, b): 0 for a in Engine for b in Engine}
    needs = np.zeros((len(opcodes), len(Engine)), dtype=np.int64)
    for place, (opcode, mask) in enumerate(zip(opcodes, waits, strict=True)):
        for engine in Engine:
            if mask >> engine & 1:
                held[engine, opcode] = sent[engine, opcode].pop(0)
            needs[place, engine] = held[engine, opcode]
    assert not any(sent.values()), "a token was sent and not taken"
    return needs


def test_a_need_becomes_one_wait_and_one_signal():
    waits, signals = tokens_of_needs(opcodes_of(LOAD, LOAD, COMPUTE), needs_from(3, [(2, LOAD, 2)]))
    assert waits.tolist() == [0, 0, 1 << LOAD]
    assert signals.tolist() == [0, 1 << COMPUTE, 0]


def test_what_the_engine_waited_for_before_takes_no_token():
    opcodes = opcodes_of(LOAD, LOAD, COMPUTE, COMPUTE, COMPUTE)
    waits, signals = tokens_of_needs(opcodes, needs_from(5, [(2, LOAD, 2), (3, LOAD, 1), (4, LOAD, 2)]))
    assert waits.tolist() == [0, 0, 1 << LOAD, 0, 0]
    assert signals.tolist() == [0, 1 << COMPUTE, 0, 0, 0]


def test_one_instruction_waits_for_several_engines_and_signals_several():
    opcodes = opcodes_of(LOAD, PRUNE, COMPUTE, STORE)
    waits, signals = tokens_of_needs(opcodes, needs_from(4, [(1, LOAD, 1), (2, LOAD, 1), (2, PRUNE, 1), (3, COMPUTE, 1)]))
    assert waits.tolist() == [0, 1 << LOAD, 1 << LOAD | 1 << PRUNE, 1 << COMPUTE]
    assert signals.tolist() == [1 << PRUNE | 1 << COMPUTE, 1 << COMPUTE, 1 << STORE, 0]


def test_needs_on_the_own_engine_take_no_token():
    waits, signals = tokens_of_needs(opcodes_of(LOAD, LOAD), needs_from(2, [(1, LOAD, 1)]))
    assert not waits.any()
    assert not signals.any()


def test_a_wait_for_a_later_instruction_in_the_file_is_resolved():
    assert needs_of_tokens(opcodes_of(COMPUTE, LOAD), opcodes_of(1 << LOAD, 0), opcodes_of(0, 1 << COMPUTE))[0, LOAD] == 1


def test_an_empty_program_has_no_tokens():
    waits, signals = tokens_of_needs(opcodes_of(), needs_from(0, []))
    assert (waits.shape, signals.shape) == ((0,), (0,))
    assert needs_of_tokens(opcodes_of(), waits, signals).shape == (0, len(Engine))


@given(programs_with_needs())
def test_tokens_stand_for_the_needs_they_were_made_of(case):
    opcodes, needs = case
    found = needs_of_tokens(opcodes, *tokens_of_needs(opcodes, needs))
    for engine in Engine:
        own = opcodes == engine
        expected = np.maximum.accumulate(needs[own], axis=0)
        expected[:, engine] = 0
        assert np.array_equal(found[own], expected)


@given(programs_with_needs())
def test_tokens_are_those_a_count_one_by_one_gives(case):
    opcodes, needs = case
    waits, signals = tokens_of_needs(opcodes, needs)
    assert np.array_equal(needs_of_tokens(opcodes, waits, signals), naive_needs(opcodes, waits, signals))


@given(programs_with_needs())
def test_needs_come_back_to_the_same_tokens(case):
    opcodes, needs = case
    waits, signals = tokens_of_needs(opcodes, needs)
    again = tokens_of_needs(opcodes, needs_of_tokens(opcodes, waits, signals))
    assert np.array_equal(again, (waits, signals))


@given(programs_with_needs())
def test_no_token_can_be_left_out(case):
    opcodes, needs = case
    waits, signals = tokens_of_needs(opcodes, needs)
    kept = needs_of_tokens(opcodes, waits, signals)
    for place in np.flatnonzero(waits):
        earlier = np.flatnonzero(opcodes[:place] == opcodes[place])
        before = kept[earlier[-1]] if len(earlier) else np.zeros(len(Engine), dtype=np.int64)
        for engine in Engine:
            if waits[place] >> engine & 1:
                assert kept[place, engine] > before[engine]


def test_resolve_tokens_reads_the_program():
    table = np.zeros(2, dtype=INSTRUCTION)
    table["opcode"] = COMPUTE, STORE
    table["waits"][1] = 1 << COMPUTE
    table["signals"][0] = 1 << STORE
    assert resolve_tokens(Program(None, table)).tolist() == [[0] * 6, [0, 0, 1, 0, 0, 0]]


def refused(problem, function, *arguments, **options):
    with pytest.raises(ScheduleError, match=f"^{re.escape(problem)}$"):
        function(*arguments, **options)


def test_a_need_beyond_an_engines_instructions_is_refused():
    refused(
        "instruction 1: needs on LOAD must be between 0 and its 1 instructions, not 2",
        tokens_of_needs,
        opcodes_of(LOAD, COMPUTE),
        needs_from(2, [(1, LOAD, 2)]),
    )
    refused(
        "instruction 1: needs on STORE must be between 0 and its 0 instructions, not -1",
        tokens_of_needs,
        opcodes_of(LOAD, COMPUTE),
        needs_from(2, [(1, STORE, -1)]),
    )


def test_a_wait_that_nobody_meets_is_refused():
    refused(
        "step.nmp: instruction 2: waits must be for tokens that are sent, not token 2 from LOAD to COMPUTE of 1",
        needs_of_tokens,
        opcodes_of(LOAD, COMPUTE, COMPUTE),
        opcodes_of(0, 1 << LOAD, 1 << LOAD),
        opcodes_of(1 << COMPUTE, 0, 0),
        source="step.nmp",
    )


def test_a_signal_that_nobody_takes_is_refused():
    refused(
        "program: instruction 1: signals must be tokens that are taken, not token 2 from LOAD to COMPUTE of 1",
        needs_of_tokens,
        opcodes_of(LOAD, LOAD, COMPUTE),
        opcodes_of(0, 0, 1 << LOAD),
        opcodes_of(1 << COMPUTE, 1 << COMPUTE, 0),
    )
