"""What the CUDA kernels are put together from: four elements at a time, sums over a block, the last block.

A part is a source for `specialise`, as a template is: it is inlined, since a call to another device function
cannot be compiled without a driver.
"""

from __future__ import annotations

import numpy as np
from numba import cuda

from nnkit.kernels.common_parts import double, real
from nnkit.kernels.wide import load1, load4, store1, store4

# ---------------------------------------------------------------------------------------------------------
# What `cuda_geometry` decides and `specialise` folds, beside the names of `common_parts`.
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
    a = b = c = d = real(0.0)
    if WIDE and (WHOLE or at + 4 <= stop):
        first, second, third, fourth = load4(array, at)
        a = real(first)
        b = real(second)
        c = real(third)
        d = real(fourth)
    else:
        if at < stop:
            a = real(load1(array, at))
        if at + 1 < stop:
            b = real(load1(array, at + 1))
        if at + 2 < stop:
            c = real(load1(array, at + 2))
        if at + 3 < stop:
            d = real(load1(array, at + 3))
    return a, b, c, d


def write4(array, at, stop, a, b, c, d):
    """Write elements ``at .. at + 3``, none from `stop` on."""
    if WIDE and (WHOLE or at + 4 <= stop):
        store4(array, at, a, b, c, d)
    else:
        if at < stop:
            store1(array, at, a)
        if at + 1 < stop:
            store1(array, at + 1, b)
        if at + 2 < stop:
            store1(array, at + 2, c)
        if at + 3 < stop:
            store1(array, at + 3, d)


def greater(a, b):
    return a if a > b else b


def less(a, b):
    """Python's `min` is a device function of its own to Numba."""
    return a if a < b else b


# ---------------------------------------------------------------------------------------------------------
# Sums. Trees in shared memory, whose order is the same on every card; every thread of the block comes along,
# and each inlining of a part has shared memory of its own, so that no result is overwritten while it is read.
# ---------------------------------------------------------------------------------------------------------


def lane_max(x):
    """The greatest over the threads that share a row."""
    lanes = cuda.shared.array((BLOCK_Y, BLOCK_X), real)
    lanes[cuda.threadIdx.y, cuda.threadIdx.x] = x
    cuda.syncthreads()
    for level in range(X_LEVELS):
        step = BLOCK_X >> (level + 1)
        if cuda.threadIdx.x < step:
            lanes[cuda.threadIdx.y, cuda.threadIdx.x] = greater(
                lanes[cuda.threadIdx.y, cuda.threadIdx.x], lanes[cuda.threadIdx.y, cuda.threadIdx.x + step]
            )
        cuda.syncthreads()
    return lanes[cuda.threadIdx.y, 0]


def lane_sum(x):
    """The sum over the threads that share a row."""
    lanes = cuda.shared.array((BLOCK_Y, BLOCK_X), real)
    lanes[cuda.threadIdx.y, cuda.threadIdx.x] = x
    cuda.syncthreads()
    for level in range(X_LEVELS):
        step = BLOCK_X >> (level + 1)
        if cuda.threadIdx.x < step:
            lanes[cuda.threadIdx.y, cuda.threadIdx.x] += lanes[cuda.threadIdx.y, cuda.threadIdx.x + step]
        cuda.syncthreads()
    return lanes[cuda.threadIdx.y, 0]


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
    """Whether this block is the last of `expected` to come here: then it sees what all of them have written.

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


def column_sums(a, b, c, d):
    """The sums over the block's rows of each thread's four columns."""
    sums = cuda.shared.array((4, BLOCK_Y, BLOCK_X), real)
    sums[0, cuda.threadIdx.y, cuda.threadIdx.x] = a
    sums[1, cuda.threadIdx.y, cuda.threadIdx.x] = b
    sums[2, cuda.threadIdx.y, cuda.threadIdx.x] = c
    sums[3, cuda.threadIdx.y, cuda.threadIdx.x] = d
    cuda.syncthreads()
    for level in range(Y_LEVELS):
        step = BLOCK_Y >> (level + 1)
        if cuda.threadIdx.y < step:
            for k in range(4):
                sums[k, cuda.threadIdx.y, cuda.threadIdx.x] += sums[
                    k, cuda.threadIdx.y + step, cuda.threadIdx.x
                ]
        cuda.syncthreads()
    return (
        sums[0, 0, cuda.threadIdx.x],
        sums[1, 0, cuda.threadIdx.x],
        sums[2, 0, cuda.threadIdx.x],
        sums[3, 0, cuda.threadIdx.x],
    )


def sum_into_bias(a, b, c, d, j, columns, bias_gradient, partials, tickets):
    """Sum each thread's four columns over the block and over the blocks that share its columns."""
    sum0, sum1, sum2, sum3 = column_sums(a, b, c, d)
    if SPLIT:
        if cuda.threadIdx.y == 0 and j < columns:
            write4(partials[cuda.blockIdx.y], j, columns, sum0, sum1, sum2, sum3)
        if is_last(tickets, cuda.blockIdx.x, cuda.gridDim.y):
            sum0 = sum1 = sum2 = sum3 = real(0.0)
            if j < columns:
                for chunk in range(cuda.threadIdx.y, cuda.gridDim.y, BLOCK_Y):
                    p0, p1, p2, p3 = read4(partials[chunk], j, columns)
                    sum0 += p0
                    sum1 += p1
                    sum2 += p2
                    sum3 += p3
            sum0, sum1, sum2, sum3 = column_sums(sum0, sum1, sum2, sum3)
            if cuda.threadIdx.y == 0 and j < columns:
                write4(bias_gradient, j, columns, sum0, sum1, sum2, sum3)
    else:
        if cuda.threadIdx.y == 0 and j < columns:
            write4(bias_gradient, j, columns, sum0, sum1, sum2, sum3)


def sum_rows(matrix, first, stop, columns, out):
    """Sum rows ``first .. stop - 1`` of a matrix, by one block, a tile of columns at a time."""
    for tile in range(0, columns, 4 * BLOCK_X):
        j = tile + 4 * cuda.threadIdx.x
        sum0 = sum1 = sum2 = sum3 = real(0.0)
        if j < columns:
            for i in range(first + cuda.threadIdx.y, stop, BLOCK_Y):
                r0, r1, r2, r3 = read4(matrix[i], j, columns)
                sum0 += r0
                sum1 += r1
                sum2 += r2
                sum3 += r3
        sum0, sum1, sum2, sum3 = column_sums(sum0, sum1, sum2, sum3)
        if cuda.threadIdx.y == 0 and j < columns:
            write4(out, j, columns, sum0, sum1, sum2, sum3)
        # The next tile takes the same shared memory.
        cuda.syncthreads()
