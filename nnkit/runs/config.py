"""The TOML file that describes a training: reading, overriding, writing, and errors that name the line.

Its keys are declared in `nnkit.runs.sections`. Order: the config, reading and overriding, errors.
"""

from __future__ import annotations

import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

from nnkit.checks import Refused, settings_of
from nnkit.errors import ConfigError, FileError, unknown_name
from nnkit.runs.keys import KeyMistake, described
from nnkit.runs.sections import (
    SECTIONS,
    DataConfig,
    ModelConfig,
    RunConfig,
    TextConfig,
    TrainingConfig,
)
from nnkit.runs.table_defaults import FOLLOW_TABLE
from nnkit.runs.toml import lines_of_keys, parsed_file, shown_value, toml_value, value_from

__all__ = ["Config", "DataConfig", "ModelConfig", "RunConfig", "TextConfig", "TrainingConfig", "load_config"]

_LARGEST_FILE = 2**20  # bytes; a config is read by people
_MOST_MISTAKES = 100  # that are put into words; two are shown
_LONGEST_MISTAKE = 600  # characters
# The keys that may hold a path.
_PATHS = (
    ("data", "train"),
    ("data", "validation"),
    ("data", "test"),
    ("text", "vectors"),
    ("model", "pretrained"),
    ("run", "out"),
)


