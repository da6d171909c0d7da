"""Load a data set from a file, a folder or a built-in's name, recognised by content and suffix.

Order: data sets, tables, opening sources, reading their content.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from glob import glob
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nnkit.data.arrays.idx import image_pairs, is_image_file, load_image_file, load_image_folder
from nnkit.data.arrays.reading import column_index, read_npy, read_npz, select_columns
from nnkit.data.examples import Dataset, Examples, Key, LoadRequest, RawTable, split_keys
from nnkit.data.files.changes import unchanged
from nnkit.data.files.formats import file_format, remote_source
from nnkit.data.messages import about, reading, unreadable
from nnkit.data.pictures.columns import PictureOptions, Pictures
from nnkit.data.pictures.folders import ExampleFiles, FolderTree, labelled_files, unlabelled_files
from nnkit.data.pictures.sources import PICTURES, load_pictures, picture_column, picture_table, read_list
from nnkit.data.sources.built_in import BUILT_INS, load_built_in
from nnkit.data.sources.streams import is_stream, spooled, stream_name
from nnkit.data.tables.options import TableOptions
from nnkit.data.targets.values import check_target
from nnkit.data.text.folders import TEXTS, read_text_folder
from nnkit.errors import ConfigError, DataError, FileError, unknown_name
from nnkit.working import working

if TYPE_CHECKING:
    import pyarrow as pa

    from nnkit.data.tables.schema import Schema

__all__ = ["Dataset", "Examples", "load_dataset", "read_table", "source_not_found"]

_PATTERN = re.compile(r"[*?[]")
Source = str | Path | Sequence[str | Path]
_Opened = Dataset | RawTable | ExampleFiles


def load_dataset(
    source: Source,
    *,
    target: Key | Sequence[Key] | None = None,
    features: Sequence[Key] | None = None,
    drop: Sequence[Key] | None = None,
    test: str | Path | None = None,
    require_target: bool = True,
    pictures: PictureOptions | None = None,
    mapped: bool = False,
    table: TableOptions | None = None,
    schema: Schema | None = None,
    strict: bool = True,
    multilabel: bool = False,
    target_like: Sequence[str] = (),
) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    source : str or Path, or a list of them
        A file (delimited text, JSON, Parquet, Arrow, Feather, Excel, .npy, .npz; text may be compressed by
        gzip, bzip2 or zstd), "-" for standard input, a folder of IDX files or one of its files of images, a
        folder of pictures or of .txt files with a subfolder for each class (or with subfolders train and test
        that have those), a table of pictures' paths, or the name of a built-in. A folder of tables, a pattern
        such as ``parts/*.csv`` and a list are parts of one table. Rows to predict may also be a picture or a
        list of pictures, any folder of pictures or texts, or a text file of paths.
    target : str, int, or a list of them, optional
        The target's column by name or number (negative: from the end), or several columns. By default, the
        only column named target, label, class or y.
    features : list of str or int, optional
        The columns to learn from; by default, all but the target.
    drop : list of str or int, optional
        Columns to leave out.
    test : str or Path, optional
        A second source with the same columns, for the test set.
    require_target : bool
        False for rows to predict: the target may be missing, and is then None; the columns of `target` are
        never features. Without `target`, every column of a table is a feature.
    pictures : PictureOptions, optional
        How pictures are converted, and what to do with pictures or texts that cannot be read.
    mapped : bool
        Whether to map a .npy file even if it is small; one larger than half of the memory is always mapped.
    table : TableOptions, optional
        How the table is written; by default, this is detected.
    schema : Schema, optional
        A model's schema for reading the table's columns; by default, a schema is inferred from all rows.
    strict : bool
        Whether it is a DataError if more than a tenth of a column's cells do not fit its kind; otherwise they
        are missing values, with a warning.
    multilabel : bool
        Whether to read a target of one column as lists of labels, such as ``a;c``.
    target_like : sequence of str
        The columns of `schema` that describe the columns of `target`, if their names differ.

    Raises
    ------
    FileError
        If the source is neither a file nor a built-in, or cannot be read.
    DataError
        If its content cannot be used; the message names the file, the row or the column, and what to do.
    """
    # Long for its parameters and their description.
    request = LoadRequest(
        _key_list(target),
        features,
        drop,
        require_target,
        pictures or PictureOptions(),
        mapped,
        table or (TableOptions() if schema is None else schema.options),
        schema,
        strict,
        multilabel,
        tuple(target_like),
    )
    if not source:
        raise DataError("there is nothing to read: give a file, a folder or a list of pictures")
    if not isinstance(source, str | Path) and any(map(PICTURES.matches, source)):
        files = ExampleFiles(PICTURES, "pictures", [Path(path).expanduser() for path in source])
        return load_pictures(files, request.pictures, keep=False)
    with working(f"reading {_shown(source)}"):
        dataset = _load(source, request)
    return dataset if test is None else _with_test_set(dataset, test, request)


