"""Encode a target for the loss, and turn a network's outputs back into labels or values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast, get_args

import numpy as np
from numpy.typing import ArrayLike, DTypeLike, NDArray

from nnkit.core.links import predicted
from nnkit.core.losses import Task
from nnkit.data import json_fields
from nnkit.errors import ConfigError, DataError, ModelFileError

__all__ = ["TASKS", "TargetEncoder", "check_target"]

TASKS: tuple[Task, ...] = get_args(Task)

# Whole numbers are labels where there are few of them, or where they number the classes without a gap.
_FEW_LABELS = 20
_MOST_NUMBERED_LABELS = 1000
_NUMBERED_SHARE = 0.05
# A text target of more rows than this, all different, is an identifier and not a class.
_IDENTIFIER_ROWS = 20

_LONGEST_LABEL = 60  # in a message

_INTEGERS = tuple(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))
_LABEL_TYPES = ("bool", "str", "object", "float16", "float32", "float64", *_INTEGERS)


@dataclass(frozen=True, eq=False)
class TargetEncoder:
    """What a target means: the task, the classes or the units, and the width of the network's last layer.

    Parameters
    ----------
    task : {"binary", "multiclass", "multilabel", "regression"}
    outputs : int
        Network outputs: 1 for binary, the number of classes for multiclass, of columns otherwise.
    classes : ndarray of shape (K,), or None
        The labels in their own type, ascending; for multilabel, no and yes in the target's type; None for a
        regression.
    mean, scale : ndarray of shape (outputs,), float64, or None
        A regression's value is ``output * scale + mean``.
    flat : bool
        Whether the target had one dimension, so that predictions have one too.
    names : tuple of str
        The target's columns.
    notes : tuple of str
        Words for the user, such as a guess that was close.
    """

    task: Task
    outputs: int
    classes: NDArray | None = None
    mean: NDArray[np.float64] | None = None
    scale: NDArray[np.float64] | None = None
    flat: bool = True
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @classmethod
    def fit(cls, target: ArrayLike, task: str = "auto", names: Sequence[str] = ()) -> TargetEncoder:
        """Read the task, the classes or the units from the training rows.

        The rule of ``task="auto"``: texts and booleans are classes. Whole numbers are classes if they have
        two values, if they have at most 20 (and two rows a value on average), or if they run from 0 or 1
        without a gap and number at most 1000 and at most 5 % of the rows. Any other numbers are a regression.
        Two columns or more are multilabel if all are 0 and 1, and else a regression with several targets.

        Parameters
        ----------
        target : array of shape (samples,) or (samples, k)
        task : {"auto", "binary", "multiclass", "multilabel", "regression"}
        names : sequence of str
            The target's columns, for messages.

        Raises
        ------
        DataError
            Where the target is missing in a row, has one class only, or does not suit the task.
        """
        if task != "auto" and task not in TASKS:
            raise ConfigError(f"task {task!r} is unknown: choose auto, {', '.join(TASKS)}")
        names = tuple(names)
        values = check_target(target, names)
        if values.ndim == 2:
            return _fit_columns(values, task, names)
        distinct = _distinct(values, names)
        notes: tuple[str, ...] = ()
        if task == "auto":
            task, notes = _guess(values, distinct, names)
        if task == "multilabel":
            raise DataError(
                f"{_called(names)}a multilabel target has a column of 0 and 1 for each label, not one column"
            )
        if task == "regression":
            return _fit_regression(values[:, None], True, names, notes)
        return _fit_classes(values, distinct, cast(Task, task), names, notes)

    @classmethod
    def plain(cls, task: Task, outputs: int) -> TargetEncoder:
        """Return the encoder of targets as a network is trained on them: class numbers, or values."""
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
            raise DataError(
                f"{_called(self.names)}the target has {values.shape[1]} columns, the model knows one"
            )
        distinct, inverse = np.unique(values, return_inverse=True)
        places = {label: code for code, label in enumerate(self.classes.tolist())}
        table = np.array([self._code(label, places) for label in distinct.tolist()], dtype=np.int32)
        return table[inverse.reshape(-1)]

    def _code(self, label: Any, places: dict[Any, int]) -> int:
        """Find a label; a file may hold as numbers what another holds as text."""
        if label in places:
            return places[label]
        other: Any = str(label)
        if isinstance(label, str):
            try:
                other = float(label)
            except ValueError:
                other = None
        if other in places:
            return places[other]
        raise DataError(
            f"{_called(self.names)}label {_shown(label)} is not among the classes that the model knows: "
            f"{_listed(list(places))}"
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
        values = _columns(check_target(target, self.names))
        if values.shape[1] != self.outputs:
            raise DataError(
                f"{_called(self.names)}the target has {values.shape[1]} columns, in training {self.outputs}"
            )
        if self.task == "multilabel":
            if not _zeros_and_ones(values):
                raise DataError(f"{_called(self.names)}a multilabel target holds only 0 and 1")
            return values.astype(dtype)
        numbers = _numbers(values, self.names)
        with np.errstate(over="ignore", invalid="ignore"):
            encoded = ((numbers - cast(NDArray, self.mean)) / cast(NDArray, self.scale)).astype(dtype)
        if not np.isfinite(encoded).all():
            row = int(np.argwhere(~np.isfinite(encoded))[0][0])
            raise DataError(
                f"{_called(self.names)}the target of row {row} (counting from 0) is too far from those that "
                "the training was on: correct it or leave the row out"
            )
        return np.ascontiguousarray(encoded)

    def probabilities(self, outputs: ArrayLike) -> NDArray[np.float64]:
        """Return the probability of each class from the network's outputs (logits).

        Parameters
        ----------
        outputs : array of shape (samples, outputs)

        Returns
        -------
        ndarray of float64
            (samples, K) for binary (two columns) and multiclass, each row adding up to 1; (samples, k) for
            multilabel.
        """
        logits = self._checked(outputs)
        if self.task == "regression":
            raise DataError("a regression model gives values and has no probabilities")
        if self.task == "multiclass":
            return predicted(logits, "softmax")
        yes = predicted(logits, "sigmoid")
        # One minus a probability near one would lose its digits; the other class is the sigmoid of −z.
        return yes if self.task == "multilabel" else np.hstack([predicted(-logits, "sigmoid"), yes])

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
            (samples,); (samples, k) for multilabel and for a regression of a two-dimensional target.
        """
        if self.task == "regression":
            values = self._checked(outputs) * cast(NDArray, self.scale) + cast(NDArray, self.mean)
            return values[:, 0] if self.flat else values
        classes = cast(NDArray, self.classes)
        if self.task == "multiclass":
            return classes[self._checked(outputs).argmax(axis=1)]
        probabilities = predicted(self._checked(outputs), "sigmoid")
        yes = probabilities[:, 0] if self.task == "binary" else probabilities
        return classes[(yes > threshold).astype(np.intp)]

    @property
    def positive(self) -> Any:
        """The class that a binary task's precision, recall and F1 are of: the second of the two, sorted."""
        return None if self.task != "binary" or self.classes is None else self.classes.tolist()[1]

    def check_threshold(self, threshold: float) -> None:
        """Raise unless this target's answers are decided by a threshold, and it is one."""
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
        """Return all of it as JSON values."""
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
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> TargetEncoder:
        """Read what `to_json` wrote; anything else is a ModelFileError."""
        data = json_fields.mapping(data, "target")
        task = cast(Task, json_fields.choice(data, "task", TASKS))
        outputs = json_fields.whole(data, "outputs", 1, 2**31 - 1)
        classes = mean = scale = None
        if task == "regression":
            mean = np.array(json_fields.numbers(data, "mean"), dtype=np.float64)
            scale = np.array(json_fields.numbers(data, "scale"), dtype=np.float64)
            agree = len(mean) == len(scale) == outputs and bool(np.all(scale > 0))
        else:
            classes = _classes_from_json(json_fields.mapping(data.get("classes"), "classes"))
            agree = len(classes) == (outputs if task == "multiclass" else 2) and (
                task != "binary" or outputs == 1
            )
        if not agree:
            raise ModelFileError(
                f"the model file is damaged: its {task} target does not agree with {outputs} outputs"
            )
        flat = json_fields.flag(data, "flat")
        names, notes = json_fields.texts(data, "names"), json_fields.texts(data, "notes")
        return cls(task, outputs, classes, mean, scale, flat, names, notes)


