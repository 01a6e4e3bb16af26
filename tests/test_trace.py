import json
import re
from pathlib import Path

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.errors import TraceError, UnsupportedOpError
from accel.trace import Attention, Conv, Free, Linear, Matmul, Trace, Vector
from accel.vector_ops import VECTOR_OPS

LINEAR = {"op": "linear", "name": "fc", "inputs": ["x"], "in_features": 4, "out_features": 2}
CONV = {
    "op": "conv",
    "name": "conv",
    "inputs": ["x"],
    "in_channels": 4,
    "out_channels": 6,
    "in_size": [5, 5],
    "kernel": [3, 3],
    "stride": [2, 2],
    "padding": [1, 1],
    "dilation": [1, 1],
}
ATTENTION = {"op": "attention", "name": "att", "inputs": ["x", "x", "x"], "heads": 6, "q_len": 5, "kv_len": 7, "head_dim": 8}


def trace_fields(*layers, **changes):
    return {"schema_version": 1, "name": "net", "inputs": ["x"], "layers": list(layers), **changes}


def refused(fields, problems, error_type=TraceError, **options):
    with pytest.raises(error_type, match=f"^{re.escape(f'net.json: {problems}')}$"):
        Trace.from_fields(fields, "net.json", **options)


@pytest.mark.parametrize(
    ("layer", "problem"),
    [
        ({**LINEAR, "in_features": -1}, "layers[0].in_features must be at least 1, not -1"),
        ({**LINEAR, "in_features": 0}, "layers[0].in_features must be at least 1, not 0"),
        ({**LINEAR, "in_features": 2.5}, "layers[0].in_features must be an integer, not 2.5"),
        ({**LINEAR, "in_features": "4"}, "layers[0].in_features must be an integer, not '4'"),
        ({**LINEAR, "in_features": 2**31 + 1}, "layers[0].in_features must be at most 2147483648, not 2147483649"),
        ({**LINEAR, "bias": 1}, "layers[0].bias must be true or false, not 1"),
        ({**LINEAR, "name": ""}, "layers[0].name must not be empty, not ''"),
        ({**LINEAR, "colour": "red"}, "layers[0].colour is not a known field"),
        ({"op": "linear", "name": "fc", "inputs": ["x"], "in_features": 4}, "layers[0].out_features is missing"),
        ({"name": "fc", "inputs": ["x"]}, "layers[0].op is missing"),
        ({**LINEAR, "inputs": ["y"]}, "layers[0].inputs must name an earlier layer or a network input, not 'y'"),
        ({**LINEAR, "inputs": ["fc"]}, "layers[0].inputs must name an earlier layer or a network input, not 'fc'"),
        ({**LINEAR, "name": "x"}, "layers[0].name must be unique, not 'x' again"),
        (
            {**CONV, "kernel": [3, 8]},
            "layers[0].kernel must be at most the padded input (7), not 8; raise padding or make the kernel smaller",
        ),
        (
            {**CONV, "dilation": [1, 4]},
            "layers[0].kernel must be at most the padded input (7), not 9; raise padding or make the kernel smaller",
        ),
        ({**CONV, "stride": [1]}, "layers[0].stride must have 2 entries like in_size, not 1"),
        ({**CONV, "groups": 3}, "layers[0].groups must divide in_channels (4), not 3"),
        ({**CONV, "output_padding": [1, 1]}, "layers[0].output_padding must be left out unless transposed is true"),
        (
            {**CONV, "transposed": True, "output_padding": [1]},
            "layers[0].output_padding must have 2 entries like in_size, not 1",
        ),
        (
            {**CONV, "transposed": True, "in_size": [1, 5], "padding": [2, 1]},
            "layers[0].out_size must be at least 1, not -1",
        ),
        ({**ATTENTION, "kv_heads": 4}, "layers[0].kv_heads must divide heads (6), not 4"),
        ({**ATTENTION, "inputs": ["x"]}, "layers[0].inputs must name query, key and value, not ['x']"),
    ],
)
def test_a_bad_layer_is_refused(layer, problem):
    refused(trace_fields(layer), problem)


