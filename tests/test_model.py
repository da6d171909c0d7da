"""A trained model and its file: what is saved comes back, and nothing else is taken for a model."""

from __future__ import annotations

import copy
import hashlib
import json
import pickle
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from safetensors import safe_open
from scipy import sparse, special
from sklearn import metrics

from nnkit import Dense, Dropout, Embedding, MLPClassifier, Model, Network, Trainer, load, load_dataset
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.data.text.options import TextOptions
from nnkit.errors import ConfigError, DataError, FileError, ModelFileError, NnkitError
from nnkit.feed.features import Bags, Features
from nnkit.insight.attributions import integrated_gradients
from nnkit.nn.layers import Layer
from nnkit.nn.links import averaged_outputs
from nnkit.nn.losses import loss_from
from nnkit.runs.config import Config
from nnkit.runs.run import Run
from nnkit.tensorfile import read_tensors, write_tensors


def trained(tmp_path: Path, source: str, *settings: str) -> Run:
    quick = ["training.epochs=4", "training.batch_size=16", "model.hidden=[4]", f"run.out={tmp_path / 'run'}"]
    run = Run(Config().with_overrides([f"data.train={source}", *quick, *settings]))
    run.train()
    return run


def untrained(features: Any, target: NDArray, loss: str, seed: int = 0) -> Model:
    """Return a model that guesses: what it says is wrong, and what is said of it must be right."""
    preprocessor = Preprocessor.fit(features)
    encoder = TargetEncoder.fit(target)
    network = Network([Dense(5, "tanh"), Dense(encoder.outputs)], inputs=preprocessor.width, seed=seed)
    return Model(network, preprocessor, encoder, loss_from(loss))


