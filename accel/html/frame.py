"""What all pages share: one file with its numbers as a JSON block, the style, and the only scripts that its policy admits."""

from __future__ import annotations

import json
from base64 import b64encode
from collections.abc import Sequence
from hashlib import sha256
from html import escape
from importlib.resources import files
from string import Template
from typing import Any


def build(body: str, scripts: Sequence[str], data: dict[str, Any], title: str, **texts: str) -> str:
    """Return a page: the asset `body` with `title` and `texts` in their places, its numbers `data`, drawn by `scripts`.

    All texts are shown as they are, whatever they contain. Equal arguments give equal bytes.
    """
    script, style = "".join(map(_asset, scripts)), _asset("page.css")
    safe = {name: _safe(text) for name, text in texts.items()} | {"title": _safe(title)}
    return Template(_asset("frame.html")).substitute(
        policy=f"default-src 'none'; img-src data:; base-uri 'none'; form-action 'none'; script-src '{_digest(script)}'; "
        f"style-src '{_digest(style)}'",
        title=safe["title"],
        body=Template(_asset(body)).substitute(safe),
        style=style,
        script=script,
        data=_script_safe(json.dumps(data, separators=(",", ":"), allow_nan=False)),
    )


def _asset(name: str) -> str:
    return files("accel.html").joinpath("assets", name).read_text(encoding="utf-8")


def _digest(text: str) -> str:
    """Return the name under which the page's policy admits exactly this script or style, and nothing that came with a name."""
    return "sha256-" + b64encode(sha256(text.encode()).digest()).decode()


def _safe(text: str) -> str:
    """Return text for an element or attribute; bytes of a file name that are no UTF-8 are written as escapes."""
    return escape(text.encode("utf-8", "backslashreplace").decode())


def _script_safe(data: str) -> str:
    """Return JSON that holds no character with a meaning in HTML: the strings stay the same."""
    return data.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
