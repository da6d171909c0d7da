"""What a network's own figures show while it trains: dead and saturated units, gradients, sizes of updates.

Order: the figures, the probe that takes them, the checks. A probe reads the parameters and computes in
buffers of its own: the training's weights are the same bits with it and without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.backends.protocol import Array
from nnkit.core.batch import Rows
from nnkit.core.features import Features
from nnkit.core.full_batch import FullBatch
from nnkit.core.layers import Stage
from nnkit.core.losses import Loss
from nnkit.core.network import Network
from nnkit.core.step import Penalty
from nnkit.training.diagnostics import Finding

__all__ = ["LayerFigures", "NetworkFigures", "Probe", "check_network"]

# With a rate set too high "as much as 40 % of your network can be dead": Stanford's CS231n, "Neural networks
# part 1". (Measured on sound trainings with the defaults: at most a tenth.)
_DEAD = 0.40
# |tanh| above this, or a sigmoid below 0.005 or above 0.995: a slope of at most 2 % of the steepest. Glorot
# and Bengio 2010, section 3, call units at ±1 saturated; a layer half of whose outputs are hardly learns.
_SATURATED_OUTPUT, _SATURATED = 0.99, 0.50
# From the last layer to the first the gradient should keep its size (Glorot and Bengio 2010, section 4.2.1):
# a thousandth of it is what five layers of sigmoids leave, whose slope is at most a quarter each (4⁻⁵).
_VANISHING, _EXPLODING = 1e-3, 1e3
# "This ratio should be somewhere around 1e-3": Stanford's CS231n, "Neural networks part 3", on the norm of
# an update by that of the weights. A hundred times more or ten thousand times less is no longer around it.
_LARGE_UPDATE, _SMALL_UPDATE = 0.1, 1e-7


@dataclass(frozen=True)
class LayerFigures:
    """One layer with parameters, at one moment.

    Parameters
    ----------
    name : str
        As its parameters begin, such as ``layers.0``.
    activation : str
    units : int
    dead : float or None
        Of a hidden layer of ReLUs: the share of units that are 0 on every row looked at.
    saturated : float or None
        Of a hidden layer of sigmoid or tanh: the share of outputs where the slope is next to nothing.
    gradient_norm, weight_norm : float
        Of the weights, Euclidean.
    update_ratio : float or None
        The norm of an update by that of the weights: of the few steps after this moment, their displacement
        divided by their number.
    """

    name: str
    activation: str
    units: int
    dead: float | None
    saturated: float | None
    gradient_norm: float
    weight_norm: float
    update_ratio: float | None = None


@dataclass(frozen=True)
class NetworkFigures:
    """All layers at the end of an epoch.

    Parameters
    ----------
    epoch : int
        Counted from 1.
    rows : int
        How many were looked at.
    layers : tuple of LayerFigures
        From the inputs to the outputs.
    """

    epoch: int
    rows: int
    layers: tuple[LayerFigures, ...]

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON object; what is not finite becomes null."""
        layers = [
            {
                key: None if isinstance(value, float) and not np.isfinite(value) else value
                for key, value in asdict(layer).items()
            }
            for layer in self.layers
        ]
        return {"epoch": self.epoch, "rows": self.rows, "layers": layers}


class Probe:
    """A forward and a backward pass over a sample of the training rows, without dropout or updates.

    Parameters
    ----------
    network : Network
        Its parameters are read anew at each look.
    loss : Loss
        What the gradient is of.
    features : Features
        The sample.
    targets : ndarray
        Encoded.
    """

    def __init__(self, network: Network, loss: Loss, features: Features, targets: NDArray) -> None:
        arena = network.arena
        rows = Rows(arena.backend, arena.dtype, features, targets)
        self._rows = rows.count
        self._arena = arena
        self._stages = network.stages
        self._pass = FullBatch(network.stages, arena, loss, Penalty(), rows)

    def look(self, epoch: int) -> NetworkFigures:
        """Return the figures at the parameters as they are."""
        weight = self._pass.evaluate().weight
        passes, backend = self._pass.passes, self._arena.backend
        layers = []
        for stage, activation, output in self._activated(passes.activations(self._rows)):
            values = None if output is None else backend.to_host(output)
            gradient = backend.to_host(self._arena.view(f"layers.{stage.layer}.weight", passes.gradients))
            layers.append(
                LayerFigures(
                    f"layers.{stage.layer}",
                    activation,
                    stage.outputs,
                    _dead(activation, values),
                    _saturated(activation, values),
                    _norm(gradient) * self._rows / max(weight, 1e-300),
                    _norm(self.weights(stage)),
                )
            )
        return NetworkFigures(epoch, self._rows, tuple(layers))

    def _activated(self, outputs: Sequence[Array]) -> Iterator[tuple[Stage, str, Array | None]]:
        """Yield each stage that has weights, with its activation and outputs; those of the last are None.

        An `Activation` layer has a stage of its own, after that of the weights.
        """
        for stage, below in pairwise([*self._stages, None]):
            if stage is not None and stage.layer is not None:
                product = stage
            if stage is not None and (below is None or below.layer is not None):
                yield product, stage.activation, None if below is None else outputs[stage.index]

    def weights(self, stage: Stage) -> NDArray:
        """Return a stage's weights, copied to the host."""
        return self._arena.backend.to_host(self._arena.view(f"layers.{stage.layer}.weight"))

    def all_weights(self) -> list[NDArray]:
        """Return the weights of every layer that `look` reports, copied to the host."""
        return [self.weights(stage) for stage in self._stages if stage.layer is not None]


