"""The cache's folder: which it is, whose it must be, and what happens where it cannot be used."""

from __future__ import annotations

import errno
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nnkit import cache
from nnkit.cache import cache_folder, describe_cache, write_cached
from nnkit.errors import FileError


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return an empty folder for temporary files; nothing is remembered of other folders."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    for name in ("NNKIT_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    _forget()
    yield folder
    _forget()


def _forget() -> None:
    for function in (cache._found, cache._chosen, cache._private_folder):
        function.cache_clear()


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cache_folder() == tmp_path / "home" / ".cache" / "nnkit"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / "home" / ".cache" / "nnkit"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "shared"))
    assert cache_folder() == tmp_path / "shared" / "nnkit"
    monkeypatch.setenv("NNKIT_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "home" / "mine"
    assert describe_cache() == str(tmp_path / "home" / "mine")


def test_an_empty_name_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNKIT_CACHE", "")
    monkeypatch.chdir(tmp_path)
    before = set(tmp_path.iterdir())
    assert cache_folder() == tmp_path / "home" / ".cache" / "nnkit"
    assert set(tmp_path.iterdir()) - before <= {tmp_path / "home"}


def test_a_relative_folder_stays_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNKIT_CACHE", "mine")
    monkeypatch.chdir(tmp_path)
    assert cache_folder() == tmp_path / "mine"
    monkeypatch.chdir(tmp_path / "temporary")
    assert cache_folder() == tmp_path / "mine"


def file_in_the_way(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.write_text("")


def file_in_place_of_the_kernels(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    (folder / "kernels").write_text("")


def nowhere(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNKIT_CACHE", "/proc/nnkit")  # where not even root can make one


def unknown_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NNKIT_CACHE", "~nobody-of-this-name/cache")


def no_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNKIT_CACHE")
    monkeypatch.delenv("HOME")
    monkeypatch.setattr("pwd.getpwuid", _no_such_user)


def _no_such_user(number: int) -> None:
    raise KeyError(number)


def relative_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NNKIT_CACHE")
    monkeypatch.setenv("HOME", ".")


def of_another_user(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    looked_at = Path.stat

    def stat(path: Path, **options: Any) -> os.stat_result:
        status = looked_at(path, **options)
        fields = list(status)
        fields[4] += 1 if path == folder else 0
        return os.stat_result(fields)

    monkeypatch.setattr(Path, "stat", stat)


def open_to_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    folder.chmod(0o777)


def above_open_to_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.parent.chmod(0o777)


def kernels_open_to_all(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (folder / "kernels").mkdir(parents=True)
    (folder / "kernels").chmod(0o1777)


def open_to_another_group(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.mkdir()
    folder.chmod(0o775)
    group = folder.stat().st_gid
    monkeypatch.setattr("nnkit.cache.os.getegid", lambda: group + 1)


def full(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = tempfile.TemporaryFile

    def temporary_file(**options: Any) -> Any:
        if folder in Path(options["dir"]).parents:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(**options)

    monkeypatch.setattr("nnkit.cache.tempfile.TemporaryFile", temporary_file)


PROBLEMS = [
    (file_in_the_way, "cache: File exists"),
    (file_in_place_of_the_kernels, "kernels: File exists"),
    (nowhere, "/proc/nnkit: No such file or directory"),
    (unknown_user, "~nobody-of-this-name/cache: the home folder is not known"),
    (no_home, "~/.cache: the home folder is not known"),
    (relative_home, ".cache: the home folder is not an absolute path"),
    (of_another_user, "cache: it belongs to another user"),
    (open_to_all, "cache: other users can write to it"),
    (above_open_to_all, "other users can replace cache"),
    (kernels_open_to_all, "kernels: other users can write to it"),
    (open_to_another_group, "cache: other users can write to it"),
    (full, "kernels: No space left on device"),
]


@pytest.mark.parametrize(("prepare", "problem"), PROBLEMS)
def test_a_folder_that_cannot_be_used_is_said_once_and_another_taken(
    prepare: Any,
    problem: str,
    tmp_path: Path,
    temporary: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path / "cache"))
    prepare(tmp_path / "cache", monkeypatch)
    private = temporary / f"nnkit-{os.geteuid()}"
    assert cache_folder() == cache_folder() == private
    assert private.stat().st_mode & 0o077 == 0
    [warning] = warnings(caplog)
    assert problem in warning
    assert "set NNKIT_CACHE" in warning
    assert "\n" not in warning
    assert str(private) in describe_cache()
    assert problem in describe_cache()


def test_a_folder_for_temporary_files_may_be_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Others can write to it, but cannot put aside what is this user's in it."""
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache").chmod(0o1777)
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path / "cache"))
    assert cache_folder() == tmp_path / "cache"
    assert not warnings(caplog)


@pytest.mark.parametrize("umask", [0o000, 0o002, 0o022, 0o077])
def test_what_is_made_under_any_umask_is_used_again(
    umask: int, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = os.umask(umask)
    try:
        first = cache_folder()
        _forget()
        assert cache_folder() == first == tmp_path / "home" / ".cache" / "nnkit"
    finally:
        os.umask(before)
    assert not warnings(caplog)


def test_a_full_folder_with_machine_code_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = cache_folder()
    (folder / "kernels" / "native" / "some.o").write_bytes(b"")
    _forget()
    full(folder, monkeypatch)
    assert cache_folder() == folder


def test_a_temporary_folder_that_others_prepared_is_not_taken(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared = temporary / f"nnkit-{os.geteuid()}"
    prepared.mkdir()
    prepared.chmod(0o777)
    monkeypatch.setenv("NNKIT_CACHE", "/proc/nnkit")
    folder = cache_folder()
    assert folder.parent == temporary
    assert folder != prepared
    cache._remove(folder, os.getpid() + 1)
    assert folder.is_dir()  # a child that ends leaves it to its parent
    cache._remove(folder, os.getpid())
    assert not folder.exists()


def test_where_no_folder_can_be_used_the_error_names_the_way_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NNKIT_CACHE", "/proc/nnkit")
    monkeypatch.setattr(tempfile, "tempdir", "/proc")
    said = r"^/proc/nnkit: No such .*, and /proc/.*: set NNKIT_CACHE to"
    with pytest.raises(FileError, match=said):
        cache_folder()
    assert re.match(said, describe_cache())


def test_the_working_folder_is_no_folder_for_temporary_files(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Python takes it where there is no other; code that lies there may have come with the data."""
    monkeypatch.setenv("NNKIT_CACHE", "/proc/nnkit")
    monkeypatch.chdir(temporary)
    with pytest.raises(FileError, match="no folder for temporary files"):
        cache_folder()


def test_a_write_that_fails_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(FileError, match=r"cannot be written: .*: set NNKIT_CACHE to"):
        write_cached(tmp_path / "file" / "below", b"")
