import re
from collections import Counter
from itertools import product

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from naive_macs import attention_macs, conv_macs, linear_macs, product_macs
from pydantic import ValidationError

from accel.dataflow.context import Options
from accel.dataflow.lowering import lower
from accel.errors import ConfigError, ScheduleError
from accel.gemm import Stage
from accel.methods import METHODS, OPTIMIZERS
from accel.schedule import VectorWork
from accel.sparsity import DENSE, NMPattern
from accel.trace import Attention, Conv, Free, Linear, Matmul, Trace, Vector

PATTERNS = [NMPattern(1, 2), NMPattern(2, 4), NMPattern(1, 4), NMPattern(3, 4), NMPattern(2, 8)]
HALF = NMPattern(2, 4)


def options(batch=2, method="bdwp", pattern=HALF, word_elems=4, optimizer="sgd", **changes):
    return Options(batch, METHODS[method], pattern, OPTIMIZERS[optimizer], word_elems, **changes)


def net(*layers, inputs=("x",)):
    return Trace(name="net", inputs=inputs, layers=layers)


def linear(name, source, in_features=8, out_features=8, **changes):
    return Linear(name=name, inputs=(source,), in_features=in_features, out_features=out_features, **changes)


def conv(name, source, in_channels=4, out_channels=4, size=(4, 4), kernel=(3, 3), **changes):
    dims = len(size)
    fields = {"stride": (1,) * dims, "padding": (1,) * dims, "dilation": (1,) * dims} | changes
    return Conv(
        name=name,
        inputs=(source,),
        in_channels=in_channels,
        out_channels=out_channels,
        in_size=size,
        kernel=kernel,
        **fields,
    )


def vector(op, name, *sources, in_elems=64, out_elems=64, **changes):
    return Vector(op=op, name=name, inputs=sources, in_elems=in_elems, out_elems=out_elems, **changes)


STEM = linear("stem", "x", 1, 1)
"""A first weight layer: dense by default, and the layers after it have an input gradient."""


def gemms_of(step, layer, stage):
    return [gemm for gemm in step.gemms if gemm.layer == layer and gemm.stage == stage]


def counted(step, layer, stage):
    gemms = gemms_of(step, layer, stage)
    return tuple(sum(getattr(gemm, field) for gemm in gemms) for field in ("macs_nominal", "macs_dense", "macs_useful"))


def pruned_stages(method, pattern):
    """Return the pattern of each stage's reduction."""
    pruned = METHODS[method]
    return {
        stage: pattern if operand else DENSE for stage, operand in (("FF", pruned.ff), ("BP", pruned.bp), ("WU", pruned.wu))
    }


@st.composite
def convs(draw, transposed):
    dims = draw(st.integers(1, 3))
    groups = draw(st.sampled_from([1, 1, 2, 3]))
    depthwise = draw(st.booleans())
    channels_in, channels_out = (1, draw(st.integers(1, 2))) if depthwise else draw(st.tuples(*[st.integers(1, 7)] * 2))

    def sizes(low, high):
        return draw(st.tuples(*[st.integers(low, high)] * dims))

    stride = sizes(1, 3)
    fields = {"output_padding": tuple(draw(st.integers(0, step - 1)) for step in stride)} if transposed else {}
    try:
        return conv(
            "layer",
            "stem",
            groups * channels_in,
            groups * channels_out,
            size=sizes(1, 6 if dims < 3 else 3),
            kernel=sizes(1, 3),
            stride=stride,
            padding=sizes(0, 2),
            dilation=sizes(1, 2),
            groups=groups,
            transposed=transposed,
            **fields,
        )
    except ValidationError:
        assume(False)


def check_conv(layer, batch, method, pattern):
    step = lower(net(STEM, layer), options(batch, method, pattern))
    for stage, stage_pattern in pruned_stages(method, pattern).items():
        nominal, dense, useful = counted(step, "layer", stage)
        expected = conv_macs(layer, batch, stage, stage_pattern)
        assert (dense, useful) == (expected.dense, expected.useful), stage
        # A stage whose every class is out of the taps' reach has no product, and so nothing to charge.
        assert nominal == (expected.nominal if dense else 0), stage


