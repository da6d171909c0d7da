"""An embedding's kernels against plain loops, on each device that this process has."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from embedding_cases import STEPS, Case, expected, trained

from nnkit.kernels.layout import PENALTY_SUM, SQUARED_NORM, WEIGHT_SUM

CASES = {
    f"{reduce}{' weighted' if weighted else ''}": Case(reduce, weighted=weighted)
    for reduce, weighted in product(("mean", "sum", "max"), (False, True))
    if reduce != "max" or not weighted
}
CASES |= {
    "rows as they lie": Case(shuffled=False, weighted=True),
    "the first batch": Case(batch=0),
    "the last, smaller batch": Case("sum", batch=2, weighted=True),
    "a maximum in the last batch": Case("max", batch=2),
    "rows of one number": Case(width=1, column=0),
    "rows that end in a group of four": Case("max", width=6),
    "a column that is no multiple of four": Case("sum", column=3, weighted=True),
    "many tokens": Case("sum", longest=40, width=12),
    "a larger batch": Case(capacity=20, longest=5),
    "a frequent row": Case("sum", longest=40, width=12, frequent=0.7, weighted=True),
    "a frequent row's maximum": Case("max", longest=40, width=12, frequent=0.7),
    "a frequent row of many columns": Case(longest=120, width=72, frequent=0.5),
    "one row in several blocks": Case(longest=90, size=1),
    "rows seen once": Case("sum", longest=90, size=5000, width=1),
}
TOLERANCE = {"float32": 3e-6, "float64": 1e-12}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", CASES)
def test_a_step_of_an_embedding_is_that_of_plain_loops(device, name: str, dtype: str) -> None:
    case = CASES[name]
    result, correct = trained(device, case, dtype), expected(case, dtype)
    count = int(result["seen"][0])
    rows = result["rows_seen"][:count]
    assert sorted(rows) == np.flatnonzero(correct["seen"]).tolist()

    def close(got: object, wanted: object, what: str) -> None:
        np.testing.assert_allclose(got, wanted, rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype], err_msg=what)

    close(result["inputs"], correct["inputs"], "inputs")
    close(result["gradient"][:count], correct["gradient"][rows], "gradient")
    assert np.isnan(result["gradient"][count:]).all()
    close(result["scalars"][PENALTY_SUM], correct["penalty"], "penalty")
    close(result["scalars"][SQUARED_NORM], correct["norm"], "norm")
    for array in ("table", "state0"):
        close(result[array], correct[array], array)
    before = case.arguments(dtype)
    unseen = ~correct["seen"]
    assert result["table"][unseen].tobytes() == before["table"][unseen].tobytes()
    assert np.all(result["last_seen"][rows] == STEPS + 1)
    assert np.array_equal(result["last_seen"][unseen], before["last_seen"][unseen])


@pytest.mark.parametrize("optimizer", ["sgd", "rmsprop", "adam"])
def test_the_rows_seen_follow_the_optimizers_rule(device, optimizer: str) -> None:
    case = Case("mean", weighted=True)
    result = trained(device, case, "float64", optimizer)
    correct = expected(case, "float64", optimizer)
    for array in ("table", "state0", "state1"):
        np.testing.assert_allclose(result[array], correct[array], rtol=1e-12, atol=1e-12, err_msg=array)


def test_a_batch_without_tokens_sees_no_row(device) -> None:
    case = Case()
    arguments = case.arguments("float64")
    arguments["starts"][:] = 0
    before = arguments["table"].copy()
    for name in ("unique_rows", "embed", "embed_gradient"):
        device.run(name, "float64", {}, case.flags, arguments)
    device.run("squared_norm_rows", "float64", {}, {}, arguments)
    assert arguments["seen"][0] == 0
    assert arguments["scalars"][SQUARED_NORM] == 0.25
    assert not arguments["inputs"][:, case.column : case.column + case.width].any()
    np.testing.assert_array_equal(arguments["table"], before)


def test_a_batch_without_weight_updates_and_marks_nothing(device) -> None:
    from nnkit.nn.optimizers import optimizer_from

    case, rule = Case(), optimizer_from("sgd")
    arguments = case.arguments("float64")
    arguments["scalars"][WEIGHT_SUM] = 0
    before = {name: arguments[name].copy() for name in ("table", "last_seen")}
    for name in ("unique_rows", "embed", "embed_gradient"):
        device.run(name, "float64", {}, case.flags, arguments)
    flags = {"SLOTS": 0, "CLIP": False, "PREPARED": False, "DECAYS_UNSEEN": False}
    device.run("update_rows", "float64", rule.formulas_of_rows, flags, arguments)
    device.run("mark_rows", "float64", {}, {}, arguments)
    for name, array in before.items():
        np.testing.assert_array_equal(arguments[name], array)
