"""Ensemble: members with the same layers and different weights, whose mean is the prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from nnkit.backends.operations import Array, Copy, Operation
from nnkit.checks import Choice, Whole
from nnkit.engine.layer_pass import Chain, LayerPass
from nnkit.engine.places import Shape, width_of
from nnkit.errors import ConfigError
from nnkit.feed.statistics import RowStatistics
from nnkit.kernels import layout
from nnkit.nn.layers.base import Layer
from nnkit.nn.layers.containers import Container
from nnkit.nn.losses import Link

__all__ = ["Ensemble"]

_MOST_MEMBERS = 1024
_LINKS: Mapping[Link, int] = {
    "identity": layout.IDENTITY,
    "sigmoid": layout.SIGMOID,
    "softmax": layout.SOFTMAX,
    "exp": layout.EXP,
}


@dataclass(frozen=True, init=False, repr=False)
class Ensemble(Container):
    """Members with the same layers, each with weights of its own; the last layer of a network.

    In a training step each member has its own loss, and the network's is their mean. Elsewhere the outputs
    are those of the mean of the members' predictions: of their probabilities, or of their values.

    All members read the same inputs. Only rows of shape (members, width) hold each member's own.

    Parameters
    ----------
    *layers : Layer
        A member's, from its inputs to its outputs.
    members : int
        The number of members, at least 2.
    link : {"identity", "sigmoid", "softmax", "exp"}
        From outputs to predictions, that of the loss.
    """

    members: int
    link: Link

    def __init__(self, *layers: Layer | Sequence[Layer], members: int, link: Link) -> None:
        super().__init__(*layers)
        object.__setattr__(self, "members", Whole(2, _MOST_MEMBERS)("Ensemble: members", members))
        object.__setattr__(self, "link", Choice(get_args(Link))("Ensemble: link", link))

    def __repr__(self) -> str:
        return f"{super().__repr__()[:-1]}, members={self.members}, link={self.link!r})"

    @property
    def copies(self) -> int:
        return self.members

    def inner_shape(self, shape: Shape) -> Shape:
        return shape[1:] if self._has_own(shape) else shape

    def _has_own(self, shape: Shape) -> bool:
        """Whether rows of a shape hold inputs of each member."""
        return len(shape) == 2 and shape[0] == self.members

    def output_shape(self, shape: Shape) -> Shape:
        return super().output_shape(self.inner_shape(shape))

    def prepared(self, statistics: RowStatistics) -> Layer:
        layers = [layer.prepared(statistics) for layer in self.layers]
        return Ensemble(layers, members=self.members, link=self.link)

    def to_json(self) -> dict[str, Any]:
        return {**super().to_json(), "members": self.members, "link": self.link}

    def describe(self) -> str:
        return f"{self.members} × {super().describe()}"

    def title(self) -> str:
        return f"Ensemble, {self.members} members"

    def check_link(self, link: str) -> None:
        if link != self.link:
            raise ConfigError(
                f"the Ensemble has link = {self.link!r}, and the loss has {link!r}: the mean of the members' "
                f"predictions would be wrong; give it link = {link!r}"
            )

    def forward(self, at: LayerPass, x: Array) -> tuple[list[Operation], Array]:
        operations: list[Operation] = []
        outputs = self._outputs(at)
        for member, branch in enumerate(at.branches):
            done, y = branch.forward(self._inputs(at, branch, member, operations))
            if y.dtype != outputs.dtype:
                raise ConfigError(
                    "in 16 bits, the layers of an Ensemble must end with a Dense; add one, or use fp32"
                )
            operations += [*done, Copy(at.cut(y), _part(outputs, member, at.width))]
        if not at.joins:
            at.members = self.members
            return operations, outputs
        joined = at.buffer("outputs", at.width, at.output_dtype)
        arguments = {"z": outputs, "outputs": at.cut(joined)}
        return [*operations, at.kernel("join_members", {}, {"LINK": _LINKS[self.link]}, arguments)], joined

    def backward(self, at: LayerPass, delta: Array) -> tuple[list[Operation], Array]:
        operations: list[Operation] = []
        apart = self._separated(at, delta, operations) if at.joins else delta
        total = self._input_gradient(at)
        for member, branch in enumerate(at.branches):
            # Each layer may change the derivative of its outputs, and reads its padding as zeros.
            own = at.buffer("derivative", at.width)
            operations.append(Copy(_part(apart, member, at.width), at.cut(own)))
            first = total if member == 0 and not self._has_own(at.place.inputs) else None
            done, onward = branch.backward(
                own, at.wants_input_gradient, first, parameters=at.wants_parameters
            )
            operations += done
            if at.wants_input_gradient and first is None:
                operations.append(self._added(at, member, onward, total))
                at.release(onward)
        if at.joins:
            at.release(apart)
        return operations, total if at.wants_input_gradient else delta

    def _outputs(self, at: LayerPass) -> Array:
        """Return the array of all members' outputs, one member after the other, without padding."""
        return at.buffer("members", self.members * at.width, at.output_dtype, pads=False)

    def _inputs(self, at: LayerPass, branch: Chain, member: int, operations: list[Operation]) -> Array:
        """Return the array of a member's inputs; its own are copied."""
        if not self._has_own(at.place.inputs):
            return at.x
        width, name = at.place.inputs[1], f"inputs {member}"
        own = at.buffer(name, width)
        branch.home = at.place.index, name
        operations.append(Copy(_part(at.x, member, width), at.cut(own, width)))
        return own

    def _separated(self, at: LayerPass, delta: Array, operations: list[Operation]) -> Array:
        """Return the derivative by the members' outputs, from that by the joined ones."""
        apart = at.take(self.members * at.width)
        arguments = {
            "z": self._outputs(at),
            "outputs": at.cut(at.buffer("outputs", at.width)),
            "delta": at.cut(delta),
            "z_gradient": at.cut(apart, self.members * at.width),
        }
        operations.append(at.kernel("join_gradient", {}, {"LINK": _LINKS[self.link]}, arguments))
        return apart

    def _input_gradient(self, at: LayerPass) -> Array | None:
        """Return the array for the derivative by all inputs, if it is wanted."""
        if not at.wants_input_gradient:
            return None
        return at.take(width_of(at.place.inputs)) if at.onto is None else at.onto

    def _added(self, at: LayerPass, member: int, part: Array, total: Array) -> Operation:
        """Return what adds a member's part to the derivative, or copies it to its own place."""
        if self._has_own(at.place.inputs):
            width = at.place.inputs[1]
            return Copy(at.cut(part, width), _part(total, member, width))
        width = width_of(at.place.inputs)
        return at.kernel("add", {}, {}, {"target": at.cut(total, width), "source": at.cut(part, width)})


def _part(array: Array, member: int, width: int) -> Array:
    """Return a member's columns."""
    return array[:, member * width : (member + 1) * width]
