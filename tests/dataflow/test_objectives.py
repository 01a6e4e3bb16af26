import itertools
import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from naive_search import every_mapping, joules_of, product_of
from random_gemms import TEST, random_arch, random_gemm

from accel.api import compile_step, resolve_trace, simulate, step_options
from accel.cli import main
from accel.dataflow.lowering import lower
from accel.dataflow.objectives import TOLERANCE, Line, Total, least_product, prices_of, rest_of
from accel.dataflow.scheduling import machine_of, schedule, schedule_gemms
from accel.dataflow.search import SLACK
from accel.energy import PJ, energy_table
from accel.errors import ConfigError, ScheduleError
from accel.gemm import Gemm, GemmShape, Operand, Stage
from accel.presets import preset
from accel.program_file import to_bytes
from accel.report import LOSSES
from accel.schedule import Footprint, Mapping, ScheduledGemm, Search, Segment, Step
from accel.sim.energy import step_energy
from accel.sim.step import simulate_step
from accel.sim.traffic import buffer_bytes, pruned_groups, register_bytes, traffic_of
from accel.text import console, print_report
from accel.timing.gemm import LOOP_ORDERS, OS, WS, Tiling
from accel.timing.traffic import array_bytes
from accel.timing.traffic import pruned_groups as closed_pruned_groups

TABLE = energy_table("asic-7nm")
RELATIVE = 1e-11
"""Sums in another order round differently."""
SLACK_FRAC = 1 / 8
"""Small products have few mappings: nearly equal ones are rare."""