@pytest.fixture(scope="module")
def iris(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("iris")
    trained(folder, "iris")
    return folder / "run" / "model.safetensors"


def features_and_target(name: str) -> tuple[Any, NDArray]:
    examples = load_dataset(name).train
    assert examples.target is not None
    return examples.features, examples.target


# --- saving and loading ---


@pytest.mark.parametrize(
    ("source", "settings"),
    [
        ("iris", ()),
        ("digits", ("model.dropout=0.3", "training.learning_rate=0.01")),
        ("breast_cancer", ("run.precision=fp64", "run.device=cpu")),
        ("diabetes", ("training.loss={name='huber', delta=0.5}",)),
        ("diabetes", ("run.precision=fp64", "run.device=cpu", "training.loss=poisson")),
    ],
)
def test_a_loaded_model_is_the_saved_one_bit_for_bit(
    source: str, settings: tuple[str, ...], tmp_path: Path
) -> None:
    run = trained(tmp_path, source, *settings)
    model, loaded = run.model, load(run.folder / "model.safetensors")
    X = run.dataset.train.features
    assert loaded.network.layers == model.network.layers
    assert loaded.loss == model.loss
    assert loaded.details == model.details
    before, after = model.network.parameters(), loaded.network.parameters()
    assert before.keys() == after.keys()
    for name in before:
        assert before[name].dtype == after[name].dtype == run.trainer.dtype
        assert before[name].tobytes() == after[name].tobytes()
    assert loaded.predict(X).tobytes() == model.predict(X).tobytes()
    assert loaded.predict(X).dtype == model.predict(X).dtype
    if model.task != "regression":
        assert loaded.predict_proba(X).tobytes() == model.predict_proba(X).tobytes()
    loaded.save(tmp_path / "again.safetensors")
    assert load(tmp_path / "again.safetensors").predict(X).tobytes() == model.predict(X).tobytes()


def test_float64_predictions_need_float64_parameters(tmp_path: Path) -> None:
    run = trained(
        tmp_path,
        "diabetes",
        "run.precision=fp64",
        "run.device=cpu",
        "model.numbers=linear",
        "model.activation=relu",
    )
    loaded = load(run.folder / "model.safetensors")
    parameters = loaded.network.parameters()
    X = loaded.preprocessor.transform(run.dataset.train.features).dense
    assert X is not None
    assert X.dtype == np.float64
    hidden = np.maximum(X @ parameters["layers.0.weight"] + parameters["layers.0.bias"], 0)
    outputs = hidden @ parameters["layers.1.weight"] + parameters["layers.1.bias"]
    np.testing.assert_allclose(loaded.outputs(run.dataset.train.features), outputs, rtol=0, atol=1e-13)


@pytest.mark.parametrize(
    "labels",
    [["no", "yes"], ["a", "b", "ç"], [False, True], [0.5, 1.5, 2.0], [-3, 7], ["0", "1"]],
)
def test_labels_keep_their_type_through_the_file(labels: list[Any], tmp_path: Path) -> None:
    target = np.array((labels * 10)[:30])
    X = np.random.default_rng(0).normal(size=(30, 3))
    preprocessor, encoder = (
        Preprocessor.fit(X),
        TargetEncoder.fit(target, "auto" if len(labels) == 2 else "multiclass"),
    )
    network = Network([Dense(encoder.outputs)], inputs=3)
    loss = loss_from("binary_cross_entropy" if encoder.task == "binary" else "cross_entropy")
    Model(network, preprocessor, encoder, loss).save(tmp_path / "m.safetensors")
    predicted = load(tmp_path / "m.safetensors").predict(X)
    assert set(predicted.tolist()) <= set(labels)
    assert {type(label) for label in predicted.tolist()} == {type(labels[0])}


def test_saving_anew_replaces_the_file_whole(iris: Path, tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    path.write_bytes(b"something else")
    load(iris).save(path)
    assert list(tmp_path.iterdir()) == [path]
    assert load(path).task == "multiclass"


# --- measuring ---


def test_multiclass_metrics_are_those_of_scikit_learn() -> None:
    X, y = features_and_target("digits")
    model = untrained(X, y, "cross_entropy")
    predicted, proba, found = model.predict(X), model.predict_proba(X), model.evaluate(X, y)
    expected = {
        "accuracy": metrics.accuracy_score(y, predicted),
        "top_5_accuracy": metrics.top_k_accuracy_score(y, proba, k=5),
        "log_loss": metrics.log_loss(y, proba),
        "balanced_accuracy": metrics.balanced_accuracy_score(y, predicted),
        "f1": metrics.f1_score(y, predicted, average="macro", zero_division=0),
        "precision": metrics.precision_score(y, predicted, average="macro", zero_division=0),
        "recall": metrics.recall_score(y, predicted, average="macro", zero_division=0),
        "roc_auc": metrics.roc_auc_score(y, proba, multi_class="ovr"),
    }
    assert found == pytest.approx(expected, rel=1e-9)


def test_binary_metrics_are_those_of_scikit_learn() -> None:
    X, y = features_and_target("breast_cancer")
    names = np.array(["benign", "malign"])[y]
    model = untrained(X, names, "binary_cross_entropy", seed=3)
    predicted, proba = model.predict(X), model.predict_proba(X)
    weight = np.random.default_rng(0).uniform(size=len(y))
    expected = {
        "accuracy": metrics.accuracy_score(names, predicted, sample_weight=weight),
        "log_loss": metrics.log_loss(names, proba, sample_weight=weight),
        "balanced_accuracy": metrics.balanced_accuracy_score(names, predicted, sample_weight=weight),
        "f1": metrics.f1_score(names, predicted, pos_label="malign", sample_weight=weight),
        "precision": metrics.precision_score(names, predicted, pos_label="malign", sample_weight=weight),
        "recall": metrics.recall_score(names, predicted, pos_label="malign", sample_weight=weight),
        "roc_auc": metrics.roc_auc_score(y, proba[:, 1], sample_weight=weight),
    }
    assert model.evaluate(X, names, sample_weight=weight) == pytest.approx(expected, rel=1e-9)


def test_regression_metrics_are_those_of_scikit_learn() -> None:
    X, y = features_and_target("diabetes")
    for loss in ("mse", "poisson"):
        model = untrained(X, y, loss)
        predicted = model.predict(X)
        expected = {
            "r2": metrics.r2_score(y, predicted),
            "rmse": metrics.root_mean_squared_error(y, predicted),
            "mae": metrics.mean_absolute_error(y, predicted),
        }
        assert model.evaluate(X, y) == pytest.approx(expected, rel=1e-9)


def test_regression_values_are_the_outputs_in_the_targets_units() -> None:
    X, y = features_and_target("diabetes")
    model = untrained(X, y, "mse")
    outputs = model.outputs(X)[:, 0].astype(np.float64)
    np.testing.assert_allclose(model.predict(X), outputs * y.std() + y.mean(), rtol=1e-12)
    model.loss = loss_from("poisson")
    np.testing.assert_allclose(model.predict(X), np.exp(outputs) * y.std() + y.mean(), rtol=1e-12)


def test_multilabel_metrics_are_those_of_scikit_learn() -> None:
    generator = np.random.default_rng(0)
    X, Y = generator.normal(size=(80, 3)), generator.integers(0, 2, (80, 4))
    model = untrained(X, Y, "binary_cross_entropy")
    predicted, proba = model.predict(X), model.predict_proba(X)
    assert model.task == "multilabel"
    assert predicted.shape == proba.shape == (80, 4)
    found = model.evaluate(X, Y, ["accuracy", "f1", "roc_auc"])
    assert found == pytest.approx(
        {
            "accuracy": metrics.accuracy_score(Y, predicted),
            "f1": metrics.f1_score(Y, predicted, average="macro", zero_division=0),
            "roc_auc": metrics.roc_auc_score(Y, proba, average="macro"),
        },
        rel=1e-9,
    )


def test_the_threshold_moves_a_binary_answer() -> None:
    X, y = features_and_target("breast_cancer")
    model = untrained(X, y, "binary_cross_entropy")
    yes = model.predict_proba(X)[:, 1]
    for threshold in (0.2, 0.5, 0.9):
        np.testing.assert_array_equal(model.predict(X, threshold), (yes > threshold).astype(int))


def test_rows_that_do_not_match_are_data_errors(iris: Path) -> None:
    model = load(iris)
    X, y = features_and_target("iris")
    with pytest.raises(DataError, match="150 rows of features and 149 targets"):
        model.evaluate(X, y[:-1])
    with pytest.raises(DataError, match="not among the classes"):
        model.evaluate(X, y + 1)
    with pytest.raises(DataError, match="named columns"):
        model.predict(np.zeros((2, 4)))
    with pytest.raises(DataError, match="no probabilities"):
        untrained(X, np.arange(150) / 7, "mse").predict_proba(X)


@pytest.mark.parametrize("library", ["pandas", "polars", "pyarrow"])
def test_tables_of_any_library_are_matched_by_name(library: str, iris: Path) -> None:
    module = pytest.importorskip(library, reason=f"{library} is not installed")
    model = load(iris)
    X, y = features_and_target("iris")
    columns = {name: X[name].to_numpy() for name in reversed(X.column_names)} | {"more": np.arange(150)}
    table = module.table(columns) if library == "pyarrow" else module.DataFrame(columns)
    np.testing.assert_array_equal(model.outputs(table), model.outputs(X))
    assert model.evaluate(table, y) == model.evaluate(X, y)
    less = {name: column for name, column in columns.items() if name != X.column_names[0]}
    with pytest.raises(DataError, match="sepal length"):
        model.predict(module.table(less) if library == "pyarrow" else module.DataFrame(less))


# --- files that are no models ---


class Dangerous:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.write_text, (self.mark, "unpickled")


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_is_refused_and_not_read(protocol: int, tmp_path: Path) -> None:
    path, mark = tmp_path / "m.safetensors", tmp_path / "mark"
    path.write_bytes(pickle.dumps(Dangerous(mark), protocol))
    with pytest.raises(ModelFileError):
        load(path)
    assert not mark.exists()
    pickle.loads(path.read_bytes())
    assert mark.exists()


def test_every_altered_byte_is_noticed(iris: Path, tmp_path: Path) -> None:
    data, path = iris.read_bytes(), tmp_path / "m.safetensors"
    generator = np.random.default_rng(0)
    header = 8 + int.from_bytes(data[:8], "little")
    # The header is the smaller part, and the more fragile one.
    places = [*range(8), *generator.integers(8, header, 120), *generator.integers(header, len(data), 80)]
    for place in map(int, places):
        flip = int(generator.integers(1, 256))
        path.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
        with pytest.raises((ModelFileError, FileError)):
            load(path)


def test_every_truncation_is_noticed(iris: Path, tmp_path: Path) -> None:
    data, path = iris.read_bytes(), tmp_path / "m.safetensors"
    lengths = [*range(12), *np.random.default_rng(1).integers(12, len(data), 40), len(data) - 1]
    for length in map(int, lengths):
        path.write_bytes(data[:length])
        with pytest.raises((ModelFileError, FileError)):
            load(path)


Header = dict[str, Any]


def crafted(source: Path, path: Path, change: Callable[[Header, dict[str, NDArray]], object]) -> Path:
    """Write a model file with a right digest, made by hand, whose content `change` has altered."""
    data = source.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    own = header.pop("__metadata__")
    plain = {key: own.pop(key) for key in ("format", "format_version", "sha256")}
    described = {key: json.loads(value) for key, value in own.items()}
    body = data[8 + length :]
    tensors: dict[str, NDArray] = {
        name: np.frombuffer(body[slice(*entry["data_offsets"])], np.float32).reshape(entry["shape"])
        for name, entry in header.items()
    }
    change(described, tensors)
    metadata = {**{key: json.dumps(value) for key, value in described.items()}, **plain, "sha256": "0" * 64}
    entries: Header = {"__metadata__": metadata}
    body = b""
    for name, array in tensors.items():
        end = len(body) + array.nbytes
        kind = {"f": "F", "i": "I"}[array.dtype.kind] + str(8 * array.itemsize)
        entries[name] = {"dtype": kind, "shape": list(array.shape), "data_offsets": [len(body), end]}
        body += array.tobytes()
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = len(text).to_bytes(8, "little") + text + body
    path.write_bytes(data.replace(b"0" * 64, hashlib.sha256(data).hexdigest().encode(), 1))
    return path


def test_a_crafted_file_without_a_change_is_the_model(iris: Path, tmp_path: Path) -> None:
    X, _ = features_and_target("iris")
    loaded = load(crafted(iris, tmp_path / "m.safetensors", lambda described, tensors: None))
    np.testing.assert_array_equal(loaded.outputs(X), load(iris).outputs(X))


def put(*path: Any) -> Callable[[Header, dict[str, NDArray]], None]:
    """Return a change: the last of `path` is put where the others lead."""
    *keys, last, value = path

    def change(described: Header, tensors: dict[str, NDArray]) -> None:
        inner: Any = described
        for key in keys:
            inner = inner[key]
        inner[last] = value

    return change


def tensor(name: str, array: NDArray | None) -> Callable[[Header, dict[str, NDArray]], None]:
    def change(described: Header, tensors: dict[str, NDArray]) -> None:
        tensors.pop(name, None)
        if array is not None:
            tensors[name] = array

    return change


NONSENSE = {
    "negative units": put("network", "layers", 0, "units", -4),
    "no units": put("network", "layers", 0, "units", 0),
    "units of half": put("network", "layers", 0, "units", 1.5),
    "a million million units": put("network", "layers", 0, "units", 10**12),
    "units beyond 64 bits": put("network", "layers", 0, "units", 10**40),
    "a million million inputs": put("network", "inputs", 10**12),
    "negative inputs": put("network", "inputs", -4),
    "inputs of text": put("network", "inputs", "four"),
    "inputs missing": put("network", {"layers": []}),
    "no layers": put("network", "layers", []),
    "layers of number": put("network", "layers", 3),
    "a layer of text": put("network", "layers", 0, "Dense"),
    "an unknown layer": put("network", "layers", 0, "kind", "Conv"),
    "a layer of list": put("network", "layers", 0, "kind", ["Dense"]),
    "a layer with more": put("network", "layers", 0, "code", "import os"),
    "an unknown activation": put("network", "layers", 0, "activation", "eval"),
    "an activation of list": put("network", "layers", 0, "activation", ["relu"]),
    "an unknown initializer": put("network", "layers", 0, "initializer", "nothing"),
    "a dropout of 2": put("network", "layers", 1, {"kind": "Dropout", "rate": 2}),
    "dropouts alone": put("network", "layers", [{"kind": "Dropout", "rate": 0.5}]),
    "a network of list": put("network", [1, 2]),
    "a network of null": put("network", None),
    "an unknown dtype": put("dtype", "float16"),
    "a dtype of list": put("dtype", ["float32"]),
    "preprocessing of null": put("preprocessing", None),
    "no operations": put("preprocessing", "operations", []),
    "fewer operations": lambda described, tensors: described["preprocessing"]["operations"].pop(),
    "an unknown operation": put("preprocessing", "operations", 0, "operation", "exec"),
    "a scale of NaN": put("preprocessing", "operations", 0, "scale", float("nan")),
    "a shift of infinity": put("preprocessing", "operations", 0, "shift", float("inf")),
    "a scale of text": put("preprocessing", "operations", 0, "scale", "1"),
    "a preprocessing dtype": put("preprocessing", "dtype", "complex64"),
    "a column twice": put("preprocessing", "operations", 0, "column", "petal width (cm)"),
    "too many classes": put("target", "classes", "values", [0, 1, 2, 3]),
    "too few classes": put("target", "classes", "values", [0, 1]),
    "classes twice": put("target", "classes", "values", [0, 1, 1]),
    "classes of lists": put("target", "classes", "values", [[0], [1], [2]]),
    "classes of huge numbers": put("target", "classes", "values", [0, 1, 10**30]),
    "an unknown class type": put("target", "classes", "dtype", "datetime64[s]"),
    "no classes": put("target", "classes", None),
    "an unknown task": put("target", "task", "anything"),
    "another task": put("target", "task", "regression"),
    "outputs of text": put("target", "outputs", "3"),
    "more outputs": put("target", "outputs", 4),
    "an unknown loss": put("loss", "name", "hinge"),
    "another task's loss": put("loss", {"name": "mse"}),
    "a loss of null": put("loss", None),
    "a loss constant of NaN": put("loss", "label_smoothing", float("nan")),
    "details of text": put("details", "text"),
    "details of pairs": put("details", [["metrics", 1]]),
    "details of other metrics": put("details", "metrics", {"validation": {"accuracy": "high"}}),
    "network missing": lambda described, tensors: described.pop("network"),
    "dtype missing": lambda described, tensors: described.pop("dtype"),
    "preprocessing missing": lambda described, tensors: described.pop("preprocessing"),
    "target missing": lambda described, tensors: described.pop("target"),
    "loss missing": lambda described, tensors: described.pop("loss"),
    "details missing": lambda described, tensors: described.pop("details"),
    "a tensor missing": tensor("layers.0.bias", None),
    "a tensor too many": tensor("layers.2.bias", np.zeros(3, np.float32)),
    "a tensor of another shape": tensor("layers.0.weight", np.zeros((4, 5), np.float32)),
    "a tensor transposed": tensor("layers.1.weight", np.zeros((3, 4), np.float32)),
    "a tensor of one number": tensor("layers.0.bias", np.zeros((), np.float32)),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_under_a_right_digest_is_refused(name: str, iris: Path, tmp_path: Path) -> None:
    path = crafted(iris, tmp_path / "m.safetensors", NONSENSE[name])
    with pytest.raises(ModelFileError) as caught:
        load(path)
    assert str(caught.value).startswith(str(path))
    assert "SHA-256" not in str(caught.value)
    assert isinstance(caught.value, NnkitError)


def test_any_replaced_value_is_refused_or_gives_a_model(iris: Path, tmp_path: Path) -> None:
    """Replace every value in the description by others: an error, or a model that predicts."""
    described: Header = {}
    crafted(iris, tmp_path / "m", lambda found, tensors: described.update(copy.deepcopy(found)))
    X, _ = features_and_target("iris")
    values: list[Any] = [None, -1, "x", [], {}]
    refused = 0
    for path in [path for path in _paths(described) if path[0] != "details"]:
        for value in values:
            try:
                model = load(crafted(iris, tmp_path / "m", put(*path, value)))
            except ModelFileError:
                refused += 1
                continue
            try:
                assert len(model.predict(X)) == 150
            except DataError:
                assert path[0] == "preprocessing"
    assert refused > 200


def _paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path for key, inner in items for path in ((*before, key), *_paths(inner, (*before, key)))]


def test_a_missing_file_and_a_folder_are_file_errors(tmp_path: Path) -> None:
    for path in (tmp_path / "none.safetensors", tmp_path):
        with pytest.raises(FileError, match=r"there is no such file|there is no model\.safetensors"):
            load(path)


def test_a_model_of_layers_of_every_kind_comes_back(tmp_path: Path) -> None:
    from nnkit import Activation

    X = pa.table({"x": np.arange(20.0), "c": ["a", "b"] * 10})
    preprocessor, encoder = Preprocessor.fit(X), TargetEncoder.fit(np.arange(20) % 2)
    layers: list[Layer] = [
        Dropout(0.1),
        Dense(3, bias=False),
        Activation("gelu"),
        Dropout(0.5),
        Dense(1, "identity", "he_normal"),
    ]
    network = Network(layers, inputs=preprocessor.width, seed=5)
    Model(network, preprocessor, encoder, loss_from("binary_cross_entropy")).save(tmp_path / "m")
    loaded = load(tmp_path / "m")
    assert loaded.network.layers == tuple(layers)
    np.testing.assert_array_equal(loaded.outputs(X), network.outputs(preprocessor.transform(X)))


# --- networks saved without preprocessing ---


def rows_of(kind: str) -> Any:
    """Return rows in one of the forms that a network takes."""
    pixels = np.random.default_rng(3).integers(0, 256, (20, 4)).astype(np.uint8)
    forms: dict[str, Callable[[], Any]] = {
        "pixels": lambda: pixels,
        "sparse pixels": lambda: sparse.csr_matrix(pixels),
        "numbers": lambda: pixels / 255,
        "frame": lambda: pa.table({name: pixels[:, j] for j, name in enumerate("abcd")}),
    }
    return forms[kind]()


@pytest.mark.parametrize(
    ("loss", "outputs", "task"),
    [
        ("cross_entropy", 3, "multiclass"),
        ("binary_cross_entropy", 1, "binary"),
        ("binary_cross_entropy", 3, "multilabel"),
        ({"name": "huber", "delta": 0.5}, 1, "regression"),
        ("poisson", 2, "regression"),
    ],
)
def test_a_trainer_saves_a_model_in_one_line(loss: Any, outputs: int, task: str, tmp_path: Path) -> None:
    X, random = rows_of("pixels"), np.random.default_rng(4)
    y = random.integers(0, 3, 20) if task == "multiclass" else random.integers(0, 2, (20, outputs))
    trainer = Trainer(Network([Dense(5, "tanh"), Dense(outputs)]), loss, device="cpu", precision="fp64")
    trainer.fit(X, y, epochs=2)
    trainer.save(tmp_path / "mine.safetensors")
    model = load(tmp_path / "mine.safetensors")
    assert (model.task, model.loss.to_json()) == (task, trainer.loss.to_json())
    for kind in ("pixels", "sparse pixels", "numbers", "frame"):
        np.testing.assert_array_equal(model.outputs(rows_of(kind)), trainer.network.outputs(rows_of(kind)))
    logits = trainer.network.outputs(X)
    if task == "multiclass":
        assert model.predict(X).tolist() == logits.argmax(axis=1).tolist()
        np.testing.assert_allclose(model.predict_proba(X), special.softmax(logits, axis=1))
    elif task == "regression":
        values = np.exp(logits) if loss == "poisson" else logits
        np.testing.assert_allclose(model.predict(X), values[:, 0] if outputs == 1 else values)
    else:
        yes = (logits > 0).astype(int)
        assert model.predict(X).tolist() == (yes[:, 0] if outputs == 1 else yes).tolist()
    assert model.evaluate(X, y).keys()
    assert model.details["epochs"] == 2
    model.save(tmp_path / "again.safetensors")  # a model that was loaded is saved like any other
    np.testing.assert_array_equal(load(tmp_path / "again.safetensors").outputs(X), logits)


def test_a_network_is_saved_with_the_loss_that_says_what_it_predicts(tmp_path: Path) -> None:
    network = Network([Dense(3)], inputs=4)
    network.save(tmp_path / "net.safetensors", "cross_entropy")
    model = load(tmp_path / "net.safetensors")
    assert model.classes is not None
    assert (model.task, model.classes.tolist()) == ("multiclass", [0, 1, 2])
    np.testing.assert_array_equal(model.outputs(rows_of("numbers")), network.outputs(rows_of("numbers")))
    with pytest.raises(DataError, match="5 features, and the network takes 4"):
        model.predict(np.zeros((2, 5)))
    with pytest.raises(ConfigError, match="no parameters yet"):
        Network([Dense(3)]).save(tmp_path / "none.safetensors", "mse")
    with pytest.raises(ConfigError, match="unknown loss"):
        network.save(tmp_path / "none.safetensors", "crossentropy")
    assert not (tmp_path / "none.safetensors").exists()


def test_a_network_with_embeddings_is_saved_for_features(tmp_path: Path) -> None:
    bags = Bags(np.array([1, 2, 0], np.int32), np.array([0, 2, 3]), 5)
    features = Features(np.zeros((2, 0), np.float32), bags=(bags,))
    network = Network([Embedding(5, 3), Dense(1)], inputs=0)
    network.save(tmp_path / "net.safetensors", "mse")
    np.testing.assert_array_equal(
        load(tmp_path / "net.safetensors").outputs(features), network.outputs(features)
    )


def test_a_runs_folder_is_loaded_as_the_command_line_does(iris: Path, tmp_path: Path) -> None:
    X = features_and_target("iris")[0]
    np.testing.assert_array_equal(load(iris.parent).outputs(X), load(iris).outputs(X))
    with pytest.raises(FileError, match=r"there is no model\.safetensors, as it is not a run's folder"):
        load(tmp_path)


# --- several networks in one model ---


def ensemble(task: str, size: int = 3) -> tuple[Model, list[Model], NDArray, NDArray]:
    """Return an ensemble, a model of each of its members, and rows with their targets."""
    generator = np.random.default_rng(5)
    X = generator.normal(size=(40, 3))
    y, loss = {
        "binary": (np.arange(40) % 2, "binary_cross_entropy"),
        "multiclass": (np.array(list("abcd"))[np.arange(40) % 4], "cross_entropy"),
        "multilabel": (generator.integers(0, 2, size=(40, 3)), "binary_cross_entropy"),
        "regression": (generator.normal(5, 3, size=(40, 2)), "mse"),
        "rate": (generator.poisson(3, 40) + 0.0, "poisson"),
    }[task]
    preprocessor = replace(Preprocessor.fit(X), dtype="float64")
    encoder = TargetEncoder.fit(y, "regression" if task == "rate" else "auto")
    if task == "rate":
        encoder = replace(encoder, mean=np.zeros(1), scale=np.ones(1))
    networks = []
    for seed in range(size):
        network = Network([Dense(5, "tanh"), Dense(encoder.outputs)])
        network.initialize(preprocessor.width, seed, np.float64)
        values = network.parameters()
        network.set_parameters({name: 3 * value + 0.1 for name, value in values.items()})
        networks.append(network)
    single = [Model(network, preprocessor, encoder, loss_from(loss)) for network in networks]
    return replace(single[0], others=tuple(networks[1:])), single, X, y


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression", "rate"])
def test_an_ensemble_predicts_the_mean_of_its_members_and_comes_back_from_its_file(
    task: str, tmp_path: Path
) -> None:
    model, members, X, y = ensemble(task)
    if task in ("regression", "rate"):
        expected = np.mean([member.predict(X) for member in members], axis=0)
        np.testing.assert_allclose(model.predict(X), expected, rtol=1e-12)
        assert model.evaluate(X, y)["mae"] == pytest.approx(metrics.mean_absolute_error(y, expected))
    else:
        expected = np.mean([member.predict_proba(X) for member in members], axis=0)
        np.testing.assert_allclose(model.predict_proba(X), expected, rtol=1e-11)
        if task == "multiclass":
            assert model.predict(X).tolist() == np.array(list("abcd"))[expected.argmax(axis=1)].tolist()
            assert model.evaluate(X, y)["log_loss"] == pytest.approx(metrics.log_loss(y, expected))
    assert model.parameter_count == 3 * members[0].parameter_count
    model.save(tmp_path / "m")
    again = load(tmp_path / "m")
    assert np.array_equal(again.outputs(X), model.outputs(X))
    with safe_open(tmp_path / "m", "numpy") as file:
        names = set(file.keys())
        assert file.metadata()["format_version"] == "2"
    parts = ("layers.0.weight", "layers.0.bias", "layers.1.weight", "layers.1.bias")
    assert names == {f"members.{number}.{part}" for number in range(3) for part in parts}


@pytest.mark.parametrize("task", ["binary", "multiclass", "multilabel", "regression", "rate"])
def test_reproducible_predictions_of_a_row_have_the_same_bits_alone_and_in_a_batch(task: str) -> None:
    model, members, X, _ = ensemble(task)
    for one in (model, members[0]):
        ways = [one.predict] if task in ("regression", "rate") else [one.predict, one.predict_proba]
        for way in ways:
            whole = way(X, reproducible=True)
            alone = np.concatenate([way(X[row : row + 1], reproducible=True) for row in range(len(X))])
            np.testing.assert_array_equal(alone, whole)
            if whole.dtype.kind == "f":
                np.testing.assert_allclose(whole, way(X), rtol=1e-11)


def test_reproducible_predictions_of_a_tables_row_have_the_same_bits_alone_and_in_a_batch() -> None:
    random = np.random.default_rng(8)
    colors = pd.Categorical(random.choice(["red", "green", "blue"], 30))
    table = pd.DataFrame({"size": random.normal(size=30), "color": colors})
    model = untrained(table, random.integers(0, 3, 30), "cross_entropy")
    whole = model.predict_proba(table, reproducible=True)
    for row in range(len(table)):
        alone = model.predict_proba(table.iloc[row : row + 1], reproducible=True)
        np.testing.assert_array_equal(alone, whole[row : row + 1])


def test_probabilities_too_small_for_floats_are_averaged() -> None:
    outputs = [np.array([[800.0, 0.0]]), np.array([[0.0, 900.0]]), np.array([[1000.0, 0.0]])]
    found = averaged_outputs(outputs, "softmax")
    np.testing.assert_allclose(found, np.log([[2 / 3, 1 / 3]]), rtol=1e-12)
    small = averaged_outputs([np.array([[-800.0]]), np.array([[-900.0]])], "sigmoid")
    np.testing.assert_allclose(small, [[-800 - np.log(2)]], rtol=1e-12)


def test_the_members_of_an_ensemble_are_of_one_description(tmp_path: Path) -> None:
    model, _, X, _ = ensemble("binary")
    other = Network([Dense(4, "tanh"), Dense(1)])
    other.initialize(3, seed=0, dtype=np.float64)
    with pytest.raises(ConfigError, match="same layers"):
        replace(model, others=(other,))
    with pytest.raises(DataError, match=r"needs one network, and this model is an ensemble of 3"):
        integrated_gradients(model, X[:2])
    model.save(tmp_path / "m")
    tensors, metadata = read_tensors(tmp_path / "m", "nnkit.model", 2)
    for count in (1, 2, 4, "3"):
        write_tensors(tmp_path / "altered", "nnkit.model", 2, tensors, {**metadata, "members": count})
        with pytest.raises(ModelFileError):
            load(tmp_path / "altered")
    tensors["others.0.x"] = tensors.pop("members.0.layers.0.bias")
    write_tensors(tmp_path / "altered", "nnkit.model", 2, tensors, metadata)
    with pytest.raises(ModelFileError):
        load(tmp_path / "altered")


# --- what a model says of itself ---


def test_a_network_says_its_layers_shapes_and_parameters() -> None:
    network = Network([Dense(512, "relu"), Dropout(0.2), Dense(10)])
    assert network.summary().splitlines() == [
        "layer         shape     parameters",
        "Dense, relu   ? → 512            ?",
        "Dropout, 0.2  512                0",
        "Dense         512 → 10       5,130",
        "total                            ?",
    ]
    network.initialize(784)
    lines = network.summary().splitlines()
    assert lines[1] == "Dense, relu   784 → 512     401,920"
    assert lines[-1] == "total         float32       407,050"
    assert sum(values.size for values in network.parameters().values()) == 407_050


def test_a_model_says_what_it_is_in_short(iris: Path) -> None:
    model = load(iris)
    bins = sum(len(edges) - 1 for edges in model.network.layers[0].edges)
    assert repr(model) == (
        "<Model: multiclass, 3 classes; 4 → numbers in 16 bins → 4 silu → dropout 0.1 → 3; "
        f"{4 * (4 + bins) + 4 + 15} parameters>"
    )
    summary = model.summary()
    assert re.search(r"^task +multiclass$", summary, re.MULTILINE)
    assert re.search(r"^classes +0, 1, 2$", summary, re.MULTILINE)
    assert re.search(r"^validation metrics +accuracy ", summary, re.MULTILINE)
    assert summary.endswith(model.network.summary())


def test_a_summary_leaves_out_what_is_long(tmp_path: Path) -> None:
    X = np.random.default_rng(0).normal(size=(300, 40))
    estimator = MLPClassifier((3,), max_iter=150, tol=0, device="cpu").fit(X, np.arange(300) % 100)
    estimator.save(tmp_path / "fitted.safetensors")
    model = load(tmp_path / "fitted.safetensors")
    assert len(model.summary()) < 1500
    assert ", … (100 in all)" in model.summary()
    assert len(repr(model)) < 200


# --- texts ---


@pytest.mark.parametrize("form", [list, tuple, np.array, pd.Series])
def test_a_model_of_one_text_column_takes_texts_as_they_are(form: Any) -> None:
    texts = [f"{word} number {n} of the list" for n in range(30) for word in ("good", "bad")]
    table = pa.table({"text": texts})
    preprocessor = Preprocessor.fit(table, text=TextOptions())
    encoder = TargetEncoder.fit(np.array(["yes", "no"] * 30))
    [column] = preprocessor.text_columns
    network = Network([Embedding(column.size, 4), Dense(1)], inputs=0, seed=1)
    model = Model(network, preprocessor, encoder, loss_from("binary_cross_entropy"))
    asked = ["a good list", "bad number 7"]
    expected = model.predict_proba(pa.table({"text": asked}))
    np.testing.assert_array_equal(model.predict_proba(form(asked)), expected)
    assert model.predict(form(asked)).tolist() == model.predict(pa.table({"text": asked})).tolist()
    with pytest.raises(DataError, match=r"give \[text\]"):
        model.predict("a good list")


def test_a_list_of_texts_does_not_say_which_of_several_columns_they_are(iris: Path) -> None:
    texts = [f"number {n} of the list" for n in range(60)]
    preprocessor = Preprocessor.fit(pa.table({"subject": texts, "body": texts[::-1]}), text=TextOptions())
    with pytest.raises(DataError, match=r"several columns of text \('subject', 'body'\): give a table"):
        preprocessor.transform(["one", "two"])
    with pytest.raises(DataError, match="no columns of text"):
        load(iris).predict(["one", "two"])
