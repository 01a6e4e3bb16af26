"""The tables of a program as code generation fills them: tensors, views, modes, kernels, updates, sites (docs/isa.md)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal

import numpy as np

from accel.access import Access
from accel.arch import Arch
from accel.dataflow.codegen_kernels import Objects
from accel.dataflow.placement import Life, place
from accel.gemm import FP32_BITS, FP32_BYTES, Operand, Stage
from accel.program import Format, Kernel, Mode, Site, Tables, Tensor, Update, View
from accel.schedule import ScheduledGemm, Step, UpdateWork, VectorWork
from accel.timing.gemm import Product, Side
from accel.trace import Attributes
from accel.units import ceil_div

PARTIAL_SUMS = "partial sums"


class TableWriter:
    """Rows in the order in which they are first used."""

    def __init__(self, arch: Arch, step: Step) -> None:
        """Start empty tables for the program of `step` on `arch`."""
        self.arch, self.step = arch, step
        self.sizes = dict(step.tensor_bytes)
        for update in step.updates:
            self.sizes |= dict(update.copies)
        self.event = 0
        """What is added now; a tensor is kept from the first event that uses it to the last."""
        self.used: dict[str, tuple[int, int]] = {}
        self.numbers: dict[str, int] = {}
        self.given: set[str] = set()
        """What is read before anything writes it, and so is there from the start."""
        self.views: list[View] = []
        self.modes: dict[Mode, int] = {}
        self.kernels: list[Kernel] = []
        self.updates: list[Update] = []
        self.sites: dict[Site, int] = {}

    def tables(self) -> Tables:
        """Return the finished tables, every tensor at its place in DRAM."""
        return Tables(
            network=self.step.network,
            batch=self.step.batch,
            arch=self.arch,
            tensors=self._tensors(),
            views=tuple(self.views),
            modes=tuple(self.modes),
            kernels=tuple(self.kernels),
            updates=tuple(self.updates),
            sites=tuple(self.sites),
        )

    def _tensors(self) -> tuple[Tensor, ...]:
        kept = {name for update in self.step.updates for name, _ in update.copies}
        kept |= {name for name in self.numbers if name.startswith("master ")}
        lives = [
            Life(self.sizes.get(name, 0), 0 if name in kept | self.given else first, self.event if name in kept else last)
            for name, (first, last) in ((name, self.used[name]) for name in self.numbers)
        ]
        # FP32 weights and the optimizer's state lie behind all others; their gradients are among them.
        behind = sum(update.master_bytes - FP32_BYTES * update.elems for update in self.step.updates)
        room = self.arch.dram_capacity_bytes - behind
        return tuple(
            Tensor(name=name, address=address, bytes=life.size, format=_format(name))
            for name, life, address in zip(self.numbers, lives, place(lives, room), strict=True)
        )

    def reused(self, tables: Tables) -> Iterator[tuple[str, str]]:
        """Yield pairs of tensors: the second takes the place of the first, or a part of it, once that is used no more."""
        names = list(self.numbers)
        lives = np.array([self.used[name] for name in names]).reshape(-1, 2)
        starts = np.array([tensor.address for tensor in tables.tensors])
        ends = starts + np.array([tensor.bytes for tensor in tables.tensors])
        for number, name in enumerate(names):
            shares = (starts < ends[number]) & (starts[number] < ends) & (lives[:, 1] < lives[number, 0])
            yield from ((names[other], name) for other in np.flatnonzero(shares))

    def site(self, layer: str, stage: Stage, part: str) -> int:
        """Return the number of a site."""
        return self.sites.setdefault(Site(layer=layer, stage=stage, part=part), len(self.sites))

    def add_kernel(
        self,
        op: str,
        lane_ops: int,
        dram_bytes: int,
        transfers: int,
        reads: Iterable[str],
        writes: Iterable[str],
        attributes: Attributes | None = None,
        accesses: Iterable[Access | None] = (),
        tile: bool = False,
        samples: tuple[int, int] | None = None,
    ) -> int:
        """Add an operator, or what it does with some `samples` (first, count), and return its number."""
        self.event += 1
        kernel = Kernel(
            op=op,
            lane_ops=lane_ops,
            bytes=dram_bytes,
            transfers=transfers,
            reads=self._numbers_of(reads),
            writes=self._numbers_of(writes, written=True),
            tile=tile,
            attributes=attributes,
            accesses=tuple(access for access in accesses if access is not None),
            samples=samples,
        )
        self.kernels.append(kernel)
        return len(self.kernels) - 1

    def keep(self, names: Iterable[str]) -> None:
        """Let nothing that is added last take the place of these tensors."""
        for name in names:
            self.used[name] = self.used[name][0], self.event

    def add_tile_kernel(self, work: VectorWork, results: int, swapped: bool) -> int:
        """Add an operator on results, of which all products have `results`, and return its number."""
        access = work.access.swapped if work.access is not None and swapped else work.access
        lane_ops = ceil_div(work.lane_ops, results)
        return self.add_kernel(work.kind, lane_ops, 0, 0, work.reads, work.writes, work.attributes, (access,), tile=True)

    def add_update(self, work: UpdateWork) -> int:
        """Add an update and return its number."""
        self.event += 1
        written = self._numbers_of((name for name, _ in work.copies), written=True)
        update = Update(
            weight=written[0],
            elems=work.elems,
            passes=work.passes,
            sore_groups=work.sore_groups,
            bytes=work.dram_bytes,
            reads=self._numbers_of(work.reads),
            writes=written,
            parameter=work.parameter,
        )
        self.updates.append(update)
        return len(self.updates) - 1

    def objects(self, scheduled: ScheduledGemm, product: Product, tile_kernels: list[int], spills: bool) -> Objects:
        """Add what a product on the array needs and return where it is; `spills` says whether partial sums go to DRAM."""
        self.event += 1
        gemm, mapping = scheduled.gemm, scheduled.mapping
        west, north = (gemm.rhs, gemm.lhs) if mapping.swapped else (gemm.lhs, gemm.rhs)
        pad = gemm.out_elems // (gemm.shape.count * gemm.shape.m) - gemm.shape.n
        pads = (pad, 0) if mapping.swapped else (0, pad)
        mode = Mode(
            dataflow="OS" if mapping.dataflow == "OS" else "WS",
            row_lanes=mapping.row_lanes,
            keep=mapping.run_keep,
            group=mapping.run_group,
            out_bits=32 if gemm.out_bits == FP32_BITS else 16,
        )
        sums = -1
        if spills:
            sums_bytes = FP32_BYTES * product.west.size * product.north.size
            self.sizes[PARTIAL_SUMS] = max(self.sizes.get(PARTIAL_SUMS, 0), sums_bytes)
            sums = self._results((PARTIAL_SUMS,), product, (0, 0), FP32_BITS)
        prune = (north.pattern.keep, north.pattern.group) if product.north.online else (0, 0)
        access = gemm.out_access.swapped if gemm.out_access is not None and mapping.swapped else gemm.out_access
        return Objects(
            site=self.site(gemm.layer, gemm.stage, gemm.part),
            west=self._operand("west", west, product.west, product, (0, 0)),
            north=self._operand("north", north, product.north, product, prune),
            out=self._results(gemm.writes, product, pads, gemm.out_bits, access),
            sums=sums,
            mode=self.modes.setdefault(mode, len(self.modes)),
            first_tile_kernel=tile_kernels[0] if tile_kernels else -1,
            tile_kernels=len(tile_kernels),
            pad_rows=pads[0],
            pad_cols=pads[1],
        )

    def _operand(
        self, side: Literal["west", "north"], operand: Operand, part: Side, product: Product, prune: tuple[int, int]
    ) -> int:
        view = View(
            tensors=self._numbers_of(operand.tensors),
            side=side,
            rows=part.size,
            groups=product.groups,
            row_bits=part.row_bits,
            halo_bits=part.halo_bits,
            group_bits=part.group_bits,
            distinct=part.distinct,
            prune_keep=prune[0],
            prune_group=prune[1],
            repeats=product.repeats,
            access=operand.access,
        )
        self.views.append(view)
        return len(self.views) - 1

    def _results(
        self, tensors: Iterable[str], product: Product, pads: tuple[int, int], elem_bits: int, access: Access | None = None
    ) -> int:
        view = View(
            tensors=self._numbers_of(tensors, written=True),
            side="out",
            rows=product.west.size,
            cols=product.north.size,
            pad_rows=pads[0],
            pad_cols=pads[1],
            elem_bits=elem_bits,
            repeats=product.repeats,
            access=access,
        )
        self.views.append(view)
        return len(self.views) - 1

    def _numbers_of(self, names: Iterable[str], written: bool = False) -> tuple[int, ...]:
        return tuple(self._number_of(name, written) for name in names)

    def _number_of(self, name: str, written: bool) -> int:
        if name not in self.used and not written:
            self.given.add(name)
        first, _ = self.used.get(name, (self.event, self.event))
        self.used[name] = first, self.event
        return self.numbers.setdefault(name, len(self.numbers))


def _format(name: str) -> Format:
    """Return how a tensor is stored, which its name says (`accel.dataflow.tensors`)."""
    if name.startswith(("dw ", "master ")) or name == PARTIAL_SUMS:
        return "fp32"
    for kind in ("mask", "index"):
        if name.endswith(f" {kind}"):
            return kind
    is_copy_of_a_stage = name.startswith("weight ") and name.rsplit(" ", 1)[-1] in (Stage.FORWARD, Stage.INPUT_GRAD)
    return "compact" if is_copy_of_a_stage else "fp16"
