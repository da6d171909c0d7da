"""What a training calls on its way: the base class of callbacks, and the figures each call is given."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nnkit.errors import ConfigError, shown
from nnkit.training.periods import Period

__all__ = ["Callback", "Callbacks", "Figures", "callbacks_from", "method_of"]

_METHODS = ("on_train_begin", "on_step_end", "on_epoch_end", "on_train_end")


@dataclass(frozen=True)
class Figures:
    """Where a training stands at the moment of a call.

    Parameters
    ----------
    epoch : int
        The current epoch, counted from 1; 0 before the first.
    epochs : int
        The epochs asked for.
    step : int
        Steps done so far in the whole training.
    steps_per_epoch : int
        Batches in an epoch.
    total_steps : int
        Steps of the whole training.
    samples : int
        Samples seen so far in the whole training.
    seconds : float
        Time since the training began; since it was resumed, where it was.
    samples_per_second : float
        Over the same steps.
    learning_rate : float
        The rate of the last step.
    loss : float
        Averaged over the epoch at its end; on a step, over those since this callback's last call in it.
    penalty : float
        The penalties' part of `loss`.
    metrics : mapping of str to float
        At an epoch's end, by name: "validation_loss", "validation_accuracy", ... Empty elsewhere.
    """

    epoch: int
    epochs: int
    step: int
    steps_per_epoch: int
    total_steps: int
    samples: int
    seconds: float
    samples_per_second: float
    learning_rate: float
    loss: float
    penalty: float = 0.0
    metrics: Mapping[str, float] = field(default_factory=dict)


class Callback:
    """Base of what ``fit(callbacks=[...])`` takes: override the calls you want.

    Any other object with at least one of the four methods is a callback too. Each call is given the trainer
    and the `Figures` of the moment, and runs between two stretches of steps, so the parameters it sees are
    those of ``figures.step``.

    Attributes
    ----------
    every : str, Period or None
        How often `on_step_end` is called, such as ``"50 steps"`` or ``"5 minutes"``; None takes the trainer's
        reporting interval.
    within : int or None
        At most so many steps are to run before the next call of `on_step_end`, whatever the interval; may be
        set on the way.
    """

    every: str | Period | None = None
    within: int | None = None

    def on_train_begin(self, trainer: Any, figures: Figures) -> None:
        """Run once before the first step."""

    def on_step_end(self, trainer: Any, figures: Figures) -> None:
        """Run after each period of `every`."""

    def on_epoch_end(self, trainer: Any, figures: Figures) -> None:
        """Run after each epoch and its validation."""

    def on_train_end(self, trainer: Any, figures: Figures) -> None:
        """Run once at the end, however the training ended, if `on_train_begin` returned.

        ``trainer.outcome`` tells how it ended.
        """


Callbacks = Any
"""What ``callbacks=`` takes: None, a callback, or an iterable of callbacks."""


def callbacks_from(given: Callbacks) -> tuple[Any, ...]:
    """Return the callbacks that ``callbacks=`` was given: none for None, one by itself, or several.

    Raises
    ------
    ConfigError
        If one is a class, or has none of a callback's methods.
    """
    if given is None:
        return ()
    single = isinstance(given, type) or _has_method(given) or not isinstance(given, Iterable)
    callbacks = (given,) if single else tuple(given)
    for callback in callbacks:
        if isinstance(callback, type):
            name = callback.__name__
            raise ConfigError(f"callbacks: {name} is a class; give an instance of it, such as {name}()")
        if not _has_method(callback):
            raise ConfigError(
                f"callbacks: {shown(callback)} is no callback; give an object with at least one of "
                f"{', '.join(_METHODS)}"
            )
    return callbacks


def method_of(callback: Any, name: str) -> Callable[[Any, Figures], None] | None:
    """Return a callback's method; None where it has none, or only the one of `Callback` that does nothing."""
    method = getattr(callback, name, None)
    inherited = getattr(method, "__func__", None) is getattr(Callback, name)
    return method if callable(method) and not inherited else None


def _has_method(given: Any) -> bool:
    return isinstance(given, Callback) or any(callable(getattr(given, name, None)) for name in _METHODS)
