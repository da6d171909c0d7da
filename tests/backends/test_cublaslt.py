"""What cuBLASLt is told of a product: acted out on memory by address, and told to the real library."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from numpy.typing import NDArray
from simulated import cublaslt as acted

from nnkit.backends.cublaslt import workspace_mib
from nnkit.backends.cublaslt_plan import Epilogue, ProductPlan, mask_shape, plan_product

SHAPES = [(5, 7, 3), (1, 4, 6), (4, 1, 6), (6, 4, 1), (1, 1, 1), (1, 5, 1), (3, 1, 1), (130, 9, 140)]
DTYPES = (np.float32, np.float64)
KINDS = {dtype: kind for kind, dtype in acted._DTYPES.items()}


def padded(array: NDArray, transposed: bool, spare: int) -> NDArray:
    """Return the values in the memory of a wider matrix, which lies transposed or not."""
    values = array.T if transposed else array
    memory = np.full((values.shape[0], values.shape[1] + spare), np.nan, array.dtype)
    view = memory[:, : values.shape[1]]
    view[...] = values
    return view.T if transposed else view


def act(
    plan: ProductPlan | None,
    a: NDArray,
    b: NDArray,
    out: NDArray,
    bias: NDArray | None = None,
    mask: NDArray | None = None,
) -> None:
    """Do what a plan says, by nothing but addresses and leading dimensions."""
    assert plan is not None
    kind, kind_of_d = KINDS[plan.dtype], KINDS[plan.out_dtype]
    matrices = [
        acted.column_major(array.ctypes.data, number, layout.rows, layout.columns, layout.leading)
        for array, layout, number in ((b, plan.a, kind), (a, plan.b, kind), (out, plan.d, kind_of_d))
    ]
    description = {
        "TRANSA": plan.transpose_a,
        "TRANSB": plan.transpose_b,
        "EPILOGUE": acted.Epilogue[plan.epilogue],
        "EPILOGUE_AUX_LD": plan.mask_leading,
        "BIAS_POINTER": 0 if bias is None else bias.ctypes.data,
        "EPILOGUE_AUX_POINTER": 0 if mask is None else mask.ctypes.data,
    }
    acted.multiply(description, *matrices)


def operands(m: int, k: int, n: int, dtype: Any) -> tuple[NDArray, NDArray]:
    random = np.random.default_rng(0)
    return random.normal(size=(m, k)).astype(dtype), random.normal(size=(k, n)).astype(dtype)


def mask_for(rows: int, columns: int) -> NDArray[np.uint8]:
    return np.zeros(mask_shape(rows, columns), np.uint8)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("spare", [0, 4])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_product_is_planned_for_every_layout(shape, transposed, spare, dtype) -> None:
    a, b = operands(*shape, dtype)
    left, right = padded(a, transposed[0], spare), padded(b, transposed[1], spare)
    out = padded(np.zeros((shape[0], shape[2]), dtype), False, spare)
    act(plan_product(left, right, out), left, right, out)
    np.testing.assert_allclose(out, a @ b, rtol=1e-5 if dtype == np.float32 else 1e-13, atol=1e-5)
    if spare:
        assert np.isnan(out.base[:, shape[2] :]).all()


@pytest.mark.parametrize(
    "view", [lambda w: w[:, :1], lambda w: w[:1], lambda w: w[:, :1].T, lambda w: w[:1].T]
)
def test_one_row_or_column_of_a_matrix_is_planned(view) -> None:
    w = np.arange(20.0).reshape(4, 5)
    b = view(w)
    for a in (np.ones((3, b.shape[0])), np.ones((1, b.shape[0]))):
        out = np.empty((len(a), b.shape[1]))
        act(plan_product(a, b, out), a, b, out)
        np.testing.assert_array_equal(out, a @ b)


def test_the_rows_of_a_larger_array_are_planned() -> None:
    a, b = operands(6, 4, 5, np.float64)
    out = np.empty((6, 5))
    act(plan_product(a[2:4], b, out[1:3]), a[2:4], b, out[1:3])
    np.testing.assert_allclose(out[1:3], a[2:4] @ b)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", SHAPES)
def test_bias_and_relu_and_back(shape, masked, dtype) -> None:
    m, k, n = shape
    a, b = operands(m, k, n, dtype)
    bias = np.random.default_rng(1).normal(size=n).astype(dtype)
    out = np.empty((m, n), dtype)
    mask = mask_for(m, n) if masked else None
    epilogue: Epilogue = "RELU_AUX_BIAS" if masked else "RELU_BIAS"
    act(plan_product(a, b, out, epilogue, mask), a, b, out, bias, mask)
    np.testing.assert_allclose(out, np.maximum(a @ b + bias, 0), rtol=1e-4, atol=1e-5)
    if not masked:
        return
    delta, weight = operands(m, 9, n, dtype)
    onto, sums = np.empty((m, n), dtype), np.empty(n, dtype)
    weight = np.ascontiguousarray(weight.T).T
    act(plan_product(delta, weight, onto, "DRELU_BGRAD", mask), delta, weight, onto, sums, mask)
    expected = (delta @ weight) * (out > 0)
    np.testing.assert_allclose(onto, expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(sums, expected.sum(axis=0), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("widened", [False, True])
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_product_in_16_bits_sums_in_float32_and_may_give_it(dtype, widened) -> None:
    a, b = operands(6, 300, 5, dtype)
    exact = a.astype(np.float64) @ b.astype(np.float64)
    left, right = padded(a, False, 4), padded(b, True, 4)
    out = padded(np.zeros((6, 5), np.float32 if widened else dtype), False, 3)
    act(plan_product(left, right, out), left, right, out)
    unit = 2.0**-23 if widened else float(ml_dtypes.finfo(dtype).eps)
    np.testing.assert_allclose(out.astype(np.float64), exact, rtol=unit, atol=300 * 2.0**-23 * 3)


def test_what_cublaslt_has_not_is_none() -> None:
    for shape in ((0, 3, 4), (2, 0, 4), (2, 3, 0)):
        a, b = operands(*shape, np.float32)
        assert plan_product(a, b, np.empty((shape[0], shape[2]), np.float32)) is None
    a, b = operands(4, 1, 5, np.float32)
    out = np.empty((4, 5), np.float32)
    assert plan_product(a, b, out, "DRELU_BGRAD", mask_for(4, 5)) is None
    assert plan_product(a, b, out, "RELU_AUX_BIAS", mask_for(4, 5)) is not None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"a": np.zeros((3, 5), np.float32)}, "does not make"),
        ({"out": np.zeros((3, 6), np.float32)}, "does not make"),
        ({"b": np.zeros((4, 5))}, "dtypes differ"),
        ({"out": np.zeros((3, 5), np.float16)}, "dtypes differ"),
        ({"a": np.zeros((3, 4), np.float16)}, "dtypes differ"),
        ({"a": np.zeros((6, 8), np.float32)[::2, ::2]}, "neither rows nor columns"),
        ({"out": np.zeros((5, 3), np.float32).T}, "rows of a result"),
        ({"mask": np.zeros((3, 1), np.uint8)}, "mask must be uint8 of shape"),
        ({"mask": np.zeros((3, 16), np.int8)}, "mask must be uint8 of shape"),
        ({"mask": np.zeros((3, 17), np.uint8)[:, :16]}, "mask must be uint8 of shape"),
    ],
)
def test_what_cannot_be_planned_is_refused(change, message) -> None:
    arguments = {
        "a": np.zeros((3, 4), np.float32),
        "b": np.zeros((4, 5), np.float32),
        "out": np.zeros((3, 5), np.float32),
        "epilogue": "RELU_AUX_BIAS",
        "mask": mask_for(3, 5),
    }
    with pytest.raises(ValueError, match=message):
        plan_product(**{**arguments, **change})


# NVIDIA's table at cublasSetWorkspace: Hopper and Blackwell's 10.x 32 MiB, 12.x 12 MiB, all others 4 MiB.
# Thor is 11.0, and was 10.1 before CUDA 13.
WORKSPACES = {
    **dict.fromkeys([(7, 0), (7, 2), (7, 5), (8, 0), (8, 6), (8, 7), (8, 9)], 4),
    **dict.fromkeys([(9, 0), (10, 0), (10, 1), (10, 3), (11, 0)], 32),
    **dict.fromkeys([(12, 0), (12, 1)], 12),
}


@pytest.mark.parametrize("capability", WORKSPACES)
def test_a_workspace_is_as_large_as_nvidia_advises(capability: tuple[int, int]) -> None:
    assert workspace_mib(capability) == WORKSPACES[capability]


# Everything up to the choice of an algorithm, for which cuBLASLt wants a device: found is then False.
_TELL = """
import gc, json
from types import SimpleNamespace
import ml_dtypes
import numpy as np
from nvmath.bindings import cublas, cublasLt as lt
from nnkit.backends import cublaslt, cublaslt_plan

