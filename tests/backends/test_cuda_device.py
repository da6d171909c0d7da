"""A CUDA device, simulated or real: its stream, copies of every layout, memory, and captured steps."""

from __future__ import annotations

import threading
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit import Dense, Dropout, Network, Trainer
from nnkit.backends import select
from nnkit.backends.cupy import CupyBackend
from nnkit.errors import DeviceError, NnkitError

pytestmark = pytest.mark.gpu


@pytest.fixture
def backend() -> CupyBackend:
    chosen = select("cuda").backend
    assert isinstance(chosen, CupyBackend)
    return chosen


def uncaptured(backend: CupyBackend) -> CupyBackend:
    """Return the same device and products, whose programs go operation by operation."""
    other = backend.computing("fp32")
    other._products.why_not_captured = "asked not to"
    return other


def weights_after(backend: CupyBackend) -> dict[str, NDArray]:
    random = np.random.default_rng(0)
    X, y = random.normal(size=(14, 5)), np.arange(14) % 3
    network = Network([Dense(5, "relu"), Dense(4, "relu"), Dropout(0.25), Dense(3)])
    trainer = Trainer(network, "cross_entropy", device="cuda", seed=3)
    trainer.backend = backend
    trainer.fit(X, y, epochs=2, batch_size=4)
    return network.parameters()


def test_trainings_have_the_same_bits_captured_or_not(backend: CupyBackend) -> None:
    captured = weights_after(backend)
    for again in (weights_after(backend), weights_after(uncaptured(backend))):
        for name, value in captured.items():
            np.testing.assert_array_equal(again[name], value)


def test_the_second_run_captures_and_later_ones_replay(backend: CupyBackend) -> None:
    source, target = backend.from_host(np.arange(6.0)), backend.zeros(6, np.float64)
    once, often = (backend.program([backend.copy(source, target)]) for _ in range(2))
    once.run()
    often.run(3)
    backend.write(source, 7)
    often.run()
    assert once._replay is None
    assert often._replay is not None
    assert backend.to_host(target).tolist() == [7.0] * 6


def test_steps_are_not_captured_where_the_products_cannot_be(backend: CupyBackend) -> None:
    other = uncaptured(backend)
    program = other.program([other.copy(other.zeros(3, np.float32), other.zeros(3, np.float32))])
    program.run(3)
    assert program._replay is None
    assert other.describe()["captured steps"] == "no (asked not to)"
    assert backend.describe()["captured steps"] == "yes"


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[1:3],
        lambda a: a[:, :5],
        lambda a: a[::2, 1:4],
        lambda a: a[2, 1:],
        lambda a: a[:, 3],
        lambda a: a[1:2, 2:3],
        lambda a: a[:0],
        lambda a: a.T,
    ],
)
def test_views_are_written_copied_and_read(backend: CupyBackend, view: Callable) -> None:
    host = np.arange(42.0).reshape(6, 7)
    device = backend.from_host(host)
    np.testing.assert_array_equal(backend.to_host(view(device)), view(host))
    target = backend.zeros((6, 7), np.float64)
    values = -1 - view(host)
    if view(device).flags.c_contiguous or not view(device).flags.f_contiguous:
        backend.program([backend.copy(view(device), view(target))]).run()
        expected = np.zeros((6, 7))
        view(expected)[...] = view(host)
        np.testing.assert_array_equal(backend.to_host(target), expected)
        backend.write(view(target), values)
        view(expected)[...] = values
        np.testing.assert_array_equal(backend.to_host(target), expected)


def test_many_writes_are_made_in_their_order(backend: CupyBackend) -> None:
    array = backend.zeros(1, np.int64)
    for number in range(1000):
        backend.write(array, number)
    assert backend.to_host(array) == [999]


def test_what_the_host_changes_after_a_write_does_not_matter(backend: CupyBackend) -> None:
    values = np.arange(5.0)
    array, placed = backend.zeros(5, np.float64), backend.from_host(values)
    backend.write(array, values)
    values[:] = -1
    for written in (array, placed):
        assert backend.to_host(written).tolist() == [0, 1, 2, 3, 4]


def test_an_array_that_does_not_fit_is_an_error_that_says_what_to_lower(backend: CupyBackend) -> None:
    for allocate in (backend.empty, backend.zeros):
        with pytest.raises(DeviceError, match=r"cuda:0.* 128.0 TiB does not fit.*batch_size") as caught:
            allocate((2**30, 2**15), np.float32)
        assert isinstance(caught.value, MemoryError)
        assert isinstance(caught.value, NnkitError)
        assert "\n" not in str(caught.value)


def test_one_gpus_backends_share_its_stream(backend: CupyBackend) -> None:
    assert select("cuda:0").backend is backend
    assert backend.computing("fp64")._device is backend._device


def test_a_thread_waits_while_another_uses_the_device(backend: CupyBackend) -> None:
    held, order = threading.Event(), []

    def hold() -> None:
        with backend._device.active():
            held.set()
            waiting.join(0.2)
            order.append("first")

    def wait() -> None:
        held.wait()
        backend.synchronize()
        order.append("second")

    holding, waiting = threading.Thread(target=hold), threading.Thread(target=wait)
    waiting.start()
    holding.start()
    holding.join()
    waiting.join()
    assert order == ["first", "second"]


def test_it_says_what_its_bits_depend_on(backend: CupyBackend) -> None:
    numerics = backend.numerics()
    assert numerics["device"] == "cuda"
    assert {"GPU", "products", "numba-cuda"} <= set(numerics)
    with backend.computing_like(numerics):
        assert backend.numerics() == numerics
