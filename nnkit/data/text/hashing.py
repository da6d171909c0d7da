"""A hash of texts that is the same on every machine and in every process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["fnv1a"]

_OFFSET_BASIS, _PRIME = 2166136261, 16777619
# Longer ones are hashed by a loop of their own: side by side, each would be as wide as the longest.
_LONGEST_TOGETHER = 64


def fnv1a(texts: Sequence[str]) -> NDArray[np.uint32]:
    """Return the 32-bit FNV-1a hash of each text's UTF-8 bytes, shape (texts,).

    The hash begins at 2166136261; each byte is XORed into it, and it is multiplied by 16777619, modulo 2³².
    G. Fowler, L. C. Noll, K.-P. Vo, D. Eastlake, "The FNV Non-Cryptographic Hash Algorithm" (RFC 9923).
    """
    encoded = [text.encode() for text in texts]
    lengths = np.array([len(data) for data in encoded], np.int64)
    hashes = np.full(len(encoded), _OFFSET_BASIS, np.uint32)
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] <= _LONGEST_TOGETHER]
    for place in np.flatnonzero(lengths > _LONGEST_TOGETHER).tolist():
        hashes[place] = _one(encoded[place])
    if len(order) == 0:
        return hashes
    widest = int(lengths[order[0]])
    together = b"".join(encoded[place].ljust(widest, b"\0") for place in order.tolist())
    columns = np.frombuffer(together, np.uint8).reshape(len(order), widest)
    found, prime = hashes[order], np.uint32(_PRIME)
    # From the longest to the shortest: those that have a byte in this column come first.
    having = np.searchsorted(-lengths[order], -np.arange(widest), side="left")
    for column, count in enumerate(having.tolist()):
        found[:count] = (found[:count] ^ columns[:count, column]) * prime
    hashes[order] = found
    return hashes


def _one(data: bytes) -> int:
    value = _OFFSET_BASIS
    for byte in data:
        value = (value ^ byte) * _PRIME & 0xFFFFFFFF
    return value
