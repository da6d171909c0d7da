"""The errors nnkit raises: each derives from NnkitError and from the built-in a caller would catch.

A message says in one or two lines what is wrong and how to fix it. Order: the errors, parts of messages,
handling several errors.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches

__all__ = [
    "AtEnd",
    "ConfigError",
    "DataError",
    "DeviceError",
    "DeviceMemoryError",
    "DivergenceError",
    "FileError",
    "FirstError",
    "ModelFileError",
    "NnkitError",
    "nearest_name",
    "shown",
    "unknown_name",
]


_LONGEST_SHOWN = 300


class NnkitError(Exception):
    """Base class of the errors that nnkit raises on purpose."""


class ConfigError(NnkitError, ValueError):
    """A setting that is unknown, of the wrong type, or out of its range."""


class DataError(NnkitError, ValueError):
    """Data that cannot be used for training or prediction."""


class FileError(NnkitError, OSError):
    """A file that is missing, unreadable or cannot be written."""


class ModelFileError(NnkitError, ValueError):
    """A model file that is truncated, altered, or not written by nnkit."""


class DeviceError(NnkitError, RuntimeError):
    """A requested device that cannot be used."""


class DeviceMemoryError(DeviceError, MemoryError):
    """An array that does not fit into a device's memory.

    Parameters
    ----------
    shortage : str
        How much was requested and how much is free, or the library's message.
    advice : str
        Which argument to change; by default those that determine the memory of a step.
    """

    def __init__(self, shortage: str, advice: str = "lower `batch_size`, or use narrower layers") -> None:
        super().__init__(f"{shortage}; {advice}")
        self.shortage = shortage


class DivergenceError(NnkitError, ArithmeticError):
    """A training whose loss is no longer a finite number."""


def shown(value: object) -> str:
    """Return a value for a message, shortened to a readable length: it may come from a file."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean x?" if one of the known names is similar, else nothing."""
    near = get_close_matches(name.lower(), list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


def unknown_name(kind: str, name: str, known: Iterable[str], where: str = "") -> ConfigError:
    """Return the error for an unknown name, which suggests the most similar known one.

    Parameters
    ----------
    kind : str
        What is named, such as "schedule".
    name : str
        The unknown name.
    known : iterable of str
        The known names, in the order to list them.
    where : str
        Text after the name, such as "of the schedule step".
    """
    names = list(known)
    hint = nearest_name(name, names) if names else "; it takes none"
    listing = f" (known: {', '.join(names)})" if names else ""
    return ConfigError(f"unknown {kind} {name!r}{' ' if where else ''}{where}{hint}{listing}")


class FirstError:
    """The first error of several actions that are all tried, even after a failure.

    Attributes
    ----------
    error : BaseException or None
        The first error; those that followed are notes on it. A second KeyboardInterrupt leaves none.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None

    @contextmanager
    def kept(self, action: str) -> Iterator[None]:
        """Catch and keep an error raised in this context; `action` names what failed."""
        try:
            yield
        except BaseException as error:
            self.keep(error, action)

    def keep(self, error: BaseException, action: str) -> None:
        """Keep an error if it is the first; else add a note on it to the first one."""
        if self.error is None:
            self.error = error
        else:
            _note(self.error, error, action)

    def raise_first(self) -> None:
        """Raise the first error, if there is one."""
        if self.error is not None:
            try:
                raise self.error
            finally:
                self.error = None  # its traceback holds this frame


class AtEnd:
    """A context that calls a function at its end, as ``finally`` does, without hiding an error raised in it.

    Parameters
    ----------
    call : function
        Its error becomes a note on the context's error, if there is one, and is raised otherwise.
    action : str
        Names what failed in the note.
    """

    def __init__(self, call: Callable[[], object], action: str) -> None:
        self._call = call
        self._action = action

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, first: BaseException | None, trace: object) -> None:
        try:
            self._call()
        except BaseException as error:
            if first is None:
                raise
            _note(first, error, self._action)


def _note(first: BaseException, error: BaseException, action: str) -> None:
    if not isinstance(error, KeyboardInterrupt):
        first.add_note(f"Then {action} failed too: {type(error).__name__}: {error}")
    elif not isinstance(first, KeyboardInterrupt):
        first.add_note(f"Then {action} was interrupted")
