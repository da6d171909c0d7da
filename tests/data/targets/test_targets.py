"""Target encoding: the task that is guessed, labels there and back, and what cannot be a target."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from scipy.special import expit, softmax
from scipy.stats import skew

from nnkit.data.targets.encoding import TargetEncoder
from nnkit.errors import ConfigError, DataError, ModelFileError


@pytest.mark.parametrize(
    ("target", "task", "outputs"),
    [
        (["no", "yes", "no"], "binary", 1),
        ([True, False], "binary", 1),
        ([0, 1, 1], "binary", 1),
        ([5.0, 7.0, 5.0], "binary", 1),
        (["a", "b", "c"], "multiclass", 3),
        (np.arange(100) % 10, "multiclass", 10),
        (np.arange(100) % 10 * 100, "multiclass", 10),
        (np.arange(5000) % 100, "multiclass", 100),
        (np.arange(500) % 100, "regression", 1),
        (np.arange(5000) % 100 * 10, "regression", 1),
        (np.arange(10), "regression", 1),
        ([0.5, 1.5, 0.5], "regression", 1),
        ([[0, 1], [1, 1]], "multilabel", 2),
        ([[0.5, 1], [1, 1]], "regression", 2),
        ([[1], [0]], "binary", 1),
    ],
)
def test_task_is_guessed_as_the_docstring_says(target: object, task: str, outputs: int) -> None:
    encoder = TargetEncoder.fit(target)  # type: ignore[arg-type]
    assert (encoder.task, encoder.outputs) == (task, outputs)


def test_close_guess_is_noted() -> None:
    assert '`task` = "multiclass"' in TargetEncoder.fit(np.arange(30)).notes[0]
    assert '`task` = "regression"' in TargetEncoder.fit(np.arange(2000) % 90).notes[0]
    assert TargetEncoder.fit(np.arange(100) % 10).notes == ()


LABELS = [
    np.array([3, 1, 2, 3, 1, 2]),
    np.array([0, 255, 7, 0, 255, 7], dtype=np.uint8),
    np.array(["b", "a", "c", "a"]),
    np.array(["b", "a", "c", "a"], dtype=object),
    np.array([True, False, True, True]),
    np.array([1.0, 2.0, 1.0, 2.0]),
    np.array([[0, 1], [1, 1], [0, 0], [1, 0]]),
    np.array([[False, True], [True, True], [False, False], [True, False]]),
]


@pytest.mark.parametrize("target", LABELS, ids=lambda target: f"{target.dtype}{target.ndim}")
def test_labels_come_back_in_their_own_type(target: np.ndarray) -> None:
    encoder = TargetEncoder.fit(target, "multilabel" if target.ndim == 2 else "auto")
    encoder = TargetEncoder.from_json(json.loads(json.dumps(encoder.to_json())))
    encoded = encoder.transform(target)
    logits = np.eye(encoder.outputs)[encoded] if encoder.task == "multiclass" else encoded * 2 - 1
    predicted = encoder.predict(logits)
    np.testing.assert_array_equal(predicted, target)
    assert predicted.dtype == target.dtype


def test_encoded_shapes_and_types() -> None:
    binary = TargetEncoder.fit(["no", "yes"]).transform(["yes", "no"], np.float64)
    assert (binary.tolist(), binary.dtype) == ([[1], [0]], np.float64)
    multiclass = TargetEncoder.fit(["a", "b", "c"]).transform(["c", "a"])
    assert (multiclass.tolist(), multiclass.dtype) == ([2, 0], np.int32)
    two = TargetEncoder.fit([0, 1], "multiclass")
    assert (two.outputs, two.transform([1, 0]).tolist()) == (2, [1, 0])


@pytest.mark.parametrize("columns", [None, 1, 3])
def test_regression_is_standardised_and_brought_back(columns: int | None) -> None:
    generator = np.random.default_rng(0)
    target = generator.normal(2e5, 1e5, 100 if columns is None else (100, columns))
    encoder = TargetEncoder.fit(target)
    encoded = encoder.transform(target, np.float64)
    np.testing.assert_allclose(encoded.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(encoded.std(axis=0), 1, atol=1e-12)
    again = TargetEncoder.from_json(json.loads(json.dumps(encoder.to_json()))).predict(encoded)
    np.testing.assert_allclose(again, target if columns != 1 else target[:, 0], rtol=1e-12)


def test_probabilities_are_stable() -> None:
    logits = np.array([[-800.0], [0.0], [3.0], [800.0]])
    probabilities = TargetEncoder.fit([0, 1]).probabilities(logits)
    np.testing.assert_allclose(probabilities[:, 1], expit(logits[:, 0]), rtol=1e-12)
    np.testing.assert_allclose(probabilities[:, 0], expit(-logits[:, 0]), rtol=1e-12)
    logits = np.array([[1e4, 0, -1e4], [1.0, 2.0, 3.0]])
    encoder = TargetEncoder.fit(["a", "b", "c"])
    np.testing.assert_allclose(encoder.probabilities(logits), softmax(logits, axis=1), rtol=1e-12)
    several = TargetEncoder.fit([[0, 1, 1], [1, 0, 1]]).probabilities(logits)
    np.testing.assert_allclose(several, expit(logits), rtol=1e-12)
    with pytest.raises(DataError, match="no probabilities"):
        TargetEncoder.fit([0.5, 1.5]).probabilities([[1.0]])


def test_threshold_moves_the_answer() -> None:
    encoder = TargetEncoder.fit(["no", "yes"])
    logits = np.log(np.array([[0.3], [0.7]]) / np.array([[0.7], [0.3]]))
    assert encoder.predict(logits).tolist() == ["no", "yes"]
    assert encoder.predict(logits, threshold=0.2).tolist() == ["yes", "yes"]


def test_labels_match_across_types() -> None:
    assert TargetEncoder.fit([1, 2, 3], "multiclass").transform(["2", "3"]).tolist() == [1, 2]
    assert TargetEncoder.fit(["1", "2", "x"]).transform([2, 1]).tolist() == [1, 0]
    assert TargetEncoder.fit([1, 2, 3], "multiclass").transform([2.0]).tolist() == [1]


def test_unseen_label_is_named() -> None:
    with pytest.raises(DataError, match=r"target 'kind': label 'd' is not among .* 'a', 'b', 'c'"):
        TargetEncoder.fit(["a", "b", "c"], names=("kind",)).transform(["a", "d"])


@pytest.mark.parametrize(
    ("target", "task", "words"),
    [
        ([1, 1], "auto", "one value only, 1"),
        (["a", "a"], "auto", "one class only, 'a'"),
        ([1.5, 1.5], "auto", "one value only"),
        ([], "auto", "at least one row"),
        ([[[1]]], "auto", "shape"),
        (np.array(["a", None], dtype=object), "auto", "row 1 .* is missing"),
        ([1, 0, np.nan], "auto", "row 2 .* is missing"),
        ([[1, 2], [np.inf, 0]], "auto", "row 1 .* is infinite"),
        (np.array(["a", 1], dtype=object), "auto", "mixture"),
        (np.array(["2020-01-01"], dtype="M8[D]"), "auto", "not datetime64"),
        ([str(i) for i in range(30)], "auto", "a label of its own"),
        ([["a", "b"]], "auto", "not texts"),
        ([1, 2, 3], "binary", "two classes, this one 3"),
        ([1, 2, 3], "multilabel", "a column of 0 and 1"),
        ([[1, 2], [3, 4]], "multilabel", "only 0 and 1"),
        ([[1, 0], [0, 1]], "multiclass", "has one column"),
        (["a", "b"], "regression", "row 0 .* holds 'a'"),
        ([1e308, -1e308, 1e308], "regression", "too large"),
    ],
)
def test_what_cannot_be_a_target_is_named(target: object, task: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        TargetEncoder.fit(target, task)  # type: ignore[arg-type]


def test_wrong_shapes_and_tasks_are_named() -> None:
    with pytest.raises(ConfigError, match="task = 'clustering' must be one of auto"):
        TargetEncoder.fit([0, 1], "clustering")
    encoder = TargetEncoder.fit([[0, 1], [1, 1]])
    with pytest.raises(DataError, match="1 columns"):
        encoder.transform([0, 1])
    with pytest.raises(DataError, match=r"\(samples, 2\)"):
        encoder.predict([[1.0]])
    with pytest.raises(DataError, match="2 columns"):
        TargetEncoder.fit([0, 1]).transform([[0, 1], [1, 1]])


def test_constant_regression_is_noted() -> None:
    encoder = TargetEncoder.fit([2.5, 2.5], "regression")
    assert "same value, 2.5" in encoder.notes[0]
    assert encoder.predict(encoder.transform([2.5])).tolist() == [2.5]


MULTICLASS = TargetEncoder.fit(["a", "b", "c"]).to_json()
REGRESSION = TargetEncoder.fit([0.5, 1.5]).to_json()


@pytest.mark.parametrize(
    "data",
    [
        None,
        {},
        MULTICLASS | {"task": "x"},
        MULTICLASS | {"outputs": 2},
        MULTICLASS | {"outputs": 2**60},
        MULTICLASS | {"classes": None},
        MULTICLASS | {"classes": {"dtype": "str", "values": ["b", "a", "c"]}},
        MULTICLASS | {"classes": {"dtype": "str", "values": ["a", "a", "c"]}},
        MULTICLASS | {"classes": {"dtype": "int64", "values": ["1", "2", "3"]}},
        MULTICLASS | {"classes": {"dtype": "uint8", "values": [1, 2, 300]}},
        MULTICLASS | {"classes": {"dtype": "object", "values": [1, "a", 2]}},
        MULTICLASS | {"classes": {"dtype": "object", "values": [[1], [2], [3]]}},
        MULTICLASS | {"classes": {"dtype": "float64", "values": [1.0, 2.0, float("nan")]}},
        MULTICLASS | {"classes": {"dtype": "datetime64[D]", "values": [1, 2, 3]}},
        MULTICLASS | {"flat": 1},
        MULTICLASS | {"names": [1]},
        REGRESSION | {"scale": [0.0]},
        REGRESSION | {"scale": [float("inf")]},
        REGRESSION | {"mean": [1, 2]},
    ],
)
def test_hostile_json_is_refused(data: object) -> None:
    with pytest.raises(ModelFileError):
        TargetEncoder.from_json(data)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "positive", "classes"),
    [
        (["no", "yes", "no"], "no", ["yes", "no"]),
        (["no", "yes", "no"], "yes", ["no", "yes"]),
        ([0, 1, 1], "0", [1, 0]),
        ([1.0, 2.0], 1, [2.0, 1.0]),
        ([True, False], False, [True, False]),
    ],
)
def test_the_positive_class_comes_second(target: list[Any], positive: Any, classes: list[Any]) -> None:
    encoder = TargetEncoder.fit(target, positive=positive)
    encoder = TargetEncoder.from_json(json.loads(json.dumps(encoder.to_json())))
    assert encoder.classes is not None
    assert encoder.classes.tolist() == classes
    assert encoder.positive == classes[1]
    truth = encoder.transform(target)[:, 0]
    assert truth.tolist() == [float(label == classes[1]) for label in target]
    assert encoder.predict(9 * (2 * truth[:, None] - 1)).tolist() == target
    assert encoder.probabilities(np.array([[9.0]]))[0, 1] > 0.99


def test_a_positive_class_that_is_not_there_is_told() -> None:
    with pytest.raises(ConfigError, match=r"`positive` is 'maybe', .* the classes are 'no', 'yes'"):
        TargetEncoder.fit(["no", "yes"], positive="maybe")
    with pytest.raises(ConfigError, match="one class of two, and this is a multiclass target"):
        TargetEncoder.fit(["a", "b", "c"], positive="a")


def test_classes_out_of_order_are_a_damaged_file_but_for_two() -> None:
    kept = TargetEncoder.fit(["a", "b", "c"]).to_json()
    kept["classes"]["values"] = ["b", "a", "c"]
    with pytest.raises(ModelFileError, match="ascending"):
        TargetEncoder.from_json(kept)
    kept = TargetEncoder.fit(["a", "b"]).to_json()
    kept["classes"]["values"] = ["b", "b"]
    with pytest.raises(ModelFileError, match="distinct"):
        TargetEncoder.from_json(kept)


def test_labels_that_are_alike_are_noted() -> None:
    [note] = TargetEncoder.fit(["yes", "no", "No", "maybe", "no"], names=("y",)).notes
    assert "labels 'No', 'no' differ in capitals or blanks only" in note
    assert "types" not in note
    [note] = TargetEncoder.fit(["yes", "no", "No"], names=("y",)).notes
    assert note.endswith('`types` = {"y" = "boolean"} reads them as true and false')
    assert not TargetEncoder.fit(["yes", "no", "maybe"]).notes


def test_labels_that_look_like_lists_are_noted() -> None:
    combinations = ["a;b", "b;c", "a;c", "a;b;c", "d;a", "c"]
    [note] = TargetEncoder.fit(combinations * 5).notes
    assert 'if each cell is a list of labels, set `task` = "multilabel"' in note
    places = ["Boston, MA", "Austin, TX", "Salem, OR"]
    assert not TargetEncoder.fit(places * 5).notes
    every = [f"{a};{b};{c}" for a in "abc" for b in "defg" for c in "hij"]
    with pytest.raises(DataError, match=r'a label of its own.*set `task` = "multilabel"'):
        TargetEncoder.fit(every)


def test_a_heavy_tail_is_noted() -> None:
    rng = np.random.default_rng(0)
    normal = rng.normal(size=400)
    [note] = TargetEncoder.fit(np.exp(normal), names=("price",)).notes
    assert note.startswith("target 'price': a few values are far larger than the others (skewness")
    skewness = (float(skew(np.exp(normal))), float(skew(normal)))
    assert "(skewness {:.1f}, that of their logarithms {:.1f})".format(*skewness) in note
    assert not TargetEncoder.fit(normal).notes
    assert not TargetEncoder.fit(np.exp(normal) - 1).notes
    assert not TargetEncoder.fit(rng.exponential(size=400)).notes
