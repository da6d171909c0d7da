"""A trained model: network, preprocessing and classes in one object and one file."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.data import json_fields
from nnkit.data.operations import PictureColumns, PlainRows
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError, DataError, ModelFileError, NnkitError
from nnkit.nn.layers import layers_in_words
from nnkit.nn.links import averaged_outputs, inverse_link
from nnkit.nn.losses import Loss, loss_from
from nnkit.nn.metrics import best_f1_threshold, evaluate_metrics, metrics_for, undefined_metrics
from nnkit.nn.network import MODEL_KIND, MODEL_VERSION, PLAIN, Network
from nnkit.run_folder import model_file
from nnkit.tensorfile import read_tensors, write_tensors

if TYPE_CHECKING:
    from nnkit.data.tables.schema import Schema
    from nnkit.feed.features import Features

__all__ = ["MODEL_KIND", "Model", "load"]

# Files with several members have a higher version, which readers without ensembles refuse.
_ENSEMBLE_VERSION = MODEL_VERSION + 1
_LONGEST_REASON = 400
_ESTIMATOR_KEYS = {"class", "parameters", "fitted"}
_MOST_NAMES, _LONGEST_VALUE = 20, 140  # in a summary
# A result that is too large for its type becomes infinite, without a warning of NumPy.
_QUIET = np.errstate(over="ignore", invalid="ignore")


@dataclass(repr=False)
class Model:
    """A trained model, which `nnkit train`, `Trainer.save` and `Network.save` write and `nnkit.load` reads.

    Parameters
    ----------
    network : Network
        With its parameters. For an ensemble, the first member.
    preprocessor : Preprocessor
        Turns a user's rows into the network's inputs.
    target : TargetEncoder
        The task, and the classes or units.
    loss : Loss
        The loss of the training.
    details : dict
        Further JSON values: the data's name, the versions, the metrics at the end of the training.
    estimator : dict or None
        JSON values of a scikit-learn estimator: its ``class``, ``parameters`` and ``fitted`` attributes; None
        if the model was not saved by one.
    others : tuple of Network
        The other members of an ensemble, with the same layers, inputs and dtype. The ensemble predicts the
        mean of its members' probabilities, or of their values.

    Raises
    ------
    ConfigError
        If the members differ in layers, inputs or dtype.
    """

    network: Network
    preprocessor: Preprocessor
    target: TargetEncoder
    loss: Loss
    details: dict[str, Any] = field(default_factory=dict)
    estimator: dict[str, Any] | None = None
    others: tuple[Network, ...] = ()

    def __post_init__(self) -> None:
        kinds = [(member.to_json(), member.arena.dtype) for member in self.members] if self.others else []
        if any(kind != kinds[0] for kind in kinds):
            raise ConfigError("the members of an ensemble must have the same layers, inputs and dtype")

    def __repr__(self) -> str:
        classes = ""
        if self.classes is not None and self.task != "multilabel":
            classes = f", {len(self.classes)} classes"
        layers = layers_in_words(self.network.layers, self.network.inputs)
        return f"<Model: {self.task}{classes}; {layers}; {self.parameter_count:,} parameters>"

    @property
    def members(self) -> tuple[Network, ...]:
        """The networks that are averaged: one, or the members of an ensemble."""
        return (self.network, *self.others)

    @property
    def parameter_count(self) -> int:
        """The number of weights and biases of all members."""
        return sum(math.prod(part.shape) for member in self.members for part in member.arena.segments)

    def only_network(self, what: str) -> Network:
        """Return the network; for an ensemble, raise a `DataError`: `what` needs one."""
        if self.others:
            raise DataError(f"{what} needs one network, and this model is an ensemble of {len(self.members)}")
        return self.network

    @property
    def task(self) -> str:
        """The task: binary, multiclass, multilabel or regression."""
        return self.target.task

    @property
    def classes(self) -> NDArray | None:
        """The classes in the order of `predict_proba`'s columns; None for a regression."""
        return self.target.classes

    @property
    def schema(self) -> Schema | None:
        """The kinds of a table's columns; None if the model was not trained on a table."""
        return self.preprocessor.schema

    @_QUIET
    def outputs(self, X: Any, *, reproducible: bool = False) -> NDArray:
        """Return the raw outputs, shape (samples, outputs); arguments as for `predict`."""
        return self.encoded_outputs(self.preprocessor.transform(X), reproducible=reproducible)

    @_QUIET
    def encoded_outputs(self, rows: Features, *, reproducible: bool = False) -> NDArray:
        """Return the raw outputs, shape (samples, outputs), for rows that are already preprocessed.

        An ensemble's outputs are those of its mean prediction; see `nnkit.nn.links.averaged_outputs`.
        """
        if not self.others:
            return self.network.outputs(rows, reproducible=reproducible)
        outputs = [member.outputs(rows, reproducible=reproducible) for member in self.members]
        return averaged_outputs(outputs, self.loss.link)

    def predict(self, X: Any, threshold: float = 0.5, *, reproducible: bool = False) -> NDArray:
        """Return labels in their original type, or a regression's values in their original units.

        The shape is (samples,), or (samples, outputs) for several outputs.

        Parameters
        ----------
        X : array of shape (samples, features), or table (Arrow, pandas, Polars)
            Rows like those of the training; a table's columns are matched by name. A model of pictures takes
            a path, a Pillow image, a list of these, or an array of shape (samples, height, width) or
            (samples, height, width, channels). A model of one column of text takes a list of texts.
        threshold : float
            The probability above which a binary or multilabel prediction is positive.
        reproducible : bool
            Whether a row's prediction has the same bits in any batch, on the CPU; for its cost see
            `Network.outputs`.

        Raises
        ------
        DataError
            If the columns do not match the model's.
        """
        return self.decoded(self.outputs(X, reproducible=reproducible), threshold)

    @_QUIET
    def decoded(self, outputs: NDArray, threshold: float = 0.5) -> NDArray:
        """Return the prediction for raw outputs, as of `outputs`."""
        if self.task == "regression":
            outputs = inverse_link(outputs, self.loss.link)
        return self.target.predict(outputs, threshold)

    @_QUIET
    def predict_proba(self, X: Any, *, reproducible: bool = False) -> NDArray[np.float64]:
        """Return the probability of each class, or of each label, shape (samples, classes).

        Arguments as for `predict`.

        Raises
        ------
        DataError
            If the model is a regression, or the columns do not match the model's.
        """
        return self.target.probabilities(self.outputs(X, reproducible=reproducible))

    @_QUIET
    def evaluate(
        self,
        X: Any,
        y: ArrayLike,
        metrics: Sequence[str] | None = None,
        sample_weight: ArrayLike | None = None,
        threshold: float = 0.5,
    ) -> dict[str, float]:
        """Return metrics by name.

        Parameters
        ----------
        X : array or table
            As for `predict`.
        y : array_like
            The true labels, or values in their original units.
        metrics : sequence of str, optional
            Their names; by default all that apply to the task.
        sample_weight : array_like of shape (samples,), optional
            Weights of the samples.
        threshold : float
            As for `predict`.

        Raises
        ------
        DataError
            If the rows do not match the model, or a label is unknown.
        """
        return self.measure(self.outputs(X), y, metrics, sample_weight, threshold)

    @_QUIET
    def measure(
        self,
        outputs: NDArray,
        y: ArrayLike,
        metrics: Sequence[str] | None = None,
        sample_weight: ArrayLike | None = None,
        threshold: float = 0.5,
    ) -> dict[str, float]:
        """Return metrics by name for raw outputs, as of `outputs`; other arguments as for `evaluate`."""
        truth = self.target.truth(y)
        if len(truth) != len(outputs):
            raise DataError(f"there are {len(outputs)} rows of features and {len(truth)} targets")
        if self.task == "regression":
            values = self.decoded(outputs).reshape(len(outputs), -1)
        else:
            values, truth = inverse_link(outputs, self.loss.link), truth.astype(np.int64)
        names = self._metrics() if metrics is None else metrics
        return evaluate_metrics(names, self.target.task, truth, values, sample_weight, threshold)

    def undefined_metrics(
        self, metrics: Mapping[str, float], y: ArrayLike, sample_weight: ArrayLike | None = None
    ) -> dict[str, str]:
        """Return why metrics, as of `evaluate`, are undefined for these labels or values, by name."""
        classes = None if self.task == "multilabel" else self.target.classes
        labels = self.target.output_names if classes is None else tuple(map(str, classes.tolist()))
        return undefined_metrics(metrics, self.target.task, self.target.truth(y), labels, sample_weight)

    @_QUIET
    def best_threshold(self, X: Any, y: ArrayLike) -> dict[str, float]:
        """Return the ``threshold`` that maximises a binary model's ``f1`` on these rows, and that F1.

        Raises
        ------
        DataError
            If the rows do not match the model, or it is not binary.
        """
        return self.measured_threshold(self.outputs(X), y)

    @_QUIET
    def measured_threshold(
        self, outputs: NDArray, y: ArrayLike, sample_weight: NDArray | None = None
    ) -> dict[str, float]:
        """Return the result of `best_threshold` for raw outputs, as of `outputs`."""
        if self.task != "binary":
            raise DataError(f"a {self.task} model has no threshold: only a binary one has")
        yes = self.target.probabilities(outputs)[:, 1]
        threshold, f1 = best_f1_threshold(self.target.codes(y), yes, sample_weight)
        return {"threshold": threshold, "f1": f1}

    def _metrics(self) -> tuple[str, ...]:
        """Return the task's metrics, without top-5 accuracy for at most 5 classes, where it is always 1."""
        few = self.task == "multiclass" and self.target.outputs <= 5
        return tuple(name for name in metrics_for(self.target.task) if not (few and name == "top_5_accuracy"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file without code, whole or not at all.

        Raises
        ------
        FileError
            If it cannot be written.
        """
        metadata: dict[str, Any] = {
            "network": self.network.to_json(),
            "dtype": self.network.arena.dtype.name,
            "preprocessing": self.preprocessor.to_json(),
            "target": self.target.to_json(),
            "loss": self.loss.to_json(),
            "details": self.details,
        }
        if self.estimator is not None:
            metadata["estimator"] = self.estimator
        version, parameters = MODEL_VERSION, self.network.parameters()
        if self.others:
            version, metadata["members"] = _ENSEMBLE_VERSION, len(self.members)
            parameters = {
                f"members.{number}.{name}": values
                for number, member in enumerate(self.members)
                for name, values in member.parameters().items()
            }
        write_tensors(path, MODEL_KIND, version, parameters, metadata)

    def summary(self) -> str:
        """Return a text with task, classes, columns, loss and metrics, and a table of the layers."""
        rows = {
            "task": self.task,
            "target": _listed(self.target.names) or "(not named)",
            "classes": "" if self.classes is None or self.target.labels else _listed(self.classes.tolist()),
            "labels": _listed(self.target.labels),
            "positive class": "" if self.target.positive is None else str(self.target.positive),
            "best threshold": self._threshold_words(),
            "pictures": self._picture_words(),
            "columns": _listed(self.preprocessor.input_names or ()),
            "text": "; ".join(map(str, self.preprocessor.text_columns)),
            "members": str(len(self.members)) if self.others else "",
            "inputs": str(self.network.inputs),
            "layers": layers_in_words(self.network.layers),
            "parameters": f"{self.parameter_count:,} {self.network.arena.dtype.name}",
            "loss": self.loss.name,
            "estimator": "" if self.estimator is None else self.estimator["class"],
            **self._detail_words(),
        }
        width = max(map(len, rows))
        lines = [f"{name:<{width}}  {value}" for name, value in rows.items() if value]
        return "\n".join([*lines, "", self.network.summary()])

    def _threshold_words(self) -> str:
        best = self.details.get("best_threshold") or {}
        if self.task != "binary" or not {"threshold", "f1"} <= best.keys():
            return ""
        return f"{best['threshold']:.4g}, with f1 {best['f1']:.4g} on the validation rows"

    def _picture_words(self) -> str:
        settings, operation = self.preprocessor.pictures, self.preprocessor.operations[0]
        if settings is None or not isinstance(operation, PictureColumns):
            return ""
        numbers = (operation.shift, operation.scale)
        shift, scale = (", ".join(f"{value:.4g}" for value in of_channels) for of_channels in numbers)
        return f"{settings}; (value − {shift}) · {scale}"

    def _detail_words(self) -> dict[str, str]:
        """Return the metrics, and the details that fit into a line."""
        words = {}
        for rows, metrics in self.details.get("metrics", {}).items():
            figures = (f"{name.replace('_', ' ')} {value:.4g}" for name, value in metrics.items())
            words[f"{rows} metrics"] = ", ".join(figures)
        for name, value in self.details.items():
            short = isinstance(value, str | int | float) or (isinstance(value, list) and len(value) <= 4)
            if short and len(str(value)) <= _LONGEST_VALUE:
                words[name.replace("_", " ")] = "" if value == [] else str(value)
        return words


def load(path: str | os.PathLike[str]) -> Model:
    """Read a model file; the parameters are put on the CPU, whatever device the model was trained on.

    Parameters
    ----------
    path : path-like
        A file of `Model.save`, `Trainer.save`, `Network.save`, an estimator's `save` or `nnkit train`; or the
        folder of a run, or its name without the time for the newest run of that name.

    Raises
    ------
    FileError
        If the file cannot be read.
    ModelFileError
        If it is truncated, altered, or not written by nnkit.
    """
    tensors, metadata = read_tensors(model_file(Path(path)), MODEL_KIND, _ENSEMBLE_VERSION)
    try:
        return _model(tensors, metadata)
    except NnkitError as error:
        raise ModelFileError(f"{path}: {_cut(str(error))}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, MemoryError) as error:
        raise ModelFileError(
            f"{path}: the file does not describe a model ({_cut(repr(error))}); train it again"
        ) from error


def _listed(names: Iterable[Any]) -> str:
    """Return the names with commas between them, shortened if there are many."""
    words = [str(name) for name in names]
    first = words[:_MOST_NAMES]
    while len(first) > 1 and len(", ".join(first)) > _LONGEST_VALUE:
        first.pop()
    rest = f", … ({len(words):,} in all)" if len(words) > len(first) else ""
    return ", ".join(name[:_LONGEST_VALUE] for name in first) + rest


def _cut(text: str) -> str:
    """Return a message, which may quote the file, shortened to a readable length."""
    return text if len(text) <= _LONGEST_REASON else text[:_LONGEST_REASON] + "…"


def _model(tensors: Mapping[str, NDArray], metadata: dict[str, Any]) -> Model:
    dtype = {"float32": np.float32, "float64": np.float64}[metadata["dtype"]]
    network, *others = (Network.from_json(metadata["network"], t, dtype) for t in _members(tensors, metadata))
    loss = loss_from(metadata["loss"])
    tables = tuple(layer.size for layer in network.embeddings)
    if metadata["preprocessing"] == PLAIN:
        preprocessor = Preprocessor((PlainRows(network.inputs or 0, tables),), metadata["dtype"])
    else:
        preprocessor = Preprocessor.from_json(metadata["preprocessing"])
    if metadata["target"] == PLAIN:
        target = TargetEncoder.plain(loss.task(network.output_width), network.output_width)
    else:
        target = TargetEncoder.from_json(metadata["target"])
    if preprocessor.dtype != metadata["dtype"]:
        raise ModelFileError("the network and the preprocessing compute in different types")
    if tables != preprocessor.embedding_sizes:
        raise ModelFileError("the network's embeddings do not match the columns")
    if preprocessor.width != network.inputs or target.outputs != network.output_width:
        raise ModelFileError("the network does not match the preprocessing and the target")
    if loss.task(target.outputs) != target.task:
        raise ModelFileError(f"the loss {loss.name!r} does not match the {target.task} target")
    details = json_fields.mapping(metadata["details"], "details")
    estimator = _estimator(metadata, details)
    json.dumps([details, estimator], allow_nan=False)  # fails if nnkit could not have written it
    threshold = json_fields.mapping(details.get("best_threshold", {}), "best_threshold")
    for name in threshold:
        json_fields.number(threshold, name)
    for rows, metrics in json_fields.mapping(details.get("metrics", {}), "metrics").items():
        for name in json_fields.mapping(metrics, rows):
            json_fields.number(metrics, name)
    return Model(network, preprocessor, target, loss, details, estimator, tuple(others))


def _members(tensors: Mapping[str, NDArray], metadata: dict[str, Any]) -> list[dict[str, NDArray]]:
    """Return the parameters of each member of an ensemble, or of the only network."""
    if "members" not in metadata:
        return [dict(tensors)]
    count = json_fields.whole(metadata, "members", 2, len(tensors))
    members: dict[str, dict[str, NDArray]] = {f"members.{number}": {} for number in range(count)}
    for name, values in tensors.items():
        place, number, parameter = name.split(".", 2)
        members[f"{place}.{number}"][parameter] = values
    return list(members.values())


def _estimator(metadata: Mapping[str, Any], details: dict[str, Any]) -> dict[str, Any] | None:
    """Return the file's estimator, if any; in older files, remove it from the details."""
    found, earlier = metadata.get("estimator"), details.get("estimator")
    if found is None and isinstance(earlier, dict) and earlier.keys() == _ESTIMATOR_KEYS:
        found = details.pop("estimator")
    if found is None:
        return None
    estimator = json_fields.mapping(found, "estimator")
    json_fields.text(estimator, "class")
    return estimator
