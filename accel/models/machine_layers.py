"""Functions of torch behind its layers, each as an operator of the machine: norms, pooling, attention, embeddings, losses."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import torch
from torch import Tensor

from accel.golden.vector import norms, pooling
from accel.models import machine_operations as operations
from accel.models.machine_attention import attention
from accel.models.machine_operands import THREADS, half, single, value_of
from accel.models.machine_operations import unsupported
from accel.models.machine_values import Operation, Value, run


def batch_norm(
    input: Any,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Any = None,
    bias: Any = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Value:
    """Return batch norm, and bring the running statistics up to date."""
    value = half(input)
    channels = value.stored.shape[1]
    affine = single(weight, channels, 1), single(bias, channels, 0)
    running = None
    if running_mean is not None and running_var is not None:
        running = running_mean.cpu().numpy(), running_var.cpu().numpy()
    if not training and running is not None:
        return run(operations.fixed_batch_norm(norms.fixed_statistics(*running, eps)), value, *affine)

    def note(stats: norms.Statistics, rows: int) -> None:
        if running is not None:
            new = norms.update_running(*running, stats, rows, momentum)
            with torch.no_grad():
                for old, array in zip((running_mean, running_var), new, strict=True):
                    old.copy_(torch.from_numpy(array))  # type: ignore[union-attr]

    return run(operations.batch_norm(eps, note), value, *affine)


def group_norm(input: Any, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Value:
    """Return group norm."""
    value = half(input)
    channels = value.stored.shape[1]
    return run(operations.group_norm(num_groups, eps), value, single(weight, channels, 1), single(bias, channels, 0))


def layer_norm(input: Any, normalized_shape: Sequence[int], weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Value:
    """Return layer norm."""
    affine = [(weight, 1.0), (bias, 0.0)]
    return _along_rows(operations.layer_norm(eps), input, normalized_shape, affine)


def rms_norm(input: Any, normalized_shape: Sequence[int], weight: Any = None, eps: float | None = None) -> Value:
    """Return RMS norm."""
    chosen = torch.finfo(torch.float32).eps if eps is None else eps
    return _along_rows(operations.rms_norm(chosen), input, normalized_shape, [(weight, 1.0)])


def _along_rows(operation: Operation, input: Any, sizes: Sequence[int], affine: list[tuple[Any, float]]) -> Value:
    """Return a norm over the last axes of those sizes."""
    value, dims = half(input), len(sizes)
    flat = value.moved(lambda x: x.flatten(-dims))
    factors = [single(x, prod(sizes), fill).moved(torch.flatten) for x, fill in affine]
    return run(operation, flat, *factors).moved(lambda x: x.unflatten(-1, tuple(sizes)))


def max_pool(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
    *,
    dims: int,
) -> Value:
    """Return max pooling."""
    if return_indices:
        raise unsupported("max_pool with return_indices")
    value = half(input)
    windows = _sliding(value, dims, kernel_size, stride, padding, dilation, ceil_mode)
    return run(operations.max_pool(windows), value)


def avg_pool(
    input: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
    *,
    dims: int,
) -> Value:
    """Return average pooling."""
    if divisor_override is not None:
        raise unsupported("avg_pool with divisor_override")
    value = half(input)
    windows = _sliding(value, dims, kernel_size, stride, padding, 1, ceil_mode)
    return run(operations.avg_pool(windows, count_include_pad), value)


def _sliding(value: Value, dims: int, kernel: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool) -> Any:
    sizes = _pixels(value, dims)
    steps = kernel if stride is None or stride == [] else stride
    spread = [[x] * dims if isinstance(x, int) else [*x] for x in (kernel, steps, padding, dilation)]
    kernels, strides, paddings, dilations = (part * dims if len(part) < dims else part for part in spread)
    return pooling.sliding(sizes, kernels, strides, paddings, dilations, ceil_mode)


def adaptive_avg_pool(input: Any, output_size: Any, *, dims: int) -> Value:
    """Return adaptive average pooling."""
    value = half(input)
    sizes = _pixels(value, dims)
    wanted = [output_size] * dims if isinstance(output_size, int) else output_size
    outputs = [size if number is None else number for size, number in zip(sizes, wanted, strict=True)]
    return run(operations.avg_pool(pooling.adaptive(sizes, outputs)), value)


def interpolate(input: Any, size: Any = None, scale_factor: Any = None, mode: str = "nearest", **others: Any) -> Value:
    """Return interpolation to the nearest input."""
    if mode != "nearest":
        raise unsupported(f"interpolate with mode {mode!r}")
    value = half(input)
    sizes = _pixels(value, value.stored.dim() - 2)
    wanted = size if scale_factor is None else scale_factor
    each = [*wanted] if isinstance(wanted, Sequence) else [wanted] * len(sizes)
    outputs = each if scale_factor is None else [pixels * factor for pixels, factor in zip(sizes, each, strict=True)]
    if any(number != int(number) for number in outputs):
        raise unsupported("interpolate to a size that is not a whole multiple")
    return run(operations.interpolate(pooling.nearest(sizes, [int(number) for number in outputs])), value)


def _pixels(value: Value, dims: int) -> tuple[int, ...]:
    if value.stored.dim() != dims + 2:
        raise unsupported(f"pooling over {dims} dimensions of a tensor with {value.stored.dim()}; give it a batch")
    return tuple(value.stored.shape[2:])


def scaled_dot_product_attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    """Return attention."""
    if dropout_p:
        raise unsupported("scaled_dot_product_attention with dropout")
    operands = [half(x) for x in (query, key, value)]
    kept = _kept(attn_mask)
    if is_causal:
        kept = np.tri(operands[0].stored.shape[-2], operands[1].stored.shape[-2], dtype=np.bool_)
    return run(attention(kept, scale, THREADS.get()), *operands)


def _kept(mask: Any) -> Any:
    """Return which keys a mask keeps: where it is true, or 0 and not -inf."""
    if mask is None:
        return None
    if isinstance(mask, Value):
        if mask.has_grad:
            raise unsupported("scaled_dot_product_attention with a mask that is trained")
        mask = mask.stored
    if mask.dtype == torch.bool:
        return mask.cpu().numpy()
    if not ((mask == 0) | (mask == -torch.inf)).all():
        raise unsupported("scaled_dot_product_attention with a mask of other numbers than 0 and -inf")
    return (mask == 0).cpu().numpy()


def embedding(
    input: Tensor,
    weight: Any,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Value:
    """Return rows of a table."""
    if max_norm is not None or scale_grad_by_freq:
        raise unsupported("embedding with max_norm or scale_grad_by_freq")
    return run(operations.embedding(input.cpu().numpy(), padding_idx), value_of(weight))


def cross_entropy(
    input: Any,
    target: Tensor,
    weight: Any = None,
    size_average: Any = None,
    ignore_index: int = -100,
    reduce: Any = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Value:
    """Return the mean cross entropy, FP32."""
    value = half(input)
    if weight is not None or reduction != "mean" or value.stored.dim() < 2 or not _are_labels(target):
        raise unsupported("cross_entropy but with labels, a batch, the mean and no weights")
    return run(operations.cross_entropy(target.cpu().numpy(), label_smoothing), value)


def _are_labels(target: Any) -> bool:
    return isinstance(target, Tensor) and not target.is_floating_point()


def mse_loss(
    input: Any, target: Any, size_average: Any = None, reduce: Any = None, reduction: str = "mean", weight: Any = None
) -> Value:
    """Return the mean squared error, FP32."""
    left, right = half(input), half(target)
    if weight is not None or reduction != "mean" or left.stored.shape != right.stored.shape:
        raise unsupported("mse_loss but with the mean, no weights and a target of the input's shape")
    return run(operations.MSE_LOSS, left, right)
