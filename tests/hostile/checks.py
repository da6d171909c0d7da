"""What is asked of a reader for any input, and how many inputs of Hypothesis's it is asked for."""

from __future__ import annotations

import pickle
import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from hostile.readers import READERS, Reader
from nnkit.errors import NnkitError

__all__ = ["LONGEST_MESSAGE", "RANDOMS", "SETTINGS", "Trap", "endure"]

LONGEST_MESSAGE = 2000

# The same inputs each time; bench/hostile.py takes many more, of the same makers.
SETTINGS = settings(
    max_examples=100,
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
RANDOMS = st.integers(0, 2**64 - 1)


def endure(reader: Reader | str, data: bytes) -> NnkitError | None:
    """Feed an input; return the NnkitError it ends with, or None. Anything else is raised, warnings too."""
    reader = READERS[reader] if isinstance(reader, str) else reader
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("error")
        error = reader.feed(data, Path(folder))
    assert error is None or 0 < len(str(error)) <= LONGEST_MESSAGE
    return error


class Trap:
    """An object whose pickle writes a file when it is loaded.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self._path, "loaded")

    def pickled(self) -> bytes:
        """Return the pickle."""
        return pickle.dumps(self)
