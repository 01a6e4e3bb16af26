"""Pictures of a sweep: what is drawn is what the table says, and bad input is refused by a whole sentence."""

import re

import numpy as np
import pytest

pd = pytest.importorskip("pandas")
pytest.importorskip("matplotlib")

from accel import api, plot  # noqa: E402
from accel.errors import ConfigError  # noqa: E402
from accel.explore.pareto import front  # noqa: E402
from accel.presets import preset  # noqa: E402

SEED = 7


def table(points=60):
    """Return a table as a sweep makes it; every seventh point cannot run."""
    chance = np.random.default_rng(SEED)
    runs = np.arange(points) % 7 != 3
    rows, lanes = chance.choice([8, 16, 32], points), chance.choice(3, points)
    time = np.where(runs, chance.uniform(1, 2, points) / rows, np.nan)
    return pd.DataFrame({
        "index": np.arange(points),
        "array_rows": pd.array(rows, dtype="Int64"),
        "row_lanes": pd.Series([np.array([[4], [1, 4], [1, 2, 4]][lane]) for lane in lanes]),
        "west_buffer_bytes": pd.array(chance.choice([2**18, 2**20], points), dtype="Int64"),
        "problem": np.where(runs, None, "too small"),
        "time": time,
        "all_luts": np.where(runs, 3000.0 * rows + 20000 * lanes, np.nan),
        "energy_joules": time * chance.uniform(0.5, 2, points),
        "samples_per_second_per_lut": 1 / time,
    })  # fmt: skip


def texts(axes):
    return [text.get_text() for text in axes.texts]


@pytest.mark.parametrize("objectives", [("time", "all_luts"), ("time", "all_luts", "energy_joules")])
def test_a_front_has_every_point_that_runs_and_its_own(objectives):
    rows = table()
    axes = plot.plot_front(rows, objectives).axes[0]
    crowd, best = axes.collections
    known = rows.dropna(subset=["time"])
    assert len(crowd.get_offsets()) == len(known) == 51
    assert len(best.get_offsets()) == len(front(rows, objectives))
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("time of a step (ms)", "LUTs (thousands)")
    np.testing.assert_allclose(crowd.get_offsets()[:, 1], known["all_luts"] / 1000)
    (edge,) = axes.lines
    np.testing.assert_allclose(edge.get_xdata(), front(rows, ("time", "all_luts"))["time"] * 1000)


@pytest.mark.parametrize("objectives", [("time", "all_luts"), ("samples_per_second_per_lut", "all_luts"), ("all_luts", "time")])
def test_no_point_that_runs_lies_beyond_the_line_of_the_front(objectives):
    rows = table()
    axes = plot.plot_front(rows, objectives).axes[0]
    (edge,) = axes.lines
    points = np.asarray(axes.collections[0].get_offsets())
    x, y = np.asarray(edge.get_xdata()), np.asarray(edge.get_ydata())
    less_is_better = objectives[0] != "samples_per_second_per_lut"
    assert edge.get_drawstyle() == ("steps-post" if less_is_better else "steps-pre")
    for across, up in points:
        reached = y[x <= across] if less_is_better else y[x >= across]
        assert up >= reached.min() - 1e-9, f"seed {SEED}"


def test_parallel_coordinates_have_a_line_for_every_point_through_its_values():
    rows, columns = table(), ["array_rows", "row_lanes", "west_buffer_bytes", "time"]
    axes = plot.plot_parallel(rows, columns, ("time", "all_luts")).axes[0]
    crowd, best = axes.collections
    known = rows.dropna(subset=["time"])
    lines = np.array(crowd.get_segments())
    assert lines.shape == (len(known), 4, 2)
    assert len(best.get_segments()) == len(front(rows, ("time", "all_luts")))
    place = {8: 0.0, 16: 0.5, 32: 1.0}
    assert lines[:, 0, 1].tolist() == [place[value] for value in known["array_rows"]]
    assert [label.get_text() for label in axes.get_xticklabels()] == [
        "array rows",
        "row lanes",
        "west buffer",
        "time of a step (ms)",
    ]
    assert {"8", "16", "32", "1,4", "1,2,4", "4", "256 KiB", "1 MiB"} <= set(texts(axes))


def test_parallel_coordinates_of_many_points_are_a_sample_that_says_so():
    axes = plot.plot_parallel(table(4000), ["array_rows", "time"]).axes[0]
    assert len(axes.collections[0].get_segments()) == 3000
    assert axes.get_title(loc="left").startswith("3,429 points that run, 3,000 drawn")


