"""The batch engine: what training steps cost on many machines by the closed form, a few compiled calls for all of them.

Every number is that of `simulate_step` and `step_energy`, to the last cycle, byte and bit of a joule: products are searched by
the same kernel, events counted by the same closed forms, and energies summed without rounding, as `math.fsum` does.
"""

from __future__ import annotations

import math
from collections import OrderedDict, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate, groupby
from typing import Any, NamedTuple

import numpy as np

from accel.arch import Arch
from accel.dataflow.families import new_work
from accel.dataflow.objectives import prices_of
from accel.dataflow.scheduling import _search_fields, machine_of, schedule_gemms
from accel.dataflow.search import BEST_DTYPE, GEMM_DTYPE
from accel.energy import EnergyTable, Events, StepEnergy
from accel.errors import AccelError
from accel.explore.engine_kernels.exact import PARTS, FloatArray
from accel.explore.engine_kernels.products import FOUND_DTYPE, MACHINE_DTYPE, Forms, IntArray, search_machines
from accel.explore.engine_kernels.steps import PRICED, Totals, Work, add_up
from accel.schedule import Schedule, Step
from accel.sim.energy import step_energy
from accel.sim.step import simulate_step
from accel.timing.gemm import Machine

BLOCK = 1024
"""Machines in one compiled call, at most."""
_SHARE = 16
"""Machines that a thread searches at a time, at least: those that differ in their buffers alone stay together."""
_KEPT = 2 * BLOCK
"""Machines whose mappings are kept, at least all of one call."""


class StepCost(NamedTuple):
    """What one training step costs."""

    cycles: int
    dram_bytes: int
    joules: float | None
    """None without a table of energies."""


Costs = tuple[StepCost, ...]
"""Of every step that an engine has."""


class Engine:
    """The work of some steps on machines of one word, packed into arrays, and the mappings of the last machines.

    Machines that the search cannot tell apart share their mappings.
    """

    def __init__(self, steps: Sequence[Step], word_elems: int, table: EnergyTable | None, threads: int = 1) -> None:
        """Pack `steps`, lowered for a word of `word_elems`; machines are searched by so many threads."""
        self._threads = ThreadPoolExecutor(threads) if threads > 1 else None
        self.steps, self.table = steps, table
        gemms = [gemm for step in steps for gemm in step.gemms]
        keys = [_search_fields(gemm, word_elems) for gemm in gemms]
        numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
        self._products: Any = np.array([*numbers], GEMM_DTYPE).view(np.recarray)
        self._work = _packed(steps, [numbers[key] for key in keys])
        self._found: Any = np.zeros((_KEPT, len(numbers)), FOUND_DTYPE).view(np.recarray)
        self._slots: OrderedDict[_Key, int] = OrderedDict()

    def costs(self, archs: Sequence[Arch]) -> list[Costs | AccelError]:
        """Return what the steps cost on each machine, or why it cannot run them; all must have the word of the steps."""
        return [cost for first in range(0, len(archs), BLOCK) for cost in self._block(archs[first : first + BLOCK])]

    def _block(self, archs: Sequence[Arch]) -> list[Costs | AccelError]:
        records = [(*machine_of(arch), arch.pes, arch.wuve_lanes) for arch in archs]
        machines: Any = np.array(records, MACHINE_DTYPE).view(np.recarray)
        slots = self._searched(archs, machines)
        totals = _no_totals(len(archs), len(self.steps))
        prices, has_prices = _prices(self.table, archs), self.table is not None
        add_up(machines, slots, self._found, self._products, self._work, prices, has_prices, totals)
        return self._read(archs, totals)

    def _searched(self, archs: Sequence[Arch], machines: Any) -> IntArray:
        """Return where the mappings of each machine are kept, after a search of those that are not yet."""
        keys = [_key(arch, record) for arch, record in zip(archs, machines.tolist(), strict=True)]
        new: dict[_Key, int] = {}
        for at, key in enumerate(keys):
            if key in self._slots:
                self._slots.move_to_end(key)
            else:
                new.setdefault(key, at)
        while len(self._slots) + len(new) > _KEPT:
            self._slots.popitem(last=False)
        taken = {*self._slots.values()}
        places = dict(zip(new, (slot for slot in range(_KEPT) if slot not in taken), strict=False))
        run = map if self._threads is None else self._threads.map
        tasks = [(archs, machines, [(new[key], places[key], kin) for key, kin in part]) for part in _shares(new)]
        deque(run(self._search, tasks), 0)
        self._slots.update(places)
        return np.array([self._slots[key] for key in keys])

    def _search(self, task: _Task) -> None:
        """Search some machines and keep their mappings. Meanwhile other threads run."""
        every_arch, every_machine, numbers = task
        chosen, slots, kin = np.array(numbers).T
        archs, machines = [every_arch[at] for at in chosen], every_machine[chosen]
        best: Any = np.zeros((len(archs), len(self._products)), BEST_DTYPE).view(np.recarray)
        search_machines(
            machines, _forms(archs), prices_of(archs[0], None, 1.0, 0.0), self._products, self.table is not None, kin.copy(),
            new_work(max(len(arch.row_lanes) for arch in archs)), best, slots.copy(), self._found,
        )  # fmt: skip

    def _read(self, archs: Sequence[Arch], totals: Totals) -> list[Costs | AccelError]:
        """Return the totals as Python's numbers."""
        cycles, dram_bytes = totals.cycles.tolist(), totals.dram_bytes.tolist()
        joules = _sums(totals) if self.table is not None else [[None] * len(self.steps)] * len(archs)
        is_exact = (totals.is_small & ~totals.joules[..., PARTS - 1].any(axis=(1, 2))).tolist()
        found: list[Costs | AccelError] = []
        for at, unplaced in enumerate(totals.unplaced.tolist()):
            if unplaced >= 0:
                found.append(self._refusal(unplaced, archs[at]))
            elif is_exact[at]:
                found.append(tuple(map(StepCost, cycles[at], dram_bytes[at], joules[at])))
            else:
                found.append(reference_costs(self.steps, archs[at], self.table))
        return found

    def _refusal(self, number: int, arch: Arch) -> AccelError:
        """Return what the scheduler says of product `number`, which fits no buffers."""
        gemms = [gemm for step in self.steps for gemm in step.gemms]
        try:
            schedule_gemms([gemms[number]], arch)
        except AccelError as error:
            return error
        raise AssertionError("the search says the same of a product whoever asks")


