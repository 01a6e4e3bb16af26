"""How the cycles of a program are shared among the rows of a report."""

import pytest
from small_traces import CNN, VIT, linear, vector

from accel.api import resolve_arch, step_options
from accel.dataflow import codegen_parts
from accel.dataflow.codegen import compile_schedule
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import schedule
from accel.sim.machine import run_program
from accel.sim.program_step import simulate_program
from accel.sim.sites import Sites
from accel.trace import Trace


def shared(trace, arch="sat-vcu1525", batch=16, **fields):
    """Return the program of a step, its timing, and its rows by layer, stage and part."""
    machine = resolve_arch(arch).replace(**fields)
    planned = schedule(lower(trace, step_options(machine, "bdwp", "2:4", batch, None, "sgd", True)), machine)
    program = compile_schedule(planned)
    timing = run_program(program)
    rows = {(row.name, row.stage, row.part): row for row in simulate_program(planned, program, timing)}
    return program, timing, rows


def frozen(layer):
    return layer.model_copy(update={"trainable": False})


def gelu(name, source, elems):
    return vector(name, "gelu", (source,), elems)


@pytest.mark.parametrize("trace", [CNN, VIT], ids=lambda trace: trace.name)
@pytest.mark.parametrize("least_times", [0, 8])
@pytest.mark.parametrize("vector_lanes", [1, 8])
def test_rows_and_sites_add_up_to_the_step(trace, least_times, vector_lanes, monkeypatch):
    monkeypatch.setattr(codegen_parts, "_LEAST_TIMES", least_times)
    program, timing, rows = shared(trace, "test", vector_lanes=vector_lanes)
    assert sum(row.cycles for row in rows.values()) == timing.cycles
    assert Sites.of(program, timing).cycles.sum() == timing.cycles
    for row in rows.values():
        assert row.cycles >= 0
        assert row.cycles == sum(row.losses.values()) or row.macs_useful


def test_an_operator_that_outlasts_a_product_beside_it_is_charged_itself():
    """Nothing reads what the operator makes before the end, and the product behind it does not wait for it."""
    layers = (
        frozen(linear("first", "x", 256, 256, 64)),
        gelu("slow", "first", 64 * 256),
        vector("mean", "reduction", ("slow",), 64 * 256, 256, window=64, function="mean", shape=(64, 256), axes=(1,)),
        frozen(linear("other", "x", 256, 8, 64)),
    )
    _, timing, rows = shared(Trace(name="frozen", inputs=("x",), layers=layers), vector_lanes=1)
    assert sum(row.cycles for row in rows.values()) == timing.cycles
    assert rows["slow", "FF", "gelu"].losses["vector"] > 64 * 256 * 16


def test_an_operator_cut_by_samples_is_charged_up_to_the_product_that_takes_its_parts():
    layers = (linear("first", "x", 512, 512, 64), gelu("slow", "first", 64 * 512), linear("second", "slow", 512, 512, 64))
    layers += (vector("loss", "mse_loss", ("second",), 64 * 512, 1, window=64 * 512),)
    program, timing, rows = shared(Trace(name="chain", inputs=("x",), layers=layers))
    sites = Sites.of(program, timing)
    slow, second = sites.numbers["slow", "FF", "gelu"], sites.numbers["second", "FF", ""]
    assert sites.end[slow] == sites.begin[second] < sites.done[slow] < sites.done[second]
    row = rows["slow", "FF", "gelu"]
    assert row.cycles == sites.cycles[slow] < row.busy_cycles


def test_a_wait_for_an_operator_behind_another_product_is_a_loss_to_the_vector_unit():
    layers = (
        linear("first", "x", 512, 512, 64),
        gelu("slow", "first", 64 * 512),
        linear("other", "x", 512, 8, 64),
        linear("second", "slow", 512, 512, 64),
        vector("loss", "mse_loss", ("second",), 64 * 512, 1, window=64 * 512),
    )
    _, _, rows = shared(Trace(name="two", inputs=("x",), layers=layers), vector_lanes=8)
    lost = rows["slow", "FF", "gelu"].losses.get("vector", 0) + rows["second", "FF", ""].losses.get("vector", 0)
    assert lost > 0.8 * rows["slow", "FF", "gelu"].busy_cycles
    assert rows["second", "FF", ""].losses.get("fill", 0) < 0.1 * lost
