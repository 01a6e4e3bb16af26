"""The command as a user meets it: what it prints, and what it says when something is wrong."""

import csv
import json
import os
import subprocess
import sys

import pytest

from accel import api, compare, networks
from accel.cli import _parser, main, step
from accel.presets import preset

TINY = {
    "schema_version": 1,
    "name": "tiny",
    "inputs": ["x"],
    "layers": [
        {"op": "conv", "name": "conv1", "inputs": ["x"], "in_channels": 3, "out_channels": 16, "in_size": [8, 8],
         "kernel": [3, 3], "stride": [1, 1], "padding": [1, 1], "dilation": [1, 1]},
        {"op": "relu", "name": "relu1", "inputs": ["conv1"], "in_elems": 1024, "out_elems": 1024},
        {"op": "linear", "name": "fc", "inputs": ["relu1"], "in_features": 1024, "out_features": 32, "bias": True},
    ],
}  # fmt: skip


def trace_file(folder, **first_layer):
    fields = {**TINY, "layers": [{**TINY["layers"][0], **first_layer}, *TINY["layers"][1:]]}
    path = folder / "net.json"
    path.write_text(json.dumps(fields))
    return path


def refusal(capsys, *arguments):
    """Run the command, check that it exits with 2 and prints one line, and return that line."""
    try:
        status = main([str(argument) for argument in arguments])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.removesuffix("\n")


def test_simulate_prints_totals_stages_and_layers(capsys):
    assert main(["simulate", "mlp", "--batch", "8"]) == 0
    out = capsys.readouterr().out
    for text in ("one training step takes", "as fast as dense", "stages (Mcycles)", "VECTOR", "mappings:", "DRAM:"):
        assert text in out


