"""The losses by name: scalar formulas, averaged over the outputs and the batch's sample weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from inspect import signature
from itertools import product
from typing import Any, Literal

from nnkit.checks import Choice, Number
from nnkit.errors import ConfigError, unknown_name
from nnkit.kernels import formulas
from nnkit.kernels.plain import plain_function
from nnkit.nn.derivatives import Sample, check_derivative, check_function, check_name
from nnkit.nn.options import check_parameters, named_options

__all__ = ["Link", "Loss", "Task", "loss_for_task", "loss_from", "loss_names", "register_loss"]

Link = Literal["identity", "sigmoid", "softmax", "exp"]
Task = Literal["binary", "multiclass", "multilabel", "regression"]


@dataclass(frozen=True)
class Loss:
    """A loss, and the link from a network's outputs to its predictions.

    Parameters
    ----------
    name : str
        The name in the registry.
    link : {"identity", "sigmoid", "softmax", "exp"}
        The function from the network's outputs to predicted values or probabilities.
    value, derivative : function or None
        ``value(y, t)`` and its derivative with respect to the output y; None for the softmax cross-entropy, a
        loss of whole rows.
    constants : mapping of str to float
        The formulas' further parameters, such as Huber's delta: arguments of the kernels.
    reduction : {"mean", "sum"}
        Over a sample's outputs; not applicable to a softmax cross-entropy.
    ceiling : float, optional
        The maximum contribution of a single probability to a cross-entropy; the gradient ignores it.
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
        """The functions that are inlined into the kernel."""
        if self.value is None or self.derivative is None:
            return {}
        value = self.value if self.ceiling is None else formulas.ceiled_binary_cross_entropy
        return {"value": value, "derivative": self.derivative}

    @property
    def kernel_constants(self) -> dict[str, float | bool]:
        """The kernel's flags and the formulas' further parameters."""
        ceiling = {} if self.ceiling is None else {"ceiling": self.ceiling}
        flags = {"SUMMED": self.reduction == "sum", "CEILED": self.ceiling is not None}
        return {**flags, **self.constants, **ceiling}

    def task(self, outputs: int) -> Task:
        """Return the task of a network with this number of outputs that is trained with this loss."""
        if self.link == "softmax":
            return "multiclass"
        if self.link == "sigmoid":
            return "binary" if outputs == 1 else "multilabel"
        return "regression"

    def to_json(self) -> dict[str, Any]:
        """Return the table that `loss_from` reads."""
        reduction = {} if self.reduction == "mean" else {"reduction": self.reduction}
        ceiling = {} if self.ceiling is None else {"ceiling": self.ceiling}
        return {"name": self.name, **self.constants, **reduction, **ceiling}

    def bound_to(self, other: Loss) -> Loss:
        """Return this loss with the functions and link of an `other` one of the same name.

        They may differ when the name was registered again in between.
        """
        if other.name != self.name:
            return self
        constants = {key: self.constants.get(key, number) for key, number in other.constants.items()}
        return replace(
            self, link=other.link, value=other.value, derivative=other.derivative, constants=constants
        )

    def __reduce__(self) -> Any:
        """Pickle a registered loss by its table: it must be registered again before unpickling."""
        return (loss_from, (self.to_json(),)) if self.name in _REGISTRY else super().__reduce__()

    def __copy__(self) -> Loss:
        return self

    def __deepcopy__(self, memo: object) -> Loss:
        return self


_REGISTRY: dict[str, Loss] = {}
_BUILT_IN: frozenset[str] = frozenset()
_CEILED = ("cross_entropy", "binary_cross_entropy")
# Keys of a loss's table and arguments of `register_loss`: no formula's parameter may have these names.
_RESERVED = ("name", "reduction", "ceiling", "value", "derivative", "link", "check")
# Where derivatives are checked: targets for each link, and outputs away from likely kinks.
_TARGETS: Mapping[str, tuple[float, ...]] = {
    "identity": (-1.7, 0.4, 2.3),
    "sigmoid": (0.0, 1.0, 0.3),
    "exp": (0.0, 1.0, 2.7),
}
_OUTPUTS = (-3.817, -1.283, -0.271, 0.163, 0.739, 1.951, 4.117)
_RANGES = {"delta": Number(above=0), "label_smoothing": Number(0, below=1)}


