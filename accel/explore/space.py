"""The space file: which machines are compared, on what work, for what. docs/explore.md describes its fields.

Points are numbered. The number of a point is read in mixed radix, the last field of `[vary]` changing fastest, so that no list
of points is ever made.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Field, TypeAdapter, ValidationError, model_validator
from pydantic_core import PydanticKnownError

from accel.api import resolve_arch, resolve_trace, step_options
from accel.arch import Arch
from accel.dataflow.context import Options
from accel.dataflow.lowering import MAX_BATCH
from accel.energy import EnergyTable, energy_table
from accel.errors import AccelError, ConfigError, describe_validation
from accel.explore import formulas
from accel.methods import METHODS, OPTIMIZERS
from accel.presets import DEFAULT_ARCH, DEFAULT_BATCH
from accel.sim.resources import DEVICES
from accel.sparsity import NMPattern
from accel.trace import Trace
from accel.validation import Amount, Checked, Fraction, Text, read_text, refuse, toml_fields

Value = int | float | tuple[int, ...] | tuple[str, ...]
"""A value of a field of `Arch`."""

MAX_VALUES = 100_000
"""Of one field."""
MAX_POINTS = 2**63 - 1
_SHOWN_PROBLEMS = 4
"""Of the values of one field."""
_KEPT_VALUES = 4096
"""Of one formula."""

RESOURCE_COLUMNS = ("all_luts", "luts", "memory_luts", "flip_flops", "dsps", "block_rams", "ultra_rams")
OBJECTIVES = (
    "time", "energy_joules", "edp", "power_watts", *RESOURCE_COLUMNS, "dram_bytes_per_second", "samples_per_second_per_lut",
)  # fmt: skip
"""What a machine can be judged by: columns of a row (docs/explore.md, section 3)."""

AMOUNTS = {"pes": int, "buffer_bytes": int, "west_link_bits": int}
"""Columns of a row that are known before anything is simulated, with their types."""

MAXIMIZED = frozenset({"samples_per_second_per_lut"})
"""Objectives of which more is better."""

PROPERTIES = {
    "pes": "array_rows * array_cols",
    "dram_bytes_per_cycle": "dram_bytes_per_second * dram_efficiency_frac / clock_hz",
    "peak_macs_per_second": "array_rows * array_cols * clock_hz",
}
"""Properties of `Arch` that a formula may name, as formulas of its fields."""

_annotated: Any = Annotated
_TYPES: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(_annotated[(info.annotation, *info.metadata)])
    for name, info in Arch.model_fields.items()
    if name not in ("name", "description")
}
_INTEGERS = frozenset(name for name in _TYPES if Arch.model_fields[name].annotation is int)
_NUMBERS = _INTEGERS | {name for name in _TYPES if Arch.model_fields[name].annotation is float}


def _is_finite(number: int | float) -> bool:
    """Return whether a number is finite, as a number of 64 bits too."""
    try:
        return math.isfinite(number)
    except OverflowError:
        return False


class Range(Checked):
    """Numbers at equal distances, or in equal proportions."""

    start: Annotated[int | float, Field(alias="from")]
    stop: Annotated[int | float, Field(alias="to")]
    step: Annotated[int | float, Field(gt=0)] | None = None
    points: Annotated[int, Field(ge=2, le=MAX_VALUES)] | None = None
    scale: Literal["linear", "log"] = "linear"

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not all(_is_finite(end) for end in (self.start, self.stop, self.step or 0)):
            raise ValueError("from, to and step must be finite")
        if (self.step is None) == (self.points is None):
            raise ValueError("must have either step or points")
        if self.step is not None and self.scale == "log":
            raise ValueError("scale must be linear with step; give points")
        if not self.start < self.stop:
            raise ValueError(f"to must be above from ({self.start}), not {self.stop}")
        if self.scale == "log" and self.start <= 0:
            raise ValueError(f"from must be above 0 on a log scale, not {self.start}")
        if self.step is not None and (self.stop - self.start) / self.step >= MAX_VALUES:
            raise ValueError(f"step must leave {MAX_VALUES} or fewer values, not {self.step}")
        return self

    def values(self, integers: bool) -> list[int | float]:
        """Return the numbers; `integers` are rounded, and those that round to the same one are one."""
        if self.step is not None:
            last = math.floor((self.stop - self.start) / self.step + 1e-9)
            numbers = [self.start + index * self.step for index in range(last + 1)]
        else:
            assert self.points is not None
            parts = [index / (self.points - 1) for index in range(self.points)]
            if self.scale == "log":
                numbers = [self.start * (self.stop / self.start) ** part for part in parts]
            else:
                numbers = [self.start + (self.stop - self.start) * part for part in parts]
            numbers[-1] = self.stop
        return list(dict.fromkeys(round(number) for number in numbers)) if integers else numbers


def _checked_values(name: str, given: Any) -> tuple[Value, ...]:
    """Return the values of one field, or raise `ValueError` with every problem, a line each."""
    if name not in _TYPES:
        raise ValueError(f"{name} is not a numeric or list field of a machine")
    if isinstance(given, dict):
        if name not in _NUMBERS:
            raise ValueError(f"{name} must be a list of lists, not a range")
        try:
            entries: list[Any] = [*Range.model_validate(given).values(name in _INTEGERS)]
        except ValidationError as error:
            raise ValueError("\n".join(f"{name}: {text}" for text in describe_validation(error))) from None
    elif isinstance(given, list) and given:
        entries = [tuple(value) if isinstance(value, list) else value for value in given]
    else:
        raise ValueError(f"{name} must be a list of values or a range {{from, to, step | points}}, not {given!r}")
    return _checked_entries(name, entries)


def _checked_entries(name: str, entries: list[Any]) -> tuple[Value, ...]:
    if len(entries) > MAX_VALUES:
        raise ValueError(f"{name} must have {MAX_VALUES} or fewer values, not {len(entries)}")
    problems: list[str] = []
    checked: list[Value] = []
    for entry in entries:
        try:
            checked.append(_TYPES[name].validate_python(entry, strict=True))
        except ValidationError as error:
            problems += [text.replace("the file", name, 1) for text in describe_validation(error)]
    if not problems and len(set(checked)) != len(checked):
        problems.append(f"{name} must not repeat a value")
    if problems:
        raise ValueError("\n".join(_first(name, [*dict.fromkeys(problems)])))
    return tuple(checked)


def _first(name: str, problems: list[str]) -> list[str]:
    """Return all problems, or of more than a reader wants to see the first."""
    if len(problems) <= _SHOWN_PROBLEMS:
        return problems
    return [*problems[:_SHOWN_PROBLEMS], f"{name} has {len(problems) - _SHOWN_PROBLEMS} more values of such kind"]


def _read_vary(given: Any) -> dict[str, tuple[Value, ...]]:
    if not isinstance(given, dict):
        raise PydanticKnownError("dict_type")
    axes, problems = {}, []
    for name, values in given.items():
        try:
            axes[name] = _checked_values(name, values)
        except ValueError as error:
            problems += str(error).split("\n")
    if problems:
        raise ValueError("\n".join(problems))
    return axes


def _check_derive(derive: dict[str, str]) -> dict[str, str]:
    problems = []
    for name, formula in derive.items():
        if name not in _NUMBERS:
            problems.append(f"{name} is not a numeric field of a machine")
            continue
        try:
            unknown = [read for read in formulas.names_of(formula) if read not in _NUMBERS and read not in PROPERTIES]
        except ValueError as error:
            problems.append(f"{name} {error}")
            continue
        problems += [f"{name} must read numeric fields of a machine or {', '.join(PROPERTIES)}, not {read}" for read in unknown]
    problems = problems or _circle({**PROPERTIES, **derive})
    if problems:
        raise ValueError("\n".join(problems))
    return derive


def _circle(derive: dict[str, str]) -> list[str]:
    """Return the one problem if fields follow from themselves."""
    open_names = {name: set(formulas.names_of(formula)) & derive.keys() for name, formula in derive.items()}
    while ready := [name for name, reads in open_names.items() if not reads & open_names.keys()]:
        for name in ready:
            del open_names[name]
    left = [name for name in open_names if name not in PROPERTIES]
    return [f"{left[0]} must not follow from itself (with {', '.join(left[1:])})"] if left[1:] else [
        f"{name} must not follow from itself" for name in left
    ]  # fmt: skip


def _read(field: str, read: Any) -> None:
    """Call `read`, naming `field` in what it refuses."""
    try:
        read()
    except ConfigError as error:
        raise ValueError(f"{field}: {error}") from None


def _one_of(names: Iterable[str]) -> AfterValidator:
    """Return what refuses every other name."""
    known = tuple(names)

    def check(name: str) -> str:
        if name not in known:
            raise PydanticKnownError("literal_error", {"expected": f"one of {', '.join(known)}"})
        return name

    return AfterValidator(check)


def _check_networks(networks: dict[str, float]) -> dict[str, float]:
    problems = []
    for network, weight in networks.items():
        if not 0 < weight < math.inf:
            problems.append(f"{network} must be a finite weight above 0, not {weight}")
        try:
            resolve_trace(network)
        except AccelError as error:
            problems.append(f"{network}: {error}")
    if problems:
        raise ValueError("\n".join(problems))
    return networks


_DEVICES = [device.name for device in DEVICES.values() if device.family == "xcup"]


def _upper(given: Any) -> Any:
    return given.upper() if isinstance(given, str) else given


_AS_TUPLE = BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)


class ArchPart(Checked):
    """`[arch]`: the machine whose fields hold where nothing else is said."""

    base: Text = DEFAULT_ARCH

    @model_validator(mode="after")
    def _check(self) -> Self:
        _read("base", lambda: resolve_arch(self.base))
        return self


class Constraints(Checked):
    """`[constraints]`: what a machine must keep to; one that does not is not simulated."""

    fits: Annotated[str, BeforeValidator(_upper), _one_of(_DEVICES)] | None = None
    """An UltraScale+ device, in any case of letters."""
    lut_frac: Fraction = 0.7
    max_buffer_bytes: Amount | None = None
    """West, north and output buffers together."""
    max_pes: Amount | None = None
    max_west_link_bits: Amount | None = None
    """Of the word of `group` elements that a row of the array takes from the west in one cycle."""
    max_power_watts: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    """Mean power of every step; needs a table of energies."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.fits is None and "lut_frac" in self.model_fields_set:
            raise ValueError("lut_frac must stand with fits, a device, not alone")
        return self


