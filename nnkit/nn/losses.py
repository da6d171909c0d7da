"""The losses by name: each a scalar formula, averaged over the outputs and the batch's sample weights."""

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
        The formulas' further parameters, such as Huber's delta: arguments of the kernels.
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
        """The kernel's flags and the formulas' further parameters."""
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

    def bound_to(self, other: Loss) -> Loss:
        """Return this loss with the functions of another of its name, as they were when that was made."""
        if other.name != self.name:
            return self
        constants = {key: self.constants.get(key, number) for key, number in other.constants.items()}
        return replace(
            self, link=other.link, value=other.value, derivative=other.derivative, constants=constants
        )

    def __reduce__(self) -> Any:
        """Pickle the name, where it is registered: it must be registered again where it is unpickled."""
        return (loss_from, (self.to_json(),)) if self.name in _REGISTRY else super().__reduce__()

    def __copy__(self) -> Loss:
        return self

    def __deepcopy__(self, memo: object) -> Loss:
        return self


_REGISTRY: dict[str, Loss] = {}
_BUILT_IN: frozenset[str] = frozenset()
_CEILED = ("cross_entropy", "binary_cross_entropy")
# What each loss has of its own, and what `register_loss` takes: a formula's parameters are called otherwise.
_RESERVED = ("name", "reduction", "ceiling", "value", "derivative", "link", "check")
# What targets are under each link, and outputs in general position.
_TARGETS: Mapping[str, tuple[float, ...]] = {
    "identity": (-1.7, 0.4, 2.3),
    "sigmoid": (0.0, 1.0, 0.3),
    "exp": (0.0, 1.0, 2.7),
}
_LINKS = tuple(_TARGETS)
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
    """Add a loss of single outputs; its scalar functions are fused into the kernels as nnkit's own are.

    A trainer, a fitted estimator and a model keep the functions that their loss has when they are made:
    registering the name again changes those that are made from then on.

    Parameters
    ----------
    name : str
        The name that `Trainer` is given, an identifier.
    value, derivative : function
        ``value(y, t, ...)`` and its derivative by y: straight-line Python over floats (2.0, not 2) with one
        ``return`` at its end, written with `def`.
    link : {"identity", "sigmoid", "exp"}
        What makes predictions of outputs.
    check : bool
        Whether to compare the derivative with differences of the value; False for one that differs on
        purpose, such as one that is clipped.
    **constants : float
        Defaults of the functions' further parameters, which are arguments of the kernels: no value of them is
        compiled anew.

    Raises
    ------
    ConfigError
        If the name is nnkit's own or no identifier, a function is none that a kernel can be made of or has
        other parameters than the constants, a constant is no finite number, the link is unknown, or the
        derivative is wrong.

    Warns
    -----
    UserWarning
        If the functions cannot be computed in Python, so that the derivative is not checked.
    """
    check_name("loss", name, _BUILT_IN)
    if link not in _LINKS:
        raise unknown_name("link", str(link), _LINKS, f"of the loss {name}")
    words = f"the loss {name!r}"
    for function, what in ((value, "value"), (derivative, "derivative")):
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
    numbers = {key: Number()(f"{words}: {key}", number) for key, number in constants.items()}
    registered = Loss(name, link, value, derivative, numbers)
    if check:
        check_derivative(words, _samples(registered))
    _REGISTRY[name] = registered
    return registered


def _samples(loss: Loss) -> Iterator[Sample]:
    """Yield points at which to look at a loss's derivative: with its constants, and with others."""
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
    Choice(("mean", "sum"))(f"loss {name}: reduction", reduction)
    ceiling = table.pop("ceiling", loss.ceiling) if name in _CEILED else loss.ceiling
    if ceiling is not None:
        ceiling = Number(above=0)(f"loss {name}: ceiling", ceiling)
    constants = dict(loss.constants)
    for key, number in table.items():
        if key not in loss.constants:
            raise unknown_name("parameter", key, loss.constants, f"of the loss {name}")
        constants[key] = _RANGES.get(key, Number())(f"loss {name}: {key}", number)
    return replace(loss, constants=constants, reduction=reduction, ceiling=ceiling)


def loss_for_task(task: Task) -> Loss:
    """Return the loss that ``auto`` stands for."""
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
