"""Copies from the host to a GPU on a stream of their own, beside the steps.

For each slot there are two events. `copied` is recorded behind the copies into it: the steps' stream waits
for it before they read the slot, and the host before it fills its buffer again. `read` is recorded behind the
steps that read it, and once when the slot's memory is taken from the pool: the copies' stream waits for it
before it overwrites the slot. An event that was never recorded is not waited for. Nothing of this is part of
a captured graph, and none of it holds up the host.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.backends.cuda_device import CudaDevice
from nnkit.backends.protocol import Array

__all__ = ["CudaUploads"]


class CudaUploads:
    """An upload queue with `slots` slots.

    With `pinned`, the host's buffers are page-locked, so that copies run beside the steps; the driver stages
    pageable ones, while the sender waits.
    """

    def __init__(self, device: CudaDevice, slots: int, pinned: bool) -> None:
        self._device = device
        self._pinned = pinned
        with device.active():
            self._stream = device.new_stream()
            self._copied = [device.new_event() for _ in range(slots)]
            self._read = [device.new_event() for _ in range(slots)]

    def buffer(self, shape: tuple[int, ...], dtype: DTypeLike) -> tuple[NDArray, Array]:
        """Return an array on the host, page-locked or not, and one on the device."""
        host = self._device.pinned(shape, dtype) if self._pinned else np.empty(shape, dtype)
        target = self._device.empty(shape, dtype)
        # The pool may have given memory that steps under way still use: the first copies wait for them too.
        for slot in range(len(self._read)):
            self.done(slot)
        return host, target

    def prepare(self, slot: int) -> None:
        """Wait until the slot's buffer on the host has been copied."""
        with self._device.current():
            self._copied[slot].synchronize()

    def send(self, slot: int, pairs: Sequence[tuple[NDArray, Array]]) -> None:
        """Copy contiguous arrays to the device, once the steps have read the slot."""
        with self._device.current():
            self._stream.wait_event(self._read[slot])
            for host, target in pairs:
                if host.nbytes:
                    self._device.copy_from_host(target, host, self._stream)
            self._stream.record(self._copied[slot])

    def receive(self, slot: int) -> None:
        """Let the steps to come wait for what was sent last."""
        self._on_steps("wait_event", self._copied[slot])

    def done(self, slot: int) -> None:
        """Note that the steps so far have read the slot."""
        self._on_steps("record", self._read[slot])

    def _on_steps(self, method: str, event: Any) -> None:
        with self._device.active() as stream:
            getattr(stream, method)(event)

    def synchronize(self) -> None:
        """Wait until all copies are made."""
        with self._device.current():
            self._stream.synchronize()
