"""What an array is built from, and the words that travel between its components."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

from amaranth import Mux, Shape, unsigned
from amaranth.lib import data
from amaranth.utils import bits_for

from accel.arch import Arch, Dataflow
from accel.errors import ConfigError
from accel.rtl.floats import FP16, OperandFormat
from accel.units import ceil_log2

MAX_ADDER_LATENCY = 8
COUNT_BITS = 24
"""Of tile and token counts and of gaps in a run command."""
COUNTER_BITS = 48
"""Of the published counters: at 200 MHz and 1,024 PEs, 22 minutes of multiply-adds and 16 days of cycles."""


@dataclass(frozen=True, kw_only=True)
class ArrayParameters:
    """The sizes of an array as it is built; docs/timing.md section 1 gives the words. What a run uses is in its command."""

    rows: int
    cols: int
    adder_latency: int
    """2 to 8: also the lanes of a PE."""
    multiplier_latency: int
    """At least 1: registers from a PE's ports to its adder."""
    group: int
    """A power of 2."""
    row_lanes: tuple[int, ...] = (1,)
    """Interleave forms that a run may choose."""
    dataflows: tuple[Dataflow, ...] = ("OS", "WS")
    drain_lanes: int = 1
    psum_words: int = 1024
    """Partial sums a column's buffer holds (WS): a power of 2; bounds `m_chunk / row lanes * adder_latency`."""
    operand_format: OperandFormat = FP16

    def __post_init__(self) -> None:
        problems = [
            f"{name} must be at least 1, not {getattr(self, name)}"
            for name in ("rows", "cols", "multiplier_latency", "group", "drain_lanes", "psum_words")
            if getattr(self, name) < 1
        ]
        if not 2 <= self.adder_latency <= MAX_ADDER_LATENCY:
            problems.append(f"adder_latency must be between 2 and {MAX_ADDER_LATENCY} in hardware, not {self.adder_latency}")
        problems += [
            f"{name} must be a power of 2, not {getattr(self, name)}"
            for name in ("group", "psum_words")
            if getattr(self, name) & (getattr(self, name) - 1)
        ]
        if self.drain_lanes > 1 and "OS" not in self.dataflows:
            problems.append(f"drain_lanes must be 1 without the dataflow OS, not {self.drain_lanes}")
        if self.drain_lanes > self.rows:
            problems.append(f"drain_lanes must be at most rows ({self.rows}), not {self.drain_lanes}")
        if not self.row_lanes or any(lanes < 1 or self.adder_latency % lanes for lanes in self.row_lanes):
            problems.append(f"row_lanes must divide adder_latency ({self.adder_latency}), not {list(self.row_lanes)}")
        if not self.dataflows or not set(self.dataflows) <= {"OS", "WS"}:
            problems.append(f"dataflows must be OS, WS or both, not {list(self.dataflows)}")
        if problems:
            raise ConfigError("\n".join(problems))

    @classmethod
    def of(cls, arch: Arch) -> ArrayParameters:
        """Return the array of `arch`; its psum buffers hold what half the output buffer holds."""
        return cls(
            rows=arch.array_rows,
            cols=arch.array_cols,
            adder_latency=arch.adder_latency,
            multiplier_latency=arch.multiplier_latency,
            group=arch.group,
            row_lanes=arch.row_lanes,
            dataflows=arch.dataflows,
            drain_lanes=arch.drain_lanes if "OS" in arch.dataflows else 1,
            psum_words=arch.psum_words,
        )

    @property
    def has_os(self) -> bool:
        """Whether sums can stay."""
        return "OS" in self.dataflows

    @property
    def has_ws(self) -> bool:
        """Whether the north operand can stay."""
        return "WS" in self.dataflows

    @property
    def max_row_lanes(self) -> int:
        """Most lanes of a PE along output rows."""
        return max(self.row_lanes)

    @property
    def max_col_lanes(self) -> int:
        """Most lanes of a PE along output columns."""
        return self.adder_latency // min(self.row_lanes)

    @property
    def held_words(self) -> int:
        """Words a row feeder remembers: every form reads the word of its own number of lanes ago."""
        return max(self.row_lanes)

    @property
    def index_bits(self) -> int:
        """Of an index into a group."""
        return ceil_log2(self.group)

    @property
    def col_lane_bits(self) -> int:
        """Of a column lane's number."""
        return ceil_log2(self.max_col_lanes)

    @property
    def bank_address_bits(self) -> int:
        """Of the place of an entry in a PE's two banks (WS): bank, entry of the group, column lane."""
        return 1 + self.index_bits + self.col_lane_bits

    @cached_property
    def word_layout(self) -> data.ArrayLayout:
        """One group as the array moves it: recoded operands."""
        return data.ArrayLayout(self.operand_format.operand_layout, self.group)

    @cached_property
    def entry_layout(self) -> data.StructLayout:
        """A north entry inside the array; an unused one is VOID."""
        return data.StructLayout({"operand": self.operand_format.operand_layout, "index": unsigned(self.index_bits)})

    @cached_property
    def west_layout(self) -> data.ArrayLayout:
        """One group at a west stream: FP16 (or BF16) bits."""
        return data.ArrayLayout(unsigned(16), self.group)

    @cached_property
    def north_layout(self) -> data.StructLayout:
        """One entry at a north stream."""
        return data.StructLayout({"value": unsigned(16), "index": unsigned(self.index_bits), "valid": unsigned(1)})

    @cached_property
    def run_layout(self) -> data.StructLayout:
        """What stays the same throughout a run and every component sees."""
        return data.StructLayout(
            ({"is_ws": unsigned(1)} if self.has_os and self.has_ws else {})
            | {
                "row_lanes": _count(self.max_row_lanes),
                "col_lanes": _count(self.max_col_lanes),
                "keep": _count(self.group),
                "is_rounded": unsigned(1),
            }
        )

    def by_dataflow(self, run: Any, *, in_ws: Any, in_os: Any) -> Any:
        """Return the value for the dataflow of `run` (of `run_layout`): chosen in hardware only if both are built."""
        if self.has_os and self.has_ws:
            return Mux(run.is_ws, in_ws, in_os)
        return in_ws if self.has_ws else in_os

    @cached_property
    def cols_layout(self) -> data.StructLayout:
        """Columns in use from some column on: `lanes` in every PE, and one more in the next `rest` of them."""
        return data.StructLayout({"lanes": _count(self.max_col_lanes), "rest": _count(self.cols - 1)})

    @cached_property
    def row_token(self) -> data.StructLayout:
        """Starts one group in a row feeder: from the walker to row 0, and on to the row below when its turn comes.

        OS: `lanes` output rows in every PE row, one more in the next `rest`. WS: `lanes` output rows in this stream element,
        and the next `rest` PE rows hold groups.
        """
        return data.StructLayout(
            {
                "go": unsigned(1),
                "opens": unsigned(1),
                "closes": unsigned(1),
                "again": unsigned(1),
                "is_final": unsigned(1),
                "bank": unsigned(1),
                "lanes": _count(self.max_row_lanes),
                "rest": _count(self.rows),
                "cols": self.cols_layout,
            }
        )

    @cached_property
    def load_token(self) -> data.StructLayout:
        """Starts the loading of a bank (WS), in the row that it reaches with `row` counted down to 0."""
        return data.StructLayout({"go": unsigned(1), "row": _count(self.rows - 1), "bank": unsigned(1)})

    @cached_property
    def col_token(self) -> data.StructLayout:
        """Starts one group of entries in a column feeder, and in the column to the east a cycle later."""
        return data.StructLayout(
            {"go": unsigned(1), "is_used": unsigned(1), "cols": self.cols_layout, "rows": unsigned(COUNT_BITS)}
        )

    @cached_property
    def tag_layout(self) -> data.StructLayout:
        """What is known of a finished sum on its way out: a word of the matrix in every column, or in the next `rest` alone.

        `is_everywhere` and `is_in_rest` say which; neither is set of a lane that the tile does not use. `has_cols` says whether
        the tile uses lanes in every column, whatever this one is.
        """
        flags = ("valid", "is_final", "has_cols", "is_everywhere", "is_in_rest")
        return data.StructLayout(dict.fromkeys(flags, unsigned(1)) | {"rest": _count(self.cols - 1)})


def _count(largest: int) -> Shape:
    """Return the shape of a number from 0 to `largest`."""
    return unsigned(bits_for(largest))
