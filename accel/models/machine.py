"""Training with the machine's own arithmetic: `on_machine` makes the products of all weight layers bit-true, or the whole step.

FP16 operands (rounded to nearest even), exact products, FP32 sums from +0 in the order of docs/timing.md; Y and dX leave as
FP16, dW as FP32. The weights stay FP32 masters. All else (bias, norms, activations, attention, the loss) is torch's, or that of
docs/numerics.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from math import prod
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from accel.errors import ConfigError
from accel.golden.numeric import Float16s
from accel.golden.prune import Entries, prune
from accel.kernels.gemm import check_threads, gemm, gemm_nm
from accel.models.layers import TWINS, Training, make_dense, make_sparse, set_fast_paths, sparse_layers
from accel.models.machine_calls import call
from accel.models.matrices import bp_operands, ff_operands, fp16, gather, out_positions, phases
from accel.models.stages import Site, StageWeight, TorchEngine
from accel.sparsity import NMPattern


def on_machine(module: nn.Module, threads: int | None = None, vector_ops: Literal["torch", "machine"] = "torch") -> nn.Module:
    """Compute FF, BP and WU of every convolution and linear layer of `module` as the machine does, in place, and return it.

    Layers made sparse by `accel.models.sparse.sparsify` keep their method, the others run dense. `threads` is 1 or more; None
    takes all CPUs this process may use. Operands of any device and floating type are rounded to FP16; results come back in
    the type of X, so a model in FP32 holds FP16 values where the machine does.

    With `vector_ops` "machine" all other operators are the machine's too, forward and backward, with the bits of
    docs/numerics.md; one that is not defined there raises `UnsupportedOpError`. It is an option here and no context around the
    training loop, because the loop then stays what it was: data, optimizer and metrics are torch's; the module and what is
    computed from its results, the loss above all, are the machine's, on the CPU. `detach` hands a result over to torch.
    """
    check_threads(threads)
    if vector_ops not in ("torch", "machine"):
        raise ConfigError(f"vector_ops must be torch or machine, not {vector_ops!r}")
    _let_go(module)
    patched = [name for name, part in module.named_modules() if "forward" in vars(part)] if vector_ops == "machine" else []
    if patched:
        raise ConfigError(f"module must have no forward set on an instance, not one on {', '.join(map(repr, patched))}")
    engine = MachineEngine(threads)
    for name, layer in module.named_modules():
        if type(layer) in TWINS:
            make_sparse(layer, Training(name=name))
    for layer in sparse_layers(module).values():
        layer.sparse.engine = engine
    if vector_ops == "machine":
        for part in module.modules():
            part.forward = partial(call, part, threads)
    set_fast_paths(module)
    return module


def off_machine(module: nn.Module) -> nn.Module:
    """Compute `module` with torch again, in place, and return it; sparse layers stay sparse."""
    _let_go(module)
    for layer in sparse_layers(module).values():
        layer.sparse.engine = TorchEngine()
        if layer.sparse.recipe.name == "dense":
            make_dense(layer)
    set_fast_paths(module)
    return module


def _let_go(module: nn.Module) -> None:
    """Let the parts of `module` have their class's forward again."""
    for part in module.modules():
        if getattr(vars(part).get("forward"), "func", None) is call:
            del part.forward


