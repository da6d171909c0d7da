"""Arrays and frames that lie on a GPU: brought to the host, and results back to where they came from."""

from __future__ import annotations

import sys
from typing import Any

from numpy.typing import NDArray

__all__ = ["from_device", "to_device_of"]


def from_device(values: Any) -> Any:
    """Return a CuPy array as a NumPy one, a cuDF frame as a pandas one, and all else as it is."""
    home = type(values).__module__.partition(".")[0]
    if home == "cupy":
        return values.get()
    return values.to_pandas() if home == "cudf" else values


def to_device_of(source: Any, result: NDArray) -> Any:
    """Return numbers on the GPU where `source` lies on one; text stays on the host."""
    on_device = type(source).__module__.partition(".")[0] in ("cupy", "cudf")
    return sys.modules["cupy"].asarray(result) if on_device and result.dtype.kind in "biuf" else result
