"""How an estimator's weights move with nnkit's own optimizers, schedules and callbacks.

One step over all rows shows a rule as it is written; several are compared with scikit-learn's.
"""

from __future__ import annotations

import copy
import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from plain_network import ONE_STEP, Weights, descent, first_weights, gradient, half_squares, outputs, penalty
from sklearn.base import clone
from sklearn.model_selection import cross_val_score
from twins import ROWS, assert_same_course, assert_same_network, ours_for, problem, same_bits, theirs_for

import nnkit

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

# --- optimizers, decay, clipping ---


@pytest.mark.parametrize(
    ("optimizer", "settings"),
    [
        (nnkit.SGD(0.05), {"solver": "sgd", "momentum": 0.0}),
        (nnkit.Momentum(0.05, momentum=0.8), {"solver": "sgd", "momentum": 0.8, "nesterovs_momentum": False}),
        (nnkit.Nesterov(0.05), {"solver": "sgd"}),
        ({"name": "nesterov", "learning_rate": 0.05}, {"solver": "sgd"}),
        (nnkit.Adam(0.05), {"solver": "adam"}),
        ({"name": "adam", "learning_rate": 0.05, "beta1": 0.7}, {"solver": "adam", "beta_1": 0.7}),
    ],
    ids=str,
)
def test_an_optimizer_of_nnkit_serves_in_place_of_the_solvers_rule(optimizer: Any, settings: dict) -> None:
    # Where the rate is constant the textbook's rules are scikit-learn's; Adam's but for its epsilon of 1e-8.
    X, y = problem("multiclass")
    theirs = theirs_for("multiclass", max_iter=10, learning_rate_init=0.05, **settings).fit(X, y)
    ours = ours_for("multiclass", max_iter=10, optimizer=optimizer).fit(X, y)
    assert_same_course(theirs, ours, tolerance=1e-4 if "adam" in str(optimizer).lower() else 1e-9)


def test_an_optimizers_name_takes_its_rate_from_learning_rate_init() -> None:
    X, y = problem("multiclass")
    theirs = theirs_for("multiclass", solver="sgd", momentum=0.0, learning_rate_init=0.05, max_iter=5).fit(
        X, y
    )
    ours = ours_for("multiclass", optimizer="sgd", learning_rate_init=0.05, max_iter=5).fit(X, y)
    assert_same_course(theirs, ours)


