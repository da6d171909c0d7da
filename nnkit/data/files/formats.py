"""Recognise the format of a file, and say how to convert it where it is not supported."""

from __future__ import annotations

import re
import shlex
import zipfile
from pathlib import Path
from typing import Literal

from nnkit.data.files.text import UNREADABLE, compression, open_text, plain_name, unreadable
from nnkit.data.files.unsupported import ARCHIVE, LABELLED, SPARSE, UNSUPPORTED, UnsupportedFormat
from nnkit.errors import DataError, FileError

__all__ = ["TABLE_FORMATS", "FileFormat", "file_format", "format_by_name", "remote_source"]

FileFormat = Literal["delimited", "json", "parquet", "arrow", "workbook", "npy", "npz"]

TABLE_FORMATS: dict[FileFormat, str] = {
    "delimited": "delimited text",
    "json": "JSON",
    "parquet": "Parquet",
    "arrow": "Arrow",
    "workbook": "spreadsheet",
}
"""The formats that hold a table with named columns, and what to call them."""

_READ = "CSV, TSV, JSON, Parquet, Arrow, Feather, Excel, .npy, .npz or a folder of IDX, picture or text files"
_SUFFIXES: dict[FileFormat, tuple[str, ...]] = {
    "delimited": (".csv", ".tsv", ".tab", ".psv", ".txt", ".data", ".dat"),
    "json": (".jsonl", ".ndjson", ".json"),
    "parquet": (".parquet", ".pq"),
    "arrow": (".arrow", ".feather", ".ipc", ".arrows"),
    "workbook": (".xlsx", ".xlsm", ".xlsb", ".xls", ".ods"),
    "npy": (".npy",),
    "npz": (".npz",),
}
# They count only in files that are no text, for some are words.
_MAGIC: dict[FileFormat, bytes] = {
    "parquet": rb"PAR1",
    "arrow": rb"ARROW1|FEA1|\xff\xff\xff\xff..\0\0[\x04-\x40]\0\0\0",
    "npy": rb"\x93NUMPY",
    "workbook": rb"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
}
_ZIP = (b"PK\x03\x04", b"PK\x05\x06")
_JSON = re.compile(rb"(\xef\xbb\xbf)?\s*(\{\s*[\"}]|\[\s*[\[{\]])")
_HEAD = 1 << 12
_LOOKED_AT = 20  # lines


_SPARSE_ROW = re.compile(rb"[+-]?\d[\d.eE+-]*(,\d+)*( qid:\d+)?((?:\s+\d+:[^\s:]+)*)\s*(#.*)?")
_TIME = re.compile(rb"\d{1,2}:\d\d")
_DOWNLOADS = {"s3": "aws s3 cp {} .", "gs": "gcloud storage cp {} ."}
_DOWNLOADS |= dict.fromkeys(("http", "https", "ftp"), "curl -LO {}")


def remote_source(source: str) -> FileError | None:
    """Return the error for a source that is an address on a network; None for any other source."""
    found = re.match(r"(\w+)://", source)
    if found is None:
        return None
    command = _DOWNLOADS.get(found[1].lower())
    how = f": {command.format(shlex.quote(source))}" if command else ""
    return FileError(f"{source}: sources on a network are not read: download it first{how}")


def file_format(path: Path) -> FileFormat:
    """Return the format of a file, by its first bytes, unpacked, or else by its suffix.

    The FileError for a format that is not supported says how to convert the file.
    """
    packed, head = _head(path)
    for unread in (*UNSUPPORTED, LABELLED):
        if unread.magic and re.match(unread.magic, head, re.DOTALL):
            raise unread.error(path)
    if _is_sparse(head):
        raise SPARSE.error(path)
    magics = {} if _is_text(head) else _MAGIC
    kind = next((kind for kind, magic in magics.items() if re.match(magic, head, re.DOTALL)), None)
    kind = kind or _zip_format(path, head) or format_by_name(path)
    if kind == "workbook" and _is_text(head) and not head.startswith(_ZIP):
        kind = "delimited"  # programs write text under the name of a workbook
    if kind is None:
        named = _unsupported_name(path)
        if named is not None:
            raise named.error(path)
        if not _is_text(head):
            raise FileError(f"{path}: neither text nor a format that nnkit reads: give {_READ}")
    if kind in (None, "delimited") and _JSON.match(head):
        kind = "json"
    if packed and kind is not None and kind not in ("delimited", "json"):
        raise FileError(
            f"{path}: a {TABLE_FORMATS.get(kind, kind)} file compressed by {packed} is not read: "
            f"unpack it first: {packed} -dk {shlex.quote(str(path))}"
        )
    return kind or "delimited"


def format_by_name(path: Path) -> FileFormat | None:
    """Return the format that a file's suffix stands for, or None."""
    suffix = Path(plain_name(path).lower()).suffix
    return next((kind for kind, suffixes in _SUFFIXES.items() if suffix in suffixes), None)


def _head(path: Path) -> tuple[str, bytes]:
    """Return how a file is compressed, and the beginning of its unpacked content."""
    try:
        packed = compression(path)
        with open_text(path) as stream:
            head = stream.read(_HEAD)
    except UNREADABLE as error:
        raise unreadable(path, error) from None
    if not head:
        raise DataError(f"{path}: the file is empty")
    return packed, head


def _is_text(head: bytes) -> bool:
    return b"\0" not in head or head.startswith((b"\xff\xfe", b"\xfe\xff"))


def _unsupported_name(path: Path) -> UnsupportedFormat | None:
    suffixes = {path.suffix.lower(), Path(plain_name(path).lower()).suffix}
    return next((kind for kind in (*UNSUPPORTED, SPARSE) if suffixes & set(kind.suffixes.split())), None)


def _is_sparse(head: bytes) -> bool:
    """Tell whether the lines are a label and pairs of an increasing number and a value."""
    if len(head) == _HEAD:
        head = head[: head.rfind(b" ")]  # what comes after it may be cut off
    lines = [line for line in head.splitlines()[:_LOOKED_AT] if line.strip() and not line.startswith(b"#")]
    rows = [_SPARSE_ROW.fullmatch(line) for line in lines]
    pairs = [pair for row in rows if row for pair in row[3].split()]
    if not pairs or not all(rows) or all(map(_TIME.fullmatch, pairs)):
        return False
    for row in rows:
        numbers = [int(pair.partition(b":")[0][:18]) for pair in row[3].split()] if row else []
        if numbers != sorted(set(numbers)):
            return False
    return True


def _zip_format(path: Path, head: bytes) -> FileFormat | None:
    """Return the format of a zip archive, by the files in it; None for any other file."""
    if not head.startswith(_ZIP):
        return None
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError):
        names = []
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    if "xl/workbook.xml" in names or "xl/workbook.bin" in names or b"opendocument.spreadsheet" in head[:120]:
        return "workbook"
    if (kind := format_by_name(path)) in ("npz", "workbook"):
        return kind
    raise (_unsupported_name(path) or ARCHIVE).error(path)
