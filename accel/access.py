"""`Access`: where the elements of a matrix lie in the tensor that it is read from or written to.

A matrix of a product is a set of (repeat, row, tap, inner): which of equal products, which row of the west operand or column of
the north one, and along k which tap and which element of it; of results (repeat, row, column). Each number is a number in
mixed radix, its digits given by extents, the last one fastest. Along each axis of the tensor an element's place is a sum of
digits times steps; where it lies outside of the axis there is no element: padding, which counts as zero.
"""

from __future__ import annotations

from math import prod
from typing import Annotated, Any, Self

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from accel.validation import MAX_SIZE, Checked, Size

Places = NDArray[np.int64]
Step = Annotated[int, Field(ge=-MAX_SIZE, le=MAX_SIZE)]
Extents = tuple[Size, ...]


class Axis(Checked):
    """One axis of a tensor: an element lies at `offset` plus, for each of `terms` (digit, step), the digit times the step."""

    size: Size
    terms: tuple[tuple[Annotated[int, Field(ge=0, le=64)], Step], ...] = ()
    """Digits count through `repeats`, `rows`, `taps` and `inner` in this order."""
    offset: Step = 0


class Access(Checked):
    """How a matrix lies in a tensor whose axes are `axes`, the last one fastest."""

    axes: Annotated[tuple[Axis, ...], Field(min_length=1)]
    repeats: Extents = ()
    rows: Extents = ()
    taps: Extents = ()
    inner: Extents = ()
    """Of results: the columns."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        count = sum(map(len, (self.repeats, self.rows, self.taps, self.inner)))
        problems = [
            f"axes[{number}].terms must name digits less than the number of extents ({count}), not {digit}"
            for number, axis in enumerate(self.axes)
            for digit, _ in axis.terms
            if digit >= count
        ]
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def shape(self) -> tuple[int, ...]:
        """Sizes of the tensor."""
        return tuple(axis.size for axis in self.axes)

    @property
    def swapped(self) -> Access:
        """The same results with rows and columns exchanged."""
        first, rows, cols = len(self.repeats), len(self.rows), len(self.inner)
        numbers = {first + at: first + cols + at for at in range(rows)} | {first + rows + at: first + at for at in range(cols)}
        axes = tuple(
            Axis(
                size=axis.size, offset=axis.offset, terms=tuple((numbers.get(digit, digit), step) for digit, step in axis.terms)
            )
            for axis in self.axes
        )
        return Access(axes=axes, repeats=self.repeats, rows=self.inner, inner=self.rows)

    def places(
        self, repeat: int, rows: Places, taps: Places | None = None, inner: Places | None = None
    ) -> tuple[Places, NDArray[np.bool_]]:
        """Return where elements lie in the flat tensor, (rows, k), and which of them exist.

        `taps` and `inner` say for each of k elements its tap (default: 0) and its number in it (default: all).
        """
        inner = np.arange(prod(self.inner)) if inner is None else inner
        taps = np.zeros_like(inner) if taps is None else taps
        digits = [
            *(digit[:, None] for digit in _digits(np.array([repeat]), self.repeats)),
            *(digit[:, None] for digit in _digits(rows, self.rows)),
            *(digit[None, :] for digit in _digits(taps, self.taps)),
            *(digit[None, :] for digit in _digits(inner, self.inner)),
        ]
        flat = np.zeros((len(rows), len(inner)), np.int64)
        exists = np.ones(flat.shape, np.bool_)
        for axis in self.axes:
            place: Any = axis.offset + sum(digits[digit] * step for digit, step in axis.terms)
            exists &= (place >= 0) & (place < axis.size)
            flat = flat * axis.size + place
        return np.where(exists, flat, 0), exists


def _digits(numbers: Places, extents: Extents) -> list[Places]:
    """Return the digits of each of `numbers`, one array for each of `extents`."""
    found = []
    for extent in reversed(extents):
        numbers, digit = np.divmod(numbers, extent)
        found.append(digit)
    return found[::-1]
