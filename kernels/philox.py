"""Philox-4x32-10 over whole NumPy arrays: random numbers as a function of a seed and a counter.

There is no state: the same seed and counter give the same words on every machine. The generator itself is
`nnkit.kernels.formulas.philox`. Order: words, then the distributions made from them.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.kernels import formulas

__all__ = ["normal", "philox_words", "uniform"]


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
    counter = (np.atleast_1d(word).astype(np.uint32) for word in (counter0, counter1, counter2, counter3))
    # The key as arrays: NumPy warns where a scalar overflows.
    keys = (np.array([key & 0xFFFFFFFF]).astype(np.uint32) for key in (seed, seed >> 32))
    return np.stack(formulas.philox(*np.broadcast_arrays(*counter), *keys), axis=-1)


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
    # The upper 24 bits, as many as a float32 holds.
    return ((words >> 8).astype(np.float64) + 0.5) * 2.0**-24


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
