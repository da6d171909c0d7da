"""What an estimator prints, warns of and refuses: scikit-learn's words, for scikit-learn's mistakes."""

from __future__ import annotations

import re
import warnings
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning, NotFittedError
from sklearn.utils._param_validation import InvalidParameterError
from twins import ROWS, assert_same_network, fitted_twins, ours_for, problem, theirs_for, twins

import nnkit

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

SGD = {"solver": "sgd", "learning_rate_init": 0.05}
ADAM = {"solver": "adam", "learning_rate_init": 0.01}


# --- what is printed and warned of ---


@pytest.mark.parametrize(
    "settings",
    [
        SGD | {"max_iter": 3},
        SGD | {"learning_rate": "adaptive", "tol": 0.05, "n_iter_no_change": 1, "max_iter": 100},
        ADAM | {"early_stopping": True, "tol": 0.01, "n_iter_no_change": 2, "max_iter": 100},
    ],
    ids=["iterations", "rates", "scores"],
)
def test_verbose_prints_scikit_learns_lines(settings: dict[str, Any], capsys: pytest.CaptureFixture) -> None:
    X, y = problem("binary")
    theirs, ours = twins("binary", verbose=True, **settings)
    theirs.fit(X, y)
    expected = capsys.readouterr().out.splitlines()
    ours.fit(X, y)
    found = capsys.readouterr().out.splitlines()
    number = re.compile(r"\d+\.\d+")
    assert [number.sub("#", line) for line in found] == [number.sub("#", line) for line in expected]
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(
            [float(text) for text in number.findall(one)],
            [float(text) for text in number.findall(other)],
            atol=1e-6,
        )


@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
def test_a_training_that_has_not_converged_warns_as_scikit_learns_does(solver: str) -> None:
    X, y = problem("binary")
    said = []
    for estimator in twins("binary", solver=solver, max_iter=3):
        with pytest.warns(ConvergenceWarning) as caught:
            estimator.fit(X, y)
        # What follows the colon are L-BFGS's own words, which scikit-learn's versions quote differently.
        said.append([(record.category, str(record.message).split(" (status")[0]) for record in caught])
    assert [category for category, _ in said[0]] == [category for category, _ in said[1]]
    assert all(ours.startswith(theirs) for (_, theirs), (_, ours) in zip(*said, strict=True))


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_training_that_has_converged_is_silent(solver: str, capfd: pytest.CaptureFixture) -> None:
    X, y = problem("binary")
    for estimator in twins("binary", solver=solver, tol=0.05, n_iter_no_change=2, max_iter=500):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            estimator.fit(X, y)
    assert capfd.readouterr() == ("", "")


# --- mistakes ---

WRONG = [
    {"hidden_layer_sizes": "wide"},
    {"hidden_layer_sizes": 0},
    {"solver": "newton"},
    {"alpha": -1},
    {"alpha": "much"},
    {"batch_size": 0},
    {"batch_size": 1.5},
    {"learning_rate": "exponential"},
    {"learning_rate_init": 0},
    {"power_t": -0.1},
    {"max_iter": 0},
    {"max_iter": 2.5},
    {"shuffle": "yes"},
    {"random_state": "seed"},
    {"tol": -1e-4},
    {"verbose": -1},
    {"warm_start": "yes"},
    {"momentum": 1.1},
    {"nesterovs_momentum": None},
    {"early_stopping": "auto"},
    {"validation_fraction": 1.0},
    {"beta_1": 1.0},
    {"beta_2": -0.1},
    {"epsilon": 0},
    {"n_iter_no_change": 0},
    {"max_fun": 0},
]


@pytest.mark.parametrize("method", ["fit", "partial_fit"])
@pytest.mark.parametrize("wrong", WRONG, ids=str)
@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_a_wrong_parameter_is_refused_in_scikit_learns_words(kind: str, wrong: dict, method: str) -> None:
    X, y = problem(kind)
    if method == "partial_fit" and "solver" in wrong:
        pytest.skip("there is no partial_fit with such a solver")
    words = []
    for estimator in twins(kind, **wrong):
        with pytest.raises(InvalidParameterError) as caught:
            getattr(estimator, method)(X, y)
        words.append(re.sub(r"{.*?}", listing, str(caught.value)))
    assert words[0] == words[1]


def listing(match: re.Match) -> str:
    """Return choices in the order of the alphabet: scikit-learn lists them as a set happens to be."""
    return str(sorted(match[0].strip("{}").split(", ")))


