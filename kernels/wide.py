"""Four neighbouring elements of a CUDA array in one load or store, as intrinsics for the kernels of `cuda`.

Indexing an array gives the hardware one element at a time; a load of a vector with full alignment becomes one
instruction of 4 bytes for uint8, of 8 for 16 bits, of 16 for float32, and two of 16 for float64. The array's
innermost dimension must be contiguous and the address of element `index` a multiple of four elements' size:
that is not checked.

An element of float16 or bfloat16 is loaded and stored as a float32, converted by one instruction of the
hardware, rounded to the nearest even: Numba's own bfloat16 calls a C++ function for each. `load1` and
`store1` do so for a single element.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.cuda.extending import intrinsic

__all__ = ["load1", "load4", "store1", "store4"]

# The instructions that convert an element in 16 bits, by the name of its type: to float32, and from it.
_CONVERSIONS = {
    "float16": ("cvt.f32.f16 $0, $1;", "cvt.rn.f16.f32 $0, $1;"),
    "bfloat16": ("mov.b32 $0, {0, $1};", "cvt.rn.bf16.f32 $0, $1;"),
}
_INT16, _INT32, _FLOAT = ir.IntType(16), ir.IntType(32), ir.FloatType()


def _conversions(dtype: Any) -> tuple[str, str] | None:
    return _CONVERSIONS.get(str(dtype).rpartition("_")[2])  # Numba calls the type __nv_bfloat16


def _element(dtype: Any) -> Any:
    """Return the type that an element is loaded and stored as."""
    return types.float32 if _conversions(dtype) else dtype


def _pointer(context: Any, builder: Any, kind: Any, arguments: Sequence[Any], count: int) -> tuple[Any, int]:
    """Return a pointer to `count` elements from `index` on, as a vector if several, and their bytes."""
    array, index = arguments
    half = _conversions(kind.dtype) is not None
    size = 2 if half else kind.dtype.bitwidth // 8
    element = _INT16 if half else context.get_data_type(kind.dtype)
    data = context.make_array(kind)(context, builder, array).data
    address = cgutils.pointer_add(builder, data, builder.mul(index, ir.Constant(index.type, size)))
    pointed = element if count == 1 else ir.VectorType(element, count)
    return builder.bitcast(address, ir.PointerType(pointed)), count * size


def _load(context: Any, builder: Any, kind: Any, arguments: Sequence[Any], count: int) -> list[Any]:
    pointer, size = _pointer(context, builder, kind, arguments, count)
    loaded = builder.load(pointer)
    if count == 1:
        parts = [loaded]
    else:
        loaded.align = size
        parts = [builder.extract_element(loaded, ir.Constant(_INT32, k)) for k in range(count)]
    conversions = _conversions(kind.dtype)
    if conversions is None:
        return [context.data_model_manager[kind.dtype].from_data(builder, part) for part in parts]
    convert = ir.FunctionType(_FLOAT, [_INT16])
    return [builder.asm(convert, conversions[0], "=f,h", [part], False) for part in parts]


def _store(context: Any, builder: Any, kind: Any, arguments: Sequence[Any], values: Sequence[Any]) -> Any:
    pointer, size = _pointer(context, builder, kind, arguments, len(values))
    conversions = _conversions(kind.dtype)
    if conversions is None:
        parts = [context.data_model_manager[kind.dtype].as_data(builder, value) for value in values]
    else:
        convert = ir.FunctionType(_INT16, [_FLOAT])
        parts = [builder.asm(convert, conversions[1], "=h,f", [value], False) for value in values]
    if len(parts) == 1:
        builder.store(parts[0], pointer)
    else:
        vector = ir.Constant(pointer.type.pointee, ir.Undefined)
        for k, part in enumerate(parts):
            vector = builder.insert_element(vector, part, ir.Constant(_INT32, k))
        builder.store(vector, pointer).align = size
    return context.get_dummy_value()


@intrinsic
def load1(typingctx, array, index):
    """Return an element of a one-dimensional array."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _load(context, builder, signature.args[0], arguments, 1)[0]

    return _element(array.dtype)(array, types.int64), codegen


@intrinsic
def store1(typingctx, array, index, a):
    """Write an element of a one-dimensional array, cast to its type."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _store(context, builder, signature.args[0], arguments[:2], arguments[2:])

    return types.void(array, types.int64, _element(array.dtype)), codegen


@intrinsic
def load4(typingctx, array, index):
    """Return elements ``index .. index + 3`` of a one-dimensional array."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        elements = _load(context, builder, signature.args[0], arguments, 4)
        return context.make_tuple(builder, signature.return_type, elements)

    return types.UniTuple(_element(array.dtype), 4)(array, types.int64), codegen


@intrinsic
def store4(typingctx, array, index, a, b, c, d):
    """Write elements ``index .. index + 3`` of a one-dimensional array, cast to its type."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _store(context, builder, signature.args[0], arguments[:2], arguments[2:])

    return types.void(array, types.int64, *[_element(array.dtype)] * 4), codegen
