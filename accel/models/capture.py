"""PyTorch module -> `Graph`: `torch.export` traces the module, and what it found is written down without torch."""

from __future__ import annotations

import logging
import operator
import re
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

import torch
from torch.export.graph_signature import InputKind, OutputKind, TensorArgument
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from accel.errors import TraceError, UnsupportedOpError
from accel.models.records import Call, Graph, Parameter, Ref, Site, Tensor, drop_dead, list_sites

GETITEM = "getitem"
_INLINED = {"wrap_with_set_grad_enabled", "wrap_with_autocast"}
_PACKAGES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[1]))


def capture(module: torch.nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> Graph:
    """Return the network that `module` runs on these example inputs; the first tensor's first dimension is the batch."""
    try:
        with _quiet():
            program = torch.export.export(module, args, dict(kwargs), strict=False)
    except GuardOnDataDependentSymNode as error:
        where = describe(error).rpartition(f": {type(error).__name__}")[0] or "a module"
        raise TraceError(
            f"{name} cannot be traced: {where}: control flow must not depend on data; decide with torch.where instead"
        ) from None
    except (Exception, SystemExit) as error:
        raise TraceError(f"{name} cannot be traced: {describe(error)}") from None
    return _Reader(module, program, name).graph()


def describe(error: BaseException) -> str:
    """Return an exception of the user's code in one line: file, line, kind and the first line of its text."""
    text = next((line.strip() for line in str(error).splitlines() if line.strip()), "no message")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if _is_users(frame.filename)]
    where = f"{frames[-1].filename}:{frames[-1].lineno}: " if frames else ""
    if isinstance(error, SyntaxError):
        where, text = f"{error.filename}:{error.lineno}: ", error.msg
    return f"{where}{type(error).__name__}: {text}"


def _is_users(filename: str) -> bool:
    return not filename.startswith((*_PACKAGES, "<", str(Path(logging.__file__).parents[1])))


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep torch's own warnings and logs off the terminal: what is wrong is said in the one error."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(), redirect_stderr(StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


