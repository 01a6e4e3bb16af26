"""How the checked types (`Arch`, `Trace`) read their files: one base model, every problem of a file reported at once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

from accel.errors import AccelError

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
