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
    """What a warm-started `fit` and the calls of `partial_fit` take over from the calls before.

    The losses, their minimum and the number of samples are carried over as in scikit-learn. Scores are not
    compared across fits, since each fit has held-out rows of its own.

    Attributes
    ----------
    losses, scores : list of float
        The training loss and the validation score of each epoch.
    best_loss : float
        The lowest training loss that was judged.
    best_score : float
        The best score since the last `fit` began; minus infinity before the first.
    waited : int
        Epochs in a row without an improvement by the tolerance.
    samples : int
        Samples seen.
    divisor : float
        What the adaptive policy has divided the learning rate by, with the optimizer at hand.
    """

    losses: list[float] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    best_loss: float = np.inf
    best_score: float = -np.inf
    waited: int = 0
    samples: int = 0
    divisor: float = 1.0

    def begin_fit(self) -> None:
        """Forget what belongs to the last fit's held-out rows and optimizer."""
        self.best_score, self.divisor = -np.inf, 1.0


class Convergence(Callback):
    """Ends a training that no longer improves, and changes the learning rate between epochs.

    Parameters
    ----------
    progress : Progress
        Changed in place.
    samples : int
        Training samples an epoch.
    loss_of : function of Figures
        The loss that is reported and judged.
    score : str or None
        The metric that is recorded, such as ``validation_accuracy``.
    early_stopping : bool
        Whether the score is judged in place of the loss, and the best parameters kept.
    tolerance : float
        The smallest change that is an improvement.
    patience : int or inf
        The maximum number of epochs in a row without one.
    policy : {"constant", "invscaling", "adaptive"}
        The learning rate: constant; divided by (samples seen + 1)^`power` from the second epoch on; divided
        by 5 each time the training would end.
    rate : float
        The initial learning rate.
    power : float
        The exponent of ``invscaling``.
    verbose : bool
        Whether to print a line each epoch.

    Attributes
    ----------
    epochs : int
        Epochs of this training.
    best : dict of str to ndarray, or None
        With `early_stopping`, the parameters at this training's best score.
    stopped : bool
        Whether the training ended because it no longer improved.
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
        self.best: dict[str, NDArray] | None = None
        self.stopped = False
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
        """Resume the learning rate of an earlier training with the same optimizer."""
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
            self._judge_score(trainer, figures.metrics[self._score])
        if not self._early_stopping:
            self._judge_loss(progress.losses[-1])
        if progress.waited > self._patience:
            self._end_or_slow_down(trainer)
        self._set_rate(trainer)

    def _judge_score(self, trainer: Any, score: float) -> None:
        progress = self.progress
        progress.scores.append(score)
        self._say(f"Validation score: {score:f}")
        if self._early_stopping:
            progress.waited = progress.waited + 1 if score < progress.best_score + self._tolerance else 0
        if score > progress.best_score:
            progress.best_score = score
            self.best = trainer.network.parameters() if self._early_stopping else None

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
        self.stopped = True
        trainer.stop()

    def _set_rate(self, trainer: Any) -> None:
        if self._policy == "adaptive":
            trainer.scale_learning_rate(1.0 / self.progress.divisor)
        elif self._policy == "invscaling" and self.progress.samples:
            trainer.scale_learning_rate((self.progress.samples + 1) ** -self._power)

    def _say(self, line: str) -> None:
        if self._verbose:
            print(line)
