"""The CUDA kernels of an embedding: lookup, compact gradient, update of the rows seen.

With the results of `host_embedding`, except that the rows seen are in the order of their ids: `cuda_sorting`
has sorted the tokens, so that those of each row form a run. No sum depends on which block runs first.
"""

from __future__ import annotations

import numpy as np
from numba import cuda

from nnkit.kernels.common_parts import (
    DECAY_VARIES,
    DECAYS_UNSEEN,
    GRADIENT,
    GROUPED,
    MAX,
    MEAN,
    PREPARED,
    SHUFFLED,
    WEIGHTED,
    add_penalty,
    decay_unseen,
    double,
    penalty_scale,
    real,
    should_update,
    unscaled_square,
)
from nnkit.kernels.cuda_arena import penalise4, step_figures, update4
from nnkit.kernels.cuda_parts import (
    BLOCK_X,
    BLOCK_Y,
    SPAN,
    grid_sum,
    less,
    read4,
    sum_rows4,
    write4,
)
from nnkit.kernels.lanes import LANE
from nnkit.kernels.layout import BATCH, SQUARED_NORM, STEP

STRETCH = 256  # tokens that are summed before they are added to a long bag's others


def bag_max4(given, i, j, start, stop):
    """Four columns' maxima over a bag; with GRADIENT, `peaks` keeps each one's place in the bag."""
    width = given.table.shape[1]
    y4 = real(0.0)
    peak4 = start
    for t in range(start, stop):
        x4 = read4(given.table[given.ids[t]], j, width)
        if t == start or x4 > y4:
            y4 = x4
            peak4 = t
    if GRADIENT and j + LANE < width:
        given.peaks[i, j + LANE] = peak4 - start
    return y4


def bag_sum4(given, i, j, start, stop):
    """Four columns' sums over a bag, or means, whose factor `totals` keeps."""
    y4 = real(0.0)
    total = double(stop - start)
    if WEIGHTED:
        total = double(0.0)
    for begin in range(start, stop, STRETCH):
        part4 = real(0.0)
        for t in range(begin, less(begin + STRETCH, stop)):
            x4 = read4(given.table[given.ids[t]], j, given.table.shape[1])
            weight = given.id_weights[t] if WEIGHTED else real(1.0)
            if WEIGHTED:
                total += double(weight)
            part4 += weight * x4 if WEIGHTED else x4
        y4 += part4
    if MEAN:
        factor = real(0.0)
        if total != double(0.0):
            factor = real(double(1.0) / total)
        y4 *= factor
        if j == 0:
            given.totals[i] = factor
    return y4


def embed(given):
    """Reduce each bag's rows of the table into its columns of the inputs, from `column` on."""
    inputs = given.inputs
    first = given.counters[BATCH] * given.batch_size
    rows = less(inputs.shape[0], given.starts.shape[0] - 1 - first)
    width = given.table.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, rows, cuda.gridDim.y * BLOCK_Y):
        row = given.order[first + i] if SHUFFLED else first + i
        start = given.starts[row]
        stop = given.starts[row + 1]
        if j < width:
            y4 = bag_max4(given, i, j, start, stop) if MAX else bag_sum4(given, i, j, start, stop)
            write4(inputs[i], given.column + j, given.column + width, y4)


# ---------------------------------------------------------------------------------------------------------
# The gradient. The sorted tokens are cut into spans of equal length, one for each row of a block's threads,
# so that the work of a thread does not depend on how frequent the rows are. A run is summed within each span
# in the tokens' order, then over the spans of a block; the sum of a run that began in an earlier block goes
# to `partials`.
# ---------------------------------------------------------------------------------------------------------


def token_gradient4(given, first, place, j):
    """Four columns of a token's gradient; `first` is the batch's first row in the epoch."""
    width = given.gradient.shape[1]
    i = given.owners[place]
    d4 = read4(given.delta[i], given.column + j, given.column + width)
    if MAX:
        g4 = real(0.0)
        if j + LANE < width:
            g4 = d4 if given.peaks[i, j + LANE] == given.offsets[place] else real(0.0)
    else:
        scale = given.totals[i] if MEAN else real(1.0)
        if WEIGHTED:
            row = given.order[first + i] if SHUFFLED else first + i
            scale *= given.id_weights[given.starts[row] + given.offsets[place]]
        g4 = scale * d4
    return g4


def add_pieces4(pieces, entered, run, first, y4):
    """Add the sums of a run in the block's spans from `first` on, in their order."""
    for lane in range(first, BLOCK_Y):
        if entered[lane] == run:
            y4 += pieces[LANE, lane, cuda.threadIdx.x]
    return y4


