"""A data set on a device, or streamed to it, and the batches that are gathered from it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.backends.operations import Array, Kernel, Operation
from nnkit.backends.protocol import Backend
from nnkit.errors import ConfigError, DeviceMemoryError, FirstError
from nnkit.feed.augmentation import Augmentation
from nnkit.feed.features import Bags, Features
from nnkit.feed.ring import Ring, RingRows

__all__ = ["BagRows", "Batch", "Placement", "Rows", "default_placement", "device_bytes", "streams"]

Placement = Literal["device", "pinned", "pageable"]
"""All rows on the device; or a few batches at a time, from pinned or pageable memory of the host."""


@dataclass(frozen=True)
class BagRows:
    """The arrays of `Bags` on the device, and the epoch's order, (samples,) int64; None for storage order."""

    ids: Array
    starts: Array
    weights: Array | None
    order: Array | None


@dataclass(frozen=True)
class Batch:
    """The arrays that a step reads.

    Parameters
    ----------
    buffers : mapping of str to array of shape (capacity, ...)
        ``inputs``, (capacity, width) in the working dtype, or in 16 bits with columns of padding; with
        targets ``labels``, (capacity,) int32 class indices or (capacity, outputs) numbers; with sample
        weights ``weights``, (capacity,).
    capacity : int
        The maximum number of rows.
    count : array of shape (1,), int64
        On the device, the current number of rows; the loss gives the others no gradient.
    bags : tuple of BagRows
        The data set's bags, one for each embedding.
    padding : int
        The number of the inputs' last columns that are padding.
    """

    buffers: Mapping[str, Array]
    capacity: int
    count: Array
    bags: tuple[BagRows, ...] = ()
    padding: int = 0

    @property
    def inputs(self) -> Array:
        """The rows' inputs, with their padding."""
        return self.buffers["inputs"]

    @property
    def filled(self) -> Array:
        """The rows' inputs without their padding."""
        inputs = self.buffers["inputs"]
        return inputs[:, : inputs.shape[1] - self.padding] if self.padding else inputs

    @property
    def labels(self) -> Array | None:
        """The rows' targets, or None."""
        return self.buffers.get("labels")

    @property
    def weights(self) -> Array | None:
        """The rows' weights, or None for ones."""
        return self.buffers.get("weights")

    def first(self, rows: int) -> Batch:
        """Return the same buffers, cut to a smaller capacity."""
        buffers = {name: buffer[:rows] for name, buffer in self.buffers.items()}
        return replace(self, buffers=buffers, capacity=rows)

    def part(self, first: int, rows: int) -> Batch:
        """Return at most `rows` rows, beginning with `first`, of a batch whose contents do not change."""
        buffers = {name: buffer[first : first + rows] for name, buffer in self.buffers.items()}
        count = min(rows, self.capacity - first)
        return Batch(buffers, count, np.array([count]))


def streams(features: Features) -> bool:
    """Whether rows of this kind can come to the device a few at a time."""
    return features.sparse is None and not features.bags


def device_bytes(
    features: Features, targets: NDArray | None = None, weights: NDArray | None = None, shuffled: bool = False
) -> int:
    """Return the memory of a data set that lies on a device.

    This includes dense numbers, codes, targets, sample weights and, for shuffled rows, the epoch's order. It
    excludes sparse numbers and bags, which cannot lie elsewhere.
    """
    beside = sum(array.nbytes for array in (targets, weights) if array is not None)
    order = np.dtype(np.int64).itemsize if shuffled else 0
    return (features.row_bytes + order) * len(features) + beside


def default_placement(backend: Backend, features: Features, size: int) -> Placement:
    """Return the best placement for one pass over rows that would take `size` bytes on the device."""
    if not features.mapped or not streams(features):
        return "device"
    free = backend.free_memory()
    if free is None:
        return "device" if features.dense.flags.c_contiguous else "pinned"
    return "device" if size <= free / 2 else "pinned"


