"""The preset "tables" of the estimators: they read and train as `nnkit train` does on a table."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from numbers import Integral
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin
from sklearn.utils import check_array, check_consistent_length, check_random_state, column_or_1d
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import _check_sample_weight

from nnkit.data.arrays.device import from_device
from nnkit.data.examples import Dataset, Examples, RawTable
from nnkit.data.tables.frames import as_table, read_raw
from nnkit.data.tables.options import TableOptions
from nnkit.errors import ConfigError, DataError, DivergenceError
from nnkit.nn.optimizers import Optimizer
from nnkit.nn.schedules import Schedule
from nnkit.runs.config import Config
from nnkit.runs.plan import TrainingPlan

__all__ = ["fit", "outputs"]

# The key of a config that a parameter sets where it differs from its default.
_KEYS = {
    **{name: f"model.{name}" for name in ("activation", "dropout")},
    **{name: f"training.{name}" for name in ("batch_size", "optimizer", "schedule", "weight_decay")},
    **{name: f"training.{name}" for name in ("clip_norm", "class_weight")},
    **{name: f"run.{name}" for name in ("device", "precision")},
    "hidden_layer_sizes": "model.hidden",
    "max_iter": "training.epochs",
    "learning_rate_init": "training.learning_rate",
    "n_iter_no_change": "training.early_stopping",
    "validation_fraction": "data.validation",
}
_WITHOUT_KEY = ("preset", "random_state", "verbose", "callbacks", "early_stopping")


def fit(estimator: Any, X: Any, y: Any, sample_weight: Any, eval_set: Any) -> None:
    """Train by the rules for tables, and set the fitted attributes in place of those of an earlier fit."""
    train = _examples(estimator, X, y, sample_weight)
    held_out = None if eval_set is None else _examples(estimator, *eval_set)
    named = _is_frame(X)
    features: Any = train.features
    types = {} if named else dict.fromkeys(features.column_names, "number")
    raw = RawTable(features, named)
    table, schema = read_raw(raw, TableOptions(types=types), None)
    names = () if getattr(y, "name", None) is None else (str(y.name),)
    columns = tuple(table.column_names)
    examples = Examples(table, train.target, train.weight)
    dataset = Dataset("X", examples, None, names, columns=columns, schema=schema)
    plan = TrainingPlan(_config(estimator, train.target), dataset=dataset, held_out=held_out)
    try:
        plan.fit(plan.encoded(), callbacks=estimator.callbacks, progress=bool(estimator.verbose))
    except DivergenceError as error:
        raise DataError(f"{error}: a lower learning_rate_init may help") from error
    plan.model.details = {"trained_rows": plan.training_rows, **plan.trainer.details}
    estimator._forget()
    estimator.n_features_in_ = len(columns)
    if named:
        estimator.feature_names_in_ = np.array(columns, dtype=object)
    _remember(estimator, plan, hasattr(y, "tocsr"))


def _remember(estimator: Any, plan: TrainingPlan, sparse_labels: bool) -> None:
    """Set the attributes of the training."""
    model, history = plan.model, plan.trainer.history
    estimator.model_, estimator.n_outputs_ = model, model.target.outputs
    links = {"regression": "identity", "multiclass": "softmax"}
    estimator.out_activation_ = links.get(model.task, "logistic")
    estimator.n_iter_, estimator.loss_curve_ = len(history), history["loss"].tolist()
    estimator.loss_ = estimator.loss_curve_[-1]
    scores = f"validation_{estimator._score_name}"
    estimator.validation_scores_ = history[scores].tolist() if scores in history else None
    estimator.stopped_early_ = plan.trainer.state.stopped_early
    if model.classes is not None:
        multilabel = model.task == "multilabel"
        classes = np.arange(model.target.outputs) if multilabel else model.classes
        estimator._know(classes, multilabel, None)
        estimator._sparse_labels = sparse_labels


def outputs(estimator: Any, X: Any) -> NDArray:
    """Return a classifier's raw outputs or a regression's values, shape (n_samples, n_outputs)."""
    table, model = _table(X), estimator.model_
    if not _is_frame(X) and table.num_columns != estimator.n_features_in_:
        raise DataError(
            f"X has {table.num_columns} features, but {type(estimator).__name__} is expecting "
            f"{estimator.n_features_in_} features as input"
        )
    values = model.predict(table) if model.task == "regression" else model.outputs(table)
    return values.reshape(len(values), -1)


def _examples(estimator: Any, X: Any, y: Any, sample_weight: Any = None) -> Examples:
    """Return the rows and their targets, the cells of a frame as they stand there."""
    table, y = _table(X), from_device(y)
    y = y.toarray() if hasattr(y, "toarray") else np.asarray(y)
    y = column_or_1d(y, warn=True) if y.ndim < 2 or y.shape[1] == 1 else y
    check_consistent_length(table, y)
    if isinstance(estimator, ClassifierMixin):
        check_classification_targets(y)
    weights = None if sample_weight is None else _check_sample_weight(from_device(sample_weight), y)
    return Examples(table, y, weights)


def _is_frame(X: Any) -> bool:
    return hasattr(X, "columns")


def _table(X: Any) -> pa.Table:
    """Return a frame, or an array of numbers with the names 0, 1, ..., as a table."""
    X = from_device(X)
    if _is_frame(X):
        return as_table(X)
    X = check_array(X, dtype=np.float64, ensure_all_finite="allow-nan")
    return pa.table({str(place): column for place, column in enumerate(X.T)})


def _config(estimator: Any, y: Any) -> Config:
    """Return the config that the parameters describe: those that differ from their defaults are given."""
    defaults = inspect.signature(type(estimator)).parameters
    parameters = estimator.get_params(deep=False)
    given = [name for name, value in parameters.items() if repr(value) != repr(defaults[name].default)]
    refused = [name for name in given if name not in _KEYS and name not in _WITHOUT_KEY]
    if refused:
        raise ConfigError(
            f'preset="tables" has nothing for {", ".join(refused)}: leave out these parameters, or the preset'
        )
    values = {name: _plain(parameters[name]) for name in given if name in _KEYS}
    if "activation" in given and estimator.activation == "logistic":
        values["activation"] = "sigmoid"
    options = {_KEYS[name]: (name, value) for name, value in values.items()}
    task = "regression"
    if isinstance(estimator, ClassifierMixin):
        task = "multilabel" if type_of_target(y) == "multilabel-indicator" else "classification"
    seed = estimator.random_state
    if not isinstance(seed, Integral):
        seed = check_random_state(seed).randint(2**31)
    others = {"data.task": ("task", task), "run.seed": ("random_state", int(seed))}
    return Config().with_overrides((), {**options, **others})


def _plain(value: Any) -> Any:
    """Return a parameter as a config takes it."""
    if isinstance(value, Optimizer | Schedule):
        return value.to_json()
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {str(_plain(key)): _plain(item) for key, item in value.items()}
    return [*map(_plain, value)] if isinstance(value, Iterable) and not isinstance(value, str) else value
