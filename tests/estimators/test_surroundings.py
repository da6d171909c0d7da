"""Dtypes, devices, threads, forked processes and memory."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from twins import ours_for, problem, same_bits

import nnkit
from nnkit import NnkitError

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning"),
]

# --- dtypes and devices ---


@pytest.mark.parametrize(("dtype", "given"), [("float32", np.float64), ("float64", np.float32)])
@pytest.mark.parametrize("solver", ["adam", "lbfgs"])
def test_a_dtype_casts_the_data(dtype: str, given: Any, solver: str) -> None:
    X, y = problem("multiclass")
    X = X.astype(given)
    cast = ours_for("multiclass", dtype=dtype, solver=solver, max_iter=5).fit(X, y)
    same = ours_for("multiclass", solver=solver, max_iter=5).fit(X.astype(dtype), y)
    assert {array.dtype for array in cast.coefs_ + cast.intercepts_} == {np.dtype(dtype)}
    assert same_bits(cast, same)
    assert cast.predict_proba(X).dtype == np.dtype(dtype)


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", np.float32), ("fp64", np.float64)])
def test_a_precision_can_be_named(precision: str, dtype: Any) -> None:
    X, y = problem("regression")
    named = ours_for("regression", precision=precision, max_iter=5).fit(X.astype(dtype), y)
    plain = ours_for("regression", max_iter=5).fit(X.astype(dtype), y)
    assert same_bits(named, plain)


def test_auto_is_the_cpu_where_there_is_no_gpu(caplog: pytest.LogCaptureFixture) -> None:
    try:
        nnkit.Trainer(nnkit.Network([nnkit.Dense(1)], inputs=1), "mse", device="cuda")
    except NnkitError:
        X, y = problem("binary")
        assert same_bits(
            *(ours_for("binary", device=device, max_iter=3).fit(X, y) for device in ("auto", "cpu"))
        )
        with pytest.raises(NnkitError, match="cuda"):
            ours_for("binary", device="cuda").fit(X, y)
    else:
        pytest.skip("there is a GPU")


@pytest.mark.gpu
def test_arrays_from_the_gpu_give_predictions_on_the_gpu() -> None:
    import cupy

    X, y = problem("multiclass", rows=200)
    settings = {"max_iter": 5, "shuffle": True}
    host = ours_for("multiclass", **settings).fit(X, y)
    device = ours_for("multiclass", device="cuda", **settings).fit(cupy.asarray(X), cupy.asarray(y))
    found = device.predict_proba(cupy.asarray(X))
    assert isinstance(found, cupy.ndarray)
    np.testing.assert_allclose(found.get(), host.predict_proba(X), atol=1e-8)
    assert isinstance(device.predict_proba(X), np.ndarray)


# --- threads and processes ---


def trained_weights(seed: int) -> bytes:
    X, y = problem("multiclass", seed=seed)
    ours = ours_for("multiclass", max_iter=4, random_state=seed, shuffle=True).fit(X, y)
    return (
        b"".join(array.tobytes() for array in ours.coefs_ + ours.intercepts_)
        + ours.predict_proba(X).tobytes()
    )


def test_several_threads_train_what_one_does() -> None:
    alone = [trained_weights(seed) for seed in range(8)]
    with ThreadPoolExecutor(4) as threads:
        together = list(threads.map(trained_weights, range(8)))
    assert together == alone


# Where nothing is compiled yet, nor imported: the threads come to each kernel together.
COMPILE_AT_ONCE = """
import sys, warnings
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
from nnkit import MLPRegressor

sys.setswitchinterval(1e-5)
warnings.simplefilter("ignore")
X = np.random.default_rng(0).normal(size=(50, 4))
together = Barrier(4)

def train(_):
    together.wait()
    estimator = MLPRegressor(hidden_layer_sizes=(7,), max_iter=2, random_state=0, device="cpu")
    return estimator.fit(X, X[:, 0]).coefs_

