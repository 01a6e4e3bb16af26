"""The command of a run: what it holds, and what is refused before it could be cut off."""

import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.errors import ConfigError
from accel.rtl.command import Run, command_fields, command_layout
from accel.rtl.parameters import ArrayParameters
from accel.rtl.vectors import command_word
from accel.sparsity import NMPattern

ARRAY = ArrayParameters(rows=32, cols=32, adder_latency=4, multiplier_latency=2, group=8, row_lanes=(1, 2, 4))
WS = Run(dataflow="WS", row_lanes=1, pattern=NMPattern(8, 8), count=1, dim_m=1, dim_n=128, groups=32)
LARGEST_CHUNK = 32 + ((1 << 24) - 1) // 32
"""Rows whose groups of 32 cycles leave a gap of 24 bits behind the 32 groups of a load."""


def leaves(fields, prefix=""):
    for name, value in fields.items():
        if isinstance(value, dict):
            yield from leaves(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", int(value)


def test_the_longest_gap_of_a_column_walk_fits():
    run = replace(WS, dim_m=LARGEST_CHUNK + 1, m_chunk=LARGEST_CHUNK)
    assert command_fields(ARRAY, run)["col_walk"]["gap_full"] == (LARGEST_CHUNK - 32) * 32 < 1 << 24


def test_a_gap_of_more_bits_is_refused_with_what_to_lower():
    run = replace(WS, dim_m=LARGEST_CHUNK + 2, m_chunk=LARGEST_CHUNK + 1)
    message = "col_walk.gap_full must be at most 16777215, not 16777216; lower m_chunk"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        command_fields(ARRAY, run)


def test_every_number_that_does_not_fit_is_named():
    run = replace(WS, dim_m=1_600_000, m_chunk=1_600_000)
    message = (
        "col_walk.gap_full must be at most 16777215, not 51198976; lower m_chunk\n"
        "col_walk.gap_last must be at most 16777215, not 51198976; lower m_chunk"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        command_fields(ARRAY, run)


def test_a_group_too_long_to_count_is_refused():
    array = ArrayParameters(rows=1, cols=1, adder_latency=8, multiplier_latency=1, group=1 << 13, dataflows=("OS",))
    run = Run(dataflow="OS", row_lanes=1, pattern=NMPattern(1 << 13, 1 << 13), count=1, dim_m=1, dim_n=1, groups=1)
    with pytest.raises(ConfigError, match=r"^row_walk\.group_cycles must be at most 65535, not 65536; lower keep\n"):
        command_fields(array, run)


@given(dataflow=st.sampled_from(["OS", "WS"]), dims=st.tuples(*[st.integers(1, 1 << 24)] * 4), lanes=st.sampled_from([1, 2, 4]))
def test_what_is_not_refused_is_read_back_as_it_was_written(dataflow, dims, lanes):
    dim_m, dim_n, groups, m_chunk = dims
    run = replace(WS, dataflow=dataflow, row_lanes=lanes, dim_m=dim_m, dim_n=dim_n, groups=groups, m_chunk=m_chunk)
    try:
        wanted = dict(leaves(command_fields(ARRAY, run)))
    except ConfigError:
        return
    layout, word = command_layout(ARRAY), command_word(ARRAY, run)
    for name, value in wanted.items():
        shape, offset = layout, 0
        for part in name.split("."):
            field = shape[part]
            shape, offset = field.shape, offset + field.offset
        assert word >> offset & (1 << shape.width) - 1 == value, name


@pytest.mark.parametrize("dataflow", ["OS", "WS"])
def test_an_array_of_one_dataflow_is_not_told_which(dataflow):
    fields = command_fields(replace(ARRAY, dataflows=(dataflow,)), replace(WS, dataflow=dataflow))
    assert "is_ws" not in fields["run"]
    assert ("groups_last" in fields) == (dataflow == "WS")


def test_drain_chains_without_os_are_refused():
    message = "drain_lanes must be 1 without the dataflow OS, not 2"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        replace(ARRAY, dataflows=("WS",), drain_lanes=2)
