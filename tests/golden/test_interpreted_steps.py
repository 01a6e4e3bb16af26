"""Whole training steps, executed as programs, against the same steps written down directly: equal bits in every tensor."""

import re

import numpy as np
import pytest
from golden_step import GoldenStep
from program_step import RULE, given, program_for, program_step, step_tensors
from small_traces import CNN, VIT, conv, linear, loss, random_batch, random_weights, vector

from accel.assembly import from_text, to_text
from accel.dataflow import codegen_parts
from accel.dataflow.verifier import verify
from accel.errors import ConfigError, ScheduleError
from accel.golden.interpreter import interpret
from accel.golden.interpreter_update import initial_tensors
from accel.golden.prune import Entries
from accel.golden.update import UpdateRule
from accel.presets import preset
from accel.program import Engine, Program
from accel.program_file import from_bytes, to_bytes
from accel.trace import Trace

BATCH = 3
MACHINES = [("test", "2:4"), ("edge-kv260", "2:8")]
METHODS = ["dense", "bdwp", "sr-ste", "sdgp", "bp-only", "fully-sparse"]


def start(trace, seed=0):
    rng = np.random.default_rng(seed)
    return random_weights(rng, trace), random_batch(rng, trace, BATCH)


def as_stored(name, value):
    """Return a tensor of the direct step as a program stores it: dW with its output channels last."""
    is_weight_grad = name.startswith("dw ") and not name.endswith(" bias") and value.ndim > 1
    return np.ascontiguousarray(np.moveaxis(value, 0, -1) if is_weight_grad else value)


def differing(found, expected):
    """Return the tensors that are missing or have other bits."""
    return [
        name
        for name, value in expected.items()
        if name not in found
        or found[name].dtype != value.dtype
        or found[name].reshape(-1).tobytes() != as_stored(name, value).tobytes()
    ]


@pytest.mark.parametrize("trace", [CNN, VIT], ids=lambda trace: trace.name)
@pytest.mark.parametrize(("machine", "pattern"), MACHINES)
@pytest.mark.parametrize("method", METHODS)
def test_every_tensor_of_a_step_has_the_bits_of_golden_functions(trace, machine, pattern, method):
    weights, data = start(trace)
    expected = GoldenStep(trace, weights, data, method, pattern, RULE)
    found = step_tensors(trace, weights, data, method, pattern, preset(machine), seed=1)
    assert differing(found, expected.tensors) == []
    assert sum(name.startswith("master ") for name in expected.tensors) == len(weights)


@pytest.mark.parametrize("trace", [CNN, VIT], ids=lambda trace: trace.name)
def test_weights_pruned_on_line_give_the_same_step(trace):
    weights, data = start(trace)
    ready, online = (
        program_step(trace, weights, data, "bdwp", "2:4", preset("test"), pregenerate=pregenerate)
        for pregenerate in (True, False)
    )
    assert all(ready[name].tobytes() == online[name].tobytes() for name in weights)


@pytest.mark.parametrize("trace", [CNN, VIT], ids=lambda trace: trace.name)
def test_bits_do_not_depend_on_the_order_of_instructions(trace):
    weights, data = start(trace)
    program = program_for(trace, "bdwp", "2:4", preset("test"), BATCH)
    tensors = given(program, trace, weights, data)
    first = interpret(program, tensors, rule=RULE)
    for seed in range(4):
        other = interpret(program, tensors, rule=RULE, seed=seed)
        assert other.keys() == first.keys()
        assert [name for name in first if not same(first[name], other[name])] == [], f"seed {seed}"


def same(left, right):
    if isinstance(left, tuple):
        fields = ("values", "index", "valid")
        return all(
            getattr(one, field).tobytes() == getattr(other, field).tobytes()
            for one, other in zip(left, right, strict=True)
            for field in fields
        )
    return left.dtype == right.dtype and left.tobytes() == right.tobytes()


@pytest.fixture
def cut_everything(monkeypatch):
    """Cut operators however short they are."""
    monkeypatch.setattr(codegen_parts, "_LEAST_TIMES", 0)


