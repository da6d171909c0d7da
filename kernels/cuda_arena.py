"""The CUDA kernels over the arena: penalties, norm and update, all segments in one launch.

Segments start at multiples of 32 elements; the elements of their last group of four beyond the end are
neither read nor written.
"""

from __future__ import annotations

from numba import cuda

from nnkit.kernels.common_parts import (
    COPIED,
    DECAY_VARIES,
    DECAYS_UNSEEN,
    GROUPED,
    PREPARED,
    RESCALED,
    SLOTS,
    TINY,
    add_penalty,
    decay_of,
    double,
    penalty_scale,
    prepare,
    real,
    rescale,
    rule,
    should_update,
    unscaled_square,
    update_scale,
)
from nnkit.kernels.cuda_parts import BLOCK_X, MANY, grid_sum, is_last, read4, sum4, write4
from nnkit.kernels.formulas import decoupled_decay, penalty, penalty_derivative
from nnkit.kernels.lanes import LANE
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


def penalise4(values, gradients, k, stop, scale, l1, l2):
    """Add the penalty's gradient to that of four weights, and return their penalty."""
    w4 = read4(values, k, stop)
    g4 = read4(gradients, k, stop)
    g4 += scale * penalty_derivative(w4, l1, l2)
    write4(gradients, k, stop, g4)
    penalty4 = penalty(w4, l1, l2)
    # As for the losses: four in the working type, their sum in float64.
    return double(sum4(penalty4))


def penalise(values, gradients, segments, scalars, scaling, batch_size, l1, l2, block_sums, tickets):
    """Add the penalty of the decaying segments to the loss, and its gradient, scaled as the batch's is."""
    scale = penalty_scale(scalars, scaling, batch_size)
    total = double(0.0)
    thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    for s in range(segments.shape[0]):
        if segments[s, SEGMENT_DECAYS] != 0:
            stop = segments[s, SEGMENT_STOP]
            for k in range(segments[s, SEGMENT_START] + 4 * thread, stop, cuda.gridDim.x * (4 * BLOCK_X)):
                total += penalise4(values, gradients, k, stop, scale, l1, l2)
    total, finished = grid_sum(total, block_sums, tickets)
    if finished:
        add_penalty(scalars, total)


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
            g4 = read4(gradients, k, stop)
            total += double(g4) * double(g4)
    total, finished = grid_sum(total, block_sums, tickets)
    if finished:
        scalars[SQUARED_NORM] = unscaled_square(total, scaling)


def copy4(copy, place, k, stop, w4):
    """Round elements ``k .. k + 3`` of a segment to their places in the copy, whose rows may be longer."""
    start = place[COPY_START]
    width = place[COPY_WIDTH]
    pitch = place[COPY_PITCH]
    if width == pitch:
        write4(copy, start + k, start + stop, w4)
    else:
        row = k // width
        column = k - row * width
        at = start + row * pitch + column
        if k + LANE < stop:
            store1(copy, at, w4)
            column, at = next_place(column, at, width, pitch)


def next_place(column, at, width, pitch):
    """The column of the next element, and its place in the copy."""
    ends = column + 1 == width
    return (0 if ends else column + 1), (at + 1 + pitch - width if ends else at + 1)


def copy_parameters(values, copy, segments, copies):
    """Round all parameters to the copy that the products take; its padding is not touched."""
    thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    for s in range(segments.shape[0]):
        start = segments[s, SEGMENT_START]
        stop = segments[s, SEGMENT_STOP]
        for k in range(start + 4 * thread, stop, cuda.gridDim.x * (4 * BLOCK_X)):
            w4 = read4(values, k, stop)
            copy4(copy, copies[s], k - start, stop - start, w4)


def normal_or_zero(x):
    """Moments of weights that see no input decay into denormals; those are flushed."""
    return 0.0 if abs(x) < TINY else x


def step_figures(given):
    """The step's scale, rate, two corrections and decay, computed in float64 by one thread of each block.

    All threads read them from there: one that went on alone could already have counted the batch.
    """
    figures = cuda.shared.array(5 if DECAY_VARIES else 4, real)
    if cuda.threadIdx.x == 0:
        figures[0] = update_scale(given.scalars, given.scaling, given.batch_size, given.clip_norm)
        figures[1] = given.rates[given.counters[BATCH]]
        if PREPARED:
            wide1, wide2 = prepare(double(given.counters[STEP] + 1))
            figures[2] = wide1
            figures[3] = wide2
        if DECAY_VARIES:
            figures[4] = decay_of(given)
    cuda.syncthreads()
    return figures


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


def update4(values, gradients, state0, state1, k, stop, scale, learning_rate, decay, left):
    """Decay four weights and apply the rule; return the new weights. `left` is the factor of the state."""
    w4 = read4(values, k, stop)
    g4 = read4(gradients, k, stop)
    if SLOTS == 0:
        w4 = updated0(w4, g4, scale, learning_rate, decay)
    if SLOTS > 0:
        m4 = read4(state0, k, stop)
    if DECAYS_UNSEEN:
        m4 *= left
    if SLOTS == 1:
        w4, m4 = updated1(w4, g4, m4, scale, learning_rate, decay)
        write4(state0, k, stop, m4)
    if SLOTS == 2:
        v4 = read4(state1, k, stop)
        w4, m4, v4 = updated2(w4, g4, m4, v4, scale, learning_rate, decay)
        write4(state0, k, stop, m4)
        write4(state1, k, stop, v4)
    write4(values, k, stop, w4)
    return w4


def update(given):
    """Correct by batch / Σw, clip, decay and apply the rule in one pass; count the batch and the step.

    The last block to finish counts, when all have read the counters and the loss scale. COPIED writes the new
    weights in 16 bits too. RESCALED divides by the loss scale, leaves out an update whose gradient
    overflowed, and adapts the scale. GROUPED multiplies the learning rate by each segment's factor.
    """
    values = given.values
    gradients = given.gradients
    segments = given.segments
    followed = should_update(given.scalars)
    if followed:
        figures = step_figures(given)
        scale = figures[0]
        rate = figures[1]
        weight_decay = figures[4] if DECAY_VARIES else given.weight_decay
        if PREPARED:
            correction1 = figures[2]
            correction2 = figures[3]
        thread = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
        for s in range(segments.shape[0]):
            if GROUPED:
                rate = figures[1] * real(given.rate_factors[s])
            start = segments[s, SEGMENT_START]
            stop = segments[s, SEGMENT_STOP]
            decay = weight_decay if segments[s, SEGMENT_DECAYS] != 0 else real(0.0)
            for k in range(start + 4 * thread, stop, cuda.gridDim.x * (4 * BLOCK_X)):
                w4 = update4(values, gradients, given.state0, given.state1, k, stop, scale, rate, decay, 1.0)
                if COPIED:
                    copy4(given.copy, given.copies[s], k - start, stop - start, w4)
    finished = is_last(given.tickets, 0, cuda.gridDim.x) if MANY else True
    if finished and cuda.threadIdx.x == 0:
        if followed:
            given.counters[STEP] += 1
        if RESCALED:
            rescale(given.scalars, given.scaling)
        given.counters[BATCH] += 1