@settings(deadline=None)
@given(convs(transposed=False), st.integers(1, 2), st.sampled_from(list(METHODS)), st.sampled_from(PATTERNS))
def test_macs_of_a_convolution_equal_a_count(layer, batch, method, pattern):
    check_conv(layer, batch, method, pattern)


@settings(deadline=None)
@given(convs(transposed=True), st.integers(1, 2), st.sampled_from(list(METHODS)), st.sampled_from(PATTERNS))
def test_macs_of_a_transposed_convolution_equal_a_count(layer, batch, method, pattern):
    check_conv(layer, batch, method, pattern)


@settings(deadline=None)
@given(st.tuples(*[st.integers(1, 11)] * 3), st.integers(1, 3), st.sampled_from(list(METHODS)), st.sampled_from(PATTERNS))
def test_macs_of_a_linear_layer_equal_a_count(sizes, batch, method, pattern):
    layer = linear("layer", "stem", sizes[0], sizes[1], rows=sizes[2])
    step = lower(net(STEM, layer), options(batch, method, pattern))
    for stage, stage_pattern in pruned_stages(method, pattern).items():
        assert counted(step, "layer", stage) == linear_macs(layer, batch, stage, stage_pattern), stage


@settings(deadline=None)
@given(st.tuples(*[st.integers(1, 6)] * 4), st.integers(1, 3), st.sampled_from([("x", "stem"), ("stem", "x"), ("stem",)]))
def test_macs_of_a_product_of_two_tensors_equal_a_count(sizes, batch, sources):
    dim_m, dim_n, dim_k, count = sizes
    layer = Matmul(name="layer", inputs=sources, m=dim_m, n=dim_n, k=dim_k, count=count)
    step = lower(net(STEM, layer), options(batch))
    one = product_macs(dim_m * batch * count, dim_n, dim_k, DENSE)
    assert counted(step, "layer", "FF") == one
    grads = 2 if sources == ("stem",) else 1
    assert counted(step, "layer", "BP") == tuple(grads * macs for macs in one)
    assert counted(step, "layer", "WU") == (0, 0, 0)


def test_only_the_operand_that_needs_a_gradient_gets_one():
    for sources, part, shape in ((("stem", "x"), "lhs", (3, 7, 5)), (("x", "stem"), "rhs", (7, 5, 3))):
        layer = Matmul(name="layer", inputs=sources, m=3, n=5, k=7)
        (gemm,) = gemms_of(lower(net(STEM, layer), options()), "layer", "BP")
        assert (gemm.part, (gemm.shape.m, gemm.shape.n, gemm.shape.k)) == (part, shape)


@settings(deadline=None)
@given(st.tuples(*[st.integers(1, 5)] * 4), st.integers(1, 3), st.integers(1, 2), st.booleans())
def test_macs_of_attention_equal_a_count(sizes, sharing, batch, causal):
    kv_heads, q_len, kv_len, head_dim = sizes
    layer = Attention(
        name="layer",
        inputs=("stem",) * 3,
        heads=kv_heads * sharing,
        kv_heads=kv_heads,
        q_len=q_len,
        kv_len=kv_len,
        head_dim=head_dim,
        causal=causal,
    )
    step = lower(net(STEM, layer), options(batch))
    for stage in ("FF", "BP"):
        assert counted(step, "layer", stage) == (attention_macs(layer, batch, stage),) * 3
    assert counted(step, "layer", "WU") == (0, 0, 0)


def test_heads_that_share_a_key_are_rows_of_one_product():
    layer = Attention(name="layer", inputs=("stem",) * 3, heads=6, kv_heads=2, q_len=5, kv_len=7, head_dim=4)
    step = lower(net(STEM, layer), options(batch=3))
    shapes = {gemm.part: gemm.shape for gemm in step.gemms if gemm.layer == "layer"}
    assert {part: (shape.m, shape.n, shape.k, shape.count) for part, shape in shapes.items()} == {
        "scores": (15, 7, 4, 6),
        "context": (15, 4, 7, 6),
        "probabilities": (15, 7, 4, 6),
        "value": (7, 4, 15, 6),
        "query": (15, 4, 7, 6),
        "key": (7, 4, 15, 6),
    }


