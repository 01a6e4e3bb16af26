"""Samplers that learn from what they saw: Optuna's, one generation of points after the other.

Which points are asked for follows from the seed and from what was told before, in its order, and from nothing else. So a sweep
that was stopped asks for the same points again, and finds those that it had evaluated in its folder.
"""

from __future__ import annotations

import hashlib
import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from accel.errors import ConfigError
from accel.explore.indices import order
from accel.explore.space import Space, Value

if TYPE_CHECKING:
    import optuna

Learning = Literal["nsga2", "tpe"]

GENERATIONS: dict[str, int] = {"nsga2": 48, "tpe": 16}
"""Points of a generation of each sampler: evaluated together, none knows of the others. NSGA-II: its population."""
_TRIES = 8
"""Suggestions for one point; who only repeats points gets one of the random order."""
_CAN_RUN = "can run"

Costs = tuple[float, ...]
"""What a point is judged by: of every objective of the space a number of which less is better."""


class Study:
    """Asks for points of a space, none twice, and learns from what they cost."""

    def __init__(self, space: Space, sampler: Learning, seed: int) -> None:
        """Begin a study of `space`; `seed` may be any integer."""
        self._axes = list(space.axes)
        self._shape = tuple(len(values) for values in space.axes.values())
        self._size = space.size
        self._generation = GENERATIONS[sampler]
        self._trials: list[optuna.Trial] = []
        self._asked: set[int] = set()
        self._random = itertools.chain.from_iterable(at.tolist() for at in order(space.size, "random", seed, space.size))
        with _quiet() as optuna:
            self._failed = optuna.trial.TrialState.FAIL
            self._ranges = {
                name: optuna.distributions.IntDistribution(0, len(values) - 1)
                if _is_ascending(values)
                else optuna.distributions.CategoricalDistribution(range(len(values)))
                for name, values in space.axes.items()
            }
            number = int.from_bytes(hashlib.blake2b(f"{sampler},{seed}".encode(), digest_size=4).digest())
            chosen = (
                optuna.samplers.NSGAIISampler(population_size=self._generation, seed=number)
                if sampler == "nsga2"
                else optuna.samplers.TPESampler(n_startup_trials=self._generation, seed=number)
            )
            directions = ["minimize"] * len(space.file.objectives.names)
            self._study = optuna.create_study(directions=directions, sampler=chosen)

    def ask(self) -> list[int]:
        """Return the points of the next generation, all new; fewer, or none, where no others are left."""
        points: list[int] = []
        with _quiet():
            while len(points) < self._generation and len(self._asked) < self._size:
                points.append(self._ask())
        return points

    def tell(self, costs: Sequence[Costs | None]) -> None:
        """Learn what the points of the last generation cost, in their order; None is a point that cannot run."""
        with _quiet():
            for trial, cost in zip(self._trials, costs, strict=True):
                trial.set_constraint(_CAN_RUN, float(cost is None))
                self._study.tell(trial, cost or [math.inf] * len(self._study.directions))
        self._trials = []

    def _ask(self) -> int:
        """Return a point that was not asked for before, and keep its trial."""
        for _ in range(_TRIES):
            trial = self._study.ask(self._ranges)
            point = self._point(trial.params)
            if point not in self._asked:
                break
            self._study.tell(trial, state=self._failed)  # nothing is learnt from it
        else:
            point = next(point for point in self._random if point not in self._asked)
            self._study.enqueue_trial(self._params(point))
            trial = self._study.ask(self._ranges)
        self._asked.add(point)
        self._trials.append(trial)
        return point

    def _point(self, params: dict[str, Any]) -> int:
        return int(np.ravel_multi_index([params[name] for name in self._axes], self._shape))

    def _params(self, point: int) -> dict[str, int]:
        return {name: int(digit) for name, digit in zip(self._axes, np.unravel_index(point, self._shape), strict=True)}


def _is_ascending(values: Sequence[Value]) -> bool:
    """Return whether neighbours among the values are alike, as those of a number are."""
    numbers = [value for value in values if isinstance(value, int | float)]
    return len(numbers) == len(values) and numbers == sorted(numbers)


@contextmanager
def _quiet() -> Iterator[Any]:
    """Give Optuna, which says nothing of its own meanwhile."""
    try:
        import optuna
    except ImportError:
        raise ConfigError("samplers nsga2 and tpe need optuna, which is not installed; install nm-accel[explore]") from None
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(before)
