"""A strict reader of the JSON trace event format: what it refuses, a viewer might draw wrongly without a word.

Of the format it knows the events that a timeline of ours has: M (names), X (slices) and C (counters).
"""

import gzip
import json
from pathlib import Path

REQUIRED = {
    "M": {"ph", "pid", "tid", "name", "args"},
    "X": {"ph", "pid", "tid", "ts", "dur", "name", "args"},
    "C": {"ph", "pid", "ts", "name", "args"},
}
METADATA = {
    "process_name": ("name", str),
    "process_labels": ("labels", str),
    "thread_name": ("name", str),
    "thread_sort_index": ("sort_index", int),
}
EXACT = 2**53  # beyond, a reader of numbers as doubles would round


class Trace:
    """The events of a file that is well-formed: slices and counters by the names of their tracks."""

    def __init__(self, text):
        self.fields = json.loads(text, parse_constant=_refuse_constant, object_pairs_hook=_unique)
        assert set(self.fields) == {"displayTimeUnit", "otherData", "traceEvents"}
        assert self.fields["displayTimeUnit"] in ("ms", "ns")
        self.about = self.fields["otherData"]
        self.slices, self.counters, self._threads = {}, {}, {}
        for event in self.fields["traceEvents"]:
            _check_event(event)
            {"M": self._name, "X": self._add_slice, "C": self._add_counter}[event["ph"]](event)
        for name, slices in self.slices.items():
            _check_nesting(name, slices)

    def _name(self, event):
        key, kind = METADATA[event["name"]]
        assert set(event["args"]) == {key}
        assert type(event["args"][key]) is kind
        if event["name"] == "thread_name":
            assert event["tid"] not in self._threads, "a thread has one name"
            assert event["args"]["name"] not in self._threads.values(), "two threads have one name"
            self._threads[event["tid"]] = event["args"]["name"]
            self.slices[event["args"]["name"]] = []

    def _add_slice(self, event):
        assert event["tid"] in self._threads, f"slice {event['name']} is on a thread without a name"
        self.slices[self._threads[event["tid"]]].append(event)

    def _add_counter(self, event):
        points = self.counters.setdefault(event["name"], [])
        assert not points or event["ts"] > points[-1][0], f"counter {event['name']} must go forward in time"
        (key,) = event["args"]
        assert not points or points[-1][1] == key, "a counter keeps its unit"
        points.append((event["ts"], key, event["args"][key]))


def read(path):
    """Return the trace of a file; gzipped if its name says so."""
    data = Path(path).read_bytes()
    return Trace((gzip.decompress(data) if str(path).endswith(".gz") else data).decode("ascii"))


def _check_event(event):
    assert event["ph"] in REQUIRED, f"unknown phase {event['ph']!r}"
    assert set(event) == REQUIRED[event["ph"]], f"fields of {event} must be {sorted(REQUIRED[event['ph']])}"
    assert type(event["name"]) is str
    assert event["name"]
    assert type(event["args"]) is dict
    for key in ("pid", "tid", "ts", "dur"):
        assert key not in event or (type(event[key]) is int and 0 <= event[key] < EXACT), f"{key} of {event}"
    kinds = (int, float) if event["ph"] == "C" else (int, float, str)
    for value in event["args"].values():
        assert type(value) in kinds, f"args of {event}"


def _check_nesting(track, slices):
    """Slices come in order; one that begins before another ends must end with or before it."""
    open_ends, before = [], -1
    for event in slices:
        begin, end = event["ts"], event["ts"] + event["dur"]
        assert begin >= before, f"{track}: {event['name']} must not begin before the slice in front of it"
        before = begin
        while open_ends and open_ends[-1] <= begin:
            open_ends.pop()
        assert not open_ends or end <= open_ends[-1], f"{track}: {event['name']} overlaps a slice in part"
        open_ends.append(end)


def _refuse_constant(text):
    raise AssertionError(f"{text} is no JSON")


def _unique(pairs):
    assert len({key for key, _ in pairs}) == len(pairs), f"a key stands twice in {pairs}"
    return dict(pairs)
