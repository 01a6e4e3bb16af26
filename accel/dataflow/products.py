"""Layers -> GEMMs: the products of FF, BP and WU, with their operands as they lie in DRAM (docs/timing.md, section 2)."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

from accel.dataflow.accesses import Accesses, LayerAccesses
from accel.dataflow.context import Context
from accel.dataflow.tensors import Names, Tensors
from accel.gemm import FP16_BITS, FP32_BITS, Gemm, GemmShape, Operand, Stage
from accel.sparsity import DENSE
from accel.trace import Attention, Conv, Linear
from accel.units import ceil_div


@dataclass(frozen=True)
class Geometry:
    """A convolution between a large grid and a small one: `gather` reads the large grid, `scatter` writes it.

    An ordinary convolution gathers in FF and scatters in BP; a transposed one scatters in FF and gathers in BP.
    """

    large: tuple[int, ...]
    small: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    extent: tuple[int, ...]

    @classmethod
    def of(cls, conv: Conv) -> Geometry:
        """Return the geometry of a convolution."""
        large, small = (conv.out_size, conv.in_size) if conv.transposed else (conv.in_size, conv.out_size)
        return cls(large, small, conv.kernel, conv.stride, conv.padding, conv.dilation, conv.kernel_extent)

    @property
    def touched(self) -> int:
        """Pixels of the large grid that some tap reads."""
        sizes = zip(self.large, self.small, self.kernel, strict=True)
        return prod(min(size, out * taps) for size, out, taps in sizes)

    @property
    def halo(self) -> int:
        """Pixels of the large grid that a run of small pixels needs beyond its own: whole lines of the outer dimension."""
        return max(self.extent[0] - self.stride[0], 0) * prod(self.large[1:])

    def phases(self) -> Iterator[tuple[str, int, int]]:
        """Yield (name, pixels, taps) of each residue class of the large grid modulo the stride."""
        per_dim = [
            [
                (phase, ceil_div(size - phase, step), sum((phase + pad - tap * dil) % step == 0 for tap in range(taps)))
                for phase in range(min(step, size))
            ]
            for size, step, pad, dil, taps in zip(
                self.large, self.stride, self.padding, self.dilation, self.kernel, strict=True
            )
        ]
        for combination in product(*per_dim):
            name = "" if prod(self.stride) == 1 else "phase " + ",".join(str(phase) for phase, _, _ in combination)
            yield name, prod(pixels for _, pixels, _ in combination), prod(taps for _, _, taps in combination)


@dataclass(frozen=True)
class Products:
    """Makes the GEMMs of a layer."""

    context: Context

    @property
    def tensors(self) -> Tensors:
        """The names of what the products read and write."""
        return Tensors(self.context)

    @property
    def accesses(self) -> LayerAccesses:
        """Where their elements lie in these."""
        return LayerAccesses(self.context)

    def forward_gemms(self, layer: Conv | Linear) -> list[Gemm]:
        """Return the products of FF: reductions over the input channels."""
        inner, outer = layer.channels_per_group
        site = _Site(layer, Stage.FORWARD, self.context.options.method.ff, inner, outer)
        return _placed(self._weight_products(site), self.accesses.forward(layer))

    def input_grad_gemms(self, layer: Conv | Linear) -> list[Gemm]:
        """Return the products of BP: reductions over the output channels."""
        outer, inner = layer.channels_per_group
        site = _Site(layer, Stage.INPUT_GRAD, self.context.options.method.bp, inner, outer)
        return _placed(self._weight_products(site), self.accesses.input_grad(layer))

    def weight_grad(self, layer: Conv | Linear) -> Gemm:
        """Return the product of WU: the reduction over batch and pixels that gives dW, in FP32."""
        batch = self.context.options.batch
        channels, outer = layer.channels_per_group
        lhs_name, rhs_name, taps, groups = "Xt", "dY", 1, 1
        lhs_tensors, rhs_tensors = self.tensors.inputs(layer), self.tensors.gradient(layer.name)
        if isinstance(layer, Linear):
            pixels = touched = batch * layer.rows
        else:
            grid, taps, groups = Geometry.of(layer), prod(layer.kernel), layer.groups
            pixels, touched = batch * prod(grid.small), batch * grid.touched
            if layer.transposed:
                lhs_name, rhs_name, channels, outer = "dYt", "X", outer, channels
                lhs_tensors, rhs_tensors = rhs_tensors, lhs_tensors
        lhs = Operand(
            lhs_name,
            row_elems=ceil_div(touched * self._stored(channels, groups), channels),
            distinct=channels,
            chunk_scale=ceil_div(touched, pixels),
            tensors=lhs_tensors,
        )
        pattern = self.context.pattern(layer, pixels) if self.context.options.method.wu == "grad" else DENSE
        rhs = Operand(
            rhs_name,
            row_elems=ceil_div(pixels * self._stored(outer, groups), outer),
            distinct=outer,
            pattern=pattern,
            prune_online=not pattern.is_dense,
            tensors=rhs_tensors,
        )
        shape = GemmShape(taps * channels, outer, 1, pixels, groups)
        writes, elems = (self.tensors.weight_gradient(layer),), shape.m * shape.n * groups
        gemm = Gemm(layer.name, Stage.WEIGHT_GRAD, "", shape, lhs, rhs, FP32_BITS, shape.macs, elems, writes).checked()
        return self.accesses.weight_grad(layer).of(gemm)

    def product(
        self,
        layer: str,
        stage: Stage,
        part: str,
        shape: GemmShape,
        lhs: Names,
        rhs: Names,
        writes: Names,
        accesses: Accesses | None = None,
    ) -> Gemm:
        """Return a product of two computed operands, read from the tensors `lhs` and `rhs`."""
        row_elems = self._stored(shape.k_inner)
        out_elems = shape.count * shape.m * self._stored(shape.n)
        west, north = Operand("A", row_elems, shape.m, tensors=lhs), Operand("B", row_elems, shape.n, tensors=rhs)
        gemm = Gemm(layer, stage, part, shape, west, north, FP16_BITS, shape.macs, out_elems, writes).checked()
        return (accesses or Accesses()).of(gemm)

    def attention_shapes(self, layer: Attention) -> tuple[GemmShape, GemmShape]:
        """Return the shapes of Q K^T and P V; query heads that share a key head are rows of one product."""
        kv_heads = layer.kv_heads or layer.heads
        rows, count = layer.heads // kv_heads * layer.q_len, self.context.options.batch * kv_heads
        scores = GemmShape(rows, layer.kv_len, 1, layer.head_dim, count)
        context = GemmShape(rows, layer.head_dim, 1, layer.kv_len, count)
        return scores, context

    def _stored(self, channels: int, groups: int = 1) -> int:
        """Return the elements in memory of one pixel's `channels` of each of `groups`; the groups share the last word."""
        return ceil_div(self.context.options.stored(channels * groups), groups)

    def _weight_products(self, site: _Site) -> list[Gemm]:
        layer, batch = site.layer, self.context.options.batch
        if isinstance(layer, Linear):
            return [self._weight_product(site, "", batch * layer.rows, 1, self._stored(site.inner), 0)]
        scatters = layer.transposed == (site.stage is Stage.FORWARD)
        return self._scatter(site, Geometry.of(layer)) if scatters else [self._gather(site, Geometry.of(layer))]

    def _gather(self, site: _Site, grid: Geometry) -> Gemm:
        """Return the product that reads the large grid: FF of a convolution."""
        stored, small = self._stored(site.inner, site.groups), prod(grid.small)
        row_elems = ceil_div(stored * grid.touched, small)
        rows, taps = self.context.options.batch * small, prod(grid.kernel)
        return self._weight_product(site, "", rows, taps, row_elems, stored * grid.halo)

    def _scatter(self, site: _Site, grid: Geometry) -> list[Gemm]:
        """Return the products that write the large grid, BP of a convolution: one per residue class modulo the stride.

        A class that no tap reaches has no product: the vector unit writes its zeros.
        """
        batch, stored, small = self.context.options.batch, self._stored(site.inner, site.groups), prod(grid.small)
        halo = stored * (ceil_div(grid.extent[0], grid.stride[0]) - 1) * prod(grid.small[1:])
        phases = [phase for phase in grid.phases() if phase[2]]
        # A framework counts the pairs (pixel of the small grid, tap) that meet each class; pairs that meet none (a grid smaller
        # than the stride) go with the first, so that all classes together count what the forward does.
        counted = [taps for _, _, taps in phases]
        if counted:
            counted[0] += prod(grid.kernel) - sum(counted)
        pairs_of_tap = site.groups * batch * small * site.inner * site.outer
        return [
            self._weight_product(
                site,
                part,
                batch * pixels,
                taps,
                row_elems=ceil_div(stored * min(small, pixels * taps), pixels),
                halo_elems=halo,
                macs_nominal=counted_taps * pairs_of_tap,
            )
            for (part, pixels, taps), counted_taps in zip(phases, counted, strict=True)
        ]

    def _weight_product(
        self, site: _Site, part: str, rows: int, taps: int, row_elems: int, halo_elems: int, macs_nominal: int | None = None
    ) -> Gemm:
        """Return a product of activations (lhs) and the weight (rhs)."""
        weight_pattern, grad_pattern = (
            self.context.pattern(site.layer, site.inner) if site.pruned == operand else DENSE for operand in ("weight", "grad")
        )
        shape = GemmShape(rows, site.outer, taps, site.inner, site.groups)
        is_forward = site.stage is Stage.FORWARD
        lhs = Operand(
            "X" if is_forward else "dY",
            row_elems,
            distinct=rows,
            halo_elems=halo_elems,
            pattern=grad_pattern,
            prune_online=not grad_pattern.is_dense,
            tensors=self.tensors.inputs(site.layer) if is_forward else self.tensors.gradient(site.layer.name),
        )
        is_compact = self.context.options.pregenerate and not weight_pattern.is_dense
        rhs = Operand(
            "W",
            row_elems=taps * self._stored(site.inner, site.groups),
            distinct=site.outer,
            pattern=weight_pattern,
            prune_online=not (weight_pattern.is_dense or self.context.options.pregenerate),
            tensors=(self.tensors.weight(site.layer, site.stage if is_compact else ""),),
        )
        out_elems = rows * site.groups * self._stored(site.outer, site.groups)
        nominal = shape.macs if macs_nominal is None else macs_nominal
        writes = (site.layer.name,) if is_forward else self.tensors.input_gradients(site.layer)
        return Gemm(site.layer.name, site.stage, part, shape, lhs, rhs, FP16_BITS, nominal, out_elems, writes).checked()


@dataclass(frozen=True)
class _Site:
    """A weight layer in FF or BP: which operand is pruned, and the channels it reduces over and produces."""

    layer: Conv | Linear
    stage: Stage
    pruned: str | None
    inner: int
    outer: int

    @property
    def groups(self) -> int:
        return self.layer.groups if isinstance(self.layer, Conv) else 1


def _placed(gemms: list[Gemm], accesses: list[Accesses]) -> list[Gemm]:
    """Return the products of a layer with their accesses, if these are known."""
    return [access.of(gemm) for gemm, access in zip(gemms, accesses, strict=True)] if accesses else gemms
