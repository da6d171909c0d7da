"""Find examples in a folder, pictures or texts: one in each file, in a subfolder for each class."""

from __future__ import annotations

import heapq
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.data.examples import Dataset, Examples
from nnkit.data.messages import more, reading
from nnkit.data.pictures.columns import printable, shown_path
from nnkit.errors import DataError

__all__ = ["CLASS", "ExampleFiles", "FolderTree", "Kind", "labelled_files", "load_files", "unlabelled_files"]

CLASS = "class"
"""The name of the target: the subfolder of a file."""
_TRAINING, _TESTING = ("train", "training"), ("test", "testing")
_VALIDATING = ("val", "valid", "validation")
_UNLABELLED = ("unsup", "unsupervised", "unlabeled", "unlabelled")
# Files of other systems, beside names that begin with a dot, such as the ._x of macOS.
_LITTER = ("thumbs.db", "desktop.ini", "__macosx")

_Parts = tuple[str, ...]  # of the path of a folder within the root


@dataclass(frozen=True)
class Kind:
    """The content of files: pictures or texts."""

    noun: str
    suffixes: tuple[str, ...]  # in small letters
    # "error" or "note", for files beside the subfolders of the classes: a picture there has lost its class,
    # while a text mostly describes the data.
    beside: str

    def matches(self, name: str | os.PathLike[str]) -> bool:
        """Tell whether a file's name has one of the suffixes."""
        return os.fspath(name).lower().endswith(self.suffixes)

    @property
    def listed(self) -> str:
        """The suffixes, for messages."""
        return ", ".join(self.suffixes)


@dataclass(frozen=True, eq=False)
class ExampleFiles:
    """Files that hold an example each and are not read yet."""

    kind: Kind
    name: str  # of the source, for the run's folder
    paths: list[Path]  # some may be missing
    labels: NDArray[Any] | None = None  # of shape (files,)
    target_names: tuple[str, ...] = ()
    bad: tuple[str, ...] = ()  # why files of another kind were left out
    test: ExampleFiles | None = None  # the test set that lies beside
    notes: tuple[str, ...] = ()  # for the user


class FolderTree:
    """All files of a folder and of the folders within it, without litter.

    Symbolic links are followed, but no file is read twice: neither one at its own place in the folder, nor
    the files of a folder that holds the link itself, nor the target of an earlier link.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.again: list[Path] = []  # links to files that are read already
        # The files of each folder, which is given by the parts of its path within the root.
        found: dict[_Parts, list[str]] = {}
        top = os.path.realpath(root)
        seen: set[str] = set()
        waiting: list[tuple[_Parts, str]] = [((), top)]
        links: list[_Parts] = []  # a heap
        while waiting or links:
            if not waiting:
                self._follow(heapq.heappop(links), found, seen, waiting)
                continue
            parts, real = waiting.pop()
            if real in seen or (parts and (top + os.sep).startswith(os.path.join(real, ""))):
                self.again.append(root.joinpath(*parts))
                continue
            seen.add(real)
            names, folders, linked = _entries(root.joinpath(*parts))
            found[parts] = [name for name in names if os.path.join(real, name) not in seen]
            seen.update(os.path.join(real, name) for name in names)
            waiting += [((*parts, name), os.path.join(real, name)) for name in folders]
            for name in linked:
                heapq.heappush(links, (*parts, name))
        self._folders = {parts: sorted(found[parts]) for parts in sorted(found)}

    def _follow(
        self, link: _Parts, found: dict[_Parts, list[str]], seen: set[str], waiting: list[tuple[_Parts, str]]
    ) -> None:
        path = self.root.joinpath(*link)
        real = os.path.realpath(path)
        if os.path.isdir(real):
            waiting.append((link, real))
        elif real in seen:
            self.again.append(path)
        else:
            seen.add(real)
            found[link[:-1]].append(link[-1])

    def files(self) -> list[Path]:
        """Return all files, those of a folder before those of its subfolders."""
        return [Path(self.root, *parts, name) for parts, names in self._folders.items() for name in names]

    def files_beside(self, kind: Kind, *parts: str) -> list[Path]:
        """Return the files of a kind that lie in a folder of the tree, but in none of its subfolders."""
        return [Path(self.root, *parts, name) for name in self._folders[parts] if kind.matches(name)]

    def by_subfolder(self, *parts: str) -> dict[str, list[Path]]:
        """Return the files within the subfolders of a folder of the tree, by the subfolders' names."""
        found: dict[str, list[Path]] = {}
        depth = len(parts)
        for place, names in self._folders.items():
            if len(place) > depth and place[:depth] == parts:
                files = found.setdefault(place[depth], [])
                files += [Path(self.root, *place, name) for name in names]
        return found

    def holding(self, kind: Kind) -> frozenset[str]:
        """Return the names of the root's subfolders that hold files of a kind; "" for the root itself."""
        folders = self._folders.items()
        return frozenset("".join(place[:1]) for place, names in folders if any(map(kind.matches, names)))


