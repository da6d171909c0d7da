"""Where a training's rows lie: what is chosen and said, that no result depends on it, larger than memory."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from nnkit import Dense, Dropout, Network, Trainer, load
from nnkit.backends.numpy import NumpyBackend
from nnkit.data.sources.loading import load_dataset
from nnkit.errors import ConfigError, DataError
from nnkit.feed import order as order_module
from nnkit.feed import ring as ring_module
from nnkit.feed.features import Features, features_from, is_mapped
from nnkit.feed.order import epoch_order
from nnkit.runs import data as run_data
from nnkit.runs.config import Config
from nnkit.runs.run import Run
from nnkit.training import placement as placement_module
from nnkit.training.callbacks import Callback, TrainingStatus
from nnkit.training.placement import Placed, place_rows

ROWS = 150


def saved(path: Path, dtype: Any = np.uint8) -> NDArray:
    """Return pixels in three classes by their first column, mapped from a file."""
    random = np.random.default_rng(0)
    values = random.integers(0, 256, (ROWS, 6), np.uint8)
    values[:, 0] = np.arange(ROWS) % 3 * 100
    np.save(path, values.astype(dtype))
    return np.load(path, mmap_mode="r")


def labels() -> NDArray:
    return np.arange(ROWS) % 3


def trainer(placement: str = "auto", **options: Any) -> Trainer:
    network = Network([Dense(8, "relu"), Dropout(0.2), Dense(3)])
    settings = {"device": "cpu", "precision": "fp64", "seed": 4, **options}
    return Trainer(network, "cross_entropy", data_placement=placement, **settings)


def fitted(trainer: Trainer, X: Any, **options: Any) -> tuple[list[list[float]], dict[str, NDArray]]:
    history = trainer.fit(X, labels(), **{"epochs": 3, "batch_size": 16, "validation": 0.2, **options})
    return losses(history), trainer.network.parameters()


def losses(history: Any) -> list[list[float]]:
    return [[row["loss"], row["validation_loss"]] for row in history]


def assert_same(a: tuple[Any, dict[str, NDArray]], b: tuple[Any, dict[str, NDArray]]) -> None:
    assert a[0] == b[0]
    for name, value in a[1].items():
        np.testing.assert_array_equal(value, b[1][name])


def reader_threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name.startswith("nnkit-reader")]


@pytest.fixture(autouse=True)
def small_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a slot have one batch, and an order small blocks and windows."""
    monkeypatch.setattr(ring_module, "SLOT_BYTES", 100)
    monkeypatch.setattr(order_module, "_BLOCK_BYTES", 24)
    monkeypatch.setattr(order_module, "WINDOW_BLOCKS", 8)


def in_blocks(epoch: int, rows: int) -> NDArray[np.int64]:
    return epoch_order(rows, 4, epoch, True, 4)


# --- the same results ---


def test_mapped_rows_train_as_the_same_rows_in_memory_do_in_that_order(tmp_path: Path) -> None:
    X = saved(tmp_path / "x.npy")
    mapped = fitted(trainer("mmap"), X)
    in_memory = fitted(trainer(), np.array(X), shuffle=lambda epoch: in_blocks(epoch, 120))
    assert_same(mapped, in_memory)
    other = fitted(trainer(), np.array(X))
    assert other[0] != mapped[0]
    assert not reader_threads()


