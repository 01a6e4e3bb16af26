"""Small programs made by hand: every engine, both dataflows, sums that stay, come round and go to DRAM."""

import numpy as np

from accel.arch import Arch
from accel.gemm import Stage
from accel.program import INSTRUCTION, Engine, Flag, Kernel, Mode, Program, Site, Tables, Tensor, Update, View
from accel.tokens import tokens_of_needs

LOAD, STORE, COMPUTE, PRUNE, VECTOR, UPDATE = Engine
FIRST, LAST, FENCE = Flag.FIRST, Flag.LAST, Flag.FENCE
BOTH = FIRST | LAST

ARCH = Arch(
    name="tiny",
    array_rows=2,
    array_cols=2,
    clock_hz=1e6,
    group=4,
    adder_latency=2,
    multiplier_latency=1,
    row_lanes=(1, 2),
    west_buffer_bytes=512,
    north_buffer_bytes=512,
    output_buffer_bytes=512,
    dram_bytes_per_second=8e6,
    dram_efficiency_frac=1.0,
    dram_latency_cycles=3,
    dram_capacity_bytes=2**20,
    dma_setup_cycles=2,
    vector_lanes=4,
    vector_latency_cycles=2,
    sore_lanes=2,
    wuve_lanes=2,
)
"""A word is 4 elements, 8 bytes: each buffer has 64 words. An array tile is 4 x 2 or 2 x 4."""

WEST_VIEW, NORTH_VIEW, OUT_VIEW, PRUNED_VIEW, SUMS_VIEW = range(5)
OS_MODE, WS_MODE = range(2)
TILE_KERNEL, STREAM_KERNEL = range(2)


def tables(**changes):
    """The product 4 x 2 of 8 groups of k, twice over, with what there is around it."""
    operand = {"groups": 8, "row_bits": 512, "group_bits": 64, "repeats": 2}
    fields = {
        "network": "hand-made",
        "batch": 1,
        "arch": ARCH,
        "tensors": tuple(Tensor(name=f"t{n}", address=256 * n, bytes=256, format="fp16") for n in range(4)),
        "views": (
            View(tensors=(0,), side="west", rows=4, distinct=4, **operand),
            View(tensors=(1,), side="north", rows=2, distinct=2, **operand),
            View(tensors=(2,), side="out", rows=4, cols=2, pad_cols=2, elem_bits=16, repeats=2),
            View(tensors=(1,), side="north", rows=2, distinct=2, prune_keep=1, prune_group=4, **operand),
            View(tensors=(3,), side="out", rows=4, cols=2, elem_bits=32, repeats=2),
        ),
        "modes": (
            Mode(dataflow="OS", row_lanes=2, keep=4, group=4, out_bits=16),
            Mode(dataflow="WS", row_lanes=2, keep=4, group=4, out_bits=16),
        ),
        "kernels": (
            Kernel(op="relu", lane_ops=8, bytes=0, transfers=0, reads=(), writes=(2,), tile=True),
            Kernel(op="add", lane_ops=64, bytes=128, transfers=2, reads=(0, 1), writes=(2,)),
        ),
        "updates": (Update(weight=1, elems=64, passes=2, sore_groups=16, bytes=512, reads=(1, 2), writes=(1,)),),
        "sites": (Site(layer="fc", stage=Stage.FORWARD, part=""), Site(layer="fc", stage=Stage.OPTIMIZER, part="update")),
    }
    return Tables(**{**fields, **changes})


