"""Matrix products by cuBLASLt through nvmath-python: the library loaded and tried, and products prepared.

Reference: NVIDIA, cuBLAS documentation, "Using the cuBLASLt API", docs.nvidia.com/cuda/cublas.
"""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from nnkit.backends.cublaslt_plan import Layout, ProductPlan, plan_product
from nnkit.backends.cuda_device import Call, CudaDevice, first_line
from nnkit.backends.cuda_relu import relu_difference
from nnkit.backends.operations import Array
from nnkit.errors import DeviceError, DeviceMemoryError

__all__ = ["CublasLt", "load_cublaslt", "workspace_mib"]

logger = logging.getLogger("nnkit")

_CANDIDATES = 8
# The workspace that NVIDIA advises, by major compute capability, in MiB (cuBLAS documentation,
# cublasSetWorkspace). Jetson Thor is 11.0 since CUDA 13 and was 10.1 before, which the documentation counts
# among the 10.x.
_WORKSPACE_MIB = {9: 32, 10: 32, 11: 32, 12: 12}
_WORKSPACE_OF_OTHERS_MIB = 4
_WORKSPACE_SPARE = 256  # nvmath-python adds 16 bytes where there is an epilogue, as a workaround
_LARGEST_ALIGNMENT = 256
# cublasStatus_t of a heuristic that knows no algorithm: INVALID_VALUE, ARCH_MISMATCH, NOT_SUPPORTED.
_REFUSALS = (7, 8, 15)


def workspace_mib(compute_capability: tuple[int, int]) -> int:
    """Return how large a workspace cuBLASLt should have on a card, in MiB."""
    return _WORKSPACE_MIB.get(compute_capability[0], _WORKSPACE_OF_OTHERS_MIB)


def load_cublaslt(device: CudaDevice) -> CublasLt:
    """Return the device's products through nvmath-python, after trying a small one.

    Raises
    ------
    Exception
        If nvmath-python or cuBLASLt is missing, does not load, is too old or does not work on this device;
        nvmath's own errors have no common base class.
    """
    from nvmath.bindings import cublas, cublasLt

    products = CublasLt(_Library(cublas, cublasLt, device), "fp32")
    _try_product(products, device)
    return products


def _try_product(products: CublasLt, device: CudaDevice) -> None:
    """Raise a RuntimeError, such as a DeviceError, unless a small product is right."""
    identity, out = device.from_host(np.eye(8, dtype=np.float32)), device.zeros((8, 8), np.float32)
    product = products.matmul(identity, identity, out)
    if product is None:
        raise RuntimeError("cuBLASLt has no algorithm for this GPU")
    with device.active():
        product()
    if not np.array_equal(device.to_host(out), np.eye(8)):
        raise RuntimeError("a trial product by cuBLASLt was wrong")


