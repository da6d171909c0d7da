"""The parts that both devices' kernels share: flags and placeholders, a step's numbers, random draws.

`specialise` inlines parts. A step's numbers are computed by one thread, in float64.
"""

from __future__ import annotations

from math import exp, log, sqrt

from numpy import float64 as double
from numpy import int32

from nnkit.kernels.formulas import (
    bounded,
    cosine_of_turns,
    finite_or_zero,
    is_finite,
    log_of_sum,
    log_sigmoid,
    log_sigmoid_slope,
    philox,
    rows_by_weight,
    scale_after,
    sine_of_turns,
    turns,
    u32,
)
from nnkit.kernels.layout import (
    AUGMENT_ERASE,
    AUGMENT_PLACE,
    BATCH,
    BATCH_SHARE,
    CLEAN_STEPS,
    EPOCH,
    IDENTITY,
    LOSS_SCALE,
    LOSS_SUM,
    LOSS_WEIGHT,
    PENALTY_SUM,
    SIGMOID,
    SKIPPED_STEPS,
    SOFTMAX,
    SQUARED_NORM,
    WEIGHT_SUM,
)

# ---------------------------------------------------------------------------------------------------------
# Flags and placeholders, which `specialise` folds or inlines. Those of one device are in its own parts.
# ---------------------------------------------------------------------------------------------------------

AUGMENTED = BIAS = AVERAGE_ROWS = CEILED = CLIP = CODES = COPIED = PENALTY_ON_SUM = DROPOUT = ERASE = FLIP = (
    False
)
FROM_Z = GRADIENT = GROUPED = INDICES = KEEP_Z = DECAYS_UNSEEN = MAX = MEAN = MEMBERS = PREPARED = False
DECAY_VARIES = DROPOUT_VARIES = RESCALED = RING = SCALED = SHARED = SHUFFLED = SPARSE = SUMMED = False
TARGETS = WEIGHTED = False
SLOTS = 0
LINK = 0
label_smoothing = 0.0
ceiling = 0.0
TINY = 0.0


def activation(z):
    """Stand for the layer's activation."""


def activation_derivative(x):
    """Stand for its derivative, from z or from a."""


def value(y, t):
    """Stand for the loss of one output."""


def derivative(y, t):
    """Stand for its derivative."""


def rule(w, g, learning_rate, *state):
    """Stand for the optimizer's rule."""


def prepare(step):
    """Stand for what the rule needs once in a step, in float64."""


def decay_unseen(steps):
    """Stand for the factor of a state after `steps` steps without a gradient, in float64."""


def real(x):
    """Cast to the type of the arithmetic."""


# ---------------------------------------------------------------------------------------------------------
# A step's numbers.
# ---------------------------------------------------------------------------------------------------------


def add_to_loss(scalars, total, weight_total, rows):
    """Store a batch's sums for the host; where RESCALED, a batch that overflowed is not counted."""
    share = rows_by_weight(rows, weight_total) if AVERAGE_ROWS else double(1.0)
    if RESCALED:
        share = share if is_finite(total) else double(0.0)
        total = finite_or_zero(total)
    scalars[WEIGHT_SUM] = weight_total
    scalars[BATCH_SHARE] = share
    scalars[LOSS_SUM] += total * share
    scalars[LOSS_WEIGHT] += weight_total * share


def prediction_count(rows, members):
    """How many predictions a batch's rows have: where there are MEMBERS, one row has one of each."""
    return rows * members if MEMBERS else rows


def row_of(i, members):
    """The row that a prediction is of."""
    return i // members if MEMBERS else i


def member_share(w, members):
    """A prediction's part of its row's weight."""
    return w / real(members) if MEMBERS else w


def loss_factor(per_output, batch_size, scaling):
    """The factor of the gradient of Σ w·loss."""
    factor = per_output / real(batch_size)
    if RESCALED:
        factor = factor * real(scaling[LOSS_SCALE])
    return factor


