"""Matrix products of row-major arrays by cuBLASLt: what it is told (`plan_product`), then the telling of it.

cuBLASLt's matrices are column-major, so a row-major array is its transpose there, and ``out = a @ b`` is
asked for as ``outᵀ = bᵀ aᵀ``: cuBLASLt's A is our `b`, its B our `a`, the rows of its D our columns. So a
bias vector, which it adds to every column of D, has one element for each of our columns.

Reference: NVIDIA, cuBLAS documentation, "Using the cuBLASLt API", docs.nvidia.com/cuda/cublas.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from nnkit.backends.cuda_device import CudaDevice
from nnkit.backends.protocol import Array, Operation

__all__ = ["CublasLt", "Epilogue", "Layout", "ProductPlan", "load_cublaslt", "plan_product"]

logger = logging.getLogger("nnkit")

Epilogue = Literal["DEFAULT", "RELU_BIAS", "RELU_AUX_BIAS", "DRELU_BGRAD"]

_MASK_ALIGNMENT = 128  # bits: what a ReLU mask's leading dimension must be a multiple of
_CANDIDATES = 8
# The workspace that NVIDIA advises, by major compute capability, in MiB (cuBLAS documentation,
# cublasSetWorkspace); nvmath-python adds 16 bytes to it where there is an epilogue, as a workaround.
_WORKSPACE_MIB = {9: 32, 10: 32, 12: 12}
_WORKSPACE_OF_OTHERS_MIB = 4
_WORKSPACE_SPARE = 256
_LARGEST_ALIGNMENT = 256


@dataclass(frozen=True)
class Layout:
    """A column-major matrix as it lies in memory: element (i, j) at ``i + j * leading``."""

    rows: int
    columns: int
    leading: int


@dataclass(frozen=True)
class ProductPlan:
    """``D = epilogue(op(A) op(B))``, all column-major.

    Parameters
    ----------
    a, b, d : Layout
        As stored, before transposing.
    transpose_a, transpose_b : bool
        Whether op transposes.
    dtype : dtype
        Of A and B.
    out_dtype : dtype
        Of D: the same, or float32 where they have 16 bits.
    epilogue : str
        ``RELU_BIAS`` adds a vector to each column of D and sets what is negative to zero; ``RELU_AUX_BIAS``
        keeps a bit of each element too; ``DRELU_BGRAD`` multiplies by such bits and sums the rows of D.
    mask_leading : int
        The bits from one column of the mask to the next; 0 without a mask.
    """

    a: Layout
    b: Layout
    d: Layout
    transpose_a: bool
    transpose_b: bool
    dtype: np.dtype
    out_dtype: np.dtype
    epilogue: Epilogue = "DEFAULT"
    mask_leading: int = 0


def plan_product(
    a: Array, b: Array, out: Array, epilogue: Epilogue = "DEFAULT", mask: Array | None = None
) -> ProductPlan | None:
    """Return what cuBLASLt is told of ``out = a @ b``; None where it has no such product.

    Parameters
    ----------
    a : array of shape (m, k)
        Its rows contiguous, or its columns; the distance between them is free.
    b : array of shape (k, n)
        Likewise.
    out : array of shape (m, n)
        Its rows contiguous.
    epilogue : str
        As in `ProductPlan`.
    mask : array of shape (m, ⌈n / 128⌉ · 16), uint8, or None
        A bit for each element of `out`.

    Raises
    ------
    ValueError
        If shapes, dtypes or strides are others.
    """
    (m, k), n = a.shape, b.shape[1]
    if b.shape[0] != k or out.shape != (m, n):
        raise ValueError(f"{a.shape} @ {b.shape} does not make {out.shape}")
    widened = a.dtype.itemsize == 2 and out.dtype == np.float32
    if a.dtype != b.dtype or not (out.dtype == a.dtype or widened):
        raise ValueError(f"dtypes differ: {a.dtype}, {b.dtype}, {out.dtype}")
    # nvmath-python's source says of the gradient's epilogue: "K=1 is not supported by cuBLAS".
    if 0 in (m, n, k) or (epilogue == "DRELU_BGRAD" and k == 1):
        return None
    first, transpose_first = _stored(b)
    second, transpose_second = _stored(a)
    result, transposed = _stored(out)
    if transposed:
        raise ValueError(f"the rows of a result must be contiguous, not with strides {out.strides}")
    leading = 0 if mask is None else _mask_leading(mask, m, n)
    return ProductPlan(
        first, second, result, transpose_first, transpose_second,
        np.dtype(a.dtype), np.dtype(out.dtype), epilogue, leading,
    )  # fmt: skip


def _stored(array: Array) -> tuple[Layout, bool]:
    """Return an array's memory as a column-major matrix, and whether that is the array, not its transpose.

    Where an axis is of length one its stride says nothing, and the layout is taken from the other.
    """
    rows, columns = array.shape
    down, across = (stride // array.dtype.itemsize for stride in array.strides)
    if (columns == 1 or across == 1) and (rows == 1 or down >= columns):
        return Layout(columns, rows, down if rows > 1 else columns), False
    if (rows == 1 or down == 1) and (columns == 1 or across >= rows):
        return Layout(rows, columns, across if columns > 1 else rows), True
    raise ValueError(f"neither rows nor columns are contiguous: shape {array.shape}, strides {array.strides}")


def _mask_leading(mask: Array, rows: int, columns: int) -> int:
    wanted = (rows, -(-columns // _MASK_ALIGNMENT) * _MASK_ALIGNMENT // 8)
    pitch = mask.strides[0] if rows > 1 else mask.shape[1]
    if mask.shape != wanted or mask.dtype != np.uint8 or pitch * 8 % _MASK_ALIGNMENT:
        raise ValueError(f"a mask must be uint8 of shape {wanted}, not {mask.dtype} of {mask.shape}")
    return int(pitch) * 8


def load_cublaslt(device: CudaDevice) -> CublasLt:
    """Return the device's products through nvmath-python.

    Raises
    ------
    ImportError, OSError, RuntimeError or AttributeError
        If nvmath-python or cuBLASLt is missing, or cannot be loaded, or is too old.
    """
    from nvmath.bindings import cublas, cublasLt

    return CublasLt(_Library(cublas, cublasLt, device), "fp32")


class _Library:
    """The loaded cuBLASLt: its handle and the workspace, which all products on the device's stream share."""

    def __init__(self, cublas: Any, lt: Any, device: CudaDevice) -> None:
        self.cublas = cublas
        self.lt = lt
        self.device = device
        mib = _WORKSPACE_MIB.get(device.compute_capability[0], _WORKSPACE_OF_OTHERS_MIB)
        self.workspace_bytes = mib * 2**20
        with device.active():
            self.handle = lt.create()
            weakref.finalize(self, _quietly, lt.destroy, self.handle)
            self.workspace = device.empty(self.workspace_bytes + _WORKSPACE_SPARE, np.uint8)
            self.version = str(lt.get_version())
        self.precisions: tuple[str, ...] = ("fp32", "fp64", *_precisions_since(device))


