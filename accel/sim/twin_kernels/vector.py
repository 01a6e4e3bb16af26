"""Banks of registers, and the same register of 16 PEs of a column as a vector: FP32 values or 32-bit integers.

The functions are what banks and vectors do, and run as they are where Numba is switched off. Compiled, each is an instruction
or two on <16 x float> or <16 x i32>, which LLVM splits for a narrower host. Written as loops they would not become vectors:
LLVM cannot see that so many registers never overlap. A bank is a matrix of which compiled code holds the address alone: arrays
would be counted as references in every cycle, which takes longer than all the registers do. Where Numba is switched off a bank
is its array, and NumPy checks indices; compiled, nothing does.
"""

from __future__ import annotations

import operator
from typing import Any, TypeAlias

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import lower_builtin, models, register_model, type_callable
from numpy.typing import NDArray

LANES = 16
_ALIGNMENT_BYTES = 4
_TREE_LEVELS = 4

Bank: TypeAlias = Any
"""A matrix of registers, read and written as `bank[row, column]`."""
Vector: TypeAlias = Any
"""Sixteen values: of a bank of float32 or int32, or the truth values that `choose` takes."""


def bank(matrix: NDArray[Any]) -> Bank:
    """Return a C-contiguous matrix as a bank; it must be held elsewhere as long as the bank is in use."""
    return matrix


def load(registers: Bank, row: int, column: int) -> Vector:
    """Return the vector that starts at (row, column)."""
    return registers[row, column : column + LANES].copy()


def store(registers: Bank, row: int, column: int, vector: Vector) -> None:
    """Write `vector` from (row, column) on."""
    registers[row, column : column + LANES] = vector


def gather(registers: Bank, row: int, column: int, offsets: Vector) -> Vector:
    """Return what stands in a row at `column` + `offsets`."""
    return registers[row, column + offsets]


def pick(registers: Bank, row: int, column: int, group: int, index: Vector) -> Vector:
    """Return in each lane the element `index` of `group`, element e of all lanes standing from (row, column + e * LANES) on.

    Where `index` is -1 it may be any of them.
    """
    return registers[row, column + index % group * LANES + np.arange(LANES)]


def zeros_like(vector: Vector) -> Vector:
    """Return zeros of the same type, all +0."""
    return np.zeros_like(vector)


def multiply(left: Vector, right: Vector) -> Vector:
    """Return FP32 products."""
    return left * right


def add(left: Vector, right: Vector) -> Vector:
    """Return sums of two vectors of one type, FP32 ones each rounded once."""
    return left + right


def add_number(vector: Vector, number: int) -> Vector:
    """Return integers, `number` added to each."""
    return vector + np.int32(number)


def has_bit(vector: Vector, bit: int) -> Vector:
    """Return where integers share a one with `bit`."""
    return vector & np.int32(bit) != 0


def equals(vector: Vector, number: int) -> Vector:
    """Return where integers equal `number`."""
    return vector == number


def exceeds(left: Vector, right: Vector) -> Vector:
    """Return where integers are larger, signed."""
    return left > right


def is_negative(vector: Vector) -> Vector:
    """Return where integers are below 0."""
    return vector < 0


def choose(condition: Vector, left: Vector, right: Vector) -> Vector:
    """Return `left` where `condition` holds, else `right`; both are kept as they are, bit for bit."""
    return np.where(condition, left, right)


class _BankType(types.Type):
    """How Numba sees a bank: the address of its first element and the elements of a row."""

    def __init__(self, element: Any) -> None:
        self.element = element
        super().__init__(f"bank({element})")


@register_model(_BankType)
def _bank_model(manager: Any, bank_type: Any) -> Any:
    return models.StructModel(manager, bank_type, [("data", types.CPointer(bank_type.element)), ("row_elems", types.intp)])


class _VectorType(types.Type):
    """How Numba sees a vector of float32, int32 or bool."""

    def __init__(self, element: str) -> None:
        self.element = element
        super().__init__(f"{element}x{LANES}")


_PLACE = types.UniTuple(types.intp, 2)
_FLOATS, _INTS, _FLAGS = _VectorType("float32"), _VectorType("int32"), _VectorType("bool")
_INDEX = ir.IntType(32)
_LLVM = {
    "float32": ir.VectorType(ir.FloatType(), LANES),
    "int32": ir.VectorType(_INDEX, LANES),
    "bool": ir.VectorType(ir.IntType(1), LANES),
}


@register_model(_VectorType)
def _model(manager: Any, vector_type: Any) -> Any:
    return models.PrimitiveModel(manager, vector_type, _LLVM[vector_type.element])


