"""Learning-rate schedules: frozen descriptions that turn step numbers into multipliers of the base rate.

Order: the base class with the warm-up, the schedules from simple to involved, then names, JSON and mistakes.
A schedule holds no state, so the trainer uploads one table of multipliers an epoch; what `ReduceOnPlateau`
must remember stands in a `PlateauState` that a checkpoint stores.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from nnkit.checks import Check, Number, Whole
from nnkit.errors import ConfigError, unknown_name

__all__ = [
    "SCHEDULES",
    "Constant",
    "Cosine",
    "Exponential",
    "InverseTime",
    "OneCycle",
    "PlateauState",
    "ReduceOnPlateau",
    "Schedule",
    "StepDecay",
    "schedule_from",
]

_MOST = 2**53  # steps and epochs: a count that a float holds exactly


@dataclass(frozen=True)
class Schedule:
    """What all schedules share: a linear warm-up, after which the schedule itself begins at its first step.

    With a warm-up of w steps, step s is multiplied by (s + 1) / (w + 1) until s = w, where the schedule
    begins; its epochs count from there. Goyal et al., "Accurate, large minibatch SGD", 2017, section 2.2
    (https://arxiv.org/abs/1706.02677).

    Parameters
    ----------
    warmup : int, keyword only
        The warm-up's length in steps.
    warmup_epochs : float, keyword only
        Its length in epochs; give one of the two.
    """

    warmup: int = field(default=0, kw_only=True)
    warmup_epochs: float = field(default=0.0, kw_only=True)

    name: ClassVar[str] = ""
    checks: ClassVar[Mapping[str, Check]] = {}
    """What a schedule's own fields may be."""

    def __post_init__(self) -> None:
        for key, check in {"warmup": Whole(0, _MOST), "warmup_epochs": Number(0), **self.checks}.items():
            check(f"schedule {self.name}: {key}", getattr(self, key))
        if self.warmup and self.warmup_epochs:
            raise ConfigError(f"schedule {self.name}: give warmup (steps) or warmup_epochs, not both")

    def factors(
        self, first_step: int, count: int, total_steps: int, steps_per_epoch: int
    ) -> NDArray[np.float64]:
        """Return the multipliers of the base learning rate for a stretch of steps.

        Parameters
        ----------
        first_step : int
            The stretch's first step, counted from 0 over the whole training.
        count : int
            How many steps.
        total_steps : int
            The whole training's steps. Steps beyond it keep the last one's multiplier, or go on if
            the schedule does not depend on its length.
        steps_per_epoch : int
            Batches in an epoch.

        Returns
        -------
        ndarray of shape (count,), float64
        """
        warmup = self.warmup or round(self.warmup_epochs * steps_per_epoch)
        steps = np.arange(first_step, first_step + count, dtype=np.float64)
        ramp = np.minimum((steps + 1.0) / (warmup + 1.0), 1.0)
        since = np.maximum(steps - warmup, 0.0)
        return ramp * self._decay(since, max(total_steps - warmup, 1), max(steps_per_epoch, 1))

    def _decay(
        self, steps: NDArray[np.float64], total_steps: int, steps_per_epoch: int
    ) -> NDArray[np.float64]:
        """Return the multipliers of steps counted from the end of the warm-up."""
        raise NotImplementedError

    def to_json(self) -> dict[str, Any]:
        """Return the schedule as a JSON object, which `schedule_from` reads back."""
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class Constant(Schedule):
    """The base learning rate throughout."""

    name: ClassVar[str] = "constant"

    def _decay(
        self, steps: NDArray[np.float64], total_steps: int, steps_per_epoch: int
    ) -> NDArray[np.float64]:
        return np.ones_like(steps)


@dataclass(frozen=True)
class StepDecay(Schedule):
    """``factor ** (epoch // every)``: PyTorch's StepLR.

    Parameters
    ----------
    every : int
        Epochs between two steps down.
    factor : float
        What each multiplies the learning rate by.
    """

    every: int = 10
    factor: float = 0.1

    name: ClassVar[str] = "step"
    checks: ClassVar[Mapping[str, Check]] = {"every": Whole(1, _MOST), "factor": Number(above=0)}

    def _decay(
        self, steps: NDArray[np.float64], total_steps: int, steps_per_epoch: int
    ) -> NDArray[np.float64]:
        return self.factor ** (steps // (self.every * steps_per_epoch))


@dataclass(frozen=True)
class Exponential(Schedule):
    """``rate ** epoch``, smoothly between epochs: optax's exponential_decay without staircase.

    Parameters
    ----------
    rate : float
        What an epoch multiplies the learning rate by.
    """

    rate: float = 0.95

    name: ClassVar[str] = "exponential"
    checks: ClassVar[Mapping[str, Check]] = {"rate": Number(above=0)}

    def _decay(
        self, steps: NDArray[np.float64], total_steps: int, steps_per_epoch: int
    ) -> NDArray[np.float64]:
        return self.rate ** (steps / steps_per_epoch)


@dataclass(frozen=True)
class InverseTime(Schedule):
    """``1 / (1 + decay * epoch)``, smoothly between epochs: Keras's InverseTimeDecay.

    Parameters
    ----------
    decay : float
        After 1 / decay epochs the learning rate has halved.
    """

    decay: float = 0.1

    name: ClassVar[str] = "inverse_time"
    checks: ClassVar[Mapping[str, Check]] = {"decay": Number(0)}

    def _decay(
        self, steps: NDArray[np.float64], total_steps: int, steps_per_epoch: int
    ) -> NDArray[np.float64]:
        return 1.0 / (1.0 + self.decay * (steps / steps_per_epoch))


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from 1 down to `minimum` over the training.

    ``minimum + (1 - minimum) · ½(1 + cos(π t / T))``, where the training's T steps are t = 0 … T − 1.
    Loshchilov and Hutter, "SGDR: stochastic gradient descent with warm restarts", ICLR 2017, equation 5
    (https://arxiv.org/abs/1608.03983).

    Parameters
    ----------
    minimum : float
        The share of the base learning rate that it ends at.
    """

    minimum: float = 0.0

    name: ClassVar[str] = "cosine"
    checks: ClassVar[Mapping[str, Check]] = {"minimum": Number(0, 1)}

    def _decay(
        self, steps: NDArray[np.float64], total_steps: int, steps_per_epoch: int
    ) -> NDArray[np.float64]:
        return _cosine(1.0, self.minimum, np.minimum(steps, total_steps - 1) / total_steps)


@dataclass(frozen=True)
class OneCycle(Schedule):
    """Up to the base learning rate and down again, both along half a cosine: PyTorch's OneCycleLR.

    Smith and Topin, "Super-convergence", 2017 (https://arxiv.org/abs/1708.07120). It begins at 1 /
    div_factor, is at 1 at step ``pct_start * total - 1`` and ends at 1 / (div_factor · final_div_factor) with
    the last step.

    Parameters
    ----------
    pct_start : float
        The share of the steps on the way up.
    div_factor : float
        How many times smaller the first learning rate is than the greatest.
    final_div_factor : float
        How many times smaller the last learning rate is than the first.
    """

    pct_start: float = 0.3
    div_factor: float = 25.0
    final_div_factor: float = 1e4

    name: ClassVar[str] = "one_cycle"
    checks: ClassVar[Mapping[str, Check]] = {
        "pct_start": Number(0, 1),
        "div_factor": Number(1),
        "final_div_factor": Number(1),
    }

    def _decay(
        self, steps: NDArray[np.float64], total_steps: int, steps_per_epoch: int
    ) -> NDArray[np.float64]:
        first = 1.0 / self.div_factor
        last = first / self.final_div_factor
        end = total_steps - 1.0
        peak = max(self.pct_start * total_steps - 1.0, 0.0)
        up = _cosine(first, 1.0, np.minimum(steps / peak, 1.0) if peak > 0 else np.ones_like(steps))
        down = _cosine(1.0, last, np.clip((steps - peak) / max(end - peak, 1.0), 0.0, 1.0))
        return np.where(steps <= peak, up, down)


@dataclass(frozen=True)
class PlateauState:
    """What `ReduceOnPlateau` remembers between epochs; ``PlateauState(**state.to_json())`` is the same again.

    Parameters
    ----------
    factor : float
        The multiplier of the learning rate that holds now.
    best : float or None
        The best value seen, None before the first.
    waited : int
        Epochs since it, or since the last reduction.
    """

    factor: float = 1.0
    best: float | None = None
    waited: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the state as a JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class ReduceOnPlateau(Schedule):
    """Multiply the learning rate by `factor` when `patience` epochs in a row bring no improvement.

    Keras's rule of the same name. `factors` gives the warm-up alone; the trainer multiplies it by the
    ``factor`` of the state, which it passes through `observe` once an epoch.

    Parameters
    ----------
    factor : float
        What a reduction multiplies the learning rate by.
    patience : int
        Epochs to wait.
    min_delta : float
        An improvement is a change by more than this.
    minimum : float
        The share of the base learning rate below which it is not reduced.
    """

    factor: float = 0.5
    patience: int = 5
    min_delta: float = 1e-4
    minimum: float = 0.0

    name: ClassVar[str] = "reduce_on_plateau"
    checks: ClassVar[Mapping[str, Check]] = {
        "factor": Number(above=0, most=1),
        "patience": Whole(1, _MOST),
        "min_delta": Number(0),
        "minimum": Number(0, 1),
    }

    def _decay(
        self, steps: NDArray[np.float64], total_steps: int, steps_per_epoch: int
    ) -> NDArray[np.float64]:
        return np.ones_like(steps)

    def observe(self, state: PlateauState, value: float, mode: Literal["min", "max"] = "min") -> PlateauState:
        """Return the state after an epoch that ended with `value`.

        Parameters
        ----------
        state : PlateauState
            The state before it; ``PlateauState()`` at the start.
        value : float
            The epoch's validation loss or score. One that is not finite is no improvement.
        mode : {"min", "max"}
            Whether a smaller or a greater value is better.
        """
        gain = None if state.best is None else (state.best - value if mode == "min" else value - state.best)
        if math.isfinite(value) and (gain is None or gain > self.min_delta):
            return PlateauState(state.factor, float(value), 0)
        waited = state.waited + 1
        if waited < self.patience:
            return PlateauState(state.factor, state.best, waited)
        # A factor that is already below the minimum stays where it is.
        reduced = min(state.factor, max(state.factor * self.factor, self.minimum))
        return PlateauState(reduced, state.best, 0)


SCHEDULES: dict[str, type[Schedule]] = {
    kind.name: kind
    for kind in (Constant, StepDecay, Exponential, InverseTime, Cosine, OneCycle, ReduceOnPlateau)
}


def schedule_from(value: str | Mapping[str, Any] | Schedule) -> Schedule:
    """Return the schedule for a name, for a table such as ``{"name": "step", "every": 10}``, or as given.

    Raises
    ------
    ConfigError
        If the name or a parameter is unknown, or a parameter is of the wrong type or out of its range.
    """
    if isinstance(value, Schedule):
        return value
    options = {"name": value} if isinstance(value, str) else dict(value) if isinstance(value, Mapping) else {}
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise ConfigError('a schedule is a name or a table with one, such as {"name": "step", "every": 10}')
    if name not in SCHEDULES:
        raise unknown_name("schedule", name, SCHEDULES)
    known = [item.name for item in fields(SCHEDULES[name])]
    for key in options:
        if key not in known:
            raise unknown_name("parameter", key, known, f"of the schedule {name}")
    return SCHEDULES[name](**options)


def _cosine(start: float, end: float, share: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the way from `start` to `end` along half a cosine, at a share in [0, 1] of it."""
    return end + (start - end) * 0.5 * (1.0 + np.cos(np.pi * share))
