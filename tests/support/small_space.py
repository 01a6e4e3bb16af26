"""A space of 36 points, 12 of which cannot run, that takes a second to sweep."""

import numpy as np

from accel.explore.indices import order

TEXT = """
[arch]
base = "test"
[vary]
array_rows = [2, 4, 8]
array_cols = [2, 4]
row_lanes = [[1], [1, 2], [3]]
dataflows = [["OS"], ["OS", "WS"]]
[derive]
vector_lanes = "2 * array_cols"
[work]
networks = {mlp = 1.0}
batch = 2
methods = [{method = "bdwp", pattern = "2:4"}]
"""

WIDE = TEXT.replace("array_rows = [2, 4, 8]", "array_rows = {from = 1, to = 40, step = 1}").replace(
    "array_cols = [2, 4]", "array_cols = {from = 1, to = 40, step = 1}"
)
"""9600 points of the same kind."""


def taken(sampler, seed=0, size=36, first=36):
    """Return the first points of an order."""
    return np.concatenate(list(order(size, sampler, seed, first))).tolist()
