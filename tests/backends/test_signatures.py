"""The backend's calls of CuPy, numba-cuda and nvmath-python, against the packages that are installed.

Compiled functions have no Python signature, but Cython puts one into the first line of their docstring; what
has neither would fail here. Nothing is called, so none of this needs a driver. The stand-ins in `simulated`
are held to the same signatures, numbers and error classes, so that they cannot drift from the packages.
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Iterator
from enum import IntEnum
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulated import cublaslt as acted
from simulated import cupy as simulated_cupy

import nnkit.backends
from nnkit.backends import cuda_device

BACKENDS = Path(nnkit.backends.__file__).parent

# What is passed by position, and what by keyword.
CUPY_CALLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "empty": (("shape", "dtype"), ()),
    "zeros": (("shape", "dtype"), ()),
    "ascontiguousarray": (("a",), ()),
    "get_default_memory_pool": ((), ()),
    "ndarray.fill": (("value",), ()),
    "ndarray.view": (("dtype",), ()),
    "cuda.MemoryPool.free_bytes": ((), ()),
    "cuda.alloc_pinned_memory": (("size",), ()),
    "cuda.Device": (("device",), ()),
    "cuda.Stream": ((), ("non_blocking",)),
    "cuda.Stream.begin_capture": (("mode",), ()),
    "cuda.Stream.end_capture": ((), ()),
    "cuda.Stream.synchronize": ((), ()),
    "cuda.Stream.record": (("event",), ()),
    "cuda.Stream.wait_event": (("event",), ()),
    "cuda.Event": ((), ("block", "disable_timing")),
    "cuda.Event.synchronize": ((), ()),
    "cuda.Graph.launch": (("stream",), ()),
    "cuda.runtime.memcpyAsync": (("dst", "src", "size", "kind", "stream"), ()),
    "cuda.runtime.memcpy2DAsync": (
        ("dst", "dpitch", "src", "spitch", "width", "height", "kind", "stream"),
        (),
    ),
    "cuda.runtime.memGetInfo": ((), ()),
    "cuda.runtime.getDeviceCount": ((), ()),
    "cuda.runtime.getDeviceProperties": (("device",), ()),
    "cuda.runtime.driverGetVersion": ((), ()),
    "cuda.runtime.runtimeGetVersion": ((), ()),
}
# A universal function, whose signature NumPy's generalised ones have too.
CUPY_UFUNC = "matmul"
# cudaMemcpyKind and cudaStreamCaptureMode, in driver_types.h.
CUPY_NUMBERS = {
    "cuda.runtime.memcpyHostToDevice": 1,
    "cuda.runtime.memcpyDeviceToHost": 2,
    "cuda.runtime.memcpyDeviceToDevice": 3,
    "cuda.runtime.streamCaptureModeRelaxed": 2,
}
CUPY_ERRORS: dict[str, type[Exception]] = {
    "cuda.runtime.CUDARuntimeError": RuntimeError,
    "cuda.driver.CUDADriverError": RuntimeError,
    "cuda.cublas.CUBLASError": RuntimeError,
    "cuda.nvrtc.NVRTCError": RuntimeError,
    "cuda.memory.OutOfMemoryError": MemoryError,
    "cuda.compiler.CompileException": Exception,
}
CUBLASLT_CALLS = {
    "create": (),
    "destroy": ("light_handle",),
    "get_version": (),
    "matmul_desc_create": ("compute_type", "scale_type"),
    "matmul_desc_destroy": ("matmul_desc",),
    "matmul_desc_set_attribute": ("matmul_desc", "attr", "buf", "size_in_bytes"),
    "get_matmul_desc_attribute_dtype": ("attr",),
    "matrix_layout_create": ("type", "rows", "cols", "ld"),
    "matrix_layout_destroy": ("mat_layout",),
    "matmul_preference_create": (),
    "matmul_preference_destroy": ("pref",),
    "matmul_preference_set_attribute": ("pref", "attr", "buf", "size_in_bytes"),
    "get_matmul_preference_attribute_dtype": ("attr",),
    "matmul_algo_get_heuristic": (
        "light_handle", "operation_desc", "adesc", "bdesc", "cdesc", "ddesc", "preference",
        "requested_algo_count", "heuristic_results_array", "return_algo_count",
    ),
    "matmul": (
        "light_handle", "compute_desc", "alpha", "a", "adesc", "b", "bdesc", "beta", "c", "cdesc", "d",
        "ddesc", "algo", "workspace", "workspace_size_in_bytes", "stream",
    ),
}  # fmt: skip
CUBLASLT_OTHERS = {
    "cuBLASLtError",
    "Epilogue",
    "MatmulDescAttribute",
    "MatmulPreferenceAttribute",
    "matmul_heuristic_result_dtype",
}
NUMBA_CALLS: dict[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "numba.cuda:external_stream": (("ptr",), ()),
    "numba.cuda:as_cuda_array": (("obj",), ("sync",)),
    "numba.cuda:is_available": ((), ()),
    "numba.cuda:cuda_error": ((), ()),
    "numba.cuda.cudadrv.devicearray:DeviceNDArray": (
        ("shape", "strides", "dtype", "stream", "gpu_data"),
        (),
    ),
    "numba.cuda.dispatcher:CUDADispatcher.compile": (("sig",), ()),
    "numba.cuda.dispatcher:CUDADispatcher.typeof_pyval": (("val",), ()),
    "numba.cuda.dispatcher:CUDADispatcher.__getitem__": (("args",), ()),
    "numba.cuda.cudadrv.nvvm:compile_ir": (("llvmir",), ()),
}
NUMBA_ERRORS: dict[str, type[Exception]] = {
    "numba.cuda.cudadrv.driver:CudaAPIError": Exception,
    "numba.cuda.cudadrv.driver:LinkerError": RuntimeError,
    "numba.cuda.cudadrv.error:CudaDriverError": Exception,
    "numba.cuda.cudadrv.error:NvvmError": Exception,
    "numba.cuda.cudadrv.error:NvrtcError": Exception,
    "numba.cuda.cudadrv.error:NvvmSupportError": ImportError,
    "numba.cuda.cudadrv.error:CudaSupportError": ImportError,
    "numba.cuda.cudadrv.error:CCSupportError": RuntimeError,
    "numba.core.errors:NumbaError": Exception,
}


def member(root: Any, path: str) -> Any:
    """Return what a dotted path leads to."""
    for name in path.split("."):
        root = getattr(root, name)
    return root


def parameters(function: Any) -> list[str]:
    """Return the names that a function takes, without the instance."""
    try:
        names = list(inspect.signature(function).parameters)
    except ValueError:
        line = (function.__doc__ or "").partition("\n")[0]
        inside = line[line.index("(") + 1 : line.rindex(")")]
        names = [one.partition("=")[0].split()[-1] for one in inside.split(",") if one.strip()]
    return [name for name in names if name != "self"]


def takes(function: Any, positional: tuple[str, ...], keywords: tuple[str, ...]) -> None:
    names = parameters(function)
    assert tuple(names[: len(positional)]) == positional
    assert set(keywords) <= set(names)


def test_a_docstring_is_read_as_a_signature() -> None:
    class Compiled:
        __signature__ = "none"
        __doc__ = "Kind.call(self, intptr_t a, MemoryKind kind=1, size_t n) -> int\n\nWords (more)."

        def __call__(self) -> None: ...

    class Empty(Compiled):
        __doc__ = "call() -> intptr_t"

    def refuse(function: Any) -> None:
        raise ValueError("no signature found")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inspect, "signature", refuse)
        assert parameters(Compiled()) == ["a", "kind", "n"]
        assert parameters(Empty()) == []


def chains(*roots: str) -> set[str]:
    """Return what the backends' sources read of a library's modules, by the names that hold these there."""
    found = set()
    for path in BACKENDS.glob("*.py"):
        nodes = list(ast.walk(ast.parse(path.read_text())))
        inner = {id(node.value) for node in nodes if isinstance(node, ast.Attribute)}
        for node in nodes:
            if isinstance(node, ast.Attribute) and id(node) not in inner:
                text = ast.unparse(node)
                found |= {text.removeprefix(root) for root in roots if text.startswith(root)}
    return {text for text in found if "(" not in text and "[" not in text}


def test_every_call_of_cupy_in_the_backends_is_tested_here() -> None:
    used = chains("self._cupy.", "cupy.")
    used |= {f"cuda.runtime.{name}" for name in chains("self._runtime.", "runtime.")}
    # The backends' own module is called `cupy` too, in the package that loads it.
    tested = {CUPY_UFUNC, "__version__", "cuda.runtime", *CUPY_CALLS, *CUPY_NUMBERS, *CUPY_ERRORS}
    assert {"cuda.Stream", "cuda.runtime.memcpyAsync", "empty"} <= used
    assert used <= tested


def test_every_call_of_cublaslt_in_the_backends_is_tested_here() -> None:
    used = chains("lt.", "self.lt.", "library.lt.", "self._library.lt.")
    assert {"matmul", "create", "cuBLASLtError"} <= used
    assert used <= {*CUBLASLT_CALLS, *CUBLASLT_OTHERS}
    assert {one.__name__ for one in acted.FUNCTIONS} == set(CUBLASLT_CALLS)


@pytest.mark.extra("cupy")
@pytest.mark.parametrize("path", CUPY_CALLS)
def test_cupy_takes_what_it_is_given(path: str) -> None:
    import cupy

    takes(member(cupy, path), *CUPY_CALLS[path])


@pytest.mark.extra("cupy")
def test_cupys_product_takes_its_result() -> None:
    import cupy

    assert cupy.matmul._signature == "(n?,k),(k,m?)->(n?,m?)"
    assert "out" in inspect.signature(type(cupy.matmul).__call__).parameters


@pytest.mark.extra("cupy")
def test_cupys_numbers_and_errors() -> None:
    import cupy

    for path, number in CUPY_NUMBERS.items():
        assert int(member(cupy, path)) == number
    for path, base in CUPY_ERRORS.items():
        assert member(cupy, path).__base__ is base
    assert cupy.cuda.Stream.null.ptr == 0
    for kind in (cupy.cuda.Device, cupy.cuda.Stream):
        assert {"__enter__", "__exit__"} <= set(dir(kind))
    for name in ("data", "flags", "strides", "nbytes", "T", "__cuda_array_interface__"):
        assert hasattr(cupy.ndarray, name)
    assert hasattr(cupy.cuda.MemoryPointer, "ptr")
    assert hasattr(cupy.cuda.Device, "id")


@pytest.mark.extra("cupy")
def test_the_simulated_cupy_is_called_as_cupy_is() -> None:
    import cupy

    simulated, compared = simulated_cupy.module(), 0
    for path in CUPY_CALLS:
        # `cuda.Stream` is a function there, which chooses between kinds of streams.
        for root, name in ((simulated, path), (simulated_cupy, path.removeprefix("cuda."))):
            try:
                stand_in = member(root, name)
            except AttributeError:
                continue
            if getattr(stand_in, "__module__", "").startswith("simulated."):
                real = parameters(member(cupy, path))
                names = parameters(stand_in)
                assert [name for name in real if name in names] == names, path
                compared += 1
    assert compared >= 15
    for path, number in CUPY_NUMBERS.items():
        assert member(simulated, path) == number
    for path in ("cuda.runtime.CUDARuntimeError", *list(CUPY_ERRORS)[-2:]):
        assert builtin_base(member(simulated, path)) is builtin_base(member(cupy, path))


def builtin_base(error: type) -> type:
    return next(kind for kind in error.__mro__ if kind.__module__ == "builtins")


@pytest.mark.extra("nvmath")
@pytest.mark.parametrize("name", CUBLASLT_CALLS)
def test_cublaslt_takes_what_it_is_given_and_so_does_its_stand_in(name: str) -> None:
    from nvmath.bindings import cublasLt

    assert tuple(parameters(getattr(cublasLt, name))) == CUBLASLT_CALLS[name]
    assert tuple(parameters(getattr(acted, name))) == CUBLASLT_CALLS[name]


@pytest.mark.extra("nvmath")
@pytest.mark.parametrize("kind", [*acted.CUBLAS, *acted.CUBLASLT])
def test_the_stand_ins_numbers_are_the_librarys(kind: type[IntEnum]) -> None:
    from nvmath.bindings import cublas, cublasLt

    theirs = getattr(cublas if kind in acted.CUBLAS else cublasLt, kind.__name__)
    assert {one.name: one.value for one in kind} == {one.name: theirs[one.name].value for one in kind}


def attribute_types() -> Iterator[tuple[str, IntEnum, str]]:
    yield from (("matmul_desc", attribute, kind) for attribute, kind in acted.DESCRIPTOR_TYPES.items())
    yield from (("matmul_preference", attribute, kind) for attribute, kind in acted.PREFERENCE_TYPES.items())


@pytest.mark.extra("nvmath")
def test_the_structures_are_the_librarys() -> None:
    from nvmath.bindings import cublasLt

    for of, attribute, kind in attribute_types():
        for library in (cublasLt, acted):
            assert np.dtype(getattr(library, f"get_{of}_attribute_dtype")(attribute)) == np.dtype(kind)
    real = cublasLt.matmul_heuristic_result_dtype
    assert real == acted.RESULT
    # cublasLtMatmulHeuristicResult_t: first a cublasLtMatmulAlgo_t of 64 bytes, which a product is given.
    assert real.itemsize == 96
    assert (real["algo"].itemsize, real.fields["algo"][1], real.fields["state"][1]) == (64, 0, 72)


@pytest.mark.extra("nvmath")
def test_cublaslts_error_is_a_plain_exception_with_its_status() -> None:
    from nvmath.bindings import cublas, cublasLt

    for error in (cublasLt.cuBLASLtError, cublas.cuBLASError, acted.cuBLASLtError):
        assert error.__base__ is Exception
        assert parameters(error.__init__) == ["status"]
    assert acted.cuBLASLtError(15).status == 15  # the real one's is asked for in test_cublaslt.py


@pytest.mark.extra("nvmath")
def test_what_is_missing_is_a_runtime_error() -> None:
    """Errors of loading, which CuPy's, Numba's and nvmath's libraries go through."""
    from cuda import pathfinder
    from nvmath.bindings._internal import utils

    for error in (pathfinder.DynamicLibNotFoundError, utils.NotSupportedError, utils.FunctionNotFoundError):
        assert issubclass(error, RuntimeError)


