"""Time nnkit's MLPClassifier beside scikit-learn's: `python bench/estimators.py`.

The same settings, float32 rows and, in each turn, `random_state`; all epochs are trained. `fit` and
`predict` of both take turns in one process, whose first fit compiles. The aim for the test accuracy is
scikit-learn's median. MNIST is read from ../shared/data/mnist.
"""

from __future__ import annotations

import os
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from program import DATA, in_turns, parser, save, why_absent

from nnkit.bench.records import Aim, Record, measured, once
from nnkit.bench.timing import seconds_on_host

SCIKIT_LEARN, NNKIT = "scikit-learn", "nnkit"
COMMON = {"solver": "adam", "tol": 0.0, "n_iter_no_change": 1000}
PREDICTED, PREDICTIONS = 10_000, 31  # rows, turns


@dataclass(frozen=True)
class Problem:
    """Rows of shape (rows, features), float32, with their classes, and what both estimators are given."""

    name: str
    X: NDArray[np.float32]
    y: NDArray[np.int64]
    X_test: NDArray[np.float32]
    y_test: NDArray[np.int64]
    settings: dict[str, Any]
    turns: int
    aim: float


def generated(tiny: bool) -> Problem:
    """Two classes in clusters."""
    from sklearn.datasets import make_classification

    rows = 1000 if tiny else 10_000
    X, y = make_classification(
        rows + PREDICTED,
        n_features=20,
        n_informative=12,
        n_clusters_per_class=4,
        class_sep=0.8,
        flip_y=0.02,
        random_state=0,
    )
    X = X.astype(np.float32)
    settings = {"hidden_layer_sizes": (64, 64), "batch_size": 32, "max_iter": 10}
    name = f"{rows:,} rows, 20-64-64-1, batch 32"
    return Problem(name, X[:rows], y[:rows], X[rows:], y[rows:], settings, 2 if tiny else 7, 4.0)


def mnist(tiny: bool) -> Problem:
    """Handwritten digits, pixels in [0, 1]."""
    from nnkit.data.arrays.idx import read_idx

    rows, labels = {}, {}
    for part in ("train", "t10k"):
        images = read_idx(DATA / "mnist" / f"{part}-images-idx3-ubyte.gz")
        rows[part] = images.reshape(-1, 784) / np.float32(255)
        labels[part] = read_idx(DATA / "mnist" / f"{part}-labels-idx1-ubyte.gz").astype(np.int64)
    count = 2000 if tiny else None
    settings = {"hidden_layer_sizes": (512, 512), "batch_size": 128, "max_iter": 2}
    name, test = "MNIST, 784-512-512-10, batch 128", (rows["t10k"], labels["t10k"])
    turns = 2 if tiny else 3
    return Problem(name, rows["train"][:count], labels["train"][:count], *test, settings, turns, 2.5)


def compare(problem: Problem) -> Iterator[Record]:
    """Fit and predict in turns."""
    from sklearn.neural_network import MLPClassifier as ScikitLearns

    from nnkit import MLPClassifier

    fitted: dict[str, list[Any]] = {SCIKIT_LEARN: [], NNKIT: []}

    def fit(name: str, kind: Callable[..., Any]) -> None:
        estimator = kind(random_state=len(fitted[name]), **COMMON, **problem.settings)
        fitted[name].append(estimator.fit(problem.X, problem.y))

    def timed(what: str, taken: dict[str, NDArray[np.float64]], aim: float) -> Record:
        figures = {name: measured("s", values) for name, values in taken.items()}
        ratio = measured("", taken[SCIKIT_LEARN] / taken[NNKIT], Aim(">=", aim))
        return Record(problem.name, what, figures={**figures, "scikit-learn / nnkit": ratio})

    first = seconds_on_host(
        lambda: MLPClassifier(random_state=0, **COMMON, **problem.settings).fit(problem.X, problem.y)
    )
    yield Record(problem.name, "first fit of the process", figures={NNKIT: once("s", first)})
    kinds = {SCIKIT_LEARN: ScikitLearns, NNKIT: MLPClassifier}
    fits = in_turns({name: partial(fit, name, kind) for name, kind in kinds.items()}, problem.turns)
    yield timed("fit", fits, problem.aim)
    rows = problem.X_test[:PREDICTED]
    predict = {name: partial(estimators[-1].predict, rows) for name, estimators in fitted.items()}
    yield timed(f"predict, {len(rows):,} rows", in_turns(predict, PREDICTIONS, warmup=2), 1.0)
    theirs, ours = (
        np.array([np.mean(one.predict(problem.X_test) == problem.y_test) for one in estimators[1:]])
        for estimators in fitted.values()
    )
    aim = Aim(">=", float(np.median(theirs)))
    figures = {SCIKIT_LEARN: measured("%", theirs), NNKIT: measured("%", ours, aim)}
    details = {"turns": {SCIKIT_LEARN: theirs.tolist(), NNKIT: ours.tolist()}, "settings": problem.settings}
    yield Record(problem.name, "test accuracy", figures=figures, details=details)


def records(tiny: bool) -> Iterator[Record]:
    """Compare on both problems."""
    yield from compare(generated(tiny))
    if missing := why_absent("mnist"):
        yield Record("MNIST, 784-512-512-10, batch 128", "fit", skipped=missing)
    else:
        yield from compare(mnist(tiny))


if __name__ == "__main__":
    given = parser(__doc__).parse_args()
    warnings.filterwarnings("ignore", message="Stochastic Optimizer: Maximum iterations")
    with tempfile.TemporaryDirectory() as cache:
        os.environ["NNKIT_CACHE"] = cache  # empty, so that the first fit compiles
        save(given, "The estimators beside scikit-learn's", __doc__, records(given.tiny))
