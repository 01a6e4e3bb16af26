"""Every function of torch that a module on the machine calls, led to its rule; everything else stays torch's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from accel.errors import ConfigError
from accel.models import machine_operations as operations
from accel.models.layers import is_sparse
from accel.models.machine_functions import QUESTIONS, RULES, VIEWS
from accel.models.machine_operands import THREADS, value_of
from accel.models.machine_operations import unsupported
from accel.models.machine_values import Value, activation, parameter, run

_is_inside: ContextVar[bool] = ContextVar("is_inside", default=False)


class MachineTensor(torch.Tensor):
    """A tensor on the machine as PyTorch sees it: float32, with the machine's numbers; functions of it are the machine's.

    `detach` outside of the module gives torch's own tensor back.
    """

    value: Value

    @classmethod
    def __torch_function__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {}, leaves=not _is_inside.get())


class _Mode(TorchFunctionMode):
    """Leads functions that read parameters, and no tensor of the machine yet, to the machine, too."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _dispatch(func, args, kwargs or {}, leaves=False)


def call(module: Any, threads: int | None, *args: Any, **kwargs: Any) -> Any:
    """Return what `module` computes, on the machine; tensors of floating point that it is given are rounded to FP16."""
    if _is_inside.get():
        return _forward(module, *args, **kwargs)
    with _inside(threads):
        given = _each_tensor(args, _enter), _each_tensor(kwargs, _enter)
        return _forward(module, *given[0], **given[1])


def _forward(module: Any, *args: Any, **kwargs: Any) -> Any:
    return (_call_weight_layer if is_sparse(module) else type(module).forward)(module, *args, **kwargs)


@contextmanager
def _inside(threads: int | None) -> Iterator[None]:
    inside, count = _is_inside.set(True), THREADS.set(threads)
    try:
        with _Mode():
            yield
    finally:
        _is_inside.reset(inside)
        THREADS.reset(count)


def _call_weight_layer(layer: Any, input: Tensor) -> Tensor:
    """Return the product on the array, rounded to FP16, plus the bias, rounded again."""
    with torch._C.DisableTorchFunction():
        if layer.training:
            layer.sparse.count(layer.weight)
        x = value_of(input.value if isinstance(input, MachineTensor) else input)
        out = activation(_product(layer, x.read()))
        if layer.bias is not None:
            operation = operations.BIAS_ADD_LAST if isinstance(layer, nn.Linear) else operations.BIAS_ADD
            out = run(operation, out, parameter(layer.bias))
        return _shell(out)


def _product(layer: Any, x: Tensor) -> Tensor:
    if isinstance(layer, nn.Linear):
        return layer.sparse.product(x, layer.weight, layer.site())
    if layer.padding_mode != "zeros":
        raise unsupported(f"a convolution with padding_mode {layer.padding_mode!r}")
    if x.dim() != layer.weight.dim():
        raise ConfigError(f"input must have a batch and {layer.weight.dim()} dimensions in all, not {x.dim()}; unsqueeze it")
    if isinstance(layer.padding, str):
        x = functional.pad(x, layer._reversed_padding_repeated_twice)
    return layer.sparse.product(x, layer.weight, layer.site())


def _enter(tensor: Tensor) -> Tensor:
    is_number = tensor.is_floating_point() and not isinstance(tensor, MachineTensor | nn.Parameter)
    return _shell(activation(tensor)) if is_number else tensor


def _shell(value: Value) -> MachineTensor:
    tensor: MachineTensor = value.read().as_subclass(MachineTensor)
    tensor.value = value
    return tensor


def _dispatch(func: Any, args: Any, kwargs: dict[str, Any], leaves: bool) -> Any:
    if not any(_is_on_machine(tensor) for tensor in _tensors([args, kwargs])):
        return func(*args, **kwargs)
    with torch._C.DisableTorchFunctionSubclass():
        name = func.__self__.__name__ if func.__name__ == "__get__" else func.__name__
        if func.__name__ == "__get__" and name not in VIEWS:
            return func(*args, **kwargs)
        if name in QUESTIONS:
            return func(*_each_tensor(args, _plain), **_each_tensor(kwargs, _plain))
        if name == "detach":
            tensor = args[0]
            is_ours = isinstance(tensor, MachineTensor) and not leaves
            return _shell(tensor.value.detached()) if is_ours else _plain(tensor).detach()
        if name == "__iter__":
            return iter(_compute(torch.unbind, "unbind", args, {}))
        if name == "to":
            return _convert(args, kwargs)
        return _compute(func, name, args, dict(kwargs))


