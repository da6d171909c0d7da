"""The CPU's loops of layer normalisation, forward and backward: templates, as those of `host`."""

from __future__ import annotations

from nnkit.kernels.common_parts import BIAS, GRADIENT, double, real
from nnkit.kernels.formulas import centred, inverse_deviation, layer_norm_derivative, normalised
from nnkit.kernels.host_parts import dot_of, total_of


def layer_norm(x, weight, bias, out, mean, inverse, epsilon):
    """Normalise each row of `x` to mean 0 and variance 1, then scale and shift its columns.

    The mean is in float64: its rounding error is subtracted from each element too, so that rows with a mean
    much larger than their deviation lose nothing. For the GRADIENT the rounded mean and 1/√(variance +
    epsilon) are kept.
    """
    columns = x.shape[1]
    for i in range(x.shape[0]):
        row = x[i]
        to_row = out[i]
        exact = total_of(row) / double(columns)
        center = real(exact)
        remainder = real(exact - double(center))
        for j in range(columns):
            to_row[j] = centred(row[j], center, remainder)
        variance = real(dot_of(to_row, to_row, 0.0) / double(columns))
        factor = inverse_deviation(variance, epsilon)
        for j in range(columns):
            y = to_row[j] * factor * weight[j]
            to_row[j] = y + bias[j] if BIAS else y
        if GRADIENT:
            mean[i] = center
            inverse[i] = factor


def layer_norm_gradient(delta, x, mean, inverse, weight, weight_gradient, bias_gradient):
    """Turn the derivative by the output into that by `x`, in place; sum the columns for weight and bias."""
    columns = delta.shape[1]
    weight_gradient[:] = 0.0
    if BIAS:
        bias_gradient[:] = 0.0
    for i in range(delta.shape[0]):
        row = delta[i]
        x_row = x[i]
        center = mean[i]
        factor = inverse[i]
        for j in range(columns):
            weight_gradient[j] += row[j] * normalised(x_row[j], center, factor)
            if BIAS:
                bias_gradient[j] += row[j]
        # A loop of its own: with a third array to write, LLVM would not vectorise the sums.
        for j in range(columns):
            row[j] *= weight[j]
        mean_slope = real(total_of(row) / double(columns))
        mean_product = real(dot_of(row, x_row, center) * double(factor) / double(columns))
        for j in range(columns):
            x_hat = normalised(x_row[j], center, factor)
            row[j] = layer_norm_derivative(row[j], x_hat, factor, mean_slope, mean_product)
