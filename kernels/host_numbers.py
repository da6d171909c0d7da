"""The CPU's loops of piecewise-linear numbers: templates, as those of `host`.

A number lies in one of its column's bins. `weight` has a row for each bin, by which the output grows over
that bin; summed over the bins of a column they are the outputs at its knots, between which a lookup
interpolates. Column k has one knot more than bins, so that bin r's knots are rows r + k and r + k + 1.
"""

from __future__ import annotations

from nnkit.kernels.common_parts import bin_of, real
from nnkit.kernels.formulas import piecewise_share, piecewise_slope


def find_bins(x, columns, starts, lows, inverses, places, fractions):
    """Find the lower knot of each number and its share of the way to the next one."""
    for i in range(x.shape[0]):
        row = x[i]
        for k in range(places.shape[1]):
            number = row[columns[starts[k]]]
            found = bin_of(number, lows, starts[k], starts[k + 1])
            fractions[i, k] = piecewise_share(number, lows[found], inverses[found])
            places[i, k] = found + k


def sum_knots(weight, starts, knots):
    """Sum the growth over the bins to the outputs at the knots; a column's first knot is 0."""
    for k in range(starts.shape[0] - 1):
        knots[starts[k] + k, :] = 0.0
        for r in range(starts[k], starts[k + 1]):
            grown = weight[r]
            low = knots[r + k]
            high = knots[r + k + 1]
            for j in range(grown.size):
                high[j] = low[j] + grown[j]


def interpolate(z, knots, places, fractions):
    """Add to each row the outputs of its numbers, between those of their knots."""
    for i in range(z.shape[0]):
        to_row = z[i]
        for k in range(places.shape[1]):
            low = knots[places[i, k]]
            high = knots[places[i, k] + 1]
            fraction = fractions[i, k]
            for j in range(to_row.size):
                to_row[j] += low[j] + fraction * (high[j] - low[j])


def interpolate_gradient(delta, places, fractions, starts, gradient):
    """Sum the derivatives by the outputs for each number's two knots, then for each bin those above it."""
    gradient[:] = 0.0
    for k in range(starts.shape[0] - 1):
        first = starts[k]
        for i in range(delta.shape[0]):
            d = delta[i]
            found = places[i, k] - k
            fraction = fractions[i, k]
            high = gradient[found]
            if found > first:
                low = gradient[found - 1]
                for j in range(d.size):
                    part = fraction * d[j]
                    high[j] += part
                    low[j] += d[j] - part
            else:
                for j in range(d.size):
                    high[j] += fraction * d[j]
        for r in range(starts[k + 1] - 2, first - 1, -1):
            here = gradient[r]
            above = gradient[r + 1]
            for j in range(here.size):
                here[j] += above[j]


def expand(x, columns, lows, inverses, out):
    """Copy the inputs, and append each bin's share: 0 below the bin, 1 above it."""
    inputs = out.shape[1] - columns.size
    for i in range(x.shape[0]):
        row = x[i]
        to_row = out[i]
        for j in range(inputs):
            to_row[j] = row[j]
        for r in range(columns.size):
            to_row[inputs + r] = piecewise_share(row[columns[r]], lows[r], inverses[r])


def expand_gradient(delta, x, columns, starts, lows, inverses, onto):
    """Add to the derivative by the inputs what it is through the shares, whose derivative is `delta`."""
    for i in range(x.shape[0]):
        d = delta[i]
        for k in range(starts.shape[0] - 1):
            column = columns[starts[k]]
            number = x[i, column]
            total = real(0.0)
            for r in range(starts[k], starts[k + 1]):
                total += d[r] * piecewise_slope(number, lows[r], inverses[r])
            onto[i, column] += total
