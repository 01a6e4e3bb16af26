"""How the elements of a torch tensor lie in the tensor that a layer stores: kept through reshapes and permutations.

A layer stores its result channels last, torch has images channels first; between two layers a network may flatten, transpose
and split dimensions. A `Layout` says for each dimension of the torch tensor which digits, (size, step) from the outermost on,
its index has in the stored tensor. What is not a whole tensor in some order has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod

from accel.models.records import Call, Graph, Ref, Shape

Dim = tuple[tuple[int, int], ...]
Layout = tuple[Dim, ...]


def row_major(shape: Shape) -> Layout:
    """Return the layout of a tensor that is stored as torch has it."""
    steps = [prod(shape[dim + 1 :]) for dim in range(len(shape))]
    return _clean(tuple(((size, step),) for size, step in zip(shape, steps, strict=True)))


def channels_last(shape: Shape) -> Layout:
    """Return the layout of (batch, channels, pixels...) that is stored with its channels last."""
    if len(shape) < 2:
        return row_major(shape)
    batch, channels, *pixels = shape
    stored = row_major((batch, *pixels, channels))
    return (stored[0], stored[-1], *stored[1:-1])


def heads_last(shape: Shape) -> Layout:
    """Return the layout of (batch, heads, tokens, features) that is stored as (batch, tokens, heads times features)."""
    batch, heads, tokens, features = shape
    stored = row_major((batch, tokens, heads, features))
    return (stored[0], stored[2], stored[1], stored[3])


def image_of(shape: Shape) -> Shape:
    """Return (pixels..., channels), as an image (batch, channels, pixels...) is stored sample by sample."""
    return (*shape[2:], shape[1])


_IMAGE_READERS = ("conv", "max_pool", "avg_pool", "adaptive_", "batch_norm", "group_norm")


def input_layout(graph: Graph, number: int, shape: Shape) -> Layout:
    """Return how an input of the network is given: as its readers want it, images channels last and heads side by side."""
    readers = [call for call in graph.calls if Ref(number) in call.refs]
    if len(shape) > 2 and any(call.op.startswith(_IMAGE_READERS) for call in readers):
        return channels_last(shape)
    if len(shape) == 4 and readers and all(call.op == "scaled_dot_product_attention" for call in readers):
        return heads_last(shape)
    return row_major(shape)


def permuted(layout: Layout, order: Sequence[int]) -> Layout:
    """Return the layout with dimensions in another order."""
    return tuple(layout[dim] for dim in order)


def reshaped(layout: Layout, shape: Shape) -> Layout | None:
    """Return the layout as a tensor of `shape`, if no dimension of it ends inside a digit that cannot be split there."""
    digits = list(_joined([digit for dim in layout for digit in dim]))
    found = []
    for size in shape:
        dim: list[tuple[int, int]] = []
        while size > 1 and digits:
            count, step = digits.pop(0)
            if size % count == 0:
                dim.append((count, step))
                size //= count
            elif count % size == 0:
                dim.append((size, step * (count // size)))
                digits.insert(0, (count // size, step))
                size = 1
            else:
                return None
        found.append(tuple(dim))
    return _clean(tuple(found))


def stored_axes(layout: Layout) -> list[tuple[int, int, int]]:
    """Return the digits as (size, step, dimension), the slowest first: the axes of the stored tensor."""
    digits = [(size, step, number) for number, dim in enumerate(layout) for size, step in dim]
    return sorted(digits, key=lambda digit: -digit[1])


def without(layout: Layout, dims: Sequence[int], keeps: bool) -> Layout:
    """Return the layout of a result that has lost `dims`, the others stored in their order; `keeps`: they have one element."""
    steps, step = {}, 1
    for size, old, number in reversed(stored_axes(layout)):
        if number not in dims:
            steps[number, old] = step
            step *= size
    rest = tuple(
        () if number in dims else tuple((size, steps[number, old]) for size, old in dim)
        for number, dim in enumerate(layout)
        if keeps or number not in dims
    )
    return _clean(rest)


_RESHAPES = frozenset(
    ("view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "_unsafe_view", "view_as", "reshape_as", "ravel")
)
_COPIES = frozenset(("contiguous", "alias", "clone", "detach", "to", "_to_copy", "lift_fresh_copy", "positive", "dropout"))


def moved_like(call: Call, shape: Shape, layout: Layout | None, out: Shape) -> Layout | None:
    """Return the layout of a result that is a whole tensor of `shape` renamed or reordered, None if it is something else."""
    if layout is None:
        return None
    if call.op in _RESHAPES:
        return reshaped(layout, out)
    if call.op in _COPIES:
        return layout if out == shape else None
    order = list(range(len(shape)))
    if call.op == "permute":
        order = [dim % len(shape) for dim in call.args["dims"]]
    elif call.op in ("transpose", "swapaxes", "swapdims"):
        names = ("axis0", "axis1") if call.op == "swapaxes" else ("dim0", "dim1")
        first, second = (call.args[name] % len(shape) for name in names)
        order[first], order[second] = order[second], order[first]
    elif call.op in ("t", "mT", "numpy_T"):
        order[-2:] = order[:-3:-1]
    else:
        return None
    return permuted(layout, order)


def _clean(layout: Layout) -> Layout:
    """Return the layout without digits of one element, and with digits that are one number as one."""
    return tuple(_joined([digit for digit in dim if digit[0] > 1]) for dim in layout)


def _joined(digits: list[tuple[int, int]]) -> Dim:
    found: list[tuple[int, int]] = []
    for size, step in digits:
        if found and found[-1][1] == size * step:
            found[-1] = (found[-1][0] * size, step)
        else:
            found.append((size, step))
    return tuple(found)