def _with_test_set(dataset: Dataset, test: str | Path, request: LoadRequest) -> Dataset:
    """Load a test set from a second source, read as the training set was."""
    by_name = dataset.schema is not None and request.schema is None
    chosen: list[Key] = list(dataset.target_names) if by_name or request.target is None else request.target
    like = request.pictures.like(dataset.train.features)
    later = replace(request, target=chosen or None, schema=request.schema or dataset.schema, pictures=like)
    if by_name:
        # The second table's columns may be in another order; the schema names the features.
        later = replace(later, features=None, drop=None)
    with working(f"reading {test}"):
        second = _load(test, later)
    kinds = [
        next(kind for kind in (Pictures, np.ndarray, object) if isinstance(rows.features, kind))
        for rows in (dataset.train, second.train)
    ]
    if kinds[0] is not kinds[1]:
        raise DataError(
            f"{test}: the training set is of another kind (named columns, an array or pictures): "
            "both must be of the same kind"
        )
    return replace(dataset, test=second.train, notes=dataset.notes + second.notes)


def read_table(source: Source, *, schema: Schema | None = None, **options: Any) -> pa.Table:
    """Read a table as a training reads it.

    Parameters
    ----------
    source : str or Path, or a list of them
        As for `load_dataset`.
    schema : Schema, optional
        A model's schema for reading the columns; by default, a schema is inferred from all rows.
    **options
        How the table is written, as in `nnkit.data.tables.options.TableOptions`: separator, header,
        encoding, decimal, thousands, missing, comment, skip_rows, quote, index, types.

    Returns
    -------
    pyarrow.Table
        Numbers, booleans, timestamps and texts, null for what is missing. It keeps its schema: a training or
        a model does not infer it again.

    Raises
    ------
    FileError
        If the source cannot be read.
    DataError
        If it is not a table, or a column cannot be read.
    ConfigError
        If an option is unknown or its value is invalid.
    """
    from nnkit.data.tables.frames import read_raw

    unknown = options.keys() - TableOptions.__dataclass_fields__.keys()
    if unknown:
        raise unknown_name("option", min(unknown), TableOptions.__dataclass_fields__)
    if "missing" in options:
        options["missing"] = tuple(options["missing"])
    table = TableOptions(**options) if options or schema is None else schema.options
    pictures = PictureOptions(expected=False)
    request = LoadRequest(require_target=False, pictures=pictures, table=table, schema=schema)
    opened, where = _open(source, request)
    if isinstance(opened, Dataset | ExampleFiles):
        raise DataError(f"{where}: this is not a table with named columns")
    return read_raw(opened, table, schema)[0]


def _shown(source: Source) -> str:
    """Return the name of a source in messages."""
    if isinstance(source, str | Path):
        return stream_name(source)
    return str(source[0]) if len(source) == 1 else f"{source[0]} and {len(source) - 1} more"


