"""`accel scale` as a user meets it: what it prints and writes, and what it says when something is wrong."""

import csv
import io
import json
import os
import pty
import re
import subprocess
import sys

import pytest

from accel import scale
from accel.cli import main

RUN = ["scale", "mlp", "--devices", "1,4,16", "--batch", "8"]

RAGGED = (
    "global_batch must be a positive multiple of every number of devices, not 24 (devices 16); "
    "every machine takes the same share: choose a multiple of 16 or other devices"
)


def refusal(capsys, *arguments):
    """Run the command, check that it exits with 2 and prints one line, and return that line."""
    try:
        status = main(["scale", *map(str, arguments)])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert status == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.removesuffix("\n")


def test_the_table_has_a_line_for_each_number_of_machines(capsys):
    assert main([*RUN[:3], "16,1,4", *RUN[4:]]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert out.startswith("mlp on many sat-vcu1525: bdwp 2:8, sgd, weak scaling, 8 samples a machine\n")
    assert "fp32 gradients over 100 Gbit/s and 5 us, buckets of 25 MiB; replicated update" in out
    assert re.findall(r"^│ +(\d+) │", out, re.MULTILINE) == ["1", "4", "16"]
    assert "100.00%" in out
    assert re.search(r"│ bandwidth +│", out)
    assert "-0.00%" not in out
    assert max(map(len, out.splitlines())) <= 160


def test_no_cell_of_the_largest_tables_is_cut_or_folded(capsys):
    assert main(["scale", "resnet50", "--devices", "4096,32768,1048576", "--global-batch", "1048576"]) == 0
    out = capsys.readouterr().out
    lines = [line for line in out.splitlines() if line.startswith("│")]
    assert len(lines) == 3
    assert all(line.count("│") == len(scale.COLUMNS) + 1 for line in lines)


def test_strong_scaling_says_what_is_shared(capsys):
    assert main(["scale", "mlp", "--devices", "1,2,8", "--global-batch", "64", "--method", "dense", "--update", "sharded"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("mlp on many sat-vcu1525: dense, sgd, strong scaling, 64 samples in all\n")
    assert "sharded update" in out
    assert "lost: share of the step, against 1 machine; at most: the step if the ring's DRAM traffic delayed the machine" in out


def test_json_to_standard_output_is_json_alone(capsys):
    assert main([*RUN, "--json", "-", "--gradients", "fp16", "--bucket-mib", "0.5"]) == 0
    found = json.loads(capsys.readouterr().out)
    asked = {
        "schema_version": 1, "network": "mlp", "arch": "sat-vcu1525", "method": "bdwp", "pattern": "2:8", "optimizer": "sgd",
        "pregenerate": True, "clock_hz": 200e6, "scaling": "weak", "link_gbps": 100.0, "link_latency_us": 5.0,
        "bucket_mib": 0.5, "gradients": "fp16", "update": "replicated",
    }  # fmt: skip
    assert {name: found[name] for name in asked} == asked
    assert [point["devices"] for point in found["points"]] == [1, 4, 16]
    for point in found["points"]:
        assert point["cycles"] == point["compute_cycles"] + point["update_cycles"] + point["exposed_cycles"]
        assert sum(bucket["elems"] for bucket in point["buckets"]) == found["gradient_elems"]
        assert all(bucket["ready_cycles"] <= bucket["start_cycles"] <= bucket["end_cycles"] for bucket in point["buckets"])
        assert all(bucket["elems"] * 2 >= 2**19 for bucket in point["buckets"][:-1])


def test_json_and_csv_files_hold_the_same_points(tmp_path, capsys):
    assert main([*RUN, "--json", str(tmp_path / "s.json"), "--csv", str(tmp_path / "s.csv")]) == 0
    assert "efficiency" in capsys.readouterr().out
    points = json.loads((tmp_path / "s.json").read_text())["points"]
    lines = list(csv.DictReader(io.StringIO((tmp_path / "s.csv").read_text())))
    for point, line in zip(points, lines, strict=True):
        del point["buckets"]
        assert line == {name: str(value) for name, value in point.items()}


def test_equal_runs_write_equal_files(capsys):
    texts = []
    for _ in range(2):
        main([*RUN, "--json", "-"])
        texts.append(capsys.readouterr().out)
    assert texts[0] == texts[1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--devices", "1,two"], "devices must be whole numbers like 1,2,4, not 'two'"),
        (["--devices", "1,-2"], "devices must be whole numbers like 1,2,4, not '-2'"),
        (["--devices", "0"], "devices must be numbers between 1 and 1048576, not 0"),
        (["--devices", ","], "devices must be numbers between 1 and 1048576, not none"),
        (["--batch", "0"], "batch must be between 1 and 16777216, not 0"),
        (["--batch", "x"], "argument --batch: invalid int value: 'x'; see accel scale --help"),
        (
            ["--batch", "8", "--global-batch", "8"],
            "batch must not be given with global_batch; batch is that of one machine, global_batch of all",
        ),
        (["--global-batch", "24", "--devices", "1,8,16"], RAGGED),
        (["--link-gbps", "0"], "link_gbps must be above 0 and at most 1e+06, not 0.0"),
        (["--link-gbps", "fast"], "argument --link-gbps: invalid float value: 'fast'; see accel scale --help"),
        (["--link-latency-us", "-1"], "link_latency_us must be between 0 and 1e+06, not -1.0"),
        (["--bucket-mib", "inf"], "bucket_mib must be above 0 and at most 1e+06, not inf"),
        (["--gradients", "fp8"], "gradients must be one of fp32, fp16, not 'fp8'"),
        (["--update", "never"], "update must be one of replicated, sharded, not 'never'"),
        (["--method", "magic"], "method must be one of dense, bdwp, sr-ste, sdgp, bp-only, fully-sparse, not 'magic'"),
        (["--pattern", "two"], "pattern must be two integers like 2:8, not 'two'"),
        (["--json", "-", "--csv", "-"], "json and csv must go to different places, not both to -"),
        (["--csv", "no/such.csv"], "output must lie in an existing directory, not no/such.csv; create no first"),
    ],
)
def test_bad_options_are_refused(arguments, message, capsys):
    assert refusal(capsys, "mlp", *arguments) == f"accel: {message}"


def test_a_share_too_large_for_memory_is_refused(capsys):
    line = refusal(capsys, "resnet50", "--arch", "edge-kv260", "--global-batch", "256", "--devices", "1,16")
    assert re.fullmatch(
        r"accel: dram_capacity_bytes of edge-kv260 must be at least \d+ for resnet50 at batch 256, not 4294967296; "
        r"lower the batch or leave 1 out of devices",
        line,
    )


def test_the_help_names_every_option():
    shown = subprocess.run([sys.executable, "-m", "accel", "scale", "--help"], capture_output=True, text=True, check=True)
    for option in ("--devices", "--batch", "--global-batch", "--link-gbps", "--link-latency-us", "--bucket-mib", "--gradients"):
        assert option in shown.stdout
    assert "1,2,4,8,16,32,64,128,256,512,1024" in shown.stdout


def test_a_reader_that_leaves_early_is_no_error():
    pipe = f"{sys.executable} -m accel scale mlp | head -1"
    shown = subprocess.run(["bash", "-o", "pipefail", "-c", pipe], capture_output=True, text=True, check=False)
    assert (shown.returncode, shown.stderr) == (0, "")


def progress_of(seconds):
    """Return what appears on a terminal when a run takes `seconds`."""
    code = (
        "import time\nfrom accel.cli.output import after_a_second\n"
        "with after_a_second() as show:\n"
        f"    show('simulating 8 machines')\n    time.sleep({seconds})\n"
    )
    leader, follower = pty.openpty()
    subprocess.run([sys.executable, "-c", code], stderr=follower, check=True, env={**os.environ, "TERM": "xterm"})
    os.set_blocking(leader, False)
    try:
        return os.read(leader, 10_000).decode()
    except BlockingIOError:
        return ""


def test_a_terminal_shows_progress_only_after_a_second():
    assert progress_of(0.01) == ""
    assert "simulating 8 machines" in progress_of(1.6)
