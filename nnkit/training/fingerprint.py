"""The fingerprint of the training data, which must be the same when a training is resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.feed.features import Features

__all__ = ["differences", "fingerprint"]

_LONGEST = 60  # characters of a shape and a dtype in a message: they come from a file
Fingerprint = dict[str, dict[str, Any]]


def fingerprint(features: Features, targets: NDArray, weights: NDArray | None, rows: str) -> Fingerprint:
    """Return the shape, dtype and SHA-256 of every array.

    Parameters
    ----------
    features : Features
        The encoded features.
    targets : ndarray
        The encoded targets.
    weights : ndarray of shape (samples,) or None
        Sample weights, including class weights.
    rows : str
        The prefix of the arrays' names, such as ``training``.
    """
    arrays: dict[str, NDArray | None] = {"categories": features.codes, "targets": targets}
    if features.sparse is not None:
        sparse = features.sparse
        arrays |= {"numbers": sparse.values, "columns": sparse.columns, "starts": sparse.starts}
    for number, bags in enumerate(features.bags):
        arrays |= {f"bags {number} ids": bags.ids, f"bags {number} starts": bags.starts}
        arrays[f"bags {number} weights"] = bags.weights
    arrays |= {"shift": features.shift, "scale": features.scale, "weights": weights}
    found = {f"{rows} {name}": _of(array) for name, array in arrays.items() if array is not None}
    shape = (len(features), features.dense.shape[1])
    blocks = (block for _, block in features.dense_blocks())
    return {f"{rows} features": _entry(shape, features.dense.dtype, blocks), **found}


def _of(array: NDArray) -> dict[str, Any]:
    return _entry(array.shape, array.dtype, [array])


def _entry(shape: tuple[int, ...], dtype: np.dtype, blocks: Iterable[NDArray]) -> dict[str, Any]:
    """Return the entry of an array, given in consecutive blocks."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
    return {"shape": list(shape), "dtype": dtype.name, "sha256": digest.hexdigest()}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the differences between two fingerprints, in words."""
    found = []
    for name in dict.fromkeys([*then, *now]):
        before, after = then.get(name), now.get(name)
        if before == after:
            continue
        if before is None or after is None:
            found.append(f"{name[:_LONGEST]} {'are new' if before is None else 'are missing'}")
            continue
        then_text, now_text = _words(before), _words(after)
        changed = f"{then_text} then, {now_text} now" if then_text != now_text else "other values"
        found.append(f"{name[:_LONGEST]}: {changed}")
    return found


def _words(entry: Any) -> str:
    try:
        return f"{' × '.join(f'{n:,}' for n in entry['shape'])} {entry['dtype']}"[:_LONGEST]
    except (KeyError, TypeError, ValueError):
        return "no fingerprint"
