"""Findings of the network in training: dead and saturated units, gradients, sizes of updates.

Order: the figures, the probe that measures them, the checks. A look is one measurement: after a training
step, the probe reads the outputs, gradients and weights that the step left in its buffers. It only reads: the
weights are the same bits with it and without.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from nnkit.diagnostics.data import sample_rows
from nnkit.diagnostics.findings import Finding
from nnkit.engine.places import Place, leaves, width_of
from nnkit.engine.step import Step

__all__ = ["LayerFigures", "NetworkFigures", "Probe", "check_network"]

# The maximum number of a layer's weights that are read: their norm is then within a percent or two. The rows
# of a gradient differ more, and its norm is less exact, but its thresholds are powers of ten.
_MOST_WEIGHTS = 2**14
# With a rate set too high "as much as 40 % of your network can be dead": Stanford's CS231n, "Neural networks
# part 1". (Measured on sound trainings: at most a seventh, and a quarter where there are 4 to 20 rows.)
_DEAD = 0.40
# |tanh| above this, or a sigmoid below 0.005 or above 0.995: a slope of at most 2 % of the steepest. Glorot
# and Bengio 2010, section 3, call units at ±1 saturated; with half of its outputs there a layer learns
# little.
_SATURATED_OUTPUT, _SATURATED = 0.99, 0.50
# From the last layer to the first the gradient should keep its size (Glorot and Bengio 2010, section 4.2.1).
# Four layers of sigmoids, whose slope is at most a quarter each, leave 4⁻⁴ of it.
_VANISHING, _EXPLODING = 4.0**-4, 1e3
# If the outputs grow from layer to layer as well, the gradients of all layers are about equal, but too large
# relative to the weights: a step of SGD at the usual rate of 0.01 would be as large as the weights. (Measured
# on 40 sound trainings on the built-in data by bench/diagnosis.py: at most 1.5 times, and in the first layer
# at least 0.09 of the last one's.)
_LARGE_GRADIENT = 100.0
# "This ratio should be somewhere around 1e-3": Stanford's CS231n, "Neural networks part 3", on the norm of
# an update by that of the weights. A hundred times more or ten thousand times less is no longer around it.
_LARGE_UPDATE, _SMALL_UPDATE = 0.1, 1e-7


@dataclass(frozen=True)
class LayerFigures:
    """The figures of one layer with weights, over some looks.

    Norms are Euclidean, estimated from a sample of the rows of large matrices.
    """

    name: str  # the beginning of its parameters' names, such as "layers.0"
    activation: str
    units: int
    # Of a hidden layer of ReLUs: the share of units that are 0 on every row; None if there were too few rows.
    dead: float | None
    # Of a hidden layer of sigmoid or tanh: the share of outputs where the slope is near 0.
    saturated: float | None
    gradient_norm: float  # of the weights' gradient: the root mean square over the looks
    weight_norm: float  # at the last look
    # The norm of an update divided by that of the weights: the mean over the looks.
    update_ratio: float | None = None


@dataclass(frozen=True)
class NetworkFigures:
    """The figures of all layers over some looks, that is, measured steps."""

    epoch: int  # of the last look, from 1
    rows: int  # the number of rows whose outputs were read, over all looks
    layers: tuple[LayerFigures, ...]  # from the inputs to the outputs

    def to_json(self) -> dict[str, Any]:
        """Return the figures as a JSON object; a number that is not finite becomes null."""

        def shown(value: Any) -> Any:
            return None if isinstance(value, float) and not np.isfinite(value) else value

        layers = [{key: shown(value) for key, value in asdict(layer).items()} for layer in self.layers]
        return {"epoch": self.epoch, "rows": self.rows, "layers": layers}


class Probe:
    """Reads outputs, gradients and weights of a training's steps, at most `rows` rows of a batch.

    Each `look` measures the last step. `figures` summarises the looks since its last call: a unit is dead if
    it was 0 on every row of all of them.
    """

    def __init__(self, step: Step, rows: int) -> None:
        self._step = step
        self._rows = rows
        # A frozen layer has no gradient and no update.
        self._layers = [
            layer
            for layer in _activated(step.places)
            if step.arena.segment(layer[0].parameter_name("weight")).trains
        ]
        self._sampled = []  # rows of each layer's weights
        for place, _, _ in self._layers:
            rows_read = sample_rows(self._fan_in(place), max(1, _MOST_WEIGHTS // width_of(place.outputs)))
            self._sampled.append(step.arena.backend.from_host(rows_read))
        self._before: list[NDArray[np.float64]] | None = None
        self._window: list[_Window] = []
        self.rows = 0
        self.forget()

    def look(self) -> None:
        """Measure the last step, and keep the weights to measure the next update.

        A step whose scaled loss overflowed is skipped, as the training skips it.
        """
        gradients = [
            self._step.last_gradient(place.parameter_name("weight"), sampled)
            for (place, _, _), sampled in zip(self._layers, self._sampled, strict=True)
        ]
        if self._step.scaling is not None and not all(np.isfinite(g).all() for g in gradients):
            self._before = None
            return
        self._before = [self._weights(layer) for layer in range(len(self._layers))]
        for layer, (_, activation, output_place) in enumerate(self._layers):
            window = self._window[layer]
            window.gradients.append(self._full_norm(layer, gradients[layer]))
            window.weight_norm = self._full_norm(layer, self._before[layer])
            found = None if output_place is None else self._step.outputs(output_place, self._rows)
            if found is not None and output_place is not None:
                window.add(activation, *found, 1.0 - output_place.layer.dropout)
        self.rows += min(self._rows, self._step.batch_size)

    def measure_update(self, steps: int) -> None:
        """Add the size of the update since the last look."""
        if self._before is None:
            return
        for layer, before in enumerate(self._before):
            moved = _norm(self._weights(layer) - before) / max(_norm(before), 1e-300)
            self._window[layer].updates.append(moved / steps)
        self._before = None

    def figures(self, epoch: int, enough: bool = True) -> NetworkFigures:
        """Return the figures of the looks since the last call; `dead` is None unless `enough` rows."""
        layers = tuple(
            LayerFigures(
                place.name,
                activation,
                width_of(place.outputs),
                None if window.alive is None or not enough else float(np.mean(~window.alive)),
                None if not window.saturated else float(np.mean(window.saturated)),
                float(np.sqrt(np.mean(np.square(window.gradients)))) if window.gradients else 0.0,
                window.weight_norm,
                float(np.mean(window.updates)) if window.updates else None,
            )
            for (place, activation, _), window in zip(self._layers, self._window, strict=True)
        )
        found = NetworkFigures(epoch, self.rows, layers)
        self.forget()
        return found

    def forget(self, updates: bool = True) -> None:
        """Discard the looks so far; with ``updates=False``, keep their update ratios."""
        kept = [[] for _ in self._layers] if updates else [window.updates for window in self._window]
        self._window = [_Window(updates=sizes) for sizes in kept]
        self.rows = 0

    def _fan_in(self, place: Place) -> int:
        return int(self._step.arena.view(place.parameter_name("weight")).shape[0])

    def _weights(self, layer: int) -> NDArray[np.float64]:
        arena = self._step.arena
        view = arena.view(self._layers[layer][0].parameter_name("weight"))
        weights: NDArray[np.float64] = arena.backend.to_host(view, self._sampled[layer]).astype(np.float64)
        return weights

    def _full_norm(self, layer: int, sampled: NDArray[np.float64]) -> float:
        """Return the norm of all rows, estimated from the sampled ones."""
        fan_in = self._fan_in(self._layers[layer][0])
        return _norm(sampled) * (fan_in / len(sampled)) ** 0.5


def _norm(values: NDArray[np.float64]) -> float:
    """Return the Euclidean norm without BLAS, whose threads would wait for a core that trains."""
    return float(np.sqrt(np.square(values).sum()))


@dataclass
class _Window:
    """A layer's measurements over the looks so far."""

    alive: NDArray[np.bool_] | None = None
    saturated: list[float] = field(default_factory=list)
    gradients: list[float] = field(default_factory=list)
    updates: list[float] = field(default_factory=list)
    weight_norm: float = 0.0

    def add(self, activation: str, outputs: NDArray, kept: NDArray | None, share: float) -> None:
        """Add a hidden layer's outputs; dropout has divided those it kept by `share`, the share it keeps."""
        if activation == "relu":
            alive = outputs.max(axis=0) > 0
            self.alive = alive if self.alive is None else self.alive | alive
        elif activation in ("sigmoid", "tanh"):
            outputs = outputs * share if kept is None else outputs[kept != 0] * share
            centred = outputs if activation == "tanh" else 2 * outputs - 1
            if centred.size:
                self.saturated.append(float(np.mean(np.abs(centred) > _SATURATED_OUTPUT)))


