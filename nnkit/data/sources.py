"""Load a data set from a file, a folder or a built-in's name, recognised by content and suffix."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from nnkit.data.arrays import column_index, read_npy, read_npz, select_columns
from nnkit.data.builtin import BUILT_INS, load_built_in
from nnkit.data.examples import Dataset, Examples
from nnkit.data.idx import image_pairs, is_image_file, load_image_file, load_image_folder
from nnkit.data.picture_sources import (
    PICTURE_SUFFIXES,
    PictureFiles,
    find_pictures,
    holds_pictures,
    is_picture,
    load_pictures,
    picture_column,
    picture_folder,
    picture_table,
    read_list,
)
from nnkit.data.pictures import PictureOptions, Pictures
from nnkit.data.targets import check_target
from nnkit.data.text_folders import holds_texts, read_text_folder
from nnkit.data.unchanged import unchanged
from nnkit.errors import DataError, FileError
from nnkit.working import working

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Dataset", "Examples", "load_dataset", "source_not_found"]

_KINDS = "CSV, TSV, JSON Lines, Parquet, Arrow, Feather, .npy, .npz or a folder of IDX or text files"
_TEXT_SUFFIXES = ("", ".csv", ".tsv", ".txt", ".data", ".dat", ".gz")
_JSON_SUFFIXES = (".jsonl", ".ndjson", ".json")
_ARROW_SUFFIXES = (".arrow", ".feather", ".ipc", ".arrows")

Key = str | int


def load_dataset(
    source: str | Path | Sequence[str | Path],
    *,
    target: Key | Sequence[Key] | None = None,
    features: Sequence[Key] | None = None,
    drop: Sequence[Key] | None = None,
    test: str | Path | None = None,
    require_target: bool = True,
    pictures: PictureOptions | None = None,
    mapped: bool = False,
) -> Dataset:
    """Load a data set.

    Parameters
    ----------
    source : str or Path, or a list of pictures' paths
        A file (delimited text, JSON Lines, Parquet, Arrow, Feather, .npy, .npz), a folder of IDX files or the
        images' file of one set, a folder of pictures or of .txt files in a subfolder a class, a table of
        pictures' paths, or the name of a built-in. Rows to predict may also be a picture, any folder of
        pictures, or a text of paths.
    target : str, int, or a list of them, optional
        The target's column by name or number (negative: from the end); several for several targets. Without
        it, a table's one column named target, label, class or y.
    features : list of str or int, optional
        The columns to learn from; without it, all but the target.
    drop : list of str or int, optional
        Columns to leave out.
    test : str or Path, optional
        A second source with the same columns, for the test set.
    require_target : bool
        False for rows to predict: the target may be absent, and is then None; columns named as `target` are
        never features. Without `target`, every column of a table is a feature.
    pictures : PictureOptions, optional
        What pictures are made into, and what to do about bad ones.
    mapped : bool
        Whether a .npy file is mapped however small it is; one that would take half of the memory always is.

    Raises
    ------
    FileError
        Where the source is neither a file nor a built-in, or cannot be read.
    DataError
        Where its content cannot be used; the message names the file, the row or the column, and the mend.
    """
    keys, options = _key_list(target), pictures or PictureOptions()
    if not isinstance(source, str | Path):
        listed = PictureFiles("pictures", [Path(path).expanduser() for path in source])
        return load_pictures(listed, options, "pictures", keep=False)
    with working(f"reading {source}"):
        dataset = _load(source, keys, features, drop, require_target, options, mapped)
    if test is None:
        return dataset
    chosen = dataset.target_names if keys is None else keys
    second = load_dataset(
        test,
        target=chosen or None,
        features=features,
        drop=drop,
        require_target=require_target,
        pictures=pictures,
        mapped=mapped,
    )
    kinds = [
        next(kind for kind in (Pictures, np.ndarray, object) if isinstance(rows.features, kind))
        for rows in (dataset.train, second.train)
    ]
    if kinds[0] is not kinds[1]:
        raise DataError(
            f"{test}: the training set is of another kind (named columns, an array or pictures): "
            "give both alike"
        )
    return replace(dataset, test=second.train, notes=dataset.notes + second.notes)


def _load(
    source: str | Path,
    keys: list[Key] | None,
    features: Sequence[Key] | None,
    drop: Sequence[Key] | None,
    require_target: bool,
    options: PictureOptions,
    mapped: bool,
) -> Dataset:
    """Return one source, without a second one for testing; arguments and errors as for `load_dataset`."""
    with unchanged(Path(source).expanduser()):
        opened, where = _open(source, require_target, options, mapped)
    try:
        files = _picture_files(opened, where, keys, require_target, options)
        if files is not None:
            return load_pictures(files, options, where, keep=require_target)
        if isinstance(opened, Dataset):
            return _from_arrays(opened, where, keys, features, drop, require_target)
        assert not isinstance(opened, PictureFiles)
        if keys is None and require_target and where in BUILT_INS:
            keys = [-1]
        return _from_table(opened, where, keys, features, drop, require_target)
    except DataError as error:
        text = str(error)
        raise DataError(text if text.startswith(where) else f"{where}: {text}") from None


def _picture_files(
    opened: Dataset | pa.Table | PictureFiles,
    where: str,
    keys: list[Key] | None,
    require_target: bool,
    options: PictureOptions,
) -> PictureFiles | None:
    """Return the pictures that a source holds or names; None where it holds something else."""
    if isinstance(opened, PictureFiles):
        if require_target and keys is not None and [str(key) for key in keys] != list(opened.target_names):
            raise DataError("the classes are the names of the subfolders: leave out `target`")
        return opened
    if isinstance(opened, Dataset) or where in BUILT_INS:
        return None
    path = Path(where)
    column = picture_column(opened, path.parent, options.column)
    if column is None:
        return None
    labels, names = _table_target(opened, keys, require_target)
    return picture_table(opened, column, path, labels, names)


def _key_list(target: Key | Sequence[Key] | None) -> list[Key] | None:
    if target is None or isinstance(target, str | int | np.integer):
        return None if target is None else [target]
    return list(target) or None


def _open(
    source: str | Path, require_target: bool, options: PictureOptions, mapped: bool
) -> tuple[Dataset | pa.Table | PictureFiles, str]:
    """Return what the source holds, and what to call it in messages."""
    path = Path(source).expanduser()
    try:
        is_folder, exists = path.is_dir(), path.exists()
    except (OSError, ValueError) as error:
        raise FileError(f"{source!s}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    # A folder that happens to have a built-in's name does not hide it, unless it holds images.
    built_in = str(source) in BUILT_INS
    if built_in and not (exists and not is_folder) and not (is_folder and image_pairs(path)):
        return load_built_in(str(source)), str(source)
    if is_folder:
        return _open_folder(path, require_target, options), str(path)
    if not exists:
        raise source_not_found(str(source))
    try:
        with path.open("rb") as stream:
            magic = stream.read(8)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None
    if not magic:
        raise DataError(f"{path}: the file is empty")
    return _open_file(path, magic, require_target, mapped), str(path)


def source_not_found(source: str) -> FileError:
    """Return the error for a source that is no file, folder or built-in, with the nearest name."""
    near = difflib.get_close_matches(source.lower(), BUILT_INS, n=1)
    if not near and (folder := Path(source).expanduser().parent).is_dir():
        names = [path.name for path in folder.iterdir()]
        near = difflib.get_close_matches(Path(source).name, names, n=1, cutoff=0.8)
    hint = f": did you mean {near[0]}?" if near else ""
    return FileError(
        f"{source}: no such file, folder or built-in{hint}\nThe built-ins are {', '.join(BUILT_INS)}"
    )


def _open_folder(
    path: Path, require_target: bool, options: PictureOptions
) -> Dataset | pa.Table | PictureFiles:
    try:
        pairs = image_pairs(path)
        found = sorted(item.name for item in path.iterdir())
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from None
    if pairs:
        return load_image_folder(path, require_target=require_target)
    if holds_pictures(path):
        return picture_folder(path, options) if require_target else find_pictures(path)
    if holds_texts(path):
        return read_text_folder(path, require_target)
    listed = ", ".join(found[:8]) + (", …" if len(found) > 8 else "") if found else "nothing"
    raise FileError(
        f"{path}: neither pictures ({', '.join(PICTURE_SUFFIXES)}), texts (.txt) nor IDX files "
        "(train-images-idx3-ubyte and train-labels-idx1-ubyte, or .gz) in this folder, which holds "
        f"{listed}: give such a folder, or one file"
    )


def _open_file(
    path: Path, magic: bytes, require_target: bool, mapped: bool
) -> Dataset | pa.Table | PictureFiles:
    suffix = path.suffix.lower()
    if is_picture(path):
        if require_target:
            raise DataError(f"{path}: one picture has no class to learn: give a folder of pictures")
        return PictureFiles(path.stem, [path])
    if suffix == ".txt" and not require_target and (named := read_list(path)) is not None:
        return named
    if is_image_file(path):
        return load_image_file(path, require_target=require_target)
    if magic.startswith(b"\x93NUMPY") or suffix == ".npy":
        return read_npy(path, mapped)
    if suffix == ".npz":
        return read_npz(path)
    if magic.startswith(b"PAR1") or suffix in (".parquet", ".pq"):
        from nnkit.data.tables.columnar import read_parquet

        return read_parquet(path)
    if magic.startswith((b"ARROW1", b"FEA1")) or suffix in _ARROW_SUFFIXES:
        from nnkit.data.tables.columnar import read_arrow

        return read_arrow(path)
    if path.name.lower().removesuffix(".gz").endswith(_JSON_SUFFIXES):
        from nnkit.data.tables.json_lines import read_json_lines

        return read_json_lines(path)
    if suffix in _TEXT_SUFFIXES and not magic.startswith(b"PK"):
        from nnkit.data.tables.delimited import read_delimited

        return read_delimited(path)
    raise FileError(f"{path}: files of this kind are not read: give {_KINDS}")


def _from_table(
    table: pa.Table,
    where: str,
    target: list[Key] | None,
    features: Sequence[Key] | None,
    drop: Sequence[Key] | None,
    require_target: bool,
) -> Dataset:
    from nnkit.data.tables.frames import check_names, check_table, column_name, listed

    names = table.column_names
    check_names(names)
    values, targets = _table_target(table, target, require_target)
    wanted = names if features is None else [column_name(key, names) for key in features]
    dropped = {column_name(key, names) for key in drop or ()}.union(targets)
    wanted = [name for name in dict.fromkeys(wanted) if name not in dropped]
    if not wanted:
        raise DataError(f"no feature column is left of {listed(names)}")
    table_features = table.select(wanted)
    check_table(table_features)
    name = Path(where).name.removesuffix(".gz").rsplit(".", 1)[0]
    found = tuple(targets) if values is not None else ()
    return Dataset(name, Examples(table_features, values), None, found, columns=tuple(names))


def _table_target(table: pa.Table, target: list[Key] | None, require_target: bool) -> tuple[Any, list[str]]:
    """Return the values of the target's columns, None where they are not complete, and those there are."""
    from nnkit.data.tables.frames import column_name, default_target, join_target, listed

    names = table.column_names
    if target is None and require_target:
        guess = default_target(names)
        if guess is None:
            raise DataError(
                f"which column is the target? Name it with `target`; the columns are {listed(names)}"
            )
        target = [guess]
    targets: list[str] = []
    for key in target or ():
        try:
            targets.append(column_name(key, names))
        except DataError:
            if require_target:
                raise
    complete = len(targets) == len(target or ()) > 0
    if complete and (require_target or not all(table[name].null_count == len(table) for name in targets)):
        return join_target(table, targets), targets
    return None, targets


