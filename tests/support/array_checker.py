"""Compares what an array gave with what its runs must give."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from array_driver import Batch
from array_model import Case
from array_monitor import BROKEN, Seen

MOST_PROBLEMS = 20


def check(batch: Batch, seen: Seen) -> None:
    """Raise an AssertionError that names the first problems, each with its run and how to repeat it."""
    problems = list(itertools.islice(find_problems(batch, seen), MOST_PROBLEMS))
    assert not problems, "\n".join(problems)


def find_problems(batch: Batch, seen: Seen) -> Iterator[str]:
    """Yield what is wrong: words first, then counters, run by run."""
    if seen.is_hung:
        yield f"hangs after {len(seen.runs)} of {len(batch.cases)} runs {_named(batch, len(seen.runs))}"
    for number, (sink, words) in enumerate(zip(batch.sinks, seen.words, strict=True)):
        yield from _word_problems(batch, number, sink.name, sink.words, words)
    if len(seen.runs) != len(batch.cases):
        yield f"{len(seen.runs)} runs ended, not {len(batch.cases)}"
    for number, (case, counters) in enumerate(zip(batch.cases, seen.runs, strict=False)):
        yield from (
            f"{problem} {_named(batch, number)}" for problem in _counter_problems(case, counters, batch.may_stall[number])
        )


def _word_problems(batch: Batch, sink: int, name: str, expected: list[str], words: list[str]) -> Iterator[str]:
    if BROKEN in words:
        yield f"{name} breaks the rules of a stream after {words.index(BROKEN)} words"
    ends = list(itertools.accumulate(len(case.streams.out[sink]) for case in batch.cases))
    for place, (wanted, got) in enumerate(itertools.zip_longest(expected, words)):
        if got is None or wanted is None or int(wanted, 16) != (-1 if got == BROKEN else int(got, 16)):
            number = next((number for number, end in enumerate(ends) if place < end), len(ends) - 1)
            yield f"{name} word {place}: {got}, not {wanted} {_named(batch, number)}"
            return


def _counter_problems(case: Case, counters: dict[str, int], may_stall: bool) -> Iterator[str]:
    stalls = counters["stall_cycles"]
    wanted = {**case.counters, "busy_cycles": case.busy_cycles + stalls}
    for name, value in wanted.items():
        if counters[name] != value:
            yield f"{name}: {counters[name]}, not {value}"
    if stalls and not may_stall:
        yield f"stall_cycles: {stalls} without a pause"


def _named(batch: Batch, number: int) -> str:
    if number >= len(batch.cases):
        return ""
    case = batch.cases[number]
    return (
        f"in run {case.index} of seed {case.seed}\n  {case.run}, k_taps={case.k_taps}, k_inner={case.k_inner}, "
        f"{case.values} operands, stalls {case.profile}\n  on {case.parameters}\n"
        f"  alone: ARRAY_SEED={case.seed} ARRAY_RUNS={case.index}:{case.index + 1}, and what failed"
    )
