"""What checks a backend of your own, and the operations that it is given.

`BackendContract` are pytest's tests of a backend; `check_operations` looks for mistakes in a list of
operations, and `in_python` returns what a kernel computes as a plain function. Only the first needs pytest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from nnkit.testing.operations import check_operations
from nnkit.testing.reference import in_python

if TYPE_CHECKING:
    from nnkit.testing.contract import BackendContract

__all__ = ["BackendContract", "check_operations", "in_python"]


def __getattr__(name: str) -> Any:
    if name != "BackendContract":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import pytest

    # So that a failure shows the values that were compared.
    pytest.register_assert_rewrite("nnkit.testing.contract")
    from nnkit.testing.contract import BackendContract

    return BackendContract
