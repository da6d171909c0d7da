"""A trained model: the network, the preprocessing and the classes, in one object and one file."""

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
from nnkit.nn.links import averaged_outputs, predicted
from nnkit.nn.losses import Loss, loss_from
from nnkit.nn.metrics import best_f1_threshold, evaluate_metrics, metrics_for, undefined_metrics
from nnkit.nn.network import MODEL_KIND, MODEL_VERSION, PLAIN, Network
from nnkit.run_folder import model_file
from nnkit.tensorfile import read_tensors, write_tensors

if TYPE_CHECKING:
    from nnkit.data.tables.schema import Schema
    from nnkit.feed.features import Features

__all__ = ["MODEL_KIND", "Model", "load"]

# Of files with several members, which earlier readers would not know.
_ENSEMBLE_VERSION = MODEL_VERSION + 1
_LONGEST_REASON = 400
_ESTIMATOR_KEYS = {"class", "parameters", "fitted"}
# In a summary.
_MOST_NAMES = 20
_LONGEST_VALUE = 140
# What is too large for its type is infinite in the result; NumPy need not warn of it too.
_QUIET = np.errstate(over="ignore", invalid="ignore")


@dataclass(repr=False)
class Model:
    """What `nnkit train`, `Trainer.save` and `Network.save` write and `nnkit.load` reads.

    Parameters
    ----------
    network : Network
        With its parameters. Of an ensemble, the first member.
    preprocessor : Preprocessor
        From rows as the user has them to the network's inputs.
    target : TargetEncoder
        The task, the classes or the units.
    loss : Loss
        What it was trained with.
    details : dict
        JSON values for the reader: the data's name, the versions, the metrics at the end of the training.
    estimator : dict or None
        JSON values that an estimator is read back from: its ``class``, ``parameters`` and ``fitted``
        attributes; None where the model is no estimator's.
    others : tuple of Network
        The other members of an ensemble, of the same layers, inputs and dtype: it predicts the mean of its
        members' probabilities, or of their values.

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
        classes = (
            "" if self.classes is None or self.task == "multilabel" else f", {len(self.classes)} classes"
        )
        layers = layers_in_words(self.network.layers, self.network.inputs)
        return f"<Model: {self.task}{classes}; {layers}; {self.parameter_count:,} parameters>"

    @property
    def members(self) -> tuple[Network, ...]:
        """The networks whose predictions are averaged: one, but for an ensemble."""
        return (self.network, *self.others)

    @property
    def parameter_count(self) -> int:
        """The number of weights and biases of all members."""
        return sum(math.prod(part.shape) for member in self.members for part in member.arena.segments)

    def only_network(self, what: str) -> Network:
        """Return the network; raises a DataError for an ensemble, which `what` is not defined for."""
        if self.others:
            raise DataError(f"{what} needs one network, and this model is an ensemble of {len(self.members)}")
        return self.network

    @property
    def task(self) -> str:
        """One of binary, multiclass, multilabel and regression."""
        return self.target.task

    @property
    def classes(self) -> NDArray | None:
        """The labels, in the order of `predict_proba`'s columns; None for a regression."""
        return self.target.classes

    @property
    def schema(self) -> Schema | None:
        """How the columns of a table are read; None where the model was not trained on a table."""
        return self.preprocessor.schema

    @_QUIET
    def outputs(self, X: Any, *, reproducible: bool = False) -> NDArray:
        """Return the raw outputs, shape (samples, outputs), for rows as the user has them.

        With `reproducible`, a row's have the same bits alone and in any batch; see `Network.outputs`.
        """
        return self.encoded_outputs(self.preprocessor.transform(X), reproducible=reproducible)

    @_QUIET
    def encoded_outputs(self, rows: Features, *, reproducible: bool = False) -> NDArray:
        """Return the raw outputs, shape (samples, outputs), for rows that the preprocessing has encoded.

        Of an ensemble those that stand for its predictions; see `nnkit.nn.links.averaged_outputs`.
        """
        if not self.others:
            return self.network.outputs(rows, reproducible=reproducible)
        outputs = [member.outputs(rows, reproducible=reproducible) for member in self.members]
        return averaged_outputs(outputs, self.loss.link)

    def predict(self, X: Any, threshold: float = 0.5, *, reproducible: bool = False) -> NDArray:
        """Return labels in their own type, or a regression's values in their own units.

        Parameters
        ----------
        X : array of shape (samples, features), or table (Arrow, pandas, Polars)
            Rows as they were trained on; a table's columns are matched by name. A model of pictures takes a
            path, an image of Pillow's, a list of these, or an array of shape (samples, height, width) or
            (samples, height, width, channels). A model of one column of text takes a list of texts.
        threshold : float
            The probability above which binary and multilabel answer yes.
        reproducible : bool
            Whether a row's prediction has the same bits alone and in any batch, on the CPU; what that costs
            is told at `Network.outputs`.

        Returns
        -------
        ndarray of shape (samples,) or (samples, outputs)

        Raises
        ------
        DataError
            If the columns do not match the model's.
        """
        return self.decoded(self.outputs(X, reproducible=reproducible), threshold)

    @_QUIET
    def decoded(self, outputs: NDArray, threshold: float = 0.5) -> NDArray:
        """Return what `predict` does for raw outputs that are there already, as `outputs` gives them."""
        regression = self.task == "regression"
        return self.target.predict(predicted(outputs, self.loss.link) if regression else outputs, threshold)

    @_QUIET
    def predict_proba(self, X: Any, *, reproducible: bool = False) -> NDArray[np.float64]:
        """Return the probability of each class, shape (samples, classes); of each label for multilabel.

        Parameters
        ----------
        X, reproducible
            As for `predict`.

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
            The truth: labels, or values in their own units.
        metrics : sequence of str, optional
            Which; all that apply to the task, where not given.
        sample_weight : array_like of shape (samples,), optional
            Weights of the samples.
        threshold : float
            As for `predict`.

        Raises
        ------
        DataError
            If the rows do not match the model, or a label is unknown to it.
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
        """Return metrics of outputs that are there already; arguments and errors as for `evaluate`.

        Parameters
        ----------
        outputs : ndarray of shape (samples, outputs)
            As `outputs` returns them.
        y, metrics, sample_weight, threshold
            As for `evaluate`.
        """
        encoded = self.target.transform(y, np.float64)
        if len(encoded) != len(outputs):
            raise DataError(f"there are {len(outputs)} rows of features and {len(encoded)} targets")
        if self.task == "regression":
            values = self.decoded(outputs).reshape(len(outputs), -1)
            truth = self.target.predict(encoded).reshape(len(outputs), -1)
        else:
            values, truth = predicted(outputs, self.loss.link), encoded.astype(np.int64)
        names = self._metrics() if metrics is None else metrics
        return evaluate_metrics(names, self.target.task, truth, values, sample_weight, threshold)

    def undefined_metrics(self, metrics: Mapping[str, float], y: ArrayLike) -> dict[str, str]:
        """Return why metrics have no meaning on these rows, by name; see `nnkit.nn.metrics`.

        Parameters
        ----------
        metrics : mapping of str to float
            As `evaluate` returned them.
        y : array_like
            The truth that they were measured on.
        """
        classes = None if self.task == "multilabel" else self.target.classes
        labels = self.target.output_names if classes is None else tuple(map(str, classes.tolist()))
        return undefined_metrics(metrics, self.target.task, self.target.transform(y, np.float64), labels)

    @_QUIET
    def best_threshold(self, X: Any, y: ArrayLike) -> dict[str, float]:
        """Return the ``threshold`` at which a binary model's ``f1`` on these rows is greatest, and that F1.

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
        """Return what `best_threshold` does for raw outputs that are there already."""
        if self.task != "binary":
            raise DataError(f"a {self.task} model's answers do not follow from one threshold")
        yes = self.target.probabilities(outputs)[:, 1]
        threshold, f1 = best_f1_threshold(self.target.codes(y), yes, sample_weight)
        return {"threshold": threshold, "f1": f1}

    def _metrics(self) -> tuple[str, ...]:
        """Return the task's metrics, but for one that cannot be wrong: the top 5 of at most 5 classes."""
        few = self.task == "multiclass" and self.target.outputs <= 5
        return tuple(name for name in metrics_for(self.target.task) if not (few and name == "top_5_accuracy"))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one safetensors file, whole or not at all; nothing in it is code.

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
        if not self.others:
            write_tensors(path, MODEL_KIND, MODEL_VERSION, self.network.parameters(), metadata)
            return
        parameters = {
            f"members.{number}.{name}": values
            for number, member in enumerate(self.members)
            for name, values in member.parameters().items()
        }
        metadata["members"] = len(self.members)
        write_tensors(path, MODEL_KIND, _ENSEMBLE_VERSION, parameters, metadata)

    def summary(self) -> str:
        """Return task, classes, columns, loss and metrics in a line each, and a table of the layers."""
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
        """Return the metrics, and the details that are short: a word, a number, a shape."""
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
    """Read a model file, wherever it was trained; its parameters are put on the CPU.

    Parameters
    ----------
    path : path-like
        What `Model.save`, `Trainer.save`, `Network.save`, an estimator's `save` or `nnkit train` wrote; or a
        run's folder, or its name without the time, for the newest run of that name.

    Returns
    -------
    Model

    Raises
    ------
    FileError
        If the file cannot be read.
    ModelFileError
        If it is truncated, altered, or not one of ours.
    """
    tensors, metadata = read_tensors(model_file(Path(path)), MODEL_KIND, _ENSEMBLE_VERSION)
    try:
        return _model(tensors, metadata)
    except NnkitError as error:
        raise ModelFileError(f"{path}: {_cut(str(error))}") from error
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, MemoryError) as error:
        raise ModelFileError(
            f"{path}: what the file describes is no model ({_cut(repr(error))}); train it anew"
        ) from error


