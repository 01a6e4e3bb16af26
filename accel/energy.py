"""Energy of a training step: the table of what one event costs, and the sum over the events of every row (docs/energy.md).

Each component of the energy is one count times one figure of the table, so that changing a figure changes its component alone.
Figures are picojoules, results joules.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import Field, ValidationError

from accel.errors import ConfigError, describe_validation
from accel.validation import Checked, Text, read_text, refuse, toml_fields

PJ = 1e-12
"""Joules in a picojoule."""

Reason = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^\x00-\x1f\x7f]+$")]
"""One line: where a figure is from, or why it is assumed to be what it is."""


class Figure(Checked):
    """One figure of a table: its unit is the end of the name it stands under."""

    value: Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]
    source: Reason
    """Technology, year, paper and table; of an assumed figure, the reasoning."""
    assumed: bool = False
    """Whether no source gives this figure for such a machine."""


class EnergyTable(Checked):
    """What one event of each kind costs. `EnergyTable.load` reads a TOML file with the same field names."""

    name: Text
    description: str = ""
    fp16_multiply_pj: Figure
    """One multiplication of the array: FP16 operands, product exact."""
    fp32_add_pj: Figure
    """One addition of the array."""
    register_pj_per_byte: Figure
    """A byte written in a register of a PE or a drain chain, with the wire from the one before."""
    buffer_pj_per_byte: Figure
    """A byte written or read in the west, north or output buffer."""
    dram_pj_per_byte: Figure
    """A byte through the DRAM port: array, I/O, PHY."""
    vector_lane_op_pj: Figure
    """One FP32 multiply-add, compare or table step of the vector unit; all are charged as multiply-adds."""
    wuve_pass_pj: Figure
    """One pass of one weight through the update datapath."""
    sore_compare_pj: Figure
    """One of the comparisons of magnitudes in SORE: of each group, every element with every other."""
    clock_pj_per_pe_cycle: Figure
    """The clock of one PE and its share of the rest of the machine in one cycle, busy or not."""
    static_watts: Figure
    """What chip, memory and board draw while nothing happens."""

    @property
    def figures(self) -> dict[str, Figure]:
        """Every figure by its name."""
        found = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: value for name, value in found if isinstance(value, Figure)}

    def replace(self, **values: float) -> EnergyTable:
        """Return a checked copy with the values of some figures changed."""
        fields: dict[str, Any] = self.model_dump()
        for name, value in values.items():
            fields[name] = {**fields.get(name, {}), "value": value}
        return self.from_fields(fields, source=self.name)

    @classmethod
    def from_fields(cls, fields: dict[str, Any], source: str) -> EnergyTable:
        """Return the table described by `fields`; `source` names them in an error."""
        try:
            return cls.model_validate(fields)
        except ValidationError as error:
            raise refuse(ConfigError, source, describe_validation(error)) from None

    @classmethod
    def load(cls, path: str | Path) -> EnergyTable:
        """Return the table of a TOML file; all problems of the file come in one `ConfigError`."""
        return cls._of_toml(read_text(Path(path), ConfigError), source=str(path))

    @classmethod
    def _of_toml(cls, text: str, source: str) -> EnergyTable:
        return cls.from_fields(toml_fields(text, source), source)


_TABLES = files("accel").joinpath("energy_tables")


def table_names() -> list[str]:
    """Return the names of the tables that come with the package."""
    return sorted(entry.name.removesuffix(".toml") for entry in _TABLES.iterdir() if entry.name.endswith(".toml"))


def table_text(name: str) -> str:
    """Return the TOML text of a table of the package."""
    if name not in table_names():
        raise ConfigError(f"energy must be one of {', '.join(table_names())} or a TOML file, not {name!r}")
    return _TABLES.joinpath(f"{name}.toml").read_text(encoding="utf-8")


def energy_table(energy: str | Path | EnergyTable) -> EnergyTable:
    """Return the table of a name, of a TOML file's path, or the table itself."""
    if isinstance(energy, EnergyTable):
        return energy
    if isinstance(energy, Path) or "/" in energy or "." in energy:
        return EnergyTable.load(energy)
    return _shipped_table(energy)


@cache
def _shipped_table(name: str) -> EnergyTable:
    return EnergyTable._of_toml(table_text(name), source=name)


class Events(NamedTuple):
    """What one row of the step does, counted: docs/energy.md has the formula of each."""

    macs: int = 0
    """Multiply-adds of nonzeros in the array."""
    register_bytes: int = 0
    buffer_bytes: int = 0
    dram_bytes: int = 0
    lane_ops: int = 0
    wuve_passes: int = 0
    sore_compares: int = 0
    pe_cycles: int = 0
    cycles: int = 0
    """Cycles of the step that the row is charged with."""


_COMPONENTS = {
    "multiply": ("macs", "fp16_multiply_pj"),
    "add": ("macs", "fp32_add_pj"),
    "registers": ("register_bytes", "register_pj_per_byte"),
    "buffers": ("buffer_bytes", "buffer_pj_per_byte"),
    "dram": ("dram_bytes", "dram_pj_per_byte"),
    "vector": ("lane_ops", "vector_lane_op_pj"),
    "update": ("wuve_passes", "wuve_pass_pj"),
    "sore": ("sore_compares", "sore_compare_pj"),
    "clock": ("pe_cycles", "clock_pj_per_pe_cycle"),
    "static": ("cycles", "static_watts"),
}

COMPONENTS = tuple(_COMPONENTS)
"""The parts of every energy."""


@dataclass(frozen=True)
class StepEnergy:
    """The energy of one step: `events` stand in the order of the report's rows."""

    table: EnergyTable
    clock_hz: float
    events: tuple[Events, ...]

    @cached_property
    def rows(self) -> tuple[dict[str, float], ...]:
        """Joules of each row by component."""
        figures = self.table.figures
        joules = {event: figures[name].value * PJ for event, (_, name) in _COMPONENTS.items()}
        joules["static"] = self.table.static_watts.value / self.clock_hz  # of one cycle
        return tuple(
            {component: getattr(row, count) * joules[component] for component, (count, _) in _COMPONENTS.items()}
            for row in self.events
        )

    def components(self, indices: Iterable[int] | None = None) -> dict[str, float]:
        """Return the joules by component of the rows at `indices`; of all rows without."""
        chosen = self.rows if indices is None else [self.rows[index] for index in indices]
        return {component: math.fsum(row[component] for row in chosen) for component in COMPONENTS}

    @cached_property
    def joules(self) -> float:
        """Energy of the step."""
        return math.fsum(self.components().values())
