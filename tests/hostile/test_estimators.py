"""Model files whose description of an estimator was altered: an estimator, or a ModelFileError."""

from __future__ import annotations

import copy
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from sklearn.exceptions import ConvergenceWarning

from hostile.checks import LONGEST_MESSAGE, RANDOMS, SETTINGS
from nnkit import MLPClassifier, load
from nnkit.errors import ModelFileError
from nnkit.model import Model

ODD: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**60, 1e308, "", "x" * 5000, [], {}, [[]], ["a", 1]),
    *({"pairs": 3}, {"pairs": [[[], 1]]}, {"number": "x"}, {"number": []}, {"tuple": 5}, {"tuple": ["x"]}),
)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Model:
    X = np.random.default_rng(0).normal(size=(12, 3))
    path = tmp_path_factory.mktemp("estimator") / "m.safetensors"
    estimator = MLPClassifier((4,), max_iter=2, random_state=0, class_weight={0: 2.0, 1: 1.0}, dropout=(0.1,))
    with pytest.warns(ConvergenceWarning):
        estimator.fit(X, np.arange(12) % 2).save(path)
    return load(path)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) within a JSON value."""
    if isinstance(value, dict):
        found = [(value, key) for key in value]
    else:
        found = [(value, index) for index in range(len(value))] if isinstance(value, list) else []
    return found + [inner for container, key in list(found) for inner in places(container[key])]


@SETTINGS
@given(random=RANDOMS)
def test_an_altered_description_is_an_estimator_or_a_model_file_error(
    saved: Model, tmp_path_factory: pytest.TempPathFactory, random: int
) -> None:
    generator = Random(random)
    estimator = copy.deepcopy(saved.estimator)
    for _ in range(generator.choice((1, 1, 1, 3))):
        container, key = generator.choice(places({"": estimator}))
        if isinstance(container, dict) and generator.random() < 0.2:
            del container[key]
        else:
            container[key] = copy.deepcopy(generator.choice(ODD))
    path = tmp_path_factory.mktemp("altered") / "m.safetensors"
    # Among the details is where earlier versions put it.
    given = ({}, estimator) if generator.random() < 0.7 else ({"estimator": estimator}, None)
    Model(saved.network, saved.preprocessor, saved.target, saved.loss, *given).save(path)
    error = None
    try:
        predicted = MLPClassifier.load(path).predict(np.zeros((2, 3)))
    except ModelFileError as refused:
        error = refused
    assert predicted.shape == (2,) if error is None else 0 < len(str(error)) <= LONGEST_MESSAGE


def test_a_file_without_an_estimator_says_what_reads_it(saved: Model, tmp_path: Path) -> None:
    Model(saved.network, saved.preprocessor, saved.target, saved.loss, {}).save(tmp_path / "m")
    with pytest.raises(ModelFileError, match=r"nnkit\.load reads models"):
        MLPClassifier.load(tmp_path / "m")
