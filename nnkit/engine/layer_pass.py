"""What one layer works on in one pass, and how layers are chained: forward, then backward in reverse."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from nnkit.backends.operations import Array, Copy, Kernel, Operation
from nnkit.engine.places import Parameter, Place, Shape, leaves, width_of
from nnkit.engine.workspace import RowGradient, Workspace
from nnkit.feed.batch import BagRows, Batch

__all__ = ["Chain", "Layer", "LayerPass", "PassInputs"]


class Layer(Protocol):
    """What the engine asks of a layer."""

    bags: int
    """How many of a row's bags of ids it reads; such layers stand first."""

    def parameters(self, shape: Shape) -> Mapping[str, Parameter]:
        """Return its parameters by name, for rows of a shape."""

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        """Return the operations that compute its outputs from its inputs, and the array of the outputs."""

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        """Return the operations from the derivative by its outputs to that by its inputs, and its array.

        They also compute the gradients of its parameters. `delta` may be changed in place and returned.
        """


@dataclass(frozen=True)
class PassInputs:
    """What all layers of a pass read.

    Parameters
    ----------
    batch : Batch
        Its rows are the pass's.
    counters : array
        The step's counters, which random draws are a function of.
    seed : int
        The key of the draws.
    row_offset : int or None
        Of a shard: where in the batch its rows begin.
    """

    batch: Batch
    counters: Array
    seed: int
    row_offset: int | None = None


