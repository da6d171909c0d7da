"""The CUDA kernels of an embedding: numbering a batch's rows, lookup, compact gradient, update.

With the results of `host_embedding`, but for the order of the rows seen, which is here that of their ids: the
tokens are sorted by id and place, so that each row's come one after the other, in the batch's order, and are
summed by one thread for each four of its columns. No sum depends on which block comes first.
"""

from __future__ import annotations

import numpy as np
from numba import cuda

from nnkit.kernels.common_parts import (
    GRADIENT,
    LINGERS,
    MAX,
    MEAN,
    PREPARED,
    SHUFFLED,
    SLOTS,
    WEIGHTED,
    double,
    linger,
    penalty_scale,
    proceeds,
    real,
    unscaled_square,
)
from nnkit.kernels.cuda_arena import add_block_penalty, step_figures, updated0, updated1, updated2
from nnkit.kernels.cuda_parts import (
    BLOCK_X,
    BLOCK_Y,
    KEY_LEVELS,
    LEVELS,
    MANY,
    ROW_LEVELS,
    THREADS,
    block_sum,
    is_last,
    less,
    read4,
    sum_of_blocks,
    write4,
)
from nnkit.kernels.formulas import penalty, penalty_derivative
from nnkit.kernels.layout import BATCH, SQUARED_NORM, STEP

STRETCH = 256  # tokens that are summed before they are added to a long bag's others
LAST_KEY = 0x7FFFFFFFFFFFFFFF
PLACE = 0xFFFFFFFF  # what of a key is the token's place in the batch


def block_scan(x):
    """The sum of the whole numbers of a block's threads up to this one, and that of all of them."""
    thread = cuda.threadIdx.x
    sums = cuda.shared.array(THREADS, np.int64)
    cuda.syncthreads()  # those of the scan before have been read
    sums[thread] = x
    cuda.syncthreads()
    for level in range(LEVELS):
        before = np.int64(0)
        if thread >= 1 << level:
            before = sums[thread - (1 << level)]
        cuda.syncthreads()
        sums[thread] += before
        cuda.syncthreads()
    return sums[thread], sums[THREADS - 1]


def owner_of(token, batch_starts, rows):
    """Which row of the batch has a token: the last that begins at or before it."""
    owner = 0
    for level in range(ROW_LEVELS):
        later = owner + (1 << (ROW_LEVELS - 1 - level))
        if later < rows and batch_starts[later] <= token:
            owner = later
    return owner


def sort_keys(keys, padded):
    """Sort by one block, a power of two of them: Batcher 1968, "Sorting networks and their applications"."""
    for level in range(KEY_LEVELS):
        if (1 << level) < padded:
            for lower in range(level + 1):
                distance = 1 << (level - lower)
                for place in range(cuda.threadIdx.x, padded, THREADS):
                    other = place ^ distance
                    if other > place:
                        a = keys[place]
                        b = keys[other]
                        if (a > b) == ((place & (2 << level)) == 0):
                            keys[place] = b
                            keys[other] = a
                cuda.syncthreads()


