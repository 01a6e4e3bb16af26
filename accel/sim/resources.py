"""What an array takes of an FPGA, without synthesis: sums of terms fitted to real synthesis.

Each module of the array has its terms: counts that follow from the fields of `Arch`, such as the bits that it holds or chooses
between. What a term costs is fitted by least squares to modules of many arrays synthesised by Yosys for UltraScale+. It
stands, with the errors of the fit, in `resources.json`, which `benchmarks/fit_resources.py` makes. Figures are those of
synthesis: before packing, and without what has no RTL (`NOT_COUNTED`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from typing import Any

from accel.arch import Arch
from accel.errors import ConfigError
from accel.units import ceil_div, ceil_log2

FITTED = ("luts", "memory_luts", "flip_flops", "dsps", "block_rams")
"""Resources with fitted costs. LUTs include the inverters that stand alone after synthesis."""

NOT_COUNTED = ("WUVE", "vector unit", "transposers", "DMA and DRAM controllers", "host interface")
"""Parts of the machine without RTL, of which nothing is known."""

OPERAND_BITS = 17
"""An FP16 operand inside the array (`accel.rtl.floats`)."""
PARTIAL_BITS = 31
"""A sum inside the array."""
LARGEST_SORE_GROUP = 32
_DEPTHS = range(2, 9)
_ULTRA_RAM_BITS, _ULTRA_RAM_WORDS = 72, 4096
_BLOCK_RAM_BYTES = 36 * 1024 // 8
_SHORTEST_SHIFT = 3
"""Registers in a row of which Yosys makes a shift register."""


@dataclass(frozen=True)
class Resources:
    """What a design takes of an UltraScale+ device."""

    luts: float = 0.0
    """Logic."""
    memory_luts: float = 0.0
    """Shift registers and small memories."""
    flip_flops: float = 0.0
    dsps: float = 0.0
    block_rams: float = 0.0
    """Of 36 Kib."""
    ultra_rams: float = 0.0
    """Of 288 Kib."""
    parts: Mapping[str, Resources] = field(default_factory=dict)
    """What is added up here, by name; parts have none of their own."""

    @property
    def all_luts(self) -> float:
        """Logic and memory together."""
        return self.luts + self.memory_luts


AMOUNTS = ("luts", "memory_luts", "flip_flops", "dsps", "block_rams", "ultra_rams")
"""Fields of `Resources` that add up."""


@dataclass(frozen=True)
class Device:
    """What an FPGA has. `all_luts` are those of logic and memory together."""

    name: str
    family: str
    all_luts: int
    flip_flops: int
    dsps: int
    block_rams: int
    """Of 36 Kib (xcup), of 18 Kib (ecp5)."""
    ultra_rams: int
    source: str


DEVICES = {
    device.name: device
    for device in (
        Device("XCVU9P", "xcup", 1_182_240, 2_364_480, 6_840, 2_160, 960, "AMD DS890, Virtex UltraScale+ table"),
        Device("XCK26", "xcup", 117_120, 234_240, 1_248, 144, 64, "AMD DS987, programmable logic table; on the KV260"),
        Device("XCZU9EG", "xcup", 274_080, 548_160, 2_520, 912, 0, "AMD DS891, Zynq UltraScale+ EG table; on the ZCU102"),
        Device("LFE5U-85F", "ecp5", 83_640, 83_640, 156, 208, 0, "Lattice FPGA-DS-02012, selection guide; LUT4s as of nextpnr"),
    )
}
"""Devices by name."""


def estimate(arch: Arch) -> Resources:
    """Return what `arch` takes of an UltraScale+ device, part by part and in all.

    Array and SORE are estimated from synthesis. Buffers are counted by their sizes: one bank for each array row (west) and
    column (north, output), as wide as a word; half of the output buffer is the array's own memory of partial sums if WS is
    built. What `NOT_COUNTED` names is not in it. Refuses a machine that the generator does not build.
    """
    sizes = _Sizes.of(arch)
    model = _model()["modules"]
    counts = {
        "uspe": arch.array_rows * arch.array_cols,
        "row_feeder": arch.array_rows,
        "column_feeder": arch.array_cols,
        "column_foot": arch.array_cols,
        "walker": 2,
        "systolic_array": 1,
    }
    parts = {name: _times(module_estimate(name, sizes, model[name]["costs"]), count) for name, count in counts.items()}
    parts |= {"sore": _sore(arch), "buffers": _buffers(arch, sizes)}
    return replace(_sum(parts), parts=parts)


def shares(arch: Arch, device: str) -> dict[str, float]:
    """Return which share of each kind of cell of `device` the estimate of `arch` takes; above 1 is too much."""
    chosen = _device(device)
    needed = estimate(arch)
    if not chosen.ultra_rams:  # a block of 288 Kib is eight of 36 Kib
        needed = replace(needed, block_rams=needed.block_rams + 8 * needed.ultra_rams, ultra_rams=0.0)
    has = {name: getattr(chosen, name) for name in ("all_luts", "flip_flops", "dsps", "block_rams", "ultra_rams")}
    return {name: getattr(needed, name) / amount for name, amount in has.items() if amount}


def fits(arch: Arch, device: str, max_lut_frac: float = 0.7) -> bool:
    """Return whether the estimate of `arch` stays within `max_lut_frac` of the LUTs of `device` and all of the rest.

    The default leaves LUTs for what is not counted and for routing; it is a rule of thumb, not a measurement.
    """
    if not 0 < max_lut_frac <= 1:
        raise ConfigError(f"max_lut_frac must be above 0 and at most 1, not {max_lut_frac}")
    taken = shares(arch, device)
    return all(share <= (max_lut_frac if name == "all_luts" else 1) for name, share in taken.items())


def _device(name: str) -> Device:
    known = [device.name for device in DEVICES.values() if device.family == "xcup"]
    if name in DEVICES and name not in known:
        raise ConfigError(
            f"device must be UltraScale+ ({', '.join(known)}), not {name}: the model is not fitted for its LUTs; "
            "accel synth --target ecp5 synthesises the array itself"
        )
    if name not in DEVICES:
        raise ConfigError(f"device must be one of {', '.join(known)}, not {name!r}")
    return DEVICES[name]


@dataclass(frozen=True)
class _Sizes:
    """Numbers and widths that follow from an `Arch` as `accel.rtl.parameters` has them (a test holds them equal)."""

    rows: int
    cols: int
    group: int
    depth: int
    """L, the adder's latency."""
    multiplier_latency: int
    forms: tuple[int, ...]
    has_os: bool
    has_ws: bool
    drain_lanes: int
    psum_words: int

    @classmethod
    def of(cls, arch: Arch) -> _Sizes:
        if arch.adder_latency not in _DEPTHS:
            raise ConfigError(f"adder_latency must be between 2 and 8 in hardware, not {arch.adder_latency}")
        return cls(
            rows=arch.array_rows,
            cols=arch.array_cols,
            group=arch.group,
            depth=arch.adder_latency,
            multiplier_latency=arch.multiplier_latency,
            forms=arch.row_lanes,
            has_os="OS" in arch.dataflows,
            has_ws="WS" in arch.dataflows,
            drain_lanes=arch.drain_lanes if "OS" in arch.dataflows else 1,
            psum_words=arch.psum_words,
        )

    @property
    def index_bits(self) -> int:
        return ceil_log2(self.group)

    @property
    def max_col_lanes(self) -> int:
        return self.depth // min(self.forms)

    @property
    def bank_address_bits(self) -> int:
        return 1 + self.index_bits + ceil_log2(self.max_col_lanes)

    @property
    def cols_bits(self) -> int:
        """Of the numbers that say how far the columns in use reach."""
        return self.max_col_lanes.bit_length() + self._rest_bits

    @property
    def _rest_bits(self) -> int:
        return max((self.cols - 1).bit_length(), 1)

    @property
    def tag_bits(self) -> int:
        return 5 + self._rest_bits

    @property
    def row_token_bits(self) -> int:
        return 6 + max(self.forms).bit_length() + self.rows.bit_length() + self.cols_bits


