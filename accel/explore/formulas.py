"""Formulas of a space file: fields of a machine that follow from others, by arithmetic alone."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

MAX_LENGTH = 300
"""Characters of a formula; with it, how deep one nests."""

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
}
_CALLS: dict[str, Callable[..., Any]] = {"min": min, "max": max}

WHAT_FORMULAS_ARE = "numbers, names, + - * / //, min() and max()"


def names_of(formula: str) -> list[str]:
    """Return the names that `formula` reads, in order, or raise `ValueError` if it is none."""
    found = [node.id for node in ast.walk(_parsed(formula)) if isinstance(node, ast.Name) and node.id not in _CALLS]
    return list(dict.fromkeys(found))


def value_of(formula: str, values: Mapping[str, int | float]) -> int | float:
    """Return what `formula` is with these `values` of its names; raises `ValueError` where it has no finite value."""
    try:
        value: int | float = _value(_parsed(formula), values)
        finite = math.isfinite(value)
    except ArithmeticError as error:
        raise ValueError(f"{formula!r} has no value: {error}") from None
    if not finite:
        raise ValueError(f"{formula!r} must be finite, not {value}")
    return value


@lru_cache(maxsize=1024)
def _parsed(formula: str) -> ast.expr:
    if len(formula) > MAX_LENGTH:
        raise ValueError(f"must have {MAX_LENGTH} or fewer characters, not {len(formula)}")
    try:
        body = ast.parse(formula.strip(), mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError):
        raise ValueError(f"must be a formula of {WHAT_FORMULAS_ARE}, not {formula!r}") from None
    _check(body, formula)
    return body


def _check(node: ast.expr, formula: str) -> None:
    """Refuse whatever is not arithmetic."""
    match node:
        case ast.Constant(value=int() | float() as value) if not isinstance(value, bool) and value < math.inf:
            pass
        case ast.Name():
            if node.id in _CALLS:
                raise ValueError(f"must call {node.id}, not use it as a name, in {formula!r}")
        case ast.UnaryOp(op=ast.USub() | ast.UAdd()):
            _check(node.operand, formula)
        case ast.BinOp() if type(node.op) in _BINARY:
            _check(node.left, formula)
            _check(node.right, formula)
        case ast.Call(func=ast.Name(id=name), keywords=[]) if name in _CALLS and len(node.args) > 1:
            for argument in node.args:
                _check(argument, formula)
        case _:
            raise ValueError(f"must be a formula of {WHAT_FORMULAS_ARE}, not {formula!r}")


def _value(node: ast.expr, values: Mapping[str, int | float]) -> Any:
    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return values[node.id]
        case ast.UnaryOp():
            value = _value(node.operand, values)
            return -value if isinstance(node.op, ast.USub) else value
        case ast.BinOp():
            return _BINARY[type(node.op)](_value(node.left, values), _value(node.right, values))
        case ast.Call(func=ast.Name(id=name)):
            return _CALLS[name](*(_value(argument, values) for argument in node.args))
    raise AssertionError("_check lets nothing else through")