def embed_gradient(given):
    """Sum the derivative by the bags' vectors into the gradient of the rows seen."""
    runs = given.runs
    gradient = given.gradient
    first = given.counters[BATCH] * given.batch_size
    width = gradient.shape[1]
    span = cuda.threadIdx.y
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    tokens = given.run_starts[given.seen[0]]
    entered = cuda.shared.array(BLOCK_Y, np.int32)  # the run that continues from the span before, or -1
    pieces = cuda.shared.array((4, BLOCK_Y, BLOCK_X), real)  # and its sum within the span
    for tile in range(cuda.blockIdx.y, (tokens + BLOCK_Y * SPAN - 1) // (BLOCK_Y * SPAN), cuda.gridDim.y):
        begin = less((tile * BLOCK_Y + span) * SPAN, tokens)
        end = less(begin + SPAN, tokens)
        before = np.int32(-1)
        run = np.int32(-1)
        if begin < end:
            run = runs[begin]
            if begin > 0 and runs[begin - 1] == run:
                before = run
        cuda.syncthreads()  # the shared memory of the previous tile has been read
        if cuda.threadIdx.x == 0:
            entered[span] = before
        y4 = real(0.0)
        if j < width:
            for place in range(begin, end):
                if runs[place] != run:
                    if run == before:
                        pieces[LANE, span, cuda.threadIdx.x] = y4
                    else:
                        write4(gradient[run], j, width, y4)
                    run = runs[place]
                    y4 = real(0.0)
                g4 = token_gradient4(given, first, place, j)
                y4 += g4
            if run == before:
                pieces[LANE, span, cuda.threadIdx.x] = y4
        cuda.syncthreads()
        if j < width:
            if begin < end and run != before:
                # The last run of the span, and its continuation in the block's later spans.
                y4 = add_pieces4(pieces, entered, run, span + 1, y4)
                write4(gradient[run], j, width, y4)
            if span == 0 and before >= 0:
                y4 = real(0.0)
                y4 = add_pieces4(pieces, entered, before, 0, y4)
                write4(given.partials[tile], j, width, y4)


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
            sum4 = sum_rows4(partials, tile, last + 1, j, width)
            if cuda.threadIdx.y == 0 and j < width:
                g4 = read4(gradient[run], j, width)
                g4 += sum4
                write4(gradient[run], j, width, g4)
            cuda.syncthreads()  # the next run's sums use the same shared memory


# ---------------------------------------------------------------------------------------------------------
# The rows seen. A thread has some groups of four elements, counted through all rows.
# ---------------------------------------------------------------------------------------------------------


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
        total += penalise4(table[rows_seen[r]], gradient[r], 4 * (k - r * groups), width, scale, l1, l2)
    total, finished = grid_sum(total, block_sums, tickets)
    if finished:
        add_penalty(scalars, total)


def squared_norm_rows(gradient, seen, scalars, scaling, block_sums, tickets):
    """Add the squares of the gradient of the rows seen to the batch's."""
    width = gradient.shape[1]
    groups = (width + 3) // 4
    total = double(0.0)
    thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    for k in range(thread, seen[0] * groups, cuda.gridDim.x * BLOCK_X):
        r = k // groups
        g4 = read4(gradient[r], 4 * (k - r * groups), width)
        total += double(g4) * double(g4)
    total, finished = grid_sum(total, block_sums, tickets)
    if finished:
        scalars[SQUARED_NORM] += unscaled_square(total, scaling)


def update_rows(given):
    """Do for the rows seen what `update` does for all, which then counts the batch and the step.

    DECAYS_UNSEEN: a row's state decays here for all steps since the row was last seen; `mark_rows` then
    stores the step. GROUPED multiplies the learning rate by the table's factor.
    """
    table = given.table
    gradient = given.gradient
    if should_update(given.scalars):
        figures = step_figures(given)
        scale = figures[0]
        rate = figures[1]
        decay = figures[4] if DECAY_VARIES else given.weight_decay
        if GROUPED:
            rate *= given.rate_factor
        if PREPARED:
            correction1 = figures[2]
            correction2 = figures[3]
        width = gradient.shape[1]
        groups = (width + 3) // 4
        thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
        for k in range(thread, given.seen[0] * groups, cuda.gridDim.x * BLOCK_X):
            r = k // groups
            j = 4 * (k - r * groups)
            row = given.rows_seen[r]
            left = 1.0
            if DECAYS_UNSEEN:
                left = real(decay_unseen(double(given.counters[STEP] - given.last_seen[row])))
            first = given.state0[row]
            second = given.state1[row]
            update4(table[row], gradient[r], first, second, j, width, scale, rate, decay, left)


def mark_rows(last_seen, rows_seen, seen, counters, scalars):
    """Store that the step that `update` is about to count saw these rows."""
    if should_update(scalars):
        thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
        for r in range(thread, seen[0], cuda.gridDim.x * BLOCK_X):
            last_seen[rows_seen[r]] = counters[STEP] + 1
