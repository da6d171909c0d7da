"""What the backend calls of nvmath-python's cuBLASLt, over NumPy: descriptors, and column-major products.

Attributes are written into memory and read from it as the library does, in the sizes it asks for, and
matrices are reached by address, so that a wrong size, pointer or leading dimension shows.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from enum import IntEnum
from itertools import count
from types import ModuleType
from typing import Any

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

# The numbers are the library's own (cublasLt.h); the types of attributes are what it documents.
Operation = IntEnum("Operation", {"N": 0, "T": 1})
ComputeType = IntEnum("ComputeType", {"COMPUTE_32F": 68, "COMPUTE_64F": 70, "COMPUTE_32F_FAST_TF32": 77})
Epilogue = IntEnum("Epilogue", {"DEFAULT": 1, "RELU_BIAS": 6, "RELU_AUX_BIAS": 134, "DRELU_BGRAD": 152})
MatmulDescAttribute = IntEnum(
    "MatmulDescAttribute",
    {
        "TRANSA": 3,
        "TRANSB": 4,
        "EPILOGUE": 7,
        "BIAS_POINTER": 8,
        "EPILOGUE_AUX_POINTER": 11,
        "EPILOGUE_AUX_LD": 12,
    },
)
MatmulPreferenceAttribute = IntEnum(
    "MatmulPreferenceAttribute",
    {
        "MAX_WORKSPACE_BYTES": 1,
        **{f"MIN_ALIGNMENT_{name}_BYTES": 5 + place for place, name in enumerate("ABCD")},
    },
)
_DESCRIPTOR_TYPES = dict(zip(MatmulDescAttribute, ("<i4", "<i4", "<u4", "<i8", "<i8", "<i8"), strict=True))
_PREFERENCE_TYPES = dict(zip(MatmulPreferenceAttribute, ("<u8", "<u4", "<u4", "<u4", "<u4"), strict=True))
_DTYPES = {
    0: np.dtype(np.float32),
    1: np.dtype(np.float64),
    2: np.dtype(np.float16),
    14: np.dtype(ml_dtypes.bfloat16),
}
_ALGORITHM = np.dtype([("data_", np.uint64, 8)])
_RESULT = np.dtype(
    [
        ("algo", _ALGORITHM),
        ("workspace_size", np.uint64),
        ("state", np.int32),
        ("waves_count", np.float32),
        ("reserved", np.int32, 4),
    ]
)
_HANDLE = 0x4C74
_MARK = 0xA160
# What each handle stands for; a handle that was destroyed is not there.
_things: dict[int, Any] = {_HANDLE: "handle"}
_numbers = count(1)


class CublasLtError(RuntimeError):
    """As nvmath's."""


def modules() -> list[ModuleType]:
    """Return the modules that stand for nvmath-python."""
    package, bindings = ModuleType("nvmath"), ModuleType("nvmath.bindings")
    cublas, lt = ModuleType("nvmath.bindings.cublas"), ModuleType("nvmath.bindings.cublasLt")
    bindings.cublas, bindings.cublasLt = cublas, lt
    cublas.Operation, cublas.ComputeType = Operation, ComputeType
    lt.Epilogue, lt.cuBLASLtError = Epilogue, CublasLtError
    lt.MatmulDescAttribute, lt.MatmulPreferenceAttribute = MatmulDescAttribute, MatmulPreferenceAttribute
    lt.get_matmul_desc_attribute_dtype = _DESCRIPTOR_TYPES.__getitem__
    lt.get_matmul_preference_attribute_dtype = _PREFERENCE_TYPES.__getitem__
    lt.matmul_heuristic_result_dtype = _RESULT
    lt.create, lt.get_version = lambda: _HANDLE, lambda: 120903
    lt.destroy = lt.matmul_desc_destroy = lt.matrix_layout_destroy = lt.matmul_preference_destroy = _destroy
    lt.matmul_desc_create = lambda compute, scale: _made({"compute": compute, "scale": scale})
    lt.matrix_layout_create = lambda kind, rows, columns, leading: _made((kind, rows, columns, leading))
    lt.matmul_preference_create = lambda: _made({})
    lt.matmul_desc_set_attribute = _setter(MatmulDescAttribute, _DESCRIPTOR_TYPES)
    lt.matmul_preference_set_attribute = _setter(MatmulPreferenceAttribute, _PREFERENCE_TYPES)
    lt.matmul_algo_get_heuristic = _find_algorithms
    lt.matmul = _matmul
    return [package, bindings, cublas, lt]


def _made(thing: Any) -> int:
    handle = 0x10000 + next(_numbers)
    _things[handle] = thing
    return handle


def _destroy(handle: int) -> None:
    del _things[handle]


def _setter(attributes: Any, types: dict) -> Callable[[int, int, int, int], None]:
    def put(handle: int, attribute: int, address: int, size: int) -> None:
        dtype = np.dtype(types[attributes(attribute)])
        assert size == dtype.itemsize
        _things[handle][attributes(attribute).name] = int(np.frombuffer(_at(address, size), dtype)[0])

    return put


def _at(address: int, size: int) -> Any:
    assert address
    return (ctypes.c_char * size).from_address(address)


