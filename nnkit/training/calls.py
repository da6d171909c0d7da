"""Who is called when: each callback's period, and how many steps may run before somebody is due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from nnkit.training.callbacks import Callback, Figures

__all__ = ["Calls"]

# Between two looks at the clock: often enough for a display and a signal, seldom enough to cost nothing.
_INTERVAL_SECONDS = 0.05


class Calls:
    """The callbacks of one training.

    Parameters
    ----------
    trainer : Trainer
        Given to every call.
    callbacks : sequence of Callback
        In the order they are called.
    steps_per_epoch : int
        What a period of epochs is in steps.
    """

    def __init__(self, trainer: Any, callbacks: Sequence[Callback], steps_per_epoch: int) -> None:
        self._trainer = trainer
        self._callbacks = tuple(callbacks)
        self._steps = {
            i: callback.every.steps(steps_per_epoch) for i, callback in self._periodic() if callback.every
        }
        self._last_seconds = dict.fromkeys(range(len(self._callbacks)), 0.0)
        self._stretch = 1

    def _periodic(self) -> list[tuple[int, Callback]]:
        listening = type(self)._listens
        return [(i, callback) for i, callback in enumerate(self._callbacks) if listening(callback)]

    @staticmethod
    def _listens(callback: Callback) -> bool:
        return type(callback).on_step_end is not Callback.on_step_end

    def stretch(self, step: int, left: int) -> int:
        """Return how many of the `left` steps after `step` may run before anyone is served."""
        due = [period - step % period for period in self._steps.values() if period]
        return min(self._stretch, left, *due)

    def measured(self, steps: int, seconds: float) -> None:
        """Learn from a stretch how many steps fit the interval; at most twice as many as the last time."""
        fitting = max(1, int(steps * _INTERVAL_SECONDS / max(seconds, 1e-9)))
        self._stretch = min(fitting, 2 * self._stretch)

    def train_begin(self, figures: Figures) -> None:
        """Call `on_train_begin`."""
        for callback in self._callbacks:
            callback.on_train_begin(self._trainer, figures)

    def step_end(self, step: int, seconds: float, figures: Callable[[], Figures]) -> None:
        """Call `on_step_end` of those who are due; the figures are read only if somebody is."""
        due = [callback for i, callback in self._periodic() if self._is_due(i, callback, step, seconds)]
        if due:
            moment = figures()
            for callback in due:
                callback.on_step_end(self._trainer, moment)

    def _is_due(self, index: int, callback: Callback, step: int, seconds: float) -> bool:
        if callback.every is None:
            return True
        period = self._steps[index]
        if period is not None:
            return step % period == 0
        if seconds - self._last_seconds[index] < (callback.every.seconds or 0.0):
            return False
        self._last_seconds[index] = seconds
        return True

    def epoch_end(self, figures: Figures) -> None:
        """Call `on_epoch_end`."""
        for callback in self._callbacks:
            callback.on_epoch_end(self._trainer, figures)

    def train_end(self, figures: Figures) -> None:
        """Call `on_train_end`."""
        for callback in self._callbacks:
            callback.on_train_end(self._trainer, figures)
