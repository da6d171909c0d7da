"""The CUDA kernels of piecewise-linear numbers, with the results of `host_numbers`, which explains them.

No thread adds to what another adds to: the order of every sum is that of the rows.
"""

from __future__ import annotations

from numba import cuda

from nnkit.kernels.common_parts import bin_of, real
from nnkit.kernels.cuda_parts import BLOCK_X, BLOCK_Y, THREADS, read4, write4
from nnkit.kernels.formulas import piecewise_share, piecewise_slope
from nnkit.kernels.wide import load1, store1


def find_bins(x, columns, starts, lows, inverses, places, fractions):
    """Find the lower knot of each number and its share of the way to the next one; a thread for each."""
    features = places.shape[1]
    for n in range(
        cuda.blockIdx.x * THREADS + cuda.threadIdx.x, x.shape[0] * features, cuda.gridDim.x * THREADS
    ):
        i = n // features
        k = n - i * features
        number = real(load1(x[i], columns[starts[k]]))
        found = bin_of(number, lows, starts[k], starts[k + 1])
        fractions[i, k] = piecewise_share(number, lows[found], inverses[found])
        places[i, k] = found + k


def sum_knots(weight, starts, knots):
    """Sum the growth over the bins to the outputs at the knots; a thread has four units of some columns."""
    units = weight.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    if j < units:
        for k in range(
            cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, starts.shape[0] - 1, cuda.gridDim.y * BLOCK_Y
        ):
            total4 = real(0.0)
            write4(knots[starts[k] + k], j, units, total4)
            for r in range(starts[k], starts[k + 1]):
                grown4 = read4(weight[r], j, units)
                total4 += grown4
                write4(knots[r + k + 1], j, units, total4)


def interpolate(z, knots, places, fractions):
    """Add to each row the outputs of its numbers; a thread has four units of some rows."""
    units = z.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    if j < units:
        for i in range(cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, z.shape[0], cuda.gridDim.y * BLOCK_Y):
            z4 = read4(z[i], j, units)
            for k in range(places.shape[1]):
                fraction = fractions[i, k]
                low4 = read4(knots[places[i, k]], j, units)
                high4 = read4(knots[places[i, k] + 1], j, units)
                z4 += low4 + fraction * (high4 - low4)
            write4(z[i], j, units, z4)


def sum_places(delta, places, fractions, owners, slopes):
    """Sum each knot's share of the derivatives by the outputs; a thread has four units of some knots."""
    units = delta.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    if j < units:
        for knot in range(
            cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, slopes.shape[0], cuda.gridDim.y * BLOCK_Y
        ):
            k = owners[knot]
            total4 = real(0.0)
            for i in range(delta.shape[0]):
                above = knot - places[i, k]
                if above == 0 or above == 1:
                    share = fractions[i, k] if above == 1 else 1.0 - fractions[i, k]
                    d4 = read4(delta[i], j, units)
                    total4 += share * d4
            write4(slopes[knot], j, units, total4)


def interpolate_gradient(slopes, starts, gradient):
    """Sum, for each bin, the derivatives by the knots above it; a thread has four units of some columns.

    The second half of the host's kernel of this name; `sum_places` is the first.
    """
    units = gradient.shape[1]
    j = 4 * (cuda.blockIdx.x * BLOCK_X + cuda.threadIdx.x)
    if j < units:
        for k in range(
            cuda.blockIdx.y * BLOCK_Y + cuda.threadIdx.y, starts.shape[0] - 1, cuda.gridDim.y * BLOCK_Y
        ):
            total4 = real(0.0)
            for above in range(starts[k + 1] - starts[k]):
                r = starts[k + 1] - 1 - above
                slope4 = read4(slopes[r + k + 1], j, units)
                total4 += slope4
                write4(gradient[r], j, units, total4)


def expand(x, columns, lows, inverses, out):
    """Copy the inputs, and append each bin's share: 0 below the bin, 1 above it; a thread for each."""
    width = out.shape[1]
    inputs = width - columns.size
    for n in range(
        cuda.blockIdx.x * THREADS + cuda.threadIdx.x, x.shape[0] * width, cuda.gridDim.x * THREADS
    ):
        i = n // width
        j = n - i * width
        if j < inputs:
            store1(out[i], j, real(load1(x[i], j)))
        else:
            r = j - inputs
            store1(out[i], j, piecewise_share(real(load1(x[i], columns[r])), lows[r], inverses[r]))


def expand_gradient(delta, x, columns, starts, lows, inverses, onto):
    """Add to the derivative by the inputs what it is through the shares; a thread for each number."""
    features = starts.shape[0] - 1
    for n in range(
        cuda.blockIdx.x * THREADS + cuda.threadIdx.x, x.shape[0] * features, cuda.gridDim.x * THREADS
    ):
        i = n // features
        k = n - i * features
        column = columns[starts[k]]
        number = real(load1(x[i], column))
        total = real(load1(onto[i], column))
        for r in range(starts[k], starts[k + 1]):
            total += real(load1(delta[i], r)) * piecewise_slope(number, lows[r], inverses[r])
        store1(onto[i], column, total)
