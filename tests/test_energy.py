import csv
import io
import json
import math
import re
import tomllib

import pytest

from accel.api import simulate
from accel.cli import main
from accel.energy import COMPONENTS, EnergyTable, Events, StepEnergy, energy_table, table_names, table_text
from accel.errors import ConfigError
from accel.presets import preset
from accel.report import STAGES

TABLE = energy_table("asic-7nm")
EVENTS = Events(2, 3, 5, 7, 11, 13, 17, 19, 23)
FIGURE_OF = {
    "multiply": "fp16_multiply_pj",
    "add": "fp32_add_pj",
    "registers": "register_pj_per_byte",
    "buffers": "buffer_pj_per_byte",
    "dram": "dram_pj_per_byte",
    "vector": "vector_lane_op_pj",
    "update": "wuve_pass_pj",
    "sore": "sore_compare_pj",
    "clock": "clock_pj_per_pe_cycle",
    "static": "static_watts",
}
RUN = {"batch": 2, "energy": TABLE}


def refused(make, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        make()


@pytest.fixture(scope="module")
def report():
    """ResNet-9 with gradients pruned on line too: every component is above 0."""
    return simulate("resnet9", preset("edge-kv260"), method="fully-sparse", **RUN)


@pytest.mark.parametrize("name", table_names())
def test_each_table_of_the_package_says_where_every_figure_is_from(name):
    table = energy_table(name)
    assert table.name == name
    assert list(table.figures) == list(FIGURE_OF.values())
    for figure in table.figures.values():
        assert figure.value > 0
        assert figure.assumed or re.search(r"(19|20)\d\d", figure.source), figure


def test_the_tables_of_the_package():
    assert table_names() == ["asic-45nm", "asic-7nm", "fpga-16nm"]
    assert energy_table(TABLE) is TABLE
    for name in FIGURE_OF.values():  # a newer node takes less of everything; an FPGA more of all it does by itself
        old, new, fpga = (getattr(energy_table(table), name).value for table in table_names())
        assert new <= old
        assert fpga > new or name == "static_watts"


def test_derived_figures_are_what_their_sources_make_of_them():
    asic, old, fpga = (energy_table(name) for name in ("asic-7nm", "asic-45nm", "fpga-16nm"))

    def gap(name, factor):
        return factor * math.sqrt(getattr(asic, name).value * getattr(old, name).value)

    assert fpga.fp16_multiply_pj.value == pytest.approx(gap("fp16_multiply_pj", 7.1), rel=0.02)
    for name in ("fp32_add_pj", "register_pj_per_byte", "sore_compare_pj", "clock_pj_per_pe_cycle"):
        assert getattr(fpga, name).value == pytest.approx(gap(name, 14), rel=0.03)
    multiply = 7.1 * math.sqrt(3.7 * 1.31)
    assert fpga.vector_lane_op_pj.value == pytest.approx(multiply + gap("fp32_add_pj", 14), rel=0.01)
    assert fpga.wuve_pass_pj.value == pytest.approx(4 * multiply + 3 * gap("fp32_add_pj", 14), rel=0.01)
    assert fpga.buffer_pj_per_byte.value == pytest.approx(7.1 * math.sqrt(20 * 8.5) / 8, rel=0.01)
    for table, multiply, add in ((asic, 1.31, 0.38), (old, 3.7, 0.9)):
        assert table.vector_lane_op_pj.value == pytest.approx(multiply + add)
        assert table.wuve_pass_pj.value == pytest.approx(4 * multiply + 3 * add)


def test_an_unknown_table_is_refused():
    message = "energy must be one of asic-45nm, asic-7nm, fpga-16nm or a TOML file, not 'asic'"
    refused(lambda: energy_table("asic"), message)
    refused(lambda: simulate("mlp", batch=2, energy="asic"), message)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (("value = 0.34", "value = -1.0"), "fp16_multiply_pj.value must be at least 0.0, not -1.0"),
        (("value = 0.34", "value = nan"), "fp16_multiply_pj.value must be a finite number, not nan"),
        (("value = 0.34", "value = 1e10"), "fp16_multiply_pj.value must be at most 1000000000.0, not 10000000000.0"),
        (("value = 0.34", 'value = "0.34"'), "fp16_multiply_pj.value must be a number, not '0.34'"),
        (("value = 0.34\n", ""), "fp16_multiply_pj.value is missing"),
        (("[fp16_multiply_pj]", "[fp8_multiply_pj]"), "fp16_multiply_pj is missing; fp8_multiply_pj is not a known field"),
        (("[fp16_multiply_pj]", "[fp16_multiply_pj]\nyear = 2021"), "fp16_multiply_pj.year is not a known field"),
        (("assumed = true", 'assumed = "yes"'), "register_pj_per_byte.assumed must be true or false, not 'yes'"),
        (('name = "asic-7nm"', 'name = ""'), "name must not be empty, not ''"),
    ],
)
def test_a_bad_table_is_refused_with_file_and_field(change, problem, tmp_path):
    text = table_text("asic-7nm")
    assert change[0] in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(*change, 1))
    refused(lambda: energy_table(path), f"{path}: {problem}")
    refused(lambda: simulate("mlp", batch=2, energy=str(path)), f"{path}: {problem}")