def test_a_strided_input_gradient_is_one_product_for_each_residue_class():
    layer = conv("layer", "stem", 4, 8, size=(5, 4), stride=(2, 2))
    gemms = gemms_of(lower(net(STEM, layer), options(batch=3)), "layer", "BP")
    found = {gemm.part: (gemm.shape.m, gemm.shape.n, gemm.shape.k_taps, gemm.shape.k_inner) for gemm in gemms}
    # Rows 0, 2, 4 and columns 0, 2 meet the middle tap only, the others the two outer ones.
    assert found == {
        "phase 0,0": (3 * 3 * 2, 4, 1, 8),
        "phase 0,1": (3 * 3 * 2, 4, 2, 8),
        "phase 1,0": (3 * 2 * 2, 4, 2, 8),
        "phase 1,1": (3 * 2 * 2, 4, 4, 8),
    }


def test_the_vector_unit_writes_the_zeros_of_classes_without_taps():
    layer = conv("layer", "stem", 6, 4, size=(5, 5), kernel=(1, 1), stride=(2, 2), padding=(0, 0))
    step = lower(net(STEM, layer), options(batch=2))
    (gemm,) = gemms_of(step, "layer", "BP")
    assert (gemm.part, gemm.shape.m) == ("phase 0,0", 2 * 9)
    zeros = [work for segment in step.segments for work in segment.vectors if work.kind.startswith("zeros")]
    # 6 channels are stored in 2 words of 4.
    assert zeros == [
        VectorWork("layer", Stage.INPUT_GRAD, "zeros, phase 0,1", 0, 2 * 2 * 8 * 3 * 2),
        VectorWork("layer", Stage.INPUT_GRAD, "zeros, phase 1,0", 0, 2 * 2 * 8 * 2 * 3),
        VectorWork("layer", Stage.INPUT_GRAD, "zeros, phase 1,1", 0, 2 * 2 * 8 * 2 * 2),
    ]
    (segment,) = [segment for segment in step.segments if zeros[0] in segment.vectors]
    assert segment.gemms == (gemm,)


@pytest.mark.parametrize(
    ("method", "left"),
    [
        ("dense", lambda rho: 1),
        ("bdwp", lambda rho: (2 * rho + 1) / 3),
        ("sr-ste", lambda rho: (rho + 2) / 3),
        ("sdgp", lambda rho: (rho + 2) / 3),
        ("bp-only", lambda rho: (rho + 2) / 3),
        ("fully-sparse", lambda rho: rho),
    ],
)
@pytest.mark.parametrize("pattern", [NMPattern(2, 8), NMPattern(2, 4), NMPattern(1, 4)])
def test_work_left_by_each_method_follows_its_formula(method, left, pattern):
    layers = [conv("layer", "stem", 16, 24, stride=(2, 2)), linear("layer", "stem", 16, 24)]
    for layer in layers:
        step = lower(net(STEM, layer), options(8, method, pattern, word_elems=8))
        gemms = [gemm for gemm in step.gemms if gemm.layer == "layer"]
        # Frameworks' counts: with the classes of a stride, BP does as many multiply-adds as run only on the average.
        saved = sum(gemm.macs_nominal * gemm.pattern.keep / gemm.pattern.group for gemm in gemms)
        assert saved / sum(gemm.macs_nominal for gemm in gemms) == pytest.approx(left(pattern.keep / pattern.group), abs=1e-12)
        for gemm in gemms:
            assert gemm.macs_useful == gemm.macs_dense * gemm.pattern.keep / gemm.pattern.group


@pytest.mark.parametrize("method", METHODS)
def test_each_method_prunes_the_operand_it_says(method):
    step = lower(net(STEM, linear("layer", "stem")), options(8, method))
    found = {}
    for stage in ("FF", "BP", "WU"):
        (gemm,) = gemms_of(step, "layer", stage)
        found[stage] = "".join(
            side.name + "!" * side.prune_online for side in (gemm.lhs, gemm.rhs) if not side.pattern.is_dense
        )
    assert (
        found
        == {
            "dense": {"FF": "", "BP": "", "WU": ""},
            "bdwp": {"FF": "W", "BP": "W", "WU": ""},
            "sr-ste": {"FF": "W", "BP": "", "WU": ""},
            "sdgp": {"FF": "", "BP": "dY!", "WU": ""},
            "bp-only": {"FF": "", "BP": "W", "WU": ""},
            "fully-sparse": {"FF": "W", "BP": "W", "WU": "dY!"},
        }[method]
    )