@dataclass(frozen=True)
class MachineEngine:
    """The products of one layer on the array, through the bit-true kernel."""

    threads: int | None = None

    def operand(self, weight: Tensor, x: Tensor) -> Tensor:
        """Return the FP16 working copy of the weight."""
        return torch.from_numpy(fp16(weight)).to(weight.device)

    def cast(self, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return both as they are: X is rounded as it enters, dW belongs to the FP32 master."""
        return x, weight

    def forward(self, x: Tensor, weight: StageWeight, site: Site) -> Tensor:
        """Return Y, FP16 values."""
        grid = _channels_last(x, site)
        positions = out_positions(site, grid.shape[1:-1], tuple(weight.values.shape[2:]))
        weights = ff_operands(weight, site)
        parts = [
            self._multiply(gather(part, positions), rhs, np.float16)
            for part, rhs in zip(np.split(grid, site.groups, axis=-1), weights, strict=True)
        ]
        out = np.concatenate(parts, axis=-1)
        return _tensor(out.reshape(len(grid), *(len(read) for read in positions), out.shape[-1]), x, site)

    def input_grad(self, grad: Tensor, x: Tensor, weight: StageWeight, site: Site, grad_pattern: NMPattern) -> Tensor:
        """Return dX, FP16 values: one product for each phase of the stride."""
        result = np.zeros(_last(x, site).shape, np.float16)
        grids = np.split(_channels_last(grad, site), site.groups, axis=-1)
        results = np.split(result, site.groups, axis=-1)
        for phase in phases(site, result.shape[1:-1], tuple(weight.values.shape[2:])):
            weights = bp_operands(weight, site, phase.taps)
            for part, rhs, into in zip(grids, weights, results, strict=True):
                out = self._product(gather(part, phase.positions), rhs, grad_pattern, len(phase.taps))
                where = (slice(None), *phase.pixels)
                into[where] = out.reshape(into[where].shape)
        return _tensor(result, x, site)

    def weight_grad(self, x: Tensor, grad: Tensor, weight: Tensor, site: Site, grad_pattern: NMPattern) -> Tensor:
        """Return dW, FP32."""
        grid = _channels_last(x, site)
        positions = out_positions(site, grid.shape[1:-1], tuple(weight.shape[2:]))
        blocks = []
        grads = np.split(_channels_last(grad, site), site.groups, axis=-1)
        for part, grad_part in zip(np.split(grid, site.groups, axis=-1), grads, strict=True):
            rows = gather(part, positions)
            dense: Float16s = np.ascontiguousarray(grad_part.reshape(len(rows), grad_part.shape[-1]))
            rhs = dense if grad_pattern.is_dense else prune(dense, grad_pattern)
            out = self._multiply(np.ascontiguousarray(rows.T), rhs, np.float32)
            blocks.append(out.reshape(prod(weight.shape[2:]), weight.shape[1], -1).transpose(2, 1, 0))
        return torch.from_numpy(np.concatenate(blocks).reshape(weight.shape)).to(weight)

    def _product(self, lhs: Float16s, rhs: Entries | Float16s, lhs_pattern: NMPattern, k_taps: int) -> Float16s:
        """Return lhs times rhs as FP16; an lhs that is pruned on its way in goes north: the product is swapped.

        Only one of the two is pruned: no recipe prunes both.
        """
        if lhs_pattern.is_dense or isinstance(rhs, Entries):
            out: Float16s = self._multiply(lhs, rhs, np.float16)
            return out
        north = prune(np.ascontiguousarray(lhs.T), lhs_pattern, k_taps)
        swapped: Float16s = self._multiply(np.ascontiguousarray(rhs.T), north, np.float16)
        return swapped.T

    def _multiply(self, lhs: Float16s, rhs: Entries | Float16s, out_dtype: type) -> Any:
        if isinstance(rhs, Entries):
            return gemm_nm(lhs, rhs, out_dtype=out_dtype, threads=self.threads)
        return gemm(lhs, rhs, out_dtype=out_dtype, threads=self.threads)


def _last(values: Tensor, site: Site) -> Tensor:
    """Return `values` as (batch, pixels per dimension, channels); all rows of a linear layer are its batch."""
    return values.movedim(1, -1) if site.stride else values.reshape(-1, values.shape[-1])


def _channels_last(values: Tensor, site: Site) -> Float16s:
    return np.ascontiguousarray(fp16(_last(values, site)))


def _tensor(values: Float16s, x: Tensor, site: Site) -> Tensor:
    """Return channels-last `values` in the layout, type and device of X."""
    result = torch.from_numpy(np.ascontiguousarray(values)).to(x)
    return result.movedim(-1, 1).contiguous() if site.stride else result.reshape(*x.shape[:-1], result.shape[-1])
