"""What both devices' kernels are put together from: what a template stands for, and a step's figures.

A part is a source for `specialise`, as a template is: it is inlined. The names of the first section stand for
what is folded or inlined; those that one device alone knows stand in its own parts. The figures are computed
by one thread, in float64.
"""

from __future__ import annotations

from nnkit.kernels.formulas import finite_or_zero, is_finite, rows_by_weight, scale_after
from nnkit.kernels.layout import (
    BATCH_SHARE,
    CLEAN_STEPS,
    LOSS_SCALE,
    LOSS_SUM,
    LOSS_WEIGHT,
    PENALTY_SUM,
    SKIPPED_STEPS,
    SQUARED_NORM,
    WEIGHT_SUM,
)

# ---------------------------------------------------------------------------------------------------------
# What `specialise` folds or inlines; the names stand here for the reader and the linter.
# ---------------------------------------------------------------------------------------------------------

AUGMENTED = BIAS = BY_ROWS = CEILED = CLIP = CODES = COPIED = DIVIDED = DROPOUT = ERASE = FLIP = False
FROM_Z = GRADIENT = GROUPED = INDICES = KEEP_Z = LINGERS = MAX = MEAN = PREPARED = RESCALED = False
RING = SCALED = SHUFFLED = SPARSE = SUMMED = TARGETS = WEIGHTED = False
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
    """Cast to the type of the arithmetic; the arrays say what is stored."""


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


# ---------------------------------------------------------------------------------------------------------
# A step's figures.
# ---------------------------------------------------------------------------------------------------------


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


def penalty_scale(scalars, scaling, batch_size):
    """What a penalty's gradient is multiplied by, to be scaled as the batch's is."""
    scale = real(1.0 / double(batch_size)) if DIVIDED else real(scalars[WEIGHT_SUM] / double(batch_size))
    if RESCALED:
        scale = scale * real(scaling[LOSS_SCALE])
    return scale


def add_penalty(scalars, total):
    """Add the batch's penalty to the epoch's, if anything weighs in the batch."""
    if scalars[WEIGHT_SUM] > double(0.0):
        weighted = total if DIVIDED else total * scalars[WEIGHT_SUM]
        scalars[PENALTY_SUM] += weighted * scalars[BATCH_SHARE] if BY_ROWS or RESCALED else weighted


def unscaled_square(total, scaling):
    """A square of the gradient, without the loss scale."""
    return total / (scaling[LOSS_SCALE] * scaling[LOSS_SCALE]) if RESCALED else total


def proceeds(scalars):
    """Whether a batch's gradient is to be followed: something weighs in it, and nothing overflowed."""
    found = scalars[WEIGHT_SUM] > double(0.0)
    if RESCALED:
        found = found and is_finite(scalars[SQUARED_NORM])
    return found


def update_scale(scalars, scaling, batch_size, clip_norm):
    """What the gradient is multiplied by: batch / Σw, and less where its norm is too great."""
    factor = double(batch_size) / scalars[WEIGHT_SUM]
    if CLIP:
        norm = sqrt(scalars[SQUARED_NORM]) * factor
        if norm > clip_norm:
            factor = factor * (clip_norm / norm)
    if RESCALED:
        factor = factor / scaling[LOSS_SCALE]
    return real(factor)


def rescale(scalars, scaling):
    """Adapt the loss scale to what a step came to, and count the step if it was skipped."""
    if scalars[WEIGHT_SUM] > double(0.0):
        overflowed = not is_finite(scalars[SQUARED_NORM])
        next_scale, clean = scale_after(overflowed, scaling[LOSS_SCALE], scaling[CLEAN_STEPS])
        scaling[LOSS_SCALE] = next_scale
        scaling[CLEAN_STEPS] = clean
        if overflowed:
            scaling[SKIPPED_STEPS] += double(1.0)
