import re
from itertools import product

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.errors import ConfigError
from accel.explore.pareto import front, hypervolume

pytest.importorskip("moocore")

NAMES = ["time", "luts", "samples_per_second_per_lut"]
SIGNS = {"time": 1, "luts": 1, "samples_per_second_per_lut": -1}


def naive_front(table, objectives):
    costs = [[SIGNS[name] * row[name] for name in objectives] for row in table.to_dict("records")]
    kept = []
    for index, cost in enumerate(costs):
        dominated = any(all(a <= b for a, b in zip(other, cost, strict=True)) and other != cost for other in costs)
        if not dominated:
            kept.append(index)
    return kept


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=40), st.sampled_from([NAMES[:1], NAMES[:2], NAMES[1:], NAMES]))
def test_the_front_is_what_no_other_row_beats(points, objectives):
    table = pd.DataFrame(points, columns=NAMES, dtype=float)
    table.insert(0, "index", np.arange(len(points)))
    found = front(table, objectives)
    assert sorted(found["index"]) == naive_front(table, objectives)
    order = [[*(SIGNS[name] * row[name] for name in objectives), row["index"]] for row in found.to_dict("records")]
    assert order == sorted(order)


def test_ties_stay_and_rows_without_an_objective_do_not():
    table = pd.DataFrame({"index": [0, 1, 2, 3, 4], "time": [1.0, 1.0, 2.0, None, 1.0], "luts": [5.0, 5.0, 5.0, 0.0, None]})
    assert list(front(table, ["time", "luts"])["index"]) == [0, 1]


def test_of_some_objectives_more_is_better():
    table = pd.DataFrame({"index": [0, 1], "time": [1.0, 2.0], "samples_per_second_per_lut": [3.0, 4.0]})
    assert list(front(table, ["time", "samples_per_second_per_lut"])["index"]) == [0, 1]
    assert list(front(table, ["samples_per_second_per_lut"])["index"]) == [1]


@pytest.mark.parametrize(
    ("objectives", "problem"),
    [
        (["time", "beauty"], "not 'beauty'"),
        (["time", "time"], "objectives must be one or more different names, not ['time', 'time']"),
        ([], "objectives must be one or more different names, not []"),
        (["time", "edp"], "objectives must be known of some point, not edp"),
        (["time", "dsps"], "objectives must be known of some point, not dsps"),
    ],
)
def test_objectives_must_be_there(objectives, problem):
    table = pd.DataFrame({"index": [0], "time": [1.0], "edp": [None]})
    with pytest.raises(ConfigError, match=re.escape(problem) + "$"):
        front(table, objectives)


@given(st.lists(st.tuples(*[st.integers(0, 6)] * 3), max_size=12), st.sampled_from([NAMES[:1], NAMES[:2], NAMES]))
def test_the_hypervolume_counts_what_rows_dominate(points, objectives):
    table = pd.DataFrame(points, columns=NAMES, dtype=float)
    reference = [5 if SIGNS[name] > 0 else 1 for name in objectives]
    costs = [[SIGNS[name] * row[name] for name in objectives] for row in table.to_dict("records")]
    ends = [range(-6, SIGNS[name] * value) for name, value in zip(objectives, reference, strict=True)]
    cubes = [cube for cube in product(*ends) if any(all(c <= at for c, at in zip(cost, cube, strict=True)) for cost in costs)]
    assert hypervolume(table, objectives, reference) == len(cubes)


def test_a_reference_of_other_objectives_is_refused():
    table = pd.DataFrame({"index": [0], "time": [1.0], "luts": [2.0]})
    with pytest.raises(ConfigError, match=r"^reference must have a value for each of 2 objectives, not 1$"):
        hypervolume(table, ["time", "luts"], [3.0])
    assert hypervolume(table.iloc[:0], ["time", "luts"], [3.0, 4.0]) == 0.0
    assert hypervolume(table, ["time", "luts"], [3.0, 4.0]) == 4.0
