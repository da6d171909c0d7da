"""Callbacks: their base class, and the status of a training that each call receives."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from nnkit.errors import ConfigError, shown
from nnkit.training.periods import Period

__all__ = ["Callback", "Callbacks", "TrainingStatus", "callbacks_from", "method_of"]

_METHODS = ("on_train_begin", "on_step_end", "on_epoch_end", "on_train_end")


@dataclass(frozen=True)
class TrainingStatus:
    """The progress of a training at the moment of a call.

    Parameters
    ----------
    epoch : int
        The current epoch, counted from 1; 0 before the first.
    epochs : int
        The number of epochs to train.
    step : int
        The number of steps done.
    steps_per_epoch : int
        The number of batches in an epoch.
    total_steps : int
        The number of steps of the whole training.
    samples : int
        The number of samples seen.
    seconds : float
        Time since the training began or was resumed.
    samples_per_second : float
        The speed over the steps that `loss` is averaged over.
    learning_rate : float
        The rate of the last step.
    loss : float
        The mean over the epoch at its end; after a step, over the steps since this callback's last call.
    penalty : float
        The part of `loss` that comes from penalties.
    metrics : mapping of str to float
        At the end of an epoch, by name: "validation_loss", "validation_accuracy", ... Otherwise empty.
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
    """Base class of callbacks for ``fit(callbacks=[...])``: override the methods you need.

    Any other object with at least one of the four methods is a callback, too. Each method receives the
    trainer and its `TrainingStatus` between two steps: the network's parameters are those after
    ``status.step`` steps.

    Attributes
    ----------
    every : str, Period or None
        How often `on_step_end` is called, such as ``"50 steps"`` or ``"5 minutes"``; None means about 20
        times a second.
    within : int or None
        The maximum number of steps before the next call of `on_step_end`, regardless of `every`; may change
        during the training.
    """

    every: str | Period | None = None
    within: int | None = None

    def on_train_begin(self, trainer: Any, status: TrainingStatus) -> None:
        """Run once before the first step."""

    def on_step_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Run after each period of `every`."""

    def on_epoch_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Run after each epoch and its validation."""

    def on_train_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Run once at the end, even after an error, if `on_train_begin` returned; see ``trainer.outcome``."""


Callbacks = Any
"""The type of ``callbacks=``: None, a callback, or an iterable of callbacks."""


def callbacks_from(given: Callbacks) -> tuple[Any, ...]:
    """Return the argument ``callbacks=`` as a tuple; raise `ConfigError` for a class or a non-callback."""
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
                f"callbacks: {shown(callback)} is not a callback; give an object with at least one of "
                f"{', '.join(_METHODS)}"
            )
    return callbacks


def method_of(callback: Any, name: str) -> Callable[[Any, TrainingStatus], None] | None:
    """Return a callback's method, or None if it has none or only the empty one of `Callback`."""
    method = getattr(callback, name, None)
    inherited = getattr(method, "__func__", None) is getattr(Callback, name)
    return method if callable(method) and not inherited else None


def _has_method(given: Any) -> bool:
    return isinstance(given, Callback) or any(callable(getattr(given, name, None)) for name in _METHODS)
