"""The Parquet parts of a folder: files that are whole or not there, merged so that there are never many.

A part is named after the numbers of the writes whose rows it has, first and last. Sixteen parts of alike numbers of writes
become one, written before they are removed; so a part whose writes all lie in another one counts as removed.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from accel.errors import ConfigError

if TYPE_CHECKING:
    import pyarrow as pa

    from accel.explore.evaluate import Row
    from accel.explore.space import Space

MERGED = 16
"""Parts that become one."""
GROUP_ROWS = 65536
"""Rows that a merge has in memory at once, but for the last it reads."""
_TRIES = 100


def arrow() -> Any:
    """Return pyarrow with its Parquet."""
    try:
        import pyarrow.parquet
    except ImportError:
        raise ConfigError("results need pyarrow, which is not installed; install nm-accel[explore]") from None
    return pyarrow


def schema(space: Space) -> pa.Schema:
    """Return the columns of the rows of `space` with their types."""
    types = {int: arrow().int64(), float: arrow().float64(), str: arrow().string()}
    lists = {name: arrow().list_(arrow().string() if name == "dataflows" else arrow().int64()) for name in space.columns}
    return arrow().schema([(name, types.get(kind, lists[name])) for name, kind in space.columns.items()])


def table_of(rows: Sequence[Row], columns: pa.Schema) -> pa.Table:
    """Return `rows` as a table with these columns."""
    return arrow().Table.from_pylist(rows, schema=columns)


class Part(NamedTuple):
    """The rows of some writes, by their numbers."""

    first: int
    last: int

    @property
    def name(self) -> str:
        """Of its file."""
        return f"part-{self.first:08d}-{self.last:08d}.parquet"

    @property
    def level(self) -> int:
        """How often its rows were merged."""
        return (self.last - self.first).bit_length() // (MERGED - 1).bit_length()

    @classmethod
    def of(cls, path: Path) -> Part:
        """Return the part of a file."""
        try:
            _, first, last = path.stem.split("-")
            return cls(int(first), int(last))
        except ValueError:
            raise ConfigError(f"{path} must be a part of a sweep (part-FIRST-LAST.parquet); remove it") from None


def parts(folder: Path) -> list[Part]:
    """Return the parts of `folder` in the order of their writes."""
    left: list[Part] = []
    for part in sorted(map(Part.of, folder.glob("*.parquet")), key=lambda part: (part.first, -part.last)):
        if not left or part.last > left[-1].last:
            left.append(part)
    return left


def clean(folder: Path) -> None:
    """Remove what an end in mid-write left: unfinished files, and parts that are merged."""
    for file in folder.glob("part-*.parquet.tmp"):
        file.unlink()
    names = {part.name for part in parts(folder)}
    for file in folder.glob("*.parquet"):
        if file.name not in names:
            file.unlink()


def tables(folder: Path, columns: Sequence[str] | None = None) -> list[pa.Table]:
    """Return the rows of every part, of some columns; also while another process writes and merges parts."""
    for _ in range(_TRIES):
        try:
            return list(each(folder, columns))
        except FileNotFoundError:  # merged since
            continue
    raise ConfigError(f"{folder} cannot be read while its parts change")


def each(folder: Path, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    """Yield the rows of one part after the other, of some columns; no other process may write to `folder`."""
    for part in parts(folder):
        with _naming(folder / part.name):
            yield arrow().parquet.read_table(folder / part.name, columns=columns, partitioning=None)


def count(folder: Path) -> int:
    """Return the number of rows; no other process may write to `folder`."""
    rows = 0
    for part in parts(folder):
        with _naming(folder / part.name):
            rows += arrow().parquet.read_metadata(folder / part.name).num_rows
    return rows


def next_number(folder: Path) -> int:
    """Return the number of the next write."""
    present = parts(folder)
    return present[-1].last + 1 if present else 0


def write(folder: Path, number: int, table: pa.Table) -> None:
    """Write `table` as the part of one write; written twice, it is there once."""
    _write(folder, Part(number, number), table.schema, iter([table]))


def merge(folder: Path, columns: pa.Schema) -> None:
    """Merge the last parts while enough are alike."""
    while len(alike := _mergeable(parts(folder))) == MERGED:
        _write(folder, Part(alike[0].first, alike[-1].last), columns, _groups(folder, alike))
        for part in alike:
            (folder / part.name).unlink()


def _mergeable(present: list[Part]) -> list[Part]:
    """Return the last parts of one level, at most as many as are merged."""
    return [part for part in present[-MERGED:] if part.level == present[-1].level]


def _groups(folder: Path, merged: Sequence[Part]) -> Iterator[pa.Table]:
    """Yield the rows of some parts in order, about `GROUP_ROWS` at a time."""
    waiting: list[Any] = []
    for part in merged:
        with _naming(folder / part.name), arrow().parquet.ParquetFile(folder / part.name) as file:
            for number in range(file.num_row_groups):
                waiting.append(file.read_row_group(number))
                if sum(map(len, waiting)) >= GROUP_ROWS:
                    yield arrow().concat_tables(waiting)
                    waiting = []
    if waiting:
        yield arrow().concat_tables(waiting)


def _write(folder: Path, part: Part, columns: pa.Schema, groups: Iterator[pa.Table]) -> None:
    with whole(folder / part.name) as file, arrow().parquet.ParquetWriter(file, columns) as writer:
        for table in groups:
            writer.write_table(table, row_group_size=max(len(table), 1))


@contextmanager
def whole(path: Path) -> Iterator[Any]:
    """Give a file to write that is there whole or not at all, and stays."""
    unfinished = path.with_name(f"{path.name}.tmp")
    with unfinished.open("wb") as file:
        yield file
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(path)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    """Name the part that cannot be read."""
    try:
        yield
    except FileNotFoundError:
        raise
    except (OSError, arrow().ArrowException):
        raise ConfigError(f"{path} cannot be read; remove it to have its points evaluated again") from None
