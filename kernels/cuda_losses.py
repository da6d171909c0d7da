"""The CUDA kernels of the losses, with their gradient and its sum for the bias.

Four losses are added in the working type and their sum to a float64: a float64 addition for each one would be
slower than memory where float64 runs at 1/64 of the rate.
"""

from __future__ import annotations

from math import inf

from numba import cuda

from nnkit.kernels.common_parts import (
    BIAS,
    CEILED,
    GRADIENT,
    INDICES,
    RESCALED,
    SUMMED,
    WEIGHTED,
    add_to_loss,
    derivative,
    double,
    exp,
    label_smoothing,
    log,
    real,
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
    lane_max,
    lane_sum,
    less,
    read4,
    sum_into_bias,
    sum_of_blocks,
    sum_rows,
    write4,
)
from nnkit.kernels.formulas import (
    ceiled_cross_entropy_term,
    cross_entropy_derivative,
    cross_entropy_term,
    smoothed_indicator,
    smoothed_probability,
)
from nnkit.kernels.layout import LOSS_SCALE


def add_block_to_loss(scalars, total, weight_total, rows):
    """Let one thread put the batch's sums where the host reads them."""
    if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
        add_to_loss(scalars, total, weight_total, rows)


def elementwise_loss(
    outputs,
    bias,
    labels,
    batch_weights,
    count,
    gradient,
    bias_gradient,
    scalars,
    scaling,
    batch_size,
    partials,
    block_sums,
    tickets,
):
    """Add the bias; sum w and w·loss, a mean over outputs; write the gradient of Σ w·loss / batch_size."""
    columns = outputs.shape[1]
    rows = count[0]
    per_output = real(1.0) if SUMMED else 1.0 / real(columns)
    factor = per_output / real(batch_size)
    if RESCALED:
        factor = factor * real(scaling[LOSS_SCALE])
    total = double(0.0)
    weight_total = double(0.0)
    sum0 = sum1 = sum2 = sum3 = real(0.0)
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    if j < columns:
        if BIAS:
            bias0, bias1, bias2, bias3 = read4(bias, j, columns)
        for i in range(
            cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, outputs.shape[0], cuda.gridDim.y * BLOCK_Y
        ):
            d0 = d1 = d2 = d3 = real(0.0)
            if i < rows:
                w = batch_weights[i] if WEIGHTED else real(1.0)
                y0, y1, y2, y3 = read4(outputs[i], j, columns)
                if BIAS:
                    y0 += bias0
                    y1 += bias1
                    y2 += bias2
                    y3 += bias3
                t0, t1, t2, t3 = read4(labels[i], j, columns)
                losses = value(y0, t0)
                if WHOLE or j + 1 < columns:
                    losses += value(y1, t1)
                if WHOLE or j + 2 < columns:
                    losses += value(y2, t2)
                if WHOLE or j + 3 < columns:
                    losses += value(y3, t3)
                total += double(w) * double(losses)
                if WEIGHTED and j == 0:
                    weight_total += double(w)
                if GRADIENT:
                    d0 = derivative(y0, t0) * (w * factor)
                    d1 = derivative(y1, t1) * (w * factor)
                    d2 = derivative(y2, t2) * (w * factor)
                    d3 = derivative(y3, t3) * (w * factor)
            if GRADIENT:
                write4(gradient[i], j, columns, d0, d1, d2, d3)
                if BIAS:
                    sum0 += d0
                    sum1 += d1
                    sum2 += d2
                    sum3 += d3
    if GRADIENT and BIAS:
        sum_into_bias(sum0, sum1, sum2, sum3, j, columns, bias_gradient, partials, tickets)
    total = block_sum(total)
    weight_total = block_sum(weight_total) if WEIGHTED else double(rows)
    if MANY:
        blocks = cuda.gridDim.x * cuda.gridDim.y
        if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
            block_sums[0, cuda.blockIdx.y * cuda.gridDim.x + cuda.blockIdx.x] = total
            block_sums[1, cuda.blockIdx.y * cuda.gridDim.x + cuda.blockIdx.x] = weight_total
        if is_last(tickets, cuda.gridDim.x, blocks):
            total = sum_of_blocks(block_sums[0], blocks)
            weight_total = sum_of_blocks(block_sums[1], blocks) if WEIGHTED else double(rows)
            add_block_to_loss(scalars, total * double(per_output), weight_total, rows)
    else:
        add_block_to_loss(scalars, total * double(per_output), weight_total, rows)


