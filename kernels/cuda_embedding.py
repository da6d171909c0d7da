"""The CUDA kernels of an embedding: lookup, compact gradient, update of the rows seen.

With the results of `host_embedding`, except that the rows seen are in the order of their ids: `cuda_sorting`
has sorted the tokens, so that those of each row form a run. No sum depends on which block runs first.
"""

from __future__ import annotations

import numpy as np
from numba import cuda

from nnkit.kernels.common_parts import (
    GRADIENT,
    GROUPED,
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
    MANY,
    SPAN,
    block_sum,
    column_sums,
    is_last,
    less,
    read4,
    sum_of_blocks,
    write4,
)
from nnkit.kernels.formulas import penalty, penalty_derivative
from nnkit.kernels.layout import BATCH, SQUARED_NORM, STEP

STRETCH = 256  # tokens that are summed before they are added to a long bag's others


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
):
    """Reduce each bag's rows of the table into its columns of the inputs, from `column` on.

    `totals` keeps what a mean is multiplied by; with GRADIENT, `peaks` keeps each maximum's place in its bag.
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
                    peaks[i, j] = peak0 - start
                    if j + 1 < width:
                        peaks[i, j + 1] = peak1 - start
                    if j + 2 < width:
                        peaks[i, j + 2] = peak2 - start
                    if j + 3 < width:
                        peaks[i, j + 3] = peak3 - start
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


def put_piece(pieces, a, b, c, d):
    """Store a span's sum of the run that continues from the span before."""
    pieces[0, cuda.threadIdx.y, cuda.threadIdx.x] = a
    pieces[1, cuda.threadIdx.y, cuda.threadIdx.x] = b
    pieces[2, cuda.threadIdx.y, cuda.threadIdx.x] = c
    pieces[3, cuda.threadIdx.y, cuda.threadIdx.x] = d


def with_pieces(pieces, entered, run, first, a, b, c, d):
    """Add the sums of a run in the block's spans from `first` on, in their order."""
    for lane in range(first, BLOCK_Y):
        if entered[lane] == run:
            a += pieces[0, lane, cuda.threadIdx.x]
            b += pieces[1, lane, cuda.threadIdx.x]
            c += pieces[2, lane, cuda.threadIdx.x]
            d += pieces[3, lane, cuda.threadIdx.x]
    return a, b, c, d


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
    owners,
    offsets,
    runs,
    run_starts,
    seen,
    gradient,
    partials,
):
    """Sum the derivative by the bags' vectors into the gradient of the rows seen.

    The sorted tokens are cut into spans of equal length, one for each row of a block's threads, so that the
    work of a thread does not depend on how frequent the rows are. A run is summed within each span in the
    tokens' order, then over the spans of a block; the sum of a run that began in an earlier block goes to
    `partials`.
    """
    first = counters[BATCH] * batch_size
    width = gradient.shape[1]
    lane = cuda.threadIdx.y
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    tokens = run_starts[seen[0]]
    entered = cuda.shared.array(BLOCK_Y, np.int32)  # the run that continues from the span before, or -1
    pieces = cuda.shared.array((4, BLOCK_Y, BLOCK_X), real)  # and its sum within the span
    for tile in range(cuda.blockIdx.y, (tokens + BLOCK_Y * SPAN - 1) // (BLOCK_Y * SPAN), cuda.gridDim.y):
        begin = less((tile * BLOCK_Y + lane) * SPAN, tokens)
        end = less(begin + SPAN, tokens)
        before = np.int32(-1)
        run = np.int32(-1)
        if begin < end:
            run = runs[begin]
            if begin > 0 and runs[begin - 1] == run:
                before = run
        cuda.syncthreads()  # the shared memory of the previous tile has been read
        if cuda.threadIdx.x == 0:
            entered[lane] = before
        a = b = c = d = real(0.0)
        if j < width:
            for place in range(begin, end):
                if runs[place] != run:
                    if run == before:
                        put_piece(pieces, a, b, c, d)
                    else:
                        write4(gradient[run], j, width, a, b, c, d)
                    run = runs[place]
                    a = b = c = d = real(0.0)
                i = owners[place]
                scale = totals[i] if MEAN else real(1.0)
                if WEIGHTED:
                    row = order[first + i] if SHUFFLED else first + i
                    scale *= id_weights[starts[row] + offsets[place]]
                d0, d1, d2, d3 = read4(delta[i], column + j, column + width)
                if MAX:
                    token = offsets[place]
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
            if run == before:
                put_piece(pieces, a, b, c, d)
        cuda.syncthreads()
        if j < width:
            if begin < end and run != before:
                # The last run of the span, and its continuation in the block's later spans.
                a, b, c, d = with_pieces(pieces, entered, run, lane + 1, a, b, c, d)
                write4(gradient[run], j, width, a, b, c, d)
            if lane == 0 and before >= 0:
                a = b = c = d = real(0.0)
                a, b, c, d = with_pieces(pieces, entered, before, 0, a, b, c, d)
                write4(partials[tile], j, width, a, b, c, d)


def add_partials(runs, run_starts, seen, gradient, partials):
    """Add the partial sums of later blocks to the gradient of each run that continues in them."""
    width = gradient.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    size = BLOCK_Y * SPAN
    tiles = (run_starts[seen[0]] + size - 1) // size
    for tile in range(1 + cuda.blockIdx.y, tiles, cuda.gridDim.y):
        run = runs[tile * size]
        begin = run_starts[run]
        # The first tile that a run continues in sums all of its partials.
        if (tile - 1) * size <= begin and begin < tile * size:
            last = (run_starts[run + 1] - 1) // size
            a = b = c = d = real(0.0)
            if j < width:
                for later in range(tile + cuda.threadIdx.y, last + 1, BLOCK_Y):
                    p0, p1, p2, p3 = read4(partials[later], j, width)
                    a += p0
                    b += p1
                    c += p2
                    d += p3
            a, b, c, d = column_sums(a, b, c, d)
            if cuda.threadIdx.y == 0 and j < width:
                g0, g1, g2, g3 = read4(gradient[run], j, width)
                write4(gradient[run], j, width, g0 + a, g1 + b, g2 + c, g3 + d)
            cuda.syncthreads()  # the next run's sums use the same shared memory


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
    rate_factor,
    scalars,
    scaling,
    batch_size,
    clip_norm,
    weight_decay,
):
    """Do for the rows seen what `update` does for all, which then counts the batch and the step.

    A state that LINGERS has shrunk at each step since its row was last seen, and does so now; `mark_rows`
    remembers the step when all of this is done. GROUPED multiplies the learning rate by the table's factor.
    """
    figures = cuda.shared.array(4, real)
    if proceeds(scalars):
        if cuda.threadIdx.x == 0:
            step_figures(figures, scalars, scaling, counters, rates, batch_size, clip_norm)
        cuda.syncthreads()
        scale = figures[0]
        learning_rate = figures[1]
        if GROUPED:
            learning_rate *= rate_factor
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
