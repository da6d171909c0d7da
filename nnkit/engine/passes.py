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
from nnkit.feed.batch import Batch, Rows

__all__ = ["LossKernel", "Passes"]


class LossKernel(Protocol):
    """The part of a loss's interface that the engine needs; see `nnkit.nn.losses.Loss`."""

    @property
    def kernel(self) -> str: ...

    @property
    def formulas(self) -> Mapping[str, Callable]: ...

    @property
    def kernel_constants(self) -> Mapping[str, bool | float]: ...


class Passes:
    """The arrays of a network for batches of up to `capacity` rows, and the operations over them.

    Parameters
    ----------
    places, arena
        The network and its parameters.
    capacity : int
        The nominal batch size.
    training : bool
        Whether a backward pass follows, for which the layers keep arrays.
    drops : bool, optional
        Whether dropout is active; by default, while training.
    gradients : array of shape (size,), optional
        The array for the gradient, in the arena's layout; allocated if not given.
    row_offset : int, optional
        For a shard: the position of its first row in the batch.
    most_tokens : sequence of int
        For each of a row's bags, the maximum number of ids in a batch; needed for tables that train.
    half : HalfPrecision, optional
        The 16-bit type of weights, activations and their gradients; sums, losses and the network's outputs
        stay in the arena's dtype. Rows then have padding, which stays zero.
    joins : bool, optional
        Whether an ensemble joins its members' outputs to one prediction; by default, unless training.

    Attributes
    ----------
    gradients : array of shape (size,)
        The gradient in the arena's layout, without tables; while training.
    row_gradients : list of RowGradient
        The gradients of the tables that train, for the rows that the last batch looked up.
    input_width : int
        The columns of the first layer's inputs, embedded vectors included.
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
        joins: bool | None = None,
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
            not training if joins is None else joins,
        )
        self._last = self._places[-1]
        self.row_gradients = [
            self._workspace.row_gradient(name, place.first_bag)
            for place in (leaves(places) if training else ())
            for name, parameter in place.parameters.items()
            if parameter.role == "table" and arena.segment(name).trains
        ]
        self.input_width = next(width_of(one.inputs) for one in self._places if not one.layer.bags)

    @property
    def activation_bytes(self) -> int:
        """The memory of the arrays that the layers keep for the backward pass."""
        return self._workspace.nbytes

    def refresh(self) -> list[Operation]:
        """Return the operations that round the parameters to 16 bits; none without mixed precision."""
        return [] if self._half is None else [self._arena.in_half(self._half).refresh()]

    def batch_of(self, rows: Rows) -> Batch:
        """Return an empty batch for rows, with columns for embedded vectors and for padding."""
        space = self._workspace
        return rows.batch(space.capacity, self.input_width, space.padded(self.input_width), space.dtype)

    def outputs(self, rows: int) -> Array:
        """The network's outputs, (rows, outputs); while training, without the bias that the loss adds."""
        outputs, _ = self.layer_outputs(self._last, rows)
        return outputs

    def layer_outputs(self, place: Place, rows: int) -> tuple[Array | None, Array | None]:
        """Return a layer's outputs in the last forward pass, (rows, units), and the mask of its dropout.

        None for outputs that are not kept, and for a layer without dropout.
        """
        space, width = self._workspace, width_of(place.outputs)
        home = space.homes[place.index]
        found = [None if home is None else space.kept(*home, rows), space.kept(place.index, "mask", rows)]
        outputs, mask = (None if array is None else array[:, :width] for array in found)
        return outputs, mask

    def forward(
        self, batch: Batch, counters: Array, seed: int, dropout_factors: Array | None = None
    ) -> list[Operation]:
        """Return the forward pass over a batch; the other arguments as in `PassInputs`."""
        inputs = PassInputs(batch, counters, seed, self.row_offset, dropout_factors)
        self._chain = Chain(self._workspace, self._places, inputs, is_last=True)
        operations, _ = self._chain.forward(batch.inputs)
        return operations

    def loss(
        self,
        loss: LossKernel,
        batch: Batch,
        scalars: Array,
        nominal: int,
        average_rows: bool = False,
        scaling: Array | None = None,
    ) -> Operation:
        """Return the loss of the batch and, when training, its gradient with respect to the outputs.

        With `scaling`, the state of the loss scale, the gradient is multiplied by the scale.
        """
        last, space = self._chain.layers[-1], self._workspace
        members, bias = last.members, last.deferred_bias
        outputs = self._for_loss(self._chain.outputs)
        space.release_all()
        if not space.training:  # the softmax still needs rows to work in
            gradient = self._arena.backend.empty(outputs.shape, outputs.dtype)
        else:
            if self._half is None or members > 1:
                self._delta = space.take(batch.capacity, members * last.width)
            else:  # the loss does not write the padding, which must stay zero
                name, columns = "loss gradient", (space.padded(last.width),)
                whole = space.buffer(self._last.index, name, columns, space.dtype, zeroed=True)
                self._delta = whole[: batch.capacity]
            gradient = self._for_loss(self._delta)
        constants: dict[str, bool | int | float] = {
            "BIAS": bias is not None,
            "AVERAGE_ROWS": average_rows,
            "GRADIENT": space.training,
            "MEMBERS": members > 1,
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
            "members": members,
        }
        return Kernel(loss.kernel, self._arena.dtype, loss.formulas, constants, arguments)

    def _for_loss(self, array: Array) -> Array:
        """Return an array of the last layer with a row for each prediction; members' have no padding."""
        last = self._chain.layers[-1]
        return last.cut(array) if last.members == 1 else array.reshape(-1, last.width)

    def backward(self, by_inputs: Array | None = None) -> list[Operation]:
        """Return the backward pass, from the gradient that `loss` leaves to that of every parameter.

        It follows the last `forward` and `loss`. With `by_inputs`, an array of shape (rows, inputs), the
        derivative with respect to the inputs is computed in place of the parameters' gradients.
        """
        operations, _ = self._chain.backward(
            self._delta, by_inputs is not None, by_inputs, parameters=by_inputs is None
        )
        return operations
