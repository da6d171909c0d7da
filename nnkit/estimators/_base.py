"""What the two estimators share: checks of parameters, the data for the trainer, the fitted attributes.

`random_state` is drawn from as scikit-learn draws from it, so that one number gives
its networks: initial weights, held-out rows, orders.
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
from nnkit.engine.places import parameter_name
from nnkit.errors import ConfigError, DataError, DivergenceError, shown
from nnkit.estimators._convergence import Convergence, Progress
from nnkit.estimators._lbfgs import minimise
from nnkit.feed.batch import Rows
from nnkit.feed.features import features_from
from nnkit.nn.activations import ActivationFunction, activation_names
from nnkit.nn.layers import Dense, Dropout, Layer
from nnkit.nn.losses import Loss, loss_names
from nnkit.nn.network import Network
from nnkit.nn.optimizers import Adam, Momentum, Nesterov, Optimizer, optimizer_from
from nnkit.nn.targets import loss_targets, loss_weights
from nnkit.training.callbacks import callbacks_from
from nnkit.training.state import OptimizerState
from nnkit.training.trainer import Trainer

__all__ = ["_BaseMLP"]

_ACTIVATIONS = {"logistic": "sigmoid"}  # scikit-learn's names of ours
_LOSSES = ("log_loss", "squared_error")
_AUTO_BATCH = 200
_FEWEST_HELD_OUT = 2


class _Number(Interval):
    """An interval of numbers, of which True and False are none."""

    def is_satisfied_by(self, val: Any) -> bool:
        return not isinstance(val, bool) and super().is_satisfied_by(val)


@dataclass(eq=False)
class _Trained:
    """What an estimator keeps beside its public attributes: the network on its device, and the optimizer.

    `coefs_` and `intercepts_` are what counts. `views` are views into the network's own parameters, in which
    a change needs no copying; empty where the parameters lie on another device or there is no network yet.
    `activations` and `loss` are what was registered when the network was made.
    """

    network: Network | None = None
    views: tuple[NDArray, ...] = ()
    optimizer_state: OptimizerState | None = None
    progress: Progress | None = None
    activations: Mapping[str, ActivationFunction] | None = None
    loss: Loss | None = None

    def portable(self) -> _Trained:
        """Return what a pickle takes: nothing that lives on a device."""
        state = self.optimizer_state
        if state is not None and self.network is not None:
            to_host = self.network.arena.backend.to_host
            state = replace(state, slots={name: to_host(slot) for name, slot in state.slots.items()})
        progress = None if self.progress is None else replace(self.progress)
        return _Trained(None, (), state, progress, self.activations, self.loss)


class _BaseMLP(BaseEstimator):
    """What the classifier and the regressor share."""

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
    }
    _score_name: ClassVar[str]

    # --- what a subclass says of its targets ---

    def _encode(self, y: NDArray, first: bool, incremental: bool = False, held_out: bool = False) -> NDArray:
        """Return the targets as the loss reads them; in a first `fit`, learn what they are."""
        raise NotImplementedError

    def _loss(self, dtype: np.dtype) -> Loss:
        """Return the loss that the network is trained with."""
        raise NotImplementedError

    def _share_told(self) -> float:
        """Return what makes the loss that is told of the one that is trained, a sum over outputs."""
        return 1.0

    def _class_weights(self, targets: NDArray, incremental: bool) -> NDArray | None:
        """Return what each sample counts for by its class; None for 1."""
        return None

    # --- training ---

    @_fit_context(prefer_skip_nested_validation=True)
    def fit(self, X: Any, y: Any, sample_weight: Any = None, eval_set: Any = None) -> Any:
        """Fit the network to the rows of X and the targets y.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            float32 rows are trained on in float32, all others in float64, unless `dtype` says otherwise.
        y : array-like of shape (n_samples,) or (n_samples, n_outputs)
            Labels, or a regression's values.
        sample_weight : array-like of shape (n_samples,), optional
            What each sample counts for: 2 is as good as having it twice.
        eval_set : (X, y) or (X, y, sample_weight), optional
            Scored after each epoch; with `early_stopping` in place of held-out rows.

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
        return self._train(X, y, sample_weight, eval_set, incremental=False)

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
                "set warm_start=False and call fit to begin anew"
            )
        if self.solver == "lbfgs" and self.optimizer is None:
            self._minimise(X, targets, _counting(_times(sample_weight, class_weights)))
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
        if not isinstance(eval_set, tuple | list) or len(eval_set) not in (2, 3):
            raise ConfigError("eval_set is (X, y) or (X, y, sample_weight)")
        X, y = self._checked(from_device(eval_set[0]), from_device(eval_set[1]), reset=False)
        weights = None if len(eval_set) == 2 else _check_sample_weight(from_device(eval_set[2]), X)
        if y.ndim == 2 and y.shape[1] == 1:
            y = column_or_1d(y, warn=True)
        return X, self._encode(y, first=False, held_out=True), weights

    def _begin(self, widths: list[int], dtype: np.dtype, random: np.random.RandomState) -> None:
        """Draw weights as scikit-learn draws them (Glorot and Bengio 2010), and forget what was before."""
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
        """Refuse names that are not registered, in scikit-learn's words."""
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
        """Return the network, described anew and without parameters."""
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
        """Show the network's parameters as scikit-learn's attributes: on the CPU as views into the arena."""
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
        """Return a trainer over the present parameters, put on its device."""
        network = self._network()
        drops = any(layer.dropout for layer in network.layers)
        seed = int(random.randint(2**31)) if drops and random is not None else 0
        precision = self.precision or ("fp64" if X.dtype == np.float64 else "fp32")
        trainer = Trainer(
            network,
            self._bound_loss(X.dtype),
            optimizer,
            self.device,
            precision,
            seed,
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
        found = minimise(
            network,
            trainer.loss,
            trainer.penalty,
            rows,
            tolerance=self.tol,
            iterations=self.max_iter,
            evaluations=self.max_fun,
        )
        figures = found.figures
        self.loss_ = (figures.loss - figures.penalty) * self._share_told() + figures.penalty
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
        return Adam(
            self.learning_rate_init,
            self.weight_decay,
            self.beta_1,
            self.beta_2,
            self.epsilon,
            epsilon_hat=True,
        )

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
        trained, optimizer = self._trained, self._optimizer()
        features = features_from(X, X.dtype)
        weights = _counting(_times(sample_weight, class_weights))
        if self.early_stopping and held_out is None:
            kept, held = self._split(targets, random)
            held_weights, weights = _taken(sample_weight, held), _taken(weights, kept)
            for part, given in (("held out", held_weights), ("left to train on", weights)):
                if given is not None and not given.any():
                    raise DataError(
                        f"early_stopping: the {len(given)} rows that are {part} all have weight 0; change "
                        "validation_fraction or random_state, or give eval_set"
                    )
            held_out = (features.take(held), targets[held], held_weights)
            features, targets = features.take(kept), targets[kept]
        rows, batch_size = len(features), self._batch_size(len(features))
        trainer = self._trainer(X, optimizer, random)
        if incremental and trained.optimizer_state is not None:
            trainer.optimizer_state = _on_device(trained.optimizer_state, trainer)
        progress = trained.progress or Progress()
        if not incremental:
            progress.begin_fit()
        trained.progress = progress
        share = self._share_told()
        convergence = Convergence(
            progress,
            rows,
            lambda figures: (figures.loss - figures.penalty) * share + figures.penalty,
            None if held_out is None else f"validation_{self._score_name}",
            self.early_stopping,
            self.tol,
            self.n_iter_no_change,
            self.learning_rate if self.solver == "sgd" and self.schedule is None else "constant",
            optimizer.learning_rate,
            self.power_t,
            bool(self.verbose),
        )
        try:
            trainer.fit(
                features,
                targets,
                epochs=1 if incremental else self.max_iter,
                batch_size=batch_size,
                validation=held_out,
                sample_weight=weights,
                shuffle=_orders(rows, random) if self.shuffle else False,
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

    def _split(self, targets: NDArray, random: np.random.RandomState) -> tuple[NDArray, NDArray]:
        """Return the rows to train on and those held out, parted as by scikit-learn: two classes by class."""
        from sklearn.model_selection import train_test_split

        stratify = targets if isinstance(self, ClassifierMixin) and self.n_outputs_ == 1 else None
        kept, held = train_test_split(
            np.arange(len(targets)),
            random_state=random,
            test_size=self.validation_fraction,
            stratify=stratify,
        )
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
        """Leave what a fitted estimator has."""
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
        """Refuse what would compare scores of the calls' different held-out rows, as scikit-learn does."""
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
        with _texts_named():
            X = validate_data(self, from_device(X), accept_sparse=["csr", "csc"], reset=False)
        network = self._ready()
        if X.dtype == np.uint8:  # numbers here, where a network would take them for pixels
            X = X.astype(network.arena.dtype)
        return network.outputs(X)

    def _adopt(self, network: Network) -> None:
        """Take this network as that of a fit; later calls continue from it, with a new optimizer."""
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
        """Return the network with the present `coefs_` and `intercepts_`, which the user may have changed."""
        arrays = (*self.coefs_, *self.intercepts_)
        trained = self._trained
        network = trained.network
        if network is None:
            network = self._network(dropout=False)
            network.initialize(self.coefs_[0].shape[0], 0, self.coefs_[0].dtype, None, self._parameters())
            trained.network = network
        elif [*map(id, arrays)] != [*map(id, trained.views)]:
            # Nothing tells whether an array that is not the network's own was changed in place.
            network.set_parameters(self._parameters())
        return network

    def __getstate__(self) -> dict[str, Any]:
        state = dict(super().__getstate__())
        if "_trained" in state:
            state["_trained"] = state["_trained"].portable()
        return state

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        return tags

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a file that `load` and `nnkit.load` read: safetensors and JSON, nothing of it code.

        Parameters
        ----------
        path : path-like
            The file, written whole or not at all.

        Raises
        ------
        FileError
            If it cannot be written.
        DataError
            If a label is of a type that the file has no place for.
        """
        from nnkit.estimators._file import save

        check_is_fitted(self)
        save(self, path)

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


def _values(name: str, given: Any) -> list[Any]:
    """Return the values of a parameter that is one value or a sequence of them."""
    if not isinstance(given, Iterable):
        return [given]
    if isinstance(given, np.ndarray) and given.ndim == 0:
        raise ConfigError(f"{name} = {shown(given)} is an array without dimensions; give a list")
    return list(given)


def _times(weights: NDArray | None, factors: NDArray | None) -> NDArray | None:
    if weights is None or factors is None:
        return factors if weights is None else weights
    return weights * factors


def _counting(weights: NDArray | None) -> NDArray | None:
    """Return the weights, unless every row's is 0; of sample_weight alone it has been said before."""
    if weights is not None and not weights.any():
        raise DataError("class_weight, times sample_weight where given, is 0 for every row")
    return weights


def _taken(array: NDArray | None, rows: NDArray) -> NDArray | None:
    return None if array is None else array[rows]


def _orders(count: int, random: np.random.RandomState) -> Any:
    """Return scikit-learn's orders: each shuffles the one before."""
    order = np.arange(count)

    def next_order(epoch: int) -> NDArray[np.int64]:
        nonlocal order
        places = np.arange(count)
        random.shuffle(places)
        order = order[places]
        return order

    return next_order


def _on_device(state: OptimizerState, trainer: Trainer) -> OptimizerState | None:
    """Return an optimizer's state on the trainer's device, if it is one of this optimizer."""
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
    """Say what to do with texts where scikit-learn's check finds them among numbers."""
    try:
        yield
    except ValueError as error:
        if not str(error).startswith("could not convert string to float"):
            raise
        raise DataError(
            f"{str(error)[:200]}: the estimators take numbers alone, no columns of text: encode them before, "
            "for example with OneHotEncoder or TfidfVectorizer, or learn from the table with `nnkit train`"
        ) from None


def _not_finite() -> DataError:
    return DataError(
        "Solver produced non-finite parameter weights. The input data may contain large values and need to "
        "be preprocessed."
    )


def named_loss(loss: str | dict[str, Any]) -> dict[str, Any]:
    """Return a loss that is given by name or as a table as a table that has a name."""
    table = {"name": loss} if isinstance(loss, str) else dict(loss)
    return {**table, "name": str(table.get("name", ""))}
