"""The CUDA kernels of periodic embeddings; the parameters lie as `host_periodic` says.

Threads do not share waves: each computes those that it needs. Numbers are read and written one by one.
"""

from __future__ import annotations

from numba import cuda

from nnkit.kernels.common_parts import real, wave, wave_slope
from nnkit.kernels.cuda_parts import BLOCK_X, BLOCK_Y, sum_columns4
from nnkit.kernels.lanes import LANE
from nnkit.kernels.wide import load1, store1


def periodic(x, frequency, phase, weight, bias, out, columns):
    """Embed the first columns of `x`, a sum of waves for each output; then all of `x` as it is."""
    lines = bias.shape[0]
    width = lines // columns
    count = frequency.shape[0] // columns
    j = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    if j < lines + x.shape[1]:
        for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, x.shape[0], cuda.gridDim.y * BLOCK_Y):
            if j < lines:
                c = j // width
                number = real(load1(x[i], c))
                total = real(bias[j])
                for f in range(count):
                    height = wave(number, frequency[c * count + f], phase[c * count + f])
                    total += height * weight[j * count + f]
            else:
                total = real(load1(x[i], j - lines))
            store1(out[i], j, total)


def by_wave(delta, i, weight, c, f, count, width):
    """The derivative by wave f of column c, from those by the column's outputs."""
    total = real(0.0)
    for line in range(c * width, (c + 1) * width):
        total += real(load1(delta[i], line)) * weight[line * count + f]
    return total


def periodic_gradient(
    x,
    delta,
    frequency,
    phase,
    weight,
    frequency_gradient,
    phase_gradient,
    columns,
    weight_partials,
    weight_tickets,
    bias_partials,
    bias_tickets,
):
    """Sum the gradient of frequencies and phases over the rows; a thread has four of either."""
    waves = frequency.shape[0]
    count = waves // columns
    width = weight.shape[0] // waves
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    speed4 = real(0.0)
    shift4 = real(0.0)
    for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, x.shape[0], cuda.gridDim.y * BLOCK_Y):
        if j + LANE < waves:
            c = (j + LANE) // count
            number = real(load1(x[i], c))
            slope = by_wave(delta, i, weight, c, j + LANE - c * count, count, width)
            slope *= wave_slope(number, frequency[j + LANE], phase[j + LANE])
            shift4 += slope
            speed4 += 6.283185307179586 * number * slope
    sum_columns4(speed4, j, waves, frequency_gradient, weight_partials, weight_tickets)
    # A ticket of its own: while one block still counts the first sum, another may count the second.
    sum_columns4(shift4, j, waves, phase_gradient, bias_partials, bias_tickets)


def periodic_lines(x, delta, frequency, phase, weight_gradient, columns, partials, tickets):
    """Sum the gradient of the weights over the rows; a thread has four of them."""
    size = weight_gradient.shape[0]
    count = frequency.shape[0] // columns
    width = size // frequency.shape[0]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    sums4 = real(0.0)
    for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, x.shape[0], cuda.gridDim.y * BLOCK_Y):
        if j + LANE < size:
            line = (j + LANE) // count
            c = line // width
            f = j + LANE - (line - c) * count
            height = wave(real(load1(x[i], c)), frequency[f], phase[f])
            sums4 += height * real(load1(delta[i], line))
    sum_columns4(sums4, j, size, weight_gradient, partials, tickets)


def periodic_inputs(x, delta, frequency, phase, weight, onto, columns, first):
    """The derivative by the inputs from column `first` on."""
    waves = frequency.shape[0]
    count = waves // columns
    width = weight.shape[0] // waves
    j = cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x
    c = first + j
    if j < onto.shape[1]:
        for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, x.shape[0], cuda.gridDim.y * BLOCK_Y):
            total = real(0.0)
            if c < columns:
                number = real(load1(x[i], c))
                for f in range(count):
                    speed = frequency[c * count + f]
                    slope = by_wave(delta, i, weight, c, f, count, width)
                    total += slope * wave_slope(number, speed, phase[c * count + f]) * speed
            total = real(load1(delta[i], columns * width + c)) + 6.283185307179586 * total
            store1(onto[i], j, total)
