"""What a function made of a machine, kept for all machines that are alike in the fields it read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar, cast

from accel.arch import Arch

_KEPT = 4096

_Result = TypeVar("_Result")


class Memo(Generic[_Result]):
    """A function of a machine that is called once for machines with equal values of all it ever read of any.

    A function that finds the same values does the same, so it reads nothing else either.
    """

    def __init__(self, function: Callable[[Arch], _Result]) -> None:
        """Remember results of `function`, which must read fields and properties of its machine alone."""
        self._function = function
        self._names: dict[str, None] = {}
        self._results: dict[tuple[Any, ...], _Result] = {}

    def __call__(self, arch: Arch) -> _Result:
        """Return what the function makes of `arch`; what it raises is not remembered."""
        key = tuple([getattr(arch, name) for name in self._names])
        if key in self._results:
            return self._results[key]
        reader = _Reader(arch)
        result = self._function(cast(Arch, reader))
        if len(self._results) >= _KEPT or not reader.names.keys() <= self._names.keys():
            self._results.clear()
            self._names |= reader.names
        self._results[tuple([getattr(arch, name) for name in self._names])] = result
        return result


class _Reader:
    """A machine that notes which of its fields and properties are read."""

    def __init__(self, arch: Arch) -> None:
        self._arch = arch
        self.names: dict[str, None] = {}

    def __getattr__(self, name: str) -> Any:
        self.names[name] = None
        return getattr(self._arch, name)
