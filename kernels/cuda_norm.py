"""The CUDA kernels of layer normalisation: whole rows to a block, and before the gradient its column sums.

BLOCK_X threads share a row. Where they hold all of it in registers (ONE_PASS) each loop over columns has one
turn, and the next loop uses the variables of the one before; elsewhere it reads them again.
"""

from __future__ import annotations

from numba import cuda

from nnkit.kernels.common_parts import BIAS, GRADIENT, real
from nnkit.kernels.cuda_parts import (
    BLOCK_X,
    BLOCK_Y,
    ONE_PASS,
    WHOLE,
    read4,
    row_sum,
    sum4,
    sum_columns4,
    write4,
)
from nnkit.kernels.formulas import centred, inverse_deviation, layer_norm_derivative, normalised
from nnkit.kernels.lanes import LANE


def centred4(x4, j, columns, center, remainder):
    """Four elements of a row from column j on without its mean; 0 beyond the last."""
    c4 = centred(x4, center, remainder)
    if not WHOLE:
        c4 = c4 if j + LANE < columns else 0.0
    return c4


def normalised4(x, i, j, columns, center, factor):
    """Four normalised elements of a row."""
    x4 = read4(x[i], j, columns)
    return normalised(x4, center, factor)


def slopes4(delta, weight, i, j, columns):
    """The derivatives by four normalised elements of a row; 0 beyond the last."""
    d4 = read4(delta[i], j, columns)
    weight4 = read4(weight, j, columns)
    return d4 * weight4


def layer_norm(x, weight, bias, out, mean, inverse, epsilon):
    """Normalise each row of `x` to mean 0 and variance 1, then scale and shift its columns.

    The mean is refined by that of the centred row, whose rounding errors are small; the rounding error of the
    sum of both is subtracted from each element too.
    """
    columns = x.shape[1]
    count = real(columns)
    turns = (x.shape[0] + cuda.gridDim.x * BLOCK_Y - 1) // (cuda.gridDim.x * BLOCK_Y)
    for turn in range(turns):
        i = (turn * cuda.gridDim.x + cuda.blockIdx.x) * BLOCK_Y + cuda.threadIdx.y
        # All threads of a block meet in its sums, whether they have a row or not.
        stop = columns if i < x.shape[0] else 0
        x4 = real(0.0)
        total = real(0.0)
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            x4 = read4(x[i], j, columns)
            total += sum4(x4)
        center = row_sum(total) / count
        c4 = real(0.0)
        total = real(0.0)
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            if not ONE_PASS:
                x4 = read4(x[i], j, columns)
            c4 = centred4(x4, j, columns, center, 0.0)
            total += sum4(c4)
        remainder = row_sum(total) / count
        squares = real(0.0)
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            if not ONE_PASS:
                x4 = read4(x[i], j, columns)
            c4 = centred4(x4, j, columns, center, remainder)
            square4 = c4 * c4
            squares += sum4(square4)
        factor = inverse_deviation(row_sum(squares) / count, epsilon)
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            if not ONE_PASS:
                x4 = read4(x[i], j, columns)
                c4 = centred4(x4, j, columns, center, remainder)
            weight4 = read4(weight, j, columns)
            y4 = c4 * factor * weight4
            if BIAS:
                bias4 = read4(bias, j, columns)
                y4 += bias4
            write4(out[i], j, columns, y4)
        if GRADIENT and cuda.threadIdx.x == 0 and i < x.shape[0]:
            mean[i] = center + remainder
            inverse[i] = factor


def layer_norm_sums(given):
    """Sum the columns of the derivative by the output, for the bias, and of it · x̂, for the weight."""
    delta = given.delta
    columns = delta.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    d_sum4 = real(0.0)
    product4 = real(0.0)
    if j < columns:
        for i in range(
            cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, delta.shape[0], cuda.gridDim.y * BLOCK_Y
        ):
            d4 = read4(delta[i], j, columns)
            h4 = normalised4(given.x, i, j, columns, given.mean[i], given.inverse[i])
            product4 += d4 * h4
            if BIAS:
                d_sum4 += d4
    sum_columns4(product4, j, columns, given.weight_gradient, given.weight_partials, given.weight_tickets)
    if BIAS:
        # A ticket of its own: while one block still counts the first sum, another may count the second.
        sum_columns4(d_sum4, j, columns, given.bias_gradient, given.bias_partials, given.bias_tickets)


def layer_norm_gradient(delta, x, mean, inverse, weight):
    """Turn the derivative by the output into that by `x`, in place; its columns are summed before."""
    columns = x.shape[1]
    count = real(columns)
    turns = (x.shape[0] + cuda.gridDim.x * BLOCK_Y - 1) // (cuda.gridDim.x * BLOCK_Y)
    for turn in range(turns):
        i = (turn * cuda.gridDim.x + cuda.blockIdx.x) * BLOCK_Y + cuda.threadIdx.y
        stop = 0
        center = real(0.0)
        factor = real(0.0)
        if i < x.shape[0]:
            stop = columns
            center = mean[i]
            factor = inverse[i]
        d4 = real(0.0)
        h4 = real(0.0)
        total = real(0.0)
        product = real(0.0)
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            d4 = slopes4(delta, weight, i, j, columns)
            h4 = normalised4(x, i, j, columns, center, factor)
            total += sum4(d4)
            product4 = d4 * h4
            product += sum4(product4)
        mean_slope = row_sum(total) / count
        mean_product = row_sum(product) / count
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            if not ONE_PASS:
                d4 = slopes4(delta, weight, i, j, columns)
                h4 = normalised4(x, i, j, columns, center, factor)
            d4 = layer_norm_derivative(d4, h4, factor, mean_slope, mean_product)
            write4(delta[i], j, columns, d4)
