"""From event to event through a program: docs/timing.md, section 7, without stepping cycles.

When an instruction is ready, starts and is complete follows from those it depends on, in whatever order that is worked out;
only the DRAM port needs a clock. So each engine runs ahead until its instruction must have the port, and the clock jumps from
one change of who asks for the port to the next: in between, of s engines each gets every s-th beat.

All arrays are matrices, for they become banks (see `accel.sim.twin_kernels.vector`): arrays would be counted as references in
every call, which takes longer than the work.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from accel.jit import kernel
from accel.program import Engine
from accel.sim.twin_kernels.vector import Bank, bank
from accel.timing.jobs import Jobs

ENGINES = len(Engine)
_LAST_SERVED = int(Engine.UPDATE)
_NOT_ASKING = -1
_FAR = 2**62
"""A number of beats that no program needs."""


class Tokens(NamedTuple):
    """The masks of every instruction: (1, instructions)."""

    waits: Bank
    signals: Bank


class Times(NamedTuple):
    """What is worked out, each (1, instructions); see `accel.sim.machine.Timing`."""

    ready: Bank
    start: Bank
    port_end: Bank
    done: Bank
    waited_for: Bank


# Rows of `State.engines`, one column an engine. Places count in `State.queue`.
BEGIN, END, HEAD, ASKS, BEATS = range(5)
"""Its instructions are those from BEGIN to END; the first not known to be complete is at HEAD. It asks for the port from cycle
ASKS on, if that is not `_NOT_ASKING`, until it has had BEATS."""
ENGINE_FIELDS = 5

# The columns of `State.port`: up to which cycle beats have been given, and which engine had the last one.
CYCLE, SERVED = range(2)


class State(NamedTuple):
    """How far everything has come."""

    queue: Bank
    """(1, instructions): their numbers, engine by engine."""
    engines: Bank
    """(ENGINE_FIELDS, ENGINES)."""
    tokens: Bank
    """(from, to): place of the first instruction that may send the next token to be taken; all before have been used."""
    port: Bank
    """(1, 2)."""


def new_state(jobs: Jobs) -> State:
    """Return the state, of arrays, in which nothing has happened."""
    engines = np.zeros((ENGINE_FIELDS, ENGINES), np.int64)
    engines[END] = np.cumsum(np.bincount(jobs.engine[0], minlength=ENGINES))
    engines[BEGIN, 1:] = engines[END, :-1]
    engines[HEAD] = engines[BEGIN]
    engines[ASKS] = _NOT_ASKING
    queue = np.argsort(jobs.engine, kind="stable")
    tokens = np.repeat(engines[BEGIN], ENGINES).reshape(ENGINES, ENGINES)
    return State(queue, engines, tokens, np.array([[0, _LAST_SERVED]]))


@kernel
def job_banks(arrays: Jobs) -> Jobs:
    """Return the jobs as banks."""
    return Jobs(
        bank(arrays.engine),
        bank(arrays.fence),
        bank(arrays.gap),
        bank(arrays.lead),
        bank(arrays.setup),
        bank(arrays.beats),
        bank(arrays.work),
        bank(arrays.latency),
        bank(arrays.bytes),
    )


@kernel
def token_banks(arrays: Tokens) -> Tokens:
    """Return the masks as banks."""
    return Tokens(bank(arrays.waits), bank(arrays.signals))


@kernel
def time_banks(arrays: Times) -> Times:
    """Return the times as banks."""
    return Times(bank(arrays.ready), bank(arrays.start), bank(arrays.port_end), bank(arrays.done), bank(arrays.waited_for))


@kernel
def state_banks(arrays: State) -> State:
    """Return the state as banks."""
    return State(bank(arrays.queue), bank(arrays.engines), bank(arrays.tokens), bank(arrays.port))


@kernel
def run(job_arrays: Jobs, token_arrays: Tokens, state_arrays: State, time_arrays: Times) -> tuple[int, int]:
    """Fill in the times; return (-1, 0), or the first instruction that cannot start and the mask of whose tokens it misses."""
    jobs, tokens = job_banks(job_arrays), token_banks(token_arrays)
    state, times = state_banks(state_arrays), time_banks(time_arrays)
    changed = (1 << ENGINES) - 1  # engines that may be able to go on
    while changed:
        while changed:
            for engine in range(ENGINES):
                if changed >> engine & 1:
                    changed = changed & ~(1 << engine) | _advance(engine, jobs, tokens, state, times)
        engine = _serve(state)
        if engine >= 0:
            number = state.queue[0, state.engines[HEAD, engine]]
            times.port_end[0, number] = state.port[0, CYCLE]
            _complete(engine, number, jobs, state, times)
            changed = tokens.signals[0, number] | 1 << engine
    return _first_stuck(tokens, state)


@kernel
def _first_stuck(tokens: Tokens, state: State) -> tuple[int, int]:
    first, missing = -1, 0
    for engine in range(ENGINES):
        if state.engines[HEAD, engine] < state.engines[END, engine]:
            number = state.queue[0, state.engines[HEAD, engine]]
            if first < 0 or number < first:
                first, missing = number, _missing_tokens(engine, tokens.waits[0, number], tokens, state)
    return first, missing


@kernel
def _advance(engine: int, jobs: Jobs, tokens: Tokens, state: State, times: Times) -> int:
    """Let `engine` go on until it must have the port or a token; return the mask of engines it has sent tokens to."""
    sent = 0
    while state.engines[ASKS, engine] == _NOT_ASKING and state.engines[HEAD, engine] < state.engines[END, engine]:
        number = state.queue[0, state.engines[HEAD, engine]]
        waits = tokens.waits[0, number]
        if waits and _missing_tokens(engine, waits, tokens, state):
            break
        _start(engine, number, waits, jobs, state, times)
        asks = times.start[0, number] + jobs.setup[0, number]
        if jobs.beats[0, number]:
            state.engines[ASKS, engine], state.engines[BEATS, engine] = asks, jobs.beats[0, number]
            break
        times.port_end[0, number] = asks
        _complete(engine, number, jobs, state, times)
        sent |= tokens.signals[0, number]
    return sent


@kernel
def _missing_tokens(engine: int, waits: int, tokens: Tokens, state: State) -> int:
    """Return the mask of those engines among `waits` of which it is not yet known when they send their token to `engine`."""
    missing = 0
    for sender in range(ENGINES):
        if waits >> sender & 1:
            place, end = state.tokens[sender, engine], state.engines[HEAD, sender]
            while place < end and not tokens.signals[0, state.queue[0, place]] >> engine & 1:
                place += 1
            state.tokens[sender, engine] = place
            if place == end:
                missing |= 1 << sender
    return missing


@kernel
def _start(engine: int, number: int, waits: int, jobs: Jobs, state: State, times: Times) -> None:
    """Work out when the engine's next instruction is ready and starts, all its tokens known: rules 1 and 2."""
    place = state.engines[HEAD, engine]
    before = state.queue[0, place - 1] if place > state.engines[BEGIN, engine] else -1
    is_fenced = jobs.fence[0, number] != 0
    ready, last = 0, engine
    if before >= 0:
        ready = times.done[0, before] if is_fenced else times.port_end[0, before]
    for sender in range(ENGINES):
        if waits >> sender & 1:
            sent = times.done[0, state.queue[0, state.tokens[sender, engine]]]
            state.tokens[sender, engine] += 1
            if sent > ready:
                ready, last = sent, sender
    start = ready + jobs.lead[0, number]
    if before >= 0:
        earliest = jobs.gap[0, number]
        earliest += times.done[0, before] + jobs.lead[0, number] if is_fenced else times.start[0, before]
        if earliest > start:
            start, last = earliest, engine
    times.ready[0, number], times.start[0, number], times.waited_for[0, number] = ready, start, last