def test_a_figure_without_a_source_is_refused(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(re.sub('source = "7 nm, IEEE FP32 add.*\n', "", table_text("asic-7nm")))
    refused(lambda: EnergyTable.load(path), f"{path}: fp32_add_pj.source is missing")


def test_a_file_that_is_no_table_is_refused(tmp_path):
    missing, broken = tmp_path / "none.toml", tmp_path / "broken.toml"
    broken.write_text("name = ")
    refused(lambda: energy_table(missing), f"{missing} does not exist")
    with pytest.raises(ConfigError, match=f"^{re.escape(str(broken))} must be TOML: "):
        energy_table(broken)


def test_a_changed_table_is_checked():
    assert TABLE.replace(static_watts=2.5).static_watts.value == 2.5
    refused(lambda: TABLE.replace(static_watts=-2.5), "asic-7nm: static_watts.value must be at least 0.0, not -2.5")
    refused(lambda: TABLE.replace(dynamic_watts=1.0), "asic-7nm: dynamic_watts is not a known field")


def test_energy_by_hand():
    figures = dict(zip(FIGURE_OF.values(), (1.0, 10.0, 100.0, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 46.0), strict=True))
    (row,) = StepEnergy(TABLE.replace(**figures), 1e6, (EVENTS,)).rows
    counted = (2, 20, 300, 5e3, 7e4, 11e5, 13e6, 17e7, 19e8)  # picojoules
    assert list(row.values()) == pytest.approx([*(joules * 1e-12 for joules in counted), 46 * 23e-6])


def test_rows_add_up_to_stages_and_totals_and_components_to_rows(report):
    energy = report.energy
    assert len(energy.rows) == len(report.rows)
    totals = energy.components()
    assert math.fsum(totals.values()) == energy.joules
    by_stage = {stage: report.stage_energy(stage) for stage in STAGES}
    for component in COMPONENTS:
        assert totals[component] > 0
        assert totals[component] == pytest.approx(math.fsum(row[component] for row in energy.rows))
        assert totals[component] == pytest.approx(math.fsum(stage[component] for stage in by_stage.values()))
    assert energy.joules == pytest.approx(math.fsum(sum(row.values()) for row in energy.rows))


def test_counts_are_those_of_the_report(report):
    pairs = list(zip(report.rows, report.energy.events, strict=True))
    for row, events in pairs:
        assert events.dram_bytes == row.dram_bytes
        assert (events.cycles, events.pe_cycles) == (row.cycles, row.cycles * report.pes)
        assert events.macs == (row.macs_useful if row.engine == "array" else 0)
        assert (events.register_bytes > 0) == (row.engine == "array")
        assert (events.wuve_passes > 0) == (row.engine == "update")
    assert any(events.sore_compares for row, events in pairs if row.engine == "update")
    assert any(events.sore_compares for row, events in pairs if row.stage == "WU")
    assert sum(events.cycles for _, events in pairs) == report.cycles


def test_static_energy_is_power_times_time(report):
    assert report.energy.components()["static"] == pytest.approx(TABLE.static_watts.value * report.seconds)
    assert report.average_power_watts == pytest.approx(report.energy.joules / report.seconds)
    assert report.average_power_watts > TABLE.static_watts.value
    assert report.energy_delay_joule_seconds == pytest.approx(report.energy.joules * report.seconds)


@pytest.mark.parametrize(("component", "figure"), FIGURE_OF.items())
def test_doubling_a_figure_doubles_its_component_and_nothing_else(report, component, figure):
    energy = report.energy
    doubled = TABLE.replace(**{figure: 2 * getattr(TABLE, figure).value})
    changed = StepEnergy(doubled, energy.clock_hz, energy.events)
    for before, after in zip(energy.rows, changed.rows, strict=True):
        assert after == {**before, component: 2 * before[component]}
    assert changed.components() == {**energy.components(), component: 2 * energy.components()[component]}


def test_a_larger_batch_multiplies_more_and_updates_the_same():
    small, large = (simulate("mlp", method="dense", batch=batch, energy=TABLE) for batch in (1024, 2048))
    for row, one, two in zip(small.rows, small.energy.events, large.energy.events, strict=True):
        assert two.macs == 2 * one.macs
        if row.engine == "update":
            assert two._replace(cycles=0, pe_cycles=0) == one._replace(cycles=0, pe_cycles=0)


def test_sparse_training_skips_the_energy_of_what_it_skips():
    report = simulate("resnet18", "sat-vcu1525", batch=8, energy="fpga-16nm")
    sparse, dense = report.energy.components(), report.baseline.energy.components()
    macs = report.total("macs_useful") / report.baseline.total("macs_useful")
    for component in ("multiply", "add"):
        assert sparse[component] / dense[component] == pytest.approx(macs, rel=0.01)
    assert dense["sore"] == 0 < sparse["sore"]
    assert sparse["update"] == dense["update"]
    assert sparse["static"] / dense["static"] == pytest.approx(1 / report.speedup_over_dense)
    assert report.energy_gain_over_dense == pytest.approx(report.baseline.energy.joules / report.energy.joules)
    assert 1 < report.energy_gain_over_dense < report.mac_cap
    assert report.useful_gflops_per_watt == pytest.approx(
        2 * report.total("macs_useful") / report.seconds / report.average_power_watts / 1e9
    )


def test_without_a_table_nothing_is_said_of_energy():
    report = simulate("mlp", batch=2)
    with_energy = simulate("mlp", **RUN)
    plain = report.to_dict()
    assert "energy" not in plain
    assert "energy" not in report.to_csv()
    assert report.stage_energy("FF") == {}
    assert report.average_power_watts is report.energy_delay_joule_seconds is report.useful_gflops_per_watt is None
    assert report.energy_gain_over_dense is None
    found = with_energy.to_dict()
    assert found.pop("energy")
    for layer in found["layers"]:
        assert layer.pop("events")
        assert layer.pop("energy")
    assert found == plain


def test_a_table_of_nothing_divides_by_nothing():
    report = simulate("mlp", batch=2, energy=TABLE.replace(**dict.fromkeys(FIGURE_OF.values(), 0.0)))
    assert report.energy.joules == report.average_power_watts == 0
    assert report.useful_gflops_per_watt is report.energy_gain_over_dense is None
    json.loads(report.to_json())


def test_a_baseline_must_have_the_same_table():
    plain = simulate("mlp", batch=2).baseline
    refused(
        lambda: simulate("mlp", **RUN, baseline=plain), "baseline must have the energies of table asic-7nm, not of no table"
    )
    priced = simulate("mlp", **RUN).baseline
    refused(
        lambda: simulate("mlp", batch=2, baseline=priced), "baseline must have the energies of no table, not of table asic-7nm"
    )
    assert simulate("mlp", pattern="2:4", **RUN, baseline=priced).energy_gain_over_dense > 1


def test_json_and_csv_carry_the_joules(capsys, tmp_path, report):
    path = tmp_path / "rows.csv"
    command = ["simulate", "mlp", "--batch", "2", "--energy", "asic-7nm", "--json", "-", "--csv", str(path)]
    assert main(command) == 0
    found = json.loads(capsys.readouterr().out)
    section = found["energy"]
    names = ["energy_joules", *(f"{component}_joules" for component in COMPONENTS)]
    assert list(section["totals"])[: len(names)] == names
    assert list(section["stages"]) == list(STAGES)
    assert section["table"]["dram_pj_per_byte"]["source"].startswith("HBM2, 3.92 pJ a bit")
    with path.open() as file:
        rows = list(csv.DictReader(file))
    for name in names:
        total = section["totals"][name]
        assert sum(stage[name] for stage in section["stages"].values()) == pytest.approx(total)
        assert sum(layer["energy"][name] for layer in found["layers"]) == pytest.approx(total)
        assert sum(float(row[name]) for row in rows) == pytest.approx(total)
    assert list(report.table().columns) == list(next(iter(csv.DictReader(io.StringIO(report.to_csv())))))


def test_the_command_prints_energies_and_lists_tables(capsys):
    assert main(["simulate", "mlp", "--batch", "2", "--energy", "fpga-16nm"]) == 0
    out = capsys.readouterr().out
    for text in ("energy (J), figures of fpga-16nm", "dense step", "useful GFLOP/s per W", "9 of the 10 figures are assumed"):
        assert text in out
    assert main(["simulate", "mlp", "--batch", "2", "--method", "dense", "--energy", "fpga-16nm"]) == 0
    assert "dense step" not in capsys.readouterr().out
    assert main(["energies"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in table_names())
    assert main(["energies", "asic-45nm"]) == 0
    assert EnergyTable.from_fields(tomllib.loads(capsys.readouterr().out), "printed") == energy_table("asic-45nm")


def test_a_wrong_table_is_one_line(capsys):
    assert main(["simulate", "mlp", "--energy", "asic"]) == 2
    assert capsys.readouterr().err == "accel: energy must be one of asic-45nm, asic-7nm, fpga-16nm or a TOML file, not 'asic'\n"
