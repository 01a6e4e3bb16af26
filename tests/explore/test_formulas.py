import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from accel.explore.formulas import MAX_LENGTH, names_of, value_of

VALUES = {"a": 7, "b": 2, "c": 0.5}

WHAT = "numbers, names, + - * / //, min() and max()"


def texts():
    leaves = st.sampled_from(["a", "b", "c", "3", "0.25", "12"])

    def larger(inner):
        binary = st.tuples(inner, st.sampled_from(["+", "-", "*", "/", "//"]), inner).map(lambda part: f"({' '.join(part)})")
        calls = st.tuples(st.sampled_from(["min", "max"]), inner, inner).map(lambda part: f"{part[0]}({part[1]}, {part[2]})")
        return binary | calls | inner.map(lambda text: f"-{text}")

    return st.recursive(leaves, larger, max_leaves=8).filter(lambda text: len(text) <= MAX_LENGTH)


@given(texts())
def test_a_formula_means_what_python_means(text):
    try:
        expected = eval(text, {"min": min, "max": max, **VALUES})
    except ZeroDivisionError:
        with pytest.raises(ValueError, match=r"has no value: (float |integer )?(division|divide|modulo)"):
            value_of(text, VALUES)
        return
    value = value_of(text, VALUES)
    assert value == expected
    assert type(value) is type(expected)


def test_names_come_once_and_in_order():
    assert sorted(names_of("b * max(a, b, 2) + a // 3")) == ["a", "b"]
    assert names_of("2 * 3") == []


@pytest.mark.parametrize(
    "text",
    [
        "", "a b", "a ** 2", "a % 2", "a if b else c", "abs(a)", "min(a)", "min(*a)", "max(a, key=b)", "a.b", "a[0]", "'text'",
        "True", "1j", "1e999", "lambda: a", "(a := 2)", "[a]", "a < b", "not a", "~a", "__import__('os')", "a and b", "\0",
    ],
)  # fmt: skip
def test_anything_but_arithmetic_is_refused(text):
    with pytest.raises(ValueError, match=r"^" + re.escape(f"must be a formula of {WHAT}, not {text!r}") + "$"):
        names_of(text)


def test_min_is_no_name():
    with pytest.raises(ValueError, match=r"^must call min, not use it as a name, in 'min \+ 1'$"):
        names_of("min + 1")


def test_a_long_formula_is_refused_before_it_is_read():
    with pytest.raises(ValueError, match=r"^must have 300 or fewer characters, not 4001$"):
        names_of("(" * 2000 + "a" + ")" * 2000)
    with pytest.raises(ValueError, match=r"^must be a formula of"):
        names_of("(" * 290 + "a")


def test_a_value_too_large_is_refused():
    with pytest.raises(ValueError, match=r"^'a \* a' must be finite, not inf$"):
        value_of("a * a", {"a": 1e200})
    with pytest.raises(ValueError, match="has no value: int"):
        value_of("a * a / c", {"a": 10**300, "c": 2})