class Array(np.ndarray):
    data = property(lambda self: SimpleNamespace(ptr=self.ctypes.data))

def new(*shape, dtype=np.float32):
    return np.zeros(shape, dtype).view(Array)

def read(get, dtype_of, handle, attribute):
    value, size = np.zeros(1, dtype_of(attribute)), np.zeros(1, np.uint64)
    get(handle, attribute, value.ctypes.data, value.nbytes, size.ctypes.data)
    return int(value[0])

made, left, told = [], [], {}
class Watched:
    def __getattr__(self, name):
        call = getattr(lt, name)
        if name == "matmul_algo_get_heuristic":
            def heuristic(*arguments):
                try:
                    call(*arguments)
                except lt.cuBLASLtError as error:
                    told["refused"] = error.status
                    raise lt.cuBLASLtError(cublas.Status.NOT_SUPPORTED) from error
            return heuristic
        if name.endswith("_create"):
            def create(*arguments):
                made.append((name, call(*arguments)))
                return made[-1][1]
            return create
        if name.endswith("_destroy"):
            def destroy(handle):
                left.append(handle)
                call(handle)
            return destroy
        return call

library = SimpleNamespace(cublas=cublas, lt=Watched(), handle=0, workspace=new(1), workspace_bytes=2**25)
library.device = SimpleNamespace(stream_pointer=0)
a, b, out, bias = new(3, 4), new(5, 4).T, new(3, 5), new(5)
mask = new(3, 16, dtype=np.uint8)
plan = cublaslt_plan.plan_product(a, b, out, "DRELU_BGRAD", mask)
product = cublaslt._Product(library, plan, "tf32", a, b, out, bias, mask)
[descriptor] = [handle for name, handle in made if name == "matmul_desc_create"]
told |= {
    name: read(lt.matmul_desc_get_attribute, lt.get_matmul_desc_attribute_dtype, descriptor,
               lt.MatmulDescAttribute[name])
    for name in ("COMPUTE_TYPE", "SCALE_TYPE", "TRANSA", "TRANSB", "EPILOGUE", "BIAS_POINTER",
                 "EPILOGUE_AUX_POINTER", "EPILOGUE_AUX_LD")
}
told["layouts"] = [
    [read(lt.matrix_layout_get_attribute, lt.get_matrix_layout_attribute_dtype, handle,
          lt.MatrixLayoutAttribute[name]) for name in ("TYPE", "ORDER", "ROWS", "COLS", "LD")]
    for kind, handle in made if kind == "matrix_layout_create"
]
told["pointers"] = [bias.ctypes.data, mask.ctypes.data]
told["found"] = product.found
told["halves"] = []
for half in (np.float16, ml_dtypes.bfloat16):
    for wide in (half, np.float32):
        first = len(made)
        arrays = [new(3, 4, dtype=half), new(4, 8, dtype=half), new(3, 8, dtype=wide)]
        one = cublaslt._Product(library, cublaslt_plan.plan_product(*arrays), "fp16", *arrays, None, None)
        handles = made[first:]
        told["halves"].append([
            read(lt.matmul_desc_get_attribute, lt.get_matmul_desc_attribute_dtype, handles[0][1],
                 lt.MatmulDescAttribute[name]) for name in ("COMPUTE_TYPE", "SCALE_TYPE")
        ] + [
            read(lt.matrix_layout_get_attribute, lt.get_matrix_layout_attribute_dtype, handle,
                 lt.MatrixLayoutAttribute["TYPE"])
            for kind, handle in handles if kind == "matrix_layout_create"
        ])
        del one
