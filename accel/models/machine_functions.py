"""Which function of torch is which on the machine: tables by torch's names."""

from __future__ import annotations

from functools import partial
from typing import Any

from accel.models import machine_layers as layers
from accel.models import machine_rules as rules


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


def _sub_from(input: Any, other: Any, alpha: float = 1) -> Any:
    return rules.sub(other, input, alpha)


def _by_dims(name: str, rule: rules.Rule) -> dict[str, rules.Rule]:
    return {f"{name}{dims}d": partial(rule, dims=dims) for dims in (1, 2, 3)}


RULES: dict[str, rules.Rule] = {
    **{name: rules.unary(name) for name in _words("silu sigmoid tanh exp sqrt reciprocal rsqrt log erf abs square")},
    "relu": rules.relu,
    "relu6": lambda input: rules.hardtanh(input, 0.0, 6.0),
    "hardtanh": rules.hardtanh,
    "gelu": rules.gelu,
    "pow": rules.pow,
    "__pow__": rules.pow,
    "dropout": rules.dropout,
    "add": rules.add,
    "sub": rules.sub,
    "subtract": rules.sub,
    "rsub": _sub_from,
    "__rsub__": _sub_from,
    "mul": rules.mul,
    "multiply": rules.mul,
    "div": rules.div,
    "true_divide": rules.div,
    "neg": lambda input: rules.mul(input, -1),
    **dict.fromkeys(("expand", "broadcast_to"), rules.broadcast),
    "expand_as": rules.broadcast_as,
    "mean": partial(rules.reduce, is_mean=True),
    "sum": partial(rules.reduce, is_mean=False),
    "softmax": partial(rules.softmax, is_log=False),
    "log_softmax": partial(rules.softmax, is_log=True),
    "batch_norm": layers.batch_norm,
    "group_norm": layers.group_norm,
    "layer_norm": layers.layer_norm,
    "rms_norm": layers.rms_norm,
    **_by_dims("max_pool", layers.max_pool),
    **_by_dims("avg_pool", layers.avg_pool),
    **_by_dims("adaptive_avg_pool", layers.adaptive_avg_pool),
    "interpolate": layers.interpolate,
    **dict.fromkeys(("matmul", "bmm", "__matmul__"), rules.matmul),
    "scaled_dot_product_attention": layers.scaled_dot_product_attention,
    "embedding": layers.embedding,
    "cross_entropy": layers.cross_entropy,
    "mse_loss": layers.mse_loss,
    "pad": rules.pad,
    **dict.fromkeys(("cat", "concat", "concatenate"), rules.cat),
    "stack": rules.stack,
    **dict.fromkeys(("float", "half", "double", "type_as", "contiguous", "clone", "cpu"), rules.same),
}
"""The rule of each function, by its name in torch."""

VIEWS = _words(
    """
    chunk flatten flip hsplit movedim moveaxis narrow permute ravel reshape roll select split split_with_sizes squeeze swapaxes
    swapdims t tensor_split transpose unbind unflatten unsqueeze view view_as reshape_as vsplit __getitem__ T mT
    """
)
"""Functions that only name the elements anew, none of them twice."""

QUESTIONS = _words(
    """
    __bool__ __contains__ __eq__ __float__ __format__ __ge__ __gt__ __int__ __le__ __len__ __lt__ __ne__ __repr__ __array__
    all allclose any argmax argmin argsort backward data_ptr dim element_size eq equal ge get_device gt is_complex
    is_contiguous is_floating_point isfinite isinf isnan item le logical_not lt ndimension ne nelement numel numpy size stride
    storage_offset tolist bool int long ones_like zeros_like empty_like full_like rand_like randn_like new_ones new_zeros
    new_empty new_full new_tensor is_same_size
    """
)
"""Functions whose result is no number of the machine: torch answers them."""
