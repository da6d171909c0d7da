"""The errors nnkit raises: each derives from NnkitError and from the built-in a caller would catch.

A message says in one or two lines what is wrong and how to fix it. Order: the errors, texts of
messages, which one of several errors is raised.
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
        How much was requested and how much is free, or the library's own message.
    advice : str
        Which argument to change; by default those that a step's memory grows with.
    """

    def __init__(self, shortage: str, advice: str = "lower `batch_size`, or use narrower layers") -> None:
        super().__init__(f"{shortage}; {advice}")
        self.shortage = shortage


class DivergenceError(NnkitError, ArithmeticError):
    """A training whose loss is no longer a finite number."""


def shown(value: object) -> str:
    """Return a value for a message, at a length that can be read: it may come from a file."""
    text = repr(value)
    return text if len(text) <= _LONGEST_SHOWN else text[:_LONGEST_SHOWN] + "…"


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return "; did you mean x?" where one of the known names is near, else nothing."""
    near = get_close_matches(name.lower(), list(known), n=1)
    return f"; did you mean {near[0]}?" if near else ""


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
    hint = nearest_name(name, names) if names else "; it takes none"
    listing = f" (known: {', '.join(names)})" if names else ""
    return ConfigError(f"unknown {kind} {name!r}{' ' if where else ''}{where}{hint}{listing}")


class FirstError:
    """The first error of several actions, each of which is tried even if those before it failed.

    Attributes
    ----------
    error : BaseException or None
        The first error; those that followed are notes on it. A second KeyboardInterrupt leaves none.
    """

    def __init__(self) -> None:
        self.error: BaseException | None = None

    @contextmanager
    def kept(self, action: str) -> Iterator[None]:
        """Keep an error raised in this context; `action` names what failed."""
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
    """A context that makes a call at its end, as ``finally`` does, but never hides an error raised in it.

    Parameters
    ----------
    call : function
        Its error is raised where the context has none, and is else a note on that one, as in `FirstError`.
    action : str
        Names what failed.
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
