"""The base of the two estimators: checks of parameters, the data for the trainer, the fitted attributes.

Random numbers are drawn from `random_state` in scikit-learn's order: initial weights, held-out rows, orders
of the rows. So one seed gives scikit-learn's networks.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import pairwise
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, RegressorMixin, _fit_context
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state, column_or_1d
from sklearn.utils._param_validation import Interval, InvalidParameterError, Options, StrOptions
from sklearn.utils.validation import _check_sample_weight, check_is_fitted, validate_data

from nnkit.data.arrays.device import from_device
from nnkit.engine.objective import StepSums
from nnkit.engine.places import parameter_name
from nnkit.errors import ConfigError, DataError, DivergenceError, shown
from nnkit.estimators._convergence import Convergence, Progress
from nnkit.estimators._lbfgs import minimise
from nnkit.feed.batch import Rows
from nnkit.feed.features import features_from
from nnkit.model import Model
from nnkit.nn.activations import ActivationFunction, activation_names
from nnkit.nn.layers import Dense, Dropout, Layer
from nnkit.nn.losses import Loss, loss_names
from nnkit.nn.network import Network
from nnkit.nn.optimizers import Adam, Momentum, Nesterov, Optimizer, optimizer_from
from nnkit.nn.targets import loss_targets, loss_weights
from nnkit.training.callbacks import TrainingStatus, callbacks_from
from nnkit.training.state import OptimizerState
from nnkit.training.trainer import Trainer

__all__ = ["_BaseMLP"]

_ACTIVATIONS = {"logistic": "sigmoid"}  # scikit-learn's name, and ours
_LOSSES = ("log_loss", "squared_error")
_AUTO_BATCH = 200
_FEWEST_HELD_OUT = 2


class _Number(Interval):
    """An interval of numbers, without True and False."""

    def is_satisfied_by(self, val: Any) -> bool:
        return not isinstance(val, bool) and super().is_satisfied_by(val)


@dataclass(eq=False)
class _Trained:
    """The private state of a fitted estimator: the network on its device, and the optimizer.

    The estimator predicts with `coefs_` and `intercepts_`, not with the parameters in this network.
    """

    network: Network | None = None
    # Of the network's own parameters, where changes need no copy; empty if they lie on another device.
    views: tuple[NDArray, ...] = ()
    optimizer_state: OptimizerState | None = None
    progress: Progress | None = None
    # The functions that were registered when the network was made.
    activations: Mapping[str, ActivationFunction] | None = None
    loss: Loss | None = None

    def portable(self) -> _Trained:
        """Return a copy for a pickle, without anything on a device."""
        state = self.optimizer_state
        if state is not None and self.network is not None:
            to_host = self.network.arena.backend.to_host
            state = replace(state, slots={name: to_host(slot) for name, slot in state.slots.items()})
        progress = None if self.progress is None else replace(self.progress)
        return _Trained(None, (), state, progress, self.activations, self.loss)


class _BaseMLP(BaseEstimator):
    """The base class of the classifier and the regressor."""

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "loss": [str, dict, Loss],
        "hidden_layer_sizes": ["array-like", _Number(Integral, 1, None, closed="left")],
        "activation": [str],
        "solver": [StrOptions({"lbfgs", "sgd", "adam"})],
        "alpha": [_Number(Real, 0, None, closed="left")],
        "batch_size": [StrOptions({"auto"}), _Number(Integral, 1, None, closed="left")],
        "learning_rate": [StrOptions({"constant", "invscaling", "adaptive"})],
        "learning_rate_init": [_Number(Real, 0, None, closed="neither")],
        "power_t": [_Number(Real, 0, None, closed="left")],
        "max_iter": [_Number(Integral, 1, None, closed="left")],
        "shuffle": ["boolean"],
        "random_state": ["random_state"],
        "tol": [_Number(Real, 0, None, closed="left")],
        "verbose": ["verbose"],
        "warm_start": ["boolean"],
        "momentum": [_Number(Real, 0, 1, closed="both")],
        "nesterovs_momentum": ["boolean"],
        "early_stopping": ["boolean"],
        "validation_fraction": [_Number(Real, 0, 1, closed="left")],
        "beta_1": [_Number(Real, 0, 1, closed="left")],
        "beta_2": [_Number(Real, 0, 1, closed="left")],
        "epsilon": [_Number(Real, 0, None, closed="neither")],
        "n_iter_no_change": [_Number(Integral, 1, None, closed="left"), Options(Real, {np.inf})],
        "max_fun": [_Number(Integral, 1, None, closed="left")],
        "dropout": [_Number(Real, 0, 1, closed="left"), "array-like"],
        "optimizer": [str, dict, Optimizer, None],
        "schedule": [str, dict, object, None],
        "weight_decay": [_Number(Real, 0, None, closed="left")],
        "clip_norm": [_Number(Real, 0, None, closed="neither"), None],
        "device": [str],
        "precision": [StrOptions({"fp32", "fp64", "tf32", "fp16", "bf16"}), None],
        "dtype": [StrOptions({"float32", "float64"}), type, np.dtype, None],
        "callbacks": "no_validation",  # the trainer checks them
        "preset": [StrOptions({"tables"}), None],
    }
    _score_name: ClassVar[str]

    def _set_arguments(self, arguments: Mapping[str, Any]) -> None:
        """Set the arguments of `__init__`, as `locals` returns them, as attributes of the same names."""
        for name, value in arguments.items():
            if name != "self":
                setattr(self, name, value)

    # --- the targets, by subclass ---

    def _encode(self, y: NDArray, first: bool, incremental: bool = False, held_out: bool = False) -> NDArray:
        """Return the targets as the loss reads them; in a first `fit`, learn classes and outputs."""
        raise NotImplementedError

    def _loss(self, dtype: np.dtype) -> Loss:
        """Return the loss that the network is trained with."""
        raise NotImplementedError

    def _loss_factor(self) -> float:
        """Return the factor from the trained loss, a sum over outputs, to the reported one."""
        return 1.0

    def _class_weights(self, targets: NDArray, incremental: bool) -> NDArray | None:
        """Return the weight of each sample by its class; None for 1."""
        return None

    def _reported_loss(self, status: TrainingStatus | StepSums) -> float:
        return (status.loss - status.penalty) * self._loss_factor() + status.penalty

    # --- training ---

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Any:
        """Fit the network to the rows of X and the targets y.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            float32 rows are trained on in float32, all others in float64, unless `dtype` says otherwise. With
            ``preset="tables"``, also a frame with texts, dates and missing values.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or a regression's values.
        sample_weight : array-like of shape (n_samples,), optional
            The weight of each sample: 2 has the effect of giving it twice.
        eval_set : (X, y) or (X, y, sample_weight), optional
            Rows to score after each epoch; `early_stopping` then holds out none.

        Returns
        -------
        self

        Raises
        ------
        InvalidParameterError
            If a parameter is out of its range, before anything is trained.
        ValueError
            If the data cannot be trained on, or the weights became infinite.
        """
        if self.preset is not None:
            from nnkit.estimators import _tables

            _tables.fit(self, X, y, sample_weight, None if eval_set is None else _eval_parts(eval_set))
            return self
        if "model_" in vars(self):
            self._forget()
        return self._train(X, y, sample_weight, eval_set, incremental=False)

    def _forget(self) -> None:
        """Remove what an earlier `fit` has set."""
        for name in [name for name in vars(self) if name.endswith("_") or name == "_trained"]:
            delattr(self, name)

    def __getattr__(self, name: str) -> Any:
        if name in ("coefs_", "intercepts_") and "model_" in vars(self):
            raise AttributeError(
                f'{name} is not there with preset="tables": model_.network.parameters() has the parameters'
            )
        return object.__getattribute__(self, name)  # raises the usual error

    def _train(self, X: Any, y: Any, sample_weight: Any, eval_set: Any, incremental: bool) -> Any:
        sizes = self._hidden_sizes()
        self._check_names()
        self._dropout_rates(len(sizes))
        callbacks = callbacks_from(self.callbacks)
        first = not hasattr(self, "coefs_") or not (self.warm_start or incremental)
        X, y = self._checked(from_device(X), from_device(y), reset=first)
        sample_weight = None if sample_weight is None else _check_sample_weight(from_device(sample_weight), X)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        targets = self._encode(y, first, incremental)
        class_weights = self._class_weights(targets, incremental)
        held_out = self._held_out(eval_set)
        random = check_random_state(self.random_state)
        if first:
            self._begin([X.shape[1], *sizes, self.n_outputs_], X.dtype, random)
        elif sizes != [len(intercept) for intercept in self.intercepts_[:-1]]:
            raise ConfigError(
                f"hidden_layer_sizes = {sizes} are not those of the network to continue with; "
                "set warm_start=False and call fit to start again"
            )
        if self.solver == "lbfgs" and self.optimizer is None:
            self._minimise(X, targets, _product(sample_weight, class_weights))
        else:
            self._descend(X, targets, sample_weight, class_weights, held_out, random, callbacks, incremental)
        if not all(np.isfinite(array).all() for array in (*self.coefs_, *self.intercepts_)):
            raise _not_finite()
        return self

    def _hidden_sizes(self) -> list[int]:
        sizes = _values("hidden_layer_sizes", self.hidden_layer_sizes)
        for size in sizes:
            if isinstance(size, bool) or not isinstance(size, Integral):
                given = shown(self.hidden_layer_sizes)
                raise ConfigError(f"hidden_layer_sizes = {given}: {shown(size)} is not a whole number")
        if any(size <= 0 for size in sizes):
            raise ConfigError(f"hidden_layer_sizes must be > 0, got {sizes}.")
        return [int(size) for size in sizes]

    def _checked(self, X: Any, y: Any, reset: bool) -> tuple[Any, NDArray]:
        dtypes = (np.float64, np.float32) if self.dtype is None else np.dtype(self.dtype)
        with _texts_named():
            return validate_data(
                self,
                X,
                y,
                accept_sparse=["csr", "csc"],
                multi_output=True,
                y_numeric=isinstance(self, RegressorMixin),
                dtype=dtypes,
                order="C",
                reset=reset,
            )

    def _held_out(self, eval_set: Any) -> tuple[Any, NDArray, NDArray | None] | None:
        if eval_set is None:
            return None
        eval_set = _eval_parts(eval_set)
        X, y = self._checked(from_device(eval_set[0]), from_device(eval_set[1]), reset=False)
        weights = None if len(eval_set) == 2 else _check_sample_weight(from_device(eval_set[2]), X)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, self._encode(y, first=False, held_out=True), weights

    def _begin(self, widths: list[int], dtype: np.dtype, random: np.random.RandomState) -> None:
        """Draw initial weights as scikit-learn does (Glorot and Bengio 2010), and forget an earlier fit."""
        self._trained = _Trained()
        self.n_layers_ = len(widths)
        self.n_iter_ = self.t_ = 0
        self.stopped_early_ = False
        self.coefs_, self.intercepts_ = [], []
        factor = 2.0 if self.activation in ("logistic", "sigmoid") else 6.0
        for fan_in, fan_out in pairwise(widths):
            bound = np.sqrt(factor / (fan_in + fan_out))
            self.coefs_.append(random.uniform(-bound, bound, (fan_in, fan_out)).astype(dtype, copy=False))
            self.intercepts_.append(random.uniform(-bound, bound, fan_out).astype(dtype, copy=False))

    def _check_names(self) -> None:
        """Raise scikit-learn's error for a name that is not registered."""
        given = self.loss.get("name") if isinstance(self.loss, dict) else self.loss
        for parameter, name, known in (
            ("activation", self.activation, activation_names() + tuple(_ACTIVATIONS)),
            ("loss", given, loss_names() + _LOSSES),
        ):
            if not isinstance(name, Loss) and name not in known:
                choices = ", ".join(map(repr, sorted(known)))
                raise InvalidParameterError(
                    f"The {parameter!r} parameter of {type(self).__name__} must be a str among "
                    f"{{{choices}}}. Got {name!r} instead."
                )

    def _network(self, dropout: bool = True) -> Network:
        """Return a new network for the present parameters, without them."""
        activation: str = _ACTIVATIONS.get(self.activation) or self.activation
        layers: list[Layer] = []
        rates = self._dropout_rates(len(self.intercepts_) - 1)
        for intercept, rate in zip(self.intercepts_[:-1], rates, strict=True):
            layers.append(Dense(len(intercept), activation))
            if rate > 0 and dropout:
                layers.append(Dropout(rate))
        trained = self._trained
        network = Network([*layers, Dense(len(self.intercepts_[-1]))], activations=trained.activations)
        trained.activations = network.activations
        return network

    def _bound_loss(self, dtype: np.dtype) -> Loss:
        """Return the loss, with the functions that it had when the network was made."""
        loss, trained = self._loss(dtype), self._trained
        trained.loss = loss if trained.loss is None else loss.bound_to(trained.loss)
        return trained.loss

    def _dropout_rates(self, count: int) -> list[float]:
        """Return the rate of each of `count` hidden layers."""
        rates = _values("dropout", self.dropout)
        for rate in rates:
            if isinstance(rate, bool) or not isinstance(rate, Real) or not 0 <= float(rate) < 1:
                raise ConfigError(f"dropout = {shown(self.dropout)}: {shown(rate)} is not a rate in [0, 1)")
        rates = [float(rate) for rate in rates]
        rates = rates * count if len(rates) == 1 else rates
        if len(rates) != count:
            raise ConfigError(
                f"dropout has {len(rates)} rates, and there are {count} hidden layers; give one for all, or "
                "one for each"
            )
        return rates

    def _parameters(self) -> dict[str, NDArray]:
        named = {parameter_name(i, "weight"): coefs for i, coefs in enumerate(self.coefs_)}
        return {**named, **{parameter_name(i, "bias"): bias for i, bias in enumerate(self.intercepts_)}}

    def _keep(self, network: Network) -> None:
        """Set `coefs_` and `intercepts_` from a network: on the CPU as views of its parameters."""
        arena = network.arena
        on_host = isinstance(arena.values, np.ndarray)
        named = {segment.name: arena.view(segment.name) for segment in arena.segments}
        if not on_host:
            named = network.parameters()
        layers = range(len(named) // 2)
        self.coefs_ = [named[parameter_name(i, "weight")] for i in layers]
        self.intercepts_ = [named[parameter_name(i, "bias")] for i in layers]
        self._trained.network = network
        self._trained.views = (*self.coefs_, *self.intercepts_) if on_host else ()

    def _trainer(
        self, X: Any, optimizer: str | Optimizer, random: np.random.RandomState | None = None
    ) -> Trainer:
        """Return a trainer for the present parameters, copied to its device."""
        network = self._network()
        drops = any(layer.dropout for layer in network.layers)
        seed = int(random.randint(2**31)) if drops and random is not None else 0
        precision = self.precision or ("fp64" if X.dtype == np.float64 else "fp32")
        trainer = Trainer(
            network,
            self._bound_loss(X.dtype),
            optimizer,
            device=self.device,
            precision=precision,
            seed=seed,
            schedule="constant" if self.schedule is None else self.schedule,
            l2=self.alpha,
            penalty_on="sum",
            average="rows",
            clip_norm=self.clip_norm,
            metrics=[self._score_name],
        )
        network.initialize(X.shape[1], 0, trainer.dtype, trainer.backend, self._parameters())
        return trainer

    def _minimise(self, X: Any, targets: NDArray, weights: NDArray | None) -> None:
        if any(self._dropout_rates(len(self.intercepts_) - 1)):
            raise ConfigError("solver 'lbfgs' needs a loss that does not change: use 'adam' with dropout")
        trainer = self._trainer(X, "sgd")
        network, count = trainer.network, X.shape[0]
        rows = Rows(
            trainer.backend,
            trainer.dtype,
            features_from(X, X.dtype),
            loss_targets(targets, trainer.loss, self.n_outputs_, count, trainer.dtype),
            loss_weights(weights, count, trainer.dtype),
        )
        limits = {"tolerance": self.tol, "iterations": self.max_iter, "evaluations": self.max_fun}
        found = minimise(network, trainer.loss, trainer.penalty, rows, **limits)
        self.loss_ = self._reported_loss(found.figures)
        self.n_iter_ = min(found.iterations, self.max_iter)
        self._keep(network)
        if self.verbose:
            print(f"Iteration {self.n_iter_}, loss = {self.loss_:.8f}")
        if not found.converged:
            warnings.warn(
                f"lbfgs failed to converge after {found.iterations} iteration(s): {found.message}\n"
                "Increase the number of iterations (max_iter) or scale the data.",
                ConvergenceWarning,
                stacklevel=4,
            )

    def _optimizer(self) -> Optimizer:
        if self.optimizer is not None:
            given = self.optimizer
            has_rate = isinstance(given, Optimizer) or (isinstance(given, dict) and "learning_rate" in given)
            rate = None if has_rate else self.learning_rate_init
            return optimizer_from(given, learning_rate=rate, weight_decay=self.weight_decay or None)
        if self.solver == "sgd":
            kind = Nesterov if self.nesterovs_momentum else Momentum
            return kind(self.learning_rate_init, self.weight_decay, self.momentum, rate_in_velocity=True)
        constants = (self.beta_1, self.beta_2, self.epsilon)
        return Adam(self.learning_rate_init, self.weight_decay, *constants, epsilon_hat=True)

    def _descend(
        self,
        X: Any,
        targets: NDArray,
        sample_weight: NDArray | None,
        class_weights: NDArray | None,
        held_out: tuple[Any, NDArray, NDArray | None] | None,
        random: np.random.RandomState,
        callbacks: tuple[Any, ...],
        incremental: bool,
    ) -> None:
        """Train by an optimizer's steps: `max_iter` epochs, or one if `incremental`."""
        features, weights = features_from(X, X.dtype), _product(sample_weight, class_weights)
        if self.early_stopping and held_out is None:
            kept, held = self._split(targets, random)
            held_out = (features.take(held), targets[held], _taken(sample_weight, held))
            features, targets, weights = features.take(kept), targets[kept], _taken(weights, kept)
            _check_split(held_out[2], weights)
        batch_size, optimizer = self._batch_size(len(features)), self._optimizer()
        trainer = self._trainer(X, optimizer, random)
        state = self._trained.optimizer_state
        if incremental and state is not None:
            trainer.optimizer_state = _on_device(state, trainer)
        convergence = self._convergence(optimizer, len(features), held_out is not None, incremental)
        try:
            trainer.fit(
                features,
                targets,
                epochs=1 if incremental else self.max_iter,
                batch_size=batch_size,
                validation=held_out,
                sample_weight=weights,
                shuffle=_orders(len(features), random) if self.shuffle else False,
                callbacks=[convergence, *callbacks],
                progress=False,
                continued=incremental,
                schedule_epochs=self.max_iter,
            )
        except DivergenceError as error:
            if convergence.best is None:
                raise _not_finite() from error
            convergence.stopped = True  # early stopping has finite weights to return to
        except KeyboardInterrupt:
            warnings.warn("Training interrupted by user.", stacklevel=4)
        self._remember(trainer, convergence, incremental)

    def _convergence(self, optimizer: Optimizer, rows: int, scored: bool, incremental: bool) -> Convergence:
        """Return the callback that ends the training, with the progress of earlier calls."""
        progress = self._trained.progress = self._trained.progress or Progress()
        if not incremental:
            progress.begin_fit()
        return Convergence(
            progress,
            rows,
            self._reported_loss,
            f"validation_{self._score_name}" if scored else None,
            self.early_stopping,
            self.tol,
            self.n_iter_no_change,
            self.learning_rate if self.solver == "sgd" and self.schedule is None else "constant",
            optimizer.learning_rate,
            self.power_t,
            bool(self.verbose),
        )

    def _split(self, targets: NDArray, random: np.random.RandomState) -> tuple[NDArray, NDArray]:
        """Return the rows to train on and those held out: scikit-learn's, for two classes stratified."""
        from sklearn.model_selection import train_test_split

        stratify = targets if isinstance(self, ClassifierMixin) and self.n_outputs_ == 1 else None
        options = {"random_state": random, "test_size": self.validation_fraction, "stratify": stratify}
        kept, held = train_test_split(np.arange(len(targets)), **options)
        if len(held) < _FEWEST_HELD_OUT:
            raise DataError(
                "The validation set is too small. Increase 'validation_fraction' or the size of your dataset."
            )
        return kept, held

    def _batch_size(self, rows: int) -> int:
        if self.batch_size == "auto":
            return min(_AUTO_BATCH, rows)
        if self.batch_size > rows:
            warnings.warn(
                "Got `batch_size` less than 1 or larger than sample size. It is going to be clipped",
                stacklevel=5,
            )
        return int(min(self.batch_size, rows))

    def _remember(self, trainer: Trainer, convergence: Convergence, incremental: bool) -> None:
        """Set the fitted attributes."""
        trained, progress = self._trained, convergence.progress
        trained.optimizer_state = trainer.optimizer_state
        self.stopped_early_ = convergence.stopped and not incremental
        if convergence.best is not None:
            trainer.network.set_parameters(convergence.best)
        self._keep(trainer.network)
        self.n_iter_ = convergence.epochs
        self.t_ = progress.samples
        self.loss_curve_ = progress.losses
        if progress.losses:
            self.loss_ = progress.losses[-1]
        scores = progress.scores
        scored = bool(scores) or self.early_stopping
        self.validation_scores_ = scores if scored else None
        self.best_validation_score_ = progress.best_score if scored else None
        self.best_loss_ = None if self.early_stopping else progress.best_loss
        if not incremental and not convergence.stopped and convergence.epochs == self.max_iter:
            warnings.warn(
                f"Stochastic Optimizer: Maximum iterations ({self.max_iter}) "
                "reached and the optimization hasn't converged yet.",
                ConvergenceWarning,
                stacklevel=5,
            )

    def _check_partial_fit(self) -> None:
        if self.preset is not None or "model_" in vars(self):
            raise ConfigError('partial_fit does not support preset="tables": call fit with all rows')
        # Each call would hold out other rows, and their scores cannot be compared.
        if self.early_stopping:
            raise ConfigError(
                "partial_fit does not support early_stopping=True: set early_stopping=False, or call fit"
            )

    def _is_stochastic(self) -> bool:
        if self.solver == "lbfgs" and self.optimizer is None:
            raise AttributeError(
                f"partial_fit is only available for stochastic optimizers. {self.solver} is not stochastic."
            )
        return True

    # --- prediction ---

    def _outputs(self, X: Any) -> NDArray:
        """Return the network's outputs, shape (n_samples, n_outputs), in the network's dtype."""
        check_is_fitted(self)
        if "model_" in vars(self):
            from nnkit.estimators import _tables

            return _tables.outputs(self, X)
        with _texts_named():
            X = validate_data(self, from_device(X), accept_sparse=["csr", "csc"], reset=False)
        network = self._ready()
        if X.dtype == np.uint8:  # a network would take them for pixels
            X = X.astype(network.arena.dtype)
        return network.outputs(X)

    def _adopt(self, network: Network) -> None:
        """Use this network as that of a fit; later calls continue from it, with a new optimizer."""
        self._trained = _Trained(activations=network.activations)
        self._keep(network)
        if hasattr(self, "loss_curve_"):
            scores = list(self.validation_scores_ or ())
            best_loss = np.inf if self.best_loss_ is None else self.best_loss_
            best_score = -np.inf if self.best_validation_score_ is None else self.best_validation_score_
            self._trained.progress = Progress(
                list(self.loss_curve_), scores, best_loss, best_score, samples=self.t_
            )

    def _ready(self) -> Network:
        """Return the network with `coefs_` and `intercepts_`, which the user may have changed."""
        arrays = (*self.coefs_, *self.intercepts_)
        trained = self._trained
        network = trained.network
        if network is None:
            network = self._network(dropout=False)
            network.initialize(self.coefs_[0].shape[0], 0, self.coefs_[0].dtype, None, self._parameters())
            trained.network = network
        elif [*map(id, arrays)] != [*map(id, trained.views)]:
            # An array that is not a view of the network's own may have been changed in place.
            network.set_parameters(self._parameters())
        return network

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "_trained" in state:
            state["_trained"] = state["_trained"].portable()
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = self.preset is None
        tags.input_tags.allow_nan = tags.input_tags.string = self.preset is not None
        return tags

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that `load` and `nnkit.load` read: safetensors and JSON, no code.

        Parameters
        ----------
        path : path-like
            The file, written whole or not at all.

        Raises
        ------
        FileError
            If it cannot be written.
        DataError
            If a label is of a type that the file cannot hold.
        """
        self.as_model().save(path)

    def as_model(self) -> Model:
        """Return the fitted network as a `Model`, such as `save` writes.

        Raises
        ------
        DataError
            If a label is of a type that a model cannot hold.
        """
        from nnkit.estimators._file import as_model

        check_is_fitted(self)
        return as_model(self)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Any:
        """Return the estimator that `save` wrote, with its parameters and fitted attributes.

        Raises
        ------
        FileError
            If the file cannot be read.
        ModelFileError
            If it is damaged, or holds no estimator of this class.
        """
        from nnkit.estimators._file import load

        return load(cls, path)

    @classmethod
    def from_sklearn(cls, fitted: Any) -> Any:
        """Return the estimator for scikit-learn's own of the same name: same parameters, same predictions.

        Parameters
        ----------
        fitted : sklearn.neural_network.MLPClassifier or MLPRegressor
            Fitted; it stays unchanged. `fit` with ``warm_start`` and `partial_fit` continue from its weights,
            with a new optimizer.

        Raises
        ------
        ConfigError
            If it is an estimator of another class.
        NotFittedError
            If it is not fitted.
        """
        from nnkit.estimators._sklearn import from_sklearn

        estimator = from_sklearn(cls, fitted)
        estimator._trained = _Trained()
        estimator._adopt(estimator._ready())
        return estimator

    def to_sklearn(self) -> Any:
        """Return scikit-learn's own fitted estimator of the same name, with the same predictions.

        Parameters that scikit-learn lacks, such as `dropout` and `optimizer`, are left out, and a loss that
        it lacks becomes the squared error: these affect only further training. The optimizer is new.

        Raises
        ------
        ConfigError
            If scikit-learn lacks the activation, or with ``preset="tables"``.
        NotFittedError
            If this estimator is not fitted.
        """
        from nnkit.estimators._sklearn import to_sklearn

        return to_sklearn(self)


def _values(name: str, given: Any) -> list[Any]:
    """Return a parameter that is one value or a sequence as a list."""
    if not isinstance(given, Iterable):
        return [given]
    if isinstance(given, np.ndarray) and given.ndim == 0:
        raise ConfigError(f"{name} = {shown(given)} is an array without dimensions; give a list")
    return list(given)


def _product(sample_weight: NDArray | None, class_weights: NDArray | None) -> NDArray | None:
    """Return each row's weight; a DataError if all are 0."""
    given = [weights for weights in (sample_weight, class_weights) if weights is not None]
    weights = given[0] * given[1] if len(given) == 2 else given[0] if given else None
    if weights is not None and not weights.any():
        raise DataError("class_weight, times sample_weight where given, is 0 for every row")
    return weights


def _check_split(held_out: NDArray | None, kept: NDArray | None) -> None:
    for part, weights in (("held out", held_out), ("left to train on", kept)):
        if weights is not None and not weights.any():
            raise DataError(
                f"early_stopping: the {len(weights)} rows that are {part} all have weight 0; change "
                "validation_fraction or random_state, or give eval_set"
            )


def _taken(array: NDArray | None, rows: NDArray) -> NDArray | None:
    return None if array is None else array[rows]


def _orders(count: int, random: np.random.RandomState) -> Any:
    """Return a function that returns scikit-learn's orders: each shuffles the last."""
    order = np.arange(count)

    def next_order(epoch: int) -> NDArray[np.int64]:
        nonlocal order
        places = np.arange(count)
        random.shuffle(places)
        order = order[places]
        return order

    return next_order


def _on_device(state: OptimizerState, trainer: Trainer) -> OptimizerState | None:
    """Return an optimizer's state on the trainer's device; None if it is of another optimizer."""
    if set(state.slots) != set(trainer.optimizer.state):
        return None
    backend, slots = trainer.backend, {}
    for name, slot in state.slots.items():
        host = slot if isinstance(slot, np.ndarray) else backend.to_host(slot)
        slots[name] = trainer.network.arena.like_values()
        backend.write(slots[name], host)
    return replace(state, slots=slots)


@contextmanager
def _texts_named() -> Iterator[None]:
    """Add to scikit-learn's error about texts among numbers what to do with them."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("could not convert string to float"):
            raise
        raise DataError(
            f"{str(error)[:200]}: the estimators take numbers alone, no columns of text: encode them first, "
            'for example with OneHotEncoder or TfidfVectorizer, or give a data frame and preset="tables"'
        ) from None


def _not_finite() -> DataError:
    return DataError(
        "Solver produced non-finite parameter weights. The input data may contain large values and need to "
        "be preprocessed."
    )


def _eval_parts(eval_set: Any) -> Any:
    """Return an `eval_set`, which must have two or three parts."""
    if not isinstance(eval_set, tuple | list) or len(eval_set) not in (2, 3):
        raise ConfigError("eval_set is (X, y) or (X, y, sample_weight)")
    return eval_set


def named_loss(loss: str | dict[str, Any]) -> dict[str, Any]:
    """Return a loss, given by name or as a table, as a table with a name."""
    table = {"name": loss} if isinstance(loss, str) else dict(loss)
    return {**table, "name": str(table.get("name", ""))}
