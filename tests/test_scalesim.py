import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.errors import TraceError
from accel.scalesim import read_topology
from accel.sparsity import DENSE, NMPattern
from accel.trace import Conv, Linear

CONV = "Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, Num Filter, Strides,"
SPARSE_CONV = f"{CONV} Sparsity,"
GEMM = "Layer, M, N, K,"


@pytest.fixture
def read(tmp_path):
    def read(*lines, end="\n"):
        path = tmp_path / "net.csv"
        path.write_text("\n".join(lines) + end, encoding="utf-8")
        return read_topology(path)

    return read


@pytest.fixture
def refuse(tmp_path, read):
    def refuse(*lines, message):
        with pytest.raises(TraceError, match=f"^{re.escape(f'{tmp_path}/net.csv: {message}')}$"):
            read(*lines)

    return refuse


def conv(name, source, channels, filters, size, kernel, stride=(1, 1), groups=1):
    return Conv(
        name=name,
        inputs=(source,),
        in_channels=channels,
        out_channels=filters,
        in_size=size,
        kernel=kernel,
        stride=stride,
        padding=(0, 0),
        dilation=(1, 1),
        groups=groups,
    )


def test_convolution_rows_become_convolutions_without_padding(read):
    trace, patterns = read(CONV, "Conv1, 224, 226, 7, 8, 3, 64, 1,", "Conv2, 56, 56, 3, 3, 64, 32, 1,")
    assert (trace.name, trace.inputs) == ("net", ("input",))
    assert trace.layers == (
        conv("Conv1", "input", 3, 64, (224, 226), (7, 8)),
        conv("Conv2", "Conv1", 64, 32, (56, 56), (3, 3)),
    )
    assert patterns == {}


def test_gemm_rows_become_linear_layers(read):
    trace, patterns = read(GEMM, "QKT,1024,512,64", "Linear1,128,4800,1600")
    assert trace.layers == (
        Linear(name="QKT", inputs=("input",), rows=1024, in_features=64, out_features=512),
        Linear(name="Linear1", inputs=("QKT",), rows=128, in_features=1600, out_features=4800),
    )
    assert patterns == {}


def test_every_layer_but_the_first_has_an_input_gradient(read):
    trace, _ = read(GEMM, "a,1,2,3", "b,1,2,3", "c,1,2,3")
    assert [trace.has_input_grad(layer) for layer in trace.layers] == [False, True, True]


@pytest.mark.parametrize(("size", "stride"), [(224, 4), (223, 4), (11, 3), (12, 3), (28, 2), (56, 2)])
def test_a_window_that_sticks_out_counts_as_in_scalesim(read, size, stride):
    trace, _ = read(CONV, f"Conv1, {size}, {size}, 11, 11, 3, 96, {stride},")
    assert trace.layers[0].out_size == (-(-(size - 11 + stride) // stride),) * 2


def test_stride_has_one_column_or_two(read):
    trace, _ = read(CONV[:-1] + " H, Strides W,", "a, 9, 9, 3, 3, 3, 6, 2, 3,")
    assert trace.layers[0].stride == (2, 3)
    trace, _ = read(CONV, "a, 9, 9, 3, 3, 3, 6, 2,")
    assert trace.layers[0].stride == (2, 2)


@pytest.mark.parametrize("comma", [",", "", ", "])
def test_sparsity_is_read_with_and_without_the_comma_at_the_end(read, comma):
    trace, patterns = read(SPARSE_CONV, f"a, 9, 9, 3, 3, 3, 6, 1, 2:4{comma}", f"b, 9, 9, 3, 3, 3, 6, 1, 4:4{comma}", end="")
    assert patterns == {"a": NMPattern(2, 4), "b": NMPattern(4, 4)}
    assert trace.layers[1] == conv("b", "a", 3, 6, (9, 9), (3, 3))


def test_only_layers_with_a_sparsity_have_a_pattern(read):
    _, patterns = read("Layer Name, M, N, K, Sparsity", "a,3,5,16,3:4,", "b,3,5,16,,", "c,3,5,16", "d,3,5,16,1:1")
    assert patterns == {"a": NMPattern(3, 4), "d": DENSE}


def test_names_used_again_are_numbered(read):
    trace, patterns = read(f"{GEMM} Sparsity,", "a,1,2,3,1:4,", "a,1,2,3,2:4,", "input,1,2,3")
    assert [layer.name for layer in trace.layers] == ["a", "a_1", "input_1"]
    assert patterns == {"a": NMPattern(1, 4), "a_1": NMPattern(2, 4)}


def test_dw_rows_are_convolutions_and_dp_rows_are_depthwise(read):
    trace, _ = read(CONV, "Conv1_dw, 9, 9, 3, 3, 1, 1, 1,#dw", "DP2, 9, 9, 3, 3, 8, 2, 1,")
    assert trace.layers == (
        conv("Conv1_dw", "input", 1, 1, (9, 9), (3, 3)),
        conv("DP2", "Conv1_dw", 8, 16, (9, 9), (3, 3), groups=8),
    )


def test_empty_lines_tabs_and_a_byte_order_mark_mean_nothing(read):
    trace, _ = read("", GEMM, ",,,,", "\ta , 1,2,3,", "   ")
    assert trace.layers == (Linear(name="a", inputs=("input",), rows=1, in_features=3, out_features=2),)
    trace, _ = read(f"\ufeff{GEMM}", "a,1,2,3")
    assert trace.layers[0].name == "a"


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("a, 9, 9, 3, 3, x, 6, 1,", "Channels must be an integer of at least 1, not 'x'"),
        ("a, 9, 9, 3, 3, 0, 6, 1,", "Channels must be an integer of at least 1, not '0'"),
        ("a, 9, 9, 3, 3, 3, -6, 1,", "Num Filter must be an integer of at least 1, not '-6'"),
        ("a, 9, 9, 3, 3, 3, 6.0, 1,", "Num Filter must be an integer of at least 1, not '6.0'"),
        ("a, 9, 9, 3, 3, 3, ٣, 1,", "Num Filter must be an integer of at least 1, not '٣'"),
        ("a, 9, 9, 3, 3, 3, 3000000000, 1,", "Num Filter must be at most 2147483648, not 3000000000"),
        ("a, 9, 9, 3, 3, 3, 6", "Strides is missing"),
        ("a, 9, , 3, 3, 3, 6, 1,", "IFMAP Width is missing"),
        (", 9, 9, 3, 3, 3, 6, 1,", "Layer name must not be empty"),
        ("a, 9, 9, 3, 10, 3, 6, 1,", "Filter Width must be at most IFMAP Width (9), not 10"),
        ("a, 9, 9, 3, 3, 3, 6, 1, 2:4", "row must have at most 8 values like the header, not 9; name every column"),
    ],
)
def test_a_bad_row_is_refused(refuse, row, problem):
    refuse(CONV, "good, 9, 9, 3, 3, 3, 6, 1,", row, message=f"row 3: {problem}")


