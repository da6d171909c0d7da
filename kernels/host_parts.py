"""The parts that the host's kernels are made of: pictures, draws, and the stretches of the arena."""

from __future__ import annotations

from nnkit.kernels.common_parts import ERASE, SCALED, SLOTS, TINY, double, draw_picture, real, rule
from nnkit.kernels.formulas import (
    decoupled_decay,
    is_erased,
    moved_place,
    penalty,
    penalty_derivative,
    philox,
    u32,
)
from nnkit.kernels.layout import COPY_PITCH, COPY_START, COPY_WIDTH

# Flags that `specialise` folds, beside those of `common_parts`.
FOLDED = INDEXED = LEAD = SHARD = False


def total_of(x):
    """Stand for the sum of a row, in float64."""


def greatest_of(x):
    """Stand for the greatest element of a row."""


def dot_of(a, b, center):
    """Stand for the sum of a (b − center) over a row, in float64."""


def vary_picture(given, row, from_row, to_row):
    """Move and mirror a row's picture, and erase a part of it, as drawn for the row and the epoch."""
    height = given.height
    width = given.width
    down, right, flipped, tall, wide, top, left = draw_picture(given, row)
    for line in range(from_row.size // width):
        for x in range(width):
            j = line * width + x
            y = real(from_row[moved_place(line, x, down, right, flipped, height, width)])
            if SCALED:
                y = (y - given.shift[j]) * given.scale[j]
            if ERASE:
                y = 0.0 if is_erased(line, x, top, left, tall, wide, height) else y
            to_row[j] = y


def draw_fraction(i, epoch, purpose, key0, key1):
    """Draw a number in [0, 1), of 53 bits, from one counter."""
    high, low, _, _ = philox(u32(i), u32(i >> 32), u32(epoch), u32(purpose), u32(key0), u32(key1))
    return (double(high >> u32(5)) * double(67108864.0) + double(low >> u32(6))) * double(
        1.1102230246251565e-16
    )


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
