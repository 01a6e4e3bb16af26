"""Sweeps by Dask: chunks of points on the workers of a scheduler, one on this computer or one that is there already."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from typing import Any
from uuid import uuid4

import dask
from distributed import Client, KilledWorker, LocalCluster, Worker, WorkerPlugin, as_completed
from distributed.comm.core import CommClosedError

from accel.errors import ConfigError
from accel.explore.chunks import Chunk, Local
from accel.explore.space import Space

CONNECT_SECONDS = 20.0
"""Until a scheduler must answer, and have a worker."""
CLOSE_SECONDS = 20.0
"""Until processes that were started must have ended."""
_QUEUED = 2
"""Chunks in hand for each worker: none waits for the next one, and memory has few."""
_LOOK_SECONDS = 5.0
"""After which workers are counted again: they may come and go."""
_DEATHS = 10
"""Of workers on this computer that a chunk survives."""

_SPACES: dict[str, Space] = {}
"""In a worker: the spaces it evaluates, by the names of their sweeps."""
_OF_THREAD = threading.local()


class _Sweep(WorkerPlugin):
    """Gives a space to every worker, also to one that comes later."""

    def __init__(self, name: str, space: Space, pid: int | None) -> None:
        self.name, self._space, self._pid = name, space, pid

    def setup(self, worker: Worker) -> None:
        """Prepare a worker."""
        _SPACES[self.name] = self._space
        if self._pid is not None and os.getpid() != self._pid:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the one that started it

    def teardown(self, worker: Worker) -> None:
        """Forget the space."""
        _SPACES.pop(self.name, None)


def _work(name: str, points: Sequence[int]) -> Chunk:
    """Return the rows of some points, in a worker; every thread has an evaluator of its own for each sweep."""
    kept: dict[str, Local] = {other: local for other, local in getattr(_OF_THREAD, "kept", {}).items() if other in _SPACES}
    if name not in kept:
        kept[name] = Local(_SPACES[name])
    _OF_THREAD.kept = kept
    return kept[name].chunk(points)


class _Cluster:
    """Evaluates points on the workers of a client."""

    def __init__(self, client: Client, name: str) -> None:
        self._client, self._name = client, name
        self._numbers = itertools.count()
        self._workers, self._looked_at = 1, -_LOOK_SECONDS

    def parallel(self) -> int:
        """Return how many threads the workers have together."""
        if time.monotonic() - self._looked_at >= _LOOK_SECONDS:
            self._workers = max(1, sum(self._client.nthreads().values()))
            self._looked_at = time.monotonic()
        return self._workers

    def chunks(self, todo: Iterator[Sequence[int]]) -> Iterator[Chunk]:
        """Yield the rows of every list of points as they come, with few chunks in hand."""
        running = as_completed(with_results=True)
        self._fill(running, todo)
        for _, chunk in running:
            yield chunk
            self._fill(running, todo)

    def _fill(self, running: Any, todo: Iterator[Sequence[int]]) -> None:
        for points in itertools.islice(todo, max(0, _QUEUED * self.parallel() - running.count())):
            running.add(self._submit(points))

    def _submit(self, points: Sequence[int]) -> Any:
        return self._client.submit(_work, self._name, points, key=f"{self._name}-{next(self._numbers)}", pure=False)


@contextmanager
def evaluation(space: Space, workers: int, scheduler: str | None) -> Iterator[_Cluster]:
    """Give what evaluates points on `workers` processes of this computer, or on those of the scheduler at an address."""
    name = f"accel-sweep-{uuid4().hex}"
    try:
        with _own(workers) if scheduler is None else _joined(scheduler) as client:
            plugin = _Sweep(name, space, os.getpid() if scheduler is None else None)
            client.register_plugin(plugin, name=name)
            try:
                yield _Cluster(client, name)
            finally:
                with suppress(Exception):  # of a scheduler that has gone
                    client.unregister_worker_plugin(name)
    except KilledWorker:
        raise ConfigError("workers must not die of the same points again and again; run the command again to go on") from None
    except (CancelledError, asyncio.CancelledError, CommClosedError):
        raise ConfigError("scheduler must answer until the sweep ends; run the command again to go on") from None


@contextmanager
def _own(workers: int) -> Iterator[Client]:
    """Give a client of processes that start with it and end with it."""
    # Any free port for the dashboard, which None does not switch off: Dask then wants 8787, of which there is one.
    options = {"host": "127.0.0.1", "memory_limit": 0, "dashboard_address": "127.0.0.1:0", "silence_logs": "CRITICAL"}
    with dask.config.set({"distributed.scheduler.allowed-failures": _DEATHS}):
        with _uninterrupted():
            cluster: Any = LocalCluster(n_workers=workers, threads_per_worker=1, **options)
        try:
            with Client(cluster) as client:
                yield client
        finally:
            with suppress(TimeoutError):  # a worker that starts again just then may never answer; it ends with this process
                cluster.close(timeout=CLOSE_SECONDS)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Ignore Ctrl-C while a cluster starts: Dask cannot end half of one. Its workers go on ignoring it."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread is interrupted
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@contextmanager
def _joined(scheduler: str) -> Iterator[Client]:
    """Give a client of the scheduler at an address, which must have a worker."""
    try:
        client = Client(scheduler, timeout=CONNECT_SECONDS)
    except (OSError, ValueError):
        wanted = "the address of a Dask scheduler, like tcp://host:8786"
        raise ConfigError(f"scheduler must be {wanted}, not {scheduler!r}") from None
    with client:
        try:
            client.wait_for_workers(1, timeout=CONNECT_SECONDS)
        except TimeoutError:
            raise ConfigError(f"scheduler {scheduler} must have workers; start one: dask worker {scheduler}") from None
        yield client
