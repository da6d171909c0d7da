"""The sections of a config: each key declared once, with its check, default and help.

What `Trainer` or the reading of a table has under the same name is taken over from there. Order: what all
sections share, then ``[data]``, ``[text]``, ``[model]``, ``[training]`` and ``[run]``. Commands print their
help from here, so NumPy is imported only where a method needs it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, Self, get_args

from nnkit.checks import Choice, Flag, ListOf, Number, Settings, Whole, setting, setting_like, settings_of
from nnkit.data.limits import PICTURE_FITS
from nnkit.data.tables.options import COLUMN, TableOptions
from nnkit.data.text.options import MOST_WORDS
from nnkit.runs import keys
from nnkit.runs.keys import KeyMistake
from nnkit.runs.toml import shown_value
from nnkit.training.periods import Period
from nnkit.training.settings import TrainingSettings

if TYPE_CHECKING:
    from nnkit.data.pictures.columns import PictureOptions
    from nnkit.nn.schedules import Schedule

__all__ = ["SECTIONS", "DataConfig", "ModelConfig", "RunConfig", "Section", "TextConfig", "TrainingConfig"]

_MOST = 2**31 - 1
_WIDEST_EMBEDDING = 2**16

Task = Literal["auto", "classification", "binary", "multiclass", "multilabel", "regression"]
Scaling = Literal["auto", "standardize", "robust", "unit", "none"]
Categories = Literal["auto", "onehot", "embed"]
TargetTransform = Literal["none", "log", "quantile"]
OnBad = Literal["error", "skip"]
Reduce = Literal["auto", "mean", "sum", "max"]
Numbers = Literal["auto", "linear", "piecewise", "periodic"]
Preset = Literal["fast", "default", "best"]
EnsembleKind = Literal["seeds", "tabm"]


@dataclass(frozen=True, kw_only=True)
class Section(Settings):
    """A section of a config; a mistake in it raises `ConfigError`. `given` are the keys that were set."""

    given: frozenset[str] = field(default=frozenset(), init=False, compare=False, repr=False)

    def __new__(cls, **values: Any) -> Self:
        section = super().__new__(cls)
        object.__setattr__(section, "given", frozenset(values))
        return section

    def __post_init__(self) -> None:
        self._check(self.given)  # a default is as it should be, and may need NumPy to be checked
        for key, message in self.conflicts():
            raise KeyMistake(key, message)

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield the keys that do not go with others, and what is wrong with each."""
        return iter(())

    def changed(self, **values: Any) -> Self:
        """Return the section with other values of some keys, which then count as set."""
        return type(self)(**{**{key: getattr(self, key) for key in self.given}, **values})

    def values(self, *, given_only: bool = False) -> dict[str, Any]:
        """Return the section as TOML has it: all keys, or those that were given."""
        names = (name for name in settings_of(type(self)) if not given_only or name in self.given)
        values = ((name, getattr(self, name)) for name in names)
        return {name: str(value) if isinstance(value, Period) else value for name, value in values}


# A resume compares the data's content: they may have been moved or written again.
_data = partial(setting, must_match=False)
_of_tables = partial(setting_like, TableOptions)