def test_without_compact_copies_weights_are_pruned_on_their_way_in():
    step = lower(net(STEM, linear("layer", "stem")), options(pregenerate=False))
    assert [gemm.rhs.prune_online for gemm in step.gemms if gemm.layer == "layer"] == [True, True, False]


def pruned_names(trace, **changes):
    step = lower(trace, options(**changes))
    return {gemm.layer for gemm in step.gemms if not gemm.pattern.is_dense}


THREE = net(linear("block.0.fc", "x"), linear("block.1.fc", "block.0.fc"), linear("head", "block.1.fc"))


def test_the_first_weight_layer_stays_dense_unless_told_otherwise():
    assert pruned_names(THREE) == {"block.1.fc", "head"}
    assert pruned_names(net(vector("relu", "relu", "x"), linear("a", "relu"), linear("b", "a"))) == {"b"}


@pytest.mark.parametrize(
    ("globs", "pruned"),
    [
        ((), {"block.0.fc", "block.1.fc", "head"}),
        (("head",), {"block.0.fc", "block.1.fc"}),
        (("block.*",), {"head"}),
        (("block.0.*", "head"), {"block.1.fc"}),
        (("*",), set()),
    ],
)
def test_layers_named_dense_stay_dense(globs, pruned):
    assert pruned_names(THREE, dense_layers=globs) == pruned


@pytest.mark.parametrize("glob", ["tail", "HEAD", "relu"])
def test_a_name_pattern_that_matches_no_weight_layer_is_refused(glob):
    trace = net(linear("head", "x"), vector("relu", "relu", "head"))
    with pytest.raises(ConfigError, match=f"^dense_layers must match a weight layer of net, not {glob!r}$"):
        lower(trace, options(dense_layers=("head", glob)))


def test_a_pattern_that_prunes_nothing_counts_as_dense():
    # 2:4 along 2 input features keeps both; along 8 output features it keeps 4.
    step = lower(net(STEM, linear("layer", "stem", 2, 8)), options())
    assert [str(gemm.pattern) for gemm in step.gemms if gemm.layer == "layer"] == ["dense", "2:4", "dense"]


def stages_of(step, layer):
    return [str(gemm.stage) for gemm in step.gemms if gemm.layer == layer]


def test_the_first_layer_has_no_input_gradient():
    step = lower(THREE, options())
    assert stages_of(step, "block.0.fc") == ["FF", "WU"]
    assert stages_of(step, "head") == ["FF", "BP", "WU"]


def test_a_frozen_layer_has_no_weight_gradient_and_no_update():
    trace = net(linear("a", "x"), linear("b", "a", trainable=False), linear("c", "b"))
    step = lower(trace, options())
    assert stages_of(step, "b") == ["FF", "BP"]
    assert [(update.layer, update.elems) for update in step.updates] == [("a", 64), ("b", 0), ("c", 64)]
    assert step.updates[1].dram_bytes == step.updates[1].sore_groups == step.updates[1].master_bytes == 0


def test_layers_above_nothing_trainable_have_no_backward():
    trace = net(
        linear("a", "x", trainable=False),
        vector("gelu", "act", "a"),
        linear("b", "act"),
        vector("gelu", "more", "b"),
        linear("c", "more"),
    )
    step = lower(trace, options())
    assert stages_of(step, "a") == ["FF"]
    assert stages_of(step, "b") == ["FF", "WU"]
    assert stages_of(step, "c") == ["FF", "BP", "WU"]
    assert [work.layer for work in vector_works(step, "BP")] == ["more"]


def test_a_shared_weight_is_updated_once():
    trace = net(linear("a", "x", weight="tied"), linear("b", "a"), linear("c", "b", weight="tied"))
    step = lower(trace, options())
    assert [(update.layer, update.elems) for update in step.updates] == [("a", 64), ("b", 64)]
    assert [stages_of(step, name) for name in "ac"] == [["FF", "WU"], ["FF", "BP", "WU"]]


