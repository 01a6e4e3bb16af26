"""Program files: the binary form of docs/isa.md, section 5."""

from __future__ import annotations

import os
import secrets
import struct
import zlib
from contextlib import suppress
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from accel.errors import ScheduleError
from accel.program import INSTRUCTION, Program, Tables, describe_tables
from accel.validation import parse_json, refuse

VERSION = 1
_MAGIC = b"nmprog"
_HEADER = struct.Struct("<6sHIIII")
_ALIGNMENT_BYTES = 64
_LIMIT = 2**32


def to_bytes(program: Program) -> bytes:
    """Return the contents of the file of `program`: equal programs have equal bytes."""
    tables = program.tables.model_dump_json().encode()
    tables += b" " * (-(_HEADER.size + len(tables)) % _ALIGNMENT_BYTES)
    count = len(program.instructions)
    for name, size in (("tables", len(tables)), ("instructions", count)):
        if size >= _LIMIT:
            raise ScheduleError(f"{name} must be less than 2**32 in a program file, not {size}; lower the batch")
    contents = tables + program.instructions.tobytes()
    return _HEADER.pack(_MAGIC, VERSION, len(tables), count, zlib.crc32(contents), 0) + contents


def from_bytes(data: bytes, source: str) -> Program:
    """Return the program in the contents of a file; `source` names it in an error."""
    tables_bytes, count, crc = _read_header(data[: _HEADER.size], len(data), source)
    contents = memoryview(data)[_HEADER.size :]
    found = zlib.crc32(contents)
    if found != crc:
        raise ScheduleError(
            f"{source} must have the CRC-32 that its header says, {crc:#010x}, not {found:#010x}; the file is damaged: "
            "compile it again"
        )
    tables = _read_tables(bytes(contents[:tables_bytes]), source)
    return Program(tables, np.frombuffer(contents, dtype=INSTRUCTION, count=count, offset=tables_bytes).copy())


def load(path: str | Path) -> Program:
    """Return the program of a binary file."""
    source = str(path)
    try:
        with Path(path).open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            header = file.read(_HEADER.size)
            _read_header(header, size, source)  # before all of what may be a very large file is read
            data = header + file.read()
    except IsADirectoryError:
        raise ScheduleError(f"{source} must be a file, not a directory") from None
    except FileNotFoundError:
        raise ScheduleError(f"{source} does not exist") from None
    except ScheduleError:
        raise
    except (OSError, ValueError) as error:
        raise ScheduleError(f"{source} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    except MemoryError:
        raise ScheduleError(f"{source} must fit memory, not be {size} bytes long") from None
    return from_bytes(data, source)


def save(program: Program, path: str | Path) -> None:
    """Write the binary file that `load` reads; until it is whole, under another name."""
    target, data = Path(path), to_bytes(program)
    part = target.parent / f".{target.name[:100]}.{secrets.token_hex(4)}.part"
    try:
        with part.open("xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(target)
    except IsADirectoryError:
        raise ScheduleError(f"{path} must be a file, not a directory") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise ScheduleError(f"{path} cannot be written: {reason}; choose another output") from None
    finally:
        with suppress(OSError, ValueError):
            part.unlink(missing_ok=True)


def _read_header(header: bytes, size: int, source: str) -> tuple[int, int, int]:
    """Return (bytes of the tables, instructions, CRC) of a file of `size` bytes, or say what is wrong with its header."""
    if size < _HEADER.size or len(header) < _HEADER.size:
        raise ScheduleError(f"{source} must be a program file of {_HEADER.size} bytes or more, not {size}")
    magic, version, tables_bytes, count, crc, zero = _HEADER.unpack(header)
    if magic != _MAGIC:
        raise ScheduleError(f"{source} must be a program file, which begins with {_MAGIC!r}, not with {magic!r}")
    if version != VERSION:
        raise ScheduleError(f"{source}: version must be {VERSION}, not {version}; compile the program again")
    if zero:
        raise ScheduleError(f"{source}: bytes 20 to 23 must be 0, not {zero}")
    if (_HEADER.size + tables_bytes) % _ALIGNMENT_BYTES:
        raise ScheduleError(
            f"{source}: the tables must end at a multiple of {_ALIGNMENT_BYTES} bytes, not at {_HEADER.size + tables_bytes}"
        )
    expected = _HEADER.size + tables_bytes + count * INSTRUCTION.itemsize
    if size != expected:
        raise ScheduleError(
            f"{source} must be {expected} bytes long, as its header says, not {size}; the file is damaged: compile it again"
        )
    return tables_bytes, count, crc


def _read_tables(data: bytes, source: str) -> Tables:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        raise ScheduleError(f"{source}: tables must be UTF-8 text, not broken at byte {_HEADER.size + error.start}") from None
    parse_json(text, f"{source}: tables", ScheduleError)
    try:
        return Tables.model_validate_json(text)
    except ValidationError as error:
        raise refuse(ScheduleError, source, describe_tables(error)) from None
