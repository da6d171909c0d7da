"""SHAP and LIME over the user's columns; skipped where the packages are not installed."""

from __future__ import annotations

import math
import sys
from itertools import combinations
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from test_attributions import rows, table_model, with_missing

from nnkit.data.operations import CategoryColumn, NumberColumn, TextColumn
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError
from nnkit.insight.attributions import integrated_gradients
from nnkit.insight.columns import model_columns, permuted
from nnkit.insight.perturbations import ColumnMatrix, lime_values, shap_values
from nnkit.model import Model
from nnkit.nn.layers import Dense, Embedding
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network


@pytest.mark.parametrize("embedded", [False, True])
def test_the_matrix_gives_the_models_outputs(embedded: bool) -> None:
    model, X = table_model([Dense(8, "tanh")], embedded=embedded), rows()
    matrix = ColumnMatrix(model, X, rows(1))
    np.testing.assert_allclose(matrix.outputs(matrix.rows), model.outputs(X), rtol=1e-12)
    np.testing.assert_allclose(matrix.outputs(matrix.background), model.outputs(rows(1)), rtol=1e-12)
    # A column of one row and the others of another: as a table of the user's would have them.
    mixed = matrix.rows.copy()
    mixed[:, 1] = matrix.background[:, 1]
    expected = model.outputs(X.set_column(1, "colour", rows(1)["colour"]))
    np.testing.assert_allclose(matrix.outputs(mixed), expected, rtol=1e-12)


def test_a_number_is_permuted_with_its_flag() -> None:
    model, X = table_model([], flagged=True), with_missing(rows())
    order = np.random.default_rng(0).permutation(len(X))
    pay = next(column for column in model_columns(model) if column.name == "pay")
    shuffled = permuted(model.preprocessor.transform(X), [pay], order)
    other = X.set_column(3, "pay", X["pay"].take(pa.array(order)))
    np.testing.assert_array_equal(shuffled.dense, model.preprocessor.transform(other).dense)


def test_a_missing_number_keeps_its_flag_in_the_matrix() -> None:
    model, X, others = table_model([Dense(8, "tanh")], flagged=True), with_missing(rows()), rows(1)
    matrix = ColumnMatrix(model, X, others)
    np.testing.assert_allclose(matrix.outputs(matrix.rows), model.outputs(X), rtol=1e-12)
    mixed = matrix.background.copy()
    mixed[:, 2] = matrix.rows[:, 2]
    expected = model.outputs(others.set_column(3, "pay", X["pay"]))
    np.testing.assert_allclose(matrix.outputs(mixed), expected, rtol=1e-12)


@pytest.mark.extra("shap")
@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_shap_on_a_linear_network_is_weight_times_input_less_the_mean(dtype: Any, tolerance: float) -> None:
    model, X = table_model([], dtype), rows()
    found = shap_values(model, X, background=X)
    # Which integrated gradients are compared with in a closed form of their own.
    expected = integrated_gradients(model, X)
    scale = np.abs(expected.contributions).max()
    assert found.columns == expected.columns == ("age", "colour", "pay", "town")
    np.testing.assert_allclose(
        found.contributions / scale, expected.contributions / scale, rtol=0, atol=tolerance
    )
    np.testing.assert_allclose(found.base / scale, expected.base / scale, atol=tolerance)
    weight = float(model.network.parameters()["layers.0.weight"][0, 0])
    age = (X["age"].to_numpy() - 38) * 0.1
    by_hand = 20 * weight * (age - age.mean())
    np.testing.assert_allclose(found.contributions[:, 0] / scale, by_hand / scale, rtol=0, atol=tolerance)


@pytest.mark.extra("shap")
def test_shap_of_many_columns_is_estimated_and_adds_up() -> None:
    random = np.random.default_rng(0)
    X = random.normal(size=(60, 14))
    net = Network([Dense(3)])
    net.initialize(14, seed=0, dtype=np.float64)
    target = TargetEncoder("multiclass", 3, np.array(["a", "b", "c"]), names=("kind",))
    preprocessor = Preprocessor.fit(X, dtype=np.float64)
    model = Model(net, preprocessor, target, loss_from("cross_entropy"))
    found = shap_values(model, X[:5], background=X, label="c")
    encoded = (X - X.mean(axis=0)) / X.std(axis=0)
    expected = encoded[:5] * net.parameters()["layers.0.weight"][:, 2]
    np.testing.assert_allclose(found.contributions, expected, atol=1e-5)
    np.testing.assert_allclose(found.gap, 0, atol=1e-9)


