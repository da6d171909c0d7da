"""Decode many pictures in a pool of threads, once: the result is kept as one array that is mapped.

Its name in the cache folder is a hash of the files' paths, sizes and times of change, the settings and
Pillow's version. It is written whole or not at all, so two processes may write it at once. New arrays
replace those used least recently.
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
from nnkit.cache import ADVICE, cache_folder, write_cached
from nnkit.data.limits import readable
from nnkit.data.pictures.columns import PictureSettings, shown_path
from nnkit.errors import DataError, FileError
from nnkit.working import working

__all__ = ["Decoded", "decode_pictures"]

_VERSION = 1  # of the way in which a picture becomes an array
_BLOCK_BYTES, _MOST_AT_ONCE = 1 << 20, 32
# The pictures of a prediction are not worth a file unless they are many.
_LEAST_KEPT = 64 << 20
_MOST_KEPT = 16 << 30  # bytes of all arrays in the cache

_Stamp = tuple[int, int]  # a file's size and time of change


@dataclass
class _Findings:
    """The reasons why files have no picture, and the greatest value of pictures with 16 bits."""

    bad: dict[int, str] = field(default_factory=dict)
    highest: int = 0

    def observe(self, value: int) -> None:
        self.highest = max(self.highest, value)


@dataclass(frozen=True)
class Decoded:
    """Pictures in an array, which is mapped from the cache, or in memory."""

    pixels: NDArray[np.uint8]  # of shape (files, channels · height · width)
    bad: dict[int, str] = field(default_factory=dict)  # by position: why a file has no picture; its row is 0
    highest: int = 0  # the greatest value of pictures with 16 bits
    origin: str = ""  # for the user


def decode_pictures(
    paths: Sequence[Path], settings: PictureSettings, *, skip: bool = False, keep: bool = True
) -> Decoded:
    """Decode files, or read the result of an earlier call.

    With `skip`, files that cannot be decoded are listed in the result; without it, or if none can be decoded,
    the first one is a DataError. With `keep`, the array is kept in the cache even if it is small.
    """
    began = time.perf_counter()
    stamps = [_stamp(path) for path in paths]
    shape = (len(paths), settings.count)
    size = len(paths) * settings.count

    def seconds() -> float:
        return time.perf_counter() - began

    if not keep and size < _LEAST_KEPT:
        pixels, findings, start = np.empty(shape, np.uint8), _Findings(), 0
        for block in _decoded(paths, stamps, settings, skip, findings):
            pixels[start : start + len(block)] = block
            start += len(block)
        return Decoded(pixels, findings.bad, findings.highest, f"decoded in {seconds():.1f} s")
    path = cache_folder() / "pictures" / f"{_fingerprint(paths, stamps, settings)}.npy"
    found = _kept(path, shape)
    if found is not None and (skip or not found.bad):
        return replace(found, origin=f"read from the cache in {seconds():.2f} s")
    _make_room(path.parent, size)
    write_cached(path, _file(path, paths, stamps, settings, skip))
    found = _kept(path, shape)
    if found is None:
        raise FileError(f"{path}: vanished as soon as it was written: {ADVICE}")
    return replace(found, origin=f"decoded in {seconds():.1f} s, {readable(size)} kept in {path.parent}")


# --- the pool ---


def _stamp(path: Path) -> _Stamp:
    """Return a file's size and time of change; zeros where it is not readable, which the decoder reports."""
    with suppress(OSError, ValueError):
        status = path.stat()
        return status.st_size, status.st_mtime_ns
    return 0, 0


def _decoded(
    paths: Sequence[Path],
    stamps: Sequence[_Stamp],
    settings: PictureSettings,
    skip: bool,
    findings: _Findings,
) -> Iterator[NDArray[np.uint8]]:
    """Yield the pictures in blocks, in the files' order, and fill `findings`."""
    from nnkit.data.pictures.decoding import pillow_is_quiet

    step = max(1, min(_MOST_AT_ONCE, _BLOCK_BYTES // settings.count))
    starts = iter(range(0, len(paths), step))
    threads = max(1, min(usable_cores(), -(-len(paths) // step)))
    ended = threading.Event()
    jobs: deque[Future] = deque()

    def begin(pool: ThreadPoolExecutor) -> None:
        if (start := next(starts, None)) is not None:
            place = slice(start, start + step)
            jobs.append(pool.submit(_block, start, paths[place], stamps[place], settings, ended))

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
                        advice = 'Repair or remove the picture, or do without it by `on_bad` = "skip"'
                        raise DataError(f"{shown_path(paths[place])}: {reason}\n{advice}")
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


def _block(
    start: int,
    paths: Sequence[Path],
    stamps: Sequence[_Stamp],
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
            block[place] = decode_file(path, settings, stamps[place], findings.observe).reshape(-1)
        except DataError as error:
            findings.bad[start + place] = str(error)
    return block, findings


# --- the file ---


def _fingerprint(paths: Sequence[Path], stamps: Sequence[_Stamp], settings: PictureSettings) -> str:
    from PIL import __version__ as pillow

    head = {"version": _VERSION, "Pillow": pillow, **asdict(settings)}
    digest = hashlib.sha256(json.dumps(head).encode())
    for path, sign in zip(paths, stamps, strict=True):
        digest.update(json.dumps([os.path.abspath(path), *sign]).encode())
    return digest.hexdigest()[:32]


def _file(
    path: Path, paths: Sequence[Path], stamps: Sequence[_Stamp], settings: PictureSettings, skip: bool
) -> Iterator[bytes | memoryview]:
    """Yield the parts of an .npy file, and write its findings beside it before it ends."""
    header = io.BytesIO()
    shape = (len(paths), settings.count)
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": shape})
    yield header.getvalue()
    findings = _Findings()
    for block in _decoded(paths, stamps, settings, skip, findings):
        yield block.reshape(-1).data
    write_cached(path.with_suffix(".json"), json.dumps(asdict(findings)).encode())


def _kept(path: Path, shape: tuple[int, int]) -> Decoded | None:
    """Return an array from the cache, mapped; None where it is missing or not as it should be."""
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
        os.utime(path)  # marks its last use
    return found


def _make_room(folder: Path, size: int) -> None:
    """Remove the arrays used least recently to make room for a new one, or raise where the disk has none."""
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
