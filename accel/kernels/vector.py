"""Vectors of 16 FP32 lanes for kernels: held in registers, sixteen sums at once.

The functions below are what the vectors do, and run as they are where Numba is switched off. Compiled, each is one LLVM
instruction on <16 x float>, which LLVM splits for a narrower host. No fastmath is involved: `llvm.fmuladd` is the one place
where rounding once or twice is left to the host, and after an exact product both give the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, models, register_model, type_callable

from accel.golden.numeric import Float32s

LANES = 16
IS_WIDE = bool(binding.get_host_cpu_features().get("avx512f", False))
"""Whether the host has 32 registers of a whole vector, and so keeps four rows of four vectors in them."""
_ALIGNMENT_BYTES = 4
_VECTOR = ir.VectorType(ir.FloatType(), LANES)


def load(matrix: Float32s, row: int, column: int) -> Float32s:
    """Return the vector that starts at (row, column) of a C-contiguous FP32 matrix; nothing checks that it lies inside."""
    return matrix[row, column : column + LANES].copy()


def store(matrix: Float32s, row: int, column: int, vector: Float32s) -> None:
    """Write `vector` from (row, column) of a C-contiguous FP32 matrix on; nothing checks that it lies inside."""
    matrix[row, column : column + LANES] = vector


@np.errstate(over="ignore", invalid="ignore")
def multiply_add(vector: Float32s, scalar: np.float32, total: Float32s) -> Float32s:
    """Return total + vector * scalar for FP32 values whose products are exact."""
    return total + vector * scalar


class _VectorType(types.Type):
    """How Numba sees a vector."""


@register_model(_VectorType)
def _model(manager: Any, vector_type: _VectorType) -> Any:
    return models.PrimitiveModel(manager, vector_type, _VECTOR)


@type_callable(load)
def _type_load(context: Any) -> Any:
    return lambda matrix, row, column: _VectorType(f"float32x{LANES}")(matrix, types.intp, types.intp)


@type_callable(store)
def _type_store(context: Any) -> Any:
    return lambda matrix, row, column, vector: types.none(matrix, types.intp, types.intp, vector)


@type_callable(multiply_add)
def _type_multiply_add(context: Any) -> Any:
    return lambda vector, scalar, total: vector


def _pointer(context: Any, builder: Any, matrix_type: Any, args: Any) -> Any:
    """Emit the address of (row, column), the second and third argument, in the matrix, the first."""
    matrix = context.make_array(matrix_type)(context, builder, args[0])
    return builder.bitcast(cgutils.get_item_pointer(context, builder, matrix_type, matrix, args[1:3]), _VECTOR.as_pointer())


@lower_builtin(load, types.Array, types.intp, types.intp)
def _emit_load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.load(_pointer(context, builder, signature.args[0], args), align=_ALIGNMENT_BYTES)


@lower_builtin(store, types.Array, types.intp, types.intp, _VectorType)
def _emit_store(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    builder.store(args[3], _pointer(context, builder, signature.args[0], args), align=_ALIGNMENT_BYTES)
    return context.get_dummy_value()


@lower_builtin(multiply_add, _VectorType, types.float32, _VectorType)
def _emit_multiply_add(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    vector, scalar, total = args
    undefined, lane = ir.Constant(_VECTOR, ir.Undefined), ir.IntType(32)
    first = builder.insert_element(undefined, scalar, ir.Constant(lane, 0))
    spread = builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(lane, LANES), [0] * LANES))
    kind = ir.FunctionType(_VECTOR, [_VECTOR] * 3)
    function = cgutils.get_or_insert_function(builder.module, kind, f"llvm.fmuladd.v{LANES}f32")
    return builder.call(function, [vector, spread, total])
