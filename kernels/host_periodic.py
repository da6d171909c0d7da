"""The CPU's loops of periodic embeddings, forward and backward: templates, as those of `host`.

The frequencies of a column are a contiguous stretch of the array of all frequencies; so are its phases. The
weights of one output are a line of `weight`: outputs 0, 1, ... of column c have lines c · width, c · width
+ 1, ...
"""

from __future__ import annotations

from nnkit.kernels.common_parts import real, wave, wave_slope
from nnkit.kernels.host_parts import dot_of


def periodic(x, frequency, phase, weight, bias, out, waves, columns):
    """Embed the first columns of `x`, a sum of waves for each output; then all of `x` as it is."""
    width = bias.size // columns
    count = frequency.size // columns
    heights = waves[:count]
    for i in range(x.shape[0]):
        row = x[i]
        to_row = out[i]
        for c in range(columns):
            speeds = frequency[c * count : (c + 1) * count]
            shifts = phase[c * count : (c + 1) * count]
            number = row[c]
            for f in range(count):
                heights[f] = wave(number, speeds[f], shifts[f])
            for line in range(c * width, (c + 1) * width):
                line_weights = weight[line * count : (line + 1) * count]
                to_row[line] = real(dot_of(heights, line_weights, 0.0)) + bias[line]
        for j in range(row.size):
            to_row[bias.size + j] = row[j]


def periodic_gradient(
    x, delta, frequency, phase, weight, frequency_gradient, phase_gradient, weight_gradient, waves, columns
):
    """Sum the gradient of frequencies, phases and weights over the rows."""
    count = frequency.size // columns
    width = weight.size // frequency.size
    frequency_gradient[:] = 0.0
    phase_gradient[:] = 0.0
    weight_gradient[:] = 0.0
    heights = waves[:count]
    slopes = waves[count:]
    for i in range(x.shape[0]):
        row = x[i]
        slope_row = delta[i]
        for c in range(columns):
            speeds = frequency[c * count : (c + 1) * count]
            shifts = phase[c * count : (c + 1) * count]
            by_speed = frequency_gradient[c * count : (c + 1) * count]
            by_shift = phase_gradient[c * count : (c + 1) * count]
            number = row[c]
            for f in range(count):
                heights[f] = wave(number, speeds[f], shifts[f])
                slopes[f] = 0.0
            for line in range(c * width, (c + 1) * width):
                line_weights = weight[line * count : (line + 1) * count]
                by_weight = weight_gradient[line * count : (line + 1) * count]
                d = slope_row[line]
                for f in range(count):
                    by_weight[f] += d * heights[f]
                    slopes[f] += d * line_weights[f]
            for f in range(count):
                by_angle = slopes[f] * wave_slope(number, speeds[f], shifts[f])
                by_shift[f] += by_angle
                by_speed[f] += 6.283185307179586 * number * by_angle


def periodic_inputs(x, delta, frequency, phase, weight, onto, columns, first):
    """The derivative by the inputs from column `first` on."""
    count = frequency.size // columns
    width = weight.size // frequency.size
    for i in range(x.shape[0]):
        row = x[i]
        slope_row = delta[i]
        to_row = onto[i]
        for j in range(to_row.size):
            to_row[j] = slope_row[columns * width + first + j]
        for c in range(first, columns):
            total = real(0.0)
            for f in range(count):
                slope = real(0.0)
                for line in range(c * width, (c + 1) * width):
                    slope += slope_row[line] * weight[line * count + f]
                speed = frequency[c * count + f]
                total += slope * wave_slope(row[c], speed, phase[c * count + f]) * speed
            to_row[c - first] += 6.283185307179586 * total