with ThreadPoolExecutor(4) as threads:
    first, *others = threads.map(train, range(4))
assert all(np.array_equal(a, b) for other in others for a, b in zip(first, other, strict=True))
"""


def test_several_threads_compile_at_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", COMPILE_AT_ONCE]
    environment = {**os.environ, "NNKIT_CACHE": str(tmp_path)}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, ended.stderr


@pytest.mark.parametrize("rows", [1, 40], ids=["row by row", "some rows"])
def test_several_threads_ask_one_estimator(rows: int) -> None:
    X, y = problem("multiclass", rows=400)
    ours = ours_for("multiclass", max_iter=2).fit(X, y)
    # Parts of one size, which would share what is kept for the next call, and then of another.
    parts = [X[start : start + rows + start // 200] for start in range(0, 400 - rows, rows)]
    alone = [ours.predict_proba(part) for part in parts]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(4) as threads:
            together = list(threads.map(ours.predict_proba, parts * 2))
    finally:
        sys.setswitchinterval(interval)
    for found, expected in zip(together, alone * 2, strict=True):
        assert np.array_equal(found, expected)


def answer(connection: Any, estimator: Any, X: NDArray) -> None:
    """Be a forked child: say what it predicts and what it trains."""
    connection.send((estimator.predict_proba(X), trained_weights(5)))
    connection.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # of forking a process with threads
def test_a_forked_process_predicts_and_trains_as_its_parent() -> None:
    X, y = problem("multiclass", rows=300)
    ours = ours_for("multiclass", max_iter=2, hidden_layer_sizes=(64,)).fit(X, y)
    expected = ours.predict_proba(X), trained_weights(5)
    context = multiprocessing.get_context("fork")
    children = []
    for _ in range(2):
        here, there = context.Pipe(duplex=False)
        child = context.Process(target=answer, args=(there, ours, X))
        child.start()
        there.close()
        children.append((child, here))
    try:
        for child, here in children:
            assert here.poll(60), "the child does not answer"
            probabilities, weights = here.recv()
            assert np.array_equal(probabilities, expected[0])
            assert weights == expected[1]
            child.join(10)
            assert child.exitcode == 0
    finally:
        for child, here in children:
            here.close()
            child.kill()
            child.join()
    assert np.array_equal(ours.predict_proba(X), expected[0])


# --- memory ---


@pytest.fixture
def traced() -> Iterator[Callable[[Callable[[], object]], int]]:
    """Return a function that calls another and returns the most bytes that it had allocated at once."""

    def peak(function: Callable[[], object]) -> int:
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            function()
            return tracemalloc.get_traced_memory()[1] - before
        finally:
            tracemalloc.stop()

    return peak


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "dtype"),
    [
        ("adam", np.float32),
        ("adam", np.float64),
        ("shuffled", np.float32),
        ("partial_fit", np.float32),
        ("eval_set", np.float32),
        ("lbfgs", np.float32),
        ("predict", np.float32),
    ],
)
def test_no_copy_of_the_rows_is_made(what: str, dtype: Any, traced: Any) -> None:
    X = np.random.default_rng(0).normal(size=(20_000, 200)).astype(dtype)
    y = (X[:, 0] > 0).astype(np.int64)
    # What L-BFGS keeps of each row is its layers' outputs: few, for they are not what is asked about.
    units, solver = (2, "lbfgs") if what == "lbfgs" else (64, "adam")
    ours = ours_for("binary", hidden_layer_sizes=(units,), solver=solver, batch_size=400, max_iter=1)
    ours.set_params(shuffle=what == "shuffled").fit(X, y)
    calls = {
        "partial_fit": lambda: ours.partial_fit(X, y, classes=[0, 1]),
        "eval_set": lambda: ours.fit(X, y, eval_set=(X, y)),
        "predict": lambda: ours.predict_proba(X),
    }
    call = calls.get(what, lambda: ours.fit(X, y))
    call()  # compiling and importing are not counted
    assert traced(call) < 0.75 * X.nbytes