@kernel
def _complete(engine: int, number: int, jobs: Jobs, state: State, times: Times) -> None:
    """Work out when the engine's instruction is complete, its `port_end` known, and go on to the next: rule 4."""
    place = state.engines[HEAD, engine]
    done = max(times.port_end[0, number], times.start[0, number] + jobs.work[0, number]) + jobs.latency[0, number]
    if place > state.engines[BEGIN, engine]:
        done = max(done, times.done[0, state.queue[0, place - 1]])
    times.done[0, number] = done
    state.engines[HEAD, engine] = place + 1


@kernel
def _serve(state: State) -> int:
    """Give beats until the first engine that asks has had all of its own, and return it; -1 if none asks: rule 3."""
    is_asked, finished = False, -1
    for engine in range(ENGINES):
        is_asked |= state.engines[ASKS, engine] != _NOT_ASKING
    while is_asked and finished < 0:
        finished = _serve_until_change(state)
    return finished


@kernel
def _serve_until_change(state: State) -> int:
    """Give beats until an engine has had all of its own or another one asks; return the former, or -1."""
    cycle, streams, until = _who_asks(state)
    first = state.port[0, SERVED] + 1
    beats, turn = until - cycle, 0
    for offset in range(ENGINES):  # who is done first: the last of its beats is number (its beats - 1) * streams + its turn
        engine = (first + offset) % ENGINES
        if _NOT_ASKING < state.engines[ASKS, engine] <= cycle:
            beats = min(beats, (state.engines[BEATS, engine] - 1) * streams + turn + 1)
            turn += 1
    finished, turn = -1, 0
    for offset in range(ENGINES):
        engine = (first + offset) % ENGINES
        if _NOT_ASKING < state.engines[ASKS, engine] <= cycle:
            state.engines[BEATS, engine] -= (beats - turn + streams - 1) // streams
            if (beats - 1) % streams == turn:
                state.port[0, SERVED] = engine
            if state.engines[BEATS, engine] == 0:
                finished, state.engines[ASKS, engine] = engine, _NOT_ASKING
            turn += 1
    state.port[0, CYCLE] = cycle + beats
    return finished


@kernel
def _who_asks(state: State) -> tuple[int, int, int]:
    """Return the next cycle in which the port gives a beat, how many ask for it then, and in which cycle another one does."""
    cycle = _FAR
    for engine in range(ENGINES):
        if state.engines[ASKS, engine] != _NOT_ASKING:
            cycle = min(cycle, max(state.engines[ASKS, engine], state.port[0, CYCLE]))
    streams, until = 0, _FAR
    for engine in range(ENGINES):
        asks = state.engines[ASKS, engine]
        if asks > cycle:
            until = min(until, asks)
        elif asks != _NOT_ASKING:
            streams += 1
    return cycle, streams, until
