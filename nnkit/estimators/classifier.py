"""MLPClassifier: scikit-learn's classifier on nnkit's trainer, with more losses and options."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from sklearn.base import ClassifierMixin, _fit_context
from sklearn.utils._param_validation import StrOptions
from sklearn.utils.metaestimators import available_if
from sklearn.utils.multiclass import check_classification_targets, type_of_target, unique_labels

from nnkit.data.arrays.device import from_device, to_device_of
from nnkit.errors import ConfigError
from nnkit.estimators._base import _BaseMLP, named_loss
from nnkit.nn.links import inverse_link
from nnkit.nn.losses import Loss, loss_from

__all__ = ["MLPClassifier"]


class MLPClassifier(ClassifierMixin, _BaseMLP):
    """A multi-layer perceptron classifier: scikit-learn's ``MLPClassifier``, and more.

    Parameters
    ----------
    hidden_layer_sizes : array-like of int, default (100,)
        The widths of the hidden layers.
    activation : str, default "relu"
        Of the hidden layers: ``identity``, ``logistic``, ``tanh``, ``relu``; also ``leaky_relu``, ``elu``,
        ``gelu``, ``silu``, ``selu``, ``mish``, ``softplus``, or a registered one.
    solver : {"adam", "sgd", "lbfgs"}, default "adam"
        ``lbfgs`` uses all rows at each step and suits small data.
    alpha : float, default 1e-4
        ``½ alpha Σw²`` over the weights is added to a batch's summed loss.
    batch_size : int or "auto", default "auto"
        ``auto`` is min(200, samples).
    learning_rate : {"constant", "invscaling", "adaptive"}, default "constant"
        Of ``sgd``: constant; ``learning_rate_init / (samples seen + 1)**power_t``; divided by 5 each time the
        training would end.
    learning_rate_init : float, default 1e-3
        The initial learning rate.
    power_t : float, default 0.5
        The exponent of ``invscaling``.
    max_iter : int, default 200
        The maximum number of epochs, or of iterations of ``lbfgs``.
    shuffle : bool, default True
        Whether to shuffle the rows in each epoch.
    random_state : int, RandomState or None
        The seed of weights, held-out rows, orders and dropout; the numbers are drawn in scikit-learn's order.
    tol : float, default 1e-4
        The smallest improvement that counts; ``lbfgs`` ends where no element of the gradient is larger.
    verbose : bool, default False
        Whether to print a line each epoch.
    warm_start : bool, default False
        Whether `fit` continues from the weights of the last call, with a new optimizer. The loss to beat and
        the count of epochs without an improvement are carried over, as in scikit-learn; scores on held-out
        rows are not.
    momentum : float, default 0.9
        Of ``sgd``, in [0, 1].
    nesterovs_momentum : bool, default True
        Whether to use Nesterov's momentum.
    early_stopping : bool, default False
        Whether to judge by the score on held-out rows and to keep the best weights of each `fit`. Not for
        `partial_fit`.
    validation_fraction : float, default 0.1
        The share of the rows that early stopping holds out.
    beta_1, beta_2, epsilon : float, default 0.9, 0.999, 1e-8
        Of ``adam``; epsilon is added after the bias correction of the denominator.
    n_iter_no_change : int, default 10
        The maximum number of epochs in a row without an improvement.
    max_fun : int, default 15000
        The maximum number of evaluations of ``lbfgs``.
    loss : str, dict or Loss, default "log_loss"
        ``log_loss``, also called ``cross_entropy``; with ``{"name": "cross_entropy", "label_smoothing":
        0.1}`` smoothed; or a registered loss with the link ``sigmoid``, for two classes and for labels.
    dropout : float or sequence of float, default 0.0
        The share of a hidden layer's outputs dropped in training: one for all layers, or one for each.
    class_weight : dict or "balanced", optional
        The weight of each class, multiplied with the sample weights.
    optimizer : str, dict or Optimizer, optional
        Any of nnkit's, in place of `solver`.
    schedule : str, dict or Schedule, optional
        Any of nnkit's, in place of `learning_rate`. It spans `max_iter` epochs, in `partial_fit` too.
    weight_decay : float, default 0.0
        Decoupled from the gradient (Loshchilov and Hutter 2017).
    clip_norm : float, optional
        The maximum norm of a batch's gradient.
    device : str, default "auto"
        ``auto`` is CUDA where it works and else the CPU; ``cpu``, ``cuda``, ``cuda:1``.
    precision : {"fp32", "fp64", "tf32", "fp16", "bf16"}, optional
        The precision of the computation; if not given, that of X.
    dtype : {"float32", "float64"}, optional
        The type to convert X to; if not given, float32 and float64 stay and all else becomes float64.
    callbacks : object or sequence of objects, optional
        Called during training by their ``on_*`` methods, as in `Trainer.fit`.
    preset : {"tables"}, optional
        ``tables`` reads and trains as `nnkit train` does on a table. X is a pandas, Polars or Arrow frame,
        with texts, dates and missing values, or an array of numbers, NaN where missing. Parameters at their
        default leave it to the rules for tables: piecewise-linear numbers, epochs by the number of rows, a
        tenth of the rows held out for early stopping unless ``validation_fraction=0``, whatever
        `early_stopping` says. Of the others these count, and any other is an error: `hidden_layer_sizes`,
        `activation`, `dropout`, `batch_size`, `max_iter` (the epochs), `learning_rate_init`, `optimizer`,
        `schedule`, `weight_decay`, `clip_norm`, `class_weight`, `n_iter_no_change`, `validation_fraction`,
        `device`, `precision`, `random_state`, `verbose`, `callbacks`. There are `model_`, `classes_`,
        `n_features_in_`, `feature_names_in_`, `n_outputs_`, `n_iter_`, `loss_`, `loss_curve_`,
        `validation_scores_`, `out_activation_`, `stopped_early_`, but no `coefs_` and no `partial_fit`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
        The labels.
    loss_, best_loss_ : float
        The last loss and the lowest, penalty included; `best_loss_` is None with `early_stopping`.
    loss_curve_ : list of float
        The loss of each epoch.
    validation_scores_ : list of float or None
        The accuracy on the held-out rows after each epoch.
    best_validation_score_ : float or None
        The best of them since the last `fit` began; each `fit` holds out other rows.
    t_ : int
        Samples seen.
    coefs_, intercepts_ : list of ndarray
        Weights of shape (inputs, outputs) and biases of shape (outputs,), layer by layer. They may be
        assigned and changed: the estimator predicts with them.
    n_features_in_, n_iter_, n_layers_, n_outputs_ : int
        Features, epochs of the last call, layers with the input, outputs of the network.
    feature_names_in_ : ndarray of str
        Where X had names.
    out_activation_ : str
        ``softmax`` or ``logistic``.
    model_ : Model
        With ``preset="tables"``, the network and its preprocessing.
    stopped_early_ : bool
        Whether the last `fit` ended because it no longer improved.

    Examples
    --------
    >>> from nnkit import MLPClassifier
    >>> X = [[0.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]
    >>> clf = MLPClassifier((8,), activation="tanh", solver="lbfgs", random_state=1)
    >>> clf.fit(X, ["same", "other", "other", "same"]).predict([[1.0, 1.0]]).tolist()
    ['same']
    """

    _parameter_constraints: ClassVar[dict[str, list[Any]]] = {
        **_BaseMLP._parameter_constraints,
        "class_weight": [StrOptions({"balanced"}), dict, None],
    }
    _score_name = "accuracy"

    def __init__(
        self,
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
        loss: Any = "log_loss",
        dropout: Any = 0.0,
        class_weight: Any = None,
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
    def partial_fit(
        self, X: Any, y: Any, sample_weight: Any = None, classes: Any = None, eval_set: Any = None
    ) -> Any:
        """Train for one more epoch, over the given rows.

        A `schedule` advances by one epoch with each call, as in a `fit` of `max_iter` epochs; after these a
        schedule that depends on its length keeps its last learning rate.

        Parameters
        ----------
        X, y, sample_weight, eval_set
            As for `fit`.
        classes : array-like of shape (n_classes,), optional
            All labels of all calls: required at the first call, but for multilabel targets.

        Returns
        -------
        self

        Raises
        ------
        ConfigError
            With ``early_stopping=True``, as in scikit-learn.
        """
        self._check_partial_fit()
        if not hasattr(self, "classes_"):
            multilabel = type_of_target(from_device(y)) == "multilabel-indicator"
            if classes is None and not multilabel:
                raise ValueError("classes must be passed on the first call to partial_fit.")
            self._know(np.arange(np.shape(y)[1]) if multilabel else unique_labels(classes), multilabel, y)
        elif classes is not None and not np.array_equal(self.classes_, unique_labels(classes)):
            raise ValueError(
                f"`classes={classes!r}` is not the same as on last call to partial_fit, "
                f"was: {self.classes_!r}"
            )
        return self._train(X, y, sample_weight, eval_set, incremental=True)

    def predict(self, X: Any) -> Any:
        """Return the most probable class of each row, or 0 and 1 for each label.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Rows as in training.

        Returns
        -------
        ndarray of shape (n_samples,) or (n_samples, n_labels)
        """
        outputs = self._outputs(X)
        if self._multilabel:
            yes = (outputs > 0).astype(np.int64)
            if self._sparse_labels:
                from scipy.sparse import csr_matrix

                return csr_matrix(yes)
            return to_device_of(X, yes)
        if len(self.classes_) == 1:
            return np.repeat(self.classes_, len(outputs))
        chosen = outputs.argmax(axis=1) if self.n_outputs_ > 1 else (outputs[:, 0] > 0).astype(np.intp)
        return to_device_of(X, self.classes_[chosen])

    def predict_proba(self, X: Any) -> Any:
        """Return the probability of each class, or of each label; in the network's dtype.

        Parameters
        ----------
        X : array, data frame or sparse matrix of shape (n_samples, n_features)
            Rows as in training.

        Returns
        -------
        ndarray of shape (n_samples, n_classes) or (n_samples, n_labels)
        """
        outputs = self._outputs(X)
        return to_device_of(X, self._probabilities(outputs).astype(outputs.dtype))

    def predict_log_proba(self, X: Any) -> Any:
        """Return the logarithms of `predict_proba`, of the same shape: minus infinity where it is 0."""
        outputs = self._outputs(X)
        with np.errstate(divide="ignore"):
            return to_device_of(X, np.log(self._probabilities(outputs).astype(outputs.dtype)))

    def _probabilities(self, outputs: NDArray) -> NDArray[np.float64]:
        if self.n_outputs_ > 1 and not self._multilabel:
            return inverse_link(outputs, "softmax")
        yes = inverse_link(outputs, "sigmoid")
        if self._multilabel:
            return yes
        if len(self.classes_) == 1:
            return np.ones_like(yes)
        return np.hstack([inverse_link(-outputs, "sigmoid"), yes])

    def _know(self, classes: NDArray, multilabel: bool, y: Any) -> None:
        self.classes_ = classes
        self._multilabel = multilabel
        self._sparse_labels = multilabel and hasattr(y, "tocsr")

    def _encode(self, y: Any, first: bool, incremental: bool = False, held_out: bool = False) -> NDArray:
        kind = type_of_target(y, input_name="y")
        if kind in ("continuous", "continuous-multioutput", "unknown"):
            check_classification_targets(y)  # raises an error that names the kind
        if kind == "multiclass-multioutput":
            raise ValueError("Multioutput target data is not supported with label binarization")
        multilabel = kind == "multilabel-indicator"
        labels = np.arange(y.shape[1]) if multilabel else np.unique(y)
        if labels.dtype.kind in "OUS":
            labels = np.array(labels.tolist())
        if first and not incremental:  # the first call of `partial_fit` has set its classes already
            self._know(labels, multilabel, y)
        elif self.warm_start and not first and not held_out and set(labels) != set(self.classes_):
            raise ValueError(
                "warm_start can only be used where `y` has the same classes as in the previous call to fit. "
                f"Previously got {self.classes_}, `y` has {labels}"
            )
        if multilabel != self._multilabel or len(np.setdiff1d(labels, self.classes_)):
            raise ValueError(
                f"`y` has classes not in `self.classes_`. `self.classes_` has {self.classes_}. "
                f"'y' has {labels}."
            )
        single = not multilabel and len(self.classes_) <= 2
        self.n_outputs_ = 1 if single else len(self.classes_)
        self.out_activation_ = "logistic" if single or multilabel else "softmax"
        if multilabel:
            return y.toarray() if hasattr(y, "tocsr") else np.asarray(y)
        codes = np.searchsorted(self.classes_, y)
        return codes[:, None] if single else codes

    def _class_weights(self, targets: NDArray, incremental: bool) -> NDArray | None:
        if self.class_weight is None:
            return None
        if self._multilabel:
            raise ConfigError(
                "class_weight is for classes, not for labels of which a sample may have several"
            )
        if incremental and self.class_weight == "balanced":
            raise ConfigError(
                "class_weight='balanced' needs all rows, and partial_fit sees some: give a dict of weights"
            )
        from sklearn.utils.class_weight import compute_class_weight

        codes = targets.reshape(-1)
        weight = self.class_weight
        if weight == "balanced":
            counts = np.bincount(codes, minlength=len(self.classes_))
            by_class = len(codes) / (np.count_nonzero(counts) * np.maximum(counts, 1))
        else:
            try:
                by_class = compute_class_weight(weight, classes=self.classes_, y=self.classes_)
            except ValueError as error:
                raise ConfigError(f"class_weight = {weight!r}: {error}") from error
            if not (np.isfinite(by_class) & (by_class >= 0)).all():
                raise ConfigError(f"class_weight = {weight!r}: weights must be finite and at least 0")
        return by_class[codes]

    def _loss(self, dtype: np.dtype) -> Loss:
        multiclass = self.n_outputs_ > 1 and not self._multilabel
        table = self.loss if isinstance(self.loss, Loss) else named_loss(self.loss)
        if isinstance(table, Loss):
            loss = table
        elif table["name"] in ("log_loss", "cross_entropy", "binary_cross_entropy"):
            name = "cross_entropy" if multiclass else "binary_cross_entropy"
            # scikit-learn clips probabilities a rounding error away from 0.
            loss = loss_from({"ceiling": -float(np.log(np.finfo(dtype).eps)), **table, "name": name})
        else:
            loss = loss_from(table)
        if loss.link != ("softmax" if multiclass else "sigmoid"):
            raise ConfigError(
                f"loss {loss.name!r} does not fit {'more than two' if multiclass else 'two'} classes; "
                "use 'log_loss'"
            )
        return replace(loss, reduction="sum")

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags
