"""Schedule -> Program: the instructions of a step, engine by engine, with the tokens that make them wait for each other.

Tensors decide what waits for what: a LOAD of an operand for the instructions that wrote its tensors, an operator for those of
its inputs, the first update for everything (a gradient that is not finite stops all updates). Work that does not depend on what
came before, above all the load of weights, so starts while that still runs. Operators that work sample by sample are cut into
parts, and the product behind them waits for one part after the other. What is the first to write where another tensor was in
DRAM waits for the last use of that.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from accel.arch import Arch
from accel.dataflow.codegen_kernels import FIELDS, IntArray, Lines, Output, Parts, State, Words, emit_product
from accel.dataflow.codegen_parts import NO_LINES, lines_of, part_ends, share, spans
from accel.dataflow.codegen_tables import PARTIAL_SUMS, TableWriter
from accel.dataflow.scheduling import machine_of
from accel.gemm import FP16_BITS, FP32_BITS, Gemm, Operand, Stage
from accel.program import (
    INSTRUCTION,
    Engine,
    Flag,
    Program,
)
from accel.schedule import Mapping, Schedule, ScheduledGemm, Segment, UpdateWork, VectorWork
from accel.timing.gemm import DATAFLOW_NAMES, LOOP_ORDERS, Product, Side, Tiling
from accel.tokens import tokens_of_needs
from accel.units import ceil_div

_ENGINES = len(Engine)
_REGIONS = 64
"""Tiles of one buffer that are kept track of."""


def compile_schedule(planned: Schedule) -> Program:
    """Return the program of a scheduled step."""
    writer = _Writer(planned)
    gemms = iter(planned.gemms)
    for segment in planned.step.segments:
        writer.add_segment(segment, [next(gemms) for _ in segment.gemms])
    writer.add_updates(planned.step.updates)
    return writer.program()


@dataclass
class _Writer:
    """Instructions so far, and what each tensor waits for."""

    planned: Schedule
    chunks: list[Any] = field(default_factory=list)
    needs: list[Any] = field(default_factory=list)
    written: dict[str, IntArray] = field(default_factory=dict)
    """For each tensor, how many instructions of every engine must be complete until it is whole."""
    used: dict[str, IntArray] = field(default_factory=dict)
    """For each tensor, how many instructions of every engine must be complete until nothing uses it any more."""
    makers: dict[str, list[int]] = field(default_factory=dict)
    """For each tensor, the first instruction that writes it, of each engine that does."""
    fenced: int = 0
    """Vector operators that the last fence waited for."""
    pending: list[VectorWork] = field(default_factory=list)
    """Operators by samples since the last product, which the next one may take in parts."""

    def __post_init__(self) -> None:
        arch = self.planned.arch
        self.arch, self.machine = arch, machine_of(arch)
        self.state = State(
            counts=np.zeros(_ENGINES, np.int64),
            size=np.array([arch.west_buffer_bytes, arch.north_buffer_bytes, arch.output_buffer_bytes]) // (2 * arch.group),
            next=np.zeros(3, np.int64),
            regions=np.zeros((3, _REGIONS, 3), np.int64),
            oldest=np.zeros(3, np.int64),
            held=np.zeros(3, np.int64),
            freed=np.zeros(3, np.int64),
        )
        self.tables = TableWriter(arch, self.planned.step)

    def add_segment(self, segment: Segment, gemms: list[ScheduledGemm]) -> None:
        """Add products one after another, then operators one after another; those on results go with the products."""
        on_results = [work for work in segment.vectors if work.on_results]
        on_array = [scheduled for scheduled in gemms if scheduled.mapping.dataflow != "VECTOR"]
        results = sum(scheduled.gemm.shape.count * scheduled.gemm.shape.m * scheduled.gemm.shape.n for scheduled in on_array)
        tile_kernels: dict[bool, list[int]] = {}
        for scheduled in gemms:
            if scheduled.mapping.dataflow == "VECTOR":
                self._add_pending()
                self._add_vector_product(scheduled)
                continue
            swapped = scheduled.mapping.swapped
            if swapped not in tile_kernels:
                tile_kernels[swapped] = [self.tables.add_tile_kernel(work, results, swapped) for work in on_results]
            self._add_product(scheduled, tile_kernels[swapped])
        for work in segment.vectors:
            if work.by_sample:
                self.pending.append(work)
                continue
            self._add_pending()
            if not work.on_results:
                self._add_vector(work)
            elif not results:  # the product ran on the vector unit, and so its results are in DRAM
                written = tuple(dict.fromkeys(name for scheduled in gemms for name in scheduled.gemm.writes))
                self._add_vector(replace(work, reads=written + work.reads, writes=written))

    def add_updates(self, updates: Iterable[UpdateWork]) -> None:
        """Add the updates, which wait for all that came before: one gradient that is not finite stops them all."""
        self._add_pending()
        everything = self.state.counts.copy()
        for work in updates:
            if work.elems:
                site = self.tables.site(work.layer, Stage.OPTIMIZER, "update")
                needs = np.zeros(_ENGINES, np.int64)
                needs[Engine.STORE], needs[Engine.VECTOR] = everything[Engine.STORE], everything[Engine.VECTOR]
                self._add(Engine.UPDATE, site, self.tables.add_update(work), needs)

    def program(self) -> Program:
        """Return everything added, with tokens."""
        self._add_pending()
        rows = np.concatenate([np.zeros((0, len(FIELDS)), np.int64), *self.chunks])
        instructions = np.zeros(len(rows), INSTRUCTION)
        for column, name in enumerate(FIELDS):
            instructions[name] = rows[:, column]
        needs = np.concatenate([np.zeros((0, _ENGINES), np.int64), *self.needs])
        tables = self.tables.tables()
        for earlier, later in self.tables.reused(tables):
            for maker in self.makers.get(later, ()):
                np.maximum(needs[maker], self.used[earlier], out=needs[maker])
        instructions["waits"], instructions["signals"] = tokens_of_needs(instructions["opcode"], needs)
        return Program(tables, instructions)

    def _add_product(self, scheduled: ScheduledGemm, tile_kernels: list[int]) -> None:
        gemm, mapping = scheduled.gemm, scheduled.mapping
        product, tiling = _product_of(gemm, mapping, self.arch), _tiling_of(mapping)
        west, north = (gemm.rhs, gemm.lhs) if mapping.swapped else (gemm.lhs, gemm.rhs)
        lines = self._lines((west, product.west.size), (north, product.north.size))
        works, parts = self._take_parts(lines)
        lines = lines if works else (NO_LINES, NO_LINES)
        objects = self.tables.objects(scheduled, product, tile_kernels, _spills(product, tiling))
        self.tables.keep(name for work in works for name in work.reads + work.writes)  # parts run on beside this product
        room = _instructions_at_most(product, tiling, self.arch, len(tile_kernels)) + len(parts.rows)
        output = Output(np.zeros((room, len(FIELDS)), np.int64), np.zeros((room, _ENGINES), np.int64), np.zeros(1, np.int64))
        order = np.array(["mnk".index(loop) for loop in mapping.loop_order])
        needs = self._needs(west.tensors), self._needs(north.tensors)
        # What waits for less, weights above all, is not kept waiting.
        west_first = lines[0].per_sample == 0 and bool(lines[1].per_sample or needs[0].sum() < needs[1].sum())
        emit_product(
            output, self.state, self.machine, product, tiling, order, objects, self._words(gemm, mapping), *needs, west_first,
            parts, *lines,
        )  # fmt: skip
        size, first = int(output.size[0]), int(self.state.counts.sum() - output.size[0])
        rows = output.rows[:size]
        self.chunks.append(rows)
        self.needs.append(output.needs[:size])
        self._note_parts(works, parts, rows, first)
        self._wrote(gemm.writes, Engine.STORE)
        self._use(west.tensors + north.tensors + ((PARTIAL_SUMS,) if objects.sums >= 0 else ()), Engine.LOAD)
        stored = np.where(rows[:, FIELDS.index("opcode")] == Engine.STORE, rows[:, FIELDS.index("object")], -1)
        for names, view in ((gemm.writes, objects.out), ((PARTIAL_SUMS,), objects.sums)):
            if view >= 0 and (stored == view).any():
                self._use(names, Engine.STORE, first + int((stored == view).argmax()))

    def _lines(self, *sides: tuple[Operand, int]) -> tuple[Lines, ...]:
        """Return how the lines of each operand, of so many, wait for the parts of what makes it; none where it is there.

        None for either if one is made here but may need all samples.
        """
        made = {name for work in self.pending for name in work.writes}
        found = []
        for operand, size in sides:
            lines = NO_LINES
            if not made.isdisjoint(operand.tensors):
                lines = lines_of(operand, size, self.planned.step.batch)
                if lines == NO_LINES:
                    return (NO_LINES,) * len(sides)
            found.append(lines)
        return tuple(found)

    def _take_parts(self, lines: tuple[Lines, ...]) -> tuple[list[VectorWork], Parts]:
        """Return the operators since the last product and their parts, for one with these lines; add whole what has none."""
        batch, works = self.planned.step.batch, self.pending
        ends = part_ends(works, self.arch, batch)
        if all(one == NO_LINES for one in lines) or len(ends) == 1:
            self._add_pending()
            works, ends = [], []
        self.pending = []
        rows, needs = [np.zeros((0, len(FIELDS)), np.int64)], [np.zeros((0, _ENGINES), np.int64)]
        made = {name for work in works for name in work.writes}
        for part, samples in enumerate(spans(ends)):
            for number, work in enumerate(works):
                waits = bool(made.intersection(work.reads))  # for the part of the operator before it
                if part:
                    wanted = needs[number + 1]
                else:
                    wanted = self._needs(work.reads)[None]
                    if wanted[0, Engine.VECTOR] > self.fenced:
                        waits, self.fenced = True, int(self.state.counts[Engine.VECTOR]) + number
                site, kernel = self._site_and_kernel(work, samples)
                rows.append(_instruction(Engine.VECTOR, site, kernel, Flag.FENCE if waits else Flag(0)))
                needs.append(wanted)
        parts = Parts(
            rows=np.concatenate(rows),
            needs=np.concatenate(needs),
            ends=np.arange(1, len(ends) + 1) * len(works),
            samples=np.array(ends, np.int64),
            done=np.zeros(len(ends), np.int64),
            put=np.zeros(1, np.int64),
        )
        return works, parts

    def _note_parts(self, works: list[VectorWork], parts: Parts, rows: IntArray, first: int) -> None:
        """Take note of what parts, now among the instructions `rows` from `first` on, have made and used."""
        objects, is_vector = rows[:, FIELDS.index("object")], rows[:, FIELDS.index("opcode")] == Engine.VECTOR
        for work, part in zip(works, parts.rows, strict=False):  # the first part of each
            self._wrote(work.writes, Engine.VECTOR)
            self._use(work.reads, Engine.VECTOR)
            place = (is_vector & (objects == part[FIELDS.index("object")])).argmax()
            self._use(work.writes, Engine.VECTOR, first + int(place))

    def _add_pending(self) -> None:
        """Add the operators since the last product, whole."""
        works, self.pending = self.pending, []
        for work in works:
            self._add_vector(work)

    def _words(self, gemm: Gemm, mapping: Mapping) -> Words:
        pattern = (gemm.lhs if mapping.swapped else gemm.rhs).pattern
        online_bits = 0 if pattern.is_dense else pattern.compact_bits(self.arch.group, FP16_BITS)
        return Words(FP16_BITS * self.arch.group, online_bits)

    def _add_vector_product(self, scheduled: ScheduledGemm) -> None:
        gemm = scheduled.gemm
        site = self.tables.site(gemm.layer, gemm.stage, gemm.part)
        reads = gemm.lhs.tensors + gemm.rhs.tensors
        accesses = (gemm.lhs.access, gemm.rhs.access, gemm.out_access)
        kernel = self.tables.add_kernel(
            "product", gemm.macs_dense, scheduled.cost.dram_bytes, 3, reads, gemm.writes, accesses=accesses
        )
        self._add(Engine.VECTOR, site, kernel, self._needs(reads))
        self._wrote(gemm.writes, Engine.VECTOR)
        self._use(reads, Engine.VECTOR)
        self._use(gemm.writes, Engine.VECTOR, int(self.state.counts.sum()) - 1)

    def _site_and_kernel(self, work: VectorWork, samples: tuple[int, int] | None = None) -> tuple[int, int]:
        """Return the rows of the tables of an operator, or of its part with `samples` (first, count)."""
        lane_ops, dram_bytes = work.lane_ops, work.dram_bytes
        if samples is not None:
            lane_ops, dram_bytes = (share(amount, samples, self.planned.step.batch) for amount in (lane_ops, dram_bytes))
        kernel = self.tables.add_kernel(
            work.kind, lane_ops, dram_bytes, 2 if dram_bytes else 0, work.reads, work.writes, work.attributes, (work.access,),
            samples=samples,
        )  # fmt: skip
        return self.tables.site(work.layer, work.stage, work.kind), kernel

    def _add_vector(self, work: VectorWork) -> None:
        self._add(Engine.VECTOR, *self._site_and_kernel(work), self._needs(work.reads))
        self._wrote(work.writes, Engine.VECTOR)
        self._use(work.reads, Engine.VECTOR)
        self._use(work.writes, Engine.VECTOR, int(self.state.counts.sum()) - 1)

    def _add(self, engine: Engine, site: int, table_object: int, needs: IntArray) -> None:
        flags = Flag(0)
        if engine == Engine.VECTOR and needs[engine] > self.fenced:
            flags = Flag.FENCE
            self.fenced = int(self.state.counts[engine])
        self.state.counts[engine] += 1
        self.chunks.append(_instruction(engine, site, table_object, flags))
        self.needs.append(needs[None])

    def _needs(self, tensors: Iterable[str]) -> IntArray:
        """Return what must be complete until all of `tensors` are whole."""
        found = [self.written[name] for name in tensors if name in self.written]
        needs: IntArray = np.array([np.zeros(_ENGINES, np.int64), *found]).max(axis=0)
        return needs

    def _use(self, tensors: Iterable[str], engine: Engine, maker: int | None = None) -> None:
        """Take note that everything `engine` has been given uses `tensors`; instruction `maker` writes them."""
        for name in tensors:
            self.used.setdefault(name, np.zeros(_ENGINES, np.int64))[engine] = self.state.counts[engine]
            if maker is not None:
                self.makers.setdefault(name, []).append(maker)

    def _wrote(self, tensors: Iterable[str], engine: Engine) -> None:
        """Take note that everything `engine` has been given must be complete until `tensors` are whole."""
        for name in tensors:
            needs = self.written.setdefault(name, np.zeros(_ENGINES, np.int64)).copy()
            needs[engine] = self.state.counts[engine]
            self.written[name] = needs


def _instruction(engine: Engine, site: int, table_object: int, flags: Flag) -> IntArray:
    """Return an instruction on a whole object, (1, `FIELDS`)."""
    values = {"opcode": int(engine), "flags": int(flags), "site": site, "object": table_object}
    return np.array([[values.get(name, 0) for name in FIELDS]])


def _product_of(gemm: Gemm, mapping: Mapping, arch: Arch) -> Product:
    """Return the product with its operands as they enter the array."""
    groups = gemm.shape.groups(mapping.run_group)
    sides = []
    for operand, size in ((gemm.lhs, gemm.shape.m), (gemm.rhs, gemm.shape.n)):
        pattern = operand.pattern
        if pattern.is_dense or operand.prune_online:
            row_bits, halo_bits = 16 * operand.row_elems, 16 * operand.halo_elems
            group_bits = max(16 * mapping.run_group * operand.chunk_scale, ceil_div(row_bits, groups))
            sides.append(Side(size, operand.distinct, row_bits, halo_bits, group_bits, not pattern.is_dense))
        else:
            group_bits = pattern.compact_bits(arch.group, 16)
            sides.append(Side(size, operand.distinct, groups * group_bits, 0, group_bits, False))
    west, north = reversed(sides) if mapping.swapped else sides
    shape = gemm.shape
    return Product(west, north, shape.count, groups, mapping.run_keep, gemm.out_bits, gemm.out_elems, shape.macs)


def _spills(product: Product, tiling: Tiling) -> bool:
    """Return whether partial sums go to DRAM and back: a loop over m or n turns inside of that over k."""
    if tiling.tile_groups >= product.groups:
        return False
    turns = {"m": ceil_div(product.west.size, tiling.tile_m), "n": ceil_div(product.north.size, tiling.tile_n)}
    _, inside = LOOP_ORDERS[tiling.order].split("k")
    return any(turns[loop] > 1 for loop in inside)


def _tiling_of(mapping: Mapping) -> Tiling:
    dataflow = DATAFLOW_NAMES.index(mapping.dataflow)
    order = LOOP_ORDERS.index(mapping.loop_order)
    return Tiling(dataflow, mapping.row_lanes, mapping.tile_m, mapping.tile_n, mapping.tile_groups, order)


def _instructions_at_most(product: Product, tiling: Tiling, arch: Arch, tile_kernels: int) -> int:
    """Return a number of instructions that a product never exceeds."""
    loops_m, loops_n = ceil_div(product.west.size, tiling.tile_m), ceil_div(product.north.size, tiling.tile_n)
    tiles = product.repeats * loops_m * loops_n * ceil_div(product.groups, tiling.tile_groups)
    unit_m, unit_n = arch.array_rows * tiling.row_lanes, arch.array_cols * (arch.adder_latency // tiling.row_lanes)
    half_bits = arch.psum_words * arch.array_cols * FP32_BITS
    pieces = ceil_div(tiling.tile_n, unit_n)
    if DATAFLOW_NAMES[tiling.dataflow] == "OS":
        pieces *= ceil_div(tiling.tile_m, max(half_bits // (unit_n * product.out_bits) // unit_m, 1) * unit_m)
    return tiles * (4 + pieces * (2 + tile_kernels))
