"""The parts of CUDA kernels: four elements at a time, sums over a block and over the grid.

Parts are inlined, since a call to another device function cannot be compiled without a driver. A name that
ends in 4 stands for four variables: see `lanes`.
"""

from __future__ import annotations

import numpy as np
from numba import cuda

from nnkit.kernels.common_parts import double, real
from nnkit.kernels.lanes import LANE
from nnkit.kernels.wide import load1, load4, store1, store4

# ---------------------------------------------------------------------------------------------------------
# The constants that `cuda_geometry` chooses and `specialise` folds, beside the flags of `common_parts`.
# ---------------------------------------------------------------------------------------------------------

WIDE = False  # every row starts at a multiple of four elements' size: one access for four
WHOLE = False  # and is a whole number of fours long
BLOCK_X = BLOCK_Y = THREADS = 1  # powers of two
X_LEVELS = Y_LEVELS = LEVELS = 0  # their logarithms
SPLIT = False  # more than one block takes part in a sum over rows
MANY = False  # there is more than one block
ONE_PASS = False  # a row fits in the registers of its threads
GROUP_LEVELS = 0  # blocks are summed in groups of two to this power, then the groups
FEATURE_LEVELS = 0  # halvings that find one of the categorical features
SPARSE_LEVELS = 0  # halvings that find a column in a sparse row
ROW_LEVELS = 0  # halvings that find one of a batch's rows
ITEMS = 1  # consecutive items of a thread, where several blocks share them
SPAN = 1  # consecutive sorted tokens that are summed by one row of a block's threads


# ---------------------------------------------------------------------------------------------------------
# Four elements at a time.
# ---------------------------------------------------------------------------------------------------------


def read4(array, at, stop):
    """Elements ``at .. at + 3`` of a vector or row in the type of the arithmetic; 0 from `stop` on."""
    x4 = real(0.0)
    if WIDE and (WHOLE or at + 4 <= stop):
        element4 = load4(array, at)
        x4 = real(element4)
    elif at + LANE < stop:
        x4 = real(load1(array, at + LANE))
    return x4


def write4(array, at, stop, x4):
    """Write elements ``at .. at + 3``, none from `stop` on."""
    if WIDE and (WHOLE or at + 4 <= stop):
        store4(array, at, x4)
    elif at + LANE < stop:
        store1(array, at + LANE, x4)


def sum4(a, b, c, d):
    return (a + b) + (c + d)


def greater(a, b):
    return a if a > b else b


def less(a, b):
    """Python's `min` is a device function of its own to Numba."""
    return a if a < b else b


# ---------------------------------------------------------------------------------------------------------
# Sums. Trees in shared memory, whose order is the same on every card; every thread of the block takes part,
# and each inlined part has shared memory of its own, so that no result is overwritten while it is read.
# ---------------------------------------------------------------------------------------------------------


def row_max(x):
    """The greatest over the threads that share a row."""
    values = cuda.shared.array((BLOCK_Y, BLOCK_X), real)
    values[cuda.threadIdx.y, cuda.threadIdx.x] = x
    cuda.syncthreads()
    for level in range(X_LEVELS):
        step = BLOCK_X >> (level + 1)
        if cuda.threadIdx.x < step:
            values[cuda.threadIdx.y, cuda.threadIdx.x] = greater(
                values[cuda.threadIdx.y, cuda.threadIdx.x], values[cuda.threadIdx.y, cuda.threadIdx.x + step]
            )
        cuda.syncthreads()
    return values[cuda.threadIdx.y, 0]


def row_sum(x):
    """The sum over the threads that share a row."""
    values = cuda.shared.array((BLOCK_Y, BLOCK_X), real)
    values[cuda.threadIdx.y, cuda.threadIdx.x] = x
    cuda.syncthreads()
    for level in range(X_LEVELS):
        step = BLOCK_X >> (level + 1)
        if cuda.threadIdx.x < step:
            values[cuda.threadIdx.y, cuda.threadIdx.x] += values[cuda.threadIdx.y, cuda.threadIdx.x + step]
        cuda.syncthreads()
    return values[cuda.threadIdx.y, 0]


