"""The split: disjoint, stratified, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nnkit.data.splitting import split_rows
from nnkit.errors import ConfigError, DataError


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 5), min_size=2, max_size=200),
    st.floats(0.05, 0.95),
    st.integers(0, 2**63),
    st.booleans(),
)
def test_sides_are_a_partition(labels: list[int], share: float, seed: int, stratified: bool) -> None:
    classes = np.array(labels) if stratified else None
    try:
        training, validation = split_rows(len(labels), share, seed, classes)
    except DataError:
        return
    assert np.all(np.diff(training) > 0)
    assert np.all(np.diff(validation) > 0)
    np.testing.assert_array_equal(np.sort(np.concatenate([training, validation])), np.arange(len(labels)))
    if classes is None:
        assert abs(len(validation) - len(labels) * share) <= 0.5
        return
    assert set(classes[training]) == set(labels)
    for label in set(labels):
        assert np.sum(classes[validation] == label) <= labels.count(label) * share + 1


def test_every_class_has_its_part() -> None:
    classes = np.repeat([0, 1, 2], [700, 200, 100])
    training, validation = split_rows(1000, 0.1, 0, classes)
    assert np.bincount(classes[validation]).tolist() == [70, 20, 10]
    assert np.bincount(classes[training]).tolist() == [630, 180, 90]


def test_rare_class_stays_in_training() -> None:
    classes = np.array([0] * 10 + [1])
    for seed in range(20):
        assert 10 in split_rows(11, 0.5, seed, classes)[0]


@pytest.mark.parametrize("classes", [None, np.arange(1000) % 7])
def test_seed_decides(classes: np.ndarray | None) -> None:
    first, again, other = (split_rows(1000, 0.2, seed, classes)[1] for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    assert first.dtype == np.int64


def test_chance_favours_no_row() -> None:
    drawn = np.concatenate([split_rows(10, 0.3, seed)[1] for seed in range(2000)])
    np.testing.assert_allclose(np.bincount(drawn, minlength=10), 600, atol=100)


@pytest.mark.parametrize("share", [0, 1, -0.1, 1.5, float("nan")])
def test_share_out_of_range_is_refused(share: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        split_rows(10, share, 0)


def test_empty_side_is_refused() -> None:
    with pytest.raises(DataError, match="none of the 4 rows for validation"):
        split_rows(4, 0.1, 0)
    with pytest.raises(DataError, match="for training"):
        split_rows(4, 0.95, 0)
    with pytest.raises(DataError, match="single row"):
        split_rows(4, 0.5, 0, np.arange(4))