@pytest.mark.parametrize("kind", ["binary", "regression"])
@pytest.mark.parametrize("wrong", [{"activation": "step"}, {"activation": None}, {"loss": "hinge"}], ids=str)
def test_an_unknown_activation_or_loss_is_refused(kind: str, wrong: dict[str, Any]) -> None:
    X, y = problem(kind)
    name = next(iter(wrong))
    with pytest.raises(InvalidParameterError, match=f"The '{name}' parameter of MLP.* must be"):
        twins(kind, alpha=0.0)[1].set_params(**wrong).fit(X, y)


NO_SIZES = [
    *((3.5,), (True,), True, False, (np.True_,), np.array([4.0]), np.array([True]), [np.float64(4.0)]),
    *("8", ["8"], ((3,), 4), np.array([[3], [4]]), np.array(5), np.float64(5.0), (3, None), None, 5.0),
]


@pytest.mark.parametrize("sizes", NO_SIZES, ids=repr)
@pytest.mark.parametrize("method", ["fit", "partial_fit"])
def test_widths_that_are_no_whole_numbers_are_refused_by_name(sizes: Any, method: str) -> None:
    X, y = problem("regression")
    ours = ours_for("regression", hidden_layer_sizes=sizes)
    with pytest.raises(ValueError, match="hidden_layer_sizes") as caught:
        getattr(ours, method)(X, y)
    wrong = sizes if not isinstance(sizes, tuple | list) else next(s for s in sizes if s != 3)
    assert repr(wrong) in str(caught.value)
    assert not hasattr(ours, "coefs_")
    with pytest.raises(ValueError, match="hidden_layer_sizes"):
        ours_for("regression", hidden_layer_sizes=(size for size in (3, 4))).fit(X, y)


@pytest.mark.parametrize(
    "sizes", [range(3, 5), (np.int8(3), np.uint64(4)), np.array([3, 4], np.int16)], ids=repr
)
def test_widths_of_every_whole_type_are_taken(sizes: Any) -> None:
    X, y = problem("regression")
    theirs, ours = (twin.fit(X, y) for twin in twins("regression", hidden_layer_sizes=sizes, max_iter=2))
    assert [coef.shape for coef in ours.coefs_] == [(4, 3), (3, 4), (4, 1)]
    assert_same_network(theirs, ours)


@pytest.mark.parametrize(
    "name",
    [
        "batch_size",
        "max_iter",
        "n_iter_no_change",
        "max_fun",
        "alpha",
        "tol",
        "dropout",
        "clip_norm",
        "momentum",
    ],
)
def test_true_is_no_number(name: str) -> None:
    X, y = problem("binary")
    with pytest.raises(InvalidParameterError, match=f"'{name}' parameter .* Got True"):
        ours_for("binary", **{name: True}).fit(X, y)


@pytest.mark.parametrize(
    "rates",
    [(True, 0.1), ("0.1", 0.1), ((0.1,), 0.1), (None, 0.1), (np.nan, 0.1), (1.0, 0.1), (-0.1, 0.1)],
    ids=repr,
)
def test_rates_that_are_none_are_refused_by_name(rates: Any) -> None:
    X, y = problem("binary")
    ours = ours_for("binary", dropout=rates)
    with pytest.raises(ValueError, match="dropout = ") as caught:
        ours.fit(X, y)
    assert f": {rates[0]!r} is not a rate" in str(caught.value)
    assert not hasattr(ours, "coefs_")


@pytest.mark.parametrize("sizes", [(5, 0), [-3], (0,)], ids=str)
def test_layers_without_units_are_refused(sizes: Any) -> None:
    X, y = problem("binary")
    for estimator in twins("binary", hidden_layer_sizes=sizes):
        with pytest.raises(ValueError, match="hidden_layer_sizes must be > 0, got"):
            estimator.fit(X, y)


def nothing(X: NDArray, y: NDArray) -> tuple[Any, Any]:
    return X[:0], y[:0]


def with_nan(X: NDArray, y: NDArray) -> tuple[Any, Any]:
    return np.where(X > 1, np.nan, X), y


def with_infinity(X: NDArray, y: NDArray) -> tuple[Any, Any]:
    return np.where(X > 1, np.inf, X), y


def shorter_target(X: NDArray, y: NDArray) -> tuple[Any, Any]:
    return X, y[:-1]


def flat(X: NDArray, y: NDArray) -> tuple[Any, Any]:
    return X[:, 0], y


