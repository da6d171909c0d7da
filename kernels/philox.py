"""Philox-4x32-10 over whole NumPy arrays: random numbers as a function of a seed and a counter.

Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011
(https://doi.org/10.1145/2063384.2063405). There is no state: the same seed and counter give the same words on
every machine. Order: constants, words, then the distributions made of them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

__all__ = [
    "KEY_STEPS",
    "MULTIPLIERS",
    "ROUNDS",
    "UNIFORM_SCALE",
    "UNIFORM_SHIFT",
    "normal",
    "philox_words",
    "uniform",
]

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
"""What the first and the third counter word are multiplied by in each round."""

KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
"""What is added to the two key words between rounds: the golden ratio and √3 − 1, as fractions of 2³²."""

ROUNDS = 10

UNIFORM_SHIFT = 8
"""A uniform number is made of a word's upper 24 bits, as many as a float32 holds."""

UNIFORM_SCALE = 2.0**-24

_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)


def philox_words(
    seed: int, counter0: ArrayLike, counter1: ArrayLike = 0, counter2: ArrayLike = 0, counter3: ArrayLike = 0
) -> NDArray[np.uint32]:
    """Return the four random words of each counter.

    Parameters
    ----------
    seed : int
        The key: its lower 64 bits are taken, the lower 32 of them as the first key word.
    counter0, counter1, counter2, counter3 : int or array_like of shape (n,)
        The counter's words, each in ``[0, 2**32)``; they broadcast against one another.

    Returns
    -------
    ndarray of shape (n, 4), uint32
    """
    words = (np.asarray(word).astype(np.uint64) for word in (counter0, counter1, counter2, counter3))
    x0, x1, x2, x3 = np.broadcast_arrays(*(np.atleast_1d(word) for word in words))
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32 & 0xFFFFFFFF
    for _ in range(ROUNDS):
        # A 32-bit word times a 32-bit word fits in 64 bits: its halves are the product's high and low word.
        product0 = x0 * np.uint64(MULTIPLIERS[0])
        product1 = x2 * np.uint64(MULTIPLIERS[1])
        x0 = (product1 >> _HALF) ^ x1 ^ np.uint64(key0)
        x2 = (product0 >> _HALF) ^ x3 ^ np.uint64(key1)
        x1 = product1 & _LOW
        x3 = product0 & _LOW
        key0 = (key0 + KEY_STEPS[0]) & 0xFFFFFFFF
        key1 = (key1 + KEY_STEPS[1]) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3], axis=-1).astype(np.uint32)


def uniform(
    seed: int, count: int, counter1: int = 0, counter2: int = 0, counter3: int = 0, first: int = 0
) -> NDArray[np.float64]:
    """Draw numbers uniform in the open interval (0, 1): element i is word ``i % 4`` of counter ``i // 4``.

    Parameters
    ----------
    seed : int
        The key, in ``[0, 2**64)``.
    count : int
        How many; a longer draw begins with the shorter one.
    counter1, counter2, counter3 : int
        Which draw this is: layer, step, purpose. Each in ``[0, 2**32)``.
    first : int
        From which counter on: the first ``4 * first`` numbers are left out.

    Returns
    -------
    ndarray of shape (count,), float64
        ``((word >> 8) + ½) · 2⁻²⁴``: never 0 and never 1, symmetric about ½.
    """
    blocks = np.arange(first, first + (count + 3) // 4)
    words = philox_words(seed, blocks, counter1, counter2, counter3).reshape(-1)[:count]
    return ((words >> UNIFORM_SHIFT).astype(np.float64) + 0.5) * UNIFORM_SCALE


def normal(
    seed: int, count: int, counter1: int = 0, counter2: int = 0, counter3: int = 0, first: int = 0
) -> NDArray[np.float64]:
    """Draw standard normal numbers: each pair of uniform ones gives a pair.

    The transform of Box and Muller (1958), in float64; with 24-bit uniform numbers it ends at 5.9 standard
    deviations. Arguments as for `uniform`.

    Returns
    -------
    ndarray of shape (count,), float64
    """
    pairs = uniform(seed, count + (-count) % 4, counter1, counter2, counter3, first).reshape(-1, 2)
    radius: NDArray[np.float64] = np.sqrt(-2.0 * np.log(pairs[:, 0]))
    angle = (2.0 * np.pi) * pairs[:, 1]
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).reshape(-1)[:count]