def with_updates(
    figures: NetworkFigures, before: Sequence[NDArray], after: Sequence[NDArray], steps: int
) -> NetworkFigures:
    """Return the figures with the size of an update: of `steps` steps, the displacement by their number."""
    layers = tuple(
        replace(layer, update_ratio=_norm(new - old) / steps / max(_norm(old), 1e-300))
        for layer, old, new in zip(figures.layers, before, after, strict=True)
    )
    return replace(figures, layers=layers)


def _norm(array: NDArray) -> float:
    return float(np.linalg.norm(array.astype(np.float64).ravel()))


def _dead(activation: str, outputs: NDArray | None) -> float | None:
    if activation != "relu" or outputs is None:
        return None
    return float(np.mean(~np.any(outputs > 0, axis=0)))


def _saturated(activation: str, outputs: NDArray | None) -> float | None:
    if activation not in ("sigmoid", "tanh") or outputs is None:
        return None
    centred = outputs if activation == "tanh" else 2 * outputs - 1
    return float(np.mean(np.abs(centred) > _SATURATED_OUTPUT))


def check_network(looks: Sequence[NetworkFigures], learning_rate: float) -> list[Finding]:
    """Return what the figures show: of the last look, and the updates over all of them.

    Parameters
    ----------
    looks : sequence of NetworkFigures
        At least one, in their order.
    learning_rate : float
        The optimizer's, as it was set.
    """
    last = looks[-1]
    found = [
        _dead_units(last, learning_rate),
        _saturated_units(last, learning_rate),
        _gradients(last),
        _updates(looks, learning_rate),
    ]
    return [finding for finding in found if finding is not None]


def _by_layer(shares: Sequence[tuple[str, float]], form: str = ".0%") -> str:
    return ", ".join(f"{name} {share:{form}}" for name, share in shares)


def _dead_units(figures: NetworkFigures, rate: float) -> Finding | None:
    shares = [(layer.name, layer.dead) for layer in figures.layers if layer.dead is not None]
    if not shares or max(share for _, share in shares) < _DEAD:
        return None
    return Finding(
        "dead_relus",
        "serious",
        f"ReLUs that are 0 on all of {figures.rows:,} rows: {_by_layer(shares)} (epoch {figures.epoch})",
        "Such a unit gives nothing and receives no gradient: it stays dead, and the network is narrower than "
        "it looks.",
        f'Set training.learning_rate = {rate / 10:.2g}, or model.activation = "leaky_relu".',
    )


def _saturated_units(figures: NetworkFigures, rate: float) -> Finding | None:
    shares = [(layer.name, layer.saturated) for layer in figures.layers if layer.saturated is not None]
    if not shares or max(share for _, share in shares) < _SATURATED:
        return None
    return Finding(
        "saturated_units",
        "serious",
        f"outputs at the flat ends of their activation: {_by_layer(shares)} (epoch {figures.epoch})",
        "There the slope is next to nothing, and so is the gradient of all that comes before.",
        f'Set model.activation = "relu", training.learning_rate = {rate / 10:.2g}, or data.scaling = '
        '"standardize" where it is off.',
    )


def _gradients(figures: NetworkFigures) -> Finding | None:
    norms = [(layer.name, layer.gradient_norm) for layer in figures.layers]
    first, last = norms[0][1], norms[-1][1]
    if len(norms) < 2 or not np.isfinite([first, last]).all() or last == 0:
        return None
    told = f"norm of the gradient by layer: {_by_layer(norms, '.2g')} (epoch {figures.epoch})"
    if first <= _VANISHING * last:
        return Finding(
            "vanishing_gradients",
            "serious",
            told,
            "The gradient is lost on its way down, and the first layers stay as they were drawn.",
            'Set model.activation = "relu" and model.initializer = "auto", or fewer layers in model.hidden.',
        )
    if first < _EXPLODING * last:
        return None
    return Finding(
        "exploding_gradients",
        "serious",
        told,
        "The gradient grows on its way down: the first layers are thrown about by each step.",
        'Set training.clip_norm = 1.0, and model.initializer = "auto".',
    )


def _updates(looks: Sequence[NetworkFigures], rate: float) -> Finding | None:
    """Judge by the middle one of the looks, for most schedules end at a rate of nearly nothing."""
    measured = [look for look in looks if all(layer.update_ratio is not None for layer in look.layers)]
    if not measured:
        return None
    ordered = sorted(measured, key=lambda look: max(layer.update_ratio or 0.0 for layer in look.layers))
    figures = ordered[len(ordered) // 2]
    ratios = [(layer.name, layer.update_ratio or 0.0) for layer in figures.layers]
    greatest = max(ratio for _, ratio in ratios)
    if _SMALL_UPDATE <= greatest <= _LARGE_UPDATE:
        return None
    large = greatest > _LARGE_UPDATE
    return Finding(
        "large_updates" if large else "small_updates",
        "notice",
        f"an update by the size of the weights: {_by_layer(ratios, '.1g')} (after epoch {figures.epoch}); "
        "about 1e-3 is usual",
        "Each step rewrites what the ones before have learnt."
        if large
        else "At this pace the weights stay about as they were drawn.",
        f"Set training.learning_rate = {rate / 10 if large else rate * 10:.2g} (nnkit tune-rate finds one).",
    )