def penalty_scale(scalars, scaling, batch_size):
    """The factor that scales a penalty's gradient as the batch's is."""
    scale = (
        real(1.0 / double(batch_size)) if PENALTY_ON_SUM else real(scalars[WEIGHT_SUM] / double(batch_size))
    )
    if RESCALED:
        scale = scale * real(scaling[LOSS_SCALE])
    return scale


def add_penalty(scalars, total):
    """Add the batch's penalty to the epoch's, unless all weights are 0."""
    if scalars[WEIGHT_SUM] > double(0.0):
        weighted = total if PENALTY_ON_SUM else total * scalars[WEIGHT_SUM]
        scalars[PENALTY_SUM] += weighted * scalars[BATCH_SHARE] if AVERAGE_ROWS or RESCALED else weighted


def unscaled_square(total, scaling):
    """The square of the gradient without the loss scale."""
    return total / (scaling[LOSS_SCALE] * scaling[LOSS_SCALE]) if RESCALED else total


def should_update(scalars):
    """Whether to apply a batch's gradient: not all weights are 0, and nothing overflowed."""
    found = scalars[WEIGHT_SUM] > double(0.0)
    if RESCALED:
        found = found and is_finite(scalars[SQUARED_NORM])
    return found


def update_scale(scalars, scaling, batch_size, clip_norm):
    """The factor of the gradient: batch / Σw, and less where its norm is clipped."""
    factor = double(batch_size) / scalars[WEIGHT_SUM]
    if CLIP:
        norm = sqrt(scalars[SQUARED_NORM]) * factor
        if norm > clip_norm:
            factor = factor * (clip_norm / norm)
    if RESCALED:
        factor = factor / scaling[LOSS_SCALE]
    return real(factor)


def rescale(scalars, scaling):
    """Adapt the loss scale after a step, and count the step if it was skipped."""
    if scalars[WEIGHT_SUM] > double(0.0):
        overflowed = not is_finite(scalars[SQUARED_NORM])
        next_scale, clean = scale_after(overflowed, scaling[LOSS_SCALE], scaling[CLEAN_STEPS])
        scaling[LOSS_SCALE] = next_scale
        scaling[CLEAN_STEPS] = clean
        if overflowed:
            scaling[SKIPPED_STEPS] += double(1.0)


def decay_of(given):
    """The step's weight decay."""
    decay = given.weight_decay
    if DECAY_VARIES:
        decay = given.weight_decay * real(given.decay_factors[given.counters[BATCH]])
    return decay


def dropout_of(dropout, dropout_factors, counters):
    """The step's rate of dropout, in float64."""
    return dropout * dropout_factors[counters[BATCH]]


def kept_from(rate):
    """The least random word that keeps an element, and the factor of what is kept."""
    return u32(rate * double(4294967295) + double(0.5)), real(double(1.0) / (double(1.0) - rate))


# ---------------------------------------------------------------------------------------------------------
# The members of an ensemble: a row of `z` holds the outputs of each, one member after the other.
# ---------------------------------------------------------------------------------------------------------


def log_partition_of(z, start, columns):
    """log Σ e^z over one member's outputs."""
    peak = z[start]
    for j in range(1, columns):
        peak = z[start + j] if z[start + j] > peak else peak
    total = real(0.0)
    for j in range(columns):
        total += exp(z[start + j] - peak)
    return peak + log(total)


def join_values(z, outputs, columns, members):
    """The mean of values."""
    for j in range(columns):
        total = z[j]
        for m in range(1, members):
            total += z[m * columns + j]
        outputs[j] = total / real(members)


def join_logits(z, outputs, columns, members):
    """The logits of the mean of probabilities."""
    for j in range(columns):
        yes = log_sigmoid(z[j])
        no = log_sigmoid(-z[j])
        for m in range(1, members):
            yes = log_of_sum(yes, log_sigmoid(z[m * columns + j]))
            no = log_of_sum(no, log_sigmoid(-z[m * columns + j]))
        outputs[j] = yes - no


