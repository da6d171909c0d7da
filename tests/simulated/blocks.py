"""The threads of a block of Numba's simulator, one at a time from barrier to barrier.

The simulator lets Python switch between them at will, while its main thread asks each of them again and again
whether it waits: most of the time goes there, and a race shows now and then. Here a thread hands over to the
next where it waits or ends, in another order after each barrier, the same orders in every run.
"""

from __future__ import annotations

import threading
from random import Random
from typing import Any

import numpy as np

__all__ = ["take_turns"]


def take_turns() -> None:
    """Let the simulator's blocks run so, in this process."""
    from numba.cuda.simulator import kernel

    random = Random(0)

    class Thread(kernel.BlockThread):
        """A thread that runs when it is its turn."""

        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.turn = threading.Lock()
            self.turn.acquire()

        def run(self) -> None:
            self.turn.acquire()
            super().run()
            self._manager.hand_over(self)

        def syncthreads(self) -> None:
            self._manager.waiting.append(self)
            self._manager.hand_over(self)
            self.turn.acquire()
            if self._manager.failed:
                raise RuntimeError("another thread of the block has failed")

    class Manager(kernel.BlockManager):
        """A block: those whose turn is still to come, and those that have come to the barrier."""

        def run(self, grid_point: tuple[int, ...], *arguments: Any) -> None:
            self.waiting: list[Thread] = []
            self.failed: list[Thread] = []
            self._ended = threading.Lock()
            self._ended.acquire()
            points = list(np.ndindex(*self._block_dim))
            threads = [
                Thread(lambda: self._f(*arguments), self, grid_point, point, self._debug) for point in points
            ]
            self._to_come = list(threads)
            random.shuffle(self._to_come)
            for thread in threads:
                thread.start()
            self._to_come.pop().turn.release()
            self._ended.acquire()
            for thread in threads:
                thread.join()
            if self.failed:
                exception, traceback = self.failed[0].exception
                raise exception.with_traceback(traceback)

        def hand_over(self, thread: Thread) -> None:
            """Let the next one run; all have come to the barrier, or ended, where there is none."""
            if thread.exception:
                self.failed.append(thread)
            if not self._to_come:
                self._to_come, self.waiting = self.waiting, []
                random.shuffle(self._to_come)
            (self._to_come.pop().turn if self._to_come else self._ended).release()

    kernel.BlockThread, kernel.BlockManager = Thread, Manager