def _entries(folder: Path) -> tuple[list[str], list[str], list[str]]:
    """Return the names of a folder's files, subfolders and symbolic links, without litter."""
    files: list[str] = []
    folders: list[str] = []
    links: list[str] = []
    with reading(folder), os.scandir(folder) as entries:
        for entry in entries:
            if not entry.name.startswith(".") and entry.name.lower() not in _LITTER:
                is_folder = entry.is_dir(follow_symlinks=False)
                (links if entry.is_symlink() else folders if is_folder else files).append(entry.name)
    return files, folders, links


def _sets(tree: FolderTree, kind: Kind) -> tuple[str, str | None, list[str]] | None:
    """Return the subfolders for training, testing and validation; None where others hold examples too."""
    names = {name.lower(): name for name in tree.holding(kind) if name}
    training, testing, validating = (
        [names[name] for name in part if name in names] for part in (_TRAINING, _TESTING, _VALIDATING)
    )
    if len(training) != 1 or len(testing) > 1 or len(training + testing + validating) < len(names):
        return None
    return training[0], testing[0] if testing else None, validating


def unlabelled_files(tree: FolderTree, kind: Kind) -> ExampleFiles:
    """Return all files of a kind, in the order of their paths, for prediction.

    If there are subfolders train and test, files beside these and beside their classes are left out.
    """
    sets, beside = _sets(tree, kind), []
    if sets is not None:
        training, testing, validating = sets
        beside = tree.files_beside(kind)
        for part in (training, testing, *validating):
            beside += tree.files_beside(kind, part) if part and tree.by_subfolder(part) else []
    left_out = set(beside)
    paths = [path for path in tree.files() if kind.matches(path) and path not in left_out]
    notes = (*_links_note(tree), *_beside_note(beside))
    return ExampleFiles(kind, tree.root.resolve().name, paths, notes=notes)


def labelled_files(tree: FolderTree, kind: Kind, skip: bool) -> ExampleFiles:
    """Return the files of a folder with a subfolder for each class, or of its subfolders train and test.

    With `skip`, files of another kind among those of a class are left out; else they are a DataError, as are
    a folder without classes and a class without files.
    """
    sets = _sets(tree, kind)
    name = tree.root.resolve().name
    if sets is None:
        found = _classes(tree, (), kind, skip)
        return replace(found, name=name, notes=(*_links_note(tree), *found.notes))
    training, testing, validating = sets
    tested = frozenset() if testing is None else tree.by_subfolder(testing).keys()
    in_both = frozenset(tree.by_subfolder(training).keys() & tested)
    found = _classes(tree, (training,), kind, skip, in_both)
    notes = [*_links_note(tree), *_beside_note(tree.files_beside(kind)), *found.notes]
    test = None
    if testing is not None and in_both:
        test = _classes(tree, (testing,), kind, skip, in_both)
        notes += test.notes
    elif testing is not None:
        path = tree.root / testing
        notes.append(
            f"{path} is left out, because it holds {kind.noun}s without classes: "
            f"`nnkit predict MODEL {path}` predicts them"
        )
    for other in validating:
        path = tree.root / other
        notes.append(f"{path} is not used: data.validation = {str(path)!r} measures on it")
    bad = found.bad + (() if test is None else test.bad)
    return replace(found, name=name, bad=bad, test=test, notes=tuple(notes))


