"""The TOML file that describes a training: its schema, and mistakes told with the line they stand in.

Order: what a key may hold, the five sections, the whole, reading and overriding, mistakes in words, writing.
A file is data and nothing in it is executed. This module imports pydantic (0.2 s); nothing that `import
nnkit` loads may import it.
"""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from functools import cache
from itertools import islice
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, get_args, get_origin

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainSerializer,
    PlainValidator,
    ValidationError,
    ValidationInfo,
    field_validator,
)
from pydantic.fields import FieldInfo
from pydantic_core import ErrorDetails

from nnkit.core.activations import activation_function, activation_names
from nnkit.core.augmentation import augmentation_from
from nnkit.core.initializers import INITIALIZERS, initializer_from
from nnkit.core.losses import loss_from, loss_names
from nnkit.core.metrics import get_metric
from nnkit.core.optimizers import optimizer_from, optimizer_names
from nnkit.core.periods import Period, parse_period
from nnkit.core.schedules import SCHEDULES, Schedule, schedule_from
from nnkit.data.operations import MOST_PICTURE_SIDE
from nnkit.data.pictures import PictureOptions, PictureSettings
from nnkit.data.tables.options import TableOptions, check_kind
from nnkit.data.terms import MOST_CHARACTERS, MOST_WORDS
from nnkit.errors import ConfigError, FileError, unknown_name
from nnkit.nesting import is_too_deep

__all__ = [
    "Config",
    "DataConfig",
    "ModelConfig",
    "RunConfig",
    "TextConfig",
    "TrainingConfig",
    "load_config",
    "toml_value",
    "value_from",
]

_LARGEST_FILE = 2**20  # a config is read by people
_LARGEST_STATEMENT = 500  # lines of one value that a mistake is looked for in
_MOST_PARSED = 2**21  # characters parsed in vain for it: a statement of n lines is tried n times
_LARGEST_LAYER = 2**24
_MOST_LAYERS, _MOST_METRICS = 1000, 100
_WIDEST_EMBEDDING = 2**16
# A key of a hundred parts: tomllib's time grows with the third power of their number.
_DEEP_KEY = re.compile(r"""(?<![\w-])(?:(?:[\w-]++|"(?:[^"\\\n]|\\.)*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){100}""")
_MOST_MISTAKES = 100  # that are put into words: two are shown
_LONGEST_MISTAKE = 600  # in characters


# --- what a key may hold ---


class _KeyMistake(ValueError):
    """A mistake in one key of a table that is checked as a whole."""

    def __init__(self, key: str, message: object) -> None:
        super().__init__(str(message))
        self.key = key


def _shown(value: object) -> str:
    """Return a value as its file shows it, cut short."""
    text = toml_value(value, strict=False)
    return text if len(text) <= 60 else text[:57] + "..."


def _is_number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) <= sys.float_info.max  # false for NaN; a whole number in TOML may be of any size


def _optional(check: Callable[[object], Any]) -> PlainValidator:
    """Return the validator of a key that Python may also give as None."""
    return PlainValidator(lambda value: None if value is None else check(value))


def _text(value: object) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"must be a text in quotes, not {_shown(value)}")
    return value


def _sources(value: object) -> str | list[str]:
    if isinstance(value, list) and value:
        return [_text(source) for source in value]
    return _text(value)


def _share_or_file(value: Any) -> float | str:
    if isinstance(value, str) and value.strip():
        return value
    if _is_number(value) and 0 <= float(value) < 1:
        return float(value)
    raise ValueError(f"must be a share of the samples from 0 up to 1, or a file's path, not {_shown(value)}")


def _dropout(value: Any) -> float | list[float]:
    rates = value if isinstance(value, list) else [value]
    for rate in rates:
        if not _is_number(rate) or not 0 <= rate < 1:
            raise ValueError(
                f"must be from 0 up to 1, or a list of such for the hidden layers, not {_shown(rate)}"
            )
    return [float(rate) for rate in rates] if isinstance(value, list) else float(value)


def _columns(value: Any) -> str | int | list[str | int]:
    for name in value if isinstance(value, list) else [value]:
        if isinstance(name, bool) or not isinstance(name, (str, int)) or name == "":
            raise ValueError(f"must be a column's name or number, or a list of such, not {_shown(name)}")
    return value


def _char_ngrams(value: Any) -> str | list[int]:
    if value == "auto":
        return "auto"
    lengths: list[int] = value if isinstance(value, list) else [0]
    whole = all(isinstance(length, int) and not isinstance(length, bool) for length in lengths)
    if lengths and not (whole and len(lengths) == 2 and 1 <= lengths[0] <= lengths[1] <= MOST_CHARACTERS):
        raise ValueError(
            f"must be the shortest and the longest length, such as [3, 5], of at most {MOST_CHARACTERS}, "
            f'[] for none, or "auto", not {_shown(value)}'
        )
    return lengths


