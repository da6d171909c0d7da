"""Layers as frozen descriptions, and the stages they become: one product and one fused kernel each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from numbers import Integral, Real
from typing import Any, Literal, get_args

from nnkit.core.activations import ActivationFunction, activation_function
from nnkit.core.initializers import initializer_from
from nnkit.errors import ConfigError, ModelFileError, shown

__all__ = [
    "Activation",
    "Dense",
    "Dropout",
    "Embedding",
    "Layer",
    "Reduce",
    "Stage",
    "Table",
    "activations_of",
    "layer_from_json",
    "layer_to_json",
    "stages_of",
]

Reduce = Literal["mean", "sum", "max"]
_IDENTITY = activation_function("identity")


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
        object.__setattr__(self, "units", _count("Dense: units", self.units))
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


@dataclass(frozen=True)
class Embedding:
    """A table of vectors, of which each row's bag of ids looks up some and reduces them to one.

    Embeddings stand first in a network, one for each of `Features.bags`, and their vectors follow a row's
    other inputs. An empty bag gives zeros. A step updates the rows of the table that its batch looks up, and
    costs nothing for the others: for SGD, AdaGrad and RMSprop that is what the dense update does, to
    rounding; Momentum, Nesterov, Adam and AdamW leave the moments of rows unseen as they are and do not move
    them, where the dense update would. Penalties and weight decay, too, reach the rows seen alone.

    Parameters
    ----------
    size : int
        The number of rows of the table.
    width : int
        The numbers of a row.
    reduce : {"mean", "sum", "max"}
        With the weights w of a bag's ids, Σ w x / Σ w (0 where Σ w = 0) or Σ w x; "max", element by element,
        takes none.
    initializer : str, mapping or None
        How the table is drawn, as a matrix of `size` inputs and `width` outputs. None draws normal with
        standard deviation 1 / √width, whatever the size: a row's expected squared length is 1 (as Vaswani et
        al. 2017, arXiv:1706.03762, whose program draws so and scales by √width when it looks up).
    """

    size: int
    width: int
    reduce: Reduce = "mean"
    initializer: str | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", _count("Embedding: size", self.size))
        object.__setattr__(self, "width", _count("Embedding: width", self.width))
        if self.size > 2**31:
            raise ConfigError(f"Embedding: size = {self.size} is more than 32-bit ids can name")
        if self.reduce not in get_args(Reduce):
            raise ConfigError(f"Embedding: reduce = {shown(self.reduce)} is not 'mean', 'sum' or 'max'")
        if self.initializer is not None:
            initializer_from(self.initializer)


def _count(name: str, value: object) -> int:
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise ConfigError(f"{name} = {shown(value)} is not a whole number of at least 1")
    return int(value)


Layer = Embedding | Dense | Dropout | Activation
_KINDS: dict[str, type] = {kind.__name__: kind for kind in (Embedding, Dense, Dropout, Activation)}


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
class Table:
    """What an embedding becomes: its place among the parameters and in the inputs.

    Parameters
    ----------
    layer : int
        The number of its weights among the layers that have parameters.
    size, width, reduce
        As for `Embedding`.
    column : int
        The first of its columns in a batch's inputs.
    """

    layer: int
    size: int
    width: int
    reduce: Reduce
    column: int


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
    function : ActivationFunction
        What is applied to each output: its functions are those that the network was made with.
    dropout : float
        The share of outputs zeroed while training.
    tables : tuple of Table
        Of the first stage: what fills the last of its inputs.
    """

    index: int
    layer: int | None
    inputs: int
    outputs: int
    bias: bool
    function: ActivationFunction = _IDENTITY
    dropout: float = 0.0
    tables: tuple[Table, ...] = ()

    @property
    def activation(self) -> str:
        """The name of the activation."""
        return self.function.name

    @property
    def plain(self) -> bool:
        """Whether nothing but the product and the bias is left to do."""
        return self.activation == "identity" and self.dropout == 0


def activations_of(layers: Sequence[Layer]) -> dict[str, ActivationFunction]:
    """Return the activations that the layers name, as they are registered now."""
    names = [layer.activation for layer in layers if isinstance(layer, Dense)]
    names += [layer.name for layer in layers if isinstance(layer, Activation)]
    return {name: activation_function(name) for name in names}


def stages_of(
    layers: Sequence[Layer], inputs: int, activations: Mapping[str, ActivationFunction] | None = None
) -> tuple[Stage, ...]:
    """Fuse the layers into stages: an activation or a dropout joins the stage before it where it can.

    Parameters
    ----------
    layers : sequence of Layer
        Embeddings first.
    inputs : int
        The number of inputs, without what is embedded.
    activations : mapping of str to ActivationFunction, optional
        What the names of the layers' activations mean; by default, what is registered now.
    """
    named = activations_of(layers) if activations is None else activations
    stages: list[Stage] = []
    tables: list[Table] = []
    dense = 0
    for layer in layers:
        width = stages[-1].outputs if stages else inputs
        if isinstance(layer, Embedding):
            tables.append(Table(len(tables), layer.size, layer.width, layer.reduce, inputs))
            inputs += layer.width
        elif isinstance(layer, Dense):
            number = len(tables) + dense
            function = named[layer.activation]
            stages.append(Stage(len(stages), number, width, layer.units, layer.bias, function))
            dense += 1
        elif isinstance(layer, Activation):
            if stages and stages[-1].plain:
                stages[-1] = replace(stages[-1], function=named[layer.name])
            else:
                stages.append(Stage(len(stages), None, width, width, False, named[layer.name]))
        elif layer.rate > 0:
            if stages and stages[-1].dropout == 0:
                stages[-1] = replace(stages[-1], dropout=float(layer.rate))
            else:
                stages.append(Stage(len(stages), None, width, width, False, dropout=float(layer.rate)))
    if stages and tables:
        stages[0] = replace(stages[0], tables=tuple(tables))
    return tuple(stages)
