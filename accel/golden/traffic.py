"""DRAM traffic of a matrix product, by walking its loop nest tile by tile: the slow twin of `accel.timing.gemm.gemm_cost`.

One tile of each operand and of the result is resident. A tile is loaded when the loops reach one that is not resident, and
stored, or spilled as FP32 partial sums, when the loops leave it. Nothing is kept from one of `count` products to the next.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product as nest

PARTIAL_SUM_BITS = 32


@dataclass(frozen=True)
class StoredOperand:
    """An operand as it lies in DRAM: see `accel.gemm.Operand`, here in bits."""

    size: int
    """Rows of the west operand, columns of the north one."""
    distinct: int
    row_bits: int
    halo_bits: int
    group_bits: int

    def tile_bits(self, size: int, groups: int, has_all_of_k: bool) -> int:
        """Return the bits of a tile of `size` rows or columns and `groups` of k."""
        held = min(size, self.distinct)
        return held * self.row_bits + self.halo_bits if has_all_of_k else held * groups * self.group_bits


@dataclass(frozen=True)
class TiledProduct:
    """`count` equal products, the sizes of their DRAM-level tiles and the order of the loops over them, outermost first."""

    west: StoredOperand
    north: StoredOperand
    groups: int
    """Groups of k."""
    count: int
    out_elems: int
    """Elements of all results in DRAM, padding to whole words included."""
    out_bits: int
    tile_m: int
    tile_n: int
    tile_groups: int
    loop_order: str


@dataclass
class Traffic:
    """What crosses the DRAM port."""

    west_bits: int = 0
    north_bits: int = 0
    spilled_bits: int = 0
    """Partial sums, written and read again."""
    stored_bits: int = 0
    transfers: int = 0
    """Tiles loaded, spilled, read again and stored."""
    north_groups: int = 0
    """Groups of the north operand that come in: what SORE prunes if it prunes on line."""

    @property
    def dram_bytes(self) -> int:
        """All bytes, the last one perhaps in part."""
        bits = self.west_bits + self.north_bits + self.spilled_bits + self.stored_bits
        return (bits + 7) // 8


def walk(product: TiledProduct) -> Traffic:
    """Return the traffic of all `count` products."""
    traffic = Traffic(stored_bits=product.out_elems * product.out_bits)
    for _ in range(product.count):
        _walk_one(product, traffic)
    return traffic


def _walk_one(product: TiledProduct, traffic: Traffic) -> None:
    has_all_of_k = product.tile_groups >= product.groups
    west_tile = north_tile = out_tile = None
    summed: dict[tuple[int, int], int] = {}
    for at, sizes in _tiles(product):
        if west_tile != (at["m"], at["k"]):
            west_tile = (at["m"], at["k"])
            traffic.west_bits += product.west.tile_bits(sizes["m"], sizes["k"], has_all_of_k)
            traffic.transfers += 1
        if north_tile != (at["n"], at["k"]):
            north_tile = (at["n"], at["k"])
            traffic.north_bits += product.north.tile_bits(sizes["n"], sizes["k"], has_all_of_k)
            traffic.north_groups += sizes["n"] * sizes["k"]
            traffic.transfers += 1
        here = (at["m"], at["n"])
        if out_tile != here and summed.get(here):
            # Begun earlier and not finished: it was spilled when the loops left it, and is read again now.
            traffic.spilled_bits += 2 * PARTIAL_SUM_BITS * sizes["m"] * sizes["n"]
            traffic.transfers += 2
        out_tile = here
        summed[here] = summed.get(here, 0) + sizes["k"]
        if summed[here] == product.groups:
            traffic.transfers += 1  # the store of the finished tile


def _tiles(product: TiledProduct) -> Iterator[tuple[dict[str, int], dict[str, int]]]:
    """Yield, in the order of the loops, where each tile stands in m, n and k and how large it is there."""
    parts = {
        "m": _parts(product.west.size, product.tile_m),
        "n": _parts(product.north.size, product.tile_n),
        "k": _parts(product.groups, product.tile_groups),
    }
    loops = [range(len(parts[loop])) for loop in product.loop_order]
    for turn in nest(*loops):
        at = dict(zip(product.loop_order, turn, strict=True))
        yield at, {loop: parts[loop][index] for loop, index in at.items()}


def _parts(size: int, tile: int) -> list[int]:
    """Return the sizes of the tiles that cut `size`, the last one ragged."""
    return [min(tile, size - start) for start in range(0, size, tile)]
