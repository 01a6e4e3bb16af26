"""The machine one cycle after another: rules 1 to 5 of docs/timing.md, section 7, as they are written."""

from collections import Counter, deque
from dataclasses import dataclass

LOAD, STORE, COMPUTE, PRUNE, VECTOR, UPDATE = ENGINES = range(6)
CIRCLE = [LOAD, STORE, VECTOR, UPDATE]
MOST_CYCLES = 1_000_000


@dataclass
class NaiveJob:
    """One instruction: what the machine knows of it, and what has happened to it so far."""

    engine: int
    fence: int
    gap: int
    lead: int
    setup: int
    beats_left: int
    work: int
    latency: int
    waits: list
    signals: list
    ready: int | None = None
    start: int | None = None
    port_end: int | None = None
    done: int | None = None

    def has_started(self, cycle):
        return self.start is not None and self.start <= cycle

    def wants_port(self, cycle):
        return self.has_started(cycle) and self.start + self.setup <= cycle and self.port_end is None

    def has_had_port(self, cycle):
        return self.port_end is not None and self.port_end <= cycle

    def has_done_all(self, cycle):
        return self.has_had_port(cycle) and max(self.port_end, self.start + self.work) + self.latency <= cycle


class NaiveMachine:
    """The six engines, the counters of tokens (from, to) and the DRAM port."""

    def __init__(self, jobs):
        self.queues = [deque(job for job in jobs if job.engine == engine) for engine in ENGINES]  # what is not complete
        self.completed = [[] for _ in ENGINES]
        self.tokens = Counter()
        self.last_served = UPDATE
        self.beats_given = 0
        self.cycle = 0

    def run(self):
        """Step until all is complete."""
        while any(self.queues):
            assert self.cycle < MOST_CYCLES, "the program hangs"
            while any(self.go_on(queue) for queue in self.queues if queue):
                pass  # what happens can let more happen in the same cycle
            self.give_beat()
            self.cycle += 1

    def go_on(self, queue):
        """Do the next thing that can happen on an engine in this cycle; return whether there was one."""
        first = queue[0]
        if first.has_done_all(self.cycle):
            queue.popleft()
            self.complete(first)
            return True
        before = self.completed[first.engine][-1] if self.completed[first.engine] else None
        for job in queue:
            if not job.has_started(self.cycle):
                return job.ready is None and self.make_ready(job, before, job is first)
            if not job.beats_left and job.wants_port(self.cycle):
                job.port_end = self.cycle
                return True
            before = job
        return False

    def make_ready(self, job, before, are_all_complete):
        """Rules 1 and 2; `before`, in the engine, has started, and whether all before are complete is given."""
        if before and not before.has_had_port(self.cycle):
            return False
        if job.fence and not are_all_complete:
            return False
        if not all(self.tokens[sender, job.engine] for sender in job.waits):
            return False
        for sender in job.waits:
            self.tokens[sender, job.engine] -= 1
        job.ready = self.cycle
        job.start = self.cycle + job.lead
        if before:
            job.start = max(job.start, before.done + job.gap + job.lead if job.fence else before.start + job.gap)
        return True

    def complete(self, job):
        """Rule 4."""
        job.done = self.cycle
        self.completed[job.engine].append(job)
        for receiver in job.signals:
            self.tokens[job.engine, receiver] += 1

    def give_beat(self):
        """Rule 3."""
        turn = CIRCLE.index(self.last_served) + 1
        for engine in CIRCLE[turn:] + CIRCLE[:turn]:
            for job in self.queues[engine]:
                if job.beats_left and job.wants_port(self.cycle):
                    job.beats_left -= 1
                    if job.beats_left == 0:
                        job.port_end = self.cycle + 1
                    self.last_served = engine
                    self.beats_given += 1
                    return


def naive_machine(jobs, waits, signals):
    """Return the machine, run to the end, and its jobs in the order of the program."""
    columns = zip(*(field.tolist() for field in jobs[:-1]), waits.tolist(), signals.tolist(), strict=True)
    naive = [NaiveJob(*words, _engines(takes), _engines(sends)) for *words, takes, sends in columns]
    machine = NaiveMachine(naive)
    machine.run()
    return machine, naive


def _engines(mask):
    return [engine for engine in ENGINES if mask >> engine & 1]
