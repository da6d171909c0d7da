"""A ring of buffers that threads fill with an epoch's next rows while the device trains on the previous ones.

A chunk is a run of whole batches of the epoch, their rows in the epoch's order. The ring is one array,
divided into slots that hold a chunk each: chunk k is in slot k modulo the number of slots. A step
thus finds a batch by its number modulo the ring's length: one prepared step, or captured graph, serves every
slot, and nothing is copied on the device.
"""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.protocol import Array, Backend, Uploads
from nnkit.errors import DataError, DeviceError, NnkitError

__all__ = ["SLOT_BYTES", "Ring", "RingRows"]

SLOT_BYTES = 1 << 22
"""Approximate size of a slot."""
# Batches may be larger than a slot. Above this total, fewer slots are filled at once.
_MOST_BYTES = 1 << 29
# The slots in addition to one for each reader: the slot in use; and for a GPU, which runs behind the host's
# calls, one slot that is being copied and one that is filled and waits for its copy.
_SLOTS_ON_HOST, _SLOTS_ON_DEVICE = 1, 3


@dataclass(frozen=True)
class RingRows:
    """Arrays on the host with a row for each sample.

    Parameters
    ----------
    arrays : mapping of str to ndarray of shape (samples, ...)
        By name; they may be mapped from a file.
    index : ndarray of shape (samples,), int64, or None
        The selected rows of the array named ``source``, which may then have any number of rows.
    count : int
        The number of samples.
    """

    arrays: Mapping[str, NDArray]
    index: NDArray[np.int64] | None
    count: int

    @property
    def row_bytes(self) -> int:
        """The memory of a sample in all arrays."""
        return sum(array.itemsize * prod(array.shape[1:]) for array in self.arrays.values())

    def read(self, rows: NDArray[np.int64], targets: Mapping[str, NDArray]) -> None:
        """Copy the given rows of every array to the beginning of the target of the same name."""
        for name, array in self.arrays.items():
            picked = self.index[rows] if name == "source" and self.index is not None else rows
            _copy_rows(array, picked, targets[name])


def _copy_rows(source: NDArray, rows: NDArray[np.int64], target: NDArray) -> None:
    """Copy rows, by a loop that releases Python's lock if each row is contiguous."""
    from nnkit.kernels import host

    wide = source.reshape(len(source), -1) if source.ndim != 2 else source
    if 0 in wide.shape:
        return
    if wide.shape[1] > 1 and wide.strides[1] != wide.itemsize:
        target[: len(rows)] = source[rows]  # the source is, for instance, in Fortran order
        return
    entry = host.kernel("copy_rows", np.dtype(np.float64)).entry
    flat = target.reshape(len(target), -1)
    entry(np.asarray(_Bytes(wide)), rows, np.asarray(_Bytes(flat)))


class _Bytes:
    """The memory of a two-dimensional array as rows of bytes: one type for the loop, whatever the array's.

    It is never marked read-only, because Numba would compile the loop again for such an array.
    """

    def __init__(self, array: NDArray) -> None:
        self._owner = array
        width = array.itemsize * array.shape[1]
        self.__array_interface__ = {
            "version": 3,
            "data": (array.__array_interface__["data"][0], False),
            "shape": (len(array), width),
            "strides": None if array.strides[0] == width else (array.strides[0], 1),
            "typestr": "|u1",
        }


class _Readers:
    """Threads that call `fill` with the numbers of the chunks from `first` to `stop` − 1, in order.

    A chunk is read as soon as its slot is free: when the chunk `slots` before it has been released.
    """

    def __init__(self, fill: Callable[[int], None], first: int, stop: int, slots: int, threads: int) -> None:
        self._fill = fill
        self._next, self._stop, self._slots = first, stop, slots
        self._filled: dict[int, Future[None]] = {}
        thread_ids: set[int] = set()
        self._thread_ids = thread_ids
        self._pool = ThreadPoolExecutor(
            threads, "nnkit-reader", lambda: thread_ids.add(threading.get_ident())
        )
        self._fill_before(first + slots)

    def _fill_before(self, upper: int) -> None:
        try:
            while self._next < min(upper, self._stop):
                self._filled[self._next] = self._pool.submit(self._fill, self._next)
                self._next += 1
        except BaseException:
            self.close()
            raise
        if self._next == self._stop:
            self._pool.shutdown(wait=False)  # the threads end after the last chunk

    def wait_for(self, chunk: int) -> None:
        """Wait until a chunk is in its slot, or raise the error of its reader; to be called in order."""
        error = self._filled[chunk].exception()
        if error is not None:
            self.close()
            raise error

    def release(self, chunk: int) -> None:
        """Let the chunk's slot be filled again."""
        self._filled.pop(chunk, None)
        self._fill_before(chunk + 1 + self._slots)

    def close(self) -> None:
        """End the threads once they have read their current chunks."""
        # Garbage collection may call this in one of the threads, which cannot wait for itself.
        self._pool.shutdown(wait=threading.get_ident() not in self._thread_ids, cancel_futures=True)