def _activated(places: Sequence[Place]) -> Iterator[tuple[Place, str, Place | None]]:
    """Yield each layer with weights, its activation, and the layer that has its activated outputs.

    This is the layer itself, or a following one that is only an activation; None for the network's outputs.
    """
    chain = [place for place in leaves(places) if place.layer.activates]
    weighed = [_has_weights(place) for place in chain]
    product: Place | None = None
    for place, has_weights, after in zip(chain, weighed, [*weighed[1:], None], strict=True):
        product = place if has_weights else product
        if product is not None and after is not False:
            yield product, place.layer.activation, None if after is None else place


def _has_weights(place: Place) -> bool:
    return any(parameter.role == "weight" for parameter in place.parameters.values())


def check_network(figures: Sequence[NetworkFigures], learning_rate: float) -> list[Finding]:
    """Return the findings: updates are judged over all figures (at least one), the rest by the last."""
    last = figures[-1]
    if not last.layers:  # all are frozen
        return []
    units = _dead_units(last, learning_rate), _saturated_units(last, learning_rate)
    found = (*units, _gradients(last), _updates(figures, learning_rate))
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
        "A unit that is 0 on every row receives no gradient: it stays dead, and the network is narrower than "
        "it looks.",
        f'Set training.learning_rate = {rate / 10:.2g}, or model.activation = "silu".',
    )


