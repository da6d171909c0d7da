"""The fused loops for the CPU: filling a batch, forward, loss, backward, then the passes over the arena.

Each function is a template for `specialise`: upper-case names are flags to fold; `activation`, `value`,
`rule` and the other placeholders are formulas to inline. A loop's inner index runs over contiguous memory and
its arrays are distinct, so that LLVM vectorises it. Shapes: (rows, columns); `rows` may be fewer than the
nominal batch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from functools import cache
from math import exp, log

import numpy as np
from numpy import uint8 as u8

from nnkit.kernels import (
    common_parts,
    elementary,
    host_embedding,
    host_members,
    host_norm,
    host_numbers,
    host_parts,
    host_periodic,
    host_product,
)
from nnkit.kernels.catalogue import CATALOGUE
from nnkit.kernels.common_parts import (
    AUGMENTED,
    AVERAGE_ROWS,
    BIAS,
    CEILED,
    CODES,
    COPIED,
    DROPOUT,
    DROPOUT_VARIES,
    FROM_Z,
    GRADIENT,
    GROUPED,
    INDICES,
    KEEP_Z,
    PREPARED,
    RESCALED,
    RING,
    SCALED,
    SHUFFLED,
    SPARSE,
    SUMMED,
    TARGETS,
    WEIGHTED,
    activation,
    activation_derivative,
    add_penalty,
    add_to_loss,
    decay_of,
    derivative,
    double,
    dropout_of,
    kept_from,
    label_smoothing,
    loss_factor,
    member_share,
    penalty_scale,
    prediction_count,
    prepare,
    real,
    rescale,
    row_of,
    should_update,
    unscaled_square,
    update_scale,
    value,
)
from nnkit.kernels.formulas import (
    ceiled_cross_entropy_term,
    cross_entropy_derivative,
    cross_entropy_term,
    philox,
    rows_by_weight,
    smoothed_indicator,
    smoothed_mass,
    smoothed_probability,
    u32,
)
from nnkit.kernels.host_parts import (
    FOLDED,
    INDEXED,
    LEAD,
    SHARD,
    copy_stretch,
    draw_fraction,
    greatest_of,
    penalise_stretch,
    sum_of_squares,
    total_of,
    update_stretch,
    vary_picture,
)
from nnkit.kernels.layout import (
    BATCH,
    BATCH_SHARE,
    EPOCH,
    LOSS_SUM,
    LOSS_WEIGHT,
    PENALTY_SUM,
    SEGMENT_DECAYS,
    SEGMENT_START,
    SEGMENT_STOP,
    SHUFFLE,
    SHUFFLE_WITHIN,
    SQUARED_NORM,
    STEP,
    WEIGHT_SUM,
)
from nnkit.kernels.modules import module_name, source_name, write_source
from nnkit.kernels.native import Loop
from nnkit.kernels.specialise import FUNCTIONS, Constant, LoadedKernel, Target, load_kernel, split_constants

__all__ = ["TEMPLATES", "kernel"]

_MODULES = (
    *(sys.modules[__name__], host_norm, host_numbers, host_periodic, host_members),
    *(host_product, host_embedding),
)


def gather(given):
    """Fill a batch: rows of `source`, cast and scaled, one-hot blocks of `codes`, targets, weights.

    Row r of a SPARSE matrix has its numbers from `sparse_starts` r to r + 1. A SHARD takes the batch's rows
    from `row_offset` on. Where INDEXED, `index` gives the source's row of each row. A RING holds the epoch's
    newest batches in their order, and `order` only gives their rows' numbers, for the draws.
    """
    source = given.source
    inputs = given.inputs
    first = given.counters[BATCH] * given.batch_size
    if SHARD:
        first += given.row_offset
    columns = source.shape[1]
    if RING:
        rows = inputs.shape[0]
        ring_start = first % source.shape[0]
    else:
        rows = min(inputs.shape[0], (given.index.shape[0] if INDEXED else source.shape[0]) - first)
    given.count[0] = rows
    for i in range(rows):
        row = given.order[first + i] if SHUFFLED else first + i
        place = ring_start + i if RING else row
        to_row = inputs[i]
        if AUGMENTED:
            vary_picture(given, row, source[given.index[place]] if INDEXED else source[place], to_row)
        else:
            from_row = source[given.index[place]] if INDEXED else source[place]
            for j in range(columns):
                x = real(from_row[j])
                to_row[j] = (x - given.shift[j]) * given.scale[j] if SCALED else x
        if CODES:
            to_row[columns:] = 0.0
            for k in range(given.codes.shape[1]):
                if given.codes[place, k] >= 0:
                    to_row[columns + given.offsets[k] + given.codes[place, k]] = 1.0
        if SPARSE:
            to_row[:] = 0.0
            for k in range(given.sparse_starts[row], given.sparse_starts[row + 1]):
                to_row[given.sparse_columns[k]] = real(given.sparse_values[k])
        if TARGETS:
            if INDICES:
                given.labels[i] = given.targets[place]
            else:
                for j in range(given.targets.shape[1]):
                    given.labels[i, j] = given.targets[place, j]
        if WEIGHTED:
            given.batch_weights[i] = given.weights[place]
    # The products run over the whole batch: numbers of an earlier one must not reach them.
    inputs[rows:] = 0.0


def forward(
    z,
    bias,
    a,
    mask,
    counters,
    layer,
    key0,
    key1,
    threshold,
    kept_scale,
    dropout,
    dropout_factors,
    row_offset,
):
    """Bias, activation, dropout; in place, unless the derivative needs z and `a` is an array of its own.

    The draws of a SHARD are those of its rows in the batch. DROPOUT_VARIES multiplies the rate of dropout by
    the step's factor.
    """
    columns = z.shape[1]
    blocks = (columns + 3) // 4
    if DROPOUT_VARIES:
        least, factor = kept_from(dropout_of(dropout, dropout_factors, counters))
    else:
        least = threshold
        factor = kept_scale
    for i in range(z.shape[0]):
        z_row = z[i]
        if DROPOUT:
            mask_row = mask[i]
            for b in range(blocks):
                draw = (i + row_offset) * blocks + b if SHARD else i * blocks + b
                word0, word1, word2, word3 = philox(
                    u32(draw),
                    u32(layer),
                    u32(counters[BATCH]),
                    u32(counters[EPOCH]),
                    u32(key0),
                    u32(key1),
                )
                mask_row[4 * b] = u8(word0 >= u32(least))
                mask_row[4 * b + 1] = u8(word1 >= u32(least))
                mask_row[4 * b + 2] = u8(word2 >= u32(least))
                mask_row[4 * b + 3] = u8(word3 >= u32(least))
        if KEEP_Z:
            a_row = a[i]
        for j in range(columns):
            x = z_row[j] + bias[j] if BIAS else z_row[j]
            y = activation(x)
            if DROPOUT:
                y = 0.0 if mask_row[j] == 0 else y * factor
            if KEEP_Z:
                z_row[j] = x
                a_row[j] = y
            else:
                z_row[j] = y


def backward(delta, z, a, mask, bias_gradient, kept_scale, keep, dropout, dropout_factors, counters):
    """Turn the derivative by the layer's output into that by z, in place; sum its columns for the bias."""
    columns = delta.shape[1]
    if DROPOUT_VARIES:
        rate = dropout_of(dropout, dropout_factors, counters)
        _, factor = kept_from(rate)
        kept = real(double(1.0) - rate)
    else:
        factor = kept_scale
        kept = keep
    if BIAS:
        bias_gradient[:] = 0.0
    for i in range(delta.shape[0]):
        row = delta[i]
        if FROM_Z:
            z_row = z[i]
        else:
            a_row = a[i]
        if DROPOUT:
            mask_row = mask[i]
        for j in range(columns):
            d = row[j]
            if DROPOUT:
                d = 0.0 if mask_row[j] == 0 else d * factor
            if FROM_Z:
                d = d * activation_derivative(z_row[j])
            else:
                d = d * activation_derivative(a_row[j] * kept if DROPOUT else a_row[j])
            row[j] = d
            if BIAS:
                bias_gradient[j] += d