def reference_costs(steps: Sequence[Step], arch: Arch, table: EnergyTable | None) -> Costs:
    """Return what `steps` cost by the simulator itself, whose numbers may have any size."""
    found = []
    for step in steps:
        planned = Schedule(step, arch, tuple(schedule_gemms(step.gemms, arch)))
        rows = simulate_step(planned)
        joules = None if table is None else step_energy(planned, rows, table).joules
        found.append(StepCost(sum(row.cycles for row in rows), sum(row.dram_bytes for row in rows), joules))
    return tuple(found)


_Key = tuple[Any, ...]


def _key(arch: Arch, record: tuple[Any, ...]) -> _Key:
    """Return all that a search reads of a machine: the numbers of `Machine` and its forms, those in their order."""
    return (record[: len(Machine._fields)], arch.row_lanes, "OS" in arch.dataflows, "WS" in arch.dataflows)


_Task = tuple[Sequence[Arch], Any, list[tuple[int, int, int]]]
"""All machines of a block and their records; of those to be searched the number, the slot, and whose kin they are."""

_BUFFERS = [Machine._fields.index(name) for name in ("west_bits", "north_bits", "psum_words")]


def _kin(key: _Key) -> _Key:
    """Return what machines have in common that differ in their buffers alone."""
    return (*(number for at, number in enumerate(key[0]) if at not in _BUFFERS), *key[1:])


def _shares(new: Iterable[_Key]) -> list[list[tuple[_Key, int]]]:
    """Return shares of work: machines, each with the number of its kin, which stay together, larger buffers first."""
    shares: list[list[tuple[_Key, int]]] = []
    ordered = sorted(new, key=lambda key: (_kin(key), [-key[0][at] for at in _BUFFERS]))
    for number, (_, group) in enumerate(groupby(ordered, _kin)):
        if not shares or len(shares[-1]) >= _SHARE:
            shares.append([])
        shares[-1] += [(key, number) for key in group]
    return shares


def _forms(archs: Sequence[Arch]) -> Forms:
    first = [0, *accumulate(len(arch.row_lanes) for arch in archs)]
    return Forms(
        row_lanes=np.array([lanes for arch in archs for lanes in arch.row_lanes]),
        first=np.array(first),
        has_os=np.array(["OS" in arch.dataflows for arch in archs]),
        has_ws=np.array(["WS" in arch.dataflows for arch in archs]),
    )


def _packed(steps: Sequence[Step], gemm_products: Sequence[int]) -> Work:
    segments = [segment for step in steps for segment in step.segments]
    vectors = [work for segment in segments for work in segment.vectors]
    updates = [[update for update in step.updates if update.elems] for step in steps]
    every_update = [update for some in updates for update in some]
    return Work(
        part_segments=_offsets(len(step.segments) for step in steps),
        part_updates=_offsets(map(len, updates)),
        segment_gemms=_offsets(len(segment.gemms) for segment in segments),
        segment_vectors=_offsets(len(segment.vectors) for segment in segments),
        gemm_products=np.array(gemm_products, np.int64),
        vector_lane_ops=np.array([work.lane_ops for work in vectors], np.int64),
        vector_bytes=np.array([work.dram_bytes for work in vectors], np.int64),
        update_elems=np.array([update.elems for update in every_update], np.int64),
        update_passes=np.array([update.passes for update in every_update], np.int64),
        update_sore_groups=np.array([update.sore_groups for update in every_update], np.int64),
        update_bytes=np.array([update.dram_bytes for update in every_update], np.int64),
    )


def _offsets(counts: Any) -> IntArray:
    return np.array([0, *accumulate(counts)], np.int64)


def _no_totals(machines: int, parts: int) -> Totals:
    shape = (machines, parts)
    joules = np.zeros((*shape, len(PRICED), PARTS))
    return Totals(
        np.zeros(shape, np.int64), np.zeros(shape, np.int64), joules, np.zeros(machines, np.int64), np.zeros(machines, bool)
    )


def _sums(totals: Totals) -> list[list[float | None]]:
    """Return the joules of every machine and step: of each component the sum of its rows, rounded once, then of all."""
    components = totals.joules[..., 0] + totals.joules[..., 1]
    for place in np.argwhere(totals.joules[..., 2]):
        components[tuple(place)] = math.fsum(totals.joules[tuple(place)][: PARTS - 1])
    return [[math.fsum(part) for part in machine] for machine in components.tolist()]


def _prices(table: EnergyTable | None, archs: Sequence[Arch]) -> FloatArray:
    """Return the joules of one event of each component of energy on each machine: only static power depends on its clock."""
    prices = np.zeros((len(archs), len(PRICED)))
    if table is not None:
        one_of_each = Events(*[1] * len(Events._fields))
        joules = StepEnergy(table, 1.0, (one_of_each,)).rows[0]
        prices[:] = [joules[component] for component in PRICED]
        prices[:, PRICED.index("static")] /= [arch.clock_hz for arch in archs]
    return prices
