"""scikit-learn's own checks of an estimator, for both classes, every solver, and with dropout.

scikit-learn 1.9's MLPClassifier and MLPRegressor pass all of them with these settings and each solver, so
nothing is expected to fail here but what dropout makes random. `max_iter=100` is what scikit-learn itself
gives its classes for these checks: with 20, its `sgd` fails those that ask for a good fit.
"""

from __future__ import annotations

from typing import Any

import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from nnkit import MLPClassifier, MLPRegressor

KINDS = (MLPClassifier, MLPRegressor)
DEFAULTS = [kind(max_iter=100) for kind in KINDS]
OTHERS = [
    kind(max_iter=100, **others)
    for kind in KINDS
    for others in ({"solver": "lbfgs"}, {"solver": "sgd"}, {"dropout": 0.1})
]
RANDOM = (
    "dropout draws a mask for each row, so a row of weight 2 and a row given twice are dropped differently"
)


def expected_failed_checks(estimator: Any) -> dict[str, str]:
    """Name what cannot hold, and why."""
    if not estimator.dropout:
        return {}
    return {f"check_sample_weight_equivalence_on_{kind}_data": RANDOM for kind in ("dense", "sparse")}


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(DEFAULTS)
def test_scikit_learn_finds_no_fault(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")
@parametrize_with_checks(OTHERS, expected_failed_checks=expected_failed_checks)
def test_scikit_learn_finds_no_fault_with_other_solvers_and_dropout(estimator: Any, check: Any) -> None:
    check(estimator)