def terms(module: str, resource: str, sizes: _Sizes) -> dict[str, float]:
    """Return the terms of one resource of one `module`, by name; `resources.json` has what each costs."""
    return _TERMS[module][resource](sizes) if resource in _TERMS[module] else {}


def module_estimate(module: str, sizes: _Sizes, costs: Mapping[str, Mapping[str, float]]) -> Resources:
    """Return what one `module` takes, at least 0 of everything."""
    amounts: dict[str, Any] = {
        name: max(0.0, sum(costs[name][term] * amount for term, amount in terms(module, name, sizes).items()))
        for name in FITTED
    }
    return Resources(**amounts)


def sizes_of(arch: Arch) -> _Sizes:
    """Return the numbers from which `terms` are made, or refuse a machine that the generator does not build."""
    return _Sizes.of(arch)


def _depth_terms(sizes: _Sizes) -> dict[str, float]:
    """Every depth of the adder has its own cuts, so its own cost."""
    return {f"depth {depth}": float(depth == sizes.depth) for depth in _DEPTHS}


def _uspe_luts(sizes: _Sizes) -> dict[str, float]:
    has_selector = sizes.group > 1
    both = sizes.has_os and sizes.has_ws
    return {
        **_depth_terms(sizes),
        "one multiplier register": sizes.multiplier_latency == 1,
        "bits selected": OPERAND_BITS * has_selector,
        "bits selected from": OPERAND_BITS * sizes.group * has_selector,
        "OS": sizes.has_os,
        "OS and WS": both,
        "words of the banks": sizes.has_ws * (1 << sizes.bank_address_bits),
    }