def test_a_shared_weight_has_the_copies_of_all_its_users():
    table = vector("embedding", "table", "x", in_elems=3, out_elems=24, params=64, weight="tied")
    trace = net(table, linear("body", "table", rows=3), linear("head", "body", rows=3, weight="tied"))
    tied = lower(trace, options()).updates[0]
    # The table reads the dense weights, the head two compact copies: 16 groups of 2 values of 16 bits with an index of 2.
    assert tied.sore_groups == 2 * 16
    assert tied.copy_bytes == 2 * 64 + 2 * 16 * 2 * 18 // 8


def rendered(step):
    """Return the step as lines: products of a segment, then what runs beside them."""
    return [
        ", ".join(f"{gemm.layer} {gemm.stage}{gemm.part and ' ' + gemm.part}" for gemm in segment.gemms)
        + " | "
        + ", ".join(f"{work.layer} {work.stage} {work.kind}" for work in segment.vectors)
        for segment in step.segments
    ]


def test_a_weight_gradient_runs_beside_the_vector_work_that_follows():
    trace = net(
        conv("conv1", "x"),
        vector("batch_norm", "bn1", "conv1", params=8),
        vector("relu", "relu1", "bn1"),
        conv("conv2", "relu1"),
        vector("relu", "relu2", "conv2"),
        linear("fc", "relu2", bias=True),
        vector("cross_entropy", "loss", "fc", in_elems=8, out_elems=1, window=8),
    )
    assert rendered(lower(trace, options())) == [
        "conv1 FF | bn1 FF statistics",
        " | bn1 FF batch_norm",
        " | relu1 FF relu",
        "conv2 FF | ",
        " | relu2 FF relu",
        "fc FF | fc FF bias",
        " | loss FF cross_entropy",
        " | loss BP cross_entropy",
        "fc BP | ",
        "fc WU | fc WU bias, relu2 BP relu",
        "conv2 BP | ",
        "conv2 WU | relu1 BP relu, bn1 BP batch_norm",
        "conv1 WU | ",
    ]


def test_attention_backward_runs_in_the_order_of_its_needs():
    layer = Attention(name="att", inputs=("qkv",) * 3, heads=2, q_len=3, kv_len=3, head_dim=4)
    step = lower(net(linear("qkv", "x"), layer, linear("out", "att")), options())
    assert rendered(step)[1:] == [
        "att FF scores | ",
        " | att FF softmax",
        "att FF context | ",
        "out FF | ",
        "out BP | ",
        "out WU | ",
        "att BP probabilities | ",
        "att BP value | att BP softmax",
        "att BP query, att BP key | ",
        "qkv WU | ",
    ]
    forward, backward = [work for segment in step.segments for work in segment.vectors if work.kind == "softmax"]
    scores = 2 * 2 * 3 * 3  # batch, heads, queries, keys
    assert (forward.lane_ops, forward.dram_bytes) == (9 * scores, 2 * 2 * scores)
    assert (backward.lane_ops, backward.dram_bytes) == (3 * scores, 3 * 2 * scores)


def gradient_sums(step):
    return [work for segment in step.segments for work in segment.vectors if work.kind == "gradient sum"]


def test_gradients_of_several_readers_are_summed():
    readers = [linear(name, "a") for name in "bcd"]
    joined = vector("add", "sum", "b", "c", "d", in_elems=24, out_elems=8)
    step = lower(net(linear("a", "x"), *readers, joined), options(batch=3))
    # Three gradients, two additions of 3 * 8 elements: two read, one written each time.
    assert gradient_sums(step) == [VectorWork("a", Stage.INPUT_GRAD, "gradient sum", 48, 3 * 2 * 48)]


def test_a_residual_sums_one_pair_of_gradients_at_its_fork():
    trace = net(linear("a", "x"), linear("b", "a"), vector("add", "sum", "b", "a", in_elems=16, out_elems=8))
    assert gradient_sums(lower(trace, options())) == [VectorWork("a", Stage.INPUT_GRAD, "gradient sum", 16, 96)]


def test_no_gradients_are_summed_where_none_is_needed():
    trace = net(linear("a", "x", trainable=False), linear("b", "a"), linear("c", "a"))
    assert gradient_sums(lower(trace, options())) == []


def vector_works(step, stage):
    return [work for segment in step.segments for work in segment.vectors if work.stage == stage]


def vector_bytes(step, stage):
    found = Counter()
    for work in vector_works(step, stage):
        found[work.layer] += work.dram_bytes
    return found


