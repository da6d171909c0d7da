"""The arithmetic that a step's growth is measured against, beside a count over the products themselves."""

from __future__ import annotations

import pytest

from nnkit.benchmarks.growth import arithmetic


@pytest.mark.parametrize("widths", [(3, 2), (5, 4, 3), (784, 16, 16, 10)])
def test_the_arithmetic_is_that_of_every_product(widths: tuple[int, ...]) -> None:
    batch, steps = 7, 3
    counted = 0
    for layer in range(len(widths) - 1):
        fan_in, units = widths[layer : layer + 2]
        shapes = [(batch, fan_in, units), (fan_in, batch, units)]  # forward; by the weights
        if layer > 0:
            shapes.append((batch, units, fan_in))  # by the inputs, which are data below the first layer
        counted += sum(2 * rows * inner * columns for rows, inner, columns in shapes)
    assert arithmetic(widths, batch, steps) == steps * counted