def test_sensitivity_has_a_dot_for_every_value_at_what_it_costs():
    rows = table()
    axes = plot.plot_sensitivity(rows, ["west_buffer_bytes", "array_rows"], ["time"]).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["west buffer", "array rows"]  # the longest on top
    bests = rows.groupby("array_rows")["time"].min() / rows["time"].min()
    np.testing.assert_allclose(axes.collections[1].get_offsets()[:, 0], bests.to_numpy(float))
    assert axes.get_xlabel() == f"best time of a step,\nover the best of all ({rows['time'].min() * 1000:.4g} ms)"
    assert {"32", "8"} <= set(texts(axes))


def test_a_heat_map_has_the_best_of_every_pair_and_a_cross_where_nothing_runs():
    rows = table()
    rows.loc[(rows["array_rows"] == 8) & (rows["west_buffer_bytes"] == 2**20), ["time"]] = None
    axes = plot.plot_heat(rows, "array_rows", "west_buffer_bytes").axes[0]
    cells = axes.images[0].get_array()
    least = rows.groupby(["west_buffer_bytes", "array_rows"])["time"].min().unstack() * 1000
    np.testing.assert_allclose(cells.filled(np.nan), least.to_numpy(float))
    assert texts(axes).count("x") == 1
    assert [label.get_text() for label in axes.get_yticklabels()] == ["256 KiB", "1 MiB"]


def test_a_roofline_has_every_product_under_the_roofs():
    arch = preset("test")
    reports = [api.simulate("mlp", arch, method=method, pattern="2:4", batch=4, baseline=False, model="closed-form")
               for method in ("bdwp", "dense")]  # fmt: skip
    picture = plot.plot_roofline(arch, *reports)
    assert [axes.get_title(loc="left") for axes in picture.axes] == ["mlp, bdwp 2:4, on test", "mlp, dense, on test"]
    for axes, report in zip(picture.axes, reports, strict=True):
        points = np.concatenate([np.asarray(marks.get_offsets()) for marks in axes.collections])
        assert len(points) == sum(row.m is not None for row in report.rows)
        assert (points[:, 1] <= np.minimum(arch.pes, points[:, 0] * arch.dram_bytes_per_cycle) * (1 + 1e-9)).all()
        assert (axes.get_xlabel(), axes.get_ylabel()) == ("useful MACs per DRAM byte", "useful MACs per cycle")


@pytest.mark.parametrize(("suffix", "begin"), [("pdf", b"%PDF"), ("svg", b"<?xml"), ("PNG", b"\x89PNG")])
def test_equal_pictures_are_equal_files_of_the_kind_that_their_name_says(suffix, begin, tmp_path):
    for name in ("one", "other"):
        plot.save(plot.plot_front(table()), tmp_path / f"{name}.{suffix}")
    assert (tmp_path / f"one.{suffix}").read_bytes() == (tmp_path / f"other.{suffix}").read_bytes()
    assert (tmp_path / f"one.{suffix}").read_bytes().startswith(begin)


def test_a_picture_shows_itself_in_a_notebook_and_leaves_other_plots_alone():
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    assert plot.plot_front(table())._repr_png_().startswith(b"\x89PNG")
    assert dict(mpl.rcParams) == before


@pytest.mark.parametrize(
    ("draw", "message"),
    [
        (lambda rows: plot.plot_front(rows, ["time"]), "objectives must be two or more for a front, not ['time']"),
        (lambda rows: plot.plot_parallel(rows, ["time"]), "fields must be 2 or more different names, not ['time']"),
        (lambda rows: plot.plot_heat(rows, "array_rows", "edges"),
         "fields must be columns that all points that run have, not 'edges'"),
        (lambda rows: plot.plot_heat(rows, "problem", "array_rows"),
         "fields must be columns that all points that run have, not 'problem'"),
        (lambda rows: plot.plot_sensitivity(rows, []), "fields must be 1 or more different names, not []"),
        (lambda rows: plot.plot_sensitivity(rows, ["array_rows"], ["edp"]),
         "table must have a point of which edp are known; none of 60 has"),
        (lambda rows: plot.plot_front(rows.assign(time=np.nan)),
         "table must have a point of which time, all_luts are known; none of 60 has"),
        (lambda rows: plot.plot_roofline(preset("test")), "reports must be one or more, not none"),
        (lambda rows: plot.save(plot.plot_front(rows), "front.gif"),
         "plot must be a file that ends in .pdf, .svg, .png, not 'front.gif'"),
    ],
)  # fmt: skip
def test_what_cannot_be_drawn_is_refused(draw, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        draw(table())
