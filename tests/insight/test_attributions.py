"""Integrated gradients: closed forms, completeness, and the user's own columns."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from nnkit.data.operations import CategoryColumn, NumberColumn, TextColumn
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError
from nnkit.insight.attributions import integrated_gradients
from nnkit.insight.columns import spread, term_name
from nnkit.insight.explanation import number_words
from nnkit.model import Model
from nnkit.nn.layers import Dense, Embedding
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network

ROWS = 40


def rows(seed: int = 0) -> pa.Table:
    random = np.random.default_rng(seed)
    return pa.table(
        {
            "age": random.uniform(20, 60, ROWS),
            "colour": random.choice(["red", "green", "blue", "grey"], ROWS).tolist(),
            "town": random.choice(["Bonn", "Ulm"], ROWS).tolist(),
            "pay": random.normal(3000, 800, ROWS),
            "unused": random.normal(size=ROWS),
        }
    )


def table_model(
    hidden: list[Any], dtype: Any = np.float64, embedded: bool = False, flagged: bool = False
) -> Model:
    """Return a regression of prices with known units; the operations are not in the inputs' order."""
    preprocessor = Preprocessor(
        (
            NumberColumn("age", "number", 40.0, 38.0, 0.1),
            CategoryColumn("colour", ("blue", "green", "red"), embedded, "other"),
            NumberColumn("pay", "number", 3000.0, 3000.0, 1 / 800, flagged),
            CategoryColumn("town", ("Bonn", "Ulm"), last="other"),
        ),
        np.dtype(dtype).name,
    )
    layers = [*([Embedding(4, 3)] if embedded else []), *hidden, Dense(1)]
    net = Network(layers)
    net.initialize(preprocessor.width, seed=3, dtype=dtype)
    random = np.random.default_rng(1)
    net.set_parameters({name: random.normal(size=array.shape) for name, array in net.parameters().items()})
    target = TargetEncoder("regression", 1, None, np.array([100.0]), np.array([20.0]), True, ("price",))
    return Model(net, preprocessor, target, loss_from("mse"))


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float64, 1e-10), (np.float32, 1e-5)])
def test_on_a_linear_network_it_is_weight_times_input_less_baseline(dtype: Any, tolerance: float) -> None:
    model, X = table_model([], dtype), rows()
    found = integrated_gradients(model, X)
    weight = model.network.parameters()["layers.0.weight"][:, 0].astype(np.float64)
    age, pay = (X["age"].to_numpy() - 38) * 0.1, (X["pay"].to_numpy() - 3000) / 800
    colours, towns = np.array(X["colour"].to_pylist()), np.array(X["town"].to_pylist())
    places = [colours == "blue", colours == "green", colours == "red", colours == "grey"]
    places += [towns == "Bonn", towns == "Ulm"]

    def part(inputs: Any, weights: Any) -> Any:
        return sum(w * (x - np.mean(x)) for x, w in zip(inputs, weights, strict=True))

    expected = 20 * np.stack(
        [
            part([age], weight[:1]),
            part(places[:4], weight[2:6]),
            part([pay], weight[1:2]),
            part(places[4:], weight[6:8]),
        ],
        axis=1,
    )
    assert found.columns == ("age", "colour", "pay", "town")
    assert set(found.names) == {"price"}
    scale = np.abs(expected).max()
    np.testing.assert_allclose(found.contributions / scale, expected / scale, rtol=0, atol=tolerance)
    np.testing.assert_allclose(found.outputs, model.predict(X), rtol=tolerance)
    np.testing.assert_allclose(found.gap / scale, 0, atol=tolerance)


def with_missing(table: pa.Table) -> pa.Table:
    """Return the rows without the pay of every third."""
    pay = [None if row % 3 == 0 else value for row, value in enumerate(table["pay"].to_pylist())]
    return table.set_column(3, "pay", pa.array(pay, pa.float64()))


