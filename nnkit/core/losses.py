"""The losses by name: each a scalar formula, averaged over the outputs and the batch's sample weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from math import inf, isfinite
from numbers import Real
from typing import Any, Literal

from nnkit.errors import ConfigError, unknown_name
from nnkit.kernels import formulas

__all__ = ["Link", "Loss", "Task", "loss_for_task", "loss_from", "loss_names", "register_loss"]

Link = Literal["identity", "sigmoid", "softmax", "exp"]
Task = Literal["binary", "multiclass", "multilabel", "regression"]


@dataclass(frozen=True)
class Loss:
    """A loss and what a prediction is under it.

    Parameters
    ----------
    name : str
        What the user calls it.
    link : {"identity", "sigmoid", "softmax", "exp"}
        What turns the network's outputs into predicted values or probabilities.
    value, derivative : function or None
        ``value(y, t)`` and its derivative by the output y; None for the softmax cross-entropy, a loss of
        whole rows.
    constants : mapping of str to float
        The formulas' further parameters, such as Huber's delta.
    reduction : {"mean", "sum"}
        Over a sample's outputs; a softmax cross-entropy is one loss.
    ceiling : float, optional
        What a single probability adds to a cross-entropy at most; the gradient does not know of it.
        scikit-learn's clipping of probabilities at ε is a ceiling of −log ε.
    """

    name: str
    link: Link
    value: Callable | None = None
    derivative: Callable | None = None
    constants: Mapping[str, float] = field(default_factory=dict)
    reduction: Literal["mean", "sum"] = "mean"
    ceiling: float | None = None

    @property
    def kernel(self) -> str:
        """The name of the fused kernel."""
        return "softmax_loss" if self.value is None else "elementwise_loss"

    @property
    def formulas(self) -> dict[str, Callable]:
        """What the kernel inlines."""
        if self.value is None or self.derivative is None:
            return {}
        value = self.value if self.ceiling is None else formulas.ceiled_binary_cross_entropy
        return {"value": value, "derivative": self.derivative}

    @property
    def kernel_constants(self) -> dict[str, float | bool]:
        """The kernel's flags and the formulas' fixed parameters."""
        ceiling = {} if self.ceiling is None else {"ceiling": self.ceiling}
        flags = {"SUMMED": self.reduction == "sum", "CEILED": self.ceiling is not None}
        return {**flags, **self.constants, **ceiling}

    def task(self, outputs: int) -> Task:
        """What is learnt when a network of so many outputs is trained with this loss."""
        if self.link == "softmax":
            return "multiclass"
        if self.link == "sigmoid":
            return "binary" if outputs == 1 else "multilabel"
        return "regression"

    def to_json(self) -> dict[str, Any]:
        """Return the name and constants, as `loss_from` takes them."""
        reduction = {} if self.reduction == "mean" else {"reduction": self.reduction}
        ceiling = {} if self.ceiling is None else {"ceiling": self.ceiling}
        return {"name": self.name, **self.constants, **reduction, **ceiling}


_REGISTRY: dict[str, Loss] = {}
_BUILT_IN: frozenset[str] = frozenset()
_CEILED = ("cross_entropy", "binary_cross_entropy")
_RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "delta": (lambda delta: 0 < delta < inf, "finite and greater than 0"),
    "label_smoothing": (lambda share: 0 <= share < 1, "at least 0 and less than 1"),
}


def register_loss(
    name: str, value: Callable, derivative: Callable, link: Link = "identity", **constants: float
) -> Loss:
    """Add a loss of single outputs; its scalar functions are fused into the kernels as nnkit's own are.

    Parameters
    ----------
    name : str
        What `Trainer` will call it.
    value, derivative : function
        ``value(y, t, ...)`` and its derivative by y: straight-line Python over floats (2.0, not 2) with one
        ``return`` at its end.
    link : {"identity", "sigmoid", "exp"}
        What makes predictions of outputs.
    **constants : float
        Defaults of the functions' further parameters.
    """
    if name in _BUILT_IN:
        raise ConfigError(f"the loss {name!r} is nnkit's own; choose another name")
    for function in (value, derivative):
        further = list(signature(function).parameters)[2:]
        if set(further) != set(constants):
            raise ConfigError(
                f"the loss function {function.__name__!r} takes {further} besides the output and the target; "
                f"give each a default as a keyword of register_loss (given: {list(constants)})"
            )
    _REGISTRY[name] = Loss(name, link, value, derivative, constants)
    return _REGISTRY[name]


def loss_from(value: str | Mapping[str, Any] | Loss) -> Loss:
    """Return the loss for a name, for a table such as ``{"name": "huber", "delta": 0.5}``, or as it is.

    Raises
    ------
    ConfigError
        If the name or a parameter is unknown, or a parameter is out of its range.
    """
    if isinstance(value, Loss):
        return value
    if not isinstance(value, str | Mapping):
        raise ConfigError(f"a loss is a name, a table or a Loss, not {value!r}")
    table = {"name": value} if isinstance(value, str) else dict(value)
    name = str(table.pop("name", ""))
    if name not in _REGISTRY:
        raise unknown_name("loss", name, _REGISTRY)
    loss = _REGISTRY[name]
    reduction: Any = table.pop("reduction", loss.reduction)
    if reduction not in ("mean", "sum"):
        raise ConfigError(f"loss {name!r}: reduction = {reduction!r} must be 'mean' or 'sum'")
    ceiling = table.pop("ceiling", loss.ceiling) if name in _CEILED else loss.ceiling
    if ceiling is not None and not _is_ceiling(ceiling):
        raise ConfigError(f"loss {name!r}: ceiling = {ceiling!r} must be a finite number greater than 0")
    for key, number in table.items():
        if key not in loss.constants:
            raise unknown_name("parameter", key, loss.constants, f"of the loss {name}")
        within, words = _RANGES.get(key, (isfinite, "finite"))
        if isinstance(number, bool) or not isinstance(number, Real) or not within(float(number)):
            raise ConfigError(f"loss {name!r}: {key} = {number!r} must be a number that is {words}")
    return replace(
        loss,
        constants={**loss.constants, **{key: float(number) for key, number in table.items()}},
        reduction=reduction,
        ceiling=None if ceiling is None else float(ceiling),
    )


def _is_ceiling(value: Any) -> bool:
    return isinstance(value, Real) and not isinstance(value, bool) and 0 < float(value) < inf


def loss_for_task(task: Task) -> Loss:
    """Return the loss that ``auto`` stands for."""
    names = {"multiclass": "cross_entropy", "regression": "mse"}
    return _REGISTRY[names.get(task, "binary_cross_entropy")]


def loss_names() -> tuple[str, ...]:
    """Return the names of all registered losses."""
    return tuple(_REGISTRY)


_REGISTRY["cross_entropy"] = Loss("cross_entropy", "softmax", constants={"label_smoothing": 0.0})
register_loss(
    "binary_cross_entropy",
    formulas.binary_cross_entropy,
    formulas.binary_cross_entropy_derivative,
    "sigmoid",
    label_smoothing=0.0,
)
register_loss("mse", formulas.mse, formulas.mse_derivative)
register_loss("mae", formulas.mae, formulas.mae_derivative)
register_loss("huber", formulas.huber, formulas.huber_derivative, delta=1.0)
register_loss("poisson", formulas.poisson, formulas.poisson_derivative, "exp")
register_loss("poisson_deviance", formulas.poisson_deviance, formulas.poisson_derivative, "exp")
_BUILT_IN = frozenset(_REGISTRY)