def _classes(
    tree: FolderTree, parts: _Parts, kind: Kind, skip: bool, in_both: frozenset[str] = frozenset()
) -> ExampleFiles:
    """Return the files of one set; `in_both` are the classes that training and test set share."""
    folder = tree.root.joinpath(*parts)
    groups = tree.by_subfolder(*parts)
    beside = tree.files_beside(kind, *parts)
    if not any(kind.matches(path) for files in groups.values() for path in files):
        raise DataError(
            f"{folder}: its {kind.noun}s have no classes: put those of each class into a subfolder of its "
            "name, or give a table with a column of labels"
        )
    if beside and kind.beside == "error" and not skip:
        raise DataError(
            f"{shown_path(beside[0])}: is beside the subfolders, so it has no class: move it into one "
            'of them, or away, or leave it out by `on_bad` = "skip"'
        )
    notes = _beside_note(beside)
    unlabelled = [name for name in groups if name.lower() in _UNLABELLED and name not in in_both]
    for name in unlabelled if len(groups) >= len(unlabelled) + 2 else ():
        del groups[name]
        notes.append(f"{folder / name} is left out: by its name, its {kind.noun}s have no labels")
    paths: list[Path] = []
    labels: list[str] = []
    bad: list[str] = []
    for subfolder, files in groups.items():
        found = [path for path in files if kind.matches(path)]
        others = [path for path in files if not kind.matches(path)]
        label = printable(subfolder)
        if others and not skip:
            raise DataError(
                f"{shown_path(others[0])}{more(others)}: no {kind.noun} ({kind.listed}) among those of "
                f'class {label!r}\nRemove it, or leave it out by `on_bad` = "skip"'
            )
        bad += [f"{shown_path(path)}: it is no {kind.noun}" for path in others]
        if not found:
            where = shown_path(folder / subfolder)
            raise DataError(f"{where}: the class {label!r} has no {kind.noun}s: remove the folder")
        paths += found
        labels += [label] * len(found)
    return ExampleFiles(
        kind, folder.name, paths, np.array(labels, dtype=object), (CLASS,), tuple(bad), notes=tuple(notes)
    )


def _links_note(tree: FolderTree) -> list[str]:
    again = tree.again
    return [f"{shown_path(again[0])}{more(again)}: a link to what is read already"] if again else []


def _beside_note(paths: list[Path]) -> list[str]:
    if not paths:
        return []
    return [f"{shown_path(paths[0])}{more(paths)}: left out, because it is beside the subfolders"]


def load_files(
    files: ExampleFiles,
    read: Callable[[ExampleFiles], tuple[Examples, list[str]]],
    image_shape: tuple[int, ...] | None = None,
) -> Dataset:
    """Read a training set and the test set beside it, and note how many files were left out.

    `read` returns a set's examples, and why others were left out; `image_shape` is that of the data set.
    """
    train, bad = read(files)
    test, test_bad = (None, []) if files.test is None else read(files.test)
    bad = [*files.bad, *bad, *test_bad]
    notes = list(files.notes)
    if bad:
        total = len(files.paths) + len(files.bad) + (0 if files.test is None else len(files.test.paths))
        what = f"files that cannot be read as {files.kind.noun}s"
        notes.append(f"skipped {len(bad):,} of {total:,} {what}, first {bad[0]}")
    return Dataset(files.name, train, test, files.target_names, image_shape, notes=tuple(notes))