def _from_arrays(
    dataset: Dataset,
    where: str,
    target: list[Key] | None,
    features: Sequence[Key] | None,
    drop: Sequence[Key] | None,
    require_target: bool,
) -> Dataset:
    """Apply the choice of columns to arrays, and take the target out where they have none of their own."""
    train, test, names = dataset.train, dataset.test, dataset.target_names
    dropped = list(drop or ())
    if train.target is None and target is not None:
        count = train.array.shape[1]
        try:
            columns = [column_index(key, count, where) for key in target]
        except DataError:
            if require_target:
                raise
        else:
            values = check_target(np.asarray(train.array[:, columns]), [str(column) for column in columns])
            train, names = Examples(train.features, values), tuple(str(column) for column in columns)
            dropped += columns
    elif require_target and target is not None and [str(key) for key in target] != list(names):
        raise DataError(f"the target comes with this data as {names[0]!r}: leave out `target`")
    if train.target is None and require_target:
        raise DataError(
            "there is no target: give the number of its column with `target`, or give a .npz with X and y"
        )
    if features is None and not dropped:
        return Dataset(dataset.name, train, test, names, dataset.image_shape)

    def selected(examples: Examples) -> Examples:
        values: NDArray[Any] = select_columns(examples.array, features, dropped, where)
        return Examples(values, examples.target)

    return Dataset(dataset.name, selected(train), None if test is None else selected(test), names, None)
