"""What several of the host's kernels are put together from: the steps of an update and of a penalty.

A part is a source for `specialise`, as a template is: it is inlined. The names of the first section stand for
what is folded or inlined.
"""

from __future__ import annotations

from nnkit.kernels.formulas import (
    decoupled_decay,
    finite_or_zero,
    is_finite,
    penalty,
    penalty_derivative,
    rows_by_weight,
    scale_after,
)
from nnkit.kernels.layout import (
    BATCH_SHARE,
    CLEAN_STEPS,
    COPY_PITCH,
    COPY_START,
    COPY_WIDTH,
    LOSS_SCALE,
    LOSS_SUM,
    LOSS_WEIGHT,
    SKIPPED_STEPS,
    SQUARED_NORM,
    WEIGHT_SUM,
)

# What `specialise` folds or inlines; the names stand here for the reader and the linter.
AUGMENTED = BIAS = BY_ROWS = CEILED = CLIP = CODES = COPIED = DIVIDED = DROPOUT = ERASE = FLIP = FOLDED = (
    False
)
FROM_Z = GRADIENT = INDEXED = INDICES = False
KEEP_Z = LEAD = LINGERS = MAX = MEAN = PREPARED = RESCALED = SCALED = SHARD = SHUFFLED = SPARSE = SUMMED = (
    False
)
TARGETS = WEIGHTED = False
SLOTS = 0
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
    """Stand for what the rule needs once a step, in float64."""


def linger(steps):
    """Stand for what is left of a state after so many steps without a gradient, in float64."""


def real(x):
    """Cast to the working type."""


def double(x):
    """Cast to float64."""


def u8(x):
    """Cast to uint8."""


def exp(x):
    """Stand for the target's exponential."""


def log(x):
    """Stand for the target's logarithm."""


def sqrt(x):
    """Stand for the target's square root."""


def total_of(x):
    """Stand for the sum of a row, in float64."""


def greatest_of(x):
    """Stand for the greatest element of a row."""


def add_to_loss(scalars, total, weight_total, rows):
    """Put a batch's sums where the host reads them; one that overflowed is not counted where RESCALED."""
    share = rows_by_weight(rows, weight_total) if BY_ROWS else double(1.0)
    if RESCALED:
        share = share if is_finite(total) else double(0.0)
        total = finite_or_zero(total)
    scalars[WEIGHT_SUM] = weight_total
    scalars[BATCH_SHARE] = share
    scalars[LOSS_SUM] += total * share
    scalars[LOSS_WEIGHT] += weight_total * share


def proceeds(scalars):
    """Whether a batch's gradient is to be followed: something weighs in it, and nothing overflowed."""
    found = scalars[WEIGHT_SUM] > double(0.0)
    if RESCALED:
        found = found and is_finite(scalars[SQUARED_NORM])
    return found


def rescale(scalars, scaling):
    """Adapt the loss scale to what a step came to, and count the step if it was skipped."""
    if scalars[WEIGHT_SUM] > double(0.0):
        overflowed = not is_finite(scalars[SQUARED_NORM])
        next_scale, clean = scale_after(overflowed, scaling[LOSS_SCALE], scaling[CLEAN_STEPS])
        scaling[LOSS_SCALE] = next_scale
        scaling[CLEAN_STEPS] = clean
        if overflowed:
            scaling[SKIPPED_STEPS] += double(1.0)


def copy_stretch(w, copy, place):
    """Round a segment to its place in the copy, whose rows may be longer."""
    start = place[COPY_START]
    width = place[COPY_WIDTH]
    pitch = place[COPY_PITCH]
    for k in range(w.size):
        row = k // width
        copy[start + row * pitch + (k - row * width)] = w[k]


def update_scale(scalars, scaling, batch_size, clip_norm):
    """What the gradient is multiplied by: batch / Σw, and less where its norm is too great."""
    factor = batch_size / scalars[WEIGHT_SUM]
    if CLIP:
        norm = sqrt(scalars[SQUARED_NORM]) * factor
        if norm > clip_norm:
            factor = factor * (clip_norm / norm)
    if RESCALED:
        factor = factor / scaling[LOSS_SCALE]
    return real(factor)


def update_stretch(w, g, rest, first, second, scale, learning_rate, decay):
    """Decay a stretch of weights and apply the rule; moments of weights without input are flushed to 0."""
    for k in range(w.size):
        old = decoupled_decay(w[k], learning_rate, decay)
        slope = (g[k] + rest[k]) * scale if FOLDED else g[k] * scale
        if SLOTS == 0:
            w[k] = rule(old, slope, learning_rate)
        if SLOTS == 1:
            w[k], state = rule(old, slope, learning_rate, first[k])
            first[k] = 0.0 if abs(state) < TINY else state
        if SLOTS == 2:
            w[k], state, other = rule(old, slope, learning_rate, first[k], second[k])
            first[k] = 0.0 if abs(state) < TINY else state
            second[k] = 0.0 if abs(other) < TINY else other


def penalty_scale(scalars, scaling, batch_size):
    """What a penalty's gradient is multiplied by, to be scaled as the batch's is."""
    scale = real(1.0 / batch_size) if DIVIDED else real(scalars[WEIGHT_SUM] / batch_size)
    if RESCALED:
        scale = scale * real(scaling[LOSS_SCALE])
    return scale


def penalise_stretch(w, g, scale, l1, l2):
    """Add the penalty's gradient to a stretch's, and return the penalty."""
    total = double(0.0)
    for k in range(w.size):
        total += double(penalty(w[k], l1, l2))
        g[k] += scale * penalty_derivative(w[k], l1, l2)
    return total


def weighted_penalty(scalars, total):
    """What a batch's penalty adds to the epoch's sum."""
    weighted = total if DIVIDED else total * scalars[WEIGHT_SUM]
    return weighted * scalars[BATCH_SHARE] if BY_ROWS or RESCALED else weighted


def sum_of_squares(g):
    """The sum over a stretch, in float64."""
    total = double(0.0)
    for k in range(g.size):
        total += double(g[k]) * double(g[k])
    return total
