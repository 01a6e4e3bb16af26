"""The main job in one call: trace -> step -> schedule -> report. What the command, notebooks and sweeps call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, get_args

from accel import networks
from accel.arch import Arch
from accel.dataflow.codegen import compile_schedule
from accel.dataflow.context import Options
from accel.dataflow.lowering import lower
from accel.dataflow.scheduling import check_objective, schedule
from accel.dram import FLAT, DramDevice, resolve_dram
from accel.energy import EnergyTable, energy_table
from accel.errors import ConfigError
from accel.methods import method as named_method
from accel.methods import optimizer as named_optimizer
from accel.presets import DEFAULT_ARCH, DEFAULT_BATCH, PRESETS, preset
from accel.program import Program
from accel.report import Model, Report, Row
from accel.schedule import Objective, Schedule
from accel.sim.energy import step_energy
from accel.sim.machine import Timing, run_program
from accel.sim.program_step import simulate_program
from accel.sim.step import simulate_step
from accel.sparsity import DENSE, NMPattern
from accel.trace import Trace


def resolve_trace(network: str | Path | Trace, allow_ops: Sequence[str] = ()) -> Trace:
    """Return the trace of a shipped network's name, a JSON file's path, or the trace itself."""
    if isinstance(network, Trace):
        return network
    if isinstance(network, str) and network in networks.names():
        return networks.load(network)
    if isinstance(network, Path) or "/" in network or "." in network:
        return Trace.load(network, frozenset(allow_ops))
    return networks.load(network)  # refuses with the list of names


def resolve_arch(arch: str | Path | Arch) -> Arch:
    """Return the machine of a preset's name, a TOML file's path, or the machine itself."""
    if isinstance(arch, Arch):
        return arch
    if isinstance(arch, Path) or (arch not in PRESETS and ("/" in arch or "." in arch)):
        return Arch.load(arch)
    return preset(arch)


def simulate(
    network: str | Path | Trace,
    arch: str | Path | Arch = DEFAULT_ARCH,
    *,
    method: str = "bdwp",
    pattern: str | NMPattern = "2:8",
    batch: int = DEFAULT_BATCH,
    dense_layers: Sequence[str] | None = None,
    optimizer: str = "sgd",
    pregenerate: bool = True,
    baseline: bool | Report = True,
    allow_ops: Sequence[str] = (),
    energy: str | Path | EnergyTable | None = None,
    objective: Objective = "time",
    model: Model = "machine",
    dram: str | Path | DramDevice = FLAT,
) -> Report:
    """Return what one training step of `network` costs on `arch`.

    `network` is a shipped network's name, a trace file or a `Trace`; `arch` a preset's name, a TOML file or an `Arch`.
    `pattern` is kept:group. `dense_layers` are name patterns of weight layers that stay dense (default: the first one).
    `pregenerate` writes compact weights in the update; without it SORE prunes them on every load. `baseline` also runs dense
    training, for the speedup; the `baseline` of another report on the same network, machine, batch and optimizer is taken as
    it is. `energy` adds energy and power: a table's name, a TOML file or an `EnergyTable`. `objective` is what mappings are
    chosen for: "time", or with `energy` also "energy" or "edp", energy times delay. `model` "machine" compiles the step to a
    program and runs that, instruction by instruction; "closed-form" adds up products that each run alone. `dram` is "flat"
    (bandwidth times efficiency), "banks" (the preset's device with its banks and rows), a TOML file or a `DramDevice`. Raises
    `ConfigError`, `TraceError` or `ScheduleError` for what cannot be.
    """
    return run_step(
        network,
        arch,
        baseline=baseline,
        allow_ops=allow_ops,
        energy=energy,
        objective=objective,
        model=model,
        dram=dram,
        method=method,
        pattern=pattern,
        batch=batch,
        dense_layers=dense_layers,
        optimizer=optimizer,
        pregenerate=pregenerate,
    ).report


class StepRun(NamedTuple):
    """The report of a step, and with the model "machine" the program that it is about and when its instructions ran."""

    report: Report
    executed: tuple[Program, Timing] | None


def run_step(
    network: str | Path | Trace,
    arch: str | Path | Arch,
    *,
    baseline: bool | Report,
    allow_ops: Sequence[str],
    energy: str | Path | EnergyTable | None,
    objective: Objective,
    model: Model,
    dram: str | Path | DramDevice,
    **choices: Any,
) -> StepRun:
    """Return what `simulate` does together with what ran; `choices` are the other arguments of `step_options`."""
    if model not in get_args(Model):
        raise ConfigError(f"model must be one of {', '.join(get_args(Model))}, not {model!r}")
    check_objective(objective, energy is not None)
    trace, machine = resolve_trace(network, allow_ops), resolve_arch(arch)
    table = None if energy is None else energy_table(energy)
    options = step_options(machine, **choices)
    device = _checked_dram(dram, machine, model)
    report, executed = _run(trace, machine, options, table, objective, model, device)
    if isinstance(baseline, Report):
        return StepRun(replace(report, baseline=_checked_baseline(baseline, report)), executed)
    if not baseline:
        return StepRun(report, executed)
    if options.pattern.is_dense:
        return StepRun(replace(report, baseline=report), executed)
    dense = replace(options, method=named_method("dense"), pattern=DENSE)
    dense_report = _run(trace, machine, dense, table, objective, model, device).report
    return StepRun(replace(report, baseline=dense_report), executed)


def compile_step(
    network: str | Path | Trace,
    arch: str | Path | Arch = DEFAULT_ARCH,
    *,
    method: str = "bdwp",
    pattern: str | NMPattern = "2:8",
    batch: int = DEFAULT_BATCH,
    dense_layers: Sequence[str] | None = None,
    optimizer: str = "sgd",
    pregenerate: bool = True,
    allow_ops: Sequence[str] = (),
    energy: str | Path | EnergyTable | None = None,
    objective: Objective = "time",
) -> Program:
    """Return the program of one training step, the one that `simulate` runs.

    The arguments mean what they do in `simulate`, which has more of them; a step that it refuses is refused alike.
    """
    trace, machine = resolve_trace(network, allow_ops), resolve_arch(arch)
    options = step_options(machine, method, pattern, batch, dense_layers, optimizer, pregenerate)
    table = None if energy is None else energy_table(energy)
    return compile_schedule(_plan(trace, machine, options, table, objective))


def step_options(
    arch: Arch,
    method: str,
    pattern: str | NMPattern,
    batch: int,
    dense_layers: Sequence[str] | None,
    optimizer: str,
    pregenerate: bool,
) -> Options:
    """Return what a step is lowered for, given as in `simulate`; refuses a pattern that `arch` cannot run."""
    nm_pattern = NMPattern.parse(pattern) if isinstance(pattern, str) else pattern
    chosen = named_method(method)
    options = Options(
        batch=batch,
        method=chosen,
        pattern=DENSE if chosen.name == "dense" else nm_pattern,
        optimizer=named_optimizer(optimizer),
        word_elems=arch.group,
        dense_layers=None if dense_layers is None else tuple(dense_layers),
        pregenerate=pregenerate,
    )
    if chosen.name != "dense":
        arch.run_pattern(nm_pattern)
    return options


def _checked_baseline(baseline: Report, report: Report) -> Report:
    """Return `baseline` if it is dense training of what `report` trains, where and as `report` does."""
    same = ("network", "arch", "clock_hz", "pes", "batch", "optimizer", "model", "dram")
    if baseline.pattern != "dense" or any(getattr(baseline, name) != getattr(report, name) for name in same):
        wanted, found = (
            f"{part.network} on {part.arch} at batch {part.batch} with {part.optimizer} "
            f"({part.model}{'' if part.dram == FLAT else f', DRAM {part.dram}'})"
            for part in (report, baseline)
        )
        raise ConfigError(f"baseline must be dense training of {wanted}, not {baseline.method} training of {found}")
    wanted_table, found_table = (part.energy.table if part.energy else None for part in (report, baseline))
    if wanted_table != found_table:
        named = [f"table {table.name}" if table else "no table" for table in (wanted_table, found_table)]
        raise ConfigError(f"baseline must have the energies of {named[0]}, not of {named[1]}")
    if baseline.objective != report.objective:
        raise ConfigError(f"baseline must be scheduled for {report.objective}, not for {baseline.objective}")
    return baseline


def _checked_dram(dram: str | Path | DramDevice, arch: Arch, model: Model) -> DramDevice | None:
    device = resolve_dram(dram, arch)
    if device is not None and model != "machine":
        raise ConfigError(f"model must be machine for DRAM {device.name}, not {model}; leave out model or dram")
    return device


def _run(
    trace: Trace,
    arch: Arch,
    options: Options,
    table: EnergyTable | None,
    objective: Objective,
    model: Model,
    dram: DramDevice | None,
) -> StepRun:
    planned = _plan(trace, arch, options, table, objective)
    if model == "closed-form":
        return StepRun(_report(planned, options, table, objective, simulate_step(planned), model, FLAT), None)
    program = compile_schedule(planned)
    timing = run_program(program, dram)
    rows = simulate_program(planned, program, timing)
    device = FLAT if dram is None else dram.name
    return StepRun(_report(planned, options, table, objective, rows, model, device), (program, timing))


def _plan(trace: Trace, arch: Arch, options: Options, table: EnergyTable | None, objective: Objective) -> Schedule:
    """Return the step with its mappings, or refuse one that has nothing to map."""
    step = lower(trace, options)
    if not any(gemm.macs_nominal for gemm in step.gemms):
        raise ConfigError(f"network {step.network} must have a product to run, not only vector operators")
    return schedule(step, arch, objective, table)


def _report(
    planned: Schedule,
    options: Options,
    table: EnergyTable | None,
    objective: Objective,
    rows: tuple[Row, ...],
    model: Model,
    dram: str,
) -> Report:
    arch, footprint, achieved = planned.arch, planned.step.footprint, planned.achieved
    return Report(
        network=planned.step.network,
        arch=arch.name,
        method=options.method.name,
        pattern=str(options.pattern),
        optimizer=options.optimizer.name,
        batch=options.batch,
        clock_hz=arch.clock_hz,
        pes=arch.pes,
        pregenerate=options.pregenerate,
        rows=rows,
        dram_peak_bytes=footprint.total_bytes,
        footprint={name: getattr(footprint, name) for name in footprint.__dataclass_fields__},
        mac_saving_frac=_mac_saving(planned),
        mappings_covered=sum(search.covered for search in planned.searches),
        mappings_evaluated=sum(search.evaluated for search in planned.searches),
        search_seconds=planned.search_seconds,
        objective=objective,
        objective_value=achieved.value if achieved else 0.0,
        objective_bound=achieved.lower_bound if achieved else 0.0,
        model=model,
        dram=dram,
        free_layers=planned.step.free_layers,
        energy=None if table is None else step_energy(planned, rows, table),
    )


def _mac_saving(planned: Schedule) -> float:
    """Return the share of nominal multiply-accumulates that the patterns take away."""
    gemms = planned.step.gemms
    nominal = sum(gemm.macs_nominal for gemm in gemms)
    return sum(gemm.macs_nominal * (1 - gemm.macs_useful / gemm.macs_dense) for gemm in gemms) / nominal