class CublasLt:
    """Products in one precision.

    Parameters
    ----------
    library : _Library
        Shared by all precisions.
    precision : str
        ``fp32`` is true float32; ``tf32`` rounds float32 operands to ten bits of mantissa, on compute
        capability 8.0 or later. float64 arrays are multiplied in float64 in either, and those in 16 bits with
        sums in float32: float16 from capability 7.0 on, bfloat16 from 8.0 on.
    """

    why_not_captured = ""

    def __init__(self, library: _Library, precision: str) -> None:
        self._library = library
        self._precision = precision
        self.precisions = library.precisions

    def computing(self, precision: str) -> CublasLt:
        """Return the same products in another precision."""
        return CublasLt(self._library, precision)

    def describe(self) -> str:
        """Return the library and its version."""
        version = self._library.version  # such as 120903: major, minor, patch
        return f"cuBLASLt {version[:-4]}.{int(version[-4:-2])}.{int(version[-2:])}"

    def matmul(self, a: Array, b: Array, out: Array) -> Operation | None:
        """Prepare ``out = a @ b``; None where cuBLASLt has no algorithm for it."""
        return self._prepared(plan_product(a, b, out), a, b, out)

    def matmul_relu(
        self, a: Array, b: Array, bias: Array, out: Array, mask: Array | None
    ) -> Operation | None:
        """Prepare ``out = max(a @ b + bias, 0)``, and its mask; None likewise."""
        plan = plan_product(a, b, out, "RELU_BIAS" if mask is None else "RELU_AUX_BIAS", mask)
        return self._prepared(plan, a, b, out, bias, mask)

    def matmul_relu_gradient(
        self, a: Array, b: Array, mask: Array, out: Array, bias_gradient: Array
    ) -> Operation | None:
        """Prepare ``out = (a @ b) * mask`` and the sums of its columns; None likewise."""
        return self._prepared(plan_product(a, b, out, "DRELU_BGRAD", mask), a, b, out, bias_gradient, mask)

    def _prepared(
        self,
        plan: ProductPlan | None,
        a: Array,
        b: Array,
        out: Array,
        bias: Array | None = None,
        mask: Array | None = None,
    ) -> Operation | None:
        if plan is None:
            return None
        if bias is not None and bias.dtype != plan.out_dtype:
            raise ValueError(f"a bias is of the result's type, {plan.out_dtype}, not {bias.dtype}")
        with self._library.device.active():
            product = _Product(self._library, plan, self._precision, a, b, out, bias, mask)
        return product if product.found else None


