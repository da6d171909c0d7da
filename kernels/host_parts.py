"""What several of the host's kernels are put together from: the steps of an update and of a penalty.

A part is a source for `specialise`, as a template is: it is inlined.
"""

from __future__ import annotations

from nnkit.kernels.common_parts import SLOTS, TINY, double, rule
from nnkit.kernels.formulas import decoupled_decay, penalty, penalty_derivative
from nnkit.kernels.layout import COPY_PITCH, COPY_START, COPY_WIDTH

# What `specialise` folds, beside the names of `common_parts`.
FOLDED = INDEXED = LEAD = SHARD = False


def total_of(x):
    """Stand for the sum of a row, in float64."""


def greatest_of(x):
    """Stand for the greatest element of a row."""


def dot_of(a, b, center):
    """Stand for the sum of a (b − center) over a row, in float64."""


def copy_stretch(w, copy, place):
    """Round a segment to its place in the copy, whose rows may be longer."""
    start = place[COPY_START]
    width = place[COPY_WIDTH]
    pitch = place[COPY_PITCH]
    for k in range(w.size):
        row = k // width
        copy[start + row * pitch + (k - row * width)] = w[k]


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


def penalise_stretch(w, g, scale, l1, l2):
    """Add the penalty's gradient to a stretch's, and return the penalty."""
    total = double(0.0)
    for k in range(w.size):
        total += double(penalty(w[k], l1, l2))
        g[k] += scale * penalty_derivative(w[k], l1, l2)
    return total


def sum_of_squares(g):
    """The sum over a stretch, in float64."""
    total = double(0.0)
    for k in range(g.size):
        total += double(g[k]) * double(g[k])
    return total