def _some_columns(value: Any) -> str | int | list[str | int]:
    if value == []:
        raise ValueError("must name at least one column")
    return _columns(value)


def _image_size(value: Any) -> int | list[int]:
    sides = value if isinstance(value, list) else [value]
    proper = all(isinstance(side, int) and not isinstance(side, bool) for side in sides)
    if not proper or len(sides) not in (1, 2) or not all(1 <= side <= MOST_PICTURE_SIDE for side in sides):
        raise ValueError(
            f"must be a number of pixels, or [height, width], of at most {MOST_PICTURE_SIDE}, "
            f"not {_shown(value)}"
        )
    return value


def _one_column(value: Any) -> str | int:
    if isinstance(value, bool) or not isinstance(value, (str, int)) or value == "":
        raise ValueError(f"must be a column's name or number, not {_shown(value)}")
    return value


def _table_option(name: str) -> Callable[[Any], Any]:
    """Return the check of a key that `TableOptions` has under the same name."""

    def check(value: Any) -> Any:
        try:
            TableOptions(**{name: value})
        except ConfigError as error:
            raise ValueError(str(error).removeprefix(f"`{name}` ").replace("`", "")) from None
        return value

    return check


def _header(value: Any) -> str | int:
    if value in ("yes", "no"):
        return value
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise ValueError(
            f'must be "yes", "no" or the number of the row of names, counted from 0, not {_shown(value)}'
        )
    return value


def _words(value: Any) -> list[str]:
    words = value if isinstance(value, list | tuple) else [value]
    for word in words:
        if not isinstance(word, str) and (isinstance(word, bool) or not isinstance(word, int)):
            raise ValueError(f'must be a list of words in quotes, such as ["-", "n/a"], not {_shown(word)}')
    return [str(word).strip() for word in words]


def _label(value: Any) -> str | int | float | bool:
    if not isinstance(value, str | bool) and not _is_number(value):
        raise ValueError(f"must be a class of the target, not {_shown(value)}")
    return value


def _types(value: Any) -> dict[str, str]:
    if not isinstance(value, dict):
        raise ValueError(f'must be a table such as {{zip = "category"}}, not {_shown(value)}')
    for name, kind in value.items():
        try:
            check_kind(name, kind)
        except ConfigError as error:
            raise _KeyMistake(name, str(error).partition(f"column {name!r} ")[2]) from None
    return value


def _augment(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"must be a table such as {{shift = 0.1, flip = true}}, not {_shown(value)}")
    for key, entry in value.items():
        try:
            augmentation_from({key: entry})
        except ConfigError as error:
            raise _KeyMistake(key, error) from None
    return value


def _named(what: str, example: str, check: Callable[[Any], object]) -> PlainValidator:
    """Return the validator of a key that holds a name, or a table of a name and its parameters."""

    def validate(value: Any) -> str | dict[str, Any]:
        name = value.get("name") if isinstance(value, dict) else value
        if not isinstance(name, str) or not name:
            raise ValueError(
                f"must be {what}'s name or a table with one, such as {example}, not {_shown(value)}"
            )
        for key, entry in value.items() if isinstance(value, dict) else ():
            for item in entry if isinstance(entry, list) else [entry]:
                if not isinstance(item, (str, bool)) and not _is_number(item):
                    raise _KeyMistake(key, f"must be a number, a text or true or false, not {_shown(item)}")
            try:
                check({"name": name, key: entry})
            except ConfigError as error:
                raise _KeyMistake(key, error) from None
        check(value)
        return value

    return PlainValidator(validate)


def _unless_auto(check: Callable[[Any], object]) -> Callable[[Any], object]:
    return lambda value: None if value == "auto" else check(value)


def _class_weight(value: Any) -> str | dict[str, float]:
    if value == "balanced":
        return "balanced"
    if not isinstance(value, dict) or not value:
        raise ValueError(f'must be "balanced" or a table {{class = weight, ...}}, not {_shown(value)}')
    for name, weight in value.items():
        if not _is_number(weight) or weight < 0:
            raise _KeyMistake(name, f"must be a weight of at least 0, not {_shown(weight)}")
    return {name: float(weight) for name, weight in value.items()}


