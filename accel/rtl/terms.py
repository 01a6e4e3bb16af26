"""Expressions over any number of terms: of a single one the term itself, which Amaranth's operators would add to 0."""

from __future__ import annotations

from collections.abc import Iterable
from functools import reduce
from operator import add, or_
from typing import Any


def any_of(flags: Iterable[Any]) -> Any:
    """Return whether one of the flags, each 1 bit wide and at least one in number, is set."""
    return reduce(or_, flags)


def sum_of(terms: Iterable[Any]) -> Any:
    """Return the sum of at least one term."""
    return reduce(add, terms)
