"""The CUDA kernels that fill a batch, run a layer forward and backward, and add two layers' outputs."""

from __future__ import annotations

from numba import cuda
from numpy import uint8 as u8

from nnkit.kernels.common_parts import (
    AUGMENTED,
    BIAS,
    CODES,
    DROPOUT,
    DROPOUT_VARIES,
    ERASE,
    FROM_Z,
    INDICES,
    KEEP_Z,
    RING,
    SCALED,
    SHUFFLED,
    SPARSE,
    TARGETS,
    WEIGHTED,
    activation,
    activation_derivative,
    double,
    draw_picture,
    dropout_of,
    kept_from,
    real,
)
from nnkit.kernels.cuda_parts import (
    BLOCK_X,
    BLOCK_Y,
    FEATURE_LEVELS,
    SPARSE_LEVELS,
    less,
    read4,
    sum_columns4,
    write4,
)
from nnkit.kernels.formulas import is_erased, moved_place, philox, u32
from nnkit.kernels.lanes import LANE
from nnkit.kernels.layout import BATCH, EPOCH


def feature_of(column, offsets):
    """The feature whose one-hot block holds a column: the last that starts at or before it."""
    feature = 0
    for level in range(FEATURE_LEVELS):
        later = feature + (1 << (FEATURE_LEVELS - 1 - level))
        if later < offsets.shape[0] and offsets[later] <= column:
            feature = later
    return feature


def at_least(column, columns, start, stop):
    """The first place of a sparse row, between `start` and `stop`, whose column is `column` or later."""
    found = start
    for level in range(SPARSE_LEVELS):
        later = found + (1 << (SPARSE_LEVELS - 1 - level))
        if later <= stop and columns[later - 1] < column:
            found = later
    return found


def sparse_element(column, values, columns, start, stop):
    """The number of a sparse row at a column; 0 where there is none."""
    place = at_least(column, columns, start, stop)
    found = real(0.0)
    if place < stop and columns[place] == column:
        found = real(values[place])
    return found