def add(target, source):
    """Add one array to another."""
    for i in range(target.shape[0]):
        to_row = target[i]
        from_row = source[i]
        for j in range(target.shape[1]):
            to_row[j] += from_row[j]


def scale_columns(x, weight, out):
    """Multiply each column by its weight."""
    for i in range(x.shape[0]):
        from_row = x[i]
        to_row = out[i]
        for j in range(x.shape[1]):
            to_row[j] = from_row[j] * weight[j]


def scale_columns_gradient(delta, x, weight, weight_gradient):
    """Turn the derivative by the output into that by `x`, in place; sum the columns for the weights."""
    weight_gradient[:] = 0.0
    for i in range(delta.shape[0]):
        row = delta[i]
        x_row = x[i]
        for j in range(delta.shape[1]):
            weight_gradient[j] += row[j] * x_row[j]
            row[j] *= weight[j]


def elementwise_loss(
    outputs, bias, labels, batch_weights, count, gradient, bias_gradient, row, scalars, scaling, batch_size,
    members,
):  # fmt: skip
    """Add the bias; sum w and w·loss, a mean over outputs; write the gradient of Σ w·loss / batch_size.

    SUMMED takes the sum over outputs for the mean; AVERAGE_ROWS lets a batch's mean count by its rows in the
    epoch's, as scikit-learn does, and not by their weights. `row`, (columns,), is scratch: the losses are
    stored before they are summed, because a sum kept in order would slow down all that is computed beside it.
    Where there are MEMBERS, each row has one row of outputs of each, of which it is the mean loss.
    """
    columns = outputs.shape[1]
    predictions = prediction_count(count[0], members)
    per_output = real(1.0) if SUMMED else 1.0 / real(columns)
    factor = loss_factor(per_output, batch_size, scaling)
    total = double(0.0)
    weight_total = double(0.0)
    if BIAS and GRADIENT:
        bias_gradient[:] = 0.0
    for i in range(predictions):
        r = row_of(i, members)
        w = member_share(batch_weights[r] if WEIGHTED else real(1.0), members)
        for j in range(columns):
            y = outputs[i, j] + bias[j] if BIAS else outputs[i, j]
            t = labels[r, j]
            row[j] = value(y, t)
            if GRADIENT:
                d = derivative(y, t) * (w * factor)
                gradient[i, j] = d
                if BIAS:
                    bias_gradient[j] += d
        total += double(w) * total_of(row)
        weight_total += double(w)
    if GRADIENT:
        gradient[predictions:] = 0.0
    add_to_loss(scalars, total * double(per_output), weight_total, count[0])


