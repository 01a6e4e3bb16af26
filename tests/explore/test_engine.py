"""The batch engine says of every machine what the simulator says of it, to the last cycle, byte and bit of a joule."""

import json
import math
import random
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_traces import CNN, VIT

from accel.api import simulate
from accel.arch import Arch
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import schedule
from accel.energy import COMPONENTS, energy_table
from accel.errors import AccelError, ConfigError
from accel.explore import engine as engines
from accel.explore.engine import Engine, reference_costs
from accel.explore.engine_kernels.exact import PARTS, add_exactly
from accel.explore.engine_kernels.steps import PRICED, share_of
from accel.explore.engine_memo import Memo
from accel.explore.evaluate import Evaluator
from accel.explore.space import Space
from accel.methods import METHODS, OPTIMIZERS
from accel.presets import preset
from accel.sim.energy import step_energy
from accel.sim.resources import estimate
from accel.sim.step import simulate_step

POOL = {
    "array_rows": [1, 2, 3, 4, 8],
    "array_cols": [1, 2, 4, 6],
    "clock_hz": [1e8, 2e8, 1.5e9],
    "group": [1, 2, 4, 8, 16],
    "adder_latency": [1, 2, 3, 4],
    "multiplier_latency": [1, 2, 5],
    "row_lanes": [[1], [1, 2], [2, 1], [4], [2]],
    "dataflows": [["OS"], ["WS"], ["OS", "WS"], ["WS", "OS"]],
    "drain_lanes": [1, 2, 4],
    "west_buffer_bytes": [64, 256, 1024, 16384],
    "north_buffer_bytes": [64, 256, 2048, 16384],
    "output_buffer_bytes": [256, 1024, 8192, 65536],
    "dram_bytes_per_second": [1e6, 1e8, 1.6e9, 1e11],
    "dram_efficiency_frac": [0.5, 0.9, 1.0],
    "dram_latency_cycles": [0, 20],
    "dram_capacity_bytes": [100_000, 1_000_000, 2**30],
    "dma_setup_cycles": [0, 4],
    "vector_lanes": [1, 8, 200],
    "vector_latency_cycles": [0, 5],
    "sore_lanes": [1, 3],
    "wuve_lanes": [1, 7],
}
"""Values of every field, small and large, of machines that run and of some that cannot."""
PATTERNS = ["1:2", "2:4", "1:4", "2:8", "3:4", "4:4", "1:8"]
ENERGIES = [None, "asic-45nm", "fpga-16nm"]


@pytest.fixture(scope="module")
def networks(tmp_path_factory):
    """A network of the package and two built ones, as a space file names them."""
    folder = tmp_path_factory.mktemp("networks")
    for trace in (CNN, VIT):
        (folder / f"{trace.name}.json").write_text(trace.to_json())
    return ["mlp", *(str(folder / f"{trace.name}.json") for trace in (CNN, VIT))]


def space_text(vary, networks, methods, batch=2, optimizer="sgd", energy=None, base="test"):
    lines = ["[arch]", f'base = "{base}"', "[vary]", *(f"{name} = {json.dumps(values)}" for name, values in vary.items())]
    named = [f'{{method = "{method}", pattern = "{pattern}"}}' for method, pattern in methods]
    lines += ["[work]", f"networks = {{{', '.join(f'{json.dumps(name)} = 1.0' for name in networks)}}}"]
    lines += [f"methods = [{', '.join(named)}]", f"batch = {batch}", f'optimizer = "{optimizer}"']
    lines += ["[objectives]", 'names = ["time"]'] + ([] if energy is None else [f'energy = "{energy}"'])
    return "\n".join(lines)


@st.composite
def spaces(draw, networks):
    """Draw a space and some of its points, one of them twice."""
    fields = draw(st.lists(st.sampled_from([*POOL]), min_size=1, max_size=8, unique=True))
    vary = {name: draw(st.lists(st.sampled_from(POOL[name]), min_size=1, max_size=3, unique_by=str)) for name in fields}
    chosen = draw(st.lists(st.sampled_from([*METHODS]), min_size=1, max_size=2, unique=True))
    methods = [(method, draw(st.sampled_from(PATTERNS))) for method in chosen]
    used = draw(st.lists(st.sampled_from(networks), min_size=1, max_size=2, unique=True))
    optimizer, energy = draw(st.sampled_from([*OPTIMIZERS])), draw(st.sampled_from(ENERGIES))
    space = Space.from_text(space_text(vary, used, methods, draw(st.integers(1, 5)), optimizer, energy), "drawn")
    indices = draw(st.lists(st.integers(0, space.size - 1), min_size=1, max_size=6))
    return space, [*indices, indices[0]]


