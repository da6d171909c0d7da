"""Files are written whole or not at all, whatever fails on the way."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from nnkit.errors import FileError
from nnkit.files import write_whole


class FullDisk:
    """A file whose disk fills up."""

    def __init__(self, path: Path, mode: str) -> None:
        self._file = path.open(mode)

    def __enter__(self) -> FullDisk:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def write(self, data: bytes) -> int:
        self._file.write(data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def fail(error: BaseException) -> Any:
    def failing(*_: object) -> None:
        raise error

    return failing


def test_a_folder_is_not_replaced_by_a_file(tmp_path: Path) -> None:
    with pytest.raises(FileError, match="it is a folder; give the name of a file in it"):
        write_whole(tmp_path, b"x")
    assert list(tmp_path.iterdir()) == []


def test_the_content_and_the_folder_are_made(tmp_path: Path) -> None:
    path = tmp_path / "new" / "deep" / "file"
    write_whole(path, b"content")
    assert path.read_bytes() == b"content"
    assert list(path.parent.iterdir()) == [path]


@pytest.mark.parametrize("old", [b"old", None])
@pytest.mark.parametrize(
    ("function", "replacement"),
    [
        ("replace", fail(OSError(errno.EACCES, "Permission denied"))),
        ("fsync", fail(OSError(errno.EIO, "Input/output error"))),
        ("open", FullDisk),
    ],
)
def test_a_failure_leaves_the_old_file_and_nothing_else(
    function: str, replacement: Any, old: bytes | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "file"
    if old is not None:
        path.write_bytes(old)
    place = "nnkit.files.open" if function == "open" else f"nnkit.files.os.{function}"
    monkeypatch.setattr(place, replacement, raising=False)
    with pytest.raises(FileError, match=r"file: cannot be written: [A-Z]") as caught:
        write_whole(path, b"new content")
    monkeypatch.undo()
    assert isinstance(caught.value, OSError)
    assert [item.read_bytes() for item in tmp_path.iterdir()] == ([] if old is None else [old])


def test_an_interrupt_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nnkit.files.os.fsync", fail(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        write_whole(tmp_path / "file", b"content")
    monkeypatch.undo()
    assert list(tmp_path.iterdir()) == []


def test_the_name_appears_only_when_the_content_is_on_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, bool]] = []
    path = tmp_path / "file"
    for name in ("fsync", "replace"):
        function = getattr(os, name)

        def watched(*arguments: Any, name: str = name, function: Any = function) -> None:
            seen.append((name, path.exists()))
            function(*arguments)

        monkeypatch.setattr(f"nnkit.files.os.{name}", watched)
    write_whole(path, b"content")
    assert seen == [("fsync", False), ("replace", False), ("fsync", True)]
    assert path.read_bytes() == b"content"


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o002])
def test_the_umask_is_respected_and_left_as_it_was(umask: int, tmp_path: Path) -> None:
    before = os.umask(umask)
    try:
        write_whole(tmp_path / "file", b"")
        assert os.umask(umask) == umask
    finally:
        os.umask(before)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o666 & ~umask


def test_threads_that_write_leave_the_umask_alone(tmp_path: Path) -> None:
    before, interval = os.umask(0o022), sys.getswitchinterval()
    sys.setswitchinterval(1e-6)

    def write(number: int) -> None:
        for turn in range(50):
            write_whole(tmp_path / f"{number}-{turn}", b"")

    try:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert os.umask(0o022) == 0o022
    finally:
        sys.setswitchinterval(interval)
        os.umask(before)
    assert {path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {0o644}


def test_the_end_of_the_message_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(FileError, match=r"below: cannot be written: [A-Z][a-z ]+: move it$"):
        write_whole(tmp_path / "file" / "below", b"content", advice="move it")


def test_an_error_of_what_is_written_is_not_the_disks(tmp_path: Path) -> None:
    def parts() -> Iterator[bytes]:
        yield b"one"
        raise FileError("the source ends too early")

    with pytest.raises(FileError, match=r"^the source ends too early$"):
        write_whole(tmp_path / "file", parts())
    assert list(tmp_path.iterdir()) == []


def test_a_folder_in_the_files_place_or_a_file_in_the_folders_is_said(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"x")
    for path in (tmp_path / "folder", tmp_path / "file" / "below"):
        with pytest.raises(FileError, match="cannot be written"):
            write_whole(path, b"content")
    assert sorted(item.name for item in tmp_path.rglob("*")) == ["file", "folder"]


def test_a_folder_that_cannot_be_opened_is_not_flushed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Windows opens none, and elsewhere one may be writable without being readable."""
    opened = os.open

    def open_files(path: Any, *arguments: Any, **options: Any) -> int:
        if os.path.isdir(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
        return opened(path, *arguments, **options)

    monkeypatch.setattr(os, "open", open_files)
    write_whole(tmp_path / "file", b"whole")
    assert (tmp_path / "file").read_bytes() == b"whole"
