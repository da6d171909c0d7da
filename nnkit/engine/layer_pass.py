"""The arrays of one layer in one pass, and the chain of layers: forward, then backward in reverse order."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from nnkit.backends.operations import Array, Copy, Kernel, Operation
from nnkit.engine.places import Place, Shape, leaves, width_of
from nnkit.engine.workspace import RowGradient, Workspace
from nnkit.feed.batch import BagRows, Batch

__all__ = ["Chain", "LayerPass", "PassInputs"]


@dataclass(frozen=True)
class PassInputs:
    """What all layers of a pass read.

    Parameters
    ----------
    batch : Batch
        The rows.
    counters : array
        The step's counters; random draws are a function of them.
    seed : int
        The key of the draws.
    row_offset : int or None
        For a shard: the position of its first row in the batch.
    dropout_factors : array of shape (steps_per_epoch,), float64, or None
        The factor of the rates of dropout in each step; None if they do not change.
    """

    batch: Batch
    counters: Array
    seed: int
    row_offset: int | None = None
    dropout_factors: Array | None = None


class LayerPass:
    """A layer's part of a pass: the arrays that its operations work on.

    Arrays with a row for each sample may have columns of padding, which products include; `cut` drops them.

    Attributes
    ----------
    place : Place
        The layer, with its name and shapes.
    inputs : PassInputs
        What all layers read.
    rows : int
        The rows of the batch.
    x : array of shape (rows, columns)
        The layer's inputs, once the forward pass is prepared.
    training, drops : bool
        Whether a backward pass follows, and whether dropout is active.
    is_last : bool
        Whether the layer's outputs are the network's, or those of a member of an ensemble.
    joins : bool
        Whether an ensemble joins its members' outputs, which the loss reads one by one in a training step.
    members : int
        The rows of outputs that the layer leaves to the loss for each of the batch's rows. Set by the forward
        pass.
    branches : list of Chain
        For a container: each copy of the layers in it.
    loss_adds_bias : bool
        Whether the layer may leave its bias, and the bias gradient, to the loss's kernel.
    deferred_bias : str or None
        The name of the bias that the layer leaves to the loss.
    wants_input_gradient : bool
        Whether the derivative with respect to the layer's inputs is needed. Set by the backward pass.
    embedded_columns : slice or None
        The columns of the inputs that hold embedded vectors, if the derivative is needed for these columns
        only. Set by the backward pass.
    first_column : int
        The column of the layer's outputs at which `delta` begins. Set by the backward pass.
    wants_parameters : bool
        Whether the gradients of the layer's parameters are needed. Set by the backward pass.
    onto : array or None
        The array for the derivative with respect to the inputs, if it is given. Set by the backward pass.
    """

    x: Array

    def __init__(
        self, workspace: Workspace, place: Place, inputs: PassInputs, is_last: bool, is_alone: bool = True
    ) -> None:
        self._workspace = workspace
        self.place = place
        self.inputs = inputs
        self.rows = inputs.batch.capacity
        self.training = workspace.training
        self.drops = workspace.drops
        self.is_last = is_last
        self.joins = workspace.joins
        self.members = 1
        self.loss_adds_bias = is_last and is_alone and workspace.training
        branches = place.branches
        ends = is_last and len(branches) > 1
        self.branches = [Chain(workspace, branch, inputs, ends, not ends) for branch in branches]
        self.wants_input_gradient = False
        self.embedded_columns: slice | None = None
        self.first_column = 0
        self.wants_parameters = True
        self.onto: Array | None = None
        self.deferred_bias: str | None = None
        self.buffers: list[tuple[str, Array]] = []  # that `buffer` returned

    # Parameters.

    @property
    def dtype(self) -> np.dtype:
        """The type of the arithmetic."""
        return self._workspace.arena.dtype

    def value(self, name: str) -> Array:
        """Return a parameter."""
        return self._workspace.arena.view(self.place.parameter_name(name))

    def factor(self, name: str) -> Array:
        """Return a parameter as an operand of products: in mixed precision in 16 bits, with padding."""
        half = self._workspace.half
        if half is None:
            return self.value(name)
        return self._workspace.arena.in_half(half).view(self.place.parameter_name(name))

    def summand(self, name: str, dtype: DTypeLike | None = None) -> Array:
        """Return a vector in the type of the array it is added to, by default that of activations."""
        if self._workspace.half is None or dtype == self.dtype:
            return self.value(name)
        return self.factor(name)[: self.value(name).shape[0]]

    def gradient(self, name: str) -> Array:
        """Return the array for a parameter's gradient."""
        return self._workspace.arena.view(self.place.parameter_name(name), self._workspace.gradients)

    def trains(self, name: str) -> bool:
        """Return whether a parameter is trained in this pass."""
        return self.training and self._workspace.arena.segment(self.place.parameter_name(name)).trains

    @property
    def trains_any(self) -> bool:
        """Whether any parameter of the layer, or of the layers in it, is trained."""
        names = (name for place in leaves([self.place]) for name in place.parameters)
        return any(self._workspace.arena.segment(name).trains for name in names)

    def row_gradient(self, name: str) -> RowGradient:
        """Return the gradient of the table's rows that the batch looks up."""
        return self._workspace.row_gradient(self.place.parameter_name(name), self.place.first_bag)

    # Arrays.

    @property
    def bag(self) -> BagRows:
        """The bags of ids that the layer reads, one for each row."""
        return self.inputs.batch.bags[self.place.first_bag]

    @property
    def most_tokens(self) -> int:
        """The maximum number of ids, in all of these bags together, of any batch; at least 1."""
        return max(1, self._workspace.most_tokens[self.place.first_bag])

    @property
    def capacity(self) -> int:
        """The nominal batch size."""
        return self._workspace.capacity

    def buffer(self, name: str, width: int, dtype: DTypeLike | None = None, pads: bool = True) -> Array:
        """Return the layer's array of this name, (rows, width plus padding), the same in both passes.

        `dtype` is by default the type of activations; without `pads` there is no padding.
        """
        space = self._workspace
        kind, padded = space.dtype if dtype is None else dtype, pads and space.half is not None
        columns = space.padded(width) if pads else width
        whole = space.buffer(self.place.index, name, (columns,), kind, padded)
        self.buffers.append((name, whole[: self.rows]))
        return self.buffers[-1][1]

    def padded(self, width: int) -> int:
        """Return the number of columns of an array of products with this width."""
        return self._workspace.padded(width)

    def exact_buffer(self, name: str, shape: Shape, dtype: DTypeLike) -> Array:
        """Return the layer's array of this name, (rows, *shape), without padding."""
        return self._workspace.buffer(self.place.index, name, shape, dtype)[: self.rows]

    def scratch(self, name: str, shape: int | Shape, dtype: DTypeLike) -> Array:
        """Return the layer's array of this name, initially zero, of a shape independent of the rows."""
        return self._workspace.scratch(self.place.index, name, shape, dtype)

    def constant(self, name: str, values: NDArray) -> Array:
        """Return the layer's read-only array of this name on the device; the same at each call."""
        return self._workspace.constant(self.place.index, name, values)

    @property
    def output_dtype(self) -> np.dtype:
        """The type of the layer's outputs: the network's outputs are not rounded to 16 bits."""
        return self.dtype if self.is_last else self._workspace.dtype

    @property
    def width(self) -> int:
        """The number of columns of the layer's outputs."""
        return width_of(self.place.outputs)

    def cut(self, array: Array, width: int | None = None) -> Array:
        """Return an array without its padding; `width` is by default that of the layer's outputs."""
        width = self.width if width is None else width
        return array if array.shape[1] == width else array[:, :width]

    def input_gradient(self) -> Array:
        """Return an array for the derivative with respect to the inputs, or to their `embedded_columns`."""
        if self.onto is not None:
            return self.onto
        if self.embedded_columns is not None:
            # Embedding tables are float32, and so is the array that their gradient is summed from.
            width = self.embedded_columns.stop - self.embedded_columns.start
            return self.exact_buffer("input gradient", (width,), self.dtype)
        return self.take(width_of(self.place.inputs))

    def take(self, width: int) -> Array:
        """Return an array for a derivative, (rows, width plus padding), reserved until it is released."""
        return self._workspace.take(self.rows, self._workspace.padded(width))

    def release(self, array: Array) -> None:
        """Give back an array of `take` or `input_gradient`."""
        self._workspace.release(array)

    def kernel(
        self,
        name: str,
        formulas: Mapping[str, Callable],
        constants: Mapping[str, bool | int | float],
        arguments: Mapping[str, Any],
    ) -> Kernel:
        """Return a kernel in the arithmetic of the pass."""
        return Kernel(name, self.dtype, formulas, constants, arguments)


