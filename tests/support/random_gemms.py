"""Random small machines and products, of every kind that the scheduler knows."""

from accel.gemm import Gemm, GemmShape, Operand, Stage
from accel.presets import preset
from accel.sparsity import DENSE, NMPattern

TEST = preset("test")


def random_arch(rng):
    """Return a small machine; buffers from a few words to more than everything, memory from slow to fast."""
    lanes = int(rng.choice([1, 2, 4]))
    divisors = [lane for lane in (1, 2, 4) if lanes % lane == 0]
    rows = int(rng.integers(1, 5))
    chosen = rng.permutation(divisors)[: rng.integers(1, len(divisors) + 1)]
    return TEST.replace(
        array_rows=rows,
        array_cols=int(rng.integers(1, 5)),
        adder_latency=lanes,
        multiplier_latency=int(rng.integers(1, 4)),
        row_lanes=tuple(int(lane) for lane in chosen),
        dataflows=(("OS", "WS"), ("OS", "WS"), ("OS",), ("WS",))[rng.integers(0, 4)],
        drain_lanes=int(rng.integers(1, rows + 1)),
        group=int(rng.choice([1, 2, 4, 8])),
        west_buffer_bytes=int(2 ** rng.uniform(5, 13)),
        north_buffer_bytes=int(2 ** rng.uniform(5, 13)),
        output_buffer_bytes=int(2 ** rng.uniform(6, 13)),
        dram_bytes_per_second=float(2 ** rng.uniform(-2, 7)) * 1e8,
        dram_latency_cycles=int(rng.integers(0, 40)),
        dma_setup_cycles=int(rng.integers(0, 8)),
        vector_lanes=int(rng.choice([1, 1, 2, 8])),
        vector_latency_cycles=int(rng.integers(0, 9)),
        sore_lanes=int(rng.integers(1, 5)),
    )


def random_gemm(rng, machine_group):
    """Return a product, dense or with a pattern on one side, compact or pruned on line: halos, shared rows, ragged groups."""
    most = [int(size) for size in 2 ** rng.uniform(0, 5, 3)]
    shape = GemmShape(
        m=int(rng.integers(1, most[0] + 1)),
        n=int(rng.integers(1, most[1] + 1)),
        k_taps=int(rng.choice([1, 1, 1, 3])),
        k_inner=int(rng.integers(1, most[2] + 1)),
        count=int(rng.choice([1, 1, 1, 2])),
    )
    patterns = [NMPattern(keep, group) for group in (2, 4, 8) if group <= machine_group for keep in range(1, group)]
    sides = [DENSE, DENSE]
    if patterns and rng.random() < 0.5:
        sides[rng.integers(0, 2)] = patterns[rng.integers(0, len(patterns))]
    lhs, rhs = (random_operand(rng, shape, size, pattern) for size, pattern in zip((shape.m, shape.n), sides, strict=True))
    out_bits, padding = int(rng.choice([16, 32])), int(rng.integers(0, 3))
    out_elems = shape.count * shape.m * (shape.n + padding)
    return Gemm("layer", Stage.FORWARD, "", shape, lhs, rhs, out_bits, shape.macs, out_elems)


def random_operand(rng, shape, size, pattern):
    kind = rng.integers(0, 3)
    if kind == 0 or not pattern.is_dense:
        return Operand("dense", shape.k + int(rng.integers(0, 3)), size, 0, 1, pattern, bool(rng.random() < 0.5))
    if kind == 1:  # im2col: a row adds few elements, the first needs more
        return Operand("im2col", int(rng.integers(1, shape.k + 1)), size, int(rng.integers(0, 40)))
    distinct = int(rng.integers((size + 1) // 2, size + 1))
    return Operand("taps", int(rng.integers(1, 2 * shape.k + 1)), distinct, 0, int(rng.integers(1, 4)))
