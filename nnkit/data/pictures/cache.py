"""Decode many pictures in a pool of threads, once: the result is kept as one array that is mapped.

It lies in the cache's folder under a hash of all it is made of (the files' paths, sizes and times of change,
what they are made into, Pillow's version) and is written whole or not at all: two processes at once write the
same bytes. The arrays used least recently make way for new ones.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.blas import usable_cores
from nnkit.cache import MEND, cache_folder, write_cached
from nnkit.data.limits import readable
from nnkit.data.pictures.columns import PictureSettings, shown_path
from nnkit.errors import DataError, FileError
from nnkit.working import working

__all__ = ["Decoded", "decode_pictures"]

_VERSION = 1  # of how a picture becomes an array
_BLOCK_BYTES, _MOST_AT_ONCE = 1 << 20, 32
# What is decoded for a prediction is not worth a file unless it is large.
_LEAST_KEPT = 64 << 20
_MOST_KEPT = 16 << 30


@dataclass
class _Findings:
    """What is found out about pictures as they are decoded."""

    bad: dict[int, str] = field(default_factory=dict)
    highest: int = 0

    def observe(self, value: int) -> None:
        self.highest = max(self.highest, value)


@dataclass(frozen=True)
class Decoded:
    """Pictures in an array.

    Parameters
    ----------
    pixels : ndarray of shape (files, channels · height · width), uint8
        Mapped from the cache, or in memory.
    bad : dict of int to str
        Why a file has no picture, by its place; its row is 0.
    highest : int
        The greatest value in pictures with 16 bits; 0 where there are none.
    origin : str
        What was done, for the user.
    """

    pixels: NDArray[np.uint8]
    bad: dict[int, str] = field(default_factory=dict)
    highest: int = 0
    origin: str = ""


def decode_pictures(
    paths: Sequence[Path], settings: PictureSettings, *, skip: bool = False, keep: bool = True
) -> Decoded:
    """Decode files, or read what an earlier call has decoded.

    Parameters
    ----------
    paths : sequence of Path
        The files.
    settings : PictureSettings
        What they are made into.
    skip : bool
        Whether files that cannot be decoded are told of in the result; else the first of them is an error.
    keep : bool
        Whether to keep the array in the cache's folder however small it is.

    Raises
    ------
    DataError
        If a file cannot be decoded, or none can; the message names it.
    FileError
        If the array cannot be written.
    """
    began = time.perf_counter()
    signs = [_signs(path) for path in paths]
    size = len(paths) * settings.count
    if not keep and size < _LEAST_KEPT:
        pixels = np.empty((len(paths), settings.count), np.uint8)
        findings = _Findings()
        start = 0
        for block in _decoded(paths, signs, settings, skip, findings):
            pixels[start : start + len(block)] = block
            start += len(block)
        origin = f"decoded in {time.perf_counter() - began:.1f} s"
        return Decoded(pixels, findings.bad, findings.highest, origin)
    path = cache_folder() / "pictures" / f"{_fingerprint(paths, signs, settings)}.npy"
    found = _kept(path, (len(paths), settings.count))
    if found is not None and (skip or not found.bad):
        seconds = time.perf_counter() - began
        return replace(found, origin=f"read from the cache in {seconds:.2f} s")
    _make_room(path.parent, size)
    write_cached(path, _file(path, paths, signs, settings, skip))
    found = _kept(path, (len(paths), settings.count))
    if found is None:
        raise FileError(f"{path}: vanished as soon as it was written: {MEND}")
    seconds = time.perf_counter() - began
    return replace(found, origin=f"decoded in {seconds:.1f} s, {readable(size)} kept in {path.parent}")


# --- the pool ---


def _signs(path: Path) -> tuple[int, int]:
    """Return a file's size and time of change; zeros where it cannot be looked at, which the decoder says."""
    with suppress(OSError, ValueError):
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    return 0, 0