class LayerPass:
    """A layer's part of a pass: the arrays that its operations work on.

    Arrays of rows may have columns of padding, which products take along; `cut` leaves them out.

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
        Whether a backward pass follows, and whether dropout drops.
    is_last : bool
        Whether the outputs are the network's.
    loss_adds_bias : bool
        Whether the loss's kernel may add the layer's bias, and sum its gradient, in place of the layer.
    deferred_bias : str or None
        The name of the bias that it leaves to the loss.
    wanted : bool
        Whether the derivative by its inputs is wanted. Known backwards.
    embedded : slice or None
        The columns of its inputs that bags were embedded in, where the derivative by these alone is wanted.
        Known backwards.
    first_column : int
        The column of its outputs that the first one of its `delta` stands for. Known backwards.
    wants_parameters : bool
        Whether the gradients of its parameters are wanted. Known backwards.
    """

    x: Array

    def __init__(self, workspace: Workspace, place: Place, inputs: PassInputs, is_last: bool) -> None:
        self._workspace = workspace
        self.place = place
        self.inputs = inputs
        self.rows = inputs.batch.capacity
        self.training = workspace.training
        self.drops = workspace.drops
        self.is_last = is_last
        self.loss_adds_bias = is_last and workspace.training
        self.children = Chain(workspace, place.children, inputs)
        self.wanted = False
        self.embedded: slice | None = None
        self.first_column = 0
        self.wants_parameters = True
        self.onto: Array | None = None
        self.deferred_bias: str | None = None
        self._buffers: list[tuple[str, Array]] = []

    # Parameters.

    @property
    def dtype(self) -> np.dtype:
        """The type of the arithmetic."""
        return self._workspace.arena.dtype

    def value(self, name: str) -> Array:
        """Return a parameter."""
        return self._workspace.arena.view(self.place.parameter_name(name))

    def factor(self, name: str) -> Array:
        """Return a parameter as products take it: in mixed precision in 16 bits, with padding."""
        half = self._workspace.half
        if half is None:
            return self.value(name)
        return self._workspace.arena.in_half(half).view(self.place.parameter_name(name))

    def summand(self, name: str, dtype: DTypeLike | None = None) -> Array:
        """Return a vector in the type of what it is added to, by default that of activations."""
        if self._workspace.half is None or dtype == self.dtype:
            return self.value(name)
        return self.factor(name)[: self.value(name).shape[0]]

    def gradient(self, name: str) -> Array:
        """Return where the gradient of a parameter goes."""
        return self._workspace.arena.view(self.place.parameter_name(name), self._workspace.gradients)

    def trains(self, name: str) -> bool:
        """Return whether a parameter is trained in this pass."""
        return self.training and self._workspace.arena.segment(self.place.parameter_name(name)).trains

    @property
    def trains_any(self) -> bool:
        """Whether one of its parameters, or of those of the layers in it, is trained."""
        names = (name for place in leaves([self.place]) for name in place.parameters)
        return any(self._workspace.arena.segment(name).trains for name in names)

    def row_gradient(self, name: str) -> RowGradient:
        """Return the gradient of those rows of a table that the batch's bag names."""
        return self._workspace.row_gradient(self.place.parameter_name(name), self.place.first_bag)

    # Arrays.

    @property
    def bag(self) -> BagRows:
        """The bag of ids that the layer reads."""
        return self.inputs.batch.bags[self.place.first_bag]

    @property
    def most_tokens(self) -> int:
        """The maximum number of ids in the bags of a batch, at least 1."""
        return max(1, self._workspace.most_tokens[self.place.first_bag])

    @property
    def capacity(self) -> int:
        """The nominal batch."""
        return self._workspace.capacity

    def buffer(self, name: str, width: int, dtype: DTypeLike | None = None) -> Array:
        """Return an array of the layer's own, (rows, width and padding), which lives as long as the pass.

        Parameters
        ----------
        name : str
            The same name is the same array.
        width : int
            The columns without their padding.
        dtype : dtype, optional
            By default, what activations are kept in.
        """
        space = self._workspace
        kind, padded = space.dtype if dtype is None else dtype, space.half is not None
        whole = space.buffer(self.place.index, name, (space.padded(width),), kind, padded)
        self._buffers.append((name, whole[: self.rows]))
        return self._buffers[-1][1]

    def name_of(self, array: Array) -> str | None:
        """Return the name of one of the arrays that `buffer` returned; None if it is another."""
        return next((name for name, buffer in self._buffers if buffer is array), None)

    def exact_buffer(self, name: str, shape: Shape, dtype: DTypeLike) -> Array:
        """Return an array of the layer's own of shape (rows, *shape), without padding."""
        return self._workspace.buffer(self.place.index, name, shape, dtype)[: self.rows]

    def scratch(self, name: str, shape: int | Shape, dtype: DTypeLike) -> Array:
        """Return zeros of the layer's own, whatever the rows; the same name is the same array."""
        return self._workspace.scratch(self.place.index, name, shape, dtype)

    @property
    def output_dtype(self) -> np.dtype:
        """The type of the layer's outputs: the network's are not rounded to 16 bits."""
        return self.dtype if self.is_last else self._workspace.dtype

    @property
    def width(self) -> int:
        """The columns of the layer's outputs."""
        return width_of(self.place.outputs)

    def cut(self, array: Array, width: int | None = None) -> Array:
        """Return an array without its padding; by default one with the columns of the layer's outputs."""
        width = self.width if width is None else width
        return array if array.shape[1] == width else array[:, :width]

    def input_gradient(self) -> Array:
        """Return where the derivative by the layer's inputs may go: all of them, or those `embedded`."""
        if self.onto is not None:
            return self.onto
        if self.embedded is not None:
            # Vectors of tables are float32, and so is what their gradient is summed from.
            width = self.embedded.stop - self.embedded.start
            return self.exact_buffer("input gradient", (width,), self.dtype)
        return self.take(width_of(self.place.inputs))

    def take(self, width: int) -> Array:
        """Return an array for a derivative, (rows, width and padding), until it is released."""
        return self._workspace.take(self.rows, self._workspace.padded(width))

    def release(self, array: Array) -> None:
        """Give back what `take` or `input_gradient` returned."""
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
    """Layers one after the other.

    Parameters
    ----------
    workspace : Workspace
        Their arrays.
    places : sequence of Place
        The layers.
    inputs : PassInputs
        What all of them read.
    is_last : bool
        Whether the outputs are the network's.

    Attributes
    ----------
    layers : list of LayerPass
        Their parts of the pass.
    home : (int, str) or None
        Where the inputs are: the index of a layer and the name of its array; None for the batch's.
    """

    def __init__(
        self, workspace: Workspace, places: Sequence[Place], inputs: PassInputs, is_last: bool = False
    ) -> None:
        self._workspace = workspace
        self.home: tuple[int, str] | None = None
        self.layers = [
            LayerPass(workspace, place, inputs, is_last and place is places[-1]) for place in places
        ]

    def forward(self, x: Array) -> tuple[list[Operation], Array]:
        """Return the operations of all layers, and the last one's outputs."""
        operations: list[Operation] = []
        home = self.home
        for at in self.layers:
            at.x, at.children.home = x, home
            done, x = at.place.layer.forward(at, x)
            operations += done
            name = at.name_of(x)
            if name is None and x is not at.x:
                kind = type(at.place.layer).__name__
                raise TypeError(f"{kind}.forward must return its inputs or an array of `at.buffer`")
            home = home if name is None else (at.place.index, name)
            self._workspace.homes[at.place.index] = home
        return operations, x

    def backward(
        self, delta: Array, everything: bool, by_inputs: Array | None = None, parameters: bool = True
    ) -> tuple[list[Operation], Array]:
        """Return the operations from the derivative by the outputs down to the inputs, and where that ends.

        Parameters
        ----------
        delta : array
            The derivative by the outputs; it may be changed.
        everything : bool
            Whether the derivative by the inputs is wanted.
        by_inputs : array, optional
            Where that shall go.
        parameters : bool
            Whether the gradients of the parameters are wanted.
        """
        operations: list[Operation] = []
        first_column = 0
        for at, (wanted, embedded) in zip(
            reversed(self.layers), reversed(self._wanted(everything)), strict=True
        ):
            if not wanted and not at.trains_any and not at.place.layer.bags:
                break  # nor does anything below
            at.wanted, at.embedded = wanted, embedded
            at.first_column, at.wants_parameters = first_column, parameters and at.trains_any
            at.onto = by_inputs if at is self.layers[0] else None
            done, onward = at.place.layer.backward(at, delta)
            operations += done
            if onward is not delta:
                self._workspace.release(delta)
                if embedded is not None and onward.shape[1] == embedded.stop - embedded.start:
                    first_column = embedded.start
            delta = onward
        if by_inputs is not None and delta is not by_inputs:
            operations.append(Copy(delta, by_inputs))
        return operations, delta

    def _wanted(self, everything: bool) -> list[tuple[bool, slice | None]]:
        """Return for each layer `LayerPass.wanted` and `LayerPass.embedded`."""
        wanted: list[tuple[bool, slice | None]] = []
        embeds = trains = False  # whether anything below does
        through = True  # whether all layers below only add columns, from their bags
        for at in self.layers:
            if at.place.layer.bags:
                wanted.append((everything, None))
                embeds = embeds or at.trains_any
                continue
            alone = embeds and through and not everything
            columns = slice(width_of(self.layers[0].place.inputs), width_of(at.place.inputs))
            wanted.append((everything or trains or embeds, columns if alone else None))
            through = False
            trains = trains or at.trains_any
        return wanted