def _saturated_units(figures: NetworkFigures, rate: float) -> Finding | None:
    shares = [(layer.name, layer.saturated) for layer in figures.layers if layer.saturated is not None]
    if not shares or max(share for _, share in shares) < _SATURATED:
        return None
    return Finding(
        "saturated_units",
        "serious",
        f"outputs at the flat ends of their activation: {_by_layer(shares)} (epoch {figures.epoch})",
        "There the slope is close to 0, and so is the gradient of all layers before.",
        f'Set model.activation = "relu", training.learning_rate = {rate / 10:.2g}, or data.scaling = '
        '"standardize" where it is off.',
    )


def _gradients(figures: NetworkFigures) -> Finding | None:
    norms = [(layer.name, layer.gradient_norm) for layer in figures.layers]
    first, last = norms[0][1], norms[-1][1]
    if len(norms) < 2 or not np.isfinite([first, last]).all() or last == 0:
        return None
    seen = f"norm of the gradient in epoch {figures.epoch} by layer: {_by_layer(norms, '.2g')}"
    if first <= _VANISHING * last:
        return Finding(
            "vanishing_gradients",
            "serious",
            seen,
            "The gradient is lost on its way back, and the first layers keep their initial weights.",
            'Set model.activation = "relu" and model.initializer = "auto", or fewer layers in model.hidden.',
        )
    relative = max(layer.gradient_norm / max(layer.weight_norm, 1e-300) for layer in figures.layers)
    if first < _EXPLODING * last and relative < _LARGE_GRADIENT:
        return None
    return Finding(
        "exploding_gradients",
        "serious",
        f"{seen}, up to {relative:,.2g} times that of the weights",
        "The gradient grows from layer to layer: each step changes the weights far too much.",
        'Set training.clip_norm = 1.0, and model.initializer = "auto".',
    )


def _updates(figures: Sequence[NetworkFigures], rate: float) -> Finding | None:
    """Judge by the median of the figures, since most schedules end at a rate of nearly 0."""
    measured = [one for one in figures if all(layer.update_ratio is not None for layer in one.layers)]
    if not measured:
        return None
    ordered = sorted(measured, key=lambda one: max(layer.update_ratio or 0.0 for layer in one.layers))
    median = ordered[len(ordered) // 2]
    ratios = [(layer.name, layer.update_ratio or 0.0) for layer in median.layers]
    largest = max(ratio for _, ratio in ratios)
    if _SMALL_UPDATE <= largest <= _LARGE_UPDATE:
        return None
    large = largest > _LARGE_UPDATE
    return Finding(
        "large_updates" if large else "small_updates",
        "notice",
        f"update size relative to the weights: {_by_layer(ratios, '.1g')} (after epoch {median.epoch}), "
        "where about 1e-3 is usual",
        "Each step undoes the ones before."
        if large
        else "The weights hardly move from their initial values.",
        f"Set training.learning_rate = {rate / 10 if large else rate * 10:.2g} (nnkit tune-rate finds one).",
    )