def check_target(target: ArrayLike, names: Sequence[str] = ()) -> NDArray:
    """Return the target as an array of shape (samples,) or (samples, k) with k > 1, every value present.

    Raises
    ------
    DataError
        Where it is empty, of another shape or type, or a value is missing or infinite (the row is named).
    """
    values = np.asarray(target)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim not in (1, 2) or values.size == 0:
        raise DataError(
            f"{_called(names)}a target of shape (samples,) or (samples, k) with at least one row is wanted, "
            f"not {values.shape}"
        )
    if values.dtype.kind == "f":
        bad = ~np.isfinite(values)
    elif values.dtype.kind == "O":
        bad = np.array([_is_missing(value) for value in values.ravel()], dtype=bool).reshape(values.shape)
    elif values.dtype.kind in "biuU":
        return values
    else:
        raise DataError(f"{_called(names)}a target holds numbers, texts or booleans, not {values.dtype}")
    if bad.any():
        row = int(np.argwhere(bad)[0][0])
        found = values[bad][0]
        what = "missing" if _is_missing(found) else "infinite"
        raise DataError(
            f"{_called(names)}the target of row {row} (counting from 0) is {what}: "
            "leave out the rows without a target"
        )
    return values


def _is_missing(value: Any) -> bool:
    try:
        return value is None or bool(value != value)
    except TypeError:  # pandas.NA has no truth value
        return True


