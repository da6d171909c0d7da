"""Copies to a GPU beside its steps, on streams that run as late or as early as CUDA's may; lack of memory."""

from __future__ import annotations

import gc
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from simulated.streams import Event, LazyStream

from nnkit.backends.cuda_device import CudaDevice
from nnkit.backends.cuda_uploads import CudaUploads
from nnkit.backends.numpy import NumpyBackend
from nnkit.errors import DeviceMemoryError
from nnkit.feed import ring as ring_module
from nnkit.feed.ring import Ring, RingRows

ROWS, BATCH = 203, 4


class Device:
    """Two streams, and memory of the host's in place of the device's and of pinned memory."""

    def __init__(self, eager_steps: bool, eager_copies: bool) -> None:
        self.steps = LazyStream(eager_steps)
        self._eager_copies = eager_copies
        self.pinned_bytes = 0

    def active(self) -> Any:
        return nullcontext(self.steps)

    def current(self) -> Any:
        return nullcontext()

    def new_stream(self) -> LazyStream:
        return LazyStream(self._eager_copies)

    def new_event(self) -> Event:
        return Event()

    def pinned(self, shape: tuple[int, ...], dtype: Any) -> NDArray:
        array = np.full(shape, -1, dtype)
        self.pinned_bytes += array.nbytes
        return array

    def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray:
        return np.full(shape, -2, dtype)

    def copy_from_host(self, target: NDArray, host: NDArray, stream: LazyStream) -> None:
        assert host.flags.c_contiguous
        stream.submit(lambda: np.copyto(target, host))


class Backend(NumpyBackend):
    """The fake device's."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def free_memory(self) -> int:  # type: ignore[override]
        return 2**30

    def uploads(self, slots: int, kind: str) -> CudaUploads:
        return CudaUploads(self.device, slots, kind == "pinned")  # type: ignore[arg-type]


def ring_over(device: Device, readers: int, kind: str = "pinned") -> Ring:
    arrays = {"source": np.arange(ROWS)[:, None] + np.zeros(8), "targets": np.arange(ROWS, dtype=np.int32)}
    return Ring(Backend(device), RingRows(arrays, None, ROWS), BATCH, kind, readers)


def read_later(device: Device, ring: Ring, batch: int, seen: list[int]) -> None:
    """Give the device a step that reads a batch, whenever that will run."""
    rows = min(BATCH, ROWS - batch * BATCH)
    first = batch * BATCH % len(ring.arrays["source"])

    def step() -> None:
        place = slice(first, first + rows)
        numbers = ring.arrays["targets"][place]
        assert (ring.arrays["source"][place, 0] == numbers).all()
        seen.extend(numbers.tolist())

    device.steps.submit(step)


@pytest.fixture(autouse=True)
def small_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ring_module, "SLOT_BYTES", 600)


@pytest.mark.parametrize("kind", ["pinned", "pageable"])
@pytest.mark.parametrize("readers", [0, 1, 3])
@pytest.mark.parametrize("eager_copies", [False, True])
@pytest.mark.parametrize("eager_steps", [False, True])
def test_steps_read_what_was_sent_for_them(
    eager_steps: bool, eager_copies: bool, readers: int, kind: str
) -> None:
    device = Device(eager_steps, eager_copies)
    ring = ring_over(device, readers, kind)
    for epoch in range(3):
        order, seen = np.random.default_rng(epoch).permutation(ROWS), []
        ring.begin(order)
        # What an epoch's end leaves to do is still to be read when the next one is begun.
        for batch, count in ring.stretches(0, 51):
            for number in range(batch, batch + count):
                read_later(device, ring, number, seen)
        if epoch != 1:
            device.steps.synchronize()
            assert seen == order.tolist()
    ring.close()
    assert (device.pinned_bytes > 0) == (kind == "pinned")


@pytest.mark.parametrize("readers", [0, 1, 3])
def test_a_ring_that_is_begun_again_overwrites_nothing_that_is_still_to_be_read(readers: int) -> None:
    device = Device(eager_steps=False, eager_copies=True)
    ring, seen = ring_over(device, readers), []
    expected: list[int] = []
    for seed, last in [(0, 1), (1, 1), (2, 7), (3, 4)]:
        order = np.random.default_rng(seed).permutation(ROWS)
        ring.begin(order)
        for batch, count in ring.stretches(0, last):
            for number in range(batch, batch + count):
                read_later(device, ring, number, seen)
        expected += order[: last * BATCH].tolist()
    device.steps.synchronize()
    assert seen == expected
    ring.close()


@pytest.mark.parametrize("eager_copies", [False, True])
@pytest.mark.parametrize("readers", [0, 1, 3])
def test_a_slot_that_is_left_before_its_end_is_read_before_it_is_overwritten(
    readers: int, eager_copies: bool
) -> None:
    device = Device(eager_steps=False, eager_copies=eager_copies)
    ring, seen = ring_over(device, readers), []
    assert ring.batches == 2
    expected: list[int] = []
    for batch in (0, 2, 4, 9, 8, 3, 0, 1):
        for number, _ in ring.stretches(batch, 1):
            read_later(device, ring, number, seen)
        expected += range(batch * BATCH, batch * BATCH + BATCH)
    device.steps.synchronize()
    assert seen == expected
    ring.close()


@pytest.mark.parametrize("readers", [0, 1, 3])
def test_memory_that_steps_still_use_when_the_pool_gives_it_is_not_copied_into(readers: int) -> None:
    class Reused(Device):
        def empty(self, shape: tuple[int, ...], dtype: Any) -> NDArray:
            array = super().empty(shape, dtype)
            self.steps.submit(lambda: array.fill(-3))  # of whoever had the memory before
            return array

    device = Reused(eager_steps=False, eager_copies=True)
    ring, seen = ring_over(device, readers), []
    for batch, count in ring.stretches(0, 51):
        for number in range(batch, batch + count):
            read_later(device, ring, number, seen)
    device.steps.synchronize()
    assert seen == list(range(ROWS))
    ring.close()


def test_a_ring_that_is_dropped_leaves_no_copy_to_be_made_into_its_memory() -> None:
    device = Device(eager_steps=False, eager_copies=False)
    ring = ring_over(device, 2)
    next(iter(ring.stretches(0, 51)))
    copies = ring._uploads._stream  # type: ignore[attr-defined]
    del ring
    gc.collect()
    assert not copies._calls


class _PoolIsEmpty(MemoryError):
    """As CuPy's."""


