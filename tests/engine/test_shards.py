"""Steps whose rows are parted among cores: the plain step's result, to rounding, and the same bits twice."""

from __future__ import annotations

import multiprocessing
import threading
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest

from nnkit.backends import numpy as numpy_backend
from nnkit.backends.compiled import (
    Team,
    blas_thread_count,
    can_run_in_parallel,
    one_blas_thread,
    plain_team,
    plan_team,
)
from nnkit.backends.numpy import NumpyBackend
from nnkit.backends.operations import Copy, Kernel, Product, Reduce
from nnkit.engine.objective import Penalty
from nnkit.engine.reducer import _shares
from nnkit.engine.step import Step
from nnkit.feed.augmentation import Augmentation
from nnkit.feed.batch import Rows
from nnkit.feed.features import Features
from nnkit.kernels.formulas import relu
from nnkit.nn.layers import Activation, Dense, Dropout
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network
from nnkit.nn.optimizers import Adam, AdamW, Momentum

pytestmark = pytest.mark.skipif(not can_run_in_parallel(), reason="shards need NumPy's own OpenBLAS")

ROWS = 53
CASES: dict[str, dict[str, Any]] = {
    "pictures, varied": {"varied": Augmentation(0.4, True, 0.5)},
    "plain": {},
    "dropout and an activation that needs z": {
        "layers": [Dense(9, "gelu"), Dropout(0.4), Dense(6, "relu"), Dropout(0.2), Dense(3)]
    },
    "an activation first": {"layers": [Activation("tanh"), Dense(7, "relu"), Dense(3)]},
    "dropout and decay that change": {
        "layers": [Dense(9, "gelu"), Dropout(0.4), Dense(6, "relu"), Dropout(0.2), Dense(3)],
        "optimizer": AdamW(0.01, weight_decay=0.5),
        "scheduled": ("dropout", "weight_decay"),
    },
    "penalty and clipping": {"penalty": Penalty(0.01, 0.1), "clip_norm": 0.5},
    "a penalty on the sum, by rows, with weights": {
        "penalty": Penalty(0.0, 0.1, "sum"),
        "average_rows": True,
        "weighted": True,
    },
    "rates of their own": {"groups": {"layers.0": {"rate": 0.1}, "layers.1.bias": {"rate": 7.0}}},
    "frozen, with a penalty and clipping": {
        "groups": {"layers.1.weight": {"trains": False}, "layers.2": {"rate": 0.5}},
        "penalty": Penalty(0.01, 0.1),
        "clip_norm": 0.5,
    },
    "nothing but the last layer": {"groups": {"layers.0": {"trains": False}, "layers.1": {"trains": False}}},
    "momentum and several targets": {"loss": "mse", "optimizer": Momentum(0.01)},
}


def step_in(shards: int, monkeypatch: pytest.MonkeyPatch, dtype: str = "float64", **case: Any) -> Step:
    monkeypatch.setattr(NumpyBackend, "shards", lambda self, batch_size, work: shards)
    backend, random = NumpyBackend(), np.random.default_rng(0)
    network = Network(case.get("layers", [Dense(9, "relu"), Dense(8, "tanh"), Dense(3)]))
    varied = case.get("varied")
    network.initialize(12 if varied else 5, 1, dtype, backend)
    X = Features(random.normal(size=(ROWS, 5)).astype(dtype))
    if varied:
        pixels, picked = random.integers(0, 256, (80, 12), np.uint8), random.permutation(80)[:ROWS]
        X = Features(pixels, None, np.full(12, 1 / 255), rows=picked, picture=(2, 2, 3))
    loss = case.get("loss", "cross_entropy")
    y = random.integers(0, 3, ROWS).astype(np.int32) if loss == "cross_entropy" else random.random((ROWS, 3))
    weights = random.random(ROWS) if case.get("weighted") else None
    if weights is not None:
        weights[:4] = 0
    return Step(
        network.places,
        network.arena.grouped(case.get("groups", {})),
        loss_from(loss),
        case.get("penalty", Penalty()),
        16,
        7,
        case.get("optimizer", Adam(0.01)),
        Rows(backend, dtype, X, y, weights, True, varied, 7),
        case.get("clip_norm"),
        average_rows=case.get("average_rows", False),
        scheduled=case.get("scheduled", ()),
    )


