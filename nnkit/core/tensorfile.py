"""Arrays and their metadata in one safetensors file, with a SHA-256 over every byte of it.

safetensors itself does not notice a flipped bit. The digest stands in the file's own header and is taken over
the whole file, with zeros in its place.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.errors import FileError, ModelFileError
from nnkit.files import write_whole

__all__ = ["read_tensors", "write_tensors"]

_NO_DIGEST = "0" * 64
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')


def write_tensors(
    path: str | os.PathLike[str],
    kind: str,
    version: int,
    tensors: Mapping[str, NDArray],
    metadata: Mapping[str, Any],
) -> None:
    """Write arrays and JSON values.

    Parameters
    ----------
    path : path-like
        The file, written whole or not at all.
    kind : str
        What the file is, such as ``nnkit.model``; a reader asks for it.
    version : int
        Of the kind's format.
    tensors : mapping of str to ndarray
        The arrays.
    metadata : mapping of str to JSON value
        What else there is to keep.

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    from safetensors.numpy import save

    header = {key: json.dumps(value, allow_nan=False) for key, value in metadata.items()}
    header |= {"format": kind, "format_version": str(version), "sha256": _NO_DIGEST}
    data = save({name: np.ascontiguousarray(array) for name, array in tensors.items()}, header)
    digest = hashlib.sha256(data).hexdigest()
    blank, filled = (f'"sha256":"{value}"'.encode() for value in (_NO_DIGEST, digest))
    write_whole(path, data.replace(blank, filled, 1))


def read_tensors(
    path: str | os.PathLike[str], kind: str, version: int
) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """Read what `write_tensors` wrote.

    Parameters
    ----------
    path : path-like
        The file.
    kind, version
        What is expected; a file of a later version is refused.

    Returns
    -------
    tensors : dict of str to ndarray
    metadata : dict of str to JSON value

    Raises
    ------
    FileError
        If the file cannot be read.
    ModelFileError
        If it is not of this kind, was written by a later version, or is truncated or altered.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    header = _header(path, data, kind)
    found = _DIGEST.search(data)
    whole = data if found is None else data[: found.start(1)] + _NO_DIGEST.encode() + data[found.end(1) :]
    if found is None or hashlib.sha256(whole).hexdigest().encode() != found.group(1):
        raise ModelFileError(
            f"{path}: the file is truncated or altered (its SHA-256 does not match); restore it from a copy"
        )
    found_version = header.get("format_version", "")
    if not re.fullmatch("[0-9]{1,9}", found_version) or int(found_version) > version:
        raise ModelFileError(
            f"{path}: format version {found_version!r} is newer than this nnkit "
            f"reads ({version}); upgrade nnkit"
        )
    from safetensors import SafetensorError
    from safetensors.numpy import load

    own = ("format", "format_version", "sha256")
    try:
        return load(data), {key: json.loads(value) for key, value in header.items() if key not in own}
    except (SafetensorError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelFileError(f"{path}: the file cannot be read as {kind}: {error}") from error


def _header(path: str | os.PathLike[str], data: bytes, kind: str) -> dict[str, str]:
    """Return the metadata in the header: eight bytes of its length, then JSON."""
    length = int.from_bytes(data[:8], "little")
    try:
        if not 0 < length <= len(data) - 8:
            raise ValueError
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        if metadata.get("format") != kind:
            raise ValueError
    except (ValueError, AttributeError, RecursionError):
        raise ModelFileError(
            f"{path}: not a file of the kind {kind}, or cut off at its beginning; "
            "such a file is written by nnkit"
        ) from None
    return {str(key): str(value) for key, value in metadata.items()}