def numba_member(path: str) -> Any:
    module, _, name = path.partition(":")
    return member(import_module(module), name)


@pytest.mark.extra("numba_cuda")
@pytest.mark.parametrize("path", NUMBA_CALLS)
def test_numba_takes_what_it_is_given(path: str) -> None:
    takes(numba_member(path), *NUMBA_CALLS[path])


@pytest.mark.extra("numba_cuda")
@pytest.mark.parametrize("path", NUMBA_ERRORS)
def test_numbas_errors(path: str) -> None:
    assert builtin_base(numba_member(path)) is NUMBA_ERRORS[path]


@pytest.mark.extra("numba_cuda")
def test_the_drivers_errors_have_one_base_and_a_number() -> None:
    from numba.cuda.cudadrv.driver import CudaAPIError
    from numba.cuda.cudadrv.error import CudaDriverError

    assert issubclass(CudaAPIError, CudaDriverError)
    assert CudaAPIError(2, "words").code == 2


@pytest.mark.extra("numba_cuda")
def test_cuda_pythons_errors_are_known_by_their_package() -> None:
    import numba.cuda.cudadrv.driver  # noqa: F401 (imports cuda-python)

    found = {
        error
        for name, module in list(sys.modules.items())
        if name.startswith("cuda.")
        for error in vars(module).values()
        if inspect.isclass(error) and error.__name__ in ("CUDAError", "nvJitLinkError")
    }
    assert "CUDAError" in {error.__name__ for error in found}
    assert all(error.__module__.startswith("cuda.") for error in found)


@pytest.mark.extra("cupy")
@pytest.mark.extra("numba_cuda")
def test_the_errors_that_the_backend_translates() -> None:
    import cupy

    translated = cuda_device._library_errors(cupy)
    listed = [member(cupy, path) for path in CUPY_ERRORS]
    listed += [numba_member(f"numba.cuda.cudadrv.error:{name}") for name in ("CudaSupportError", "NvvmError")]
    for error in (*listed, numba_member("numba.cuda.cudadrv.driver:CudaAPIError")):
        assert issubclass(error, translated)
    for error in (ValueError, MemoryError, numba_member("numba.core.errors:NumbaError")):
        assert not issubclass(error, translated)
    assert "cudaErrorMemoryAllocation" in str(cupy.cuda.runtime.CUDARuntimeError(2))


@pytest.mark.extra("numba_cuda")
def test_nvvm_takes_a_target_by_name() -> None:
    from numba.cuda.cudadrv import nvvm

    kinds = {one.kind for one in inspect.signature(nvvm.compile_ir).parameters.values()}
    assert inspect.Parameter.VAR_KEYWORD in kinds