def cube(X: NDArray, y: NDArray) -> tuple[Any, Any]:
    return X[:, :, None], y


def no_target(X: NDArray, y: NDArray) -> tuple[Any, Any]:
    return X, None


def texts(X: NDArray, y: NDArray) -> tuple[Any, Any]:
    return np.array([["a", "b"]] * len(X)), y


def complex_numbers(X: NDArray, y: NDArray) -> tuple[Any, Any]:
    return X + 1j, y


def target_with_nan(X: NDArray, y: NDArray) -> tuple[Any, Any]:
    return X, np.where(np.arange(len(y)) == 3, np.nan, y)


@pytest.mark.parametrize(
    "spoil",
    [
        nothing,
        with_nan,
        with_infinity,
        shorter_target,
        flat,
        cube,
        no_target,
        complex_numbers,
        target_with_nan,
    ],
)
@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_data_that_cannot_be_trained_on_are_refused_in_scikit_learns_words(kind: str, spoil: Any) -> None:
    X, y = spoil(*problem(kind))
    words = refusals(kind, X, y)
    assert words[0] == words[1]


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_texts_are_refused_in_scikit_learns_words_with_advice(kind: str) -> None:
    theirs, ours = sorted(refusals(kind, *texts(*problem(kind))), key=len)
    assert ours.startswith(theirs)
    assert ours.endswith('TfidfVectorizer, or give a data frame and preset="tables"')


def refusals(kind: str, X: Any, y: Any) -> list[str]:
    """Return what scikit-learn's estimator and ours say of data that cannot be trained on."""
    words = []
    for estimator in twins(kind, max_iter=1):
        with pytest.raises(ValueError) as caught:  # noqa: PT011 - the words are compared
            estimator.fit(X, y)
        words.append(str(caught.value))
    return words


@pytest.mark.parametrize(
    ("target", "message"),
    [
        (np.linspace(0, 1, ROWS), "Unknown label type"),
        (np.arange(2 * ROWS).reshape(ROWS, 2) % 3, "Multioutput target data is not supported"),
    ],
    ids=["continuous", "several classes in several columns"],
)
def test_targets_that_are_no_classes_are_refused(target: NDArray, message: str) -> None:
    X, _ = problem("binary")
    for estimator in twins("binary", max_iter=1):
        with pytest.raises(ValueError, match=message):
            estimator.fit(X, target)


@pytest.mark.parametrize(
    "weights", [np.ones(ROWS - 1), np.full(ROWS, np.nan), np.ones((ROWS, 2))], ids=["short", "nan", "table"]
)
def test_weights_that_do_not_fit_the_rows_are_refused(weights: NDArray) -> None:
    X, y = problem("binary")
    for estimator in twins("binary", max_iter=1):
        with pytest.raises(ValueError):  # noqa: PT011 - scikit-learn's words differ by its version
            estimator.fit(X, y, sample_weight=weights)


@pytest.mark.parametrize("kind", ["binary", "regression"])
def test_an_unfitted_estimator_is_an_error(kind: str) -> None:
    X, _ = problem(kind)
    theirs, ours = twins(kind)
    methods = ["predict", *(["predict_proba", "predict_log_proba"] if kind == "binary" else [])]
    for method in methods:
        words = []
        for estimator in (theirs, ours):
            with pytest.raises(NotFittedError) as caught:
                getattr(estimator, method)(X)
            words.append(str(caught.value))
        assert words[0] == words[1]


def test_rows_with_other_features_are_refused_in_scikit_learns_words() -> None:
    X, y = problem("binary")
    words = []
    for estimator in fitted_twins("binary", max_iter=1):
        for call in (lambda e: e.predict(X[:, :3]), lambda e: e.partial_fit(X[:, :3], y)):
            with pytest.raises(ValueError, match="features") as caught:
                call(estimator)
            words.append(str(caught.value))
    assert words[:2] == words[2:]


def test_lbfgs_has_no_partial_fit() -> None:
    X, y = problem("binary")
    words = []
    for estimator in twins("binary", solver="lbfgs"):
        assert not hasattr(estimator, "partial_fit")
        with pytest.raises(AttributeError, match="partial_fit") as caught:
            estimator.partial_fit(X, y, classes=[0, 1])
        words.append(str(caught.value))
    assert words[0] == words[1]


