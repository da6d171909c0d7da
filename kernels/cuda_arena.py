"""The CUDA kernels over the arena: penalties, norm and update, all segments in one launch.

Segments start at multiples of 32 elements; what their last group of four has beyond the end is neither read
nor written.
"""

from __future__ import annotations

from numba import cuda

from nnkit.kernels.common_parts import (
    COPIED,
    GROUPED,
    PREPARED,
    RESCALED,
    SLOTS,
    TINY,
    add_penalty,
    double,
    penalty_scale,
    prepare,
    proceeds,
    real,
    rescale,
    rule,
    unscaled_square,
    update_scale,
)
from nnkit.kernels.cuda_parts import BLOCK_X, MANY, block_sum, is_last, read4, sum_of_blocks, write4
from nnkit.kernels.formulas import decoupled_decay, penalty, penalty_derivative
from nnkit.kernels.layout import (
    BATCH,
    COPY_PITCH,
    COPY_START,
    COPY_WIDTH,
    SEGMENT_DECAYS,
    SEGMENT_START,
    SEGMENT_STOP,
    SQUARED_NORM,
    STEP,
)
from nnkit.kernels.wide import store1


def add_block_penalty(scalars, total):
    """Let one thread add the batch's penalty to the epoch's."""
    if cuda.threadIdx.x == 0:
        add_penalty(scalars, total)


def penalise(values, gradients, segments, scalars, scaling, batch_size, l1, l2, block_sums, tickets):
    """Add the penalty of the decaying segments to the loss, and its gradient, scaled as the batch's is."""
    scale = penalty_scale(scalars, scaling, batch_size)
    total = double(0.0)
    thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    for s in range(segments.shape[0]):
        if segments[s, SEGMENT_DECAYS] != 0:
            stop = segments[s, SEGMENT_STOP]
            for k in range(segments[s, SEGMENT_START] + 4 * thread, stop, cuda.gridDim.x * (4 * BLOCK_X)):
                w0, w1, w2, w3 = read4(values, k, stop)
                g0, g1, g2, g3 = read4(gradients, k, stop)
                g0 += scale * penalty_derivative(w0, l1, l2)
                g1 += scale * penalty_derivative(w1, l1, l2)
                g2 += scale * penalty_derivative(w2, l1, l2)
                g3 += scale * penalty_derivative(w3, l1, l2)
                write4(gradients, k, stop, g0, g1, g2, g3)
                pair0 = penalty(w0, l1, l2) + penalty(w1, l1, l2)
                pair1 = penalty(w2, l1, l2) + penalty(w3, l1, l2)
                # As for the losses: four in the working type, their sum in float64.
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


def squared_norm(gradients, segments, scalars, scaling, block_sums, tickets):
    """Sum the squares of the gradient over all segments that train: not finite where an element is not.

    Each square is a float64: a float32's would overflow from 1.8e19 on, and the norm is there to tame such a
    gradient. Where float64 runs at 1/64 of the rate (RTX 4090: 0.64 T/s) that is two operations for four
    bytes, 1.3 TB/s, still no slower than memory.
    """
    total = double(0.0)
    thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    for s in range(segments.shape[0]):
        stop = segments[s, SEGMENT_STOP]
        for k in range(segments[s, SEGMENT_START] + 4 * thread, stop, cuda.gridDim.x * (4 * BLOCK_X)):
            g0, g1, g2, g3 = read4(gradients, k, stop)
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
                scalars[SQUARED_NORM] = unscaled_square(total, scaling)
    elif cuda.threadIdx.x == 0:
        scalars[SQUARED_NORM] = unscaled_square(total, scaling)


def copy4(copy, place, k, stop, a, b, c, d):
    """Round elements ``k .. k + 3`` of a segment to their places in the copy, whose rows may be longer."""
    start = place[COPY_START]
    width = place[COPY_WIDTH]
    pitch = place[COPY_PITCH]
    if width == pitch:
        write4(copy, start + k, start + stop, a, b, c, d)
    else:
        row = k // width
        column = k - row * width
        at = start + row * pitch + column
        if k < stop:
            store1(copy, at, a)
        column, at = next_place(column, at, width, pitch)
        if k + 1 < stop:
            store1(copy, at, b)
        column, at = next_place(column, at, width, pitch)
        if k + 2 < stop:
            store1(copy, at, c)
        column, at = next_place(column, at, width, pitch)
        if k + 3 < stop:
            store1(copy, at, d)


def next_place(column, at, width, pitch):
    """The column of the next element, and where it is in the copy."""
    ends = column + 1 == width
    return (0 if ends else column + 1), (at + 1 + pitch - width if ends else at + 1)


def copy_parameters(values, copy, segments, copies):
    """Round all parameters to the copy that the products take; its padding is not touched."""
    thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    for s in range(segments.shape[0]):
        start = segments[s, SEGMENT_START]
        stop = segments[s, SEGMENT_STOP]
        for k in range(start + 4 * thread, stop, cuda.gridDim.x * (4 * BLOCK_X)):
            w0, w1, w2, w3 = read4(values, k, stop)
            copy4(copy, copies[s], k - start, stop - start, w0, w1, w2, w3)


