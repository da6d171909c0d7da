"""Read a table from one file, or from several files that are its parts.

Order: one file, delimited text for a model, folders of tables, parts joined.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from urllib.parse import unquote

import pyarrow as pa

from nnkit.data.examples import LoadRequest, RawTable
from nnkit.data.files.changes import unchanged
from nnkit.data.files.formats import TABLE_FORMATS, FileFormat, file_format, format_by_name
from nnkit.data.limits import check_size
from nnkit.data.tables.columnar import read_arrow, read_parquet
from nnkit.data.tables.delimited import read_delimited
from nnkit.data.tables.json_tables import read_json
from nnkit.data.tables.options import TableOptions
from nnkit.data.tables.rows import is_number
from nnkit.data.tables.schema import LEARNT, Schema
from nnkit.data.tables.summaries import missing_words
from nnkit.data.tables.workbooks import read_workbook
from nnkit.errors import DataError

__all__ = ["read_parts", "read_table", "table_parts"]

_PARTITION = re.compile(r"([^=]+)=(.*)", re.DOTALL)
_MISSING_PARTITION = "__HIVE_DEFAULT_PARTITION__"
_OTHER_LAYOUT = "The file's layout differs from that of the training; it was detected."
_SAME = "the parts of one table have the same columns"
_DEFAULTS = LoadRequest()
_ONE_KIND = "give files of one kind alone, for example by a pattern such as 'data/*.csv'"
_TRAINING, _HELD_OUT = ("train", "training"), ("test", "testing", "val", "valid", "validation")


def read_table(path: Path, kind: FileFormat, request: LoadRequest = _DEFAULTS) -> RawTable:
    """Read a file of a kind in `TABLE_FORMATS`; with a schema, so that the model finds its columns."""
    if kind == "json":
        raw = read_json(path)
        return raw if request.schema is None else _with_keys(raw, request)
    if kind == "delimited":
        if request.schema is None:
            return read_delimited(path, request.table)
        return _read_for_model(path, request.table, request.schema)
    return {"parquet": read_parquet, "arrow": read_arrow, "workbook": read_workbook}[kind](path)


def _read_for_model(path: Path, given: TableOptions, schema: Schema) -> RawTable:
    """Read delimited text for a model, in the training's layout or, if that fails, in the detected one.

    Another program may have written it, in another encoding.
    """
    detected = replace(
        given, separator=None, header=None, encoding=None, comment=None, quote=None, skip_rows=0
    )
    found: list[RawTable] = []
    mistake: DataError | None = None
    for options in [given] if detected == given else [given, detected]:
        try:
            found.append(_read_named(path, options, schema))
        except DataError as error:
            mistake = mistake or error
            continue
        if options is given and _columns_there(found[-1], schema) == _columns_there(None, schema):
            return found[-1]
    if not found:
        assert mistake is not None
        raise mistake
    best = max(found, key=lambda raw: _columns_there(raw, schema))
    as_given = best is found[0] and mistake is None
    return best if as_given else replace(best, notes=(*best.notes, _OTHER_LAYOUT))


def _columns_there(raw: RawTable | None, schema: Schema) -> int:
    """Return how many of a model's columns a table has; without a table, the number of the columns."""
    names = {column.name for column in schema.columns if column.kind in LEARNT}
    if raw is None:
        return len(names)
    return (
        len(names & set(raw.table.column_names)) if schema.named else min(len(names), raw.table.num_columns)
    )


def _with_keys(raw: RawTable, request: LoadRequest) -> RawTable:
    """Add the model's columns for which no JSON object has a key, all missing."""
    schema, table = request.schema, raw.table
    assert schema is not None
    if _columns_there(raw, schema):
        targets = {str(key) for key in request.target or ()}
        for column in schema.columns:
            if column.kind in LEARNT and column.name not in {*table.column_names, *targets}:
                table = table.append_column(column.name, pa.nulls(len(table)))
    return replace(raw, table=table)


def _read_named(path: Path, options: TableOptions, schema: Schema) -> RawTable:
    """Read delimited text by options, for a model, which knows whether its columns have names."""
    if options.header is not None:
        return read_delimited(path, options)
    try:
        raw = read_delimited(path, options)
    except DataError:
        if schema.named:
            raise
        # A single row may look like names.
        return read_delimited(path, replace(options, header=False))
    if raw.named and not schema.named and _are_names(raw.table.column_names, schema):
        places = [str(place) for place in range(raw.table.num_columns)]
        notes = (*raw.notes, "The first row holds names: the model knows columns by their places.")
        return replace(raw, table=raw.table.rename_columns(places), named=False, notes=notes)
    return raw if raw.named == schema.named else read_delimited(path, replace(options, header=schema.named))


def _are_names(first: Sequence[str], schema: Schema) -> bool:
    """Tell whether a first row that looks like names can be no row of a table with columns of numbers."""
    words = missing_words(True, schema.options.missing)
    has_numbers = any(column.kind == "number" for column in schema.columns)
    return has_numbers and not any(is_number(cell) or cell.strip() in words for cell in first)


def table_parts(folder: Path) -> list[Path]:
    """Return the files of a folder of tables, in the order of their names; nothing where none is a table.

    The folder may be partitioned as Hive does it, into subfolders called ``key=value``. Names that begin
    with a dot or an underscore are left out.
    """
    paths = list(_parts(folder))
    return paths if any(format_by_name(path) in TABLE_FORMATS for path in paths) else []


