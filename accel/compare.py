"""The speedup of several networks and patterns side by side, with what it hinges on."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from accel.api import resolve_arch, resolve_trace, simulate
from accel.arch import Arch
from accel.errors import ConfigError
from accel.presets import DEFAULT_ARCH, PRESETS
from accel.report import Report
from accel.sparsity import NMPattern
from accel.trace import Trace

HEADLINE_NETWORKS = ("resnet9", "vgg19", "vit-cifar", "resnet18-64", "resnet50")
"""Stand-ins for the networks of the SAT paper: three at CIFAR size, one at 64x64, one at 224x224."""

HEADLINE_PATTERNS = ("2:4", "2:8", "2:16")

DEFAULT_BATCHES = {"resnet50": 64}
DEFAULT_BATCH = 128  # of every other network

CHANGES = {
    "as it is": {},
    "vector lanes x 1/2": {"vector_lanes": 0.5},
    "vector lanes x 2": {"vector_lanes": 2.0},
    "DRAM x 1/2": {"dram_bytes_per_second": 0.5},
    "DRAM x 2": {"dram_bytes_per_second": 2.0},
}
"""The two figures of a machine that the array does not fix: what happens to the speedup if they were otherwise."""


@dataclass(frozen=True)
class Comparison:
    """One report per network and pattern, each with its dense baseline; mean speedups by pattern under each change."""

    method: str
    reports: tuple[Report, ...]
    sensitivity: dict[str, dict[str, float]]

    def by_pattern(self) -> dict[str, list[Report]]:
        """Return the reports of each pattern."""
        found: dict[str, list[Report]] = {}
        for report in self.reports:
            found.setdefault(report.pattern, []).append(report)
        return found


def compare(
    network_names: Sequence[str] = HEADLINE_NETWORKS,
    patterns: Sequence[str] = HEADLINE_PATTERNS,
    *,
    arch: str = DEFAULT_ARCH,
    method: str = "bdwp",
    batch: int | None = None,
    track: Callable[[Sequence[tuple[str, str, str]]], Iterable[tuple[str, str, str]]] = iter,
) -> Comparison:
    """Return the comparison of `network_names` under `patterns`.

    A pattern too large for the machine runs on the preset of the same name with a larger group ("-g16"), with that machine's
    own dense baseline. `batch` None takes 128, or 64 for the largest network. `track` wraps the list of runs to show progress.
    """
    traces = {name: resolve_trace(name) for name in network_names}
    parsed = {str(pattern): pattern for pattern in map(NMPattern.parse, patterns)}
    if not parsed or method == "dense" or any(pattern.is_dense for pattern in parsed.values()):
        raise ConfigError(
            "compare must have a sparse method and sparse patterns, not dense ones; dense is what it compares with"
        )
    runs = [(change, name, pattern) for change in CHANGES for pattern in parsed for name in traces]
    found: dict[tuple[str, str], list[Report]] = {}
    baselines: dict[tuple[str, Arch], Report | None] = {}  # patterns that run on one machine share them
    for change, name, pattern in track(runs):
        machine = _changed(_machine_for(arch, parsed[pattern]), CHANGES[change])
        report = _run(traces[name], machine, method, pattern, batch, baselines.get((name, machine)))
        baselines[name, machine] = report.baseline
        found.setdefault((change, pattern), []).append(report)
    unchanged = next(iter(CHANGES))
    return Comparison(
        method,
        tuple(report for pattern in parsed for report in found[unchanged, pattern]),
        {change: {pattern: _mean_speedup(found[change, pattern]) for pattern in parsed} for change in CHANGES},
    )


def _run(trace: Trace, arch: Arch, method: str, pattern: str, batch: int | None, baseline: Report | None) -> Report:
    size = DEFAULT_BATCHES.get(trace.name, DEFAULT_BATCH) if batch is None else batch
    return simulate(trace, arch, method=method, pattern=pattern, batch=size, baseline=baseline or True)


def _mean_speedup(reports: Sequence[Report]) -> float:
    return sum(report.speedup_over_dense or 0.0 for report in reports) / len(reports)


def _machine_for(arch: str, pattern: NMPattern) -> Arch:
    machine, larger = resolve_arch(arch), f"{arch}-g{pattern.group}"
    if pattern.group > machine.group and larger in PRESETS:
        return PRESETS[larger]
    machine.run_pattern(pattern)
    return machine


def _changed(arch: Arch, factors: dict[str, float]) -> Arch:
    changes = {}
    for field, factor in factors.items():
        value = getattr(arch, field)
        changes[field] = type(value)(value * factor)
    if any(not value for value in changes.values()):
        raise ConfigError(f"vector_lanes of {arch.name} must be at least 2 to try half of them, not 1")
    return arch.replace(**changes) if changes else arch