def refused(make, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make()


def random_table(rng):
    """Return energies in which every figure, time's too, is sometimes next to nothing and sometimes all that counts."""
    figures = {name: float(10 ** rng.uniform(-2, 3)) for name in TABLE.figures}
    return TABLE.replace(**{**figures, "static_watts": float(10 ** rng.uniform(-4, 1))})


def rounded_chunks(rng):
    """Return a product of which a chunk of k has its bits rounded up: less so in groups than element by element."""
    arch = random_arch(rng).replace(
        dataflows=("OS",),
        group=int(rng.choice([4, 8])),
        west_buffer_bytes=int(2 ** rng.uniform(6, 9)),
        north_buffer_bytes=int(2 ** rng.uniform(6, 9)),
        dram_bytes_per_second=1e8,
    )
    dim_k, sizes = int(rng.choice([32, 33, 48, 64])), [int(size) for size in rng.integers(1, 5, 2)]
    operands = [Operand("wide", dim_k + int(rng.integers(0, 9)), size) for size in sizes]
    shape = GemmShape(*sizes, 1, dim_k)
    return Gemm("layer", Stage.FORWARD, "", shape, *operands, 16, shape.macs, math.prod(sizes)), arch


def random_product(rng):
    arch = random_arch(rng)
    return random_gemm(rng, arch.group), arch


def totals_of(gemm, arch, table):
    """Return (cycles, picojoules) of every mapping of a product."""
    return [Total(cost.cycles, joules_of(gemm, arch, table, mapping, cost) / PJ) for mapping, cost in every_mapping(gemm, arch)]


def has_least_value(gemm, arch, table, weights, label):
    """Compare the search with all mappings; return whether any fits."""
    values = [weights[0] * total.cycles + weights[1] * total.pj for total in totals_of(gemm, arch, table)]
    if not values:
        with pytest.raises(ScheduleError):
            schedule_gemms([gemm], arch, prices_of(arch, table, *weights))
        return False
    (found,) = schedule_gemms([gemm], arch, prices_of(arch, table, *weights))
    assert found.search.least_value == pytest.approx(min(values), rel=RELATIVE), label
    value = weights[0] * found.cost.cycles + weights[1] * found.search.energy_pj
    assert value <= found.search.least_value * (1 + 1 / SLACK) * (1 + RELATIVE), label
    mapping = {name: getattr(found.mapping, name) for name in found.mapping.__dataclass_fields__}
    assert joules_of(gemm, arch, table, mapping, found.cost) / PJ == pytest.approx(found.search.energy_pj, rel=RELATIVE), label
    return True


@pytest.mark.parametrize("make", [random_product, rounded_chunks])
@pytest.mark.parametrize("seed", range(3))
def test_the_search_finds_the_least_energy_that_trying_everything_finds(seed, make):
    rng = np.random.default_rng(seed)
    feasible = 0
    for index in range(25):
        gemm, arch = make(rng)
        feasible += has_least_value(gemm, arch, random_table(rng), (0.0, 1.0), f"seed {seed}, case {index}: {gemm} {arch}")
    assert feasible > 15, f"seed {seed}"


def test_the_search_finds_the_least_weighted_sum_that_trying_everything_finds():
    rng = np.random.default_rng(10)
    feasible = 0
    for index in range(30):
        gemm, arch = random_product(rng)
        weights = float(10 ** rng.uniform(-2, 6)), float(10 ** rng.uniform(-2, 2))
        feasible += has_least_value(gemm, arch, random_table(rng), weights, f"seed 10, case {index}: {gemm} {arch}")
    assert feasible > 20


def test_of_mappings_as_good_the_one_with_least_traffic_is_taken():
    rng = np.random.default_rng(11)
    compared = saved = 0
    for index in range(60):
        gemm, arch = random_product(rng)
        table = random_table(rng)
        mappings = [
            (cost.dram_bytes, joules_of(gemm, arch, table, mapping, cost)) for mapping, cost in every_mapping(gemm, arch)
        ]
        if not mappings:
            continue
        least_joules = min(joules for _, joules in mappings)
        limit = least_joules * (1 + SLACK_FRAC)
        if any(abs(joules / limit - 1) < RELATIVE for _, joules in mappings):
            continue  # rounding says on which side it is
        (found,) = schedule_gemms([gemm], arch, prices_of(arch, table, 0, 1)._replace(slack_frac=SLACK_FRAC))
        least = min(dram_bytes for dram_bytes, joules in mappings if joules <= limit)
        assert found.cost.dram_bytes == least, f"seed 11, case {index}: {gemm} {arch}"
        saved += least < min(dram_bytes for dram_bytes, joules in mappings if joules <= least_joules * (1 + RELATIVE))
        compared += 1
    assert compared > 30
    assert saved > 0


@pytest.mark.compiled
def test_closed_forms_of_the_search_count_what_the_report_counts():
    rng = np.random.default_rng(12)
    for index in range(15):
        gemm, arch = random_product(rng)
        machine = machine_of(arch)
        for mapping, cost in every_mapping(gemm, arch):
            if mapping["dataflow"] == "VECTOR":
                continue
            scheduled = ScheduledGemm(gemm, Mapping(**mapping), cost, Search(0, 0, 0.0), 0, 0)
            moved, product, tiling = traffic_of(scheduled, arch), *as_searched(gemm, mapping)
            found = array_bytes(machine, product, tiling, mapping["run_group"], gemm.pattern.index_bits)
            label = f"seed 12, case {index}: {gemm} {arch} {mapping}"
            assert found == (register_bytes(scheduled, moved), buffer_bytes(scheduled, moved) - cost.dram_bytes), label
            assert closed_pruned_groups(product, tiling) == pruned_groups(scheduled), label


def as_searched(gemm, mapping):
    product = product_of(gemm, mapping["swapped"], mapping["run_group"])
    dataflow = OS if mapping["dataflow"] == "OS" else WS
    sizes = mapping["tile_m"], mapping["tile_n"], mapping["tile_groups"]
    return product, Tiling(dataflow, mapping["row_lanes"], *sizes, LOOP_ORDERS.index(mapping["loop_order"]))


@pytest.mark.compiled
def test_each_objective_is_best_at_what_it_is_for():
    arch, table = preset("edge-kv260"), TABLE.replace(static_watts=0.0)
    step = step_of("resnet9", arch)
    found = {objective: counted(step, arch, objective, table) for objective in ("time", "energy", "edp")}
    slack = 1 + 1 / SLACK
    for total in found.values():
        assert found["time"].cycles <= total.cycles * slack
        assert found["energy"].pj <= total.pj * slack
        assert found["edp"].product <= total.product * slack**2
    assert found["energy"].pj < found["time"].pj / slack


def counted(step, arch, objective, table):
    """Return what a schedule takes as the scheduler counts it, by the counts of the report."""
    planned = schedule(step, arch, objective, table)
    cycles = sum(gemm.cost.cycles for gemm in planned.gemms) + rest_of(step, arch, table).cycles
    joules = step_energy(planned, simulate_step(planned), table).components()
    moved = sum(joules[name] for name in joules if name not in ("clock", "static"))
    return Total(cycles, moved / PJ + cycles * prices_of(arch, table, 0, 1).cycle_pj)


def step_of(network, arch, batch=2):
    return lower(resolve_trace(network), step_options(arch, "bdwp", "2:8", batch, None, "sgd", True))


@pytest.mark.compiled
@pytest.mark.parametrize("network", ["resnet9", "vit-cifar", "mlp"])
@pytest.mark.parametrize("pregenerate", [True, False])
def test_the_scheduler_counts_the_energy_that_the_report_counts(network, pregenerate):
    arch = preset("edge-kv260")
    step = lower(resolve_trace(network), step_options(arch, "bdwp", "2:8", 2, None, "sgd", pregenerate))
    planned = schedule(step, arch, "energy", TABLE)
    reported = step_energy(planned, simulate_step(planned), TABLE).components()
    rest, cycle_pj = rest_of(step, arch, TABLE), prices_of(arch, TABLE, 0, 1).cycle_pj
    cycles = sum(gemm.cost.cycles for gemm in planned.gemms) + rest.cycles
    counted = planned.achieved.value - cycles * cycle_pj * PJ
    assert counted == pytest.approx(math.fsum(reported.values()) - reported["clock"] - reported["static"], rel=1e-9)


@pytest.mark.compiled
def test_energies_change_nothing_in_a_schedule_for_time():
    arch = preset("edge-kv260")
    step = step_of("resnet9", arch)
    plain, with_energies = schedule(step, arch), schedule(step, arch, "time", TABLE)
    assert plain.gemms == with_energies.gemms
    assert plain.achieved == with_energies.achieved
    assert plain.achieved.lower_bound <= plain.achieved.value <= plain.achieved.lower_bound * (1 + 1 / SLACK)


def random_points(rng, count):
    return [Total(int(rng.integers(1, 1000)), float(rng.uniform(1, 1000))) for _ in range(count)]


def line_over(points):
    """Return a search over `points` as `least_product` takes it, and the list of what was asked of it."""
    asked = []

    def search(cycle_weight, pj_weight):
        asked.append((cycle_weight, pj_weight))
        value, total = min((cycle_weight * point.cycles + pj_weight * point.pj, point) for point in points)
        return Line(cycle_weight, pj_weight, value, total)

    return search, asked


@given(st.lists(st.tuples(st.integers(1, 10**6), st.floats(1, 1e6)), min_size=1, max_size=40))
def test_the_least_product_is_found_wherever_it_lies(points):
    totals = [Total(*point) for point in points]
    search, asked = line_over(totals)
    best, bound = least_product(search)
    least = min(total.product for total in totals)
    assert least <= best.product <= least * (1 + 2 * TOLERANCE)
    assert bound <= least * (1 + 1e-9)
    assert len(asked) <= 2 * len(totals) + 2


def test_the_least_product_of_sums_is_that_of_all_combinations():
    rng = np.random.default_rng(13)
    for index in range(40):
        works = [random_points(rng, int(rng.integers(1, 7))) for _ in range(int(rng.integers(1, 5)))]
        sums = [Total(sum(p.cycles for p in chosen), sum(p.pj for p in chosen)) for chosen in itertools.product(*works)]
        best, bound = least_product(line_over(sums)[0])
        least = min(total.product for total in sums)
        assert best.product == pytest.approx(least, rel=2 * TOLERANCE), f"seed 13, case {index}"
        assert bound <= least * (1 + 1e-9), f"seed 13, case {index}"


def test_a_point_that_no_weights_find_never_has_the_least_product():
    # (6, 6) is not dominated, but lies above the line between the other two; so does its product.
    corners = [Total(2, 9.0), Total(9, 2.0)]
    best, _ = least_product(line_over([*corners, Total(6, 6.0)])[0])
    assert best in corners


def front_of(totals):
    """Return the totals that no other one beats in both."""
    front = []
    for total in sorted(totals):
        if not front or total.pj < front[-1].pj:
            front.append(total)
    return front


def random_step(rng, arch):
    """Return a step of up to three products on `arch`, each with a mapping, and the totals of all combinations of mappings."""
    gemms, fronts, table = [], [], random_table(rng)
    for index in range(int(rng.integers(1, 4))):
        gemm = random_gemm(rng, arch.group)
        gemm = Gemm(**{**vars(gemm), "layer": f"layer{index}"})
        front = front_of(totals_of(gemm, arch, table))
        if front:
            gemms.append(gemm)
            fronts.append(front)
    sums = [(sum(t.cycles for t in chosen), sum(t.pj for t in chosen)) for chosen in itertools.product(*fronts)]
    return Step("net", 1, (Segment(tuple(gemms)),), (), Footprint(0, 0, 0, 0)), table, sums


@pytest.mark.compiled
def test_the_energy_delay_product_of_a_step_is_the_least_of_all_combinations_of_mappings():
    rng = np.random.default_rng(14)
    compared = better = 0
    for index in range(25):
        arch = random_arch(rng).replace(west_buffer_bytes=2**12, north_buffer_bytes=2**12, output_buffer_bytes=2**12)
        step, table, sums = random_step(rng, arch)
        if not step.gemms or arch.fits_one_tile():
            continue
        found = schedule(step, arch, "edp", table).achieved
        unit = PJ / arch.clock_hz
        least = min(cycles * pj for cycles, pj in sums) * unit
        label = f"seed 14, case {index}: {step.gemms} {arch}"
        assert found.lower_bound <= least * (1 + RELATIVE), label
        assert least <= found.lower_bound * (1 + 2 * TOLERANCE), label
        assert least * (1 - RELATIVE) <= found.value <= least * (1 + 1 / SLACK) ** 2, label
        ends = min(sums), min(sums, key=lambda total: total[::-1])
        better += least < 0.999 * min(cycles * pj for cycles, pj in ends) * unit
        compared += 1
    assert compared > 15
    assert better > 0  # sometimes neither the fastest nor the thriftiest


@pytest.mark.parametrize("objective", ["energy", "edp"])
def test_an_objective_in_joules_without_energies_is_refused(objective):
    message = f"objective must be time without a table of energies, not '{objective}'; name one as energy"
    refused(lambda: simulate("mlp", batch=2, objective=objective), message)
    refused(lambda: compile_step("mlp", batch=2, objective=objective), message)
    refused(lambda: schedule(step_of("mlp", TEST.replace(group=8)), TEST, objective), message)


def test_an_unknown_objective_is_refused():
    refused(
        lambda: simulate("mlp", batch=2, objective="power", energy=TABLE),
        "objective must be one of time, energy, edp, not 'power'",
    )


@pytest.mark.compiled
def test_a_baseline_for_another_objective_is_refused():
    dense = simulate("mlp", batch=2, energy=TABLE, baseline=False, method="dense")
    refused(
        lambda: simulate("mlp", batch=2, energy=TABLE, objective="edp", baseline=dense),
        "baseline must be scheduled for edp, not for time",
    )


def test_the_command_line_refuses_an_objective_without_energies(capsys):
    assert main(["simulate", "mlp", "--batch", "2", "--objective", "edp"]) == 2
    message = "accel: objective must be time without a table of energies, not 'edp'; name one as energy\n"
    assert capsys.readouterr().err == message


@pytest.mark.compiled
@pytest.mark.parametrize(("objective", "unit"), [("time", "seconds"), ("energy", "joules"), ("edp", "joule_seconds")])
def test_a_report_says_what_it_was_scheduled_for(objective, unit, capsys):
    arguments = ["simulate", "resnet9", "--arch", "edge-kv260", "--batch", "2", "--energy", "asic-7nm", "--no-baseline"]
    assert main([*arguments, "--objective", objective, "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)["objective"]
    assert (report["name"], report["unit"], report["exhausted"]) == (objective, unit, True)
    assert report["gap_frac"] == report["value"] / report["lower_bound"] - 1
    assert 0 <= report["gap_frac"] <= (1 + 1 / SLACK) ** 2 - 1 + 2 * TOLERANCE
    assert main([*arguments, "--objective", objective]) == 0
    named = {"time": "time", "energy": "energy", "edp": "energy-delay product"}[objective]
    text = capsys.readouterr().out
    assert re.search(rf"^chosen for the least {named}: .* with each product alone, within \S+% of the lower bound", text, re.M)
    assert ("evaluations a second" in text) == (objective != "edp")


@pytest.mark.compiled
def test_a_timeline_and_a_program_follow_the_objective():
    chosen = {"batch": 2, "energy": TABLE}
    programs = [compile_step("resnet9", "edge-kv260", objective=objective, **chosen) for objective in ("time", "energy")]
    assert to_bytes(programs[0]) != to_bytes(programs[1])
    assert to_bytes(compile_step("resnet9", "edge-kv260", batch=2)) == to_bytes(programs[0])


@pytest.mark.compiled
@pytest.mark.parametrize("model", ["machine", "closed-form"])
@pytest.mark.parametrize("network", ["resnet9", "vit-cifar", "mobilenetv2"])
def test_the_gap_to_the_lower_bound_is_told_by_cause(network, model):
    report = simulate(network, "edge-kv260", batch=2, baseline=False, model=model)
    gaps = report.bound_gap_cycles()
    assert tuple(gaps) == LOSSES
    assert sum(gaps.values()) == report.cycles - report.bound_cycles
    assert min(gaps["padding"], gaps["drain"], gaps["dram"]) >= 0


@pytest.mark.compiled
def test_the_text_names_the_lower_bound_and_what_keeps_from_it(capsys):
    assert main(["simulate", "resnet9", "--batch", "2", "--no-baseline"]) == 0
    found = re.search(
        r"^within (\S+)% of the lower bound of (\S+) Mcycles; most of the gap: (\w+) \((\S+)%\)$", capsys.readouterr().out, re.M
    )
    report = simulate("resnet9", batch=2, baseline=False)
    gaps = report.bound_gap_cycles()
    cause = max(gaps, key=gaps.get)
    assert float(found[1]) == pytest.approx(100 * (report.cycles / report.bound_cycles - 1), rel=0.05)
    assert float(found[2]) == pytest.approx(report.bound_cycles / 1e6, abs=1e-3)
    assert found[3] == cause
    assert float(found[4]) == pytest.approx(100 * gaps[cause] / report.bound_cycles, rel=0.05)


@pytest.mark.compiled
def test_the_text_says_where_products_side_by_side_beat_their_bounds_added_up(capsys):
    report = simulate("resnet9", batch=2, baseline=False)
    rows = tuple(replace(row, lower_bound_cycles=2 * row.cycles) for row in report.rows)
    print_report(replace(report, rows=rows), console(), False)
    bound = sum(2 * row.cycles if row.engine == "array" else row.cycles for row in rows) / 1e6
    line = f"below the products' own lower bounds added up, {bound:.3f} Mcycles: products ran side by side"
    assert line in capsys.readouterr().out.splitlines()