def naive(space, index):
    """Return what every step of a point costs by the simulator alone, or why it is refused."""
    try:
        arch, steps = space.arch(index), []
        for trace in space.traces.values():
            for method in space.file.work.methods:
                steps.append(lower(trace, space.options(method, arch)))
                schedule(replace(steps[-1], segments=(), updates=()), arch)  # every place is checked before any search
        return [naive_cost(schedule(step, arch), space.table) for step in steps]
    except AccelError as error:
        return str(error)


def naive_cost(planned, table):
    rows = simulate_step(planned)
    joules = None if table is None else step_energy(planned, rows, table).joules
    return sum(row.cycles for row in rows), sum(row.dram_bytes for row in rows), joules


def check_rows(space, indices):
    """Compare the rows of many points with the simulator; return the problems of those that cannot run."""
    rows = Evaluator(space).rows(indices)
    assert [row["index"] for row in rows] == indices
    prefixes = [f"{network}.{method.label}." for network in space.traces for method in space.file.work.methods]
    problems = []
    for row in rows:
        assert list(row) == list(space.columns)
        wanted = naive(space, row["index"])
        if isinstance(wanted, str):
            problems.append(wanted)
            assert row["problem"] == wanted
            assert not any(row[name] is not None for name in row if name == "time" or name.startswith(tuple(prefixes)))
            continue
        assert row["problem"] is None
        for prefix, (cycles, dram_bytes, joules) in zip(prefixes, wanted, strict=True):
            assert (row[prefix + "cycles"], row[prefix + "dram_bytes"]) == (cycles, dram_bytes)
            assert row[prefix + "seconds"] == cycles / space.arch(row["index"]).clock_hz
            assert row.get(prefix + "joules") == joules
    return problems


@given(data=st.data())
@settings(max_examples=60)
@pytest.mark.compiled
def test_rows_are_what_the_simulator_says(networks, data):
    check_rows(*data.draw(spaces(networks)))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("energy", ENERGIES)
def test_every_method_is_what_the_simulator_says(networks, method, energy):
    vary = {"array_cols": [2, 4], "dataflows": [["OS"], ["WS"]], "west_buffer_bytes": [1024, 16384]}
    space = Space.from_text(space_text(vary, networks[1:], [(method, "2:4")], energy=energy), "all")
    assert check_rows(space, [0, 3, 5]) == []


@pytest.mark.parametrize("dataflows", [["OS"], ["WS"], ["OS", "WS"]])
def test_machines_that_differ_in_their_buffers_alone_are_what_the_simulator_says(networks, dataflows):
    """What is found on a larger one is taken over where it fits: here it does on some, and on others not."""
    sizes = {
        "west_buffer_bytes": [16384, 256, 1024],
        "north_buffer_bytes": [512, 16384],
        "output_buffer_bytes": [1024, 65536, 256],
    }
    space = Space.from_text(space_text({**sizes, "dataflows": [dataflows]}, networks[1:], [("bdwp", "2:4")]), "buffers")
    problems = check_rows(space, list(range(space.size)))
    assert len(problems) < space.size


def test_a_machine_whose_buffers_hold_no_tile_of_a_product_says_which(networks):
    vary = {"west_buffer_bytes": [64, 4096], "dataflows": [["WS"], ["OS", "WS"]]}
    space = Space.from_text(space_text(vary, networks[1:2], [("bp-only", "2:4")]), "small")
    problem = (
        "buffers of test-0 must hold one tile of layer widen (BP), not less; "
        "enlarge west_buffer_bytes, north_buffer_bytes or output_buffer_bytes"
    )
    assert check_rows(space, [3, 0, 1, 0, 2]) == [problem, problem]


