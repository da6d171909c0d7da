"""Features, target and weights of a table: chosen and read by a schema, with notes for the user.

Order: the data set, its columns' names, its options, its weights, its target.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from nnkit.data.examples import Dataset, Examples, Key, LoadRequest, RawTable
from nnkit.data.files.text import plain_name
from nnkit.data.messages import listed
from nnkit.data.tables.arrow import numpy_array
from nnkit.data.tables.columns import column_kind, is_list_of_labels, label_lists, numbers, type_kind
from nnkit.data.tables.frames import check_names, column_name, default_target, join_target
from nnkit.data.tables.inference import Inference, infer
from nnkit.data.tables.options import TableOptions
from nnkit.data.tables.reading import read_columns, report_misfits
from nnkit.data.tables.schema import LEARNT, Schema, toml_text
from nnkit.errors import DataError

__all__ = ["table_dataset", "table_target"]

_WEIGH = "weights are numbers of at least 0, some of them above: correct it or leave the row out"


def table_dataset(raw: RawTable, where: str, request: LoadRequest) -> Dataset:
    """Return a table's features and target, read by the given schema or by an inferred one."""
    if request.schema is not None:
        raw = _aligned(raw, request.schema, request.target or [])
    table, names = raw.table, raw.table.column_names
    check_names(names)
    targets = _target_names(table, request)
    options = _options(request, table, targets)
    weight = [name for name in names if name == options.weight]
    chosen = _chosen(request, names, {*targets, *weight})
    # Columns that a model has not learnt are read for audits and plots.
    learnt = [] if request.schema is None else _learnt(chosen, request.schema)
    needed = request.require_target or request.schema is None
    own = [name for name in chosen if name not in set(learnt)] if needed else []
    inferred = infer(
        raw,
        options,
        targets=targets,
        named=weight if request.features is None else [*chosen, *weight],
        dropped=set(names) - {*own, *targets, *weight},
        strict=request.schema is None,
    )
    schema = inferred.schema if request.schema is None else request.schema
    values, weights, notes = _target_values(raw, targets, inferred, request), None, list(raw.notes)
    if weight and request.require_target:
        weights = _weights(table, schema, weight[0])
        notes.append(f"column {weight[0]!r} is the rows' weights: not learnt from")
    if request.schema is None:
        learnt, kept_notes = _kept(table, inferred.schema, chosen, targets)
        notes += kept_notes
    features, misfits = read_columns(table, schema, learnt, inferred.read if request.schema is None else None)
    if request.schema is not None:
        others, _ = read_columns(table, inferred.schema, own, inferred.read)
        columns = [*features.columns, *others.columns]
        features = pa.table(columns, names=[*learnt, *own], metadata=features.schema.metadata)
    report_misfits(misfits, request.strict)
    return Dataset(
        plain_name(Path(where)).rsplit(".", 1)[0],
        Examples(features, values, weights),
        None,
        tuple(targets) if values is not None else (),
        columns=tuple(names),
        notes=tuple(notes),
        schema=schema,
        source=None if request.require_target else table,
    )


def _chosen(request: LoadRequest, names: Sequence[str], others: Collection[str]) -> list[str]:
    """Return the columns that the request wants as features, without those of the target and the weights."""
    chosen = names if request.features is None else [column_name(key, names) for key in request.features]
    dropped = {column_name(key, names) for key in request.drop or ()}.union(others)
    found = [name for name in dict.fromkeys(chosen) if name not in dropped]
    if not found:
        raise DataError(f"no feature column is left of {listed(names)}")
    return found


def _learnt(names: Sequence[str], schema: Schema) -> list[str]:
    """Return the columns that a model learns from."""
    known = schema.by_name
    return [name for name in names if name in known and known[name].kind in LEARNT]


