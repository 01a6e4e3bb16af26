"""The text form of programs (docs/isa.md, section 5): `to_text` and `from_text` are each other's inverse."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from accel.arch import Arch
from accel.errors import ScheduleError
from accel.program import (
    INSTRUCTION,
    OBJECTS,
    WORK_FIELDS,
    Engine,
    Flag,
    Kernel,
    Mode,
    Program,
    Site,
    Tables,
    Tensor,
    Update,
    View,
    describe_tables,
    used_fields,
)
from accel.validation import parse_json

FIRST_LINE = "nmprog 1"
_ONCE = ("network", "batch", "arch")
_ROWS: dict[str, type[BaseModel]] = {
    "tensor": Tensor,
    "view": View,
    "mode": Mode,
    "kernel": Kernel,
    "update": Update,
    "site": Site,
}
_TYPES: dict[str, TypeAdapter[Any]] = {
    "network": TypeAdapter(str),
    "batch": TypeAdapter(int),
    "arch": TypeAdapter(Arch),
    **{word: TypeAdapter(kind) for word, kind in _ROWS.items()},
}
_ENGINES = {engine.name: int(engine) for engine in Engine}
_FLAGS = {str(flag.name): flag.bit_length() - 1 for flag in Flag}
_MASKS = ("waits", "signals")
_WIDTHS = {name: 8 * INSTRUCTION[name].itemsize for name in INSTRUCTION.names or ()}


def to_text(program: Program) -> str:
    """Return a program as text, one line for each row of its tables and each instruction."""
    return "\n".join([FIRST_LINE, *_table_lines(program.tables), *_instruction_lines(program), ""])


def from_text(text: str, source: str) -> Program:
    """Return the program of a text; `source` names it in an error."""
    reader = _Reader(source)
    for number, line in enumerate(text.split("\n"), start=1):
        reader.read(number, line.strip())
    return reader.program()


def _table_lines(tables: Tables) -> Iterator[str]:
    yield f"network {json.dumps(tables.network, ensure_ascii=False)}"
    yield f"batch {tables.batch}"
    yield f"arch {tables.arch.model_dump_json()}"
    for word in _ROWS:
        for row in getattr(tables, f"{word}s"):
            yield f"{word} {row.model_dump_json()}"


def _instruction_lines(program: Program) -> Iterator[str]:
    names, views, work = INSTRUCTION.names or (), program.tables.views, program.tables.kernels
    for number, record in enumerate(program.instructions.tolist()):
        fields = dict(zip(names, record, strict=True))
        used: tuple[str, ...] = ()
        if fields["opcode"] in _ENGINES.values():
            engine, index = Engine(fields["opcode"]), fields["object"]
            side = views[index].side if engine is Engine.LOAD and index < len(views) else None
            used = used_fields(engine, side, tile=engine is Engine.VECTOR and index < len(work) and work[index].tile)
        yield _instruction_line(number, fields, used)


def _instruction_line(number: int, fields: dict[str, int], used: tuple[str, ...]) -> str:
    opcode = fields["opcode"]
    words = [str(number), _name(_ENGINES, opcode), *(_name(_FLAGS, bit) for bit in _bits(fields["flags"]))]
    words.append(f"{_object_word(opcode)}={fields['object']}")
    words += [f"{field}={fields[field]}" for field in WORK_FIELDS if field in used or fields[field]]
    words.append(f"site={fields['site']}")
    words += [f"{mask}={','.join(_name(_ENGINES, bit) for bit in _bits(fields[mask]))}" for mask in _MASKS if fields[mask]]
    return " ".join(words)


def _object_word(opcode: int) -> str:
    return OBJECTS[Engine(opcode)] if opcode in _ENGINES.values() else "object"


def _bits(mask: int) -> list[int]:
    return [bit for bit in range(8) if mask >> bit & 1]


def _name(names: dict[str, int], value: int) -> str:
    return next((name for name, number in names.items() if number == value), str(value))


class _Reader:
    """The lines of a text so far."""

    def __init__(self, source: str) -> None:
        self.source, self.line, self.begun = source, 0, False
        self.once: dict[str, Any] = {}
        self.rows: dict[str, list[Any]] = {word: [] for word in _ROWS}
        self.lines: dict[str, int] = {}
        """The line of each row, by how the tables name it: "views[3]"."""
        self.records: list[tuple[int, ...]] = []

    def read(self, number: int, line: str) -> None:
        """Read one line."""
        self.line = number
        if not line or line.startswith("#"):
            return
        if not self.begun:
            if line != FIRST_LINE:
                raise self.problem(f"the first line must be {FIRST_LINE!r}, not {_short(line)}")
            self.begun = True
            return
        word, _, rest = line.partition(" ")
        if word.isascii() and word.isdigit():
            self._read_instruction(word, rest.split())
        elif word in _TYPES:
            self._read_row(word, rest)
        else:
            raise self.problem(f"a line must begin with a number or one of {', '.join(_TYPES)}, not {_short(word)}")

    def program(self) -> Program:
        """Return the program of all lines."""
        for word in _ONCE:
            if word not in self.once:
                raise ScheduleError(f"{self.source}: a line {word!r} is missing")
        rows = {f"{word}s": tuple(values) for word, values in self.rows.items()}
        try:
            tables = Tables.model_validate({**self.once, **rows})
        except ValidationError as error:
            raise self._problem_of_tables(describe_tables(error)) from None
        return Program(tables, np.array(self.records, dtype=INSTRUCTION))

    def problem(self, text: str) -> ScheduleError:
        """Return the error for the line being read."""
        return ScheduleError(f"{self.source}: line {self.line}: {text}")

    def _problem_of_tables(self, problems: list[str]) -> ScheduleError:
        for problem in problems:
            row = re.match(r"\w+(\[\d+\])?", problem)
            if row and row[0] in self.lines:
                self.line = self.lines[row[0]]
                return self.problem(problem)
        return ScheduleError(f"{self.source}: {problems[0]}")

    def _read_row(self, word: str, text: str) -> None:
        parse_json(text, f"{self.source}: line {self.line}: {word}", ScheduleError)
        try:
            value = _TYPES[word].validate_json(text, strict=True)
        except ValidationError as error:
            problems = [problem.replace("the file", word, 1) for problem in describe_tables(error)]
            raise self.problem("; ".join(problems)) from None
        if word in _ONCE:
            if word in self.once:
                raise self.problem(f"{word} must stand once, not again after line {self.lines[word]}")
            self.once[word] = value
            self.lines[word] = self.line
            return
        self.lines[f"{word}s[{len(self.rows[word])}]"] = self.line
        self.rows[word].append(value)

    def _read_instruction(self, number: str, words: list[str]) -> None:
        if number != str(len(self.records)):
            raise self.problem(f"the instruction's number must be {len(self.records)}, not {_short(number)}")
        if not words:
            raise self.problem(f"an engine must follow the instruction's number: one of {', '.join(_ENGINES)}, not nothing")
        fields = dict.fromkeys(_WIDTHS, 0)
        fields["opcode"] = self._number_of("the engine", words[0], _ENGINES, 256)
        seen = set()
        for word in words[1:]:
            name, equals, value = word.partition("=")
            if name in seen:
                raise self.problem(f"{name} must stand once, not again")
            seen.add(name)
            if equals:
                self._read_field(fields, name, value)
            else:
                fields["flags"] |= 1 << self._number_of("a flag", word, _FLAGS, 8)
        self.records.append(tuple(fields.values()))

    def _read_field(self, fields: dict[str, int], name: str, value: str) -> None:
        known = (_object_word(fields["opcode"]), *WORK_FIELDS, "site", *_MASKS)
        if name not in known:
            raise self.problem(f"a field must be one of {', '.join(known)}, not {_short(name)}")
        if name in _MASKS:
            for part in value.split(","):
                fields[name] |= 1 << self._number_of(name, part, _ENGINES, 8)
        else:
            field = "object" if name == known[0] else name
            fields[field] = self._number_of(name, value, {}, 1 << _WIDTHS[field])

    def _number_of(self, what: str, word: str, names: dict[str, int], limit: int) -> int:
        """Return the number that a name or digits stand for."""
        if word in names:
            return names[word]
        if re.fullmatch("0|[1-9][0-9]{0,19}", word) is None or int(word) >= limit:
            known = f"{', '.join(names)} or " if names else ""
            raise self.problem(f"{what} must be {known}a whole number below {limit}, not {_short(word)}")
        return int(word)


def _short(text: str) -> str:
    return repr(text if len(text) <= 40 else text[:37] + "...")
