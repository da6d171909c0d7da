"""Time nnkit's MLPClassifier beside scikit-learn's and write it as JSON: `python bench/estimators.py [NAME]`.

The same settings and float32 rows, in each turn the same `random_state`; `fit` and `predict` in turns
in one process. MNIST is read from ../shared/data/mnist; where it is not there it is left out and named. What
the figures should be stands beside them as the aim.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

BENCH = Path(__file__).resolve().parent
MNIST = BENCH.parents[1] / "shared" / "data" / "mnist"
SCIKIT_LEARN, NNKIT = "scikit-learn", "nnkit"
ROWS_TO_PREDICT = 10_000
PREDICTIONS = 31  # turns


@dataclass(frozen=True)
class Problem:
    """Rows, and what both estimators are told.

    Parameters
    ----------
    name : str
        For the record.
    X, X_test : ndarray of shape (rows, features), float32
        To train on, and to predict: `ROWS_TO_PREDICT`.
    y, y_test : ndarray of shape (rows,), int64
        Their classes.
    settings : dict
        Constructor parameters.
    repeats : int
        Turns of `fit` that count; there is one before them.
    aim : float
        How many times faster than scikit-learn's `fit` should be at least.
    """

    name: str
    X: NDArray[np.float32]
    y: NDArray[np.int64]
    X_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    settings: dict[str, Any]
    repeats: int
    aim: float


class Training:
    """Calls of `fit`, each of a new estimator with the next `random_state`."""

    def __init__(self, kind: Callable[..., Any], problem: Problem) -> None:
        self._kind = kind
        self._problem = problem
        self.fitted: list[Any] = []

    def __call__(self) -> None:
        estimator = self._kind(random_state=len(self.fitted), **self._problem.settings)
        self.fitted.append(estimator.fit(self._problem.X, self._problem.y))

    def accuracies(self) -> list[float]:
        """Return the share of test rows that each training but the first gets right."""
        problem = self._problem
        return [
            float(np.mean(fitted.predict(problem.X_test) == problem.y_test)) for fitted in self.fitted[1:]
        ]


def mnist() -> Problem:
    """Handwritten digits, pixels in [0, 1]: 60,000 × 784 to train on, two epochs."""
    from nnkit.data.arrays.idx import read_idx

    files = {
        (part, what): read_idx(MNIST / f"{part}-{what}-ubyte.gz")
        for part in ("train", "t10k")
        for what in ("images-idx3", "labels-idx1")
    }
    rows = {
        part: (files[part, "images-idx3"].reshape(-1, 784) / np.float32(255)).astype(np.float32)
        for part in ("train", "t10k")
    }
    labels = {part: files[part, "labels-idx1"].astype(np.int64) for part in ("train", "t10k")}
    return Problem(
        "MNIST, 784-512-512-10, batch 128",
        rows["train"],
        labels["train"],
        rows["t10k"],
        labels["t10k"],
        settings(hidden_layer_sizes=(512, 512), batch_size=128, max_iter=2),
        repeats=3,
        aim=2.5,
    )


def generated() -> Problem:
    """Two classes in clusters: 10,000 × 20 to train on and as many to test, ten epochs."""
    from sklearn.datasets import make_classification

    X, y = make_classification(
        10_000 + ROWS_TO_PREDICT,
        n_features=20,
        n_informative=12,
        n_clusters_per_class=4,
        class_sep=0.8,
        flip_y=0.02,
        random_state=0,
    )
    X = X.astype(np.float32)
    return Problem(
        "10,000 rows, 20-64-64-1, batch 32",
        X[:10_000],
        y[:10_000],
        X[10_000:],
        y[10_000:],
        settings(hidden_layer_sizes=(64, 64), batch_size=32, max_iter=10),
        repeats=7,
        aim=4.0,
    )


def settings(**given: Any) -> dict[str, Any]:
    """Return the settings of a problem; all its epochs are trained."""
    return {"solver": "adam", "tol": 0.0, "n_iter_no_change": 1000, **given}


def compare(problem: Problem) -> dict[str, Any]:
    """Fit and predict in turns; return medians with their spread, ratios and accuracies."""
    from sklearn.neural_network import MLPClassifier as ScikitLearns

    from nnkit import MLPClassifier
    from nnkit.benchmarks.timing import REST, in_turns, ratio, seconds_on_host, spread

    trainings = {SCIKIT_LEARN: Training(ScikitLearns, problem), NNKIT: Training(MLPClassifier, problem)}
    first = seconds_on_host(
        lambda: MLPClassifier(random_state=0, **problem.settings).fit(problem.X, problem.y)
    )
    fits = in_turns(list(trainings.values()), problem.repeats, warmup=1, rest=REST)
    accuracies = {name: training.accuracies() for name, training in trainings.items()}
    rows = problem.X_test[:ROWS_TO_PREDICT]
    last = [training.fitted[-1] for training in trainings.values()]
    predicting = [lambda e=estimator: e.predict(rows) for estimator in last]
    predictions = in_turns(predicting, PREDICTIONS, rest=REST)

    def figures(seconds: list[NDArray[np.float64]], aim: float) -> dict[str, Any]:
        faster = ratio(*seconds)
        return {
            "seconds": {name: spread(s).to_json() for name, s in zip(trainings, seconds, strict=True)},
            "times faster": faster.to_json(),
            "aim": aim,
            "reached": bool(faster.median >= aim),
        }

    medians = {name: statistics.median(values) for name, values in accuracies.items()}
    return {
        "settings": problem.settings,
        "fit": figures(fits, problem.aim),
        "first fit of nnkit in the process, compiling included, seconds": first,
        f"predict, {len(rows):,} rows": figures(predictions, 1.0),
        "test accuracy": {
            "medians": medians,
            "turns": accuracies,
            "aim": "no less than scikit-learn's",
            "reached": medians[NNKIT] >= medians[SCIKIT_LEARN],
        },
    }


def measure() -> dict[str, Any]:
    """Compare on every problem whose data are there."""
    results: dict[str, Any] = {}
    problems = [generated]
    if MNIST.is_dir():
        problems.append(mnist)
    else:
        results["left out"] = f"MNIST: {MNIST} is not there"
        print(results["left out"])
    for make in problems:
        problem = make()
        results[problem.name] = compare(problem)
        show(problem.name, results[problem.name])
    return results


def show(name: str, result: dict[str, Any]) -> None:
    """Print a problem's figures, a line each."""
    print(name)
    for what, figures in result.items():
        if not isinstance(figures, dict) or "times faster" not in figures:
            continue
        faster, (theirs, ours) = (
            figures["times faster"],
            (figures["seconds"][n] for n in (SCIKIT_LEARN, NNKIT)),
        )
        print(
            f"  {what}: {faster['median']:.2f} times faster ({faster['low']:.2f} to {faster['high']:.2f}; "
            f"aim {figures['aim']:g}), {ours['median']:.4f} s to {theirs['median']:.4f} s"
        )
    medians = result["test accuracy"]["medians"]
    print(f"  test accuracy: {medians[NNKIT]:.4f}, scikit-learn's {medians[SCIKIT_LEARN]:.4f}")


def main() -> None:
    """Write bench/results/NAME.json."""
    name = sys.argv[1] if len(sys.argv) > 1 else "estimators"
    with tempfile.TemporaryDirectory() as cache, warnings.catch_warnings():
        os.environ["NNKIT_CACHE"] = cache  # so that the first fit compiles
        warnings.filterwarnings("ignore", message="Stochastic Optimizer: Maximum iterations")
        results = measure()
    from nnkit.machine import describe_machine

    path = BENCH / "results" / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"machine": describe_machine(), **results}, indent=2) + "\n")
    print(f"written to {path.relative_to(BENCH.parent)}")


if __name__ == "__main__":
    main()
