"""Arrays and metadata in one safetensors file, with a SHA-256 digest.

safetensors itself does not notice a flipped bit. The digest is in the file's header, and covers the whole
file with zeros in place of the digest.
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
from nnkit.nesting import is_too_deep

__all__ = ["read_metadata", "read_tensors", "write_tensors"]

_NO_DIGEST = "0" * 64
_LONGEST_REASON = 400
_TYPES = {f"{kind}{size}": f"{kind.upper()}{8 * size}" for kind in "fiu" for size in (1, 2, 4, 8)}
_TYPES["b1"] = "BOOL"
_DIGEST = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_OWN_KEYS = ("format", "format_version", "sha256")
_LARGEST_HEADER = 2**27


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
        The kind of file, such as ``nnkit.model``, which a reader must request.
    version : int
        The version of the kind's format.
    tensors : mapping of str to ndarray
    metadata : mapping of str to JSON value

    Raises
    ------
    FileError
        If the file cannot be written.
    """
    # Wide types first, so that every array is aligned.
    ordered = sorted(tensors.items(), key=lambda item: -item[1].dtype.itemsize)
    arrays = {name: np.ascontiguousarray(array) for name, array in ordered}
    texts = {key: json.dumps(value, allow_nan=False) for key, value in metadata.items()}
    texts |= {"format": kind, "format_version": str(version), "sha256": _NO_DIGEST}
    header = _written_header(arrays, texts)
    # Views, not copies: a network may fill half the memory.
    buffers = [array.reshape(-1).view(np.uint8).data for array in arrays.values()]
    digest = hashlib.sha256(header)
    for buffer in buffers:
        digest.update(buffer)
    blank, filled = (f'"sha256":"{value}"'.encode() for value in (_NO_DIGEST, digest.hexdigest()))
    write_whole(path, [header.replace(blank, filled, 1), *buffers])


def _written_header(arrays: Mapping[str, NDArray], texts: Mapping[str, str]) -> bytes:
    """Return the header of a safetensors file: the length of its JSON, and the JSON.

    The format is https://huggingface.co/docs/safetensors. The library's own `save` holds the whole file in
    memory, and orders the metadata differently at each call.
    """
    entries: dict[str, Any] = {"__metadata__": dict(texts)}
    offset = 0
    for name, array in arrays.items():
        if array.dtype.str[1:] not in _TYPES:
            raise TypeError(f"{name}: safetensors has no type for {array.dtype}")
        span = [offset, offset + array.nbytes]
        kind = _TYPES[array.dtype.str[1:]]
        entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": span}
        offset = span[1]
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


def read_tensors(
    path: str | os.PathLike[str], kind: str, version: int
) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """Read a file of `write_tensors`.

    Parameters
    ----------
    path : path-like
    kind, version
        The expected kind, and the latest version that can be read.

    Returns
    -------
    tensors : dict of str to ndarray
    metadata : dict of str to JSON value

    Raises
    ------
    FileError
        If the file cannot be read.
    ModelFileError
        If it is of another kind or a later version, or is truncated or altered.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    header = _header(path, data, kind)
    found = _DIGEST.search(data)
    if found is None or _digest(data, found.start(1)) != found.group(1):
        raise ModelFileError(
            f"{path}: the file is truncated or altered (its SHA-256 does not match); restore it from a copy"
        )
    found_version = header.get("format_version", "")
    if not re.fullmatch("[0-9]{1,9}", found_version) or int(found_version) > version:
        raise ModelFileError(
            f"{path}: format version {found_version[:20]!r} is newer than this nnkit "
            f"reads ({version}); upgrade nnkit"
        )
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        metadata = {key: json.loads(value) for key, value in header.items() if key not in _OWN_KEYS}
        if is_too_deep(metadata):
            raise ValueError("its metadata is nested too deeply")
        return load(data), metadata
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ModelFileError(
            f"{path}: the file cannot be read as {kind}: {str(error)[:_LONGEST_REASON]}"
        ) from error


def read_metadata(path: str | os.PathLike[str], kind: str) -> dict[str, Any]:
    """Read only the metadata of a file of `write_tensors`, without a check of the digest; errors as there."""
    try:
        with open(path, "rb") as file:
            start = file.read(8)
            data = start + file.read(min(int.from_bytes(start, "little"), _LARGEST_HEADER))
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    header = _header(path, data, kind)
    try:
        return {key: json.loads(value) for key, value in header.items() if key not in _OWN_KEYS}
    except (ValueError, RecursionError) as error:
        raise ModelFileError(f"{path}: the file cannot be read as {kind}") from error


def _digest(data: bytes, place: int) -> bytes:
    """Return the digest of a file's bytes, with zeros in place of the digest at `place`."""
    digest = hashlib.sha256(memoryview(data)[:place])
    digest.update(_NO_DIGEST.encode())
    digest.update(memoryview(data)[place + len(_NO_DIGEST) :])
    return digest.hexdigest().encode()


def _header(path: str | os.PathLike[str], data: bytes, kind: str) -> dict[str, str]:
    """Return the metadata in the header: eight bytes of its length, then its JSON."""
    length = int.from_bytes(data[:8], "little")
    try:
        if not 0 < length <= len(data) - 8:
            raise ValueError
        metadata = json.loads(data[8 : 8 + length]).get("__metadata__", {})
        if metadata.get("format") != kind:
            raise ValueError
    except (ValueError, AttributeError, RecursionError):
        raise ModelFileError(
            f"{path}: not a file of the kind {kind}, which nnkit writes, or truncated in its header"
        ) from None
    return {str(key): str(value) for key, value in metadata.items()}
