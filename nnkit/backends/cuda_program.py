"""Programs of a GPU: the first run goes call by call, later ones are launches of graphs."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from itertools import groupby

from nnkit.backends.cuda_device import Call, CudaDevice, Uncapturable, first_line

__all__ = ["CudaProgram"]

logger = logging.getLogger("nnkit")


class CudaProgram:
    """A fixed sequence of calls that enqueue work on a device's stream.

    The first run loads every kernel's code, which may allocate and wait, as a capture must not; the second
    captures, so a program that runs only once never does. The graph is one where all calls can be
    captured; an `Uncapturable` one runs by itself between two graphs, each of a stretch of the others.
    Where a capture fails nevertheless, the device goes on without captures.

    Parameters
    ----------
    device : CudaDevice
        On whose stream they run.
    calls : sequence of function
        In their order.
    capturable : bool
        Whether any of them may be captured.
    """

    def __init__(self, device: CudaDevice, calls: Sequence[Call], capturable: bool) -> None:
        self._device = device
        self._calls = tuple(calls)
        self._capturable = capturable
        self._has_run = False
        self._replay: tuple[Call, ...] | None = None

    def run(self, count: int = 1) -> None:
        """Enqueue the whole sequence `count` times; nothing waits for the device."""
        if not self._calls:
            return
        with self._device.active():
            for _ in range(count):
                if self._replay is None and self._has_run:
                    self._capture()
                for call in self._calls if self._replay is None else self._replay:
                    call()
                self._has_run = True

    def _capture(self) -> None:
        if not self._capturable or self._device.capture_failure:
            return
        try:
            self._replay = tuple(self._stretches())
        except Exception as error:
            self._device.capture_failure = first_line(error.__cause__ or error)
            logger.warning(
                f"device {self._device.name}: steps are not captured into a CUDA graph and take longer, "
                f"because that failed: {self._device.capture_failure}"
            )

    def _stretches(self) -> Iterator[Call]:
        """Capture each stretch of calls that can be, and give the calls that replay the sequence."""
        for alone, stretch in groupby(self._calls, lambda one: isinstance(one, Uncapturable)):
            if alone:
                yield from stretch
            else:
                yield self._device.capture(tuple(stretch))
