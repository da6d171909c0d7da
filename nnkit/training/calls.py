"""Who is called when: each callback's period, and how many steps may run before somebody is due."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from nnkit.engine.objective import StepFigures
from nnkit.training.callbacks import Figures, method_of
from nnkit.training.periods import parse_period

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
    """A callback with `on_step_end`: called always, every so many steps, or after so many seconds."""

    callback: Any
    call: Callable[[Any, Figures], None]
    steps: int | None = None
    seconds: float | None = None
    called: float = 0.0
    last: Moment = Moment(0, 0.0, StepFigures())

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
        Given to every call.
    callbacks : sequence of callbacks
        As `callbacks_from` returns them, in the order they are called.
    steps_per_epoch : int
        What a period of epochs is in steps.
    """

    def __init__(self, trainer: Any, callbacks: Sequence[Any], steps_per_epoch: int) -> None:
        self._trainer = trainer
        self._callbacks = tuple(callbacks)
        listeners = [_Listener.of(callback, steps_per_epoch) for callback in self._callbacks]
        self._listeners = [listener for listener in listeners if listener is not None]
        self._begun: list[Any] = []
        self._stretch = 1

    def stretch(self, step: int, left: int) -> int:
        """Return how many of the `left` steps after `step` may run before anyone is served."""
        due = [listener.steps - step % listener.steps for listener in self._listeners if listener.steps]
        wanted = [listener.within for listener in self._listeners if listener.within]
        return min(self._stretch, left, *due, *wanted)

    def measured(self, steps: int, seconds: float) -> None:
        """Learn from a stretch how many steps fit the interval; at most twice as many as the last time."""
        fitting = max(1, int(steps * _INTERVAL_SECONDS / max(seconds, 1e-9)))
        self._stretch = min(fitting, 2 * self._stretch)

    def train_begin(self, figures: Figures) -> None:
        """Call `on_train_begin`."""
        for callback in self._callbacks:
            self._call(callback, "on_train_begin", figures)
            self._begun.append(callback)

    def epoch_begin(self, now: Moment) -> None:
        """Begin the epoch's sums for everyone."""
        for listener in self._listeners:
            listener.last = now

    def step_end(self, now: Moment, figures: Callable[[Moment, Moment], Figures]) -> None:
        """Call `on_step_end` of those who are due, each with the figures since its own last call."""
        for listener in self._listeners:
            if listener.is_due(now):
                listener.call(self._trainer, figures(now, listener.last))
                listener.last, listener.called = now, now.seconds

    def epoch_end(self, figures: Figures) -> None:
        """Call `on_epoch_end`."""
        for callback in self._callbacks:
            self._call(callback, "on_epoch_end", figures)

    def train_ends(self, figures: Figures) -> Iterator[tuple[str, Callable[[], None]]]:
        """Yield a name and a call of `on_train_end` for each callback whose `on_train_begin` returned."""
        for callback in self._begun:
            name = f"on_train_end of {type(callback).__name__}"
            yield name, partial(self._call, callback, "on_train_end", figures)

    def _call(self, callback: Any, name: str, figures: Figures) -> None:
        method = method_of(callback, name)
        if method is not None:
            method(self._trainer, figures)
