"""Rows that come through a ring of slots: the same bits as from one place, in order, and no thread left."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit.backends.compiled import can_run_in_parallel
from nnkit.backends.numpy import NumpyBackend
from nnkit.engine.inference import Inference
from nnkit.engine.objective import Penalty
from nnkit.engine.step import Step
from nnkit.errors import ConfigError, DataError, DeviceError, DeviceMemoryError, FileError
from nnkit.feed import ring as ring_module
from nnkit.feed.augmentation import Augmentation
from nnkit.feed.batch import Rows
from nnkit.feed.features import Features
from nnkit.feed.order import epoch_order
from nnkit.feed.ring import Ring, RingRows
from nnkit.nn.layers import Dense, Dropout
from nnkit.nn.losses import loss_from
from nnkit.nn.network import Network
from nnkit.nn.optimizers import Adam

ROWS, BATCH = 53, 8  # the last batch is ragged, and so is the last slot
Case = dict[str, Any]


def reader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("nnkit-reader")]


@pytest.fixture(autouse=True)
def small_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a slot have one batch, so that an epoch goes round the ring more than once."""
    monkeypatch.setattr(ring_module, "SLOT_BYTES", 100)


def pixels() -> Features:
    values = np.random.default_rng(0).integers(0, 256, (ROWS, 12), np.uint8)
    return Features(values, np.full(12, 7.0), np.full(12, 1 / 255))


def table() -> Features:
    random = np.random.default_rng(1)
    codes = np.stack([random.integers(-1, k, ROWS) for k in (4, 3)], axis=1).astype(np.int32)
    return Features(random.normal(size=(ROWS, 5)), codes=codes, cardinalities=(4, 3))


def pictures() -> Features:
    random = np.random.default_rng(2)
    values, picked = random.integers(0, 256, (80, 12), np.uint8), random.permutation(80)[:ROWS]
    return Features(values, None, np.full(12, 1 / 255), rows=picked, picture=(2, 2, 3))


def mapped(folder: Path) -> Features:
    """Return rows of a file, its first and last columns left out."""
    path = folder / "rows.npy"
    np.save(path, np.random.default_rng(3).normal(size=(70, 9)).astype(np.float32))
    values = np.load(path, mmap_mode="r")[:, 1:8]
    return Features(values, np.arange(7.0), np.full(7, 0.5), rows=np.arange(ROWS) + 9)


CASES: dict[str, Case] = {
    "pixels, weighted": {"features": pixels, "weighted": True},
    "numbers and categories, several targets": {"features": table, "loss": "mse"},
    "pictures out of more, varied": {"features": pictures, "varied": Augmentation(0.4, True, 0.5)},
    "categories alone": {
        "features": lambda: Features(
            np.empty((ROWS, 0)), codes=np.arange(ROWS, dtype=np.int32)[:, None] % 5, cardinalities=(5,)
        )
    },
}


def step_over(placement: str, features: Features, case: Case, readers: int | None = None) -> Step:
    random = np.random.default_rng(4)
    backend = NumpyBackend()
    network = Network([Dense(9, "relu"), Dropout(0.3), Dense(3)])
    network.initialize(features.width, 1, "float64", backend)
    loss = case.get("loss", "cross_entropy")
    y = random.integers(0, 3, ROWS).astype(np.int32) if loss == "cross_entropy" else random.random((ROWS, 3))
    weights = random.random(ROWS) if case.get("weighted") else None
    varied = case.get("varied")
    rows = Rows(backend, np.float64, features, y, weights, True, varied, 6, placement, readers)
    return Step(
        network.places, network.arena, loss_from(loss), Penalty(), BATCH, 6, Adam(0.01), rows, None, None
    )


def trained(step: Step, runs: list[int] | None = None) -> NDArray:
    """Return the parameters and the sums of the loss after two epochs in runs of so many steps."""
    sums = []
    for epoch in range(2):
        rates = np.full(step.steps_per_epoch, 0.01)
        step.begin_epoch(epoch, epoch_order(ROWS, 6, epoch), rates)
        done = 0
        for count in runs or [step.steps_per_epoch]:
            step.run(done, count)
            done += count
        assert done == step.steps_per_epoch
        sums.append(step.read().loss)
    step.rows.close()
    return np.concatenate([step.arena.backend.to_host(step.arena.values), sums])


