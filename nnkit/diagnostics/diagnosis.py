"""A training's diagnosis: looks at the network now and then, and says at the end what was seen."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.diagnostics.curves import baseline_loss, check_curves, diverging_loss
from nnkit.diagnostics.findings import Finding
from nnkit.diagnostics.network import NetworkFigures, Probe, check_network
from nnkit.errors import DivergenceError
from nnkit.feed.features import Features
from nnkit.training.callbacks import Callback, Figures
from nnkit.training.class_weights import class_weights

__all__ = ["Diagnosis"]

# Of a training's time, what its looks may take; and seconds, before the first has shown what one takes.
_SHARE, _FIRST_COST = 0.004, 0.002
# A unit that is 0 on so many rows is dead but for one row in a hundred (0.99²⁵⁶ = 8 %).
_FEWEST_ROWS = 256


class Diagnosis(Callback):
    """Watches a training: its curves, and at the reporting interval what its last step has left behind.

    A look reads the outputs, gradients and weights that are there: no row is computed twice. It is taken
    where all looks so far come to under half a percent of the time since the training began; then the next
    step is run alone, so that its update can be measured. In any case there is a look in the middle, where
    the updates are typical ones, and at the last steps, as many as hold rows enough.

    Parameters
    ----------
    features : Features
        The training rows, as the trainer is given them.
    targets : ndarray
        Encoded.

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
        """What the looks have taken."""
        return self._spent

    def on_train_begin(self, trainer: Any, figures: Figures) -> None:
        """Forget the training before."""
        self._forget()
        self._probe = Probe(trainer.step, _FEWEST_ROWS)
        self._last_steps = -(-self._target // trainer.step.batch_size)

    def on_step_end(self, trainer: Any, figures: Figures) -> None:
        """Measure the update since the last look; look at the step, where it is not too soon."""
        assert self._probe is not None
        began = time.perf_counter()
        left = figures.total_steps - figures.step
        to_middle = figures.total_steps // 2 - figures.step
        measured = self._step is not None
        if self._step is not None:
            self._probe.measure_update(figures.step - self._step)
            self._step = None
        if left < self._last_steps:
            if not self._ending:
                self._probe.forget(updates=False)
            self._ending = True
            self._probe.look()
        elif not measured and self._is_due(figures, to_middle):
            self._half_way = self._half_way or to_middle <= 0
            self._probe.look()
            self._step = figures.step
        soon = [left - self._last_steps + 1, *([] if self._half_way else [to_middle])]
        self.within = 1 if self._step is not None else max(1, min(soon))
        took = time.perf_counter() - began
        self._spent += took
        if self._step is not None:
            self._cost = 2 * took

    def _is_due(self, figures: Figures, to_middle: int) -> bool:
        affordable = self._spent + self._cost <= _SHARE * figures.seconds
        return affordable or (to_middle <= 0 and not self._half_way)

    def on_epoch_end(self, trainer: Any, figures: Figures) -> None:
        """Take the figures of the looks, where they were at rows enough."""
        assert self._probe is not None
        began = time.perf_counter()
        last = figures.epoch >= figures.epochs or trainer.state.stopped_early
        if last and not self._probe.rows:
            self._probe.look()
        enough = self._probe.rows >= self._target
        if enough or (last and not self.figures):
            self.figures.append(self._probe.figures(figures.epoch, enough))
        self._spent += time.perf_counter() - began

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
        if trainer.settings.class_weight is None:
            return None
        return class_weights(trainer.settings.class_weight, self._targets, trainer.network.output_width)
