"""The folder of `accel rtl`: its bench, which runs without this project, and what it says about the Verilog beside it."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from rtl_build import slang_lint

from accel.errors import ConfigError
from accel.presets import preset
from accel.rtl.design import TOPS
from accel.rtl.package import package, write_package
from accel.rtl.toolchain import lint, verilator

pytestmark = pytest.mark.rtl

SMALL = preset("test").replace(name="small", array_rows=2, array_cols=3, group=2, drain_lanes=2)
"""Small enough to compile in seconds; unequal sides, and a second drain chain."""
DEEP = preset("edge-kv260").replace(name="deep", array_rows=3, array_cols=2)
LEAST = SMALL.replace(name="least", array_rows=1, array_cols=1, group=1, drain_lanes=1, row_lanes=(2,), dataflows=("OS",))

WS_ONLY = SMALL.replace(name="ws_only", group=4, dataflows=("WS",))

NAMES = {"array": "nm_array", "uspe": "nm_uspe", "sore": "nm_sore"}
HAS_ICARUS = shutil.which("iverilog") is not None
needs_icarus = pytest.mark.skipif(not HAS_ICARUS, reason="Icarus Verilog is not installed")


@pytest.fixture(scope="module")
def files():
    return {top: package(SMALL, top) for top in TOPS}


@pytest.fixture(scope="module")
def arrays(files):
    return {"small": files["array"]} | {arch.name: package(arch, "array") for arch in (DEEP, LEAST, WS_ONLY)}


def run_bench(folder, target, files):
    """Write `files` (text by path) into `folder` and run the bench there, with nothing of this project in sight."""
    write(folder, files)
    tool = verilator() if target == "verilator" else None
    program = tool.path if tool else Path(shutil.which("iverilog"))
    env = {"PATH": f"{program.parent}:/usr/local/bin:/usr/bin:/bin:{sys.base_prefix}/bin", "HOME": str(folder)}
    if tool and "VERILATOR_ROOT" in tool.env:
        env["VERILATOR_ROOT"] = tool.env["VERILATOR_ROOT"]
    return subprocess.run(["make", "-s", target], cwd=folder / "tb", env=env, capture_output=True, text=True, check=False)


def write(folder, files):
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text)


@needs_icarus
@pytest.mark.parametrize("name", ["deep", "least", "ws_only"])
def test_the_bench_of_another_form_passes(arrays, name, tmp_path):
    process = run_bench(tmp_path, "icarus", arrays[name])
    assert process.returncode == 0, process.stdout + process.stderr


@needs_icarus
@pytest.mark.parametrize("top", TOPS)
def test_the_bench_passes_in_icarus_in_a_folder_of_its_own(files, top, tmp_path):
    process = run_bench(tmp_path, "icarus", files[top])
    assert process.returncode == 0, process.stdout + process.stderr
    assert re.fullmatch(rf"PASS {NAMES[top]}: [^\n]*, seed 1\n", process.stdout)


@pytest.mark.parametrize("top", TOPS[:1] if HAS_ICARUS else TOPS)  # compiling takes longer than all of Icarus's runs
def test_the_bench_passes_in_verilator_in_a_folder_of_its_own(files, top, tmp_path):
    process = run_bench(tmp_path, "verilator", files[top])
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.startswith(f"PASS {NAMES[top]}: ")


@pytest.mark.soak
def test_the_bench_of_a_large_array_passes_in_verilator(tmp_path):
    files = package(preset("edge-kv260").replace(name="large", array_rows=9), "array")
    assert "--hierarchical" in files["tb/Makefile"]
    process = run_bench(tmp_path, "verilator", files)
    assert process.returncode == 0, process.stdout + process.stderr


FAULTS = [
    (
        "array",
        "rtl/nm_array.v",
        ".i_west__1__payload(s_west_data[63:32])",
        ".i_west__1__payload({s_west_data[63:33], 1'b0})",
        "lane",
    ),
    ("array", "rtl/nm_array.v", ".o_macs(count_macs)", ".o_macs()", "MACs, cycles must be"),
    ("array", "rtl/nm_array.v", "assign reset = ~ aresetn", "assign reset = 1'b0", "in reset"),
    ("array", "rtl/nm_array.v", ".o_out__0__ready(m_out_ready[0])", ".o_out__0__ready(1'b1)", "lane 0"),
    ("sore", "rtl/nm_sore.v", ".o__ready(m_entries_ready)", ".o__ready(1'b1)", "lane 0"),
    ("uspe", "rtl/nm_uspe.v", "o_first <= i_first", "o_first <= 1'b0", "what passes through must be"),
    ("uspe", "rtl/nm_uspe.v", "o_pass <= i_pass", "o_pass <= 0", "what passes through must be"),
    ("uspe", "rtl/nm_uspe.v", "o_drain <= ", "o_drain <= 1 ^ ", "o_drain must be"),
]


@needs_icarus
@pytest.mark.parametrize(("top", "path", "right", "wrong", "message"), FAULTS)
def test_the_bench_finds_a_fault(files, top, path, right, wrong, message, tmp_path):
    text = files[top][path]
    assert right in text
    process = run_bench(tmp_path, "icarus", {**files[top], path: text.replace(right, wrong)})
    assert process.returncode != 0
    assert message in process.stdout
    assert re.search(rf"^FAIL {NAMES[top]}: [1-9]\d* errors, seed 1$", process.stdout, re.MULTILINE)
    assert "PASS" not in process.stdout


@needs_icarus
@pytest.mark.parametrize("name", ["small", "deep", "least", "ws_only"])
def test_the_verilog_is_that_of_2005(arrays, name, tmp_path):
    write(tmp_path, arrays[name])
    sources = sorted(map(str, tmp_path.glob("rtl/*.v")))
    process = subprocess.run(
        ["iverilog", "-g2005", "-Wall", "-Wno-timescale", "-s", "nm_array", "-o", tmp_path / "array.vvp", *sources],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (process.returncode, process.stdout + process.stderr) == (0, "")


@pytest.mark.skipif(HAS_ICARUS, reason="Icarus Verilog finds more faults in less time")
def test_the_bench_finds_a_fault_in_verilator(files, tmp_path):
    top, path, right, wrong, message = FAULTS[5]
    process = run_bench(tmp_path, "verilator", {**files[top], path: files[top][path].replace(right, wrong)})
    assert process.returncode != 0
    assert message in process.stdout


def ports_in_verilog(text, name):
    header = text[text.index(f"\nmodule {name}(") :].partition("\nendmodule")[0]
    found = re.findall(r"^  (input|output) (?:\[(\d+):0\] )?(\w+);$", header, re.MULTILINE)
    return {port: (direction.removesuffix("put"), int(high or 0) + 1) for direction, high, port in found}


@pytest.mark.parametrize("top", TOPS)
def test_the_side_file_has_the_ports_and_the_hash_of_the_verilog(files, top):
    name, side = NAMES[top], json.loads(files[top][f"{NAMES[top]}.json"])
    assert {port["name"]: (port["direction"], port["width"]) for port in side["ports"]} == ports_in_verilog(
        files[top][f"rtl/{name}.v"], name
    )
    verilog = "".join(files[top][path] for path in side["verilog"]["files"])
    assert side["verilog"]["sha256"] == hashlib.sha256(verilog.encode()).hexdigest()
    assert side["files"] == sorted(files[top])
    assert side["schema_version"] == 1
    assert all(port["meaning"] for port in side["ports"])
    assert all(field["meaning"] for port in side["ports"] for field in port["fields"])


@pytest.mark.parametrize("top", TOPS)
def test_fields_lie_inside_their_lane_and_never_over_each_other(files, top):
    for port in json.loads(files[top][f"{NAMES[top]}.json"])["ports"]:
        bits = [bit for f in port["fields"] for bit in range(f["offset"], f["offset"] + f["width"] * f["count"])]
        assert len(set(bits)) == len(bits)
        assert max(bits, default=0) < port["lane_bits"]


def host_fields(run, machine):
    """Return the command's fields by the table of the data sheet, with the cycles of the run by its formulas."""
    rows, cols, lanes, chains = (machine[name] for name in ("rows", "cols", "adder_latency", "drain_lanes"))
    keep, a = int(run["pattern"].split(":")[0]), run["row_lanes"]
    b, is_ws = lanes // a, run["dataflow"] == "WS"
    group_cycles, groups = keep * lanes, run["groups"]
    tile_m = min(run["m_chunk"], run["dim_m"]) if is_ws else rows * a
    tile_n = cols * b
    m_tiles, n_tiles = -(-run["dim_m"] // tile_m), -(-run["dim_n"] // tile_n)
    k_tiles = -(-groups // rows) if is_ws else 1
    last = {"m": run["dim_m"] - (m_tiles - 1) * tile_m, "n": run["dim_n"] - (n_tiles - 1) * tile_n}

    def slot(size):
        if is_ws:
            return max(-(-size // a) * group_cycles, rows * group_cycles + (3 if k_tiles > 1 else 0))
        return lanes * max(groups * keep, -(-min(rows, size) // chains))

    fields = {
        "run.is_ws": int(is_ws), "run.is_rounded": int(run["is_rounded"]),
        "run.row_lanes": a, "run.col_lanes": b, "run.keep": keep,
        "n_last.lanes": last["n"] // cols, "n_last.rest": last["n"] % cols,
        "groups_last": groups - (k_tiles - 1) * rows if is_ws else 0,
    }  # fmt: skip
    for which, size in (("full", tile_m), ("last", last["m"])):
        fields[f"m_{which}.lanes"] = (size - 1) % a + 1 if is_ws else size // rows
        fields |= {f"m_{which}.rest": 0 if is_ws else size % rows, f"m_{which}.rows": size}
        for walk in ("row_walk", "col_walk"):
            tokens = groups if not is_ws else -(-size // a) if walk == "row_walk" else rows
            fields |= {f"{walk}.tokens_{which}": tokens, f"{walk}.gap_{which}": slot(size) - tokens * group_cycles}
    for walk in ("row_walk", "col_walk"):
        fields |= {f"{walk}.group_cycles": group_cycles, f"{walk}.count": run["count"], f"{walk}.m_tiles": m_tiles}
        fields |= {f"{walk}.n_tiles": n_tiles, f"{walk}.k_tiles": k_tiles, f"{walk}.is_gap_of_next": int(not is_ws)}
        fields[f"{walk}.delay"] = keep * b + rows - 1 if is_ws and walk == "row_walk" else 0

    slots = run["count"] * n_tiles * k_tiles * ((m_tiles - 1) * slot(tile_m) + slot(last["m"]))
    columns = min(cols, last["n"])
    if n_tiles > 1:
        columns = max(columns, cols - k_tiles * slot(last["m"]))
    pipe = machine["multiplier_latency"]
    if is_ws:
        ends = keep * b + rows - 1 + (-(-last["m"] // a) + rows - 1) * group_cycles + lanes - slot(last["m"]) + pipe + columns
    else:
        first = slot(tile_m if m_tiles > 1 else last["m"])
        ends = pipe + rows + lanes * (-(-rows // chains) + 1) - 1 + columns - (first - lanes * groups * keep)
    return fields, slots + ends


@pytest.mark.parametrize("name", ["small", "deep", "least", "ws_only"])
def test_the_data_sheet_says_how_commands_and_cycles_come_about(arrays, name):
    side = json.loads(arrays[name]["nm_array.json"])
    layout = next(port["fields"] for port in side["ports"] if port["name"] == "s_command_data")
    for run, line in zip(side["bench"]["runs"], arrays[name]["tb/commands.hex"].split(), strict=True):
        fields, cycles = host_fields(run, side["parameters"])
        if len(side["parameters"]["dataflows"]) == 1:
            del fields["run.is_ws"]
        if "WS" not in side["parameters"]["dataflows"]:
            del fields["groups_last"]
        word = int(line, 16)
        assert {f["name"]: word >> f["offset"] & (1 << f["width"]) - 1 for f in layout} == fields
        assert run["cycles"] == cycles


def test_the_bench_has_every_kind_of_run(arrays):
    runs = json.loads(arrays["deep"]["nm_array.json"])["bench"]["runs"]
    forms = {(run["dataflow"], run["row_lanes"]) for run in runs}
    assert forms == {(dataflow, lanes) for dataflow in ("OS", "WS") for lanes in (1, 2, 4)}
    for dataflow in ("OS", "WS"):
        chosen = [run for run in runs if run["dataflow"] == dataflow]
        assert {run["pattern"] for run in chosen} == {"1:1", "1:8", "2:8", "8:8"}
        assert {run["is_rounded"] for run in chosen} == {False, True}
    results = arrays["deep"]["tb/out.hex"].split()
    assert {"7fc00000", "7f800000", "00007e00", "00007c00"} <= set(results)
    assert any(0 < int(word, 16) < 0x400 for word in results)  # FP16 subnormals


@pytest.mark.parametrize("name", ["small", "deep", "least", "ws_only"])
def test_linters_find_nothing_in_the_array(arrays, name, tmp_path):
    check_lint(tmp_path, arrays[name], "nm_array")


@pytest.mark.parametrize("top", ["uspe", "sore"])
@pytest.mark.parametrize("arch", [SMALL, DEEP], ids=lambda arch: arch.name)
def test_linters_find_nothing(top, arch, tmp_path):
    check_lint(tmp_path, package(arch, top), NAMES[top])


def check_lint(folder, files, name):
    write(folder, files)
    sources = [folder / path for path in json.loads(files[f"{name}.json"])["verilog"]["files"]]
    assert lint(sources, name, [folder / "lint/waivers.vlt"]) == []
    assert slang_lint(sources, name) == ""


def test_the_same_machine_gives_the_same_bytes_in_every_process(files):
    program = (
        "import hashlib; from test_package import SMALL, package; "
        "print(hashlib.sha256(repr(package(SMALL, 'array')).encode()).hexdigest())"
    )
    path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
    env = {**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"}
    process = subprocess.run([sys.executable, "-c", program], env=env, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == hashlib.sha256(repr(files["array"]).encode()).hexdigest()


@pytest.mark.parametrize("top", TOPS)
def test_the_core_file_and_the_makefile_name_files_that_are_there(files, top):
    name = NAMES[top]
    listed = re.findall(r"^      - ([\w./]+)", files[top][f"{name}.core"], re.MULTILINE)
    assert set(listed) == {path for path in files[top] if path.startswith(("rtl/", "tb/", "lint/", "constraints/"))} - {
        "tb/Makefile",
        "tb/hierarchy.vlt",
    }
    for path in re.findall(r"\.\./(rtl/\w+\.v)", files[top]["tb/Makefile"]):
        assert path in files[top]


def test_constraints_state_the_clock_of_the_machine(files):
    assert "-period 10.000 [get_ports aclk]" in files["array"]["constraints/nm_array_ooc.xdc"]
    assert 'FREQUENCY PORT "clk" 100.000 MHZ' in files["uspe"]["constraints/nm_uspe.lpf"]


def test_names_are_those_of_the_source(arrays, files):
    for top in [*arrays.values(), files["uspe"], files["sore"]]:
        for path, text in top.items():
            if path.startswith("rtl/"):
                assert "$" not in text, path


def test_every_module_and_file_has_the_prefix_and_two_packages_share_none(files):
    machines = {prefix: package(SMALL, "array", prefix) for prefix in ("sat_", "x")}
    named = {}
    for prefix, text_by_path in machines.items():
        verilog = "".join(text for path, text in text_by_path.items() if path.endswith(".v"))
        modules = set(re.findall(r"^module (\w+)", verilog, re.MULTILINE))
        assert all(name.startswith((prefix, f"tb_{prefix}")) for name in modules)
        assert f"{prefix}uspe" in modules
        named[prefix] = modules | {path for path in text_by_path if path.startswith(("rtl/", "constraints/"))}
        assert f"name: nm-accel:small:{prefix}array:" in text_by_path[f"{prefix}array.core"]
    assert not named["sat_"] & named["x"]


@needs_icarus
def test_a_bench_with_another_prefix_passes(tmp_path):
    process = run_bench(tmp_path, "icarus", package(SMALL, "uspe", "my_"))
    assert process.returncode == 0, process.stdout + process.stderr
    assert process.stdout.startswith("PASS my_uspe: ")


@pytest.mark.parametrize("prefix", ["a__", "A_", "1_", "_", "a-"])
def test_a_prefix_that_makes_no_name_is_refused(prefix, tmp_path):
    message = f"prefix must be lower-case words joined by single underscores, not {prefix!r}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        write_package(SMALL, "sore", tmp_path, prefix=prefix)


@pytest.mark.parametrize(("name", "absent"), [("least", "WS"), ("ws_only", "OS")])
def test_what_is_built_for_one_dataflow_says_nothing_of_the_other(arrays, name, absent):
    side, sheet = json.loads(arrays[name]["nm_array.json"]), arrays[name]["README.md"]
    assert not re.search(rf"\b{absent}\b", re.sub(r"\| `dataflows` .*", "", sheet))
    assert not any(absent in order.split() for order in side["stream_orders"])
    layout = next(port["fields"] for port in side["ports"] if port["name"] == "s_command_data")
    assert "run.is_ws" not in {field["name"] for field in layout}
    foreign = {"WS": ("load_slot", "o_write", "psum", "read_address"), "OS": ("drain", "capture")}[absent]
    for path, text in arrays[name].items():
        if path.startswith("rtl/"):
            assert not any(part in re.sub(r"//.*", "", text) for part in foreign), path


def test_a_ws_only_array_has_no_second_chain(arrays):
    assert json.loads(arrays["ws_only"]["nm_array.json"])["parameters"]["drain_lanes"] == 1
    assert "rounder_1" not in arrays["ws_only"]["rtl/nm_column_foot.v"]
    assert "rounder_1" in arrays["small"]["rtl/nm_column_foot.v"]


def test_no_file_names_a_place_on_this_machine(files):
    for top in TOPS:
        for path, text in files[top].items():
            assert str(Path.cwd()) not in text, path
            assert "/tmp" not in text, path


def test_force_replaces_files_of_an_earlier_package_and_leaves_others(files, tmp_path):
    write(tmp_path, files["sore"])
    (tmp_path / "rtl/mine.v").write_text("mine")
    other = SMALL.replace(group=4)
    assert set(write_package(other, "sore", tmp_path, force=True)) == set(package(other, "sore"))
    assert (tmp_path / "rtl/mine.v").read_text() == "mine"
    names = {path.name for path in tmp_path.glob("rtl/*")}
    assert "nm_sore_g4.v" in names
    assert "nm_sore_g2.v" not in names


def test_a_side_file_that_is_not_ours_deletes_nothing(tmp_path):
    keep = tmp_path / "keep.txt"
    keep.write_text("keep")
    folder = tmp_path / "out"
    folder.mkdir()
    for text in ("{", "[]", '{"files": ["../keep.txt", "' + str(keep) + '"]}'):
        (folder / "nm_sore.json").write_text(text)
        write_package(SMALL, "sore", folder, force=True)
    assert keep.read_text() == "keep"


@pytest.mark.parametrize(
    ("arch", "top", "message"),
    [
        (
            SMALL.replace(adder_latency=1, row_lanes=(1,)),
            "array",
            "small: adder_latency must be between 2 and 8 in hardware, not 1",
        ),
        (SMALL.replace(group=64), "sore", "small: group must be a power of 2 from 2 to 32, not 64"),
    ],
)
def test_what_cannot_be_built_is_refused_in_one_line(arch, top, message, tmp_path):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        write_package(arch, top, tmp_path)