def _open(source: Source, request: LoadRequest) -> tuple[_Opened, str]:
    """Return the content of a source, and its name in messages."""
    if not isinstance(source, str | Path):
        paths, where = [Path(path).expanduser() for path in source], _shown(source)
        return _open_parts(paths, where, request), where
    if is_stream(source):
        with spooled(source) as file:
            return _open_file(file, request), stream_name(source)
    path = Path(source).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        raise unreadable(source, error) from None
    # A folder that happens to have a built-in's name does not hide it, unless it holds images.
    built_in = str(source) in BUILT_INS
    if built_in and not (exists and not is_folder) and not (is_folder and image_pairs(path)):
        built = load_built_in(str(source))
        return built if isinstance(built, Dataset) else RawTable(built), str(source)
    if is_folder:
        return _open_folder(path, request), str(path)
    if not exists:
        named = sorted(glob(str(path), recursive=True)) if _PATTERN.search(str(path)) else []
        if named:
            return _open_parts([Path(name) for name in named], str(path), request), str(path)
        raise source_not_found(str(source))
    return _open_file(path, request), str(path)


def _open_parts(paths: list[Path], where: str, request: LoadRequest, folder: Path | None = None) -> RawTable:
    """Read files that are the parts of one table."""
    from nnkit.data.tables.files import read_parts

    for path in paths:
        if not path.exists():
            raise source_not_found(str(path))
    return read_parts(paths, where, folder, request)


def source_not_found(source: str) -> FileError:
    """Return the error for a source that is not a file, folder or built-in, with the most similar name."""
    remote = remote_source(source)
    if remote is not None:
        return remote
    near = difflib.get_close_matches(source.lower(), BUILT_INS, n=1)
    if not near and (folder := Path(source).expanduser().parent).is_dir():
        names = [path.name for path in folder.iterdir()]
        near = difflib.get_close_matches(Path(source).name, names, n=1, cutoff=0.8)
    hint = f": did you mean {near[0]}?" if near else ""
    return FileError(
        f"{source}: no such file, folder or built-in{hint}\nThe built-ins are {', '.join(BUILT_INS)}"
    )


def _open_folder(path: Path, request: LoadRequest) -> _Opened:
    with reading(path):
        pairs = image_pairs(path)
        found = sorted(item.name for item in path.iterdir())
    if pairs:
        return load_image_folder(path, require_target=request.require_target)
    tree = FolderTree(path)
    for kind in (PICTURES, TEXTS):
        if tree.holding(kind):
            if not request.require_target:
                return unlabelled_files(tree, kind)
            return labelled_files(tree, kind, request.pictures.on_bad == "skip")
    from nnkit.data.tables.files import table_parts

    if parts := table_parts(path):
        return _open_parts(parts, str(path), request, path)
    content = ", ".join(found[:8]) + (", …" if len(found) > 8 else "") if found else "nothing"
    raise FileError(
        f"{path}: neither tables, pictures ({PICTURES.listed}), texts ({TEXTS.listed}) nor IDX files "
        "(train-images-idx3-ubyte and train-labels-idx1-ubyte, or .gz) in this folder, which holds "
        f"{content}: give such a folder, or one file"
    )


def _open_file(path: Path, request: LoadRequest) -> _Opened:
    require_target = request.require_target
    if PICTURES.matches(path):
        if require_target:
            raise DataError(f"{path}: one picture has no class to learn: give a folder of pictures")
        return ExampleFiles(PICTURES, path.stem, [path])
    if path.suffix.lower() == ".txt" and not require_target and (named := read_list(path)) is not None:
        return named
    if is_image_file(path):
        return load_image_file(path, require_target=require_target)
    kind = file_format(path)
    if kind == "npy":
        return read_npy(path, request.mapped)
    if kind == "npz":
        return read_npz(path)
    from nnkit.data.tables.files import read_table

    return read_table(path, kind, request)


