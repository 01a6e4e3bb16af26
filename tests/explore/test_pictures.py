"""Pictures of a sweep from the command line, and its page as a browser shows it."""

import json
import re
import shlex

import browser
import pytest

from accel.cli import main
from accel.explore.pareto import front
from accel.explore.store import Results
from accel.html import sweep

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
        "accel: fields must be columns that all points that run have, not 'edges'"
    )
    assert refusal(capsys, folder, "--plot", tmp_path / "plot.gif") == (
        f"accel: plot must be a file that ends in .pdf, .svg, .png, not '{tmp_path / 'plot.gif'}'"
    )
    assert refusal(capsys, folder, "--html", file, "--csv", file) == (
        f"accel: csv, html and plot must go to different places, not all to {file}, {file}"
    )
    assert refusal(capsys, folder, "--point", 99) == "accel: point must be the number of one in the folder, not 99"
    assert refusal(capsys, folder, "--point", 4).startswith("accel: point must be one that runs, not 4: ")
    assert not file.exists()


def page_data(file):
    return json.loads(re.search(r'id="data">(.*?)</script>', file.read_text())[1])


@pytest.fixture(scope="module")
def page(folder, tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "sweep.html"
    assert main(["pareto", str(folder), "--html", str(file)]) == 0
    return file


def test_the_page_names_no_address_and_admits_only_its_own_script(page):
    text = page.read_text()
    assert set(re.findall(r"https?://[^\"' ]+", text)) == {"http://www.w3.org/2000/svg"}
    assert "default-src 'none'" in text
    assert "unsafe" not in text


def test_the_command_of_the_page_writes_it_again(page, folder, capsys):
    (command,) = re.findall(r'<pre id="command">(.*)</pre>', page.read_text())
    assert command == f"accel pareto {folder} --html sweep.html"
    assert main([*shlex.split(command)[1:-1], "-"]) == 0
    assert capsys.readouterr().out == page.read_text()


def test_a_page_of_more_points_than_it_may_have_has_the_front_and_a_sample(folder):
    results = Results.load(folder)
    data = sweep.page_data(results, ["time", "all_luts"], most=1, seed=3)
    best = {str(index) for index in front(results.table, ["time", "all_luts"])["index"]}
    shown = data["indices"].split()
    assert best < set(shown)
    assert len(shown) == len(best) + 1
    assert (data["total"], data["runs"], data["seed"]) == (6, 4, 3)


@pytest.fixture(scope="module")
def started(tmp_path_factory):
    executable = browser.find()
    if executable is None:
        pytest.skip("no Chromium or Chrome on PATH")
    try:
        found = browser.Browser(executable, tmp_path_factory.mktemp("profile"))
    except (RuntimeError, BrokenPipeError) as error:  # some systems install a command that only tells where to get the browser
        pytest.skip(f"{executable} does not start: {error}")
    yield found
    found.close()


@pytest.fixture
def chromium(started):
    started.problems.clear()
    started.requests.clear()
    return started


def text_of(chromium, selector):
    return chromium.value(f"document.querySelector({json.dumps(selector)}).textContent")


def choose(chromium, selector, value):
    chromium.value(
        f"(() => {{ const node = document.querySelector({json.dumps(selector)}); node.value = {json.dumps(value)};"
        "node.dispatchEvent(new Event('change')); })()"
    )


def point_at(chromium, chart, point, kinds=("mouseMoved",)):
    """Move the mouse to a point of a chart, and press there if `kinds` say so."""
    left, top = chromium.value(
        f"(() => {{ const image = CHARTS.{chart}.image; image.scrollIntoView({{block: 'center'}});"
        f"const [x, y] = CHARTS.{chart}.placeOf(INDICES.indexOf('{point}')); const box = image.getBoundingClientRect();"
        "return [box.x + x * box.width / WIDTH, box.y + y * box.width / WIDTH]; })()"
    )
    for kind in kinds:
        chromium.send("Input.dispatchMouseEvent", type=kind, x=left, y=top, button="left", clickCount=1)


def test_the_page_finds_the_front_and_shows_a_point_with_what_reproduces_it(chromium, page, folder, tmp_path, capsys):
    results = Results.load(folder)
    best = front(results.table, ["time", "all_luts"])
    chromium.open(page.as_uri())
    rows = "[...document.querySelectorAll('#front-table tbody tr')].map(line => Number(line.cells[0].textContent))"
    assert chromium.value(rows) == best["index"].tolist()

    point = int(best["index"].iloc[-1])
    point_at(chromium, "scatter", point)
    assert text_of(chromium, "#tip strong") == f"point {point}"
    assert "array rows" in text_of(chromium, "#tip")
    point_at(chromium, "scatter", point, ("mousePressed", "mouseReleased"))
    assert text_of(chromium, "#point-text") == f"Point {point}"

    (arch,) = results.arches(best.tail(1))
    assert text_of(chromium, "#point-machine") == arch.to_toml()
    (tmp_path / f"{arch.name}.toml").write_text(text_of(chromium, "#point-machine"))
    commands = text_of(chromium, "#point-commands").split("\n")
    capsys.readouterr()
    assert main(["pareto", str(folder), "--point", str(point)]) == 0
    hint = "with --arch-out . the files of these machines are written"
    assert capsys.readouterr().out.splitlines()[-3:] == [*commands, hint]
    assert text_of(chromium, "#machine-command") == f"accel pareto {folder} --point {point} --arch-out ."
    assert main([*shlex.split(commands[0].replace(arch.name, str(tmp_path / arch.name)))[1:], "--json", "-"]) == 0
    cycles = json.loads(capsys.readouterr().out)["totals"]["cycles"]
    assert cycles == results.table["mlp.bdwp.2:4.cycles"][point]
    assert chromium.problems == []
    assert chromium.requests == [page.as_uri()]


def test_the_pages_numbers_are_those_of_the_table_to_the_last_bit(chromium, page, folder):
    table = Results.load(folder).table
    chromium.open(page.as_uri())
    for name in ("time", "all_luts", "pes", "array_rows", "mlp.dense.seconds"):
        seen = chromium.value(f"[...COLUMNS.get('{name}').numbers].map(number => Number.isNaN(number) ? null : number)")
        wanted = [None if missing else float(value) for value, missing in zip(table[name], table[name].isna(), strict=True)]
        assert seen == wanted


def test_the_page_filters_and_changes_axes(chromium, page, folder):
    table = Results.load(folder).table
    chromium.open(page.as_uri())
    count = "Number(document.getElementById('shown-count').textContent.split(' ')[0])"
    runs = table[table["problem"].isna()]
    assert chromium.value(count) == len(runs) == 4
    chromium.click("#only-runs")
    assert chromium.value(count) == len(table)
    choose(chromium, "#x-axis", "array_rows")
    choose(chromium, "#y-axis", "pes")
    assert (text_of(chromium, "#x-label"), text_of(chromium, "#y-label")) == ("array rows", "PEs")
    point_at(chromium, "scatter", 5)
    assert "cannot run" in text_of(chromium, "#tip")
    assert table["problem"][5] in text_of(chromium, "#tip")
    chromium.click("#only-runs")

    choose(chromium, "#from-array_rows", "4")
    kept = runs[runs["array_rows"] == 4]
    assert chromium.value(count) == len(kept)
    wanted = front(kept, ["time", "all_luts"])["index"].tolist()
    assert chromium.value("STATE.front.map(point => Number(INDICES[point]))") == wanted
    chromium.click("#clear")
    assert chromium.value(count) == len(runs)
    assert chromium.value("document.getElementById('from-array_rows').value") == "2"
    chromium.click("#to-time")
    chromium.type(str(runs["time"].median()))
    assert chromium.value(count) == (runs["time"] <= runs["time"].median()).sum()
    assert chromium.problems == []


def test_drawing_along_a_parallel_axis_keeps_its_range(chromium, page):
    chromium.open(page.as_uri())
    left, top, width = chromium.value(
        "(() => { const image = CHARTS.parallel.image; image.scrollIntoView({block: 'center'});"
        "const box = image.getBoundingClientRect(); return [box.x, box.y, box.width / WIDTH]; })()"
    )
    x, upper = left + 50 * width, top + 40 * width
    ends = [("mousePressed", upper), ("mouseMoved", upper + 100 * width), ("mouseReleased", upper + 100 * width)]
    for kind, y in ends:
        chromium.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
    assert chromium.value("[...FILTERS.ranges].map(([column, range]) => [column.name, ...range])") == [["array_rows", 300, 300]]
    assert chromium.value("document.getElementById('from-array_rows').value") == "300"
    for kind in ("mousePressed", "mouseReleased"):
        chromium.send("Input.dispatchMouseEvent", type=kind, x=x, y=upper, button="left", clickCount=1)
    assert chromium.value("FILTERS.ranges.size") == 0
    assert chromium.problems == []


def test_a_line_of_the_parallel_coordinates_can_be_pointed_at_and_chosen(chromium, page):
    chromium.open(page.as_uri())
    line, x, y = chromium.value(
        "(() => { const image = CHARTS.parallel.image; image.scrollIntoView({block: 'center'});"
        "const box = image.getBoundingClientRect(), point = STATE.front[0], tracks = STATE.tracks;"
        "const [from, to] = [2, 3].map((at) => "
        "[trackX(at, tracks.length), trackY(tracks[at].share(tracks[at].column.numbers[point]))]);"
        "const [left, top] = [0, 1].map((at) => 0.8 * from[at] + 0.2 * to[at]), scale = box.width / WIDTH;"
        "return [INDICES[point], box.x + left * scale, box.y + top * scale]; })()"
    )
    chromium.value("choosePoint(STATE.front.at(-1)); CHARTS.parallel.image.scrollIntoView({block: 'center'})")
    for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
        chromium.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        if kind == "mouseMoved":
            assert text_of(chromium, "#tip strong") == f"point {line}"
    assert text_of(chromium, "#point-text") == f"Point {line}"
    assert chromium.problems == []


def test_the_keyboard_walks_along_the_front(chromium, page, folder):
    best = front(Results.load(folder).table, ["time", "all_luts"])["index"].tolist()
    chromium.open(page.as_uri())
    for chart in ("scatter", "parallel"):
        chromium.value(f"document.getElementById('{chart}-chart').focus()")
        chromium.key("End", 35)
        assert text_of(chromium, "#tip strong") == f"point {best[-1]}"
        chromium.key("Home", 36)
        chromium.key("Enter", 13)
        assert text_of(chromium, "#point-text") == f"Point {best[0]}"
    assert chromium.problems == []