def _find_algorithms(
    handle: int,
    descriptor: int,
    a: int,
    b: int,
    c: int,
    d: int,
    preference: int,
    most: int,
    at: int,
    found: int,
) -> None:
    assert handle == _HANDLE
    assert c == d
    description, wanted = _things[descriptor], _things[preference]
    _shapes(description, a, b, d)
    assert wanted["MAX_WORKSPACE_BYTES"] == 32 * 2**20
    for name, layout in zip("ABCD", (a, b, c, d), strict=True):
        alignment = wanted[f"MIN_ALIGNMENT_{name}_BYTES"]
        assert alignment & (alignment - 1) == 0
        assert _DTYPES[_things[layout][0]].itemsize <= alignment <= 256
    results = np.frombuffer(_at(at, most * _RESULT.itemsize), _RESULT)
    results["state"][:2] = (15, 0)  # the first one is not supported after all
    results["algo"]["data_"][1] = _MARK
    np.frombuffer(_at(found, 4), np.int32)[0] = 2


def _matmul(
    handle: int, descriptor: int, one: int, a: int, a_layout: int, b: int, b_layout: int, zero: int,
    c: int, c_layout: int, d: int, d_layout: int, algorithm: int, workspace: int, size: int, stream: int,
) -> None:  # fmt: skip
    from simulated.cupy import stream_of

    assert handle == _HANDLE
    description = dict(_things[descriptor])
    dtype = _DTYPES[description["scale"]]
    assert np.frombuffer(_at(one, dtype.itemsize), dtype)[0] == 1
    assert np.frombuffer(_at(zero, dtype.itemsize), dtype)[0] == 0
    assert (c, c_layout) == (d, d_layout)
    assert np.frombuffer(_at(algorithm, 64), np.uint64)[0] == _MARK
    assert workspace % 256 == 0
    assert size >= 32 * 2**20
    _shapes(description, a_layout, b_layout, d_layout)
    left, right, result = (
        column_major(pointer, *_things[layout])
        for pointer, layout in ((a, a_layout), (b, b_layout), (d, d_layout))
    )
    stream_of(stream).submit(lambda: multiply(description, left, right, result))


def _shapes(description: dict[str, int], a: int, b: int, d: int) -> None:
    """Refuse what does not fit together, as the library does."""
    kinds = [_things[layout][0] for layout in (a, b, d)]
    halves = {14, 2} & set(kinds[:2])
    assert kinds[0] == kinds[1]
    # Matrices in 16 bits have float32 factors, and results in either.
    assert kinds[2] in (kinds[0], 0) if halves else kinds[2] == kinds[0]
    assert description["scale"] == (0 if halves else kinds[0])
    for layout in (a, b, d):
        _, rows, columns, leading = _things[layout]
        assert min(rows, columns) >= 1
        assert leading >= rows
    (_, a_rows, a_columns, _), (_, b_rows, b_columns, _) = _things[a], _things[b]
    (m, k) = (a_columns, a_rows) if description["TRANSA"] else (a_rows, a_columns)
    (inner, n) = (b_columns, b_rows) if description["TRANSB"] else (b_rows, b_columns)
    assert (inner, _things[d][1:3]) == (k, (m, n))
    epilogue = Epilogue(description["EPILOGUE"])
    masked = epilogue in (Epilogue.RELU_AUX_BIAS, Epilogue.DRELU_BGRAD)
    assert ("EPILOGUE_AUX_POINTER" in description) == ("EPILOGUE_AUX_LD" in description) == masked
    assert ("BIAS_POINTER" in description) == (epilogue != Epilogue.DEFAULT)
    if masked:
        assert description["EPILOGUE_AUX_LD"] % 128 == 0
        assert description["EPILOGUE_AUX_LD"] >= m
    if epilogue == Epilogue.DRELU_BGRAD:
        assert k > 1


def column_major(pointer: int, kind: int, rows: int, columns: int, leading: int) -> NDArray:
    """Return the matrix at an address."""
    dtype = _DTYPES[kind]
    memory = np.frombuffer(_at(pointer, ((columns - 1) * leading + rows) * dtype.itemsize), dtype)
    strides = (dtype.itemsize, leading * dtype.itemsize)
    return np.lib.stride_tricks.as_strided(memory, (rows, columns), strides)


def multiply(description: dict[str, int], a: NDArray, b: NDArray, d: NDArray) -> None:
    """Do what a descriptor says."""
    if a.itemsize == 2:
        a, b = a.astype(np.float32), b.astype(np.float32)
    product = (a.T if description["TRANSA"] else a) @ (b.T if description["TRANSB"] else b)
    epilogue = Epilogue(description["EPILOGUE"])
    rows, columns = d.shape
    if epilogue != Epilogue.DEFAULT:
        bias = np.frombuffer(_at(description["BIAS_POINTER"], rows * d.itemsize), d.dtype)
    if epilogue in (Epilogue.RELU_AUX_BIAS, Epilogue.DRELU_BGRAD):
        leading = description["EPILOGUE_AUX_LD"] // 8
        mask = np.frombuffer(
            _at(description["EPILOGUE_AUX_POINTER"], (columns - 1) * leading + -(-rows // 8)), np.uint8
        )
    if epilogue in (Epilogue.RELU_BIAS, Epilogue.RELU_AUX_BIAS):
        product = np.maximum(product + bias[:, None].astype(product.dtype), 0)
    if epilogue == Epilogue.RELU_AUX_BIAS:
        for column in range(columns):
            bits = np.packbits(product[:, column] > 0)
            mask[column * leading : column * leading + len(bits)] = bits
    if epilogue == Epilogue.DRELU_BGRAD:
        for column in range(columns):
            start = column * leading
            product[:, column] *= np.unpackbits(mask[start : start + -(-rows // 8)])[:rows]
        bias[:] = product.sum(axis=1)
    with np.errstate(over="ignore"):
        d[...] = product