def _parts(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir() and _PARTITION.fullmatch(path.name):
            yield from _parts(path)
        else:
            yield path


def read_parts(
    paths: Sequence[Path], where: str, folder: Path | None = None, request: LoadRequest = _DEFAULTS
) -> RawTable:
    """Read files that are parts of one table, joined in their order; `where` names them in messages.

    The keys of subfolders called ``key=value`` between `folder` and a file become columns of texts. Parts of
    several kinds or with different columns are a DataError, as are a training and a test set.
    """
    _check_names(paths, where)
    kind = _common_kind(paths, where, named=folder is not None)
    parts, size = [], 0
    with unchanged(*paths):
        for path in paths:
            part = read_table(path, kind, request)
            size += part.table.nbytes
            check_size(size, where)
            parts.append(_with_partition(part, path, folder))
    tables = [_matching(part, parts[0], path, paths[0]) for part, path in zip(parts, paths, strict=True)]
    notes = dict.fromkeys(note for part in parts for note in part.notes)
    return RawTable(
        _joined(tables, paths, kind), parts[0].named, parts[0].separator, parts[0].index, tuple(notes)
    )


def _common_kind(paths: Sequence[Path], where: str, named: bool) -> FileFormat:
    """Return the kind of all the parts; where `named` is set, their suffixes have to say it too."""
    kinds: dict[FileFormat, Path] = {}
    for path in paths:
        if path.is_dir():
            raise DataError(f"{where}: {path.name} is a folder: {_ONE_KIND}")
        kind = file_format(path) if not named or format_by_name(path) in TABLE_FORMATS else None
        if kind not in TABLE_FORMATS:
            raise DataError(f"{where}: {path.name} is no part of a table: {_ONE_KIND}")
        kinds.setdefault(kind, path)
    if len(kinds) > 1:
        said = " and ".join(f"{TABLE_FORMATS[kind]} ({path.name})" for kind, path in kinds.items())
        raise DataError(f"{where}: there are {said}: {_ONE_KIND}")
    return next(iter(kinds))


def _check_names(paths: Sequence[Path], where: str) -> None:
    """Raise an error for a training set and a test set in one folder."""
    stems = {path.name.lower().partition(".")[0]: path for path in reversed(paths)}
    training = next((stems[name] for name in _TRAINING if name in stems), None)
    held_out = next((stems[name] for name in _HELD_OUT if name in stems), None)
    if training is not None and held_out is not None:
        raise DataError(
            f"{where}: {training.name} and {held_out.name} are not one table: train on {training}, and give "
            f"{held_out} as the test set"
        )


def _with_partition(part: RawTable, path: Path, folder: Path | None) -> RawTable:
    table = part.table
    for name in path.relative_to(folder).parent.parts if folder is not None else ():
        found = _PARTITION.fullmatch(name)
        assert found is not None
        key, value = unquote(found[1]), unquote(found[2])
        if key in table.column_names:
            raise DataError(f"{path}: column {key!r} is also the name of a folder: rename one of them")
        missing = value == _MISSING_PARTITION
        column = pa.repeat(pa.scalar(None if missing else value, pa.string()), len(table))
        table = table.append_column(key, column)
    return replace(part, table=table)


def _matching(part: RawTable, first: RawTable, path: Path, first_path: Path) -> pa.Table:
    """Return a part's columns in the order of the first part's; raise where they differ."""
    names, request = part.table.column_names, first.table.column_names
    if part.named != first.named:
        without, with_names = (path, first_path) if first.named else (first_path, path)
        raise DataError(f"{without}: the columns have no names, and those of {with_names} have: add a header")
    for name in request:
        if name not in names:
            raise DataError(f"{path}: there is no column {name!r}, which {first_path} has: {_SAME}")
    for name in names:
        if name not in request:
            raise DataError(f"{path}: the column {name!r} is not in {first_path}: {_SAME}")
    return part.table.select(request)


def _joined(tables: Sequence[pa.Table], paths: Sequence[Path], kind: FileFormat) -> pa.Table:
    """Join the parts; a column takes the type that all its parts fit into."""
    types = {field.name: field.type for field in tables[0].schema}
    for table, path in zip(tables[1:], paths[1:], strict=True):
        for name, type_ in zip(table.column_names, table.schema.types, strict=True):
            common = _common_type(types[name], type_, kind)
            if common is None:
                raise DataError(
                    f"{path}: the column {name!r} is {str(type_)[:80]}, and {str(types[name])[:80]} in "
                    f"{paths[0]}: write it alike in all parts"
                )
            types[name] = common
    try:
        return pa.concat_tables([table.cast(pa.schema(types)) for table in tables])
    except pa.ArrowException as error:
        raise DataError(f"{paths[0].parent}: the parts do not fit together: {error}") from None


def _common_type(first: pa.DataType, second: pa.DataType, kind: FileFormat) -> pa.DataType | None:
    """Return the type that holds the values of both, or None."""
    if first == second:
        return first
    if _is_text(first) and _is_text(second):
        return pa.large_string()
    schemas = [pa.schema([("", type_)]) for type_ in (first, second)]
    try:
        return pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        # As within one file of JSON.
        scalar = not any(map(pa.types.is_nested, (first, second)))
        return pa.large_string() if kind == "json" and scalar else None


def _is_text(type_: pa.DataType) -> bool:
    values = type_.value_type if pa.types.is_dictionary(type_) else type_
    return pa.types.is_string(values) or pa.types.is_large_string(values)
