"""The optimizers, from gradient descent to Adam: a rule of `formulas`, its state and its hyperparameters."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, ClassVar

from nnkit.checks import Check, Flag, Number
from nnkit.kernels import formulas
from nnkit.nn.options import check_parameters, named_options

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
# Checks of the fields; all others must be at least 0.
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
    """Base class of the optimizers.

    A step updates only those rows of an `Embedding`'s table that its batch looks up. Each optimizer says
    whether an update of the whole table would do the same; `weight_decay` and penalties would not, because
    they would also shrink the rows that are not looked up.

    Parameters
    ----------
    learning_rate : float
        The base rate, which the schedule multiplies.
    weight_decay : float
        Decoupled decay: each step multiplies weights (not biases) by ``1 − learning_rate · weight_decay``
        (Loshchilov and Hutter 2017, arXiv:1711.05101).
    """

    learning_rate: float = 1e-3
    weight_decay: float = 0.0

    name: ClassVar[str] = ""
    rule: ClassVar[Callable]
    prepare: ClassVar[Callable | None] = None
    """Computes values for `rule` once a step, such as bias corrections."""
    decay_unseen: ClassVar[Callable | None] = None
    """The decay of a state over steps without a gradient, which move no weight; None if it stays."""
    state: ClassVar[tuple[str, ...]] = ()
    """The names of the state arrays, each with one element for each parameter."""

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
        """The functions that are inlined into the update kernel."""
        prepare = type(self).prepare
        return {"rule": type(self).rule} | ({} if prepare is None else {"prepare": prepare})

    @property
    def formulas_of_rows(self) -> dict[str, Callable]:
        """The functions that are inlined into the update of an embedding's rows."""
        decay = type(self).decay_unseen
        return self.formulas | ({} if decay is None else {"decay_unseen": decay})

    def to_json(self) -> dict[str, Any]:
        """Return the table that `optimizer_from` reads."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class SGD(Optimizer):
    """Gradient descent: w ← w − η g. The same for an embedding as an update of the whole table."""

    learning_rate: float = 1e-2
    name: ClassVar[str] = "sgd"
    rule: ClassVar[Callable] = formulas.sgd


@dataclass(frozen=True)
class Momentum(Optimizer):
    """Gradient descent with momentum: v ← μ v + g, w ← w − η v.

    With `rate_in_velocity` the velocity contains the rate, as in scikit-learn: v ← μ v + η g, w ← w − v. The
    two differ when the rate changes. The velocity of an embedding's row decays, and moves the row, only in
    steps that look up the row; an update of the whole table would do both in each step.
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

    The same for an embedding as an update of the whole table.
    """

    learning_rate: float = 1e-2
    epsilon: float = 1e-10
    name: ClassVar[str] = "adagrad"
    rule: ClassVar[Callable] = formulas.adagrad
    state: ClassVar[tuple[str, ...]] = ("squares",)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """Tieleman and Hinton 2012: s ← ρ s + (1 − ρ) g², w ← w − η g / (√s + ε).

    When a row of an embedding is looked up after k steps that did not, its s first becomes ρᵏ s: the same as
    with an update of the whole table.
    """

    decay: float = 0.9
    epsilon: float = 1e-8
    name: ClassVar[str] = "rmsprop"
    rule: ClassVar[Callable] = formulas.rmsprop
    decay_unseen: ClassVar[Callable | None] = formulas.rmsprop_decay_unseen
    state: ClassVar[tuple[str, ...]] = ("squares",)


@dataclass(frozen=True)
class Adam(Optimizer):
    """Kingma and Ba 2014 (arXiv:1412.6980), algorithm 1.

    With `epsilon_hat`, ε is outside the bias correction, as in the form at the end of their section 2 and in
    scikit-learn. The moments of an embedding's row decay, and move the row, only in steps that look up the
    row, as in PyTorch's SparseAdam; an update of the whole table would do both in each step. t counts all
    steps.
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
    """Return the optimizer for a name or a table such as ``{"name": "adam", "beta1": 0.8}``.

    Parameters
    ----------
    value : str, mapping or Optimizer
        An instance is returned with the overrides applied.
    **overrides : float or None
        Fields that replace those in `value`, such as ``learning_rate``; None changes nothing.

    Raises
    ------
    ConfigError
        If the name or a field is unknown, or a value is out of its range.
    """
    given = {key: number for key, number in overrides.items() if number is not None}
    if isinstance(value, Optimizer):
        return replace(value, **given)
    name, table = named_options("optimizer", value, _REGISTRY, '{"name": "adam", "beta1": 0.8}')
    kind = _REGISTRY[name]
    check_parameters("optimizer", name, table | given, [field.name for field in fields(kind)])
    return kind(**table | given)


def optimizer_names() -> tuple[str, ...]:
    """Return the names of all optimizers."""
    return tuple(_REGISTRY)
