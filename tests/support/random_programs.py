"""Random programs: small enough to step, with all that a machine can meet.

They have an order in which everything can run; what their addresses and tensors are is of no interest here.
"""

import numpy as np

from accel.arch import Arch
from accel.gemm import Stage
from accel.program import (
    INSTRUCTION,
    Engine,
    Flag,
    Kernel,
    Mode,
    Program,
    Site,
    Tables,
    Tensor,
    Update,
)

SITES = (Site(layer="layer", stage=Stage.FORWARD, part=""),)
TENSORS = (Tensor(name="weight", address=0, bytes=64, format="fp32"),)


def random_arch(rng, **changes):
    """Return a small machine: often some length of time is 0, and beats are not always whole bytes."""

    def size(most):
        return int(rng.integers(1, most + 1))

    def time(most):
        return int(rng.choice([0, rng.integers(0, most + 1)]))

    lanes, rows = size(4), size(4)
    fields = {
        "name": "random",
        "array_rows": rows,
        "array_cols": int(rng.choice([1, 2, 3, 9])),
        "clock_hz": 1e6,
        "group": 4,
        "adder_latency": lanes,
        "multiplier_latency": size(3),
        "row_lanes": tuple(lane for lane in range(1, lanes + 1) if lanes % lane == 0),
        "drain_lanes": int(rng.integers(1, rows + 1)),
        "west_buffer_bytes": 4096,
        "north_buffer_bytes": 4096,
        "output_buffer_bytes": 4096,
        "dram_bytes_per_second": 1e6 * int(rng.choice([4, 16, 64])),
        "dram_efficiency_frac": float(rng.choice([1.0, 0.7])),
        "dram_latency_cycles": time(12),
        "dram_capacity_bytes": 2**20,
        "dma_setup_cycles": time(4),
        "vector_lanes": size(8),
        "vector_latency_cycles": time(6),
        "sore_lanes": size(3),
        "wuve_lanes": size(4),
    }
    return Arch.from_fields({**fields, **changes}, source="random")


def random_tables(rng, arch):
    """Return two or three modes, kernels in DRAM and on tiles, some without work or bytes, and updates."""
    modes = [_random_mode(rng, arch) for _ in range(int(rng.integers(2, 4)))]
    return tables(arch, modes, [*map(_kernel, rng.integers(0, 60, (2, 3)).tolist()), *_edge_kernels(rng)], _updates(rng))


def tables(arch, modes=(), kernels=(), updates=()):
    """Return tables with these rows."""
    return Tables(
        network="random",
        batch=1,
        arch=arch,
        tensors=TENSORS,
        views=(),
        modes=tuple(modes),
        kernels=tuple(kernels),
        updates=tuple(updates),
        sites=SITES,
    )


def mode(dataflow, row_lanes, keep, group):
    """Return a mode with results of 16 bits."""
    return Mode(dataflow=dataflow, row_lanes=row_lanes, keep=keep, group=group, out_bits=16)


def _random_mode(rng, arch):
    group = int(rng.choice([1, 4]))
    return mode(str(rng.choice(["OS", "WS"])), int(rng.choice(arch.row_lanes)), int(rng.integers(1, group + 1)), group)


def _kernel(sizes, tile=False):
    lane_ops, kernel_bytes, transfers = sizes
    own = {"lane_ops": lane_ops, "bytes": kernel_bytes * 5, "transfers": transfers % 4}
    return Kernel(op="op", **own, reads=(), writes=(), tile=tile)


def _edge_kernels(rng):
    yield _kernel((0, 0, 0))
    yield _kernel((int(rng.integers(1, 80)), 0, 0))
    yield _kernel((int(rng.integers(1, 4)), 0, 0), tile=True)


def _updates(rng):
    for most in (1, 60):
        elems, sore_groups, moved = (int(rng.integers(0, most)) for _ in range(3))
        sizes = {"elems": elems, "passes": int(rng.integers(1, 3)), "sore_groups": sore_groups, "bytes": moved * 8}
        yield Update(weight=0, **sizes, reads=(), writes=())


def random_program(rng, count=24):
    """Return a program of about `count` instructions on all engines, its tokens fewer or more."""
    arch = random_arch(rng)
    rows = random_tables(rng, arch)
    mix = rng.dirichlet(np.full(6, 0.8))
    instructions = []
    while len(instructions) < count:
        engine = Engine(int(rng.choice(6, p=mix)))
        instructions += _random_product(rng, rows) if engine is Engine.COMPUTE else [_random_instruction(rng, rows, engine)]
    table = np.concatenate(instructions)
    table["flags"] |= np.where(rng.random(len(table)) < 0.1, np.uint8(Flag.FENCE), np.uint8(0))
    add_tokens(rng, table, float(rng.choice([0.0, 0.1, 0.5, 1.0])))
    return Program(rows, table)


def instruction(engine, **fields):
    """Return one instruction, (1,), zero but for `fields`."""
    one = np.zeros(1, INSTRUCTION)
    one["opcode"] = engine
    for name, value in fields.items():
        one[name] = value
    return one


def product(place, rows, cols, groups, flags=Flag.FIRST | Flag.LAST):
    """Return a COMPUTE instruction of mode `place`."""
    return instruction(Engine.COMPUTE, object=place, rows=rows, cols=cols, groups=groups, flags=flags)


def _random_instruction(rng, rows, engine):
    size = {"rows": rng.integers(1, 6), "cols": rng.integers(1, 6)}
    if engine in (Engine.LOAD, Engine.STORE):
        return instruction(engine, bytes=rng.choice([0, 1, rng.integers(0, 400)], p=[0.1, 0.1, 0.8]))
    if engine is Engine.PRUNE:
        return instruction(engine, cols=rng.integers(0, 8), groups=rng.integers(0, 5))
    if engine is Engine.VECTOR:
        return instruction(engine, object=rng.integers(len(rows.kernels)), **size)
    return instruction(engine, object=rng.integers(len(rows.updates)))


def _random_product(rng, rows):
    """Return a product in one instruction, or in parts along k."""
    place = int(rng.integers(len(rows.modes)))
    chosen, arch = rows.modes[place], rows.arch
    tile_rows, tile_cols = arch.array_rows * chosen.row_lanes, arch.array_cols * (arch.adder_latency // chosen.row_lanes)
    parts = int(rng.choice([1, 1, 2, 3]))
    tiles = 1 if parts > 1 and chosen.dataflow == "OS" else 2
    size = int(rng.integers(1, tiles * tile_rows + 1)), int(rng.integers(1, tiles * tile_cols + 1))
    flags = [Flag(0)] * parts
    flags[0] |= Flag.FIRST
    flags[-1] |= Flag.LAST
    return [product(place, *size, int(rng.integers(1, 7)), flag) for flag in flags]


def add_tokens(rng, table, share):
    """Let about `share` of the instructions need an earlier one, by tokens each of which is taken.

    Along two engines the needs rise, so the n-th wait is for the n-th signal.
    """
    needs = {}
    for taker in range(1, len(table)):
        if rng.random() < share:
            for sender in rng.integers(max(0, taker - 8), taker, int(rng.integers(1, 4))).tolist():
                pair = int(table["opcode"][sender]), int(table["opcode"][taker])
                known = needs.setdefault(pair, [(-1, -1)])
                if pair[0] != pair[1] and sender > known[-1][0] and taker > known[-1][1]:
                    known.append((sender, taker))
    for (source, target), known in needs.items():
        for sender, taker in known[1:]:
            table["signals"][sender] |= 1 << target
            table["waits"][taker] |= 1 << source