@pytest.mark.parametrize("readers", [0, 1, 3])
@pytest.mark.parametrize("name", CASES)
def test_a_training_through_the_ring_has_the_bits_of_one_without(name: str, readers: int) -> None:
    case = CASES[name]
    expected = trained(step_over("device", case["features"](), case))
    step = step_over("pinned", case["features"](), case, readers)
    np.testing.assert_array_equal(trained(step), expected)
    ring = step.rows._ring(BATCH)
    assert (ring._epoch_chunks, ring._slots) == (7, readers + 1)  # so the slots were used more than once
    assert not reader_threads()


@pytest.mark.parametrize("readers", [0, 2])
def test_rows_mapped_from_a_file_are_read_where_they_lie(tmp_path: Path, readers: int) -> None:
    features = mapped(tmp_path)
    expected = trained(step_over("device", features.loaded(), {}))
    np.testing.assert_array_equal(trained(step_over("pinned", features, {}, readers)), expected)


def test_columns_that_lie_apart_are_read_as_others_are() -> None:
    values = np.asfortranarray(np.random.default_rng(0).normal(size=(ROWS, 6)))
    expected = trained(step_over("device", Features(np.ascontiguousarray(values)), {}))
    np.testing.assert_array_equal(trained(step_over("pinned", Features(values), {})), expected)


@pytest.mark.parametrize("readers", [0, 1, 2])
@pytest.mark.parametrize("runs", [[1] * 7, [2, 3, 2], [5, 2], [6, 1]])
def test_a_run_may_end_within_a_slot(runs: list[int], readers: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "SLOT_BYTES", 400)
    case = CASES["pixels, weighted"]
    expected = trained(step_over("device", pixels(), case))
    step = step_over("pinned", pixels(), case, readers)
    np.testing.assert_array_equal(trained(step, runs), expected)
    assert step.rows._ring(BATCH).batches == 2


@pytest.mark.skipif(not can_run_in_parallel(), reason="shards need NumPy's OpenBLAS")
def test_shards_read_their_own_rows_of_the_ring(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NumpyBackend, "shards", lambda self, batch_size, work: 2)
    case = CASES["pixels, weighted"]
    expected = trained(step_over("device", pixels(), case))
    np.testing.assert_array_equal(trained(step_over("pinned", pixels(), case)), expected)


@pytest.mark.parametrize("readers", [0, 1, 2])
def test_an_epoch_can_be_begun_at_any_batch_and_begun_again(readers: int) -> None:
    """Steps whose rate is 0 change nothing but the sums, which tell which rows they saw."""
    case = CASES["pixels, weighted"]
    steps = [step_over("device", pixels(), case), step_over("pinned", pixels(), case, readers)]
    for first, count in [(3, 2), (0, 7), (5, 2), (2, 1), (2, 4)]:
        for step in steps:
            step.begin_epoch(1, epoch_order(ROWS, 6, 1), np.zeros(step.steps_per_epoch))
            step.run(first, count)
            step.run(first, count)
        assert steps[0].read() == steps[1].read()
    steps[1].rows.close()
    assert not reader_threads()