class _Product:
    """One product, its descriptors made and its algorithm chosen; called, it is enqueued.

    The algorithm is the first that cuBLASLt's heuristic gives. A choice by timing the candidates might be
    faster, and might differ from one run to the next, with other bits; `_candidates` has them all.
    """

    def __init__(
        self,
        library: _Library,
        plan: ProductPlan,
        precision: str,
        a: Array,
        b: Array,
        out: Array,
        bias: Array | None,
        mask: Array | None,
    ) -> None:
        lt = library.lt
        self._arrays = (a, b, out, bias, mask, library)  # alive as long as their addresses are in use
        pointers = {"A": int(b.data.ptr), "B": int(a.data.ptr), "D": int(out.data.ptr)}
        kinds = _types(library.cublas, plan, precision)
        descriptor = lt.matmul_desc_create(kinds.compute, kinds.factors)
        weakref.finalize(self, _quietly, lt.matmul_desc_destroy, descriptor)
        for attribute, value in _attributes(library, plan, bias, mask).items():
            _set(lt.matmul_desc_set_attribute, descriptor, lt.MatmulDescAttribute[attribute], value,
                 lt.get_matmul_desc_attribute_dtype)  # fmt: skip
        of_all = ((kinds.data, plan.a), (kinds.data, plan.b), (kinds.out, plan.d))
        layouts = [self._layout(lt, data_type, layout) for data_type, layout in of_all]
        self._candidates = _candidates(library, descriptor, layouts, pointers)
        self.found = bool(self._candidates)
        if not self.found:
            return
        self._algorithm = np.array(self._candidates[0])  # a copy of its own: its address is in the call
        self._factors = np.array([1, 0], np.float64 if plan.dtype == np.float64 else np.float32)
        one, zero = (self._factors.ctypes.data + i * self._factors.itemsize for i in range(2))
        a_layout, b_layout, d_layout = layouts
        self._call: Callable[[], None] = partial(
            lt.matmul, library.handle, descriptor,
            one, pointers["A"], a_layout, pointers["B"], b_layout,
            zero, pointers["D"], d_layout, pointers["D"], d_layout,
            self._algorithm.ctypes.data,
            int(library.workspace.data.ptr), library.workspace_bytes + _WORKSPACE_SPARE,
            library.device.stream_pointer,
        )  # fmt: skip

    def __call__(self) -> None:
        self._call()

    def _layout(self, lt: Any, data_type: int, layout: Layout) -> int:
        made = lt.matrix_layout_create(data_type, layout.rows, layout.columns, layout.leading)
        weakref.finalize(self, _quietly, lt.matrix_layout_destroy, made)
        return int(made)


@dataclass(frozen=True)
class _Types:
    """cuBLAS's numbers for the types of A and B, of D, of the factors, and for the arithmetic."""

    data: int
    out: int
    factors: int
    compute: int