@pytest.mark.compiled
def test_points_of_a_sweep_of_resnet50_are_what_simulate_says():
    vary = {
        "array_rows": [8, 16, 32, 64],
        "array_cols": [16, 32, 48],
        "row_lanes": [[4], [1, 2, 4]],
        "west_buffer_bytes": [2**18, 2**20, 2**21],
        "north_buffer_bytes": [2**19, 2**21],
        "dram_bytes_per_second": [19.2e9, 38.4e9, 76.8e9],
        "clock_hz": [2e8, 2.5e8],
        "dataflows": [["OS"], ["OS", "WS"]],
    }
    space = Space.from_text(
        space_text(vary, ["resnet50"], [("bdwp", "2:8")], 64, energy="fpga-16nm", base="sat-vcu1525"), "resnet50"
    )
    indices = random.Random(7).sample(range(space.size), 100)
    for row in Evaluator(space).rows(indices):
        arch = space.arch(row["index"])
        report = simulate("resnet50", arch, baseline=False, model="closed-form", energy="fpga-16nm")
        assert row["resnet50.bdwp.2:8.cycles"] == report.cycles
        assert row["resnet50.bdwp.2:8.dram_bytes"] == sum(line.dram_bytes for line in report.rows)
        assert row["resnet50.bdwp.2:8.joules"] == row["energy_joules"] == report.energy.joules
        assert row["time"] == report.seconds


VARIED = {
    "dram_capacity_bytes": [2**30, 2**31],
    "wuve_lanes": [1, 7],
    "clock_hz": [1e8, 2e8],
    "dram_bytes_per_second": [1.6e9, 3.2e9],
    "dataflows": [["OS", "WS"], ["WS", "OS"]],
}


@pytest.fixture
def searched(monkeypatch):
    """How many machines each compiled search had."""
    counts, real = [], engines.search_machines

    def counting(machines, *others):
        counts.append(len(machines))
        real(machines, *others)

    monkeypatch.setattr(engines, "search_machines", counting)
    return counts


def test_what_the_search_does_not_read_costs_no_search(networks, searched):
    space = Space.from_text(space_text(VARIED, networks[:1], [("bdwp", "2:4")]), "varied")
    evaluator = Evaluator(space)
    rows = evaluator.rows(range(space.size))
    assert searched == [3]  # bytes a cycle: 8, 16 (twice: a fast memory, a slow clock) and 32
    assert len({row["mlp.bdwp.2:4.cycles"] for row in rows}) > 3  # no search reads the lanes of WUVE, but the step does
    assert evaluator.rows([5, 3]) == [rows[5], rows[3]]
    assert searched == [3]


def test_mappings_are_kept_as_long_as_there_is_room(networks, searched, monkeypatch):
    monkeypatch.setattr(engines, "BLOCK", 2)
    monkeypatch.setattr(engines, "_KEPT", 3)
    space = Space.from_text(space_text({"array_rows": [1, 2, 3, 4, 5]}, networks[1:2], [("dense", "2:4")]), "rooms")
    evaluator = Evaluator(space)
    wanted = [Evaluator(space).row(index) for index in range(5)]
    searched.clear()
    assert evaluator.rows([0, 1, 0, 2, 1, 0]) == [wanted[index] for index in (0, 1, 0, 2, 1, 0)]
    assert searched == [2, 1]
    assert evaluator.rows([3]) == wanted[3:4]  # in the place of 2, which was used least lately
    assert evaluator.rows([0, 1]) == wanted[:2]
    assert searched == [2, 1, 1]
    assert evaluator.rows([4, 2, 0, 3]) == [wanted[index] for index in (4, 2, 0, 3)]
    assert searched == [2, 1, 1, 2, 2]


@pytest.mark.compiled
def test_threads_change_nothing(networks):
    vary = {"array_rows": [1, 2, 3, 4, 8], "array_cols": [1, 2, 4, 6], "dataflows": [["OS"], ["WS"]]}
    space = Space.from_text(space_text(vary, networks[1:2], [("bdwp", "2:4")]), "threads")
    assert Evaluator(space, threads=2).rows(range(space.size)) == Evaluator(space).rows(range(space.size))


def test_rows_of_no_points_are_none(networks):
    space = Space.from_text(space_text({"array_rows": [1]}, networks[:1], [("dense", "2:4")]), "one")
    assert Evaluator(space).rows([]) == []
    with pytest.raises(ConfigError, match=r"^index must be between 0 and 0, not 1$"):
        Evaluator(space).rows([0, 1])


