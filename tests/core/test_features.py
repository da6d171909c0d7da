"""Bags of ids: what they hold, how rows of them are taken, and what is refused."""

import numpy as np
import pytest

from nnkit.core.features import Bags, Features, is_mapped
from nnkit.errors import DataError


def _bags(weights=None):
    return Bags(np.array([4, 1, 1, 0], np.int32), np.array([0, 2, 2, 4]), 5, weights)


def test_rows_of_bags_are_taken_in_the_order_asked_for_and_more_than_once():
    bags = _bags(np.array([1.0, 2.0, 3.0, 4.0], np.float32)).take(np.array([2, 1, 0, 2]))
    assert bags.ids.tolist() == [1, 0, 4, 1, 1, 0]
    assert bags.starts.tolist() == [0, 2, 2, 4, 6]
    assert bags.weights is not None
    assert bags.weights.tolist() == [3.0, 4.0, 1.0, 2.0, 3.0, 4.0]
    assert bags.size == 5


def test_features_take_their_bags_along():
    features = Features(np.arange(3, dtype=np.float32)[:, None], bags=(_bags(), _bags())).take(np.array([2]))
    assert len(features) == 1
    assert features.width == 1
    assert [bags.ids.tolist() for bags in features.bags] == [[1, 0], [1, 0]]


@pytest.mark.parametrize(
    ("ids", "starts", "weights", "said"),
    [
        ([5], [0, 1], None, "outside the embedding's 5 rows"),
        ([-1], [0, 1], None, "outside the embedding's 5 rows"),
        ([1, 2], [0, 1], None, "do not divide"),
        ([1, 2], [0, 2, 1, 2], None, "do not divide"),
        ([1, 2], [1, 2], None, "do not divide"),
        ([1, 2], [], None, "do not divide"),
        ([1, 2], [0, 2], [1.0], "2 ids in bags and 1 weights"),
    ],
)
def test_bags_that_do_not_fit_are_refused(ids, starts, weights, said):
    given = None if weights is None else np.array(weights)
    with pytest.raises(DataError, match=said):
        Bags(np.array(ids, np.int32), np.array(starts, np.int64), 5, given)


def test_as_many_bags_as_rows_are_wanted():
    with pytest.raises(DataError, match="2 rows of numbers and 3 bags"):
        Features(np.zeros((2, 1), np.float32), bags=(_bags(),))


def test_a_view_of_a_file_is_mapped_and_a_copy_of_it_is_not(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(12.0).reshape(3, 4))
    rows = np.load(tmp_path / "x.npy", mmap_mode="r")
    for view in (rows, np.asarray(rows), rows[:, 1:], rows[::-1], rows.reshape(4, 3)):
        assert is_mapped(view)
    # A memmap's copies are memmaps by their class.
    for copy in (rows.copy(), rows.astype(np.float32), np.array(rows), rows[[0, 2]], rows + 1):
        assert not is_mapped(copy)