def logits4(outputs, bias, i, j, columns):
    """Four outputs of a row with their bias; minus infinity beyond the last."""
    a, b, c, d = read4(outputs[i], j, columns)
    if BIAS:
        bias0, bias1, bias2, bias3 = read4(bias, j, columns)
        a += bias0
        b += bias1
        c += bias2
        d += bias3
    if not WHOLE:
        b = b if j + 1 < columns else -inf
        c = c if j + 2 < columns else -inf
        d = d if j + 3 < columns else -inf
    return a, b, c, d


def targets4(labels, i, j, columns, classes):
    """The target probabilities of four classes of a row; 0 beyond the last."""
    if INDICES:
        a = smoothed_indicator(labels[i] == j, label_smoothing, classes)
        b = smoothed_indicator(labels[i] == j + 1, label_smoothing, classes)
        c = smoothed_indicator(labels[i] == j + 2, label_smoothing, classes)
        d = smoothed_indicator(labels[i] == j + 3, label_smoothing, classes)
    else:
        t0, t1, t2, t3 = read4(labels[i], j, columns)
        a = smoothed_probability(t0, label_smoothing, classes)
        b = smoothed_probability(t1, label_smoothing, classes)
        c = smoothed_probability(t2, label_smoothing, classes)
        d = smoothed_probability(t3, label_smoothing, classes)
    if not WHOLE:
        b = b if j + 1 < columns else 0.0
        c = c if j + 2 < columns else 0.0
        d = d if j + 3 < columns else 0.0
    return a, b, c, d


