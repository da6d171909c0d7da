"""Programs of a GPU: the first run goes operation by operation, later ones are one launch of a graph."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from nnkit.backends.cuda_device import CudaDevice
from nnkit.backends.protocol import Operation

__all__ = ["CudaProgram"]

logger = logging.getLogger("nnkit")


class CudaProgram:
    """A fixed sequence of operations on a device's stream.

    The first run loads every kernel's code, which may allocate and wait, as a capture must not; the second
    captures, so a program that runs only once never does. Where a capture fails, the device goes on without.

    Parameters
    ----------
    device : CudaDevice
        On whose stream they run.
    operations : sequence of Operation
        In their order.
    capturable : bool
        Whether all of them may be captured.
    """

    def __init__(self, device: CudaDevice, operations: Sequence[Operation], capturable: bool) -> None:
        self._device = device
        self._operations = tuple(operations)
        self._capturable = capturable
        self._has_run = False
        self._replay: Operation | None = None

    def run(self, count: int = 1) -> None:
        """Enqueue the whole sequence `count` times; nothing waits for the device."""
        if not self._operations:
            return
        with self._device.active():
            for _ in range(count):
                if self._replay is None and self._has_run:
                    self._capture()
                if self._replay is None:
                    self._run_one_by_one()
                else:
                    self._replay()

    def _run_one_by_one(self) -> None:
        for operation in self._operations:
            operation()
        self._has_run = True

    def _capture(self) -> None:
        if not self._capturable or self._device.capture_failure:
            return
        try:
            self._replay = self._device.capture(self._operations)
        except Exception as error:
            self._device.capture_failure = str(error).strip().split("\n")[0] or type(error).__name__
            logger.warning(
                f"device {self._device.name}: steps are not captured into a CUDA graph and take longer, "
                f"because that failed: {self._device.capture_failure}"
            )
