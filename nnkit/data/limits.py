"""How much a file may unpack to, and a picture be made into.

A small file can claim, or hold, more than any machine's memory.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path

from nnkit.errors import DataError

__all__ = ["MOST_PICTURE_SIDE", "PICTURE_FITS", "check_size", "memory_limit", "readable"]

MOST_PICTURE_SIDE = 4096
"""The greatest height and width of what a picture is made into."""
PICTURE_FITS = ("crop", "pad", "stretch")
"""How a picture of another shape is made to fit."""
_CGROUP = Path("/sys/fs/cgroup/memory.max")


def memory_limit() -> int:
    """Return the most bytes that one file's content may take: half of what this process may have.

    Windows tells none of the limits that are looked at here: there the address space is the limit.
    """
    sizes = [sys.maxsize]
    if hasattr(os, "sysconf"):
        sizes.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, ValueError):  # no control group, or one whose limit is the word "max"
        sizes.append(int(_CGROUP.read_text(encoding="ascii")))
    with suppress(ImportError):  # the module is not there on Windows
        import resource

        soft, _ = resource.getrlimit(resource.RLIMIT_AS)
        if soft != resource.RLIM_INFINITY:
            sizes.append(soft)
    return min(sizes) // 2


def check_size(size: int, where: str) -> None:
    """Raise a DataError if so many bytes are more than `memory_limit`."""
    most = memory_limit()
    if size > most:
        raise DataError(
            f"{where}: its content takes {readable(size)} unpacked, and this machine has room for "
            f"{readable(most)}: if the file is what it should be, give a part of it"
        )


def readable(size: int) -> str:
    """Return a number of bytes for a message."""
    return f"{size / 2**30:.3g} GiB" if size >= 2**29 else f"{size / 2**20:.3g} MiB"
