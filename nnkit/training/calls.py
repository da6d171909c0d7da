"""Who is called when: each callback's period, and how many steps may run before somebody is due."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from nnkit.core.periods import parse_period
from nnkit.core.step import StepFigures
from nnkit.training.callbacks import Callback, Figures

__all__ = ["Calls", "Moment"]

# Between two looks at the clock: often enough for a display and a signal, seldom enough to cost nothing.
_INTERVAL_SECONDS = 0.05


@dataclass(frozen=True)
class Moment:
    """A point between two stretches: the steps done, the seconds since the beginning, the epoch's sums."""

    step: int
    seconds: float
    sums: StepFigures


@dataclass
class _Listener:
    """A callback that hears of steps: always, every so many steps, or after so many seconds."""

    callback: Callback
    steps: int | None
    seconds: float | None
    called: float = 0.0
    last: Moment = Moment(0, 0.0, StepFigures())

    @classmethod
    def of(cls, callback: Callback, steps_per_epoch: int) -> _Listener:
        if callback.every is None:
            return cls(callback, None, None)
        period = parse_period(callback.every)
        return cls(callback, period.steps(steps_per_epoch), period.seconds)

    def is_due(self, now: Moment) -> bool:
        if self.callback.within is not None and now.step - self.last.step >= self.callback.within:
            return True
        if self.steps is not None:
            return now.step % self.steps == 0
        return self.seconds is None or now.seconds - self.called >= self.seconds


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
        wanted = [listener.callback.within for listener in self._listeners if listener.callback.within]
        return min(self._stretch, left, *due, *wanted)

    def measured(self, steps: int, seconds: float) -> None:
        """Learn from a stretch how many steps fit the interval; at most twice as many as the last time."""
        fitting = max(1, int(steps * _INTERVAL_SECONDS / max(seconds, 1e-9)))
        self._stretch = min(fitting, 2 * self._stretch)

    def train_begin(self, figures: Figures) -> None:
        """Call `on_train_begin`."""
        for callback in self._callbacks:
            callback.on_train_begin(self._trainer, figures)

    def epoch_begin(self, now: Moment) -> None:
        """Begin the epoch's sums for everyone."""
        for listener in self._listeners:
            listener.last = now

    def step_end(self, now: Moment, figures: Callable[[Moment, Moment], Figures]) -> None:
        """Call `on_step_end` of those who are due, each with the figures since its own last call."""
        for listener in self._listeners:
            if listener.is_due(now):
                listener.callback.on_step_end(self._trainer, figures(now, listener.last))
                listener.last, listener.called = now, now.seconds

    def epoch_end(self, figures: Figures) -> None:
        """Call `on_epoch_end`."""
        for callback in self._callbacks:
            callback.on_epoch_end(self._trainer, figures)

    def train_end(self, figures: Figures) -> None:
        """Call `on_train_end`."""
        for callback in self._callbacks:
            callback.on_train_end(self._trainer, figures)