def number(
    ids,
    starts,
    order,
    counters,
    batch_size,
    totals,
    batch_starts,
    owners,
    keys,
    run_starts,
    rows_seen,
    seen,
):
    """Sort the batch's tokens by the rows of the table that they name, and list those rows; by one block.

    `batch_starts` says where each row's tokens begin in the batch, `owners` which row has a token, `keys`
    each token's id and place, sorted, and `run_starts` where in it each row seen begins.
    """
    first = counters[BATCH] * batch_size
    rows = less(totals.shape[0], starts.shape[0] - 1 - first)
    thread = cuda.threadIdx.x
    tokens = np.int64(0)
    for tile in range(0, rows, THREADS):
        i = tile + thread
        length = np.int64(0)
        if i < rows:
            row = order[first + i] if SHUFFLED else first + i
            length = starts[row + 1] - starts[row]
        upto, total = block_scan(length)
        if i < rows:
            batch_starts[i] = tokens + upto - length
        tokens += total
    cuda.syncthreads()
    padded = 1
    for level in range(KEY_LEVELS):
        if (1 << level) < tokens:
            padded = 2 << level
    for token in range(thread, padded, THREADS):
        if token < tokens:
            i = owner_of(token, batch_starts, rows)
            row = order[first + i] if SHUFFLED else first + i
            owners[token] = i
            one = np.int64(ids[starts[row] + token - batch_starts[i]])
            keys[token] = (one << np.int64(32)) | token
        else:
            keys[token] = LAST_KEY
    cuda.syncthreads()
    sort_keys(keys, padded)
    known = np.int64(0)
    for tile in range(0, tokens, THREADS):
        token = tile + thread
        one = np.int64(0)
        new = np.int64(0)
        if token < tokens:
            one = keys[token] >> np.int64(32)
            new = np.int64(1)
            if token > 0 and keys[token - 1] >> np.int64(32) == one:
                new = np.int64(0)
        upto, total = block_scan(new)
        if new == 1:
            rows_seen[known + upto - 1] = one
            run_starts[known + upto - 1] = token
        known += total
    if thread == 0:
        run_starts[known] = tokens
        seen[0] = known


def embed(
    table,
    ids,
    starts,
    id_weights,
    order,
    counters,
    batch_size,
    column,
    inputs,
    totals,
    peaks,
    batch_starts,
):
    """Reduce each bag's rows of the table into its columns of the inputs, from `column` on.

    `totals` keeps what a mean is multiplied by; with GRADIENT, `peaks` keeps which token has each maximum.
    """
    first = counters[BATCH] * batch_size
    rows = less(inputs.shape[0], starts.shape[0] - 1 - first)
    width = table.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, rows, cuda.gridDim.y * BLOCK_Y):
        row = order[first + i] if SHUFFLED else first + i
        start = starts[row]
        stop = starts[row + 1]
        if j < width:
            a = b = c = d = real(0.0)
            if MAX:
                peak0 = peak1 = peak2 = peak3 = start
                for t in range(start, stop):
                    x0, x1, x2, x3 = read4(table[ids[t]], j, width)
                    if t == start or x0 > a:
                        a = x0
                        peak0 = t
                    if t == start or x1 > b:
                        b = x1
                        peak1 = t
                    if t == start or x2 > c:
                        c = x2
                        peak2 = t
                    if t == start or x3 > d:
                        d = x3
                        peak3 = t
                if GRADIENT:
                    shift = batch_starts[i] - start
                    peaks[i, j] = peak0 + shift
                    if j + 1 < width:
                        peaks[i, j + 1] = peak1 + shift
                    if j + 2 < width:
                        peaks[i, j + 2] = peak2 + shift
                    if j + 3 < width:
                        peaks[i, j + 3] = peak3 + shift
            else:
                total = double(stop - start)
                if WEIGHTED:
                    total = double(0.0)
                for begin in range(start, stop, STRETCH):
                    sum0 = sum1 = sum2 = sum3 = real(0.0)
                    for t in range(begin, less(begin + STRETCH, stop)):
                        x0, x1, x2, x3 = read4(table[ids[t]], j, width)
                        weight = id_weights[t] if WEIGHTED else real(1.0)
                        if WEIGHTED:
                            total += double(weight)
                        sum0 += weight * x0 if WEIGHTED else x0
                        sum1 += weight * x1 if WEIGHTED else x1
                        sum2 += weight * x2 if WEIGHTED else x2
                        sum3 += weight * x3 if WEIGHTED else x3
                    a += sum0
                    b += sum1
                    c += sum2
                    d += sum3
                if MEAN:
                    factor = real(0.0)
                    if total != double(0.0):
                        factor = real(double(1.0) / total)
                    a *= factor
                    b *= factor
                    c *= factor
                    d *= factor
                    if j == 0:
                        totals[i] = factor
            write4(inputs[i], column + j, column + width, a, b, c, d)


