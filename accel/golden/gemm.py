"""The right answer of a matrix product: FP32 sums from +0, one step of k after the other."""

from __future__ import annotations

import numpy as np

from accel.golden.numeric import Float32s, Operands, arithmetic_of
from accel.golden.prune import Entries, prune, split_groups
from accel.sparsity import DENSE


def gemm(lhs: Operands, rhs: Entries | Operands) -> Float32s:
    """Return lhs (dim_m, dim_k) times rhs as FP32 (dim_m, dim_n); rhs is the entries of an N:M operand or dense (dim_k, dim_n).

    k is summed tap by tap, group by group, entry by entry. An entry with valid = 0 leaves the sum as it is: what was pruned
    meets no operand, so infinity times pruned is not NaN. A dense rhs multiplies every element. Both operands are FP16, or both
    BF16.
    """
    entries = rhs if isinstance(rhs, Entries) else prune(rhs, DENSE)
    arithmetic = arithmetic_of(lhs, entries.values)
    words = split_groups(lhs, entries.k_taps, entries.pattern.group)
    total = np.zeros((len(lhs), entries.dim_n), np.float32)
    for group in range(entries.groups):
        for step in range(entries.pattern.keep):
            elements = words[:, group, entries.index[group, step]]
            products = arithmetic.multiply(elements, np.broadcast_to(entries.values[group, step], elements.shape))
            total = np.where(entries.valid[group, step], arithmetic.add(total, products), total)
    return total
