"""A row says what `simulate` says of its machine, or why that cannot run."""

import random

import pytest
from small_traces import linear, loss

from accel.api import simulate
from accel.energy import energy_table
from accel.errors import AccelError
from accel.explore import engine
from accel.explore import evaluate as evaluating
from accel.explore.evaluate import Evaluator, evaluate
from accel.explore.space import MAXIMIZED, OBJECTIVES, RESOURCE_COLUMNS, Space
from accel.sim.resources import estimate, shares
from accel.trace import Trace

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


def test_products_of_all_points_are_searched_in_one_call_and_networks_lowered_once_a_word(space, monkeypatch):
    searches, lowered = [], []
    search, real_lower = engine.search_machines, evaluating.lower
    monkeypatch.setattr(
        engine, "search_machines", lambda machines, *more: searches.append(len(machines)) or search(machines, *more)
    )
    monkeypatch.setattr(
        evaluating, "lower", lambda trace, options: lowered.append(options.word_elems) or real_lower(trace, options)
    )
    evaluator = Evaluator(space)
    rows = evaluator.rows(random.Random(1).sample(range(space.size), 80))
    assert 1 <= len(searches) <= 2  # a call for each word
    assert 5 < sum(searches) <= sum(row["problem"] is None for row in rows)  # some are alike to the search
    # The word of 2 elements is too short for the first method; each other one has two networks and two methods.
    assert [lowered.count(word) for word in (2, 4, 8)] == [0, 4, 4]


def test_rows_are_those_of_single_points_in_their_order(space, evaluator):
    indices = random.Random(2).sample(range(space.size), 20)
    together = evaluator.rows(indices)
    assert together == [evaluate(space, index) for index in indices]
    assert [row["index"] for row in together] == indices
    assert {row["problem"] is None for row in together} == {False, True}


TINY = '[arch]\nbase = "test"\n[vary]\n{}\n[work]\nnetworks = {{mlp = 1.0}}\nbatch = 2\nmethods = [{{method = "dense"}}]\n{}'


@pytest.mark.parametrize(
    ("limits", "problem"),
    [
        ("max_pes = 15", "pes must be at most max_pes (15), not 16"),
        ("max_buffer_bytes = 14335", "buffer_bytes must be at most max_buffer_bytes (14335), not 14336"),
        ("max_west_link_bits = 63", "west_link_bits must be at most max_west_link_bits (63), not 64"),
        ("max_pes = 16\nmax_buffer_bytes = 14336\nmax_west_link_bits = 64\nfits = 'xck26'", None),
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


def test_a_machine_that_draws_more_than_the_bound_has_no_objectives():
    def row_of(rest):
        return evaluate(Space.from_text(TINY.format("array_rows = [4]", f'{rest}[objectives]\nenergy = "asic-45nm"'), "a"), 0)

    free = row_of("")
    watts = free["power_watts"]
    assert watts == free["mlp.dense.joules"] / free["mlp.dense.seconds"]
    assert row_of(f"[constraints]\nmax_power_watts = {watts}\n") == free
    refused = row_of(f"[constraints]\nmax_power_watts = {watts / 2}\n")
    assert refused["problem"] == f"power_watts must be at most max_power_watts ({watts / 2:g}), not {watts:.6g}"
    assert refused["pes"] == 16
    assert all(refused[name] is None for name in (*OBJECTIVES, "mlp.dense.cycles", "mlp.dense.joules"))


def test_power_is_that_of_the_step_that_draws_most(space, evaluator):
    row = next(row for row in map(evaluator.row, range(space.size)) if row["problem"] is None)
    parts = [name.removesuffix("joules") for name in row if name.endswith(".joules")]
    watts = [row[part + "joules"] / row[part + "seconds"] for part in parts]
    assert len(watts) == 4
    assert row["power_watts"] == max(watts) > row["energy_joules"] / row["time"]


def test_an_objective_that_is_a_field_too_is_empty_where_the_machine_cannot_run():
    space = Space.from_text(TINY.format("dram_bytes_per_second = [1e9]", "[constraints]\nmax_pes = 15"), "a")
    assert evaluate(space, 0)["dram_bytes_per_second"] is None


def test_a_network_that_cannot_be_lowered_is_refused_at_every_point(tmp_path):
    layers = (linear("large", "x", 2**20, 2**20, 2**13), loss("large", 2**20))
    path = tmp_path / "large.json"
    path.write_text(Trace(name="large", inputs=("x",), layers=layers).to_json())
    space = Space.from_text(TINY.format("array_rows = [2, 4]", "").replace("mlp", f'"{path}"'), "a")
    problems = [row["problem"] for row in Evaluator(space).rows([0, 1, 0])]
    assert problems == 3 * [
        f"layer large: FF must have less than 2**52 multiply-accumulates, not {2 * 2**13 * 2**40}; lower the batch"
    ]
