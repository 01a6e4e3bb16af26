import re

import pytest

from accel.errors import TraceError
from accel.models.builder import TraceBuilder
from accel.trace import Attention, Conv, Linear, Vector


def test_shapes_follow_the_layers():
    net = TraceBuilder("net", {"x": (3, 32, 16)})
    net.conv("conv", 8, 3, stride=2, padding=1)
    assert net.shape() == (8, 16, 8)
    net.max_pool("pool", 3, stride=2, padding=1)
    assert net.shape() == (8, 8, 4)
    net.reshape(32, 8)
    net.linear("linear", 5)
    assert net.shape() == (32, 5)
    assert net.shape("conv") == (8, 16, 8)


def test_each_layer_reads_the_one_before_unless_told_otherwise():
    net = TraceBuilder("net", {"x": (3, 8, 8)})
    first = net.conv("first", 3, 1)
    net.conv("second", 4, 1)
    net.conv("third", 4, 1, source=first)
    assert [layer.inputs for layer in net.build().layers] == [("x",), ("first",), ("first",)]


def test_a_name_used_again_is_numbered():
    net = TraceBuilder("net", {"x": (4,)})
    assert [net.vector("relu", "relu") for _ in range(3)] == ["relu", "relu_1", "relu_2"]


def test_conv_fields():
    net = TraceBuilder("net", {"x": (4, 9, 9)})
    net.conv("conv", 8, 3, stride=2, padding=1, groups=4, bias=True)
    assert net.build().layers[0] == Conv(
        name="conv",
        inputs=("x",),
        in_channels=4,
        out_channels=8,
        in_size=(9, 9),
        kernel=(3, 3),
        stride=(2, 2),
        padding=(1, 1),
        dilation=(1, 1),
        groups=4,
        bias=True,
    )


def test_linear_has_one_row_for_a_vector_and_many_for_tokens():
    net = TraceBuilder("net", {"x": (7, 4), "y": (4,)})
    net.linear("many", 3, bias=False, weight="tied")
    net.linear("one", 3, source="y")
    assert net.build().layers == (
        Linear(name="many", inputs=("x",), in_features=4, out_features=3, rows=7, weight="tied"),
        Linear(name="one", inputs=("y",), in_features=4, out_features=3, bias=True),
    )


def test_attention_reads_query_key_and_value():
    net = TraceBuilder("net", {"q": (5, 12), "kv": (9, 12)})
    net.attention("attention", 3, 4, sources=("q", "kv", "kv"), causal=True)
    assert net.shape() == (5, 12)
    assert net.build().layers[0] == Attention(
        name="attention", inputs=("q", "kv", "kv"), heads=3, q_len=5, kv_len=9, head_dim=4, causal=True
    )


def test_norms_have_scale_and_shift_per_channel_or_feature():
    net = TraceBuilder("net", {"x": (6, 4, 4), "y": (5, 7)})
    net.batch_norm("bn")
    net.layer_norm("ln", source="y")
    assert net.build().layers == (
        Vector(op="batch_norm", name="bn", inputs=("x",), in_elems=96, out_elems=96, params=12),
        Vector(op="layer_norm", name="ln", inputs=("y",), in_elems=35, out_elems=35, params=14),
    )


def test_pools_look_at_their_window():
    net = TraceBuilder("net", {"x": (2, 8, 8)})
    net.max_pool("max", 2)
    net.global_avg_pool("mean")
    assert net.shape() == (2,)
    assert net.build().layers == (
        Vector(op="max_pool", name="max", inputs=("x",), in_elems=128, out_elems=32, window=4),
        Vector(op="avg_pool", name="mean", inputs=("max",), in_elems=32, out_elems=2, window=16),
    )


def test_add_reads_both_inputs():
    net = TraceBuilder("net", {"x": (4,)})
    net.add("sum", "x", net.vector("relu", "relu"))
    assert net.build().layers[1] == Vector(op="add", name="sum", inputs=("x", "relu"), in_elems=8, out_elems=4)


def test_embedding_has_a_table_row_for_each_index_and_position_rows_are_added():
    net = TraceBuilder("net", {"ids": (5,)})
    net.embedding("words", 100, 8, source="ids", weight="table")
    net.add_table("positions", table_rows=16)
    net.add_table("class", extra_rows=1)
    assert net.shape() == (6, 8)
    assert net.build().layers == (
        Vector(op="embedding", name="words", inputs=("ids",), in_elems=5, out_elems=40, params=800, weight="table"),
        Vector(op="add", name="positions", inputs=("words",), in_elems=40, out_elems=40, params=128),
        Vector(op="add", name="class", inputs=("positions",), in_elems=48, out_elems=48, params=56),
    )


def test_loss_looks_at_all_classes_of_a_row():
    net = TraceBuilder("net", {"x": (7, 10), "y": (10,)})
    net.cross_entropy()
    net.linear("linear", 3, source="y")
    net.cross_entropy()
    assert net.build().layers[0] == Vector(op="cross_entropy", name="loss", inputs=("x",), in_elems=70, out_elems=7, window=10)
    assert net.build().layers[2] == Vector(
        op="cross_entropy", name="loss_1", inputs=("linear",), in_elems=3, out_elems=1, window=3
    )


def test_flatten_and_select_row_add_no_layer():
    net = TraceBuilder("net", {"x": (5, 4)})
    net.select_row()
    assert net.shape() == (4,)
    net = TraceBuilder("net", {"x": (5, 4)})
    net.flatten()
    assert net.shape() == (20,)


def mismatched_add(net):
    net.add("sum", "x", net.conv("conv", 2, 1))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda net: net.reshape(5, 5), "net: shape must hold the 64 elements of 'x', not (5, 5)"),
        (lambda net: net.linear("fc", 3), "net: input of 'fc' must be rows of features, not (4, 4, 4); reshape it"),
        (lambda net: net.add_table("pos"), "net: shape of 'x' must have 2 dimensions, not (4, 4, 4); reshape it"),
        (
            lambda net: net.vector("relu", "relu", source="z"),
            "net: source must name an earlier layer or a network input, not 'z'",
        ),
        (mismatched_add, "net: inputs of 'sum' must have one shape, not (4, 4, 4) and (2, 4, 4)"),
        (
            lambda net: net.conv("conv", 6, 7, groups=4),
            "net, layer 'conv': groups must divide out_channels (6), not 4",
        ),
        (
            lambda net: net.linear("fc", 0, weight="", source="y"),
            "net, layer 'fc': weight must not be empty, not ''; out_features must be at least 1, not 0",
        ),
    ],
)
def test_what_does_not_fit_is_refused(build, message):
    with pytest.raises(TraceError, match=f"^{re.escape(message)}$"):
        build(TraceBuilder("net", {"x": (4, 4, 4), "y": (4,)}))


def test_a_network_without_layers_is_refused():
    with pytest.raises(ValueError, match="layers must have at least 1 entry, not 0"):
        TraceBuilder("net", {"x": (4,)}).build()