def softmax_loss(
    outputs, bias, labels, batch_weights, count, gradient, bias_gradient, row, scalars, scaling, batch_size,
    members,
):  # fmt: skip
    """The same for softmax cross-entropy, a loss of whole rows, from class indices or from probabilities."""
    columns = outputs.shape[1]
    predictions = prediction_count(count[0], members)
    classes = real(columns)
    factor = loss_factor(real(1.0), batch_size, scaling)
    total = double(0.0)
    weight_total = double(0.0)
    if BIAS and GRADIENT:
        bias_gradient[:] = 0.0
    for i in range(predictions):
        r = row_of(i, members)
        y = outputs[i]
        e = gradient[i]
        if BIAS:
            for j in range(columns):
                e[j] = y[j] + bias[j]
        else:
            for j in range(columns):
                e[j] = y[j]
        peak = greatest_of(e)
        for j in range(columns):
            row[j] = exp(e[j] - peak)
        partition = real(total_of(row))
        log_partition = log(partition)
        mass = real(1.0) if INDICES else smoothed_mass(real(total_of(labels[r])), label_smoothing)
        for j in range(columns):
            if INDICES:
                t = smoothed_indicator(labels[r] == j, label_smoothing, classes)
            else:
                t = smoothed_probability(labels[r, j], label_smoothing, classes)
            if CEILED:
                e[j] = ceiled_cross_entropy_term(e[j] - peak - log_partition, t)
            else:
                e[j] = cross_entropy_term(e[j] - peak - log_partition, t)
        w = member_share(batch_weights[r] if WEIGHTED else real(1.0), members)
        total += double(w) * total_of(e)
        weight_total += double(w)
        if GRADIENT:
            for j in range(columns):
                if INDICES:
                    t = smoothed_indicator(labels[r] == j, label_smoothing, classes)
                else:
                    t = smoothed_probability(labels[r, j], label_smoothing, classes)
                d = cross_entropy_derivative(row[j] / partition, t, mass) * (w * factor)
                e[j] = d
                if BIAS:
                    bias_gradient[j] += d
    if GRADIENT:
        gradient[predictions:] = 0.0
    add_to_loss(scalars, total, weight_total, count[0])


