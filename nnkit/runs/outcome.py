"""The end of a run: the metrics of its model, and what the model's file says of the training."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from nnkit.runs.data import EncodedRows
from nnkit.runs.plan import TrainingPlan

__all__ = ["Outcome", "measured", "model_details"]


@dataclass(frozen=True)
class Outcome:
    """The result of a run.

    Parameters
    ----------
    metrics : dict of str to float
        All that apply to the task.
    rows : str
        Which rows they were measured on: ``test``, ``validation`` or ``training``.
    count : int
        The number of these rows.
    model_path : Path
        The model file.
    undefined : dict of str to str
        Why a metric is NaN, or 0 by convention, on these rows.
    best_threshold : dict of str to float
        Of a binary model with validation rows: the ``threshold`` of the greatest ``f1`` on them, and that F1.
    """

    metrics: dict[str, float]
    rows: str
    count: int
    model_path: Path
    undefined: dict[str, str] = field(default_factory=dict)
    best_threshold: dict[str, float] = field(default_factory=dict)


def measured(plan: TrainingPlan, rows: EncodedRows, model_path: Path) -> Outcome:
    """Measure a trained model on the test rows where there are any, else on those held out or trained on.

    They are the rows that `RunData.measured_rows` returns; those held out are encoded already.
    """
    model, test, train = plan.model, plan.dataset.test, plan.dataset.train
    held_targets = rows.held_targets
    held = None if rows.validation is None else model.network.outputs(rows.validation[0])
    if test is not None:
        kind, target, weights, outputs = "test", test.target, test.weight, model.outputs(test.features)
    elif held is not None:
        kind, target, weights, outputs = "validation", held_targets, rows.held_weights, held
    else:
        kind, target, weights = "training", train.target, train.weight
        outputs = model.outputs(train.features)
    assert target is not None
    metrics = model.measure(outputs, target, sample_weight=weights)
    threshold: dict[str, float] = {}
    if model.task == "binary" and held is not None and held_targets is not None:
        threshold = model.measured_threshold(held, held_targets, rows.held_weights)
    undefined = model.undefined_metrics(metrics, target)
    return Outcome(metrics, kind, len(target), model_path, undefined, threshold)


def model_details(plan: TrainingPlan, ended: str, outcome: Outcome | None) -> dict[str, Any]:
    """Return what the model file tells a reader of the training; no metrics where there is no outcome."""
    shape = plan.dataset.image_shape
    return {
        "data": plan.dataset.name,
        "image_shape": None if shape is None else list(shape),
        "trained_rows": plan.training_rows,
        "ended": ended,
        **plan.trainer.details,
        "metrics": {} if outcome is None else {outcome.rows: _finite(outcome.metrics)},
        "best_threshold": {} if outcome is None else _finite(outcome.best_threshold),
    }


def _finite(values: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in values.items() if np.isfinite(value)}
