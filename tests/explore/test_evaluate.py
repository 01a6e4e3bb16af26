"""A row says what `simulate` says of its machine, or why that cannot run."""

import random

import pytest

from accel.api import simulate
from accel.energy import energy_table
from accel.errors import AccelError
from accel.explore import evaluate as evaluating
from accel.explore.evaluate import Evaluator, evaluate
from accel.explore.space import MAXIMIZED, OBJECTIVES, RESOURCE_COLUMNS, Space
from accel.sim.resources import estimate, shares

SPACE = """
[arch]
base = "test"
[vary]
array_rows = [2, 4, 6]
array_cols = {from = 2, to = 8, points = 3, scale = "log"}
group = [2, 4, 8]
adder_latency = [1, 2, 4]
output_buffer_bytes = [65536]
north_buffer_bytes = [16384]
row_lanes = [[1], [1, 2]]
dataflows = [["OS"], ["OS", "WS"]]
west_buffer_bytes = [64, 16384, 32768]
dram_bytes_per_second = {from = 1e8, to = 1e10, points = 3, scale = "log"}
drain_lanes = [1, 2, 4]
dram_capacity_bytes = [1000000, 1073741824, 2147483648]
[derive]
vector_lanes = "dram_bytes_per_cycle / 2"
[work]
networks = {mlp = 1.0, vit-cifar = 3.0}
methods = [{method = "bdwp", pattern = "2:4"}, {method = "dense", weight = 3.0}]
batch = 2
[objectives]
names = ["time", "edp"]
energy = "asic-45nm"
"""


@pytest.fixture(scope="module")
def space():
    return Space.from_text(SPACE, "space.toml")


@pytest.fixture(scope="module")
def evaluator(space):
    return Evaluator(space)


def simulated(space, index, network, method):
    table = energy_table("asic-45nm")
    more = {"batch": 2, "baseline": False, "model": "closed-form", "energy": table}
    return simulate(network, space.arch(index), method=method, pattern="2:4", **more)


def simulated_all(space, index):
    return [simulated(space, index, network, method) for network in ("mlp", "vit-cifar") for method in ("bdwp", "dense")]


def test_a_row_is_what_simulate_says(space, evaluator):
    seen = {True: 0, False: 0}
    reasons = set()
    for index in random.Random(5).sample(range(space.size), 60):
        row = evaluator.row(index)
        assert list(row) == list(space.columns)
        seen[row["problem"] is None] += 1
        if row["problem"] is not None:
            reasons.add(row["problem"].split(" must ")[0].removeprefix(f"test-{index}: ").removeprefix("test: "))
            assert all(row[name] is None for name in OBJECTIVES)
            with pytest.raises(AccelError) as caught:
                simulated_all(space, index)
            assert str(caught.value) == row["problem"]
        elif seen[True] <= 6:
            _check_row(space, index, row)
    assert min(seen.values()) > 5, seen
    assert {"pattern group", "row_lanes", "west_buffer_bytes"} <= reasons


def _check_row(space, index, row):
    weights = {("mlp", "bdwp"): 1 / 16, ("mlp", "dense"): 3 / 16, ("vit-cifar", "bdwp"): 3 / 16, ("vit-cifar", "dense"): 9 / 16}
    seconds = joules = 0.0
    for (network, method), weight in weights.items():
        report = simulated(space, index, network, method)
        prefix = f"{network}.dense." if method == "dense" else f"{network}.bdwp.2:4."
        assert row[prefix + "cycles"] == report.cycles
        assert row[prefix + "seconds"] == report.seconds
        assert row[prefix + "dram_bytes"] == sum(line.dram_bytes for line in report.rows)
        assert row[prefix + "joules"] == report.energy.joules
        seconds += weight * report.seconds
        joules += weight * report.energy.joules
    arch = space.arch(index)
    assert row["time"] == pytest.approx(seconds)
    assert row["energy_joules"] == pytest.approx(joules)
    assert row["edp"] == pytest.approx(seconds * joules)
    assert row["dram_bytes_per_second"] == arch.dram_bytes_per_second
    assert row["pes"] == arch.pes
    if arch.adder_latency == 1:  # simulated, but not built
        assert all(row[name] is None for name in (*RESOURCE_COLUMNS, *MAXIMIZED))
    else:
        assert row["all_luts"] == estimate(arch).all_luts
        assert row["dsps"] == estimate(arch).dsps
        assert row["samples_per_second_per_lut"] == pytest.approx(2 / seconds / estimate(arch).all_luts)


def test_products_of_all_networks_are_searched_in_one_call_and_networks_lowered_once_a_word(space, monkeypatch):
    searches, lowered = [], []
    monkeypatch.setattr(evaluating, "schedule_gemms", lambda gemms, arch: searches.append(len(gemms)) or real(gemms, arch))
    monkeypatch.setattr(evaluating, "lower", lambda trace, options: lowered.append(options.word_elems) or lower(trace, options))
    from accel.dataflow.lowering import lower
    from accel.dataflow.scheduling import schedule_gemms as real

    evaluator = Evaluator(space)
    runs = [row for row in map(evaluator.row, random.Random(1).sample(range(space.size), 80)) if row["problem"] is None]
    assert len(searches) >= len(runs) > 5
    assert set(lowered) == {4, 8}
    assert all(lowered.count(word) <= 4 for word in (4, 8))  # networks times methods


TINY = '[arch]\nbase = "test"\n[vary]\n{}\n[work]\nnetworks = {{mlp = 1.0}}\nbatch = 2\nmethods = [{{method = "dense"}}]\n{}'


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ("max_pes = 15", "pes must be at most max_pes (15), not 16"),
        ("max_buffer_bytes = 14335", "buffer_bytes must be at most max_buffer_bytes (14335), not 14336"),
        ("max_pes = 16\nmax_buffer_bytes = 14336\nfits = 'xck26'", None),
    ],
)
def test_bounds_of_amounts_hold(limits, problem):
    space = Space.from_text(TINY.format("array_rows = [4]", f"[constraints]\n{limits}"), "a")
    assert evaluate(space, 0)["problem"] == problem


def test_a_machine_that_does_not_fit_its_device_says_by_how_much():
    text = TINY.format(
        "array_rows = [8, 16, 32]\narray_cols = [32]\noutput_buffer_bytes = [65536]", "[constraints]\nfits = 'XCK26'"
    )
    space = Space.from_text(text, "a")
    for index in range(space.size):
        share = shares(space.arch(index), "XCK26")
        row = evaluate(space, index)
        assert (row["problem"] is None) == (share.pop("all_luts") <= 0.7 and max(share.values()) <= 1)
    assert row["problem"].startswith("all_luts must be at most 0.7 of XCK26, not ")


def test_a_machine_that_is_not_built_has_no_row_where_resources_are_an_objective():
    space = Space.from_text(
        TINY.format("adder_latency = [1]\nrow_lanes = [[1]]", '[objectives]\nnames = ["time", "dsps"]'), "a"
    )
    assert evaluate(space, 0)["problem"] == "adder_latency must be between 2 and 8 in hardware, not 1"
    alone = Space.from_text(TINY.format("adder_latency = [1]\nrow_lanes = [[1]]", '[objectives]\nnames = ["time"]'), "a")
    assert evaluate(alone, 0)["problem"] is None
