"""Tables of the documentation, each between its two marks in a page: `<!-- NAME -->` and `<!-- end of NAME -->`."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

DOCS = Path(__file__).parents[1] / "docs"


def put(page: str, name: str, text: str) -> None:
    """Put a table into a page of the documentation, between the marks of its name."""
    file, start, end = DOCS / page, f"<!-- {name} -->\n", f"\n<!-- end of {name} -->"
    before, found, rest = file.read_text(encoding="utf-8").partition(start)
    if not found or end not in rest:
        raise SystemExit(f"{file} must have the marks of table {name}")
    file.write_text(before + start + text + end + rest.partition(end)[2], encoding="utf-8")


def run(description: str, page: str, tables: dict[str, Callable[[], str]]) -> None:
    """Be the command of a program that makes a page's tables: print those asked for, and with --write put them there."""
    parser = argparse.ArgumentParser(description=description)
    names = ", ".join(tables)
    parser.add_argument("tables", nargs="*", default=list(tables), metavar="TABLE", help=f"some of {names}; default: all")
    parser.add_argument("--write", action="store_true", help=f"put the tables into docs/{page}")
    options = parser.parse_args()
    for name in options.tables:
        if name not in tables:
            parser.error(f"TABLE must be one of {names}, not {name}")
        text = tables[name]()
        print(f"{name}:\n{text}\n", flush=True)
        if options.write:
            put(page, name, text)
