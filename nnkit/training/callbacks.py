"""What a training calls on its way: the base class of callbacks, and the figures each call is given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from nnkit.core.periods import Period

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Callback", "Figures"]


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

    Each is given the trainer and the `Figures` of the moment, and runs between two stretches of steps, so the
    parameters it sees are those of ``figures.step``.

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
        """Run once after the last step, also where the training was stopped early."""
