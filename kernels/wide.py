"""Four neighbouring elements of a CUDA array in one load or store, as intrinsics for the kernels of `cuda`.

Indexing an array gives the hardware one element at a time; a load of a vector with full alignment becomes one
instruction of 4 bytes for uint8, of 8 for 16 bits, of 16 for float32, and two of 16 for float64. The array's
innermost dimension must be contiguous and the address of element `index` a multiple of four elements' size:
that is not checked.

An element of float16 or bfloat16 comes and goes as a float32, converted by one instruction of the hardware,
rounded to the nearest even: Numba's own bfloat16 calls a function of C++ for each. `load1` and `store1` do so
for a single one.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.cuda.extending import intrinsic

__all__ = ["load1", "load4", "store1", "store4"]

# What converts an element in 16 bits, by the name of its type: to float32, and from it.
_CONVERSIONS = {
    "float16": ("cvt.f32.f16 $0, $1;", "cvt.rn.f16.f32 $0, $1;"),
    "bfloat16": ("mov.b32 $0, {0, $1};", "cvt.rn.bf16.f32 $0, $1;"),
}


def _conversions(dtype: Any) -> tuple[str, str] | None:
    name = str(dtype).rpartition("_")[2]  # Numba calls the type __nv_bfloat16
    return _CONVERSIONS.get(name)


def _element(dtype: Any) -> Any:
    """Return the type that an element is loaded and stored as."""
    return types.float32 if _conversions(dtype) else dtype


def _data_type(context: Any, dtype: Any) -> Any:
    return ir.IntType(16) if _conversions(dtype) else context.get_data_type(dtype)


def _address(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> Any:
    size = array_type.dtype.bitwidth // 8 if _conversions(array_type.dtype) is None else 2
    data = context.make_array(array_type)(context, builder, array).data
    return cgutils.pointer_add(builder, data, builder.mul(index, ir.Constant(index.type, size)))


def _loaded(context: Any, builder: Any, dtype: Any, data: Any) -> Any:
    """Return the element that these bits are."""
    conversions = _conversions(dtype)
    if conversions is None:
        return context.data_model_manager[dtype].from_data(builder, data)
    kind = ir.FunctionType(ir.FloatType(), [ir.IntType(16)])
    return builder.asm(kind, conversions[0], "=f,h", [data], False)


def _stored(context: Any, builder: Any, dtype: Any, value: Any) -> Any:
    """Return the bits of an element."""
    conversions = _conversions(dtype)
    if conversions is None:
        return context.data_model_manager[dtype].as_data(builder, value)
    kind = ir.FunctionType(ir.IntType(16), [ir.FloatType()])
    return builder.asm(kind, conversions[1], "=h,f", [value], False)


def _vector_at(context: Any, builder: Any, array_type: Any, array: Any, index: Any) -> tuple[Any, Any, int]:
    """Return the address of element `index` as that of a vector, the vector's type and its bytes."""
    address = _address(context, builder, array_type, array, index)
    size = 2 if _conversions(array_type.dtype) else array_type.dtype.bitwidth // 8
    vector = ir.VectorType(_data_type(context, array_type.dtype), 4)
    return builder.bitcast(address, ir.PointerType(vector)), vector, 4 * size


def _lane(k: int) -> Any:
    return ir.Constant(ir.IntType(32), k)


@intrinsic
def load1(typingctx, array, index):
    """Return an element of a one-dimensional array."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dtype = signature.args[0].dtype
        address = _address(context, builder, signature.args[0], *arguments)
        pointer = builder.bitcast(address, ir.PointerType(_data_type(context, dtype)))
        return _loaded(context, builder, dtype, builder.load(pointer))

    return _element(array.dtype)(array, types.int64), codegen


@intrinsic
def store1(typingctx, array, index, a):
    """Write an element of a one-dimensional array, cast to its type."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        dtype = signature.args[0].dtype
        address = _address(context, builder, signature.args[0], *arguments[:2])
        pointer = builder.bitcast(address, ir.PointerType(_data_type(context, dtype)))
        builder.store(_stored(context, builder, dtype, arguments[2]), pointer)
        return context.get_dummy_value()

    return types.void(array, types.int64, _element(array.dtype)), codegen


@intrinsic
def load4(typingctx, array, index):
    """Return elements ``index .. index + 3`` of a one-dimensional array."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type = signature.args[0]
        pointer, _, alignment = _vector_at(context, builder, array_type, *arguments)
        vector = builder.load(pointer)
        vector.align = alignment
        elements = [
            _loaded(context, builder, array_type.dtype, builder.extract_element(vector, _lane(k)))
            for k in range(4)
        ]
        return context.make_tuple(builder, signature.return_type, elements)

    return types.UniTuple(_element(array.dtype), 4)(array, types.int64), codegen


@intrinsic
def store4(typingctx, array, index, a, b, c, d):
    """Write elements ``index .. index + 3`` of a one-dimensional array, cast to its type."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        array_type = signature.args[0]
        pointer, kind, alignment = _vector_at(context, builder, array_type, *arguments[:2])
        vector = ir.Constant(kind, ir.Undefined)
        for k in range(4):
            element = _stored(context, builder, array_type.dtype, arguments[2 + k])
            vector = builder.insert_element(vector, element, _lane(k))
        builder.store(vector, pointer).align = alignment
        return context.get_dummy_value()

    return types.void(array, types.int64, *[_element(array.dtype)] * 4), codegen
