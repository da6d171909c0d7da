"""What only the CPU's loops do: an epoch's order, and a product in a fixed order."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nnkit.feed.order import epoch_order
from nnkit.kernels import host


@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_an_order_is_a_permutation(count: int) -> None:
    np.testing.assert_array_equal(np.sort(epoch_order(count, 3, 0)), np.arange(count))
    np.testing.assert_array_equal(epoch_order(count, 3, 0, shuffle=False), np.arange(count))


def test_an_order_is_a_function_of_seed_and_epoch() -> None:
    first = epoch_order(200, 3, 1)
    np.testing.assert_array_equal(first, epoch_order(200, 3, 1))
    others = [(4, 1), (3, 2), (3 + 2**32, 1), (2**64 - 1, 1)]
    for other in [np.arange(200), *(epoch_order(200, *key) for key in others)]:
        assert np.mean(first == other) < 0.05


def test_every_row_comes_to_a_position_equally_often() -> None:
    orders = np.empty((400, 8), np.int64)
    shuffle = host.kernel("shuffle", np.dtype(np.float64)).entry
    for epoch, order in enumerate(orders):
        shuffle(order, epoch, 11, 0)
    np.testing.assert_array_equal(orders[7], epoch_order(8, 11, 7))
    for position in (0, 3, 7):
        assert stats.chisquare(np.bincount(orders[:, position], minlength=8)).pvalue > 1e-3


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("rows", "inner", "columns"), [(1, 1, 1), (3, 6, 5), (33, 7, 513), (70, 9, 19), (64, 300, 16), (2, 0, 3)]
)
def test_a_product_adds_in_ascending_order_and_rounds_at_each_step(
    rows: int, inner: int, columns: int, dtype: str
) -> None:
    random = np.random.default_rng(5)
    a, b = (random.normal(size=shape).astype(dtype) for shape in ((rows, inner), (inner, columns)))
    expected = np.zeros((rows, columns), dtype)
    for k in range(inner):
        expected += a[:, k : k + 1] * b[k]
    out = np.full((rows, columns), 77, dtype)
    host.kernel("multiply", np.dtype(dtype)).entry(a, b, out)
    np.testing.assert_array_equal(out, expected)
