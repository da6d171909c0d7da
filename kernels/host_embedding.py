"""The fused loops of an embedding on the CPU: numbering a batch's rows, lookup, compact gradient, update.

A bag is a batch's row of ids; its tokens are numbered through the batch, in the order of the rows. The rows
of the table that a batch sees are numbered in order of first appearance, and their gradient has a row for
each of them: no loop here runs over the table.
"""

from __future__ import annotations

from nnkit.kernels.common_parts import (
    DECAYS_UNSEEN,
    GRADIENT,
    GROUPED,
    MAX,
    MEAN,
    PREPARED,
    SHUFFLED,
    WEIGHTED,
    add_penalty,
    decay_of,
    decay_unseen,
    double,
    penalty_scale,
    prepare,
    real,
    should_update,
    unscaled_square,
    update_scale,
)
from nnkit.kernels.host_parts import penalise_stretch, sum_of_squares, update_stretch
from nnkit.kernels.layout import BATCH, SQUARED_NORM, STEP

STRETCH = 256  # tokens


def unique_rows(ids, starts, order, counters, batch_size, totals, slots, places, rows_seen, seen):
    """Number the rows that the batch's bags name; `places` says each token's number, `rows_seen` its row.

    A row's slot is valid only if that slot names the row in return, so that no slot is ever cleared (Briggs
    and Torczon 1993, "An efficient representation for sparse sets"). Without a branch, which would be
    unpredictable.
    """
    first = counters[BATCH] * batch_size
    known = 0
    token = 0
    for i in range(min(totals.shape[0], starts.shape[0] - 1 - first)):
        row = order[first + i] if SHUFFLED else first + i
        for t in range(starts[row], starts[row + 1]):
            one = ids[t]
            before = slots[one]
            new = (before >= known) | (rows_seen[before] != one)
            slot = known if new else before
            slots[one] = slot
            rows_seen[slot] = one
            known += 1 if new else 0
            places[token] = slot
            token += 1
    seen[0] = known


def embed(
    table, ids, starts, id_weights, order, counters, batch_size, column, inputs, totals, peaks, partial
):
    """Reduce each bag's rows of the table into its columns of the inputs, from `column` on.

    `totals` keeps the factor of a mean; with GRADIENT, `peaks` keeps the token of each maximum. A long bag is
    summed in stretches, each in `partial`: one sum of a million float32 is off by 0.3 %.
    """
    first = counters[BATCH] * batch_size
    width = table.shape[1]
    token = 0
    for i in range(min(inputs.shape[0], starts.shape[0] - 1 - first)):
        row = order[first + i] if SHUFFLED else first + i
        start = starts[row]
        stop = starts[row + 1]
        out = inputs[i, column : column + width]
        if MAX:
            for j in range(width):
                out[j] = table[ids[start], j] if start < stop else 0.0
            if GRADIENT:
                peaks[i, :] = token
                peak = peaks[i]
            for t in range(start + 1, stop):
                x = table[ids[t]]
                for j in range(width):
                    if GRADIENT:
                        peak[j] = token + (t - start) if x[j] > out[j] else peak[j]
                    out[j] = x[j] if x[j] > out[j] else out[j]
        else:
            out[:] = 0.0
            total = double(0.0)
            for begin in range(start, stop, STRETCH):
                sums = out if begin + STRETCH >= stop else partial
                for t in range(begin, min(begin + STRETCH, stop)):
                    x = table[ids[t]]
                    weight = id_weights[t] if WEIGHTED else real(1.0)
                    total += double(weight)
                    for j in range(width):
                        sums[j] += weight * x[j] if WEIGHTED else x[j]
                if begin + STRETCH < stop:
                    for j in range(width):
                        out[j] += partial[j]
                    partial[:] = 0.0
            if MEAN:
                factor = real(double(0.0) if total == double(0.0) else double(1.0) / total)
                totals[i] = factor
                for j in range(width):
                    out[j] *= factor
        token += stop - start


def embed_gradient(
    delta, column, starts, id_weights, order, counters, batch_size, totals, peaks, places, gradient
):
    """Sum the derivative by the bags' vectors into the gradient of the rows seen, in the tokens' order."""
    first = counters[BATCH] * batch_size
    width = gradient.shape[1]
    known = 0
    token = 0
    for i in range(min(totals.shape[0], starts.shape[0] - 1 - first)):
        row = order[first + i] if SHUFFLED else first + i
        start = starts[row]
        stop = starts[row + 1]
        d = delta[i, column : column + width]
        factor = totals[i] if MEAN else real(1.0)
        for t in range(start, stop):
            place = places[token + (t - start)]
            g = gradient[place]
            scale = factor * id_weights[t] if WEIGHTED else factor
            if place == known:
                known += 1
                for j in range(width):
                    g[j] = 0.0 if MAX else scale * d[j]
            elif not MAX:
                for j in range(width):
                    g[j] += scale * d[j]
        if MAX and start < stop:
            for j in range(width):
                gradient[places[peaks[i, j]], j] += d[j]
        token += stop - start


def penalise_rows(table, gradient, rows_seen, seen, scalars, scaling, batch_size, l1, l2):
    """Add the penalty of the rows seen to the loss, and its gradient, as `penalise` does."""
    scale = penalty_scale(scalars, scaling, batch_size)
    total = double(0.0)
    for r in range(seen[0]):
        total += penalise_stretch(table[rows_seen[r]], gradient[r], scale, l1, l2)
    add_penalty(scalars, total)


def squared_norm_rows(gradient, seen, scalars, scaling):
    """Add the squares of the gradient of the rows seen to the batch's."""
    total = double(0.0)
    for r in range(seen[0]):
        total += sum_of_squares(gradient[r])
    scalars[SQUARED_NORM] += unscaled_square(total, scaling)


def update_rows(given):
    """Do for the rows seen what `update` does for all rows. `update` runs later, and counts batch and step.

    DECAYS_UNSEEN: a row's state decays here for all steps since the row was last seen; `mark_rows` then
    stores the step. GROUPED multiplies the learning rate by the table's factor.
    """
    counters = given.counters
    if should_update(given.scalars):
        scale = update_scale(given.scalars, given.scaling, given.batch_size, given.clip_norm)
        learning_rate = real(given.rates[counters[BATCH]])
        decay = decay_of(given)
        if GROUPED:
            learning_rate *= given.rate_factor
        if PREPARED:
            wide1, wide2 = prepare(double(counters[STEP] + 1))
            correction1 = real(wide1)
            correction2 = real(wide2)
        for r in range(given.seen[0]):
            row = given.rows_seen[r]
            g = given.gradient[r]
            first = given.state0[row]
            second = given.state1[row]
            if DECAYS_UNSEEN:
                left = real(decay_unseen(double(counters[STEP] - given.last_seen[row])))
                for k in range(first.size):
                    first[k] *= left
            update_stretch(given.table[row], g, g, first, second, scale, learning_rate, decay)


def mark_rows(last_seen, rows_seen, seen, counters, scalars):
    """Store that the step that `update` is about to count saw these rows."""
    if should_update(scalars):
        for r in range(seen[0]):
            last_seen[rows_seen[r]] = counters[STEP] + 1
