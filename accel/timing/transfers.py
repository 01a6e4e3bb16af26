"""Which bytes of DRAM the transfers of a program touch, and how long banks and rows let that take (docs/dram.md, section 3)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.access import Access, Axis
from accel.dram import DramDevice
from accel.gemm import FP16_BYTES, FP32_BYTES
from accel.program import Engine, Instructions, Program, Tables, Tensor, Update, View
from accel.timing.dram import Stream, beats
from accel.units import ceil_div

CLASS_BYTES = 16
"""First addresses of tiles are told apart by so many bytes, inside of an interleave: tiles that start alike take as long."""

Numbers = NDArray[np.int64]


class Layout(NamedTuple):
    """How the elements of a view lie: vectors of `vector_bytes` that the view uses, one every `pitch_bytes`.

    `along` says what runs inside of a vector: "k", or "rows" of a tile (of results: "rows" or "cols").
    """

    along: str
    vector_bytes: int
    pitch_bytes: int


def transfer_beats(program: Program, device: DramDevice) -> Numbers:
    """Return for each instruction the cycles for which it has the DRAM port, (instructions,)."""
    instructions, tables = program.instructions, program.tables
    cycles = partial(beats, device, tables.arch)
    found = np.zeros(len(instructions), np.int64)
    engines, objects = instructions["opcode"], instructions["object"]
    for number in np.unique(objects[engines == Engine.VECTOR]):
        kernel = tables.kernels[number]
        parts = [*((tensor, False) for tensor in kernel.reads), *((tensor, True) for tensor in kernel.writes)]
        of_kernel = _streams_of_tensors(tables, kernel.bytes, parts)
        found[(engines == Engine.VECTOR) & (objects == number)] = cycles(_in_span(device, of_kernel))
    for number in np.unique(objects[engines == Engine.UPDATE]):
        of_update = list(_streams_of_update(tables, tables.updates[number]))
        found[(engines == Engine.UPDATE) & (objects == number)] = cycles(_in_span(device, of_update))
    for engine in (Engine.LOAD, Engine.STORE):
        for places in _places_by_view(instructions, engine):
            found[places] = _tile_beats(program, device, places, is_write=engine is Engine.STORE)
    return found


def layout_of(tables: Tables, view: View) -> Layout:
    """Return how the elements of a view lie, by its access; a view without one lies as its own sizes say."""
    tensor = tables.tensors[view.tensors[0]]
    access = view.access if tensor.format != "compact" and len(view.tensors) == 1 else None
    digit = None if access is None else _fastest_digit(access)
    if access is None or digit is None:
        return _plain_layout(view)
    elem_bytes = view.elem_bits // 8 if view.side == "out" else FP16_BYTES
    pixel_bytes = ceil_div(access.axes[-1].size, tables.arch.group) * tables.arch.group * elem_bytes
    extents = access.repeats + access.rows + access.taps + access.inner
    is_whole = extents[digit] == access.axes[-1].size
    vector_bytes = pixel_bytes if is_whole else extents[digit] * elem_bytes
    is_in_rows = len(access.repeats) <= digit < len(access.repeats) + len(access.rows)
    along = "rows" if is_in_rows else "cols" if view.side == "out" else "k"
    skipped = _skipped(access.axes[-2], extents) if len(access.axes) > 1 else 1
    return Layout(along, vector_bytes, pixel_bytes * skipped)


def _plain_layout(view: View) -> Layout:
    if view.side == "out":
        row_bytes = (view.cols + view.pad_cols) * view.elem_bits // 8
        return Layout("cols", row_bytes, row_bytes)
    row_bytes = max(ceil_div(view.row_bits, 8), 1)
    return Layout("k", row_bytes, row_bytes)


def _fastest_digit(access: Access) -> int | None:
    """Return the digit that counts neighbours of the last axis, if one does."""
    extents = access.repeats + access.rows + access.taps + access.inner
    found = [digit for digit, step in access.axes[-1].terms if step == 1 and extents[digit] > 1]
    return found[0] if found else None


def _skipped(axis: Axis, extents: tuple[int, ...]) -> int:
    """Return the places of an axis from one that is touched to the next: the largest step, unless smaller ones fill it."""
    steps = [(abs(step), extents[digit]) for digit, step in axis.terms if step and extents[digit] > 1]
    largest = max((step for step, _ in steps), default=1)
    filled = 1 + sum((extent - 1) * step for step, extent in steps if step < largest)
    return 1 if filled >= largest else largest


def tile_stream(layout: Layout, view: View, tile: Tile, address: int, is_write: bool) -> Stream:
    """Return the runs of a tile that starts at `address`: docs/dram.md, section 3."""
    run, pitch = layout.vector_bytes, layout.pitch_bytes
    if view.side == "out":
        lines = tile.cols if layout.along == "rows" else tile.rows
        run = ceil_div(tile.bytes, max(lines, 1))
    elif layout.along == "rows":
        run = min(min(tile.lines, view.distinct) * FP16_BYTES, run)
    elif tile.groups < view.groups:
        run = min(max(tile.groups * view.group_bits // 8, 1), run)
    if run >= pitch:
        return Stream(address, tile.bytes, tile.bytes, tile.bytes, is_write)
    return Stream(address, tile.bytes, run, pitch, is_write)


class Tile(NamedTuple):
    """The fields of a LOAD or STORE that say which tile it moves."""

    row: int
    rows: int
    col: int
    cols: int
    group: int
    groups: int
    bytes: int

    @property
    def lines(self) -> int:
        """Rows of a west tile, columns of a north one: the other field is 0."""
        return max(self.rows, self.cols)


def _places_by_view(instructions: Instructions, engine: Engine) -> Iterator[NDArray[np.intp]]:
    """Yield the numbers of the instructions of `engine`, view by view."""
    places = np.flatnonzero(instructions["opcode"] == engine)
    views = instructions["object"][places]
    order = np.argsort(views, kind="stable")
    yield from np.split(places[order], np.flatnonzero(np.diff(views[order])) + 1) if len(places) else ()


def _tile_beats(program: Program, device: DramDevice, places: NDArray[np.intp], is_write: bool) -> Numbers:
    """Return the beats of tiles of one view; tiles of one size that start alike are looked at once."""
    tables, own = program.tables, program.instructions[places]
    if not tables.views:  # a program whose tables say nothing of its operands
        return np.array([beats(device, tables.arch, (_whole(0, int(size), is_write),)) for size in own["bytes"]], np.int64)
    view = tables.views[own["object"][0]]
    layout = layout_of(tables, view)
    fields = np.array([own[name].astype(np.int64) for name in Tile._fields])
    address = tables.tensors[view.tensors[0]].address + _offsets(layout, view, Tile(*fields))
    starts = address % device.interleave_bytes // CLASS_BYTES * CLASS_BYTES
    keys, numbers = np.unique(np.stack((*fields[[1, 3, 5, 6]], starts)), axis=1, return_inverse=True)
    cycles = []
    for rows, cols, groups, size, start in keys.T.tolist():
        tile = Tile(0, rows, 0, cols, 0, groups, size)
        cycles.append(beats(device, tables.arch, (tile_stream(layout, view, tile, start, is_write),)))
    return np.array(cycles, np.int64)[numbers.reshape(-1)]


def _offsets(layout: Layout, view: View, tiles: Tile) -> Numbers:
    """Return how far behind the first byte of its tensor each tile starts; the fields of `tiles` are arrays."""
    if view.side == "out":
        across, inside = (tiles.col, tiles.row) if layout.along == "rows" else (tiles.row, tiles.col)
        return np.asarray(across * layout.pitch_bytes + inside * view.elem_bits // 8)
    line = np.maximum(tiles.row, tiles.col)
    if layout.along == "rows":
        return np.asarray(line * FP16_BYTES % layout.vector_bytes + tiles.group * (view.group_bits // 16) * layout.pitch_bytes)
    is_whole = tiles.groups == view.groups
    whole = line * view.row_bits // 8
    chunk = line * layout.pitch_bytes + tiles.group * view.group_bits // 8 % layout.vector_bytes
    return np.asarray(np.where(is_whole, whole, chunk))


def _whole(address: int, size: int, is_write: bool) -> Stream:
    return Stream(address, size, max(size, 1), max(size, 1), is_write)


def _streams_of_tensors(tables: Tables, size: int, parts: Iterable[tuple[int, bool]]) -> list[Stream]:
    """Return `size` bytes that are moved of whole tensors, (tensor, is_write), each its share by its own bytes."""
    tensors = [(tables.tensors[number], is_write) for number, is_write in parts]
    whole = sum(tensor.bytes for tensor, _ in tensors)
    if not whole:
        return [_whole(0, size, False)]
    ends = np.cumsum([0, *(tensor.bytes for tensor, _ in tensors)], dtype=object) * size // whole
    return [_share(tensor, int(ends[at + 1] - ends[at]), is_write) for at, (tensor, is_write) in enumerate(tensors)]


def _share(tensor: Tensor, size: int, is_write: bool) -> Stream:
    """Return `size` bytes of a tensor, over again from its start where they are more than it has."""
    return Stream(tensor.address, size, min(tensor.bytes, size) or 1, 0 if size > tensor.bytes else max(size, 1), is_write)


def _streams_of_update(tables: Tables, update: Update) -> Iterator[Stream]:
    """Yield what an update reads and writes: copies; then gradient, weight and state in FP32, behind all tensors.

    Of the FP32 words of a parameter all are read, and all but the gradient written back.
    """
    copies = _streams_of_tensors(
        tables, sum(tables.tensors[number].bytes for number in update.writes), [(n, True) for n in update.writes]
    )
    rest = update.bytes - sum(copy.bytes for copy in copies)
    if not update.elems or rest < 0:
        yield _whole(0, update.bytes, False)
        return
    yield from (copy for copy in copies if copy.bytes)
    size = FP32_BYTES * update.elems
    address = max(tensor.address + tensor.bytes for tensor in tables.tensors)
    moves, ragged = divmod(rest, size)
    reads = ceil_div(moves + 1, 2) if moves else 0
    for at in range(moves):
        is_write = at >= reads
        of_gradient = not is_write and at == 0 and len(update.reads) > 0
        word = at - reads + 1 if is_write else at
        yield _whole(tables.tensors[update.reads[0]].address if of_gradient else address + word * size, size, is_write)
    if ragged:
        yield _whole(address, ragged, False)


def _in_span(device: DramDevice, streams: Iterable[Stream]) -> tuple[Stream, ...]:
    """Return `streams` with addresses whose banks are theirs, and rows of their own where they are of other tensors."""
    moved = [stream for stream in streams if stream.bytes]
    tensors = {address: number for number, address in enumerate(dict.fromkeys(stream.address for stream in moved))}
    span = device.span_bytes
    apart = 2**40 // span * span  # more than any tensor has
    return tuple(stream._replace(address=stream.address % span + tensors[stream.address] * apart) for stream in moved)
