import math
import random
import re
from fractions import Fraction

import pytest
from naive_scaling import walk

from accel.api import step_options
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import schedule
from accel.errors import ConfigError
from accel.gemm import Stage
from accel.golden.allreduce import Rates, end_cycles, step_all_gather, step_reduce_scatter
from accel.presets import preset
from accel.sim.scaling import (
    Bucket,
    Gradient,
    Network,
    Ring,
    Transfer,
    fill_buckets,
    gradients,
    in_order,
    scale_step,
    segment_ends,
)
from accel.sim.step import simulate_step
from accel.trace import Linear, Trace, Vector

EDGE = preset("edge-kv260")
LINKS = [  # latency, link and DRAM in cycles and bytes a cycle: one that is slow in each, and one without latency
    (Fraction(7, 3), Fraction(5, 2), Fraction(1000)),
    (Fraction(1000), Fraction(60), Fraction(3456, 10)),
    (Fraction(1, 7), Fraction(10**6), Fraction(11, 3)),
    (Fraction(0), Fraction(4), Fraction(12)),
]


def linear(name, source, features=(64, 64), **fields):
    return Linear(name=name, inputs=(source,), in_features=features[0], out_features=features[1], **fields)


def planned(trace, arch=EDGE, method="bdwp", batch=4):
    options = step_options(arch, method, "2:8", batch, None, "sgd", True)
    return schedule(lower(trace, options), arch)


def gradients_of(trace, **fields):
    plan = planned(trace, **fields)
    rows = simulate_step(plan)
    updates = [row.cycles for row in rows if row.engine == "update"]
    return gradients(trace, plan.step, rows, updates), plan.step, rows


# One all-reduce: closed form against a ring that moves every value.