# cudaDataType_t, in library_types.h.
_DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}


def _types(cublas: Any, plan: ProductPlan, precision: str) -> _Types:
    if plan.dtype.name not in _DATA_TYPES:
        raise ValueError(f"products are of {', '.join(_DATA_TYPES)}, not {plan.dtype}")
    data, out = (_DATA_TYPES[dtype.name] for dtype in (plan.dtype, plan.out_dtype))
    if plan.dtype == np.float64:
        return _Types(data, out, data, int(cublas.ComputeType.COMPUTE_64F))
    fast = precision == "tf32" and plan.dtype == np.float32
    compute = cublas.ComputeType["COMPUTE_32F_FAST_TF32" if fast else "COMPUTE_32F"]
    return _Types(data, out, _DATA_TYPES["float32"], int(compute))


def _precisions_since(device: CudaDevice) -> tuple[str, ...]:
    """Return what the card's generation adds to float32 and float64."""
    capability = device.compute_capability
    half = ("fp16",) if capability >= (7, 0) else ()
    if capability < (8, 0):
        return half
    return ("tf32", *half, "bf16") if device.has_bfloat16() else ("tf32", *half)


def _attributes(
    library: _Library, plan: ProductPlan, bias: Array | None, mask: Array | None
) -> Mapping[str, int]:
    """Return what a product's descriptor is to hold, by the names of MatmulDescAttribute."""
    operation = library.cublas.Operation
    attributes = {
        "TRANSA": int(operation.T if plan.transpose_a else operation.N),
        "TRANSB": int(operation.T if plan.transpose_b else operation.N),
        "EPILOGUE": int(library.lt.Epilogue[plan.epilogue]),
    }
    if bias is not None:
        attributes["BIAS_POINTER"] = int(bias.data.ptr)
    if mask is not None:
        attributes["EPILOGUE_AUX_POINTER"] = int(mask.data.ptr)
        attributes["EPILOGUE_AUX_LD"] = plan.mask_leading
    return attributes


def _set(setter: Callable, handle: int, attribute: int, value: int, dtype_of: Callable) -> None:
    packed = np.array([value], dtype_of(attribute))
    setter(handle, attribute, packed.ctypes.data, packed.nbytes)


def _candidates(
    library: _Library, descriptor: int, layouts: list[int], pointers: Mapping[str, int]
) -> list[Any]:
    """Return the algorithms that cuBLASLt's heuristic finds, the one it thinks best first."""
    lt = library.lt
    preference = lt.matmul_preference_create()
    try:
        wanted = {"MAX_WORKSPACE_BYTES": library.workspace_bytes}
        for name, pointer in {**pointers, "C": pointers["D"]}.items():
            wanted[f"MIN_ALIGNMENT_{name}_BYTES"] = _alignment(pointer)
        for attribute, value in wanted.items():
            _set(lt.matmul_preference_set_attribute, preference, lt.MatmulPreferenceAttribute[attribute],
                 value, lt.get_matmul_preference_attribute_dtype)  # fmt: skip
        results = np.zeros(_CANDIDATES, lt.matmul_heuristic_result_dtype)
        found = np.zeros(1, np.int32)
        a, b, d = layouts
        lt.matmul_algo_get_heuristic(
            library.handle, descriptor, a, b, d, d, preference,
            _CANDIDATES, results.ctypes.data, found.ctypes.data,
        )  # fmt: skip
    except lt.cuBLASLtError as error:
        logger.debug("cuBLASLt has no algorithm: %s", error)
        return []
    finally:
        lt.matmul_preference_destroy(preference)
    return [result["algo"] for result in results[: found[0]] if result["state"] == 0]


def _alignment(pointer: int) -> int:
    """Return the greatest power of two that divides an address, as far as cuBLASLt cares."""
    return min(_LARGEST_ALIGNMENT, pointer & -pointer)


def _quietly(destroy: Callable[[int], None], handle: int) -> None:
    # At the interpreter's end the driver may be gone before its handles.
    try:
        destroy(handle)
    except Exception as error:
        logger.debug("cuBLASLt: %s", error)
