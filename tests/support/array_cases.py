"""Random runs of the array: shapes, operands and both answers."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from accel.golden.array import run_os, run_ws
from accel.golden.feed import ArrayForm
from accel.golden.gemm import gemm
from accel.golden.numeric import bits, to_bf16
from accel.golden.prune import prune
from accel.sparsity import NMPattern
from accel.timing.array import os_run_cycles, ws_run_cycles

SPECIAL = np.array([0x0000, 0x8000, 0x7C00, 0xFC00, 0x7E00, 0xFE01, 0x7D55, 0x0001, 0x8001, 0x03FF, 0x7BFF, 0xFBFF], np.uint16)
"""Zeros, infinities, quiet and signalling NaNs, subnormals and the largest finite values."""

SPECIAL_BF16 = np.array(
    [0x0000, 0x8000, 0x7F80, 0xFF80, 0x7FC0, 0xFFC1, 0x7F81, 0x0001, 0x8001, 0x007F, 0x7F7F, 0xFF7F], np.uint16
)
"""The same of BF16, where subnormals count as zeros."""


def random_fp16(rng, shape):
    """Return FP16 values, one in four arrays with one special value in eight, one in four of raw bits, the others tame."""
    values = rng.normal(size=shape).astype(np.float16)
    kind = rng.integers(0, 4)
    if kind == 0:
        where = rng.random(shape) < 0.125
        values[where] = rng.choice(SPECIAL, where.sum()).view(np.float16)
    if kind == 1:
        values = rng.integers(0, 2**16, shape).astype(np.uint16).view(np.float16)
    return values


def random_bf16(rng, shape):
    """Return patterns of BF16, one in four arrays with one special value in eight, one in four of raw bits, one whose products
    and sums are near 2^-126 or 2^128, the others tame."""
    values = to_bf16(rng.normal(size=shape).astype(np.float32))
    kind = rng.integers(0, 4)
    if kind == 0:
        where = rng.random(shape) < 0.125
        values[where] = rng.choice(SPECIAL_BF16, where.sum())
    if kind == 1:
        values = rng.integers(0, 2**16, shape).astype(np.uint16)
    if kind == 2:
        start = rng.choice([0x1F80, 0x5F00])
        values = (rng.integers(start, start + 0x100, shape) & 0xFFF0 | rng.integers(0, 2, shape) << 15).astype(np.uint16)
    return values


@dataclass(frozen=True)
class Case:
    dataflow: str
    form: ArrayForm
    pattern: NMPattern
    count: int
    dim_m: int
    dim_n: int
    k_taps: int
    k_inner: int
    m_chunk: int
    draw: Callable = random_fp16
    """How operands are drawn: (rng, shape)."""

    def closed_form(self):
        form = self.form
        sizes = (form.rows, form.cols, form.lanes, form.row_lanes)
        groups, keep = self.k_taps * -(-self.k_inner // self.pattern.group), self.pattern.keep
        if self.dataflow == "OS":
            os_sizes = (*sizes, form.drain_lanes, form.multiplier_latency)
            return os_run_cycles(*os_sizes, self.dim_m, self.dim_n, groups * keep, self.count)
        product = (self.dim_m, self.dim_n, groups, keep, self.m_chunk, self.count)
        return ws_run_cycles(*sizes, form.multiplier_latency, *product)

    def operands(self, rng):
        """Return lhs (count, dim_m, dim_k) and the entries of every rhs."""
        dim_k = self.k_taps * self.k_inner
        lhs = self.draw(rng, (self.count, self.dim_m, dim_k))
        dense = [self.draw(rng, (dim_k, self.dim_n)) for _ in range(self.count)]
        return lhs, [prune(matrix, self.pattern, self.k_taps) for matrix in dense]

    def run(self, lhs, rhs):
        if self.dataflow == "OS":
            return run_os(self.form, lhs, rhs)
        return run_ws(self.form, lhs, rhs, self.m_chunk)

    def check(self, rng, label):
        """Compare values and cycles of the register model with `gemm` and the closed form."""
        lhs, rhs = self.operands(rng)
        run = self.run(lhs, rhs)
        expected = np.stack([gemm(left, right) for left, right in zip(lhs, rhs, strict=True)])
        assert np.array_equal(bits(run.out), bits(expected)), f"{label}: values of {self}"
        assert run.cycles == self.closed_form(), f"{label}: {run.cycles} cycles, closed form {self.closed_form()}: {self}"


def random_case(rng):
    """Return a small run: every kind of edge is met often, few take more than some hundred cycles."""
    lanes = int(rng.integers(1, 6))
    row_lanes = int(rng.choice([lane for lane in range(1, lanes + 1) if lanes % lane == 0]))
    rows, cols = int(rng.integers(1, 5)), int(rng.choice([1, 2, 3, 4, 9]))
    form = ArrayForm(rows, cols, lanes, row_lanes, int(rng.integers(1, 5)), int(rng.integers(1, rows + 1)))
    group = int(rng.choice([1, 1, 2, 2, 4, 4, 8]))
    keep = int(rng.integers(1, group + 1)) if rng.random() < 0.8 else group
    dim_m = int(rng.integers(1, 2 * rows * row_lanes + 2))
    dim_n = int(rng.integers(1, 2 * cols * lanes // row_lanes + 2))
    return Case(
        dataflow=str(rng.choice(["OS", "WS"])),
        form=form,
        pattern=NMPattern(keep, group),
        count=int(rng.choice([1, 1, 2])),
        dim_m=dim_m,
        dim_n=dim_n,
        k_taps=int(rng.choice([1, 1, 2, 3])),
        k_inner=int(rng.integers(1, group + 4)),
        m_chunk=int(rng.integers(1, dim_m + 3)),
    )
