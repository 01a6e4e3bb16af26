"""Pictures of a sweep from the command line."""

import pytest

from accel.cli import main

pytest.importorskip("pyarrow")
pytest.importorskip("matplotlib")

TEXT = """
[arch]
base = "test"
[vary]
array_rows = [2, 4, 300]
row_lanes = [[1], [1, 2]]
[work]
networks = {mlp = 1.0}
batch = 2
methods = [{method = "bdwp", pattern = "2:4"}, {method = "dense"}]
[constraints]
max_pes = 600
[objectives]
names = ["time", "all_luts"]
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("sweep")
    (place / "space.toml").write_text(TEXT)
    assert main(["explore", str(place / "space.toml"), "--out", str(place / "out")]) == 0
    return place / "out"


def refusal(capsys, *arguments):
    assert main(["pareto", *map(str, arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    return err.removesuffix("\n")


@pytest.mark.parametrize("kind", ["front", "parallel", "sensitivity", "heat", "roofline"])
def test_every_kind_of_picture_is_drawn(kind, folder, tmp_path, capsys):
    assert main(["pareto", str(folder), "--plot", str(tmp_path / "plot.svg"), "--kind", kind]) == 0
    assert "are on the front" in capsys.readouterr().out
    drawn = (tmp_path / "plot.svg").read_text()
    assert {"front": "LUTs", "parallel": "row lanes", "roofline": "useful MACs per cycle"}.get(kind, "array rows") in drawn


def test_a_point_is_shown_whether_or_not_it_is_on_the_front(folder, tmp_path, capsys):
    for point in range(4):
        assert main(["pareto", str(folder), "--point", str(point), "--arch-out", str(tmp_path)]) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"point {point} of {folder}\n")
        assert out.count("accel simulate mlp --arch") == 2
        assert (tmp_path / f"test-{point}.toml").exists()


def test_pictures_that_cannot_be_are_refused(folder, tmp_path, capsys):
    file = tmp_path / "plot.svg"
    with_plot = (folder, "--plot", file)
    assert refusal(capsys, folder, "--kind", "heat") == (
        "accel: kind and fields must be given with plot, the file of the picture"
    )
    assert refusal(capsys, *with_plot, "--kind", "heat", "--fields", "array_rows") == (
        "accel: fields must be two for a heat map, not array_rows"
    )
    assert refusal(capsys, *with_plot, "--kind", "sensitivity", "--fields", "edges") == (
        "accel: fields must be columns of the sweep, not 'edges'"
    )
    assert refusal(capsys, folder, "--plot", tmp_path / "plot.gif") == (
        f"accel: plot must be a file that ends in .pdf, .svg, .png, not '{tmp_path / 'plot.gif'}'"
    )
    assert refusal(capsys, folder, "--point", 99) == "accel: point must be the number of one in the folder, not 99"
    assert refusal(capsys, folder, "--point", 4).startswith("accel: point must be one that runs, not 4: ")
    assert not file.exists()