@dataclass(frozen=True, kw_only=True)
class DataConfig(Section):
    """[data]: what to train on."""

    train: str | list[str] | None = _data(
        None,
        keys.SOURCES,
        "What to train on: a file, a folder, a built-in's name, or a list of parts.",
        "digits",
    )
    validation: float | str = _data(
        0.1, keys.SHARE_OR_FILE, "The share of the rows to hold out, 0 for none, or a file to validate on."
    )
    test: str | None = _data(None, keys.TEXT, "A file to measure the trained model on.", "test.csv")
    target: str | int | list[str | int] | None = _data(
        None, keys.SOME_COLUMNS, "The column to predict, by name or number, or a list of several.", "price"
    )
    features: str | int | list[str | int] | None = _data(
        None,
        keys.SOME_COLUMNS,
        "The columns to learn from; without it, all but the target.",
        ["rooms", "area"],
    )
    drop: str | int | list[str | int] | None = _data(None, keys.COLUMNS, "Columns to leave out.", ["id"])
    task: Task = _data(
        "auto", Choice(get_args(Task)), "What kind of target it is; auto follows from its values."
    )
    positive: str | int | float | bool | None = _data(
        None,
        keys.LABEL,
        "The class of two that precision, recall, F1 and the threshold are of; without it, the second in "
        "sorted order.",
        "yes",
    )
    target_transform: TargetTransform = _data(
        "none",
        Choice(get_args(TargetTransform)),
        "What a regression learns of its target: its logarithm, or its normal score by the quantiles of the "
        "training rows; predictions are in the target's own units.",
    )
    clamp_predictions: bool = _data(
        False, Flag(), "Whether a regression's predictions are clamped to the range of the training rows."
    )
    weight: str | int | None = _of_tables("weight")
    index: str | int | None = _of_tables("index")
    types: Mapping[str, str] | None = _of_tables("types", default=None)
    missing: list[str] | None = _of_tables("missing", check=keys.WORDS, example=["-999", "n/a"])
    missing_flags: bool = _data(
        True,
        Flag(),
        "Whether a number with missing values has another input, which is 1 where it is missing.",
    )
    separator: str | None = _of_tables("separator")
    header: str | int | None = _of_tables(
        "header",
        check=keys.HEADER,
        help='Whether a text file names its columns, "yes" or "no", or the row that does, from 0.',
        example="no",
    )
    skip_rows: int = _of_tables("skip_rows")
    comment: str | None = _of_tables("comment")
    quote: str | None = _of_tables("quote")
    encoding: str | None = _of_tables("encoding")
    decimal: str | None = _of_tables("decimal")
    thousands: str | None = _of_tables("thousands")
    scaling: Scaling = _data(
        "auto",
        Choice(get_args(Scaling)),
        "How numbers and pixels are scaled; unit divides pixels by 255, robust is for tables.",
    )
    text: str | int | list[str | int] | None = _data(
        None,
        keys.COLUMNS,
        "The columns that are text, [] for none; without it, they are found by their values.",
        ["body"],
    )
    categories: Categories = _data(
        "auto",
        Choice(get_args(Categories)),
        "Whether a category is one-hot inputs or has a vector that is learnt; auto takes one-hot inputs for "
        "up to 50 values, missing ones included.",
    )
    category_width: int = _data(8, Whole(1, _WIDEST_EMBEDDING), "The width of those vectors.")
    image_size: int | list[int] | None = _data(
        None, keys.IMAGE_SIZE, "The side of pictures in pixels, or [height, width]; without it, 64.", [48, 64]
    )
    image_fit: Literal["crop", "pad", "stretch"] = _data(
        "crop", Choice(PICTURE_FITS), "How a picture of another shape is made to fit."
    )
    grayscale: bool = _data(False, Flag(), "Whether pictures lose their colours.")
    image_column: str | int | None = _data(
        None, COLUMN, "The column of a table that holds the paths of pictures.", "path"
    )
    on_bad: OnBad = _data(
        "error", Choice(get_args(OnBad)), "What to do with a picture or a file of text that cannot be read."
    )
    augment: dict[str, Any] | None = setting_like(
        TrainingSettings, "augment", check=keys.AUGMENT, must_match=False
    )

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.thousands is not None and self.thousands == self.decimal:
            yield "thousands", f"must differ from decimal, which is {shown_value(self.thousands)} too"

    def table(self) -> TableOptions:
        """Return how a table is read."""
        options = {name: getattr(self, name) for name in settings_of(TableOptions)}
        if isinstance(self.header, str):
            options["header"] = self.header == "yes"
        missing = None if self.missing is None else tuple(self.missing)
        return TableOptions(**{**options, "missing": missing, "types": self.types or {}})

    def pictures(self) -> PictureOptions:
        """Return how a source of pictures is read."""
        from nnkit.data.pictures.columns import PictureOptions, PictureSettings

        settings = PictureSettings(channels=1 if self.grayscale else 3, fit=self.image_fit)
        if self.image_size is not None:
            sides = self.image_size if isinstance(self.image_size, list) else [self.image_size]
            settings = replace(settings, height=sides[0], width=sides[-1])
        return PictureOptions(settings, self.on_bad, self.image_column)


