"""Transformed targets against SciPy and scikit-learn, and models that learn them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from scipy.stats import norm
from sklearn.metrics import r2_score, root_mean_squared_error
from sklearn.preprocessing import QuantileTransformer

from nnkit import load
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError, DataError, ModelFileError
from nnkit.runs.config import Config
from nnkit.runs.run import Run


def positive(rows: int = 300) -> np.ndarray:
    return np.random.default_rng(0).lognormal(3, 2, rows)


def again(encoder: TargetEncoder) -> TargetEncoder:
    return TargetEncoder.from_json(json.loads(json.dumps(encoder.to_json())))


def test_the_logarithm_is_standardised_and_inverted() -> None:
    y = positive()
    encoder = again(TargetEncoder.fit(y, "regression", transform="log"))
    logarithms = np.log(y)
    expected = (logarithms - logarithms.mean()) / logarithms.std()
    encoded = encoder.transform(y, np.float64)
    np.testing.assert_allclose(encoded[:, 0], expected, rtol=1e-12)
    np.testing.assert_allclose(encoder.predict(encoded), y, rtol=1e-12)
    np.testing.assert_array_equal(encoder.truth(y)[:, 0], y)


def test_a_target_without_logarithm_is_named_by_its_row() -> None:
    with pytest.raises(DataError, match=r"row 2 \(counting from 0\) is 0, .* `target_transform`"):
        TargetEncoder.fit([1.0, 2.5, 0.0, -1.0], "regression", transform="log")
    encoder = TargetEncoder.fit([[1.0, 2.0], [2.0, 3.0]], "regression", ("a", "b"), transform="log")
    with pytest.raises(DataError, match="target 'b': the target of row 1"):
        encoder.transform([[1.0, 2.0], [1.0, -2.0]])
    # Metrics are of the values themselves.
    assert encoder.truth([[1.0, -2.0]]).tolist() == [[1.0, -2.0]]


@pytest.mark.parametrize("rows", [30, 5000])
def test_normal_scores_are_scikit_learns_between_the_ends(rows: int) -> None:
    y = np.random.default_rng(1).exponential(size=rows).round(2)  # with ties
    encoder = again(TargetEncoder.fit(y, "regression", transform="quantile"))
    assert encoder.mean is not None
    assert encoder.scale is not None
    scores = encoder.transform(y, np.float64) * encoder.scale + encoder.mean
    count = min(rows, 1000)
    theirs = QuantileTransformer(n_quantiles=count, output_distribution="normal", subsample=None)
    expected = theirs.fit_transform(y[:, None])
    # Theirs are linear in the probability between two quantiles, and the ends are at -5.2 and 5.2.
    inner = (y > y.min()) & (y < y.max()) & (np.abs(expected[:, 0]) < 2.5)
    assert inner.mean() > 0.9
    np.testing.assert_allclose(scores[inner], expected[inner], atol=5e-3 if rows > 1000 else 1e-9)
    assert scores.max() == pytest.approx(norm.ppf(1 - 0.5 / count), abs=0.1)
    np.testing.assert_allclose(encoder.predict((scores - encoder.mean) / encoder.scale), y, rtol=1e-9)


def test_normal_scores_beyond_the_training_rows_are_those_of_the_ends() -> None:
    encoder = TargetEncoder.fit(positive(), "regression", transform="quantile")
    low, high = positive().min(), positive().max()
    ends, beyond = encoder.transform([low, high]), encoder.transform([low - 9, high + 9])
    np.testing.assert_array_equal(beyond, ends)
    np.testing.assert_allclose(encoder.predict([[-99.0], [99.0]]), [low, high])


@pytest.mark.parametrize("transform", ["none", "log", "quantile"])
def test_predictions_are_clamped_to_the_training_range_when_asked(transform: Any) -> None:
    y = np.stack([positive(), positive()[::-1] + 5], axis=1)
    encoder = again(TargetEncoder.fit(y, "regression", transform=transform, clamp=True))
    np.testing.assert_allclose(
        encoder.predict([[-50.0, -50.0], [50.0, 50.0]]), [y.min(axis=0), y.max(axis=0)]
    )
    assert encoder.transform(y).shape == y.shape


def test_a_constant_target_is_predicted_with_normal_scores_too() -> None:
    encoder = TargetEncoder.fit([3.0, 3.0, 3.0], "regression", transform="quantile")
    assert encoder.predict(encoder.transform([3.0, 4.0])).tolist() == [3.0, 3.0]
    assert "every training row has the same value, 3" in encoder.notes[0]


def test_classes_are_not_transformed() -> None:
    with pytest.raises(ConfigError, match="`target_transform` is for a regression"):
        TargetEncoder.fit(["a", "b"], transform="log")
    with pytest.raises(ConfigError, match="`clamp_predictions` is for a regression"):
        TargetEncoder.fit(["a", "b"], clamp=True)


@pytest.mark.parametrize(
    "changed",
    [
        {"transform": {"name": "exp", "knots": []}},
        {"transform": {"name": "quantile", "knots": []}},
        {"transform": {"name": "log", "knots": [{"values": [1.0], "scores": [0.0]}]}},
        {"transform": {"name": "quantile", "knots": [{"values": [1.0, 1.0], "scores": [0.0, 1.0]}]}},
        {"transform": {"name": "quantile", "knots": [{"values": [1.0], "scores": [0.0, 1.0]}]}},
        {"transform": {"name": "quantile", "knots": [{"values": [], "scores": []}]}},
        {"bounds": [[1.0]]},
        {"bounds": [[2.0], [1.0]]},
        {"bounds": [[2.0], [3.0, 4.0]]},
        {"bounds": 3},
    ],
)
def test_hostile_json_is_refused(changed: dict[str, Any]) -> None:
    data = TargetEncoder.fit(positive(), "regression").to_json()
    TargetEncoder.from_json(data)
    with pytest.raises(ModelFileError):
        TargetEncoder.from_json(data | changed)


@pytest.mark.parametrize("transform", ["log", "quantile"])
def test_a_run_measures_and_predicts_in_the_targets_units(transform: str, tmp_path: Path) -> None:
    random = np.random.default_rng(5)
    X = random.normal(size=(400, 2))
    y = np.exp(X[:, 0] - X[:, 1] + 0.1 * random.normal(size=400))
    lines = [f"{a},{b},{c}" for (a, b), c in zip(X, y, strict=True)]
    path, test = tmp_path / "rows.csv", tmp_path / "test.csv"
    path.write_text("\n".join(["a,b,y", *lines[:300]]))
    test.write_text("\n".join(["a,b,y", *lines[300:]]))
    settings = [f"data.train={path}", f"data.test={test}", "data.target=y", "training.epochs=30"]
    settings += [f"data.target_transform={transform}", "data.clamp_predictions=true"]
    settings += ["training.learning_rate=0.01", "run.device=cpu", f"run.out={tmp_path / 'run'}"]
    outcome = Run(Config().with_overrides(settings)).train()
    predicted = load(tmp_path / "run").predict(pa.table({"a": X[300:, 0], "b": X[300:, 1]}))
    assert y[:300].min() <= predicted.min()
    assert predicted.max() <= y[:300].max()
    assert outcome.metrics["r2"] == pytest.approx(r2_score(y[300:], predicted), rel=1e-5)
    assert outcome.metrics["rmse"] == pytest.approx(root_mean_squared_error(y[300:], predicted), rel=1e-5)
    assert outcome.metrics["r2"] > 0.9


def test_the_poisson_loss_has_a_logarithm_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a,y\n" + "".join(f"{n},{n + 0.5}\n" for n in range(40)))
    settings = [f"data.train={path}", "data.target=y", "training.loss=poisson", "data.target_transform=log"]
    with pytest.raises(ConfigError, match=r"leave out data\.target_transform"):
        Run(Config().with_overrides(settings))