def penalise(values, gradients, segments, scalars, scaling, batch_size, l1, l2):
    """Add the penalty of the decaying segments to the loss, and its gradient, scaled as the batch's is.

    PENALTY_ON_SUM adds it to Σ w·loss, and not to the mean: scikit-learn's penalty.
    """
    scale = penalty_scale(scalars, scaling, batch_size)
    total = double(0.0)
    for s in range(segments.shape[0]):
        if segments[s, SEGMENT_DECAYS] != 0:
            w = values[segments[s, SEGMENT_START] : segments[s, SEGMENT_STOP]]
            g = gradients[segments[s, SEGMENT_START] : segments[s, SEGMENT_STOP]]
            total += penalise_stretch(w, g, scale, l1, l2)
    add_penalty(scalars, total)


def squared_norm(gradients, segments, scalars, scaling):
    """Sum the squares of the gradient over all segments that train: not finite where an element is not."""
    total = double(0.0)
    for s in range(segments.shape[0]):
        total += sum_of_squares(gradients[segments[s, SEGMENT_START] : segments[s, SEGMENT_STOP]])
    scalars[SQUARED_NORM] = unscaled_square(total, scaling)


def copy_parameters(values, copy, segments, copies):
    """Round all parameters to the copy that the products take; its padding is not touched."""
    for s in range(segments.shape[0]):
        copy_stretch(values[segments[s, SEGMENT_START] : segments[s, SEGMENT_STOP]], copy, copies[s])


def update(given):
    """Correct by batch / Σw, clip, decay and apply the rule in one pass; count the batch and the step.

    FOLDED adds the last shard's gradient in the same pass. COPIED writes the new weights in 16 bits too.
    RESCALED divides by the loss scale, leaves out an update whose gradient overflowed, and adapts the scale.
    GROUPED multiplies the learning rate by each segment's factor.
    """
    segments = given.segments
    counters = given.counters
    if should_update(given.scalars):
        scale = update_scale(given.scalars, given.scaling, given.batch_size, given.clip_norm)
        learning_rate = real(given.rates[counters[BATCH]])
        weight_decay = decay_of(given)
        if PREPARED:
            wide1, wide2 = prepare(double(counters[STEP] + 1))
            correction1 = real(wide1)
            correction2 = real(wide2)
        for s in range(segments.shape[0]):
            if GROUPED:
                learning_rate = real(given.rates[counters[BATCH]]) * real(given.rate_factors[s])
            start = segments[s, SEGMENT_START]
            stop = segments[s, SEGMENT_STOP]
            decay = weight_decay if segments[s, SEGMENT_DECAYS] != 0 else real(0.0)
            w = given.values[start:stop]
            g = given.gradients[start:stop]
            rest = given.last[start:stop]
            first = given.state0[start:stop]
            second = given.state1[start:stop]
            update_stretch(w, g, rest, first, second, scale, learning_rate, decay)
            if COPIED:
                copy_stretch(w, given.copy, given.copies[s])
        counters[STEP] += 1
    if RESCALED:
        rescale(given.scalars, given.scaling)
    counters[BATCH] += 1


