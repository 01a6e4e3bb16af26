"""What charts call columns, and how they show numbers."""

import numpy as np
import pandas as pd
import pytest

from accel.explore.columns import Scale, label, levels, scale, text, unit
from accel.explore.space import OBJECTIVES


@pytest.mark.parametrize(
    ("column", "words", "of"),
    [
        ("time", "time of a step", "s"),
        ("edp", "energy-delay product", "J s"),
        ("energy_joules", "energy of a step", "J"),
        ("dram_bytes_per_second", "DRAM bandwidth", "B/s"),
        ("west_buffer_bytes", "west buffer", "B"),
        ("dram_latency_cycles", "dram latency", "cycles"),
        ("dram_efficiency_frac", "dram efficiency", ""),
        ("row_lanes", "row lanes", ""),
        ("resnet18-64.bdwp.2:8.seconds", "resnet18-64 bdwp 2:8: time", "s"),
        ("my.net.json.dense.dram_bytes", "my net json dense: DRAM traffic", "B"),
    ],
)
def test_a_column_has_a_name_in_words_and_a_unit(column, words, of):
    assert (label(column), unit(column)) == (words, of)


@pytest.mark.parametrize(
    ("column", "value", "words"),
    [
        ("west_buffer_bytes", 2**18, "256 KiB"),
        ("west_buffer_bytes", 3 * 2**29, "1.5 GiB"),
        ("west_buffer_bytes", 300_000, "300 kB"),
        ("dram_bytes_per_second", 38.4e9, "38.4 GB/s"),
        ("time", 0.28824, "288.2 ms"),
        ("time", 0.0, "0 s"),
        ("all_luts", 46810.7, "46,811"),
        ("samples_per_second_per_lut", 0.00039812, "0.0003981"),
        ("west_link_bits", 128, "128 bits"),
        ("row_lanes", (1, 2, 4), "1,2,4"),
        ("dataflows", ("OS", "WS"), "OS,WS"),
    ],
)
def test_a_value_is_told_with_its_unit(column, value, words):
    assert text(column, value) == words


def test_an_axis_has_one_prefix_for_all_its_numbers():
    assert scale("time", [0.002, 0.5]) == Scale(1e-3, "time of a step (ms)")
    assert scale("all_luts", [46810.0, 594000.0]) == Scale(1e3, "LUTs (thousands)")
    assert scale("west_buffer_bytes", [2**18, 2**22]) == Scale(2.0**20, "west buffer (MiB)")
    assert scale("pes", [64, 4096]) == Scale(1.0, "PEs")
    assert all(scale(name, []).label.startswith(label(name)) for name in OBJECTIVES)


def test_levels_are_the_values_in_order_and_what_each_row_has():
    numbers = levels(pd.Series([4, None, 2, 4], dtype="Int64"))
    assert (numbers.values, numbers.codes.tolist()) == ([2, 4], [1, -1, 0, 1])
    lists = levels(pd.Series([np.array([4]), np.array([1, 4]), np.array([4])]))
    assert (lists.values, lists.codes.tolist()) == ([(1, 4), (4,)], [1, 0, 1])
    texts = levels(pd.Series(["b", None, "a"], dtype=object))
    assert (texts.values, texts.codes.tolist()) == (["a", "b"], [1, -1, 0])
    assert levels(pd.Series([None, None], dtype=object)).codes.tolist() == [-1, -1]
