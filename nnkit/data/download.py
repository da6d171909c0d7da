"""Fetch a public file into the cache folder; nothing reads it before its digest is checked."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from nnkit.errors import FileError
from nnkit.working import working

__all__ = ["RemoteFile", "cache_folder", "fetch"]

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


def cache_folder() -> Path:
    """Return the folder for downloads: NNKIT_CACHE, or nnkit in XDG_CACHE_HOME or ~/.cache."""
    if own := os.environ.get("NNKIT_CACHE"):
        return Path(own).expanduser()
    shared = os.environ.get("XDG_CACHE_HOME")
    return (Path(shared) if shared else Path.home() / ".cache") / "nnkit"


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
        Where it cannot be downloaded or written, or is not the file that is wanted.
    """
    path = folder / remote.name
    try:
        if not path.exists():
            folder.mkdir(parents=True, exist_ok=True)
            _download(remote, path)
        digest = hashlib.new(remote.algorithm, usedforsecurity=False)
        with path.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except FileError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise FileError(f"cannot download {remote.url} into {folder} ({reason}): {mend}") from None
    if digest.hexdigest() != remote.digest:
        raise FileError(
            f"{path}: its {remote.algorithm} digest is not that of {remote.url}: delete it and try again"
        )
    return path


def _download(remote: RemoteFile, path: Path) -> None:
    """Write the whole file or nothing, and only if the digest is right."""
    digest = hashlib.new(remote.algorithm, usedforsecurity=False)
    received = 0
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with (
            working(f"downloading {remote.name}", unit="bytes") as work,
            os.fdopen(handle, "wb") as out,
            urllib.request.urlopen(remote.url, timeout=_TIMEOUT_SECONDS) as answer,
        ):
            while chunk := answer.read(_CHUNK):
                received += len(chunk)
                work.advance(len(chunk))
                if received > _MOST_BYTES:
                    raise FileError(f"{remote.url}: the answer is larger than any file that is wanted")
                digest.update(chunk)
                out.write(chunk)
            out.flush()
            os.fsync(out.fileno())
        if digest.hexdigest() != remote.digest:
            raise FileError(
                f"{remote.url}: the {remote.algorithm} digest of what came is wrong: it was cut short "
                "or altered, try again"
            )
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