def normal_or_zero(x):
    """Moments of weights that see no input decay into denormals; those are flushed."""
    return 0.0 if abs(x) < TINY else x


def updated0(w, g, scale, learning_rate, decay):
    old = decoupled_decay(w, learning_rate, decay)
    return rule(old, g * scale, learning_rate)


def updated1(w, g, first, scale, learning_rate, decay):
    old = decoupled_decay(w, learning_rate, decay)
    new, state = rule(old, g * scale, learning_rate, first)
    return new, normal_or_zero(state)


def updated2(w, g, first, second, scale, learning_rate, decay):
    old = decoupled_decay(w, learning_rate, decay)
    new, state, other = rule(old, g * scale, learning_rate, first, second)
    return new, normal_or_zero(state), normal_or_zero(other)


def step_figures(figures, scalars, scaling, counters, rates, batch_size, clip_norm):
    """Compute in float64, by one thread, what is the same for all elements: scale, rate and corrections."""
    figures[0] = update_scale(scalars, scaling, batch_size, clip_norm)
    figures[1] = rates[counters[BATCH]]
    if PREPARED:
        wide1, wide2 = prepare(double(counters[STEP] + 1))
        figures[2] = wide1
        figures[3] = wide2


def update(
    values,
    gradients,
    state0,
    state1,
    segments,
    rate_factors,
    copy,
    copies,
    counters,
    rates,
    scalars,
    scaling,
    batch_size,
    clip_norm,
    weight_decay,
    tickets,
):
    """Correct by batch / Σw, clip, decay and apply the rule in one pass; count the batch and the step.

    What is the same for all elements is computed by one thread of each block, in float64. The last block to
    finish counts, when all have read the counters and the loss scale. COPIED writes the new weights in 16
    bits too. RESCALED divides by the loss scale, leaves out an update whose gradient overflowed, and adapts
    the scale. GROUPED multiplies the learning rate by each segment's factor.
    """
    figures = cuda.shared.array(4, real)
    followed = proceeds(scalars)
    if followed:
        if cuda.threadIdx.x == 0:
            step_figures(figures, scalars, scaling, counters, rates, batch_size, clip_norm)
        cuda.syncthreads()
        scale = figures[0]
        learning_rate = figures[1]
        if PREPARED:
            correction1 = figures[2]
            correction2 = figures[3]
        thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
        for s in range(segments.shape[0]):
            if GROUPED:
                learning_rate = figures[1] * real(rate_factors[s])
            start = segments[s, SEGMENT_START]
            stop = segments[s, SEGMENT_STOP]
            decay = weight_decay if segments[s, SEGMENT_DECAYS] != 0 else real(0.0)
            for k in range(start + 4 * thread, stop, cuda.gridDim.x * (4 * BLOCK_X)):
                w0, w1, w2, w3 = read4(values, k, stop)
                g0, g1, g2, g3 = read4(gradients, k, stop)
                if SLOTS == 0:
                    w0 = updated0(w0, g0, scale, learning_rate, decay)
                    w1 = updated0(w1, g1, scale, learning_rate, decay)
                    w2 = updated0(w2, g2, scale, learning_rate, decay)
                    w3 = updated0(w3, g3, scale, learning_rate, decay)
                if SLOTS == 1:
                    m0, m1, m2, m3 = read4(state0, k, stop)
                    w0, m0 = updated1(w0, g0, m0, scale, learning_rate, decay)
                    w1, m1 = updated1(w1, g1, m1, scale, learning_rate, decay)
                    w2, m2 = updated1(w2, g2, m2, scale, learning_rate, decay)
                    w3, m3 = updated1(w3, g3, m3, scale, learning_rate, decay)
                    write4(state0, k, stop, m0, m1, m2, m3)
                if SLOTS == 2:
                    m0, m1, m2, m3 = read4(state0, k, stop)
                    v0, v1, v2, v3 = read4(state1, k, stop)
                    w0, m0, v0 = updated2(w0, g0, m0, v0, scale, learning_rate, decay)
                    w1, m1, v1 = updated2(w1, g1, m1, v1, scale, learning_rate, decay)
                    w2, m2, v2 = updated2(w2, g2, m2, v2, scale, learning_rate, decay)
                    w3, m3, v3 = updated2(w3, g3, m3, v3, scale, learning_rate, decay)
                    write4(state0, k, stop, m0, m1, m2, m3)
                    write4(state1, k, stop, v0, v1, v2, v3)
                write4(values, k, stop, w0, w1, w2, w3)
                if COPIED:
                    copy4(copy, copies[s], k - start, stop - start, w0, w1, w2, w3)
    finished = is_last(tickets, 0, cuda.gridDim.x) if MANY else True
    if finished and cuda.threadIdx.x == 0:
        if followed:
            counters[STEP] += 1
        if RESCALED:
            rescale(scalars, scaling)
        counters[BATCH] += 1
