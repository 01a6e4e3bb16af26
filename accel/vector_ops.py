"""Everything in a step that is not a matrix product: what each operator costs the vector unit and memory.

One table for all. Costs are per *work element*: an output element times its `window` (the inputs that one output looks at, 1
except for pooling, interpolation, reductions and losses). A lane operation is one FP32 multiply-add, compare or table step.
Counts of elementary functions (exp, erf, rsqrt) are assumed: a range reduction and a short polynomial.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

VectorOpName = Literal[
    "batch_norm", "layer_norm", "group_norm", "rms_norm",
    "relu", "relu6", "gelu", "silu", "sigmoid", "tanh", "elementwise",
    "softmax", "dropout", "add", "mul", "scale",
    "max_pool", "avg_pool", "interpolate", "reduction",
    "embedding", "cross_entropy", "mse_loss",
]  # fmt: skip

Saved = Literal["nothing", "input", "output", "mask", "index"]
"""What an operator keeps for its backward: a tensor (16 bits an element), a mask (1 bit) or an index (8 bits) per output."""


@dataclass(frozen=True)
class VectorOpCost:
    """Cost of one operator: lane operations per work element and passes over its tensors.

    Forward reads its inputs `forward_passes` times and writes its output. Backward reads the output's gradient and what was
    saved `backward_passes` times and writes the input's gradient; with no backward pass the gradient goes through as it is.
    """

    forward_ops: int
    backward_ops: int
    saves: Saved = "nothing"
    forward_passes: int = 1
    backward_passes: int = 1
    statistics_ops: int = 0
    """Of `forward_ops`, those of a first pass that only adds up: it can ride on the drain of the product before."""
    elementwise: bool = False
    """Each output element needs one element of each input: it can ride on the pass of the operator before it."""


VECTOR_OPS: dict[VectorOpName, VectorOpCost] = {
    # Statistics over the batch need the whole tensor before the first output: two passes each way.
    # Forward: sum, sum of squares, scale-and-shift. Backward: normalise, two sums, two multiply-adds.
    "batch_norm": VectorOpCost(3, 5, "input", forward_passes=2, backward_passes=2, statistics_ops=2),
    "group_norm": VectorOpCost(3, 7, "input", forward_passes=2, backward_passes=2, statistics_ops=2),
    # A row fits in the unit: one pass. Forward: sum, sum of squares, normalise, scale-and-shift. Backward: normalise, scale,
    # two sums along the row and two along the rows, two multiply-adds. RMS norm has neither means nor shifts.
    "layer_norm": VectorOpCost(4, 8, "input"),
    "rms_norm": VectorOpCost(3, 6, "input"),
    "relu": VectorOpCost(1, 1, "mask", elementwise=True),
    "relu6": VectorOpCost(2, 1, "mask", elementwise=True),
    "gelu": VectorOpCost(8, 10, "input", elementwise=True),
    "silu": VectorOpCost(7, 9, "input", elementwise=True),
    "sigmoid": VectorOpCost(6, 2, "output", elementwise=True),
    "tanh": VectorOpCost(6, 2, "output", elementwise=True),
    "elementwise": VectorOpCost(1, 1, "input", elementwise=True),
    "softmax": VectorOpCost(9, 3, "output"),
    "dropout": VectorOpCost(2, 1, "mask", elementwise=True),
    "add": VectorOpCost(1, 0, backward_passes=0, elementwise=True),
    "mul": VectorOpCost(1, 2, "input", elementwise=True),
    "scale": VectorOpCost(1, 1, elementwise=True),
    "max_pool": VectorOpCost(1, 1, "index"),
    "avg_pool": VectorOpCost(1, 1),
    "interpolate": VectorOpCost(1, 1),
    "reduction": VectorOpCost(1, 1),
    "embedding": VectorOpCost(1, 1),
    "cross_entropy": VectorOpCost(8, 2, "input"),
    "mse_loss": VectorOpCost(2, 1, "input"),
}

SAVED_BITS: dict[Saved, int] = {"nothing": 0, "input": 16, "output": 16, "mask": 1, "index": 8}