def clear(scalars):
    """Clear a shard's numbers of the batch."""
    scalars[:] = 0.0


def combine(gradients, segments, parts, own, scalars, rows):
    """Add all shards' gradients in one shard's segments into the first row; add up the batch's numbers.

    `parts` has each shard's sums, (shards, SCALARS). Each shard adds them up for itself, and the
    LEAD shard into those of the epoch. FOLDED leaves the last gradient to the update.
    """
    weight_sum = double(0.0)
    loss_sum = double(0.0)
    for shard in range(parts.shape[0]):
        weight_sum += parts[shard, WEIGHT_SUM]
        loss_sum += parts[shard, LOSS_SUM]
    share = rows_by_weight(rows, weight_sum) if AVERAGE_ROWS else double(1.0)
    own[WEIGHT_SUM] = weight_sum
    own[BATCH_SHARE] = share
    own[PENALTY_SUM] = 0.0
    if LEAD:
        scalars[WEIGHT_SUM] = weight_sum
        scalars[BATCH_SHARE] = share
        scalars[LOSS_SUM] += loss_sum * share
        scalars[LOSS_WEIGHT] += weight_sum * share
    for s in range(segments.shape[0]):
        g = gradients[0, segments[s, SEGMENT_START] : segments[s, SEGMENT_STOP]]
        for shard in range(1, gradients.shape[0] - 1 if FOLDED else gradients.shape[0]):
            other = gradients[shard, segments[s, SEGMENT_START] : segments[s, SEGMENT_STOP]]
            for k in range(g.size):
                g[k] += other[k]


def reduce_norms(shard_scalars, own, scalars):
    """Add up the shards' penalties and squared norms, given in `shard_scalars`, (shards, SCALARS).

    The sums go to another array, the shard's `own`, since the other shards still read `shard_scalars`.
    """
    norm = double(0.0)
    penalty_sum = double(0.0)
    for shard in range(shard_scalars.shape[0]):
        norm += shard_scalars[shard, SQUARED_NORM]
        penalty_sum += shard_scalars[shard, PENALTY_SUM]
    own[SQUARED_NORM] = norm
    own[WEIGHT_SUM] = shard_scalars[0, WEIGHT_SUM]
    if LEAD:
        scalars[SQUARED_NORM] = norm
        scalars[PENALTY_SUM] += penalty_sum


def shuffle(order, epoch, key0, key1):
    """Fill `order` with the epoch's permutation, by Fisher and Yates's method."""
    for i in range(order.size):
        order[i] = i
    for i in range(order.size - 1, 0, -1):
        j = int(draw_fraction(i, epoch, SHUFFLE, key0, key1) * double(i + 1))
        order[i], order[j] = order[j], order[i]


def shuffle_within(order, window, epoch, key0, key1):
    """Permute each `window` of places of `order` by itself, in the same way."""
    for i in range(order.size - 1, 0, -1):
        start = i // window * window
        j = start + int(draw_fraction(i, epoch, SHUFFLE_WITHIN, key0, key1) * double(i - start + 1))
        order[i], order[j] = order[j], order[i]


def copy_rows(source, rows, target):
    """Copy the given rows of `source`, bytes, to the first ones of `target`."""
    for i in range(rows.size):
        from_row = source[rows[i]]
        to_row = target[i]
        for j in range(target.shape[1]):
            to_row[j] = from_row[j]


TEMPLATES: Mapping[str, Callable] = {
    name: next(
        getattr(module, name) for module in (sys.modules[__name__], *_MODULES) if hasattr(module, name)
    )
    for name in CATALOGUE
}
_PARTS = frozenset({common_parts.__name__, host_parts.__name__})
_SUMS = frozenset({"penalise", "squared_norm", "penalise_rows", "squared_norm_rows"})