class Hand:
    """A program written instruction by instruction; `after` are the places of those that each one waits for."""

    def __init__(self):
        self.records, self.after = [], []

    def add(self, engine, after=(), **fields):
        record = np.zeros((), dtype=INSTRUCTION)
        record["opcode"] = engine
        for name, value in fields.items():
            record[name] = value
        self.records.append(record)
        self.after.append(after)
        return len(self.records) - 1

    def load_west(self, after=(), west=0, group=0, groups=8, repeat=0, **fields):
        return self.add(
            LOAD, after, object=WEST_VIEW, repeat=repeat, west=west, rows=4, group=group, groups=groups,
            words=4 * groups, bytes=32 * groups, **fields,
        )  # fmt: skip

    def load_north(self, after=(), north=0, group=0, groups=8, repeat=0, view=NORTH_VIEW, **fields):
        return self.add(
            LOAD, after, object=view, repeat=repeat, north=north, cols=2, group=group, groups=groups,
            words=2 * groups, bytes=16 * groups, **fields,
        )  # fmt: skip

    def load_sums(self, after=(), out=0, repeat=0):
        return self.add(LOAD, after, object=SUMS_VIEW, repeat=repeat, out=out, rows=4, cols=2, words=4, bytes=32)

    def prune(self, after, north=0, repeat=0):
        return self.add(PRUNE, after, object=PRUNED_VIEW, repeat=repeat, north=north, cols=2, groups=8, words=16)

    def compute(self, after, flags=BOTH, mode=OS_MODE, group=0, groups=8, words=None, repeat=0, **fields):
        if words is None:
            words = 4 if mode == WS_MODE else 2 if flags & LAST else 0
        fields = {"rows": 4, "cols": 2, "group": group, "groups": groups, "words": words, **fields}
        return self.add(COMPUTE, after, flags=flags, object=mode, repeat=repeat, **fields)

    def vector(self, after, words=2, **fields):
        return self.add(VECTOR, after, object=TILE_KERNEL, rows=4, cols=2, words=words, **fields)

    def store(self, after, view=OUT_VIEW, words=2, repeat=0, **fields):
        return self.add(
            STORE, after, object=view, repeat=repeat, rows=4, cols=2, words=words, bytes=32, **fields
        )  # fmt: skip

    def program(self, **changes):
        """The program with the fewest tokens; `changes` are of its tables."""
        table = np.array(self.records, dtype=INSTRUCTION).reshape(-1)
        ordinals = [int(np.sum(table["opcode"][:place] == table["opcode"][place])) for place in range(len(table))]
        needs = np.zeros((len(table), len(Engine)), dtype=np.int64)
        for place, after in enumerate(self.after):
            for earlier in after:
                engine = table["opcode"][earlier]
                needs[place, engine] = max(needs[place, engine], ordinals[earlier] + 1)
        table["waits"], table["signals"] = tokens_of_needs(np.ascontiguousarray(table["opcode"]), needs)
        return Program(tables(**changes), table)


def outputs_stay():
    """OS: two products, the second one's loads beside the first's compute; a tile kernel, an operator, the update."""
    hand = Hand()
    west, north = hand.load_west(), hand.load_north()
    first = hand.compute([west, north])
    west, north = hand.load_west(west=32, repeat=1), hand.load_north(north=16, repeat=1)
    relu = hand.vector([first])
    store = hand.store([relu])
    second = hand.compute([west, north, store], west=32, north=16, repeat=1)
    store = hand.store([second], repeat=1)
    add = hand.add(VECTOR, [store], flags=FENCE, object=STREAM_KERNEL)
    hand.add(UPDATE, [store, add], site=1)
    return hand


def outputs_stay_in_parts():
    """OS: one array tile in two chunks of k, whose operands take turns in the buffers."""
    hand = Hand()
    loads = [hand.load_west(groups=4), hand.load_north(groups=4)]
    hand.compute(loads, FIRST, groups=4)
    loads = [hand.load_west(west=32, group=4, groups=4), hand.load_north(north=16, group=4, groups=4)]
    hand.store([hand.compute(loads, LAST, west=32, north=16, group=4, groups=4)])
    return hand


def pruned_on_line():
    """OS with a north tile that SORE prunes."""
    hand = Hand()
    west, north = hand.load_west(), hand.load_north(view=PRUNED_VIEW)
    hand.store([hand.compute([west, hand.prune([north])])])
    return hand


def north_stays():
    """WS: sums wait in the output buffer between two chunks of k; the second chunk overwrites the operands of the first."""
    hand = Hand()
    loads = [hand.load_west(groups=4), hand.load_north(groups=4)]
    first = hand.compute(loads, FIRST, WS_MODE, groups=4)
    loads = [hand.load_west([first], group=4, groups=4), hand.load_north([first], group=4, groups=4)]
    second = hand.compute(loads, LAST, WS_MODE, group=4, groups=4)
    hand.store([second], words=4)
    return hand


def sums_in_dram():
    """WS: sums are stored and loaded again."""
    hand = Hand()
    loads = [hand.load_west(groups=4), hand.load_north(groups=4)]
    first = hand.compute(loads, FIRST, WS_MODE, groups=4)
    spilled = hand.store([first], SUMS_VIEW, words=4)
    loads = [hand.load_west([first], group=4, groups=4), hand.load_north([first], group=4, groups=4)]
    back = hand.load_sums([spilled])
    hand.store([hand.compute([*loads, back], LAST, WS_MODE, group=4, groups=4)], words=4)
    return hand


def nothing():
    """A program without instructions."""
    return Hand()


CASES = {
    case.__name__: case for case in (outputs_stay, outputs_stay_in_parts, pruned_on_line, north_stays, sums_in_dram, nothing)
}