def _convert(args: Any, kwargs: dict[str, Any]) -> Any:
    """Return the tensor itself in another floating type or elsewhere, torch's own in another one."""
    plain = _plain(args[0]).to(*args[1:], **kwargs)
    return _shell(value_of(_value(args[0]))) if plain.is_floating_point() else plain


def _compute(func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
    writes = name.endswith("_") and not name.endswith("__")
    name = name.rstrip("_") if writes else name
    writes |= bool(kwargs.pop("inplace", False))
    values = _each_tensor(args, _value)
    if name in VIEWS and not writes:
        return _each(_view(func, name, value_of(values[0]), values[1:], kwargs), _shell)
    if name not in RULES:
        raise unsupported(name)
    result = RULES[name](*values, **_each_tensor(kwargs, _value))
    return _overwritten(args[0], result) if writes else _shell(result)


def _overwritten(tensor: Any, result: Value) -> Tensor:
    """Return `tensor` as the result of an operator that wrote into it; other names for what it was cannot be read any more."""
    if not isinstance(tensor, MachineTensor):
        raise ConfigError("a tensor written into must be on the machine, not torch's; write x = x + y")
    if result.origin is not tensor.value.origin:
        tensor.value.overwrite()
    tensor.value = result
    tensor.data = result.stored.float()
    return _shell(result)


def _view(func: Any, name: str, value: Value, args: Any, kwargs: dict[str, Any]) -> Any:
    if name in ("view_as", "reshape_as"):
        func, args = torch.reshape, (value_of(args[0]).stored.shape,)
    if not _names_elements_once(args):
        raise unsupported(f"{name} with a tensor, a list or a type")
    if func.__name__ == "__get__":
        return value.moved(lambda x: func(x))
    found = func(value.stored, *args, **kwargs)
    if isinstance(found, Tensor):
        return value.moved(lambda x: func(x, *args, **kwargs))
    return tuple(value.moved(_piece(func, args, kwargs, number)) for number in range(len(found)))


def _piece(func: Any, args: Any, kwargs: dict[str, Any], number: int) -> Callable[[Tensor], Tensor]:
    return lambda x: func(x, *args, **kwargs)[number]


def _names_elements_once(args: Any) -> bool:
    """Whether a view's arguments are numbers, slices and sizes, not an index that may name an element twice, nor a type."""
    is_list = args and isinstance(args[0], tuple) and any(isinstance(x, list) for x in args[0])
    return not is_list and not any(isinstance(x, Tensor | Value | torch.dtype) for x in _leaves(args))


def _value(tensor: Tensor) -> Any:
    if isinstance(tensor, MachineTensor):
        return tensor.value
    return value_of(tensor) if _is_on_machine(tensor) else tensor


def _plain(tensor: Tensor) -> Tensor:
    """Return a tensor as torch's own, its gradient included."""
    plain: Tensor = tensor.as_subclass(Tensor)
    return plain


def _is_on_machine(tensor: Tensor) -> bool:
    return isinstance(tensor, MachineTensor) or (tensor.requires_grad and tensor.is_floating_point())


def _tensors(tree: Any) -> Iterable[Tensor]:
    return (leaf for leaf in _leaves(tree) if isinstance(leaf, Tensor))


def _leaves(tree: Any) -> Iterator[Any]:
    if isinstance(tree, dict):
        tree = [*tree.values()]
    if isinstance(tree, list | tuple):
        for part in tree:
            yield from _leaves(part)
    else:
        yield tree


def _each_tensor(tree: Any, function: Callable[[Tensor], Any]) -> Any:
    return _each(tree, lambda leaf: function(leaf) if isinstance(leaf, Tensor) else leaf)


def _each(tree: Any, function: Callable[[Any], Any]) -> Any:
    """Return nested containers with `function` of everything in them."""
    if isinstance(tree, dict):
        return {name: _each(part, function) for name, part in tree.items()}
    if isinstance(tree, list | tuple) and not isinstance(tree, torch.Size):
        return type(tree)(_each(part, function) for part in tree) if not hasattr(tree, "_fields") else tree
    return function(tree)
