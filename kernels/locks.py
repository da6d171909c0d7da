"""The lock under which kernels are made and loaded, which no fork of the process leaves locked.

A fork copies a lock as it is, but not the thread that holds it: the child would wait for it forever. So a
fork waits until no other thread loads a kernel, compiles with Numba or calls LLVM, and itself holds these
locks while it lasts.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["loading"]

loading = threading.RLock()
"""Held while a kernel is written, imported or loaded, and while Numba or LLVM is imported for it."""

_held: list[Any] = []


def _others() -> Iterator[Any]:
    """Yield the locks of Numba and of llvmlite, if imported, in the order in which compiling takes them."""
    for module, names in (
        ("numba.core.compiler_lock", ("global_compiler_lock",)),
        ("llvmlite.binding.ffi", ("lib", "_lock")),
    ):
        found: Any = sys.modules.get(module)
        for name in names:
            found = getattr(found, name, None)
        if hasattr(found, "__enter__"):
            yield found


def _acquire() -> None:
    loading.acquire()
    for lock in _others():
        lock.__enter__()
        _held.append(lock)


def _release() -> None:
    while _held:
        _held.pop().__exit__(None, None, None)
    loading.release()


if hasattr(os, "register_at_fork"):  # Windows has no fork
    os.register_at_fork(before=_acquire, after_in_parent=_release, after_in_child=_release)
