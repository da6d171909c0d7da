"""Four neighbouring elements of a CUDA array in one load or store, as intrinsics for the kernels of `cuda`.

Indexing an array gives the hardware one element at a time; a load of a vector with full alignment becomes one
instruction of 4 bytes for uint8, of 16 for float32, and two of 16 for float64. The array's innermost
dimension must be contiguous and the address of element `index` a multiple of four elements' size: that is not
checked. In Numba's simulator the same names are plain functions.
"""

from __future__ import annotations

from typing import Any

from numba import config

__all__ = ["load4", "store4"]


def _load4_simulated(array: Any, index: int) -> tuple[Any, Any, Any, Any]:
    return array[index], array[index + 1], array[index + 2], array[index + 3]


def _store4_simulated(array: Any, index: int, a: Any, b: Any, c: Any, d: Any) -> None:
    array[index], array[index + 1], array[index + 2], array[index + 3] = a, b, c, d


if config.ENABLE_CUDASIM:  # type: ignore[attr-defined]
    load4, store4 = _load4_simulated, _store4_simulated
else:
    from llvmlite import ir
    from numba import types
    from numba.core import cgutils
    from numba.cuda.extending import intrinsic

    def _vector_at(
        context: Any, builder: Any, array_type: Any, array: Any, index: Any
    ) -> tuple[Any, Any, int]:
        """Return the address of element `index` as that of a vector, the vector's type and its bytes."""
        size = array_type.dtype.bitwidth // 8
        data = context.make_array(array_type)(context, builder, array).data
        address = cgutils.pointer_add(builder, data, builder.mul(index, ir.Constant(index.type, size)))
        vector = ir.VectorType(context.get_data_type(array_type.dtype), 4)
        return builder.bitcast(address, ir.PointerType(vector)), vector, 4 * size

    def _lane(k: int) -> Any:
        return ir.Constant(ir.IntType(32), k)

    @intrinsic
    def load4(typingctx, array, index):
        """Return elements ``index .. index + 3`` of a one-dimensional array."""

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array_type = signature.args[0]
            pointer, _, alignment = _vector_at(context, builder, array_type, *arguments)
            vector = builder.load(pointer)
            vector.align = alignment
            model = context.data_model_manager[array_type.dtype]
            elements = [model.from_data(builder, builder.extract_element(vector, _lane(k))) for k in range(4)]
            return context.make_tuple(builder, signature.return_type, elements)

        return types.UniTuple(array.dtype, 4)(array, types.int64), codegen

    @intrinsic
    def store4(typingctx, array, index, a, b, c, d):
        """Write elements ``index .. index + 3`` of a one-dimensional array, cast to its type."""

        def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            array_type = signature.args[0]
            pointer, kind, alignment = _vector_at(context, builder, array_type, *arguments[:2])
            model = context.data_model_manager[array_type.dtype]
            vector = ir.Constant(kind, ir.Undefined)
            for k in range(4):
                element = model.as_data(builder, arguments[2 + k])
                vector = builder.insert_element(vector, element, _lane(k))
            builder.store(vector, pointer).align = alignment
            return context.get_dummy_value()

        return types.void(array, types.int64, *[array.dtype] * 4), codegen
