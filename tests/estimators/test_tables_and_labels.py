"""Tables, sparse rows, labels and targets of every kind that scikit-learn takes, and as it takes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from scipy import sparse
from sklearn.exceptions import DataConversionWarning
from twins import assert_same_course, assert_same_network, ours_for, problem, theirs_for, twins

from nnkit import MLPClassifier
from nnkit.errors import DataError

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

QUICK = {"hidden_layer_sizes": (6,), "max_iter": 6, "learning_rate_init": 0.02, "shuffle": True}


# --- tables ---


def tables() -> list[Any]:
    """Return the kinds of table, each as a function of rows."""
    names = list("abcd")

    def pandas_table(X: NDArray) -> Any:
        return pytest.importorskip("pandas").DataFrame(X, columns=names)

    def polars_table(X: NDArray) -> Any:
        return pytest.importorskip("polars").DataFrame(X, schema=names)

    def arrow_table(X: NDArray) -> Any:
        return pytest.importorskip("pyarrow").table({name: X[:, i] for i, name in enumerate(names)})

    return [pandas_table, polars_table, arrow_table]


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.int64])
@pytest.mark.parametrize("table", tables())
def test_a_table_trains_as_its_numbers_do(table: Callable[[NDArray], Any], dtype: Any) -> None:
    X, y = problem("binary")
    X = (4 * X).astype(dtype)
    theirs = theirs_for("binary", **QUICK).fit(table(X), y)
    ours = ours_for("binary", **QUICK).fit(table(X), y)
    assert ours.coefs_[0].dtype == theirs.coefs_[0].dtype
    assert_same_network(theirs, ours, tolerance=1e-4 if dtype == np.float32 else 1e-6)
    np.testing.assert_allclose(ours.predict_proba(table(X)), theirs.predict_proba(table(X)), atol=1e-4)
    assert ours.feature_names_in_.tolist() == theirs.feature_names_in_.tolist() == list("abcd")
    assert ours.n_features_in_ == 4


def test_columns_of_another_name_or_order_are_refused_in_scikit_learns_words() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = problem("binary")
    table = pandas.DataFrame(X, columns=list("abcd"))
    words: list[list[str]] = []
    for estimator in twins("binary", **QUICK):
        estimator.fit(table, y)
        words.append([])
        for wrong in (table[list("bacd")], table.rename(columns={"a": "e"}), table[list("abc")]):
            with pytest.raises(ValueError, match="feature") as caught:
                estimator.predict(wrong)
            words[-1].append(str(caught.value))
        with pytest.warns(UserWarning, match="X does not have valid feature names"):
            estimator.predict(X)
    assert words[0] == words[1]


def test_a_table_of_mixed_and_missing_numbers() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = problem("regression")
    table = pandas.DataFrame(X, columns=list("abcd"))
    table["b"] = (table["b"] > 0).astype("Int64")
    table["c"] = table["c"].astype("float32")
    theirs, ours = (twin.fit(table, y) for twin in twins("regression", **QUICK))
    assert_same_network(theirs, ours)
    table.loc[3, "b"] = pandas.NA
    with pytest.raises(ValueError, match="NaN"):
        ours.predict(table)


def unsorted_and_doubled(X: NDArray) -> Any:
    """Return rows in which columns descend, and each number stands twice, halved."""
    rows = [np.flatnonzero(row)[::-1] for row in X]
    columns = np.concatenate([np.repeat(places, 2) for places in rows])
    starts = np.cumsum([0, *(2 * len(places) for places in rows)])
    values = np.concatenate([np.repeat(row[places] / 2, 2) for row, places in zip(X, rows, strict=True)])
    return sparse.csr_array((values, columns, starts), X.shape)


def with_long_indices(X: NDArray) -> Any:
    matrix = sparse.csr_array(X)
    matrix.indices, matrix.indptr = matrix.indices.astype(np.int64), matrix.indptr.astype(np.int64)
    return matrix


@pytest.mark.parametrize(
    "form",
    [
        sparse.coo_array,
        sparse.lil_array,
        sparse.dok_array,
        sparse.bsr_array,
        with_long_indices,
        unsorted_and_doubled,
        lambda X: sparse.csr_array(np.repeat(X, 2, axis=0))[::2],
    ],
    ids=["coo", "lil", "dok", "bsr", "long", "unsorted", "sliced"],
)
def test_sparse_rows_of_any_form_train_as_dense_ones(form: Callable[[NDArray], Any]) -> None:
    X, y = problem("multiclass")
    X[np.abs(X) < 0.8] = 0.0
    rows = form(X)
    kept = rows.copy()
    theirs = theirs_for("multiclass", **QUICK).fit(X, y)
    ours = ours_for("multiclass", **QUICK).fit(rows, y)
    assert_same_network(theirs, ours)
    np.testing.assert_allclose(ours.predict_proba(rows), theirs.predict_proba(X), atol=1e-6)
    if hasattr(rows, "indices"):  # the user's matrix is as it was
        np.testing.assert_array_equal(rows.indices, kept.indices)
        np.testing.assert_array_equal(rows.data, kept.data)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_sparse_rows_with_nan_or_infinity_are_refused(bad: float) -> None:
    X, y = problem("binary")
    with pytest.raises(ValueError, match=r"infinity|NaN"):
        ours_for("binary").fit(sparse.csr_array(np.where(X > 1, bad, 0.0)), y)


# --- labels ---

LABELS: dict[str, Callable[[NDArray], Any]] = {
    "texts": lambda y: np.array(["no", "yes", "perhaps"])[y],
    "objects": lambda y: np.array(["no", "yes", "perhaps"], object)[y],
    "list": lambda y: [["no", "yes", "perhaps"][code] for code in y],
    "negative": lambda y: y * 3 - 4,
    "floats": lambda y: y + 0.0,
    "small": lambda y: y.astype(np.uint8),
    "booleans": lambda y: y > 0,
}


@pytest.mark.parametrize("labels", LABELS)
@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_labels_of_any_type_are_given_back(kind: str, labels: str) -> None:
    X, numbers = problem(kind)
    y = LABELS[labels](numbers)
    theirs, ours = (twin.fit(X, y) for twin in twins(kind, **QUICK))
    assert ours.classes_.dtype == theirs.classes_.dtype
    assert ours.classes_.tolist() == theirs.classes_.tolist()
    assert ours.predict(X).dtype == theirs.predict(X).dtype
    assert ours.predict(X).tolist() == theirs.predict(X).tolist()
    assert ours.score(X, y) == theirs.score(X, y)
    assert_same_network(theirs, ours)


@pytest.mark.parametrize("kind", ["strings", "categories", "nullable", "polars", "arrow"])
def test_labels_from_a_table(kind: str) -> None:
    pandas, polars, arrow = (pytest.importorskip(name) for name in ("pandas", "polars", "pyarrow"))
    X, numbers = problem("multiclass")
    names = np.array(["no", "yes", "perhaps"])[numbers]
    y = {
        "strings": lambda: pandas.Series(names, index=np.arange(len(names))[::-1]),
        "categories": lambda: pandas.Series(pandas.Categorical(names)),
        "nullable": lambda: pandas.Series(numbers, dtype="Int64"),
        "polars": lambda: polars.Series(names),
        "arrow": lambda: arrow.array(names),
    }[kind]()
    theirs, ours = (twin.fit(X, y) for twin in twins("multiclass", **QUICK))
    assert ours.classes_.tolist() == theirs.classes_.tolist()
    assert ours.predict(X).tolist() == theirs.predict(X).tolist()
    assert_same_network(theirs, ours)


def test_one_class_alone_is_learnt() -> None:
    X, _ = problem("binary")
    y = np.full(len(X), "only")
    theirs, ours = (twin.fit(X, y) for twin in twins("binary", **QUICK))
    assert ours.predict(X).tolist() == theirs.predict(X).tolist() == y.tolist()


def test_sparse_labels_train_as_dense_ones() -> None:
    X, y = problem("multilabel")
    theirs = theirs_for("multilabel", **QUICK).fit(X, sparse.csr_matrix(y))
    ours = ours_for("multilabel", **QUICK).fit(X, sparse.csr_matrix(y))
    assert_same_network(theirs, ours)
    expected, found = theirs.predict(X), ours.predict(X)
    assert sparse.issparse(found) == sparse.issparse(expected)
    assert (found != expected).sum() == 0


# --- targets ---


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression"])
def test_a_column_of_targets_is_taken_with_scikit_learns_warning(kind: str) -> None:
    X, y = problem(kind)
    theirs, ours = twins(kind, **QUICK)
    for estimator in (theirs, ours):
        with pytest.warns(DataConversionWarning, match="A column-vector y was passed when a 1d array"):
            estimator.fit(X, y[:, None])
    assert_same_course(theirs, ours)
    assert ours.predict(X).shape == (len(X),)


def test_targets_from_a_table() -> None:
    pandas = pytest.importorskip("pandas")
    X, y = problem("regressions")
    table = pandas.DataFrame(y, columns=["first", "second"])
    theirs, ours = (twin.fit(X, table) for twin in twins("regressions", **QUICK))
    assert_same_course(theirs, ours)
    assert ours.predict(X).shape == y.shape


def test_whole_numbers_are_values_to_a_regressor() -> None:
    X, y = problem("multiclass")
    theirs, ours = (twin.fit(X, y) for twin in twins("regression", **QUICK))
    assert_same_course(theirs, ours)


def test_a_column_of_text_is_refused_with_what_to_do() -> None:
    frame = pd.DataFrame({"message": ["you have won", "see you"] * 10, "x": range(20)})
    fitted = MLPClassifier(max_iter=1).fit(frame[["x"]].to_numpy(), [0, 1] * 10)
    for use in (
        lambda: MLPClassifier().fit(frame, [0, 1] * 10),
        lambda: fitted.predict(frame[["message"]].to_numpy()),
    ):
        with pytest.raises(DataError, match="no columns of text: encode them first"):
            use()
