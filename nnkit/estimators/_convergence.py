"""scikit-learn's rules for the end of a training and for its learning rate, as a callback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.training.callbacks import Callback, TrainingStatus

__all__ = ["Convergence", "Progress"]

_SMALLEST_RATE = 1e-6  # the adaptive policy ends the training at this rate, in place of dividing it
_ADAPTIVE_DIVISOR = 5.0


@dataclass
class Progress:
    """The state that a warm-started `fit` and `partial_fit` take over from the calls before.

    As in scikit-learn these are the losses, their minimum and the number of samples. Scores are not compared
    across fits, since each fit has held-out rows of its own.
    """

    losses: list[float] = field(default_factory=list)  # the training loss of each epoch
    scores: list[float] = field(default_factory=list)  # the validation score of each epoch
    best_loss: float = np.inf
    best_score: float = -np.inf  # since the last `fit` began
    waited: int = 0  # consecutive epochs without an improvement of at least the tolerance
    samples: int = 0  # the number of samples seen in all epochs
    divisor: float = 1.0  # the adaptive policy divides the initial rate by it; 1 for a new optimizer

    def begin_fit(self) -> None:
        """Reset the state that depends on the last fit's held-out rows and optimizer."""
        self.best_score, self.divisor = -np.inf, 1.0


@dataclass(eq=False)
class Convergence(Callback):
    """Ends a training that no longer improves, and changes the learning rate between epochs.

    The policies of the learning rate: ``constant``; ``invscaling`` divides the initial rate by
    (samples seen + 1)^`power` from the second epoch on; ``adaptive`` divides the rate by 5 each time the
    training would end.
    """

    progress: Progress  # changed in place
    samples: int  # training samples in an epoch
    loss_of: Callable[[TrainingStatus], float]  # the loss that is reported and judged
    score: str | None  # the metric to record, such as "validation_accuracy"
    early_stopping: bool  # judge the score in place of the loss, and keep the best parameters
    tolerance: float  # the smallest change that is an improvement
    patience: float  # the maximum number of consecutive epochs without an improvement; may be infinite
    policy: str  # of the learning rate
    rate: float  # the initial learning rate
    power: float
    verbose: bool  # print a line each epoch

    epochs: int = 0  # of this training
    best: dict[str, NDArray] | None = None  # with early stopping, the parameters at the best score
    stopped: bool = False  # because the training no longer improved

    def on_train_begin(self, trainer: Any, status: TrainingStatus) -> None:
        """Resume the learning rate of an earlier training with the same optimizer."""
        if trainer.optimizer_state is not None:
            self._set_rate(trainer)

    def on_epoch_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Record the epoch, judge it, and set the learning rate of the next."""
        progress = self.progress
        self.epochs += 1
        progress.samples += self.samples
        progress.losses.append(self.loss_of(status))
        self._say(f"Iteration {self.epochs}, loss = {progress.losses[-1]:.8f}")
        if self.score is not None:
            self._judge_score(trainer, status.metrics[self.score])
        if not self.early_stopping:
            self._judge_loss(progress.losses[-1])
        if progress.waited > self.patience:
            self._end_or_slow_down(trainer)
        self._set_rate(trainer)

    def _judge_score(self, trainer: Any, score: float) -> None:
        progress = self.progress
        progress.scores.append(score)
        self._say(f"Validation score: {score:f}")
        if self.early_stopping:
            progress.waited = progress.waited + 1 if score < progress.best_score + self.tolerance else 0
        if score > progress.best_score:
            progress.best_score = score
            self.best = trainer.network.parameters() if self.early_stopping else None

    def _judge_loss(self, loss: float) -> None:
        progress = self.progress
        progress.waited = progress.waited + 1 if loss > progress.best_loss - self.tolerance else 0
        progress.best_loss = min(progress.best_loss, loss)

    def _end_or_slow_down(self, trainer: Any) -> None:
        judged = "Validation score" if self.early_stopping else "Training loss"
        reason = (
            f"{judged} did not improve more than tol={self.tolerance:f} for {self.patience:d} "
            "consecutive epochs."
        )
        if self.policy == "adaptive" and self.rate / self.progress.divisor > _SMALLEST_RATE:
            self.progress.divisor *= _ADAPTIVE_DIVISOR
            self.progress.waited = 0
            self._say(f"{reason} Setting learning rate to {self.rate / self.progress.divisor:f}")
            return
        small = " Learning rate too small." if self.policy == "adaptive" else ""
        self._say(f"{reason}{small} Stopping.")
        self.stopped = True
        trainer.stop()

    def _set_rate(self, trainer: Any) -> None:
        if self.policy == "adaptive":
            trainer.scale_learning_rate(1.0 / self.progress.divisor)
        elif self.policy == "invscaling" and self.progress.samples:
            trainer.scale_learning_rate((self.progress.samples + 1) ** -self.power)

    def _say(self, line: str) -> None:
        if self.verbose:
            print(line)