def softmax_loss(
    outputs,
    bias,
    labels,
    batch_weights,
    count,
    gradient,
    bias_gradient,
    scalars,
    scaling,
    batch_size,
    group_sums,
    block_sums,
    tickets,
):
    """The same for softmax cross-entropy, a loss of whole rows, from class indices or from probabilities.

    BLOCK_X threads share a row. Where they hold all of it in registers (ONE_PASS) each loop over columns has
    one turn, and the next loop finds the variables that it left; elsewhere the gradient's row keeps the
    exponentials. The loss of a row is Σ −t (y − peak) + mass · log Σ e^(y − peak), neither of them negative,
    so nothing cancels.
    """
    rows = outputs.shape[0]
    columns = outputs.shape[1]
    classes = real(columns)
    factor = 1.0 / real(batch_size)
    if RESCALED:
        factor = factor * real(scaling[LOSS_SCALE])
    filled = count[0]
    total = double(0.0)
    weight_total = double(0.0)
    # A block has consecutive rows, so that those of a group of blocks are consecutive too.
    turns = (rows + cuda.gridDim.x * BLOCK_Y - 1) // (cuda.gridDim.x * BLOCK_Y)
    for turn in range(turns):
        i = (cuda.blockIdx.x * turns + turn) * BLOCK_Y + cuda.threadIdx.y
        w = real(0.0)
        stop = 0
        if i < filled:
            w = batch_weights[i] if WEIGHTED else real(1.0)
            stop = columns
        x0 = x1 = x2 = x3 = real(0.0)
        peak = real(-inf)
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            x0, x1, x2, x3 = logits4(outputs, bias, i, j, columns)
            peak = greater(peak, greater(greater(x0, x1), greater(x2, x3)))
        peak = lane_max(peak)
        e0 = e1 = e2 = e3 = real(0.0)
        t0 = t1 = t2 = t3 = real(0.0)
        partition = real(0.0)
        mass = real(0.0)
        terms = double(0.0)
        for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
            if not ONE_PASS:
                x0, x1, x2, x3 = logits4(outputs, bias, i, j, columns)
            e0 = exp(x0 - peak)
            e1 = exp(x1 - peak)
            e2 = exp(x2 - peak)
            e3 = exp(x3 - peak)
            partition += (e0 + e1) + (e2 + e3)
            t0, t1, t2, t3 = targets4(labels, i, j, columns, classes)
            mass += (t0 + t1) + (t2 + t3)
            if not CEILED:
                pair0 = cross_entropy_term(x0 - peak, t0) + cross_entropy_term(x1 - peak, t1)
                pair1 = cross_entropy_term(x2 - peak, t2) + cross_entropy_term(x3 - peak, t3)
                terms += double(pair0 + pair1)
            if GRADIENT and not ONE_PASS:
                write4(gradient[i], j, columns, e0, e1, e2, e3)
        partition = lane_sum(partition)
        # An index stands for probabilities that sum to 1, smoothed or not.
        mass = real(1.0) if INDICES else lane_sum(mass)
        if CEILED:
            log_partition = real(0.0)
            if i < filled:
                log_partition = log(partition)
            for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
                if not ONE_PASS:
                    x0, x1, x2, x3 = logits4(outputs, bias, i, j, columns)
                    t0, t1, t2, t3 = targets4(labels, i, j, columns, classes)
                pair0 = ceiled_cross_entropy_term(x0 - peak - log_partition, t0)
                pair0 += ceiled_cross_entropy_term(x1 - peak - log_partition, t1)
                pair1 = ceiled_cross_entropy_term(x2 - peak - log_partition, t2)
                pair1 += ceiled_cross_entropy_term(x3 - peak - log_partition, t3)
                terms += double(pair0 + pair1)
        total += double(w) * terms
        if cuda.threadIdx.x == 0 and i < filled:
            if not CEILED:
                total += double(w) * (double(mass) * double(log(partition)))
            weight_total += double(w)
        if GRADIENT:
            for j in range(4 * cuda.threadIdx.x, stop, 4 * BLOCK_X):
                if not ONE_PASS:
                    e0, e1, e2, e3 = read4(gradient[i], j, columns)
                    t0, t1, t2, t3 = targets4(labels, i, j, columns, classes)
                d0 = cross_entropy_derivative(e0 / partition, t0, mass) * (w * factor)
                d1 = cross_entropy_derivative(e1 / partition, t1, mass) * (w * factor)
                d2 = cross_entropy_derivative(e2 / partition, t2, mass) * (w * factor)
                d3 = cross_entropy_derivative(e3 / partition, t3, mass) * (w * factor)
                write4(gradient[i], j, columns, d0, d1, d2, d3)
            if i >= filled and i < rows:
                for j in range(4 * cuda.threadIdx.x, columns, 4 * BLOCK_X):
                    write4(gradient[i], j, columns, real(0.0), real(0.0), real(0.0), real(0.0))
    total = block_sum(total)
    weight_total = block_sum(weight_total)
    if SPLIT:
        groups = (cuda.gridDim.x + (1 << GROUP_LEVELS) - 1) >> GROUP_LEVELS
        group = cuda.blockIdx.x >> GROUP_LEVELS
        if cuda.threadIdx.x == 0 and cuda.threadIdx.y == 0:
            block_sums[0, cuda.blockIdx.x] = total
            block_sums[1, cuda.blockIdx.x] = weight_total
        if is_last(tickets, group, less(1 << GROUP_LEVELS, cuda.gridDim.x - (group << GROUP_LEVELS))):
            if GRADIENT and BIAS:
                size = (turns * BLOCK_Y) << GROUP_LEVELS
                sum_rows(gradient, group * size, less(rows, group * size + size), columns, group_sums[group])
            if is_last(tickets, groups, groups):
                if GRADIENT and BIAS:
                    sum_rows(group_sums, 0, groups, columns, bias_gradient)
                total = sum_of_blocks(block_sums[0], cuda.gridDim.x)
                weight_total = sum_of_blocks(block_sums[1], cuda.gridDim.x)
                add_block_to_loss(scalars, total, weight_total, filled)
    else:
        # `block_sum` was a barrier: the block's own gradient is there to be read.
        if GRADIENT and BIAS:
            sum_rows(gradient, 0, rows, columns, bias_gradient)
        add_block_to_loss(scalars, total, weight_total, filled)
