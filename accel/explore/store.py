"""The folder of a sweep: the rows of its points in Parquet parts, and the space they belong to.

A part is written under another name and renamed, so that whatever ends the process leaves every part readable. What a stopped
sweep had evaluated but not written is evaluated again.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from accel.arch import Arch
from accel.errors import ConfigError
from accel.explore import parts
from accel.explore.indices import Indices
from accel.explore.space import Space, machine
from accel.validation import read_text, toml_fields

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

SCHEMA_VERSION = 2
PART_ROWS = 4096
"""Rows at which a part is written, however little time has passed."""
PART_SECONDS = 5.0
"""Time after which a part is written, however few rows it has: what a stopped sweep loses at most."""

_KEY, _SPACE, _BASE, _LOCK, _PARTS = "sweep.json", "space.toml", "base.toml", "lock", "parts"
_UNFINISHED = tuple(f"{name}.tmp" for name in (_KEY, _SPACE, _BASE))
"""Files that a sweep was writing when it was stopped."""


class Folder:
    """The folder of one space, open for writing; a context manager that writes what is left at its end."""

    def __init__(self, path: str | Path, space: Space, part_rows: int = PART_ROWS, part_seconds: float = PART_SECONDS) -> None:
        """Open or make the folder `path` of `space`; refuses that of another space, or one that is in use."""
        parts.arrow()
        self.path, self._space = Path(path), space
        self._part_rows, self._part_seconds = part_rows, part_seconds
        self._waiting: list[pa.Table] = []
        self._written_at = time.monotonic()
        self.rows = 0
        """Rows that are on disk or wait to be."""
        _check_place(self.path)
        try:
            (self.path / _PARTS).mkdir(parents=True, exist_ok=True)
            self._lock = _locked(self.path / _LOCK)
        except OSError as error:
            raise ConfigError(f"{path} cannot be written: {error.strerror}; choose another folder") from None
        try:
            self._open()
        except BaseException:
            os.close(self._lock)
            raise

    def _open(self) -> None:
        """Check whose folder this is; of a new one, write the key last: without it nothing counts as written."""
        fields = [*self._space.axes, *self._space.file.derive]
        key = {"schema_version": SCHEMA_VERSION, "digest": self._space.digest, "fields": fields}
        if not (self.path / _KEY).exists():
            _write_whole(self.path / _SPACE, self._space.text)
            _write_whole(self.path / _BASE, self._space.base.to_toml())
            _write_whole(self.path / _KEY, json.dumps(key))
        elif _read_key(self.path) != key:
            raise ConfigError(f"{self.path} must be a new folder or one of this very space, not of another; choose another")
        for left in filter(Path.exists, (self.path / name for name in _UNFINISHED)):
            left.unlink()
        parts.clean(self.path / _PARTS)
        self.rows = parts.count(self.path / _PARTS)
        self._number = parts.next_number(self.path / _PARTS)

    def add(self, table: pa.Table) -> None:
        """Keep some rows; they are on disk at the latest when the folder is closed."""
        self._waiting.append(table)
        self.rows += len(table)
        if sum(map(len, self._waiting)) >= self._part_rows or time.monotonic() - self._written_at >= self._part_seconds:
            self.flush()

    def flush(self) -> None:
        """Write the rows that are kept."""
        if self._waiting:
            table = parts.arrow().concat_tables(self._waiting)
            parts.write(self.path / _PARTS, self._number, table)
            self._waiting, self._number = [], self._number + 1  # stopped before this, the same part is written again
            parts.merge(self.path / _PARTS, table.schema)
        self._written_at = time.monotonic()

    def done(self) -> Indices:
        """Return the points whose rows are there."""
        self.flush()
        return Indices.of(table.column("index").to_numpy() for table in parts.each(self.path / _PARTS, ["index"]))

    def table(self, columns: Sequence[str]) -> pa.Table | None:
        """Return some columns of every row, in the order of writing; None if there are no rows."""
        self.flush()
        tables = parts.tables(self.path / _PARTS, columns)
        return parts.arrow().concat_tables(tables) if tables else None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            self.flush()
        finally:
            os.close(self._lock)


@dataclass(frozen=True)
class Results:
    """What a folder holds, read without the files that its space file names."""

    table: pd.DataFrame
    """Every row, by index."""
    base: Arch
    toml: dict[str, Any]
    """The space file."""
    fields: tuple[str, ...]
    """The fields of machines that vary or follow."""

    @classmethod
    def load(cls, path: str | Path) -> Results:
        """Return the results of a folder, whether or not its sweep has ended."""
        folder = Path(path)
        key = _read_key(folder)
        toml = toml_fields(read_text(folder / _SPACE, ConfigError), str(folder / _SPACE))
        return cls(_table(folder), Arch.load(folder / _BASE), toml, tuple(key["fields"]))

    def arches(self, table: pd.DataFrame) -> list[Arch]:
        """Return the machine of each row of `table`, part of this one."""
        columns = table[["index", *self.fields]].to_dict("records")
        return [machine(self.base, int(row.pop("index")), _plain(row)) for row in columns]


def load_space(path: str | Path) -> Space:
    """Return the space of a folder, whose file names other files as it did; they must not have changed."""
    digest = _read_key(Path(path))["digest"]
    space = Space.load(Path(path) / _SPACE)
    if space.digest != digest:
        raise ConfigError(f"{Path(path) / _SPACE} must name what it did when {path} was made; it changed since")
    return space


def _plain(row: Mapping[Hashable, Any]) -> dict[str, Any]:
    """Return what a row of a table says of a machine, as `Arch` takes it."""
    fields = {}
    for name, value in row.items():
        given = Arch.model_fields[str(name)].annotation
        fields[str(name)] = int(value) if given is int else float(value) if given is float else tuple(value.tolist())
    return fields


def _check_place(path: Path) -> None:
    """Refuse a folder with other things in it before anything is written there."""
    if path.exists() and not path.is_dir():
        raise ConfigError(f"{path} must be a folder, not a file")
    ours = {_KEY, _SPACE, _BASE, _LOCK, _PARTS, *_UNFINISHED}
    if path.is_dir() and not (path / _KEY).exists():
        others = [entry.name for entry in path.iterdir() if entry.name not in ours]
        if others:
            raise ConfigError(f"{path} must be a new folder or that of a sweep, not one with {min(others)} in it")


def _locked(path: Path) -> int:
    """Return the open file whose lock ends with this process, however that ends."""
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise ConfigError(f"{path.parent} must not be in use by another sweep; wait for it, or choose another folder") from None
    return handle


def _read_key(path: Path) -> Any:
    if not (path / _KEY).is_file():
        raise ConfigError(f"{path} must be the folder of a sweep (accel explore --out)")
    try:
        key = json.loads((path / _KEY).read_text(encoding="utf-8"))
        version = key["schema_version"]
    except (ValueError, TypeError, KeyError):
        raise ConfigError(f"{path / _KEY} must be that of a sweep; the folder is damaged, choose another") from None
    if version != SCHEMA_VERSION:
        raise ConfigError(f"{path / _KEY} must have schema_version {SCHEMA_VERSION}, not {version!r}; sweep into a new folder")
    return key


def _write_whole(path: Path, text: str) -> None:
    with parts.whole(path) as file:
        file.write(text.encode())


def _table(path: Path) -> pd.DataFrame:
    """Return every row, by index; integers stay integers where some are missing."""
    import pandas as pd

    tables = parts.tables(path / _PARTS)
    if not tables:
        raise ConfigError(f"{path} must hold rows; it has none yet")
    pyarrow = parts.arrow()
    table: pd.DataFrame = pyarrow.concat_tables(tables).to_pandas(types_mapper={pyarrow.int64(): pd.Int64Dtype()}.get)
    return table.sort_values("index", ignore_index=True)
