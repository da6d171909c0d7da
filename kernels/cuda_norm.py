"""The CUDA kernels of layer normalisation: whole rows to a block, and before the gradient its column sums.

BLOCK_X threads share a row. Where they hold all of it in registers (ONE_PASS) each loop over columns has one
turn, and the next loop finds the variables that it left; elsewhere it reads them again.
"""

from __future__ import annotations

from numba import cuda

from nnkit.kernels.common_parts import BIAS, GRADIENT, real
from nnkit.kernels.cuda_parts import (
    BLOCK_X,
    BLOCK_Y,
    ONE_PASS,
    WHOLE,
    lane_sum,
    read4,
    sum_into_bias,
    write4,
)
from nnkit.kernels.formulas import centred, inverse_deviation, layer_norm_derivative, normalised


def centred4(a, b, c, d, j, columns, center, remainder):
    """Four elements of a row from column j on without its mean; 0 beyond the last."""
    a = centred(a, center, remainder)
    b = centred(b, center, remainder)
    c = centred(c, center, remainder)
    d = centred(d, center, remainder)
    if not WHOLE:
        b = b if j + 1 < columns else 0.0
        c = c if j + 2 < columns else 0.0
        d = d if j + 3 < columns else 0.0
    return a, b, c, d


def normalised4(x, i, j, columns, center, factor):
    """Four normalised elements of a row."""
    a, b, c, d = read4(x[i], j, columns)
    a = normalised(a, center, factor)
    b = normalised(b, center, factor)
    c = normalised(c, center, factor)
    d = normalised(d, center, factor)
    return a, b, c, d


def slopes4(delta, weight, i, j, columns):
    """The derivatives by four normalised elements of a row; 0 beyond the last."""
    a, b, c, d = read4(delta[i], j, columns)
    weight0, weight1, weight2, weight3 = read4(weight, j, columns)
    return a * weight0, b * weight1, c * weight2, d * weight3


def layer_norm(x, weight, bias, out, mean, inverse, epsilon):
    """Normalise each row of `x` to mean 0 and variance 1, then scale and shift its columns.

    The mean is refined by that of the centred row, for which its rounding errors are small; what is lost when
    it is rounded, is taken off each element too.
    """
    columns = x.shape[1]
    count = real(columns)
    turns = (x.shape[0] + cuda.gridDim.x * BLOCK_Y - 1) // (cuda.gridDim.x * BLOCK_Y)
    for turn in range(turns):
        i = (turn * cuda.gridDim.x + cuda.blockIdx.x) * BLOCK_Y + cuda.threadIdx.y
        # All threads of a block meet in its sums, whether they have a row or not.
        stop = columns if i < x.shape[0] else 0
        x0 = x1 = x2 = x3 = real(0.0)
        total = real(0.0)
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            x0, x1, x2, x3 = read4(x[i], j, columns)
            total += (x0 + x1) + (x2 + x3)
        center = lane_sum(total) / count
        c0 = c1 = c2 = c3 = real(0.0)
        total = real(0.0)
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            if not ONE_PASS:
                x0, x1, x2, x3 = read4(x[i], j, columns)
            c0, c1, c2, c3 = centred4(x0, x1, x2, x3, j, columns, center, 0.0)
            total += (c0 + c1) + (c2 + c3)
        remainder = lane_sum(total) / count
        squares = real(0.0)
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            if not ONE_PASS:
                x0, x1, x2, x3 = read4(x[i], j, columns)
            c0, c1, c2, c3 = centred4(x0, x1, x2, x3, j, columns, center, remainder)
            squares += (c0 * c0 + c1 * c1) + (c2 * c2 + c3 * c3)
        factor = inverse_deviation(lane_sum(squares) / count, epsilon)
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            if not ONE_PASS:
                x0, x1, x2, x3 = read4(x[i], j, columns)
                c0, c1, c2, c3 = centred4(x0, x1, x2, x3, j, columns, center, remainder)
            weight0, weight1, weight2, weight3 = read4(weight, j, columns)
            y0 = c0 * factor * weight0
            y1 = c1 * factor * weight1
            y2 = c2 * factor * weight2
            y3 = c3 * factor * weight3
            if BIAS:
                bias0, bias1, bias2, bias3 = read4(bias, j, columns)
                y0 += bias0
                y1 += bias1
                y2 += bias2
                y3 += bias3
            write4(out[i], j, columns, y0, y1, y2, y3)
        if GRADIENT and cuda.threadIdx.x == 0 and i < x.shape[0]:
            mean[i] = center + remainder
            inverse[i] = factor


def layer_norm_sums(
    delta, x, mean, inverse, weight_gradient, bias_gradient, weight_partials, bias_partials, weight_tickets,
    bias_tickets,
):  # fmt: skip
    """Sum the columns of the derivative by the output, for the bias, and of it · x̂, for the weight."""
    columns = delta.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    sum0 = sum1 = sum2 = sum3 = real(0.0)
    product0 = product1 = product2 = product3 = real(0.0)
    if j < columns:
        for i in range(
            cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, delta.shape[0], cuda.gridDim.y * BLOCK_Y
        ):
            d0, d1, d2, d3 = read4(delta[i], j, columns)
            h0, h1, h2, h3 = normalised4(x, i, j, columns, mean[i], inverse[i])
            product0 += d0 * h0
            product1 += d1 * h1
            product2 += d2 * h2
            product3 += d3 * h3
            if BIAS:
                sum0 += d0
                sum1 += d1
                sum2 += d2
                sum3 += d3
    sum_into_bias(
        product0, product1, product2, product3, j, columns, weight_gradient, weight_partials, weight_tickets
    )
    if BIAS:
        # A ticket of its own: while one block still counts the first sum, another may count the second.
        sum_into_bias(sum0, sum1, sum2, sum3, j, columns, bias_gradient, bias_partials, bias_tickets)


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
        d0 = d1 = d2 = d3 = real(0.0)
        h0 = h1 = h2 = h3 = real(0.0)
        total = real(0.0)
        product = real(0.0)
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            d0, d1, d2, d3 = slopes4(delta, weight, i, j, columns)
            h0, h1, h2, h3 = normalised4(x, i, j, columns, center, factor)
            total += (d0 + d1) + (d2 + d3)
            product += (d0 * h0 + d1 * h1) + (d2 * h2 + d3 * h3)
        mean_slope = lane_sum(total) / count
        mean_product = lane_sum(product) / count
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            if not ONE_PASS:
                d0, d1, d2, d3 = slopes4(delta, weight, i, j, columns)
                h0, h1, h2, h3 = normalised4(x, i, j, columns, center, factor)
            d0 = layer_norm_derivative(d0, h0, factor, mean_slope, mean_product)
            d1 = layer_norm_derivative(d1, h1, factor, mean_slope, mean_product)
            d2 = layer_norm_derivative(d2, h2, factor, mean_slope, mean_product)
            d3 = layer_norm_derivative(d3, h3, factor, mean_slope, mean_product)
            write4(delta[i], j, columns, d0, d1, d2, d3)
