"""`accel rtl` as a user meets it; what is in the folder it writes is tested in tests/rtl/test_package.py."""

import subprocess
import sys

import pytest

from accel.cli import main
from accel.presets import preset

REFUSED = [
    (
        ["--arch", "nope"],
        "arch must be one of sat-vcu1525, sat-vcu1525-g16, test, edge-kv260, dc-128 or a TOML file, not 'nope'",
    ),
    (["--arch", "{folder}/nope.toml"], "{folder}/nope.toml does not exist"),
    (
        ["--arch", "test", "--top", "pe"],
        "argument --top: invalid choice: 'pe' (choose from 'array', 'uspe', 'sore'); see accel rtl --help",
    ),
    (
        ["--arch", "test", "--prefix", "a__"],
        "prefix must be lower-case words joined by single underscores, not 'a__'",
    ),
    (["--arch", "test", "-o", "{folder}/file"], "output must be a folder, not the file {folder}/file"),
    (["--arch", "test", "-o", "{folder}/file/sub"], "output must lie in a folder, not in the file {folder}/file"),
    (
        ["--arch", "test", "-o", "{folder}"],
        "output must be an empty or new folder, not {folder}; give --force to write over what is there",
    ),
    (["--arch", "{folder}/shallow.toml"], "shallow: adder_latency must be between 2 and 8 in hardware, not 1"),
]


@pytest.mark.rtl
@pytest.mark.parametrize(("arguments", "message"), REFUSED)
def test_a_refusal_is_one_line(capsys, tmp_path, arguments, message):
    (tmp_path / "file").write_text("")
    preset("test").replace(name="shallow", adder_latency=1, row_lanes=(1,)).save(tmp_path / "shallow.toml")
    arguments = [argument.format(folder=tmp_path) for argument in arguments]
    if "-o" not in arguments:
        arguments += ["-o", str(tmp_path / "out")]
    try:
        status = main(["rtl", *arguments])
    except SystemExit as stop:
        status = stop.code
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    assert captured.err == f"accel: {message.format(folder=tmp_path)}\n"
    assert not (tmp_path / "out").exists()


@pytest.mark.rtl
def test_a_folder_is_written_and_described(capsys, tmp_path):
    assert main(["rtl", "--arch", "test", "--top", "uspe", "-o", str(tmp_path / "deep" / "out")]) == 0
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"{tmp_path}/deep/out: 11 files; README.md says what they are\n"
    assert (tmp_path / "deep" / "out" / "rtl" / "nm_uspe.v").exists()
    assert main(["rtl", "--arch", "test", "--top", "uspe", "-o", str(tmp_path / "deep" / "out"), "--force"]) == 0
    assert main(["rtl", "--arch", "test", "--top", "uspe", "--prefix", "my_", "-o", str(tmp_path / "other")]) == 0
    assert (tmp_path / "other" / "rtl" / "my_uspe.v").exists()


@pytest.mark.rtl
def test_a_folder_that_cannot_be_written_is_named(capsys, tmp_path, monkeypatch):
    def refuse(*arguments, **options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.mkdir", refuse)
    assert main(["rtl", "--arch", "test", "--top", "sore", "-o", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == f"accel: {tmp_path}/out cannot be written: Permission denied; choose another output\n"


def run(code):
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_without_amaranth_the_extra_is_named(tmp_path):
    code = (
        "import sys; sys.modules['amaranth'] = None; from accel.cli import main; "
        f"sys.exit(main(['rtl', '--arch', 'test', '-o', {str(tmp_path / 'out')!r}]))"
    )
    process = run(code)
    assert process.returncode == 2
    assert process.stderr == "accel: amaranth must be installed, not found; pip install 'nm-accel[rtl]'\n"


def test_the_help_needs_no_amaranth():
    process = run("import sys; sys.modules['amaranth'] = None; from accel.cli import main; main(['rtl', '--help'])")
    assert process.returncode == 0
    assert "--top {array,uspe,sore}" in process.stdout
