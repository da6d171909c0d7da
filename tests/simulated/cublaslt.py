"""What the backend calls of nvmath-python's cuBLASLt, over NumPy: descriptors, and column-major products.

Attributes are written into memory and read from it as the library does, in the sizes it asks for, and
matrices are reached by address, so that a wrong size, pointer or leading dimension shows.
"""

from __future__ import annotations

import ctypes
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
Status = IntEnum(
    "Status",
    {"SUCCESS": 0, "ALLOC_FAILED": 3, "INVALID_VALUE": 7, "EXECUTION_FAILED": 13, "NOT_SUPPORTED": 15},
)
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
DESCRIPTOR_TYPES = dict(zip(MatmulDescAttribute, ("<i4", "<i4", "<u4", "<i8", "<i8", "<i8"), strict=True))
PREFERENCE_TYPES = dict(zip(MatmulPreferenceAttribute, ("<u8", "<u4", "<u4", "<u4", "<u4"), strict=True))
_DTYPES = {
    0: np.dtype(np.float32),
    1: np.dtype(np.float64),
    2: np.dtype(np.float16),
    14: np.dtype(ml_dtypes.bfloat16),
}
_ALGORITHM = np.dtype([("data_", np.uint64, 8)])
RESULT = np.dtype(
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


class Relu:
    """What the epilogues make of a ReLU's corners, which cuBLASLt does not document."""

    keeps_nan = True
    passes_gradient_at_zero = False


class cuBLASLtError(Exception):
    """As nvmath's, which derives from no other class; its message comes from the library itself."""

    def __init__(self, status: int) -> None:
        self.status = status
        super().__init__(f"{Status(status).name} ({status})")


def modules() -> list[ModuleType]:
    """Return the modules that stand for nvmath-python."""
    package, bindings = ModuleType("nvmath"), ModuleType("nvmath.bindings")
    cublas, lt = ModuleType("nvmath.bindings.cublas"), ModuleType("nvmath.bindings.cublasLt")
    bindings.cublas, bindings.cublasLt = cublas, lt
    vars(cublas).update({one.__name__: one for one in CUBLAS})
    vars(lt).update({one.__name__: one for one in (*CUBLASLT, *FUNCTIONS, cuBLASLtError)})
    lt.matmul_heuristic_result_dtype = RESULT
    return [package, bindings, cublas, lt]


def create() -> int:
    return _HANDLE


def get_version() -> int:
    return 120903


def destroy(light_handle: int) -> None:
    del _things[light_handle]


def matmul_desc_create(compute_type: int, scale_type: int) -> int:
    return _made({"compute": compute_type, "scale": scale_type})


def matmul_desc_destroy(matmul_desc: int) -> None:
    del _things[matmul_desc]


def matrix_layout_create(type: int, rows: int, cols: int, ld: int) -> int:
    return _made((type, rows, cols, ld))


def matrix_layout_destroy(mat_layout: int) -> None:
    del _things[mat_layout]


def matmul_preference_create() -> int:
    return _made({})


def matmul_preference_destroy(pref: int) -> None:
    del _things[pref]


def get_matmul_desc_attribute_dtype(attr: int) -> str:
    return DESCRIPTOR_TYPES[MatmulDescAttribute(attr)]


def get_matmul_preference_attribute_dtype(attr: int) -> str:
    return PREFERENCE_TYPES[MatmulPreferenceAttribute(attr)]


def matmul_desc_set_attribute(matmul_desc: int, attr: int, buf: int, size_in_bytes: int) -> None:
    dtype = get_matmul_desc_attribute_dtype(attr)
    _things[matmul_desc][MatmulDescAttribute(attr).name] = _read(buf, size_in_bytes, dtype)


def matmul_preference_set_attribute(pref: int, attr: int, buf: int, size_in_bytes: int) -> None:
    dtype = get_matmul_preference_attribute_dtype(attr)
    _things[pref][MatmulPreferenceAttribute(attr).name] = _read(buf, size_in_bytes, dtype)


def _made(thing: Any) -> int:
    handle = 0x10000 + next(_numbers)
    _things[handle] = thing
    return handle


def _read(address: int, size: int, dtype: str) -> int:
    assert size == np.dtype(dtype).itemsize
    return int(np.frombuffer(_at(address, size), dtype)[0])


def _at(address: int, size: int) -> Any:
    assert address
    return (ctypes.c_char * size).from_address(address)


def matmul_algo_get_heuristic(
    light_handle: int, operation_desc: int, adesc: int, bdesc: int, cdesc: int, ddesc: int, preference: int,
    requested_algo_count: int, heuristic_results_array: int, return_algo_count: int,
) -> None:  # fmt: skip
    assert light_handle == _HANDLE
    assert cdesc == ddesc
    description, wanted = _things[operation_desc], _things[preference]
    _shapes(description, adesc, bdesc, ddesc)
    assert wanted["MAX_WORKSPACE_BYTES"] == _workspace()
    for name, layout in zip("ABCD", (adesc, bdesc, cdesc, ddesc), strict=True):
        alignment = wanted[f"MIN_ALIGNMENT_{name}_BYTES"]
        assert alignment & (alignment - 1) == 0
        assert _DTYPES[_things[layout][0]].itemsize <= alignment <= 256
    size = requested_algo_count * RESULT.itemsize
    results = np.frombuffer(_at(heuristic_results_array, size), RESULT)
    results["state"][:2] = (Status.NOT_SUPPORTED, Status.SUCCESS)  # the first one is not supported after all
    results["algo"]["data_"][1] = _MARK
    np.frombuffer(_at(return_algo_count, 4), np.int32)[0] = 2


def matmul(
    light_handle: int, compute_desc: int, alpha: int, a: int, adesc: int, b: int, bdesc: int, beta: int,
    c: int, cdesc: int, d: int, ddesc: int, algo: int, workspace: int, workspace_size_in_bytes: int,
    stream: int,
) -> None:  # fmt: skip
    from simulated.cupy import stream_of

    assert light_handle == _HANDLE
    description = dict(_things[compute_desc])
    dtype = _DTYPES[description["scale"]]
    assert np.frombuffer(_at(alpha, dtype.itemsize), dtype)[0] == 1
    assert np.frombuffer(_at(beta, dtype.itemsize), dtype)[0] == 0
    assert (c, cdesc) == (d, ddesc)
    assert np.frombuffer(_at(algo, 64), np.uint64)[0] == _MARK
    assert workspace % 256 == 0
    assert workspace_size_in_bytes >= _workspace()
    _shapes(description, adesc, bdesc, ddesc)
    left, right, result = (
        column_major(pointer, *_things[layout]) for pointer, layout in ((a, adesc), (b, bdesc), (d, ddesc))
    )
    stream_of(stream).submit(lambda: multiply(description, left, right, result))


# What the backend takes of the bindings, each with the parameters' names that they have there.
CUBLAS = (Operation, ComputeType, Status)
CUBLASLT = (Epilogue, MatmulDescAttribute, MatmulPreferenceAttribute)
FUNCTIONS = (
    create,
    get_version,
    destroy,
    matmul_desc_create,
    matmul_desc_destroy,
    matmul_desc_set_attribute,
    get_matmul_desc_attribute_dtype,
    matrix_layout_create,
    matrix_layout_destroy,
    matmul_preference_create,
    matmul_preference_destroy,
    matmul_preference_set_attribute,
    get_matmul_preference_attribute_dtype,
    matmul_algo_get_heuristic,
    matmul,
)


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


def _workspace() -> int:
    from nnkit.backends.cublaslt import workspace_mib
    from simulated.driver import driver

    return workspace_mib(divmod(driver().capability, 10)) * 2**20


@np.errstate(over="ignore", invalid="ignore")
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
        z = product + bias[:, None].astype(product.dtype)
        product = np.maximum(z, 0) if Relu.keeps_nan else np.fmax(z, 0)
    if epilogue == Epilogue.RELU_AUX_BIAS:
        for column in range(columns):
            at = z[:, column]
            bits = np.packbits(at >= 0 if Relu.passes_gradient_at_zero else at > 0)
            mask[column * leading : column * leading + len(bits)] = bits
    if epilogue == Epilogue.DRELU_BGRAD:
        for column in range(columns):
            start = column * leading
            product[:, column] *= np.unpackbits(mask[start : start + -(-rows // 8)])[:rows]
        bias[:] = product.sum(axis=1)
    d[...] = product
