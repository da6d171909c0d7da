"""The readers: for each, how its input is made, and all that is done with a file that a user gives.

A file is not only read: what comes out is used as far as a training or a prediction would, for a file that
reads well and breaks the program later is the same to its user.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, lru_cache, partial
from pathlib import Path
from random import Random
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa

from hostile.array_files import idx_pair, npy_file, npz_file, split_pair
from hostile.picture_files import PICTURE_SEED, good_picture, picture_file, picture_list
from hostile.table_files import arrow_file, parquet_file
from hostile.tensor_files import TRAINED_ON, checkpoint_file, model_file, models, tensor_file, trainer
from hostile.text_files import (
    CONFIG_DATA,
    VECTOR_WORDS,
    delimited_file,
    findings_file,
    history_file,
    json_document_file,
    json_lines_file,
    messages_file,
    plain_text,
    toml_file,
    vectors_file,
)
from nnkit.data.operations import ArrayColumns, PictureColumns, PictureSettings
from nnkit.data.pictures.columns import PictureOptions
from nnkit.data.predictions import write_predictions
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.sources.loading import load_dataset
from nnkit.data.text.options import TextOptions
from nnkit.data.text.word_vectors import read_word_vectors
from nnkit.diagnostics.findings import read_findings
from nnkit.errors import NnkitError
from nnkit.insight.learning_plots import learning_plots
from nnkit.model import Model, load
from nnkit.nn.layers import Dense, Embedding
from nnkit.nn.network import Network
from nnkit.runs.config import Config, DataConfig, ModelConfig, RunConfig, TextConfig, load_config
from nnkit.runs.run import Run
from nnkit.tensorfile import read_tensors
from nnkit.training.history import History

__all__ = ["READERS", "Reader"]


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Parameters
    ----------
    name : str
    file : str
        The name of the file it reads.
    make : function of a Random
        Returns an input.
    use : function of the file's path
        Reads it and does what users do; raises what they would see.
    split : function, optional
        Parts an input into the files it stands for, by name.
    """

    name: str
    file: str
    make: Callable[[Random], bytes]
    use: Callable[[Path], None]
    split: Callable[[bytes], dict[str, bytes]] | None = None

    def input(self, seed: int, index: int) -> bytes:
        """Return the input of that number, the same each time."""
        return self.make(Random(f"{seed}/{self.name}/{index}"))

    def feed(self, data: bytes, folder: Path) -> NnkitError | None:
        """Write an input, use it, and return the NnkitError it ends with; another exception is raised."""
        for name, content in (self.split(data) if self.split else {self.file: data}).items():
            (folder / name).write_bytes(content)
        try:
            self.use(folder / self.file)
        except NnkitError as error:
            return error
        return None


class _Prepared(Exception):
    pass


def _stop(*arguments: object, **options: object) -> None:
    raise _Prepared


def _prepare(config: Config) -> None:
    """Do all that `nnkit train` does before the first step."""
    run = Run(config)
    run.trainer.fit = _stop  # type: ignore[method-assign, assignment]
    try:
        run.train()
    except _Prepared:
        run.resolved().to_toml()


@cache
def _table_model() -> Model:
    """Return a model of the columns that the tables of the inputs have."""
    features = pa.table({"a": [0.0, 1.0, 2.0], "b": [1.0, None, 4.0], "colour": ["red", "blue", "green"]})
    return _model(Preprocessor.fit(features))


@lru_cache(8)
def _array_model(columns: int) -> Model:
    return _model(Preprocessor((ArrayColumns(columns, True, 0.0, 0.5),)))


def _model(preprocessor: Preprocessor) -> Model:
    network = Network([Dense(1)], inputs=preprocessor.width)
    return Model(network, preprocessor, models()[0].target, models()[0].loss)


@cache
def _text_model(column: str) -> Model:
    texts = pa.table({column: [*VECTOR_WORDS, "free call", "free call"]})
    preprocessor = Preprocessor.fit(texts, text=TextOptions((column,), min_count=1, tfidf=True))
    network = Network([Embedding(preprocessor.embedding_sizes[0], 2), Dense(1)], inputs=0)
    return Model(network, preprocessor, models()[0].target, models()[0].loss)


def _use_texts(path: Path) -> None:
    """Train on labelled messages up to the first step, by buckets or a vocabulary; then predict from them."""
    failed: NnkitError | None = None
    for text in (TextConfig(hashing=16, tfidf=True), TextConfig(min_count=1)):
        data = DataConfig(train=str(path), target=0, validation=0.2, text=1, categories="embed")
        run = RunConfig(device="cpu", out=_run_folder(path))
        try:
            _prepare(Config(data=data, text=text, run=run))
        except NnkitError as error:
            failed = failed or error
    try:
        _text_model("1").predict(load_dataset(path, target="0", require_target=False).train.features)
    except NnkitError as error:
        failed = failed or error
    if failed is not None:
        raise failed


