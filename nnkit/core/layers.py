"""Layers as frozen descriptions, and the stages they become: one product and one fused kernel each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real
from typing import Any

from nnkit.core.activations import activation_function
from nnkit.core.initializers import initializer_from
from nnkit.errors import ConfigError, ModelFileError, shown

__all__ = [
    "Activation",
    "Dense",
    "Dropout",
    "Layer",
    "Stage",
    "layer_from_json",
    "layer_to_json",
    "stages_of",
]


@dataclass(frozen=True)
class Dense:
    """``activation(X @ W + b)``: X is (samples, inputs), W (inputs, units), b (units,).

    Parameters
    ----------
    units : int
        The number of outputs.
    activation : str
        A registered activation.
    initializer : str, mapping or None
        How W is drawn; a mapping gives parameters, as in ``{"name": "normal", "std": 0.02}``. None takes He's
        for the ReLU family and Glorot's for the rest. Biases begin at zero.
    bias : bool
        Whether there is a b.
    """

    units: int
    activation: str = "identity"
    initializer: str | Mapping[str, Any] | None = None
    bias: bool = True

    def __post_init__(self) -> None:
        if isinstance(self.units, bool) or not isinstance(self.units, Integral) or self.units < 1:
            raise ConfigError(f"Dense: units = {self.units!r} is not a whole number of at least 1")
        object.__setattr__(self, "units", int(self.units))
        # It becomes a constant of the generated source.
        if not isinstance(self.bias, bool):
            raise ConfigError(f"Dense: bias = {shown(self.bias)} is neither True nor False")
        activation_function(self.activation)
        if self.initializer is not None:
            initializer_from(self.initializer)


@dataclass(frozen=True)
class Dropout:
    """Zero each input with probability `rate` while training, and scale the others by 1 / (1 − rate).

    Srivastava et al. 2014, "Dropout: a simple way to prevent neural networks from overfitting".
    """

    rate: float

    def __post_init__(self) -> None:
        if isinstance(self.rate, bool) or not isinstance(self.rate, Real) or not 0 <= self.rate < 1:
            raise ConfigError(f"Dropout: rate = {self.rate!r} is not in [0, 1)")
        object.__setattr__(self, "rate", float(self.rate))


@dataclass(frozen=True)
class Activation:
    """Apply a registered activation to each input."""

    name: str

    def __post_init__(self) -> None:
        activation_function(self.name)


Layer = Dense | Dropout | Activation
_KINDS: dict[str, type] = {kind.__name__: kind for kind in (Dense, Dropout, Activation)}


def layer_to_json(layer: Layer) -> dict[str, Any]:
    """Return the description as JSON."""
    return {"kind": type(layer).__name__, **asdict(layer)}


def layer_from_json(value: Mapping[str, Any]) -> Layer:
    """Return the layer, or raise `ModelFileError` if the JSON describes none."""
    try:
        fields = dict(value)
        return _KINDS[fields.pop("kind")](**fields)
    except (KeyError, TypeError, ValueError) as error:
        raise ModelFileError(
            f"the model describes a layer that nnkit does not know: {shown(value)} ({error})"
        ) from error


@dataclass(frozen=True)
class Stage:
    """One step of the forward pass: an optional product, then bias, activation and dropout in one kernel.

    Parameters
    ----------
    index : int
        The stage's number; its dropout draws are a function of it.
    layer : int or None
        The number of its weights among the layers that have parameters, or None where there is no product.
    inputs, outputs : int
        The widths.
    bias : bool
        Whether a bias is added.
    activation : str
        A registered activation.
    dropout : float
        The share of outputs zeroed while training.
    """

    index: int
    layer: int | None
    inputs: int
    outputs: int
    bias: bool
    activation: str = "identity"
    dropout: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether nothing but the product and the bias is left to do."""
        return self.activation == "identity" and self.dropout == 0


def stages_of(layers: Sequence[Layer], inputs: int) -> tuple[Stage, ...]:
    """Fuse the layers into stages: an activation or a dropout joins the stage before it where it can."""
    stages: list[Stage] = []
    dense = 0
    for layer in layers:
        width = stages[-1].outputs if stages else inputs
        if isinstance(layer, Dense):
            stages.append(Stage(len(stages), dense, width, layer.units, layer.bias, layer.activation))
            dense += 1
        elif isinstance(layer, Activation):
            if stages and stages[-1].plain:
                stages[-1] = replace(stages[-1], activation=layer.name)
            else:
                stages.append(Stage(len(stages), None, width, width, False, layer.name))
        elif layer.rate > 0:
            if stages and stages[-1].dropout == 0:
                stages[-1] = replace(stages[-1], dropout=float(layer.rate))
            else:
                stages.append(Stage(len(stages), None, width, width, False, "identity", float(layer.rate)))
    return tuple(stages)