def test_an_activation_rides_on_the_norm_before_it():
    trace = net(
        conv("conv", "x"),
        vector("batch_norm", "bn", "conv", params=8),
        vector("relu", "relu", "bn"),
        linear("fc", "relu"),
    )
    step = lower(trace, options(batch=3))
    elems = 3 * 64  # 2 bytes each, 1 bit in a mask
    forward, backward = vector_bytes(step, "FF"), vector_bytes(step, "BP")
    # Forward together: the input read once (its sums were taken as it was written), one output and the mask written.
    assert forward["bn"] + forward["relu"] == 2 * elems + 2 * elems + elems // 8
    # Backward together: gradient, input and mask read twice, one gradient written; gradients of 8 parameters in FP32.
    assert backward["bn"] + backward["relu"] == 2 * (2 + 2) * elems + 2 * elems // 8 + 2 * elems + 4 * 8


def test_an_operator_does_not_ride_where_its_source_has_another_reader():
    norm = vector("batch_norm", "bn", "conv", params=8)
    trace = net(conv("conv", "x"), norm, vector("relu", "relu", "bn"), vector("add", "sum", "relu", "bn", in_elems=128))
    elems = 2 * 64
    assert vector_bytes(lower(trace, options()), "FF")["relu"] == 2 * 2 * elems + elems // 8


def test_a_norm_does_not_ride():
    trace = net(conv("conv", "x"), vector("relu", "relu", "conv"), vector("batch_norm", "bn", "relu", params=8))
    elems = 2 * 64
    assert vector_bytes(lower(trace, options()), "FF")["bn"] == 3 * 2 * elems


def test_a_residual_rides_on_the_norm_of_its_branch():
    trace = net(
        conv("conv", "x"),
        conv("branch", "conv"),
        vector("batch_norm", "bn", "branch", params=8),
        vector("add", "sum", "bn", "conv", in_elems=128),
    )
    elems = 2 * 64
    forward = vector_bytes(lower(trace, options()), "FF")
    # The norm's input once (its sums were taken as it was written), the other branch once, one output.
    assert forward["bn"] + forward["sum"] == (1 + 1 + 1) * 2 * elems


def test_sums_of_a_norm_are_taken_as_its_input_drains():
    norm = vector("batch_norm", "bn", "conv", params=8)
    alone = lower(net(conv("conv", "x"), norm), options())
    shared = lower(net(conv("conv", "x"), norm, linear("fc", "conv")), options())
    elems = 2 * 64
    assert vector_works(alone, "FF") == [
        VectorWork("bn", Stage.FORWARD, "statistics", 2 * elems, 0),
        VectorWork("bn", Stage.FORWARD, "batch_norm", elems, 2 * 2 * elems),
    ]
    assert alone.segments[0].gemms[0].layer == "conv"
    assert alone.segments[0].vectors == (vector_works(alone, "FF")[0],)
    assert vector_works(shared, "FF") == [VectorWork("bn", Stage.FORWARD, "batch_norm", 3 * elems, 3 * 2 * elems)]


def test_a_product_rides_on_its_first_factor_alone():
    trace = net(
        linear("fc", "x", 8, 64),
        linear("gate", "fc", 64, 64),
        vector("silu", "silu", "gate"),
        vector("mul", "mul", "silu", "fc", in_elems=128),
    )
    elems = 2 * 64
    backward = vector_bytes(lower(trace, options()), "BP")
    # Read: the gradient, both factors, the input of silu. Written: the gradients of the second factor and of silu's input.
    assert backward["mul"] + backward["silu"] == (1 + 2 + 1 + 1 + 1) * 2 * elems


def test_bias_takes_lane_operations_and_no_traffic():
    step = lower(net(STEM, linear("layer", "stem", 4, 6, rows=5, bias=True)), options(batch=2))
    works = [work for segment in step.segments for work in segment.vectors]
    assert works == [
        VectorWork("layer", Stage.FORWARD, "bias", 60, 0),
        VectorWork("layer", Stage.WEIGHT_GRAD, "bias", 60, 0),
    ]


