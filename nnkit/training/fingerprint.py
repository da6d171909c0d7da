"""The fingerprint of the data a training sees: what must be the same when it is resumed."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.feed.features import Features

__all__ = ["differences", "fingerprint"]

_LONGEST = 60  # of a shape and a dtype in a message: they come from a file
Fingerprint = dict[str, dict[str, Any]]


def fingerprint(features: Features, targets: NDArray, weights: NDArray | None, rows: str) -> Fingerprint:
    """Return the shape, dtype and SHA-256 of every array.

    Parameters
    ----------
    features : Features
        As the device receives them.
    targets : ndarray
        Encoded.
    weights : ndarray of shape (samples,) or None
        Sample weights, class weights included.
    rows : str
        Which rows these are, such as ``training``; the names begin with it.
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
    """Return an array's entry; it comes in blocks, one after the other."""
    digest = hashlib.sha256()
    for block in blocks:
        digest.update(np.ascontiguousarray(block).reshape(-1).view(np.uint8).data)
    return {"shape": list(shape), "dtype": dtype.name, "sha256": digest.hexdigest()}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return in words what has changed between two fingerprints; empty if nothing has."""
    found = []
    for name in dict.fromkeys([*then, *now]):
        before, after = then.get(name), now.get(name)
        if before == after:
            continue
        if before is None or after is None:
            found.append(f"{name[:_LONGEST]} {'were not there' if before is None else 'are missing'}")
            continue
        told = [f"{_words(before)} then, {_words(after)} now"] if _words(before) != _words(after) else []
        found.append(f"{name[:_LONGEST]}: {told[0] if told else 'other values'}")
    return found


def _words(entry: Any) -> str:
    try:
        return f"{' × '.join(f'{n:,}' for n in entry['shape'])} {entry['dtype']}"[:_LONGEST]
    except (KeyError, TypeError, ValueError):
        return "no fingerprint"