def test_numbers_beyond_64_bits_are_left_to_the_simulator(monkeypatch):
    arch = preset("test").replace(array_rows=1024, array_cols=1024, output_buffer_bytes=2**24, west_buffer_bytes=2**15)
    slow = arch.replace(north_buffer_bytes=2**15, clock_hz=1e12, dram_bytes_per_second=1e3, dram_efficiency_frac=1e-3)
    table, asked = energy_table("asic-45nm"), []
    monkeypatch.setattr(engines, "reference_costs", lambda *given: asked.append(given[1].name) or reference_costs(*given))
    space = Space.from_text(space_text({"array_rows": [1]}, ["mlp"], [("dense", "2:4")]), "mlp")
    step = lower(space.traces["mlp"], space.options(space.file.work.methods[0], slow))
    machines = [slow.replace(name="slow"), slow.replace(name="quick", dram_bytes_per_second=1e12)]
    costs = Engine([step], slow.group, table).costs(machines)
    assert asked == ["slow"]
    assert costs == [reference_costs([step], one, table) for one in machines]
    assert costs[0][0].cycles * slow.pes > 2**63


@given(st.lists(st.floats(0, 1e30, allow_subnormal=False), max_size=30))
def test_exact_sums_are_those_of_fsum(values):
    sums = np.zeros((2, PARTS))
    for value in values:
        add_exactly(sums, 1, value)
    assert not sums[0].any()
    if sums[1, PARTS - 1] == 0:
        assert sum(map(Fraction, sums[1].tolist())) == sum(map(Fraction, values))
        assert math.fsum(sums[1]) == math.fsum(values)


def test_exact_sums_say_when_they_lose_something():
    sums = np.zeros((1, PARTS))
    for exponent in (0, -60, -120, -180):
        assert sums[0, PARTS - 1] == 0
        add_exactly(sums, 0, 2.0**exponent)
    assert sums[0, PARTS - 1] == 1


@given(st.integers(0, 2**60), st.integers(1, 2**60), st.data())
def test_shares_of_large_numbers_are_exact(rest, beside, data):
    seen = data.draw(st.integers(0, beside))
    assert share_of(rest, seen, beside) == rest * seen // beside


def test_every_component_of_energy_has_its_price():
    assert set(PRICED) == set(COMPONENTS)


class Asked:
    """A function of a machine that counts its calls."""

    def __init__(self):
        self.calls = 0

    def __call__(self, arch):
        self.calls += 1
        if arch.array_rows == 3:
            raise ConfigError("no")
        return arch.array_rows + (arch.array_cols if arch.group == 4 else 0)


def test_a_memo_asks_once_for_what_is_alike_in_what_was_read():
    asked = Asked()
    memo, arch = Memo(asked), preset("test")
    assert [memo(arch.replace(clock_hz=clock)) for clock in (1e8, 2e8, 3e8)] == [8, 8, 8]
    assert asked.calls == 1
    assert [memo(arch.replace(array_cols=cols)) for cols in (2, 4)] == [6, 8]
    assert asked.calls == 2
    for calls in (3, 4):
        with pytest.raises(ConfigError, match=r"^no$"):
            memo(arch.replace(array_rows=3))
        assert asked.calls == calls


def test_a_memo_learns_of_fields_that_few_machines_are_asked_for():
    memo, arch = Memo(Asked()), preset("test")
    wide = arch.replace(group=8)
    machines = [wide, wide.replace(array_cols=2), arch, arch.replace(array_cols=2), wide, wide.replace(array_cols=2)]
    assert [memo(machine) for machine in machines] == [4, 4, 8, 6, 4, 4]


@given(st.lists(st.sampled_from([1, 2, 4]), min_size=1, max_size=4), st.integers(0, 3))
def test_a_memo_of_resources_is_what_the_model_says(rows, fields):
    memo: Memo[object] = Memo(estimate)
    changes = [{}, {"dataflows": ("OS",)}, {"group": 1}, {"output_buffer_bytes": 2**20}][fields]
    for array_rows in rows:
        arch: Arch = preset("test").replace(array_rows=array_rows, **changes)
        assert memo(arch) == estimate(arch)
