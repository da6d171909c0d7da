"""Print what the library logs."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from nnkit.cli.words import DATA_KEYS, with_option_names
from nnkit.working import hide_work

__all__ = ["printed_notes"]


class _Notes(logging.StreamHandler):
    """Writes below what is shown of the work under way, each note once, with keys in place of arguments."""

    def __init__(self, stream: TextIO) -> None:
        super().__init__(stream)
        self._told: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        if (message := record.getMessage()) in self._told:
            return
        self._told.add(message)
        hide_work()
        super().emit(record)

    def format(self, record: logging.LogRecord) -> str:
        return with_option_names(super().format(record), DATA_KEYS)


@contextmanager
def printed_notes(
    quiet: bool = False, stream: TextIO | None = None, level: int = logging.INFO
) -> Iterator[None]:
    """Print what the library logs, a line each, on standard output or another stream; or nothing of it."""
    handler: logging.Handler = logging.NullHandler() if quiet else _Notes(stream or sys.stdout)
    handler.setFormatter(logging.Formatter("%(message)s"))
    logger = logging.getLogger("nnkit")
    before = logger.level
    logger.addHandler(handler)
    logger.setLevel(level)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(before)