def train(step: Step, epochs: int = 3) -> list[float]:
    """Train in stretches; return what each epoch came to."""
    losses = []
    for epoch in range(epochs):
        factors = dict.fromkeys(("dropout", "weight_decay"), np.linspace(1, epoch / 3, 4))
        order = np.random.default_rng(epoch).permutation(ROWS)
        step.begin_epoch(epoch, order, np.full(4, 0.01), factors)
        step.run(0, 1)
        step.run(1, 3)
        losses += [step.read().loss, step.read().penalty_sum, step.read().weight, step.weight_norm()]
    return losses


@pytest.mark.parametrize(("shards", "case"), list(product((2, 3), CASES)))
def test_a_step_in_shards_is_the_plain_one_to_rounding(
    shards: int, case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a last batch of 5 rows, of which three shards of 6 have 5, none and none: it is left whole."""
    plain = step_in(1, monkeypatch, **CASES[case])
    parted = step_in(shards, monkeypatch, **CASES[case])
    assert isinstance(parted._programs[16], Team)
    np.testing.assert_allclose(train(parted), train(plain), rtol=1e-10)
    np.testing.assert_allclose(parted.arena.values, plain.arena.values, rtol=1e-8, atol=1e-10)
    np.testing.assert_array_equal(parted.counters, plain.counters)
    for name, state in plain.state.items():
        np.testing.assert_allclose(parted.state[name], state, rtol=1e-8, atol=1e-10)
    if CASES[case].get("clip_norm"):
        assert parted.gradient_norm() == pytest.approx(plain.gradient_norm(), rel=1e-10)


@pytest.mark.parametrize("case", ["penalty and clipping", "dropout and an activation that needs z"])
def test_a_program_too_long_to_compile_gives_the_same_bits(
    case: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled = step_in(2, monkeypatch, **CASES[case])
    monkeypatch.setattr(numpy_backend, "_MOST_COMPILED", 3)
    plain = step_in(2, monkeypatch, **CASES[case])
    assert isinstance(plain._programs[16], Team)
    assert isinstance(plain._programs[16]._members[0], partial)
    assert train(plain) == train(compiled)
    np.testing.assert_array_equal(plain.arena.values, compiled.arena.values)


def test_an_error_in_a_plain_team_ends_all_its_threads() -> None:
    def fails() -> None:
        raise MemoryError

    before = threading.active_count()
    with pytest.raises(MemoryError):
        plain_team([[[fails]], [[lambda: None]]]).run()
    assert threading.active_count() == before


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_two_trainings_in_shards_have_the_same_bits(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["dropout and an activation that needs z"] | CASES["penalty and clipping"]
    one, other = (step_in(2, monkeypatch, dtype, **case) for _ in range(2))
    assert train(one, 5) == train(other, 5)
    np.testing.assert_array_equal(one.arena.values, other.arena.values)


@pytest.mark.parametrize("case", ["plain", "penalty and clipping"])
def test_shards_go_on_from_arrays_that_a_checkpoint_kept(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = step_in(2, monkeypatch, **CASES[case])
    train(whole, 2)
    kept = {name: array.copy() for name, array in whole.arrays().items()}
    order = np.random.default_rng(9).permutation(ROWS)
    again = step_in(2, monkeypatch, **CASES[case])
    for step in (whole, again):
        step.begin_epoch(2, order, np.full(4, 0.01))
        if step is again:
            for name, array in again.arrays().items():
                array[...] = kept[name]
            again.begin_epoch(2, order, np.full(4, 0.01))
        step.run(0, 4)
    np.testing.assert_array_equal(again.arena.values, whole.arena.values)
    assert again.read() == whole.read()


def test_the_shares_of_the_parameters_are_all_of_them_once() -> None:
    table = np.array([[0, 70, 1], [96, 99, 0], [128, 1000, 1]], np.int64)
    for count in (1, 2, 3, 5, 40):
        shares = _shares(table, 1024, count)
        found = np.concatenate([np.arange(a, b) for share, _ in shares for a, b, _ in share])
        np.testing.assert_array_equal(found, np.r_[0:70, 96:99, 128:1000])
        assert len(shares) == count
        for share, kept in shares:
            assert (share[:, 0] >= table[kept, 0]).all()
            assert (share[:, 1] <= table[kept, 1]).all()


def test_shards_are_as_many_as_blas_threads_where_the_work_is_worth_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(numpy_backend, "blas_thread_count", lambda: 4)
    backend = NumpyBackend()
    assert backend.shards(128, 1e9) == 4
    assert backend.shards(127, 1e9) == 1  # too few rows for each
    assert backend.shards(128, 1e6) == 1  # too little work
    monkeypatch.setattr(numpy_backend, "blas_thread_count", lambda: 1)
    assert backend.shards(4096, 1e12) == 1
    monkeypatch.setattr(numpy_backend, "blas_thread_count", lambda: 4)
    monkeypatch.setattr(numpy_backend, "can_run_in_parallel", lambda: False)
    assert backend.shards(4096, 1e12) == 1


def test_what_cannot_be_compiled_runs_one_after_the_other() -> None:
    one = np.ones((1, 1))  # a product of two numbers, which NumPy makes a scaling of
    values = [np.full((1, 1), value) for value in (2.0, 3.0)]
    results = [np.zeros((1, 1)) for _ in values]
    products = [Product(value, one, result) for value, result in zip(values, results, strict=True)]
    assert plan_team([[[product]] for product in products]) is None
    # Each worker's reduction reads what the other one's product has written.
    seen = [np.zeros((1, 1)) for _ in values]
    workers = [
        [products[0], Reduce(rectified(results[1])), Copy(results[1], seen[0])],
        [products[1], Reduce(rectified(results[0])), Copy(results[0], seen[1])],
    ]
    NumpyBackend().compile_parallel(workers).run(2)
    assert [float(array[0, 0]) for array in seen] == [3, 2]


def rectified(z: np.ndarray) -> Kernel:
    return Kernel("forward", np.float64, {"activation": relu}, {}, {"z": z})


def test_the_number_of_blas_threads_is_what_it_was_when_all_are_done() -> None:
    before = blas_thread_count()
    inside = threading.Barrier(3)

    def work(last: bool) -> None:
        with one_blas_thread():
            inside.wait()
            assert blas_thread_count() == 1
            inside.wait()

    threads = [threading.Thread(target=work, args=(last,)) for last in (False, True)]
    for thread in threads:
        thread.start()
    inside.wait()
    inside.wait()
    for thread in threads:
        thread.join()
    assert blas_thread_count() == before


def _train_in_child(connection: Any) -> None:
    monkeypatch = pytest.MonkeyPatch()
    step = step_in(2, monkeypatch)
    connection.send((train(step), blas_thread_count()))


def test_a_forked_process_trains_in_shards_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    expected, before = train(step_in(2, monkeypatch)), blas_thread_count()
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    with one_blas_thread():  # which the child must not think to be inside of
        child = context.Process(target=_train_in_child, args=(there,))
        child.start()
    assert here.poll(60)
    assert here.recv() == (expected, before)
    child.join(10)
    assert child.exitcode == 0


def test_shards_whose_companion_cannot_start_are_let_go(monkeypatch: pytest.MonkeyPatch) -> None:
    step = step_in(3, monkeypatch)
    order = np.random.default_rng(0).permutation(ROWS)
    step.begin_epoch(0, order, np.full(4, 0.01))
    started: list[threading.Thread] = []

    class Thread(threading.Thread):
        def start(self) -> None:
            if started:
                raise RuntimeError("can't start new thread")
            started.append(self)
            super().start()

    monkeypatch.setattr("nnkit.backends.compiled.threading.Thread", Thread)
    before = blas_thread_count()
    with pytest.raises(RuntimeError, match="can't start"):
        step.run(0, 3)
    started[0].join(20)
    assert not started[0].is_alive()
    assert blas_thread_count() == before
