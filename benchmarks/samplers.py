"""What samplers find with a few points: the hypervolume of their fronts against random search, over several seeds.

The grid of a space of 4800 machines is swept once, into `--grid`; run it again to go on. Each sampler then asks for points and
is told what the grid says. Objectives are taken as logarithms, their hypervolume from the worst value of any machine that runs,
as a share of that of the whole grid.
"""

import argparse
import statistics
from pathlib import Path

import numpy as np
import pandas as pd

import accel.explore
from accel.explore import Results, Space, sweep
from accel.explore.indices import order
from accel.explore.pareto import hypervolume
from accel.explore.samplers import GENERATIONS, Study

SPACE = Path(accel.explore.__file__).with_name("examples") / "sat.toml"


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", type=Path, default=Path(".cache/samplers"), help="folder of the sweep of the whole grid")
    parser.add_argument("--workers", type=int, default=1, help="processes of that sweep")
    parser.add_argument("--seeds", type=int, default=10)
    options = parser.parse_args()
    space = Space.load(SPACE)
    options.grid.parent.mkdir(parents=True, exist_ok=True)
    sweep(space, options.grid, workers=options.workers)
    names = list(space.file.objectives.names)
    table = Results.load(options.grid).table.set_index("index", drop=False)
    table[names] = np.log(table[names].astype(float))
    worst = table[names].max().tolist()
    whole = hypervolume(table, names, worst)
    runs = int(table["problem"].isna().sum())
    print(f"{space.size} points, {runs} run; {', '.join(names)}; share of the grid's hypervolume, {options.seeds} seeds")
    print(f"{'sampler':8} {'points':>6} {'median':>7} {'least':>7} {'most':>7}")
    for budget in (48, 96, 192, 384):
        for sampler in ("random", *GENERATIONS):
            shares = [share(space, table, sampler, seed, budget, worst) / whole for seed in range(options.seeds)]
            print(f"{sampler:8} {budget:6} {statistics.median(shares):7.3f} {min(shares):7.3f} {max(shares):7.3f}", flush=True)


def share(space: Space, table: pd.DataFrame, sampler: str, seed: int, budget: int, worst: list[float]) -> float:
    """Return the hypervolume of the first points of a sampler."""
    names = list(space.file.objectives.names)
    if sampler == "random":
        points = np.concatenate(list(order(space.size, "random", seed, budget))).tolist()
        return hypervolume(table.loc[points], names, worst)
    costs = table[names].to_numpy()
    study, points = Study(space, sampler, seed), []
    while len(points) < budget:
        asked = study.ask()
        study.tell([None if np.isnan(costs[point]).any() else tuple(costs[point].tolist()) for point in asked])
        points += asked
    return hypervolume(table.loc[points[:budget]], names, worst)


if __name__ == "__main__":
    main()