def _of(bank_type: Any) -> Any:
    return _FLOATS if bank_type.element == types.float32 else _INTS


@type_callable(bank)
def _type_bank(context: Any) -> Any:
    return lambda matrix: _BankType(matrix.dtype)(matrix)


@type_callable(operator.getitem)
def _type_read(context: Any) -> Any:
    return lambda registers, place: registers.element(registers, _PLACE) if isinstance(registers, _BankType) else None


@type_callable(operator.setitem)
def _type_write(context: Any) -> Any:
    def typer(registers: Any, place: Any, value: Any) -> Any:
        return types.none(registers, _PLACE, registers.element) if isinstance(registers, _BankType) else None

    return typer


@type_callable(load)
def _type_load(context: Any) -> Any:
    return lambda registers, row, column: _of(registers)(registers, types.intp, types.intp)


@type_callable(store)
def _type_store(context: Any) -> Any:
    return lambda registers, row, column, vector: types.none(registers, types.intp, types.intp, vector)


@type_callable(gather)
def _type_gather(context: Any) -> Any:
    return lambda registers, row, column, offsets: _of(registers)(registers, types.intp, types.intp, _INTS)


@type_callable(pick)
def _type_pick(context: Any) -> Any:
    return lambda registers, row, column, group, index: _FLOATS(registers, types.intp, types.intp, types.intp, _INTS)


@type_callable(zeros_like)
def _type_zeros_like(context: Any) -> Any:
    return lambda vector: vector(vector)


@type_callable(multiply)
@type_callable(add)
def _type_arithmetic(context: Any) -> Any:
    return lambda left, right: left(left, left)


@type_callable(add_number)
def _type_add_number(context: Any) -> Any:
    return lambda vector, number: _INTS(_INTS, types.int32)


@type_callable(has_bit)
@type_callable(equals)
def _type_test(context: Any) -> Any:
    return lambda vector, number: _FLAGS(_INTS, types.int32)


@type_callable(exceeds)
def _type_exceeds(context: Any) -> Any:
    return lambda left, right: _FLAGS(_INTS, _INTS)


@type_callable(is_negative)
def _type_is_negative(context: Any) -> Any:
    return lambda vector: _FLAGS(_INTS)


@type_callable(choose)
def _type_choose(context: Any) -> Any:
    return lambda condition, left, right: left(_FLAGS, left, left)