def block_sum(x):
    """The sum over the block, in float64."""
    thread = cuda.threadIdx.y * BLOCK_X + cuda.threadIdx.x
    sums = cuda.shared.array(THREADS, double)
    sums[thread] = x
    cuda.syncthreads()
    for level in range(LEVELS):
        step = THREADS >> (level + 1)
        if thread < step:
            sums[thread] += sums[thread + step]
        cuda.syncthreads()
    return sums[0]


def sum_of_blocks(block_sums, blocks):
    """The sum of the blocks' float64 sums, by one block."""
    part = double(0.0)
    for block in range(cuda.threadIdx.y * BLOCK_X + cuda.threadIdx.x, blocks, THREADS):
        part += block_sums[block]
    return block_sum(part)


def is_last(tickets, which, expected):
    """Whether this block is the last of `expected` to come here: then it sees all that they have written.

    The ticket is zero again afterwards, ready for the next launch.
    """
    last = cuda.shared.array(1, np.int32)
    cuda.syncthreads()
    if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
        # The barrier before and this fence order the whole block's writes before the ticket.
        cuda.threadfence()
        last[0] = cuda.atomic.add(tickets, which, 1) == expected - 1
        if last[0] != 0:
            tickets[which] = 0
    cuda.syncthreads()
    cuda.threadfence()
    return last[0] != 0


def grid_sum(x, block_sums, tickets):
    """The sum over the threads of all blocks, in float64, and whether this thread is the one that has it."""
    total = block_sum(x)
    last = True
    if MANY:
        if cuda.threadIdx.x == 0:
            block_sums[cuda.blockIdx.x] = total
        last = is_last(tickets, 0, cuda.gridDim.x)
        if last:
            total = sum_of_blocks(block_sums, cuda.gridDim.x)
    return total, last and cuda.threadIdx.x == 0


def column_sums4(x4):
    """The sums over the block's rows of each thread's four columns."""
    sums = cuda.shared.array((4, BLOCK_Y, BLOCK_X), real)
    sums[LANE, cuda.threadIdx.y, cuda.threadIdx.x] = x4
    cuda.syncthreads()
    for level in range(Y_LEVELS):
        step = BLOCK_Y >> (level + 1)
        if cuda.threadIdx.y < step:
            for k in range(4):
                sums[k, cuda.threadIdx.y, cuda.threadIdx.x] += sums[
                    k, cuda.threadIdx.y + step, cuda.threadIdx.x
                ]
        cuda.syncthreads()
    return sums[LANE, 0, cuda.threadIdx.x]


def sum_rows4(matrix, first, stop, j, columns):
    """The sums of four columns over rows ``first .. stop - 1`` of a matrix, by one block."""
    total4 = real(0.0)
    if j < columns:
        for i in range(first + cuda.threadIdx.y, stop, BLOCK_Y):
            x4 = read4(matrix[i], j, columns)
            total4 += x4
    return column_sums4(total4)


def sum_columns4(x4, j, columns, out, partials, tickets):
    """Sum each thread's four columns over the block and over the blocks that share its columns."""
    total4 = column_sums4(x4)
    last = True
    if SPLIT:
        if cuda.threadIdx.y == 0 and j < columns:
            write4(partials[cuda.blockIdx.y], j, columns, total4)
        last = is_last(tickets, cuda.blockIdx.x, cuda.gridDim.y)
        if last:
            total4 = sum_rows4(partials, 0, cuda.gridDim.y, j, columns)
    if last and cuda.threadIdx.y == 0 and j < columns:
        write4(out, j, columns, total4)


def sum_matrix(matrix, first, stop, columns, out):
    """Sum rows ``first .. stop - 1`` of a matrix, by one block, a tile of columns at a time."""
    for tile in range(0, columns, 4 * BLOCK_X):
        j = tile + 4 * cuda.threadIdx.x
        total4 = sum_rows4(matrix, first, stop, j, columns)
        if cuda.threadIdx.y == 0 and j < columns:
            write4(out, j, columns, total4)
        # The next tile takes the same shared memory.
        cuda.syncthreads()