@dataclass(frozen=True, kw_only=True)
class Config:
    """The complete description of a training, a field for each section."""

    data: DataConfig = field(default_factory=DataConfig)
    text: TextConfig = field(default_factory=TextConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    training: TrainingConfig = field(default_factory=TrainingConfig)
    run: RunConfig = field(default_factory=RunConfig)

    @classmethod
    def from_tables(cls, tables: Mapping[str, Any]) -> Config:
        """Return the config of parsed TOML; a mistake raises `ConfigError`."""
        return _validated(tables, lambda location: (0, ""))

    def tables(self, *, given_only: bool = False) -> dict[str, dict[str, Any]]:
        """Return the sections as TOML has them: all keys, or those that were set."""
        return {name: getattr(self, name).values(given_only=given_only) for name in SECTIONS}

    def with_overrides(
        self, overrides: Iterable[str], options: Mapping[str, tuple[str, Any]] | None = None
    ) -> Config:
        """Return the config with keys replaced, as ``--set section.key=value`` does.

        Parameters
        ----------
        overrides : iterable of str
            Such as ``"training.epochs=5"``: the value as TOML, or a bare word for a text. Paths are relative
            to the working directory.
        options : mapping of str to (str, value), optional
            Values that are set before the overrides: by key (``training.epochs``), the name that errors use
            (``--epochs``) and the value.

        Raises
        ------
        ConfigError
            If an override is malformed, or its key or value is wrong.
        """
        raw = self.tables(given_only=True)
        given: dict[tuple[str, ...], str] = {}
        assigned = [(tuple(key.split(".")), value, "") for key, (_, value) in (options or {}).items()]
        for path, value, text in [*assigned, *((*_assignment(text), text) for text in overrides)]:
            _assign(raw, path, value)
            if path[:2] in _PATHS:
                _resolve_path(raw, path[:2], Path.cwd())
            given[path] = text
        # Errors name the override where one replaced an option.
        names = {key: name for key, (name, _) in (options or {}).items() if not given[tuple(key.split("."))]}
        return _validated(raw, lambda location: _override_place(given, location), names)

    def to_toml(self) -> str:
        """Return the config as a TOML file, every key written out; `load_config` reads it back equal."""
        sections = []
        for section, keys in self.tables().items():
            lines = [f"{key} = {toml_value(value)}" for key, value in keys.items() if value is not None]
            sections.append("\n".join([f"[{section}]", *lines]) + "\n")
        return "\n".join(sections)

    def to_commented_toml(self) -> str:
        """Return a TOML file with every key, its help and its default.

        Keys that this config does not set are commented out: some defaults depend on the data, such as the
        layers of a training on text.
        """
        sections = []
        for name, kind in SECTIONS.items():
            lines, section = [f"[{name}]"], getattr(self, name)
            values = section.values()
            for key, known in settings_of(kind).items():
                help = described(known)
                if f"{name}.{key}" in FOLLOW_TABLE:
                    help += " Of a table, unless set here, it follows from the rows."
                lines += textwrap.wrap(help, 98, initial_indent="# ", subsequent_indent="#   ")
                value = known.example if values[key] is None else values[key]
                is_set = key in section.given and values[key] is not None
                lines.append(f"{'' if is_set else '# '}{key} = {toml_value(value)}")
            sections.append("\n".join(lines) + "\n")
        return "\n".join(sections)


def load_config(path: str | os.PathLike[str]) -> Config:
    """Read a config.

    Paths in it are relative to the file's folder and become absolute. A bare word that is no file there,
    such as ``train = "digits"``, stays the name of a built-in.

    Raises
    ------
    FileError
        If the file cannot be read.
    ConfigError
        If it is not TOML, or a key or a value is wrong: the message names the file, the line and what is
        allowed.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > _LARGEST_FILE:
        raise ConfigError(f"{path}: larger than 1 MiB, so it is not a config; pass data files as they are")
    text, raw = parsed_file(content, str(path))
    folder = Path(os.path.abspath(path)).parent
    lines = cache(lambda: lines_of_keys(text))  # found only if there is an error
    config = _validated(raw, lambda location: _file_place(str(path), lines(), location))
    resolved = config.tables(given_only=True)
    for key in _PATHS:
        _resolve_path(resolved, key, folder)
    return Config.from_tables(resolved)


def _resolve_path(raw: dict[str, Any], key: tuple[str, ...], folder: Path) -> None:
    """Make a path absolute, unless it is a bare word that may name a built-in."""
    section, name = key
    value = raw.get(section, {}).get(name)
    if not isinstance(value, str) or "://" in value or "\0" in value:
        return
    path = folder / os.path.expanduser(value)
    bare = re.fullmatch(r"[\w-]+", value) is not None and key != ("run", "out")
    if not bare or os.path.exists(path):
        raw[section][name] = os.path.abspath(path)


def _assignment(text: str) -> tuple[tuple[str, ...], Any]:
    """Return the key and the value of an override."""
    name, equals, value = text.partition("=")
    path = tuple(part.strip() for part in name.split("."))
    if len(path) == 1 and equals:
        homes = _homes(path[0])
        fix = f"write {homes[0]}.{path[0]}=..." if homes else "write section.key=value"
        raise ConfigError(f"--set {text}: the key's section is missing; {fix}")
    if not equals or not all(path):
        raise ConfigError(f"--set {text}: not of the form section.key=value, such as training.epochs=5")
    return path, value_from(value, f"--set {text}")


def _assign(raw: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a key in nested tables; a name that gets a parameter becomes a table with that name."""
    table = raw
    for depth, part in enumerate(path[:-1]):
        inner = table.get(part)
        if depth == 0:
            inner = inner if inner is not None else {}
        elif inner is None and depth == 1:
            known = settings_of(SECTIONS[path[0]]).get(part) if path[0] in SECTIONS else None
            default = None if known is None else known.default
            inner = {"name": default} if isinstance(default, str) else {}
        elif isinstance(inner, str):
            inner = {"name": inner}
        table[part] = dict(inner) if isinstance(inner, Mapping) else {}
        table = table[part]
    table[path[-1]] = value


def _homes(key: str) -> list[str]:
    """Return the sections that have a key of this name."""
    return [name for name, kind in SECTIONS.items() if key in settings_of(kind)]


# --- errors ---

Location = tuple[str, ...]


def _validated(
    raw: Mapping[str, Any],
    place: Callable[[Location], tuple[int, str]],
    names: Mapping[str, str] | None = None,
) -> Config:
    """Return the config, or raise an error with the first two mistakes, a line each, and where they are.

    `names` has other names for some keys.
    """
    sections: dict[str, Any] = {}
    found = [mistake for name, table in raw.items() for mistake in _read(name, table, sections)]
    if not found:
        return Config(**sections)
    mistakes: dict[str, tuple[int, str]] = {}
    for location, error in found[:_MOST_MISTAKES]:
        order, where = place(location)
        message = _worded(location, error, (names or {}).get(".".join(location[:2]), ""))
        mistakes.setdefault(f"{where}{message[:_LONGEST_MISTAKE]}", (order, where))
    first, *others = sorted(mistakes, key=lambda line: mistakes[line][0])
    more = len(others) - 1 + max(0, len(found) - _MOST_MISTAKES)
    raise ConfigError("\n".join([first, *others[:1]]) + (f" (and {more} more)" if more > 0 else ""))


def _read(name: str, table: Any, sections: dict[str, Any]) -> Iterator[tuple[Location, Any]]:
    """Read one section into `sections`, or yield the location and the error of each mistake.

    The error is None for an unknown name, and the value itself where it should be a section.
    """
    if name not in SECTIONS or not isinstance(table, Mapping):
        yield (name,), table if name in SECTIONS else None
        return
    known, wrong = settings_of(SECTIONS[name]), False
    for key, value in table.items():
        try:
            error: Exception | None = None
            if key in known:
                known[key].plain(value)
                continue
        except (Refused, ConfigError) as caught:
            error = caught
        inner = error.part[1:] if isinstance(error, Refused) and error.part.startswith(".") else ""
        inner = error.key if isinstance(error, KeyMistake) else inner
        yield (name, key, inner) if inner else (name, key), error
        wrong = True
    if not wrong:
        try:
            sections[name] = SECTIONS[name](**table)
        except KeyMistake as error:
            yield (name, error.key), error


def _worded(location: Location, error: Any, name: str) -> str:
    """Return the message for a mistake; `name` is the key's other name, if any."""
    if error is None:
        return _unknown_section(location[0]) if len(location) == 1 else _unknown_key(*location[:2])
    key = name or ".".join(location)
    if len(location) == 1:
        return f"{key} is a section: write [{key}] and its keys below it, not {key} = {shown_value(error)}"
    if isinstance(error, Refused):
        part = "" if error.part.startswith(".") else error.part
        return f"{part}{key} must be {error.words}, not {shown_value(error.value)}{error.hint}"
    message = str(error)
    return f"{key} {message}" if message.startswith(("must", "has")) else f"{key}: {message}"


def _unknown_section(name: str) -> str:
    homes = _homes(name)
    if homes:
        return f"{name} stands outside its section: write it below [{homes[0]}]"
    return str(unknown_name("section", name, SECTIONS))


def _unknown_key(section: str, key: str) -> str:
    homes = _homes(key)
    if homes:
        return f"{key} belongs to [{homes[0]}], not to [{section}]"
    return str(unknown_name("key", key, settings_of(SECTIONS[section]), f"in [{section}]"))


def _override_place(given: Mapping[tuple[str, ...], str], location: tuple[str, ...]) -> tuple[int, str]:
    """Return the number and the text of the override that a mistake is in."""
    for order, (path, text) in enumerate(given.items()):
        if path[: len(location)] == location or location[: len(path)] == path:
            return order, f"--set {text}: " if text else ""
    return len(given), "after the overrides, "


def _file_place(
    path: str, lines: Mapping[tuple[str, ...], int], location: tuple[str, ...]
) -> tuple[int, str]:
    """Return the number and the text of the line that a mistake is in."""
    for end in range(len(location), 0, -1):
        if location[:end] in lines:
            line = lines[location[:end]]
            return line, f"{path}, line {line}: "
    return 0, f"{path}: "