class _Library:
    """The loaded cuBLASLt: its handle and the workspace, which all products on the device's stream share."""

    def __init__(self, cublas: Any, lt: Any, device: CudaDevice) -> None:
        self.cublas = cublas
        self.lt = lt
        self.device = device
        self.workspace_bytes = workspace_mib(device.compute_capability) * 2**20
        # The difference of each kind of ReLU epilogue from nnkit's formulas; empty where there is none.
        self.relu_differences: dict[tuple[Any, ...], str] = {}
        with device.active():
            self.handle = lt.create()
            weakref.finalize(self, _quietly, lt.destroy, self.handle)
            self.workspace = device.empty(self.workspace_bytes + _WORKSPACE_SPARE, np.uint8)
            self.version = str(lt.get_version())
        self.precisions: tuple[str, ...] = ("fp32", "fp64", *_precisions_since(device))

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Raise a DeviceError in place of an error of cuBLASLt."""
        try:
            yield
        except self.lt.cuBLASLtError as error:
            raise self.failure(error) from error

    def failure(self, error: Exception) -> DeviceError:
        return DeviceError(f"device {self.device.name}: cuBLASLt failed ({first_line(error)})")


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

    def with_precision(self, precision: str) -> CublasLt:
        """Return the same products in another precision."""
        return CublasLt(self._library, precision)

    def describe(self) -> str:
        """Return the library and its version."""
        version = self._library.version  # such as 120903: major, minor, patch
        return f"cuBLASLt {version[:-4]}.{int(version[-4:-2])}.{int(version[-2:])}"

    def matmul(self, a: Array, b: Array, out: Array) -> Call | None:
        """Prepare ``out = a @ b``; None where cuBLASLt has no algorithm for it."""
        return self._prepared(plan_product(a, b, out), a, b, out)

    def matmul_relu(self, a: Array, b: Array, bias: Array, out: Array, mask: Array | None) -> Call | None:
        """Prepare ``out = max(a @ b + bias, 0)``, and its mask; None likewise.

        None too where cuBLASLt's ReLU, or its mask if there is one, differs from nnkit's: see
        `relu_difference`.
        """
        if self.relu_difference(a.dtype, out.dtype, mask is not None):
            return None
        return self._matmul_relu(a, b, bias, out, mask)

    def matmul_relu_gradient(
        self, a: Array, b: Array, mask: Array, out: Array, bias_gradient: Array
    ) -> Call | None:
        """Prepare ``out = (a @ b) * mask`` and the sums of its columns; None as for `matmul_relu`."""
        if self.relu_difference(a.dtype, out.dtype, True):
            return None
        return self._matmul_relu_gradient(a, b, mask, out, bias_gradient)

    def relu_difference(self, dtype: np.dtype, out_dtype: np.dtype, masked: bool) -> str:
        """Return how cuBLASLt's ReLU, with a mask or without, differs from nnkit's; empty where it does not.

        It is tried on the device, once for each precision and each pair of types. One that fails counts as
        different, and nnkit's kernels replace it; if a plain product fails too, the error is raised.
        """
        known = self._library.relu_differences
        kind = (self._precision, np.dtype(dtype), np.dtype(out_dtype), masked)
        if kind not in known:
            backward = self._matmul_relu_gradient if masked else None
            device = self._library.device
            try:
                known[kind] = relu_difference(device, self._matmul_relu, backward, dtype, out_dtype)
            except DeviceMemoryError:
                raise
            except DeviceError as error:
                if not self._multiplies():
                    raise
                known[kind] = f"it fails: {first_line(error)}"
        return known[kind]

    def _multiplies(self) -> bool:
        try:
            _try_product(self, self._library.device)
        except RuntimeError:
            return False
        return True

    def describe_relu(self) -> str:
        """Return whether products in float32 include the ReLU, and why not."""
        real = np.dtype(np.float32)
        masked, plain = (self.relu_difference(real, real, kept) for kept in (True, False))
        return f"no ({plain})" if plain else f"forward only ({masked})" if masked else "yes"

    def _matmul_relu(self, a: Array, b: Array, bias: Array, out: Array, mask: Array | None) -> Call | None:
        plan = plan_product(a, b, out, "RELU_BIAS" if mask is None else "RELU_AUX_BIAS", mask)
        return self._prepared(plan, a, b, out, bias, mask)

    def _matmul_relu_gradient(
        self, a: Array, b: Array, mask: Array, out: Array, bias_gradient: Array
    ) -> Call | None:
        return self._prepared(plan_product(a, b, out, "DRELU_BGRAD", mask), a, b, out, bias_gradient, mask)

    def _prepared(
        self,
        plan: ProductPlan | None,
        a: Array,
        b: Array,
        out: Array,
        bias: Array | None = None,
        mask: Array | None = None,
    ) -> Call | None:
        if plan is None:
            return None
        if bias is not None and bias.dtype != plan.out_dtype:
            raise ValueError(f"a bias is of the result's type, {plan.out_dtype}, not {bias.dtype}")
        with self._library.device.active(), self._library.asked():
            product = _Product(self._library, plan, self._precision, a, b, out, bias, mask)
        return product if product.found else None


class _Product:
    """One product, its descriptors made and its algorithm chosen; called, it is enqueued.

    The algorithm is the first that cuBLASLt's heuristic gives. Timing the candidates that `_candidates`
    returns might find a faster one, but the choice, and with it the bits, could vary from run to run.
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
        self._library = library
        self._arrays = (a, b, out, bias, mask)  # kept alive while their addresses are in use
        pointers = {"A": int(b.data.ptr), "B": int(a.data.ptr), "D": int(out.data.ptr)}
        data, out_data, factors, compute = _types(library.cublas, plan, precision)
        descriptor = lt.matmul_desc_create(compute, factors)
        weakref.finalize(self, _quietly, lt.matmul_desc_destroy, descriptor)
        for attribute, value in _attributes(library, plan, bias, mask).items():
            _set(lt.matmul_desc_set_attribute, descriptor, lt.MatmulDescAttribute[attribute], value,
                 lt.get_matmul_desc_attribute_dtype)  # fmt: skip
        operands = ((data, plan.a), (data, plan.b), (out_data, plan.d))
        layouts = [self._layout(lt, data_type, layout) for data_type, layout in operands]
        self._candidates = _candidates(library, descriptor, layouts, pointers)
        self.found = bool(self._candidates)
        if not self.found:
            return
        self._algorithm = np.array(self._candidates[0])  # a copy of its own: its address is in the call
        self._factors = np.array([1, 0], np.float64 if plan.dtype == np.float64 else np.float32)
        one, zero = (self._factors.ctypes.data + i * self._factors.itemsize for i in range(2))
        a_layout, b_layout, d_layout = layouts
        self._call: Call = partial(
            lt.matmul, library.handle, descriptor,
            one, pointers["A"], a_layout, pointers["B"], b_layout,
            zero, pointers["D"], d_layout, pointers["D"], d_layout,
            self._algorithm.ctypes.data,
            int(library.workspace.data.ptr), library.workspace_bytes + _WORKSPACE_SPARE,
            library.device.stream_pointer,
        )  # fmt: skip

    def __call__(self) -> None:
        try:
            self._call()
        except self._library.lt.cuBLASLtError as error:
            raise self._library.failure(error) from error

    def _layout(self, lt: Any, data_type: int, layout: Layout) -> int:
        made = lt.matrix_layout_create(data_type, layout.rows, layout.columns, layout.leading)
        weakref.finalize(self, _quietly, lt.matrix_layout_destroy, made)
        return int(made)


