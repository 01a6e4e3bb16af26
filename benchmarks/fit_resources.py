"""Synthesise a few modules of many arrays, fit what they take, and write `accel/sim/resources.json`.

    python benchmarks/fit_resources.py            the fit: about half an hour of synthesis the first time, then seconds
    python benchmarks/fit_resources.py --check    the file as it is against whole arrays of 4x4, 16x16 and 32x32 PEs

Results of synthesis are kept in the user's cache, so an interrupted run goes on where it stopped.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from accel.arch import Arch
from accel.presets import preset
from accel.rtl.array import SystolicArray
from accel.rtl.column_feeder import ColumnFeeder
from accel.rtl.column_foot import ColumnFoot
from accel.rtl.emit import emit
from accel.rtl.parameters import ArrayParameters
from accel.rtl.pe import Uspe
from accel.rtl.row_feeder import RowFeeder
from accel.rtl.sore import Sore, SoreParameters
from accel.rtl.synth import Synthesis, Target, synthesize, synthesize_parts
from accel.rtl.walker import Walker
from accel.sim import resources

FILE = Path(resources.__file__).with_name("resources.json")

SEED = 2026
POINTS = {"walker": 1, "column_feeder": 16, "column_foot": 24, "row_feeder": 20, "systolic_array": 9, "uspe": 30}
"""Arrays of which a module is synthesised for the fit."""
HELD_OUT = {"walker": 0, "column_feeder": 5, "column_foot": 6, "row_feeder": 5, "systolic_array": 3, "uspe": 8}
"""More of them, to see how far off the fit is."""

BASE = preset("test")
PSUM_WORDS = (32, 128, 512, 1024, 2048, 64, 256)  # larger memories take a minute each; whole arrays have them


def points(module: str) -> list[Arch]:
    """Return the arrays of which `module` is synthesised: those of the fit first, then those held out.

    Every field goes through all its values before one comes again, in an order of chance that never changes. Rows and columns
    set widths of counters only, but for the top itself, whose arrays stay small.
    """
    chance = random.Random(f"{SEED} {module}")
    sizes = (2, 3, 4, 6, 8, 12, 16) if module == "systolic_array" else (2, 4, 8, 16, 32, 64, 128)
    decks = {
        "array_rows": _deck(chance, sizes),
        "array_cols": _deck(chance, sizes),
        "group": _deck(chance, (1, 2, 4, 8, 16)),
        "adder_latency": _deck(chance, range(2, 9)),
        "multiplier_latency": _deck(chance, (1, 2, 3, 4)),
        "forms": _deck(chance, ("all", "first", "last")),
        "dataflows": _deck(chance, (("OS",), ("WS",), ("OS", "WS"))),
        "drain_lanes": _deck(chance, (1, 2, 4)),
        "psum_words": _deck(chance, PSUM_WORDS),
    }
    return [_arch({name: next(deck) for name, deck in decks.items()}) for _ in range(POINTS[module] + HELD_OUT[module])]


def _deck(chance: random.Random, values: Sequence[Any]) -> Iterator[Any]:
    while True:
        yield from chance.sample(values, len(values))


def _arch(fields: dict[str, Any]) -> Arch:
    lanes = fields["adder_latency"]
    divisors = tuple(number for number in range(1, lanes + 1) if lanes % number == 0)
    fields["row_lanes"] = {"all": divisors, "first": divisors[:1], "last": divisors[-1:]}[fields.pop("forms")]
    fields["drain_lanes"] = min(fields["drain_lanes"], fields["array_rows"])
    fields["output_buffer_bytes"] = fields.pop("psum_words") * 2 * 4 * fields["array_cols"]
    return BASE.replace(**fields)


def measure(module: str, arch: Arch, target: Target) -> Synthesis:
    """Return what one `module` of the array of `arch` takes."""
    parameters = ArrayParameters.of(arch)
    kinds: dict[str, Callable[[], Any]] = {
        "walker": Walker,
        "column_feeder": lambda: ColumnFeeder(parameters),
        "column_foot": lambda: ColumnFoot(parameters),
        "row_feeder": lambda: RowFeeder(parameters),
        "systolic_array": lambda: SystolicArray(parameters),
        "uspe": lambda: Uspe(parameters),
    }
    return synthesize(emit(kinds[module]()), module, target, is_hollow=module == "systolic_array")


@dataclass(frozen=True)
class Fit:
    """Costs of the terms of one resource of one module, and how far off they are."""

    costs: dict[str, float]
    mean_frac: float
    """Mean of |estimate / synthesis - 1| over the arrays held out."""
    max_frac: float
    fit_mean_frac: float
    """The same mean over the arrays of the fit."""

    def as_fields(self) -> dict[str, float]:
        """Return the errors as they stand in the file."""
        return {"mean": round(self.mean_frac, 4), "max": round(self.max_frac, 4), "mean_of_fit": round(self.fit_mean_frac, 4)}


def amount(synthesis: Synthesis, resource: str) -> float:
    """Return what the model counts: with the LUTs their lone inverters."""
    return float(getattr(synthesis, resource)) + (synthesis.inverters if resource == "luts" else 0)


def fit(module: str, resource: str, archs: Sequence[Arch], found: Sequence[float]) -> Fit:
    """Return the costs that fit the first `POINTS[module]` of `found` best by least squares."""
    names = list(resources.terms(module, resource, resources.sizes_of(archs[0])))
    matrix = np.array([[terms[name] for name in names] for terms in (_terms(module, resource, arch) for arch in archs)], float)
    scale = np.abs(matrix).max(axis=0)
    scale[scale == 0] = 1
    count = POINTS[module]
    costs = np.linalg.lstsq(matrix[:count] / scale, np.array(found[:count]), rcond=1e-9)[0] / scale
    errors = np.abs(np.maximum(matrix @ costs, 0) - found) / np.maximum(found, 1)
    held_out = errors[count:] if len(errors) > count else np.zeros(1)
    rounded = {name: float(f"{cost:.6g}") for name, cost in zip(names, costs, strict=True)}
    return Fit(rounded, float(held_out.mean()), float(held_out.max()), float(errors[:count].mean()))


def _terms(module: str, resource: str, arch: Arch) -> dict[str, float]:
    return resources.terms(module, resource, resources.sizes_of(arch))


def fit_module(module: str) -> dict[str, Any]:
    """Return the entry of `module` in the file."""
    archs = points(module)
    found = []
    for number, arch in enumerate(archs, start=1):
        _progress(f"{module} {number} of {len(archs)}")
        found.append(measure(module, arch, "xcup"))
    fits = {
        name: fit(module, name, archs, [amount(synthesis, name) for synthesis in found])
        for name in resources.FITTED
        if _terms(module, name, archs[0])
    }
    for name in resources.FITTED:
        if name not in fits and any(amount(synthesis, name) for synthesis in found):
            raise RuntimeError(f"{module} takes {name}, for which the model has no terms")
    _print_fit(module, fits, [amount(synthesis, "luts") for synthesis in found])
    return {
        "points": POINTS[module],
        "held_out": HELD_OUT[module],
        "costs": {name: found_fit.costs for name, found_fit in fits.items()},
        "errors_frac": {name: found_fit.as_fields() for name, found_fit in fits.items()},
    }


def sore(group: int) -> dict[str, float]:
    """Return what one selector takes: there is only one field, so it is not fitted but listed."""
    _progress(f"sore of {group}")
    found = synthesize(emit(Sore(SoreParameters(group))), f"sore_g{group}", "xcup")
    return {name: amount(found, name) for name in resources.FITTED}


def whole_arrays() -> dict[str, Arch]:
    """Return arrays of which none was a point of the fit, to hold the sums against."""
    big = preset("sat-vcu1525")
    return {
        "4x4, groups of 4": big.replace(array_rows=4, array_cols=4, group=4, output_buffer_bytes=2**15),
        "16x16, groups of 16": big.replace(array_rows=16, array_cols=16, group=16, output_buffer_bytes=2**19),
        "32x32, groups of 8": big,
    }


def check(name: str, arch: Arch) -> dict[str, Any]:
    """Return what the array of `arch` takes by synthesis and by the model."""
    array = SystolicArray(ArrayParameters.of(arch))
    parts = synthesize_parts(emit(array), array.verilog_name, "xcup", lambda text: _progress(f"{name}: {text}"))
    estimate = resources.estimate(arch)
    result: dict[str, Any] = {"array": name}
    for resource in resources.FITTED:
        found = sum(part.count * amount(part.each, resource) for part in parts)
        guess = sum(getattr(estimate.parts[module], resource) for module in resources.MODULES)
        result[resource] = {"synthesis": found, "model": round(guess, 1)}
        print(f"{name:22s} {resource:12s} {found:12,.10g} {guess:12,.0f} {100 * (guess / max(found, 1) - 1):+6.1f}%")
    return result


def _print_fit(module: str, fits: dict[str, Fit], luts: Sequence[float]) -> None:
    print(f"{module}: {min(luts):.0f} to {max(luts):.0f} LUTs")
    for name, found in fits.items():
        print(
            f"  {name:12s} {len(found.costs):2d} terms; off by {100 * found.fit_mean_frac:.1f}% in the fit, held out "
            f"{100 * found.mean_frac:.1f}%, at most {100 * found.max_frac:.1f}%"
        )


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K{text}", end="", file=sys.stderr, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="do not fit; compare the file with whole arrays")
    options = parser.parse_args()
    if not options.check:
        modules = {module: fit_module(module) for module in POINTS}
        selectors = {str(group): sore(group) for group in (2, 4, 8, 16, 32)}
        tools = measure("walker", points("walker")[0], "xcup").tools
        model: dict[str, Any] = {"schema_version": 1, "target": "xcup", "tools": tools, "modules": modules, "sore": selectors}
        FILE.write_text(json.dumps(model, indent=1) + "\n", encoding="utf-8")
    arrays = [check(name, arch) for name, arch in whole_arrays().items()]
    model = json.loads(FILE.read_text(encoding="utf-8"))
    FILE.write_text(json.dumps(model | {"arrays": arrays}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
