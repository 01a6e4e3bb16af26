"""The page of a step: its numbers are the reports', its text does no harm, and a browser can use it."""

import json
import re
from html.parser import HTMLParser

import browser
import pytest

from accel import api, timeline
from accel.cli import main
from accel.errors import ConfigError
from accel.html import step as html
from accel.presets import preset
from accel.program import Engine
from accel.report import LOSSES, STAGES
from accel.sim.machine import run_program
from accel.trace import Trace

HARM = '</script><b id="harm">&amp;\'"`${1}<!--'
ARCH = preset("sat-vcu1525")


def conv(name, reads, channels):
    sizes = {"in_channels": channels, "out_channels": 32, "in_size": [16, 16]}
    return {"op": "conv", "name": name, "inputs": [reads], "kernel": [3, 3], "stride": [1, 1], "padding": [1, 1],
            "dilation": [1, 1], **sizes}  # fmt: skip


NET = {
    "schema_version": 1,
    "name": "net " + HARM,
    "inputs": ["x"],
    "layers": [
        conv("first", "x", 3),
        {"op": "relu", "name": "relu", "inputs": ["first"], "in_elems": 8192, "out_elems": 8192},
        conv("second " + HARM, "relu", 32),
        {"op": "linear", "name": "fc", "inputs": ["second " + HARM], "in_features": 8192, "out_features": 64, "bias": True},
    ],
}


