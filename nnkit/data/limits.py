"""Limits on the size of an unpacked file, which can be more than any machine's memory, and of pictures."""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from nnkit.errors import DataError

__all__ = ["MOST_PICTURE_SIDE", "PICTURE_FITS", "check_size", "memory_limit", "readable"]

MOST_PICTURE_SIDE = 4096
"""The greatest height and width of a picture after it is resized."""
PICTURE_FITS = ("crop", "pad", "stretch")
"""The ways to make a picture of another shape fit."""
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def memory_limit() -> int:
    """Return the most bytes that one file's content may take: half of the memory of this process.

    On Windows, which has none of the limits that are checked here, it is half of the address space.
    """
    sizes = [sys.maxsize]
    if hasattr(os, "sysconf"):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # no control group, or the limit "max"
        sizes.append(int(_CGROUP.read_text(encoding="ascii")))
    with suppress(ImportError):  # the module is not there on Windows
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            sizes.append(soft)
    return min(sizes) // 2


def check_size(size: int, where: str) -> None:
    """Raise a DataError if `size` bytes are more than `memory_limit`."""
    most = memory_limit()
    if size > most:
        raise DataError(
            f"{where}: its content takes {readable(size)} unpacked, and this machine has room for "
            f"{readable(most)}: if the file is as it should be, give a part of it"
        )


def readable(size: int) -> str:
    """Return a number of bytes for a message."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**29 else f"{size / 2**20:.3g} MiB"