@pytest.mark.parametrize("trace", [CNN, VIT], ids=lambda trace: trace.name)
@pytest.mark.parametrize("method", ["dense", "bdwp", "fully-sparse"])
def test_operators_cut_by_samples_give_the_same_bits_in_any_order(trace, method, cut_everything):
    weights, data = start(trace)
    program = program_for(trace, method, "2:4", preset("test"), BATCH)
    assert sum(kernel.samples == (2, 1) for kernel in program.tables.kernels) > 1
    verify(program)
    expected = GoldenStep(trace, weights, data, method, "2:4", RULE)
    for seed in (None, 1, 2):
        found = interpret(program, given(program, trace, weights, data), rule=RULE, seed=seed)
        assert differing(found, expected.tensors) == [], f"seed {seed}"


def test_an_operator_that_comes_before_its_samples_is_refused(cut_everything):
    weights, data = start(CNN)
    program = program_for(CNN, "bdwp", "2:4", preset("test"), BATCH)
    instructions, kernels = program.instructions.copy(), program.tables.kernels
    pool = [
        at for at, one in enumerate(instructions) if one["opcode"] == Engine.VECTOR and kernels[one["object"]].op == "max_pool"
    ]
    first, *_, last = pool[:BATCH]
    assert [kernels[instructions["object"][at]].samples for at in (first, last)] == [(0, 1), (2, 1)]
    instructions["object"][[first, last]] = instructions["object"][[last, first]]
    message = rf"instruction {first} (VECTOR of pool FF max_pool): tensor 'relu1' must be written where it is read, not later"
    with pytest.raises(ScheduleError, match=f"^{re.escape(message)}$"):
        interpret(Program(program.tables, instructions), given(program, CNN, weights, data), rule=RULE)


def test_a_second_step_starts_from_the_copies_that_the_first_one_wrote():
    weights, data = start(CNN)
    program = program_for(CNN, "bdwp", "2:4", preset("test"), BATCH)
    first = interpret(program, given(program, CNN, weights, data), rule=RULE)
    second = interpret(program, first, rule=RULE)
    new = {name: first[f"master {name}"].reshape(value.shape) for name, value in weights.items()}
    rewritten = initial_tensors(program, new)
    assert all(same(first[name], value) for name, value in rewritten.items())
    momentum = {name: value for name, value in first.items() if name.startswith("momentum ")}
    again = interpret(program, given(program, CNN, new, data) | momentum, rule=RULE)
    assert all(same(second[name], again[name]) for name in again)
    assert len(momentum) == len(weights)


# What the update does.


def test_copies_are_the_pruned_weights_of_each_stage():
    weights, data = start(CNN)
    program = program_for(CNN, "bdwp", "2:4", preset("test"), BATCH)
    tensors = interpret(program, given(program, CNN, weights, data), rule=RULE)
    for stage, shape in (("FF", (9 * 2, 2, 16)), ("BP", (9 * 4, 2, 8))):
        (copy,) = tensors[f"weight conv2 {stage}"]
        assert isinstance(copy, Entries)
        assert copy.values.shape == shape
        assert (copy.k_taps, str(copy.pattern)) == (9, "2:4")
    assert tensors["weight stem"].dtype == np.float16


RULES = [
    UpdateRule(lr=0.1),
    UpdateRule(lr=0.1, momentum=0.5, decay=0.01),
    UpdateRule(lr=0.1, momentum=0.9, sparse_decay=0.02),
    UpdateRule(lr=0.1, masked=True),
]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("method", ["bdwp", "bp-only"])
def test_rules_of_the_update_see_the_weights_that_the_step_kept(rule, method):
    weights, data = start(VIT)
    expected = GoldenStep(VIT, weights, data, method, "2:4", rule, loss_scale=64.0)
    found = step_tensors(VIT, weights, data, method, "2:4", preset("test"), rule=rule, loss_scale=64.0)
    assert differing(found, expected.tensors) == []


def test_a_loss_scale_is_taken_out_again():
    weights, data = start(CNN)
    plain, scaled = (
        program_step(CNN, weights, data, "dense", "2:4", preset("test"), loss_scale=scale) for scale in (1.0, 256.0)
    )
    for name, value in weights.items():
        moved = np.abs(plain[name] - value).max()
        assert moved > 0
        assert np.abs(plain[name] - scaled[name]).max() < 0.02 * moved