@dataclass(frozen=True, kw_only=True)
class TextConfig(Section):
    """[text]: what is learnt from columns of text.

    A training on text alone has other defaults of [model] and [training].
    """

    word_ngrams: int = setting(
        2,
        Whole(1, MOST_WORDS),
        "The maximum number of consecutive words that make a term (fastText's wordNgrams).",
    )
    char_ngrams: str | list[int] = setting(
        "auto",
        keys.CHAR_NGRAMS,
        "The shortest and longest run of characters that makes a term (fastText's minn, maxn), [] for none; "
        "auto takes [3, 5] for up to about 2 million tokens, else none.",
    )
    min_count: int = setting(
        2, Whole(1, _MOST), "How often a term must occur in the training rows (fastText's minCount)."
    )
    vocabulary_size: int = setting(
        100_000,
        Whole(1, 2**24),
        "The maximum number of terms, the most frequent ones (scikit-learn's max_features).",
    )
    hashing: int = setting(
        0,
        Whole(0, 2**24),
        "The number of buckets that terms are hashed into; 0 keeps a vocabulary (fastText's bucket).",
    )
    tfidf: bool = setting(False, Flag(), "Whether terms are weighted by TF-IDF.")
    width: int | None = setting(
        None,
        Whole(1, _WIDEST_EMBEDDING),
        "The width of a term's vector; without it, 64, or the width of `vectors`.",
        64,
    )
    reduce: Reduce = setting(
        "auto",
        Choice(get_args(Reduce)),
        "How a document's vectors become one; auto is the mean, or with TF-IDF the sum.",
    )
    vectors: str | None = setting(
        None,
        keys.TEXT,
        "A file of word vectors to begin from, in word2vec's or GloVe's format.",
        "glove.6B.100d.txt",
    )

    def conflicts(self) -> Iterator[tuple[str, str]]:
        if self.reduce == "max" and self.tfidf:
            yield "reduce", "must be mean or sum where tfidf weights the terms, not max"
        if self.vectors is not None and self.hashing:
            yield "vectors", "must be left out where terms are hashed: a bucket is no word"


@dataclass(frozen=True, kw_only=True)
class ModelConfig(Section):
    """[model]: the network."""

    hidden: list[int] = setting(
        [256, 128],
        ListOf(Whole(1, 2**24), most=1000),
        "The widths of the hidden layers; [] for a linear model.",
    )
    numbers: Numbers = setting(
        "auto",
        Choice(get_args(Numbers)),
        "How the network reads numbers: as they are, also by their bins, or also by learnt waves; auto is "
        "piecewise for tables.",
    )
    bins: int = setting(16, Whole(1, 1024), "The maximum number of bins of a column.")
    activation: str = setting("relu", keys.ACTIVATION, "The activation of the hidden layers.")
    dropout: float | list[float] = setting(
        0.0,
        keys.DROPOUT,
        "The share of each hidden layer's units to drop while training, or a list with one for each.",
    )
    initializer: str | dict[str, Any] = setting(
        "auto", keys.INITIALIZER, "How weights begin; auto takes the activation's own."
    )
    output: str = setting(
        "auto", keys.TEXT, "The activation of the output layer; auto leaves it to the loss."
    )
    ensemble: int = setting(
        1,
        Whole(1, 1024),
        "The members of an ensemble, which are trained at once and average their predictions; 1 for none.",
    )
    ensemble_kind: EnsembleKind = setting(
        "seeds",
        Choice(get_args(EnsembleKind)),
        "Whether members have all weights of their own, or as in TabM share those of the hidden layers.",
    )

    pretrained: str | None = setting(
        None,
        keys.TEXT,
        "A model file or run to start from. Its network and preprocessing are kept; categories and classes "
        "that it does not know are added.",
        "runs/old",
    )
    replace_head: bool = setting(
        False, Flag(), "Whether the last layer of the model to start from is new, for any target."
    )
    refit_scaling: bool = setting(
        False, Flag(), "Whether the numbers are scaled as they are in these rows, not as that model does."
    )

    def conflicts(self) -> Iterator[tuple[str, str]]:
        for name in ("replace_head", "refit_scaling"):
            if getattr(self, name) and self.pretrained is None:
                yield name, "is for a model to start from: give one as `pretrained`"
        for name in settings_of(ModelConfig) if self.pretrained is not None else ():
            own = ("pretrained", "replace_head", "refit_scaling")
            if name not in own and getattr(self, name) != settings_of(ModelConfig)[name].default:
                yield name, "follows from the model to start from: leave it out"
        if isinstance(self.dropout, list) and len(self.dropout) != len(self.hidden):
            yield "dropout", f"has {len(self.dropout)} rates for {len(self.hidden)} hidden layers"


_like = partial(setting_like, TrainingSettings)