def join_logarithms(z, outputs, columns, members):
    """The logarithms of the mean of rates or, of a softmax, of probabilities."""
    for m in range(members):
        partition = log_partition_of(z, m * columns, columns) if LINK == SOFTMAX else real(0.0)
        for j in range(columns):
            y = z[m * columns + j] - partition
            outputs[j] = y if m == 0 else log_of_sum(outputs[j], y)
    for j in range(columns):
        outputs[j] -= log(real(members))


def join_row(z, outputs, columns):
    """Write the outputs whose prediction is the mean of the members'."""
    members = z.shape[0] // columns
    if LINK == IDENTITY:
        join_values(z, outputs, columns, members)
    elif LINK == SIGMOID:
        join_logits(z, outputs, columns, members)
    else:
        join_logarithms(z, outputs, columns, members)


def join_row_gradient(z, outputs, delta, z_gradient, columns):
    """Write the derivative by each member's outputs, from that by the joined ones."""
    members = z.shape[0] // columns
    for m in range(members):
        start = m * columns
        partition = log_partition_of(z, start, columns) if LINK == SOFTMAX else real(0.0)
        total = real(0.0)
        for j in range(columns):
            y = z[start + j] - partition
            slope = real(1.0)
            if LINK == SIGMOID:
                slope = exp(log_sigmoid_slope(y) - log_sigmoid_slope(outputs[j]))
            elif LINK != IDENTITY:
                slope = exp(y - outputs[j])
            slope = slope * delta[j] / real(members)
            total += slope
            z_gradient[start + j] = slope
        if LINK == SOFTMAX:
            for j in range(columns):
                z_gradient[start + j] -= exp(z[start + j] - partition) * total


# ---------------------------------------------------------------------------------------------------------
# Piecewise-linear numbers.
# ---------------------------------------------------------------------------------------------------------


def bin_of(number, lows, first, stop):
    """The bin of a number among those of its column, ``first .. stop - 1``, by the bins' lower ends."""
    found = first
    for r in range(first + 1, stop):
        found += 1 if number >= lows[r] else 0
    return found


# ---------------------------------------------------------------------------------------------------------
# Periodic embeddings.
# ---------------------------------------------------------------------------------------------------------


def within_half(t):
    """A number of turns without the whole ones; 0 where it is too large to have a fraction."""
    inside = 0.0 if abs(t) >= 1073741824.0 else t
    return inside - real(int32(inside + (0.5 if inside >= 0.0 else -0.5)))


def wave(x, frequency, phase):
    """cos(2πx · frequency + phase)."""
    return cosine_of_turns(within_half(turns(x, frequency, phase)))


def wave_slope(x, frequency, phase):
    """Its derivative by the phase."""
    return -sine_of_turns(within_half(turns(x, frequency, phase)))


# ---------------------------------------------------------------------------------------------------------
# Random draws.
# ---------------------------------------------------------------------------------------------------------


def draw_picture(given, row):
    """Draw a row's move down and right, whether it is mirrored, and the rectangle that is erased."""
    key0 = u32(given.key0)
    key1 = u32(given.key1)
    epoch = u32(given.counters[EPOCH])
    word0, word1, word2, word3 = philox(u32(row), u32(AUGMENT_PLACE), u32(0), epoch, key0, key1)
    down = bounded(word0, 2 * given.most_down + 1) - given.most_down
    right = bounded(word1, 2 * given.most_right + 1) - given.most_right
    flipped = FLIP and word2 < u32(0x80000000)
    tall = 0
    wide = 0
    top = 0
    left = 0
    if ERASE:
        place0, place1, place2, place3 = philox(u32(row), u32(AUGMENT_ERASE), u32(0), epoch, key0, key1)
        tall = 1 + bounded(place0, (given.height + 1) // 2) if word3 < u32(given.erase_threshold) else 0
        wide = 1 + bounded(place1, (given.width + 1) // 2)
        top = bounded(place2, given.height - tall + 1)
        left = bounded(place3, given.width - wide + 1)
    return down, right, flipped, tall, wide, top, left