class MethodPart(Checked):
    """One entry of `methods`: how the networks are trained."""

    method: Annotated[str, _one_of(METHODS)]
    pattern: Text = "2:8"
    weight: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0

    @model_validator(mode="after")
    def _check(self) -> Self:
        _read("pattern", lambda: NMPattern.parse(self.pattern))
        return self

    @property
    def label(self) -> str:
        """Its name in the columns of a row."""
        return "dense" if self.method == "dense" else f"{self.method}.{self.pattern}"


class Work(Checked):
    """`[work]`: what is trained."""

    networks: Annotated[dict[str, float], Field(min_length=1), AfterValidator(_check_networks)]
    """Names or files of networks with their weights."""
    methods: Annotated[tuple[MethodPart, ...], Field(min_length=1), _AS_TUPLE] = (MethodPart(method="bdwp"),)
    batch: Annotated[int, Field(ge=1, le=MAX_BATCH)] = DEFAULT_BATCH
    optimizer: Annotated[str, _one_of(OPTIMIZERS)] = "sgd"

    @model_validator(mode="after")
    def _check(self) -> Self:
        labels = [method.label for method in self.methods]
        twice = [f"methods must not repeat {label}" for label in dict.fromkeys(labels) if labels.count(label) > 1]
        if twice:
            raise ValueError("\n".join(twice))
        return self