@pytest.mark.parametrize("readers", [0, 2])
def test_inference_reads_rows_through_the_ring_as_they_lie(
    readers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    from nnkit.engine import inference

    monkeypatch.setattr(inference, "_CHUNK_ELEMENTS", 1)
    monkeypatch.setattr(inference, "_FEWEST_ROWS", 5)
    backend, features = NumpyBackend(), pixels()
    network = Network([Dense(4, "relu"), Dense(3)])
    network.initialize(12, 1, "float64", backend)
    y = np.arange(ROWS, dtype=np.int32) % 3
    found = []
    for placement in ("device", "pinned"):
        rows = Rows(backend, np.float64, features, y, placement=placement, readers=readers)
        reading = Inference(network.places, network.arena, rows, loss_from("cross_entropy"))
        found.append([*reading.run(), *reading.run()])
    for expected, value in zip(*found, strict=True):
        np.testing.assert_array_equal(value, expected)
    assert not reader_threads()


# --- the readers ---


def numbered(count: int = ROWS) -> RingRows:
    return RingRows({"source": np.arange(count)[:, None] * np.ones(10)}, None, count)


def eventually(what: Callable[[], bool]) -> bool:
    """Wait until something is so; far longer than it can take, where it ever is."""
    until = time.monotonic() + 30
    while not what() and time.monotonic() < until:
        time.sleep(0.002)
    return what()


class Watched(NumpyBackend):
    """Notes the first number of each slot that is sent, in the order of sending."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    def uploads(self, slots: int, kind: str) -> Any:
        inner = super().uploads(slots, kind)
        inner.send = lambda slot, pairs: self.sent.append(int(pairs[0][0][0, 0]))  # type: ignore[method-assign]
        return inner


def test_readers_run_ahead_by_the_ring_and_no_further() -> None:
    backend = Watched()
    ring = Ring(backend, numbered(), BATCH, "pinned", readers=1)
    assert (ring.batches, ring._slots) == (1, 2)
    ring.begin(None)
    stretches = ring.stretches(0, 7)
    assert next(stretches) == (0, 1)
    # The first slot is still in use: another one is filled, and then the reader waits.
    assert eventually(lambda: backend.sent == [0, 8])
    time.sleep(0.05)
    assert backend.sent == [0, 8]
    next(stretches)
    assert eventually(lambda: backend.sent == [0, 8, 16])
    ring.close()
    assert not reader_threads()


def test_a_ring_of_large_batches_has_fewer_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "_MOST_BYTES", 3 * BATCH * 80)
    for readers, slots in [(0, 1), (1, 2), (2, 3), (5, 3)]:
        ring = Ring(NumpyBackend(), numbered(), BATCH, "pinned", readers)
        assert (len(ring.arrays["source"]), ring.batches) == (slots * BATCH, 1)
        ring.begin(None)
        seen = [ring.arrays["source"][n % slots * BATCH, 0] for n, _ in ring.stretches(0, 7)]
        assert seen == [0, 8, 16, 24, 32, 40, 48]
        ring.close()


def test_each_slot_holds_its_rows_while_it_is_in_use() -> None:
    order = np.random.default_rng(0).permutation(ROWS)
    ring = Ring(NumpyBackend(), numbered(), BATCH, "pinned", readers=3)
    ring.begin(order)
    seen: list[float] = []
    for batch, count in ring.stretches(0, 7):
        assert count == 1
        first, rows = batch * BATCH % len(ring.arrays["source"]), min(BATCH, ROWS - batch * BATCH)
        time.sleep(0.002)  # time enough to be overwritten
        seen += ring.arrays["source"][first : first + rows, 0].tolist()
    assert seen == order.tolist()


@pytest.mark.parametrize("readers", [0, 1, 3])
def test_what_fails_in_a_reader_comes_out_in_the_training_with_its_cause(readers: int) -> None:
    class Broken(RingRows):
        def read(self, rows: NDArray, targets: Any) -> None:
            if 17 in rows:
                raise OSError(5, "Input/output error")
            time.sleep(0.02)  # a bad slot fails before good ones are filled
            super().read(rows, targets)

    ring = Ring(NumpyBackend(), Broken(numbered().arrays, None, ROWS), BATCH, "pinned", readers)
    ring.begin(None)
    with pytest.raises(DataError, match="Input/output error") as caught:
        list(ring.stretches(0, 7))
    assert isinstance(caught.value.__cause__, OSError)
    assert eventually(lambda: not reader_threads())
    # The slots before the bad one were good.
    ring.close()
    assert list(ring.stretches(0, 2)) == [(0, 1), (1, 1)]
    ring.close()


class Failing(NumpyBackend):
    """Raises where it waits for a slot's copies, or where it copies."""

    name = "cuda:0"

    def __init__(self, at: str, error: BaseException) -> None:
        self.at, self.error = at, error

    def uploads(self, slots: int, kind: str) -> Any:
        def fail(*_: object) -> None:
            raise self.error

        inner = super().uploads(slots, kind)
        setattr(inner, self.at, fail)
        return inner


class Unreadable(RingRows):
    """Rows that cannot be read."""

    error: BaseException

    def read(self, rows: NDArray, targets: Any) -> None:
        raise self.error


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


def failure(backend: NumpyBackend, readers: int, rows: RingRows) -> BaseException:
    """Return what comes out of a ring whose first slot cannot be filled."""
    ring = Ring(backend, rows, BATCH, "pinned", readers)
    ring.begin(None)
    with pytest.raises(BaseException) as caught:  # noqa: PT011
        list(ring.stretches(0, 1))
    ring.close()
    assert not reader_threads()
    return caught.value


PLAIN_ERRORS = [OSError(5, "Input/output error"), ValueError("no rows"), CUDARuntimeError("illegal address")]
OTHERS = [
    FileError("rows.npy: it is gone"),
    DeviceMemoryError("no room"),
    MemoryError(),
    KeyboardInterrupt(),
    SystemExit(3),
]


@pytest.mark.parametrize("readers", [0, 1])
@pytest.mark.parametrize("error", [*PLAIN_ERRORS, *OTHERS], ids=repr)
def test_what_fails_while_reading_is_the_datas_and_while_copying_the_devices(
    error: BaseException, readers: int
) -> None:
    unreadable = Unreadable(numbered().arrays, None, ROWS)
    object.__setattr__(unreadable, "error", error)
    read = failure(NumpyBackend(), readers, unreadable)
    sent = [failure(Failing(at, error), readers, numbered()) for at in ("prepare", "send")]
    if error in OTHERS:
        assert all(found is error for found in (read, *sent))
        return
    said = f"{type(error).__name__}: {error}"
    assert type(read) is DataError
    assert str(read) == f"the rows could not be read while training: {said}"
    for found in sent:
        assert type(found) is DeviceError
        assert str(found) == f"device cuda:0: rows could not be copied while training: {said}"
    assert all(found.__cause__ is error for found in (read, *sent))


@pytest.mark.parametrize("readers", [0, 2])
def test_a_ring_whose_device_has_failed_is_closed_and_leaves_no_thread_behind(readers: int) -> None:
    def fail() -> None:
        raise OSError("gone")

    ring = Ring(NumpyBackend(), numbered(), BATCH, "pinned", readers)
    stretches = ring.stretches(0, 7)
    next(stretches)
    ring._uploads.synchronize = fail  # type: ignore[method-assign]
    for _ in range(2):
        with pytest.raises(OSError, match="gone"):
            ring.close()
        assert not reader_threads()
        assert ring._readers is ring._current is None


def test_a_ring_that_is_dropped_in_mid_epoch_leaves_no_thread_behind() -> None:
    ring = Ring(NumpyBackend(), numbered(), BATCH, "pinned", readers=2)
    ring.begin(None)
    next(iter(ring.stretches(0, 7)))
    assert reader_threads()
    del ring
    gc.collect()
    assert eventually(lambda: not reader_threads())


def test_readers_end_when_one_of_them_collects_their_ring() -> None:
    """Python may collect garbage anywhere, in a reader too, which cannot wait for itself."""
    begun = threading.Event()

    def fill(number: int) -> None:
        assert begun.wait(30)
        readers.close()

    readers = ring_module._Readers(fill, 0, 9, slots=3, threads=2)
    assert reader_threads()
    begun.set()
    assert eventually(lambda: not reader_threads())


def test_a_gradient_over_all_rows_sees_those_that_come_through_a_ring(tmp_path: Path) -> None:
    """A file's rows of which some columns are left out are not copied, but read through a ring."""
    features = mapped(tmp_path)
    network = Network([Dense(4, "tanh"), Dense(3)])
    network.initialize(7, 1, "float64", NumpyBackend())
    y = np.arange(ROWS) % 3
    found = network.gradients(features, y, "cross_entropy")
    for name, expected in network.gradients(features.loaded(), y, "cross_entropy").items():
        np.testing.assert_array_equal(found[name], expected)
    assert not reader_threads()


@pytest.mark.parametrize("order", [list(range(ROWS)), np.arange(ROWS, dtype="u1"), np.arange(float(ROWS))])
def test_an_order_of_any_numbers_is_taken_as_it_is_on_the_device(order: Any) -> None:
    found = []
    for placement in ("device", "pinned"):
        step = step_over(placement, pixels(), {})
        step.begin_epoch(0, order, np.full(step.steps_per_epoch, 0.01))
        step.run(0, step.steps_per_epoch)
        found.append(step.read())
        step.rows.close()
    assert found[0] == found[1]


def test_sparse_rows_are_refused() -> None:
    from scipy.sparse import csr_matrix

    from nnkit.feed.features import features_from

    with pytest.raises(ConfigError, match="data_placement = 'device'"):
        Rows(NumpyBackend(), np.float64, features_from(csr_matrix(np.eye(3)), np.float64), placement="pinned")


# --- orders in blocks ---


@pytest.mark.parametrize("count", [1, 7, 1000, 5003])
@pytest.mark.parametrize("block_rows", [1, 3, 8, 10_000, 2**53])
def test_an_order_in_blocks_takes_each_row_once(count: int, block_rows: int) -> None:
    for epoch in range(3):
        order = epoch_order(count, 5, epoch, True, block_rows)
        assert order.dtype == np.int64
        np.testing.assert_array_equal(np.sort(order), np.arange(count))


def test_an_order_in_blocks_is_a_function_of_seed_and_epoch() -> None:
    orders = [epoch_order(3000, seed, epoch, True, 4) for seed, epoch in [(1, 0), (1, 0), (1, 1), (2, 0)]]
    np.testing.assert_array_equal(orders[0], orders[1])
    for other in orders[2:]:
        assert np.mean(orders[0] == other) < 0.02


def test_a_window_has_the_rows_of_its_blocks_from_all_over_the_file(monkeypatch: pytest.MonkeyPatch) -> None:
    from nnkit.feed import order as order_module

    monkeypatch.setattr(order_module, "WINDOW_BLOCKS", 16)
    order = epoch_order(12_800, 9, 2, True, 10)
    for window in order.reshape(-1, 160):
        blocks, counts = np.unique(window // 10, return_counts=True)
        assert (len(blocks), set(counts)) == (16, {10})
        assert blocks.max() - blocks.min() > 640  # of 1280 blocks: 16 drawn at random are never as near
    # Within a window the rows are in no order of their blocks: neighbours share one as often as chance has.
    same = np.mean(order[1:] // 10 == order[:-1] // 10)
    assert abs(same - 9 / 159) < 4 * np.sqrt(9 / 159 / 12_800)


def test_every_permutation_of_few_rows_is_as_likely_within_a_window() -> None:
    """χ² of 24 permutations over 4800 epochs, which chance leaves below 52 in 999 of 1000 tries."""
    found = np.array([epoch_order(4, 3, epoch, True, 2) for epoch in range(4800)])
    _, counts = np.unique(found, axis=0, return_counts=True)
    assert len(counts) == 24
    assert ((counts - 200.0) ** 2 / 200).sum() < 52


def test_each_row_is_as_likely_at_each_place_of_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each row's mean place over 400 epochs, against that of a uniform one."""
    from nnkit.feed import order as order_module

    monkeypatch.setattr(order_module, "WINDOW_BLOCKS", 4)
    places = np.array([np.argsort(epoch_order(240, 1, epoch, True, 5)) for epoch in range(400)])
    deviation = np.sqrt((240**2 - 1) / 12 / 400)
    z = (places.mean(axis=0) - 119.5) / deviation
    assert np.abs(z).max() < 4.5
    assert abs(z.std() - 1) < 0.5
