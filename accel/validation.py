"""How the checked types (`Arch`, `Trace`) read their files: one base model, every problem of a file reported at once."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Annotated, Any, Self

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from accel.errors import AccelError, ConfigError, describe_validation

MAX_SIZE = 2**31
"""Largest value of one dimension; products of dimensions are checked where they are formed."""

Text = Annotated[str, Field(min_length=1, max_length=300, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""A name: one line of printable text."""

Count = Annotated[int, Field(ge=0, le=MAX_SIZE)]
Size = Annotated[int, Field(ge=1, le=MAX_SIZE)]
Amount = Annotated[int, Field(ge=1, le=2**46)]
"""Elements of a tensor or bytes of a memory: already a product of sizes."""
Fraction = Annotated[float, Field(gt=0, le=1)]


class Checked(BaseModel):
    """A frozen record that accepts no unknown field and converts no type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, validate_default=True)


class TomlRecord(Checked):
    """A checked record that has a name and stands in a TOML file of its own, with the same field names."""

    name: Text

    def replace(self, **changes: Any) -> Self:
        """Return a checked copy with some fields changed."""
        return self.from_fields({**self.model_dump(), **changes}, source=self.name)

    @classmethod
    def from_fields(cls, fields: dict[str, Any], source: str) -> Self:
        """Return the record described by `fields`; `source` names them in an error."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise refuse(ConfigError, source, describe_validation(error)) from None

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return the record of a TOML file; all problems of the file come in one `ConfigError`."""
        fields = toml_fields(read_text(Path(path), ConfigError), str(path))
        lists_as_tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in fields.items()}
        return cls.from_fields(lists_as_tuples, source=str(path))

    def to_toml(self) -> str:
        """Return the TOML text that `load` reads back to an equal record."""
        return tomli_w.dumps(self.model_dump())

    def save(self, path: str | Path) -> None:
        """Write the TOML file that `load` reads."""
        write_text(Path(path), self.to_toml(), ConfigError)


def toml_fields(text: str, source: str) -> dict[str, Any]:
    """Return the fields of a TOML text, or say in one line what is wrong with it."""
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits and endless nesting
        raise ConfigError(f"{source} must be TOML: {error}") from None


def refuse(error_type: type[AccelError], source: str, problems: list[str]) -> AccelError:
    """Return the one-line error that lists every problem found in `source`."""
    return error_type(f"{source}: " + "; ".join(problems))


def read_text(path: Path, error_type: type[AccelError]) -> str:
    """Return the text of a file, turning every way to fail into one line that names the file."""
    try:
        return path.read_text(encoding="utf-8")
    except IsADirectoryError:
        raise error_type(f"{path} must be a file, not a directory") from None
    except FileNotFoundError:
        raise error_type(f"{path} does not exist") from None
    except UnicodeDecodeError:
        raise error_type(f"{path} must be UTF-8 text, not binary data") from None
    except OSError as error:
        raise error_type(f"{path} cannot be read: {error.strerror}") from None


def write_text(path: Path, text: str, error_type: type[AccelError]) -> None:
    """Write a file whole, or say in one line why not."""
    try:
        path.write_text(text, encoding="utf-8")
    except IsADirectoryError:
        raise error_type(f"{path} must be a file, not a directory") from None
    except OSError as error:
        raise error_type(f"{path} cannot be written: {error.strerror}; choose another output") from None


def parse_json(text: str, source: str, error_type: type[AccelError]) -> Any:
    """Return the value of a JSON text, or say where it breaks off."""
    try:
        value = json.loads(text)
        json.dumps(value, ensure_ascii=False).encode()
        return value
    except json.JSONDecodeError as error:
        raise error_type(
            f"{source} must be complete JSON, not broken at line {error.lineno} column {error.colno} ({error.msg}); "
            "export it again"
        ) from None
    except UnicodeEncodeError:
        raise error_type(f"{source} must be text, not halves of surrogate pairs (\\ud800 to \\udfff)") from None
    except (ValueError, RecursionError) as error:  # numbers of thousands of digits, endless nesting
        raise error_type(f"{source} must be JSON that can be read: {error}") from None