def _listed(names: Iterable[Any]) -> str:
    """Return names with commas between them, the first of them where there are many."""
    words = [str(name) for name in names]
    first = words[:_MOST_NAMES]
    while len(first) > 1 and len(", ".join(first)) > _LONGEST_VALUE:
        first.pop()
    rest = f", … ({len(words):,} in all)" if len(words) > len(first) else ""
    return ", ".join(name[:_LONGEST_VALUE] for name in first) + rest


def _cut(text: str) -> str:
    """Return a message that may quote the file, at a length that can be read."""
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
        raise ModelFileError("the network's embeddings do not fit the columns that the file describes")
    if preprocessor.width != network.inputs or target.outputs != network.output_width:
        raise ModelFileError(
            "the network does not fit the preprocessing and the target that the file describes"
        )
    if loss.task(target.outputs) != target.task:
        raise ModelFileError(f"the loss {loss.name!r} does not fit the {target.task} target")
    details = json_fields.mapping(metadata["details"], "details")
    estimator = _estimator(metadata, details)
    json.dumps([details, estimator], allow_nan=False)  # what cannot be written again is not of our writing
    threshold = json_fields.mapping(details.get("best_threshold", {}), "best_threshold")
    for name in threshold:
        json_fields.number(threshold, name)
    for rows, metrics in json_fields.mapping(details.get("metrics", {}), "metrics").items():
        for name in json_fields.mapping(metrics, rows):
            json_fields.number(metrics, name)
    return Model(network, preprocessor, target, loss, details, estimator, tuple(others))


def _members(tensors: Mapping[str, NDArray], metadata: dict[str, Any]) -> list[dict[str, NDArray]]:
    """Return the parameters of each member of the model in a file."""
    if "members" not in metadata:
        return [dict(tensors)]
    count = json_fields.whole(metadata, "members", 2, len(tensors))
    members: dict[str, dict[str, NDArray]] = {f"members.{number}": {} for number in range(count)}
    for name, values in tensors.items():
        place, number, parameter = name.split(".", 2)
        members[f"{place}.{number}"][parameter] = values
    return list(members.values())


def _estimator(metadata: Mapping[str, Any], details: dict[str, Any]) -> dict[str, Any] | None:
    """Return the estimator that a file holds, if any; one that is among the details is moved out of them."""
    found, earlier = metadata.get("estimator"), details.get("estimator")
    if found is None and isinstance(earlier, dict) and earlier.keys() == _ESTIMATOR_KEYS:
        found = details.pop("estimator")
    if found is None:
        return None
    estimator = json_fields.mapping(found, "estimator")
    json_fields.text(estimator, "class")
    return estimator
