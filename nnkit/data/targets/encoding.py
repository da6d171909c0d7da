"""Encode a target for the loss, and turn a network's outputs back into labels or values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnkit.checks import Choice
from nnkit.data import json_fields
from nnkit.data.json_fields import require
from nnkit.data.targets.guess import MULTILABEL, guess_task, notes_on_labels, notes_on_values
from nnkit.data.targets.transforms import TRANSFORMS, TargetTransform, TransformName
from nnkit.data.targets.values import (
    as_numbers,
    called,
    check_target,
    distinct_values,
    encode_lists,
    find_labels,
    find_separator,
    is_number,
    is_zeros_and_ones,
    join_labels,
    listed,
    looks_like_lists,
    shown,
)
from nnkit.errors import ConfigError, DataError
from nnkit.nn.links import inverse_link
from nnkit.nn.losses import Task

__all__ = ["TASKS", "TargetEncoder"]

TASKS: tuple[Task, ...] = get_args(Task)

# A text target of more rows than this, all different, is an identifier and not a class.
_IDENTIFIER_ROWS = 20
_EXACT = 2.0**53  # from here on, float64 skips whole numbers

_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_LABEL_TYPES = ("bool", "str", "object", "float16", "float32", "float64", *_INTEGERS)


@dataclass(frozen=True, eq=False)
class TargetEncoder:
    """What a target means: the task, the classes or the units, and the width of the network's last layer."""

    task: Task
    outputs: int  # of the network: 1 for binary, the number of classes for multiclass, else of columns
    # The labels in their own type, ascending, except that binary has the positive class second, shape (K,);
    # for multilabel, no and yes in the target's type; None for a regression.
    classes: NDArray | None = None
    # A regression's value is ``output * scale + mean``, of shape (outputs,), before `warp` is inverted.
    mean: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None
    flat: bool = True  # whether the target has one dimension, so that predictions have one too
    names: tuple[str, ...] = ()  # the target's columns
    notes: tuple[str, ...] = ()  # for the user, such as on a close guess
    labels: tuple[str, ...] = ()  # of each output, for a multilabel target of one column of lists
    separator: str = ""  # between the labels of such a list
    warp: TargetTransform | None = None  # of a regression's values, before they are standardised
    # The least and the greatest training value of a regression, shape (2, outputs), to which predictions are
    # clamped; None if they are not.
    bounds: NDArray[np.float64] | None = None

    @classmethod
    def fit(
        cls,
        target: ArrayLike,
        task: str = "auto",
        names: Sequence[str] = (),
        positive: Any = None,
        transform: TransformName = "none",
        clamp: bool = False,
    ) -> TargetEncoder:
        """Read the task, the classes or the units from the training rows.

        With ``task="auto"`` texts and booleans are classes. Whole numbers are classes if they have two
        values, if they have at most 20 (and two rows a value on average), or if they run from 0 or 1 without
        a gap and are at most 1000 and at most 5 % of the rows. Any other numbers are a regression. Two
        columns or more are multilabel if all are 0 and 1, and else a regression with several targets. One
        column, its cells lists of labels such as ``a;c``, is multilabel only if `task` says so.

        Parameters
        ----------
        target : array of shape (samples,) or (samples, k)
        task : {"auto", "binary", "multiclass", "multilabel", "regression"}
        names : sequence of str
            The target's columns, for messages.
        positive : str, number or bool, optional
            The class of a binary target for which precision, recall and F1 are measured; without it, the
            second of the sorted two.
        transform : {"none", "log", "quantile"}
            For a regression: learn the logarithm of the target, which must be positive, or its normal score
            by the quantiles of the training rows. Predictions are in the target's own units.
        clamp : bool
            For a regression: whether predictions are clamped to the range of the training rows.

        Raises
        ------
        DataError
            Where the target is missing in a row, has one class only, does not suit the task, or has no
            logarithm.
        """
        Choice(("auto", *TASKS))("task", task)
        Choice(TRANSFORMS)("target_transform", transform)
        names, values = tuple(names), check_target(target, names)
        encoder = _fit(values, task, names, transform)
        if encoder.task == "regression":
            numbers = encoder.truth(values)
            bounds = np.stack([numbers.min(axis=0), numbers.max(axis=0)]) if clamp else None
            encoder = replace(encoder, bounds=bounds)
        elif transform != "none" or clamp:
            key = "clamp_predictions" if transform == "none" else "target_transform"
            raise ConfigError(
                f"{called(names)}`{key}` is for a regression, and this is a {encoder.task} target: leave "
                "it out"
            )
        return encoder if positive is None else encoder._with_positive(positive)

    def _with_positive(self, positive: Any) -> TargetEncoder:
        """Return the encoder with the classes in the order [negative, positive]."""
        if self.task != "binary" or self.classes is None:
            raise ConfigError(
                f"{called(self.names)}`positive` is one class of two, and this is a {self.task} target: "
                "leave it out"
            )
        first, second = (_is_same(label, positive) for label in self.classes.tolist())
        if not first and not second:
            raise ConfigError(
                f"{called(self.names)}`positive` is {shown(positive)}, which is not there: the classes are "
                f"{listed(self.classes.tolist())}"
            )
        return replace(self, classes=self.classes[::-1].copy()) if first else self

    @classmethod
    def plain(cls, task: Task, outputs: int) -> TargetEncoder:
        """Return the encoder of targets that are encoded already: class numbers, or values."""
        if task == "regression":
            return cls(task, outputs, None, np.zeros(outputs), np.ones(outputs), flat=outputs == 1)
        classes = np.arange(outputs if task == "multiclass" else 2)
        return cls(task, outputs, classes, flat=task != "multilabel")

    def codes(self, target: ArrayLike) -> NDArray[np.int32]:
        """Return each row's class number, shape (samples,), int32, for binary and multiclass."""
        if self.classes is None or self.task == "multilabel":
            raise DataError(f"a {self.task} target has no class codes")
        values = check_target(target, self.names)
        if values.ndim == 2:
            raise DataError(f"{called(self.names)}the target has {values.shape[1]} columns, the model one")
        distinct, rows, inverse = distinct_values(values, self.names)
        places = self._places()
        pairs = zip(distinct.tolist(), rows.tolist(), strict=True)
        return np.array([self._code(label, places, row) for label, row in pairs], np.int32)[inverse]

    def unknown_labels(self, target: ArrayLike) -> list[Any]:
        """Return the labels of another target that are not among this one's, in their own type, sorted."""
        values = check_target(target, self.names)
        if self.labels:
            return sorted({*find_labels(set(values.tolist()), self.separator)} - {*self.labels})
        distinct, _, _ = distinct_values(values, self.names)
        places = self._places()
        return [label for label in distinct.tolist() if _place(label, places) is None]

    def _places(self) -> dict[Any, int]:
        return {label: code for code, label in enumerate(cast(NDArray, self.classes).tolist())}

    def _code(self, label: Any, places: dict[Any, int], row: int) -> int:
        place = _place(label, places)
        if place is not None:
            return place
        raise DataError(
            f"{called(self.names)}label {shown(label)} is not among the classes that the model knows, first "
            f"in row {row} (counting from 0): they are {listed(list(places))}"
        )

    def transform(self, target: ArrayLike, dtype: DTypeLike = np.float32) -> NDArray:
        """Encode a target for the loss.

        Returns
        -------
        ndarray
            (samples, 1) of 0 and 1 for binary, (samples,) int32 class numbers for multiclass, (samples, k) of
            0 and 1 for multilabel, (samples, k) standardised for regression; in `dtype` but for multiclass.

        Raises
        ------
        DataError
            Where a row has no target or a label that `fit` has not seen, or the number of columns differs.
        """
        if self.task == "multiclass":
            return self.codes(target)
        if self.task == "binary":
            return self.codes(target).astype(dtype)[:, None]
        values = check_target(target, self.names)
        if self.labels and values.ndim == 1:
            return encode_lists(values, self.labels, self.separator, self.names).astype(dtype)
        values = values if values.ndim == 2 else values[:, None]
        self._check_columns(values)
        if self.task == "multilabel":
            if not is_zeros_and_ones(values):
                raise DataError(f"{called(self.names)}a multilabel target holds only 0 and 1")
            return values.astype(dtype)
        numbers = as_numbers(values, self.names)
        if self.warp is not None:
            numbers = self.warp.forward(numbers, self.names)
        with np.errstate(over="ignore", invalid="ignore"):
            encoded = ((numbers - cast(NDArray, self.mean)) / cast(NDArray, self.scale)).astype(dtype)
        if not np.isfinite(encoded).all():
            row = int(np.argwhere(~np.isfinite(encoded))[0][0])
            raise DataError(
                f"{called(self.names)}the target of row {row} (counting from 0) is too far from the targets "
                "of the training: correct it or leave the row out"
            )
        return np.ascontiguousarray(encoded)

    def truth(self, target: ArrayLike) -> NDArray:
        """Return what metrics compare predictions with.

        These are the values of a regression in their own units, shape (samples, outputs), float64; for other
        tasks what `transform` returns.
        """
        if self.task != "regression":
            return self.transform(target, np.float64)
        values = check_target(target, self.names)
        values = as_numbers(values if values.ndim == 2 else values[:, None], self.names)
        self._check_columns(values)
        return values

    def _check_columns(self, values: NDArray) -> None:
        if values.shape[1] != self.outputs:
            raise DataError(
                f"{called(self.names)}the target has {values.shape[1]} columns, in training {self.outputs}"
            )

    def probabilities(self, outputs: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class from the network's outputs (logits), shape (samples, outputs).

        They have the shape (samples, K) for binary (two columns) and multiclass, where each row adds up to 1,
        and (samples, k) for multilabel.
        """
        logits = self._checked(outputs)
        if self.task == "regression":
            raise DataError("a regression model gives values and has no probabilities")
        if self.task == "multiclass":
            return inverse_link(logits, "softmax")
        yes = inverse_link(logits, "sigmoid")
        # One minus a probability near one would lose its digits; the other class is the sigmoid of −z.
        return yes if self.task == "multilabel" else np.hstack([inverse_link(-logits, "sigmoid"), yes])

    def predict(self, outputs: ArrayLike, threshold: float = 0.5) -> NDArray:
        """Return labels in their own type, or a regression's values in their own units.

        Parameters
        ----------
        outputs : array of shape (samples, outputs)
            The network's outputs.
        threshold : float
            The probability above which binary and multilabel answer yes.

        Returns
        -------
        ndarray
            (samples,); (samples, k) for multilabel and for a regression of a two-dimensional target. For a
            column of lists, texts such as ``a;c``.
        """
        if self.task == "regression":
            values = self.values(outputs)
            if self.bounds is not None:
                values = np.clip(values, *self.bounds)
            return values[:, 0] if self.flat else values
        classes = cast(NDArray, self.classes)
        if self.task == "multiclass":
            return classes[self._checked(outputs).argmax(axis=1)]
        probabilities = inverse_link(self._checked(outputs), "sigmoid")
        yes = probabilities[:, 0] if self.task == "binary" else probabilities
        if self.labels:
            return join_labels(yes > threshold, self.labels, self.separator)
        return classes[(yes > threshold).astype(np.intp)]

    def values(self, outputs: ArrayLike) -> NDArray[np.float64]:
        """Return a regression's outputs in its own units, shape (samples, outputs), not clamped."""
        values = self._checked(outputs) * cast(NDArray, self.scale) + cast(NDArray, self.mean)
        return values if self.warp is None else self.warp.inverse(values)

    @property
    def output_names(self) -> tuple[str, ...]:
        """The name of each output of a multilabel target or a regression; empty for outputs without names."""
        names = self.labels or self.names
        return names if len(names) == self.outputs else ()

    @property
    def positive(self) -> Any:
        """The class for which precision, recall and F1 of a binary task are measured."""
        return None if self.task != "binary" or self.classes is None else self.classes.tolist()[1]

    def check_threshold(self, threshold: float) -> None:
        """Raise unless this target is decided by a threshold, and `threshold` is a probability."""
        if self.task not in ("binary", "multilabel"):
            by = "the greatest probability" if self.task == "multiclass" else "nothing: it gives values"
            raise ConfigError(f"a {self.task} model decides by {by}: leave out `threshold`")
        if not 0 <= threshold <= 1:
            raise ConfigError(f"`threshold` must be a probability from 0 to 1, not {threshold:g}")

    def _checked(self, outputs: ArrayLike) -> NDArray[np.float64]:
        values = np.asarray(outputs, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != self.outputs:
            raise DataError(f"outputs of shape (samples, {self.outputs}) are wanted, not {values.shape}")
        return values

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON values."""
        classes = None
        if self.classes is not None:
            kind = "str" if self.classes.dtype.kind == "U" else self.classes.dtype.name
            classes = {"dtype": kind, "values": self.classes.tolist()}
        return {
            "task": self.task,
            "outputs": self.outputs,
            "classes": classes,
            "mean": None if self.mean is None else self.mean.tolist(),
            "scale": None if self.scale is None else self.scale.tolist(),
            "flat": self.flat,
            "names": list(self.names),
            "notes": list(self.notes),
            **({"labels": list(self.labels), "separator": self.separator} if self.labels else {}),
            **({} if self.warp is None else {"transform": self.warp.to_json()}),
            **({} if self.bounds is None else {"bounds": self.bounds.tolist()}),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TargetEncoder:
        """Read what `to_json` wrote; anything else is a ModelFileError."""
        data = json_fields.mapping(data, "target")
        task = cast(Task, json_fields.choice(data, "task", TASKS))
        outputs = json_fields.whole(data, "outputs", 1, 2**31 - 1)
        classes = mean = scale = warp = bounds = None
        if task == "regression":
            warp = TargetTransform.from_json(data["transform"], outputs) if "transform" in data else None
            bounds = _bounds_from_json(data, outputs) if "bounds" in data else None
            mean = np.array(json_fields.numbers(data, "mean"), dtype=np.float64)
            scale = np.array(json_fields.numbers(data, "scale"), dtype=np.float64)
            agree = len(mean) == len(scale) == outputs and bool(np.all(scale > 0))
        else:
            classes = _classes_from_json(json_fields.mapping(data.get("classes"), "classes"), task)
            agree = len(classes) == (outputs if task == "multiclass" else 2) and (
                task != "binary" or outputs == 1
            )
        require(agree, f"its {task} target does not agree with {outputs} outputs")
        flat = json_fields.flag(data, "flat")
        names, notes = json_fields.texts(data, "names"), json_fields.texts(data, "notes")
        labels = json_fields.texts(data, "labels") if "labels" in data else ()
        separator = json_fields.text(data, "separator") if labels else ""
        agree = task == "multilabel" and len(set(labels)) == outputs and len(separator) == 1
        require(not labels or agree, "its labels do not agree with its outputs")
        described = (classes, mean, scale, flat, names, notes, labels, separator, warp, bounds)
        return cls(task, outputs, *described)


def _place(label: Any, places: dict[Any, int]) -> int | None:
    """Return a label's code; a file may hold numbers where another holds texts."""
    if label in places:
        return places[label]
    other: Any = str(label)
    if isinstance(label, str):
        try:
            other = float(label)
        except ValueError:
            other = None
    return places.get(other)


def _is_same(label: Any, given: Any) -> bool:
    """Tell whether a label equals a given one, which may be its text or another number type."""
    numbers = is_number(label) and is_number(given)
    return str(label) == str(given) or (numbers and float(label) == float(given))


def _fit(values: NDArray, task: str, names: tuple[str, ...], transform: TransformName) -> TargetEncoder:
    if values.ndim == 2:
        return _fit_columns(values, task, names, transform)
    if task == "multilabel":
        return _fit_lists(values, names)
    if isinstance(values[0], tuple):
        raise DataError(f'{called(names)}each row has a list of labels: set `task` = "multilabel"')
    distinct, _, _ = distinct_values(values, names)
    notes: tuple[str, ...] = ()
    if task == "auto":
        task, notes = guess_task(values, distinct, names)
    if task == "regression":
        return _fit_regression(values[:, None], True, names, notes, transform)
    return _fit_classes(values, distinct, cast(Task, task), names, notes)


def _fit_lists(values: NDArray, names: tuple[str, ...]) -> TargetEncoder:
    """Return the encoder of one column of lists of labels."""
    cells = set(values.tolist())
    if not all(isinstance(cell, str | tuple) for cell in cells):
        raise DataError(
            f"{called(names)}a multilabel target has a column of 0 and 1 for each label, or one column of "
            "lists such as a;c"
        )
    separator = find_separator(cells)
    labels = find_labels(cells, separator)
    if not separator or len(labels) < 2:
        raise DataError(
            f"{called(names)}no row has more than one label, separated by ; or | or a comma: leave out "
            'task = "multilabel"'
        )
    return TargetEncoder(
        "multilabel", len(labels), np.array([0, 1]), names=names, labels=labels, separator=separator
    )


def _fit_classes(
    values: NDArray, distinct: NDArray, task: Task, names: tuple[str, ...], notes: tuple[str, ...]
) -> TargetEncoder:
    if len(distinct) < 2:
        where = f"in all {len(values)} rows" if len(values) > 1 else "in the only row"
        what = "one class only" if values.dtype.kind in "bUO" else "one value only"
        raise DataError(
            f"{called(names)}there is {what}, {shown(distinct.tolist()[0])}, {where}, so there is nothing to "
            "learn: give rows with others too, or name another target"
        )
    if values.dtype.kind == "f" and np.abs(distinct).max() >= _EXACT:
        raise DataError(
            f"{called(names)}float64 cannot distinguish whole numbers such as {np.abs(distinct).max():.0f}: "
            'if they are labels, read them as texts, by `types` with the kind "category"'
        )
    if task == "binary" and len(distinct) > 2:
        raise DataError(
            f"{called(names)}a binary target has two classes, this one {len(distinct)}: "
            f"{listed(distinct.tolist())}"
        )
    if values.dtype.kind in "UO" and len(distinct) == len(values) > _IDENTIFIER_ROWS:
        raise DataError(
            f"{called(names)}each of the {len(values)} rows has a label of its own, "
            "so there is nothing to learn: name another target"
            + (f"; {MULTILABEL}" if looks_like_lists(values.tolist()) else "")
        )
    notes += notes_on_labels(values, distinct, names)
    return TargetEncoder(task, 1 if task == "binary" else len(distinct), distinct, names=names, notes=notes)


def _fit_columns(
    values: NDArray, task: str, names: tuple[str, ...], transform: TransformName
) -> TargetEncoder:
    if task == "auto":
        task = "multilabel" if is_zeros_and_ones(values) else "regression"
        if values.dtype.kind in "UO" and not all(is_number(value) for value in values.ravel().tolist()):
            raise DataError(
                f"{called(names)}several targets are either all numbers or all 0 and 1, not texts: "
                "train one model for each"
            )
    if task == "regression":
        return _fit_regression(values, False, names, (), transform)
    if task != "multilabel":
        raise DataError(f"{called(names)}a {task} target has one column, this one has {values.shape[1]}")
    if not is_zeros_and_ones(values):
        raise DataError(f"{called(names)}a multilabel target holds only 0 and 1")
    answers = np.array([0, 1]).astype(values.dtype)
    return TargetEncoder("multilabel", values.shape[1], answers, flat=False, names=names)


def _fit_regression(
    values: NDArray, flat: bool, names: tuple[str, ...], notes: tuple[str, ...], transform: TransformName
) -> TargetEncoder:
    numbers = as_numbers(values, names)
    notes += notes_on_values(numbers, names) if transform == "none" else ()
    warp = None if transform == "none" else TargetTransform.fit(transform, numbers)
    numbers = numbers if warp is None else warp.forward(numbers, names)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = numbers.mean(axis=0), numbers.std(axis=0)
    if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
        raise DataError(
            f"{called(names)}the values are too large to be standardised: divide them by a power of ten"
        )
    constant = numbers.min(axis=0) == numbers.max(axis=0)
    for column in np.flatnonzero(constant):
        same = f"every training row has the same value, {float(values[0, column]):g}"
        notes += (f"{called(names[column : column + 1])}{same}: there is nothing to learn",)
    scale = np.where(constant | (scale == 0), 1.0, scale)
    return TargetEncoder("regression", numbers.shape[1], None, mean, scale, flat, names, notes, warp=warp)


def _bounds_from_json(data: dict[str, Any], outputs: int) -> NDArray[np.float64]:
    rows = json_fields.sequence(data, "bounds")
    bounds = [json_fields.numbers({"bounds": row}, "bounds") for row in rows]
    fits = [len(row) for row in bounds] == [outputs, outputs]
    fits = fits and all(low <= high for low, high in zip(*bounds, strict=True))
    require(fits, f"the bounds of its predictions do not agree with {outputs} outputs")
    return np.array(bounds, dtype=np.float64)


def _classes_from_json(data: dict[str, Any], task: Task) -> NDArray:
    kind = json_fields.choice(data, "dtype", _LABEL_TYPES)
    labels = json_fields.sequence(data, "values")
    require(
        all(isinstance(label, str | int | float) for label in labels),
        "its classes are neither texts nor numbers",
    )
    texts = all(isinstance(label, str) for label in labels)
    require((kind == "str") == texts or kind == "object", f"its classes are not of the type {kind}")
    try:
        classes = np.array(labels, dtype=kind)
        # The second of two is the positive class, whichever it is.
        ordered = task == "binary" or bool(np.all(classes[:-1] < classes[1:]))
        ordered = ordered and len(np.unique(classes)) == len(classes)
    except (ValueError, TypeError, OverflowError):
        ordered = False
    require(ordered and classes.tolist() == labels, "its classes are not distinct and ascending")
    return classes
