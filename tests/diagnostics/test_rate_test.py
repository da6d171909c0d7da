"""The learning-rate range test: what it finds, and that it leaves the weights alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nnkit import SGD, Adam, Dense, Network, Trainer
from nnkit.diagnostics.rate_test import RateCurve, find_rate, smooth
from nnkit.errors import ConfigError, DataError
from nnkit.runs.config import Config
from nnkit.runs.run import Run


def problem(rows: int = 512) -> tuple[Any, Any]:
    generator = np.random.default_rng(0)
    X = generator.standard_normal((rows, 5)).astype(np.float32)
    return X, (X @ [1.0, -2.0, 0.5, 0.0, 3.0] + 0.1 * generator.standard_normal(rows)).astype(np.float32)


def test_the_weights_and_the_next_training_are_unchanged() -> None:
    X, y = problem()
    found = []
    for tested in (False, True):
        network = Network([Dense(16, "relu"), Dense(1)], inputs=5, seed=3)
        trainer = Trainer(network, "mse", Adam(1e-3), device="cpu")
        before = network.parameters()
        if tested:
            find_rate(trainer, X, y, batch_size=32)
            after = network.parameters()
            assert all(np.array_equal(before[name], after[name]) for name in before)
        trainer.fit(X, y, epochs=2, batch_size=32)
        found.append(network.parameters())
    assert all(np.array_equal(found[0][name], found[1][name]) for name in found[0])


def test_a_network_without_weights_is_drawn_as_training_draws_it() -> None:
    X, y = problem()
    trainer = Trainer(Network([Dense(8, "relu"), Dense(1)]), "mse", device="cpu", seed=7)
    find_rate(trainer, X, y)
    drawn = Network([Dense(8, "relu"), Dense(1)], inputs=5, seed=7).parameters()
    found = trainer.network.parameters()
    assert all(np.array_equal(drawn[name], found[name]) for name in drawn)


def test_the_loss_rises_beyond_the_rate_at_which_gradient_descent_must_diverge() -> None:
    X, y = problem()
    curve = find_rate(Trainer(Network([Dense(1)]), "mse", SGD(0.1), device="cpu"), X, y, batch_size=512)
    # For ½ (Xw + b − y)²: steps of more than 2 / λ, of the largest eigenvalue, overshoot ever further.
    ones = np.hstack([X, np.ones((len(X), 1))]).astype(np.float64)
    critical = 2 / np.linalg.eigvalsh(ones.T @ ones / len(X)).max()
    assert curve.diverged
    assert critical < curve.rates[-1] < 10 * critical
    # What grows there begins at next to nothing, and takes a dozen steps to be seen.
    assert critical / 10 < curve.least < 5 * critical
    assert curve.steepest < curve.least
    assert critical / 20 < curve.suggested < critical


def test_the_losses_are_those_of_plain_gradient_descent() -> None:
    X, y = problem(64)
    network = Network([Dense(1)], inputs=5, seed=0)
    w = network.parameters()["layers.0.weight"].astype(np.float64)[:, 0]
    trainer = Trainer(network, "mse", SGD(0.1), device="cpu")
    curve = find_rate(trainer, X, y, batch_size=64, lowest=1e-3, highest=0.1, steps=20)
    b, losses = 0.0, []
    for rate in np.geomspace(1e-3, 0.1, 20):
        error = X @ w + b - y
        losses.append(0.5 * np.mean(error**2))
        w, b = w - rate * X.T @ error / 64, b - rate * error.mean()
    assert np.allclose(curve.losses, losses, rtol=1e-4)
    assert np.allclose(curve.rates, np.geomspace(1e-3, 0.1, 20))


def test_the_smoothed_loss_is_a_weighted_mean() -> None:
    losses = np.random.default_rng(0).random(30)
    for step in (1, 2, 17, 30):
        weights = 0.9 ** np.arange(step)[::-1]
        assert smooth(losses.tolist())[step - 1] == pytest.approx(np.average(losses[:step], weights=weights))


def test_the_suggestion_is_a_tenth_of_the_rate_of_least_loss() -> None:
    rates = np.geomspace(1e-4, 1, 5)
    curve = RateCurve(rates, np.array([3.0, 2.9, 1.0, 0.5, 4.0]), np.array([3.0, 2.9, 1.0, 0.5, 4.0]))
    assert curve.least == rates[3]
    assert curve.suggested == pytest.approx(0.01)
    assert "training.learning_rate = 0.01" in curve.lines()
    assert curve.to_json()["suggested"] == curve.suggested


def test_the_steepest_fall_is_not_looked_for_in_noise() -> None:
    rates = np.geomspace(1e-6, 1, 121)
    noise = 0.3 * np.random.default_rng(0).standard_normal(121)
    losses = 2 / (1 + (rates / 1e-3) ** 1.5) + noise  # falls fastest at 1e-3
    curve = RateCurve(rates, losses, smooth(losses.tolist()))
    # The mean lags by ten steps, of which twenty make a decade.
    assert 1e-3 / 3 < curve.steepest < 1e-3 * 10


@pytest.mark.slow
def test_a_suggested_rate_learns_better_than_a_hundredth_and_a_hundredfold(tmp_path: Path) -> None:
    def accuracy(rate: float) -> float:
        settings = [f"training.learning_rate={rate}", "training.epochs=3", f"run.out={tmp_path / str(rate)}"]
        return Run(Config().with_overrides(["data.train=digits", *settings])).train().metrics["accuracy"]

    tested = tmp_path / "tested"
    run = Run(Config().with_overrides(["data.train=digits", f"run.out={tested}"]))
    rate = run.tune_rate(1e-6, 10.0, 200).suggested
    assert not tested.exists()  # the rate test writes nothing
    assert accuracy(rate) > max(accuracy(rate / 100), accuracy(rate * 100)) + 0.05


@pytest.mark.parametrize(
    "options", [{"lowest": 1.0, "highest": 0.1}, {"lowest": 0.0}, {"steps": 3}, {"batch_size": 0}]
)
def test_settings_out_of_range_are_refused(options: dict[str, Any]) -> None:
    X, y = problem(64)
    with pytest.raises(ConfigError):
        find_rate(Trainer(Network([Dense(1)]), "mse", device="cpu"), X, y, **options)


def test_a_loss_that_is_never_finite_is_an_error() -> None:
    X, y = problem(64)
    trainer = Trainer(Network([Dense(1)]), "mse", SGD(1.0), device="cpu")
    with pytest.raises(DataError, match="not finite at a learning rate of 1e-06"):
        find_rate(trainer, X * np.float32(1e30), y, batch_size=16)
