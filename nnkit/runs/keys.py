"""Checks of config keys that TOML writes differently from Python's arguments.

A check returns the value as TOML has it, so that a config can be written again. `nnkit train --help` is
printed from these checks, so modules that take long to import are imported only when a value is checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from nnkit.checks import By, Check, Choice, Number, Refused, Setting, Whole
from nnkit.data.limits import MOST_PICTURE_SIDE
from nnkit.data.tables.options import COLUMN
from nnkit.data.text.options import MOST_CHARACTERS
from nnkit.errors import ConfigError
from nnkit.training.periods import Period, parse_period

__all__ = ["KeyMistake", "Named", "described"]  # and the checks, which are read as `keys.NAME`


class KeyMistake(ConfigError):
    """A mistake in one key of a table or of a section."""

    def __init__(self, key: str, message: object) -> None:
        super().__init__(str(message))
        self.key = key


def _is(check: Check, value: Any) -> bool:
    try:
        check.plain(value)
    except (Refused, ConfigError):
        return False
    return True


def _one_or_list(check: Check) -> Callable[[Any], Any]:
    """Return the function that applies a check to a value, or to each of a list."""
    return lambda value: (
        [check.plain(one) for one in value] if isinstance(value, list) else check.plain(value)
    )


# --- texts, numbers, columns ---


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise Refused("", value)
    return value


TEXT = By(_text, "a text in quotes")


def _sources(value: Any) -> str | list[str]:
    if value == []:
        raise Refused("", value)
    return _one_or_list(TEXT)(value)


def _share_or_file(value: Any) -> float | str:
    return value if _is(TEXT, value) else Number(0, below=1).plain(value)


def _some_columns(value: Any) -> str | int | list[str | int]:
    if value == []:
        raise ConfigError("must name at least one column")
    return COLUMNS.plain(value)


def _char_ngrams(value: Any) -> str | list[int]:
    length = Whole(1, MOST_CHARACTERS)
    pair = isinstance(value, list) and len(value) == 2 and all(_is(length, one) for one in value)
    if value not in ("auto", []) and not (pair and value[0] <= value[1]):
        raise Refused("", value)
    return value


def _image_size(value: Any) -> int | list[int]:
    if isinstance(value, list) and len(value) not in (1, 2):
        raise Refused("", value)
    return _one_or_list(Whole(1, MOST_PICTURE_SIDE))(value)


def _header(value: Any) -> str | int:
    return value if value in ("yes", "no") else Whole(0).plain(value)


def _words(value: Any) -> list[str]:
    words = value if isinstance(value, list | tuple) else [value]
    for word in words:
        if not isinstance(word, str) and not _is(Whole(), word):
            raise Refused("", word)
    return [str(word).strip() for word in words]


def _label(value: Any) -> str | int | float | bool:
    if not isinstance(value, str | bool) and not _is(Number(), value):
        raise Refused("", value)
    return value


def _device(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9_-]*(:[0-9]{1,4})?", value, re.ASCII):
        raise Refused("", value)
    return value


SOURCES = By(_sources, "a text in quotes, or a list of such")
SHARE_OR_FILE = By(_share_or_file, "a share of the samples from 0 up to 1, or a file's path")
DROPOUT = By(_one_or_list(Number(0, below=1)), "from 0 up to 1, or a list of such for the hidden layers")
COLUMNS = By(_one_or_list(COLUMN), "a column's name or number, or a list of such")
SOME_COLUMNS = By(_some_columns, COLUMNS.words)
CHAR_NGRAMS = By(
    _char_ngrams,
    f"the shortest and the longest length, such as [3, 5], of at most {MOST_CHARACTERS}, [] for none, "
    'or "auto"',
)
IMAGE_SIZE = By(_image_size, f"a number of pixels, or [height, width], of at most {MOST_PICTURE_SIDE}")
HEADER = By(_header, '"yes", "no" or the number of the row of names, counted from 0')
WORDS = By(_words, 'a list of words in quotes, such as ["-", "n/a"]')
LABEL = By(_label, "a class of the target")
DEVICE = By(_device, '"auto", "cpu", "cuda" or one device such as "cuda:1"')


# --- periods and tables ---


def _warmup(value: Any) -> int | Period:
    if _is(Whole(0, 2**53), value):
        return value
    period = parse_period(value) if isinstance(value, str | Period) else None
    if period is None or period.seconds is not None:
        raise Refused("", value)
    return int(period.value) if period.unit == "steps" else period


def _augment(value: Any) -> dict[str, Any]:
    from nnkit.feed.augmentation import augmentation_from

    if not isinstance(value, dict):
        raise Refused("", value)
    for key, entry in value.items():
        try:
            augmentation_from({key: entry})
        except ConfigError as error:
            raise KeyMistake(key, error) from None
    return value


def _class_weight(value: Any) -> str | dict[str, float]:
    if value == "balanced":
        return value
    if not isinstance(value, dict) or not value:
        raise Refused("", value)
    for name, weight in value.items():
        if not _is(Number(0), weight):
            raise Refused("a weight of at least 0", weight, f".{name}")
    return {name: float(weight) for name, weight in value.items()}


def _rate(value: Any) -> float | dict[str, float]:
    rate = Number(above=0, most=100)
    if not isinstance(value, dict) or not value:
        return rate.plain(value)
    for name, one in value.items():
        if not _is(rate, one):
            raise Refused(rate.words, one, f".{name}")
    return {name: float(one) for name, one in value.items()}


RATE = By(
    _rate, "a finite number greater than 0 and at most 100, or a table such as {head = 1e-3, rest = 1e-4}"
)
PERIOD = By(parse_period, 'a number and a unit, such as "10 minutes"')
WARMUP = By(_warmup, 'a number of steps, or such as "2 epochs"')
AUGMENT = By(_augment, "a table such as {shift = 0.1, flip = true}")
CLASS_WEIGHT = By(_class_weight, '"balanced" or a table {class = weight, ...}')


# --- names ---


@dataclass(frozen=True)
class Named(Check[Any]):
    """A name in quotes or, where there is an `example`, a table of a name and its parameters.

    Parameters
    ----------
    what : str
        The kind of thing, with an article.
    module : str
        The module of `nnkit.nn` that has `make` and `names`.
    make : str
        A function that raises `ConfigError` for a wrong description.
    names : str
        The names, or a function that returns them; "" where they are too many to list.
    example : str
        A table, in TOML.
    auto : bool
        Whether "auto" is allowed too.
    """

    what: str
    module: str
    make: str
    names: str
    example: str = ""
    auto: bool = False

    @property
    def words(self) -> str:
        """What is allowed."""
        table = f" or a table with one, such as {self.example}" if self.example else ""
        return f"{self.what}'s name{table}"

    def _found(self, name: str) -> Any:
        return getattr(import_module(f"nnkit.nn.{self.module}"), name)

    def known(self) -> tuple[str, ...]:
        """Return the names to list."""
        found = self._found(self.names) if self.names else ()
        return tuple(found() if callable(found) else found)

    def plain(self, value: Any) -> Any:
        """Return the value as it is."""
        table = value if isinstance(value, dict) and self.example else {"name": value}
        name = table.get("name")
        if not isinstance(name, str) or not name:
            raise Refused(self.words, value)
        make = self._found(self.make)
        for key, entry in table.items() if table is value else ():
            for item in entry if isinstance(entry, list) else [entry]:
                if not isinstance(item, str | bool) and not _is(Number(), item):
                    raise Refused("a number, a text or true or false", item, f".{key}")
            try:
                make({"name": name, key: entry})
            except ConfigError as error:
                raise KeyMistake(key, error) from None
        if value != "auto" or not self.auto:
            make(value)
        return value


OPTIMIZER = Named(
    "an optimizer", "optimizers", "optimizer_from", "optimizer_names", '{name = "adam", beta1 = 0.9}'
)
SCHEDULE = Named("a schedule", "schedules", "schedule_from", "SCHEDULES", '{name = "step", every = 10}')
LOSS = Named("a loss", "losses", "loss_from", "loss_names", '{name = "huber", delta = 1.0}', auto=True)
INITIALIZER = Named(
    "an initializer",
    "initializers",
    "initializer_from",
    "INITIALIZERS",
    '{name = "normal", std = 0.01}',
    auto=True,
)
ACTIVATION = Named("an activation", "activations", "activation_function", "activation_names")
METRIC = Named("a metric", "metrics", "get_metric", "")


def described(known: Setting) -> str:
    """Return a key's help with the names that it takes."""
    if isinstance(known.check, Choice):
        return f"{known.help} One of {', '.join(known.check.names)}."
    if not isinstance(known.check, Named) or not known.check.names:
        return known.help
    table = ", or a table with parameters" if known.check.example else ""
    return f"{known.help} One of {', '.join(known.check.known())}{table}."
