"""The CUDA kernels of the losses, with their gradient and its sum for the bias.

Four losses are added in the working type and their sum to a float64: a float64 addition for each one would be
slower than memory where float64 runs at 1/64 of the rate.
"""

from __future__ import annotations

from math import exp, inf, log

from numba import cuda

from nnkit.kernels.common_parts import (
    BIAS,
    CEILED,
    GRADIENT,
    INDICES,
    SUMMED,
    WEIGHTED,
    add_to_loss,
    derivative,
    double,
    label_smoothing,
    loss_factor,
    member_share,
    prediction_count,
    real,
    row_of,
    value,
)
from nnkit.kernels.cuda_parts import (
    BLOCK_X,
    BLOCK_Y,
    GROUP_LEVELS,
    MANY,
    ONE_PASS,
    SPLIT,
    WHOLE,
    block_sum,
    greater,
    is_last,
    less,
    read4,
    row_max,
    row_sum,
    sum4,
    sum_columns4,
    sum_matrix,
    sum_of_blocks,
    write4,
)
from nnkit.kernels.formulas import (
    ceiled_cross_entropy_term,
    cross_entropy_derivative,
    cross_entropy_term,
    smoothed_indicator,
    smoothed_probability,
)
from nnkit.kernels.lanes import LANE


def add_block_to_loss(scalars, total, weight_total, rows):
    """Let one thread put the batch's sums where the host reads them."""
    if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
        add_to_loss(scalars, total, weight_total, rows)


def logits4(given, i, j, columns):
    """Four outputs of a row with their bias."""
    y4 = read4(given.outputs[i], j, columns)
    if BIAS:
        bias4 = read4(given.bias, j, columns)
        y4 += bias4
    return y4


# ---------------------------------------------------------------------------------------------------------
# Losses of one output.
# ---------------------------------------------------------------------------------------------------------


def losses4(y4, t4, j, columns):
    """The sum of four outputs' losses, in their order, without those beyond the last."""
    losses = real(0.0)
    if WHOLE or j + LANE < columns:
        losses += value(y4, t4)
    return losses


def add_grid_to_loss(given, total, weight_total, per_output, rows):
    """Sum over the blocks, and add the sums to the epoch's."""
    total = block_sum(total)
    weight_total = block_sum(weight_total) if WEIGHTED else double(rows)
    last = True
    if MANY:
        block = cuda.blockIdx.y * cuda.gridDim.x + cuda.blockIdx.x
        blocks = cuda.gridDim.x * cuda.gridDim.y
        if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
            given.block_sums[0, block] = total
            given.block_sums[1, block] = weight_total
        last = is_last(given.tickets, cuda.gridDim.x, blocks)
        if last:
            total = sum_of_blocks(given.block_sums[0], blocks)
            if WEIGHTED:
                weight_total = sum_of_blocks(given.block_sums[1], blocks)
    if last:
        add_block_to_loss(given.scalars, total * double(per_output), weight_total, rows)


def elementwise_loss(given):
    """Add the bias; sum w and w·loss, a mean over outputs; write the gradient of Σ w·loss / batch_size."""
    outputs = given.outputs
    columns = outputs.shape[1]
    filled = given.count[0]
    predictions = prediction_count(filled, given.members)
    per_output = real(1.0) if SUMMED else 1.0 / real(columns)
    factor = loss_factor(per_output, given.batch_size, given.scaling)
    total = double(0.0)
    weight_total = double(0.0)
    sums4 = real(0.0)
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    if j < columns:
        for i in range(
            cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, outputs.shape[0], cuda.gridDim.y * BLOCK_Y
        ):
            d4 = real(0.0)
            if i < predictions:
                r = row_of(i, given.members)
                w = member_share(given.batch_weights[r] if WEIGHTED else real(1.0), given.members)
                y4 = logits4(given, i, j, columns)
                t4 = read4(given.labels[r], j, columns)
                total += double(w) * double(losses4(y4, t4, j, columns))
                if WEIGHTED and j == 0:
                    weight_total += double(w)
                if GRADIENT:
                    d4 = derivative(y4, t4) * (w * factor)
            if GRADIENT:
                write4(given.gradient[i], j, columns, d4)
                if BIAS:
                    sums4 += d4
    if GRADIENT and BIAS:
        sum_columns4(sums4, j, columns, given.bias_gradient, given.partials, given.tickets)
    add_grid_to_loss(given, total, weight_total, per_output, filled)


# ---------------------------------------------------------------------------------------------------------
# Softmax cross-entropy, a loss of whole rows. BLOCK_X threads share a row. Where they hold all of it in
# registers (ONE_PASS) each loop over columns has one turn, and the next loop uses the variables of the one
# before; elsewhere it computes them again, and the gradient's row keeps the exponentials.
# ---------------------------------------------------------------------------------------------------------


def class_logits4(given, i, j, columns):
    """Four outputs of a row with their bias; minus infinity beyond the last."""
    y4 = logits4(given, i, j, columns)
    if not WHOLE:
        y4 = y4 if j + LANE < columns else -inf
    return y4


def targets4(given, i, j, columns, classes):
    """The target probabilities of four classes of a row; 0 beyond the last."""
    r = row_of(i, given.members)
    if INDICES:
        t4 = smoothed_indicator(given.labels[r] == j + LANE, label_smoothing, classes)
    else:
        t4 = read4(given.labels[r], j, columns)
        t4 = smoothed_probability(t4, label_smoothing, classes)
    if not WHOLE:
        t4 = t4 if j + LANE < columns else 0.0
    return t4


def row_peak4(given, i, stop, columns):
    """The thread's logits, and the greatest of the row."""
    x4 = real(0.0)
    peak = real(-inf)
    for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
        x4 = class_logits4(given, i, j, columns)
        peak = greater(peak, greatest4(x4))
    return x4, row_max(peak)