def test_a_name_used_twice_is_refused():
    refused(trace_fields(LINEAR, LINEAR), "layers[1].name must be unique, not 'fc' again")


def test_a_network_needs_inputs_and_layers():
    refused(trace_fields(inputs=[]), "inputs must have at least 1 entry, not 0; layers must have at least 1 entry, not 0")
    refused(trace_fields(layers=7), "layers must be a list, not 7")


def test_all_problems_come_at_once():
    refused(
        trace_fields({**LINEAR, "in_features": -1, "rows": 0}, {**CONV, "groups": 3, "padding": [1]}, 5),
        "layers[0].in_features must be at least 1, not -1; layers[0].rows must be at least 1, not 0; "
        "layers[1].padding must have 2 entries like in_size, not 1; layers[1].groups must divide in_channels (4), not 3; "
        "layers[2] must be a table of named fields, not 5",
    )


def test_all_wrong_names_come_at_once():
    refused(
        trace_fields({**LINEAR, "inputs": ["y", "x", "z"]}, LINEAR),
        "layers[0].inputs must name an earlier layer or a network input, not 'y'; "
        "layers[0].inputs must name an earlier layer or a network input, not 'z'; "
        "layers[1].name must be unique, not 'fc' again",
    )


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_another_schema_version_is_refused(version):
    refused(trace_fields(LINEAR, schema_version=version), f"schema_version must be 1, not {version!r}; export it again")


def test_a_missing_schema_version_is_refused():
    refused({"name": "net"}, "schema_version must be 1, not 'missing'; export it again")


def unknown(op, name):
    return {"op": op, "name": name, "inputs": ["x"], "size": 3}


UNKNOWN = trace_fields(unknown("sort", "a"), unknown("topk", "b"), unknown("sort", "c"), {**LINEAR, "inputs": ["c"]})


def test_unknown_operators_are_counted_and_refused():
    refused(
        UNKNOWN,
        "2 unsupported operators: sort (2), topk (1); add them to --allow-ops to count them as free",
        UnsupportedOpError,
    )


def test_an_unknown_operator_that_is_not_allowed_is_refused():
    refused(
        UNKNOWN,
        "1 unsupported operator: topk (1); add them to --allow-ops to count them as free",
        UnsupportedOpError,
        allow_ops=frozenset({"sort"}),
    )


def test_allowed_operators_are_free_and_keep_their_kind():
    trace = Trace.from_fields(UNKNOWN, "net.json", frozenset({"sort", "topk"}))
    assert trace.layers[:3] == tuple(
        Free(name=name, inputs=("x",), kind=kind) for kind, name in (("sort", "a"), ("topk", "b"), ("sort", "c"))
    )


def test_a_truncated_file_is_refused(tmp_path):
    path = tmp_path / "net.json"
    path.write_text('{"schema_version": 1,\n "name": "n', encoding="utf-8")
    message = f"{path} must be complete JSON, not broken at line 2 column 10 (Unterminated string starting at); export it again"
    with pytest.raises(TraceError, match=f"^{re.escape(message)}$"):
        Trace.load(path)


def test_a_directory_is_refused(tmp_path):
    with pytest.raises(TraceError, match=f"^{re.escape(str(tmp_path))} must be a file, not a directory$"):
        Trace.load(tmp_path)
    trace = Trace.from_fields(trace_fields(LINEAR), "net.json")
    with pytest.raises(TraceError, match=f"^{re.escape(str(tmp_path))} must be a file, not a directory$"):
        trace.save(tmp_path)


def test_a_missing_file_is_refused(tmp_path):
    path = tmp_path / "none.json"
    with pytest.raises(TraceError, match=f"^{re.escape(str(path))} does not exist$"):
        Trace.load(path)


def test_binary_data_is_refused(tmp_path):
    path = tmp_path / "net.json"
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(TraceError, match=f"^{re.escape(str(path))} must be UTF-8 text, not binary data$"):
        Trace.load(path)


def conv(**changes):
    return Trace.from_fields(trace_fields({**CONV, **changes}), "net.json").layers[0]


