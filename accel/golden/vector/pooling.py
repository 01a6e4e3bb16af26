"""Pooling and interpolation over the pixels of (batch, pixels..., channels): each output looks at a window of inputs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import product
from math import prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from accel.errors import ConfigError
from accel.golden.numeric import Float16s, Float32s, to_fp16
from accel.golden.vector.arithmetic import add, divide, load

Places = NDArray[np.int64]


class Axis(NamedTuple):
    """The windows along one axis of pixels: of output o, `places[o]` are the inputs, tap by tap, -1 where there is none."""

    size: int
    """Inputs along the axis."""
    places: Places
    """(outputs, taps), ascending along taps."""
    padded: Places
    """Taps of each output that lie inside the input or its padding."""


Windows = Sequence[Axis]


def sliding(
    sizes: Sequence[int],
    kernel: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int] | None = None,
    ceil_mode: bool = False,
) -> list[Axis]:
    """Return the windows of a pooling over pixels of `sizes`; with `ceil_mode` the last one may reach beyond the padding."""
    spread = dilation or [1] * len(sizes)
    return [_slide(*axis, ceil_mode) for axis in zip(sizes, kernel, stride, padding, spread, strict=True)]


def adaptive(sizes: Sequence[int], outputs: Sequence[int]) -> list[Axis]:
    """Return windows from `floor(o size / outputs)` up to `ceil((o + 1) size / outputs)`; one output is a global pooling."""
    return [_share(size, number) for size, number in zip(sizes, outputs, strict=True)]


def nearest(sizes: Sequence[int], outputs: Sequence[int]) -> list[Axis]:
    """Return windows of one input: `floor(o size / outputs)`."""
    return [
        Axis(size, (np.arange(number) * size // number)[:, None], np.ones(number, np.int64))
        for size, number in zip(sizes, outputs, strict=True)
    ]


def max_pool(x: Float16s, windows: Windows) -> tuple[Float16s, NDArray[np.uint8]]:
    """Return the largest input of each window and its tap, row-major in the window.

    Taps are compared in ascending order; a later one is taken only if it is larger, or the first NaN. Padding takes no part.
    """
    taps = prod(axis.places.shape[1] for axis in windows)
    if taps > 256:
        raise ConfigError(f"windows must have at most 256 taps, not {taps}; the index has 8 bits")
    best = np.zeros(_out_shape(x, windows), np.float32)
    index, is_empty = np.zeros(best.shape, np.uint8), np.ones(best.shape, np.bool_)
    for tap, (values, is_there) in enumerate(_taps(load(x), windows)):
        wins = is_there & (is_empty | (values > best) | (np.isnan(values) & ~np.isnan(best)))
        best, index = np.where(wins, values, best), np.where(wins, np.uint8(tap), index)
        is_empty = is_empty & ~is_there
    return to_fp16(best), index


def max_pool_backward(dy: Float16s, index: NDArray[np.uint8], windows: Windows) -> Float16s:
    """Return dx: each input adds up the dy of the outputs that took it, in ascending order of outputs."""
    return to_fp16(_gather(load(dy), windows, index))


def avg_pool(x: Float16s, windows: Windows, count_padding: bool = True) -> Float16s:
    """Return `sum / n` of each window, taps in ascending order, n with or without those in the padding."""
    total = np.zeros(_out_shape(x, windows), np.float32)
    for values, is_there in _taps(load(x), windows):
        total = np.where(is_there, add(total, values), total)
    return to_fp16(divide(total, _divisors(windows, count_padding)))


def avg_pool_backward(dy: Float16s, windows: Windows, count_padding: bool = True) -> Float16s:
    """Return dx: each input adds up the FP32 `dy / n` of the windows it is in, in ascending order of outputs."""
    return to_fp16(_gather(divide(load(dy), _divisors(windows, count_padding)), windows))


def interpolate_nearest(x: Float16s, windows: Windows) -> Float16s:
    """Return the input of each window."""
    ((values, _),) = _taps(load(x), windows)
    return to_fp16(values)


def interpolate_nearest_backward(dy: Float16s, windows: Windows) -> Float16s:
    """Return dx: each input adds up the dy of the outputs that took it, in ascending order of outputs."""
    return to_fp16(_gather(load(dy), windows))


def _slide(size: int, kernel: int, stride: int, padding: int, dilation: int, ceil_mode: bool) -> Axis:
    if not 0 <= 2 * padding <= kernel:
        raise ConfigError(f"padding must be at least 0 and at most half the kernel ({kernel}), not {padding!r}")
    room = size + 2 * padding - dilation * (kernel - 1) - 1
    outputs = (room + (stride - 1) * ceil_mode) // stride + 1
    if ceil_mode and (outputs - 1) * stride >= size + padding:  # the last window would start beyond the input
        outputs -= 1
    starts = np.arange(outputs) * stride - padding
    places = starts[:, None] + np.arange(kernel) * dilation
    padded = (places < size + padding).sum(axis=1)
    return Axis(size, np.where((places >= 0) & (places < size), places, -1), padded)


def _share(size: int, outputs: int) -> Axis:
    number = np.arange(outputs)
    first, last = number * size // outputs, -(-(number + 1) * size // outputs)
    places = first[:, None] + np.arange((last - first).max())
    return Axis(size, np.where(places < last[:, None], places, -1), last - first)


def _out_shape(x: Float16s, windows: Windows) -> tuple[int, ...]:
    return (len(x), *(len(axis.places) for axis in windows), x.shape[-1])


def _taps(values: Float32s, windows: Windows) -> Iterator[tuple[Float32s, NDArray[np.bool_]]]:
    """Yield, tap by tap in row-major order, the input that each window has there, and where it has one."""
    for tap in product(*(range(axis.places.shape[1]) for axis in windows)):
        chosen = [axis.places[:, number] for axis, number in zip(windows, tap, strict=True)]
        yield values[_mesh(chosen)], _all_there(chosen)


def _gather(grad: Float32s, windows: Windows, index: NDArray[np.uint8] | None = None) -> Float32s:
    """Return what each input adds up, from +0, of the outputs whose windows hold it, in ascending order of outputs.

    With `index`, the tap that each output took, an output gives nothing to its window's other inputs.
    """
    readers = [_readers(axis) for axis in windows]
    total = np.zeros((len(grad), *(axis.size for axis in windows), grad.shape[-1]), np.float32)
    for turn in product(*(range(outputs.shape[1]) for outputs, _ in readers)):
        outputs, taps = zip(*((out[:, n], tap[:, n]) for (out, tap), n in zip(readers, turn, strict=True)), strict=True)
        is_there = _all_there(outputs)
        if index is not None:
            is_there = is_there & (index[_mesh(outputs)] == _window_tap(taps, windows))
        total = np.where(is_there, add(total, grad[_mesh(outputs)]), total)
    return total


def _window_tap(taps: Sequence[Places], windows: Windows) -> Places:
    """Return the row-major number in the window of `taps` along each axis, (pixels..., 1)."""
    number = np.zeros((1,) * len(windows), np.int64)
    for axis, along in zip(windows, np.ix_(*taps), strict=True):
        number = number * axis.places.shape[1] + along
    return number[..., None]


def _readers(axis: Axis) -> tuple[Places, Places]:
    """Return for each input of an axis the outputs that read it, ascending, and with which tap: (inputs, readers), -1: none."""
    outputs, taps = np.nonzero(axis.places >= 0)
    inputs = axis.places[outputs, taps]
    order = np.argsort(inputs, kind="stable")  # outputs ascend among equal inputs
    inputs, outputs, taps = inputs[order], outputs[order], taps[order]
    rank = np.arange(len(inputs)) - np.searchsorted(inputs, inputs)
    shape = (axis.size, int(rank.max()) + 1)
    readers, tap_of = np.full(shape, -1), np.zeros(shape, np.int64)
    readers[inputs, rank], tap_of[inputs, rank] = outputs, taps
    return readers, tap_of


def _mesh(chosen: Sequence[Places]) -> Any:
    """Return the index of (batch, pixels..., channels) that takes `chosen` along the axes of pixels; -1: anything."""
    return (slice(None), *np.ix_(*chosen))


def _all_there(chosen: Sequence[Places]) -> NDArray[np.bool_]:
    """Return where every axis has a place, (1, pixels..., 1)."""
    there = np.ones((1,) * len(chosen), np.bool_)
    for places in np.ix_(*chosen):
        there = there & (places >= 0)
    return there[None, ..., None]


def _divisors(windows: Windows, count_padding: bool) -> Float32s:
    """Return how many elements the mean of each window is over, (1, pixels..., 1)."""
    numbers = [axis.padded if count_padding else (axis.places >= 0).sum(axis=1) for axis in windows]
    total = np.ones((1,) * len(windows), np.int64)
    for axis in np.ix_(*numbers):
        total = total * axis
    return total.astype(np.float32)[None, ..., None]
