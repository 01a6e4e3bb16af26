"""The errors a user can meet: every one is a `ValueError` whose text names the field and the way out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pydantic import ValidationError
    from pydantic_core import ErrorDetails


class AccelError(ValueError):
    """Base of all errors that speak to the user."""


class ConfigError(AccelError):
    """A machine, method, pattern or option that cannot be."""


class TraceError(AccelError):
    """A network description that is unreadable or contradicts itself."""


class ScheduleError(AccelError):
    """Work that the machine cannot run."""


class UnsupportedOpError(TraceError):
    """An operator that cannot be lowered."""


_CONSTRAINTS = {
    "greater_than": "must be greater than {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be less than {lt}",
    "less_than_equal": "must be at most {le}",
    "too_short": "must have {min_length} or more entries",
    "too_long": "must have {max_length} or fewer entries",
    "string_too_short": "must not be empty",
    "string_too_long": "must have {max_length} or fewer characters",
    "string_pattern_mismatch": "must be one line of printable text",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "int_parsing_size": "must be less than 2**63",
    "float_type": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "string_type": "must be a string",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a table of named fields",
    "model_type": "must be a table of named fields",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "must have an {discriminator} among {expected_tags}",
}


def describe_validation(error: ValidationError) -> list[str]:
    """Return every problem of a pydantic validation as "field must be constraint, not value"."""
    found = [text for problem in error.errors(include_url=False) for text in _describe(problem)]
    return list(dict.fromkeys(found))


def _describe(problem: ErrorDetails) -> list[str]:
    where = _location(problem["loc"]) or "the file"
    if problem["type"] == "too_short" and len(problem["input"]) >= problem["ctx"]["min_length"]:
        return []  # entries that were wrong themselves were not counted: they have been reported
    if problem["type"] == "value_error":
        texts = str(problem["ctx"]["error"]).split("\n")
        return [f"{where}.{text}" if problem["loc"] else text for text in texts]
    return [_describe_type(problem, where)]


def _describe_type(problem: ErrorDetails, where: str) -> str:
    kind, value = problem["type"], problem["input"]
    context: dict[str, Any] = problem.get("ctx", {})
    if kind == "missing":
        return f"{where} is missing"
    if kind == "extra_forbidden":
        return f"{where} is not a known field"
    if kind == "union_tag_not_found":
        return f"{where}.{context['discriminator'].strip(chr(39))} is missing"
    if kind == "union_tag_invalid":
        tag = context["tag"]
        return f"{where}.op must be one of {context['expected_tags']}, not {tag!r}"
    if kind in _CONSTRAINTS:
        return f"{where} {_CONSTRAINTS[kind].format(**context)}, not {_short(value)}"
    return f"{where}: {problem['msg']}, not {_short(value)}"


def _location(parts: Sequence[int | str]) -> str:
    text = ""
    for index, part in enumerate(parts):
        if isinstance(part, int):
            text += f"[{part}]"
        elif index == 2 and isinstance(parts[1], int):
            continue  # pydantic names the member of the union of layer kinds that it tried
        else:
            text += f".{part}" if text else part
    return text


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
