"""A training's diagnosis: looks at the network now and then, and says at the end what was seen."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.core.features import Features
from nnkit.errors import DivergenceError
from nnkit.training.callbacks import Callback, Figures
from nnkit.training.class_weights import class_weights
from nnkit.training.diagnostics import Finding
from nnkit.training.diagnostics_curves import baseline_loss, check_curves, diverging_loss
from nnkit.training.diagnostics_data import sample_rows
from nnkit.training.diagnostics_network import NetworkFigures, Probe, check_network, with_updates

__all__ = ["Diagnosis"]

# Of a training's time, what its looks may take; the last one is taken all the same.
_SHARE = 0.005
# Seconds, before the first look has shown what one takes.
_FIRST_COST = 0.005
# A unit that is 0 on so many rows is dead but for one row in a hundred (0.99²⁵⁶ = 8 %).
_FEWEST_ROWS, _MOST_ROWS = 256, 1024


class Diagnosis(Callback):
    """Watches a training: its curves, and at ends of epochs the network's own figures.

    A look costs about as much as a step over as many rows. It is taken at the end of an epoch where all looks
    so far come to under half a percent of the time since the training began, and after the last epoch.

    Parameters
    ----------
    features : Features
        The training rows, as the trainer is given them.
    targets : ndarray
        Encoded.
    batch_size : int
        The trainer's: as many rows are looked at, and at least 256.

    Attributes
    ----------
    figures : list of NetworkFigures
        One for each look.
    findings : list of Finding
        At the end of the training.
    """

    def __init__(self, features: Features, targets: NDArray, batch_size: int = 128) -> None:
        self._features = features
        self._targets = targets
        self._most = min(max(batch_size, _FEWEST_ROWS), _MOST_ROWS)
        self._probe: Probe | None = None
        self._spent = 0.0
        self._cost = _FIRST_COST
        self._before: tuple[int, list[NDArray]] | None = None
        self.figures: list[NetworkFigures] = []
        self.findings: list[Finding] = []

    @property
    def seconds(self) -> float:
        """What the looks have taken."""
        return self._spent

    def on_train_begin(self, trainer: Any, figures: Figures) -> None:
        """Forget the training before."""
        self._probe, self._before = None, None
        self._spent, self._cost = 0.0, _FIRST_COST
        self.figures, self.findings = [], []

    def on_step_end(self, trainer: Any, figures: Figures) -> None:
        """Measure the updates made since a look."""
        if self._before is None or self._probe is None:
            return
        began = time.perf_counter()
        step, weights = self._before
        self._before = None
        if figures.step > step:
            after = self._probe.all_weights()
            self.figures[-1] = with_updates(self.figures[-1], weights, after, figures.step - step)
        self._spent += time.perf_counter() - began

    def on_epoch_end(self, trainer: Any, figures: Figures) -> None:
        """Look at the network, where it is not too soon."""
        last = figures.epoch >= figures.epochs or trainer.state.stopped_early
        self._before = None
        if not last and self._spent + self._cost > _SHARE * figures.seconds:
            return
        began = time.perf_counter()
        if self._probe is None:
            rows = sample_rows(len(self._features), self._most)
            sample, targets = self._features.take(rows), self._targets[rows]
            self._probe = Probe(trainer.network, trainer.loss, sample, targets)
        looking = time.perf_counter()
        self.figures.append(self._probe.look(figures.epoch))
        if not last:
            self._before = (figures.step, self._probe.all_weights())
        now = time.perf_counter()
        self._cost = now - looking
        self._spent += now - began

    def on_train_end(self, trainer: Any, figures: Figures) -> None:
        """Say what was seen."""
        rate = trainer.optimizer.learning_rate
        baseline = baseline_loss(trainer.loss, self._targets, self._weights(trainer))
        found = check_curves(trainer.history, baseline, rate, bool(trainer.penalty))
        if self.figures:
            found += check_network(self.figures, rate)
        self.findings = found

    def diverged(self, error: DivergenceError, rate: float) -> None:
        """Add that a training ended with numbers that are not finite."""
        seen = str(error).split(";")[0]
        if not any(finding.name == "diverging_loss" for finding in self.findings):
            self.findings = [diverging_loss(seen, rate), *self.findings]

    def _weights(self, trainer: Any) -> NDArray[np.float64] | None:
        if trainer.class_weight is None:
            return None
        return class_weights(trainer.class_weight, self._targets, trainer.network.outputs)
