"""The forward and the backward pass of a network as lists of operations over preallocated buffers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nnkit.backends.protocol import Array, Operation
from nnkit.core.batch import Batch
from nnkit.core.layers import Stage
from nnkit.core.lookup import Lookup
from nnkit.core.losses import Loss
from nnkit.core.mixed import Half, padded
from nnkit.core.parameters import Arena
from nnkit.kernels import formulas

__all__ = ["Passes"]


@dataclass(frozen=True)
class _Buffers:
    """What one stage leaves behind for its backward pass; arrays in 16 bits have padded rows."""

    z: Array  # the product; the activation too, where its derivative does not ask for z
    a: Array  # the stage's output
    mask: Array | None  # which outputs dropout kept, rows padded to whole draws
    bits: Array | None  # which outputs a ReLU let through, as `Backend.matmul_relu` keeps them


class Passes:
    """Buffers for batches of up to `capacity` rows, and the operations that run a network over them.

    Parameters
    ----------
    stages : sequence of Stage
        The network.
    arena : Arena
        Its parameters.
    capacity : int
        The nominal batch.
    training : bool
        Whether dropout drops, and what the backward pass needs is kept.
    gradients : array of shape (size,), optional
        Where the gradient goes, in the arena's layout; an array of its own if not given.
    row_offset : int, optional
        Of a shard: where in the batch its rows begin.
    tokens : sequence of int
        Of each embedding that trains, the most ids that a batch holds.
    half : Half, optional
        What weights, activations and their gradients are kept in, with sums, losses and the outputs in the
        arena's dtype; all of them in that if not given. Rows are then padded, with zeros that stay.

    Attributes
    ----------
    lookups : list of Lookup
        What the embeddings need, in their order.
    products : dict of int to list of Operation
        By number of rows, the matrix products alone: the floor that a step is measured against.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        arena: Arena,
        capacity: int,
        training: bool,
        gradients: Array | None = None,
        row_offset: int | None = None,
        tokens: Sequence[int] = (),
        half: Half | None = None,
    ) -> None:
        self._stages = stages
        self._arena = arena
        self._half = half
        self._dtype = arena.dtype if half is None else half.dtype
        self._copies = None if half is None else arena.copies(half)
        self._backend = arena.backend
        self._capacity = capacity
        self._training = training
        self._row_offset = row_offset
        self._buffers = [self._allocate(stage) for stage in stages]
        self.products: dict[int, list[Operation]] = {}
        # By number of rows, the stages whose product, bias and ReLU are one operation.
        self._whole: dict[int, set[int]] = {}
        most = tokens if training else [None] * len(stages[0].tables)
        self.lookups = [
            Lookup(table, number, arena, capacity, count)
            for number, (table, count) in enumerate(zip(stages[0].tables, most, strict=True))
        ]
        if training:
            self.gradients = arena.like_gradients() if gradients is None else gradients
            # The gradient of one stage's output and of its input are alive at once: two buffers, taken in
            # turn.
            widest = max(self._width(stage) for stage in stages)
            self._deltas = [self._backend.empty(capacity * widest, self._dtype) for _ in range(2)]
            # The loss fills the columns of its outputs alone: what is beside them must stay zero.
            last = (capacity, self._width(stages[-1]))
            self._last_delta = None if half is None else self._backend.zeros(last, self._dtype)
            if self.lookups:
                # The derivative by the inputs, of which the embeddings' columns alone are wanted.
                self._by_embedded = self._backend.empty((capacity, self.embedded), arena.dtype)

    def _allocate(self, stage: Stage) -> _Buffers:
        shape = (self._capacity, self._width(stage))
        # A product may have float32 outputs of operands in 16 bits, and so no logit overflows.
        outputs = stage is self._stages[-1] and stage.layer is not None
        dtype = self._arena.dtype if outputs else self._dtype
        allocate = self._backend.empty if self._half is None else self._backend.zeros
        z = allocate(shape, dtype)
        separate = self._training and stage.function.needs_z
        a = allocate(shape, dtype) if separate else z
        masked = self._training and stage.dropout > 0
        padded = (self._capacity, -(-stage.outputs // 4) * 4)
        mask = self._backend.empty(padded, np.uint8) if masked else None
        bits = None
        # In 16 bits cuBLASLt would sum the bias's gradient in 16 bits too: a kernel does both instead.
        if self._training and self._half is None and self._is_plain_relu(stage):
            bits = self._backend.empty((self._capacity, -(-stage.outputs // 128) * 16), np.uint8)
        return _Buffers(z, a, mask, bits)

    def _width(self, stage: Stage) -> int:
        """The columns of the stage's outputs, with their padding."""
        return padded(stage.outputs, self._half)

    def _cut(self, array: Array, stage: Stage) -> Array:
        """Return the stage's outputs, or what else has their columns, without the padding."""
        return array if array.shape[1] == stage.outputs else array[:, : stage.outputs]

    @property
    def activation_bytes(self) -> int:
        """The memory of what the forward pass leaves to the backward pass: activations, masks, bits."""
        arrays: dict[int, Array] = {}
        for buffers in self._buffers:
            for array in (buffers.z, buffers.a, buffers.mask, buffers.bits):
                if array is not None:
                    arrays[id(array)] = array
        return sum(array.nbytes for array in arrays.values())

    def refresh(self) -> list[Operation]:
        """Prepare rounding the parameters to 16 bits, where the products take them so."""
        return [] if self._copies is None else [self._copies.refresh()]

    def _is_plain_relu(self, stage: Stage) -> bool:
        """Whether the stage is a product, a bias and a ReLU and no more, which a device may have as one."""
        dropped = self._training and stage.dropout > 0
        relu = stage.function.value is formulas.relu
        return stage.layer is not None and stage.bias and relu and not dropped

    @property
    def embedded(self) -> int:
        """How many of the inputs the embeddings fill: the last ones."""
        return sum(lookup.table.width for lookup in self.lookups)

    def number(self, batch: Batch, counters: Array) -> list[Operation]:
        """Prepare what a backward pass needs to know of a batch's bags, before the forward pass."""
        return [lookup.number(batch, counters) for lookup in self.lookups]

    def outputs(self, rows: int) -> Array:
        """The network's outputs, (rows, outputs); while training, without the bias that the loss adds."""
        return self._cut(self._buffers[-1].a[:rows], self._stages[-1])

    def activations(self, rows: int) -> list[Array]:
        """Every stage's outputs, each (rows, outputs), as the last forward pass left them; see `outputs`."""
        buffers = zip(self._buffers, self._stages, strict=True)
        return [self._cut(buffer.a[:rows], stage) for buffer, stage in buffers]

    def kept(self, rows: int) -> list[Array | None]:
        """Which of every stage's outputs dropout kept in the last forward pass, None where it drops none."""
        pairs = zip(self._stages, self._buffers, strict=True)
        return [None if b.mask is None else b.mask[:rows, : stage.outputs] for stage, b in pairs]

    def forward(self, batch: Batch, counters: Array, seed: int) -> list[Operation]:
        """Prepare the forward pass.

        Parameters
        ----------
        batch : Batch
            Its rows are the pass's.
        counters : array
            The step's counters, which the dropout draws read.
        seed : int
            The key of the draws.
        """
        rows = batch.capacity
        x = batch.inputs
        operations = [lookup.forward(batch, counters) for lookup in self.lookups]
        for stage, buffers in zip(self._stages, self._buffers, strict=True):
            z = buffers.z[:rows]
            whole = self._product_and_relu(rows, x, stage, buffers)
            if whole is not None:
                operations.append(whole)
            elif stage.layer is None:
                operations.append(self._backend.copy(x, z))
            else:
                operations.append(self._product(rows, x, self._factor(stage), z))
            dropout = stage.dropout if self._training else 0.0
            if whole is None and (
                stage.activation != "identity" or dropout > 0 or (stage.bias and not self._fused(stage))
            ):
                operations.append(self._forward_kernel(stage, buffers, rows, counters, seed, dropout))
            x = buffers.a[:rows]
        return operations

    def loss(
        self,
        loss: Loss,
        batch: Batch,
        scalars: Array,
        nominal: int,
        by_rows: bool = False,
        scaling: Array | None = None,
    ) -> Operation:
        """Prepare the loss of the batch and, when training, its gradient by the outputs.

        With `scaling`, the loss scale's state, the gradient is multiplied by the scale.
        """
        rows = batch.capacity
        last = self._stages[-1]
        fused = self._fused(last)
        outputs = self.outputs(rows)
        # Without training the softmax still needs a row to work in.
        gradient = (
            self._cut(self._delta(last, rows), last)
            if self._training
            else self._backend.empty(outputs.shape, outputs.dtype)
        )
        constants = {
            "BIAS": fused,
            "BY_ROWS": by_rows,
            "GRADIENT": self._training,
            "RESCALED": scaling is not None,
            "WEIGHTED": batch.weights is not None,
            "INDICES": batch.labels is not None and batch.labels.ndim == 1,
            **loss.kernel_constants,
        }
        arguments = {
            "outputs": outputs,
            "bias": self._bias(last) if fused else None,
            "bias_gradient": self._bias(last, self.gradients) if fused else None,
            "labels": batch.labels,
            "batch_weights": batch.weights,
            "count": batch.count,
            "gradient": gradient,
            "row": self._backend.empty(last.outputs, self._arena.dtype),
            "scalars": scalars,
            "scaling": scaling,
            "batch_size": nominal,
        }
        return self._backend.kernel(loss.kernel, self._arena.dtype, loss.formulas, constants, arguments)

    def backward(self, batch: Batch, counters: Array, by_inputs: Array | None = None) -> list[Operation]:
        """Prepare the backward pass, from the gradient that `loss` leaves to that of every parameter.

        Parameters
        ----------
        batch : Batch
            As `forward` had it.
        counters : array
            The step's.
        by_inputs : array of shape (rows, inputs), optional
            Where the derivative by the inputs goes; it is then wanted in place of the weights' gradients.
        """
        rows = batch.capacity
        operations: list[Operation] = []
        passed = by_inputs is not None or bool(self.lookups)  # whether it goes on below the lowest product
        lowest = next(stage for stage in self._stages if stage.layer is not None or passed)
        inputs = [batch.inputs, *(buffers.a[:rows] for buffers in self._buffers)]
        below: dict[int, Stage] = {stage.index: before for before, stage in pairwise(self._stages)}
        folded: set[int] = set()  # the stages whose activation's backward pass is part of a product above
        for stage in reversed(self._stages[lowest.index :]):
            delta = self._delta(stage, rows)
            done = stage.index in folded or (stage.plain and (not stage.bias or self._fused(stage)))
            if not done:
                operations.append(self._backward_kernel(stage, delta, rows))
            if stage.layer is not None and by_inputs is None:
                gradient = self._weight(stage, self.gradients)
                x = inputs[stage.index]
                x = x if x.shape[1] == stage.inputs else x[:, : stage.inputs]
                operations.append(self._product(rows, x.T, self._cut(delta, stage), gradient))
            if stage is lowest:
                break
            onto = self._delta(below[stage.index], rows)
            whole = self._product_and_relu_gradient(rows, delta, stage, below[stage.index], onto)
            if whole is not None:
                operations.append(whole)
                folded.add(below[stage.index].index)
            elif stage.layer is None:
                operations.append(self._backend.copy(delta, onto))
            else:
                operations.append(self._product(rows, delta, self._factor(stage).T, onto))
        if by_inputs is not None:
            return [*operations, self._into_inputs(rows, by_inputs)]
        return operations + (self._into_tables(batch, counters) if self.lookups else [])

    def _into_inputs(self, rows: int, by_inputs: Array) -> Operation:
        """Prepare the last part of the backward pass: from the first stage to its inputs."""
        first = self._stages[0]
        delta = self._delta(first, rows)
        if first.layer is None:
            return self._backend.copy(delta, by_inputs)
        return self._product(rows, delta, self._factor(first).T, by_inputs)

    def _into_tables(self, batch: Batch, counters: Array) -> list[Operation]:
        """Prepare the last part of the backward pass: from the first stage into the embeddings."""
        rows, first = batch.capacity, self._stages[0]
        delta = self._delta(first, rows)
        if first.layer is None:
            return [lookup.backward(batch, counters, delta, lookup.table.column) for lookup in self.lookups]
        begin = self.lookups[0].table.column
        onto = self._by_embedded[:rows]
        product = self._product(rows, delta, self._factor(first)[begin : first.inputs].T, onto)
        gradients = [
            lookup.backward(batch, counters, onto, lookup.table.column - begin) for lookup in self.lookups
        ]
        return [product, *gradients]

    def _product_and_relu(self, rows: int, x: Array, stage: Stage, buffers: _Buffers) -> Operation | None:
        # The epilogue adds a bias of the result's type: float32 outputs of factors in 16 bits go without.
        if not self._is_plain_relu(stage) or (self._half is not None and stage is self._stages[-1]):
            return None
        bits = None if buffers.bits is None else buffers.bits[:rows]
        bias = self._bias(stage) if self._copies is None else self._copies.view(f"layers.{stage.layer}.bias")
        operation = self._backend.matmul_relu(x, self._factor(stage), bias, buffers.a[:rows], bits)
        if operation is not None:
            self.products.setdefault(rows, []).append(operation)
            self._whole.setdefault(rows, set()).add(stage.index)
        return operation

    def _product_and_relu_gradient(
        self, rows: int, delta: Array, stage: Stage, below: Stage, onto: Array
    ) -> Operation | None:
        if stage.layer is None or below.index not in self._whole.get(rows, ()):
            return None
        bits = self._buffers[below.index].bits
        if bits is None:
            return None
        operation = self._backend.matmul_relu_gradient(
            delta, self._factor(stage).T, bits[:rows], onto, self._bias(below, self.gradients)
        )
        if operation is not None:
            self.products.setdefault(rows, []).append(operation)
        return operation

    def _product(self, rows: int, a: Array, b: Array, out: Array) -> Operation:
        operation = self._backend.matmul(a, b, out)
        self.products.setdefault(rows, []).append(operation)
        return operation

    def _fused(self, stage: Stage) -> bool:
        """Whether the loss kernel adds this stage's bias and sums its gradient."""
        return self._training and stage is self._stages[-1] and stage.plain and stage.bias

    def _delta(self, stage: Stage, rows: int) -> Array:
        if self._last_delta is not None and stage is self._stages[-1]:
            return self._last_delta[:rows]
        width = self._width(stage)
        return self._deltas[stage.index % 2][: rows * width].reshape(rows, width)

    def _factor(self, stage: Stage) -> Array:
        """Return the weights as the products take them."""
        return (
            self._weight(stage) if self._copies is None else self._copies.view(f"layers.{stage.layer}.weight")
        )

    def _weight(self, stage: Stage, flat: Array | None = None) -> Array:
        return self._arena.view(f"layers.{stage.layer}.weight", flat)

    def _bias(self, stage: Stage, flat: Array | None = None) -> Array | None:
        return self._arena.view(f"layers.{stage.layer}.bias", flat) if stage.bias else None

    def _forward_kernel(
        self, stage: Stage, buffers: _Buffers, rows: int, counters: Array, seed: int, dropout: float
    ) -> Operation:
        constants = {"BIAS": stage.bias, "DROPOUT": dropout > 0, "KEEP_Z": buffers.a is not buffers.z}
        constants["SHARD"] = self._row_offset is not None
        arguments = {
            "z": self._cut(buffers.z[:rows], stage),
            "a": self._cut(buffers.a[:rows], stage),
            "bias": self._bias(stage),
            "mask": None if buffers.mask is None else buffers.mask[:rows],
            "counters": counters,
            "layer": stage.index,
            "key0": seed & 0xFFFFFFFF,
            "key1": seed >> 32,
            "threshold": min(round(dropout * 2**32), 2**32 - 1),
            "kept_scale": 1.0 / (1.0 - dropout),
            "row_offset": self._row_offset or 0,
        }
        formulas = {"activation": stage.function.value}
        return self._backend.kernel("forward", self._arena.dtype, formulas, constants, arguments)

    def _backward_kernel(self, stage: Stage, delta: Array, rows: int) -> Operation:
        function = stage.function
        buffers = self._buffers[stage.index]
        constants = {"BIAS": stage.bias, "DROPOUT": stage.dropout > 0, "FROM_Z": function.needs_z}
        arguments = {
            "delta": self._cut(delta, stage),
            "z": self._cut(buffers.z[:rows], stage),
            "a": self._cut(buffers.a[:rows], stage),
            "mask": None if buffers.mask is None else buffers.mask[:rows],
            "bias_gradient": self._bias(stage, self.gradients),
            "kept_scale": 1.0 / (1.0 - stage.dropout),
            "keep": 1.0 - stage.dropout,
        }
        formulas = {"activation_derivative": function.derivative}
        return self._backend.kernel("backward", self._arena.dtype, formulas, constants, arguments)
