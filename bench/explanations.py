"""Hold the explanations against what they promise: `python bench/explanations.py`.

Writes bench/results/explanations.json: how much of the way from the baseline to the output the integrated
gradients of networks trained on MNIST, California housing and SMS spam leave unexplained; how far gradients
and SHAP values (where shap is installed) of a linear network lie from weight × (input − baseline); and how
far permutation importance lies from scikit-learn's. Data are read from ../shared/data, or the folder
NNKIT_BENCH_DATA.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from sklearn.inspection import permutation_importance as scikit_learns

from nnkit import Dense, Network
from nnkit.data.preprocessing import Preprocessor
from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError
from nnkit.insight.attributions import integrated_gradients
from nnkit.insight.evaluated_model import drawn_examples
from nnkit.insight.explanation import Explanation
from nnkit.insight.importance import permutation_importance
from nnkit.insight.perturbations import shap_values
from nnkit.machine import describe_machine
from nnkit.model import Model
from nnkit.nn.losses import loss_for_task
from nnkit.runs.config import Config
from nnkit.runs.run import Run

BENCH = Path(__file__).resolve().parent
DATA = Path(os.environ.get("NNKIT_BENCH_DATA") or BENCH.parents[1] / "shared" / "data")
TRAININGS = {
    "MNIST": ("mnist", ["model.hidden=[64]", "training.epochs=1"]),
    "California housing": ("california_housing.csv", ["data.target=median_house_value"]),
    "SMS spam": ("sms_spam.tsv", ["data.target=0", "model.hidden=[32]"]),
}
ROWS = 1000
COMPLETE, CLOSE = 0.01, 1e-5  # aims: of the difference explained; of a closed form


def completeness() -> Iterator[dict[str, Any]]:
    """Yield what integrated gradients leave unexplained, as a share of output − base, by training."""
    for name, (source, settings) in TRAININGS.items():
        if not (DATA / source).exists():
            print(f"{DATA / source} is not there: {name} is left out")
            continue
        with tempfile.TemporaryDirectory() as scratch:
            run = Run(
                Config().with_overrides([f"data.train={DATA / source}", f"run.out={scratch}", *settings])
            )
            outcome = run.train()
            rows = drawn_examples(run.data.measured_rows().examples, ROWS, seed=0).features
        began = time.perf_counter()
        explained = integrated_gradients(run.model, rows)
        seconds = time.perf_counter() - began
        shares = np.abs(explained.gap) / np.abs(explained.outputs - explained.base)
        yield {
            "training": name,
            "settings": settings,
            "metrics": outcome.metrics,
            "rows": len(shares),
            "median": float(np.median(shares)),
            "greatest": float(shares.max()),
            "seconds": seconds,
        }


def linear() -> tuple[Model, np.ndarray, np.ndarray]:
    """Return a linear network, rows, and weight × (input − mean) for each of them."""
    random = np.random.default_rng(0)
    X = random.standard_normal((60, 6)).astype(np.float32)
    network = Network([Dense(1)], inputs=6, seed=1)
    encoder = TargetEncoder.fit(X @ np.arange(6.0), "regression", ("target",))
    preprocessor = Preprocessor.fit(X, scaling="none")
    model = Model(network, preprocessor, encoder, loss_for_task("regression"))
    weight = network.parameters()["layers.0.weight"][:, 0].astype(np.float64) * float(encoder.scale[0])
    return model, X, weight * (X - X.mean(axis=0, dtype=np.float64))


def closed_forms() -> dict[str, float]:
    """Return the greatest distance from the closed form, over the greatest contribution, by method."""
    model, X, expected = linear()
    explained: dict[str, Explanation] = {"integrated gradients": integrated_gradients(model, X)}
    with suppress(ConfigError):  # shap is not installed
        explained["SHAP"] = shap_values(model, X)
    size = np.abs(expected).max()
    return {
        method: float(np.abs(found.contributions - expected).max() / size)
        for method, found in explained.items()
    }


class Face:
    """A model as scikit-learn's function asks for it."""

    def __init__(self, model: Model, names: list[str] | None) -> None:
        self.model = model
        self.names = names

    def fit(self, X: Any, y: Any) -> Face:
        """Do nothing: it is trained."""
        return self

    def score(self, X: np.ndarray, y: np.ndarray) -> float:
        """Return the accuracy."""
        rows = X if self.names is None else pa.table(dict(zip(self.names, X.T, strict=True)))
        return float(np.mean(self.model.predict(rows) == y))


def importance() -> dict[str, float]:
    """Return the greatest distance of a mean importance from scikit-learn's with the same seed, by source."""
    distances = {}
    for source in ("iris", "breast_cancer", "digits"):
        with tempfile.TemporaryDirectory() as scratch:
            run = Run(Config().with_overrides([f"data.train={source}", f"run.out={scratch}"]))
            run.train()
        X, y = run.dataset.train.features, run.dataset.train.target
        names = None if isinstance(X, np.ndarray) else X.column_names
        array = X if names is None else np.column_stack([X[name].to_numpy() for name in names])
        own = permutation_importance(run.model, X, y, "accuracy", repeats=5, seed=0)
        theirs = scikit_learns(Face(run.model, names), array, y, n_repeats=5, random_state=0)
        distances[source] = float(np.abs(own.mean - theirs.importances_mean).max())
    return distances


def main() -> None:
    """Write bench/results/explanations.json."""
    record = {
        "machine": describe_machine(),
        "completeness": list(completeness()),
        "from a closed form": closed_forms(),
        "from scikit-learn's importance": importance(),
        "aims": {"unexplained": COMPLETE, "from a closed form": CLOSE},
    }
    path = BENCH / "results" / "explanations.json"
    path.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    print(json.dumps({key: record[key] for key in list(record)[1:]}, indent=1))
    print(f"written to {path}")


if __name__ == "__main__":
    main()
