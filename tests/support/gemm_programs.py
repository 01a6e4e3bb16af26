"""Programs of one product with a mapping of the test's choice, and the tensors that they read."""

from dataclasses import dataclass, replace

import numpy as np
from array_cases import random_fp16

from accel.access import Access, Axis
from accel.dataflow.codegen import compile_schedule
from accel.gemm import FP16_BITS, FP32_BITS, Gemm, GemmShape, Operand, Stage
from accel.golden.gemm import gemm
from accel.golden.numeric import to_fp16
from accel.golden.prune import prune
from accel.presets import preset
from accel.schedule import Footprint, GemmCost, Mapping, Schedule, ScheduledGemm, Search, Segment, Step
from accel.sparsity import DENSE, NMPattern
from accel.units import ceil_div

NOTHING = GemmCost(*[0] * 9)


@dataclass(frozen=True)
class Case:
    """`storage` says how the operand with the pattern comes: "compact", or "dense" and pruned on line."""

    arch: object
    shape: GemmShape
    pattern: NMPattern
    on_lhs: bool
    storage: str
    out_bits: int
    mapping: Mapping


def roomy_arch(rng):
    """Return a small array with buffers that hold any tile of these tests."""
    group = int(rng.choice([2, 4]))
    return preset("test").replace(
        array_rows=int(rng.integers(1, 5)),
        array_cols=int(rng.integers(1, 5)),
        group=group,
        west_buffer_bytes=2**16,
        north_buffer_bytes=2**16,
        output_buffer_bytes=2**17,
    )


def random_case(rng):
    arch = roomy_arch(rng)
    shape = GemmShape(*(int(size) for size in rng.integers(1, [14, 14, 4, 11])), count=int(rng.choice([1, 1, 2])))
    pattern = DENSE
    if rng.random() < 0.6:
        pattern = NMPattern(int(rng.integers(1, arch.group)), arch.group) if rng.random() < 0.6 else NMPattern(1, 2)
    pattern = pattern if pattern.kept_of(shape.k_inner) < shape.k_inner else DENSE
    on_lhs = not pattern.is_dense and rng.random() < 0.3
    storage = "compact" if not on_lhs and rng.random() < 0.6 else "dense"
    out_bits, mapping = int(rng.choice([FP16_BITS, FP32_BITS])), _mapping(rng, arch, shape, pattern, on_lhs)
    return Case(arch, shape, pattern, on_lhs, storage, out_bits, mapping)


