"""The description of a matrix product of row-major arrays for cuBLASLt.

cuBLASLt's matrices are column-major, so a row-major array is its transpose there, and ``out = a @ b``
becomes ``outᵀ = bᵀ aᵀ``: cuBLASLt's A is our `b`, its B our `a`, the rows of its D our columns. So a bias
vector, which it adds to every column of D, has one element for each of our columns.

Reference: NVIDIA, cuBLAS documentation, "Using the cuBLASLt API", docs.nvidia.com/cuda/cublas.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from nnkit.backends.protocol import Array

__all__ = ["Epilogue", "Layout", "ProductPlan", "mask_shape", "plan_product"]

Epilogue = Literal["DEFAULT", "RELU_BIAS", "RELU_AUX_BIAS", "DRELU_BGRAD"]

_MASK_ALIGNMENT = 128  # bits: what a ReLU mask's leading dimension must be a multiple of


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
    """Return the plan of ``out = a @ b``; None where cuBLASLt has no such product.

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
    mask : array of the shape that `mask_shape` gives, uint8, or None
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

    The stride of an axis of length one is arbitrary, and is ignored.
    """
    rows, columns = array.shape
    down, across = (stride // array.dtype.itemsize for stride in array.strides)
    if (columns == 1 or across == 1) and (rows == 1 or down >= columns):
        return Layout(columns, rows, down if rows > 1 else columns), False
    if (rows == 1 or down == 1) and (columns == 1 or across >= rows):
        return Layout(rows, columns, across if columns > 1 else rows), True
    raise ValueError(f"neither rows nor columns are contiguous: shape {array.shape}, strides {array.strides}")


def mask_shape(rows: int, columns: int) -> tuple[int, int]:
    """Return the shape, in bytes, of the mask of a ReLU of `rows` rows and `columns` columns."""
    return rows, -(-columns // _MASK_ALIGNMENT) * _MASK_ALIGNMENT // 8


def _mask_leading(mask: Array, rows: int, columns: int) -> int:
    wanted = mask_shape(rows, columns)
    pitch = mask.strides[0] if rows > 1 else mask.shape[1]
    if mask.shape != wanted or mask.dtype != np.uint8 or pitch * 8 % _MASK_ALIGNMENT:
        raise ValueError(f"a mask must be uint8 of shape {wanted}, not {mask.dtype} of {mask.shape}")
    return int(pitch) * 8