def _load(source: Source, request: LoadRequest) -> Dataset:
    """Load one source, without a test set from another."""
    paths = [source] if isinstance(source, str | Path) else source
    with unchanged(*(Path(path).expanduser() for path in paths)):
        opened, where = _open(source, request)
    if request.target is not None:
        names = opened.table.column_names if isinstance(opened, RawTable) else []
        request = replace(request, target=split_keys(request.target, names))
    with about(where):
        files = _example_files(opened, where, request)
        if request.table.weight is not None and not (files is None and isinstance(opened, RawTable)):
            raise ConfigError("`weight` is a column of a table of features: leave it out")
        if files is not None and files.kind is TEXTS:
            return read_text_folder(files, request.pictures.on_bad == "skip", request.table.encoding)
        if files is not None:
            return load_pictures(files, request.pictures, keep=request.require_target)
        if isinstance(opened, Dataset):
            return _from_arrays(opened, where, request)
        assert isinstance(opened, RawTable)
        if request.target is None and request.require_target and where in BUILT_INS:
            request = replace(request, target=[-1])
        from nnkit.data.tables.dataset import table_dataset

        return table_dataset(opened, where, request)


def _example_files(opened: _Opened, where: str, request: LoadRequest) -> ExampleFiles | None:
    """Return the pictures or texts that a source holds or names; None for any other source."""
    keys = request.target
    if isinstance(opened, ExampleFiles):
        other = keys is not None and [str(key) for key in keys] != list(opened.target_names)
        if request.require_target and other:
            raise DataError("the classes are the names of the subfolders: leave out `target`")
        return opened
    if isinstance(opened, Dataset) or where in BUILT_INS:
        return None
    path = Path(where)
    names = opened.table.column_names
    others = _columns_there([*(request.drop or ()), *(keys or ())], names)
    chosen = names if request.features is None else _columns_there(request.features, names)
    possible = [name for name in chosen if name not in others]
    column = picture_column(opened.table, possible, path.parent, request.pictures)
    if column is None:
        return None
    from nnkit.data.tables.dataset import table_target

    labels, targets = table_target(opened, request)
    return picture_table(opened.table, column, path, labels, targets)


def _columns_there(keys: Sequence[Key], names: Sequence[str]) -> list[str]:
    """Return the names of those columns that are there."""
    from nnkit.data.tables.frames import column_name

    found = []
    for key in keys:
        with suppress(DataError):
            found.append(column_name(key, names))
    return found


def _key_list(target: Key | Sequence[Key] | None) -> list[Key] | None:
    if target is None or isinstance(target, str | int | np.integer):
        return None if target is None else [target]
    return list(target) or None


def _from_arrays(dataset: Dataset, where: str, request: LoadRequest) -> Dataset:
    """Choose the columns of arrays, and split off the target if it is one of them."""
    train, test, names = dataset.train, dataset.test, dataset.target_names
    target, required = request.target, request.require_target
    dropped = list(request.drop or ())
    if train.target is None and target is not None:
        count = train.array.shape[1]
        try:
            columns = [column_index(key, count, where) for key in target]
        except DataError:
            if required:
                raise
        else:
            values = check_target(np.asarray(train.array[:, columns]), [str(column) for column in columns])
            train, names = Examples(train.features, values), tuple(str(column) for column in columns)
            dropped += columns
    elif required and target is not None and [str(key) for key in target] != list(names):
        raise DataError(f"the target comes with this data as {names[0]!r}: leave out `target`")
    if train.target is None and required:
        raise DataError(
            "there is no target: give the number of its column with `target`, or give a .npz with X and y"
        )
    if request.features is None and not dropped:
        return Dataset(dataset.name, train, test, names, dataset.image_shape)

    def selected(examples: Examples) -> Examples:
        return Examples(select_columns(examples.array, request.features, dropped, where), examples.target)

    return Dataset(dataset.name, selected(train), None if test is None else selected(test), names, None)
