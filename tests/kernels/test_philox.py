"""Philox against the known-answer vectors of Random123, and the distributions drawn from it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from nnkit.kernels import philox

# Random123, tests/kat_vectors: "philox4x32 10", counter, key, expected words.
KNOWN_ANSWERS = [
    ("00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ("ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ("243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text: str) -> list[int]:
    return [int(word, 16) for word in text.split()]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN_ANSWERS)
def test_words_equal_the_known_answers(counter: str, key: str, expected: str) -> None:
    low, high = words(key)
    result = philox.philox_words(low | high << 32, *words(counter))
    assert result.dtype == np.uint32
    assert result.tolist() == [words(expected)]


def test_counters_broadcast_and_each_row_is_that_counters_draw() -> None:
    together = philox.philox_words(7, np.arange(5), 3, 1, 2)
    alone = [philox.philox_words(7, block, 3, 1, 2)[0] for block in range(5)]
    np.testing.assert_array_equal(together, alone)


def test_numpys_own_philox_is_another_variant() -> None:
    """NumPy has Philox-4x64: agreeing with it would mean that the words are of the wrong size."""
    assert not np.array_equal(
        np.random.Philox(key=0, counter=0).random_raw(4), philox.philox_words(0, 0)[0].astype(np.uint64)
    )


def test_uniform_takes_the_upper_24_bits_of_consecutive_words() -> None:
    first = words("6627e8d5 e169c58d bc57ac4c 9b00dbd8")
    expected = [((word >> 8) + 0.5) / 2**24 for word in first]
    np.testing.assert_array_equal(philox.uniform(0, 4), expected)


@pytest.mark.parametrize("draw", [philox.uniform, philox.normal])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 5, 1001])
def test_a_longer_draw_begins_with_the_shorter_one(draw, count: int) -> None:
    short = draw(12, count, 4)
    assert short.shape == (count,)
    np.testing.assert_array_equal(draw(12, count + 9, 4)[:count], short)


@pytest.mark.parametrize("draw", [philox.uniform, philox.normal])
def test_seed_and_each_counter_change_the_draw(draw) -> None:
    draws = [
        draw(5, 64),
        draw(6, 64),
        draw(5 | 1 << 32, 64),
        draw(5, 64, 1),
        draw(5, 64, 0, 1),
        draw(5, 64, 0, 0, 1),
    ]
    for i, first in enumerate(draws):
        for second in draws[i + 1 :]:
            assert not np.any(first == second)


def test_draws_follow_their_distribution() -> None:
    assert stats.kstest(philox.uniform(3, 50_000), "uniform").pvalue > 1e-3
    assert stats.kstest(philox.normal(3, 50_000), "norm").pvalue > 1e-3


def test_neighbours_in_the_draw_and_in_the_stream_are_uncorrelated() -> None:
    first, second = philox.normal(1, 40_000, 0), philox.normal(1, 40_000, 1)
    for a, b in [(first[:-1], first[1:]), (first[:-2], first[2:]), (first, second)]:
        assert abs(np.mean(a * b)) < 4.5 / np.sqrt(40_000)


def test_uniform_is_inside_the_open_interval_at_the_extreme_words(monkeypatch: pytest.MonkeyPatch) -> None:
    extremes = np.array([[0, 0xFFFFFFFF, 0, 0xFFFFFFFF]], dtype=np.uint32)
    monkeypatch.setattr(philox, "philox_words", lambda *args: extremes)
    np.testing.assert_array_equal(philox.uniform(0, 2), [2.0**-25, 1 - 2.0**-25])
    assert np.all(np.isfinite(philox.normal(0, 4)))
