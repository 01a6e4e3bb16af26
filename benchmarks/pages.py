"""Tables of the documentation, each between its two marks in a page: `<!-- NAME -->` and `<!-- end of NAME -->`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

Table = list[list[object]]
"""The first row is the header."""

DOCS = Path(__file__).parents[1] / "docs"


def run(description: str, page: str, name: str, table: Callable[[], Table]) -> None:
    """Be the command of a program that makes one table."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--write", action="store_true", help=f"put the table into docs/{page}")
    options = parser.parse_args()
    show(page, name, table(), options.write)


def show(page: str, name: str, table: Table, is_written: bool) -> None:
    """Print a table in Markdown, and put it into a page of the documentation between the marks of its name."""
    header, *body = table
    rows = [header, ["---"] * len(header), *body]
    text = "\n".join("| " + " | ".join(map(str, row)) + " |" for row in rows)
    print(f"{name}:\n{text}\n", flush=True)
    if is_written:
        _put(page, name, text)


def _put(page: str, name: str, text: str) -> None:
    file, start, end = DOCS / page, f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, found, rest = file.read_text(encoding="utf-8").partition(start)
    if not found or end not in rest:
        raise SystemExit(f"{file} must have the marks of table {name}")
    file.write_text(before + start + text + end + rest.partition(end)[2], encoding="utf-8")
