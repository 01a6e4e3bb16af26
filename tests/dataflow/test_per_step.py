"""Work that is done once per step, whatever the batch."""

import json
import re

import pytest

from accel.dataflow.context import Options
from accel.dataflow.lowering import lower
from accel.errors import TraceError
from accel.gemm import Stage
from accel.methods import method, optimizer
from accel.sparsity import DENSE
from accel.trace import Linear, Trace, Vector

TABLE = {"op": "embedding", "name": "bias", "inputs": [], "in_elems": 4, "out_elems": 6, "params": 10, "per_step": True}
SCALED = {"op": "scale", "name": "scaled", "inputs": ["bias"], "in_elems": 6, "out_elems": 6, "per_step": True}
FIRST = {"op": "linear", "name": "fc", "inputs": ["x"], "in_features": 3, "out_features": 6}
ADD = {"op": "add", "name": "add", "inputs": ["fc", "scaled"], "in_elems": 6, "out_elems": 6}


def trace(*layers):
    return Trace.from_fields({"schema_version": 1, "name": "net", "inputs": ["x"], "layers": list(layers)}, "net")


def step(batch, *layers):
    options = Options(batch=batch, method=method("dense"), pattern=DENSE, optimizer=optimizer("sgd"), word_elems=8)
    return lower(trace(*layers), options)


def work(step, name, stage, part=None):
    found = [vector for segment in step.segments for vector in segment.vectors if (vector.layer, vector.stage) == (name, stage)]
    return [(v.lane_ops, v.dram_bytes) for v in found if part is None or v.kind == part]


@pytest.mark.parametrize("stage", [Stage.FORWARD, Stage.INPUT_GRAD])
@pytest.mark.parametrize("name", ["bias", "scaled"])
def test_work_per_step_does_not_grow_with_the_batch(stage, name):
    op = {"bias": "embedding", "scaled": "scale"}[name]
    once, often = (work(step(batch, TABLE, SCALED, FIRST, ADD), name, stage, op) for batch in (1, 7))
    assert once == often
    assert len(once) == 1


def test_work_per_sample_beside_it_does():
    once, often = (work(step(batch, TABLE, SCALED, FIRST, ADD), "add", Stage.FORWARD) for batch in (1, 7))
    assert [7 * amount for amount in once[0]] == list(often[0])


def test_its_gradient_is_summed_over_the_batch():
    for batch, extra in ((1, 0), (7, 6)):
        sums = work(step(batch, TABLE, SCALED, FIRST, ADD), "scaled", Stage.INPUT_GRAD, "gradient sum")
        assert sums == ([(6 * extra, 6 * 6 * extra)] if extra else [])


def test_footprint_holds_it_once():
    """The sigmoid keeps its output: 6 elements of 16 bits."""
    sigmoid = {**SCALED, "op": "sigmoid"}
    without = step(7, FIRST, {**ADD, "inputs": ["fc"]}).footprint
    kept = step(7, TABLE, sigmoid, FIRST, ADD).footprint
    assert kept.activation_bytes - without.activation_bytes == 2 * 6


def test_its_parameters_are_updated():
    assert [(update.layer, update.elems) for update in step(3, TABLE, SCALED, FIRST, ADD).updates] == [("bias", 10), ("fc", 18)]


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (
            [{**TABLE, "per_step": False}],
            "net: layers[0].inputs must have 1 or more entries unless per_step is true, not ()",
        ),
        (
            [FIRST, {**SCALED, "inputs": ["fc"]}],
            "net: layers[1].inputs must name layers done once per step like it, not 'fc'",
        ),
        (
            [{**SCALED, "inputs": ["x"]}],
            "net: layers[0].inputs must name layers done once per step like it, not 'x'",
        ),
    ],
)
def test_what_is_done_once_reads_nothing_that_is_not(layers, message):
    with pytest.raises(TraceError, match=f"^{re.escape(message)}$"):
        trace(*layers)


def test_it_is_written_and_read_back():
    before = Trace(
        name="net",
        inputs=("x",),
        layers=(
            Vector(op="scale", name="s", inputs=(), in_elems=2, out_elems=2, params=2, per_step=True),
            Linear(name="fc", inputs=("x",), in_features=2, out_features=2),
        ),
    )
    assert trace_of(before.to_json()) == before


def trace_of(text):
    return Trace.from_fields(json.loads(text), "net")