@pytest.mark.parametrize("dtype", ["int16", "float32", "float64", "bool", ">i4", "float16"])
@pytest.mark.parametrize("layout", ["C", "F"])
def test_mapped_rows_of_any_type_train_as_their_copies_do(dtype: str, layout: str, tmp_path: Path) -> None:
    values = np.asarray(saved(tmp_path / "x.npy")) % 100
    np.save(tmp_path / "y.npy", np.asarray(values.astype(dtype), order=layout))  # type: ignore[call-overload]
    X = np.load(tmp_path / "y.npy", mmap_mode="r")
    assert X.flags.c_contiguous == (layout == "C")
    rows = max(1, 24 // (6 * X.itemsize))
    in_memory = fitted(trainer(), np.array(X), shuffle=lambda epoch: epoch_order(120, 4, epoch, True, rows))
    if dtype in (">i4", "float16"):  # no kernel reads these
        with pytest.raises(ConfigError, match="of integers, float32 or float64"):
            fitted(trainer("mmap"), X)
        return
    assert_same(fitted(trainer("mmap"), X), in_memory)


def test_rows_in_a_file_that_are_no_numbers_are_named(tmp_path: Path) -> None:
    X = saved(tmp_path / "x.npy", np.float64)
    values = np.array(X)
    values[140, 3] = np.inf
    np.save(tmp_path / "y.npy", values)
    with pytest.raises(DataError, match="X holds inf at row 140, column 3"):
        fitted(trainer("mmap"), np.load(tmp_path / "y.npy", mmap_mode="r"))


@pytest.mark.parametrize("placement", ["auto", "device", "mmap"])
def test_what_exceeds_memory_is_taken_in_blocks_wherever_it_lies(
    placement: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    X = saved(tmp_path / "x.npy")
    expected = fitted(trainer("mmap"), X)
    monkeypatch.setattr(placement_module, "memory_limit", lambda: 120)
    if placement == "device":
        with pytest.raises(ConfigError, match=r"the rows take .*, and this machine has room for"):
            fitted(trainer("device"), X)
        # A GPU may have the room that the host has not.
        placed = place_rows("device", Card(2**30), False, Features(X))
        assert (placed.placement, placed.block_rows) == ("device", 4)
    else:
        assert_same(fitted(trainer(placement), X), expected)


def test_a_small_file_that_is_mapped_trains_as_it_would_in_memory(tmp_path: Path) -> None:
    X = saved(tmp_path / "x.npy")
    for placement in ("auto", "device"):
        assert_same(fitted(trainer(placement), X), fitted(trainer(), np.array(X)))


def test_resuming_in_mid_epoch_goes_on_in_the_order_in_blocks(tmp_path: Path) -> None:
    X, folder = saved(tmp_path / "x.npy"), tmp_path / "kept"
    whole = trainer("mmap")
    expected = fitted(whole, X)

    class Stop(Callback):
        every = "1 steps"

        def on_step_end(self, trainer: Trainer, figures: TrainingStatus) -> None:
            if figures.step == 11:  # of 8 an epoch
                trainer.stop()

    first = trainer("mmap")
    fitted(first, X, callbacks=[Stop()], checkpoints=folder)
    assert first.state.batch == 3
    assert not reader_threads()
    for placement in ("mmap", "auto"):
        again = trainer(placement)
        history = again.resume(folder, X, labels(), validation=0.2, checkpoints=tmp_path / placement)
        assert_same((losses(history), again.network.parameters()), expected)


# --- stops ---


class Raise(Callback):
    """Raises in the middle of the first epoch."""

    every = "1 steps"

    def __init__(self, error: BaseException) -> None:
        self._error = error

    def on_step_end(self, trainer: Trainer, figures: TrainingStatus) -> None:
        if figures.step == 3:
            assert reader_threads()
            raise self._error


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("mine")])
def test_what_ends_a_training_in_mid_epoch_leaves_no_thread_behind(
    error: BaseException, tmp_path: Path
) -> None:
    with pytest.raises(type(error)):
        fitted(trainer("mmap"), saved(tmp_path / "x.npy"), callbacks=[Raise(error)])
    assert not reader_threads()


def test_early_stopping_leaves_no_thread_behind(tmp_path: Path) -> None:
    one = trainer("mmap", early_stopping=1, optimizer={"name": "sgd", "learning_rate": 1e-300})
    fitted(one, saved(tmp_path / "x.npy"), epochs=50)
    assert one.state.stopped_early
    assert not reader_threads()


def test_what_fails_while_reading_comes_out_of_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: Any, rows: Any, targets: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(ring_module.RingRows, "read", broken)
    with pytest.raises(DataError, match="Input/output error") as caught:
        fitted(trainer("mmap"), saved(tmp_path / "x.npy"))
    assert isinstance(caught.value.__cause__, OSError)
    assert not reader_threads()