def _uspe_memory_luts(sizes: _Sizes) -> dict[str, float]:
    width = OPERAND_BITS + sizes.index_bits
    words = 1 << sizes.bank_address_bits
    # Yosys makes banks of 14 bits by 32 words or 7 bits by 64 words of 8 LUTs.
    ram_luts = 8 * ceil_div(width, 14) if words <= 32 else 8 * ceil_div(width, 7) * ceil_div(words, 64)
    return {**_depth_terms(sizes), "drain chain": PARTIAL_BITS * sizes.has_os, "banks": ram_luts * sizes.has_ws}


def _uspe_flip_flops(sizes: _Sizes) -> dict[str, float]:
    return {
        **_depth_terms(sizes),
        "one multiplier register": sizes.multiplier_latency == 1,
        "multiplier registers beyond two": max(sizes.multiplier_latency - 2, 0),
        "group": OPERAND_BITS * sizes.group,
        "index": sizes.index_bits,
        "OS": sizes.has_os,
        "bank addresses": sizes.has_ws * 2 * sizes.bank_address_bits,
        "WS": sizes.has_ws,
        "drain lanes passed": PARTIAL_BITS * sizes.has_os * (sizes.drain_lanes - 1),
        "selected and registered": OPERAND_BITS * (sizes.multiplier_latency > 2) * (sizes.group > 1 or sizes.has_ws),
    }


def _row_feeder_luts(sizes: _Sizes) -> dict[str, float]:
    return {
        "1": 1,
        "words": sizes.group,
        "words of forms": sizes.group * len(sizes.forms),
        "words and more than one form": sizes.group * (len(sizes.forms) > 1),
        "WS": sizes.has_ws,
        "tags": sizes.tag_bits,
        "depth": sizes.depth,
        "drain lanes": sizes.drain_lanes,
        "row counts": sizes.rows.bit_length(),
    }


def _gaps(sizes: _Sizes) -> list[int]:
    """Return the registers between the places at which a row feeder's memory of words is read."""
    forms = sorted(sizes.forms)
    return [now - before for before, now in zip([0, *forms], forms, strict=False)]


def _row_feeder_memory_luts(sizes: _Sizes) -> dict[str, float]:
    shifted = sum(gap >= _SHORTEST_SHIFT for gap in _gaps(sizes))
    return {"bits shifted": OPERAND_BITS * sizes.group * shifted}


def _row_feeder_flip_flops(sizes: _Sizes) -> dict[str, float]:
    delay = sizes.multiplier_latency + sizes.depth + sizes.has_os * (sizes.depth + sizes.drain_lanes)
    return {
        "1": 1,
        "bits": OPERAND_BITS * sizes.group,
        "bits remembered": OPERAND_BITS * sizes.group * sum(gap for gap in _gaps(sizes) if gap < _SHORTEST_SHIFT),
        "tags delayed": sizes.tag_bits * delay,
        "column reach": sizes.cols_bits,
        "row counts": sizes.rows.bit_length(),
        "multiplier registers": sizes.multiplier_latency,
        "WS": sizes.has_ws,
        "index": sizes.index_bits,
        "row lanes": max(sizes.forms).bit_length(),
        "column lanes": sizes.max_col_lanes.bit_length(),
    }


def _column_feeder_luts(sizes: _Sizes) -> dict[str, float]:
    return {
        "1": 1,
        "index": sizes.index_bits,
        "column counts": sizes.cols.bit_length(),
        "row lanes": max(sizes.forms).bit_length(),
        "column lanes": sizes.max_col_lanes.bit_length(),
        "WS": sizes.has_ws,
        "no entry held": not sizes.has_os and max(sizes.forms) == 1,
    }


