"""Convert the bytes of a text to UTF-8, and say what is wrong with bytes that are no text."""

from __future__ import annotations

import codecs
import re
import warnings

from nnkit.errors import ConfigError, DataError, FileError

__all__ = ["check_utf8", "line_and_byte", "to_utf8"]

# UTF-32 first: its mark begins with that of UTF-16.
_MARKS = (
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_END_OF_DOS = b"\x1a"
_SAMPLE = 4096
_WEB_PAGE = re.compile(rb"\s*<(?:!doctype\s+html|html)\b", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml\b")
_LFS_POINTER = b"version https://git-lfs.github.com/spec/v1"
# A text with more NULs or other control characters than these shares is not one.
_MOST_NULS = 0.1
_MOST_CONTROLS = 0.05
_CONTROL = re.compile("[\x00-\x08\x0e-\x1f\x7f\ufffd]")
_ASCII = re.compile("[\t\r\n -~]")
_LINE_END = re.compile(rb"\r\n|\n|\r")


def to_utf8(data: bytes, encoding: str | None, where: str) -> tuple[bytes, list[str]]:
    """Return a text as UTF-8 without a byte-order mark, and notes for the user.

    Without an `encoding` the bytes are not checked to be UTF-8: their parser does that. Web pages, XML, Git
    LFS pointers, and bytes that are no text are a FileError.
    """
    notes = []
    marked = next((name for mark, name in _MARKS if data.startswith(mark)), None)
    if encoding is None and marked is not None:
        encoding = marked
        notes.append(f"The text is {marked.upper()}, as its byte-order mark says.")
    if encoding is not None and codecs.lookup(encoding).name not in ("utf-8", "utf-8-sig", "ascii"):
        data = _transcoded(data, encoding, where)
    data = data.removeprefix(codecs.BOM_UTF8).removesuffix(_END_OF_DOS)
    if _WEB_PAGE.match(data[:_SAMPLE]):
        raise FileError(
            f"{where}: is a web page, not a table: download the data itself (a page that links to them, or "
            "asks to sign in, was saved instead)"
        )
    if _XML.match(data[:_SAMPLE]):
        raise FileError(f"{where}: is XML, not a table: write it as CSV")
    if data.startswith(_LFS_POINTER):
        raise FileError(f"{where}: is a Git LFS pointer, not the file itself: get it with git lfs pull")
    _check_nuls(data, where)
    return data, notes


def _transcoded(data: bytes, encoding: str, where: str) -> bytes:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of unicode_escape, on characters that are no escapes
            return data.decode(encoding).encode()
    except LookupError:
        raise ConfigError(
            f"`encoding` {encoding!r} is not for texts: give one such as utf-8 or latin-1"
        ) from None
    except UnicodeDecodeError as error:
        line, byte = line_and_byte(data, error.start)
        raise DataError(
            f"{where}: line {line}, byte {byte} is not {encoding} text: correct `encoding`"
        ) from None
    except (UnicodeError, ValueError) as error:
        raise DataError(f"{where}: is not {encoding} text ({error}): correct `encoding`") from None


def _check_nuls(data: bytes, where: str) -> None:
    place = data.find(b"\0")
    if place < 0:
        return
    sample = data[:_SAMPLE]
    if sample.count(b"\0") > _MOST_NULS * len(sample):
        for encoding in ("utf-16-le", "utf-16-be"):
            text = sample[: len(sample) // 2 * 2].decode(encoding, "replace")
            if _is_text(text) and len(_ASCII.findall(text)) > len(text) / 2:
                raise DataError(
                    f'{where}: looks like UTF-16 without a byte-order mark: say `encoding` = "{encoding}"'
                )
        raise _not_text(where)
    if not _is_text(sample.replace(b"\0", b"").decode("latin-1")):
        raise _not_text(where)
    line, byte = line_and_byte(data, place)
    raise DataError(
        f"{where}: line {line} holds a NUL, its byte {byte}, which no text has: remove it, "
        "for example with tr -d '\\000'"
    )


def _is_text(sample: str) -> bool:
    return len(_CONTROL.findall(sample)) <= max(1, _MOST_CONTROLS * len(sample))


def _not_text(where: str) -> FileError:
    return FileError(
        f"{where}: neither text nor a format that nnkit reads: give CSV, TSV, Parquet, Arrow, .npy or .npz"
    )


def check_utf8(
    data: bytes, where: str, fix: str = 'say how it is encoded, such as `encoding` = "latin-1"'
) -> None:
    """Raise unless a text is UTF-8; the error names the first line that is not."""
    try:
        data.decode()
    except UnicodeDecodeError as error:
        if not _is_text(data[:_SAMPLE].decode("latin-1")):
            raise _not_text(where) from None
        line, byte = line_and_byte(data, error.start)
        place = f"line {line} is not UTF-8 text (its byte {byte} is 0x{data[error.start]:02x})"
        raise DataError(f"{where}: {place}: {fix}") from None


def line_and_byte(data: bytes, place: int) -> tuple[int, int]:
    """Return the line of a byte, and its place in the line, both counted from 1."""
    ends = [match.end() for match in _LINE_END.finditer(data, 0, place)]
    return len(ends) + 1, place - (ends[-1] if ends else 0) + 1
