"""scikit-learn's rules for the end of a training and for its learning rate, as a callback."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.training.callbacks import Callback, Figures

__all__ = ["Convergence", "Progress"]

_SMALLEST_RATE = 1e-6  # at which the adaptive policy gives up
_ADAPTIVE_DIVISOR = 5.0


@dataclass
class Progress:
    """How far trainings have come that go on from one another, as scikit-learn counts it.

    Attributes
    ----------
    losses, scores : list of float
        The training loss and the validation score of each epoch.
    best_loss, best_score : float
        The best of each so far; of the scores where there is a validation.
    waited : int
        Epochs since that were no better by the tolerance.
    samples : int
        Samples seen.
    divisor : float
        What the adaptive policy has divided the rate by.
    best : dict of str to ndarray, or None
        The parameters at the best score.
    stopped : bool
        Whether waiting has come to its end.
    in_calls : bool
        Whether each epoch is a call of its own.
    """

    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best_loss: float = np.inf
    best_score: float = -np.inf
    waited: int = 0
    samples: int = 0
    divisor: float = 1.0
    best: dict[str, NDArray] | None = None
    stopped: bool = False
    in_calls: bool = False


class Convergence(Callback):
    """Ends a training that no longer improves, and moves the learning rate from epoch to epoch.

    Parameters
    ----------
    progress : Progress
        Changed in place.
    samples : int
        Training samples an epoch.
    loss_of : function of Figures
        The loss that is told and judged.
    score : str or None
        The metric that is recorded, such as ``validation_accuracy``.
    early_stopping : bool
        Whether the score is judged in place of the loss, and the best parameters kept.
    tolerance : float
        What an improvement is at least.
    patience : int or inf
        The most epochs in turn without one.
    policy : {"constant", "invscaling", "adaptive"}
        Of the rate: as it is; divided by (samples seen + 1)^`power` from the second epoch on; divided by 5
        where the training would end.
    rate : float
        The rate that it begins with.
    power : float
        Of ``invscaling``.
    verbose : bool
        Whether to print a line an epoch.
    """

    def __init__(
        self,
        progress: Progress,
        samples: int,
        loss_of: Callable[[Figures], float],
        score: str | None,
        early_stopping: bool,
        tolerance: float,
        patience: float,
        policy: str,
        rate: float,
        power: float,
        verbose: bool,
    ) -> None:
        self.progress = progress
        self.epochs = 0
        self.interrupted = False
        self._samples = samples
        self._loss_of = loss_of
        self._score = score
        self._early_stopping = early_stopping
        self._tolerance = tolerance
        self._patience = patience
        self._policy = policy
        self._rate = rate
        self._power = power
        self._verbose = verbose

    def on_train_begin(self, trainer: Any, figures: Figures) -> None:
        """Go on at the rate where an earlier training of the same optimizer left it."""
        if trainer.optimizer_state is not None:
            self._set_rate(trainer)

    def on_epoch_end(self, trainer: Any, figures: Figures) -> None:
        """Record the epoch, judge it, and set the rate of the next."""
        progress = self.progress
        self.epochs += 1
        progress.samples += self._samples
        progress.losses.append(self._loss_of(figures))
        self._say(f"Iteration {self.epochs}, loss = {progress.losses[-1]:.8f}")
        if self._score is not None:
            progress.scores.append(figures.metrics[self._score])
            self._say(f"Validation score: {progress.scores[-1]:f}")
        if self._early_stopping:
            self._judge_score(trainer, progress.scores[-1])
        else:
            self._judge_loss(progress.losses[-1])
        if progress.waited > self._patience:
            self._end_or_slow_down(trainer)
        self._set_rate(trainer)

    def _judge_score(self, trainer: Any, score: float) -> None:
        progress = self.progress
        progress.waited = progress.waited + 1 if score < progress.best_score + self._tolerance else 0
        if score > progress.best_score:
            progress.best_score, progress.best = score, trainer.network.parameters()

    def _judge_loss(self, loss: float) -> None:
        progress = self.progress
        progress.waited = progress.waited + 1 if loss > progress.best_loss - self._tolerance else 0
        progress.best_loss = min(progress.best_loss, loss)

    def _end_or_slow_down(self, trainer: Any) -> None:
        what = "Validation score" if self._early_stopping else "Training loss"
        told = (
            f"{what} did not improve more than tol={self._tolerance:f} for {self._patience:d} "
            "consecutive epochs."
        )
        if self._policy == "adaptive" and self._rate / self.progress.divisor > _SMALLEST_RATE:
            self.progress.divisor *= _ADAPTIVE_DIVISOR
            self.progress.waited = 0
            self._say(f"{told} Setting learning rate to {self._rate / self.progress.divisor:f}")
            return
        small = " Learning rate too small." if self._policy == "adaptive" else ""
        self._say(f"{told}{small} Stopping.")
        self.progress.stopped = True
        trainer.stop()

    def _set_rate(self, trainer: Any) -> None:
        if self._policy == "adaptive":
            trainer.scale_learning_rate(1.0 / self.progress.divisor)
        elif self._policy == "invscaling" and self.progress.samples:
            trainer.scale_learning_rate((self.progress.samples + 1) ** -self._power)

    def _say(self, line: str) -> None:
        if self._verbose:
            print(line)
