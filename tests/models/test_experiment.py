"""The experiment: what a run is, what survives an interruption, what the table says."""

import math
import os
import re
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from accel.errors import ConfigError

pytestmark = pytest.mark.torch
torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")

from accel.cli import main  # noqa: E402
from accel.models import experiment  # noqa: E402
from accel.models.experiment import Plots, plan, run_experiment, step_seconds_on  # noqa: E402
from accel.models.results import ResultsFile, Row, Run, curves, mean_and_error, summarize, summary_table  # noqa: E402
from accel.models.small import NETWORKS  # noqa: E402
from accel.models.sparse import sparsify  # noqa: E402
from accel.models.tasks import TASKS  # noqa: E402
from accel.models.training import BATCH, NUMERICS, SETTINGS, network, train  # noqa: E402

torch.set_num_threads(1)
RUN = Run("digits", "cnn", "bdwp", "2:8", "fp32", seed=0, epochs=2, samples=192)


def row(run, epoch, accuracy, seconds=None):
    fields = {name: getattr(run, name) for name in run.__dataclass_fields__}
    return Row(**fields, epoch=epoch, train_loss=1.0, test_accuracy=accuracy, step_seconds=seconds, steps=10 * epoch)


@pytest.mark.parametrize("name", TASKS)
def test_a_task_follows_its_seed_and_shares_no_sample_between_its_sets(name):
    data, again, other = TASKS[name](3), TASKS[name](3), TASKS[name](4)
    assert np.array_equal(data.train_x, again.train_x)
    assert np.array_equal(data.test_y, again.test_y)
    assert not np.array_equal(data.train_x, other.train_x)
    assert data.train_x.mean() == pytest.approx(0, abs=1e-5)
    assert data.train_x.std() == pytest.approx(1, abs=1e-5)
    assert set(data.train_y) == set(data.test_y) == set(range(10))
    train_set, test_set = ({sample.tobytes() for sample in part} for part in (data.train_x, data.test_x))
    assert not train_set & test_set
    assert np.bincount(data.test_y).min() > 0.05 * len(data.test_y)


@pytest.mark.parametrize("size", [(8, 8), (40,)])
@pytest.mark.parametrize("name", NETWORKS)
def test_every_layer_but_first_and_last_is_pruned_and_has_sixteen_channels(name, size):
    net = sparsify(NETWORKS[name](size), "bdwp", "2:8", exclude=experiment.DENSE_LAYERS)
    layers = {part: layer for part, layer in net.named_modules() if hasattr(layer, "weight") and layer.weight.dim() > 1}
    assert [part for part, layer in layers.items() if not hasattr(layer, "sparse")] == ["stem", "head"]
    assert all(min(layer.weight.shape[:2]) >= 16 for layer in layers.values() if hasattr(layer, "sparse"))
    assert net(torch.zeros(3, 1, *size)).shape == (3, 10)


