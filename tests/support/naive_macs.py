"""Multiply-accumulates of a layer in each stage, counted one output, one tap and one channel at a time."""

from collections import namedtuple
from itertools import product

Work = namedtuple("Work", "nominal dense useful")
"""What frameworks count, what runs, what is left of it when the reduction follows a pattern."""


def kept(elems, pattern):
    """Return how many of `elems` elements survive: at most `keep` in each group, the last one perhaps short."""
    survivors = 0
    for index in range(elems):
        if index % pattern.group == 0:
            left = pattern.keep
        if left:
            left -= 1
            survivors += 1
    return survivors


def conv_macs(conv, batch, stage, pattern):
    """Return the work of a convolution in stage "FF", "BP" or "WU", its reduction following `pattern`."""
    channels_in, channels_out = conv.in_channels // conv.groups, conv.out_channels // conv.groups
    large, small = (conv.out_size, conv.in_size) if conv.transposed else (conv.in_size, conv.out_size)
    nominal = 0
    for _ in product(range(batch), range(conv.groups), grid(small), grid(conv.kernel), range(channels_out)):
        nominal += channels_in
    if stage == "WU":
        dense = useful = 0
        for _ in product(range(conv.groups), grid(conv.kernel), range(channels_in), range(channels_out)):
            terms = sum(1 for _ in product(range(batch), grid(small)))
            dense += terms
            useful += kept(terms, pattern)
        return Work(nominal, dense, useful)
    inner, outer = (channels_in, channels_out) if stage == "FF" else (channels_out, channels_in)
    gathers = (stage == "FF") != conv.transposed
    dense = useful = 0
    for _, _, pixel, tap in product(range(batch), range(conv.groups), grid(small if gathers else large), grid(conv.kernel)):
        if not gathers and not meets(conv, pixel, tap):
            continue
        for _ in range(outer):
            dense += inner
            useful += kept(inner, pattern)
    return Work(nominal, dense, useful)


def grid(sizes):
    """Return every position of a grid."""
    return list(product(*(range(size) for size in sizes)))


def meets(conv, pixel, tap):
    """Return whether `tap` of some position of the small grid, padding beyond its end included, falls on `pixel`."""
    return all(
        (at + pad - offset * dil) % step == 0
        for at, offset, step, pad, dil in zip(pixel, tap, conv.stride, conv.padding, conv.dilation, strict=True)
    )


def linear_macs(linear, batch, stage, pattern):
    """Return the work of a linear layer in stage "FF", "BP" or "WU", its reduction following `pattern`."""
    rows = batch * linear.rows
    sizes = {
        "FF": (rows, linear.out_features, linear.in_features),
        "BP": (rows, linear.in_features, linear.out_features),
        "WU": (linear.in_features, linear.out_features, rows),
    }
    return product_macs(*sizes[stage], pattern)


def product_macs(rows, cols, terms, pattern):
    """Return the work of a plain matrix product."""
    dense = useful = 0
    for _ in product(range(rows), range(cols)):
        for _ in range(terms):
            dense += 1
        useful += kept(terms, pattern)
    return Work(dense, dense, useful)


def attention_macs(attention, batch, stage):
    """Return the multiply-accumulates of softmax(Q K^T) V or of its gradients: every query meets every key, masked or not."""
    macs = 0
    for _ in product(range(batch), range(attention.heads), range(attention.q_len), range(attention.kv_len)):
        macs += attention.head_dim  # scores (or the gradient of probabilities)
        macs += attention.head_dim  # context (or the gradient of values)
        if stage == "BP":
            macs += attention.head_dim  # gradient of queries
            macs += attention.head_dim  # gradient of keys
    return macs
