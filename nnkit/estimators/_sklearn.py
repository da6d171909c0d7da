"""scikit-learn's own fitted MLPs as nnkit's estimators, and back."""

from __future__ import annotations

from typing import Any

import numpy as np
from sklearn import neural_network
from sklearn.base import ClassifierMixin, is_classifier
from sklearn.preprocessing import LabelBinarizer
from sklearn.utils.validation import check_is_fitted

from nnkit.errors import ConfigError

__all__ = ["from_sklearn", "to_sklearn"]

_ACTIVATIONS = {name: name for name in ("identity", "logistic", "tanh", "relu")} | {"sigmoid": "logistic"}
# Fitted attributes that both have, with the same meaning; the solver decides which there are.
_FITTED = (
    *("n_features_in_", "feature_names_in_", "n_iter_", "n_layers_", "n_outputs_", "out_activation_", "t_"),
    *("loss_", "best_loss_", "loss_curve_", "validation_scores_", "best_validation_score_"),
)


def from_sklearn(cls: type, fitted: Any) -> Any:
    """Return nnkit's estimator with the parameters and fitted attributes of scikit-learn's."""
    theirs = _theirs(cls)
    if not isinstance(fitted, theirs):
        raise ConfigError(
            f"{cls.__name__}.from_sklearn takes a fitted sklearn.neural_network.{theirs.__name__}, "
            f"not {type(fitted).__name__}"
        )
    check_is_fitted(fitted)
    estimator: Any = cls(**fitted.get_params(deep=False))
    _copy_fitted(fitted, estimator)
    estimator.stopped_early_ = False
    if is_classifier(fitted):
        labels = fitted._label_binarizer
        estimator._know(fitted.classes_.copy(), labels.y_type_ == "multilabel-indicator", None)
        estimator._sparse_labels = estimator._multilabel and labels.sparse_input_
    return estimator


def to_sklearn(estimator: Any) -> Any:
    """Return scikit-learn's estimator with the parameters and fitted attributes of nnkit's."""
    theirs = _theirs(type(estimator))
    check_is_fitted(estimator)
    if hasattr(estimator, "model_"):
        raise ConfigError(
            'an estimator with preset="tables" prepares columns, which scikit-learn\'s does not'
        )
    if estimator.activation not in _ACTIVATIONS:
        known = ", ".join(sorted(set(_ACTIVATIONS.values())))
        raise ConfigError(f"scikit-learn has no activation {estimator.activation!r}: it has {known}")
    given, known_to_it = estimator.get_params(deep=False), theirs().get_params(deep=False)
    parameters = {name: value for name, value in given.items() if name in known_to_it}
    parameters["activation"] = _ACTIVATIONS[estimator.activation]
    parameters["hidden_layer_sizes"] = tuple(estimator._hidden_sizes())
    if not is_classifier(estimator):
        parameters |= _regression_loss(estimator, "loss" in known_to_it)
    fitted = theirs(**parameters)
    _copy_fitted(estimator, fitted)
    if is_classifier(estimator):
        fitted._label_binarizer = _label_binarizer(estimator)
        fitted.classes_ = fitted._label_binarizer.classes_
    # What its `partial_fit` and `warm_start` read beside the public attributes.
    fitted._no_improvement_count = 0
    fitted._best_coefs = [array.copy() for array in fitted.coefs_]
    fitted._best_intercepts = [array.copy() for array in fitted.intercepts_]
    return fitted


def _theirs(cls: type) -> Any:
    is_of_classes = issubclass(cls, ClassifierMixin)
    return neural_network.MLPClassifier if is_of_classes else neural_network.MLPRegressor


def _copy_fitted(source: Any, target: Any) -> None:
    for name in _FITTED:
        if hasattr(source, name):
            value = getattr(source, name)
            setattr(target, name, value.copy() if hasattr(value, "copy") else value)
    for name in ("coefs_", "intercepts_"):
        setattr(target, name, [np.array(array) for array in getattr(source, name)])


def _label_binarizer(estimator: Any) -> LabelBinarizer:
    """Return the encoder of labels that scikit-learn's classifier would have fitted."""
    if not estimator._multilabel:
        return LabelBinarizer().fit(estimator.classes_)
    from scipy.sparse import csr_matrix

    labels = np.vstack([np.zeros(estimator.n_outputs_, int), np.ones(estimator.n_outputs_, int)])
    return LabelBinarizer().fit(csr_matrix(labels) if estimator._sparse_labels else labels)


def _regression_loss(estimator: Any, has_losses: bool) -> dict[str, str]:
    name = "poisson" if estimator.out_activation_ == "exp" else "squared_error"
    if not has_losses and name == "poisson":
        raise ConfigError("this version of scikit-learn has no Poisson loss; upgrade it to 1.7")
    return {"loss": name} if has_losses else {}