def _called(names: Sequence[str]) -> str:
    return f"target {_listed(list(names))}: " if names else ""


def _shown(label: Any) -> str:
    words = repr(label)
    return words if len(words) <= _LONGEST_LABEL else words[:_LONGEST_LABEL] + "…"


def _listed(labels: list[Any], most: int = 10) -> str:
    words = ", ".join(_shown(label) for label in labels[:most])
    return words if len(labels) <= most else f"{words}, … ({len(labels)} in all)"


def _columns(values: NDArray) -> NDArray:
    return values if values.ndim == 2 else values[:, None]


def _zeros_and_ones(values: NDArray) -> bool:
    return values.dtype.kind in "biuf" and bool(np.all((values == 0) | (values == 1)))


def _distinct(values: NDArray, names: Sequence[str]) -> NDArray:
    try:
        return np.unique(values)
    except TypeError:
        raise DataError(f"{_called(names)}labels are either numbers or texts, not a mixture") from None


def _numbers(values: NDArray, names: Sequence[str]) -> NDArray[np.float64]:
    try:
        numbers = values.astype(np.float64)
    except (ValueError, TypeError):
        found = next((value for value in values.ravel().tolist() if not _is_number(value)), None)
        raise DataError(f"{_called(names)}a regression wants numbers, but there is {_shown(found)}") from None
    if not np.isfinite(numbers).all():
        row = int(np.argwhere(~np.isfinite(numbers))[0][0])
        raise DataError(f"{_called(names)}the target of row {row} (counting from 0) is not a finite number")
    return numbers


def _is_number(value: Any) -> bool:
    try:
        float(value)
    except (ValueError, TypeError):
        return False
    return True


def _guess(values: NDArray, distinct: NDArray, names: Sequence[str]) -> tuple[Task, tuple[str, ...]]:
    """Apply the rule of `TargetEncoder.fit`, with a note where it was close."""
    count = len(distinct)
    classes: Task = "binary" if count == 2 else "multiclass"
    if values.dtype.kind not in "iuf" or count == 1:
        return classes, ()
    if values.dtype.kind == "f" and np.any(distinct != np.floor(distinct)):
        return "regression", ()
    if count <= 2:
        return classes, ()
    few = count <= min(_FEW_LABELS, len(values) / 2)
    gapless = distinct[0] in (0, 1) and distinct[-1] - distinct[0] == count - 1
    limit = min(_MOST_NUMBERED_LABELS, _NUMBERED_SHARE * len(values))
    task: Task = classes if few or (gapless and count <= limit) else "regression"
    # Close: many classes, or a regression whose values could be read as labels.
    if task != "regression" and count > _FEW_LABELS // 2 and not (gapless and few):
        other = "a regression"
    elif task == "regression" and (count <= 3 * _FEW_LABELS or gapless):
        other = "classes"
    else:
        return task, ()
    taken = "a regression" if task == "regression" else "classes"
    choose = "regression" if task != "regression" else "multiclass"
    return task, (
        f"{_called(names)}{count} different whole numbers in {len(values)} rows are taken as {taken}; "
        f'if they are {other}, set task = "{choose}"',
    )