def _decoded(
    paths: Sequence[Path],
    signs: Sequence[tuple[int, int]],
    settings: PictureSettings,
    skip: bool,
    findings: _Findings,
) -> Iterator[NDArray[np.uint8]]:
    """Yield the pictures in blocks, in the files' order; add to `findings` those that have none."""
    from nnkit.data.pictures.decoding import pillow_is_quiet

    step = max(1, min(_MOST_AT_ONCE, _BLOCK_BYTES // settings.count))
    starts = iter(range(0, len(paths), step))
    threads = max(1, min(usable_cores(), -(-len(paths) // step)))
    ended = threading.Event()
    jobs: deque[Future] = deque()

    def begin(pool: ThreadPoolExecutor) -> None:
        if (start := next(starts, None)) is not None:
            place = slice(start, start + step)
            jobs.append(pool.submit(_block, start, paths[place], signs[place], settings, ended))

    decoding = working("decoding", len(paths), "pictures")
    with decoding as work, pillow_is_quiet(), ThreadPoolExecutor(threads, "nnkit-pictures") as pool:
        try:
            for _ in range(2 * threads):
                begin(pool)
            while jobs:
                block, found = jobs.popleft().result()
                findings.observe(found.highest)
                for place, reason in found.bad.items():
                    if not skip:
                        raise DataError(_refusal(paths[place], reason))
                    findings.bad[place] = reason
                begin(pool)
                work.advance(len(block))
                yield block
        finally:
            ended.set()
            for job in jobs:
                job.cancel()
    if len(findings.bad) == len(paths):
        first = f"{shown_path(paths[0])}: {findings.bad[0]}"
        raise DataError(f"none of the {len(paths):,} pictures can be read, first {first}")


def _refusal(path: Path, reason: str) -> str:
    mend = 'Repair or remove the picture, or do without it by `on_bad` = "skip"'
    return f"{shown_path(path)}: {reason}\n{mend}"


def _block(
    start: int,
    paths: Sequence[Path],
    signs: Sequence[tuple[int, int]],
    settings: PictureSettings,
    ended: threading.Event,
) -> tuple[NDArray[np.uint8], _Findings]:
    from nnkit.data.pictures.decoding import decode_file

    block = np.zeros((len(paths), settings.count), np.uint8)
    findings = _Findings()
    for place, path in enumerate(paths):
        if ended.is_set():
            break
        try:
            block[place] = decode_file(path, settings, signs[place], findings.observe).reshape(-1)
        except DataError as error:
            findings.bad[start + place] = str(error)
    return block, findings


# --- the file ---


def _fingerprint(paths: Sequence[Path], signs: Sequence[tuple[int, int]], settings: PictureSettings) -> str:
    from PIL import __version__ as pillow

    head = {"version": _VERSION, "Pillow": pillow, **asdict(settings)}
    digest = hashlib.sha256(json.dumps(head).encode())
    for path, sign in zip(paths, signs, strict=True):
        digest.update(json.dumps([os.path.abspath(path), *sign]).encode())
    return digest.hexdigest()[:32]


def _file(
    path: Path,
    paths: Sequence[Path],
    signs: Sequence[tuple[int, int]],
    settings: PictureSettings,
    skip: bool,
) -> Iterator[bytes | memoryview]:
    """Yield the parts of an .npy file; what says which of its rows are bad is written before it ends."""
    header = io.BytesIO()
    shape = (len(paths), settings.count)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    yield header.getvalue()
    findings = _Findings()
    for block in _decoded(paths, signs, settings, skip, findings):
        yield block.reshape(-1).data
    write_cached(path.with_suffix(".json"), json.dumps(asdict(findings)).encode())


def _kept(path: Path, shape: tuple[int, int]) -> Decoded | None:
    """Return what lies in the cache, mapped; None where it is missing or not what it should be."""
    try:
        findings = json.loads(path.with_suffix(".json").read_bytes())
        pixels: Any = np.load(path, mmap_mode="r", allow_pickle=False)
        if pixels.shape != shape or pixels.dtype != np.uint8 or not pixels.flags.c_contiguous:
            return None
        bad = {int(place): str(reason) for place, reason in findings["bad"].items()}
        found = Decoded(pixels, bad, int(findings["highest"]))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, EOFError):
        return None
    with suppress(OSError):
        os.utime(path)  # it was used now
    return found


def _make_room(folder: Path, size: int) -> None:
    """Remove the arrays used least recently where a new one would be too many, and see that it has room."""
    with suppress(OSError):
        ages = sorted((item.stat().st_mtime_ns, item.stat().st_size, item) for item in folder.glob("*.npy"))
        total = size + sum(length for _, length, _ in ages)
        for _, length, item in ages:
            if total > _MOST_KEPT:
                item.unlink(missing_ok=True)
                item.with_suffix(".json").unlink(missing_ok=True)
                total -= length
    near = folder
    while not near.exists() and near != near.parent:
        near = near.parent
    with suppress(OSError):
        free = shutil.disk_usage(near).free
        if free < size:
            raise DataError(
                f"{folder}: the decoded pictures take {readable(size)} and {readable(free)} are free: "
                "set NNKIT_CACHE to a folder with more room, or a smaller image_size"
            )
