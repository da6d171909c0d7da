"""The forward and the backward pass of a network as lists of operations over preallocated arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from nnkit.backends.operations import Array, Kernel, Operation
from nnkit.engine.layer_pass import Chain, PassInputs
from nnkit.engine.parameters import Arena
from nnkit.engine.places import Place, leaves, width_of
from nnkit.engine.precision import HalfPrecision
from nnkit.engine.workspace import Workspace
from nnkit.feed.batch import Batch
from nnkit.feed.source import RowSource

__all__ = ["LossKernel", "Passes"]


class LossKernel(Protocol):
    """What the engine asks of a loss."""

    @property
    def kernel(self) -> str:
        """The name of the fused kernel."""

    @property
    def formulas(self) -> Mapping[str, Callable]:
        """What the kernel inlines."""

    @property
    def kernel_constants(self) -> Mapping[str, bool | float]:
        """The kernel's flags and the formulas' further parameters."""


class Passes:
    """The arrays of a network for batches of up to `capacity` rows, and the operations over them.

    Parameters
    ----------
    places : sequence of Place
        The network.
    arena : Arena
        Its parameters.
    capacity : int
        The nominal batch.
    training : bool
        Whether what the backward pass needs is kept.
    drops : bool, optional
        Whether dropout drops; by default, where it trains.
    gradients : array of shape (size,), optional
        Where the gradient goes, in the arena's layout; an array of its own if not given.
    row_offset : int, optional
        Of a shard: where in the batch its rows begin.
    most_tokens : sequence of int
        For each of a row's bags, where it trains, the maximum number of ids in a batch.
    half : HalfPrecision, optional
        What weights, activations and their gradients are kept in, with sums, losses and the outputs in the
        arena's dtype; all of them in that if not given. Rows are then padded, with zeros that stay.

    Attributes
    ----------
    gradients : array of shape (size,)
        The gradient in the arena's layout, without tables; while training.
    row_gradients : list of RowGradient
        The gradients of tables that train, of the rows that the last batch saw.
    input_width : int
        The columns of the inputs, with what is embedded.
    """

    def __init__(
        self,
        places: Sequence[Place],
        arena: Arena,
        capacity: int,
        training: bool,
        drops: bool | None = None,
        gradients: Array | None = None,
        row_offset: int | None = None,
        most_tokens: Sequence[int] = (),
        half: HalfPrecision | None = None,
    ) -> None:
        self._places = tuple(places)
        self._arena = arena
        self._half = half
        self.row_offset = row_offset
        if training:
            self.gradients = arena.like_gradients() if gradients is None else gradients
        self._workspace = Workspace(
            arena,
            capacity,
            training,
            training if drops is None else drops,
            self.gradients if training else None,
            max(width_of(place.outputs) for place in leaves(places)),
            most_tokens,
            half,
        )
        self._last = self._places[-1]
        tables = [
            (name, place.first_bag)
            for place in (leaves(places) if training else ())
            for name, parameter in place.parameters.items()
            if parameter.role == "table" and arena.segment(name).trains
        ]
        self.row_gradients = [self._workspace.row_gradient(*table) for table in tables]
        self.input_width = next(width_of(one.inputs) for one in self._places if not one.layer.bags)

    @property
    def activation_bytes(self) -> int:
        """The memory of what the layers keep for the backward pass."""
        return self._workspace.nbytes

    def refresh(self) -> list[Operation]:
        """Return the operations that round the parameters to 16 bits, where products take them so."""
        return [] if self._half is None else [self._arena.in_half(self._half).refresh()]

    def batch_of(self, rows: RowSource, capacity: int | None = None) -> Batch:
        """Return an empty batch for rows, with columns for what is embedded beside them and for padding."""
        space = self._workspace
        columns = space.padded(self.input_width)
        return rows.batch(capacity or space.capacity, self.input_width, columns, space.dtype)

    def outputs(self, rows: int) -> Array:
        """The network's outputs, (rows, outputs); while training, without the bias that the loss adds."""
        outputs, _ = self.layer_outputs(self._last, rows)
        return outputs

    def layer_outputs(self, place: Place, rows: int) -> tuple[Array | None, Array | None]:
        """Return what a layer's last forward pass left, (rows, units), and which of it dropout kept.

        None where the layer has no array of its own, or drops nothing.
        """
        space, width = self._workspace, width_of(place.outputs)
        home = space.homes[place.index]
        found = [None if home is None else space.kept(*home, rows), space.kept(place.index, "mask", rows)]
        outputs, mask = (None if array is None else array[:, :width] for array in found)
        return outputs, mask

    def forward(self, batch: Batch, counters: Array, seed: int) -> list[Operation]:
        """Return the forward pass.

        Parameters
        ----------
        batch : Batch
            Its rows are the pass's.
        counters : array
            The step's counters, which random draws are a function of.
        seed : int
            The key of the draws.
        """
        inputs = PassInputs(batch, counters, seed, self.row_offset)
        self._chain = Chain(self._workspace, self._places, inputs, is_last=True)
        operations, _ = self._chain.forward(batch.inputs)
        return operations

    def loss(
        self,
        loss: LossKernel,
        batch: Batch,
        scalars: Array,
        nominal: int,
        by_rows: bool = False,
        scaling: Array | None = None,
    ) -> Operation:
        """Return the loss of the batch and, when training, its gradient by the outputs.

        With `scaling`, the loss scale's state, the gradient is multiplied by the scale.
        """
        last, space = self._chain.layers[-1], self._workspace
        outputs = self.outputs(batch.capacity)
        bias = last.deferred_bias
        space.release_all()
        if space.training:
            self._delta = self._loss_gradient(batch.capacity)
            gradient = last.cut(self._delta)
        else:  # the softmax still needs rows to work in
            gradient = self._arena.backend.empty(outputs.shape, outputs.dtype)
        constants: dict[str, bool | int | float] = {
            "BIAS": bias is not None,
            "BY_ROWS": by_rows,
            "GRADIENT": space.training,
            "RESCALED": scaling is not None,
            "WEIGHTED": batch.weights is not None,
            "INDICES": batch.labels is not None and batch.labels.ndim == 1,
            **loss.kernel_constants,
        }
        arguments: dict[str, Any] = {
            "outputs": outputs,
            "bias": None if bias is None else last.value(bias),
            "bias_gradient": None if bias is None else last.gradient(bias),
            "labels": batch.labels,
            "batch_weights": batch.weights,
            "count": batch.count,
            "gradient": gradient,
            "row": self._arena.backend.empty(outputs.shape[1], self._arena.dtype),
            "scalars": scalars,
            "scaling": scaling,
            "batch_size": nominal,
        }
        return Kernel(loss.kernel, self._arena.dtype, loss.formulas, constants, arguments)

    def _loss_gradient(self, rows: int) -> Array:
        """Return where the derivative by the outputs goes.

        The loss fills the columns of its outputs alone: the padding beside them must be zero.
        """
        space, width = self._workspace, width_of(self._last.outputs)
        if self._half is None:
            return space.take(rows, width)
        return space.buffer(self._last.index, "loss gradient", (space.padded(width),), space.dtype, True)[
            :rows
        ]

    def backward(self, by_inputs: Array | None = None) -> list[Operation]:
        """Return the backward pass, from the gradient that `loss` leaves to that of every parameter.

        It follows the last `forward` and `loss`.

        Parameters
        ----------
        by_inputs : array of shape (rows, inputs), optional
            Where the derivative by the inputs goes; it is then wanted in place of the parameters' gradients.
        """
        operations, _ = self._chain.backward(
            self._delta, by_inputs is not None, by_inputs, parameters=by_inputs is None
        )
        return operations