def _fit_classes(
    values: NDArray, distinct: NDArray, task: Task, names: tuple[str, ...], notes: tuple[str, ...]
) -> TargetEncoder:
    if len(distinct) < 2:
        raise DataError(
            f"{_called(names)}there is one class only, {_shown(distinct.tolist()[0])}, "
            f"in all {len(values)} rows: a classifier needs at least two"
        )
    if task == "binary" and len(distinct) > 2:
        raise DataError(
            f"{_called(names)}a binary target has two classes, this one {len(distinct)}: "
            f"{_listed(distinct.tolist())}"
        )
    if values.dtype.kind in "UO" and len(distinct) == len(values) > _IDENTIFIER_ROWS:
        raise DataError(
            f"{_called(names)}each of the {len(values)} rows has a label of its own, "
            "so there is nothing to learn: name another target"
        )
    return TargetEncoder(task, 1 if task == "binary" else len(distinct), distinct, names=names, notes=notes)


def _fit_columns(values: NDArray, task: str, names: tuple[str, ...]) -> TargetEncoder:
    if task == "auto":
        task = "multilabel" if _zeros_and_ones(values) else "regression"
        if values.dtype.kind in "UO" and not all(_is_number(value) for value in values.ravel().tolist()):
            raise DataError(
                f"{_called(names)}several targets are either all numbers or all 0 and 1, not texts: "
                "train one model for each"
            )
    if task == "regression":
        return _fit_regression(values, False, names, ())
    if task != "multilabel":
        raise DataError(f"{_called(names)}a {task} target has one column, this one has {values.shape[1]}")
    if not _zeros_and_ones(values):
        raise DataError(f"{_called(names)}a multilabel target holds only 0 and 1")
    answers = np.array([0, 1]).astype(values.dtype)
    return TargetEncoder("multilabel", values.shape[1], answers, flat=False, names=names)


def _fit_regression(
    values: NDArray, flat: bool, names: tuple[str, ...], notes: tuple[str, ...]
) -> TargetEncoder:
    numbers = _numbers(values, names)
    with np.errstate(over="ignore", invalid="ignore"):
        mean, scale = numbers.mean(axis=0), numbers.std(axis=0)
    if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
        raise DataError(
            f"{_called(names)}the values are too large to be standardised: divide them by a power of ten"
        )
    constant = numbers.min(axis=0) == numbers.max(axis=0)
    for column in np.flatnonzero(constant):
        called = _called(names[column : column + 1])
        notes += (f"{called}every training row has the same value, {numbers[0, column]:g}",)
    scale = np.where(constant | (scale == 0), 1.0, scale)
    return TargetEncoder("regression", numbers.shape[1], None, mean, scale, flat, names, notes)


def _classes_from_json(data: dict[str, Any]) -> NDArray:
    kind = json_fields.choice(data, "dtype", _LABEL_TYPES)
    labels = json_fields.sequence(data, "values")
    if not all(isinstance(label, str | int | float) for label in labels):
        raise ModelFileError("the model file is damaged: its classes are neither texts nor numbers")
    if (kind == "str") != all(isinstance(label, str) for label in labels) and kind != "object":
        raise ModelFileError(f"the model file is damaged: its classes are not of the type {kind}")
    try:
        classes = np.array(labels, dtype=kind)
        ascending = len(np.unique(classes)) == len(classes) and bool(np.all(classes[:-1] < classes[1:]))
    except (ValueError, TypeError, OverflowError):
        ascending = False
    if not ascending or classes.tolist() != labels:
        raise ModelFileError("the model file is damaged: its classes are not distinct and ascending")
    return classes
