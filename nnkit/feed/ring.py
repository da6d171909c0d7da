"""A ring of buffers that readers fill with an epoch's next rows while the device trains on the ones before.

A slot is a stretch of the epoch: some whole batches, their rows one after the other as the epoch takes them.
It lies in the slot's place of one array for all, so that the step finds a batch by its number alone, modulo
the ring's length: one prepared step, or captured graph, serves every slot, and nothing is copied on the
device.

Order: what is read, the readers' threads, the ring.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.protocol import Array, Backend, Uploads
from nnkit.errors import DataError, DeviceError, NnkitError

__all__ = ["SLOT_BYTES", "Ring", "RingRows"]

SLOT_BYTES = 1 << 22
"""Of a slot, about."""
# Batches may be larger than that. Beyond this much in all, fewer slots are filled at once.
_MOST_BYTES = 1 << 29
# Beside one for each reader to fill: one that is computed on; and for a GPU, whose steps and copies run
# behind the host's calls, one on its way and one that waits for its turn.
_SLOTS_ON_HOST, _SLOTS_ON_DEVICE = 1, 3


@dataclass(frozen=True)
class RingRows:
    """Arrays on the host, a row for each row of a data set.

    Parameters
    ----------
    arrays : mapping of str to ndarray of shape (samples, ...)
        By name; they may be mapped from a file.
    index : ndarray of shape (samples,), int64, or None
        Which rows of the array named ``source`` these are; it then has any number of them.
    count : int
        The number of rows.
    """

    arrays: Mapping[str, NDArray]
    index: NDArray[np.int64] | None
    count: int

    @property
    def row_bytes(self) -> int:
        """What a row takes in all arrays."""
        return sum(_row_bytes(array) for array in self.arrays.values())

    def read(self, rows: NDArray[np.int64], targets: Mapping[str, NDArray]) -> None:
        """Copy the given rows of every array to the beginning of the target of its name."""
        for name, array in self.arrays.items():
            picked = self.index[rows] if name == "source" and self.index is not None else rows
            _copy_rows(array, picked, targets[name])


def _row_bytes(array: NDArray) -> int:
    return array.itemsize * int(np.prod(array.shape[1:]))


def _copy_rows(source: NDArray, rows: NDArray[np.int64], target: NDArray) -> None:
    """Copy rows by a loop that lets go of Python's lock, where they are rows of bytes."""
    from nnkit.kernels import host

    wide = source.reshape(len(source), -1) if source.ndim != 2 else source
    if 0 in wide.shape:
        return
    if wide.shape[1] > 1 and wide.strides[1] != wide.itemsize:
        target[: len(rows)] = source[rows]  # columns that lie apart, as Fortran has them
        return
    entry = host.kernel("copy_rows", np.dtype(np.float64)).entry
    entry(_bytes_of(wide), rows, _bytes_of(target.reshape(len(target), -1)))


def _bytes_of(array: NDArray) -> NDArray[np.uint8]:
    """Return the same memory as rows of bytes; one type for the loop, whatever the array's."""
    address, _ = array.__array_interface__["data"]
    shape, strides = (len(array), array.itemsize * array.shape[1]), (array.strides[0], 1)
    return np.asarray(_Bytes(array, address, shape, strides))


class _Bytes:
    """Memory as NumPy's array interface gives it, not marked read-only: Numba compiles anew for such."""

    def __init__(
        self, owner: NDArray, address: int, shape: tuple[int, int], strides: tuple[int, int]
    ) -> None:
        self._owner = owner
        self.__array_interface__ = {
            "version": 3,
            "data": (address, False),
            "shape": shape,
            "strides": None if strides[0] == shape[1] else strides,
            "typestr": "|u1",
        }


