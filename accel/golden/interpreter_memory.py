"""What a program works on: tensors in DRAM, tiles in the three buffers, and what is known of whether they are whole.

Tensors go by name and hold numbers in the order of their axes, without the padding to whole words; a compact copy is the
`Entries` of each convolution group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from accel.golden.numeric import Float32s
from accel.golden.prune import Entries, prune
from accel.program import Engine, Program, Tables
from accel.sparsity import NMPattern

Flags = NDArray[np.bool_]
Values = NDArray[Any] | tuple[Entries, ...]
"""A tensor, or a compact copy."""


@dataclass(frozen=True)
class Fault(Exception):
    """What is wrong with one instruction; the interpreter says which."""

    text: str


class Dram:
    """Tensors by name. A tensor written in parts knows which are there; one whose place another has taken is lost."""

    def __init__(self, program: Program, tensors: Mapping[str, Values]) -> None:
        """Start with `tensors`, without those that the program itself makes."""
        self.tables = program.tables
        made = {self.tables.tensors[number].name for number in _made(program)}
        self.values: dict[str, Values] = {name: value for name, value in tensors.items() if name not in made}
        self.filled: dict[str, Flags] = {}
        self.lost: dict[str, str] = {}
        self.neighbours = _neighbours(self.tables)

    def name(self, number: int) -> str:
        """Return the name of a tensor."""
        return self.tables.tensors[number].name

    def has(self, name: str) -> bool:
        """Return whether a tensor is there, at least in part."""
        return name in self.values

    def read(self, name: str) -> Any:
        """Return a whole tensor."""
        self._check(name)
        if name in self.filled and not self.filled[name].all():
            raise Fault(f"tensor {name!r} must be whole, not written in part")
        return self.values[name]

    def read_samples(self, name: str, first: int, count: int) -> Any:
        """Return samples of a tensor whose first axis is the batch."""
        self._check(name)
        value, batch = self.values[name], self.tables.batch
        if isinstance(value, tuple) or len(value) != batch:
            raise Fault(f"tensor {name!r} must have {batch} samples to be read by samples")
        if name in self.filled and not self.filled[name].reshape(batch, -1)[first : first + count].all():
            raise Fault(f"tensor {name!r} must be written where it is read, not later")
        return value[first : first + count]

    def gather(self, name: str, shape: tuple[int, ...], places: NDArray[np.int64], exists: Flags) -> NDArray[Any]:
        """Return the elements at `places` of the flat tensor, 0 where there is none; `shape` is that of the tensor."""
        self._check(name)
        flat = self._flat(name, shape)
        if name in self.filled and not self.filled[name][places[exists]].all():
            raise Fault(f"tensor {name!r} must be written where it is read, not later")
        return np.where(exists, flat[places], flat.dtype.type(0))

    def write(self, name: str, values: Values) -> None:
        """Write a whole tensor."""
        self.values[name] = values
        self.filled.pop(name, None)
        self._take_place(name)

    def scatter(self, name: str, shape: tuple[int, ...], places: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Write elements at `places` of the flat tensor of `shape`."""
        if name not in self.values:
            self.values[name] = np.zeros(shape, values.dtype)
            self.filled[name] = np.zeros(int(np.prod(shape)), np.bool_)
        self._flat(name, shape)[places] = values
        if name in self.filled:
            self.filled[name][places] = True
        self._take_place(name)

    def _flat(self, name: str, shape: tuple[int, ...]) -> NDArray[Any]:
        value = self.values[name]
        if isinstance(value, tuple):
            raise Fault(f"tensor {name!r} must be an array, not a compact copy")
        if value.size != np.prod(shape):
            raise Fault(f"tensor {name!r} must have {np.prod(shape)} elements {shape}, not {value.size} {value.shape}")
        return value.reshape(-1)

    def _check(self, name: str) -> None:
        if name in self.lost:
            raise Fault(f"tensor {name!r} must be read before tensor {self.lost[name]!r} takes its place in DRAM, not after")
        if name not in self.values:
            raise Fault(f"tensor {name!r} must be given or written before it is read, not missing")

    def _take_place(self, name: str) -> None:
        self.lost.pop(name, None)
        for other in self.neighbours.get(name, ()):
            if other in self.values:
                self.lost[other] = name


class DramOfSamples(Dram):
    """The same DRAM to an operator on some samples of the batch: of tensors `cut` it reads only those, and it writes those."""

    def __init__(self, dram: Dram, samples: tuple[int, int], cut: frozenset[str]) -> None:
        """Share everything with `dram`; `samples` are the first and how many."""
        self.tables, self.neighbours = dram.tables, dram.neighbours
        self.values, self.filled, self.lost = dram.values, dram.filled, dram.lost
        self.first, self.count, self.cut = *samples, cut

    def read(self, name: str) -> Any:
        """Return a whole tensor, or the samples of one that is cut."""
        return self.read_samples(name, self.first, self.count) if name in self.cut else super().read(name)

    def write(self, name: str, values: Values) -> None:
        """Write the samples; `values` have only those, or the whole batch."""
        batch, end = self.tables.batch, self.first + self.count
        if isinstance(values, tuple) or len(values) not in (batch, self.count):
            raise Fault(f"tensor {name!r} must have {self.count} samples of {batch}, not {len(values)}")
        part = values if len(values) == self.count else values[self.first : end]
        places = np.arange(self.first * part[0].size, end * part[0].size)
        self.scatter(name, (batch, *values.shape[1:]), places, part.reshape(-1))