class _Reader:
    """Numbers the nodes of an exported program and writes down its calls."""

    def __init__(self, module: torch.nn.Module, program: torch.export.ExportedProgram, name: str) -> None:
        self.name = name
        self.program = program
        self.leaves = {path for path, child in module.named_modules() if not any(True for _ in child.children())}
        self.known = _parameters(module)
        self.refs: dict[torch.fx.Node, Any] = {}
        self.ids = 0
        self.calls: list[Call] = []
        self.dynamic: dict[str, Counter[str]] = {}

    def graph(self) -> Graph:
        """Return the whole program as records."""
        inputs, parameters, constants = self._placeholders()
        if not inputs:
            raise TraceError(f"{self.name} must take a tensor as input; give example inputs")
        shape = next(iter(inputs.values()))[1].shape
        if not shape:
            raise TraceError(f"{self.name}: the first input must have a batch as its first dimension, not be a scalar")
        if not shape[0]:
            raise TraceError(f"{self.name}: the first input must have 1 or more samples, not 0")
        body = [node for node in self.program.graph.nodes if node.op != "placeholder"]
        self._read(body, grad=True)
        if self.dynamic:
            raise UnsupportedOpError(
                f"{self.name}: sizes must not depend on data, but do after {list_sites(self.dynamic)}; use fixed sizes"
            )
        outputs = self._outputs()
        return Graph(self.name, shape[0], inputs, parameters, constants, drop_dead(self.calls, outputs), outputs)

    def _placeholders(self) -> tuple[dict[int, tuple[str, Tensor]], dict[int, tuple[Parameter, Tensor]], dict[int, Tensor]]:
        inputs: dict[int, tuple[str, Tensor]] = {}
        parameters: dict[int, tuple[Parameter, Tensor]] = {}
        constants: dict[int, Tensor] = {}
        nodes = [node for node in self.program.graph.nodes if node.op == "placeholder"]
        for node, spec in zip(nodes, self.program.graph_signature.input_specs, strict=True):
            number = self._number(node)
            if not isinstance(spec.arg, TensorArgument):
                self.refs[node] = None
            elif spec.kind is InputKind.PARAMETER:
                parameters[number] = (self.known[str(spec.target)], _tensor(node.meta["val"]))
            elif spec.kind is InputKind.USER_INPUT:
                inputs[number] = (node.name, _tensor(node.meta["val"]))
            else:
                constants[number] = _tensor(node.meta["val"])
        return inputs, parameters, constants

    def _outputs(self) -> tuple[Ref, ...]:
        """Return the results that the user gets; buffers that the module writes are none."""
        node = next(node for node in self.program.graph.nodes if node.op == "output")
        specs = self.program.graph_signature.output_specs
        pairs = zip(node.args[0], specs, strict=True)
        found = [self._plain(arg) for arg, spec in pairs if spec.kind in (OutputKind.USER_OUTPUT, OutputKind.LOSS_OUTPUT)]
        return tuple(ref for ref in found if isinstance(ref, Ref))

    def _read(self, nodes: list[torch.fx.Node], grad: bool) -> None:
        for node in nodes:
            if node.op != "call_function":
                continue
            if str(node.target) in _INLINED:
                self._inline(node, grad)
            elif node.target is operator.getitem and isinstance(self._plain(node.args[0]), tuple):
                self.refs[node] = self._plain(node.args[0])[node.args[1]]
            else:
                self._call(node, grad)

    def _inline(self, node: torch.fx.Node, grad: bool) -> None:
        """Read the body of a region that switches gradients or autocast."""
        at = next(index for index, arg in enumerate(node.args) if isinstance(arg, torch.fx.Node) and arg.op == "get_attr")
        body: Any = node.graph.owning_module
        for part in str(node.args[at].target).split("."):
            body = getattr(body, part)
        inner = list(body.graph.nodes)
        holes = [inside for inside in inner if inside.op == "placeholder"]
        for hole, outer in zip(holes, node.args[at + 1 :], strict=True):
            self.refs[hole] = self._plain(outer)
        if str(node.target) == "wrap_with_set_grad_enabled":
            grad = bool(node.args[0])
        self._read(inner, grad)
        self.refs[node] = self._plain(next(inside for inside in inner if inside.op == "output").args[0])

    def _call(self, node: torch.fx.Node, grad: bool) -> None:
        target = node.target
        name, args, mutates = str(getattr(target, "__name__", target)), self._positional(node), None
        if isinstance(target, torch._ops.OpOverload):
            name, args, mutates = self._by_schema(node, target)
        value, site = node.meta.get("val"), self._site(node)
        many = isinstance(value, tuple | list)
        out = tuple(self._result(item, name, site) for item in (value if many else (value,)))
        self.calls.append(Call(self._number(node), name, args, out, many, site, grad, mutates))

    def _by_schema(self, node: torch.fx.Node, target: torch._ops.OpOverload) -> tuple[str, dict[str, Any], Ref | None]:
        schema = target._schema
        space, _, name = schema.name.partition("::")
        args = {
            argument.name: self._plain(
                node.args[index]
                if index < len(node.args)
                else node.kwargs.get(argument.name, argument.default_value if argument.has_default_value() else None)
            )
            for index, argument in enumerate(schema.arguments)
        }
        written = [argument.name for argument in schema.arguments if argument.alias_info and argument.alias_info.is_write]
        mutates = args[written[0]] if written else None
        if written and not name.startswith("_"):
            name = name.removesuffix("_")
        return (name if space == "aten" else f"{space}.{name}"), args, mutates if isinstance(mutates, Ref) else None

    def _positional(self, node: torch.fx.Node) -> dict[str, Any]:
        return {str(index): self._plain(arg) for index, arg in enumerate(node.args)} | {
            name: self._plain(arg) for name, arg in node.kwargs.items()
        }

    def _result(self, value: Any, name: str, site: Site) -> Tensor | None:
        if isinstance(value, torch.Tensor) and all(isinstance(size, int) for size in value.shape):
            return _tensor(value)
        if isinstance(value, torch.Tensor) or name == "item":
            self.dynamic.setdefault(name, Counter())[site.path or self.name] += 1
            return Tensor(())
        return None

    def _site(self, node: torch.fx.Node) -> Site:
        stack = node.meta.get("nn_module_stack")
        if not stack:
            return Site("", "", leaf="" in self.leaves)
        run, (path, _) = list(stack.items())[-1]
        path = re.sub(r"@\d+", "", path)
        return Site(path, str(run), path in self.leaves)

    def _number(self, node: torch.fx.Node) -> int:
        self.ids += 1
        self.refs[node] = Ref(self.ids)
        return self.ids

    def _plain(self, value: Any) -> Any:
        """Return an argument without anything of torch in it."""
        if isinstance(value, torch.fx.Node):
            return self.refs.get(value)
        if isinstance(value, list | tuple):
            return tuple(self._plain(item) for item in value)
        if value is None or isinstance(value, bool | int | float | str):
            return value
        return str(value)


def _tensor(value: torch.Tensor) -> Tensor:
    return Tensor(tuple(int(size) for size in value.shape), value.is_floating_point() or value.is_complex())


def _parameters(module: torch.nn.Module) -> dict[str, Parameter]:
    """Return the parameter behind each name; names of one tensor give one record."""
    names: dict[int, list[str]] = {}
    tensors = {}
    for name, parameter in module.named_parameters(remove_duplicate=False):
        names.setdefault(id(parameter), []).append(name)
        tensors[id(parameter)] = parameter
    records = {key: Parameter(tuple(found), tensors[key].numel(), tensors[key].requires_grad) for key, found in names.items()}
    return {name: records[key] for key, found in names.items() for name in found}
