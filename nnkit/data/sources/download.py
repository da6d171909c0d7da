"""Fetch a public file into the cache folder; nothing reads it before its digest is checked."""

from __future__ import annotations

import hashlib
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path

from nnkit.cache import write_cached
from nnkit.errors import FileError
from nnkit.working import working

__all__ = ["RemoteFile", "fetch"]

_TIMEOUT_SECONDS = 30
_CHUNK = 1 << 16
# The largest of the files is 30 MB; an answer that does not end is not ours.
_MOST_BYTES = 128 << 20


@dataclass(frozen=True)
class RemoteFile:
    """A file with its address and its digest.

    Parameters
    ----------
    url : str
    algorithm : str
        The name of the digest in `hashlib`.
    digest : str
        Hexadecimal.
    """

    url: str
    algorithm: str
    digest: str

    @property
    def name(self) -> str:
        """The file's name, the last part of the address."""
        return self.url.rsplit("/", 1)[-1]


def fetch(remote: RemoteFile, folder: Path, mend: str) -> Path:
    """Return the file in `folder`, downloaded where it is not there yet.

    Parameters
    ----------
    remote : RemoteFile
    folder : Path
        Made where it is missing.
    mend : str
        What the user can do instead, the end of the message when the download fails.

    Raises
    ------
    FileError
        Where it cannot be downloaded or written, or is not the file that is request.
    """
    path = folder / remote.name
    try:
        if not path.exists():
            write_cached(path, _downloaded(remote))
        digest = hashlib.new(remote.algorithm, usedforsecurity=False)
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except _DownloadError as error:
        raise FileError(f"cannot download {remote.url} into {folder} ({error}): {mend}") from None
    except FileError:
        raise
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None
    if digest.hexdigest() != remote.digest:
        raise FileError(
            f"{path}: its {remote.algorithm} digest is not that of {remote.url}: delete it and try again"
        )
    return path


class _DownloadError(Exception):
    """Why the other side sent nothing."""


def _downloaded(remote: RemoteFile) -> Iterator[bytes]:
    """Yield the file's content, and end normally only if the digest is right."""
    digest = hashlib.new(remote.algorithm, usedforsecurity=False)
    received = 0
    try:
        with (
            working(f"downloading {remote.name}", unit="bytes") as work,
            urllib.request.urlopen(remote.url, timeout=_TIMEOUT_SECONDS) as answer,
        ):
            while chunk := answer.read(_CHUNK):
                received += len(chunk)
                work.advance(len(chunk))
                if received > _MOST_BYTES:
                    raise FileError(f"{remote.url}: the answer is larger than any file that is wanted")
                digest.update(chunk)
                yield chunk
    except FileError:
        raise
    except (OSError, ValueError, HTTPException) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise _DownloadError(reason) from error
    if digest.hexdigest() != remote.digest:
        raise FileError(
            f"{remote.url}: the {remote.algorithm} digest of what came is wrong: it was cut short "
            "or altered, try again"
        )
