"""The schedule of callbacks: which are due after a step, and how many steps may run before the next call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from nnkit.engine.objective import StepSums
from nnkit.training.callbacks import TrainingStatus, method_of
from nnkit.training.periods import parse_period

__all__ = ["Calls", "Moment"]

# Time between two calls of a callback without a period: short enough for a display and for Ctrl-C, long
# enough to cost nothing.
_INTERVAL_SECONDS = 0.05


@dataclass(frozen=True)
class Moment:
    """A point between two steps: the steps done, the seconds since the beginning, the epoch's sums."""

    step: int
    seconds: float
    sums: StepSums


@dataclass
class _Listener:
    """A callback with `on_step_end`, and its period in steps or seconds; without either, always due."""

    callback: Any
    call: Callable[[Any, TrainingStatus], None]
    steps: int | None = None
    seconds: float | None = None
    called: float = 0.0
    last: Moment = Moment(0, 0.0, StepSums())

    @classmethod
    def of(cls, callback: Any, steps_per_epoch: int) -> _Listener | None:
        call = method_of(callback, "on_step_end")
        if call is None:
            return None
        every = getattr(callback, "every", None)
        if every is None:
            return cls(callback, call)
        period = parse_period(every)
        return cls(callback, call, period.steps(steps_per_epoch), period.seconds)

    @property
    def within(self) -> int | None:
        return getattr(self.callback, "within", None)

    def is_due(self, now: Moment) -> bool:
        if self.within is not None and now.step - self.last.step >= self.within:
            return True
        if self.steps is not None:
            return now.step % self.steps == 0
        return self.seconds is None or now.seconds - self.called >= self.seconds


class Calls:
    """The callbacks of one training.

    Parameters
    ----------
    trainer : Trainer
        The argument of every call.
    callbacks : sequence of callbacks
        As `callbacks_from` returns them, in the order of their calls.
    steps_per_epoch : int
        Converts a period in epochs to steps.
    """

    def __init__(self, trainer: Any, callbacks: Sequence[Any], steps_per_epoch: int) -> None:
        self._trainer = trainer
        self._callbacks = tuple(callbacks)
        listeners = [_Listener.of(callback, steps_per_epoch) for callback in self._callbacks]
        self._listeners = [listener for listener in listeners if listener is not None]
        self._begun: list[Any] = []
        self._stretch = 1

    def stretch(self, step: int, left: int) -> int:
        """Return how many of the `left` steps after `step` may run before the next look at the callbacks."""
        due = [listener.steps - step % listener.steps for listener in self._listeners if listener.steps]
        wanted = [listener.within for listener in self._listeners if listener.within]
        return min(self._stretch, left, *due, *wanted)

    def measured(self, steps: int, seconds: float) -> None:
        """Adapt the number of steps to the interval, from the time of the last ones; at most double it."""
        fitting = max(1, int(steps * _INTERVAL_SECONDS / max(seconds, 1e-9)))
        self._stretch = min(fitting, 2 * self._stretch)

    def train_begin(self, status: TrainingStatus) -> None:
        """Call `on_train_begin`."""
        for callback in self._callbacks:
            self._call(callback, "on_train_begin", status)
            self._begun.append(callback)

    def epoch_begin(self, now: Moment) -> None:
        """Reset the point from which each callback's means are taken."""
        for listener in self._listeners:
            listener.last = now

    def step_end(self, now: Moment, status: Callable[[Moment, Moment], TrainingStatus]) -> None:
        """Call `on_step_end` of the callbacks that are due, each with the means since its own last call."""
        for listener in self._listeners:
            if listener.is_due(now):
                listener.call(self._trainer, status(now, listener.last))
                listener.last, listener.called = now, now.seconds

    def epoch_end(self, status: TrainingStatus) -> None:
        """Call `on_epoch_end`."""
        for callback in self._callbacks:
            self._call(callback, "on_epoch_end", status)

    def train_ends(self, status: TrainingStatus) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield the name and the call of `on_train_end` of each callback whose `on_train_begin` returned."""
        for callback in self._begun:
            name = f"on_train_end of {type(callback).__name__}"
            yield name, partial(self._call, callback, "on_train_end", status)

    def _call(self, callback: Any, name: str, status: TrainingStatus) -> None:
        method = method_of(callback, name)
        if method is not None:
            method(self._trainer, status)
