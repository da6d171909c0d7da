"""The optimizers, from plain descent to Adam: each a rule of `formulas`, its state, its hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

from nnkit.checks import Check, Flag, Number
from nnkit.errors import ConfigError, unknown_name
from nnkit.kernels import formulas

__all__ = [
    "SGD",
    "AdaGrad",
    "Adam",
    "AdamW",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "RMSprop",
    "optimizer_from",
    "optimizer_names",
]


_SHARE = Number(0, below=1)
# What the fields may be: all others, a number of at least 0.
_CHECKS: Mapping[str, Check] = {
    "learning_rate": Number(above=0),
    "momentum": Number(0, 1),
    "decay": _SHARE,
    "beta1": _SHARE,
    "beta2": _SHARE,
    "rate_in_velocity": Flag(),
    "epsilon_hat": Flag(),
}


@dataclass(frozen=True)
class Optimizer:
    """What all optimizers share.

    Of an `Embedding`'s table, a step updates the rows that its batch looks up. Each optimizer says whether
    that is what an update of the whole table would do; `weight_decay` and penalties never are, for they would
    shrink rows unseen, too.

    Parameters
    ----------
    learning_rate : float
        The base rate, which the schedule multiplies.
    weight_decay : float
        Decoupled decay: weights (not biases) shrink by ``learning_rate * weight_decay`` of themselves at each
        step, apart from the gradient (Loshchilov and Hutter 2017, arXiv:1711.05101).
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.0

    name: ClassVar[str] = ""
    rule: ClassVar[Callable]
    prepare: ClassVar[Callable | None] = None
    left: ClassVar[Callable | None] = None
    """What is left of a state after steps without a gradient, which move no weight; None if all of it is."""
    state: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        for key, value in asdict(self).items():
            check = _CHECKS.get(key, Number(0))
            object.__setattr__(self, key, check(f"{self.name}: {key}", value))

    @property
    def constants(self) -> dict[str, float | bool]:
        """The rule's hyperparameters, which are arguments of the kernel, and its switches."""
        shared = {field.name for field in fields(Optimizer)}
        return {key: value for key, value in asdict(self).items() if key not in shared}

    @property
    def formulas(self) -> dict[str, Callable]:
        """What the update kernel inlines."""
        prepare = type(self).prepare
        return {"rule": type(self).rule} | ({} if prepare is None else {"prepare": prepare})

    @property
    def formulas_of_rows(self) -> dict[str, Callable]:
        """What the update of an embedding's rows inlines: what is left of a state, too."""
        left = type(self).left
        return self.formulas | ({} if left is None else {"linger": left})

    def to_json(self) -> dict[str, Any]:
        """Return the name and fields, as `optimizer_from` takes them."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent: w ← w − η g. Rows of an embedding that a batch does not see would stay, and do."""

    learning_rate: float = 1e-2
    name: ClassVar[str] = "sgd"
    rule: ClassVar[Callable] = formulas.sgd


@dataclass(frozen=True)
class Momentum(Optimizer):
    """Gradient descent with momentum: v ← μ v + g, w ← w − η v.

    With `rate_in_velocity` the velocity contains the rate, as scikit-learn's does: v ← μ v + η g, w ← w − v.
    The two differ where the rate changes. The velocity of an embedding's row decays, and moves the row, at
    the steps that see it alone; a dense update would do both at each step.
    """

    learning_rate: float = 1e-2
    momentum: float = 0.9
    rate_in_velocity: bool = False
    name: ClassVar[str] = "momentum"
    rule: ClassVar[Callable] = formulas.momentum
    state: ClassVar[tuple[str, ...]] = ("velocity",)


@dataclass(frozen=True)
class Nesterov(Momentum):
    """Nesterov's momentum: v ← μ v + g, w ← w − η (g + μ v)."""

    name: ClassVar[str] = "nesterov"
    rule: ClassVar[Callable] = formulas.nesterov


@dataclass(frozen=True)
class AdaGrad(Optimizer):
    """Duchi et al. 2011: s ← s + g², w ← w − η g / (√s + ε).

    Rows of an embedding that a batch does not see would stay, and do.
    """

    learning_rate: float = 1e-2
    epsilon: float = 1e-10
    name: ClassVar[str] = "adagrad"
    rule: ClassVar[Callable] = formulas.adagrad
    state: ClassVar[tuple[str, ...]] = ("squares",)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """Tieleman and Hinton 2012: s ← ρ s + (1 − ρ) g², w ← w − η g / (√s + ε).

    Where k steps have not seen a row of an embedding, its s becomes ρᵏ s when it is seen again, which is what
    a dense update comes to.
    """

    decay: float = 0.9
    epsilon: float = 1e-8
    name: ClassVar[str] = "rmsprop"
    rule: ClassVar[Callable] = formulas.rmsprop
    left: ClassVar[Callable | None] = formulas.rmsprop_left
    state: ClassVar[tuple[str, ...]] = ("squares",)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Kingma and Ba 2014 (arXiv:1412.6980), algorithm 1.

    With `epsilon_hat`, ε stands outside the bias correction, as in the form at the end of their section 2
    and in scikit-learn. The moments of an embedding's row decay, and move the row, at the steps that see it
    alone, as in PyTorch's SparseAdam; a dense update would do both at each step. t counts all steps.
    """

    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8
    epsilon_hat: bool = False
    name: ClassVar[str] = "adam"
    rule: ClassVar[Callable] = formulas.adam
    prepare: ClassVar[Callable | None] = formulas.adam_corrections
    state: ClassVar[tuple[str, ...]] = ("first_moment", "second_moment")


@dataclass(frozen=True)
class AdamW(Adam):
    """Adam with decoupled weight decay on by default (Loshchilov and Hutter 2017, arXiv:1711.05101)."""

    weight_decay: float = 1e-2
    name: ClassVar[str] = "adamw"


_REGISTRY: Mapping[str, type[Optimizer]] = {
    optimizer.name: optimizer for optimizer in (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam, AdamW)
}


def optimizer_from(value: str | Mapping[str, Any] | Optimizer, **overrides: float | None) -> Optimizer:
    """Return the optimizer for a name, for a table such as ``{"name": "adam", "beta1": 0.8}``, or as it is.

    Parameters
    ----------
    value : str, mapping or Optimizer
        What the user wrote.
    **overrides : float or None
        Fields given elsewhere, such as ``learning_rate``; None leaves the default.

    Raises
    ------
    ConfigError
        If the name or a field is unknown, or a value is out of its range.
    """
    given = {key: number for key, number in overrides.items() if number is not None}
    if isinstance(value, Optimizer):
        return replace(value, **given)
    if not isinstance(value, str | Mapping):
        raise ConfigError(f"an optimizer is a name, a table or an instance such as Adam(1e-3), not {value!r}")
    table: dict[str, Any] = ({"name": value} if isinstance(value, str) else dict(value)) | given
    name = str(table.pop("name", ""))
    if name not in _REGISTRY:
        raise unknown_name("optimizer", name, _REGISTRY)
    kind = _REGISTRY[name]
    known = [field.name for field in fields(kind)]
    for key in table:
        if key not in known:
            raise unknown_name("parameter", key, known, f"of the optimizer {name}")
    return kind(**table)


def optimizer_names() -> tuple[str, ...]:
    """Return the names of all optimizers."""
    return tuple(_REGISTRY)