class _RuntimeError(RuntimeError):
    """As CuPy's, of the CUDA runtime."""


def device_with(free: int, pinned: Any = None) -> CudaDevice:
    """Return a device of 80 GiB whose next array does not fit."""

    def refuse(shape: Any, dtype: Any) -> None:
        raise _PoolIsEmpty

    device = CudaDevice.__new__(CudaDevice)
    device.name = "cuda:0"
    device.active = lambda: nullcontext()  # type: ignore[method-assign, assignment, return-value]
    device._runtime = SimpleNamespace(memGetInfo=lambda: (free, 80 * 2**30), CUDARuntimeError=_RuntimeError)
    device._cupy = SimpleNamespace(
        empty=refuse,
        zeros=refuse,
        cuda=SimpleNamespace(
            memory=SimpleNamespace(OutOfMemoryError=_PoolIsEmpty), alloc_pinned_memory=pinned
        ),
        get_default_memory_pool=lambda: SimpleNamespace(free_bytes=lambda: 2**30),
    )
    return device


def test_a_lack_of_memory_tells_what_was_asked_what_is_free_and_what_to_lower() -> None:
    device = device_with(3 * 2**30)
    for create in (device.empty, device.zeros):
        with pytest.raises(DeviceMemoryError) as caught:
            create((1024, 1024, 1280), np.float32)
        assert str(caught.value) == (
            "device cuda:0: an array of 5.0 GiB does not fit, 4.0 GiB of 80.0 GiB are free; lower "
            "`batch_size`, or use narrower layers"
        )
        assert isinstance(caught.value, MemoryError)


def test_a_data_set_that_does_not_fit_is_told_of_as_such() -> None:
    from nnkit.backends.cupy import CupyBackend
    from nnkit.feed.batch import Rows
    from nnkit.feed.features import Features

    backend = CupyBackend(device_with(2**20), SimpleNamespace(precisions=("fp32",)))  # type: ignore[arg-type]
    with pytest.raises(DeviceMemoryError) as caught:
        Rows(backend, np.float32, Features(np.zeros((4096, 1024), np.uint8)))
    text = str(caught.value)
    assert "an array of 4.0 MiB does not fit, 1.0 GiB of 80.0 GiB are free" in text
    assert "`data_placement` = 'pinned'" in text
    # Nor is there room for the order of rows that are pinned already.
    with pytest.raises(DeviceMemoryError, match="give fewer rows, or set `device`"):
        Rows(backend, np.float32, Features(np.zeros((64, 2), np.uint8)), shuffled=True, placement="pinned")


def test_memory_that_cannot_be_pinned_is_an_error_that_says_how_much() -> None:
    def refuse(size: int) -> None:
        raise _RuntimeError("cudaErrorMemoryAllocation: out of memory")

    with pytest.raises(DeviceMemoryError, match=r"64\.0 MiB of .* cannot be pinned .*out of mem"):
        device_with(2**30, refuse).pinned((64, 2**20), np.uint8)


def test_pinned_memory_has_the_shape_and_type_it_is_asked_for() -> None:
    array = device_with(2**30, lambda size: bytearray(size)).pinned((3, 4), np.int32)
    assert (array.shape, array.dtype, array.flags.writeable) == ((3, 4), np.int32, True)


def test_threads_make_the_device_current_without_a_word_to_each_other() -> None:
    current = {"steps": 0, "reader": 3}  # device by thread
    running = "steps"

    class CupyDevice:
        """As CuPy's: one stack, whatever thread enters it."""

        def __init__(self, index: int) -> None:
            self.id, self.stack = index, list[int]()

        def __enter__(self) -> None:
            self.stack.append(current[running])
            current[running] = self.id

        def __exit__(self, *_: object) -> None:
            current[running] = self.stack.pop()

    device = device_with(2**30)
    device._cupy.cuda.Device = CupyDevice
    device._device = CupyDevice(1)
    of_steps: Any = device._device
    of_reader: Any = device.current()
    of_steps.__enter__()
    running = "reader"
    of_reader.__enter__()
    assert current == {"steps": 1, "reader": 1}
    running = "steps"
    of_steps.__exit__(None, None, None)
    running = "reader"
    of_reader.__exit__(None, None, None)
    assert current == {"steps": 0, "reader": 3}
