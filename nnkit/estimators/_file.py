"""Estimators in model files, which `nnkit.load` reads as a `Model`, and `load` as an estimator."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from nnkit.data import json_fields
from nnkit.data.operations import ArrayColumns
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import DataError, ModelFileError
from nnkit.model import Model
from nnkit.model import load as load_model
from nnkit.nn.losses import Loss
from nnkit.nn.optimizers import Optimizer
from nnkit.nn.schedules import Schedule
from nnkit.versions import recorded_versions

__all__ = ["as_model", "load"]


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**1023


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**53


def _is_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_number, value))


# The fitted attributes beside arrays and classes, with a check of each; the solver decides which there are.
_FITTED: dict[str, Callable[[Any], bool]] = {
    "loss_": _is_number,
    "best_loss_": lambda value: value is None or value == math.inf or _is_number(value),
    "loss_curve_": _is_numbers,
    "validation_scores_": lambda value: value is None or _is_numbers(value),
    "best_validation_score_": lambda value: value is None or value == -math.inf or _is_number(value),
    "t_": _is_count,
    "n_iter_": _is_count,
    "n_layers_": _is_count,
    "n_outputs_": _is_count,
    "n_features_in_": _is_count,
    "out_activation_": lambda value: value in ("identity", "exp", "logistic", "softmax"),
    "stopped_early_": lambda value: isinstance(value, bool),
}


def as_model(estimator: Any) -> Model:
    """Return a fitted estimator as a model; see `_BaseMLP.as_model` in `nnkit.estimators._base`.

    It leaves out parameters that are no data (callbacks, a RandomState) and the optimizer's state.
    """
    fitted = {name: _to_json(getattr(estimator, name)) for name in _FITTED if hasattr(estimator, name)}
    if hasattr(estimator, "feature_names_in_"):
        fitted["feature_names_in_"] = estimator.feature_names_in_.tolist()
    if hasattr(estimator, "classes_"):
        fitted["sparse_labels"] = estimator._sparse_labels
    parameters = {name: _to_json(value) for name, value in estimator.get_params(deep=False).items()}
    described = {"class": type(estimator).__name__, "parameters": parameters, "fitted": fitted}
    if hasattr(estimator, "model_"):
        return replace(estimator.model_, estimator=described)
    dtype = estimator.coefs_[0].dtype
    names = tuple(getattr(estimator, "feature_names_in_", ()))
    if len(set(names)) < len(names):  # before scikit-learn 1.9, two columns may have one name
        names = ()
    columns = ArrayColumns(estimator.n_features_in_, False, 0.0, 1.0, names)
    network, loss = estimator._ready(), estimator._loss(dtype)
    preprocessor, target = Preprocessor((columns,), dtype.name), _target(estimator)
    return Model(network, preprocessor, target, loss, recorded_versions(), described)


def _target(estimator: Any) -> TargetEncoder:
    outputs = estimator.n_outputs_
    if not hasattr(estimator, "classes_"):
        return TargetEncoder("regression", outputs, None, np.zeros(outputs), np.ones(outputs), outputs == 1)
    if estimator._multilabel:
        return TargetEncoder("multilabel", outputs, np.array([0, 1]), flat=False)
    classes = estimator.classes_
    if len(classes) < 2:
        raise DataError(f"a classifier of the one class {classes[0]!r} cannot be saved: it has no model")
    if not all(isinstance(label, str | int | float) for label in classes.tolist()):
        raise DataError(
            f"labels of dtype {classes.dtype} cannot be saved: train with texts or numbers, or use pickle"
        )
    return TargetEncoder("binary" if outputs == 1 else "multiclass", outputs, classes)


def load(cls: type, path: str | os.PathLike[str]) -> Any:
    """Return the estimator of this class that a file holds; see `nnkit.estimators._base._BaseMLP.load`."""
    model = load_model(path)
    try:
        described = json_fields.mapping(model.estimator, "estimator")
        name = json_fields.text(described, "class")
        if name != cls.__name__:
            raise ModelFileError(f"it holds an estimator of the class {name[:60]!r}, not {cls.__name__}")
        return _estimator(cls, model, described)
    except ModelFileError as error:
        raise ModelFileError(f"{path}: {error}; nnkit.load reads models") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ModelFileError(f"{path}: its description of an estimator is damaged; train it again") from error


def _estimator(cls: type, model: Model, described: dict[str, Any]) -> Any:
    parameters = json_fields.mapping(described.get("parameters"), "parameters")
    estimator: Any = cls(**{name: _from_json(value) for name, value in parameters.items()})
    estimator._validate_params()
    estimator._check_names()
    fitted = json_fields.mapping(described.get("fitted"), "fitted")
    for name, fits in _FITTED.items():
        if name in fitted:
            value = _from_json(fitted[name])
            if not fits(value):
                raise ModelFileError(f"the estimator's {name} has an invalid value")
            setattr(estimator, name, value)
    of_table = not isinstance(model.preprocessor.operations[0], ArrayColumns)
    if of_table:
        estimator.model_ = replace(model, estimator=None)
    else:
        estimator._adopt(model.only_network("an estimator"))
    if "feature_names_in_" in fitted:
        estimator.feature_names_in_ = np.array(json_fields.texts(fitted, "feature_names_in_"), dtype=object)
    if model.classes is not None:
        multilabel = model.task == "multilabel"
        classes = np.arange(model.target.outputs) if multilabel else model.classes
        estimator._know(classes, multilabel, None)
        estimator._sparse_labels = json_fields.flag(fitted, "sparse_labels")
    width = estimator.n_features_in_ if of_table else model.preprocessor.width
    if estimator.n_outputs_ != model.target.outputs or estimator.n_features_in_ != width:
        raise ModelFileError("the description of the estimator does not match the network")
    if not of_table:
        estimator._network()  # raises if the parameters describe none
    return estimator


def _to_json(value: Any) -> Any:
    """Return a parameter or attribute as JSON; None if it is no data."""
    if isinstance(value, Optimizer | Schedule | Loss):
        return value.to_json()
    if isinstance(value, type | np.dtype):
        return np.dtype(value).name
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not math.isfinite(value):
        return {"number": repr(value)}
    if isinstance(value, dict):
        return {"pairs": [[_to_json(key), _to_json(item)] for key, item in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_to_json(item) for item in value]}
    if isinstance(value, list | np.ndarray):
        return [_to_json(item) for item in value]
    return value if isinstance(value, bool | int | float | str | None) else None


def _from_json(value: Any) -> Any:
    if isinstance(value, dict) and set(value) == {"number"}:
        return float(value["number"])
    if isinstance(value, dict) and set(value) == {"pairs"}:
        return {_from_json(key): _from_json(item) for key, item in value["pairs"]}
    if isinstance(value, dict) and set(value) == {"tuple"}:
        return tuple(_from_json(item) for item in value["tuple"])
    return value