class Rows:
    """A data set in its smallest type, on the device or streamed to it a few batches at a time.

    Parameters
    ----------
    backend : Backend
        The device.
    dtype : dtype
        The working type.
    features : Features
        The inputs.
    targets : ndarray or None
        (samples,) int32 class indices, or (samples, outputs) numbers.
    weights : ndarray of shape (samples,) or None
        Sample weights.
    shuffled : bool
        Whether batches follow the epoch's order (see `begin`) or the storage order.
    augmentation : Augmentation, optional
        Applied to pictures as a batch is filled.
    seed : int
        The key of the augmentation's draws.
    placement : {"device", "pinned", "pageable"}, optional
        See `Placement`. A `Ring` streams rows that are not on the device; they may be mapped from a file.
        Sparse rows and bags must be on the device. By default "device", except for mapped rows that would
        have to be copied into the host's memory, or do not fit into a GPU's.
    readers : int, optional
        As for `Ring`.

    Attributes
    ----------
    count : int
        The number of rows.
    width : int
        The columns of a row's inputs, without embedded vectors.
    """

    def __init__(
        self,
        backend: Backend,
        dtype: DTypeLike,
        features: Features,
        targets: NDArray | None = None,
        weights: NDArray | None = None,
        shuffled: bool = False,
        augmentation: Augmentation | None = None,
        seed: int = 0,
        placement: Placement | None = None,
        readers: int | None = None,
    ) -> None:
        size = device_bytes(features, targets, weights, shuffled)
        placement = placement or default_placement(backend, features, size)
        self.backend = backend
        self.dtype = np.dtype(dtype)
        self.count = len(features)
        self.width = features.width
        self._arrays: dict[str, Array] = {}
        self._numbers: dict[str, int] = {}
        self._rings: dict[int, Ring] = {}
        self._ringed = placement != "device"
        self._placement, self._readers = placement, readers
        self._streamed: dict[str, NDArray] = {}
        self._index = features.rows
        self._constants = {
            "RING": self._ringed,
            "INDEXED": features.rows is not None and backend.shares_host_memory and not self._ringed,
            "SHUFFLED": shuffled,
            "SCALED": features.shift is not None or features.scale is not None,
            "CODES": features.codes is not None,
            "SPARSE": features.sparse is not None,
            "TARGETS": targets is not None,
            "INDICES": targets is not None and targets.ndim == 1 and targets.dtype.kind in "iu",
            "WEIGHTED": weights is not None,
        }
        if augmentation:
            if features.picture is None:
                raise ConfigError("augment is for pictures, and these rows are not pictures")
            self._constants |= augmentation.constants()
            self._numbers = augmentation.arguments(features.picture, seed)
        self._bags = features.bags
        try:
            self._place_all(features, targets, weights)
        except DeviceMemoryError as error:
            advice = "give fewer rows, or set `device` = 'cpu'"
            if streams(features) and not self._ringed:
                advice = "set `data_placement` = 'pinned', which leaves the rows in the host's memory"
            raise DeviceMemoryError(error.shortage, advice) from None

    def _place_all(self, features: Features, targets: NDArray | None, weights: NDArray | None) -> None:
        if not self._ringed:
            self._place_source(features)
        elif streams(features):
            self._streamed["source"] = features.dense
        else:
            raise ConfigError("sparse rows and bags of ids must be on the device: data_placement = 'device'")
        columns = features.dense.shape[1]
        if self._constants["SCALED"]:
            self._place("shift", np.zeros(columns) if features.shift is None else features.shift)
            self._place("scale", np.ones(columns) if features.scale is None else features.scale)
        if features.codes is not None:
            self._place_rows("codes", features.codes, np.int32)
            self._place("offsets", np.cumsum((0, *features.cardinalities[:-1])), np.int64)
        if features.sparse is not None:
            self._place("sparse_values", features.sparse.values)
            self._place("sparse_columns", features.sparse.columns, np.int64)
            self._place("sparse_starts", features.sparse.starts, np.int64)
        if targets is not None:
            self._place_rows("targets", targets, np.int32 if self._constants["INDICES"] else self.dtype)
        if weights is not None:
            self._place_rows("weights", weights)
        if self._constants["SHUFFLED"]:
            self._arrays["order"] = self.backend.zeros(self.count, np.int64)
        self.bags = tuple(map(self._placed_bags, features.bags))

    def _placed_bags(self, bags: Bags) -> BagRows:
        placed = self.backend.from_host
        return BagRows(
            placed(np.ascontiguousarray(bags.ids, np.int32)),
            placed(np.ascontiguousarray(bags.starts, np.int64)),
            None if bags.weights is None else placed(np.ascontiguousarray(bags.weights, self.dtype)),
            self._arrays.get("order"),
        )

    def most_tokens(self, rows: int) -> tuple[int, ...]:
        """Return the maximum number of ids in any batch of `rows` rows, for each of a row's bags."""
        most = []
        for bags in self._bags:
            lengths = np.diff(bags.starts)
            few = max(0, len(lengths) - rows)
            most.append(int(np.partition(lengths, few)[few:].sum() if few else lengths.sum()))
        return tuple(most)

    def _place_source(self, features: Features) -> None:
        """Put the dense numbers on the device: the whole array without a copy, or only the selected rows."""
        backend, dense = self.backend, features.dense
        if backend.shares_host_memory or (features.rows is None and not features.mapped):
            self._arrays["source"] = backend.from_host(dense)
            if features.rows is not None:
                self._place("index", features.rows, np.int64)
        else:
            source = backend.empty((len(features), dense.shape[1]), dense.dtype)
            for first, block in features.dense_blocks():
                backend.write(source[first : first + len(block)], block)
            self._arrays["source"] = source

    def _place(self, name: str, array: NDArray, dtype: DTypeLike | None = None) -> None:
        self._arrays[name] = self.backend.from_host(np.ascontiguousarray(array, dtype or self.dtype))

    def _place_rows(self, name: str, array: NDArray, dtype: DTypeLike | None = None) -> None:
        """Put an array with a row for each sample on the device, or among the streamed arrays."""
        if self._ringed:
            self._streamed[name] = np.ascontiguousarray(array, dtype or self.dtype)
        else:
            self._place(name, array, dtype)

    def _ring(self, batch_size: int) -> Ring:
        if batch_size not in self._rings:
            rows = RingRows(self._streamed, self._index, self.count)
            self._rings[batch_size] = Ring(self.backend, rows, batch_size, self._placement, self._readers)
        return self._rings[batch_size]

    def begin(self, order: NDArray[np.int64] | None) -> None:
        """Take the rows in an epoch's order, (samples,); None keeps the storage order."""
        if order is not None:
            order = np.asarray(order, np.int64)
            self.backend.write(self.order, order)
        for ring in self._rings.values():
            ring.begin(order)

    def stretches(self, first: int, count: int, batch_size: int) -> Iterable[tuple[int, int]]:
        """Return (first, count) of runs of batches, each on the device until the next run is requested."""
        return self._ring(batch_size).stretches(first, count) if self._ringed else [(first, count)]

    def close(self) -> None:
        """End the threads that read ahead, until batches are requested again."""
        errors = FirstError()
        for ring in self._rings.values():
            with errors.kept("closing other rows"):
                ring.close()
        errors.raise_first()

    def refill(self, features: Features) -> None:
        """Replace the rows by others of the same number and kind, in the same arrays."""
        self.backend.write(self._arrays["source"], features.dense)
        for name, values in (("shift", features.shift), ("scale", features.scale)):
            if values is not None:
                self.backend.write(self._arrays[name], values)

    @property
    def order(self) -> Array:
        """The epoch's order, (samples,) int64 on the device."""
        return self._arrays["order"]

    def batch(
        self,
        capacity: int,
        width: int | None = None,
        columns: int | None = None,
        dtype: DTypeLike | None = None,
    ) -> Batch:
        """Return an empty batch for these rows.

        Parameters
        ----------
        capacity : int
            The maximum number of rows.
        width : int, optional
            The columns of its inputs: the rows' own (the default), followed by those of embedded vectors.
        columns : int, optional
            The allocated columns: those beyond `width` are padding, which stays zero.
        dtype : dtype, optional
            The type of the inputs; by default the working type.
        """
        backend = self.backend
        targets = (self._streamed if self._ringed else self._arrays).get("targets")
        width = self.width if width is None else width
        columns = width if columns is None else columns
        allocate = backend.zeros if columns > width else backend.empty
        buffers = {"inputs": allocate((capacity, columns), self.dtype if dtype is None else dtype)}
        if targets is not None:
            buffers["labels"] = backend.empty((capacity, *targets.shape[1:]), targets.dtype)
        if self._constants["WEIGHTED"]:
            buffers["weights"] = backend.empty(capacity, self.dtype)
        return Batch(buffers, capacity, backend.zeros(1, np.int64), self.bags, columns - width)

    def whole(self) -> Batch | None:
        """Return all rows as one batch that needs no gather; None if they need a cast or another layout.

        None on a GPU, where products are planned, and graphs captured, for each address.
        """
        if not self.backend.shares_host_memory or self._ringed or self.bags:
            return None
        changed = any(self._constants[name] for name in ("SCALED", "CODES", "SPARSE", "INDEXED"))
        if changed or self._arrays["source"].dtype != self.dtype:
            return None
        names = {"source": "inputs", "targets": "labels", "weights": "weights"}
        buffers = {names[name]: array for name, array in self._arrays.items() if name in names}
        return Batch(buffers, self.count, self.backend.from_host(np.array([self.count])))

    def gather(
        self, batch: Batch, counters: Array, batch_size: int, row_offset: int | None = None
    ) -> Operation:
        """Return what fills `batch` with the rows from ``counters[BATCH] * batch_size + row_offset`` on."""
        arguments = {
            **self._arrays,
            **(self._ring(batch_size).arrays if self._ringed else {}),
            **self._numbers,
            "inputs": batch.filled,
            "labels": batch.labels,
            "batch_weights": batch.weights,
            "count": batch.count,
            "counters": counters,
            "batch_size": batch_size,
            "row_offset": row_offset or 0,
        }
        constants = {**self._constants, "SHARD": row_offset is not None}
        return Kernel("gather", self.dtype, {}, constants, arguments)
