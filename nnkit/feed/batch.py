"""The rows a device holds, and the batch they are gathered into."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
"""On the device, all of it; or a few batches at a time, from pinned or pageable memory of the host."""


@dataclass(frozen=True)
class BagRows:
    """A data set's bags on the device, from which an embedding looks up a batch's.

    Parameters
    ----------
    ids : array of shape (tokens,), int32
        Rows of the table.
    starts : array of shape (samples + 1,), int64
        Where each row's ids begin.
    weights : array of shape (tokens,) or None
        What each id counts.
    order : array of shape (samples,), int64, or None
        The epoch's order of the rows; None where they are taken as they lie.
    """

    ids: Array
    starts: Array
    weights: Array | None
    order: Array | None


@dataclass(frozen=True)
class Batch:
    """What a step reads.

    Parameters
    ----------
    buffers : mapping of str to array of shape (capacity, ...)
        ``inputs`` (capacity, width) in the working dtype, or in 16 bits with columns of padding;
        where there are targets, ``labels``, (capacity,)
        int32 class indices or (capacity, outputs) numbers; where there are sample weights, ``weights``
        (capacity,).
    capacity : int
        The most rows it holds.
    count : array of shape (1,), int64
        On the device, the rows that it holds now; the loss gives the others no gradient.
    slot : int
        Which of several batches in flight this is.
    bags : tuple of BagRows
        Of the data set that its rows come from, one for each embedding.
    padding : int
        How many of the inputs' columns, the last ones, are padding.
    """

    buffers: Mapping[str, Array]
    capacity: int
    count: Array
    slot: int = 0
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
        return Batch(buffers, rows, self.count, self.slot, self.bags, self.padding)

    def part(self, first: int, rows: int) -> Batch:
        """Return a stretch of at most so many rows of a batch that is filled and stays so."""
        buffers = {name: buffer[first : first + rows] for name, buffer in self.buffers.items()}
        count = min(rows, self.capacity - first)
        return Batch(buffers, count, np.array([count]), self.slot)


def streams(features: Features) -> bool:
    """Whether rows of this kind can come to the device a few at a time."""
    return features.sparse is None and not features.bags


def device_bytes(
    features: Features, targets: NDArray | None = None, weights: NDArray | None = None, shuffled: bool = False
) -> int:
    """Return what a data set takes on a device that holds all of it.

    Counted are the rows' numbers and codes, targets and sample weights, and the epoch's order, 8 bytes a row,
    where rows are shuffled; but neither sparse numbers nor bags, which lie nowhere else.
    """
    beside = sum(array.nbytes for array in (targets, weights) if array is not None)
    order = np.dtype(np.int64).itemsize if shuffled else 0
    return (features.row_bytes + order) * len(features) + beside


def default_placement(backend: Backend, features: Features, size: int) -> Placement:
    """Return where rows lie best for one pass over them; on a device they would take so many bytes."""
    if not features.mapped or not streams(features):
        return "device"
    free = backend.free_memory()
    if free is None:
        return "device" if features.dense.flags.c_contiguous else "pinned"
    return "device" if size <= free / 2 else "pinned"


def _mend(features: Features, ringed: bool) -> str:
    if streams(features) and not ringed:
        return "set `data_placement` = 'pinned', which leaves the rows in the host's memory"
    return "give fewer rows, or set `device` = 'cpu'"


class Rows:
    """A data set on the device, in its smallest type; or on its way there, a few batches at a time.

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
        Whether batches follow an order of the epoch (see `order`) or the rows as they lie.
    augmentation : Augmentation, optional
        What is done to the pictures that the rows are, as a batch is filled.
    seed : int
        The key of its draws.
    placement : {"device", "pinned", "pageable"}, optional
        Where the rows lie. But for ``device``, a `Ring` brings them from the host, where they may be mapped
        from a file; neither sparse rows nor bags. By default the device, but for mapped rows that would have
        to be copied into the host's memory, or that a GPU has no room for.
    readers : int, optional
        As for `Ring`.
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
        indices = targets is not None and np.issubdtype(targets.dtype, np.integer) and targets.ndim == 1
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
            "INDICES": indices,
            "WEIGHTED": weights is not None,
        }
        if augmentation:
            if features.picture is None:
                raise ConfigError("augment is for pictures, and these rows are none")
            self._constants |= augmentation.constants()
            self._numbers = augmentation.arguments(features.picture, seed)
        self._bags = features.bags
        try:
            self._place_all(features, targets, weights)
        except DeviceMemoryError as error:
            raise DeviceMemoryError(error.shortage, _mend(features, self._ringed)) from None

    def _place_all(self, features: Features, targets: NDArray | None, weights: NDArray | None) -> None:
        """Put everything where it belongs."""
        if not self._ringed:
            self._place_source(features)
        elif streams(features):
            self._streamed["source"] = features.dense
        else:
            raise ConfigError("sparse rows and bags of ids lie on the device: data_placement = 'device'")
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
        """Put the numbers on the device: on the host all of them as they lie, elsewhere the rows alone."""
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
        """Put an array with a row for each row where the rows lie."""
        if self._ringed:
            self._streamed[name] = np.ascontiguousarray(array, dtype or self.dtype)
        else:
            self._place(name, array, dtype)

    def _ring(self, batch_size: int) -> Ring:
        """Return the ring that brings batches of so many rows."""
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
        """Return (first, count) of batches of the epoch, each on the device until the next is asked for."""
        return self._ring(batch_size).stretches(first, count) if self._ringed else [(first, count)]

    def close(self) -> None:
        """End what reads ahead, until batches are asked for again."""
        errors = FirstError()
        for ring in self._rings.values():
            with errors.kept("closing other rows"):
                ring.close()
        errors.raise_first()

    def refill(self, features: Features) -> None:
        """Take other rows of the same number and kind into the arrays that hold the first ones."""
        self.backend.write(self._arrays["source"], features.dense)
        for name, values in (("shift", features.shift), ("scale", features.scale)):
            if values is not None:
                self.backend.write(self._arrays[name], values)

    @property
    def order(self) -> Array:
        """The epoch's order, (samples,) int64 on the device; written anew at each epoch."""
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
            The most rows that it holds.
        width : int, optional
            The columns of its inputs: the rows' own, and then those that their bags are embedded in.
        columns : int, optional
            The columns that are allocated: the last ones are padding, zeros that stay.
        dtype : dtype, optional
            Of the inputs; by default the working type.
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
        return Batch(buffers, capacity, backend.zeros(1, np.int64), bags=self.bags, padding=columns - width)

    def whole(self) -> Batch | None:
        """Return all rows as one batch that needs no filling, or None where they must be cast or spread.

        On the host alone: on a GPU a product is planned for an address, and a program captured for each.
        """
        if not self.backend.shares_host_memory or self._ringed:
            return None
        source = self._arrays["source"]
        if any(self._constants[name] for name in ("SCALED", "CODES", "SPARSE", "INDEXED")):
            return None
        if source.dtype != self.dtype or self.bags:
            return None
        names = {"source": "inputs", "targets": "labels", "weights": "weights"}
        buffers = {names[name]: array for name, array in self._arrays.items() if name in names}
        return Batch(buffers, self.count, self.backend.from_host(np.array([self.count])))

    def gather(
        self, batch: Batch, counters: Array, batch_size: int, row_offset: int | None = None
    ) -> Operation:
        """Prepare filling `batch` with the rows from ``counters[BATCH] * batch_size + row_offset`` on."""
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
