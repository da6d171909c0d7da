"""The CUDA kernels over the members of an ensemble.

A thread joins whole rows: there are few outputs, and predictions are no part of a training step.
A member's rows are every so many: row i belongs to member i modulo their number.
"""

from __future__ import annotations

from numba import cuda

from nnkit.kernels.common_parts import BIAS, SHARED, join_row, join_row_gradient, real
from nnkit.kernels.cuda_parts import BLOCK_X, BLOCK_Y, read4, sum_columns4, write4


def join_members(z, outputs):
    """Join the members' outputs, (rows, members · columns), to one prediction of each row."""
    for i in range(cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x, outputs.shape[0], cuda.gridDim.x * BLOCK_X):
        join_row(z[i], outputs[i], outputs.shape[1])


def join_gradient(z, outputs, delta, z_gradient):
    """The derivative by the members' outputs, from that by the joined ones."""
    for i in range(cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x, outputs.shape[0], cuda.gridDim.x * BLOCK_X):
        join_row_gradient(z[i], outputs[i], delta[i], z_gradient[i], outputs.shape[1])


def scale_members(x, scale, bias, out):
    """Multiply each member's rows by its scale, and add its bias; a SHARED row is every member's."""
    columns = out.shape[1]
    members = scale.shape[0]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    if j < columns:
        for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, out.shape[0], cuda.gridDim.y * BLOCK_Y):
            row = i // members if SHARED else i
            x4 = read4(x[row], j, columns)
            scale4 = read4(scale[i % members], j, columns)
            x4 *= scale4
            if BIAS:
                bias4 = read4(bias[i % members], j, columns)
                x4 += bias4
            write4(out[i], j, columns, x4)


def scale_members_gradient(given):
    """Multiply the derivative by the scale, in place; sum it over the rows for the scale and the bias.

    The grid's columns are those of one member after the other.
    """
    delta = given.delta
    columns = delta.shape[1]
    members = given.scale.shape[0]
    tiles = (columns + 4 * BLOCK_X - 1) // (4 * BLOCK_X)
    member = cuda.blockIdx.x // tiles
    j = 4 * (cuda.blockIdx.x % tiles * BLOCK_X + cuda.threadIdx.x)
    product4 = real(0.0)
    d_sum4 = real(0.0)
    if j < columns:
        scale4 = read4(given.scale[member], j, columns)
        for r in range(
            cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y,
            delta.shape[0] // members,
            cuda.gridDim.y * BLOCK_Y,
        ):
            i = r * members + member
            row = r if SHARED else i
            d4 = read4(delta[i], j, columns)
            x4 = read4(given.x[row], j, columns)
            product4 += d4 * x4
            if BIAS:
                d_sum4 += d4
            d4 *= scale4
            write4(delta[i], j, columns, d4)
    sum_columns4(
        product4,
        j,
        columns,
        given.scale_gradient[member],
        given.weight_partials[member],
        given.weight_tickets,
    )
    if BIAS:
        # A ticket of its own: while one block still counts the first sum, another may count the second.
        sum_columns4(
            d_sum4, j, columns, given.bias_gradient[member], given.bias_partials[member], given.bias_tickets
        )


def sum_members(x, out):
    """Sum the members' rows of each row."""
    columns = out.shape[1]
    members = x.shape[0] // out.shape[0]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    if j < columns:
        for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, out.shape[0], cuda.gridDim.y * BLOCK_Y):
            total4 = real(0.0)
            for m in range(members):
                x4 = read4(x[i * members + m], j, columns)
                total4 += x4
            write4(out[i], j, columns, total4)
