"""A name registered again, as a notebook's cell is run again: what was made before keeps its functions."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.base import clone

from nnkit import Dense, MLPClassifier, MLPRegressor, Network, Trainer, register_activation, register_loss
from nnkit.errors import ConfigError
from nnkit.nn import activations, losses

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

random = np.random.default_rng(0)
X = random.normal(size=(60, 4))
CLASSES = (X[:, 0] > 0).astype(int)
VALUES = X @ [1.0, -2.0, 0.5, 0.0]


def soft(z):
    return z / (1.0 + abs(z))


def soft_derivative(z):
    return 1.0 / ((1.0 + abs(z)) * (1.0 + abs(z)))


def minus_five(z):
    return -5.0 * z


def minus_five_derivative(a):
    return -5.0


def steep(y, t, factor):
    return factor * (y - t) * (y - t)


def steep_derivative(y, t, factor):
    return 2.0 * factor * (y - t)


def of_rates(y, t):
    return y + t * math_exp(-y)


def of_rates_derivative(y, t):
    return 1.0 - t * math_exp(-y)


from math import exp as math_exp  # noqa: E402 - the formulas' name for it


@pytest.fixture(autouse=True)
def _registered(monkeypatch: pytest.MonkeyPatch) -> None:
    """`mine` is what each test registers again; `kept` is the same, and stays."""
    monkeypatch.setattr(activations, "_REGISTRY", dict(activations._REGISTRY))
    monkeypatch.setattr(losses, "_REGISTRY", dict(losses._REGISTRY))
    for name in ("mine", "kept"):
        register_activation(name, soft, soft_derivative)
        register_loss(name, steep, steep_derivative, factor=0.7)


def register_again() -> None:
    register_activation("mine", minus_five, minus_five_derivative)
    register_loss("mine", of_rates, of_rates_derivative, "exp")


def by_numpy(model: Any, rows: np.ndarray) -> np.ndarray:
    """Return the outputs under the first definition."""
    z = rows @ model.coefs_[0] + model.intercepts_[0]
    return (z / (1 + np.abs(z))) @ model.coefs_[1] + model.intercepts_[1]


def assert_answers(model: Any) -> None:
    """The answers are those of the first definition, for any number of rows."""
    expected = by_numpy(model, X)[:, 0]
    for count in (1, 2, 60):
        if isinstance(model, MLPRegressor):
            found, right = model.predict(X[:count]), expected[:count]
        else:
            found, right = model.predict_proba(X[:count])[:, 1], 1 / (1 + np.exp(-expected[:count]))
        np.testing.assert_allclose(found, right, atol=1e-12)


def made(kind: type, name: str, **options: Any) -> Any:
    options = {"loss": name, **options} if kind is MLPRegressor else options
    return kind(hidden_layer_sizes=(5,), activation=name, max_iter=3, random_state=0, **options)


@pytest.mark.parametrize(("kind", "y"), [(MLPClassifier, CLASSES), (MLPRegressor, VALUES)])
def test_a_fitted_estimator_answers_by_its_own_functions(kind, y) -> None:
    model = made(kind, "mine").fit(X, y)
    model.predict(X[:1])  # one row's program is kept
    register_again()
    assert_answers(model)
    assert_answers(copy.deepcopy(model))
    other = copy.deepcopy(model)
    other.coefs_ = [coefs.copy() for coefs in other.coefs_]
    assert_answers(other)


@pytest.mark.parametrize(("kind", "y"), [(MLPClassifier, CLASSES), (MLPRegressor, VALUES)])
@pytest.mark.parametrize("copied", [lambda model: model, copy.deepcopy], ids=["itself", "deepcopy"])
def test_an_estimator_continues_with_its_own_functions(kind, y, copied) -> None:
    model, twin = (made(kind, name, warm_start=True).fit(X, y) for name in ("mine", "kept"))
    register_again()
    model = copied(model)
    for one in (model, twin):
        one.partial_fit(X[:40], y[:40])
        one.fit(X, y)
    for mine, kept in zip(model.coefs_ + model.intercepts_, twin.coefs_ + twin.intercepts_, strict=True):
        np.testing.assert_array_equal(mine, kept)
    assert model.loss_curve_ == twin.loss_curve_
    assert_answers(model)


def test_a_loss_that_is_registered_again_may_have_other_parameters_and_another_link() -> None:
    model, twin = (made(MLPRegressor, name).fit(X, VALUES) for name in ("mine", "kept"))
    register_again()
    for one in (model, twin):
        one.partial_fit(X, VALUES)
        assert one.out_activation_ == "identity"
    np.testing.assert_array_equal(model.coefs_[0], twin.coefs_[0])
    fresh = made(MLPRegressor, "mine").fit(X, np.abs(VALUES))
    assert fresh.out_activation_ == "exp"


def test_a_new_fit_takes_the_new_functions() -> None:
    model = made(MLPClassifier, "mine").fit(X, CLASSES)
    register_again()
    for one in (clone(model).fit(X, CLASSES), model.fit(X, CLASSES)):
        z = X @ one.coefs_[0] + one.intercepts_[0]
        logits = (-5 * z @ one.coefs_[1] + one.intercepts_[1])[:, 0]
        np.testing.assert_allclose(one.predict_proba(X)[:, 1], 1 / (1 + np.exp(-logits)), atol=1e-12)


def test_a_pickle_names_its_functions_and_wants_them_registered() -> None:
    model = made(MLPRegressor, "mine").fit(X, VALUES)
    data = pickle.dumps(model)
    assert_answers(pickle.loads(data))
    assert b"soft_derivative" not in data
    assert b"steep_derivative" not in data
    del activations._REGISTRY["mine"]
    with pytest.raises(ConfigError, match="unknown activation 'mine'"):
        pickle.loads(data)


def test_a_network_and_a_trainer_keep_their_functions() -> None:
    networks = {name: Network([Dense(5, name), Dense(1)], inputs=4, seed=1) for name in ("mine", "kept")}
    trainers = {name: Trainer(net, name, device="cpu", seed=3) for name, net in networks.items()}
    before = networks["mine"].outputs(X)
    register_again()
    for count in (1, 2, 60):
        np.testing.assert_allclose(networks["mine"].outputs(X[:count]), before[:count], atol=1e-6)
    np.testing.assert_array_equal(copy.deepcopy(networks["mine"]).outputs(X), before)
    for trainer in trainers.values():
        trainer.fit(X, VALUES, epochs=2, batch_size=16)
    for name, value in networks["mine"].parameters().items():
        np.testing.assert_array_equal(value, networks["kept"].parameters()[name])
    fresh = Network([Dense(5, "mine"), Dense(1)], inputs=4, seed=1)
    assert np.abs(fresh.outputs(X) - before).max() > 0.1
    # A network that draws its weights late keeps what it was made with, too.
    late = Network([Dense(5, "mine"), Dense(1)])
    register_activation("mine", soft, soft_derivative)
    late.initialize(4, seed=1)
    np.testing.assert_array_equal(late.outputs(X), fresh.outputs(X))
