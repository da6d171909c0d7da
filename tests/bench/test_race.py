"""The problem that contenders share, nnkit's training of it, other libraries', and the race."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from nnkit.backends import select
from nnkit.bench import race as module
from nnkit.bench.problem import Problem, generate_problem, last_loss_of_epoch, training_step
from nnkit.bench.race import CONTENDERS, NNKIT, race
from nnkit.bench.timing import clock_for

PROBLEMS = {"pixels": ((784, 8, 8, 10), 16, 6), "numbers": ((20, 16, 16, 1), 32, 6)}


@pytest.fixture(params=PROBLEMS)
def problem(request: pytest.FixtureRequest) -> Problem:
    return generate_problem(*PROBLEMS[request.param])


def loss_by_hand(problem: Problem, batch: int) -> float:
    """Return the first weights' loss of a batch, in float64."""
    rows = problem.order[batch * problem.batch_size :][: problem.batch_size]
    x = problem.inputs[rows].astype(np.float64)
    x = x / 255 if problem.inputs.dtype == np.uint8 else x
    weights = [weight.astype(np.float64) for weight in problem.parameters.values()]
    for weight in weights[:-1]:
        x = np.maximum(x @ weight, 0)
    z, labels = x @ weights[-1], problem.labels[rows]
    if problem.binary:
        return float(np.mean(np.logaddexp(0, z[:, 0]) - labels * z[:, 0]))
    return float(np.mean(np.log(np.exp(z).sum(axis=1)) - z[np.arange(len(z)), labels]))


def test_nnkit_trains_the_problem_from_its_weights_in_its_order(problem: Problem) -> None:
    # At so small a rate every step's loss is that of the first weights.
    still = replace(problem, learning_rate=1e-30)
    step = training_step(still, select("cpu").backend)
    loss = last_loss_of_epoch(step, problem.steps)
    np.testing.assert_allclose(loss, loss_by_hand(problem, problem.steps - 1), rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "scikit-learn",
        pytest.param("PyTorch eager", marks=pytest.mark.extra("torch")),
        pytest.param("JAX, an epoch a call", marks=pytest.mark.extra("jax")),
    ],
)
def test_peers_come_to_the_same_loss_as_nnkit(problem: Problem, name: str) -> None:
    peer = CONTENDERS[name](problem, "cpu", "fp32")
    peer.epoch()
    peer.wait()
    expected = last_loss_of_epoch(training_step(problem, select("cpu").backend), problem.steps)
    # Far from the first weights' loss, so that a peer that updated less would show.
    assert abs(expected / loss_by_hand(problem, problem.steps - 1) - 1) > 1e-3
    np.testing.assert_allclose(peer.last_loss(), expected, rtol=1e-5)


def test_a_race_goes_on_without_a_contender_that_cannot_train() -> None:
    problem = generate_problem((20, 8, 1), 16, 4)
    outcome = race(["scikit-learn", NNKIT], problem, "cpu", "fp64", 3, time.monotonic() + 120)
    assert outcome.failures == {
        "scikit-learn": "ValueError: scikit-learn does not train on cpu in fp64",
    }
    assert outcome.seconds[NNKIT].shape == (3,)
    assert (outcome.seconds[NNKIT] > 0).all()
    expected = last_loss_of_epoch(training_step(problem, select("cpu").backend), 4)
    assert outcome.losses == {NNKIT: expected}
    assert outcome.first_epoch[NNKIT] > 0


def test_a_contender_that_is_not_ready_in_time_is_left_out() -> None:
    problem = generate_problem((20, 8, 1), 16, 4)
    outcome = race([NNKIT], problem, "cpu", "fp32", 3, time.monotonic() - 1)
    assert outcome.seconds == {}
    assert "not done after" in outcome.failures[NNKIT]


def test_no_turn_begins_after_the_finish_but_the_first_that_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    clock = SimpleNamespace(monotonic=lambda: now[0], sleep=lambda seconds: None)
    monkeypatch.setattr(module, "time", clock)

    class Process:
        def __init__(self, *arguments: Any) -> None:
            pass

        def ask(self, request: str, seconds: float) -> Any:
            if request == "train an epoch":
                return 0.5, 1.0
            now[0] += 1.0
            return now[0]

        def end(self) -> None:
            pass

    monkeypatch.setattr(module, "_Process", Process)
    problem = generate_problem((20, 8, 1), 16, 1)
    # Two turns warm up until 4 s.
    for finish, counted in ((7.0, 2), (0.0, 1), (1e9, 5)):
        now[0] = 0.0
        outcome = race(["a", "b"], problem, "cpu", "fp32", 5, 1.0, 2, finish)
        assert {name: len(seconds) for name, seconds in outcome.seconds.items()} == {
            "a": counted,
            "b": counted,
        }
        assert outcome.seconds["a"][0] == 5.0


def test_events_are_recorded_around_the_work_on_the_backends_stream(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    called: list[str] = []

    class Event:
        def record(self) -> None:
            called.append("record on the stream" if active else "record elsewhere")

        def synchronize(self) -> None:
            called.append("wait")

    active: list[bool] = []

    @contextmanager
    def on_stream() -> Iterator[None]:
        active.append(True)
        yield
        active.pop()

    cuda = SimpleNamespace(Event=Event, get_elapsed_time=lambda began, ended: 1500.0)
    monkeypatch.setitem(sys.modules, "cupy", SimpleNamespace(cuda=cuda))
    backend: Any = SimpleNamespace(name="cuda:0", active=on_stream)
    clock = clock_for(backend)
    assert clock(lambda: called.append("work")) == 1.5
    assert called == ["record on the stream", "work", "record on the stream", "wait"]
