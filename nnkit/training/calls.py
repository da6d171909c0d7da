"""Who is called when: each callback's period, and how many steps may run before somebody is due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nnkit.core.periods import parse_period
from nnkit.training.callbacks import Callback, Figures

__all__ = ["Calls"]

# Between two looks at the clock: often enough for a display and a signal, seldom enough to cost nothing.
_INTERVAL_SECONDS = 0.05


@dataclass
class _Listener:
    """A callback that hears of steps: always, every so many steps, or after so many seconds."""

    callback: Callback
    steps: int | None
    seconds: float | None
    heard: float = 0.0

    @classmethod
    def of(cls, callback: Callback, steps_per_epoch: int) -> _Listener:
        if callback.every is None:
            return cls(callback, None, None)
        period = parse_period(callback.every)
        return cls(callback, period.steps(steps_per_epoch), period.seconds)

    def is_due(self, step: int, seconds: float) -> bool:
        if self.steps is not None:
            return step % self.steps == 0
        if self.seconds is not None:
            if seconds - self.heard < self.seconds:
                return False
            self.heard = seconds
        return True


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
        self._listeners = [
            _Listener.of(callback, steps_per_epoch)
            for callback in self._callbacks
            if type(callback).on_step_end is not Callback.on_step_end
        ]
        self._stretch = 1

    def stretch(self, step: int, left: int) -> int:
        """Return how many of the `left` steps after `step` may run before anyone is served."""
        due = [listener.steps - step % listener.steps for listener in self._listeners if listener.steps]
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
        due = [listener for listener in self._listeners if listener.is_due(step, seconds)]
        if due:
            moment = figures()
            for listener in due:
                listener.callback.on_step_end(self._trainer, moment)

    def epoch_end(self, figures: Figures) -> None:
        """Call `on_epoch_end`."""
        for callback in self._callbacks:
            callback.on_epoch_end(self._trainer, figures)

    def train_end(self, figures: Figures) -> None:
        """Call `on_train_end`."""
        for callback in self._callbacks:
            callback.on_train_end(self._trainer, figures)
