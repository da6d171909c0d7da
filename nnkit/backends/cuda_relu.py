"""Whether the ReLU that is part of a device's products gives nnkit's results: tried where they may differ.

cuBLASLt does not document its ReLU at NaN, nor the bit of its mask at 0; NVIDIA's forum has a report of NaN
becoming 0 (2025, "Incorrect result of cublasLtMatmul with CUBLASLT_EPILOGUE_RELU when input is NaN"). Either
would matter. A NaN that becomes 0 lets a network with lost weights train on with a finite loss, where the CPU
reports divergence. A gradient that passes at 0 trains the units of rows of zeros, which a bias of zero puts
at exactly 0; the CPU, scikit-learn, PyTorch and TensorFlow do not. Without the epilogue, a kernel applies
bias and ReLU in one more pass over the outputs in each direction.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf, nan
from typing import Any

import numpy as np

from nnkit.backends.cublaslt_plan import mask_shape
from nnkit.backends.cuda_device import Call, CudaDevice
from nnkit.kernels.formulas import relu, relu_derivative

__all__ = ["relu_difference"]

_CORNERS = (-inf, -1.0, 0.0, -0.0, 1.0, inf, nan)
# Rows, inner length and columns. cuBLASLt's kernels for small matrices differ from those for large ones.
_SIZES = ((4, 8, 8), (128, 256, 256))


def relu_difference(
    device: CudaDevice,
    forward: Callable[..., Call | None],
    backward: Callable[..., Call | None] | None,
    dtype: np.dtype,
    out_dtype: np.dtype,
) -> str:
    """Return how a ReLU, or its derivative, differs from the formulas; empty where it does not.

    Parameters
    ----------
    device : CudaDevice
        Where it is tried.
    forward, backward : callable
        Prepare as `Products.matmul_relu` and `matmul_relu_gradient` do; without the second, the first has no
        mask.
    dtype, out_dtype : dtype
        Of the factors, and of the outputs.
    """

    def ones(*shape: int) -> Any:
        return device.from_host(np.ones(shape).astype(dtype))

    with device.active():
        for rows, inner, columns in _SIZES:
            # Products of zeros, to which the bias adds the corners: each column has one of them.
            corners = np.resize(_CORNERS, columns)
            bias = device.from_host(corners.astype(out_dtype))
            mask = None if backward is None else device.zeros(mask_shape(rows, columns), np.uint8)
            out = device.zeros((rows, columns), out_dtype)
            zeros = [device.zeros(shape, dtype) for shape in ((rows, inner), (inner, columns))]
            call = forward(*zeros, bias, out, mask)
            if call is None:
                return "cuBLASLt has no such product"
            call()
            expected = np.array([relu(corner) for corner in corners])
            wrong = _first_other(device.to_host(out), expected)
            if wrong is not None:
                return f"cuBLASLt's ReLU of {corners[wrong]} is not {expected[wrong]:g}"
            if backward is None:
                continue
            sums = device.zeros(columns, out_dtype)
            call = backward(ones(rows, inner), ones(columns, inner).T, mask, out, sums)
            if call is None:
                return "cuBLASLt has no product with its gradient"
            call()
            derivatives = np.array([relu_derivative(value) for value in expected])
            wrong = _first_other(device.to_host(out), inner * derivatives)
            if wrong is not None:
                return f"the derivative of cuBLASLt's ReLU at {corners[wrong]} is not {derivatives[wrong]:g}"
    return ""


def _first_other(found: np.ndarray, expected: np.ndarray) -> int | None:
    """Return the first column in which any row has another value; NaN is the same as NaN, 0 as -0."""
    found = found.astype(np.float64)
    same = (found == expected) | (np.isnan(found) & np.isnan(expected))
    wrong = np.flatnonzero(~same.all(axis=0))
    return int(wrong[0]) if len(wrong) else None
