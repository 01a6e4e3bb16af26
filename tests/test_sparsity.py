import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_macs import kept

from accel.errors import ConfigError
from accel.sparsity import DENSE, NMPattern


@st.composite
def patterns(draw):
    group = draw(st.integers(1, 32))
    return NMPattern(draw(st.integers(1, group)), group)


def refused(make, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make()


def test_a_pattern_is_written_kept_first():
    pattern = NMPattern.parse("2:8")
    assert (pattern.keep, pattern.group) == (2, 8)
    assert str(pattern) == "2:8"


@given(patterns())
def test_text_reads_back_to_the_same_pattern(pattern):
    assert NMPattern.parse(str(pattern)) == (DENSE if pattern.is_dense else pattern)


@pytest.mark.parametrize("text", ["dense", "1:1", "4:4", "8:8"])
def test_keeping_all_is_dense(text):
    pattern = NMPattern.parse(text)
    assert pattern.is_dense
    assert pattern.index_bits == 0
    assert str(pattern) == "dense"


@pytest.mark.parametrize(
    "text", ["", "2", "2:", ":8", "2:8:1", "two:8", "2/8", " 2:8", "2:8\n", "-1:8", "2.0:8", "٢:8", "Dense"]
)
def test_other_text_is_refused(text):
    refused(lambda: NMPattern.parse(text), f"pattern must be two integers like 2:8, not {text!r}")


def test_a_number_too_long_to_be_a_size_is_refused():
    refused(lambda: NMPattern.parse("1:1234567890"), "pattern must be two integers like 2:8, not '1:1234567890'")


@pytest.mark.parametrize(("text", "keep", "group"), [("5:4", 5, 4), ("8:2", 8, 2), ("0:4", 0, 4)])
def test_keep_outside_its_group_is_refused(text, keep, group):
    message = f"keep must be between 1 and group ({group}), not {keep}; a pattern is written kept:group, for example 2:8"
    refused(lambda: NMPattern.parse(text), message)


@pytest.mark.parametrize("group", [0, -4])
def test_an_empty_group_is_refused(group):
    refused(lambda: NMPattern(1, group), f"group must be at least 1, not {group}")


@given(patterns(), st.integers(0, 100))
def test_survivors_equal_a_count(pattern, elems):
    assert pattern.kept_of(elems) == kept(elems, pattern)


@given(patterns())
def test_a_whole_group_keeps_its_share(pattern):
    assert pattern.kept_of(3 * pattern.group) == 3 * pattern.keep


@given(patterns())
def test_index_bits_tell_every_place_in_a_group_apart(pattern):
    if not pattern.is_dense:
        assert 2**pattern.index_bits >= pattern.group > 2 ** (pattern.index_bits - 1)


@given(patterns(), st.integers(0, 9))
def test_a_compact_group_holds_its_kept_values_and_where_they_stand(pattern, groups):
    entries = [pattern.index_bits + 16 for _ in range(groups) for _ in range(pattern.keep)]
    assert pattern.compact_bits(groups * pattern.group, value_bits=16) == sum(entries)


@given(patterns(), st.integers(1, 8))
def test_a_pattern_runs_as_its_multiple(pattern, scale):
    run = pattern.on_machine(scale * pattern.group)
    assert run == NMPattern(scale * pattern.keep, scale * pattern.group)


@pytest.mark.parametrize(("text", "machine_group"), [("2:8", 4), ("1:3", 8), ("2:16", 8)])
def test_a_group_that_does_not_divide_the_machines_is_refused(text, machine_group):
    group = text.split(":")[1]
    message = (
        f"group of pattern {text} must divide the machine's group ({machine_group}), not {group}; "
        "choose a pattern with a smaller group or a machine with a larger one"
    )
    refused(lambda: NMPattern.parse(text).on_machine(machine_group), message)
