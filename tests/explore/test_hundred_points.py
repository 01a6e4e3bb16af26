"""A hundred points of a sweep, read back from its folder, against `simulate` of each machine alone."""

import pytest

from accel.api import simulate
from accel.energy import energy_table
from accel.errors import AccelError
from accel.explore import Results, Space, sweep

pytest.importorskip("pyarrow")

TEXT = """
[arch]
base = "test"
[vary]
array_rows = {from = 2, to = 20, step = 1}
array_cols = {from = 2, to = 20, step = 1}
group = [4, 8, 16]
adder_latency = [1, 2, 3, 4]
row_lanes = [[1], [2], [1, 2]]
dataflows = [["OS"], ["WS"], ["OS", "WS"]]
west_buffer_bytes = {from = 512, to = 65536, points = 8, scale = "log"}
north_buffer_bytes = {from = 4096, to = 65536, points = 5, scale = "log"}
output_buffer_bytes = {from = 4096, to = 262144, points = 7, scale = "log"}
drain_lanes = [1, 2]
clock_hz = [1e8, 3e8]
dram_bytes_per_second = {from = 1e8, to = 1e11, points = 7, scale = "log"}
[derive]
vector_lanes = "max(4, dram_bytes_per_cycle / 4)"
[work]
networks = {mlp = 1.0, resnet9 = 2.0}
methods = [{method = "bdwp", pattern = "2:4"}, {method = "dense"}]
batch = 2
[objectives]
names = ["time", "edp"]
energy = "asic-45nm"
"""
SEED = 6
LABELS = {"bdwp": "bdwp.2:4", "dense": "dense"}


def simulated(arch):
    """Return what the columns of every step should say of a machine."""
    found, table = {}, energy_table("asic-45nm")
    for network in ("mlp", "resnet9"):
        for method, label in LABELS.items():
            choices = {"method": method, "pattern": "2:4", "batch": 2, "energy": table, "baseline": False}
            report = simulate(network, arch, model="closed-form", **choices)
            found |= {
                f"{network}.{label}.cycles": report.cycles,
                f"{network}.{label}.seconds": report.seconds,
                f"{network}.{label}.dram_bytes": sum(row.dram_bytes for row in report.rows),
                f"{network}.{label}.joules": report.energy.joules,
            }
    return found


def test_a_hundred_random_points_are_what_simulate_says_to_the_last_cycle_and_byte(tmp_path):
    space = Space.from_text(TEXT, "space.toml")
    sweep(space, tmp_path, sampler="random", seed=SEED, budget="100")
    rows = Results.load(tmp_path).table.to_dict("records")
    assert len(rows) == 100
    refused = 0
    for row in rows:
        where = f"seed {SEED}, point {row['index']}"
        if not isinstance(row["problem"], str):
            expected = simulated(space.arch(row["index"]))
            assert {name: row[name] for name in expected} == expected, where
        else:
            refused += 1
            with pytest.raises(AccelError) as caught:
                simulated(space.arch(row["index"]))
            assert str(caught.value) == row["problem"], where
    assert 10 < refused < 90, refused