def moved_element(row, j, columns, down, right, flipped, height, width):
    """The number in column j of a picture that is moved and mirrored; 0 beyond its end."""
    found = real(0.0)
    if j < columns:
        found = real(row[moved_place(j // width, j % width, down, right, flipped, height, width)])
    return found


def numbers4(given, row, place, j, shift4, scale4):
    """Four numbers of a row of the batch; those of an augmented picture are drawn."""
    columns = given.source.shape[1]
    height = given.height
    width = given.width
    if AUGMENTED:
        down, right, flipped, tall, wide, top, left = draw_picture(given, row)
        x4 = moved_element(given.source[place], j + LANE, columns, down, right, flipped, height, width)
    else:
        x4 = read4(given.source[place], j, columns)
    if SCALED:
        x4 = (x4 - shift4) * scale4
    if ERASE:
        erased4 = is_erased((j + LANE) // width, (j + LANE) % width, top, left, tall, wide, height)
        x4 = 0.0 if erased4 else x4
    return x4


def gather(given):
    """Fill a batch: rows of `source`, cast and scaled, one-hot blocks of `codes`, targets, weights.

    A thread has four columns, of the numbers or of the one-hot blocks, and some rows: it finds the features
    of its columns once. A RING holds the newest of the epoch's rows in their order, whole batches; `order`
    then only gives their numbers, for the draws.
    """
    source = given.source
    inputs = given.inputs
    first = given.counters[BATCH] * given.batch_size
    columns = source.shape[1]
    if RING:
        rows = inputs.shape[0]
        ring_start = first % source.shape[0]
    else:
        rows = less(inputs.shape[0], source.shape[0] - first)
    x = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    groups = (columns + 3) // 4
    dense = x < groups
    j = 4 * x if dense else columns + 4 * (x - groups)
    stop = columns if dense else inputs.shape[1]
    if SCALED and dense:
        shift4 = read4(given.shift, j, columns)
        scale4 = read4(given.scale, j, columns)
    if CODES and not dense:
        feature4 = feature_of(j + LANE - columns, given.offsets)
        category4 = j + LANE - columns - given.offsets[feature4]
    for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, inputs.shape[0], cuda.gridDim.y * BLOCK_Y):
        # The products run over the whole batch: numbers of an earlier one must not reach them.
        y4 = real(0.0)
        if i < rows:
            row = given.order[first + i] if SHUFFLED else first + i
            place = ring_start + i if RING else row
            if dense:
                y4 = numbers4(given, row, place, j, shift4, scale4)
            if CODES and not dense:
                # A code of -1 is no category: it equals none.
                y4 = real(given.codes[place, feature4] == category4)
            if SPARSE:
                start = given.sparse_starts[row]
                end = given.sparse_starts[row + 1]
                y4 = sparse_element(j + LANE, given.sparse_values, given.sparse_columns, start, end)
            if TARGETS:
                if INDICES:
                    if x == 0:
                        given.labels[i] = given.targets[place]
                else:
                    for k in range(x, given.targets.shape[1], cuda.gridDim.x * BLOCK_X):
                        given.labels[i, k] = given.targets[place, k]
            if WEIGHTED and x == 0:
                given.batch_weights[i] = given.weights[place]
        if j < stop:
            write4(inputs[i], j, stop, y4)
    if x == 0 and cuda.blockIdx.y == 0 and cuda.threadIdx.y == 0:
        given.count[0] = rows


def draw4(place, layer, batch, epoch, key0, key1):
    """Four random words."""
    return philox(u32(place), u32(layer), batch, epoch, u32(key0), u32(key1))


def forward(z, bias, a, mask, counters, layer, key0, key1, threshold, kept_scale, dropout, dropout_factors):
    """Bias, activation, dropout; in place, unless the derivative needs z and `a` is an array of its own."""
    columns = z.shape[1]
    blocks = (columns + 3) // 4
    b = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    j = 4 * b
    if j < columns:
        if BIAS:
            bias4 = read4(bias, j, columns)
        if DROPOUT:
            batch = u32(counters[BATCH])
            epoch = u32(counters[EPOCH])
        if DROPOUT_VARIES:
            least, factor = kept_from(dropout_of(dropout, dropout_factors, counters))
        else:
            least = threshold
            factor = kept_scale
        for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, z.shape[0], cuda.gridDim.y * BLOCK_Y):
            x4 = read4(z[i], j, columns)
            if BIAS:
                x4 += bias4
            y4 = activation(x4)
            if DROPOUT:
                word4 = draw4(i * blocks + b, layer, batch, epoch, key0, key1)
                kept4 = word4 >= u32(least)
                byte4 = u8(kept4)
                # The mask's rows are padded to whole draws.
                write4(mask[i], j, j + 4, byte4)
                y4 = y4 * factor if kept4 else 0.0
            if KEEP_Z:
                write4(z[i], j, columns, x4)
                write4(a[i], j, columns, y4)
            else:
                write4(z[i], j, columns, y4)


def backward(
    delta, z, a, mask, bias_gradient, kept_scale, keep, dropout, dropout_factors, counters, partials, tickets
):
    """Turn the derivative by the layer's output into that by z, in place; sum its columns for the bias."""
    columns = delta.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    sums4 = real(0.0)
    if DROPOUT_VARIES:
        rate = dropout_of(dropout, dropout_factors, counters)
        _, factor = kept_from(rate)
        kept = real(double(1.0) - rate)
    else:
        factor = kept_scale
        kept = keep
    if j < columns:
        for i in range(
            cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, delta.shape[0], cuda.gridDim.y * BLOCK_Y
        ):
            d4 = read4(delta[i], j, columns)
            x4 = read4(z[i], j, columns) if FROM_Z else read4(a[i], j, columns)
            if DROPOUT:
                kept4 = read4(mask[i], j, columns)
                d4 = 0.0 if kept4 == 0.0 else d4 * factor
                if not FROM_Z:
                    x4 *= kept
            d4 *= activation_derivative(x4)
            write4(delta[i], j, columns, d4)
            if BIAS:
                sums4 += d4
    if BIAS:
        sum_columns4(sums4, j, columns, bias_gradient, partials, tickets)


def scale_columns(x, weight, out):
    """Multiply each column by its weight."""
    columns = x.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    if j < columns:
        w4 = read4(weight, j, columns)
        for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, x.shape[0], cuda.gridDim.y * BLOCK_Y):
            x4 = read4(x[i], j, columns)
            x4 *= w4
            write4(out[i], j, columns, x4)


def scale_columns_gradient(delta, x, weight, weight_gradient, partials, tickets):
    """Turn the derivative by the output into that by `x`, in place; sum the columns for the weights."""
    columns = delta.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    sums4 = real(0.0)
    if j < columns:
        w4 = read4(weight, j, columns)
        for i in range(
            cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, delta.shape[0], cuda.gridDim.y * BLOCK_Y
        ):
            d4 = read4(delta[i], j, columns)
            x4 = read4(x[i], j, columns)
            sums4 += d4 * x4
            d4 *= w4
            write4(delta[i], j, columns, d4)
    sum_columns4(sums4, j, columns, weight_gradient, partials, tickets)


def add(target, source):
    """Add one array to another."""
    columns = target.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    if j < columns:
        for i in range(
            cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, target.shape[0], cuda.gridDim.y * BLOCK_Y
        ):
            x4 = read4(target[i], j, columns)
            y4 = read4(source[i], j, columns)
            x4 += y4
            write4(target[i], j, columns, x4)