@pytest.mark.parametrize(
    ("changes", "out_size"),
    [
        ({}, (3, 3)),
        ({"padding": [0, 1]}, (2, 3)),
        ({"dilation": [2, 3]}, (2, 1)),
        ({"stride": [1, 3]}, (5, 2)),
        ({"transposed": True}, (9, 9)),
        ({"transposed": True, "output_padding": [1, 0]}, (10, 9)),
    ],
)
def test_convolution_output_is_what_pytorch_makes(changes, out_size):
    assert conv(**changes).out_size == out_size


def test_element_counts():
    layer = conv(groups=2, bias=True)
    assert (layer.in_elems, layer.out_elems, layer.weight_elems, layer.bias_elems) == (100, 54, 108, 6)
    linear = Linear(name="fc", inputs=("x",), in_features=4, out_features=3, rows=5)
    assert (linear.in_elems, linear.out_elems, linear.weight_elems, linear.bias_elems) == (20, 15, 12, 0)
    assert linear.model_copy(update={"bias": True}).bias_elems == 3
    attention = Attention(name="att", inputs=("q", "k", "v"), heads=6, kv_heads=2, q_len=5, kv_len=7, head_dim=8)
    assert (attention.score_elems, attention.out_elems) == (210, 240)
    assert Matmul(name="mm", inputs=("a", "b"), m=2, n=3, k=4, count=5).out_elems == 30


def linear(name, *inputs, trainable=True):
    return Linear(name=name, inputs=inputs, in_features=4, out_features=4, trainable=trainable)


def vector(op, name, *inputs, **fields):
    return Vector(op=op, name=name, inputs=inputs, in_elems=4 * len(inputs), out_elems=4, **fields)


def test_only_the_first_layer_has_no_input_gradient():
    trace = Trace(
        name="net",
        inputs=("x",),
        layers=(linear("a", "x"), vector("relu", "relu", "a"), linear("b", "relu"), vector("add", "add", "a", "b")),
    )
    assert trace.needs_grad == {"a", "relu", "b", "add"}
    assert [trace.has_input_grad(layer) for layer in trace.layers] == [False, True, True, True]


def test_the_gradient_stops_at_frozen_layers_with_nothing_trained_before_them():
    trace = Trace(
        name="net",
        inputs=("x",),
        layers=(
            linear("frozen", "x", trainable=False),
            vector("batch_norm", "bn", "frozen", params=8, trainable=False),
            linear("head", "bn"),
            linear("after", "head", trainable=False),
            vector("relu", "relu", "x"),
        ),
    )
    assert trace.needs_grad == {"head", "after"}
    assert [trace.has_input_grad(layer) for layer in trace.layers] == [False, False, False, True, False]


def test_a_trained_norm_or_embedding_needs_a_gradient():
    trace = Trace(
        name="net",
        inputs=("ids",),
        layers=(vector("embedding", "table", "ids", params=40), vector("softmax", "soft", "ids"), linear("a", "soft", "table")),
    )
    assert trace.needs_grad == {"table", "a"}
    assert trace.has_input_grad(trace.layers[2])


def test_layers_share_a_weight_by_its_name():
    fields = trace_fields({**LINEAR, "weight": "w"}, {**LINEAR, "name": "again", "weight": "w"})
    assert {layer.weight for layer in Trace.from_fields(fields, "net.json").layers} == {"w"}


def test_defaults_are_left_out_of_the_file():
    trace = Trace.from_fields(trace_fields({**LINEAR, "rows": 1, "bias": False}), "net.json")
    assert trace.to_json() == (
        '{\n "schema_version": 1,\n "name": "net",\n "inputs": [\n  "x"\n ],\n "layers": [\n'
        '  {"op": "linear", "name": "fc", "inputs": ["x"], "in_features": 4, "out_features": 2}\n ]\n}\n'
    )


SIZE = st.integers(1, 2**31)
NAME = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=20)
SHARED = {"bias": st.booleans(), "trainable": st.booleans(), "weight": st.none() | NAME}


