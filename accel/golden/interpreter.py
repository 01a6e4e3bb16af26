"""`interpret`: executes a program (docs/isa.md) on numbers, instruction by instruction, in any order that its tokens allow.

Products are golden: exact products of FP16, FP32 sums in the order of k, whatever the tiles. Each instruction is done as a
whole; that what runs side by side on the machine gives the same is what tokens are for.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from accel.access import Access, Places
from accel.errors import ScheduleError
from accel.golden.interpreter_memory import Buffer, Dram, Fault, Flags, PartialSums, Tile, Values, kept_by, spread
from accel.golden.interpreter_update import Updater
from accel.golden.interpreter_vector import VectorUnit
from accel.golden.numeric import Float16s, Float32s, add, multiply, to_fp16
from accel.golden.update import UpdateRule
from accel.program import SIDES, Engine, Flag, Program, View
from accel.sparsity import NMPattern
from accel.tokens import resolve_tokens
from accel.units import ceil_div

_PRODUCTS_AT_ONCE = 1 << 18


def interpret(
    program: Program,
    tensors: Mapping[str, Values],
    *,
    rule: UpdateRule | None = None,
    loss_scale: float = 1.0,
    seed: int | None = None,
) -> dict[str, Values]:
    """Return all tensors after the program: those given, activations, gradients, new masters, momentum and copies.

    `tensors` are the network's inputs, the target of a loss ("NAME target") and the parameters (`initial_tensors`), stored as
    `accel.dataflow.accesses` says. Instructions run in the order of the program as far as tokens allow, with a `seed` in a
    random order that they allow. Without a `rule` a program with updates is refused.
    """
    machine = _Machine(program, tensors, VectorUnit(loss_scale), Updater(rule, loss_scale))
    for number in execution_order(program, seed):
        machine.execute(number)
    return machine.dram.values


def execution_order(program: Program, seed: int | None = None) -> Iterator[int]:
    """Yield instructions in an order that tokens allow: always the first one that can run, or with a `seed` a random one."""
    rng = None if seed is None else np.random.default_rng(seed)
    opcodes, needs = program.instructions["opcode"], resolve_tokens(program)
    places = [np.flatnonzero(opcodes == engine).tolist() for engine in Engine]
    done = np.zeros(len(Engine), np.int64)
    for _ in range(len(opcodes)):
        heads = [queue[count] for queue, count in zip(places, done.tolist(), strict=True) if count < len(queue)]
        ready = [head for head in heads if (needs[head] <= done).all()]
        if not ready:
            raise ScheduleError(
                f"program: instructions {sorted(heads)} must not wait for each other in a circle; compile it again"
            )
        number = min(ready) if rng is None else int(rng.choice(ready))
        yield number
        done[opcodes[number]] += 1


class _Machine:
    """DRAM, buffers and the sums in the array."""

    def __init__(self, program: Program, tensors: Mapping[str, Values], vector_unit: VectorUnit, updater: Updater) -> None:
        self.program, self.tables = program, program.tables
        self.dram = Dram(program, tensors)
        self.west, self.north, self.out = (Buffer(side) for side in SIDES)
        self.sums: dict[int, PartialSums] = {}
        """In DRAM, by the number of their view."""
        self.in_array: tuple[tuple[int, ...], Float32s] | None = None
        """OS: sums that are not complete, and whose: mode, repeat, row, rows, col, cols, next group."""
        self.vector_unit, self.updater = vector_unit, updater
        self.grads = {tensor for update in self.tables.updates for tensor in update.reads}
        self.steps = {
            Engine.LOAD: self._load,
            Engine.STORE: self._store,
            Engine.COMPUTE: self._compute,
            Engine.PRUNE: self._prune,
            Engine.VECTOR: self._vector,
            Engine.UPDATE: self._update,
        }

    def execute(self, number: int) -> None:
        """Do one instruction."""
        record: Any = self.program.instructions[number]
        fields = dict(zip(self.program.instructions.dtype.names or (), record.tolist(), strict=True))
        engine = Engine(fields["opcode"])
        try:
            self.steps[engine](fields)
        except Fault as fault:
            site = self.tables.sites[fields["site"]]
            where = " ".join(filter(None, (site.layer, site.stage, site.part)))
            raise ScheduleError(f"instruction {number} ({engine.name} of {where}): {fault.text}") from None

    def _load(self, fields: dict[str, int]) -> None:
        view = self.tables.views[fields["object"]]
        if view.side == "out":
            self._load_sums(fields)
            return
        access = _access_of(view)
        elements = Elements.of(view, access, self.tables.arch.group, fields["group"], fields["groups"])
        size = ("row", "rows") if view.side == "west" else ("col", "cols")
        rows = np.arange(fields[size[0]], fields[size[0]] + fields[size[1]])
        name = self.dram.name(view.tensors[0])
        is_compact = self.tables.tensors[view.tensors[0]].format == "compact"
        if is_compact:
            values, kept = self._compact(name, access, fields["repeat"], rows, elements)
        else:
            places, exists = access.places(fields["repeat"], rows, elements.taps, elements.inner)
            values = self.dram.gather(name, access.shape, places, exists & elements.exist).T
            kept = np.broadcast_to(elements.exist[:, None], values.shape)
        same: dict[str, Any] = {name: fields[name] for name in ("words", "repeat", "group", "groups", *size)}
        tile = Tile(values=values, run_group=elements.run_group, kept=kept, is_pruned=is_compact, **same)
        if view.side == "west":
            tile.values = values.T
            self.west.write(fields["west"], tile)
        else:
            self.north.write(fields["north"], tile)

    def _compact(self, name: str, access: Access, repeat: int, rows: Places, elements: Elements) -> tuple[Float16s, Flags]:
        """Return elements (k, columns) of a compact copy, and which of them it holds."""
        values, kept = spread(self.dram.read(name)[repeat])
        taps = _tap_numbers(access)[elements.taps]
        is_there = elements.inner < values.shape[1]
        inner = np.where(is_there, elements.inner, 0)
        return values[taps[:, None], inner[:, None], rows], kept[taps[:, None], inner[:, None], rows] & is_there[:, None]

    def _load_sums(self, fields: dict[str, int]) -> None:
        number, rows, cols = fields["object"], _span(fields, "row", "rows"), _span(fields, "col", "cols")
        if number not in self.sums:
            raise Fault("partial sums must be stored before they are loaded, not later")
        values, group = self.sums[number].read(rows, cols, fields["repeat"])
        self.out.write(fields["out"], Tile(values=values, group=group, **_place_of(fields)))

    def _prune(self, fields: dict[str, int]) -> None:
        view = self.tables.views[fields["object"]]
        needed = {name: fields[name] for name in ("words", "repeat", "col", "cols", "group", "groups")}
        tile = self.north.read(fields["north"], needed)
        if tile.is_pruned or tile.kept is None:
            raise Fault(f"the tile at north {fields['north']} must be dense, not pruned before")
        pattern = NMPattern(view.prune_keep, view.prune_group)
        elements = Elements.of(view, _access_of(view), self.tables.arch.group, fields["group"], fields["groups"])
        kept = np.zeros_like(tile.kept)
        for tap in np.unique(elements.taps):
            chosen = np.flatnonzero((elements.taps == tap) & elements.exist)
            kept[chosen] = kept_by(tile.values[chosen], pattern)
        tile.kept, tile.is_pruned = kept, True

    def _compute(self, fields: dict[str, int]) -> None:
        mode = self.tables.modes[fields["object"]]
        needed = {name: fields[name] for name in ("repeat", "group", "groups")}
        west, north = self.west.read(fields["west"], needed), self.north.read(fields["north"], needed)
        lhs = west.values[_inside(fields["row"], fields["rows"], west.row, west.rows, f"rows of west {fields['west']}")]
        cols = _inside(fields["col"], fields["cols"], north.col, north.cols, f"columns of north {fields['north']}")
        rhs, kept = north.values[:, cols], np.ones((), np.bool_) if north.kept is None else north.kept[:, cols]
        _check_pattern(kept, north.run_group, west.run_group, mode.keep, mode.group)
        total = _accumulate(self._sums_before(fields, mode.dataflow == "OS"), lhs, rhs, kept)
        is_last = bool(fields["flags"] & Flag.LAST)
        end = fields["group"] + fields["groups"]
        if is_last or mode.dataflow == "WS":
            values = to_fp16(total) if is_last and mode.out_bits == 16 else total
            self.out.write(fields["out"], Tile(values=values, group=end, is_final=is_last, **_place_of(fields)))
            self.in_array = None
        else:
            self.in_array = (*_sums_key(fields), end), total

    def _sums_before(self, fields: dict[str, int], stay_in_array: bool) -> Float32s:
        if fields["flags"] & Flag.FIRST:
            return np.zeros((fields["rows"], fields["cols"]), np.float32)
        if stay_in_array:
            if self.in_array is None or self.in_array[0] != (*_sums_key(fields), fields["group"]):
                raise Fault(f"sums in the array must be those of the same tile up to group {fields['group']}, not others")
            return self.in_array[1]
        needed = {name: fields[name] for name in ("repeat", *_REGION, "group")} | {"is_final": False}
        sums: Float32s = self.out.read(fields["out"], needed).values
        return sums

    def _store(self, fields: dict[str, int]) -> None:
        view = self.tables.views[fields["object"]]
        tile = self.out.read(fields["out"], {name: fields[name] for name in ("repeat", *_REGION)})
        rows, cols = _span(fields, "row", "rows"), _span(fields, "col", "cols")
        if not tile.is_final:
            sums = self.sums.setdefault(fields["object"], PartialSums.empty(view.rows, view.cols))
            sums.write(rows, cols, tile)
            return
        access = _access_of(view)
        places, _ = access.places(fields["repeat"], np.arange(rows.start, rows.stop), None, np.arange(cols.start, cols.stop))
        self._note(view.tensors[0], tile.values)
        self.dram.scatter(self.dram.name(view.tensors[0]), access.shape, places, tile.values)

    def _vector(self, fields: dict[str, int]) -> None:
        kernel = self.tables.kernels[fields["object"]]
        if kernel.tile:
            tile = self.out.read(fields["out"], _place_of(fields) | {"is_final": True})
            tile.values = self.vector_unit.on_tile(kernel, tile, self.dram)
            return
        self.vector_unit.stream(kernel, self.tables.sites[fields["site"]], self.dram)
        for number in kernel.writes:
            self._note(number, self.dram.values.get(self.dram.name(number)))

    def _note(self, number: int, values: Values | None) -> None:
        """Note a gradient that an update reads, if it is not finite."""
        if number in self.grads and isinstance(values, np.ndarray) and not np.isfinite(values).all():
            self.updater.overflow = True

    def _update(self, fields: dict[str, int]) -> None:
        self.updater.update(self.tables.updates[fields["object"]], self.dram)


_REGION = ("row", "rows", "col", "cols")


class Elements:
    """The elements of k in some groups of a view: tap, number in the tap, which exist: a tap ends with a padded group."""

    def __init__(self, taps: Places, inner: Places, exist: Flags, run_group: int) -> None:
        """Take what was found."""
        self.taps, self.inner, self.exist, self.run_group = taps, inner, exist, run_group

    @classmethod
    def of(cls, view: View, access: Access, machine_group: int, group: int, groups: int) -> Elements:
        """Return the elements of `groups` groups from `group` on; groups are of one element, or of the machine's group."""
        taps, inner = (int(np.prod(extents)) for extents in (access.taps, access.inner))
        in_tap, rest = divmod(view.groups, taps)
        run_group = 1 if in_tap == inner else machine_group
        if rest or in_tap != ceil_div(inner, run_group):
            raise Fault(f"groups of the view must be those of {taps} taps of {inner} elements, not {view.groups}")
        numbers = np.arange(group, group + groups)
        of_tap, in_group = np.repeat(numbers // in_tap, run_group), np.tile(np.arange(run_group), groups)
        elements = np.repeat(numbers % in_tap, run_group) * run_group + in_group
        return cls(of_tap, elements, elements < inner, run_group)


def _access_of(view: View) -> Access:
    if view.access is None and len(view.tensors) > 1:
        raise Fault(f"an operand must be one tensor to be executed, not {len(view.tensors)} side by side")
    if view.access is None:
        raise Fault("an operand must be whole and as it is stored to be executed, not a part, in another order or shared")
    return view.access


def _tap_numbers(access: Access) -> Places:
    """Return for each tap of a product which tap of the kernel it is, row-major."""
    count = int(np.prod(access.taps))
    if len(access.axes) < 3:
        return np.zeros(count, np.int64)
    kernel = access.model_copy(update={"axes": access.axes[1:-1]})
    places, _ = kernel.places(0, np.zeros(1, np.int64), np.arange(count), np.zeros(count, np.int64))
    numbers: Places = places[0]
    return numbers


def _place_of(fields: dict[str, int]) -> dict[str, Any]:
    """Return the fields of a tile of results."""
    return {name: fields[name] for name in ("words", "repeat", *_REGION)}


def _span(fields: dict[str, int], first: str, count: str) -> slice:
    return slice(fields[first], fields[first] + fields[count])


def _sums_key(fields: dict[str, int]) -> tuple[int, ...]:
    return tuple(fields[name] for name in ("object", "repeat", *_REGION))


def _inside(first: int, count: int, tile_first: int, tile_count: int, what: str) -> slice:
    if not tile_first <= first <= first + count <= tile_first + tile_count:
        raise Fault(f"{what} must hold {first} to {first + count - 1}, not {tile_first} to {tile_first + tile_count - 1}")
    return slice(first - tile_first, first - tile_first + count)


def _check_pattern(kept: Flags, north_group: int, west_group: int, keep: int, group: int) -> None:
    """Check that tiles have the groups of the mode, with no more elements than it keeps."""
    if not (group == north_group == west_group or keep == group):
        raise Fault(f"tiles must have groups of {group} elements, not {west_group} and {north_group}")
    if kept.ndim and keep < group and kept.reshape(-1, group, kept.shape[-1]).sum(axis=1).max() > keep:
        raise Fault(f"a group of the tile at north must hold at most {keep} elements, not more; prune it")


def _accumulate(total: Float32s, lhs: Float16s, rhs: Float16s, kept: Flags) -> Float32s:
    """Return `total` (rows, cols) plus lhs (rows, k) times rhs (k, cols), one k after the other, without what is not kept."""
    used = np.flatnonzero(np.broadcast_to(kept, rhs.shape).any(axis=1))
    at_once = max(1, _PRODUCTS_AT_ONCE // max(1, total.size))
    for start in range(0, len(used), at_once):
        chosen = used[start : start + at_once]
        products = multiply(lhs.T[chosen, :, None], rhs[chosen, None, :])
        for product, flags in zip(products, np.broadcast_to(kept, rhs.shape)[chosen], strict=True):
            total = add(total, product) if flags.all() else np.where(flags, add(total, product), total)
    return total