def test_adamw_decays_the_weights_apart_from_the_gradient() -> None:
    # Adam's first step is the sign of the gradient (Kingma and Ba 2014): the decay is what differs.
    X, y = problem("multiclass")
    settings = ONE_STEP | {"alpha": 0.0}
    plain = ours_for("multiclass", optimizer=nnkit.Adam(0.01), **settings).fit(X, y)
    decayed = ours_for("multiclass", optimizer=nnkit.AdamW(0.01, weight_decay=0.3), **settings).fit(X, y)
    for one, other, before in zip(plain.coefs_, decayed.coefs_, first_weights("multiclass")[0], strict=True):
        np.testing.assert_allclose(one - other, 0.01 * 0.3 * before, atol=1e-12)
    for one, other in zip(plain.intercepts_, decayed.intercepts_, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("optimizer", ["adagrad", "rmsprop", {"name": "rmsprop", "decay": 0.8}], ids=str)
def test_adagrad_and_rmsprop_begin_with_their_first_step(optimizer: Any) -> None:
    # w ← w − η g / (√s + ε) with s = g², or (1 − ρ) g²: the sign of the gradient, scaled.
    X, y = problem("regression")

    def expected(weights: Weights) -> float:
        return half_squares(outputs(weights, X), y) + penalty(weights, 0.1, ROWS)

    ours = ours_for("regression", optimizer=optimizer, **ONE_STEP | {"learning_rate_init": 0.01}).fit(X, y)
    share = {"adagrad": 1.0, "rmsprop": 0.1}[optimizer] if isinstance(optimizer, str) else 0.2
    slopes = gradient(expected, first_weights("regression"))
    moved = descent(ours, "regression")
    for step, slope in zip(moved[0] + moved[1], slopes[0] + slopes[1], strict=True):
        seen = np.abs(slope) > 1e-4  # ε counts beside a smaller one
        np.testing.assert_allclose(step[seen], 0.01 * np.sign(slope[seen]) / np.sqrt(share), rtol=1e-3)


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_weight_decay_shrinks_weights_by_the_rate(solver: str) -> None:
    X, y = problem("binary")
    settings = ONE_STEP | {"solver": solver, "alpha": 0.0, "learning_rate_init": 0.01}
    plain = ours_for("binary", **settings).fit(X, y)
    decayed = ours_for("binary", weight_decay=0.3, **settings).fit(X, y)
    for one, other, before in zip(plain.coefs_, decayed.coefs_, first_weights("binary")[0], strict=True):
        np.testing.assert_allclose(one - other, 0.01 * 0.3 * before, atol=1e-12)
    for one, other in zip(plain.intercepts_, decayed.intercepts_, strict=True):
        np.testing.assert_array_equal(one, other)


def test_the_norm_of_a_gradient_is_clipped_over_all_weights() -> None:
    X, y = problem("regression")
    plain = descent(ours_for("regression", **ONE_STEP).fit(X, y), "regression")
    full = np.concatenate([array.ravel() for array in plain[0] + plain[1]])
    norm = float(np.linalg.norm(full))
    for limit, length in ((norm / 3, norm / 3), (2 * norm, norm)):
        moved = descent(ours_for("regression", clip_norm=limit, **ONE_STEP).fit(X, y), "regression")
        step = np.concatenate([array.ravel() for array in moved[0] + moved[1]])
        np.testing.assert_allclose(step, full * length / norm, atol=1e-10)


@pytest.mark.parametrize(
    "wrong",
    [
        {"optimizer": "newton"},
        {"optimizer": {"name": "adam", "beta3": 1}},
        {"optimizer": 3},
        {"schedule": "never"},
        {"schedule": {"name": "step", "ever": 2}},
        {"weight_decay": -0.1},
        {"clip_norm": 0.0},
        {"clip_norm": "much"},
        {"callbacks": 3},
        {"device": 5},
        {"precision": "fp8"},
        {"dtype": "int8"},
    ],
    ids=str,
)
def test_a_wrong_value_of_nnkits_own_parameters_names_it(wrong: dict[str, Any]) -> None:
    X, y = problem("binary")
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ours_for("binary", **wrong).fit(X, y)


# --- schedules ---


def chained(rates: list[float], kind: str = "regression") -> Any:
    """Return scikit-learn's estimator after epochs of plain descent, each at its own rate."""
    X, y = problem(kind)
    theirs = theirs_for(kind, warm_start=True, **ONE_STEP)
    for rate in rates:
        theirs.set_params(learning_rate_init=rate).fit(X, y)
    return theirs


@pytest.mark.parametrize(
    ("schedule", "factors"),
    [
        ({"name": "step", "every": 2, "factor": 0.5}, [1, 1, 0.5, 0.5, 0.25, 0.25]),
        ("cosine", [0.5 * (1 + np.cos(np.pi * t / 6)) for t in range(6)]),
        ({"name": "exponential", "rate": 0.7}, [0.7**t for t in range(6)]),
        ({"name": "constant", "warmup": 3}, [0.25, 0.5, 0.75, 1, 1, 1]),
    ],
    ids=["step", "cosine", "exponential", "warm-up"],
)
def test_a_schedule_multiplies_the_rate(schedule: Any, factors: list[float]) -> None:
    X, y = problem("regression")
    settings = ONE_STEP | {"max_iter": 6, "learning_rate_init": 0.1}
    ours = ours_for("regression", schedule=schedule, **settings).fit(X, y)
    theirs = chained([0.1 * factor for factor in factors])
    assert_same_network(theirs, ours, tolerance=1e-10)
    np.testing.assert_allclose(ours.loss_curve_, theirs.loss_curve_, atol=1e-10)


def test_a_schedule_can_be_an_instance_and_goes_with_any_optimizer() -> None:
    from nnkit.nn.schedules import Cosine

    X, y = problem("regression")
    settings = {"max_iter": 6, "optimizer": nnkit.AdamW(0.01)}
    named, given, constant = (
        ours_for("regression", schedule=schedule, **settings).fit(X, y)
        for schedule in ("cosine", Cosine(), None)
    )
    assert same_bits(named, given)
    assert not same_bits(named, constant)


SCHEDULES = [
    "exponential",
    {"name": "step", "every": 2, "factor": 0.1},
    {"name": "inverse_time", "decay": 0.5},
    {"name": "exponential", "rate": 0.5, "warmup": 3},
    {"name": "exponential", "rate": 0.5, "warmup_epochs": 2},
    {"name": "reduce_on_plateau", "patience": 1, "min_delta": 1e9, "factor": 0.5, "warmup_epochs": 1.5},
    "cosine",
    {"name": "cosine", "minimum": 0.1, "warmup_epochs": 1},
    "one_cycle",
]


class Rates(nnkit.Callback):
    """Keeps the learning rate of each epoch's last step."""

    def __init__(self) -> None:
        self.rates: list[float] = []

    def on_epoch_end(self, trainer: Any, figures: nnkit.TrainingStatus) -> None:
        self.rates.append(figures.learning_rate)


@pytest.mark.parametrize("copied", [False, True], ids=["one object", "pickled between calls"])
@pytest.mark.parametrize("schedule", SCHEDULES, ids=str)
def test_calls_of_partial_fit_advance_the_schedule_as_the_epochs_of_a_fit(
    schedule: Any, copied: bool
) -> None:
    X, y = problem("binary")
    settings = {"schedule": schedule, "max_iter": 6, "learning_rate_init": 0.1}
    fitted = ours_for("binary", callbacks=[Rates()], **settings).fit(X, y)
    called = ours_for("binary", callbacks=[Rates()], **settings)
    for _ in range(6):
        called.partial_fit(X, y, classes=[0, 1])
        if copied:
            called = pickle.loads(pickle.dumps(called))
    assert len(set(fitted.callbacks[0].rates)) > 1
    assert called.callbacks[0].rates == pytest.approx(fitted.callbacks[0].rates, rel=1e-12)
    assert_same_network(fitted, called, tolerance=1e-12)


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle", "exponential"])
def test_after_max_iter_calls_a_schedule_keeps_its_last_rate_unless_its_length_is_open(schedule: str) -> None:
    X, y = problem("regression")
    ours = ours_for("regression", schedule=schedule, max_iter=4, learning_rate_init=0.1, callbacks=[Rates()])
    for _ in range(7):
        ours.partial_fit(X, y)
    rates = ours.callbacks[0].rates
    if schedule == "exponential":
        np.testing.assert_allclose(rates, rates[0] * 0.95 ** np.arange(7))
    else:
        assert rates[3:] == [rates[3]] * 4
        assert 0 < rates[3] < rates[1]


def test_partial_fit_continues_the_schedule_of_a_fit_and_a_fit_begins_it() -> None:
    X, y = problem("regression")
    settings = {
        "schedule": "exponential",
        "learning_rate_init": 0.1,
        "callbacks": [Rates()],
        "warm_start": True,
    }
    ours = ours_for("regression", max_iter=3, batch_size=ROWS, **settings)
    ours.fit(X, y).partial_fit(X, y).fit(X, y)
    powers = [0, 1, 2, 3, 0, 1, 2]
    np.testing.assert_allclose(ours.callbacks[0].rates, 0.1 * 0.95 ** np.array(powers))


# --- callbacks ---


class Recorder(nnkit.Callback):
    """Keeps the calls and the figures that came with them."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.losses: list[float] = []
        self.epochs: list[int] = []

    def on_train_begin(self, trainer: Any, figures: nnkit.TrainingStatus) -> None:
        self.calls.append("begin")

    def on_epoch_end(self, trainer: Any, figures: nnkit.TrainingStatus) -> None:
        self.calls.append("epoch")
        self.losses.append(figures.loss)
        self.epochs.append(figures.epoch)

    def on_train_end(self, trainer: Any, figures: nnkit.TrainingStatus) -> None:
        self.calls.append("end")


@pytest.mark.parametrize("solver", ["sgd", "adam"])
def test_callbacks_are_called_around_every_epoch(solver: str) -> None:
    X, y = problem("multiclass")
    recorder = Recorder()
    ours = ours_for("multiclass", solver=solver, callbacks=[recorder], max_iter=4).fit(X, y)
    assert recorder.calls == ["begin", "epoch", "epoch", "epoch", "epoch", "end"]
    assert recorder.epochs == [1, 2, 3, 4]
    np.testing.assert_allclose(recorder.losses, ours.loss_curve_, atol=1e-9)


class Plain:
    """No `Callback`, and with one method alone."""

    def __init__(self) -> None:
        self.epochs: list[int] = []

    def on_epoch_end(self, trainer: Any, figures: nnkit.TrainingStatus) -> None:
        self.epochs.append(figures.epoch)


@pytest.mark.parametrize("number", ["one", "list", "tuple", "none"])
def test_callbacks_are_any_objects_with_the_methods_one_or_several(number: str) -> None:
    X, y = problem("binary")
    plain = Plain()
    given = {"one": plain, "list": [plain, Recorder()], "tuple": (plain,), "none": None}[number]
    ours_for("binary", callbacks=given, max_iter=3).fit(X, y).partial_fit(X, y)
    assert plain.epochs == ([] if number == "none" else [1, 2, 3, 1])


@pytest.mark.parametrize("wrong", [3, print, [print], Plain, [Plain], "plain", [None], {"a": 1}], ids=repr)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_wrong_callback_is_refused_before_the_training(wrong: Any, solver: str) -> None:
    X, y = problem("binary")
    ours = ours_for("binary", callbacks=wrong, solver=solver)
    with pytest.raises(ValueError, match="callbacks: "):
        ours.fit(X, y)
    assert not hasattr(ours, "coefs_")


def tracker(folder: Path) -> Any:
    from nnkit.training.trackers import TensorBoard

    return TensorBoard(folder)


@pytest.mark.parametrize(
    "made",
    [
        pytest.param(lambda folder: [nnkit.ProgressDisplay()], id="display"),
        pytest.param(lambda folder: nnkit.ProgressDisplay(file=sys.stderr), id="display on a file"),
        pytest.param(lambda folder: [tracker(folder)], id="tracker", marks=pytest.mark.extra("tensorboard")),
        pytest.param(lambda folder: Plain(), id="plain"),
    ],
)
def test_an_estimator_with_callbacks_is_cloned_copied_pickled_and_validated(
    made: Any, tmp_path: Path
) -> None:
    X, y = problem("binary")
    ours = ours_for("binary", callbacks=made(tmp_path), max_iter=2)
    for _ in range(2):  # before a fit, and after it
        cloned, copied = clone(ours), copy.deepcopy(ours)
        again = pickle.loads(pickle.dumps(ours))
        for each in (cloned, copied, again):
            each.fit(X, y)
        assert len(cross_val_score(ours, X, y, n_jobs=2, cv=2)) == 2
        ours.fit(X, y)
        assert same_bits(ours, again)


def test_callbacks_do_not_change_the_training() -> None:
    X, y = problem("binary")
    one, other = (
        ours_for("binary", callbacks=callbacks, max_iter=4).fit(X, y) for callbacks in (None, (Recorder(),))
    )
    assert same_bits(one, other)