@st.composite
def convs(draw):
    dims = draw(st.integers(1, 3))
    groups = draw(st.integers(1, 4))

    def each(smallest):
        return tuple(draw(st.lists(st.integers(smallest, 3), min_size=dims, max_size=dims)))

    transposed = draw(st.booleans())
    return Conv(
        name="?",
        inputs=("?",),
        in_channels=groups * draw(st.integers(1, 9)),
        out_channels=groups * draw(st.integers(1, 9)),
        in_size=tuple(size + 7 for size in each(1)),
        kernel=each(1),
        stride=each(1),
        padding=each(0),
        dilation=each(1),
        groups=groups,
        transposed=transposed,
        output_padding=draw(st.none() | st.just(each(0))) if transposed else None,
        **draw(st.fixed_dictionaries(SHARED)),
    )


def built(layer_type, reads=1, **fields):
    return st.builds(layer_type, name=st.just("?"), inputs=st.just(("?",) * reads), **fields)


LAYERS = st.one_of(
    convs(),
    built(Linear, in_features=SIZE, out_features=SIZE, rows=SIZE, **SHARED),
    built(Matmul, m=SIZE, n=SIZE, k=SIZE, count=SIZE),
    built(Attention, 3, heads=st.just(6), kv_heads=st.sampled_from([None, 2]), q_len=SIZE, kv_len=SIZE, head_dim=SIZE,
          causal=st.booleans()),
    built(Vector, op=st.sampled_from(sorted(VECTOR_OPS)), in_elems=st.integers(1, 2**46), out_elems=st.integers(1, 2**46),
          params=st.integers(0, 2**31), window=SIZE, trainable=st.booleans(), weight=st.none() | NAME),
    built(Free, kind=NAME),
)  # fmt: skip


@st.composite
def traces(draw):
    names = draw(st.lists(NAME, min_size=2, max_size=8, unique=True))
    cut = draw(st.integers(1, len(names) - 1))
    layers = []
    for index in range(cut, len(names)):
        layer = draw(LAYERS)
        reads = {Attention: 3, Matmul: 2}.get(type(layer), draw(st.integers(1, 3)))
        sources = draw(st.lists(st.sampled_from(names[:index]), min_size=reads, max_size=reads))
        layers.append(layer.model_copy(update={"name": names[index], "inputs": tuple(sources)}))
    return Trace(name=draw(NAME), inputs=tuple(names[:cut]), layers=tuple(layers))


SCHEMA = Trace.json_schema()


@given(traces())
def test_a_trace_reads_back_from_its_text(trace):
    fields = json.loads(trace.to_json())
    assert Trace.from_fields(fields, "net.json") == trace
    jsonschema.validate(fields, SCHEMA)


def test_a_trace_reads_back_from_its_file(tmp_path: Path):
    trace = Trace.from_fields(trace_fields(CONV, {**LINEAR, "name": "größe"}), "net.json")
    trace.save(tmp_path / "net.json")
    assert Trace.load(tmp_path / "net.json") == trace
    assert Trace.load(str(tmp_path / "net.json")) == trace


# What interpreting needs.


def vector_layer(**changes):
    return {"op": "relu", "name": "relu", "inputs": ["x"], "in_elems": 4, "out_elems": 4, **changes}


def trace_with(layer):
    return {"schema_version": 1, "name": "net", "inputs": ["x"], "layers": [layer]}


def test_attributes_come_back_from_json(tmp_path):
    attributes = {"function": "max_pool", "kernel": [3, 3], "ceil_mode": True, "eps": 1e-5, "channels": 4}
    trace = Trace.from_fields(trace_with(vector_layer(attributes=attributes)), "net")
    assert trace.layers[0].attributes == attributes | {"kernel": (3, 3)}
    path = tmp_path / "net.json"
    trace.save(path)
    assert Trace.load(path) == trace


def test_a_trace_without_attributes_stays_as_it_was():
    trace = Trace.from_fields(trace_with(vector_layer()), "net")
    assert trace.layers[0].attributes is None
    assert "attributes" not in trace.to_json()
    assert "reads_moved" not in trace.to_json()


@pytest.mark.parametrize("value", [None, {"nested": 1}, [0.5], ["text"], "", [1] * 9])
def test_attributes_are_numbers_texts_and_short_lists_of_integers(value):
    with pytest.raises(TraceError, match=r"^net: layers\[0\]\.attributes"):
        Trace.from_fields(trace_with(vector_layer(attributes={"function": value})), "net")
