"""What the search minimises of a product: its cycles and its picojoules, weighted; compiled.

A value is a sum of counts times prices, none below 0, always added in the same order. Rounding to floating point is monotone,
so a value of counts that are not larger is not larger: the bounds of docs/scheduling.md hold for values as computed.
"""

from __future__ import annotations

from typing import NamedTuple

from accel.jit import kernel
from accel.timing.gemm import Machine, Product, Tiling
from accel.timing.traffic import array_bytes


class Prices(NamedTuple):
    """The weights of time and energy, and what one event of each kind takes, in picojoules."""

    cycle_weight: float
    pj_weight: float
    slack_frac: float
    """Of all mappings worse than the best by at most this, the one with the least DRAM traffic and fewest tiles is taken."""
    cycle_pj: float = 0.0
    """Clock and static energy of the whole machine."""
    port_byte_pj: float = 0.0
    """A byte through the DRAM port and in or out of a buffer."""
    buffer_byte_pj: float = 0.0
    register_byte_pj: float = 0.0
    pruned_group_pj: float = 0.0
    mac_pj: float = 0.0
    lane_op_pj: float = 0.0


@kernel
def value_of(prices: Prices, cycles: int, energy_pj: float) -> float:
    """Return what is minimised."""
    return prices.cycle_weight * cycles + prices.pj_weight * energy_pj


@kernel
def moved_pj(prices: Prices, dram_bytes: int, groups_pruned: int, engine_pj: float) -> float:
    """Return the energy of a product, but for that of its time, whose array or vector unit takes `engine_pj`."""
    return prices.port_byte_pj * dram_bytes + (prices.pruned_group_pj * groups_pruned + engine_pj)


@kernel
def mapping_pj(prices: Prices, cycles: int, moved: float) -> float:
    """Return the energy of a product that takes `cycles` and, besides, `moved` (of `moved_pj`)."""
    return prices.cycle_pj * cycles + moved


@kernel
def array_pj(
    prices: Prices, machine: Machine, product: Product, tiling: Tiling, run_group: int, index_bits: int, macs_useful: int
) -> float:
    """Return the energy of the array and of what it reads and writes in the buffers; arguments as of `array_bytes`."""
    register_bytes, buffer_bytes = array_bytes(machine, product, tiling, run_group, index_bits)
    moved = prices.register_byte_pj * register_bytes + prices.buffer_byte_pj * buffer_bytes
    return moved + prices.mac_pj * macs_useful


@kernel
def vector_unit_pj(prices: Prices, product: Product, dram_bytes: int) -> float:
    """Return the energy of a product's lane operations and of its second access to the buffers: all is read once."""
    return prices.lane_op_pj * product.macs + prices.buffer_byte_pj * dram_bytes