class Ring:
    """Rows that are streamed to a device chunk by chunk, in an epoch's order.

    Parameters
    ----------
    backend : Backend
        The device.
    rows : RingRows
        The data set.
    batch_size : int
        Rows of a batch; a chunk has whole batches, about 4 MiB.
    kind : {"pinned", "pageable"}
        The host memory that a GPU's copies come from.
    readers : int, optional
        The number of threads that read chunks ahead of the device; 0 reads a chunk when it is needed. By
        default the backend's `readers`.

    Attributes
    ----------
    arrays : dict of str to array of shape (ring_rows, ...)
        On the device, by the names of the rows' arrays: row k of the epoch is at k modulo their length.
    batches : int
        The number of batches of a chunk.
    """

    def __init__(
        self, backend: Backend, rows: RingRows, batch_size: int, kind: str, readers: int | None = None
    ) -> None:
        self._epoch_batches = -(-rows.count // batch_size)
        fitting = max(1, SLOT_BYTES // max(1, rows.row_bytes * batch_size))
        self.batches = int(min(fitting, self._epoch_batches))
        self._rows = rows
        self._device = backend.name
        self._slot_rows = self.batches * batch_size
        self._epoch_chunks = -(-self._epoch_batches // self.batches)
        self._threads = backend.readers() if readers is None else readers
        more = _SLOTS_ON_HOST if backend.free_memory() is None else _SLOTS_ON_DEVICE
        affordable = max(more + 1, _MOST_BYTES // max(1, rows.row_bytes * self._slot_rows))
        self._slots = min(more + self._threads, self._epoch_chunks, affordable) if self._threads else 1
        self._uploads = backend.uploads(self._slots, kind)
        ring_rows = self._slots * self._slot_rows
        self.arrays: dict[str, Array] = {}
        self._host: dict[str, NDArray] = {}
        for name, array in rows.arrays.items():
            pair = self._uploads.buffer((ring_rows, *array.shape[1:]), array.dtype)
            self._host[name], self.arrays[name] = pair
        self._order: NDArray[np.int64] | None = None
        self._current: int | None = None  # the chunk in use
        self._next = 0  # the next chunk that the readers deliver
        self._readers: _Readers | None = None
        self._end: weakref.finalize | None = None

    def begin(self, order: NDArray[np.int64] | None) -> None:
        """Begin an epoch with the rows in this order; None keeps the storage order."""
        self.close()
        self._order = order

    def stretches(self, first: int, count: int) -> Iterator[tuple[int, int]]:
        """Yield the `count` batches from `first` on, chunk by chunk, as pairs of a first batch and a number.

        A pair's batches are in the ring until the next pair is requested.
        """
        batch, stop = first, first + count
        while batch < stop:
            chunk = batch // self.batches
            chunk_stop = min((chunk + 1) * self.batches, self._epoch_batches)
            self._acquire(chunk)
            yield batch, min(stop, chunk_stop) - batch
            if stop >= chunk_stop:
                self._release(chunk)
            batch = chunk_stop

    def _acquire(self, chunk: int) -> None:
        """Wait until a chunk is in its slot, and make it the current one."""
        if chunk == self._current:
            return
        if self._current is not None:  # the caller left it before its end
            self._release(self._current)
        if self._threads == 0:
            self._filler()(chunk)
        else:
            if self._readers is None or chunk != self._next:
                self._begin_at(chunk)
            assert self._readers is not None
            self._readers.wait_for(chunk)
        self._current = chunk
        self._uploads.receive(chunk % self._slots)

    def _filler(self) -> Callable[[int], None]:
        """Return a function that reads a chunk and sends it to its slot.

        The threads keep the function alive, so it must not refer to the ring: that could not be collected.
        """
        rows, order, slot_rows, slots = self._rows, self._order, self._slot_rows, self._slots
        host, device, uploads = self._host, self.arrays, self._uploads
        reading = partial(_raising, DataError, "the rows could not be read while training")
        failure = f"device {self._device}: rows could not be copied while training"
        sending = partial(_raising, DeviceError, failure)

        def fill(chunk: int) -> None:
            slot, first = chunk % slots, chunk * slot_rows
            stop = min(first + slot_rows, rows.count)
            picked = np.arange(first, stop) if order is None else order[first:stop]
            in_ring = slice(slot * slot_rows, slot * slot_rows + stop - first)
            with sending():
                uploads.prepare(slot)
            with reading():
                rows.read(picked, {name: buffer[in_ring] for name, buffer in host.items()})
            with sending():
                uploads.send(slot, [(host[name][in_ring], device[name][in_ring]) for name in host])

        return fill

    def _begin_at(self, chunk: int) -> None:
        self.close()
        self._next = chunk
        self._readers = _Readers(self._filler(), chunk, self._epoch_chunks, self._slots, self._threads)
        # When the ring is garbage-collected, end the threads and wait for copies into its memory.
        self._end = weakref.finalize(self, _end, self._readers, self._uploads)

    def _release(self, chunk: int) -> None:
        self._uploads.done(chunk % self._slots)
        self._current, self._next = None, chunk + 1
        if self._readers is not None:
            self._readers.release(chunk)

    def close(self) -> None:
        """End the readers and wait for their last copies; the ring can begin again."""
        end, current = self._end, self._current
        # Reset first: if the device has failed, every call below fails, now and at the next close.
        self._readers = self._end = self._current = None
        if end is not None:
            end()
        if current is not None:
            self._uploads.done(current % self._slots)
        self._uploads.synchronize()


def _end(readers: _Readers, uploads: Uploads) -> None:
    readers.close()
    uploads.synchronize()


@contextmanager
def _raising(kind: type[NnkitError], what: str) -> Iterator[None]:
    """Turn exceptions into an error of this kind, except nnkit's own and a lack of memory."""
    try:
        yield
    except (NnkitError, MemoryError):
        raise
    except Exception as error:
        raise kind(f"{what}: {type(error).__name__}: {error}") from error