def _use_text_file(path: Path) -> None:
    """Predict from a folder that holds it; then train on it among others, up to the first step."""
    folder = path.with_name("folder")
    for label in ("one", "two"):
        (folder / label).mkdir(parents=True, exist_ok=True)
        for number in range(2):
            (folder / label / f"{number}.txt").write_text(f"free call number {number}")
    (folder / "one" / "x.txt").write_bytes(path.read_bytes())
    data = DataConfig(train=str(folder))
    _prepare(
        Config(data=data, text=TextConfig(min_count=1), run=RunConfig(device="cpu", out=_run_folder(path)))
    )
    _text_model("text").predict(load_dataset(folder / "one", require_target=False).train.features)


def _use_vectors(path: Path) -> None:
    """Read them, and begin a training from them."""
    read_word_vectors(path, VECTOR_WORDS)
    messages = path.with_name("messages.tsv")
    messages.write_text("".join(f"{row % 2}\tfree call number {row} now\n" for row in range(20)))
    data = DataConfig(train=str(messages), target=0, text=1)
    config = Config(
        data=data, text=TextConfig(vectors=str(path)), run=RunConfig(device="cpu", out=_run_folder(path))
    )
    run = Run(config)
    run.begin_from_vectors()


def _use_data(path: Path, target: int | str | None, placement: Any = "auto") -> None:
    """Train on it up to the first step; then predict from it."""
    failed: NnkitError | None = None
    data = DataConfig(train=str(path), target=target, validation=0.2)
    run = RunConfig(device="cpu", out=_run_folder(path), data_placement=placement)
    config = Config(data=data, model=ModelConfig(hidden=[2]), run=run)
    for use in (lambda: _prepare(config), lambda: _predict_from(path)):
        try:
            use()
        except NnkitError as error:
            failed = failed or error
    if failed is not None:
        raise failed


def _run_folder(path: Path) -> str:
    """Return the folder that a training from this file locks: beside it, not where the tests are run."""
    return str(path.with_name("run"))


def _predict_from(path: Path) -> None:
    features = load_dataset(path, target="target", require_target=False).train.features
    model = _array_model(features.shape[1]) if isinstance(features, np.ndarray) else _table_model()
    model.predict(features)


def _use_model(path: Path) -> None:
    """Read it, describe it, predict with it, write the predictions, and save it again."""
    model = load(path)
    model.summary()
    rows: Any = np.array([[1] * model.preprocessor.width, [0] * model.preprocessor.width], dtype=np.uint8)
    if model.preprocessor.input_names is not None:
        columns = [
            [1.5, None] if kind == "number" else [0, 1] if kind == "time" else ["red", None]
            for kind in (getattr(operation, "kind", "text") for operation in model.preprocessor.operations)
        ]
        arrays = [
            pa.array(column, pa.timestamp("s")) if column == [0, 1] else pa.array(column)
            for column in columns
        ]
        rows = pa.Table.from_arrays(arrays, names=list(model.preprocessor.input_names))
    labels = model.predict(rows)
    outputs = [labels] if model.task == "regression" else [labels, model.predict_proba(rows)]
    for values in outputs:
        for suffix in (".csv", ".npy"):
            write_predictions(
                values, model.target, values is not labels, path.with_name(f"predictions{suffix}")
            )
    if all(math.isfinite(value) for value in np.ravel(outputs[-1]).tolist() if isinstance(value, float)):
        model.evaluate(rows, labels)
    model.save(path.with_name("again.safetensors"))
    load(path.with_name("again.safetensors"))


@cache
def _picture_model() -> Model:
    scaled = ((100.0,) * 3, (0.02,) * 3)
    return _model(Preprocessor((PictureColumns(PictureSettings(5, 4, 3, "pad"), *scaled),)))


