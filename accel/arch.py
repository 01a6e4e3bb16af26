"""`Arch`: the one description of a machine that simulator, scheduler and hardware generator share."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from accel.errors import ConfigError
from accel.sparsity import NMPattern
from accel.validation import Amount, Fraction, TomlRecord

Dataflow = Literal["OS", "WS"]
"""OS: outputs stay in the array (OUT_STATIONARY). WS: the north operand stays (RHS_STATIONARY)."""


class Arch(TomlRecord):
    """A training accelerator, every size a field. Derived numbers are properties, so a changed copy cannot be stale.

    Lengths of time are cycles of `clock_hz`, sizes are bytes. `preset` machines stand in `accel.presets`; `Arch.load` reads a
    TOML file with the same field names.
    """

    description: str = ""
    array_rows: Annotated[int, Field(ge=1, le=1024)]
    array_cols: Annotated[int, Field(ge=1, le=1024)]
    clock_hz: Annotated[float, Field(ge=1e3, le=1e12, allow_inf_nan=False)]
    group: Annotated[int, Field(ge=1, le=256)]
    """Elements in one memory word, one west transfer and one N:M group."""
    adder_latency: Annotated[int, Field(ge=1, le=16)]
    """Pipeline depth of the FP32 adder: the interleave, L independent sums rotating through it."""
    multiplier_latency: Annotated[int, Field(ge=1, le=16)]
    """Registers between a PE's ports and its adder."""
    row_lanes: Annotated[tuple[int, ...], Field(min_length=1)]
    """Interleave forms that are built: of the L lanes of a PE, how many lie along rows (the rest lie along columns)."""
    dataflows: Annotated[tuple[Dataflow, ...], Field(min_length=1)] = ("OS", "WS")
    drain_lanes: Annotated[int, Field(ge=1, le=1024)] = 1
    """Result words that leave one column in one cycle (OS)."""
    west_buffer_bytes: Amount
    north_buffer_bytes: Amount
    output_buffer_bytes: Amount
    """Each buffer's two halves together; the output buffer also holds the partial sums of WS."""
    dram_bytes_per_second: Annotated[float, Field(ge=1e3, le=1e18, allow_inf_nan=False)]
    dram_efficiency_frac: Fraction
    """Share of the peak bandwidth that long bursts reach (refresh, row changes, bus turn-arounds)."""
    dram_latency_cycles: Annotated[int, Field(ge=0, le=1_000_000)]
    """From a read request to its first data."""
    dram_capacity_bytes: Amount
    dma_setup_cycles: Annotated[int, Field(ge=0, le=1_000_000)]
    """Cycles the DMA spends on each tile transfer besides moving data."""
    vector_lanes: Annotated[int, Field(ge=1, le=1_000_000)]
    """FP32 multiply-adds the vector unit starts in a cycle."""
    vector_latency_cycles: Annotated[int, Field(ge=0, le=1_000_000)]
    sore_lanes: Annotated[int, Field(ge=1, le=1_000_000)]
    """Groups pruned in a cycle."""
    wuve_lanes: Annotated[int, Field(ge=1, le=1_000_000)]
    """Weights updated in a cycle."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = []
        if self.group & (self.group - 1):
            problems.append(f"group must be a power of 2, not {self.group}")
        problems += [
            f"row_lanes must divide adder_latency ({self.adder_latency}), not {lanes}"
            for lanes in self.row_lanes
            if lanes < 1 or self.adder_latency % lanes
        ]
        if len(set(self.row_lanes)) != len(self.row_lanes):
            problems.append(f"row_lanes must not repeat, not {list(self.row_lanes)}")
        if self.drain_lanes > self.array_rows:
            problems.append(f"drain_lanes must be at most array_rows ({self.array_rows}), not {self.drain_lanes}")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @property
    def pes(self) -> int:
        """Processing elements of the array."""
        return self.array_rows * self.array_cols

    @property
    def peak_macs_per_second(self) -> float:
        """Multiply-accumulates a second with every PE busy."""
        return self.pes * self.clock_hz

    @property
    def dram_bytes_per_cycle(self) -> float:
        """Bandwidth that long bursts reach."""
        return self.dram_bytes_per_second * self.dram_efficiency_frac / self.clock_hz

    @property
    def psum_words(self) -> int:
        """FP32 words of one column's buffer of partial sums: half the output buffer, rounded down to a power of 2."""
        words = self.output_buffer_bytes // 2 // 4 // self.array_cols
        return 1 << max(words.bit_length() - 1, 0)

    def run_pattern(self, pattern: NMPattern) -> NMPattern:
        """Return `pattern` as this machine runs it, or refuse a group it cannot hold."""
        if pattern.is_dense:
            return pattern
        if pattern.group > self.group:
            raise ConfigError(
                f"pattern group must be at most the group of {self.name} ({self.group}), not {pattern.group} "
                f"(pattern {pattern}); choose a machine with a larger group"
            )
        return pattern.on_machine(self.group)

    def fits_one_tile(self) -> list[str]:
        """Return which buffers are too small: each half must hold one group of every operand row of an array tile."""
        word_bytes = 2 * self.group
        lanes = max(self.row_lanes)
        needs = {
            "west_buffer_bytes": 2 * self.array_rows * min(self.row_lanes) * word_bytes,
            "north_buffer_bytes": 2 * self.array_cols * (self.adder_latency // lanes) * word_bytes,
            "output_buffer_bytes": 2 * 4 * self.array_rows * self.array_cols * self.adder_latency,
        }
        return [
            f"{field} must be at least {need} to hold one tile twice, not {getattr(self, field)}"
            for field, need in needs.items()
            if getattr(self, field) < need
        ]
