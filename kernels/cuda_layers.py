"""The CUDA kernels that fill a batch, run a layer forward and backward, and add two layers' outputs."""

from __future__ import annotations

from numba import cuda

from nnkit.kernels.common_parts import (
    AUGMENTED,
    BIAS,
    CODES,
    DROPOUT,
    ERASE,
    FLIP,
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
    real,
    u8,
)
from nnkit.kernels.cuda_parts import (
    BLOCK_X,
    BLOCK_Y,
    FEATURE_LEVELS,
    SPARSE_LEVELS,
    less,
    read4,
    sum_into_bias,
    write4,
)
from nnkit.kernels.formulas import bounded, is_erased, moved_place, philox, u32
from nnkit.kernels.layout import AUGMENT_ERASE, AUGMENT_PLACE, BATCH, EPOCH


def feature_of(column, offsets):
    """Which feature's one-hot block holds a column: the last that starts at or before it."""
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
    """The number that a picture has in column j once it is moved and mirrored; 0 beyond its end."""
    found = real(0.0)
    if j < columns:
        found = real(row[moved_place(j // width, j % width, down, right, flipped, height, width)])
    return found


def kept_element(x, j, top, left, tall, wide, height, width):
    """The number, or 0 in the rectangle that is erased."""
    return 0.0 if is_erased(j // width, j % width, top, left, tall, wide, height) else x


def gather(
    source,
    codes,
    offsets,
    sparse_values,
    sparse_columns,
    sparse_starts,
    shift,
    scale,
    targets,
    weights,
    order,
    counters,
    batch_size,
    height,
    width,
    most_down,
    most_right,
    erase_threshold,
    key0,
    key1,
    inputs,
    labels,
    batch_weights,
    count,
):
    """Fill a batch: rows of `source`, cast and scaled, one-hot blocks of `codes`, targets, weights.

    A thread has four columns, of the numbers or of the one-hot blocks, and some rows: what it needs to know
    of its columns is found once. A RING holds the newest of the epoch's rows in their order, whole batches;
    `order` then only says which they are.
    """
    first = counters[BATCH] * batch_size
    columns = source.shape[1]
    whole = inputs.shape[1]
    if RING:
        rows = inputs.shape[0]
        ring_start = first % source.shape[0]
    else:
        rows = less(inputs.shape[0], source.shape[0] - first)
    x = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    groups = (columns + 3) // 4
    dense = x < groups
    j = 4 * x if dense else columns + 4 * (x - groups)
    stop = columns if dense else whole
    if SCALED and dense:
        shift0, shift1, shift2, shift3 = read4(shift, j, columns)
        scale0, scale1, scale2, scale3 = read4(scale, j, columns)
    if CODES and not dense:
        feature0 = feature_of(j - columns, offsets)
        feature1 = feature_of(j + 1 - columns, offsets)
        feature2 = feature_of(j + 2 - columns, offsets)
        feature3 = feature_of(j + 3 - columns, offsets)
        category0 = j - columns - offsets[feature0]
        category1 = j + 1 - columns - offsets[feature1]
        category2 = j + 2 - columns - offsets[feature2]
        category3 = j + 3 - columns - offsets[feature3]
    for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, inputs.shape[0], cuda.gridDim.y * BLOCK_Y):
        # The products run over the whole batch: what is left of an earlier one must not reach them.
        a = b = c = d = real(0.0)
        if i < rows:
            row = order[first + i] if SHUFFLED else first + i
            place = ring_start + i if RING else row
            if dense:
                if AUGMENTED:
                    word0, word1, word2, word3 = philox(
                        u32(row), u32(AUGMENT_PLACE), u32(0), u32(counters[EPOCH]), u32(key0), u32(key1)
                    )
                    down = bounded(word0, 2 * most_down + 1) - most_down
                    right = bounded(word1, 2 * most_right + 1) - most_right
                    flipped = FLIP and word2 < u32(0x80000000)
                    a = moved_element(source[place], j, columns, down, right, flipped, height, width)
                    b = moved_element(source[place], j + 1, columns, down, right, flipped, height, width)
                    c = moved_element(source[place], j + 2, columns, down, right, flipped, height, width)
                    d = moved_element(source[place], j + 3, columns, down, right, flipped, height, width)
                else:
                    a, b, c, d = read4(source[place], j, columns)
                if SCALED:
                    a = (a - shift0) * scale0
                    b = (b - shift1) * scale1
                    c = (c - shift2) * scale2
                    d = (d - shift3) * scale3
                if ERASE:
                    word4, word5, word6, word7 = philox(
                        u32(row), u32(AUGMENT_ERASE), u32(0), u32(counters[EPOCH]), u32(key0), u32(key1)
                    )
                    tall = 1 + bounded(word4, (height + 1) // 2) if word3 < u32(erase_threshold) else 0
                    wide = 1 + bounded(word5, (width + 1) // 2)
                    top = bounded(word6, height - tall + 1)
                    left = bounded(word7, width - wide + 1)
                    a = kept_element(a, j, top, left, tall, wide, height, width)
                    b = kept_element(b, j + 1, top, left, tall, wide, height, width)
                    c = kept_element(c, j + 2, top, left, tall, wide, height, width)
                    d = kept_element(d, j + 3, top, left, tall, wide, height, width)
            if CODES and not dense:
                a = real(codes[place, feature0] == category0)
                b = real(codes[place, feature1] == category1)
                c = real(codes[place, feature2] == category2)
                d = real(codes[place, feature3] == category3)
            if SPARSE:
                start = sparse_starts[row]
                end = sparse_starts[row + 1]
                a = sparse_element(j, sparse_values, sparse_columns, start, end)
                b = sparse_element(j + 1, sparse_values, sparse_columns, start, end)
                c = sparse_element(j + 2, sparse_values, sparse_columns, start, end)
                d = sparse_element(j + 3, sparse_values, sparse_columns, start, end)
            if TARGETS:
                if INDICES:
                    if x == 0:
                        labels[i] = targets[place]
                else:
                    for k in range(x, targets.shape[1], cuda.gridDim.x * BLOCK_X):
                        labels[i, k] = targets[place, k]
            if WEIGHTED and x == 0:
                batch_weights[i] = weights[place]
        if j < stop:
            write4(inputs[i], j, stop, a, b, c, d)
    if x == 0 and cuda.blockIdx.y == 0 and cuda.threadIdx.y == 0:
        count[0] = rows


def forward(z, bias, a, mask, counters, layer, key0, key1, threshold, kept_scale):
    """Bias, activation, dropout; in place, unless the derivative needs z and `a` is an array of its own."""
    columns = z.shape[1]
    blocks = (columns + 3) // 4
    b = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    j = 4 * b
    if j < columns:
        if BIAS:
            bias0, bias1, bias2, bias3 = read4(bias, j, columns)
        if DROPOUT:
            batch = u32(counters[BATCH])
            epoch = u32(counters[EPOCH])
        for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, z.shape[0], cuda.gridDim.y * BLOCK_Y):
            x0, x1, x2, x3 = read4(z[i], j, columns)
            if BIAS:
                x0 += bias0
                x1 += bias1
                x2 += bias2
                x3 += bias3
            y0 = activation(x0)
            y1 = activation(x1)
            y2 = activation(x2)
            y3 = activation(x3)
            if DROPOUT:
                word0, word1, word2, word3 = philox(
                    u32(i * blocks + b), u32(layer), batch, epoch, u32(key0), u32(key1)
                )
                kept0 = word0 >= u32(threshold)
                kept1 = word1 >= u32(threshold)
                kept2 = word2 >= u32(threshold)
                kept3 = word3 >= u32(threshold)
                # The mask's rows are padded to whole draws.
                write4(mask[i], j, j + 4, u8(kept0), u8(kept1), u8(kept2), u8(kept3))
                y0 = y0 * kept_scale if kept0 else 0.0
                y1 = y1 * kept_scale if kept1 else 0.0
                y2 = y2 * kept_scale if kept2 else 0.0
                y3 = y3 * kept_scale if kept3 else 0.0
            if KEEP_Z:
                write4(z[i], j, columns, x0, x1, x2, x3)
                write4(a[i], j, columns, y0, y1, y2, y3)
            else:
                write4(z[i], j, columns, y0, y1, y2, y3)


def backward(delta, z, a, mask, bias_gradient, kept_scale, keep, partials, tickets):
    """Turn the derivative by the layer's output into that by z, in place; sum its columns for the bias."""
    columns = delta.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    sum0 = sum1 = sum2 = sum3 = real(0.0)
    if j < columns:
        for i in range(
            cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, delta.shape[0], cuda.gridDim.y * BLOCK_Y
        ):
            d0, d1, d2, d3 = read4(delta[i], j, columns)
            if FROM_Z:
                x0, x1, x2, x3 = read4(z[i], j, columns)
            else:
                x0, x1, x2, x3 = read4(a[i], j, columns)
            if DROPOUT:
                kept0, kept1, kept2, kept3 = read4(mask[i], j, columns)
                d0 = 0.0 if kept0 == 0.0 else d0 * kept_scale
                d1 = 0.0 if kept1 == 0.0 else d1 * kept_scale
                d2 = 0.0 if kept2 == 0.0 else d2 * kept_scale
                d3 = 0.0 if kept3 == 0.0 else d3 * kept_scale
                if not FROM_Z:
                    x0 *= keep
                    x1 *= keep
                    x2 *= keep
                    x3 *= keep
            d0 *= activation_derivative(x0)
            d1 *= activation_derivative(x1)
            d2 *= activation_derivative(x2)
            d3 *= activation_derivative(x3)
            write4(delta[i], j, columns, d0, d1, d2, d3)
            if BIAS:
                sum0 += d0
                sum1 += d1
                sum2 += d2
                sum3 += d3
    if BIAS:
        sum_into_bias(sum0, sum1, sum2, sum3, j, columns, bias_gradient, partials, tickets)


def add(target, source):
    """Add one array to another."""
    columns = target.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    if j < columns:
        for i in range(
            cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, target.shape[0], cuda.gridDim.y * BLOCK_Y
        ):
            a, b, c, d = read4(target[i], j, columns)
            e, f, g, h = read4(source[i], j, columns)
            write4(target[i], j, columns, a + e, b + f, c + g, d + h)
