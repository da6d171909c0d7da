"""The embeddings for columns of text and categories, and the settings of a training on text."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from nnkit.data.examples import Dataset
from nnkit.data.operations import CategoryColumn, TextColumn
from nnkit.data.pictures.columns import Pictures
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.text.options import TextOptions
from nnkit.data.text.word_vectors import WordVectors, read_word_vectors
from nnkit.engine.places import parameter_name
from nnkit.errors import ConfigError, DataError
from nnkit.nn.layers import Embedding
from nnkit.runs.config import Config

__all__ = ["Embeddings", "plan_embeddings", "text_options", "with_text_defaults"]

_TEXT_WIDTH = 64
# On SMS spam a hidden layer gains nothing: the mean F1 of ten splits was 0.946 with 64 units at 3e-3, and
# 0.952 without hidden layers at 1e-2.
_TEXT_RATE = 1e-2


def text_options(config: Config, dataset: Dataset) -> TextOptions:
    """Return the options for columns of text."""
    text, columns = config.text, config.data.text
    chosen = None
    if columns is not None:
        keys = columns if isinstance(columns, list) else [columns]
        chosen = tuple(_feature_column(key, dataset) for key in keys)
    lengths = text.char_ngrams
    char_ngrams: Any = "auto" if lengths == "auto" else tuple(lengths) or None
    return TextOptions(
        chosen, text.word_ngrams, char_ngrams, text.min_count, text.vocabulary_size, text.hashing, text.tfidf
    )


def _feature_column(key: str | int, dataset: Dataset) -> str:
    """Return the name of a text column, given by name or number."""
    import numpy as np

    features = dataset.train.features
    if isinstance(features, np.ndarray | Pictures):
        kind = "an array" if isinstance(features, np.ndarray) else "pictures"
        raise ConfigError(f"data.text names a column, but these data are {kind}: give a table")
    from nnkit.data.messages import listed
    from nnkit.data.tables.frames import column_name

    name = column_name(key, dataset.columns)
    names = features.column_names
    if name not in names:
        raise DataError(
            f"data.text: column {name!r} is the target or left out; the features are {listed(names)}"
        )
    return name


def with_text_defaults(config: Config, notes: list[str]) -> Config:
    """Return the config of a training on text alone: keys that are not set get the defaults for text."""
    model, training, changed = config.model, config.training, []
    # A list of dropout rates is for the default hidden layers.
    if "hidden" not in model.given and not isinstance(model.dropout, list):
        model = model.changed(hidden=[])
        changed.append("no hidden layers")
    if not model.hidden and "learning_rate" not in training.given:
        training = training.changed(learning_rate=_TEXT_RATE)
        changed.append(f"learning_rate = {_TEXT_RATE:g}")
    if changed:
        notes.append(f"for text alone, unless set otherwise: {', '.join(changed)}")
    return replace(config, model=model, training=training)


@dataclass(frozen=True, eq=False)
class Embeddings:
    """The embedding layers in the order of the bags, and the word vectors to begin from, by parameter."""

    layers: list[Embedding] = field(default_factory=list)
    values: dict[str, WordVectors] = field(default_factory=dict)


def plan_embeddings(config: Config, preprocessor: Preprocessor, notes: list[str]) -> Embeddings:
    """Return an embedding for each column that becomes bags of ids; append to `notes`."""
    planned, text = Embeddings(), config.text
    if text.vectors is not None and not preprocessor.text_columns:
        raise ConfigError("text.vectors is given, but no column is text: name it in data.text")
    reduce = ("sum" if text.tfidf else "mean") if text.reduce == "auto" else text.reduce
    for number, (column, size) in enumerate(
        zip(preprocessor.embedded, preprocessor.embedding_sizes, strict=True)
    ):
        if isinstance(column, CategoryColumn):
            planned.layers.append(Embedding(size, config.data.category_width, "sum"))
            continue
        width = text.width or _TEXT_WIDTH
        if text.vectors is not None:
            vectors = _vectors(text.vectors, text.width, column, notes)
            width = vectors.width
            planned.values[parameter_name(number, "weight")] = vectors
        planned.layers.append(Embedding(size, width, reduce))
    return planned


def _vectors(path: str, width: int | None, column: TextColumn, notes: list[str]) -> WordVectors:
    found = read_word_vectors(Path(path), column.terms)
    if width is not None and width != found.width:
        raise ConfigError(
            f"text.width is {width}, and the vectors of {path} have {found.width}: leave it out"
        )
    # Row 0 of the table is for words that are not in the vocabulary.
    vectors = WordVectors(found.places + 1, found.vectors)
    words = sum(" " not in term for term in column.terms)
    share = 100 * len(found.places) / max(1, words)
    notes.append(
        f"{len(found.places):,} of the {words:,} words of {column.column!r} ({share:.1f} %) begin from "
        f"the vectors of width {found.width} in {Path(path).name}"
    )
    return vectors
