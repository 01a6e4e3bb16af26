# amaranth: UnusedElaboratable=no
"""SORE against the golden pruning."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rtl_build import run_cocotb, slang_lint, verilate_for_cocotb
from stream_rules import Stalls, drive

from accel.errors import ConfigError
from accel.golden.prune import prune
from accel.rtl.emit import emit
from accel.rtl.sore import Entries, Sore, SoreParameters, sore_model
from accel.rtl.toolchain import lint
from accel.sparsity import NMPattern

GROUPS = [4, 8, 16]
SPECIAL = [0x0000, 0x8000, 0x0001, 0x8001, 0x03FF, 0x83FF, 0x3C00, 0xBC00, 0x7C00, 0xFC00, 0x7C01, 0xFE00, 0x7FFF, 0xFFFF]
WORDS = st.one_of(st.sampled_from(SPECIAL), st.integers(0, 0xFFFF))


@st.composite
def batches(draw, group):
    """Groups as (elements, keep); a group shorter than `group` is padded."""
    element_lists = st.lists(WORDS, min_size=0, max_size=group)
    full_lists = st.lists(WORDS, min_size=group, max_size=group)
    one = st.tuples(st.one_of(full_lists, element_lists), st.integers(1, group))
    return draw(st.lists(one, min_size=1, max_size=8))


def golden(elements, keep, group):
    """Return the slots of one group by `accel.golden.prune`: (value bits, index, valid) each."""
    if not elements:
        return [(0, 0, 0)] * group
    matrix = np.array(elements, np.uint16).view(np.float16)[:, None]
    entries = prune(matrix, NMPattern(keep, group))
    value = entries.values[0, :, 0].view(np.uint16).tolist()
    found = list(zip(value, entries.index[0, :, 0].tolist(), entries.valid[0, :, 0].astype(int).tolist(), strict=True))
    return found + [(0, 0, 0)] * (group - keep)


def payload(elements, keep, group):
    return {"values": elements + [0x7FFF] * (group - len(elements)), "mask": (1 << len(elements)) - 1, "keep": keep}


def slots(word, parameters):
    """Return the slots of a transfer out: (value bits, index, valid) each."""
    width = 17 + parameters.index_bits
    parts = [word >> width * slot & (1 << width) - 1 for slot in range(parameters.group)]
    return [(part & 0xFFFF, part >> 16 & (1 << parameters.index_bits) - 1, part >> width - 1) for part in parts]


@pytest.mark.parametrize("group", GROUPS)
@settings(max_examples=20)
@given(data=st.data())
def test_the_circuit_prunes_as_golden_does(group, data):
    batch = data.draw(batches(group))
    stalls = Stalls(data.draw(st.sampled_from([0.0, 0.3, 0.8])), 4)
    run = drive(
        Sore(SoreParameters(group)),
        [payload(elements, keep, group) for elements, keep in batch],
        seed=data.draw(st.integers(0, 1000)),
        sender=stalls,
        receiver=Stalls(data.draw(st.sampled_from([0.0, 0.3, 0.8])), 4),
        waits_for_valid=data.draw(st.booleans()),
    )
    expected = [golden(elements, keep, group) for elements, keep in batch]
    assert [slots(word, SoreParameters(group)) for word in run.payloads] == expected


@pytest.mark.parametrize("group", GROUPS)
@given(data=st.data())
def test_the_model_prunes_as_golden_does(group, data):
    batch = data.draw(batches(group))
    values = np.array([payload(*one, group)["values"] for one in batch], np.uint16)
    mask = np.array([[place < len(elements) for place in range(group)] for elements, _ in batch])
    entries = sore_model(values, mask, np.array([keep for _, keep in batch]))
    assert to_slots(entries) == [golden(elements, keep, group) for elements, keep in batch]


def to_slots(entries: Entries) -> list[list[tuple[int, int, int]]]:
    fields = zip(entries.value.tolist(), entries.index.tolist(), entries.valid.astype(int).tolist(), strict=True)
    return [list(zip(*row, strict=True)) for row in fields]


def test_padding_may_stand_anywhere_and_keep_be_any_count():
    rng = np.random.default_rng(3)
    group, parameters = 8, SoreParameters(8)
    values = rng.choice(np.array(SPECIAL, np.uint16), (200, group))
    mask, keep = rng.random((200, group)) < 0.6, rng.integers(0, group + 1, 200)
    bits = (mask << np.arange(group)).sum(axis=1)
    rows = zip(values.tolist(), bits.tolist(), keep.tolist(), strict=True)
    run = drive(Sore(parameters), [dict(zip(("values", "mask", "keep"), row, strict=True)) for row in rows])
    assert [slots(word, parameters) for word in run.payloads] == to_slots(sore_model(values, mask, keep))


def test_a_group_a_cycle_with_a_latency_of_four():
    run = drive(Sore(SoreParameters(4)), [payload([1, 2, 3, 4], 2, 4)] * 50)
    assert run.cycles_in == list(range(50))
    assert run.cycles_out == [cycle + Sore.LATENCY for cycle in range(50)]


@pytest.mark.parametrize("group", [0, 1, 3, 12, 64])
def test_a_group_that_is_no_power_of_two_in_range_is_refused(group):
    with pytest.raises(ConfigError, match=rf"^group must be a power of 2 from 2 to 32, not {group}$"):
        SoreParameters(group)


@pytest.mark.rtl
@pytest.mark.parametrize("group", GROUPS)
def test_linters_find_nothing(tmp_path, group):
    top = Sore(SoreParameters(group))
    texts = emit(top)
    for name, text in texts.items():
        (tmp_path / f"{name}.v").write_text(text)
    files = [tmp_path / f"{name}.v" for name in texts]
    assert lint(files, top.verilog_name) == []
    assert slang_lint(files, top.verilog_name) == ""


# One group size in Verilator: the circuit is the same for all, and all are compared above.
@pytest.mark.rtl
def test_a_hundred_thousand_groups_in_verilator():
    model = verilate_for_cocotb(Sore(SoreParameters(8)))
    run_cocotb(model, Path(__file__).with_name("sore_bench.py"), env={"SORE_GROUP": "8", "SORE_GROUPS": "100000"})