# --- what is chosen ---


class Card(NumpyBackend):
    """A GPU, as far as placing asks."""

    name = "cuda:0"
    shares_host_memory = False

    def __init__(self, free: int) -> None:
        self._free = free

    def free_memory(self) -> int:  # type: ignore[override]
        return self._free


@pytest.mark.parametrize(
    ("free", "wanted", "mapped", "limit", "expected", "said"),
    [
        (1800, "auto", False, 10**9, "device", "on cuda:0"),
        (1799, "auto", False, 10**9, "pinned", "pinned buffers, more than half of"),
        (1799, "auto", True, 10**9, "pinned", "pinned buffers, more than half of"),
        (1799, "auto", True, 100, "pinned", "mapped from the file, in blocks, more than half of"),
        (1800, "auto", True, 100, "device", "on cuda:0"),
        (10, "device", False, 10**9, "device", "on cuda:0"),
        (10**9, "pinned", False, 10**9, "pinned", "in the host's memory, through pinned buffers"),
        (10**9, "mmap", True, 10**9, "pinned", "mapped from the file, in blocks"),
    ],
)
def test_a_gpu_takes_rows_that_fill_half_of_what_is_free(
    free: int,
    wanted: str,
    mapped: bool,
    limit: int,
    expected: str,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(placement_module, "memory_limit", lambda: limit)
    X = saved(tmp_path / "x.npy")  # 900 bytes
    placed = place_rows(wanted, Card(free), True, Features(X if mapped else np.array(X)))
    assert placed.placement == expected
    assert said in placed.note
    assert not placed.amended
    assert (placed.block_rows is not None) == (mapped and (wanted == "mmap" or limit == 100))


@pytest.mark.parametrize(
    ("free", "before", "expected"),
    [(7800, 0, "device"), (7799, 0, "pinned"), (7900, 100, "device"), (7899, 100, "pinned")],
)
def test_targets_weights_order_and_rows_before_count_in_what_a_gpu_takes(
    free: int, before: int, expected: str
) -> None:
    """150 rows of 6 bytes alone would fit four times over."""
    features = Features(np.zeros((ROWS, 6), np.uint8))
    targets, weights = np.zeros(ROWS, np.int32), np.zeros(ROWS)
    placed = place_rows(
        "auto", Card(free), True, features, targets, weights, shuffled=True, placed_bytes=before
    )
    assert placed.placement == expected
    assert placed.device_bytes == (ROWS * (6 + 4 + 8 + 8) if expected == "device" else 0)


class Filling(Card):
    """A GPU whose memory is taken by what is put there."""

    def _taken(self, array: NDArray) -> NDArray:
        self._free -= array.nbytes
        return array

    def empty(self, *given: Any) -> NDArray:
        return self._taken(super().empty(*given))

    def zeros(self, *given: Any) -> NDArray:
        return self._taken(super().zeros(*given))

    def from_host(self, array: NDArray) -> NDArray:
        return self._taken(super().from_host(array))


@pytest.mark.parametrize(
    ("free", "expected"),
    [
        (5016, ["device", "device"]),
        (5015, ["device", "pinned"]),
        (4320, ["device", "pinned"]),
        (4319, ["pinned", "device"]),
    ],
)
def test_training_and_validation_rows_fill_half_of_a_gpus_free_memory_at_most(
    free: int, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """120 rows of 6 bytes, 4 of a label and 8 of the order; 30 held out; and 96 bytes of scaling."""
    placements = []

    def place(*given: Any, **others: Any) -> Placed:
        placements.append(place_rows(*given, **others))
        return placements[-1]

    X = np.random.default_rng(0).integers(0, 256, (ROWS, 6), np.uint8)
    monkeypatch.setattr("nnkit.training.trainer.place_rows", place)
    one = trainer()
    one.backend = card = Filling(10**9)
    one.network.initialize(6, 4, "float64", card)
    card._free = free
    found = fitted(one, X)
    assert [placed.placement for placed in placements] == expected
    assert_same(found, fitted(trainer(), X))


def test_rows_in_the_processors_memory_are_not_told_of() -> None:
    placed = place_rows("auto", NumpyBackend(), True, Features(np.zeros((5, 2), np.uint8)))
    assert (placed.placement, placed.note, placed.block_rows) == ("device", "", None)


def test_pinned_memory_without_a_gpu_is_a_note_with_auto_and_else_an_error(
    caplog: pytest.LogCaptureFixture,
) -> None:
    X = np.random.default_rng(0).integers(0, 256, (ROWS, 6), np.uint8)
    with pytest.raises(ConfigError, match=r"'pinned' is for a GPU, .* or use device 'auto'"):
        fitted(trainer("pinned"), X)
    noted = trainer("pinned")
    noted._automatic = True
    with caplog.at_level(logging.WARNING, "nnkit"):
        found = fitted(noted, X)
    assert any("needs no pinned memory" in message for message in caplog.messages)
    assert_same(found, fitted(trainer(), X))


def test_what_is_no_file_cannot_be_mapped() -> None:
    with pytest.raises(ConfigError, match=r"these rows are in memory: save them as \.npy"):
        fitted(trainer("mmap"), np.zeros((ROWS, 6), np.uint8))


@pytest.mark.parametrize("wanted", ["pinned", "mmap"])
def test_sparse_rows_lie_on_the_device(wanted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from scipy.sparse import csr_matrix

    features = features_from(csr_matrix(np.eye(4)), np.float32)
    monkeypatch.setattr(Features, "mapped", True)
    with pytest.raises(ConfigError, match="sparse or texts, which are kept on the device"):
        place_rows(wanted, Card(10**9), True, features)
    assert place_rows("auto", Card(10), True, features).placement == "device"


def test_an_unknown_placement_is_refused() -> None:
    with pytest.raises(ConfigError, match="auto, device, pinned, mmap"):
        trainer("disk")


def test_a_column_is_left_out_of_the_midst_of_a_file_only_where_memory_has_the_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved(tmp_path / "x.npy")
    for room in (750, 749):
        monkeypatch.setattr("nnkit.data.arrays.reading.memory_limit", lambda room=room: room)
        if room == 750:  # 150 rows of 5
            loaded = load_dataset(tmp_path / "x.npy", target=2)
            expected = np.delete(np.load(tmp_path / "x.npy"), 2, axis=1)
            np.testing.assert_array_equal(loaded.train.features, expected)
        else:
            with pytest.raises(DataError, match=r"x\.npy: without columns from among the others"):
                load_dataset(tmp_path / "x.npy", target=2)
    assert is_mapped(load_dataset(tmp_path / "x.npy", target=0).train.features)


# --- rows held out of a file ---


def run_over(path: Path, placement: str = "mmap", *settings: str) -> Run:
    data = [f"data.train={path}", "data.target=-1", "data.validation=0.2", f"run.data_placement={placement}"]
    training = ["model.hidden=[8]", "training.epochs=2", "run.device=cpu", f"run.out={path.parent / 'run'}"]
    return Run(Config().with_overrides([*data, *training, *settings]), overwrite=True)


def test_held_out_rows_that_memory_has_no_room_for_stay_in_their_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = np.random.default_rng(0).normal(3, 2, size=(400, 6)).astype(np.float32)
    rows[:, -1] = rows[:, 0] > 3
    np.save(tmp_path / "x.npy", rows)
    found = []
    for room in (2**30, 0):
        monkeypatch.setattr(run_data, "memory_limit", lambda room=room: room)
        run = run_over(tmp_path / "x.npy")
        validation = run.encoded().validation
        assert validation is not None
        assert validation[0].mapped == (room == 0)
        outcome = run.train()
        threshold = load(outcome.model_path).details["best_threshold"]
        found.append([outcome.rows, outcome.count, outcome.metrics, threshold, losses(run.trainer.history)])
    assert found[0] == found[1]
    # What is said of them is what the model says of such rows.
    held = run.data.measured_rows()
    model = load(outcome.model_path)
    assert model.evaluate(held.examples.features, held.examples.target) == pytest.approx(outcome.metrics)
    assert threshold == pytest.approx(model.best_threshold(held.examples.features, held.examples.target))


@pytest.mark.parametrize("placement", ["auto", "mmap"])
def test_rows_of_a_file_that_are_in_both_shares_are_found(placement: str, tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(3, 2, size=(100, 6)).astype(np.float32)
    rows[:, -1] = rows[:, 0] > 3
    np.save(tmp_path / "x.npy", np.repeat(rows, 8, axis=0))
    found = run_over(tmp_path / "x.npy", placement).check()
    assert "rows_in_both_shares" in [finding.name for finding in found]


def test_a_run_over_a_file_goes_on_with_its_scaling_wherever_the_rows_lie_now(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(3, 2, size=(400, 6)).astype(np.float32)
    rows[:, -1] = rows[:, 0] > 3
    found = []
    for placement in ("mmap", "auto"):
        folder = tmp_path / placement
        folder.mkdir()
        np.save(folder / "x.npy", rows)
        run = run_over(folder / "x.npy", "mmap", "run.diagnostics=false")

        class Stop(Callback):
            every = "1 steps"

            def on_step_end(self, trainer: Trainer, figures: TrainingStatus) -> None:
                if figures.step == 2:
                    run.stop()  # noqa: B023

        run.train([Stop()])
        again = Run.resumed(folder / "run", [f"run.data_placement={placement}"])
        again.train()
        found.append((losses(again.trainer.history), again.trainer.network.parameters()))
    assert_same(*found)


# --- larger than memory ---

LARGE = """
import re, resource, sys
from pathlib import Path
import numpy as np
from nnkit.runs.config import Config
from nnkit.runs.run import Run

def used():
    return int(re.search(r"VmData:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

small, large, out = sys.argv[1:]
def run(path, out):
    config = Config().with_overrides([
        f"data.train={path}", "data.target=-1", "model.hidden=[8]", "training.epochs=1", "run.device=cpu",
        "training.batch_size=2048", f"run.out={out}", "run.data_placement=mmap", "data.scaling=DTYPE",
    ])
    return Run(config).train()

run(small, out + "/small")  # whatever the libraries take, they have now
size = Path(large).stat().st_size
resource.setrlimit(resource.RLIMIT_DATA, (used() + size // 2,) * 2)
try:
    np.load(large)
    raise SystemExit("the file fits under the limit")
except MemoryError:
    pass
outcome = run(large, out + "/large")
print(outcome.rows, outcome.count, outcome.metrics["accuracy"])
"""


# glibc keeps up to 64 MB of what was freed otherwise, in pieces; the limit is on what is in use.
HANDS_BACK = {"MALLOC_MMAP_THRESHOLD_": str(1 << 20)}


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "columns", "scaling"), [("uint8", 800, "auto"), ("float32", 200, "auto")])
def test_a_file_larger_than_a_limit_set_on_the_process_is_trained_on(
    dtype: str, columns: int, scaling: str, tmp_path: Path
) -> None:
    """In half of the file's size beyond what the libraries take; a tenth of it is held out, and in memory."""
    rows = 300_000
    for name, count in (("small", 4000), ("large", rows)):
        shape = (count, columns)
        values = np.lib.format.open_memmap(tmp_path / f"{name}.npy", "w+", np.dtype(dtype), shape)
        values[:, -1] = np.arange(count) % 2
        for column in range(0, 40):
            values[:, column] = 100 * values[:, -1] + np.arange(count) % (column + 2)
        del values
    program = LARGE.replace("DTYPE", scaling)
    paths = [str(tmp_path / "small.npy"), str(tmp_path / "large.npy"), str(tmp_path)]
    done = subprocess.run(
        [sys.executable, "-c", program, *paths],
        capture_output=True,
        text=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", **HANDS_BACK},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kind, count, accuracy = done.stdout.split()
    assert (kind, int(count)) == ("validation", rows // 10)
    assert float(accuracy) > 0.99
