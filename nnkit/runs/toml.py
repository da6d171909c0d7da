"""TOML text: parsing files and values, writing values, and the line in which each key is set."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

import tomli_w

from nnkit.errors import ConfigError
from nnkit.nesting import is_too_deep

__all__ = ["lines_of_keys", "parsed_file", "shown_value", "toml_value", "value_from"]

_LARGEST_STATEMENT = 500  # lines of one statement that `lines_of_keys` parses
_MOST_PARSED = 2**21  # characters that it parses without success: a statement of n lines is tried n times
# A key of a hundred parts: tomllib's time grows with the third power of their number.
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){100}""")


def parsed_file(content: bytes, path: str) -> tuple[str, dict[str, Any]]:
    """Return a file's text and its tables; an error names the line that is not TOML."""
    try:
        # Some editors on Windows begin a file with a byte order mark.
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError(f"{path}, line {line}: not UTF-8 text; save the file as UTF-8") from None
    if _DEEP_KEY.search(text):
        raise ConfigError(f"{path}: values are nested too deeply")
    try:
        raw = tomllib.loads(text)
    except RecursionError:
        raise ConfigError(f"{path}: values are nested too deeply") from None
    except ValueError as error:
        message = str(error)
        found = re.search(r" \(at line (\d+), column (\d+)\)$", message)
        # "At end of document" means the last line that is not empty.
        line = int(found[1]) if found else text.rstrip().count("\n") + 1
        message = re.sub(r" \(at .*\)$", "", message)[:200]
        hint = "; put a text in quotes" if message == "Invalid value" else ""
        source = text.split("\n")[line - 1].strip()[:80]
        shown = "".join(sign if sign.isprintable() else "�" for sign in source)
        raise ConfigError(f"{path}, line {line}: not valid TOML: {message}{hint}\n    {shown}") from None
    if is_too_deep(raw):
        raise ConfigError(f"{path}: values are nested too deeply")
    return text, raw


def value_from(text: str, said: str) -> Any:
    """Parse a value such as ``5`` or ``[48, 64]``, or take it as text, such as ``adam``.

    `said` begins the `ConfigError` for a text that begins like a list, a table or a quoted text, but is none.
    """
    text = text.strip()
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        if text[:1] in ("[", "{", '"', "'"):
            raise ConfigError(f"{said}: the value is not valid TOML") from None
        return text
    # After a line break the text could set another key.
    return parsed["value"] if len(parsed) == 1 else text


def lines_of_keys(text: str) -> dict[tuple[str, ...], int]:
    """Return the line, counted from 1, in which each key of a valid TOML text is set.

    Each statement (a header, or a key with its value) is parsed alone; its keys are set in its first line.
    """
    found: dict[tuple[str, ...], int] = {}
    header: tuple[str, ...] = ()
    statement, first, vain = "", 1, 0
    # Only these end a line in TOML; str.splitlines knows many more.
    for number, line in enumerate(text.replace("\r\n", "\n").split("\n"), start=1):
        if not statement:
            first = number
        statement += line + "\n"
        try:
            table = tomllib.loads(statement)
        except (ValueError, RecursionError):
            vain += len(statement)
            if number - first < _LARGEST_STATEMENT and vain < _MOST_PARSED:
                continue
            break
        is_header = statement.lstrip().startswith("[")
        paths = [path[: -1 if path[-1] == "" else None] for path in _paths(table)]
        if is_header and paths:
            header = paths[-1]
            found.setdefault(header, first)
        for path in () if is_header else paths:
            for end in range(1, len(path) + 1):
                found.setdefault(header + path[:end], first)
        if is_header:
            for end in range(1, len(header)):
                found.setdefault(header[:end], first)
        statement = ""
    return found


def _paths(table: Mapping[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the path to each innermost key; for an array of tables, the path to the array."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from ((key, *path) for path in _paths(value))
        else:
            yield (key,)


def toml_value(value: object) -> str:
    """Return a value in TOML, on one line; one that TOML lacks raises `ConfigError`."""
    try:
        # Within lists a table is written inline, and without indentation each item is one line.
        lines = tomli_w.dumps({"_": [[value]]}, indent=0)
    except (TypeError, ValueError):  # a whole number of thousands of digits is a ValueError
        raise ConfigError(f"a value of type {type(value).__name__} cannot be written to a config") from None
    text = lines.removeprefix("_ = [\n[\n").removesuffix(",\n],\n]\n")
    return text.replace("[\n", "[").replace(",\n]", "]").replace("\n", " ")


def shown_value(value: object) -> str:
    """Return a value as its file shows it, cut short."""
    try:
        text = toml_value(value)
    except ConfigError:
        text = hex(value) if isinstance(value, int) else f"a value of type {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