class Chain:
    """Layers that run one after the other.

    Attributes
    ----------
    layers : list of LayerPass
        Each layer's part of the pass.
    home : (int, str) or None
        The array that holds the chain's inputs, as a layer's index and a name; None for the batch's inputs.
    outputs : array
        The last layer's outputs, once the forward pass is prepared.
    """

    outputs: Array

    def __init__(
        self,
        workspace: Workspace,
        places: Sequence[Place],
        inputs: PassInputs,
        is_last: bool = False,
        is_alone: bool = True,
    ) -> None:
        self._workspace = workspace
        self.home: tuple[int, str] | None = None
        self.layers = [
            LayerPass(workspace, place, inputs, is_last and place is places[-1], is_alone) for place in places
        ]

    def forward(self, x: Array) -> tuple[list[Operation], Array]:
        """Return the operations of all layers, and the last one's outputs."""
        operations: list[Operation] = []
        home = self.home
        for layer_pass in self.layers:
            place = layer_pass.place
            layer_pass.x = x
            for branch in layer_pass.branches:
                branch.home = home
            done, x = place.layer.forward(layer_pass, x)
            operations += done
            name = next((name for name, buffer in layer_pass.buffers if buffer is x), None)
            if name is None and x is not layer_pass.x:
                kind = type(place.layer).__name__
                raise TypeError(f"{kind}.forward must return its inputs or an array from `LayerPass.buffer`")
            home = home if name is None else (place.index, name)
            self._workspace.homes[place.index] = home
        self.outputs = x
        return operations, x

    def backward(
        self, delta: Array, everything: bool, by_inputs: Array | None = None, parameters: bool = True
    ) -> tuple[list[Operation], Array]:
        """Return the operations of the backward pass, and the derivative with respect to the inputs.

        Parameters
        ----------
        delta : array
            The derivative with respect to the outputs; it may be changed.
        everything : bool
            Whether the derivative with respect to the inputs is needed.
        by_inputs : array, optional
            The array to write that derivative to.
        parameters : bool
            Whether the gradients of the parameters are needed.
        """
        operations: list[Operation] = []
        first_column = 0
        self._mark_wanted(everything)
        for layer_pass in reversed(self.layers):
            layer, trains = layer_pass.place.layer, layer_pass.trains_any
            if not layer_pass.wants_input_gradient and not trains and not layer.bags:
                break  # nothing below is needed either
            layer_pass.first_column, layer_pass.wants_parameters = first_column, parameters and trains
            layer_pass.onto = by_inputs if layer_pass is self.layers[0] else None
            done, onward = layer.backward(layer_pass, delta)
            operations += done
            if onward is not delta:
                self._workspace.release(delta)
                columns = layer_pass.embedded_columns
                if columns is not None and onward.shape[1] == columns.stop - columns.start:
                    first_column = columns.start
            delta = onward
        if by_inputs is not None and delta is not by_inputs:
            operations.append(Copy(delta, by_inputs))
        return operations, delta

    def _mark_wanted(self, everything: bool) -> None:
        """Set `wants_input_gradient` and `embedded_columns` of each layer."""
        embeds = trains = False  # whether an embedding below trains, or another layer below
        only_embeddings_below = True  # embeddings only append columns to their inputs
        for layer_pass in self.layers:
            layer_pass.embedded_columns = None
            if layer_pass.place.layer.bags:
                layer_pass.wants_input_gradient = everything
                embeds = embeds or layer_pass.trains_any
                continue
            layer_pass.wants_input_gradient = everything or trains or embeds
            only_embedded = embeds and only_embeddings_below and not everything
            if only_embedded:
                first = width_of(self.layers[0].place.inputs)
                layer_pass.embedded_columns = slice(first, width_of(layer_pass.place.inputs))
            only_embeddings_below = False
            trains = trains or layer_pass.trains_any
