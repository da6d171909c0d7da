"""What people read on a terminal: how wide it is, and times in words."""

from __future__ import annotations

import os
from typing import TextIO

__all__ = ["duration", "terminal_width"]

_USUAL_WIDTH = 80  # of a terminal, and of what is written to a file
_LEAST_WIDTH = 20


def terminal_width(file: TextIO) -> int:
    """Return how many columns there are to write in: ``COLUMNS``, else the terminal's, else 80."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return max(int(given), _LEAST_WIDTH)
    try:
        width = os.get_terminal_size(file.fileno()).columns
    except (AttributeError, OSError, ValueError):
        width = 0  # no terminal, or one that does not know
    return max(width or _USUAL_WIDTH, _LEAST_WIDTH)


def duration(seconds: float) -> str:
    """Return a time as a person says it: 0.9 s, 12 s, 3 min 20 s, 1 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"