# Numba's default error model checks each division, which blocks vectorising. Contraction allows fused
# multiply-add and nothing that would reorder a sum or assume that there are no NaN.
_DECORATOR = 'njit(error_model="numpy", fastmath={"contract"}, nogil=True)'
# Every multiplication and addition rounds, in vectors and in the remaining elements.
_EXACT = 'njit(error_model="numpy", nogil=True)'
# A sum of squares may be reordered into a vector's lanes: the order is the same in every run.
_REDUCTION = 'njit(error_model="numpy", fastmath={"contract", "reassoc"}, nogil=True)'
_IMPORTS = "import math\n\nimport numpy as np\nfrom numba import njit\n"
# The reductions of a row for a loss or a normalisation, in the order of a vector's lanes. They are functions
# of their own, because a flag that allows reordering would also undo the compensated sums of the formulas;
# and a module that all these kernels share: in each loss's own module they took a sixth of its compile time.
_REDUCTIONS = """import numpy as np
from numba import njit


@njit(error_model="numpy", fastmath={"contract", "reassoc"}, nogil=True)
def total_of(x):
    total = 0.0
    for k in range(x.size):
        total += x[k]
    return total


@njit(error_model="numpy", fastmath={"nnan", "nsz"}, nogil=True)
def greatest_of(x):
    greatest = x[0]
    for k in range(x.size):
        greatest = greatest if greatest > x[k] else x[k]
    return greatest


@njit(error_model="numpy", fastmath={"contract", "reassoc"}, nogil=True)
def dot_of(a, b, center):
    total = 0.0
    for k in range(a.size):
        total += a[k] * (b[k] - center)
    return total
"""
_REDUCED = ("elementwise_loss", "softmax_loss", "layer_norm", "layer_norm_gradient", "periodic")


def _target(name: str, dtype: str) -> Target:
    decorator = _REDUCTION if name in _SUMS else _EXACT if name == "multiply" else _DECORATOR
    imports = _IMPORTS
    if name in _REDUCED:
        reductions = source_name("reductions_host", _REDUCTIONS)
        write_source(reductions, _REDUCTIONS)
        imports += f"from {module_name(reductions)} import dot_of, greatest_of, total_of\n"
    own = elementary.FLOAT32 if dtype == "float32" else {}
    native = {name: f"math.{name}" for name in FUNCTIONS if name not in own}
    native |= {"real": f"np.{dtype}", **{name: name for name in ("total_of", "greatest_of", "dot_of")}}
    return Target(f"host_{dtype}", imports, decorator, f"np.{dtype}", native, own, parts=_PARTS, entry=Loop)


def kernel(
    name: str, dtype: np.dtype, formulas: Mapping[str, Callable] | None = None, **constants: Constant
) -> LoadedKernel:
    """Return the loop of that name, specialised.

    Parameters
    ----------
    name : str
        One of `TEMPLATES`.
    dtype : dtype
        float32 or float64: the type of the arrays and of the arithmetic.
    formulas : mapping of str to function
        The formulas for the template's placeholders.
    **constants
        Its flags, and the formulas' hyperparameters, of which only the names matter here.
    """
    dtype = np.dtype(dtype)
    folded, passed = split_constants(constants)
    folded["TINY"] = float(np.finfo(dtype).tiny)
    # The types are part of the key: 1, 1.0 and True are equal, and make other kernels.
    typed = tuple((key, type(number), number) for key, number in sorted(folded.items()))
    return _kernel(name, dtype.name, tuple(sorted((formulas or {}).items())), typed, tuple(sorted(passed)))


@cache
def _kernel(
    name: str,
    dtype: str,
    formulas: tuple[tuple[str, Callable], ...],
    constants: tuple[tuple[str, type, Constant], ...],
    hyperparameters: tuple[str, ...],
) -> LoadedKernel:
    bound = {key: value for key, _, value in constants}
    return load_kernel(TEMPLATES[name], dict(formulas), bound, hyperparameters, _target(name, dtype))