del product
gc.collect()
told["left"] = sorted(left) == sorted(handle for _, handle in made)
print(json.dumps(told))
"""


def run_with_driver(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a program in a process where the real cuBLASLt loads, though there is no GPU."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("there is no C compiler, for a driver to load the library with")
    # The bindings ask for the driver's version before they load cuBLASLt; descriptors need no more of it.
    source = folder / "cuda.c"
    source.write_text("int cuDriverGetVersion(int *v) { *v = 12090; return 0; }")
    subprocess.run([compiler, "-shared", "-fPIC", "-o", folder / "libcuda.so.1", source], check=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(folder)}
    return subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False
    )


_LOAD = """
from contextlib import nullcontext
from types import SimpleNamespace
from nvmath.bindings import cublasLt
from nnkit.backends import cupy

try:
    cublasLt.create()
except cublasLt.cuBLASLtError as error:
    print(error.status)
device = SimpleNamespace(active=nullcontext, compute_capability=(9, 0), name="cuda:0")
print(cupy._products(device).why_not_captured)
"""


@pytest.mark.extra("nvmath")
def test_an_error_of_the_real_library_leaves_all_products_to_cupy(tmp_path: Path) -> None:
    result = run_with_driver(_LOAD, tmp_path)
    assert result.returncode == 0, result.stderr
    status, why = result.stdout.splitlines()
    assert status == "1"  # CUBLAS_STATUS_NOT_INITIALIZED: there is no GPU
    assert why.startswith("nvmath-python cannot be used: ")
    assert "CUBLAS_STATUS_NOT_INITIALIZED" in why


@pytest.mark.extra("nvmath")
def test_the_library_holds_what_it_was_told(tmp_path: Path) -> None:
    result = run_with_driver(_TELL, tmp_path)
    assert result.returncode == 0, result.stderr
    told = json.loads(result.stdout)
    bias, mask = told["pointers"]
    assert told == {
        "COMPUTE_TYPE": 77,  # CUBLAS_COMPUTE_32F_FAST_TF32
        "SCALE_TYPE": 0,  # CUDA_R_32F
        "TRANSA": 1,  # our b, transposed in memory
        "TRANSB": 0,
        "EPILOGUE": 152,  # CUBLASLT_EPILOGUE_DRELU_BGRAD
        "BIAS_POINTER": bias,
        "EPILOGUE_AUX_POINTER": mask,
        "EPILOGUE_AUX_LD": 128,
        # type, column-major, rows, columns, leading dimension: of b, a and out
        "layouts": [[0, 0, 4, 5, 4], [0, 0, 4, 3, 4], [0, 0, 5, 3, 5]],
        "pointers": [bias, mask],
        # sums and factors in float32, b and a in 16 bits (CUDA_R_16F = 2, CUDA_R_16BF = 14), and out
        "halves": [[68, 0, 2, 2, 2], [68, 0, 2, 2, 0], [68, 0, 14, 14, 14], [68, 0, 14, 14, 0]],
        "found": False,
        "refused": 1,  # CUBLAS_STATUS_NOT_INITIALIZED: there is no handle
        "left": True,
    }