class _Readers:
    """Threads that fill one slot after the other, each as soon as what lay in its place is released.

    Parameters
    ----------
    fill : function of int
        Fills the slot of that number; it runs in the threads.
    first, stop : int
        The numbers of the first slot and of the one after the last.
    slots : int
        How many places there are.
    threads : int
        How many fill slots at once.
    """

    def __init__(self, fill: Callable[[int], None], first: int, stop: int, slots: int, threads: int) -> None:
        self._fill = fill
        self._next, self._stop = first, stop
        self._released, self._slots = first, slots
        self._ready: set[int] = set()
        self._failed: tuple[int, BaseException] | None = None
        self._closed = False
        self._changed = threading.Condition()
        count = min(threads, stop - first)
        self._threads = [
            threading.Thread(target=self._read, name=f"nnkit-reader-{number}", daemon=True)
            for number in range(count)
        ]
        for number, thread in enumerate(self._threads):
            try:
                thread.start()
            except BaseException:
                del self._threads[number:]
                self.close()
                raise

    def _read(self) -> None:
        while (number := self._taken()) is not None:
            try:
                self._fill(number)
            except BaseException as error:
                with self._changed:
                    if self._failed is None or number < self._failed[0]:
                        self._failed = number, error
                    self._changed.notify_all()
                return
            with self._changed:
                self._ready.add(number)
                self._changed.notify_all()

    def _taken(self) -> int | None:
        """Wait for a place to fill, and return the slot's number; None when there is nothing left to do."""
        with self._changed:
            while True:
                if self._closed or self._failed is not None or self._next >= self._stop:
                    return None
                if self._next < self._released + self._slots:
                    self._next += 1
                    return self._next - 1
                self._changed.wait()

    def wait_for(self, number: int) -> None:
        """Wait until a slot is filled; raises what a reader failed with at it or before."""
        with self._changed:
            while number not in self._ready:
                # Slots are taken in order: those before a bad one are filled, or being filled.
                if self._failed is not None and self._failed[0] <= number:
                    raise self._failed[1]
                self._changed.wait()

    def release(self, number: int) -> None:
        """Let a slot's place be filled anew."""
        with self._changed:
            self._ready.discard(number)
            self._released = number + 1
            self._changed.notify_all()

    def close(self) -> None:
        """End the threads, after the slots that they are filling."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        # Python may collect a ring's garbage in a reader, which perhaps holds the lock the others wait for.
        if threading.current_thread() not in self._threads:
            for thread in self._threads:
                thread.join()


class Ring:
    """Rows that are brought to a device slot by slot, in an epoch's order.

    Parameters
    ----------
    backend : Backend
        The device.
    rows : RingRows
        The data set.
    batch_size : int
        Rows of a batch; a slot holds some whole ones, about 4 MiB.
    kind : {"pinned", "pageable"}
        What a GPU's copies come from.
    readers : int, optional
        Threads that fill slots ahead of the device; with 0 a slot is filled when it is wanted. By default
        what suits the device.

    Attributes
    ----------
    arrays : dict of str to array of shape (places, ...)
        On the device, by the names of the rows' arrays: row k of the epoch lies at k modulo their length.
    batches : int
        How many batches a slot holds.
    """

    def __init__(
        self, backend: Backend, rows: RingRows, batch_size: int, kind: str, readers: int | None = None
    ) -> None:
        epoch = -(-rows.count // batch_size)
        self.batches = int(min(max(1, SLOT_BYTES // max(1, rows.row_bytes * batch_size)), epoch))
        self._rows = rows
        self._device = backend.name
        self._slot_rows = self.batches * batch_size
        self._last = -(-epoch // self.batches)
        self._readers_wanted = backend.readers() if readers is None else readers
        more = _SLOTS_ON_HOST if backend.free_memory() is None else _SLOTS_ON_DEVICE
        affordable = max(more + 1, _MOST_BYTES // max(1, rows.row_bytes * self._slot_rows))
        self._slots = min(more + self._readers_wanted, self._last, affordable) if self._readers_wanted else 1
        self._uploads = backend.uploads(self._slots, kind)
        places = self._slots * self._slot_rows
        self.arrays: dict[str, Array] = {}
        self._host: dict[str, NDArray] = {}
        for name, array in rows.arrays.items():
            pair = self._uploads.buffer((places, *array.shape[1:]), array.dtype)
            self._host[name], self.arrays[name] = pair
        self._order: NDArray[np.int64] | None = None
        self._epoch = epoch
        self._taken: int | None = None
        self._next = 0
        self._readers: _Readers | None = None
        self._end: weakref.finalize | None = None

    def begin(self, order: NDArray[np.int64] | None) -> None:
        """Take the rows in this order from now on; None for that in which they lie."""
        self.close()
        self._order = order

    def stretches(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield (first, count) of batches in one slot each, which is there until the next is asked for."""
        batch, stop = first, first + count
        while batch < stop:
            number = batch // self.batches
            upper = min((number + 1) * self.batches, self._epoch)
            self._take(number)
            yield batch, min(stop, upper) - batch
            if stop >= upper:
                self._release(number)
            batch = upper

    def _take(self, number: int) -> None:
        if number == self._taken:
            return
        if self._taken is not None:  # left before its end
            self._release(self._taken)
        if self._readers_wanted == 0:
            self._filler()(number)
        else:
            if self._readers is None or number != self._next:
                self._begin_at(number)
            assert self._readers is not None
            self._readers.wait_for(number)
        self._taken = number
        self._uploads.receive(number % self._slots)

    def _filler(self) -> Callable[[int], None]:
        # It must not hold the ring, for the threads hold it.
        shape = (self._slot_rows, self._slots)
        arrays = self._host, self.arrays
        return partial(_fill, self._rows, self._order, *shape, *arrays, self._uploads, self._device)

    def _begin_at(self, number: int) -> None:
        self.close()
        self._next = number
        self._readers = _Readers(self._filler(), number, self._last, self._slots, self._readers_wanted)
        # A ring that nobody holds any more leaves no thread behind, nor a copy into memory it gives back.
        self._end = weakref.finalize(self, _end, self._readers, self._uploads)

    def _release(self, number: int) -> None:
        self._uploads.done(number % self._slots)
        self._taken, self._next = None, number + 1
        if self._readers is not None:
            self._readers.release(number)

    def close(self) -> None:
        """End the readers and wait for their last copies; the ring can be begun anew."""
        end, taken = self._end, self._taken
        # Forgotten first: where the device has failed, everything below fails too, and will again.
        self._readers = self._end = self._taken = None
        if end is not None:
            end()
        if taken is not None:
            self._uploads.done(taken % self._slots)
        self._uploads.synchronize()