def _column_foot_luts(sizes: _Sizes) -> dict[str, float]:
    return {
        "1": 1,
        "drain lanes": sizes.drain_lanes,
        "tags": sizes.tag_bits,
        "tags of drain lanes": sizes.tag_bits * sizes.drain_lanes,
        "WS": sizes.has_ws,
        "OS and WS": sizes.has_os and sizes.has_ws,
        "column counts": (sizes.cols * sizes.drain_lanes).bit_length(),
        "psum address": sizes.has_ws * ceil_log2(sizes.psum_words),
        "psum blocks": sizes.has_ws * max(sizes.psum_words // 1024 - 1, 0),
    }


def _column_foot_memory_luts(sizes: _Sizes) -> dict[str, float]:
    luts = {32: 8 * ceil_div(PARTIAL_BITS, 14), 64: 8 * ceil_div(PARTIAL_BITS, 7)}  # as the banks of a PE
    smallest = max(sizes.psum_words, 32)
    return {"psum": sizes.has_ws * luts.get(smallest, 0)}


def _column_foot_block_rams(sizes: _Sizes) -> dict[str, float]:
    return {"psum": sizes.has_ws * _psum_block_rams(sizes.psum_words)}


def _psum_block_rams(words: int) -> float:
    return 0 if words <= 64 else 0.5 if words <= 512 else ceil_div(words, 1024)


def _array_terms(sizes: _Sizes) -> dict[str, float]:
    return {
        "1": 1,
        "rows": sizes.rows,
        "columns": sizes.cols,
        "row counts": sizes.rows.bit_length(),
        "column counts": sizes.cols.bit_length(),
    }


def _one(sizes: _Sizes) -> dict[str, float]:
    return {"1": 1}


_TERMS: dict[str, dict[str, Callable[[_Sizes], dict[str, float]]]] = {
    "uspe": {"luts": _uspe_luts, "memory_luts": _uspe_memory_luts, "flip_flops": _uspe_flip_flops, "dsps": _one},
    "row_feeder": {
        "luts": _row_feeder_luts,
        "memory_luts": _row_feeder_memory_luts,
        "flip_flops": _row_feeder_flip_flops,
    },
    "column_feeder": {"luts": _column_feeder_luts, "flip_flops": _column_feeder_luts},
    "column_foot": {
        "luts": _column_foot_luts,
        "memory_luts": _column_foot_memory_luts,
        "flip_flops": _column_foot_luts,
        "block_rams": _column_foot_block_rams,
    },
    "walker": {"luts": _one, "flip_flops": _one},
    "systolic_array": {"luts": _array_terms, "flip_flops": _array_terms, "dsps": _one},
}
MODULES = tuple(_TERMS)
"""Modules of the array that the model knows."""


def _sore(arch: Arch) -> Resources:
    """Return the selectors, one for each lane."""
    if not 2 <= arch.group <= LARGEST_SORE_GROUP:
        return Resources()  # group 1 has nothing to select; larger ones are not built
    each = Resources(**_model()["sore"][str(arch.group)])
    return _times(each, arch.sore_lanes)


def _buffers(arch: Arch, sizes: _Sizes) -> Resources:
    entry_bits = 16 + sizes.index_bits + 1  # value, index, valid
    output_bytes = arch.output_buffer_bytes
    if sizes.has_ws:
        output_bytes -= min(output_bytes, 4 * arch.array_cols * sizes.psum_words)
    banks = {
        "west_buffer": (arch.array_rows, 16 * arch.group, 8 * arch.west_buffer_bytes),
        "north_buffer": (arch.array_cols, entry_bits, arch.north_buffer_bytes // 2 * entry_bits),
        "output_buffer": (arch.array_cols, 32, 8 * output_bytes),
    }
    return _sum({name: _times(_bank(width, ceil_div(bits, count)), count) for name, (count, width, bits) in banks.items()})


def _bank(width_bits: int, bits: int) -> Resources:
    """Return one memory: UltraRAM, or block RAM where two blocks are enough for it."""
    blocks = max(ceil_div(bits, 8 * _BLOCK_RAM_BYTES), ceil_div(width_bits, _ULTRA_RAM_BITS))
    if blocks <= 2:
        return Resources(block_rams=blocks)
    return Resources(ultra_rams=max(ceil_div(bits, _ULTRA_RAM_BITS * _ULTRA_RAM_WORDS), ceil_div(width_bits, _ULTRA_RAM_BITS)))


def _times(each: Resources, count: int) -> Resources:
    return Resources(**{name: count * getattr(each, name) for name in AMOUNTS})


def _sum(parts: Mapping[str, Resources]) -> Resources:
    amounts: dict[str, Any] = {name: sum(getattr(part, name) for part in parts.values()) for name in AMOUNTS}
    return Resources(**amounts)


@cache
def _model() -> dict[str, Any]:
    model: dict[str, Any] = json.loads(files("accel.sim").joinpath("resources.json").read_text(encoding="utf-8"))
    return model
