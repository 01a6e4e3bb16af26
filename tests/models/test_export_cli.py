"""`accel trace` as a user meets it."""

import os
import pty
import subprocess
import sys

import pytest

from accel.cli import main
from accel.trace import Trace

pytestmark = pytest.mark.torch
pytest.importorskip("torch")

SOURCE = """
import torch
from torch import nn

def build():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 36, 10))

def both():
    return build(), (torch.zeros(4, 3, 8, 8),)

ready = build()
number = 3

def wrong():
    return 3

def broken():
    raise RuntimeError("no weights\\nhere")

def leaves():
    raise SystemExit("bye")

def hungry(food):
    return build()

class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, ids, scale=None):
        x = self.table(ids)
        return x if scale is None else x * scale

class Sort(nn.Module):
    def forward(self, x):
        return torch.sort(x)[0]

class Branch(nn.Module):
    def forward(self, x):
        if x.sum() > 0:
            return x + 1
        return x - 1

class Bug(nn.Module):
    def forward(self, x):
        return x + self.missing

class Leave(nn.Module):
    def forward(self, x):
        raise SystemExit("enough")
"""


def line_of(text):
    return SOURCE[: SOURCE.index(text)].count("\n") + 1


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    (tmp_path / "net.py").write_text(SOURCE)
    yield tmp_path
    for name in ("net", "bad"):
        sys.modules.pop(name, None)


def run(*arguments):
    try:
        return main(["trace", *arguments, "-o", "net.json"])
    except SystemExit as stop:
        return stop.code


def refusal(capfd, *arguments):
    """Run the command, check that it exits with 2 and prints one line, and return that line."""
    status = run(*arguments)
    captured = capfd.readouterr()
    assert status == 2
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err.removesuffix("\n")


def test_without_pytorch_it_says_what_to_install(folder, capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "accel.models.target", raising=False)
    assert refusal(capfd, "net.py:build", "--input", "2x3x8x8") == (
        "accel: tracing a module needs PyTorch, which is not installed; install it with: pip install 'nm-accel[torch]'"
    )


def test_the_command_itself_needs_no_pytorch():
    code = "import sys, accel.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_module_of_a_file_is_traced(folder, capfd):
    assert run("net.py:build", "--input", "2x3x8x8", "--loss", "cross_entropy", "--name", "mine") == 0
    assert capfd.readouterr().err == "net.json: 4 layers\n"
    trace = Trace.load(folder / "net.json")
    assert trace.name == "mine"
    assert [layer.op for layer in trace.layers] == ["conv", "relu", "linear", "cross_entropy"]


@pytest.mark.parametrize("target", ["net.py:both", "net:both"])
def test_example_inputs_may_come_with_the_module(folder, target):
    assert run(target) == 0
    assert Trace.load(folder / "net.json").name == "Sequential"


def test_a_ready_module_and_a_class_will_do(folder):
    assert run("net.py:ready", "--input", "2x3x8x8") == 0
    assert run("net.py:Tokens", "--input", "1x5:int64") == 0
    assert Trace.load(folder / "net.json").inputs == ("ids",)


def test_inputs_may_have_names(folder):
    assert run("net.py:Tokens", "--input", "scale=2x5x4", "--input", "ids=2x5:int64") == 0
    assert set(Trace.load(folder / "net.json").inputs) == {"ids", "scale"}


def test_operator_may_be_counted_as_free(folder):
    assert run("net.py:Sort", "--input", "2x8", "--allow-ops", "sort") == 0
    assert Trace.load(folder / "net.json").layers[0].op == "free"


@pytest.mark.parametrize(
    ("target", "message"),
    [
        ("net.py", "target must be file.py:callable or package.module:callable, not 'net.py'"),
        ("none.py:build", "target must be an existing file, not none.py"),
        ("none:build", "none fails: ModuleNotFoundError: No module named 'none'"),
        ("net.py:nothing", "net.py must define nothing, which it does not; name a callable of its"),
        ("net.py:number", "net.py:number must be a callable that returns a torch.nn.Module, not int"),
        ("net.py:wrong", "net.py:wrong must return a torch.nn.Module, or one and its example inputs, not int"),
        ("net.py:hungry", "net.py:hungry fails: TypeError: hungry() missing 1 required positional argument: 'food'"),
        ("net.py:Sort", "Sort: 1 unsupported operator: sort (1 in Sort); add them to --allow-ops to count them as free"),
    ],
)
def test_target_that_will_not_do_is_refused(folder, capfd, target, message):
    assert refusal(capfd, target, "--input", "2x8") == f"accel: {message}"


