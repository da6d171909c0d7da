"""The diagnosis of a training: looks at the network at intervals, and findings at the end."""

from __future__ import annotations

import time
from typing import Any

from numpy.typing import NDArray

from nnkit.diagnostics.curves import baseline_loss, check_curves, diverging_loss
from nnkit.diagnostics.findings import Finding
from nnkit.diagnostics.network import NetworkFigures, Probe, check_network
from nnkit.errors import DivergenceError
from nnkit.feed.features import Features
from nnkit.training.callbacks import Callback, TrainingStatus
from nnkit.training.class_weights import class_weights
from nnkit.training.history import History

__all__ = ["Diagnosis"]

# The share of a training's time that its looks may take; and the assumed seconds of the first.
_SHARE, _FIRST_COST = 0.004, 0.002
# A unit that is active on one row in a hundred is 0 on all of 256 with a probability of 8 %.
_FEWEST_ROWS = 256


class Diagnosis(Callback):
    """Watches a training's curves, and at the reporting interval the network after its last step.

    A look reads outputs, gradients and weights in the step's buffers: nothing is computed again. It is due
    while all looks take less than half a percent of the training's time; then the next step is run alone, so
    that its update can be measured. In any case there is a look in the middle, where updates are typical, and
    at the last steps, until they have enough rows.

    Parameters
    ----------
    features, targets : Features, ndarray
        The training rows, encoded.

    Attributes
    ----------
    figures : list of NetworkFigures
        At most one for each epoch.
    findings : list of Finding
        At the end of the training.
    """

    def __init__(self, features: Features, targets: NDArray) -> None:
        self._target = min(_FEWEST_ROWS, len(features))
        self._targets = targets
        self._forget()

    def _forget(self) -> None:
        self._probe: Probe | None = None
        self._spent, self._cost = 0.0, _FIRST_COST
        self._step: int | None = None
        self._last_steps = 1
        self._half_way = self._ending = False
        self.within = None
        self.figures: list[NetworkFigures] = []
        self.findings: list[Finding] = []

    @property
    def seconds(self) -> float:
        """The time of all looks."""
        return self._spent

    def on_train_begin(self, trainer: Any, status: TrainingStatus) -> None:
        """Discard the state of an earlier training."""
        self._forget()
        self._probe = Probe(trainer.step, _FEWEST_ROWS)
        self._last_steps = -(-self._target // trainer.step.batch_size)

    def on_step_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Measure the update since the last look; look at the step if one is due."""
        assert self._probe is not None
        began = time.perf_counter()
        left = status.total_steps - status.step
        to_middle = status.total_steps // 2 - status.step
        measured = self._step is not None
        if self._step is not None:
            self._probe.measure_update(status.step - self._step)
            self._step = None
        if left < self._last_steps:
            if not self._ending:
                self._probe.forget(updates=False)
            self._ending = True
            self._probe.look()
        elif not measured and self._is_due(status, to_middle):
            self._half_way = self._half_way or to_middle <= 0
            self._probe.look()
            self._step = status.step
        soon = [left - self._last_steps + 1, *([] if self._half_way else [to_middle])]
        self.within = 1 if self._step is not None else max(1, min(soon))
        took = time.perf_counter() - began
        self._spent += took
        if self._step is not None:
            self._cost = 2 * took

    def _is_due(self, status: TrainingStatus, to_middle: int) -> bool:
        affordable = self._spent + self._cost <= _SHARE * status.seconds
        return affordable or (to_middle <= 0 and not self._half_way)

    def on_epoch_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Summarise the measurements if they cover enough rows."""
        assert self._probe is not None
        began = time.perf_counter()
        last = status.epoch >= status.epochs or trainer.state.stopped_early
        if last and not self._probe.rows:
            self._probe.look()
        enough = self._probe.rows >= self._target
        if enough or (last and not self.figures):
            self.figures.append(self._probe.figures(status.epoch, enough))
        self._spent += time.perf_counter() - began

    def on_train_end(self, trainer: Any, status: TrainingStatus) -> None:
        """Set the findings."""
        rate, weights = trainer.optimizer.learning_rate, None
        if (by_class := trainer.settings.class_weight) is not None:
            weights = class_weights(by_class, self._targets, trainer.network.output_width)
        baseline = baseline_loss(trainer.loss, self._targets, weights)
        stops = bool(trainer.settings.early_stopping and trainer.settings.restore_best)
        found = check_curves(_path(trainer), baseline, rate, bool(trainer.penalty), stops)
        if self.figures:
            found += check_network(self.figures, rate)
        self.findings = found

    def diverged(self, error: DivergenceError, rate: float) -> None:
        """Add the finding of a training that ended with numbers that are not finite."""
        if not any(finding.name == "diverging_loss" for finding in self.findings):
            self.findings = [diverging_loss(str(error).split(";")[0], rate), *self.findings]


def _path(trainer: Any) -> History:
    """Return the history without the epochs whose weights a cooldown did not start from."""
    history, state = trainer.history, trainer.state
    if not state.cooldown_epochs:
        return history
    left = state.cooldown_from - trainer.settings.early_stopping
    path = History(history.monitor, history.greater_is_better)
    path.rows = [row for row in history.rows if not left < row["epoch"] <= state.cooldown_from]
    return path