class Objectives(Checked):
    """`[objectives]`: what machines are judged by."""

    names: Annotated[tuple[Annotated[str, _one_of(OBJECTIVES)], ...], Field(min_length=1), _AS_TUPLE] = ("time", "all_luts")
    energy: Text | None = None
    """A table of energies, by name or file."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [] if len(set(self.names)) == len(self.names) else [f"names must not repeat, not {list(self.names)}"]
        wanting = [name for name in self.names if name in ("energy_joules", "edp", "power_watts")]
        if wanting and self.energy is None:
            problems.append(f"energy must name a table of energies for {wanting[0]}")
        if self.energy is not None:
            try:
                energy_table(self.energy)
            except ConfigError as error:
                problems.append(f"energy: {error}")
        if problems:
            raise ValueError("\n".join(problems))
        return self


class SpaceFile(Checked):
    """The fields of a space file, checked with the files that they name."""

    arch: ArchPart = ArchPart()
    vary: Annotated[dict[str, Any], Field(min_length=1), BeforeValidator(_read_vary)]
    derive: Annotated[dict[str, str], AfterValidator(_check_derive), Field(default_factory=dict)]
    constraints: Constraints = Constraints()
    work: Work
    objectives: Objectives = Objectives()

    @model_validator(mode="after")
    def _check(self) -> Self:
        problems = [f"derive.{name} must not be varied too" for name in self.derive if name in self.vary]
        if self.constraints.max_power_watts is not None and self.objectives.energy is None:
            problems.append("constraints.max_power_watts must stand with objectives.energy, a table of energies")
        points = math.prod(len(values) for values in self.vary.values())
        if points > MAX_POINTS:
            problems.append(f"vary must have less than 2**63 points, not {points}")
        if problems:
            raise ValueError("\n".join(problems))
        return self


@dataclass(frozen=True)
class _Rule:
    """A field or property of machines that follows from others, with the values it had before."""

    name: str
    formula: str
    reads: tuple[str, ...]
    known: dict[tuple[Any, ...], int | float] = field(default_factory=dict, compare=False)

    @classmethod
    def of(cls, name: str, formula: str) -> _Rule:
        return cls(name, formula, tuple(formulas.names_of(formula)))

    def value(self, numbers: Mapping[str, Any]) -> int | float:
        """Return what follows from `numbers`; refuses a formula without a value."""
        read = tuple([numbers[name] for name in self.reads])
        if read not in self.known:
            if len(self.known) >= _KEPT_VALUES:
                self.known.clear()
            self.known[read] = self._value(numbers)
        return self.known[read]

    def _value(self, numbers: Mapping[str, Any]) -> int | float:
        try:
            value = formulas.value_of(self.formula, numbers)
        except ValueError as error:
            raise ConfigError(f"{self.name} = {error}") from None
        return math.floor(value) if self.name in _INTEGERS else float(value) if self.name in _NUMBERS else value


@dataclass(frozen=True)
class Space:
    """The machines of a space file and what they run; every file it names has been read."""

    file: SpaceFile
    text: str
    """Of the file."""
    base: Arch
    traces: dict[str, Trace]
    table: EnergyTable | None

    @classmethod
    def load(cls, path: str | Path) -> Space:
        """Return the space of a TOML file; all problems of the file come in one `ConfigError`."""
        return cls.from_text(read_text(Path(path), ConfigError), str(path))

    @classmethod
    def from_text(cls, text: str, source: str) -> Space:
        """Return the space of a TOML text; `source` names it in an error."""
        try:
            file = SpaceFile.model_validate(toml_fields(text, source))
        except ValidationError as error:
            raise refuse(ConfigError, source, describe_validation(error)) from None
        traces = {network: resolve_trace(network) for network in file.work.networks}
        energy = file.objectives.energy
        return cls(file, text, resolve_arch(file.arch.base), traces, None if energy is None else energy_table(energy))

    @property
    def axes(self) -> dict[str, tuple[Value, ...]]:
        """The values of every field that varies."""
        return self.file.vary

    @property
    def size(self) -> int:
        """Number of points."""
        return math.prod(len(values) for values in self.axes.values())

    def point(self, index: int) -> dict[str, Value]:
        """Return the values of the fields that vary at one of the `size` points."""
        if not 0 <= index < self.size:
            raise ConfigError(f"index must be between 0 and {self.size - 1}, not {index}")
        digits: dict[str, Value] = {}
        for name, values in reversed(self.axes.items()):
            index, digit = divmod(index, len(values))
            digits[name] = values[digit]
        return {name: digits[name] for name in self.axes}

    def derived(self, point: Mapping[str, Value]) -> dict[str, int | float]:
        """Return the fields that follow from those of `point`; integer fields are rounded down."""
        numbers: dict[str, Any] = {**self._base_fields, **point}
        for rule in self._rules:
            numbers[rule.name] = rule.value(numbers)
        return {name: numbers[name] for name in self.file.derive}

    @cached_property
    def _rules(self) -> list[_Rule]:
        """The formulas in an order in which each reads what is known, without properties that no point needs."""
        rules = {**PROPERTIES, **self.file.derive}
        wanted = {*self.file.derive}
        for name in _in_order(rules):  # the value of a property of derived fields may not be
            if wanted & {*formulas.names_of(rules[name])}:
                wanted.add(name)
        for name in reversed(_in_order(rules)):
            if name in wanted:
                wanted |= {*formulas.names_of(rules[name])}
        return [_Rule.of(name, rules[name]) for name in _in_order(rules) if name in wanted]

    @cached_property
    def _base_fields(self) -> dict[str, Any]:
        return self.base.model_dump()

    def arch(self, index: int) -> Arch:
        """Return the machine of a point, or refuse one that cannot be."""
        point = self.point(index)
        return self.machine(index, {**point, **self.derived(point)})

    def machine(self, index: int, fields: Mapping[str, Value]) -> Arch:
        """Return the machine of a point whose fields, those of `point` and `derived`, are known."""
        return _named(self._base_fields, self.base.name, index, fields)

    def options(self, method: MethodPart, arch: Arch) -> Options:
        """Return what the networks are lowered for on `arch`; refuses a pattern that it cannot run."""
        work = self.file.work
        return step_options(arch, method.method, method.pattern, work.batch, None, work.optimizer, True)

    @property
    def columns(self) -> dict[str, type]:
        """The columns of a row with their types: int, float, str, or tuple (of integers or strings)."""
        fields = {name: _column_type(name) for name in (*self.axes, *self.file.derive)}
        own = ("cycles", "seconds", "dram_bytes") + (("joules",) if self.table else ())
        parts = [f"{network}.{method.label}." for network in self.traces for method in self.file.work.methods]
        steps = {prefix + name: int if name in ("cycles", "dram_bytes") else float for prefix in parts for name in own}
        return {"index": int, **fields, "problem": str, **AMOUNTS} | dict.fromkeys(OBJECTIVES, float) | steps

    @property
    def digest(self) -> str:
        """A hash of the file and of every file that it names."""
        parts: Iterable[str] = (
            self.text,
            self.base.to_toml(),
            *(trace.to_json() for trace in self.traces.values()),
            "" if self.table is None else self.table.model_dump_json(),
            json.dumps(list(self.columns)),
        )
        return hashlib.sha256("\0".join(parts).encode()).hexdigest()


def machine(base: Arch, index: int, fields: Mapping[str, Value]) -> Arch:
    """Return the machine of point `index`: `base` with these `fields`, and a name of its own."""
    return _named(base.model_dump(), base.name, index, fields)


def _named(base_fields: dict[str, Any], base_name: str, index: int, fields: Mapping[str, Value]) -> Arch:
    named = {"name": f"{base_name}-{index}", "description": f"a point of a space around {base_name}"}
    return Arch.from_fields({**base_fields, **named, **fields}, source=base_name)


def _column_type(name: str) -> type:
    return int if name in _INTEGERS else float if name in _NUMBERS else tuple


def _in_order(rules: dict[str, str]) -> list[str]:
    """Return the names such that each stands behind those it reads."""
    done: dict[str, None] = {}

    def visit(name: str) -> None:
        for read in formulas.names_of(rules[name]):
            if read in rules and read not in done:
                visit(read)
        done[name] = None

    for name in rules:
        visit(name)
    return list(done)
