"""Parts of the host's kernels: pictures, random draws, and stretches (contiguous runs) of parameters."""

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

# Flags that `specialise` replaces with constants, in addition to those of `common_parts`.
FOLDED = INDEXED = LEAD = SHARD = False


def total_of(x):
    """Stand for the sum of a row, in float64."""


def greatest_of(x):
    """Stand for the greatest element of a row."""


def dot_of(a, b, center):
    """Stand for the sum of a (b − center) over a row, in float64."""


def vary_picture(given, row, from_row, to_row):
    """Write a row's picture, randomly moved, mirrored and erased in part, to `to_row`."""
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
    """Return a random number in [0, 1), of 53 bits, that is a function of the arguments alone."""
    high, low, _, _ = philox(u32(i), u32(i >> 32), u32(epoch), u32(purpose), u32(key0), u32(key1))
    return (double(high >> u32(5)) * double(67108864.0) + double(low >> u32(6))) * double(
        1.1102230246251565e-16
    )


def copy_stretch(w, copy, layout):
    """Write a segment of the weights to the 16-bit copy, whose rows may have padding, as `layout` says."""
    start = layout[COPY_START]
    width = layout[COPY_WIDTH]
    pitch = layout[COPY_PITCH]
    for k in range(w.size):
        row = k // width
        copy[start + row * pitch + (k - row * width)] = w[k]


def update_stretch(w, g, last, state0, state1, scale, learning_rate, decay):
    """Decay a stretch of weights and apply the optimizer's rule.

    FOLDED adds `last`, the last shard's gradient. State below TINY becomes 0: where the gradient stays 0, it
    would decay to subnormal numbers, which are slow.
    """
    for k in range(w.size):
        old = decoupled_decay(w[k], learning_rate, decay)
        gradient = (g[k] + last[k]) * scale if FOLDED else g[k] * scale
        if SLOTS == 0:
            w[k] = rule(old, gradient, learning_rate)
        if SLOTS == 1:
            w[k], new0 = rule(old, gradient, learning_rate, state0[k])
            state0[k] = 0.0 if abs(new0) < TINY else new0
        if SLOTS == 2:
            w[k], new0, new1 = rule(old, gradient, learning_rate, state0[k], state1[k])
            state0[k] = 0.0 if abs(new0) < TINY else new0
            state1[k] = 0.0 if abs(new1) < TINY else new1


def penalise_stretch(w, g, scale, l1, l2):
    """Add the gradient of the penalty to that of a stretch of weights, and return the penalty."""
    total = double(0.0)
    for k in range(w.size):
        total += double(penalty(w[k], l1, l2))
        g[k] += scale * penalty_derivative(w[k], l1, l2)
    return total


def sum_of_squares(g):
    """Return the sum of a stretch's squares, in float64."""
    total = double(0.0)
    for k in range(g.size):
        total += double(g[k]) * double(g[k])
    return total
