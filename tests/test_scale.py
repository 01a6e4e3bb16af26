"""Many machines from a network's name to losses and limits; the model itself is tested in tests/sim/test_scaling.py."""

import re

import pytest

from accel import networks
from accel.api import simulate, step_options
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import schedule
from accel.errors import ConfigError, ScheduleError
from accel.methods import METHODS
from accel.presets import preset
from accel.scale import scale
from accel.sim.scaling import Network, gradients, segment_ends
from accel.sim.step import simulate_step
from accel.trace import Linear, Trace, Vector

SAT = preset("sat-vcu1525")
EDGE = preset("edge-kv260")


@pytest.mark.parametrize("network", networks.names())
def test_every_trained_weight_is_sent_once(network):
    trace = networks.load(network)
    plan = schedule(lower(trace, step_options(SAT, "bdwp", "2:8", 2, None, "sgd", True)), SAT)
    step, rows = plan.step, simulate_step(plan)
    found = gradients(trace, step, rows, [row.cycles for row in rows if row.engine == "update"])
    assert sum(each.elems for each in found) == trace.parameters
    assert sum(each.update_cycles for each in found) == sum(row.cycles for row in rows if row.engine == "update")
    ends = segment_ends(step, rows)
    assert {each.ready_cycles for each in found} <= set(ends)
    assert len(ends) == len(step.segments)


@pytest.mark.parametrize("update", ["replicated", "sharded"])
@pytest.mark.parametrize("method", METHODS)
def test_one_machine_takes_what_accel_simulate_says(method, update):
    for network in ("resnet9", "vit-cifar"):
        report = simulate(network, EDGE, method=method, batch=2, baseline=False, model="closed-form")
        (point,) = scale(network, EDGE, devices=[1], batch=2, method=method, between=Network(update=update)).points
        assert point.step.cycles == report.cycles
        assert point.seconds == report.seconds
        assert point.step.update_cycles == report.stage_cycles("OPT")
        assert (point.step.exposed_cycles, point.step.link_busy_cycles, point.step.transfer.sent_bytes) == (0, 0, 0)
        assert (point.efficiency_frac, point.speedup, point.limit) == (1, 1, "")


@pytest.mark.parametrize("update", ["replicated", "sharded"])
@pytest.mark.parametrize("sizes", [{"batch": 4}, {"global_batch": 64}])
def test_efficiency_and_losses_add_up_to_the_step(sizes, update):
    between = Network(link_gbps=1, update=update, bucket_mib=0.1)
    points = scale("resnet9", EDGE, devices=[4, 1, 64, 16], between=between, **sizes).points
    assert [point.devices for point in points] == [1, 4, 16, 64]
    for point in points:
        assert point.efficiency_frac + sum(point.losses.values()) == pytest.approx(1)
        assert point.speedup == pytest.approx(point.samples_per_second / points[0].samples_per_second)
        assert point.global_batch == (64 if "global_batch" in sizes else 4 * point.devices)
        assert 0 <= point.link_utilization_frac < 1
        assert point.step.link_busy_cycles >= point.step.exposed_cycles - (1 if update == "sharded" else 0)


def test_the_base_is_the_fewest_machines_listed():
    points = scale("mlp", EDGE, devices=[8, 2], batch=4).points
    assert (points[0].devices, points[0].efficiency_frac, points[0].speedup) == (2, 1, 1)
    assert points[1].speedup == pytest.approx(points[1].samples_per_second / points[0].samples_per_second)


def test_the_limit_names_the_largest_loss():
    def limit(devices=64, **between):
        return scale("mlp", EDGE, devices=[1, devices], batch=4, between=Network(**between)).points[1].limit

    assert limit(link_gbps=1e6, link_latency_us=1000) == "link latency"
    assert limit(link_gbps=0.1, link_latency_us=0) == "link bandwidth"
    assert limit(link_gbps=1e6, link_latency_us=0) == "link DRAM"
    strong = scale("resnet9", EDGE, devices=[1, 16], global_batch=16, between=Network(link_gbps=1e6, link_latency_us=0)).points
    assert strong[1].limit in ("compute", "update")
    assert strong[1].losses[strong[1].limit] == max(strong[1].losses.values())


def test_half_the_bytes_take_half_the_time_of_a_slow_link():
    busy = {
        name: scale("mlp", EDGE, devices=[8], batch=4, between=Network(1.0, 0, gradients=name)).points[0].step.transfer
        for name in ("fp16", "fp32")
    }
    assert busy["fp32"].cycles == 2 * busy["fp16"].cycles
    assert busy["fp32"].dram_bytes == busy["fp16"].dram_bytes


def test_a_sharded_update_sends_compact_weights_where_the_method_prunes():
    sent = {
        method: scale("mlp", EDGE, devices=[2], batch=4, method=method, between=Network(update="sharded")).points[0].step
        for method in ("dense", "bdwp")
    }
    assert sent["bdwp"].transfer.sent_bytes < sent["dense"].transfer.sent_bytes
    whole = scale("mlp", EDGE, devices=[2], batch=4).points[0].step
    assert sent["bdwp"].update_cycles < whole.update_cycles


def test_a_network_without_trained_weights_sends_nothing():
    fc = Linear(name="fc", inputs=("x",), in_features=64, out_features=64, trainable=False)
    trace = Trace(name="frozen", inputs=("x",), layers=(fc,))
    for update in ("replicated", "sharded"):
        points = scale(trace, EDGE, devices=[1, 8], batch=4, between=Network(update=update)).points
        assert points[0].step.cycles == points[1].step.cycles == simulate(trace, EDGE, batch=4).cycles


def refused(message, error=ConfigError, network="mlp", **fields):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        scale(network, EDGE, **fields)


def test_a_network_without_products_is_refused():
    trace = Trace(name="norm", inputs=("x",), layers=(Vector(op="relu", name="r", inputs=("x",), in_elems=4, out_elems=4),))
    refused("network norm must have a product to run, not only vector operators", network=trace)


def test_numbers_of_machines_that_cannot_be_are_refused():
    refused("devices must be numbers between 1 and 1048576, not none", devices=[])
    refused("devices must be numbers between 1 and 1048576, not 0", devices=[4, 0])
    refused("devices must be numbers between 1 and 1048576, not 1048577", devices=[4, 2**20 + 1])


def test_a_batch_and_a_global_batch_together_are_refused():
    message = "batch must not be given with global_batch; batch is that of one machine, global_batch of all"
    refused(message, batch=4, global_batch=4)


def test_a_global_batch_that_does_not_divide_is_refused():
    message = (
        "global_batch must be a positive multiple of every number of devices, not 100 (devices 3, 8, 16, 32, ...); "
        "every machine takes the same share: choose a multiple of 192 or other devices"
    )
    refused(message, devices=[1, 64, 3, 8, 16, 32], global_batch=100)
    message = (
        "global_batch must be a positive multiple of every number of devices, not 0 (devices 2); "
        "every machine takes the same share: choose a multiple of 2 or other devices"
    )
    refused(message, devices=[2], global_batch=0)


def test_a_share_that_does_not_fit_says_which_number_of_machines_to_leave_out():
    with pytest.raises(ScheduleError, match=r"at batch 256, not 4294967296; lower the batch or leave 1 out of devices$"):
        scale("resnet50", EDGE, devices=[1, 16], global_batch=256)
    with pytest.raises(ScheduleError, match=r"at batch 256, not 4294967296; lower the batch$"):
        scale("resnet50", EDGE, devices=[1, 16], batch=256)
