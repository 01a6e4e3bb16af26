"""Pruning with loops: one group at a time, one element at a time."""

import numpy as np


def prune_naive(matrix, keep, group, k_taps):
    """Return a list over columns of lists over groups of `keep` entries (index, value bits) or None where nothing is left."""
    dim_k, dim_n = matrix.shape
    k_inner = dim_k // k_taps
    columns = []
    for column in range(dim_n):
        groups = []
        for tap in range(k_taps):
            for start in range(0, k_inner, group):
                length = min(group, k_inner - start)
                elements = [int(matrix[tap * k_inner + start + i, column].view(np.uint16)) for i in range(length)]
                groups.append(keep_largest(elements, keep))
        columns.append(groups)
    return columns


def keep_largest(elements, keep):
    """Return the `keep` entries (index, bits) of one group of FP16 bit patterns, padded with None."""
    left = list(range(len(elements)))
    chosen = []
    while left and len(chosen) < keep:
        best = left[0]
        for i in left:
            if elements[i] & 0x7FFF > elements[best] & 0x7FFF:
                best = i
        chosen.append(best)
        left.remove(best)
    entries = [(i, elements[i]) for i in sorted(chosen)]
    return entries + [None] * (keep - len(entries))
