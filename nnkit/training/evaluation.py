"""The loss and metrics on the validation rows after each epoch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from nnkit.engine.inference import Inference
from nnkit.nn.links import inverse_link
from nnkit.nn.losses import Loss, Task
from nnkit.nn.metrics import evaluate_metrics, get_metric

__all__ = ["Decode", "Evaluation"]

Decode = Callable[[NDArray], NDArray]


class Evaluation:
    """Computes the loss and metrics on the validation rows.

    Parameters
    ----------
    inference : Inference
        Over the validation rows.
    loss : Loss
        Its inverse link turns outputs into predictions.
    task : {"binary", "multiclass", "multilabel", "regression"}
        The task of the loss.
    metrics : sequence of str
        Names of metrics for the task.
    targets : ndarray
        In the form of the loss kernels.
    weights : ndarray of shape (samples,) or None
        Sample weights.
    decode : function, optional
        Converts a regression's values and targets to their original units.
    monitor : str, optional
        One of the metrics, which is needed after each epoch even if it is expensive.
    """

    def __init__(
        self,
        inference: Inference,
        loss: Loss,
        task: Task,
        metrics: Sequence[str],
        targets: NDArray,
        weights: NDArray | None,
        decode: Decode | None,
        monitor: str | None = None,
    ) -> None:
        self._inference = inference
        self._loss = loss
        self._task = task
        self._weights = weights
        self._decode = decode
        self._cheap = [name for name in metrics if get_metric(name).cheap or name == monitor]
        self._final = [name for name in metrics if name not in self._cheap]
        hard = task == "regression" or targets.ndim == 1 or np.array_equal(targets, np.round(targets))
        truth = targets if hard else np.round(targets)
        if task == "multiclass" and truth.ndim == 2:
            truth = targets.argmax(axis=1)
        self._truth = truth if task == "regression" else truth.astype(np.int64)
        if decode is not None:
            self._truth = decode(targets)

    def run(self) -> tuple[NDArray, float]:
        """Return the outputs on the validation rows, and their loss."""
        return self._inference.run()

    def measure(self, outputs: NDArray) -> dict[str, float]:
        """Return the metrics of the outputs that are measured after each epoch."""
        return self._measured(self._cheap, outputs)

    def measure_rest(self, outputs: NDArray) -> dict[str, float]:
        """Return the other metrics, which are too expensive for each epoch."""
        return self._measured(self._final, outputs)

    def _measured(self, names: Sequence[str], outputs: NDArray) -> dict[str, float]:
        values = inverse_link(outputs, self._loss.link)
        if self._decode is not None:
            values = self._decode(values)
        measured = evaluate_metrics(names, self._task, self._truth, values, self._weights)
        return {f"validation_{name}": value for name, value in measured.items()}
