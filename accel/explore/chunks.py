"""Chunks: points that are evaluated together, and who evaluates them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from accel.explore import parts
from accel.explore.evaluate import Evaluator
from accel.explore.space import Space

if TYPE_CHECKING:
    import pyarrow as pa


class Chunk(NamedTuple):
    """Points that were evaluated together."""

    table: pa.Table
    """Their rows, by `Space.columns`."""
    seconds: float


class Evaluation(Protocol):
    """Who evaluates points."""

    def parallel(self) -> int:
        """Return how many chunks are evaluated at the same time."""

    def chunks(self, todo: Iterator[Sequence[int]]) -> Iterator[Chunk]:
        """Yield the rows of every list of points, in any order; lists are taken as late as their evaluation allows."""


class Local:
    """Evaluates points in this thread."""

    def __init__(self, space: Space) -> None:
        """Prepare for points of `space`."""
        self._evaluator, self._columns = Evaluator(space), parts.schema(space)

    def parallel(self) -> int:
        """Return 1."""
        return 1

    def chunk(self, points: Sequence[int]) -> Chunk:
        """Return the rows of some points."""
        started = time.perf_counter()
        table = parts.table_of(self._evaluator.rows(points), self._columns)
        return Chunk(table, time.perf_counter() - started)

    def chunks(self, todo: Iterator[Sequence[int]]) -> Iterator[Chunk]:
        """Yield the rows of every list of points, in their order."""
        return map(self.chunk, todo)