def test_an_embedding_adds_every_row_of_its_gradient():
    trace = net(vector("embedding", "table", "x", in_elems=3, out_elems=12, params=40), linear("fc", "table", 4, 4, rows=3))
    step = lower(trace, options(batch=2))
    assert vector_bytes(step, "FF")["table"] == 2 * 2 * (3 + 12)
    # Gradient read; each of 3 rows of the FP32 gradient read and written; the FP32 gradient of the table.
    assert vector_bytes(step, "BP")["table"] == 2 * (2 * 12 + 2 * 4 * 12) + 4 * 40
    assert [(update.layer, update.elems) for update in step.updates] == [("table", 40), ("fc", 16)]


def test_allowed_unknown_operators_are_named_and_cost_nothing():
    trace = net(linear("a", "x"), Free(name="f", inputs=("a",), kind="sort"), linear("b", "f"))
    step = lower(trace, options())
    assert step.free_layers == ("f (sort)",)
    assert [line for line in rendered(step) if " f " in line] == []
    assert stages_of(step, "b") == ["FF", "BP", "WU"]


@pytest.mark.parametrize(("optimizer", "words", "passes"), [("sgd-plain", 3, 1), ("sgd", 5, 1), ("adam", 7, 4)])
def test_an_update_reads_and_writes_the_optimizers_state(optimizer, words, passes):
    step = lower(net(linear("a", "x"), linear("b", "a", bias=True)), options(optimizer=optimizer, method="dense"))
    update = step.updates[1]
    assert (update.elems, update.passes, update.sore_groups) == (72, passes, 0)
    assert update.copy_bytes == 2 * 72
    assert update.dram_bytes == 4 * words * 72 + 2 * 72
    assert update.master_bytes == 4 * (words + 1) // 2 * 72  # weights and gradient are read, only weights are written


def test_the_update_writes_both_compact_copies():
    step = lower(net(linear("a", "x"), linear("b", "a", 8, 12)), options(pattern=NMPattern(2, 4)))
    dense, pruned = step.updates
    assert dense.copy_bytes == 2 * 64
    # FF order: 12 runs of 2 groups; BP order: 8 runs of 3 groups; each keeps 2 values of 16 bits with an index of 2.
    assert pruned.copy_bytes == (24 + 24) * 2 * 18 // 8
    assert pruned.sore_groups == 48


def test_methods_that_prune_one_stage_keep_a_dense_copy_too():
    for method in ("sr-ste", "bp-only"):
        update = lower(net(linear("a", "x"), linear("b", "a")), options(method=method)).updates[1]
        assert update.copy_bytes == 2 * 64 + 16 * 2 * 18 // 8
        assert update.sore_groups == 16


def test_without_pregeneration_only_dense_weights_are_written():
    update = lower(net(linear("a", "x"), linear("b", "a")), options(pregenerate=False)).updates[1]
    assert (update.copy_bytes, update.sore_groups) == (2 * 64, 0)