def _use_picture(path: Path) -> None:
    """Predict it; then train on it among others, up to the first step."""
    settings = _picture_model().preprocessor.pictures
    assert settings is not None
    options = PictureOptions(settings)
    pictures = load_dataset(path, require_target=False, pictures=options).train.features
    _picture_model().predict(pictures)
    if path.suffix == ".txt":
        return
    for label, count in (("one", 2), ("two", 3)):
        folder = path.with_name("classes") / label
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(count):
            (folder / f"{number}.png").write_bytes(good_picture())
    (path.with_name("classes") / "one" / path.name).write_bytes(path.read_bytes())
    data = DataConfig(train=str(path.with_name("classes")), image_size=[5, 4], on_bad="skip")
    model, run = ModelConfig(hidden=[2]), RunConfig(device="cpu", out=_run_folder(path))
    # What is decoded is kept, and there are many inputs.
    with patch.dict(os.environ, NNKIT_CACHE=str(path.with_name("cache"))):
        _prepare(Config(data=data, model=model, run=run))


def _use_picture_list(path: Path) -> None:
    path.with_name(PICTURE_SEED).write_bytes(good_picture())
    _use_picture(path)


def _use_tensors(path: Path) -> None:
    tensors, metadata = read_tensors(path, "some.kind", 1)
    assert all(isinstance(name, str) for name in (*tensors, *metadata))
    for array in tensors.values():
        array.tobytes()


def _use_checkpoint(path: Path) -> None:
    """Go on with the trainings, for an epoch."""
    errors = []
    for number in range(2):
        try:
            trainer(number).resume(path, *TRAINED_ON, epochs=3, validation=0.25)
        except NnkitError as error:
            errors.append(error)
    if len(errors) == 2:
        raise errors[0]


def _use_config(path: Path) -> None:
    """Read it, write it, read that, and prepare a training with it, on a table of a few rows."""
    config = load_config(path)
    text = config.to_toml()
    again = path.with_name("again.toml")
    again.write_text(text, encoding="utf-8")
    assert load_config(again) == config
    data = path.with_name(CONFIG_DATA)
    if not data.exists():
        data.write_text("a,b,colour,when,target\n" + "1,2,red,5,yes\n2,1,blue,7,no\n3,1.5,red,6,yes\n" * 10)
    changes = {
        key: str(data)
        for key in ("train", "test", "validation")
        if isinstance(getattr(config.data, key), str)
    }
    config = replace(
        config,
        data=config.data.changed(**{**changes, "train": str(data)}),
        run=config.run.changed(out=_run_folder(path)),
    )
    _prepare(config)


def _use_history(path: Path) -> None:
    history = History.from_jsonl(path)
    repr(history)
    for column in history.columns:
        history[column].tolist()
    assert History.from_json(history.to_json()) == history
    history.write_jsonl(path.with_name("again.jsonl"))
    if len(history):
        for plot in learning_plots(history):
            plot.description.encode("utf-8", "replace")


def _use_findings(path: Path) -> None:
    for finding in read_findings(path)[0]:
        repr(finding).encode()


_IDX = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte")

READERS: dict[str, Reader] = {
    reader.name: reader
    for reader in (
        Reader("model", "model.safetensors", model_file, _use_model),
        Reader("checkpoint", "checkpoint.safetensors", checkpoint_file, _use_checkpoint),
        Reader("tensorfile", "tensors.safetensors", tensor_file, _use_tensors),
        Reader(
            "idx",
            _IDX[0],
            idx_pair,
            partial(_use_data, target=None),
            lambda data: dict(zip(_IDX, split_pair(data), strict=True)),
        ),
        Reader("npy", "data.npy", npy_file, partial(_use_data, target=-1)),
        Reader("mapped npy", "data.npy", npy_file, partial(_use_data, target=-1, placement="mmap")),
        Reader("npz", "data.npz", npz_file, partial(_use_data, target=None)),
        Reader("csv", "data.csv", delimited_file, partial(_use_data, target=-1)),
        Reader("tsv", "data.tsv", partial(delimited_file, delimiter="\t"), partial(_use_data, target=-1)),
        Reader("messages", "data.tsv", messages_file, _use_texts),
        Reader("jsonl", "data.jsonl", json_lines_file, partial(_use_data, target="target")),
        Reader("json", "data.json", json_document_file, partial(_use_data, target="target")),
        Reader("text file", "text.txt", plain_text, _use_text_file),
        Reader("word vectors", "vectors.txt", vectors_file, _use_vectors),
        Reader("parquet", "data.parquet", parquet_file, partial(_use_data, target=-1)),
        Reader("arrow", "data.arrow", arrow_file, partial(_use_data, target=-1)),
        Reader("toml", "config.toml", toml_file, _use_config),
        Reader("picture", "picture.png", picture_file, _use_picture),
        Reader("picture_list", "pictures.txt", picture_list, _use_picture_list),
        Reader("history", "metrics.jsonl", history_file, _use_history),
        Reader("findings", "findings.json", findings_file, _use_findings),
    )
}