def embed_gradient(
    delta,
    column,
    starts,
    id_weights,
    order,
    counters,
    batch_size,
    totals,
    peaks,
    batch_starts,
    owners,
    keys,
    run_starts,
    seen,
    gradient,
):
    """Sum the derivative by the bags' vectors into the gradient of the rows seen, in the tokens' order."""
    first = counters[BATCH] * batch_size
    width = gradient.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    for r in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, seen[0], cuda.gridDim.y * BLOCK_Y):
        if j < width:
            a = b = c = d = real(0.0)
            for place in range(run_starts[r], run_starts[r + 1]):
                token = keys[place] & np.int64(PLACE)
                i = owners[token]
                scale = totals[i] if MEAN else real(1.0)
                if WEIGHTED:
                    row = order[first + i] if SHUFFLED else first + i
                    scale *= id_weights[starts[row] + token - batch_starts[i]]
                d0, d1, d2, d3 = read4(delta[i], column + j, column + width)
                if MAX:
                    a += d0 if peaks[i, j] == token else real(0.0)
                    if j + 1 < width:
                        b += d1 if peaks[i, j + 1] == token else real(0.0)
                    if j + 2 < width:
                        c += d2 if peaks[i, j + 2] == token else real(0.0)
                    if j + 3 < width:
                        d += d3 if peaks[i, j + 3] == token else real(0.0)
                else:
                    a += scale * d0
                    b += scale * d1
                    c += scale * d2
                    d += scale * d3
            write4(gradient[r], j, width, a, b, c, d)


def penalise_rows(
    table, gradient, rows_seen, seen, scalars, scaling, batch_size, l1, l2, block_sums, tickets
):
    """Add the penalty of the rows seen to the loss, and its gradient, as `penalise` does."""
    scale = penalty_scale(scalars, scaling, batch_size)
    width = gradient.shape[1]
    groups = (width + 3) // 4
    total = double(0.0)
    thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    for k in range(thread, seen[0] * groups, cuda.gridDim.x * BLOCK_X):
        r = k // groups
        j = 4 * (k - r * groups)
        w0, w1, w2, w3 = read4(table[rows_seen[r]], j, width)
        g0, g1, g2, g3 = read4(gradient[r], j, width)
        g0 += scale * penalty_derivative(w0, l1, l2)
        g1 += scale * penalty_derivative(w1, l1, l2)
        g2 += scale * penalty_derivative(w2, l1, l2)
        g3 += scale * penalty_derivative(w3, l1, l2)
        write4(gradient[r], j, width, g0, g1, g2, g3)
        pair0 = penalty(w0, l1, l2) + penalty(w1, l1, l2)
        pair1 = penalty(w2, l1, l2) + penalty(w3, l1, l2)
        total += double(pair0 + pair1)
    total = block_sum(total)
    if MANY:
        if cuda.threadIdx.x == 0:
            block_sums[cuda.blockIdx.x] = total
        if is_last(tickets, 0, cuda.gridDim.x):
            total = sum_of_blocks(block_sums, cuda.gridDim.x)
            add_block_penalty(scalars, total)
    else:
        add_block_penalty(scalars, total)


def squared_norm_rows(gradient, seen, scalars, scaling, block_sums, tickets):
    """Add the squares of the gradient of the rows seen to the batch's."""
    width = gradient.shape[1]
    groups = (width + 3) // 4
    total = double(0.0)
    thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    for k in range(thread, seen[0] * groups, cuda.gridDim.x * BLOCK_X):
        r = k // groups
        g0, g1, g2, g3 = read4(gradient[r], 4 * (k - r * groups), width)
        total += double(g0) * double(g0)
        total += double(g1) * double(g1)
        total += double(g2) * double(g2)
        total += double(g3) * double(g3)
    total = block_sum(total)
    if MANY:
        if cuda.threadIdx.x == 0:
            block_sums[cuda.blockIdx.x] = total
        if is_last(tickets, 0, cuda.gridDim.x):
            total = sum_of_blocks(block_sums, cuda.gridDim.x)
            if cuda.threadIdx.x == 0:
                scalars[SQUARED_NORM] += unscaled_square(total, scaling)
    elif cuda.threadIdx.x == 0:
        scalars[SQUARED_NORM] += unscaled_square(total, scaling)