@pytest.mark.parametrize("baseline", ["mean", "zero"])
def test_a_flag_counts_to_the_column_whose_missing_values_it_tells(baseline: Any) -> None:
    model, X = table_model([], flagged=True), with_missing(rows())
    found = integrated_gradients(model, X, baseline=baseline)
    weight = model.network.parameters()["layers.0.weight"][:, 0]
    missing = np.isnan(X["pay"].to_numpy())
    pay = (np.where(missing, 3000, X["pay"].to_numpy()) - 3000) / 800
    start, start_flag = (pay.mean(), missing.mean()) if baseline == "mean" else (-3000 / 800, 0)
    expected = 20 * (weight[1] * (pay - start) + weight[2] * (missing - start_flag))
    assert found.columns == ("age", "colour", "pay", "town")
    np.testing.assert_allclose(found.contributions[:, 2], expected, rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(found.gap, 0, atol=1e-9)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu", "sigmoid", "leaky_relu"])
@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("baseline", ["mean", "zero"])
def test_contributions_add_up_within_one_per_cent(activation: str, embedded: bool, baseline: Any) -> None:
    hidden = [Dense(32, activation), Dense(32, activation), Dense(16, activation)]
    model = table_model(hidden, np.float32, embedded)
    found = integrated_gradients(model, rows(), baseline=baseline)
    difference = np.abs(found.outputs - found.base)
    sizes = np.abs(found.contributions).sum(axis=1)
    assert np.all(np.abs(found.gap) <= np.maximum(0.01 * difference, 1e-5 * sizes))
    assert np.median(np.abs(found.gap) / difference) < 0.005
    np.testing.assert_allclose(found.outputs, model.predict(rows()), rtol=1e-5)


def test_a_baseline_of_zero_is_zero_in_the_users_unit() -> None:
    model = table_model([Dense(8, "tanh")])
    found = integrated_gradients(model, rows(), baseline="zero")
    inputs = np.zeros((1, 9))
    inputs[0, :2] = -38 * 0.1, -3000 / 800
    assert found.base[0] == pytest.approx(100 + 20 * float(model.network.outputs(inputs)[0, 0]))


def test_a_target_whose_logarithm_is_learnt_is_explained_by_its_logarithm() -> None:
    model = table_model([Dense(8, "tanh")])
    target = TargetEncoder.fit(np.exp(np.arange(9.0)), "regression", ("price",), transform="log")
    learnt = Model(model.network, model.preprocessor, target, model.loss)
    found = integrated_gradients(learnt, rows())
    assert set(found.names) == {"logarithm of 'price'"}
    np.testing.assert_allclose(found.outputs, np.log(learnt.predict(rows())), rtol=1e-9)


def test_a_column_that_the_output_does_not_depend_on_contributes_nothing() -> None:
    model = table_model([Dense(8, "tanh")])
    weight = model.network.parameters()["layers.0.weight"]
    weight[2:6] = 0.0
    model.network.set_parameters({"layers.0.weight": weight})
    found = integrated_gradients(model, rows())
    assert np.all(found.contributions[:, 1] == 0)
    assert np.abs(found.contributions[:, 0]).min() > 0


def test_the_inputs_are_those_the_network_computes_from() -> None:
    for embedded in (False, True):
        model = table_model([Dense(8, "tanh")], embedded=embedded)
        inputs = spread(model, model.preprocessor.transform(rows()))
        layers = [layer for layer in model.network.layers if not isinstance(layer, Embedding)]
        plain = Network(layers)
        plain.initialize(inputs.shape[1], dtype=np.float64)
        own = model.network.parameters()
        names = [name for name in own if not (embedded and name == "layers.0.weight")]
        plain.set_parameters({name: own[old] for name, old in zip(plain.parameters(), names, strict=True)})
        np.testing.assert_allclose(plain.outputs(inputs), model.outputs(rows()), rtol=1e-9)


@pytest.mark.parametrize("reduce", ["mean", "sum", "max"])
def test_the_terms_of_a_text_add_up_to_its_column(reduce: Any) -> None:
    terms = ("cheap", "good", "pills", "today")
    preprocessor = Preprocessor(
        (NumberColumn("hour", "number", 12.0, 12.0, 0.2), TextColumn("body", 1, None, terms)), "float64"
    )
    net = Network([Embedding(5, 6, reduce), Dense(8, "tanh"), Dense(1)])
    net.initialize(1, seed=0, dtype=np.float64)
    target = TargetEncoder("binary", 1, np.array(["ham", "spam"]), names=("label",))
    model = Model(net, preprocessor, target, loss_from("binary_cross_entropy"))
    texts = ["cheap pills, cheap!", "good morning", "", "today"]
    X = pa.table({"hour": [3.0, 9.0, 14.0, 20.0], "body": texts})
    found = integrated_gradients(model, X)
    assert set(found.names) == {"log-odds of 'spam'"}
    for row, by_column in enumerate(found.terms):
        total = sum(value for _, value in by_column["body"])
        assert total == pytest.approx(found.contributions[row, 1], rel=1e-9, abs=1e-12)
    assert {term for term, _ in found.terms[0]["body"]} == {"cheap", "pills", "(unknown words)"}
    assert found.terms[2]["body"] == []
    np.testing.assert_allclose(found.gap, 0, atol=1e-6)


def test_a_character_ngram_is_named_unlike_a_word_of_the_same_letters() -> None:
    text = TextColumn("body", 1, (3, 3), ("txt", " txt"))
    names = [term_name(text, row) for row in range(3)]
    assert names == ["(unknown words)", "txt", "txt (characters)"]


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.0123456, "0.01235"),
        (999.96, "1000"),
        (252436.4, "252,436"),
        (-1234.6, "-1,235"),
        (2.5e17, "2.5e+17"),
    ],
)
def test_numbers_are_written_with_four_digits_or_without_decimals(value: float, words: str) -> None:
    assert number_words(value) == words