@pytest.mark.parametrize("trace", [CNN, VIT], ids=lambda trace: trace.name)
@pytest.mark.parametrize("seed", [None, 3])
def test_an_overflow_leaves_weights_momentum_and_copies_alone(trace, seed):
    weights, data = start(trace)
    program = program_for(trace, "bdwp", "2:4", preset("test"), BATCH)
    before = given(program, trace, weights, data) | {f"momentum {name}": value + 1 for name, value in weights.items()}
    after = interpret(program, before, rule=RULE, loss_scale=2.0**30, seed=seed)
    assert not all(np.isfinite(value).all() for name, value in after.items() if name.startswith("dw "))
    kept = [name for name in before if name.startswith(("master ", "momentum ", "weight "))]
    assert len(kept) > 2 * len(weights)
    assert all(same(before[name], after[name]) for name in kept)


def test_one_gradient_that_is_not_finite_stops_all_updates():
    weights, data = start(CNN)
    weights["head bias"][0] = np.inf
    program = program_for(CNN, "dense", "2:4", preset("test"), BATCH)
    before = given(program, CNN, weights, data)
    after = interpret(program, before, rule=RULE)
    assert all(same(before[f"master {name}"], after[f"master {name}"]) for name in weights)


# What cannot be executed is refused by name.


def step_of(*layers, seed=None, rule=RULE, **weights):
    trace = Trace(name="net", inputs=("x",), layers=(*layers, loss(layers[-1].name, 5)))
    rng = np.random.default_rng(0)
    program = program_for(trace, "dense", "2:4", preset("test"), BATCH)
    given_weights = {**random_weights(rng, trace), **weights}
    tensors = initial_tensors(program, given_weights)
    x = rng.normal(size=(BATCH, layers[0].in_elems)).astype(np.float16)
    return interpret(program, tensors | {"x": x, "loss target": np.zeros(BATCH, np.int64)}, rule=rule, seed=seed)


FC = linear("fc", "x", 4, 5)
RELU = vector("relu", "relu", ("fc",), 5)


def refusal(*layers, **options):
    with pytest.raises(ScheduleError) as caught:
        step_of(*layers, **options)
    text = str(caught.value)
    return text[text.index("(") :]


def test_a_small_step_runs():
    assert step_of(FC, RELU)["relu"].shape == (BATCH, 1, 5)


def test_an_operator_without_attributes_is_refused():
    bare = RELU.model_copy(update={"attributes": None})
    assert (
        refusal(FC, bare)
        == "(VECTOR of relu FF relu): relu must have attributes to be executed, not none; export the network again"
    )


def test_an_operator_that_has_no_golden_function_is_refused():
    other = RELU.model_copy(update={"attributes": {"function": "softshrink"}})
    assert refusal(FC, other) == "(VECTOR of relu FF relu): relu must be a function that can be interpreted, not 'softshrink'"


def test_an_attribute_that_is_missing_is_named():
    norm = vector("norm", "layer_norm", ("fc",), 5, params=10, features=5)
    expected = "(VECTOR of norm FF layer_norm): attributes must have 'eps', not only features, function, inputs, params, wanted"
    assert refusal(FC, norm) == expected


def test_a_layer_that_reads_a_part_of_a_tensor_is_refused():
    part = linear("part", "fc", 3, 5)
    expected = "operands must be whole and as they are stored to be executed, not parts, in another order or shared"
    assert refusal(FC, part) == f"(VECTOR of part FF): {expected}"


def test_a_shared_weight_is_refused():
    first, second = linear("a", "x", 5, 5), linear("b", "a", 5, 5)
    first, second = (layer.model_copy(update={"weight": "shared"}) for layer in (first, second))
    rng = np.random.default_rng(0)
    weights = {"shared": rng.normal(size=(5, 5)).astype(np.float32), "shared bias": np.zeros(5, np.float32)}
    assert "shared" in refusal(first, second, **weights)


def test_updates_without_a_rule_are_refused():
    assert refusal(FC, rule=None) == "(UPDATE of fc OPT update): rule must say how weights are updated, not None"