def _mapping(rng, arch, shape, pattern, on_lhs):
    dataflow, row_lanes = str(rng.choice(["OS", "WS"])), int(rng.choice(arch.row_lanes))
    swapped = on_lhs if not pattern.is_dense else bool(rng.random() < 0.5)
    run = pattern.on_machine(arch.group) if not pattern.is_dense else NMPattern(*[int(rng.choice([1, arch.group]))] * 2)
    west, north = (shape.n, shape.m) if swapped else (shape.m, shape.n)
    groups = shape.groups(run.group)
    unit_m, unit_n = arch.array_rows * row_lanes, arch.array_cols * (arch.adder_latency // row_lanes)
    tile_m, tile_n = (
        min(unit * int(rng.integers(1, ceil_div(size, unit) + 1)), size) for unit, size in ((unit_m, west), (unit_n, north))
    )
    order = str(rng.choice(["mnk", "mkn", "nmk", "nkm", "kmn", "knm"]))
    tile_groups = groups
    if dataflow == "WS":
        tile_groups = min(arch.array_rows * int(rng.integers(1, ceil_div(groups, arch.array_rows) + 1)), groups)
    elif tile_m <= unit_m and tile_n <= unit_n and rng.random() < 0.6:
        tile_groups = int(rng.integers(1, groups + 1))
        order = order if tile_groups == groups else "mnk"
    return Mapping(dataflow, swapped, row_lanes, run.keep, run.group, tile_m, tile_n, tile_groups, order)


def gemm_of(case):
    """Return the product: lhs (count, m, taps, inner), rhs (count * n, taps, inner), results (count, m, n)."""
    shape = case.shape
    sizes = {"repeats": (shape.count,), "taps": (shape.k_taps,), "inner": (shape.k_inner,)}
    taps, inner = Axis(size=shape.k_taps, terms=((2, 1),)), Axis(size=shape.k_inner, terms=((3, 1),))
    first = Axis(size=shape.count, terms=((0, 1),))
    lhs = Access(axes=(first, Axis(size=shape.m, terms=((1, 1),)), taps, inner), rows=(shape.m,), **sizes)
    rows = Axis(size=shape.count * shape.n, terms=((0, shape.n), (1, 1)))
    rhs = Access(axes=(rows, taps, inner), rows=(shape.n,), **sizes)
    axes = (first, Axis(size=shape.m, terms=((1, 1),)), Axis(size=shape.n, terms=((2, 1),)))
    out = Access(axes=axes, repeats=(shape.count,), rows=(shape.m,), inner=(shape.n,))
    elems = shape.k_taps * ceil_div(shape.k_inner, case.arch.group) * case.arch.group
    online = not case.pattern.is_dense and case.storage == "dense"
    is_compact = not case.pattern.is_dense and case.storage == "compact"
    lhs_pattern, rhs_pattern = (case.pattern, DENSE) if case.on_lhs else (DENSE, case.pattern)
    return Gemm(
        "layer",
        Stage.FORWARD,
        "",
        shape,
        Operand("A", elems, shape.m, pattern=lhs_pattern, prune_online=online and case.on_lhs, tensors=("lhs",), access=lhs),
        Operand(
            "B",
            elems,
            shape.n,
            pattern=rhs_pattern,
            prune_online=online and not case.on_lhs,
            tensors=("weight rhs FF" if is_compact else "rhs",),
            access=rhs,
        ),
        case.out_bits,
        out_elems=shape.count * shape.m * shape.n,
        writes=("dw out" if case.out_bits == FP32_BITS else "out",),
        out_access=out,
    )


def program_of(case):
    made = gemm_of(case)
    step = Step("network", 1, (Segment((made,)),), (), Footprint(0, 0, 0, 0))
    planned = ScheduledGemm(made, case.mapping, NOTHING, Search(0, 0, 0), 0, 0)
    return compile_schedule(Schedule(step, case.arch, (planned,)))


def random_tensors(rng, case):
    """Return what the program reads, with infinities and NaN among the numbers."""
    shape = case.shape
    lhs = random_fp16(rng, (shape.count, shape.m, shape.k_taps, shape.k_inner))
    rhs = random_fp16(rng, (shape.count * shape.n, shape.k_taps, shape.k_inner))
    return {"lhs": lhs, "rhs": rhs, "weight rhs FF": entries_of(case, rhs)}


def entries_of(case, rhs):
    matrices = rhs.reshape(case.shape.count, case.shape.n, -1)
    return tuple(prune(np.ascontiguousarray(matrix.T), case.pattern, case.shape.k_taps) for matrix in matrices)


def expected_result(case, tensors):
    """Return golden products of whole matrices."""
    shape, found = case.shape, []
    for lhs, rhs in zip(
        tensors["lhs"].reshape(shape.count, shape.m, -1), tensors["rhs"].reshape(shape.count, shape.n, -1), strict=True
    ):
        west, north = (rhs, lhs) if case.on_lhs else (lhs, rhs)
        total = gemm(west, prune(np.ascontiguousarray(north.T), case.pattern, shape.k_taps))
        found.append(total.T if case.on_lhs else total)
    stacked = np.stack(found)
    return stacked if case.out_bits == FP32_BITS else to_fp16(stacked)


def with_mapping(case, **changes):
    return replace(case, mapping=replace(case.mapping, **changes))