def _warmup(value: object) -> int | Period:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= 2**53:
        return value
    period = None
    if isinstance(value, (str, Period)):
        period = parse_period(value)
    if period is None or period.seconds is not None:
        raise ValueError(f'must be a number of steps, or such as "2 epochs", not {_shown(value)}')
    return int(period.value) if period.unit == "steps" else period


def _device(value: object) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z][a-z0-9_-]*(:[0-9]{1,4})?", value, re.ASCII):
        raise ValueError(f'must be "auto", "cpu", "cuda" or one device such as "cuda:1", not {_shown(value)}')
    return value


def _known_metric(value: str) -> str:
    get_metric(value)
    return value


def _known_activation(value: str) -> str:
    activation_function(value)
    return value


_written = PlainSerializer(lambda period: None if period is None else str(period))
_Warmup = Annotated[
    int | Period, PlainValidator(_warmup), PlainSerializer(lambda v: v if isinstance(v, int) else str(v))
]
_Text = Annotated[str, PlainValidator(_text)]
_Named = str | dict[str, Any]
_Layer = Annotated[int, Field(ge=1, le=_LARGEST_LAYER)]
_Penalty = Annotated[float, Field(ge=0)]


def _key(words: str, example: Any = None) -> Any:
    """Return what a config's key is for, and for a key without a default a value it may have."""
    return Field(description=words, examples=None if example is None else [example])


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, allow_inf_nan=False)


# --- the sections ---