@pytest.mark.parametrize("numerics", ["fp32", "autocast", "machine"])
def test_the_same_run_gives_the_same_rows(numerics):
    run = replace(RUN, numerics=numerics)
    rows = list(train(run, 0.5))
    assert rows == list(train(run, 0.5))
    assert [row.epoch for row in rows] == [1, 2]
    assert rows[-1].simulated_seconds == 0.5 * 2 * (192 // BATCH)
    assert rows[1].train_loss < rows[0].train_loss


def test_a_longer_run_learns_the_digits():
    last = list(train(replace(RUN, epochs=8, samples=1024), None))[-1]
    assert last.test_accuracy > 0.9


def test_an_interrupted_experiment_goes_on_with_what_is_missing(tmp_path, monkeypatch):
    runs = [replace(RUN, seed=seed, method=method) for method in ("dense", "bdwp") for seed in (0, 1)]
    whole = run_experiment(runs, tmp_path / "whole")
    trained = []

    def interrupted(run, seconds):
        for done in train(run, seconds):
            if len(trained) == 3:
                raise KeyboardInterrupt
            trained.append(done)
            yield done

    monkeypatch.setattr(experiment, "train", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_experiment(runs, tmp_path / "parts")
    with (tmp_path / "parts" / "results.csv").open("a") as file:
        file.write("digits,cnn,bd")  # a line that was cut off
    calls = []
    monkeypatch.setattr(experiment, "train", lambda run, seconds: (calls.append(run), train(run, seconds))[1])
    assert run_experiment(runs, tmp_path / "parts") == whole
    assert calls == runs[1:]
    calls.clear()
    assert run_experiment(runs, tmp_path / "parts") == whole
    assert calls == []
    lines = [sorted((tmp_path / name / "results.csv").read_text().splitlines()) for name in ("whole", "parts")]
    assert lines[0] == lines[1]


def test_other_runs_in_the_folder_stay(tmp_path):
    other = replace(RUN, epochs=1)
    run_experiment([other], tmp_path)
    rows = run_experiment([RUN], tmp_path)
    assert {row.run for row in rows} == {RUN}
    assert ResultsFile(tmp_path / "results.csv").finished == {RUN, other}


def test_finished_runs_take_the_seconds_of_the_machine_asked_for_now(tmp_path):
    run = replace(RUN, epochs=1)
    for seconds in (0.5, 0.25):
        (row,) = run_experiment([run], tmp_path, lambda step, seconds=seconds: seconds)
        assert row.step_seconds == seconds
        assert [row.step_seconds for row in ResultsFile(tmp_path / "results.csv").rows] == [seconds]


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "results.csv"
    path.write_bytes(b"\xff\xfe")
    message = f"{path} must be a CSV file of this experiment, not another file; choose another folder"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        run_experiment([RUN], tmp_path)
    assert path.read_bytes() == b"\xff\xfe"


def test_a_file_of_other_columns_is_refused(tmp_path):
    path = tmp_path / "results.csv"
    path.write_text("a,b\n1,2\n")
    columns = "task,network,method,pattern,numerics,seed,epochs,samples,epoch,train_loss,test_accuracy,step_seconds,steps"
    with pytest.raises(
        ConfigError, match=f"^{re.escape(f'{path} must have the columns {columns}, not a,b; choose another folder')}$"
    ):
        run_experiment([RUN], tmp_path)
    assert path.read_text() == "a,b\n1,2\n"


def test_the_table_has_means_standard_errors_and_differences_seed_by_seed():
    dense = replace(RUN, method="dense", pattern="dense")
    rows = []
    for seed, (base, sparse) in enumerate([(0.9, 0.88), (0.8, 0.81), (0.7, 0.64)]):
        rows += [row(replace(dense, seed=seed), 1, 0.1, 3.0), row(replace(dense, seed=seed), 2, base, 3.0)]
        rows += [row(replace(RUN, seed=seed), 1, 0.9, 2.0), row(replace(RUN, seed=seed), 2, sparse, 2.0)]
    assert summary_table(summarize(rows)) == [
        ("task", "network", "method", "numerics", "seeds", "accuracy %", "minus dense %", "step speedup"),
        ("digits", "cnn", "dense", "fp32", "3", "80.00 +- 5.77", "", "1.00"),
        ("digits", "cnn", "bdwp 2:8", "fp32", "3", "77.67 +- 7.13", "-2.33 +- 2.03", "1.50"),
    ]
    assert summary_table(summarize(rows[:4]))[2][5:] == ("88.00", "-2.00", "1.50")
    assert math.isnan(mean_and_error([1.0])[1])


def test_curves_are_means_over_seeds_at_each_position():
    rows = [row(replace(RUN, seed=seed), epoch, 0.1 * epoch + 0.2 * seed, 2.0) for seed in (0, 1) for epoch in (1, 2)]
    (curve,) = curves(rows, "simulated_seconds")["digits, cnn"]
    assert curve.label == "bdwp 2:8"
    assert curve.positions == (20.0, 40.0)
    assert curve.accuracy == pytest.approx((0.2, 0.3))
    assert curve.error == pytest.approx((0.1, 0.1))
    assert curves([replace(rows[0], step_seconds=None)], "simulated_seconds") == {}


def test_seconds_are_those_of_the_simulated_dense_network(tmp_path):
    asked = []

    def simulate(trace, arch, **options):
        asked.append((trace, arch, options))
        return type("Report", (), {"seconds": 0.25})

    rows = run_experiment(
        [RUN, replace(RUN, seed=1), replace(RUN, method="slope")], tmp_path, step_seconds_on(simulate, "test")
    )
    assert [row.step_seconds for row in rows] == [0.25] * 4 + [None] * 2
    ((trace, arch, options),) = asked
    weights = [layer.name for layer in trace.layers if layer.op in ("conv", "linear")]
    assert weights == ["stem", "conv2", "conv3", "head"]
    assert arch == "test"
    assert options == {
        "method": "bdwp",
        "pattern": "2:8",
        "batch": BATCH,
        "dense_layers": ("stem", "head"),
        "optimizer": "sgd",
        "baseline": False,
    }


def test_plots_get_their_curves_and_files(tmp_path):
    drawn = []
    plots = Plots(*(lambda panels, path, kind=kind: drawn.append((kind, [*panels], path.name)) for kind in ("epoch", "second")))
    run_experiment([RUN], tmp_path, None, plots)
    run_experiment([replace(RUN, seed=1)], tmp_path, lambda step: 0.5, plots)
    files = [("epoch", ["digits, cnn"], "accuracy_per_epoch.png"), ("second", ["digits, cnn"], "accuracy_per_second.png")]
    assert drawn == [files[0], *files]


def test_plots_draw_a_panel_for_each_task(tmp_path):
    pytest.importorskip("matplotlib")
    from accel.plot import plot_accuracy_per_epoch, plot_accuracy_per_second

    rows = [row(replace(RUN, task=task), epoch, 0.5, 1.0) for task in ("digits", "waves", "more") for epoch in (1, 2)]
    for plot, over in ((plot_accuracy_per_epoch, "epoch"), (plot_accuracy_per_second, "simulated_seconds")):
        plot(curves(rows, over), tmp_path / "plot.png")
        assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


def test_a_plan_takes_everything_by_default_and_each_run_once():
    runs = plan([], [], [], ["fp32"], seeds=2)
    assert len(runs) == len(set(runs)) == len(TASKS) * len(NETWORKS) * len(experiment.DEFAULT_METHODS) * 2
    assert plan(["digits"], ["cnn"], ["bdwp 2:8", "bdwp  2:8"], ["fp32"], 1, 2, 192) == [RUN]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"seeds": 0}, "seeds and epochs must be at least 1, not 0 and None"),
        ({"methods": ["bdwp"]}, "methods must be dense or a method and its pattern like 'bdwp 2:8', not bdwp"),
    ],
)
def test_plans_that_cannot_be_are_refused(fields, message):
    wanted = {"tasks": ["digits"], "networks": ["cnn"], "methods": ["dense"], "numerics": ["fp32"], "seeds": 1, **fields}
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        plan(**wanted)