class Page(HTMLParser):
    """What a browser would see: tags with attributes, the text of each kind of element."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.texts, self._open = [], {}, []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._open.append(dict(attributes).get("id") or tag)

    def handle_data(self, data):
        if self._open:
            self.texts[self._open[-1]] = self.texts.get(self._open[-1], "") + data

    @property
    def data(self):
        return json.loads(self.texts["data"])


@pytest.fixture(scope="module")
def report():
    return api.simulate(Trace.from_fields(NET, "net"), ARCH, pattern="2:8", batch=8)


@pytest.fixture(scope="module")
def lanes():
    program = api.compile_step(Trace.from_fields(NET, "net"), ARCH, pattern="2:8", batch=8)
    return timeline.lanes(program, run_program(program))


@pytest.fixture(scope="module")
def page(report, lanes):
    others = [api.simulate(Trace.from_fields(NET, "net"), ARCH, pattern="2:4", batch=8, baseline=report.baseline), report]
    return html.build_page(report, ARCH, others, "accel report net.json", lanes)


def table(data):
    return [dict(zip(data["columns"], line, strict=True)) for line in data["lines"]]


def test_data_block_holds_the_reports_numbers(page, report):
    data = Page(page).data
    expected = json.loads(report.to_json())
    for run, wanted in ((data["run"], expected), (data["dense"], json.loads(report.baseline.to_json()))):
        layers = wanted.pop("layers")
        assert {key: run[key] for key in wanted} == wanted
        assert [{key: row[key] for key in layers[0]} for row in table(run["rows"])] == layers
    assert [run["label"] for run in data["compared"]] == ["bdwp 2:4", "bdwp 2:8"]
    assert data["compared"][1]["totals"] == expected["totals"]
    assert data["machine"] == ARCH.model_dump(mode="json")


def test_data_block_holds_the_timeline_of_the_same_step(page, report, lanes):
    data = Page(page).data
    assert data["timeline"] == lanes
    assert data["timeline"]["cycles"] == report.cycles == data["timeline"]["edges"][-1]
    names = {(row.name, row.stage, row.part) for row in report.rows}
    assert {tuple(site) for site in lanes["sites"]} <= names
    assert sum(item[4] for items in lanes["lanes"].values() for item in items) == lanes["instructions"]


def test_page_of_the_closed_form_has_no_timeline(tmp_path, capsys):
    output = tmp_path / "page.html"
    assert main(["report", "mlp", "--batch", "8", "--model", "closed-form", "--compare", "", "-o", str(output)]) == 0
    assert Page(output.read_text()).data["timeline"] is None


def test_page_of_the_machine_has_the_timeline_of_the_explained_run(tmp_path, capsys):
    output = tmp_path / "page.html"
    assert main(["report", "mlp", "--batch", "8", "--pregenerate", "off", "--compare", "", "-o", str(output)]) == 0
    data = Page(output.read_text()).data
    assert data["timeline"]["cycles"] == data["run"]["totals"]["cycles"]
    assert data["timeline"]["lanes"]["PRUNE"]


def test_derived_numbers_of_a_product(report):
    row = next(row for row in report.rows if row.engine == "array" and row.pattern == "2:8")
    derived = html.derived(row, report)
    assert derived["macs_per_dram_byte"] * row.dram_bytes == pytest.approx(row.macs_useful)
    assert derived["macs_per_cycle"] == pytest.approx(row.utilization_frac * report.pes)
    assert derived["share_frac"] * report.cycles == pytest.approx(row.cycles)
    assert f"tile {derived['tile']}," in row.mapping
    update = html.derived(next(row for row in report.rows if row.engine == "update"), report)
    assert (update["tile"], update["macs_per_dram_byte"], update["macs_per_cycle"]) == (None, None, None)


@pytest.mark.parametrize("name", ["resnet18", "vit-cifar", "mlp"])
def test_no_product_is_above_the_roofs(name):
    report = api.simulate(name, ARCH, batch=16)
    for row in report.rows:
        point = html.derived(row, report)
        if point["macs_per_cycle"] is not None:
            lanes = ARCH.pes if row.engine == "array" else ARCH.vector_lanes
            assert point["macs_per_cycle"] <= lanes
            assert point["macs_per_cycle"] <= point["macs_per_dram_byte"] * ARCH.dram_bytes_per_cycle * (1 + 1e-9)


def test_layers_add_up_to_stages_and_stages_to_the_step(report):
    layers = html.layer_cycles(report, report.baseline)
    for key, run in (("cycles", report), ("dense_cycles", report.baseline)):
        sums = [sum(column) for column in zip(*layers[key], strict=True)]
        assert sums == [run.stage_cycles(stage) for stage in STAGES]
        whole = html.all_stages(run)
        assert whole["useful_cycles"] + sum(whole["losses"][loss] for loss in LOSSES) == whole["cycles"] == run.cycles


def test_stage_speedups_are_dense_over_sparse_time(report):
    speedups = html.stage_speedups(report)
    assert speedups["FF"] == report.baseline.stage_cycles("FF") / report.stage_cycles("FF")
    assert speedups["total"] == report.speedup_over_dense


def test_names_with_markup_do_no_harm(page):
    seen = Page(page)
    assert not [tag for tag, attributes in seen.tags if tag == "b" or attributes.get("id") == "harm"]
    assert [tag for tag, _ in seen.tags].count("script") == 2
    assert HARM in seen.texts["h1"]
    assert "second " + HARM in seen.data["layers"]["names"]


def test_file_names_that_are_not_text_are_written_as_escapes(report):
    page = html.build_page(report, ARCH, [report], "accel report net\udcff.json")
    assert "net\\udcff.json" in Page(page.encode().decode()).texts["command"]


def test_page_names_no_address_and_admits_only_its_own_script(page):
    seen = Page(page)
    links = [value for _, attributes in seen.tags for key, value in attributes.items() if key in ("src", "href", "action")]
    assert all(link.startswith(("#", "data:,")) for link in links)
    addresses = set(re.findall(r"https?://[^\"' ]+", page))
    assert addresses == {"http://www.w3.org/2000/svg"}
    policy = next(attributes["content"] for tag, attributes in seen.tags if attributes.get("http-equiv"))
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy


def test_anchors_and_ids_of_the_page_exist_once(page):
    seen = Page(page)
    ids = [attributes["id"] for _, attributes in seen.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    anchors = [attributes["href"][1:] for tag, attributes in seen.tags if tag == "a"]
    assert set(anchors) <= set(ids)


def test_report_without_baseline_is_refused(report):
    with pytest.raises(ConfigError, match="dense baseline"):
        html.page_data(report.baseline, ARCH, [])


def test_chosen_runs_hold_the_explained_one_and_what_the_machine_can_run():
    def names(*arguments):
        return [str(run) for run in html.chosen_runs(*arguments)[1]]

    assert names("bdwp", "2:8", None, ARCH) == ["dense", "bdwp:2:4", "bdwp:2:8"]
    assert names("bdwp", "2:4", None, preset("test")) == ["dense", "bdwp:2:4"]
    assert names("sdgp", "2:8", "dense, dense", ARCH) == ["dense", "sdgp:2:8"]
    assert names("dense", "2:8", "", ARCH) == ["dense"]


@pytest.mark.parametrize("text", ["bdwp", ":2:8", "dense:2:8", "bdwp:2", "nosuch:2:8", "bdwp:3:2"])
def test_compare_that_is_no_run_is_refused_in_one_line(text, tmp_path, capsys):
    output = tmp_path / "page.html"
    assert main(["report", "mlp", "--compare", text, "-o", str(output)]) == 2
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.startswith("accel: ")
    assert not output.exists()


def test_output_in_no_directory_is_refused(tmp_path, capsys):
    assert main(["report", "mlp", "-o", str(tmp_path / "no" / "page.html")]) == 2
    assert "existing directory" in capsys.readouterr().err


def test_command_writes_equal_bytes_and_the_command_that_writes_them(tmp_path, capsys):
    words = ["report", "mlp", "--batch", "8", "--compare", "dense", "--dense-layers", "none"]
    one, other = tmp_path / "one.html", tmp_path / "other.html"
    assert main([*words, "-o", str(one)]) == main([*words, "-o", str(other)]) == 0
    assert one.read_bytes() == other.read_bytes()
    command = Page(one.read_text()).texts["command"].split()
    assert command[:3] == ["accel", "report", "mlp"]
    assert command[-4:] == ["--compare", "dense,bdwp:2:8", "-o", "report.html"]
    capsys.readouterr()
    assert main([*command[1:-1], "-"]) == 0
    assert capsys.readouterr().out == one.read_text()


def test_page_of_a_dense_run_has_no_second_run(tmp_path, capsys):
    assert main(["report", "mlp", "--method", "dense", "-o", str(tmp_path / "page.html")]) == 0
    data = Page((tmp_path / "page.html").read_text()).data
    assert data["dense"] is None
    assert [run["label"] for run in data["compared"]] == ["dense", "bdwp 2:4", "bdwp 2:8"]


@pytest.fixture
def chromium(tmp_path):
    executable = browser.find()
    if executable is None:
        pytest.skip("no Chromium or Chrome on PATH")
    try:
        found = browser.Browser(executable, tmp_path / "profile")
    except (RuntimeError, BrokenPipeError) as error:  # some systems install a command that only tells where to get the browser
        pytest.skip(f"{executable} does not start: {error}")
    yield found
    found.close()


def text_of(chromium, selector):
    return chromium.value(f"document.querySelector({json.dumps(selector)}).textContent")


def test_browser_sorts_filters_and_reads_marks(chromium, page, report, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    chromium.open(file.as_uri())
    products = [row for row in report.rows if row.m is not None]
    shown = "[...document.querySelectorAll('#schedule-table tbody tr')].filter(line => !line.hidden)"
    cycles = f"{shown}.map(line => Number(line.cells[3].textContent.replaceAll(',', '')))"

    assert chromium.value(cycles) == [row.cycles for row in products]
    head = "#schedule-table th:nth-child(4)"
    chromium.click(f"{head} button")
    assert chromium.value(cycles) == sorted((row.cycles for row in products), reverse=True)
    chromium.click(f"{head} button")
    assert chromium.value(cycles) == sorted(row.cycles for row in products)
    assert chromium.value(f"document.querySelector('{head}').getAttribute('aria-sort')") == "ascending"

    chromium.click("#filter")
    chromium.type("second WU")
    assert chromium.value(f"{shown}.map(line => line.cells[0].textContent)") == ["second " + HARM]
    assert text_of(chromium, "#row-count").startswith(f"1 of {len(report.rows)} rows")

    assert chromium.value("document.getElementById('tip').hidden")
    chromium.hover("#roofline-chart .mark:last-child")
    assert "useful MACs per DRAM byte" in text_of(chromium, "#tip")
    assert any(row.name in text_of(chromium, "#tip strong") for row in products)

    chromium.value("document.getElementById('layer-chart').focus()")
    chromium.key("ArrowRight", 39)
    longest = max(zip(*html.layer_cycles(report, report.baseline).values(), strict=True), key=lambda layer: sum(layer[1]))[0]
    assert text_of(chromium, "#tip strong").startswith(longest)
    chromium.key("Enter", 13)
    assert chromium.value("document.getElementById('filter').value") == longest
    for box in ("#only-lost", "#roof-dense", "#layer-WU", "#roof-FF"):
        chromium.click(box)
    assert chromium.value("document.querySelectorAll('.point.dense').length") > 0

    assert chromium.value("document.getElementById('harm')") is None
    assert chromium.problems == []
    assert chromium.requests == [file.as_uri()]


def range_of(chromium):
    """Return the cycles that the timeline shows: first, last, all."""
    return [int(number.replace(",", "")) for number in re.findall(r"[\d,]*\d", text_of(chromium, "#timeline-range"))[:3]]


def test_browser_zooms_the_timeline(chromium, page, report, lanes, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    chromium.open(file.as_uri())
    marks = "document.querySelectorAll('#timeline-chart .mark').length"
    every = sum(len(items) for items in lanes["lanes"].values())

    assert range_of(chromium) == [0, report.cycles, report.cycles]
    assert chromium.value(marks) == every
    used = [engine.name for engine in Engine if lanes["lanes"][engine.name]]
    names = "[...document.querySelectorAll('#timeline-chart text[text-anchor=end]')].map(text => text.textContent)"
    assert set(chromium.value(names)) - {"Mcycles", "kcycles"} == {*used, "PEs", "DRAM port"}
    assert chromium.value("document.getElementById('timeline-out').disabled")

    chromium.click("#timeline-in")
    begin, end, _ = range_of(chromium)
    assert (begin + end) / 2 == pytest.approx(report.cycles / 2, abs=2)
    assert end - begin == pytest.approx(report.cycles / 4, abs=2)
    inside = sum(item[0] < end and item[0] + item[1] > begin for items in lanes["lanes"].values() for item in items)
    assert chromium.value(marks) == inside < every

    chromium.click("#timeline-later")
    assert range_of(chromium)[0] == pytest.approx(begin + 3 / 4 * (end - begin), abs=2)
    for _ in range(4):
        chromium.click("#timeline-later")
    assert range_of(chromium)[1] == report.cycles
    for _ in range(12):
        chromium.click("#timeline-in")
    begin, end, _ = range_of(chromium)
    assert end - begin == min(1000, report.cycles)
    chromium.click("#timeline-whole")
    assert range_of(chromium) == [0, report.cycles, report.cycles]

    chromium.hover("#timeline-chart .mark")
    first = lanes["lanes"][used[0]][0]
    assert text_of(chromium, "#tip strong").startswith(f"{used[0]}: {lanes['sites'][first[3]][1]} ")
    chromium.value("document.getElementById('timeline-chart').focus()")
    chromium.key("End", 35)
    assert text_of(chromium, "#tip strong").startswith(f"{used[-1]}: OPT ")
    assert chromium.problems == []


def test_browser_zooms_to_what_was_drawn_over_with_the_mouse(chromium, page, report, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    chromium.open(file.as_uri())
    x, y = chromium.place("#timeline-chart svg.lanes")
    for kind, to in (("mousePressed", x), ("mouseMoved", x + 200), ("mouseReleased", x + 200)):
        chromium.send("Input.dispatchMouseEvent", type=kind, x=to, y=y, button="left", clickCount=1)
    begin, end, _ = range_of(chromium)
    assert report.cycles * 0.3 < begin < report.cycles / 2
    assert report.cycles * 0.1 < end - begin < report.cycles * 0.3
    for click in (1, 2):
        for kind in ("mousePressed", "mouseReleased"):
            chromium.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=click)
    again = range_of(chromium)
    assert again[1] - again[0] == pytest.approx(max((end - begin) / 4, 1000), abs=2)


def test_browser_tells_what_the_array_waited_for(chromium, page, lanes, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page, encoding="utf-8")
    chromium.open(file.as_uri())
    heads = chromium.value("[...document.querySelectorAll('#wait-table thead th')].map(cell => cell.textContent)")
    lines = chromium.value(
        "[...document.querySelectorAll('#wait-table tbody tr')].map(tr => [...tr.cells].map(cell => cell.textContent))"
    )
    table = {
        line[0]: dict(zip(heads[1:-1], (int(text.replace(",", "")) for text in line[1:-1]), strict=True)) for line in lines
    }
    for stage, by_engine in lanes["waits"].items():
        assert {engine: cycles for engine, cycles in table[stage].items() if cycles and engine != "all"} == by_engine
    assert table["total"]["all"] == sum(sum(by_engine.values()) for by_engine in lanes["waits"].values())


def test_browser_shows_no_timeline_of_the_closed_form(chromium, report, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(html.build_page(report, ARCH, [report], "accel report net.json"), encoding="utf-8")
    chromium.open(file.as_uri())
    assert chromium.value("document.getElementById('timeline-shown').hidden")
    assert not chromium.value("document.getElementById('timeline-none').hidden")
    assert chromium.problems == []


def test_browser_runs_no_script_but_the_pages_own(chromium, page, tmp_path):
    file = tmp_path / "page.html"
    file.write_text(page.replace("</main>", "</main><script>document.title = 'harmed'</script>"), encoding="utf-8")
    chromium.open(file.as_uri())
    assert chromium.value("document.title") != "harmed"
    assert "Content Security Policy" in str(chromium.problems)