def test_the_class_explained_is_the_one_asked_for() -> None:
    net = Network([Dense(6, "tanh"), Dense(3)])
    net.initialize(4, seed=0, dtype=np.float64)
    X = np.random.default_rng(0).normal(size=(20, 4))
    preprocessor = Preprocessor.fit(X, dtype=np.float64)
    target = TargetEncoder("multiclass", 3, np.array(["a", "b", "c"]), names=("kind",))
    model = Model(net, preprocessor, target, loss_from("cross_entropy"))
    outputs = model.outputs(X)
    found = integrated_gradients(model, X, label="b")
    np.testing.assert_allclose(found.outputs, outputs[:, 1], rtol=1e-12)
    assert set(found.names) == {"logit of 'b'"}
    np.testing.assert_allclose(integrated_gradients(model, X).outputs, outputs.max(axis=1), rtol=1e-12)
    with pytest.raises(ConfigError, match="unknown class 'd'"):
        integrated_gradients(model, X, label="d")
    with pytest.raises(ConfigError, match="baseline = 'median' must be one of mean, zero"):
        integrated_gradients(model, X, baseline="median")  # type: ignore[arg-type]


def test_pixels_of_real_digits_are_explained(shared_data: Path, tmp_path: Path) -> None:
    from nnkit.runs.config import Config
    from nnkit.runs.run import Run

    given = [f"data.train={shared_data / 'mnist'}", "model.hidden=[64]", "training.epochs=1"]
    run = Run(Config().with_overrides([*given, f"run.out={tmp_path / 'run'}"]))
    run.train()
    images = run.dataset.train.array[:30]
    found = integrated_gradients(run.model, images)
    assert found.contributions.shape == (30, 784)
    assert np.all(np.abs(found.gap) <= 0.01 * np.abs(found.outputs - found.base))
