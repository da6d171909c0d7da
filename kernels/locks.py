"""The locks for making and loading kernels: no fork leaves them locked, and Ctrl-C waits.

A fork copies a lock's state, but not the thread that holds it: the child would wait for it forever. So a fork
waits until no other thread loads a kernel, compiles with Numba or calls LLVM, and holds these locks itself.

llvmlite frees a string and then forgets it: a KeyboardInterrupt between the two would free it again, which
ends the process. So Ctrl-C is deferred until the kernel is loaded.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["loading", "uninterrupted"]

loading = threading.RLock()
"""Held while a kernel is written, imported or loaded, and while Numba or LLVM is imported for it."""

_held: list[Any] = []


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Defer Ctrl-C to the end of this context, or of the outermost one: Python's handler is called then.

    Only the main thread is interrupted by it.
    """
    main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT) if main else None
    if not callable(handler):
        yield
        return
    came: list[tuple[int, Any]] = []
    signal.signal(signal.SIGINT, lambda number, frame: came.append((number, frame)))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, handler)
        while came:
            handler(*came.pop(0))


def _others() -> Iterator[Any]:
    """Yield the locks of Numba and llvmlite, if imported, in the order in which compiling takes them."""
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
