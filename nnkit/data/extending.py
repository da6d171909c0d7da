"""Extend what a model knows of its data by what new rows hold: other categories, classes, another scaling."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from nnkit.data.operations import CategoryColumn, NumberColumn, Operation, Rows, flagged_columns
from nnkit.data.preprocessing import Preprocessor, Scaling
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.data.targets.values import called, listed
from nnkit.errors import ConfigError, DataError

__all__ = [
    "moved_inputs",
    "moved_outputs",
    "moved_rows",
    "rescaled",
    "with_new_categories",
    "with_new_labels",
]


def with_new_categories(
    preprocessor: Preprocessor, features: Any, rows: Rows = None
) -> tuple[Preprocessor, Mapping[str, Sequence[str]]]:
    """Return a preprocessor that knows the categories of more rows too, and what was added, by column.

    A column that had no missing values gets a place for them if it has some now.
    """
    added: dict[str, Sequence[str]] = {}
    if preprocessor.schema is None or isinstance(features, np.ndarray):
        return preprocessor, added
    from nnkit.data.tables.encoding import categories_of, check_present

    table, _ = preprocessor.read_table(features)
    check_present(table.column_names, preprocessor.input_names or ())

    def extended(operation: Operation) -> Operation:
        if not isinstance(operation, CategoryColumn):
            return operation
        unseen, has_missing = categories_of(operation, table[operation.column], rows)
        # A code is a place in this order: the places so far stay in theirs.
        last = "missing" if has_missing and operation.last == "none" else operation.last
        new = replace(operation, values=(*operation.values, *unseen), last=last)
        if new.places > operation.places:
            added[operation.column] = [name for name in new.names if name not in operation.names]
        return new

    return replace(preprocessor, operations=tuple(map(extended, preprocessor.operations))), added


def rescaled(preprocessor: Preprocessor, features: Any, rows: Rows, scaling: Scaling) -> Preprocessor:
    """Return a preprocessor that scales numbers, or pixels, as they are in other rows.

    A column whose values are all the same there, or all missing, keeps its scaling.
    """
    fresh = Preprocessor.fit(features, rows=rows, scaling=scaling, dtype=preprocessor.dtype)
    if not preprocessor.input_names or isinstance(features, np.ndarray):
        return replace(preprocessor, operations=fresh.operations)
    found = {one.column: one for one in fresh.operations if isinstance(one, NumberColumn)}
    operations = tuple(
        replace(found[one.column], flagged=one.flagged)
        if isinstance(one, NumberColumn) and one.column in found
        else one
        for one in preprocessor.operations
    )
    return replace(preprocessor, operations=operations)


def with_new_labels(encoder: TargetEncoder, target: ArrayLike) -> tuple[TargetEncoder, list[Any]]:
    """Return an encoder that knows the labels of another target too, and the labels that were added.

    Raises
    ------
    ConfigError
        If a target of two classes has more of them now.
    DataError
        If the labels are of another type.
    """
    if encoder.task == "regression" or (encoder.task == "multilabel" and not encoder.labels):
        return encoder, []
    unknown = encoder.unknown_labels(target)
    if not unknown:
        return encoder, []
    if encoder.labels:
        every = tuple(sorted({*encoder.labels, *unknown}))
        return replace(encoder, labels=every, outputs=len(every)), unknown
    classes = cast(NDArray, encoder.classes)
    if encoder.task == "binary":
        raise ConfigError(
            f"{called(encoder.names)}the model tells {listed(classes.tolist())} apart, and the new rows have "
            f"{listed(unknown)} too: set `replace_head`, which trains the last layer from the beginning"
        )
    as_class: Callable[[Any], Any] = str if classes.dtype.kind in "UO" else _number
    labels = {as_class(label) for label in unknown}
    kind = str if classes.dtype.kind == "U" else classes.dtype
    merged = np.array(sorted({*classes.tolist(), *labels} - {None}), dtype=kind)
    if not labels <= {*merged.tolist()}:
        raise DataError(
            f"{called(encoder.names)}the model's classes are {listed(classes.tolist())}, and the new rows "
            f"have {listed(unknown)}: write them alike"
        )
    return replace(encoder, classes=merged, outputs=len(merged)), unknown


def _number(label: Any) -> float | None:
    try:
        return float(label)
    except (TypeError, ValueError):
        return None


def moved_inputs(before: Preprocessor, after: Preprocessor) -> NDArray[np.int64]:
    """Return the place of each of a network's inputs among those of an extended preprocessor."""
    if before.input_names is None or before.schema is None:
        return np.arange(before.width)
    return _moves(_inputs(before.operations), _inputs(after.operations))


def moved_rows(before: Preprocessor, after: Preprocessor) -> list[NDArray[np.int64]]:
    """Return, for each embedded column, the place of each row of its table in the extended one."""
    return [
        _moves(_names(old), _names(new)) if isinstance(old, CategoryColumn) else np.arange(size)
        for old, new, size in zip(before.embedded, after.embedded, before.embedding_sizes, strict=True)
    ]


def moved_outputs(before: TargetEncoder, after: TargetEncoder) -> NDArray[np.int64]:
    """Return the place of each of a network's outputs among those of an extended encoder."""
    if before.labels:
        return _moves(before.labels, after.labels)
    if before.task == "multiclass":
        return _moves(cast(NDArray, before.classes).tolist(), cast(NDArray, after.classes).tolist())
    return np.arange(before.outputs)


def _inputs(operations: Sequence[Operation]) -> Iterator[Hashable]:
    """Yield a name for each input of a network: the numbers, their flags, then the places of categories."""
    yield from (("number", one.column) for one in operations if isinstance(one, NumberColumn))
    yield from (("flag", one.column) for one in flagged_columns(operations))
    for one in operations:
        if isinstance(one, CategoryColumn) and not one.embedded:
            yield from ((one.column, name) for name in _names(one))


def _names(column: Any) -> list[Hashable]:
    """Return a name for each place of a category: its value, or None for the last one if that has none."""
    return [*column.values, *([None] if column.last != "none" else [])]


def _moves(before: Iterable[Hashable], after: Iterable[Hashable]) -> NDArray[np.int64]:
    places = {name: place for place, name in enumerate(after)}
    return np.array([places[name] for name in before], np.int64)