@pytest.mark.parametrize(
    ("target", "at", "message"),
    [
        ("net.py:broken", "    raise RuntimeError", "net.py:broken fails: {}: RuntimeError: no weights"),
        ("net.py:leaves", "    raise SystemExit", "net.py:leaves fails: {}: SystemExit: bye"),
        (
            "net.py:Branch",
            "        if x.sum()",
            "Branch cannot be traced: {}: control flow must not depend on data; decide with torch.where instead",
        ),
        ("net.py:Leave", '        raise SystemExit("enough")', "Leave cannot be traced: {}: SystemExit: enough"),
        (
            "net.py:Bug",
            "        return x + self.missing",
            "Bug cannot be traced: {}: AttributeError: 'Bug' object has no attribute 'missing'",
        ),
    ],
)
def test_error_in_the_users_file_is_told_with_file_and_line(folder, capfd, target, at, message):
    place = f"{folder / 'net.py'}:{line_of(at)}"
    assert refusal(capfd, target, "--input", "2x8") == "accel: " + message.format(place)


def test_syntax_error_is_told_with_file_and_line(folder, capfd):
    (folder / "bad.py").write_text("x = 1\ndef f(:\n")
    assert refusal(capfd, "bad.py:f", "--input", "2x8") == (
        f"accel: bad.py fails: {folder / 'bad.py'}:2: SyntaxError: invalid syntax"
    )


SIZES = "--input must be sizes such as 64x3x32x32, 1x128:int64 or ids=1x128:int64, not"


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ([], "net.py:build returns no example inputs; give --input SIZES, such as --input 64x3x32x32"),
        (["2x"], f"{SIZES} '2x'"),
        (["0x3"], f"{SIZES} '0x3'"),
        (["-1x3"], f"{SIZES} '-1x3'"),
        (["a b=2x3"], f"{SIZES} 'a b=2x3'"),
        (["2x3:text"], "--input must have a type among float32, float16, bfloat16, int64, int32, bool, not 'text'"),
        (["x=2x3", "2x3"], "--input must have a name of its own each, or none must have one; write NAME=SIZES for all"),
    ],
)
def test_input_that_will_not_do_is_refused(folder, capfd, inputs, message):
    arguments = [f"--input={text}" for text in inputs]
    assert refusal(capfd, "net.py:build", *arguments) == f"accel: {message}"


@pytest.mark.parametrize("size", [10**12, 10**30])
def test_input_that_is_too_large_is_refused(folder, capfd, size):
    message = f"accel: --input must fit into memory, not be {size}x1000; a few samples will do"
    assert refusal(capfd, "net.py:build", "--input", f"{size}x1000") == message


def test_progress_is_shown_on_a_terminal(folder):
    terminal, stderr = pty.openpty()
    command = [sys.executable, "-m", "accel", "trace", "net.py:build", "--input", "2x3x8x8", "-o", "net.json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=stderr) as process:
        os.close(stderr)
        shown = b"".join(read_terminal(terminal))
        assert process.stdout.read() == b""
    os.close(terminal)
    assert process.returncode == 0
    assert b"importing PyTorch" in shown
    assert shown.count(b"tracing the module") > 1
    assert shown.endswith(b"net.json: 3 layers\r\n")


def read_terminal(terminal):
    try:
        while text := os.read(terminal, 4096):
            yield text
    except OSError:  # how Linux says that nobody writes any more
        return


def test_unwritable_output_is_refused_before_any_work(folder, capfd):
    assert main(["trace", "none.py:build", "-o", "none/net.json"]) == 2
    assert capfd.readouterr().err == ("accel: output must lie in an existing directory, not none/net.json; create none first\n")