@pytest.mark.parametrize("word_bytes", [2, 4])
@pytest.mark.parametrize("rates", LINKS)
@pytest.mark.parametrize("machines", [1, 2, 3, 4, 5, 8, 13, 16, 32])
def test_closed_form_of_a_ring_equals_the_ring_that_moves_every_value(machines, rates, word_bytes):
    rng = random.Random(f"{machines} {word_bytes}")
    latency, link, dram = rates
    for elems in (1, 2, machines - 1 or 1, machines, machines + 1, 3 * machines, rng.randrange(1, 400)):
        values = [[rng.randrange(-1000, 1000) for _ in range(elems)] for _ in range(machines)]
        sums = [sum(column) for column in zip(*values, strict=True)]
        ring, slow = Ring(machines, latency, link, dram), Rates(latency, link, dram, word_bytes)
        nodes = step_reduce_scatter(values, slow)
        scattered = ring.reduce_scatter(elems, word_bytes)
        assert end_cycles(nodes) == scattered.cycles
        for index, node in enumerate(nodes):
            size = -(-elems // machines)
            own = (index + 1) % machines
            assert node.chunks[own] == (sums + [0] * machines * size)[own * size : own * size + size]
        step_all_gather(nodes, slow)
        done = ring.all_reduce(elems, word_bytes)
        assert end_cycles(nodes) == done.cycles, (machines, elems, rates)
        assert all(node.values[:elems] == sums for node in nodes)
        assert all((node.sent_bytes, node.dram_bytes) == (done.sent_bytes, done.dram_bytes) for node in nodes)


def test_a_ring_of_many_machines_equals_its_closed_form():
    latency, link, dram = LINKS[1]
    values = [[1] * 300 for _ in range(256)]
    nodes = step_all_gather(step_reduce_scatter(values, Rates(latency, link, dram, 4)), Rates(latency, link, dram, 4))
    done = Ring(256, latency, link, dram).all_reduce(300, 4)
    assert end_cycles(nodes) == done.cycles == 510 * (1000 + Fraction(8, 60))
    assert nodes[7].values[:300] == [256] * 300
    assert (nodes[0].sent_bytes, nodes[0].dram_bytes) == (done.sent_bytes, done.dram_bytes) == (510 * 8, 255 * 20 * 2)


def test_a_ring_of_new_weights_sends_each_share_once():
    done = Ring(4, Fraction(10), Fraction(2), Fraction(100)).all_gather_bytes(21)  # shares of 6 bytes
    assert (done.cycles, done.sent_bytes, done.dram_bytes) == (3 * (10 + 3), 18, 36)
    assert Ring(4, Fraction(10), Fraction(2), Fraction(1)).all_gather_bytes(21).cycles == 3 * (10 + 12)  # DRAM holds it up


def test_a_large_bucket_costs_twice_its_bytes_on_the_link():
    ring = Ring(1024, Fraction(0), Fraction(1), Fraction(10**9))
    assert ring.all_reduce(2**20, 4).cycles == Fraction(2 * 1023, 1024) * 4 * 2**20


# Buckets and overlap.


def bucket(ready, update=0, elems=1, copy_bytes=0):
    return Bucket((Gradient("fc", ready, elems, update, copy_bytes),))


def test_a_bucket_is_closed_when_it_is_full_and_splits_no_tensor():
    found = [Gradient(str(index), index, elems, 0, 0) for index, elems in enumerate((3, 5, 1, 20, 2))]
    buckets = fill_buckets(found, 2, Fraction(12))
    assert [[part.layer for part in each.gradients] for each in buckets] == [["0", "1"], ["2", "3"], ["4"]]
    assert [(each.elems, each.ready_cycles) for each in buckets] == [(8, 1), (21, 3), (2, 4)]
    assert fill_buckets([], 2, Fraction(12)) == []


def test_transfers_wait_for_their_bucket_and_for_each_other():
    transfers = [Transfer(Fraction(cycles)) for cycles in (Fraction(19, 2), 4, 1)]
    assert in_order([5, 6, 30], transfers) == [15, 19, 31]


@pytest.mark.parametrize("sharded", [False, True])
@pytest.mark.parametrize("seed", range(60))
def test_overlap_equals_a_walk_over_every_cycle(seed, sharded):
    rng = random.Random(seed)
    compute = rng.randrange(1, 300)
    ready = sorted(rng.randrange(1, compute + 1) for _ in range(rng.randrange(6)))
    buckets = [bucket(at, rng.randrange(40), rng.randrange(1, 300), rng.randrange(300)) for at in ready]
    machines = rng.choice([1, 2, 3, 8])
    ring = Ring(machines, Fraction(rng.randrange(40), 3), Fraction(rng.randrange(1, 400), 7), Fraction(100))
    found = scale_step(compute, buckets, ring, 4, sharded)
    reduce = ring.reduce_scatter if sharded else ring.all_reduce
    end, jobs = walk(
        compute,
        ready,
        [math.ceil(reduce(each.elems, 4).cycles) for each in buckets],
        [each.update_cycles for each in buckets],
        math.ceil(ring.all_reduce(1, 4).cycles) if buckets else 0,
        [math.ceil(ring.all_gather_bytes(each.copy_bytes).cycles) for each in buckets] if sharded else None,
    )
    assert found.cycles == end, seed
    assert [(job.start_cycles, job.end_cycles) for job in found.jobs] == jobs, seed
    assert found.exposed_cycles >= 0
    assert found.exposed_cycles == end - compute - sum(each.update_cycles for each in buckets)


def test_what_the_link_does_is_counted_whole():
    ring = Ring(4, Fraction(5), Fraction(2), Fraction(1000))
    buckets = [bucket(10, 6, 8, 16), bucket(20, 3, 4, 8)]
    whole = scale_step(20, buckets, ring, 4, sharded=False)
    assert [(job.start_cycles, job.end_cycles) for job in whole.jobs] == [(10, 64), (64, 106)]  # 6 steps of 5 + 4, then 5 + 2
    assert (whole.cycles, whole.exposed_cycles, whole.link_busy_cycles) == (115, 86, 96)
    assert (whole.transfer.sent_bytes, whole.transfer.dram_bytes) == (6 * 12, 3 * 20 * 3)
    assert whole.contended_cycles == 115 + 1  # 180 bytes at 1,000 a cycle
    assert whole.late == whole.transfer
    shards = scale_step(20, buckets, ring, 4, sharded=True)
    assert [(job.start_cycles, job.end_cycles) for job in shards.jobs] == [(10, 37), (37, 58)]
    # The flag takes 6 steps of 5 + 2, updates end at 106 and 109; new weights 3 steps of 5 + 2, then of 5 + 1.
    assert (shards.cycles, shards.link_busy_cycles) == (106 + 21 + 18, 27 + 21 + 42 + 21 + 18)


def test_the_step_waits_for_the_last_run_of_transfers_alone():
    ring = Ring(4, Fraction(5), Fraction(2), Fraction(1000))
    buckets = [bucket(10, 6, 8, 16), bucket(64, 3, 4, 8), bucket(105, 3, 12, 8)]
    whole = scale_step(120, buckets, ring, 4, sharded=False)
    assert [(job.start_cycles, job.end_cycles) for job in whole.jobs] == [(10, 64), (64, 106), (106, 172)]
    assert whole.late == ring.all_reduce(4, 4) + ring.all_reduce(12, 4)
    shards = scale_step(120, buckets, ring, 4, sharded=True)
    assert [(job.start_cycles, job.end_cycles) for job in shards.jobs] == [(10, 37), (64, 85), (105, 138)]
    copies = [ring.all_gather_bytes(size) for size in (16, 8, 8)]
    assert shards.late == sum(copies, ring.reduce_scatter(12, 4) + ring.all_reduce(1, 4))


# When dW is ready.


def test_dw_is_ready_at_the_end_of_its_weight_gradient():
    trace = Trace(name="two", inputs=("x",), layers=(linear("fc1", "x"), linear("fc2", "fc1", bias=True)))
    found, step, rows = gradients_of(trace)
    assert [(each.layer, each.elems) for each in found] == [("fc2", 64 * 64 + 64), ("fc1", 64 * 64)]
    ends = segment_ends(step, rows)
    for each in found:
        (made,) = (
            index
            for index, segment in enumerate(step.segments)
            if any(gemm.layer == each.layer and gemm.stage is Stage.WEIGHT_GRAD for gemm in segment.gemms)
        )
        assert each.ready_cycles == ends[made]
    assert found[-1].ready_cycles == ends[-1] == sum(row.cycles for row in rows if row.engine != "update")


def test_dw_of_a_shared_weight_is_ready_with_its_last_user():
    layers = (linear("first", "x", weight="w"), linear("middle", "first"), linear("last", "middle", weight="w"))
    found, step, rows = gradients_of(Trace(name="tied", inputs=("x",), layers=layers))
    assert [each.layer for each in found] == ["middle", "first"]
    assert found[-1].ready_cycles == segment_ends(step, rows)[-1]
    frozen = (layers[0].model_copy(update={"trainable": False}), *layers[1:])
    found, *_ = gradients_of(Trace(name="tied", inputs=("x",), layers=frozen))
    assert [each.layer for each in found] == ["last", "middle"]


def test_dw_of_a_norm_is_ready_with_its_backward():
    norm = Vector(op="layer_norm", name="norm", inputs=("fc1",), in_elems=64, out_elems=64, params=128)
    trace = Trace(name="norm", inputs=("x",), layers=(linear("fc1", "x"), norm, linear("fc2", "norm")))
    found, step, rows = gradients_of(trace)
    assert [each.layer for each in found] == ["fc2", "norm", "fc1"]  # norm beside WU of fc2, in one segment
    assert found[0].ready_cycles == found[1].ready_cycles < found[2].ready_cycles
    assert found[1].elems == 128
    assert found[1].ready_cycles in segment_ends(step, rows)


def test_the_gradient_of_added_parameters_is_ready_when_it_is_summed_up():
    position = Vector(op="add", name="position", inputs=("fc1",), in_elems=64, out_elems=64, params=64)
    trace = Trace(name="add", inputs=("x",), layers=(linear("fc1", "x"), position, linear("fc2", "position")))
    found, step, rows = gradients_of(trace)
    assert [each.layer for each in found] == ["fc2", "position", "fc1"]
    assert {each.layer: each.ready_cycles for each in found}["position"] in segment_ends(step, rows)[:-1]


def test_all_problems_of_the_network_between_machines_come_at_once():
    message = (
        "link_gbps must be above 0 and at most 1e+06, not 0; link_latency_us must be between 0 and 1e+06, not -1.5; "
        "bucket_mib must be above 0 and at most 1e+06, not nan; gradients must be one of fp32, fp16, not 'bf16'; "
        "update must be one of replicated, sharded, not 'lazy'"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Network(0, -1.5, math.nan, "bf16", "lazy")
    with pytest.raises(ConfigError, match=r"^link_gbps must be above 0 and at most 1e\+06, not inf$"):
        Network(math.inf)
    assert Network(link_latency_us=0).link_latency_us == 0