class DataConfig(_Section):
    """[data]: what to train on."""

    train: Annotated[
        str | list[str] | None,
        _optional(_sources),
        _key("What to train on: a file, a folder, a built-in's name, or a list of parts.", "digits"),
    ] = None
    validation: Annotated[
        float | str,
        PlainValidator(_share_or_file),
        _key("The share of the training rows to hold out, 0 for none, or a file to validate on."),
    ] = 0.1
    test: Annotated[
        str | None, _optional(_text), _key("A file to measure the trained model on.", "test.csv")
    ] = None
    target: Annotated[
        str | int | list[str | int] | None,
        _optional(_some_columns),
        _key("The column to predict, by name or number, or a list of several.", "price"),
    ] = None
    features: Annotated[
        str | int | list[str | int] | None,
        _optional(_some_columns),
        _key("The columns to learn from; without it, all but the target.", ["rooms", "area"]),
    ] = None
    drop: Annotated[
        str | int | list[str | int] | None, _optional(_columns), _key("Columns to leave out.", ["id"])
    ] = None
    task: Annotated[
        Literal["auto", "classification", "binary", "multiclass", "multilabel", "regression"],
        _key("What kind of target it is; auto follows from its values."),
    ] = "auto"
    positive: Annotated[
        str | int | float | bool | None,
        _optional(_label),
        _key(
            "The class of two that precision, recall, F1 and the threshold are of; without it, the second in "
            "sorted order.",
            "yes",
        ),
    ] = None
    weight: Annotated[
        str | int | None,
        _optional(_table_option("weight")),
        _key("The column of sample weights: how much each row counts.", "weight"),
    ] = None
    index: Annotated[
        str | int | None,
        _optional(_table_option("index")),
        _key("The column that numbers or names the rows; it is not learnt from.", "id"),
    ] = None
    types: Annotated[
        dict[str, str] | None,
        _optional(_types),
        _key(
            "The kinds of columns, where they are not as found: number, category, boolean, date, text or "
            "dropped; a date with its pattern.",
            {"zip": "category", "sold": "date:%d.%m.%Y"},
        ),
    ] = None
    missing: Annotated[
        list[str] | None,
        _optional(_words),
        _key("The words that mean a missing value, in place of the usual ones.", ["-999", "n/a"]),
    ] = None
    separator: Annotated[
        str | None,
        _optional(_table_option("separator")),
        _key('The character between the cells of a text file, or "whitespace".', ";"),
    ] = None
    header: Annotated[
        str | int | None,
        _optional(_header),
        _key('Whether a text file names its columns, "yes" or "no", or the row that does, from 0.', "no"),
    ] = None
    skip_rows: Annotated[
        int, Field(ge=0), _key("How many lines to leave out at the beginning of a text file.")
    ] = 0
    comment: Annotated[
        str | None,
        _optional(_table_option("comment")),
        _key("The character that lines to leave out begin with.", "#"),
    ] = None
    quote: Annotated[
        str | None,
        _optional(_table_option("quote")),
        _key('The character around cells that hold a separator; "" for none.', "'"),
    ] = None
    encoding: Annotated[
        str | None,
        _optional(_table_option("encoding")),
        _key("The encoding of text files; without it, UTF-8.", "latin-1"),
    ] = None
    decimal: Annotated[
        str | None, _optional(_table_option("decimal")), _key("The decimal sign of numbers.", ",")
    ] = None
    thousands: Annotated[
        str | None,
        _optional(_table_option("thousands")),
        _key('The sign between thousands; "" for none.', "."),
    ] = None
    scaling: Annotated[
        Literal["auto", "standardize", "unit", "none"],
        _key("How numbers and pixels are scaled; unit divides pixels by 255."),
    ] = "auto"
    text: Annotated[
        str | int | list[str | int] | None,
        _optional(_columns),
        _key("The columns that are text, [] for none; without it, they are found by their values.", ["body"]),
    ] = None
    categories: Annotated[
        Literal["onehot", "embed"],
        _key("Whether a category is one-hot inputs or has a vector that is learnt."),
    ] = "onehot"
    category_width: Annotated[
        Annotated[int, Field(ge=1, le=_WIDEST_EMBEDDING)] | None,
        _key("The width of those vectors; without it, min(600, round(1.6 n^0.56)) for n categories.", 8),
    ] = None
    image_size: Annotated[
        int | list[int] | None,
        _optional(_image_size),
        _key("The side of pictures in pixels, or [height, width]; without it, 64.", [48, 64]),
    ] = None
    image_fit: Annotated[
        Literal["crop", "pad", "stretch"], _key("How a picture of another shape is made to fit.")
    ] = "crop"
    grayscale: Annotated[bool, _key("Whether pictures lose their colours.")] = False
    image_column: Annotated[
        str | int | None,
        _optional(_one_column),
        _key("The column of a table that holds the paths of pictures.", "path"),
    ] = None
    on_bad: Annotated[
        Literal["error", "skip"], _key("What to do with a picture or a file of text that cannot be read.")
    ] = "error"
    augment: Annotated[
        dict[str, Any] | None,
        _optional(_augment),
        _key(
            "How pictures are varied while training, by shift, flip and erase.",
            {"shift": 0.1, "flip": True, "erase": 0.2},
        ),
    ] = None

    @field_validator("thousands")
    @classmethod
    def _two_signs(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and value == info.data.get("decimal"):
            raise ValueError(f"must differ from decimal, which is {_shown(value)} too")
        return value

    def table(self) -> TableOptions:
        """Return how a table is read."""
        return TableOptions(
            separator=self.separator,
            header={"yes": True, "no": False}.get(self.header)
            if isinstance(self.header, str)
            else self.header,
            encoding=self.encoding,
            decimal=self.decimal,
            thousands=self.thousands,
            missing=None if self.missing is None else tuple(self.missing),
            comment=self.comment,
            skip_rows=self.skip_rows,
            quote=self.quote,
            index=self.index,
            weight=self.weight,
            types=self.types or {},
        )

    def pictures(self) -> PictureOptions:
        """Return how a source of pictures is read."""
        settings = PictureSettings(channels=1 if self.grayscale else 3, fit=self.image_fit)
        if self.image_size is not None:
            sides = self.image_size if isinstance(self.image_size, list) else [self.image_size]
            settings = replace(settings, height=sides[0], width=sides[-1])
        return PictureOptions(settings, self.on_bad, self.image_column)


class TextConfig(_Section):
    """[text]: what is learnt from columns of text. Other defaults of a training on text: see the README."""

    word_ngrams: Annotated[
        int,
        Field(ge=1, le=MOST_WORDS),
        _key("The maximum number of consecutive words that make a term (fastText's wordNgrams)."),
    ] = 2
    char_ngrams: Annotated[
        str | list[int],
        PlainValidator(_char_ngrams),
        _key(
            "The shortest and longest run of characters that makes a term (fastText's minn, maxn), [] for "
            "none; auto takes [3, 5] for up to about 2 million tokens, else none."
        ),
    ] = "auto"
    min_count: Annotated[
        int,
        Field(ge=1, le=2**31 - 1),
        _key("How often a term must occur in the training rows (fastText's minCount)."),
    ] = 2
    vocabulary_size: Annotated[
        int,
        Field(ge=1, le=2**24),
        _key("The maximum number of terms, the most frequent ones (scikit-learn's max_features)."),
    ] = 100_000
    hashing: Annotated[
        int,
        Field(ge=0, le=2**24),
        _key("The number of buckets that terms are hashed into; 0 keeps a vocabulary (fastText's bucket)."),
    ] = 0
    tfidf: Annotated[bool, _key("Whether terms are weighted by TF-IDF.")] = False
    width: Annotated[
        Annotated[int, Field(ge=1, le=_WIDEST_EMBEDDING)] | None,
        _key("The width of a term's vector; without it, 64, or the width of `vectors`.", 64),
    ] = None
    reduce: Annotated[
        Literal["auto", "mean", "sum", "max"],
        _key("How a document's vectors become one; auto is the mean, or with TF-IDF the sum."),
    ] = "auto"
    vectors: Annotated[
        str | None,
        _optional(_text),
        _key("A file of word vectors to begin from, in word2vec's or GloVe's format.", "glove.6B.100d.txt"),
    ] = None

    @field_validator("reduce")
    @classmethod
    def _weights_are_added(cls, value: str, info: ValidationInfo) -> str:
        if value == "max" and info.data.get("tfidf"):
            raise ValueError("must be mean or sum where tfidf weights the terms, not max")
        return value

    @field_validator("vectors")
    @classmethod
    def _vectors_have_words(cls, value: str | None, info: ValidationInfo) -> str | None:
        if value is not None and info.data.get("hashing"):
            raise ValueError("must be left out where terms are hashed: a bucket is no word")
        return value


class ModelConfig(_Section):
    """[model]: the network."""

    hidden: Annotated[
        list[_Layer],
        Field(max_length=_MOST_LAYERS),
        _key("The widths of the hidden layers; [] for a linear model."),
    ] = [256, 128]
    activation: Annotated[
        _Text,
        AfterValidator(_known_activation),
        _key(f"The activation of the hidden layers: {', '.join(activation_names())}."),
    ] = "relu"
    dropout: Annotated[
        float | list[float],
        PlainValidator(_dropout),
        _key("The share of each hidden layer's units to drop while training, or a list with one for each."),
    ] = 0.0
    initializer: Annotated[
        _Named,
        _named("an initializer", '{name = "normal", std = 0.01}', _unless_auto(initializer_from)),
        _key(f"How weights begin: {', '.join(INITIALIZERS)}; auto takes the activation's own."),
    ] = "auto"
    output: Annotated[_Text, _key("The activation of the output layer; auto leaves it to the loss.")] = "auto"

    @field_validator("dropout")
    @classmethod
    def _one_rate_a_layer(cls, value: float | list[float], info: ValidationInfo) -> float | list[float]:
        hidden = info.data.get("hidden")
        if isinstance(value, list) and hidden is not None and len(value) != len(hidden):
            raise ValueError(f"has {len(value)} rates for {len(hidden)} hidden layers")
        return value


class TrainingConfig(_Section):
    """[training]: how the network learns."""

    epochs: Annotated[
        int, Field(ge=1, le=2**31 - 1), _key("The number of passes over the training rows.")
    ] = 20
    batch_size: Annotated[int, Field(ge=1, le=2**24), _key("The number of rows in each step.")] = 128
    optimizer: Annotated[
        _Named,
        _named("an optimizer", '{name = "adam", beta1 = 0.9}', optimizer_from),
        _key(f"How weights are updated: {', '.join(optimizer_names())}; or a table with parameters."),
    ] = "adam"
    learning_rate: Annotated[float, Field(gt=0, le=100), _key("The base learning rate.")] = 1e-3
    schedule: Annotated[
        _Named,
        _named("a schedule", '{name = "step", every = 10}', schedule_from),
        _key(f"How the learning rate changes: {', '.join(SCHEDULES)}; or a table with parameters."),
    ] = "cosine"
    warmup: Annotated[
        _Warmup, _key('Over how many steps, or such as "2 epochs", the learning rate rises at the beginning.')
    ] = 0
    loss: Annotated[
        _Named,
        _named("a loss", '{name = "huber", delta = 1.0}', _unless_auto(loss_from)),
        _key(f"What is minimised: {', '.join(loss_names())}; or a table; auto takes the task's."),
    ] = "auto"
    class_weight: Annotated[
        str | dict[str, float] | None,
        _optional(_class_weight),
        _key(
            'How much the rows of each class count: "balanced", or a table of classes and weights.',
            "balanced",
        ),
    ] = None
    weight_decay: Annotated[_Penalty, _key("The decoupled weight decay; unless set, adamw takes 0.01.")] = 0.0
    l1: Annotated[_Penalty, _key("The penalty on the weights' absolute values.")] = 0.0
    l2: Annotated[_Penalty, _key("The penalty on half of the weights' squares.")] = 0.0
    clip_norm: Annotated[
        Annotated[float, Field(gt=0)] | None,
        _key("The maximum norm of the gradient; without it, it is not clipped.", 1.0),
    ] = None
    early_stopping: Annotated[
        int, Field(ge=0, le=2**31 - 1), _key("Stop after so many epochs without improvement; 0 for never.")
    ] = 0
    restore_best: Annotated[
        bool, _key("Whether the result is the parameters of the best epoch rather than the last.")
    ] = True
    metrics: Annotated[
        list[Annotated[_Text, AfterValidator(_known_metric)]],
        Field(max_length=_MOST_METRICS),
        _key('The metrics to measure, such as ["accuracy", "log_loss"]; [] for the task\'s own.'),
    ] = []

    @field_validator("warmup")
    @classmethod
    def _one_warmup(cls, value: int | Period, info: ValidationInfo) -> int | Period:
        schedule = info.data.get("schedule")
        if value and isinstance(schedule, dict) and not {"warmup", "warmup_epochs"}.isdisjoint(schedule):
            raise ValueError("has been given in the schedule's table too; keep one of them")
        return value

    def schedule_with_warmup(self) -> Schedule:
        """Return the schedule with its warm-up, as the trainer takes it."""
        options: dict[str, Any] = (
            {"name": self.schedule} if isinstance(self.schedule, str) else dict(self.schedule)
        )
        if isinstance(self.warmup, Period):
            options["warmup_epochs"] = self.warmup.value
        elif self.warmup:
            options["warmup"] = self.warmup
        return schedule_from(options)


class RunConfig(_Section):
    """[run]: where and how it runs."""

    # Another backend's name is known where devices are.
    device: Annotated[
        str, PlainValidator(_device), _key("Where to train: auto, cpu, cuda, or one GPU such as cuda:1.")
    ] = "auto"
    precision: Annotated[
        Literal["fp32", "fp64", "tf32", "fp16", "bf16"], _key("The precision to compute in.")
    ] = "fp32"
    seed: Annotated[
        int, Field(ge=0, le=2**64 - 1), _key("The seed of the weights, the order of the rows and dropout.")
    ] = 0
    out: Annotated[
        str | None,
        _optional(_text),
        _key("The run's folder; without it, one is named in runs/.", "runs/mine"),
    ] = None
    checkpoint_every: Annotated[
        Period | None,
        _optional(parse_period),
        _written,
        _key(
            "How often to write a checkpoint; without it, after each epoch (at most one a second) and every "
            "5 minutes.",
            "10 minutes",
        ),
    ] = None
    checkpoint_keep: Annotated[
        int, Field(ge=1), _key("How many of the newest checkpoints to keep while training.")
    ] = 3
    keep_checkpoints: Annotated[
        bool,
        _key(
            "Whether to keep them when the training is finished, so that it can be resumed for more epochs."
        ),
    ] = False
    data_placement: Annotated[
        Literal["auto", "device", "pinned", "mmap"],
        _key("Where the training rows are kept: on the device, in the host's memory, or mapped from a file."),
    ] = "auto"
    diagnostics: Annotated[
        bool, _key("Whether to look for what is wrong with the data, the settings and the training.")
    ] = True


# --- the whole ---


class Config(_Section):
    """A training, described whole.

    Parameters
    ----------
    data : DataConfig
    text : TextConfig
    model : ModelConfig
    training : TrainingConfig
    run : RunConfig
    """

    paths: ClassVar[tuple[tuple[str, str], ...]] = (
        ("data", "train"),
        ("data", "validation"),
        ("data", "test"),
        ("text", "vectors"),
        ("run", "out"),
    )
    """The keys that may hold a path."""

    data: DataConfig = Field(default_factory=DataConfig)
    text: TextConfig = Field(default_factory=TextConfig)
    model: ModelConfig = Field(default_factory=ModelConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    run: RunConfig = Field(default_factory=RunConfig)

    def with_overrides(
        self, overrides: Iterable[str], options: Mapping[str, tuple[str, Any]] | None = None
    ) -> Config:
        """Return the config with keys replaced, as ``--set section.key=value`` does.

        Parameters
        ----------
        overrides : iterable of str
            ``"training.epochs=5"``: the value as TOML, or a bare word for a text. Relative paths are relative
            to the working directory.
        options : mapping of str to (str, value), optional
            Values given in another way, set before the overrides: by the key, such as ``training.epochs``,
            what mistakes call it, such as ``--epochs``, and the value.

        Raises
        ------
        ConfigError
            If one of them is no such assignment, or its key or value is wrong.
        """
        raw = self.model_dump(exclude_unset=True)
        given: dict[tuple[str, ...], str] = {}
        assigned = [(tuple(key.split(".")), value, "") for key, (_, value) in (options or {}).items()]
        for path, value, text in [*assigned, *((*_assignment(text), text) for text in overrides)]:
            _assign(raw, path, value)
            if path[:2] in Config.paths:
                _resolve_path(raw, path[:2], Path.cwd())
            given[path] = text
        # What an override replaced is told by the override.
        names = {key: name for key, (name, _) in (options or {}).items() if not given[tuple(key.split("."))]}
        return _validated(raw, lambda location: _override_place(given, location), names)

    def to_toml(self) -> str:
        """Return the config as a TOML file, every key written out; `load_config` reads it back equal."""
        sections = []
        for section, keys in self.model_dump().items():
            lines = [f"{key} = {toml_value(value)}" for key, value in keys.items() if value is not None]
            sections.append("\n".join([f"[{section}]", *lines]) + "\n")
        return "\n".join(sections)

    def to_commented_toml(self) -> str:
        """Return a TOML file with every key, what it is for, and its default.

        Keys that this config does not set are commented out, so that `load_config` reads back an equal config
        with the same keys set: some defaults depend on the data, such as the layers of a training on text.
        """
        sections = []
        for section, kind in _sections():
            given = getattr(self, section)
            lines = [f"[{section}]"]
            for key, field in kind.model_fields.items():
                words = field.description or ""
                if get_origin(field.annotation) is Literal:
                    words += f" One of {', '.join(_allowed((section, key)))}."
                lines += textwrap.wrap(words, 98, initial_indent="# ", subsequent_indent="#   ")
                lines.append(_commented_key(given, key, field))
            sections.append("\n".join(lines) + "\n")
        return "\n".join(sections)


def load_config(path: str | os.PathLike[str]) -> Config:
    """Read a config.

    Relative paths in it become absolute: they are relative to the file's own folder. A bare word that is no
    file there, such as ``train = "digits"``, stays a built-in's name.

    Parameters
    ----------
    path : path-like
        A TOML file.

    Raises
    ------
    FileError
        If the file cannot be read.
    ConfigError
        If it is not TOML, or a key or a value is wrong: the message names the file, the line and the mend.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(_LARGEST_FILE + 1)
    except OSError as error:
        raise FileError(f"{path}: cannot be read: {error.strerror or error}") from error
    if len(content) > _LARGEST_FILE:
        raise ConfigError(f"{path}: larger than 1 MiB, so it is not a config; pass data files as they are")
    text, raw = _parse(content, str(path))
    folder = Path(os.path.abspath(path)).parent
    lines = cache(lambda: _lines_of_keys(text))  # for the first mistake, and then for all of them
    config = _validated(raw, lambda location: _file_place(str(path), lines(), location))
    resolved = config.model_dump(exclude_unset=True)
    for key in Config.paths:
        _resolve_path(resolved, key, folder)
    return Config.model_validate(resolved)


def _parse(content: bytes, path: str) -> tuple[str, dict[str, Any]]:
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


def _resolve_path(raw: dict[str, Any], key: tuple[str, ...], folder: Path) -> None:
    """Make a path absolute, unless it is a bare word that may be a built-in's name."""
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
        homes = [section for section, kind in _sections() if path[0] in kind.model_fields]
        mend = f"write {homes[0]}.{path[0]}=..." if homes else "write section.key=value"
        raise ConfigError(f"--set {text}: the key's section is missing; {mend}")
    if not equals or not all(path):
        raise ConfigError(f"--set {text}: not of the form section.key=value, such as training.epochs=5")
    return path, value_from(value, f"--set {text}")


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


def _assign(raw: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    """Set a key in nested tables; a name that gets a parameter becomes a table with that name."""
    table = raw
    for depth, part in enumerate(path[:-1]):
        inner = table.get(part)
        if depth == 0:
            inner = inner if inner is not None else {}
        elif inner is None and depth == 1:
            kind = dict(_sections()).get(path[0])
            default = kind.model_fields[part].default if kind and part in kind.model_fields else None
            inner = {"name": default} if isinstance(default, str) else {}
        elif isinstance(inner, str):
            inner = {"name": inner}
        table[part] = dict(inner) if isinstance(inner, Mapping) else {}
        table = table[part]
    table[path[-1]] = value


def _sections() -> Iterator[tuple[str, type[_Section]]]:
    for name, item in Config.model_fields.items():
        section = item.annotation
        assert isinstance(section, type)
        assert issubclass(section, _Section)
        yield name, section


# --- mistakes in words ---


def _validated(
    raw: dict[str, Any],
    place: Callable[[tuple[str, ...]], tuple[int, str]],
    names: Mapping[str, str] | None = None,
) -> Config:
    """Return the config, or raise the first two mistakes, each on a line that begins with its place.

    A key is called by its name in `names`, where it has one there.
    """
    try:
        return Config.model_validate(raw)
    except ValidationError as error:
        mistakes: dict[str, tuple[int, str]] = {}
        for detail in islice(error.errors(include_url=False), _MOST_MISTAKES):
            location = tuple(part for part in detail["loc"] if isinstance(part, str))
            cause = detail.get("ctx", {}).get("error")
            if isinstance(cause, _KeyMistake):
                location = (*location, cause.key)
            order, where = place(location)
            mistake = _mistake(detail, location, (names or {}).get(".".join(location[:2]), ""))
            mistakes.setdefault(f"{where}{mistake[:_LONGEST_MISTAKE]}", (order, where))
        lines = sorted(mistakes, key=lambda line: mistakes[line][0])
        more = len(lines) - 2 + max(0, error.error_count() - _MOST_MISTAKES)
        shown = (
            [*lines[:1], f"{lines[1]} (and {more} more)" if more > 0 else lines[1]] if lines[1:] else lines
        )
        raise ConfigError("\n".join(shown)) from None


def _mistake(detail: ErrorDetails, location: tuple[str, ...], name: str = "") -> str:
    """Return what is wrong with a key, called by a name of its own if it has one, and what would be right."""
    key = name or ".".join(location)
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(location)
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        return f"{key} is a section: write [{key}] and its keys below it, not {key} = {_shown(value)}"
    if kind == "literal_error":
        allowed = _allowed(location)
        near = re.search("; did you mean .*?\\?", str(unknown_name("", str(value), allowed)))
        return f"{key} must be one of {', '.join(allowed)}, not {_shown(value)}{near[0] if near else ''}"
    if kind == "value_error":
        message = str(context.get("error", detail["msg"]))
        return f"{key} {message}" if message.startswith(("must", "has")) else f"{key}: {message}"
    element = "each element of " if any(isinstance(part, int) for part in detail["loc"]) else ""
    limits = {
        "greater_than_equal": "at least {ge}",
        "less_than_equal": "at most {le}",
        "greater_than": "greater than {gt}",
    }
    types = {"int": "a whole number", "float": "a number", "bool": "true or false", "list": "a list in [ ]"}
    numbers = {name: f"{limit:g}" if isinstance(limit, float) else limit for name, limit in context.items()}
    wanted = limits[kind].format(**numbers) if kind in limits else types.get(kind.split("_")[0], "")
    if kind == "finite_number":
        wanted = "a finite number"
    return f"{element}{key} must be {wanted}, not {_shown(value)}" if wanted else f"{key}: {detail['msg']}"


def _unknown_key(location: tuple[str, ...]) -> str:
    """Return what to write instead of a key that is not in the schema."""
    sections = dict(_sections())
    if len(location) == 1:
        homes = [name for name, kind in sections.items() if location[0] in kind.model_fields]
        if homes:
            return f"{location[0]} stands outside its section: write it below [{homes[0]}]"
        return str(unknown_name("section", location[0], sections))
    section, key = location[:2]
    homes = [name for name, kind in sections.items() if key in kind.model_fields]
    if homes:
        return f"{key} belongs to [{homes[0]}], not to [{section}]"
    return str(unknown_name("key", key, sections[section].model_fields, f"in [{section}]"))


def _allowed(location: tuple[str, ...]) -> tuple[str, ...]:
    return get_args(dict(_sections())[location[0]].model_fields[location[1]].annotation)


def _override_place(given: Mapping[tuple[str, ...], str], location: tuple[str, ...]) -> tuple[int, str]:
    """Return the order and the words for the override that a mistake is in."""
    for order, (path, text) in enumerate(given.items()):
        if path[: len(location)] == location or location[: len(path)] == path:
            return order, f"--set {text}: " if text else ""
    return len(given), "after the overrides, "


def _file_place(
    path: str, lines: Mapping[tuple[str, ...], int], location: tuple[str, ...]
) -> tuple[int, str]:
    """Return the order and the words for the line that a mistake is in."""
    for end in range(len(location), 0, -1):
        if location[:end] in lines:
            line = lines[location[:end]]
            return line, f"{path}, line {line}: "
    return 0, f"{path}: "


def _lines_of_keys(text: str) -> dict[tuple[str, ...], int]:
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


# --- writing ---


def _commented_key(section: _Section, key: str, field: FieldInfo) -> str:
    """Return a key with the value it has; commented out where it was not set."""
    value = section.model_dump()[key]
    if key in section.model_fields_set and value is not None:
        return f"{key} = {toml_value(value)}"
    if value is None:
        [value] = field.examples or [None]
    return f"# {key} = {toml_value(value)}"


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