@dataclass(frozen=True, kw_only=True)
class TrainingConfig(Section):
    """[training]: how the network learns.

    Keys declared by `setting` are short forms of entries in the tables `optimizer` and `schedule`.
    """

    preset: Preset = setting(
        "default",
        Choice(get_args(Preset)),
        "For a table: how long the settings that are not given may take. fast trains one network, default an "
        "ensemble of four, best one of eight.",
    )
    epochs: int = _like("epochs", check=Whole(1, _MOST))
    batch_size: int = _like("batch_size")
    optimizer: str | dict[str, Any] = _like("optimizer", check=keys.OPTIMIZER)
    learning_rate: float | dict[str, float] = setting(
        1e-3,
        keys.RATE,
        "The base learning rate, or a table of rates: of the head (the last layer), the rest, or layers by "
        "name.",
    )
    schedule: str | dict[str, Any] = _like("schedule", default="cosine", check=keys.SCHEDULE)
    dropout_schedule: str | dict[str, Any] = _like("dropout_schedule", check=keys.SCHEDULE)
    weight_decay_schedule: str | dict[str, Any] = _like("weight_decay_schedule", check=keys.SCHEDULE)
    warmup: int | Period = setting(
        0,
        keys.WARMUP,
        'Over how many steps, or such as "2 epochs", the learning rate rises at the beginning.',
    )
    loss: str | dict[str, Any] = _like(
        "loss", default="auto", check=keys.LOSS, help="What is minimized; auto takes the task's own."
    )
    class_weight: str | dict[str, float] | None = _like("class_weight", check=keys.CLASS_WEIGHT)
    weight_decay: float = setting(0.0, Number(0), "The decoupled weight decay; unless set, adamw takes 0.01.")
    l1: float = _like("l1")
    l2: float = _like("l2")
    clip_norm: float | None = _like("clip_norm")
    groups: dict[str, dict[str, Any]] | None = _like("groups")
    freeze: list[str] = setting(
        [],
        ListOf(keys.TEXT, most=1000),
        "What is not trained: rest for all but the last layer, head for that one, or layers by name.",
        ["rest"],
    )
    early_stopping: int = _like(
        "early_stopping",
        default=0,
        check=Whole(0, _MOST),
        help="Stop after so many epochs without improvement; 0 for never.",
    )
    cooldown: float = _like("cooldown")
    monitor: str | None = _like("monitor", check=keys.METRIC)
    restore_best: bool = _like("restore_best", default=True)
    metrics: list[str] = _like(
        "metrics",
        default=[],
        check=ListOf(keys.METRIC, most=100),
        help='The metrics to measure, such as ["accuracy", "log_loss"]; [] for the task\'s own.',
    )

    def conflicts(self) -> Iterator[tuple[str, str]]:
        """Yield the keys that do not go with others, and what is wrong with each."""
        table = self.schedule if isinstance(self.schedule, dict) else {}
        if self.warmup and not {"warmup", "warmup_epochs"}.isdisjoint(table):
            yield "warmup", "has been given in the schedule's table too; keep one of them"

    @property
    def base_rate(self) -> float:
        """The learning rate of what `parameter_groups` gives no other."""
        rates = self.learning_rate
        return rates.get("rest", max(rates.values())) if isinstance(rates, dict) else rates

    @property
    def parameter_groups(self) -> dict[str, dict[str, Any]] | None:
        """`groups`, with those of a table of learning rates and of `freeze`."""
        found = {name: dict(group) for name, group in (self.groups or {}).items()}
        rates = self.learning_rate if isinstance(self.learning_rate, dict) else {}
        for name, rate in rates.items():
            found.setdefault(name, {})["rate"] = rate / self.base_rate
        for name in self.freeze:
            found.setdefault(name, {})["trains"] = False
        return found or None

    def schedule_with_warmup(self) -> Schedule:
        """Return the schedule with its warm-up, as the trainer takes it."""
        from nnkit.nn.schedules import schedule_from

        options: dict[str, Any] = (
            {"name": self.schedule} if isinstance(self.schedule, str) else dict(self.schedule)
        )
        if isinstance(self.warmup, Period):
            options["warmup_epochs"] = self.warmup.value
        elif self.warmup:
            options["warmup"] = self.warmup
        return schedule_from(options)


_free = partial(setting, must_match=False)


@dataclass(frozen=True, kw_only=True)
class RunConfig(Section):
    """[run]: where and how it runs."""

    device: str = _like("device", check=keys.DEVICE)
    precision: str = _like("precision")
    seed: int = _like("seed")
    out: str | None = _free(
        None, keys.TEXT, "The run's folder; without it, one is named in runs/.", "runs/mine"
    )
    checkpoint_every: Period | None = _free(
        None,
        keys.PERIOD,
        "How often to write a checkpoint; without it, after each epoch (at most one a second) and every 5 "
        "minutes.",
        "10 minutes",
    )
    checkpoint_keep: int = _free(3, Whole(1), "How many of the newest checkpoints to keep while training.")
    keep_checkpoints: bool = _free(
        False,
        Flag(),
        "Whether to keep them when the training is finished, so that it can be resumed for more epochs.",
    )
    data_placement: str = _like("data_placement")
    diagnostics: bool = _free(
        True, Flag(), "Whether to look for what is wrong with the data, the settings and the training."
    )


SECTIONS: Mapping[str, type[Section]] = {
    "data": DataConfig,
    "text": TextConfig,
    "model": ModelConfig,
    "training": TrainingConfig,
    "run": RunConfig,
}