@pytest.mark.extra("shap")
@pytest.mark.parametrize("embedded", [False, True])
def test_shap_values_add_up_to_the_output(embedded: bool) -> None:
    model = table_model([Dense(16, "relu"), Dense(8, "tanh")], embedded=embedded)
    found = shap_values(model, rows(), background=rows(1))
    np.testing.assert_allclose(found.gap, 0, atol=1e-6)
    np.testing.assert_allclose(found.outputs, model.predict(rows()), rtol=1e-9)


def mixed_model() -> Model:
    """Return a model of a number, a category and a text, each of which may be missing or unknown."""
    preprocessor = Preprocessor(
        (
            NumberColumn("hour", "number", 12.0, 12.0, 0.2),
            CategoryColumn("town", ("Bonn", "Ulm"), last="other"),
            TextColumn("body", 1, None, ("cheap", "good", "pills", "today")),
        ),
        "float64",
    )
    net = Network([Embedding(5, 6, "mean"), Dense(8, "tanh"), Dense(1)])
    net.initialize(preprocessor.width, seed=0, dtype=np.float64)
    target = TargetEncoder("binary", 1, np.array(["ham", "spam"]), names=("label",))
    return Model(net, preprocessor, target, loss_from("binary_cross_entropy"))


def mixed_rows() -> pa.Table:
    return pa.table(
        {
            "hour": pa.array([3.0, None, 14.0, 20.0], pa.float64()),
            "town": ["Bonn", None, "Ulm", "Rome"],
            "body": ["cheap pills, cheap!", "good morning", "", "today"],
        }
    )


@pytest.mark.extra("shap")
def test_shap_of_missing_values_categories_and_texts_is_shapleys_formula() -> None:
    model, X = mixed_model(), mixed_rows()
    found = shap_values(model, X, background=X)
    names = found.columns
    assert names == ("hour", "town", "body")

    def worth(row: int, known: tuple[str, ...]) -> float:
        """Return the mean output with some columns the row's own and the others those of each row."""
        own = X.take(pa.array([row] * len(X)))
        mixed = {name: (own if name in known else X)[name] for name in names}
        return float(model.outputs(pa.table(mixed)).mean())

    for row in range(len(X)):
        for place, name in enumerate(names):
            others = [other for other in names if other != name]
            value = 0.0
            for size in range(len(names)):
                weight = math.factorial(size) * math.factorial(len(names) - size - 1)
                for known in combinations(others, size):
                    gain = worth(row, (*known, name)) - worth(row, known)
                    value += weight / math.factorial(len(names)) * gain
            assert found.contributions[row, place] == pytest.approx(value, abs=1e-10)


@pytest.mark.extra("lime")
def test_lime_gives_missing_values_categories_and_texts_a_figure_each() -> None:
    model, X = mixed_model(), mixed_rows()
    found = lime_values(model, X, background=X, samples=500)
    assert found.columns == ("hour", "town", "body")
    assert found.contributions.shape == (4, 3)
    assert np.isfinite(found.contributions).all()
    np.testing.assert_allclose(found.outputs, model.outputs(X)[:, 0], rtol=1e-9)


@pytest.mark.extra("lime")
def test_lime_ranks_the_columns_of_a_linear_network() -> None:
    model, X = table_model([]), rows()
    weight = np.zeros((9, 1))
    weight[1], weight[2] = 5.0, 0.1  # pay, and a little of the colour blue
    model.network.set_parameters({"layers.0.weight": weight})
    highest = int(np.argmax(X["pay"].to_numpy()))
    found = lime_values(model, X.take(pa.array([highest])), background=X, samples=1000)
    assert found.ranked(0)[0][0] == "pay"
    assert found.contributions[0, 2] > 0
    size = np.abs(found.contributions[0])
    assert size[2] > 10 * max(size[0], size[3])
    again = lime_values(model, X.take(pa.array([highest])), background=X, samples=1000)
    np.testing.assert_array_equal(found.contributions, again.contributions)


@pytest.mark.parametrize(("method", "package"), [(shap_values, "shap"), (lime_values, "lime")])
def test_a_missing_package_says_which_extra_brings_it(
    monkeypatch: pytest.MonkeyPatch, method: Any, package: str
) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)

    class Missing:
        def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
            if name.split(".")[0] == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(sys, "meta_path", [Missing(), *sys.meta_path])
    with pytest.raises(ConfigError, match=f"{package} is not installed: pip install shap lime"):
        method(table_model([]), rows())
