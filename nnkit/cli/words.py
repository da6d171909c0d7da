"""The library's messages on the command line: notes as printed lines, options in place of arguments."""

from __future__ import annotations

import logging
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from nnkit.working import hide_work

__all__ = ["DATA_KEYS", "printed_notes", "with_option_names"]

_TABLE_KEYS = (
    "separator header encoding decimal thousands missing comment skip_rows quote index weight positive types "
    "drop features task"
).split()
DATA_KEYS = {key: f"data.{key}" for key in _TABLE_KEYS}
"""The config keys for arguments of `read_table`."""

# A library error names an argument or a setting (`run.seed`) in backquotes, or begins with an argument:
# "seed = -1 must be a whole number ...".
_ARGUMENT = re.compile(r"`((?:(?:data|model|training|run)\.)?\w+)`|^(\w+)(?= = )", re.ASCII)


def with_option_names(message: str, options: dict[str, str]) -> str:
    """Return a library message with the command's options in place of the arguments that it names.

    Parameters
    ----------
    message : str
        Arguments and settings are in backquotes; an argument may also begin the message, before " = ".
    options : dict
        The option for an argument; others keep their names. A setting is looked up without its section:
        ``run.seed`` as ``seed``.
    """

    def written(found: re.Match[str]) -> str:
        name = found[1] or found[2]
        return options.get(name.rpartition(".")[2], name)

    return _ARGUMENT.sub(written, message)


class _Notes(logging.StreamHandler):
    """Writes each note once, with keys in place of arguments, and hides the progress line meanwhile."""

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
    """Print the library's log messages to `stream`, by default standard output; nothing if `quiet`."""
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