def test_a_missing_target_is_refused():
    weights, data = start(CNN)
    program = program_for(CNN, "dense", "2:4", preset("test"), BATCH)
    tensors = given(program, CNN, weights, data)
    del tensors["loss target"]
    with pytest.raises(ScheduleError, match="tensor 'loss target' must be given or written before it is read, not missing"):
        interpret(program, tensors, rule=RULE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value[:2], "weights['fc'] must be float32 (5, 4), not float32 (2, 4)"),
        (lambda value: value.astype(np.float64), "weights['fc'] must be float32 (5, 4), not float64 (5, 4)"),
        (lambda value: None, "weights['fc'] must be float32 (5, 4), not missing"),
    ],
)
def test_weights_of_another_size_or_format_are_refused(change, message):
    trace = Trace(name="net", inputs=("x",), layers=(FC, loss("fc", 5)))
    program = program_for(trace, "dense", "2:4", preset("test"), BATCH)
    weights = random_weights(np.random.default_rng(0), trace)
    with pytest.raises(ConfigError) as caught:
        initial_tensors(program, {**weights, "fc": change(weights["fc"])})
    assert str(caught.value) == message


def test_a_token_that_is_left_out_shows():
    """Without its tokens a load can read a tensor that is not there yet: the random order finds it."""
    weights, data = start(CNN)
    program = program_for(CNN, "dense", "2:4", preset("test"), BATCH)
    table = program.instructions.copy()
    table["signals"][table["opcode"] == Engine.VECTOR] &= ~np.uint8(1 << Engine.LOAD)
    table["waits"][table["opcode"] == Engine.LOAD] &= ~np.uint8(1 << Engine.VECTOR)
    with pytest.raises(ScheduleError, match="must be given or written before it is read, not missing"):
        interpret(Program(program.tables, table), given(program, CNN, weights, data), rule=RULE, seed=0)


def test_a_step_of_one_sample():
    weights, (inputs, labels) = start(VIT)
    data = inputs[:1], labels[:1]
    expected = GoldenStep(VIT, weights, data, "bdwp", "2:4", RULE)
    assert differing(step_tensors(VIT, weights, data, "bdwp", "2:4", preset("test"), seed=1), expected.tensors) == []


def test_one_gradient_that_comes_back_by_two_ways_counts_twice():
    """Both sums hand on the gradient of the second one."""
    layers = (
        linear("in", "x", 5, 5, 6),
        vector("relu", "relu", ("in",), 30),
        vector("sum1", "add", ("in", "relu"), 60, 30),
        vector("sum2", "add", ("sum1", "in"), 60, 30),
        vector("mean", "reduction", ("sum2",), 30, 5, window=6, function="mean", shape=(6, 5), axes=(1,)),
        linear("head", "mean", 5, 5),
        loss("head", 5),
    )
    trace = Trace(name=VIT.name, inputs=("x",), layers=layers)
    weights, data = start(trace)
    expected = GoldenStep(trace, weights, data, "dense", "2:4", RULE)
    program = program_for(trace, "dense", "2:4", preset("test"), BATCH)
    (kernel,) = (kernel for kernel in program.tables.kernels if kernel.op == "gradient sum")
    assert len(kernel.reads) == 3
    assert len(set(kernel.reads)) == 2
    assert differing(step_tensors(trace, weights, data, "dense", "2:4", preset("test"), seed=3), expected.tensors) == []


def test_a_program_from_its_file_and_from_its_text_does_the_same():
    weights, data = start(CNN)
    program = program_for(CNN, "bdwp", "2:4", preset("test"), BATCH)
    tensors = given(program, CNN, weights, data)
    expected = interpret(program, tensors, rule=RULE)
    for copy in (from_bytes(to_bytes(program), "file"), from_text(to_text(program), "text")):
        found = interpret(copy, tensors, rule=RULE)
        assert [name for name in expected if not same(expected[name], found[name])] == []


def test_depthwise_and_grouped_convolutions_step_like_golden_functions():
    layers = (
        conv("in", "x", 3, 8, (8, 8)),
        conv("deep", "in", 8, 8, (8, 8), groups=8, stride=2),
        conv("mix", "deep", 8, 12, (4, 4), groups=2, dilation=(2, 1), padding=(2, 1), bias=True),
        vector("silu", "relu", ("mix",), 192, image=(4, 4, 12)),
        linear("head", "silu", 192, 5),
        loss("head", 5),
    )
    trace = Trace(name=CNN.name, inputs=("x",), layers=layers)
    weights, data = start(trace)
    for method in ("dense", "bdwp"):
        expected = GoldenStep(trace, weights, data, method, "2:4", RULE)
        found = step_tensors(trace, weights, data, method, "2:4", preset("test"), seed=2)
        del expected.tensors["dw deep"], expected.tensors["dw mix"]  # stored group by group; the new weights compare them
        assert differing(found, expected.tensors) == []