@lower_builtin(bank, types.Array)
def _emit_bank(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    matrix = context.make_array(signature.args[0])(context, builder, args[0])
    made = cgutils.create_struct_proxy(signature.return_type)(context, builder)
    made.data, made.row_elems = matrix.data, cgutils.unpack_tuple(builder, matrix.shape)[1]
    return made._getvalue()


def _pointer(context: Any, builder: Any, bank_type: Any, value: Any, row: Any, column: Any) -> Any:
    """Emit the address of (row, column) in the bank."""
    registers = cgutils.create_struct_proxy(bank_type)(context, builder, value)
    return builder.gep(registers.data, [builder.add(builder.mul(row, registers.row_elems), column)])


@lower_builtin(operator.getitem, _BankType, types.BaseTuple)
def _emit_read(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    bank_type = signature.args[0]
    pointer = _pointer(context, builder, bank_type, args[0], *cgutils.unpack_tuple(builder, args[1]))
    return context.unpack_value(builder, bank_type.element, pointer)


@lower_builtin(operator.setitem, _BankType, types.BaseTuple, types.Any)
def _emit_write(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    bank_type = signature.args[0]
    pointer = _pointer(context, builder, bank_type, args[0], *cgutils.unpack_tuple(builder, args[1]))
    context.pack_value(builder, bank_type.element, args[2], pointer)
    return context.get_dummy_value()


def _spread(builder: Any, number: Any) -> Any:
    """Emit a vector of one number."""
    undefined = ir.Constant(_LLVM["int32"], ir.Undefined)
    first = builder.insert_element(undefined, number, ir.Constant(_INDEX, 0))
    return builder.shuffle_vector(first, undefined, ir.Constant(_LLVM["int32"], [0] * LANES))


@lower_builtin(load, _BankType, types.intp, types.intp)
def _emit_load(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    pointer = _pointer(context, builder, signature.args[0], *args)
    vector = builder.bitcast(pointer, _LLVM[signature.return_type.element].as_pointer())
    return builder.load(vector, align=_ALIGNMENT_BYTES)


@lower_builtin(store, _BankType, types.intp, types.intp, _VectorType)
def _emit_store(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    pointer = _pointer(context, builder, signature.args[0], *args[:3])
    builder.store(args[3], builder.bitcast(pointer, args[3].type.as_pointer()), align=_ALIGNMENT_BYTES)
    return context.get_dummy_value()


@lower_builtin(gather, _BankType, types.intp, types.intp, _VectorType)
def _emit_gather(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    first = _pointer(context, builder, signature.args[0], *args[:3])
    result = ir.Constant(_LLVM[signature.return_type.element], ir.Undefined)
    for lane in range(LANES):
        place = ir.Constant(_INDEX, lane)
        offset = builder.sext(builder.extract_element(args[3], place), args[1].type)
        result = builder.insert_element(result, builder.load(builder.gep(first, [offset])), place)
    return result


@lower_builtin(pick, _BankType, types.intp, types.intp, types.intp, _VectorType)
def _emit_pick(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    """Emit a tree of choices, one level for each bit of the index, for each usual group; for others a loop over elements."""
    group, index = args[3:]
    other, done = builder.append_basic_block("pick.other"), builder.append_basic_block("pick.done")
    switch, found = builder.switch(group, other), []
    for levels in range(_TREE_LEVELS + 1):
        block = builder.append_basic_block(f"pick.{1 << levels}")
        switch.add_case(ir.Constant(group.type, 1 << levels), block)
        builder.position_at_end(block)
        picked = [_element(context, builder, signature.args[0], args, element) for element in range(1 << levels)]
        for level in range(levels):
            bit = _emit_has_bit(context, builder, None, (index, ir.Constant(_INDEX, 1 << level)))
            picked = [builder.select(bit, odd, even) for even, odd in zip(picked[::2], picked[1::2], strict=True)]
        found.append((picked[0], block))
        builder.branch(done)
    builder.position_at_end(other)
    picked = cgutils.alloca_once_value(builder, _element(context, builder, signature.args[0], args, 0))
    with cgutils.for_range(builder, group, intp=group.type) as loop:
        number = builder.trunc(loop.index, _INDEX) if group.type != _INDEX else loop.index
        is_it = _emit_equals(context, builder, None, (index, number))
        element = _element(context, builder, signature.args[0], args, loop.index)
        builder.store(builder.select(is_it, element, builder.load(picked)), picked)
    found.append((builder.load(picked), builder.block))
    builder.branch(done)
    builder.position_at_end(done)
    result = builder.phi(_LLVM["float32"])
    for value, block in found:
        result.add_incoming(value, block)
    return result


def _element(context: Any, builder: Any, bank_type: Any, args: Any, element: Any) -> Any:
    """Emit the load of one element of all lanes."""
    registers, row, column, group, _ = args
    first = _pointer(context, builder, bank_type, registers, row, column)
    number = ir.Constant(group.type, element) if isinstance(element, int) else element
    pointer = builder.gep(first, [builder.mul(number, ir.Constant(group.type, LANES))])
    return builder.load(builder.bitcast(pointer, _LLVM["float32"].as_pointer()), align=_ALIGNMENT_BYTES)


@lower_builtin(zeros_like, _VectorType)
def _emit_zeros_like(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return ir.Constant(_LLVM[signature.return_type.element], [0] * LANES)


@lower_builtin(multiply, _VectorType, _VectorType)
def _emit_multiply(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.fmul(*args)


@lower_builtin(add, _VectorType, _VectorType)
def _emit_add(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.fadd(*args) if signature.return_type == _FLOATS else builder.add(*args)


@lower_builtin(add_number, _VectorType, types.int32)
def _emit_add_number(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.add(args[0], _spread(builder, args[1]))


@lower_builtin(has_bit, _VectorType, types.int32)
def _emit_has_bit(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.icmp_signed("!=", builder.and_(args[0], _spread(builder, args[1])), ir.Constant(_LLVM["int32"], [0] * LANES))


@lower_builtin(equals, _VectorType, types.int32)
def _emit_equals(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.icmp_signed("==", args[0], _spread(builder, args[1]))


@lower_builtin(exceeds, _VectorType, _VectorType)
def _emit_exceeds(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.icmp_signed(">", *args)


@lower_builtin(is_negative, _VectorType)
def _emit_is_negative(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.icmp_signed("<", args[0], ir.Constant(_LLVM["int32"], [0] * LANES))


@lower_builtin(choose, _VectorType, _VectorType, _VectorType)
def _emit_choose(context: Any, builder: Any, signature: Any, args: Any) -> Any:
    return builder.select(*args)
