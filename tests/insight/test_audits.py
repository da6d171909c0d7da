"""Audits against fairlearn, SciPy and published intervals."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from fairlearn import metrics as fairlearn
from scipy import stats

from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError, DataError
from nnkit.insight.audits import Rate, audit, difference_interval, grouping
from nnkit.model import Model
from nnkit.nn.layers import Dense
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network

ROWS = 600


def model_of(task: Any, outputs: int, classes: Any, loss: str) -> tuple[Model, np.ndarray]:
    X = np.random.default_rng(0).normal(size=(ROWS, 3))
    net = Network([Dense(4, "tanh"), Dense(outputs)])
    net.initialize(3, seed=2, dtype=np.float64)
    preprocessor = Preprocessor.fit(X, dtype=np.float64)
    units = (None, None) if classes is not None else (np.zeros(outputs), np.ones(outputs))
    target = TargetEncoder(task, outputs, classes, *units, True, ("y",))
    return Model(net, preprocessor, target, loss_from(loss)), X


def binary() -> tuple[Model, np.ndarray, np.ndarray, np.ndarray]:
    """Return a model, rows, labels that it predicts mostly, and three groups, one of them small."""
    model, X = model_of("binary", 1, np.array(["no", "yes"]), "binary_cross_entropy")
    random = np.random.default_rng(1)
    predicted = model.predict(X)
    flipped = random.random(ROWS) < np.where(X[:, 0] > 0, 0.1, 0.3)
    y = np.where(flipped, np.where(predicted == "yes", "no", "yes"), predicted)
    groups = np.where(X[:, 0] > 0, "a", "b").astype(object)
    groups[:24] = "c"
    return model, X, y, groups


@pytest.mark.parametrize(("hits", "rows"), [(0, 10), (10, 10), (3, 7), (499, 1000), (1, 1)])
def test_the_interval_of_a_rate_solves_wilsons_equation(hits: int, rows: int) -> None:
    low, high = Rate(hits, rows).interval
    z = stats.norm.ppf(0.975)
    for bound in (low, high):  # (share - bound)^2 = z^2 bound (1 - bound) / rows
        assert (hits / rows - bound) ** 2 == pytest.approx(z**2 * bound * (1 - bound) / rows, abs=1e-12)
    assert 0 <= low < high <= 1
    assert all(math.isnan(bound) for bound in Rate(0, 0).interval)


def test_the_interval_of_a_difference_is_newcombes() -> None:
    # The first and the fifth of the examples of his table II, method 10.
    assert difference_interval(Rate(56, 70), Rate(48, 80)) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    assert difference_interval(Rate(9, 10), Rate(3, 10)) == pytest.approx((0.1705, 0.8090), abs=5e-5)


def test_figures_and_differences_are_fairlearns() -> None:
    model, X, y, groups = binary()
    found = audit(model, X, y, groups)
    truth, predicted = y == "yes", model.predict(X) == "yes"
    functions = {
        "selection_rate": fairlearn.selection_rate,
        "true_positive_rate": fairlearn.true_positive_rate,
        "false_positive_rate": fairlearn.false_positive_rate,
        "accuracy": lambda t, p: float(np.mean(t == p)),
    }
    frame = fairlearn.MetricFrame(
        metrics=functions, y_true=truth, y_pred=predicted, sensitive_features=groups.astype(str)
    )
    assert [group.name for group in found.groups] == ["a", "b", "c"]
    for group in found.groups:
        for name in functions:
            assert group.rates[name].value == pytest.approx(frame.by_group[name][group.name], abs=1e-12)
    for name in functions:
        assert found.overall.rates[name].value == pytest.approx(frame.overall[name], abs=1e-12)
    for name in ("demographic_parity_difference", "equalized_odds_difference"):
        expected = getattr(fairlearn, name)(truth, predicted, sensitive_features=groups.astype(str))
        assert found.differences[name].value == pytest.approx(expected, abs=1e-12)
        large = groups != "c"
        expected = getattr(fairlearn, name)(
            truth[large], predicted[large], sensitive_features=groups[large].astype(str)
        )
        assert found.without_few[name].value == pytest.approx(expected, abs=1e-12)


def test_a_small_group_is_marked_and_counts_are_those_of_its_rows() -> None:
    model, X, y, groups = binary()
    found = audit(model, X, y, groups)
    assert [bool(group.few) for group in found.groups] == [False, False, True]
    assert found.groups[2].few == "fewer than 30 rows"
    assert [group.rows for group in found.groups] == [int((groups == name).sum()) for name in "abc"]
    rate = found.groups[0].rates["true_positive_rate"]
    assert rate.rows == int(((groups == "a") & (y == "yes")).sum())
    metrics = model.evaluate(X[groups == "b"], y[groups == "b"])
    assert found.groups[1].metrics == metrics
    assert found.positive == "yes"


def test_one_group_alone_has_nothing_to_differ_from() -> None:
    model, X, y, _ = binary()
    found = audit(model, X, y, np.full(len(y), "a"))
    assert found.differences == {}
    assert found.notes == ("all rows have one group, 'a': there is no other group to compare it with",)
    assert found.groups[0].metrics == found.overall.metrics


def test_one_class_of_many_is_positive_if_it_is_named() -> None:
    model, X = model_of("multiclass", 3, np.array(["x", "y", "z"]), "cross_entropy")
    y = np.random.default_rng(2).choice(["x", "y", "z"], ROWS)
    groups = np.arange(ROWS) % 2
    without = audit(model, X, y, groups)
    assert list(without.overall.rates) == ["accuracy"]
    assert list(without.differences) == ["accuracy_difference"]
    found = audit(model, X, y, groups, positive="z")
    predicted = model.predict(X)
    assert found.overall.rates["selection_rate"].value == pytest.approx(np.mean(predicted == "z"))
    asked = y != "z"
    assert found.overall.rates["false_positive_rate"].value == pytest.approx(np.mean(predicted[asked] == "z"))
    with pytest.raises(ConfigError, match="unknown class 'w'"):
        audit(model, X, y, groups, positive="w")


def test_a_regression_has_metrics_and_no_rates() -> None:
    model, X = model_of("regression", 1, None, "mse")
    y = np.random.default_rng(2).normal(size=ROWS)
    found = audit(model, X, y, np.arange(ROWS) % 3)
    assert found.overall.rates == {}
    assert found.differences == {}
    assert found.groups[1].metrics["mae"] == pytest.approx(
        np.abs(model.predict(X)[1::3] - y[1::3]).mean(), rel=1e-9
    )
    with pytest.raises(ConfigError, match="a regression model has no classes: leave out `positive`"):
        audit(model, X, y, np.arange(ROWS) % 3, positive="1")


def test_a_column_of_many_numbers_is_cut_at_its_quartiles() -> None:
    values = np.random.default_rng(0).normal(size=401)
    values[7] = np.nan
    found = grouping(pa.table({"age": values, "kind": ["a", None] * 200 + ["b"]}), "age")
    assert found.order[-1] == "(missing)"
    assert len(found.order) == 5
    assert [int((found.groups == name).sum()) for name in found.order] == [100, 100, 100, 100, 1]
    first = values[found.groups == found.order[0]]
    assert first.max() <= np.nanquantile(values, 0.25)
    assert "400 different numbers: its four quarters are compared" in found.notes[0]


def test_a_column_of_texts_or_few_numbers_is_taken_as_it_is() -> None:
    table = pa.table({"kind": ["b", None, "a", "b"], "year": [2011, 2009, 2010, 2009]})
    kinds, years = grouping(table, "kind"), grouping(table, "1")
    assert kinds.order == ["(missing)", "a", "b"]
    assert kinds.groups.tolist() == ["b", "(missing)", "a", "b"]
    assert years.by == "year"
    assert years.order == ["2009", "2010", "2011"]
    assert years.groups.tolist() == ["2011", "2009", "2010", "2009"]
    assert grouping(np.array([[1, 5], [2, 6]]), "-1").groups.tolist() == ["5", "6"]
    with pytest.raises(DataError, match="there is no column 'knd': did you mean 'kind'"):
        grouping(table, "knd")
    with pytest.raises(DataError, match="there is no column 'sex': the only column is 'kind'"):
        grouping(table.select(["kind"]), "sex")


def test_too_many_groups_and_rows_that_do_not_match_are_errors() -> None:
    model, X, y, _ = binary()
    with pytest.raises(DataError, match="600 different values, and at most 100 groups are compared"):
        audit(model, X, y, np.arange(ROWS))
    with pytest.raises(DataError, match="there are 600 targets and 10 rows with a group"):
        audit(model, X, y, np.arange(10))
