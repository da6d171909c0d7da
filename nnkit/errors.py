"""The errors nnkit raises: each derives from NnkitError and from the built-in a caller would catch.

A message names the thing that is wrong and the mend, in one or two lines.
"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

__all__ = [
    "ConfigError",
    "DataError",
    "DeviceError",
    "DeviceMemoryError",
    "DivergenceError",
    "FileError",
    "ModelFileError",
    "NnkitError",
    "shown",
    "unknown_name",
]


_LONGEST_SHOWN = 300


class NnkitError(Exception):
    """Base of every error that nnkit raises on purpose."""


class ConfigError(NnkitError, ValueError):
    """A setting that is unknown, of the wrong type, or out of its range."""


class DataError(NnkitError, ValueError):
    """Data that cannot be trained on or predicted from as they are."""


class FileError(NnkitError, OSError):
    """A file that is missing, unreadable or cannot be written."""


class ModelFileError(NnkitError, ValueError):
    """A model file that is truncated, altered, or not one of ours."""


class DeviceError(NnkitError, RuntimeError):
    """A device that was asked for and cannot be used."""


class DeviceMemoryError(DeviceError, MemoryError):
    """An array that does not fit into a device's memory.

    Parameters
    ----------
    shortage : str
        How much was asked, and how much is free.
    mend : str
        Which argument to change; by default those that a step's memory grows with.
    """

    def __init__(self, shortage: str, mend: str = "lower `batch_size`, or use narrower layers") -> None:
        super().__init__(f"{shortage}; {mend}")
        self.shortage = shortage


class DivergenceError(NnkitError, ArithmeticError):
    """A training whose loss is no longer a finite number."""


def shown(value: object) -> str:
    """Return a value for a message, at a length that can be read: it may come from a file."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> ConfigError:
    """Return the error for a name that is not among the known ones, with the nearest of them.

    Parameters
    ----------
    kind : str
        What the name should be the name of, such as "schedule".
    name : str
        The name given.
    known : iterable of str
        The names there are, in the order to list them.
    where : str
        Said after the name, such as "of the schedule step".
    """
    names = list(known)
    near = get_close_matches(name.lower(), names, n=1)
    hint = f"; did you mean {near[0]}?" if near else "; it takes none" if not names else ""
    listing = f" (known: {', '.join(names)})" if names else ""
    return ConfigError(f"unknown {kind} {name!r}{' ' if where else ''}{where}{hint}{listing}")
