"""The CPU's loops over the members of an ensemble: templates, as those of `host`."""

from __future__ import annotations

from nnkit.kernels.common_parts import BIAS, SHARED, join_row, join_row_gradient


def join_members(z, outputs):
    """Join the members' outputs, (rows, members · columns), to one prediction of each row."""
    for i in range(outputs.shape[0]):
        join_row(z[i], outputs[i], outputs.shape[1])


def join_gradient(z, outputs, delta, z_gradient):
    """The derivative by the members' outputs, from that by the joined ones."""
    for i in range(outputs.shape[0]):
        join_row_gradient(z[i], outputs[i], delta[i], z_gradient[i], outputs.shape[1])


def scale_members(x, scale, bias, out):
    """Multiply each member's rows by its scale, and add its bias; a SHARED row is every member's."""
    members = scale.shape[0]
    for i in range(out.shape[0]):
        row = x[i // members] if SHARED else x[i]
        to_row = out[i]
        factors = scale[i % members]
        if BIAS:
            shifts = bias[i % members]
        for j in range(out.shape[1]):
            to_row[j] = row[j] * factors[j] + shifts[j] if BIAS else row[j] * factors[j]


def scale_members_gradient(delta, x, scale, scale_gradient, bias_gradient):
    """Multiply the derivative by the scale, in place; sum it over the rows for the scale and the bias."""
    members = scale.shape[0]
    scale_gradient[:] = 0.0
    if BIAS:
        bias_gradient[:] = 0.0
    for i in range(delta.shape[0]):
        d = delta[i]
        row = x[i // members] if SHARED else x[i]
        factors = scale[i % members]
        by_scale = scale_gradient[i % members]
        if BIAS:
            by_bias = bias_gradient[i % members]
            for j in range(delta.shape[1]):
                by_bias[j] += d[j]
        for j in range(delta.shape[1]):
            by_scale[j] += d[j] * row[j]
        for j in range(delta.shape[1]):
            d[j] *= factors[j]


def sum_members(x, out):
    """For each row of the batch, sum the rows that its members hold."""
    members = x.shape[0] // out.shape[0]
    for i in range(out.shape[0]):
        to_row = out[i]
        to_row[:] = x[i * members]
        for m in range(1, members):
            row = x[i * members + m]
            for j in range(out.shape[1]):
                to_row[j] += row[j]