def _end(readers: _Readers, uploads: Uploads) -> None:
    """End the readers and wait for their last copies."""
    readers.close()
    uploads.synchronize()


def _fill(
    rows: RingRows,
    order: NDArray[np.int64] | None,
    slot_rows: int,
    slots: int,
    host: Mapping[str, NDArray],
    device: Mapping[str, Array],
    uploads: Uploads,
    device_name: str,
    number: int,
) -> None:
    """Read the slot of that number and send it."""
    reading = partial(_raising, DataError, "the rows could not be read while training")
    sending = partial(_raising, DeviceError, f"device {device_name}: rows could not be copied while training")
    slot, first = number % slots, number * slot_rows
    stop = min(first + slot_rows, rows.count)
    picked = np.arange(first, stop) if order is None else order[first:stop]
    place = slice(slot * slot_rows, slot * slot_rows + stop - first)
    with sending():
        uploads.prepare(slot)
    with reading():
        rows.read(picked, {name: buffer[place] for name, buffer in host.items()})
    with sending():
        uploads.send(slot, [(host[name][place], device[name][place]) for name in host])


@contextmanager
def _raising(kind: type[NnkitError], what: str) -> Iterator[None]:
    """Raise an error of this kind in the place of others, but for ours and for a lack of memory."""
    try:
        yield
    except (NnkitError, MemoryError):
        raise
    except Exception as error:
        raise kind(f"{what}: {type(error).__name__}: {error}") from error