def _made(program: Program) -> Iterator[int]:
    """Yield the tensors that the program writes but by updates."""
    tables, instructions = program.tables, program.instructions
    for number in np.unique(instructions["object"][instructions["opcode"] == Engine.STORE]):
        yield from tables.views[number].tensors
    for number in np.unique(instructions["object"][instructions["opcode"] == Engine.VECTOR]):
        yield from tables.kernels[number].writes


def _neighbours(tables: Tables) -> dict[str, list[str]]:
    """Return for each tensor those with which it shares bytes of DRAM."""
    starts = np.array([tensor.address for tensor in tables.tensors], np.int64)
    ends = starts + np.array([tensor.bytes for tensor in tables.tensors], np.int64)
    names = [tensor.name for tensor in tables.tensors]
    found = {}
    for number, name in enumerate(names):
        shares = (starts < ends[number]) & (starts[number] < ends)
        shares[number] = False
        found[name] = [names[other] for other in np.flatnonzero(shares)]
    return found


@dataclass
class Tile:
    """What stands in a region of a buffer.

    West `values` (rows, k), north (k, cols) with `kept` saying what takes part; k are the elements of `groups` groups. Results
    (rows, cols): complete if `is_final`, else sums of the groups before `group`.
    """

    words: int
    repeat: int
    values: NDArray[Any]
    row: int = 0
    rows: int = 0
    col: int = 0
    cols: int = 0
    group: int = 0
    groups: int = 0
    run_group: int = 0
    kept: Flags | None = None
    is_pruned: bool = False
    is_final: bool = False


class Buffer:
    """One buffer: tiles by their first word. What is overwritten, even in part, is gone."""

    def __init__(self, side: str) -> None:
        """Start empty; `side` names the buffer in messages."""
        self.side = side
        self.tiles: dict[int, Tile] = {}

    def write(self, address: int, tile: Tile) -> None:
        """Put a tile at `address`."""
        overlapping = [
            other for other, old in self.tiles.items() if other < address + tile.words and address < other + old.words
        ]
        for other in overlapping:
            del self.tiles[other]
        self.tiles[address] = tile

    def read(self, address: int, needed: Mapping[str, int]) -> Tile:
        """Return the tile at `address`, whose fields must be as `needed`."""
        tile = self.tiles.get(address)
        if tile is None:
            raise Fault(f"{self.side} must be where a tile stands, not {address}")
        for field, value in needed.items():
            if getattr(tile, field) != value:
                raise Fault(f"{field} of the tile at {self.side} {address} must be {value}, not {getattr(tile, field)}")
        return tile


@dataclass
class PartialSums:
    """Partial sums of one product in DRAM, (rows, cols), and of each of them which product it is and what has been added."""

    values: Float32s
    tags: NDArray[np.int64]
    """(rows, cols, 2): repeat, groups added; -1: none."""

    @classmethod
    def empty(cls, rows: int, cols: int) -> PartialSums:
        """Return those of a product of which nothing is there."""
        return cls(np.zeros((rows, cols), np.float32), np.full((rows, cols, 2), -1, np.int64))

    def write(self, rows: slice, cols: slice, tile: Tile) -> None:
        """Store a tile."""
        self.values[rows, cols] = tile.values
        self.tags[rows, cols] = tile.repeat, tile.group

    def read(self, rows: slice, cols: slice, repeat: int) -> tuple[Float32s, int]:
        """Return a tile and up to which group it was added up."""
        tags = self.tags[rows, cols]
        repeats, groups = np.unique(tags[..., 0]), np.unique(tags[..., 1])
        if repeats.tolist() != [repeat] or len(groups) != 1:
            raise Fault(f"partial sums must be of repeat {repeat} and of one turn of k, not of {repeats} and {groups}")
        return self.values[rows, cols].copy(), int(groups[0])


def spread(entries: Entries) -> tuple[NDArray[Any], Flags]:
    """Return entries as (taps, elements of a tap with padding, columns), and where there is one."""
    pattern = entries.pattern
    shape = entries.groups * pattern.group, entries.dim_n
    values, kept = np.zeros(shape, entries.values.dtype), np.zeros(shape, np.bool_)
    groups, _, cols = np.nonzero(entries.valid)
    rows = groups * pattern.group + entries.index[entries.valid]
    values[rows, cols] = entries.values[entries.valid]
    kept[rows, cols] = True
    by_tap = entries.k_taps, shape[0] // entries.k_taps, shape[1]
    return values.reshape(by_tap), kept.reshape(by_tap)


def kept_by(matrix: NDArray[Any], pattern: NMPattern, k_taps: int = 1) -> Flags:
    """Return what the golden pruning keeps of `matrix` (dim_k, dim_n)."""
    _, kept = spread(prune(matrix, pattern, k_taps))
    return kept[:, : len(matrix) // k_taps].reshape(matrix.shape)
