"""An estimator in a file and in a pickle: what comes back is what went in, and files hold no code."""

from __future__ import annotations

import copy
import json
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import pytest
from numpy.typing import NDArray
from plain_network import outputs
from safetensors import safe_open
from scipy import special
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler
from twins import assert_same_network, ours_for, problem, same_bits

import nnkit
from nnkit import MLPClassifier, MLPRegressor, NnkitError, load
from nnkit.model import Model

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

# --- files and pickles ---

FILES: dict[str, tuple[str, dict[str, Any], Callable[[NDArray], NDArray]]] = {
    "texts": ("binary", {"class_weight": {"no": 2.0}, "dropout": 0.1}, lambda y: np.array(["no", "yes"])[y]),
    "booleans": ("binary", {"dtype": "float32"}, lambda y: y.astype(bool)),
    "numbers": (
        "multiclass",
        {"loss": {"name": "cross_entropy", "label_smoothing": 0.1}},
        lambda y: y * 5 - 3,
    ),
    "objects": ("multiclass", {"early_stopping": True}, lambda y: np.array(["a", "b", "ç"], object)[y]),
    "labels": ("multilabel", {"solver": "lbfgs"}, lambda y: y),
    "value": ("regression", {"loss": "huber", "optimizer": "adamw", "schedule": "cosine"}, lambda y: y),
    "values": ("regressions", {"hidden_layer_sizes": (), "solver": "sgd"}, lambda y: y),
    "counts": ("poisson", {"activation": "gelu", "clip_norm": 1.0}, lambda y: y),
}


def saved(name: str, path: Path) -> tuple[Any, NDArray]:
    """Train, save, and return the estimator with its rows."""
    kind, settings, labelled = FILES[name]
    X, y = problem(kind)
    estimator = ours_for(kind, max_iter=4, **settings).fit(X, labelled(y))
    estimator.save(path)
    return estimator, X