def register_loss(
    name: str,
    value: Callable,
    derivative: Callable,
    link: Link = "identity",
    *,
    check: bool = True,
    **constants: float,
) -> Loss:
    """Add a loss of single outputs; its scalar functions are fused into the kernels like nnkit's own.

    A trainer, a fitted estimator and a model keep the functions that their loss had when they were created:
    registering the name again affects only later ones.

    Parameters
    ----------
    name : str
        The name for `Trainer`, an identifier.
    value, derivative : function
        ``value(y, t, ...)`` and its derivative with respect to y: straight-line Python over floats (2.0, not
        2) with one ``return`` at the end, written with `def`.
    link : {"identity", "sigmoid", "exp"}
        The function from outputs to predictions.
    check : bool
        Whether to compare the derivative with differences of the value; False for one that differs on
        purpose, such as a clipped one.
    **constants : float
        Defaults of the functions' further parameters. They are arguments of the kernels, which are not
        compiled again for another value.

    Raises
    ------
    ConfigError
        If the name is nnkit's own or not an identifier, a kernel cannot be made from a function, a function's
        parameters are not the constants, a constant is not a finite number, the link is unknown, or the
        derivative is wrong.

    Warns
    -----
    UserWarning
        If the functions cannot be computed in Python, so that the derivative is not checked.
    """
    check_name("loss", name, _BUILT_IN)
    if link not in _TARGETS:
        raise unknown_name("link", str(link), _TARGETS, f"of the loss {name}")
    words = f"the loss {name!r}"
    for function, what in ((value, "value"), (derivative, "derivative")):
        _check_parameters(function, what, words, constants)
    numbers = {key: Number()(f"{words}: {key}", number) for key, number in constants.items()}
    registered = Loss(name, link, value, derivative, numbers)
    if check:
        check_derivative(words, _samples(registered))
    _REGISTRY[name] = registered
    return registered


def _check_parameters(function: Callable, what: str, words: str, constants: Mapping[str, float]) -> None:
    """Raise `ConfigError` unless a function's parameters are (y, t) and the constants."""
    check_function(function, what, words)
    first, further = list(signature(function).parameters)[:2], list(signature(function).parameters)[2:]
    if len(first) < 2:
        raise ConfigError(f"the {what} of {words} takes ({', '.join(first)}); it must take (y, t, ...)")
    for key in further:
        if key in _RESERVED:
            raise ConfigError(f"{words} has a parameter {key!r}, a reserved name; give it another name")
    if set(further) != set(constants):
        raise ConfigError(
            f"the loss function {function.__name__!r} takes {further} besides the output and the target; "
            f"give each a default as a keyword of register_loss (given: {list(constants)})"
        )


def _samples(loss: Loss) -> Iterator[Sample]:
    """Yield points for the check of a loss's derivative, with its constants and with others."""
    assert loss.value is not None
    assert loss.derivative is not None
    others = {key: 0.73 * number or 0.073 for key, number in loss.constants.items()}
    for constants in (loss.constants, others) if others else (loss.constants,):
        value, derivative = (plain_function(f, 2, constants) for f in (loss.value, loss.derivative))
        settings = "".join(f", {key} = {number:g}" for key, number in constants.items())
        for y, t in product(_OUTPUTS, _TARGETS[loss.link]):
            yield Sample(
                y,
                lambda x, f=value, t=t: f(x, t),  # type: ignore[misc]
                lambda x, f=derivative, t=t: f(x, t),  # type: ignore[misc]
                f"y = {y:g}, t = {t:g}{settings}",
            )


def loss_from(value: str | Mapping[str, Any] | Loss) -> Loss:
    """Return the loss for a name or a table such as ``{"name": "huber", "delta": 0.5}``.

    A `Loss` is returned unchanged.

    Raises
    ------
    ConfigError
        If the name or a parameter is unknown, or a parameter is out of its range.
    """
    if isinstance(value, Loss):
        return value
    name, table = named_options("loss", value, _REGISTRY, '{"name": "huber", "delta": 0.5}')
    loss = _REGISTRY[name]
    reduction: Any = table.pop("reduction", loss.reduction)
    Choice(("mean", "sum"))(f"loss {name}: reduction", reduction)
    ceiling = table.pop("ceiling", loss.ceiling) if name in _CEILED else loss.ceiling
    if ceiling is not None:
        ceiling = Number(above=0)(f"loss {name}: ceiling", ceiling)
    check_parameters("loss", name, table, loss.constants)
    given = {key: _RANGES.get(key, Number())(f"loss {name}: {key}", number) for key, number in table.items()}
    constants = {**loss.constants, **given}
    return replace(loss, constants=constants, reduction=reduction, ceiling=ceiling)


def loss_for_task(task: Task) -> Loss:
    """Return the loss that the setting ``auto`` selects for a task."""
    names = {"multiclass": "cross_entropy", "regression": "mse"}
    return _REGISTRY[names.get(task, "binary_cross_entropy")]


def loss_names() -> tuple[str, ...]:
    """Return the names of all registered losses."""
    return tuple(_REGISTRY)


for _loss in (
    Loss("cross_entropy", "softmax", constants={"label_smoothing": 0.0}),
    Loss(
        "binary_cross_entropy",
        "sigmoid",
        formulas.binary_cross_entropy,
        formulas.binary_cross_entropy_derivative,
        {"label_smoothing": 0.0},
    ),
    Loss("mse", "identity", formulas.mse, formulas.mse_derivative),
    Loss("mae", "identity", formulas.mae, formulas.mae_derivative),
    Loss("huber", "identity", formulas.huber, formulas.huber_derivative, {"delta": 1.0}),
    Loss("poisson", "exp", formulas.poisson, formulas.poisson_derivative),
    Loss("poisson_deviance", "exp", formulas.poisson_deviance, formulas.poisson_derivative),
):
    _REGISTRY[_loss.name] = _loss
_BUILT_IN = frozenset(_REGISTRY)
