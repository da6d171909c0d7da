"""scikit-learn's own fitted estimators taken over, trained on here, and given back."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix, issparse
from sklearn import neural_network
from sklearn.exceptions import NotFittedError

from nnkit import MLPClassifier, MLPRegressor
from nnkit.errors import ConfigError

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

X = np.random.default_rng(0).normal(size=(90, 4))
LABELS = np.stack([X[:, 0] > 0, X[:, 1] > 0, X[:, 2] > 0], axis=1).astype(int)
CLASSES = np.array(["low", "middle", "top"])[np.digitize(X[:, 0], [-0.5, 0.5])]
OURS = {"MLPClassifier": MLPClassifier, "MLPRegressor": MLPRegressor}
CASES: dict[str, tuple[str, Any, dict[str, Any]]] = {
    "binary": ("MLPClassifier", X[:, 0] > 0, {}),
    "classes": ("MLPClassifier", CLASSES, {"activation": "tanh", "solver": "lbfgs"}),
    "labels": ("MLPClassifier", LABELS, {"activation": "logistic", "hidden_layer_sizes": 6}),
    "sparse labels": ("MLPClassifier", csr_matrix(LABELS), {}),
    "values": ("MLPRegressor", X[:, 0] * 3, {"solver": "sgd", "early_stopping": True}),
    "several values": ("MLPRegressor", X[:, :2], {"activation": "identity", "hidden_layer_sizes": (5, 3)}),
    "counts": ("MLPRegressor", np.exp(X[:, 0]), {"loss": "poisson"}),
}


@pytest.fixture(params=CASES)
def fitted(request: pytest.FixtureRequest) -> Any:
    """Return scikit-learn's estimator, fitted, and what it was fitted to."""
    name, y, parameters = CASES[request.param]
    theirs = getattr(neural_network, name)
    if not set(parameters) <= set(theirs().get_params()):
        pytest.skip("this version of scikit-learn has one loss for regressions")
    return theirs(max_iter=15, random_state=0, **parameters).fit(X, y), y


def same(ours: Any, theirs: Any) -> None:
    """Check that both predict the same, to rounding, in the same types."""
    found, expected = ours.predict(X), theirs.predict(X)
    assert issparse(found) == issparse(expected)
    found, expected = (one.toarray() if issparse(one) else one for one in (found, expected))
    assert found.shape == expected.shape
    if isinstance(ours, MLPRegressor):
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-12)
        return
    assert found.dtype == expected.dtype
    assert np.array_equal(found, expected)
    np.testing.assert_allclose(ours.predict_proba(X), theirs.predict_proba(X), rtol=1e-12, atol=1e-12)


def test_scikit_learns_estimator_predicts_the_same_here_and_back(fitted: Any) -> None:
    theirs, _ = fitted
    ours = OURS[type(theirs).__name__].from_sklearn(theirs)
    same(ours, theirs)
    assert ours.get_params().items() >= theirs.get_params().items()
    back = ours.to_sklearn()
    same(ours, back)
    hidden = {"hidden_layer_sizes"}  # a number becomes a tuple
    kept = {name: value for name, value in theirs.get_params().items() if name not in hidden}
    assert back.get_params().items() >= kept.items()
    for name in vars(theirs):
        if name.endswith("_") and not name.startswith("_") and name != "loss_curve_":
            np.testing.assert_equal(getattr(back, name), getattr(theirs, name))


def test_both_continue_the_training_of_the_other(fitted: Any) -> None:
    theirs, y = fitted
    if theirs.solver == "lbfgs" or theirs.early_stopping:
        theirs.set_params(solver="adam", early_stopping=False).fit(X, y)  # partial_fit has neither
    ours = OURS[type(theirs).__name__].from_sklearn(theirs)
    before = theirs.predict(X)
    ours.partial_fit(X, y)
    assert not np.array_equal(ours.coefs_[0], theirs.coefs_[0])
    back = ours.to_sklearn()
    same(ours, back)
    # From the same weights with a new optimizer, one epoch gives the same in both.
    seed = {"random_state": 3, "shuffle": False}
    ours.set_params(**seed)
    again = type(ours).from_sklearn(back.set_params(**seed))
    again.partial_fit(X, y)
    back.partial_fit(X, y)
    same(again, back)
    after = theirs.predict(X)
    assert np.array_equal(*(one.toarray() if issparse(one) else one for one in (before, after)))


def test_a_taken_over_estimator_is_saved_and_pickled(tmp_path: Path) -> None:
    theirs = neural_network.MLPClassifier((6,), max_iter=9, random_state=0).fit(
        pd.DataFrame(X, columns=list("abcd")), CLASSES
    )
    ours = MLPClassifier.from_sklearn(theirs)
    ours.save(tmp_path / "model.safetensors")
    frame = pd.DataFrame(X, columns=list("abcd"))
    expected = theirs.predict_proba(frame)
    for kept in (MLPClassifier.load(tmp_path / "model.safetensors"), pickle.loads(pickle.dumps(ours))):
        np.testing.assert_allclose(kept.predict_proba(frame), expected, rtol=1e-12)
    assert ours.to_sklearn().feature_names_in_.tolist() == list("abcd")


def test_float32_stays_float32() -> None:
    theirs = neural_network.MLPRegressor(hidden_layer_sizes=(6,), max_iter=9).fit(
        X.astype(np.float32), X[:, 0]
    )
    ours = MLPRegressor.from_sklearn(theirs)
    assert ours.predict(X.astype(np.float32)).dtype == np.float32
    assert ours.to_sklearn().coefs_[0].dtype == np.float32


def test_what_cannot_be_exchanged_is_named() -> None:
    theirs = neural_network.MLPRegressor(hidden_layer_sizes=(6,), max_iter=9)
    with pytest.raises(ConfigError, match=r"takes a fitted sklearn\.neural_network\.MLPClassifier, not"):
        MLPClassifier.from_sklearn(theirs)
    with pytest.raises(NotFittedError):
        MLPRegressor.from_sklearn(theirs)
    with pytest.raises(NotFittedError):
        MLPRegressor().to_sklearn()
    ours = MLPRegressor(activation="gelu", max_iter=3).fit(X, X[:, 0])
    with pytest.raises(ConfigError, match="no activation 'gelu': it has identity, logistic, relu, tanh"):
        ours.to_sklearn()
    of_table = MLPRegressor(preset="tables", max_iter=2).fit(X, X[:, 0])
    with pytest.raises(ConfigError, match='preset="tables"'):
        of_table.to_sklearn()


def test_what_scikit_learn_lacks_affects_no_prediction() -> None:
    ours = MLPRegressor("huber", (6,), dropout=0.3, optimizer="adamw", max_iter=9).fit(X, X[:, 0])
    same(ours, ours.to_sklearn())