def test_the_first_partial_fit_needs_the_classes() -> None:
    X, y = problem("multiclass")
    for estimator in twins("multiclass"):
        with pytest.raises(ValueError, match="classes must be passed on the first call to partial_fit"):
            estimator.partial_fit(X, y)
        estimator.partial_fit(X, y, classes=[0, 1, 2])
        with pytest.raises(ValueError, match="is not the same as on last call to partial_fit"):
            estimator.partial_fit(X, y, classes=[0, 1, 2, 3])
        with pytest.raises(ValueError, match=r"`y` has classes not in `self\.classes_`"):
            estimator.partial_fit(X, y + 1)


def test_a_warm_start_needs_the_same_classes() -> None:
    X, y = problem("multiclass")
    for estimator in twins("multiclass", warm_start=True, max_iter=1):
        estimator.fit(X, y)
        with pytest.raises(ValueError, match="warm_start can only be used where `y` has the same classes"):
            estimator.fit(X, np.minimum(y, 1))


def test_one_row_to_validate_on_is_too_few() -> None:
    X, y = problem("regression")
    for estimator in twins("regression", early_stopping=True, validation_fraction=0.01):
        with pytest.raises(ValueError, match="The validation set is too small"):
            estimator.fit(X, y)


@pytest.mark.parametrize("early_stopping", [False, True])
def test_weights_that_overflow_are_an_error(early_stopping: bool) -> None:
    X, y = problem("regression")
    settings = {"solver": "sgd", "learning_rate_init": 1e10, "activation": "relu", "max_iter": 20}
    for estimator in twins("regression", early_stopping=early_stopping, **settings):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)
            if not early_stopping:
                with pytest.raises(ValueError, match="Solver produced non-finite parameter weights"):
                    estimator.fit(X, y)
            else:  # the best weights are kept, and they are finite
                assert all(np.isfinite(coef).all() for coef in estimator.fit(X, y).coefs_)


def test_an_interrupted_training_keeps_its_weights() -> None:
    X, y = problem("binary")

    class Interrupt(nnkit.Callback):
        def on_epoch_end(self, trainer: Any, figures: Any) -> None:
            if figures.epoch == 3:
                raise KeyboardInterrupt

    ours = ours_for("binary", callbacks=[Interrupt()], **ADAM)
    with pytest.warns(UserWarning, match="Training interrupted by user"):
        ours.fit(X, y)
    assert ours.n_iter_ == 3
    theirs = theirs_for("binary", max_iter=3, **ADAM).fit(X, y)
    assert_same_network(theirs, ours)


# --- nnkit's own words for what nnkit refuses ---


@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_targets_too_large_for_float32_are_called_so(solver: str) -> None:
    X, y = problem("regression")
    ours = ours_for("regression", solver=solver, max_iter=2)
    with pytest.raises(
        ValueError, match=r"is too large for float32; divide .* \(dtype='float64' of an estimator\)"
    ):
        ours.fit(X.astype(np.float32), y * 1e300)
    with pytest.raises(ValueError, match="is too large for float32"):
        ours.set_params(solver="adam").fit(
            X.astype(np.float32), y, eval_set=(X.astype(np.float32), y * 1e300)
        )
    ours.set_params(dtype="float64").fit(X.astype(np.float32), y * 1e100)


def test_held_out_rows_that_all_weigh_nothing_are_called_so() -> None:
    X, y = problem("binary")
    ours = ours_for("binary", early_stopping=True, max_iter=2)
    weights = np.zeros(ROWS)
    weights[0] = 1.0
    heard = set()
    for seed in range(40):
        with pytest.raises(ValueError, match="early_stopping: the") as caught:
            ours.set_params(random_state=seed).fit(X, y, sample_weight=weights)
        heard.add("held out" if "5 rows that are held out" in str(caught.value) else "trained on")
        assert "validation_fraction" in str(caught.value)
    assert heard == {"held out", "trained on"}
    ours.fit(X, y, sample_weight=weights, eval_set=(X, y))


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ({0: -1.0, 1: 2.0}, "finite and at least 0"),
        ({0: np.nan, 1: 2.0}, "finite and at least 0"),
        ({0: 0.0, 1: 0.0}, "0 for every row"),
        ({"a": 2.0}, "not in class_weight"),
        ({0: "much"}, "much"),
    ],
    ids=str,
)
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_wrong_class_weights_are_called_class_weights(table: Any, message: str, solver: str) -> None:
    X, y = problem("binary")
    with pytest.raises(ValueError, match=f"class_weight.*{message}"):
        ours_for("binary", class_weight=table, solver=solver, max_iter=2).fit(X, y)
