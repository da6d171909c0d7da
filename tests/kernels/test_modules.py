"""Generated modules: what runs is the source at hand, and what Numba kept is loaded only if it is whole."""

from __future__ import annotations

import errno
import logging
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnkit import cache
from nnkit.errors import FileError
from nnkit.kernels import modules, native
from nnkit.kernels.modules import is_cached, load_source, module_name, source_name
from nnkit.kernels.native import Loop

SOURCE = """from numba import njit


@njit(error_model="numpy", nogil=True)
def halve(x):
    for i in range(x.size):
        x[i] *= 0.5
"""
NAME = source_name("halve", SOURCE)


@pytest.fixture(autouse=True)
def kernels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Return the folder of kernels in a cache of the test's own."""
    monkeypatch.setenv("NNKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(modules, "_warnings", [])
    # Machine code would be loaded without Numba.
    monkeypatch.setattr(native, "_TESTED", ())
    yield tmp_path / "cache" / "kernels"
    sys.modules.pop(module_name(NAME), None)


def halved() -> list[float]:
    """Return [1, 3] / 2 as a process computes it that has not met the kernel."""
    sys.modules.pop(module_name(NAME), None)
    x = np.array([1.0, 3.0])
    Loop(NAME, SOURCE, "halve")(x)
    return x.tolist()


def loaded() -> int:
    """Return how often Numba loaded in place of compiling, since the process met the kernel."""
    return sum(sys.modules[module_name(NAME)].halve.stats.cache_hits.values())


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_a_source_that_was_altered_is_not_executed(kernels: Path) -> None:
    assert halved() == [0.5, 1.5]
    path = kernels / f"{NAME}.py"
    for altered in (SOURCE.replace("0.5", "0.25"), SOURCE[: len(SOURCE) // 2], "", "\0"):
        path.write_text(altered)
        assert halved() == [0.5, 1.5]
        assert path.read_text() == SOURCE


def test_bytecode_beside_it_is_not_executed(kernels: Path) -> None:
    assert halved() == [0.5, 1.5]
    assert not list(kernels.rglob("*.pyc"))


def test_what_numba_kept_is_loaded(caplog: pytest.LogCaptureFixture) -> None:
    assert not is_cached(NAME)
    assert halved() == [0.5, 1.5]
    assert loaded() == 0
    assert is_cached(NAME)
    assert halved() == [0.5, 1.5]
    assert loaded() == 1
    assert not warnings(caplog)


class Trap:
    """What executes something where it is unpickled."""

    def __init__(self, sprung: Path) -> None:
        self.sprung = sprung

    def __reduce__(self) -> Any:
        return Path.touch, (self.sprung,)


@pytest.mark.parametrize("suffix", ["nbi", "nbc"])
@pytest.mark.parametrize("damage", ["cut", "empty", "a byte", "a trap", "gone"])
def test_what_numba_kept_is_compiled_anew_where_it_is_not_whole(
    suffix: str, damage: str, kernels: Path, tmp_path: Path
) -> None:
    assert halved() == [0.5, 1.5]
    [path] = (kernels / "__pycache__").glob(f"{NAME}.*.{suffix}")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    damaged = {
        "cut": data[: len(data) // 2],
        "empty": b"",
        "a byte": data,
        "a trap": pickle.dumps(Trap(tmp_path / "sprung")),
    }
    path.unlink()
    if damage in damaged:
        path.write_bytes(damaged[damage])
    assert halved() == [0.5, 1.5]
    assert loaded() == 0
    assert not (tmp_path / "sprung").exists()
    assert halved() == [0.5, 1.5]
    assert loaded() == 1


def test_what_has_no_digests_is_not_loaded(kernels: Path) -> None:
    assert halved() == [0.5, 1.5]
    [path] = (kernels / "__pycache__").glob(f"{NAME}.sha256")
    path.unlink()
    assert halved() == [0.5, 1.5]
    assert loaded() == 0


def full(*_: Any, **__: Any) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_costs_compiling_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache.cache_folder()
    monkeypatch.setattr("nnkit.files.os.fsync", full)
    for _ in range(2):
        assert halved() == [0.5, 1.5]
        assert loaded() == 0
    [warning] = warnings(caplog)
    assert "No space left on device" in warning
    assert "set NNKIT_CACHE to" in warning
    assert "\n" not in warning


def test_a_disk_that_fills_up_while_numba_writes_costs_compiling_alone(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("numba.core.caching.IndexDataCacheFile.save", full)
    for _ in range(2):
        assert halved() == [0.5, 1.5]
        assert loaded() == 0
    [warning] = warnings(caplog)
    assert "No space left on device" in warning
    assert "set NNKIT_CACHE to" in warning


def test_without_any_folder_kernels_are_compiled_in_memory(
    kernels: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def none() -> Path:
        raise FileError(f"there is none: {cache.ADVICE}")

    monkeypatch.setattr(modules, "cache_folder", none)
    monkeypatch.setattr(native, "_TESTED", ("0.62", "0.63", "0.64", "0.65", "0.66", "0.67", "0.68"))
    for _ in range(2):
        assert halved() == [0.5, 1.5]
    assert not is_cached(NAME)
    assert not kernels.exists()
    [warning] = warnings(caplog)
    assert warning == f"there is none: {cache.ADVICE}. Until then kernels are compiled again in every process"


def test_a_module_knows_those_that_it_imports() -> None:
    uses = f"from {module_name(NAME)} import halve\n\nthe_same = halve\n"
    load_source(NAME, SOURCE)
    module = load_source(source_name("uses", uses), uses)
    assert module.the_same is sys.modules[module_name(NAME)].halve


def environment(tmp_path: Path, **changes: str) -> dict[str, str]:
    return {**os.environ, "NNKIT_CACHE": str(tmp_path / "cache"), **changes}


TRAIN = ["train", "exam", "--epochs", "2", "--set", "model.hidden=[4]", "--set", "run.diagnostics=false"]


def shell(
    arguments: list[str], folder: Path, environment: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    program = f"import sys; sys.argv = ['nnkit', *{arguments!r}]; from nnkit.cli import main; main()"
    command = [sys.executable, "-c", program]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)


def test_numba_that_must_not_compile_is_an_error_that_names_the_setting(tmp_path: Path) -> None:
    done = shell(
        [*TRAIN, "--out", str(tmp_path / "run")], tmp_path, environment(tmp_path, NUMBA_DISABLE_JIT="1")
    )
    assert done.returncode == 2
    # What takes a while is told of as well.
    told = [line for line in done.stderr.splitlines() if not line.endswith(" ...")]
    assert told == ["error: unset NUMBA_DISABLE_JIT: nnkit's kernels have to be compiled"]


@pytest.fixture(scope="module")
def temporary(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder for temporary files, where the first of these tests leaves its kernels to the next."""
    return tmp_path_factory.mktemp("temporary")


@pytest.mark.parametrize("where", ["a file", "nowhere", "open to all", "empty"])
def test_the_command_trains_wherever_the_cache_should_be(where: str, temporary: Path, tmp_path: Path) -> None:
    named = {"a file": tmp_path / "file", "nowhere": Path("/proc/nnkit"), "open to all": tmp_path / "open"}
    (tmp_path / "file").write_text("")
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o777)
    changes = {"TMPDIR": str(temporary), "XDG_CACHE_HOME": str(temporary / "xdg")}
    changes["NNKIT_CACHE"] = str(named.get(where, ""))
    folder = tmp_path / "working"
    folder.mkdir()
    done = shell([*TRAIN, "--out", str(tmp_path / "run")], folder, environment(tmp_path, **changes))
    assert done.returncode == 0, done.stderr
    said = (done.stdout + done.stderr).splitlines()
    assert sum("NNKIT_CACHE" in line for line in said) == (where != "empty")
    assert not [line for line in said if "Traceback" in line]
    assert list(folder.iterdir()) == []
    shown = shell(["info"], folder, environment(tmp_path, **changes))
    assert shown.returncode == 0
    [line] = [line for line in shown.stdout.splitlines() if line.startswith("cache")]
    assert str(temporary) in line
    if where in named:
        assert str(named[where]) in line