@pytest.mark.parametrize(
    ("sparsity", "problem"),
    [
        ("half", "pattern must be two integers like 2:8, not 'half'"),
        ("12", "pattern must be two integers like 2:8, not '12'"),
        ("5:4", "keep must be between 1 and group (4), not 5; a pattern is written kept:group, for example 2:8"),
    ],
)
def test_a_bad_sparsity_is_refused(refuse, sparsity, problem):
    refuse(SPARSE_CONV, f"a, 9, 9, 3, 3, 3, 6, 1, {sparsity},", message=f"row 2: Sparsity: {problem}")


def test_all_problems_come_at_once(refuse):
    refuse(
        SPARSE_CONV,
        "a, 2, x, 3, 3, 3, 6, 0, 1:2",
        "",
        "b, 9, 9, 3, 3, 3, 6, 1, 0:2",
        message="row 2: IFMAP Width must be an integer of at least 1, not 'x'; "
        "row 2: Strides must be an integer of at least 1, not '0'; "
        "row 2: Filter Height must be at most IFMAP Height (2), not 3; "
        "row 4: Sparsity: keep must be between 1 and group (2), not 0; a pattern is written kept:group, for example 2:8",
    )


@pytest.mark.parametrize(
    "header",
    [
        "Layer, M, K, N",
        "Layer, M, N",
        "Layer, M, N, K, Sparsity, Sparsity",
        "Layer, M, N, K, Strides W",
        f"{CONV} MACCycle",
        "Conv1, 9, 9, 3, 3, 3, 6, 1",
    ],
)
def test_an_unknown_header_is_refused(refuse, header):
    refuse(
        header,
        "a, 1, 2, 3",
        message="row 1: header must be Layer name, IFMAP Height, IFMAP Width, Filter Height, Filter Width, Channels, "
        "Num Filter, Strides[, Strides W][, Sparsity] or Layer name, M, N, K[, Sparsity], "
        f"not {header!r}",
    )


def test_an_empty_file_is_refused(refuse):
    refuse("", message="file must have a header and at least 1 layer, not be empty")


def test_a_file_with_only_a_header_is_refused(refuse):
    refuse(GEMM, message="file must have at least 1 layer, not only a header")


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(TraceError, match=f"^{re.escape(str(tmp_path))}/none.csv does not exist$"):
        read_topology(tmp_path / "none.csv")


def test_a_name_that_is_too_long_is_refused(read):
    with pytest.raises(TraceError, match=r"net\.csv: layers\[0\]\.name.* have 300 or fewer characters, not 'a{56}\.\.\.$"):
        read(GEMM, "a" * 301 + ",1,2,3")


@given(
    rows=st.lists(
        st.tuples(*[st.integers(1, 2**31)] * 3, st.sampled_from(["", "1:1", "2:4", "7:8"]), st.sampled_from(["", ",", " , "])),
        min_size=1,
        max_size=6,
    )
)
def test_every_gemm_table_reads_back(rows, tmp_path_factory):
    path = tmp_path_factory.mktemp("topology") / "net.csv"
    lines = [f"l{index},{m},{n},{k},{nm}{end}" for index, (m, n, k, nm, end) in enumerate(rows)]
    path.write_text("\n".join(["Layer,M,N,K,Sparsity", *lines]), encoding="utf-8")
    trace, patterns = read_topology(path)
    assert [(layer.rows, layer.out_features, layer.in_features) for layer in trace.layers] == [row[:3] for row in rows]
    assert {name: f"{p.keep}:{p.group}" for name, p in patterns.items()} == {
        f"l{index}": row[3] for index, row in enumerate(rows) if row[3]
    }