def update_rows(
    table,
    gradient,
    state0,
    state1,
    last_seen,
    rows_seen,
    seen,
    counters,
    rates,
    scalars,
    scaling,
    batch_size,
    clip_norm,
    weight_decay,
):
    """Do for the rows seen what `update` does for all, which then counts the batch and the step.

    A state that LINGERS has shrunk at each step since its row was last seen, and does so now; `mark_rows`
    remembers the step when all of this is done.
    """
    figures = cuda.shared.array(4, real)
    if proceeds(scalars):
        if cuda.threadIdx.x == 0:
            step_figures(figures, scalars, scaling, counters, rates, batch_size, clip_norm)
        cuda.syncthreads()
        scale = figures[0]
        learning_rate = figures[1]
        if PREPARED:
            correction1 = figures[2]
            correction2 = figures[3]
        width = gradient.shape[1]
        groups = (width + 3) // 4
        thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
        for k in range(thread, seen[0] * groups, cuda.gridDim.x * BLOCK_X):
            r = k // groups
            j = 4 * (k - r * groups)
            row = rows_seen[r]
            w0, w1, w2, w3 = read4(table[row], j, width)
            g0, g1, g2, g3 = read4(gradient[r], j, width)
            if LINGERS:
                left = real(linger(double(counters[STEP] - last_seen[row])))
            if SLOTS == 0:
                w0 = updated0(w0, g0, scale, learning_rate, weight_decay)
                w1 = updated0(w1, g1, scale, learning_rate, weight_decay)
                w2 = updated0(w2, g2, scale, learning_rate, weight_decay)
                w3 = updated0(w3, g3, scale, learning_rate, weight_decay)
            if SLOTS == 1:
                m0, m1, m2, m3 = read4(state0[row], j, width)
                if LINGERS:
                    m0 *= left
                    m1 *= left
                    m2 *= left
                    m3 *= left
                w0, m0 = updated1(w0, g0, m0, scale, learning_rate, weight_decay)
                w1, m1 = updated1(w1, g1, m1, scale, learning_rate, weight_decay)
                w2, m2 = updated1(w2, g2, m2, scale, learning_rate, weight_decay)
                w3, m3 = updated1(w3, g3, m3, scale, learning_rate, weight_decay)
                write4(state0[row], j, width, m0, m1, m2, m3)
            if SLOTS == 2:
                m0, m1, m2, m3 = read4(state0[row], j, width)
                v0, v1, v2, v3 = read4(state1[row], j, width)
                w0, m0, v0 = updated2(w0, g0, m0, v0, scale, learning_rate, weight_decay)
                w1, m1, v1 = updated2(w1, g1, m1, v1, scale, learning_rate, weight_decay)
                w2, m2, v2 = updated2(w2, g2, m2, v2, scale, learning_rate, weight_decay)
                w3, m3, v3 = updated2(w3, g3, m3, v3, scale, learning_rate, weight_decay)
                write4(state0[row], j, width, m0, m1, m2, m3)
                write4(state1[row], j, width, v0, v1, v2, v3)
            write4(table[row], j, width, w0, w1, w2, w3)


def mark_rows(last_seen, rows_seen, seen, counters, scalars):
    """Remember that the step that `update` is about to count saw these rows."""
    if proceeds(scalars):
        thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
        for r in range(thread, seen[0], cuda.gridDim.x * BLOCK_X):
            last_seen[rows_seen[r]] = counters[STEP] + 1
