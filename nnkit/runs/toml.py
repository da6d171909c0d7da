"""TOML as text: read and written, one value or a whole file, and the line in which each key is set."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from nnkit.errors import ConfigError
from nnkit.nesting import is_too_deep

__all__ = ["lines_of_keys", "parsed_file", "shown_value", "toml_value", "value_from"]

_LARGEST_STATEMENT = 500  # lines of one value that a mistake is looked for in
_MOST_PARSED = 2**21  # characters parsed in vain for it: a statement of n lines is tried n times
# A key of a hundred parts: tomllib's time grows with the third power of their number.
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){100}""")


def parsed_file(content: bytes, path: str) -> tuple[str, dict[str, Any]]:
    """Return a file's text and its tables, or say in which line it stops being TOML."""
    try:
        # A byte order mark is what some editors on Windows begin a file with.
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
        # "At end of document" is the last line that says anything.
        line = int(found[1]) if found else text.rstrip().count("\n") + 1
        message = re.sub(r" \(at .*\)$", "", message)[:200]
        hint = "; a text wants quotes" if message == "Invalid value" else ""
        source = text.split("\n")[line - 1].strip()[:80]
        shown = "".join(sign if sign.isprintable() else "�" for sign in source)
        raise ConfigError(f"{path}, line {line}: not valid TOML: {message}{hint}\n    {shown}") from None
    if is_too_deep(raw):
        raise ConfigError(f"{path}: values are nested too deeply")
    return text, raw


def value_from(text: str, said: str) -> Any:
    """Return a value that is written as TOML, or as a bare word for a text.

    Parameters
    ----------
    text : str
        Such as ``5``, ``[48, 64]`` or ``adam``.
    said : str
        How the user gave it, for the message.

    Raises
    ------
    ConfigError
        If it begins like a list, a table or a quoted text, and is none.
    """
    text = text.strip()
    try:
        parsed = tomllib.loads(f"value = {text}")
    except (ValueError, RecursionError):
        if text[:1] in ("[", "{", '"', "'"):
            raise ConfigError(f"{said}: the value is not valid TOML") from None
        return text
    # A line break in the value could begin another key.
    return parsed["value"] if len(parsed) == 1 else text


def lines_of_keys(text: str) -> dict[tuple[str, ...], int]:
    """Return the line, counted from 1, in which each key of a valid TOML text is set.

    Each statement (a header, or a key and its value, of one line or of several) is parsed by itself: what it
    sets, it sets in its first line.
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
    """Yield the path to each innermost key; of an array of tables, to the array."""
    for key, value in table.items():
        if isinstance(value, dict) and value:
            yield from ((key, *path) for path in _paths(value))
        else:
            yield (key,)


def toml_value(value: object, *, strict: bool = True) -> str:
    """Return a value in TOML; one that TOML lacks is an error, or its repr where not `strict`."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return repr(value) if value.bit_length() < 1024 else hex(value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, str):
        # JSON's escapes are all TOML's too, but for the delete character, which TOML wants escaped.
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(toml_value(item, strict=strict) for item in value)}]"
    if isinstance(value, Mapping):
        pairs = (f"{_toml_key(key)} = {toml_value(item, strict=strict)}" for key, item in value.items())
        return "{" + ", ".join(pairs) + "}"
    if strict:
        raise ConfigError(f"{value!r} cannot be written to a config")
    return str(value)


def _toml_key(key: object) -> str:
    text = str(key)
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text, re.ASCII) else toml_value(text)


def shown_value(value: object) -> str:
    """Return a value as its file shows it, cut short."""
    text = toml_value(value, strict=False)
    return text if len(text) <= 60 else text[:57] + "..."
