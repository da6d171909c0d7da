"""MLPRegressor: scikit-learn's regressor on nnkit's trainer, with more losses and options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.base import RegressorMixin, _fit_context
from sklearn.utils.metaestimators import available_if

from nnkit.data.arrays.device import to_device_of
from nnkit.errors import ConfigError, DataError
from nnkit.estimators._base import _BaseMLP, named_loss
from nnkit.nn.links import inverse_link
from nnkit.nn.losses import Loss, loss_from

__all__ = ["MLPRegressor"]

_REGRESSION_LOSSES = {"squared_error": "mse", "poisson": "poisson_deviance"}  # scikit-learn's name, and ours


class MLPRegressor(RegressorMixin, _BaseMLP):
    """A multi-layer perceptron regressor: scikit-learn's ``MLPRegressor``, and more.

    Parameters
    ----------
    loss : str, dict or Loss, default "squared_error"
        ``squared_error`` (½(ŷ − y)²) or ``poisson`` (half the deviance; the network's output is the logarithm
        of the rate); also ``mae``, ``huber``, ``{"name": "huber", "delta": 0.5}``, or one that was
        registered. Of several targets the losses are added.
    hidden_layer_sizes, activation, solver, alpha, batch_size, learning_rate, learning_rate_init, power_t, \
    max_iter, shuffle, random_state, tol, verbose, warm_start, momentum, nesterovs_momentum, early_stopping, \
    validation_fraction, beta_1, beta_2, epsilon, n_iter_no_change, max_fun
        As for `MLPClassifier`.
    dropout, optimizer, schedule, weight_decay, clip_norm, device, precision, dtype, callbacks, preset
        As for `MLPClassifier`.

    Attributes
    ----------
    loss_, best_loss_, loss_curve_, t_, coefs_, intercepts_, n_features_in_, feature_names_in_, n_iter_, \
    n_layers_, n_outputs_, stopped_early_
        As for `MLPClassifier`. With several targets the reported loss is their mean, but for ``poisson``
        their sum.
    validation_scores_, best_validation_score_ : list of float, float, or None
        R² on the held-out rows after each epoch, and the best of them since the last `fit` began.
    out_activation_ : str
        ``identity`` or ``exp``.

    Examples
    --------
    >>> import numpy as np
    >>> from nnkit import MLPRegressor
    >>> X = np.linspace(-1, 1, 50)[:, None]
    >>> reg = MLPRegressor(hidden_layer_sizes=(16,), activation="tanh", solver="lbfgs", random_state=0)
    >>> reg.fit(X, np.sin(3 * X.ravel())).score(X, np.sin(3 * X.ravel())) > 0.99
    True
    """

    _score_name = "r2"
    n_outputs_: int

    def __init__(
        self,
        loss: Any = "squared_error",
        hidden_layer_sizes: Sequence[int] | int = (100,),
        activation: str = "relu",
        *,
        solver: str = "adam",
        alpha: float = 0.0001,
        batch_size: int | str = "auto",
        learning_rate: str = "constant",
        learning_rate_init: float = 0.001,
        power_t: float = 0.5,
        max_iter: int = 200,
        shuffle: bool = True,
        random_state: Any = None,
        tol: float = 1e-4,
        verbose: bool = False,
        warm_start: bool = False,
        momentum: float = 0.9,
        nesterovs_momentum: bool = True,
        early_stopping: bool = False,
        validation_fraction: float = 0.1,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-8,
        n_iter_no_change: int = 10,
        max_fun: int = 15000,
        dropout: Any = 0.0,
        optimizer: Any = None,
        schedule: Any = None,
        weight_decay: float = 0.0,
        clip_norm: float | None = None,
        device: str = "auto",
        precision: str | None = None,
        dtype: Any = None,
        callbacks: Any = None,
        preset: str | None = None,
    ) -> None:
        # Long, for scikit-learn reads the parameters and their defaults from this signature.
        self._set_arguments(locals())

    @available_if(lambda estimator: estimator._is_stochastic())
    @_fit_context(prefer_skip_nested_validation=True)
    def partial_fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Any:
        """Train for one more epoch, as `MLPClassifier.partial_fit` does."""
        self._check_partial_fit()
        return self._train(X, y, sample_weight, eval_set, incremental=True)

    def predict(self, X: Any) -> Any:
        """Return the values for each row, in the network's dtype.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Rows as in training.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_outputs)
        """
        outputs = self._outputs(X)
        if self.out_activation_ == "exp":
            outputs = inverse_link(outputs, "exp").astype(outputs.dtype)
        return to_device_of(X, outputs[:, 0] if self.n_outputs_ == 1 else outputs)

    def _encode(self, y: NDArray, first: bool, incremental: bool = False, held_out: bool = False) -> NDArray:
        values = y.reshape(len(y), -1)
        if not first and values.shape[1] != self.n_outputs_:
            raise DataError(f"y has {values.shape[1]} targets, and the network has {self.n_outputs_} outputs")
        self.n_outputs_ = values.shape[1]
        if not held_out:
            loss = self._loss(np.dtype(np.float64)) if first else self._bound_loss(np.dtype(np.float64))
            self.out_activation_ = "exp" if loss.link == "exp" else "identity"
        return values

    def _loss(self, dtype: np.dtype) -> Loss:
        table = self.loss if isinstance(self.loss, Loss) else named_loss(self.loss)
        if isinstance(table, dict):
            table["name"] = _REGRESSION_LOSSES.get(table["name"], table["name"])
        loss = loss_from(table)
        if loss.task(1) != "regression":
            raise ConfigError(f"loss {loss.name!r} is for classes; use 'squared_error', or MLPClassifier")
        return replace(loss, reduction="sum")

    def _loss_factor(self) -> float:
        return 1.0 if self.out_activation_ == "exp" else 1.0 / self.n_outputs_