def test_unknown_names_are_refused_before_anything_is_trained(tmp_path):
    message = (
        "task must be one of digits, waves, not 'digit'; network must be one of cnn, vit, not 'mlp'; "
        "numerics must be one of fp32, autocast, machine, not 'fp8'"
    )
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        run_experiment([replace(RUN, task="digit", network="mlp", numerics="fp8")], tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_dense_start_of_a_seed_is_the_same_for_every_method():
    first, second = (network(replace(RUN, method=method), (8, 8)).state_dict() for method in ("dense", "bdwp"))
    assert all(torch.equal(first[name], second[name]) for name in first)


OPTIONS = ["--quick", "--tasks", "digits", "--networks", "cnn", "--methods", "dense,bdwp 2:8"]


def test_the_command_runs_in_processes_and_is_quiet_in_a_pipe(tmp_path):
    pytest.importorskip("matplotlib")
    command = [sys.executable, "-m", "accel", "experiment", *OPTIONS, "--jobs", "2", "-o", str(tmp_path / "out")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    table = [line.strip("│").split() for line in done.stdout.splitlines() if line.startswith("│")]
    assert [line[:5:2] for line in table] == [["digits", "cnn", "dense"], ["digits", "cnn", "bdwp"]]
    files = {"results.csv", "summary.csv", "accuracy_per_epoch.png", "accuracy_per_second.png"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == files


def refusal(capsys, *arguments):
    """Run the command, check that it exits with 2 and prints one line, and return that line."""
    assert main(["experiment", *arguments]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    return captured.err.removeprefix("accel: ").removesuffix("\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--jobs", "0"], "jobs must be at least 1, not 0"),
        (
            ["--methods", "bdwp 8:2"],
            "keep must be between 1 and group (2), not 8; a pattern is written kept:group, for example 2:8",
        ),
        (["--methods", "bdwp 4:4"], "pattern must keep less than its group for bdwp, not 4:4; train dense instead"),
        (
            ["--methods", "bdwp 2:64"],
            (
                "pattern group must be at most the group of sat-vcu1525 (8), not 64 (pattern 2:64); "
                "choose a machine with a larger group"
            ),
        ),
    ],
)
def test_the_command_refuses_in_one_line_before_it_writes(arguments, message, tmp_path, capsys):
    pytest.importorskip("matplotlib")
    assert refusal(capsys, *OPTIONS, *arguments, "-o", str(tmp_path / "out")) == message
    assert not list(tmp_path.iterdir())


def test_an_output_that_is_a_file_is_refused(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "out").write_text("mine")
    assert refusal(capsys, *OPTIONS, "-o", str(tmp_path / "out")) == (
        f"output must be a folder that can be written to, not {tmp_path / 'out'} (File exists); choose another folder"
    )


@pytest.mark.parametrize(
    ("missing", "needing", "message"),
    [
        ("torch", "accel.models.experiment", "the experiment needs PyTorch, {}: pip install 'nm-accel[experiment]'"),
        ("matplotlib.figure", "accel.plot", "plots need matplotlib, {}: pip install matplotlib"),
        ("sklearn.datasets", "accel.models.tasks", "task digits needs scikit-learn, {}: pip install 'nm-accel[experiment]'"),
    ],
)
def test_the_command_says_what_to_install(missing, needing, message, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")
    package, _, name = needing.rpartition(".")
    monkeypatch.setitem(sys.modules, missing, None)
    if missing != "sklearn.datasets":  # is imported when it is asked for
        monkeypatch.delitem(sys.modules, needing, raising=False)
        monkeypatch.delattr(sys.modules[package], name, raising=False)
    said = message.format("which is not installed; install it with")
    assert refusal(capsys, *OPTIONS, "-o", str(tmp_path / "out")) == said
    assert not list(tmp_path.iterdir())


def test_a_stopped_command_says_how_to_go_on(tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib")

    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(experiment, "run_experiment", stop)
    assert main(["experiment", *OPTIONS, "-o", str(tmp_path)]) == 130
    assert capsys.readouterr().err == f"accel: stopped; the finished runs are in {tmp_path}: start again to go on\n"


def test_the_help_names_everything_there_is(capsys):
    with pytest.raises(SystemExit):
        main(["experiment", "--help"])
    said = " ".join(capsys.readouterr().out.split())
    for names in (TASKS, NETWORKS, NUMERICS):
        assert ", ".join(names) in said
    assert f"{SETTINGS['cnn'].epochs} for cnn, {SETTINGS['vit'].epochs} for vit" in said