def test_footprint_counts_each_saved_tensor_once():
    trace = net(
        conv("conv1", "x", 2, 4, size=(4, 4)),  # saves x: 32 elements
        vector("batch_norm", "bn", "conv1", params=8),  # saves conv1: 64 elements
        vector("relu", "relu", "bn"),  # saves a mask: 64 bits
        conv("conv2", "relu", 4, 4, size=(4, 4)),  # saves relu: 64 elements
        conv("conv3", "relu", 4, 4, size=(4, 4)),  # relu again
        vector("add", "sum", "conv2", "conv3", in_elems=128),  # saves nothing
        vector("max_pool", "pool", "sum", out_elems=16, window=4),  # saves an index: 16 bytes
        linear("fc", "pool", 16, 8, bias=True),  # saves pool: 16 elements
        vector("cross_entropy", "loss", "fc", in_elems=8, out_elems=1, window=8),  # saves fc: 8 elements
    )
    footprint = lower(trace, options(batch=3, method="dense")).footprint
    assert footprint.activation_bytes == 3 * (2 * (32 + 64 + 64 + 16 + 8) + 64 // 8 + 16)
    params = 72 + 8 + 144 + 144 + 136
    assert footprint.master_bytes == 3 * 4 * params  # weights, gradients, momentum
    assert footprint.copy_bytes == 2 * params
    assert footprint.gradient_bytes == 3 * 2 * (64 + 64 + 64)  # the sum's gradient and those of its two inputs
    assert footprint.total_bytes == sum(
        (footprint.activation_bytes, footprint.master_bytes, footprint.copy_bytes, footprint.gradient_bytes)
    )


def test_frozen_layers_save_nothing_and_have_no_masters():
    trace = net(linear("a", "x", trainable=False), linear("b", "a"), linear("c", "b", trainable=False))
    footprint = lower(trace, options(batch=1, method="dense")).footprint
    assert footprint.activation_bytes == 2 * 8  # the input of b; the frozen ones need none for their input gradient
    assert footprint.master_bytes == 3 * 4 * 64
    assert footprint.copy_bytes == 3 * 2 * 64


def test_attention_saves_probabilities():
    layer = Attention(name="att", inputs=("q", "k", "v"), heads=2, q_len=3, kv_len=5, head_dim=4)
    trace = net(*(linear(name, "x") for name in "qkv"), layer)
    footprint = lower(trace, options(batch=1, method="dense")).footprint
    assert footprint.activation_bytes == 2 * (8 + 3 * 8 + 2 * 3 * 5)  # x, three outputs of 8 elements, probabilities


@pytest.mark.parametrize("batch", [0, -1, 2**24 + 1])
def test_a_batch_that_cannot_be_is_refused(batch):
    with pytest.raises(ConfigError, match=f"^batch must be between 1 and 16777216, not {batch}$"):
        lower(THREE, options(batch=batch))


def test_a_product_too_large_for_64_bits_is_refused():
    trace = net(linear("huge", "x", 2**20, 2**20, rows=2**4))
    message = "layer huge: FF must have less than 2**52 multiply-accumulates, not 18014398509481984; lower the batch"
    with pytest.raises(ScheduleError, match=f"^{re.escape(message)}$"):
        lower(trace, options(batch=2**10))
    lower(trace, options(batch=2**7))  # 2**51


def test_operands_say_how_they_lie_in_memory():
    # 6 channels take 8 elements; a 3x3 kernel with stride 1 adds one pixel for each further row and needs two lines besides.
    layer = conv("layer", "stem", 6, 10, size=(5, 7))
    step = lower(net(STEM, layer), options(batch=2))
    (forward,) = gemms_of(step, "layer", "FF")
    assert (forward.lhs.row_elems, forward.lhs.distinct, forward.lhs.halo_elems) == (8, 2 * 35, 8 * 2 * 7)
    assert (forward.rhs.row_elems, forward.rhs.distinct, forward.rhs.halo_elems) == (9 * 8, 10, 0)
    assert forward.out_elems == 2 * 35 * 12
    (gradient,) = gemms_of(step, "layer", "WU")
    assert (gradient.shape.m, gradient.lhs.distinct) == (54, 6)  # nine taps read the same six channels
    assert (gradient.out_bits, gradient.out_elems) == (32, 54 * 10)


def test_every_layer_kind_is_lowered_in_every_stage():
    layers = [
        STEM,
        conv("conv", "stem"),
        conv("up", "conv", transposed=True, stride=(2, 2), output_padding=(1, 1)),
        linear("fc", "up"),
        Matmul(name="mm", inputs=("fc",), m=2, n=2, k=2),
        Attention(name="att", inputs=("mm",) * 3, heads=1, q_len=2, kv_len=2, head_dim=2),
    ]
    step = lower(net(*layers), options())
    found = {(gemm.layer, str(gemm.stage)) for gemm in step.gemms}
    weights = set(product(["conv", "up", "fc"], ["FF", "BP", "WU"]))
    assert found == weights | set(product(["mm", "att"], ["FF", "BP"])) | {("stem", "FF"), ("stem", "WU")}


def test_only_inputs_that_need_a_gradient_get_one():
    moved = {}
    for first, second in (("r", "a"), ("a", "r")):
        layers = [vector("relu", "r", "x"), linear("a", "x"), vector("mul", "both", first, second, in_elems=128)]
        moved[first] = vector_bytes(lower(net(*layers), options()), "BP")["both"]
    assert moved["r"] == moved["a"]


def test_a_frozen_norm_writes_no_gradient_of_its_parameters():
    trained, frozen = (
        vector_bytes(
            lower(net(linear("fc", "x"), vector("batch_norm", "bn", "fc", params=8, trainable=flag)), options()), "BP"
        )["bn"]
        for flag in (True, False)
    )
    assert trained - frozen == 4 * 8