def test_json_to_standard_output_is_json_alone(capsys):
    assert main(["simulate", "mlp", "--batch", "8", "--json", "-"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["totals"]["cycles"] == sum(stage["cycles"] for stage in report["stages"].values())


def test_json_and_csv_files_hold_the_same_rows(tmp_path, capsys):
    assert main(["simulate", "mlp", "--json", str(tmp_path / "r.json"), "--csv", str(tmp_path / "r.csv")]) == 0
    rows = json.loads((tmp_path / "r.json").read_text())["layers"]
    with (tmp_path / "r.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [int(line["cycles"]) for line in lines] == [row["cycles"] for row in rows]


def test_layers_lists_every_row(capsys):
    main(["simulate", "mlp", "--layers"])
    assert "every row of the step" in capsys.readouterr().out


def test_without_baseline_there_is_no_speedup(capsys):
    main(["simulate", "mlp", "--no-baseline"])
    assert "as fast as dense" not in capsys.readouterr().out


def test_pregenerate_auto_is_never_slower_than_either_choice(capsys):
    cycles = {}
    for choice in ("on", "off", "auto"):
        main(["simulate", "mlp", "--json", "-", "--pregenerate", choice])
        cycles[choice] = json.loads(capsys.readouterr().out)["totals"]["cycles"]
    assert cycles["auto"] == min(cycles["on"], cycles["off"])
    assert cycles["on"] != cycles["off"]


def test_compare_prints_speedup_cap_losses_and_sensitivity(capsys):
    assert main(["compare", "mlp", "resnet9", "--patterns", "2:8,2:16", "--batch", "4"]) == 0
    out = capsys.readouterr().out
    for text in ("MAC cap", "sat-vcu1525-g16", "points of speedup lost", "DRAM x 1/2"):
        assert text in out


def test_dense_training_is_simulated_once_for_all_that_share_it(capsys, monkeypatch):
    runs = []
    monkeypatch.setattr(api, "_run", lambda *parts, run=api._run: (runs.append(parts[2].method.name), run(*parts))[1])
    main(["simulate", "mlp", "--pregenerate", "auto"])
    assert sorted(runs) == ["bdwp", "bdwp", "dense"]
    runs.clear()
    main(["compare", "mlp", "--patterns", "2:4,2:8,2:16", "--batch", "4"])
    machines = 2 * len(compare.CHANGES)  # 2:16 runs on one with larger groups
    assert (runs.count("dense"), runs.count("bdwp")) == (machines, 3 * len(compare.CHANGES))


def test_the_help_of_the_experiment_needs_no_pytorch():
    code = (
        "import sys; sys.modules['torch'] = sys.modules['numpy'] = None; "
        "from accel.cli import main; main(['experiment', '--help'])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")
    assert "--methods" in shown.stdout


def test_the_help_loads_nothing_heavy():
    heavy = ("torch", "numba", "numpy", "amaranth", "pandas", "rich", "matplotlib")
    code = (
        "import atexit, sys; from accel.cli import main; "
        f"atexit.register(lambda: print('loaded:', [name for name in {heavy} if name in sys.modules])); main(['--help'])"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.splitlines()[-1] == "loaded: []"


@pytest.mark.parametrize("command", ["networks", "archs", "methods"])
def test_listings_name_everything_there_is(command, capsys):
    assert main([command]) == 0
    out = capsys.readouterr().out
    names = {"networks": networks.names(), "archs": ["sat-vcu1525", "edge-kv260"], "methods": ["bdwp", "adam"]}[command]
    assert all(name in out for name in names)


def test_a_machine_printed_as_toml_can_be_used(tmp_path, capsys):
    main(["archs", "edge-kv260"])
    file = tmp_path / "mine.toml"
    file.write_text(capsys.readouterr().out)
    assert main(["simulate", "mlp", "--arch", str(file), "--json", "-"]) == 0
    assert json.loads(capsys.readouterr().out)["arch"] == "edge-kv260"


def test_scalesim_topology_is_imported_and_simulated(tmp_path, capsys):
    source, target = tmp_path / "top.csv", tmp_path / "top.json"
    source.write_text("Layer, M, N, K,\nfc1, 64, 256, 512,\nfc2, 64, 10, 256,\n")
    assert main(["import", "scalesim", str(source), "-o", str(target)]) == 0
    assert main(["simulate", str(target), "--batch", "1", "--json", "-"]) == 0
    layers = json.loads(capsys.readouterr().out)["layers"]
    assert {layer["name"] for layer in layers} == {"fc1", "fc2"}


def test_truncated_json_is_refused(tmp_path, capsys):
    path = tmp_path / "net.json"
    path.write_text(json.dumps(TINY)[:100])
    assert refusal(capsys, "simulate", path) == (
        f"accel: {path} must be complete JSON, not broken at line 1 column 99 (Unterminated string starting at); "
        "export it again"
    )


def test_negative_size_is_refused(tmp_path, capsys):
    path = trace_file(tmp_path, in_channels=-3)
    assert refusal(capsys, "simulate", path) == f"accel: {path}: layers[0].in_channels must be at least 1, not -3"


def test_kernel_larger_than_the_padded_input_is_refused(tmp_path, capsys):
    path = trace_file(tmp_path, kernel=[11, 3])
    assert refusal(capsys, "simulate", path) == (
        f"accel: {path}: layers[0].kernel must be at most the padded input (10), not 11; "
        "raise padding or make the kernel smaller"
    )


def test_all_problems_of_a_file_are_reported_at_once(tmp_path, capsys):
    path = trace_file(tmp_path, in_channels=-3, out_channels="many", color="red")
    assert refusal(capsys, "simulate", path) == (
        f"accel: {path}: layers[0].in_channels must be at least 1, not -3; "
        "layers[0].out_channels must be an integer, not 'many'; layers[0].color is not a known field"
    )


def test_pattern_that_keeps_more_than_its_group_is_refused(capsys):
    assert refusal(capsys, "simulate", "mlp", "--pattern", "5:4") == (
        "accel: keep must be between 1 and group (4), not 5; a pattern is written kept:group, for example 2:8"
    )


def test_group_larger_than_the_machines_is_refused(capsys):
    assert refusal(capsys, "simulate", "mlp", "--pattern", "2:16") == (
        "accel: pattern group must be at most the group of sat-vcu1525 (8), not 16 (pattern 2:16); "
        "choose a machine with a larger group"
    )


def test_group_that_does_not_divide_the_machines_is_refused(capsys):
    assert refusal(capsys, "simulate", "mlp", "--pattern", "1:3") == (
        "accel: group of pattern 1:3 must divide the machine's group (8), not 3; "
        "choose a pattern with a smaller group or a machine with a larger one"
    )


def test_buffer_too_small_for_one_tile_is_refused(tmp_path, capsys):
    path = tmp_path / "arch.toml"
    preset("test").replace(name="tight", west_buffer_bytes=32, output_buffer_bytes=100).save(path)
    assert refusal(capsys, "simulate", "mlp", "--arch", path, "--pattern", "2:4") == (
        "accel: tight: west_buffer_bytes must be at least 64 to hold one tile twice, not 32; "
        "output_buffer_bytes must be at least 256 to hold one tile twice, not 100"
    )


def test_dimensions_of_a_million_million_are_refused(tmp_path, capsys):
    path = trace_file(tmp_path, in_channels=10**12)
    assert refusal(capsys, "simulate", path) == (
        f"accel: {path}: layers[0].in_channels must be at most 2147483648, not 1000000000000"
    )


def test_products_of_sizes_that_overflow_are_refused(tmp_path, capsys):
    path = trace_file(tmp_path, in_size=[2**20, 2**20], in_channels=2**20, out_channels=2**20)
    assert refusal(capsys, "simulate", path, "--batch", "1") == (
        f"accel: layer conv1: FF must have less than 2**52 multiply-accumulates, not {9 * 2**80}; lower the batch"
    )


def test_unknown_operator_is_refused_with_its_count(tmp_path, capsys):
    path = trace_file(tmp_path, op="fft")
    assert refusal(capsys, "simulate", path) == (
        f"accel: {path}: 1 unsupported operator: fft (1); add them to --allow-ops to count them as free"
    )


def test_allowed_operator_is_free_and_named(tmp_path, capsys):
    fields = {**TINY, "layers": [*TINY["layers"], {"op": "fft", "name": "spectrum", "inputs": ["fc"]}]}
    path = tmp_path / "net.json"
    path.write_text(json.dumps(fields))
    assert main(["simulate", str(path), "--allow-ops", "fft"]) == 0
    assert "not lowered, counted as free: spectrum (fft)" in capsys.readouterr().out


def test_directory_for_a_file_is_refused(tmp_path, capsys):
    assert refusal(capsys, "simulate", tmp_path) == f"accel: {tmp_path} must be a file, not a directory"


def test_missing_file_is_refused(tmp_path, capsys):
    assert refusal(capsys, "simulate", tmp_path / "no.json") == f"accel: {tmp_path / 'no.json'} does not exist"


def test_unknown_network_is_refused_with_the_list(capsys):
    line = refusal(capsys, "simulate", "resnet19")
    assert line == f"accel: network must be one of {', '.join(networks.names())}, or a JSON file, not 'resnet19'"


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--method", "magic", "method must be one of dense, bdwp, sr-ste, sdgp, bp-only, fully-sparse, not 'magic'"),
        ("--optimizer", "lion", "optimizer must be one of sgd, sgd-plain, adam, not 'lion'"),
        ("--batch", "0", "batch must be between 1 and 16777216, not 0"),
        ("--batch", "x", "argument --batch: invalid int value: 'x'; see accel simulate --help"),
        ("--pattern", "two", "pattern must be two integers like 2:8, not 'two'"),
        ("--dense-layers", "nothing*", "dense_layers must match a weight layer of mlp, not 'nothing*'"),
        (
            "--json",
            "no/such/place.json",
            "output must lie in an existing directory, not no/such/place.json; create no/such first",
        ),
    ],
)
def test_bad_option_is_refused(option, value, message, capsys):
    assert refusal(capsys, "simulate", "mlp", option, value) == f"accel: {message}"


def test_unwritable_output_is_refused_before_any_work(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    assert refusal(capsys, "simulate", "mlp", "--csv", tmp_path / "out.csv") == (
        f"accel: output must be writable, not {tmp_path / 'out.csv'}; choose another place"
    )


def test_directory_as_output_is_refused(tmp_path, capsys):
    assert (
        refusal(capsys, "simulate", "mlp", "--json", tmp_path) == f"accel: output must be a file, not the directory {tmp_path}"
    )


def test_step_too_large_for_the_boards_memory_is_refused(capsys):
    line = refusal(capsys, "simulate", "resnet50", "--arch", "edge-kv260", "--batch", "256")
    assert line.startswith("accel: dram_capacity_bytes of edge-kv260 must be at least ")
    assert line.endswith(" for resnet50 at batch 256, not 4294967296; lower the batch")


def test_help_names_every_option():
    shown = subprocess.run([sys.executable, "-m", "accel", "simulate", "--help"], capture_output=True, text=True, check=True)
    for option in (
        "--arch",
        "--method",
        "--pattern",
        "--batch",
        "--dense-layers",
        "--optimizer",
        "--json",
        "--csv",
        "--layers",
    ):
        assert option in shown.stdout


def test_a_reader_that_leaves_early_is_no_error():
    pipe = f"{sys.executable} -m accel simulate resnet9 --layers | head -1"
    shown = subprocess.run(["bash", "-o", "pipefail", "-c", pipe], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")


@pytest.mark.parametrize(
    ("layer", "batch"),
    [
        ({"op": "linear", "name": "fc", "inputs": ["x"], "in_features": 8, "out_features": 8}, 1),
        ({"op": "matmul", "name": "mm", "inputs": ["x"], "m": 2, "n": 2, "k": 2}, 64),
        (
            {
                "op": "linear",
                "name": "[/bold]fc[red]",
                "inputs": ["x"],
                "in_features": 8,
                "out_features": 8,
                "trainable": False,
            },
            4,
        ),
    ],
)
def test_small_odd_networks_run(layer, batch, tmp_path, capsys):
    path = tmp_path / "net.json"
    path.write_text(json.dumps({**TINY, "layers": [layer]}))
    assert main(["simulate", str(path), "--batch", str(batch)]) == 0
    assert layer["name"] in capsys.readouterr().out


def test_a_network_without_products_is_refused(tmp_path, capsys):
    path = tmp_path / "net.json"
    path.write_text(json.dumps({**TINY, "layers": [{**TINY["layers"][1], "inputs": ["x"]}]}))
    message = "accel: network tiny must have a product to run, not only vector operators"
    assert refusal(capsys, "simulate", path) == message
    assert refusal(capsys, "simulate", path, "--model", "closed-form") == message
    assert refusal(capsys, "compile", path, "-o", tmp_path / "x.prog") == message
    assert not (tmp_path / "x.prog").exists()


def test_dense_training_explains_no_loss(capsys):
    main(["simulate", "mlp", "--method", "dense"])
    assert "from the MACs'" not in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [["--method", "dense"], ["--patterns", "8:8"], ["--patterns", ""]])
def test_comparing_dense_with_dense_is_refused(arguments, capsys):
    assert refusal(capsys, "compare", "mlp", *arguments) == (
        "accel: compare must have a sparse method and sparse patterns, not dense ones; dense is what it compares with"
    )


def test_comparing_at_no_batch_is_refused(capsys):
    assert refusal(capsys, "compare", "mlp", "--batch", "0") == "accel: batch must be between 1 and 16777216, not 0"


def test_csv_goes_to_standard_output_alone(capsys):
    assert main(["simulate", "mlp", "--csv", "-"]) == 0
    assert capsys.readouterr().out.startswith("name,stage,part,")


def test_two_outputs_in_one_place_are_refused(capsys):
    line = refusal(capsys, "simulate", "mlp", "--csv", "-", "--json", "-")
    assert line == "accel: json and csv must go to different places, not both to -"


def test_one_file_under_two_names_is_one_place(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there").write_text("kept")
    (tmp_path / "link").symlink_to("there")
    os.link("there", "hard")
    for one, other in (("./new", "new"), (tmp_path / "new", "new"), ("link", "there"), ("hard", "there")):
        line = refusal(capsys, "simulate", "mlp", "--json", one, "--csv", other)
        assert line == f"accel: json and csv must go to different places, not both to {one}"
        line = refusal(capsys, "simulate", "mlp", "--timeline", one, "--json", other)
        assert line == f"accel: timeline must go to a place of its own, not to {one}"
    assert (tmp_path / "there").read_text() == "kept"
    assert not (tmp_path / "new").exists()


def test_outputs_over_an_input_are_refused(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    net = trace_file(tmp_path)
    machine = tmp_path / "m.toml"
    preset("edge-kv260").save(machine)
    topology, source = tmp_path / "t.csv", tmp_path / "net.py"
    topology.write_text("Layer, M, N, K\nfc, 1, 2, 3\n")
    source.write_text("def net(): ...\n")
    contents = {path: path.read_bytes() for path in (net, machine, topology, source)}
    for command, read, output in (
        (["simulate", net, "--json"], net, "./net.json"),
        (["simulate", net, "--csv"], net, net),
        (["simulate", net, "--timeline"], net, net),
        (["simulate", "mlp", "--arch", machine, "--json"], machine, "m.toml"),
        (["simulate", "mlp", "--energy", machine, "--json"], machine, machine),
        (["simulate", "mlp", "--dram", machine, "--json"], machine, machine),
        (["report", net, "-o"], net, "net.json"),
        (["scale", net, "--csv"], net, "net.json"),
        (["compile", net, "-o"], net, "net.json"),
        (["compile", "mlp", "--arch", machine, "-o"], machine, machine),
        (["synth", "--arch", machine, "--json"], machine, machine),
        (["import", "scalesim", topology, "-o"], topology, topology),
        (["trace", f"{source}:net", "-o"], source, "net.py"),
    ):
        line = refusal(capsys, *command, output)
        assert line == f"accel: output must be another file than the input {read}, not {output}; choose another place"
    assert {path: path.read_bytes() for path in contents} == contents


def test_a_file_named_like_a_shipped_network_is_no_input(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        assert main(["simulate", "mlp", "--batch", "8", "--json", "mlp"]) == 0
    assert json.loads((tmp_path / "mlp").read_text())["network"] == "mlp"


def test_a_step_is_compiled_and_run_once_for_its_report_and_its_timeline(tmp_path, capsys, monkeypatch):
    compiled = []
    monkeypatch.setattr(
        api, "compile_schedule", lambda planned, run=api.compile_schedule: (compiled.append(planned), run(planned))[1]
    )
    main(["simulate", "mlp", "--batch", "8", "--no-baseline", "--timeline", str(tmp_path / "t.json")])
    assert len(compiled) == 1
    main(["report", "mlp", "--batch", "8", "--compare", "", "-o", str(tmp_path / "page.html")])
    assert len(compiled) == 1 + 2  # the step and dense training


@pytest.mark.parametrize(("said", "words"), [("", "--dense-layers none"), (None, ""), ("fc*", "--dense-layers 'fc*'")])
def test_the_command_of_a_page_keeps_which_layers_are_dense(said, words):
    chosen = [] if said is None else ["--dense-layers", said]
    options = _parser().parse_args(["report", "mlp", *chosen])
    command = step._report_command(options, [])
    assert command == " ".join(
        f"accel report mlp --arch sat-vcu1525 --method bdwp --pattern 2:8 --batch 64 {words} --optimizer sgd --pregenerate on "
        "--model machine --dram flat --objective time --compare '' -o report.html".split()
    )


def test_a_full_disk_is_one_line():
    command = f"{sys.executable} -m accel simulate mlp > /dev/full"
    shown = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (2, "accel: output cannot be written: No space left on device\n")


def test_names_of_two_lines_are_refused(tmp_path, capsys):
    path = trace_file(tmp_path, name="a\nb")
    assert "layers[0].name must be one line of printable text, not 'a\\nb'" in refusal(capsys, "simulate", path)


def test_halves_of_surrogate_pairs_are_refused(tmp_path, capsys):
    path = tmp_path / "net.json"
    path.write_text('{"name": "\\ud800"}')
    assert refusal(capsys, "simulate", path) == (
        f"accel: {path} must be text, not halves of surrogate pairs (\\ud800 to \\udfff)"
    )


@pytest.mark.parametrize(("option", "suffix"), [("network", "json"), ("--arch", "toml")])
@pytest.mark.parametrize("value", ["9" * 5000, "[" * 3000])
def test_numbers_and_nesting_without_end_are_refused(option, suffix, value, tmp_path, capsys):
    path = tmp_path / f"file.{suffix}"
    path.write_text(f'{{"name": {value}}}' if suffix == "json" else f"name = {value}")
    arguments = [path] if option == "network" else ["mlp", "--arch", path]
    assert refusal(capsys, "simulate", *arguments).startswith(f"accel: {path} must be ")


def test_vector_work_that_overflows_is_refused(tmp_path, capsys):
    loss = {"op": "cross_entropy", "name": "loss", "inputs": ["fc"], "in_elems": 2**40, "out_elems": 2**29, "window": 2**31}
    path = tmp_path / "net.json"
    path.write_text(json.dumps({**TINY, "layers": [*TINY["layers"], loss]}))
    assert refusal(capsys, "simulate", path, "--batch", "1") == (
        f"accel: layer loss: FF cross_entropy must have less than 2**60 lane operations and bytes, not {8 * 2**60}; "
        "lower the batch"
    )
