"""Text for a terminal: its width, and numbers and times in few characters."""

from __future__ import annotations

import math
import os
from typing import TextIO

__all__ = ["duration", "number", "number_apart", "terminal_width"]

_USUAL_WIDTH = 80  # of a terminal that does not tell, and of a file
_LEAST_WIDTH = 20
_MOST_EXTRA = 6  # additional digits, to tell two numbers apart


def terminal_width(file: TextIO) -> int:
    """Return the width in columns: ``COLUMNS``, else the terminal's, else 80."""
    given = os.environ.get("COLUMNS", "")
    if given.isdecimal() and int(given) > 0:
        return max(int(given), _LEAST_WIDTH)
    try:
        width = os.get_terminal_size(file.fileno()).columns
    except (AttributeError, OSError, ValueError):
        width = 0  # no terminal, or one that does not tell its width
    return max(width or _USUAL_WIDTH, _LEAST_WIDTH)


def duration(seconds: float) -> str:
    """Return a time in short: 0.9 s, 12 s, 3 min 20 s, 1 h 05 min."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02d} min"


def number(value: float, extra: int = 0) -> str:
    """Return a number with at least four digits and `extra` more, six characters wide if possible."""
    size = abs(value)
    if not math.isfinite(value):
        return f"{value:6}"
    if size == 0 or 1e-3 <= size < 1e6:
        decimals = 4 if size < 10 else 2 if size < 100 else 1 if size < 1000 else 0
        if 0.9 < size < 1:
            # Two digits of the distance from 1.
            decimals = max(decimals, min(1 - math.floor(math.log10(1 - size)), 10))
        return f"{value:6,.{decimals + extra}f}"
    digits, exponent = f"{value:.{3 + extra}e}".split("e")
    return f"{digits}e{int(exponent)}"


def number_apart(value: float, other: float) -> str:
    """Return a number with enough digits to tell it apart from another one, up to ten significant digits."""
    texts = [number(value, extra) for extra in range(_MOST_EXTRA + 1)]
    if value == other or not math.isfinite(value):
        return texts[0]
    return next((text for extra, text in enumerate(texts) if text != number(other, extra)), texts[0])