# cudaDataType_t, in library_types.h.
_DATA_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}


def _types(cublas: Any, plan: ProductPlan, precision: str) -> tuple[int, int, int, int]:
    """Return cuBLAS's numbers for the types of A and B, of D, of the factors, and for the arithmetic."""
    if plan.dtype.name not in _DATA_TYPES:
        raise ValueError(f"products are of {', '.join(_DATA_TYPES)}, not {plan.dtype}")
    data, out = (_DATA_TYPES[dtype.name] for dtype in (plan.dtype, plan.out_dtype))
    if plan.dtype == np.float64:
        return data, out, data, int(cublas.ComputeType.COMPUTE_64F)
    fast = precision == "tf32" and plan.dtype == np.float32
    compute = cublas.ComputeType["COMPUTE_32F_FAST_TF32" if fast else "COMPUTE_32F"]
    return data, out, _DATA_TYPES["float32"], int(compute)


def _precisions_since(device: CudaDevice) -> tuple[str, ...]:
    """Return the card's precisions beyond float32 and float64."""
    capability = device.compute_capability
    half = ("fp16",) if capability >= (7, 0) else ()
    if capability < (8, 0):
        return half
    return ("tf32", *half, "bf16") if device.has_bfloat16() else ("tf32", *half)


def _attributes(
    library: _Library, plan: ProductPlan, bias: Array | None, mask: Array | None
) -> Mapping[str, int]:
    """Return the attributes of a product's descriptor, by their names in MatmulDescAttribute."""
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
    """Return the algorithms that cuBLASLt's heuristic finds, its best first."""
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
        if error.status not in _REFUSALS:
            raise
        logger.debug("cuBLASLt has no algorithm: %s", error)
        return []
    finally:
        lt.matmul_preference_destroy(preference)
    return [result["algo"] for result in results[: found[0]] if result["state"] == 0]


def _alignment(pointer: int) -> int:
    """Return the greatest power of two that divides an address, up to the largest that cuBLASLt considers."""
    return min(_LARGEST_ALIGNMENT, pointer & -pointer)


def _quietly(destroy: Callable[[int], None], handle: int) -> None:
    # At the interpreter's end the driver may be gone before its handles.
    try:
        destroy(handle)
    except Exception as error:
        logger.debug("cuBLASLt: %s", error)