def greatest4(a, b, c, d):
    return greater(greater(a, b), greater(c, d))


def row_sums4(given, i, stop, columns, x4, peak):
    """The thread's exponentials and targets; the row's sums of both, and the sum of its terms of the loss."""
    classes = real(columns)
    e4 = real(0.0)
    t4 = real(0.0)
    partition = real(0.0)
    mass = real(0.0)
    terms = double(0.0)
    for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
        if not ONE_PASS:
            x4 = class_logits4(given, i, j, columns)
        e4 = exp(x4 - peak)
        partition += sum4(e4)
        t4 = targets4(given, i, j, columns, classes)
        mass += sum4(t4)
        if not CEILED:
            term4 = cross_entropy_term(x4 - peak, t4)
            terms += double(sum4(term4))
        if GRADIENT and not ONE_PASS:
            write4(given.gradient[i], j, columns, e4)
    # An index stands for probabilities that sum to 1, smoothed or not.
    return e4, t4, row_sum(partition), (real(1.0) if INDICES else row_sum(mass)), terms


def ceiled_terms4(given, i, stop, columns, x4, t4, peak, log_partition):
    """The sum of the thread's terms of the loss, each of them bounded."""
    classes = real(columns)
    terms = double(0.0)
    for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
        if not ONE_PASS:
            x4 = class_logits4(given, i, j, columns)
            t4 = targets4(given, i, j, columns, classes)
        term4 = ceiled_cross_entropy_term(x4 - peak - log_partition, t4)
        terms += double(sum4(term4))
    return terms


def write_gradient4(given, i, stop, columns, e4, t4, partition, mass, scale):
    """Write the gradient of the thread's columns."""
    classes = real(columns)
    for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
        if not ONE_PASS:
            e4 = read4(given.gradient[i], j, columns)
            t4 = targets4(given, i, j, columns, classes)
        d4 = cross_entropy_derivative(e4 / partition, t4, mass) * scale
        write4(given.gradient[i], j, columns, d4)


def add_rows_to_loss(given, total, weight_total, turns, filled):
    """Sum over the blocks, and the columns of the gradient: over groups of blocks, then over the groups."""
    gradient = given.gradient
    rows, columns = given.outputs.shape
    total = block_sum(total)
    weight_total = block_sum(weight_total)
    last = True
    if SPLIT:
        groups = (cuda.gridDim.x + (1 << GROUP_LEVELS) - 1) >> GROUP_LEVELS
        group = cuda.blockIdx.x >> GROUP_LEVELS
        if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
            given.block_sums[0, cuda.blockIdx.x] = total
            given.block_sums[1, cuda.blockIdx.x] = weight_total
        last = is_last(
            given.tickets, group, less(1 << GROUP_LEVELS, cuda.gridDim.x - (group << GROUP_LEVELS))
        )
        if last:
            if GRADIENT and BIAS:
                size = (turns * BLOCK_Y) << GROUP_LEVELS
                stop = less(rows, group * size + size)
                sum_matrix(gradient, group * size, stop, columns, given.group_sums[group])
            last = is_last(given.tickets, groups, groups)
            if last:
                if GRADIENT and BIAS:
                    sum_matrix(given.group_sums, 0, groups, columns, given.bias_gradient)
                total = sum_of_blocks(given.block_sums[0], cuda.gridDim.x)
                weight_total = sum_of_blocks(given.block_sums[1], cuda.gridDim.x)
    elif GRADIENT and BIAS:
        # `block_sum` was a barrier: the block's own gradient is there to be read.
        sum_matrix(gradient, 0, rows, columns, given.bias_gradient)
    if last:
        add_block_to_loss(given.scalars, total, weight_total, filled)


def softmax_loss(given):
    """The same for softmax cross-entropy, from class indices or from probabilities.

    The loss of a row is Σ −t (y − peak) + mass · log Σ e^(y − peak), neither of them negative, so nothing
    cancels.
    """
    rows, columns = given.outputs.shape
    factor = loss_factor(real(1.0), given.batch_size, given.scaling)
    filled = given.count[0]
    predictions = prediction_count(filled, given.members)
    total = double(0.0)
    weight_total = double(0.0)
    # A block has consecutive rows, so that those of a group of blocks are consecutive too.
    turns = (rows + cuda.gridDim.x * BLOCK_Y - 1) // (cuda.gridDim.x * BLOCK_Y)
    for turn in range(turns):
        i = (cuda.blockIdx.x * turns + turn) * BLOCK_Y + cuda.threadIdx.y
        w = real(0.0)
        stop = 0
        if i < predictions:
            r = row_of(i, given.members)
            w = member_share(given.batch_weights[r] if WEIGHTED else real(1.0), given.members)
            stop = columns
        x4, peak = row_peak4(given, i, stop, columns)
        e4, t4, partition, mass, terms = row_sums4(given, i, stop, columns, x4, peak)
        if CEILED:
            log_partition = real(0.0)
            if i < predictions:
                log_partition = log(partition)
            terms = ceiled_terms4(given, i, stop, columns, x4, t4, peak, log_partition)
        total += double(w) * terms
        if cuda.threadIdx.x == 0 and i < predictions:
            if not CEILED:
                total += double(w) * (double(mass) * double(log(partition)))
            weight_total += double(w)
        if GRADIENT:
            write_gradient4(given, i, stop, columns, e4, t4, partition, mass, w * factor)
            if i >= predictions and i < rows:
                for j in range(4 * cuda.threadIdx.x, columns, 4 * BLOCK_X):
                    write4(given.gradient[i], j, columns, real(0.0), real(0.0), real(0.0), real(0.0))
    add_rows_to_loss(given, total, weight_total, turns, filled)