def same_value(one: Any, other: Any) -> bool:
    if isinstance(one, list | tuple):
        return type(one) is type(other) and all(map(same_value, one, other)) and len(one) == len(other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("name", FILES)
def test_a_saved_estimator_comes_back_as_it_was(name: str, tmp_path: Path) -> None:
    estimator, X = saved(name, tmp_path / "m.safetensors")
    again = type(estimator).load(tmp_path / "m.safetensors")
    assert type(again) is type(estimator)
    assert again.get_params() == estimator.get_params()
    for key, value in vars(estimator).items():
        if key.endswith("_") and not key.startswith("_"):
            assert same_value(getattr(again, key), value), key
    for method in ("predict", "predict_proba"):
        if hasattr(estimator, method):
            expected, found = getattr(estimator, method)(X), getattr(again, method)(X)
            assert found.dtype == expected.dtype
            assert np.array_equal(found, expected), method


@pytest.mark.parametrize("name", FILES)
def test_nnkit_loads_the_same_file_as_a_model(name: str, tmp_path: Path) -> None:
    estimator, X = saved(name, tmp_path / "m.safetensors")
    model = load(tmp_path / "m.safetensors")
    tolerance = 1e-6 if estimator.coefs_[0].dtype == np.float32 else 1e-12
    if isinstance(estimator, MLPRegressor):
        np.testing.assert_allclose(model.predict(X), estimator.predict(X), rtol=tolerance, atol=tolerance)
        return
    assert model.predict(X).tolist() == estimator.predict(X).tolist()
    np.testing.assert_allclose(model.predict_proba(X), estimator.predict_proba(X), atol=tolerance)


def test_the_estimator_has_an_entry_of_its_own_and_files_with_it_in_the_details_are_read(
    tmp_path: Path,
) -> None:
    estimator, X = saved("texts", tmp_path / "m.safetensors")
    model = load(tmp_path / "m.safetensors")
    assert model.estimator is not None
    assert model.estimator["class"] == "MLPClassifier"
    assert set(model.details) == {"nnkit", "numpy"}
    details = {"estimator": model.estimator, **model.details}
    Model(model.network, model.preprocessor, model.target, model.loss, details).save(tmp_path / "earlier")
    earlier = load(tmp_path / "earlier")
    assert (earlier.estimator, earlier.details) == (model.estimator, model.details)
    assert MLPClassifier.load(tmp_path / "earlier").predict(X).tolist() == estimator.predict(X).tolist()
    # Once read, it is written as all are now.
    earlier.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (tmp_path / "m.safetensors").read_bytes()


def test_a_detail_of_the_user_of_that_name_stays_where_it_is(tmp_path: Path) -> None:
    network = nnkit.Network([nnkit.Dense(2)])
    network.initialize(3, seed=0)
    for own in ("least squares", {"class": "OLS"}):
        network.save(tmp_path / "m", "cross_entropy", {"estimator": own})
        model = load(tmp_path / "m")
        assert (model.estimator, model.details) == (None, {"estimator": own})


def test_a_file_holds_no_pickle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise AssertionError("pickle was called")

    for name in ("dump", "dumps", "load", "loads", "Pickler", "Unpickler"):
        monkeypatch.setattr(pickle, name, refuse)
    path = tmp_path / "m.safetensors"
    estimator, X = saved("texts", path)
    assert MLPClassifier.load(path).predict(X).tolist() == estimator.predict(X).tolist()
    with safe_open(path, "numpy") as file:
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - no mapping
        for text in file.metadata().values():
            assert "\x80" not in text
    assert {array.dtype.kind for array in tensors.values()} <= set("fiub")
    shapes = sorted(array.shape for array in tensors.values())
    assert all(coef.shape in shapes for coef in estimator.coefs_)
    header = path.read_bytes()
    json.loads(header[8 : 8 + int.from_bytes(header[:8], "little")])


def test_a_saved_estimator_knows_its_columns(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    X, y = problem("binary")
    table = pandas.DataFrame(X, columns=["a", "b", "ä", "d e"])
    ours_for("binary", max_iter=2).fit(table, y).save(tmp_path / "m.safetensors")
    again = MLPClassifier.load(tmp_path / "m.safetensors")
    assert again.feature_names_in_.tolist() == ["a", "b", "ä", "d e"]
    with pytest.raises(ValueError, match="feature names"):
        again.predict(table[["b", "a", "ä", "d e"]])


def ordered(X: NDArray) -> tuple[Any, list[Any]]:
    """Return rows as a data frame, and the same rows as tables of other kinds and orders of columns."""
    pandas, polars, arrow = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    frame = pandas.DataFrame(X, columns=["age", "income", "débt", "d e"])
    other = frame[["d e", "débt", "age", "income"]].assign(note="?")[["note", "d e", "débt", "age", "income"]]
    return frame, [
        frame,
        other,
        polars.from_pandas(other),
        arrow.Table.from_pandas(other, preserve_index=False),
    ]


@pytest.mark.parametrize("kind", ["binary", "multiclass", "multilabel", "regression"])
def test_a_model_of_an_estimator_finds_a_tables_columns_by_name(kind: str, tmp_path: Path) -> None:
    X, y = problem(kind)
    frame, tables = ordered(X)
    estimator = ours_for(kind, max_iter=20).fit(frame, y)
    estimator.save(tmp_path / "m.safetensors")
    model = load(tmp_path / "m.safetensors")
    model.save(tmp_path / "again.safetensors")
    for each in (model, load(tmp_path / "again.safetensors")):
        for table in tables:
            np.testing.assert_allclose(each.predict(table), estimator.predict(frame), rtol=1e-12)
        np.testing.assert_allclose(each.predict(X), estimator.predict(frame), rtol=1e-12)
        assert each.preprocessor.input_names == tuple(frame.columns)
    assert model.evaluate(tables[1], y) == model.evaluate(frame, y)
    renamed = frame.rename(columns={"age": "years"})
    for wrong in (renamed, frame.drop(columns="age")):
        with pytest.raises(NnkitError, match="column 'age' missing"):
            model.predict(wrong)


def test_a_model_of_an_estimator_without_names_takes_columns_by_place(tmp_path: Path) -> None:
    X, y = problem("binary")
    frame, _ = ordered(X)
    estimator = ours_for("binary", max_iter=20).fit(X, y)
    estimator.save(tmp_path / "m.safetensors")
    model = load(tmp_path / "m.safetensors")
    assert model.predict(frame).tolist() == estimator.predict(X).tolist()
    with pytest.raises(NnkitError, match="5 feature columns"):
        model.predict(frame.assign(more=1.0))


def test_the_command_line_finds_an_estimators_columns_by_name(tmp_path: Path) -> None:
    X, y = problem("binary", rows=200)
    frame, tables = ordered(X)
    labels = np.array(["no", "yes"])[y]
    estimator = ours_for("binary", max_iter=20).fit(frame, labels)
    estimator.save(tmp_path / "m.safetensors")
    accuracy = estimator.score(frame, labels)
    for table, target, options in ((tables[0], "label", ()), (tables[1], "answer", ("--target", "answer"))):
        table.assign(**{target: labels}).to_csv(tmp_path / "rows.csv", index=False)
        told = run_nnkit(tmp_path, "evaluate", "m.safetensors", "rows.csv", "--json", *options)
        assert json.loads(told)["metrics"]["accuracy"] == pytest.approx(accuracy)
        run_nnkit(tmp_path, "predict", "m.safetensors", "rows.csv", "--out", "out.csv")
        answers = [line.strip('"') for line in (tmp_path / "out.csv").read_text().split()[1:]]
        assert answers == estimator.predict(frame).tolist()


def run_nnkit(folder: Path, *arguments: str) -> str:
    command = [sys.executable, "-c", "from nnkit.cli import main; main()", *arguments]
    ended = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_training_continues_from_a_file(tmp_path: Path) -> None:
    X, y = problem("multiclass")
    estimator = ours_for("multiclass", max_iter=3, warm_start=True).fit(X, y)
    estimator.save(tmp_path / "m.safetensors")
    again = MLPClassifier.load(tmp_path / "m.safetensors")
    # A warm start makes a new optimizer, so what a file does not hold is not missed.
    assert_same_network(estimator.fit(X, y), again.fit(X, y), tolerance=1e-12)
    assert again.loss_curve_ == estimator.loss_curve_
    again.partial_fit(X, y)
    assert len(again.loss_curve_) == 7


def test_saving_an_unfitted_estimator_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(NotFittedError):
        MLPClassifier().save(tmp_path / "m.safetensors")
    assert not (tmp_path / "m.safetensors").exists()


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    saved("value", path)
    with pytest.raises(NnkitError, match=r"m\.safetensors"):
        MLPClassifier.load(path)
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    (tmp_path / "altered.safetensors").write_bytes(data)
    (tmp_path / "cut.safetensors").write_bytes(data[:-5])
    (tmp_path / "pickled.safetensors").write_bytes(pickle.dumps(MLPRegressor()))
    for name in ("altered", "cut", "pickled", "missing"):
        with pytest.raises(NnkitError, match=name):
            MLPRegressor.load(tmp_path / f"{name}.safetensors")
    network = nnkit.Network([nnkit.Dense(1)], inputs=2)
    model = nnkit.Model(*plain_parts(network))
    model.save(path)
    with pytest.raises(NnkitError, match=r"m\.safetensors"):
        MLPRegressor.load(path)


def plain_parts(network: nnkit.Network) -> tuple[Any, ...]:
    """Return a model's parts as `nnkit train` makes them, without an estimator."""
    from nnkit.data.preprocessing import Preprocessor
    from nnkit.data.targets.encoding import TargetEncoder
    from nnkit.nn.losses import loss_from

    X = np.random.default_rng(0).normal(size=(6, 2))
    return network, Preprocessor.fit(X), TargetEncoder.fit(X[:, 0]), loss_from("mse")


def through_joblib(estimator: Any, folder: Path, **options: Any) -> Any:
    joblib.dump(estimator, folder / "m.joblib")
    return joblib.load(folder / "m.joblib", **options)


def through_a_file(estimator: Any, folder: Path) -> Any:
    estimator.save(folder / "m.safetensors")
    return type(estimator).load(folder / "m.safetensors")


def with_assigned_arrays(estimator: Any, folder: Path) -> Any:
    estimator.coefs_ = [coef.copy() for coef in estimator.coefs_]
    estimator.intercepts_ = [intercept.copy() for intercept in estimator.intercepts_]
    return estimator


def with_some_assigned_arrays(estimator: Any, folder: Path) -> Any:
    estimator.coefs_[1] = estimator.coefs_[1].astype(np.float32)
    return estimator


ORIGINS: dict[str, Callable[[Any, Path], Any]] = {
    "fitted": lambda estimator, folder: estimator,
    "pickle": lambda estimator, folder: pickle.loads(pickle.dumps(estimator)),
    "deepcopy": lambda estimator, folder: copy.deepcopy(estimator),
    "copy": lambda estimator, folder: copy.copy(estimator),
    "joblib": through_joblib,
    "file": through_a_file,
    "assigned": with_assigned_arrays,
    "some assigned": with_some_assigned_arrays,
}


@pytest.mark.parametrize("asked", ["before", "after the arrays were taken", "not"])
@pytest.mark.parametrize("origin", ORIGINS)
def test_a_change_within_the_weights_always_counts(origin: str, asked: str, tmp_path: Path) -> None:
    X, y = problem("multiclass")
    ours = ORIGINS[origin](ours_for("multiclass", max_iter=5).fit(X, y), tmp_path)
    if asked == "before":
        ours.predict_proba(X)
    arrays = [*ours.coefs_, *ours.intercepts_]
    if asked == "after the arrays were taken":
        ours.predict_proba(X)
    generator = np.random.default_rng(0)
    for _ in range(2):
        for array in arrays:
            array[:] = generator.normal(size=array.shape)
        logits = outputs((ours.coefs_, ours.intercepts_), X)
        np.testing.assert_allclose(ours.predict_proba(X), special.softmax(logits, axis=1), atol=1e-6)
    # Training continues from them, and what is saved is what predicts.
    ours.save(tmp_path / "changed.safetensors")
    again = MLPClassifier.load(tmp_path / "changed.safetensors")
    np.testing.assert_array_equal(again.predict_proba(X), ours.predict_proba(X))


def test_weights_mapped_from_a_file_are_predicted_with_and_trained_on(tmp_path: Path) -> None:
    X, y = problem("binary")
    ours = ours_for("binary", max_iter=5).fit(X, y)
    mapped = through_joblib(ours, tmp_path, mmap_mode="r")
    assert not mapped.coefs_[0].flags.writeable
    assert same_value(mapped.predict_proba(X), ours.predict_proba(X))
    assert same_bits(mapped.partial_fit(X, y), ours.partial_fit(X, y))
    mapped.coefs_[0][:] = 0
    mapped.intercepts_[0][:] = 0
    assert len(np.unique(mapped.predict_proba(X), axis=0)) == 1


def test_a_shallow_copy_trains_apart() -> None:
    X, y = problem("binary")
    settings = {"solver": "sgd", "learning_rate": "adaptive", "tol": 0.5, "n_iter_no_change": 1}
    one = ours_for("binary", **settings).partial_fit(X, y, classes=[0, 1])
    other = copy.copy(one)
    expected = copy.deepcopy(one)
    for _ in range(5):
        other.partial_fit(X, y)
    for _ in range(5):
        one.partial_fit(X, y)
        expected.partial_fit(X, y)
        assert same_bits(one, expected)


def test_weights_changed_within_a_pipeline_and_a_search_count() -> None:
    X, y = problem("binary")
    search = GridSearchCV(
        Pipeline([("scale", StandardScaler()), ("mlp", ours_for("binary", max_iter=3))]),
        {"mlp__alpha": [0.1, 0.01]},
        cv=2,
        n_jobs=2,
    ).fit(X, y)
    search = pickle.loads(pickle.dumps(search))
    search.predict_proba(X)
    for array in (*search.best_estimator_["mlp"].coefs_, *search.best_estimator_["mlp"].intercepts_):
        array[:] = 0
    np.testing.assert_array_equal(search.predict_proba(X), 0.5)


@pytest.mark.parametrize(
    "copied",
    [
        lambda estimator, folder: pickle.loads(pickle.dumps(estimator)),
        lambda estimator, folder: copy.deepcopy(estimator),
        through_joblib,
    ],
    ids=["pickle", "deepcopy", "joblib"],
)
@pytest.mark.parametrize("settings", [{"solver": "sgd"}, {"solver": "adam"}, {"dropout": 0.2}], ids=str)
def test_a_pickled_estimator_continues_unchanged(
    copied: Callable[[Any, Path], Any], settings: dict[str, Any], tmp_path: Path
) -> None:
    X, y = problem("binary")
    estimator = ours_for("binary", shuffle=True, **settings).partial_fit(X, y, classes=[0, 1])
    again = copied(estimator, tmp_path)
    assert same_value(again.predict_proba(X), estimator.predict_proba(X))
    for rows in (slice(0, 30), slice(20, 50)):
        again.partial_fit(X[rows], y[rows])
        estimator.partial_fit(X[rows], y[rows])
    assert same_bits(again, estimator)
    assert again.loss_curve_ == estimator.loss_curve_