def _kept(
    table: pa.Table, schema: Schema, chosen: Sequence[str], targets: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the columns to learn from, and notes on the others and on how columns are read."""
    kinds = schema.by_name
    for name in chosen:
        if kinds[name].note.startswith("it holds"):
            column_kind(name, table[name].type)  # raises
    learnt = _learnt(chosen, schema)
    notes = []
    for name in chosen:
        if kinds[name].kind not in LEARNT:
            identifies = kinds[name].kind == "identifier"
            keep = f'; `types` = {{{toml_text(name)} = "number"}} keeps it' if identifies else ""
            notes.append(f"dropped column {name!r}: {kinds[name].why_left_out}{keep}")
    noted = [name for name in (*targets, *learnt) if kinds[name].note]
    notes += [f"{'target' if name in targets else 'column'} {name!r}: {kinds[name].note}" for name in noted]
    if not learnt:
        raise DataError(f"no column is left to learn from: {'; '.join(notes)}")
    return learnt, notes


def _aligned(raw: RawTable, schema: Schema, targets: Sequence[Key]) -> RawTable:
    """Give a table without names the names of the model's columns: all, or all but the target's."""
    if raw.named or schema.named or not {str(target) for target in targets} <= schema.by_name.keys():
        # Older models store neither the target nor the dropped columns.
        return raw
    names, count = [column.name for column in schema.columns], raw.table.num_columns
    features = [name for name in names if name not in {str(target) for target in targets}]
    if count not in (len(names), len(features)):
        raise DataError(
            f"there are {count} columns without names, and the model was trained on {len(names)}, or "
            f"{len(features)} without the target: give as many, in the same order"
        )
    return replace(raw, table=raw.table.rename_columns(names if count == len(names) else features))


def _target_names(table: pa.Table, request: LoadRequest) -> list[str]:
    """Return the names of the target's columns that the table has."""
    names, target = table.column_names, request.target
    if target is None and request.require_target:
        guess = default_target(names)
        if guess is None:
            raise DataError(
                f"which column is the target? Name it with `target`; the columns are {listed(names)}"
            )
        target = [guess]
    targets: list[str] = []
    known = () if request.schema is None else request.schema.by_name
    for key in target or ():
        try:
            # A name of the model's such as "0" is no other column's number.
            if str(key) in known and str(key) not in names:
                raise DataError(f"there is no column {key!r}: the columns are {listed(names)}")
            targets.append(column_name(key, names))
        except DataError:
            if request.require_target:
                raise
    return targets


def _options(request: LoadRequest, table: pa.Table, targets: Sequence[str]) -> TableOptions:
    """Return the options with their columns as names; for a model, those that hold for any table."""
    if request.schema is not None:
        return replace(request.table, types={}, index=None, weight=request.schema.options.weight)
    options, names = request.table, table.column_names
    index, weight = (
        None if key is None else column_name(key, names) for key in (options.index, options.weight)
    )
    types = dict(options.types)
    for name in targets:
        if types.get(name) == "dropped":
            raise DataError(f"column {name!r} is the target, and `types` drops it: say one of the two")
    if weight is not None:
        if weight in targets:
            raise DataError(f"column {weight!r} is the target and `weight`: name two columns")
        types[weight] = "number"
    if request.multilabel and len(targets) == 1 and type_kind(table[targets[0]].type) == "text":
        types.setdefault(targets[0], "category")
    return replace(options, index=index, weight=weight, types=types)


def _weights(table: pa.Table, schema: Schema, name: str) -> NDArray[np.float64]:
    """Return the rows' weights; a DataError names the first row without one."""
    read, misfits = read_columns(table, schema, [name])
    for found in misfits:
        raise DataError(f"weight {name!r} of row {found.row} (counting from 0) is {found.text!r}: {_WEIGH}")
    values = numbers(name, read[name])
    wrong = ~(values >= 0)
    if wrong.any():
        row = int(np.argmax(wrong))
        is_ = "missing" if np.isnan(values[row]) else f"{values[row]:g}"
        raise DataError(f"weight {name!r} of row {row} (counting from 0) is {is_}: {_WEIGH}")
    if not values.any():
        raise DataError(f"all weights in column {name!r} are 0: {_WEIGH}")
    return values


def _target_values(
    raw: RawTable, targets: list[str], inferred: Inference, request: LoadRequest
) -> NDArray[Any] | None:
    """Return the values of the target's columns; None where rows to predict have none."""
    if not targets or len(targets) < len(request.target or ()):
        return None
    try:
        if len(targets) == 1 and is_list_of_labels(raw.table[targets[0]].type):
            return label_lists(targets[0], raw.table[targets[0]])
        schema = _target_schema(targets, inferred.schema, request)
        own = inferred.read if request.schema is None else None
        table, misfits = read_columns(raw.table, schema, targets, own)
        for found in misfits:
            raise DataError(
                f"target {found.column.name!r} holds {found.text!r} in row {found.row} (counting from 0), "
                f"unlike the others ({found.column}): correct it or leave the row out; `types` and "
                "`missing` say how the column is read"
            )
        _check_words(raw.table, table)
        return join_target(table, targets)
    except DataError:
        if request.require_target:
            raise
        return None


def _target_schema(targets: Sequence[str], inferred: Schema, request: LoadRequest) -> Schema:
    """Return the schema of the target: the model's, under the names that the columns have here."""
    if request.schema is None:
        return inferred
    # A model for another target may have left this column out.
    known = {name: one for name, one in request.schema.by_name.items() if one.kind in (*LEARNT, "identifier")}
    like = request.target_like if len(request.target_like) == len(targets) else targets
    return Schema(
        tuple(
            replace(known[model_name], name=name) if model_name in known else inferred.by_name[name]
            for name, model_name in zip(targets, like, strict=True)
        )
    )


def _check_words(raw: pa.Table, read: pa.Table) -> None:
    """Raise a DataError where a target is missing because of a word that may be a class."""
    for name in read.column_names:
        if type_kind(raw[name].type) != "text" or not read[name].null_count:
            continue
        row = int(np.argmax(numpy_array(read[name].is_null())))
        word = (raw[name][row].as_py() or "").strip()
        if word and type_kind(read[name].type) == "text":
            raise DataError(
                f"target {name!r} is missing in row {row} (counting from 0), where {word[:40]!r} stands: "
                "leave the rows without a target out, or, if it is a class, say which words mean a missing "
                "value by `missing`, such as [] for none"
            )


def table_target(raw: RawTable, request: LoadRequest) -> tuple[NDArray[Any] | None, list[str]]:
    """Return the target alone, as `table_dataset` reads it, and the names of its columns."""
    targets = _target_names(raw.table, request)
    others = [name for name in raw.table.column_names if name not in targets]
    found = infer(raw, _options(request, raw.table, targets), targets=targets, dropped=others)
    return _target_values(raw, targets, found, request), targets
