"""`Report`: what a training step costs, with the fixed names and units of every counter.

Cycles add up: `totals.cycles` is the sum of `stages.*.cycles`, which are the sums of the rows' `cycles`. Work that runs beside
other work and takes no time of its own has `cycles` 0 and says how long it was busy in `busy_cycles`.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass, field, fields
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

from accel.energy import COMPONENTS, StepEnergy

if TYPE_CHECKING:
    import pandas as pd

SCHEMA_VERSION = 1

Model = Literal["machine", "closed-form"]
"""Where the cycles come from: a program run on the machine model, or products that each run alone, added up."""

STAGES = ("FF", "BP", "WU", "OPT", "VECTOR")
"""Rows are added up by stage; vector work of all stages that shows is under VECTOR."""

LOSSES = ("padding", "drain", "fill", "dram", "vector", "update")
"""Why a row takes longer than its nonzero multiply-adds on all PEs: operands padded to whole groups and tiles; results that
leave the array slower than they come; ends of runs, first loads, last stores; waiting for DRAM or SORE; the vector unit; the
update."""


@dataclass(frozen=True, slots=True)
class Row:
    """One product, operator or update. Sizes are those of one of `count` equal products; None where there is no product."""

    name: str
    stage: str
    part: str
    engine: str
    """"array", "vector" or "update"."""
    m: int | None
    n: int | None
    k: int | None
    count: int
    pattern: str
    dataflow: str
    """OS, WS or VECTOR, and what follows from the mapping: see `mapping`."""
    mapping: str
    cycles: int
    """Cycles of the step in which this work, and nothing counted before it, is what runs."""
    busy_cycles: int
    """Cycles from its start to its end, whatever runs beside it; with what lies between its parts if it is cut by samples."""
    bound: str
    """What takes longest: "compute", "drain", "fill", "dram", "sore", "vector" or "wuve"."""
    utilization_frac: float
    """Useful multiply-adds over what all PEs could do in `busy_cycles`; 0 off the array."""
    dram_bytes: int
    macs_nominal: int
    macs_dense: int
    macs_useful: int
    lower_bound_cycles: int
    """The larger of two: all PEs multiplying nonzeros in every cycle; every operand and result moved once."""
    losses: dict[str, int]
    """Cycles by cause (`LOSSES`); with the useful cycles they add up to `cycles`. A product that the vector unit does in less
    time than all PEs would need has a negative one."""

    @property
    def group(self) -> str:
        """The entry of `STAGES` this row belongs to."""
        return "VECTOR" if self.engine == "vector" else self.stage

    @property
    def macs_per_dram_byte(self) -> float | None:
        """Operational intensity, in useful multiply-accumulates; None without a product or traffic."""
        return self.macs_useful / self.dram_bytes if self.macs_useful and self.dram_bytes else None

    @property
    def macs_per_cycle(self) -> float | None:
        """Useful multiply-accumulates in a busy cycle; None without a product."""
        return self.macs_useful / self.busy_cycles if self.macs_useful and self.busy_cycles else None


@dataclass(frozen=True)
class Report:
    """One training step of one network on one machine, and, unless left out, its dense baseline."""

    network: str
    arch: str
    method: str
    pattern: str
    optimizer: str
    batch: int
    clock_hz: float
    pes: int
    pregenerate: bool
    rows: tuple[Row, ...] = field(repr=False)
    dram_peak_bytes: int
    footprint: dict[str, int] = field(repr=False)
    mac_saving_frac: float
    """Share of the nominal multiply-accumulates of dense training that the method does not do."""
    mappings_covered: int
    mappings_evaluated: int
    search_seconds: float
    objective: str = "time"
    """What the mappings were chosen for: "time", "energy" or "edp"."""
    objective_value: float = 0.0
    """What they reach of it, as the scheduler counts: seconds, joules or joule-seconds."""
    objective_bound: float = 0.0
    """No mappings reach less."""
    free_layers: tuple[str, ...] = ()
    model: Model = "closed-form"
    dram: str = "flat"
    """"flat", or the device whose banks and rows were simulated."""
    baseline: Report | None = field(default=None, repr=False)
    energy: StepEnergy | None = field(default=None, repr=False)
    """Joules of every row, if a table of energies was given."""

    @cached_property
    def cycles(self) -> int:
        """Cycles of the whole step."""
        return sum(row.cycles for row in self.rows)

    @property
    def seconds(self) -> float:
        """Time of the whole step."""
        return self.cycles / self.clock_hz

    @property
    def speedup_over_dense(self) -> float | None:
        """Time of the dense step over this one's, on the same machine with the same batch; None without a baseline."""
        return self.baseline.cycles / self.cycles if self.baseline else None

    @property
    def mac_cap(self) -> float:
        """Speedup if only multiply-accumulates took time: 1 / (1 - saving)."""
        return 1 / (1 - self.mac_saving_frac)

    @property
    def bound_cycles(self) -> int:
        """Lower bound with this schedule's vector and update time: each product at the larger of its own bounds."""
        return sum(row.lower_bound_cycles if row.engine == "array" else row.cycles for row in self.rows)

    @property
    def objective_gap_frac(self) -> float:
        """What mappings could at most still save of the objective, relative to its lower bound."""
        return self.objective_value / self.objective_bound - 1 if self.objective_bound else 0.0

    @property
    def merit(self) -> float:
        """What the step takes of its objective as simulated: seconds, joules or joule-seconds."""
        found = {"energy": self.energy.joules, "edp": self.energy.joules * self.seconds} if self.energy else {}
        return found.get(self.objective, self.seconds)

    def bound_gap_cycles(self) -> dict[str, int]:
        """Return by cause the cycles that the products take beyond `bound_cycles`: losses, less what DRAM alone demands."""
        gaps = dict.fromkeys(LOSSES, 0)
        for row in self.rows:
            if row.engine != "array":
                continue
            demanded = row.lower_bound_cycles - (row.cycles - sum(row.losses.values()))
            # Waiting for DRAM is what the DRAM bound explains first.
            for loss in ("dram", "fill", "drain", "padding", "vector"):
                lost = row.losses.get(loss, 0)
                explained = min(demanded, max(lost, 0))
                demanded -= explained
                gaps[loss] += lost - explained
            gaps["fill"] -= demanded  # done beside other work
        return gaps

    @property
    def bound_speedup(self) -> float | None:
        """Speedup if every product of both steps ran at its lower bound (PEs, DRAM), vector and update time as they are.

        Both steps gain by that: the speedup itself may be a little more.
        """
        return self.baseline.bound_cycles / self.bound_cycles if self.baseline else None

    @property
    def utilization_frac(self) -> float:
        """Useful multiply-accumulates of the array over what its PEs could do in the whole step."""
        useful = sum(row.macs_useful for row in self.rows if row.engine == "array")
        return useful / (self.pes * self.cycles)

    def total(self, counter: str) -> int:
        """Return the sum of an integer counter over all rows."""
        return sum(getattr(row, counter) for row in self.rows)

    def stage_cycles(self, stage: str) -> int:
        """Return the cycles of one of `STAGES`."""
        return sum(row.cycles for row in self.rows if row.group == stage)

    def loss_cycles(self, stage: str, loss: str) -> int:
        """Return the cycles that one stage loses to one cause."""
        return sum(row.losses.get(loss, 0) for row in self.rows if row.group == stage)

    def useful_cycles(self, stage: str) -> int:
        """Return the cycles of one stage if its nonzero multiply-adds, the vector unit's too, kept all PEs busy."""
        return self.stage_cycles(stage) - sum(self.loss_cycles(stage, loss) for loss in LOSSES)

    def speedup_losses(self) -> dict[tuple[str, str], float]:
        """Return, in points of speedup, what each stage and cause takes from the MAC cap; the sum is cap - speedup.

        Causes are let in one after another, in the order of `LOSSES` and `STAGES`, in the dense and the sparse step alike.
        """
        if self.baseline is None:
            return {}
        dense = sum(self.baseline.useful_cycles(stage) for stage in STAGES)
        sparse = sum(self.useful_cycles(stage) for stage in STAGES)
        losses, before = {("", "counting"): self.mac_cap - dense / sparse}, dense / sparse
        for loss in LOSSES:
            for stage in STAGES:
                dense += self.baseline.loss_cycles(stage, loss)
                sparse += self.loss_cycles(stage, loss)
                losses[stage, loss] = before - dense / sparse
                before = dense / sparse
        return losses

    @property
    def average_power_watts(self) -> float | None:
        """Energy of the step over its time; None without energies."""
        return self.energy.joules / self.seconds if self.energy else None

    @property
    def energy_delay_joule_seconds(self) -> float | None:
        """Energy of the step times its time; None without energies."""
        return self.energy.joules * self.seconds if self.energy else None

    @property
    def useful_gflops_per_watt(self) -> float | None:
        """Useful multiply-accumulates, each two operations, in 10^9 a second over the average power; None without energies."""
        return 2e-9 * self.total("macs_useful") / self.energy.joules if self.energy and self.energy.joules else None

    @property
    def energy_gain_over_dense(self) -> float | None:
        """Energy of the dense step over this one's; None without energies or baseline."""
        dense = self.baseline.energy if self.baseline else None
        return dense.joules / self.energy.joules if dense and self.energy and self.energy.joules else None

    def stage_energy(self, stage: str) -> dict[str, float]:
        """Return the joules of one of `STAGES` by component; nothing without energies."""
        if self.energy is None:
            return {}
        return self.energy.components(index for index, row in enumerate(self.rows) if row.group == stage)

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON form that docs/formats.md describes; keys about energy only if a table was given."""
        return self._dict_without_energy() | self._energy_dict()

    def _energy_dict(self) -> dict[str, Any]:
        energy = self.energy
        if energy is None:
            return {}
        layers = [
            asdict(row) | {"events": events._asdict(), "energy": _with_total(joules)}
            for row, events, joules in zip(self.rows, energy.events, energy.rows, strict=True)
        ]
        totals = _with_total(energy.components()) | {
            "average_power_watts": self.average_power_watts,
            "energy_delay_joule_seconds": self.energy_delay_joule_seconds,
            "useful_gflops_per_watt": self.useful_gflops_per_watt,
            "energy_gain_over_dense": self.energy_gain_over_dense,
        }
        section = {
            "totals": totals,
            "stages": {stage: _with_total(self.stage_energy(stage)) for stage in STAGES},
            "table": energy.table.model_dump(),
        }
        return {"layers": layers, "energy": section}

    def _dict_without_energy(self) -> dict[str, Any]:
        return {
            "schema_version": SCHEMA_VERSION,
            "network": self.network,
            "arch": self.arch,
            "method": self.method,
            "pattern": self.pattern,
            "optimizer": self.optimizer,
            "batch": self.batch,
            "pregenerate": self.pregenerate,
            "model": self.model,
            "dram": self.dram,
            "clock_hz": self.clock_hz,
            "pes": self.pes,
            "totals": {
                "cycles": self.cycles,
                "seconds": self.seconds,
                "speedup_over_dense": self.speedup_over_dense,
                "mac_cap": self.mac_cap,
                "bound_speedup": self.bound_speedup,
                "macs_nominal": self.total("macs_nominal"),
                "macs_dense": self.total("macs_dense"),
                "macs_useful": self.total("macs_useful"),
                "utilization_frac": self.utilization_frac,
                "dram_bytes": self.total("dram_bytes"),
                "dram_peak_bytes": self.dram_peak_bytes,
                "mac_saving_frac": self.mac_saving_frac,
                "bound_cycles": self.bound_cycles,
            },
            "footprint": self.footprint,
            "stages": {stage: self._stage_dict(stage) for stage in STAGES},
            "search": {"covered": self.mappings_covered, "evaluated": self.mappings_evaluated},
            "objective": {
                "name": self.objective,
                "unit": {"time": "seconds", "energy": "joules", "edp": "joule_seconds"}[self.objective],
                "value": self.objective_value,
                "lower_bound": self.objective_bound,
                "gap_frac": self.objective_gap_frac,
                "exhausted": True,
            },
            "free_layers": list(self.free_layers),
            "layers": [asdict(row) for row in self.rows],
            "baseline": None if self.baseline is None else {"cycles": self.baseline.cycles, "seconds": self.baseline.seconds},
        }

    def _stage_dict(self, stage: str) -> dict[str, Any]:
        losses = {loss: self.loss_cycles(stage, loss) for loss in LOSSES}
        return {"cycles": self.stage_cycles(stage), "useful_cycles": self.useful_cycles(stage), "losses": losses}

    def to_json(self) -> str:
        """Return the JSON text; equal runs give equal texts."""
        return json.dumps(self.to_dict(), indent=1) + "\n"

    def to_csv(self) -> str:
        """Return one line per row, with a header; `losses` become columns ``lost_to_*``."""
        import csv
        import io

        buffer = io.StringIO()
        records = self._records()
        writer = csv.DictWriter(buffer, records[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(records)
        return buffer.getvalue()

    def table(self) -> pd.DataFrame:
        """Return the rows as a pandas table, the columns those of the CSV form."""
        import pandas as pd

        return pd.DataFrame(self._records())

    def losses(self) -> pd.DataFrame:
        """Return the cycles of the step as a pandas table, `STAGES` by cause: "useful", then `LOSSES`."""
        import pandas as pd

        cycles = {stage: [self.useful_cycles(stage), *(self.loss_cycles(stage, loss) for loss in LOSSES)] for stage in STAGES}
        return pd.DataFrame.from_dict(cycles, orient="index", columns=["useful", *LOSSES])

    def _records(self) -> list[dict[str, Any]]:
        records = [_flat(row) for row in self.rows]
        if self.energy is None:
            return records
        return [record | _with_total(joules) for record, joules in zip(records, self.energy.rows, strict=True)]


def _flat(row: Row) -> dict[str, Any]:
    flat = {column.name: getattr(row, column.name) for column in fields(row) if column.name != "losses"}
    return flat | {f"lost_to_{loss}_cycles": row.losses.get(loss, 0) for loss in LOSSES}


def _with_total(joules: dict[str, float]) -> dict[str, float]:
    """Return energies by component under the names of the files, their sum first."""
    named = {f"{component}_joules": joules[component] for component in COMPONENTS}
    return {"energy_joules": math.fsum(joules.values()), **named}
