"""Sources that can be read only once: standard input, pipes and process substitution."""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from nnkit.data import limits
from nnkit.data.sources.loading import load_dataset
from nnkit.data.sources.streams import is_stream, spooled
from nnkit.errors import DataError, FileError

CSV = "a,b,target\n" + "".join(f"{i},{i * 2.5},{i % 2}\n" for i in range(40))


def contents() -> dict[str, bytes]:
    frame = pl.read_csv(CSV.encode())
    found = {
        "csv": CSV.encode(),
        "json lines": frame.write_ndjson().encode(),
        "json": frame.write_json().encode(),
    }
    for name, write in (("parquet", frame.write_parquet), ("arrow", frame.write_ipc)):
        buffer = io.BytesIO()
        write(buffer)
        found[name] = buffer.getvalue()
    buffer = io.BytesIO()
    np.savez(buffer, X=frame.select("a", "b").to_numpy(), y=frame["target"].to_numpy())
    found["npz"] = buffer.getvalue()
    return found


CONTENTS = contents()


@contextmanager
def standard_input(data: bytes) -> Iterator[None]:
    """Let a pipe with these bytes be this process's standard input."""
    reading, writing = os.pipe()
    before = os.dup(0)
    os.dup2(reading, 0)
    os.close(reading)

    def write() -> None:
        with os.fdopen(writing, "wb") as stream:
            stream.write(data)

    thread = threading.Thread(target=write)
    thread.start()
    try:
        yield
    finally:
        os.dup2(before, 0)
        os.close(before)
        thread.join()


@pytest.fixture(autouse=True)
def scratch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "scratch"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("name", CONTENTS)
@pytest.mark.parametrize("source", ["-", "/dev/stdin"])
def test_standard_input_is_read_by_its_content(name: str, source: str, scratch: Path) -> None:
    with standard_input(CONTENTS[name]):
        dataset = load_dataset(source)
    features = dataset.train.features
    b = features[:, 1] if isinstance(features, np.ndarray) else features["b"]
    assert np.asarray(b).tolist() == [i * 2.5 for i in range(40)]
    assert list(scratch.iterdir()) == []


def test_a_fifo_is_read_once(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    thread = threading.Thread(target=lambda: fifo.write_bytes(CSV.encode()))
    thread.start()
    assert is_stream(fifo)
    assert len(load_dataset(fifo).train) == 40
    thread.join()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "standard input: the file is empty"),
        (b"a,target\n1,2\n\xff,3\n", "standard input: line 3 is not UTF-8"),
        (b"a,target\n1,2,3\n", "standard input: "),
        (b"%PDF-1.7", "standard input: a PDF file is not read"),
    ],
)
def test_messages_speak_of_standard_input(data: bytes, words: str, scratch: Path) -> None:
    with standard_input(data), pytest.raises((DataError, FileError)) as caught:
        load_dataset("-")
    assert str(caught.value).startswith(words)
    assert str(scratch) not in str(caught.value)
    assert list(scratch.iterdir()) == []


def test_more_than_fits_is_refused_before_it_is_kept(scratch: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "memory_limit", lambda: 10_000)
    with standard_input(b"1,2\n" * 10_000), pytest.raises(DataError, match=r"standard input: .*room for"):
        load_dataset("-")
    assert list(scratch.iterdir()) == []


def test_a_terminal_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    primary, secondary = os.openpty()
    monkeypatch.setattr(os, "dup", lambda number: secondary)
    with pytest.raises(FileError, match="standard input: it is a terminal"), spooled("-"):
        pass
    os.close(primary)


def test_an_ordinary_file_is_no_stream(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("")
    assert not is_stream(tmp_path / "x")
    assert not is_stream(tmp_path / "nothing")
    assert not is_stream("\0")


# Readers that fail in the header, in the middle and at the end, in each format that Arrow reads.
REFUSED = """
import sys
from pathlib import Path
from nnkit.data.sources.loading import load_dataset
from nnkit.errors import NnkitError
said = ""
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        load_dataset(path)
    except NnkitError as error:
        said = str(error)
    else:
        raise SystemExit(f"{path} was read")
sys.stderr.write(said)
sys.exit(2)
"""


def test_a_process_that_fails_to_read_ends_with_its_message_alone(tmp_path: Path) -> None:
    """Threads of Arrow that asked Python for bytes while it ended aborted the process."""
    folder = tmp_path / "bad"
    folder.mkdir()
    count = 200_000
    for number in range(25):
        rows = [f'{{"a": {i}, "target": {i % 2}}}' for i in range(count // 10)]
        rows[number * 700] = '{"a": 1, "target": '
        (folder / f"{number:02}.jsonl").write_text("\n".join(rows))
        cells = [f"{i},{i % 2}" for i in range(count // 10)]
        cells[number * 700] = "1,2,3"
        (folder / f"{number:02}.csv").write_text("a,target\n" + "\n".join(cells))
        parquet = bytearray(CONTENTS["parquet"])
        parquet[4 + number * 20 : 24 + number * 20] = bytes(20)
        (folder / f"{number:02}.parquet").write_bytes(parquet[: -1 - number])
    result = subprocess.run([sys.executable, "-c", REFUSED, str(folder)], capture_output=True, text=True)
    assert result.returncode == 2, result.stderr
    assert result.stderr.count("\n") == 0
    assert "24.parquet: no Parquet file, or a damaged one" in result.stderr
